//! How long a caller waits: until an instant, or until it has gone.
//!
//! Whatever takes long looks at this in its loops, so that nobody works for a caller who has left. A look is an atomic load
//! and, where there is an instant, a reading of the clock: some tens of nanoseconds. Nothing is promised about what happens
//! between two looks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind};

/// How long a caller waits. By default: as long as it takes.
#[derive(Debug, Clone, Default)]
pub struct Patience {
    until: Option<Instant>,
    gone: Option<Arc<AtomicBool>>,
}

/// The caller waits no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutOfPatience {
    /// The instant has passed.
    Late,
    /// It has gone.
    Gone,
}

impl Patience {
    /// As long as it takes.
    pub fn endless() -> &'static Self {
        static ENDLESS: Patience = Patience {
            until: None,
            gone: None,
        };
        &ENDLESS
    }

    /// Until an instant.
    pub fn until(until: Instant) -> Self {
        Self {
            until: Some(until),
            gone: None,
        }
    }

    /// For a while from now.
    pub fn lasting(time: Duration) -> Self {
        Self::until(Instant::now() + time)
    }

    /// Until an instant, or until the flag is raised.
    pub fn until_or_raised(until: Instant, gone: Arc<AtomicBool>) -> Self {
        Self {
            until: Some(until),
            gone: Some(gone),
        }
    }

    /// The same caller, but not beyond `time` from now.
    #[must_use]
    pub fn at_most(&self, time: Duration) -> Self {
        let end = Instant::now() + time;
        Self {
            until: Some(self.until.map_or(end, |until| until.min(end))),
            gone: self.gone.clone(),
        }
    }

    /// The instant, if there is one.
    pub fn deadline(&self) -> Option<Instant> {
        self.until
    }

    /// An error once nobody waits any more.
    #[inline]
    pub fn check(&self) -> Result<(), OutOfPatience> {
        if self.gone.as_ref().is_some_and(|gone| gone.load(Ordering::Relaxed)) {
            return Err(OutOfPatience::Gone);
        }
        match self.until {
            Some(until) if Instant::now() >= until => Err(OutOfPatience::Late),
            _ => Ok(()),
        }
    }

    /// Nobody waits any more.
    #[inline]
    pub fn is_over(&self) -> bool {
        self.check().is_err()
    }

    /// The time that is left: zero if none is or if the caller has gone, [`Duration::MAX`] without an end.
    pub fn left(&self) -> Duration {
        match (self.check(), self.until) {
            (Err(_), _) => Duration::ZERO,
            (Ok(()), Some(until)) => until.saturating_duration_since(Instant::now()),
            (Ok(()), None) => Duration::MAX,
        }
    }
}

impl From<OutOfPatience> for Error {
    fn from(why: OutOfPatience) -> Self {
        match why {
            OutOfPatience::Late => Self::new(
                ErrorKind::Deadline,
                "deadline_exceeded",
                "the deadline passed before the answer was complete; nothing partial is returned",
            ),
            OutOfPatience::Gone => Self::new(ErrorKind::Cancelled, "cancelled", "the caller went away"),
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
        assert_eq!(
            (shorter.check(), shorter.left()),
            (Err(OutOfPatience::Late), Duration::ZERO)
        );
        assert!(patience.at_most(2 * hour).deadline() <= patience.deadline());
        flag.store(true, Ordering::Relaxed);
        assert_eq!(
            (patience.check(), patience.left()),
            (Err(OutOfPatience::Gone), Duration::ZERO)
        );
        assert_eq!(shorter.check(), Err(OutOfPatience::Gone), "one caller, one flag");
        assert!(Patience::lasting(Duration::ZERO).is_over());
    }

    #[test]
    fn who_names_no_end_waits_for_ever() {
        let endless = Patience::endless();
        assert_eq!((endless.check(), endless.left()), (Ok(()), Duration::MAX));
        assert_eq!(endless.deadline(), None);
        assert!(endless.at_most(Duration::from_secs(60)).deadline().is_some());
    }
}
