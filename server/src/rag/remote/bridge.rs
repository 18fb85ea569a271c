//! The one way from a synchronous model to the network: a thread that may block waits for a future.
//!
//! Models are called on blocking threads (`service/pools.rs`), never on an async worker: there, waiting would panic
//! rather than starve the others. What is waited for ends with its caller: when patience is over, or its flag is raised,
//! the future is dropped, which cancels the request.

use std::time::Duration;

use tokio::runtime::Handle;

use crate::rag::patience::{OutOfPatience, Patience};

/// How often it is looked whether the caller has gone. Nobody notices less; a look costs nothing.
const LOOK: Duration = Duration::from_millis(25);

/// The runtime that moves the bytes.
#[derive(Debug, Clone)]
pub(crate) struct Bridge(Handle);

impl Bridge {
    /// To the runtime that this thread belongs to.
    pub(crate) fn here() -> Result<Self, String> {
        Handle::try_current()
            .map(Self)
            .map_err(|_| "models of a service need an async runtime, and this thread has none".to_owned())
    }

    /// Blocks this thread until `work` is done, or nobody waits for it any more.
    pub(crate) fn wait<T>(&self, patience: &Patience, work: impl Future<Output = T>) -> Result<T, OutOfPatience> {
        self.0.block_on(async {
            tokio::pin!(work);
            loop {
                let nap = LOOK.min(patience.left());
                patience.check()?;
                tokio::select! {
                    biased;
                    done = &mut work => return Ok(done),
                    () = tokio::time::sleep(nap) => {}
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Instant;

    use super::*;

    #[tokio::test]
    async fn what_is_waited_for_ends_when_the_caller_has_gone() {
        let flag = Arc::new(AtomicBool::new(false));
        let hour = Instant::now() + Duration::from_secs(3_600);
        let patience = Patience::until_or_raised(hour, Arc::clone(&flag));
        let waiting = tokio::task::spawn_blocking(move || {
            let bridge = Bridge::here().unwrap();
            let done = bridge.wait(&patience, async { 7 });
            let raise = async {
                flag.store(true, Ordering::Relaxed);
                std::future::pending::<()>().await;
            };
            (done, bridge.wait(&patience, raise))
        });
        assert_eq!(waiting.await.unwrap(), (Ok(7), Err(OutOfPatience::Gone)));
    }

    #[test]
    fn a_thread_without_a_runtime_is_told_so() {
        assert!(Bridge::here().is_err());
    }
}
