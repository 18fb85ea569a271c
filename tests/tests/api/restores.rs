//! What a restore brings back is what the snapshot's token promises, whatever was written at that moment: compared by a full
//! scan with an oracle of plain maps that the database never sees.
//!
//! Writers upsert, replace, delete and change points, and put and delete documents. Each waits for its answer and notes the
//! token with what it did; keys are one writer's alone, so the order of what happens to a key is known. Meanwhile snapshots are
//! taken. What must be in one is what was done up to its token, and nothing after it.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cairn_tests::process::{Launch, Server};
use cairn_tests::{Method, Request, Rest, TestServer};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

const WRITERS: usize = 3;
const SNAPSHOTS: usize = 25;
const RESTORES: usize = 50;
/// Ids of each writer: few, so that most are written again and again.
const POINTS: u32 = 120;
const DOCUMENTS: u32 = 12;
const DIM: usize = 8;

/// What is there.
#[derive(Debug, Clone, Default, PartialEq)]
struct State {
    points: BTreeMap<String, Point>,
    documents: BTreeMap<String, Document>,
}

#[derive(Debug, Clone, PartialEq)]
struct Point {
    payload: Value,
    vector: Vec<f32>,
}

#[derive(Debug, Clone, PartialEq)]
struct Document {
    metadata: Value,
    /// Its text without spaces, of which chunks leave some out.
    letters: String,
}

/// What one acknowledged write did; `None` is gone.
#[derive(Debug, Default)]
struct Change {
    seq: u64,
    points: Vec<(String, Option<Point>)>,
    documents: Vec<(String, Option<Document>)>,
}

impl State {
    fn apply(&mut self, change: &Change) {
        fn set<T: Clone>(all: &mut BTreeMap<String, T>, changes: &[(String, Option<T>)]) {
            for (id, now) in changes {
                match now {
                    Some(now) => all.insert(id.clone(), now.clone()),
                    None => all.remove(id),
                };
            }
        }
        set(&mut self.points, &change.points);
        set(&mut self.documents, &change.documents);
    }
}

/// The place in the log that a token names.
fn seq(token: &Value) -> u64 {
    let token = token.as_str().unwrap_or_else(|| panic!("{token} is no token"));
    u64::from_str_radix(token.rsplit('-').next().unwrap(), 16).unwrap()
}

async fn send(rest: &Rest, method: Method, collection: &str, body: Value) -> Value {
    let sent = rest.send(&Request::new(method, collection, body.clone())).await;
    sent.unwrap_or_else(|failure| panic!("{method:?} {body}: {failure:?}"))
}

/// What came of an operation that a request begins.
async fn done(rest: &Rest, method: Method, body: Value) -> Value {
    let begun = send(rest, method, "", body).await;
    ended(rest, begun).await
}

async fn ended(rest: &Rest, begun: Value) -> Value {
    let waited = json!({"id": begun["id"], "wait_ms": 20_000});
    loop {
        let now = send(rest, Method::GetOperation, "", waited.clone()).await;
        match now["state"].as_str().unwrap() {
            "running" => {}
            "done" => return now,
            _ => panic!("{now}"),
        }
    }
}

/// Writes until it is stopped, and says what it did.
async fn write(rest: Rest, writer: usize, stop: Arc<AtomicBool>) -> Vec<Change> {
    let mut rng = StdRng::seed_from_u64(writer as u64);
    let mut mine = State::default();
    let mut all = Vec::new();
    let mut n = 0u32;
    while !stop.load(Ordering::Relaxed) {
        n += 1;
        let mut change = Change::default();
        let some = rng.random_range(1..=20);
        let mut ids: Vec<String> = (0..some)
            .map(|_| format!("w{writer}-{}", rng.random_range(0..POINTS)))
            .collect();
        ids.sort();
        ids.dedup();
        let document = format!("d{writer}-{}", rng.random_range(0..DOCUMENTS));
        let answer = match rng.random_range(0..12) {
            0..=4 => {
                let vector = |i: usize| -> Vec<f32> { (0..DIM).map(|d| (n + 1) as f32 + (i * d) as f32).collect() };
                let points: Vec<Value> = ids
                    .iter()
                    .enumerate()
                    .map(
                        |(i, id)| json!({"id": id, "vector": vector(i), "payload": {"writer": writer, "n": n, "i": i}}),
                    )
                    .collect();
                change.points = ids
                    .into_iter()
                    .enumerate()
                    .map(|(i, id)| {
                        let payload = json!({"writer": writer, "n": n, "i": i});
                        let vector = vector(i);
                        (id, Some(Point { payload, vector }))
                    })
                    .collect();
                send(&rest, Method::Upsert, "points", json!({"points": points})).await
            }
            5 => {
                change.points = ids.iter().map(|id| (id.clone(), None)).collect();
                send(&rest, Method::DeletePoints, "points", json!({"ids": ids})).await
            }
            6 => {
                // The oldest of its own.
                let upto = n.saturating_sub(rng.random_range(30..80));
                let gone = mine
                    .points
                    .iter()
                    .filter(|(_, p)| p.payload["n"].as_u64() <= Some(upto.into()));
                change.points = gone.map(|(id, _)| (id.clone(), None)).collect();
                let filter =
                    json!({"must": [{"field": "writer", "match": writer}, {"field": "n", "range": {"lte": upto}}]});
                send(&rest, Method::DeletePoints, "points", json!({"filter": filter})).await
            }
            7 => {
                for id in ids.iter().filter(|id| mine.points.contains_key(*id)) {
                    let mut point = mine.points[id].clone();
                    point.payload["note"] = json!(n);
                    change.points.push((id.clone(), Some(point)));
                }
                send(
                    &rest,
                    Method::SetPayload,
                    "points",
                    json!({"ids": ids, "set": {"note": n}}),
                )
                .await
            }
            8..=10 => {
                let words: Vec<String> = (0..rng.random_range(1..60))
                    .map(|i| format!("w{writer}n{n}i{i}"))
                    .collect();
                let metadata = json!({"n": n});
                let body = json!({"id": document, "text": words.join(" "), "metadata": metadata});
                let letters = words.concat();
                change.documents = vec![(document, Some(Document { metadata, letters }))];
                send(&rest, Method::PutDocuments, "docs", json!({"documents": [body]})).await
            }
            _ => {
                change.documents = vec![(document.clone(), None)];
                send(&rest, Method::DeleteDocuments, "docs", json!({"ids": [document]})).await
            }
        };
        // What changes nothing has no token, and needs none.
        if answer.get("token").is_some() {
            change.seq = seq(&answer["token"]);
            mine.apply(&change);
            all.push(change);
        }
    }
    all
}

/// Everything of a collection of points.
async fn points(rest: &Rest, collection: &str) -> BTreeMap<String, Point> {
    let mut all = BTreeMap::new();
    for point in scroll(rest, collection).await {
        let vector = serde_json::from_value(point["vectors"]["v"].clone()).unwrap();
        let payload = point["payload"].clone();
        let id = point["id"].as_str().unwrap().to_owned();
        let twice = all.insert(id, Point { payload, vector });
        assert!(twice.is_none(), "a point came twice");
    }
    all
}

async fn scroll(rest: &Rest, collection: &str) -> Vec<Value> {
    let mut body = json!({"limit": 1_000, "with": {"payload": true, "vectors": true}});
    let mut all = Vec::new();
    loop {
        let mut page = send(rest, Method::Scroll, collection, body.clone()).await;
        all.append(page["points"].as_array_mut().unwrap());
        match page.get("cursor") {
            Some(cursor) => body["cursor"] = cursor.clone(),
            None => return all,
        }
    }
}

/// Vectors of chunks by their text: the same text has the same vector wherever it is.
type Embedded = HashMap<String, Value>;

/// Everything of a collection of documents.
async fn documents(rest: &Rest, collection: &str, embedded: &mut Embedded) -> BTreeMap<String, Document> {
    // By document, and in it by number.
    let mut chunks: BTreeMap<String, BTreeMap<u64, String>> = BTreeMap::new();
    for chunk in scroll(rest, collection).await {
        let text = chunk["payload"]["text"].as_str().unwrap().to_owned();
        let vectors = &chunk["vectors"];
        assert!(vectors.as_object().is_some_and(|all| !all.is_empty()), "{chunk}");
        assert_eq!(
            embedded.entry(text.clone()).or_insert_with(|| vectors.clone()),
            vectors,
            "{text}"
        );
        let of = chunk["document"].as_str().unwrap().to_owned();
        let number = chunk["payload"]["chunk"].as_u64().unwrap();
        let twice = chunks.entry(of).or_default().insert(number, text);
        assert!(twice.is_none(), "{chunk} came twice");
    }
    let listed = send(rest, Method::ListDocuments, collection, json!({"limit": 1_000})).await;
    let mut all = BTreeMap::new();
    for document in listed["documents"].as_array().unwrap() {
        let id = document["id"].as_str().unwrap().to_owned();
        let chunks = chunks.remove(&id).unwrap_or_default();
        assert_eq!(document["chunks"], chunks.len(), "{document}");
        let letters = chunks.values().flat_map(|text| text.split_whitespace()).collect();
        let metadata = document["metadata"].clone();
        all.insert(id, Document { metadata, letters });
    }
    assert!(chunks.is_empty(), "chunks of documents that are not there: {chunks:?}");
    all
}

/// How a snapshot comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// All collections, in place.
    All,
    /// One, in place.
    One,
    /// Beside, in as many shards.
    Renamed(u32),
    /// The whole instance, in a directory of its own.
    Instance,
}

const WAYS: [Way; 10] = [
    Way::All,
    Way::Renamed(1),
    Way::One,
    Way::Renamed(5),
    Way::All,
    Way::Renamed(2),
    Way::One,
    Way::Renamed(3),
    Way::All,
    Way::Instance,
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r14_r15_what_is_restored_is_the_oracle_at_the_token_fifty_times() {
    let server = TestServer::start_with(|config| {
        // Seals, graphs and merges take place.
        config.engine.seal_rows = 150;
        config.engine.graph_rows_min = 100;
        config.engine.merge_fanin = 3;
    })
    .await;
    let rest = server.rest();
    let schema = json!({"vectors": {"v": {"dim": DIM}}, "shards": 2});
    send(&rest, Method::CreateCollection, "points", schema).await;
    let chunking = json!({"chunking": {"max_tokens": 48, "overlap_tokens": 0}, "shards": 2});
    send(&rest, Method::CreateCollection, "docs", chunking).await;

    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| tokio::spawn(write(rest.clone(), writer, Arc::clone(&stop))))
        .collect();
    let mut rng = StdRng::seed_from_u64(14);
    let mut taken = Vec::new();
    for i in 0..SNAPSHOTS {
        tokio::time::sleep(Duration::from_millis(rng.random_range(5..60))).await;
        let name = format!("s{i}");
        done(&rest, Method::CreateSnapshot, json!({"snapshot": name})).await;
        let info = send(&rest, Method::GetSnapshot, "", json!({"snapshot": name})).await;
        taken.push((name, seq(&info["token"])));
    }
    stop.store(true, Ordering::Relaxed);
    let mut history = Vec::new();
    for writer in writers {
        history.push(writer.await.unwrap());
    }
    let at = |token: u64| {
        let mut state = State::default();
        for change in history.iter().flatten().filter(|change| change.seq <= token) {
            state.apply(change);
        }
        state
    };
    let mut embedded = Embedded::new();
    let last = at(u64::MAX);
    assert_eq!(points(&rest, "points").await, last.points);
    assert_eq!(documents(&rest, "docs", &mut embedded).await, last.documents);
    let writes: usize = history.iter().map(Vec::len).sum();
    let moments: std::collections::BTreeSet<u64> = taken.iter().map(|(_, token)| *token).collect();
    assert!(
        moments.len() > SNAPSHOTS / 2 && writes > 5 * SNAPSHOTS,
        "{writes} writes: too few to mean anything"
    );

    for round in 0..RESTORES {
        // Each snapshot in several ways.
        let (snapshot, token) = &taken[(round * 7) % SNAPSHOTS];
        let way = WAYS[round % WAYS.len()];
        let expected = at(*token);
        let said = format!("round {round}: {snapshot} at {token}, {way:?}");
        let restore = async |more: Value| {
            let mut body = json!({"snapshot": snapshot});
            body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            done(&rest, Method::RestoreSnapshot, body).await;
        };
        match way {
            Way::All => {
                restore(json!({"replace": true})).await;
                assert_eq!(points(&rest, "points").await, expected.points, "{said}");
                assert_eq!(
                    documents(&rest, "docs", &mut embedded).await,
                    expected.documents,
                    "{said}"
                );
            }
            Way::One => {
                restore(json!({"collection": "points", "replace": true})).await;
                assert_eq!(points(&rest, "points").await, expected.points, "{said}");
                restore(json!({"collection": "docs", "replace": true})).await;
                assert_eq!(
                    documents(&rest, "docs", &mut embedded).await,
                    expected.documents,
                    "{said}"
                );
            }
            Way::Renamed(shards) => {
                restore(json!({"collection": "points", "as": "points-2", "shards": shards})).await;
                assert_eq!(points(&rest, "points-2").await, expected.points, "{said}");
                restore(json!({"collection": "docs", "as": "docs-2", "shards": shards})).await;
                assert_eq!(
                    documents(&rest, "docs-2", &mut embedded).await,
                    expected.documents,
                    "{said}"
                );
                for name in ["points-2", "docs-2"] {
                    let info = send(&rest, Method::GetCollection, name, Value::Null).await;
                    assert_eq!(info["schema"]["shards"], shards, "{said}");
                    send(&rest, Method::DeleteCollection, name, Value::Null).await;
                }
            }
            Way::Instance => {
                let store = server.data_dir().with_file_name("data-snapshots");
                let instance = TestServer::restored(snapshot, &store).await;
                let rest = instance.rest();
                assert_eq!(points(&rest, "points").await, expected.points, "{said}");
                assert_eq!(
                    documents(&rest, "docs", &mut embedded).await,
                    expected.documents,
                    "{said}"
                );
                instance.stop().await.unwrap();
            }
        }
    }
    server.stop().await.unwrap();
}

/// Bytes that were sent to the store, as the server counts them.
fn sent(server: &Server) -> u64 {
    let of = |operation: &str| {
        let name = format!("cairn_object_store_bytes_total{{operation=\"{operation}\"}}");
        server.metric(&name).unwrap_or_default() as u64
    };
    of("put") + of("put_part")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_after_a_change_of_one_percent_sends_about_one_percent() {
    const ALL: usize = 10_000;
    const DIM: usize = 64;
    let dir = tempfile::tempdir().unwrap();
    let store = format!("snapshots.url={:?}", dir.path().join("store"));
    // A process of its own: what it counts is its own. Nothing is merged that was not asked for.
    let settings = [
        store.as_str(),
        "engine.graph_rows_min=1000000",
        "engine.seal_rows=100000",
        "log.filter=warn",
    ];
    let server = Launch::new(dir.path(), &settings).start().unwrap();
    let rest = Rest::new(server.addr.parse().unwrap());
    send(
        &rest,
        Method::CreateCollection,
        "points",
        json!({"vectors": {"v": {"dim": DIM}}}),
    )
    .await;
    let upsert = async |ids: std::ops::Range<usize>, version: usize| {
        for first in ids.clone().step_by(500) {
            let batch = first..ids.end.min(first + 500);
            let points: Vec<Value> = batch
                .map(|i| {
                    let vector: Vec<usize> = (0..DIM).map(|d| (i * 31 + d * 17 + version) % 97).collect();
                    json!({"id": i, "vector": vector, "payload": {"version": version, "i": i}})
                })
                .collect();
            send(&rest, Method::Upsert, "points", json!({"points": points})).await;
        }
    };
    upsert(0..ALL, 1).await;
    let begun = send(&rest, Method::Optimize, "points", json!({})).await;
    ended(&rest, begun).await;
    done(&rest, Method::CreateSnapshot, json!({"snapshot": "first"})).await;
    let all = sent(&server);
    let info = send(&rest, Method::GetSnapshot, "", json!({"snapshot": "first"})).await;
    let bytes = info["bytes"].as_u64().unwrap();
    assert!(
        (bytes..bytes + bytes / 10).contains(&all),
        "{all} bytes were sent of {bytes}"
    );

    upsert(0..ALL / 100, 2).await;
    done(&rest, Method::CreateSnapshot, json!({"snapshot": "second"})).await;
    let new = sent(&server) - all;
    let _ = writeln!(
        std::io::stderr(),
        "MEASURED: {new} of {all} bytes were new after a change of 1 %"
    );
    assert!(new * 40 < all, "{new} of {all} bytes were new after a change of 1 %");
    assert!(new * 1_000 > all, "what changed must have been sent");
    done(&rest, Method::VerifySnapshot, json!({"snapshot": "second"})).await;
}
