//! Inverted lists from end to end: a collection says that it wants them, a sealed segment has them, and questions are answered
//! from them, over both protocols.

use cairn_tests::{Method, Outcome, Request, TestServer};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

const ROWS: usize = 1_000;
const DIM: usize = 16;
/// Rows lie around so many places, so that a few lists hold what is near a question.
const PLACES: usize = 25;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn questions_are_answered_from_inverted_lists() {
    let server = TestServer::start_with(|config| config.engine.graph_rows_min = 100).await;
    let (rest, grpc) = (server.rest(), server.grpc().await);
    tell("rest", async |request| rest.send(&request).await).await;
    tell("grpc", async |request| grpc.send(&request).await).await;
    server.stop().await.unwrap();
}

/// The story, to one of the protocols.
async fn tell(api: &str, send: impl AsyncFn(Request) -> Outcome) {
    let ask = async |method: Method, body: Value| {
        let answer = send(Request::new(method, api, body.clone())).await;
        answer.unwrap_or_else(|failure| panic!("{api}: {method:?} {body}: {failure:?}"))
    };
    let mut rng = StdRng::seed_from_u64(1);
    let mut draw = |width: f32| -> Vec<f32> { (0..DIM).map(|_| rng.random_range(-width..width)).collect() };
    let places: Vec<Vec<f32>> = (0..PLACES).map(|_| draw(1.0)).collect();
    let mut near = |i: usize| -> Vec<f32> {
        let noise = draw(0.2);
        places[i % PLACES]
            .iter()
            .zip(noise)
            .map(|(x, noise)| x + noise)
            .collect()
    };
    let spec = json!({"dim": DIM, "metric": "euclid", "index": {"type": "ivf", "nlist": 20}, "quantization": "int4"});
    ask(Method::CreateCollection, json!({"vectors": {"v": spec}})).await;
    let points: Vec<Value> = (0..ROWS)
        .map(|i| json!({"id": i.to_string(), "vectors": {"v": near(i)}, "payload": {"n": i}}))
        .collect();
    ask(Method::Upsert, json!({"points": points})).await;
    let begun = ask(Method::Optimize, Value::Null).await;
    while ask(Method::GetOperation, json!({"id": begun["id"]})).await["state"] == "running" {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    // Dead in the file that has the lists.
    let dead: Vec<String> = (0..ROWS).step_by(7).map(|i| i.to_string()).collect();
    ask(Method::DeletePoints, json!({"ids": dead})).await;
    let info = ask(Method::GetCollection, Value::Null).await;
    assert_eq!(
        info["schema"]["vectors"]["v"]["index"],
        json!({"type": "ivf", "nlist": 20}),
        "{api}"
    );

    let (mut found, mut wanted) = (0, 0);
    let (mut evaluated, mut of_one) = (0, 0);
    for from in [0, 500] {
        for i in 0..10 {
            let question = near(i);
            let body = |params: Value| {
                json!({"nearest": {"vector": question}, "params": params, "with": {"explain": true, "payload": false},
                       "filter": {"must": [{"field": "n", "range": {"gte": from}}]}})
            };
            let hits = |answer: &Value| -> Vec<String> {
                let hits = answer["hits"].as_array().unwrap().iter();
                hits.map(|hit| hit["id"].as_str().unwrap().to_owned()).collect()
            };
            let exact = ask(Method::Query, body(json!({"exact": true}))).await;
            let answer = ask(Method::Query, body(json!({}))).await;
            let one = ask(Method::Query, body(json!({"nprobe": 1}))).await;
            for (answer, strategy) in [(&exact, "exact"), (&answer, "lists"), (&one, "lists")] {
                assert_eq!(answer["explain"][0]["strategy"], strategy, "{api}: {answer}");
                assert_eq!(hits(answer).len(), 10, "{api}: {answer}");
            }
            let right = hits(&exact);
            found += hits(&answer).iter().filter(|id| right.contains(id)).count();
            wanted += right.len();
            evaluated += answer["explain"][0]["evaluated"].as_u64().unwrap();
            of_one += one["explain"][0]["evaluated"].as_u64().unwrap();
        }
    }
    assert!(found * 100 >= wanted * 90, "{api}: {found} of {wanted}");
    assert!(of_one <= evaluated, "{api}: {of_one} {evaluated}");
}
