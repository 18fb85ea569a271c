//! Ctrl-C, or SIGTERM: finish what is on its way, then report. The second time, end at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

use super::super::output;

/// Whether to go on.
#[derive(Debug, Clone, Default)]
pub(in crate::cli) struct Stop(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    asked: AtomicBool,
    asking: Notify,
}

impl Stop {
    /// One that follows the process's signals.
    pub(super) fn on_signal() -> Self {
        let stop = Self::default();
        let set = stop.clone();
        tokio::spawn(async move {
            signal().await;
            output::note("stopping after what is on its way; again to end at once");
            set.ask();
            signal().await;
            std::process::exit(130);
        });
        stop
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

async fn signal() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
            return;
        }
    }
    if tokio::signal::ctrl_c().await.is_err() {
        // No signal will ever come.
        std::future::pending::<()>().await;
    }
}
