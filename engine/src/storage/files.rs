//! Sealed files on disk: where they are, how they become durable, what is removed at open.
//!
//! `segments/<collection>/<shard>/<segment>.seg`, numbers only: no name a user chose is ever part of a path. A file is
//! written under a `.tmp` name, fsynced, renamed, and its directory fsynced, before any manifest may name it.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use super::dir::{Dir, Held, NewFile};
use crate::types::{CollectionNo, ShardNo};

/// Path of a sealed file.
pub fn segment_path(root: &Path, no: CollectionNo, shard: ShardNo, segment: u64) -> PathBuf {
    shard_dir(root, no, shard).join(format!("{segment:010}.seg"))
}

/// Directory of a shard's files.
pub fn shard_dir(root: &Path, no: CollectionNo, shard: ShardNo) -> PathBuf {
    collection_dir(root, no).join(shard.0.to_string())
}

/// Directory of a collection's files.
pub fn collection_dir(root: &Path, no: CollectionNo) -> PathBuf {
    root.join(SEGMENTS).join(no.0.to_string())
}

/// Creates the temporary file that [`publish`] later renames.
pub fn create_temporary(disk: &dyn Dir, path: &Path) -> io::Result<(Box<dyn NewFile>, PathBuf)> {
    let parent = path.parent().expect("segment paths have a parent");
    disk.create_dir_all(parent)?;
    let temporary = path.with_extension("tmp");
    Ok((disk.create(&temporary)?, temporary))
}

/// Makes a finished temporary file durable under its final name.
pub fn publish(disk: &dyn Dir, file: &mut dyn NewFile, temporary: &Path, path: &Path) -> io::Result<()> {
    file.sync()?;
    disk.rename(temporary, path)?;
    // The directory entry, and those of the directories that may have just been made above it.
    let mut parent = path.parent();
    for _ in 0..4 {
        let Some(dir) = parent else { break };
        disk.sync_dir(dir)?;
        parent = dir.parent();
    }
    Ok(())
}

/// Makes a directory where there is none, and those above it, durably: files that are fsynced in a directory whose own name
/// is not on disk are gone with it. Directories that are there are synced too, as who made them may have died before it
/// synced them; unless the lock is in this one, which is taken after all that.
pub fn create_root(disk: &dyn Dir, root: &Path) -> io::Result<()> {
    let mut missing = Vec::new();
    for dir in root.ancestors().filter(|dir| !dir.as_os_str().is_empty()) {
        match disk.list(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => missing.push(dir),
            Ok(entries) if dir == root && entries.iter().any(|entry| entry.name == LOCK) => return Ok(()),
            // There, or not ours to look into.
            _ => break,
        }
    }
    disk.create_dir_all(root)?;
    for dir in root.ancestors().filter(|dir| !dir.as_os_str().is_empty()) {
        let synced = match dir.parent() {
            Some(above) if above.as_os_str().is_empty() => disk.sync_dir(Path::new(".")),
            Some(above) => disk.sync_dir(above),
            None => break,
        };
        match synced {
            Err(error) if !missing.contains(&dir) && is_not_ours(&error) => break,
            synced => synced?,
        }
    }
    Ok(())
}

/// Whether a directory cannot be synced because it is none in which we make anything.
fn is_not_ours(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidInput, NotFound, PermissionDenied, ReadOnlyFilesystem, Unsupported};
    matches!(
        error.kind(),
        PermissionDenied | ReadOnlyFilesystem | InvalidInput | Unsupported | NotFound
    )
}

/// Where sealed files are, below a data directory.
pub const SEGMENTS: &str = "segments";

/// Locked while an engine has the directory open.
pub const LOCK: &str = "LOCK.cairn";
/// What file systems and people put into an empty directory: the root of an ext4 volume has `lost+found`, macOS leaves
/// `.DS_Store`.
const HARMLESS: [&str; 2] = ["lost+found", ".DS_Store"];

/// While this is in a data directory, a restore into it has not come to its end.
pub const RESTORING: &str = "restoring";

/// The first entry of a directory that is not empty and was never a data directory: `--data-dir ~` must not fill a home
/// with our files, nor take somebody's `segments` for ours and tidy it. None if the directory may be used: it holds our
/// lock, or a RocksDB under `db` (a copy may lack the lock, which is empty), here or where a restore has brought it.
pub fn foreign_entry(disk: &dyn Dir, root: &Path) -> io::Result<Option<OsString>> {
    let entries = disk.list(root)?;
    if entries.iter().any(|entry| entry.name == LOCK && !entry.is_dir) {
        return Ok(None);
    }
    let has_dir = |name: &str| entries.iter().any(|entry| entry.name == name && entry.is_dir);
    let holds_database = |dir: &Path| match disk.list(&dir.join("db")) {
        Ok(entries) => Ok(entries.iter().any(|entry| entry.name == "CURRENT")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    };
    let has_database =
        (has_dir("db") && holds_database(root)?) || (has_dir(RESTORING) && holds_database(&root.join(RESTORING))?);
    let harmless = |name: &OsString| HARMLESS.iter().any(|harmless| name == *harmless);
    let mut names = entries.into_iter().map(|entry| entry.name);
    Ok(names.find(|name| !has_database && !harmless(name)))
}

/// Removes every file under `segments/` that `is_named` does not know: temporaries, and segments whose manifest change was
/// undone by a crash. Returns how many.
pub fn remove_orphans(disk: &dyn Dir, root: &Path, is_named: &dyn Fn(&Path) -> bool) -> io::Result<u64> {
    fn walk(disk: &dyn Dir, dir: &Path, is_named: &dyn Fn(&Path) -> bool) -> io::Result<u64> {
        let mut removed = 0;
        for entry in disk.list(dir)? {
            let path = dir.join(&entry.name);
            if entry.is_dir {
                removed += walk(disk, &path, is_named)?;
            } else if !is_named(&path) {
                disk.remove(&path)?;
                removed += 1;
            }
        }
        Ok(removed)
    }
    match walk(disk, &root.join(SEGMENTS), is_named) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        removed => removed,
    }
}

/// The data directory's lock: held as long as the value lives, released by the system if the process dies.
pub struct DirLock {
    _held: Held,
}

impl DirLock {
    /// Takes the lock, or says that somebody has it. Its file is durable afterwards: it is what tells a data directory, also
    /// one that lost everything else of its first moments.
    pub fn take(disk: &dyn Dir, root: &Path) -> io::Result<Option<Self>> {
        let Some(held) = disk.lock(&root.join(LOCK))? else {
            return Ok(None);
        };
        disk.sync_dir(root)?;
        Ok(Some(Self { _held: held }))
    }
}
