//! How long to wait before a request is sent again. Pure: the caller brings the clock and the dice.

use std::time::{Duration, SystemTime};

/// Bound of the first wait; it doubles with each attempt.
pub(super) const FIRST_WAIT: Duration = Duration::from_millis(200);
/// Bound of any wait that the service did not ask for: a model that is being loaded takes about as long.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(10);

/// The longest `Retry-After` that is believed: everybody is kept from a service as long as it asks for, and one wrong header
/// must not do that for a year.
pub(super) const RETRY_AFTER_MAX: Duration = Duration::from_secs(3_600);

/// The wait before repetition `n` (from 1), with *full jitter*: `dice`, uniform in 0..1, of an exponential bound
/// (Brooker, "Exponential Backoff and Jitter", AWS 2015), because those who were refused together would otherwise come
/// back together. What the service asked for comes on top: nobody comes back before it.
pub(super) fn wait(n: u32, asked: Option<Duration>, dice: f64) -> Duration {
    let doubled = FIRST_WAIT.saturating_mul(1_u32.checked_shl(n.saturating_sub(1)).unwrap_or(u32::MAX));
    let jitter = doubled.min(WAIT_MAX).mul_f64(dice.clamp(0.0, 1.0));
    asked.unwrap_or_default().saturating_add(jitter)
}

/// `Retry-After`: seconds, or a date of HTTP, up to [`RETRY_AFTER_MAX`]. Anything else says nothing.
pub(super) fn retry_after(header: &str, now: SystemTime) -> Option<Duration> {
    asked(header.trim(), now).map(|asked| asked.min(RETRY_AFTER_MAX))
}

fn asked(header: &str, now: SystemTime) -> Option<Duration> {
    if let Ok(seconds) = header.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    // Some services send fractions, which the standard does not know.
    if let Ok(seconds) = header.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let at = httpdate::parse_http_date(header).ok()?;
    Some(at.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_bound_and_never_undercut_what_was_asked() {
        let ms = |n, dice| wait(n, None, dice).as_millis();
        assert_eq!([ms(1, 1.0), ms(2, 1.0), ms(3, 1.0)], [200, 400, 800]);
        assert_eq!([ms(1, 0.0), ms(9, 0.0)], [0, 0]);
        assert_eq!(wait(60, None, 1.0), WAIT_MAX);
        assert_eq!(wait(u32::MAX, None, 1.0), WAIT_MAX);
        let asked = Duration::from_secs(7);
        for dice in [0.0, 0.3, 1.0] {
            assert!(wait(1, Some(asked), dice) >= asked);
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = httpdate::parse_http_date("Wed, 25 Nov 2026 10:00:00 GMT").unwrap();
        let cases = [
            ("3", Some(3_000)),
            (" 0 ", Some(0)),
            ("1.5", Some(1_500)),
            ("Wed, 25 Nov 2026 10:00:20 GMT", Some(20_000)),
            // A date that has passed: at once.
            ("Wed, 25 Nov 2026 09:00:00 GMT", Some(0)),
            // What would overflow a clock, or keep everybody away for a year, is cut.
            ("18446744073709551615", Some(3_600_000)),
            ("1e300", None),
            ("31536000", Some(3_600_000)),
            ("Wed, 25 Nov 2099 10:00:00 GMT", Some(3_600_000)),
            ("-1", None),
            ("soon", None),
            ("", None),
            ("NaN", None),
        ];
        for (header, expected) in cases {
            let got = retry_after(header, now).map(|d| d.as_millis());
            assert_eq!(got, expected, "{header:?}");
        }
    }
}
