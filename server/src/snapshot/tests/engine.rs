//! Snapshots of a real engine in a real directory: taken while writes go on, restored, and compared by a full scan with what
//! was written, as it is known outside the database.

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;

use cairn_engine::Engine;
use cairn_engine::config::Workers;
use cairn_engine::engine::{Maintained, Scroll, Selector, WriteOptions};
use cairn_engine::query::With;
use cairn_engine::schema::{Chunking, IndexSpec, Metric, Schema, VectorSpec};
use cairn_engine::types::{PointId, PointInput};
use serde_json::json;

use super::*;
use crate::config::Config;

pub(super) const DIM: usize = 8;

/// What should be there: versions by id.
pub(super) type Oracle = BTreeMap<String, u64>;

pub(super) fn config(dir: &FilePath, data: &str) -> Config {
    let mut config = Config {
        data_dir: dir.join(data),
        ..Config::default()
    };
    config.snapshots.url = dir.join("store").to_str().unwrap().to_owned();
    config.engine.seal_rows = 200;
    config
}

pub(super) fn open(config: &Config) -> Engine {
    let components = crate::serve::components(Workers::alone());
    Engine::open(&config.data_dir, config.settings(), components).unwrap()
}

pub(super) fn of(config: &Config) -> Snapshots {
    Snapshots::new(Store::open(&config.snapshots, &config.data_dir).unwrap())
}

pub(super) fn schema(shards: u32) -> Schema {
    let vector = VectorSpec {
        dim: DIM as u32,
        metric: Metric::Cosine,
        index: IndexSpec::Flat {},
        quantization: Default::default(),
        embedder: None,
    };
    Schema {
        vectors: BTreeMap::from([("dense".to_owned(), vector)]),
        sparse: BTreeMap::new(),
        fields: BTreeMap::new(),
        dynamic: true,
        shards,
        chunking: Chunking::default(),
        durability: None,
    }
}

pub(super) fn point(id: &str, version: u64) -> PointInput {
    PointInput {
        id: PointId::new(id).unwrap(),
        vectors: BTreeMap::from([("dense".to_owned(), vec![version as f32 + 1.0; DIM])]),
        sparse: BTreeMap::new(),
        payload: json!({"version": version}).as_object().unwrap().clone(),
        document: None,
        expires_at_ms: None,
    }
}

/// One write, to both.
pub(super) fn write(engine: &Engine, oracle: &mut Oracle, n: u64) {
    let options = WriteOptions::default();
    let id = |i: u64| format!("p{}", (n * 7 + i * 13) % 1_500);
    if n % 4 == 3 {
        let gone: Vec<String> = (0..5).map(id).collect();
        oracle.retain(|id, _| !gone.contains(id));
        let gone = gone.into_iter().map(|id| PointId::new(id).unwrap()).collect();
        engine.delete("c", Selector::Ids(gone), &options).unwrap();
    } else {
        let new: BTreeMap<String, u64> = (0..25).map(|i| (id(i), n)).collect();
        engine
            .upsert("c", new.iter().map(|(id, n)| point(id, *n)).collect(), &options)
            .unwrap();
        oracle.extend(new);
    }
}

pub(super) fn scan(engine: &Engine) -> Oracle {
    let with = With {
        payload: true,
        vectors: true,
        explain: false,
    };
    let mut scroll = Scroll {
        limit: 500,
        with,
        ..Scroll::default()
    };
    let mut all = Oracle::new();
    loop {
        let page = engine.scroll("c", &scroll).unwrap();
        for point in page.points {
            let version = point.payload.unwrap()["version"].as_u64().unwrap();
            assert_eq!(point.vectors.unwrap()["dense"], vec![version as f32 + 1.0; DIM]);
            assert!(
                all.insert(point.id.to_string(), version).is_none(),
                "a point came twice"
            );
        }
        match page.cursor {
            Some(cursor) => scroll.cursor = Some(cursor),
            None => return all,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_taken_while_writing_is_restored_exactly_as_it_was_at_its_token() {
    const ROUNDS: usize = 5;
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path(), "data");
    let (engine, snapshots) = (Arc::new(open(&config)), of(&config));
    engine.create_collection("c", schema(2)).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let writer = std::thread::spawn({
        let (engine, stop) = (Arc::clone(&engine), Arc::clone(&stop));
        move || {
            let mut oracle = Oracle::new();
            let mut history = HashMap::from([(engine.applied(), oracle.clone())]);
            for n in 0.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                write(&engine, &mut oracle, n);
                history.insert(engine.applied(), oracle.clone());
                if n % 10 == 0 {
                    while engine.maintain(&|| false).unwrap() == Maintained::Worked {}
                }
            }
            history
        }
    });
    let mut names = Vec::new();
    for round in 0..ROUNDS {
        tokio::time::sleep(Duration::from_millis(60)).await;
        let cut = engine.cut(&|| false, &mut |_| ()).unwrap();
        let name = format!("round-{round}");
        let made = snapshots.create(&name, Source::from(&cut), &WORK).await.unwrap();
        names.push((name, made.manifest.token.parse::<Token>().unwrap()));
    }
    stop.store(true, Ordering::Relaxed);
    let history = writer.join().unwrap();
    drop(engine);
    for (name, token) in names {
        let config = self::config(dir.path(), &format!("restored-{name}"));
        let restored = restore_into(&config, Some(&name), None, &|_| ()).await.unwrap();
        let oracle = &history[&token];
        assert_eq!(
            (restored.points, restored.token.parse::<Token>().unwrap()),
            (oracle.len() as u64, token)
        );
        let engine = open(&config);
        assert_eq!(engine.applied(), token);
        assert_eq!(scan(&engine), *oracle, "{name}");
        // It is a database like any other.
        write(&engine, &mut oracle.clone(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_snapshot_sends_about_what_changed() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path(), "data");
    let (engine, snapshots) = (open(&config), of(&config));
    engine.create_collection("c", schema(1)).unwrap();
    let mut oracle = Oracle::new();
    let upsert = |range: std::ops::Range<u64>, version| {
        let points = range.map(|i| point(&format!("p{i}"), version)).collect();
        engine.upsert("c", points, &WriteOptions::default()).unwrap();
    };
    for batch in 0..20 {
        upsert(batch * 1_000..(batch + 1) * 1_000, 1);
    }
    oracle.extend((0..20_000).map(|i| (format!("p{i}"), 1)));
    engine.optimize("c", &|| false, &mut |_| ()).unwrap();
    let first = snapshots
        .create(
            "first",
            Source::from(&engine.cut(&|| false, &mut |_| ()).unwrap()),
            &WORK,
        )
        .await
        .unwrap();
    assert_eq!(first.new_bytes, first.manifest.bytes);
    upsert(0..190, 2);
    oracle.extend((0..190).map(|i| (format!("p{i}"), 2)));
    let second = snapshots
        .create(
            "second",
            Source::from(&engine.cut(&|| false, &mut |_| ()).unwrap()),
            &WORK,
        )
        .await
        .unwrap();
    let (new, all) = (second.new_bytes, second.manifest.bytes);
    assert!(new * 20 < all, "{new} of {all} bytes were new after a change of 1 %");
    drop(engine);
    let config = self::config(dir.path(), "restored");
    restore_into(&config, None, None, &|_| ()).await.unwrap();
    assert_eq!(scan(&open(&config)), oracle, "the newest is restored if none is named");
    // Where the newest cannot be read, no other is taken for it.
    let manifests = std::fs::read_dir(dir.path().join("store/snapshots")).unwrap();
    let second = manifests
        .map(|entry| entry.unwrap().path())
        .find(|path| path.file_name().unwrap().to_str().unwrap().starts_with("second@"));
    std::fs::write(second.unwrap(), "{}").unwrap();
    let config = self::config(dir.path(), "not-the-newest");
    let refused = restore_into(&config, None, None, &|_| ()).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Damaged, "{refused}");
    assert!(!config.data_dir.join("db").exists());
    let named = restore_into(&config, Some("first"), None, &|_| ()).await.unwrap();
    assert_eq!(named.token, first.manifest.token.to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_fails_changes_nothing_and_one_that_is_cut_off_is_begun_again() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path(), "data");
    let (engine, snapshots) = (open(&config), of(&config));
    engine.create_collection("c", schema(1)).unwrap();
    let mut oracle = Oracle::new();
    (0..40).for_each(|n| write(&engine, &mut oracle, n));
    engine.optimize("c", &|| false, &mut |_| ()).unwrap();
    let cut = engine.cut(&|| false, &mut |_| ()).unwrap();
    let good = snapshots
        .create("good", Source::from(&cut), &WORK)
        .await
        .unwrap()
        .manifest;
    drop((cut, engine));

    // Not into a directory that is used, nor into one that holds something.
    for (data, code) in [
        ("data", "data_directory_not_empty"),
        ("store", "data_directory_not_empty"),
    ] {
        let into = self::config(dir.path(), data);
        assert_eq!(
            restore_into(&into, None, None, &|_| ()).await.unwrap_err().code,
            code,
            "{data}"
        );
    }
    assert_eq!(scan(&open(&config)), oracle);

    let target = self::config(dir.path(), "target");
    let left = |target: &Config| {
        let entries = std::fs::read_dir(&target.data_dir).unwrap();
        let names = entries.map(|e| e.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name != "LOCK.cairn").collect::<Vec<_>>()
    };
    // Forgeries whose hashes are all right: what is in the files is refused by who reads them.
    type Forgery<'a> = Box<dyn Fn(&mut Vec<(String, Vec<u8>)>, &mut About) + 'a>;
    let file_of = |path: &FileEntry| {
        let hash = path.sha256.to_string();
        std::fs::read(dir.path().join("store/objects").join(&hash[..2]).join(hash)).unwrap()
    };
    let flip = |what: &'static str| {
        move |files: &mut Vec<(String, Vec<u8>)>| {
            let (_, bytes) = files.iter_mut().find(|(path, _)| path.contains(what)).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 0x10;
        }
    };
    let forgeries: [(&str, Forgery<'_>); 6] = [
        ("segment", Box::new(move |files, _| flip(".seg")(files))),
        ("database", Box::new(move |files, _| flip("db/MANIFEST")(files))),
        (
            "pointer",
            Box::new(|files, _| {
                files
                    .iter_mut()
                    .filter(|(p, _)| p == "db/CURRENT")
                    .for_each(|(_, b)| *b = b"../../x\n".to_vec())
            }),
        ),
        (
            "missing",
            Box::new(|files, _| files.retain(|(path, _)| !path.ends_with(".seg"))),
        ),
        ("boast", Box::new(|_, about| about.collections[0].points += 1)),
        (
            "other-moment",
            Box::new(|_, about| about.token = Epochs::default().token(Seq(1))),
        ),
    ];
    for (name, forge) in forgeries {
        let mut files: Vec<_> = good.files.iter().map(|f| (f.path.clone(), file_of(f))).collect();
        let mut about = About {
            token: good.token.parse().unwrap(),
            taken_at_ms: good.created_at_ms,
            identity: good.identity,
            history: good.history,
            log_from: good.log_from,
            epochs: Epochs::default(),
            collections: good.collections.clone(),
        };
        forge(&mut files, &mut about);
        let forged = Files::holding(files.into_iter().collect());
        let source = Source {
            about,
            ..forged.source()
        };
        snapshots.create(name, source, &WORK).await.unwrap();
        let refused = restore_into(&target, Some(name), None, &|_| ()).await.unwrap_err();
        assert_eq!(
            (refused.kind, refused.code),
            (ErrorKind::Damaged, "snapshot_damaged"),
            "{name}: {refused}"
        );
        assert!(left(&target).is_empty(), "{name}: {:?}", left(&target));
    }
    // What is no fault of the snapshot is not said to be.
    let brought = tempfile::tempdir().unwrap();
    let space = Space::new(brought.path(), 1);
    snapshots.download(&good, brought.path(), &space, &WORK).await.unwrap();
    let opened = || {
        open_download(
            brought.path(),
            config.settings_to_read(),
            Workers::alone(),
            &good,
            &|| false,
        )
    };
    let first = opened().unwrap();
    let refused = opened().err().unwrap();
    assert_eq!(refused.code, "directory_locked");
    assert!(refused.message.contains("no fault of its own"), "{refused}");
    assert_eq!(scan(&first), oracle);

    drop(first);

    let mut full = self::config(dir.path(), "target");
    full.engine.disk_reserve_bytes = u64::MAX / 2;
    let refused = restore_into(&full, Some("good"), None, &|_| ()).await.unwrap_err();
    assert_eq!(
        (refused.kind, refused.code),
        (ErrorKind::Exhausted, "disk_full"),
        "{refused}"
    );
    assert!(left(&target).is_empty(), "{:?}", left(&target));
    let missing = restore_into(&target, Some("no-such"), None, &|_| ()).await.unwrap_err();
    assert_eq!(missing.code, "snapshot_not_found");

    // What a crash in the middle leaves: some of it is in its place, some is not.
    restore_into(&target, Some("good"), None, &|_| ()).await.unwrap();
    let staging = target.data_dir.join("restoring");
    std::fs::create_dir(&staging).unwrap();
    std::fs::rename(target.data_dir.join("db"), staging.join("db")).unwrap();
    let components = crate::serve::components(Workers::alone());
    let refused = Engine::open(&target.data_dir, target.settings(), components)
        .err()
        .unwrap();
    assert_eq!(refused.code, "restore_incomplete");
    restore_into(&target, Some("good"), None, &|_| ()).await.unwrap();
    assert_eq!(scan(&open(&target)), oracle);
}
