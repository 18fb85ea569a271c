//! What a caller means, before it is JSON over HTTP or a message over gRPC; and what came of it, after.

use serde_json::Value;
use tonic::Code;

/// A use case of the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// The body is the schema.
    CreateCollection,
    /// No body.
    GetCollection,
    /// No body.
    DeleteCollection,
    /// No body, no collection.
    ListCollections,
    /// `points`, `request_id`.
    Upsert,
    /// `ids`, `with`.
    GetPoints,
    /// `ids` or `filter`.
    DeletePoints,
    /// `filter`, `limit`, `cursor`, `with`, `after`.
    Scroll,
    /// `filter`.
    Count,
    /// `ids`, `set`, `unset`, `replace`.
    SetPayload,
    /// A query as REST writes it.
    Query,
    /// `queries`.
    QueryBatch,
    /// `documents`.
    PutDocuments,
    /// `id`, `with_chunks`.
    GetDocument,
    /// `ids`.
    DeleteDocuments,
    /// `after_id`, `limit`.
    ListDocuments,
    /// A prompt and its settings. Without a collection, `collections` names them.
    Enrich,
    /// No body.
    Optimize,
    /// `id`; over REST also `wait_ms`.
    GetOperation,
    /// `id`.
    CancelOperation,
    /// No body; only those of the collection.
    ListOperations,
    /// `snapshot`, if it is to have a name.
    CreateSnapshot,
    /// No body.
    ListSnapshots,
    /// `snapshot`.
    GetSnapshot,
    /// `snapshot`.
    VerifySnapshot,
    /// `snapshot`, and what of it: `collection`, `as`, `shards`, `replace`.
    RestoreSnapshot,
    /// `snapshot`.
    DeleteSnapshot,
}

/// One request, in the names that both protocols share. The strings `"NaN"` and `"inf"` in a vector are those numbers,
/// which only gRPC can send.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// What to do.
    pub method: Method,
    /// In which collection.
    pub collection: String,
    /// With what.
    pub body: Value,
    /// How long the caller waits.
    pub timeout_ms: Option<u64>,
}

impl Request {
    /// A request with the server's default deadline.
    pub fn new(method: Method, collection: &str, body: Value) -> Self {
        Self {
            method,
            collection: collection.to_owned(),
            body,
            timeout_ms: None,
        }
    }
}

/// What came of a request.
pub type Outcome = Result<Value, Failure>;

/// A refused request.
#[derive(Debug, Clone, PartialEq)]
pub struct Failure {
    /// HTTP status, or none.
    pub http: Option<u16>,
    /// gRPC status, or none.
    pub grpc: Option<Code>,
    /// The stable code.
    pub code: String,
    /// What is wrong and what is allowed.
    pub message: String,
    /// Where.
    pub pointer: Option<String>,
}

/// What a caller should do about a failure, as either protocol says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Fix the request.
    Invalid,
    /// The thing does not exist.
    NotFound,
    /// It exists already, and differs.
    Exists,
    /// The state forbids it.
    Conflict,
    /// Wait and retry.
    Exhausted,
    /// Too late.
    Deadline,
    /// The node cannot answer this now.
    Unavailable,
    /// A service that the node needs answers wrongly.
    Upstream,
    /// The body is too large.
    TooLarge,
    /// REST only: the body is not what is read here.
    UnsupportedMedia,
    /// The request is that of a web page.
    Forbidden,
    /// REST only: the path takes other methods.
    WrongMethod,
    /// No such path or rpc.
    Unknown,
}

impl Kind {
    /// The HTTP status and the gRPC status that say it.
    pub fn statuses(self) -> (u16, Code) {
        match self {
            Self::Invalid => (400, Code::InvalidArgument),
            Self::NotFound => (404, Code::NotFound),
            Self::Exists => (409, Code::AlreadyExists),
            Self::Conflict => (409, Code::FailedPrecondition),
            Self::Exhausted => (429, Code::ResourceExhausted),
            Self::Deadline => (504, Code::DeadlineExceeded),
            Self::Unavailable => (503, Code::Unavailable),
            Self::Upstream => (502, Code::Internal),
            Self::TooLarge => (413, Code::OutOfRange),
            Self::Forbidden => (403, Code::PermissionDenied),
            Self::UnsupportedMedia => (415, Code::Unimplemented),
            Self::WrongMethod => (405, Code::Unimplemented),
            Self::Unknown => (404, Code::Unimplemented),
        }
    }

    /// True if the failure says this.
    pub fn is(self, failure: &Failure) -> bool {
        let (http, grpc) = self.statuses();
        failure.http.is_none_or(|s| s == http) && failure.grpc.is_none_or(|s| s == grpc)
    }
}
