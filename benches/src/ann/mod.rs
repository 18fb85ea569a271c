//! The index core beside other libraries: recall against queries a second, build time, memory.
//!
//! Everybody gets the same vectors and the same queries in one run on one machine: ours and those written in Rust in this
//! process ([`crates`]), the others in Python processes of their own (`peers.py`), all by one call for all queries. Rounds
//! alternate between them, and what is reported is the median of the rounds with the least and the most, since a machine that
//! others use is never twice the same. A peer that is not installed, or not compiled in, is skipped, and that is said.
//!
//! Recall@10 counts an answer as right if it is as near as the tenth of the exact answer. Queries a second at a recall are
//! interpolated between the settings swept, on a logarithmic scale.

pub(crate) mod cases;
mod crates;
pub(crate) mod ours;
pub(crate) mod peer;
mod plot;

use std::time::Instant;

use anyhow::ensure;

use crate::place;
use crate::report::{Report, Table, Verdict};
use cases::Case;
use ours::Ours;
use peer::Peer;

/// Recalls at which speed is compared.
const TARGETS: [f64; 2] = [0.95, 0.99];
/// Answers asked for.
pub(crate) const K: usize = 10;
/// Candidates that a walk keeps, from fast to thorough.
const EFS: [usize; 11] = [10, 14, 20, 28, 40, 56, 80, 120, 180, 260, 380];

/// Options of `cairn-bench ann`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// What to measure: wordnet, wordnet-heldout, fashion, glove, clustered1m; and wordnet-bits, fashion-bits, where a bit says whether
    /// a number is above 0, by hamming.
    #[arg(long = "case", value_delimiter = ',', default_value = "wordnet,fashion")]
    cases: Vec<String>,
    /// Other libraries: symphonyqg, svs, hnswlib, faiss-hnsw, faiss-ivfpq, usearch, qdrant-edge; of bits usearch, faiss-binary-hnsw,
    /// faiss-binary-ivf; and with the feature `peers-rust` hnsw_rs, diskann, diskann-int8.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "symphonyqg,svs,hnswlib,faiss-hnsw,faiss-ivfpq,usearch,qdrant-edge,hnsw_rs,diskann,diskann-int8"
    )]
    peers: Vec<String>,
    /// Of ours: cairn-int4-packs, cairn-int8-packs, cairn-int4, cairn-int8, cairn-f32; cairn-bits of bits.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "cairn-int4-packs,cairn-int8-packs,cairn-int4,cairn-int8,cairn-f32,cairn-bits"
    )]
    ours: Vec<String>,
    /// Rounds of all settings.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Queries.
    #[arg(long, default_value_t = 2_000)]
    queries: usize,
    /// Threads that build.
    #[arg(long, default_value_t = 2)]
    build_threads: usize,
    /// Python with the other libraries (`scripts/peers.sh` makes one; CAIRN_BENCH_PYTHON names another).
    #[arg(long, default_value_t = place::python())]
    python: String,
    /// Folder for plots, one SVG a case.
    #[arg(long)]
    plots: Option<std::path::PathBuf>,
}

impl Args {
    pub(crate) fn short() -> Self {
        Self {
            cases: vec!["wordnet".into()],
            peers: ["hnswlib", "hnsw_rs"].map(Into::into).to_vec(),
            ours: ["cairn-int4-packs", "cairn-int4", "cairn-int8", "cairn-f32"]
                .map(Into::into)
                .to_vec(),
            rounds: 1,
            queries: 500,
            build_threads: 2,
            python: place::python(),
            plots: None,
        }
    }
}

/// Somebody who is measured.
pub(crate) trait Contestant {
    fn name(&self) -> &str;
    /// Threads of a search that make sense.
    fn threads(&self) -> &[usize];
    /// Settings to sweep, from fast to thorough.
    fn values(&self) -> &[usize];
    fn build(&mut self, threads: usize) -> anyhow::Result<Built>;
    /// Answers all queries: seconds, and ten ids a query (-1: none).
    fn search(&mut self, value: usize, threads: usize) -> anyhow::Result<(f64, Vec<i32>)>;
}

/// What building took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Built {
    pub(crate) seconds: f64,
    pub(crate) memory_mib: f64,
    /// Missing if it cannot be saved.
    pub(crate) disk_mib: Option<f64>,
}

/// Recall and queries a second of each setting.
pub(crate) type Curve = Vec<(f64, f64)>;

/// Curves by threads (from 1), of each round.
pub(crate) struct Measured {
    name: String,
    built: Built,
    rounds: Vec<[Curve; 2]>,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<Verdict> {
    tokio::task::spawn_blocking(move || measure(&args)).await?
}

fn measure(args: &Args) -> anyhow::Result<Verdict> {
    ensure!(args.rounds > 0, "at least one round");
    let mut report = Report::begin("ann")?;
    cases::each(&args.cases, args.queries, |case| one_case(args, case, &mut report))
}

fn one_case(args: &Args, case: &Case, report: &mut Report) -> anyhow::Result<()> {
    println!(
        "\n{}: {} x {}{}, {:?}, {} queries, {} rounds",
        case.name,
        case.rows(),
        case.dim,
        if case.has_halves() { " (which halves hold)" } else { "" },
        case.metric,
        case.query_count(),
        args.rounds
    );
    let place = tempfile::tempdir()?;
    case.write(place.path())?;
    let ours = Ours::all(case);
    let mut contestants: Vec<Box<dyn Contestant + '_>> = Vec::new();
    let ours = ours
        .into_iter()
        .filter(|one| args.ours.iter().any(|name| name == one.name()));
    contestants.extend(ours.map(|o| Box::new(o) as Box<dyn Contestant>));
    for name in &args.peers {
        let started = match crates::start(name, case) {
            Some(started) => started,
            None => Peer::start(&args.python, name, place.path(), case.metric, case.query_count(), None)?
                .map(|peer| Box::new(peer) as Box<dyn Contestant>),
        };
        match started {
            Ok(peer) => contestants.push(peer),
            Err(why) => println!("\n******** SKIPPED: peer {name}: {why} ********\n"),
        }
    }
    let all = compare(contestants, case, args.build_threads, args.rounds)?;
    tell(case, &all, report)?;
    if let Some(folder) = &args.plots {
        let curves: Vec<(&str, &Curve)> = all
            .iter()
            .filter_map(|m| Some((m.name.as_str(), &m.rounds.first()?[0])))
            .collect();
        let title = format!("{} ({} x {}), one thread", case.name, case.rows(), case.dim);
        std::fs::create_dir_all(folder)?;
        std::fs::write(
            folder.join(format!("ann-{}.svg", case.name)),
            plot::svg(&title, &curves),
        )?;
    }
    Ok(())
}

/// Lets everybody build, and then answer in rounds that alternate between them.
pub(crate) fn compare(
    contestants: Vec<Box<dyn Contestant + '_>>,
    case: &Case,
    build_threads: usize,
    rounds: usize,
) -> anyhow::Result<Vec<Measured>> {
    let mut all = Vec::new();
    let mut kept = Vec::new();
    for mut contestant in contestants {
        match contestant.build(build_threads) {
            Ok(built) => {
                all.push(Measured {
                    name: contestant.name().to_owned(),
                    built,
                    rounds: Vec::new(),
                });
                kept.push(contestant);
            }
            Err(why) => println!(
                "\n******** SKIPPED: {} does not build: {why:#} ********\n",
                contestant.name()
            ),
        }
    }
    // The first answers of everybody warm up, and are not counted.
    for contestant in &mut kept {
        contestant.search(contestant.values()[0], 1)?;
    }
    for _ in 0..rounds {
        for (contestant, measured) in kept.iter_mut().zip(&mut all) {
            measured.rounds.push(sweep(contestant.as_mut(), case)?);
        }
    }
    Ok(all)
}

/// Answers all queries of a case by so many threads, each a stretch of them one by one: seconds, and ten ids a query. `answer`
/// gets the number of a query and the place of its ids.
fn answer_all(
    case: &Case,
    threads: usize,
    answer: impl Fn(usize, &mut [i32]) -> anyhow::Result<()> + Sync,
) -> anyhow::Result<(f64, Vec<i32>)> {
    let mut ids = vec![-1; case.query_count() * K];
    let share = case.query_count().div_ceil(threads);
    let answer = &answer;
    let started = Instant::now();
    let outcome: anyhow::Result<()> = std::thread::scope(|scope| {
        let workers: Vec<_> = ids
            .chunks_mut(share * K)
            .enumerate()
            .map(|(part, ids)| {
                scope.spawn(move || {
                    let mut places = ids.chunks_exact_mut(K).enumerate();
                    places.try_for_each(|(i, ids)| answer(part * share + i, ids))
                })
            })
            .collect();
        workers
            .into_iter()
            .try_for_each(|w| w.join().expect("a search does not panic"))
    });
    let seconds = started.elapsed().as_secs_f64();
    outcome?;
    Ok((seconds, ids))
}

fn sweep(contestant: &mut dyn Contestant, case: &Case) -> anyhow::Result<[Curve; 2]> {
    let mut curves = [Curve::new(), Curve::new()];
    for threads in contestant.threads().to_vec() {
        for value in contestant.values().to_vec() {
            let (seconds, ids) = contestant.search(value, threads)?;
            let per_second = case.query_count() as f64 / seconds;
            curves[threads - 1].push((case.recall(&ids), per_second));
        }
    }
    Ok(curves)
}

pub(crate) fn tell(case: &Case, all: &[Measured], report: &mut Report) -> anyhow::Result<()> {
    let mut table = Table::new([
        "who",
        "1T @.95",
        "1T @.99",
        "2T @.95",
        "2T @.99",
        "best recall",
        "build s",
        "memory MiB",
        "disk MiB",
    ]);
    for measured in all {
        let peer = (!measured.name.starts_with("cairn")).then_some(measured.name.as_str());
        let case_name = match peer {
            Some(_) => case.name.clone(),
            None => format!("{}/{}", case.name, measured.name),
        };
        let mut row = vec![measured.name.clone()];
        for (threads, prefix) in [(0, "qps"), (1, "qps2t")] {
            for target in TARGETS {
                let at: Vec<f64> = measured
                    .rounds
                    .iter()
                    .filter_map(|round| interpolate(&round[threads], target))
                    .collect();
                row.push(match spread(at) {
                    Some((least, median, most)) => {
                        let metric = format!("{prefix}@{target}");
                        for (which, value) in [("", median), ("/min", least), ("/max", most)] {
                            report.record_peer(&case_name, &format!("{metric}{which}"), value, "queries/s", peer)?;
                        }
                        format!("{median:.0} ({least:.0}-{most:.0})")
                    }
                    None => "not reached".to_owned(),
                });
            }
        }
        let best = measured.rounds.iter().flatten().flatten().map(|(recall, _)| *recall);
        let best = best.fold(0.0, f64::max);
        let b = measured.built;
        row.extend([
            format!("{best:.4}"),
            format!("{:.1}", b.seconds),
            format!("{:.0}", b.memory_mib),
            b.disk_mib.map_or_else(|| "none".to_owned(), |mib| format!("{mib:.0}")),
        ]);
        table.row(row);
        for (metric, value, unit) in [
            ("recall_max", Some(best), "share"),
            ("build_s", Some(b.seconds), "s"),
            ("rss_mb", Some(b.memory_mib), "MiB"),
            ("disk_mb", b.disk_mib, "MiB"),
        ] {
            if let Some(value) = value {
                report.record_peer(&case_name, metric, value, unit, peer)?;
            }
        }
    }
    table.print();
    Ok(())
}

/// Least, median, most.
fn spread(mut values: Vec<f64>) -> Option<(f64, f64, f64)> {
    values.sort_by(f64::total_cmp);
    let (least, most) = (*values.first()?, *values.last()?);
    // Of an even number the mean of the two in the middle.
    let [low, high] = [values[(values.len() - 1) / 2], values[values.len() / 2]];
    Some((least, (low + high) / 2.0, most))
}

/// Queries a second at a recall: on the line between the two settings around it, of those that no other beats in both.
pub(crate) fn interpolate(curve: &Curve, target: f64) -> Option<f64> {
    let mut front: Curve = curve
        .iter()
        .filter(|(recall, speed)| {
            !curve
                .iter()
                .any(|(r, s)| (r > recall && s >= speed) || (r >= recall && s > speed))
        })
        .copied()
        .collect();
    front.sort_by(|a, b| a.0.total_cmp(&b.0));
    let above = front.iter().position(|(recall, _)| *recall >= target)?;
    let (recall, speed) = front[above];
    let Some((below_recall, below_speed)) = above.checked_sub(1).map(|i| front[i]) else {
        // Even the fastest setting is better than asked.
        return Some(speed);
    };
    let share = (target - below_recall) / (recall - below_recall);
    Some((below_speed.ln() * (1.0 - share) + speed.ln() * share).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speed_at_a_recall_is_read_off_the_front() {
        let curve = vec![(0.90, 1000.0), (0.93, 100.0), (0.96, 400.0), (0.999, 100.0)];
        assert_eq!(interpolate(&curve, 0.80), Some(1000.0));
        assert!((interpolate(&curve, 0.93).unwrap() - 1000f64.sqrt() * 400f64.sqrt()).abs() < 1e-6);
        assert!((interpolate(&curve, 0.96).unwrap() - 400.0).abs() < 1e-6);
        assert_eq!(interpolate(&curve, 1.0), None);
    }
}
