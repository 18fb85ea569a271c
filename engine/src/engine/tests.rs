//! The engine against a model: random operations, background work and crashes, compared with plain maps after each step.
//!
//! A crash is a copy of the data directory taken while the engine runs: what the operating system has of the files, without
//! what RocksDB still keeps in memory.

mod snapshots;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use serde_json::json;

mod patience;

use super::*;
use crate::config::{Clock, Workers};
use crate::filter::{Condition, Range, Scalar};
use crate::query::{Fuse, Input, Params, Source};
use crate::schema::{AnalyzerSpec, FieldSpec, IndexSpec, Metric, SparseSpec, VectorSpec};
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
    }
}

/// Small numbers, so that seals and merges happen all the time.
pub(super) fn small() -> Settings {
    Settings {
        seal_rows: 60,
        graph_rows_min: 100,
        merge_fanin: 3,
        ..Settings::default()
    }
}

const DIM: usize = 8;

pub(super) fn schema(shards: u32) -> Schema {
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
                quantization: Default::default(),
                embedder: None,
            },
        )]),
        sparse: BTreeMap::from([("learned".to_owned(), SparseSpec::default())]),
        fields: BTreeMap::from([(
            "text".to_owned(),
            FieldSpec::Text {
                analyzer: AnalyzerSpec::default(),
            },
        )]),
        dynamic: true,
        shards,
        chunking: crate::schema::Chunking::default(),
        durability: None,
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
    /// Few terms and few weights, some negative: products are equal often, and often negative.
    fn sparse(&mut self) -> SparseVector {
        let terms: BTreeMap<u32, f32> = (0..self.below(6))
            .map(|_| {
                (
                    self.below(12) as u32 * 1_000,
                    [-1.0, 0.5, 1.0, 2.5][self.below(4) as usize],
                )
            })
            .collect();
        SparseVector {
            indices: terms.keys().copied().collect(),
            values: terms.into_values().collect(),
        }
    }
    fn point(&mut self, id: String, version: u64) -> PointInput {
        let words = ["alpha", "beta", "gamma", "delta", "running", "cluster"];
        let text: Vec<&str> = (0..1 + self.below(5)).map(|_| words[self.below(6) as usize]).collect();
        let mut vectors = Vectors::new();
        if self.below(20) > 0 {
            vectors.insert("dense".into(), self.vector());
        }
        let mut sparse = SparseVectors::new();
        if self.below(5) > 0 {
            sparse.insert("learned".into(), self.sparse());
        }
        let payload =
            json!({"text": text.join(" "), "n": self.below(10), "version": version, "x": 0.1 + version as f64});
        PointInput {
            id: PointId::new(id).unwrap(),
            vectors,
            sparse,
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

pub(super) fn ids(ids: &[String]) -> Vec<PointId> {
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
        assert_eq!(got.sparse.as_ref(), Some(&expected.sparse), "{id}");
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
            .chunks("c", &id, With::default(), Patience::endless())
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
    check_sparse(engine, model, rng);
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
        patience: Patience::default(),
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

/// With and without a filter, through postings and row by row: exactly what the definition gives, ties by id.
fn check_sparse(engine: &Engine, model: &Model, rng: &mut Rng) {
    let (vector, value) = (rng.sparse(), rng.below(10));
    let product = |row: &SparseVector| {
        let mut products = Vec::new();
        for (index, weight) in row.indices.iter().zip(&row.values) {
            if let Ok(i) = vector.indices.binary_search(index) {
                products.push(weight * vector.values[i]);
            }
        }
        (!products.is_empty()).then(|| products.iter().sum::<f32>())
    };
    let filters = [
        Filter::default(),
        Filter::must(Condition::Any {
            field: "n".into(),
            values: vec![Scalar::Int(value as i64)],
        }),
    ];
    for (filtered, filter) in filters.into_iter().enumerate() {
        let mut expected: Vec<(f32, String)> = model
            .points
            .iter()
            .filter(|(_, p)| filtered == 0 || p.payload["n"] == json!(value))
            .filter_map(|(id, p)| Some((product(p.sparse.get("learned")?)?, id.clone())))
            .collect();
        // Sums of these weights are exact; 0 and -0 are one.
        expected.iter_mut().for_each(|(raw, _)| *raw += 0.0);
        expected.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
        for (k, exact) in [(7, false), (7, true), (1_000, false)] {
            let source = Source::Sparse {
                using: None,
                vector: vector.clone(),
            };
            let mut ask = query(source, filter.clone(), k);
            ask.params.exact = exact;
            let hits = engine.query("c", &ask).unwrap().hits;
            let got: Vec<(f32, String)> = hits
                .iter()
                .map(|h| (h.legs[0].raw + 0.0, h.point.id.to_string()))
                .collect();
            assert_eq!(
                got,
                expected[..expected.len().min(k)],
                "k={k} exact={exact} filtered={filtered}"
            );
            assert!(hits.iter().all(|h| (0.0..=1.0).contains(&h.score)));
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
pub(super) fn crash_image(dir: &Path, to: &Path) {
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
        if rng.below(40) == 0 {
            engine.optimize("c", &|| false, &mut |_| {}).unwrap();
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
                                using: None,
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
                    assert!(applied.token > last, "tokens ascend for each writer");
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

#[test]
fn a_directory_is_open_once_and_damage_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(dir.path(), small(), components()).unwrap();
    assert_eq!(
        Engine::open(dir.path(), small(), components()).unwrap_err().code,
        "directory_locked"
    );
    engine.create_collection("c", schema(1)).unwrap();
    let points = (0..100).map(|i| simple_point(&format!("p{i}"), i)).collect();
    engine.upsert("c", points, &WriteOptions::default()).unwrap();
    while engine.maintain(&|| false).unwrap() == Maintained::Worked {}
    drop(engine);
    let mut files = Vec::new();
    let mut walk = vec![dir.path().join("segments")];
    while let Some(next) = walk.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk.push(path)
            } else {
                files.push(path)
            }
        }
    }
    let mut bytes = std::fs::read(&files[0]).unwrap();
    bytes[1_000] ^= 1;
    std::fs::write(&files[0], bytes).unwrap();
    let error = Engine::open(dir.path(), small(), components()).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Damaged);
    assert!(
        error.message.contains("block 0") && error.message.contains(".seg"),
        "{error}"
    );
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
            using: None,
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
            using: None,
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
            using: None,
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

#[test]
fn a_panic_of_a_build_stops_the_engine_as_any_failure_of_one_does() {
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
    assert_eq!(engine.check_alive().unwrap_err().code, "engine_stopped");
    drop(engine);
    let engine = Engine::open(dir.path(), small(), self::components()).unwrap();
    engine.optimize("c", &|| false, &mut |_| {}).unwrap();
    let info = engine.collection("c").unwrap();
    assert_eq!((info.segments, info.points), (1, 200));
}
