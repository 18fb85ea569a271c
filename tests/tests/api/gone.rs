//! What becomes of work whose caller has gone: it ends soon, and its place is free for others.

use std::time::Instant;

use cairn_tests::{Method, Outcome, Request, TestServer};
use serde_json::{Value, json};

/// A query of many legs, each of so many words that it takes its time, although hardly a point holds one of them.
fn slow() -> Request {
    let leg = |leg: usize| {
        let words: Vec<String> = (0..40_000).map(|word| format!("w{leg}x{word}")).collect();
        json!({"text": {"query": words.join(" ")}})
    };
    let legs: Vec<Value> = (0..12).map(leg).collect();
    Request::new(Method::Query, "c", json!({"prefetch": legs}))
}

/// There is one place for reads: who asks after a caller who has gone waits until that caller's work has ended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_ends_when_its_connection_does() {
    let server = TestServer::start_with(|config| config.limits.reads_max = 1).await;
    let (rest, grpc) = (server.rest(), server.grpc().await);
    let schema = json!({"fields": {"text": {"type": "text"}}});
    let points = json!({"points": [{"id": "a", "payload": {"text": "w0x0 w1x1 and others"}}]});
    for request in [
        Request::new(Method::CreateCollection, "c", schema),
        Request::new(Method::Upsert, "c", points),
    ] {
        rest.send(&request).await.unwrap();
    }
    let (slow, count) = (slow(), Request::new(Method::Count, "c", json!({})));
    for api in ["rest", "grpc"] {
        let send = async |request: &Request| -> Outcome {
            match api {
                "rest" => rest.send(request).await,
                _ => grpc.send(request).await,
            }
        };
        // How long something takes is the machine's affair too: work that goes on without a caller would do so each time.
        let mut seen = Vec::new();
        while seen.len() < 30 {
            let began = Instant::now();
            send(&slow).await.unwrap();
            let takes = began.elapsed();
            let left = tokio::time::timeout(takes / 4, send(&slow)).await.is_err();
            let gone = Instant::now();
            send(&count).await.unwrap();
            seen.push((takes, left, gone.elapsed()));
            if left && gone.elapsed() < takes / 2 {
                break;
            }
        }
        let ended = seen
            .last()
            .is_some_and(|(takes, left, after)| *left && *after < *takes / 2);
        assert!(
            ended,
            "{api}: it takes, was left, and took a place without a caller: {seen:?}"
        );
    }
    server.stop().await.unwrap();
}
