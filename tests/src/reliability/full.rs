//! R5: the disk is full. Writes are refused with a reason, reads go on, and when there is space again, so do writes.

use std::time::{Duration, Instant};

use anyhow::Context;
use cairn_client::{Client, ErrorKind};
use rand::rngs::StdRng;

use super::{Plan, SETTINGS, Stage, Tally, look, written};
use crate::crash::judge;
use crate::crash::script::{Said, Script};
use crate::faultfs::{Image, Unsynced};

/// Operations that the database holds before.
const BEFORE: usize = 60;
/// More operations than fit on the disk, and some for when there is space again.
const OPS: usize = 1500;
/// Bytes that the server keeps free: what its flushes and seals need, of data as small as this.
const RESERVE: u64 = 2 << 20;
/// Bytes that may be written when a round begins.
const ROOM: u64 = 1 << 20;
/// How long it may take until writes go on when there is space.
const RESUME_WAIT: Duration = Duration::from_secs(60);
/// Operations that then must succeed.
const AFTER: usize = 20;

/// Fills the disk `plan.trials` times, each time with a little more room than the last.
pub async fn run(plan: Plan) -> anyhow::Result<Tally> {
    let began = Instant::now();
    let script = Script::new(plan.seed, BEFORE + OPS);
    let base = written(&script, BEFORE).await?;
    let rooms: Vec<u64> = (0..plan.trials as u64).map(|round| ROOM + round * 4096).collect();
    plan.each(began, &rooms, async |room, rng, tally| {
        check(&script, &base, *room, rng, tally).await
    })
}

async fn check(script: &Script, base: &Image, room: u64, rng: &mut StdRng, tally: &mut Tally) -> anyhow::Result<()> {
    let reserve = format!("engine.disk_reserve_bytes={RESERVE}");
    let settings = [&SETTINGS[..], &[&reserve]].concat();
    let stage = Stage::new(base.clone(), &settings)?;
    stage.fs.set_capacity(Some(stage.fs.used() + RESERVE + room));
    let server = stage.launch.start()?;
    let client = server.client_without_retries().await?;
    let told = |what: &str| format!("{room} bytes free: {what}\nserver: {}", stage.log());

    let said = script
        .play(&client, BEFORE..script.len() - AFTER, || stage.fs.now())
        .await;
    let mut done = BEFORE + said.iter().filter(|said| said.answer.is_ok()).count();
    let Some(Said {
        answer: Err(refused), ..
    }) = said.last()
    else {
        tally.wrong("the disk is not full", told("all operations fit: give less room"));
        return Ok(());
    };
    if refused.kind() != ErrorKind::Exhausted {
        tally.wrong(
            "not refused as Exhausted",
            told(&format!("{refused} after {done} operations")),
        );
        return Ok(());
    }
    match judge::read_back(script.content, &client).await {
        Ok(seen) => match script.made_by(&seen, done..=done) {
            Ok(_) => tally.outcome("reads go on"),
            Err(counts) => tally.wrong("reads differ while full", told(&format!("{counts:?}"))),
        },
        Err(e) => tally.wrong("no reads while full", told(&format!("{e:#}"))),
    }

    stage.fs.set_capacity(None);
    match resume(script, &client, done).await {
        Ok(()) => tally.outcome("writes go on when there is space"),
        Err(e) => {
            tally.wrong("writes do not go on when there is space", told(&format!("{e:#}")));
            return Ok(());
        }
    }
    done += AFTER;
    let image = stage.end(server)?.crashed(Unsynced::Lost);
    let again = Stage::new(image, &SETTINGS)?;
    let server = again.launch.start().context("after a full disk")?;
    let (seen, judged) = look(script, &server, rng).await?;
    match script.made_by(&seen, done..=done) {
        Ok(_) if judged.counts.all_zero() => tally.outcome("nothing lost"),
        Ok(_) => tally.wrong("indexes differ", format!("{:?}", judged.counts)),
        Err(counts) => tally.wrong("acknowledged is lost", format!("{counts:?}")),
    }
    again.end(server)?;
    Ok(())
}

/// Sends the next operations, the first of them until it is taken.
async fn resume(script: &Script, client: &Client, done: usize) -> anyhow::Result<()> {
    let patience = Instant::now() + RESUME_WAIT;
    let mut next = done;
    while next < done + AFTER {
        let said = script.play(client, next..done + AFTER, || 0).await;
        next += said.iter().filter(|said| said.answer.is_ok()).count();
        if let Some(Said { answer: Err(e), .. }) = said.last() {
            anyhow::ensure!(Instant::now() < patience, "{e} after {RESUME_WAIT:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    Ok(())
}
