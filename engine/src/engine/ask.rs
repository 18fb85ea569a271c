//! What callers of the engine hand in and get back: plain data.

use super::failing::BuildFailure;
use super::health::ScrubStats;
use crate::filter::Filter;
use crate::log::{Fsyncs, Request, Unsynced};
use crate::patience::Patience;
use crate::schema::Schema;
use crate::segment::Missing;
use crate::storage::space::Free;
use crate::types::{Durability, Payload, Point, PointId, PointInput, SparseVectors, Token, Vectors};
use crate::vector::Coding;
use crate::vector::kernels::Bits;

use crate::query::{Estimate, With};

/// Settings of one write.
#[derive(Debug, Clone, Default)]
pub struct WriteOptions {
    /// Names the request, so that it is done once however often it is repeated within a day.
    pub request: Option<Request>,
    /// When to answer; otherwise as the collection says, or the engine's settings.
    pub durability: Option<Durability>,
    /// How long the caller waits. A write that is under way when that ends may still happen.
    pub patience: Patience,
}

/// Which points a delete means.
#[derive(Debug, Clone, PartialEq)]
pub enum Selector {
    /// By id; missing ids are ignored.
    Ids(Vec<PointId>),
    /// Everything that matches when the record is applied. An empty filter is refused.
    Matching(Filter),
}

/// A change of payloads. Each changed point becomes a new version with the same vectors.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PayloadChange {
    /// Keys to set (top level).
    pub set: Payload,
    /// Top-level keys to remove.
    pub unset: Vec<String>,
    /// Replace the whole payload by `set`.
    pub replace: bool,
}

/// A document with its chunks, ready to be stored as one record.
#[derive(Debug, Clone, PartialEq)]
pub struct DocumentInput {
    /// Its id.
    pub id: PointId,
    /// Shown with citations.
    pub title: String,
    /// Where it came from.
    pub source: String,
    /// What the caller wants to keep with it.
    pub metadata: Payload,
    /// Equal to the stored one means that nothing changed.
    pub checksum: [u8; 16],
    /// Bytes of the text.
    pub text_bytes: u64,
    /// In order; every point's `document` is set by the engine.
    pub chunks: Vec<ChunkInput>,
}

/// One chunk of a document.
#[derive(Debug, Clone, PartialEq)]
pub struct ChunkInput {
    /// Checksum of the text that was embedded.
    pub checksum: [u8; 16],
    /// The point.
    pub point: PointInput,
}

/// The vectors of a stored chunk.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ChunkVectors {
    /// Dense ones by name.
    pub dense: Vectors,
    /// Sparse ones by name.
    pub sparse: SparseVectors,
}

/// A stored document.
#[derive(Debug, Clone, PartialEq)]
pub struct DocumentInfo {
    /// Its id.
    pub id: PointId,
    /// Shown with citations.
    pub title: String,
    /// Where it came from.
    pub source: String,
    /// As given.
    pub metadata: Payload,
    /// As given.
    pub checksum: [u8; 16],
    /// Bytes of the text.
    pub text_bytes: u64,
    /// Number of chunks that it was stored with.
    pub chunks: u64,
    /// They are all there as they were stored: none was deleted or changed as a point since.
    pub whole: bool,
    /// Token of the write that made this version.
    pub version: Token,
}

/// One page of points in the order they were inserted.
#[derive(Debug, Clone, Default)]
pub struct Scroll {
    /// Which points.
    pub filter: Filter,
    /// Points in a page.
    pub limit: usize,
    /// Where the page before ended.
    pub cursor: Option<String>,
    /// What points carry.
    pub with: With,
    /// Answer only from a view that has seen this write.
    pub after: Option<Token>,
    /// How long the caller waits.
    pub patience: Patience,
    /// Whether a page may lack what a damaged segment holds ([`Page::missing`]); otherwise it is an error.
    pub allow_partial: bool,
}

/// A page of points.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// The points.
    pub points: Vec<Point>,
    /// Give this back for the next page; none at the end.
    pub cursor: Option<String>,
    /// Of the payloads and vectors in it.
    pub bytes: usize,
    /// Segments that were not looked into because they are damaged; none are unless that was allowed.
    pub missing: Vec<Missing>,
}

/// A collection and its state.
#[derive(Debug, Clone, PartialEq)]
pub struct CollectionInfo {
    /// Its name.
    pub name: String,
    /// Its definition.
    pub schema: Schema,
    /// Live points.
    pub points: u64,
    /// Documents.
    pub documents: u64,
    /// Live points in sealed, indexed segments.
    pub indexed_points: u64,
    /// Sealed segments.
    pub segments: u64,
    /// Dead rows not yet merged away.
    pub dead_rows: u64,
    /// Bytes of sealed files.
    pub disk_bytes: u64,
    /// Bytes of growing segments.
    pub growing_bytes: u64,
    /// True if a seal or merge is due or running.
    pub optimizing: bool,
    /// Sealed segments that are damaged, as far as it is known. Their points are counted above.
    pub damaged: Vec<Missing>,
    /// Seals and merges that failed the last time and are tried again later.
    pub failing: Vec<BuildFailure>,
    /// How much its searches found, of those that were asked again since open.
    pub recall: Estimate,
}

/// Numbers of the whole engine, for metrics.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct EngineStats {
    /// Collections.
    pub collections: u64,
    /// Live points.
    pub points: u64,
    /// Sealed segments.
    pub segments: u64,
    /// Bytes of growing segments.
    pub growing_bytes: u64,
    /// Bytes of sealed files.
    pub segment_bytes: u64,
    /// Last applied sequence number.
    pub applied_seq: u64,
    /// First sequence number that the log still holds.
    pub log_start_seq: u64,
    /// Bytes of records in the log.
    pub log_bytes: u64,
    /// Records that are kept for restores to a point in time: no row needs them.
    pub retained_records: u64,
    /// Their bytes.
    pub retained_bytes: u64,
    /// When the oldest record in the log was written, in milliseconds since the Unix epoch; 0 = the log is empty.
    pub log_oldest_ms: u64,
    /// Bytes of such records that were forgotten before their time, because the disk was nearly full.
    pub retention_cut_bytes: u64,
    /// Log records replayed when this engine opened.
    pub replayed_records: u64,
    /// Seals finished since open.
    pub seals: u64,
    /// Merges finished since open.
    pub merges: u64,
    /// Seals and merges that failed the last time they were tried.
    pub builds_failing: u64,
    /// How often one failed, since open.
    pub build_failures: u64,
    /// Graphs of sealed segments, by what they are walked on.
    pub graphs: GraphCounts,
    /// Inverted lists of sealed segments, by the codes in them.
    pub inverted: GraphCounts,
    /// How much searches found, of those that were asked again.
    pub recall: Estimate,
    /// Fsyncs of the log since open.
    pub fsyncs: Fsyncs,
    /// Acknowledged records that are not fsynced yet.
    pub unsynced: Unsynced,
    /// Bytes that were cut off the end of the log when it was opened.
    pub dropped_log_bytes: u64,
    /// Requests that are remembered.
    pub requests: u64,
    /// Requests that were answered without being done again, since open.
    pub replayed_requests: u64,
    /// Room on the disk.
    pub disk: Free,
    /// Writes are refused because the disk is full.
    pub disk_full: bool,
    /// Blocks of sealed files.
    pub blocks: u64,
    /// Those that were verified since the process opened them.
    pub blocks_verified: u64,
    /// Bytes of graphs, and of what is walked with them, that are in memory of their own.
    pub graph_memory_bytes: u64,
    /// Sealed segments that are damaged.
    pub damaged_segments: u64,
    /// Live points in them.
    pub damaged_points: u64,
    /// Damaged files that were replaced by a copy of them, since open.
    pub taken_back: u64,
    /// What was read again.
    pub scrub: ScrubStats,
}

/// How far an `optimize` is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Optimizing {
    /// 0 to 1, of the whole.
    pub part: f32,
    /// Which shard, from 0.
    pub shard: u32,
    /// Of how many.
    pub shards: u32,
    /// What it does there.
    pub step: OptimizeStep,
}

/// What an `optimize` is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OptimizeStep {
    /// Makes one sealed segment of so many growing ones.
    Seal {
        /// So many.
        segments: usize,
    },
    /// Makes one sealed segment of some.
    Merge {
        /// So many.
        segments: usize,
        /// Of so many sealed ones of the shard.
        of: usize,
    },
    /// Waits for background work: a shard is sealed by one thread, and of all threads one merges.
    Wait,
    /// Forgets what the log need not hold any more.
    Trim,
}

/// How many graphs there are, or inverted lists.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GraphCounts {
    /// Walked on codes of 8 bits.
    pub int8: u64,
    /// Walked on codes of 4 bits.
    pub int4: u64,
    /// Walked on the vectors themselves.
    pub f32: u64,
    /// Those among them whose vectors the codes that were wanted could not tell apart, so that finer ones or none are used.
    pub refined: u64,
}

impl GraphCounts {
    /// Counts a graph over vectors of such codes; `None` is a vector of which no codes were wanted.
    pub(super) fn add(&mut self, coding: Option<&Coding>) {
        match coding.and_then(|coding| coding.used) {
            Some(Bits::Eight) => self.int8 += 1,
            Some(Bits::Four) => self.int4 += 1,
            None => self.f32 += 1,
        }
        self.refined += u64::from(coding.is_some_and(Coding::is_refused));
    }
}

/// What one step of background work did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Maintained {
    /// Something was sealed, merged or trimmed; call again.
    Worked,
    /// Nothing to do.
    Idle,
}
