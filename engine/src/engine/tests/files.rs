//! The data directory and its files: whose it is, what is refused, and what a build leaves that does not come to its end.

use std::path::PathBuf;
use std::sync::atomic::AtomicU64;

use super::*;
use crate::config::Clock;
use crate::storage::faulty::{Faults, FaultyDir, How};

/// A clock that stands still until it is set.
struct Set(AtomicU64);

impl Clock for Set {
    fn now_ms(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[test]
fn a_directory_with_other_things_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let open = || Engine::open(dir.path(), small(), components());
    std::fs::create_dir(dir.path().join("lost+found")).unwrap();
    std::fs::write(dir.path().join("thesis.tex"), "x").unwrap();
    let error = open().unwrap_err();
    assert_eq!(error.code, "not_a_data_directory");
    assert!(error.message.contains("thesis.tex"), "{}", error.message);
    let left = std::fs::read_dir(dir.path()).unwrap().count();
    assert_eq!(left, 2, "nothing was made in it");

    std::fs::remove_file(dir.path().join("thesis.tex")).unwrap();
    drop(open().unwrap());
    std::fs::write(dir.path().join("notes.txt"), "x").unwrap();
    assert!(open().is_ok(), "a data directory stays one, whatever is put beside it");
}

/// Opening removes files that no manifest names: it must not take somebody's `segments` for its own.
#[test]
fn directories_named_like_ours_are_not_ours() {
    let dir = tempfile::tempdir().unwrap();
    let open = || Engine::open(dir.path(), small(), components());
    let video = dir.path().join("segments/holiday/part-1.mp4");
    std::fs::create_dir_all(video.parent().unwrap()).unwrap();
    std::fs::write(&video, "x").unwrap();
    assert_eq!(open().unwrap_err().code, "not_a_data_directory");
    std::fs::create_dir(dir.path().join("db")).unwrap();
    std::fs::write(dir.path().join("db/dump.sql"), "x").unwrap();
    assert_eq!(open().unwrap_err().code, "not_a_data_directory");
    assert!(video.exists());

    // A copy of a data directory without its lock, which is empty, is one.
    let dir = tempfile::tempdir().unwrap();
    let open = || Engine::open(dir.path(), small(), components());
    open().unwrap().create_collection("c", schema(1)).unwrap();
    std::fs::remove_file(dir.path().join("LOCK.cairn")).unwrap();
    assert_eq!(open().unwrap().collection_names(), ["c"]);

    // So is one that a restore was filling; somebody's `restoring` is not.
    let dir = tempfile::tempdir().unwrap();
    let open = || Engine::open(dir.path(), small(), components());
    let brought = dir.path().join("restoring/db");
    std::fs::create_dir_all(&brought).unwrap();
    assert_eq!(open().unwrap_err().code, "not_a_data_directory");
    std::fs::write(brought.join("CURRENT"), "x").unwrap();
    assert_eq!(open().unwrap_err().code, "restore_incomplete");
}

/// A panic in the middle of a build: the shard is free again, and so is the right to merge.
#[test]
fn a_panic_while_a_file_is_built_gives_its_shard_back_and_is_tried_again_later_and_later() {
    let dir = tempfile::tempdir().unwrap();
    let faults = Arc::new(Faults::default());
    let disk = Arc::new(FaultyDir::new(dir.path(), Arc::clone(&faults)));
    let clock = Arc::new(Set(AtomicU64::new(1_000_000)));
    let components = Components {
        files: Arc::<FaultyDir>::clone(&disk),
        clock: Arc::clone(&clock) as Arc<dyn Clock>,
        ..components()
    };
    let engine = Engine::open(dir.path(), small(), components).unwrap();
    engine.create_collection("c", schema(1)).unwrap();
    let panics = || {
        faults.plan_at(" sync temporary: before", 0, How::Panic);
        assert_eq!(engine.maintain(&|| false).unwrap_err().kind, ErrorKind::Internal);
        engine.check_alive().unwrap();
        let unfinished = |path: &PathBuf| path.extension().is_some_and(|e| e == "tmp");
        assert!(!disk.files().iter().any(unfinished));
        assert!(!engine.shared.merging.load(Ordering::Acquire));
        let applier = engine.shared.applier.lock();
        let shard = &applier.states[&CollectionNo(0)].shards[0];
        assert!((shard.sealing, shard.merging) == (0, false));
    };
    for n in 0..3 {
        let points = (0..60).map(|i| simple_point(&format!("p{n}-{i}"), n)).collect();
        engine.upsert("c", points, &WriteOptions::default()).unwrap();
        for times in 1..=3 {
            panics();
            let failing = engine.collection("c").unwrap().failing;
            assert_eq!(
                (failing.len(), failing[0].kind, failing[0].times),
                (1, BuildKind::Seal, times)
            );
            assert!(failing[0].message.contains("as planned"), "{failing:?}");
            // Not at once, and each time later.
            assert_eq!(engine.maintain(&|| false).unwrap(), Maintained::Idle);
            let pause = 5_000 << (times - 1);
            clock.0.fetch_add(pause - 1, Ordering::Relaxed);
            assert_eq!(engine.maintain(&|| false).unwrap(), Maintained::Idle);
            clock.0.fetch_add(1, Ordering::Relaxed);
        }
        let stats = engine.stats();
        assert_eq!((stats.builds_failing, stats.build_failures), (1, 3 * n + 3));
        assert_eq!(engine.maintain(&|| false).unwrap(), Maintained::Worked);
        assert_eq!(engine.stats().seals, n + 1);
        assert_eq!(engine.stats().builds_failing, 0);
        assert!(engine.collection("c").unwrap().failing.is_empty());
    }
    panics();
    engine.optimize("c", &|| false, &mut |_| {}).unwrap();
    let info = engine.collection("c").unwrap();
    assert_eq!((info.points, info.segments, info.optimizing), (180, 1, false));
}

/// The collection goes while a file is built for it, and its directory is swept before the file is there.
#[test]
fn a_file_that_was_built_for_a_dropped_collection_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let faults = Arc::new(Faults::default());
    let disk = Arc::new(FaultyDir::new(dir.path(), Arc::clone(&faults)));
    let components = Components {
        files: Arc::<FaultyDir>::clone(&disk),
        ..components()
    };
    let engine = Arc::new(Engine::open(dir.path(), small(), components).unwrap());
    engine.create_collection("c", schema(1)).unwrap();
    let points = (0..60).map(|i| simple_point(&format!("p{i}"), 1)).collect();
    engine.upsert("c", points, &WriteOptions::default()).unwrap();
    let other = Arc::clone(&engine);
    faults.interlude(0, move || {
        other.drop_collection("c", &WriteOptions::default()).unwrap();
        assert_eq!(other.maintain(&|| false).unwrap(), Maintained::Worked, "it is swept");
    });
    while engine.maintain(&|| false).unwrap() == Maintained::Worked {}
    assert!(!faults.no_interlude(), "it came to be");
    let left = disk.files();
    assert_eq!(left, [dir.path().join("LOCK.cairn")]);
}

/// A file that cannot be removed (a broken directory, an immutable file) is in nobody's way.
#[test]
fn what_cannot_be_removed_does_not_stop_other_work() {
    let dir = tempfile::tempdir().unwrap();
    let faults = Arc::new(Faults::default());
    let disk = Arc::new(FaultyDir::new(dir.path(), Arc::clone(&faults)));
    let components = Components {
        files: Arc::<FaultyDir>::clone(&disk),
        ..components()
    };
    let engine = Engine::open(dir.path(), small(), components).unwrap();
    for name in ["a", "b", "c"] {
        engine.create_collection(name, schema(1)).unwrap();
        let points = (0..60).map(|i| simple_point(&format!("p{i}"), 1)).collect();
        engine.upsert(name, points, &WriteOptions::default()).unwrap();
        while engine.maintain(&|| false).unwrap() == Maintained::Worked {}
    }
    assert_eq!(engine.stats().seals, 3);
    engine.drop_collection("a", &WriteOptions::default()).unwrap();
    engine.drop_collection("b", &WriteOptions::default()).unwrap();
    let removal_fails = || faults.plan_at(" remove collection: before", 0, How::Fail(std::io::ErrorKind::Other));
    removal_fails();
    assert!(engine.maintain(&|| false).is_err());
    let segments = |disk: &FaultyDir| {
        disk.files()
            .iter()
            .filter(|p| p.extension().is_some_and(|e| e == "seg"))
            .count()
    };
    assert_eq!(segments(&disk), 2, "the other one is gone");

    // It fails for ever, and a segment is sealed all the same.
    removal_fails();
    let points = (60..120).map(|i| simple_point(&format!("p{i}"), 1)).collect();
    engine.upsert("c", points, &WriteOptions::default()).unwrap();
    assert_eq!(engine.maintain(&|| false).unwrap(), Maintained::Worked);
    assert_eq!(engine.stats().seals, 4);
    assert!(
        engine.maintain(&|| false).is_err(),
        "with nothing else to do it is tried again"
    );
    engine.check_alive().unwrap();
    // When the disk works again it goes.
    while engine.maintain(&|| false).unwrap() == Maintained::Worked {}
    assert_eq!(segments(&disk), 2);
}

#[test]
fn a_directory_is_open_once() {
    let dir = tempfile::tempdir().unwrap();
    let _engine = Engine::open(dir.path(), small(), components()).unwrap();
    assert_eq!(
        Engine::open(dir.path(), small(), components()).unwrap_err().code,
        "directory_locked"
    );
}

#[test]
fn a_panic_of_a_helping_thread_fails_the_build_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let components = Components {
        workers: Workers::new(|_, _| panic!("on purpose")),
        ..components()
    };
    let engine = Engine::open(dir.path(), small(), components).unwrap();
    engine.create_collection("c", schema(1)).unwrap();
    let points = (0..200).map(|i| simple_point(&format!("p{i}"), i)).collect();
    engine.upsert("c", points, &WriteOptions::default()).unwrap();
    let failed = engine.optimize("c", &|| false, &mut |_| {}).unwrap_err();
    assert_eq!(failed.kind, ErrorKind::Internal);
    engine.check_alive().unwrap();
    let options = WriteOptions::default();
    engine.upsert("c", vec![simple_point("p0", 1)], &options).unwrap();
    assert_eq!(engine.count("c", &Filter::default()).unwrap(), 200);
    drop(engine);
    let engine = Engine::open(dir.path(), small(), self::components()).unwrap();
    engine.optimize("c", &|| false, &mut |_| {}).unwrap();
    let info = engine.collection("c").unwrap();
    assert_eq!((info.segments, info.points), (1, 200));
}

#[test]
fn what_was_deleted_makes_room_on_a_disk_at_its_reserve() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings {
        merge_fanin: 100,
        ..small()
    };
    let engine = Engine::open(dir.path(), settings.clone(), components()).unwrap();
    engine.create_collection("c", schema(1)).unwrap();
    for n in 0..3 {
        let points = (0..60).map(|i| simple_point(&format!("p{n}-{i}"), n)).collect();
        engine.upsert("c", points, &WriteOptions::default()).unwrap();
        while engine.maintain(&|| false).unwrap() == Maintained::Worked {}
    }
    let free = engine.shared.space.free().unwrap().free;
    drop(engine);
    let settings = Settings {
        disk_reserve_bytes: free / 2 * 3,
        ..settings
    };
    let engine = Engine::open(dir.path(), settings, components()).unwrap();
    let refused = engine.upsert("c", vec![simple_point("more", 1)], &WriteOptions::default());
    assert_eq!(refused.unwrap_err().code, "disk_full");
    let delete = |n: u64, count: u64| {
        let ids = (0..count).map(|i| PointId::new(format!("p{n}-{i}")).unwrap());
        let gone = engine.delete("c", Selector::Ids(ids.collect()), &WriteOptions::default());
        gone.unwrap();
    };
    // Of the first little goes, so it has to wait; of the second most, of the third all.
    delete(0, 25);
    delete(1, 50);
    delete(2, 60);
    while engine.maintain(&|| false).unwrap() == Maintained::Worked {}
    let applier = engine.shared.applier.lock();
    let sealed = &applier.states[&CollectionNo(0)].shards[0].sealed;
    let rows: Vec<(u32, u64)> = sealed.iter().map(|view| (view.file.entry.rows, view.live())).collect();
    assert_eq!(rows, [(60, 35), (10, 10)]);
}
