//! A whole server whose rerankers are behind HTTP: queries and prompts come in the order that the service gives, and a
//! service that fails or is late costs the order, never the answer.

use cairn_tests::{Fault, Method, ModelServer, Request, Script, TestServer};
use serde_json::{Value, json};

/// What the reranker compares with: it scores a text by the share of these words that it holds.
const WORDS: &str = "leader election timeout";

/// By BM25 for `leader` the order is short, middle, long; the reranker turns it round.
const BY_WORDS: [&str; 3] = ["short", "middle", "long"];
const BY_RERANKER: [&str; 3] = ["long", "middle", "short"];

/// A server with one reranker for each script, named `r0`, `r1` and so on; those of odd numbers speak Cohere's shape.
async fn server(scripts: Vec<Script>, more: &str) -> (TestServer, Vec<ModelServer>) {
    let mut services = Vec::new();
    let mut tables = String::new();
    for (i, script) in scripts.into_iter().enumerate() {
        let service = ModelServer::start(script).await;
        let kind = ["tei", "cohere"][i % 2];
        tables += &format!(
            "[rerankers.r{i}]\ntype = \"{kind}\"\nurl = \"{}\"\nretries = 0\n{more}\n",
            service.url()
        );
        services.push(service);
    }
    let server = super::server_with(&tables).await;
    let rest = server.rest();
    let schema = json!({"vectors": {"v": {"dim": 2}}, "fields": {"text": {"type": "text"}}});
    let points = json!({"points": [
        {"id": "short", "vector": [1, 0], "payload": {"text": "The leader, and again the leader: leader."}},
        {"id": "middle", "vector": [1, 0], "payload": {"text": "A leader is chosen in an election by all the others."}},
        {"id": "long", "vector": [1, 0], "payload": {"text": "How long a follower waits before it wants to be leader \
            itself and starts an election is what the setting of the timeout says, in milliseconds."}}]});
    for (method, body) in [(Method::CreateCollection, schema), (Method::Upsert, points)] {
        rest.send(&Request::new(method, "docs", body)).await.unwrap();
    }
    (server, services)
}

/// What came of a question: ids in order, and the stages.
struct Ranked {
    how: &'static str,
    ids: Vec<String>,
    stages: Value,
}

impl Ranked {
    /// What the reranker's step skipped.
    fn skipped(&self) -> Option<&str> {
        let stages = self.stages.as_array().unwrap();
        let rerank = stages.iter().find(|s| s["name"] == "rerank")?;
        rerank["skipped"].as_str()
    }
}

/// The same question as a query and as a prompt, through both protocols.
async fn ask(server: &TestServer, rerank: Value) -> Vec<Ranked> {
    let ranking = json!({ "rerank": rerank });
    let query = json!({"text": {"query": "leader"}, "limit": 3, "ranking": ranking});
    let enrich = json!({"prompt": "leader", "mode": "bm25", "explain": true, "ranking": ranking});
    let (rest, grpc) = (server.rest(), server.grpc().await);
    let mut all = Vec::new();
    for (method, body) in [(Method::Query, query), (Method::Enrich, enrich)] {
        let request = Request::new(method, "docs", body);
        let [name_rest, name_grpc] = match method {
            Method::Query => ["a query by REST", "a query by gRPC"],
            _ => ["a prompt by REST", "a prompt by gRPC"],
        };
        for (how, outcome) in [
            (name_rest, rest.send(&request).await),
            (name_grpc, grpc.send(&request).await),
        ] {
            let answer = outcome.unwrap_or_else(|e| panic!("{how}: {e:?}"));
            let id = |hit: &Value| hit.get("id").unwrap_or(&hit["ids"][0]).as_str().unwrap().to_owned();
            let hits = answer.get("hits").unwrap_or(&answer["context"]);
            all.push(Ranked {
                how,
                ids: hits.as_array().unwrap().iter().map(id).collect(),
                stages: answer["stages"].clone(),
            });
        }
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_order_is_what_the_reranker_says() {
    let reversed = Script {
        reversed: true,
        ..Script::default()
    };
    let (server, services) = server(vec![Script::default(), reversed], "batch_max = 2").await;
    for (i, service) in services.iter().enumerate() {
        let rerank = json!({"model": format!("r{i}"), "query": WORDS, "budget_ms": 60_000});
        for ranked in ask(&server, rerank).await {
            assert_eq!(ranked.ids, BY_RERANKER, "r{i}: {}", ranked.how);
            assert_eq!(ranked.skipped(), None, "r{i}: {}", ranked.how);
        }
        // Four questions, each of two requests: texts as they are, and the words to compare with.
        let seen = service.seen();
        assert_eq!(seen.len(), 8, "r{i}");
        assert!(seen.iter().all(|s| s.path == "/rerank" && s.body["query"] == WORDS));
    }
    // The words of the query itself, if no others are given: all texts hold `leader`, so the order stays.
    let own = ask(&server, json!({"model": "r0", "budget_ms": 60_000})).await;
    assert!(own.iter().all(|ranked| ranked.ids == BY_WORDS));
    assert_eq!(services[0].seen().last().unwrap().body["query"], "leader");
    // Only the best are sent.
    services[0].forget();
    for ranked in ask(
        &server,
        json!({"model": "r0", "query": WORDS, "top": 2, "budget_ms": 60_000}),
    )
    .await
    {
        assert_eq!(ranked.ids, ["middle", "short", "long"], "{}", ranked.how);
    }
    let texts = |body: &Value| body["texts"].as_array().unwrap().len();
    assert!(services[0].seen().iter().all(|s| texts(&s.body) == 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reranker_that_fails_or_is_late_costs_the_order_and_is_named() {
    let late = "the time for reranking passed";
    let cases = [
        (Fault::Never, late),
        (Fault::Never, late),
        (Fault::Status(429, vec![]), "429 Too Many Requests"),
        (Fault::Status(500, vec![]), "500 Internal Server Error"),
        (Fault::Drop, "was tried once"),
        (Fault::Truncated, "the connection broke"),
        (Fault::NaN, "another shape"),
        (Fault::NaN, "another shape"),
        (Fault::TooFew, "2 scores for 3 texts"),
        (Fault::TooMany, "4 scores for 3 texts"),
        (Fault::SameIndex, "two scores have the index 0"),
        (Fault::Status(401, vec![]), "it wants a key"),
        (Fault::Status(422, vec![]), "422 Unprocessable Entity"),
    ];
    let script = |fault: &Fault| Script {
        always: Some(fault.clone()),
        ..Script::default()
    };
    let (server, _services) = server(cases.iter().map(|(fault, _)| script(fault)).collect(), "").await;
    for (i, (fault, expected)) in cases.iter().enumerate() {
        let budget_ms = if *fault == Fault::Never { 100 } else { 60_000 };
        let model = format!("r{i}");
        for ranked in ask(&server, json!({"model": model, "query": WORDS, "budget_ms": budget_ms})).await {
            let what = format!("{model}, {fault:?}: {}", ranked.how);
            assert_eq!(ranked.ids, BY_WORDS, "{what}: the order stays");
            let skipped = ranked.skipped().unwrap_or_else(|| panic!("{what}: {}", ranked.stages));
            assert!(skipped.contains(&format!("reranker {model:?}")), "{what}: {skipped}");
            assert!(skipped.contains(expected), "{what}: {skipped}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_scored_within_the_budget_comes_first() {
    let (server, services) = server(vec![Script::default()], "batch_max = 1\nconcurrency = 1").await;
    // The first two texts of each of the four questions are answered; the third is waited for in vain.
    services[0].change(|script| {
        let quick = || Fault::Slow(std::time::Duration::ZERO);
        script.next = (0..4).flat_map(|_| [quick(), quick(), Fault::Never]).collect();
    });
    for ranked in ask(&server, json!({"model": "r0", "query": WORDS, "budget_ms": 5_000})).await {
        assert_eq!(ranked.ids, ["middle", "short", "long"], "{}", ranked.how);
        let skipped = ranked.skipped().unwrap();
        assert!(
            skipped.contains("1 of 3 hits were not scored within 5000 ms"),
            "{}: {skipped}",
            ranked.how
        );
    }
}
