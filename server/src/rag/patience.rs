//! How long a model may take: until an instant, or until nobody waits for the answer any more.
//!
//! A model is the one part of a request that can take seconds, so it looks at this between its batches and while it
//! waits for others. It promises nothing about what happens inside one batch.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long a call may take: until an instant, or until its caller has gone.
#[derive(Debug, Clone)]
pub struct Patience {
    /// When the caller stops waiting.
    pub until: Instant,
    given_up: Option<Arc<AtomicBool>>,
}

/// The caller waits no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutOfPatience;

impl Patience {
    /// Until an instant.
    pub fn until(until: Instant) -> Self {
        Self { until, given_up: None }
    }

    /// For a while from now.
    pub fn lasting(time: Duration) -> Self {
        Self::until(Instant::now() + time)
    }

    /// Until an instant, or until the flag is raised.
    pub fn until_or_raised(until: Instant, given_up: Arc<AtomicBool>) -> Self {
        Self {
            until,
            given_up: Some(given_up),
        }
    }

    /// The same caller, but not beyond `time` from now.
    #[must_use]
    pub fn at_most(&self, time: Duration) -> Self {
        Self {
            until: self.until.min(Instant::now() + time),
            given_up: self.given_up.clone(),
        }
    }

    /// An error once nobody waits any more.
    pub fn check(&self) -> Result<(), OutOfPatience> {
        let gone = self.given_up.as_ref().is_some_and(|flag| flag.load(Ordering::Relaxed));
        if gone || Instant::now() >= self.until {
            return Err(OutOfPatience);
        }
        Ok(())
    }

    /// The time that is left; zero if none is, or if the caller has gone.
    pub fn left(&self) -> Duration {
        match self.check() {
            Ok(()) => self.until.saturating_duration_since(Instant::now()),
            Err(OutOfPatience) => Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_ends_with_time_or_with_the_caller() {
        let hour = Duration::from_secs(3_600);
        let flag = Arc::new(AtomicBool::new(false));
        let patience = Patience::until_or_raised(Instant::now() + hour, Arc::clone(&flag));
        assert!(patience.check().is_ok() && patience.left() > hour / 2);
        let shorter = patience.at_most(Duration::ZERO);
        assert_eq!((shorter.check(), shorter.left()), (Err(OutOfPatience), Duration::ZERO));
        assert!(patience.at_most(2 * hour).until <= patience.until);
        flag.store(true, Ordering::Relaxed);
        assert_eq!(
            (patience.check(), patience.left()),
            (Err(OutOfPatience), Duration::ZERO)
        );
        assert!(Patience::lasting(Duration::ZERO).check().is_err());
    }
}
