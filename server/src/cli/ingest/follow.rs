//! `--watch`: round after round of what changed, until somebody says stop.
//!
//! Nothing ends it but that: what fails for a reason that may pass (the server restarts, its embedder is busy) is looked at
//! again after a while, and so is a folder that cannot be read just now, or that is away.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cairn_client::{Collection, ErrorKind, OnNearDuplicate};
use futures::{StreamExt, TryStreamExt};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until};

use super::find::Found;
use super::known::{Known, Look};
use super::watch::{Changes, DOUBT_EVERY, Watch};
use super::{Failure, Plan, Progress, Source, Summary, ingest, output};

/// Documents deleted in one request.
const PAGE: usize = 1_000;
/// How long it is waited before what failed is looked at again; twice as long each time, up to the second.
const AGAIN_FIRST: Duration = Duration::from_secs(2);
const AGAIN_MAX: Duration = Duration::from_secs(300);

/// What is followed.
pub(super) struct Follow<'a> {
    pub(super) collection: &'a Collection,
    pub(super) plan: &'a Plan,
    pub(super) known: Known,
    pub(super) again: Again,
}

/// What is to be looked at again, and when.
#[derive(Debug, Default)]
pub(super) struct Again {
    paths: BTreeSet<PathBuf>,
    /// What the last round left over.
    left: BTreeSet<PathBuf>,
    /// Rounds in a row that left nothing new over.
    rounds: u32,
    due: Option<Instant>,
}

impl Follow<'_> {
    /// Everything that is there.
    pub(super) async fn first(&mut self, found: Found, progress: &Progress, summary: &mut Summary) {
        let look = self.known.first(found);
        self.tell_unread(&look);
        self.put(look.files, progress, summary).await;
        self.again.settle();
        if !self.plan.stop.is_asked() {
            output::note(format!("{summary}\nwatching; Ctrl-C ends it"));
        }
    }

    /// What changes, until somebody says stop.
    pub(super) async fn changes(&mut self, mut watch: Watch, summary: &mut Summary) {
        let mut doubt = interval_at(Instant::now() + DOUBT_EVERY, DOUBT_EVERY);
        doubt.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !self.plan.stop.is_asked() {
            let nothing = Changes::Paths(BTreeSet::new());
            let (changes, due) = tokio::select! {
                () = self.plan.stop.asked() => break,
                () = self.again.due() => (nothing, true),
                _ = doubt.tick() => (nothing, watch.doubt()),
                changes = watch.changes() => (changes, false),
            };
            // What happens next to what is followed is no reason to try again what failed.
            if due || self.known.concerns(&changes) {
                self.round(changes, &mut watch, summary).await;
            }
        }
        // What failed and was to be tried again is no failure, and is not done.
        summary.interrupted |= self.again.paths.iter().any(|path| path.is_file());
        summary.unread(self.known.unread());
    }

    async fn round(&mut self, changes: Changes, watch: &mut Watch, summary: &mut Summary) {
        let changes = self.again.join(changes);
        // Before anything is looked at, so that what changes after that makes an event.
        let changes = if watch.renew() { Changes::Anything } else { changes };
        self.again.paths.extend(watch.dead().cloned());
        let look = self.known.look(&changes);
        for folder in &look.readable {
            // What changes in it while that begins is found the next time.
            watch.add(folder);
            self.again.paths.insert(folder.clone());
        }
        self.tell_unread(&look);
        // A failure of before is none any more: it is tried again, or there is nothing to try.
        let looked_at = self.known.looked_at(&changes);
        let looked = look
            .files
            .iter()
            .map(|file| &file.path)
            .chain(&look.gone)
            .chain(&looked_at);
        summary.take_back(&looked.map(|path| name(path)).collect());
        let files: BTreeSet<PathBuf> = if look.gone.is_empty() {
            BTreeSet::new()
        } else {
            look.files.iter().map(|file| file.path.clone()).collect()
        };
        if self.plan.on_near_duplicate == OnNearDuplicate::Store {
            self.put_changed(look.files, summary).await;
            self.delete(look.gone, &files, summary).await;
        // A file that was renamed is almost the same as what is stored under its old name: that goes first, or both would.
        } else if self.delete(look.gone, &files, summary).await {
            self.put_changed(look.files, summary).await;
        } else {
            self.again.paths.extend(files);
        }
        self.again.settle();
    }

    async fn put_changed(&mut self, files: Vec<Source>, summary: &mut Summary) {
        if files.is_empty() {
            return;
        }
        let (written, failed) = (summary.written(), summary.failed);
        self.put(files, &Progress::new(false), summary).await;
        let written = summary.written().saturating_sub(written);
        let failed = summary.failed.saturating_sub(failed);
        if written + failed > 0 {
            output::note(format!("{written} new or changed, {failed} failed"));
        }
    }

    /// Folders that cannot be read are told when they are found, and tried again.
    fn tell_unread(&mut self, look: &Look) {
        for unread in &look.unread {
            output::error(&format!("{}: {}", unread.path.display(), unread.why));
        }
        self.again.paths.extend(self.known.unread().map(|unread| unread.path));
    }

    /// Sends what was found. What may be taken later is looked at again.
    async fn put(&mut self, sources: Vec<Source>, progress: &Progress, summary: &mut Summary) {
        let paths: Vec<PathBuf> = sources.iter().map(|source| source.path.clone()).collect();
        match ingest(self.collection, sources, self.plan, progress, summary).await {
            Ok(later) => {
                summary.take_back(&later);
                let failed = |path: &PathBuf| later.contains(&name(path));
                self.later(paths.into_iter().filter(failed).collect());
            }
            // Nothing of it is known to be stored, and sending what is costs little.
            Err(failure) => {
                output::error(&failure.message);
                summary.take_back(&paths.iter().map(|path| name(path)).collect());
                self.later(paths);
            }
        }
    }

    fn later(&mut self, files: Vec<PathBuf>) {
        if !files.is_empty() {
            output::note(format!("{} to be tried again", files.len()));
        }
        self.again.paths.extend(files);
    }

    /// Deletes the documents of files that are gone; `files` were found with that. False if it is to be tried again.
    async fn delete(&mut self, mut gone: BTreeSet<PathBuf>, files: &BTreeSet<PathBuf>, summary: &mut Summary) -> bool {
        // They were looked for some time ago, if much was put since.
        let back = self.known.back(&gone);
        gone.retain(|path| !back.contains(path));
        self.again.paths.extend(back);
        let (ids, others) = self.known.documents(&gone);
        // What is stored under their id may be what the other file held.
        self.again
            .paths
            .extend(others.into_iter().filter(|path| !files.contains(path)));
        match self.delete_documents(ids, summary).await {
            Ok(()) => {
                self.known.forget(&gone);
                true
            }
            Err(failure) => {
                output::error(&failure.message);
                self.again.paths.extend(gone);
                false
            }
        }
    }

    async fn delete_documents(&self, ids: BTreeSet<String>, summary: &mut Summary) -> Result<(), Failure> {
        let collection = self.collection;
        // A file that failed was perhaps never stored.
        let stored = futures::stream::iter(ids)
            .map(|id| async move {
                match collection.get_document(&id).await {
                    Ok(stored) => Ok(stored.map(|_| id)),
                    // Under an id that is none nothing is.
                    Err(e) if e.kind() == ErrorKind::Invalid => Ok(None),
                    Err(e) => Err(Failure::from(e)),
                }
            })
            .buffer_unordered(self.plan.parallel)
            .try_filter_map(|id| async move { Ok(id) });
        let ids: Vec<String> = stored.try_collect().await?;
        for ids in ids.chunks(PAGE) {
            collection.delete_documents(ids).await?;
            summary.deleted += ids.len() as u64;
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
        match changes {
            Changes::Paths(mut paths) => {
                paths.extend(left);
                Changes::Paths(paths)
            }
            Changes::Anything => Changes::Anything,
        }
    }

    /// After a round: what is left over waits, longer each time, and what is new to that does not wait for the others.
    fn settle(&mut self) {
        if self.paths.is_empty() {
            *self = Self::default();
            return;
        }
        if !self.paths.is_subset(&self.left) {
            self.rounds = 0;
        }
        self.left.clone_from(&self.paths);
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
        again.paths = paths(&["a"]);
        assert_eq!(again.join(Changes::Anything), Changes::Anything);
        assert_eq!(again.join(Changes::Paths(paths(&["b"]))), Changes::Paths(paths(&["b"])));
    }

    #[test]
    fn what_fails_for_the_first_time_does_not_wait_as_long_as_what_fails_for_ever() {
        let mut again = Again::default();
        let mut rounds = |left: &[&str]| {
            again.paths = paths(left);
            again.settle();
            again.rounds
        };
        for round in 1..20 {
            assert_eq!(rounds(&["locked"]), round);
        }
        assert_eq!(rounds(&["locked", "new.md"]), 1);
        assert_eq!(rounds(&["locked", "new.md"]), 2);
        assert_eq!(rounds(&["locked"]), 3);
    }
}
