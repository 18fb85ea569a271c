//! The write path: many callers, one group commit at a time.
//!
//! A caller encodes its record, queues it, and waits for the applier lock. Whoever gets the lock commits everything queued so
//! far: one fsynced append, then apply, publish, and an answer for each. So writers share fsyncs without a thread of our own.
//! The group is fsynced if any of its records wants it; one that does not is answered after the write alone, and whoever calls
//! [`Shared::keep_synced`] brings it to disk within the window. A failed append, fsync or apply poisons the engine: nothing is acked after it, and the process is expected to end and replay.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::{Condvar, Mutex, RwLock};

use super::applier::{Applier, Batch, replayed};
use super::ask::WriteOptions;
use super::failing::Failing;
use super::health::Scrub;
use super::requests;
use super::retention::Holds;
use super::sampling::Sampling;
use crate::collection::Collection;
use crate::config::{Components, Settings};
use crate::error::{Error, ErrorKind, Result};
use crate::limits;
use crate::log::{Log, Record, Request, record};
use crate::op::{Applied, Op};
use crate::patience::{OutOfPatience, Patience};
use crate::shard::Shard;
use crate::storage::files::DirLock;
use crate::storage::space::{Room, Space};
use crate::storage::wal::Dropped;
use crate::storage::{Effects, Storage};
use crate::types::{CollectionNo, Durability, Epochs, History, Identity, Opening, Seq, ShardNo};

/// How often a writer who waits for memory looks whether its caller is still there.
const MEMORY_LOOK: Duration = Duration::from_millis(25);

/// What all threads share.
pub(super) struct Shared {
    pub(super) dir: std::path::PathBuf,
    pub(super) settings: Settings,
    pub(super) components: Components,
    pub(super) storage: Arc<Storage>,
    pub(super) log: Arc<dyn Log>,
    /// Which database this is.
    pub(super) identity: Identity,
    /// Names what is written from now on.
    pub(super) opening: Opening,
    /// Names what was; changed by the applier only, before records of a new one are shown.
    pub(super) epochs: ArcSwap<Epochs>,
    pub(super) space: Space,
    /// What was cut off the log when it was opened.
    pub(super) dropped: Option<Dropped>,
    /// Readers' way to collections. Lock order: `applier` before `collections`.
    pub(super) collections: RwLock<std::collections::BTreeMap<String, Arc<Collection>>>,
    pub(super) queue: Mutex<Vec<Ticket>>,
    pub(super) applier: Mutex<Applier>,
    pub(super) memory: Memory,
    pub(super) work: Signal,
    /// Rung after each seal and merge, for who waits for one that another thread does.
    pub(super) finished: Signal,
    /// Rung when something was written that is not fsynced.
    pub(super) unsynced: Signal,
    pub(super) poison: Mutex<Option<Error>>,
    pub(super) counters: Counters,
    /// Who reads the log.
    pub(super) holds: Arc<Holds>,
    pub(super) scrub: Scrub,
    pub(super) sampling: Sampling,
    pub(super) merging: std::sync::atomic::AtomicBool,
    pub(super) failing: Failing,
    /// Names are given one at a time, so that a create can look before it writes.
    pub(super) naming: Mutex<()>,
    pub(super) _lock: DirLock,
}

/// Numbers for metrics.
#[derive(Default)]
pub(super) struct Counters {
    pub(super) applied: AtomicU64,
    /// The same when it was opened.
    pub(super) opened: AtomicU64,
    pub(super) log_start: AtomicU64,
    pub(super) log_bytes: AtomicU64,
    /// Of them, those of records that are kept although nobody needs them.
    pub(super) retained_bytes: AtomicU64,
    /// The first record that somebody needs.
    pub(super) log_needed: AtomicU64,
    /// When the oldest record was written; 0 = there is none.
    pub(super) log_oldest_ms: AtomicU64,
    /// Bytes that were forgotten before their time because the disk was full.
    pub(super) retention_cut: AtomicU64,
    pub(super) replayed: AtomicU64,
    pub(super) seals: AtomicU64,
    pub(super) merges: AtomicU64,
    /// Damaged files that were replaced by a copy.
    pub(super) taken_back: AtomicU64,
    pub(super) replayed_requests: AtomicU64,
    /// Flushes and compactions of RocksDB's own that are known to have failed.
    pub(super) background_errors: AtomicU64,
    /// Requests that are remembered.
    pub(super) requests: AtomicU64,
}

/// How long who has nothing to fsync sleeps before it looks whether it should stop.
const IDLE: Duration = Duration::from_millis(250);

/// What is to become a record.
pub(super) struct Write {
    pub(super) ops: Vec<Op>,
    /// What the collection says.
    pub(super) durability: Option<Durability>,
    /// It adds rows: it waits for memory, and is refused before the disk is full.
    pub(super) grows: bool,
    /// The collection of which it may have to read files, which are then verified before its turn comes.
    pub(super) collection: Option<Arc<Collection>>,
}

/// A record on its way.
pub(super) struct Ticket {
    record: Record,
    bytes: Vec<u8>,
    durability: Durability,
    answer: Answer,
}

/// Bytes of all growing segments, and those who wait for there to be fewer.
#[derive(Default)]
pub(super) struct Memory {
    bytes: AtomicI64,
    lock: Mutex<()>,
    freed: Condvar,
}

impl Memory {
    pub(super) fn add(&self, bytes: i64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
    pub(super) fn release(&self, bytes: i64) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        let _guard = self.lock.lock();
        self.freed.notify_all();
    }
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed).max(0) as u64
    }
    /// Waits while there is patience until there is room; false if there is none.
    fn wait(&self, max: usize, patience: &Patience) -> bool {
        let mut guard = self.lock.lock();
        while self.bytes() >= max as u64 {
            if patience.is_over() {
                return false;
            }
            self.freed.wait_for(&mut guard, patience.left().min(MEMORY_LOOK));
        }
        true
    }
}

/// Where a caller finds what became of its record.
pub(super) type Answer = Arc<Mutex<Option<Result<Applied>>>>;

/// A panic while the state is changed leaves memory half changed: nothing may be acked or written after it.
pub(super) struct StopOnUnwind<'a> {
    pub(super) shared: &'a Shared,
    pub(super) answers: &'a [Answer],
}

impl Drop for StopOnUnwind<'_> {
    fn drop(&mut self) {
        let error = Error::internal(
            "a panic while the state was changed; what was under way may or may not have become durable",
        );
        self.shared.stop_for(&error);
        self.answers
            .iter()
            .for_each(|answer| *answer.lock() = Some(Err(error.clone())));
    }
}

/// A bell: wakes one who waits, or the next one who comes to wait.
#[derive(Default)]
pub(super) struct Signal {
    due: Mutex<bool>,
    bell: Condvar,
}

impl Signal {
    pub(super) fn ring(&self) {
        *self.due.lock() = true;
        self.bell.notify_all();
    }
    pub(super) fn wait(&self, timeout: Duration) {
        let mut due = self.due.lock();
        if !*due {
            self.bell.wait_for(&mut due, timeout);
        }
        *due = false;
    }
}

/// What a caller is told whose patience ended before its record was queued.
fn nothing_written(why: OutOfPatience) -> Error {
    let what = match why {
        OutOfPatience::Late => "the deadline passed",
        OutOfPatience::Gone => "the caller went away",
    };
    Error {
        message: format!("{what} before the write began; nothing was written"),
        ..why.into()
    }
}

/// What a change of a point's payload is taken to make: a row with its vector, kept three times until it is in a segment.
const CHANGE_BYTES: usize = 32 << 10;

/// Bytes that a record takes of those of a group. From some, far more follows than is in them, so that few of those go together.
pub(super) fn weight(record: &Record, bytes: usize) -> usize {
    let expands = |op: &Op| match op {
        Op::SetPayload { ids, .. } => (ids.len() * CHANGE_BYTES).min(limits::GROUP_COMMIT_BYTES_MAX / 2),
        Op::DeleteMatching { .. } => limits::GROUP_COMMIT_BYTES_MAX / 16,
        _ => 0,
    };
    bytes.max(record.ops.iter().map(expands).sum())
}

impl Shared {
    /// Refuses everything after a failure that memory and disk may disagree about.
    pub(super) fn check_alive(&self) -> Result<()> {
        match &*self.poison.lock() {
            None => Ok(()),
            Some(cause) => Err(Error::new(
                ErrorKind::Unavailable,
                "engine_stopped",
                format!(
                    "the engine stopped after a failure and must be restarted: {}",
                    cause.message
                ),
            )),
        }
    }

    pub(super) fn stop_for(&self, cause: &Error) {
        tracing::error!(code = cause.code, error = %cause.message, "the engine stops: what is on disk is safe, restart to recover");
        let mut poison = self.poison.lock();
        poison.get_or_insert_with(|| cause.clone());
    }

    /// Makes operations durable and visible.
    pub(super) fn submit(&self, write: Write, options: &WriteOptions) -> Result<Applied> {
        self.check_alive()?;
        let Write {
            ops,
            durability,
            grows,
            collection,
        } = write;
        let durability = options.durability.or(durability).unwrap_or(self.settings.durability);
        if let Some(request) = &options.request
            && let Some(done) = self.replayed(request, durability)?
        {
            return Ok(done);
        }
        options.patience.check().map_err(nothing_written)?;
        if let Some(collection) = &collection
            && let Err(error) = self.verify_for(collection, &ops, &options.patience)
        {
            options.patience.check().map_err(nothing_written)?;
            return Err(error);
        }
        let wait = Duration::from_millis(self.settings.write_wait_ms);
        let max = self.settings.growing_bytes_max;
        if grows && !self.memory.wait(max, &options.patience.at_most(wait)) {
            self.work.ring();
            if let Err(why @ OutOfPatience::Gone) = options.patience.check() {
                return Err(nothing_written(why));
            }
            return Err(Error::new(
                ErrorKind::Exhausted,
                "growing_memory_full",
                match self.failing.worst() {
                    None => {
                        format!("unindexed points fill their {max} bytes and indexing has not caught up; retry later")
                    }
                    Some(failure) => format!(
                        "unindexed points fill their {max} bytes, and indexing fails: {failure}. Look into the server's log and \
                         report it; reads and deletes go on"
                    ),
                },
            ));
        }
        let record = Record {
            group: 0,
            by: self.opening,
            timestamp_ms: self.components.clock.now_ms(),
            request: options.request.clone(),
            ops,
        };
        let answer = self.enqueue(record, durability, grows)?;
        loop {
            let mut applier = match options.patience.deadline() {
                None => self.applier.lock(),
                Some(deadline) => match self.applier.try_lock_until(deadline) {
                    Some(applier) => applier,
                    None => return self.give_up(&answer),
                },
            };
            if let Some(answer) = answer.lock().take() {
                return answer;
            }
            self.commit(&mut applier);
        }
    }

    /// Puts a record into the line, for whoever commits next.
    pub(super) fn enqueue(&self, record: Record, durability: Durability, grows: bool) -> Result<Answer> {
        let bytes = record.encode()?;
        self.space
            .check(bytes.len() as u64, if grows { Room::Takes } else { Room::Gives })?;
        let answer = Answer::default();
        self.queue.lock().push(Ticket {
            record,
            bytes,
            durability,
            answer: Arc::clone(&answer),
        });
        Ok(answer)
    }

    /// What this request was answered when it was done, at least as durable as `wanted` by now.
    pub(super) fn replayed(&self, request: &Request, wanted: Durability) -> Result<Option<Applied>> {
        request.check()?;
        let Some(done) = requests::find(&self.storage, request, self.components.clock.now_ms())? else {
            return Ok(None);
        };
        let seq = done.seq;
        if seq.0 > self.counters.applied.load(Ordering::Acquire) {
            // No view shows it yet. In the queue the answer comes behind it.
            return Ok(None);
        }
        let durability = self.at_least(seq, Some(wanted))?;
        self.counters.replayed_requests.fetch_add(1, Ordering::Relaxed);
        Ok(Some(Applied {
            durability,
            ..replayed(done, &self.epochs.load())
        }))
    }

    /// How safe a record is, which is fsynced if it is not as safe as is wanted (none: as the settings say).
    pub(super) fn at_least(&self, seq: Seq, wanted: Option<Durability>) -> Result<Durability> {
        let wanted = wanted.unwrap_or(self.settings.durability);
        if wanted == Durability::Sync && self.log.durability(seq) == Durability::Async {
            self.sync()?;
        }
        let durability = self.log.durability(seq);
        // After a failed fsync nothing is answered: it may have been the one that this record waited for.
        self.check_alive()?;
        Ok(durability)
    }

    /// Fsyncs the log now. A failure, or a panic, ends the engine: what the disk has is unknown, and a second try would hide it.
    pub(super) fn sync(&self) -> Result<()> {
        self.check_alive()?;
        let unwinding = StopOnUnwind {
            shared: self,
            answers: &[],
        };
        let synced = self.log.sync().inspect_err(|error| self.stop_for(error));
        std::mem::forget(unwinding);
        synced
    }

    /// Fsyncs what was answered before it was on disk, each time before the window is over, until `stop`. Begins at half
    /// the window, so that the fsync has the other half; one that takes longer makes writers wait.
    pub(super) fn keep_synced(&self, stop: &dyn Fn() -> bool) -> Result<()> {
        let half = Duration::from_millis(self.settings.async_window_ms) / 2;
        while !stop() {
            self.check_alive()?;
            let waiting = self.log.unsynced();
            if waiting.records == 0 {
                self.unsynced.wait(IDLE);
            } else if waiting.age < half {
                std::thread::sleep((half - waiting.age).min(IDLE));
            } else {
                self.sync()?;
            }
        }
        self.sync()
    }

    /// A writer's deadline passed while it waited its turn: takes its record out of the queue if it is still there.
    fn give_up(&self, answer: &Answer) -> Result<Applied> {
        let mut queue = self.queue.lock();
        if let Some(i) = queue.iter().position(|ticket| Arc::ptr_eq(&ticket.answer, answer)) {
            queue.remove(i);
            return Err(Error::new(
                ErrorKind::Deadline,
                "deadline_exceeded",
                "the deadline passed while the write waited its turn; nothing was written",
            ));
        }
        drop(queue);
        answer.lock().take().unwrap_or_else(|| {
            Err(Error::new(
                ErrorKind::Deadline,
                "deadline_exceeded",
                "the deadline passed while the write was under way; it may still happen: retry with the same ids",
            ))
        })
    }

    /// Commits what is queued, as much as one group takes.
    fn commit(&self, applier: &mut Applier) {
        let group = {
            let mut queue = self.queue.lock();
            let mut bytes = 0;
            let fits = queue
                .iter()
                .take(limits::GROUP_COMMIT_RECORDS_MAX)
                .take_while(|ticket| {
                    let first = bytes == 0;
                    bytes += weight(&ticket.record, ticket.bytes.len());
                    first || bytes <= limits::GROUP_COMMIT_BYTES_MAX
                });
            let n = fits.count();
            queue.drain(..n).collect::<Vec<_>>()
        };
        let answers: Vec<_> = group.iter().map(|ticket| Arc::clone(&ticket.answer)).collect();
        // Since they came into the line a flush may have found the disk full. RocksDB refuses everything then, which looks
        // like a write that failed half-way and would stop the engine.
        self.look_for_failed_flush();
        if self.check_alive().is_ok()
            && let Err(full) = self.space.check_stuck()
        {
            answers
                .iter()
                .for_each(|answer| *answer.lock() = Some(Err(full.clone())));
            return;
        }
        // A writer that lost its patience may leave a ticket to others after a failure: it must not be written then.
        let unwinding = StopOnUnwind {
            shared: self,
            answers: &answers,
        };
        let mut readable = Vec::with_capacity(group.len());
        for ticket in group {
            match applier.check_readable(&self.storage, &ticket.record.ops) {
                Ok(()) => readable.push(ticket),
                Err(refused) => *ticket.answer.lock() = Some(Err(refused)),
            }
        }
        let written: Vec<_> = readable.iter().map(|ticket| Arc::clone(&ticket.answer)).collect();
        let result = self.check_alive().and_then(|()| match readable.is_empty() {
            true => Ok(Vec::new()),
            // Not answered either: an fsync of what was written before that failed meanwhile.
            false => self
                .commit_group(applier, readable)
                .and_then(|applied| self.check_alive().map(|()| applied)),
        });
        std::mem::forget(unwinding);
        let answers = written;
        match result {
            Ok(applied) => {
                for (answer, mut applied) in answers.iter().zip(applied) {
                    if applied.replayed {
                        self.counters.replayed_requests.fetch_add(1, Ordering::Relaxed);
                        applied.durability = self.log.durability(applied.token.seq);
                    }
                    let outcome = match applied.refused.clone() {
                        Some(refused) => Err(refused),
                        None => Ok(applied),
                    };
                    *answer.lock() = Some(outcome);
                }
            }
            Err(error) => {
                self.stop_for(&error);
                for answer in &answers {
                    *answer.lock() = Some(Err(Error::new(
                        ErrorKind::Internal,
                        "write_failed",
                        format!(
                            "the write failed and may or may not have become durable: {}",
                            error.message
                        ),
                    )));
                }
            }
        }
    }

    /// RocksDB flushes when its memory is full, and if that fails nobody is told: the next write would be refused, which cannot be
    /// told from one that failed half-way. So it is as if a flush of ours had found the disk full: background work tries one, and
    /// if that fails for another reason, the engine stops.
    fn look_for_failed_flush(&self) {
        let failed = self.storage.background_errors();
        if self.counters.background_errors.swap(failed, Ordering::Relaxed) < failed {
            tracing::warn!(
                failed,
                "RocksDB failed to flush or compact: no writes before a flush succeeds"
            );
            self.space.flushed(true);
            self.work.ring();
        }
    }

    fn commit_group(&self, applier: &mut Applier, group: Vec<Ticket>) -> Result<Vec<Applied>> {
        let wanted = match group.iter().any(|ticket| ticket.durability == Durability::Sync) {
            true => Durability::Sync,
            false => Durability::Async,
        };
        let (records, mut encoded): (Vec<Record>, Vec<Vec<u8>>) =
            group.into_iter().map(|t| (t.record, t.bytes)).unzip();
        let mut history = applier.history;
        for bytes in &mut encoded {
            history = record::follow(bytes, history);
        }
        self.append(applier, &records, encoded, history, wanted)
    }

    /// Appends records that follow the last one, and applies them. `history` is the one that the log has with them.
    pub(super) fn append(
        &self,
        applier: &mut Applier,
        records: &[Record],
        encoded: Vec<Vec<u8>>,
        history: History,
        wanted: Durability,
    ) -> Result<Vec<Applied>> {
        let first = Seq(applier.applied.0 + 1);
        let durability = self.log.append(first, &encoded, wanted)?;
        if durability == Durability::Async {
            self.unsynced.ring();
        }
        for (seq, (record, bytes)) in (first.0..).zip(records.iter().zip(&encoded)) {
            applier.log.add(Seq(seq), bytes.len() as u64, record.timestamp_ms);
        }
        drop(encoded);
        applier.history = history;
        self.counters.log_bytes.store(applier.log.bytes(), Ordering::Relaxed);
        let mut batch = Batch::new(&self.storage);
        let mut applied = Vec::with_capacity(records.len());
        for (i, record) in records.iter().enumerate() {
            applied.push(Applied {
                durability,
                ..applier.apply(self, &mut batch, Seq(first.0 + i as u64), record)?
            });
        }
        applier.finish(self, batch, "commit")?;
        self.counters
            .requests
            .store(applier.requests.count(), Ordering::Relaxed);
        self.counters.applied.store(applier.applied.0, Ordering::Release);
        self.work.ring();
        Ok(applied)
    }

    /// Writes effects. `step` names the place for a disk that fails there.
    pub(super) fn write(&self, step: &'static str, effects: Effects<'_>) -> Result<()> {
        self.components
            .files
            .around(step, || self.storage.write_effects(effects))
    }

    /// Brings pending rows of some shards into growing segments.
    pub(super) fn settle(&self, applier: &mut Applier, shards: Vec<(CollectionNo, ShardNo)>) -> Result<()> {
        for (no, shard) in shards {
            if let Some(state) = applier.states.get_mut(&no) {
                let shard: &mut Shard = &mut state.shards[shard.0 as usize];
                let change = shard.settle(&state.collection.spec())?;
                self.memory.add(change);
            }
        }
        Ok(())
    }
}
