//! R3: a script runs once; then, for each of its writes, the power goes in the middle of it.
//!
//! The process need not run again for each: the journal of the one run says what every crash would have left. Before the torn write
//! everything is on disk that was written (which synced writes make likely), or only what was synced.

use std::time::Instant;

use anyhow::Context;
use cairn_client::ErrorKind;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};

use super::{Plan, SETTINGS, Stage, Tally, look};
use crate::crash::prepare;
use crate::crash::script::{Said, Script};
use crate::faultfs::{Change, Class, Image, Op, Run, Torn, Unsynced};

/// A sector, and a page.
const UNITS: [u64; 2] = [512, 4096];
/// Steps that a finding shows.
const TRACE: usize = 25;

/// In how many ways a write is torn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ways {
    /// By sectors and by pages, with everything else on disk or only what was synced.
    All,
    /// One of these, by chance.
    One,
}

/// What the one run was.
struct Played {
    script: Script,
    said: Vec<Said>,
    /// When both collections had been made.
    prepared_at: usize,
    run: Run,
}

/// A crash of it.
#[derive(Debug, Clone, Copy)]
struct Crash {
    /// The step that is torn.
    at: usize,
    unsynced: Unsynced,
    torn: Torn,
}

/// Plays `ops` operations and crashes at `plan.trials` writes, or at as many as there are: each in all four ways, or in one of them.
/// Returns the number of writes too.
pub async fn run(ops: usize, ways: Ways, plan: Plan) -> anyhow::Result<(Tally, usize)> {
    let began = Instant::now();
    let mut rng = StdRng::seed_from_u64(plan.seed);
    let played = play(plan.seed, ops).await?;
    let is_write = |i: &usize| {
        let step = &played.run.steps[*i];
        step.op == Op::Write && Class::of(&step.path) != Class::Diary
    };
    let mut writes: Vec<usize> = (0..played.run.steps.len()).filter(is_write).collect();
    let all = writes.len();
    writes.shuffle(&mut rng);
    writes.truncate(plan.trials);
    let mut crashes = Vec::new();
    for at in writes {
        let mut here = Vec::new();
        for unit in UNITS {
            for unsynced in [Unsynced::Kept, Unsynced::Lost] {
                let torn = Torn {
                    unit,
                    seed: rng.random(),
                };
                here.push(Crash { at, unsynced, torn });
            }
        }
        if ways == Ways::One {
            here = here.choose(&mut rng).into_iter().copied().collect();
        }
        crashes.extend(here);
    }
    let tally = plan.each(began, &crashes, async |crash, rng, tally| {
        check(&played, *crash, rng, tally).await
    })?;
    Ok((tally, all))
}

async fn play(seed: u64, ops: usize) -> anyhow::Result<Played> {
    let script = Script::new(seed, ops);
    let stage = Stage::new(Image::default(), &SETTINGS)?;
    let server = stage.launch.start()?;
    let client = server.client_without_retries().await?;
    prepare(&client).await?;
    let prepared_at = stage.fs.now();
    let said = script.play(&client, 0..ops, || stage.fs.now()).await;
    for said in &said {
        said.answer.clone().context("a script on a healthy disk")?;
    }
    Ok(Played {
        script,
        said,
        prepared_at,
        run: stage.end(server)?,
    })
}

async fn check(played: &Played, crash: Crash, rng: &mut StdRng, tally: &mut Tally) -> anyhow::Result<()> {
    let at = crash.at;
    let image = played.run.after_crash(at + 1, crash.unsynced, Some(crash.torn));
    let least = played.said.iter().filter(|said| said.answered_at <= at).count();
    let most = played.said.iter().filter(|said| said.sent_at <= at).count();
    let class = Class::of(&played.run.steps[at].path);
    let told = |what: &str| {
        let torn = match &played.run.steps[at].change {
            Change::Write { at, bytes, .. } => format!("{} bytes at {at}", bytes.len()),
            other => format!("{other:?}"),
        };
        format!(
            "{crash:?} ({torn}), {least} to {most} operations expected: {what}\n{}",
            played.run.trace(at + 1, TRACE)
        )
    };
    let stage = Stage::new(image, &SETTINGS)?;
    let server = match stage.launch.start() {
        Ok(server) => server,
        Err(e) => {
            tally.wrong(format!("{class:?} torn: does not open"), told(&format!("{e:#}")));
            return Ok(());
        }
    };
    match look(&played.script, &server, rng).await {
        Ok((seen, judged)) => match played.script.made_by(&seen, least..=most) {
            Ok(_) if judged.counts.all_zero() => tally.outcome(format!("{class:?} torn: a prefix")),
            Ok(_) => tally.wrong(
                format!("{class:?} torn: indexes differ"),
                told(&format!("{:?}", judged.counts)),
            ),
            Err(counts) => tally.wrong(format!("{class:?} torn: no prefix"), told(&format!("{counts:?}"))),
        },
        // Before the collections were acknowledged they need not be there.
        Err(e) if at < played.prepared_at && is_not_found(&e) => tally.outcome(format!("{class:?} torn: a prefix")),
        Err(e) => tally.wrong(format!("{class:?} torn: cannot be read"), told(&format!("{e:#}"))),
    }
    stage.end(server)?;
    Ok(())
}

fn is_not_found(e: &anyhow::Error) -> bool {
    e.downcast_ref::<cairn_client::Error>()
        .is_some_and(|e| e.kind() == ErrorKind::NotFound)
}
