//! How work on a snapshot tells how far it is, and learns that nobody wants it any more.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cairn_engine::{Error, ErrorKind, Result};

/// How often work that waits looks whether it is still wanted.
const LOOK: Duration = Duration::from_millis(50);

/// One piece of work, for who does it.
#[derive(Clone, Copy)]
pub(crate) struct Work<'a> {
    /// Somebody wants it to end.
    pub(crate) stopped: &'a (dyn Fn() -> bool + Sync),
    /// Gets 0 to 1.
    pub(crate) progress: &'a (dyn Fn(f32) + Sync),
}

impl Work<'_> {
    /// An error once it is not wanted any more.
    pub(super) fn check(&self) -> Result<()> {
        match (self.stopped)() {
            true => Err(Error::new(
                ErrorKind::Cancelled,
                "cancelled",
                "the work was cancelled; what it had finished stays",
            )),
            false => Ok(()),
        }
    }

    /// What comes of `wait`, or an error as soon as it is not wanted any more: it is dropped then.
    pub(super) async fn unless_stopped<T>(&self, wait: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::pin!(wait);
        loop {
            self.check()?;
            tokio::select! {
                biased;
                done = &mut wait => return done,
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }
}

/// Bytes done, of so many.
pub(super) struct Meter<'a> {
    work: &'a Work<'a>,
    all: u64,
    done: AtomicU64,
}

impl<'a> Meter<'a> {
    pub(super) fn new(work: &'a Work<'a>, all: u64) -> Self {
        Self {
            work,
            all: all.max(1),
            done: AtomicU64::new(0),
        }
    }

    pub(super) fn add(&self, bytes: u64) {
        let done = self.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        #[expect(clippy::cast_precision_loss, reason = "a part between 0 and 1")]
        (self.work.progress)((done as f32 / self.all as f32).min(1.0));
    }
}
