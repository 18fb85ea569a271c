//! A directory of snapshots when the power goes: what was acknowledged is there, what was deleted stays away, and in between a
//! snapshot is whole or gone.

use cairn_server::config::Config;
use cairn_server::snapshot::restore_into;
use cairn_tests::faultfs::{FaultFs, Image, Unsynced};
use cairn_tests::{Method, Request, Rest, TestServer};
use serde_json::{Value, json};

use super::reliability::can_mount;

async fn send(rest: &Rest, method: Method, collection: &str, body: Value) -> Value {
    rest.send(&Request::new(method, collection, body)).await.unwrap()
}

async fn done(rest: &Rest, method: Method, snapshot: &str) {
    let begun = send(rest, method, "", json!({"snapshot": snapshot})).await;
    let ended = send(
        rest,
        Method::GetOperation,
        "",
        json!({"id": begun["id"], "wait_ms": 20_000}),
    )
    .await;
    assert_eq!(ended["state"], "done", "{ended}");
}

async fn upsert(rest: &Rest, ids: std::ops::Range<u32>) {
    let points: Vec<Value> = ids.map(|i| json!({"id": i, "vector": [i, 1]})).collect();
    send(rest, Method::Upsert, "points", json!({"points": points})).await;
}

/// What restoring a snapshot says if the power has left this of the store: how many points, or an error's code.
async fn restored(image: Image, snapshot: &str) -> Result<u64, &'static str> {
    let store = FaultFs::mount(image).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config {
        data_dir: dir.path().join("data"),
        ..Config::default()
    };
    config.snapshots.url = store.path().join("store").to_str().unwrap().to_owned();
    let restored = restore_into(&config, Some(snapshot), None, &|_| ()).await;
    restored.map(|restored| restored.points).map_err(|error| {
        assert_ne!(error.code, "snapshot_damaged", "{error}");
        error.code
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_directory_of_snapshots_acknowledged_outlives_a_loss_of_power() {
    if !can_mount() {
        return;
    }
    let store = FaultFs::mount(Image::default()).unwrap();
    let server = TestServer::start_with(|config| {
        config.snapshots.url = store.path().join("store").to_str().unwrap().to_owned();
        config.engine.seal_rows = 50;
    })
    .await;
    let rest = server.rest();
    send(
        &rest,
        Method::CreateCollection,
        "points",
        json!({"vectors": {"v": {"dim": 2}}}),
    )
    .await;
    upsert(&rest, 0..100).await;
    done(&rest, Method::CreateSnapshot, "first").await;
    let first = store.now();
    upsert(&rest, 100..150).await;
    done(&rest, Method::CreateSnapshot, "second").await;
    let second = store.now();
    done(&rest, Method::DeleteSnapshot, "first").await;
    let deleted = store.now();
    // The name is given again: that one is another.
    upsert(&rest, 150..160).await;
    done(&rest, Method::CreateSnapshot, "first").await;
    let again = store.now();
    server.stop().await.unwrap();
    let run = store.unmount().unwrap();

    let at = |steps: usize, unsynced: Unsynced| run.after_crash(steps, unsynced, None);
    for unsynced in [Unsynced::Lost, Unsynced::Some(1), Unsynced::Kept] {
        assert_eq!(restored(at(first, unsynced), "first").await, Ok(100), "{unsynced:?}");
        assert_eq!(restored(at(second, unsynced), "first").await, Ok(100), "{unsynced:?}");
        assert_eq!(restored(at(second, unsynced), "second").await, Ok(150), "{unsynced:?}");
        let gone = restored(at(deleted, unsynced), "first").await;
        assert_eq!(gone, Err("snapshot_not_found"), "{unsynced:?}: it was deleted");
        assert_eq!(restored(at(deleted, unsynced), "second").await, Ok(150), "{unsynced:?}");
        assert_eq!(restored(at(again, unsynced), "first").await, Ok(160), "{unsynced:?}");
    }
    // While it is deleted, it is whole or gone: never a manifest without its contents.
    let mut seen = [0, 0];
    for steps in second..=deleted {
        for unsynced in [Unsynced::Lost, Unsynced::Some(steps as u64)] {
            match restored(at(steps, unsynced), "first").await {
                Ok(points) => {
                    assert_eq!(points, 100);
                    seen[0] += 1;
                }
                Err(code) => {
                    assert_eq!(
                        code,
                        "snapshot_not_found",
                        "after step {steps}, {unsynced:?}\n{}",
                        run.trace(steps, 40)
                    );
                    seen[1] += 1;
                }
            }
        }
    }
    assert!(seen[0] > 0 && seen[1] > 0, "{seen:?}");
}
