//! Local models behind the running server: documents and questions through the real MiniLM, late interaction, and a
//! collection whose model the server no longer has, or has changed. Without the model, it says so and tests nothing.

use std::io::Write;
use std::path::PathBuf;

use cairn_server::config::{Config, EmbedderConfig, LateReranker, LocalModel, RerankerConfig};
use cairn_tests::{Kind, Method, Outcome, Request, TestServer};
use serde_json::{Value, json};

fn minilm() -> Option<PathBuf> {
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache/cairn/models"));
    let models = std::env::var_os("CAIRN_MODELS").map(PathBuf::from).or_else(home)?;
    let dir = models.join("minilm");
    if dir.join("model.safetensors").is_file() {
        return Some(dir);
    }
    let _ = writeln!(
        std::io::stderr(),
        "\n******** SKIPPED: run `make models` to test local models ({} is missing) ********\n",
        dir.display()
    );
    None
}

fn with_minilm(config: &mut Config, dir: &std::path::Path, query_prefix: &str) {
    let model = LocalModel {
        dir: dir.to_owned(),
        query_prefix: query_prefix.to_owned(),
        passage_prefix: String::new(),
        languages: cairn_server::rag::language::Languages::default(),
        hybrid_weight: None,
    };
    let late = LateReranker {
        embedder: "minilm".to_owned(),
    };
    config.embedders = [("minilm".to_owned(), EmbedderConfig::Bert(model))].into();
    config.rerankers = [("late".to_owned(), RerankerConfig::Late(late))].into();
    config.default_embedder = "minilm".to_owned();
}

async fn ask(server: &TestServer, method: Method, body: Value) -> [Outcome; 2] {
    let request = Request::new(method, "docs", body);
    [
        server.rest().send(&request).await,
        server.grpc().await.send(&request).await,
    ]
}

async fn ask_text(server: &TestServer) -> [Outcome; 2] {
    let query = json!({"nearest": {"text": "Where do felines like to rest?"}, "limit": 2});
    ask(server, Method::Query, query).await
}

fn first(outcome: &Outcome) -> &Value {
    &outcome.as_ref().unwrap()["hits"][0]["document"]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collection_keeps_to_the_model_that_it_records() {
    let Some(dir) = minilm() else { return };
    let server = TestServer::start_with(|config| with_minilm(config, &dir, "")).await;
    for outcome in ask(&server, Method::CreateCollection, json!({})).await {
        let dense = &outcome.unwrap()["schema"]["vectors"]["dense"];
        assert_eq!(
            (&dense["dim"], &dense["embedder"]["name"]),
            (&json!(384), &json!("minilm"))
        );
        assert!(
            dense["embedder"]["revision"]
                .as_str()
                .unwrap()
                .starts_with("53aa51172d142c89-")
        );
    }
    let documents = json!({"documents": [
        {"id": "cat", "text": "A cat sleeps on the warm windowsill."},
        {"id": "etcd", "text": "A member that hears no heartbeat becomes a candidate and asks for votes."}]});
    let [put, again] = ask(&server, Method::PutDocuments, documents.clone()).await;
    let embedded = |outcome: Outcome| {
        let results = outcome.unwrap()["results"].as_array().unwrap().clone();
        results.iter().map(|r| r["embedded"].as_u64().unwrap_or(0)).sum::<u64>()
    };
    assert_eq!((embedded(put), embedded(again)), (2, 0));
    for outcome in ask_text(&server).await {
        assert_eq!(first(&outcome), "cat");
    }
    let reranked = json!({"text": {"query": "votes heartbeat cat"}, "limit": 2,
        "ranking": {"rerank": {"model": "late", "query": "Where do felines like to rest?", "budget_ms": 60_000}}});
    for outcome in ask(&server, Method::Query, reranked).await {
        assert_eq!(first(&outcome), "cat", "{outcome:?}");
    }

    let server = server.restart_with(|config| {
        config.embedders.clear();
        config.rerankers.clear();
        config.default_embedder = Config::default().default_embedder;
    });
    let server = server.await;
    let put = json!({"documents": [{"id": "new", "text": "A dog."}]});
    let refused = ask_text(&server)
        .await
        .into_iter()
        .chain(ask(&server, Method::PutDocuments, put).await);
    for outcome in refused {
        let failure = outcome.unwrap_err();
        assert!(
            Kind::Invalid.is(&failure) && failure.code == "unknown_embedder",
            "{failure:?}"
        );
        for part in [
            "minilm (revision \"53aa",
            "this server has static-minilm-256",
            "Start the server with",
            "make a new collection",
        ] {
            assert!(failure.message.contains(part), "{}", failure.message);
        }
    }
    for outcome in ask(
        &server,
        Method::Query,
        json!({"text": {"query": "windowsill"}, "limit": 1}),
    )
    .await
    {
        assert_eq!(first(&outcome), "cat", "words need no model");
    }

    let server = server.restart_with(|config| with_minilm(config, &dir, "query: ")).await;
    for outcome in ask_text(&server).await {
        let failure = outcome.unwrap_err();
        assert!(
            failure.message.contains("query_prefix: \"query: \", not \"\""),
            "{}",
            failure.message
        );
    }
    let server = server.restart_with(|config| with_minilm(config, &dir, "")).await;
    for outcome in ask_text(&server).await {
        assert_eq!(first(&outcome), "cat");
    }
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_that_cannot_be_read_stops_the_start_and_says_which() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config {
        data_dir: dir.path().join("data"),
        listen: ([127, 0, 0, 1], 0).into(),
        metrics_listen: ([127, 0, 0, 1], 0).into(),
        ..Config::default()
    };
    with_minilm(&mut config, dir.path(), "");
    let error = cairn_server::serve::start(config).await.err().unwrap().to_string();
    assert!(
        error.contains("embedders.minilm") && error.contains("config.json"),
        "{error}"
    );
    assert!(!dir.path().join("data").exists(), "the models come before the data");
}
