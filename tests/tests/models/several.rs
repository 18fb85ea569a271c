//! One prompt for two collections whose vectors are made by different models: each is asked with its own model's vector, and
//! the passages of both come in one context.

use cairn_tests::{Fault, Kind, Method, ModelServer, Outcome, Request, Script, TestServer};
use serde_json::{Value, json};

const PROMPT: &str = "What does a cairn mark?";
const NAMES: [&str; 2] = ["first", "second"];

/// Two collections, `first` and `second`, each with the model of its name. A model puts its name before a question, so that the
/// document that says the same has the question's vector, and the other model's question does not.
async fn prepared() -> (TestServer, [ModelServer; 2]) {
    let services = [
        ModelServer::start(Script::default()).await,
        ModelServer::start(Script::default()).await,
    ];
    let table = |(name, service): (&str, &ModelServer)| {
        format!(
            "[embedders.{name}]\ntype = \"openai\"\nurl = \"{}\"\nmodel = \"m\"\nretries = 0\nquery_prefix = \"{name}: \"\n",
            service.url()
        )
    };
    let tables: String = NAMES.into_iter().zip(&services).map(table).collect();
    let server = super::server_with(&tables).await;
    let rest = server.rest();
    for name in NAMES {
        let schema = json!({"vectors": {"dense": {"embedder": {"name": name}}},
                            "fields": {"text": {"type": "text"}, "trust": {"type": "keyword"}}});
        let documents = json!({"documents": [
            {"id": format!("{name}/answer"), "text": format!("{name}: {PROMPT}")},
            {"id": format!("{name}/other"), "text": "Moss grows on the shaded side of stones."},
            {"id": format!("{name}/more"), "text": "Rope is sold by the metre."}]});
        for (method, body) in [(Method::CreateCollection, schema), (Method::PutDocuments, documents)] {
            rest.send(&Request::new(method, name, body)).await.unwrap();
        }
    }
    services.iter().for_each(ModelServer::forget);
    (server, services)
}

async fn enrich(server: &TestServer, mode: &str) -> [Outcome; 2] {
    let request = Request::new(
        Method::Enrich,
        "",
        json!({"prompt": PROMPT, "collections": NAMES, "mode": mode, "explain": true}),
    );
    [
        server.rest().send(&request).await,
        server.grpc().await.send(&request).await,
    ]
}

/// Collection, document and cosine of the first passages.
fn best(answer: &Value, n: usize) -> Vec<(&str, &str, f64)> {
    answer["context"].as_array().unwrap()[..n]
        .iter()
        .map(|p| {
            let cosine = p["scores"]["dense"].as_f64().unwrap_or_default();
            (
                p["collection"].as_str().unwrap(),
                p["document"].as_str().unwrap(),
                cosine,
            )
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_collection_is_asked_with_the_vector_of_its_own_model() {
    let (server, services) = prepared().await;
    for mode in ["dense", "hybrid"] {
        for outcome in enrich(&server, mode).await {
            let answer = outcome.unwrap();
            let mut found = best(&answer, 2);
            found.sort_by_key(|(collection, ..)| *collection);
            for ((collection, document, cosine), name) in found.into_iter().zip(NAMES) {
                assert_eq!(
                    (collection, document),
                    (name, &*format!("{name}/answer")),
                    "{mode}: {answer}"
                );
                assert!(
                    (cosine - 1.0).abs() < 1e-3,
                    "{mode}: the question is compared with its own: {cosine}"
                );
            }
            let embed = answer["stages"]
                .as_array()
                .unwrap()
                .iter()
                .find(|s| s["name"] == "embed");
            assert_eq!(
                (&embed.unwrap()["in"], &embed.unwrap()["out"]),
                (&json!(2), &json!(2)),
                "{mode}"
            );
        }
    }
    // Each model was asked with its own prefix, and only that; what the cache held was not asked again.
    for (name, service) in NAMES.iter().zip(&services) {
        let mut asked: Vec<Value> = service.seen().into_iter().map(|s| s.body["input"].clone()).collect();
        asked.dedup();
        assert_eq!(asked, [json!([format!("{name}: {PROMPT}")])]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_model_that_fails_is_named_and_words_still_answer() {
    let (server, services) = prepared().await;
    services[1].change(|script| script.always = Some(Fault::Status(500, vec![])));
    for outcome in enrich(&server, "hybrid").await {
        let failure = outcome.unwrap_err();
        assert_eq!(failure.code, "embedder_unavailable", "{failure:?}");
        assert!(Kind::Unavailable.is(&failure), "{failure:?}");
        assert!(failure.message.contains(&services[1].url()), "{}", failure.message);
    }
    for outcome in enrich(&server, "bm25").await {
        let answer = outcome.unwrap();
        let mut found: Vec<&str> = best(&answer, 2).into_iter().map(|(_, document, _)| document).collect();
        found.sort_unstable();
        assert_eq!(found, ["first/answer", "second/answer"]);
    }
}
