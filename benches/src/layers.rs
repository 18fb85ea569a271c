//! What an answer costs beyond the walk of the index: the same questions at the same `ef` asked of the graph alone, of the whole engine (view,
//! plan, names of the hits), with the payload of ten hits, with a filter that one in ten rows matches, and with both.
//!
//! In this process, on one thread, in rounds that take turns; medians with the least and the most. WordNet glosses (MiniLM, 384
//! dimensions) with the questions of SQuAD; one segment, so that the graph of the engine is the one beside it.

use std::hint::black_box;
use std::time::Instant;

use anyhow::{Context, ensure};
use cairn_engine::engine::Engine;
use cairn_engine::filter::Filter;
use cairn_engine::query::{Params, Query, Source, With};

use crate::ann::cases::Case;
use crate::ann::ours::Ours;
use crate::ann::{Contestant, K};
use crate::filters;
use crate::report::{Report, Table, Verdict};

/// Options of `cairn-bench layers`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Questions.
    #[arg(long, default_value_t = 1_000)]
    queries: usize,
    /// Candidates that a graph search keeps.
    #[arg(long, default_value_t = 64)]
    ef: usize,
    /// `none`, `int8` or `int4`.
    #[arg(long, default_value = "int8")]
    quantization: String,
    /// With `engine.graph_packs`.
    #[arg(long)]
    graph_packs: bool,
    /// With `engine.graphs_in_memory`, as the graph beside it is in any case.
    #[arg(long)]
    graphs_in_memory: bool,
    /// Rounds, of which the median is told.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Threads of the builds.
    #[arg(long, default_value_t = 2)]
    threads: usize,
}

impl Args {
    pub(crate) fn short() -> Self {
        Self {
            queries: 300,
            ef: 64,
            quantization: "int8".to_owned(),
            graph_packs: false,
            graphs_in_memory: false,
            rounds: 3,
            threads: 2,
        }
    }
}

/// What is asked of the engine.
struct Layer {
    name: &'static str,
    payload: bool,
    filter: bool,
}

const CORE: &str = "graph";
const LAYERS: [Layer; 4] = [
    layer("engine", false, false),
    layer("engine, payload", true, false),
    layer("engine, filter of 10 %", false, true),
    layer("engine, filter of 10 %, payload", true, true),
];

const fn layer(name: &'static str, payload: bool, filter: bool) -> Layer {
    Layer { name, payload, filter }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Verdict> {
    ensure!(
        args.queries > 0 && args.rounds > 0,
        "queries and rounds must be at least 1"
    );
    ensure!(
        args.quantization != "none" || !args.graph_packs,
        "packs are measured over codes here: --quantization int8 or int4"
    );
    let mut report = Report::begin("layers")?;
    let case = match Case::load("wordnet", args.queries)? {
        Ok(case) => case,
        Err(why) => return Ok(Verdict::Skipped(format!("layers: {why}"))),
    };
    let name = match (args.quantization.as_str(), args.graph_packs) {
        ("none", _) => "cairn-f32".to_owned(),
        (codes, true) => format!("cairn-{codes}-packs"),
        (codes, false) => format!("cairn-{codes}"),
    };
    let mut core = Ours::all(&case)
        .into_iter()
        .find(|ours| ours.name() == name)
        .with_context(|| format!("no index core of quantization {:?}", args.quantization))?;
    core.build(args.threads)?;
    let vectors = case.vectors().data.singles();
    let rows: Vec<&[f32]> = vectors.chunks_exact(case.dim).collect();
    let dir = tempfile::tempdir()?;
    let built = filters::Args {
        rows: rows.len(),
        quantization: args.quantization.clone(),
        graph_packs: args.graph_packs,
        graphs_in_memory: args.graphs_in_memory,
        threads: args.threads,
        ..filters::Args::short()
    };
    let engine = filters::build(&built, dir.path(), &rows, &filters::ranks(&rows, &[]), true)?;

    let mut took: Vec<Vec<f64>> = vec![Vec::new(); 1 + LAYERS.len()];
    for _ in 0..args.rounds {
        let (seconds, _) = core.search(args.ef, 1)?;
        took[0].push(seconds);
        for (layer, took) in LAYERS.iter().zip(&mut took[1..]) {
            took.push(ask(&engine, &case, layer, args.ef)?);
        }
    }
    let mut table = Table::new(["what", "us a question", "least", "most", "times the graph's"]);
    let names = std::iter::once(CORE).chain(LAYERS.iter().map(|layer| layer.name));
    let mut of_core = None;
    for (name, mut took) in names.zip(took) {
        took.sort_by(f64::total_cmp);
        let us = |seconds: f64| seconds / case.query_count() as f64 * 1e6;
        let median = us(took[took.len() / 2]);
        let of_core = *of_core.get_or_insert(median);
        table.row(vec![
            name.to_owned(),
            format!("{median:.1}"),
            format!("{:.1}", us(took[0])),
            format!("{:.1}", us(took[took.len() - 1])),
            format!("{:.2}", median / of_core),
        ]);
        report.record(name, "us", median, "us")?;
    }
    table.print();
    Ok(Verdict::Held)
}

/// Seconds that all questions take, one after the other.
fn ask(engine: &Engine, case: &Case, layer: &Layer, ef: usize) -> anyhow::Result<f64> {
    let tenth = case.rows().div_ceil(10);
    let queries: Vec<Query> = (0..case.query_count())
        .map(|i| Query {
            source: Source::Nearest {
                using: None,
                vector: case.query(i).to_vec(),
            },
            filter: match layer.filter {
                true => filters::range("any", None, Some(tenth)),
                false => Filter::default(),
            },
            limit: K,
            offset: 0,
            score_threshold: None,
            with: With {
                payload: layer.payload,
                ..With::default()
            },
            params: Params {
                ef: Some(ef),
                ..Params::default()
            },
            after: None,
            patience: Default::default(),
        })
        .collect();
    let started = Instant::now();
    for query in &queries {
        let answer = black_box(engine.query(filters::NAME, query)?);
        ensure!(answer.hits.len() == K, "{} hits instead of {K}", answer.hits.len());
    }
    Ok(started.elapsed().as_secs_f64())
}
