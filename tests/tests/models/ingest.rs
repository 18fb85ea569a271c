//! A whole server whose embedder is behind HTTP, while the service fails: no document is lost, what failed is said, and
//! running again stores exactly what is missing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cairn_tests::{Fault, Kind, Method, ModelServer, Request, Rest, Script, TestServer, vector_of};
use serde_json::{Value, json};

/// A server whose default embedder is the scripted service.
async fn server(models: &ModelServer, more: &str) -> TestServer {
    let table = format!(
        "default_embedder = \"remote\"\n[embedders.remote]\ntype = \"openai\"\nurl = \"{}\"\nmodel = \"m\"\n{more}",
        models.url()
    );
    super::server_with(&table).await
}

/// The documents preset with small chunks.
fn schema() -> Value {
    json!({"chunking": {"max_tokens": 32, "overlap_tokens": 0}})
}

/// Documents of one chunk, and every fifth of many.
fn documents(n: usize) -> Vec<Value> {
    let text = |i: usize| match i % 5 {
        4 => (0..900)
            .map(|w| format!("word{} of{i}", w % 300))
            .collect::<Vec<_>>()
            .join(" "),
        _ => format!("The text of document {i}, which is short."),
    };
    (0..n)
        .map(|i| json!({"id": format!("d{i}"), "text": text(i)}))
        .collect()
}

async fn put(rest: &Rest, documents: &[Value]) -> Result<Value, cairn_tests::Failure> {
    rest.send(&Request::new(
        Method::PutDocuments,
        "docs",
        json!({"documents": documents}),
    ))
    .await
}

/// As `cairn ingest` does it: some together, each alone if that failed. What failed, with its code.
async fn ingest(rest: &Rest, documents: &[Value]) -> BTreeMap<String, String> {
    let mut failed = BTreeMap::new();
    for batch in documents.chunks(5) {
        if put(rest, batch).await.is_ok() {
            continue;
        }
        for document in batch {
            if let Err(e) = put(rest, std::slice::from_ref(document)).await {
                failed.insert(document["id"].as_str().unwrap().to_owned(), e.code);
            }
        }
    }
    failed
}

async fn stored(rest: &Rest) -> BTreeSet<String> {
    let list = Request::new(Method::ListDocuments, "docs", json!({"limit": 1_000}));
    let page = rest.send(&list).await.unwrap();
    let ids = page["documents"].as_array().unwrap().iter();
    ids.map(|d| d["id"].as_str().unwrap().to_owned()).collect()
}

/// Every stored vector is that of its chunk's text.
async fn check_vectors(rest: &Rest) -> usize {
    let mut checked = 0;
    let mut cursor = Value::Null;
    loop {
        let mut body = json!({"limit": 500, "with": {"vectors": true}});
        if !cursor.is_null() {
            body["cursor"] = cursor;
        }
        let page = rest.send(&Request::new(Method::Scroll, "docs", body)).await.unwrap();
        for point in page["points"].as_array().unwrap() {
            let text = point["payload"]["text"].as_str().unwrap();
            let vector: Vec<f32> = serde_json::from_value(point["vectors"]["dense"].clone()).unwrap();
            assert_eq!(vector, vector_of(text), "{text:?}");
            checked += 1;
        }
        cursor = page["cursor"].clone();
        if cursor.is_null() {
            return checked;
        }
    }
}

async fn without_loss(fault: Fault, every: usize, codes: &[&str]) {
    let models = ModelServer::start(Script::default()).await;
    // Only who never answers is to be given up: a busy machine answers late.
    let timeout_ms = if matches!(fault, Fault::Never) { 1_000 } else { 60_000 };
    let settings = format!("timeout_ms = {timeout_ms}\nretries = 0\nbatch_max = 3\nconcurrency = 2");
    let server = server(&models, &settings).await;
    let rest = server.rest();
    rest.send(&Request::new(Method::CreateCollection, "docs", schema()))
        .await
        .unwrap();
    let documents = documents(12);
    models.forget();
    models.change(|script| {
        script.always = Some(fault.clone());
        script.every = every;
    });
    let failed = ingest(&rest, &documents).await;
    let what = format!("{fault:?} every {every}");
    assert!(!failed.is_empty(), "{what}");
    for code in failed.values() {
        assert!(codes.contains(&code.as_str()), "{what}: {code}");
    }
    let missing: BTreeSet<String> = failed.into_keys().collect();
    let all: BTreeSet<String> = documents.iter().map(|d| d["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(
        stored(&rest).await,
        &all - &missing,
        "{what}: what is not reported is stored"
    );
    check_vectors(&rest).await;

    models.change(|script| script.always = None);
    let mut again = ingest(&rest, &documents).await;
    // The breaker may still be open; it says so, and closes.
    for _ in 0..100 {
        if again.is_empty() {
            break;
        }
        assert!(
            again.values().all(|code| code == "embedder_unavailable"),
            "{what}: {again:?}"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
        again = ingest(&rest, &documents).await;
    }
    assert!(again.is_empty(), "{what}: {again:?}");
    assert_eq!(stored(&rest).await, all, "{what}");
    let chunks = check_vectors(&rest).await;
    let counts = models.embedded();
    assert_eq!(counts.len(), chunks, "{what}: every chunk has its own text here");
    let twice: Vec<_> = counts.iter().filter(|(_, n)| **n > 1).collect();
    assert!(twice.is_empty(), "{what}: embedded twice: {twice:?}");
    // And once more: nothing is left to do.
    models.forget();
    assert!(ingest(&rest, &documents).await.is_empty());
    assert!(models.seen().is_empty(), "{what}: unchanged documents ask nobody");
    server.stop().await.unwrap();
}

const UNAVAILABLE: &[&str] = &["embedder_unavailable"];
const BAD_ANSWER: &[&str] = &["embedder_bad_answer"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_document_is_lost_while_the_service_breaks_connections() {
    without_loss(Fault::Drop, 3, UNAVAILABLE).await;
    without_loss(Fault::Truncated, 2, UNAVAILABLE).await;
    without_loss(Fault::Never, 4, UNAVAILABLE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_document_is_lost_while_the_service_is_down_or_busy() {
    without_loss(Fault::Drop, 1, UNAVAILABLE).await;
    without_loss(Fault::Status(500, vec![]), 3, UNAVAILABLE).await;
    without_loss(
        Fault::Status(429, vec![("retry-after", "0".to_owned())]),
        2,
        UNAVAILABLE,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_document_is_lost_while_the_service_lies() {
    for fault in [
        Fault::NaN,
        Fault::WrongDim,
        Fault::TooFew,
        Fault::TooMany,
        Fault::NotJson,
        Fault::Huge,
    ] {
        without_loss(fault, 3, BAD_ANSWER).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transient_faults_are_not_seen_by_the_caller() {
    let script = Script {
        base64: true,
        reversed: true,
        ..Script::default()
    };
    let models = ModelServer::start(script).await;
    let server = server(&models, "batch_max = 3\nencoding = \"base64\"\nretries = 10").await;
    let rest = server.rest();
    rest.send(&Request::new(Method::CreateCollection, "docs", schema()))
        .await
        .unwrap();
    models.change(|script| {
        script.next.extend([
            Fault::Drop,
            Fault::Truncated,
            Fault::Status(429, vec![("retry-after", "0".to_owned())]),
        ]);
        script.always = Some(Fault::Status(503, vec![]));
        script.every = 5;
    });
    let done = put(&rest, &documents(25)).await.unwrap();
    assert_eq!(done["results"].as_array().unwrap().len(), 25);
    assert!(check_vectors(&rest).await > 25);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_says_what_where_and_whether_to_retry_in_both_protocols() {
    let models = ModelServer::start(Script::default()).await;
    let server = server(&models, "retries = 0").await;
    let rest = server.rest();
    let grpc = server.grpc().await;
    rest.send(&Request::new(Method::CreateCollection, "docs", schema()))
        .await
        .unwrap();
    let cases = [
        (Fault::Drop, "embedder_unavailable", Kind::Unavailable),
        (Fault::WrongDim, "embedder_bad_answer", Kind::Upstream),
        (Fault::Status(401, vec![]), "embedder_bad_answer", Kind::Upstream),
        (Fault::Status(413, vec![]), "embedder_rejected", Kind::Invalid),
    ];
    let documents = json!({"documents": [{"id": "a", "text": "one"}]});
    let query = json!({"nearest": {"text": "one"}});
    for (fault, code, kind) in cases {
        models.change(|script| script.always = Some(fault.clone()));
        for (method, body, pointer) in [
            (Method::PutDocuments, &documents, "/documents/0"),
            (Method::Query, &query, "/nearest/text"),
        ] {
            let request = Request::new(method, "docs", body.clone());
            let by_rest = rest.send(&request).await.unwrap_err();
            let by_grpc = grpc.send(&request).await.unwrap_err();
            for failure in [by_rest, by_grpc] {
                let what = (failure.code.as_str(), failure.pointer.as_deref());
                assert_eq!(what, (code, Some(pointer)), "{fault:?} {failure:?}");
                assert!(kind.is(&failure), "{fault:?} {failure:?}");
            }
        }
    }
    // A hybrid needs the model too; full text does not.
    models.change(|script| script.always = Some(Fault::WrongDim));
    let hybrid = Request::new(Method::Query, "docs", json!({"hybrid": {"text": "one"}}));
    assert!(Kind::Upstream.is(&rest.send(&hybrid).await.unwrap_err()));
    let text = Request::new(Method::Query, "docs", json!({"text": {"query": "one"}}));
    assert!(rest.send(&text).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_document_fails_alone_and_is_named() {
    let script = Script {
        refuses: Some("poison".to_owned()),
        ..Script::default()
    };
    let models = ModelServer::start(script).await;
    let server = server(&models, "").await;
    let rest = server.rest();
    rest.send(&Request::new(Method::CreateCollection, "docs", schema()))
        .await
        .unwrap();
    let mut documents = documents(10);
    documents[6]["text"] = json!("some poison in the middle");
    let error = put(&rest, &documents[5..]).await.unwrap_err();
    assert_eq!(
        (error.code.as_str(), error.pointer.as_deref()),
        ("embedder_rejected", Some("/documents/1"))
    );
    assert!(error.message.contains("the text holds poison"), "{}", error.message);
    let failed = ingest(&rest, &documents).await;
    assert_eq!(
        failed,
        BTreeMap::from([("d6".to_owned(), "embedder_rejected".to_owned())])
    );
    assert_eq!(stored(&rest).await.len(), 9);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_sees_calls_retries_and_the_breaker_by_model() {
    let models = ModelServer::start(Script::default()).await;
    let server = server(&models, "retries = 1").await;
    let rest = server.rest();
    rest.send(&Request::new(Method::CreateCollection, "docs", schema()))
        .await
        .unwrap();
    models.change(|script| script.always = Some(Fault::Drop));
    for _ in 0..3 {
        put(&rest, &documents(1)).await.unwrap_err();
    }
    let url = format!("http://{}/metrics", server.metrics_addr());
    let metrics = cairn_tests::http_client()
        .get(url)
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    for line in [
        "cairn_model_breaker_open{role=\"embedder\",model=\"remote\"} 1",
        "cairn_model_calls_total{role=\"embedder\",model=\"remote\",outcome=\"unavailable\"}",
        "cairn_model_retries_total{role=\"embedder\",model=\"remote\"}",
        "cairn_model_duration_seconds_bucket{role=\"embedder\",model=\"remote\"",
    ] {
        assert!(metrics.contains(line), "no {line} in\n{metrics}");
    }
}
