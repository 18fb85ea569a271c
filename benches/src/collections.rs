//! Ten thousand empty collections: what they cost to make, to keep and to open again.
//!
//! Promised: after a clean stop and after `kill -9` all of them are there.

use std::time::Instant;

use anyhow::ensure;
use cairn_client::{Client, Field, Schema, VectorSpec};

use crate::place;
use crate::report::{Report, Table, Verdict};
use cairn_tests::process::{Launch, Server};

/// Requests under way at the same time.
const CLIENTS: usize = 16;

/// Options of `cairn-bench collections`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How many.
    #[arg(long, default_value_t = 10_000)]
    count: usize,
}

impl Args {
    pub(crate) fn short() -> Self {
        Self { count: 1_000 }
    }
}

pub(crate) async fn run(args: Args) -> anyhow::Result<Verdict> {
    let mut report = Report::begin("collections")?;
    let case = format!("{} empty", args.count);
    let dir = tempfile::tempdir()?;
    let launch = Launch::new(dir.path(), &[]);
    let server = launch.start()?;
    let opened_empty = server.ready_s;
    let before = server.memory()?.rss;

    let started = Instant::now();
    create(&server.client().await?, args.count).await?;
    let created = started.elapsed().as_secs_f64();
    let after = server.memory()?.rss;
    let disk = place::disk_bytes(launch.data_dir())?;

    // The kill comes first: it leaves a log to replay.
    server.kill();
    let server = launch.start()?;
    let opened_killed = server.ready_s;
    let replayed = server.metric("cairn_replayed_records")?;
    let mut missing = missing(&server, args.count).await?;
    let idle = server.memory()?.rss;
    let stopped = server.stop()?;
    let server = launch.start()?;
    let opened_clean = server.ready_s;
    missing += self::missing(&server, args.count).await?;
    server.stop()?;

    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let mut table = Table::new(["collections", "value", "unit"]);
    for (metric, value, unit) in [
        ("create_throughput", args.count as f64 / created, "collections/s"),
        ("rss_before", mib(before), "MiB"),
        ("rss_after_create", mib(after), "MiB"),
        ("rss_after_reopen", mib(idle), "MiB"),
        ("disk", mib(disk), "MiB"),
        ("stop", stopped, "s"),
        ("open_empty", opened_empty, "s"),
        ("open_after_kill", opened_killed, "s"),
        ("replayed_after_kill", replayed, "records"),
        ("open_after_stop", opened_clean, "s"),
        ("missing", missing as f64, "count"),
    ] {
        table.row(vec![
            format!("{case}: {metric}"),
            format!("{value:.2}"),
            unit.to_owned(),
        ]);
        report.record(&case, metric, value, unit)?;
    }
    table.print();
    Ok(Verdict::of(if missing > 0 {
        vec![format!("{missing} collections are missing after a restart")]
    } else {
        Vec::new()
    }))
}

fn name(n: usize) -> String {
    format!("tenant-{n:06}")
}

async fn create(client: &Client, count: usize) -> anyhow::Result<()> {
    let schema = Schema::default()
        .vector("v", VectorSpec::new(8))
        .field("kind", Field::Keyword);
    let tasks = (0..CLIENTS).map(|c| {
        let (client, schema) = (client.clone(), schema.clone());
        tokio::spawn(async move {
            for n in (c..count).step_by(CLIENTS) {
                client.create_collection(&name(n), schema.clone()).await?;
            }
            Ok::<_, cairn_client::Error>(())
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await??;
    }
    Ok(())
}

async fn missing(server: &Server, count: usize) -> anyhow::Result<usize> {
    let client = server.client().await?;
    let names = client.list_collections().await?;
    ensure!(names.is_sorted(), "names are not in order");
    // One of them in full: a name alone would not prove a schema.
    let info = client.get_collection(&name(count / 2)).await?;
    ensure!(
        info.schema.vectors.get("v").is_some_and(|v| v.dim == 8),
        "the schema changed: {:?}",
        info.schema
    );
    Ok((0..count).filter(|n| names.binary_search(&name(*n)).is_err()).count() + names.len().saturating_sub(count))
}
