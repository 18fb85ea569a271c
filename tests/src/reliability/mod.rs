//! What the promises about crashes, power, broken and full disks, and damage are worth: tests of the real server, as functions of how
//! much. `make test` runs them at the numbers of a pull request, `make torture` at those of a release.
//!
//! | | what happens | what must hold |
//! |---|---|---|
//! | R1 [`kill`] | `kill -9` under load | nothing acknowledged is lost, nothing comes back |
//! | R2 [`power`] | loss of power under load: what was not synced is gone, or a part of it | the same |
//! | R2 [`window`] | loss of power under writes that are acknowledged before their fsync | a suffix is lost, and nothing older than the window |
//! | R3 [`torn`] | loss of power at each write of a script, that write torn | it opens, with a prefix of the script that holds all that was acknowledged |
//! | R3 [`reopened`] | loss of power while what a killed process left is opened, and just after | the same; all that was there, once it was ready |
//! | R4 [`manifests`] | the fsync fails, or the power goes, when `CURRENT` was just given a new manifest | it opens, with all that was acknowledged |
//! | R4 [`refused`] | one write, fsync or change of a name fails | no answer after a failed fsync of the log, the process ends, what was acknowledged is there |
//! | R5 [`full`] | the disk is full | writes are refused and say why, reads go on, and writes too when there is space |
//! | R6 [`damage`] | a bit flipped, a file cut or removed | refused, an error, or no difference: never a wrong answer; a damaged segment is set aside alone |
//! | R6 [`repaired`] | loss of power while `cairn repair` works, and just after | the same command again comes to its end, and what was done is done |
//! | R14 [`restored`] | loss of power while a collection is brought back under another name, and just after | the copy is whole or not there, and there once it was said to be done |
//!
//! All randomness follows from a seed; what threads do first does not. A finding therefore comes with the steps before it.

pub mod damage;
pub mod full;
pub mod kill;
pub mod manifests;
pub mod power;
pub mod refused;
pub mod reopened;
pub mod repaired;
pub mod restored;
pub mod torn;
pub mod window;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tempfile::TempDir;

use crate::crash::judge::{self, Judged, Seen};
use crate::crash::prepare;
use crate::crash::script::Script;
use crate::faultfs::{FaultFs, Image, Run, Unsynced};
use crate::process::{Launch, Server};

/// Small data in which all that takes place all the same: seals, graphs, merges, flushes.
const SETTINGS: [&str; 6] = [
    "engine.seal_rows=60",
    "engine.graph_rows_min=40",
    "engine.graph_packs=true",
    "engine.merge_fanin=3",
    "engine.log_bytes_max=100000",
    "log.filter=warn",
];

/// The outcome of a trial whose place was not passed: threads were quicker or slower than when places were counted.
const NOT_REACHED: &str = "not reached";

/// How much of a test.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Trials. A test that has only so many different ones does these.
    pub trials: usize,
    pub seed: u64,
    /// No trial begins after this time.
    pub time: Duration,
    /// Trials at the same time: much of one is waiting, for a process to open or to end.
    pub lanes: usize,
}

impl Plan {
    /// Does trials that do not depend on each other, in their order, several at the same time. The randomness of a trial follows from
    /// the seed and its place, so it is the same whatever ran beside it.
    pub(crate) fn each<T: Sync>(
        &self,
        began: Instant,
        trials: &[T],
        check: impl AsyncFn(&T, &mut StdRng, &mut Tally) -> anyhow::Result<()> + Sync,
    ) -> anyhow::Result<Tally> {
        let next = AtomicUsize::new(0);
        let lane = || {
            let runtime = runtime()?;
            let mut tally = Tally::default();
            loop {
                let place = next.fetch_add(1, Ordering::Relaxed);
                let Some(trial) = trials.get(place).filter(|_| began.elapsed() <= self.time) else {
                    return Ok(tally);
                };
                let mut rng = StdRng::seed_from_u64(self.seed ^ (place as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
                tally.trials += 1;
                runtime.block_on(check(trial, &mut rng, &mut tally))?;
            }
        };
        let mut all = Tally {
            planned: trials.len() as u64,
            ..Tally::default()
        };
        for tally in side_by_side(self.lanes, |_| lane())? {
            all.add(tally);
        }
        Ok(all)
    }
}

/// Calls it for the numbers below `lanes`, each on a thread of its own.
pub fn side_by_side<T: Send>(lanes: usize, lane: impl Fn(usize) -> anyhow::Result<T> + Sync) -> anyhow::Result<Vec<T>> {
    let all = || {
        std::thread::scope(|scope| {
            let lane = &lane;
            let running: Vec<_> = (0..lanes.max(1)).map(|n| scope.spawn(move || lane(n))).collect();
            let ended = running.into_iter().map(|lane| lane.join());
            ended
                .map(|ended| ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect()
        })
    };
    match tokio::runtime::Handle::try_current() {
        Ok(_) => tokio::task::block_in_place(all),
        Err(_) => all(),
    }
}

/// What one lane runs on: starting and ending servers blocks, which must not hold up the others.
pub fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    Ok(builder.worker_threads(2).enable_all().build()?)
}

/// What came of the trials of a test.
#[derive(Debug, Default)]
pub struct Tally {
    pub trials: u64,
    /// How many there would have been with enough time.
    pub planned: u64,
    /// By outcome, how often.
    pub outcomes: BTreeMap<String, u64>,
    pub wrong: Vec<Finding>,
}

/// A promise that did not hold.
#[derive(Debug)]
pub struct Finding {
    /// What it is an instance of.
    pub kind: String,
    /// All that one needs to see it again.
    pub what: String,
}

impl Tally {
    fn outcome(&mut self, outcome: impl Into<String>) {
        *self.outcomes.entry(outcome.into()).or_default() += 1;
    }

    /// Trials in which what was to go wrong came to be.
    pub fn reached(&self) -> u64 {
        self.trials - self.outcomes.get(NOT_REACHED).copied().unwrap_or_default()
    }

    /// Together with another part of the same test.
    pub fn add(&mut self, other: Self) {
        self.trials += other.trials;
        self.planned += other.planned;
        for (outcome, n) in other.outcomes {
            *self.outcomes.entry(outcome).or_default() += n;
        }
        self.wrong.extend(other.wrong);
    }

    fn wrong(&mut self, kind: impl Into<String>, what: String) {
        let kind = kind.into();
        self.outcome(format!("WRONG: {kind}"));
        self.wrong.push(Finding { kind, what });
    }
}

/// Promises that do not hold yet: the test, how the kind of its finding begins, and what is missing. Each is a debt: whoever pays it
/// takes it out.
const KNOWN: [(&str, &str, &str); 2] = [
    (
        "R6",
        "Wal cut: the end is lost",
        "a log that is cut between two groups of records ends as if they had never been written",
    ),
    (
        "R6",
        "Wal removed: the end is lost",
        "nothing outside the newest log says that there was one",
    ),
];

/// What is missing so that such a finding would not be.
pub fn known(test: &str, kind: &str) -> Option<&'static str> {
    let found = KNOWN
        .iter()
        .find(|(of, begins, _)| *of == test && kind.starts_with(begins));
    found.map(|(.., missing)| *missing)
}

/// A file system under a server.
pub struct Stage {
    fs: FaultFs,
    launch: Launch,
    log: PathBuf,
    _logs: TempDir,
}

impl Stage {
    /// Mounts it.
    pub fn new(image: Image, settings: &[&str]) -> anyhow::Result<Self> {
        let logs = tempfile::tempdir()?;
        let log = logs.path().join("server.log");
        let fs = FaultFs::mount(image)?;
        let launch = Launch::at(&fs.path().join("data"), &log, settings);
        Ok(Self {
            fs,
            launch,
            log,
            _logs: logs,
        })
    }

    /// Looks at the data without a server: the exit code of `cairn check`, and what it says.
    fn check(&self) -> anyhow::Result<(Option<i32>, String)> {
        let output = crate::process::cairn()?
            .arg("check")
            .arg(self.launch.data_dir())
            .output()
            .context("cairn check")?;
        let said = [output.stdout, output.stderr].concat();
        Ok((output.status.code(), String::from_utf8_lossy(&said).into_owned()))
    }

    /// Kills the server and unmounts.
    fn end(self, server: Server) -> anyhow::Result<Run> {
        server.kill();
        Ok(self.fs.unmount()?)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

/// What became of that which was not synced when the power went: mostly each change by chance, sometimes none is there.
fn by_chance(rng: &mut StdRng) -> Unsynced {
    match rng.random_ratio(1, 5) {
        true => Unsynced::Lost,
        false => Unsynced::Some(rng.random()),
    }
}

/// A database in which the first operations of a script were done, as the death of its server left it: sealed segments and tables of
/// RocksDB, and a write-ahead log with the last operations.
async fn written(script: &Script, ops: usize) -> anyhow::Result<Image> {
    let stage = Stage::new(Image::default(), &SETTINGS)?;
    let server = stage.launch.start()?;
    let client = server.client_without_retries().await?;
    prepare(&client).await?;
    let said = script.play(&client, 0..ops, || 0).await;
    for said in said {
        said.answer.context("a script on a healthy disk")?;
    }
    // Background work follows; without it there would be no sealed file.
    let patience = Instant::now() + Duration::from_secs(60);
    while server.metric("cairn_seals")? < 2.0 {
        ensure!(Instant::now() < patience, "nothing is sealed after {ops} operations");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(stage.end(server)?.crashed(Unsynced::Kept))
}

/// Reads all of a database, by the scan and in other ways.
async fn look(script: &Script, server: &Server, rng: &mut StdRng) -> anyhow::Result<(Seen, Judged)> {
    let client = server.client_without_retries().await?;
    let seen = judge::read_back(script.content, &client).await?;
    let mut judged = Judged::default();
    judge::other_ways(script.content, &client, &seen, rng, &mut judged).await?;
    // So few searches say nothing of a share; but a graph that finds hardly anything is broken.
    let (asked, found) = judged.graph;
    if found * 2 < asked {
        judged.counts.index_mismatch += 1;
        let what = format!("of {asked} points that were searched by graph with their own vectors {found} are found");
        judged.counts.example(what);
    }
    Ok((seen, judged))
}
