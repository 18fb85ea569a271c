//! What a filter does to a search: nothing to its recall and nothing to the number of its hits, whatever share of the rows it
//! keeps and wherever those are.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::*;
use crate::config::Workers;
use crate::filter::{Condition, Filter, Range};
use crate::patience::Patience;
use crate::schema::{IndexSpec, Metric, Quantization, Schema, VectorSpec};
use crate::segment::{Graphs, Kept, PendingRow, SealedView, SegmentView, Spec, seal, write_memory};
use crate::storage::{Dir, LocalDir};
use crate::types::{PointId, Row, Seq};
use crate::vector::floats::Owned;
use crate::vector::{Floats, QueryScorer, VectorsRef, inv_norm};

/// SplitMix64 (Steele, Lea & Flood 2014): a seed is a run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    /// Nearly normal.
    fn vector(&mut self) -> Vec<f32> {
        let mut even = || (self.next() >> 40) as f32 / (1u64 << 24) as f32;
        (0..DIM).map(|_| even() + even() + even() + even() - 2.0).collect()
    }
    fn near(&mut self, place: &[f32], spread: f32) -> Vec<f32> {
        let noise = self.vector();
        place.iter().zip(noise).map(|(x, noise)| x + spread * noise).collect()
    }
}

/// 1 where a number is above another.
fn above(row: &[f32], edge: f32) -> Vec<f32> {
    row.iter().map(|x| f32::from(u8::from(*x > edge))).collect()
}

const DIM: usize = 24;
const ROWS: usize = 10_000;
const K: usize = 10;

const LISTS: IndexSpec = IndexSpec::Ivf { nlist: None };

fn schema(metric: Metric, quantization: Quantization, index: IndexSpec) -> Schema {
    let spec = VectorSpec {
        dim: DIM as u32,
        metric,
        index,
        quantization,
        embedder: None,
    };
    Schema {
        vectors: BTreeMap::from([("v".to_owned(), spec)]),
        sparse: BTreeMap::new(),
        fields: BTreeMap::new(),
        dynamic: true,
        shards: 1,
        chunking: Default::default(),
        durability: None,
    }
}

/// One sealed segment with a graph or lists, of which every eleventh row is dead.
struct Moment {
    schema: Schema,
    view: View,
    vectors: Vec<f32>,
    norms: Vec<f32>,
    /// How near each row is to the place that is asked about, and a number that has nothing to do with it: from 0.
    near: Vec<usize>,
    any: Vec<usize>,
    _dir: tempfile::TempDir,
}

fn is_dead(row: usize) -> bool {
    row % 11 == 5
}

impl Moment {
    fn new(schema: Schema, vectors: &[Vec<f32>], place: &[f32]) -> Self {
        let metric = schema.vectors["v"].metric;
        let data = vectors.concat();
        let norms: Vec<f32> = match metric {
            Metric::Cosine => vectors.iter().map(|row| inv_norm(row)).collect(),
            _ => Vec::new(),
        };
        let ranks = |key: &dyn Fn(usize) -> f32| {
            let mut order: Vec<usize> = (0..vectors.len()).collect();
            order.sort_by(|a, b| key(*a).total_cmp(&key(*b)));
            let mut ranks = vec![0; order.len()];
            order.iter().enumerate().for_each(|(rank, row)| ranks[*row] = rank);
            ranks
        };
        let all = vectors_of(metric, &data, &norms);
        let scorer = all.scorer(place);
        let near = ranks(&|row| scorer.distance(row as u32));
        let any = ranks(&|row| Random(row as u64).vector()[0]);
        let rows: Vec<PendingRow> = vectors
            .iter()
            .enumerate()
            .map(|(i, vector)| PendingRow {
                row: Row(i as u64),
                birth: Seq(1),
                id: PointId::new(i.to_string()).unwrap(),
                document: None,
                expires_at_ms: 0,
                acl: Vec::new(),
                vectors: vec![Some(Owned::new(metric, vector.into()))],
                sparse: Vec::new(),
                payload: format!(r#"{{"near":{},"any":{}}}"#, near[i], any[i]),
                inline: false,
                dead: false,
            })
            .collect();
        let analyzers = BTreeMap::new();
        let spec = Spec {
            schema: &schema,
            analyzers: &analyzers,
        };
        let growing = SegmentView::fresh(Arc::new(write_memory(&spec, &rows).unwrap()));
        let dir = tempfile::tempdir().unwrap();
        let graphs = Graphs {
            rows_min: 1,
            with_packs: vectors.len() < 1_000,
            workers: &Workers::alone(),
            stop: &|| false,
        };
        let disk: Arc<dyn Dir> = Arc::new(LocalDir);
        let (kept, path) = (Kept::live(&growing), dir.path().join("1.seg"));
        let sealed = seal(&spec, &[kept], &disk, &path, 1, &graphs).unwrap();
        let mut sealed = SealedView::fresh(Arc::new(sealed));
        for row in (0..vectors.len()).filter(|row| is_dead(*row)) {
            sealed.kill(Row(row as u64));
        }
        let sealed = sealed.with(sealed.file.segment(Patience::endless()).unwrap());
        let view = View {
            shards: vec![Arc::new(ShardView { segments: vec![sealed] })],
            ..View::default()
        };
        Self {
            schema,
            view,
            vectors: data,
            norms,
            near,
            any,
            _dir: dir,
        }
    }

    fn ask(&self, vector: &[f32], filter: &Filter, limit: usize) -> QueryResult {
        let analyzers = BTreeMap::new();
        let context = Context {
            view: &self.view,
            epochs: Arc::default(),
            schema: &self.schema,
            analyzers: &analyzers,
            now_ms: 0,
            patience: Patience::endless(),
            answer_bytes: Cell::new(0),
            ahead: None,
        };
        let query = Query {
            filter: filter.clone(),
            limit,
            ..nearest(vector.to_vec())
        };
        run(&context, &query).unwrap()
    }
}

fn vectors_of<'a>(metric: Metric, data: &'a [f32], norms: &'a [f32]) -> VectorsRef<'a> {
    VectorsRef {
        metric,
        dim: DIM,
        data: Floats::Singles(data),
        touch: None,
        inv_norms: norms,
        absent: None,
        codes: None,
        signs: None,
        packs: None,
    }
}

/// The distances of the nearest live matches, by looking at every row.
fn oracle(scorer: &QueryScorer<'_>, matches: &dyn Fn(usize) -> bool) -> Vec<f32> {
    let rows = (0..ROWS).filter(|row| !is_dead(*row) && matches(*row));
    let mut distances: Vec<f32> = rows.map(|row| scorer.distance(row as u32)).collect();
    distances.sort_by(f32::total_cmp);
    distances
}

#[test]
fn a_filter_never_costs_hits_and_hardly_recall_at_any_share_and_correlation() {
    let mut random = Random(41);
    let centres: Vec<Vec<f32>> = (0..100).map(|_| random.vector()).collect();
    let scattered: Vec<Vec<f32>> = (0..ROWS).map(|_| random.vector()).collect();
    let mut clustered =
        |spread| -> Vec<Vec<f32>> { (0..ROWS).map(|i| random.near(&centres[i / 100], spread)).collect() };
    let graph = IndexSpec::default();
    let bits = |rows: &[Vec<f32>]| -> Vec<Vec<f32>> { rows.iter().map(|row| above(row, 0.0)).collect() };
    let cases = [
        (Metric::Hamming, Quantization::Int8, &graph, bits(&scattered)),
        (Metric::Hamming, Quantization::Int8, &LISTS, bits(&clustered(0.3))),
        (Metric::Cosine, Quantization::Int8, &graph, scattered.clone()),
        (Metric::Euclid, Quantization::Int4, &graph, clustered(0.3)),
        // Narrower than a step of any code.
        (Metric::Euclid, Quantization::Int8, &graph, clustered(1e-4)),
        (Metric::Cosine, Quantization::Int8, &LISTS, scattered),
        (Metric::Euclid, Quantization::Int4, &LISTS, clustered(0.3)),
        (Metric::Euclid, Quantization::Int8, &LISTS, clustered(1e-4)),
        (Metric::Manhattan, Quantization::Int8, &LISTS, clustered(0.3)),
    ];
    let (mut wrong, mut chosen) = (Vec::new(), BTreeSet::new());
    for (metric, quantization, index, vectors) in cases {
        let place = vectors[4_711].clone();
        let moment = Moment::new(schema(metric, quantization, index.clone()), &vectors, &place);
        let queries = (0..25).map(|_| match (metric, random.near(&place, 0.3)) {
            (Metric::Hamming, query) => above(&query, 0.5),
            (_, query) => query,
        });
        let queries: Vec<Vec<f32>> = queries.collect();
        let all = vectors_of(metric, &moment.vectors, &moment.norms);
        for percent in [100.0, 50.0, 10.0, 1.0, 0.1, 0.01, 0.001] {
            let count = ((ROWS as f64 * percent / 100.0) as usize).max(1);
            for correlation in [-1, 0, 1] {
                let range = |field: &str, from: usize, below: usize| {
                    Filter::must(Condition::Range {
                        field: field.to_owned(),
                        range: Range {
                            gte: Some(from as f64),
                            lt: Some(below as f64),
                            ..Range::default()
                        },
                    })
                };
                let (filter, matches): (Filter, Box<dyn Fn(usize) -> bool>) = match correlation {
                    -1 => (
                        range("near", ROWS - count, ROWS),
                        Box::new(|row| moment.near[row] >= ROWS - count),
                    ),
                    0 => (range("any", 0, count), Box::new(|row| moment.any[row] < count)),
                    _ => (range("near", 0, count), Box::new(|row| moment.near[row] < count)),
                };
                let (mut found, mut wanted) = (0, 0);
                for query in &queries {
                    let scorer = all.scorer(query);
                    let expected = oracle(&scorer, &matches);
                    let result = moment.ask(query, &filter, K);
                    let rows: Vec<usize> = result
                        .hits
                        .iter()
                        .map(|hit| hit.point.id.as_str().parse().unwrap())
                        .collect();
                    let what = format!("{metric:?} {quantization:?} {index:?} {percent} % correlated {correlation}");
                    assert_eq!(rows.len(), expected.len().min(K), "{what}: hits");
                    assert_eq!(rows.iter().collect::<BTreeSet<_>>().len(), rows.len(), "{what}: twice");
                    assert!(
                        rows.iter().all(|row| !is_dead(*row) && matches(*row)),
                        "{what}: {rows:?}"
                    );
                    if let Some(edge) = expected.get(rows.len().wrapping_sub(1)) {
                        found += rows.iter().filter(|row| scorer.distance(**row as u32) <= *edge).count();
                    }
                    wanted += rows.len();
                    chosen.extend(result.explain.unwrap().legs.iter().map(|leg| leg.strategy));
                }
                if (found as f64) < 0.95 * wanted as f64 {
                    wrong.push(format!(
                        "{metric:?} {quantization:?} {index:?} {percent} % correlated {correlation}: {found} of {wanted}"
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "recall@10 below 0.95: {wrong:#?}");
    for strategy in ["exact", "codes", "graph", "lists"] {
        assert!(chosen.contains(strategy), "the test must reach {strategy}: {chosen:?}");
    }
}

fn nearest(vector: Vec<f32>) -> Query {
    Query {
        source: Source::Nearest { using: None, vector },
        filter: Filter::default(),
        limit: K,
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

#[test]
fn the_longest_vectors_that_are_taken_have_scores_that_are_numbers() {
    let mut random = Random(42);
    let mut long = || -> Vec<f32> {
        let vector = random.vector();
        let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
        vector.iter().map(|x| x / length * 0.999e18).collect()
    };
    let mut vectors: Vec<Vec<f32>> = (0..600).map(|_| long()).collect();
    let query = long();
    // As far from it and as near to it as anything can be.
    vectors.push(query.iter().map(|x| -x).collect());
    vectors.push(query.clone());
    for metric in [Metric::Cosine, Metric::Dot, Metric::Euclid, Metric::Manhattan] {
        let kinds = [Quantization::None, Quantization::Int8, Quantization::Int4];
        for (quantization, index) in kinds
            .into_iter()
            .flat_map(|kind| [(kind, IndexSpec::default()), (kind, LISTS)])
        {
            let moment = Moment::new(schema(metric, quantization, index), &vectors, &query);
            let hits = moment.ask(&query, &Filter::default(), 1_000).hits;
            assert!(hits.len() > 500);
            let numbers = hits.iter().flat_map(|hit| [hit.score, hit.legs[0].raw]);
            assert!(numbers.into_iter().all(f32::is_finite), "{metric:?} {quantization:?}");
            assert_eq!(hits[0].point.id.as_str(), "601", "{metric:?} {quantization:?}");
        }
    }
    for (longer, code) in [
        (1.1e18, "vector_too_long"),
        (f32::MAX, "vector_too_long"),
        (f32::NAN, "not_finite"),
    ] {
        assert_eq!(nearest(vec![longer; 1]).check().unwrap_err().code, code);
    }
}
