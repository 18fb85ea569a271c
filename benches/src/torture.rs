//! R1 to R6 and R14 of [`cairn_tests::reliability`] at the numbers of a release, in a time that is set: a table of what came of all trials.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use cairn_tests::faultfs::FaultFs;
use cairn_tests::reliability::kill::{self, Totals};
use cairn_tests::reliability::torn::Ways;
use cairn_tests::reliability::{
    Plan, Tally, damage, full, known, manifests, power, refused, reopened, repaired, restored, runtime, side_by_side,
    torn, window,
};

use crate::report::{Report, Table, Verdict};

/// Operations of the script whose every write is torn.
const SCRIPT: usize = 200;
/// What all of it may take where nothing else is said.
const MINUTES: u64 = 120;
/// R1: a server lives for at most this long after it is ready.
const LIFE_MS_MAX: u64 = 800;
/// More than there are: all of them.
const ALL: usize = usize::MAX;
/// Findings of one test that are printed whole.
const SHOWN_MAX: usize = 6;

/// Options of `cairn-bench torture`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Time for all of it; each test ends early when its share is used up. Without this two hours, and not to reach the
    /// numbers in them is a failure.
    #[arg(long)]
    minutes: Option<u64>,
    /// Of everything random but the scheduling. Default: a new one, which is printed.
    #[arg(long)]
    seed: Option<u64>,
    /// R1: kills.
    #[arg(long, default_value_t = 1000)]
    kills: u32,
    /// R2: losses of power.
    #[arg(long, default_value_t = 500)]
    powers: usize,
    /// R2: losses of power under `async` writes.
    #[arg(long, default_value_t = 500)]
    relaxed: usize,
    /// R3: writes that are torn, in four ways each.
    #[arg(long, default_value_t = ALL)]
    torn: usize,
    /// R3: losses of power while it is opened again, and just after.
    #[arg(long, default_value_t = 500)]
    reopened: usize,
    /// R4: operations that fail.
    #[arg(long, default_value_t = ALL)]
    refused: usize,
    /// R5: rounds of a full disk.
    #[arg(long, default_value_t = 50)]
    full: usize,
    /// R6: flips, cuts, removals and pages that cannot be read; of ten about six are flips.
    #[arg(long, default_value_t = 3500)]
    flips: usize,
    /// R6: losses of power during a repair.
    #[arg(long, default_value_t = 200)]
    repaired: usize,
    /// R14: losses of power during a restore.
    #[arg(long, default_value_t = 200)]
    restored: usize,
    /// Trials at the same time. Much of one is waiting for a process to open or to end.
    #[arg(long, default_value_t = 4)]
    lanes: usize,
    /// Only these, e.g. `--only R3,R6`.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
}

/// A test: its name and how many hundredths of the time it may take.
const SHARES: [(&str, u32); 8] = [
    ("R1", 23),
    ("R2", 12),
    ("R2 async", 4),
    ("R3", 20),
    ("R4", 17),
    ("R5", 4),
    ("R6", 18),
    ("R14", 2),
];

/// What one test came to.
struct Row {
    name: &'static str,
    trials: u64,
    /// How many there would have been with enough time.
    planned: u64,
    outcomes: BTreeMap<String, u64>,
    /// Promises that were broken, and those of them of which it is known why.
    wrong: Vec<String>,
    known: u64,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<Verdict> {
    let mut report = Report::begin("torture")?;
    let seed = args.seed.unwrap_or_else(rand::random);
    let minutes = args.minutes.unwrap_or(MINUTES);
    println!("seed {seed}: cairn-bench torture --minutes {minutes} --seed {seed}");
    let mountable = FaultFs::available();
    let mut rows = Vec::new();
    let mut skipped = Vec::new();
    for (name, share) in SHARES {
        if !args.only.is_empty()
            && !args
                .only
                .iter()
                .any(|only| name.split(' ').next() == Some(only.as_str()))
        {
            continue;
        }
        if let (true, Err(why)) = (name != "R1", &mountable) {
            skipped.push(format!("{name}: {why}"));
            continue;
        }
        let began = Instant::now();
        let time = Duration::from_secs(minutes * 60) * share / 100;
        let lanes = args.lanes.max(1);
        let plan = |trials: usize| Plan {
            trials,
            seed,
            time,
            lanes,
        };
        let row = match name {
            "R1" => {
                let lineage = |lane: usize| {
                    let dir = tempfile::tempdir()?;
                    let plan = kill::Plan {
                        cycles: part_of(args.kills as usize, lane, lanes) as u32,
                        seed: seed.wrapping_add(lane as u64),
                        life_ms_max: LIFE_MS_MAX,
                        time,
                    };
                    runtime()?.block_on(kill::run(dir.path(), plan))
                };
                of_totals(name, u64::from(args.kills), side_by_side(lanes, lineage)?)
            }
            "R2" => {
                let lineage = |lane: usize| {
                    let plan = Plan {
                        seed: seed.wrapping_add(lane as u64),
                        ..plan(part_of(args.powers, lane, lanes))
                    };
                    runtime()?.block_on(power::run(plan))
                };
                of_totals(name, args.powers as u64, side_by_side(lanes, lineage)?)
            }
            "R2 async" => of_tally(name, window::run(SCRIPT, plan(args.relaxed)).await?),
            "R3" => {
                let part = |trials, of: u32| Plan {
                    time: time * of / 5,
                    ..plan(trials)
                };
                let mut tally = torn::run(SCRIPT, Ways::All, part(args.torn, 4)).await?.0;
                tally.add(reopened::run(SCRIPT, part(args.reopened, 1)).await?);
                of_tally(name, tally)
            }
            "R4" => {
                let mut tally = manifests::run(plan(ALL)).await?;
                tally.add(refused::run(plan(args.refused)).await?);
                of_tally(name, tally)
            }
            "R5" => of_tally(name, full::run(plan(args.full)).await?),
            "R14" => of_tally(name, restored::run(plan(args.restored)).await?),
            _ => {
                let part = |trials, of: u32| Plan {
                    time: time * of / 10,
                    ..plan(trials)
                };
                let mut tally = damage::run(part(args.flips, 9)).await?;
                tally.add(repaired::run(part(args.repaired, 1)).await?);
                of_tally(name, tally)
            }
        };
        println!(
            "{name}: {} trials in {:.0} s",
            row.trials,
            began.elapsed().as_secs_f64()
        );
        report.record(name, "trials", row.trials as f64, "count")?;
        report.record(name, "wrong", row.wrong.len() as f64, "count")?;
        report.record(name, "elapsed", began.elapsed().as_secs_f64(), "s")?;
        rows.push(row);
    }
    for why in skipped {
        println!("\n******** SKIPPED: {why} ********\n");
    }
    print(&rows);
    let mut broken: Vec<String> = Vec::new();
    for row in &rows {
        if !row.wrong.is_empty() {
            broken.push(format!("{}: {} of {}", row.name, row.wrong.len(), row.trials));
        }
        if row.trials < row.planned {
            let short = format!("{}: time for {} of {} trials only", row.name, row.trials, row.planned);
            println!("{short}");
            if args.minutes.is_none() {
                broken.push(short);
            }
        }
    }
    Ok(Verdict::of(broken))
}

/// How many of all are this lane's: each lane has a database of its own, which lives through them.
fn part_of(of: usize, lane: usize, lanes: usize) -> usize {
    of / lanes + usize::from(lane < of % lanes)
}

fn of_totals(name: &'static str, planned: u64, lanes: Vec<Totals>) -> Row {
    let mut totals = Totals::default();
    lanes.into_iter().for_each(|lane| totals.merge(lane));
    let mut outcomes = BTreeMap::from([
        ("operations acknowledged".to_owned(), totals.acked),
        ("operations without an answer".to_owned(), totals.unknown),
        ("killed while opening".to_owned(), u64::from(totals.killed_opening)),
    ]);
    outcomes.extend(totals.counts.named().map(|(name, n)| (name.to_owned(), n)));
    outcomes.insert("failed_opens".to_owned(), u64::from(totals.failed_opens));
    if totals.graph_recall() < kill::GRAPH_RECALL_MIN {
        let (asked, found) = totals.graph;
        let what = format!("of {asked} points that were searched by graph with their own vectors {found} were found");
        totals.counts.index_mismatch += 1;
        totals.counts.example(what);
    }
    let fine = totals.counts.all_zero() && totals.failed_opens == 0;
    Row {
        name,
        trials: u64::from(totals.cycles),
        planned,
        outcomes,
        wrong: if fine { Vec::new() } else { totals.counts.examples },
        known: 0,
    }
}

fn of_tally(name: &'static str, tally: Tally) -> Row {
    let (old, new): (Vec<_>, Vec<_>) = tally.wrong.into_iter().partition(|f| known(name, &f.kind).is_some());
    Row {
        name,
        trials: tally.trials,
        planned: tally.planned,
        outcomes: tally.outcomes,
        wrong: new.into_iter().map(|f| format!("{}: {}", f.kind, f.what)).collect(),
        known: old.len() as u64,
    }
}

fn print(rows: &[Row]) {
    let mut table = Table::new(["test and outcome", "trials", "of", "wrong", "known"]);
    for row in rows {
        let mut cells = vec![row.name.to_owned()];
        cells.extend([row.trials, row.planned, row.wrong.len() as u64, row.known].map(|n| n.to_string()));
        table.row(cells);
        for (outcome, n) in &row.outcomes {
            table.row(vec![format!("  {outcome}"), n.to_string()]);
        }
    }
    println!();
    table.print();
    for row in rows {
        for finding in row.wrong.iter().take(SHOWN_MAX) {
            println!("\n{}, {finding}", row.name);
        }
    }
}
