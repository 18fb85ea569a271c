//! What the log holds, in stretches: how many bytes, of which time; and from where on it is kept.
//!
//! A record is needed while an unsealed row points at it. After that it is kept for `log_retention_ms`, within
//! `log_retention_bytes_max`, so that a snapshot can be followed to a later moment. Both are told in whole stretches, of
//! [`limits::LOG_STRETCH_BYTES`] or [`limits::LOG_STRETCH_MS`], which keeps the account short.
//!
//! The account is written with the effects of the records that it counts, so an open knows it without reading the log. It
//! decides when to trim and nothing else: where it is wrong, the log is kept too long or not long enough, and stays whole.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;

use serde::{Deserialize, Serialize};

use super::applier::{decode, encode};
use crate::config::Settings;
use crate::error::{Error, Result};
use crate::limits;
use crate::storage::{Effects, META, Storage, key};
use crate::types::Seq;

/// Some consecutive records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stretch {
    first: Seq,
    count: Counted,
}

/// What stands under `l` in `meta`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Counted {
    bytes: u64,
    /// Of the first record.
    oldest_ms: u64,
    /// The latest of all.
    newest_ms: u64,
}

/// How much of what nobody needs is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Retention {
    ms: u64,
    bytes_max: u64,
}

impl Retention {
    pub(super) fn is_off(self) -> bool {
        self.ms == 0
    }

    /// The same, however old it is.
    pub(super) fn of_any_age(self) -> Self {
        Self { ms: u64::MAX, ..self }
    }

    /// As much again as a trim may wait, so that not every minute has one.
    pub(super) fn with_slack(self) -> Self {
        Self {
            ms: self.ms.saturating_add((self.ms / 16).max(limits::LOG_STRETCH_MS)),
            bytes_max: self
                .bytes_max
                .saturating_add((self.bytes_max / 16).max(2 * limits::LOG_STRETCH_BYTES)),
        }
    }
}

impl From<&Settings> for Retention {
    fn from(settings: &Settings) -> Self {
        Self {
            ms: settings.log_retention_ms,
            bytes_max: settings.log_retention_bytes_max,
        }
    }
}

/// Who reads the log, and from which record on: nothing from there on is trimmed, whatever the disk is like.
#[derive(Debug, Default)]
pub(super) struct Holds {
    by_number: Mutex<BTreeMap<u64, Seq>>,
}

/// A bound on trimming for as long as it is there.
#[derive(Debug)]
pub(super) struct Hold {
    holds: Arc<Holds>,
    number: u64,
}

impl Holds {
    /// The applier's lock is held, or a trim may be under way that does not know of it.
    pub(super) fn hold(self: &Arc<Self>, from: Seq) -> Hold {
        let mut all = self.by_number.lock();
        let number = all.last_key_value().map_or(0, |(last, _)| last + 1);
        all.insert(number, from);
        Hold {
            holds: Arc::clone(self),
            number,
        }
    }

    /// The first record that somebody reads.
    pub(super) fn first(&self) -> Option<Seq> {
        self.by_number.lock().values().min().copied()
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.holds.by_number.lock().remove(&self.number);
    }
}

/// The log's stretches, oldest first.
#[derive(Debug, Default)]
pub(super) struct LogAccount {
    stretches: VecDeque<Stretch>,
    bytes: u64,
    /// First records of the stretches that changed since they were written.
    unsaved: Vec<Seq>,
}

impl LogAccount {
    /// As it was when the effects up to `applied` were written; `log` is the first record that the log has.
    pub(super) fn load(storage: &Storage, log: Option<Seq>, applied: Seq) -> Result<Self> {
        let mut account = Self::default();
        storage.scan(META, b"l", &[], |key, value| {
            let first = key.get(1..).and_then(|first| first.try_into().ok());
            let first =
                first.ok_or_else(|| Error::damaged("meta: a stretch of the log with a key of the wrong length"))?;
            account.push(Stretch {
                first: Seq(u64::from_be_bytes(first)),
                count: decode(value, "meta: a stretch of the log")?,
            });
            Ok(true)
        })?;
        match log {
            Some(first) if first <= applied => {
                account.forget(first, applied);
                if account.stretches.is_empty() {
                    account.push(Stretch {
                        first,
                        count: Counted::default(),
                    });
                }
            }
            _ => account = Self::default(),
        }
        Ok(account)
    }

    fn push(&mut self, stretch: Stretch) {
        self.bytes += stretch.count.bytes;
        self.stretches.push_back(stretch);
    }

    /// A record was appended.
    pub(super) fn add(&mut self, seq: Seq, bytes: u64, at_ms: u64) {
        let open = |count: &Counted| {
            count.bytes < limits::LOG_STRETCH_BYTES && count.oldest_ms.abs_diff(at_ms) < limits::LOG_STRETCH_MS
        };
        match self.stretches.back_mut().filter(|last| open(&last.count)) {
            Some(Stretch { count, .. }) => {
                count.bytes += bytes;
                count.newest_ms = count.newest_ms.max(at_ms);
                self.bytes += bytes;
            }
            None => self.push(Stretch {
                first: seq,
                count: Counted {
                    bytes,
                    oldest_ms: at_ms,
                    newest_ms: at_ms,
                },
            }),
        }
        let first = self.stretches.back().expect("it was just put there").first;
        if self.unsaved.last() != Some(&first) {
            self.unsaved.push(first);
        }
    }

    /// Writes what changed.
    pub(super) fn save(&mut self, effects: &mut Effects<'_>) -> Result<()> {
        for first in self.unsaved.drain(..) {
            let changed = self.stretches.iter().rev().find(|stretch| stretch.first == first);
            if let Some(Stretch { first, count }) = changed {
                effects.put(META, &key::stretch(*first), &encode(count)?);
            }
        }
        Ok(())
    }

    /// Of everything in the log, more or less: a stretch that a trim went through keeps its bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Of the stretches that are wholly below `to`; `applied` is the last record.
    pub(super) fn below(&self, to: Seq, applied: Seq) -> u64 {
        if to > applied {
            return self.bytes;
        }
        let ends = self.stretches.iter().skip(1).map(|next| next.first);
        let whole = self.stretches.iter().zip(ends).take_while(|(_, end)| *end <= to);
        whole.map(|(stretch, _)| stretch.count.bytes).sum()
    }

    /// The first record that is kept although nobody needs it; none if none is.
    pub(super) fn keep_from(&self, now_ms: u64, retention: Retention) -> Option<Seq> {
        let mut bytes = self.bytes;
        let kept = self.stretches.iter().find(|Stretch { count, .. }| {
            let is_young = now_ms.saturating_sub(count.newest_ms) < retention.ms;
            let keeps = is_young && bytes <= retention.bytes_max;
            bytes -= count.bytes;
            keeps
        });
        kept.filter(|_| !retention.is_off()).map(|stretch| stretch.first)
    }

    /// When the oldest record was written.
    pub(super) fn oldest_ms(&self) -> Option<u64> {
        self.stretches.front().map(|stretch| stretch.count.oldest_ms)
    }

    /// The log was trimmed below `to`. Answers the key below which the account's entries may go.
    pub(super) fn forget(&mut self, to: Seq, applied: Seq) -> [u8; 9] {
        let mut pop = |stretches: &mut VecDeque<Stretch>| {
            if let Some(stretch) = stretches.pop_front() {
                self.bytes -= stretch.count.bytes;
            }
        };
        while self.stretches.get(1).is_some_and(|next| next.first <= to) {
            pop(&mut self.stretches);
        }
        if self.stretches.len() == 1 && to > applied {
            pop(&mut self.stretches);
        }
        key::stretch(self.stretches.front().map_or(to, |stretch| stretch.first))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: u64 = limits::LOG_STRETCH_MS;

    /// Ten records of 100 bytes, a minute apart, so each is a stretch.
    fn some() -> LogAccount {
        let mut account = LogAccount::default();
        (1..=10).for_each(|n| account.add(Seq(n), 100, n * MINUTE));
        account
    }

    fn kept(now_minutes: u64, ms: u64, bytes_max: u64) -> Option<u64> {
        let retention = Retention { ms, bytes_max };
        some().keep_from(now_minutes * MINUTE, retention).map(|seq| seq.0)
    }

    #[test]
    fn the_log_is_kept_for_its_time_within_its_bytes() {
        assert_eq!(kept(10, 0, u64::MAX), None, "off");
        assert_eq!(kept(10, 3 * MINUTE, u64::MAX), Some(8));
        assert_eq!(kept(10, 100 * MINUTE, u64::MAX), Some(1));
        assert_eq!(kept(10, 100 * MINUTE, 450), Some(7));
        assert_eq!(kept(10, 2 * MINUTE, 450), Some(9));
        assert_eq!(kept(50, 3 * MINUTE, u64::MAX), None, "all are old");
        assert_eq!(kept(10, 100 * MINUTE, 99), None, "no stretch is small enough");
        // A clock that was set back makes nothing old.
        assert_eq!(kept(0, MINUTE, u64::MAX), Some(1));
    }

    #[test]
    fn bytes_below_a_record_are_those_of_whole_stretches() {
        let mut account = some();
        assert_eq!(account.bytes(), 1_000);
        assert_eq!(account.below(Seq(1), Seq(10)), 0);
        assert_eq!(account.below(Seq(4), Seq(10)), 300);
        assert_eq!(account.below(Seq(10), Seq(10)), 900);
        assert_eq!(account.below(Seq(11), Seq(10)), 1_000);
        // Within a minute they share one.
        account.add(Seq(11), 50, 10 * MINUTE + 5);
        assert_eq!(account.below(Seq(11), Seq(11)), 900);
        account.forget(Seq(4), Seq(11));
        assert_eq!((account.bytes(), account.oldest_ms()), (750, Some(4 * MINUTE)));
        account.forget(Seq(12), Seq(11));
        assert_eq!((account.bytes(), account.oldest_ms()), (0, None));
    }

    #[test]
    fn an_account_is_read_back_as_it_was_and_follows_the_log() {
        let dir = tempfile::tempdir().unwrap();
        let storage = Storage::open(dir.path(), false).unwrap();
        let mut account = some();
        let save = |account: &mut LogAccount| {
            let mut effects = Effects::new(&storage);
            account.save(&mut effects).unwrap();
            storage.write_effects(effects).unwrap();
        };
        save(&mut account);
        account.add(Seq(11), 7, 10 * MINUTE);
        save(&mut account);
        let load = |log, applied| LogAccount::load(&storage, log, Seq(applied)).unwrap();
        assert_eq!(load(Some(Seq(1)), 11).stretches, account.stretches);
        assert_eq!(load(Some(Seq(4)), 11).bytes(), 707);
        // The log has nothing of what was counted, or more than that.
        assert_eq!(load(None, 11).bytes(), 0);
        assert_eq!(load(Some(Seq(12)), 11).bytes(), 0);
    }
}
