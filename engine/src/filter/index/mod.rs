//! The payload index of one segment: from a path and a value to the rows that hold it.
//!
//! Operations: build from `(ordinal, path, value)`, merge with rows dropped, look up by value, range and presence, list
//! the values of a path with their counts. Guarantees: answers are exact; bytes are a function of the indexed values
//! alone, so merging parts gives what building the whole gives; any bytes may be read, damage found on the way is an
//! error. Not guaranteed: that damage *is* found beyond the header (the segment file's block checksums are for that), and
//! order or kind of the values of a row: the index knows sets, and 1.0 comes back as 1. Nothing is decoded at open.
//!
//! ```text
//! section   = header, heap, dictionary of paths
//! header    = "CFIX" | version u32 = 1 | rows u32 | check u32 | paths u64 | paths_at u64        little-endian, 32 bytes
//!             check is the CRC32C of the header's other 28 bytes
//! heap      = postings, numeric columns and dictionaries of strings, found by absolute offset
//! paths     = dictionary: path -> field record
//!
//! field     = flags u8, posting present,
//!             [ posting false, posting true ]                  if flags & 1
//!             [ varint count, varint at, varint len ]          if flags & 2: dictionary string -> posting
//!             [ numeric column ]                               if flags & 4
//!             [ varint count, varint at, varint len ]          if flags & 8: rows with several values
//! several   = count x (varint delta of the ordinal, varint values - 2)
//! ```
//!
//! `dict`, `posting` and `number` draw their own bytes. Strings, booleans and numbers are separate under one path: "1",
//! 1 and true never match each other.

mod bytes;
mod dict;
mod merge;
mod number;
mod posting;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;

use self::bytes::{Reader, damaged, put_varint, slice};
use self::dict::{Dict, DictBuilder};
use self::number::{Number, Numbers};
use crate::error::Result;
use crate::filter::Range;
use crate::filter::extract::Value;
use crate::types::Ordinal;

pub use self::merge::{Remap, merge};
pub use self::posting::Posting;

const MAGIC: [u8; 4] = *b"CFIX";
const VERSION: u32 = 1;
const HEADER_LEN: usize = 32;

const HAS_BOOLS: u8 = 1;
const HAS_STRINGS: u8 = 2;
const HAS_NUMBERS: u8 = 4;
const HAS_SEVERAL: u8 = 8;

/// Collects values in memory and writes the section at the end.
#[derive(Default)]
pub struct FilterIndexBuilder {
    fields: BTreeMap<Box<str>, FieldBuilder>,
}

#[derive(Default)]
struct FieldBuilder {
    strings: HashMap<Box<str>, Vec<Ordinal>>,
    bools: [Vec<Ordinal>; 2],
    numbers: Vec<(Number, Ordinal)>,
}

impl FilterIndexBuilder {
    /// An index of nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a value of a row, in any order; a repeated value counts once.
    pub fn add(&mut self, ordinal: Ordinal, path: &str, value: Value<'_>) {
        let field = match self.fields.get_mut(path) {
            Some(field) => field,
            None => self.fields.entry(path.into()).or_default(),
        };
        match value {
            Value::Str(s) => match field.strings.get_mut(s) {
                Some(ordinals) => ordinals.push(ordinal),
                None => _ = field.strings.insert(s.into(), vec![ordinal]),
            },
            Value::Bool(b) => field.bools[usize::from(b)].push(ordinal),
            Value::Int(i) => field.numbers.push((Number::from_int(i), ordinal)),
            Value::Float(f) => field
                .numbers
                .extend(Number::from_float(f).map(|number| (number, ordinal))),
        }
    }

    /// The section of a segment of `rows` rows. Panics if a row was added that the segment does not have.
    pub fn finish(self, rows: u32) -> Vec<u8> {
        let mut out = SectionWriter::new(rows);
        for (path, mut field) in self.fields {
            let mut writer = out.field();
            let mut strings: Vec<_> = field.strings.into_iter().collect();
            strings.sort_unstable_by(|a, b| a.0.cmp(&b.0));
            for (string, mut ordinals) in strings {
                sort_once(&mut ordinals);
                writer.string(string.as_bytes(), &ordinals);
            }
            field.bools.iter_mut().for_each(sort_once);
            writer.bools(&field.bools);
            sort_once(&mut field.numbers);
            writer.numbers(&field.numbers);
            writer.finish(path.as_bytes());
        }
        out.finish()
    }
}

fn sort_once<T: Ord>(items: &mut Vec<T>) {
    items.sort_unstable();
    items.dedup();
}

/// Writes a section from values in order. The builder and the merge both end here, which is why their bytes agree.
struct SectionWriter {
    rows: u32,
    /// Header and heap so far: its length is the next offset.
    section: Vec<u8>,
    paths: DictBuilder,
}

impl SectionWriter {
    fn new(rows: u32) -> Self {
        Self {
            rows,
            section: vec![0; HEADER_LEN],
            paths: DictBuilder::default(),
        }
    }

    fn field(&mut self) -> FieldWriter<'_> {
        FieldWriter {
            out: self,
            seen: Vec::new(),
            strings: DictBuilder::default(),
            cell: Vec::new(),
            bools: None,
            numbers: None,
        }
    }

    fn finish(mut self) -> Vec<u8> {
        let paths = self.paths.count() as u64;
        let paths_at = self.section.len() as u64;
        self.paths.finish(&mut self.section);
        self.section[0..4].copy_from_slice(&MAGIC);
        self.section[4..8].copy_from_slice(&VERSION.to_le_bytes());
        self.section[8..12].copy_from_slice(&self.rows.to_le_bytes());
        self.section[16..24].copy_from_slice(&paths.to_le_bytes());
        self.section[24..32].copy_from_slice(&paths_at.to_le_bytes());
        let check = header_check(&self.section);
        self.section[12..16].copy_from_slice(&check.to_le_bytes());
        self.section
    }
}

/// Writes one path: strings in order, then booleans, then numbers, then its record.
struct FieldWriter<'w> {
    out: &'w mut SectionWriter,
    /// The row of every value so far: presence, and which rows have several values.
    seen: Vec<Ordinal>,
    strings: DictBuilder,
    cell: Vec<u8>,
    bools: Option<Vec<u8>>,
    numbers: Option<Vec<u8>>,
}

impl FieldWriter<'_> {
    fn saw(&mut self, ordinal: Ordinal) {
        assert!(
            ordinal < self.out.rows,
            "row {ordinal} of a segment of {} rows",
            self.out.rows
        );
        self.seen.push(ordinal);
    }

    fn string(&mut self, string: &[u8], ordinals: &[Ordinal]) {
        ordinals.iter().for_each(|&ordinal| self.saw(ordinal));
        self.cell.clear();
        posting::write(ordinals, self.out.rows, &mut self.out.section, &mut self.cell);
        self.strings.insert(string, &self.cell);
    }

    fn bools(&mut self, bools: &[Vec<Ordinal>; 2]) {
        if bools.iter().all(Vec::is_empty) {
            return;
        }
        let mut cell = Vec::new();
        for ordinals in bools {
            ordinals.iter().for_each(|&ordinal| self.saw(ordinal));
            posting::write(ordinals, self.out.rows, &mut self.out.section, &mut cell);
        }
        self.bools = Some(cell);
    }

    fn numbers(&mut self, pairs: &[(Number, Ordinal)]) {
        if pairs.is_empty() {
            return;
        }
        pairs.iter().for_each(|&(_, ordinal)| self.saw(ordinal));
        let mut cell = Vec::new();
        number::write(pairs, &mut self.out.section, &mut cell);
        self.numbers = Some(cell);
    }

    /// A path without values leaves no trace.
    fn finish(mut self, path: &[u8]) {
        if self.seen.is_empty() {
            return;
        }
        self.seen.sort_unstable();
        let rows_seen = || self.seen.chunk_by(|a, b| a == b);
        let present: Vec<Ordinal> = rows_seen().map(|values| values[0]).collect();
        let (mut several, mut several_count, mut next) = (Vec::new(), 0u64, 0);
        for values in rows_seen().filter(|values| values.len() > 1) {
            put_varint(u64::from(values[0] - next), &mut several);
            put_varint(values.len() as u64 - 2, &mut several);
            next = values[0] + 1;
            several_count += 1;
        }

        let SectionWriter { rows, section, paths } = self.out;
        let mut record = vec![0];
        posting::write(&present, *rows, section, &mut record);
        if let Some(cell) = self.bools {
            record[0] |= HAS_BOOLS;
            record.extend(cell);
        }
        if self.strings.count() > 0 {
            record[0] |= HAS_STRINGS;
            put_varint(self.strings.count() as u64, &mut record);
            let at = section.len();
            self.strings.finish(section);
            put_place(at, section, &mut record);
        }
        if let Some(cell) = self.numbers {
            record[0] |= HAS_NUMBERS;
            record.extend(cell);
        }
        if several_count > 0 {
            record[0] |= HAS_SEVERAL;
            put_varint(several_count, &mut record);
            let at = section.len();
            section.extend(several);
            put_place(at, section, &mut record);
        }
        paths.insert(path, &record);
    }
}

/// Where something is that was written from `at` to the end of the section.
fn put_place(at: usize, section: &[u8], record: &mut Vec<u8>) {
    put_varint(at as u64, record);
    put_varint((section.len() - at) as u64, record);
}

/// The one checksum of a section. The header is what sizes are computed from, and `rows` may be billions.
fn header_check(section: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&section[..12]), &section[16..HEADER_LEN])
}

/// Where things are in a section: what the header says, checked once. Holds no bytes, so that a segment can keep it
/// beside its map.
#[derive(Debug, Clone, Copy)]
pub struct FilterIndexLayout {
    rows: u32,
    paths: usize,
    paths_at: usize,
}

impl FilterIndexLayout {
    /// Reads the header. Reads nothing else: the rest is checked where it is used.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let mut header = Reader::new(bytes);
        let mut word = || {
            header
                .take(4)
                .map(|b| u32::from_le_bytes(b.try_into().expect("took 4")))
        };
        if word()? != u32::from_le_bytes(MAGIC) {
            return Err(damaged("not a filter index"));
        }
        let version = word()?;
        if version != VERSION {
            return Err(damaged(&format!("version is {version}, this build reads {VERSION}")));
        }
        let (rows, check) = (word()?, word()?);
        let mut long = || {
            let bytes = header.take(8)?.try_into().expect("took 8");
            usize::try_from(u64::from_le_bytes(bytes)).map_err(|_| damaged("an offset is too large"))
        };
        let (paths, paths_at) = (long()?, long()?);
        if check != header_check(bytes) || paths_at < HEADER_LEN {
            return Err(damaged("the header is damaged"));
        }
        let layout = Self { rows, paths, paths_at };
        layout.view(bytes).paths()?;
        Ok(layout)
    }

    /// Rows of the segment, with and without values.
    pub fn rows(&self) -> u32 {
        self.rows
    }

    /// The index over the bytes that were parsed.
    pub fn view<'a>(&self, bytes: &'a [u8]) -> FilterIndexView<'a> {
        FilterIndexView {
            layout: *self,
            section: bytes,
        }
    }
}

/// An index in place.
#[derive(Clone, Copy)]
pub struct FilterIndexView<'a> {
    layout: FilterIndexLayout,
    section: &'a [u8],
}

impl<'a> FilterIndexView<'a> {
    /// Rows of the segment, with and without values.
    pub fn rows(&self) -> u32 {
        self.layout.rows
    }

    /// The values under a path; none if no row has one.
    pub fn field(&self, path: &str) -> Result<Option<FieldView<'a>>> {
        match self.paths()?.get(path.as_bytes())? {
            None => Ok(None),
            Some(record) => FieldView::read(record, self.section, self.layout.rows).map(Some),
        }
    }

    /// Each distinct value under a path with its rows, while `sink` wants more: strings in byte order, then booleans,
    /// then numbers ascending.
    pub fn values(
        &self,
        path: &str,
        sink: &mut dyn FnMut(Value<'_>, Posting<'a>) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        match self.field(path)? {
            None => Ok(()),
            Some(field) => field.values(sink).map(|_| ()),
        }
    }

    /// Each path with its values, in byte order.
    pub fn fields(&self, sink: &mut dyn FnMut(&str, FieldView<'a>) -> Result<()>) -> Result<()> {
        let mut paths = self.paths()?.cursor();
        while paths.advance()? {
            sink(
                utf8(&paths.key)?,
                FieldView::read(paths.cell, self.section, self.layout.rows)?,
            )?;
        }
        Ok(())
    }

    fn paths(&self) -> Result<Dict<'a>> {
        let bytes = self
            .section
            .get(self.layout.paths_at..)
            .ok_or_else(|| damaged("ends early"))?;
        Dict::new(bytes, self.layout.paths)
    }
}

/// The values under one path.
#[derive(Clone, Copy)]
pub struct FieldView<'a> {
    section: &'a [u8],
    rows: u32,
    present: Posting<'a>,
    bools: [Posting<'a>; 2],
    strings: Dict<'a>,
    numbers: Option<Numbers<'a>>,
    /// Count and bytes.
    several: (usize, &'a [u8]),
}

impl<'a> FieldView<'a> {
    fn read(record: &'a [u8], section: &'a [u8], rows: u32) -> Result<Self> {
        let mut reader = Reader::new(record);
        let flags = reader.byte()?;
        if flags & !(HAS_BOOLS | HAS_STRINGS | HAS_NUMBERS | HAS_SEVERAL) != 0 {
            return Err(damaged("a field has unknown parts"));
        }
        let has = |flag| flags & flag != 0;
        let present = Posting::read(&mut reader, section, rows)?;
        let bools = if has(HAS_BOOLS) {
            [
                Posting::read(&mut reader, section, rows)?,
                Posting::read(&mut reader, section, rows)?,
            ]
        } else {
            [Posting::empty(rows); 2]
        };
        let place = |reader: &mut Reader<'a>| -> Result<(usize, &'a [u8])> {
            let (count, at, len) = (reader.size()?, reader.size()?, reader.size()?);
            Ok((count, slice(section, at, len)?))
        };
        let (strings_count, strings) = if has(HAS_STRINGS) {
            place(&mut reader)?
        } else {
            (0, &[][..])
        };
        let numbers = if has(HAS_NUMBERS) {
            Some(Numbers::read(&mut reader, section, rows)?)
        } else {
            None
        };
        let several = if has(HAS_SEVERAL) {
            place(&mut reader)?
        } else {
            (0, &[][..])
        };
        reader.finished()?;
        Ok(Self {
            section,
            rows,
            present,
            bools,
            strings: Dict::new(strings, strings_count)?,
            numbers,
            several,
        })
    }

    /// Rows with at least one value.
    pub fn present(&self) -> Posting<'a> {
        self.present
    }

    /// Rows with this value.
    pub fn equal(&self, value: Value<'_>) -> Result<Posting<'a>> {
        let number = match value {
            Value::Bool(b) => return Ok(self.bools[usize::from(b)]),
            Value::Str(s) => {
                return match self.strings.get(s.as_bytes())? {
                    Some(cell) => self.posting(cell),
                    None => Ok(Posting::empty(self.rows)),
                };
            }
            Value::Int(i) => Some(Number::from_int(i)),
            Value::Float(f) => Number::from_float(f),
        };
        match (&self.numbers, number) {
            (Some(numbers), Some(number)) => numbers.equal(number),
            _ => Ok(Posting::empty(self.rows)),
        }
    }

    /// Rows with a number in the range.
    pub fn range(&self, range: &Range) -> Result<Posting<'a>> {
        match &self.numbers {
            Some(numbers) => numbers.range(range),
            None => Ok(Posting::empty(self.rows)),
        }
    }

    /// Rows with two or more distinct values, ascending, and how many each has. Few or none for most paths.
    pub fn several(&self) -> Result<Vec<(Ordinal, u32)>> {
        let (count, bytes) = self.several;
        let mut reader = Reader::new(bytes);
        // An entry takes two bytes or more.
        let mut rows = Vec::with_capacity(count.min(bytes.len() / 2));
        let mut next = 0u64;
        for _ in 0..count {
            let ordinal = next
                .checked_add(reader.varint()?)
                .filter(|&ordinal| ordinal < u64::from(self.rows));
            let ordinal = ordinal.ok_or_else(|| damaged("an ordinal is beyond the rows"))?;
            let values = u32::try_from(reader.varint()?).ok().and_then(|n| n.checked_add(2));
            rows.push((
                ordinal as Ordinal,
                values.ok_or_else(|| damaged("a count is too large"))?,
            ));
            next = ordinal + 1;
        }
        reader.finished()?;
        Ok(rows)
    }

    /// See [`FilterIndexView::values`].
    pub fn values(
        &self,
        sink: &mut dyn FnMut(Value<'_>, Posting<'a>) -> Result<ControlFlow<()>>,
    ) -> Result<ControlFlow<()>> {
        let mut strings = self.strings.cursor();
        while strings.advance()? {
            if sink(Value::Str(utf8(&strings.key)?), self.posting(strings.cell)?)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        for b in [false, true] {
            let posting = self.bools[usize::from(b)];
            if !posting.is_empty() && sink(Value::Bool(b), posting)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        for number in self.numbers.iter().flat_map(Numbers::iter) {
            let (number, posting) = number?;
            if sink(number.value(), posting)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Reads the cell of a string.
    fn posting(&self, cell: &'a [u8]) -> Result<Posting<'a>> {
        let mut reader = Reader::new(cell);
        let posting = Posting::read(&mut reader, self.section, self.rows)?;
        reader.finished()?;
        Ok(posting)
    }
}

/// A value as equality sees it: values that hit the same posting are equal here.
#[derive(PartialEq, Eq, Hash)]
pub(super) enum Identity<'a> {
    Str(&'a str),
    Bool(bool),
    /// None is NaN.
    Number(Option<Number>),
}

impl<'a> Identity<'a> {
    pub(super) fn of(value: Value<'a>) -> Self {
        match value {
            Value::Str(s) => Self::Str(s),
            Value::Bool(b) => Self::Bool(b),
            Value::Int(i) => Self::Number(Some(Number::from_int(i))),
            Value::Float(f) => Self::Number(Number::from_float(f)),
        }
    }
}

fn utf8(bytes: &[u8]) -> Result<&str> {
    std::str::from_utf8(bytes).map_err(|_| damaged("a string is not UTF-8"))
}
