//! `kill -9` at random moments of upserts, payload changes, deletes, document replaces, seals and merges: nothing acknowledged
//! is lost, nothing comes back, nothing is torn.
//!
//! The load, its oracle and the judge are those of the tests ([`cairn_tests::crash`]); after each restart everything is read back.
//! One data directory lives through all cycles. Beside the writers, a reader checks that a document is never seen half replaced.

use std::time::{Duration, Instant};

use cairn_tests::reliability::kill::{self, Plan, Totals};

use crate::measure::median_and_max;
use crate::report::{Report, Table, Verdict};

/// A server lives for at most this long after it is ready.
const LIFE_MS_MAX: u64 = 800;
/// No bound on the time of all cycles.
const ANY_TIME: Duration = Duration::MAX;

/// Options of `cairn-bench crash`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Kills.
    #[arg(long, default_value_t = 100)]
    cycles: u32,
    /// Of everything random but the scheduling. Default: a new one, which is printed.
    #[arg(long)]
    seed: Option<u64>,
    /// Keep the directory, with data, oracle and logs.
    #[arg(long)]
    keep: bool,
}

impl Args {
    pub(crate) fn short() -> Self {
        Self {
            cycles: 20,
            seed: None,
            keep: false,
        }
    }
}

pub(crate) async fn run(args: Args) -> anyhow::Result<Verdict> {
    let mut report = Report::begin("crash")?;
    let seed = args.seed.unwrap_or_else(rand::random);
    println!("seed {seed}: cairn-bench crash --cycles {} --seed {seed}", args.cycles);
    let mut dir = tempfile::Builder::new().prefix("cairn-crash-").tempdir()?;
    let started = Instant::now();
    let plan = Plan {
        cycles: args.cycles,
        seed,
        life_ms_max: LIFE_MS_MAX,
        time: ANY_TIME,
    };
    let totals = kill::run(dir.path(), plan).await?;

    let broken = tell(&totals, started.elapsed(), &mut report)?;
    if args.keep || !broken.is_empty() {
        dir.disable_cleanup(true);
        println!("kept: {}", dir.path().display());
    }
    Ok(Verdict::of(broken))
}

fn tell(totals: &Totals, elapsed: Duration, report: &mut Report) -> anyhow::Result<Vec<String>> {
    let counts = &totals.counts;
    let (restart, restart_max) = median_and_max(totals.restart_s.clone());
    let (replayed, replayed_max) = median_and_max(totals.replayed.clone());
    let (asked, graph_recall) = (totals.graph.0, totals.graph_recall());
    let mut numbers = vec![
        ("cycles", f64::from(totals.cycles), "count"),
        ("killed_while_opening", f64::from(totals.killed_opening), "count"),
        ("failed_opens", f64::from(totals.failed_opens), "count"),
        ("acked_operations", totals.acked as f64, "count"),
        ("refused_operations", totals.refused as f64, "count"),
        ("unknown_operations", totals.unknown as f64, "count"),
        ("unknown_that_happened", totals.happened as f64, "count"),
        ("unknown_that_did_not", totals.not_happened as f64, "count"),
        ("seals_seen", totals.seals, "count"),
        ("merges_seen", totals.merges, "count"),
        ("reads_beside", totals.reads as f64, "count"),
        ("live_points", totals.live.0 as f64, "count"),
        ("live_documents", totals.live.1 as f64, "count"),
        ("graph_searches", asked as f64, "count"),
        ("graph_finds_itself", graph_recall, "ratio"),
        ("replayed_median", replayed, "records"),
        ("replayed_max", replayed_max, "records"),
        ("restart_median", restart, "s"),
        ("restart_max", restart_max, "s"),
        ("elapsed", elapsed.as_secs_f64(), "s"),
    ];
    numbers.extend(counts.named().map(|(name, n)| (name, n as f64, "count")));
    let mut table = Table::new(["crash", "value", "unit"]);
    for (metric, value, unit) in numbers {
        let shown = if value.fract() == 0.0 {
            format!("{value}")
        } else {
            format!("{value:.3}")
        };
        table.row(vec![metric.to_owned(), shown, unit.to_owned()]);
        report.record("kill -9", metric, value, unit)?;
    }
    table.print();
    for example in &counts.examples {
        println!("  {example}");
    }
    let mut broken: Vec<String> = counts
        .named()
        .into_iter()
        .filter(|(_, n)| *n > 0)
        .map(|(name, n)| format!("{name} = {n}"))
        .collect();
    if asked > 0 && graph_recall < kill::GRAPH_RECALL_MIN {
        broken.push(format!(
            "graphs find only {graph_recall:.3} of the points by their own vectors"
        ));
    }
    if totals.failed_opens > 0 {
        broken.push("the data directory could not be opened again".to_owned());
    }
    Ok(broken)
}
