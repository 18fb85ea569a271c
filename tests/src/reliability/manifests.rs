//! R4 and R2 at one place: RocksDB has made a new manifest, `CURRENT` names it, and the fsync of their directory fails, or the power
//! goes before it. Of the two names the disk may then have the one in `CURRENT` only.

use anyhow::{Context, bail, ensure};
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::{Plan, SETTINGS, Stage, Tally, look, written};
use crate::crash::script::Script;
use crate::faultfs::{Class, EIO, Fault, Image, Op, Run, Unsynced};

const DB: &str = "data/db";
const CURRENT: &str = "data/db/CURRENT";
/// Operations that the database holds.
const OPS: usize = 60;
/// A crash that keeps the one name and not the other is found among so many.
const SEEDS: u64 = 1_000;
/// Steps that a finding shows.
const TRACE: usize = 25;

/// Tries all such places of the first open of a new directory, and of an open of one that was in use.
pub async fn run(plan: Plan) -> anyhow::Result<Tally> {
    let mut tally = Tally::default();
    let script = Script::new(plan.seed, OPS);
    let new = opened(&Image::default()).context("a new directory")?;
    for at in renames(&new) {
        let crash = of_current_only(&new, at + 1)?;
        check("a new directory", &new, crash, None, &mut tally).await?;
    }
    let base = written(&script, OPS).await?;
    let healthy = opened(&base).context("a directory that was in use")?;
    let places = renames(&healthy);
    ensure!(!places.is_empty(), "no new manifest in an open");
    for at in places {
        let crash = of_current_only(&healthy, at + 1)?;
        check("the power goes", &healthy, crash, Some(&script), &mut tally).await?;
        let synced = |i: &usize| healthy.steps[*i].op == Op::SyncDir;
        let nth = (0..at).filter(synced).count() as u64 + 1;
        let fault = Fault {
            ops: vec![Op::SyncDir],
            class: None,
            nth,
            times: 1,
            errno: EIO,
        };
        let failed = refused(&base, fault)?;
        let crash = of_current_only(&failed, failed.steps.len())?;
        check("the fsync fails", &failed, crash, Some(&script), &mut tally).await?;
    }
    Ok(tally)
}

/// What an open does to a directory.
fn opened(image: &Image) -> anyhow::Result<Run> {
    let stage = Stage::new(image.clone(), &SETTINGS)?;
    let server = stage.launch.start()?;
    stage.end(server)
}

/// What an open does to a directory that fails at the fsync after a new name in `CURRENT`.
fn refused(image: &Image, fault: Fault) -> anyhow::Result<Run> {
    let stage = Stage::new(image.clone(), &SETTINGS)?;
    stage.fs.plan(fault);
    ensure!(
        stage.launch.start().is_err(),
        "it opened though {DB} could not be synced"
    );
    let caused = stage.fs.caused();
    let place = caused.first().context("the fsync that should fail was not reached")?;
    ensure!(place.path == DB, "the fsync that failed was of {}", place.path);
    let run = stage.fs.unmount()?;
    let before = run.steps[..place.step].last();
    ensure!(
        before.is_some_and(|step| step.op == Op::Rename && step.path == CURRENT),
        "the fsync that failed came after {before:?}"
    );
    Ok(run)
}

/// Where `CURRENT` gets a new name.
fn renames(run: &Run) -> Vec<usize> {
    let is_one = |i: &usize| run.steps[*i].op == Op::Rename && Class::of(&run.steps[*i].path) == Class::Current;
    (0..run.steps.len()).filter(is_one).collect()
}

/// A crash after which `CURRENT` names a manifest that is not there.
fn of_current_only(run: &Run, steps: usize) -> anyhow::Result<Image> {
    for seed in 0..SEEDS {
        let image = run.after_crash(steps, Unsynced::Some(seed), None);
        let current = image.at(CURRENT).and_then(|ino| image.bytes(ino));
        let named = current.and_then(|bytes| std::str::from_utf8(bytes).ok());
        if named.is_some_and(|name| image.at(&format!("{DB}/{}", name.trim_end())).is_none()) {
            return Ok(image);
        }
    }
    bail!("no crash of {SEEDS} kept the one name only")
}

async fn check(place: &str, run: &Run, crash: Image, script: Option<&Script>, tally: &mut Tally) -> anyhow::Result<()> {
    (tally.trials, tally.planned) = (tally.trials + 1, tally.planned + 1);
    let told = |what: &str| format!("{what}\n{}", run.trace(run.steps.len(), TRACE));
    let stage = Stage::new(crash, &SETTINGS)?;
    let server = match stage.launch.start() {
        Ok(server) => server,
        Err(e) => {
            tally.wrong(format!("{place}: does not open"), told(&format!("{e:#}")));
            return Ok(());
        }
    };
    if let Some(script) = script {
        let (seen, judged) = look(script, &server, &mut StdRng::seed_from_u64(0)).await?;
        match script.made_by(&seen, OPS..=OPS) {
            Ok(_) if judged.counts.all_zero() => {}
            Ok(_) => tally.wrong(
                format!("{place}: indexes differ"),
                told(&format!("{:?}", judged.counts)),
            ),
            Err(counts) => tally.wrong(format!("{place}: acknowledged is lost"), told(&format!("{counts:?}"))),
        }
    }
    tally.outcome(format!("{place}: it opens"));
    stage.end(server)?;
    Ok(())
}
