//! Snapshots through both protocols: made, described, checked, restored under other names and in place, deleted, and what is
//! refused of them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use cairn_tests::{Grpc, Kind, Method, Outcome, Request, Rest, TestServer};
use serde_json::{Value, json};

enum Api {
    Rest(Rest),
    Grpc(Grpc),
}

impl Api {
    async fn send(&self, method: Method, collection: &str, body: Value) -> Outcome {
        let request = Request::new(method, collection, body);
        match self {
            Self::Rest(rest) => rest.send(&request).await,
            Self::Grpc(grpc) => grpc.send(&request).await,
        }
    }

    /// The operation that a request began, when it has ended.
    async fn ended(&self, method: Method, body: Value) -> Value {
        let begun = self.send(method, "", body).await.unwrap();
        let ends = std::time::Instant::now() + std::time::Duration::from_secs(120);
        while std::time::Instant::now() < ends {
            let now = self
                .send(Method::GetOperation, "", json!({"id": begun["id"]}))
                .await
                .unwrap();
            if now["state"] != "running" {
                assert_eq!(now["snapshot"], begun["snapshot"]);
                return now;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        panic!("{begun} does not end");
    }

    async fn done(&self, method: Method, body: Value) -> Value {
        let ended = self.ended(method, body).await;
        assert_eq!(
            (&ended["state"], &ended["progress"]),
            (&json!("done"), &json!(1.0)),
            "{ended}"
        );
        ended
    }

    async fn count(&self, collection: &str) -> Value {
        self.send(Method::Count, collection, json!({})).await.unwrap()["count"].clone()
    }
}

async fn both() -> [(TestServer, Api); 2] {
    let (one, two) = (TestServer::start().await, TestServer::start().await);
    let (rest, grpc) = (Api::Rest(one.rest()), Api::Grpc(two.grpc().await));
    [(one, rest), (two, grpc)]
}

async fn fill(api: &Api) {
    let schema = json!({"vectors": {"v": {"dim": 2}}});
    api.send(Method::CreateCollection, "things", schema).await.unwrap();
    let points: Vec<Value> = (0..60)
        .map(|i| json!({"id": i, "vector": [i, 1], "payload": {"n": i}}))
        .collect();
    api.send(Method::Upsert, "things", json!({"points": points}))
        .await
        .unwrap();
    api.send(Method::CreateCollection, "docs", json!({})).await.unwrap();
    let text = "Cairns mark the path for whoever comes next.";
    let documents = json!({"documents": [{"id": "d", "text": text}]});
    api.send(Method::PutDocuments, "docs", documents).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_brings_back_what_it_holds_under_any_name_and_in_place() {
    for (server, api) in both().await {
        fill(&api).await;
        let made = api.done(Method::CreateSnapshot, json!({"snapshot": "first"})).await;
        assert_eq!(
            (&made["kind"], &made["snapshot"]),
            (&json!("create_snapshot"), &json!("first"))
        );
        let unnamed = api.done(Method::CreateSnapshot, json!({})).await;
        let unnamed = unnamed["snapshot"].as_str().unwrap();
        let all = api.send(Method::ListSnapshots, "", Value::Null).await.unwrap();
        let names: Vec<&Value> = all["snapshots"]
            .as_array()
            .unwrap()
            .iter()
            .map(|s| &s["snapshot"])
            .collect();
        assert_eq!(names, [unnamed, "first"], "the newest first");
        let first = api
            .send(Method::GetSnapshot, "", json!({"snapshot": "first"}))
            .await
            .unwrap();
        let held = json!([{"collection": "docs", "points": 1, "documents": 1},
                          {"collection": "things", "points": 60, "documents": 0}]);
        assert_eq!((&first["collections"], &first["collections_total"]), (&held, &json!(2)));
        api.done(Method::VerifySnapshot, json!({"snapshot": "first"})).await;

        // What came after the snapshot is not in it.
        api.send(Method::DeletePoints, "things", json!({"ids": ["7", "8"]}))
            .await
            .unwrap();
        let more = json!({"points": [{"id": "late", "vector": [1, 1]}]});
        api.send(Method::Upsert, "things", more).await.unwrap();
        let renamed = json!({"snapshot": "first", "collection": "things", "as": "old-things", "shards": 3});
        api.done(Method::RestoreSnapshot, renamed).await;
        assert_eq!(
            (api.count("old-things").await, api.count("things").await),
            (json!(60), json!(59))
        );
        let shards = api
            .send(Method::GetCollection, "old-things", Value::Null)
            .await
            .unwrap();
        assert_eq!(shards["schema"]["shards"], 3, "{shards}");
        let in_place = json!({"snapshot": "first", "collection": "things", "replace": true});
        api.done(Method::RestoreSnapshot, in_place).await;
        assert_eq!(api.count("things").await, 60);
        let late = api
            .send(Method::GetPoints, "things", json!({"ids": ["late", "7"]}))
            .await
            .unwrap();
        assert_eq!(late["points"].as_array().unwrap().len(), 1, "{late}");

        // The moment of a snapshot, by its token, without its name; the log after it need not be kept for that.
        let range = &first["restorable"];
        assert_eq!(
            (&range["from_token"], &range["from_ms"]),
            (&first["token"], &first["created_at_ms"])
        );
        let moment = json!({"to_token": first["token"], "collection": "things", "as": "at-first"});
        api.done(Method::RestoreSnapshot, moment).await;
        assert_eq!(api.count("at-first").await, 60);
        api.send(Method::DeleteCollection, "at-first", Value::Null)
            .await
            .unwrap();

        // Everything that is gone, at once; and it answers questions.
        for name in ["things", "docs", "old-things"] {
            api.send(Method::DeleteCollection, name, Value::Null).await.unwrap();
        }
        api.done(Method::RestoreSnapshot, json!({"snapshot": "first"})).await;
        assert_eq!(api.count("things").await, 60);
        let document = api
            .send(Method::GetDocument, "docs", json!({"id": "d", "with_chunks": true}))
            .await
            .unwrap();
        assert_eq!(document["chunks"].as_array().unwrap().len(), 1, "{document}");
        let asked = json!({"hybrid": {"text": "who marks the path"}, "limit": 1});
        let hits = api.send(Method::Query, "docs", asked).await.unwrap();
        assert_eq!(hits["hits"].as_array().unwrap().len(), 1, "{hits}");

        let gone = api.done(Method::DeleteSnapshot, json!({"snapshot": "first"})).await;
        assert!(gone["message"].as_str().unwrap().starts_with("removed "), "{gone}");
        api.done(Method::VerifySnapshot, json!({"snapshot": unnamed})).await;
        api.done(Method::DeleteSnapshot, json!({"snapshot": unnamed})).await;
        let store = server.data_dir().with_file_name("data-snapshots");
        let files = |of: &str| std::fs::read_dir(store.join(of)).map_or(0, |entries| entries.flatten().count());
        assert_eq!((files("snapshots"), files("leases")), (0, 0));
        let objects = std::fs::read_dir(store.join("objects")).unwrap().flatten();
        let left: usize = objects.map(|dir| std::fs::read_dir(dir.path()).unwrap().count()).sum();
        assert_eq!(left, 0, "contents that nobody needs");
        for scratch in ["cuts", "restores"] {
            let left = std::fs::read_dir(server.data_dir().join(scratch)).unwrap().count();
            assert_eq!(left, 0, "{scratch}");
        }
        server.stop().await.unwrap();
    }
}

/// Everything that is in the store.
fn objects(store: &Path) -> BTreeSet<PathBuf> {
    let entries = |dir: &Path| std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries(&store.join("objects"))
        .flat_map(|dir| entries(&dir).collect::<Vec<_>>())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_the_next_snapshot_is_damaged_a_moment_is_reached_from_the_one_before() {
    let server = TestServer::start_with(|config| config.engine.log_retention_ms = 3_600_000).await;
    let api = Api::Rest(server.rest());
    let schema = json!({"vectors": {"v": {"dim": 2}}});
    api.send(Method::CreateCollection, "things", schema).await.unwrap();
    let write = async |from: u32| {
        let points: Vec<Value> = (from..from + 10).map(|i| json!({"id": i, "vector": [i, 1]})).collect();
        let written = api
            .send(Method::Upsert, "things", json!({"points": points}))
            .await
            .unwrap();
        written["token"].clone()
    };
    let store = server.data_dir().with_file_name("data-snapshots");
    write(0).await;
    api.done(Method::CreateSnapshot, json!({"snapshot": "one"})).await;
    let of_one = objects(&store);
    write(10).await;
    api.done(Method::CreateSnapshot, json!({"snapshot": "two"})).await;
    let of_two = objects(&store);
    let moment = write(20).await;
    write(30).await;
    assert!(of_two.difference(&of_one).count() > 0);
    for object in of_two.difference(&of_one) {
        let mut bytes = std::fs::read(object).unwrap();
        bytes[0] ^= 1;
        std::fs::write(object, bytes).unwrap();
    }
    let restore = json!({"to_token": moment, "collection": "things", "as": "then"});
    api.done(Method::RestoreSnapshot, restore).await;
    assert_eq!(api.count("then").await, 30);
    // Of the one that is named there is no other way.
    let named = json!({"snapshot": "two", "to_token": moment, "collection": "things", "as": "again"});
    let ended = api.ended(Method::RestoreSnapshot, named).await;
    assert_eq!(
        (&ended["state"], &ended["error_code"]),
        (&json!("failed"), &json!("snapshot_damaged")),
        "{ended}"
    );
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_a_snapshot_is_said_before_anything_begins() {
    for (server, api) in both().await {
        fill(&api).await;
        api.done(Method::CreateSnapshot, json!({"snapshot": "s"})).await;
        let of = |more: Value| {
            let mut body = json!({"snapshot": "s"});
            body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            body
        };
        let (restore, get) = (Method::RestoreSnapshot, Method::GetSnapshot);
        for (method, body, kind, code) in [
            (Method::CreateSnapshot, of(json!({})), Kind::Exists, "snapshot_exists"),
            (
                Method::CreateSnapshot,
                json!({"snapshot": "../s"}),
                Kind::Invalid,
                "bad_name",
            ),
            (
                Method::CreateSnapshot,
                json!({"snapshot": "S"}),
                Kind::Invalid,
                "bad_name",
            ),
            (get, json!({"snapshot": "t"}), Kind::NotFound, "snapshot_not_found"),
            (get, json!({"snapshot": "..%2f..%2fetc"}), Kind::Invalid, "bad_name"),
            (
                Method::VerifySnapshot,
                json!({"snapshot": "t"}),
                Kind::NotFound,
                "snapshot_not_found",
            ),
            (
                Method::DeleteSnapshot,
                json!({"snapshot": "t"}),
                Kind::NotFound,
                "snapshot_not_found",
            ),
            (restore, json!({"snapshot": "t"}), Kind::NotFound, "snapshot_not_found"),
            (restore, of(json!({})), Kind::Exists, "collection_exists"),
            (
                restore,
                of(json!({"collection": "things"})),
                Kind::Exists,
                "collection_exists",
            ),
            (
                restore,
                of(json!({"collection": "nobody"})),
                Kind::NotFound,
                "collection_not_found",
            ),
            (
                restore,
                of(json!({"collection": "things", "as": "docs"})),
                Kind::Exists,
                "collection_exists",
            ),
            (
                restore,
                of(json!({"collection": "things", "as": "a/b"})),
                Kind::Invalid,
                "bad_name",
            ),
            (
                restore,
                of(json!({"collection": "things", "as": "b", "shards": 65})),
                Kind::Invalid,
                "bad_shards",
            ),
            (restore, of(json!({"as": "b"})), Kind::Invalid, "bad_restore"),
            (restore, of(json!({"shards": 2})), Kind::Invalid, "bad_restore"),
            (restore, json!({"collection": "things"}), Kind::Invalid, "bad_restore"),
            (
                restore,
                of(json!({"replace": true, "to_token": "c1-1-0-1", "to_time_ms": 1})),
                Kind::Invalid,
                "bad_restore",
            ),
            (
                restore,
                json!({"replace": true, "to_token": "yesterday"}),
                Kind::Invalid,
                "bad_token",
            ),
            (
                restore,
                of(json!({"replace": true, "to_token": "c1-1-0-ffff"})),
                Kind::Conflict,
                "token_unknown",
            ),
            (
                restore,
                json!({"replace": true, "to_time_ms": 1}),
                Kind::NotFound,
                "moment_not_restorable",
            ),
        ] {
            let refused = api.send(method, "", body.clone()).await.unwrap_err();
            assert!(kind.is(&refused) && refused.code == code, "{body}: {refused:?}");
        }
        // A damaged one is listed as such, refused, and can be deleted.
        let manifests = server.data_dir().with_file_name("data-snapshots").join("snapshots");
        let file = std::fs::read_dir(manifests).unwrap().next().unwrap().unwrap().path();
        std::fs::write(file, "{}").unwrap();
        let listed = api.send(Method::ListSnapshots, "", Value::Null).await.unwrap();
        let why = listed["snapshots"][0]["damaged"].as_str().unwrap();
        assert!(why.contains("does not begin"), "{why}");
        let refused = api.send(restore, "", of(json!({"replace": true}))).await.unwrap_err();
        assert_eq!(refused.code, "snapshot_damaged");
        assert_eq!(api.count("things").await, 60);
        // It keeps the contents of others that go, and a delete says so and names it.
        api.done(Method::CreateSnapshot, json!({"snapshot": "t"})).await;
        let gone = api.done(Method::DeleteSnapshot, json!({"snapshot": "t"})).await;
        let said = gone["message"].as_str().unwrap();
        assert!(
            said.starts_with("the snapshot is removed") && said.contains("\"s\""),
            "{said}"
        );
        let gone = api.done(Method::DeleteSnapshot, json!({"snapshot": "s"})).await;
        assert!(gone["message"].as_str().unwrap().starts_with("removed "), "{gone}");
        server.stop().await.unwrap();
    }
}

/// A content that is damaged is found when it is read, and nothing is changed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_content_fails_the_operation_and_changes_nothing() {
    let server = TestServer::start().await;
    let api = Api::Rest(server.rest());
    fill(&api).await;
    api.done(Method::CreateSnapshot, json!({"snapshot": "s"})).await;
    let objects = server.data_dir().with_file_name("data-snapshots").join("objects");
    for dir in std::fs::read_dir(objects).unwrap() {
        for file in std::fs::read_dir(dir.unwrap().path()).unwrap() {
            let file = file.unwrap().path();
            let mut bytes = std::fs::read(&file).unwrap();
            if let Some(last) = bytes.last_mut() {
                *last ^= 1;
                std::fs::write(file, bytes).unwrap();
            }
        }
    }
    for (method, body) in [
        (Method::VerifySnapshot, json!({"snapshot": "s"})),
        (Method::RestoreSnapshot, json!({"snapshot": "s", "replace": true})),
    ] {
        let ended = api.ended(method, body).await;
        assert_eq!(
            (&ended["state"], &ended["error_code"]),
            (&json!("failed"), &json!("snapshot_damaged")),
            "{ended}"
        );
    }
    assert_eq!(api.count("things").await, 60);
    let names = api.send(Method::ListCollections, "", Value::Null).await.unwrap();
    assert_eq!(names["collections"], json!(["docs", "things"]));
    server.stop().await.unwrap();
}
