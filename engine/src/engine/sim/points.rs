//! Every place between two durable steps once with the end of the machine, once with an error and once with a panic. The
//! list of places is written down: a new one is added here, one that is not reached any more is noticed.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::sync::Arc;

use super::super::model::Write;
use super::world::{World, outcome};
use super::{Act, SPACE, Setup, Step};
use crate::config::Settings;
use crate::storage::faulty::{Chance, Faults, How};

/// Comes by every place: seals, merges, drops, copies out of the log, trims, and opens after each kind of end.
fn scenario() -> (Setup, Vec<Step>) {
    let settings = Settings {
        seal_rows: 10,
        graph_rows_min: 10,
        merge_fanin: 2,
        log_bytes_max: 6_000,
        ..Settings::default()
    };
    let setup = Setup {
        settings,
        shards: [1, 1],
        local_log: false,
        flip: false,
    };
    let mut chance = Chance::new(17);
    let mut acts = Vec::new();
    for n in 1..=14 {
        let group = (0..1 + n % 3).map(|_| Write::random(&mut chance, SPACE, n));
        acts.push(Act::Write(usize::from(n % 5 == 0), group.collect()));
        acts.push(match n {
            4 => Act::Kill,
            6 => Act::Litter,
            8 => Act::Restart,
            10 => Act::Optimize(0),
            11 => Act::Drop(1),
            12 => Act::PowerLoss(0),
            _ => Act::Maintain(3),
        });
    }
    let steps = acts.into_iter().zip(100..).map(|(act, seed)| Step::quiet(act, seed));
    (setup, steps.collect())
}

/// The places, as the scenario passes them.
const PLACES: &[&str] = &[];

fn passed(setup: &Setup, steps: &[Step]) -> BTreeMap<String, u64> {
    let mut world = World::new(setup);
    steps.iter().for_each(|step| world.step(step));
    let passed = world.faults.passed();
    world.finish();
    passed
}

#[test]
fn every_place_may_be_the_last_or_fail_or_panic() {
    let (setup, steps) = scenario();
    let places = passed(&setup, &steps);
    assert_eq!(places.keys().map(String::as_str).collect::<Vec<_>>(), PLACES);
    let mut chance = Chance::new(23);
    let mut failures = Vec::new();
    for (place, times) in &places {
        for how in [
            How::Crash,
            How::Fail(ErrorKind::Other),
            How::Fail(ErrorKind::StorageFull),
            How::Panic,
        ] {
            let nth = chance.below(*times);
            let done = outcome(|| {
                let faults = Arc::new(Faults::default());
                faults.plan_at(place, nth, how);
                let mut world = World::with(&setup, Arc::clone(&faults));
                steps.iter().for_each(|step| world.step(step));
                assert!(!faults.unplan(), "it was not reached");
                world.keep_plan = false;
                world.finish();
            });
            if let Err(why) = done {
                failures.push(format!("{how:?} at {place} ({nth}): {why}"));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
