//! The engine under test with everything around it, and the model of what it should hold.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::super::model::{self, Model, crash_image};
use super::super::*;
use super::act::{Attempt, Change, Hands, HeldCut, Models, options, perform};
use super::requests::{Done, Requests};
use super::{Act, Asked, NAMES, Seen, Setup, Step};
use crate::config::{Clock, Workers};
use crate::log::Log;
use crate::log::memory::{FaultyLog, MemoryLog};
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

/// Does what may end in a panic that was planned.
fn planned(work: impl FnOnce()) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(work))
        && !said(&*panic).contains("as planned")
    {
        resume_unwind(panic);
    }
}

struct SetClock(AtomicU64);

impl Clock for SetClock {
    fn now_ms(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One of which nobody knows whether it was written.
#[derive(Debug)]
struct Pending {
    name: &'static str,
    change: Change,
    request: Option<u64>,
}

/// What should be there after a record.
#[derive(Clone, Default)]
struct Known {
    models: Models,
    requests: Requests,
}

/// Requests that may be repeated.
const SENT_MAX: usize = 60;

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
    requests: Requests,
    /// The last record that was acked or found after a crash.
    seq: u64,
    /// The last one that no loss of power may take.
    safe: u64,
    /// What was there after each record, for who goes back to it.
    history: BTreeMap<u64, Known>,
    /// Requests that were made.
    sent: Vec<(usize, Asked)>,
    cuts: Arc<Mutex<Vec<HeldCut>>>,
    held: Vec<HeldView>,
    chance: Chance,
    /// A fault that is planned outlives the step.
    pub(super) keep_plan: bool,
    /// Nothing went wrong since it was opened, so that nothing was left lying about.
    tidy: bool,
    hash: xxhash_rust::xxh3::Xxh3Default,
    pub(super) seen: Seen,
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
        let log = Arc::new(MemoryLog::new(Arc::clone(&faults)));
        disk.when_flushed({
            let log = Arc::clone(&log);
            move || log.flushed()
        });
        let mut world = Self {
            setup: setup.clone(),
            root,
            disk,
            log,
            keep_plan: faults.is_planned(),
            faults,
            clock: Arc::new(SetClock(AtomicU64::new(1_700_000_000_000))),
            engine: None,
            models: Models::new(),
            requests: Requests::default(),
            seq: 0,
            safe: 0,
            history: BTreeMap::from([(0, Known::default())]),
            sent: Vec::new(),
            cuts: Arc::default(),
            held: Vec::new(),
            chance: Chance::new(0),
            tidy: true,
            hash: Default::default(),
            seen: Seen::default(),
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
                    planned(|| self.cuts.lock().clear());
                    // RocksDB flushes when it is closed.
                    self.engine = None;
                    self.log.flushed();
                    self.open(step.open_fault);
                    self.safe = self.seq;
                }
                pending
            }
            Act::OpenCut(n) => {
                let held = {
                    let mut cuts = self.cuts.lock();
                    let count = cuts.len() as u64;
                    (count > 0).then(|| cuts.swap_remove((n % count) as usize))
                };
                if let Some(held) = held {
                    self.open_cut(&held);
                    planned(|| drop(held));
                }
                Vec::new()
            }
            Act::Repeat(n, durability) => match self.sent.get((n % self.sent.len().max(1) as u64) as usize).cloned() {
                None => Vec::new(),
                Some((name, asked)) => {
                    let durability = *durability;
                    self.perform(&Act::Write(name, vec![Asked { durability, ..asked }]), step)
                }
            },
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
        self.look(step);
    }

    /// Lets the engine work. Gives the records of which nobody knows whether they were written.
    fn perform(&mut self, act: &Act, step: &Step) -> Vec<Pending> {
        let act = match act {
            Act::Write(name, _) | Act::Drop(name) | Act::Optimize(name) if !self.models.contains_key(NAMES[*name]) => {
                &Act::Create(*name)
            }
            act => act,
        };
        let hands = Hands {
            attempts: Arc::default(),
            cuts: Arc::clone(&self.cuts),
            log: Arc::clone(&self.log),
            shards: self.setup.shards,
        };
        self.faults.stage("run");
        if let Some((nth, how)) = step.fault {
            self.faults.plan(nth, how);
        }
        if let Some((nth, acts)) = step.interlude.clone() {
            let (engine, hands) = (Arc::downgrade(self.engine()), hands.clone());
            self.faults.interlude(nth, move || {
                let engine = engine.upgrade().expect("it is at work");
                for act in &acts {
                    // What came of it is in the attempts; background work may be done again.
                    drop(perform(&engine, act, &hands));
                }
            });
        }
        let engine = Arc::clone(self.engine());
        let done = catch_unwind(AssertUnwindSafe(|| perform(&engine, act, &hands)));
        self.faults.no_interlude();
        let went_wrong = step.fault.is_some() && !self.unplan();
        self.tidy &= !went_wrong && !self.keep_plan;
        let was_done = matches!(done, Ok(Ok(())));
        match done {
            Ok(Ok(())) => {}
            Ok(Err(error)) => assert!(went_wrong || self.keep_plan, "nothing was to go wrong: {error}"),
            Err(panic) if said(&*panic).contains("as planned") => {}
            Err(panic) => resume_unwind(panic),
        }
        let mut pending = Vec::new();
        for attempt in std::mem::take(&mut *hands.attempts.lock()) {
            let Attempt {
                name,
                change,
                asked,
                outcome,
            } = attempt;
            let told = outcome
                .as_ref()
                .map(|o| o.as_ref().map(|a| a.changed).map_err(|e| e.code));
            self.note(&format!("{told:?}"));
            let request = asked.as_ref().and_then(|asked| asked.request);
            if let Some(asked) = asked.filter(|asked| asked.request.is_some()) {
                self.remember_sent(name, asked);
            }
            match outcome {
                Some(Ok(applied)) => {
                    assert!(pending.is_empty(), "acked after a failure: {change:?}");
                    self.acked(name, &change, request, &applied);
                }
                Some(Err(error)) if matches!(error.code, "growing_memory_full" | "disk_full") => {}
                Some(Err(error)) if error.code == "collection_not_found" => {
                    // Or a drop was done whose answer nobody got: whether it stays is known after the next open.
                    let dropped = |one: &Pending| one.name == name && matches!(one.change, Change::Drop);
                    let may_be_gone = pending.iter().any(dropped);
                    assert!(may_be_gone || !self.models.contains_key(name), "{name} is gone");
                }
                _ => pending.push(Pending { name, change, request }),
            }
        }
        if was_done && pending.is_empty() && matches!(act, Act::Flush | Act::OwnFlush | Act::Sync) {
            self.safe = self.seq;
        }
        pending
    }

    fn remember_sent(&mut self, name: &'static str, asked: Asked) {
        let name = NAMES.iter().position(|n| *n == name).expect("one of the names");
        if self.sent.iter().all(|(_, sent)| sent.request != asked.request) {
            self.sent.push((name, asked));
        }
        if self.sent.len() > SENT_MAX {
            self.sent.remove(0);
        }
    }

    /// Nothing is planned any more, unless it is to stay so. True if something was.
    fn unplan(&self) -> bool {
        !self.keep_plan && self.faults.unplan()
    }

    fn acked(&mut self, name: &'static str, change: &Change, request: Option<u64>, applied: &Applied) {
        let seq = applied.token.seq.0;
        if applied.durability == Durability::Sync {
            self.safe = self.safe.max(seq);
        }
        let now_ms = self.clock.now_ms();
        let known = request.and_then(|request| self.requests.find(request, now_ms).cloned());
        assert_eq!(
            applied.replayed,
            known.is_some(),
            "{change:?} was done before: {known:?}"
        );
        if let (Some(done), Some(request)) = (known, request) {
            let told = done.changed.unwrap_or(applied.changed);
            assert_eq!(
                (seq, applied.changed),
                (done.seq, told),
                "the same answer as the first time"
            );
            self.requests.told(request, applied.changed);
            self.seen.replays += 1;
            self.keep();
            return;
        }
        let mut after = self.models.clone();
        let expected = change.apply(name, &mut after);
        if seq > self.seq {
            assert_eq!(seq, self.seq + 1, "sequence numbers are consecutive");
            assert!(
                expected.is_none_or(|changed| changed == applied.changed),
                "{change:?} changed {}, not {expected:?}",
                applied.changed
            );
            self.models = after;
            self.wrote(seq, request, Some(applied.changed));
        } else {
            assert!(after == self.models, "{change:?} was not written, and should have been");
        }
    }

    /// A record is there, and the models show it.
    fn wrote(&mut self, seq: u64, request: Option<u64>, changed: Option<u64>) {
        self.seq = seq;
        if let Some(request) = request {
            let at_ms = self.clock.now_ms();
            self.requests.remember(request, Done { seq, at_ms, changed });
        }
        self.keep();
    }

    fn keep(&mut self) {
        let known = Known {
            models: self.models.clone(),
            requests: self.requests.clone(),
        };
        self.history.insert(self.seq, known);
    }

    fn hold(&mut self, name: &'static str) -> Vec<Pending> {
        if let (Some(model), true) = (self.models.get(name), self.held.len() < 4) {
            let collection = self.engine().find(name).unwrap();
            // What is read for the first time is read from disk.
            let taken = || collection.listing().view(Patience::endless(), Lacking::Refuse).unwrap();
            let view = self.faults.aside(taken);
            self.held.push(HeldView {
                name,
                view,
                collection,
                model: model.clone(),
            });
        }
        Vec::new()
    }

    // ---- endings and beginnings ----

    /// The process ends where it stands, and another opens what is left.
    fn end(&mut self, end: &End, pending: Vec<Pending>, open_fault: Option<(u64, How)>) {
        // Whatever the engine still does while it is let go comes to nothing.
        self.faults.power_off();
        let image = self.root.path().join("image");
        crash_image(&self.data(), &image);
        self.held.clear();
        self.cuts.lock().clear();
        self.engine = None;
        std::fs::remove_dir_all(self.data()).unwrap();
        std::fs::rename(&image, self.data()).unwrap();
        // RocksDB's part of the cuts is not on the faulty disk, where opening looks for what is left of them.
        let _none = std::fs::remove_dir_all(self.data().join("cuts"));
        self.lose(end);
        self.faults.power_on();
        let lost_more = self.open(open_fault);
        let applied = self.engine().applied().seq.0;
        let promised = match end {
            End::Kill if !lost_more => self.seq,
            _ => self.safe,
        };
        assert!(applied >= promised, "acked up to {promised}, lost from {applied}");
        self.note(&format!("{} of {}", applied, self.seq));
        if applied < self.seq {
            self.seen.suffixes += 1;
            let Known { models, requests } = self.history[&applied].clone();
            (self.models, self.requests, self.seq) = (models, requests, applied);
            drop(self.history.split_off(&(applied + 1)));
        }
        let more = (applied - self.seq) as usize;
        assert!(
            more <= pending.len(),
            "{more} records more, {} were on their way",
            pending.len()
        );
        for Pending { name, change, request } in &pending[..more] {
            let expected = change.apply(name, &mut self.models);
            self.wrote(self.seq + 1, *request, expected);
        }
        // What an open has read is on disk.
        self.safe = self.seq;
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

    /// Opens, again and again if opening itself goes wrong. True if the power went meanwhile.
    fn open(&mut self, mut fault: Option<(u64, How)>) -> bool {
        let mut lost = false;
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
                        lost = true;
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
        lost
    }

    fn open_once(&self) -> Result<Engine> {
        self.open_at(&self.data(), &self.disk, &self.log, &self.faults)
    }

    fn open_at(
        &self,
        dir: &Path,
        disk: &Arc<FaultyDir>,
        memory: &Arc<MemoryLog>,
        faults: &Arc<Faults>,
    ) -> Result<Engine> {
        let components = Components {
            clock: Arc::<SetClock>::clone(&self.clock),
            workers: Workers::alone(),
            files: Arc::<FaultyDir>::clone(disk),
        };
        let log = |storage: &Arc<_>, window: Duration| -> Arc<dyn Log> {
            let inner: Arc<dyn Log> = if self.setup.local_log {
                Arc::new(LocalLog::new(Arc::clone(storage), 0, window))
            } else {
                memory.reopen();
                Arc::<MemoryLog>::clone(memory)
            };
            let faults = Arc::clone(faults);
            Arc::new(FaultyLog { inner, faults })
        };
        let settings = self.setup.settings.clone();
        let shared = recover::open(dir, settings, components, &Progress::default(), log)?;
        Ok(Engine { shared })
    }

    /// Exactly the files of a cut are brought to another machine and opened there: it shows the moment of the cut, whatever
    /// became of the engine that it was taken from, and remembers its requests. Then it is followed to a later moment by the log of
    /// that engine, if that still has what came between.
    fn open_cut(&mut self, HeldCut { cut, log }: &HeldCut) {
        let dir = self.root.path().join("restored");
        let faults = Arc::new(Faults::default());
        let disk = Arc::new(FaultyDir::new(&dir, Arc::clone(&faults)));
        disk.put(&dir.join("LOCK.cairn"), Vec::new()).unwrap();
        for file in &cut.files {
            let (from, to) = (cut.dir().join(&file.path), dir.join(&file.path));
            let bytes = if file.path.starts_with("segments/") {
                let bytes = self.disk.read(&from).unwrap();
                disk.put(&to, bytes.clone()).unwrap();
                bytes.len() as u64
            } else {
                std::fs::create_dir_all(to.parent().unwrap()).unwrap();
                std::fs::copy(&from, &to).unwrap()
            };
            assert_eq!(bytes, file.bytes, "{}", file.path);
        }
        let engine = self.open_at(&dir, &disk, log, &faults).unwrap();
        let Known { models, requests } = &self.history[&cut.token.seq.0];
        assert_eq!(engine.applied(), cut.token);
        let told = cut.collections.iter().map(|c| (c.name.as_str(), c.points, c.documents));
        let sizes = models
            .iter()
            .map(|(name, model)| (*name, model.points.len() as u64, model.documents.len() as u64));
        assert_eq!(told.collect::<Vec<_>>(), sizes.collect::<Vec<_>>());
        assert_eq!(engine.collection_names(), models.keys().copied().collect::<Vec<_>>());
        for (name, model) in models {
            model::check(&engine, name, model, &mut self.chance);
        }
        let (newest, now_ms) = (requests.newest(), self.clock.now_ms());
        let done = newest.and_then(|request| Some((request, requests.find(request, now_ms)?)));
        if let (Some((request, done)), Some(name)) = (done, models.keys().next()) {
            let asked = self.sent.iter().find(|(_, asked)| asked.request == Some(request));
            if let Some((_, asked)) = asked {
                let again = asked.write.run(&engine, name, &options(asked)).unwrap();
                assert_eq!((again.token.seq.0, again.replayed), (done.seq, true));
                assert_eq!(engine.applied(), cut.token);
            }
        }
        self.follow(&engine, cut.token);
        drop(engine);
        std::fs::remove_dir_all(&dir).unwrap();
        self.seen.cuts += 1;
    }

    fn follow(&mut self, engine: &Engine, from: Token) {
        let live = Arc::clone(self.engine());
        let past = self.faults.aside(|| live.past_after(from.seq)).unwrap();
        let to = from.seq.0 + self.chance.below(self.seq - from.seq.0 + 1);
        let until = Until::Token(past.epochs.token(Seq(to)));
        let replayed = self
            .faults
            .aside(|| engine.replay(&past, until, &|| false, &mut |_| {}));
        self.note(&format!(
            "{:?}",
            replayed.as_ref().map(|done| done.records).map_err(|e| e.code)
        ));
        match replayed {
            Ok(done) => assert_eq!(
                (done.token, engine.applied().seq),
                (past.epochs.token(Seq(to)), Seq(to))
            ),
            Err(error) => {
                assert!(
                    error.code == "moment_not_restorable" && past.first.0 > from.seq.0 + 1,
                    "{past:?} from {from} to {to}: {error}"
                );
                return;
            }
        }
        let models = &self.history[&to].models;
        assert_eq!(engine.collection_names(), models.keys().copied().collect::<Vec<_>>());
        for (name, model) in models {
            model::check(engine, name, model, &mut self.chance);
        }
        self.seen.followed += u64::from(to > from.seq.0);
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

    fn look(&mut self, step: &Step) {
        let faults = Arc::clone(&self.faults);
        faults.aside(|| self.check(step));
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
            model::check(&engine, name, model, &mut chance);
        }
        for held in &self.held {
            held.check(&engine);
        }
        let there: BTreeSet<PathBuf> = self.sealed_files().collect();
        let lost: Vec<PathBuf> = self.named().difference(&there).cloned().collect();
        assert!(lost.is_empty(), "manifests name what is not there: {lost:?}");
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
        let cuts = std::mem::take(&mut *self.cuts.lock());
        for held in cuts {
            self.open_cut(&held);
        }
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
        self.look(&last);
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
                        told(&engine.verify_all(&|| false, &mut |_| ()).unwrap_err());
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
