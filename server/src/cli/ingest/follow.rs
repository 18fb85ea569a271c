//! `--watch`: round after round of what changed, until somebody says stop.
//!
//! Nothing ends it but that: what fails for a reason that may pass (the server restarts, its embedder is busy) is looked at
//! again after a while, and so is everything if the directory cannot be read just now.

use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use cairn_client::Collection;
use tokio::time::{Instant, sleep_until};

use super::find::{Now, find, look};
use super::watch::{Changes, Watch};
use super::{Failure, Ingest, Plan, Progress, Source, Summary, ingest, output};

/// Documents listed, or deleted, in one request.
const PAGE: u32 = 1_000;
/// How long it is waited before what failed is looked at again; twice as long each time, up to the second.
const AGAIN_FIRST: Duration = Duration::from_secs(2);
const AGAIN_MAX: Duration = Duration::from_secs(300);

/// What is followed, and what is known of it.
pub(super) struct Follow<'a> {
    pub(super) ingest: &'a Ingest,
    pub(super) collection: &'a Collection,
    pub(super) plan: &'a Plan,
    /// Ids of files that were there, for when only looking at everything tells which are gone. Kept if what is gone is to
    /// be deleted.
    pub(super) known: BTreeSet<String>,
    pub(super) again: Again,
}

/// What is to be looked at again, and when.
#[derive(Debug, Default)]
pub(super) struct Again {
    paths: BTreeSet<PathBuf>,
    everything: bool,
    /// Rounds in a row that left something over.
    rounds: u32,
    due: Option<Instant>,
}

impl Follow<'_> {
    /// Everything that is there.
    pub(super) async fn first(&mut self, sources: Vec<Source>, progress: &Progress, summary: &mut Summary) {
        self.put(sources, progress, summary).await;
        self.again.settle();
        if !self.plan.stop.is_asked() {
            output::note(format!("{summary}\nwatching; Ctrl-C ends it"));
        }
    }

    /// What changes, until somebody says stop.
    pub(super) async fn changes(&mut self, mut watch: Watch, summary: &mut Summary) {
        while !self.plan.stop.is_asked() {
            let changes = tokio::select! {
                () = self.plan.stop.asked() => break,
                () = self.again.due() => Changes::Paths(BTreeSet::new()),
                changes = watch.changes() => changes,
            };
            let changes = self.again.join(changes);
            let (sources, gone) = self.look(&changes);
            if !sources.is_empty() {
                let (written, failed) = (summary.written(), summary.failed);
                self.put(sources, &Progress::new(false), summary).await;
                let written = summary.written().saturating_sub(written);
                let failed = summary.failed.saturating_sub(failed);
                if written + failed > 0 {
                    output::note(format!("{written} new or changed, {failed} failed"));
                }
            }
            if self.ingest.delete_missing
                && let Err(failure) = self.delete(gone, summary).await
            {
                output::error(&failure.message);
                match changes {
                    Changes::Anything => self.again.everything = true,
                    Changes::Paths(paths) => self.again.paths.extend(paths),
                }
            }
            self.again.settle();
        }
    }

    /// What is there to read, and what is gone.
    fn look(&mut self, changes: &Changes) -> (Vec<Source>, Vec<Now>) {
        let (roots, prefix) = (&self.ingest.paths, &self.ingest.prefix);
        let (mut sources, mut gone) = (Vec::new(), Vec::new());
        match changes {
            // Events of what is gone may be among those that were lost.
            Changes::Anything => match find(roots, prefix) {
                Ok(found) => {
                    let there: HashSet<&str> = found.iter().map(|source| source.id.as_str()).collect();
                    let missing = self.known.iter().filter(|id| !there.contains(id.as_str()));
                    gone.extend(missing.cloned().map(Now::Gone));
                    sources = found;
                }
                // It changes while we look.
                Err(failure) => {
                    output::error(&failure.message);
                    self.again.everything = true;
                }
            },
            Changes::Paths(paths) => {
                for path in paths {
                    match look(roots, path, prefix) {
                        Now::There(found) => sources.extend(found),
                        Now::Nothing => {}
                        now => gone.push(now),
                    }
                }
            }
        }
        // A new directory is found by its own event and by those of its files.
        sources.sort_by(|a, b| a.path.cmp(&b.path));
        sources.dedup_by(|a, b| a.path == b.path);
        (sources, gone)
    }

    /// Sends what was found. What may be taken later is looked at again.
    async fn put(&mut self, sources: Vec<Source>, progress: &Progress, summary: &mut Summary) {
        if self.ingest.delete_missing {
            let whole = sources.iter().filter(|source| source.kind.is_whole());
            self.known.extend(whole.map(|source| source.id.clone()));
        }
        let paths: Vec<PathBuf> = sources.iter().map(|source| source.path.clone()).collect();
        match ingest(self.collection, sources, self.plan, progress, summary).await {
            Ok(later) => {
                let failed = |path: &PathBuf| later.contains(&name(path));
                self.again.paths.extend(paths.into_iter().filter(failed));
                summary.take_back(&self.again.paths.iter().map(|path| name(path)).collect());
            }
            // Nothing of it is known to be stored, and sending what is costs little.
            Err(failure) => {
                output::error(&failure.message);
                summary.take_back(&paths.iter().map(|path| name(path)).collect());
                self.again.paths.extend(paths);
            }
        }
    }

    /// Deletes the documents of what is gone.
    async fn delete(&mut self, gone: Vec<Now>, summary: &mut Summary) -> Result<(), Failure> {
        let mut ids = Vec::new();
        for now in gone {
            match now {
                Now::Gone(id) => {
                    if self.collection.get_document(&id).await?.is_some() {
                        ids.push(id);
                    } else {
                        self.known.remove(&id);
                    }
                }
                // A directory: everything below it.
                Now::GoneBelow(start) => {
                    let mut after = Some(start.clone());
                    while let Some(last) = after {
                        let page = self.collection.list_documents(Some(&last), Some(PAGE)).await?;
                        let below = page.documents.into_iter().map(|d| d.id);
                        let below: Vec<String> = below.take_while(|id| id.starts_with(&start)).collect();
                        after = page.next.filter(|next| next.starts_with(&start));
                        ids.extend(below);
                    }
                }
                Now::There(_) | Now::Nothing => {}
            }
        }
        for ids in ids.chunks(PAGE as usize) {
            self.collection.delete_documents(ids.iter().cloned()).await?;
            summary.deleted += ids.len() as u64;
            ids.iter().for_each(|id| {
                self.known.remove(id);
            });
        }
        if !ids.is_empty() {
            output::note(format!("{} deleted", ids.len()));
        }
        Ok(())
    }
}

impl Again {
    /// Ends when it is time to look again; never, if there is nothing to look at.
    async fn due(&self) {
        match self.due {
            Some(at) => sleep_until(at).await,
            None => std::future::pending().await,
        }
    }

    /// What changed, together with what was left over.
    fn join(&mut self, changes: Changes) -> Changes {
        let left = std::mem::take(&mut self.paths);
        let everything = std::mem::take(&mut self.everything);
        match changes {
            Changes::Paths(mut paths) if !everything => {
                paths.extend(left);
                Changes::Paths(paths)
            }
            Changes::Paths(_) | Changes::Anything => Changes::Anything,
        }
    }

    /// After a round: what is left over waits, longer each time.
    fn settle(&mut self) {
        if self.paths.is_empty() && !self.everything {
            *self = Self::default();
            return;
        }
        let wait = AGAIN_FIRST.saturating_mul(1_u32.checked_shl(self.rounds).unwrap_or(u32::MAX));
        self.rounds = self.rounds.saturating_add(1);
        self.due = Some(Instant::now() + wait.min(AGAIN_MAX));
    }
}

/// A file as the report names it.
fn name(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(names: &[&str]) -> BTreeSet<PathBuf> {
        names.iter().map(PathBuf::from).collect()
    }

    #[test]
    fn what_is_left_over_waits_longer_each_time_and_joins_what_changes() {
        let mut again = Again::default();
        again.settle();
        assert_eq!(again.due, None);
        let mut before = Duration::ZERO;
        for round in 0..40 {
            again.paths = paths(&["a"]);
            again.settle();
            let wait = again.due.unwrap() - Instant::now();
            assert!(
                wait <= AGAIN_MAX && wait + Duration::from_secs(1) > before,
                "round {round}"
            );
            before = wait;
        }
        assert!(before > AGAIN_MAX / 2);
        assert_eq!(
            again.join(Changes::Paths(paths(&["b"]))),
            Changes::Paths(paths(&["a", "b"]))
        );
        again.settle();
        assert_eq!((again.due, again.rounds), (None, 0), "nothing is left");
        again.everything = true;
        assert_eq!(again.join(Changes::Paths(paths(&["b"]))), Changes::Anything);
        assert_eq!(again.join(Changes::Paths(paths(&["b"]))), Changes::Paths(paths(&["b"])));
    }
}
