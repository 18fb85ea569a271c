//! R4: one write, one fsync, one change of a name fails, at every place where one is done, as an error of the medium or for want of
//! space; alone, or with all of its kind after it, as on a disk that is gone.
//!
//! An fsync that failed is not an fsync that may be tried again: the kernel may have dropped the pages. So nothing that needed it may
//! be acknowledged after it, and the process must end; what it acknowledged before is there when the disk works again.

use std::time::{Duration, Instant};

use anyhow::Context;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use super::{NOT_REACHED, Plan, SETTINGS, Stage, Tally, look, written};
use crate::crash::script::Script;
use crate::faultfs::{Caused, Class, EIO, ENOSPC, Fault, Image, Op, Unsynced};

/// Operations that the database holds before, and that are tried while something fails.
const BEFORE: usize = 60;
const DURING: usize = 40;
/// How long a process may take to end by itself.
const END_WAIT: Duration = Duration::from_secs(60);
/// How long background work may take before a process that goes on is looked at.
const BACKGROUND: Duration = Duration::from_millis(300);
/// How long a place may take to come after the last write, and how often it is looked for.
const REACH_WAIT: Duration = Duration::from_secs(2);
const REACH_LOOK: Duration = Duration::from_millis(20);
/// Steps that a finding shows.
const TRACE: usize = 25;
/// Kinds of failures.
const KINDS: [&[Op]; 5] = [
    &[Op::Write],
    &[Op::Sync],
    &[Op::SyncDir],
    &[Op::Rename],
    &[Op::Create, Op::Remove, Op::Resize],
];

/// Fails `plan.trials` operations, one each time; if there are fewer, all.
pub async fn run(plan: Plan) -> anyhow::Result<Tally> {
    let began = Instant::now();
    let mut rng = StdRng::seed_from_u64(plan.seed);
    let script = Script::new(plan.seed, BEFORE + DURING);
    let base = written(&script, BEFORE).await?;
    let mut points: Vec<(&[Op], u64)> = Vec::new();
    for (ops, n) in KINDS.iter().zip(counted(&script, &base).await?) {
        points.extend((1..=n).map(|nth| (*ops, nth)));
    }
    points.shuffle(&mut rng);
    points.truncate(plan.trials);
    plan.each(began, &points, async |(ops, nth), rng, tally| {
        let fault = Fault {
            ops: ops.to_vec(),
            class: None,
            nth: *nth,
            times: if rng.random_bool(0.5) { 1 } else { u64::MAX },
            errno: if rng.random_bool(0.5) { EIO } else { ENOSPC },
        };
        // How much is done in the background depends on how busy the machine is, so what was counted may be more than another run does.
        // Then an operation fails that this run did.
        if let Some(done) = check(&script, &base, &fault, rng, tally).await? {
            let nth = rng.random_range(1..=done.max(1));
            if check(&script, &base, &Fault { nth, ..fault }, rng, tally)
                .await?
                .is_some()
            {
                tally.outcome(NOT_REACHED);
            }
        }
        Ok(())
    })
}

/// How many operations of each kind there are when none fails.
async fn counted(script: &Script, base: &Image) -> anyhow::Result<Vec<u64>> {
    let stage = Stage::new(base.clone(), &SETTINGS)?;
    let server = stage.launch.start()?;
    let client = server.client_without_retries().await?;
    script.play(&client, BEFORE..script.len(), || 0).await;
    tokio::time::sleep(BACKGROUND).await;
    let counts = KINDS.iter().map(|ops| stage.fs.tried(ops, None)).collect();
    stage.end(server)?;
    Ok(counts)
}

/// What a server did while something failed.
struct Provoked {
    acked: usize,
    /// The last thing it said, if it was not success.
    said: String,
    /// When an operation was sent and answered that was acknowledged too late.
    late: Option<(usize, usize)>,
    /// The failure after which it must end, and whether the process ended by itself.
    fatal: Option<Caused>,
    ended: bool,
}

/// `None` if it came to its place, else how many operations of its kind there were.
async fn check(
    script: &Script,
    base: &Image,
    fault: &Fault,
    rng: &mut StdRng,
    tally: &mut Tally,
) -> anyhow::Result<Option<u64>> {
    let stage = Stage::new(base.clone(), &SETTINGS)?;
    stage.fs.plan(fault.clone());
    let provoked = provoke(script, &stage, fault).await?;
    let caused = stage.fs.caused();
    let done = stage.fs.tried(&fault.ops, None);
    let log = stage.log();
    let run = stage.fs.unmount()?;
    let Some(first) = caused.first() else {
        return Ok(Some(done));
    };
    let unsynced = if rng.random_bool(0.5) {
        Unsynced::Lost
    } else {
        Unsynced::Some(rng.random())
    };
    let told = |what: &str| {
        format!(
            "{:?} {} fails with errno {}, {} times: {} at step {}, {} acknowledged, then {:?}; not synced: {unsynced:?}: {what}\n{}\nserver: {log}",
            fault.ops,
            fault.nth,
            fault.errno,
            fault.times,
            first.path,
            first.step,
            provoked.acked,
            provoked.said,
            run.trace(run.steps.len(), TRACE)
        )
    };
    let place = format!("{:?} of {:?}", first.op, first.class);
    if let Some(steps) = provoked.late {
        let what = told(&format!("sent and answered at steps {steps:?}"));
        tally.wrong(format!("{place}: acknowledged after it"), what);
        return Ok(None);
    }
    if provoked.fatal.is_some() && !provoked.ended {
        tally.wrong(format!("{place}: goes on"), told("the process did not end"));
        return Ok(None);
    }
    let healthy = Stage::new(run.crashed(unsynced), &SETTINGS)?;
    let server = match healthy.launch.start() {
        Ok(server) => server,
        Err(e) => {
            tally.wrong(format!("{place}: does not open again"), told(&format!("{e:#}")));
            return Ok(None);
        }
    };
    let looked = look(script, &server, rng).await;
    let (seen, judged) = looked.with_context(|| told("it cannot be read"))?;
    let least = BEFORE + provoked.acked;
    match script.made_by(&seen, least..=(least + 1).min(script.len())) {
        Ok(_) if judged.counts.all_zero() => {
            let how = if provoked.ended { "ends" } else { "goes on" };
            tally.outcome(format!("{place}: {how}, nothing lost"));
        }
        Ok(_) => tally.wrong(
            format!("{place}: indexes differ"),
            told(&format!("{:?}", judged.counts)),
        ),
        Err(counts) => tally.wrong(format!("{place}: acknowledged is lost"), told(&format!("{counts:?}"))),
    }
    healthy.end(server)?;
    Ok(None)
}

/// Starts a server on it and plays the script until something is not acknowledged. A server that does not start has ended too.
async fn provoke(script: &Script, stage: &Stage, fault: &Fault) -> anyhow::Result<Provoked> {
    let mut provoked = Provoked {
        acked: 0,
        said: String::new(),
        late: None,
        fatal: None,
        ended: true,
    };
    let mut server = match stage.launch.start() {
        Ok(server) => server,
        Err(e) => {
            provoked.said = format!("{e:#}");
            return Ok(provoked);
        }
    };
    let client = match server.client_without_retries().await {
        Ok(client) => client,
        // It ended as soon as it was ready: what failed was work in the background.
        Err(e) if server.wait_end(END_WAIT).is_some() => {
            provoked.said = format!("{e:#}");
            return Ok(provoked);
        }
        Err(e) => return Err(e),
    };
    let all = script.play(&client, BEFORE..script.len(), || stage.fs.now()).await;
    provoked.acked = all.iter().filter(|said| said.answer.is_ok()).count();
    if let Some(Err(e)) = all.last().map(|said| &said.answer) {
        provoked.said = e.to_string();
    }
    // Builds take as long as the machine lets them: on a busy one the place may come later than where operations were counted.
    let waited = Instant::now();
    while stage.fs.caused().is_empty() && server.is_alive() && waited.elapsed() < REACH_WAIT {
        tokio::time::sleep(REACH_LOOK).await;
    }
    tokio::time::sleep(BACKGROUND).await;
    let mut caused = stage.fs.caused().into_iter();
    provoked.fatal = caused.find(|caused| is_fatal(caused, fault));
    provoked.ended = match &provoked.fatal {
        Some(fatal) => {
            // A sealed file is made beside the log: what is fsynced there meanwhile is as good as ever.
            let is_log = fatal.class == Class::Wal;
            let mut late = all
                .iter()
                .filter(|said| is_log && said.answer.is_ok() && said.sent_at >= fatal.step);
            provoked.late = late.next().map(|said| (said.sent_at, said.answered_at));
            server.wait_end(END_WAIT).is_some()
        }
        None => !server.is_alive(),
    };
    server.kill();
    Ok(provoked)
}

/// After a failure of these the process must end: what was to be durable is not, and nobody can say what is. One write that fails may
/// be the second half of a larger one, of which the kernel then reports that less was written, and the rest is written again.
fn is_fatal(caused: &Caused, fault: &Fault) -> bool {
    match caused.class {
        Class::Wal => caused.op == Op::Sync || caused.op == Op::Write && fault.times > 1,
        // Its rows leave the log once it counts. For want of space it is given up, and made anew when there is some.
        Class::Segment => caused.op == Op::Sync && fault.errno != ENOSPC,
        _ => false,
    }
}
