//! A file system that forgets, refuses and lies, under a whole process.
//!
//! [`FaultFs`] is mounted with FUSE over an [`Image`] in memory. It keeps a journal of every change, with what was synced when. From
//! the journal of one run, [`Run::after_crash`] makes what a loss of power at any of its steps would have left: a process need not be
//! run again for each. While it is mounted it can fail chosen operations ([`Fault`]), be full ([`FaultFs::set_capacity`]), and stop
//! doing anything ([`FaultFs::cut_power`]).
//!
//! Not modelled: that one sector is written in part, that a disk loses what it acknowledged, that a file system damages itself.

mod crash;
mod image;
mod kernel;
mod state;
#[cfg(test)]
mod tests;

use std::io;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, OnceLock};

use fuser::{BackgroundSession, MountOption};
use parking_lot::Mutex;
use tempfile::TempDir;

pub use self::crash::{Torn, Unsynced, after_crash};
pub use self::image::{Change, Image, Ino, Node};
use self::kernel::Kernel;
use self::state::State;

/// Kinds of changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Op {
    /// Of a file or directory.
    Create,
    Link,
    Remove,
    Rename,
    Write,
    /// `ftruncate`, or `open` with `O_TRUNC`.
    Resize,
    /// `fsync` or `fdatasync` of a file.
    Sync,
    /// `fsync` of a directory.
    SyncDir,
}

/// What a file of a data directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Write-ahead log of RocksDB.
    Wal,
    Sst,
    /// Manifest of RocksDB.
    Manifest,
    /// The file that names it.
    Current,
    Options,
    /// Empty files whose lock counts.
    Lock,
    /// A sealed segment, or one that is being built.
    Segment,
    /// RocksDB's own diary, for people.
    Diary,
    Other,
}

impl Class {
    fn chosen(choice: Option<Self>, class: Self) -> bool {
        choice.map_or(class != Self::Diary, |of| of == class)
    }

    /// Of the file at this path.
    pub fn of(path: &str) -> Self {
        let name = path.rsplit('/').next().unwrap_or(path);
        let in_db = path.contains("db/");
        match name {
            "CURRENT" => Self::Current,
            "LOCK" | "LOCK.cairn" => Self::Lock,
            _ if name.ends_with(".seg") || name.ends_with(".tmp") => Self::Segment,
            _ if !in_db => Self::Other,
            // Also `CURRENT` and `OPTIONS` while they are being written, which end in `.dbtmp`.
            _ if name.starts_with("MANIFEST-") => Self::Manifest,
            _ if name.starts_with("OPTIONS-") => Self::Options,
            _ if name.starts_with("LOG") => Self::Diary,
            _ if name.ends_with(".log") => Self::Wal,
            _ if name.ends_with(".sst") => Self::Sst,
            _ if name.ends_with(".dbtmp") => Self::Current,
            _ => Self::Other,
        }
    }
}

/// A failure that a plan caused.
#[derive(Debug, Clone)]
pub struct Caused {
    pub op: Op,
    pub class: Class,
    pub path: String,
    /// Steps before it.
    pub step: usize,
}

/// Operations that are to fail.
#[derive(Debug, Clone)]
pub struct Fault {
    pub ops: Vec<Op>,
    /// Only on such files; none: on all but RocksDB's diary, which proves nothing.
    pub class: Option<Class>,
    /// Counted from now, the first is 1.
    pub nth: u64,
    /// How many fail, from the nth on.
    pub times: u64,
    pub errno: i32,
}

/// The error of a broken medium.
pub const EIO: i32 = state::EIO;
/// The error of a full disk.
pub const ENOSPC: i32 = state::ENOSPC;

/// A change that was done, or an fsync that failed.
#[derive(Debug, Clone)]
pub struct Step {
    pub op: Op,
    /// For a rename: the new one.
    pub path: String,
    pub change: Change,
}

/// A mounted file system. Unmounted when dropped.
pub struct FaultFs {
    state: Arc<Mutex<State>>,
    session: Option<BackgroundSession>,
    mountpoint: TempDir,
}

impl FaultFs {
    /// Whether this machine lets us mount one; if not, why.
    pub fn available() -> Result<(), String> {
        static TRIED: OnceLock<Result<(), String>> = OnceLock::new();
        let tried = TRIED.get_or_init(|| {
            let mounted = Self::mount(Image::default());
            mounted
                .map(drop)
                .map_err(|e| format!("FUSE cannot be mounted here: {e}"))
        });
        tried.clone()
    }

    /// Mounts an image at a place of its own.
    pub fn mount(base: Image) -> io::Result<Self> {
        let mountpoint = tempfile::Builder::new().prefix("cairn-faultfs-").tempdir()?;
        let state = Arc::new(Mutex::new(State::new(base)));
        let mut config = fuser::Config::default();
        config.mount_options = vec![MountOption::FSName("cairn-faultfs".to_owned()), MountOption::NoAtime];
        let session = fuser::spawn_mount(Kernel::new(Arc::clone(&state)), mountpoint.path(), &config)?;
        Ok(Self {
            state,
            session: Some(session),
            mountpoint,
        })
    }

    /// Where.
    pub fn path(&self) -> &Path {
        self.mountpoint.path()
    }

    /// Makes operations fail, from now on.
    pub fn plan(&self, fault: Fault) {
        self.state.lock().faults.push(fault);
    }

    /// Forgets all plans.
    pub fn heal(&self) {
        self.state.lock().faults.clear();
    }

    /// A file cannot be read any more around one of its bytes: not by a read, and not through a mapping, which ends the process by a
    /// signal. What the kernel has read before is not asked for again.
    pub fn make_unreadable(&self, path: &str, byte: usize) {
        let mut state = self.state.lock();
        if let Some(ino) = state.live.at(path) {
            state.unreadable.insert((ino, byte / image::BLOCK));
        }
    }

    /// The disk has this many bytes; none: as many as one likes.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state.lock().capacity = bytes;
    }

    /// Bytes in use.
    pub fn used(&self) -> u64 {
        self.state.lock().live.disk_bytes()
    }

    /// From now on every change fails and none is done. Kill the process, then [`Self::unmount`].
    pub fn cut_power(&self) {
        self.state.lock().power_is_cut = true;
    }

    /// How often operations of these kinds were tried, on files of a class or on all but RocksDB's diary.
    pub fn tried(&self, ops: &[Op], class: Option<Class>) -> u64 {
        let state = self.state.lock();
        let counted = state
            .counts
            .iter()
            .filter(|((op, of), _)| ops.contains(op) && Class::chosen(class, *of));
        counted.map(|(_, n)| n).sum()
    }

    /// How many steps the journal has: a moment of the run.
    pub fn now(&self) -> usize {
        self.state.lock().journal.len()
    }

    /// Failures that plans caused so far.
    pub fn caused(&self) -> Vec<Caused> {
        self.state.lock().caused.clone()
    }

    /// What is there now.
    pub fn image(&self) -> Image {
        let mut image = self.state.lock().live.clone();
        image.prune();
        image
    }

    /// Ends the run. No process may have a file of it open.
    pub fn unmount(mut self) -> io::Result<Run> {
        if let Some(session) = self.session.take() {
            end(session)?;
        }
        let mut state = self.state.lock();
        Ok(Run {
            base: state.base.clone(),
            steps: std::mem::take(&mut state.journal),
        })
    }
}

impl Drop for FaultFs {
    fn drop(&mut self) {
        let Some(session) = self.session.take() else { return };
        if end(session).is_err() {
            // Something still has a file open, while a test fails: let go of the mount, or the directory cannot be removed.
            let _ = Command::new("umount").arg("-l").arg(self.mountpoint.path()).status();
        }
    }
}

/// Unmounts. The thread that served may hear of it as an aborted connection rather than as the end; both are the end.
fn end(session: BackgroundSession) -> io::Result<()> {
    match session.umount_and_join() {
        Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => Ok(()),
        ended => ended,
    }
}

/// What happened while a file system was mounted.
pub struct Run {
    base: Image,
    pub steps: Vec<Step>,
}

impl Run {
    /// What a loss of power just after the first `steps` steps would have left.
    pub fn after_crash(&self, steps: usize, unsynced: Unsynced, torn: Option<Torn>) -> Image {
        let changes = self.steps[..steps].iter().map(|step| &step.change);
        after_crash(&self.base, changes, unsynced, torn)
    }

    /// What a loss of power at its end left.
    pub fn crashed(&self, unsynced: Unsynced) -> Image {
        self.after_crash(self.steps.len(), unsynced, None)
    }

    /// The last steps before a moment, in words.
    pub fn trace(&self, before: usize, count: usize) -> String {
        let shown = self.steps[..before]
            .iter()
            .enumerate()
            .skip(before.saturating_sub(count));
        let lines = shown.map(|(i, step)| {
            let what = match &step.change {
                Change::Write { at, bytes, .. } => format!(" {} bytes at {at}", bytes.len()),
                Change::Resize { len, .. } => format!(" to {len}"),
                Change::SyncFailed { .. } => " FAILED".to_owned(),
                Change::Rename { from, .. } => format!(" from {}", from.1),
                _ => String::new(),
            };
            format!("{i}: {:?} {}{what}", step.op, step.path)
        });
        lines.collect::<Vec<_>>().join("\n")
    }
}
