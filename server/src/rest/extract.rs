//! What handlers take from a request: the call, the collection's name, a JSON body. Whatever is wrong with them is a
//! [`Problem`] that says where and what is allowed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::BoxError;
use axum::body::HttpBody;
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use percent_encoding::percent_decode_str;
use serde::de::DeserializeOwned;
use serde_path_to_error::{Segment, Track};

use super::problem::Problem;
use crate::service::bodies::Held;
use crate::service::pools::offload;
use crate::service::{Call, Service};
use crate::telemetry::Api;

/// A body beyond this is parsed off the async threads: about a millisecond of parsing.
const PARSE_INLINE_BYTES: usize = 256 << 10;

/// How much of a refused body is read, and for how long.
const DISCARD_BYTES_MAX: usize = 256 << 20;
const DISCARD_WAIT: Duration = Duration::from_secs(5);

/// Name of the header that says how long the caller waits; the query parameter is `timeout_ms`.
const TIMEOUT_HEADER: &str = "cairn-timeout-ms";
const TIMEOUT_QUERY: &str = "timeout_ms";

/// The call, and the query parameters besides `timeout_ms`.
pub(super) struct Params {
    pub(super) call: Call,
    rest: Vec<(String, String)>,
}

impl Params {
    /// The parameters, after refusing all that are not `allowed`.
    pub(super) fn only(self, allowed: &[&str]) -> Result<Vec<(String, String)>, Problem> {
        match self.rest.iter().find(|(key, _)| !allowed.contains(&key.as_str())) {
            None => Ok(self.rest),
            Some((key, _)) => {
                let mut known = vec![TIMEOUT_QUERY];
                known.extend(allowed);
                let detail = format!("unknown query parameter {key:?}; allowed: {}", known.join(", "));
                Err(Problem::refused(StatusCode::BAD_REQUEST, "unknown_parameter", detail).at(key.clone()))
            }
        }
    }
}

impl FromRequestParts<Arc<Service>> for Params {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, service: &Arc<Service>) -> Result<Self, Problem> {
        let query = parts.uri.query().unwrap_or_default();
        // Below, bytes that are no UTF-8 would become another character, and an id another id.
        if percent_decode_str(query).decode_utf8().is_err() {
            let detail = "query parameters must be UTF-8, percent-encoded";
            return Err(Problem::refused(StatusCode::BAD_REQUEST, "bad_utf8", detail));
        }
        let (timeouts, rest): (Vec<_>, Vec<_>) = form_urlencoded::parse(query.as_bytes())
            .into_owned()
            .partition(|(key, _)| key == TIMEOUT_QUERY);
        let timeout = match (timeouts.as_slice(), parts.headers.get(TIMEOUT_HEADER)) {
            ([], None) => None,
            ([(_, text)], None) => Some(milliseconds(text, TIMEOUT_QUERY)?),
            ([], Some(value)) => Some(milliseconds(value.to_str().unwrap_or("?"), TIMEOUT_HEADER)?),
            _ => {
                let detail = format!("give {TIMEOUT_QUERY} or {TIMEOUT_HEADER}, once");
                return Err(Problem::refused(StatusCode::BAD_REQUEST, "bad_timeout", detail).at(TIMEOUT_QUERY));
            }
        };
        let call = service.call(Api::Rest, timeout);
        // For `Body`, which is extracted later and waits no longer than the caller does.
        parts.extensions.insert(call.clone());
        Ok(Self { call, rest })
    }
}

fn milliseconds(text: &str, name: &str) -> Result<Duration, Problem> {
    text.parse().map(Duration::from_millis).map_err(|_| {
        let detail = format!("{name} is a whole number of milliseconds, got {text:?}");
        Problem::refused(StatusCode::BAD_REQUEST, "bad_timeout", detail).at(name)
    })
}

/// A call without further query parameters.
pub(super) struct Plain(pub(super) Call);

impl FromRequestParts<Arc<Service>> for Plain {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, service: &Arc<Service>) -> Result<Self, Problem> {
        let params = Params::from_request_parts(parts, service).await?;
        let call = params.call.clone();
        params.only(&[]).map(|_| Self(call))
    }
}

/// The collection named by the path.
pub(super) struct Name(pub(super) String);

impl FromRequestParts<Arc<Service>> for Name {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, service: &Arc<Service>) -> Result<Self, Problem> {
        in_path(parts, service, "bad_name", "/collection").await.map(Self)
    }
}

/// The operation named by the path.
pub(super) struct OperationId(pub(super) String);

impl FromRequestParts<Arc<Service>> for OperationId {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, service: &Arc<Service>) -> Result<Self, Problem> {
        in_path(parts, service, "bad_id", "/id").await.map(Self)
    }
}

/// The one part of the path that varies.
async fn in_path(
    parts: &mut Parts,
    service: &Arc<Service>,
    code: &'static str,
    pointer: &str,
) -> Result<String, Problem> {
    match Path::<String>::from_request_parts(parts, service).await {
        Ok(Path(text)) => Ok(text),
        Err(e) => Err(Problem::refused(StatusCode::BAD_REQUEST, code, e.body_text()).at(pointer)),
    }
}

/// A JSON body.
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned + Send + 'static> FromRequest<Arc<Service>> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, service: &Arc<Service>) -> Result<Self, Problem> {
        check_headers(request.headers(), request.body().is_end_stream())?;
        let most = service.limits().body_bytes_max;
        let too_large = || {
            let detail = format!("a body is at most {most} bytes");
            Problem::refused(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", detail)
        };
        let declared = request
            .headers()
            .get(header::CONTENT_LENGTH)
            .and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
        if declared.is_some_and(|n| n > most as u64) {
            discard(request.into_body()).await;
            return Err(too_large());
        }
        let call: Option<&Call> = request.extensions().get();
        let patience = patience(service, call);
        let held = call.map(|call| call.held.clone());
        let body = collect(Limited::new(request.into_body(), most), held);
        let bytes = match tokio::time::timeout(patience, body).await {
            Ok(Ok(bytes)) => bytes,
            Ok(Err(Broken::Overloaded(e))) => return Err(e.into()),
            Ok(Err(Broken::Body(e))) if e.is::<LengthLimitError>() => return Err(too_large()),
            Ok(Err(Broken::Body(e))) => {
                return Err(Problem::refused(
                    StatusCode::BAD_REQUEST,
                    "bad_body",
                    format!("the body broke off: {e}"),
                ));
            }
            Err(_) => {
                let detail = format!("the body did not arrive within {} ms", patience.as_millis());
                return Err(Problem::refused(StatusCode::REQUEST_TIMEOUT, "body_timeout", detail));
            }
        };
        if bytes.len() <= PARSE_INLINE_BYTES {
            return parse(&bytes).map(Self);
        }
        offload(move || parse(&bytes)).await?.map(Self)
    }
}

/// Why a body did not arrive whole.
enum Broken {
    Body(BoxError),
    Overloaded(cairn_engine::Error),
}

/// The whole body. Its bytes are taken as they come: an announced length costs the caller nothing, and would hold what others could use.
async fn collect(mut body: Limited<axum::body::Body>, held: Option<Held>) -> Result<Vec<u8>, Broken> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.map_err(Broken::Body)?.into_data() {
            if let Some(held) = &held {
                held.take(data.len()).map_err(Broken::Overloaded)?;
            }
            bytes.extend_from_slice(&data);
        }
    }
    Ok(bytes)
}

/// How long a body may take to arrive: no longer than the caller waits for the answer, and no longer than a request may
/// take that names no time.
fn patience(service: &Service, call: Option<&Call>) -> Duration {
    let left = call.map(|call| call.deadline.saturating_duration_since(Instant::now()));
    let most = service.limits().timeout(None);
    left.map_or(most, |left| left.min(most))
}

/// Reads a body that is refused, within bounds: a connection that is closed on a caller who is still sending takes the
/// answer down with it.
async fn discard(body: axum::body::Body) {
    let _whole = tokio::time::timeout(DISCARD_WAIT, async {
        let mut body = Limited::new(body, DISCARD_BYTES_MAX);
        while let Some(Ok(_)) = body.frame().await {}
    })
    .await;
}

/// A body without a type is refused as well: a web page can send one anywhere without asking its browser (a "simple
/// request" of CORS), but not one that is called JSON.
fn check_headers(headers: &HeaderMap, empty: bool) -> Result<(), Problem> {
    let unsupported = |code, detail: String| Err(Problem::refused(StatusCode::UNSUPPORTED_MEDIA_TYPE, code, detail));
    if let Some(encoding) = headers.get(header::CONTENT_ENCODING)
        && encoding != "identity"
    {
        return unsupported(
            "unsupported_encoding",
            format!("send the body as it is, not encoded, got {encoding:?}"),
        );
    }
    let Some(kind) = headers.get(header::CONTENT_TYPE) else {
        return match empty {
            true => Ok(()),
            false => unsupported(
                "unsupported_media_type",
                "content-type must be application/json, got none".to_owned(),
            ),
        };
    };
    let media = kind
        .to_str()
        .unwrap_or_default()
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    if media == "application/json" || (media.starts_with("application/") && media.ends_with("+json")) {
        return Ok(());
    }
    unsupported(
        "unsupported_media_type",
        format!("content-type must be application/json, got {kind:?}"),
    )
}

/// Parses, and only if that fails once more to learn the place: keeping track of it costs time that right requests need not pay.
fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let bad = |code, detail| Problem::refused(StatusCode::BAD_REQUEST, code, detail);
    let text = std::str::from_utf8(bytes).map_err(|e| {
        bad(
            "bad_utf8",
            format!("the body must be UTF-8, byte {} is not", e.valid_up_to()),
        )
    })?;
    // Structs could be read from lists, field by field; nobody should come to rely on that.
    if text.trim_start().starts_with('[') {
        return Err(bad(
            "bad_request",
            "the body must be a JSON object, got a list".to_owned(),
        ));
    }
    let error = match serde_json::from_str(text) {
        Ok(value) => return Ok(value),
        Err(error) => error,
    };
    if !error.is_data() {
        return Err(bad("bad_json", format!("the body is not JSON: {error}")));
    }
    let mut json = serde_json::Deserializer::from_str(text);
    let mut track = Track::new();
    let again = T::deserialize(serde_path_to_error::Deserializer::new(&mut json, &mut track));
    let pointer: String = track.path().iter().map(segment).collect();
    let error = again.err().unwrap_or(error);
    Err(bad("bad_request", error.to_string()).at(pointer))
}

fn segment(segment: &Segment) -> String {
    match segment {
        Segment::Seq { index } => format!("/{index}"),
        Segment::Map { key } => format!("/{}", key.replace('~', "~0").replace('/', "~1")),
        Segment::Enum { .. } | Segment::Unknown => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only its shape matters")]
    struct Outer {
        inner: Vec<Inner>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only its shape matters")]
    struct Inner {
        n: u32,
    }

    #[test]
    fn a_wrong_body_says_what_where_and_what_is_allowed() {
        let cases: [(&[u8], &str, Option<&str>, &str); 6] = [
            (
                b"{\"inner\": [{\"n\": 1}, {\"n\": -1}]}",
                "bad_request",
                Some("/inner/1/n"),
                "-1",
            ),
            (
                b"{\"inner\": [{\"m\": 1}]}",
                "bad_request",
                Some("/inner/0/m"),
                "expected `n`",
            ),
            (b"{\"inner\": 3}", "bad_request", Some("/inner"), "sequence"),
            (b"{\"inner\": [", "bad_json", None, "EOF"),
            (b"", "bad_json", None, "EOF"),
            (b"{\"inner\": \"\xff\"}", "bad_utf8", None, "byte 11"),
        ];
        for (body, code, pointer, says) in cases {
            let problem = serde_json::to_value(parse::<Outer>(body).unwrap_err()).unwrap();
            assert_eq!(problem["code"], code, "{problem}");
            assert_eq!(problem.get("pointer").and_then(|p| p.as_str()), pointer, "{problem}");
            assert!(problem["detail"].as_str().unwrap().contains(says), "{problem}");
        }
    }

    #[test]
    fn only_plain_json_is_read() {
        let check = |name: header::HeaderName, value: &'static str| {
            let headers = HeaderMap::from_iter([(name, header::HeaderValue::from_static(value))]);
            check_headers(&headers, false).is_ok()
        };
        assert!(check_headers(&HeaderMap::new(), true).is_ok());
        assert!(check_headers(&HeaderMap::new(), false).is_err());
        assert!(check(header::CONTENT_TYPE, "application/json; charset=utf-8"));
        assert!(check(header::CONTENT_TYPE, "application/merge-patch+json"));
        assert!(!check(header::CONTENT_TYPE, "application/x-www-form-urlencoded"));
        assert!(!check(header::CONTENT_TYPE, "text/plain"));
        assert!(!check(header::CONTENT_ENCODING, "gzip"));
    }
}
