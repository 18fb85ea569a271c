//! What storing costs: points a second with `sync` and with `async`, bytes written for a byte that is kept, bytes of disk a
//! vector, seconds until a killed server answers again, and snapshots: how fast they are made and brought back, and what one more
//! sends after one point of a hundred has changed.
//!
//! Made vectors (clusters, 128 dimensions) with a payload, over gRPC, client and server on one machine. Beside the figures stand
//! floors: what the same directory gives to a program that only writes and fsyncs.
//!
//! Promised: after the kills and in what is restored there are all points; of many points a snapshot after a change of one
//! hundredth sends at most a tenth of what the first did. Times and sizes are reported, not judged: they belong to the machine.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use cairn_client::{
    Client, Collection, Durability, ErrorKind, Field, Filter, Operation, OperationState, Point, Schema,
};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::measure::median_and_max;
use crate::place;
use crate::report::{Report, Table, Verdict};
use crate::squad::indexed;
use cairn_tests::process::{Launch, Server, cairn};

const NAME: &str = "points";
/// Points of one write.
const BATCH: usize = 1_000;
/// Pause of a writer that is told to wait, but not how long.
const WAIT: Duration = Duration::from_millis(200);
const CLUSTERS: u64 = 1_000;
/// Bytes of text in each payload.
const TEXT_BYTES: usize = 100;
/// Restarts after a kill, of which the median and the slowest are told.
const KILLS: usize = 3;
/// What the floor of sequential writing writes.
const FLOOR_BYTES: usize = 256 << 20;
/// Fsyncs of the other floor, each after a small write: a group commit of one writer.
const FLOOR_FSYNCS: usize = 300;
const FLOOR_WRITE: usize = 4 << 10;
/// A change of one hundredth sends at most this part of the first snapshot, where there are so many points. Fewer are one
/// segment, which one merge writes anew.
const SECOND_SHARE_MAX: f64 = 0.1;
const SECOND_JUDGED_FROM: usize = 200_000;

/// Options of `cairn-bench storage`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How many points.
    #[arg(long, default_value_t = 100_000)]
    points: usize,
    /// Dimensions of their vectors.
    #[arg(long, default_value_t = 128)]
    dim: usize,
    /// Writers at the same time.
    #[arg(long, default_value_t = 4)]
    streams: usize,
    /// Where the data directory and the store are put. Default: where temporary files are.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Server settings, key=value.
    #[arg(long)]
    set: Vec<String>,
}

impl Args {
    pub(crate) fn short() -> Self {
        Self {
            points: 20_000,
            dim: 128,
            streams: 4,
            dir: None,
            set: Vec::new(),
        }
    }
}

struct Bench {
    args: Args,
    report: Report,
    table: Table,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<Verdict> {
    ensure!(args.points >= 100, "a hundredth of the points is changed: at least 100");
    let root = match &args.dir {
        Some(dir) => tempfile::tempdir_in(dir),
        None => tempfile::tempdir(),
    };
    let root = root.context("a directory for the data")?;
    let mut bench = Bench {
        report: Report::begin("storage")?,
        table: Table::new(["storage", "value", "unit"]),
        args,
    };
    let broken = bench.all(root.path()).await;
    bench.table.print();
    Ok(Verdict::of(broken?))
}

impl Bench {
    fn tell(&mut self, case: &str, metric: &str, value: f64, unit: &str) -> anyhow::Result<()> {
        let case = format!("{} x {}, {case}", self.args.points, self.args.dim);
        let digits = if value.abs() < 10.0 { 3 } else { 0 };
        self.table.row(vec![
            format!("{case}: {metric}"),
            format!("{value:.digits$}"),
            unit.to_owned(),
        ]);
        self.report.record(&case, metric, value, unit)
    }

    async fn all(&mut self, root: &Path) -> anyhow::Result<Vec<String>> {
        self.floors(root)?;
        let store = root.join("store");
        // What is written with `async` is only measured; everything else is done with what `sync` left.
        let scratch = root.join("async");
        std::fs::create_dir(&scratch)?;
        let launch = self.launch(&scratch, &store);
        let server = launch.start()?;
        self.ingest(&server, &launch, Durability::Async).await?;
        server.kill();
        let mut broken = Vec::new();
        self.starts(&scratch, root, &store, &mut broken).await?;
        std::fs::remove_dir_all(&scratch)?;

        let dir = root.join("sync");
        std::fs::create_dir(&dir)?;
        let launch = self.launch(&dir, &store);
        let server = launch.start()?;
        self.ingest(&server, &launch, Durability::Sync).await?;
        let server = self.kills("settled", server, &launch, &mut broken).await?;

        let client = server.client().await?;
        let operation = client.optimize(NAME).await?;
        done(client.wait(&operation.id, |_| {}).await?)?;
        drop(client);
        let first = self.snapshot(&server, &store, "first").await?;
        self.change(&server).await?;
        let server = self.kills("just written", server, &launch, &mut broken).await?;
        let second = self.snapshot(&server, &store, "second").await?;
        let share = second as f64 / first.max(1) as f64;
        self.tell("second snapshot after 1 % change", "sent_of_first", share, "ratio")?;
        if share > SECOND_SHARE_MAX && self.args.points >= SECOND_JUDGED_FROM {
            broken.push(format!(
                "a snapshot after a change of 1 % sent {share:.3} of what the first did"
            ));
        }
        self.import(&server, &mut broken).await?;
        server.stop()?;
        self.restore(&store, &root.join("restored"), &mut broken).await?;
        Ok(broken)
    }

    fn launch(&self, dir: &Path, store: &Path) -> Launch {
        self.launch_with(dir, store, &[])
    }

    fn launch_with(&self, dir: &Path, store: &Path, more: &[&str]) -> Launch {
        let url = format!("snapshots.url={}", store.display());
        let mut settings: Vec<&str> = self.args.set.iter().map(String::as_str).collect();
        settings.extend([url.as_str(), "log.filter=warn"]);
        settings.extend(more);
        Launch::new(dir, &settings)
    }

    /// What the same disk gives to somebody who does nothing else.
    fn floors(&mut self, root: &Path) -> anyhow::Result<()> {
        let path = root.join("floor");
        let block = vec![0x5a_u8; 1 << 20];
        let began = Instant::now();
        let mut file = File::create(&path)?;
        for _ in 0..FLOOR_BYTES / block.len() {
            file.write_all(&block)?;
        }
        file.sync_all()?;
        let rate = FLOOR_BYTES as f64 / began.elapsed().as_secs_f64();
        self.tell("floor", "sequential_write", rate / 1e6, "MB/s")?;
        drop(file);
        std::fs::remove_file(&path)?;

        let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
        let mut ms = Vec::with_capacity(FLOOR_FSYNCS);
        let began = Instant::now();
        for _ in 0..FLOOR_FSYNCS {
            let one = Instant::now();
            file.write_all(&block[..FLOOR_WRITE])?;
            file.sync_data()?;
            ms.push(one.elapsed().as_secs_f64() * 1e3);
        }
        let rate = FLOOR_FSYNCS as f64 / began.elapsed().as_secs_f64();
        let (median, max) = median_and_max(ms);
        self.tell("floor", "append_and_fsync", rate, "fsyncs/s")?;
        self.tell("floor", "append_and_fsync_median", median, "ms")?;
        self.tell("floor", "append_and_fsync_max", max, "ms")?;
        std::fs::remove_file(&path)?;
        Ok(())
    }

    /// Streams all points in; those of `sync` until all are indexed.
    async fn ingest(&mut self, server: &Server, launch: &Launch, durability: Durability) -> anyhow::Result<()> {
        let client = server.client().await?;
        let dim = u32::try_from(self.args.dim)?;
        let schema = Schema::dense(dim)
            .field("kind", Field::Keyword)
            .field("price", Field::Float);
        client.create_collection(NAME, schema).await?;
        let case = match durability {
            Durability::Async => "ingest async",
            _ => "ingest sync",
        };
        let began = Instant::now();
        let (changed, waits) = self.write(&client, 0..self.args.points, 0, durability).await?;
        let acked = began.elapsed().as_secs_f64();
        ensure!(changed == self.args.points as u64, "{changed} points were written");
        let (written, kept) = (server.written()?, self.args.points * bytes_of_a_point(self.args.dim));
        let (points, kept) = (self.args.points as f64, kept as f64);
        self.tell(case, "throughput", points / acked, "points/s")?;
        self.tell(case, "told_to_wait", waits as f64, "count")?;
        self.tell(case, "bytes_given", kept / points, "bytes/point")?;
        self.tell(case, "written_of_given_when_answered", written as f64 / kept, "ratio")?;
        self.tell(case, "fsyncs", server.metric("cairn_wal_fsyncs_total")?, "count")?;
        if durability == Durability::Async {
            return Ok(());
        }
        let info = indexed(&client.collection(NAME)).await?;
        let settled = began.elapsed().as_secs_f64();
        let disk = place::disk_bytes(launch.data_dir())? as f64;
        self.tell(case, "seconds_to_indexed", settled, "s")?;
        let written = server.written()? as f64;
        self.tell(case, "written_of_given_when_indexed", written / kept, "ratio")?;
        self.tell(case, "written_of_kept_when_indexed", written / disk, "ratio")?;
        self.tell(case, "disk", disk / points, "bytes/vector")?;
        self.tell(case, "segments", info.segments as f64, "count")?;
        Ok(())
    }

    /// Versions of points, from several writers. How many were written, and how often a writer was told to wait.
    async fn write(
        &self,
        client: &Client,
        rows: std::ops::Range<usize>,
        version: u64,
        durability: Durability,
    ) -> anyhow::Result<(u64, u64)> {
        let (dim, streams) = (self.args.dim, self.args.streams.max(1));
        let share = rows.len().div_ceil(streams);
        let tasks = (0..streams).map(|s| {
            let collection = client.collection(NAME).with_durability(durability);
            let from = (rows.start + s * share).min(rows.end);
            let mine = from..(from + share).min(rows.end);
            tokio::spawn(async move {
                let (mut changed, mut waits) = (0, 0u64);
                for from in mine.clone().step_by(BATCH) {
                    let rows = from..(from + BATCH).min(mine.end);
                    let batch: Vec<Point> = rows.map(|row| point(row, version, dim)).collect();
                    loop {
                        match collection.upsert(batch.clone()).await {
                            Ok(written) => break changed += written.changed,
                            // Indexing has not caught up: the server says so, and a writer waits.
                            Err(e) if e.kind() == ErrorKind::Exhausted => {
                                waits += 1;
                                tokio::time::sleep(e.retry_after().unwrap_or(WAIT)).await;
                            }
                            Err(e) => return Err(e),
                        }
                    }
                }
                Ok((changed, waits))
            })
        });
        let (mut changed, mut waits) = (0, 0);
        for task in tasks.collect::<Vec<_>>() {
            let (written, waited) = task.await??;
            changed += written;
            waits += waited;
        }
        Ok((changed, waits))
    }

    /// Kills and starts, a few times.
    async fn kills(
        &mut self,
        when: &str,
        mut server: Server,
        launch: &Launch,
        broken: &mut Vec<String>,
    ) -> anyhow::Result<Server> {
        let mut seconds = Vec::new();
        let mut replayed: f64 = 0.0;
        for _ in 0..KILLS {
            server.kill();
            server = launch.start()?;
            seconds.push(server.ready_s);
            replayed = replayed.max(server.metric("cairn_replayed_records")?);
        }
        let (median, max) = median_and_max(seconds);
        let case = format!("kill -9, {when}");
        self.tell(&case, "ready_median", median, "s")?;
        self.tell(&case, "ready_max", max, "s")?;
        self.tell(&case, "replayed_max", replayed, "records")?;
        let collection = server.client().await?.collection(NAME);
        self.check(&collection, &case, broken).await?;
        Ok(server)
    }

    /// Memory of a start after a kill in the middle of ingestion, when most is to be replayed: with the default settings and with
    /// `engine.low_memory`, of the same directory.
    async fn starts(&mut self, dir: &Path, root: &Path, store: &Path, broken: &mut Vec<String>) -> anyhow::Result<()> {
        for (name, setting) in [
            ("default", "engine.low_memory=false"),
            ("low memory", "engine.low_memory=true"),
        ] {
            let copy = root.join("copy");
            let copied = Command::new("cp").arg("-a").arg(dir).arg(&copy).status()?;
            ensure!(copied.success(), "the directory could not be copied");
            let launch = self.launch_with(&copy, store, &[setting]);
            let (server, anonymous) = launch.spawn()?.ready_watched()?;
            let case = format!("kill -9 while ingesting, start with {name} settings");
            self.tell(&case, "ready", server.ready_s, "s")?;
            self.tell(&case, "replayed", server.metric("cairn_replayed_records")?, "records")?;
            self.tell(&case, "peak_of_its_own", anonymous as f64 / 1e6, "MB")?;
            self.tell(
                &case,
                "peak_with_pages_of_files",
                server.memory()?.peak as f64 / 1e6,
                "MB",
            )?;
            let found = server.client().await?.collection(NAME).count(Filter::default()).await?;
            if found != self.args.points as u64 {
                broken.push(format!("{case}: {found} points of {}", self.args.points));
            }
            server.kill();
            std::fs::remove_dir_all(&copy)?;
        }
        Ok(())
    }

    async fn check(&self, collection: &Collection, case: &str, broken: &mut Vec<String>) -> anyhow::Result<()> {
        let found = collection.count(Filter::default()).await?;
        if found != self.args.points as u64 {
            broken.push(format!("{case}: {found} points of {}", self.args.points));
        }
        Ok(())
    }

    /// Replaces one point of a hundred, spread over all.
    async fn change(&mut self, server: &Server) -> anyhow::Result<()> {
        let collection = server.client().await?.collection(NAME);
        let dim = self.args.dim;
        let some = (0..self.args.points).step_by(100).map(move |row| point(row, 1, dim));
        collection.upsert_all(some).await?;
        Ok(())
    }

    /// Bytes that it sent.
    async fn snapshot(&mut self, server: &Server, store: &Path, name: &str) -> anyhow::Result<u64> {
        let client = server.client().await?;
        let before = place::disk_bytes(store).unwrap_or(0);
        let began = Instant::now();
        let operation = client.create_snapshot(Some(name)).await?;
        done(client.wait(&operation.id, |_| {}).await?)?;
        let took = began.elapsed().as_secs_f64();
        let sent = place::disk_bytes(store)?.saturating_sub(before);
        let whole = client.snapshot(name).await?.bytes;
        let case = format!("{name} snapshot");
        self.tell(&case, "seconds", took, "s")?;
        self.tell(&case, "throughput", whole as f64 / took / 1e6, "MB/s")?;
        self.tell(&case, "bytes", whole as f64 / 1e6, "MB")?;
        self.tell(&case, "sent", sent as f64 / 1e6, "MB")?;
        Ok(sent)
    }

    /// A collection of the snapshot beside the one that is there, through the write path.
    async fn import(&mut self, server: &Server, broken: &mut Vec<String>) -> anyhow::Result<()> {
        let client = server.client().await?;
        let bytes = client.snapshot("second").await?.bytes as f64;
        let what = cairn_client::Restore::collection(NAME).rename("back");
        let began = Instant::now();
        let operation = client.restore_snapshot("second", what).await?;
        done(client.wait(&operation.id, |_| {}).await?)?;
        let took = began.elapsed().as_secs_f64();
        self.tell("restore of a collection", "throughput", bytes / took / 1e6, "MB/s")?;
        let rate = self.args.points as f64 / took;
        self.tell("restore of a collection", "points", rate, "points/s")?;
        self.check(&client.collection("back"), "restore of a collection", broken)
            .await
    }

    /// The whole instance, into a new directory.
    async fn restore(&mut self, store: &Path, to: &Path, broken: &mut Vec<String>) -> anyhow::Result<()> {
        let began = Instant::now();
        let out = cairn()?
            .args(["restore", "second", "--data-dir"])
            .arg(to.join("data"))
            .arg("--snapshots")
            .arg(store)
            .output()?;
        let took = began.elapsed().as_secs_f64();
        let said = String::from_utf8_lossy(&out.stderr);
        ensure!(out.status.success(), "cairn restore ended with {}: {said}", out.status);
        let bytes = place::disk_bytes(&to.join("data"))? as f64;
        self.tell("restore of all", "throughput", bytes / took / 1e6, "MB/s")?;
        self.tell("restore of all", "seconds", took, "s")?;
        let server = self.launch(to, store).start()?;
        self.tell("restore of all", "ready", server.ready_s, "s")?;
        let collection = server.client().await?.collection(NAME);
        self.check(&collection, "restore of all", broken).await?;
        server.stop()?;
        Ok(())
    }
}

fn done(operation: Operation) -> anyhow::Result<()> {
    ensure!(
        operation.state == OperationState::Done,
        "{} ended as {:?}: {:?}",
        operation.kind,
        operation.state,
        operation.error
    );
    Ok(())
}

/// A point that is the same each time it is made.
fn point(row: usize, version: u64, dim: usize) -> Point {
    let mut random = SmallRng::seed_from_u64(row as u64 ^ version << 40);
    let cluster = random.random_range(0..CLUSTERS);
    let mut center = SmallRng::seed_from_u64(!cluster);
    let vector: Vec<f32> = (0..dim)
        .map(|_| center.random::<f32>() - 0.5 + 0.3 * (random.random::<f32>() - 0.5))
        .collect();
    let text: String = (0..TEXT_BYTES)
        .map(|_| char::from(b'a' + random.random_range(0..26)))
        .collect();
    Point::new(format!("p{row:08}"))
        .vector(vector)
        .with("kind", format!("k{}", row % 100))
        .with("price", f64::from(random.random_range(0..100_000_u32)) / 100.0)
        .with("note", text)
}

/// What a caller hands over for one: the vector, the id, and the payload as JSON.
fn bytes_of_a_point(dim: usize) -> usize {
    let point = point(0, 0, dim);
    let payload = serde_json::to_vec(&point.payload).unwrap_or_default();
    4 * dim + point.id.len() + payload.len()
}
