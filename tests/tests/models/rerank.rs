//! What an HTTP reranker does with every fault of its service.

use std::collections::VecDeque;
use std::time::Duration;

use cairn_server::config::{Config, RerankerConfig};
use cairn_server::rag::Patience;
use cairn_server::rag::rerank::http::{Dialect, HttpReranker};
use cairn_server::rag::rerank::{RerankError, Reranker};
use cairn_tests::{Fault, ModelServer, Script, score_of};

const QUERY: &str = "leader election timeout";

async fn rerank(
    server: &ModelServer,
    dialect: Dialect,
    more: &str,
    texts: &[String],
    patience: Patience,
) -> Result<Vec<Option<f32>>, RerankError> {
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
    let texts = texts.to_vec();
    let work = move || {
        let reranker = HttpReranker::open("x", dialect, &table).unwrap();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        reranker.rerank(QUERY, &texts, &patience)
    };
    tokio::task::spawn_blocking(work).await.unwrap()
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
            assert_eq!(got, Ok(scores(&texts)), "{dialect:?} {fault:?}");
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
