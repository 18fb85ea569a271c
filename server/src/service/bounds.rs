//! Every bound and default of the service that is not a setting, with its reason. Those of the data model are
//! `cairn_engine::limits`.

use cairn_engine::limits;

/// Reads that may run at the same time at most. Each takes one of the 512 threads that tokio has for work that blocks:
/// reads, writes, operations and decoding must all find one, or one kind would starve the others.
pub const READS_MAX: usize = 256;
/// Writes that may run at the same time at most.
pub const WRITES_MAX: usize = 128;
/// Requests that look into the store of snapshots at the same time: they mostly wait for it, and each reads manifests.
pub(super) const STORE_LOOKS_MAX: usize = 8;
/// Those that wait for one of these places.
pub(super) const STORE_LOOKS_QUEUED_MAX: usize = 64;
/// Hits of a query whose request names no limit.
pub const DEFAULT_LIMIT: usize = 10;
/// Hits that the queries of one batch may ask for together, offsets left out: ten times what one query may.
pub const BATCH_HITS_MAX: usize = 100_000;
const _: () = assert!(
    limits::TOP_K_MAX <= BATCH_HITS_MAX,
    "what one query may ask, a batch of one may too"
);
/// Things in a page whose request names no limit.
pub const DEFAULT_PAGE: usize = 100;
/// Documents in one request: each is a record of its own, so this only bounds the answer and the time.
pub const BATCH_DOCUMENTS_MAX: usize = 1_000;
/// Bytes of text that the files of one request may hold together: a few kilobytes of PDF can hold megabytes, and all
/// documents are read before the first is written.
pub const REQUEST_TEXT_BYTES_MAX: usize = 128 << 20;
/// Stored documents that share a band of a signature and are looked at. Pages of one template are many; the best of the
/// first so many is taken.
pub(super) const NEAR_CANDIDATES_MAX: usize = 256;
/// Of them, those whose text is fetched and compared.
pub(super) const NEAR_CHECKS_MAX: usize = 8;
/// Bytes of a document's id: its chunks' ids append `#` and a number, and must stay ids.
pub const DOCUMENT_ID_BYTES_MAX: usize = 480;
const _: () = assert!(DOCUMENT_ID_BYTES_MAX + 1 + 20 <= limits::ID_BYTES_MAX);
/// Tokens of context when a request names no budget.
pub const DEFAULT_TOKEN_BUDGET: usize = 2_000;
/// The largest budget: the context windows of today's largest models.
pub const TOKEN_BUDGET_MAX: usize = 1_000_000;
/// Candidates retrieved for a prompt when a request names no limit.
pub const DEFAULT_CANDIDATES: usize = 50;
/// The most candidates: each one's text is fetched and counted.
pub const CANDIDATES_MAX: usize = 1_000;
/// Texts given to an embedder at once: enough that it can sort them by length into batches of its own, few enough that
/// their vectors take megabytes.
pub(super) const EMBED_BATCH: usize = 256;
/// Bytes of a reference to an image or a sound: a `data:` URI of a large photograph.
pub(super) const REFERENCE_BYTES_MAX: usize = 8 << 20;
/// Hits that a ranking takes from the search at first; twice what is wanted if that is more.
pub const POOL_MIN: usize = 100;
/// Hits that a ranking takes at most: as many as a query may ask for.
pub const POOL_MAX: usize = limits::TOP_K_MAX;
/// How much larger the pool becomes when too few hits remain.
pub(super) const POOL_GROWTH: usize = 4;
/// Caps of one ranking: each is looked up in every hit.
pub const CAPS_MAX: usize = 8;
/// Hits that are reranked at most: a reranker takes milliseconds a text.
pub const RERANK_MAX: usize = 1_000;
/// Hits that are reranked when a request does not say how many.
pub const DEFAULT_RERANK_TOP: usize = 50;
/// Milliseconds for reranking when a request does not say.
pub const DEFAULT_RERANK_BUDGET_MS: u64 = 1_000;
/// The longest time for reranking that may be asked for.
pub const RERANK_BUDGET_MS_MAX: usize = 60_000;
/// Hits that MMR chooses from at most: it compares all with all.
pub const MMR_MAX: usize = 1_000;
/// Hits that MMR chooses from when a request does not say.
pub const DEFAULT_MMR_CANDIDATES: usize = 100;
/// Hits that are compared as near duplicates at most: each with all that are kept before it.
pub const NEAR_DUPLICATES_MAX: usize = 1_000;
/// Collections that one prompt is enriched from: each is searched, leg by leg.
pub const ENRICH_COLLECTIONS_MAX: usize = 8;
/// Turns of a conversation. The rule looks at the last few; a caller need not count.
pub const CONVERSATION_TURNS_MAX: usize = 100;
/// Bytes of all turns together: as many as a prompt may have.
pub const CONVERSATION_BYTES_MAX: usize = limits::QUERY_TEXT_BYTES_MAX;
/// Payloads and vectors of an answer that are written where the request is handled: about a millisecond of work.
pub(crate) const WRITE_INLINE_BYTES: usize = 256 << 10;
/// Bytes of an error's message, which repeats parts of the request: gRPC sends it in a header, percent-encoded, and clients
/// refuse headers of more than 8 or 16 KiB together.
pub(crate) const MESSAGE_BYTES_MAX: usize = 2_048;
/// Chunks on each side of a chunk that may come with it: ten of 256 tokens fill any ordinary budget.
pub const NEIGHBOURS_MAX: u32 = 10;
