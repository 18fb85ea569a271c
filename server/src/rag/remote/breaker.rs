//! The circuit breaker of one service: after some failures in a row, nobody waits for it for a while.
//!
//! Closed, every request passes. After [`OPENS_AFTER`] failures in a row it is open: requests are refused at once, with
//! the time of the next attempt. When that time has come, one request passes (half-open): if it succeeds the breaker
//! closes, if not it is open for twice as long, up to [`OPEN_MAX`]. What the caller had no patience for says nothing
//! about the service and changes nothing, unless the service had the request for [`LATE_MIN`]: callers that always wait for
//! less than its timeout would otherwise wait in vain for ever, each for all of its time. Pure: time comes in as an argument.

use std::time::{Duration, Instant};

/// Failures in a row that open it: more than one request's retries by default, so that it takes two requests.
pub(super) const OPENS_AFTER: u32 = 5;
/// How long it is open the first time.
pub(super) const OPEN_FIRST: Duration = Duration::from_secs(2);
/// The longest that it is open.
pub(super) const OPEN_MAX: Duration = Duration::from_secs(60);

/// How long a service must have had a request that its caller gave up for lack of time, so that it counts as a failure. Half
/// of what a ranking waits for a reranker by default, and many times what a healthy one takes for a question.
pub(super) const LATE_MIN: Duration = Duration::from_millis(500);

/// The state of one service.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    /// Failures since the last success.
    failures: u32,
    /// Open until then; after it, one request may try.
    open: Option<Open>,
    /// The service asked everybody to come back later (`Retry-After`).
    held_until: Option<Instant>,
    /// When it last answered, or was last found to be late.
    heard: Option<Instant>,
}

#[derive(Debug)]
struct Open {
    until: Instant,
    time: Duration,
    last: String,
    /// A request is trying right now.
    trying: bool,
}

/// Leave to send one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pass {
    /// The service works as far as we know.
    Normal,
    /// This request finds out.
    Probe,
}

/// Why a request may not be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    /// When it may.
    pub(super) after: Duration,
    /// Failures in a row.
    pub(super) failures: u32,
    /// The last of them.
    pub(super) last: String,
}

impl Breaker {
    /// Whether a request may be sent now.
    pub(super) fn admit(&mut self, now: Instant) -> Result<Pass, Refused> {
        let Some(open) = &mut self.open else {
            return Ok(Pass::Normal);
        };
        if now >= open.until && !open.trying {
            open.trying = true;
            return Ok(Pass::Probe);
        }
        // While another request tries, the answer is near but not known.
        let after = open
            .until
            .saturating_duration_since(now)
            .max(Duration::from_millis(100));
        Err(Refused {
            after,
            failures: self.failures,
            last: open.last.clone(),
        })
    }

    /// The service answered, be it with a refusal.
    pub(super) fn succeeded(&mut self, now: Instant) {
        self.heard = Some(now);
        self.failures = 0;
        self.open = None;
    }

    /// The service did not answer, or said that it cannot.
    pub(super) fn failed(&mut self, pass: Pass, why: &str, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        let time = match (&self.open, pass) {
            (Some(open), Pass::Probe) => (open.time * 2).min(OPEN_MAX),
            // A straggler that was sent before it opened.
            (Some(_), Pass::Normal) => return,
            (None, _) if self.failures >= OPENS_AFTER => OPEN_FIRST,
            (None, _) => return,
        };
        self.open = Some(Open {
            until: now + time,
            time,
            last: why.to_owned(),
            trying: false,
        });
    }

    /// The caller's time ended while the service had the request, which it got at `sent`. True if that counts as a failure: not
    /// if it answered another one meanwhile, and requests that were late side by side (the batches of one text, say) are one.
    pub(super) fn late(&mut self, pass: Pass, why: &str, sent: Instant, now: Instant) -> bool {
        let counts = now.saturating_duration_since(sent) >= LATE_MIN && self.heard.is_none_or(|heard| heard < sent);
        if counts {
            self.heard = Some(now);
            self.failed(pass, why, now);
        } else {
            self.abandoned(pass);
        }
        counts
    }

    /// The request ended without telling anything about the service.
    pub(super) fn abandoned(&mut self, pass: Pass) {
        if let (Some(open), Pass::Probe) = (&mut self.open, pass) {
            open.trying = false;
        }
    }

    /// The service asked to be left alone until then.
    pub(super) fn hold(&mut self, until: Instant) {
        self.held_until = Some(self.held_until.map_or(until, |held| held.max(until)));
    }

    /// How long it asked to be left alone.
    pub(super) fn held(&self, now: Instant) -> Duration {
        self.held_until
            .map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }

    /// Whether requests are being refused.
    pub(super) fn is_open(&self) -> bool {
        self.open.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn opened(now: Instant) -> Breaker {
        let mut breaker = Breaker::default();
        for n in 0..OPENS_AFTER {
            assert!(!breaker.is_open(), "after {n} failures");
            let pass = breaker.admit(now).unwrap();
            breaker.failed(pass, "connection refused", now);
        }
        breaker
    }

    #[test]
    fn failures_in_a_row_open_it_and_a_success_starts_the_count_anew() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        for _ in 0..3 {
            for _ in 1..OPENS_AFTER {
                breaker.failed(Pass::Normal, "500", now);
            }
            breaker.succeeded(now);
        }
        assert_eq!(breaker.admit(now), Ok(Pass::Normal));
        let refused = opened(now).admit(now).unwrap_err();
        assert_eq!((refused.after, refused.failures), (OPEN_FIRST, OPENS_AFTER));
        assert_eq!(refused.last, "connection refused");
    }

    #[test]
    fn one_request_tries_when_its_time_has_come_and_closes_or_doubles_it() {
        let start = Instant::now();
        let mut breaker = opened(start);
        let later = start + OPEN_FIRST;
        assert_eq!(breaker.admit(later), Ok(Pass::Probe));
        assert!(breaker.admit(later).is_err(), "only one tries");
        breaker.failed(Pass::Probe, "still down", later);
        let refused = breaker.admit(later).unwrap_err();
        assert_eq!((refused.after, refused.last.as_str()), (2 * OPEN_FIRST, "still down"));
        let again = later + 2 * OPEN_FIRST;
        assert_eq!(breaker.admit(again), Ok(Pass::Probe));
        breaker.succeeded(again);
        assert_eq!(breaker.admit(again), Ok(Pass::Normal));
    }

    #[test]
    fn it_is_never_open_for_longer_than_its_bound() {
        let mut now = Instant::now();
        let mut breaker = opened(now);
        for _ in 0..20 {
            now += breaker.admit(now).unwrap_err().after;
            assert_eq!(breaker.admit(now), Ok(Pass::Probe));
            breaker.failed(Pass::Probe, "down", now);
            assert!(breaker.admit(now).unwrap_err().after <= OPEN_MAX);
        }
    }

    #[test]
    fn a_try_that_was_given_up_leaves_the_place_to_another() {
        let start = Instant::now();
        let mut breaker = opened(start);
        let later = start + OPEN_FIRST;
        assert_eq!(breaker.admit(later), Ok(Pass::Probe));
        breaker.abandoned(Pass::Probe);
        assert_eq!(breaker.admit(later), Ok(Pass::Probe));
        // Stragglers of the time before do not prolong it.
        breaker.failed(Pass::Normal, "late", later);
        breaker.succeeded(later);
        assert!(!breaker.is_open());
    }

    #[test]
    fn a_service_that_is_always_late_opens_it_whatever_its_callers_wait_for() {
        let mut now = Instant::now();
        let mut breaker = Breaker::default();
        for _ in 0..OPENS_AFTER {
            assert!(!breaker.is_open());
            let sent = now;
            now += S;
            assert!(breaker.late(Pass::Normal, "late", sent, now));
            // Sent side by side: the same news.
            assert!(!breaker.late(Pass::Normal, "late", sent, now));
            now += S;
        }
        assert!(breaker.is_open());
        // The probe is late as well, and then gives the place back where it was not long enough.
        now += OPEN_FIRST;
        let probe = breaker.admit(now).unwrap();
        assert!(breaker.late(probe, "late", now, now + S));
        now += S + 2 * OPEN_FIRST;
        let probe = breaker.admit(now).unwrap();
        assert!(!breaker.late(probe, "late", now, now + LATE_MIN / 2));
        assert_eq!(breaker.admit(now + LATE_MIN), Ok(Pass::Probe));
    }

    #[test]
    fn who_answers_others_or_is_hardly_waited_for_is_not_late() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        for _ in 0..2 * OPENS_AFTER {
            assert!(!breaker.late(Pass::Normal, "late", now, now + LATE_MIN / 2));
            breaker.succeeded(now + S);
            assert!(!breaker.late(Pass::Normal, "late", now, now + 2 * S));
        }
        assert!(!breaker.is_open());
    }

    #[test]
    fn the_longest_wish_to_be_left_alone_holds() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        assert_eq!(breaker.held(now), Duration::ZERO);
        breaker.hold(now + 3 * S);
        breaker.hold(now + S);
        assert_eq!(breaker.held(now), 3 * S);
        assert_eq!(breaker.held(now + 4 * S), Duration::ZERO);
    }
}
