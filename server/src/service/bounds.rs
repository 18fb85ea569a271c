//! Every bound and default of the service that is not a setting, with its reason. Those of the data model are
//! `cairn_engine::limits`.

use cairn_engine::limits;

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
