//! A whole server whose embedder takes images and sounds: what is said to the service in each of its shapes, for points and
//! for queries alike.

use cairn_tests::{Fault, Kind, Method, ModelServer, Request, Script, TestServer, vector_of};
use serde_json::{Value, json};

const CAT: &str = "https://example.org/cat.png";
const PURR: &str = "data:audio/wav;base64,UFVSUg==";

async fn server(models: &ModelServer, shape: &str) -> TestServer {
    let table = format!(
        "[embedders.looks]\ntype = \"openai\"\nurl = \"{}\"\nmodel = \"clip\"\nquery_prefix = \"find: \"\nretries = 0\n\
         media = [\"image\", \"audio\"]\nmedia_shape = \"{shape}\"\n",
        models.url()
    );
    let server = super::server_with(&table).await;
    let schema = json!({"vectors": {"look": {"embedder": {"name": "looks"}}}});
    let create = Request::new(Method::CreateCollection, "pictures", schema);
    server.rest().send(&create).await.unwrap();
    server
}

/// What is asked of the service for a reference, in its shape.
fn said(shape: &str, medium: &str, reference: &str) -> Value {
    match shape {
        "infinity" => json!({"model": "clip", "input": [reference], "modality": medium}),
        "jina" => json!({"model": "clip", "input": [{medium: reference}]}),
        _ => {
            let kind = format!("{medium}_url");
            let part = json!({"type": kind, kind.clone(): {"url": reference}});
            json!({"model": "clip", "messages": [{"role": "user", "content": [part]}]})
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reference_is_passed_through_and_finds_its_point() {
    for shape in ["infinity", "jina", "vllm"] {
        let models = ModelServer::start(Script::default()).await;
        let server = server(&models, shape).await;
        let (rest, grpc) = (server.rest(), server.grpc().await);
        let points = json!({"points": [{"id": "cat", "embed": {"look": {"image": CAT}}},
                                       {"id": "purr", "embed": {"look": {"audio": PURR}}},
                                       {"id": "word", "embed": {"look": {"text": "find: a dog"}}}]});
        models.forget();
        rest.send(&Request::new(Method::Upsert, "pictures", points))
            .await
            .unwrap();
        let get = json!({"ids": ["cat", "purr"], "with": {"vectors": true}});
        let stored = rest
            .send(&Request::new(Method::GetPoints, "pictures", get))
            .await
            .unwrap();
        for (point, reference) in stored["points"].as_array().unwrap().iter().zip([CAT, PURR]) {
            let vector: Vec<f32> = serde_json::from_value(point["vectors"]["look"].clone()).unwrap();
            assert_eq!(vector, vector_of(reference), "{shape}");
        }
        for (medium, given, id) in [
            ("image", CAT, "cat"),
            ("audio", PURR, "purr"),
            ("text", "a dog", "word"),
        ] {
            let query = json!({"nearest": {medium: given}, "limit": 1});
            let request = Request::new(Method::Query, "pictures", query);
            models.forget();
            for outcome in [rest.send(&request).await, grpc.send(&request).await] {
                assert_eq!(outcome.unwrap()["hits"][0]["id"], id, "{shape} {medium}");
            }
            // Once or twice: the second query may be answered from the cache. A reference gets no prefix.
            let mut seen: Vec<Value> = models.seen().into_iter().map(|s| s.body).collect();
            seen.dedup();
            match medium {
                "text" => assert_eq!(seen, [json!({"model": "clip", "input": ["find: a dog"]})], "{shape}"),
                _ => assert_eq!(seen, [said(shape, medium, given)], "{shape}"),
            }
        }
        server.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_picture_that_the_service_refuses_is_named_by_its_place() {
    let models = ModelServer::start(Script::default()).await;
    let server = server(&models, "infinity").await;
    let (rest, grpc) = (server.rest(), server.grpc().await);
    let cases = [
        (Fault::Status(422, vec![]), "embedder_rejected", Kind::Invalid),
        (Fault::Status(500, vec![]), "embedder_unavailable", Kind::Unavailable),
        (Fault::NaN, "embedder_bad_answer", Kind::Upstream),
    ];
    let alone = json!({"nearest": {"image": CAT}});
    let leg = json!({"prefetch": [{"nearest": {"vector": vec![0.5; 16]}}, {"nearest": {"image": CAT}}]});
    for (fault, code, kind) in cases {
        models.change(|script| script.always = Some(fault.clone()));
        for (query, pointer) in [(&alone, "/nearest/image"), (&leg, "/prefetch/1/nearest/image")] {
            let request = Request::new(Method::Query, "pictures", query.clone());
            for outcome in [rest.send(&request).await, grpc.send(&request).await] {
                let failure = outcome.unwrap_err();
                let what = (failure.code.as_str(), failure.pointer.as_deref());
                assert_eq!(what, (code, Some(pointer)), "{fault:?} {failure:?}");
                assert!(kind.is(&failure), "{fault:?} {failure:?}");
            }
        }
    }
}
