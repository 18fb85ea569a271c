//! Numbers of one path: one order for integers and floats, and the column that is searched by it.
//!
//! Integers and floats compare by value, exactly: 1 is 1.0, and 2^53 + 1 is not 2^53 although `f64` cannot tell. A number
//! is therefore a pair: the nearest `f64`, and what an integer lost by it (at most 512 either way, since `i64` ends at
//! 2^63 where neighbouring doubles are 1,024 apart). Rounding keeps the order, so pairs compare as the numbers do; equal
//! numbers are equal pairs.
//!
//! ```text
//! column = majors    distinct x u64 LE    the nearest f64, its bits mapped so that they sort as unsigned
//!          minors    distinct x i16 LE    what was lost; absent unless `wide`, that is unless one of them is not 0
//!          starts    distinct x u32 LE    where in `ordinals` the number's rows begin; absent if each has one row
//!          ordinals  pairs x u32 LE       rows by number; ascending within a number
//! ```
//!
//! Arrays of plain integers, unaligned: a lookup touches a few of them, a range reads one run of `ordinals`.

use super::bytes::{Reader, damaged, put_varint};
use super::posting::Posting;
use crate::error::Result;
use crate::filter::Range;
use crate::filter::extract::Value;
use crate::types::Ordinal;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::filter) struct Number {
    major: u64,
    minor: i16,
}

impl Number {
    pub(super) fn from_int(i: i64) -> Self {
        let nearest = i as f64;
        let minor = i128::from(i) - nearest as i128;
        Self {
            major: sortable(nearest),
            minor: i16::try_from(minor).expect("at most 512 are lost below 2^63"),
        }
    }

    /// None for NaN, which equals nothing and has no place in an order.
    pub(super) fn from_float(f: f64) -> Option<Self> {
        // Adding 0.0 turns -0.0 into 0.0.
        (!f.is_nan()).then(|| Self {
            major: sortable(f + 0.0),
            minor: 0,
        })
    }

    /// The number as the narrowest kind that holds it: an integer if it is one.
    pub(super) fn value(self) -> Value<'static> {
        let nearest = unsortable(self.major);
        if nearest.fract() == 0.0
            && let Ok(i) = i64::try_from((nearest as i128).saturating_add(self.minor.into()))
        {
            return Value::Int(i);
        }
        Value::Float(nearest)
    }
}

/// Bits that sort as unsigned integers the way the floats do: positive ones above negative ones, negative ones reversed.
fn sortable(f: f64) -> u64 {
    let bits = f.to_bits();
    if bits >> 63 == 0 { bits | 1 << 63 } else { !bits }
}

fn unsortable(bits: u64) -> f64 {
    f64::from_bits(if bits >> 63 == 1 { bits & !(1 << 63) } else { !bits })
}

/// Writes pairs in ascending order, each once: the column to `section`, how to find it to `cell`.
pub(super) fn write(pairs: &[(Number, Ordinal)], section: &mut Vec<u8>, cell: &mut Vec<u8>) {
    debug_assert!(pairs.is_sorted_by(|a, b| a < b));
    let groups = || pairs.chunk_by(|a, b| a.0 == b.0);
    let distinct = groups().count();
    let wide = pairs.iter().any(|(number, _)| number.minor != 0);
    put_varint(distinct as u64, cell);
    put_varint(pairs.len() as u64, cell);
    put_varint(u64::from(wide), cell);
    put_varint(section.len() as u64, cell);

    section.extend(groups().flat_map(|group| group[0].0.major.to_le_bytes()));
    if wide {
        section.extend(groups().flat_map(|group| group[0].0.minor.to_le_bytes()));
    }
    if distinct < pairs.len() {
        let mut start = 0;
        for group in groups() {
            let narrow = u32::try_from(start).expect("a segment holds fewer than 2^32 numbers of one path");
            section.extend_from_slice(&narrow.to_le_bytes());
            start += group.len();
        }
    }
    section.extend(pairs.iter().flat_map(|(_, ordinal)| ordinal.to_le_bytes()));
}

#[derive(Clone, Copy)]
pub(super) struct Numbers<'a> {
    rows: u32,
    majors: &'a [[u8; 8]],
    minors: Option<&'a [[u8; 2]]>,
    starts: Option<&'a [[u8; 4]]>,
    ordinals: &'a [[u8; 4]],
}

impl<'a> Numbers<'a> {
    pub(super) fn read(reader: &mut Reader<'a>, section: &'a [u8], rows: u32) -> Result<Self> {
        let (distinct, pairs, wide, at) = (reader.size()?, reader.size()?, reader.varint()?, reader.size()?);
        if distinct > pairs || wide > 1 {
            return Err(damaged("a numeric column contradicts itself"));
        }
        let mut column = Reader::new(section.get(at..).ok_or_else(|| damaged("an offset points outside"))?);
        Ok(Self {
            rows,
            majors: column.array(distinct)?,
            minors: if wide == 1 { Some(column.array(distinct)?) } else { None },
            starts: if distinct < pairs {
                Some(column.array(distinct)?)
            } else {
                None
            },
            ordinals: column.array(pairs)?,
        })
    }

    pub(super) fn equal(&self, number: Number) -> Result<Posting<'a>> {
        let i = self.first(|other| other >= number);
        if i == self.majors.len() || self.number(i) != number {
            return Ok(Posting::empty(self.rows));
        }
        Ok(Posting::ascending(self.between(i, i + 1)?, self.rows))
    }

    pub(super) fn range(&self, range: &Range) -> Result<Posting<'a>> {
        let mut bounds = (0, self.majors.len());
        let parts = [
            (range.gt, true, false),
            (range.gte, true, true),
            (range.lt, false, true),
            (range.lte, false, false),
        ];
        for (bound, lower, from_equal) in parts {
            let Some(bound) = bound else { continue };
            let Some(bound) = Number::from_float(bound) else {
                return Ok(Posting::empty(self.rows));
            };
            let i = self.first(|number| if from_equal { number >= bound } else { number > bound });
            bounds = if lower {
                (bounds.0.max(i), bounds.1)
            } else {
                (bounds.0, bounds.1.min(i))
            };
        }
        if bounds.0 >= bounds.1 {
            return Ok(Posting::empty(self.rows));
        }
        Ok(Posting::mixed(self.between(bounds.0, bounds.1)?, self.rows))
    }

    /// Each distinct number with its rows, ascending.
    pub(super) fn iter(&self) -> impl Iterator<Item = Result<(Number, Posting<'a>)>> {
        (0..self.majors.len()).map(|i| Ok((self.number(i), Posting::ascending(self.between(i, i + 1)?, self.rows))))
    }

    /// The index of the first number for which `reached` holds; it must hold for all that follow.
    fn first(&self, reached: impl Fn(Number) -> bool) -> usize {
        let (mut low, mut high) = (0, self.majors.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if reached(self.number(middle)) {
                high = middle
            } else {
                low = middle + 1
            }
        }
        low
    }

    fn number(&self, i: usize) -> Number {
        let minor = self.minors.map_or(0, |minors| i16::from_le_bytes(minors[i]));
        Number {
            major: u64::from_le_bytes(self.majors[i]),
            minor,
        }
    }

    /// Rows of the numbers from index `from` up to `to`.
    fn between(&self, from: usize, to: usize) -> Result<&'a [[u8; 4]]> {
        let start = |i: usize| match self.starts {
            None => i,
            Some(starts) if i < starts.len() => u32::from_le_bytes(starts[i]) as usize,
            Some(_) => self.ordinals.len(),
        };
        self.ordinals
            .get(start(from)..start(to))
            .ok_or_else(|| damaged("a numeric column contradicts itself"))
    }
}
