//! When a failed call is tried again, and after how long.
//!
//! A call has one deadline, over all its attempts. Tried again are errors that say "not now": the server is unavailable,
//! a bound is reached, or the connection broke. Waits grow exponentially with *full jitter* (uniform between 0
//! and the bound: Brooker, "Exponential Backoff and Jitter", AWS 2015), because clients that were refused together
//! would otherwise come back together. A server's hint is the least that is waited.
//!
//! All attempts of one call carry the same request id, and the server does a request once: a write whose answer was lost is
//! answered again, not done again, a delete by filter included. What is not promised: that a write whose call failed with
//! `Deadline` or `Unreachable` did not happen.

use std::future::Future;
use std::time::Duration;

use rand::Rng;
use tokio::time::Instant;

use crate::error::{Error, Result};

/// How often and how patiently a call is repeated.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Retry {
    /// Attempts after the first one. 0 turns retries off.
    pub retries: u32,
    /// Bound of the first wait; it doubles with each attempt.
    pub first_wait: Duration,
    /// Bound of any wait that the server did not ask for.
    pub wait_max: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            retries: 5,
            first_wait: Duration::from_millis(50),
            wait_max: Duration::from_secs(5),
        }
    }
}

impl Retry {
    /// The bound of the wait before attempt `n` (1 is the first repetition).
    fn bound(&self, n: u32) -> Duration {
        self.first_wait
            .saturating_mul(1_u32.checked_shl(n.saturating_sub(1)).unwrap_or(u32::MAX))
            .min(self.wait_max)
    }

    /// How long to wait after `error` before attempt `n` (1 is the first repetition).
    pub(crate) fn wait(&self, n: u32, error: &Error) -> Duration {
        let jittered = rand::rng().random_range(Duration::ZERO..=self.bound(n));
        jittered.max(error.retry_after().unwrap_or_default())
    }

    /// Runs `attempt` until it succeeds, fails for good, or `timeout` is over. It is given the time that is left.
    pub(crate) async fn run<T, F, A>(&self, timeout: Duration, mut attempt: A) -> Result<T>
    where
        A: FnMut(Duration) -> F,
        F: Future<Output = Result<T>>,
    {
        let deadline = Instant::now() + timeout;
        let mut last = None;
        for n in 0.. {
            let left = deadline.saturating_duration_since(Instant::now());
            let error = match tokio::time::timeout(left, attempt(left)).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(e)) if e.is_retryable() && n < self.retries => e,
                Ok(Err(e)) => return Err(e),
                Err(_) => return Err(Error::deadline(timeout, last)),
            };
            let wait = self.wait(n + 1, &error);
            if Instant::now() + wait >= deadline {
                // Waiting it out could only end in a deadline error that says less.
                return Err(error);
            }
            tokio::time::sleep(wait).await;
            last = Some(error);
        }
        unreachable!("the loop ends by returning")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_their_bound() {
        let retry = Retry {
            retries: 99,
            first_wait: Duration::from_millis(50),
            wait_max: Duration::from_secs(1),
        };
        let bounds: Vec<u128> = (1..=7).map(|n| retry.bound(n).as_millis()).collect();
        assert_eq!(bounds, [50, 100, 200, 400, 800, 1000, 1000]);
        assert_eq!(retry.bound(u32::MAX), retry.wait_max);
    }
}
