//! What should be there: plain maps that change as the engine should, random writes, and the comparison of the two by every
//! way to read. For the model tests and the simulation.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use serde_json::json;

use super::*;
use crate::filter::{Condition, Range, Scalar};
use crate::query::{Fuse, Input, Params, Source};
use crate::schema::{AnalyzerSpec, FieldSpec, IndexSpec, Metric, SparseSpec, VectorSpec};
use crate::storage::faulty::Chance;
use crate::types::{SparseVector, SparseVectors, Vectors};

pub(super) const DIM: usize = 8;

/// Dimensions of the vectors of zeros and ones: few, so that distances tie all the time.
const BITS: usize = 16;

pub(super) fn schema(shards: u32) -> Schema {
    // Both kinds of index go through everything.
    let spec = |dim: usize, metric, by_graph| VectorSpec {
        dim: dim as u32,
        metric,
        index: match by_graph {
            true => IndexSpec::Hnsw {
                m: 8,
                ef_construction: 32,
            },
            false => IndexSpec::Ivf { nlist: None },
        },
        quantization: Default::default(),
        embedder: None,
    };
    Schema {
        vectors: BTreeMap::from([
            ("dense".to_owned(), spec(DIM, Metric::Cosine, shards == 1)),
            ("bits".to_owned(), spec(BITS, Metric::Hamming, shards > 1)),
        ]),
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

fn vector(chance: &mut Chance) -> Vec<f32> {
    (0..DIM)
        .map(|_| chance.below(2_000) as f32 / 1_000.0 - 0.9995)
        .collect()
}

fn bits(chance: &mut Chance) -> Vec<f32> {
    (0..BITS).map(|_| chance.below(2) as f32).collect()
}

/// Few terms and few weights, some negative: products are equal often, and often negative.
fn sparse(chance: &mut Chance) -> SparseVector {
    let terms: BTreeMap<u32, f32> = (0..chance.below(6))
        .map(|_| {
            (
                chance.below(12) as u32 * 1_000,
                [-1.0, 0.5, 1.0, 2.5][chance.below(4) as usize],
            )
        })
        .collect();
    SparseVector {
        indices: terms.keys().copied().collect(),
        values: terms.into_values().collect(),
    }
}

fn point(chance: &mut Chance, id: String, version: u64) -> PointInput {
    let words = ["alpha", "beta", "gamma", "delta", "running", "cluster"];
    let text: Vec<&str> = (0..1 + chance.below(5))
        .map(|_| words[chance.below(6) as usize])
        .collect();
    let mut vectors = Vectors::new();
    if chance.below(20) > 0 {
        vectors.insert("dense".into(), vector(chance));
    }
    if chance.below(10) > 0 {
        vectors.insert("bits".into(), bits(chance));
    }
    let mut sparse_vectors = SparseVectors::new();
    if chance.below(5) > 0 {
        sparse_vectors.insert("learned".into(), sparse(chance));
    }
    let payload = json!({"text": text.join(" "), "n": chance.below(10), "version": version, "x": 0.1 + version as f64});
    PointInput {
        id: PointId::new(id).unwrap(),
        vectors,
        sparse: sparse_vectors,
        payload: payload.as_object().unwrap().clone(),
        document: None,
        expires_at_ms: None,
    }
}

pub(super) fn ids(ids: &[String]) -> Vec<PointId> {
    ids.iter().map(|id| PointId::new(id.as_str()).unwrap()).collect()
}

/// How many ids there are to choose from, and how much one write holds.
#[derive(Clone, Copy)]
pub(super) struct Space {
    pub(super) points: u64,
    pub(super) documents: u64,
    pub(super) batch: u64,
}

/// A collection as it should be.
#[derive(Default, Clone, PartialEq)]
pub(super) struct Model {
    pub(super) points: BTreeMap<String, PointInput>,
    /// With the number of chunks that each was stored with.
    pub(super) documents: BTreeMap<String, usize>,
}

/// A write to a collection.
#[derive(Clone)]
pub(super) enum Write {
    Upsert(Vec<PointInput>),
    Delete(Vec<String>),
    /// Those with this `n` that are older than this version.
    DeleteMatching(u64, f64),
    /// Takes `x` away and sets `touched`.
    SetPayload(Vec<String>, u64),
    PutDocument(DocumentInput),
    DeleteDocument(String),
}

impl Write {
    /// The n-th write of a run.
    pub(super) fn random(chance: &mut Chance, space: Space, n: u64) -> Self {
        let some = |chance: &mut Chance| -> Vec<String> {
            (0..1 + chance.below(10))
                .map(|_| format!("p{}", chance.below(space.points)))
                .collect()
        };
        match chance.below(12) {
            0..=4 => {
                let names: Vec<String> = (0..1 + chance.below(space.batch))
                    .map(|_| format!("p{}", chance.below(space.points)))
                    .collect();
                Self::Upsert(names.into_iter().map(|id| point(chance, id, n)).collect())
            }
            // A chunk, as a point: its document is not whole afterwards.
            5 if chance.below(2) == 0 => Self::Delete(vec![format!("d{}#1", chance.below(space.documents))]),
            5 => Self::Delete(some(chance)),
            6 => Self::DeleteMatching(chance.below(10), n as f64 / 2.0),
            7 => Self::SetPayload(some(chance), n),
            8..=10 => {
                // Sometimes what may be there already.
                let version = if chance.below(3) == 0 { 0 } else { n };
                Self::PutDocument(document(format!("d{}", chance.below(space.documents)), version))
            }
            _ => Self::DeleteDocument(format!("d{}", chance.below(space.documents))),
        }
    }

    /// Changes the model. How many points that is, where the engine says exactly this.
    pub(super) fn apply(&self, model: &mut Model) -> Option<u64> {
        let before = model.points.len();
        match self {
            Self::Upsert(points) => {
                let put = points.iter().map(|p| (p.id.to_string(), p.clone()));
                model.points.extend(put);
                return Some(points.len() as u64);
            }
            Self::Delete(ids) => ids.iter().for_each(|id| drop(model.points.remove(id))),
            Self::DeleteMatching(n, version) => model
                .points
                .retain(|_, p| p.payload["n"] != json!(n) || p.payload["version"].as_f64().unwrap() >= *version),
            Self::SetPayload(ids, n) => {
                for id in ids {
                    if let Some(p) = model.points.get_mut(id) {
                        p.payload.remove("x");
                        p.payload.insert("touched".into(), json!(n));
                    }
                }
                return None;
            }
            Self::PutDocument(document) => {
                let name = document.id.to_string();
                model.points.retain(|_, p| p.document.as_ref() != Some(&document.id));
                for chunk in &document.chunks {
                    let document = Some(document.id.clone());
                    let point = PointInput {
                        document,
                        ..chunk.point.clone()
                    };
                    model.points.insert(point.id.to_string(), point);
                }
                model.documents.insert(name, document.chunks.len());
                return None;
            }
            Self::DeleteDocument(name) => {
                let id = PointId::new(name.as_str()).unwrap();
                model.points.retain(|_, p| p.document.as_ref() != Some(&id));
                model.documents.remove(name);
            }
        }
        Some((before - model.points.len()) as u64)
    }

    /// Asks the engine to do it.
    pub(super) fn run(&self, engine: &Engine, collection: &str, options: &WriteOptions) -> Result<Applied> {
        match self.clone() {
            Self::Upsert(points) => engine.upsert(collection, points, options),
            Self::Delete(gone) => engine.delete(collection, Selector::Ids(ids(&gone)), options),
            Self::DeleteMatching(n, version) => {
                engine.delete(collection, Selector::Matching(older(n, version)), options)
            }
            Self::SetPayload(some, n) => {
                let change = PayloadChange {
                    set: json!({"touched": n}).as_object().unwrap().clone(),
                    unset: vec!["x".into()],
                    replace: false,
                };
                engine.set_payload(collection, ids(&some), change, options)
            }
            Self::PutDocument(document) => engine.put_document(collection, document, options),
            Self::DeleteDocument(name) => engine.delete_documents(collection, ids(&[name]), options),
        }
    }

    /// The operation that it is in the log.
    pub(super) fn op(&self, collection: &Collection) -> Op {
        let (no, schema) = (collection.no, &collection.schema);
        match self.clone() {
            Self::Upsert(points) => Op::Upsert {
                no,
                points: points.into_iter().map(|p| check::record(schema, p).unwrap()).collect(),
            },
            Self::Delete(gone) => Op::Delete { no, ids: ids(&gone) },
            Self::DeleteMatching(n, version) => Op::DeleteMatching {
                no,
                filter: older(n, version),
            },
            Self::SetPayload(some, n) => Op::SetPayload {
                no,
                ids: ids(&some),
                set: json!({"touched": n}).to_string(),
                unset: vec!["x".into()],
                replace: false,
            },
            Self::PutDocument(document) => {
                let (document, chunks) = check::document(schema, document).unwrap();
                Op::PutDocument { no, document, chunks }
            }
            Self::DeleteDocument(name) => Op::DeleteDocuments { no, ids: ids(&[name]) },
        }
    }
}

impl fmt::Debug for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Upsert(points) => {
                let names: Vec<&str> = points.iter().map(|p| p.id.as_str()).collect();
                write!(f, "upsert {} of {}", names.join(" "), points[0].payload["version"])
            }
            Self::Delete(ids) => write!(f, "delete {}", ids.join(" ")),
            Self::DeleteMatching(n, version) => write!(f, "delete n = {n} before {version}"),
            Self::SetPayload(ids, n) => write!(f, "set payload {n} of {}", ids.join(" ")),
            Self::PutDocument(document) => {
                let (id, chunks) = (document.id.as_str(), document.chunks.len());
                write!(f, "put {id} with {chunks} chunks of {:?}", document.checksum[0])
            }
            Self::DeleteDocument(name) => write!(f, "delete document {name}"),
        }
    }
}

fn older(n: u64, version: f64) -> Filter {
    Filter {
        must_not: vec![Condition::Range {
            field: "version".into(),
            range: Range {
                gte: Some(version),
                ..Range::default()
            },
        }],
        ..Filter::must(Condition::Any {
            field: "n".into(),
            values: vec![Scalar::Int(n as i64)],
        })
    }
}

/// A version of a document, the same each time it is asked for.
fn document(name: String, version: u64) -> DocumentInput {
    let mut chance = Chance::new(version ^ xxhash_rust::xxh3::xxh3_64(name.as_bytes()));
    let count = chance.below(12);
    let mut checksum = [0; 16];
    checksum[..8].copy_from_slice(&version.to_le_bytes());
    DocumentInput {
        title: "t".into(),
        source: "s".into(),
        metadata: Payload::new(),
        checksum,
        text_bytes: 1,
        chunks: (0..count)
            .map(|i| ChunkInput {
                checksum: [i as u8; 16],
                point: point(&mut chance, format!("{name}#{i}"), version),
            })
            .collect(),
        id: PointId::new(name).unwrap(),
    }
}

/// By every way to read.
pub(super) fn check(engine: &Engine, name: &str, model: &Model, chance: &mut Chance) {
    check_points(engine, name, model, chance);
    check_nearest(engine, name, model, chance);
    check_bits(engine, name, model, chance);
    check_sparse(engine, name, model, chance);
    check_text(engine, name, model);
}

/// Every point with its exact bytes and no other, the counts, and the documents.
pub(super) fn check_points(engine: &Engine, name: &str, model: &Model, chance: &mut Chance) {
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
        let page = engine.scroll(name, &scroll).unwrap();
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
    let info = engine.collection(name).unwrap();
    assert_eq!(info.points, model.points.len() as u64);
    assert_eq!(info.documents, model.documents.len() as u64);
    assert_eq!(
        engine.count(name, &Filter::default()).unwrap(),
        model.points.len() as u64
    );
    // By id, in the order asked.
    let asked: Vec<String> = (0..20)
        .map(|_| format!("p{}", chance.below(300)))
        .collect::<BTreeSet<_>>()
        .into_iter()
        .rev()
        .collect();
    let got: Vec<String> = engine
        .get(name, &ids(&asked), With::default())
        .unwrap()
        .iter()
        .map(|p| p.id.to_string())
        .collect();
    let expected: Vec<String> = asked.into_iter().filter(|id| model.points.contains_key(id)).collect();
    assert_eq!(got, expected);
    // Documents and their chunks.
    for (document, chunks) in &model.documents {
        let id = PointId::new(document.as_str()).unwrap();
        assert_eq!(engine.document(name, &id).unwrap().unwrap().chunks, *chunks as u64);
        let got: BTreeSet<String> = engine
            .chunks(name, &id, With::default(), Patience::endless())
            .unwrap()
            .iter()
            .map(|p| p.id.to_string())
            .collect();
        // Chunks can also be deleted one by one, as points.
        let chunks = model.points.iter().filter(|(_, p)| p.document.as_ref() == Some(&id));
        assert_eq!(got, chunks.map(|(id, _)| id.clone()).collect());
    }
}

pub(super) fn query(source: Source, filter: Filter, limit: usize) -> Query {
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
pub(super) fn check_nearest(engine: &Engine, name: &str, model: &Model, chance: &mut Chance) {
    let vector = vector(chance);
    let value = chance.below(10);
    let filters = [
        Filter::default(),
        Filter::must(Condition::Any {
            field: "n".into(),
            values: vec![Scalar::Int(value as i64)],
        }),
    ];
    // Graphs of so few rows find nearly everything; lists are measured to find so much on average.
    let missed = match engine.collection(name).unwrap().schema.shards {
        1 => 2,
        _ => 4,
    };
    let mut asked = Vec::new();
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
                using: Some("dense".into()),
                vector: vector.clone(),
            };
            let mut ask = query(source, filter.clone(), 10);
            ask.params.exact = exact;
            let answer = engine.query(name, &ask).unwrap();
            let hits = answer.hits.clone();
            asked.push((ask, answer));
            assert_eq!(hits.len(), expected.len().min(10), "never fewer than k when k match");
            let found = hits
                .iter()
                .filter(|h| f64::from(h.legs[0].raw) >= expected[hits.len() - 1].0 - 1e-5)
                .count();
            let wanted = if exact {
                hits.len()
            } else {
                hits.len().saturating_sub(missed)
            };
            assert!(found >= wanted, "exact={exact} {found} of {}", hits.len());
            for pair in hits.windows(2) {
                assert!(pair[0].score >= pair[1].score);
            }
        }
    }
    // All of them and some more at once are answered as each alone.
    for (k, other) in [(3, vector.clone()), (40, vec![0.5; DIM]), (10, vec![-1.0; DIM])] {
        let source = Source::Nearest {
            using: Some("dense".into()),
            vector: other,
        };
        let mut ask = query(source, asked[k % 2].0.filter.clone(), k);
        ask.params.exact = k == 10;
        let alone = engine.query(name, &ask).unwrap();
        asked.push((ask, alone));
    }
    let queries: Vec<&Query> = asked.iter().map(|(ask, _)| ask).collect();
    let moment = engine.moment(name, None, Patience::default()).unwrap();
    let moment = moment.announce(&queries);
    for (ask, alone) in &asked {
        let together = moment.query(ask).unwrap();
        assert_eq!(together.hits, alone.hits, "asked together with others: {ask:?}");
    }
}

/// Exactly the definition when exact, ties by id; by the index as many, and nearly all as near.
fn check_bits(engine: &Engine, name: &str, model: &Model, chance: &mut Chance) {
    let vector = bits(chance);
    let differing = |v: &[f32]| v.iter().zip(&vector).filter(|(a, b)| a != b).count() as f32;
    let of_point = |(id, p): (&String, &PointInput)| Some((differing(p.vectors.get("bits")?), id.clone()));
    let mut expected: Vec<(f32, String)> = model.points.iter().filter_map(of_point).collect();
    expected.sort_by(|a, b| a.0.total_cmp(&b.0).then_with(|| a.1.cmp(&b.1)));
    expected.truncate(10);
    for exact in [true, false] {
        let source = Source::Nearest {
            using: Some("bits".into()),
            vector: vector.clone(),
        };
        let mut ask = query(source, Filter::default(), 10);
        ask.params.exact = exact;
        let hits = engine.query(name, &ask).unwrap().hits;
        let got = hits.iter().map(|h| (h.legs[0].raw, h.point.id.to_string()));
        let got: Vec<(f32, String)> = got.collect();
        if exact {
            assert_eq!(got, expected);
            continue;
        }
        assert_eq!(got.len(), expected.len(), "never fewer than k when k match");
        let edge = expected.last().map_or(0.0, |last| last.0);
        let found = got.iter().filter(|hit| hit.0 <= edge).count();
        assert!(found + 4 >= got.len(), "{found} of {}", got.len());
        for hit in &hits {
            let score = 1.0 - hit.legs[0].raw / BITS as f32;
            assert!((hit.score - score).abs() < 1e-6);
        }
    }
}

/// With and without a filter, through postings and row by row: exactly what the definition gives, ties by id.
pub(super) fn check_sparse(engine: &Engine, name: &str, model: &Model, chance: &mut Chance) {
    let (vector, value) = (sparse(chance), chance.below(10));
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
            let hits = engine.query(name, &ask).unwrap().hits;
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

fn check_text(engine: &Engine, name: &str, model: &Model) {
    let source = Source::Text {
        query: "runs".into(),
        fields: vec![],
    };
    let hits = engine
        .query(name, &query(source.clone(), Filter::default(), 1_000))
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
                    using: Some("dense".into()),
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
    for hit in engine.query(name, &query(both, Filter::default(), 20)).unwrap().hits {
        assert!((0.0..=1.0).contains(&hit.score) && !hit.legs.is_empty());
    }
}

/// The files below a directory.
fn names(of: &Path) -> std::io::Result<BTreeSet<std::path::PathBuf>> {
    let mut all = BTreeSet::new();
    for entry in std::fs::read_dir(of)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => all.extend(names(&entry.path())?),
            false => drop(all.insert(entry.path())),
        }
    }
    Ok(all)
}

/// Copies a directory; fails if a file vanished on the way. Tables never change: a second name will do.
fn copy_dir(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let (path, copy) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            copy_dir(&path, &copy)?;
        } else if path.extension().is_none_or(|e| e != "sst") || std::fs::hard_link(&path, &copy).is_err() {
            std::fs::copy(&path, &copy)?;
        }
    }
    Ok(())
}

/// What a crash now would leave. RocksDB compacts in the background: a copy during which files came or went is not one
/// moment and is made again.
pub(super) fn crash_image(dir: &Path, to: &Path) {
    for _ in 0..50 {
        let (before, copied, after) = (names(dir), copy_dir(dir, to), names(dir));
        if let (Ok(before), Ok(()), Ok(after)) = (before, copied, after)
            && before == after
        {
            return;
        }
        std::fs::remove_dir_all(to).unwrap();
    }
    panic!("the data directory did not hold still");
}
