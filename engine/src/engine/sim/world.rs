//! The engine under test with everything around it, and the model of what it should hold.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::super::model::{self, Model, Write, crash_image};
use super::super::*;
use super::{Act, NAMES, Setup, Step};
use crate::config::{Clock, Workers};
use crate::log::memory::{FaultyLog, MemoryLog};
use crate::log::{Log, Record};
use crate::storage::faulty::{Chance, Faults, FaultyDir, How};
use crate::storage::files;
use crate::types::Durability;

/// As `keep` of a loss of power: what was synced goes as well, to see that this is noticed.
pub(super) const BREAK_WORD: u64 = 99;

/// A result, or what a panic said.
pub(super) fn outcome<T>(work: impl FnOnce() -> T) -> std::result::Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| said(&*panic))
}

fn said(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic that says nothing".into())
}

struct SetClock(AtomicU64);

impl Clock for SetClock {
    fn now_ms(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What one record does.
#[derive(Debug, Clone)]
enum Change {
    Write(Write),
    Create,
    Drop,
}

type Models = BTreeMap<&'static str, Model>;

impl Change {
    fn apply(&self, name: &'static str, models: &mut Models) -> Option<u64> {
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
struct Attempt {
    name: &'static str,
    change: Change,
    /// None if it ended in a panic.
    outcome: Option<Result<Applied>>,
}

type Attempts = Arc<Mutex<Vec<Attempt>>>;

/// A view that somebody holds, and what it showed when it was taken.
struct HeldView {
    name: &'static str,
    collection: Arc<Collection>,
    view: Arc<View>,
    model: Model,
}

/// How a process ends.
enum End {
    Kill,
    PowerLoss(u64),
}

pub(super) struct World {
    setup: Setup,
    pub(super) faults: Arc<Faults>,
    disk: Arc<FaultyDir>,
    log: Arc<MemoryLog>,
    clock: Arc<SetClock>,
    engine: Option<Arc<Engine>>,
    models: Models,
    /// The last record that was acked or found after a crash.
    seq: u64,
    held: Vec<HeldView>,
    chance: Chance,
    /// A fault that is planned outlives the step.
    pub(super) keep_plan: bool,
    /// Nothing went wrong since it was opened, so that nothing was left lying about.
    tidy: bool,
    hash: xxhash_rust::xxh3::Xxh3Default,
    /// After the engine, which flushes into it when it is dropped: RocksDB waits a second when that fails.
    root: tempfile::TempDir,
}

impl World {
    pub(super) fn new(setup: &Setup) -> Self {
        Self::with(setup, Arc::default())
    }

    /// With faults that are planned before the first open.
    pub(super) fn with(setup: &Setup, faults: Arc<Faults>) -> Self {
        let memory = Path::new("/dev/shm");
        let root = if memory.is_dir() {
            tempfile::tempdir_in(memory)
        } else {
            tempfile::tempdir()
        };
        let root = root.unwrap();
        let data = root.path().join("data");
        std::fs::create_dir(&data).unwrap();
        let disk = Arc::new(FaultyDir::new(&data, Arc::clone(&faults)));
        let mut world = Self {
            setup: setup.clone(),
            root,
            disk,
            log: Arc::new(MemoryLog::new(Arc::clone(&faults))),
            keep_plan: faults.is_planned(),
            faults,
            clock: Arc::new(SetClock(AtomicU64::new(1_700_000_000_000))),
            engine: None,
            models: Models::new(),
            seq: 0,
            held: Vec::new(),
            chance: Chance::new(0),
            tidy: true,
            hash: Default::default(),
        };
        world.open(None);
        world
    }

    fn data(&self) -> PathBuf {
        self.root.path().join("data")
    }

    fn engine(&self) -> &Arc<Engine> {
        self.engine.as_ref().expect("a step ends with an open engine")
    }

    // ---- steps ----

    pub(super) fn step(&mut self, step: &Step) {
        self.chance = Chance::new(step.seed);
        let pending = match &step.act {
            Act::Hold(name) => self.hold(NAMES[*name]),
            Act::Release => {
                if !self.held.is_empty() {
                    let one = self.chance.below(self.held.len() as u64) as usize;
                    self.held.swap_remove(one);
                }
                Vec::new()
            }
            Act::Clock(ms) => {
                self.clock.0.store(*ms, Ordering::Relaxed);
                Vec::new()
            }
            Act::Litter => {
                let shard = files::shard_dir(&self.data(), CollectionNo(0), ShardNo(0));
                self.disk.litter(&shard, &["0000000990.tmp", "0000000991.seg"]);
                self.end(&End::Kill, Vec::new(), step.open_fault);
                Vec::new()
            }
            Act::Restart => {
                let pending = self.perform(&Act::Flush, step);
                if !self.faults.is_off() && self.engine().check_alive().is_ok() {
                    self.held.clear();
                    self.engine = None;
                    self.open(step.open_fault);
                }
                pending
            }
            Act::Kill => {
                self.end(&End::Kill, Vec::new(), step.open_fault);
                Vec::new()
            }
            Act::PowerLoss(keep) => {
                self.end(&End::PowerLoss(*keep), Vec::new(), step.open_fault);
                Vec::new()
            }
            act => self.perform(act, step),
        };
        if self.faults.is_off() {
            let keep = self.chance.below(3);
            self.end(&End::PowerLoss(keep), pending, step.open_fault);
        } else if self.engine().check_alive().is_err() {
            self.end(&End::Kill, pending, step.open_fault);
        } else {
            assert!(pending.is_empty(), "a write failed and the engine goes on: {pending:?}");
        }
        self.check(step);
    }

    /// Lets the engine work. Gives the records of which nobody knows whether they were written.
    fn perform(&mut self, act: &Act, step: &Step) -> Vec<(&'static str, Change)> {
        let act = match act {
            Act::Write(name, _) | Act::Drop(name) | Act::Optimize(name) if !self.models.contains_key(NAMES[*name]) => {
                &Act::Create(*name)
            }
            act => act,
        };
        let attempts = Attempts::default();
        self.faults.stage("run");
        if let Some((nth, how)) = step.fault {
            self.faults.plan(nth, how);
        }
        if let Some((nth, acts)) = step.interlude.clone() {
            let (engine, attempts, shards) = (Arc::downgrade(self.engine()), Arc::clone(&attempts), self.setup.shards);
            self.faults.interlude(nth, move || {
                let engine = engine.upgrade().expect("it is at work");
                for act in &acts {
                    // What came of it is in the attempts; background work may be done again.
                    drop(perform(&engine, act, shards, &attempts));
                }
            });
        }
        let (engine, shards) = (Arc::clone(self.engine()), self.setup.shards);
        let done = catch_unwind(AssertUnwindSafe(|| perform(&engine, act, shards, &attempts)));
        self.faults.no_interlude();
        let went_wrong = step.fault.is_some() && !self.unplan();
        self.tidy &= !went_wrong && !self.keep_plan;
        match done {
            Ok(Ok(())) => {}
            Ok(Err(error)) => assert!(went_wrong || self.keep_plan, "nothing was to go wrong: {error}"),
            Err(panic) if said(&*panic).contains("as planned") => {}
            Err(panic) => resume_unwind(panic),
        }
        let mut pending = Vec::new();
        for attempt in std::mem::take(&mut *attempts.lock()) {
            let Attempt { name, change, outcome } = attempt;
            let told = outcome
                .as_ref()
                .map(|o| o.as_ref().map(|a| a.changed).map_err(|e| e.code));
            self.note(&format!("{told:?}"));
            match outcome {
                Some(Ok(applied)) => {
                    assert!(pending.is_empty(), "acked after a failure: {change:?}");
                    self.acked(name, &change, &applied);
                }
                Some(Err(error)) if matches!(error.code, "growing_memory_full" | "disk_full") => {}
                Some(Err(error)) if error.code == "collection_not_found" => {
                    assert!(!self.models.contains_key(name), "{name} is gone");
                }
                _ => pending.push((name, change)),
            }
        }
        pending
    }

    /// Nothing is planned any more, unless it is to stay so. True if something was.
    fn unplan(&self) -> bool {
        !self.keep_plan && self.faults.unplan()
    }

    fn acked(&mut self, name: &'static str, change: &Change, applied: &Applied) {
        let (seq, mut after) = (applied.token.seq.0, self.models.clone());
        let expected = change.apply(name, &mut after);
        if seq > self.seq {
            assert_eq!(seq, self.seq + 1, "sequence numbers are consecutive");
            assert!(
                expected.is_none_or(|changed| changed == applied.changed),
                "{change:?} changed {}, not {expected:?}",
                applied.changed
            );
            (self.seq, self.models) = (seq, after);
        } else {
            assert!(after == self.models, "{change:?} was not written, and should have been");
        }
    }

    fn hold(&mut self, name: &'static str) -> Vec<(&'static str, Change)> {
        if let (Some(model), true) = (self.models.get(name), self.held.len() < 4) {
            let collection = self.engine().find(name).unwrap();
            self.held.push(HeldView {
                name,
                view: collection.listing().view(Patience::endless(), Lacking::Refuse).unwrap(),
                collection,
                model: model.clone(),
            });
        }
        Vec::new()
    }

    // ---- endings and beginnings ----

    /// The process ends where it stands, and another opens what is left.
    fn end(&mut self, end: &End, pending: Vec<(&'static str, Change)>, open_fault: Option<(u64, How)>) {
        // Whatever the engine still does while it is let go comes to nothing.
        self.faults.power_off();
        let image = self.root.path().join("image");
        crash_image(&self.data(), &image);
        self.held.clear();
        self.engine = None;
        std::fs::remove_dir_all(self.data()).unwrap();
        std::fs::rename(&image, self.data()).unwrap();
        self.lose(end);
        self.faults.power_on();
        self.open(open_fault);
        let applied = self.engine().applied().seq.0;
        assert!(applied >= self.seq, "acked up to {}, lost from {applied}", self.seq);
        let more = (applied - self.seq) as usize;
        assert!(
            more <= pending.len(),
            "{more} records more, {} were on their way",
            pending.len()
        );
        for (name, change) in &pending[..more] {
            change.apply(name, &mut self.models);
        }
        self.seq = applied;
    }

    fn lose(&mut self, end: &End) {
        if let End::PowerLoss(keep) = end {
            self.disk.lose_power(&mut self.chance, *keep);
            self.log.lose_power(&mut self.chance);
            if *keep == BREAK_WORD {
                self.log.forget();
            }
        }
    }

    /// Opens, again and again if opening itself goes wrong.
    fn open(&mut self, mut fault: Option<(u64, How)>) {
        for tries in 0.. {
            assert!(tries < 3, "one fault keeps it from opening for ever");
            self.faults.stage("open");
            if let Some((nth, how)) = fault {
                self.faults.plan(nth, how);
            }
            let opened = catch_unwind(AssertUnwindSafe(|| self.open_once()));
            let was_planned = fault.take().is_some() && !self.unplan();
            match opened {
                Ok(Ok(engine)) => {
                    self.engine = Some(Arc::new(engine));
                    break;
                }
                Ok(Err(error)) => {
                    assert!(was_planned || self.keep_plan, "it does not open: {error}");
                    // RocksDB was closed on the way out and flushed what was replayed: it could have done so before.
                    if self.faults.is_off() {
                        let keep = self.chance.below(3);
                        self.lose(&End::PowerLoss(keep));
                        self.faults.power_on();
                    }
                }
                Err(panic) if said(&*panic).contains("as planned") => {}
                Err(panic) => resume_unwind(panic),
            }
        }
        let left: BTreeSet<PathBuf> = self.sealed_files().collect();
        assert_eq!(
            left,
            self.named(),
            "after opening there are the files that manifests name"
        );
        self.tidy = true;
    }

    fn open_once(&self) -> Result<Engine> {
        let components = Components {
            clock: Arc::<SetClock>::clone(&self.clock),
            workers: Workers::alone(),
            files: Arc::<FaultyDir>::clone(&self.disk),
        };
        let log = |storage: &Arc<_>, window: Duration| -> Arc<dyn Log> {
            let inner: Arc<dyn Log> = if self.setup.local_log {
                Arc::new(LocalLog::new(Arc::clone(storage), 0, window))
            } else {
                self.log.reopen();
                Arc::<MemoryLog>::clone(&self.log)
            };
            let faults = Arc::clone(&self.faults);
            Arc::new(FaultyLog { inner, faults })
        };
        let shared = recover::open(
            &self.data(),
            self.setup.settings.clone(),
            components,
            &Progress::default(),
            log,
        )?;
        Ok(Engine { shared })
    }

    // ---- comparison ----

    fn sealed_files(&self) -> impl Iterator<Item = PathBuf> {
        let all = self.disk.files().into_iter();
        all.filter(|path| path.extension().is_some_and(|e| e == "seg" || e == "tmp"))
    }

    fn named(&self) -> BTreeSet<PathBuf> {
        let mut named = BTreeSet::new();
        for (no, state) in &self.engine().shared.applier.lock().states {
            for (i, shard) in state.shards.iter().enumerate() {
                let numbers = shard.sealed.iter().map(|view| view.file.entry.no);
                named.extend(numbers.map(|n| files::segment_path(&self.data(), *no, ShardNo(i as u32), n)));
            }
        }
        named
    }

    fn check(&mut self, step: &Step) {
        let engine = Arc::clone(self.engine());
        let mut chance = Chance::new(step.seed ^ 1);
        assert_eq!(engine.applied().seq.0, self.seq);
        assert_eq!(
            engine.collection_names(),
            self.models.keys().copied().collect::<Vec<_>>()
        );
        for (name, model) in &self.models {
            if chance.below(6) == 0 {
                model::check(&engine, name, model, &mut chance);
            } else {
                model::check_points(&engine, name, model, &mut chance);
                model::check_nearest(&engine, name, model, &mut chance);
            }
        }
        for held in &self.held {
            held.check(&engine);
        }
        let stats = engine.stats();
        assert!(stats.log_start_seq <= self.seq + 1, "{stats:?}");
        let (points, files) = (stats.points, self.disk.files().len());
        let passed: u64 = self.faults.passed().values().sum();
        self.note(&format!(
            "{} {points} {files} {passed} {} {}",
            self.seq, stats.segments, stats.log_start_seq
        ));
    }

    fn note(&mut self, what: &str) {
        self.hash.update(what.as_bytes());
    }

    /// Everything is done that is due, and looked at once more, before and after a restart; then damage is noticed.
    pub(super) fn finish(&mut self) -> u64 {
        let last = Step::quiet(Act::Restart, 4);
        self.faults.stage("run");
        let mut pieces = 0;
        while self.engine().maintain(&|| false).unwrap() == Maintained::Worked {
            pieces += 1;
            assert!(pieces < 500, "background work comes to no end");
        }
        if self.tidy {
            let left: BTreeSet<PathBuf> = self.sealed_files().collect();
            assert_eq!(
                left,
                self.named(),
                "when nothing is left to do there are no other files"
            );
        }
        self.check(&last);
        self.step(&last);
        let engine = Arc::clone(self.engine());
        for (name, model) in &self.models {
            model::check(&engine, name, model, &mut Chance::new(5));
        }
        drop(engine);
        if self.setup.flip {
            self.held.clear();
            self.engine = None;
            if let Some(path) = self.disk.flip(&mut self.chance) {
                let told = |error: &Error| {
                    assert_eq!(error.code, "segment_damaged", "{error}");
                    assert!(error.message.contains(&path.display().to_string()), "{error}");
                };
                match self.open_once() {
                    // What has to be applied again has to be read.
                    Err(error) => told(&error),
                    Ok(engine) => {
                        told(&engine.verify_all(&|| false).unwrap_err());
                        for (name, model) in &self.models {
                            match engine.collection(name).unwrap().damaged.first() {
                                None => model::check(&engine, name, model, &mut Chance::new(5)),
                                Some(missing) if missing.points == 0 => {}
                                Some(_) => told(&engine.count(name, &Filter::default()).unwrap_err()),
                            }
                        }
                    }
                }
            }
        }
        self.hash.digest()
    }
}

impl HeldView {
    fn check(&self, engine: &Engine) {
        let with = With {
            payload: true,
            vectors: true,
            explain: false,
        };
        let context = engine.context(&self.collection, &self.view, Patience::endless());
        let (points, _) = query::scroll(&context, &Filter::default(), limits::TOP_K_MAX, None, with).unwrap();
        assert_eq!(points.len(), self.model.points.len(), "a view of {} changed", self.name);
        for point in points {
            let expected = &self.model.points[point.id.as_str()];
            assert_eq!(point.payload.as_ref(), Some(&expected.payload));
            assert_eq!(point.vectors.as_ref(), Some(&expected.vectors));
        }
    }
}

/// What engines are asked for.
fn perform(engine: &Engine, act: &Act, shards: [u32; 2], attempts: &Attempts) -> Result<()> {
    let options = WriteOptions {
        patience: Patience::lasting(Duration::from_secs(600)),
        ..WriteOptions::default()
    };
    let attempt = |name: &'static str, change: Change, work: &dyn Fn() -> Result<Applied>| {
        let place = attempts.lock().len();
        attempts.lock().push(Attempt {
            name,
            change,
            outcome: None,
        });
        let outcome = work();
        attempts.lock()[place].outcome = Some(outcome);
    };
    match act {
        Act::Write(name, writes) => match writes.as_slice() {
            [write] => attempt(NAMES[*name], Change::Write(write.clone()), &|| {
                write.run(engine, NAMES[*name], &options)
            }),
            writes => group(engine, NAMES[*name], writes, &options, attempts)?,
        },
        Act::Create(name) => attempt(NAMES[*name], Change::Create, &|| {
            engine.create_collection(NAMES[*name], model::schema(shards[*name]))?;
            Ok(Applied {
                token: engine.applied(),
                changed: 1,
                durability: Durability::Sync,
                replayed: false,
                note: Vec::new(),
                refused: None,
            })
        }),
        Act::Drop(name) => attempt(NAMES[*name], Change::Drop, &|| {
            engine.drop_collection(NAMES[*name], &options)
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
        other => unreachable!("{other:?} is not for an engine"),
    }
    Ok(())
}

/// Several writers at once: all but the last are in the line when the last comes and commits for all.
fn group(
    engine: &Engine,
    name: &'static str,
    writes: &[Write],
    options: &WriteOptions,
    attempts: &Attempts,
) -> Result<()> {
    let Ok(collection) = engine.find(name) else {
        return Ok(());
    };
    let shared = &engine.shared;
    shared.check_alive()?;
    let (last, before) = writes.split_last().expect("a group has several");
    let answers = before.iter().map(|write| {
        let record = Record {
            group: 0,
            timestamp_ms: shared.components.clock.now_ms(),
            request: None,
            ops: vec![write.op(&collection)],
        };
        shared.enqueue(record, Durability::Sync, false)
    });
    // On a full disk they are refused, and nothing is in the line.
    let Ok(answers) = answers.collect::<Result<Vec<_>>>() else {
        return Ok(());
    };
    let first = attempts.lock().len();
    attempts.lock().extend(writes.iter().map(|write| Attempt {
        name,
        change: Change::Write(write.clone()),
        outcome: None,
    }));
    let last = commit::Write {
        collection: None,
        ops: vec![last.op(&collection)],
        durability: None,
        grows: false,
    };
    let outcome = shared.submit(last, options);
    let mut attempts = attempts.lock();
    for (attempt, answer) in attempts[first..].iter_mut().zip(answers) {
        attempt.outcome = answer.lock().take();
    }
    attempts[first + writes.len() - 1].outcome = Some(outcome);
    Ok(())
}
