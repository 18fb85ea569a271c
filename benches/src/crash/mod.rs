//! `kill -9` at random moments of upserts, payload changes, deletes, document replaces, seals and merges: nothing acknowledged
//! is lost, nothing comes back, nothing is torn.
//!
//! Every key is written by one writer, which waits for each answer: so the order of a key's operations is known, and at a kill each
//! writer has at most one operation of which nobody can say whether it happened. Intents and outcomes are in a file that the database
//! never sees ([`oracle`]); after each restart everything is read back and compared with what that file allows ([`judge`]).
//! One data directory lives through all cycles. Beside the writers, a reader checks that a document is never seen half replaced.

mod judge;
mod oracle;
mod work;

use std::ops::AddAssign;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use cairn_client::{Client, Field, Schema, VectorSpec};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use self::oracle::Oracle;
use self::work::World;
use crate::measure::median_and_max;
use crate::report::{Report, Table, Verdict};
use crate::server::{Launch, metric};

/// A server lives for at most this long after it is ready.
const LIFE_MS_MAX: u64 = 800;
/// Every so often a server is also killed while it is still opening, within this time.
const OPENING_MS_MAX: u64 = 120;
/// Seals, merges, memory merges and the copying of stragglers out of the log all happen many times.
const SETTINGS: [&str; 4] = [
    "engine.seal_rows=300",
    "engine.merge_fanin=3",
    "engine.log_bytes_max=400000",
    "log.filter=warn",
];

/// A graph need not find everything, but nearly.
const GRAPH_RECALL_MIN: f64 = 0.98;

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

/// What was counted over all cycles.
#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct Counts {
    /// Acknowledged states that are not there, or older than acknowledged.
    pub(crate) acked_lost: u64,
    /// Points or documents that nobody sent, or that were deleted.
    pub(crate) phantom: u64,
    /// Documents whose chunks are not all of one version, or not all of them.
    pub(crate) torn_documents: u64,
    /// Operations on several points of which only a part happened.
    pub(crate) torn_writes: u64,
    /// Vectors or payloads that are not what was sent.
    pub(crate) wrong_bytes: u64,
    /// Counts, filters and searches that do not agree with the scan.
    pub(crate) index_mismatch: u64,
    /// Reads beside the writers that saw a mix of two versions of a document.
    pub(crate) mixed_reads: u64,
    /// Reads beside the writers that saw less than was acknowledged before they began.
    pub(crate) stale_reads: u64,
    /// What exactly, for the first of them.
    pub(crate) examples: Vec<String>,
}

impl Counts {
    fn named(&self) -> [(&'static str, u64); 8] {
        [
            ("acked_lost", self.acked_lost),
            ("phantom", self.phantom),
            ("torn_documents", self.torn_documents),
            ("torn_writes", self.torn_writes),
            ("wrong_bytes", self.wrong_bytes),
            ("index_mismatch", self.index_mismatch),
            ("mixed_reads", self.mixed_reads),
            ("stale_reads", self.stale_reads),
        ]
    }

    fn all_zero(&self) -> bool {
        self.named().iter().all(|(_, n)| *n == 0)
    }

    pub(crate) fn example(&mut self, text: String) {
        if self.examples.len() < 10 {
            self.examples.push(text);
        }
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.acked_lost += other.acked_lost;
        self.phantom += other.phantom;
        self.torn_documents += other.torn_documents;
        self.torn_writes += other.torn_writes;
        self.wrong_bytes += other.wrong_bytes;
        self.index_mismatch += other.index_mismatch;
        self.mixed_reads += other.mixed_reads;
        self.stale_reads += other.stale_reads;
        for example in other.examples {
            self.example(example);
        }
    }
}

pub(crate) async fn run(args: Args) -> anyhow::Result<Verdict> {
    let mut report = Report::begin("crash")?;
    let seed = args.seed.unwrap_or_else(rand::random);
    println!("seed {seed}: cairn-bench crash --cycles {} --seed {seed}", args.cycles);
    let mut rng = StdRng::seed_from_u64(seed);
    let mut dir = tempfile::Builder::new().prefix("cairn-crash-").tempdir()?;
    let launch = Launch::new(dir.path(), &SETTINGS);
    let world = World::new(seed, Oracle::create(&dir.path().join("oracle.jsonl"))?);

    let started = Instant::now();
    let mut counts = Counts::default();
    let mut totals = Totals::default();
    let mut server = launch.start()?;
    prepare(&server.client().await?).await?;
    for cycle in 0..args.cycles {
        let beside = Beside::start(server.metrics_addr());
        let stop = Arc::new(AtomicBool::new(false));
        let client = server.client_without_retries().await?;
        let tasks = work::start(&world, &client, &stop, rng.random());
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..=LIFE_MS_MAX))).await;
        ensure!(
            server.is_alive(),
            "cycle {cycle}: the server ended by itself; its log:\n{}",
            launch.log_tail()
        );
        server.kill();
        stop.store(true, Ordering::Relaxed);
        let done = tasks.finish().await?;
        totals.add(&done, beside.stop().await);
        counts += done.counts;

        if rng.random_ratio(1, 5) {
            let opening = launch.spawn()?;
            tokio::time::sleep(Duration::from_millis(rng.random_range(0..=OPENING_MS_MAX))).await;
            drop(opening);
            totals.killed_opening += 1;
        }
        server = match launch.start() {
            Ok(server) => server,
            Err(e) => {
                totals.failed_opens += 1;
                counts.example(format!("cycle {cycle}: {e:#}"));
                break;
            }
        };
        totals.restart_s.push(server.ready_s);
        totals.replayed.push(server.metric("cairn_replayed_records")?);
        let client = server.client().await?;
        let judged = judge::judge(&world, &client, &mut rng)
            .await
            .with_context(|| format!("judging cycle {cycle}"))?;
        totals.cycles += 1;
        totals.live = (judged.points, judged.documents);
        totals.happened += judged.happened;
        totals.not_happened += judged.not_happened;
        totals.graph = (totals.graph.0 + judged.graph.0, totals.graph.1 + judged.graph.1);
        counts += judged.counts;
        if !counts.all_zero() {
            counts.example(format!("the above was found after cycle {cycle}"));
            break;
        }
    }

    let broken = tell(&totals, &counts, started.elapsed(), &mut report)?;
    if args.keep || !broken.is_empty() {
        dir.disable_cleanup(true);
        println!("kept: {}", dir.path().display());
    }
    Ok(Verdict::of(broken))
}

/// The two collections: points whose every byte we choose, and documents that the server cuts and embeds.
async fn prepare(client: &Client) -> anyhow::Result<()> {
    let dim = u32::try_from(work::DIM)?;
    let points = Schema::default()
        .vector("v", VectorSpec::new(dim))
        .field("writer", Field::Integer)
        .field("group", Field::Keyword)
        .field("note", Field::text())
        .shards(2);
    client.create_collection(work::POINTS, points).await?;
    client
        .create_collection(work::DOCUMENTS, Schema::documents().chunking(24, 0).shards(2))
        .await?;
    Ok(())
}

/// Sums over the cycles.
#[derive(Default)]
struct Totals {
    cycles: u32,
    killed_opening: u32,
    failed_opens: u32,
    acked: u64,
    refused: u64,
    unknown: u64,
    happened: u64,
    not_happened: u64,
    graph: (u64, u64),
    reads: u64,
    seals: f64,
    merges: f64,
    live: (usize, usize),
    restart_s: Vec<f64>,
    replayed: Vec<f64>,
}

impl Totals {
    fn add(&mut self, done: &work::Done, (seals, merges): (f64, f64)) {
        self.acked += done.acked;
        self.refused += done.refused;
        self.unknown += done.unknown;
        self.reads += done.reads;
        self.seals += seals;
        self.merges += merges;
    }
}

fn tell(totals: &Totals, counts: &Counts, elapsed: Duration, report: &mut Report) -> anyhow::Result<Vec<String>> {
    let (restart, restart_max) = median_and_max(totals.restart_s.clone());
    let (replayed, replayed_max) = median_and_max(totals.replayed.clone());
    let (asked, found) = totals.graph;
    let graph_recall = found as f64 / asked.max(1) as f64;
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
    if asked > 0 && graph_recall < GRAPH_RECALL_MIN {
        broken.push(format!(
            "graphs find only {graph_recall:.3} of the points by their own vectors"
        ));
    }
    if totals.failed_opens > 0 {
        broken.push("the data directory could not be opened again".to_owned());
    }
    Ok(broken)
}

/// Watches how many seals and merges a server does until it is gone.
struct Beside {
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<(f64, f64)>,
}

impl Beside {
    fn start(metrics_addr: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, addr) = (Arc::clone(&stop), metrics_addr.to_owned());
        let task = tokio::task::spawn_blocking(move || {
            let mut last = (0.0, 0.0);
            while !stopped.load(Ordering::Relaxed) {
                let Ok(seals) = metric(&addr, "cairn_seals") else { break };
                last = (seals, metric(&addr, "cairn_merges").unwrap_or(last.1));
                std::thread::sleep(Duration::from_millis(40));
            }
            last
        });
        Self { stop, task }
    }

    async fn stop(self) -> (f64, f64) {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap_or_default()
    }
}
