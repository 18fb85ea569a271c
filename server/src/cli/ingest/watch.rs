//! Which paths changed? Events of the system, gathered until it is quiet: an editor makes several of one save, and a
//! checkout thousands.
//!
//! Nothing is lost: when there are more events than are kept, or the system itself lost some, the answer is to look at
//! everything again. A folder that is removed or moved away takes its watch with it, so that it is watched again when
//! another one is in its place. Of some ways to put one there no event tells (its parent was moved, it is a link that leads
//! elsewhere now, something is mounted over it): who asks now and then finds out.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::mem::{Discriminant, discriminant};
use std::os::unix::fs::MetadataExt;
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
/// How often it is looked whether what is watched is what is there: no event tells of all that takes its place.
pub(super) const DOUBT_EVERY: Duration = Duration::from_secs(60);

pub(super) struct Watch {
    events: Receiver<Seen>,
    lost: Arc<AtomicBool>,
    /// What changed since the last answer. Here, so that nothing is lost if nobody waits for the answer.
    gathered: BTreeSet<PathBuf>,
    /// What is watched: folders with everything below them, and the folders of single files. None is within another that
    /// is watched with everything below it.
    points: BTreeMap<PathBuf, Point>,
    /// Those that may be others by now, and what was said when they could not be watched again.
    dead: BTreeMap<PathBuf, String>,
    /// Folders that are watched to see such a one come back.
    waiting: BTreeSet<PathBuf>,
    /// Stops watching when dropped.
    watcher: RecommendedWatcher,
}

#[derive(Debug)]
struct Point {
    mode: RecursiveMode,
    /// What was there when it was begun to be watched.
    was: Option<Identity>,
}

/// Which folder it is: its device, and its number on it.
type Identity = (u64, u64);

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
            waiting: BTreeSet::new(),
            watcher,
        };
        let point = |mode| Point { mode, was: None };
        let (folders, files): (Vec<&PathBuf>, Vec<&PathBuf>) = roots.iter().partition(|root| root.is_dir());
        for folder in &folders {
            if !folders.iter().any(|other| other != folder && is_within(folder, other)) {
                watch.points.insert((*folder).clone(), point(RecursiveMode::Recursive));
            }
        }
        for file in files {
            // Editors put another file in its place, which only the directory sees.
            let parent = file.parent().unwrap_or(Path::new("/"));
            if !watch.is_watched(parent) {
                watch
                    .points
                    .insert(parent.to_owned(), point(RecursiveMode::NonRecursive));
            }
        }
        for (path, point) in &mut watch.points {
            // Asked before that: what comes after it is another one, then.
            point.was = identity(path);
            begin(&mut watch.watcher, path, point.mode).map_err(failed)?;
        }
        Ok(watch)
    }

    /// Watches again what may be another folder than the one that was watched. True if any was: all that is in it may have
    /// changed.
    pub(super) fn renew(&mut self) -> bool {
        self.doubt();
        let mut renewed = false;
        for (path, said) in std::mem::take(&mut self.dead) {
            if !path.is_dir() {
                // Its parent sees it come back. Or that is not there either: then whoever looks again finds it.
                if let Some(parent) = path.parent()
                    && !self.is_watched(parent)
                    && self.watcher.watch(parent, RecursiveMode::NonRecursive).is_ok()
                {
                    self.waiting.insert(parent.to_owned());
                }
                self.dead.insert(path, said);
                continue;
            }
            let Some(point) = self.points.get_mut(&path) else {
                continue;
            };
            // It is not watched any more, or it is watched where it was moved to.
            let _ = self.watcher.unwatch(&path);
            let now = identity(&path);
            match begin(&mut self.watcher, &path, point.mode) {
                Ok(()) => {
                    point.was = now;
                    renewed = true;
                }
                Err(error) => {
                    let says = failed(error).message;
                    if says != said {
                        output::error(&format!("{}: {says}", path.display()));
                    }
                    self.dead.insert(path, says);
                }
            }
        }
        self.wait_no_longer();
        renewed
    }

    /// Lets go of folders below which nothing is waited for any more: all that changes in them would be told.
    fn wait_no_longer(&mut self) {
        let parents: BTreeSet<&Path> = self.dead.keys().filter_map(|path| path.parent()).collect();
        let done: Vec<PathBuf> = self
            .waiting
            .iter()
            .filter(|parent| !parents.contains(parent.as_path()))
            .cloned()
            .collect();
        for parent in done {
            self.waiting.remove(&parent);
            if !self.points.contains_key(&parent) && !self.is_watched(&parent) {
                // It went itself, if it is not watched.
                let _ = self.watcher.unwatch(&parent);
            }
        }
    }

    /// Finds what may be another folder than the one that is watched, though no event said so. True if any is new.
    pub(super) fn doubt(&mut self) -> bool {
        let before = self.dead.len();
        for (path, point) in &self.points {
            if identity(path) != point.was {
                self.dead.entry(path.clone()).or_default();
            }
        }
        self.dead.len() > before
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
            |(path, point): (&PathBuf, &Point)| point.mode == RecursiveMode::Recursive && is_within(folder, path);
        self.points.iter().any(with_all)
    }

    /// Waits for a change, and then until it is quiet.
    pub(super) async fn changes(&mut self) -> Changes {
        // An event without a path may have been taken by one who waited no longer.
        if self.gathered.is_empty() && !self.lost.load(Ordering::Acquire) {
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
            if seen.moved {
                // What is below it went with it.
                for point in self.points.keys().filter(|point| point.starts_with(&path)) {
                    self.dead.entry(point.clone()).or_default();
                }
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
    match watcher.watch(point, mode) {
        Err(e) if mode == RecursiveMode::Recursive && is_of_one_below(&e, point) && point.is_dir() => {}
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

/// A folder below the point could not be watched. One that went in the same moment is told without its path.
fn is_of_one_below(e: &notify::Error, point: &Path) -> bool {
    !is_full(e) && e.paths.first().is_none_or(|path| path != point)
}

fn is_full(e: &notify::Error) -> bool {
    matches!(e.kind, notify::ErrorKind::MaxFilesWatch)
}

/// None where no folder is.
fn identity(path: &Path) -> Option<Identity> {
    let meta = fs::metadata(path).ok().filter(fs::Metadata::is_dir)?;
    Some((meta.dev(), meta.ino()))
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
        let ends = Instant::now() + Duration::from_secs(60);
        while !watch.gathered.contains(&path) {
            // On a busy machine it may be quiet in time.
            if let Ok(changes) = tokio::time::timeout(Duration::from_millis(20), watch.changes()).await {
                assert_eq!(changes, Changes::Paths([path].into()));
                return;
            }
            assert!(Instant::now() < ends, "the change is seen");
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
            assert_eq!(watch.waiting, [dir.path().to_owned()].into());
            fs::create_dir(&docs).unwrap();
            until(&mut watch, &docs).await;
            assert!(watch.renew());
            assert_eq!((watch.dead().count(), watch.waiting.len()), (0, 0));
            assert!(watch.watcher.unwatch(dir.path()).is_err(), "it is let go");
            fs::write(docs.join("new.md"), "a").unwrap();
            until(&mut watch, &docs.join("new.md")).await;
            fs::create_dir(docs.join("sub")).unwrap();
            until(&mut watch, &docs.join("sub")).await;
            watch.renew();
        }
    }

    #[tokio::test]
    async fn a_folder_that_no_event_tells_of_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        for folder in ["site/docs", "anew/docs", "v1", "v2"] {
            fs::create_dir_all(at(folder)).unwrap();
        }
        let link = |to: &str| {
            std::os::unix::fs::symlink(at(to), at("next")).unwrap();
            fs::rename(at("next"), at("current")).unwrap();
        };
        link("v1");
        let mut watch = Watch::start(&[at("site/docs"), at("current")]).unwrap();
        assert!(!watch.doubt() && !watch.renew());
        fs::rename(at("site"), at("parked")).unwrap();
        fs::rename(at("anew"), at("site")).unwrap();
        assert!(watch.doubt() && !watch.doubt(), "once");
        assert!(watch.renew() && !watch.renew());
        fs::write(at("site/docs/new.md"), "a").unwrap();
        until(&mut watch, &at("site/docs/new.md")).await;
        link("v2");
        assert!(watch.renew());
        fs::write(at("v2/new.md"), "a").unwrap();
        until(&mut watch, &at("current/new.md")).await;
        assert_eq!(watch.dead().count(), 0);
    }

    #[test]
    fn an_error_of_one_folder_below_is_not_that_of_the_point() {
        let (point, gone) = (Path::new("docs"), notify::Error::path_not_found);
        assert!(is_of_one_below(&gone(), point) && is_of_one_below(&gone().add_path("docs/a".into()), point));
        assert!(!is_of_one_below(&gone().add_path("docs".into()), point));
        assert!(!is_of_one_below(
            &notify::Error::new(notify::ErrorKind::MaxFilesWatch),
            point
        ));
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
