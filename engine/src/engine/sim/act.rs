//! What an engine is asked for, and the account of what came of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::super::model::{self, Model, Write};
use super::super::*;
use super::{Act, Asked, NAMES};
use crate::log::Record;
use crate::log::memory::MemoryLog;
use crate::types::Durability;

/// Cuts that are held at a time.
const CUTS_MAX: usize = 3;

/// What one record does.
#[derive(Debug, Clone)]
pub(super) enum Change {
    Write(Write),
    Create,
    Drop,
}

pub(super) type Models = BTreeMap<&'static str, Model>;

impl Change {
    pub(super) fn apply(&self, name: &'static str, models: &mut Models) -> Option<u64> {
        match self {
            Self::Write(write) => write.apply(models.get_mut(name).expect("what is written to is there")),
            Self::Create => {
                models.entry(name).or_default();
                None
            }
            Self::Drop => {
                models.remove(name);
                None
            }
        }
    }
}

/// A record that was to be written, in the order of the log.
pub(super) struct Attempt {
    pub(super) name: &'static str,
    pub(super) change: Change,
    pub(super) asked: Option<Asked>,
    /// None if it ended in a panic.
    pub(super) outcome: Option<Result<Applied>>,
}

/// A cut that is held, with the log that goes with it unless RocksDB has it.
pub(super) struct HeldCut {
    pub(super) cut: Cut,
    pub(super) log: Arc<MemoryLog>,
}

/// What an act is done with, beside the engine.
#[derive(Clone)]
pub(super) struct Hands {
    pub(super) attempts: Arc<Mutex<Vec<Attempt>>>,
    pub(super) cuts: Arc<Mutex<Vec<HeldCut>>>,
    pub(super) log: Arc<MemoryLog>,
    pub(super) shards: [u32; 2],
}

/// How an engine is asked.
pub(super) fn options(asked: &Asked) -> WriteOptions {
    WriteOptions {
        request: asked.request(),
        durability: Some(asked.durability),
        patience: Patience::lasting(Duration::from_secs(600)),
    }
}

/// What engines are asked for.
pub(super) fn perform(engine: &Engine, act: &Act, hands: &Hands) -> Result<()> {
    let attempt = |name: &'static str, change: Change, asked: Option<&Asked>, work: &dyn Fn() -> Result<Applied>| {
        let place = hands.attempts.lock().len();
        hands.attempts.lock().push(Attempt {
            name,
            change,
            asked: asked.cloned(),
            outcome: None,
        });
        let outcome = work();
        hands.attempts.lock()[place].outcome = Some(outcome);
    };
    match act {
        Act::Write(name, all) => match all.as_slice() {
            [asked] => attempt(NAMES[*name], Change::Write(asked.write.clone()), Some(asked), &|| {
                asked.write.run(engine, NAMES[*name], &options(asked))
            }),
            all => group(engine, NAMES[*name], all, hands)?,
        },
        Act::Create(name) => attempt(NAMES[*name], Change::Create, None, &|| {
            engine.create_collection(NAMES[*name], model::schema(hands.shards[*name]))?;
            Ok(Applied {
                token: engine.applied(),
                changed: 1,
                durability: Durability::Sync,
                replayed: false,
                note: Vec::new(),
                refused: None,
            })
        }),
        Act::Drop(name) => attempt(NAMES[*name], Change::Drop, None, &|| {
            engine.drop_collection(NAMES[*name], &WriteOptions::default())
        }),
        Act::Maintain(times) => {
            for _ in 0..*times {
                engine.maintain(&|| false)?;
            }
        }
        Act::Optimize(name) => match engine.optimize(NAMES[*name], &|| false, &mut |_| {}) {
            Err(error) if error.kind == ErrorKind::NotFound => {}
            done => done?,
        },
        Act::Flush => engine.flush()?,
        Act::OwnFlush => engine.shared.flush("own flush")?,
        Act::Sync => engine.sync()?,
        Act::Cut if hands.cuts.lock().len() < CUTS_MAX => {
            let cut = engine.cut(&|| false, &mut |_| ())?;
            let log = Arc::new(hands.log.copy(cut.token.seq));
            hands.cuts.lock().push(HeldCut { cut, log });
        }
        Act::Cut => {}
        other => unreachable!("{other:?} is not for an engine"),
    }
    Ok(())
}

/// Several writers at once: all but the last are in the line when the last comes and commits for all.
fn group(engine: &Engine, name: &'static str, all: &[Asked], hands: &Hands) -> Result<()> {
    let Ok(collection) = engine.find(name) else {
        return Ok(());
    };
    let shared = &engine.shared;
    shared.check_alive()?;
    let (last, before) = all.split_last().expect("a group has several");
    let answers = before.iter().map(|asked| {
        let record = Record {
            group: 0,
            by: shared.opening,
            timestamp_ms: shared.components.clock.now_ms(),
            request: asked.request(),
            ops: vec![asked.write.op(&collection)],
        };
        shared.enqueue(record, asked.durability, false)
    });
    // On a full disk they are refused, and nothing is in the line.
    let Ok(answers) = answers.collect::<Result<Vec<_>>>() else {
        return Ok(());
    };
    let first = hands.attempts.lock().len();
    hands.attempts.lock().extend(all.iter().map(|asked| Attempt {
        name,
        change: Change::Write(asked.write.clone()),
        asked: Some(asked.clone()),
        outcome: None,
    }));
    let write = commit::Write {
        collection: None,
        ops: vec![last.write.op(&collection)],
        durability: None,
        grows: false,
    };
    let outcome = shared.submit(write, &options(last));
    let mut attempts = hands.attempts.lock();
    for (attempt, answer) in attempts[first..].iter_mut().zip(answers) {
        attempt.outcome = answer.lock().take();
    }
    attempts[first + all.len() - 1].outcome = Some(outcome);
    Ok(())
}
