//! Errors as gRPC statuses: the status says what to do, `cairn-code` what happened, `cairn-pointer` where.
//!
//! Failures that tonic finds before a handler runs (undecodable or oversized messages, unknown methods) get the same
//! metadata in [`complete`], so that every error of this server carries a code.

use cairn_engine::{Error, ErrorKind};
use http::{HeaderMap, HeaderValue, Response};
use tonic::metadata::{Ascii, MetadataMap, MetadataValue};
use tonic::{Code, Status};

use crate::rest::retry_after_ms;
use crate::service::{already_exists, sendable};
use crate::telemetry;

const CODE: &str = "cairn-code";
const POINTER: &str = "cairn-pointer";
const RETRY: &str = "cairn-retry-after-ms";

/// An engine error as a status. Details of our own failures stay in the log.
pub(super) fn status(error: &Error) -> Status {
    let code = match error.kind {
        ErrorKind::Invalid => Code::InvalidArgument,
        ErrorKind::NotFound => Code::NotFound,
        ErrorKind::Conflict if already_exists(error) => Code::AlreadyExists,
        ErrorKind::Conflict => Code::FailedPrecondition,
        ErrorKind::Exhausted => Code::ResourceExhausted,
        ErrorKind::Deadline => Code::DeadlineExceeded,
        ErrorKind::Cancelled => Code::Cancelled,
        ErrorKind::Unavailable => Code::Unavailable,
        // Not UNAVAILABLE, which clients repeat by themselves.
        ErrorKind::Upstream => Code::Internal,
        ErrorKind::Damaged => Code::DataLoss,
        ErrorKind::Internal => Code::Internal,
    };
    let message = match error.kind {
        ErrorKind::Internal => "internal error, the server's log says more".to_owned(),
        _ => sendable(error.message.clone()),
    };
    let mut metadata = MetadataMap::new();
    metadata.insert(CODE, MetadataValue::from_static(error.code));
    if let Some(pointer) = error.pointer.as_deref().and_then(ascii) {
        metadata.insert(POINTER, pointer);
    }
    if let Some(ms) = retry_after_ms(error.kind, error.retry_after) {
        metadata.insert(RETRY, MetadataValue::from(ms));
    }
    Status::with_metadata(code, message, metadata)
}

/// A request that is refused before the service sees it.
pub(super) fn refused(status: Code, code: &'static str, message: String) -> Status {
    telemetry::rejected(code);
    let mut metadata = MetadataMap::new();
    metadata.insert(CODE, MetadataValue::from_static(code));
    Status::with_metadata(status, sendable(message), metadata)
}

/// Pointers hold names that callers chose: what a header cannot carry is percent-encoded.
fn ascii(pointer: &str) -> Option<MetadataValue<Ascii>> {
    const POINTER_BYTES_MAX: usize = 1_024;
    let mut text = String::with_capacity(pointer.len());
    for byte in pointer.bytes().take(POINTER_BYTES_MAX) {
        match byte {
            0x21..=0x7e if byte != b'%' => text.push(char::from(byte)),
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    MetadataValue::try_from(text).ok()
}

/// Gives tonic's own errors our code, and calls undecodable messages what they are: the caller's fault.
pub(super) fn complete<B>(mut response: Response<B>) -> Response<B> {
    let headers = response.headers_mut();
    if headers.contains_key(CODE) {
        return response;
    }
    let Some(status) = headers
        .get("grpc-status")
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.parse().ok())
        .map(Code::from_i32)
    else {
        return response;
    };
    let (status, code) = match status {
        Code::Ok => return response,
        Code::Internal if says(headers, "decode") || says(headers, "protocol") || says(headers, "decompress") => {
            (Code::InvalidArgument, "bad_message")
        }
        Code::OutOfRange => (Code::OutOfRange, "body_too_large"),
        // What is too large only after decompression has another status in tonic.
        Code::ResourceExhausted if says(headers, "decompress") => (Code::OutOfRange, "body_too_large"),
        Code::Unimplemented if says(headers, "ompress") => (Code::Unimplemented, "unsupported_encoding"),
        Code::Unimplemented => (Code::Unimplemented, "unknown_method"),
        Code::InvalidArgument => (status, "bad_message"),
        other => (other, "transport"),
    };
    telemetry::rejected(code);
    headers.insert("grpc-status", HeaderValue::from(status as i32));
    headers.insert(CODE, HeaderValue::from_static(code));
    response
}

fn says(headers: &HeaderMap, word: &str) -> bool {
    headers
        .get("grpc-message")
        .and_then(|v| v.to_str().ok())
        .is_some_and(|message| message.contains(word))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_kind_has_its_status_and_carries_code_and_pointer() {
        let cases = [
            (ErrorKind::Invalid, Code::InvalidArgument),
            (ErrorKind::NotFound, Code::NotFound),
            (ErrorKind::Conflict, Code::FailedPrecondition),
            (ErrorKind::Exhausted, Code::ResourceExhausted),
            (ErrorKind::Deadline, Code::DeadlineExceeded),
            (ErrorKind::Cancelled, Code::Cancelled),
            (ErrorKind::Unavailable, Code::Unavailable),
            (ErrorKind::Upstream, Code::Internal),
            (ErrorKind::Damaged, Code::DataLoss),
            (ErrorKind::Internal, Code::Internal),
        ];
        for (kind, code) in cases {
            let status = status(&Error::new(kind, "some_code", "secret").at("/points/3/vectors/größe"));
            assert_eq!(status.code(), code);
            assert_eq!(status.metadata().get(CODE).unwrap(), "some_code");
            assert_eq!(
                status.metadata().get(POINTER).unwrap(),
                "/points/3/vectors/gr%C3%B6%C3%9Fe"
            );
            assert_eq!(status.metadata().contains_key(RETRY), kind == ErrorKind::Exhausted);
            assert_eq!(status.message().contains("secret"), kind != ErrorKind::Internal);
        }
        let busy = Error::new(ErrorKind::Unavailable, "some_code", "m").retry_after(Some(Duration::from_secs(2)));
        assert_eq!(status(&busy).metadata().get(RETRY).unwrap(), "2000");
        let exists = Error::new(ErrorKind::Conflict, "collection_exists", "m");
        assert_eq!(status(&exists).code(), Code::AlreadyExists);
    }

    #[test]
    fn a_message_that_repeats_the_request_fits_into_a_header() {
        let long = "größe ".repeat(100_000);
        let status = status(&Error::invalid("some_code", long.clone()).at(format!("/{long}")));
        let mut headers = HeaderMap::new();
        status.add_header(&mut headers).unwrap();
        let bytes: usize = headers
            .iter()
            .map(|(name, value)| name.as_str().len() + value.len())
            .sum();
        assert!(bytes < 12 << 10, "{bytes} bytes");
        assert!(status.message().starts_with("größe ") && status.message().ends_with("(cut)"));
    }

    #[test]
    fn an_undecodable_message_is_the_callers_fault() {
        let answer = |status: &'static str, message: &'static str| {
            let response = Response::builder()
                .header("grpc-status", status)
                .header("grpc-message", message)
                .body(())
                .unwrap();
            let headers = complete(response).into_parts().0.headers;
            let text = |name: &str| headers.get(name).map(|v| v.to_str().unwrap().to_owned());
            (text("grpc-status").unwrap(), text(CODE))
        };
        let is = |status: &str, code: &str| (status.to_owned(), Some(code.to_owned()));
        assert_eq!(answer("13", "failed%20to%20decode%20Protobuf"), is("3", "bad_message"));
        assert_eq!(answer("11", "too large"), is("11", "body_too_large"));
        assert_eq!(answer("12", ""), is("12", "unknown_method"));
        assert_eq!(answer("0", ""), ("0".to_owned(), None));
    }
}
