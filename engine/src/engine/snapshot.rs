//! One moment of the whole database as files: what a snapshot is made of.
//!
//! A cut is a directory of hard links inside the data directory (`cuts/<n>/`), laid out like a data directory: a RocksDB
//! checkpoint, and the sealed files that its manifests name. Opening a copy of it gives the state right after the record that
//! the cut names, neither more nor less.
//!
//! Guarantees: the files never change and stay as long as the [`Cut`] lives, whatever is merged or dropped meanwhile. Writers
//! wait for a flush of what came in since the one before it, and for as many hard links as there are files; never for the
//! length of a copy. Queries do not wait.
//! Not guaranteed: that a cut survives the process. What a crash leaves is removed at open.
//! Failure: an error leaves nothing behind, and the engine as it was. Of a database in which a file is damaged there is no cut.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Engine;
use super::import::is_unfinished;
use crate::error::{Error, ErrorKind, Result};
use crate::segment::Sealed;
use crate::storage::{Dir, files};
use crate::types::{Epochs, History, Identity, ShardNo, Token};

/// Where cuts are, in a data directory.
const CUTS: &str = "cuts";

/// One moment of the database, as files. Dropping it removes them.
pub struct Cut {
    dir: PathBuf,
    disk: Arc<dyn Dir>,
    /// The last record in it.
    pub token: Token,
    /// When it was taken, in milliseconds since the Unix epoch: no record in it was written later.
    pub taken_at_ms: u64,
    /// Which database it is of.
    pub identity: Identity,
    /// Of its log up to `token`.
    pub history: History,
    /// The first record in its log, or the one that would follow `token`.
    pub log_from: Token,
    /// Who wrote the records up to `token`.
    pub epochs: Epochs,
    /// The collections in it, by name.
    pub collections: Vec<CutCollection>,
    /// Its files, by path.
    pub files: Vec<CutFile>,
}

/// A collection of a cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CutCollection {
    /// Its name.
    pub name: String,
    /// Live points.
    pub points: u64,
    /// Documents.
    pub documents: u64,
}

/// Knows what a sealed file should be, for who reads it to make a copy: what was verified long ago may have rotted since.
#[derive(Clone)]
pub struct Original(pub(super) Arc<Sealed>);

impl Original {
    /// Compares bytes that were read of the file from `at` on; both are multiples of a block of 64 KiB, but at the end of the file. What
    /// differs sets the file aside, and is an error of kind `Damaged`.
    pub fn check(&self, at: u64, bytes: &[u8]) -> Result<()> {
        self.0.check_read(at, bytes).map_err(|error| match error.kind {
            ErrorKind::Damaged => Error {
                code: "segment_damaged",
                message: format!(
                    "a copy was to be made of a file that is not what was written any more: it is set aside: {}",
                    error.message
                ),
                ..error
            },
            _ => error,
        })
    }
}

impl std::fmt::Debug for Original {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Original").field(&self.0.entry).finish()
    }
}

/// A sealed file of a running engine.
#[derive(Debug, Clone)]
pub struct SealedFile {
    /// Below the data directory; with slashes.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// It is set aside: it is not what was written.
    pub is_damaged: bool,
    /// What it should be.
    pub original: Option<Original>,
}

/// A file of a cut.
#[derive(Debug, Clone)]
pub struct CutFile {
    /// Below the cut's directory, and where it belongs in a data directory; with slashes.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// What it should be, if it is a sealed file.
    pub original: Option<Original>,
}

impl Cut {
    /// The directory that its files are in.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        // Sealed files are where the engine has them, RocksDB's on the disk of the machine, which is mostly the same.
        let removed = self
            .disk
            .remove(&self.dir)
            .and_then(|()| match fs::remove_dir_all(&self.dir) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            });
        if let Err(error) = removed {
            tracing::warn!(dir = %self.dir.display(), %error, "a cut stays until the next start");
        }
    }
}

impl std::fmt::Debug for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cut")
            .field("dir", &self.dir)
            .field("token", &self.token)
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}

impl Engine {
    /// Takes a cut of now. Any number may be held; each keeps its files on disk. What nobody has looked at since the start is
    /// read first, which may take long: `stop` ends that, and `progress` is told how far it is.
    pub fn cut(&self, stop: &dyn Fn() -> bool, progress: &mut dyn FnMut(f32)) -> Result<Cut> {
        let shared = &self.shared;
        shared.check_alive()?;
        // A copy of damage would take the place of a copy of what is damaged. (What is read for the copy is checked once more.)
        // Where nothing lives in what is damaged, nobody misses it.
        shared.drop_lifeless()?;
        if self.verify_all(stop, progress).is_err() {
            shared.drop_lifeless()?;
            self.verify_all(stop, progress)?;
        }
        // Most of what is only in memory goes to disk while writers go on, so that little is left for the flush below.
        shared.flush("flush to cut")?;
        let mut cut = Cut {
            dir: new_dir(&shared.dir.join(CUTS))?,
            disk: Arc::clone(&shared.components.files),
            token: self.applied(),
            taken_at_ms: 0,
            identity: shared.identity,
            history: History::default(),
            log_from: Token::default(),
            epochs: Epochs::default(),
            collections: Vec::new(),
            files: Vec::new(),
        };
        {
            // With the lock no record is applied and no manifest changes: the checkpoint names exactly the sealed files that
            // the shards hold here, and none of those can be in the trash.
            let applier = shared.locked()?;
            let epochs = shared.epochs.load();
            cut.token = epochs.token(applier.applied);
            cut.history = applier.history;
            cut.log_from = epochs.token(applier.log_start);
            cut.epochs = Epochs::clone(&epochs);
            // After the last record, whose time was taken before it was in the log.
            cut.taken_at_ms = self.now_ms();
            shared.checkpoint(&cut.dir.join("db"))?;
            for (no, state) in &applier.states {
                let listing = state.collection.listing();
                if let Some(missing) = listing.damaged().next() {
                    return Err(missing.of(&state.collection.name));
                }
                for (i, shard) in state.shards.iter().enumerate() {
                    let place = ShardNo(i as u32);
                    for view in &shard.sealed {
                        let segment = view.file.entry.no;
                        let inside = files::segment_path(Path::new(""), *no, place, segment);
                        let from = shared.dir.join(&inside);
                        let linked = cut.disk.link(&from, &cut.dir.join(&inside));
                        linked.map_err(|e| Error::internal(format!("i/o: a hard link to {}: {e}", from.display())))?;
                        cut.files.push(CutFile {
                            path: inside.to_str().expect("made of numbers").to_owned(),
                            bytes: view.file.entry.bytes,
                            original: Some(Original(Arc::clone(&view.file))),
                        });
                    }
                }
                cut.collections.push(CutCollection {
                    name: state.collection.name.clone(),
                    points: listing.live(),
                    documents: listing.documents,
                });
            }
        }
        cut.collections.retain(|collection| !is_unfinished(&collection.name));
        cut.collections.sort_by(|a, b| a.name.cmp(&b.name));
        list(&cut.dir.join("db"), "db/", &mut cut.files)?;
        cut.files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(cut)
    }
}

/// Removes what a crash left of cuts. The directory is locked.
pub(super) fn remove_leftovers(disk: &dyn Dir, dir: &Path) -> io::Result<()> {
    disk.remove(&dir.join(CUTS))
}

fn new_dir(parent: &Path) -> io::Result<PathBuf> {
    /// No name is used twice: who removes a cut may not be done yet when its name is free.
    static NEXT: AtomicU64 = AtomicU64::new(0);
    fs::create_dir_all(parent)?;
    loop {
        let dir = parent.join(NEXT.fetch_add(1, Ordering::Relaxed).to_string());
        match fs::create_dir(&dir) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => return made.map(|()| dir),
        }
    }
}

fn list(dir: &Path, prefix: &str, into: &mut Vec<CutFile>) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name
            .to_str()
            .ok_or_else(|| Error::internal("a file of ours with a name that is not UTF-8"))?;
        let meta = entry.metadata()?;
        if meta.is_dir() {
            list(&entry.path(), &format!("{prefix}{name}/"), into)?;
        } else {
            into.push(CutFile {
                path: format!("{prefix}{name}"),
                bytes: meta.len(),
                original: None,
            });
        }
    }
    Ok(())
}
