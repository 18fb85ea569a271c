//! The table of requests that must be refused: what is sent, and the status and code that answer it. Used by the tests here
//! and by `cairn-bench badinput`.
//!
//! Most cases are meant once and sent through both protocols; some can only be said in one. They need the collections
//! that [`prepare`] makes. A server that passes answers every one of them, and still serves.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{Failure, Grpc, Kind, Method, Outcome, Request, Rest};

/// A request that must be refused.
pub struct Case {
    /// What is wrong, as a claim.
    pub name: &'static str,
    /// What is sent.
    pub send: Send,
    /// What the caller should do.
    pub kind: Kind,
    /// The stable code.
    pub code: &'static str,
    /// A part of the message: what is allowed, or what was wrong.
    pub says: &'static str,
    /// The place, if the case is about it.
    pub pointer: Option<&'static str>,
}

/// How a case is sent.
pub enum Send {
    /// By both protocols.
    Both(Request),
    /// A request that only JSON can say.
    Json(Request),
    /// A request that only messages can say.
    Message(Request),
    /// Any HTTP request.
    Http {
        /// The HTTP method.
        verb: &'static str,
        /// Path and query.
        path: &'static str,
        /// Headers.
        headers: &'static [(&'static str, &'static str)],
        /// Made when it is sent: some are large.
        body: fn() -> Vec<u8>,
    },
    /// Any bytes to any gRPC method.
    Bytes {
        /// The method.
        path: &'static str,
        /// Made when it is sent: some are large.
        message: fn() -> Vec<u8>,
    },
}

/// The collection with four dimensions, a sparse vector, a keyword and an integer that the cases are about.
pub const POINTS: &str = "bad-points";
/// The collection for documents.
pub const DOCUMENTS: &str = "bad-documents";
/// The collection with two dense and two sparse vectors and no text.
pub const TWO: &str = "bad-two";

/// Makes the collections that the cases need; repeating it is fine.
pub async fn prepare(rest: &Rest) -> Result<(), Failure> {
    let points = json!({"vectors": {"v": {"dim": 4}}, "sparse": {"s": {}},
                        "fields": {"lang": {"type": "keyword"}, "n": {"type": "integer"}, "body": {"type": "text"}}});
    let two = json!({"vectors": {"a": {"dim": 2}, "b": {"dim": 8, "metric": "hamming"}}, "sparse": {"s": {}, "t": {}}});
    for (name, schema) in [(POINTS, points), (DOCUMENTS, json!({})), (TWO, two)] {
        rest.send(&Request::new(Method::CreateCollection, name, schema)).await?;
    }
    let some = json!({"points": [{"id": "a", "vector": [1, 0, 0, 0], "payload": {"lang": "en", "n": 1}},
                                 {"id": "b", "vector": [0, 1, 0, 0], "payload": {"lang": "de", "n": 2}}]});
    rest.send(&Request::new(Method::Upsert, POINTS, some)).await?;
    Ok(())
}

/// Sends a case by every protocol that can say it, and lists what was not as it must be: nothing if all is well.
pub async fn check(case: &Case, rest: &Rest, grpc: &Grpc) -> Vec<String> {
    let mut outcomes: Vec<(&str, Outcome)> = Vec::new();
    match &case.send {
        Send::Both(request) => {
            outcomes.push(("rest", rest.send(request).await));
            outcomes.push(("grpc", grpc.send(request).await));
        }
        Send::Json(request) => outcomes.push(("rest", rest.send(request).await)),
        Send::Message(request) => outcomes.push(("grpc", grpc.send(request).await)),
        Send::Http {
            verb,
            path,
            headers,
            body,
        } => {
            let headers: Vec<_> = headers
                .iter()
                .map(|(name, value)| (*name, (*value).to_owned()))
                .collect();
            outcomes.push(("rest", rest.raw(verb, path, &headers, body()).await));
        }
        Send::Bytes { path, message } => {
            let answer = grpc.raw(path, message(), Some(Duration::from_secs(30))).await;
            outcomes.push(("grpc", answer.map(|bytes| json!(bytes.len()))));
        }
    }
    outcomes
        .into_iter()
        .filter_map(|(api, outcome)| wrong(case, api, outcome))
        .collect()
}

fn wrong(case: &Case, api: &str, outcome: Outcome) -> Option<String> {
    let failure = match outcome {
        Ok(answer) => return Some(format!("{api}: {}: answered with {answer}", case.name)),
        Err(failure) => failure,
    };
    let as_expected = case.kind.is(&failure)
        && failure.code == case.code
        && failure.message.contains(case.says)
        && case
            .pointer
            .is_none_or(|pointer| failure.pointer.as_deref() == Some(pointer));
    (!as_expected).then(|| {
        format!(
            "{api}: {}: expected {:?} {} {:?} at {:?}, got {failure:?}",
            case.name, case.kind, case.code, case.says, case.pointer
        )
    })
}

/// A case by both protocols; the others are made of it.
fn both(name: &'static str, request: Request, kind: Kind, code: &'static str, says: &'static str) -> Case {
    Case {
        name,
        send: Send::Both(request),
        kind,
        code,
        says,
        pointer: None,
    }
}

impl Case {
    fn at(mut self, pointer: &'static str) -> Self {
        self.pointer = Some(pointer);
        self
    }

    fn only(mut self, api: fn(Request) -> Send) -> Self {
        if let Send::Both(request) = self.send {
            self.send = api(request);
        }
        self
    }
}

/// Every case.
pub fn cases() -> Vec<Case> {
    [
        names(),
        schemas(),
        points(),
        filters(),
        queries(),
        rankings(),
        documents(),
        prompts(),
        full_prompts(),
        deadlines(),
        http(),
        messages(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn names() -> Vec<Case> {
    use Kind::{Invalid, NotFound};
    let get = |name: &str| Request::new(Method::GetCollection, name, Value::Null);
    let create = |name: &str| Request::new(Method::CreateCollection, name, json!({}));
    vec![
        both(
            "an unknown collection",
            get("nowhere"),
            NotFound,
            "collection_not_found",
            "nowhere",
        ),
        both(
            "deleting an unknown collection",
            Request::new(Method::DeleteCollection, "nowhere", Value::Null),
            NotFound,
            "collection_not_found",
            "nowhere",
        ),
        both(
            "asking an unknown collection",
            Request::new(Method::Query, "nowhere", json!({"nearest": {"vector": [1]}})),
            NotFound,
            "collection_not_found",
            "nowhere",
        ),
        both(
            "a name that climbs",
            create("../../etc/passwd"),
            Invalid,
            "bad_name",
            "[a-z0-9]",
        ),
        both("a name of dots", create("a..b"), Invalid, "bad_name", ".."),
        both("a name with a slash", create("a/b"), Invalid, "bad_name", "[a-z0-9]"),
        both(
            "a name with a zero byte",
            create("a\0b"),
            Invalid,
            "bad_name",
            "[a-z0-9]",
        ),
        both("a name in upper case", create("Docs"), Invalid, "bad_name", "[a-z0-9]"),
        both(
            "a name that is too long",
            create(&"x".repeat(129)),
            Invalid,
            "bad_name",
            "128",
        ),
        both("a hidden name", get(".hidden"), Invalid, "bad_name", "[a-z0-9]"),
        both("a name of emoji", get("\u{1f5ff}"), Invalid, "bad_name", "[a-z0-9]"),
    ]
}

fn schemas() -> Vec<Case> {
    use Kind::{Exists, Invalid};
    let create = |schema: Value| Request::new(Method::CreateCollection, "bad-new", schema);
    let vector = |spec: Value| create(json!({"vectors": {"v": spec}}));
    let embedder = json!({"name": "some-other-model", "revision": "1", "dim": 8});
    vec![
        both(
            "no dimensions",
            vector(json!({"dim": 0})),
            Invalid,
            "bad_dim",
            "1 to 65535",
        ),
        both(
            "too many dimensions",
            vector(json!({"dim": 65_536})),
            Invalid,
            "bad_dim",
            "1 to 65535",
        ),
        both(
            "parts of a byte under hamming",
            vector(json!({"dim": 12, "metric": "hamming"})),
            Invalid,
            "bad_dim",
            "multiple of 8",
        ),
        both(
            "an embedder under hamming",
            vector(json!({"dim": 8, "metric": "hamming", "embedder": embedder})),
            Invalid,
            "bad_metric",
            "zeros and ones",
        ),
        both(
            "a graph of one link",
            vector(json!({"dim": 4, "index": {"type": "hnsw", "m": 1}})),
            Invalid,
            "bad_index",
            "2 to 256",
        ),
        both(
            "too small an ef_construction",
            vector(json!({"dim": 4, "index": {"type": "hnsw", "m": 16, "ef_construction": 8}})),
            Invalid,
            "bad_index",
            "4096",
        ),
        both(
            "no lists",
            vector(json!({"dim": 4, "index": {"type": "ivf", "nlist": 0}})),
            Invalid,
            "bad_index",
            "1 to 65536",
        ),
        both(
            "too many lists",
            vector(json!({"dim": 4, "index": {"type": "ivf", "nlist": 65_537}})),
            Invalid,
            "bad_index",
            "1 to 65536",
        ),
        both(
            "an embedder of other dimensions",
            vector(json!({"dim": 4, "embedder": embedder})),
            Invalid,
            "bad_dim",
            "8",
        ),
        both(
            "an embedder that is not here, of unknown length",
            vector(json!({"embedder": {"name": "some-other-model"}})),
            Invalid,
            "unknown_embedder",
            "static-minilm-256",
        ),
        both(
            "an embedder of another revision",
            vector(json!({"embedder": {"name": "static-minilm-256", "revision": "0"}})),
            Invalid,
            "unknown_embedder",
            "revision: \"1\", not \"0\"",
        ),
        both(
            "an embedder with a prefix it does not have",
            vector(json!({"dim": 256, "embedder": {"name": "static-minilm-256", "query_prefix": "query: "}})),
            Invalid,
            "unknown_embedder",
            "query_prefix",
        ),
        both(
            "no shards",
            create(json!({"vectors": {"v": {"dim": 4}}, "shards": 0})),
            Invalid,
            "bad_shards",
            "1 to 64",
        ),
        both(
            "an unknown language",
            create(json!({"fields": {"t": {"type": "text", "analyzer": {"language": "klingon"}}}})),
            Invalid,
            "bad_analyzer",
            "english",
        ),
        both(
            "chunks that are all overlap",
            create(json!({"chunking": {"max_tokens": 64, "overlap_tokens": 64}})),
            Invalid,
            "bad_chunking",
            "half",
        ),
        both(
            "a way to cut that nobody knows",
            create(json!({"chunking": {"strategy": "page"}})),
            Invalid,
            "bad_request",
            "sentence",
        )
        .only(Send::Json)
        .at("/chunking/strategy"),
        both(
            "a way to cut that has no number",
            create(json!({"chunking": {"strategy": "page"}})),
            Invalid,
            "bad_request",
            "ChunkStrategy",
        )
        .only(Send::Message)
        .at("/schema/chunking/strategy"),
        both(
            "a vector's name that climbs",
            create(json!({"vectors": {"../v": {"dim": 4}}})),
            Invalid,
            "bad_name",
            "[a-z0-9]",
        ),
        both(
            "a field with an empty part",
            create(json!({"fields": {"a..b": {"type": "keyword"}}})),
            Invalid,
            "bad_field",
            "dotted",
        ),
        both(
            "another schema under a taken name",
            Request::new(Method::CreateCollection, POINTS, json!({"vectors": {"v": {"dim": 5}}})),
            Exists,
            "collection_exists",
            "another schema",
        ),
        both(
            "an unknown key in a schema",
            create(json!({"vector": {}})),
            Invalid,
            "bad_request",
            "expected one of",
        )
        .only(Send::Json),
        both(
            "an unknown metric",
            vector(json!({"dim": 4, "metric": "taxi"})),
            Invalid,
            "bad_request",
            "manhattan",
        )
        .only(Send::Json)
        .at("/vectors/v/metric"),
        both(
            "unknown codes",
            vector(json!({"dim": 4, "quantization": "int2"})),
            Invalid,
            "bad_request",
            "int4",
        )
        .only(Send::Json)
        .at("/vectors/v/quantization"),
        both(
            "one name for a dense and a sparse vector",
            create(json!({"vectors": {"v": {"dim": 2}}, "sparse": {"v": {}}})),
            Invalid,
            "bad_name",
            "one or the other",
        ),
        both(
            "a sparse vector with a name that is none",
            create(json!({"sparse": {"No": {}}})),
            Invalid,
            "bad_name",
            "a-z0-9",
        ),
        both(
            "an unknown field type",
            create(json!({"fields": {"f": {"type": "blob"}}})),
            Invalid,
            "bad_request",
            "keyword",
        )
        .only(Send::Json),
        both(
            "an analyzer on a keyword",
            create(json!({"fields": {"f": {"type": "keyword", "analyzer": {}}}})),
            Invalid,
            "bad_field",
            "text",
        )
        .only(Send::Json),
    ]
}

fn points() -> Vec<Case> {
    use Kind::Invalid;
    let upsert = |points: Value| Request::new(Method::Upsert, POINTS, json!({ "points": points }));
    let point = |point: Value| upsert(json!([{"id": "ok", "vector": [1, 0, 0, 0]}, point]));
    let embedded = |point: Value| {
        let points = json!({"points": [{"id": "ok", "embed": {"dense": {"text": "a cat"}}}, point]});
        Request::new(Method::Upsert, DOCUMENTS, points)
    };
    let delete = |body: Value| Request::new(Method::DeletePoints, POINTS, body);
    let mut deep = json!(1);
    for _ in 0..40 {
        deep = json!([deep]);
    }
    let long = "x".repeat(513);
    vec![
        both(
            "a vector of the wrong dimension",
            point(json!({"id": "p", "vector": [1, 2, 3]})),
            Invalid,
            "wrong_dim",
            "4",
        )
        .at("/points/1/vectors/v"),
        both(
            "a vector with a name nobody gave",
            point(json!({"id": "p", "vectors": {"w": [1, 2, 3, 4]}})),
            Invalid,
            "vector_not_found",
            "v",
        )
        .at("/points/1/vectors/w"),
        both(
            "something to embed for a vector without an embedder",
            point(json!({"id": "p", "embed": {"v": {"text": "cat"}}})),
            Invalid,
            "no_embedder",
            "give a vector",
        )
        .at("/points/1/embed/v"),
        both(
            "something to embed for a vector with a name nobody gave",
            point(json!({"id": "p", "embed": {"w": {"text": "cat"}}})),
            Invalid,
            "vector_not_found",
            "v",
        )
        .at("/points/1/embed/w"),
        both(
            "nothing to embed",
            point(json!({"id": "p", "embed": {"v": {}}})),
            Invalid,
            "bad_input",
            "exactly one",
        )
        .at("/points/1/embed/v"),
        both(
            "two things to embed",
            point(json!({"id": "p", "embed": {"v": {"text": "cat", "image": "https://example.org/cat.png"}}})),
            Invalid,
            "bad_input",
            "exactly one",
        )
        .only(Send::Json)
        .at("/points/1/embed/v"),
        both(
            "an image for an embedder of text",
            embedded(json!({"id": "p", "embed": {"dense": {"image": "https://example.org/cat.png"}}})),
            Invalid,
            "medium_not_supported",
            "an image",
        )
        .at("/points/1/embed/dense"),
        both(
            "a text to embed that holds nothing",
            embedded(json!({"id": "p", "embed": {"dense": {"text": " "}}})),
            Invalid,
            "empty_text",
            "",
        )
        .at("/points/1/embed/dense"),
        both(
            "a vector and what it is embedded from",
            embedded(json!({"id": "p", "vectors": {"dense": vec![0.5; 256]}, "embed": {"dense": {"text": "cat"}}})),
            Invalid,
            "bad_point",
            "not both",
        )
        .at("/points/1/embed/dense"),
        both(
            "vectors that are said to be of another model",
            Request::new(
                Method::Upsert,
                DOCUMENTS,
                json!({"points": [{"id": "p", "vectors": {"dense": vec![0.5; 256]}}], "embedders": {"dense": {"name": "e5"}}}),
            ),
            Invalid,
            "embedder_mismatch",
            "vectors of static-minilm-256",
        )
        .at("/embedders/dense"),
        both(
            "a model of a vector that records none",
            Request::new(
                Method::Upsert,
                POINTS,
                json!({"points": [{"id": "p", "vector": [1, 0, 0, 0]}], "embedders": {"v": {"name": "e5"}}}),
            ),
            Invalid,
            "embedder_mismatch",
            "records no embedder",
        )
        .at("/embedders/v"),
        both(
            "a model of a vector with a name nobody gave",
            Request::new(
                Method::Upsert,
                POINTS,
                json!({"points": [{"id": "p", "vector": [1, 0, 0, 0]}], "embedders": {"w": {"name": "e5"}}}),
            ),
            Invalid,
            "vector_not_found",
            "v, s",
        )
        .at("/embedders/w"),
        both(
            "NaN in a vector",
            point(json!({"id": "p", "vector": [1, "NaN", 3, 4]})),
            Invalid,
            "not_finite",
            "finite",
        )
        .only(Send::Message)
        .at("/points/1/vectors/v"),
        both(
            "an infinite number in a vector",
            point(json!({"id": "p", "vector": [1, "inf", 3, 4]})),
            Invalid,
            "not_finite",
            "finite",
        )
        .only(Send::Message),
        both(
            "a number beyond f32 in a message's vector",
            point(json!({"id": "p", "vector": [1e39, 0, 0, 0]})),
            Invalid,
            "not_finite",
            "finite",
        )
        .only(Send::Message),
        both(
            "a vector whose products are beyond f32",
            point(json!({"id": "p", "vector": [1e38, 0, 0, 0]})),
            Invalid,
            "vector_too_long",
            "1e18",
        )
        .at("/points/1/vectors/v"),
        both(
            "a number beyond f32 in JSON",
            point(json!({"id": "p", "vector": [1e39, 0, 0, 0]})),
            Invalid,
            "bad_json",
            "out of range",
        )
        .only(Send::Json),
        both(
            "a sparse vector with a name nobody gave",
            point(json!({"id": "p", "sparse": {"w": {"indices": [1], "values": [1]}}})),
            Invalid,
            "vector_not_found",
            "s",
        )
        .at("/points/1/sparse/w"),
        both(
            "a dense vector under the name of a sparse one",
            point(json!({"id": "p", "vectors": {"s": [1, 0, 0, 0]}})),
            Invalid,
            "vector_not_found",
            "v",
        )
        .at("/points/1/vectors/s"),
        both(
            "sparse indices that do not ascend",
            point(json!({"id": "p", "sparse": {"s": {"indices": [1, 7, 7], "values": [1, 2, 3]}}})),
            Invalid,
            "bad_sparse_vector",
            "ascend strictly",
        )
        .at("/points/1/sparse/s/indices/2"),
        both(
            "more sparse indices than values",
            point(json!({"id": "p", "sparse": {"s": {"indices": [1, 7], "values": [1]}}})),
            Invalid,
            "bad_sparse_vector",
            "got 1 and 2",
        )
        .at("/points/1/sparse/s/values"),
        both(
            "a sparse weight of zero",
            point(json!({"id": "p", "sparse": {"s": {"indices": [1, 7], "values": [1, 0]}}})),
            Invalid,
            "bad_sparse_vector",
            "leave it out",
        )
        .at("/points/1/sparse/s/values/1"),
        both(
            "a sparse weight that is NaN",
            point(json!({"id": "p", "sparse": {"s": {"indices": [1], "values": ["NaN"]}}})),
            Invalid,
            "not_finite",
            "finite",
        )
        .only(Send::Message)
        .at("/points/1/sparse/s/values/0"),
        both(
            "more sparse weights than allowed",
            point(json!({"id": "p", "sparse": {"s": {"indices": (0..4_097).collect::<Vec<_>>(), "values": vec![1; 4_097]}}})),
            Invalid,
            "bad_sparse_vector",
            "4096",
        )
        .at("/points/1/sparse/s/indices"),
        both(
            "a negative sparse index",
            point(json!({"id": "p", "sparse": {"s": {"indices": [-1], "values": [1]}}})),
            Invalid,
            "bad_request",
            "-1",
        )
        .only(Send::Json)
        .at("/points/1/sparse/s/indices/0"),
        both(
            "a zero vector under cosine",
            point(json!({"id": "p", "vector": [0, 0, 0, 0]})),
            Invalid,
            "zero_vector",
            "direction",
        ),
        both(
            "a number that is no bit under hamming",
            Request::new(
                Method::Upsert,
                TWO,
                json!({"points": [{"id": "p", "vectors": {"b": [1, 0, 1, 0.5, 0, 0, 0, 0]}}]}),
            ),
            Invalid,
            "not_a_bit",
            "element 3 is 0.5",
        )
        .at("/points/0/vectors/b"),
        both(
            "an empty id",
            point(json!({"id": "", "vector": [1, 0, 0, 0]})),
            Invalid,
            "bad_id",
            "1 to 512",
        )
        .at("/points/1/id"),
        both(
            "an id that is too long",
            point(json!({"id": long, "vector": [1, 0, 0, 0]})),
            Invalid,
            "bad_id",
            "1 to 512",
        ),
        both(
            "both vector and vectors",
            point(json!({"id": "p", "vector": [1, 0, 0, 0], "vectors": {"v": [1, 0, 0, 0]}})),
            Invalid,
            "bad_point",
            "not both",
        )
        .at("/points/1/vectors"),
        both(
            "an unnamed vector where there are two",
            Request::new(Method::Upsert, TWO, json!({"points": [{"id": "p", "vector": [1, 0]}]})),
            Invalid,
            "vector_not_named",
            "a, b",
        )
        .at("/points/0/vector"),
        both("no points", upsert(json!([])), Invalid, "bad_batch", "1 to 10000").at("/points"),
        both(
            "too many points",
            upsert((0..10_001).map(|i| json!({"id": i})).collect()),
            Invalid,
            "bad_batch",
            "1 to 10000",
        ),
        both(
            "a payload of the wrong type",
            point(json!({"id": "p", "payload": {"n": "many"}})),
            Invalid,
            "payload_type",
            "n",
        ),
        both(
            "a payload that is too deep",
            point(json!({"id": "p", "payload": {"deep": deep}})),
            Invalid,
            "payload_too_deep",
            "32",
        ),
        both(
            "a payload that is too large",
            point(json!({"id": "p", "payload": {"lang": ["x"], "big": "y".repeat(1 << 20)}})),
            Invalid,
            "payload_too_large",
            "1048576",
        ),
        both(
            "a request id that is too long",
            Request::new(
                Method::Upsert,
                POINTS,
                json!({"points": [{"id": "p"}], "request_id": "r".repeat(65)}),
            ),
            Invalid,
            "bad_request_id",
            "64",
        ),
        both(
            "a durability that there is not",
            Request::new(
                Method::Upsert,
                POINTS,
                json!({"points": [{"id": "p"}], "durability": "eventual"}),
            ),
            Invalid,
            "bad_request",
            "",
        )
        .at("/durability"),
        both(
            "an id that is a list",
            point(json!({"id": ["p"]})),
            Invalid,
            "bad_request",
            "string or an integer",
        )
        .only(Send::Json)
        .at("/points/1/id"),
        both(
            "an id that is a fraction",
            point(json!({"id": 1.5})),
            Invalid,
            "bad_request",
            "string or an integer",
        )
        .only(Send::Json),
        both(
            "a payload that is a list",
            point(json!({"id": "p", "payload": []})),
            Invalid,
            "bad_request",
            "map",
        )
        .only(Send::Json)
        .at("/points/1/payload"),
        both(
            "a text in a vector",
            point(json!({"id": "p", "vector": [1, "two", 3, 4]})),
            Invalid,
            "bad_request",
            "f32",
        )
        .only(Send::Json)
        .at("/points/1/vector/1"),
        both(
            "an unknown key in a point",
            point(json!({"id": "p", "vektor": [1]})),
            Invalid,
            "bad_request",
            "vektor",
        )
        .only(Send::Json),
        both(
            "no ids to get",
            Request::new(Method::GetPoints, POINTS, json!({"ids": []})),
            Invalid,
            "bad_batch",
            "1 to 10000",
        ),
        both(
            "deleting by an empty filter",
            delete(json!({"filter": {}})),
            Invalid,
            "empty_filter",
            "condition",
        )
        .at("/filter"),
        both(
            "deleting by ids and filter",
            delete(json!({"ids": ["a"], "filter": {"must": [{"has_id": ["a"]}]}})),
            Invalid,
            "bad_selector",
            "not both",
        ),
        both(
            "a payload change that changes nothing",
            Request::new(Method::SetPayload, POINTS, json!({"ids": ["a"]})),
            Invalid,
            "bad_change",
            "set or unset",
        ),
        both(
            "a cursor of our own making",
            Request::new(Method::Scroll, POINTS, json!({"cursor": "../../x"})),
            Invalid,
            "bad_cursor",
            "cursor",
        ),
        both(
            "a page of nothing",
            Request::new(Method::Scroll, POINTS, json!({"limit": 0})),
            Invalid,
            "bad_limit",
            "1 to 10000",
        ),
        both(
            "a page of everything",
            Request::new(Method::Scroll, POINTS, json!({"limit": 10_001})),
            Invalid,
            "bad_limit",
            "1 to 10000",
        ),
    ]
}

fn filters() -> Vec<Case> {
    use Kind::Invalid;
    let count = |filter: Value| Request::new(Method::Count, POINTS, json!({ "filter": filter }));
    let must = |condition: Value| count(json!({ "must": [condition] }));
    let mut deep = json!({"field": "lang", "match": "en"});
    for _ in 0..20 {
        deep = json!({ "must": [deep] });
    }
    let many: Vec<u32> = (0..5_000).collect();
    vec![
        both(
            "a condition that says nothing",
            must(json!({"field": "lang"})),
            Invalid,
            "bad_filter",
            "match",
        )
        .at("/filter/must/0"),
        both(
            "a test without a field",
            must(json!({"match": 1})),
            Invalid,
            "bad_filter",
            "field",
        )
        .at("/filter/must/0/field"),
        both(
            "a match against an object",
            must(json!({"field": "lang", "match": {"a": 1}})),
            Invalid,
            "bad_filter",
            "string",
        ),
        both(
            "an empty list of values",
            must(json!({"field": "lang", "any": []})),
            Invalid,
            "bad_filter",
            "empty",
        ),
        both(
            "a range without bounds",
            must(json!({"field": "n", "range": {}})),
            Invalid,
            "bad_filter",
            "gte",
        ),
        both(
            "a filter that is too deep",
            count(json!({"must": [deep]})),
            Invalid,
            "filter_too_deep",
            "16",
        ),
        both(
            "a filter that is too large",
            must(json!({"field": "n", "any": many})),
            Invalid,
            "filter_too_large",
            "4096",
        ),
        both(
            "more shoulds than there are",
            count(json!({"should": [{"field": "lang", "match": "en"}], "min_should": 2})),
            Invalid,
            "bad_filter",
            "min_should",
        )
        .at("/filter/min_should"),
        both(
            "a match on a text field",
            must(json!({"field": "body", "match": "word"})),
            Invalid,
            "field_not_indexed",
            "body",
        ),
        both(
            "an empty id in a filter",
            must(json!({"has_id": ["a", ""]})),
            Invalid,
            "bad_id",
            "1 to 512",
        ),
        both(
            "an unknown condition",
            must(json!({"field": "lang", "like": "e%"})),
            Invalid,
            "bad_request",
            "like",
        )
        .only(Send::Json),
        both("a filter that is a list", count(json!([])), Invalid, "bad_request", "").only(Send::Json),
    ]
}

fn queries() -> Vec<Case> {
    use Kind::{Conflict, Invalid};
    let on = |collection: &str, query: Value| Request::new(Method::Query, collection, query);
    let query = |query: Value| on(POINTS, query);
    let near = |rest: Value| {
        let mut q = json!({"nearest": {"vector": [1, 0, 0, 0]}});
        q.as_object_mut()
            .expect("an object")
            .extend(rest.as_object().expect("an object").clone());
        query(q)
    };
    let legs = |n: usize, fuse: Value| {
        query(json!({"prefetch": vec![json!({"nearest": {"vector": [1, 0, 0, 0]}}); n], "fuse": fuse}))
    };
    let mut deep = json!({"nearest": {"vector": [1, 0, 0, 0]}});
    for _ in 0..6 {
        deep = json!({ "prefetch": [deep] });
    }
    vec![
        both(
            "a query without a source",
            query(json!({"limit": 3})),
            Invalid,
            "bad_query",
            "nearest, sparse, text, hybrid, prefetch",
        ),
        both(
            "nearest to nothing",
            query(json!({"nearest": {}})),
            Invalid,
            "bad_query",
            "vector, text, image, audio",
        )
        .at("/nearest"),
        both(
            "nearest to two things",
            query(json!({"nearest": {"text": "cat", "image": "https://example.org/cat.png"}})),
            Invalid,
            "bad_query",
            "exactly one",
        )
        .only(Send::Json)
        .at("/nearest"),
        both(
            "an image for a model of text",
            on(DOCUMENTS, json!({"nearest": {"image": "https://example.org/cat.png"}})),
            Invalid,
            "medium_not_supported",
            "static-minilm-256, which makes this vector, does not take an image",
        )
        .at("/nearest/image"),
        both(
            "a sound for a model of text, in a leg",
            on(DOCUMENTS, json!({"prefetch": [{"nearest": {"audio": "data:audio/wav;base64,AAAA"}}]})),
            Invalid,
            "medium_not_supported",
            "does not take audio",
        )
        .at("/prefetch/0/nearest/audio"),
        both(
            "an image for a vector without an embedder",
            query(json!({"nearest": {"image": "https://example.org/cat.png"}})),
            Invalid,
            "no_embedder",
            "give a vector",
        )
        .at("/nearest"),
        both(
            "an image that is no reference",
            on(DOCUMENTS, json!({"nearest": {"image": "cat.png"}})),
            Invalid,
            "bad_input",
            "http://, https:// or data:",
        )
        .at("/nearest/image"),
        both(
            "an image without end",
            on(DOCUMENTS, json!({"nearest": {"image": format!("data:image/png;base64,{}", "A".repeat(8 << 20))}})),
            Invalid,
            "bad_input",
            "8388608",
        )
        .at("/nearest/image"),
        both(
            "a query vector of another model",
            on(DOCUMENTS, json!({"nearest": {"vector": vec![0.5; 256], "embedder": {"name": "e5"}}})),
            Invalid,
            "embedder_mismatch",
            "vectors of static-minilm-256",
        )
        .at("/nearest/embedder"),
        both(
            "a text for another model, in a leg",
            on(
                DOCUMENTS,
                json!({"prefetch": [{"nearest": {"text": "cat", "embedder": {"name": "static-minilm-256", "revision": "0"}}}]}),
            ),
            Invalid,
            "embedder_mismatch",
            "differs in revision",
        )
        .at("/prefetch/0/nearest/embedder"),
        both(
            "a sparse query vector of a model that is not recorded",
            query(json!({"sparse": {"vector": {"indices": [1], "values": [1]}, "embedder": {"name": "splade"}}})),
            Invalid,
            "embedder_mismatch",
            "records no embedder",
        )
        .at("/sparse/embedder"),
        both(
            "a query vector of the wrong dimension",
            query(json!({"nearest": {"vector": [1, 2]}})),
            Invalid,
            "wrong_dim",
            "4",
        ),
        both(
            "NaN in a query vector",
            query(json!({"nearest": {"vector": ["NaN", 0, 0, 0]}})),
            Invalid,
            "not_finite",
            "finite",
        )
        .only(Send::Message),
        both(
            "a query vector of zeros under cosine",
            query(json!({"nearest": {"vector": [0, 0, 0, 0]}})),
            Invalid,
            "zero_vector",
            "direction",
        ),
        both(
            "a query of numbers that are no bits under hamming",
            on(TWO, json!({"nearest": {"vector": [1, 0, -1, 0, 0, 0, 0, 0], "using": "b"}})),
            Invalid,
            "not_a_bit",
            "element 2 is -1",
        )
        .at("/nearest/vector"),
        both(
            "an unknown vector",
            query(json!({"nearest": {"vector": [1, 0, 0, 0], "using": "w"}})),
            Invalid,
            "vector_not_found",
            "v",
        ),
        both(
            "a name as long as a page, which the answer repeats",
            query(json!({"nearest": {"vector": [1, 0, 0, 0], "using": "w".repeat(100_000)}})),
            Invalid,
            "vector_not_found",
            "(cut)",
        ),
        both(
            "an unnamed vector where there are two",
            on(TWO, json!({"nearest": {"vector": [1, 0]}})),
            Invalid,
            "vector_not_named",
            "a, b",
        ),
        both(
            "a sparse query of nothing",
            query(json!({"sparse": {}})),
            Invalid,
            "bad_query",
            "vector or a text",
        )
        .at("/sparse"),
        both(
            "a sparse query vector that is none",
            query(json!({"sparse": {"vector": {"indices": [3, 1], "values": [1, 1]}}})),
            Invalid,
            "bad_sparse_vector",
            "ascend strictly",
        )
        .at("/sparse/vector/indices/1"),
        both(
            "a sparse leg that is wrong",
            query(json!({"prefetch": [{"text": {"query": "a"}}, {"sparse": {"vector": {"indices": [1], "values": [0]}}}]})),
            Invalid,
            "bad_sparse_vector",
            "leave it out",
        )
        .at("/prefetch/1/sparse/vector/values/0"),
        both(
            "an unknown sparse vector",
            query(json!({"sparse": {"vector": {"indices": [1], "values": [1]}, "using": "v"}})),
            Invalid,
            "vector_not_found",
            "s",
        )
        .at("/sparse/using"),
        both(
            "an unnamed sparse vector where there are two",
            on(TWO, json!({"sparse": {"vector": {"indices": [1], "values": [1]}}})),
            Invalid,
            "vector_not_named",
            "s, t",
        )
        .at("/sparse/using"),
        both(
            "a sparse vector where there is none",
            on(DOCUMENTS, json!({"sparse": {"vector": {"indices": [1], "values": [1]}}})),
            Invalid,
            "vector_not_found",
            "declare one",
        )
        .at("/sparse/using"),
        both(
            "a prompt for sparse vectors where there are none",
            Request::new(Method::Enrich, DOCUMENTS, json!({"prompt": "a", "mode": "sparse"})),
            Invalid,
            "vector_not_found",
            "declare one",
        )
        .at("/mode"),
        both(
            "a prompt for a sparse vector without an embedder",
            Request::new(Method::Enrich, POINTS, json!({"prompt": "a", "mode": "sparse"})),
            Invalid,
            "no_embedder",
            "give a vector",
        )
        .at("/mode"),
        both(
            "text for a sparse vector without an embedder",
            query(json!({"sparse": {"text": "a"}})),
            Invalid,
            "no_embedder",
            "give a vector",
        )
        .at("/sparse"),
        both(
            "no hits wanted",
            near(json!({"limit": 0})),
            Invalid,
            "bad_limit",
            "at least 1",
        )
        .at("/limit"),
        both(
            "too many hits wanted",
            near(json!({"limit": 10_001})),
            Invalid,
            "bad_limit",
            "10000",
        ),
        both(
            "too many hits wanted by a batch",
            Request::new(
                Method::QueryBatch,
                POINTS,
                json!({"queries": vec![json!({"nearest": {"vector": [1, 0, 0, 0]}, "limit": 10_000}); 11]}),
            ),
            Invalid,
            "bad_limit",
            "100000",
        )
        .at("/queries"),
        both(
            "an offset beyond the bound",
            near(json!({"limit": 10, "offset": 9_999})),
            Invalid,
            "bad_limit",
            "10000",
        ),
        both(
            "an ef of zero",
            near(json!({"params": {"ef": 0}})),
            Invalid,
            "bad_ef",
            "1 to 10000",
        )
        .at("/params/ef"),
        both(
            "an ef beyond the bound",
            near(json!({"params": {"ef": 10_001}})),
            Invalid,
            "bad_ef",
            "1 to 10000",
        ),
        both(
            "an nprobe of zero",
            near(json!({"params": {"nprobe": 0}})),
            Invalid,
            "bad_nprobe",
            "1 to 65536",
        )
        .at("/params/nprobe"),
        both(
            "an nprobe beyond the bound",
            near(json!({"params": {"nprobe": 65_537}})),
            Invalid,
            "bad_nprobe",
            "1 to 65536",
        ),
        both(
            "a target recall below the bound",
            near(json!({"params": {"target_recall": 0.2}})),
            Invalid,
            "bad_target_recall",
            "0.5 to 0.999",
        )
        .at("/params/target_recall"),
        both(
            "a target recall that only an exact search has",
            near(json!({"params": {"target_recall": 1.0}})),
            Invalid,
            "bad_target_recall",
            "exact: true",
        )
        .at("/params/target_recall"),
        both(
            "a target recall that is NaN",
            near(json!({"params": {"target_recall": "NaN"}})),
            Invalid,
            "bad_target_recall",
            "0.5 to 0.999",
        )
        .only(Send::Message)
        .at("/params/target_recall"),
        both(
            "a target recall that is no number",
            near(json!({"params": {"target_recall": "x"}})),
            Invalid,
            "bad_request",
            "f32",
        )
        .only(Send::Json)
        .at("/params/target_recall"),
        both(
            "a score threshold above one",
            near(json!({"score_threshold": 1.5})),
            Invalid,
            "bad_score_threshold",
            "0 to 1",
        ),
        both(
            "a score threshold that is NaN",
            near(json!({"score_threshold": "NaN"})),
            Invalid,
            "bad_score_threshold",
            "0 to 1",
        )
        .only(Send::Message),
        both(
            "a token of our own making",
            near(json!({"after": "yesterday"})),
            Invalid,
            "bad_token",
            "token",
        )
        .at("/after"),
        both(
            "a token from the future",
            near(json!({"after": "c1-1-0-ffffffffff"})),
            Conflict,
            "token_unknown",
            "another server",
        ),
        both(
            "words for a vector without an embedder",
            query(json!({"nearest": {"text": "hello"}})),
            Invalid,
            "no_embedder",
            "static-minilm-256",
        ),
        both(
            "words that are none",
            on(DOCUMENTS, json!({"nearest": {"text": ""}})),
            Invalid,
            "empty_text",
            "",
        )
        .at("/nearest/text"),
        both(
            "text where no field is text",
            on(TWO, json!({"text": {"query": "hello"}})),
            Invalid,
            "no_text_field",
            "text",
        ),
        both(
            "text in a field that is none",
            query(json!({"text": {"query": "hello", "fields": ["lang"]}})),
            Invalid,
            "text_field_not_found",
            "body",
        ),
        both(
            "a weight that is no number",
            query(json!({"text": {"query": "hello", "fields": ["body^heavy"]}})),
            Invalid,
            "bad_weight",
            "number",
        )
        .at("/text/fields/0"),
        both(
            "a negative field weight",
            query(json!({"text": {"query": "hello", "fields": ["body^-1"]}})),
            Invalid,
            "bad_weight",
            "at least 0",
        ),
        both(
            "a field weight whose sums are beyond f32",
            query(json!({"text": {"query": "hello", "fields": ["body^1e38"]}})),
            Invalid,
            "bad_weight",
            "1e6",
        ),
        both(
            "one field very often",
            query(json!({"text": {"query": "hello", "fields": vec!["body"; 129]}})),
            Invalid,
            "query_too_large",
            "128",
        )
        .at("/text/fields"),
        both(
            "a prefetch without legs",
            query(json!({"prefetch": []})),
            Invalid,
            "bad_query",
            "at least one",
        )
        .at("/prefetch"),
        both(
            "more legs than allowed",
            legs(17, json!({"rrf": {}})),
            Invalid,
            "query_too_large",
            "16",
        ),
        both(
            "a prefetch that is too deep",
            query(deep),
            Invalid,
            "query_too_large",
            "4",
        ),
        both(
            "weights for other legs",
            legs(2, json!({"rrf": {"weights": [1]}})),
            Invalid,
            "bad_weight",
            "(2)",
        )
        .at("/fuse"),
        both(
            "weights that are all zero",
            legs(2, json!({"weighted": {"weights": [0, 0]}})),
            Invalid,
            "bad_weight",
            "not all 0",
        ),
        both(
            "a negative rrf k",
            legs(2, json!({"rrf": {"k": -1}})),
            Invalid,
            "bad_query",
            "at least 0",
        )
        .at("/fuse/rrf/k"),
        both(
            "an empty batch",
            Request::new(Method::QueryBatch, POINTS, json!({"queries": []})),
            Invalid,
            "bad_batch",
            "1 to 1000",
        ),
        both(
            "one wrong query in a batch",
            Request::new(
                Method::QueryBatch,
                POINTS,
                json!({"queries": [{"nearest": {"vector": [1, 0, 0, 0]}}, {"nearest": {"vector": [1]}}]}),
            ),
            Invalid,
            "wrong_dim",
            "4",
        ),
        both("a negative k", near(json!({"limit": -1})), Invalid, "bad_request", "-1")
            .only(Send::Json)
            .at("/limit"),
        both(
            "a k beyond 32 bits",
            near(json!({"limit": 4_294_967_296_u64})),
            Invalid,
            "bad_request",
            "u32",
        )
        .only(Send::Json),
        both(
            "two sources",
            near(json!({"hybrid": {"text": "a"}})),
            Invalid,
            "bad_query",
            "exactly one",
        )
        .only(Send::Json),
        both(
            "two ways to fuse",
            legs(2, json!({"rrf": {}, "weighted": {}})),
            Invalid,
            "bad_query",
            "exactly one",
        )
        .only(Send::Json),
        both(
            "an unknown key in a query",
            near(json!({"topk": 3})),
            Invalid,
            "bad_request",
            "topk",
        )
        .only(Send::Json),
    ]
}

fn rankings() -> Vec<Case> {
    use Kind::Invalid;
    let ranked = |collection: &str, vector: Value, ranking: Value| {
        let query = json!({"nearest": {"vector": vector}, "ranking": ranking});
        Request::new(Method::Query, collection, query)
    };
    let near = |ranking: Value| ranked(POINTS, json!([1, 0, 0, 0]), ranking);
    vec![
        both(
            "a half-life of nothing",
            near(json!({"decay": {"field": "n", "half_life_ms": 0}})),
            Invalid,
            "bad_ranking",
            "at least 1",
        )
        .at("/ranking/decay/half_life_ms"),
        both(
            "a weight above one",
            near(json!({"decay": {"field": "n", "half_life_ms": 1, "weight": 1.5}})),
            Invalid,
            "bad_ranking",
            "0 to 1",
        )
        .at("/ranking/decay/weight"),
        both(
            "decay by no field",
            near(json!({"decay": {"field": "", "half_life_ms": 1}})),
            Invalid,
            "bad_ranking",
            "dotted path",
        )
        .at("/ranking/decay/field"),
        both(
            "an unknown reranker",
            near(json!({"rerank": {"model": "oracle", "query": "q"}})),
            Invalid,
            "unknown_reranker",
            "oracle",
        )
        .at("/ranking/rerank/model"),
        both(
            "reranking nothing",
            near(json!({"rerank": {"top": 0}})),
            Invalid,
            "bad_ranking",
            "1 to 1000",
        )
        .at("/ranking/rerank/top"),
        both(
            "reranking for hours",
            near(json!({"rerank": {"budget_ms": 3_600_000}})),
            Invalid,
            "bad_ranking",
            "60000",
        )
        .at("/ranking/rerank/budget_ms"),
        both(
            "everything a duplicate",
            near(json!({"near_duplicates": {"threshold": 0}})),
            Invalid,
            "bad_ranking",
            "above 0",
        )
        .at("/ranking/near_duplicates/threshold"),
        both(
            "a cap of nothing",
            near(json!({"caps": [{"field": "lang", "most": 1}, {"field": "lang", "most": 0}]})),
            Invalid,
            "bad_ranking",
            "at least 1",
        )
        .at("/ranking/caps/1/most"),
        both(
            "too many caps",
            near(json!({"caps": vec![json!({"field": "lang", "most": 1}); 9]})),
            Invalid,
            "bad_ranking",
            "at most 8",
        )
        .at("/ranking/caps"),
        both(
            "a lambda above one",
            near(json!({"mmr": {"lambda": 2}})),
            Invalid,
            "bad_ranking",
            "lambda",
        )
        .at("/ranking/mmr/lambda"),
        both(
            "diversity of too many",
            near(json!({"mmr": {"candidates": 1_001}})),
            Invalid,
            "bad_ranking",
            "1 to 1000",
        )
        .at("/ranking/mmr/candidates"),
        both(
            "diversity by an unknown vector",
            near(json!({"mmr": {"using": "w"}})),
            Invalid,
            "vector_not_found",
            "only: v",
        )
        .at("/ranking/mmr/using"),
        both(
            "diversity by one of several vectors",
            Request::new(
                Method::Query,
                TWO,
                json!({"nearest": {"vector": [1, 0], "using": "a"}, "ranking": {"mmr": {}}}),
            ),
            Invalid,
            "vector_not_named",
            "a, b",
        )
        .at("/ranking/mmr/using"),
        both(
            "a wrong ranking in a batch",
            Request::new(
                Method::QueryBatch,
                POINTS,
                json!({"queries": [{"nearest": {"vector": [1, 0, 0, 0]}},
                                   {"nearest": {"vector": [1, 0, 0, 0]}, "ranking": {"mmr": {"lambda": -1}}}]}),
            ),
            Invalid,
            "bad_ranking",
            "0 to 1",
        )
        .at("/queries/1/ranking/mmr/lambda"),
        both(
            "a step that does not exist",
            near(json!({"shuffle": {}})),
            Invalid,
            "bad_request",
            "near_duplicates",
        )
        .only(Send::Json)
        .at("/ranking/shuffle"),
    ]
}

fn documents() -> Vec<Case> {
    use Kind::{Invalid, NotFound};
    let put = |collection: &str, document: Value| {
        Request::new(
            Method::PutDocuments,
            collection,
            json!({"documents": [{"id": "fine", "text": "fine"}, document]}),
        )
    };
    let long = "x".repeat(481);
    vec![
        both(
            "a document without text",
            put(DOCUMENTS, json!({"id": "d", "text": "  \n"})),
            Invalid,
            "empty_document",
            "white space",
        )
        .at("/documents/1/text"),
        both(
            "a document without an id",
            put(DOCUMENTS, json!({"id": "", "text": "t"})),
            Invalid,
            "bad_id",
            "1 to 480",
        )
        .at("/documents/1/id"),
        both(
            "a document id that is too long",
            put(DOCUMENTS, json!({"id": long, "text": "t"})),
            Invalid,
            "bad_id",
            "1 to 480",
        ),
        both(
            "metadata that hides a chunk's own key",
            put(DOCUMENTS, json!({"id": "d", "text": "t", "metadata": {"span": 1}})),
            Invalid,
            "reserved_key",
            "heading",
        )
        .at("/documents/1/metadata/span"),
        both(
            "no documents",
            Request::new(Method::PutDocuments, DOCUMENTS, json!({"documents": []})),
            Invalid,
            "bad_batch",
            "1 to 1000",
        ),
        both(
            "a document nobody put",
            Request::new(Method::GetDocument, DOCUMENTS, json!({"id": "nobody"})),
            NotFound,
            "document_not_found",
            "nobody",
        ),
        both(
            "deleting no documents",
            Request::new(Method::DeleteDocuments, DOCUMENTS, json!({"ids": []})),
            Invalid,
            "bad_batch",
            "1 to 10000",
        ),
        both(
            "a page of no documents",
            Request::new(Method::ListDocuments, DOCUMENTS, json!({"limit": 0})),
            Invalid,
            "bad_limit",
            "1 to 10000",
        ),
        both(
            "an unknown format",
            put(DOCUMENTS, json!({"id": "d", "text": "t", "format": "docx"})),
            Invalid,
            "bad_request",
            "markdown",
        )
        .only(Send::Json)
        .at("/documents/1/format"),
        both(
            "a text and a file at once",
            put(
                DOCUMENTS,
                json!({"id": "d", "text": "t", "data": "dA==", "format": "html"}),
            ),
            Invalid,
            "bad_document",
            "not both",
        )
        .at("/documents/1/data"),
        both(
            "a PDF as text",
            put(DOCUMENTS, json!({"id": "d", "text": "%PDF-1.7", "format": "pdf"})),
            Invalid,
            "bad_document",
            "data",
        )
        .at("/documents/1/data"),
        both(
            "a file that is no PDF",
            put(DOCUMENTS, json!({"id": "d", "data": "aGVsbG8=", "format": "pdf"})),
            Invalid,
            "unreadable_document",
            "no PDF",
        )
        .at("/documents/1/data"),
        both(
            "a page that shows nothing",
            put(
                DOCUMENTS,
                json!({"id": "d", "text": "<script>1</script>", "format": "html"}),
            ),
            Invalid,
            "empty_document",
            "no text",
        )
        .at("/documents/1/text"),
        both(
            "a file that is not base64",
            put(DOCUMENTS, json!({"id": "d", "data": "%%%", "format": "pdf"})),
            Invalid,
            "bad_request",
            "base64",
        )
        .only(Send::Json)
        .at("/documents/1/data"),
        both(
            "a label that nobody knows",
            put(DOCUMENTS, json!({"id": "d", "text": "t", "trust": "blindly"})),
            Invalid,
            "bad_request",
            "trust",
        ),
        both(
            "a provenance with an unknown part",
            put(DOCUMENTS, json!({"id": "d", "text": "t", "provenance": {"orign": "x"}})),
            Invalid,
            "bad_request",
            "orign",
        )
        .only(Send::Json),
        both(
            "metadata that hides a label",
            put(
                DOCUMENTS,
                json!({"id": "d", "text": "t", "metadata": {"trust": "trusted"}}),
            ),
            Invalid,
            "reserved_key",
            "trust",
        )
        .at("/documents/1/metadata/trust"),
        both(
            "an unknown word for near duplicates",
            Request::new(
                Method::PutDocuments,
                DOCUMENTS,
                json!({"documents": [{"id": "d", "text": "t"}], "on_near_duplicate": "merge"}),
            ),
            Invalid,
            "bad_request",
            "",
        )
        .at("/on_near_duplicate"),
    ]
}

fn prompts() -> Vec<Case> {
    use Kind::Invalid;
    let on = |collection: &str, body: Value| Request::new(Method::Enrich, collection, body);
    let enrich = |body: Value| on(DOCUMENTS, body);
    vec![
        both(
            "an empty prompt",
            enrich(json!({"prompt": " "})),
            Invalid,
            "empty_prompt",
            "white space",
        )
        .at("/prompt"),
        both(
            "a prompt that is too long",
            enrich(json!({"prompt": "x".repeat((1 << 20) + 1)})),
            Invalid,
            "query_too_large",
            "1048576",
        ),
        both(
            "no budget",
            enrich(json!({"prompt": "p", "token_budget": 0})),
            Invalid,
            "bad_token_budget",
            "1 to 1000000",
        )
        .at("/token_budget"),
        both(
            "a budget without end",
            enrich(json!({"prompt": "p", "token_budget": 1_000_001})),
            Invalid,
            "bad_token_budget",
            "1000000",
        ),
        both(
            "an unknown tokenizer",
            enrich(json!({"prompt": "p", "tokenizer": "../../vocab.json"})),
            Invalid,
            "unknown_tokenizer",
            "o200k_base",
        )
        .at("/tokenizer"),
        both(
            "no candidates",
            enrich(json!({"prompt": "p", "limit": 0})),
            Invalid,
            "bad_limit",
            "1 to 1000",
        ),
        both(
            "no chunks",
            enrich(json!({"prompt": "p", "max_chunks": 0})),
            Invalid,
            "bad_limit",
            "max_chunks",
        ),
        both(
            "a threshold below zero",
            enrich(json!({"prompt": "p", "score_threshold": -0.1})),
            Invalid,
            "bad_score_threshold",
            "0 to 1",
        ),
        both(
            "a prompt to vectors that no model made",
            on(POINTS, json!({"prompt": "p"})),
            Invalid,
            "no_embedder",
            "bm25",
        ),
        both(
            "words in a collection without text",
            on(TWO, json!({"prompt": "p", "mode": "bm25"})),
            Invalid,
            "no_text_field",
            "text",
        ),
        both(
            "an unknown mode",
            enrich(json!({"prompt": "p", "mode": "psychic"})),
            Invalid,
            "bad_request",
            "hybrid",
        )
        .only(Send::Json)
        .at("/mode"),
    ]
}

fn full_prompts() -> Vec<Case> {
    use Kind::{Invalid, NotFound};
    let enrich = |body: Value| Request::new(Method::Enrich, DOCUMENTS, body);
    let several = |body: Value| Request::new(Method::Enrich, "", body);
    let turn = |content: &str| json!({"role": "user", "content": content});
    vec![
        both(
            "no collection to enrich from",
            several(json!({"prompt": "p", "collections": []})),
            Invalid,
            "bad_collections",
            "1 to 8",
        )
        .only(Send::Json)
        .at("/collections"),
        both(
            "too many collections",
            several(json!({"prompt": "p", "collections": vec![DOCUMENTS; 9]})),
            Invalid,
            "bad_collections",
            "1 to 8",
        )
        .at("/collections"),
        both(
            "a collection twice",
            several(json!({"prompt": "p", "collections": [DOCUMENTS, DOCUMENTS]})),
            Invalid,
            "bad_collections",
            "twice",
        )
        .at("/collections/1"),
        both(
            "an unknown collection among several",
            several(json!({"prompt": "p", "collections": [DOCUMENTS, "nowhere"]})),
            NotFound,
            "collection_not_found",
            "nowhere",
        )
        .at("/collections/1"),
        both(
            "collections beside a collection",
            enrich(json!({"prompt": "p", "collections": [DOCUMENTS]})),
            Invalid,
            "bad_collections",
            "collection",
        )
        .at("/collections"),
        both(
            "one of several collections without a model",
            several(json!({"prompt": "p", "collections": [DOCUMENTS, POINTS]})),
            Invalid,
            "no_embedder",
            "bm25",
        )
        .at("/collections/1"),
        both(
            "a conversation with a stranger",
            enrich(json!({"prompt": "p", "conversation": [turn("a"), {"role": "oracle", "content": "b"}]})),
            Invalid,
            "bad_request",
            "assistant",
        )
        .at("/conversation/1/role"),
        both(
            "a conversation without end",
            enrich(json!({"prompt": "p", "conversation": vec![turn("a"); 101]})),
            Invalid,
            "bad_conversation",
            "100 turns",
        )
        .at("/conversation"),
        both(
            "a template without the context",
            enrich(json!({"prompt": "p", "template": "{{prompt}}"})),
            Invalid,
            "bad_template",
            "{{context}} is missing",
        )
        .at("/template"),
        both(
            "a template with a placeholder that does not exist",
            enrich(json!({"prompt": "p", "template": "{{prompt}}{{context}}{{question}}"})),
            Invalid,
            "bad_template",
            "unknown placeholder {{question}}",
        )
        .at("/template"),
        both(
            "a template that is never closed",
            enrich(json!({"prompt": "p", "template": "{{prompt}}{{context}}{{"})),
            Invalid,
            "bad_template",
            "never closed",
        )
        .at("/template"),
        both(
            "a template without end",
            enrich(
                json!({"prompt": "p", "template": format!("{{{{prompt}}}}{{{{context}}}}{}", "x".repeat(64 << 10))}),
            ),
            Invalid,
            "bad_template",
            "65536",
        )
        .at("/template"),
        both(
            "too many neighbours",
            enrich(json!({"prompt": "p", "neighbours": 11})),
            Invalid,
            "bad_limit",
            "0 to 10",
        )
        .at("/neighbours"),
        both(
            "no chunks of a source",
            enrich(json!({"prompt": "p", "max_per_source": 0})),
            Invalid,
            "bad_limit",
            "max_per_source",
        )
        .at("/max_per_source"),
        both(
            "a wrong ranking of a prompt",
            enrich(json!({"prompt": "p", "ranking": {"caps": [{"field": "source", "most": 0}]}})),
            Invalid,
            "bad_ranking",
            "at least 1",
        )
        .at("/ranking/caps/0/most"),
        both(
            "an unknown reranker of a prompt",
            enrich(json!({"prompt": "p", "ranking": {"rerank": {"model": "seer"}}})),
            Invalid,
            "unknown_reranker",
            "seer",
        )
        .at("/ranking/rerank/model"),
        both(
            "an unknown label",
            enrich(json!({"prompt": "p", "trust": ["blessed"]})),
            Invalid,
            "bad_request",
            "quarantined",
        )
        .only(Send::Json)
        .at("/trust/0"),
    ]
}

fn deadlines() -> Vec<Case> {
    let late = |request: Request| Request {
        timeout_ms: Some(0),
        ..request
    };
    let upsert = Request::new(
        Method::Upsert,
        POINTS,
        json!({"points": [{"id": "late", "vector": [1, 0, 0, 0]}]}),
    );
    let query = Request::new(Method::Query, POINTS, json!({"nearest": {"vector": [1, 0, 0, 0]}}));
    vec![
        both(
            "a query whose deadline has passed",
            late(query),
            Kind::Deadline,
            "deadline_exceeded",
            "deadline",
        ),
        both(
            "a write whose deadline has passed",
            late(upsert),
            Kind::Deadline,
            "deadline_exceeded",
            "deadline",
        ),
    ]
}

fn http() -> Vec<Case> {
    use Kind::{Forbidden, Invalid, TooLarge, Unknown, UnsupportedMedia, WrongMethod};
    type Headers = &'static [(&'static str, &'static str)];
    const JSON: Headers = &[("content-type", "application/json")];
    const POINTS_PATH: &str = "/api/v1/collections/bad-points/points";
    const QUERY_PATH: &str = "/api/v1/collections/bad-points/query";
    let raw = |name, verb, path, headers: Headers, body: fn() -> Vec<u8>, kind, code, says| Case {
        name,
        send: Send::Http {
            verb,
            path,
            headers,
            body,
        },
        kind,
        code,
        says,
        pointer: None,
    };
    let nothing: fn() -> Vec<u8> = Vec::new;
    vec![
        raw(
            "broken JSON",
            "POST",
            QUERY_PATH,
            JSON,
            || b"{\"nearest\": {\"vector\": [1, 2".to_vec(),
            Invalid,
            "bad_json",
            "EOF",
        ),
        raw(
            "JSON with a tail",
            "POST",
            QUERY_PATH,
            JSON,
            || b"{} {}".to_vec(),
            Invalid,
            "bad_json",
            "trailing",
        ),
        raw(
            "NaN in JSON",
            "POST",
            QUERY_PATH,
            JSON,
            || b"{\"nearest\": {\"vector\": [NaN]}}".to_vec(),
            Invalid,
            "bad_json",
            "expected",
        ),
        raw(
            "a number beyond f64",
            "POST",
            QUERY_PATH,
            JSON,
            || b"{\"nearest\": {\"vector\": [1e999, 0, 0, 0]}}".to_vec(),
            Invalid,
            "bad_json",
            "out of range",
        ),
        raw("no body", "POST", QUERY_PATH, JSON, nothing, Invalid, "bad_json", "EOF"),
        raw(
            "a body that is a list",
            "POST",
            QUERY_PATH,
            JSON,
            || b"[1, 2]".to_vec(),
            Invalid,
            "bad_request",
            "object",
        ),
        raw(
            "a body that nests without end",
            "POST",
            QUERY_PATH,
            JSON,
            || b"{\"prefetch\":[".repeat(10_000),
            Invalid,
            "bad_json",
            "recursion",
        ),
        raw(
            "a body of brackets",
            "POST",
            QUERY_PATH,
            JSON,
            || vec![b'['; 100_000],
            Invalid,
            "bad_request",
            "object",
        ),
        raw(
            "a query parameter that is not UTF-8",
            "DELETE",
            "/api/v1/collections/bad-documents/documents?id=a%ff",
            &[],
            nothing,
            Invalid,
            "bad_utf8",
            "UTF-8",
        ),
        raw(
            "the id of an operation that is not UTF-8",
            "GET",
            "/api/v1/operations/%ff",
            &[],
            nothing,
            Invalid,
            "bad_id",
            "UTF-8",
        ),
        raw(
            "a body that is not UTF-8",
            "POST",
            POINTS_PATH,
            JSON,
            || b"{\"points\": [{\"id\": \"\xff\xfe\"}]}".to_vec(),
            Invalid,
            "bad_utf8",
            "byte 20",
        ),
        raw(
            "a lone surrogate",
            "POST",
            POINTS_PATH,
            JSON,
            || b"{\"points\": [{\"id\": \"\\ud800\"}]}".to_vec(),
            Invalid,
            "bad_json",
            "",
        ),
        raw(
            "a key said twice",
            "POST",
            QUERY_PATH,
            JSON,
            || b"{\"limit\": 1, \"limit\": 2}".to_vec(),
            Invalid,
            "bad_request",
            "duplicate",
        ),
        raw(
            "a form instead of JSON",
            "POST",
            QUERY_PATH,
            &[("content-type", "application/x-www-form-urlencoded")],
            || b"a=b".to_vec(),
            UnsupportedMedia,
            "unsupported_media_type",
            "application/json",
        ),
        raw(
            "JSON that is not called so",
            "POST",
            QUERY_PATH,
            &[],
            || b"{\"nearest\": {\"vector\": [1, 0, 0, 0]}}".to_vec(),
            UnsupportedMedia,
            "unsupported_media_type",
            "application/json",
        ),
        raw(
            "a request of a web page",
            "GET",
            "/api/v1/collections",
            &[("origin", "https://elsewhere.example")],
            nothing,
            Forbidden,
            "foreign_origin",
            "elsewhere.example",
        ),
        raw(
            "a name that a web page made ours",
            "DELETE",
            "/api/v1/collections/bad-points",
            &[("host", "elsewhere.example:7700")],
            nothing,
            Forbidden,
            "foreign_origin",
            "localhost",
        ),
        raw(
            "a compressed body",
            "POST",
            QUERY_PATH,
            &[("content-type", "application/json"), ("content-encoding", "gzip")],
            || b"xx".to_vec(),
            UnsupportedMedia,
            "unsupported_encoding",
            "not encoded",
        ),
        raw(
            "a body that is too large",
            "POST",
            POINTS_PATH,
            JSON,
            || vec![b' '; (32 << 20) + 1],
            TooLarge,
            "body_too_large",
            "33554432",
        ),
        raw(
            "a method that a path does not take",
            "DELETE",
            QUERY_PATH,
            &[],
            nothing,
            WrongMethod,
            "method_not_allowed",
            "DELETE",
        ),
        raw(
            "a path that nobody has",
            "GET",
            "/api/v2/collections",
            &[],
            nothing,
            Unknown,
            "unknown_path",
            "openapi.json",
        ),
        raw(
            "a path that climbs",
            "GET",
            "/api/v1/collections/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
            &[],
            nothing,
            Invalid,
            "bad_name",
            "[a-z0-9]",
        ),
        raw(
            "a path that is not UTF-8",
            "GET",
            "/api/v1/collections/%ff%fe",
            &[],
            nothing,
            Invalid,
            "bad_name",
            "UTF-8",
        ),
        raw(
            "an unknown parameter",
            "GET",
            "/api/v1/collections?verbose=1",
            &[],
            nothing,
            Invalid,
            "unknown_parameter",
            "timeout_ms",
        ),
        raw(
            "a timeout that is no number",
            "GET",
            "/api/v1/collections?timeout_ms=soon",
            &[],
            nothing,
            Invalid,
            "bad_timeout",
            "milliseconds",
        ),
        raw(
            "a negative timeout",
            "GET",
            "/api/v1/collections",
            &[("cairn-timeout-ms", "-5")],
            nothing,
            Invalid,
            "bad_timeout",
            "milliseconds",
        ),
        raw(
            "a document without saying which",
            "GET",
            "/api/v1/collections/bad-documents/documents",
            &[],
            nothing,
            Invalid,
            "missing_parameter",
            "id",
        ),
        raw(
            "a page size that is no number",
            "GET",
            "/api/v1/collections/bad-documents/documents/list?limit=ten",
            &[],
            nothing,
            Invalid,
            "bad_parameter",
            "ten",
        ),
        raw(
            "a query that contradicts itself",
            "GET",
            "/api/v1/collections?timeout_ms=5&timeout_ms=6",
            &[],
            nothing,
            Invalid,
            "bad_timeout",
            "once",
        ),
    ]
}

fn messages() -> Vec<Case> {
    use Kind::{Invalid, TooLarge, Unknown};
    let raw = |name, path, message: fn() -> Vec<u8>, kind, code, says| Case {
        name,
        send: Send::Bytes { path, message },
        kind,
        code,
        says,
        pointer: None,
    };
    vec![
        raw(
            "bytes that are no message",
            "/cairn.v1.Query/Run",
            || vec![0xff; 64],
            Invalid,
            "bad_message",
            "decode",
        ),
        raw(
            "a name that is not UTF-8",
            "/cairn.v1.Collections/Get",
            || vec![0x0a, 2, 0xff, 0xfe],
            Invalid,
            "bad_message",
            "UTF-8",
        ),
        raw(
            "a length beyond the message",
            "/cairn.v1.Collections/Get",
            || vec![0x0a, 0xff, 0xff, 0xff, 0x0f, b'x'],
            Invalid,
            "bad_message",
            "decode",
        ),
        raw(
            "a message nested without end",
            "/cairn.v1.Points/Count",
            nested,
            Invalid,
            "bad_message",
            "recursion",
        ),
        raw(
            "a message that is too large",
            "/cairn.v1.Collections/Get",
            || vec![0; (32 << 20) + 1],
            TooLarge,
            "body_too_large",
            "33554432",
        ),
        raw(
            "a method that no service has",
            "/cairn.v1.Points/Frobnicate",
            Vec::new,
            Unknown,
            "unknown_method",
            "",
        ),
        raw(
            "a service that nobody has",
            "/cairn.v9.Points/Upsert",
            Vec::new,
            Unknown,
            "unknown_method",
            "",
        ),
    ]
}

/// A `CountRequest` whose filter holds a condition that holds a filter, and so on, two hundred times.
fn nested() -> Vec<u8> {
    let wrap = |tag: u8, inner: Vec<u8>| {
        let mut message = vec![tag];
        let mut length = inner.len();
        while length >= 0x80 {
            message.push((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        message.push(length as u8);
        message.extend(inner);
        message
    };
    let mut filter = Vec::new();
    for _ in 0..200 {
        // Condition.nested = 9, Filter.must = 1.
        filter = wrap(0x0a, wrap(0x4a, filter));
    }
    // CountRequest.filter = 2.
    wrap(0x12, filter)
}
