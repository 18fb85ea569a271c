//! What was written and not yet fsynced: the account behind `async` durability, its window, and the marks in the WAL.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::limits;
use crate::storage::wal::Mark;
use crate::types::Seq;

/// The part of the log that a loss of power may take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Unsynced {
    /// Records.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
    /// How long the oldest has been waiting.
    pub age: Duration,
}

/// Fsyncs of the log since it was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fsyncs {
    /// How many.
    pub count: u64,
    /// Time spent in them, the write that came with one included.
    pub time: Duration,
    /// The longest.
    pub longest: Duration,
}

/// The account. Groups are added by one writer; a sync may end at any time.
#[derive(Debug, Default)]
pub(super) struct Account {
    /// Groups that were written since the last sync, oldest first.
    groups: VecDeque<Group>,
    bytes: u64,
    /// Last record written, and last one known to be fsynced.
    written: Seq,
    synced: Seq,
    pub(super) fsyncs: Fsyncs,
    /// What marks of this run carry.
    run: u64,
}

#[derive(Debug)]
struct Group {
    last: Seq,
    bytes: u64,
    since: Instant,
}

impl Account {
    pub(super) fn new(run: u64) -> Self {
        Self { run, ..Self::default() }
    }

    /// At open: RocksDB has brought everything it found to disk.
    pub(super) fn begin(&mut self, last: Seq) {
        self.written = last;
        self.synced = last;
    }

    /// What the next group says of those before it.
    pub(super) fn mark(&self, first: Seq, count: u64) -> Mark {
        Mark {
            first: first.0,
            count,
            synced: self.synced.0,
            unsynced_groups: self.groups.len() as u64,
            unsynced_bytes: self.bytes,
            run: self.run,
        }
    }

    /// Whether the next group must be fsynced whatever its durability, because the oldest has waited for `window`, or there
    /// is too much.
    pub(super) fn is_due(&self, window: Duration, bytes: u64) -> bool {
        self.bytes.saturating_add(bytes) > limits::UNSYNCED_BYTES_MAX
            || self.groups.len() >= limits::UNSYNCED_GROUPS_MAX
            || self.age() >= window
    }

    pub(super) fn written(&mut self, last: Seq, bytes: u64) {
        self.written = last;
        self.bytes += bytes;
        self.groups.push_back(Group {
            last,
            bytes,
            since: Instant::now(),
        });
    }

    /// Everything that is written now: what a sync that begins now will cover.
    pub(super) fn last_written(&self) -> Seq {
        self.written
    }

    /// A sync that had covered records up to `last` has ended well.
    pub(super) fn synced(&mut self, last: Seq, took: Duration) {
        self.synced = self.synced.max(last);
        while let Some(group) = self.groups.pop_front_if(|group| group.last <= last) {
            self.bytes -= group.bytes;
        }
        self.fsyncs.count += 1;
        self.fsyncs.time += took;
        self.fsyncs.longest = self.fsyncs.longest.max(took);
    }

    /// Whether a record is fsynced for sure.
    pub(super) fn covers(&self, seq: Seq) -> bool {
        seq <= self.synced || self.groups.is_empty()
    }

    pub(super) fn age(&self) -> Duration {
        self.groups
            .front()
            .map_or(Duration::ZERO, |group| group.since.elapsed())
    }

    pub(super) fn unsynced(&self) -> Unsynced {
        Unsynced {
            records: match self.groups.is_empty() {
                true => 0,
                false => self.written.0 - self.synced.0,
            },
            bytes: self.bytes,
            age: self.age(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sync_covers_what_was_written_before_it_began_and_no_more() {
        let mut account = Account::default();
        let hour = Duration::from_secs(3_600);
        account.begin(Seq(7));
        assert!(account.covers(Seq(7)) && account.mark(Seq(8), 1).synced == 7);
        account.written(Seq(8), 100);
        let began = account.last_written();
        account.written(Seq(10), 50);
        assert_eq!(account.unsynced().records, 3);
        assert_eq!(account.mark(Seq(11), 1).unsynced_bytes, 150);
        account.synced(began, Duration::from_millis(3));
        assert!(account.covers(Seq(8)) && !account.covers(Seq(9)));
        let mark = account.mark(Seq(11), 2);
        assert_eq!((mark.synced, mark.unsynced_groups, mark.unsynced_bytes), (8, 1, 50));
        assert_eq!((account.unsynced().records, account.unsynced().bytes), (2, 50));
        assert!(!account.is_due(hour, 0) && account.is_due(Duration::ZERO, 0));
        assert!(account.is_due(hour, limits::UNSYNCED_BYTES_MAX));
        account.synced(Seq(10), Duration::from_millis(1));
        assert_eq!(account.unsynced(), Unsynced::default());
        assert_eq!(
            (account.fsyncs.count, account.fsyncs.longest),
            (2, Duration::from_millis(3))
        );
    }
}
