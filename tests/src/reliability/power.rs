//! R2: the power goes while eight writers write. Of what was not synced everything is lost, or each change by chance.
//!
//! One database lives through all cycles, so later ones begin on what earlier ones left.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::kill::{SETTINGS, Totals};
use super::{Plan, Stage};
use crate::crash::oracle::Oracle;
use crate::crash::work::{self, World};
use crate::crash::{judge, prepare};
use crate::faultfs::{Image, Run, Unsynced};

/// The power goes at most this long after the server is ready.
const LIFE_MS_MAX: u64 = 400;
/// Every so often it goes while the server is opening, within this time.
const OPENING_MS_MAX: u64 = 120;
/// Steps that a finding shows.
const TRACE: usize = 40;

/// Runs it. Ends at the first cycle after which something is wrong.
pub async fn run(plan: Plan) -> anyhow::Result<Totals> {
    let began = Instant::now();
    let mut rng = StdRng::seed_from_u64(plan.seed);
    let dir = tempfile::tempdir()?;
    let world = World::new(plan.seed, Oracle::create(&dir.path().join("oracle.jsonl"))?);
    let mut totals = Totals::default();
    let mut stage = Stage::new(Image::default(), &SETTINGS)?;
    let mut server = stage.launch.start()?;
    prepare(&server.client().await?).await?;
    for cycle in 0..plan.trials {
        if began.elapsed() > plan.time {
            break;
        }
        let stop = Arc::new(AtomicBool::new(false));
        let client = server.client_without_retries().await?;
        let tasks = work::start(&world, &client, &stop, rng.random());
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..=LIFE_MS_MAX))).await;
        stage.fs.cut_power();
        let mut run = stage.end(server)?;
        stop.store(true, Ordering::Relaxed);
        totals.add(tasks.finish().await?, (0.0, 0.0));

        let mut unsynced = any(&mut rng);
        let mut story = told(cycle, unsynced, &run);
        stage = Stage::new(run.crashed(unsynced), &SETTINGS)?;
        if rng.random_ratio(1, 5) {
            let opening = stage.launch.spawn()?;
            tokio::time::sleep(Duration::from_millis(rng.random_range(0..=OPENING_MS_MAX))).await;
            stage.fs.cut_power();
            drop(opening);
            totals.killed_opening += 1;
            run = stage.fs.unmount()?;
            unsynced = any(&mut rng);
            story = format!("{story}\nthen, while it was opening, {}", told(cycle, unsynced, &run));
            stage = Stage::new(run.crashed(unsynced), &SETTINGS)?;
        }
        server = match stage.launch.start() {
            Ok(server) => server,
            Err(e) => {
                totals.failed_opens += 1;
                totals.counts.example(format!("{story}\n{e:#}"));
                return Ok(totals);
            }
        };
        totals.restart_s.push(server.ready_s);
        let client = server.client().await?;
        let judged = judge::judge(&world, &client, &mut rng)
            .await
            .with_context(|| format!("{story}\nit cannot be read"))?;
        totals.judged(judged);
        if !totals.counts.all_zero() {
            totals.counts.example(format!("{story}\nthe above was found"));
            break;
        }
    }
    Ok(totals)
}

/// Mostly the worst case.
fn any(rng: &mut StdRng) -> Unsynced {
    if rng.random_bool(0.5) {
        Unsynced::Lost
    } else {
        Unsynced::Some(rng.random())
    }
}

fn told(cycle: usize, unsynced: Unsynced, run: &Run) -> String {
    let trace = run.trace(run.steps.len(), TRACE);
    format!("loss {cycle} of power, what was not synced being {unsynced:?}, after these steps:\n{trace}")
}
