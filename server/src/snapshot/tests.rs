//! The repository of snapshots against stores that fail, answer late, lose answers and hold damage; and against itself, when
//! snapshots are written and deleted at the same time.

mod engine;
mod faulty;
mod hostile;
mod others;
mod point;
mod s3;
mod sealed;
mod store_server;

use std::collections::BTreeMap;
use std::path::Path as FilePath;
use std::sync::Arc;

use cairn_engine::types::{Epochs, Seq};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _};
use proptest::prelude::*;
use tempfile::TempDir;

use self::faulty::{Faulty, Plan};
use super::*;
use crate::config::SnapshotsConfig;

/// Files of a data directory, as far as a snapshot cares.
struct Files {
    dir: TempDir,
    files: BTreeMap<String, Vec<u8>>,
}

impl Files {
    /// Sealed files with the given contents, and a database.
    fn new(contents: &[&[u8]]) -> Self {
        let mut files = BTreeMap::from([("db/CURRENT".to_owned(), b"MANIFEST-000001\n".to_vec())]);
        for (i, content) in contents.iter().enumerate() {
            files.insert(format!("segments/1/0/{i:010}.seg"), content.to_vec());
        }
        Self::holding(files)
    }

    fn holding(files: BTreeMap<String, Vec<u8>>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (path, content) in &files {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        Self { dir, files }
    }

    fn source(&self) -> Source<'_> {
        Source {
            dir: self.dir.path(),
            about: About {
                token: Epochs::default().token(Seq(1)),
                taken_at_ms: 1_700_000_000_000,
                identity: Identity::default(),
                history: History::default(),
                log_from: Epochs::default().token(Seq(1)),
                epochs: Epochs::default(),
                collections: Vec::new(),
            },
            files: self
                .files
                .iter()
                .map(|(path, bytes)| (path.clone(), bytes.len() as u64, None))
                .collect(),
        }
    }
}

fn over(store: &Arc<InMemory>) -> Snapshots {
    let inner: Arc<dyn ObjectStore> = Arc::clone(store) as _;
    Snapshots::new(Store::over(inner, Path::from("here"), "the test's store".into()))
}

const WORK: Work<'static> = Work {
    stopped: &|| false,
    progress: &|_| (),
};

async fn delete(snapshots: &Snapshots, name: &str) -> Result<Collected> {
    let keys = snapshots.keys_of(name).await?;
    match keys.is_empty() {
        true => Err(not_found(name)),
        false => snapshots.remove(&keys, &WORK).await,
    }
}

/// Where the manifest of a snapshot stands.
async fn manifest_of(snapshots: &Snapshots, name: &str) -> String {
    format!("here/{}", snapshots.find(name).await.unwrap().object())
}

/// Every object of a store, and its bytes.
async fn objects(store: &InMemory) -> BTreeMap<String, Vec<u8>> {
    let listed: Vec<_> = store.list(None).try_collect().await.unwrap();
    let mut all = BTreeMap::new();
    for meta in listed {
        let bytes = store.get(&meta.location).await.unwrap().bytes().await.unwrap();
        all.insert(meta.location.to_string(), bytes.to_vec());
    }
    all
}

async fn restored(snapshots: &Snapshots, name: &str) -> Result<BTreeMap<String, Vec<u8>>> {
    let to = tempfile::tempdir().unwrap();
    let manifest = snapshots.describe(name).await?;
    snapshots
        .download(&manifest, to.path(), &Space::new(to.path(), 1), &WORK)
        .await?;
    let read = |file: &FileEntry| (file.path.clone(), std::fs::read(to.path().join(&file.path)).unwrap());
    Ok(manifest.files.iter().map(read).collect())
}

#[tokio::test]
async fn what_was_stored_comes_back_and_only_what_is_new_is_sent() {
    let store = Arc::new(InMemory::new());
    let snapshots = over(&store);
    let large = vec![7; 9 << 20];
    let first = Files::new(&[b"one", b"two", &large, b""]);
    let made = snapshots.create("first", first.source(), &WORK).await.unwrap();
    assert_eq!((made.new_files, made.new_bytes), (5, 3 + 3 + (9 << 20) + 16));
    let second = Files::new(&[b"one", b"three", &large]);
    let made = snapshots.create("second", second.source(), &WORK).await.unwrap();
    assert_eq!((made.new_files, made.new_bytes), (1, 5));
    assert_eq!(restored(&snapshots, "first").await.unwrap(), first.files);
    assert_eq!(restored(&snapshots, "second").await.unwrap(), second.files);
    let listed = snapshots.list().await.unwrap();
    assert_eq!(listed.len(), 2);
    snapshots.verify("first", &WORK).await.unwrap();

    let taken = snapshots.create("first", second.source(), &WORK).await.unwrap_err();
    assert_eq!((taken.kind, taken.code), (ErrorKind::Conflict, "snapshot_exists"));
    for missing in ["third", "first.old"] {
        assert_eq!(
            snapshots.describe(missing).await.unwrap_err().code,
            "snapshot_not_found"
        );
        assert_eq!(
            delete(&snapshots, missing).await.unwrap_err().code,
            "snapshot_not_found"
        );
    }
    for bad in ["", "..", "../first", "a/b", "First", "a..b", "%2e"] {
        assert_eq!(snapshots.describe(bad).await.unwrap_err().code, "bad_name", "{bad}");
        assert_eq!(
            snapshots.create(bad, second.source(), &WORK).await.unwrap_err().code,
            "bad_name"
        );
    }

    // What the second needs stays.
    let freed = delete(&snapshots, "first").await.unwrap();
    assert_eq!(freed, Collected::Removed { objects: 2, bytes: 3 });
    assert_eq!(restored(&snapshots, "second").await.unwrap(), second.files);
    let freed = delete(&snapshots, "second").await.unwrap();
    assert!(matches!(freed, Collected::Removed { objects: 4, .. }), "{freed:?}");
    assert!(objects(&store).await.is_empty());
}

#[tokio::test]
async fn damage_in_the_store_is_found_and_said_and_never_restored() {
    let store = Arc::new(InMemory::new());
    let snapshots = over(&store);
    let files = Files::new(&[b"one", b"two"]);
    snapshots.create("s", files.source(), &WORK).await.unwrap();
    let whole = objects(&store).await;
    let content = whole.keys().find(|key| whole[*key] == b"two").unwrap().clone();
    let manifest = manifest_of(&snapshots, "s").await;
    for (key, now, why) in [
        (&content, Some(&b"tow"[..]), "another content"),
        (&content, Some(&b"two2"[..]), "4 bytes instead of 3"),
        (&content, None, "is missing"),
        (&manifest, Some(&b"{}"[..]), "does not begin"),
    ] {
        match now {
            Some(bytes) => store
                .put(&Path::from(key.as_str()), bytes.to_vec().into())
                .await
                .map(drop)
                .unwrap(),
            None => store.delete(&Path::from(key.as_str())).await.unwrap(),
        }
        for found in [
            snapshots.verify("s", &WORK).await.map(drop),
            restored(&snapshots, "s").await.map(drop),
        ] {
            let error = found.unwrap_err();
            assert_eq!((error.kind, error.code), (ErrorKind::Damaged, "snapshot_damaged"));
            assert!(error.message.contains(why), "{error}");
        }
        store
            .put(&Path::from(key.as_str()), whole[key].clone().into())
            .await
            .unwrap();
    }
    snapshots.verify("s", &WORK).await.unwrap();
}

#[tokio::test]
async fn a_manifest_that_cannot_be_read_keeps_all_contents_and_a_delete_says_so() {
    let store = Arc::new(InMemory::new());
    let snapshots = over(&store);
    for (name, content) in [("s", &b"one"[..]), ("t", b"two"), ("u", b"three")] {
        let files = Files::new(&[content]);
        snapshots.create(name, files.source(), &WORK).await.unwrap();
    }
    let manifest = Path::from(manifest_of(&snapshots, "s").await);
    store.put(&manifest, b"garbage".to_vec().into()).await.unwrap();
    let listed = snapshots.list().await.unwrap();
    let readable: Vec<bool> = listed.iter().map(|one| one.found.is_ok()).collect();
    assert_eq!(readable, [true, true, false]);
    let held = |all: BTreeMap<String, Vec<u8>>, content: &[u8]| all.values().any(|bytes| bytes == content);
    let Collected::Kept { manifest, why, more: 0 } = delete(&snapshots, "t").await.unwrap() else {
        panic!("a manifest that may need anything")
    };
    assert_eq!(manifest, snapshots.find("s").await.unwrap());
    assert!(why.contains("does not begin"), "{why}");
    assert_eq!(snapshots.describe("t").await.unwrap_err().code, "snapshot_not_found");
    assert!(held(objects(&store).await, b"one") && held(objects(&store).await, b"two"));
    // What the damaged one needs is not needed any more once it is gone itself.
    let freed = delete(&snapshots, "s").await.unwrap();
    assert_eq!(freed, Collected::Removed { objects: 2, bytes: 6 });
    snapshots.verify("u", &WORK).await.unwrap();
}

/// A gateway that lost its backend for a moment answers "not found" for what is there.
#[tokio::test]
async fn a_manifest_that_is_not_found_and_still_listed_keeps_its_contents() {
    let store = Arc::new(InMemory::new());
    for (name, content) in [("s", &b"one"[..]), ("t", b"two")] {
        let files = Files::new(&[content]);
        over(&store).create(name, files.source(), &WORK).await.unwrap();
    }
    let blind = Arc::new(Faulty::over(&store, Plan::not_found("snapshots/", 1)));
    let snapshots = Snapshots::new(Store::over(blind, Path::from("here"), "the test's store".into()));
    let Collected::Kept { manifest, why, .. } = delete(&snapshots, "t").await.unwrap() else {
        panic!("what a listed manifest needs is not known")
    };
    assert_eq!((manifest.name.as_str(), why.as_str()), ("s", NOT_FOUND_YET_LISTED));
    // Nor is it left out of a list, by which the newest is found.
    let blind = Arc::new(Faulty::over(&store, Plan::not_found("snapshots/", 1)));
    let snapshots = Snapshots::new(Store::over(blind, Path::from("here"), "the test's store".into()));
    assert_eq!(snapshots.list().await.unwrap_err().code, "snapshot_store_unavailable");
    assert_eq!(snapshots.list().await.unwrap().len(), 1);
    over(&store).verify("s", &WORK).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_later_build_wrote_is_kept_whole_and_no_obstacle() {
    let store = Arc::new(InMemory::new());
    let snapshots = over(&store);
    let files = Files::new(&[b"one", b"both"]);
    snapshots.create("later", files.source(), &WORK).await.unwrap();
    let second = Files::new(&[b"two", b"both"]);
    snapshots.create("ours", second.source(), &WORK).await.unwrap();
    let key = Path::from(manifest_of(&snapshots, "later").await);
    let whole = objects(&store).await;
    let mut json: serde_json::Value = serde_json::from_slice(&whole[key.as_ref()]).unwrap();
    json["snapshot"]["format"] = 7.into();
    json["snapshot"]["more"] = "of it".into();
    let inner = serde_json::to_vec(&json["snapshot"]).unwrap();
    store.put(&key, manifest::tests::sealed(&inner).into()).await.unwrap();
    let refused = snapshots.describe("later").await.unwrap_err();
    assert_eq!(refused.code, "snapshot_of_another_build", "{refused}");
    assert!(
        snapshots
            .list()
            .await
            .unwrap()
            .iter()
            .any(|one| one.name == "later" && one.found.is_err())
    );
    // Who looks for a file anywhere goes past it; who names it is told.
    let to = tempfile::tempdir().unwrap();
    let to = to.path().join("found");
    for (bytes, there) in [(4, Some("snapshot ours".to_owned())), (5, None)] {
        let wanted = file::Wanted {
            path: "segments/1/0/0000000001.seg",
            bytes,
            accept: &|_| Ok(()),
        };
        let found = snapshots.find_file(None, &wanted, &to, &WORK).await;
        assert_eq!(found.unwrap(), there, "{bytes}");
        let named = snapshots
            .find_file(Some("later"), &wanted, &to, &WORK)
            .await
            .unwrap_err();
        assert_eq!(named.code, "snapshot_of_another_build", "{named}");
    }
    assert_eq!(std::fs::read(&to).unwrap(), b"both");
    let freed = delete(&snapshots, "ours").await.unwrap();
    assert_eq!(freed, Collected::Removed { objects: 1, bytes: 3 });
    // The build that wrote it finds all of it.
    store.put(&key, whole[key.as_ref()].clone().into()).await.unwrap();
    assert_eq!(restored(&snapshots, "later").await.unwrap(), files.files);
}

#[tokio::test]
async fn how_many_snapshots_there_may_be_is_kept_where_they_are_made() {
    let store = Arc::new(InMemory::new());
    let mut snapshots = over(&store);
    snapshots.most = 2;
    let files = Files::new(&[b"one"]);
    for name in ["a", "b"] {
        snapshots.create(name, files.source(), &WORK).await.unwrap();
    }
    let refused = snapshots.create("c", files.source(), &WORK).await.unwrap_err();
    assert_eq!(
        (refused.kind, refused.code),
        (ErrorKind::Exhausted, "too_many_snapshots")
    );
    // A server that did not see the others makes one more: all are listed, and can be deleted.
    over(&store).create("c", files.source(), &WORK).await.unwrap();
    assert_eq!(snapshots.list().await.unwrap().len(), 3);
    for name in ["a", "b"] {
        delete(&snapshots, name).await.unwrap();
    }
    snapshots.create("d", files.source(), &WORK).await.unwrap();
}

#[tokio::test]
async fn what_does_not_fit_on_the_disk_is_refused_before_anything_is_brought() {
    let store = Arc::new(InMemory::new());
    let snapshots = over(&store);
    let files = Files::new(&[b"one", b"three"]);
    let manifest = snapshots.create("s", files.source(), &WORK).await.unwrap().manifest;
    let to = tempfile::tempdir().unwrap();
    let full = Space::new(to.path(), u64::MAX / 2);
    let refused = snapshots
        .download(&manifest, to.path(), &full, &WORK)
        .await
        .unwrap_err();
    assert_eq!((refused.kind, refused.code), (ErrorKind::Exhausted, "disk_full"));
    for said in [
        "\"s\" needs 24 bytes",
        &to.path().display().to_string(),
        "are free and",
        "make room for",
    ] {
        assert!(refused.message.contains(said), "{said}: {refused}");
    }
    assert_eq!(std::fs::read_dir(to.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_delete_that_fails_after_the_manifest_says_that_the_snapshot_is_gone() {
    let store = Arc::new(InMemory::new());
    let files = Files::new(&[b"one"]);
    over(&store).create("s", files.source(), &WORK).await.unwrap();
    // The names are listed, the manifest is removed, and no more is answered well.
    let faulty = Faulty::over(&store, Plan::fail_after(2));
    let snapshots = impatient(faulty, Duration::from_millis(5));
    let failed = delete(&snapshots, "s").await.unwrap_err();
    assert_eq!(failed.code, "snapshot_store_unavailable");
    assert!(failed.message.starts_with("the snapshot is removed"), "{failed}");
    assert!(over(&store).list().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_delete_that_comes_late_or_twice_removes_what_it_was_meant_for_and_nothing_newer() {
    let store = Arc::new(InMemory::new());
    let snapshots = over(&store);
    let (old, new) = (Files::new(&[b"old"]), Files::new(&[b"new", b"both"]));
    snapshots.create("s", old.source(), &WORK).await.unwrap();
    let meant = snapshots.keys_of("s").await.unwrap();
    let requested = Path::from(manifest_of(&snapshots, "s").await);
    delete(&snapshots, "s").await.unwrap();
    snapshots.create("s", new.source(), &WORK).await.unwrap();
    // A request whose answer was lost is sent again, whenever that is.
    let _ = store.delete(&requested).await;
    assert_eq!(restored(&snapshots, "s").await.unwrap(), new.files);
    // And an operation that looked before the name was given again.
    snapshots.remove(&meant, &WORK).await.unwrap();
    snapshots.verify("s", &WORK).await.unwrap();
    assert_eq!(restored(&snapshots, "s").await.unwrap(), new.files);
}

#[tokio::test]
async fn of_two_snapshots_of_a_name_the_first_counts_and_a_delete_removes_both() {
    let store = Arc::new(InMemory::new());
    let snapshots = over(&store);
    let first = Files::new(&[b"one"]);
    snapshots.create("s", first.source(), &WORK).await.unwrap();
    // What a server leaves that dies after its manifest, before it looks for others of the name.
    snapshots
        .create("t", Files::new(&[b"two"]).source(), &WORK)
        .await
        .unwrap();
    let mut other = snapshots.describe("t").await.unwrap();
    other.name = "s".into();
    let key = format!("here/{}", Key::new("s").object());
    store
        .put(&Path::from(key), other.bytes().unwrap().into())
        .await
        .unwrap();
    assert_eq!(snapshots.keys_of("s").await.unwrap().len(), 2);
    assert_eq!(restored(&snapshots, "s").await.unwrap(), first.files);
    let taken = snapshots.create("s", first.source(), &WORK).await.unwrap_err();
    assert_eq!(taken.code, "snapshot_exists");
    delete(&snapshots, "s").await.unwrap();
    assert_eq!(snapshots.describe("s").await.unwrap_err().code, "snapshot_not_found");
    snapshots.verify("t", &WORK).await.unwrap();
}

#[tokio::test]
async fn a_writer_and_a_collector_shut_each_other_out() {
    let store = Arc::new(InMemory::new());
    let snapshots = over(&store);
    snapshots
        .create("old", Files::new(&[b"one"]).source(), &WORK)
        .await
        .unwrap();
    let writer = Lease::take(&snapshots.store, Role::Write).await.unwrap().unwrap();
    assert!(Lease::take(&snapshots.store, Role::Collect).await.unwrap().is_none());
    // Writers do not mind each other.
    let other = Lease::take(&snapshots.store, Role::Write).await.unwrap().unwrap();
    assert_eq!(delete(&snapshots, "old").await.unwrap(), Collected::Later);
    writer.end_after(&Ok(())).await.unwrap();
    other.end_after(&Ok(())).await.unwrap();
    let collector = Lease::take(&snapshots.store, Role::Collect).await.unwrap().unwrap();
    assert!(Lease::take(&snapshots.store, Role::Write).await.unwrap().is_none());
    collector.end_after(&Ok(())).await.unwrap();
    assert_eq!(
        objects(&store).await.len(),
        2,
        "the contents wait for the next delete, no lease is left"
    );
    snapshots
        .create("new", Files::new(&[b"two"]).source(), &WORK)
        .await
        .unwrap();
    delete(&snapshots, "new").await.unwrap();
    assert!(objects(&store).await.is_empty());
}

#[tokio::test]
async fn what_servers_that_are_gone_left_in_a_directory_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let config = SnapshotsConfig {
        url: dir.path().join("store").to_str().unwrap().to_owned(),
        ..SnapshotsConfig::default()
    };
    let snapshots = Snapshots::new(Store::open(&config, dir.path()).unwrap());
    snapshots
        .create("s", Files::new(&[b"one"]).source(), &WORK)
        .await
        .unwrap();
    let (now, hour) = (SystemTime::now(), Duration::from_secs(3_600));
    let put = |path: &str, changed: SystemTime| {
        let path = dir.path().join("store").join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::File::create(&path).unwrap().set_modified(changed).unwrap();
        path
    };
    let hash = Hash::of(b"two").to_string();
    let staged = |n: u32| format!("objects/{}/{hash}#{n}", &hash[..2]);
    let gone = [
        put("leases/w-0123456789abcdef", now - hour),
        put("leases/c-0123456789abcdef", now - hour),
        put("leases/w-fedcba9876543210#1", now - hour),
        put("snapshots/s@0123456789abcdef#1", now - hour),
        put(&staged(1), now - hour),
    ];
    let stays = [
        put("leases/read-me", now - hour),
        put("leases/w-0123456789abcdef0", now - hour),
        put(&staged(2), now),
    ];
    let freed = delete(&snapshots, "s").await.unwrap();
    assert_eq!(freed, Collected::Removed { objects: 2, bytes: 19 });
    for path in &gone {
        assert!(!path.exists(), "{}", path.display());
    }
    for path in &stays {
        assert!(path.exists(), "{}", path.display());
    }
    // A lease that counts is not removed, nor what is written under it.
    let writer = put("leases/w-0123456789abcdef", now);
    snapshots
        .create("t", Files::new(&[b"one"]).source(), &WORK)
        .await
        .unwrap();
    assert_eq!(delete(&snapshots, "t").await.unwrap(), Collected::Later);
    assert!(writer.exists());
}

#[tokio::test]
async fn a_lease_and_a_manifest_wait_for_no_content() {
    let inner: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let mut store = Store::over(inner, Path::from("here"), "the test's store".into());
    store.rate = rate::Rate::new(1).into();
    // A content that has its turn for eleven days.
    store.rate.take(1_000_000).await;
    let coordinating = async {
        let lease = Lease::take(&store, Role::Write).await.unwrap().unwrap();
        store.put("snapshots/s", vec![0; 100]).await.unwrap();
        lease.end_after(&Ok(())).await.unwrap();
    };
    let done = tokio::time::timeout(Duration::from_secs(60), coordinating);
    assert!(done.await.is_ok(), "a lease that waits behind contents is lost");
}

#[tokio::test]
async fn a_manifest_that_was_written_without_a_lease_is_taken_back() {
    let store = Arc::new(InMemory::new());
    let late = Faulty::over(&store, Plan::late(Duration::from_millis(100)));
    let snapshots = Snapshots::new(Store::over(Arc::new(late), Path::default(), "late".into()));
    let files = Files::new(&[b"one"]);
    let lease = snapshots.writing().await.unwrap();
    // The machine sleeps when the manifest is there and its answer is not.
    let sleeping = async {
        while !objects(&store).await.keys().any(|key| key.starts_with("snapshots")) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        lease.slept(Duration::from_secs(1_200));
    };
    let writing = lease.during(snapshots.write("s", files.source(), &lease, &WORK));
    let (written, ()) = tokio::join!(writing, sleeping);
    let lost = written.err().unwrap();
    assert_eq!(lost.code, "snapshot_store_unavailable", "{lost}");
    lease.end_after(&Err::<(), _>(lost)).await.unwrap();
    let left = objects(&store).await;
    assert!(left.keys().all(|key| key.starts_with("objects")), "{:?}", left.keys());
}

#[tokio::test]
async fn cancelled_work_ends_at_once_and_leaves_no_snapshot() {
    let store = Arc::new(InMemory::new());
    let slow = Faulty::over(&store, Plan::hang_after(3));
    let snapshots = Snapshots::new(Store::over(Arc::new(slow), Path::default(), "slow".into()));
    let begun = std::time::Instant::now();
    let work = Work {
        stopped: &|| begun.elapsed() > Duration::from_millis(200),
        progress: &|_| (),
    };
    let files = Files::new(&[b"one", b"two"]);
    let creation = snapshots.create("s", files.source(), &work);
    let stopped = tokio::time::timeout(Duration::from_secs(10), async { creation.await.unwrap_err() });
    assert_eq!(stopped.await.map(|e| e.kind), Ok(ErrorKind::Cancelled));
    assert!(!objects(&store).await.keys().any(|key| key.starts_with("snapshots")));
}

#[tokio::test]
async fn an_upload_whose_snapshot_fails_elsewhere_is_given_up() {
    let large = vec![7; 20 << 20];
    let files = Files::new(&[&large, b"small"]);
    let store = Arc::new(InMemory::new());
    let faulty = Faulty::over(&store, Plan::spoiling());
    let uploads = Arc::clone(&faulty.uploads);
    let snapshots = impatient(faulty, Duration::from_secs(1));
    // The small content fails while the large one is on its way, which is then dropped.
    let failed = snapshots.create("s", files.source(), &WORK).await.unwrap_err();
    assert_eq!(failed.code, "snapshot_store_unavailable");
    let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let until = std::time::Instant::now() + Duration::from_secs(20);
    while of(&uploads.given_up) == 0 && std::time::Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let counts = (of(&uploads.begun), of(&uploads.completed), of(&uploads.given_up));
    assert_eq!(counts, (1, 0, 1), "begun, completed, given up");
    assert!(objects(&store).await.is_empty(), "and the lease is given back");
}

/// One thing that somebody does with a store.
#[derive(Debug, Clone)]
enum Step {
    /// A snapshot of some of a few contents.
    Create(Vec<u8>),
    /// Deletes the n-th of those that were made.
    Delete(u8),
}

fn steps(most: usize) -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => prop::collection::vec(0..8u8, 0..4).prop_map(Step::Create),
        2 => (0..10u8).prop_map(Step::Delete),
    ];
    prop::collection::vec(step, 1..most)
}

/// Does the steps, each by itself or all at once; whatever the store answers. Says which snapshots were acknowledged and
/// which were asked to be deleted.
async fn play(snapshots: &Snapshots, steps: &[Step], at_once: bool) -> (Vec<String>, Vec<String>) {
    let doing = steps.iter().enumerate().map(|(i, step)| async move {
        match step {
            Step::Create(which) => {
                let contents: Vec<[u8; 1]> = which.iter().map(|n| [*n]).collect();
                let contents: Vec<&[u8]> = contents.iter().map(|c| &c[..]).collect();
                let files = Files::new(&contents);
                let name = format!("s{i}");
                let made = snapshots.create(&name, files.source(), &WORK).await;
                (made.is_ok().then_some(name), None)
            }
            Step::Delete(n) => {
                let name = format!("s{n}");
                let known = delete(snapshots, &name).await.map_err(|e| e.code) != Err("snapshot_not_found");
                (None, known.then_some(name))
            }
        }
    });
    let done = if at_once {
        futures::future::join_all(doing).await
    } else {
        stream::iter(doing).buffered(1).collect().await
    };
    let (made, gone): (Vec<_>, Vec<_>) = done.into_iter().unzip();
    (
        made.into_iter().flatten().collect(),
        gone.into_iter().flatten().collect(),
    )
}

/// Whatever happened: what was acknowledged and not deleted is there, and everything that is listed is whole.
async fn check(store: &Arc<InMemory>, made: &[String], gone: &[String]) {
    let snapshots = over(store);
    let listed: Vec<String> = snapshots
        .list()
        .await
        .unwrap()
        .into_iter()
        .map(|one| one.name)
        .collect();
    for name in made.iter().filter(|name| !gone.contains(name)) {
        assert!(listed.contains(name), "{name} was acknowledged and is gone");
    }
    for name in &listed {
        snapshots.verify(name, &WORK).await.unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn collecting_never_removes_what_a_snapshot_names(seed in any::<u64>(), steps in steps(10)) {
        runtime().block_on(async {
            let store = Arc::new(InMemory::new());
            let faulty = Faulty::over(&store, Plan::shuffled(seed));
            let snapshots = impatient(faulty, Duration::from_secs(20));
            let (made, gone) = play(&snapshots, &steps, true).await;
            check(&store, &made, &gone).await;
            // Once it is quiet, one delete removes all that nobody needs.
            let snapshots = over(&store);
            snapshots.create("last", Files::new(&[]).source(), &WORK).await.unwrap();
            delete(&snapshots, "last").await.unwrap();
            let mut needed = HashSet::new();
            for one in snapshots.list().await.unwrap() {
                let manifest = snapshots.describe(&one.name).await.unwrap();
                needed.extend(manifest.files.into_iter().map(|file| file.sha256));
            }
            let kept = objects(&store).await.into_keys().filter(|key| key.contains("/objects/")).count();
            assert_eq!(kept, needed.len());
        });
    }

    #[test]
    fn of_those_who_make_one_name_at_once_at_most_one_is_acknowledged(seed in any::<u64>(), writers in 2..5u8) {
        runtime().block_on(async {
            let store = Arc::new(InMemory::new());
            let snapshots = impatient(Faulty::over(&store, Plan::shuffled(seed)), Duration::from_secs(20));
            let files: Vec<Files> = (0..writers).map(|n| Files::new(&[&[n]])).collect();
            let making = files.iter().map(|files| snapshots.create("s", files.source(), &WORK));
            let made: Vec<_> = futures::future::join_all(making).await;
            let acknowledged: Vec<_> = (0..).zip(&made).filter(|(_, made)| made.is_ok()).collect();
            assert!(acknowledged.len() <= 1, "{acknowledged:?}");
            for refused in made.iter().filter_map(|made| made.as_ref().err()) {
                assert_eq!(refused.code, "snapshot_exists");
            }
            let snapshots = over(&store);
            let there = snapshots.keys_of("s").await.unwrap().len();
            assert_eq!(there, acknowledged.len(), "who was refused left nothing");
            if let Some((n, _)) = acknowledged.first() {
                let n: usize = *n;
                assert_eq!(restored(&snapshots, "s").await.unwrap(), files[n].files);
            }
        });
    }

    #[test]
    fn a_store_that_fails_costs_an_attempt_and_nothing_else(seed in any::<u64>(), steps in steps(10)) {
        runtime().block_on(async {
            let store = Arc::new(InMemory::new());
            let faulty = Faulty::over(&store, Plan::failing(seed));
            let snapshots = impatient(faulty, Duration::from_millis(5));
            let (made, gone) = play(&snapshots, &steps, false).await;
            check(&store, &made, &gone).await;
        });
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

/// With waits for a test: short ones, `within` altogether.
fn impatient(store: Faulty, within: Duration) -> Snapshots {
    let mut snapshots = Snapshots::new(Store::over(Arc::new(store), Path::from("here"), "faulty".into()));
    snapshots.collected_within = within;
    snapshots.look_ms = 0..3;
    snapshots
}
