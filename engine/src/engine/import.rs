//! Copies a collection of another engine into a new one of this engine, through the write path.
//!
//! The copy is logical: points and documents are written anew, so the number of shards may differ, and nothing of the
//! source's files is used. Everything is checked as a caller's input is, because the source may be a snapshot that somebody
//! tampered with: what would be refused from a caller refuses the import.
//!
//! Guarantees: until it is complete the copy has a name that nobody can ask for, and then it gets its own in one record; so
//! the collection is there whole or not at all, also after a crash, and replacing one is atomic for readers. An unfinished
//! copy is dropped on failure, when it is cancelled, and at open.
//! Not guaranteed: the order of points (documents come first); sequence numbers, and with them versions and tokens.

use super::applier::{self, StoredDocument};
use super::ask::{CollectionInfo, WriteOptions};
use super::commit::Write;
use super::maintain::check_stop;
use super::{Engine, check};
use crate::collection::Collection;
use crate::error::{Error, ErrorKind, Result};
use crate::limits;
use crate::op::{Applied, DocumentRecord, Op, PointRecord};
use crate::patience::Patience;
use crate::query::{Lacking, View};
use crate::schema::{Schema, check_name};
use crate::segment::PendingRow;
use crate::shard;
use crate::sparse::row;
use crate::storage::{DOCS, key};
use crate::types::{CollectionNo, Durability, PointId, PointInput, ShardNo};

/// First character of the name of a copy that is not complete: no collection of a caller can have it.
const UNFINISHED: char = '~';

/// Bytes of points that one record of a copy holds, more or less: enough that the fsync of each does not matter.
const RECORD_BYTES: usize = 4 << 20;

/// What to copy, and to where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Import {
    /// Name of the collection in the source.
    pub collection: String,
    /// Name that the copy gets.
    pub name: String,
    /// Shards of the copy; none: as many as the source has.
    pub shards: Option<u32>,
    /// Whether a collection that has the name is replaced; otherwise it is a conflict.
    pub replace: bool,
}

/// Whether this is the name of a copy that is not complete.
pub(super) fn is_unfinished(name: &str) -> bool {
    name.starts_with(UNFINISHED)
}

impl Engine {
    /// Copies a collection of `source`, which must not be written meanwhile. `progress` gets 0 to 1; once `stop` says true
    /// it ends as `Cancelled` and leaves nothing.
    pub fn import(
        &self,
        source: &Engine,
        import: &Import,
        stop: &dyn Fn() -> bool,
        progress: &mut dyn FnMut(f32),
    ) -> Result<CollectionInfo> {
        check_name("collection", &import.name).map_err(|e| e.at("/name"))?;
        let from = source.find(&import.collection)?;
        if !import.replace && self.shared.collections.read().contains_key(&import.name) {
            return Err(Error::new(
                ErrorKind::Conflict,
                "collection_exists",
                format!(
                    "collection {:?} exists; give another name, or say that it is to be replaced",
                    import.name
                ),
            ));
        }
        let mut schema = (*from.schema).clone();
        schema.shards = import.shards.unwrap_or(schema.shards);
        // Refuses everything that applying would refuse.
        Collection::new(CollectionNo(0), import.name.clone(), schema.clone())?;
        let view = from.listing().view(Patience::endless(), Lacking::Refuse)?;
        let no = self.create_unfinished(&schema)?;
        let mut copy = Copy {
            to: self,
            from: source,
            source: &from,
            view: &view,
            schema: &schema,
            no,
            stop,
            done: 0,
            waiting: Vec::new(),
            waiting_bytes: 0,
        };
        let copied = copy.run(progress).and_then(|()| {
            let rename = Op::RenameCollection {
                no,
                name: import.name.clone(),
                replace: import.replace,
            };
            self.change(rename)
        });
        if let Err(error) = copied {
            // If the engine has stopped, the next open does it.
            let _ = self.change(Op::DropCollection { no });
            return Err(error);
        }
        self.collection(&import.name)
    }

    pub(super) fn create_unfinished(&self, schema: &Schema) -> Result<CollectionNo> {
        let _naming = self.shared.naming.lock();
        self.check_room()?;
        let no = CollectionNo(self.shared.locked()?.next_collection);
        let op = Op::CreateCollection {
            no,
            name: format!("{UNFINISHED}{}", no.0),
            schema: serde_json::to_string(schema).map_err(|e| Error::internal(format!("schema: {e}")))?,
        };
        self.change(op)?;
        Ok(no)
    }

    /// One record that no row comes from, durable when it returns: with it everything before it is.
    fn change(&self, op: Op) -> Result<Applied> {
        let write = Write {
            ops: vec![op],
            durability: Some(Durability::Sync),
            grows: false,
            collection: None,
        };
        self.shared.submit(write, &WriteOptions::default())
    }

    /// Drops copies that a crash left unfinished.
    pub(super) fn drop_unfinished_imports(&self) -> Result<()> {
        let all: Vec<CollectionNo> = {
            let collections = self.shared.collections.read();
            let unfinished = collections.values().filter(|c| is_unfinished(&c.name));
            unfinished.map(|c| c.no).collect()
        };
        for no in all {
            match self.change(Op::DropCollection { no }) {
                // The next open tries again: what is stored can be read meanwhile, and something deleted.
                Err(error) if error.kind == ErrorKind::Exhausted => {
                    tracing::warn!(collection = no.0, %error, "an unfinished import could not be dropped");
                }
                dropped => drop(dropped?),
            }
        }
        Ok(())
    }
}

/// A copy under way.
struct Copy<'a> {
    to: &'a Engine,
    from: &'a Engine,
    source: &'a Collection,
    view: &'a View,
    schema: &'a Schema,
    no: CollectionNo,
    stop: &'a dyn Fn() -> bool,
    /// Points that were written.
    done: u64,
    /// Documents that wait for a record, so that small ones share one.
    waiting: Vec<Op>,
    waiting_bytes: usize,
}

impl Copy<'_> {
    fn run(&mut self, progress: &mut dyn FnMut(f32)) -> Result<()> {
        let all = self.view.live().max(1);
        for shard in (0..self.source.schema.shards).map(ShardNo) {
            self.documents(shard, &mut |done| progress(done as f32 / all as f32))?;
        }
        self.send()?;
        for shard in (0..self.source.schema.shards).map(ShardNo) {
            self.points(shard, &mut |done| progress(done as f32 / all as f32))?;
        }
        self.send()?;
        progress(1.0);
        Ok(())
    }

    /// Every document with those of its chunks that are as it was stored with. The others are points: [`Self::points`]
    /// writes them later, and the document is as incomplete as it was.
    fn documents(&mut self, shard: ShardNo, progress: &mut dyn FnMut(u64)) -> Result<()> {
        let prefix = key::shard(self.source.no, shard);
        let (from, storage) = (self.view, &self.from.shared.storage);
        storage.scan(DOCS, &prefix, &[], |_, value| {
            check_stop(self.stop)?;
            let stored: StoredDocument = applier::decode(value, "docs")?;
            let mut chunks = Vec::new();
            for view in &from.shards[shard.0 as usize].segments {
                for ordinal in view.segment.find_document(stored.record.id.as_str()) - view.dead.rows() {
                    if view.segment.birth_of(ordinal) == stored.seq {
                        let row = shard::content(&view.segment, ordinal, &self.source.schema)?;
                        chunks.push(self.record(row)?);
                    }
                }
            }
            let document = checked_document(stored.record, chunks.len())?;
            self.done += chunks.len() as u64;
            let bytes = chunks.iter().map(bytes_of).sum();
            let no = self.no;
            self.add(Op::PutDocument { no, document, chunks }, bytes)?;
            progress(self.done);
            Ok(true)
        })
    }

    /// Every point that [`Self::documents`] has not written.
    fn points(&mut self, shard: ShardNo, progress: &mut dyn FnMut(u64)) -> Result<()> {
        // Chunks of a document stand together: one look at its entry serves them all.
        let mut last: Option<(PointId, Option<StoredDocument>)> = None;
        let mut batch = Vec::new();
        let mut bytes = 0;
        let view = self.view;
        for view in &view.shards[shard.0 as usize].segments {
            for ordinal in (0..view.segment.rows()).filter(|o| !view.dead.contains(*o)) {
                if let Some(document) = view.segment.document_of(ordinal) {
                    if last.as_ref().is_none_or(|(id, _)| id.as_str() != document) {
                        let id = PointId::new(document)?;
                        let key = key::id(self.source.no, self.source.shard_of(&id, None), &id);
                        last = Some((id, applier::load_document(&self.from.shared.storage, &key)?));
                    }
                    let stored = last.as_ref().and_then(|(_, stored)| stored.as_ref());
                    if stored.is_some_and(|stored| stored.seq == view.segment.birth_of(ordinal)) {
                        continue;
                    }
                }
                let row = shard::content(&view.segment, ordinal, &self.source.schema)?;
                let record = self.record(row)?;
                bytes += bytes_of(&record);
                batch.push(record);
                if batch.len() == limits::BATCH_POINTS_MAX || bytes >= RECORD_BYTES {
                    self.upsert(std::mem::take(&mut batch), std::mem::take(&mut bytes))?;
                    progress(self.done);
                }
            }
        }
        self.upsert(batch, bytes)
    }

    fn upsert(&mut self, points: Vec<PointRecord>, bytes: usize) -> Result<()> {
        check_stop(self.stop)?;
        if points.is_empty() {
            return Ok(());
        }
        self.done += points.len() as u64;
        self.add(Op::Upsert { no: self.no, points }, bytes)
    }

    fn add(&mut self, op: Op, bytes: usize) -> Result<()> {
        if self.waiting_bytes + bytes > RECORD_BYTES || self.waiting.len() >= limits::GROUP_COMMIT_RECORDS_MAX {
            self.send()?;
        }
        self.waiting.push(op);
        self.waiting_bytes += bytes;
        Ok(())
    }

    /// Writes what waits. A full memory of growing segments is waited for as long as nobody stops the import.
    fn send(&mut self) -> Result<()> {
        self.waiting_bytes = 0;
        let ops = std::mem::take(&mut self.waiting);
        while !ops.is_empty() {
            check_stop(self.stop)?;
            let write = Write {
                ops: ops.clone(),
                // Nothing of it counts before the record that names it, which is synced.
                durability: Some(Durability::Async),
                grows: true,
                // New and empty.
                collection: None,
            };
            match self.to.shared.submit(write, &WriteOptions::default()) {
                Err(error) if error.code == "growing_memory_full" => {}
                sent => return sent.map(drop),
            }
        }
        Ok(())
    }

    /// From the source's form to the log's, checked like a caller's input.
    fn record(&self, row: PendingRow) -> Result<PointRecord> {
        let names = self.schema.vectors.keys().cloned();
        let vectors = names
            .zip(row.vectors)
            .filter_map(|(name, vector)| Some((name, vector?.view().singles().into_owned())));
        let names = self.schema.sparse.keys().cloned();
        let sparse = names.zip(row.sparse).filter_map(|(name, vector)| Some((name, vector?)));
        let point = PointInput {
            vectors: vectors.collect(),
            sparse: sparse
                .map(|(name, vector)| Ok((name, row::decode(&vector)?)))
                .collect::<Result<_>>()?,
            payload: serde_json::from_str(&row.payload)
                .map_err(|e| Error::damaged(format!("payload of {:?}: {e}", row.id.as_str())))?,
            id: row.id,
            document: row.document,
            expires_at_ms: (row.expires_at_ms > 0).then_some(row.expires_at_ms),
        };
        check::points(self.schema, std::slice::from_ref(&point)).map_err(|e| refused(&point.id, &e))?;
        Ok(PointRecord {
            acl: row.acl,
            ..check::record(self.schema, point)?
        })
    }
}

fn bytes_of(point: &PointRecord) -> usize {
    let vectors: usize = point.vectors.iter().map(|v| v.data.len()).sum();
    let sparse: usize = point.sparse.iter().map(|v| v.data.len()).sum();
    64 + point.id.as_str().len() + point.payload.len() + vectors + sparse
}

/// What no caller could have written is damage of the source, not a fault of who asks for the import.
fn refused(id: &PointId, error: &Error) -> Error {
    Error::damaged(format!("{:?} cannot be taken over: {error}", id.as_str()))
}

fn checked_document(document: DocumentRecord, chunks: usize) -> Result<DocumentRecord> {
    let metadata: Result<crate::types::Payload, _> = serde_json::from_str(&document.metadata);
    let bad = |what: &str| Err(refused(&document.id, &Error::damaged(what.to_owned())));
    if document.chunks.len() > limits::DOCUMENT_CHUNKS_MAX || chunks > document.chunks.len() {
        return bad("it has more chunks than a document can have");
    }
    let id = PointId::new(document.id.as_str());
    if id.is_err() || metadata.is_err() || document.metadata.len() > limits::PAYLOAD_BYTES_MAX {
        return bad("its id or its metadata is not what a document can have");
    }
    Ok(document)
}
