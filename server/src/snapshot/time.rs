//! Moments as people write them: RFC 3339, or milliseconds since the Unix epoch.

use cairn_engine::{Error, Result};

use super::name_of;

/// The last year that is read: four digits.
const YEAR_MAX: u64 = 9_999;

/// Such as `2026-11-26T00:38:33.123Z`.
pub fn show_time(ms: u64) -> String {
    // The name of a snapshot of this moment has all of it: 20261126-003833-123.
    let name = name_of(ms);
    let part = |from: usize, to: usize| name.get(from..to).unwrap_or_default();
    let (year, month, day) = (part(0, 4), part(4, 6), part(6, 8));
    let (hour, minute, second, ms) = (part(9, 11), part(11, 13), part(13, 15), part(16, 19));
    format!("{year}-{month}-{day}T{hour}:{minute}:{second}.{ms}Z")
}

/// Milliseconds since the Unix epoch, of a moment as RFC 3339 writes it or as a whole number of them.
pub fn parse_time(text: &str) -> Result<u64> {
    let bad = || {
        Error::invalid(
            "bad_time",
            format!(
                "{text:?} is no moment: write 2026-11-26T00:38:33Z, 2026-11-26T01:38:33.5+01:00, or milliseconds since 1970"
            ),
        )
    };
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return text.parse().map_err(|_| bad());
    }
    rfc3339(text).ok_or_else(bad)
}

fn rfc3339(text: &str) -> Option<u64> {
    let (date, rest) = (text.get(..10)?, text.get(10..)?);
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let rest = rest.strip_prefix(['T', 't', ' '])?;
    let [hour, minute, second] = numbers(rest.get(..8)?, ':', [2, 2, 2])?;
    let mut zone = rest.get(8..)?;
    let mut ms = 0;
    if let Some(fraction) = zone.strip_prefix('.') {
        let digits = fraction.bytes().take_while(u8::is_ascii_digit).count();
        if digits == 0 {
            return None;
        }
        zone = fraction.get(digits..)?;
        ms = format!("{:0<3}", fraction.get(..digits)?).get(..3)?.parse().ok()?;
    }
    let offset_minutes: i64 = match zone {
        "Z" | "z" => 0,
        _ => {
            let sign = match zone.get(..1)? {
                "+" => 1,
                "-" => -1,
                _ => return None,
            };
            let [hours, minutes] = numbers(zone.get(1..)?, ':', [2, 2])?;
            if hours > 23 || minutes > 59 {
                return None;
            }
            sign * i64::try_from(hours * 60 + minutes).ok()?
        }
    };
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let in_month = match month {
        4 | 6 | 9 | 11 => 30,
        2 if is_leap => 29,
        2 => 28,
        1..=12 => 31,
        _ => return None,
    };
    if !(1970..=YEAR_MAX).contains(&year) || !(1..=in_month).contains(&day) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    // Days from 1 March of year 0 of the Gregorian calendar.
    let (y, m) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1;
    let minutes = i64::try_from((days - 719_468) * 1_440 + hour * 60 + minute).ok()? - offset_minutes;
    u64::try_from(minutes)
        .ok()
        .map(|minutes| (minutes * 60 + second) * 1_000 + ms)
}

/// Numbers of exactly so many digits, with `between` between them and nothing else.
fn numbers<const N: usize>(text: &str, between: char, digits: [usize; N]) -> Option<[u64; N]> {
    let mut parts = text.split(between);
    let mut numbers = [0; N];
    for (number, digits) in numbers.iter_mut().zip(digits) {
        let part = parts.next().filter(|part| part.len() == digits)?;
        *number = part.bytes().all(|b| b.is_ascii_digit()).then(|| part.parse().ok())??;
    }
    parts.next().is_none().then_some(numbers)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn moments_are_read_as_people_write_them() {
        for (text, ms) in [
            ("0", 0),
            ("1795653513123", 1_795_653_513_123),
            ("1970-01-01T00:00:00Z", 0),
            ("2026-11-26T00:38:33.123Z", 1_795_653_513_123),
            ("2026-11-26 00:38:33.1234567z", 1_795_653_513_123),
            ("2026-11-26T01:38:33.123+01:00", 1_795_653_513_123),
            ("2026-11-25T19:08:33.123-05:30", 1_795_653_513_123),
            ("2000-02-29T00:00:00.5Z", 951_782_400_500),
        ] {
            assert_eq!(parse_time(text).ok(), Some(ms), "{text}");
        }
        assert_eq!(show_time(1_795_653_513_123), "2026-11-26T00:38:33.123Z");
    }

    #[test]
    fn what_is_no_moment_is_refused() {
        for text in [
            "",
            "now",
            "2026-11-26",
            "2026-11-26T00:38:33",
            "2026-13-26T00:38:33Z",
            "2026-02-29T00:00:00Z",
            "2026-11-26T24:00:00Z",
            "2026-11-26T00:38:33.Z",
            "2026-11-26T00:38:33+1:00",
            "2026-11-26T00:38:33+24:00",
            "1969-12-31T23:59:59Z",
            "1970-01-01T00:00:00+00:01",
            "99999999999999999999999",
            "+2026-11-26T0:38:33Z",
        ] {
            assert_eq!(parse_time(text).map_err(|e| e.code), Err("bad_time"), "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_moment_is_read_back(ms in 0..253_402_300_800_000u64) {
            prop_assert_eq!(parse_time(&show_time(ms)).unwrap(), ms);
        }

        #[test]
        fn no_text_panics(text in ".{0,40}") {
            let _ = parse_time(&text);
        }
    }
}
