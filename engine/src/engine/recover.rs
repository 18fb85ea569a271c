//! Opening: from what a crash left to the state that the log says.
//!
//! 1. lock the directory, open RocksDB (a torn WAL tail is cut, anything worse refuses);
//! 2. read collections, counters and manifests; map and verify every segment they name; mark its dead rows;
//! 3. rebuild growing segments: `rows` says where the content of each unsealed live row is;
//! 4. replay records after the applied one through the same `apply` as a live write;
//! 5. remove files that no manifest names.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};

use super::applier::{Applier, Batch, State, StoredCollection, StoredRow, decode, to_pending};
use super::commit::{Counters, Memory, Shared, Signal};
use super::snapshot;
use crate::collection::Collection;
use crate::config::{Components, Settings};
use crate::error::{Error, ErrorKind, Result};
use crate::limits;
use crate::log::{LocalLog, Record};
use crate::op::{Op, PointRecord};
use crate::segment::{PendingRow, Segment, SegmentView};
use crate::shard::Shard;
use crate::storage::files::{self, DirLock};
use crate::storage::{DEATHS, META, ROWS, Storage, key};
use crate::types::{CollectionNo, Row, Seq, ShardNo};

/// A shard's sealed segments, by ascending rows: the entry under `m` in `meta`.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Manifest {
    pub(super) segments: Vec<u64>,
}

pub(super) type Place = (CollectionNo, ShardNo);

pub(super) fn open(dir: &Path, settings: Settings, components: Components) -> Result<Shared> {
    fs::create_dir_all(dir)?;
    if let Some(entry) = files::foreign_entry(dir)? {
        return Err(Error::invalid(
            "not_a_data_directory",
            format!(
                "{} holds other things ({}) and no Cairn database: give an empty or a new directory",
                dir.display(),
                entry.display()
            ),
        ));
    }
    let lock = DirLock::take(dir)?.ok_or_else(|| {
        Error::new(
            ErrorKind::Unavailable,
            "directory_locked",
            format!("another process has the data directory {} open", dir.display()),
        )
    })?;
    if dir.join(files::RESTORING).exists() {
        return Err(Error::invalid(
            "restore_incomplete",
            format!(
                "a restore into {} did not come to its end: restore again",
                dir.display()
            ),
        ));
    }
    snapshot::remove_leftovers(dir)?;
    let storage = Arc::new(Storage::open(&dir.join("db"))?);
    let shared = Shared {
        dir: dir.to_owned(),
        settings,
        components,
        log: LocalLog::new(Arc::clone(&storage), 0),
        storage,
        collections: RwLock::default(),
        queue: Mutex::default(),
        applier: Mutex::default(),
        memory: Memory::default(),
        work: Signal::default(),
        finished: Signal::default(),
        poison: Mutex::default(),
        counters: Counters::default(),
        merging: AtomicBool::new(false),
        naming: Mutex::default(),
        _lock: lock,
    };
    {
        let mut applier = shared.applier.lock();
        load_meta(&shared, &mut applier)?;
        load_segments(&shared, &mut applier)?;
        load_growing(&shared, &mut applier)?;
        publish_all(&applier);
        replay(&shared, &mut applier)?;
        remove_orphans(&shared, &mut applier)?;
        let all: Vec<Place> = places(&applier).collect();
        applier.changed.extend(all);
        shared.counters.applied.store(applier.applied.0, Ordering::Release);
    }
    shared.work.ring();
    Ok(shared)
}

fn places(applier: &Applier) -> impl Iterator<Item = Place> + '_ {
    applier
        .states
        .iter()
        .flat_map(|(no, state)| (0..state.shards.len() as u32).map(move |s| (*no, ShardNo(s))))
}

fn number<const N: usize>(bytes: &[u8], what: &str) -> Result<[u8; N]> {
    bytes
        .try_into()
        .map_err(|_| Error::damaged(format!("meta: {what} has {} bytes, expected {N}", bytes.len())))
}

fn meta_place(key: &[u8]) -> Result<Place> {
    let bytes: [u8; 8] = number(&key[1..], "a shard key")?;
    let (no, shard) = bytes.split_at(4);
    Ok((
        CollectionNo(u32::from_be_bytes(number(no, "a number")?)),
        ShardNo(u32::from_be_bytes(number(shard, "a number")?)),
    ))
}

fn load_meta(shared: &Shared, applier: &mut Applier) -> Result<()> {
    let storage = &shared.storage;
    if let Some(bytes) = storage.get(META, b"applied")? {
        applier.applied = Seq(u64::from_le_bytes(number(&bytes, "applied")?));
    }
    if let Some(bytes) = storage.get(META, b"next_collection")? {
        applier.next_collection = u32::from_le_bytes(number(&bytes, "next_collection")?);
    }
    if let Some(bytes) = storage.get(META, b"next_segment")? {
        applier.next_segment = u64::from_le_bytes(number(&bytes, "next_segment")?);
    }
    storage.scan(META, b"c", &[], |key, value| {
        let no = CollectionNo(u32::from_be_bytes(number(&key[1..], "a collection key")?));
        let stored: StoredCollection =
            serde_json::from_slice(value).map_err(|e| Error::damaged(format!("meta: collection {}: {e}", no.0)))?;
        let collection = Arc::new(Collection::new(no, stored.name.clone(), stored.schema)?);
        let shards = (0..collection.schema.shards).map(|_| Shard::default()).collect();
        shared.collections.write().insert(stored.name, Arc::clone(&collection));
        applier.states.insert(
            no,
            State {
                collection,
                shards,
                documents: 0,
            },
        );
        Ok(true)
    })?;
    storage.scan(META, b"d", &[], |key, value| {
        let no = CollectionNo(u32::from_be_bytes(number(&key[1..], "a collection key")?));
        if let Some(state) = applier.states.get_mut(&no) {
            state.documents = u64::from_le_bytes(number(value, "a document count")?);
        }
        Ok(true)
    })?;
    storage.scan(META, b"r", &[], |key, value| {
        let (no, shard) = meta_place(key)?;
        if let Some(shard) = shard_mut(applier, no, shard) {
            shard.next_row = u64::from_le_bytes(number(value, "a row counter")?);
        }
        Ok(true)
    })
}

fn shard_mut(applier: &mut Applier, no: CollectionNo, shard: ShardNo) -> Option<&mut Shard> {
    applier.states.get_mut(&no)?.shards.get_mut(shard.0 as usize)
}

fn load_segments(shared: &Shared, applier: &mut Applier) -> Result<()> {
    let mut manifests = Vec::new();
    shared.storage.scan(META, b"m", &[], |key, value| {
        manifests.push((meta_place(key)?, decode::<Manifest>(value, "manifest")?));
        Ok(true)
    })?;
    for ((no, shard_no), manifest) in manifests {
        let Some(state) = applier.states.get_mut(&no) else {
            continue;
        };
        let Some(shard) = state.shards.get_mut(shard_no.0 as usize) else {
            continue;
        };
        for segment in manifest.segments {
            let path = files::segment_path(&shared.dir, no, shard_no, segment);
            let segment = Segment::open(&path, segment, &state.collection.schema)?;
            shard.sealed.push(SegmentView::fresh(Arc::new(segment)));
        }
        shared.storage.scan(DEATHS, &key::shard(no, shard_no), &[], |key, _| {
            let (_, _, row) = key::parse_row(key).ok_or_else(|| Error::damaged("deaths: a key of the wrong length"))?;
            // Rows that died before they were sealed are in no segment: nothing to mark.
            shard.kill(row);
            Ok(true)
        })?;
    }
    Ok(())
}

/// One record at a time: what it holds for any shard is taken out before the next is read.
fn load_growing(shared: &Shared, applier: &mut Applier) -> Result<()> {
    let mut wanted: BTreeMap<Seq, Vec<(Place, Row, u32, u32)>> = BTreeMap::new();
    let mut touched: BTreeSet<Place> = BTreeSet::new();
    shared.storage.scan(ROWS, &[], &[], |key, value| {
        let (no, shard_no, row) =
            key::parse_row(key).ok_or_else(|| Error::damaged("rows: a key of the wrong length"))?;
        let Some(state) = applier.states.get_mut(&no) else {
            return Ok(true);
        };
        let Some(shard) = state.shards.get_mut(shard_no.0 as usize) else {
            return Ok(true);
        };
        touched.insert((no, shard_no));
        match decode(value, "rows")? {
            StoredRow::InLog { seq, op, point } => {
                wanted.entry(seq).or_default().push(((no, shard_no), row, op, point));
            }
            StoredRow::Inline { birth, point } => {
                let pending = to_pending(&point, &state.collection.schema)?;
                shard.pending.push(PendingRow {
                    row,
                    birth,
                    inline: true,
                    ..pending
                });
            }
        }
        Ok(true)
    })?;
    for (seq, rows) in wanted {
        let (record, bytes) = shared
            .log
            .get(seq)?
            .ok_or_else(|| Error::damaged(format!("rows names log record {}, which is gone", seq.0)))?;
        applier.account_log(seq, bytes as u64);
        for ((no, shard_no), row, op, point) in rows {
            let state = applier.states.get_mut(&no).expect("its rows were found by this state");
            let content = point_of(&record, op, point).ok_or_else(|| {
                Error::damaged(format!(
                    "rows names point {point} of operation {op} of record {}, which is not there",
                    seq.0
                ))
            })?;
            let pending = to_pending(content, &state.collection.schema)?;
            state.shards[shard_no.0 as usize].pending.push(PendingRow {
                row,
                birth: seq,
                ..pending
            });
        }
    }
    for (no, shard_no) in touched {
        let state = applier.states.get_mut(&no).expect("its rows were found by this state");
        let shard = &mut state.shards[shard_no.0 as usize];
        shard.pending.sort_by_key(|pending| pending.row);
        let change = shard.settle(&state.collection.spec())?;
        shared.memory.add(change);
    }
    Ok(())
}

fn point_of(record: &Record, op: u32, point: u32) -> Option<&PointRecord> {
    match record.ops.get(op as usize)? {
        Op::Upsert { points, .. } | Op::PutDocument { chunks: points, .. } => points.get(point as usize),
        Op::CreateCollection { .. }
        | Op::DropCollection { .. }
        | Op::Delete { .. }
        | Op::DeleteMatching { .. }
        | Op::SetPayload { .. }
        | Op::DeleteDocuments { .. }
        | Op::RenameCollection { .. } => None,
    }
}

fn publish_all(applier: &Applier) {
    for (no, state) in &applier.states {
        let shards: Vec<ShardNo> = (0..state.shards.len() as u32).map(ShardNo).collect();
        if state
            .shards
            .iter()
            .any(|s| !s.sealed.is_empty() || !s.growing.is_empty())
            || state.documents > 0
        {
            applier.publish(*no, &shards);
        }
    }
}

fn replay(shared: &Shared, applier: &mut Applier) -> Result<()> {
    let from = Seq(applier.applied.0 + 1);
    applier.log_start = shared.log.first()?.unwrap_or(from);
    // What stands in the log below the applied record is what growing rows pin: `load_growing` counted it.
    let pinned = applier.log_sizes.iter().map(|(_, bytes)| bytes).sum();
    applier.log_sizes = VecDeque::from([(applier.log_start, pinned)]);
    let mut batch = Batch::new(&shared.storage);
    let (mut in_batch, mut replayed) = (0usize, 0u64);
    shared.log.read(from, |seq, record, bytes| {
        if seq.0 != applier.applied.0 + 1 {
            return Err(Error::damaged(format!(
                "log gap: expected record {}, found {}",
                applier.applied.0 + 1,
                seq.0
            )));
        }
        applier.apply(shared, &mut batch, seq, &record)?;
        applier.account_log(seq, bytes as u64);
        in_batch += bytes;
        replayed += 1;
        if in_batch >= limits::GROUP_COMMIT_BYTES_MAX || batch.bytes() >= limits::GROUP_COMMIT_BYTES_MAX {
            applier.finish(shared, std::mem::replace(&mut batch, Batch::new(&shared.storage)))?;
            in_batch = 0;
        }
        Ok(true)
    })?;
    applier.finish(shared, batch)?;
    shared.counters.replayed.store(replayed, Ordering::Relaxed);
    Ok(())
}

fn remove_orphans(shared: &Shared, applier: &mut Applier) -> Result<()> {
    let mut named = BTreeSet::new();
    let all: Vec<Place> = places(applier).collect();
    for (no, shard_no) in all {
        for view in &applier.states[&no].shards[shard_no.0 as usize].sealed {
            let number = view.segment.no.expect("sealed segments have a number");
            applier.next_segment = applier.next_segment.max(number + 1);
            named.insert(files::segment_path(&shared.dir, no, shard_no, number));
        }
    }
    applier.trash.clear();
    if shared.counters.replayed.load(Ordering::Relaxed) > 0 {
        // A replayed drop is not on disk yet: a crash after the removal would look for the files again.
        shared.storage.flush()?;
    }
    let removed = files::remove_orphans(&shared.dir, &|path| named.contains(path))?;
    if removed > 0 {
        tracing::info!(removed, "removed files that no manifest names");
    }
    Ok(())
}
