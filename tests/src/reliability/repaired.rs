//! R6, after it: the power goes while `cairn repair` puts a copy in the place of a damaged file, or gives the file up, and in the moment
//! after it ended.
//!
//! Whatever is left then, the same command again comes to the end that it would have had: all that was there, or a directory in which
//! nothing is damaged. And once it said that it was done, it is done.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, ensure};
use rand::Rng;
use rand::rngs::StdRng;

use super::{Plan, SETTINGS, Stage, Tally, by_chance, look, written};
use crate::crash::judge::{self, Seen};
use crate::crash::script::Script;
use crate::faultfs::{Class, Image, Run, Unsynced};

/// Operations that the database holds.
const OPS: usize = 100;
/// Steps that a finding shows.
const TRACE: usize = 25;

/// What is done about the file.
#[derive(Debug, Clone, Copy)]
enum Way {
    TakeBack,
    GiveUp,
}

/// Crashes at `plan.trials` moments.
pub async fn run(plan: Plan) -> anyhow::Result<Tally> {
    let began = Instant::now();
    let script = Script::new(plan.seed, OPS);
    let base = written(&script, OPS).await?;
    let copy = tempfile::tempdir()?;
    for (path, ino) in base.files() {
        let to = copy.path().join(&path);
        std::fs::create_dir_all(to.parent().context("a file in no directory")?)?;
        std::fs::write(to, base.bytes(ino).unwrap_or_default())?;
    }
    let copy = copy.path().join("data");
    let (damaged, segment) = damaged(&base)?;
    let taken = done(&damaged, &copy, &segment, Way::TakeBack)?;
    let given_up = done(&damaged, &copy, &segment, Way::GiveUp)?;
    let left = left(&script, &given_up).await?;

    let trials: Vec<usize> = (0..plan.trials).collect();
    plan.each(began, &trials, async |trial, rng, tally| {
        let (way, run) = match trial % 2 {
            0 => (Way::TakeBack, &taken),
            _ => (Way::GiveUp, &given_up),
        };
        check(&script, (way, run), &left, &copy, &segment, rng, tally).await
    })
}

/// A database with one damaged file that points live in, and the name that the file has in commands.
fn damaged(base: &Image) -> anyhow::Result<(Image, String)> {
    for (path, ino) in base.files() {
        if Class::of(&path) != Class::Segment || !path.ends_with(".seg") {
            continue;
        }
        let mut image = base.clone();
        image.flip(&path, base.bytes(ino).unwrap_or_default().len() / 2, 0);
        let stage = Stage::new(image.clone(), &SETTINGS)?;
        let (code, said) = repair(&stage, &[])?;
        if code == Some(1) {
            let named = said.lines().find_map(|line| line.strip_prefix("damaged: "));
            let named = named.and_then(|rest| rest.split(' ').next());
            return Ok((image, named.context("a damaged file without a name")?.to_owned()));
        }
    }
    anyhow::bail!("no sealed file of the database is named by a manifest")
}

/// The exit code of `cairn repair`, and what it says.
fn repair(stage: &Stage, arguments: &[&str]) -> anyhow::Result<(Option<i32>, String)> {
    let mut command = crate::process::cairn()?;
    command.arg("repair").arg("--data-dir").arg(stage.launch.data_dir());
    let output = command.args(arguments).output().context("cairn repair")?;
    let said = [output.stdout, output.stderr].concat();
    Ok((output.status.code(), String::from_utf8_lossy(&said).into_owned()))
}

/// Does it for good. The ids of what is given up go to a new file elsewhere each time.
fn apply(stage: &Stage, copy: &Path, segment: &str, way: Way) -> anyhow::Result<(Option<i32>, String)> {
    let lost = tempfile::tempdir()?;
    let lost = lost.path().join("lost.jsonl");
    let (copy, lost) = (copy.to_string_lossy(), lost.to_string_lossy());
    match way {
        Way::TakeBack => repair(stage, &["--from", &copy, "--apply"]),
        Way::GiveUp => repair(
            stage,
            &["--drop-segment", segment, "--lost", &lost, "--accept-loss", "--apply"],
        ),
    }
}

/// What it does to the disk when nothing fails.
fn done(damaged: &Image, copy: &Path, segment: &str, way: Way) -> anyhow::Result<Run> {
    let stage = Stage::new(damaged.clone(), &SETTINGS)?;
    let (code, said) = apply(&stage, copy, segment, way)?;
    ensure!(code == Some(0), "{way:?} ended with {code:?}: {said}");
    let run = stage.fs.unmount()?;
    ensure!(!run.steps.is_empty(), "{way:?} changed nothing: {said}");
    Ok(run)
}

/// What is there once the file was given up.
async fn left(script: &Script, run: &Run) -> anyhow::Result<Seen> {
    let stage = Stage::new(run.crashed(Unsynced::Kept), &SETTINGS)?;
    let server = stage.launch.start()?;
    let seen = judge::read_back(script.content, &server.client_without_retries().await?).await?;
    stage.end(server)?;
    let differs = script.made_by(&seen, OPS..=OPS).is_err();
    ensure!(differs, "giving up a file with points takes nothing");
    Ok(seen)
}

async fn check(
    script: &Script,
    (way, run): (Way, &Run),
    left: &Seen,
    copy: &Path,
    segment: &str,
    rng: &mut StdRng,
    tally: &mut Tally,
) -> anyhow::Result<()> {
    let ended = rng.random_ratio(1, 4);
    let steps = match ended {
        true => run.steps.len(),
        false => rng.random_range(0..run.steps.len()),
    };
    let unsynced = by_chance(rng);
    let told = |what: &str| {
        let trace = run.trace(steps, TRACE);
        format!("{way:?}, what was not synced being {unsynced:?}, after {steps} steps: {what}\n{trace}")
    };
    let stage = Stage::new(run.after_crash(steps, unsynced, None), &SETTINGS)?;
    let (found, said) = stage.check()?;
    if ended && found != Some(0) {
        tally.wrong(format!("{way:?}: it was done, and is not"), told(&said));
        return Ok(());
    }
    if found != Some(0) {
        let (code, said) = apply(&stage, copy, segment, way)?;
        if code != Some(0) {
            tally.wrong(format!("{way:?}: not again"), told(&format!("{code:?} {said}")));
            return Ok(());
        }
        let (found, said) = stage.check()?;
        if found != Some(0) {
            tally.wrong(format!("{way:?}: damaged after it"), told(&said));
            return Ok(());
        }
    }
    let server = match stage.launch.start() {
        Ok(server) => server,
        Err(e) => {
            tally.wrong(format!("{way:?}: does not open"), told(&format!("{e:#}")));
            return Ok(());
        }
    };
    match look(script, &server, rng).await {
        Err(e) => tally.wrong(format!("{way:?}: cannot be read"), told(&format!("{e:#}"))),
        Ok((seen, _)) if matches!(way, Way::GiveUp) => {
            match (&seen.points, &seen.documents) == (&left.points, &left.documents) {
                true => tally.outcome(format!("{way:?}: the rest is there")),
                false => tally.wrong(format!("{way:?}: the rest differs"), told("")),
            }
        }
        Ok((seen, judged)) => match script.made_by(&seen, OPS..=OPS) {
            Ok(_) if judged.counts.all_zero() => tally.outcome(format!("{way:?}: all is there")),
            Ok(_) => tally.wrong(
                format!("{way:?}: indexes differ"),
                told(&format!("{:?}", judged.counts)),
            ),
            Err(counts) => tally.wrong(format!("{way:?}: acknowledged is lost"), told(&format!("{counts:?}"))),
        },
    }
    stage.end(server)?;
    Ok(())
}
