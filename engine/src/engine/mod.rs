//! The engine's face: open, write, read, maintain.

mod ask;

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

pub use ask::{
    ChunkInput, CollectionInfo, DocumentInfo, DocumentInput, EngineStats, Maintained, Page, PayloadChange, Scroll,
    Selector, WriteOptions,
};

use crate::config::{Components, Settings};
use crate::error::Result;
use crate::filter::Filter;
use crate::op::Applied;
use crate::query::{Query, QueryResult, With};
use crate::schema::Schema;
use crate::types::{Payload, Point, PointId, PointInput, Token, Vectors};

/// One data directory, opened by one process. Cheap to share behind an `Arc`; every method may be called from any thread.
#[derive(Debug)]
pub struct Engine {}

impl Engine {
    /// Opens or creates a data directory: locks it, opens RocksDB, verifies and maps the segments, replays the log.
    pub fn open(dir: &Path, settings: Settings, components: Components) -> Result<Self> {
        let _ = (dir, settings, components);
        todo!()
    }

    /// Makes a collection. Making it again with an equal schema returns the existing one; with another it is a conflict
    /// (`collection_exists`).
    pub fn create_collection(&self, name: &str, schema: Schema) -> Result<CollectionInfo> {
        let _ = (name, schema);
        todo!()
    }
    /// Removes a collection and everything in it (`collection_not_found` if there is none).
    pub fn drop_collection(&self, name: &str) -> Result<Applied> {
        let _ = name;
        todo!()
    }
    /// One collection.
    pub fn collection(&self, name: &str) -> Result<CollectionInfo> {
        let _ = name;
        todo!()
    }
    /// The schema alone: cheap, no statistics.
    pub fn schema(&self, name: &str) -> Result<std::sync::Arc<Schema>> {
        let _ = name;
        todo!()
    }
    /// Names of all collections, in order.
    pub fn collection_names(&self) -> Vec<String> {
        todo!()
    }

    /// Inserts points or replaces them whole: atomic, durable when it returns.
    pub fn upsert(&self, collection: &str, points: Vec<PointInput>, options: &WriteOptions) -> Result<Applied> {
        let _ = (collection, points, options);
        todo!()
    }
    /// Deletes points.
    pub fn delete(&self, collection: &str, selector: Selector, options: &WriteOptions) -> Result<Applied> {
        let _ = (collection, selector, options);
        todo!()
    }
    /// Changes payloads of existing points; missing ids are ignored.
    pub fn set_payload(&self, collection: &str, ids: Vec<PointId>, change: PayloadChange, options: &WriteOptions) -> Result<Applied> {
        let _ = (collection, ids, change, options);
        todo!()
    }
    /// Replaces a document with all its chunks in one atomic record. If the stored checksum is equal nothing is written
    /// and `changed` is 0.
    pub fn put_document(&self, collection: &str, document: DocumentInput, options: &WriteOptions) -> Result<Applied> {
        let _ = (collection, document, options);
        todo!()
    }
    /// Deletes documents with their chunks; missing ids are ignored. `changed` counts points.
    pub fn delete_documents(&self, collection: &str, ids: Vec<PointId>, options: &WriteOptions) -> Result<Applied> {
        let _ = (collection, ids, options);
        todo!()
    }

    /// Answers a query from one view.
    pub fn query(&self, collection: &str, query: &Query) -> Result<QueryResult> {
        let _ = (collection, query);
        todo!()
    }
    /// Points by id, in the order asked; missing ones are left out.
    pub fn get(&self, collection: &str, ids: &[PointId], with: With) -> Result<Vec<Point>> {
        let _ = (collection, ids, with);
        todo!()
    }
    /// A page of points.
    pub fn scroll(&self, collection: &str, scroll: &Scroll) -> Result<Page> {
        let _ = (collection, scroll);
        todo!()
    }
    /// Live points that match.
    pub fn count(&self, collection: &str, filter: &Filter) -> Result<u64> {
        let _ = (collection, filter);
        todo!()
    }
    /// One document.
    pub fn document(&self, collection: &str, id: &PointId) -> Result<Option<DocumentInfo>> {
        let _ = (collection, id);
        todo!()
    }
    /// A page of documents in id order, after `after`.
    pub fn documents(&self, collection: &str, after: Option<&PointId>, limit: usize) -> Result<Vec<DocumentInfo>> {
        let _ = (collection, after, limit);
        todo!()
    }
    /// The chunks of a document, in order, of one view.
    pub fn chunks(&self, collection: &str, document: &PointId, with: With) -> Result<Vec<Point>> {
        let _ = (collection, document, with);
        todo!()
    }
    /// Vectors of the document's stored chunks by the checksum of the text they were made from: what need not be embedded again.
    pub fn chunk_vectors(&self, collection: &str, document: &PointId) -> Result<HashMap<[u8; 16], Vectors>> {
        let _ = (collection, document);
        todo!()
    }

    /// Does one piece of background work (seal, merge, trim), or finds none. `stop` is polled; stopping loses only that piece.
    pub fn maintain(&self, stop: &dyn Fn() -> bool) -> Result<Maintained> {
        let _ = stop;
        todo!()
    }
    /// Sleeps until there may be background work, or the timeout.
    pub fn wait_for_work(&self, timeout: Duration) {
        let _ = timeout;
        todo!()
    }
    /// Writes all effects to disk, so that the next open replays little. Not needed for durability.
    pub fn flush(&self) -> Result<()> {
        todo!()
    }
    /// Numbers of the whole engine.
    pub fn stats(&self) -> EngineStats {
        todo!()
    }
    /// Token of the last applied record.
    pub fn applied(&self) -> Token {
        todo!()
    }
    /// Checks points against a collection's schema without writing them. Errors carry a JSON pointer (`/points/3/vectors/dense`).
    pub fn check_points(&self, collection: &str, points: &[PointInput]) -> Result<()> {
        let _ = (collection, points);
        todo!()
    }
    /// Checks a payload change likewise.
    pub fn check_payload(&self, collection: &str, payload: &Payload) -> Result<()> {
        let _ = (collection, payload);
        todo!()
    }
}
