//! Every place between two durable steps once with the end of the machine, once with an error and once with a panic. The
//! list of places is written down: a new one is added here, one that is not reached any more is noticed.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::super::model::Write;
use super::world::{World, outcome};
use super::{Act, Asked, SPACE, Setup, Step, THREADS, number};
use crate::config::Settings;
use crate::storage::faulty::{Chance, Faults, How};
use crate::types::Durability;

/// Comes by every place: seals, merges, drops, a build that is cancelled, copies out of the log, trims, cuts, and opens after
/// each kind of end.
fn scenario() -> (Setup, Vec<Step>) {
    let settings = Settings {
        seal_rows: 10,
        graph_rows_min: 10,
        graph_packs: true,
        merge_fanin: 2,
        log_bytes_max: 500,
        ..Settings::default()
    };
    let setup = Setup {
        settings,
        shards: [1, 1],
        local_log: false,
        flip: false,
        relaxed: false,
    };
    let mut chance = Chance::new(17);
    let mut acts = Vec::new();
    for n in 1..=15 {
        let group = (0..1 + n % 3).map(|_| Asked::plain(Write::random(&mut chance, SPACE, n)));
        acts.push(Act::Write(usize::from(n % 5 == 0), group.collect()));
        acts.push(match n {
            4 => Act::Kill,
            6 => Act::Litter,
            9 => Act::Cut,
            12 => Act::OpenCut(0),
            8 => Act::Restart,
            10 => Act::Optimize(0),
            11 => Act::Drop(1),
            13 => Act::PowerLoss(0),
            _ => Act::Maintain(3),
        });
    }
    // All is sealed, then a little is written and holds back the log, then much that is dropped while it is sealed.
    let mut upsert = |n| loop {
        let write = Write::random(&mut chance, SPACE, n);
        if matches!(&write, Write::Upsert(points) if points.len() > 5) {
            return write;
        }
    };
    let later = |write| Asked {
        write,
        durability: Durability::Async,
        request: Some(7),
    };
    acts.extend([
        Act::Maintain(9),
        Act::Write(0, vec![later(upsert(16))]),
        Act::Sync,
        Act::Repeat(0, Durability::Sync),
        Act::Flush,
        Act::Kill,
        Act::Maintain(3),
        Act::Drop(1),
        Act::Create(1),
        Act::Maintain(3),
    ]);
    let group = (17..21).map(|n| Asked::plain(upsert(n)));
    acts.extend([Act::Write(1, group.collect()), Act::Maintain(1)]);
    let mut steps: Vec<Step> = acts
        .into_iter()
        .zip(100..)
        .map(|(act, seed)| Step::quiet(act, seed))
        .collect();
    let last = steps.last_mut().expect("there are steps");
    last.interlude = Some((0, vec![Act::Drop(1)]));
    (setup, steps)
}

/// What the scenario does; each has a place before and one after it.
const OPERATIONS: &[&str] = &[
    "open database",
    "open flush before tidying",
    "open list collection",
    "open list root",
    "open list segments",
    "open list shard",
    "open make root",
    "open map segment",
    "open remove cuts",
    "open remove segment",
    "open remove temporary",
    "open replay",
    "open sync root",
    "open take lock",
    "run checkpoint",
    "run commit",
    "run create temporary",
    "run flush to cut",
    "run flush to sweep",
    "run flush to trim",
    "run link segment",
    "run log append",
    "run log sync",
    "run log trim",
    "run make shard",
    "run map segment",
    "run map temporary",
    "run merge manifest",
    "run remove collection",
    "run remove cut",
    "run remove segment",
    "run remove temporary",
    "run rename temporary",
    "run rows from the log",
    "run seal manifest",
    "run sync collection",
    "run sync root",
    "run sync segments",
    "run sync shard",
    "run sync temporary",
];
/// Other places.
const OTHERS: &[&str] = &[
    "open log read: before",
    "open log scan: before",
    // Of a disk that is not ours.
    "open sync above: before",
    "run log append: before its sync",
    "run log sync: within",
    "run write temporary: before",
    "run write temporary: within",
];

fn passed(setup: &Setup, steps: &[Step]) -> BTreeMap<String, u64> {
    let mut world = World::new(setup);
    steps.iter().for_each(|step| world.step(step));
    let passed = world.faults.passed();
    world.finish();
    passed
}

#[test]
#[expect(clippy::print_stdout, reason = "what was done belongs in the report of the run")]
fn every_place_may_be_the_last_or_fail_or_panic() {
    let (setup, steps) = scenario();
    let places = passed(&setup, &steps);
    let both = |operation: &&str| [format!("{operation}: before"), format!("{operation}: after")];
    let mut expected: Vec<String> = OPERATIONS.iter().flat_map(both).collect();
    expected.extend(OTHERS.iter().map(|place| (*place).to_owned()));
    expected.sort();
    assert_eq!(places.keys().cloned().collect::<Vec<_>>(), expected);
    let mut chance = Chance::new(23);
    let mut runs = Vec::new();
    // Of the times that it is come by, one; `SIM_TIMES` says how often.
    let times = number("SIM_TIMES", 1);
    for (place, passed) in &places {
        for how in [How::Crash, How::Fail(ErrorKind::Other), How::Panic] {
            runs.extend((0..times).map(|_| (place.as_str(), chance.below(*passed), how)));
        }
    }
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let Some((place, nth, how)) = runs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(why) = outcome(|| with_fault(&setup, &steps, place, *nth, *how)) {
                        failures
                            .lock()
                            .unwrap()
                            .push(format!("{how:?} at {place} ({nth}): {why}"));
                    }
                }
            });
        }
    });
    println!("R17: {} places, {} runs", places.len(), runs.len());
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

fn with_fault(setup: &Setup, steps: &[Step], place: &str, nth: u64, how: How) {
    let faults = Arc::new(Faults::default());
    faults.plan_at(place, nth, how);
    let mut world = World::with(setup, Arc::clone(&faults));
    steps.iter().for_each(|step| world.step(step));
    assert!(!faults.unplan(), "it was not reached");
    world.keep_plan = false;
    world.finish();
}
