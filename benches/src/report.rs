//! What a bench says: a table for people, flat records for machines, and whether promises held.

use std::fs::{File, OpenOptions};
use std::io::Write;

use anyhow::Context;
use serde::Serialize;

use crate::place;

/// How a bench ended.
pub(crate) enum Verdict {
    /// Everything that was promised held.
    Held,
    /// These promises did not.
    Broken(Vec<String>),
    /// What was asked for was not measured, for this reason.
    Skipped(String),
}

impl Verdict {
    /// Broken if there is anything to complain about.
    pub(crate) fn of(broken: Vec<String>) -> Self {
        if broken.is_empty() {
            Self::Held
        } else {
            Self::Broken(broken)
        }
    }

    /// Of two benches: the first one's skip has been said when this returns.
    pub(crate) fn and(self, next: Self) -> Self {
        let promises = |v: Self| match v {
            Self::Held => Vec::new(),
            Self::Broken(promises) => promises,
            Self::Skipped(why) => {
                println!("\n******** SKIPPED: {why} ********\n");
                Vec::new()
            }
        };
        let mut all = promises(self);
        all.extend(promises(next));
        Self::of(all)
    }
}

/// One line of `target/bench/<bench>.jsonl`.
#[derive(Serialize)]
struct Record<'a> {
    bench: &'a str,
    case: &'a str,
    metric: &'a str,
    value: f64,
    unit: &'a str,
    peer: Option<&'a str>,
    commit: &'a str,
    machine: &'a str,
}

/// Collects a bench's records.
pub(crate) struct Report {
    bench: &'static str,
    file: File,
}

impl Report {
    /// Starts a bench: says what is measured, where and on what.
    pub(crate) fn begin(bench: &'static str) -> anyhow::Result<Self> {
        let dir = place::workspace().join("target/bench");
        std::fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
        let path = dir.join(format!("{bench}.jsonl"));
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .with_context(|| path.display().to_string())?;
        println!("== {bench}: commit {}, {}", place::commit(), place::machine());
        Ok(Self { bench, file })
    }

    /// Appends one number.
    pub(crate) fn record(&mut self, case: &str, metric: &str, value: f64, unit: &str) -> anyhow::Result<()> {
        self.record_peer(case, metric, value, unit, None)
    }

    /// Appends one number of somebody else, if there is a peer.
    pub(crate) fn record_peer(
        &mut self,
        case: &str,
        metric: &str,
        value: f64,
        unit: &str,
        peer: Option<&str>,
    ) -> anyhow::Result<()> {
        let record = Record {
            bench: self.bench,
            case,
            metric,
            value,
            unit,
            peer,
            commit: place::commit(),
            machine: place::machine(),
        };
        let mut line = serde_json::to_string(&record)?;
        line.push('\n');
        Ok(self.file.write_all(line.as_bytes())?)
    }
}

/// Rows of text, aligned when printed: the first column left, the others right.
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new<const N: usize>(head: [&str; N]) -> Self {
        Self {
            rows: vec![head.iter().map(|h| (*h).to_owned()).collect()],
        }
    }

    pub(crate) fn row(&mut self, row: Vec<String>) {
        self.rows.push(row);
    }

    pub(crate) fn print(&self) {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |c: usize| {
            self.rows
                .iter()
                .filter_map(|r| r.get(c))
                .map(|t| t.chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for (i, row) in self.rows.iter().enumerate() {
            let mut line = String::new();
            for (c, (text, width)) in row.iter().zip(&widths).enumerate() {
                if c == 0 {
                    line.push_str(&format!("{text:<width$}"));
                } else {
                    line.push_str(&format!("  {text:>width$}"));
                }
            }
            println!("{}", line.trim_end());
            if i == 0 {
                println!(
                    "{}",
                    "-".repeat(widths.iter().sum::<usize>() + 2 * columns.saturating_sub(1))
                );
            }
        }
    }
}
