//! Another library, in a Python process of its own (`peers.py` has the protocol). The process ends with its input.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, ensure};
use cairn_engine::schema::Metric;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{Built, Contestant, K};

pub(crate) struct Peer {
    name: String,
    process: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
    ids: PathBuf,
    queries: usize,
    values: Vec<usize>,
    threads: Vec<usize>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Hello {
    Skip { skip: String },
    Ready { values: Vec<usize>, threads: Vec<usize> },
}

#[derive(Deserialize)]
struct BuildAnswer {
    build_s: f64,
    rss_mb: f64,
    disk_mb: f64,
}

#[derive(Deserialize)]
struct SearchAnswer {
    seconds: f64,
}

#[derive(Deserialize)]
struct FilteredAnswer {
    ms: Vec<f64>,
}

impl Peer {
    /// The inner error says why it cannot take part. `place` holds the vectors and so many queries; `lists` is for those that
    /// have inverted lists.
    pub(crate) fn start(
        python: &str,
        name: &str,
        place: &Path,
        metric: Metric,
        queries: usize,
        lists: Option<usize>,
    ) -> anyhow::Result<Result<Self, String>> {
        let script = place.join("peers.py");
        std::fs::write(&script, include_str!("peers.py"))?;
        let metric = match metric {
            Metric::Euclid => "euclid",
            Metric::Hamming => "hamming",
            Metric::Cosine | Metric::Dot | Metric::Manhattan => "cosine",
        };
        let started = Command::new(python)
            .arg(&script)
            .args([name, &place.display().to_string(), metric])
            .args(lists.map(|lists| lists.to_string()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let mut process = match started {
            Ok(process) => process,
            Err(why) => return Ok(Err(format!("{python}: {why}"))),
        };
        let commands = process.stdin.take().context("piped")?;
        let answers = BufReader::new(process.stdout.take().context("piped")?);
        let mut peer = Self {
            name: name.to_owned(),
            process,
            commands,
            answers,
            ids: place.join(format!("{name}.ids")),
            queries,
            values: Vec::new(),
            threads: Vec::new(),
        };
        Ok(match peer.answer() {
            Ok(Hello::Ready { values, threads }) => {
                (peer.values, peer.threads) = (values, threads);
                Ok(peer)
            }
            Ok(Hello::Skip { skip }) => Err(skip),
            Err(why) => Err(format!("{why:#}")),
        })
    }

    /// Answers each query under the filter that `filters.json` has for it: milliseconds, and ten ids a query (-1: none).
    pub(crate) fn filtered(&mut self, how: &str) -> anyhow::Result<(Vec<f64>, Vec<i32>)> {
        let FilteredAnswer { ms } = self.ask(&format!("filtered {how}"))?;
        ensure!(
            ms.len() == self.queries,
            "{} times for {} queries",
            ms.len(),
            self.queries
        );
        Ok((ms, self.ids()?))
    }

    /// Those of its last answer.
    fn ids(&self) -> anyhow::Result<Vec<i32>> {
        let bytes = std::fs::read(&self.ids)?;
        let ids: Vec<i32> = bytes.as_chunks().0.iter().map(|b| i32::from_le_bytes(*b)).collect();
        ensure!(
            ids.len() == self.queries * K,
            "{} ids for {} queries",
            ids.len(),
            self.queries
        );
        Ok(ids)
    }

    fn ask<T: DeserializeOwned>(&mut self, command: &str) -> anyhow::Result<T> {
        writeln!(self.commands, "{command}").context("its process has ended")?;
        self.answer()
    }

    fn answer<T: DeserializeOwned>(&mut self) -> anyhow::Result<T> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        ensure!(!line.is_empty(), "its process has ended");
        serde_json::from_str(&line).with_context(|| line.trim().to_owned())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Nothing is lost with it, and a process that hangs must not outlive the bench.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Contestant for Peer {
    fn name(&self) -> &str {
        &self.name
    }

    fn threads(&self) -> &[usize] {
        &self.threads
    }

    fn values(&self) -> &[usize] {
        &self.values
    }

    fn build(&mut self, threads: usize) -> anyhow::Result<Built> {
        let built: BuildAnswer = self.ask(&format!("build {threads}"))?;
        Ok(Built {
            seconds: built.build_s,
            memory_mib: built.rss_mb,
            disk_mib: Some(built.disk_mb),
        })
    }

    fn search(&mut self, value: usize, threads: usize) -> anyhow::Result<(f64, Vec<i32>)> {
        let found: SearchAnswer = self.ask(&format!("search {value} {threads}"))?;
        Ok((found.seconds, self.ids()?))
    }
}
