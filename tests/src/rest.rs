//! A caller over REST.

use std::net::SocketAddr;

use serde_json::Value;

use crate::{Failure, Method, Outcome, Request};

/// A caller over REST.
#[derive(Debug, Clone)]
pub struct Rest {
    base: String,
    http: reqwest::Client,
}

impl Rest {
    /// Talks to the server at `addr`.
    pub fn new(addr: SocketAddr) -> Self {
        Self {
            base: format!("http://{addr}"),
            http: http_client(),
        }
    }

    /// Sends a request.
    pub async fn send(&self, request: &Request) -> Outcome {
        let (verb, path) = route(request);
        let mut headers = Vec::new();
        let mut body = Vec::new();
        if matches!(verb, "POST" | "PUT" | "PATCH") {
            headers.push(("content-type", "application/json".to_owned()));
            let mut json = request.body.clone();
            if let (Method::RestoreSnapshot, Some(fields)) = (request.method, json.as_object_mut()) {
                // It is in the path, if there is one.
                fields.remove("snapshot");
            }
            body = json.to_string().into_bytes();
        }
        if let Some(ms) = request.timeout_ms {
            headers.push(("cairn-timeout-ms", ms.to_string()));
        }
        self.raw(verb, &path, &headers, body).await
    }

    /// Sends anything at all.
    pub async fn raw(&self, verb: &str, path: &str, headers: &[(&str, String)], body: Vec<u8>) -> Outcome {
        let method = verb.parse().expect("an HTTP method");
        let mut request = self.http.request(method, format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        if !body.is_empty() {
            request = request.body(body);
        }
        let response = request.send().await.map_err(|e| unanswered(&e))?;
        let status = response.status();
        let problem = response
            .headers()
            .get("content-type")
            .is_some_and(|t| t == "application/problem+json");
        let bytes = response.bytes().await.map_err(|e| unanswered(&e))?;
        let json = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        if status.is_success() {
            return Ok(json);
        }
        let text = |key: &str| json.get(key).and_then(Value::as_str).map(str::to_owned);
        Err(Failure {
            http: Some(status.as_u16()),
            grpc: None,
            code: if problem {
                text("code").unwrap_or_default()
            } else {
                "not_a_problem".to_owned()
            },
            message: text("detail").unwrap_or_else(|| String::from_utf8_lossy(&bytes).into_owned()),
            pointer: text("pointer"),
        })
    }
}

/// A client for loopback: no proxy, no TLS certificates of the system.
pub fn http_client() -> reqwest::Client {
    cairn_server::rag::remote::install_crypto();
    let builder = reqwest::Client::builder().no_proxy().tls_certs_only([]);
    builder.build().expect("a client without TLS can always be made")
}

/// A connection that broke instead of an answer: never what a case expects.
fn unanswered(error: &reqwest::Error) -> Failure {
    Failure {
        http: Some(0),
        grpc: None,
        code: "unanswered".into(),
        message: error.to_string(),
        pointer: None,
    }
}

const SNAPSHOTS: &str = "/api/v1/snapshots";

fn route(request: &Request) -> (&'static str, String) {
    let escape = |text: &str| {
        form_urlencoded::byte_serialize(text.as_bytes())
            .collect::<String>()
            .replace('+', "%20")
    };
    let base = format!("/api/v1/collections/{}", escape(&request.collection));
    let query = |keys: &[&str]| {
        let mut pairs = form_urlencoded::Serializer::new(String::new());
        for key in keys {
            match request.body.get(key) {
                None => {}
                Some(Value::String(text)) => {
                    pairs.append_pair(key, text);
                }
                Some(Value::Array(values)) => {
                    // `ids` in a message is a repeated `id` in a query.
                    let key = key.trim_end_matches('s');
                    values.iter().filter_map(Value::as_str).for_each(|text| {
                        pairs.append_pair(key, text);
                    });
                }
                Some(other) => {
                    pairs.append_pair(key, &other.to_string());
                }
            }
        }
        pairs.finish()
    };
    let operation = || {
        let id = request.body.get("id").and_then(Value::as_str).unwrap_or_default();
        format!("/api/v1/operations/{}", escape(id))
    };
    let snapshot = || {
        let name = request.body.get("snapshot").and_then(Value::as_str).unwrap_or_default();
        format!("{SNAPSHOTS}/{}", escape(name))
    };
    match request.method {
        Method::CreateCollection => ("PUT", base),
        Method::GetCollection => ("GET", base),
        Method::DeleteCollection => ("DELETE", format!("{base}?{}", query(&["request_id"]))),
        Method::ListCollections => ("GET", "/api/v1/collections".to_owned()),
        Method::Upsert => ("POST", format!("{base}/points")),
        Method::SetPayload => ("PATCH", format!("{base}/points")),
        Method::GetPoints => ("POST", format!("{base}/points/get")),
        Method::DeletePoints => ("POST", format!("{base}/points/delete")),
        Method::Scroll => ("POST", format!("{base}/points/scroll")),
        Method::Count => ("POST", format!("{base}/points/count")),
        Method::Query => ("POST", format!("{base}/query")),
        Method::QueryBatch => ("POST", format!("{base}/query/batch")),
        Method::PutDocuments => ("POST", format!("{base}/documents")),
        Method::GetDocument => ("GET", format!("{base}/documents?{}", query(&["id", "with_chunks"]))),
        Method::DeleteDocuments => (
            "DELETE",
            format!("{base}/documents?{}", query(&["ids", "request_id", "durability"])),
        ),
        Method::ListDocuments => (
            "GET",
            format!("{base}/documents/list?{}", query(&["after_id", "limit"])),
        ),
        Method::Enrich if request.collection.is_empty() => ("POST", "/api/v1/enrich".to_owned()),
        Method::Enrich => ("POST", format!("{base}/enrich")),
        Method::Optimize => ("POST", format!("{base}/optimize")),
        Method::GetOperation => ("GET", format!("{}?{}", operation(), query(&["wait_ms"]))),
        Method::CancelOperation => ("DELETE", operation()),
        Method::ListOperations => (
            "GET",
            format!("/api/v1/operations?collection={}", escape(&request.collection)),
        ),
        Method::CreateSnapshot => ("POST", SNAPSHOTS.to_owned()),
        Method::ListSnapshots => ("GET", SNAPSHOTS.to_owned()),
        Method::GetSnapshot => ("GET", snapshot()),
        Method::VerifySnapshot => ("POST", format!("{}/verify", snapshot())),
        Method::RestoreSnapshot if request.body.get("snapshot").is_none() => ("POST", "/api/v1/restore".to_owned()),
        Method::RestoreSnapshot => ("POST", format!("{}/restore", snapshot())),
        Method::DeleteSnapshot => ("DELETE", snapshot()),
    }
}
