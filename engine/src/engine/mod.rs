//! The engine's face: open, write, read, maintain.
//!
//! `applier` turns records into state, `commit` is the way in for writers, `recover` opens, `maintain` does background work,
//! `check` refuses bad input before it enters the log. `snapshot` takes a copy of one moment as files, `import` copies a
//! collection of another engine. Readers of points never wait for writers: they take a collection's last view.
//! (`collection` waits for the commit under way.)

mod applier;
mod ask;
mod check;
mod commit;
#[cfg(test)]
mod durability_tests;
mod examine;
mod failing;
mod health;
mod import;
mod maintain;
#[cfg(test)]
mod model;
mod moment;
mod past;
mod progress;
mod readable;
mod recover;
mod repair;
mod requests;
mod retention;
mod sampling;
#[cfg(test)]
mod sim;
mod snapshot;
mod take_back;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

pub use ask::{
    ChunkInput, ChunkVectors, CollectionInfo, DocumentInfo, DocumentInput, EngineStats, GraphCounts, Maintained,
    OptimizeStep, Optimizing, Page, PayloadChange, Scroll, Selector, WriteOptions,
};
use commit::Write;
pub use examine::{Examined, Finding, FindingKind, SegmentPlace, examine};
pub use failing::{BuildFailure, BuildKind};
pub use health::{DamagedSegment, ScrubStats};
pub use import::Import;
pub use moment::Moment;
pub use past::{Past, Replayed, Until};
pub use progress::{Phase, Progress};
pub use repair::{DamagedFile, Repair};
pub use snapshot::{Cut, CutCollection, CutFile, Original, SealedFile};
pub use take_back::Wanted;

use crate::collection::Collection;
use crate::config::{Components, Settings};
use crate::error::{Error, ErrorKind, Result};
use crate::filter::{Filter, extract};
use crate::limits;
use crate::log::{LocalLog, Request};
use crate::op::{Applied, Op};
use crate::patience::Patience;
use crate::query::{self, Context, Lacking, Listing, Query, QueryResult, View, With};
use crate::schema::{Schema, check_name};
use crate::shard::policy;
pub use crate::storage::wal::Dropped;
use crate::storage::{DOCS, files, key};
use crate::types::{CollectionNo, Durability, Epochs, Payload, Point, PointId, PointInput, Seq, ShardNo, Token};

/// How often a document and its chunks are read until both show one moment: a write takes a fraction of a millisecond
/// between them.
const DOCUMENT_READS_MAX: usize = 100_000;

/// One data directory, opened by one process. Cheap to share behind an `Arc`; every method may be called from any thread.
pub struct Engine {
    shared: commit::Shared,
}

impl Engine {
    /// Opens or creates a data directory: locks it, opens RocksDB, verifies and maps the segments, replays the log.
    pub fn open(dir: &Path, settings: Settings, components: Components) -> Result<Self> {
        Self::open_watched(dir, settings, components, &Progress::default())
    }

    /// The same, telling `progress` how far it is.
    pub fn open_watched(dir: &Path, settings: Settings, components: Components, progress: &Progress) -> Result<Self> {
        let engine = Self {
            shared: recover::open(dir, settings, components, progress, |storage, window| {
                Arc::new(LocalLog::new(Arc::clone(storage), 0, window))
            })?,
        };
        engine.drop_unfinished_imports()?;
        Ok(engine)
    }

    /// Opens what a snapshot brought, as it was left, so that the records that followed it can be replayed ([`Self::replay`]):
    /// no record is written.
    pub fn open_as_left(dir: &Path, settings: Settings, components: Components) -> Result<Self> {
        Ok(Self {
            shared: recover::open(dir, settings, components, &Progress::default(), |storage, window| {
                Arc::new(LocalLog::new(Arc::clone(storage), 0, window))
            })?,
        })
    }

    /// Whether there may be one collection more.
    fn check_room(&self) -> Result<()> {
        if self.shared.collections.read().len() < limits::COLLECTIONS_MAX {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Exhausted,
            "too_many_collections",
            format!("a node holds at most {} collections", limits::COLLECTIONS_MAX),
        ))
    }

    /// Makes a collection. Making it again with an equal schema returns the existing one; with another it is a conflict
    /// (`collection_exists`).
    pub fn create_collection(&self, name: &str, schema: Schema) -> Result<CollectionInfo> {
        check_name("collection", name).map_err(|e| e.at("/name"))?;
        // Refuses everything that applying would refuse, analyzers included.
        Collection::new(CollectionNo(0), name.to_owned(), schema.clone())?;
        let _naming = self.shared.naming.lock();
        let existing = self.shared.collections.read().get(name).cloned();
        if let Some(existing) = existing {
            if *existing.schema == schema {
                return self.collection(name);
            }
            return Err(Error::new(
                ErrorKind::Conflict,
                "collection_exists",
                format!("collection {name:?} exists with another schema; delete it first or choose another name"),
            ));
        }
        self.check_room()?;
        check::new_indexes(&schema)?;
        let no = CollectionNo(self.shared.applier.lock().next_collection);
        let schema = serde_json::to_string(&schema).map_err(|e| Error::internal(format!("schema: {e}")))?;
        let op = Op::CreateCollection {
            no,
            name: name.to_owned(),
            schema,
        };
        let write = Write {
            ops: vec![op],
            durability: Some(Durability::Sync),
            grows: false,
            collection: None,
        };
        self.shared.submit(write, &WriteOptions::default())?;
        self.collection(name)
    }

    /// Removes a collection and everything in it (`collection_not_found` if there is none).
    pub fn drop_collection(&self, name: &str, options: &WriteOptions) -> Result<Applied> {
        if let Some(request) = &options.request
            && let Some(done) = self.shared.replayed(request, Durability::Sync)?
        {
            return Ok(done);
        }
        let no = self.find(name)?.no;
        let write = Write {
            ops: vec![Op::DropCollection { no }],
            durability: Some(Durability::Sync),
            grows: false,
            collection: None,
        };
        self.shared.submit(write, options)
    }

    /// One collection.
    pub fn collection(&self, name: &str) -> Result<CollectionInfo> {
        let collection = self.find(name)?;
        let listing = collection.listing();
        let mut info = CollectionInfo {
            name: name.to_owned(),
            schema: (*collection.schema).clone(),
            points: listing.live(),
            documents: listing.documents,
            indexed_points: 0,
            segments: 0,
            dead_rows: 0,
            disk_bytes: 0,
            growing_bytes: 0,
            optimizing: false,
            damaged: listing.damaged().collect(),
            failing: self.shared.failing.of(collection.no),
            recall: collection.samples().estimate(),
        };
        for (_, sealed) in listing.sealed() {
            info.dead_rows += sealed.dead.count();
            info.indexed_points += sealed.live();
            info.segments += 1;
            info.disk_bytes += sealed.file.entry.bytes;
        }
        for growing in listing.shards.iter().flat_map(|s| &s.growing) {
            info.dead_rows += growing.dead.count();
            info.growing_bytes += growing.segment.bytes() as u64;
        }
        if let Some(state) = self.shared.applier.lock().states.get(&collection.no) {
            info.optimizing = state.shards.iter().any(|shard| {
                shard.sealing > 0
                    || shard.merging
                    || self.shared.seal_due(shard)
                    || policy::sealed_merge(&maintain::summary(shard), &self.shared.settings, |_, _| true).is_some()
            });
        }
        Ok(info)
    }

    /// The schema alone: cheap, no statistics.
    pub fn schema(&self, name: &str) -> Result<Arc<Schema>> {
        Ok(Arc::clone(&self.find(name)?.schema))
    }

    /// Names of all collections, in order; one that is being imported has none yet.
    pub fn collection_names(&self) -> Vec<String> {
        let collections = self.shared.collections.read();
        collections
            .keys()
            .filter(|name| !import::is_unfinished(name))
            .cloned()
            .collect()
    }

    /// Inserts points or replaces them whole: atomic, durable when it returns.
    pub fn upsert(&self, collection: &str, points: Vec<PointInput>, options: &WriteOptions) -> Result<Applied> {
        let collection = self.find(collection)?;
        check::points(&collection.schema, &points)?;
        let records = points
            .into_iter()
            .map(|p| check::record(&collection.schema, p))
            .collect::<Result<Vec<_>>>()?;
        let op = Op::Upsert {
            no: collection.no,
            points: records,
        };
        self.shared.submit(adding(&collection, op), options)
    }

    /// Deletes points.
    pub fn delete(&self, collection: &str, selector: Selector, options: &WriteOptions) -> Result<Applied> {
        let collection = self.find(collection)?;
        let no = collection.no;
        let op = match selector {
            Selector::Ids(ids) => {
                check::batch_size("ids", ids.len()).map_err(|e| e.at("/ids"))?;
                Op::Delete { no, ids }
            }
            Selector::Matching(filter) => {
                if filter.is_empty() {
                    return Err(Error::invalid(
                        "empty_filter",
                        "deleting by an empty filter would delete everything: drop the collection if that is meant",
                    )
                    .at("/filter"));
                }
                filter
                    .check()
                    .and_then(|()| extract::check_filter(&filter, &collection.schema))
                    .map_err(|e| e.at("/filter"))?;
                Op::DeleteMatching { no, filter }
            }
        };
        let write = |op| Write {
            ops: vec![op],
            durability: collection.schema.durability,
            grows: false,
            collection: Some(Arc::clone(&collection)),
        };
        let Op::DeleteMatching { .. } = op else {
            return self.shared.submit(write(op), options);
        };
        // One record ends a bounded number of rows: a larger delete is several records, each atomic, each a part of the
        // request, so that a repetition goes on where the first attempt ended.
        let mut changed = 0;
        for part in 0.. {
            let options = WriteOptions {
                request: options.request.as_ref().map(|request| request.part(part)),
                ..options.clone()
            };
            let applied = self
                .shared
                .submit(write(op.clone()), &options)
                .map_err(|error| match changed {
                    0 => error,
                    _ => Error {
                        message: format!("{changed} points were deleted before this happened: {}", error.message),
                        ..error
                    },
                })?;
            changed += applied.changed;
            if applied.changed < limits::DELETE_MATCHING_ROWS_MAX as u64 {
                return Ok(Applied { changed, ..applied });
            }
        }
        unreachable!("the loop ends with the last match, long before parts run out")
    }

    /// Changes payloads of existing points; missing ids are ignored.
    pub fn set_payload(
        &self,
        collection: &str,
        ids: Vec<PointId>,
        change: PayloadChange,
        options: &WriteOptions,
    ) -> Result<Applied> {
        let collection = self.find(collection)?;
        check::batch_size("ids", ids.len()).map_err(|e| e.at("/ids"))?;
        check::payload(&collection.schema, &change.set).map_err(|e| e.at("/set"))?;
        let set = payload_json(&change.set).map_err(|e| e.at("/set"))?;
        let op = Op::SetPayload {
            no: collection.no,
            ids,
            set,
            unset: change.unset,
            replace: change.replace,
        };
        self.shared.submit(adding(&collection, op), options)
    }

    /// Replaces a document with all its chunks in one atomic record. If the stored checksum is equal nothing is written
    /// and `changed` is 0.
    pub fn put_document(&self, collection: &str, document: DocumentInput, options: &WriteOptions) -> Result<Applied> {
        let collection = self.find(collection)?;
        let (document, chunks) = check::document(&collection.schema, document)?;
        if let Some(request) = &options.request
            && let Some(done) = self.replayed(&collection.name, request, options)?
        {
            return Ok(done);
        }
        if let Some(stored) = self.document(&collection.name, &document.id)?
            && stored.checksum == document.checksum
            && stored.whole
        {
            return Ok(Applied {
                token: stored.version,
                changed: 0,
                durability: self.durability_of(&collection.name, stored.version, options)?,
                replayed: false,
                note: Vec::new(),
                refused: None,
            });
        }
        let op = Op::PutDocument {
            no: collection.no,
            document,
            chunks,
        };
        self.shared.submit(adding(&collection, op), options)
    }

    /// How safe a write is that was done before, which is fsynced if it is not as safe as `options` want: asked where a write finds
    /// nothing to do, because what it would have written may have been written `async`.
    pub fn durability_of(&self, collection: &str, write: Token, options: &WriteOptions) -> Result<Durability> {
        let collection = self.find(collection)?;
        let wanted = options.durability.or(collection.schema.durability);
        self.shared.at_least(write.seq, wanted)
    }

    /// What a request of this collection was answered when it was done, if it was: asked before work that a repetition
    /// would do in vain. Writing asks by itself.
    pub fn replayed(&self, collection: &str, request: &Request, options: &WriteOptions) -> Result<Option<Applied>> {
        let collection = self.find(collection)?;
        let wanted = options.durability.or(collection.schema.durability);
        self.shared
            .replayed(request, wanted.unwrap_or(self.shared.settings.durability))
    }

    /// Deletes documents with their chunks; missing ids are ignored. `changed` counts points.
    pub fn delete_documents(&self, collection: &str, ids: Vec<PointId>, options: &WriteOptions) -> Result<Applied> {
        let collection = self.find(collection)?;
        check::batch_size("ids", ids.len()).map_err(|e| e.at("/ids"))?;
        let write = Write {
            ops: vec![Op::DeleteDocuments { no: collection.no, ids }],
            durability: collection.schema.durability,
            grows: false,
            collection: Some(Arc::clone(&collection)),
        };
        self.shared.submit(write, options)
    }

    /// Answers a query from one view.
    pub fn query(&self, collection: &str, query: &Query) -> Result<QueryResult> {
        let collection = self.find(collection)?;
        self.check_after(query.after)?;
        let answer = self.read(&collection, &query.patience, |context| query::run(context, query))?;
        self.sample(&collection, query);
        Ok(answer)
    }

    /// Points by id, in the order asked; missing ones are left out.
    pub fn get(&self, collection: &str, ids: &[PointId], with: With) -> Result<Vec<Point>> {
        let collection = self.find(collection)?;
        check::batch_size("ids", ids.len()).map_err(|e| e.at("/ids"))?;
        let moment = Moment::of(self, collection, Patience::endless().clone());
        moment.get(ids, with).map(|(points, _)| points)
    }

    /// A page of points.
    pub fn scroll(&self, collection: &str, scroll: &Scroll) -> Result<Page> {
        let collection = self.find(collection)?;
        self.check_after(scroll.after)?;
        let moment = Moment::of(self, collection, scroll.patience.clone()).allow_partial(scroll.allow_partial);
        moment.scroll(scroll)
    }

    /// Live points that match.
    pub fn count(&self, collection: &str, filter: &Filter) -> Result<u64> {
        let collection = self.find(collection)?;
        self.read(&collection, Patience::endless(), |context| {
            query::count(context, filter)
        })
    }

    /// One document. Where a damaged file keeps its chunks from being seen, it is not known to be whole.
    pub fn document(&self, collection: &str, id: &PointId) -> Result<Option<DocumentInfo>> {
        let collection = self.find(collection)?;
        let (stored, listing) = self.document_moment(&collection, id)?;
        let Some(stored) = stored else { return Ok(None) };
        let (with, patience) = (With::default(), Patience::endless());
        let whole = match self.chunks_of(&collection, &listing, id, Some(&stored), with, patience) {
            Err(error) if error.code == "segment_damaged" => false,
            chunks => stored.is_whole(chunks?.iter().map(|point| point.version.seq)),
        };
        document_info(stored, whole, &self.shared.epochs.load()).map(Some)
    }

    /// One document with its chunks, in order, of one moment.
    pub fn document_with_chunks(
        &self,
        collection: &str,
        id: &PointId,
        with: With,
        patience: &Patience,
    ) -> Result<Option<(DocumentInfo, Vec<Point>)>> {
        let collection = self.find(collection)?;
        let (stored, view) = self.document_moment(&collection, id)?;
        let Some(stored) = stored else { return Ok(None) };
        let chunks = self.chunks_of(&collection, &view, id, Some(&stored), with, patience)?;
        // An expired chunk is invisible, and the document is not whole for a reader.
        let whole = stored.is_whole(chunks.iter().map(|point| point.version.seq));
        Ok(Some((
            document_info(stored, whole, &self.shared.epochs.load())?,
            chunks,
        )))
    }

    /// A page of documents in id order, after `after`.
    pub fn documents(
        &self,
        collection: &str,
        after: Option<&PointId>,
        limit: usize,
        patience: &Patience,
    ) -> Result<Vec<DocumentInfo>> {
        let collection = self.find(collection)?;
        if limit == 0 || limit > limits::TOP_K_MAX {
            return Err(Error::invalid(
                "bad_limit",
                format!("limit must be 1 to {}, got {limit}", limits::TOP_K_MAX),
            )
            .at("/limit"));
        }
        let mut found: BTreeMap<String, PointId> = BTreeMap::new();
        for shard in (0..collection.schema.shards).map(ShardNo) {
            let prefix = key::shard(collection.no, shard);
            let from = after.map_or_else(Vec::new, |id| key::id(collection.no, shard, id));
            self.shared.storage.scan(DOCS, &prefix, &from, |key, value| {
                patience.check()?;
                if key == from {
                    return Ok(true);
                }
                let stored: applier::StoredDocument = applier::decode(value, "docs")?;
                let id = stored.record.id;
                found.insert(id.as_str().to_owned(), id.clone());
                if found.len() > limit {
                    found.pop_last();
                }
                // A shard is read in id order: after one that is not among the first, none is.
                Ok(found.contains_key(id.as_str()))
            })?;
        }
        // Each as of one moment of its own; one that was deleted since the scan is left out.
        let mut documents = Vec::with_capacity(found.len());
        for id in found.into_values() {
            patience.check()?;
            documents.extend(self.document(&collection.name, &id)?);
        }
        Ok(documents)
    }

    /// The chunks of a document, in order, of one view.
    pub fn chunks(&self, collection: &str, document: &PointId, with: With, patience: &Patience) -> Result<Vec<Point>> {
        let collection = self.find(collection)?;
        let (stored, view) = self.document_moment(&collection, document)?;
        self.chunks_of(&collection, &view, document, stored.as_ref(), with, patience)
    }

    /// Vectors of the document's stored chunks by the checksum of the text they were made from: what need not be embedded again.
    pub fn chunk_vectors(
        &self,
        collection: &str,
        document: &PointId,
        patience: &Patience,
    ) -> Result<HashMap<[u8; 16], ChunkVectors>> {
        let collection = self.find(collection)?;
        let (stored, view) = self.document_moment(&collection, document)?;
        let Some(stored) = stored else {
            return Ok(HashMap::new());
        };
        let with = With {
            vectors: true,
            ..With::default()
        };
        let chunks = match self.chunks_of(&collection, &view, document, Some(&stored), with, patience) {
            // They are made again.
            Err(error) if error.code == "segment_damaged" => return Ok(HashMap::new()),
            chunks => chunks?,
        };
        let checksums: HashMap<PointId, [u8; 16]> = stored.record.chunks.into_iter().collect();
        Ok(chunks
            .into_iter()
            // A chunk that was written again by other means may hold another vector.
            .filter(|point| point.version.seq == stored.seq)
            .filter_map(|point| {
                let vectors = ChunkVectors {
                    dense: point.vectors?,
                    sparse: point.sparse?,
                };
                Some((*checksums.get(&point.id)?, vectors))
            })
            .collect())
    }

    /// A document's entry and a view that show the same moment of it. Entries are written before views are shown, so an
    /// entry that is the same before and after, and not younger than the view between, belongs to that view.
    fn document_moment(
        &self,
        collection: &Collection,
        id: &PointId,
    ) -> Result<(Option<applier::StoredDocument>, Arc<Listing>)> {
        let key = key::id(collection.no, collection.shard_of(id, None), id);
        for _ in 0..DOCUMENT_READS_MAX {
            let before = applier::load_document(&self.shared.storage, &key)?;
            let view = collection.listing();
            let after = applier::load_document(&self.shared.storage, &key)?;
            let seq = |stored: &Option<applier::StoredDocument>| stored.as_ref().map(|s| s.seq);
            if seq(&before) == seq(&after) && seq(&before).is_none_or(|seq| seq <= view.seq) {
                return Ok((before, view));
            }
            std::thread::yield_now();
        }
        self.shared.check_alive()?;
        Err(Error::new(
            ErrorKind::Unavailable,
            "document_busy",
            "the document is being replaced faster than it can be read; retry",
        ))
    }

    fn chunks_of(
        &self,
        collection: &Collection,
        listing: &Listing,
        document: &PointId,
        stored: Option<&applier::StoredDocument>,
        with: With,
        patience: &Patience,
    ) -> Result<Vec<Point>> {
        let chunks = stored.map_or(&[][..], |stored| &stored.record.chunks);
        let order: HashMap<&PointId, usize> = chunks.iter().enumerate().map(|(i, (id, _))| (id, i)).collect();
        let view = listing.view(patience, Lacking::Refuse)?;
        let context = self.context(collection, &view, patience);
        let mut points = context.ask(|context| query::chunks(context, document, with))?;
        // A chunk whose payload was changed is a new row: its place comes from the document.
        points.sort_by_key(|p| order.get(&p.id).copied().unwrap_or(usize::MAX));
        Ok(points)
    }

    /// Does one piece of background work (seal, merge, trim), or finds none. `stop` is polled; stopping loses only that piece.
    pub fn maintain(&self, stop: &dyn Fn() -> bool) -> Result<Maintained> {
        self.shared.maintain(stop)
    }

    /// Seals what grows in a collection now and merges each shard into as few segments as `segment_rows_max` allows, on the
    /// caller's thread. Reads, writes and [`Self::maintain`] go on. `progress` is told what it is at; once `stop` says true it
    /// ends as `Cancelled`, and what it had finished stays.
    pub fn optimize(
        &self,
        collection: &str,
        stop: &dyn Fn() -> bool,
        progress: &mut dyn FnMut(Optimizing),
    ) -> Result<()> {
        self.shared.check_alive()?;
        let collection = self.find(collection)?;
        self.shared.optimize(&collection, stop, progress)
    }

    /// The sealed files of all collections as of now, by their path below the data directory. Any of them may be merged away
    /// at any time. Damaged ones are among them: what there is of them elsewhere is needed all the more.
    pub fn sealed_files(&self) -> Vec<SealedFile> {
        let collections: Vec<Arc<Collection>> = self.shared.collections.read().values().cloned().collect();
        let mut sealed = Vec::new();
        for collection in collections {
            let listing = collection.listing();
            sealed.extend(listing.sealed().filter_map(|(shard, view)| {
                let path = files::segment_path(Path::new(""), collection.no, shard, view.file.entry.no);
                Some(SealedFile {
                    path: path.to_str()?.to_owned(),
                    bytes: view.file.entry.bytes,
                    is_damaged: view.file.damage().is_some(),
                    original: Some(Original(Arc::clone(&view.file))),
                })
            }));
        }
        sealed
    }

    /// Sleeps until there may be background work, or the timeout.
    pub fn wait_for_work(&self, timeout: Duration) {
        self.shared.work.wait(timeout);
    }

    /// Fsyncs what was answered before it was on disk ([`Durability::Async`]), within the window, until `stop`. An engine that
    /// takes such writes needs a thread in here: without it, an fsync comes with a later write only. An error means that an
    /// fsync failed and the engine has stopped.
    pub fn keep_synced(&self, stop: &dyn Fn() -> bool) -> Result<()> {
        self.shared.keep_synced(stop)
    }

    /// Fsyncs now what was answered before it was on disk.
    pub fn sync(&self) -> Result<()> {
        self.shared.sync()
    }

    /// What was cut off the end of the log when it was opened, if a crash had left something unfinished there.
    pub fn dropped(&self) -> Option<&Dropped> {
        self.shared.dropped.as_ref()
    }

    /// Writes all effects to disk, so that the next open replays little. Not needed for durability.
    pub fn flush(&self) -> Result<()> {
        self.shared.check_alive()?;
        self.shared.flush_and_trim()
    }

    /// Numbers of the whole engine. Waits for nobody: it is asked from threads that must not.
    pub fn stats(&self) -> EngineStats {
        let collections: Vec<Arc<Collection>> = self.shared.collections.read().values().cloned().collect();
        let counters = &self.shared.counters;
        let (builds_failing, build_failures) = self.shared.failing.counts();
        let mut stats = EngineStats {
            collections: collections.len() as u64,
            growing_bytes: self.shared.memory.bytes(),
            applied_seq: counters.applied.load(Ordering::Acquire),
            replayed_records: counters.replayed.load(Ordering::Relaxed),
            seals: counters.seals.load(Ordering::Relaxed),
            merges: counters.merges.load(Ordering::Relaxed),
            taken_back: counters.taken_back.load(Ordering::Relaxed),
            builds_failing,
            build_failures,
            log_start_seq: counters.log_start.load(Ordering::Relaxed),
            log_bytes: counters.log_bytes.load(Ordering::Relaxed),
            retained_bytes: counters.retained_bytes.load(Ordering::Relaxed),
            log_oldest_ms: counters.log_oldest_ms.load(Ordering::Relaxed),
            retention_cut_bytes: counters.retention_cut.load(Ordering::Relaxed),
            fsyncs: self.shared.log.fsyncs(),
            unsynced: self.shared.log.unsynced(),
            dropped_log_bytes: self.shared.dropped.as_ref().map_or(0, |dropped| dropped.bytes),
            requests: counters.requests.load(Ordering::Relaxed),
            replayed_requests: counters.replayed_requests.load(Ordering::Relaxed),
            // A disk that does not say how full it is refuses writes with that error.
            disk: self.shared.space.free().unwrap_or_default(),
            disk_full: self.shared.space.is_refusing(),
            ..EngineStats::default()
        };
        let needed = counters.log_needed.load(Ordering::Relaxed).min(stats.applied_seq + 1);
        stats.retained_records = needed.saturating_sub(stats.log_start_seq);
        for listing in collections.iter().map(|c| c.listing()) {
            stats.points += listing.live();
            for (_, sealed) in listing.sealed() {
                stats.segments += 1;
                stats.segment_bytes += sealed.file.entry.bytes;
                let (blocks, verified) = sealed.file.progress();
                stats.blocks += blocks;
                stats.blocks_verified += verified;
                if sealed.file.damage().is_some() {
                    stats.damaged_segments += 1;
                    stats.damaged_points += sealed.live();
                }
                // Which graphs a file has is known when it was looked into.
                if let Some(segment) = sealed.file.if_made() {
                    stats.graph_memory_bytes += segment.graph_bytes_in_memory() as u64;
                    segment.graphs().for_each(|coding| stats.graphs.add(coding));
                    segment.inverted().for_each(|coding| stats.inverted.add(coding));
                }
            }
        }
        stats.scrub = self.scrubbed();
        stats.recall = self.recall_estimate();
        stats
    }

    /// Token of the last applied record.
    pub fn applied(&self) -> Token {
        let applied = Seq(self.shared.counters.applied.load(Ordering::Acquire));
        self.shared.epochs.load().token(applied)
    }

    /// Token of the last record that was there when it was opened. Opening may write some of its own: it drops what an import
    /// left unfinished.
    pub fn opened_at(&self) -> Token {
        let opened = Seq(self.shared.counters.opened.load(Ordering::Acquire));
        self.shared.epochs.load().token(opened)
    }

    /// An error if the engine stopped after a failure and must be restarted.
    pub fn check_alive(&self) -> Result<()> {
        self.shared.check_alive()
    }

    fn find(&self, name: &str) -> Result<Arc<Collection>> {
        self.shared.collections.read().get(name).cloned().ok_or_else(|| {
            let name: String = name.chars().take(limits::NAME_BYTES_MAX).collect();
            Error::not_found("collection_not_found", format!("there is no collection {name:?}"))
        })
    }

    /// Asks a question of the newest view, and of that view only.
    fn read<T>(
        &self,
        collection: &Collection,
        patience: &Patience,
        ask: impl FnOnce(&Context<'_>) -> Result<T>,
    ) -> Result<T> {
        let view = collection.listing().view(patience, Lacking::Refuse)?;
        self.context(collection, &view, patience).ask(ask)
    }

    fn context<'a>(&self, collection: &'a Collection, view: &'a View, patience: &'a Patience) -> Context<'a> {
        Context {
            view,
            // Loaded after the view, so it has the epochs of all rows in it.
            epochs: self.shared.epochs.load_full(),
            schema: &collection.schema,
            analyzers: &collection.analyzers,
            now_ms: self.shared.components.clock.now_ms(),
            patience,
            answer_bytes: std::cell::Cell::new(0),
            ahead: None,
        }
    }

    /// A write that was acked is visible at once on this node, so a token is either seen or of another history.
    pub fn check_after(&self, after: Option<Token>) -> Result<()> {
        let Some(token) = after else { return Ok(()) };
        let applied = self.applied();
        if self.shared.epochs.load().knows(token, applied.seq) {
            return Ok(());
        }
        if token.epoch == self.shared.opening.epoch && token.group == applied.group && token.seq > applied.seq {
            return Err(Error::new(
                ErrorKind::Unavailable,
                "not_caught_up",
                format!("this node has not seen {token}, only up to {applied}"),
            )
            .at("/after"));
        }
        Err(past::token_unknown(&format!(
            "no write that this database holds answered with {token}: its write was of another server, or is gone since a \
             restore or a loss of power"
        ))
        .at("/after"))
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("dir", &self.shared.dir)
            .field("applied", &self.applied())
            .finish_non_exhaustive()
    }
}

fn document_info(stored: applier::StoredDocument, whole: bool, epochs: &Epochs) -> Result<DocumentInfo> {
    let record = stored.record;
    Ok(DocumentInfo {
        metadata: serde_json::from_str(&record.metadata).map_err(|e| Error::damaged(format!("docs: metadata: {e}")))?,
        id: record.id,
        title: record.title,
        source: record.source,
        checksum: record.checksum,
        text_bytes: record.text_bytes,
        chunks: record.chunks.len() as u64,
        whole,
        version: epochs.token(stored.seq),
    })
}

/// A write that adds rows to a collection.
fn adding(collection: &Arc<Collection>, op: Op) -> Write {
    Write {
        ops: vec![op],
        durability: collection.schema.durability,
        grows: true,
        collection: Some(Arc::clone(collection)),
    }
}

/// A payload as it is stored, within its bound.
fn payload_json(payload: &Payload) -> Result<String> {
    let json = serde_json::to_string(payload).map_err(|e| Error::internal(format!("payload: {e}")))?;
    if json.len() > limits::PAYLOAD_BYTES_MAX {
        return Err(Error::invalid(
            "payload_too_large",
            format!(
                "a payload is at most {} bytes of JSON, got {}",
                limits::PAYLOAD_BYTES_MAX,
                json.len()
            ),
        ));
    }
    Ok(json)
}
