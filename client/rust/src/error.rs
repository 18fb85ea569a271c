//! What can go wrong, told by what the caller should do about it.
//!
//! A server's refusal comes as a gRPC status with the metadata `cairn-code`, `cairn-pointer` and
//! `cairn-retry-after-ms`; a failure of the network comes as a status too, without them. Both become one [`Error`].

use std::error::Error as _;
use std::fmt;
use std::time::Duration;

use tonic::{Code, Status, TimeoutExpired};

/// The client's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the caller should do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The request is wrong: fix it, a retry will fail again.
    Invalid,
    /// The named thing does not exist.
    NotFound,
    /// The thing exists already, or its state forbids the request.
    Conflict,
    /// The caller is unknown or may not do this.
    Denied,
    /// A bound of the server was reached, and the retries did not outlast it.
    Exhausted,
    /// Time ran out. A write may or may not have happened; repeating it is safe.
    Deadline,
    /// The server is starting, draining or refusing work, and the retries did not outlast it.
    Unavailable,
    /// Nothing that speaks Cairn's protocol answers there. A write may or may not have happened; repeating it is safe.
    Unreachable,
    /// The server found its stored data damaged, or has a bug.
    Server,
}

/// Why a call failed.
#[derive(Debug, Clone)]
pub struct Error {
    kind: ErrorKind,
    code: String,
    message: String,
    pointer: Option<String>,
    retry_after: Option<Duration>,
}

impl Error {
    /// What the caller should do.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
    /// Stable snake_case identifier (`unknown_collection`, `bad_dim`, ...), the same as in REST's problems. The client's own are
    /// `unreachable`, `deadline`, `bad_endpoint` and `bad_answer`.
    pub fn code(&self) -> &str {
        &self.code
    }
    /// What is wrong and what is allowed.
    pub fn message(&self) -> &str {
        &self.message
    }
    /// JSON pointer to the offending part of the request, when there is one.
    pub fn pointer(&self) -> Option<&str> {
        self.pointer.as_deref()
    }
    /// How long the server asked to wait before trying again.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }
    /// True if the same request may succeed later without a change.
    pub fn is_retryable(&self) -> bool {
        matches!(
            self.kind,
            ErrorKind::Exhausted | ErrorKind::Unavailable | ErrorKind::Unreachable
        )
    }

    pub(crate) fn new(kind: ErrorKind, code: &str, message: impl Into<String>) -> Self {
        Self {
            kind,
            code: code.to_owned(),
            message: message.into(),
            pointer: None,
            retry_after: None,
        }
    }

    /// Of a request whose list continues one of which `before` were sent already: its pointer counts them too.
    pub(crate) fn after(mut self, list: &str, before: usize) -> Self {
        let counted = self.pointer.as_deref().and_then(|pointer| {
            let inside = pointer.strip_prefix(list)?;
            let digits = inside.split('/').next().unwrap_or(inside);
            let at: usize = digits.parse().ok()?;
            Some(format!("{list}{}{}", at + before, &inside[digits.len()..]))
        });
        self.pointer = counted.or(self.pointer);
        self
    }

    pub(crate) fn bad_answer(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Server, "bad_answer", message)
    }

    pub(crate) fn deadline(timeout: Duration, last: Option<Self>) -> Self {
        let waited = format!("no answer within {timeout:?}");
        let message = match last {
            Some(e) => format!("{waited}; the last attempt failed: {e}"),
            None => waited,
        };
        Self::new(ErrorKind::Deadline, "deadline", message)
    }

    /// A status, from the server or made up by the transport below us.
    pub(crate) fn from_status(status: &Status) -> Self {
        let text = |key: &str| {
            status
                .metadata()
                .get(key)
                .and_then(|v| v.to_str().ok())
                .map(str::to_owned)
        };
        let code = text("cairn-code");
        if code.is_none() && causes(status).any(<dyn std::error::Error>::is::<TimeoutExpired>) {
            return Self::new(
                ErrorKind::Deadline,
                "deadline",
                "no answer within the time that was left",
            );
        }
        if code.is_none() && is_transport(status) {
            return Self::new(ErrorKind::Unreachable, "unreachable", reason(status));
        }
        let kind = match status.code() {
            Code::InvalidArgument | Code::OutOfRange | Code::Unimplemented => ErrorKind::Invalid,
            Code::NotFound => ErrorKind::NotFound,
            Code::AlreadyExists | Code::FailedPrecondition | Code::Aborted => ErrorKind::Conflict,
            Code::Unauthenticated | Code::PermissionDenied => ErrorKind::Denied,
            Code::ResourceExhausted => ErrorKind::Exhausted,
            Code::DeadlineExceeded | Code::Cancelled => ErrorKind::Deadline,
            Code::Unavailable => ErrorKind::Unavailable,
            Code::Ok | Code::Unknown | Code::Internal | Code::DataLoss => ErrorKind::Server,
        };
        Self {
            kind,
            code: code.unwrap_or_else(|| grpc_name(status.code()).to_owned()),
            message: status.message().to_owned(),
            pointer: text("cairn-pointer").map(|p| percent_decoded(&p)),
            retry_after: text("cairn-retry-after-ms")
                .and_then(|t| t.parse().ok())
                .map(Duration::from_millis),
        }
    }
}

/// Statuses that a server sends have no `source`; those that tonic makes of a broken connection have.
fn is_transport(status: &Status) -> bool {
    status.source().is_some()
        && matches!(
            status.code(),
            Code::Unavailable | Code::Unknown | Code::Internal | Code::Cancelled
        )
}

/// The first cause says only that something happened ("transport error"), the last one what ("connection refused").
fn reason(status: &Status) -> String {
    let mut text = status.message().to_owned();
    for cause in causes(status).map(ToString::to_string) {
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

fn causes(status: &Status) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    std::iter::successors(status.source(), |e: &&(dyn std::error::Error + 'static)| (*e).source())
}

/// Headers are ASCII, pointers hold names in any script: the server escapes them as a URL would.
fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let escaped = tail
            .get(..2)
            .filter(|_| first == b'%')
            .and_then(|hex| std::str::from_utf8(hex).ok());
        match escaped.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn grpc_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "ok",
        Code::Cancelled => "cancelled",
        Code::Unknown => "unknown",
        Code::InvalidArgument => "invalid_argument",
        Code::DeadlineExceeded => "deadline",
        Code::NotFound => "not_found",
        Code::AlreadyExists => "already_exists",
        Code::PermissionDenied => "permission_denied",
        Code::ResourceExhausted => "resource_exhausted",
        Code::FailedPrecondition => "failed_precondition",
        Code::Aborted => "aborted",
        Code::OutOfRange => "out_of_range",
        Code::Unimplemented => "unimplemented",
        Code::Internal => "internal",
        Code::Unavailable => "unavailable",
        Code::DataLoss => "data_loss",
        Code::Unauthenticated => "unauthenticated",
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)?;
        match &self.pointer {
            Some(p) => write!(f, " (at {p})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::{Error, percent_decoded};

    #[test]
    fn a_pointer_into_a_later_request_counts_what_was_sent_before() {
        let cases = [
            ("/documents/3", "/documents/1003"),
            ("/documents/3/text", "/documents/1003/text"),
            ("/documents", "/documents"),
            ("/documents/x", "/documents/x"),
            ("/collection", "/collection"),
        ];
        for (sent, read) in cases {
            let error = Error {
                pointer: Some(sent.to_owned()),
                ..Error::bad_answer("")
            };
            assert_eq!(error.after("/documents/", 1_000).pointer(), Some(read));
        }
        assert_eq!(Error::bad_answer("").after("/documents/", 1).pointer(), None);
    }

    #[test]
    fn pointers_may_hold_any_name_and_any_nonsense() {
        for (sent, read) in [
            ("/a/0", "/a/0"),
            ("/gr%C3%B6%C3%9Fe", "/größe"),
            ("/%", "/%"),
            ("/%2", "/%2"),
            ("/%zz", "/%zz"),
        ] {
            assert_eq!(percent_decoded(sent), read);
        }
    }
}
