//! Errors as RFC 9457 problems: `application/problem+json` with a stable `code` and, where known, a `pointer`.

use std::time::Duration;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use cairn_engine::{Error, ErrorKind};
use serde::Serialize;
use utoipa::ToSchema;

use crate::service::sendable;
use crate::telemetry;

/// How long a caller should wait after `overloaded` and its like. One seal or a few hundred queries take about as long.
const RETRY_AFTER_MS: u64 = 1_000;

/// What every error looks like.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(crate) struct Problem {
    /// A URN made of the code.
    #[schema(example = "urn:cairn:error:vector_not_found")]
    #[schema(value_type = String)]
    r#type: Box<str>,
    /// What kind of failure it is, in a few words.
    title: &'static str,
    /// The HTTP status.
    status: u16,
    /// What is wrong and what is allowed.
    detail: String,
    /// Stable snake_case identifier.
    #[schema(example = "vector_not_found")]
    code: &'static str,
    /// JSON pointer of the offending part of the request, or the name of a parameter.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pointer: Option<Box<str>>,
    /// If waiting helps: how long, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
}

impl Problem {
    /// A request that this adapter refuses before the service sees it.
    pub(super) fn refused(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        telemetry::rejected(code);
        Self::new(status, "the request is wrong", code, detail.into())
    }

    pub(super) fn at(mut self, pointer: impl Into<Box<str>>) -> Self {
        self.pointer = Some(pointer.into());
        self
    }

    /// Pointers of the service start at a message; here the body is the schema itself.
    pub(super) fn without_prefix(mut self, prefix: &str) -> Self {
        self.pointer = self
            .pointer
            .map(|p| p.strip_prefix(prefix).map(Into::into).unwrap_or(p));
        self
    }

    fn new(status: StatusCode, title: &'static str, code: &'static str, detail: String) -> Self {
        Self {
            r#type: format!("urn:cairn:error:{code}").into(),
            title,
            status: status.as_u16(),
            detail: sendable(detail),
            code,
            pointer: None,
            retry_after_ms: None,
        }
    }
}

/// Details of our own failures stay in the log.
impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let (status, title) = match error.kind {
            ErrorKind::Invalid => (400, "the request is wrong"),
            ErrorKind::NotFound => (404, "there is no such thing"),
            ErrorKind::Conflict => (409, "the state forbids it"),
            ErrorKind::Exhausted => (429, "a bound was reached"),
            ErrorKind::Deadline => (504, "the deadline passed"),
            ErrorKind::Cancelled => (499, "the caller gave up"),
            ErrorKind::Unavailable => (503, "the server, or a service that it needs, is not ready"),
            ErrorKind::Upstream => (502, "a service that the server needs answers wrongly"),
            ErrorKind::Damaged => (500, "stored data is damaged"),
            ErrorKind::Internal => (500, "internal error"),
        };
        let status = StatusCode::from_u16(status).expect("the statuses above are valid");
        let detail = match error.kind {
            ErrorKind::Internal => "internal error, the server's log says more".to_owned(),
            _ => error.message,
        };
        let mut problem = Self::new(status, title, error.code, detail);
        problem.pointer = error.pointer.map(Into::into);
        problem.retry_after_ms = retry_after_ms(error.kind, error.retry_after);
        problem
    }
}

/// How long a caller should wait, in milliseconds: what is known, or a guess where waiting helps for sure.
pub(crate) fn retry_after_ms(kind: ErrorKind, known: Option<Duration>) -> Option<u64> {
    let known = known.map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
    known.or((kind == ErrorKind::Exhausted).then_some(RETRY_AFTER_MS))
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let retry = self.retry_after_ms;
        let mut response = (status, Json(self)).into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if let Some(ms) = retry {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(ms.div_ceil(1_000)));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_says_what_where_and_when_to_retry() {
        let full = Error::new(ErrorKind::Exhausted, "overloaded", "wait").at("/points/0");
        let problem = Problem::from(full);
        assert_eq!(
            (problem.status, problem.code, problem.retry_after_ms),
            (429, "overloaded", Some(RETRY_AFTER_MS))
        );
        let json = serde_json::to_value(&problem).unwrap();
        assert_eq!(json["type"], "urn:cairn:error:overloaded");
        assert_eq!(json["pointer"], "/points/0");
        let response = problem.into_response();
        assert_eq!(response.headers()[header::RETRY_AFTER], "1");
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
    }

    #[test]
    fn a_known_wait_is_said_and_nobody_guesses_for_a_wrong_answer() {
        let busy = Error::new(ErrorKind::Unavailable, "some_code", "wait");
        let problem = Problem::from(busy.clone().retry_after(Some(Duration::from_millis(2_300))));
        assert_eq!((problem.status, problem.retry_after_ms), (503, Some(2_300)));
        assert_eq!(problem.into_response().headers()[header::RETRY_AFTER], "3");
        assert_eq!(Problem::from(busy).retry_after_ms, None);
        let wrong = Problem::from(Error::new(ErrorKind::Upstream, "some_code", "17 numbers, want 16"));
        assert_eq!((wrong.status, wrong.retry_after_ms), (502, None));
        assert_eq!(wrong.detail, "17 numbers, want 16");
    }

    #[test]
    fn our_own_failures_keep_their_details_in_the_log() {
        let problem = Problem::from(Error::internal("/secret/path"));
        assert_eq!(problem.status, 500);
        assert!(!problem.detail.contains("secret"));
    }
}
