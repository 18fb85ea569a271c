//! What can be done about damaged sealed files, without a server: take them back, or do without them.
//!
//! [`Repair::take_back`] does what it can prove: a manifest says which bytes a file has (length and checksum of its tables,
//! which have those of every block), so a copy that has them is the file, wherever it is from. [`Repair::drop_segment`] gives
//! the rows up, after it wrote down which points those were.
//!
//! What is replaced is moved to `damaged/`, never removed. Each step is durable before the next; after a crash in between the
//! file is as it was, and doing it again goes on; or it is whole, or given up and named by nobody.

use std::fmt::Display;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use super::applier::{StoredCollection, decode, encode};
use super::examine::SegmentPlace;
use super::maintain::check_stop;
use super::recover::{Manifest, files_there, meta_place};
use crate::error::{Error, ErrorKind, Result};
use crate::schema::Schema;
use crate::segment::{Entry, Sealed};
use crate::storage::files::{self, DirLock};
use crate::storage::look::Look;
use crate::storage::{DEATHS, Dir, Effects, IDS, LocalDir, META, Storage, current, key, manifest, wal};
use crate::types::{CollectionNo, Row, ShardNo};

/// Where files are moved that were replaced or given up, in a data directory. Nothing reads it.
pub(super) const ASIDE: &str = "damaged";

/// A data directory under repair: locked, so that no server has it.
pub struct Repair {
    dir: PathBuf,
    _lock: DirLock,
}

/// A sealed file that is damaged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DamagedFile {
    /// Which.
    pub segment: SegmentPlace,
    /// Its collection's name.
    pub collection: String,
    /// Below the data directory, with slashes; the same in a snapshot.
    pub path: String,
    /// Its rows, dead ones included.
    pub rows: u32,
    /// Its length.
    pub bytes: u64,
    /// What is wrong with it.
    pub reason: String,
}

/// A point that is given up.
#[derive(Serialize)]
struct Lost<'a> {
    collection: &'a str,
    shard: u32,
    segment: u64,
    row: u64,
    id: &'a str,
}

/// A file that a manifest names, and of which collection it is.
struct Named {
    name: String,
    schema: Arc<Schema>,
    entry: Entry,
}

impl Repair {
    /// Takes the directory's lock.
    pub fn begin(dir: &Path) -> Result<Self> {
        if !dir.join("db").is_dir() {
            return Err(Error::invalid(
                "not_a_data_directory",
                format!("{}: there is no database here (no directory db/)", dir.display()),
            ));
        }
        let lock = DirLock::take(&LocalDir, dir)?.ok_or_else(|| {
            Error::new(
                ErrorKind::Unavailable,
                "directory_locked",
                format!("{} is open in another process: stop the server first", dir.display()),
            )
        })?;
        Ok(Self {
            dir: dir.to_owned(),
            _lock: lock,
        })
    }

    /// Every file that is damaged: all of them are read.
    pub fn damaged(&self, stop: &dyn Fn() -> bool) -> Result<Vec<DamagedFile>> {
        let mut damaged = Vec::new();
        for (place, named) in self.named()? {
            check_stop(stop)?;
            let path = path_of(place);
            let file = Sealed::open(&disk(), &self.dir.join(&path), named.entry, &named.schema)?;
            match file.whole(&mut || check_stop(stop)) {
                Err(error) if error.kind == ErrorKind::Damaged => damaged.push(DamagedFile {
                    segment: place,
                    collection: named.name,
                    path: path.to_string_lossy().replace('\\', "/"),
                    rows: named.entry.rows,
                    bytes: named.entry.bytes,
                    reason: error.message,
                }),
                whole => drop(whole?),
            }
        }
        Ok(damaged)
    }

    /// Whether a file is the one that the manifest names, every byte of it; otherwise why not.
    pub fn is_the_file(&self, place: SegmentPlace, candidate: &Path, stop: &dyn Fn() -> bool) -> Result<()> {
        let named = self.find(place)?;
        let file = Sealed::open(&disk(), candidate, named.entry, &named.schema)?;
        file.whole(&mut || check_stop(stop)).map(drop)
    }

    /// Puts a copy in the place of a damaged file, if it is that file.
    pub fn take_back(&self, place: SegmentPlace, candidate: &Path, stop: &dyn Fn() -> bool) -> Result<()> {
        self.is_the_file(place, candidate, stop)?;
        let path = self.dir.join(path_of(place));
        let (mut file, temporary) = files::create_temporary(&LocalDir, &path)?;
        io::copy(&mut File::open(candidate)?, &mut file)?;
        file.sync()?;
        // What is copied is what was looked at, or it does not come to its place.
        self.is_the_file(place, &temporary, stop)?;
        self.keep_aside(place)?;
        files::publish(&LocalDir, &mut *file, &temporary, &path)?;
        Ok(())
    }

    /// Gives up the rows of a file: its manifest names it no more, and the ids of its live points mean nothing. They are
    /// written to `list` before, a new file, one JSON object a line, durably. Returns how many. Without a list nothing is done. A
    /// file that is whole is refused.
    pub fn drop_segment(&self, place: SegmentPlace, list: Option<&Path>, stop: &dyn Fn() -> bool) -> Result<u64> {
        let named = self.find(place)?;
        match self.is_the_file(place, &self.dir.join(path_of(place)), stop) {
            Ok(()) => {
                return Err(Error::new(
                    ErrorKind::Conflict,
                    "segment_not_damaged",
                    format!(
                        "segment {} of shard {} of collection {:?} is whole, every byte of it was read: nothing of it is given up",
                        place.segment, place.shard, named.name
                    ),
                ));
            }
            Err(error) if error.kind != ErrorKind::Damaged => return Err(error),
            Err(_) => {}
        }
        let (no, shard) = (CollectionNo(place.collection), ShardNo(place.shard));
        let db = self.dir.join("db");
        let there = |storage: &Storage| files_there(&LocalDir, &self.dir, storage);
        let (look, opened);
        let storage = match list {
            None => {
                look = Look::open(&db, &there)?;
                &look.storage
            }
            Some(_) => {
                current::mend(&db)?;
                wal::mend(&db, &self.dir.join("dropped-log"))?;
                manifest::mend(&db, &self.dir.join("dropped-log"), &there)?;
                opened = Storage::open(&db, true)?;
                &opened
            }
        };
        let mut out = list.map(File::create_new).transpose()?.map(BufWriter::new);
        let mut effects = Effects::new(storage);
        let mut lost = 0;
        storage.scan(IDS, &key::shard(no, shard), &[], |key, value| {
            let row = value.try_into().map(u64::from_le_bytes);
            let row = Row(row.map_err(|_| Error::damaged("ids: a row of the wrong length"))?);
            if named.entry.first <= row && row <= named.entry.last {
                let id = std::str::from_utf8(key.get(8..).unwrap_or_default());
                let point = Lost {
                    collection: &named.name,
                    shard: place.shard,
                    segment: place.segment,
                    row: row.0,
                    id: id.map_err(|_| Error::damaged("ids: an id that is not UTF-8"))?,
                };
                let line = serde_json::to_string(&point).map_err(|e| Error::internal(format!("list: {e}")))?;
                if let Some(out) = &mut out {
                    writeln!(out, "{line}")?;
                }
                effects.delete(IDS, key);
                lost += 1;
            }
            Ok(true)
        })?;
        let Some(out) = out else { return Ok(lost) };
        let file = out.into_inner().map_err(|e| Error::from(e.into_error()))?;
        file.sync_all()?;
        if let Some(list) = list {
            let parent = list.parent().filter(|parent| !parent.as_os_str().is_empty());
            LocalDir.sync_dir(parent.unwrap_or(Path::new(".")))?;
        }
        // First: a start removes a file that no manifest names.
        self.keep_aside(place)?;
        let manifest = storage
            .get(META, &key::meta(b'm', no, Some(shard)))?
            .unwrap_or_default();
        let mut manifest: Manifest = decode(&manifest, "manifest")?;
        manifest.segments.retain(|entry| entry.no != place.segment);
        effects.put(META, &key::meta(b'm', no, Some(shard)), &encode(&manifest)?);
        let (from, to) = (named.entry.first, Row(named.entry.last.0 + 1));
        effects.delete_range(DEATHS, &key::row(no, shard, from), &key::row(no, shard, to));
        storage.write_effects(effects)?;
        storage.flush()?;
        // Last: as long as a loss of power may undo the flush, the file has to be where the manifest before says.
        self.take_away(place)?;
        Ok(lost)
    }

    /// Gives a file a second name in `damaged/`, if it is there and has none.
    fn keep_aside(&self, place: SegmentPlace) -> Result<()> {
        let path = self.dir.join(path_of(place));
        let file = match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            file => file?,
        };
        let parent = self.dir.join(ASIDE);
        fs::create_dir_all(&parent)?;
        LocalDir.sync_dir(&self.dir)?;
        let same = |other: &fs::Metadata| (file.dev(), file.ino()) == (other.dev(), other.ino());
        for to in (0..).map(|n: u32| aside(&self.dir, place, n)) {
            match fs::metadata(&to) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    if let Err(error) = fs::hard_link(&path, &to) {
                        tracing::debug!(%error, "this file system gives no file a second name: it is copied");
                        fs::copy(&path, &to)?;
                        File::open(&to)?.sync_all()?;
                    }
                    break;
                }
                // Cut off after this the last time.
                Ok(other) if same(&other) => break,
                other => {
                    other?;
                }
            }
        }
        Ok(LocalDir.sync_dir(&parent)?)
    }

    /// Takes a file out of its place, if it is there. It has another name.
    fn take_away(&self, place: SegmentPlace) -> Result<()> {
        let path = self.dir.join(path_of(place));
        if !path.exists() {
            return Ok(());
        }
        LocalDir.remove(&path)?;
        let parent = path.parent().expect("segment paths have a parent");
        Ok(LocalDir.sync_dir(parent)?)
    }

    fn find(&self, place: SegmentPlace) -> Result<Named> {
        let found = self.named()?.into_iter().find(|(at, _)| *at == place);
        let found = found.ok_or_else(|| {
            Error::not_found(
                "segment_not_found",
                format!(
                    "no manifest names segment {} of shard {} of collection number {}",
                    place.segment, place.shard, place.collection
                ),
            )
        })?;
        Ok(found.1)
    }

    /// Every file that a manifest names.
    fn named(&self) -> Result<Vec<(SegmentPlace, Named)>> {
        let there = |storage: &Storage| files_there(&LocalDir, &self.dir, storage);
        let look = Look::open(&self.dir.join("db"), &there)?;
        let storage = &look.storage;
        let mut collections = std::collections::BTreeMap::new();
        storage.scan(META, b"c", &[], |key, value| {
            let no: Option<[u8; 4]> = key.get(1..).and_then(|no| no.try_into().ok());
            let no = no.ok_or_else(|| Error::damaged("meta: a collection key of the wrong length"))?;
            let stored: StoredCollection =
                serde_json::from_slice(value).map_err(|e| Error::damaged(format!("meta: a collection: {e}")))?;
            collections.insert(
                CollectionNo(u32::from_be_bytes(no)),
                (stored.name, Arc::new(stored.schema)),
            );
            Ok(true)
        })?;
        let mut named = Vec::new();
        storage.scan(META, b"m", &[], |key, value| {
            let (no, shard) = meta_place(key)?;
            let manifest: Manifest = decode(value, "manifest")?;
            if let Some((name, schema)) = collections.get(&no) {
                named.extend(manifest.segments.into_iter().map(|entry| {
                    let place = SegmentPlace {
                        collection: no.0,
                        shard: shard.0,
                        segment: entry.no,
                    };
                    let named = Named {
                        name: name.clone(),
                        schema: Arc::clone(schema),
                        entry,
                    };
                    (place, named)
                }));
            }
            Ok(true)
        })?;
        Ok(named)
    }
}

/// Where a file that is replaced is kept; `which` tells it from others of the same place.
pub(super) fn aside(root: &Path, place: SegmentPlace, which: impl Display) -> PathBuf {
    let SegmentPlace {
        collection,
        shard,
        segment,
    } = place;
    root.join(ASIDE)
        .join(format!("{collection}-{shard}-{segment:010}.{which}.seg"))
}

fn disk() -> Arc<dyn Dir> {
    Arc::new(LocalDir)
}

fn path_of(place: SegmentPlace) -> PathBuf {
    files::segment_path(
        Path::new(""),
        CollectionNo(place.collection),
        ShardNo(place.shard),
        place.segment,
    )
}
