//! What the client promises, against a server that says what the test tells it to: retries, deadlines, errors, batches.
//!
//! The server is the generated one with scripted answers, over a real socket. That the client and the real server agree
//! is tested with the server.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cairn_client::{
    Client, Collection, Durability, EmbedInput, ErrorKind, Filter, Leg, Point, Query, Retry, Selection,
};
use cairn_proto::v1;
use cairn_proto::v1::points_server::{Points, PointsServer};
use cairn_proto::v1::query_server::{Query as Queries, QueryServer};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Code, Request, Response, Status, Streaming};

/// Errors to answer with, one a call; then everything succeeds. Keeps what it was sent.
#[derive(Clone, Default)]
struct Scripted(Arc<Mutex<Script>>);

#[derive(Default)]
struct Script {
    refusals: VecDeque<Status>,
    slow: Option<Duration>,
    upserts: Vec<v1::UpsertRequest>,
    deletes: Vec<String>,
    streams: Vec<Vec<v1::UpsertRequest>>,
    timeouts: Vec<String>,
    queries: Vec<v1::QueryRequest>,
}

impl Scripted {
    fn refusal(&self) -> Result<(), Status> {
        self.0.lock().unwrap().refusals.pop_front().map_or(Ok(()), Err)
    }
}

#[tonic::async_trait]
impl Points for Scripted {
    async fn upsert(&self, request: Request<v1::UpsertRequest>) -> Result<Response<v1::WriteResponse>, Status> {
        let slow = {
            let mut script = self.0.lock().unwrap();
            let timeout = request
                .metadata()
                .get("grpc-timeout")
                .map(|t| t.to_str().unwrap().to_owned());
            script.timeouts.extend(timeout);
            script.upserts.push(request.get_ref().clone());
            script.slow
        };
        tokio::time::sleep(slow.unwrap_or_default()).await;
        self.refusal()?;
        let changed = request.get_ref().points.len() as u64;
        Ok(Response::new(v1::WriteResponse {
            token: "c1-1-0-1".into(),
            changed,
            durability: request.get_ref().durability,
            replayed: false,
        }))
    }

    async fn upsert_stream(
        &self,
        request: Request<Streaming<v1::UpsertRequest>>,
    ) -> Result<Response<v1::UpsertStreamResponse>, Status> {
        let messages: Vec<_> = request.into_inner().collect::<Result<_, _>>().await?;
        let changed = messages.iter().map(|m| m.points.len() as u64).sum();
        let batches = messages.len() as u64;
        self.0.lock().unwrap().streams.push(messages);
        self.refusal()?;
        Ok(Response::new(v1::UpsertStreamResponse {
            token: "c1-1-0-2".into(),
            changed,
            batches,
            ..Default::default()
        }))
    }

    async fn get(&self, _: Request<v1::GetPointsRequest>) -> Result<Response<v1::GetPointsResponse>, Status> {
        Err(Status::unimplemented("not scripted"))
    }
    async fn delete(&self, request: Request<v1::DeletePointsRequest>) -> Result<Response<v1::WriteResponse>, Status> {
        self.0.lock().unwrap().deletes.push(request.into_inner().request_id);
        self.refusal()?;
        Ok(Response::new(v1::WriteResponse {
            token: "c1-1-0-3".into(),
            changed: 1,
            ..Default::default()
        }))
    }
    /// As much as a server may say in one message, and a little less.
    async fn scroll(&self, _: Request<v1::ScrollRequest>) -> Result<Response<v1::ScrollResponse>, Status> {
        let point = |i: usize| v1::Point {
            id: i.to_string(),
            version: "c1-1-0-1".into(),
            document: Some("x".repeat(1 << 20)),
            ..v1::Point::default()
        };
        Ok(Response::new(v1::ScrollResponse {
            partial: None,
            points: (0..100).map(point).collect(),
            cursor: None,
        }))
    }
    async fn count(&self, _: Request<v1::CountRequest>) -> Result<Response<v1::CountResponse>, Status> {
        self.refusal()?;
        Ok(Response::new(v1::CountResponse {
            count: 7,
            partial: None,
        }))
    }
    async fn set_payload(&self, _: Request<v1::SetPayloadRequest>) -> Result<Response<v1::WriteResponse>, Status> {
        Err(Status::unimplemented("not scripted"))
    }
}

#[tonic::async_trait]
impl Queries for Scripted {
    async fn run(&self, request: Request<v1::QueryRequest>) -> Result<Response<v1::QueryResponse>, Status> {
        self.0.lock().unwrap().queries.push(request.into_inner());
        self.refusal()?;
        Ok(Response::new(v1::QueryResponse::default()))
    }
    async fn run_batch(&self, _: Request<v1::QueryBatchRequest>) -> Result<Response<v1::QueryBatchResponse>, Status> {
        Err(Status::unimplemented("not scripted"))
    }
}

/// A status as the server makes it.
fn refusal(code: Code, ours: &'static str, more: &[(&'static str, &str)]) -> Status {
    let mut status = Status::new(code, "said the server");
    status.metadata_mut().insert("cairn-code", ours.parse().unwrap());
    for (key, value) in more {
        status.metadata_mut().insert(*key, value.parse().unwrap());
    }
    status
}

const QUICK: Retry = Retry {
    retries: 3,
    first_wait: Duration::from_millis(1),
    wait_max: Duration::from_millis(5),
};

async fn serve(refusals: impl IntoIterator<Item = Status>) -> (Collection, Scripted) {
    let server = Scripted::default();
    server.0.lock().unwrap().refusals.extend(refusals);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let service = PointsServer::new(server.clone()).max_decoding_message_size(32 << 20);
    let queries = QueryServer::new(server.clone());
    tokio::spawn(
        tonic::transport::Server::builder()
            .add_service(service)
            .add_service(queries)
            .serve_with_incoming(TcpListenerStream::new(listener)),
    );
    let client = Client::builder(url)
        .timeout(Duration::from_secs(5))
        .retry(QUICK)
        .connect()
        .await
        .unwrap();
    (client.collection("c"), server)
}

fn points(n: usize, dim: usize) -> impl Iterator<Item = Point> + Send {
    (0..n).map(move |i| Point::new(i.to_string()).vector(vec![0.5; dim]).with("i", i))
}

#[tokio::test]
async fn a_delete_by_filter_is_repeated_under_its_request_id_even_if_its_answer_was_lost() {
    use cairn_client::Condition;
    let lost = || refusal(Code::Unavailable, "engine_stopped", &[]);
    let (collection, server) = serve([lost(), refusal(Code::ResourceExhausted, "overloaded", &[])]).await;
    let by_filter = Selection::Filter(Filter::from(Condition::equals("k", "v")));
    assert_eq!(collection.delete(by_filter).await.unwrap().changed, 1);
    let ids = &server.0.lock().unwrap().deletes;
    assert!(
        ids.len() == 3 && !ids[0].is_empty() && ids.iter().all(|id| *id == ids[0]),
        "{ids:?}"
    );
}

#[tokio::test]
async fn a_handle_says_how_durable_its_writes_are_to_be_and_answers_say_how_durable_they_are() {
    let (collection, server) = serve([]).await;
    assert_eq!(
        collection.upsert(points(1, 4)).await.unwrap().durability,
        Durability::Sync
    );
    let hasty = collection.with_durability(Durability::Async);
    assert_eq!(hasty.upsert(points(1, 4)).await.unwrap().durability, Durability::Async);
    let asked: Vec<_> = server
        .0
        .lock()
        .unwrap()
        .upserts
        .iter()
        .map(|u| u.durability())
        .collect();
    assert_eq!(asked, [v1::Durability::Unspecified, v1::Durability::Async]);
}

#[tokio::test]
async fn repeats_what_failed_for_now_under_one_request_id() {
    let busy = || refusal(Code::ResourceExhausted, "write_memory_full", &[]);
    let (collection, server) = serve([busy(), refusal(Code::Unavailable, "draining", &[])]).await;
    let written = collection.upsert(points(2, 4)).await.unwrap();
    assert_eq!((written.changed, written.token.as_str()), (2, "c1-1-0-1"));
    let script = server.0.lock().unwrap();
    let ids: Vec<_> = script.upserts.iter().map(|u| u.request_id.as_str()).collect();
    assert_eq!(ids.len(), 3);
    assert!(ids[0].len() == 32 && ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    // Every attempt says how much time is left, so that the server does not work for nobody.
    assert_eq!(script.timeouts.len(), 3);
}

#[tokio::test]
async fn does_not_repeat_what_is_wrong() {
    let (collection, server) = serve([refusal(
        Code::InvalidArgument,
        "bad_dim",
        &[("cairn-pointer", "/points/3/vector")],
    )])
    .await;
    let error = collection.upsert(points(1, 4)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert_eq!((error.code(), error.message()), ("bad_dim", "said the server"));
    assert_eq!(error.pointer(), Some("/points/3/vector"));
    assert_eq!(server.0.lock().unwrap().upserts.len(), 1);
}

#[tokio::test]
async fn gives_up_after_its_retries_and_says_why() {
    let (collection, server) = serve((0..9).map(|_| refusal(Code::Unavailable, "draining", &[]))).await;
    let error = collection.upsert(points(1, 4)).await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Unavailable, "draining"));
    assert_eq!(server.0.lock().unwrap().upserts.len(), 1 + QUICK.retries as usize);
}

#[tokio::test]
async fn waits_as_long_as_the_server_asks() {
    let later = refusal(
        Code::ResourceExhausted,
        "too_many_reads",
        &[("cairn-retry-after-ms", "150")],
    );
    let (collection, _server) = serve([later]).await;
    let began = Instant::now();
    assert_eq!(collection.count(Filter::new()).await.unwrap(), 7);
    assert!(began.elapsed() >= Duration::from_millis(150), "{:?}", began.elapsed());
}

#[tokio::test]
async fn does_not_wait_beyond_its_deadline() {
    let later = refusal(
        Code::ResourceExhausted,
        "too_many_reads",
        &[("cairn-retry-after-ms", "60000")],
    );
    let (collection, _server) = serve([later]).await;
    let began = Instant::now();
    let error = collection.count(Filter::new()).await.unwrap_err();
    assert_eq!(
        (error.code(), error.retry_after()),
        ("too_many_reads", Some(Duration::from_secs(60)))
    );
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_silent_server_is_a_deadline_error() {
    let (collection, server) = serve([]).await;
    server.0.lock().unwrap().slow = Some(Duration::from_secs(60));
    // The same address with little patience.
    let url = collection_url(&collection);
    let hasty = Client::builder(url)
        .timeout(Duration::from_millis(100))
        .retry(QUICK)
        .connect()
        .await
        .unwrap();
    let began = Instant::now();
    let error = hasty.collection("c").upsert(points(1, 4)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Deadline, "{error}");
    assert!(began.elapsed() < Duration::from_secs(5));
}

fn collection_url(collection: &Collection) -> String {
    collection.client().url().to_owned()
}

#[tokio::test]
async fn nobody_there_is_unreachable() {
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let error = Client::builder(format!("http://{free}"))
        .retry(QUICK)
        .connect()
        .await
        .unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Unreachable, "unreachable"));
    assert!(error.message().contains("refused"), "{error}");
    // Also when it is only found out by the first call.
    let lazy = Client::builder(format!("http://{free}"))
        .retry(QUICK)
        .connect_lazy()
        .unwrap();
    let error = lazy.collection("c").count(Filter::new()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable, "{error}");
}

#[tokio::test]
async fn an_endpoint_is_checked() {
    for url in ["127.0.0.1:7700", "https://cairn.example", "ftp://x", "http://", ""] {
        let error = Client::builder(url).connect_lazy().unwrap_err();
        assert_eq!(
            (error.kind(), error.code()),
            (ErrorKind::Invalid, "bad_endpoint"),
            "{url:?}"
        );
    }
}

#[tokio::test]
async fn a_stream_is_cut_into_bounded_batches() {
    let (collection, server) = serve([]).await;
    let summary = collection.upsert_all(points(20_500, 2)).await.unwrap();
    assert_eq!(summary.changed, 20_500);
    let script = server.0.lock().unwrap();
    let sizes: Vec<Vec<usize>> = script
        .streams
        .iter()
        .map(|s| s.iter().map(|m| m.points.len()).collect())
        .collect();
    assert_eq!(
        sizes,
        [vec![1_000; 8], vec![1_000; 8], vec![1_000, 1_000, 1_000, 1_000, 500]]
    );
    let ids: Vec<String> = script
        .streams
        .iter()
        .flatten()
        .flat_map(|m| m.points.iter().map(|p| p.id.clone()))
        .collect();
    assert!(
        ids.iter().enumerate().all(|(i, id)| *id == i.to_string()),
        "in order, each once"
    );
}

#[tokio::test]
async fn what_the_server_should_embed_is_sent_by_the_vectors_name() {
    use v1::embed_input::Input;
    let (collection, server) = serve([]).await;
    let image = EmbedInput::Image("https://example.org/cat.png".into());
    let point = Point::new("a").embed_text("words", "a cat").embed("looks", image);
    collection.upsert([point]).await.unwrap();
    let sent = server.0.lock().unwrap().upserts[0].points[0].embed.clone();
    let input = |name: &str| sent[name].input.clone().unwrap();
    assert_eq!(input("words"), Input::Text("a cat".into()));
    assert_eq!(input("looks"), Input::Image("https://example.org/cat.png".into()));
}

#[tokio::test]
async fn what_a_query_compares_with_is_sent_as_what_it_is() {
    use v1::nearest::To;
    use v1::query_request::Source;
    let (collection, server) = serve([]).await;
    let picture = || EmbedInput::Image("https://example.org/cat.png".into());
    let sound = EmbedInput::Audio("https://example.org/purr.wav".into());
    let legs = [Leg::nearest_embedded(sound), Leg::nearest_text("a cat")];
    collection
        .query(Query::nearest_embedded(picture()).using("looks"))
        .await
        .unwrap();
    collection.query(Query::nearest_embedded("a cat")).await.unwrap();
    collection.query(Query::fused(legs)).await.unwrap();
    let sent: Vec<_> = server
        .0
        .lock()
        .unwrap()
        .queries
        .drain(..)
        .map(|q| q.source.unwrap())
        .collect();
    let [Source::Nearest(one), Source::Nearest(two), Source::Prefetch(three)] = &sent[..] else {
        panic!("{sent:?}");
    };
    let image = Some(To::Image("https://example.org/cat.png".into()));
    assert_eq!((&one.to, one.using.as_str()), (&image, "looks"));
    assert_eq!(two.to, Some(To::Text("a cat".into())));
    let legs: Vec<_> = three.legs.iter().map(|leg| leg.source.clone().unwrap()).collect();
    let near = |to| {
        v1::leg::Source::Nearest(v1::Nearest {
            to: Some(to),
            using: String::new(),
            embedder: None,
        })
    };
    let audio = To::Audio("https://example.org/purr.wav".into());
    assert_eq!(legs, [near(audio), near(To::Text("a cat".into()))]);
}

#[tokio::test]
async fn large_points_make_small_batches() {
    let (collection, server) = serve([]).await;
    // 256 KiB each: 16 of them are 4 MiB.
    collection.upsert_all(points(40, 65_536)).await.unwrap();
    let script = server.0.lock().unwrap();
    let sizes: Vec<usize> = script.streams.iter().flatten().map(|m| m.points.len()).collect();
    assert_eq!(sizes, [16, 16, 8]);
}

#[tokio::test]
async fn a_broken_stream_is_sent_again_from_its_window() {
    let (collection, server) = serve([refusal(Code::Unavailable, "draining", &[])]).await;
    let summary = collection.upsert_all(points(9_000, 2)).await.unwrap();
    assert_eq!(summary.changed, 9_000);
    let script = server.0.lock().unwrap();
    assert_eq!(script.streams.len(), 3, "the first window twice, the second once");
    assert_eq!(script.streams[0], script.streams[1], "also under the same request ids");
}

#[tokio::test]
async fn nothing_to_stream_asks_nothing() {
    let (collection, server) = serve([]).await;
    assert_eq!(collection.upsert_all(Vec::new()).await.unwrap(), Default::default());
    assert!(server.0.lock().unwrap().streams.is_empty());
}

#[tokio::test]
async fn an_answer_may_be_as_large_as_a_server_makes_it() {
    let (collection, _server) = serve([]).await;
    let page = collection.scroll(cairn_client::Scroll::new()).await.unwrap();
    assert_eq!(page.points.len(), 100);
}

#[tokio::test]
async fn a_missing_method_is_the_callers_error() {
    let (collection, _server) = serve([]).await;
    let error = collection.get(["a"]).await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Invalid, "unimplemented"));
}

/// Calls can be spawned: a future that is not `Send` would compile here and fail at its user's.
#[tokio::test]
async fn calls_can_be_spawned() {
    let (collection, _server) = serve([]).await;
    let upsert = tokio::spawn({
        let collection = collection.clone();
        async move { collection.upsert_all(points(10, 2)).await }
    });
    let count = tokio::spawn(async move { collection.count(Filter::new()).await });
    assert_eq!(
        (upsert.await.unwrap().unwrap().changed, count.await.unwrap().unwrap()),
        (10, 7)
    );
}

#[test]
fn the_readme_holds_the_example_word_for_word() {
    let (readme, example) = (include_str!("../README.md"), include_str!("../examples/quickstart.rs"));
    let shown = example.split("// --- README\n").nth(1).unwrap().trim();
    assert!(
        readme.contains(&format!("```rust,no_run\n{shown}\n```")),
        "copy it from examples/quickstart.rs"
    );
}
