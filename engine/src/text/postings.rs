//! Where terms stand: the inverted index of one text field in one segment, as bytes that are searched in place.
//!
//! ```text
//! header     magic "CTI1" | u32 rows | u32 docs | u32 zero | u64 total_len | u64 dictionary_bytes | u64 postings_bytes
//! lengths    rows x u32: terms of each row, repetitions included; 0xFFFF_FFFF: the row lacks the field
//! dictionary dictionary_bytes: an fst map (crate `fst`, version 3, with its checksum) of each term, as UTF-8, to the
//!            offset of its list in `postings`
//! postings   lists in the order of their terms, without gaps:
//!              list    = varint df | df x posting           1 <= df <= docs
//!              posting = varint (gap << 1 | once) [varint tf]    `once` says that tf is 1 and left out
//!              gap     = rows skipped since the posting before (since row 0 for the first)
//! ```
//!
//! Fixed-size numbers are little-endian; a varint is 1 to 5 bytes, 7 bits each, lowest first, the top bit says "more".
//! Nothing is aligned. The same rows give the same bytes, whether indexed at once or merged from parts: a test says so.
//!
//! Damage: [`TextIndexLayout::parse`] checks everything but the postings, which are checked as they are read, so that
//! opening a segment doesn't read all of it. Any bytes give an answer or [`Error::damaged`]. Not guaranteed: that changed
//! bytes are noticed in postings (the segment file's block checksums are for that), and good behaviour on a dictionary
//! *forged* together with its checksum, since `fst` trusts a dictionary whose checksum is right.

use std::collections::HashMap;

use fst::Streamer;

use crate::error::{Error, Result};
use crate::types::Ordinal;

const MAGIC: [u8; 4] = *b"CTI1";
const HEADER_BYTES: usize = 40;
/// The length of a row that lacks the field, and the new ordinal of a row that a merge drops.
const ABSENT: u32 = u32::MAX;

fn damaged(what: impl std::fmt::Display) -> Error {
    Error::damaged(format!("text index: {what}"))
}

// ---- writing ----

/// Builds an index from rows in ascending order.
#[derive(Default)]
pub struct TextIndexBuilder {
    numbers: HashMap<Box<str>, u32>,
    /// By the term's number.
    lists: Vec<ListBuilder>,
    lengths: Vec<u32>,
    /// The term numbers of the row being added; kept to reuse its memory.
    row: Vec<u32>,
}

/// A posting list being written.
#[derive(Default)]
struct ListBuilder {
    df: u32,
    /// The first ordinal that may come next.
    next: Ordinal,
    bytes: Vec<u8>,
}

impl ListBuilder {
    fn push(&mut self, ordinal: Ordinal, tf: u32) {
        debug_assert!(ordinal >= self.next && tf > 0);
        let gap = u64::from(ordinal - self.next);
        put_varint(&mut self.bytes, gap << 1 | u64::from(tf == 1));
        if tf != 1 {
            put_varint(&mut self.bytes, u64::from(tf));
        }
        self.df += 1;
        self.next = ordinal + 1;
    }
    fn clear(&mut self) {
        (self.df, self.next) = (0, 0);
        self.bytes.clear();
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
                    lists.push(ListBuilder::default());
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
            body.push(term.as_bytes(), &self.lists[number as usize]);
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
    fn push(&mut self, term: &[u8], list: &ListBuilder) {
        self.dictionary
            .insert(term, self.postings.len() as u64)
            .expect("terms are ascending and distinct, and memory doesn't fail");
        put_varint(&mut self.postings, u64::from(list.df));
        self.postings.extend_from_slice(&list.bytes);
    }
    fn assemble(self, lengths: &[u32]) -> Vec<u8> {
        let dictionary = self.dictionary.into_inner().expect("memory doesn't fail");
        let (mut docs, mut total_len) = (0_u32, 0_u64);
        for &len in lengths.iter().filter(|&&len| len != ABSENT) {
            docs += 1;
            total_len += u64::from(len);
        }
        let mut out = Vec::with_capacity(HEADER_BYTES + 4 * lengths.len() + dictionary.len() + self.postings.len());
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&(lengths.len() as u32).to_le_bytes());
        out.extend_from_slice(&docs.to_le_bytes());
        out.extend_from_slice(&0_u32.to_le_bytes());
        out.extend_from_slice(&total_len.to_le_bytes());
        out.extend_from_slice(&(dictionary.len() as u64).to_le_bytes());
        out.extend_from_slice(&(self.postings.len() as u64).to_le_bytes());
        for len in lengths {
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
            return Err(damaged("not one of format 1"));
        }
        let u32_at = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| header[at + i]));
        let u64_at = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| header[at + i]));
        let (rows, docs, total_len) = (u32_at(4), u32_at(8), u64_at(16));
        if u32_at(12) != 0 {
            return Err(damaged("reserved bytes are used"));
        }
        let dictionary_start = HEADER_BYTES as u64 + 4 * u64::from(rows);
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
            lengths: &bytes[HEADER_BYTES..self.dictionary_start],
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
        let mut rest = usize::try_from(offset)
            .ok()
            .and_then(|offset| self.postings.get(offset..))
            .ok_or_else(|| damaged("a list begins beyond the postings"))?;
        let df = take_varint(&mut rest)
            .and_then(|df| u32::try_from(df).ok())
            .filter(|df| (1..=self.docs).contains(df))
            .ok_or_else(|| damaged("a list of no or too many postings"))?;
        Ok(Postings {
            df,
            left: df,
            next: 0,
            rows: self.rows,
            rest,
        })
    }
}

/// The rows a term stands in, ascending, each with the times it stands there. Ends at the first damage.
#[derive(Clone)]
pub struct Postings<'a> {
    df: u32,
    left: u32,
    /// The first ordinal that may come next. In u64, as damaged gaps could overflow an ordinal.
    next: u64,
    rows: u32,
    rest: &'a [u8],
}

impl Postings<'_> {
    /// Rows the term stands in (document frequency), dead ones included, however many were read already.
    pub fn df(&self) -> u32 {
        self.df
    }

    fn read(&mut self) -> Option<(Ordinal, u32)> {
        let code = take_varint(&mut self.rest)?;
        let ordinal = self.next + (code >> 1);
        let tf = if code & 1 == 1 {
            1
        } else {
            u32::try_from(take_varint(&mut self.rest)?).ok()?
        };
        if ordinal >= u64::from(self.rows) || tf == 0 {
            return None;
        }
        self.next = ordinal + 1;
        Some((ordinal as Ordinal, tf))
    }
}

impl Iterator for Postings<'_> {
    type Item = Result<(Ordinal, u32)>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let posting = self.read();
        if posting.is_none() {
            self.left = 0;
        }
        Some(posting.ok_or_else(|| damaged("a posting that cannot be")))
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
    let (mut body, mut list, mut places) = (Body::new(), ListBuilder::default(), Vec::new());
    while let Some((term, found)) = terms.next() {
        // `fst` promises no order among the dictionaries that have a term; ours must be that of the inputs.
        places.clear();
        places.extend(found.iter().map(|place| (place.index, place.value)));
        places.sort_unstable();
        list.clear();
        for &(input, offset) in &places {
            for posting in inputs[input].0.list(offset)? {
                let (old, tf) = posting?;
                let new = new_ordinals[input][old as usize];
                if new != ABSENT {
                    list.push(new, tf);
                }
            }
        }
        if list.df > 0 {
            body.push(term, &list);
        }
    }
    Ok(body.assemble(&lengths))
}

// ---- varints ----

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Takes a varint of at most 5 bytes, that is below 2^35, off the front.
#[inline]
fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in [0, 7, 14, 21, 28] {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests;
