//! Searches that are asked again say how much they find.

use super::*;
use crate::query::{Estimate, Fuse, Input, Params};
use crate::schema::{IndexSpec, Metric, Quantization, VectorSpec};

const ROWS: usize = 3_000;
const WIDE: usize = 24;

fn vector(chance: &mut Chance) -> Vec<f32> {
    (0..WIDE)
        .map(|_| chance.below(2_000) as f32 / 1_000.0 - 0.9995)
        .collect()
}

/// One sealed segment with a graph.
fn filled(dir: &Path, every: u64) -> (Engine, Chance) {
    let settings = Settings {
        seal_rows: ROWS,
        recall_sample_every: every,
        ..Settings::default()
    };
    let engine = Engine::open(dir, settings, components()).unwrap();
    let spec = VectorSpec {
        dim: WIDE as u32,
        metric: Metric::Euclid,
        index: IndexSpec::default(),
        quantization: Quantization::Int8,
        embedder: None,
    };
    let schema = Schema {
        vectors: [("dense".to_owned(), spec)].into(),
        ..schema(1)
    };
    engine.create_collection("c", schema).unwrap();
    let mut chance = Chance::new(7);
    let points: Vec<PointInput> = (0..ROWS)
        .map(|i| PointInput {
            vectors: Vectors::from([("dense".to_owned(), vector(&mut chance))]),
            ..simple_point(&format!("p{i}"), i as u64)
        })
        .collect();
    for some in points.chunks(1_000) {
        engine.upsert("c", some.to_vec(), &WriteOptions::default()).unwrap();
    }
    engine.optimize("c", &|| false, &mut |_| {}).unwrap();
    assert_eq!(engine.stats().graphs.int8, 1, "one segment with a graph");
    (engine, chance)
}

fn nearest(chance: &mut Chance, params: Params) -> Query {
    let source = Source::Nearest {
        using: None,
        vector: vector(chance),
    };
    Query {
        params,
        ..query(source, Filter::default(), 10)
    }
}

fn sample_all(engine: &Engine) -> u64 {
    let mut steps = 0;
    while engine.sample_step(Patience::endless()).unwrap() {
        steps += 1;
    }
    steps
}

#[test]
fn what_is_asked_again_is_as_good_as_what_was_answered() {
    let root = tempfile::tempdir().unwrap();
    let (engine, mut chance) = filled(root.path(), 1);
    let little = Params {
        ef: Some(10),
        ..Params::default()
    };
    let (mut found, questions) = (0.0, 60);
    for _ in 0..questions {
        let ask = nearest(&mut chance, little.clone());
        let answer = engine.query("c", &ask).unwrap();
        let exact = Params {
            exact: true,
            ..Params::default()
        };
        let exact = engine.query("c", &Query { params: exact, ..ask }).unwrap();
        let ids = |result: &QueryResult| result.hits.iter().map(|hit| hit.point.id.clone()).collect::<Vec<_>>();
        let exact = ids(&exact);
        found += ids(&answer).iter().filter(|id| exact.contains(id)).count() as f64 / 10.0;
        assert_eq!(sample_all(&engine), 1, "an exact search is not asked again");
    }
    let estimate = engine.recall_estimate();
    assert_eq!(estimate.questions, questions);
    assert!(
        (estimate.recall - found / questions as f64).abs() < 1e-9,
        "{estimate:?}, {found}"
    );
    assert!(
        estimate.recall < 0.99,
        "so small an effort misses something: {estimate:?}"
    );
    assert_eq!(engine.stats().recall, estimate);
    engine.create_collection("other", schema(1)).unwrap();
    let told = |name: &str| engine.collection(name).unwrap().recall;
    assert_eq!(
        (told("c"), told("other")),
        (estimate, Estimate::default()),
        "each its own"
    );
}

#[test]
fn one_search_in_so_many_is_asked_again_and_few_wait() {
    let root = tempfile::tempdir().unwrap();
    let (engine, mut chance) = filled(root.path(), 10);
    for _ in 0..30 {
        engine.query("c", &nearest(&mut chance, Params::default())).unwrap();
    }
    assert_eq!(sample_all(&engine), 3);
    for _ in 0..300 {
        engine.query("c", &nearest(&mut chance, Params::default())).unwrap();
    }
    assert_eq!(sample_all(&engine), 8, "the newest");
    // By words alone there is nothing to compare; of a fusion its dense leg is.
    let words = Source::Text {
        query: "alpha".into(),
        fields: vec![],
    };
    let input = |source| Input {
        name: None,
        source,
        filter: Filter::default(),
        limit: 20,
    };
    for _ in 0..10 {
        engine.query("c", &query(words.clone(), Filter::default(), 10)).unwrap();
    }
    assert_eq!(sample_all(&engine), 0);
    for _ in 0..10 {
        let dense = nearest(&mut chance, Params::default()).source;
        let both = Source::Fusion {
            inputs: vec![input(words.clone()), input(dense)],
            method: Fuse::Rrf {
                k: 60.0,
                weights: vec![],
            },
        };
        engine.query("c", &query(both, Filter::default(), 10)).unwrap();
    }
    assert_eq!(sample_all(&engine), 1);
    // Nobody is left to ask once the collection is gone.
    for _ in 0..10 {
        engine.query("c", &nearest(&mut chance, Params::default())).unwrap();
    }
    engine.drop_collection("c", &WriteOptions::default()).unwrap();
    assert_eq!(sample_all(&engine), 1, "taken, and nobody is asked");
    assert_eq!(engine.recall_estimate().questions, 12);
}

#[test]
fn nothing_is_asked_again_if_none_is_to_be() {
    let root = tempfile::tempdir().unwrap();
    let (engine, mut chance) = filled(root.path(), 0);
    for _ in 0..20 {
        engine.query("c", &nearest(&mut chance, Params::default())).unwrap();
    }
    assert_eq!(sample_all(&engine), 0);
    assert_eq!(engine.recall_estimate().questions, 0);
}

#[test]
fn more_is_measured_where_more_is_to_be_found() {
    let root = tempfile::tempdir().unwrap();
    let (engine, mut chance) = filled(root.path(), 0);
    let ask = nearest(&mut chance, Params::default());
    let measured = |params: Params| {
        let answer = engine.query("c", &Query { params, ..ask.clone() }).unwrap();
        let legs = answer.explain.unwrap().legs;
        legs.iter().map(|leg| leg.evaluated).sum::<u64>()
    };
    let aiming = |recall: f32| Params {
        target_recall: Some(recall),
        ..Params::default()
    };
    let [little, usual, most] = [0.5, 0.95, 0.999].map(|recall| measured(aiming(recall)));
    // So much of so few rows is found by a scan of all.
    assert!(little < usual && usual <= most, "{little}, {usual}, {most}");
    assert_eq!(usual, measured(Params::default()));
    let by_hand = |ef: usize| Params {
        ef: Some(ef),
        ..aiming(0.999)
    };
    assert!(
        measured(by_hand(10)) < measured(by_hand(100)),
        "what is said directly wins"
    );
}
