//! A disk in memory that behaves as badly as disks may, for the simulation: it forgets at a crash what was not synced, file
//! bytes and directory entries apart, tears writes, fails a chosen operation, lies after a failed sync, and flips bits.
//! One seed, one behaviour.
//!
//! [`Faults`] counts every point at which something may go wrong, before and after each operation, here, in the log and
//! around writes of the state, and makes it go wrong at one of them.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::dir::{Backing, Dir, Entry, Held, NewFile};

/// SplitMix64 (Steele, Lea & Flood 2014): a seed is a run.
pub struct Chance(u64);

impl Chance {
    /// The sequence of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }
    /// The next number below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// The machine stops: nothing works any more until [`Faults::power_on`].
    Crash,
    /// One operation fails, and its caller is told.
    Fail(io::ErrorKind),
    /// One operation panics.
    Panic,
}

/// Where.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Where {
    /// After so many points from now.
    Nth(u64),
    /// At a point of this name, after so many of them.
    At(String, u64),
}

/// What is done at the n-th operation on files from now, in between.
type Interlude = Box<dyn FnOnce() + Send>;

/// The plan of what goes wrong, and the account of where it could have.
#[derive(Default)]
pub struct Faults {
    state: Mutex<Plan>,
}

#[derive(Default)]
struct Plan {
    off: bool,
    /// Nothing goes wrong, nor counts, while somebody only looks.
    paused: bool,
    next: Option<(Where, How)>,
    /// How often each point was passed.
    points: BTreeMap<String, u64>,
    /// Put before the names of points.
    stage: &'static str,
    interlude: Option<(u64, Interlude)>,
}

impl Faults {
    /// The machine stops at the n-th point from now.
    pub fn plan_crash(&self, nth: u64) {
        self.plan(nth, How::Crash);
    }
    /// Something goes wrong at the n-th point from now.
    pub fn plan(&self, nth: u64, how: How) {
        self.state.lock().next = Some((Where::Nth(nth), how));
    }
    /// Something goes wrong at the n-th time that a point is passed.
    pub fn plan_at(&self, point: &str, nth: u64, how: How) {
        self.state.lock().next = Some((Where::At(point.to_owned(), nth), how));
    }
    /// Nothing goes wrong. True if something would have.
    pub fn unplan(&self) -> bool {
        self.state.lock().next.take().is_some()
    }
    /// Something is to go wrong.
    pub fn is_planned(&self) -> bool {
        self.state.lock().next.is_some()
    }
    /// Does something in the middle of what is about to be done, at the n-th operation on files.
    pub fn interlude(&self, nth: u64, work: impl FnOnce() + Send + 'static) {
        self.state.lock().interlude = Some((nth, Box::new(work)));
    }
    /// Forgets an interlude that did not come to be.
    pub fn no_interlude(&self) -> bool {
        self.state.lock().interlude.take().is_some()
    }
    /// Names what is going on, as the first word of points.
    pub fn stage(&self, stage: &'static str) {
        self.state.lock().stage = stage;
    }
    /// Looks at what there is: files that are read for the first time do not count, and what is planned waits.
    pub fn aside<T>(&self, look: impl FnOnce() -> T) -> T {
        self.state.lock().paused = true;
        let seen = look();
        self.state.lock().paused = false;
        seen
    }
    /// The machine stopped.
    pub fn is_off(&self) -> bool {
        self.state.lock().off
    }
    /// It stops now.
    pub fn power_off(&self) {
        self.state.lock().off = true;
    }
    /// It runs again.
    pub fn power_on(&self) {
        let mut state = self.state.lock();
        state.off = false;
        state.interlude = None;
    }
    /// How often each point was passed.
    pub fn passed(&self) -> BTreeMap<String, u64> {
        self.state.lock().points.clone()
    }

    /// A place where something may go wrong.
    pub fn point(&self, name: &str) -> io::Result<()> {
        let how = {
            let mut state = self.state.lock();
            if state.off {
                return Err(io::Error::other("the machine is off"));
            }
            if state.paused {
                return Ok(());
            }
            let name = format!("{} {name}", state.stage);
            *state.points.entry(name.clone()).or_default() += 1;
            let due = match &mut state.next {
                Some((Where::Nth(left), how)) => (left, *how),
                Some((Where::At(point, left), how)) if *point == name => (left, *how),
                _ => return Ok(()),
            };
            if *due.0 > 0 {
                *due.0 -= 1;
                return Ok(());
            }
            let how = due.1;
            state.next = None;
            state.off = how == How::Crash;
            how
        };
        match how {
            How::Crash => Err(io::Error::other("the machine stops")),
            How::Fail(kind) => Err(kind.into()),
            How::Panic => panic!("a panic as planned, at {name}"),
        }
    }

    /// A place between two operations on files.
    fn between(&self) {
        let due = {
            let mut state = self.state.lock();
            match &mut state.interlude {
                Some((0, _)) => state.interlude.take(),
                Some((left, _)) => {
                    *left -= 1;
                    None
                }
                None => None,
            }
        };
        if let Some((_, work)) = due {
            work();
        }
    }
}

type Id = usize;

#[derive(Clone)]
enum Node {
    File {
        bytes: Vec<u8>,
        /// What a loss of power leaves at least.
        durable: Vec<u8>,
        /// A sync failed: later ones say yes and do nothing.
        given_up: bool,
    },
    Folder {
        entries: BTreeMap<OsString, Id>,
        durable: BTreeMap<OsString, Id>,
        /// What made `entries` of `durable`, in order.
        changes: Vec<Change>,
    },
}

#[derive(Clone)]
enum Change {
    Add(OsString, Id),
    Remove(OsString),
    Rename(OsString, OsString, Id),
}

impl Node {
    fn folder() -> Self {
        Self::Folder {
            entries: BTreeMap::new(),
            durable: BTreeMap::new(),
            changes: Vec::new(),
        }
    }
}

struct Tree {
    nodes: Vec<Node>,
    root: PathBuf,
}

const ROOT: Id = 0;

impl Tree {
    fn find(&self, path: &Path) -> io::Result<Id> {
        // What is above it is on another disk.
        let inside = path.strip_prefix(&self.root).map_err(|_| io::ErrorKind::NotFound)?;
        inside.iter().try_fold(ROOT, |at, name| {
            let Node::Folder { entries, .. } = &self.nodes[at] else {
                return Err(io::ErrorKind::NotADirectory.into());
            };
            entries.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
        })
    }

    fn parent<'p>(&self, path: &'p Path) -> io::Result<(Id, &'p std::ffi::OsStr)> {
        let (parent, name) = (path.parent(), path.file_name());
        let (Some(parent), Some(name)) = (parent, name) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        Ok((self.find(parent)?, name))
    }

    fn change(&mut self, folder: Id, change: Change) -> io::Result<()> {
        let Node::Folder { entries, changes, .. } = &mut self.nodes[folder] else {
            return Err(io::ErrorKind::NotADirectory.into());
        };
        apply(entries, &change);
        changes.push(change);
        Ok(())
    }

    fn add(&mut self, path: &Path, node: Node) -> io::Result<Id> {
        let (folder, name) = self.parent(path)?;
        self.nodes.push(node);
        let id = self.nodes.len() - 1;
        self.change(folder, Change::Add(name.to_owned(), id))?;
        Ok(id)
    }

    /// Copies what is left of a node after a loss of power into `to`.
    fn survive(&self, id: Id, chance: &mut Chance, keep: u64, to: &mut Vec<Node>) -> Id {
        let place = to.len();
        match &self.nodes[id] {
            Node::File { bytes, durable, .. } => {
                let left = match keep {
                    0 => durable.clone(),
                    _ => torn(durable, bytes, chance),
                };
                to.push(Node::File {
                    bytes: left.clone(),
                    durable: left,
                    given_up: false,
                });
            }
            Node::Folder { durable, changes, .. } => {
                let mut left = durable.clone();
                for change in changes {
                    if keep > 0 && chance.below(4) > 0 {
                        apply(&mut left, change);
                    }
                }
                to.push(Node::folder());
                let left: BTreeMap<OsString, Id> = left
                    .into_iter()
                    .map(|(name, id)| (name, self.survive(id, chance, keep, to)))
                    .collect();
                to[place] = Node::Folder {
                    entries: left.clone(),
                    durable: left,
                    changes: Vec::new(),
                };
            }
        }
        place
    }

    /// Makes a directory and those above it.
    fn make(&mut self, path: &Path) -> io::Result<()> {
        let inside = path.strip_prefix(&self.root).map_err(io::Error::other)?.to_owned();
        let mut at = self.root.clone();
        for name in &inside {
            at.push(name);
            if self.find(&at).is_err() {
                self.add(&at, Node::folder())?;
            }
        }
        Ok(())
    }

    fn files(&self, id: Id, path: &Path, found: &mut Vec<(PathBuf, Id)>) {
        match &self.nodes[id] {
            Node::File { .. } => found.push((path.to_owned(), id)),
            Node::Folder { entries, .. } => {
                entries
                    .iter()
                    .for_each(|(name, id)| self.files(*id, &path.join(name), found));
            }
        }
    }
}

fn apply(entries: &mut BTreeMap<OsString, Id>, change: &Change) {
    match change {
        Change::Add(name, id) => drop(entries.insert(name.clone(), *id)),
        Change::Remove(name) => drop(entries.remove(name)),
        Change::Rename(from, to, id) => {
            entries.remove(from);
            entries.insert(to.clone(), *id);
        }
    }
}

/// What a loss of power may leave of a file: all, a beginning, or blocks with holes of zeros between them.
fn torn(durable: &[u8], bytes: &[u8], chance: &mut Chance) -> Vec<u8> {
    let block = [512, 4_096][chance.below(2) as usize];
    match chance.below(4) {
        0 => durable.to_vec(),
        1 => bytes.to_vec(),
        2 => {
            let blocks = (bytes.len() / block) as u64;
            let cut = chance.below(blocks + 1) as usize * block;
            bytes[..cut.max(durable.len()).min(bytes.len())].to_vec()
        }
        _ => {
            let mut left = bytes.to_vec();
            for part in left.chunks_mut(block) {
                if chance.below(2) == 0 {
                    part.fill(0);
                }
            }
            let kept = durable.len().min(left.len());
            left[..kept].copy_from_slice(&durable[..kept]);
            left
        }
    }
}

/// The disk. Outlives the engine.
pub struct FaultyDir {
    faults: Arc<Faults>,
    tree: Arc<Mutex<Tree>>,
    locked: Arc<AtomicBool>,
    /// Done when RocksDB has flushed the state, before anything else can happen.
    flushed: Mutex<Option<Flushed>>,
}

type Flushed = Box<dyn Fn() + Send + Sync>;

impl FaultyDir {
    /// An empty disk at `root`.
    pub fn new(root: &Path, faults: Arc<Faults>) -> Self {
        let tree = Tree {
            nodes: vec![Node::folder()],
            root: root.to_owned(),
        };
        Self {
            faults,
            tree: Arc::new(Mutex::new(tree)),
            locked: Arc::default(),
            flushed: Mutex::default(),
        }
    }

    /// What follows from a flush of the state elsewhere.
    pub fn when_flushed(&self, work: impl Fn() + Send + Sync + 'static) {
        *self.flushed.lock() = Some(Box::new(work));
    }

    /// The power goes. With `keep` 0 everything goes that was not synced; else some of it stays, in any order.
    pub fn lose_power(&self, chance: &mut Chance, keep: u64) {
        let mut tree = self.tree.lock();
        let mut nodes = Vec::new();
        tree.survive(ROOT, chance, keep, &mut nodes);
        tree.nodes = nodes;
    }

    /// Puts files into a directory, if it is there, that nobody asked for.
    pub fn litter(&self, dir: &Path, names: &[&str]) {
        let mut tree = self.tree.lock();
        for name in names {
            let bytes = b"litter".to_vec();
            let node = Node::File {
                durable: bytes.clone(),
                bytes,
                given_up: false,
            };
            // No such directory, no litter.
            let _ = tree.add(&dir.join(name), node);
        }
    }

    /// Puts a file where it is wanted, on disk for good.
    pub fn put(&self, path: &Path, bytes: Vec<u8>) -> io::Result<()> {
        let mut tree = self.tree.lock();
        tree.make(path.parent().ok_or(io::ErrorKind::InvalidInput)?)?;
        let file = Node::File {
            durable: bytes.clone(),
            bytes,
            given_up: false,
        };
        tree.add(path, file).map(drop)
    }

    /// The bytes of a file.
    pub fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let tree = self.tree.lock();
        match &tree.nodes[tree.find(path)?] {
            Node::File { bytes, .. } => Ok(bytes.clone()),
            Node::Folder { .. } => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    /// All files.
    pub fn files(&self) -> Vec<PathBuf> {
        let (tree, mut found) = (self.tree.lock(), Vec::new());
        tree.files(ROOT, &tree.root.clone(), &mut found);
        found.into_iter().map(|(path, _)| path).collect()
    }

    /// Flips one bit of one sealed file, if there is one.
    pub fn flip(&self, chance: &mut Chance) -> Option<PathBuf> {
        let (mut tree, mut found) = (self.tree.lock(), Vec::new());
        tree.files(ROOT, &tree.root.clone(), &mut found);
        found.retain(|(path, _)| path.extension().is_some_and(|e| e == "seg"));
        if found.is_empty() {
            return None;
        }
        let (path, id) = found.swap_remove(chance.below(found.len() as u64) as usize);
        if let Node::File { bytes, .. } = &mut tree.nodes[id] {
            let at = chance.below(bytes.len() as u64) as usize;
            bytes[at] ^= 1 << chance.below(8);
        }
        Some(path)
    }

    /// What a path is, in the names of points.
    fn kind(&self, path: &Path) -> &'static str {
        let extension = path.extension().and_then(|e| e.to_str());
        let inside = path.strip_prefix(&self.tree.lock().root).map(Path::to_owned);
        let depth = inside.as_ref().map(|p| p.iter().count());
        let of_cut = inside.as_ref().is_ok_and(|p| p.starts_with("cuts"));
        match (extension, depth) {
            (_, Ok(2..)) if of_cut => "cut",
            (Some("tmp"), _) => "temporary",
            (Some("seg"), _) => "segment",
            (Some("cairn"), _) => "lock",
            (_, Err(_)) => "above",
            (_, Ok(0)) => "root",
            (_, Ok(1)) if path.ends_with("cuts") => "cuts",
            (_, Ok(1)) => "segments",
            (_, Ok(2)) => "collection",
            _ => "shard",
        }
    }

    fn around<T>(&self, what: &str, path: &Path, work: impl FnOnce(&mut Tree) -> io::Result<T>) -> io::Result<T> {
        self.faults.between();
        let what = format!("{what} {}", self.kind(path));
        self.faults.point(&format!("{what}: before"))?;
        let done = work(&mut self.tree.lock())?;
        self.faults.point(&format!("{what}: after"))?;
        Ok(done)
    }
}

impl Dir for FaultyDir {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.around("make", path, |tree| tree.make(path))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn NewFile>> {
        let id = self.around("create", path, |tree| match tree.find(path) {
            Ok(id) => {
                if let Node::File { bytes, .. } = &mut tree.nodes[id] {
                    bytes.clear();
                }
                Ok(id)
            }
            Err(_) => tree.add(
                path,
                Node::File {
                    bytes: Vec::new(),
                    durable: Vec::new(),
                    given_up: false,
                },
            ),
        })?;
        Ok(Box::new(FaultyFile {
            faults: Arc::clone(&self.faults),
            tree: Arc::clone(&self.tree),
            id,
        }))
    }

    fn map(&self, path: &Path) -> io::Result<Backing> {
        self.around("map", path, |tree| match &tree.nodes[tree.find(path)?] {
            Node::File { bytes, .. } => Ok(Backing::copy(bytes)),
            Node::Folder { .. } => Err(io::ErrorKind::IsADirectory.into()),
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.around("rename", from, |tree| {
            let (id, (folder, old)) = (tree.find(from)?, tree.parent(from)?);
            let (other, new) = tree.parent(to)?;
            assert_eq!(folder, other, "files keep their directory");
            tree.change(folder, Change::Rename(old.to_owned(), new.to_owned(), id))
        })
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.around("link", from, |tree| {
            let id = tree.find(from)?;
            tree.make(to.parent().ok_or(io::ErrorKind::InvalidInput)?)?;
            let (folder, name) = tree.parent(to)?;
            tree.change(folder, Change::Add(name.to_owned(), id))
        })
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.around("sync", path, |tree| {
            let id = tree.find(path)?;
            match &mut tree.nodes[id] {
                Node::Folder {
                    entries,
                    durable,
                    changes,
                } => {
                    durable.clone_from(entries);
                    changes.clear();
                    Ok(())
                }
                Node::File { .. } => Err(io::ErrorKind::NotADirectory.into()),
            }
        })
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        self.around("list", path, |tree| match &tree.nodes[tree.find(path)?] {
            Node::Folder { entries, .. } => {
                let entry = |(name, id): (&OsString, &Id)| Entry {
                    name: name.clone(),
                    is_dir: matches!(tree.nodes[*id], Node::Folder { .. }),
                };
                Ok(entries.iter().map(entry).collect())
            }
            Node::File { .. } => Err(io::ErrorKind::NotADirectory.into()),
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.around("remove", path, |tree| match tree.parent(path) {
            Ok((folder, name)) if tree.find(path).is_ok() => tree.change(folder, Change::Remove(name.to_owned())),
            _ => Ok(()),
        })
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Held>> {
        self.around("take", path, |tree| {
            if tree.find(path).is_err() {
                let file = Node::File {
                    bytes: Vec::new(),
                    durable: Vec::new(),
                    given_up: false,
                };
                tree.add(path, file)?;
            }
            if self.locked.swap(true, Ordering::AcqRel) {
                return Ok(None);
            }
            Ok(Some(Box::new(Lock(Arc::clone(&self.locked))) as Held))
        })
    }

    fn state(&self, step: &'static str, done: bool) -> io::Result<()> {
        if done
            && (step.contains("flush") || step == "checkpoint")
            && let Some(work) = &*self.flushed.lock()
        {
            work();
        }
        let when = if done { "after" } else { "before" };
        self.faults.point(&format!("{step}: {when}"))
    }
}

struct Lock(Arc<AtomicBool>);

impl Drop for Lock {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

struct FaultyFile {
    faults: Arc<Faults>,
    tree: Arc<Mutex<Tree>>,
    id: Id,
}

impl FaultyFile {
    fn node<T>(&self, work: impl FnOnce(&mut Vec<u8>, &mut Vec<u8>, &mut bool) -> T) -> T {
        match &mut self.tree.lock().nodes[self.id] {
            Node::File {
                bytes,
                durable,
                given_up,
            } => work(bytes, durable, given_up),
            Node::Folder { .. } => unreachable!("only files are opened"),
        }
    }
}

impl Write for FaultyFile {
    /// Writes the first part first, as a disk may.
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.faults.between();
        self.faults.point("write temporary: before")?;
        let half = data.len() / 2;
        self.node(|bytes, _, _| bytes.extend_from_slice(&data[..half]));
        self.faults.point("write temporary: within")?;
        self.node(|bytes, _, _| bytes.extend_from_slice(&data[half..]));
        Ok(data.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl NewFile for FaultyFile {
    fn sync(&mut self) -> io::Result<()> {
        self.faults.between();
        if let Err(error) = self.faults.point("sync temporary: before") {
            self.node(|_, _, given_up| *given_up = true);
            return Err(error);
        }
        self.node(|bytes, durable, given_up| {
            if !*given_up {
                durable.clone_from(bytes);
            }
        });
        self.faults.point("sync temporary: after")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::files;
    use crate::types::{CollectionNo, ShardNo};

    const ROOT: &str = "/data";

    fn disk() -> (Arc<Faults>, FaultyDir) {
        let faults = Arc::new(Faults::default());
        (Arc::clone(&faults), FaultyDir::new(Path::new(ROOT), faults))
    }

    fn write(disk: &FaultyDir, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let (mut file, temporary) = files::create_temporary(disk, path)?;
        file.write_all(bytes)?;
        files::publish(disk, &mut *file, &temporary, path)
    }

    fn path() -> PathBuf {
        files::segment_path(Path::new(ROOT), CollectionNo(1), ShardNo(0), 7)
    }

    #[test]
    fn a_root_that_somebody_made_who_died_is_made_durable() {
        let (_, disk) = disk();
        let root = Path::new(ROOT).join("made/by/another");
        disk.create_dir_all(&root).unwrap();
        files::create_root(&disk, &root).unwrap();
        disk.lose_power(&mut Chance::new(1), 0);
        assert!(disk.list(&root).is_ok(), "its name is not on disk");
    }

    #[test]
    fn what_was_published_survives_and_what_was_not_synced_may_not() {
        let (_, disk) = disk();
        write(&disk, &path(), &[7; 10_000]).unwrap();
        for seed in 0..20 {
            disk.lose_power(&mut Chance::new(seed), seed % 2);
            assert_eq!(disk.map(&path()).unwrap().bytes(), [7; 10_000]);
        }
        let mut whole = 0;
        for seed in 0..200 {
            let (_, disk) = self::disk();
            let (mut file, temporary) = files::create_temporary(&disk, &path()).unwrap();
            file.write_all(&[7; 10_000]).unwrap();
            disk.rename(&temporary, &path()).unwrap();
            disk.lose_power(&mut Chance::new(seed), seed % 4);
            let left = disk.map(&path()).map(|file| file.bytes().to_vec()).unwrap_or_default();
            assert!(left.len() <= 10_000 && left.iter().all(|b| [0, 7].contains(b)));
            assert!(seed % 4 > 0 || disk.files().is_empty(), "nothing was synced");
            whole += usize::from(left == [7; 10_000]);
        }
        assert!((5..100).contains(&whole), "{whole}");
    }

    /// The reason for each sync of [`files::publish`]: with any one of them missing the file can be lost.
    #[test]
    fn every_point_of_publishing_leaves_the_whole_file_or_none() {
        for nth in 0.. {
            let (faults, disk) = disk();
            faults.plan_crash(nth);
            let published = write(&disk, &path(), &[7; 10_000]);
            faults.unplan();
            faults.power_on();
            disk.lose_power(&mut Chance::new(nth), 0);
            let left = disk.map(&path()).map(|file| file.bytes().to_vec());
            match published {
                Ok(()) => {
                    assert_eq!(left.unwrap(), [7; 10_000]);
                    assert!(nth > 15, "{nth}");
                    return;
                }
                Err(_) => assert!(left.is_err() || left.unwrap() == [7; 10_000]),
            }
        }
    }

    #[test]
    fn a_sync_that_failed_never_saves_and_a_removal_can_come_undone() {
        let (faults, disk) = disk();
        let (mut file, temporary) = files::create_temporary(&disk, &path()).unwrap();
        file.write_all(&[7; 100]).unwrap();
        faults.plan_at(" sync temporary: before", 0, How::Fail(io::ErrorKind::Other));
        file.sync().unwrap_err();
        files::publish(&disk, &mut *file, &temporary, &path()).unwrap();
        disk.lose_power(&mut Chance::new(1), 0);
        assert!(disk.map(&path()).unwrap().bytes().is_empty(), "the second sync lied");

        disk.remove(&path()).unwrap();
        assert!(disk.map(&path()).is_err());
        disk.lose_power(&mut Chance::new(1), 0);
        assert!(disk.map(&path()).is_ok());
    }
}
