//! Search while points are written, replaced and deleted, and what much replacing leaves: rate, latency and recall at shares of the
//! peak rate of writes; processor time and bytes written; recall after 20 % and 50 % were replaced, before and after background work
//! caught up, beside an index that is built of the same points at once. In this process, with the threads of a server.
//!
//! Promised: recall@10 of at least 0.95 with the default settings at any moment, never fewer hits than wanted, and after maintenance
//! within 0.01 of a fresh build, with the default settings and at one `ef`, which tells graphs from what was measured of each.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use cairn_engine::config::{Components, Settings};
use cairn_engine::engine::{Engine, Maintained, Selector, WriteOptions};
use cairn_engine::error::ErrorKind;
use cairn_engine::query::{Hit, Params, Query, QueryResult, Source};
use cairn_engine::schema::{Chunking, Metric, Schema, VectorSpec};
use cairn_engine::types::{PointId, PointInput};
use cairn_tests::process::cpu_seconds;
use hdrhistogram::Histogram;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use crate::ann::cases;
use crate::ann::ours::helpers;
use crate::place::WallClock;
use crate::report::{Report, Table, Verdict};

/// Options of `cairn-bench churn`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Points at most.
    #[arg(long, default_value_t = 100_000)]
    points: usize,
    /// Questions, asked in turn.
    #[arg(long, default_value_t = 500)]
    questions: usize,
    /// Seconds at each rate of writes.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Rates of writes, in percent of the peak.
    #[arg(long, value_delimiter = ',', default_values_t = [25, 50, 75])]
    rates: Vec<u32>,
    /// Points that are replaced before recall is measured again, in percent of all.
    #[arg(long, value_delimiter = ',', default_values_t = [20, 50])]
    replaced: Vec<u32>,
    /// Threads of a build.
    #[arg(long, default_value_t = 2)]
    threads: usize,
}

impl Args {
    pub(crate) fn short() -> Self {
        Self {
            points: 20_000,
            questions: 200,
            seconds: 3,
            rates: vec![50],
            replaced: vec![20],
            threads: 2,
        }
    }
}

const K: usize = 10;
const RECALL_MIN: f64 = 0.95;
/// How far recall after maintenance may be from a fresh build's.
const FRESH_SLACK: f64 = 0.01;
/// The effort at which the two are compared, too.
const EF: usize = 64;
/// Points of a write.
const BATCH: usize = 100;
/// Of these the ids that are deleted, to be written again by the next.
const DELETED: usize = 10;
/// While points are written, every so many questions are asked exactly too.
const SAMPLE: usize = 20;
const MAINTAINERS: usize = 2;
const NAME: &str = "churn";

/// All vectors, and which of them each point has now.
struct Points {
    dim: usize,
    vectors: Vec<f32>,
    now: Vec<usize>,
    rng: StdRng,
}

impl Points {
    fn count(&self) -> usize {
        self.now.len()
    }

    fn id(point: usize) -> anyhow::Result<PointId> {
        Ok(PointId::new(format!("{point:07}"))?)
    }

    fn input(&self, point: usize) -> anyhow::Result<PointInput> {
        let at = self.now[point] * self.dim;
        let vector = self.vectors[at..at + self.dim].to_vec();
        Ok(PointInput {
            id: Self::id(point)?,
            vectors: [("v".to_owned(), vector)].into_iter().collect(),
            sparse: Default::default(),
            payload: [("n".to_owned(), point.into())].into_iter().collect(),
            document: None,
            expires_at_ms: None,
        })
    }

    fn write(&self, engine: &Engine, points: &[usize]) -> anyhow::Result<()> {
        let inputs = points.iter().map(|point| self.input(*point));
        let inputs: Vec<PointInput> = inputs.collect::<anyhow::Result<_>>()?;
        engine.upsert(NAME, inputs, &WriteOptions::default())?;
        Ok(())
    }

    /// Another vector of the same set for a point.
    fn change(&mut self, point: usize) {
        self.now[point] = self.rng.random_range(0..self.vectors.len() / self.dim);
    }
}

/// What searching was like.
struct Searched {
    per_second: f64,
    latency: Histogram<u64>,
    recall: f64,
    /// Recall at [`EF`], where nobody writes.
    at_ef: Option<f64>,
    short: usize,
}

impl Searched {
    fn ms(&self, quantile: f64) -> f64 {
        self.latency.value_at_quantile(quantile) as f64 / 1e3
    }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Verdict> {
    ensure!(
        args.points >= BATCH && args.questions > 0,
        "at least {BATCH} points and a question"
    );
    let mut report = Report::begin("churn")?;
    let (dim, vectors, asked) = match cases::wordnet()? {
        Ok((base, asked)) => (384, base, asked),
        Err(why) => {
            println!("\n******** made vectors instead of WordNet: {why} ********\n");
            let all = cases::clustered(args.points + 1_000, 96);
            let (base, asked) = cases::hold_out(&all, 96, 1_000);
            (96, base, asked)
        }
    };
    let count = args.points.min(vectors.len() / dim);
    let mut points = Points {
        dim,
        vectors,
        now: (0..count).collect(),
        rng: StdRng::seed_from_u64(1),
    };
    let questions: Vec<&[f32]> = asked.chunks_exact(dim).take(args.questions).collect();

    let at_ef = format!("at ef {EF}");
    let mut table = Table::new([
        "case",
        "writes/s",
        "queries/s",
        "p50 ms",
        "p99 ms",
        "recall@10",
        at_ef.as_str(),
        "segments",
    ]);
    let mut broken = Vec::new();
    let dir = tempfile::tempdir()?;
    let engine = open(dir.path(), args.threads)?;
    create(&engine, dim)?;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| -> anyhow::Result<()> {
        let maintainers: Vec<_> = (0..MAINTAINERS)
            .map(|_| scope.spawn(|| maintain(&engine, &stop)))
            .collect();
        let result = phases(
            args,
            &engine,
            &mut points,
            &questions,
            &mut report,
            &mut table,
            &mut broken,
        );
        stop.store(true, Ordering::Relaxed);
        for maintainer in maintainers {
            maintainer.join().expect("background work does not panic")?;
        }
        result
    })?;
    table.print();
    Ok(Verdict::of(broken))
}

fn phases(
    args: &Args,
    engine: &Engine,
    points: &mut Points,
    questions: &[&[f32]],
    report: &mut Report,
    table: &mut Table,
    broken: &mut Vec<String>,
) -> anyhow::Result<()> {
    // As fast as it goes, waiting for background work where the engine makes writers wait.
    let (started, before) = (Instant::now(), Spent::now()?);
    let all: Vec<usize> = (0..points.count()).collect();
    all.chunks(BATCH).try_for_each(|some| points.write(engine, some))?;
    let peak = points.count() as f64 / started.elapsed().as_secs_f64();
    settle(engine)?;
    let spent = Spent::now()?.since(&before);
    let millions = points.count() as f64 / 1e6;
    println!(
        "{} points of {} dimensions at {peak:.0} a second; with all background work {:.0} s of processor time and {:.2} GB written for a million",
        points.count(),
        points.dim,
        spent.cpu_s / millions,
        spent.written as f64 / 1e9 / millions
    );
    report.record("load", "peak", peak, "points/s")?;
    report.record("load", "cpu", spent.cpu_s / millions, "s/million")?;
    report.record("load", "written", spent.written as f64 / millions, "bytes/million")?;

    let mut judge =
        |case: &str, rate: Option<f64>, searched: &Searched, fresh: Option<&Searched>| -> anyhow::Result<()> {
            let segments = engine.collection(NAME)?.segments;
            table.row(vec![
                case.to_owned(),
                rate.map_or_else(|| "-".to_owned(), |rate| format!("{rate:.0}")),
                format!("{:.0}", searched.per_second),
                format!("{:.2}", searched.ms(0.5)),
                format!("{:.2}", searched.ms(0.99)),
                format!("{:.4}", searched.recall),
                searched
                    .at_ef
                    .map_or_else(|| "-".to_owned(), |recall| format!("{recall:.4}")),
                segments.to_string(),
            ]);
            if let Some(rate) = rate {
                report.record(case, "writes", rate, "points/s")?;
            }
            report.record(case, "qps", searched.per_second, "queries/s")?;
            report.record(case, "p50_ms", searched.ms(0.5), "ms")?;
            report.record(case, "p99_ms", searched.ms(0.99), "ms")?;
            report.record(case, "recall@10", searched.recall, "ratio")?;
            if let Some(recall) = searched.at_ef {
                report.record(case, &format!("recall@10/ef={EF}"), recall, "ratio")?;
            }
            if searched.short > 0 {
                broken.push(format!("{case}: {} questions got too few hits", searched.short));
            }
            if searched.recall < RECALL_MIN {
                broken.push(format!(
                    "{case}: recall@10 {:.4} is below {RECALL_MIN}",
                    searched.recall
                ));
            }
            if let Some(fresh) = fresh {
                let mut compare = |how: &str, recall: f64, fresh: f64| {
                    if recall < fresh - FRESH_SLACK {
                        broken.push(format!(
                            "{case}: recall@10 {recall:.4}{how}, of a fresh build {fresh:.4}"
                        ));
                    }
                };
                compare("", searched.recall, fresh.recall);
                if let (Some(recall), Some(fresh)) = (searched.at_ef, fresh.at_ef) {
                    compare(&format!(" at ef {EF}"), recall, fresh);
                }
            }
            Ok(())
        };

    judge("quiet", None, &still(engine, questions)?, None)?;
    for rate in &args.rates {
        let wanted = peak * f64::from(*rate) / 100.0;
        let (done, searched) = beside(engine, points, questions, wanted, Duration::from_secs(args.seconds))?;
        judge(&format!("writes={rate}%"), Some(done), &searched, None)?;
    }
    for share in &args.replaced {
        let mut some: Vec<usize> = (0..points.count()).collect();
        some.shuffle(&mut points.rng);
        some.truncate(points.count() * *share as usize / 100);
        some.iter().for_each(|point| points.change(*point));
        some.chunks(BATCH).try_for_each(|some| points.write(engine, some))?;
        judge(
            &format!("replaced={share}%/before"),
            None,
            &still(engine, questions)?,
            None,
        )?;
        settle(engine)?;
        let after = still(engine, questions)?;
        let fresh = fresh(args, points, questions)?;
        judge(&format!("replaced={share}%/after"), None, &after, Some(&fresh))?;
        judge(&format!("replaced={share}%/fresh"), None, &fresh, None)?;
    }
    Ok(())
}

/// One collection with the default settings.
fn open(dir: &Path, threads: usize) -> anyhow::Result<Engine> {
    let components = Components {
        clock: Arc::new(WallClock),
        workers: helpers(threads),
        files: Arc::new(cairn_engine::storage::LocalDir),
    };
    Ok(Engine::open(dir, Settings::default(), components)?)
}

fn create(engine: &Engine, dim: usize) -> anyhow::Result<()> {
    let spec = VectorSpec {
        dim: u32::try_from(dim)?,
        metric: Metric::Cosine,
        index: Default::default(),
        quantization: Default::default(),
        embedder: None,
    };
    let schema = Schema {
        vectors: BTreeMap::from([("v".to_owned(), spec)]),
        sparse: BTreeMap::new(),
        fields: BTreeMap::new(),
        dynamic: true,
        shards: 1,
        chunking: Chunking::default(),
        durability: None,
    };
    engine.create_collection(NAME, schema)?;
    Ok(())
}

/// What a server's background threads do.
fn maintain(engine: &Engine, stop: &AtomicBool) -> anyhow::Result<()> {
    let stopped = || stop.load(Ordering::Relaxed);
    while !stopped() {
        match engine.maintain(&stopped) {
            Ok(Maintained::Worked) => {}
            Ok(Maintained::Idle) => engine.wait_for_work(Duration::from_millis(50)),
            Err(error) if error.kind == ErrorKind::Cancelled => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Until everything is sealed and merged.
fn settle(engine: &Engine) -> anyhow::Result<()> {
    engine.optimize(NAME, &|| false, &mut |_| ())?;
    Ok(())
}

/// How a question is asked: as by default, at [`EF`], or exactly.
#[derive(Clone, Copy)]
enum How {
    Default,
    AtEf,
    Exact,
}

fn ask(engine: &Engine, vector: &[f32], how: How) -> anyhow::Result<QueryResult> {
    let query = Query {
        source: Source::Nearest {
            using: None,
            vector: vector.to_vec(),
        },
        filter: Default::default(),
        limit: K,
        offset: 0,
        score_threshold: None,
        with: Default::default(),
        params: Params {
            exact: matches!(how, How::Exact),
            ef: matches!(how, How::AtEf).then_some(EF),
            ..Params::default()
        },
        after: None,
        patience: Default::default(),
    };
    Ok(engine.query(NAME, &query)?)
}

/// How many hits are as near as the last exact one, and how many there are to find. By cosine: which of equally near points is
/// answered does not matter.
fn right(answer: &QueryResult, truth: &QueryResult) -> (usize, usize) {
    let raw = |hit: &Hit| hit.legs.first().map_or(f32::NEG_INFINITY, |leg| leg.raw);
    let edge = truth.hits.last().map_or(f32::INFINITY, raw) - 1e-6;
    (
        answer.hits.iter().filter(|hit| raw(hit) >= edge).count(),
        truth.hits.len(),
    )
}

/// Asks every question while nobody writes: by default, which is what is timed, and at one effort.
fn still(engine: &Engine, questions: &[&[f32]]) -> anyhow::Result<Searched> {
    let mut latency = Histogram::new_with_bounds(1, 600_000_000, 3)?;
    let mut answers = Vec::with_capacity(questions.len());
    let started = Instant::now();
    for question in questions {
        let asked = Instant::now();
        answers.push(ask(engine, question, How::Default)?);
        latency.saturating_record(u64::try_from(asked.elapsed().as_micros())?);
    }
    let per_second = questions.len() as f64 / started.elapsed().as_secs_f64();
    let (mut found, mut found_at_ef, mut wanted, mut short) = (0, 0, 0, 0);
    for (question, answer) in questions.iter().zip(&answers) {
        let truth = ask(engine, question, How::Exact)?;
        found_at_ef += right(&ask(engine, question, How::AtEf)?, &truth).0;
        let (right, of) = right(answer, &truth);
        (found, wanted) = (found + right, wanted + of);
        short += usize::from(answer.hits.len() < of);
    }
    Ok(Searched {
        per_second,
        latency,
        recall: found as f64 / wanted.max(1) as f64,
        at_ef: Some(found_at_ef as f64 / wanted.max(1) as f64),
        short,
    })
}

/// Asks while a writer replaces and deletes at a rate. Answers the rate that came to be, too.
fn beside(
    engine: &Engine,
    points: &mut Points,
    questions: &[&[f32]],
    rate: f64,
    time: Duration,
) -> anyhow::Result<(f64, Searched)> {
    let (stop, written) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut latency = Histogram::new_with_bounds(1, 600_000_000, 3)?;
    let (mut asked, mut spent) = (0_usize, Duration::ZERO);
    let (mut found, mut wanted, mut short) = (0, 0, 0);
    let started = Instant::now();
    std::thread::scope(|scope| -> anyhow::Result<()> {
        let writer = scope.spawn(|| write_at(engine, points, rate, &stop, &written));
        let reading = (|| -> anyhow::Result<()> {
            while started.elapsed() < time && !writer.is_finished() {
                let question = questions[asked % questions.len()];
                let began = Instant::now();
                let answer = ask(engine, question, How::Default)?;
                let took = began.elapsed();
                latency.saturating_record(u64::try_from(took.as_micros())?);
                (asked, spent) = (asked + 1, spent + took);
                if asked % SAMPLE == 0 {
                    // Something may be written between the two: one hit of ten thousand.
                    let (right, of) = right(&answer, &ask(engine, question, How::Exact)?);
                    (found, wanted) = (found + right, wanted + of);
                }
                short += usize::from(answer.hits.len() < K);
            }
            Ok(())
        })();
        stop.store(true, Ordering::Relaxed);
        writer.join().expect("a writer does not panic")?;
        reading
    })?;
    let rate = written.load(Ordering::Relaxed) as f64 / started.elapsed().as_secs_f64();
    Ok((
        rate,
        Searched {
            per_second: asked as f64 / spent.as_secs_f64().max(1e-9),
            latency,
            recall: found as f64 / wanted.max(1) as f64,
            at_ef: None,
            short,
        },
    ))
}

/// Replaces points at random, a part of them by a delete that the next write takes back.
fn write_at(
    engine: &Engine,
    points: &mut Points,
    rate: f64,
    stop: &AtomicBool,
    written: &AtomicU64,
) -> anyhow::Result<()> {
    let started = Instant::now();
    let mut deleted: Vec<usize> = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let done = written.load(Ordering::Relaxed);
        let due = Duration::from_secs_f64(done as f64 / rate);
        if let Some(early) = due.checked_sub(started.elapsed()) {
            std::thread::sleep(early.min(Duration::from_millis(20)));
            continue;
        }
        let mut some = std::mem::take(&mut deleted);
        while some.len() < BATCH {
            let point = points.rng.random_range(0..points.count());
            points.change(point);
            some.push(point);
        }
        some.sort_unstable();
        some.dedup();
        points.write(engine, &some)?;
        deleted.extend(some.iter().step_by(BATCH / DELETED));
        let ids: Vec<PointId> = deleted
            .iter()
            .map(|point| Points::id(*point))
            .collect::<anyhow::Result<_>>()?;
        engine.delete(NAME, Selector::Ids(ids), &WriteOptions::default())?;
        written.fetch_add((some.len() + deleted.len()) as u64, Ordering::Relaxed);
    }
    if !deleted.is_empty() {
        points.write(engine, &deleted)?;
    }
    Ok(())
}

/// The same points in an index that was built at once.
fn fresh(args: &Args, points: &Points, questions: &[&[f32]]) -> anyhow::Result<Searched> {
    let dir = tempfile::tempdir()?;
    let engine = open(dir.path(), args.threads)?;
    create(&engine, points.dim)?;
    let all: Vec<usize> = (0..points.count()).collect();
    all.chunks(BATCH).try_for_each(|some| points.write(&engine, some))?;
    settle(&engine)?;
    still(&engine, questions)
}

/// What this process has used.
struct Spent {
    cpu_s: f64,
    written: u64,
}

impl Spent {
    fn now() -> anyhow::Result<Self> {
        let io = std::fs::read_to_string("/proc/self/io")?;
        let written = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
        Ok(Self {
            cpu_s: cpu_seconds(std::process::id())?,
            written: written.context("no write_bytes")?.parse()?,
        })
    }

    fn since(&self, before: &Self) -> Self {
        Self {
            cpu_s: self.cpu_s - before.cpu_s,
            written: self.written - before.written,
        }
    }
}
