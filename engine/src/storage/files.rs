//! Sealed files on disk: where they are, how they become durable, what is removed at open.
//!
//! `segments/<collection>/<shard>/<segment>.seg`, numbers only: no name a user chose is ever part of a path. A file is
//! written under a `.tmp` name, fsynced, renamed, and its directory fsynced, before any manifest may name it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use crate::types::{CollectionNo, ShardNo};

/// Path of a sealed file.
pub fn segment_path(dir: &Path, no: CollectionNo, shard: ShardNo, segment: u64) -> PathBuf {
    shard_dir(dir, no, shard).join(format!("{segment:010}.seg"))
}

/// Directory of a shard's files.
pub fn shard_dir(dir: &Path, no: CollectionNo, shard: ShardNo) -> PathBuf {
    dir.join("segments").join(no.0.to_string()).join(shard.0.to_string())
}

/// Creates the temporary file that [`publish`] later renames.
pub fn create_temporary(path: &Path) -> io::Result<(File, PathBuf)> {
    let parent = path.parent().expect("segment paths have a parent");
    fs::create_dir_all(parent)?;
    let temporary = path.with_extension("tmp");
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(&temporary)?;
    Ok((file, temporary))
}

/// Makes a finished temporary file durable under its final name.
pub fn publish(file: &File, temporary: &Path, path: &Path) -> io::Result<()> {
    file.sync_all()?;
    fs::rename(temporary, path)?;
    // The directory entry, and those of the directories that may have just been made above it.
    let mut parent = path.parent();
    for _ in 0..4 {
        let Some(dir) = parent else { break };
        sync_dir(dir)?;
        parent = dir.parent();
    }
    Ok(())
}

/// Creates a directory and those above it, and makes their names durable: files that are fsynced in a directory whose own
/// name is not on disk are gone with it.
pub fn create_dir_durably(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        create_dir_durably(parent)?;
        create_unless_there(dir)?;
        return sync_dir(parent);
    }
    create_unless_there(dir)?;
    sync_dir(Path::new("."))
}

fn create_unless_there(dir: &Path) -> io::Result<()> {
    match fs::create_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => Ok(()),
        done => done,
    }
}

/// What a data directory holds, and what file systems and people put beside it: the root of an ext4 volume has
/// `lost+found`, macOS leaves `.DS_Store`.
const OURS: [&str; 4] = ["LOCK.cairn", "db", "segments", RESTORING];
const HARMLESS: [&str; 2] = ["lost+found", ".DS_Store"];

/// While this is in a data directory, a restore into it has not come to its end.
pub const RESTORING: &str = "restoring";

/// The first entry of a directory that is not empty and was never a data directory: `--data-dir ~` must not fill a home
/// with our files. None if the directory may be used.
pub fn foreign_entry(dir: &Path) -> io::Result<Option<std::ffi::OsString>> {
    let mut foreign = None;
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        if OURS.iter().any(|ours| name == *ours) {
            return Ok(None);
        }
        if !HARMLESS.iter().any(|harmless| name == *harmless) {
            foreign.get_or_insert(name);
        }
    }
    Ok(foreign)
}

/// Brings a directory's entries to disk.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Removes every file under `segments/` that `is_named` does not know: temporaries, and segments whose manifest change was
/// undone by a crash. Returns how many.
pub fn remove_orphans(dir: &Path, is_named: &dyn Fn(&Path) -> bool) -> io::Result<u64> {
    fn walk(dir: &Path, is_named: &dyn Fn(&Path) -> bool, removed: &mut u64) -> io::Result<()> {
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let path = entry.path();
            if entry.file_type()?.is_dir() {
                walk(&path, is_named, removed)?;
            } else if !is_named(&path) {
                fs::remove_file(&path)?;
                *removed += 1;
            }
        }
        Ok(())
    }
    let root = dir.join("segments");
    let mut removed = 0;
    if root.exists() {
        walk(&root, is_named, &mut removed)?;
    }
    Ok(removed)
}

/// The data directory's lock: held as long as the value lives, released by the system if the process dies.
#[derive(Debug)]
pub struct DirLock {
    _file: File,
}

impl DirLock {
    /// Takes the lock, or says who may hold it.
    pub fn take(dir: &Path) -> io::Result<Option<Self>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(dir.join("LOCK.cairn"))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(e)) => Err(e),
        }
    }
}
