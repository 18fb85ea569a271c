//! What an HTTP reranker does with every fault of its service.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use cairn_server::config::{Config, RerankerConfig};
use cairn_server::rag::Patience;
use cairn_server::rag::rerank::http::{Dialect, HttpReranker};
use cairn_server::rag::rerank::{RerankError, Reranker, Scores};
use cairn_tests::{Fault, ModelServer, Script, score_of};

const QUERY: &str = "leader election timeout";

async fn rerank(
    server: &ModelServer,
    dialect: Dialect,
    more: &str,
    texts: &[String],
    patience: Patience,
) -> Result<Scores, RerankError> {
    ask(open(server, dialect, more).await, texts, patience).await
}

async fn ask(reranker: Arc<HttpReranker>, texts: &[String], patience: Patience) -> Result<Scores, RerankError> {
    let texts = texts.to_vec();
    let work = move || {
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        reranker.rerank(QUERY, &texts, &patience)
    };
    tokio::task::spawn_blocking(work).await.unwrap()
}

async fn open(server: &ModelServer, dialect: Dialect, more: &str) -> Arc<HttpReranker> {
    let kind = match dialect {
        Dialect::Tei => "tei",
        Dialect::Cohere => "cohere",
    };
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("cairn.toml");
    let text = format!("[rerankers.x]\ntype = \"{kind}\"\nurl = \"{}\"\n{more}", server.url());
    std::fs::write(&file, text).unwrap();
    let table = match Config::load(Some(&file), &[]).unwrap().rerankers.remove("x").unwrap() {
        RerankerConfig::Tei(table) | RerankerConfig::Cohere(table) => table,
        other => panic!("{other:?}"),
    };
    let opened = tokio::task::spawn_blocking(move || HttpReranker::open("x", dialect, &table).map(Arc::new));
    opened.await.unwrap().unwrap()
}

fn texts(n: usize) -> Vec<String> {
    let words = ["leader", "election", "timeout"];
    (0..n).map(|i| format!("{i}: {}", words[..i % 4].join(" "))).collect()
}

#[expect(clippy::cast_possible_truncation, reason = "scores are f32")]
fn scores(texts: &[String]) -> Vec<Option<f32>> {
    texts.iter().map(|t| Some(score_of(QUERY, t) as f32)).collect()
}

fn long() -> Patience {
    Patience::lasting(Duration::from_secs(60))
}

#[tokio::test]
async fn both_shapes_score_every_text_whatever_passes_in_between() {
    for dialect in [Dialect::Tei, Dialect::Cohere] {
        for fault in [
            Fault::Slow(Duration::from_millis(20)),
            Fault::Drop,
            Fault::Truncated,
            Fault::Status(503, vec![]),
        ] {
            let script = Script {
                next: VecDeque::from([fault.clone()]),
                reversed: true,
                ..Script::default()
            };
            let server = ModelServer::start(script).await;
            let texts = texts(20);
            let got = rerank(&server, dialect, "batch_max = 6", &texts, long()).await;
            assert_eq!(got, Ok(scores(&texts).into()), "{dialect:?} {fault:?}");
            assert!(server.seen().iter().all(|s| s.path == "/rerank"));
        }
    }
}

#[tokio::test]
async fn a_wrong_answer_scores_nothing() {
    for dialect in [Dialect::Tei, Dialect::Cohere] {
        let cases = [
            (Fault::NotJson, "another shape"),
            (Fault::Huge, "bytes"),
            (Fault::NaN, "another shape"),
            (Fault::TooFew, "2 scores for 3"),
            (Fault::TooMany, "4 scores for 3"),
            (Fault::SameIndex, "two scores"),
            (Fault::Status(403, vec![]), "key"),
        ];
        for (fault, expected) in cases {
            let script = Script {
                always: Some(fault.clone()),
                ..Script::default()
            };
            let server = ModelServer::start(script).await;
            match rerank(&server, dialect, "", &texts(3), long()).await.unwrap_err() {
                RerankError::BadAnswer { message } => assert!(message.contains(expected), "{fault:?}: {message}"),
                other => panic!("{fault:?}: {other:?}"),
            }
            assert_eq!(server.seen().len(), 1);
        }
    }
}

#[tokio::test]
async fn what_was_scored_when_patience_runs_out_is_answered() {
    let script = Script {
        next: VecDeque::from([Fault::Slow(Duration::ZERO), Fault::Slow(Duration::ZERO)]),
        always: Some(Fault::Never),
        ..Script::default()
    };
    let server = ModelServer::start(script).await;
    let texts = texts(10);
    let patience = Patience::lasting(Duration::from_secs(5));
    let got = rerank(
        &server,
        Dialect::Tei,
        "batch_max = 2\nconcurrency = 1",
        &texts,
        patience,
    )
    .await
    .unwrap();
    assert_eq!(got.failed, None);
    let got = got.scores;
    assert_eq!(got[..4], scores(&texts)[..4]);
    assert!(got[4..].iter().all(Option::is_none));
    let none = rerank(
        &server,
        Dialect::Tei,
        "",
        &texts,
        Patience::lasting(Duration::from_millis(50)),
    )
    .await;
    assert_eq!(none, Err(RerankError::Deadline));
}

#[tokio::test]
async fn what_was_scored_before_a_failure_is_kept_and_the_failure_is_told() {
    let texts = texts(10);
    let script = Script {
        next: VecDeque::from([Fault::Slow(Duration::ZERO), Fault::NotJson]),
        ..Script::default()
    };
    let server = ModelServer::start(script).await;
    let small = "batch_max = 4\nconcurrency = 1";
    let got = rerank(&server, Dialect::Tei, small, &texts, long()).await.unwrap();
    assert_eq!(got.scores[..4], scores(&texts)[..4]);
    assert!(got.scores[4..].iter().all(Option::is_none));
    assert!(matches!(got.failed, Some(RerankError::BadAnswer { .. })), "{got:?}");
    assert_eq!(server.seen().len(), 2, "who gives wrong answers is not asked on");

    // A refused text is the fault of its request alone.
    let script = Script {
        refuses: Some("1: leader".to_owned()),
        ..Script::default()
    };
    let server = ModelServer::start(script).await;
    let got = rerank(&server, Dialect::Tei, small, &texts, long()).await.unwrap();
    assert!(got.scores[..4].iter().all(Option::is_none));
    assert_eq!(got.scores[4..], scores(&texts)[4..]);
    assert!(matches!(got.failed, Some(RerankError::Rejected { .. })), "{got:?}");
}

#[tokio::test]
async fn a_service_that_hangs_longer_than_its_callers_wait_is_left_alone_after_a_while() {
    let script = Script {
        always: Some(Fault::Never),
        ..Script::default()
    };
    let server = ModelServer::start(script).await;
    let reranker = open(&server, Dialect::Tei, "timeout_ms = 60000\nretries = 0").await;
    // Each waits for longer than what is needed to count; on a busy machine not every one of them does.
    for calls in 1.. {
        let patience = Patience::lasting(Duration::from_millis(650));
        match ask(Arc::clone(&reranker), &texts(1), patience).await.unwrap_err() {
            RerankError::Deadline => assert!(calls < 50, "the breaker stays closed"),
            RerankError::Unavailable { message, .. } => {
                assert!(message.contains("failed 5 times in a row"), "{message}");
                break;
            }
            other => panic!("{other:?}"),
        }
    }
}
