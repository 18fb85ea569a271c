//! A collection whose segments are searched by Faiss: in builds that have it, and in those that do not.

use super::*;
use crate::filter::Range;
use crate::schema::{IndexSpec, Metric, Quantization, VectorSpec};

const ROWS: usize = 3_000;
const WIDE: usize = 16;

fn vector(chance: &mut Chance) -> Vec<f32> {
    (0..WIDE)
        .map(|_| chance.below(2_000) as f32 / 1_000.0 - 0.9995)
        .collect()
}

fn by_faiss(factory: &str, metric: Metric) -> Schema {
    let spec = VectorSpec {
        dim: WIDE as u32,
        metric,
        index: IndexSpec::Faiss {
            factory: factory.to_owned(),
        },
        quantization: Quantization::Int8,
        embedder: None,
    };
    Schema {
        vectors: [("dense".to_owned(), spec)].into(),
        ..schema(1)
    }
}

fn settings() -> Settings {
    Settings {
        seal_rows: ROWS,
        ..Settings::default()
    }
}

/// A collection as any build may find it: what a build cannot make is not asked here.
fn create(engine: &Engine, schema: &Schema) {
    let op = Op::CreateCollection {
        no: CollectionNo(engine.shared.applier.lock().next_collection),
        name: "c".to_owned(),
        schema: serde_json::to_string(schema).unwrap(),
    };
    let write = commit::Write {
        ops: vec![op],
        durability: Some(Durability::Sync),
        grows: false,
        collection: None,
    };
    engine.shared.submit(write, &WriteOptions::default()).unwrap();
}

fn fill(engine: &Engine, chance: &mut Chance) {
    let points: Vec<PointInput> = (0..ROWS)
        .map(|i| {
            let vectors = match i % 5 {
                3 => Vectors::new(),
                _ => Vectors::from([("dense".to_owned(), vector(chance))]),
            };
            PointInput {
                vectors,
                ..simple_point(&format!("p{i}"), i as u64)
            }
        })
        .collect();
    for some in points.chunks(1_000) {
        engine.upsert("c", some.to_vec(), &WriteOptions::default()).unwrap();
    }
    engine.optimize("c", &|| false, &mut |_| {}).unwrap();
}

/// How it was answered, and how many of the exact answer's ids are there.
fn compare(engine: &Engine, vector: &[f32], filter: &Filter, limit: usize) -> (&'static str, usize) {
    let source = Source::Nearest {
        using: None,
        vector: vector.to_vec(),
    };
    let ask = query(source, filter.clone(), limit);
    let answer = engine.query("c", &ask).unwrap();
    let mut exact = ask.clone();
    exact.params.exact = true;
    let exact = engine.query("c", &exact).unwrap();
    assert_eq!(answer.hits.len(), exact.hits.len());
    let score = |hit: &query::Hit| (hit.point.id.clone(), hit.score);
    let right: Vec<_> = exact.hits.iter().map(score).collect();
    let found = answer.hits.iter().filter(|hit| right.contains(&score(hit))).count();
    let legs = answer.explain.unwrap().legs;
    let sealed = legs.iter().find(|leg| leg.segment.is_some());
    (sealed.map_or("nothing", |leg| leg.strategy), found)
}

#[test]
fn it_is_sealed_searched_filtered_deleted_from_and_reopened_and_answers_whether_or_not_there_is_faiss() {
    for metric in [Metric::Cosine, Metric::Dot, Metric::Euclid] {
        let root = tempfile::tempdir().unwrap();
        let mut engine = Engine::open(root.path(), settings(), components()).unwrap();
        create(&engine, &by_faiss("IVF16,SQ8,RFlat", metric));
        let mut chance = Chance::new(71);
        fill(&engine, &mut chance);
        let expected = if crate::vector::faiss::AVAILABLE {
            "faiss"
        } else {
            "exact"
        };
        for opened in 0..3 {
            let (mut found, mut wanted) = (0, 0);
            for _ in 0..20 {
                let (strategy, right) = compare(&engine, &vector(&mut chance), &Filter::default(), 10);
                assert_eq!(strategy, expected);
                found += right;
                wanted += 10;
            }
            assert!(
                found * 100 >= wanted * 90,
                "{metric:?}, opening {opened}: {found} of {wanted}"
            );
            for (from, below) in [(0, 5), (0, 700), (1_500, ROWS), (ROWS, ROWS)] {
                let filter = Filter::must(Condition::Range {
                    field: "version".into(),
                    range: Range {
                        gte: Some(from as f64),
                        lt: Some(below as f64),
                        ..Range::default()
                    },
                });
                // Compares the number of hits.
                compare(&engine, &vector(&mut chance), &filter, 10);
            }
            let gone: Vec<PointId> = (0..300)
                .map(|i| PointId::new(format!("p{}", opened * 300 + i)).unwrap())
                .collect();
            engine
                .delete("c", Selector::Ids(gone), &WriteOptions::default())
                .unwrap();
            drop(engine);
            engine = Engine::open(root.path(), settings(), components()).unwrap();
        }
    }
}

#[test]
fn a_collection_is_made_only_where_faiss_can_make_its_indexes() {
    let root = tempfile::tempdir().unwrap();
    let engine = Engine::open(root.path(), settings(), components()).unwrap();
    let refused = |schema: Schema| {
        let error = engine.create_collection("c", schema).unwrap_err();
        assert_eq!(error.code, "bad_index", "{error}");
        error
    };
    for (factory, metric) in [
        ("", Metric::Cosine),
        ("Flat ", Metric::Dot),
        ("Flat", Metric::Manhattan),
    ] {
        let error = refused(by_faiss(factory, metric));
        assert_eq!(error.pointer.as_deref(), Some("/vectors/dense/index/factory"));
    }
    refused(by_faiss(&"x".repeat(201), Metric::Dot));
    let good = by_faiss("IVF16,Flat", Metric::Dot);
    if crate::vector::faiss::AVAILABLE {
        refused(by_faiss("IVF16,Nothing", Metric::Dot));
        refused(by_faiss("IVF16,Flat,IDMap", Metric::Dot));
        engine.create_collection("c", good).unwrap();
    } else {
        let error = refused(good.clone());
        assert_eq!(error.pointer.as_deref(), Some("/vectors/dense/index"));
        assert!(error.message.contains("--features faiss"), "{error}");
        // What is there already is there still.
        create(&engine, &good);
        engine.create_collection("c", good).unwrap();
    }
}
