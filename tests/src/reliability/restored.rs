//! R14, and the power goes: while a collection is brought back from a snapshot under another name, and just after.
//!
//! The copy goes through the log in many records. Whatever is left of them, the collection is there whole, or is not there at all; what
//! was there before is; and once the operation was said to be done, so is the copy.

use std::time::Instant;

use anyhow::{Context, ensure};
use cairn_client::{Client, Operation, OperationState, Restore, Scroll, StoredPoint};
use rand::Rng;
use rand::rngs::StdRng;

use super::{Plan, SETTINGS, Stage, Tally, by_chance, look, written};
use crate::crash::script::Script;
use crate::crash::work::POINTS;
use crate::faultfs::Run;

/// Operations that the database holds.
const OPS: usize = 100;
const SNAPSHOT: &str = "before";
const COPY: &str = "copy";
/// More than the one that is copied has: its rows are dealt anew.
const SHARDS: u32 = 3;
/// Steps that a finding shows.
const TRACE: usize = 40;

/// A restore, in a journal.
struct Restored {
    run: Run,
    began_at: usize,
    done_at: usize,
    points: Vec<StoredPoint>,
}

/// Crashes at `plan.trials` moments.
pub async fn run(plan: Plan) -> anyhow::Result<Tally> {
    let began = Instant::now();
    let script = Script::new(plan.seed, OPS);
    let stage = Stage::new(written(&script, OPS).await?, &SETTINGS)?;
    let server = stage.launch.start()?;
    let client = server.client_without_retries().await?;
    done(&client, client.create_snapshot(Some(SNAPSHOT)).await?).await?;
    let began_at = stage.fs.now();
    let restore = Restore::collection(POINTS).rename(COPY).shards(SHARDS);
    done(&client, client.restore_snapshot(SNAPSHOT, restore).await?).await?;
    let done_at = stage.fs.now();
    let points = all(&client, POINTS).await?;
    ensure!(!points.is_empty(), "there is nothing to bring back");
    ensure!(
        all(&client, COPY).await? == points,
        "the copy differs though nothing went wrong"
    );
    let restored = Restored {
        run: stage.end(server)?,
        began_at,
        done_at,
        points,
    };
    let trials = vec![(); plan.trials];
    plan.each(began, &trials, async |(), rng, tally| {
        check(&script, &restored, rng, tally).await
    })
}

async fn done(client: &Client, operation: Operation) -> anyhow::Result<()> {
    let ended = client.wait(&operation.id, |_| {}).await?;
    ensure!(
        ended.state == OperationState::Done,
        "{} ended: {:?}",
        ended.kind,
        ended.error
    );
    Ok(())
}

/// Everything of a collection, whatever shard it is in and by which write it came.
async fn all(client: &Client, name: &str) -> anyhow::Result<Vec<StoredPoint>> {
    let page = client
        .collection(name)
        .scroll(Scroll::new().limit(10_000).with_vectors())
        .await?;
    let mut points = page.points;
    points.sort_by(|a, b| a.id.cmp(&b.id));
    points.iter_mut().for_each(|point| point.version.clear());
    Ok(points)
}

async fn check(script: &Script, restored: &Restored, rng: &mut StdRng, tally: &mut Tally) -> anyhow::Result<()> {
    let run = &restored.run;
    let steps = match rng.random_ratio(1, 4) {
        true => rng.random_range(restored.done_at..=run.steps.len()),
        false => rng.random_range(restored.began_at..restored.done_at),
    };
    let unsynced = by_chance(rng);
    let told = |what: &str| {
        let trace = run.trace(steps, TRACE);
        format!("what was not synced being {unsynced:?}, after {steps} steps: {what}\n{trace}")
    };
    let stage = Stage::new(run.after_crash(steps, unsynced, None), &SETTINGS)?;
    let server = match stage.launch.start() {
        Ok(server) => server,
        Err(e) => {
            tally.wrong("does not open", told(&format!("{e:#}")));
            return Ok(());
        }
    };
    let (seen, judged) = look(script, &server, rng)
        .await
        .with_context(|| told("it cannot be read"))?;
    match script.made_by(&seen, OPS..=OPS) {
        Ok(_) if judged.counts.all_zero() => {}
        Ok(_) => tally.wrong("indexes differ", told(&format!("{:?}", judged.counts))),
        Err(counts) => tally.wrong("acknowledged is lost", told(&format!("{counts:?}"))),
    }
    let client = server.client_without_retries().await?;
    let names = client.list_collections().await?;
    match names.iter().any(|name| name == COPY) {
        true if all(&client, COPY).await? == restored.points => tally.outcome("the copy is whole"),
        true => tally.wrong("the copy differs", told("")),
        false if steps >= restored.done_at => tally.wrong("the copy is lost", told("the operation was done")),
        false => tally.outcome("there is no copy"),
    }
    ensure!(names.iter().all(|name| !name.starts_with('~')), "{names:?}");
    stage.end(server)?;
    Ok(())
}
