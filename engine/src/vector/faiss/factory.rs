//! What is understood of a factory string before Faiss sees it: what is taken off, and what is too large to try.
//!
//! To see whether Faiss knows a string an empty index is made of it, and the numbers in it say how much memory that takes. So they are
//! bounded here, by what they mean.

use crate::error::{Error, Result};
use crate::limits;

/// Lists (`IVF..`): a million is what the library's own advice ends with.
const LISTS_MAX: u64 = 1 << 20;
/// The same of several quantizers that name lists together (`IMI2x10`), as bits.
const LISTS_BITS_MAX: u64 = 20;
/// Bits of a code (`x8`): tables have two to the power of it.
const BITS_MAX: u64 = 12;
/// Bytes of what one number makes.
const TABLE_BYTES_MAX: u64 = 1 << 30;
/// Codes of an additive quantizer, rows of a matrix, links of a node.
const NUMBER_MAX: u64 = limits::DIM_MAX as u64;

/// The string of the index that is built: without a second look at the end of it, which this engine has by itself.
pub fn searched(factory: &str) -> &str {
    if let Some(rest) = factory.strip_suffix(",RFlat") {
        return searched(rest);
    }
    match factory.rfind(",Refine(") {
        Some(at) if factory.ends_with(')') && is_one_pair(&factory[at + ",Refine".len()..]) => searched(&factory[..at]),
        _ => factory,
    }
}

/// Whether the first parenthesis is closed by the last.
fn is_one_pair(text: &str) -> bool {
    let mut depth = 0;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'(' => depth += 1,
            b')' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + 1 == text.len();
        }
    }
    false
}

/// Refuses what cannot be an index here, and what would take too much to try.
pub fn check(factory: &str, dim: usize) -> Result<()> {
    let refuse = |what: String| Err(Error::invalid("bad_index", format!("faiss: {what}, got {factory:?}")));
    if factory.contains("IDMap") {
        return refuse("an index of a segment has no ids of its own, so no IDMap".to_owned());
    }
    for number in Numbers::of(factory) {
        let Number { name, value, kind } = number;
        match kind {
            Kind::Count if name.ends_with("IVF") => {
                if value > LISTS_MAX {
                    return refuse(format!("at most IVF{LISTS_MAX}"));
                }
            }
            Kind::Count => {
                // A matrix, or a table of so many rows of a vector's length, if anything.
                if value > NUMBER_MAX || value * dim as u64 * 4 > TABLE_BYTES_MAX {
                    return refuse(format!("{value} is too much for vectors of {dim} dimensions"));
                }
            }
            Kind::Bits { count } => {
                let tables = if name.ends_with("PQ") { 1 } else { count.max(1) };
                if value > BITS_MAX {
                    return refuse(format!("at most {BITS_MAX} bits of a code (x{BITS_MAX})"));
                }
                if (tables * dim as u64 * 4) << value > TABLE_BYTES_MAX {
                    return refuse(format!(
                        "tables of {count}x{value} are too large for vectors of {dim} dimensions"
                    ));
                }
            }
        }
    }
    for name in ["IMI", "RCQ", "LSCQ"] {
        let bits: u64 = (Numbers::of(factory).filter(|number| number.name == name))
            .map(|number| match number.kind {
                Kind::Bits { count } => count * number.value,
                Kind::Count => 0,
            })
            .sum();
        if bits > LISTS_BITS_MAX {
            return refuse(format!("at most 2^{LISTS_BITS_MAX} lists"));
        }
    }
    Ok(())
}

/// A number of a factory string, and what it is one of.
#[derive(Debug, PartialEq)]
struct Number<'a> {
    /// The letters that began what it belongs to.
    name: &'a str,
    value: u64,
    kind: Kind,
}

#[derive(Debug, PartialEq)]
enum Kind {
    Count,
    /// After an `x`; so many of them.
    Bits {
        count: u64,
    },
}

/// The numbers in order.
struct Numbers<'a> {
    text: &'a str,
    at: usize,
    name: &'a str,
    count: u64,
}

impl<'a> Numbers<'a> {
    fn of(text: &'a str) -> Self {
        Self {
            text,
            at: 0,
            name: "",
            count: 0,
        }
    }
}

impl<'a> Iterator for Numbers<'a> {
    type Item = Number<'a>;

    fn next(&mut self) -> Option<Number<'a>> {
        let bytes = self.text.as_bytes();
        while self.at < bytes.len() && !bytes[self.at].is_ascii_digit() {
            let from = self.at;
            while self.at < bytes.len() && bytes[self.at].is_ascii_alphabetic() {
                self.at += 1;
            }
            if self.at == from {
                self.at += 1;
                continue;
            }
            let letters = &self.text[from..self.at];
            if letters != "x" {
                (self.name, self.count) = (letters, 0);
            }
        }
        let from = self.at;
        while self.at < bytes.len() && bytes[self.at].is_ascii_digit() {
            self.at += 1;
        }
        // More digits than any number that is allowed are the largest one.
        let value = match &self.text[from..self.at] {
            "" => return None,
            digits => digits.parse().unwrap_or(u64::MAX).min(u64::from(u32::MAX)),
        };
        let after_x = from > 0 && bytes[from - 1] == b'x';
        let kind = match after_x {
            true => Kind::Bits { count: self.count },
            false => Kind::Count,
        };
        self.count = value;
        Some(Number {
            name: self.name,
            value,
            kind,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_look_at_the_end_is_taken_off_and_nothing_else() {
        for (factory, expected) in [
            ("IVF1024,PQ48x4fs,RFlat", "IVF1024,PQ48x4fs"),
            ("HNSW32,SQ8,Refine(SQfp16)", "HNSW32,SQ8"),
            ("PQ8,Refine(IVF4(Flat),PQ4),RFlat", "PQ8"),
            ("IVF64(HNSW16,RFlat),Flat", "IVF64(HNSW16,RFlat),Flat"),
            ("PQ8,Refine(SQ8),IVF(Flat)", "PQ8,Refine(SQ8),IVF(Flat)"),
            ("PQ8,Refine(SQ8", "PQ8,Refine(SQ8"),
            ("Flat", "Flat"),
            ("RFlat", "RFlat"),
            ("", ""),
        ] {
            assert_eq!(searched(factory), expected, "{factory}");
        }
    }

    #[test]
    fn what_is_large_by_what_it_means_is_refused() {
        for factory in [
            "Flat",
            "IVF1024,PQ48x4fs,RFlat",
            "IVF65536_HNSW32,PQ64",
            "IVF1048576,SQ8",
            "OPQ16_64,IVF256,PQ16x8",
            "IMI2x8,PQ16",
            "IVF256(RCQ2x8),SQ4",
            "HNSW32_SQ8",
            "PQ768x8",
            "RQ8x8_Nqint8",
            "LSH512",
        ] {
            assert_eq!(check(factory, 1536), Ok(()), "{factory}");
        }
        for factory in [
            "IDMap,Flat",
            "IVF16,Flat,IDMap2",
            "IVF1048577,Flat",
            "IVF99999999999999999999,Flat",
            "IMI2x16,Flat",
            "IMI4x8,Flat",
            "IVF256(RCQ2x8_2x8),SQ4",
            "PQ8x24",
            "RQ65535x12",
            "Pad70000,Flat",
            "HNSW4000000000",
        ] {
            let refused = check(factory, 1536).unwrap_err();
            assert_eq!(refused.code, "bad_index", "{factory}");
        }
        assert!(check("LSH65535", 65_535).is_err());
    }

    #[test]
    fn any_text_is_survived() {
        for text in [
            "x",
            "x8",
            "8x",
            "IVF",
            "IVFx",
            "1x2x3x4",
            "((((",
            ",,,",
            "PQ8x",
            "IVF16,,PQ",
            "~}|",
        ] {
            let _ = (check(text, 8), searched(text));
        }
    }
}
