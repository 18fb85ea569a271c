//! Every bound of the engine, with its reason. A limit that is not here does not exist.

/// Bytes of a point or document id: long enough for a URL, short enough to be a RocksDB key and to be compared freely.
pub const ID_BYTES_MAX: usize = 512;
/// Bytes of a collection, vector or field name.
pub const NAME_BYTES_MAX: usize = 128;
/// Dimensions of a dense vector: covers every published text and image embedder; the peers' bound too.
pub const DIM_MAX: usize = 65_535;
/// Euclidean length of a dense vector: the inner product of two, and the square of their distance, are numbers of an f32 then.
pub const VECTOR_LENGTH_MAX: f64 = 1e18;
/// A weight of a text field or of a leg: the sums they scale stay numbers of an f32.
pub const WEIGHT_MAX: f32 = 1e6;
/// Named dense vectors of a collection.
pub const VECTORS_MAX: usize = 16;
/// Named sparse vectors of a collection.
pub const SPARSE_VECTORS_MAX: usize = 16;
/// Weights of a sparse vector: learned ones have a hundred or two, a bag of words of a long chunk a few hundred.
pub const SPARSE_WEIGHTS_MAX: usize = 4_096;
/// Declared payload fields of a collection.
pub const FIELDS_MAX: usize = 128;
/// Shards of a collection on one node.
pub const SHARDS_MAX: u32 = 64;
/// Collections on one node: ten thousand are tested, a hundred thousand still fit memory.
pub const COLLECTIONS_MAX: usize = 100_000;
/// Points in one write request: keeps one log record and one group commit bounded.
pub const BATCH_POINTS_MAX: usize = 10_000;
/// Encoded bytes of one log record (a whole document is one record).
pub const RECORD_BYTES_MAX: usize = 64 << 20;
/// Chunks of one document (replacing it is one record).
pub const DOCUMENT_CHUNKS_MAX: usize = 10_000;
/// Encoded bytes of one point's payload.
pub const PAYLOAD_BYTES_MAX: usize = 1 << 20;
/// Depth of payload JSON.
pub const PAYLOAD_DEPTH_MAX: usize = 32;
/// Indexed leaf values of one payload that are not in the schema (`dynamic`): bounds postings per point.
pub const DYNAMIC_VALUES_MAX: usize = 256;
/// Longest string that goes into a filter posting; longer undeclared strings are stored but not filterable.
pub const KEYWORD_BYTES_MAX: usize = 512;
/// Hits a query may ask for, offset included.
pub const TOP_K_MAX: usize = 10_000;
/// Lists of an `ivf` index: four times the root of 268 million rows, far more than a segment has.
pub const LISTS_MAX: u32 = 65_536;
/// Bytes of a Faiss factory string: those that people write have some tens.
pub const FACTORY_BYTES_MAX: usize = 200;
/// `ef` of a graph search.
pub const EF_MAX: usize = 10_000;
/// `target_recall` of a search, the least: who is content with less than half of the nearest has mistaken its meaning.
pub const TARGET_RECALL_MIN: f32 = 0.5;
/// `target_recall` when the caller gives none: on average one of ten hits is missed in every second question.
pub const TARGET_RECALL_DEFAULT: f32 = 0.95;
/// `target_recall`, the most: a sample cannot tell more from all, and an exact search finds all.
pub const TARGET_RECALL_MAX: f32 = 0.999;
/// Depth of a filter tree.
pub const FILTER_DEPTH_MAX: usize = 16;
/// Conditions in a filter, values of `any` and `has_id` included.
pub const FILTER_NODES_MAX: usize = 4_096;
/// Depth of a prefetch tree.
pub const QUERY_DEPTH_MAX: usize = 4;
/// Legs of a prefetch tree.
pub const QUERY_LEGS_MAX: usize = 16;
/// Queries in one batch call.
pub const QUERY_BATCH_MAX: usize = 1_000;
/// Bytes of a text query: a prompt may be long, but its terms are bounded below.
pub const QUERY_TEXT_BYTES_MAX: usize = 1 << 20;
/// Distinct terms of a text query that are scored; a longer query keeps its rarest.
pub const QUERY_TERMS_MAX: usize = 1_024;
/// Records that one group commit takes.
pub const GROUP_COMMIT_RECORDS_MAX: usize = 1_024;
/// Bytes that one group commit takes (one record may exceed it alone).
pub const GROUP_COMMIT_BYTES_MAX: usize = 16 << 20;
/// Rows of an in-memory segment: beyond this, growing rows are not merged in memory any more.
pub const MEMORY_SEGMENT_ROWS_MAX: usize = 4_096;
/// In-memory segments of the same tier that are merged into one of the next.
pub const MEMORY_MERGE_FANIN: usize = 8;
/// Bytes of a checksummed block of a sealed file.
pub const BLOCK_BYTES: usize = 64 << 10;
/// Rows that one record of a delete by filter may end: bounds its effects. A larger delete is several records.
pub const DELETE_MATCHING_ROWS_MAX: usize = 100_000;
/// Bytes of new rows that one payload change may make.
pub const SET_PAYLOAD_BYTES_MAX: usize = 64 << 20;
/// Bytes of log that one entry of its account stands for.
pub const LOG_STRETCH_BYTES: u64 = 1 << 20;
/// Milliseconds of log likewise: the log is kept for a time in steps of so much.
pub const LOG_STRETCH_MS: u64 = 60_000;
/// Milliseconds between two looks at what of the log may go.
pub const LOG_LOOK_MS: u64 = 1_000;
/// Epochs that a database remembers: one for each opening that wrote something, so years of restarts.
pub const EPOCHS_MAX: usize = 1_000;
/// Bytes of payloads and vectors in one answer: what a client takes, and what a server can hold many of.
pub const ANSWER_BYTES_MAX: usize = 64 << 20;
/// Bytes of a request id.
pub const REQUEST_ID_BYTES_MAX: usize = 64;
/// Bytes of what a request leaves to be told again when it is repeated.
pub const REQUEST_NOTE_BYTES_MAX: usize = 4 << 10;
/// How long a request id is remembered: a day, which outlives any client's retries.
pub const REQUEST_MEMORY_MS: u64 = 24 * 60 * 60 * 1_000;
/// Request ids that are remembered; the oldest are forgotten first. About 150 MB on disk. Part of what a record means: a
/// replay must forget what the first run forgot.
pub const REQUESTS_MAX: u64 = if cfg!(test) { 40 } else { 1_000_000 };
/// Bytes of records that may be written and not yet fsynced; the write that reaches it is fsynced with all before it.
pub const UNSYNCED_BYTES_MAX: u64 = 16 << 20;
/// Groups of records likewise, which bounds their account.
pub const UNSYNCED_GROUPS_MAX: usize = 65_536;
/// Pause before a build that panicked is tried again, the first time and at most.
pub const BUILD_RETRY_MS_MIN: u64 = 5_000;
/// The longest: a bug that passes is not waited for longer than this.
pub const BUILD_RETRY_MS_MAX: u64 = 5 * 60 * 1_000;
/// Characters that are kept of what such a panic said.
pub const BUILD_FAILURE_CHARS_MAX: usize = 500;
/// Pieces of cut-off log that are kept for whoever looks into it.
pub const DROPPED_LOGS_MAX: usize = 16;
/// Damaged files that are kept after a copy took their place, for whoever looks into the disk.
pub const REPLACED_FILES_MAX: usize = 16;
/// The most that is kept free on a disk unless the settings say otherwise.
pub const DISK_RESERVE_BYTES: u64 = 1 << 30;
