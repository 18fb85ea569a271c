//! What must be there: a file of intents and outcomes that the database never sees, and its fold.
//!
//! One JSON object a line, appended: an intent before its request is sent; its outcome after; and, for an operation of which nobody
//! knew, what the judge found. The expected state is a fold over these lines and nothing else. The file outlives the server's
//! processes, not ours, so it needs no fsync.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use super::work;

/// Number of an operation; larger is later, over all writers.
pub type Op = u64;

/// One line.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// About to be sent.
    Intent { writer: usize, op: Op, what: What },
    /// What the caller was told.
    Outcome { writer: usize, op: Op, is: Outcome },
    /// What the judge found of an unknown one.
    Judged { writer: usize, op: Op, happened: bool },
}

/// What was asked for. Keys are points' numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    Upsert(Vec<u32>),
    SetPayload(Vec<u32>),
    Delete(Vec<u32>),
    /// Every point of this writer and group, by filter.
    DeleteGroup(u32),
    PutDocument(u32),
    DeleteDocument(u32),
}

/// What came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Durable, says the server.
    Acked,
    /// Not done, says the server.
    Refused,
    /// No answer: done or not.
    Unknown,
}

/// A live point: which operations its bytes are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PointState {
    /// The upsert.
    pub upsert: Op,
    /// The last payload change after it.
    pub set: Option<Op>,
}

/// What must be there, and what may.
#[derive(Debug, Clone, Default)]
pub struct Expected {
    pub points: BTreeMap<u32, PointState>,
    pub documents: BTreeMap<u32, Op>,
    /// By writer: the operation of which nobody knows.
    pub pending: BTreeMap<usize, (Op, What)>,
}

impl Expected {
    /// What an operation does when it happens.
    pub fn apply(&mut self, writer: usize, op: Op, what: &What) {
        match what {
            What::Upsert(keys) => {
                self.points
                    .extend(keys.iter().map(|key| (*key, PointState { upsert: op, set: None })));
            }
            What::SetPayload(keys) => {
                for key in keys {
                    if let Some(state) = self.points.get_mut(key) {
                        state.set = Some(op);
                    }
                }
            }
            What::Delete(keys) => {
                for key in keys {
                    self.points.remove(key);
                }
            }
            What::DeleteGroup(group) => {
                self.points
                    .retain(|key, _| work::writer_of(*key) != writer || work::group_of(*key) != *group);
            }
            What::PutDocument(document) => {
                self.documents.insert(*document, op);
            }
            What::DeleteDocument(document) => {
                self.documents.remove(document);
            }
        }
    }

    fn take(&mut self, line: Line) {
        match line {
            Line::Intent { writer, op, what } => {
                self.pending.insert(writer, (op, what));
            }
            Line::Outcome {
                writer,
                op,
                is: Outcome::Acked,
            }
            | Line::Judged {
                writer,
                op,
                happened: true,
            } => {
                if let Some((intended, what)) = self.pending.remove(&writer) {
                    debug_assert_eq!(intended, op, "a writer waits for each answer");
                    self.apply(writer, op, &what);
                }
            }
            Line::Outcome {
                writer,
                is: Outcome::Refused,
                ..
            }
            | Line::Judged {
                writer,
                happened: false,
                ..
            } => {
                self.pending.remove(&writer);
            }
            Line::Outcome {
                is: Outcome::Unknown, ..
            } => {}
        }
    }
}

/// The file.
pub struct Oracle {
    path: PathBuf,
    file: std::sync::Mutex<File>,
}

impl Oracle {
    pub fn create(path: &Path) -> anyhow::Result<Self> {
        let file = OpenOptions::new()
            .create_new(true)
            .append(true)
            .open(path)
            .with_context(|| path.display().to_string())?;
        Ok(Self {
            path: path.to_owned(),
            file: std::sync::Mutex::new(file),
        })
    }

    /// Appends a line; it is in the file when this returns.
    pub fn say(&self, line: &Line) -> anyhow::Result<()> {
        let mut text = serde_json::to_string(line)?;
        text.push('\n');
        let mut file = self
            .file
            .lock()
            .map_err(|_| anyhow::anyhow!("a writer of the oracle panicked"))?;
        Ok(file.write_all(text.as_bytes())?)
    }

    /// The fold of the whole file.
    pub fn expected(&self) -> anyhow::Result<Expected> {
        let mut expected = Expected::default();
        for line in BufReader::new(File::open(&self.path)?).lines() {
            expected.take(serde_json::from_str(&line?)?);
        }
        Ok(expected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_acknowledged_or_found_is_expected() {
        let dir = tempfile::tempdir().unwrap();
        let oracle = Oracle::create(&dir.path().join("o")).unwrap();
        let intent = |op, what| Line::Intent { writer: 0, op, what };
        let outcome = |op, is| Line::Outcome { writer: 0, op, is };
        for line in [
            intent(1, What::Upsert(vec![1, 2])),
            outcome(1, Outcome::Acked),
            intent(2, What::Delete(vec![1])),
            outcome(2, Outcome::Refused),
            intent(3, What::SetPayload(vec![2, 9])),
            outcome(3, Outcome::Unknown),
            Line::Judged {
                writer: 0,
                op: 3,
                happened: true,
            },
            intent(4, What::Upsert(vec![7])),
            outcome(4, Outcome::Unknown),
            Line::Judged {
                writer: 0,
                op: 4,
                happened: false,
            },
            intent(5, What::Delete(vec![2])),
        ] {
            oracle.say(&line).unwrap();
        }
        let expected = oracle.expected().unwrap();
        let state = |upsert, set| PointState { upsert, set };
        assert_eq!(
            expected.points,
            BTreeMap::from([(1, state(1, None)), (2, state(1, Some(3)))])
        );
        assert_eq!(expected.pending, BTreeMap::from([(0, (5, What::Delete(vec![2])))]));
    }
}
