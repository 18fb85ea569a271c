//! Where terms stand in the sparse vectors of a segment, and roughly with which weight.
//!
//! ```text
//! header  "CSI1" | u32 rows | u32 terms | u32 zero | u64 postings | u64 lists_bytes
//! terms   terms x u32, ascending
//! bases   terms x f32: the smallest weight of the term
//! steps   terms x f32: a level l stands for base + l * step, and no weight is further from it than step / 2
//! starts  terms x u64: where the term's list begins in `lists`
//! lists   posting lists (inverted/list.rs), in the order of their terms, without gaps
//! ```
//!
//! Little-endian, nothing aligned. The bytes are a function of the rows alone, whether they were indexed at once or merged.
//! [`IndexLayout::parse`] checks everything but the lists, which are checked as they are read.

use std::collections::HashMap;

use crate::error::{Error, Result};
use crate::inverted::list::{List, ListBuilder, WINDOW};
use crate::inverted::top::Weigher;
use crate::sparse::row;
use crate::types::Ordinal;

const MAGIC: [u8; 4] = *b"CSI1";
const HEADER: usize = 32;
/// Bytes of a term before its list: number, base, step, start.
const TERM: usize = 20;

fn damaged(what: &str) -> Error {
    Error::damaged(format!("sparse index: {what}"))
}

/// What levels of a term's list stand for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scale {
    base: f32,
    step: f32,
}

impl Scale {
    fn of(least: f32, most: f32) -> Self {
        let range = f64::from(most) - f64::from(least);
        let mut step = (range / 255.0) as f32;
        // Rounding may leave the largest weight beyond the last level.
        if f64::from(step) * 255.0 < range {
            step = step.next_up();
        }
        Self { base: least, step }
    }

    fn level(self, weight: f32) -> u8 {
        if self.step == 0.0 {
            return 0;
        }
        let level = (f64::from(weight) - f64::from(self.base)) / f64::from(self.step);
        level.round().clamp(0.0, 255.0) as u8
    }

    fn weight(self, level: u8) -> f64 {
        f64::from(self.base) + f64::from(level) * f64::from(self.step)
    }
}

/// A question's weight times a list's.
#[derive(Debug, Clone, Copy)]
pub struct Linear {
    weight: f64,
    scale: Scale,
    /// Of level 0, and of each level more.
    first: f64,
    more: f64,
}

impl Linear {
    /// `weight` is the question's.
    pub fn new(weight: f64, scale: Scale) -> Self {
        Self {
            weight,
            scale,
            first: weight * f64::from(scale.base),
            more: weight * f64::from(scale.step),
        }
    }

    /// How far a product may be from the true one: half a step, and what rounding does to sums and to the final f32.
    pub fn error(&self) -> f64 {
        let largest = f64::max(self.scale.weight(0).abs(), self.scale.weight(255).abs());
        self.weight.abs() * (0.500_001 * f64::from(self.scale.step) + 1.5e-7 * largest)
    }
}

impl Weigher for Linear {
    fn bound(&self, _: u32, max: u8) -> f64 {
        // A negative weight gives most to the smallest one, which is at least that of level 0.
        if self.more < 0.0 {
            self.first
        } else {
            self.first + f64::from(max) * self.more
        }
    }

    #[inline]
    fn add(&self, _: u32, lows: &[u8], levels: &[u8], scores: &mut [f64; WINDOW]) {
        for (low, level) in lows.iter().zip(levels) {
            scores[usize::from(*low)] += self.first + f64::from(*level) * self.more;
        }
    }
}

// ---- writing ----

/// Hands every row's bytes to what it is given, ascending.
pub type EachRow<'a> = &'a dyn Fn(&mut dyn FnMut(Ordinal, &[u8]) -> Result<()>) -> Result<()>;

/// The index of a segment of `rows` rows. Reads them twice: what a term's weights range over must be known before the first
/// is written, and keeping them would take several times the memory of the index.
pub fn build(rows: u32, each: EachRow<'_>) -> Result<Vec<u8>> {
    let mut ranges: HashMap<u32, (f32, f32)> = HashMap::new();
    each(&mut |_, bytes| {
        row::each(bytes, &mut |term, weight| {
            let range = ranges.entry(term).or_insert((weight, weight));
            *range = (range.0.min(weight), range.1.max(weight));
        })
    })?;
    let mut terms: Vec<(u32, Scale)> = ranges
        .into_iter()
        .map(|(term, (least, most))| (term, Scale::of(least, most)))
        .collect();
    terms.sort_unstable_by_key(|(term, _)| *term);
    let places: HashMap<u32, usize> = terms.iter().enumerate().map(|(i, (term, _))| (*term, i)).collect();
    let mut builders: Vec<ListBuilder> = terms.iter().map(|_| ListBuilder::default()).collect();
    each(&mut |ordinal, bytes| {
        row::each(bytes, &mut |term, weight| {
            let place = places[&term];
            builders[place].push(ordinal, terms[place].1.level(weight));
        })
    })?;
    let postings: u64 = builders.iter().map(|b| u64::from(b.df())).sum();
    let (mut starts, mut lists) = (Vec::with_capacity(terms.len()), Vec::new());
    for builder in &mut builders {
        starts.push(lists.len() as u64);
        builder.finish(&mut lists);
    }
    let mut out = Vec::with_capacity(HEADER + TERM * terms.len() + lists.len());
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&rows.to_le_bytes());
    out.extend_from_slice(&(terms.len() as u32).to_le_bytes());
    out.extend_from_slice(&0u32.to_le_bytes());
    out.extend_from_slice(&postings.to_le_bytes());
    out.extend_from_slice(&(lists.len() as u64).to_le_bytes());
    terms
        .iter()
        .for_each(|(term, _)| out.extend_from_slice(&term.to_le_bytes()));
    terms
        .iter()
        .for_each(|(_, scale)| out.extend_from_slice(&scale.base.to_le_bytes()));
    terms
        .iter()
        .for_each(|(_, scale)| out.extend_from_slice(&scale.step.to_le_bytes()));
    starts
        .iter()
        .for_each(|start| out.extend_from_slice(&start.to_le_bytes()));
    out.append(&mut lists);
    Ok(out)
}

// ---- reading ----

/// What [`IndexLayout::parse`] learnt about an index's bytes; outlives them, so that a segment keeps it beside its map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexLayout {
    rows: u32,
    terms: usize,
    postings: u64,
}

impl IndexLayout {
    /// Checks header, sizes, terms, scales and starts.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let header = bytes
            .first_chunk::<HEADER>()
            .ok_or_else(|| damaged("shorter than its header"))?;
        if header[..4] != MAGIC {
            return Err(damaged("not one of format 1"));
        }
        let u32_at = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| header[at + i]));
        let u64_at = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| header[at + i]));
        let (terms, lists) = (u32_at(8) as usize, u64_at(24));
        let size = (HEADER as u64 + TERM as u64 * terms as u64).checked_add(lists);
        if u32_at(12) != 0 || size != Some(bytes.len() as u64) {
            return Err(damaged("sizes do not fit"));
        }
        let layout = Self {
            rows: u32_at(4),
            terms,
            postings: u64_at(16),
        };
        let view = layout.view(bytes);
        let ascending = |i: usize| view.term(i) < view.term(i + 1) && view.start(i) < view.start(i + 1);
        if !(1..terms).all(|i| ascending(i - 1)) {
            return Err(damaged("terms out of order"));
        }
        if terms > 0 && (view.start(0) != 0 || view.start(terms - 1) >= lists) {
            return Err(damaged("a list begins beyond the lists"));
        }
        let sane = |i: usize| {
            let scale = view.scale(i);
            scale.base.is_finite() && scale.step.is_finite() && scale.step >= 0.0
        };
        if !(0..terms).all(sane) {
            return Err(damaged("a scale that cannot be"));
        }
        Ok(layout)
    }

    /// Rows of the segment.
    pub fn rows(&self) -> u32 {
        self.rows
    }

    /// The index in the bytes that were parsed.
    pub fn view<'a>(&self, bytes: &'a [u8]) -> IndexView<'a> {
        let (columns, lists) = bytes[HEADER..].split_at(TERM * self.terms);
        IndexView {
            layout: *self,
            columns,
            lists,
        }
    }
}

/// The inverted index of one sparse vector in one segment.
#[derive(Clone, Copy)]
pub struct IndexView<'a> {
    layout: IndexLayout,
    columns: &'a [u8],
    lists: &'a [u8],
}

impl<'a> IndexView<'a> {
    /// Rows of the segment.
    pub fn rows(&self) -> u32 {
        self.layout.rows
    }
    /// Weights of all rows.
    pub fn postings(&self) -> u64 {
        self.layout.postings
    }
    /// Distinct terms.
    pub fn terms(&self) -> usize {
        self.layout.terms
    }

    /// A term's list and what its levels stand for; `None` if the term stands nowhere.
    pub fn list(&self, term: u32) -> Result<Option<(List<'a>, Scale)>> {
        let (mut from, mut to) = (0, self.layout.terms);
        while from < to {
            let middle = from + (to - from) / 2;
            match self.term(middle).cmp(&term) {
                std::cmp::Ordering::Less => from = middle + 1,
                std::cmp::Ordering::Greater => to = middle,
                std::cmp::Ordering::Equal => {
                    let bytes = &self.lists[self.start(middle) as usize..];
                    let list = List::at(bytes, self.layout.rows)?;
                    return Ok(Some((list, self.scale(middle))));
                }
            }
        }
        Ok(None)
    }

    fn word(&self, at: usize) -> [u8; 4] {
        std::array::from_fn(|i| self.columns[at + i])
    }
    fn term(&self, i: usize) -> u32 {
        u32::from_le_bytes(self.word(4 * i))
    }
    fn scale(&self, i: usize) -> Scale {
        let n = self.layout.terms;
        Scale {
            base: f32::from_le_bytes(self.word(4 * (n + i))),
            step: f32::from_le_bytes(self.word(4 * (2 * n + i))),
        }
    }
    fn start(&self, i: usize) -> u64 {
        let at = 12 * self.layout.terms + 8 * i;
        u64::from_le_bytes(std::array::from_fn(|b| self.columns[at + b]))
    }
}
