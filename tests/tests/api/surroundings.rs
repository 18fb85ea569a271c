//! What is served beside the API, and the life of a server: probes, metrics, health, reflection, streams, restart, drain.

use std::time::Duration;

use cairn_proto::v1 as pb;
use cairn_proto::v1::documents_client::DocumentsClient;
use cairn_proto::v1::operations_client::OperationsClient;
use cairn_proto::v1::points_client::PointsClient;
use cairn_tests::{Method, Request, TestServer, http_client};
use futures::StreamExt;
use serde_json::{Value, json};
use tonic::transport::Channel;
use tower::ServiceExt;

async fn channel(server: &TestServer) -> Channel {
    Channel::from_shared(format!("http://{}", server.addr()))
        .unwrap()
        .connect()
        .await
        .unwrap()
}

async fn get(addr: std::net::SocketAddr, path: &str) -> (u16, String) {
    let response = http_client().get(format!("http://{addr}{path}")).send().await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

fn vectors(id: impl std::fmt::Display, vector: Vec<f32>) -> pb::PointInput {
    pb::PointInput {
        id: id.to_string(),
        vector: Some(pb::Vector { values: vector }),
        ..pb::PointInput::default()
    }
}

async fn with_vectors(server: &TestServer) {
    let schema = json!({"vectors": {"v": {"dim": 2}}});
    server
        .rest()
        .send(&Request::new(Method::CreateCollection, "c", schema))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operation_is_watched_to_its_end_by_both_protocols() {
    let server = TestServer::start().await;
    with_vectors(&server).await;
    let rest = server.rest();
    let points: Vec<Value> = (0..100).map(|i| json!({"id": i, "vector": [i, 1]})).collect();
    rest.send(&Request::new(Method::Upsert, "c", json!({ "points": points })))
        .await
        .unwrap();
    let begun = rest
        .send(&Request::new(Method::Optimize, "c", Value::Null))
        .await
        .unwrap();
    let by_rest = json!({"id": begun["id"], "wait_ms": 25_000});
    let ended = rest
        .send(&Request::new(Method::GetOperation, "", by_rest))
        .await
        .unwrap();
    assert_eq!(
        (&ended["state"], &ended["progress"]),
        (&json!("done"), &json!(1.0)),
        "{ended}"
    );
    let info = rest
        .send(&Request::new(Method::GetCollection, "c", Value::Null))
        .await
        .unwrap();
    assert_eq!(
        (&info["segments"], &info["indexed_points"]),
        (&json!(1), &json!(100)),
        "{info}"
    );

    let id = begun["id"].as_str().unwrap().to_owned();
    let mut operations = OperationsClient::new(channel(&server).await);
    let watched = operations
        .watch(pb::GetOperationRequest { id: id.clone() })
        .await
        .unwrap();
    let told: Vec<pb::Operation> = watched.into_inner().map(|o| o.unwrap()).collect().await;
    assert_eq!(told.last().unwrap().state(), pb::OperationState::Done);
    let again = operations.cancel(pb::CancelOperationRequest { id }).await.unwrap();
    assert_eq!(
        again.into_inner().state(),
        pb::OperationState::Done,
        "what has ended stays as it is"
    );

    let mut nobody = operations
        .watch(pb::GetOperationRequest { id: "op-7".into() })
        .await
        .unwrap_err();
    assert_eq!(nobody.metadata_mut().get("cairn-code").unwrap(), "operation_not_found");
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collection_says_how_much_its_searches_found() {
    let server = TestServer::start_with(|config| config.engine.recall_sample_every = 1).await;
    with_vectors(&server).await;
    let (rest, grpc) = (server.rest(), server.grpc().await);
    let points: Vec<Value> = (0..100).map(|i| json!({"id": i, "vector": [i, 1]})).collect();
    rest.send(&Request::new(Method::Upsert, "c", json!({ "points": points })))
        .await
        .unwrap();
    let told = async || {
        let info = Request::new(Method::GetCollection, "c", Value::Null);
        let (by_rest, by_grpc) = (rest.send(&info).await.unwrap(), grpc.send(&info).await.unwrap());
        (by_rest["recall_estimate"].clone(), by_grpc["recall_estimate"].clone())
    };
    assert_eq!(told().await, (Value::Null, Value::Null), "none was asked again");
    // An exact search is none of those that may miss something.
    for params in [json!({}), json!({"exact": true}), json!({"target_recall": 0.9})] {
        let body = json!({"nearest": {"vector": [3, 1]}, "params": params});
        rest.send(&Request::new(Method::Query, "c", body)).await.unwrap();
    }
    let right = json!({"recall": 1.0, "questions": 2});
    for _ in 0..3_000 {
        if told().await.0["questions"] == right["questions"] {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(told().await, (right.clone(), right), "growing rows are scanned");
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probes_and_metrics_have_a_listener_of_their_own() {
    let server = TestServer::start().await;
    with_vectors(&server).await;
    server
        .rest()
        .send(&Request::new(
            Method::Query,
            "nowhere",
            json!({"nearest": {"vector": [1]}}),
        ))
        .await
        .unwrap_err();
    assert_eq!(get(server.metrics_addr(), "/livez").await.0, 200);
    assert_eq!(get(server.metrics_addr(), "/readyz").await.0, 200);
    let (status, metrics) = get(server.metrics_addr(), "/metrics").await;
    assert_eq!(status, 200);
    for line in [
        "cairn_requests_total{api=\"rest\",method=\"Collections.Create\",code=\"ok\"}",
        "cairn_requests_total{api=\"rest\",method=\"Query.Run\",code=\"collection_not_found\"}",
        "cairn_request_duration_seconds_bucket{api=\"rest\",method=\"Collections.Create\",le=\"",
        "cairn_requests_in_flight{api=\"rest\"}",
        "cairn_collections ",
    ] {
        assert!(metrics.contains(line), "no {line} in\n{metrics}");
    }
    assert_eq!(
        get(server.addr(), "/metrics").await.0,
        404,
        "the API's port serves no metrics"
    );
    assert_eq!(
        get(server.metrics_addr(), "/api/v1/collections").await.0,
        404,
        "the metrics' port serves no API"
    );
    let (status, contract) = get(server.addr(), "/api/v1/openapi.json").await;
    assert_eq!(status, 200);
    let contract: Value = serde_json::from_str(&contract).unwrap();
    assert!(contract["paths"]["/api/v1/collections/{collection}/enrich"]["post"].is_object());
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grpc_has_health_and_reflection() {
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_client::HealthClient;
    use tonic_reflection::pb::v1::ServerReflectionRequest;
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;

    let server = TestServer::start().await;
    let channel = channel(&server).await;
    let health = HealthClient::new(channel.clone())
        .check(HealthCheckRequest::default())
        .await
        .unwrap();
    assert_eq!(health.into_inner().status, 1, "SERVING");
    let list = ServerReflectionRequest {
        message_request: Some(MessageRequest::ListServices(String::new())),
        ..ServerReflectionRequest::default()
    };
    let mut answers = ServerReflectionClient::new(channel)
        .server_reflection_info(tokio_stream::iter([list]))
        .await
        .unwrap()
        .into_inner();
    let services = format!("{:?}", answers.next().await.unwrap().unwrap());
    for name in [
        "cairn.v1.Collections",
        "cairn.v1.Points",
        "cairn.v1.Query",
        "cairn.v1.Documents",
        "grpc.health.v1.Health",
    ] {
        assert!(services.contains(name), "no {name} in {services}");
    }
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_of_batches_is_written_in_order_and_says_where_it_stopped() {
    let server = TestServer::start().await;
    with_vectors(&server).await;
    let mut points = PointsClient::new(channel(&server).await);
    let batch = |collection: &str, points| pb::UpsertRequest {
        collection: collection.into(),
        points,
        ..pb::UpsertRequest::default()
    };
    let batches = [
        batch("c", vec![vectors(1, vec![1.0, 0.0]), vectors(2, vec![0.0, 1.0])]),
        batch("", vec![vectors(1, vec![0.5, 0.5])]),
    ];
    let done = points
        .upsert_stream(tokio_stream::iter(batches))
        .await
        .unwrap()
        .into_inner();
    assert_eq!((done.batches, done.changed), (2, 3));
    let one = points
        .get(pb::GetPointsRequest {
            allow_partial: false,
            collection: "c".into(),
            ids: vec!["1".into()],
            with: Some(pb::With {
                vectors: true,
                ..pb::With::default()
            }),
        })
        .await
        .unwrap();
    assert_eq!(
        one.into_inner().points[0].vectors["v"].values,
        [0.5, 0.5],
        "the later message wins"
    );

    let wrong = [
        batch("c", vec![vectors(3, vec![1.0, 0.0])]),
        batch("", vec![vectors(4, vec![1.0])]),
    ];
    let status = points.upsert_stream(tokio_stream::iter(wrong)).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::InvalidArgument);
    assert_eq!(status.metadata().get("cairn-code").unwrap(), "wrong_dim");
    assert!(
        status.message().contains("1 points before it were written"),
        "{}",
        status.message()
    );
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_document_does_not_end_its_stream() {
    use pb::put_stream_response::Outcome;
    let server = TestServer::start().await;
    server
        .rest()
        .send(&Request::new(Method::CreateCollection, "d", json!({})))
        .await
        .unwrap();
    let document = |id: &str, text: &str| pb::PutStreamRequest {
        collection: "d".into(),
        document: Some(pb::DocumentInput {
            id: id.into(),
            text: text.into(),
            ..pb::DocumentInput::default()
        }),
        ..Default::default()
    };
    let sent = [
        document("a", "apples"),
        document("b", " "),
        document("a", "apples"),
        document("c", "cherries"),
    ];
    let mut documents = DocumentsClient::new(channel(&server).await);
    let answers = documents
        .put_stream(tokio_stream::iter(sent))
        .await
        .unwrap()
        .into_inner();
    let answers: Vec<_> = answers.map(Result::unwrap).collect().await;
    let told: Vec<_> = answers
        .iter()
        .map(|a| match a.outcome.as_ref().unwrap() {
            Outcome::Result(r) => (a.id.as_str(), if r.unchanged { "unchanged" } else { "stored" }),
            Outcome::Error(e) => (a.id.as_str(), e.code.as_str()),
        })
        .collect();
    assert_eq!(
        told,
        [
            ("a", "stored"),
            ("b", "empty_document"),
            ("a", "unchanged"),
            ("c", "stored")
        ]
    );
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_document_that_cannot_be_cut_refuses_its_request_before_the_first_write() {
    let server = TestServer::start().await;
    let rest = server.rest();
    rest.send(&Request::new(Method::CreateCollection, "d", json!({})))
        .await
        .unwrap();
    let put = json!({"documents": [
        {"id": "good", "text": "words"},
        {"id": "hollow", "text": "---\ntitle: nothing else\n---\n", "format": "markdown"},
    ]});
    let failure = rest
        .send(&Request::new(Method::PutDocuments, "d", put))
        .await
        .unwrap_err();
    assert_eq!(
        (failure.code.as_str(), failure.pointer.as_deref()),
        ("empty_document", Some("/documents/1/text"))
    );
    let stored = rest
        .send(&Request::new(Method::ListDocuments, "d", json!({})))
        .await
        .unwrap();
    assert_eq!(stored["documents"], json!([]));
    let largest = Request::new(Method::ListDocuments, "d", json!({"limit": 10_000}));
    assert_eq!(rest.send(&largest).await.unwrap()["documents"], json!([]));

    // The same id twice is two writes in order, and the second one sees the first.
    let put = json!({"documents": [{"id": "a", "text": "one"}, {"id": "a", "text": "one"}]});
    let done = rest.send(&Request::new(Method::PutDocuments, "d", put)).await.unwrap();
    let unchanged: Vec<_> = done["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| &r["unchanged"])
        .collect();
    assert_eq!(unchanged, [false, true]);
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acked_is_there_after_a_restart() {
    let server = TestServer::start().await;
    with_vectors(&server).await;
    let upsert = json!({"points": [{"id": "kept", "vector": [1, 0], "payload": {"k": "v"}}]});
    let written = server
        .rest()
        .send(&Request::new(Method::Upsert, "c", upsert))
        .await
        .unwrap();
    let server = server.restart().await;
    let query = json!({"nearest": {"vector": [1, 0]}, "after": written["token"]});
    let answer = server
        .rest()
        .send(&Request::new(Method::Query, "c", query))
        .await
        .unwrap();
    assert_eq!(answer["hits"][0]["payload"], json!({"k": "v"}));
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_under_way_at_shutdown_are_answered() {
    let server = TestServer::start().await;
    with_vectors(&server).await;
    let rest = server.rest();
    let writes: Vec<_> = (0..20)
        .map(|i| {
            let rest = rest.clone();
            tokio::spawn(async move {
                let upsert = json!({"points": [{"id": i, "vector": [1, i]}]});
                rest.send(&Request::new(Method::Upsert, "c", upsert)).await
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(2)).await;
    let server = server.restart().await;
    let mut acked = 0;
    for write in writes {
        match write.await.unwrap() {
            Ok(_) => acked += 1,
            // A connection that came too late: refused, not left hanging.
            Err(failure) => assert_eq!(failure.code, "unanswered", "{failure:?}"),
        }
    }
    let count = server
        .rest()
        .send(&Request::new(Method::Count, "c", json!({})))
        .await
        .unwrap();
    assert!(
        count["count"].as_u64().unwrap() >= acked,
        "{count} points for {acked} acks"
    );
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_requests_are_refused_and_told_when_to_retry() {
    let server = TestServer::start_with(|config| {
        config.limits.writes_max = 1;
        config.limits.writes_queued_max = 0;
    })
    .await;
    server
        .rest()
        .send(&Request::new(Method::CreateCollection, "d", json!({})))
        .await
        .unwrap();
    let text = "many words of a long document that take a while to cut and embed. ".repeat(3_000);
    let put = |i: u32| {
        let rest = server_rest(&server);
        let body = json!({"documents": [{"id": format!("d{i}"), "text": text}]});
        tokio::spawn(async move { rest.send(&Request::new(Method::PutDocuments, "d", body)).await })
    };
    let puts: Vec<_> = (0..8).map(put).collect();
    let (mut done, mut refused) = (0, 0);
    for put in puts {
        match put.await.unwrap() {
            Ok(_) => done += 1,
            Err(failure) => {
                assert_eq!(
                    (failure.http, failure.code.as_str()),
                    (Some(429), "overloaded"),
                    "{failure:?}"
                );
                refused += 1;
            }
        }
    }
    assert!(done >= 1 && refused >= 1, "{done} done, {refused} refused");
}

/// A request whose body never ends is given up when its caller would have given up, by both protocols.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_covers_the_arrival_of_the_request() {
    let server = TestServer::start_with(|config| config.limits.timeout_ms = 500).await;
    let started = std::time::Instant::now();
    let never = futures::stream::pending::<Result<Vec<u8>, std::io::Error>>();
    let rest = http_client()
        .put(format!(
            "http://{}/api/v1/collections/slow?timeout_ms=200",
            server.addr()
        ))
        .header("content-type", "application/json")
        .body(reqwest::Body::wrap_stream(never))
        .send()
        .await
        .unwrap();
    assert_eq!(rest.status(), 408);
    // A stream of messages to a method that takes one: it waits for the first.
    let to_unary = |mut request: http::Request<tonic::body::Body>| {
        *request.uri_mut() = request
            .uri()
            .to_string()
            .replace("UpsertStream", "Upsert")
            .parse()
            .unwrap();
        request
    };
    let mut points = PointsClient::new(channel(&server).await.map_request(to_unary));
    let status = points.upsert_stream(futures::stream::pending()).await.unwrap_err();
    assert_eq!(status.metadata().get("cairn-code").unwrap(), "deadline_exceeded");
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    server.stop().await.unwrap();
}

/// Two bodies on their way hold all bytes there are; a third is refused by both protocols, and taken when they have gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_bytes_of_all_requests_together_are_bounded() {
    let server = TestServer::start_with(|config| {
        config.limits.body_bytes_max = 64 << 10;
        config.limits.bodies_bytes_max = 64 << 10;
    })
    .await;
    with_vectors(&server).await;
    let slow = |bytes: usize| {
        let begun = futures::stream::iter([Ok::<_, std::io::Error>(vec![b' '; bytes])]);
        let body = reqwest::Body::wrap_stream(begun.chain(futures::stream::pending()));
        let url = format!("http://{}/api/v1/collections/c/points/count", server.addr());
        let request = http_client().post(url).header("content-type", "application/json");
        tokio::spawn(request.body(body).send())
    };
    let uploads = [slow(32 << 10), slow(32 << 10)];
    let (rest, grpc) = (server.rest(), server.grpc().await);
    let count = Request::new(Method::Count, "c", json!({}));
    let until = |refused: bool| {
        let (rest, grpc, count) = (rest.clone(), grpc.clone(), &count);
        async move {
            for _ in 0..500 {
                let outcomes = [rest.send(count).await, grpc.send(count).await];
                let all = outcomes.iter().all(|outcome| match outcome {
                    Ok(_) => !refused,
                    Err(failure) => refused && failure.code == "overloaded",
                });
                if all {
                    return true;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            false
        }
    };
    assert!(until(true).await, "nothing was refused");
    uploads.iter().for_each(tokio::task::JoinHandle::abort);
    assert!(until(false).await, "the bytes were not given back");
    server.stop().await.unwrap();
}

/// While half of all bytes are held, a message of more than the other half is refused, however short it came.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compressed_message_counts_as_what_it_is() {
    let server = TestServer::start_with(|config| {
        config.limits.body_bytes_max = 64 << 10;
        config.limits.bodies_bytes_max = 64 << 10;
    })
    .await;
    with_vectors(&server).await;
    let begun = futures::stream::iter([Ok::<_, std::io::Error>(vec![b' '; 32 << 10])]);
    let body = reqwest::Body::wrap_stream(begun.chain(futures::stream::pending()));
    let url = format!("http://{}/api/v1/collections/c/points/count", server.addr());
    let request = http_client().post(url).header("content-type", "application/json");
    let upload = tokio::spawn(request.body(body).send());
    let points = PointsClient::new(channel(&server).await).send_compressed(tonic::codec::CompressionEncoding::Zstd);
    let until = async |code: &str| {
        for _ in 0..500 {
            // An id of that length is wrong, which is found out later.
            let long = pb::GetPointsRequest {
                allow_partial: false,
                collection: "c".into(),
                ids: vec!["x".repeat(40 << 10)],
                with: None,
            };
            let refused = points.clone().get(long).await.unwrap_err();
            if refused.metadata().get("cairn-code").unwrap() == code {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        false
    };
    assert!(until("overloaded").await, "it was taken for what it is compressed");
    upload.abort();
    assert!(until("bad_id").await, "the bytes were not given back");
    server.stop().await.unwrap();
}

fn server_rest(server: &TestServer) -> cairn_tests::Rest {
    server.rest()
}
