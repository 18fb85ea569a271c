//! How age makes a score smaller: by half every half-life, as far as the weight lets it.
//!
//! `score * (1 - weight + weight * 2^(-age / half_life))`. What lies in the future is of age zero; what has no readable
//! time keeps its score, because a missing date is no sign of age.

use serde_json::Value;

const DAY_MS: i64 = 86_400_000;

/// What a score is multiplied by: from `1 - weight` (infinitely old) to 1 (of now, or of the future).
pub fn factor(age_ms: i64, half_life_ms: u64, weight: f32) -> f32 {
    #[expect(
        clippy::cast_precision_loss,
        reason = "a millisecond in a million years does not matter"
    )]
    let half_lives = age_ms.max(0) as f64 / half_life_ms.max(1) as f64;
    #[expect(clippy::cast_possible_truncation, reason = "from 0 to 1")]
    let left = (-half_lives).exp2() as f32;
    1.0 - weight + weight * left
}

/// Milliseconds since the Unix epoch that a payload's value means: a number is that, a string is read as RFC 3339
/// (`2024-05-01T12:00:00Z`, `2024-05-01 12:00:00.5+02:00`, or the date alone, which is its midnight in UTC).
pub fn instant_ms(value: &Value) -> Option<i64> {
    match value {
        Value::Number(n) => n.as_i64().or_else(|| whole(n.as_f64()?)),
        Value::String(text) => rfc3339_ms(text),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "a float becomes the nearest integer there is"
)]
fn whole(ms: f64) -> Option<i64> {
    ms.is_finite().then_some(ms as i64)
}

fn rfc3339_ms(text: &str) -> Option<i64> {
    let mut rest = text;
    let year = digits(&mut rest, 4)?;
    skip(&mut rest, &['-'])?;
    let month = digits(&mut rest, 2)?;
    skip(&mut rest, &['-'])?;
    let day = digits(&mut rest, 2)?;
    if !(1..=12).contains(&month) || !(1..=days_in(year, month)).contains(&day) {
        return None;
    }
    let midnight = days_since_epoch(year, month, day) * DAY_MS;
    if rest.is_empty() {
        return Some(midnight);
    }
    skip(&mut rest, &['T', 't', ' '])?;
    let hour = digits(&mut rest, 2)?;
    skip(&mut rest, &[':'])?;
    let minute = digits(&mut rest, 2)?;
    skip(&mut rest, &[':'])?;
    let second = digits(&mut rest, 2)?;
    // A leap second is the one after it.
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let ms = fraction_ms(&mut rest)?;
    let offset = offset_minutes(rest)?;
    Some(midnight + ((hour * 60 + minute - offset) * 60 + second) * 1_000 + ms)
}

fn digits(rest: &mut &str, n: usize) -> Option<i64> {
    let (number, after) = rest.split_at_checked(n)?;
    *rest = after;
    number
        .bytes()
        .all(|b| b.is_ascii_digit())
        .then(|| number.parse().ok())?
}

fn skip(rest: &mut &str, any: &[char]) -> Option<()> {
    *rest = rest.strip_prefix(any)?;
    Some(())
}

fn fraction_ms(rest: &mut &str) -> Option<i64> {
    let Some(after) = rest.strip_prefix('.') else {
        return Some(0);
    };
    let len = after.bytes().take_while(u8::is_ascii_digit).count();
    let (fraction, after) = after.split_at(len);
    *rest = after;
    let ms: String = fraction.chars().chain("000".chars()).take(3).collect();
    if len == 0 { None } else { ms.parse().ok() }
}

fn offset_minutes(rest: &str) -> Option<i64> {
    if matches!(rest, "Z" | "z") {
        return Some(0);
    }
    let sign = match rest.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let mut rest = &rest[1..];
    let hours = digits(&mut rest, 2)?;
    skip(&mut rest, &[':'])?;
    let minutes = digits(&mut rest, 2)?;
    (rest.is_empty() && hours < 24 && minutes < 60).then_some(sign * (hours * 60 + minutes))
}

fn days_in(year: i64, month: i64) -> i64 {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 to a date of the Gregorian calendar (H. Hinnant, chrono-compatible low-level date algorithms):
/// years begin in March, so that the leap day is the last of its year.
fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_score_halves_with_every_half_life_down_to_what_the_weight_leaves() {
        let cases = [
            (0, 1.0, 1.0),
            (1_000, 1.0, 0.5),
            (2_000, 1.0, 0.25),
            (1_000, 0.4, 0.8),
            (1_000, 0.0, 1.0),
            (-5_000, 1.0, 1.0),
            (i64::MAX, 0.4, 0.6),
        ];
        for (age, weight, expected) in cases {
            assert!((factor(age, 1_000, weight) - expected).abs() < 1e-6, "{age} {weight}");
        }
    }

    #[test]
    fn times_are_read_as_people_and_programs_write_them() {
        let cases = [
            (json!(1_700_000_000_123_i64), Some(1_700_000_000_123)),
            (json!(-1.6), Some(-1)),
            (json!("1970-01-01T00:00:00Z"), Some(0)),
            (json!("1970-01-01"), Some(0)),
            (json!("1969-12-31T23:59:59.999Z"), Some(-1)),
            (json!("2024-02-29T12:00:00Z"), Some(1_709_208_000_000)),
            (json!("2024-02-29 14:00:00.25+02:00"), Some(1_709_208_000_250)),
            (json!("2024-02-29t09:30:00.1234567-02:30"), Some(1_709_208_000_123)),
            (json!("2000-03-01"), Some(951_868_800_000)),
            (json!("2016-12-31T23:59:60Z"), Some(1_483_228_800_000)),
        ];
        for (value, ms) in cases {
            assert_eq!(instant_ms(&value), ms, "{value}");
        }
        let wrong = [
            "2023-02-29",
            "2024-13-01",
            "2024-00-01",
            "2024-1-01",
            "24-01-01",
            "2024-01-01T",
            "2024-01-01T12:00:00",
            "2024-01-01T24:00:00Z",
            "2024-01-01T12:00:00.Z",
            "2024-01-01T12:00:00+0200",
            "2024-01-01T12:00Z",
            "",
            "now",
            "２０２４-01-01",
            "2024-01-01T12:00:00Zx",
        ];
        for text in wrong {
            assert_eq!(instant_ms(&json!(text)), None, "{text}");
        }
        for value in [json!(null), json!(true), json!([1]), json!({"a": 1})] {
            assert_eq!(instant_ms(&value), None);
        }
    }

    proptest! {
        #[test]
        fn older_is_never_better_and_nothing_leaves_its_bounds(
            a in any::<i64>(), b in any::<i64>(), half_life in any::<u64>(), weight in 0f32..=1.0,
        ) {
            let (young, old) = (factor(a.min(b), half_life, weight), factor(a.max(b), half_life, weight));
            prop_assert!(old <= young);
            prop_assert!((1.0 - weight - 1e-6..=1.0 + 1e-6).contains(&old));
        }

        #[test]
        fn any_string_is_survived(text in "\\PC{0,40}|[0-9TZ:+. -]{0,30}") {
            let _ = instant_ms(&json!(text));
        }

        #[test]
        fn days_follow_each_other(days in -800_000i64..800_000) {
            // Counted from a date found by stepping: the calendar's own rule.
            let (mut y, mut m, mut d) = (1970, 1, 1);
            let steps = days.rem_euclid(1_500);
            for _ in 0..steps {
                d += 1;
                if d > days_in(y, m) { d = 1; m += 1; }
                if m > 12 { m = 1; y += 1; }
            }
            prop_assert_eq!(days_since_epoch(y, m, d), steps);
        }
    }
}
