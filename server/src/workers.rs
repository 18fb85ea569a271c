//! Threads that help the engine to build graphs: a bounded number for all builds of the process together.
//!
//! A build asks for help many times, for some tens of milliseconds each. Whoever is free then gets a thread for that long; a
//! build that gets none does its work alone, to the same bytes. Threads are made when they are needed: that takes microseconds,
//! and none sits idle while nothing is built.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use cairn_engine::config::Workers;

/// At most so many helpers at work at the same time, beside the threads that ask for them.
pub(crate) fn helpers(most: usize) -> Workers {
    let free = AtomicUsize::new(most);
    Workers::new(move |shares, work| {
        let next = AtomicUsize::new(0);
        let help = || {
            loop {
                let share = next.fetch_add(1, Ordering::Relaxed);
                if share >= shares {
                    break;
                }
                work(share);
            }
        };
        let places = Places::take(&free, shares.saturating_sub(1));
        thread::scope(|scope| {
            for _ in 0..places.count {
                // A thread that cannot be made is one helper less.
                let _ = thread::Builder::new()
                    .name("cairn-build".into())
                    .spawn_scoped(scope, help);
            }
            help();
        });
    })
    .of_threads(most + 1)
}

/// Places of helpers, given back when dropped: after a panic, too.
struct Places<'a> {
    free: &'a AtomicUsize,
    count: usize,
}

impl<'a> Places<'a> {
    fn take(free: &'a AtomicUsize, wanted: usize) -> Self {
        let mut count = 0;
        let _ = free.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| {
            count = left.min(wanted);
            Some(left - count)
        });
        Self { free, count }
    }
}

impl Drop for Places<'_> {
    fn drop(&mut self) {
        self.free.fetch_add(self.count, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_share_is_worked_on_once_whoever_helps() {
        for most in [0, 1, 3] {
            let workers = helpers(most);
            for shares in [0, 1, 2, 100] {
                assert_eq!(workers.map(shares, |share| share), (0..shares).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn helpers_are_bounded_and_come_back() {
        let free = AtomicUsize::new(3);
        let first = Places::take(&free, 2);
        let second = Places::take(&free, 2);
        assert_eq!((first.count, second.count, free.load(Ordering::Relaxed)), (2, 1, 0));
        assert_eq!(Places::take(&free, 2).count, 0);
        drop(first);
        assert_eq!(free.load(Ordering::Relaxed), 2);
    }
}
