//! Several indexes into one, without the payloads: postings are united value by value, rows renumbered or dropped.
//!
//! Paths and strings of all inputs are walked in step, so memory holds one value's rows at a time, one path's row list
//! and numbers, and what is written. Presence and the rows with several values are found again from the values rather
//! than carried over: one way to compute them.

use super::bytes::damaged;
use super::dict::{Cursor, Dict};
use super::number::Number;
use super::posting::Posting;
use super::{FieldView, FilterIndexView, SectionWriter};
use crate::error::{Error, Result};
use crate::types::Ordinal;

/// The new ordinal of an input's row, or none if the row is dropped.
pub type Remap<'a> = &'a dyn Fn(Ordinal) -> Option<Ordinal>;

/// The index of the rows that stay: the very bytes that building it from their values would give.
///
/// New ordinals ascend within an input and from one input to the next, and are below `rows`; where they do not, the
/// error is internal.
pub fn merge(inputs: &[(FilterIndexView<'_>, Remap<'_>)], rows: u32) -> Result<Vec<u8>> {
    let mut out = SectionWriter::new(rows);
    let mut paths = InStep::new(inputs.iter().map(|(view, _)| view.paths()).enumerate())?;
    let mut fields = Vec::new();
    while paths.next()? {
        fields.clear();
        for &(input, record) in &paths.cells {
            let (view, remap) = inputs[input];
            fields.push((FieldView::read(record, view.section, view.rows())?, remap));
        }
        merge_field(&paths.key, &fields, &mut out)?;
    }
    Ok(out.finish())
}

fn merge_field(path: &[u8], fields: &[(FieldView<'_>, Remap<'_>)], out: &mut SectionWriter) -> Result<()> {
    let mut rows = Renumbered {
        rows: out.rows,
        old: Vec::new(),
        new: Vec::new(),
    };
    let mut writer = out.field();

    let mut strings = InStep::new(fields.iter().map(|(field, _)| Ok(field.strings)).enumerate())?;
    while strings.next()? {
        rows.new.clear();
        for &(input, cell) in &strings.cells {
            let (field, remap) = &fields[input];
            rows.add(field.posting(cell)?, remap)?;
        }
        if !rows.new.is_empty() {
            rows.check_order()?;
            writer.string(&strings.key, &rows.new);
        }
    }

    let mut bools = [Vec::new(), Vec::new()];
    for (b, merged) in bools.iter_mut().enumerate() {
        rows.new.clear();
        for (field, remap) in fields {
            rows.add(field.bools[b], remap)?;
        }
        rows.check_order()?;
        merged.append(&mut rows.new);
    }
    writer.bools(&bools);

    let mut pairs: Vec<(Number, Ordinal)> = Vec::new();
    for (field, remap) in fields {
        for number in field.numbers.iter().flat_map(|numbers| numbers.iter()) {
            let (number, posting) = number?;
            rows.new.clear();
            rows.add(posting, remap)?;
            rows.check_order()?;
            pairs.extend(rows.new.iter().map(|&ordinal| (number, ordinal)));
        }
    }
    // A run per input: what a stable sort is quickest at.
    pairs.sort();
    if !pairs.is_sorted_by(|a, b| a < b) {
        return Err(out_of_order());
    }
    writer.numbers(&pairs);
    writer.finish(path);
    Ok(())
}

/// Rows of a value under their new numbers.
struct Renumbered {
    rows: u32,
    /// Scratch.
    old: Vec<Ordinal>,
    new: Vec<Ordinal>,
}

impl Renumbered {
    fn add(&mut self, posting: Posting<'_>, remap: Remap<'_>) -> Result<()> {
        self.old.clear();
        posting.ordinals(&mut self.old)?;
        self.new.extend(self.old.iter().filter_map(|&ordinal| remap(ordinal)));
        Ok(())
    }

    fn check_order(&self) -> Result<()> {
        let ascend = self.new.is_sorted_by(|a, b| a < b) && self.new.last().is_none_or(|&last| last < self.rows);
        if ascend { Ok(()) } else { Err(out_of_order()) }
    }
}

fn out_of_order() -> Error {
    Error::internal("merging filter indexes: new ordinals do not ascend below the new number of rows")
}

/// Walks sorted dictionaries side by side: each distinct key once, with the cells of those that have it.
///
/// The least key is found by looking at all: a merge has about ten inputs.
struct InStep<'a> {
    cursors: Vec<(usize, Cursor<'a>)>,
    /// The current key.
    key: Vec<u8>,
    /// Input and cell, in input order.
    cells: Vec<(usize, &'a [u8])>,
}

impl<'a> InStep<'a> {
    fn new(dicts: impl Iterator<Item = (usize, Result<Dict<'a>>)>) -> Result<Self> {
        let mut cursors = Vec::new();
        for (input, dict) in dicts {
            let mut cursor = dict?.cursor();
            if cursor.advance()? {
                cursors.push((input, cursor));
            }
        }
        Ok(Self {
            cursors,
            key: Vec::new(),
            cells: Vec::new(),
        })
    }

    /// Steps to the next key; false at the end.
    fn next(&mut self) -> Result<bool> {
        self.cells.clear();
        let Some(least) = self.cursors.iter().map(|(_, cursor)| &cursor.key).min() else {
            return Ok(false);
        };
        self.key.clone_from(least);
        let mut ended = false;
        for (input, cursor) in &mut self.cursors {
            if cursor.key == self.key {
                self.cells.push((*input, cursor.cell));
                if !cursor.advance()? {
                    *input = ENDED;
                    ended = true;
                }
            }
        }
        if ended {
            self.cursors.retain(|(input, _)| *input != ENDED);
        }
        if self.cells.is_empty() {
            Err(damaged("keys do not ascend"))
        } else {
            Ok(true)
        }
    }
}

/// Stands for the input of a cursor that is at its end.
const ENDED: usize = usize::MAX;
