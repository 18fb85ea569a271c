//! Filtered search at every share of matching rows, in this process: recall against the exact answer, hits that are missing,
//! latency, and what was chosen; and beside it qdrant-edge, which gets the same rows, questions and filters.
//!
//! A filter may have nothing to do with what is asked (`corr=0`: any rows), keep what is near the question (`corr=1`), or what
//! is far from it (`corr=-1`). For the latter two the rows are ranked by how near they are to some of the questions, the anchors;
//! a question is asked with the ranks of the anchor that is nearest to it. WordNet glosses (MiniLM, 384 dimensions) with SQuAD
//! questions, or made clusters where those are missing.
//!
//! Ours and the peer take turns case by case, each one question after another on one thread. A filter is one range of one
//! number, which the peer has as an indexed integer of its payload, known before its graph is built, so that it can add the links
//! it keeps for filtered walks. It is measured as it is by default, and with the walk it has for filters (`acorn`).
//!
//! Promised of ours: as many hits as are wanted or match, whatever the filter; recall@10 of at least 0.95 with the default
//! settings.

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

use crate::ann::peer::Peer;
use crate::ann::{Contestant, cases};
use crate::place::{self, WallClock};
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
    /// With `engine.graph_packs`.
    #[arg(long)]
    pub(crate) graph_packs: bool,
    /// With `engine.graphs_in_memory`.
    #[arg(long)]
    pub(crate) graphs_in_memory: bool,
    /// Other libraries: qdrant-edge, or nothing.
    #[arg(long, value_delimiter = ',', num_args = 0.., default_value = "qdrant-edge")]
    pub(crate) peers: Vec<String>,
    /// Python with the other libraries (`scripts/peers.sh` makes one; CAIRN_BENCH_PYTHON names another).
    #[arg(long, default_value_t = place::python())]
    pub(crate) python: String,
}

impl Args {
    pub(crate) fn short() -> Self {
        Self {
            rows: 20_000,
            questions: 50,
            percent: vec![100.0, 50.0, 10.0, 1.0, 0.1, 0.01, 0.001],
            quantization: "int8".to_owned(),
            threads: 2,
            graph_packs: false,
            graphs_in_memory: false,
            peers: vec!["qdrant-edge".to_owned()],
            python: place::python(),
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

/// The rank of each row, by the field that has it.
pub(crate) type Ranks = BTreeMap<String, Vec<usize>>;

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
    let report = Report::begin("filters")?;
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
    let ranks = ranks(&rows, &anchors);
    let dir = tempfile::tempdir()?;
    let engine = build(args, dir.path(), &rows, &ranks, true)?;
    let mut rivals = Vec::new();
    for name in &args.peers {
        match Rival::start(args, name, &rows, &questions, &ranks)? {
            Ok(rival) => rivals.push(rival),
            Err(why) => println!("\n******** SKIPPED: peer {name}: {why} ********\n"),
        }
    }

    let table = Table::new([
        "case",
        "who",
        "matches",
        "recall@10",
        "short",
        "p50 ms",
        "p99 ms",
        "exact p50 ms",
        "chosen",
    ]);
    let mut told = Told {
        report,
        table,
        broken: Vec::new(),
    };
    for percent in &args.percent {
        let matches = ((rows.len() as f64 * percent / 100.0).round() as usize).clamp(1, rows.len());
        for correlation in [-1, 0, 1] {
            let case = format!("sel={}/corr={correlation}", percent / 100.0);
            let kept = |question: &Question| match correlation {
                0 => Kept::below("any", matches),
                1 => Kept::below(&question.anchor, matches),
                _ => Kept::from(&question.anchor, rows.len() - matches),
            };
            let kept: Vec<Kept> = questions.iter().map(kept).collect();
            let ours = measure(&engine, &questions, &kept, matches)?;
            told.ours(&case, matches, &ours)?;
            let judge = Judge {
                rows: &rows,
                ranks: &ranks,
                questions: &questions,
                kept: &kept,
                edges: &ours.edges,
                hits: K.min(matches),
            };
            let mut left = Vec::new();
            for mut rival in std::mem::take(&mut rivals) {
                match rival.measure(&judge) {
                    Ok(all) => {
                        for (name, measured) in &all {
                            told.measured(&case, matches, Some(name), measured, ["", ""])?;
                        }
                        left.push(rival);
                    }
                    Err(why) => println!("\n******** SKIPPED: {} from {case} on: {why:#} ********\n", rival.name),
                }
            }
            rivals = left;
        }
    }
    told.table.print();
    Ok(Verdict::of(told.broken))
}

/// Rows of the table, records and broken promises.
struct Told {
    report: Report,
    table: Table,
    broken: Vec<String>,
}

impl Told {
    fn ours(&mut self, case: &str, matches: usize, ours: &Ours) -> anyhow::Result<()> {
        let exact = format!("{:.3}", ours.exact_p50_ms);
        self.measured(case, matches, None, &ours.measured, [&exact, &ours.chosen])?;
        let Measured { recall, short, .. } = ours.measured;
        if short > 0 {
            self.broken.push(format!("{case}: {short} questions got too few hits"));
        }
        if recall < RECALL_MIN {
            self.broken
                .push(format!("{case}: recall@10 {recall:.4} is below {RECALL_MIN}"));
        }
        Ok(())
    }

    /// `more` is what only ours says: the median of exact answers, and what was chosen.
    fn measured(
        &mut self,
        case: &str,
        matches: usize,
        peer: Option<&str>,
        measured: &Measured,
        more: [&str; 2],
    ) -> anyhow::Result<()> {
        let (p50, p99) = (quantile(&measured.took, 0.5), quantile(&measured.took, 0.99));
        let mut row = vec![
            case.to_owned(),
            peer.unwrap_or("cairn").to_owned(),
            matches.to_string(),
            format!("{:.4}", measured.recall),
            measured.short.to_string(),
            format!("{p50:.3}"),
            format!("{p99:.3}"),
        ];
        row.extend(more.map(str::to_owned));
        self.table.row(row);
        for (metric, value, unit) in [
            ("recall@10", measured.recall, "ratio"),
            ("short", measured.short as f64, "questions"),
            ("p50_ms", p50, "ms"),
            ("p99_ms", p99, "ms"),
        ] {
            self.report.record_peer(case, metric, value, unit, peer)?;
        }
        Ok(())
    }
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

/// Ranks of the rows by how near they are to each anchor, and by chance.
pub(crate) fn ranks(rows: &[&[f32]], anchors: &[Vec<f32>]) -> Ranks {
    let mut fields = Ranks::new();
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
    fields
}

/// One collection, all rows in one segment if the settings allow it; or, not sealed, in memory as they came.
pub(crate) fn build(
    args: &Args,
    dir: &std::path::Path,
    rows: &[&[f32]],
    ranks: &Ranks,
    sealed: bool,
) -> anyhow::Result<Engine> {
    let quantization = match args.quantization.as_str() {
        "none" => Quantization::None,
        "int8" => Quantization::Int8,
        "int4" => Quantization::Int4,
        other => anyhow::bail!("no quantization {other:?}"),
    };
    let components = Components {
        clock: Arc::new(WallClock),
        workers: crate::ann::ours::helpers(args.threads),
        files: Arc::new(cairn_engine::storage::LocalDir),
    };
    let defaults = Settings {
        graph_packs: args.graph_packs,
        graphs_in_memory: args.graphs_in_memory,
        ..Settings::default()
    };
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
            let payload = ranks.iter().map(|(field, ranks)| (field.clone(), ranks[row].into()));
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

/// What a filter keeps: rows whose rank of a field is in a range.
#[derive(serde::Serialize)]
struct Kept {
    field: String,
    from: Option<usize>,
    below: Option<usize>,
}

impl Kept {
    fn below(field: &str, below: usize) -> Self {
        Self {
            field: field.to_owned(),
            from: None,
            below: Some(below),
        }
    }

    fn from(field: &str, from: usize) -> Self {
        Self {
            field: field.to_owned(),
            from: Some(from),
            below: None,
        }
    }

    fn keeps(&self, ranks: &Ranks, row: usize) -> bool {
        let rank = ranks[&self.field][row];
        self.from.is_none_or(|from| rank >= from) && self.below.is_none_or(|below| rank < below)
    }
}

/// What somebody answered in a case.
struct Measured {
    recall: f64,
    short: usize,
    /// Milliseconds, ascending.
    took: Vec<f64>,
}

/// What ours answered, and what it took from the exact answers.
struct Ours {
    measured: Measured,
    /// How near the last exact hit of each question is, less what rounding may take.
    edges: Vec<f32>,
    exact_p50_ms: f64,
    chosen: String,
}

fn quantile(ascending: &[f64], q: f64) -> f64 {
    let last = ascending.len().saturating_sub(1);
    ascending
        .get((last as f64 * q).round() as usize)
        .copied()
        .unwrap_or(0.0)
}

fn measure(engine: &Engine, questions: &[Question], kept: &[Kept], matches: usize) -> anyhow::Result<Ours> {
    let ask = |(question, kept): (&Question, &Kept), exact: bool| -> anyhow::Result<(QueryResult, Duration)> {
        let query = Query {
            source: Source::Nearest {
                using: None,
                vector: question.vector.clone(),
            },
            filter: range(&kept.field, kept.from, kept.below),
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
    for question in questions.iter().zip(kept).take(WARM) {
        ask(question, false)?;
    }
    let (mut found, mut wanted, mut short) = (0, 0, 0);
    let (mut took, mut exact_took, mut edges) = (Vec::new(), Vec::new(), Vec::new());
    let mut chosen: BTreeMap<&str, usize> = BTreeMap::new();
    // All of them before the first exact one, which would leave nothing of theirs in the processor's caches.
    let mut answers = Vec::new();
    for question in questions.iter().zip(kept) {
        let (answer, time) = ask(question, false)?;
        took.push(time.as_secs_f64() * 1e3);
        answers.push(answer);
    }
    for (question, answer) in questions.iter().zip(kept).zip(answers) {
        let (truth, time) = ask(question, true)?;
        exact_took.push(time.as_secs_f64() * 1e3);
        let raw = |hit: &cairn_engine::query::Hit| hit.legs.first().map_or(f32::NEG_INFINITY, |leg| leg.raw);
        // By cosine: which of equally near rows is answered does not matter.
        let edge = truth.hits.last().map_or(f32::INFINITY, raw) - 1e-6;
        found += answer.hits.iter().filter(|hit| raw(hit) >= edge).count();
        edges.push(edge);
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
    Ok(Ours {
        measured: Measured {
            recall: f64::from(u32::try_from(found)?) / f64::from(u32::try_from(wanted.max(1))?),
            short,
            took,
        },
        edges,
        exact_p50_ms: quantile(&exact_took, 0.5),
        chosen: chosen.join(", "),
    })
}

/// A case, and what its exact answers say of an answer.
struct Judge<'a> {
    rows: &'a [&'a [f32]],
    ranks: &'a Ranks,
    questions: &'a [Question],
    kept: &'a [Kept],
    edges: &'a [f32],
    /// As many as can be found.
    hits: usize,
}

impl Judge<'_> {
    /// Of ten ids a question. A row that the filter leaves out is no hit.
    fn of(&self, ids: &[i32], mut took: Vec<f64>) -> Measured {
        let (mut found, mut short) = (0, 0);
        for (i, ids) in ids.chunks_exact(K).enumerate() {
            let mut ids: Vec<usize> = ids.iter().filter_map(|id| usize::try_from(*id).ok()).collect();
            ids.sort_unstable();
            ids.dedup();
            ids.retain(|row| *row < self.rows.len() && self.kept[i].keeps(self.ranks, *row));
            short += usize::from(ids.len() < self.hits);
            let near = |row: &&usize| cosine(self.rows[**row], &self.questions[i].vector) >= self.edges[i];
            found += ids.iter().filter(near).count();
        }
        took.sort_by(f64::total_cmp);
        Measured {
            recall: found as f64 / (self.hits * self.questions.len()).max(1) as f64,
            short,
            took,
        }
    }
}

/// Another library with the same rows.
struct Rival {
    name: String,
    peer: Peer,
    place: tempfile::TempDir,
}

impl Rival {
    /// Built; the inner error says why it cannot take part.
    fn start(
        args: &Args,
        name: &str,
        rows: &[&[f32]],
        questions: &[Question],
        ranks: &Ranks,
    ) -> anyhow::Result<Result<Self, String>> {
        let place = tempfile::tempdir()?;
        let asked = questions.iter().map(|question| question.vector.as_slice());
        cases::write_rows(&place.path().join("base.f32"), Metric::Cosine, rows.iter().copied())?;
        cases::write_rows(&place.path().join("queries.f32"), Metric::Cosine, asked)?;
        let mut numbers = Vec::with_capacity(rows.len() * ranks.len() * size_of::<i32>());
        for row in 0..rows.len() {
            for ranks in ranks.values() {
                numbers.extend_from_slice(&i32::try_from(ranks[row])?.to_le_bytes());
            }
        }
        std::fs::write(place.path().join("fields.i32"), numbers)?;
        let dim = rows.first().map_or(0, |row| row.len());
        let fields: Vec<&String> = ranks.keys().collect();
        let shape = serde_json::json!({"rows": rows.len(), "dim": dim, "queries": questions.len(), "fields": fields});
        std::fs::write(place.path().join("shape.json"), shape.to_string())?;
        let started = Peer::start(&args.python, name, place.path(), Metric::Cosine, questions.len(), None)?;
        let mut peer = match started {
            Ok(peer) => peer,
            Err(why) => return Ok(Err(why)),
        };
        Ok(match peer.build(args.threads) {
            Ok(built) => {
                println!("{name}: ready after {:.1} s", built.seconds);
                Ok(Self {
                    name: name.to_owned(),
                    peer,
                    place,
                })
            }
            Err(why) => Err(format!("does not build: {why:#}")),
        })
    }

    /// By each way it has to filter, with the name of that.
    fn measure(&mut self, judge: &Judge<'_>) -> anyhow::Result<Vec<(String, Measured)>> {
        let filters = serde_json::to_string(judge.kept)?;
        std::fs::write(self.place.path().join("filters.json"), filters)?;
        let mut all = Vec::new();
        for (how, name) in [
            ("default", self.name.clone()),
            ("acorn", format!("{}-acorn", self.name)),
        ] {
            let (took, ids) = self.peer.filtered(how)?;
            all.push((name, judge.of(&ids, took)));
        }
        Ok(all)
    }
}
