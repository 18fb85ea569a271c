//! Seals and merges that panic: when each is tried again, and what is told of it.
//!
//! A panic in a build is a bug that a certain shard's rows bring about. The shard stays as it was and is tried again, since the
//! cause may pass (memory, a helping thread); each time after twice the pause, because the build of a large segment that comes
//! to nothing takes minutes of processor time. Other shards go on meanwhile. Nothing here outlives the process: a restart tries
//! at once.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::recover::Place;
use crate::limits;
use crate::types::CollectionNo;

/// What is built of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BuildKind {
    /// A sealed segment of what grows.
    Seal,
    /// One sealed segment of several.
    Merge,
}

impl BuildKind {
    /// In messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Seal => "seal",
            Self::Merge => "merge",
        }
    }
}

/// A seal or merge of a shard that failed the last time it was tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildFailure {
    /// Which.
    pub kind: BuildKind,
    /// Of which shard of its collection.
    pub shard: u32,
    /// How often in a row.
    pub times: u32,
    /// What the panic said.
    pub message: String,
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// When it is tried again.
    pub retry_at_ms: u64,
}

impl fmt::Display for BuildFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wait_s = self.retry_at_ms.saturating_sub(self.at_ms) / 1_000;
        write!(
            f,
            "the {} of shard {} failed {} times in a row and is tried again {wait_s} s after the last time: {}",
            self.kind.name(),
            self.shard,
            self.times,
            self.message
        )
    }
}

/// All of them.
#[derive(Default)]
pub(super) struct Failing {
    builds: Mutex<BTreeMap<(Place, BuildKind), BuildFailure>>,
    total: AtomicU64,
}

/// Pause after so many failures in a row.
fn pause_ms(times: u32) -> u64 {
    let doubled = limits::BUILD_RETRY_MS_MIN.checked_shl(times.saturating_sub(1));
    doubled
        .unwrap_or(u64::MAX)
        .clamp(limits::BUILD_RETRY_MS_MIN, limits::BUILD_RETRY_MS_MAX)
}

impl Failing {
    pub(super) fn failed(&self, place: Place, kind: BuildKind, message: &str, now_ms: u64) {
        self.total.fetch_add(1, Ordering::Relaxed);
        let mut builds = self.builds.lock();
        let times = builds
            .get(&(place, kind))
            .map_or(0, |before| before.times)
            .saturating_add(1);
        let failure = BuildFailure {
            kind,
            shard: place.1.0,
            times,
            message: message.chars().take(limits::BUILD_FAILURE_CHARS_MAX).collect(),
            at_ms: now_ms,
            retry_at_ms: now_ms.saturating_add(pause_ms(times)),
        };
        builds.insert((place, kind), failure);
    }

    pub(super) fn succeeded(&self, place: Place, kind: BuildKind) {
        self.builds.lock().remove(&(place, kind));
    }

    /// A dropped collection is not built any more.
    pub(super) fn forget(&self, no: CollectionNo) {
        self.builds.lock().retain(|((of, _), _), _| *of != no);
    }

    /// Whether background work may try; also if the clock went back behind the failure.
    pub(super) fn may_try(&self, place: Place, kind: BuildKind, now_ms: u64) -> bool {
        let builds = self.builds.lock();
        let failure = builds.get(&(place, kind));
        failure.is_none_or(|failure| now_ms >= failure.retry_at_ms || now_ms < failure.at_ms)
    }

    /// Those of a collection.
    pub(super) fn of(&self, no: CollectionNo) -> Vec<BuildFailure> {
        let builds = self.builds.lock();
        let own = builds.iter().filter(|(((of, _), _), _)| *of == no);
        own.map(|(_, failure)| failure.clone()).collect()
    }

    /// The one that fails the longest, for a message.
    pub(super) fn worst(&self) -> Option<BuildFailure> {
        let builds = self.builds.lock();
        builds.values().max_by_key(|failure| failure.times).cloned()
    }

    /// How many fail now, and how often one has failed since open.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.builds.lock().len() as u64, self.total.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::ShardNo;

    #[test]
    fn pauses_double_to_minutes_and_a_success_ends_them() {
        let pauses: Vec<u64> = [1, 2, 3, 7, 8, 1_000, u32::MAX].into_iter().map(pause_ms).collect();
        assert_eq!(pauses, [5_000, 10_000, 20_000, 300_000, 300_000, 300_000, 300_000]);

        let (failing, place) = (Failing::default(), (CollectionNo(1), ShardNo(0)));
        let may = |now| failing.may_try(place, BuildKind::Seal, now);
        assert!(may(0));
        failing.failed(place, BuildKind::Seal, "why", 1_000);
        assert!(!may(5_999) && may(6_000) && may(999));
        assert!(failing.may_try(place, BuildKind::Merge, 1_000));
        failing.failed(place, BuildKind::Seal, "why", 6_000);
        assert!(!may(15_999) && may(16_000));
        assert_eq!((failing.worst().unwrap().times, failing.counts()), (2, (1, 2)));
        failing.succeeded(place, BuildKind::Seal);
        assert!(may(6_001) && failing.of(place.0).is_empty());
        failing.failed(place, BuildKind::Merge, "why", 7_000);
        failing.forget(place.0);
        assert_eq!(failing.counts(), (0, 3));
    }
}
