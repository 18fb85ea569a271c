//! The engine against a model: random operations, background work and crashes, compared with plain maps after each step.
//!
//! A crash is a copy of the data directory taken while the engine runs: what the operating system has of the files, without
//! what RocksDB still keeps in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::config::Clock;
use crate::filter::{Condition, Range, Scalar};
use crate::query::{Fuse, Input, Params, Source};
use crate::schema::{AnalyzerSpec, FieldSpec, IndexSpec, Metric, VectorSpec};
use crate::types::Vectors;

struct Frozen;

impl Clock for Frozen {
    fn now_ms(&self) -> u64 {
        1_700_000_000_000
    }
}

fn components() -> Components {
    Components {
        clock: Arc::new(Frozen),
    }
}

/// Small numbers, so that seals and merges happen all the time.
fn small() -> Settings {
    Settings {
        seal_rows: 60,
        graph_rows_min: 100,
        merge_fanin: 3,
        ..Settings::default()
    }
}

const DIM: usize = 8;

fn schema(shards: u32) -> Schema {
    Schema {
        vectors: BTreeMap::from([(
            "dense".to_owned(),
            VectorSpec {
                dim: DIM as u32,
                metric: Metric::Cosine,
                index: IndexSpec::Hnsw {
                    m: 8,
                    ef_construction: 32,
                },
                embedder: None,
            },
        )]),
        fields: BTreeMap::from([(
            "text".to_owned(),
            FieldSpec::Text {
                analyzer: AnalyzerSpec::default(),
            },
        )]),
        dynamic: true,
        shards,
        chunking: crate::schema::Chunking::default(),
    }
}

/// SplitMix64 (Steele, Lea & Flood 2014): a seed is a run.
struct Rng(u64);

impl Rng {
    fn new(seed: u64) -> Self {
        Self(seed)
    }
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
    fn vector(&mut self) -> Vec<f32> {
        (0..DIM).map(|_| self.below(2_000) as f32 / 1_000.0 - 0.9995).collect()
    }
    fn point(&mut self, id: String, version: u64) -> PointInput {
        let words = ["alpha", "beta", "gamma", "delta", "running", "cluster"];
        let text: Vec<&str> = (0..1 + self.below(5)).map(|_| words[self.below(6) as usize]).collect();
        let mut vectors = Vectors::new();
        if self.below(20) > 0 {
            vectors.insert("dense".into(), self.vector());
        }
        let payload =
            json!({"text": text.join(" "), "n": self.below(10), "version": version, "x": 0.1 + version as f64});
        PointInput {
            id: PointId::new(id).unwrap(),
            vectors,
            payload: payload.as_object().unwrap().clone(),
            document: None,
            expires_at_ms: None,
        }
    }
}

/// What should be there.
#[derive(Default, Clone)]
struct Model {
    points: BTreeMap<String, PointInput>,
    documents: BTreeMap<String, BTreeSet<String>>,
}

fn ids(ids: &[String]) -> Vec<PointId> {
    ids.iter().map(|id| PointId::new(id.as_str()).unwrap()).collect()
}

fn step(engine: &Engine, model: &mut Model, rng: &mut Rng, n: u64) {
    let options = WriteOptions::default();
    match rng.below(12) {
        0..=4 => {
            let points: Vec<PointInput> = (0..1 + rng.below(25))
                .map(|_| (format!("p{}", rng.below(300)), n))
                .collect::<Vec<_>>()
                .into_iter()
                .map(|(id, n)| rng.point(id, n))
                .collect();
            for p in &points {
                model.points.insert(p.id.as_str().to_owned(), p.clone());
            }
            engine.upsert("c", points, &options).unwrap();
        }
        5 => {
            let gone: Vec<String> = (0..1 + rng.below(10)).map(|_| format!("p{}", rng.below(300))).collect();
            let gone_now = gone.iter().filter(|id| model.points.remove(*id).is_some()).count() as u64;
            let applied = engine.delete("c", Selector::Ids(ids(&gone)), &options).unwrap();
            assert_eq!(applied.changed, gone_now);
        }
        6 => {
            let value = rng.below(10);
            let filter = Filter::must(Condition::Any {
                field: "n".into(),
                values: vec![Scalar::Int(value as i64)],
            });
            let filter = Filter {
                must_not: vec![Condition::Range {
                    field: "version".into(),
                    range: Range {
                        gte: Some(n as f64 / 2.0),
                        ..Range::default()
                    },
                }],
                ..filter
            };
            let before = model.points.len();
            model.points.retain(|_, p| {
                p.payload["n"] != json!(value) || p.payload["version"].as_f64().unwrap() >= n as f64 / 2.0
            });
            let applied = engine.delete("c", Selector::Matching(filter), &options).unwrap();
            assert_eq!(applied.changed, (before - model.points.len()) as u64);
        }
        7 => {
            let some: Vec<String> = (0..1 + rng.below(10)).map(|_| format!("p{}", rng.below(300))).collect();
            let set = json!({"touched": n}).as_object().unwrap().clone();
            for id in &some {
                if let Some(p) = model.points.get_mut(id) {
                    p.payload.remove("x");
                    p.payload.insert("touched".into(), json!(n));
                }
            }
            let change = PayloadChange {
                set,
                unset: vec!["x".into()],
                replace: false,
            };
            engine.set_payload("c", ids(&some), change, &options).unwrap();
        }
        8..=10 => {
            let name = format!("d{}", rng.below(20));
            let count = rng.below(12);
            let chunks: Vec<ChunkInput> = (0..count)
                .map(|i| ChunkInput {
                    checksum: [i as u8; 16],
                    point: rng.point(format!("{name}#{i}"), n),
                })
                .collect();
            for id in model.documents.remove(&name).unwrap_or_default() {
                model.points.remove(&id);
            }
            let document = PointId::new(name.as_str()).unwrap();
            for chunk in &chunks {
                let point = PointInput {
                    document: Some(document.clone()),
                    ..chunk.point.clone()
                };
                model.points.insert(point.id.as_str().to_owned(), point);
            }
            model
                .documents
                .insert(name, chunks.iter().map(|c| c.point.id.as_str().to_owned()).collect());
            let mut checksum = [0; 16];
            checksum[..8].copy_from_slice(&n.to_le_bytes());
            let input = DocumentInput {
                id: document,
                title: "t".into(),
                source: "s".into(),
                metadata: Payload::new(),
                checksum,
                text_bytes: 1,
                chunks,
            };
            engine.put_document("c", input, &options).unwrap();
        }
        _ => {
            let name = format!("d{}", rng.below(20));
            for id in model.documents.remove(&name).unwrap_or_default() {
                model.points.remove(&id);
            }
            engine.delete_documents("c", ids(&[name]), &options).unwrap();
        }
    }
}

fn check(engine: &Engine, model: &Model, rng: &mut Rng) {
    let with = With {
        payload: true,
        vectors: true,
        explain: true,
    };
    // Everything, by scrolling in small pages.
    let mut seen = BTreeMap::new();
    let mut scroll = Scroll {
        limit: 37,
        with,
        ..Scroll::default()
    };
    loop {
        let page = engine.scroll("c", &scroll).unwrap();
        for point in page.points {
            assert!(
                seen.insert(point.id.as_str().to_owned(), point).is_none(),
                "a point came twice"
            );
        }
        match page.cursor {
            Some(cursor) => scroll.cursor = Some(cursor),
            None => break,
        }
    }
    assert_eq!(seen.keys().collect::<Vec<_>>(), model.points.keys().collect::<Vec<_>>());
    for (id, expected) in &model.points {
        let got = &seen[id];
        assert_eq!(got.payload.as_ref(), Some(&expected.payload), "{id}");
        assert_eq!(got.vectors.as_ref(), Some(&expected.vectors), "{id}");
        assert_eq!(got.document, expected.document, "{id}");
    }
    let info = engine.collection("c").unwrap();
    assert_eq!(info.points, model.points.len() as u64);
    assert_eq!(info.documents, model.documents.len() as u64);
    assert_eq!(
        engine.count("c", &Filter::default()).unwrap(),
        model.points.len() as u64
    );
    // By id, in the order asked.
    let asked: Vec<String> = (0..20)
        .map(|_| format!("p{}", rng.below(300)))
        .collect::<BTreeSet<_>>()
        .into_iter()
        .rev()
        .collect();
    let got: Vec<String> = engine
        .get("c", &ids(&asked), With::default())
        .unwrap()
        .iter()
        .map(|p| p.id.to_string())
        .collect();
    let expected: Vec<String> = asked.into_iter().filter(|id| model.points.contains_key(id)).collect();
    assert_eq!(got, expected);
    // Documents and their chunks.
    for (name, chunks) in &model.documents {
        let id = PointId::new(name.as_str()).unwrap();
        assert_eq!(engine.document("c", &id).unwrap().unwrap().chunks, chunks.len() as u64);
        let got: BTreeSet<String> = engine
            .chunks("c", &id, With::default())
            .unwrap()
            .iter()
            .map(|p| p.id.to_string())
            .collect();
        // Chunks can also be deleted one by one, as points.
        let expected: BTreeSet<String> = chunks
            .iter()
            .filter(|id| model.points.contains_key(*id))
            .cloned()
            .collect();
        assert_eq!(got, expected);
    }
    check_nearest(engine, model, rng);
    check_text(engine, model);
}

fn query(source: Source, filter: Filter, limit: usize) -> Query {
    Query {
        source,
        filter,
        limit,
        offset: 0,
        score_threshold: None,
        with: With {
            explain: true,
            ..With::default()
        },
        params: Params::default(),
        after: None,
        deadline: None,
    }
}

/// With and without a filter: exactly the nearest when exact, and k of k always.
fn check_nearest(engine: &Engine, model: &Model, rng: &mut Rng) {
    let vector = rng.vector();
    let value = rng.below(10);
    let filters = [
        Filter::default(),
        Filter::must(Condition::Any {
            field: "n".into(),
            values: vec![Scalar::Int(value as i64)],
        }),
    ];
    for (filtered, filter) in filters.into_iter().enumerate() {
        let cosine = |v: &[f32]| {
            let dot: f64 = v.iter().zip(&vector).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
            let norm = |x: &[f32]| x.iter().map(|a| f64::from(*a).powi(2)).sum::<f64>().sqrt();
            dot / (norm(v) * norm(&vector))
        };
        let mut expected: Vec<(f64, &str)> = model
            .points
            .iter()
            .filter(|(_, p)| filtered == 0 || p.payload["n"] == json!(value))
            .filter_map(|(id, p)| Some((cosine(p.vectors.get("dense")?), id.as_str())))
            .collect();
        expected.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
        for exact in [true, false] {
            let source = Source::Nearest {
                using: None,
                vector: vector.clone(),
            };
            let mut ask = query(source, filter.clone(), 10);
            ask.params.exact = exact;
            let hits = engine.query("c", &ask).unwrap().hits;
            assert_eq!(hits.len(), expected.len().min(10), "never fewer than k when k match");
            let found = hits
                .iter()
                .filter(|h| f64::from(h.legs[0].raw) >= expected[hits.len() - 1].0 - 1e-5)
                .count();
            let wanted = if exact {
                hits.len()
            } else {
                hits.len().saturating_sub(2)
            };
            assert!(found >= wanted, "exact={exact} {found} of {}", hits.len());
            for pair in hits.windows(2) {
                assert!(pair[0].score >= pair[1].score);
            }
        }
    }
}

fn check_text(engine: &Engine, model: &Model) {
    let source = Source::Text {
        query: "runs".into(),
        fields: vec![],
    };
    let hits = engine
        .query("c", &query(source.clone(), Filter::default(), 1_000))
        .unwrap()
        .hits;
    let got: BTreeSet<String> = hits.iter().map(|h| h.point.id.to_string()).collect();
    let has = |p: &PointInput| p.payload["text"].as_str().unwrap().contains("running");
    let expected: BTreeSet<String> = model
        .points
        .iter()
        .filter(|(_, p)| has(p))
        .map(|(id, _)| id.clone())
        .collect();
    assert_eq!(got, expected);
    // Statistics are over live rows: the scores equal those of a fresh collection that never saw a delete.
    let idf = {
        let (n, df) = (model.points.len() as f64, expected.len() as f64);
        (1.0 + (n - df + 0.5) / (df + 0.5)).ln()
    };
    let lengths: BTreeMap<&String, f64> = model
        .points
        .iter()
        .map(|(id, p)| (id, p.payload["text"].as_str().unwrap().split(' ').count() as f64))
        .collect();
    let average = lengths.values().sum::<f64>() / lengths.len() as f64;
    for hit in &hits {
        let id = hit.point.id.to_string();
        let tf = model.points[&id].payload["text"]
            .as_str()
            .unwrap()
            .matches("running")
            .count() as f64;
        let expected = idf * tf / (tf + 1.2 * (1.0 - 0.75 + 0.75 * lengths[&id] / average));
        assert!(
            (f64::from(hit.legs[0].raw) - expected).abs() < 1e-4,
            "{id}: {} {expected}",
            hit.legs[0].raw
        );
    }
    let both = Source::Fusion {
        inputs: vec![
            Input {
                name: None,
                source,
                filter: Filter::default(),
                limit: 10,
            },
            Input {
                name: None,
                source: Source::Nearest {
                    using: None,
                    vector: vec![1.0; DIM],
                },
                filter: Filter::default(),
                limit: 10,
            },
        ],
        method: Fuse::Rrf {
            k: 60.0,
            weights: vec![],
        },
    };
    for hit in engine.query("c", &query(both, Filter::default(), 20)).unwrap().hits {
        assert!((0.0..=1.0).contains(&hit.score) && !hit.legs.is_empty());
    }
}

/// Copies a directory; fails if a file vanished on the way.
fn copy_dir(from: &Path, to: &Path) -> std::io::Result<BTreeSet<std::path::PathBuf>> {
    let mut names = BTreeSet::new();
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            names.extend(copy_dir(&entry.path(), &to.join(entry.file_name()))?);
        } else {
            std::fs::copy(entry.path(), to.join(entry.file_name()))?;
            names.insert(entry.path());
        }
    }
    Ok(names)
}

/// What a crash now would leave. RocksDB compacts in the background: a copy during which files came or went is not one
/// moment and is made again.
fn crash_image(dir: &Path, to: &Path) {
    for _ in 0..50 {
        let scratch = tempfile::tempdir().unwrap();
        if let (Ok(before), Ok(after)) = (copy_dir(dir, to), copy_dir(dir, scratch.path()))
            && before == after
        {
            return;
        }
        std::fs::remove_dir_all(to).unwrap();
    }
    panic!("the data directory did not hold still");
}

fn run_model(seed: u64, shards: u32, steps: u64) {
    let mut rng = Rng::new(seed);
    let root = tempfile::tempdir().unwrap();
    let mut dir = root.path().join("0");
    let mut engine = Engine::open(&dir, small(), components()).unwrap();
    engine.create_collection("c", schema(shards)).unwrap();
    let mut model = Model::default();
    for n in 0..steps {
        step(&engine, &mut model, &mut rng, n);
        if rng.below(4) == 0 {
            engine.maintain(&|| false).unwrap();
        }
        if rng.below(25) == 0 {
            let next = root.path().join(format!("{}", n + 1));
            crash_image(&dir, &next);
            engine = Engine::open(&next, small(), components()).unwrap();
            dir = next;
        }
        if rng.below(8) == 0 {
            check(&engine, &model, &mut rng);
        }
    }
    while engine.maintain(&|| false).unwrap() == Maintained::Worked {}
    check(&engine, &model, &mut rng);
    let stats = engine.stats();
    assert!(stats.seals > 0 || steps < 200, "{stats:?}");
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
