//! Opening: from what a crash left to the state that the log says.
//!
//! 1. lock the directory; have `CURRENT` name a manifest that is there (`storage/current.rs`); read the write-ahead log and cut off
//!    what a crash left unfinished (`storage/wal.rs`), of RocksDB's manifest, too (`storage/manifest.rs`); open RocksDB;
//! 2. read collections, counters and manifests; map every file they name and check its tables; mark its dead rows. A file that is
//!    missing or damaged stays in its place as such;
//! 3. rebuild growing segments: `rows` says where the content of each unsealed live row is;
//! 4. replay records after the applied one through the same `apply` as a live write;
//! 5. remove files that no manifest names.
//!
//! 3 and 4 go in groups of bounded size, and seal when growing memory is over its bound, so that opening needs no more memory
//! than running.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};

use super::applier::{Applier, Batch, State, StoredCollection, StoredRow, decode, to_pending};
use super::commit::{Counters, Memory, Shared, Signal};
use super::failing::Failing;
use super::health::Scrub;
use super::progress::{Phase, Progress};
use super::requests::Requests;
use super::retention::LogAccount;
use super::sampling::Sampling;
use super::snapshot;
use crate::collection::Collection;
use crate::config::{Components, Settings};
use crate::error::{Error, ErrorKind, Result};
use crate::limits;
use crate::log::{Log, Record, record};
use crate::op::{Op, PointRecord};
use crate::schema::{IndexSpec, VectorSpec};
use crate::segment::{Entry, PendingRow, Sealed, SealedView};
use crate::shard::Shard;
use crate::storage::files::{self, DirLock};
use crate::storage::space::Space;
use crate::storage::{DEATHS, Dir, META, ROWS, Storage, current, key, manifest, random, wal};
use crate::types::{CollectionNo, EpochId, Epochs, History, Opening, Row, Seq, ShardNo};
use crate::vector::faiss;

/// A shard's sealed files, by ascending rows: the entry under `m` in `meta`.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) segments: Vec<Entry>,
}

pub(super) type Place = (CollectionNo, ShardNo);

/// Where the content of an unsealed row is.
enum Source {
    /// A point of an operation of the record of its birth.
    Log { op: u32, point: u32 },
    /// Its entry in `rows`.
    Here,
}

/// Bytes of records that are applied, or of rows that are loaded, at a time.
const GROUP_BYTES: usize = limits::GROUP_COMMIT_BYTES_MAX;
/// The same where memory is scarce.
const GROUP_BYTES_LOW: usize = 1 << 20;

/// Opens a directory, with the log that `log` makes of its RocksDB and the window of asynchronous writes.
pub(super) fn open(
    dir: &Path,
    settings: Settings,
    components: Components,
    progress: &Progress,
    log: impl FnOnce(&Arc<Storage>, Duration) -> Arc<dyn Log>,
) -> Result<Shared> {
    let disk = Arc::clone(&components.files);
    files::create_root(&*disk, dir)?;
    if let Some(entry) = files::foreign_entry(&*disk, dir)? {
        return Err(Error::invalid(
            "not_a_data_directory",
            format!(
                "{} holds other things ({}) and no Cairn database: give an empty or a new directory",
                dir.display(),
                entry.display()
            ),
        ));
    }
    let lock = DirLock::take(&*disk, dir)?.ok_or_else(|| {
        Error::new(
            ErrorKind::Unavailable,
            "directory_locked",
            format!("another process has the data directory {} open", dir.display()),
        )
    })?;
    if disk.list(dir)?.iter().any(|entry| entry.name == files::RESTORING) {
        return Err(Error::invalid(
            "restore_incomplete",
            format!(
                "a restore into {} did not come to its end: restore again",
                dir.display()
            ),
        ));
    }
    snapshot::remove_leftovers(&*disk, dir)?;
    progress.enter(Phase::CheckingLog);
    if let Some(put_back) = current::mend(&dir.join("db"))? {
        tracing::warn!(
            missing = put_back.missing,
            to = put_back.to,
            "CURRENT named a manifest that a crash kept from the disk: it names the one before again, and nothing is lost"
        );
    }
    let dropped = wal::mend(&dir.join("db"), &dir.join("dropped-log"))?;
    let there = |storage: &Storage| files_there(&*disk, dir, storage);
    manifest::mend(&dir.join("db"), &dir.join("dropped-log"), &there)?;
    progress.enter(Phase::OpeningStorage);
    let open = || Storage::open(&dir.join("db"), settings.low_memory);
    let storage = Arc::new(disk.around("database", open)?);
    // RocksDB syncs what it makes in `db`, but not the name of `db` itself.
    disk.sync_dir(dir)?;
    let window = Duration::from_millis(settings.async_window_ms);
    let opening = Opening {
        epoch: EpochId::of_random(random()),
        at_ms: components.clock.now_ms(),
    };
    let shared = Shared {
        dir: dir.to_owned(),
        space: Space::new(dir, settings.disk_reserve_bytes),
        settings,
        components,
        log: log(&storage, window),
        identity: storage.identity()?,
        opening,
        epochs: ArcSwap::from_pointee(load_epochs(&storage)?),
        dropped,
        storage,
        collections: RwLock::default(),
        queue: Mutex::default(),
        applier: Mutex::default(),
        memory: Memory::default(),
        work: Signal::default(),
        finished: Signal::default(),
        unsynced: Signal::default(),
        poison: Mutex::default(),
        counters: Counters::default(),
        holds: Arc::default(),
        scrub: Scrub::default(),
        sampling: Sampling::default(),
        merging: AtomicBool::new(false),
        failing: Failing::default(),
        naming: Mutex::default(),
        _lock: lock,
    };
    progress.enter(Phase::OpeningSegments);
    {
        let mut applier = shared.applier.lock();
        load_meta(&shared, &mut applier)?;
        load_segments(&shared, &mut applier, progress)?;
    }
    progress.enter(Phase::LoadingGrowing);
    load_growing(&shared, progress)?;
    publish_all(&shared.applier.lock());
    progress.enter(Phase::Replaying);
    replay(&shared, progress)?;
    progress.enter(Phase::CleaningUp);
    {
        let mut applier = shared.applier.lock();
        remove_orphans(&shared, &mut applier)?;
        let all: Vec<Place> = places(&applier).collect();
        applier.changed.extend(all);
        shared.counters.applied.store(applier.applied.0, Ordering::Release);
        shared.counters.opened.store(applier.applied.0, Ordering::Release);
        shared
            .counters
            .requests
            .store(applier.requests.count(), Ordering::Relaxed);
    }
    progress.enter(Phase::Open);
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

pub(super) fn meta_place(key: &[u8]) -> Result<Place> {
    let bytes: [u8; 8] = number(&key[1..], "a shard key")?;
    let (no, shard) = bytes.split_at(4);
    Ok((
        CollectionNo(u32::from_be_bytes(number(no, "a number")?)),
        ShardNo(u32::from_be_bytes(number(shard, "a number")?)),
    ))
}

/// The epochs of a log, as the records that were applied say them.
pub(super) fn load_epochs(storage: &Storage) -> Result<Epochs> {
    let Some(bytes) = storage.get(META, b"epochs")? else {
        return Ok(Epochs::default());
    };
    Epochs::new(decode(&bytes, "epochs")?).ok_or_else(|| Error::damaged("meta: epochs that are not in order"))
}

fn load_meta(shared: &Shared, applier: &mut Applier) -> Result<()> {
    let storage = &shared.storage;
    if let Some(bytes) = storage.get(META, b"applied")? {
        applier.applied = Seq(u64::from_le_bytes(number(&bytes, "applied")?));
    }
    if let Some(bytes) = storage.get(META, b"history")? {
        applier.history = History(number(&bytes, "history")?);
    }
    if let Some(bytes) = storage.get(META, b"applied_ms")? {
        applier.applied_ms = u64::from_le_bytes(number(&bytes, "applied_ms")?);
    }
    if let Some(bytes) = storage.get(META, b"next_collection")? {
        applier.next_collection = u32::from_le_bytes(number(&bytes, "next_collection")?);
    }
    if let Some(bytes) = storage.get(META, b"next_segment")? {
        applier.next_segment = u64::from_le_bytes(number(&bytes, "next_segment")?);
    }
    applier.requests = Requests::load(storage)?;
    storage.scan(META, b"c", &[], |key, value| {
        let no = CollectionNo(u32::from_be_bytes(number(&key[1..], "a collection key")?));
        let stored: StoredCollection =
            serde_json::from_slice(value).map_err(|e| Error::damaged(format!("meta: collection {}: {e}", no.0)))?;
        let collection = Arc::new(Collection::new(no, stored.name.clone(), stored.schema)?);
        let by_faiss = |spec: &VectorSpec| matches!(spec.index, IndexSpec::Faiss { .. });
        if !faiss::AVAILABLE && collection.schema.vectors.values().any(by_faiss) {
            tracing::warn!(
                collection = stored.name,
                "this build has no Faiss (feature `faiss`): a collection with such an index is scanned"
            );
        }
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

fn load_segments(shared: &Shared, applier: &mut Applier, progress: &Progress) -> Result<()> {
    let mut manifests = Vec::new();
    shared.storage.scan(META, b"m", &[], |key, value| {
        manifests.push((meta_place(key)?, decode::<Manifest>(value, "manifest")?));
        Ok(true)
    })?;
    progress.expect(
        manifests
            .iter()
            .map(|(_, manifest)| manifest.segments.len() as u64)
            .sum(),
    );
    for ((no, shard_no), manifest) in manifests {
        let Some(state) = applier.states.get_mut(&no) else {
            continue;
        };
        let Some(shard) = state.shards.get_mut(shard_no.0 as usize) else {
            continue;
        };
        for entry in manifest.segments {
            let path = files::segment_path(&shared.dir, no, shard_no, entry.no);
            let file = Sealed::open(&shared.components.files, &path, entry, &state.collection.schema)?;
            shard.sealed.push(SealedView::fresh(Arc::new(file)));
            progress.step();
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

/// Whether every sealed file that a database names is in its directory, as long as it was, or nobody took it away for a merge: that
/// leaves a file which is not named. What was missing before stays in its place as such.
pub(super) fn files_there(disk: &dyn Dir, dir: &Path, storage: &Storage) -> Result<bool> {
    let mut all = true;
    storage.scan(META, b"m", &[], |key, value| {
        let (no, shard) = meta_place(key)?;
        let named = decode::<Manifest>(value, "manifest")?.segments;
        let path = |segment| files::segment_path(dir, no, shard, segment);
        let is_there = |entry: &Entry| {
            let file = disk.map(&path(entry.no));
            file.is_ok_and(|file| file.bytes().len() as u64 == entry.bytes)
        };
        if named.iter().all(is_there) {
            return Ok(true);
        }
        let Some(parent) = path(0).parent().map(Path::to_owned) else {
            return Ok(false);
        };
        let there = match disk.list(&parent) {
            // With its collection.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            there => there?,
        };
        let names: BTreeSet<_> = named.iter().map(|entry| path(entry.no)).collect();
        all &= !there.is_empty() && there.iter().all(|entry| names.contains(&parent.join(&entry.name)));
        Ok(all)
    })?;
    Ok(all)
}

/// In the order of births, which is the order of rows in each shard; one record at a time, so that it is read once whatever
/// number of shards it has rows in.
fn load_growing(shared: &Shared, progress: &Progress) -> Result<()> {
    let mut wanted: BTreeMap<Seq, Vec<(Place, Row, Source)>> = BTreeMap::new();
    {
        let applier = shared.applier.lock();
        shared.storage.scan(ROWS, &[], &[], |key, value| {
            let (no, shard_no, row) =
                key::parse_row(key).ok_or_else(|| Error::damaged("rows: a key of the wrong length"))?;
            let shards = applier.states.get(&no).map_or(0, |state| state.shards.len());
            if shard_no.0 as usize >= shards {
                return Ok(true);
            }
            let (birth, source) = match decode(value, "rows")? {
                StoredRow::InLog { seq, op, point } => (seq, Source::Log { op, point }),
                StoredRow::Inline { birth, .. } => (birth, Source::Here),
            };
            wanted.entry(birth).or_default().push(((no, shard_no), row, source));
            Ok(true)
        })?;
    }
    progress.expect(wanted.values().map(|rows| rows.len() as u64).sum());
    let group = group_bytes(shared);
    let mut wanted = wanted.into_iter().peekable();
    while wanted.peek().is_some() {
        {
            let mut applier = shared.applier.lock();
            let mut touched = BTreeSet::new();
            let mut bytes = 0;
            while bytes < group
                && let Some((birth, mut rows)) = wanted.next()
            {
                rows.sort_unstable_by_key(|(place, row, _)| (*place, *row));
                touched.extend(rows.iter().map(|(place, ..)| *place));
                bytes += load_rows(shared, &mut applier, birth, rows, progress)?;
            }
            shared.settle(&mut applier, touched.into_iter().collect())?;
        }
        // Not trimming: what rows that are not loaded yet hold of the log is not known.
        shared.shrink()?;
    }
    Ok(())
}

/// Brings the rows of one birth back. Returns their bytes.
fn load_rows(
    shared: &Shared,
    applier: &mut Applier,
    birth: Seq,
    rows: Vec<(Place, Row, Source)>,
    progress: &Progress,
) -> Result<usize> {
    let mut record: Option<Record> = None;
    if rows.iter().any(|(.., source)| matches!(source, Source::Log { .. })) {
        let (found, _) = shared
            .log
            .get(birth)?
            .ok_or_else(|| Error::damaged(format!("rows names log record {}, which is gone", birth.0)))?;
        record = Some(found);
    }
    let mut bytes = 0;
    for ((no, shard_no), row, source) in rows {
        let state = applier
            .states
            .get_mut(&no)
            .expect("rows without a collection were left out");
        let here;
        let content = match source {
            Source::Log { op, point } => record
                .as_ref()
                .and_then(|record| point_of(record, op, point))
                .ok_or_else(|| {
                    Error::damaged(format!(
                        "rows names point {point} of operation {op} of record {}, which is not there",
                        birth.0
                    ))
                })?,
            Source::Here => {
                let entry = shared.storage.get(ROWS, &key::row(no, shard_no, row))?;
                let entry = entry.ok_or_else(|| Error::damaged("rows: an entry went away while it was read"))?;
                match decode(&entry, "rows")? {
                    StoredRow::Inline { point, .. } => here = point,
                    StoredRow::InLog { .. } => return Err(Error::damaged("rows: an entry changed while it was read")),
                }
                &here
            }
        };
        let pending = PendingRow {
            row,
            birth,
            inline: matches!(source, Source::Here),
            ..to_pending(content, &state.collection.schema)?
        };
        bytes += pending.bytes();
        state.shards[shard_no.0 as usize].pending.push(pending);
        progress.step();
    }
    Ok(bytes)
}

fn group_bytes(shared: &Shared) -> usize {
    match shared.settings.low_memory {
        true => GROUP_BYTES_LOW,
        false => GROUP_BYTES,
    }
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

fn replay(shared: &Shared, progress: &Progress) -> Result<()> {
    let mut from;
    {
        let mut applier = shared.applier.lock();
        from = Seq(applier.applied.0 + 1);
        let first = shared.log.first()?;
        applier.log_start = first.unwrap_or(from);
        shared.counters.log_start.store(applier.log_start.0, Ordering::Relaxed);
        applier.log = LogAccount::load(&shared.storage, first, applier.applied)?;
        let last = shared.log.last()?.map_or(0, |last| last.0);
        progress.expect(last.saturating_sub(applier.applied.0));
    }
    let group = group_bytes(shared);
    let mut replayed = 0u64;
    loop {
        let before = replayed;
        {
            let mut applier = shared.applier.lock();
            let applier = &mut *applier;
            let mut batch = Batch::new(&shared.storage);
            let mut in_batch = 0;
            shared.log.read(from, &mut |seq, record, bytes| {
                if seq.0 != applier.applied.0 + 1 {
                    return Err(Error::damaged(format!(
                        "log gap: expected record {}, found {}",
                        applier.applied.0 + 1,
                        seq.0
                    )));
                }
                if record::before(bytes)? != applier.history {
                    return Err(Error::damaged(format!(
                        "log record {} does not follow the one before it: it is of another history",
                        seq.0
                    )));
                }
                let applied = applier.apply(shared, &mut batch, seq, &record);
                applied.map_err(|error| again(shared, seq, error))?;
                applier.history = record::hash(bytes);
                applier.log.add(seq, bytes.len() as u64, record.timestamp_ms);
                in_batch += bytes.len();
                replayed += 1;
                progress.step();
                Ok(in_batch < group && batch.bytes() < group)
            })?;
            applier.finish(shared, batch, "replay")?;
            from = Seq(applier.applied.0 + 1);
        }
        if replayed == before {
            break;
        }
        shared.shrink()?;
    }
    shared.counters.replayed.store(replayed, Ordering::Relaxed);
    shared.log.begin(Seq(from.0 - 1));
    Ok(())
}

/// A record that was written while a file was whole and has to be applied again, now that it is not: what it did cannot be known
/// without the file, so nothing after it can be shown.
fn again(shared: &Shared, seq: Seq, error: Error) -> Error {
    if error.kind != ErrorKind::Damaged {
        return error;
    }
    let dir = shared.dir.display();
    Error::new(
        ErrorKind::Damaged,
        "segment_damaged",
        format!(
            "record {} of the log was not applied to disk when the process ended, and to apply it again what is damaged has to \
             be read: {}; bring the file back from a snapshot or another copy (cairn repair --data-dir {dir}), or, if there is none, give \
             its points up (cairn repair --data-dir {dir} --drop-segment, which lists them), and open again",
            seq.0, error.message
        ),
    )
}

fn remove_orphans(shared: &Shared, applier: &mut Applier) -> Result<()> {
    let mut named = BTreeSet::new();
    let all: Vec<Place> = places(applier).collect();
    for (no, shard_no) in all {
        for view in &applier.states[&no].shards[shard_no.0 as usize].sealed {
            let number = view.file.entry.no;
            applier.next_segment = applier.next_segment.max(number + 1);
            named.insert(files::segment_path(&shared.dir, no, shard_no, number));
        }
    }
    applier.trash.clear();
    if shared.counters.replayed.load(Ordering::Relaxed) > 0 {
        // A replayed drop is not on disk yet: a crash after the removal would look for the files again.
        shared.flush("flush before tidying")?;
    }
    let removed = files::remove_orphans(&*shared.components.files, &shared.dir, &|path| named.contains(path))?;
    if removed > 0 {
        tracing::info!(removed, "removed files that no manifest names");
    }
    Ok(())
}
