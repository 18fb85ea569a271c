//! Which paths changed? Events of the system, gathered until it is quiet: an editor makes several of one save, and a
//! checkout thousands.
//!
//! Nothing is lost: when there are more events than are kept, or the system itself lost some, the answer is to look at
//! everything again.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc::{self, Receiver};
use tokio::time::{Instant, timeout_at};

use super::super::Failure;

/// How long nothing may change before what changed is looked at.
const QUIET: Duration = Duration::from_millis(300);
/// Longer than this nobody waits for quiet.
const GATHER_MAX: Duration = Duration::from_secs(5);
/// Events that wait to be gathered, and paths that are gathered.
const EVENTS_MAX: usize = 10_000;

pub(super) struct Watch {
    events: Receiver<Vec<PathBuf>>,
    lost: Arc<AtomicBool>,
    /// What changed since the last answer. Here, so that nothing is lost if nobody waits for the answer.
    gathered: BTreeSet<PathBuf>,
    /// Stops watching when dropped.
    _watcher: RecommendedWatcher,
}

/// What changed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Changes {
    Paths(BTreeSet<PathBuf>),
    /// Nobody knows what.
    Anything,
}

impl Watch {
    /// Watches directories with everything below them, and single files. The paths must be absolute: events are.
    pub(super) fn start(roots: &[PathBuf]) -> Result<Self, Failure> {
        let (send, events) = mpsc::channel(EVENTS_MAX);
        let lost = Arc::new(AtomicBool::new(false));
        let losing = Arc::clone(&lost);
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            let paths = match event {
                // Reading files makes events, too.
                Ok(event) if matches!(event.kind, EventKind::Access(_)) => return,
                Ok(event) if event.need_rescan() => Vec::new(),
                Ok(event) => event.paths,
                Err(_) => Vec::new(),
            };
            // No path stands for any.
            if paths.is_empty() {
                losing.store(true, Ordering::Release);
            }
            if send.try_send(paths).is_err() {
                losing.store(true, Ordering::Release);
            }
        })
        .map_err(failed)?;
        for root in roots {
            if root.is_dir() {
                watcher.watch(root, RecursiveMode::Recursive).map_err(failed)?;
            } else {
                // Editors put another file in its place, which only the directory sees.
                let parent = root.parent().unwrap_or(Path::new("/"));
                watcher.watch(parent, RecursiveMode::NonRecursive).map_err(failed)?;
            }
        }
        Ok(Self {
            events,
            lost,
            gathered: BTreeSet::new(),
            _watcher: watcher,
        })
    }

    /// Waits for a change, and then until it is quiet.
    pub(super) async fn changes(&mut self) -> Changes {
        if self.gathered.is_empty() {
            match self.events.recv().await {
                Some(first) => self.gathered.extend(first),
                // The watcher is ours, so its end of the channel is open.
                None => std::future::pending::<()>().await,
            }
        }
        let longest = Instant::now() + GATHER_MAX;
        while self.gathered.len() < EVENTS_MAX
            && let Ok(Some(more)) = timeout_at(longest.min(Instant::now() + QUIET), self.events.recv()).await
        {
            self.gathered.extend(more);
        }
        let paths = std::mem::take(&mut self.gathered);
        if paths.len() >= EVENTS_MAX || self.lost.swap(false, Ordering::AcqRel) {
            return Changes::Anything;
        }
        Changes::Paths(paths)
    }
}

fn failed(error: notify::Error) -> Failure {
    Failure::new(format!("cannot watch: {error}"))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Waits for as many rounds as it takes: how events are grouped is the system's affair.
    async fn until(watch: &mut Watch, path: &Path) {
        let seen = async {
            loop {
                match watch.changes().await {
                    Changes::Paths(paths) if !paths.contains(path) => {}
                    Changes::Paths(_) | Changes::Anything => return,
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(60), seen)
            .await
            .expect("a change is seen");
    }

    #[tokio::test]
    async fn changes_below_a_directory_and_of_a_file_are_seen() {
        let dir = tempfile::tempdir().unwrap();
        let (below, file) = (dir.path().join("docs"), dir.path().join("one.md"));
        fs::create_dir(&below).unwrap();
        fs::write(&file, "a").unwrap();
        let mut watch = Watch::start(&[below.clone(), file.clone()]).unwrap();
        fs::write(below.join("new.md"), "a").unwrap();
        until(&mut watch, &below.join("new.md")).await;
        fs::write(dir.path().join("other"), "b").unwrap();
        fs::rename(dir.path().join("other"), &file).unwrap();
        until(&mut watch, &file).await;
        fs::remove_file(below.join("new.md")).unwrap();
        until(&mut watch, &below.join("new.md")).await;
    }

    #[tokio::test]
    async fn who_stops_waiting_for_changes_loses_none() {
        let dir = tempfile::tempdir().unwrap();
        let mut watch = Watch::start(&[dir.path().to_owned()]).unwrap();
        let path = dir.path().join("x.md");
        fs::write(&path, "a").unwrap();
        while !watch.gathered.contains(&path) {
            let _ = tokio::time::timeout(Duration::from_millis(20), watch.changes()).await;
        }
        until(&mut watch, &path).await;
    }

    #[tokio::test]
    async fn lost_events_mean_that_anything_may_have_changed() {
        let dir = tempfile::tempdir().unwrap();
        let mut watch = Watch::start(&[dir.path().to_owned()]).unwrap();
        watch.lost.store(true, Ordering::Release);
        fs::write(dir.path().join("x"), "a").unwrap();
        assert_eq!(watch.changes().await, Changes::Anything);
    }
}
