//! R3, the second part: the power goes while a database is opened again that the death of a process left with writes which nobody
//! had fsynced, and in the moments after that.
//!
//! What an open recovers from is in the page cache only, and the files are removed once their content is elsewhere. A loss of power
//! may bring such a file back without all of its bytes; it must neither be missed nor be taken for damage. And once the server is
//! ready, all that it found is there for good.

use std::time::{Duration, Instant};

use anyhow::Context;
use rand::Rng;

use super::{Plan, SETTINGS, Stage, Tally, look};
use crate::crash::prepare;
use crate::crash::script::Script;
use crate::faultfs::{Image, Unsynced};

/// Nothing is fsynced by itself while the script is played, but what RocksDB fsyncs.
const ASYNC: [&str; 2] = ["engine.durability=async", "engine.async_window_ms=60000"];
/// Background work after the open: it flushes and removes too.
const AFTER: Duration = Duration::from_millis(300);
/// Steps that a finding shows.
const TRACE: usize = 40;

/// Plays `ops` operations, kills the server, opens again, and crashes at `plan.trials` moments since the kill.
pub async fn run(ops: usize, plan: Plan) -> anyhow::Result<Tally> {
    let began = Instant::now();
    let script = Script::new(plan.seed, ops);
    let settings = [&SETTINGS[..], &ASYNC[..]].concat();
    let stage = Stage::new(Image::default(), &settings)?;
    let server = stage.launch.start()?;
    let client = server.client_without_retries().await?;
    prepare(&client).await?;
    for said in script.play(&client, 0..ops, || 0).await {
        said.answer.context("a script on a healthy disk")?;
    }
    server.kill();
    let killed_at = stage.fs.now();
    let server = stage.launch.start()?;
    let ready_at = stage.fs.now();
    tokio::time::sleep(AFTER).await;
    let run = stage.end(server)?;

    let trials = vec![(); plan.trials];
    plan.each(began, &trials, async |(), rng, tally| {
        let steps = rng.random_range(killed_at..=run.steps.len());
        let unsynced = match rng.random_ratio(1, 5) {
            true => Unsynced::Lost,
            false => Unsynced::Some(rng.random()),
        };
        let (least, moment) = match steps >= ready_at {
            true => (ops, "after it was ready"),
            false => (0, "while it was opened"),
        };
        let told = |what: &str| {
            let trace = run.trace(steps, TRACE);
            format!("{moment}, what was not synced being {unsynced:?}, after {steps} steps: {what}\n{trace}")
        };
        let stage = Stage::new(run.after_crash(steps, unsynced, None), &SETTINGS)?;
        let server = match stage.launch.start() {
            Ok(server) => server,
            Err(e) => {
                tally.wrong(format!("{moment}: does not open"), told(&format!("{e:#}")));
                return Ok(());
            }
        };
        match look(&script, &server, rng).await {
            Ok((seen, judged)) => match script.made_by(&seen, least..=ops) {
                Ok(_) if judged.counts.all_zero() => tally.outcome(format!("{moment}: a prefix")),
                Ok(_) => tally.wrong(
                    format!("{moment}: indexes differ"),
                    told(&format!("{:?}", judged.counts)),
                ),
                Err(counts) => tally.wrong(format!("{moment}: no prefix"), told(&format!("{counts:?}"))),
            },
            Err(e) => tally.wrong(format!("{moment}: cannot be read"), told(&format!("{e:#}"))),
        }
        stage.end(server)?;
        Ok(())
    })
}
