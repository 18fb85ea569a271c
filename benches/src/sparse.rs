//! Sparse vectors: what an index costs and what a question costs, in one thread, without a server.
//!
//! Searched three ways in the same run: through the index with and without pruning, and by adding up every posting of the
//! question in full precision, which is what pruning and one-byte weights have to beat. Made vectors are of SPLADE's shape:
//! about 120 weights a row, 30 a question, terms by Zipf's law, rows and questions about topics. Where the model is there
//! (`make models`), real ones are measured too: SPLADE-tiny's of the SQuAD dev paragraphs and questions.
//!
//! Promised: the three ways find the same rows, with scores that agree to what f32 sums may differ by.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use cairn_engine::inverted::top::Walk;
use cairn_engine::sparse::index::{IndexLayout, build};
use cairn_engine::sparse::{Ask, Column, Question, row};
use cairn_engine::types::{Ordinal, SparseVector};
use cairn_server::rag::embed::{SparseEmbedder, Splade, TextKind, Workers};
use cairn_server::rag::patience::Patience;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::Deserialize;

use crate::report::{Report, Table, Verdict};
use crate::{data, place};

/// Options of `cairn-bench sparse`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Rows of the made set.
    #[arg(long, default_value_t = 100_000)]
    rows: usize,
    /// Questions.
    #[arg(long, default_value_t = 500)]
    questions: usize,
}

impl Args {
    pub(crate) fn short() -> Self {
        Self {
            rows: 20_000,
            questions: 200,
        }
    }
}

/// Hits asked for.
const DEPTHS: [usize; 3] = [10, 100, 1_000];

pub(crate) fn run(args: &Args) -> anyhow::Result<Verdict> {
    ensure!(
        args.rows > 0 && args.questions > 0,
        "rows and questions must be at least 1"
    );
    let mut report = Report::begin("sparse")?;
    let mut table = Table::new(["case", "k", "way", "us/query", "postings", "of all", "bytes/weight"]);
    let mut broken = Vec::new();
    let (rows, questions) = made(args);
    measure(
        &format!("zipf/{}", args.rows),
        &rows,
        &questions,
        &mut report,
        &mut table,
        &mut broken,
    )?;
    match real(args.questions)? {
        Ok((rows, questions)) => {
            measure("squad/splade", &rows, &questions, &mut report, &mut table, &mut broken)?;
        }
        Err(why) => println!("\n******** SKIPPED: squad/splade: {why} ********\n"),
    }
    table.print();
    Ok(Verdict::of(broken))
}

/// The ways to answer.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    Pruned,
    All,
    Exhaustive,
}

impl Way {
    const EACH: [(Self, &'static str); 3] = [
        (Self::Pruned, "pruned"),
        (Self::All, "all postings"),
        (Self::Exhaustive, "exhaustive f32"),
    ];
}

fn measure(
    case: &str,
    rows: &[SparseVector],
    questions: &[SparseVector],
    report: &mut Report,
    table: &mut Table,
    broken: &mut Vec<String>,
) -> anyhow::Result<()> {
    let encoded: Vec<Vec<u8>> = rows.iter().map(row::encode).collect();
    let data = encoded.concat();
    let mut at = vec![0u64];
    at.extend(encoded.iter().scan(0, |at, row| {
        *at += row.len() as u64;
        Some(*at)
    }));
    let started = Instant::now();
    let n = u32::try_from(rows.len())?;
    let terms = build(n, &|visit| {
        (0..n).zip(&encoded).try_for_each(|(ordinal, row)| visit(ordinal, row))
    })?;
    let build_s = started.elapsed().as_secs_f64();
    let view = IndexLayout::parse(&terms)?.view(&terms);
    let weights = view.postings() as f64;
    let (row_bytes, index_bytes) = (data.len() as f64 / weights, terms.len() as f64 / weights);
    println!(
        "{case}: {n} rows, {:.0} weights a row, {} terms; built in {build_s:.2} s",
        weights / rows.len() as f64,
        view.terms()
    );
    report.record(case, "build", build_s, "s")?;
    report.record(case, "exact rows", row_bytes, "bytes/weight")?;
    report.record(case, "index", index_bytes, "bytes/weight")?;

    let column = Column::new(&data, &at, Some(view));
    let exhaustive = Exhaustive::new(rows);
    let ids: Vec<String> = (0..n).map(|i| format!("{i:010}")).collect();
    for k in DEPTHS {
        let mut first: Option<Vec<Vec<(f32, Ordinal)>>> = None;
        for (way, name) in Way::EACH {
            let ask = Ask {
                k,
                floor: f32::NEG_INFINITY,
                id_of: &|ordinal| ids[ordinal as usize].as_str(),
                stop: &|| false,
            };
            let (mut found, mut evaluated, mut all) = (Vec::new(), 0, 0);
            let started = Instant::now();
            for question in questions {
                let walk = match way {
                    Way::Pruned => Walk::Pruned,
                    Way::All => Walk::All,
                    Way::Exhaustive => {
                        found.push(exhaustive.best(question, k));
                        continue;
                    }
                };
                let top = column.search(&Question::from(question), walk, &|_| u64::MAX, &ask)?;
                evaluated += top.evaluated;
                found.push(top.hits);
            }
            let us = started.elapsed().as_secs_f64() * 1e6 / questions.len() as f64;
            for question in questions {
                all += column.postings(&Question::from(question))?;
            }
            if way == Way::Exhaustive {
                evaluated = all;
            }
            let share = evaluated as f64 / all.max(1) as f64;
            let of = format!("{case} k={k} {name}");
            report.record(&of, "time", us, "us/query")?;
            report.record(&of, "queries", 1e6 / us, "1/s")?;
            report.record(&of, "evaluated", share, "of all postings")?;
            table.row(vec![
                case.to_owned(),
                k.to_string(),
                name.to_owned(),
                format!("{us:.0}"),
                (evaluated / questions.len() as u64).to_string(),
                format!("{share:.3}"),
                match way {
                    Way::Exhaustive => "8.00".to_owned(),
                    Way::Pruned | Way::All => format!("{row_bytes:.2} + {index_bytes:.2}"),
                },
            ]);
            match &first {
                None => first = Some(found),
                Some(first) => broken.extend(differ(&of, first, &found, way == Way::Exhaustive)),
            }
        }
    }
    Ok(())
}

/// What is not the same. Sums in f32 differ in the last places, so of those only the scores are compared.
fn differ(of: &str, a: &[Vec<(f32, Ordinal)>], b: &[Vec<(f32, Ordinal)>], rounded: bool) -> Option<String> {
    let alike = |a: &[(f32, Ordinal)], b: &[(f32, Ordinal)]| {
        let close = |x: f32, y: f32| (x - y).abs() <= 1e-5 * x.abs().max(1.0);
        a.len() == b.len()
            && a.iter()
                .zip(b)
                .all(|(a, b)| if rounded { close(a.0, b.0) } else { a == b })
    };
    let wrong = a.iter().zip(b).filter(|(a, b)| !alike(a, b)).count();
    (wrong > 0).then(|| format!("{of}: {wrong} of {} questions have another answer than pruned", a.len()))
}

/// Lists of full weights, added up term by term: the plain way.
struct Exhaustive {
    rows: usize,
    lists: HashMap<u32, Vec<(Ordinal, f32)>>,
}

impl Exhaustive {
    fn new(rows: &[SparseVector]) -> Self {
        let mut lists: HashMap<u32, Vec<(Ordinal, f32)>> = HashMap::new();
        for (ordinal, row) in (0..).zip(rows) {
            for (term, weight) in row.indices.iter().zip(&row.values) {
                lists.entry(*term).or_default().push((ordinal, *weight));
            }
        }
        Self {
            rows: rows.len(),
            lists,
        }
    }

    fn best(&self, question: &SparseVector, k: usize) -> Vec<(f32, Ordinal)> {
        let mut scores = vec![0f32; self.rows];
        for (term, weight) in question.indices.iter().zip(&question.values) {
            for (ordinal, value) in self.lists.get(term).into_iter().flatten() {
                scores[*ordinal as usize] += weight * value;
            }
        }
        // Weights are positive here, so 0 is a row without any of the terms.
        let mut best: Vec<(f32, Ordinal)> = (0..)
            .zip(scores)
            .filter(|(_, s)| *s > 0.0)
            .map(|(o, s)| (s, o))
            .collect();
        let order = |a: &(f32, Ordinal), b: &(f32, Ordinal)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
        if best.len() > k {
            best.select_nth_unstable_by(k - 1, order);
            best.truncate(k);
        }
        best.sort_unstable_by(order);
        best
    }
}

/// A line of the data set.
#[derive(Deserialize)]
struct Line {
    text: String,
}

type Vectors = Vec<SparseVector>;

/// SPLADE-tiny's vectors of the SQuAD dev paragraphs and of the first questions; `Err` is the reason to skip.
fn real(questions: usize) -> anyhow::Result<Result<(Vectors, Vectors), String>> {
    let dir = match place::model("splade-tiny") {
        Ok(dir) => dir,
        Err(why) => return Ok(Err(why)),
    };
    let data = match place::data("squad_retrieval") {
        Ok(data) => data,
        Err(why) => return Ok(Err(why)),
    };
    let workers = Workers::new().map_err(|why| anyhow::anyhow!(why))?;
    let model = Splade::open("splade-tiny", &dir, "", "", Arc::new(workers));
    let model = model.map_err(|why| anyhow::anyhow!("splade-tiny: {why}"))?;
    let embed = |file: &str, most: usize, kind: TextKind| -> anyhow::Result<Vectors> {
        let lines: Vec<Line> = data::json_lines(&data.join(file))?;
        let texts: Vec<&str> = lines.iter().take(most).map(|line| line.text.as_str()).collect();
        let started = Instant::now();
        let mut vectors = Vectors::new();
        for batch in texts.chunks(64) {
            let patience = Patience::lasting(Duration::from_secs(600));
            vectors.extend(model.embed(batch, kind, &patience)?);
        }
        let seconds = started.elapsed().as_secs_f64();
        println!("{file}: {} texts embedded in {seconds:.0} s", texts.len());
        Ok(vectors)
    };
    let rows = embed("dev_corpus.jsonl", usize::MAX, TextKind::Passage)?;
    let asked = embed("dev_queries.jsonl", questions, TextKind::Query)?;
    Ok(Ok((rows, asked)))
}

/// Terms of the made set: a word-piece vocabulary.
const VOCABULARY: f64 = 30_000.0;
const TOPICS: u64 = 500;
const TOPIC_TERMS: usize = 200;

fn made(args: &Args) -> (Vec<SparseVector>, Vec<SparseVector>) {
    let mut rng = StdRng::seed_from_u64(7);
    let topics: Vec<Vec<u32>> = (0..TOPICS)
        .map(|_| (0..TOPIC_TERMS).map(|_| zipf(&mut rng)).collect())
        .collect();
    let mut some = |n: usize, weights: usize| -> Vec<SparseVector> {
        (0..n)
            .map(|_| {
                let topic = &topics[rng.random_range(0..topics.len())];
                vector(&mut rng, topic, weights)
            })
            .collect()
    };
    (some(args.rows, 120), some(args.questions, 30))
}

/// A term: the r-th most frequent with a probability in proportion to 1/r.
#[expect(clippy::cast_possible_truncation, reason = "below the vocabulary")]
#[expect(clippy::cast_sign_loss, reason = "a power is at least 1")]
fn zipf(rng: &mut StdRng) -> u32 {
    (VOCABULARY.powf(rng.random::<f64>()) - 1.0) as u32
}

/// A third of the terms are of the topic and weigh more; weights are lognormal.
#[expect(clippy::cast_possible_truncation, reason = "weights are single precision")]
fn vector(rng: &mut StdRng, topic: &[u32], weights: usize) -> SparseVector {
    let mut terms = BTreeMap::new();
    while terms.len() < weights {
        let own = rng.random::<f64>() < 0.33;
        let term = if own {
            topic[rng.random_range(0..topic.len())]
        } else {
            zipf(rng)
        };
        let normal =
            (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt() * (std::f64::consts::TAU * rng.random::<f64>()).cos();
        let mean = if own { 0.0 } else { -0.9 };
        terms.entry(term).or_insert((mean + 0.6 * normal).exp().min(4.0) as f32);
    }
    SparseVector {
        indices: terms.keys().copied().collect(),
        values: terms.into_values().collect(),
    }
}
