//! The one bridge between async adapters and the synchronous engine: bounded places, bounded queues, deadlines.
//!
//! A request is admitted or refused at once (`overloaded`), waits in line for a place until its deadline, then runs on a
//! blocking thread. A caller that goes away while in line frees its place in the line; one that goes away while its work
//! runs raises the work's flag, which the loops of models and of the engine poll ([`Patience`]); the place stays taken until
//! the work has really ended, so that the bound on running work is true.
//!
//! Reads, writes, and looks into the store of snapshots have separate pools: a flood of one never starves the others, nor does
//! a store that hangs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cairn_engine::patience::{OutOfPatience, Patience};
use cairn_engine::{Error, ErrorKind, Result};
use tokio::runtime::Handle as Runtime;
use tokio::sync::Semaphore;
use tokio::time::timeout_at;

use super::bounds::{READS_MAX, STORE_LOOKS_MAX, STORE_LOOKS_QUEUED_MAX};
use crate::config::Limits;

/// How often work that waits looks whether its caller is still there.
const LOOK: Duration = Duration::from_millis(20);

/// Reads, writes and looks into the store of snapshots, each with its own places.
#[derive(Debug)]
pub(crate) struct Pools {
    pub(crate) reads: Pool,
    pub(crate) writes: Pool,
    pub(crate) looks: Pool,
}

/// Places to run, and a line before them.
#[derive(Debug)]
pub(crate) struct Pool {
    name: &'static str,
    /// Places to run and to wait.
    admitted: Arc<Semaphore>,
    /// Places to run.
    running: Arc<Semaphore>,
}

/// What a piece of work may still spend.
#[derive(Debug, Clone)]
pub(crate) struct Budget(Patience);

impl Pools {
    pub(crate) fn new(limits: &Limits) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let reads = match limits.reads_max {
            0 => (2 * processors).min(READS_MAX),
            reads => reads,
        };
        Self {
            reads: Pool::new("read", reads, limits.reads_queued_max),
            writes: Pool::new("write", limits.writes_max, limits.writes_queued_max),
            looks: Pool::new("snapshot", STORE_LOOKS_MAX, STORE_LOOKS_QUEUED_MAX),
        }
    }
}

impl Pool {
    fn new(name: &'static str, running: usize, queued: usize) -> Self {
        Self {
            name,
            admitted: Arc::new(Semaphore::new(running + queued)),
            running: Arc::new(Semaphore::new(running)),
        }
    }

    /// Runs `work` on a blocking thread when there is a place for it.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        deadline: Instant,
        work: impl FnOnce(&Budget) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let Ok(admitted) = Arc::clone(&self.admitted).try_acquire_owned() else {
            return Err(Error::new(
                ErrorKind::Exhausted,
                "overloaded",
                format!("too many {} requests are waiting, try again shortly", self.name),
            ));
        };
        let place = timeout_at(deadline.into(), Arc::clone(&self.running).acquire_owned())
            .await
            .map_err(|_| deadline_exceeded())?
            .expect("the semaphore is never closed");
        let given_up = Arc::new(AtomicBool::new(false));
        let _raise = RaiseOnDrop(Arc::clone(&given_up));
        let budget = Budget(Patience::until_or_raised(deadline, given_up));
        let task = tokio::task::spawn_blocking(move || {
            let _held = (admitted, place);
            budget.check()?;
            work(&budget)
        });
        match timeout_at(deadline.into(), task).await {
            Ok(Ok(result)) => result,
            Ok(Err(panicked)) => Err(Error::internal(format!("a {} request failed: {panicked}", self.name))),
            Err(_) => Err(deadline_exceeded()),
        }
    }
}

/// Runs work that needs no place (decoding a large body) off the async threads.
pub(crate) async fn offload<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|panicked| Error::internal(format!("decoding failed: {panicked}")))
}

impl Budget {
    /// Until an instant, for a caller who stays.
    #[cfg(test)]
    pub(crate) fn until(deadline: Instant) -> Self {
        Self(Patience::until(deadline))
    }

    /// An error once the deadline has passed or the caller has gone.
    pub(crate) fn check(&self) -> Result<()> {
        self.0.check().map_err(|why| match why {
            OutOfPatience::Late => deadline_exceeded(),
            OutOfPatience::Gone => why.into(),
        })
    }

    /// Waits on this blocking thread for what is asked of elsewhere, as long as the caller does; then it is dropped.
    pub(crate) fn wait<T>(&self, asked: impl Future<Output = Result<T>>) -> Result<T> {
        Runtime::current().block_on(async {
            tokio::pin!(asked);
            loop {
                self.check()?;
                tokio::select! {
                    biased;
                    done = &mut asked => return done,
                    () = tokio::time::sleep(LOOK) => {}
                }
            }
        })
    }

    /// The same for models and for the engine.
    pub(crate) fn patience(&self) -> &Patience {
        &self.0
    }
}

/// What a caller is told who waited in vain.
pub(crate) fn deadline_exceeded() -> Error {
    Error::new(
        ErrorKind::Deadline,
        "deadline_exceeded",
        "the deadline passed before the answer was ready; a write may or may not have happened",
    )
}

struct RaiseOnDrop(Arc<AtomicBool>);

impl Drop for RaiseOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    #[tokio::test]
    async fn a_full_line_is_refused_at_once_and_frees_itself() {
        let pool = Arc::new(Pool::new("read", 1, 1));
        let (release, wait) = mpsc::channel::<()>();
        let (started, has_started) = tokio::sync::oneshot::channel();
        let first = tokio::spawn({
            let pool = Arc::clone(&pool);
            async move {
                pool.run(soon(), move |_| {
                    started.send(()).unwrap();
                    wait.recv().unwrap();
                    Ok(1)
                })
                .await
            }
        });
        has_started.await.unwrap();
        let second = tokio::spawn({
            let pool = Arc::clone(&pool);
            async move { pool.run(soon(), |_| Ok(2)).await }
        });
        while pool.admitted.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        let refused = pool.run(soon(), |_| Ok(3)).await.unwrap_err();
        assert_eq!((refused.kind, refused.code), (ErrorKind::Exhausted, "overloaded"));
        release.send(()).unwrap();
        assert_eq!(first.await.unwrap().unwrap(), 1);
        assert_eq!(second.await.unwrap().unwrap(), 2);
        assert_eq!(pool.run(soon(), |_| Ok(4)).await.unwrap(), 4);
    }

    #[tokio::test]
    async fn a_caller_who_leaves_the_line_frees_its_place() {
        let pool = Arc::new(Pool::new("read", 1, 1));
        let (release, wait) = mpsc::channel::<()>();
        let first = tokio::spawn({
            let pool = Arc::clone(&pool);
            async move {
                pool.run(soon(), move |_| {
                    wait.recv().unwrap();
                    Ok(())
                })
                .await
            }
        });
        while pool.running.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        let left = tokio::time::timeout(Duration::from_millis(20), pool.run(soon(), |_| Ok(()))).await;
        assert!(left.is_err());
        assert_eq!(pool.admitted.available_permits(), 1);
        release.send(()).unwrap();
        first.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_passed_deadline_is_an_error_in_line_and_at_work() {
        let pool = Pool::new("write", 1, 1);
        let passed = pool.run(Instant::now(), |_| Ok(())).await.unwrap_err();
        assert_eq!(passed.code, "deadline_exceeded");
        let (saw, seen) = mpsc::channel();
        let slow = pool
            .run(Instant::now() + Duration::from_millis(30), move |budget| {
                while budget.check().is_ok() {
                    std::thread::sleep(Duration::from_millis(1));
                }
                saw.send(()).unwrap();
                budget.check()
            })
            .await
            .unwrap_err();
        assert_eq!(slow.code, "deadline_exceeded");
        seen.recv_timeout(Duration::from_secs(5)).unwrap();
    }

    #[tokio::test]
    async fn who_waits_for_a_store_that_hangs_frees_its_place_when_its_caller_goes() {
        let pool = Pool::new("snapshot", 1, 1);
        let hangs = |budget: &Budget| budget.wait(std::future::pending::<Result<()>>());
        let left = tokio::time::timeout(Duration::from_millis(50), pool.run(soon(), hangs)).await;
        assert!(left.is_err());
        let next = pool.run(soon(), |budget| budget.wait(async { Ok(7) })).await;
        assert_eq!(
            next.unwrap(),
            7,
            "the place is free long before the deadline of who left"
        );
        let late = pool
            .run(Instant::now() + Duration::from_millis(50), hangs)
            .await
            .unwrap_err();
        assert_eq!(late.code, "deadline_exceeded");
        assert_eq!(pool.run(soon(), |_| Ok(8)).await.unwrap(), 8);
    }

    #[tokio::test]
    async fn a_panic_is_an_internal_error_and_frees_the_place() {
        let pool = Pool::new("read", 1, 0);
        let broken = pool
            .run(soon(), |_| -> Result<()> { panic!("on purpose") })
            .await
            .unwrap_err();
        assert_eq!(broken.kind, ErrorKind::Internal);
        assert!(pool.run(soon(), |_| Ok(())).await.is_ok());
    }
}
