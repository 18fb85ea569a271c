//! What an answered write is worth: levels, failed fsyncs, repeated requests, full disks, and opening with little memory.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use std::time::Instant;

use super::tests::{components, crash_image, document, ids, schema, simple_point, small};
use super::*;
use crate::config::Clock;
use crate::filter::{Condition, Scalar};
use crate::log::{Record, Request};
use crate::storage::{META, REQUESTS};

/// A clock that tests move.
struct Moved(AtomicU64);

impl Clock for Moved {
    fn now_ms(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

fn moved() -> (Arc<Moved>, Components) {
    let clock = Arc::new(Moved(AtomicU64::new(1_700_000_000_000)));
    let with = Components {
        clock: Arc::clone(&clock) as Arc<dyn Clock>,
        ..components()
    };
    (clock, with)
}

fn open(dir: &Path) -> Engine {
    Engine::open(dir, small(), components()).unwrap()
}

fn named(id: &str, fingerprint: u8) -> WriteOptions {
    WriteOptions {
        request: Some(Request {
            id: id.into(),
            fingerprint: [fingerprint; 16],
            ..Request::default()
        }),
        ..WriteOptions::default()
    }
}

fn durable(durability: Durability) -> WriteOptions {
    WriteOptions {
        durability: Some(durability),
        ..WriteOptions::default()
    }
}

fn put(engine: &Engine, id: &str, version: u64, options: &WriteOptions) -> Result<Applied> {
    engine.upsert("c", vec![simple_point(id, version)], options)
}

fn version_of(engine: &Engine, id: &str) -> Option<u64> {
    let with = With {
        payload: true,
        ..With::default()
    };
    let found = engine.get("c", &ids(&[id.to_owned()]), with).unwrap();
    found
        .first()
        .map(|p| p.payload.as_ref().unwrap()["version"].as_u64().unwrap())
}

// ---- levels ----

#[test]
fn a_write_says_how_durable_it_is_and_the_request_goes_before_the_collection_before_the_settings() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings {
        durability: Durability::Async,
        async_window_ms: 3_600_000,
        ..small()
    };
    let engine = Engine::open(dir.path(), settings, components()).unwrap();
    engine.create_collection("c", schema(1)).unwrap();
    let careful = Schema {
        durability: Some(Durability::Sync),
        ..schema(1)
    };
    engine.create_collection("careful", careful).unwrap();
    let wrote = |collection: &str, options: &WriteOptions| {
        let points = vec![simple_point("p", 1)];
        engine.upsert(collection, points, options).unwrap().durability
    };
    assert_eq!(wrote("c", &WriteOptions::default()), Durability::Async);
    assert_eq!(engine.stats().unsynced.records, 1);
    assert_eq!(wrote("careful", &WriteOptions::default()), Durability::Sync);
    assert_eq!(
        engine.stats().unsynced.records,
        0,
        "a synced write syncs those before it"
    );
    assert_eq!(wrote("careful", &durable(Durability::Async)), Durability::Async);
    assert_eq!(wrote("c", &durable(Durability::Sync)), Durability::Sync);
}

#[test]
fn what_was_answered_before_its_fsync_is_synced_within_the_window() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings {
        async_window_ms: 40,
        ..small()
    };
    let engine = Engine::open(dir.path(), settings, components()).unwrap();
    engine.create_collection("c", schema(1)).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let keeper = scope.spawn(|| engine.keep_synced(&|| stop.load(Ordering::Relaxed)));
        put(&engine, "p", 1, &durable(Durability::Async)).unwrap();
        let patience = Instant::now() + Duration::from_secs(20);
        while engine.stats().unsynced.records > 0 {
            assert!(Instant::now() < patience, "nobody syncs");
            std::thread::sleep(Duration::from_millis(5));
        }
        stop.store(true, Ordering::Relaxed);
        keeper.join().unwrap().unwrap();
    });
    // Without a thread that syncs, a later write does it.
    put(&engine, "p", 2, &durable(Durability::Async)).unwrap();
    std::thread::sleep(Duration::from_millis(60));
    assert_eq!(
        put(&engine, "p", 3, &durable(Durability::Async)).unwrap().durability,
        Durability::Sync
    );
}

/// The newest log file of a directory, and how long it is.
fn newest_log(dir: &Path) -> (PathBuf, u64) {
    let entries = std::fs::read_dir(dir.join("db"))
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let newest = entries
        .filter(|path| path.extension().is_some_and(|e| e == "log"))
        .max()
        .unwrap();
    let len = newest.metadata().unwrap().len();
    (newest, len)
}

/// RocksDB fsyncs a log that it has closed a moment after it began the next. A loss of power in that moment may take the end of the one
/// and leave the other; where that ends between two groups no byte of either is wrong.
#[test]
fn what_follows_records_that_are_lost_between_two_logs_is_lost_with_them_unless_they_were_fsynced() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let settings = Settings {
        async_window_ms: 3_600_000,
        ..small()
    };
    let engine = Engine::open(&at("data"), settings, components()).unwrap();
    engine.create_collection("c", schema(1)).unwrap();
    let write = |id: &str, durability| put(&engine, id, 1, &durable(durability)).unwrap();
    write("kept", Durability::Sync);
    let (_, len) = newest_log(&at("data"));
    for id in ["lost", "lost too"] {
        assert_eq!(write(id, Durability::Async).durability, Durability::Async);
    }
    crash_image(&at("data"), &at("before"));
    let (closed, whole) = newest_log(&at("before"));
    assert!(whole > len);
    // The next log begins.
    engine.flush().unwrap();
    write("after", Durability::Async);
    let (next, _) = newest_log(&at("data"));
    assert_ne!(next.file_name(), closed.file_name());
    let image = |name: &str, cut: bool| {
        crash_image(&at("before"), &at(name));
        std::fs::copy(&next, at(name).join("db").join(next.file_name().unwrap())).unwrap();
        if cut {
            let closed = at(name).join("db").join(closed.file_name().unwrap());
            std::fs::OpenOptions::new()
                .write(true)
                .open(closed)
                .unwrap()
                .set_len(len)
                .unwrap();
        }
        at(name)
    };
    // Nothing is missing.
    let all = open(&image("whole", false));
    assert!(all.dropped().is_none());
    assert!(
        ["kept", "lost", "lost too", "after"]
            .iter()
            .all(|id| version_of(&all, id).is_some())
    );
    drop(all);
    let found = examine(&image("cut", true), &|| false, &mut |_| {}).unwrap();
    assert!(found.is_sound(), "{:?}", found.findings);
    let some = open(&at("cut"));
    assert!(
        some.dropped()
            .is_some_and(|dropped| dropped.groups == 1 && dropped.bytes > 0)
    );
    let there = ["kept", "lost", "lost too", "after"].map(|id| version_of(&some, id).is_some());
    assert_eq!(there, [true, false, false, false], "a suffix");
    put(&some, "again", 1, &durable(Durability::Sync)).unwrap();
    drop(some);
    let some = open(&at("cut"));
    assert!(version_of(&some, "again").is_some() && version_of(&some, "after").is_none());

    // They had been fsynced, as the next group knows.
    write("last", Durability::Sync);
    write("and after", Durability::Async);
    let refused = Engine::open(&image("damaged", true), small(), components())
        .err()
        .unwrap();
    assert_eq!(refused.kind, ErrorKind::Damaged);
    assert!(refused.message.contains("had been written to disk safely"), "{refused}");
}

// ---- a failed fsync ----

#[test]
fn nothing_is_answered_after_a_failed_fsync_and_a_restart_has_everything_that_was() {
    for background in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        {
            let engine = open(dir.path());
            engine.create_collection("c", schema(1)).unwrap();
            put(&engine, "acked", 1, &WriteOptions::default()).unwrap();
            let fail = || engine.shared.storage.faults.sync.store(true, Ordering::Relaxed);
            if background {
                put(&engine, "early", 1, &durable(Durability::Async)).unwrap();
                fail();
                assert!(engine.keep_synced(&|| false).unwrap_err().message.contains("fdatasync"));
            } else {
                fail();
                let error = put(&engine, "lost", 1, &WriteOptions::default()).unwrap_err();
                assert_eq!((error.kind, error.code), (ErrorKind::Internal, "write_failed"));
            }
            // The disk works again, and still nothing is answered: what the failed fsync left is unknown.
            for durability in [Durability::Sync, Durability::Async] {
                let error = put(&engine, "later", 1, &durable(durability)).unwrap_err();
                assert_eq!((error.kind, error.code), (ErrorKind::Unavailable, "engine_stopped"));
                assert!(error.message.contains("fdatasync"), "{error}");
                // Nor what was written before, as for a request that is repeated or a document that is unchanged.
                let error = engine.shared.at_least(Seq(1), Some(durability)).unwrap_err();
                assert_eq!(error.code, "engine_stopped");
            }
            assert_eq!(engine.sync().unwrap_err().code, "engine_stopped");
            assert_eq!(engine.maintain(&|| false).unwrap_err().code, "engine_stopped");
            assert_eq!(engine.flush().unwrap_err().code, "engine_stopped");
            assert_eq!(
                engine.shared.log.fsyncs().count,
                2,
                "the failed one was not tried again"
            );
        }
        let engine = open(dir.path());
        assert_eq!(version_of(&engine, "acked"), Some(1));
        assert_eq!(version_of(&engine, "later"), None);
        put(&engine, "later", 2, &WriteOptions::default()).unwrap();
    }
}

#[test]
fn an_unchanged_document_is_as_safe_as_is_wanted_when_it_is_answered() {
    let root = tempfile::tempdir().unwrap();
    let engine = open(&root.path().join("live"));
    engine.create_collection("c", schema(1)).unwrap();
    let put = |durability| {
        engine
            .put_document("c", document("d", 1, 3), &durable(durability))
            .unwrap()
    };
    let fsyncs = || engine.shared.log.fsyncs().count;
    let before = fsyncs();
    assert_eq!(put(Durability::Async).durability, Durability::Async);
    let again = put(Durability::Async);
    assert_eq!(
        (again.changed, again.durability, fsyncs()),
        (0, Durability::Async, before)
    );
    // Who wants it on disk is not answered before it is, though nothing is written.
    let again = put(Durability::Sync);
    assert_eq!(
        (again.changed, again.durability, fsyncs()),
        (0, Durability::Sync, before + 1)
    );
    assert_eq!(engine.shared.log.unsynced().records, 0);
    // Once is enough.
    put(Durability::Sync);
    assert_eq!(fsyncs(), before + 1);
}

// ---- repeated requests ----

#[test]
fn a_repeated_request_is_answered_as_the_first_was_also_after_a_crash_and_not_done_again() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("live");
    let engine = open(&dir);
    engine.create_collection("c", schema(2)).unwrap();
    let first = put(&engine, "p", 1, &named("r1", 1)).unwrap();
    assert!(!first.replayed);
    put(&engine, "p", 2, &WriteOptions::default()).unwrap();
    let matching = || {
        Selector::Matching(Filter {
            must: vec![Condition::Any {
                field: "version".into(),
                values: vec![Scalar::Int(7)],
            }],
            ..Filter::default()
        })
    };
    put(&engine, "seven", 7, &WriteOptions::default()).unwrap();
    let deleted = engine.delete("c", matching(), &named("r2", 2)).unwrap();
    assert_eq!((deleted.changed, deleted.replayed), (1, false));
    put(&engine, "newer", 7, &WriteOptions::default()).unwrap();
    let stored = engine.put_document("c", document("d", 1, 3), &named("r3", 3)).unwrap();

    let check = |engine: &Engine, what: &str| {
        let before = engine.applied();
        let again = put(engine, "p", 1, &named("r1", 1)).unwrap();
        assert_eq!(
            (again.token, again.changed, again.replayed),
            (first.token, 1, true),
            "{what}"
        );
        assert_eq!(
            version_of(engine, "p"),
            Some(2),
            "{what}: the repetition would undo a later write"
        );
        let again = engine.delete("c", matching(), &named("r2", 2)).unwrap();
        assert_eq!((again.changed, again.replayed), (1, true), "{what}");
        assert_eq!(
            version_of(engine, "newer"),
            Some(7),
            "{what}: what came to match later stays"
        );
        let again = engine.put_document("c", document("d", 1, 3), &named("r3", 3)).unwrap();
        assert_eq!(
            (again.token, again.changed, again.replayed),
            (stored.token, 3, true),
            "{what}"
        );
        for reused in [
            put(engine, "q", 1, &named("r1", 9)),
            engine.delete("c", matching(), &named("r1", 9)),
            engine.put_document("c", document("e", 1, 1), &named("r1", 9)),
        ] {
            let error = reused.unwrap_err();
            assert_eq!(
                (error.kind, error.code),
                (ErrorKind::Conflict, "request_id_reused"),
                "{what}"
            );
            assert_eq!(error.pointer.as_deref(), Some("/request_id"));
        }
        assert_eq!(engine.applied(), before, "{what}: nothing of this is worth a record");
    };
    check(&engine, "live");
    let image = root.path().join("replayed");
    crash_image(&dir, &image);
    check(&open(&image), "replayed");
    engine.flush().unwrap();
    let image = root.path().join("flushed");
    crash_image(&dir, &image);
    check(&open(&image), "flushed");
}

/// What is decided while records of one group, or of a replay, do not see each other's effects in storage yet.
#[test]
fn equal_requests_of_one_moment_are_done_once() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("live");
    let engine = open(&dir);
    engine.create_collection("c", schema(1)).unwrap();
    let answers: Vec<Applied> = std::thread::scope(|scope| {
        let write = |n: u64| {
            scope.spawn({
                let engine = &engine;
                move || put(engine, "p", n, &named("same", 1)).unwrap()
            })
        };
        let writers: Vec<_> = (0..16).map(write).collect();
        writers.into_iter().map(|w| w.join().unwrap()).collect()
    });
    assert_eq!(answers.iter().filter(|a| !a.replayed).count(), 1);
    assert!(answers.iter().all(|a| a.token == answers[0].token && a.changed == 1));
    assert_eq!(engine.stats().requests, 1);
    let image = root.path().join("image");
    crash_image(&dir, &image);
    let replayed = open(&image);
    assert_eq!(version_of(&replayed, "p"), version_of(&engine, "p"));
    assert_eq!(everything_of(&replayed), everything_of(&engine));
}

/// All that is kept of requests.
fn everything_of(engine: &Engine) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut all = Vec::new();
    for (family, prefix) in [(REQUESTS, &b""[..]), (META, b"seen_requests")] {
        let keep = |key: &[u8], value: &[u8]| {
            all.push((key.to_vec(), value.to_vec()));
            Ok(true)
        };
        engine.shared.storage.scan(family, prefix, &[], keep).unwrap();
    }
    all
}

#[test]
fn requests_are_forgotten_after_a_day_or_when_there_are_too_many_and_a_replay_forgets_the_same() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("live");
    let (clock, with) = moved();
    let engine = Engine::open(&dir, small(), with.clone()).unwrap();
    engine.create_collection("c", schema(1)).unwrap();
    let day = limits::REQUEST_MEMORY_MS;
    let advance = |ms| {
        clock.0.fetch_add(ms, Ordering::Relaxed);
    };
    let replayed = |id: &str| put(&engine, "p", 1, &named(id, 1)).unwrap().replayed;
    assert!(!replayed("a"));
    advance(day - 1);
    assert!(replayed("a"));
    advance(1);
    assert!(!replayed("a"), "a day is over");
    assert!(replayed("a"), "and the second use is remembered from its own time on");
    for n in 0..limits::REQUESTS_MAX - 1 {
        assert!(!replayed(&format!("n{n}")));
    }
    assert!(replayed("a") && engine.stats().requests == limits::REQUESTS_MAX);
    assert!(!replayed("one more"));
    assert_eq!(engine.stats().requests, limits::REQUESTS_MAX);
    assert!(!replayed("a"), "the oldest made room");

    // The same from any mixture, whether the effects were flushed at some point or all come from the log again.
    let mut seed = 4_711_u64;
    let mut below = |n: u64| {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % n
    };
    for step in 0..600 {
        let id = format!("n{}", below(70));
        let _may_be_reused = put(&engine, &id, step, &named(&id, below(2) as u8));
        match below(40) {
            0 => advance(day / 2),
            1 => engine.flush().unwrap(),
            2 => advance(day),
            _ => advance(below(1_000)),
        }
        if step % 150 == 149 {
            let image = root.path().join(format!("{step}"));
            crash_image(&dir, &image);
            let again = Engine::open(&image, small(), with.clone()).unwrap();
            assert_eq!(everything_of(&again), everything_of(&engine), "step {step}");
            assert_eq!(again.stats().requests, engine.stats().requests);
            for n in 0..70 {
                assert_eq!(
                    version_of(&again, &format!("n{n}")),
                    version_of(&engine, &format!("n{n}"))
                );
            }
        }
    }
}

#[test]
fn a_refused_request_is_decided_anew() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    engine.create_collection("c", schema(1)).unwrap();
    let mut large = simple_point("p", 1);
    let half = "y".repeat(limits::PAYLOAD_BYTES_MAX / 2);
    large.payload.insert("one".into(), half.clone().into());
    engine.upsert("c", vec![large], &WriteOptions::default()).unwrap();
    let set = |value: &str, fingerprint| {
        let change = PayloadChange {
            set: [("two".to_owned(), value.into())].into_iter().collect(),
            ..PayloadChange::default()
        };
        engine.set_payload("c", ids(&["p".into()]), change, &named("r", fingerprint))
    };
    // It passes every check before the log, and is refused when it meets the payload that is there.
    assert_eq!(set(&half, 1).unwrap_err().code, "payload_too_large");
    assert_eq!(set(&half, 1).unwrap_err().code, "payload_too_large");
    assert!(
        !set("little", 2).unwrap().replayed,
        "the id is free: nothing was done under it"
    );
    assert!(set("little", 2).unwrap().replayed);
    for id in ["", &"r".repeat(limits::REQUEST_ID_BYTES_MAX + 1)] {
        assert_eq!(put(&engine, "p", 2, &named(id, 1)).unwrap_err().code, "bad_request_id");
    }
}

// ---- a full disk ----

#[test]
fn writes_are_refused_before_the_disk_is_full_and_reads_go_on() {
    let dir = tempfile::tempdir().unwrap();
    {
        let engine = open(dir.path());
        engine.create_collection("c", schema(1)).unwrap();
        put(&engine, "p", 1, &WriteOptions::default()).unwrap();
    }
    let settings = Settings {
        disk_reserve_bytes: u64::MAX / 4,
        ..small()
    };
    let engine = Engine::open(dir.path(), settings, components()).unwrap();
    let error = put(&engine, "p", 2, &WriteOptions::default()).unwrap_err();
    assert_eq!((error.kind, error.code), (ErrorKind::Exhausted, "disk_full"));
    assert!(engine.stats().disk_full && engine.stats().disk.free > 0);
    assert_eq!(version_of(&engine, "p"), Some(1));
    engine.check_alive().unwrap();
}

#[test]
fn a_flush_that_finds_the_disk_full_stops_writes_until_one_succeeds() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    engine.create_collection("c", schema(1)).unwrap();
    put(&engine, "p", 1, &WriteOptions::default()).unwrap();
    engine.shared.storage.faults.full.store(true, Ordering::Relaxed);
    assert_eq!(engine.flush().unwrap_err().code, "disk_full");
    assert_eq!(
        put(&engine, "p", 2, &WriteOptions::default()).unwrap_err().code,
        "disk_full"
    );
    assert_eq!(engine.maintain(&|| false).unwrap_err().code, "disk_full");
    assert_eq!(version_of(&engine, "p"), Some(1));
    engine.shared.storage.faults.full.store(false, Ordering::Relaxed);
    assert_eq!(
        engine.maintain(&|| false).unwrap(),
        Maintained::Worked,
        "it looks by itself"
    );
    put(&engine, "p", 2, &WriteOptions::default()).unwrap();
    assert!(!engine.stats().disk_full);
}

/// RocksDB flushes by itself when its memory is full. Who writes next must not run into what that left.
#[test]
fn a_flush_of_rocksdbs_own_that_fails_stops_writes_until_one_succeeds_and_not_the_engine() {
    let root = tempfile::tempdir().unwrap();
    let engine = open(&root.path().join("live"));
    engine.create_collection("c", schema(1)).unwrap();
    let faults = &engine.shared.storage.faults;
    faults.background.store(1, Ordering::Relaxed);
    faults.full.store(true, Ordering::Relaxed);
    for _ in 0..2 {
        let refused = put(&engine, "p", 1, &WriteOptions::default()).unwrap_err();
        assert_eq!((refused.kind, refused.code), (ErrorKind::Exhausted, "disk_full"));
        assert_eq!(engine.maintain(&|| false).unwrap_err().code, "disk_full");
    }
    faults.full.store(false, Ordering::Relaxed);
    assert_eq!(
        engine.maintain(&|| false).unwrap(),
        Maintained::Worked,
        "it tries again"
    );
    put(&engine, "p", 2, &WriteOptions::default()).unwrap();
    assert_eq!(version_of(&engine, "p"), Some(2));
    engine.check_alive().unwrap();
}

#[test]
fn writers_in_the_line_when_a_flush_finds_the_disk_full_are_refused_and_the_engine_lives() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    engine.create_collection("c", schema(1)).unwrap();
    put(&engine, "p", 1, &WriteOptions::default()).unwrap();
    let shared = &engine.shared;
    std::thread::scope(|scope| {
        let applier = shared.applier.lock();
        let writers: Vec<_> = (2..6)
            .map(|n| {
                scope.spawn({
                    let engine = &engine;
                    move || put(engine, "p", n, &WriteOptions::default())
                })
            })
            .collect();
        while shared.queue.lock().len() < writers.len() {
            std::thread::yield_now();
        }
        shared.storage.faults.full.store(true, Ordering::Relaxed);
        assert_eq!(shared.flush("flush to trim").unwrap_err().code, "disk_full");
        let applied = engine.applied();
        drop(applier);
        for writer in writers {
            assert_eq!(writer.join().unwrap().unwrap_err().code, "disk_full");
        }
        assert_eq!(engine.applied(), applied);
    });
    engine.check_alive().unwrap();
    shared.storage.faults.full.store(false, Ordering::Relaxed);
    assert_eq!(engine.maintain(&|| false).unwrap(), Maintained::Worked);
    put(&engine, "p", 6, &WriteOptions::default()).unwrap();
    assert_eq!(version_of(&engine, "p"), Some(6));
}

// ---- opening ----

#[test]
fn opening_tells_its_phases_and_needs_no_more_growing_memory_than_running() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("live");
    let never = Settings {
        seal_rows: 1_000_000,
        ..Settings::default()
    };
    let engine = Engine::open(&dir, never.clone(), components()).unwrap();
    engine.create_collection("c", schema(3)).unwrap();
    let fill = |n: u64| {
        let points = (0..50).map(|i| simple_point(&format!("p{}", (n * 37 + i) % 900), n));
        engine.upsert("c", points.collect(), &WriteOptions::default()).unwrap();
        let change = PayloadChange {
            set: [("touched".to_owned(), n.into())].into_iter().collect(),
            ..PayloadChange::default()
        };
        let some = ids(&[format!("p{}", n % 900), format!("p{}", n * 7 % 900)]);
        engine.set_payload("c", some, change, &WriteOptions::default()).unwrap();
    };
    // One half comes from `rows` and the log below the applied record, the other is replayed.
    (0..40).for_each(fill);
    engine.flush().unwrap();
    (40..80).for_each(fill);
    let all = |engine: &Engine| {
        let with = With {
            payload: true,
            vectors: true,
            explain: false,
        };
        let names: Vec<String> = (0..900).map(|i| format!("p{i}")).collect();
        let points = engine.get("c", &ids(&names), with).unwrap();
        points
            .into_iter()
            .map(|p| (p.id, p.payload, p.vectors, p.version))
            .collect::<Vec<_>>()
    };
    let image = root.path().join("image");
    crash_image(&dir, &image);
    let little = Settings {
        low_memory: true,
        growing_bytes_max: 100_000,
        ..never
    };
    for round in 0..2 {
        let progress = Progress::default();
        let again = Engine::open_watched(&image, little.clone(), components(), &progress).unwrap();
        let stats = again.stats();
        assert!(stats.growing_bytes <= 100_000 && stats.segments > 0, "{stats:?}");
        assert_eq!(all(&again), all(&engine), "round {round}");
        assert_eq!(progress.phase(), Phase::Open);
        let phases: Vec<Phase> = progress.finished().into_iter().map(|(phase, _)| phase).collect();
        assert_eq!(
            phases,
            [
                Phase::CheckingLog,
                Phase::OpeningStorage,
                Phase::OpeningSegments,
                Phase::LoadingGrowing,
                Phase::Replaying,
                Phase::CleaningUp
            ]
        );
        if round == 0 {
            assert!(stats.replayed_records >= 80, "{stats:?}");
        }
        again.flush().unwrap();
    }
}

#[test]
fn many_small_changes_share_a_group_and_few_that_make_much() {
    let set = |ids: usize| Record {
        group: 0,
        by: crate::types::Opening::BEFORE,
        timestamp_ms: 1,
        request: None,
        ops: vec![Op::SetPayload {
            no: CollectionNo(0),
            ids: (0..ids).map(|i| PointId::new(format!("p{i}")).unwrap()).collect(),
            set: "{}".to_owned(),
            unset: Vec::new(),
            replace: false,
        }],
    };
    let share = |ids| limits::GROUP_COMMIT_BYTES_MAX / commit::weight(&set(ids), 200);
    assert!(share(1) >= 100 && share(10_000) <= 2, "{} {}", share(1), share(10_000));
    assert_eq!(
        commit::weight(&set(1), 1 << 20),
        1 << 20,
        "what is in it counts as well"
    );
}
