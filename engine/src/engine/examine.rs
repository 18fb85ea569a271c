//! A data directory looked at from outside, all of it, without changing a byte.
//!
//! What an engine checks when something is needed is checked here of everything: the end of the log is judged, every entry of
//! the database is read with its checksum and decoded, every block of every sealed file is verified and what passes is
//! compared: manifests with files, ids with rows, deaths with rows, counts with what is counted. Nothing is repaired, and
//! nothing is skipped because something before it was wrong, as far as it can be read.
//!
//! The directory must not be in use. What is judged is the state on disk; records that a start would apply again are read, and
//! not applied.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use super::applier::{StoredCollection, StoredDocument, StoredRow, decode};
use super::maintain::check_stop;
use super::recover::{Manifest, Place, files_there, meta_place};
use crate::error::{Error, ErrorKind, Result};
use crate::log::Record;
use crate::schema::Schema;
use crate::segment::{Identity, Sealed, SealedView};
use crate::storage::look::{Look, Prelude};
use crate::storage::{DEATHS, DOCS, Dir, IDS, LOG, LocalDir, META, REQUESTS, ROWS, Storage, files, key};
use crate::types::{CollectionNo, Row, Seq, ShardNo};

/// At most so many findings are told; a table of a million wrong entries is one trouble, not a million.
const FINDINGS_MAX: usize = 1_000;

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Examined {
    /// The last record whose effects are in the state on disk.
    pub applied_seq: u64,
    /// Records in the log, those that a start would apply again among them.
    pub log_records: u64,
    /// Records that a start would apply again.
    pub to_replay: u64,
    /// Entries of the database.
    pub entries: u64,
    /// Sealed files that a manifest names.
    pub segments: u64,
    /// Their blocks.
    pub blocks: u64,
    /// Their bytes.
    pub segment_bytes: u64,
    /// Collections by name, with their live points.
    pub collections: BTreeMap<String, u64>,
    /// What is wrong, and what should be known; at most a thousand.
    pub findings: Vec<Finding>,
    /// How many more there are.
    pub findings_left_out: u64,
}

/// Something that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub kind: FindingKind,
    /// The file, or the part of the database.
    pub place: String,
    /// What is wrong with it.
    pub what: String,
    /// If it is a sealed file: which.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub segment: Option<SegmentPlace>,
}

/// Which sealed file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct SegmentPlace {
    /// Number of its collection.
    pub collection: u32,
    /// Its shard.
    pub shard: u32,
    /// Its number.
    pub segment: u64,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// Bytes are not what was written, or do not fit together.
    Damage,
    /// Nothing is wrong; a start would change this.
    Note,
}

impl Examined {
    /// Nothing is damaged.
    pub fn is_sound(&self) -> bool {
        !self.findings.iter().any(|finding| finding.kind == FindingKind::Damage)
    }

    fn find(&mut self, kind: FindingKind, place: impl Into<String>, what: impl Into<String>) {
        self.add(Finding {
            kind,
            place: place.into(),
            what: what.into(),
            segment: None,
        });
    }

    fn add(&mut self, finding: Finding) {
        match self.findings.len() < FINDINGS_MAX {
            true => self.findings.push(finding),
            false => self.findings_left_out += 1,
        }
    }
}

/// A collection as `meta` says it.
struct Known {
    name: String,
    schema: Arc<Schema>,
}

/// Looks at everything in a data directory. `progress` is told what is looked at; once `stop` says true it ends as `Cancelled`.
/// An error means that it could not be looked at: it is in use, or no data directory. Damage is in what comes back.
pub fn examine(dir: &Path, stop: &dyn Fn() -> bool, progress: &mut dyn FnMut(&str)) -> Result<Examined> {
    let _lock = hold(dir)?;
    let mut found = Examined::default();
    if dir.join(files::RESTORING).exists() {
        found.find(
            FindingKind::Damage,
            files::RESTORING,
            "a restore into this directory did not come to its end: restore again",
        );
    }
    progress("the write-ahead log");
    let db = dir.join("db");
    let there = |storage: &Storage| files_there(&LocalDir, dir, storage);
    let look = Prelude::judge(&db, &there).and_then(|prelude| {
        if let Some(put_back) = &prelude.put_back {
            found.find(
                FindingKind::Note,
                db.join("CURRENT").display().to_string(),
                format!(
                    "it names {}, which a crash kept from the disk: a start has it name {} again, and nothing is lost",
                    put_back.missing, put_back.to
                ),
            );
        }
        if let Some(cut) = &prelude.cut {
            found.find(
                FindingKind::Note,
                cut.file.display().to_string(),
                format!(
                    "the log ends at byte {}: what follows ({} bytes, {} readable groups) was not known to be fsynced, and a start \
                     cuts it off and keeps it in dropped-log/",
                    cut.at, cut.bytes, cut.groups
                ),
            );
        }
        if let Some(shortened) = &prelude.shortened {
            found.find(
                FindingKind::Note,
                shortened.file.display().to_string(),
                format!(
                    "it ends at byte {}: what follows ({} bytes) a crash kept from the disk in part, and all is there without it; a start \
                     cuts it off and keeps it in dropped-log/",
                    shortened.at, shortened.bytes
                ),
            );
        }
        progress("the database");
        Look::after(&db, &prelude)
    });
    let look = match look {
        Ok(look) => look,
        Err(error) if error.message.contains("TMPDIR") => return Err(error),
        Err(error) => {
            found.find(FindingKind::Damage, db.display().to_string(), error.message);
            return Ok(found);
        }
    };
    let storage = &look.storage;
    let known = meta(storage, &mut found);
    log(storage, &mut found, stop)?;
    let manifests = manifests(storage, &mut found);
    let mut named = BTreeSet::new();
    let mut shards: BTreeMap<Place, Vec<SealedView>> = BTreeMap::new();
    for ((no, shard), manifest) in &manifests {
        let Some(collection) = known.get(no) else {
            found.find(
                FindingKind::Damage,
                format!("meta: manifest of collection {}", no.0),
                "there is no such collection",
            );
            continue;
        };
        for entry in &manifest.segments {
            check_stop(stop)?;
            let path = files::segment_path(dir, *no, *shard, entry.no);
            progress(&path.display().to_string());
            named.insert(path.clone());
            found.segments += 1;
            let disk: Arc<dyn Dir> = Arc::new(LocalDir);
            let file = Sealed::open(&disk, &path, *entry, &collection.schema)?;
            let whole = file.whole(&mut || check_stop(stop));
            found.blocks += file.progress().0;
            found.segment_bytes += entry.bytes;
            match whole {
                Err(error) if error.kind == ErrorKind::Damaged => found.add(Finding {
                    kind: FindingKind::Damage,
                    place: path.display().to_string(),
                    what: format!(
                        "{} (collection {:?}, shard {}, rows {} to {})",
                        error.message, collection.name, shard.0, entry.first.0, entry.last.0
                    ),
                    segment: Some(SegmentPlace {
                        collection: no.0,
                        shard: shard.0,
                        segment: entry.no,
                    }),
                }),
                whole => drop(whole?),
            }
            shards
                .entry((*no, *shard))
                .or_default()
                .push(SealedView::fresh(Arc::new(file)));
        }
    }
    progress("what belongs together");
    deaths(storage, &mut shards, &mut found)?;
    rows(storage, &mut found, stop)?;
    ids(storage, &known, &shards, &mut found, stop)?;
    documents(storage, &known, &mut found, stop)?;
    requests(storage, &mut found)?;
    orphans(dir, &named, &mut found)?;
    Ok(found)
}

/// The directory's lock, which nothing is written for.
fn hold(dir: &Path) -> Result<Option<File>> {
    let bad = |what: &str| Error::invalid("not_a_data_directory", format!("{}: {what}", dir.display()));
    if !dir.join("db").is_dir() && !dir.join(files::RESTORING).is_dir() {
        return Err(bad("there is no database here (no directory db/)"));
    }
    let file = match File::open(dir.join(files::LOCK)) {
        // A copy may lack it.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(std::fs::TryLockError::WouldBlock) => Err(Error::new(
            ErrorKind::Unavailable,
            "directory_locked",
            format!("{} is open in another process: stop the server first", dir.display()),
        )),
        Err(std::fs::TryLockError::Error(error)) => Err(error.into()),
    }
}

/// Reads a family to its end or to where it cannot be read.
fn scan(
    storage: &Storage,
    family: &str,
    prefix: &[u8],
    found: &mut Examined,
    each: &mut dyn FnMut(&[u8], &[u8], &mut Examined) -> Result<()>,
) -> Result<()> {
    let scanned = storage.scan_checked(family, prefix, |key, value| {
        found.entries += 1;
        match each(key, value, found) {
            Err(error) if error.kind == ErrorKind::Damaged => {
                found.find(FindingKind::Damage, format!("db: {family}"), error.message);
                Ok(true)
            }
            done => done.map(|()| true),
        }
    });
    match scanned {
        Err(error) if error.kind == ErrorKind::Damaged => {
            found.find(
                FindingKind::Damage,
                format!("db: {family}"),
                format!("{}; entries after it were not read", error.message),
            );
            Ok(())
        }
        scanned => scanned,
    }
}

fn meta(storage: &Storage, found: &mut Examined) -> BTreeMap<CollectionNo, Known> {
    let mut known = BTreeMap::new();
    let read = scan(storage, META, b"", found, &mut |key, value, found| {
        let short = || Error::damaged("a key or value of the wrong length");
        match key {
            b"applied" => {
                found.applied_seq = u64::from_le_bytes(value.try_into().map_err(|_| short())?);
            }
            [b'c', no @ ..] if no.len() == 4 => {
                let no = CollectionNo(u32::from_be_bytes(no.try_into().map_err(|_| short())?));
                let stored: StoredCollection =
                    serde_json::from_slice(value).map_err(|e| Error::damaged(format!("collection {}: {e}", no.0)))?;
                found.collections.insert(stored.name.clone(), 0);
                known.insert(
                    no,
                    Known {
                        name: stored.name,
                        schema: Arc::new(stored.schema),
                    },
                );
            }
            _ => {}
        }
        Ok(())
    });
    if let Err(error) = read {
        found.find(FindingKind::Damage, "db: meta", error.message);
    }
    known
}

fn manifests(storage: &Storage, found: &mut Examined) -> Vec<(Place, Manifest)> {
    let mut manifests = Vec::new();
    let read = scan(storage, META, b"m", found, &mut |key, value, _| {
        manifests.push((meta_place(key)?, decode::<Manifest>(value, "manifest")?));
        Ok(())
    });
    if let Err(error) = read {
        found.find(FindingKind::Damage, "db: meta", error.message);
    }
    manifests
}

/// Every record decodes, and none is missing between the first that is kept and the last.
fn log(storage: &Storage, found: &mut Examined, stop: &dyn Fn() -> bool) -> Result<()> {
    let mut last: Option<Seq> = None;
    scan(storage, LOG, b"", found, &mut |key, value, found| {
        check_stop(stop)?;
        let seq = key
            .get(4..12)
            .and_then(|seq| seq.try_into().ok())
            .map(u64::from_be_bytes)
            .ok_or_else(|| Error::damaged("a key of the wrong length"))?;
        Record::decode(value).map_err(|error| Error::damaged(format!("record {seq}: {}", error.message)))?;
        found.log_records += 1;
        if seq > found.applied_seq {
            found.to_replay += 1;
            let gap = last.map_or(found.applied_seq, |last| last.0.max(found.applied_seq));
            if seq != gap + 1 {
                return Err(Error::damaged(format!(
                    "records {} to {} are missing",
                    gap + 1,
                    seq - 1
                )));
            }
        }
        last = Some(Seq(seq));
        Ok(())
    })
}

/// A dead row of a file is one that the file has. (Others died before they were sealed.)
fn deaths(storage: &Storage, shards: &mut BTreeMap<Place, Vec<SealedView>>, found: &mut Examined) -> Result<()> {
    scan(storage, DEATHS, b"", found, &mut |key, _, _| {
        let (no, shard, row) = key::parse_row(key).ok_or_else(|| Error::damaged("a key of the wrong length"))?;
        let views = shards.get_mut(&(no, shard)).into_iter().flatten();
        let holder = views.into_iter().find(|view| holds(view, row));
        match holder.is_none_or(|view| view.kill(row)) {
            true => Ok(()),
            false => Err(Error::damaged(format!(
                "row {} of shard {} of collection {} is dead, and in no file",
                row.0, shard.0, no.0
            ))),
        }
    })
}

fn holds(view: &SealedView, row: Row) -> bool {
    view.file.entry.first <= row && row <= view.file.entry.last
}

/// Every unsealed row says where its content is, and it is there.
fn rows(storage: &Storage, found: &mut Examined, stop: &dyn Fn() -> bool) -> Result<()> {
    scan(storage, ROWS, b"", found, &mut |key, value, _| {
        check_stop(stop)?;
        let (_, _, row) = key::parse_row(key).ok_or_else(|| Error::damaged("a key of the wrong length"))?;
        match decode(value, "rows")? {
            StoredRow::Inline { .. } => Ok(()),
            StoredRow::InLog { seq, .. } => match storage.get(LOG, &key::log(0, seq))? {
                Some(_) => Ok(()),
                None => Err(Error::damaged(format!(
                    "row {} names record {} of the log, which is gone",
                    row.0, seq.0
                ))),
            },
        }
    })
}

/// Every id names a row that lives and has that id, and every live row is named.
fn ids(
    storage: &Storage,
    known: &BTreeMap<CollectionNo, Known>,
    shards: &BTreeMap<Place, Vec<SealedView>>,
    found: &mut Examined,
    stop: &dyn Fn() -> bool,
) -> Result<()> {
    for (no, collection) in known {
        let mut points = 0;
        for shard in (0..collection.schema.shards).map(ShardNo) {
            let views = shards.get(&(*no, shard)).map_or(&[][..], |views| &views[..]);
            // Of a damaged file only the manifest is known.
            let identities: Vec<Option<Arc<Identity>>> = views
                .iter()
                .map(|view| view.file.identity(crate::patience::Patience::endless()).ok())
                .collect();
            let (mut named, mut unsealed) = (vec![0u64; views.len()], 0u64);
            scan(storage, IDS, &key::shard(*no, shard), found, &mut |key, value, _| {
                check_stop(stop)?;
                points += 1;
                let id = std::str::from_utf8(key.get(8..).unwrap_or_default())
                    .map_err(|_| Error::damaged("an id that is not UTF-8"))?;
                let row = Row(u64::from_le_bytes(
                    value
                        .try_into()
                        .map_err(|_| Error::damaged("a row of the wrong length"))?,
                ));
                let wrong = |what: &str| {
                    Err(Error::damaged(format!(
                        "{id:?} of {:?} is row {} of shard {}, {what}",
                        collection.name, row.0, shard.0
                    )))
                };
                let Some(i) = views.iter().position(|view| holds(view, row)) else {
                    unsealed += 1;
                    return match storage.get(ROWS, &key::row(*no, shard, row))? {
                        Some(_) => Ok(()),
                        None => wrong("which is nowhere"),
                    };
                };
                named[i] += 1;
                let Some(identity) = &identities[i] else { return Ok(()) };
                match identity.ordinal_of(row) {
                    None => wrong("which its file does not have"),
                    Some(ordinal) if views[i].dead.contains(ordinal) => wrong("which is dead"),
                    Some(ordinal) if identity.id_of(ordinal) != id => wrong("which has another id"),
                    Some(_) => Ok(()),
                }
            })?;
            for (view, named) in views.iter().zip(named) {
                if named != view.live() {
                    found.find(
                        FindingKind::Damage,
                        "db: ids",
                        format!(
                            "segment {} of shard {} of {:?} has {} live rows, and ids name {named}",
                            view.file.entry.no,
                            shard.0,
                            collection.name,
                            view.live()
                        ),
                    );
                }
            }
            let mut waiting = 0;
            storage.scan(ROWS, &key::shard(*no, shard), &[], |_, _| {
                waiting += 1;
                Ok(true)
            })?;
            if waiting != unsealed {
                found.find(
                    FindingKind::Damage,
                    "db: rows",
                    format!(
                        "shard {} of {:?} has {waiting} unsealed rows, and ids name {unsealed}",
                        shard.0, collection.name
                    ),
                );
            }
        }
        found.collections.insert(collection.name.clone(), points);
    }
    Ok(())
}

/// Every document decodes, and there are as many as `meta` says.
fn documents(
    storage: &Storage,
    known: &BTreeMap<CollectionNo, Known>,
    found: &mut Examined,
    stop: &dyn Fn() -> bool,
) -> Result<()> {
    for (no, collection) in known {
        let mut documents = 0u64;
        scan(storage, DOCS, &key::collection(*no), found, &mut |_, value, _| {
            check_stop(stop)?;
            documents += 1;
            decode::<StoredDocument>(value, "docs").map(drop)
        })?;
        let said = storage.get(META, &key::meta(b'd', *no, None))?;
        let said = said.map_or(Some(0), |bytes| Some(u64::from_le_bytes(bytes[..].try_into().ok()?)));
        if said != Some(documents) {
            found.find(
                FindingKind::Damage,
                "db: docs",
                format!(
                    "{:?} has {documents} documents, and meta says {said:?}",
                    collection.name
                ),
            );
        }
    }
    Ok(())
}

fn requests(storage: &Storage, found: &mut Examined) -> Result<()> {
    scan(storage, REQUESTS, b"", found, &mut |_, _, _| Ok(()))
}

/// Files that no manifest names: left by a crash, removed by the next start.
fn orphans(dir: &Path, named: &BTreeSet<PathBuf>, found: &mut Examined) -> Result<()> {
    let mut left = vec![dir.join("segments")];
    while let Some(next) = left.pop() {
        let entries = match std::fs::read_dir(&next) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            entries => entries?,
        };
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() {
                left.push(path);
            } else if !named.contains(&path) {
                found.find(
                    FindingKind::Note,
                    path.display().to_string(),
                    "no manifest names it; a start removes it",
                );
            }
        }
    }
    Ok(())
}
