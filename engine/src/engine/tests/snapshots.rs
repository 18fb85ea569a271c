//! Cuts taken while writes go on, against a model kept beside the database; and copies of collections made from them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

/// Runs random operations and background work on an engine while `meanwhile` does what it does. Answers with the model as it
/// was after each record.
fn busy(engine: &Engine, seed: u64, meanwhile: impl FnOnce(&dyn Fn() -> u64)) -> BTreeMap<Seq, Model> {
    let stop = AtomicBool::new(false);
    let steps = std::sync::atomic::AtomicU64::new(0);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let (mut chance, mut model) = (Chance::new(seed), Model::default());
            let mut history = BTreeMap::from([(engine.applied().seq, model.clone())]);
            let mut n = 0;
            while !stop.load(Ordering::Relaxed) {
                write(engine, &mut model, &mut chance, n);
                history.insert(engine.applied().seq, model.clone());
                n += 1;
                steps.store(n, Ordering::Relaxed);
            }
            history
        });
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                if engine.maintain(&|| false).unwrap() == Maintained::Idle {
                    std::thread::yield_now();
                }
            }
        });
        // Also if it panics: the threads of a scope are waited for.
        struct Stop<'a>(&'a AtomicBool);
        impl Drop for Stop<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let stopping = Stop(&stop);
        meanwhile(&|| steps.load(Ordering::Relaxed));
        drop(stopping);
        writer.join().unwrap()
    })
}

fn wait_for(steps: &dyn Fn() -> u64, more: u64) {
    let until = steps() + more;
    while steps() < until {
        std::thread::yield_now();
    }
}

#[test]
fn a_cut_taken_while_writing_is_the_prefix_at_its_token_exactly() {
    for (seed, shards) in [(31, 1), (32, 3)] {
        let dir = tempfile::tempdir().unwrap();
        let engine = Engine::open(dir.path(), small(), components()).unwrap();
        engine.create_collection("c", schema(shards)).unwrap();
        let mut cuts = Vec::new();
        let history = busy(&engine, seed, |steps| {
            for _ in 0..5 {
                wait_for(steps, 25);
                cuts.push(engine.cut(&|| false, &mut |_| ()).unwrap());
            }
            // Merges and trims go on while the cuts are held.
            wait_for(steps, 50);
        });
        let mut chance = Chance::new(seed);
        for cut in &cuts {
            let model = &history[&cut.token.seq];
            let found = &cut.collections[..];
            assert_eq!(found.len(), 1);
            assert_eq!(
                (found[0].points, found[0].documents),
                (model.points.len() as u64, model.documents.len() as u64)
            );
            let opened = Engine::open(cut.dir(), small(), components()).unwrap();
            assert_eq!(opened.applied(), cut.token);
            check(&opened, "c", model, &mut chance);
        }
        assert!(
            cuts.iter()
                .any(|cut| cut.files.iter().any(|f| f.path.ends_with(".seg"))),
            "nothing was sealed"
        );
    }
}

#[test]
fn a_cut_goes_with_its_value_and_a_crash_leaves_none() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(dir.path(), small(), components()).unwrap();
    engine.create_collection("c", schema(1)).unwrap();
    let cut = engine.cut(&|| false, &mut |_| ()).unwrap();
    let other = engine.cut(&|| false, &mut |_| ()).unwrap();
    assert_ne!(cut.dir(), other.dir());
    drop(cut);
    assert!(other.dir().join("db").join("CURRENT").is_file());
    // What a crash does.
    let left = other.dir().to_owned();
    std::mem::forget(other);
    drop(engine);
    assert!(left.exists());
    let engine = Engine::open(dir.path(), small(), components()).unwrap();
    assert!(!left.exists());
    drop(engine.cut(&|| false, &mut |_| ()).unwrap());
}

#[test]
fn an_import_is_the_same_collection_in_any_number_of_shards() {
    let dir = tempfile::tempdir().unwrap();
    let source = Engine::open(&dir.path().join("source"), small(), components()).unwrap();
    source.create_collection("c", schema(2)).unwrap();
    let (mut chance, mut model) = (Chance::new(77), Model::default());
    for n in 0..150 {
        write(&source, &mut model, &mut chance, n);
        if n % 20 == 0 {
            while source.maintain(&|| false).unwrap() == Maintained::Worked {}
        }
    }
    // A document that lost a chunk, and one with a chunk that was changed, are as incomplete in the copy.
    let options = WriteOptions::default();
    for (name, count) in [("lost", 3), ("changed", 3)] {
        source.put_document("c", document(name, 1, count), &options).unwrap();
    }
    let (lost, changed) = (ids(&["lost#1".into()]), ids(&["changed#2".into()]));
    source.delete("c", Selector::Ids(lost), &options).unwrap();
    let set = json!({"touched": true}).as_object().unwrap().clone();
    let change = PayloadChange {
        set,
        ..PayloadChange::default()
    };
    source.set_payload("c", changed, change, &options).unwrap();
    let everything = |engine: &Engine, name: &str| {
        let with = With {
            payload: true,
            vectors: true,
            explain: false,
        };
        let scroll = Scroll {
            limit: 10_000,
            with,
            ..Scroll::default()
        };
        let mut points = engine.scroll(name, &scroll).unwrap().points;
        points.iter_mut().for_each(|p| p.version = Token::default());
        points.sort_by(|a, b| a.id.cmp(&b.id));
        let mut documents = engine.documents(name, None, 1_000, Patience::endless()).unwrap();
        documents.iter_mut().for_each(|d| d.version = Token::default());
        (points, documents)
    };
    let expected = everything(&source, "c");
    let whole = |name: &str| expected.1.iter().find(|d| d.id.as_str() == name).unwrap().whole;
    assert!(!whole("lost") && !whole("changed") && expected.1.iter().any(|d| d.whole));
    let target = Engine::open(&dir.path().join("target"), small(), components()).unwrap();
    for shards in [None, Some(1), Some(5)] {
        let import = Import {
            collection: "c".into(),
            name: format!("copy-{}", shards.unwrap_or(0)),
            shards,
            replace: false,
        };
        let mut told = 0.0f32;
        let info = target
            .import(&source, &import, &|| false, &mut |part| told = told.max(part))
            .unwrap();
        assert_eq!(info.schema.shards, shards.unwrap_or(2));
        assert_eq!(told, 1.0);
        assert!(everything(&target, &import.name) == expected, "{shards:?}");
    }
    // Still so after a restart.
    let names = target.collection_names();
    drop(target);
    let target = Engine::open(&dir.path().join("target"), small(), components()).unwrap();
    assert_eq!(target.collection_names(), names);
    names
        .iter()
        .for_each(|name| assert!(everything(&target, name) == expected));
}

#[test]
fn an_import_replaces_at_once_or_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let source = Engine::open(&dir.path().join("source"), small(), components()).unwrap();
    source.create_collection("c", schema(1)).unwrap();
    let options = WriteOptions::default();
    let new: Vec<_> = (0..500).map(|i| simple_point(&format!("n{i}"), 2)).collect();
    source.upsert("c", new, &options).unwrap();
    let path = dir.path().join("target");
    let target = Engine::open(&path, small(), components()).unwrap();
    target.create_collection("c", schema(3)).unwrap();
    target.upsert("c", vec![simple_point("old", 1)], &options).unwrap();
    let count = |engine: &Engine| engine.count("c", &Filter::default()).unwrap();
    let import = |replace, name: &str| Import {
        collection: "c".into(),
        name: name.into(),
        shards: None,
        replace,
    };
    let none = &mut |_| ();
    let refused = target
        .import(&source, &import(false, "c"), &|| false, none)
        .unwrap_err();
    assert_eq!((refused.code, count(&target)), ("collection_exists", 1));
    let stopped = target.import(&source, &import(true, "c"), &|| true, none).unwrap_err();
    assert_eq!((stopped.kind, count(&target)), (ErrorKind::Cancelled, 1));
    let bad = target
        .import(&source, &import(true, "../c"), &|| false, none)
        .unwrap_err();
    assert_eq!((bad.code, target.collection_names().len()), ("bad_name", 1));
    let missing = Import {
        collection: "d".into(),
        ..import(true, "c")
    };
    assert_eq!(
        target.import(&source, &missing, &|| false, none).unwrap_err().code,
        "collection_not_found"
    );
    // Readers see the old collection or the new one, whole.
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut seen = BTreeSet::new();
            while !done.load(Ordering::Relaxed) {
                seen.insert(count(&target));
            }
            seen.insert(count(&target));
            seen
        });
        let info = target.import(&source, &import(true, "c"), &|| false, none).unwrap();
        done.store(true, Ordering::Relaxed);
        assert_eq!((info.points, info.schema.shards), (500, 1));
        let seen = reader.join().unwrap();
        assert!(
            seen.iter().all(|n| [1, 500].contains(n)) && seen.contains(&500),
            "{seen:?}"
        );
    });
    while target.maintain(&|| false).unwrap() == Maintained::Worked {}
    drop(target);
    let target = Engine::open(&path, small(), components()).unwrap();
    assert_eq!((count(&target), target.collection_names()), (500, vec!["c".to_owned()]));
}

#[test]
fn a_copy_that_a_crash_left_unfinished_is_gone_at_the_next_open() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(dir.path(), small(), components()).unwrap();
    engine.create_collection("c", schema(1)).unwrap();
    let no = engine.create_unfinished(&schema(1)).unwrap();
    assert_eq!(engine.collection_names(), ["c"]);
    assert_eq!(engine.cut(&|| false, &mut |_| ()).unwrap().collections.len(), 1);
    assert_eq!(engine.stats().collections, 2);
    let last = engine.applied();
    drop(engine);
    let engine = Engine::open(dir.path(), small(), components()).unwrap();
    assert_eq!(engine.stats().collections, 1);
    assert_eq!(engine.opened_at(), last);
    assert!(engine.applied().seq > last.seq, "dropping it is a record");
    assert!(
        engine.create_unfinished(&schema(1)).unwrap() > no,
        "numbers are never given twice"
    );
}
