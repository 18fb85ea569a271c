//! What a search finds that is told `target_recall` and nothing else: its recall on questions that were no part of what was
//! measured, of graphs on codes and on the vectors themselves and of inverted lists, also where rows have died since; and what it
//! costs.
//!
//! Promised: on average at least the target less 0.01.

use std::time::Instant;

use anyhow::Context;
use cairn_engine::schema::Quantization;
use cairn_engine::vector::calibration::Questions;
use cairn_engine::vector::{Allow, BitSet, Calibration, EDGE, Found as Hits, batch, hnsw};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::ann::Contestant;
use crate::ann::cases::{self, Case};
use crate::ann::ours::{Ours, helpers};
use crate::ivf::Made;
use crate::report::{Report, Table, Verdict};

/// Options of `cairn-bench recall`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// What to measure: wordnet, wordnet-heldout, fashion, glove, clustered1m.
    #[arg(
        long = "case",
        value_delimiter = ',',
        default_value = "wordnet,wordnet-heldout,fashion,glove,clustered1m"
    )]
    cases: Vec<String>,
    /// Graphs on codes or on the vectors (int4, int8, f32), and inverted lists (ivf, with codes of 8 bits).
    #[arg(long = "index", value_delimiter = ',', default_value = "int8,f32,ivf")]
    indexes: Vec<String>,
    /// What is asked for.
    #[arg(long, value_delimiter = ',', default_values_t = [0.9, 0.95, 0.99])]
    targets: Vec<f32>,
    /// Hits wanted.
    #[arg(long, value_delimiter = ',', default_values_t = [10, 100])]
    hits: Vec<usize>,
    /// Shares of rows that have died, in percent.
    #[arg(long, value_delimiter = ',', default_values_t = [0.0, 20.0, 50.0])]
    dead: Vec<f64>,
    /// Questions.
    #[arg(long, default_value_t = 1_000)]
    queries: usize,
    /// Threads that build.
    #[arg(long, default_value_t = 2)]
    threads: usize,
}

impl Args {
    pub(crate) fn short() -> Self {
        Self {
            cases: vec!["wordnet".into()],
            indexes: vec!["int8".into(), "ivf".into()],
            targets: vec![0.95],
            hits: vec![10],
            dead: vec![0.0],
            queries: 500,
            threads: 2,
        }
    }
}

const TOLERANCE: f64 = 0.01;

pub(crate) fn run(args: &Args) -> anyhow::Result<Verdict> {
    let mut report = Report::begin("recall")?;
    let mut broken = Vec::new();
    let verdict = cases::each(&args.cases, args.queries, |case| {
        one_case(args, case, &mut report, &mut broken)
    })?;
    Ok(match verdict {
        Verdict::Held => Verdict::of(broken),
        skipped => skipped,
    })
}

/// What searches with one setting found.
struct Found {
    recall: f64,
    distances: f64,
    microseconds: f64,
}

/// What is asked, and of whom.
struct Asked<'a> {
    case: &'a Case,
    allow: Allow<'a>,
    hits: usize,
    /// How far the last exact hit of each question is.
    edges: &'a [f32],
}

/// Rows of the table, records and broken promises.
struct Told<'a> {
    report: &'a mut Report,
    broken: &'a mut Vec<String>,
    table: Table,
}

impl Told<'_> {
    fn tell(&mut self, case: &Case, of: [String; 3], target: f32, effort: &str, found: &Found) -> anyhow::Result<()> {
        let [index, dead, hits] = &of;
        let name = format!("{}/{index}/dead={dead}/k={hits}/target={target}", case.name);
        if found.recall < f64::from(target) - TOLERANCE {
            self.broken.push(format!("{name}: recall {:.4}", found.recall));
        }
        self.report.record(&name, "recall", found.recall, "share")?;
        self.report.record(&name, "distances", found.distances, "distances")?;
        let mut row = of.to_vec();
        row.extend([
            format!("{target}"),
            effort.to_owned(),
            format!("{:.4}", found.recall),
            format!("{:.0}", found.distances),
            format!("{:.1}", found.microseconds),
        ]);
        self.table.row(row);
        Ok(())
    }
}

fn one_case(args: &Args, case: &Case, report: &mut Report, broken: &mut Vec<String>) -> anyhow::Result<()> {
    println!(
        "\n{}: {} x {}, {:?}, {} questions",
        case.name,
        case.rows(),
        case.dim,
        case.metric,
        case.query_count()
    );
    let mut told = Told {
        report,
        broken,
        table: Table::new([
            "index",
            "dead %",
            "hits",
            "target",
            "effort",
            "recall",
            "distances",
            "us a question",
        ]),
    };
    let mut truths = Vec::new();
    for dead in &args.dead {
        let live = live(case.rows(), *dead);
        for hits in &args.hits {
            let allow = live.as_ref().map_or(Allow::All, Allow::Only);
            truths.push((*dead, *hits, edges(case, *hits, &allow, args.threads)?));
        }
    }
    for mut ours in Ours::all(case) {
        let index = ours.name().trim_start_matches("cairn-").to_owned();
        if !args.indexes.contains(&index) {
            continue;
        }
        let built = ours.build(args.threads)?;
        let (graph, vectors) = (ours.graph()?, ours.vectors());
        let started = Instant::now();
        let workers = helpers(args.threads);
        let questions = Questions::draw(&vectors, &workers, &|| false)?.context("too few rows to calibrate")?;
        let calibration = Calibration::measure(&questions, &vectors, &graph, &workers, &|| false)?;
        println!(
            "{index}: built in {:.1} s, calibrated in {:.2} s",
            built.seconds,
            started.elapsed().as_secs_f64()
        );
        for (dead, hits, edges) in &truths {
            let live = live(case.rows(), *dead);
            let asked = Asked {
                case,
                allow: live.as_ref().map_or(Allow::All, Allow::Only),
                hits: *hits,
                edges,
            };
            for target in &args.targets {
                let ef = calibration.ef(*target, *hits).max(*hits + EDGE);
                let effort = hnsw::Effort::beyond(*hits, ef, vectors.codes.is_some());
                let found = asked.of(|query, allow| {
                    match graph.search_within(&vectors, query, effort, allow, &|| false)? {
                        hnsw::Walked::Found(found) => Ok(found),
                        hnsw::Walked::GaveUp { .. } => anyhow::bail!("a walk without a limit gave up"),
                    }
                })?;
                let of = [index.clone(), format!("{dead}"), format!("{hits}")];
                told.tell(case, of, *target, &format!("ef {ef}"), &found)?;
            }
        }
    }
    if args.indexes.iter().any(|index| index == "ivf") {
        let made = Made::of(case, None, Quantization::Int8, args.threads)?;
        let vectors = case.vectors();
        println!(
            "ivf: {} lists, built in {:.1} s",
            made.view().lists(),
            made.built.seconds
        );
        for (dead, hits, edges) in &truths {
            let live = live(case.rows(), *dead);
            let asked = Asked {
                case,
                allow: live.as_ref().map_or(Allow::All, Allow::Only),
                hits: *hits,
                edges,
            };
            for target in &args.targets {
                let lists = made.view().with_recall(*target);
                let mut read = 0;
                let found = asked.of(|query, allow| {
                    let probed = lists.probe(&vectors, query, *hits + EDGE, None, allow, &|| false)?;
                    read += probed.lists;
                    Ok(probed.found)
                })?;
                let of = ["ivf".to_owned(), format!("{dead}"), format!("{hits}")];
                let lists_read = format!("{:.0} lists", read as f64 / edges.len() as f64);
                told.tell(case, of, *target, &lists_read, &found)?;
            }
        }
    }
    told.table.print();
    Ok(())
}

impl Asked<'_> {
    fn of(&self, mut search: impl FnMut(&[f32], &Allow<'_>) -> anyhow::Result<Hits>) -> anyhow::Result<Found> {
        let (mut right, mut evaluated) = (0, 0);
        let started = Instant::now();
        for (i, edge) in self.edges.iter().enumerate() {
            let found = search(self.case.query(i), &self.allow)?;
            right += found
                .hits
                .iter()
                .filter(|hit| hit.distance <= *edge)
                .count()
                .min(self.hits);
            evaluated += found.evaluated;
        }
        let count = self.edges.len() as f64;
        Ok(Found {
            recall: right as f64 / (count * self.hits as f64),
            distances: evaluated as f64 / count,
            microseconds: started.elapsed().as_secs_f64() * 1e6 / count,
        })
    }
}

/// Who is left of the rows, if any died.
fn live(rows: usize, dead_percent: f64) -> Option<BitSet> {
    if dead_percent <= 0.0 {
        return None;
    }
    let mut rng = StdRng::seed_from_u64(1);
    let rows_u32 = u32::try_from(rows).unwrap_or(u32::MAX);
    let live = (0..rows_u32).filter(|_| rng.random_range(0.0..100.0) >= dead_percent);
    Some(BitSet::from_iter(rows, live))
}

/// How far the last exact hit of each question is.
fn edges(case: &Case, hits: usize, allow: &Allow<'_>, threads: usize) -> anyhow::Result<Vec<f32>> {
    let questions: Vec<&[f32]> = (0..case.query_count()).map(|i| case.query(i)).collect();
    let mut edges = Vec::new();
    // Some at a time, as each keeps its hits of several shares.
    for some in questions.chunks(250) {
        let found = batch::nearest(&case.vectors(), some, hits, allow, &helpers(threads), &|| false)?;
        edges.extend(
            found
                .iter()
                .map(|found| found.last().map_or(f32::INFINITY, |last| last.distance)),
        );
    }
    Ok(edges)
}
