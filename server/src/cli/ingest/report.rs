//! What became of the documents: counted, with the first failures and near duplicates by name.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::time::Duration;

use cairn_client::PutResult;
use serde::Serialize;
use xxhash_rust::xxh3::xxh3_128;

use super::super::output;
use super::find::Unread;
use super::read::Origin;

/// Failures, and near duplicates, that are kept by name; the others are counted.
const NAMED_MAX: usize = 1_000;
/// Failures that are printed.
pub(super) const FAILURES_SHOWN: usize = 50;

/// What became of the documents.
#[derive(Debug, Default, Serialize)]
pub(in crate::cli) struct Summary {
    pub(in crate::cli) documents: u64,
    pub(in crate::cli) unchanged: u64,
    /// Nothing but white space and front matter; what was stored under the id is removed.
    pub(super) empty: u64,
    /// Not stored, because almost the same is stored already.
    pub(super) skipped: u64,
    /// Almost the same as a stored document, skipped or not.
    pub(super) near_duplicates: u64,
    /// Documents whose file is gone.
    pub(super) deleted: u64,
    pub(in crate::cli) failed: u64,
    pub(in crate::cli) chunks: u64,
    pub(in crate::cli) embedded: u64,
    pub(in crate::cli) bytes: u64,
    pub(in crate::cli) seconds: f64,
    /// It was stopped before the end; running it again goes on.
    pub(super) interrupted: bool,
    failures: Vec<FailedDocument>,
    near: Vec<Near>,
    /// The other failures, counted by the hash of their file: so many names would be no bound.
    #[serde(skip)]
    unnamed: HashMap<u128, u64>,
}

#[derive(Debug, Serialize)]
struct FailedDocument {
    #[serde(serialize_with = "shown")]
    what: Origin,
    why: String,
}

#[derive(Debug, Serialize)]
struct Near {
    id: String,
    of: String,
    skipped: bool,
}

impl Summary {
    pub(super) fn put(&mut self, put: PutResult) {
        self.unchanged += u64::from(put.unchanged);
        self.skipped += u64::from(put.skipped);
        self.chunks += u64::from(put.chunks);
        self.embedded += u64::from(put.embedded);
        if let Some(of) = put.near_duplicate_of {
            self.near_duplicates += 1;
            if self.near.len() < NAMED_MAX {
                self.near.push(Near {
                    id: put.id,
                    of,
                    skipped: put.skipped,
                });
            }
        }
    }

    pub(super) fn failed(&mut self, what: Origin, why: String) {
        self.failed += 1;
        if self.failures.len() < NAMED_MAX {
            self.failures.push(FailedDocument { what, why });
        } else {
            *self.unnamed.entry(hash(&what.file)).or_default() += 1;
        }
    }

    /// Folders that could not be read: each is one failure, whatever is in it.
    pub(in crate::cli) fn unread(&mut self, unread: impl IntoIterator<Item = Unread>) {
        for Unread { path, why } in unread {
            self.documents += 1;
            self.failed(Origin::new(&path, None), why);
        }
    }

    /// Failures of these files are tried again: they are neither failures nor documents any more. So are those of files below
    /// them, which were folders, as far as they are kept by name.
    pub(super) fn take_back(&mut self, files: &HashSet<String>) {
        let before = self.failures.len();
        let is_one = |above: &Path| above.to_str().is_some_and(|above| files.contains(above));
        self.failures
            .retain(|f| !Path::new(&f.what.file).ancestors().any(is_one));
        let named = (before - self.failures.len()) as u64;
        let unnamed = files.iter().filter_map(|file| self.unnamed.remove(&hash(file)));
        let taken = named + unnamed.sum::<u64>();
        self.failed -= taken;
        self.documents -= taken;
    }

    /// Documents that were written.
    pub(super) fn written(&self) -> u64 {
        self.documents - self.unchanged - self.empty - self.skipped - self.failed
    }

    pub(in crate::cli) fn show_failures(&self) {
        for failure in self.failures.iter().take(FAILURES_SHOWN) {
            output::error(&format!("{}: {}", failure.what, failure.why));
        }
    }
}

fn hash(file: &str) -> u128 {
    xxh3_128(file.as_bytes())
}

fn shown<S: serde::Serializer>(what: &Origin, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(what)
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let time = Duration::from_secs_f64(self.seconds);
        write!(
            f,
            "{} documents ({}) in {:.1} s: {} new or changed, {} unchanged, {} empty, {} failed",
            output::number(self.documents),
            output::bytes(self.bytes),
            self.seconds,
            output::number(self.written()),
            output::number(self.unchanged),
            output::number(self.empty),
            output::number(self.failed),
        )?;
        for (n, what) in [
            (self.near_duplicates, "near duplicates"),
            (self.skipped, "skipped"),
            (self.deleted, "deleted"),
        ] {
            if n > 0 {
                write!(f, ", {} {what}", output::number(n))?;
            }
        }
        write!(
            f,
            "; {} chunks, {} embedded; {} documents/s, {} chunks/s",
            output::number(self.chunks),
            output::number(self.embedded),
            output::rate(self.documents, time),
            output::rate(self.chunks, time),
        )?;
        if self.interrupted {
            f.write_str("; stopped before the end, run it again to go on")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(file: &str, line: Option<u64>) -> Origin {
        Origin {
            file: file.to_owned(),
            line,
        }
    }

    #[test]
    fn what_is_kept_by_name_is_bounded_and_what_is_counted_is_not() {
        let mut summary = Summary::default();
        for n in 0..2 * NAMED_MAX {
            summary.documents += 1;
            summary.failed(origin(&n.to_string(), None), "why".into());
        }
        assert_eq!(
            (summary.failed, summary.failures.len(), summary.written()),
            (2_000, NAMED_MAX, 0)
        );
        assert!(summary.to_string().contains("2,000 failed; 0 chunks"), "{summary}");
    }

    #[test]
    fn what_is_tried_again_has_not_failed() {
        let mut summary = Summary::default();
        let whole = ["a/x.md", "b:c.md", "a/y.md"].map(|file| origin(file, None));
        let rows = [3, 4].map(|line| origin("rows.csv", Some(line)));
        for what in whole.into_iter().chain(rows) {
            summary.documents += 1;
            summary.failed(what, "why".into());
        }
        summary.take_back(&["a/x.md", "rows.csv", "b:c.md"].map(str::to_owned).into());
        assert_eq!(
            (
                summary.documents,
                summary.failed,
                summary.failures[0].what.file.as_str()
            ),
            (1, 1, "a/y.md")
        );
        summary.take_back(&["a/y".to_owned(), "b".to_owned()].into());
        assert_eq!(summary.failed, 1, "not below these");
        summary.take_back(&["a".to_owned()].into());
        assert_eq!((summary.documents, summary.failed), (0, 0));
    }

    #[test]
    fn what_is_tried_again_has_not_failed_though_it_was_only_counted() {
        let mut summary = Summary::default();
        for line in 0..3 * NAMED_MAX as u64 {
            summary.documents += 1;
            let file = if line % 3 == 0 { "good.csv" } else { "bad.csv" };
            summary.failed(origin(file, Some(line)), "why".into());
        }
        summary.take_back(&["good.csv".to_owned()].into());
        assert_eq!((summary.documents, summary.failed), (2_000, 2_000));
        summary.take_back(&["good.csv".to_owned(), "bad.csv".to_owned()].into());
        assert_eq!((summary.documents, summary.failed, summary.written()), (0, 0, 0));
    }
}
