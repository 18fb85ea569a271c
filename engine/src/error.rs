//! What went wrong, told by what the caller should do about it.
//!
//! Leaves keep small precise errors of their own; at the engine's face everything becomes an [`Error`]
//! with a [`ErrorKind`] (what to do), a stable `code` (what happened), a message (what is wrong and what
//! is allowed) and, where known, the `pointer` (JSON pointer or field path) of the offending input.

use std::fmt;
use std::time::Duration;

/// What the caller should do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The request is wrong: fix it, a retry will fail again.
    Invalid,
    /// The named thing does not exist.
    NotFound,
    /// The thing exists already, or its state forbids the request.
    Conflict,
    /// A bound was reached: wait and retry the same request.
    Exhausted,
    /// The deadline passed before the work was done; a write may or may not have happened.
    Deadline,
    /// The caller gave up before the work was done.
    Cancelled,
    /// The node is starting, draining or poisoned: retry, perhaps elsewhere.
    Unavailable,
    /// A service that is needed (one that runs a model) answers wrongly: look at it, a retry is likely to fail again.
    Upstream,
    /// Stored data failed a check: nothing was answered from it.
    Damaged,
    /// A bug or an I/O failure in Cairn.
    Internal,
}

/// The engine's error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// What the caller should do.
    pub kind: ErrorKind,
    /// Stable snake_case identifier, part of the API (see docs/errors.md).
    pub code: &'static str,
    /// What is wrong, where, and what is allowed. Lowercase, values last.
    pub message: String,
    /// JSON pointer (REST) or field path (gRPC) of the offending input, when there is one.
    pub pointer: Option<String>,
    /// How long to wait before a retry, if it is known.
    pub retry_after: Option<Duration>,
}

/// The engine's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of any kind.
    pub fn new(kind: ErrorKind, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            kind,
            code,
            message: message.into(),
            pointer: None,
            retry_after: None,
        }
    }
    /// The request is wrong.
    pub fn invalid(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, code, message)
    }
    /// The named thing does not exist.
    pub fn not_found(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, code, message)
    }
    /// Stored bytes failed a check.
    pub fn damaged(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Damaged, "data_damaged", message)
    }
    /// The disk is full, or nearly: what is stored stays readable.
    pub fn disk_full(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Exhausted, "disk_full", message)
    }
    /// A bug or an I/O failure.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, "internal", message)
    }
    /// Says how long to wait before a retry.
    #[must_use]
    pub fn retry_after(mut self, wait: Option<Duration>) -> Self {
        self.retry_after = wait;
        self
    }
    /// Says where in the request the fault lies. Outer layers prefix what inner layers said.
    #[must_use]
    pub fn at(mut self, pointer: impl AsRef<str>) -> Self {
        let outer = pointer.as_ref();
        self.pointer = Some(match self.pointer.take() {
            Some(inner) => format!("{outer}{inner}"),
            None => outer.to_owned(),
        });
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.pointer {
            Some(p) => write!(f, "{} (at {p})", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl std::error::Error for Error {}

impl From<rocksdb::Error> for Error {
    fn from(e: rocksdb::Error) -> Self {
        match e.kind() {
            rocksdb::ErrorKind::Corruption => Self::damaged(format!("rocksdb: {e}")),
            // The binding has no kind for it: RocksDB's status text is the system's.
            rocksdb::ErrorKind::IOError
                if ["No space left on device", "Disk quota exceeded"]
                    .iter()
                    .any(|full| e.as_ref().contains(full)) =>
            {
                Self::disk_full(format!("rocksdb: {e}"))
            }
            _ => Self::internal(format!("rocksdb: {e}")),
        }
    }
}

impl From<std::io::Error> for Error {
    fn from(e: std::io::Error) -> Self {
        match e.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Self::disk_full(format!("i/o: {e}")),
            _ => Self::internal(format!("i/o: {e}")),
        }
    }
}
