//! The threads that local models compute on: as many as processors, shared by all models, so that embedding cannot take
//! the machine from search more than the operating system lets it.
//!
//! Work comes in batches that take some ten milliseconds of one thread. Who has several runs them side by side, as many as
//! threads are free; between two such rounds whoever came meanwhile goes first, so a question does not wait for a long
//! ingest, only for its round. Nobody waits longer than his caller does.

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use rayon::prelude::*;

use crate::rag::patience::{OutOfPatience, Patience};

/// More threads than this are not faster for the sizes of batches that are used here.
const THREADS_MAX: usize = 16;
/// How often somebody who waits for a turn looks whether the caller has gone.
const LOOK_AFTER: Duration = Duration::from_millis(50);

/// Threads, and turns on them.
pub struct Workers {
    threads: rayon::ThreadPool,
    queue: Mutex<Queue>,
    moved: Condvar,
}

/// Who waits, first come first served.
struct Queue {
    free: usize,
    waiting: VecDeque<u64>,
    next: u64,
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
            queue: Mutex::new(Queue {
                free: n,
                waiting: VecDeque::new(),
                next: 0,
            }),
            moved: Condvar::new(),
        })
    }

    /// Runs `work` on each batch, in rounds, in their order. Ends before the first round that the caller does not wait
    /// for: then fewer results come back than there are batches.
    pub(super) fn run<B: Send, T: Send>(
        &self,
        mut batches: impl ExactSizeIterator<Item = B>,
        patience: &Patience,
        work: impl Fn(B) -> T + Sync,
    ) -> Vec<T> {
        let mut all = Vec::with_capacity(batches.len());
        while batches.len() > 0 {
            if patience.check().is_err() {
                break;
            }
            let Ok(turn) = self.turn(batches.len(), patience) else {
                break;
            };
            let round: Vec<B> = batches.by_ref().take(turn.threads).collect();
            let done: Vec<T> = self.threads.install(|| round.into_par_iter().map(&work).collect());
            all.extend(done);
        }
        all
    }

    /// Waits for threads: as many as are free then, `wanted` at most.
    fn turn(&self, wanted: usize, patience: &Patience) -> Result<Turn<'_>, OutOfPatience> {
        let mut queue = self.queue.lock();
        let me = queue.next;
        queue.next += 1;
        queue.waiting.push_back(me);
        while queue.free == 0 || queue.waiting.front() != Some(&me) {
            if let Err(gone) = patience.check() {
                queue.waiting.retain(|&other| other != me);
                // Whoever is first now may have been second only because of us.
                self.moved.notify_all();
                return Err(gone);
            }
            self.moved.wait_for(&mut queue, patience.left().min(LOOK_AFTER));
        }
        queue.waiting.pop_front();
        let threads = queue.free.min(wanted);
        queue.free -= threads;
        self.moved.notify_all();
        Ok(Turn { of: self, threads })
    }
}

/// Gives threads back, also when the work panics.
struct Turn<'a> {
    of: &'a Workers,
    threads: usize,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.of.queue.lock().free += self.threads;
        self.of.moved.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    fn long() -> Patience {
        Patience::lasting(Duration::from_secs(60))
    }

    #[test]
    fn turns_are_bounded_given_back_and_not_waited_for_without_patience() {
        let workers = Workers::new().unwrap();
        let threads = workers.queue.lock().free;
        assert!((1..=THREADS_MAX).contains(&threads));
        let held = workers.turn(usize::MAX, &long()).unwrap();
        assert_eq!(held.threads, threads);
        let short = Patience::lasting(Duration::from_millis(20));
        assert!(workers.run([1, 2].into_iter(), &short, |x| x).is_empty());
        assert!(
            workers.queue.lock().waiting.is_empty(),
            "who left does not wait any more"
        );
        drop(held);
        let all = workers.run(0..100, &long(), |x| 2 * x);
        assert_eq!(all, (0..100).map(|x| 2 * x).collect::<Vec<_>>(), "in their order");
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            workers.run([()].into_iter(), &long(), |()| panic!("on purpose"))
        }));
        assert!(panicked.is_err());
        assert_eq!(workers.queue.lock().free, threads, "a panic gives its turn back");
    }

    #[test]
    fn who_came_first_goes_first_and_does_not_take_what_he_cannot_use() {
        let workers = Workers::new().unwrap();
        let threads = workers.queue.lock().free;
        let held = workers.turn(usize::MAX, &long()).unwrap();
        let order = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for n in 0..4 {
                let (workers, order) = (&workers, &order);
                scope.spawn(move || {
                    let turn = workers.turn(usize::MAX, &long()).unwrap();
                    order.lock().push(n);
                    drop(turn);
                });
                while workers.queue.lock().waiting.len() <= n {
                    std::thread::yield_now();
                }
            }
            drop(held);
        });
        assert_eq!(*order.lock(), [0, 1, 2, 3]);
        let one = workers.turn(1, &long()).unwrap();
        assert_eq!(workers.queue.lock().free, threads - 1);
        drop(one);
    }
}
