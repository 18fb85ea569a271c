//! Filtered search at every share of matching rows, in this process: recall against the exact answer, hits that are missing,
//! latency, and what was chosen.
//!
//! A filter may have nothing to do with what is asked (`corr=0`: any rows), keep what is near the question (`corr=1`), or what
//! is far from it (`corr=-1`). For the latter two the rows are ranked by how near they are to some of the questions, the anchors;
//! a question is asked with the ranks of the anchor that is nearest to it. WordNet glosses (MiniLM, 384 dimensions) with SQuAD
//! questions, or made clusters where those are missing.
//!
//! Promised: as many hits as are wanted or match, whatever the filter; recall@10 of at least 0.95 with the default settings.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use cairn_engine::config::{Components, Settings};
use cairn_engine::engine::{Engine, WriteOptions};
use cairn_engine::filter::{Condition, Filter, Range};
use cairn_engine::query::{Params, Query, QueryResult, Source, With};
use cairn_engine::schema::{Chunking, Metric, Quantization, Schema, VectorSpec};
use cairn_engine::types::{PointId, PointInput};
use cairn_engine::vector::kernels;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use crate::ann::cases;
use crate::place::WallClock;
use crate::report::{Report, Table, Verdict};

/// Options of `cairn-bench filters`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Rows at most.
    #[arg(long, default_value_t = 1_000_000)]
    pub(crate) rows: usize,
    /// Questions of a case.
    #[arg(long, default_value_t = 200)]
    pub(crate) questions: usize,
    /// Shares of rows that match, in percent.
    #[arg(long, value_delimiter = ',', default_values_t = [100.0, 50.0, 10.0, 1.0, 0.1, 0.01, 0.001])]
    pub(crate) percent: Vec<f64>,
    /// `none`, `int8` or `int4`.
    #[arg(long, default_value = "int8")]
    pub(crate) quantization: String,
    /// Threads of the build.
    #[arg(long, default_value_t = 2)]
    pub(crate) threads: usize,
}

impl Args {
    pub(crate) fn short() -> Self {
        Self {
            rows: 20_000,
            questions: 50,
            percent: vec![100.0, 50.0, 10.0, 1.0, 0.1, 0.01, 0.001],
            quantization: "int8".to_owned(),
            threads: 2,
        }
    }
}

/// The collection.
pub(crate) const NAME: &str = "filters";
const K: usize = 10;
const ANCHORS: usize = 10;
const RECALL_MIN: f64 = 0.95;
/// Points of a write.
const BATCH: usize = 2_000;
/// Questions before those that are timed.
const WARM: usize = 20;

/// A question, and the field that has the ranks of its anchor.
struct Question {
    vector: Vec<f32>,
    anchor: String,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Verdict> {
    ensure!(
        args.questions > 0 && args.rows > 0,
        "questions and rows must be at least 1"
    );
    let mut report = Report::begin("filters")?;
    let (dim, mut base, asked) = match cases::wordnet()? {
        Ok((base, asked)) => (384, base, asked),
        Err(why) => {
            println!("\n******** made vectors instead of WordNet: {why} ********\n");
            let dim = 96;
            let all = cases::clustered(100_000 + 1_000, dim);
            let (base, asked) = cases::hold_out(&all, dim, 1_000);
            (dim, base, asked)
        }
    };
    base.truncate(args.rows.saturating_mul(dim));
    let rows: Vec<&[f32]> = base.chunks_exact(dim).collect();
    let asked: Vec<&[f32]> = asked.chunks_exact(dim).collect();
    let (anchors, questions) = questions(&asked, args.questions);
    let dir = tempfile::tempdir()?;
    let engine = build(args, dir.path(), &rows, &anchors, true)?;

    let mut table = Table::new([
        "case",
        "matches",
        "recall@10",
        "short",
        "p50 ms",
        "p99 ms",
        "exact p50 ms",
        "chosen",
    ]);
    let mut broken = Vec::new();
    for percent in &args.percent {
        let matches = ((rows.len() as f64 * percent / 100.0).round() as usize).clamp(1, rows.len());
        for correlation in [-1, 0, 1] {
            let case = format!("sel={}/corr={correlation}", percent / 100.0);
            let filter = |question: &Question| {
                let below = |field: &str| range(field, None, Some(matches));
                match correlation {
                    0 => below("any"),
                    1 => below(&question.anchor),
                    _ => range(&question.anchor, Some(rows.len() - matches), None),
                }
            };
            let measured = measure(&engine, &questions, filter, matches)?;
            table.row(vec![
                case.clone(),
                matches.to_string(),
                format!("{:.4}", measured.recall),
                measured.short.to_string(),
                format!("{:.3}", measured.ms(0.5)),
                format!("{:.3}", measured.ms(0.99)),
                format!("{:.3}", measured.exact_p50_ms),
                measured.chosen,
            ]);
            report.record(&case, "recall@10", measured.recall, "ratio")?;
            report.record(&case, "short", measured.short as f64, "questions")?;
            report.record(&case, "p50_ms", quantile(&measured.took, 0.5), "ms")?;
            report.record(&case, "p99_ms", quantile(&measured.took, 0.99), "ms")?;
            if measured.short > 0 {
                broken.push(format!("{case}: {} questions got too few hits", measured.short));
            }
            if measured.recall < RECALL_MIN {
                broken.push(format!(
                    "{case}: recall@10 {:.4} is below {RECALL_MIN}",
                    measured.recall
                ));
            }
        }
    }
    table.print();
    Ok(Verdict::of(broken))
}

/// Anchors spread over all questions, and for each of them the questions nearest to it.
fn questions(asked: &[&[f32]], count: usize) -> (Vec<Vec<f32>>, Vec<Question>) {
    let step = (asked.len() / ANCHORS).max(1);
    let anchors: Vec<Vec<f32>> = asked.iter().step_by(step).take(ANCHORS).map(|a| a.to_vec()).collect();
    let each = count.div_ceil(anchors.len().max(1));
    let mut questions = Vec::new();
    for (number, anchor) in anchors.iter().enumerate() {
        let mut near: Vec<&&[f32]> = asked.iter().collect();
        near.sort_by(|a, b| cosine(b, anchor).total_cmp(&cosine(a, anchor)));
        questions.extend(near.into_iter().take(each).map(|vector| Question {
            vector: vector.to_vec(),
            anchor: anchor_field(number),
        }));
    }
    questions.truncate(count);
    (anchors, questions)
}

fn anchor_field(number: usize) -> String {
    format!("anchor{number}")
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    kernels::dot(a, b) * cairn_engine::vector::inv_norm(a) * cairn_engine::vector::inv_norm(b)
}

/// One collection, all rows in one segment if the settings allow it; or, not sealed, in memory as they came.
pub(crate) fn build(
    args: &Args,
    dir: &std::path::Path,
    rows: &[&[f32]],
    anchors: &[Vec<f32>],
    sealed: bool,
) -> anyhow::Result<Engine> {
    let quantization = match args.quantization.as_str() {
        "none" => Quantization::None,
        "int8" => Quantization::Int8,
        "int4" => Quantization::Int4,
        other => anyhow::bail!("no quantization {other:?}"),
    };
    let mut fields: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (number, anchor) in anchors.iter().enumerate() {
        let near: Vec<f32> = rows.iter().map(|row| cosine(row, anchor)).collect();
        let mut order: Vec<usize> = (0..rows.len()).collect();
        order.sort_by(|a, b| near[*b].total_cmp(&near[*a]).then(a.cmp(b)));
        let mut ranks = vec![0; rows.len()];
        order.iter().enumerate().for_each(|(rank, row)| ranks[*row] = rank);
        fields.insert(anchor_field(number), ranks);
    }
    let mut any: Vec<usize> = (0..rows.len()).collect();
    any.shuffle(&mut StdRng::seed_from_u64(1));
    fields.insert("any".to_owned(), any);

    let components = Components {
        clock: Arc::new(WallClock),
        workers: crate::ann::ours::helpers(args.threads),
        files: Arc::new(cairn_engine::storage::LocalDir),
    };
    let defaults = Settings::default();
    let settings = match sealed {
        true => defaults,
        false => Settings {
            seal_rows: rows.len() + 1,
            seal_bytes: usize::MAX,
            ..defaults
        },
    };
    let engine = Engine::open(dir, settings, components)?;
    let spec = VectorSpec {
        dim: u32::try_from(rows.first().context("no rows")?.len())?,
        metric: Metric::Cosine,
        index: Default::default(),
        quantization,
        embedder: None,
    };
    let schema = Schema {
        vectors: BTreeMap::from([("v".to_owned(), spec)]),
        sparse: BTreeMap::new(),
        fields: BTreeMap::new(),
        dynamic: true,
        shards: 1,
        chunking: Chunking::default(),
        durability: None,
    };
    engine.create_collection(NAME, schema)?;
    let started = Instant::now();
    for from in (0..rows.len()).step_by(BATCH) {
        let points = (from..rows.len().min(from + BATCH)).map(|row| -> anyhow::Result<PointInput> {
            let payload = fields.iter().map(|(field, ranks)| (field.clone(), ranks[row].into()));
            Ok(PointInput {
                id: PointId::new(format!("{row:07}"))?,
                vectors: [("v".to_owned(), rows[row].to_vec())].into_iter().collect(),
                sparse: Default::default(),
                payload: payload.collect(),
                document: None,
                expires_at_ms: None,
            })
        });
        engine.upsert(NAME, points.collect::<anyhow::Result<_>>()?, &WriteOptions::default())?;
    }
    if sealed {
        engine.optimize(NAME, &|| false, &mut |_| ())?;
    }
    let info = engine.collection(NAME)?;
    println!(
        "{} rows in {} segments, ready after {:.1} s",
        info.points,
        info.segments,
        started.elapsed().as_secs_f64()
    );
    Ok(engine)
}

pub(crate) fn range(field: &str, from: Option<usize>, below: Option<usize>) -> Filter {
    Filter::must(Condition::Range {
        field: field.to_owned(),
        range: Range {
            gte: from.map(|n| n as f64),
            lt: below.map(|n| n as f64),
            ..Range::default()
        },
    })
}

struct Measured {
    recall: f64,
    short: usize,
    /// Milliseconds, ascending.
    took: Vec<f64>,
    exact_p50_ms: f64,
    chosen: String,
}

impl Measured {
    fn ms(&self, q: f64) -> f64 {
        quantile(&self.took, q)
    }
}

fn quantile(ascending: &[f64], q: f64) -> f64 {
    let last = ascending.len().saturating_sub(1);
    ascending
        .get((last as f64 * q).round() as usize)
        .copied()
        .unwrap_or(0.0)
}

fn measure(
    engine: &Engine,
    questions: &[Question],
    filter: impl Fn(&Question) -> Filter,
    matches: usize,
) -> anyhow::Result<Measured> {
    let ask = |question: &Question, exact: bool| -> anyhow::Result<(QueryResult, Duration)> {
        let query = Query {
            source: Source::Nearest {
                using: None,
                vector: question.vector.clone(),
            },
            filter: filter(question),
            limit: K,
            offset: 0,
            score_threshold: None,
            with: With {
                explain: true,
                ..With::default()
            },
            params: Params {
                exact,
                ..Params::default()
            },
            after: None,
            patience: Default::default(),
        };
        let started = Instant::now();
        let answer = engine.query(NAME, &query)?;
        Ok((answer, started.elapsed()))
    };
    for question in questions.iter().take(WARM) {
        ask(question, false)?;
    }
    let (mut found, mut wanted, mut short) = (0, 0, 0);
    let (mut took, mut exact_took) = (Vec::new(), Vec::new());
    let mut chosen: BTreeMap<&str, usize> = BTreeMap::new();
    for question in questions {
        let (answer, time) = ask(question, false)?;
        took.push(time.as_secs_f64() * 1e3);
        let (truth, time) = ask(question, true)?;
        exact_took.push(time.as_secs_f64() * 1e3);
        let raw = |hit: &cairn_engine::query::Hit| hit.legs.first().map_or(f32::NEG_INFINITY, |leg| leg.raw);
        // By cosine: which of equally near rows is answered does not matter.
        let edge = truth.hits.last().map_or(f32::INFINITY, raw) - 1e-6;
        found += answer.hits.iter().filter(|hit| raw(hit) >= edge).count();
        wanted += truth.hits.len();
        ensure!(truth.hits.len() == K.min(matches), "the exact answer is short itself");
        short += usize::from(answer.hits.len() < K.min(matches));
        for leg in answer.explain.iter().flat_map(|explain| &explain.legs) {
            *chosen.entry(leg.strategy).or_default() += 1;
        }
    }
    took.sort_by(f64::total_cmp);
    exact_took.sort_by(f64::total_cmp);
    let chosen: Vec<String> = chosen
        .iter()
        .map(|(strategy, times)| format!("{strategy} {times}"))
        .collect();
    Ok(Measured {
        recall: f64::from(u32::try_from(found)?) / f64::from(u32::try_from(wanted.max(1))?),
        short,
        took,
        exact_p50_ms: quantile(&exact_took, 0.5),
        chosen: chosen.join(", "),
    })
}
