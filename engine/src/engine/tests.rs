//! The engine against a model: random operations, background work and crashes, compared with plain maps after each step.
//!
//! A crash is a copy of the data directory taken while the engine runs: what the operating system has of the files, without
//! what RocksDB still keeps in memory.

mod damage;
mod faiss;
mod files;
mod past;
mod patience;
mod sampling;
mod snapshots;

use std::sync::Arc;

use serde_json::json;

use super::model::{DIM, Model, Space, Write, check, query};
pub(super) use super::model::{crash_image, ids, schema};
use super::*;
use crate::config::{Clock, Workers};
use crate::filter::Condition;
use crate::query::Source;
use crate::schema::SparseSpec;
use crate::storage::LocalDir;
use crate::storage::faulty::Chance;
use crate::types::{SparseVector, SparseVectors, Vectors};

struct Frozen;

impl Clock for Frozen {
    fn now_ms(&self) -> u64 {
        1_700_000_000_000
    }
}

pub(super) fn components() -> Components {
    Components {
        clock: Arc::new(Frozen),
        workers: Workers::alone(),
        files: Arc::new(LocalDir),
    }
}

/// Small numbers, so that seals and merges happen all the time.
pub(super) fn small() -> Settings {
    Settings {
        seal_rows: 60,
        graph_rows_min: 100,
        graph_packs: true,
        graphs_in_memory: true,
        merge_fanin: 3,
        ..Settings::default()
    }
}

const SPACE: Space = Space {
    points: 300,
    documents: 20,
    batch: 25,
};

/// One random write, to the engine and to the model.
fn write(engine: &Engine, model: &mut Model, chance: &mut Chance, n: u64) {
    let write = Write::random(chance, SPACE, n + 1);
    let expected = write.apply(model);
    let applied = write.run(engine, "c", &WriteOptions::default()).unwrap();
    assert!(
        expected.is_none_or(|changed| changed == applied.changed),
        "{write:?}: {applied:?}"
    );
}

fn run_model(seed: u64, shards: u32, steps: u64) {
    let mut chance = Chance::new(seed);
    let root = tempfile::tempdir().unwrap();
    let mut dir = root.path().join("0");
    let mut engine = Engine::open(&dir, small(), components()).unwrap();
    engine.create_collection("c", schema(shards)).unwrap();
    let mut model = Model::default();
    for n in 0..steps {
        write(&engine, &mut model, &mut chance, n);
        if chance.below(4) == 0 {
            engine.maintain(&|| false).unwrap();
        }
        if chance.below(40) == 0 {
            engine.optimize("c", &|| false, &mut |_| {}).unwrap();
        }
        if chance.below(25) == 0 {
            let next = root.path().join(format!("{}", n + 1));
            crash_image(&dir, &next);
            engine = Engine::open(&next, small(), components()).unwrap();
            dir = next;
        }
        if chance.below(8) == 0 {
            check(&engine, "c", &model, &mut chance);
        }
    }
    while engine.maintain(&|| false).unwrap() == Maintained::Worked {}
    check(&engine, "c", &model, &mut chance);
    assert!(engine.stats().segments > 0, "the run must have sealed something");
}

#[test]
fn random_operations_with_crashes_equal_the_model() {
    for seed in 0..3 {
        run_model(seed, 1, 250);
    }
}

#[test]
fn random_operations_over_several_shards_equal_the_model() {
    for seed in 10..12 {
        run_model(seed, 3, 250);
    }
}

/// A sparse vector of one term.
fn three() -> SparseVector {
    SparseVector {
        indices: vec![3],
        values: vec![1.0],
    }
}

pub(super) fn simple_point(id: &str, version: u64) -> PointInput {
    PointInput {
        id: PointId::new(id).unwrap(),
        vectors: Vectors::from([("dense".to_owned(), vec![version as f32 + 1.0; DIM])]),
        sparse: SparseVectors::from([("learned".to_owned(), three())]),
        payload: json!({"version": version, "text": "alpha"})
            .as_object()
            .unwrap()
            .clone(),
        document: None,
        expires_at_ms: None,
    }
}

pub(super) fn document(id: &str, version: u64, chunks: usize) -> DocumentInput {
    let mut checksum = [0; 16];
    checksum[..8].copy_from_slice(&version.to_le_bytes());
    DocumentInput {
        id: PointId::new(id).unwrap(),
        title: format!("version {version}"),
        source: "test".into(),
        metadata: Payload::new(),
        checksum,
        text_bytes: 1,
        chunks: (0..chunks)
            .map(|i| ChunkInput {
                checksum: [i as u8; 16],
                point: simple_point(&format!("{id}#{i}"), version),
            })
            .collect(),
    }
}

/// Writers, readers and background work at once: what a reader sees of a document is one version of it, whole.
#[test]
fn readers_see_all_old_or_all_new_chunks_never_a_mix() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(dir.path(), small(), components()).unwrap();
    engine.create_collection("c", schema(2)).unwrap();
    let names: Vec<String> = (0..4).map(|i| format!("doc{i}")).collect();
    let chunks = |version: u64| 3 + (version % 5) as usize;
    for name in &names {
        engine
            .put_document("c", document(name, 0, chunks(0)), &WriteOptions::default())
            .unwrap();
    }
    let done = std::sync::atomic::AtomicBool::new(false);
    let reads = std::sync::atomic::AtomicU64::new(0);
    std::thread::scope(|scope| {
        for name in &names {
            scope.spawn(|| {
                for version in 1..120 {
                    engine
                        .put_document("c", document(name, version, chunks(version)), &WriteOptions::default())
                        .unwrap();
                }
            });
        }
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                engine.maintain(&|| false).unwrap();
            }
        });
        let readers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let with = With {
                        payload: true,
                        ..With::default()
                    };
                    let mut last: HashMap<&str, u64> = HashMap::new();
                    for i in 0.. {
                        let name = &names[i % names.len()];
                        let id = PointId::new(name.as_str()).unwrap();
                        // Two ways to read: the document's chunks, and a query that finds them.
                        let versions: Vec<u64> = if i % 2 == 0 {
                            let points = engine.chunks("c", &id, with, Patience::endless()).unwrap();
                            points
                                .iter()
                                .map(|p| p.payload.as_ref().unwrap()["version"].as_u64().unwrap())
                                .collect()
                        } else {
                            let filter = Filter::must(Condition::HasDocument { ids: vec![id] });
                            let source = Source::Nearest {
                                using: Some("dense".into()),
                                vector: vec![1.0; DIM],
                            };
                            let mut ask = query(source, filter, 100);
                            ask.with = with;
                            let hits = engine.query("c", &ask).unwrap().hits;
                            hits.iter()
                                .map(|h| h.point.payload.as_ref().unwrap()["version"].as_u64().unwrap())
                                .collect()
                        };
                        let version = versions[0];
                        assert!(versions.iter().all(|v| *v == version), "a mix: {versions:?}");
                        assert_eq!(versions.len(), chunks(version), "a torn document");
                        assert!(*last.get(name.as_str()).unwrap_or(&0) <= version, "time went backwards");
                        last.insert(name, version);
                        reads.fetch_add(1, Ordering::Relaxed);
                        if version == 119 {
                            break;
                        }
                    }
                })
            })
            .collect();
        readers.into_iter().for_each(|r| r.join().unwrap());
        done.store(true, Ordering::Relaxed);
    });
    assert!(reads.load(Ordering::Relaxed) > 50);
}

#[test]
fn many_writers_share_commits_and_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(dir.path(), small(), components()).unwrap();
    engine.create_collection("c", schema(3)).unwrap();
    std::thread::scope(|scope| {
        for writer in 0..8 {
            let engine = &engine;
            scope.spawn(move || {
                let mut last = Token::default();
                for i in 0..100 {
                    let point = simple_point(&format!("w{writer}-{i}"), i);
                    let applied = engine.upsert("c", vec![point], &WriteOptions::default()).unwrap();
                    assert!(applied.token.seq > last.seq, "tokens ascend for each writer");
                    last = applied.token;
                    // A read after an acked write sees it.
                    let id = [PointId::new(format!("w{writer}-{i}")).unwrap()];
                    assert_eq!(engine.get("c", &id, With::default()).unwrap().len(), 1);
                }
            });
        }
    });
    assert_eq!(engine.count("c", &Filter::default()).unwrap(), 800);
    assert_eq!(engine.applied().seq, Seq(801));
}

#[test]
fn growing_memory_is_bounded_and_sealing_frees_it() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings {
        growing_bytes_max: 200_000,
        write_wait_ms: 20,
        ..small()
    };
    let engine = Engine::open(dir.path(), settings, components()).unwrap();
    engine.create_collection("c", schema(1)).unwrap();
    let write = |n: u64| {
        let points = (0..200).map(|i| simple_point(&format!("p{n}-{i}"), n)).collect();
        engine.upsert("c", points, &WriteOptions::default())
    };
    let refused = (0..100)
        .find_map(|n| write(n).err())
        .expect("nothing bounds the memory");
    assert_eq!(
        (refused.kind, refused.code),
        (ErrorKind::Exhausted, "growing_memory_full")
    );
    assert_eq!(
        engine
            .delete("c", Selector::Ids(ids(&["p0-0".into()])), &WriteOptions::default())
            .unwrap()
            .changed,
        1,
        "deletes still work"
    );
    let place = (CollectionNo(0), ShardNo(0));
    engine.shared.failing.failed(place, BuildKind::Seal, "a bug of ours", 0);
    assert!(
        write(200).unwrap_err().message.contains("a bug of ours"),
        "the reason is told"
    );
    while engine.maintain(&|| false).unwrap() == Maintained::Worked {}
    write(1_000).unwrap();
}

#[test]
fn the_log_is_trimmed_behind_sealed_rows_and_stragglers_do_not_pin_it() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings {
        log_bytes_max: 100_000,
        ..small()
    };
    let open = || Engine::open(dir.path(), settings.clone(), components()).unwrap();
    let engine = open();
    engine.create_collection("idle", schema(1)).unwrap();
    engine.create_collection("c", schema(1)).unwrap();
    engine
        .upsert("idle", vec![simple_point("lonely", 7)], &WriteOptions::default())
        .unwrap();
    for n in 0..40 {
        let points = (0..50).map(|i| simple_point(&format!("p{n}-{i}"), n)).collect();
        engine.upsert("c", points, &WriteOptions::default()).unwrap();
        while engine.maintain(&|| false).unwrap() == Maintained::Worked {}
    }
    assert!(engine.stats().log_start_seq > 10, "{:?}", engine.stats());
    drop(engine);
    let engine = open();
    let lonely = engine
        .get(
            "idle",
            &ids(&["lonely".into()]),
            With {
                payload: true,
                vectors: true,
                explain: false,
            },
        )
        .unwrap();
    assert_eq!(lonely[0].payload.as_ref().unwrap()["version"], 7);
    assert_eq!(engine.count("c", &Filter::default()).unwrap(), 2_000);
}

#[test]
fn a_dropped_collection_is_gone_with_its_files_and_its_name_is_free() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(dir.path(), small(), components()).unwrap();
    engine.create_collection("c", schema(1)).unwrap();
    assert_eq!(
        engine.create_collection("c", schema(1)).unwrap().name,
        "c",
        "making it again is fine"
    );
    assert_eq!(
        engine.create_collection("c", schema(2)).unwrap_err().code,
        "collection_exists"
    );
    let points = (0..100).map(|i| simple_point(&format!("p{i}"), i)).collect();
    engine.upsert("c", points, &WriteOptions::default()).unwrap();
    while engine.maintain(&|| false).unwrap() == Maintained::Worked {}
    assert_eq!(engine.collection("c").unwrap().segments, 1);
    engine.drop_collection("c", &WriteOptions::default()).unwrap();
    assert_eq!(
        engine.count("c", &Filter::default()).unwrap_err().code,
        "collection_not_found"
    );
    while engine.maintain(&|| false).unwrap() == Maintained::Worked {}
    assert_eq!(std::fs::read_dir(dir.path().join("segments")).unwrap().count(), 0);
    engine.create_collection("c", schema(2)).unwrap();
    assert_eq!(engine.count("c", &Filter::default()).unwrap(), 0);
    assert_eq!(engine.stats().growing_bytes, 0);
}

#[test]
fn a_payload_change_is_all_or_nothing_and_bad_input_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(dir.path(), small(), components()).unwrap();
    engine.create_collection("c", schema(1)).unwrap();
    let mut wide = simple_point("wide", 1);
    (0..limits::DYNAMIC_VALUES_MAX - 1).for_each(|i| drop(wide.payload.insert(format!("k{i}"), json!(i))));
    engine
        .upsert("c", vec![simple_point("a", 1), wide], &WriteOptions::default())
        .unwrap();
    let before = engine.applied();
    let set = json!({"one": 1, "two": 2}).as_object().unwrap().clone();
    let change = PayloadChange {
        set,
        unset: vec![],
        replace: false,
    };
    let error = engine
        .set_payload("c", ids(&["a".into(), "wide".into()]), change, &WriteOptions::default())
        .unwrap_err();
    assert_eq!(error.code, "payload_too_wide");
    let with = With {
        payload: true,
        ..With::default()
    };
    assert!(
        !engine.get("c", &ids(&["a".into()]), with).unwrap()[0]
            .payload
            .as_ref()
            .unwrap()
            .contains_key("one")
    );
    let mut bad = simple_point("x", 1);
    bad.vectors.get_mut("dense").unwrap()[3] = f32::NAN;
    let error = engine
        .upsert("c", vec![simple_point("y", 1), bad], &WriteOptions::default())
        .unwrap_err();
    assert_eq!(error.code, "not_finite");
    assert_eq!(error.pointer.as_deref(), Some("/points/1/vectors/dense"));
    assert_eq!(engine.count("c", &Filter::default()).unwrap(), 2);
    assert_eq!(
        engine.applied().seq.0,
        before.seq.0 + 1,
        "only the refused change is in the log"
    );
}

#[test]
fn expired_points_are_invisible_to_every_reader() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(dir.path(), small(), components()).unwrap();
    engine.create_collection("c", schema(1)).unwrap();
    let now = Frozen.now_ms();
    let with_expiry = |id: &str, at| PointInput {
        expires_at_ms: Some(at),
        ..simple_point(id, 1)
    };
    let points = vec![
        with_expiry("past", now - 1),
        with_expiry("now", now),
        with_expiry("later", now + 1),
        simple_point("never", 1),
    ];
    engine.upsert("c", points, &WriteOptions::default()).unwrap();
    assert_eq!(engine.count("c", &Filter::default()).unwrap(), 2);
    let all = ids(&["past".into(), "now".into(), "later".into(), "never".into()]);
    assert_eq!(engine.get("c", &all, With::default()).unwrap().len(), 2);
    for source in [
        Source::Nearest {
            using: Some("dense".into()),
            vector: vec![1.0; DIM],
        },
        Source::Sparse {
            using: None,
            vector: three(),
        },
        Source::Text {
            query: "alpha".into(),
            fields: vec![],
        },
    ] {
        assert_eq!(
            engine
                .query("c", &query(source, Filter::default(), 10))
                .unwrap()
                .hits
                .len(),
            2
        );
    }
    assert_eq!(
        engine
            .scroll(
                "c",
                &Scroll {
                    limit: 10,
                    ..Scroll::default()
                }
            )
            .unwrap()
            .points
            .len(),
        2
    );
}

#[test]
fn a_document_that_lost_a_chunk_is_written_again() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(dir.path(), small(), components()).unwrap();
    engine.create_collection("c", schema(1)).unwrap();
    let options = WriteOptions::default();
    let put = || engine.put_document("c", document("d", 1, 4), &options).unwrap().changed;
    let id = PointId::new("d").unwrap();
    assert_eq!((put(), put()), (4, 0));
    assert!(engine.document("c", &id).unwrap().unwrap().whole);
    engine
        .delete("c", Selector::Ids(ids(&["d#2".into()])), &options)
        .unwrap();
    assert!(!engine.document("c", &id).unwrap().unwrap().whole);
    assert_eq!((put(), put()), (4, 0));
    let change = PayloadChange {
        set: json!({"text": "other"}).as_object().unwrap().clone(),
        ..PayloadChange::default()
    };
    engine.set_payload("c", ids(&["d#0".into()]), change, &options).unwrap();
    let order: Vec<String> = engine
        .chunks("c", &id, With::default(), Patience::endless())
        .unwrap()
        .iter()
        .map(|p| p.id.to_string())
        .collect();
    assert_eq!(order, ["d#0", "d#1", "d#2", "d#3"], "a changed chunk keeps its place");
    assert_eq!((put(), put()), (4, 0));
}

#[test]
fn equal_scores_are_ordered_by_id_across_pages() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(dir.path(), small(), components()).unwrap();
    engine.create_collection("c", schema(1)).unwrap();
    let points: Vec<PointInput> = (0..30).rev().map(|i| simple_point(&format!("z{i:02}"), 0)).collect();
    engine.upsert("c", points, &WriteOptions::default()).unwrap();
    for source in [
        Source::Nearest {
            using: Some("dense".into()),
            vector: vec![1.0; DIM],
        },
        Source::Sparse {
            using: None,
            vector: three(),
        },
        Source::Text {
            query: "alpha".into(),
            fields: vec![],
        },
    ] {
        let mut seen = Vec::new();
        for offset in [0, 10, 20] {
            let ask = Query {
                offset,
                ..query(source.clone(), Filter::default(), 10)
            };
            seen.extend(
                engine
                    .query("c", &ask)
                    .unwrap()
                    .hits
                    .iter()
                    .map(|h| h.point.id.to_string()),
            );
        }
        assert_eq!(seen, (0..30).map(|i| format!("z{i:02}")).collect::<Vec<_>>());
    }
}

#[test]
fn what_is_wrong_with_a_sparse_vector_is_said_with_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(dir.path(), small(), components()).unwrap();
    let mut both = schema(1);
    both.sparse.insert("dense".into(), SparseSpec::default());
    let refused = engine.create_collection("c", both).unwrap_err();
    assert_eq!(
        (refused.code, refused.pointer.unwrap().as_str()),
        ("bad_name", "/sparse/dense")
    );
    engine.create_collection("c", schema(1)).unwrap();
    let upsert = |name: &str, values: Vec<f32>| {
        let mut point = simple_point("p", 1);
        let vector = SparseVector {
            indices: vec![1, 2],
            values,
        };
        point.sparse = SparseVectors::from([(name.to_owned(), vector)]);
        let error = engine.upsert("c", vec![point], &WriteOptions::default()).unwrap_err();
        (error.code, error.pointer.unwrap())
    };
    assert_eq!(
        upsert("learned", vec![1.0, 0.0]),
        ("bad_sparse_vector", "/points/0/sparse/learned/values/1".into())
    );
    assert_eq!(
        upsert("dense", vec![1.0, 1.0]),
        ("vector_not_found", "/points/0/sparse/dense".into())
    );
    let ask = |using: Option<&str>, values: Vec<f32>| {
        let source = Source::Sparse {
            using: using.map(str::to_owned),
            vector: SparseVector {
                indices: vec![1],
                values,
            },
        };
        let refused = engine.query("c", &query(source, Filter::default(), 3));
        refused.map(|r| r.hits.len()).map_err(|e| (e.code, e.pointer.unwrap()))
    };
    assert_eq!(ask(Some("learned"), vec![1.0]), Ok(0));
    assert_eq!(
        ask(None, vec![f32::INFINITY]),
        Err(("not_finite", "/sparse/vector/values/0".into()))
    );
    assert_eq!(
        ask(Some("other"), vec![1.0]),
        Err(("vector_not_found", "/sparse/using".into()))
    );
}

#[test]
fn every_shard_that_is_due_is_merged() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings {
        seal_rows: 20,
        ..small()
    };
    let engine = Engine::open(dir.path(), settings, components()).unwrap();
    engine.create_collection("c", schema(4)).unwrap();
    for n in 0..20 {
        let points = (0..60).map(|i| simple_point(&format!("p{n}-{i}"), n)).collect();
        engine.upsert("c", points, &WriteOptions::default()).unwrap();
        if n % 4 == 3 {
            // Seals only, so that several shards have a merge due at once.
            engine.shared.merging.store(true, Ordering::Release);
            while engine.maintain(&|| false).unwrap() == Maintained::Worked {}
            engine.shared.merging.store(false, Ordering::Release);
        }
    }
    assert!(engine.collection("c").unwrap().optimizing);
    while engine.maintain(&|| false).unwrap() == Maintained::Worked {}
    assert!(!engine.collection("c").unwrap().optimizing);
    assert_eq!(engine.count("c", &Filter::default()).unwrap(), 1_200);
}

#[test]
fn optimize_leaves_one_segment_a_shard_while_others_work() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(dir.path(), small(), components()).unwrap();
    engine.create_collection("c", schema(2)).unwrap();
    for n in 0..20 {
        let points = (0..30).map(|i| simple_point(&format!("p{}", n * 20 + i), n)).collect();
        engine.upsert("c", points, &WriteOptions::default()).unwrap();
        engine.maintain(&|| false).unwrap();
    }
    let mut told = Vec::new();
    std::thread::scope(|scope| {
        // Two of them and ordinary background work share the shards' flags.
        scope.spawn(|| engine.optimize("c", &|| false, &mut |_| {}).unwrap());
        scope.spawn(|| while engine.maintain(&|| false).unwrap() == Maintained::Worked {});
        engine.optimize("c", &|| false, &mut |at| told.push(at)).unwrap();
    });
    let info = engine.collection("c").unwrap();
    assert_eq!(
        (info.segments, info.dead_rows, info.growing_bytes),
        (2, 0, 0),
        "{info:?}"
    );
    assert_eq!(info.points, 410);
    assert!(told.is_sorted_by(|a, b| a.part <= b.part), "{told:?}");
    let last = told.last().unwrap();
    assert_eq!(
        (last.part, last.shard, last.shards, last.step),
        (1.0, 1, 2, OptimizeStep::Trim)
    );
    let again = engine.stats();
    let mut told = Vec::new();
    engine
        .optimize("c", &|| false, &mut |at: Optimizing| told.push(at.step))
        .unwrap();
    assert_eq!(told, [OptimizeStep::Trim]);
    assert_eq!(
        (engine.stats().seals, engine.stats().merges),
        (again.seals, again.merges),
        "nothing is left to do"
    );

    engine
        .upsert("c", vec![simple_point("late", 1)], &WriteOptions::default())
        .unwrap();
    engine
        .upsert("c", vec![simple_point("later", 1)], &WriteOptions::default())
        .unwrap();
    let cancelled = engine.optimize("c", &|| true, &mut |_| {}).unwrap_err();
    assert_eq!(cancelled.kind, ErrorKind::Cancelled);
    assert!(engine.collection("c").unwrap().growing_bytes > 0, "nothing was sealed");
    let mut told = Vec::new();
    engine
        .optimize("c", &|| false, &mut |at: Optimizing| told.push(at.step))
        .unwrap();
    let step = |step: &OptimizeStep| matches!(step, OptimizeStep::Seal { segments } if *segments > 0);
    assert!(told.iter().any(step), "{told:?}");
    let merge = |step: &OptimizeStep| matches!(step, OptimizeStep::Merge { segments: 2, of: 2 });
    assert!(told.iter().any(merge), "{told:?}");
    let missing = engine.optimize("d", &|| false, &mut |_| {}).unwrap_err();
    assert_eq!(missing.code, "collection_not_found");
}

#[test]
fn an_answer_is_bounded_in_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(dir.path(), small(), components()).unwrap();
    engine.create_collection("c", schema(1)).unwrap();
    for n in 0..9 {
        let points = (0..10)
            .map(|i| {
                let mut point = simple_point(&format!("p{n}-{i}"), n);
                point.payload.insert("big".into(), json!("x".repeat(900_000)));
                point
            })
            .collect();
        engine.upsert("c", points, &WriteOptions::default()).unwrap();
    }
    let mut ask = query(
        Source::Nearest {
            using: Some("dense".into()),
            vector: vec![1.0; DIM],
        },
        Filter::default(),
        90,
    );
    assert_eq!(engine.query("c", &ask).unwrap().hits.len(), 90);
    ask.with.payload = true;
    assert_eq!(engine.query("c", &ask).unwrap_err().code, "answer_too_large");
    ask.limit = 50;
    assert_eq!(engine.query("c", &ask).unwrap().hits.len(), 50);
}

#[test]
fn a_moment_does_not_see_later_writes_seals_or_merges() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(dir.path(), small(), components()).unwrap();
    engine.create_collection("c", schema(1)).unwrap();
    engine
        .put_document("c", document("d", 1, 5), &WriteOptions::default())
        .unwrap();
    let moment = engine.moment("c", None, Patience::default()).unwrap();
    let written = engine
        .put_document("c", document("d", 2, 2), &WriteOptions::default())
        .unwrap();
    let points = (0..200).map(|i| simple_point(&format!("p{i}"), 3)).collect();
    engine.upsert("c", points, &WriteOptions::default()).unwrap();
    while engine.maintain(&|| false).unwrap() != Maintained::Idle {}

    let with = With {
        payload: true,
        ..With::default()
    };
    let all = Query {
        with,
        ..query(
            Source::Text {
                query: "alpha".into(),
                fields: vec![],
            },
            Filter::default(),
            100,
        )
    };
    let found = moment.query(&all).unwrap().hits;
    let ids: Vec<PointId> = found.iter().map(|hit| hit.point.id.clone()).collect();
    let (fetched, bytes) = moment.get(&ids, with).unwrap();
    assert!(bytes > 0);
    let beside = Filter::must(Condition::HasId { ids: ids.clone() });
    for (what, points) in [
        ("query", found.into_iter().map(|hit| hit.point).collect()),
        ("get", fetched),
        ("matching", moment.matching(&beside, 100, with).unwrap()),
    ] {
        let mut seen: Vec<_> = points
            .iter()
            .map(|p: &Point| (p.id.as_str(), &p.payload.as_ref().unwrap()["version"]))
            .collect();
        seen.sort_by_key(|(id, _)| *id);
        let one = json!(1);
        let expected: Vec<_> = ["d#0", "d#1", "d#2", "d#3", "d#4"].map(|id| (id, &one)).into();
        assert_eq!(seen, expected, "{what}");
    }
    assert_eq!(moment.count(&Filter::default()).unwrap(), 5);
    let later = engine.moment("c", Some(written.token), Patience::default()).unwrap();
    assert_eq!(later.count(&Filter::default()).unwrap(), 202);
    let passed = engine.moment("c", None, Patience::lasting(Duration::ZERO)).unwrap();
    assert_eq!(passed.count(&Filter::default()).unwrap_err().code, "deadline_exceeded");
}
