//! A sealed file is damaged: what both protocols say of it, and the way out by the command line.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cairn_tests::process::{self, Launch};
use cairn_tests::{Grpc, Method, Outcome, Request, Rest, TestServer};
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
}

/// The only sealed file below a data directory.
fn sealed(dir: &Path) -> PathBuf {
    let mut left = vec![dir.join("segments")];
    while let Some(next) = left.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            match path.extension().is_some_and(|e| e == "seg") {
                true => return path,
                false => left.push(path),
            }
        }
    }
    panic!("nothing is sealed")
}

fn flip(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[500] ^= 4;
    std::fs::write(path, bytes).unwrap();
}

fn points() -> Value {
    let points: Vec<Value> = (0..60)
        .map(|i| json!({"id": i, "vector": [i, 1], "payload": {"n": i, "text": "a cairn"}}))
        .collect();
    json!({"points": points})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_protocols_refuse_or_tell_what_is_missing() {
    let server = TestServer::start().await;
    let rest = Api::Rest(server.rest());
    let schema = json!({"vectors": {"v": {"dim": 2}}, "fields": {"text": {"type": "text"}}});
    rest.send(Method::CreateCollection, "things", schema).await.unwrap();
    rest.send(Method::Upsert, "things", points()).await.unwrap();
    let begun = rest.send(Method::Optimize, "things", json!({})).await.unwrap();
    let ends = Instant::now() + Duration::from_secs(120);
    loop {
        let now = rest
            .send(Method::GetOperation, "", json!({"id": begun["id"]}))
            .await
            .unwrap();
        if now["state"] != "running" {
            break;
        }
        assert!(Instant::now() < ends, "{now}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // One more that is elsewhere.
    let one = json!({"points": [{"id": 100, "vector": [1, 2], "payload": {"n": 100, "text": "a path"}}]});
    rest.send(Method::Upsert, "things", one).await.unwrap();
    let server = server.restart_with(|config| flip(&sealed(&config.data_dir))).await;
    for api in [Api::Rest(server.rest()), Api::Grpc(server.grpc().await)] {
        let questions = [
            (Method::Count, json!({})),
            (Method::Scroll, json!({"limit": 100})),
            (Method::Query, json!({"nearest": {"vector": [1, 2]}, "limit": 100})),
            (Method::Query, json!({"text": {"query": "cairn path"}})),
            (Method::GetPoints, json!({"ids": [1, 100]})),
            (Method::Enrich, json!({"prompt": "a path", "mode": "bm25"})),
        ];
        for (method, mut question) in questions {
            let refused = api.send(method, "things", question.clone()).await.unwrap_err();
            assert_eq!(refused.code, "segment_damaged", "{question}: {refused:?}");
            assert!(refused.message.contains("60 live points") && refused.message.contains("allow_partial"));
            question["allow_partial"] = json!(true);
            let answer = api.send(method, "things", question.clone()).await.unwrap();
            let partial = &answer["partial"];
            assert_eq!(partial["points"], 60, "{question}: {answer}");
            assert_eq!(partial["segments"][0]["collection"], "things", "{answer}");
            let reason = partial["segments"][0]["reason"].as_str().unwrap();
            assert!(reason.contains("checksum of block 0"), "{answer}");
            let found = answer["count"].as_u64().unwrap_or_else(|| {
                let all = ["points", "hits"].iter().find_map(|key| answer[key].as_array());
                all.map_or(1, |all| all.len() as u64)
            });
            assert_eq!(found, 1, "{question}: {answer}");
        }
        // What is found needs nothing else.
        let there = api
            .send(Method::GetPoints, "things", json!({"ids": [100]}))
            .await
            .unwrap();
        assert!(
            there["points"].as_array().unwrap().len() == 1 && there["partial"].is_null(),
            "{there}"
        );
        let info = api.send(Method::GetCollection, "things", json!({})).await.unwrap();
        assert_eq!(
            (&info["points"], &info["damaged"][0]["points"]),
            (&json!(61), &json!(60)),
            "{info}"
        );
        let refused = api
            .send(
                Method::DeletePoints,
                "things",
                json!({"filter": {"must": [{"field": "n", "match": 3}]}}),
            )
            .await
            .unwrap_err();
        assert!(refused.message.starts_with("nothing was written"), "{refused:?}");
        let metrics = server.metrics_addr().to_string();
        assert_eq!(process::metric(&metrics, "cairn_damaged_points").unwrap(), 60.0);
    }
    let client = cairn_client::Client::connect(&format!("http://{}", server.addr()))
        .await
        .unwrap();
    let things = client.collection("things");
    let missing = |partial: Option<cairn_client::Partial>| partial.map(|partial| partial.points);
    assert_eq!(things.get(["1"]).await.unwrap_err().code(), "segment_damaged");
    let (points, partial) = things.get_partial(["1", "100"]).await.unwrap();
    assert_eq!((points.len(), missing(partial)), (1, Some(60)));
    let (count, partial) = things.count_partial(cairn_client::Filter::default()).await.unwrap();
    assert_eq!((count, missing(partial)), (1, Some(60)));
    server.stop().await.unwrap();
}

/// Exit code and what was said.
fn cairn(args: &[&str]) -> (i32, String) {
    let output = process::cairn().unwrap().args(args).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(said).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_is_found_taken_back_or_given_up_by_the_command_line() {
    let root = tempfile::tempdir().unwrap();
    let store = root.path().join("store");
    let url = format!("snapshots.url=\"{}\"", store.display());
    let launch = Launch::new(root.path(), &["engine.seal_rows=60", "log.filter=warn", &url]);
    let data = launch.data_dir().to_str().unwrap().to_owned();
    let server = launch.start().unwrap();
    let api = format!("http://{}", server.addr);
    let rest = Rest::new(server.addr.parse().unwrap());
    let send = async |method, body| rest.send(&Request::new(method, "things", body)).await.unwrap();
    send(Method::CreateCollection, json!({"vectors": {"v": {"dim": 2}}})).await;
    send(Method::Upsert, points()).await;
    let ends = Instant::now() + Duration::from_secs(120);
    while server.metric("cairn_seals").unwrap() < 1.0 {
        assert!(Instant::now() < ends, "nothing is sealed");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (code, said) = cairn(&["check", &data]);
    assert!(code == 2 && said.contains("directory_locked"), "{code} {said}");
    let (code, said) = cairn(&["snapshots", "create", "one", "--url", &api]);
    assert_eq!(code, 0, "{said}");
    server.stop().unwrap();
    let (code, said) = cairn(&["check", &data]);
    assert!(
        code == 0 && said.contains("collection things: 60 points"),
        "{code} {said}"
    );

    let victim = sealed(launch.data_dir());
    flip(&victim);
    let (code, said) = cairn(&["check", &data, "--json"]);
    let report: Value = serde_json::from_str(&said[..=said.rfind('}').unwrap()]).unwrap();
    assert!(code == 1 && report["findings"][0]["kind"] == "damage", "{code} {said}");
    let repair = |more: &[&str]| {
        let known = ["repair", "--data-dir", &data, "--snapshots", store.to_str().unwrap()];
        cairn(&[&known, more].concat())
    };
    let (code, said) = repair(&[]);
    assert!(code == 1 && said.contains("snapshot one has it"), "{code} {said}");
    assert_eq!(cairn(&["check", &data]).0, 1, "nothing was done");
    let (code, said) = repair(&["--apply"]);
    assert!(code == 0 && said.contains("taken back"), "{code} {said}");
    assert_eq!(cairn(&["check", &data]).0, 0);

    // Without a copy: the points can be given up, and are listed.
    std::fs::remove_file(&victim).unwrap();
    std::fs::remove_dir_all(&store).unwrap();
    let (code, said) = repair(&["--apply"]);
    assert!(code == 1 && said.contains("--drop-segment"), "{code} {said}");
    let place = said
        .split_whitespace()
        .find(|word| word.matches('/').count() == 2 && !word.contains("seg"));
    let place = place.unwrap();
    let lost = root.path().join("lost.jsonl");
    let lost = lost.to_str().unwrap();
    let (code, said) = repair(&["--drop-segment", place, "--lost", lost]);
    assert_eq!(code, 2, "it has to be said that points are lost: {said}");
    let drop = ["--drop-segment", place, "--lost", lost, "--accept-loss"];
    let (code, said) = repair(&drop);
    assert!(code == 0 && said.contains("60 points would be lost"), "{code} {said}");
    let (code, said) = repair(&[&drop[..], &["--apply"]].concat());
    assert!(code == 0 && said.contains("60 points are given up"), "{code} {said}");
    assert_eq!(std::fs::read_to_string(lost).unwrap().lines().count(), 60);
    let (code, said) = cairn(&["check", &data]);
    assert_eq!(code, 0, "{said}");
    let server = launch.start().unwrap();
    let rest = Rest::new(server.addr.parse().unwrap());
    let count = async || {
        rest.send(&Request::new(Method::Count, "things", json!({})))
            .await
            .unwrap()
    };
    assert_eq!(count().await["count"], 0);
    rest.send(&Request::new(Method::Upsert, "things", points()))
        .await
        .unwrap();
    assert_eq!(count().await["count"], 60);
}

/// Of the store a server takes damaged files back by itself: while it runs, and before, where its log needs one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_server_brings_damaged_segments_back_from_the_store() {
    let root = tempfile::tempdir().unwrap();
    let settings = ["engine.seal_rows=60", "snapshots.upload_sealed=true"];
    let launch = Launch::new(root.path(), &settings);
    let waited = async |server: &process::Server, metric: &str, least: f64| {
        for _ in 0..3_000 {
            if server.metric(metric).is_ok_and(|value| value >= least) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{metric} is not {least}");
    };
    let server = launch.start().unwrap();
    let send = async |server: &process::Server, method, body| {
        let rest = Rest::new(server.addr.parse().unwrap());
        rest.send(&Request::new(method, "things", body)).await
    };
    let schema = json!({"vectors": {"v": {"dim": 2}}});
    send(&server, Method::CreateCollection, schema).await.unwrap();
    send(&server, Method::Upsert, points()).await.unwrap();
    // No snapshot: what is sent as it is sealed will do.
    waited(&server, "cairn_upload_files_total", 1.0).await;
    server.stop().unwrap();
    let victim = sealed(launch.data_dir());
    flip(&victim);
    let server = launch.start().unwrap();
    waited(&server, "cairn_damaged_segments_restored_total", 1.0).await;
    assert_eq!(server.metric("cairn_damaged_segments").unwrap(), 0.0);
    let answer = send(&server, Method::Count, json!({})).await.unwrap();
    assert_eq!(answer["count"], 60, "{answer}");
    let api = format!("http://{}", server.addr);
    let (code, said) = cairn(&["snapshots", "create", "one", "--url", &api]);
    assert_eq!(code, 0, "{said}");

    // A delete that is in the log only has to look into the file when it is applied again.
    let deleted = json!({"filter": {"must": [{"field": "n", "match": 3}]}});
    send(&server, Method::DeletePoints, deleted).await.unwrap();
    server.kill();
    flip(&victim);
    let server = launch.start().unwrap();
    let answer = send(&server, Method::Count, json!({})).await.unwrap();
    assert_eq!(answer["count"], 59, "{answer}");
    server.stop().unwrap();
    let (code, said) = cairn(&["check", launch.data_dir().to_str().unwrap()]);
    assert_eq!(code, 0, "{said}");
}
