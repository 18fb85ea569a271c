//! `kill -9` at random moments of upserts, payload changes, deletes, document replaces, seals and merges: nothing acknowledged is
//! lost, nothing comes back, nothing is torn.
//!
//! One data directory lives through all cycles. Beside the writers, a reader checks that a document is never seen half replaced.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::crash::oracle::Oracle;
use crate::crash::work::{self, World};
use crate::crash::{Counts, judge, prepare};
use crate::process::{Launch, metric};

/// Every so often a server is also killed while it is still opening, within this time.
const OPENING_MS_MAX: u64 = 120;
/// Of points that are searched by their own vectors a graph need not find all, but nearly.
pub const GRAPH_RECALL_MIN: f64 = 0.98;
/// Seals, graphs, merges, memory merges and the copying of stragglers out of the log all happen many times.
pub const SETTINGS: [&str; 5] = [
    "engine.seal_rows=300",
    "engine.graph_rows_min=100",
    "engine.merge_fanin=3",
    "engine.log_bytes_max=400000",
    "log.filter=warn",
];

/// How much of it.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub cycles: u32,
    /// Of everything random but the scheduling.
    pub seed: u64,
    /// A server lives for at most this long after it is ready.
    pub life_ms_max: u64,
    /// No cycle begins after this time.
    pub time: Duration,
}

/// Sums over the cycles.
#[derive(Default)]
pub struct Totals {
    pub cycles: u32,
    pub killed_opening: u32,
    pub failed_opens: u32,
    pub acked: u64,
    pub refused: u64,
    pub unknown: u64,
    /// Unknown operations that had happened, and those that had not.
    pub happened: u64,
    pub not_happened: u64,
    /// Searches of points by their own vectors that walked a graph, and those that found them first.
    pub graph: (u64, u64),
    pub reads: u64,
    pub seals: f64,
    pub merges: f64,
    /// Points and documents that are there at the end.
    pub live: (usize, usize),
    pub restart_s: Vec<f64>,
    pub replayed: Vec<f64>,
    pub counts: Counts,
}

impl Totals {
    pub(super) fn add(&mut self, done: work::Done, (seals, merges): (f64, f64)) {
        self.acked += done.acked;
        self.refused += done.refused;
        self.unknown += done.unknown;
        self.reads += done.reads;
        self.seals += seals;
        self.merges += merges;
        self.counts += done.counts;
    }

    /// The share of the searches by graph that found the point whose vector was asked for; 1 if there was none.
    pub fn graph_recall(&self) -> f64 {
        match self.graph {
            (0, _) => 1.0,
            (asked, found) => found as f64 / asked as f64,
        }
    }

    /// Together with what happened to another database.
    pub fn merge(&mut self, other: Self) {
        self.cycles += other.cycles;
        self.killed_opening += other.killed_opening;
        self.failed_opens += other.failed_opens;
        self.acked += other.acked;
        self.refused += other.refused;
        self.unknown += other.unknown;
        self.happened += other.happened;
        self.not_happened += other.not_happened;
        self.graph = (self.graph.0 + other.graph.0, self.graph.1 + other.graph.1);
        self.reads += other.reads;
        self.seals += other.seals;
        self.merges += other.merges;
        self.live = (self.live.0 + other.live.0, self.live.1 + other.live.1);
        self.restart_s.extend(other.restart_s);
        self.replayed.extend(other.replayed);
        self.counts += other.counts;
    }

    pub(super) fn judged(&mut self, judged: judge::Judged) {
        self.cycles += 1;
        self.live = (judged.points, judged.documents);
        self.happened += judged.happened;
        self.not_happened += judged.not_happened;
        self.graph = (self.graph.0 + judged.graph.0, self.graph.1 + judged.graph.1);
        self.counts += judged.counts;
    }
}

/// Runs it with everything in `dir`: data, oracle, the servers' log. Ends at the first cycle after which something is wrong.
pub async fn run(dir: &Path, plan: Plan) -> anyhow::Result<Totals> {
    let began = std::time::Instant::now();
    let mut rng = StdRng::seed_from_u64(plan.seed);
    let launch = Launch::new(dir, &SETTINGS);
    let world = World::new(plan.seed, Oracle::create(&dir.join("oracle.jsonl"))?);
    let mut totals = Totals::default();
    let mut server = launch.start()?;
    prepare(&server.client().await?).await?;
    for cycle in 0..plan.cycles {
        if began.elapsed() > plan.time {
            break;
        }
        let beside = Beside::start(server.metrics_addr());
        let stop = Arc::new(AtomicBool::new(false));
        let client = server.client_without_retries().await?;
        let tasks = work::start(&world, &client, &stop, rng.random());
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..=plan.life_ms_max))).await;
        ensure!(
            server.is_alive(),
            "cycle {cycle}: the server ended by itself; its log:\n{}",
            launch.log_tail()
        );
        server.kill();
        stop.store(true, Ordering::Relaxed);
        let done = tasks.finish().await?;
        totals.add(done, beside.stop().await);

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
                totals.counts.example(format!("cycle {cycle}: {e:#}"));
                break;
            }
        };
        totals.restart_s.push(server.ready_s);
        totals.replayed.push(server.metric("cairn_replayed_records")?);
        let client = server.client().await?;
        let judged = judge::judge(&world, &client, &mut rng)
            .await
            .with_context(|| format!("judging cycle {cycle}"))?;
        totals.judged(judged);
        if !totals.counts.all_zero() {
            totals
                .counts
                .example(format!("the above was found after cycle {cycle}"));
            break;
        }
    }
    Ok(totals)
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
