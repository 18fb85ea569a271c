//! Operations: work that outlives the request that asked for it: `optimize`, and what is done with snapshots.
//!
//! An operation is a thread of the blocking pool with a state that anybody may look at, watch and cancel. There are bounds
//! on how many run and on how many ended ones are remembered. They live in memory: a restart forgets them, which is said in
//! the contract; what an operation had finished is in the engine and stays.
//!
//! Not here: what the work does. A kind of operation is a method of `Service` that hands a closure to [`Operations::start`].

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use cairn_engine::engine::{OptimizeStep, Optimizing};
use cairn_engine::{Error, ErrorKind, Result};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::{Call, Service, check_collection};

/// Operations that run at the same time: each may use a processor and the disk for minutes.
const RUNNING_MAX: usize = 8;
/// Ended operations that can still be asked for.
const ENDED_MAX: usize = 1_000;
/// A change of progress smaller than this is not told: watchers get a hundred messages, not a million.
const PROGRESS_STEP: f32 = 0.01;

/// One operation, as it is at some moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Operation {
    /// Names it.
    pub id: String,
    /// What kind of work.
    pub kind: &'static str,
    /// On which collection; empty: on all, or on none.
    pub collection: String,
    /// With which snapshot, if it is one that has to do with them.
    pub snapshot: Option<String>,
    /// How it stands.
    pub state: OperationState,
    /// 0 to 1.
    pub progress: f32,
    /// What it is at, or what came of it, for people.
    pub message: String,
    /// Milliseconds since the Unix epoch.
    pub started_at_ms: u64,
    /// The same, once it has ended.
    pub ended_at_ms: Option<u64>,
    /// Why it failed.
    pub error: Option<Error>,
}

/// How an operation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OperationState {
    /// At work.
    Running,
    /// Ended well.
    Done,
    /// Ended with an error.
    Failed,
    /// Ended because somebody asked.
    Cancelled,
}

/// All operations of a server.
pub(super) struct Operations {
    /// Part of each id, so that an id from before a restart names nothing and not something else.
    run: u32,
    /// Oldest first.
    all: Mutex<VecDeque<Arc<Entry>>>,
    last: AtomicU64,
    /// The server is going down: nothing new begins, what runs is asked to stop.
    closed: AtomicBool,
}

/// What is asked for. Two that are equal are one piece of work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    kind: &'static str,
    collection: String,
    snapshot: Option<String>,
    how: String,
}

impl Asked {
    /// Work of a kind, on a collection; with an empty name on all, or on none.
    pub(super) fn new(kind: &'static str, collection: &str) -> Self {
        Self {
            kind,
            collection: collection.to_owned(),
            snapshot: None,
            how: String::new(),
        }
    }

    /// The same with a snapshot.
    pub(super) fn with_snapshot(mut self, snapshot: &str) -> Self {
        self.snapshot = Some(snapshot.to_owned());
        self
    }

    /// Everything else of a request that changes what is done; it is compared and not told.
    pub(super) fn in_detail(mut self, how: String) -> Self {
        self.how = how;
        self
    }
}

struct Entry {
    asked: Asked,
    now: watch::Sender<Operation>,
    cancel: AtomicBool,
}

/// What work may say and ask while it runs.
pub(super) struct Handle<'a> {
    entry: &'a Entry,
    closed: &'a AtomicBool,
    /// What came of it, if it ends well.
    said: Mutex<String>,
}

impl Handle<'_> {
    /// Somebody wants it to end.
    pub(super) fn stopped(&self) -> bool {
        self.entry.cancel.load(Ordering::Relaxed) || self.closed.load(Ordering::Relaxed)
    }

    /// How far it is, as `tell`, still at what was said last.
    pub(super) fn progress(&self, part: f32) {
        let message = self.entry.now.borrow().message.clone();
        self.tell(part, message);
    }

    /// Says what came of it: told when it has ended well.
    pub(super) fn say(&self, message: String) {
        *self.said.lock() = message;
    }

    /// How far it is, 0 to 1, which never goes back; and what it is at, in words.
    pub(super) fn tell(&self, part: f32, message: String) {
        // Whoever asked it to stop was told that it does.
        if self.stopped() {
            return;
        }
        self.entry.now.send_if_modified(|now| {
            let further = part - now.progress >= PROGRESS_STEP || (part >= 1.0 && now.progress < 1.0);
            if further {
                now.progress = part.clamp(0.0, 1.0);
            }
            let otherwise = now.message != message;
            now.message = message;
            further || otherwise
        });
    }
}

impl Entry {
    fn runs(&self) -> bool {
        self.now.borrow().state == OperationState::Running
    }

    fn cancel(&self) -> Operation {
        self.cancel.store(true, Ordering::Relaxed);
        self.now.send_if_modified(|now| {
            let running = now.state == OperationState::Running;
            if running {
                "stopping".clone_into(&mut now.message);
            }
            running
        });
        self.now.borrow().clone()
    }
}

impl Default for Operations {
    fn default() -> Self {
        Self {
            run: rand::random(),
            all: Mutex::default(),
            last: AtomicU64::new(0),
            closed: AtomicBool::new(false),
        }
    }
}

impl Operations {
    /// Begins `work` on a blocking thread, or answers with the operation that runs and does exactly what is asked. One that was
    /// asked to stop is none: what it leaves undone would stay undone.
    pub(super) fn start(
        self: &Arc<Self>,
        asked: Asked,
        work: impl FnOnce(&Handle<'_>) -> Result<()> + Send + 'static,
    ) -> Result<Operation> {
        let mut all = self.all.lock();
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::new(
                ErrorKind::Unavailable,
                "shutting_down",
                "the server is going down and begins nothing new",
            ));
        }
        let running = || all.iter().filter(|entry| entry.runs());
        let same = |entry: &&Arc<Entry>| entry.asked == asked && !entry.cancel.load(Ordering::Relaxed);
        if let Some(entry) = running().find(same) {
            return Ok(entry.now.borrow().clone());
        }
        if running().count() >= RUNNING_MAX {
            return Err(Error::new(
                ErrorKind::Exhausted,
                "too_many_operations",
                format!("at most {RUNNING_MAX} operations run at the same time, wait for one or cancel it"),
            ));
        }
        let operation = Operation {
            id: format!("op-{:08x}-{}", self.run, self.last.fetch_add(1, Ordering::Relaxed) + 1),
            kind: asked.kind,
            collection: asked.collection.clone(),
            snapshot: asked.snapshot.clone(),
            state: OperationState::Running,
            progress: 0.0,
            message: String::new(),
            started_at_ms: now_ms(),
            ended_at_ms: None,
            error: None,
        };
        let entry = Arc::new(Entry {
            asked,
            now: watch::Sender::new(operation.clone()),
            cancel: AtomicBool::new(false),
        });
        // Ended ones are dropped from the old end; those that run stay, wherever they are.
        let mut ended = all.iter().filter(|entry| !entry.runs()).count();
        all.retain(|entry| {
            let keep = ended <= ENDED_MAX || entry.runs();
            ended -= usize::from(!keep);
            keep
        });
        all.push_back(Arc::clone(&entry));
        drop(all);
        let operations = Arc::clone(self);
        tokio::task::spawn_blocking(move || {
            let handle = Handle {
                entry: &entry,
                closed: &operations.closed,
                said: Mutex::default(),
            };
            // A panic must not leave it running for ever.
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(&handle)))
                .unwrap_or_else(|_| Err(Error::internal("the operation panicked")));
            let said = handle.said.into_inner();
            entry.now.send_modify(|now| end(now, result.map(|()| said)));
        });
        Ok(operation)
    }

    fn find(&self, id: &str) -> Result<Arc<Entry>> {
        let all = self.all.lock();
        all.iter()
            .find(|entry| entry.now.borrow().id == id)
            .cloned()
            .ok_or_else(|| {
                Error::not_found(
                    "operation_not_found",
                    format!(
                        "there is no operation {:?}: a restart forgets them",
                        id.chars().take(64).collect::<String>()
                    ),
                )
                .at("/id")
            })
    }

    /// Asks all to stop and lets none begin.
    pub(super) fn close(&self) {
        // Under the lock of `start`, so that nothing begins after this.
        let _all = self.all.lock();
        self.closed.store(true, Ordering::Release);
    }
}

/// What an `optimize` is at, for people.
fn words(at: &Optimizing) -> String {
    let what = match at.step {
        OptimizeStep::Seal { segments } => format!("sealing {segments} growing segments"),
        OptimizeStep::Merge { segments, of } => format!("merging {segments} of {of} sealed segments"),
        OptimizeStep::Wait => "waiting for a seal or merge under way".to_owned(),
        OptimizeStep::Trim => return "trimming the log".to_owned(),
    };
    match at.shards {
        1 => what,
        shards => format!("{what} of shard {} of {shards}", at.shard + 1),
    }
}

fn end(now: &mut Operation, result: Result<String>) {
    now.ended_at_ms = Some(now_ms());
    now.message.clear();
    match result {
        Ok(said) => (now.state, now.progress, now.message) = (OperationState::Done, 1.0, said),
        Err(e) if e.kind == ErrorKind::Cancelled => {
            (now.state, now.message) = (OperationState::Cancelled, e.message);
        }
        Err(e) => {
            tracing::warn!(id = now.id, kind = now.kind, error = %e, code = e.code, "an operation failed");
            (now.state, now.error) = (OperationState::Failed, Some(e));
        }
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

impl Service {
    /// Seals what grows and merges each shard into as few segments as its settings allow, in the background.
    pub async fn optimize(&self, call: Call, collection: String) -> Result<Operation> {
        let operations = Arc::clone(&self.operations);
        let core = Arc::clone(&self.core);
        self.read(call, "Collections.Optimize", move |found, _| {
            check_collection(&collection)?;
            // Says at once that there is no such collection.
            found.engine.schema(&collection)?;
            let name = collection.clone();
            operations.start(Asked::new("optimize", &collection), move |handle| {
                let mut tell = |at: Optimizing| handle.tell(at.part, words(&at));
                core.engine.optimize(&name, &|| handle.stopped(), &mut tell)
            })
        })
        .await
    }

    /// One operation. While it runs the answer waits for its end, at most `wait` and never beyond the deadline.
    pub async fn operation(&self, call: Call, id: String, wait: Duration) -> Result<Operation> {
        let operations = Arc::clone(&self.operations);
        let until = (Instant::now() + wait).min(call.deadline);
        let entry = self
            .read(call, "Operations.Get", move |_, _| operations.find(&id))
            .await?;
        let mut watch = entry.now.subscribe();
        let ended = watch.wait_for(|now| now.state != OperationState::Running);
        // Waited in vain is no error: the answer says how it stands.
        let _ = tokio::time::timeout_at(until.into(), ended).await;
        let now = entry.now.borrow().clone();
        Ok(now)
    }

    /// Those of one collection, or all; newest first.
    pub async fn list_operations(&self, call: Call, collection: Option<String>) -> Result<Vec<Operation>> {
        let operations = Arc::clone(&self.operations);
        self.read(call, "Operations.List", move |_, _| {
            let all = operations.all.lock();
            let newest = all.iter().rev().map(|entry| entry.now.borrow().clone());
            Ok(newest
                .filter(|now| collection.as_ref().is_none_or(|name| now.collection == *name))
                .collect())
        })
        .await
    }

    /// Asks an operation to stop; answers with what it is now.
    pub async fn cancel_operation(&self, call: Call, id: String) -> Result<Operation> {
        let operations = Arc::clone(&self.operations);
        self.read(call, "Operations.Cancel", move |_, _| {
            Ok(operations.find(&id)?.cancel())
        })
        .await
    }

    /// The operation now and at every change; the last message has an end.
    pub async fn watch_operation(&self, call: Call, id: String) -> Result<watch::Receiver<Operation>> {
        let operations = Arc::clone(&self.operations);
        let entry = self.read(call, "Operations.Watch", move |_, _| operations.find(&id));
        let mut watch = entry.await?.now.subscribe();
        watch.mark_changed();
        Ok(watch)
    }

    /// The server is going down: operations are asked to stop.
    pub fn close(&self) {
        self.operations.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(collection: &str) -> Asked {
        Asked::new("test", collection)
    }

    async fn ended(operations: &Operations, id: &str) -> Operation {
        let mut watch = operations.find(id).unwrap().now.subscribe();
        let last = watch
            .wait_for(|now| now.state != OperationState::Running)
            .await
            .unwrap();
        last.clone()
    }

    #[tokio::test]
    async fn an_operation_ends_as_its_work_does() {
        let operations = Arc::new(Operations::default());
        let cases: [(fn(&Handle<'_>) -> Result<()>, OperationState); 4] = [
            (
                |handle| {
                    handle.say("three files".to_owned());
                    handle.tell(0.5, "at one thing".to_owned());
                    Ok(())
                },
                OperationState::Done,
            ),
            (|_| Err(Error::internal("no")), OperationState::Failed),
            (|_| panic!("on purpose"), OperationState::Failed),
            (
                |_| Err(Error::new(ErrorKind::Cancelled, "cancelled", "stopped")),
                OperationState::Cancelled,
            ),
        ];
        for (work, state) in cases {
            let id = operations.start(asked("c"), work).unwrap().id;
            let last = ended(&operations, &id).await;
            assert_eq!((last.state, last.ended_at_ms.is_some()), (state, true));
            assert_eq!(last.error.is_some(), state == OperationState::Failed);
            assert_eq!(last.message == "three files", state == OperationState::Done, "{last:?}");
        }
    }

    #[tokio::test]
    async fn the_same_work_runs_once_and_all_work_is_bounded_and_stops_when_asked() {
        let operations = Arc::new(Operations::default());
        let wait = |handle: &Handle<'_>| {
            while !handle.stopped() {
                std::thread::yield_now();
            }
            Err(Error::new(ErrorKind::Cancelled, "cancelled", "stopped"))
        };
        let first = operations.start(asked("c0"), wait).unwrap();
        assert_eq!(operations.start(asked("c0"), wait).unwrap().id, first.id);
        let mut ids = vec![first.id];
        for n in 1..RUNNING_MAX {
            let other = asked("c0").with_snapshot(&format!("s{n}"));
            ids.push(operations.start(other, wait).unwrap().id);
        }
        let refused = operations.start(asked("one too many"), wait).unwrap_err();
        assert_eq!(refused.code, "too_many_operations");
        operations.find(&ids[0]).unwrap().cancel();
        assert_eq!(ended(&operations, &ids[0]).await.state, OperationState::Cancelled);
        operations.close();
        for id in &ids {
            assert_eq!(ended(&operations, id).await.state, OperationState::Cancelled);
        }
        assert_eq!(operations.start(asked("late"), wait).unwrap_err().code, "shutting_down");
        assert_eq!(operations.find("op-0").err().unwrap().code, "operation_not_found");
    }

    #[tokio::test]
    async fn what_differs_in_anything_is_another_operation() {
        let operations = Arc::new(Operations::default());
        let wait = |handle: &Handle<'_>| {
            while !handle.stopped() {
                std::thread::yield_now();
            }
            Ok(())
        };
        let how = |how: &str| asked("c").with_snapshot("s").in_detail(how.to_owned());
        let all = [how("as a"), how("as b"), how(""), asked("c"), Asked::new("other", "c")];
        let start = |asked: &Asked| operations.start(asked.clone(), wait).unwrap();
        let ids: Vec<String> = all.iter().map(|asked| start(asked).id).collect();
        let distinct: std::collections::HashSet<&String> = ids.iter().collect();
        assert_eq!(distinct.len(), all.len(), "{ids:?}");
        let again: Vec<String> = all.iter().map(|asked| start(asked).id).collect();
        assert_eq!(again, ids, "what is the same is answered with the one that runs");
        operations.close();
    }

    #[tokio::test]
    async fn what_ends_is_not_taken_for_what_is_wanted() {
        let operations = Arc::new(Operations::default());
        let (release, wait) = std::sync::mpsc::channel::<()>();
        let slow_to_stop = move |handle: &Handle<'_>| {
            handle.tell(0.1, "working".into());
            wait.recv().unwrap();
            handle.tell(0.2, "still working".into());
            Err(Error::new(ErrorKind::Cancelled, "cancelled", "stopped"))
        };
        let first = operations.start(asked("c"), slow_to_stop).unwrap();
        let entry = operations.find(&first.id).unwrap();
        let mut watch = entry.now.subscribe();
        watch.wait_for(|now| now.message == "working").await.unwrap();
        let stopping = entry.cancel();
        assert_eq!(
            (stopping.state, stopping.message.as_str()),
            (OperationState::Running, "stopping")
        );
        let second = operations.start(asked("c"), |_| Ok(())).unwrap();
        assert_ne!(second.id, first.id, "the first one stops");
        assert_eq!(ended(&operations, &second.id).await.state, OperationState::Done);
        release.send(()).unwrap();
        let last = ended(&operations, &first.id).await;
        assert_eq!(
            (last.state, last.message.as_str(), last.progress),
            (OperationState::Cancelled, "stopped", 0.1)
        );
        assert_eq!(entry.cancel(), last, "what has ended stays as it is");
    }

    #[tokio::test]
    async fn an_id_means_nothing_to_the_next_run_of_the_server() {
        let (before, after) = (Arc::new(Operations::default()), Arc::new(Operations::default()));
        let old = before.start(asked("c"), |_| Ok(())).unwrap().id;
        after.start(asked("c"), |_| Ok(())).unwrap();
        assert_eq!(after.find(&old).err().unwrap().code, "operation_not_found");
    }

    #[test]
    fn what_an_optimize_is_at_is_said_in_words() {
        let said = |shards, step| {
            words(&Optimizing {
                part: 0.5,
                shard: 1.min(shards - 1),
                shards,
                step,
            })
        };
        let merge = OptimizeStep::Merge { segments: 3, of: 8 };
        assert_eq!(said(4, merge), "merging 3 of 8 sealed segments of shard 2 of 4");
        assert_eq!(said(1, merge), "merging 3 of 8 sealed segments");
        let seal = OptimizeStep::Seal { segments: 2 };
        assert_eq!(said(2, seal), "sealing 2 growing segments of shard 2 of 2");
        assert_eq!(said(2, OptimizeStep::Trim), "trimming the log");
    }

    #[tokio::test]
    async fn progress_never_goes_back_and_old_ends_are_forgotten() {
        let operations = Arc::new(Operations::default());
        let work = |handle: &Handle<'_>| {
            handle.tell(0.5, "at one thing".into());
            handle.tell(0.2, "at another".into());
            Err(Error::internal("half way"))
        };
        let id = operations.start(asked("c"), work).unwrap().id;
        assert_eq!(ended(&operations, &id).await.progress, 0.5);
        for _ in 0..ENDED_MAX + 2 {
            let next = operations.start(asked("c"), |_| Ok(())).unwrap().id;
            ended(&operations, &next).await;
        }
        assert_eq!(operations.find(&id).err().unwrap().code, "operation_not_found");
        assert!(operations.all.lock().len() <= ENDED_MAX + 1);
    }
}
