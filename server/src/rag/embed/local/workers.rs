//! The threads that local models compute on: as many as processors, shared by all models, so that embedding cannot take
//! the machine from search more than the operating system lets it.
//!
//! As many batches are run at a time as there are threads; more wait for their turn, as long as their callers do.

use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::rag::patience::{OutOfPatience, Patience};

/// More threads than this are not faster for the sizes of batches that are used here.
const THREADS_MAX: usize = 16;
/// How often somebody who waits for a turn looks whether the caller has gone.
const LOOK_AFTER: Duration = Duration::from_millis(50);

/// Threads, and turns on them.
pub struct Workers {
    threads: rayon::ThreadPool,
    free: Mutex<usize>,
    freed: Condvar,
}

impl Workers {
    /// Starts the threads. The message says why they cannot be started.
    pub fn new() -> Result<Self, String> {
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let n = processors.min(THREADS_MAX);
        let threads = rayon::ThreadPoolBuilder::new()
            .num_threads(n)
            .thread_name(|i| format!("cairn-model-{i}"))
            .build()
            .map_err(|e| format!("the threads of local models cannot be started: {e}"))?;
        Ok(Self {
            threads,
            free: Mutex::new(n),
            freed: Condvar::new(),
        })
    }

    /// Runs `work` on the threads when it is its turn; not at all if the caller leaves before that.
    pub(super) fn run<T: Send>(
        &self,
        patience: &Patience,
        work: impl FnOnce() -> T + Send,
    ) -> Result<T, OutOfPatience> {
        let _turn = self.turn(patience)?;
        Ok(self.threads.install(work))
    }

    fn turn(&self, patience: &Patience) -> Result<Turn<'_>, OutOfPatience> {
        let mut free = self.free.lock();
        while *free == 0 {
            patience.check()?;
            self.freed.wait_for(&mut free, patience.left().min(LOOK_AFTER));
        }
        *free -= 1;
        Ok(Turn(self))
    }
}

/// Gives the turn back, also when the work panics.
struct Turn<'a>(&'a Workers);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.0.free.lock() += 1;
        self.0.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_bounded_given_back_and_not_waited_for_without_patience() {
        let workers = Workers::new().unwrap();
        let long = Patience::lasting(Duration::from_secs(60));
        let turns = *workers.free.lock();
        assert!((1..=THREADS_MAX).contains(&turns));
        let held: Vec<_> = (0..turns).map(|_| workers.turn(&long).unwrap()).collect();
        assert!(
            workers
                .run(&Patience::lasting(Duration::from_millis(20)), || ())
                .is_err()
        );
        drop(held);
        assert_eq!(workers.run(&long, || 7), Ok(7));
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _ = workers.run(&long, || panic!("on purpose"));
        }));
        assert!(panicked.is_err());
        assert_eq!(*workers.free.lock(), turns, "a panic gives its turn back");
    }
}
