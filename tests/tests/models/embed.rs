//! What an HTTP embedder does with every fault of its service.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use cairn_server::config::{Config, EmbedderConfig, HttpEmbedder as Table};
use cairn_server::rag::embed::http::{Dialect, HttpEmbedder};
use cairn_server::rag::embed::{EmbedError, Embedder, Input, TextKind};
use cairn_server::rag::{Patience, embed::Medium};
use cairn_tests::{DIM, Fault, ModelServer, Script, vector_of};
use serde_json::json;

/// A table as a person writes it.
fn table(kind: &str, url: &str, more: &str) -> Table {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("cairn.toml");
    std::fs::write(
        &file,
        format!("[embedders.x]\ntype = \"{kind}\"\nurl = \"{url}\"\n{more}"),
    )
    .unwrap();
    match Config::load(Some(&file), &[]).unwrap().embedders.remove("x").unwrap() {
        EmbedderConfig::Openai(table) | EmbedderConfig::Tei(table) => table,
        other => panic!("{other:?}"),
    }
}

async fn open(dialect: Dialect, table: Table) -> Result<Arc<HttpEmbedder>, String> {
    let opened = tokio::task::spawn_blocking(move || HttpEmbedder::open("x", dialect, &table).map(Arc::new));
    opened.await.unwrap()
}

/// An OpenAI embedder that asks nothing at start.
async fn openai(server: &ModelServer, more: &str) -> Arc<HttpEmbedder> {
    let known = format!("dimensions = {DIM}\nnormalized = true\nsend_dimensions = false\nmodel = \"m\"\n{more}");
    open(Dialect::Openai, table("openai", &server.url(), &known))
        .await
        .unwrap()
}

async fn embed(
    embedder: &Arc<HttpEmbedder>,
    texts: &[String],
    patience: Patience,
) -> Result<Vec<Vec<f32>>, EmbedError> {
    let (embedder, texts) = (Arc::clone(embedder), texts.to_vec());
    let work = move || {
        let inputs: Vec<Input<'_>> = texts.iter().map(|t| Input::Text(t)).collect();
        embedder.embed(&inputs, TextKind::Passage, &patience)
    };
    tokio::task::spawn_blocking(work).await.unwrap()
}

fn texts(n: usize) -> Vec<String> {
    (0..n).map(|i| format!("text number {i}")).collect()
}

fn vectors(texts: &[String]) -> Vec<Vec<f32>> {
    texts.iter().map(|t| vector_of(t)).collect()
}

fn long() -> Patience {
    Patience::lasting(Duration::from_secs(60))
}

#[tokio::test]
async fn what_passes_is_retried_and_every_vector_is_that_of_its_text() {
    let date = httpdate::fmt_http_date(SystemTime::now() - Duration::from_secs(5));
    let seconds = vec![("retry-after", "0".to_owned())];
    let faults = [
        Fault::Slow(Duration::from_millis(30)),
        Fault::Drop,
        Fault::Truncated,
        Fault::Status(429, seconds.clone()),
        Fault::Status(429, vec![("retry-after", date)]),
        Fault::Status(500, vec![]),
        Fault::Status(503, seconds),
        Fault::Status(408, vec![]),
    ];
    for fault in faults {
        for (base64, reversed) in [(false, false), (true, true)] {
            let script = Script {
                next: VecDeque::from([fault.clone()]),
                base64,
                reversed,
                ..Script::default()
            };
            let server = ModelServer::start(script).await;
            let embedder = openai(&server, "batch_max = 8").await;
            let texts = texts(20);
            let got = embed(&embedder, &texts, long()).await.unwrap();
            assert_eq!(got, vectors(&texts), "{fault:?}");
            let once = server.embedded().into_values().all(|n| n == 1);
            assert!(
                once && server.embedded().len() == 20,
                "{fault:?}: each text is embedded once"
            );
        }
    }
}

#[tokio::test]
async fn a_wrong_answer_is_named_and_not_asked_for_again() {
    let cases = [
        (Fault::NotJson, "not JSON"),
        (Fault::Huge, "bytes"),
        (Fault::NaN, "NaN"),
        (Fault::WrongDim, "15 numbers, want 16"),
        (Fault::TooFew, "2 vectors for 3"),
        (Fault::TooMany, "4 vectors for 3"),
        (Fault::SameIndex, "two vectors"),
        (
            Fault::Status(301, vec![("location", "http://127.0.0.1:1/".to_owned())]),
            "301",
        ),
        (Fault::Status(401, vec![]), "api_key_env"),
        (Fault::Status(404, vec![]), "check url and model"),
    ];
    for (fault, expected) in cases {
        let script = Script {
            always: Some(fault.clone()),
            ..Script::default()
        };
        let server = ModelServer::start(script).await;
        let embedder = openai(&server, "").await;
        match embed(&embedder, &texts(3), long()).await.unwrap_err() {
            EmbedError::BadAnswer { message } => assert!(message.contains(expected), "{fault:?}: {message}"),
            other => panic!("{fault:?}: {other:?}"),
        }
        assert_eq!(server.seen().len(), 1, "{fault:?}");
    }
}

#[tokio::test]
async fn a_service_that_never_answers_is_given_up_after_its_time_and_its_retries() {
    let script = Script {
        always: Some(Fault::Never),
        ..Script::default()
    };
    let server = ModelServer::start(script).await;
    let embedder = openai(&server, "timeout_ms = 1000\nretries = 1").await;
    match embed(&embedder, &texts(1), long()).await.unwrap_err() {
        EmbedError::Unavailable { message, .. } => assert!(message.contains("no answer within 1000 ms"), "{message}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(server.seen().len(), 2);
    // The caller's patience is shorter than the service's time: that is the caller's end, not a failure of the service.
    let embedder = openai(&server, "timeout_ms = 600000").await;
    let short = Patience::lasting(Duration::from_millis(50));
    assert_eq!(embed(&embedder, &texts(1), short).await, Err(EmbedError::Deadline));
}

#[tokio::test]
async fn nobody_waits_for_a_retry_beyond_their_patience() {
    let hour = vec![("retry-after", "3600".to_owned())];
    let script = Script {
        always: Some(Fault::Status(429, hour)),
        ..Script::default()
    };
    let server = ModelServer::start(script).await;
    let embedder = openai(&server, "").await;
    for requests in [1, 1] {
        match embed(&embedder, &texts(1), long()).await.unwrap_err() {
            EmbedError::Unavailable { retry_after, .. } => assert!(retry_after.unwrap() > Duration::from_secs(3_500)),
            other => panic!("{other:?}"),
        }
        // The second call knows, and does not ask.
        assert_eq!(server.seen().len(), requests);
    }
}

#[tokio::test]
async fn who_waited_for_a_place_keeps_to_what_the_service_asked_for_meanwhile() {
    let second = vec![("retry-after", "1".to_owned())];
    let script = Script {
        next: VecDeque::from([Fault::Status(429, second)]),
        // Long enough for the others to stand in the queue when the answer comes.
        pause: Duration::from_millis(200),
        ..Script::default()
    };
    let server = ModelServer::start(script).await;
    let embedder = openai(&server, "concurrency = 1").await;
    let texts: Vec<Vec<String>> = texts(3).into_iter().map(|text| vec![text]).collect();
    let calls = texts.iter().map(|texts| embed(&embedder, texts, long()));
    for (texts, got) in texts.iter().zip(futures::future::join_all(calls).await) {
        assert_eq!(got.unwrap(), vectors(texts));
    }
    let seen = server.seen();
    assert_eq!(seen.len(), 4);
    // Nobody's clock is slower than the server's: it counts from before its answer.
    assert!(seen[1..].iter().all(|s| s.at - seen[0].at >= Duration::from_secs(1)));
}

#[tokio::test]
async fn a_refused_text_is_found_and_the_others_are_embedded_once() {
    for bad in [0, 7, 18, 31] {
        let script = Script {
            refuses: Some("poison".to_owned()),
            ..Script::default()
        };
        let server = ModelServer::start(script).await;
        let embedder = openai(&server, "batch_max = 32\nconcurrency = 2").await;
        let mut texts = texts(40);
        texts[bad] = "a poisoned text".to_owned();
        let expected = EmbedError::Rejected {
            index: Some(bad),
            message: "422 Unprocessable Entity: the text holds poison".to_owned(),
        };
        assert_eq!(embed(&embedder, &texts, long()).await, Err(expected));
        texts.remove(bad);
        assert_eq!(embed(&embedder, &texts, long()).await.unwrap(), vectors(&texts));
        let counts = server.embedded();
        assert_eq!(counts.len(), 39);
        assert!(counts.values().all(|n| *n == 1), "embedded twice: {counts:?}");
    }
}

#[tokio::test]
async fn a_service_that_keeps_failing_is_left_alone_and_tried_again() {
    let script = Script {
        always: Some(Fault::Drop),
        ..Script::default()
    };
    let server = ModelServer::start(script).await;
    let embedder = openai(&server, "retries = 0").await;
    for _ in 0..5 {
        let error = embed(&embedder, &texts(1), long()).await.unwrap_err();
        assert!(matches!(error, EmbedError::Unavailable { .. }), "{error:?}");
    }
    let EmbedError::Unavailable { message, retry_after } = embed(&embedder, &texts(1), long()).await.unwrap_err()
    else {
        panic!("the breaker says when it is tried again");
    };
    assert!(
        message.contains("failed 5 times in a row, the next attempt is in"),
        "{message}"
    );
    assert_eq!(server.seen().len(), 5, "nobody asks while the breaker is open");
    server.change(|script| script.always = None);
    tokio::time::sleep(retry_after.unwrap()).await;
    assert_eq!(embed(&embedder, &texts(3), long()).await.unwrap(), vectors(&texts(3)));
}

#[tokio::test]
async fn requests_are_bounded_in_number_inputs_and_bytes() {
    let script = Script {
        always: Some(Fault::Slow(Duration::from_millis(10))),
        ..Script::default()
    };
    let server = ModelServer::start(script).await;
    let embedder = openai(&server, "concurrency = 3\nbatch_max = 4\nbatch_bytes_max = 1024").await;
    let mut texts = texts(50);
    texts.extend((0..8).map(|i| format!("{i}{}", "x".repeat(600))));
    // Two callers share the bound.
    let (one, two) = tokio::join!(embed(&embedder, &texts, long()), embed(&embedder, &texts, long()));
    assert_eq!((one.unwrap(), two.unwrap()), (vectors(&texts), vectors(&texts)));
    assert!(server.most_at_once() <= 3, "{}", server.most_at_once());
    for seen in server.seen() {
        let inputs = seen.body["input"].as_array().unwrap();
        let bytes: usize = inputs.iter().map(|i| i.as_str().unwrap().len()).sum();
        assert!(
            inputs.len() <= 4 && bytes <= 1_024,
            "{} inputs, {bytes} bytes",
            inputs.len()
        );
    }
}

#[tokio::test]
async fn at_start_a_service_is_measured_and_says_who_it_is() {
    let server = ModelServer::start(Script::default()).await;
    let bare = open(
        Dialect::Openai,
        table("openai", &server.url(), "query_prefix = \"q: \""),
    )
    .await
    .unwrap();
    let print = bare.fingerprint();
    assert_eq!(
        (print.dim, print.normalized, print.revision.as_str()),
        (DIM, true, "answered-model")
    );
    assert_eq!(print.query_prefix, "q: ");

    server.forget();
    let tei = open(Dialect::Tei, table("tei", &server.url(), "batch_max = 100"))
        .await
        .unwrap();
    assert_eq!(tei.fingerprint().revision, "test/model@abc (mean)");
    assert_eq!((tei.fingerprint().dim, tei.fingerprint().normalized), (DIM, true));
    server.forget();
    assert_eq!(embed(&tei, &texts(20), long()).await.unwrap(), vectors(&texts(20)));
    let sizes = server
        .seen()
        .into_iter()
        .map(|s| s.body["inputs"].as_array().unwrap().len());
    assert!(sizes.max().unwrap() <= 8, "/info says 8");

    // What has not to be asked at start is asked before the first texts, and its bound holds for them.
    server.forget();
    let known = format!("batch_max = 100\nrevision = \"test/model@abc (mean)\"\ndimensions = {DIM}\nnormalized = true");
    let later = open(Dialect::Tei, table("tei", &server.url(), &known)).await.unwrap();
    assert!(server.seen().is_empty());
    assert_eq!(embed(&later, &texts(20), long()).await.unwrap(), vectors(&texts(20)));
    let inputs = |s: cairn_tests::Seen| s.body["inputs"].as_array().unwrap().len();
    assert!(server.seen().into_iter().map(inputs).all(|n| n <= 8), "/info says 8");
    assert!(tei.takes(Medium::Text) && !tei.takes(Medium::Image));

    server.change(|script| script.info["model_type"] = json!({"reranker": {}}));
    let refused = open(Dialect::Tei, table("tei", &server.url(), "")).await.err().unwrap();
    assert!(refused.contains("no embedder"), "{refused}");
    server.change(|script| script.always = Some(Fault::Status(401, vec![])));
    let refused = open(Dialect::Openai, table("openai", &server.url(), ""))
        .await
        .err()
        .unwrap();
    assert!(
        refused.contains("401") && refused.contains("set dimensions, normalized"),
        "{refused}"
    );
    let wrong = open(Dialect::Tei, table("tei", &server.url(), "revision = \"other@1\""))
        .await
        .err()
        .unwrap();
    assert!(wrong.contains("no embedder"), "{wrong}");
}

#[tokio::test]
async fn a_service_that_comes_back_as_another_model_is_refused() {
    let server = ModelServer::start(Script::default()).await;
    let tei = open(Dialect::Tei, table("tei", &server.url(), "")).await.unwrap();
    assert!(embed(&tei, &texts(2), long()).await.is_ok());
    server.change(|script| {
        script.next.push_back(Fault::Drop);
        script.info["model_sha"] = json!("another");
    });
    // The call that sees it go away cannot know yet; the next one asks.
    assert!(embed(&tei, &texts(2), long()).await.is_ok());
    for _ in 0..2 {
        match embed(&tei, &texts(2), long()).await.unwrap_err() {
            EmbedError::BadAnswer { message } => assert!(message.contains("test/model@another (mean)"), "{message}"),
            other => panic!("{other:?}"),
        }
    }
    server.change(|script| script.info["model_sha"] = json!("abc"));
    assert!(embed(&tei, &texts(2), long()).await.is_ok());
}

#[tokio::test]
async fn the_key_is_sent_and_never_shown() {
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("key");
    std::fs::write(&key, "s3cret-key\n").unwrap();
    let script = Script {
        always: Some(Fault::Status(400, vec![])),
        ..Script::default()
    };
    let server = ModelServer::start(script).await;
    let embedder = openai(&server, &format!("api_key_file = {:?}", key.to_str().unwrap())).await;
    let error = embed(&embedder, &texts(1), long()).await.unwrap_err().to_string();
    assert_eq!(server.seen()[0].authorization.as_deref(), Some("Bearer s3cret-key"));
    // This service repeats the header in its message, as some do.
    assert!(error.contains("Bearer [key]") && !error.contains("s3cret"), "{error}");
}

#[tokio::test]
async fn an_empty_text_and_a_medium_that_is_not_taken_are_named_unsent() {
    let server = ModelServer::start(Script::default()).await;
    let embedder = openai(&server, "media = [\"image\"]").await;
    let given = ["a".to_owned(), " \n".to_owned()];
    assert_eq!(
        embed(&embedder, &given, long()).await,
        Err(EmbedError::EmptyText { index: 1 })
    );
    let sound = {
        let embedder = Arc::clone(&embedder);
        let work = move || embedder.embed(&[Input::Audio("http://x/a.wav")], TextKind::Query, &long());
        tokio::task::spawn_blocking(work).await.unwrap()
    };
    let expected = EmbedError::Unsupported {
        index: 0,
        medium: Medium::Audio,
    };
    assert_eq!(sound, Err(expected));
    assert!(server.seen().is_empty());
    let work = move || {
        embedder.embed(
            &[Input::Image("http://x/a.png"), Input::Text("a")],
            TextKind::Query,
            &long(),
        )
    };
    let mixed = tokio::task::spawn_blocking(work).await.unwrap().unwrap();
    assert_eq!(mixed, [vector_of("http://x/a.png"), vector_of("a")]);
    let modalities: Vec<_> = server.seen().iter().map(|s| s.body["modality"].clone()).collect();
    assert!(modalities.contains(&json!("image")) && modalities.contains(&json!(null)));
}
