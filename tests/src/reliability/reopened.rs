//! R3, the second part: the power goes while a database is opened again, and in the moments after that. It was left by the death of a
//! process with writes that nobody had fsynced, or by a loss of power that tore the log, so that its end is cut off.
//!
//! What an open recovers from is in the page cache only, and the files are removed once their content is elsewhere. A loss of power
//! may bring such a file back without all of its bytes; it must neither be missed nor be taken for damage. And once the server is
//! ready, all that it found is there for good.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::{Plan, SETTINGS, Stage, Tally, by_chance, look};
use crate::crash::prepare;
use crate::crash::script::Script;
use crate::faultfs::{Class, Image, Op, Run, Torn, Unsynced};

/// Nothing is fsynced by itself while the script is played, but what RocksDB fsyncs.
const ASYNC: [&str; 2] = ["engine.durability=async", "engine.async_window_ms=60000"];
/// Background work after the open: it flushes and removes too.
const AFTER: Duration = Duration::from_millis(300);
/// Torn writes that are tried until one makes an open cut the log.
const TORN_MAX: usize = 40;
/// Steps that a finding shows.
const TRACE: usize = 40;

/// An open, and what came before it in the same journal.
struct Opened {
    what: &'static str,
    run: Run,
    /// When it began, and when the server was ready.
    from: usize,
    ready_at: usize,
    /// Operations that were there then.
    there: usize,
    /// Operations that were on disk before it began.
    synced: usize,
}

/// Plays `ops` operations, ends that in two ways, opens again, and crashes at `plan.trials` moments of those opens.
pub async fn run(ops: usize, plan: Plan) -> anyhow::Result<Tally> {
    let began = Instant::now();
    let script = Script::new(plan.seed, ops);
    let killed = killed(&script).await?;
    let torn = torn(&script, &killed, &mut StdRng::seed_from_u64(plan.seed)).await?;
    let trials: Vec<&Opened> = [&killed, &torn].into_iter().cycle().take(plan.trials).collect();
    plan.each(began, &trials, async |opened, rng, tally| {
        check(&script, opened, rng, tally).await
    })
}

/// The process is killed with writes that nobody has fsynced, and the database opened again.
async fn killed(script: &Script) -> anyhow::Result<Opened> {
    let settings = [&SETTINGS[..], &ASYNC[..]].concat();
    let stage = Stage::new(Image::default(), &settings)?;
    let server = stage.launch.start()?;
    let client = server.client_without_retries().await?;
    prepare(&client).await?;
    for said in script.play(&client, 0..script.len(), || 0).await {
        said.answer.context("a script on a healthy disk")?;
    }
    server.kill();
    let from = stage.fs.now();
    let server = stage.launch.start()?;
    let ready_at = stage.fs.now();
    tokio::time::sleep(AFTER).await;
    Ok(Opened {
        what: "a kill",
        run: stage.end(server)?,
        from,
        ready_at,
        there: script.len(),
        synced: 0,
    })
}

/// A write to the log of the same script is torn, and the database opened again, which cuts the log.
async fn torn(script: &Script, played: &Opened, rng: &mut StdRng) -> anyhow::Result<Opened> {
    let is_write = |i: &usize| {
        let step = &played.run.steps[*i];
        step.op == Op::Write && Class::of(&step.path) == Class::Wal
    };
    let writes: Vec<usize> = (0..played.from).filter(is_write).collect();
    for _ in 0..TORN_MAX {
        let at = *writes.choose(rng).context("a script that never writes to the log")?;
        let torn = Torn {
            unit: 512,
            seed: rng.random(),
        };
        let image = played.run.after_crash(at + 1, Unsynced::Kept, Some(torn));
        let stage = Stage::new(image, &SETTINGS)?;
        let server = stage.launch.start()?;
        let ready_at = stage.fs.now();
        if server.metric("cairn_wal_dropped_bytes")? == 0.0 {
            stage.end(server)?;
            continue;
        }
        tokio::time::sleep(AFTER).await;
        // Before the collections are acknowledged there is nothing to read.
        let Ok((seen, _)) = look(script, &server, rng).await else {
            stage.end(server)?;
            continue;
        };
        let there = script.made_by(&seen, 0..=script.len());
        let there = there.map_err(|counts| anyhow::anyhow!("no prefix after a torn write: {counts:?}"))?;
        return Ok(Opened {
            what: "a torn log",
            run: stage.end(server)?,
            from: 0,
            ready_at,
            there,
            // What the crash left is all that there is, and it is on disk.
            synced: there,
        });
    }
    bail!("none of {TORN_MAX} torn writes to the log had an open cut it")
}

async fn check(script: &Script, opened: &Opened, rng: &mut StdRng, tally: &mut Tally) -> anyhow::Result<()> {
    let run = &opened.run;
    let steps = rng.random_range(opened.from..=run.steps.len());
    let unsynced = by_chance(rng);
    let (least, moment) = match steps >= opened.ready_at {
        true => (opened.there, format!("after it was ready after {}", opened.what)),
        false => (opened.synced, format!("while it was opened after {}", opened.what)),
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
    match look(script, &server, rng).await {
        Ok((seen, judged)) => match script.made_by(&seen, least..=opened.there) {
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
}
