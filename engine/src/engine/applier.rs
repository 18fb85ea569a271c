//! Applies records: the one function between the log and what readers see.
//!
//! A normal write, a restart and (later) a replica run the same code. Everything that depends on the current state (which
//! row an id means, what a filter matches, whether a document changed) is decided here, from the state as the records before
//! it left it. Applying is deterministic. Its effects go to RocksDB in one batch with the applied sequence number; the
//! changed shards are then shown to readers by one pointer swap a collection.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::commit::Shared;
use super::requests::{Done, Overlay, Requests};
use super::retention::LogAccount;
use crate::collection::Collection;
use crate::error::{Error, ErrorKind, Result};
use crate::filter::{Filter, eval, extract};
use crate::limits;
use crate::log::Record;
use crate::op::{Applied, DocumentRecord, Op, PointRecord, SparseRecord, VectorRecord};
use crate::query::Listing;
use crate::schema::Schema;
use crate::segment::PendingRow;
use crate::shard::Shard;
use crate::sparse::row;
use crate::storage::{DEATHS, DOCS, Effects, IDS, META, ROWS, Storage, files, key};
use crate::types::{CollectionNo, Durability, Epoch, Epochs, History, Payload, PointId, Row, Seq, ShardNo};
use crate::vector::floats::Owned;

/// All state that records change. One thread at a time holds it.
#[derive(Default)]
pub(super) struct Applier {
    pub(super) states: BTreeMap<CollectionNo, State>,
    pub(super) applied: Seq,
    /// Of the log up to `applied`.
    pub(super) history: History,
    /// When the record `applied` was written.
    pub(super) applied_ms: u64,
    pub(super) next_collection: u32,
    pub(super) next_segment: u64,
    /// Shards in which something changed since background work last looked.
    pub(super) changed: BTreeSet<(CollectionNo, ShardNo)>,
    /// Files and directories of dropped collections and merged segments, to be removed after the next flush.
    pub(super) trash: Vec<std::path::PathBuf>,
    /// Some of it could not be removed when that was last tried.
    pub(super) sweep_failed: bool,
    /// Requests that were done.
    pub(super) requests: Requests,
    /// Oldest record still in the log.
    pub(super) log_start: Seq,
    /// What the log holds from there on.
    pub(super) log: LogAccount,
    /// When background work last found nothing to do about the log, and the bytes that it held.
    pub(super) looked_at_log: Option<(u64, u64)>,
    /// The room of the records below is to be given back.
    pub(super) reclaim: Option<Seq>,
}

/// A collection, for the applier.
pub(super) struct State {
    pub(super) collection: Arc<Collection>,
    pub(super) shards: Vec<Shard>,
    pub(super) documents: u64,
}

/// A collection's entry in `meta`.
#[derive(Serialize, Deserialize)]
pub(super) struct StoredCollection {
    pub(super) name: String,
    pub(super) schema: Schema,
}

/// A document's entry in `docs`.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct StoredDocument {
    pub(super) seq: Seq,
    pub(super) record: DocumentRecord,
}

impl StoredDocument {
    /// Whether live chunks with these births are exactly what was stored: none deleted or changed as a point since.
    pub(super) fn is_whole(&self, births: impl Iterator<Item = Seq>) -> bool {
        let mut found = 0;
        births.inspect(|_| found += 1).all(|birth| birth == self.seq) && found == self.record.chunks.len()
    }
}

/// A row's entry in `rows`.
#[derive(Serialize, Deserialize)]
pub(super) enum StoredRow {
    /// In the log: which record, which operation of it, which point of that.
    InLog { seq: Seq, op: u32, point: u32 },
    /// Here, because the record alone does not say it, or so that the record may be trimmed.
    Inline { birth: Seq, point: PointRecord },
}

/// A group commit under construction: the effects so far, and what they make of ids and documents.
pub(super) struct Batch<'a> {
    storage: &'a Storage,
    effects: Effects<'a>,
    ids: HashMap<Vec<u8>, Option<Row>>,
    documents: HashMap<Vec<u8>, Option<StoredDocument>>,
    requests: Overlay,
    touched: BTreeSet<(CollectionNo, ShardNo)>,
    counted: BTreeSet<CollectionNo>,
}

impl<'a> Batch<'a> {
    pub(super) fn new(storage: &'a Storage) -> Self {
        Self {
            storage,
            effects: Effects::new(storage),
            ids: HashMap::new(),
            documents: HashMap::new(),
            requests: Overlay::default(),
            touched: BTreeSet::new(),
            counted: BTreeSet::new(),
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.effects.bytes()
    }

    fn row_of(&self, key: &[u8]) -> Result<Option<Row>> {
        if let Some(row) = self.ids.get(key) {
            return Ok(*row);
        }
        match self.storage.get(IDS, key)? {
            None => Ok(None),
            Some(bytes) => {
                let bytes =
                    <[u8; 8]>::try_from(&bytes[..]).map_err(|_| Error::damaged("ids: a row of the wrong length"))?;
                Ok(Some(Row(u64::from_le_bytes(bytes))))
            }
        }
    }

    fn set_row(&mut self, key: Vec<u8>, row: Option<Row>) {
        match row {
            Some(row) => self.effects.put(IDS, &key, &row.0.to_le_bytes()),
            None => self.effects.delete(IDS, &key),
        }
        self.ids.insert(key, row);
    }

    fn document(&self, key: &[u8]) -> Result<Option<StoredDocument>> {
        match self.documents.get(key) {
            Some(document) => Ok(document.clone()),
            None => load_document(self.storage, key),
        }
    }

    fn set_document(&mut self, key: Vec<u8>, document: Option<StoredDocument>) -> Result<()> {
        match &document {
            Some(document) => self.effects.put(DOCS, &key, &encode(document)?),
            None => self.effects.delete(DOCS, &key),
        }
        self.documents.insert(key, document);
        Ok(())
    }
}

/// A document's entry.
pub(super) fn load_document(storage: &Storage, key: &[u8]) -> Result<Option<StoredDocument>> {
    storage.get(DOCS, key)?.map(|bytes| decode(&bytes, "docs")).transpose()
}

pub(super) fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    postcard::to_stdvec(value).map_err(|e| Error::internal(format!("encoding: {e}")))
}

pub(super) fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8], what: &str) -> Result<T> {
    postcard::from_bytes(bytes).map_err(|e| Error::damaged(format!("{what}: an entry does not decode: {e}")))
}

fn taken(name: &str) -> Error {
    Error::new(
        ErrorKind::Conflict,
        "collection_exists",
        format!("collection {name:?} exists already"),
    )
}

/// What the first of equal requests was answered.
pub(super) fn replayed(done: Done, epochs: &Epochs) -> Applied {
    Applied {
        token: epochs.token(done.seq),
        changed: done.changed,
        durability: Durability::Sync,
        replayed: true,
        note: done.note,
        refused: None,
    }
}

fn gone() -> Error {
    Error::not_found(
        "collection_not_found",
        "the collection was deleted while the request was under way",
    )
}

impl Applier {
    /// Applies one record to memory and to the batch. An error here is damage or a bug and stops the engine; what a caller
    /// can cause is reported in [`Applied::refused`].
    pub(super) fn apply(
        &mut self,
        shared: &Shared,
        batch: &mut Batch<'_>,
        seq: Seq,
        record: &Record,
    ) -> Result<Applied> {
        if shared.epochs.load().last() != record.by.epoch {
            self.begin_epoch(shared, batch, seq, record)?;
        }
        self.applied = seq;
        self.applied_ms = record.timestamp_ms;
        let mut applied = Applied {
            token: shared.epochs.load().token(seq),
            changed: 0,
            // Whoever wrote the record knows better.
            durability: Durability::Sync,
            replayed: false,
            note: Vec::new(),
            refused: None,
        };
        if let Some(request) = &record.request {
            match Requests::find(&shared.storage, &batch.requests, request, record.timestamp_ms) {
                Ok(None) => {}
                Ok(Some(done)) => return Ok(replayed(done, &shared.epochs.load())),
                Err(error) if error.kind == ErrorKind::Conflict => {
                    applied.refused = Some(error);
                    return Ok(applied);
                }
                Err(error) => return Err(error),
            }
        }
        for (i, op) in record.ops.iter().enumerate() {
            match self.apply_op(shared, batch, seq, i as u32, op) {
                Ok(changed) => applied.changed += changed,
                Err(error)
                    if matches!(
                        error.kind,
                        ErrorKind::Invalid | ErrorKind::NotFound | ErrorKind::Conflict
                    ) =>
                {
                    applied.refused = Some(error);
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        if let Some(request) = record.request.as_ref().filter(|_| applied.refused.is_none()) {
            let did = (seq, record.timestamp_ms, applied.changed);
            let Batch { requests, effects, .. } = batch;
            self.requests
                .remember(&shared.storage, requests, effects, request, did)?;
        }
        Ok(applied)
    }

    /// Before anything of the record is shown.
    fn begin_epoch(&self, shared: &Shared, batch: &mut Batch<'_>, seq: Seq, record: &Record) -> Result<()> {
        let epochs = shared.epochs.load().begin(Epoch {
            id: record.by.epoch,
            first: seq,
            silent_from_ms: self.applied_ms,
            opened_ms: record.by.at_ms,
        });
        batch.effects.put(META, b"epochs", &encode(&epochs)?);
        shared.epochs.store(Arc::new(epochs));
        Ok(())
    }

    fn apply_op(&mut self, shared: &Shared, batch: &mut Batch<'_>, seq: Seq, op_index: u32, op: &Op) -> Result<u64> {
        match op {
            Op::CreateCollection { no, name, schema } => self.create(shared, batch, *no, name, schema),
            Op::DropCollection { no } => self.drop_collection(shared, batch, *no),
            Op::Upsert { no, points } => {
                let mut at = self.at(batch, *no, seq)?;
                for (i, point) in points.iter().enumerate() {
                    at.insert(point, Some((op_index, i as u32)))?;
                }
                Ok(points.len() as u64)
            }
            Op::Delete { no, ids } => {
                let mut at = self.at(batch, *no, seq)?;
                ids.iter()
                    .try_fold(0, |changed, id| Ok(changed + u64::from(at.delete(id)?)))
            }
            Op::DeleteMatching { no, filter } => {
                shared.settle(self, batch.touched.iter().filter(|(n, _)| n == no).copied().collect())?;
                self.at(batch, *no, seq)?.delete_matching(filter)
            }
            Op::SetPayload {
                no,
                ids,
                set,
                unset,
                replace,
            } => {
                let set: Payload = serde_json::from_str(set).map_err(|e| Error::damaged(format!("set: {e}")))?;
                self.at(batch, *no, seq)?.set_payload(ids, &set, unset, *replace)
            }
            Op::PutDocument { no, document, chunks } => {
                self.at(batch, *no, seq)?.put_document(document, chunks, op_index)
            }
            Op::DeleteDocuments { no, ids } => {
                let mut at = self.at(batch, *no, seq)?;
                ids.iter()
                    .try_fold(0, |changed, id| Ok(changed + at.delete_document(id)?))
            }
            Op::RenameCollection { no, name, replace } => self.rename(shared, batch, *no, name, *replace),
        }
    }

    fn at<'s, 'b, 'd>(&'s mut self, batch: &'b mut Batch<'d>, no: CollectionNo, seq: Seq) -> Result<At<'s, 'b, 'd>> {
        let state = self.states.get_mut(&no).ok_or_else(gone)?;
        Ok(At { state, batch, no, seq })
    }

    fn create(
        &mut self,
        shared: &Shared,
        batch: &mut Batch<'_>,
        no: CollectionNo,
        name: &str,
        schema: &str,
    ) -> Result<u64> {
        if shared.collections.read().contains_key(name) {
            return Err(taken(name));
        }
        let schema: Schema = serde_json::from_str(schema).map_err(|e| Error::damaged(format!("schema: {e}")))?;
        let stored = StoredCollection {
            name: name.to_owned(),
            schema,
        };
        let json = serde_json::to_vec(&stored).map_err(|e| Error::internal(format!("schema: {e}")))?;
        // Whatever can refuse comes before the first effect.
        let collection = Arc::new(Collection::new(no, stored.name, stored.schema)?);
        batch.effects.put(META, &key::meta(b'c', no, None), &json);
        self.next_collection = self.next_collection.max(no.0 + 1);
        batch
            .effects
            .put(META, b"next_collection", &self.next_collection.to_le_bytes());
        let shards = (0..collection.schema.shards).map(|_| Shard::default()).collect();
        shared
            .collections
            .write()
            .insert(name.to_owned(), Arc::clone(&collection));
        self.states.insert(
            no,
            State {
                collection,
                shards,
                documents: 0,
            },
        );
        Ok(1)
    }

    fn drop_collection(&mut self, shared: &Shared, batch: &mut Batch<'_>, no: CollectionNo) -> Result<u64> {
        let state = self.states.remove(&no).ok_or_else(gone)?;
        state.collection.mark_dropped();
        shared.failing.forget(no);
        // Another one may have its name by now.
        let mut collections = shared.collections.write();
        if collections.get(&state.collection.name).is_some_and(|c| c.no == no) {
            collections.remove(&state.collection.name);
        }
        drop(collections);
        let (from, to) = (key::collection(no), key::collection(CollectionNo(no.0 + 1)));
        for family in [IDS, ROWS, DEATHS, DOCS] {
            batch.effects.delete_range(family, &from, &to);
        }
        batch.effects.delete(META, &key::meta(b'c', no, None));
        batch.effects.delete(META, &key::meta(b'd', no, None));
        for shard in 0..state.shards.len() as u32 {
            batch.effects.delete(META, &key::meta(b'r', no, Some(ShardNo(shard))));
            batch.effects.delete(META, &key::meta(b'm', no, Some(ShardNo(shard))));
        }
        let bytes: usize = state.shards.iter().map(|s| s.waiting().1).sum();
        shared.memory.release(bytes as i64);
        // The overlay must not answer for a collection that is gone (numbers are never reused, so this is only tidy).
        batch.touched.retain(|(n, _)| *n != no);
        batch.counted.remove(&no);
        self.changed.retain(|(n, _)| *n != no);
        self.trash.push(files::collection_dir(&shared.dir, no));
        Ok(1)
    }

    /// Readers find one collection or the other under the name at any time, and what they began on the old one they end on it.
    fn rename(
        &mut self,
        shared: &Shared,
        batch: &mut Batch<'_>,
        no: CollectionNo,
        name: &str,
        replace: bool,
    ) -> Result<u64> {
        let state = self.states.get_mut(&no).ok_or_else(gone)?;
        let old = shared.collections.read().get(name).map(|other| other.no);
        if old == Some(no) {
            return Ok(0);
        }
        if old.is_some() && !replace {
            return Err(taken(name));
        }
        let stored = StoredCollection {
            name: name.to_owned(),
            schema: (*state.collection.schema).clone(),
        };
        let json = serde_json::to_vec(&stored).map_err(|e| Error::internal(format!("schema: {e}")))?;
        batch.effects.put(META, &key::meta(b'c', no, None), &json);
        let renamed = Arc::new(state.collection.renamed(stored.name));
        let mut collections = shared.collections.write();
        collections.insert(name.to_owned(), Arc::clone(&renamed));
        collections.remove(&state.collection.name);
        drop(collections);
        state.collection = renamed;
        match old {
            Some(old) => self.drop_collection(shared, batch, old),
            None => Ok(1),
        }
    }

    /// Ends a group commit (or, as `step` says, a part of a replay): rows become searchable, effects are written, readers see
    /// the new moment.
    pub(super) fn finish(&mut self, shared: &Shared, batch: Batch<'_>, step: &'static str) -> Result<()> {
        let Batch {
            mut effects,
            touched,
            counted,
            requests,
            ..
        } = batch;
        shared.settle(self, touched.iter().copied().collect())?;
        for (no, shard_no) in &touched {
            if let Some(state) = self.states.get(no) {
                let next = state.shards[shard_no.0 as usize].next_row;
                effects.put(META, &key::meta(b'r', *no, Some(*shard_no)), &next.to_le_bytes());
            }
        }
        for no in &counted {
            if let Some(state) = self.states.get(no) {
                effects.put(META, &key::meta(b'd', *no, None), &state.documents.to_le_bytes());
            }
        }
        self.requests.finish(&requests, &mut effects)?;
        self.log.save(&mut effects)?;
        effects.put(META, b"history", &self.history.0);
        effects.put(META, b"applied", &self.applied.0.to_le_bytes());
        effects.put(META, b"applied_ms", &self.applied_ms.to_le_bytes());
        shared.write(step, effects)?;
        let mut by_collection: BTreeMap<CollectionNo, Vec<ShardNo>> = BTreeMap::new();
        touched
            .iter()
            .for_each(|(no, shard)| by_collection.entry(*no).or_default().push(*shard));
        for (no, shards) in by_collection {
            self.publish(no, &shards);
        }
        self.changed.extend(touched);
        Ok(())
    }

    /// Shows readers some shards of a collection as they are now.
    pub(super) fn publish(&self, no: CollectionNo, shards: &[ShardNo]) {
        let Some(state) = self.states.get(&no) else { return };
        let mut all = state.collection.listing().shards.clone();
        for shard in shards {
            all[shard.0 as usize] = Arc::new(state.shards[shard.0 as usize].listing());
        }
        state
            .collection
            .publish(Listing::new(self.applied, all, state.documents));
    }
}

/// One collection while one operation is applied to it.
struct At<'s, 'b, 'd> {
    state: &'s mut State,
    batch: &'b mut Batch<'d>,
    no: CollectionNo,
    seq: Seq,
}

impl At<'_, '_, '_> {
    /// Where an id's live row is: its own shard first, then the others (its document may have changed).
    fn find(&self, id: &PointId, first: ShardNo) -> Result<Option<(ShardNo, Row)>> {
        let shards = self.state.shards.len() as u32;
        for i in 0..shards {
            let shard = ShardNo((first.0 + i) % shards);
            if let Some(row) = self.batch.row_of(&key::id(self.no, shard, id))? {
                return Ok(Some((shard, row)));
            }
        }
        Ok(None)
    }

    /// Ends a row's life.
    fn kill(&mut self, shard: ShardNo, row: Row, id: &PointId) -> Result<()> {
        let in_this_commit = self.state.shards[shard.0 as usize]
            .pending
            .first()
            .is_some_and(|first| first.row <= row);
        if !self.state.shards[shard.0 as usize].kill(row) {
            return Err(Error::damaged(format!(
                "ids says that {id:?} is row {}, which does not live",
                row.0
            )));
        }
        self.batch.set_row(key::id(self.no, shard, id), None);
        let key = key::row(self.no, shard, row);
        if !in_this_commit {
            self.batch.effects.put(DEATHS, &key, &self.seq.0.to_le_bytes());
        }
        self.batch.effects.delete(ROWS, &key);
        self.batch.touched.insert((self.no, shard));
        Ok(())
    }

    /// Adds a row under an id that has no live row. `origin` says which point of the record it is; none means that the
    /// record does not hold its content.
    fn add(&mut self, shard: ShardNo, mut row: PendingRow, origin: Option<(u32, u32)>) -> Result<()> {
        let state = &mut self.state.shards[shard.0 as usize];
        row.row = state.take_row();
        row.birth = self.seq;
        row.inline = origin.is_none();
        let stored = match origin {
            Some((op, point)) => StoredRow::InLog {
                seq: self.seq,
                op,
                point,
            },
            None => StoredRow::Inline {
                birth: self.seq,
                point: to_record(&row),
            },
        };
        self.batch
            .effects
            .put(ROWS, &key::row(self.no, shard, row.row), &encode(&stored)?);
        self.batch.set_row(key::id(self.no, shard, &row.id), Some(row.row));
        self.batch.touched.insert((self.no, shard));
        state.pending.push(row);
        Ok(())
    }

    fn insert(&mut self, point: &PointRecord, origin: Option<(u32, u32)>) -> Result<()> {
        let shard = self.state.collection.shard_of(&point.id, point.document.as_ref());
        if let Some((old, row)) = self.find(&point.id, shard)? {
            self.kill(old, row, &point.id)?;
        }
        let row = to_pending(point, &self.state.collection.schema)?;
        self.add(shard, row, origin)
    }

    fn delete(&mut self, id: &PointId) -> Result<bool> {
        let shard = self.state.collection.shard_of(id, None);
        match self.find(id, shard)? {
            None => Ok(false),
            Some((shard, row)) => self.kill(shard, row, id).map(|()| true),
        }
    }

    /// The first matches in row order, as many as one record may end. Needs all rows in segments: the caller settles first.
    fn delete_matching(&mut self, filter: &Filter) -> Result<u64> {
        let mut victims = Vec::new();
        for (shard_no, shard) in self.state.shards.iter().enumerate() {
            for view in shard.segments() {
                let view = view?;
                let segment = &view.segment;
                let matching = eval::eval(filter, &segment.filter(), segment.rows(), &***segment)? - view.dead.rows();
                for ordinal in matching.iter().take(limits::DELETE_MATCHING_ROWS_MAX - victims.len()) {
                    let id = PointId::new(segment.id_of(ordinal))?;
                    victims.push((ShardNo(shard_no as u32), segment.row_of(ordinal), id));
                }
            }
        }
        for (shard, row, id) in &victims {
            self.kill(*shard, *row, id)?;
        }
        Ok(victims.len() as u64)
    }

    /// All or nothing: every new payload is made and checked before the first row changes.
    fn set_payload(&mut self, ids: &[PointId], set: &Payload, unset: &[String], replace: bool) -> Result<u64> {
        let schema = Arc::clone(&self.state.collection.schema);
        let (mut changes, mut bytes) = (Vec::new(), 0);
        for id in ids.iter().collect::<BTreeSet<_>>() {
            let first = self.state.collection.shard_of(id, None);
            let Some((shard, row)) = self.find(id, first)? else {
                continue;
            };
            let old = self.state.shards[shard.0 as usize].load(row, &schema)?;
            let Some(mut now) = old else {
                return Err(Error::damaged(format!(
                    "ids says that {id:?} is row {}, which is nowhere",
                    row.0
                )));
            };
            let mut payload = if replace {
                Payload::new()
            } else {
                serde_json::from_str(&now.payload).map_err(|e| Error::damaged(format!("payload of {id:?}: {e}")))?
            };
            unset.iter().for_each(|name| drop(payload.remove(name)));
            payload.extend(set.iter().map(|(name, value)| (name.clone(), value.clone())));
            extract::check_payload(&payload, &schema)?;
            now.payload = super::payload_json(&payload)?;
            bytes += now.bytes();
            if bytes > limits::SET_PAYLOAD_BYTES_MAX {
                return Err(Error::invalid(
                    "request_too_large",
                    format!(
                        "one payload change may rewrite {} bytes of points: send fewer ids",
                        limits::SET_PAYLOAD_BYTES_MAX
                    ),
                ));
            }
            changes.push((shard, row, now));
        }
        let changed = changes.len() as u64;
        for (shard, row, now) in changes {
            self.kill(shard, row, &now.id)?;
            self.add(shard, now, None)?;
        }
        Ok(changed)
    }

    /// Live rows of a document with their ids and births, in segments and pending.
    fn rows_of(&self, shard: ShardNo, id: &PointId) -> Result<Vec<(Row, PointId, Seq)>> {
        let shard = &self.state.shards[shard.0 as usize];
        let mut rows = Vec::new();
        for identity in shard.identities() {
            let (identity, dead) = identity?;
            for ordinal in identity.find_document(id.as_str()) - dead.rows() {
                let id = PointId::new(identity.id_of(ordinal))?;
                rows.push((identity.row_of(ordinal), id, identity.birth_of(ordinal)));
            }
        }
        let pending = shard
            .pending
            .iter()
            .filter(|p| !p.dead && p.document.as_ref() == Some(id));
        rows.extend(pending.map(|p| (p.row, p.id.clone(), p.birth)));
        Ok(rows)
    }

    fn put_document(&mut self, document: &DocumentRecord, chunks: &[PointRecord], op: u32) -> Result<u64> {
        let shard = self.state.collection.shard_of(&document.id, None);
        let key = key::id(self.no, shard, &document.id);
        let old = self.batch.document(&key)?;
        let rows = self.rows_of(shard, &document.id)?;
        let same = |old: &StoredDocument| {
            old.record.checksum == document.checksum && old.is_whole(rows.iter().map(|(_, _, birth)| *birth))
        };
        if old.as_ref().is_some_and(same) {
            return Ok(0);
        }
        for (row, id, _) in &rows {
            self.kill(shard, *row, id)?;
        }
        for (i, chunk) in chunks.iter().enumerate() {
            self.insert(chunk, Some((op, i as u32)))?;
        }
        self.state.documents += u64::from(old.is_none());
        self.batch.counted.insert(self.no);
        self.batch.touched.insert((self.no, shard));
        self.batch.set_document(
            key,
            Some(StoredDocument {
                seq: self.seq,
                record: document.clone(),
            }),
        )?;
        Ok((rows.len().max(chunks.len()).max(1)) as u64)
    }

    fn delete_document(&mut self, id: &PointId) -> Result<u64> {
        let shard = self.state.collection.shard_of(id, None);
        let key = key::id(self.no, shard, id);
        let known = self.batch.document(&key)?.is_some();
        let rows = self.rows_of(shard, id)?;
        for (row, id, _) in &rows {
            self.kill(shard, *row, id)?;
        }
        if known {
            self.state.documents -= 1;
            self.batch.counted.insert(self.no);
            self.batch.touched.insert((self.no, shard));
            self.batch.set_document(key, None)?;
        }
        Ok(rows.len() as u64)
    }
}

/// From the log's form to the row's.
pub(super) fn to_pending(point: &PointRecord, schema: &Schema) -> Result<PendingRow> {
    let mut vectors = vec![None; schema.vectors.len()];
    for record in &point.vectors {
        let index = usize::from(record.index);
        let (name, spec) = schema
            .vectors
            .iter()
            .nth(index)
            .ok_or_else(|| Error::damaged("a record names a vector that is not in the schema"))?;
        let vector = Owned::read(spec.metric, spec.dim as usize, &record.data)
            .ok_or_else(|| Error::damaged(format!("a record holds a vector {name:?} of the wrong length")))?;
        vectors[index] = Some(vector);
    }
    let mut sparse = vec![None; schema.sparse.len()];
    for SparseRecord { index, data } in &point.sparse {
        let slot = sparse
            .get_mut(usize::from(*index))
            .ok_or_else(|| Error::damaged("a record names a sparse vector that is not in the schema"))?;
        row::each(data, &mut |_, _| {})?;
        *slot = Some(data.clone());
    }
    Ok(PendingRow {
        row: Row(0),
        birth: Seq(0),
        id: point.id.clone(),
        document: point.document.clone(),
        expires_at_ms: point.expires_at_ms,
        acl: point.acl.clone(),
        vectors,
        sparse,
        payload: point.payload.clone(),
        inline: false,
        dead: false,
    })
}

/// And back.
pub(super) fn to_record(row: &PendingRow) -> PointRecord {
    let vectors = row.vectors.iter().enumerate().filter_map(|(i, vector)| {
        let data = vector.as_ref()?.view().bytes().to_vec();
        Some(VectorRecord { index: i as u8, data })
    });
    let sparse = row.sparse.iter().enumerate().filter_map(|(i, data)| {
        let data = data.clone()?;
        Some(SparseRecord { index: i as u8, data })
    });
    PointRecord {
        id: row.id.clone(),
        sparse: sparse.collect(),
        vectors: vectors.collect(),
        payload: row.payload.clone(),
        document: row.document.clone(),
        expires_at_ms: row.expires_at_ms,
        acl: row.acl.clone(),
    }
}

const _: () = assert!(
    limits::VECTORS_MAX <= u8::MAX as usize && limits::SPARSE_VECTORS_MAX <= u8::MAX as usize,
    "a vector's place in the schema is one byte in the log"
);
