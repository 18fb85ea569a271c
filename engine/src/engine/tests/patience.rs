//! What happens to work whose caller has gone: it ends soon, with nothing half done.

use std::sync::atomic::AtomicBool;
use std::time::Instant;

use super::*;
use crate::query::{Fuse, Input};

const HOUR: Duration = Duration::from_secs(3_600);

fn caller() -> (Arc<AtomicBool>, Patience) {
    let gone = Arc::new(AtomicBool::new(false));
    let patience = Patience::until_or_raised(Instant::now() + HOUR, Arc::clone(&gone));
    (gone, patience)
}

fn writing(patience: &Patience) -> WriteOptions {
    WriteOptions {
        patience: patience.clone(),
        ..WriteOptions::default()
    }
}

#[test]
fn nothing_is_done_for_a_caller_who_has_gone() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(dir.path(), small(), components()).unwrap();
    engine.create_collection("c", schema(1)).unwrap();
    let (gone, patience) = caller();
    engine
        .put_document("c", document("d", 1, 5), &writing(&patience))
        .unwrap();
    let id = PointId::new("d").unwrap();
    let ask = |limit| Query {
        patience: patience.clone(),
        ..query(
            Source::Text {
                query: "alpha".into(),
                fields: vec![],
            },
            Filter::default(),
            limit,
        )
    };
    let page = Scroll {
        limit: 10,
        patience: patience.clone(),
        ..Scroll::default()
    };
    let moment = engine.moment("c", None, patience.clone()).unwrap();
    let with = With::default();
    type Work<'a> = Box<dyn Fn() -> Result<usize> + 'a>;
    let works: [(&str, Work<'_>); 9] = [
        ("query", Box::new(|| Ok(engine.query("c", &ask(10))?.hits.len()))),
        ("scroll", Box::new(|| Ok(engine.scroll("c", &page)?.points.len()))),
        (
            "chunks",
            Box::new(|| Ok(engine.chunks("c", &id, with, &patience)?.len())),
        ),
        (
            "chunk vectors",
            Box::new(|| Ok(engine.chunk_vectors("c", &id, &patience)?.len())),
        ),
        (
            "document",
            Box::new(|| {
                let found = engine.document_with_chunks("c", &id, with, &patience)?;
                Ok(found.map_or(0, |(_, chunks)| chunks.len()))
            }),
        ),
        (
            "documents",
            Box::new(|| Ok(engine.documents("c", None, 10, &patience)?.len())),
        ),
        (
            "count in a moment",
            Box::new(|| Ok(moment.count(&Filter::default())? as usize)),
        ),
        ("query in a moment", Box::new(|| Ok(moment.query(&ask(10))?.hits.len()))),
        (
            "upsert",
            Box::new(|| {
                let written = engine.upsert("c", vec![simple_point("p", 1)], &writing(&patience))?;
                Ok(written.changed as usize)
            }),
        ),
    ];
    for (what, work) in &works {
        assert!(work().unwrap() > 0, "{what}");
    }
    let before = engine.applied();
    gone.store(true, Ordering::Relaxed);
    for (what, work) in &works {
        let error = work().unwrap_err();
        assert_eq!((error.kind, error.code), (ErrorKind::Cancelled, "cancelled"), "{what}");
    }
    assert_eq!(engine.applied(), before, "and nothing was written");
}

/// A query of many legs that takes some time, and whose caller goes in the middle of it.
#[test]
fn a_query_ends_when_its_caller_goes() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(dir.path(), small(), components()).unwrap();
    engine.create_collection("c", schema(1)).unwrap();
    let points = (0..4_000).map(|i| simple_point(&format!("p{i}"), i % 7)).collect();
    engine.upsert("c", points, &WriteOptions::default()).unwrap();
    let leg = |i: usize| Input {
        name: Some(format!("l{i}")),
        source: Source::Text {
            query: "alpha".into(),
            fields: vec![],
        },
        filter: Filter::default(),
        limit: 4_000,
    };
    let slow = |patience: Patience| Query {
        patience,
        ..query(
            Source::Fusion {
                inputs: (0..15).map(leg).collect(),
                method: Fuse::Rrf {
                    k: 60.0,
                    weights: vec![],
                },
            },
            Filter::default(),
            4_000,
        )
    };
    let asked = |patience: Patience| {
        let began = Instant::now();
        let code = engine.query("c", &slow(patience)).map_err(|e| e.code);
        (code.map(|found| found.hits.len()), began.elapsed())
    };
    let (whole, takes) = asked(Patience::default());
    assert_eq!(whole, Ok(4_000));
    // The machine may be busy: a caller who left too early or too late for this test leaves again.
    let in_the_middle = (0..50).any(|_| {
        let (gone, patience) = caller();
        std::thread::scope(|scope| {
            let asking = scope.spawn(|| asked(patience));
            std::thread::sleep(takes / 4);
            gone.store(true, Ordering::Relaxed);
            let (result, took) = asking.join().unwrap();
            result == Err("cancelled") && took > takes / 10
        })
    });
    assert!(in_the_middle, "it takes {takes:?} and does not end before");
}

#[test]
fn a_write_that_waits_for_memory_ends_when_its_caller_goes() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings {
        growing_bytes_max: 100_000,
        write_wait_ms: 600_000,
        ..small()
    };
    let engine = Engine::open(dir.path(), settings, components()).unwrap();
    engine.create_collection("c", schema(1)).unwrap();
    // One write is taken as long as there is any room.
    let points = (0..1_000).map(|i| simple_point(&format!("p{i}"), 1)).collect();
    engine.upsert("c", points, &WriteOptions::default()).unwrap();
    let before = engine.applied();
    let (gone, patience) = caller();
    let error = std::thread::scope(|scope| {
        let writing = scope.spawn(|| engine.upsert("c", vec![simple_point("late", 1)], &writing(&patience)));
        std::thread::sleep(Duration::from_millis(50));
        assert!(!writing.is_finished(), "there is no room for it");
        gone.store(true, Ordering::Relaxed);
        writing.join().unwrap().unwrap_err()
    });
    assert_eq!((error.kind, error.code), (ErrorKind::Cancelled, "cancelled"));
    assert!(error.message.contains("nothing was written"), "{}", error.message);
    assert_eq!(engine.applied(), before);
}

#[test]
fn a_page_of_documents_over_shards_is_the_first_of_all() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(dir.path(), small(), components()).unwrap();
    engine.create_collection("c", schema(4)).unwrap();
    for i in 0..40 {
        let id = format!("d{:02}", i * 7 % 40);
        engine
            .put_document("c", document(&id, 1, 1), &WriteOptions::default())
            .unwrap();
    }
    let (mut after, mut seen) = (None, Vec::new());
    loop {
        let page = engine.documents("c", after.as_ref(), 3, Patience::endless()).unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.id.clone());
        seen.extend(page.iter().map(|d| d.id.as_str().to_owned()));
    }
    assert_eq!(seen, (0..40).map(|i| format!("d{i:02}")).collect::<Vec<_>>());
}

#[test]
fn numbers_for_metrics_wait_for_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(dir.path(), small(), components()).unwrap();
    engine.create_collection("c", schema(1)).unwrap();
    engine
        .upsert("c", vec![simple_point("p", 1)], &WriteOptions::default())
        .unwrap();
    // As a commit does whose disk hangs.
    let committing = engine.shared.applier.lock();
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| engine.stats());
        let patience = Patience::lasting(Duration::from_secs(20));
        while !asked.is_finished() && !patience.is_over() {
            std::thread::yield_now();
        }
        let answered = asked.is_finished();
        drop(committing);
        assert!(answered, "it waits for the commit");
        assert_eq!(asked.join().unwrap().points, 1);
    });
}
