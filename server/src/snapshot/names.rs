//! What a snapshot is called, and where its manifest stands.
//!
//! A name may be given again once its snapshot is deleted; a key never is. A manifest stands under `snapshots/<name>@<digits>`,
//! the digits drawn at random for each. So a request to delete it that arrives late, or a second time because its first answer
//! was lost, removes that snapshot and no other, however late it is. The price: who asks for a name lists the names.
//!
//! Two servers may make snapshots of one name at the same time. Each looks for the other after it has written its manifest, as
//! stores list what was written, and whoever sees another takes its own away: never are both acknowledged. If one of them dies
//! before that, both stay; then the name means the one that was there first.

use std::fmt;

use cairn_engine::schema::check_name;
use cairn_engine::{Error, ErrorKind, Result};

/// Hexadecimal digits of a number of 64 bits.
const DIGITS: usize = 16;
/// No name has it.
const BETWEEN: char = '@';

/// Where a manifest stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    /// Name of the snapshot.
    pub(crate) name: String,
    /// None: it was written by a build that took the name for the key.
    digits: Option<String>,
}

impl Key {
    /// One that nothing has had, for a name that is one.
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            digits: Some(format!("{:016x}", rand::random::<u64>())),
        }
    }

    /// From the last part of an object's name; none if it is not one of ours.
    pub(super) fn parse(file: &str) -> Option<Self> {
        let (name, digits) = match file.split_once(BETWEEN) {
            Some((name, digits)) => (name, Some(digits.to_owned())),
            None => (file, None),
        };
        let is_digit = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
        let are_digits = |digits: &String| digits.len() == DIGITS && digits.bytes().all(is_digit);
        (check_snapshot(name).is_ok() && digits.as_ref().is_none_or(are_digits)).then(|| Self {
            name: name.to_owned(),
            digits,
        })
    }

    /// The object's name.
    pub(super) fn object(&self) -> String {
        format!("snapshots/{self}")
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.digits {
            Some(digits) => write!(f, "{}{BETWEEN}{digits}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// A name for a snapshot of this moment, such as `20261126-003833-123` (UTC): sorts by time.
pub(crate) fn name_of(taken_at_ms: u64) -> String {
    let (days, ms) = (taken_at_ms / 86_400_000, taken_at_ms % 86_400_000);
    // Days to a date of the Gregorian calendar, counted in eras of 400 years that begin in March.
    let z = days + 719_468;
    let (era, day) = (z / 146_097, z % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let march = (5 * day_of_year + 2) / 153;
    let (month, day) = (
        if march < 10 { march + 3 } else { march - 9 },
        day_of_year - (153 * march + 2) / 5 + 1,
    );
    let year = year + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1_000 % 60);
    format!(
        "{year:04}{month:02}{day:02}-{hour:02}{minute:02}{second:02}-{:03}",
        ms % 1_000
    )
}

/// Refuses what is no name of a snapshot, before any key is made of it.
pub(super) fn check_snapshot(name: &str) -> Result<()> {
    check_name("snapshot", name).map_err(|e| e.at("/snapshot"))
}

pub(crate) fn already_there(name: &str) -> Error {
    Error::new(
        ErrorKind::Conflict,
        "snapshot_exists",
        format!("there is a snapshot {name:?} already, or one is being made: choose another name, or none"),
    )
}

pub(crate) fn not_found(name: &str) -> Error {
    Error::not_found("snapshot_not_found", format!("there is no snapshot {name:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_moments_sort_by_time_and_are_names() {
        assert_eq!(name_of(1_795_653_513_123), "20261126-003833-123");
        assert_eq!(name_of(0), "19700101-000000-000");
        assert_eq!(name_of(951_782_400_000), "20000229-000000-000");
        let names: Vec<String> = (0..2_000).map(|n| name_of(n * 86_400_000 * 29 + n)).collect();
        assert!(names.is_sorted());
        names.iter().for_each(|name| check_snapshot(name).unwrap());
    }

    #[test]
    fn a_key_is_read_back_and_no_two_are_the_same() {
        let (one, two) = (Key::new("a.b-c"), Key::new("a.b-c"));
        assert_ne!(one, two);
        assert_eq!(Key::parse(&one.to_string()), Some(one.clone()));
        assert_eq!(one.object(), format!("snapshots/{one}"));
        let earlier = Key::parse("a.b-c").unwrap();
        assert_eq!(
            (earlier.name.as_str(), earlier.object().as_str()),
            ("a.b-c", "snapshots/a.b-c")
        );
        for other in [
            "",
            "@",
            "A",
            "a@",
            "a@1",
            "a@0123456789abcdeF",
            "a@0123456789abcdef0",
            "a@0123456789abcdef@",
        ] {
            assert_eq!(Key::parse(other), None, "{other:?}");
        }
        assert!(Key::parse("a@0123456789abcdef").is_some());
    }
}
