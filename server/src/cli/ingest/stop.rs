//! Ctrl-C, or SIGTERM: finish what is on its way, then report. The second time, end at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

use super::super::{Failure, output};

/// Whether to go on.
#[derive(Debug, Clone, Default)]
pub(in crate::cli) struct Stop(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    asked: AtomicBool,
    asking: Notify,
}

impl Stop {
    /// One that follows the process's signals, from now on.
    pub(super) fn on_signal() -> Result<Self, Failure> {
        let failed = |e: std::io::Error| Failure::new(format!("cannot listen for signals: {e}"));
        let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
        let stop = Self::default();
        let set = stop.clone();
        tokio::spawn(async move {
            for again in [false, true] {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                if again {
                    std::process::exit(Failure::STOPPED.into());
                }
                set.ask();
                output::note("stopping after what is on its way; again to end at once");
            }
        });
        Ok(stop)
    }

    pub(super) fn ask(&self) {
        self.0.asked.store(true, Ordering::Release);
        self.0.asking.notify_waiters();
    }

    pub(super) fn is_asked(&self) -> bool {
        self.0.asked.load(Ordering::Acquire)
    }

    /// Ends when it is asked.
    pub(super) async fn asked(&self) {
        let asking = self.0.asking.notified();
        tokio::pin!(asking);
        // Enrolled before the flag is read, so that asking in between is not missed.
        asking.as_mut().enable();
        if !self.is_asked() {
            asking.await;
        }
    }
}
