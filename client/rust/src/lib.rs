//! The Rust client of a Cairn server; its README is the front page and its example is run by the tests.
//!
#![doc = include_str!("../README.md")]
//!
//! # Map
//! [`Client`] connects and manages collections; [`Client::collection`] gives a [`Collection`], whose methods are the
//! rest of the API. Requests are built ([`Query`], [`Enrich`], [`Document`], [`Point`], [`Filter`], [`Schema`]) and answers are plain
//! structs. Nothing of the wire is public: `wire` is the one file that names generated types' fields both ways.
#![warn(missing_docs)]

mod client;
mod collection;
mod documents;
mod error;
mod filter;
mod operation;
mod points;
mod query;
mod ranking;
mod retry;
mod schema;
mod snapshot;
mod wire;

pub use client::{Builder, Client};
pub use collection::{Collection, StreamSummary};
pub use documents::{
    ChatMessage, ContextItem, Document, DocumentPage, Dropped, Enrich, EnrichFormat, Enriched, Format, Mode,
    OnNearDuplicate, Provenance, PutResult, PutSummary, StoredDocument, TokenUse, Trust, Turn,
};
pub use error::{Error, ErrorKind, Result};
pub use filter::{Condition, Filter, Range};
pub use operation::{Operation, OperationState};
pub use points::{
    DamagedSegment, Durability, EmbedInput, Partial, Payload, Point, Scroll, ScrollPage, Selection, SparseVector,
    SparseVectors, StoredPoint, Vectors, Written,
};
pub use query::{Answer, Explain, Fuse, Hit, Leg, LegScore, Query};
pub use ranking::{Decay, Mmr, Ranking, Rerank, Stage};
pub use retry::Retry;
pub use schema::{
    Analyzer, ChunkStrategy, Chunking, CollectionInfo, Embedder, Field, Index, Metric, Quantization, RecallEstimate,
    Schema, SparseSpec, VectorSpec,
};
pub use snapshot::{Restorable, Restore, Snapshot, SnapshotCollection};
