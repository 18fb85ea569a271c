//! R2, the second part: the power goes while writes are acknowledged before they are fsynced (`async`). What is lost is a suffix, and
//! never what was acknowledged longer ago than the window.
//!
//! The process runs once: the journal of the run says what a loss of power at any moment would have left.

use std::time::{Duration, Instant};

use anyhow::Context;
use rand::Rng;

use super::{Plan, SETTINGS, Stage, Tally, look};
use crate::crash::prepare;
use crate::crash::script::Script;
use crate::faultfs::{Image, Unsynced};

/// What is acknowledged may be lost for this long.
const ASYNC: [&str; 2] = ["engine.durability=async", "engine.async_window_ms=50"];
/// After this much quiet everything is on disk: far more than the window, for a machine that is busy.
const QUIET: Duration = Duration::from_secs(3);
/// Steps that a finding shows.
const TRACE: usize = 40;

/// Plays half of `ops` operations, waits, plays the others, and crashes at `plan.trials` moments.
pub async fn run(ops: usize, plan: Plan) -> anyhow::Result<Tally> {
    let began = Instant::now();
    let script = Script::new(plan.seed, ops);
    let settings = [&SETTINGS[..], &ASYNC[..]].concat();
    let stage = Stage::new(Image::default(), &settings)?;
    let server = stage.launch.start()?;
    let client = server.client_without_retries().await?;
    prepare(&client).await?;
    // The collections are not what is tried here.
    tokio::time::sleep(QUIET).await;
    let prepared_at = stage.fs.now();
    let mut said = script.play(&client, 0..ops / 2, || stage.fs.now()).await;
    tokio::time::sleep(QUIET).await;
    let quiet_at = stage.fs.now();
    said.extend(script.play(&client, ops / 2..ops, || stage.fs.now()).await);
    for said in &said {
        said.answer.clone().context("a script on a healthy disk")?;
    }
    let run = stage.end(server)?;

    let trials = vec![(); plan.trials];
    plan.each(began, &trials, async |(), rng, tally| {
        let steps = rng.random_range(prepared_at..=run.steps.len());
        let unsynced = match rng.random_ratio(1, 2) {
            true => Unsynced::Lost,
            false => Unsynced::Some(rng.random()),
        };
        let (least, moment) = match steps >= quiet_at {
            true => (ops / 2, "after a pause"),
            false => (0, "before it"),
        };
        let most = said.iter().filter(|said| said.sent_at < steps).count();
        let answered = said.iter().filter(|said| said.answered_at < steps).count();
        let told = |what: &str| {
            let trace = run.trace(steps, TRACE);
            format!(
                "{moment}, what was not synced being {unsynced:?}, after {steps} steps, {least} to {most} operations expected: {what}\n{trace}"
            )
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
            Ok((seen, judged)) => match script.made_by(&seen, least..=most) {
                Ok(n) if judged.counts.all_zero() => {
                    let lost = if n < answered { "a suffix is lost" } else { "nothing is lost" };
                    tally.outcome(format!("{moment}: {lost}"));
                }
                Ok(_) => tally.wrong(format!("{moment}: indexes differ"), told(&format!("{:?}", judged.counts))),
                Err(counts) => tally.wrong(format!("{moment}: no prefix"), told(&format!("{counts:?}"))),
            },
            Err(e) => tally.wrong(format!("{moment}: cannot be read"), told(&format!("{e:#}"))),
        }
        stage.end(server)?;
        Ok(())
    })
}
