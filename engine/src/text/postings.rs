//! Where terms stand: the inverted index of one text field in one segment, as bytes that are searched in place.
//!
//! ```text
//! header     magic "CTI2" | u32 rows | u32 docs | u32 zero | u64 total_len | u64 dictionary_bytes | u64 postings_bytes
//! lengths    rows x u32: terms of each row, repetitions included; 0xFFFF_FFFF: the row lacks the field
//! shortest   for each window of 256 rows a u32: the fewest terms of a row that has the field; 0xFFFF_FFFF: no row has it
//! dictionary dictionary_bytes: an fst map (crate `fst`, version 3, with its checksum) of each term, as UTF-8, to the
//!            offset of its list in `postings`
//! postings   for each term, in their order, without gaps:
//!              a posting list (inverted/list.rs): rows, each with the times the term stands there (tf), 255 at most
//!              for each row with 255: varint tf - 255
//! ```
//!
//! Fixed-size numbers are little-endian. Nothing is aligned. The same rows give the same bytes, whether indexed at once or merged from parts: a test says so.
//!
//! Damage: [`TextIndexLayout::parse`] checks everything but the postings, which are checked as they are read, so that
//! opening a segment doesn't read all of it. Any bytes give an answer or [`Error::damaged`]. Not guaranteed: that changed
//! bytes are noticed in postings (the segment file's block checksums are for that), and good behaviour on a dictionary
//! *forged* together with its checksum, since `fst` trusts a dictionary whose checksum is right.

use std::cell::OnceCell;
use std::collections::HashMap;

use fst::Streamer;

use crate::error::{Error, Result};
use crate::inverted::list::{Blocks, List, ListBuilder, WINDOW};
use crate::inverted::varint;
use crate::types::Ordinal;

const MAGIC: [u8; 4] = *b"CTI2";
const HEADER_BYTES: usize = 40;
/// The length of a row that lacks the field, and the new ordinal of a row that a merge drops.
const ABSENT: u32 = u32::MAX;
/// The level of a row in which a term stands so often or more.
const MANY: u8 = u8::MAX;

fn damaged(what: impl std::fmt::Display) -> Error {
    Error::damaged(format!("text index: {what}"))
}

// ---- writing ----

/// Builds an index from rows in ascending order.
#[derive(Default)]
pub struct TextIndexBuilder {
    numbers: HashMap<Box<str>, u32>,
    /// By the term's number.
    lists: Vec<TermBuilder>,
    lengths: Vec<u32>,
    /// The term numbers of the row being added; kept to reuse its memory.
    row: Vec<u32>,
}

/// A term's rows being written.
#[derive(Default)]
struct TermBuilder {
    list: ListBuilder,
    /// What is left of frequencies that a level cannot say.
    more: Vec<u8>,
}

impl TermBuilder {
    fn push(&mut self, ordinal: Ordinal, tf: u32) {
        debug_assert!(tf > 0);
        let level = u8::try_from(tf).unwrap_or(MANY);
        self.list.push(ordinal, level);
        if level == MANY {
            varint::put(&mut self.more, u64::from(tf) - u64::from(MANY));
        }
    }
    fn finish(&mut self, out: &mut Vec<u8>) {
        self.list.finish(out);
        out.append(&mut self.more);
    }
}

impl TextIndexBuilder {
    /// An index of nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a row that has the field; `fill` hands over its terms in any order. Rows without the field are not added.
    ///
    /// # Panics
    /// If `ordinal` is not greater than the one before, or is `u32::MAX`.
    pub fn add(&mut self, ordinal: Ordinal, fill: impl FnOnce(&mut dyn FnMut(&str))) {
        assert!(
            ordinal as usize >= self.lengths.len() && ordinal != ABSENT,
            "rows are added in ascending order"
        );
        self.lengths.resize(ordinal as usize, ABSENT);
        let Self {
            numbers, lists, row, ..
        } = self;
        fill(&mut |term| {
            let number = match numbers.get(term) {
                Some(&number) => number,
                None => {
                    let number = u32::try_from(lists.len()).expect("a segment has fewer than 2^32 terms");
                    numbers.insert(term.into(), number);
                    lists.push(TermBuilder::default());
                    number
                }
            };
            row.push(number);
        });
        let len = u32::try_from(row.len())
            .ok()
            .filter(|&len| len != ABSENT)
            .expect("a row has fewer than 2^32-1 terms");
        self.lengths.push(len);
        row.sort_unstable();
        for same in row.chunk_by(|a, b| a == b) {
            lists[same[0] as usize].push(ordinal, same.len() as u32);
        }
        row.clear();
    }

    /// The index of a segment of `rows` rows.
    ///
    /// # Panics
    /// If a row was added that such a segment doesn't have.
    pub fn finish(mut self, rows: u32) -> Vec<u8> {
        assert!(
            self.lengths.len() <= rows as usize,
            "a row beyond the segment was added"
        );
        self.lengths.resize(rows as usize, ABSENT);
        let mut terms: Vec<(Box<str>, u32)> = self.numbers.into_iter().collect();
        terms.sort_unstable();
        let mut body = Body::new();
        for (term, number) in terms {
            body.push(term.as_bytes(), &mut self.lists[number as usize]);
        }
        body.assemble(&self.lengths)
    }
}

/// Dictionary and postings being written, term after term in ascending order.
struct Body {
    dictionary: fst::MapBuilder<Vec<u8>>,
    postings: Vec<u8>,
}

impl Body {
    fn new() -> Self {
        Self {
            dictionary: fst::MapBuilder::memory(),
            postings: Vec::new(),
        }
    }
    fn push(&mut self, term: &[u8], list: &mut TermBuilder) {
        self.dictionary
            .insert(term, self.postings.len() as u64)
            .expect("terms are ascending and distinct, and memory doesn't fail");
        list.finish(&mut self.postings);
    }
    fn assemble(self, lengths: &[u32]) -> Vec<u8> {
        let dictionary = self.dictionary.into_inner().expect("memory doesn't fail");
        let (mut docs, mut total_len) = (0_u32, 0_u64);
        for &len in lengths.iter().filter(|&&len| len != ABSENT) {
            docs += 1;
            total_len += u64::from(len);
        }
        let shortest: Vec<u32> = lengths
            .chunks(WINDOW)
            .map(|window| window.iter().copied().min().unwrap_or(ABSENT))
            .collect();
        let numbers = lengths.len() + shortest.len();
        let mut out = Vec::with_capacity(HEADER_BYTES + 4 * numbers + dictionary.len() + self.postings.len());
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&(lengths.len() as u32).to_le_bytes());
        out.extend_from_slice(&docs.to_le_bytes());
        out.extend_from_slice(&0_u32.to_le_bytes());
        out.extend_from_slice(&total_len.to_le_bytes());
        out.extend_from_slice(&(dictionary.len() as u64).to_le_bytes());
        out.extend_from_slice(&(self.postings.len() as u64).to_le_bytes());
        for len in lengths.iter().chain(&shortest) {
            out.extend_from_slice(&len.to_le_bytes());
        }
        out.extend_from_slice(&dictionary);
        out.extend_from_slice(&self.postings);
        out
    }
}

// ---- reading ----

/// What [`TextIndexLayout::parse`] learnt about an index's bytes; outlives them, so that a segment keeps it beside its map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextIndexLayout {
    rows: u32,
    docs: u32,
    total_len: u64,
    dictionary_start: usize,
    postings_start: usize,
    end: usize,
}

impl TextIndexLayout {
    /// Checks header, sizes, lengths and the dictionary's checksum.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let header = bytes
            .first_chunk::<HEADER_BYTES>()
            .ok_or_else(|| damaged("shorter than its header"))?;
        if header[..4] != MAGIC {
            return Err(damaged("not one of format 2"));
        }
        let u32_at = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| header[at + i]));
        let u64_at = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| header[at + i]));
        let (rows, docs, total_len) = (u32_at(4), u32_at(8), u64_at(16));
        if u32_at(12) != 0 {
            return Err(damaged("reserved bytes are used"));
        }
        let windows = rows.div_ceil(WINDOW as u32);
        let dictionary_start = HEADER_BYTES as u64 + 4 * (u64::from(rows) + u64::from(windows));
        let postings_start = dictionary_start.checked_add(u64_at(24));
        let end = postings_start.and_then(|start| start.checked_add(u64_at(32)));
        let (Some(postings_start), Some(end)) = (postings_start, end) else {
            return Err(damaged("impossible sizes"));
        };
        if end != bytes.len() as u64 {
            return Err(damaged(format!("{} bytes where its header says {end}", bytes.len())));
        }
        // Everything below `end` fits usize, because `bytes` does.
        let layout = Self {
            rows,
            docs,
            total_len,
            dictionary_start: dictionary_start as usize,
            postings_start: postings_start as usize,
            end: end as usize,
        };
        let view = layout.view(bytes);
        let (mut docs_found, mut total_found) = (0_u32, 0_u64);
        for len in (0..rows).filter_map(|ordinal| view.len_of(ordinal)) {
            docs_found += 1;
            total_found += u64::from(len);
        }
        if (docs_found, total_found) != (docs, total_len) {
            return Err(damaged("row lengths don't add up to the totals"));
        }
        let shortest = |window: u32| {
            let rows = window * WINDOW as u32..rows.min((window + 1).saturating_mul(WINDOW as u32));
            rows.filter_map(|ordinal| view.len_of(ordinal)).min().unwrap_or(ABSENT)
        };
        if (0..windows).any(|window| shortest(window) != view.shortest(window)) {
            return Err(damaged("the shortest rows are not those"));
        }
        view.dictionary()?
            .as_fst()
            .verify()
            .map_err(|e| damaged(format!("dictionary: {e}")))?;
        Ok(layout)
    }

    /// The index in the bytes that were parsed.
    ///
    /// # Panics
    /// If `bytes` are not as many as were parsed.
    pub fn view<'a>(&self, bytes: &'a [u8]) -> TextIndexView<'a> {
        assert_eq!(
            bytes.len(),
            self.end,
            "a layout belongs to the bytes it was parsed from"
        );
        TextIndexView {
            rows: self.rows,
            docs: self.docs,
            total_len: self.total_len,
            lengths: &bytes[HEADER_BYTES..HEADER_BYTES + 4 * self.rows as usize],
            shortest: &bytes[HEADER_BYTES + 4 * self.rows as usize..self.dictionary_start],
            dictionary: &bytes[self.dictionary_start..self.postings_start],
            postings: &bytes[self.postings_start..],
        }
    }
}

/// The inverted index of one text field in one segment.
#[derive(Clone, Copy)]
pub struct TextIndexView<'a> {
    rows: u32,
    docs: u32,
    total_len: u64,
    lengths: &'a [u8],
    shortest: &'a [u8],
    dictionary: &'a [u8],
    postings: &'a [u8],
}

impl<'a> TextIndexView<'a> {
    /// Rows of the segment.
    pub fn rows(&self) -> u32 {
        self.rows
    }
    /// Rows that have the field, even if no term came of it.
    pub fn docs(&self) -> u32 {
        self.docs
    }
    /// Terms of all rows, repetitions included.
    pub fn total_len(&self) -> u64 {
        self.total_len
    }
    /// Terms of a row, repetitions included; `None` if it lacks the field.
    pub fn len_of(&self, ordinal: Ordinal) -> Option<u32> {
        let at = 4 * ordinal as usize;
        let len = u32::from_le_bytes(*self.lengths.get(at..at + 4)?.first_chunk()?);
        (len != ABSENT).then_some(len)
    }
    /// The fewest terms of a row of a window that has the field; the largest number if none has.
    pub fn shortest(&self, window: u32) -> u32 {
        let at = 4 * window as usize;
        let shortest = self.shortest.get(at..at + 4).and_then(|bytes| bytes.first_chunk());
        shortest.map_or(ABSENT, |bytes| u32::from_le_bytes(*bytes))
    }
    /// Where a term stands; `None` if nowhere.
    pub fn postings(&self, term: &str) -> Result<Option<Postings<'a>>> {
        self.dictionary()?.get(term).map(|offset| self.list(offset)).transpose()
    }
    /// Hands over every term, ascending, with where it stands.
    pub fn visit_terms(&self, visit: &mut dyn FnMut(&str, Postings<'a>) -> Result<()>) -> Result<()> {
        let dictionary = self.dictionary()?;
        let mut terms = dictionary.stream();
        while let Some((term, offset)) = terms.next() {
            let term = std::str::from_utf8(term).map_err(|_| damaged("a term is not UTF-8"))?;
            visit(term, self.list(offset)?)?;
        }
        Ok(())
    }

    fn dictionary(&self) -> Result<fst::Map<&'a [u8]>> {
        fst::Map::new(self.dictionary).map_err(|e| damaged(format!("dictionary: {e}")))
    }

    fn list(&self, offset: u64) -> Result<Postings<'a>> {
        let bytes = usize::try_from(offset)
            .ok()
            .and_then(|offset| self.postings.get(offset..))
            .ok_or_else(|| damaged("a list begins beyond the postings"))?;
        let list = List::at(bytes, self.rows)?;
        if list.df() > self.docs {
            return Err(damaged("a list of more rows than have the field"));
        }
        Ok(Postings {
            df: list.df(),
            rows: self.rows,
            list: list.blocks()?,
            many: OnceCell::new(),
        })
    }
}

/// The rows a term stands in, ascending, each with the times it stands there.
pub struct Postings<'a> {
    df: u32,
    rows: u32,
    list: Blocks<'a>,
    /// Rows that have the term more often than a level can say, ascending; found when first asked for.
    many: OnceCell<Vec<(Ordinal, u32)>>,
}

impl<'a> Postings<'a> {
    /// Rows the term stands in (document frequency), dead ones included.
    pub fn df(&self) -> u32 {
        self.df
    }

    /// The list, with frequencies of 255 at most.
    pub fn list(&self) -> &Blocks<'a> {
        &self.list
    }

    /// Whether some row has the term more often than its level can say.
    pub fn is_exceeded(&self) -> bool {
        self.list.blocks.iter().any(|block| block.max == MANY)
    }

    /// How often a row has the term: 0 if it is not in the list.
    pub fn tf_of(&self, ordinal: Ordinal) -> Result<u32> {
        match self.list.level_of(ordinal) {
            None => Ok(0),
            Some(MANY) => {
                let many = self.many()?;
                let at = many.binary_search_by_key(&ordinal, |(other, _)| *other);
                Ok(at.map_or(0, |at| many[at].1))
            }
            Some(level) => Ok(u32::from(level)),
        }
    }

    /// Read once: what a level cannot say stands behind the list and is found only by going through all of it.
    fn many(&self) -> Result<&[(Ordinal, u32)]> {
        if let Some(many) = self.many.get() {
            return Ok(many);
        }
        let many = self.iter().filter(|posting| match posting {
            Ok((_, tf)) => *tf >= u32::from(MANY),
            Err(_) => true,
        });
        let many = many.collect::<Result<Vec<_>>>()?;
        Ok(self.many.get_or_init(|| many))
    }

    /// Each row and how often it has the term. The first thing that cannot be is an error.
    pub fn iter(&self) -> impl Iterator<Item = Result<(Ordinal, u32)>> + '_ {
        let (mut more, mut next, rows) = (self.list.after, 0, self.rows);
        let mut broken = false;
        self.list.iter().map_while(move |(ordinal, level)| {
            if broken {
                return None;
            }
            let tf = match level {
                MANY => varint::take(&mut more).and_then(|more| u32::try_from(more + u64::from(MANY)).ok()),
                level => Some(u32::from(level)),
            };
            let in_order = ordinal >= next && ordinal < rows;
            next = ordinal.saturating_add(1);
            let posting = tf.filter(|tf| *tf > 0 && in_order).map(|tf| (ordinal, tf));
            broken = posting.is_none();
            Some(posting.ok_or_else(|| damaged("a posting that cannot be")))
        })
    }
}

// ---- merging ----

/// An index to merge, and the new ordinal of each of its rows: `None` drops the row.
pub type MergeInput<'a> = (TextIndexView<'a>, &'a dyn Fn(Ordinal) -> Option<Ordinal>);

/// Merges the indexes of several segments into that of one with `rows` rows. New ordinals ascend within an input and from input to input. The result is what indexing
/// the kept rows at once would give, byte for byte.
pub fn merge(inputs: &[MergeInput<'_>], rows: u32) -> Result<Vec<u8>> {
    let mut lengths = Vec::new();
    let mut new_ordinals = Vec::with_capacity(inputs.len());
    for (view, remap) in inputs {
        let mut table = vec![ABSENT; view.rows() as usize];
        for old in 0..view.rows() {
            let (Some(len), Some(new)) = (view.len_of(old), remap(old)) else {
                continue;
            };
            if new >= rows || (new as usize) < lengths.len() {
                return Err(Error::internal(format!(
                    "text merge: row {old} becomes {new}, out of order or of {rows}"
                )));
            }
            lengths.resize(new as usize, ABSENT);
            lengths.push(len);
            table[old as usize] = new;
        }
        new_ordinals.push(table);
    }
    lengths.resize(rows as usize, ABSENT);

    let dictionaries = inputs
        .iter()
        .map(|(view, _)| view.dictionary())
        .collect::<Result<Vec<_>>>()?;
    let mut union = fst::map::OpBuilder::new();
    for dictionary in &dictionaries {
        union.push(dictionary);
    }
    let mut terms = union.union();
    let (mut body, mut list, mut places) = (Body::new(), TermBuilder::default(), Vec::new());
    while let Some((term, found)) = terms.next() {
        // `fst` promises no order among the dictionaries that have a term; ours must be that of the inputs.
        places.clear();
        places.extend(found.iter().map(|place| (place.index, place.value)));
        places.sort_unstable();
        for &(input, offset) in &places {
            for posting in inputs[input].0.list(offset)?.iter() {
                let (old, tf) = posting?;
                let new = new_ordinals[input][old as usize];
                if new != ABSENT {
                    list.push(new, tf);
                }
            }
        }
        if list.list.df() > 0 {
            body.push(term, &mut list);
        }
    }
    Ok(body.assemble(&lengths))
}

#[cfg(test)]
mod tests;
