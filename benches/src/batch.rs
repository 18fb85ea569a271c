//! Queries of one batch beside the same queries one by one, in this process: what asking them together saves.
//!
//! What is answered by looking at every match is read once for all queries of a batch: rows that are not sealed, `exact`, narrow
//! filters. A graph is walked for each query as ever. The floor of a batch is one reading of the rows for all of it and a distance
//! for each row and query; that of queries one by one is a reading for each. WordNet glosses (MiniLM, 384 dimensions) with SQuAD
//! questions, or made clusters where those are missing.
//!
//! Promised: the same answers.

use std::time::Instant;

use anyhow::ensure;
use cairn_engine::engine::Engine;
use cairn_engine::filter::Filter;
use cairn_engine::patience::Patience;
use cairn_engine::query::{Hit, Params, Query, Source, With};

use crate::ann::cases;
use crate::filters;
use crate::report::{Report, Table, Verdict};

/// Options of `cairn-bench batch`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Rows at most.
    #[arg(long, default_value_t = 1_000_000)]
    rows: usize,
    /// Rows that are left unsealed for the cases of those.
    #[arg(long, default_value_t = 20_000)]
    unsealed: usize,
    /// Queries of a batch.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 8, 64, 512])]
    sizes: Vec<usize>,
    /// Rounds, of which the median is told.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// `none`, `int8` or `int4`.
    #[arg(long, default_value = "int8")]
    quantization: String,
}

impl Args {
    pub(crate) fn short() -> Self {
        Self {
            rows: 20_000,
            unsealed: 10_000,
            sizes: vec![1, 64],
            rounds: 3,
            quantization: "int8".to_owned(),
        }
    }
}

const K: usize = 10;

/// How queries are asked.
struct Kind {
    name: &'static str,
    sealed: bool,
    exact: bool,
    /// Share of the rows that match.
    share: f64,
}

const KINDS: [Kind; 6] = [
    kind("unsealed", false, false, 1.0),
    kind("unsealed/exact", false, true, 1.0),
    kind("sealed", true, false, 1.0),
    kind("sealed/exact", true, true, 1.0),
    kind("sealed/sel=0.1", true, false, 0.1),
    kind("sealed/sel=0.01", true, false, 0.01),
];

const fn kind(name: &'static str, sealed: bool, exact: bool, share: f64) -> Kind {
    Kind {
        name,
        sealed,
        exact,
        share,
    }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Verdict> {
    ensure!(args.rounds > 0 && args.rows > 0, "rounds and rows must be at least 1");
    let mut report = Report::begin("batch")?;
    let (dim, mut base, asked) = match cases::wordnet()? {
        Ok((base, asked)) => (384, base, asked),
        Err(why) => {
            println!("\n******** made vectors instead of WordNet: {why} ********\n");
            let all = cases::clustered(100_000 + 1_000, 96);
            let (base, asked) = cases::hold_out(&all, 96, 1_000);
            (96, base, asked)
        }
    };
    base.truncate(args.rows.saturating_mul(dim));
    let rows: Vec<&[f32]> = base.chunks_exact(dim).collect();
    let asked: Vec<&[f32]> = asked.chunks_exact(dim).collect();
    let build = |rows: &[&[f32]], sealed: bool| -> anyhow::Result<(Engine, tempfile::TempDir, usize)> {
        let built = filters::Args {
            quantization: args.quantization.clone(),
            ..filters::Args::short()
        };
        let dir = tempfile::tempdir()?;
        let engine = filters::build(&built, dir.path(), rows, &filters::ranks(rows, &[]), sealed)?;
        // Dropped in this order.
        Ok((engine, dir, rows.len()))
    };
    let sealed = build(&rows, true)?;
    let unsealed = build(&rows[..rows.len().min(args.unsealed)], false)?;
    let mut table = Table::new([
        "case",
        "queries",
        "one by one/s",
        "together/s",
        "ratio",
        "least",
        "most",
    ]);
    let mut broken = Vec::new();
    for kind in &KINDS {
        let (engine, _, count) = if kind.sealed { &sealed } else { &unsealed };
        for size in &args.sizes {
            let queries: Vec<Query> = asked
                .iter()
                .cycle()
                .take(*size)
                .map(|v| query(kind, v, *count))
                .collect();
            let measured = measure(engine, &queries, args.rounds)?;
            let case = format!("{}/{size}", kind.name);
            if !measured.same {
                broken.push(format!(
                    "{case}: a batch is answered otherwise than its queries are one by one"
                ));
            }
            let [least, ratio, most] = measured.ratio;
            table.row(vec![
                kind.name.to_owned(),
                size.to_string(),
                format!("{:.0}", measured.alone),
                format!("{:.0}", measured.together),
                format!("{ratio:.2}"),
                format!("{least:.2}"),
                format!("{most:.2}"),
            ]);
            report.record(&case, "alone_qps", measured.alone, "queries/s")?;
            report.record(&case, "together_qps", measured.together, "queries/s")?;
            report.record(&case, "ratio", ratio, "ratio")?;
        }
    }
    table.print();
    Ok(Verdict::of(broken))
}

fn query(kind: &Kind, vector: &[f32], rows: usize) -> Query {
    let below = (rows as f64 * kind.share).round() as usize;
    Query {
        source: Source::Nearest {
            using: None,
            vector: vector.to_vec(),
        },
        filter: match kind.share < 1.0 {
            true => filters::range("any", None, Some(below)),
            false => Filter::default(),
        },
        limit: K,
        offset: 0,
        score_threshold: None,
        with: With::default(),
        params: Params {
            exact: kind.exact,
            ..Params::default()
        },
        after: None,
        patience: Patience::default(),
    }
}

struct Measured {
    /// Queries a second, medians.
    alone: f64,
    together: f64,
    /// Of one round each: least, median, most.
    ratio: [f64; 3],
    same: bool,
}

fn measure(engine: &Engine, queries: &[Query], rounds: usize) -> anyhow::Result<Measured> {
    let alone = || -> anyhow::Result<Vec<Vec<Hit>>> {
        let hits = queries.iter().map(|query| Ok(engine.query(filters::NAME, query)?.hits));
        hits.collect()
    };
    let together = || -> anyhow::Result<Vec<Vec<Hit>>> {
        let moment = engine.moment(filters::NAME, None, Patience::default())?;
        let moment = moment.announce(&queries.iter().collect::<Vec<_>>());
        let hits = queries.iter().map(|query| Ok(moment.query(query)?.hits));
        hits.collect()
    };
    // The first time warms up.
    let same = alone()? == together()?;
    let (mut alone_qps, mut together_qps, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        let rate = |ask: &dyn Fn() -> anyhow::Result<Vec<Vec<Hit>>>| -> anyhow::Result<f64> {
            let started = Instant::now();
            ask()?;
            Ok(queries.len() as f64 / started.elapsed().as_secs_f64())
        };
        let (one, all) = (rate(&alone)?, rate(&together)?);
        alone_qps.push(one);
        together_qps.push(all);
        ratios.push(all / one);
    }
    let middle = |values: &mut Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let ratio = middle(&mut ratios);
    Ok(Measured {
        alone: middle(&mut alone_qps),
        together: middle(&mut together_qps),
        ratio: [ratios[0], ratio, ratios[ratios.len() - 1]],
        same,
    })
}
