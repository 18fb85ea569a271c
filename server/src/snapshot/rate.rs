//! So many bytes a second, of all contents together that are sent and fetched.
//!
//! Guarantees: over any time, no more bytes than that, and one part. Who takes nothing does not wait. Not metered: manifests
//! and leases, which must not wait behind hours of contents: a lease that is renewed late is lost.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// A rate, and when the next bytes may go.
pub(super) struct Rate {
    /// 0: as many as there are.
    per_second: u64,
    next: Mutex<Instant>,
}

impl Rate {
    pub(super) fn new(per_second: u64) -> Self {
        Self {
            per_second,
            next: Mutex::new(Instant::now()),
        }
    }

    /// Waits until the bytes before these have had their time.
    pub(super) async fn take(&self, bytes: u64) {
        if self.per_second == 0 || bytes == 0 {
            return;
        }
        let begin = {
            let mut next = self.next.lock();
            let begin = (*next).max(Instant::now());
            *next = begin + Duration::from_micros(bytes.saturating_mul(1_000_000) / self.per_second);
            begin
        };
        tokio::time::sleep_until(begin).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_rate_is_kept_by_all_together() {
        let rate = Rate::new(10_000);
        let begin = Instant::now();
        tokio::join!(rate.take(500), rate.take(500), rate.take(500));
        // Two of them waited for those before.
        assert!(begin.elapsed() >= Duration::from_millis(100), "{:?}", begin.elapsed());
        let free = Rate::new(0);
        free.take(u64::MAX).await;
    }

    #[tokio::test]
    async fn who_takes_nothing_waits_for_nobody() {
        let rate = Rate::new(1);
        rate.take(1_000_000).await;
        let nothing = tokio::time::timeout(Duration::from_secs(60), rate.take(0));
        assert!(nothing.await.is_ok(), "an empty file waits eleven days");
    }
}
