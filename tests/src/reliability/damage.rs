//! R6: a bit of a file is flipped, its end cut off, the file removed, or a page of it cannot be read any more, while nobody looks. Whoever opens the database then is told, by
//! a refusal to open or by an error; or there is no difference. What must never be is an answer that differs.
//!
//! Of a sealed file more must hold: `cairn check` finds the damage, the database opens, the collection that the file is not of
//! answers as before, and the one that it is of answers without it if that is allowed, and says so.

use std::time::{Duration, Instant};

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use anyhow::{Context, ensure};
use cairn_client::{ErrorKind, Scroll};

use super::{Plan, SETTINGS, Stage, Tally, look, written};
use crate::crash::script::Script;
use crate::crash::work::{DOCUMENTS, POINTS};
use crate::faultfs::{Class, Image};
use crate::process::{Failed, Server, is_refusal};

/// Whose turn it is. What RocksDB reads to open but not to answer comes less often.
const TURNS: [Class; 16] = [
    Class::Segment,
    Class::Sst,
    Class::Wal,
    Class::Manifest,
    Class::Segment,
    Class::Sst,
    Class::Wal,
    Class::Current,
    Class::Segment,
    Class::Sst,
    Class::Wal,
    Class::Manifest,
    Class::Segment,
    Class::Sst,
    Class::Options,
    Class::Lock,
];
/// Operations that the database holds.
const OPS: usize = 150;
/// How long a process that nobody can reach may take to end.
const END_WAIT: Duration = Duration::from_secs(60);

/// What is done to a file.
#[derive(Debug, Clone, Copy)]
enum Damage {
    /// This bit of this byte.
    Flip(usize, u8),
    /// Only so many bytes are left.
    Cut(usize),
    /// The disk does not give back what is around this byte.
    Unreadable(usize),
    Remove,
}

/// Damages one file `plan.trials` times.
pub async fn run(plan: Plan) -> anyhow::Result<Tally> {
    let began = Instant::now();
    let script = Script::new(plan.seed, OPS);
    let base = written(&script, OPS).await?;
    // A merge whose old files were not removed yet leaves some that no manifest names: whatever is done to those is no damage.
    let (_, report) = Stage::new(base.clone(), &SETTINGS)?.check()?;
    let is_named = |path: &str| {
        let of_it = |line: &str| line.contains(path) && line.contains("no manifest names it");
        !report.lines().any(of_it)
    };
    let mut files = base.files();
    files.retain(|(path, _)| is_named(path));
    let trials: Vec<usize> = (0..plan.trials).collect();
    plan.each(began, &trials, async |trial, rng, tally| {
        let class = TURNS[*trial % TURNS.len()];
        let of_class: Vec<_> = files.iter().filter(|(path, _)| Class::of(path) == class).collect();
        let (path, ino) = of_class
            .choose(rng)
            .ok_or_else(|| anyhow::anyhow!("the database has no {class:?}: {files:?}"))?;
        let bytes = base.bytes(*ino).unwrap_or_default().len();
        let damage = any(rng, class, bytes);
        let mut image = base.clone();
        match damage {
            Damage::Flip(byte, bit) => image.flip(path, byte, bit),
            Damage::Cut(left) => image.cut(path, left),
            // Of the disk, not of what is on it.
            Damage::Unreadable(_) => {}
            Damage::Remove => image.remove(path),
        }
        check(&script, image, (path, class, damage, bytes), rng, tally).await
    })
}

/// Mostly flips: they are hardest to see. An empty file can only go. Sealed files are mapped, so that what cannot be read of them would
/// end the process.
fn any(rng: &mut StdRng, class: Class, bytes: usize) -> Damage {
    if bytes == 0 {
        return Damage::Remove;
    }
    if class == Class::Segment && rng.random_ratio(2, 5) {
        return Damage::Unreadable(rng.random_range(0..bytes));
    }
    match rng.random_range(0..10) {
        0..7 => Damage::Flip(rng.random_range(0..bytes), rng.random_range(0..8)),
        7..9 => Damage::Cut(rng.random_range(0..bytes)),
        _ => Damage::Remove,
    }
}

async fn check(
    script: &Script,
    image: Image,
    (path, class, damage, bytes): (&str, Class, Damage, usize),
    rng: &mut StdRng,
    tally: &mut Tally,
) -> anyhow::Result<()> {
    let how = match damage {
        Damage::Flip(..) => "flipped",
        Damage::Cut(_) => "cut",
        Damage::Unreadable(_) => "unreadable",
        Damage::Remove => "removed",
    };
    let stage = Stage::new(image, &SETTINGS)?;
    if let Damage::Unreadable(byte) = damage {
        stage.fs.make_unreadable(path, byte);
    }
    let told = |what: &str| format!("{path} of {bytes} bytes, {damage:?}: {what}\nserver: {}", stage.log());
    if class == Class::Segment {
        let (code, report) = stage.check()?;
        if code != Some(1) || !report.contains(path) {
            tally.wrong(
                format!("{class:?} {how}: a check does not find it"),
                told(&format!("{code:?} {report}")),
            );
        }
    }
    let mut server = match stage.launch.start() {
        Ok(server) => server,
        Err(error) if error.is::<Failed>() => {
            tally.wrong(format!("{class:?} {how}: fails to open"), told(&format!("{error:#}")));
            return Ok(());
        }
        Err(_) => {
            if class == Class::Segment && !stage.log().contains("to apply it again") {
                tally.wrong(format!("{class:?} {how}: does not open"), told(""));
            } else {
                tally.outcome(format!("{class:?} {how}: does not open"));
            }
            return Ok(());
        }
    };
    if class == Class::Segment {
        match aside(&server).await {
            Ok(()) => tally.outcome(format!("{class:?} {how}: the rest answers")),
            Err(error) => tally.wrong(
                format!("{class:?} {how}: the rest does not answer"),
                told(&format!("{error:#}")),
            ),
        }
    }
    match look(script, &server, rng).await {
        Err(error) => match died_or_hung(&mut server, &error) {
            Some(died) => tally.wrong(format!("{class:?} {how}: {died}"), told(&format!("{error:#}"))),
            None => tally.outcome(format!("{class:?} {how}: a query fails")),
        },
        Ok((seen, judged)) => match script.made_by(&seen, 0..=script.len()) {
            Ok(n) if n == script.len() && judged.counts.all_zero() => {
                tally.outcome(format!("{class:?} {how}: no difference"));
            }
            Ok(n) if n == script.len() => {
                tally.wrong(
                    format!("{class:?} {how}: indexes differ"),
                    told(&format!("{:?}", judged.counts)),
                );
            }
            // The log cannot tell its damaged end from an end that a crash tore; but it can say so.
            Ok(_) if class == Class::Wal && says_that_records_were_dropped(&server) => {
                tally.outcome(format!("{class:?} {how}: the end was dropped, and that is reported"));
            }
            Ok(n) => tally.wrong(
                format!("{class:?} {how}: the end is lost"),
                told(&format!("{n} of {} operations", script.len())),
            ),
            Err(counts) => tally.wrong(format!("{class:?} {how}: wrong answers"), told(&format!("{counts:?}"))),
        },
    }
    if class == Class::Segment && !server.is_alive() {
        tally.wrong(format!("{class:?} {how}: the process ended"), told(""));
    }
    stage.end(server)?;
    Ok(())
}

/// What became of a server that did not answer, unless it said what is wrong and lives, or ended itself for it.
fn died_or_hung(server: &mut Server, error: &anyhow::Error) -> Option<String> {
    let kind = error
        .downcast_ref::<cairn_client::Error>()
        .map(cairn_client::Error::kind);
    match kind {
        Some(ErrorKind::Deadline) => return Some("no answer".to_owned()),
        Some(ErrorKind::Unreachable) => {}
        _ if server.is_alive() => return None,
        _ => {}
    }
    match server.wait_end(END_WAIT) {
        Some(status) if is_refusal(status) => None,
        Some(status) => Some(format!("ended with {status}")),
        None => Some("cannot be reached, and lives".to_owned()),
    }
}

/// A collection that has a damaged segment says so and answers a part; another answers whole.
async fn aside(server: &Server) -> anyhow::Result<()> {
    let client = server.client_without_retries().await?;
    let mut damaged = 0;
    for name in [POINTS, DOCUMENTS] {
        let collection = client.collection(name);
        // The first that reads everything has it verified.
        let scroll = || Scroll::new().limit(10_000).with_vectors();
        let strict = collection.scroll(scroll()).await;
        let part = collection.scroll(scroll().allow_partial()).await?;
        match strict {
            Ok(whole) => ensure!(part == whole, "{name} is whole, and a part of it differs"),
            Err(error) => {
                damaged += 1;
                ensure!(error.code() == "segment_damaged", "{error}");
                let partial = part.partial.context("a part that does not say so")?;
                let live = collection.info().await?.points;
                ensure!(
                    partial.segments.len() == 1 && partial.segments[0].collection == name,
                    "{partial:?}"
                );
                ensure!(
                    part.points.len() as u64 + partial.points == live,
                    "{partial:?}, {live} points"
                );
            }
        }
    }
    // One without live points is in nobody's way.
    ensure!(damaged <= 1, "{damaged} collections are damaged");
    Ok(())
}

fn says_that_records_were_dropped(server: &Server) -> bool {
    server.metric("cairn_wal_dropped_bytes").is_ok_and(|bytes| bytes > 0.0)
}
