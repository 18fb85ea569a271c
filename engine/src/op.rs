//! What a record in the log says: the operations, and the result each one had when it was applied.
//!
//! Operations are written to the log as they are; conditions and filters are decided when they are applied, so that every
//! replica decides alike. See docs/format.md for the bytes.

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::filter::Filter;
use crate::types::{CollectionNo, Durability, PointId, Token};

/// One change, as the log keeps it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Op {
    /// Makes a collection; `schema` is its JSON.
    CreateCollection {
        /// Number it gets.
        no: CollectionNo,
        /// Name it gets.
        name: String,
        /// The schema as JSON: it is the one part of a record that people extend.
        schema: String,
    },
    /// Removes a collection and everything in it.
    DropCollection {
        /// Which.
        no: CollectionNo,
    },
    /// Inserts points or replaces them whole.
    Upsert {
        /// Into which collection.
        no: CollectionNo,
        /// The points.
        points: Vec<PointRecord>,
    },
    /// Deletes points by id.
    Delete {
        /// From which collection.
        no: CollectionNo,
        /// Which.
        ids: Vec<PointId>,
    },
    /// Deletes the points that match, as of this record.
    DeleteMatching {
        /// From which collection.
        no: CollectionNo,
        /// Which.
        filter: Filter,
    },
    /// Changes payloads; each changed point becomes a new row.
    SetPayload {
        /// In which collection.
        no: CollectionNo,
        /// Which points.
        ids: Vec<PointId>,
        /// JSON object: keys to set.
        set: String,
        /// Top-level keys to remove.
        unset: Vec<String>,
        /// Replace the whole payload instead of merging.
        replace: bool,
    },
    /// Replaces a document and all its chunks, or makes it.
    PutDocument {
        /// In which collection.
        no: CollectionNo,
        /// The document.
        document: DocumentRecord,
        /// Its chunks, in order.
        chunks: Vec<PointRecord>,
    },
    /// Deletes documents with their chunks.
    DeleteDocuments {
        /// From which collection.
        no: CollectionNo,
        /// Which.
        ids: Vec<PointId>,
    },
    /// Gives a collection another name, which may be that of one that ends with this.
    RenameCollection {
        /// Which.
        no: CollectionNo,
        /// Its new name.
        name: String,
        /// If another collection has the name, remove that one; else the record changes nothing.
        replace: bool,
    },
}

/// A point in the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PointRecord {
    /// Its id.
    pub id: PointId,
    /// Its dense vectors.
    pub vectors: Vec<VectorRecord>,
    /// JSON object.
    pub payload: String,
    /// The document it is a chunk of.
    pub document: Option<PointId>,
    /// 0 = never.
    pub expires_at_ms: u64,
    /// Principal sets that may see it; empty = everybody. Written now, enforced by a later version.
    pub acl: Vec<u32>,
    /// Its sparse vectors.
    pub sparse: Vec<SparseRecord>,
}

/// A vector in the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VectorRecord {
    /// Place of the vector's name in the schema's order.
    pub index: u8,
    /// Little-endian f32, or bits where the metric compares those.
    #[serde(with = "serde_bytes")]
    pub data: Vec<u8>,
}

/// A sparse vector in the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SparseRecord {
    /// Place of the vector's name in the schema's order of sparse vectors.
    pub index: u8,
    /// Its bytes, as segments keep them (`sparse/row.rs`).
    #[serde(with = "serde_bytes")]
    pub data: Vec<u8>,
}

/// A document in the log and in the `docs` column family.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DocumentRecord {
    /// Its id.
    pub id: PointId,
    /// Shown with citations.
    pub title: String,
    /// Where it came from (path or URL).
    pub source: String,
    /// JSON object.
    pub metadata: String,
    /// xxh3-128 of text, title, metadata and chunking: equal means nothing to do.
    pub checksum: [u8; 16],
    /// Id of each chunk and xxh3-128 of the text that was embedded for it, in order: an equal one needs no new embedding.
    pub chunks: Vec<(PointId, [u8; 16])>,
    /// Bytes of the text.
    pub text_bytes: u64,
}

/// What applying one record did.
#[derive(Debug, Clone, PartialEq)]
pub struct Applied {
    /// Token of the record.
    pub token: Token,
    /// Points inserted, replaced or deleted.
    pub changed: u64,
    /// How safe it is at the moment of the answer.
    pub durability: Durability,
    /// The request had been done before: nothing was done now, and this is what was answered then.
    pub replayed: bool,
    /// What the caller left with the request ([`crate::log::Request::note`]), if it was replayed.
    pub note: Vec<u8>,
    /// A record that was durable but found its collection gone, or its name taken, changes nothing and says so.
    pub refused: Option<Error>,
}
