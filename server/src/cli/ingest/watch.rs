//! Which paths changed? Events of the system, gathered until it is quiet: an editor makes several of one save, and a
//! checkout thousands.
//!
//! Nothing is lost: when there are more events than are kept, or the system itself lost some, the answer is to look at
//! everything again. A folder that is removed or moved away takes its watch with it, so that it is watched again when
//! another one is in its place.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::mem::{Discriminant, discriminant};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use notify::event::ModifyKind;
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc::{self, Receiver};
use tokio::time::{Instant, timeout_at};

use super::super::{Failure, output};

/// How long nothing may change before what changed is looked at.
const QUIET: Duration = Duration::from_millis(300);
/// Longer than this nobody waits for quiet.
const GATHER_MAX: Duration = Duration::from_secs(5);
/// Events that wait to be gathered, and paths that are gathered.
const EVENTS_MAX: usize = 10_000;

pub(super) struct Watch {
    events: Receiver<Seen>,
    lost: Arc<AtomicBool>,
    /// What changed since the last answer. Here, so that nothing is lost if nobody waits for the answer.
    gathered: BTreeSet<PathBuf>,
    /// What is watched: folders with everything below them, and the folders of single files. None is within another that
    /// is watched with everything below it.
    points: BTreeMap<PathBuf, RecursiveMode>,
    /// Those that may be others by now, and what was said when they could not be watched again.
    dead: BTreeMap<PathBuf, String>,
    /// Stops watching when dropped.
    watcher: RecommendedWatcher,
}

/// What one event is about.
#[derive(Debug, Default)]
struct Seen {
    /// None stands for any.
    paths: Vec<PathBuf>,
    /// Something came, went or was moved, rather than changed where it is.
    moved: bool,
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
        let mut told = Told::default();
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            let seen = match event {
                // Reading files makes events, too.
                Ok(event) if matches!(event.kind, EventKind::Access(_)) => return,
                Ok(event) if event.need_rescan() => Seen::default(),
                Ok(event) => Seen {
                    moved: !matches!(
                        event.kind,
                        EventKind::Modify(ModifyKind::Metadata(_) | ModifyKind::Data(_))
                    ),
                    paths: event.paths,
                },
                Err(error) => {
                    if told.is_new(&error) {
                        output::error(&format!("{}; everything is looked at again", failed(error).message));
                    }
                    Seen::default()
                }
            };
            if seen.paths.is_empty() {
                losing.store(true, Ordering::Release);
            }
            if send.try_send(seen).is_err() {
                losing.store(true, Ordering::Release);
            }
        })
        .map_err(failed)?;
        let mut watch = Self {
            events,
            lost,
            gathered: BTreeSet::new(),
            points: BTreeMap::new(),
            dead: BTreeMap::new(),
            watcher,
        };
        let (folders, files): (Vec<&PathBuf>, Vec<&PathBuf>) = roots.iter().partition(|root| root.is_dir());
        for folder in &folders {
            if !folders.iter().any(|other| other != folder && is_within(folder, other)) {
                watch.points.insert((*folder).clone(), RecursiveMode::Recursive);
            }
        }
        for file in files {
            // Editors put another file in its place, which only the directory sees.
            let parent = file.parent().unwrap_or(Path::new("/"));
            if !watch.is_watched(parent) {
                watch.points.insert(parent.to_owned(), RecursiveMode::NonRecursive);
            }
        }
        for (path, mode) in &watch.points {
            begin(&mut watch.watcher, path, *mode).map_err(failed)?;
        }
        Ok(watch)
    }

    /// Watches again what may be another folder than the one that was watched. True if any was: all that is in it may have
    /// changed.
    pub(super) fn renew(&mut self) -> bool {
        let mut renewed = false;
        for (path, said) in std::mem::take(&mut self.dead) {
            let Some(mode) = self.points.get(&path).copied() else {
                continue;
            };
            if !path.is_dir() {
                // Its parent sees it come back.
                if let Some(parent) = path.parent()
                    && !self.is_watched(parent)
                {
                    // Or it is not there either: then whoever looks again finds it.
                    let _ = self.watcher.watch(parent, RecursiveMode::NonRecursive);
                }
                self.dead.insert(path, said);
                continue;
            }
            // It is not watched any more, or it is watched where it was moved to.
            let _ = self.watcher.unwatch(&path);
            match begin(&mut self.watcher, &path, mode) {
                Ok(()) => renewed = true,
                Err(error) => {
                    let says = failed(error).message;
                    if says != said {
                        output::error(&format!("{}: {says}", path.display()));
                    }
                    self.dead.insert(path, says);
                }
            }
        }
        renewed
    }

    /// What could not be watched again.
    pub(super) fn dead(&self) -> impl Iterator<Item = &PathBuf> {
        self.dead.keys()
    }

    /// Watches a folder below one that is watched, which could not be read so far.
    pub(super) fn add(&mut self, folder: &Path) {
        if self.is_watched(folder)
            && let Err(error) = begin(&mut self.watcher, folder, RecursiveMode::Recursive)
        {
            output::error(&format!("{}: {}", folder.display(), failed(error).message));
        }
    }

    /// With everything below it.
    fn is_watched(&self, folder: &Path) -> bool {
        let with_all =
            |(point, mode): (&PathBuf, &RecursiveMode)| *mode == RecursiveMode::Recursive && is_within(folder, point);
        self.points.iter().any(with_all)
    }

    /// Waits for a change, and then until it is quiet.
    pub(super) async fn changes(&mut self) -> Changes {
        if self.gathered.is_empty() {
            match self.events.recv().await {
                Some(first) => self.take(first),
                // The watcher is ours, so its end of the channel is open.
                None => std::future::pending::<()>().await,
            }
        }
        let longest = Instant::now() + GATHER_MAX;
        while self.gathered.len() < EVENTS_MAX
            && let Ok(Some(more)) = timeout_at(longest.min(Instant::now() + QUIET), self.events.recv()).await
        {
            self.take(more);
        }
        let paths = std::mem::take(&mut self.gathered);
        if self.lost.swap(false, Ordering::AcqRel) {
            // That one of these was moved may be among what was lost.
            for path in self.points.keys() {
                self.dead.entry(path.clone()).or_default();
            }
            return Changes::Anything;
        }
        if paths.len() >= EVENTS_MAX {
            return Changes::Anything;
        }
        Changes::Paths(paths)
    }

    fn take(&mut self, seen: Seen) {
        for path in seen.paths {
            if seen.moved && self.points.contains_key(&path) {
                self.dead.entry(path.clone()).or_default();
            }
            self.gathered.insert(path);
        }
    }
}

/// Errors that were told, each kind once: a limit that is reached is met at every new folder.
#[derive(Default)]
struct Told(HashSet<(Discriminant<notify::ErrorKind>, Option<std::io::ErrorKind>)>);

impl Told {
    fn is_new(&mut self, error: &notify::Error) -> bool {
        let io = match &error.kind {
            notify::ErrorKind::Io(e) => Some(e.kind()),
            _ => None,
        };
        self.0.insert((discriminant(&error.kind), io))
    }
}

/// Watches one point. A folder below it that cannot be read is left out; who looks at the files tells it.
fn begin(watcher: &mut RecommendedWatcher, point: &Path, mode: RecursiveMode) -> notify::Result<()> {
    let is_full = |e: &notify::Error| matches!(e.kind, notify::ErrorKind::MaxFilesWatch);
    match watcher.watch(point, mode) {
        Err(e) if !is_full(&e) && e.paths.first().is_some_and(|path| path != point) => {}
        done => return done,
    }
    // That ended the watching of those behind it, too: each by itself.
    let entries = walkdir::WalkDir::new(point).into_iter().flatten();
    for folder in entries.filter(|entry| entry.file_type().is_dir()) {
        match watcher.watch(folder.path(), mode) {
            Err(e) if is_full(&e) => return Err(e),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

/// Below a folder or the folder itself, and not by way of a link, which a watch does not follow.
fn is_within(path: &Path, folder: &Path) -> bool {
    let Ok(rest) = path.strip_prefix(folder) else {
        return false;
    };
    match (path.canonicalize(), folder.canonicalize()) {
        (Ok(path), Ok(folder)) => path == folder.join(rest),
        _ => rest.as_os_str().is_empty(),
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
    async fn a_folder_that_is_made_anew_is_watched_again() {
        let dir = tempfile::tempdir().unwrap();
        let docs = dir.path().join("docs");
        fs::create_dir_all(docs.join("sub")).unwrap();
        let one = docs.join("sub/one.md");
        fs::write(&one, "a").unwrap();
        let mut watch = Watch::start(&[docs.clone(), docs.join("sub"), one]).unwrap();
        assert_eq!(watch.points.len(), 1, "the others are within it");
        for round in 0..2 {
            fs::rename(&docs, dir.path().join(format!("parked-{round}"))).unwrap();
            until(&mut watch, &docs).await;
            assert!(!watch.renew(), "it is not there");
            assert_eq!(watch.dead().collect::<Vec<_>>(), [&docs]);
            fs::create_dir(&docs).unwrap();
            until(&mut watch, &docs).await;
            assert!(watch.renew());
            assert_eq!(watch.dead().count(), 0);
            fs::write(docs.join("new.md"), "a").unwrap();
            until(&mut watch, &docs.join("new.md")).await;
            fs::create_dir(docs.join("sub")).unwrap();
            until(&mut watch, &docs.join("sub")).await;
            watch.renew();
        }
    }

    #[test]
    fn errors_are_told_once_a_kind() {
        let full = || notify::Error::new(notify::ErrorKind::MaxFilesWatch);
        let io = |kind: std::io::ErrorKind| notify::Error::io(kind.into());
        let mut told = Told::default();
        assert!(told.is_new(&full()) && !told.is_new(&full().add_path("elsewhere".into())));
        assert!(told.is_new(&io(std::io::ErrorKind::PermissionDenied)));
        assert!(told.is_new(&io(std::io::ErrorKind::OutOfMemory)) && !told.is_new(&full()));
    }

    #[tokio::test]
    async fn lost_events_mean_that_anything_may_have_changed() {
        let dir = tempfile::tempdir().unwrap();
        let mut watch = Watch::start(&[dir.path().to_owned()]).unwrap();
        watch.lost.store(true, Ordering::Release);
        fs::write(dir.path().join("x"), "a").unwrap();
        assert_eq!(watch.changes().await, Changes::Anything);
        assert!(watch.renew(), "it may be another folder by now");
    }
}
