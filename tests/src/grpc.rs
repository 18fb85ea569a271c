//! A caller over gRPC: requests become messages by the names they share with the JSON, answers become that JSON again.

use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use base64::Engine as _;
use bytes::{Buf, BufMut, Bytes};
use cairn_proto::v1 as pb;
use http::Uri;
use http::uri::PathAndQuery;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use serde_json::{Map, Value, json};
use tokio::net::TcpStream;
use tonic::Status;
use tonic::body::Body;
use tonic::codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder};

use crate::{Failure, Method, Outcome, Request};

/// A caller over gRPC.
#[derive(Clone)]
pub struct Grpc {
    direct: Direct,
    origin: Uri,
}

impl Grpc {
    /// Talks to the server at `addr`.
    pub async fn connect(addr: SocketAddr) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let stream = TokioIo::new(TcpStream::connect(addr).await?);
        let (send, connection) = http2::handshake(TokioExecutor::new(), stream).await?;
        tokio::spawn(connection);
        Ok(Self {
            direct: Direct(send),
            origin: format!("http://{addr}").parse()?,
        })
    }

    /// Sends a request.
    pub async fn send(&self, request: &Request) -> Outcome {
        let (path, message) = encode(request);
        let bytes = self
            .raw(path, message, request.timeout_ms.map(Duration::from_millis))
            .await?;
        Ok(decode(request.method, bytes))
    }

    /// Sends any bytes to any method. Compressed both ways.
    pub async fn raw(&self, path: &'static str, message: Vec<u8>, timeout: Option<Duration>) -> Result<Bytes, Failure> {
        let mut client = tonic::client::Grpc::with_origin(self.direct.clone(), self.origin.clone())
            .send_compressed(CompressionEncoding::Zstd)
            .accept_compressed(CompressionEncoding::Zstd)
            .max_decoding_message_size(usize::MAX);
        let mut request = tonic::Request::new(Bytes::from(message));
        if let Some(timeout) = timeout {
            let header = format!("{}u", timeout.as_micros()).parse().expect("digits and a unit");
            request.metadata_mut().insert("grpc-timeout", header);
        }
        let answer = async {
            client.ready().await.map_err(|e| Status::unknown(e.to_string()))?;
            client.unary(request, PathAndQuery::from_static(path), BytesCodec).await
        };
        answer.await.map(tonic::Response::into_inner).map_err(failure)
    }
}

fn failure(status: Status) -> Failure {
    let text = |key: &str| {
        status
            .metadata()
            .get(key)
            .and_then(|v| v.to_str().ok())
            .map(str::to_owned)
    };
    Failure {
        http: None,
        grpc: Some(status.code()),
        code: text("cairn-code").unwrap_or_else(|| "no_code".to_owned()),
        message: status.message().to_owned(),
        pointer: text("cairn-pointer"),
    }
}

/// One connection without tonic's own channel, which would give up at the deadline before the server can say so: the
/// server's answer is what is tested.
#[derive(Clone)]
struct Direct(http2::SendRequest<Body>);

impl tower::Service<http::Request<Body>> for Direct {
    type Response = http::Response<hyper::body::Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

/// Messages as they are.
struct BytesCodec;

impl Codec for BytesCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;
    fn encoder(&mut self) -> Self {
        Self
    }
    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for BytesCodec {
    type Item = Bytes;
    type Error = Status;
    fn encode(&mut self, message: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(message);
        Ok(())
    }
}

impl Decoder for BytesCodec {
    type Item = Bytes;
    type Error = Status;
    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        let n = from.remaining();
        Ok(Some(from.copy_to_bytes(n)))
    }
}

// ---- requests ----

fn encode(request: &Request) -> (&'static str, Vec<u8>) {
    let b = &request.body;
    let collection = request.collection.clone();
    match request.method {
        Method::CreateCollection => {
            let message = pb::CreateCollectionRequest {
                collection,
                schema: Some(schema(b)),
            };
            ("/cairn.v1.Collections/Create", message.encode_to_vec())
        }
        Method::GetCollection => (
            "/cairn.v1.Collections/Get",
            pb::GetCollectionRequest { collection }.encode_to_vec(),
        ),
        Method::DeleteCollection => (
            "/cairn.v1.Collections/Delete",
            pb::DeleteCollectionRequest {
                collection,
                request_id: text(b, "request_id"),
            }
            .encode_to_vec(),
        ),
        Method::ListCollections => (
            "/cairn.v1.Collections/List",
            pb::ListCollectionsRequest {}.encode_to_vec(),
        ),
        Method::Upsert => {
            let message = pb::UpsertRequest {
                collection,
                points: list(b, "points", point),
                request_id: text(b, "request_id"),
                embedders: map(b.get("embedders"), embedder),
                durability: durability(b),
            };
            ("/cairn.v1.Points/Upsert", message.encode_to_vec())
        }
        Method::GetPoints => {
            let message = pb::GetPointsRequest {
                collection,
                ids: ids(b, "ids"),
                with: with(b),
                allow_partial: flag(b, "allow_partial"),
            };
            ("/cairn.v1.Points/Get", message.encode_to_vec())
        }
        Method::DeletePoints => {
            let message = pb::DeletePointsRequest {
                collection,
                ids: ids(b, "ids"),
                filter: some(b, "filter", filter),
                request_id: text(b, "request_id"),
                durability: durability(b),
            };
            ("/cairn.v1.Points/Delete", message.encode_to_vec())
        }
        Method::Scroll => {
            let message = pb::ScrollRequest {
                collection,
                filter: some(b, "filter", filter),
                limit: number(b, "limit"),
                cursor: some(b, "cursor", string),
                with: with(b),
                after: some(b, "after", string),
                allow_partial: flag(b, "allow_partial"),
            };
            ("/cairn.v1.Points/Scroll", message.encode_to_vec())
        }
        Method::Count => {
            let message = pb::CountRequest {
                collection,
                filter: some(b, "filter", filter),
                allow_partial: flag(b, "allow_partial"),
            };
            ("/cairn.v1.Points/Count", message.encode_to_vec())
        }
        Method::SetPayload => {
            let message = pb::SetPayloadRequest {
                collection,
                ids: ids(b, "ids"),
                set: some(b, "set", object),
                unset: list(b, "unset", string),
                replace: flag(b, "replace"),
                request_id: text(b, "request_id"),
                durability: durability(b),
            };
            ("/cairn.v1.Points/SetPayload", message.encode_to_vec())
        }
        Method::Query => (
            "/cairn.v1.Query/Run",
            pb::QueryRequest { collection, ..query(b) }.encode_to_vec(),
        ),
        Method::QueryBatch => {
            let message = pb::QueryBatchRequest {
                collection,
                queries: list(b, "queries", query),
            };
            ("/cairn.v1.Query/RunBatch", message.encode_to_vec())
        }
        Method::PutDocuments => {
            let message = pb::PutDocumentsRequest {
                collection,
                documents: list(b, "documents", document),
                request_id: text(b, "request_id"),
                durability: durability(b),
                on_near_duplicate: match b["on_near_duplicate"].as_str() {
                    None => 0,
                    Some("store") => pb::OnNearDuplicate::Store.into(),
                    Some("skip") => pb::OnNearDuplicate::Skip.into(),
                    Some(_) => UNKNOWN_ENUM,
                },
            };
            ("/cairn.v1.Documents/Put", message.encode_to_vec())
        }
        Method::GetDocument => {
            let message = pb::GetDocumentRequest {
                collection,
                id: text(b, "id"),
                with_chunks: flag(b, "with_chunks"),
            };
            ("/cairn.v1.Documents/Get", message.encode_to_vec())
        }
        Method::DeleteDocuments => {
            let message = pb::DeleteDocumentsRequest {
                collection,
                ids: ids(b, "ids"),
                request_id: text(b, "request_id"),
                durability: durability(b),
            };
            ("/cairn.v1.Documents/Delete", message.encode_to_vec())
        }
        Method::ListDocuments => {
            let message = pb::ListDocumentsRequest {
                collection,
                after_id: some(b, "after_id", string),
                limit: number(b, "limit"),
            };
            ("/cairn.v1.Documents/List", message.encode_to_vec())
        }
        Method::Enrich => {
            let message = pb::EnrichRequest {
                collection,
                prompt: text(b, "prompt"),
                token_budget: number(b, "token_budget"),
                tokenizer: text(b, "tokenizer"),
                format: match b["format"].as_str() {
                    Some("messages") => pb::EnrichFormat::Messages.into(),
                    Some("anthropic") => pb::EnrichFormat::Anthropic.into(),
                    _ => 0,
                },
                filter: some(b, "filter", filter),
                limit: number(b, "limit"),
                max_chunks: number(b, "max_chunks"),
                max_per_document: number(b, "max_per_document"),
                score_threshold: float(b, "score_threshold"),
                mode: match b["mode"].as_str() {
                    Some("dense") => pb::RetrievalMode::Dense.into(),
                    Some("bm25") => pb::RetrievalMode::Bm25.into(),
                    Some("sparse") => pb::RetrievalMode::Sparse.into(),
                    _ => 0,
                },
                after: some(b, "after", string),
                collections: ids(b, "collections"),
                conversation: list(b, "conversation", |t| pb::Turn {
                    role: text(t, "role"),
                    content: text(t, "content"),
                }),
                template: text(b, "template"),
                max_per_source: number(b, "max_per_source"),
                neighbours: number(b, "neighbours").unwrap_or(0),
                ranking: some(b, "ranking", ranking),
                explain: flag(b, "explain"),
                trust: list(b, "trust", |t| trust(t).into()),
                allow_partial: flag(b, "allow_partial"),
            };
            ("/cairn.v1.Documents/Enrich", message.encode_to_vec())
        }
        Method::Optimize => (
            "/cairn.v1.Collections/Optimize",
            pb::OptimizeRequest { collection }.encode_to_vec(),
        ),
        Method::GetOperation => (
            "/cairn.v1.Operations/Get",
            pb::GetOperationRequest { id: text(b, "id") }.encode_to_vec(),
        ),
        Method::CancelOperation => (
            "/cairn.v1.Operations/Cancel",
            pb::CancelOperationRequest { id: text(b, "id") }.encode_to_vec(),
        ),
        Method::ListOperations => (
            "/cairn.v1.Operations/List",
            pb::ListOperationsRequest { collection }.encode_to_vec(),
        ),
        Method::CreateSnapshot => (
            "/cairn.v1.Snapshots/Create",
            pb::CreateSnapshotRequest {
                snapshot: text(b, "snapshot"),
            }
            .encode_to_vec(),
        ),
        Method::ListSnapshots => ("/cairn.v1.Snapshots/List", pb::ListSnapshotsRequest {}.encode_to_vec()),
        Method::GetSnapshot => (
            "/cairn.v1.Snapshots/Get",
            pb::GetSnapshotRequest {
                snapshot: text(b, "snapshot"),
            }
            .encode_to_vec(),
        ),
        Method::VerifySnapshot => (
            "/cairn.v1.Snapshots/Verify",
            pb::VerifySnapshotRequest {
                snapshot: text(b, "snapshot"),
            }
            .encode_to_vec(),
        ),
        Method::RestoreSnapshot => {
            let message = pb::RestoreSnapshotRequest {
                snapshot: text(b, "snapshot"),
                collection: text(b, "collection"),
                r#as: text(b, "as"),
                shards: number(b, "shards").unwrap_or_default(),
                replace: flag(b, "replace"),
                to_token: text(b, "to_token"),
                to_time_ms: b["to_time_ms"].as_u64(),
            };
            ("/cairn.v1.Snapshots/Restore", message.encode_to_vec())
        }
        Method::DeleteSnapshot => (
            "/cairn.v1.Snapshots/Delete",
            pb::DeleteSnapshotRequest {
                snapshot: text(b, "snapshot"),
            }
            .encode_to_vec(),
        ),
    }
}

fn some<T>(b: &Value, key: &str, of: impl Fn(&Value) -> T) -> Option<T> {
    b.get(key).map(of)
}

fn list<T>(b: &Value, key: &str, of: impl Fn(&Value) -> T) -> Vec<T> {
    b.get(key)
        .and_then(Value::as_array)
        .map(|values| values.iter().map(of).collect())
        .unwrap_or_default()
}

fn string(v: &Value) -> String {
    match v {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn durability(b: &Value) -> i32 {
    match b["durability"].as_str() {
        None => 0,
        Some("sync") => pb::Durability::Sync.into(),
        Some("async") => pb::Durability::Async.into(),
        Some(_) => UNKNOWN_ENUM,
    }
}

fn durability_json(durability: pb::Durability) -> Value {
    match durability {
        pb::Durability::Unspecified => Value::Null,
        pb::Durability::Sync => "sync".into(),
        pb::Durability::Async => "async".into(),
    }
}

fn text(b: &Value, key: &str) -> String {
    string(&b[key])
}

fn ids(b: &Value, key: &str) -> Vec<String> {
    list(b, key, string)
}

fn flag(b: &Value, key: &str) -> bool {
    b[key].as_bool().unwrap_or(false)
}

fn number(b: &Value, key: &str) -> Option<u32> {
    b.get(key)
        .map(|v| u32::try_from(v.as_u64().expect("a message holds only unsigned numbers")).expect("32 bits"))
}

#[expect(clippy::cast_possible_truncation, reason = "test data")]
fn real(v: &Value) -> f32 {
    match v.as_str() {
        Some(text) => text.parse().expect("NaN or inf"),
        None => v.as_f64().expect("a number") as f32,
    }
}

fn float(b: &Value, key: &str) -> Option<f32> {
    b.get(key).map(real)
}

fn vector(v: &Value) -> pb::Vector {
    pb::Vector {
        values: v.as_array().expect("an array").iter().map(real).collect(),
    }
}

fn sparse_vector(v: &Value) -> pb::SparseVector {
    let index = |v: &Value| u32::try_from(v.as_u64().expect("an unsigned number")).expect("32 bits");
    pb::SparseVector {
        indices: list(v, "indices", index),
        values: list(v, "values", real),
    }
}

fn map<T>(v: Option<&Value>, of: impl Fn(&Value) -> T) -> std::collections::BTreeMap<String, T> {
    let entries = v.and_then(Value::as_object).into_iter().flatten();
    entries.map(|(key, value)| (key.clone(), of(value))).collect()
}

fn value(v: &Value) -> pb::Value {
    use pb::value::Kind;
    let kind = match v {
        Value::Null => Kind::Null(true),
        Value::Bool(b) => Kind::Bool(*b),
        Value::Number(n) => match (n.as_i64(), n.as_u64()) {
            (Some(i), _) => Kind::Int(i),
            (None, Some(u)) => Kind::Uint(u),
            (None, None) => Kind::Double(n.as_f64().expect("a number")),
        },
        Value::String(s) => Kind::String(s.clone()),
        Value::Array(values) => Kind::List(pb::List {
            values: values.iter().map(value).collect(),
        }),
        Value::Object(_) => Kind::Struct(object(v)),
    };
    pb::Value { kind: Some(kind) }
}

fn object(v: &Value) -> pb::Struct {
    pb::Struct {
        fields: map(Some(v), value),
    }
}

fn with(b: &Value) -> Option<pb::With> {
    some(b, "with", |w| pb::With {
        payload: w.get("payload").and_then(Value::as_bool),
        vectors: flag(w, "vectors"),
        explain: flag(w, "explain"),
    })
}

fn point(p: &Value) -> pb::PointInput {
    pb::PointInput {
        id: text(p, "id"),
        vector: some(p, "vector", vector),
        vectors: map(p.get("vectors"), vector),
        embed: map(p.get("embed"), embed_input),
        payload: some(p, "payload", object),
        document: text(p, "document"),
        expires_at_ms: p["expires_at_ms"].as_u64(),
        sparse: map(p.get("sparse"), sparse_vector),
    }
}

fn embed_input(e: &Value) -> pb::EmbedInput {
    use pb::embed_input::Input;
    let said = |key: &str| e[key].as_str().map(str::to_owned);
    let input = said("text").map(Input::Text);
    let input = input.or_else(|| said("image").map(Input::Image));
    pb::EmbedInput {
        input: input.or_else(|| said("audio").map(Input::Audio)),
    }
}

fn filter(f: &Value) -> pb::Filter {
    pb::Filter {
        must: list(f, "must", condition),
        should: list(f, "should", condition),
        must_not: list(f, "must_not", condition),
        min_should: number(f, "min_should"),
    }
}

fn condition(c: &Value) -> pb::Condition {
    use pb::condition::Test;
    let scalars = |v: &Value| pb::Scalars {
        values: v.as_array().expect("an array").iter().map(scalar).collect(),
    };
    let test = if let Some(v) = c.get("match") {
        Some(Test::Match(scalar(v)))
    } else if let Some(v) = c.get("any") {
        Some(Test::Any(scalars(v)))
    } else if let Some(v) = c.get("except") {
        Some(Test::Except(scalars(v)))
    } else if let Some(r) = c.get("range") {
        let bound = |key: &str| r[key].as_f64();
        Some(Test::Range(pb::Range {
            gt: bound("gt"),
            gte: bound("gte"),
            lt: bound("lt"),
            lte: bound("lte"),
        }))
    } else if let Some(v) = c.get("is_empty") {
        Some(Test::IsEmpty(v.as_bool().expect("a boolean")))
    } else if c.get("has_id").is_some() {
        Some(Test::HasId(pb::Ids { ids: ids(c, "has_id") }))
    } else if c.get("has_document").is_some() {
        Some(Test::HasDocument(pb::Ids {
            ids: ids(c, "has_document"),
        }))
    } else if ["must", "should", "must_not"].iter().any(|key| c.get(key).is_some()) {
        Some(Test::Nested(filter(c)))
    } else {
        None
    };
    pb::Condition {
        field: text(c, "field"),
        test,
    }
}

fn scalar(v: &Value) -> pb::Scalar {
    use pb::scalar::Value as Kind;
    let value = match v {
        Value::String(s) => Some(Kind::String(s.clone())),
        Value::Bool(b) => Some(Kind::Bool(*b)),
        Value::Number(n) => Some(
            n.as_i64()
                .map_or_else(|| Kind::Double(n.as_f64().expect("a number")), Kind::Int),
        ),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    };
    pb::Scalar { value }
}

fn query(q: &Value) -> pb::QueryRequest {
    use pb::query_request::Source;
    let source = if let Some(n) = q.get("nearest") {
        Some(Source::Nearest(nearest(n)))
    } else if let Some(s) = q.get("sparse") {
        Some(Source::Sparse(sparse(s)))
    } else if let Some(t) = q.get("text") {
        Some(Source::Text(text_source(t)))
    } else if let Some(h) = q.get("hybrid") {
        Some(Source::Hybrid(hybrid(h)))
    } else if q.get("prefetch").is_some() {
        Some(Source::Prefetch(prefetch(q)))
    } else {
        None
    };
    pb::QueryRequest {
        collection: String::new(),
        source,
        filter: some(q, "filter", filter),
        limit: number(q, "limit"),
        offset: number(q, "offset").unwrap_or(0),
        with: with(q),
        params: some(q, "params", |p| pb::Params {
            ef: number(p, "ef"),
            nprobe: number(p, "nprobe"),
            target_recall: float(p, "target_recall"),
            exact: flag(p, "exact"),
        }),
        score_threshold: float(q, "score_threshold"),
        after: some(q, "after", string),
        ranking: some(q, "ranking", ranking),
        allow_partial: flag(q, "allow_partial"),
    }
}

fn trust(t: &Value) -> pb::Trust {
    match t.as_str() {
        Some("trusted") => pb::Trust::Trusted,
        Some("quarantined") => pb::Trust::Quarantined,
        _ => pb::Trust::Unverified,
    }
}

fn trust_json(trust: pb::Trust) -> &'static str {
    match trust {
        pb::Trust::Trusted => "trusted",
        pb::Trust::Quarantined => "quarantined",
        pb::Trust::Unspecified | pb::Trust::Unverified => "unverified",
    }
}

fn ranking(r: &Value) -> pb::Ranking {
    pb::Ranking {
        decay: some(r, "decay", |d| pb::Decay {
            field: text(d, "field"),
            half_life_ms: d["half_life_ms"].as_u64().expect("a number"),
            weight: float(d, "weight"),
            origin_ms: d["origin_ms"].as_u64(),
        }),
        rerank: some(r, "rerank", |k| pb::Rerank {
            model: text(k, "model"),
            query: text(k, "query"),
            top: number(k, "top"),
            budget_ms: number(k, "budget_ms"),
            field: text(k, "field"),
        }),
        near_duplicates: some(r, "near_duplicates", |n| pb::NearDuplicates {
            threshold: float(n, "threshold"),
        }),
        caps: list(r, "caps", |c| pb::Cap {
            field: text(c, "field"),
            most: number(c, "most").unwrap_or(0),
        }),
        mmr: some(r, "mmr", |m| pb::Mmr {
            lambda: float(m, "lambda"),
            candidates: number(m, "candidates"),
            using: text(m, "using"),
        }),
    }
}

fn nearest(n: &Value) -> pb::Nearest {
    use pb::nearest::To;
    let to = if let Some(v) = n.get("vector") {
        Some(To::Vector(vector(v)))
    } else if let Some(t) = n.get("text") {
        Some(To::Text(string(t)))
    } else if let Some(i) = n.get("image") {
        Some(To::Image(string(i)))
    } else {
        n.get("audio").map(|a| To::Audio(string(a)))
    };
    pb::Nearest {
        to,
        using: text(n, "using"),
        embedder: some(n, "embedder", embedder),
    }
}

fn sparse(s: &Value) -> pb::Sparse {
    use pb::sparse::To;
    let to = match (s.get("vector"), s.get("text")) {
        (Some(v), _) => Some(To::Vector(sparse_vector(v))),
        (None, Some(t)) => Some(To::Text(string(t))),
        (None, None) => None,
    };
    pb::Sparse {
        to,
        using: text(s, "using"),
        embedder: some(s, "embedder", embedder),
    }
}

fn text_source(t: &Value) -> pb::Text {
    pb::Text {
        query: text(t, "query"),
        fields: ids(t, "fields"),
    }
}

fn hybrid(h: &Value) -> pb::Hybrid {
    pb::Hybrid {
        text: text(h, "text"),
        using: text(h, "using"),
        fields: ids(h, "fields"),
    }
}

fn prefetch(q: &Value) -> pb::Prefetch {
    use pb::prefetch::Fuse;
    let weights = |f: &Value| list(f, "weights", real);
    let fuse = q
        .get("fuse")
        .and_then(|fuse| match (fuse.get("rrf"), fuse.get("weighted")) {
            (Some(rrf), _) => Some(Fuse::Rrf(pb::Rrf {
                k: float(rrf, "k"),
                weights: weights(rrf),
            })),
            (None, Some(weighted)) => Some(Fuse::Weighted(pb::Weighted {
                weights: weights(weighted),
            })),
            (None, None) => None,
        });
    pb::Prefetch {
        legs: list(q, "prefetch", leg),
        fuse,
    }
}

fn leg(l: &Value) -> pb::Leg {
    use pb::leg::Source;
    let source = if let Some(n) = l.get("nearest") {
        Some(Source::Nearest(nearest(n)))
    } else if let Some(s) = l.get("sparse") {
        Some(Source::Sparse(sparse(s)))
    } else if let Some(t) = l.get("text") {
        Some(Source::Text(text_source(t)))
    } else if let Some(h) = l.get("hybrid") {
        Some(Source::Hybrid(hybrid(h)))
    } else if l.get("prefetch").is_some() {
        Some(Source::Prefetch(prefetch(l)))
    } else {
        None
    };
    pb::Leg {
        name: text(l, "name"),
        source,
        filter: some(l, "filter", filter),
        limit: number(l, "limit"),
    }
}

/// What a word that REST refuses becomes: a number that no enum has.
const UNKNOWN_ENUM: i32 = 99;

fn document(d: &Value) -> pb::DocumentInput {
    pb::DocumentInput {
        id: text(d, "id"),
        text: text(d, "text"),
        format: match d["format"].as_str() {
            None => 0,
            Some("plain") => pb::DocumentFormat::Plain.into(),
            Some("markdown") => pb::DocumentFormat::Markdown.into(),
            Some("html") => pb::DocumentFormat::Html.into(),
            Some("pdf") => pb::DocumentFormat::Pdf.into(),
            Some(_) => UNKNOWN_ENUM,
        },
        title: text(d, "title"),
        source: text(d, "source"),
        metadata: some(d, "metadata", object),
        trust: match d["trust"].as_str() {
            None => 0,
            Some("unverified") => pb::Trust::Unverified.into(),
            Some("trusted") => pb::Trust::Trusted.into(),
            Some("quarantined") => pb::Trust::Quarantined.into(),
            Some(_) => UNKNOWN_ENUM,
        },
        provenance: some(d, "provenance", |p| pb::Provenance {
            origin: text(p, "origin"),
            author: text(p, "author"),
            fetched_at_ms: p["fetched_at_ms"].as_u64(),
            licence: text(p, "licence"),
        }),
        data: base64::engine::general_purpose::STANDARD
            .decode(text(d, "data"))
            .expect("a test's data is base64"),
    }
}

fn embedder(e: &Value) -> pb::Embedder {
    pb::Embedder {
        name: text(e, "name"),
        revision: text(e, "revision"),
        dim: number(e, "dim").unwrap_or(0),
        normalized: flag(e, "normalized"),
        query_prefix: text(e, "query_prefix"),
        passage_prefix: text(e, "passage_prefix"),
    }
}

fn schema(s: &Value) -> pb::Schema {
    pb::Schema {
        vectors: map(s.get("vectors"), |v| pb::VectorSpec {
            dim: number(v, "dim").unwrap_or(0),
            metric: match v["metric"].as_str() {
                Some("dot") => pb::Metric::Dot.into(),
                Some("euclid") => pb::Metric::Euclid.into(),
                Some("manhattan") => pb::Metric::Manhattan.into(),
                Some("hamming") => pb::Metric::Hamming.into(),
                _ => 0,
            },
            quantization: match v["quantization"].as_str() {
                Some("none") => pb::Quantization::None.into(),
                Some("int8") => pb::Quantization::Int8.into(),
                Some("int4") => pb::Quantization::Int4.into(),
                _ => 0,
            },
            index: v.get("index").map(|index| match index["type"].as_str() {
                Some("flat") => pb::vector_spec::Index::Flat(pb::FlatIndex {}),
                Some("ivf") => pb::vector_spec::Index::Ivf(pb::IvfIndex {
                    nlist: number(index, "nlist"),
                }),
                Some("faiss") => pb::vector_spec::Index::Faiss(pb::FaissIndex {
                    factory: index["factory"].as_str().unwrap_or_default().to_owned(),
                }),
                _ => pb::vector_spec::Index::Hnsw(pb::HnswIndex {
                    m: number(index, "m"),
                    ef_construction: number(index, "ef_construction"),
                }),
            }),
            embedder: some(v, "embedder", embedder),
        }),
        sparse: map(s.get("sparse"), |v| pb::SparseSpec {
            embedder: some(v, "embedder", embedder),
        }),
        fields: map(s.get("fields"), |f| {
            use pb::field_spec::Type;
            let r#type = match f["type"].as_str() {
                Some("keyword") => Some(Type::Keyword(pb::KeywordField {})),
                Some("integer") => Some(Type::Integer(pb::IntegerField {})),
                Some("float") => Some(Type::Float(pb::FloatField {})),
                Some("bool") => Some(Type::Bool(pb::BoolField {})),
                Some("stored") => Some(Type::Stored(pb::StoredField {})),
                Some("text") => {
                    let analyzer = f.get("analyzer").unwrap_or(&Value::Null);
                    let language = some(analyzer, "language", string);
                    Some(Type::Text(pb::TextField {
                        language,
                        version: number(analyzer, "version"),
                    }))
                }
                _ => None,
            };
            pb::FieldSpec { r#type }
        }),
        dynamic: s["dynamic"].as_bool(),
        shards: number(s, "shards"),
        durability: durability(s),
        chunking: some(s, "chunking", |c| pb::Chunking {
            max_tokens: number(c, "max_tokens"),
            overlap_tokens: number(c, "overlap_tokens"),
            strategy: match c["strategy"].as_str() {
                None => 0,
                Some("structure") => pb::ChunkStrategy::Structure.into(),
                Some("sentence") => pb::ChunkStrategy::Sentence.into(),
                Some("fixed") => pb::ChunkStrategy::Fixed.into(),
                Some(_) => UNKNOWN_ENUM,
            },
        }),
    }
}

// ---- answers ----

fn decode(method: Method, bytes: Bytes) -> Value {
    fn read<M: Message + Default>(bytes: Bytes) -> M {
        M::decode(bytes).expect("the server sends what it declares")
    }
    match method {
        Method::CreateCollection | Method::GetCollection => collection_json(read(bytes)),
        Method::ListCollections => json!({ "collections": read::<pb::ListCollectionsResponse>(bytes).collections }),
        Method::DeleteCollection
        | Method::Upsert
        | Method::DeletePoints
        | Method::SetPayload
        | Method::DeleteDocuments => {
            let m: pb::WriteResponse = read(bytes);
            json!({
                "token": m.token, "changed": m.changed, "durability": durability_json(m.durability()),
                "replayed": m.replayed,
            })
        }
        Method::GetPoints => {
            let m: pb::GetPointsResponse = read(bytes);
            let points: Vec<_> = m.points.into_iter().map(point_json).collect();
            without_nulls(json!({"points": points, "partial": partial_json(m.partial)}))
        }
        Method::Scroll => {
            let m: pb::ScrollResponse = read(bytes);
            let points: Vec<_> = m.points.into_iter().map(point_json).collect();
            without_nulls(json!({"points": points, "cursor": m.cursor, "partial": partial_json(m.partial)}))
        }
        Method::Count => {
            let m: pb::CountResponse = read(bytes);
            without_nulls(json!({"count": m.count, "partial": partial_json(m.partial)}))
        }
        Method::Query => {
            let m: pb::QueryResponse = read(bytes);
            let took_ms = m.took_ms;
            let mut answer = answer_json(m);
            answer["took_ms"] = json!(took_ms);
            answer
        }
        Method::QueryBatch => {
            let m: pb::QueryBatchResponse = read(bytes);
            json!({"results": m.results.into_iter().map(answer_json).collect::<Vec<_>>(), "took_ms": m.took_ms})
        }
        Method::PutDocuments => {
            let m: pb::PutDocumentsResponse = read(bytes);
            let one = |r: pb::PutDocumentResult| {
                without_nulls(json!({
                    "id": r.id, "unchanged": r.unchanged, "chunks": r.chunks, "embedded": r.embedded,
                    "near_duplicate_of": r.near_duplicate_of, "skipped": r.skipped, "replayed": r.replayed,
                }))
            };
            let durability = durability_json(m.durability());
            let token = (!m.token.is_empty()).then_some(m.token);
            let results: Vec<_> = m.results.into_iter().map(one).collect();
            without_nulls(json!({"results": results, "token": token, "durability": durability}))
        }
        Method::GetDocument => {
            let m: pb::GetDocumentResponse = read(bytes);
            let chunks: Vec<_> = m.chunks.into_iter().map(point_json).collect();
            let chunks = (!chunks.is_empty()).then_some(chunks);
            without_nulls(json!({"document": m.document.map(document_json), "chunks": chunks}))
        }
        Method::ListDocuments => {
            let m: pb::ListDocumentsResponse = read(bytes);
            let documents: Vec<_> = m.documents.into_iter().map(document_json).collect();
            without_nulls(json!({"documents": documents, "next": m.next}))
        }
        Method::Enrich => enriched_json(read(bytes)),
        Method::Optimize
        | Method::GetOperation
        | Method::CancelOperation
        | Method::CreateSnapshot
        | Method::VerifySnapshot
        | Method::RestoreSnapshot
        | Method::DeleteSnapshot => operation_json(read(bytes)),
        Method::GetSnapshot => snapshot_json(read(bytes)),
        Method::ListSnapshots => {
            let m: pb::ListSnapshotsResponse = read(bytes);
            json!({"snapshots": m.snapshots.into_iter().map(snapshot_json).collect::<Vec<_>>()})
        }
        Method::ListOperations => {
            let m: pb::ListOperationsResponse = read(bytes);
            json!({"operations": m.operations.into_iter().map(operation_json).collect::<Vec<_>>()})
        }
    }
}

fn operation_json(o: pb::Operation) -> Value {
    let state = o
        .state()
        .as_str_name()
        .trim_start_matches("OPERATION_STATE_")
        .to_lowercase();
    without_nulls(json!({
        "id": o.id, "kind": o.kind, "collection": o.collection, "state": state, "progress": o.progress,
        "message": o.message, "started_at_ms": o.started_at_ms, "ended_at_ms": o.ended_at_ms,
        "error_code": o.error_code, "error": o.error, "snapshot": o.snapshot,
    }))
}

fn snapshot_json(s: pb::Snapshot) -> Value {
    let collection =
        |c: pb::SnapshotCollection| json!({"collection": c.collection, "points": c.points, "documents": c.documents});
    let collections: Vec<Value> = s.collections.into_iter().map(collection).collect();
    without_nulls(json!({
        "snapshot": s.snapshot, "created_at_ms": s.created_at_ms, "token": s.token, "cairn": s.cairn, "files": s.files,
        "bytes": s.bytes, "collections_total": s.collections_total, "damaged": s.damaged,
        "collections": if collections.is_empty() { Value::Null } else { json!(collections) },
        "restorable": s.restorable.map(|r| json!({
            "from_token": r.from_token, "from_ms": r.from_ms, "to_token": r.to_token, "to_ms": r.to_ms,
        })),
    }))
}

fn without_nulls(mut object: Value) -> Value {
    if let Some(object) = object.as_object_mut() {
        object.retain(|_, value| !value.is_null());
    }
    object
}

fn value_json(v: pb::Value) -> Value {
    use pb::value::Kind;
    match v.kind {
        None | Some(Kind::Null(_)) => Value::Null,
        Some(Kind::Bool(b)) => json!(b),
        Some(Kind::Int(i)) => json!(i),
        Some(Kind::Uint(u)) => json!(u),
        Some(Kind::Double(d)) => json!(d),
        Some(Kind::String(s)) => json!(s),
        Some(Kind::List(l)) => l.values.into_iter().map(value_json).collect(),
        Some(Kind::Struct(s)) => object_json(s),
    }
}

fn object_json(s: pb::Struct) -> Value {
    Value::Object(s.fields.into_iter().map(|(key, v)| (key, value_json(v))).collect())
}

fn vectors_json(vectors: std::collections::BTreeMap<String, pb::Vector>) -> Value {
    if vectors.is_empty() {
        return Value::Null;
    }
    Value::Object(vectors.into_iter().map(|(name, v)| (name, json!(v.values))).collect())
}

fn sparse_json(vectors: std::collections::BTreeMap<String, pb::SparseVector>) -> Value {
    if vectors.is_empty() {
        return Value::Null;
    }
    let vector = |v: pb::SparseVector| json!({"indices": v.indices, "values": v.values});
    Value::Object(vectors.into_iter().map(|(name, v)| (name, vector(v))).collect())
}

fn point_json(p: pb::Point) -> Value {
    without_nulls(json!({
        "id": p.id, "vectors": vectors_json(p.vectors), "sparse": sparse_json(p.sparse), "payload": p.payload.map(object_json), "document": p.document,
        "version": p.version,
    }))
}

fn answer_json(m: pb::QueryResponse) -> Value {
    let hit = |h: pb::Hit| {
        let legs: Vec<_> = h
            .legs
            .into_iter()
            .map(|l| json!({"leg": l.leg, "raw": l.raw, "rank": l.rank}))
            .collect();
        let mut json = point_json(h.point.unwrap_or_default());
        json["score"] = json!(h.score);
        json["legs"] = json!(legs);
        json
    };
    let explain = |e: pb::Explain| {
        let leg = |l: pb::ExplainLeg| {
            without_nulls(
                json!({"leg": l.leg, "shard": l.shard, "segment": l.segment, "strategy": l.strategy,
                                 "matches": l.matches, "evaluated": l.evaluated}),
            )
        };
        e.legs.into_iter().map(leg).collect::<Vec<_>>()
    };
    let notes = (!m.notes.is_empty()).then_some(m.notes);
    without_nulls(json!({
        "hits": m.hits.into_iter().map(hit).collect::<Vec<_>>(), "token": m.token, "explain": m.explain.map(explain),
        "notes": notes, "stages": stages_json(m.stages), "partial": partial_json(m.partial),
    }))
}

fn partial_json(partial: Option<pb::Partial>) -> Option<Value> {
    let json = |p: pb::Partial| json!({"points": p.points, "segments": p.segments.into_iter().map(damaged_json).collect::<Vec<_>>()});
    partial.map(json)
}

fn damaged_json(d: pb::DamagedSegment) -> Value {
    json!({"collection": d.collection, "shard": d.shard, "segment": d.segment, "points": d.points, "reason": d.reason})
}

fn stages_json(stages: Vec<pb::Stage>) -> Value {
    let stage = |s: pb::Stage| {
        without_nulls(json!({"name": s.name, "took_ms": s.took_ms, "in": s.r#in, "out": s.out, "skipped": s.skipped}))
    };
    match stages.is_empty() {
        true => Value::Null,
        false => stages.into_iter().map(stage).collect(),
    }
}

fn document_json(d: pb::Document) -> Value {
    let trust = d.trust().as_str_name().trim_start_matches("TRUST_").to_lowercase();
    without_nulls(json!({
        "id": d.id, "title": d.title, "source": d.source, "metadata": object_json(d.metadata.unwrap_or_default()),
        "trust": trust, "provenance": d.provenance.map(provenance_json),
        "chunks": d.chunks, "text_bytes": d.text_bytes, "checksum": d.checksum, "version": d.version,
    }))
}

fn provenance_json(p: pb::Provenance) -> Value {
    let said = |text: String| (!text.is_empty()).then_some(text);
    without_nulls(json!({
        "origin": said(p.origin), "author": said(p.author), "fetched_at_ms": p.fetched_at_ms, "licence": said(p.licence),
    }))
}

fn collection_json(c: pb::Collection) -> Value {
    let notes = (!c.notes.is_empty()).then_some(c.notes);
    let damaged: Vec<_> = c.damaged.into_iter().map(damaged_json).collect();
    let damaged = (!damaged.is_empty()).then_some(damaged);
    let recall = c.recall_estimate;
    let recall = recall.map(|found| json!({"recall": found.recall, "questions": found.questions}));
    without_nulls(json!({
        "name": c.name, "schema": schema_json(c.schema.unwrap_or_default()), "points": c.points, "documents": c.documents,
        "indexed_points": c.indexed_points, "segments": c.segments, "dead_rows": c.dead_rows, "disk_bytes": c.disk_bytes,
        "growing_bytes": c.growing_bytes, "optimizing": c.optimizing, "notes": notes, "damaged": damaged,
        "recall_estimate": recall,
    }))
}

fn schema_json(s: pb::Schema) -> Value {
    use pb::field_spec::Type;
    use pb::vector_spec::Index;
    let vector = |(name, v): (String, pb::VectorSpec)| {
        let metric = v.metric().as_str_name().trim_start_matches("METRIC_").to_lowercase();
        let quantization = v
            .quantization()
            .as_str_name()
            .trim_start_matches("QUANTIZATION_")
            .to_lowercase();
        let index = v.index.map(|index| match index {
            Index::Flat(_) => json!({"type": "flat"}),
            Index::Hnsw(h) => json!({"type": "hnsw", "m": h.m, "ef_construction": h.ef_construction}),
            Index::Ivf(ivf) => without_nulls(json!({"type": "ivf", "nlist": ivf.nlist})),
            Index::Faiss(faiss) => json!({"type": "faiss", "factory": faiss.factory}),
        });
        let embedder = v.embedder.map(embedder_json);
        (
            name,
            without_nulls(
                json!({"dim": v.dim, "metric": metric, "quantization": quantization, "index": index, "embedder": embedder}),
            ),
        )
    };
    let sparse =
        |(name, s): (String, pb::SparseSpec)| (name, without_nulls(json!({"embedder": s.embedder.map(embedder_json)})));
    let field = |(path, f): (String, pb::FieldSpec)| {
        let json = match f.r#type {
            Some(Type::Keyword(_)) => json!({"type": "keyword"}),
            Some(Type::Integer(_)) => json!({"type": "integer"}),
            Some(Type::Float(_)) => json!({"type": "float"}),
            Some(Type::Bool(_)) => json!({"type": "bool"}),
            Some(Type::Stored(_)) => json!({"type": "stored"}),
            Some(Type::Text(t)) => {
                json!({"type": "text", "analyzer": {"language": t.language, "version": t.version}})
            }
            None => Value::Null,
        };
        (path, json)
    };
    let durability = durability_json(s.durability());
    let chunking = s.chunking.unwrap_or_default();
    without_nulls(json!({
        "vectors": s.vectors.into_iter().map(vector).collect::<Map<_, _>>(),
        "sparse": s.sparse.into_iter().map(sparse).collect::<Map<_, _>>(),
        "fields": s.fields.into_iter().map(field).collect::<Map<_, _>>(),
        "dynamic": s.dynamic, "shards": s.shards,
        "durability": durability,
        "chunking": {
            "max_tokens": chunking.max_tokens,
            "overlap_tokens": chunking.overlap_tokens,
            "strategy": chunking.strategy().as_str_name().trim_start_matches("CHUNK_STRATEGY_").to_lowercase(),
        },
    }))
}

fn embedder_json(e: pb::Embedder) -> Value {
    json!({"name": e.name, "revision": e.revision, "dim": e.dim, "normalized": e.normalized,
           "query_prefix": e.query_prefix, "passage_prefix": e.passage_prefix})
}

fn enriched_json(m: pb::EnrichResponse) -> Value {
    let named = |collection: String| (!collection.is_empty()).then_some(collection);
    let provenance = |p: pb::Provenance| {
        let said = |text: String| (!text.is_empty()).then_some(text);
        without_nulls(
            json!({"origin": said(p.origin), "author": said(p.author), "fetched_at_ms": p.fetched_at_ms, "licence": said(p.licence)}),
        )
    };
    let item = |c: pb::ContextItem| {
        let span = c.span.unwrap_or_default();
        let trust = trust_json(c.trust());
        without_nulls(
            json!({"n": c.n, "document": c.document, "title": c.title, "heading": c.heading, "source": c.source,
               "span": [span.start, span.end], "text": c.text, "score": c.score, "scores": c.scores, "ids": c.ids,
               "collection": named(c.collection), "trust": trust, "provenance": c.provenance.map(provenance)}),
        )
    };
    let messages: Vec<_> = m
        .messages
        .into_iter()
        .map(|m| json!({"role": m.role, "content": m.content}))
        .collect();
    let messages = (!messages.is_empty()).then_some(messages);
    let tokens = m.tokens.unwrap_or_default();
    let dropped: Vec<_> = m
        .dropped
        .into_iter()
        .map(|d| {
            without_nulls(
                json!({"id": d.id, "document": d.document, "reason": d.reason, "collection": named(d.collection)}),
            )
        })
        .collect();
    let notes = (!m.notes.is_empty()).then_some(m.notes);
    without_nulls(json!({
        "prompt": m.prompt, "messages": messages, "context": m.context.into_iter().map(item).collect::<Vec<_>>(),
        "tokens": {"prompt": tokens.prompt, "context": tokens.context, "budget": tokens.budget}, "dropped": dropped,
        "retrieval_id": m.retrieval_id, "took_ms": m.took_ms, "notes": notes, "system": m.system,
        "stages": stages_json(m.stages), "query": m.query, "partial": partial_json(m.partial),
    }))
}
