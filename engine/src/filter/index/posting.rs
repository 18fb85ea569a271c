//! A set of ordinals as it lies in a section, in the smallest of its forms.
//!
//! ```text
//! cell   = varint (count << 2 | form), then by form
//!   0 inline    count deltas
//!   1 deltas    varint at, varint len       count deltas at that offset of the section
//!   2 roaring   varint at, varint len       a bitmap in the portable Roaring format there, without run containers
//!   3 all       nothing                     every row of the segment
//! delta  = varint (ordinal - 1 - the one before), the first as if -1 came before
//! ```
//!
//! The count stands in front so that facets and plans can add up numbers without decoding anything.

use roaring::RoaringBitmap;

use super::bytes::{Reader, damaged, put_varint, slice};
use crate::error::Result;
use crate::types::Ordinal;

const INLINE: u64 = 0;
const DELTAS: u64 = 1;
const ROARING: u64 = 2;
const ALL: u64 = 3;

/// Longest run of deltas kept inside a dictionary cell. Longer ones would make the walk through a block touch more cache
/// lines than the keys themselves.
const INLINE_BYTES_MAX: usize = 12;

/// Writes ascending ordinals below `rows`: the cell to `cell`, what does not fit there to the end of `section`.
/// The bytes depend on nothing but the arguments, so that a merge writes what a build would have written.
pub(super) fn write(ordinals: &[Ordinal], rows: u32, section: &mut Vec<u8>, cell: &mut Vec<u8>) {
    debug_assert!(ordinals.is_sorted_by(|a, b| a < b) && ordinals.last().is_none_or(|&last| last < rows));
    let head = |form| (ordinals.len() as u64) << 2 | form;
    if !ordinals.is_empty() && ordinals.len() == rows as usize {
        return put_varint(head(ALL), cell);
    }
    let mut deltas = Vec::new();
    let mut next = 0;
    for &ordinal in ordinals {
        put_varint(u64::from(ordinal - next), &mut deltas);
        next = ordinal + 1;
    }
    if deltas.len() <= INLINE_BYTES_MAX {
        put_varint(head(INLINE), cell);
        cell.extend_from_slice(&deltas);
        return;
    }
    let at = section.len();
    let bitmap = RoaringBitmap::from_sorted_iter(ordinals.iter().copied()).expect("ordinals ascend");
    let form = if bitmap.serialized_size() <= deltas.len() {
        bitmap.serialize_into(&mut *section).expect("a Vec takes every write");
        ROARING
    } else {
        section.extend_from_slice(&deltas);
        DELTAS
    };
    put_varint(head(form), cell);
    put_varint(at as u64, cell);
    put_varint((section.len() - at) as u64, cell);
}

/// A set of rows, not yet decoded. Cheap to copy and to count.
#[derive(Clone, Copy)]
pub struct Posting<'a> {
    count: usize,
    rows: u32,
    form: Form<'a>,
}

#[derive(Clone, Copy)]
enum Form<'a> {
    Deltas(&'a [u8]),
    Roaring(&'a [u8]),
    All,
    /// Ordinals of one number, ascending.
    Ascending(&'a [[u8; 4]]),
    /// Ordinals of a range of numbers; a row with several numbers in it is there several times.
    Mixed(&'a [[u8; 4]]),
}

impl<'a> Posting<'a> {
    /// Reads a cell and leaves the reader behind it.
    pub(super) fn read(reader: &mut Reader<'a>, section: &'a [u8], rows: u32) -> Result<Self> {
        let head = reader.varint()?;
        let count = usize::try_from(head >> 2).map_err(|_| damaged("a count is too large"))?;
        if count > rows as usize {
            return Err(damaged("a posting has more ordinals than there are rows"));
        }
        let form = match head & 3 {
            INLINE => {
                let before = reader.rest;
                for _ in 0..count {
                    reader.varint()?;
                }
                Form::Deltas(&before[..before.len() - reader.rest.len()])
            }
            ALL if count == rows as usize => Form::All,
            ALL => return Err(damaged("a posting of all rows has another count")),
            outside => {
                let (at, len) = (reader.size()?, reader.size()?);
                let bytes = slice(section, at, len)?;
                if outside == DELTAS {
                    Form::Deltas(bytes)
                } else {
                    Form::Roaring(bytes)
                }
            }
        };
        Ok(Self { count, rows, form })
    }

    pub(super) fn empty(rows: u32) -> Self {
        Self {
            count: 0,
            rows,
            form: Form::Deltas(&[]),
        }
    }

    pub(super) fn ascending(ordinals: &'a [[u8; 4]], rows: u32) -> Self {
        Self {
            count: ordinals.len(),
            rows,
            form: Form::Ascending(ordinals),
        }
    }

    pub(super) fn mixed(ordinals: &'a [[u8; 4]], rows: u32) -> Self {
        Self {
            count: ordinals.len(),
            rows,
            form: Form::Mixed(ordinals),
        }
    }

    /// How many rows; for a range over rows with several numbers, how many at most.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The rows as a bitmap, each below the segment's rows.
    pub fn bitmap(&self) -> Result<RoaringBitmap> {
        match self.form {
            Form::Roaring(mut bytes) => {
                // A header may claim 65,536 containers and be believed with an allocation of that many; a container
                // takes at least 10 bytes, so that is little more than what is really there. Checked again at the end.
                let bitmap = RoaringBitmap::deserialize_from(&mut bytes).map_err(|e| damaged(&e.to_string()))?;
                if !bytes.is_empty()
                    || bitmap.len() != self.count as u64
                    || bitmap.max().is_some_and(|max| max >= self.rows)
                {
                    return Err(damaged("a bitmap is not what was announced"));
                }
                Ok(bitmap)
            }
            Form::All => {
                let mut bitmap = RoaringBitmap::new();
                bitmap.insert_range(0..self.rows);
                Ok(bitmap)
            }
            // Sorting costs n log n, a bit per row costs rows / 8 bytes: the latter from one row in 64 on.
            Form::Mixed(ordinals) if ordinals.len() >= self.rows as usize / 64 && self.rows <= 1 << 31 => {
                let mut bits = vec![0u8; self.rows.div_ceil(8) as usize];
                for ordinal in ordinals {
                    let ordinal = self.checked(u32::from_le_bytes(*ordinal))?;
                    bits[ordinal as usize / 8] |= 1 << (ordinal % 8);
                }
                Ok(RoaringBitmap::from_lsb0_bytes(0, &bits))
            }
            Form::Deltas(_) | Form::Ascending(_) | Form::Mixed(_) => {
                let mut ordinals = Vec::new();
                self.ordinals(&mut ordinals)?;
                RoaringBitmap::from_sorted_iter(ordinals).map_err(|_| damaged("ordinals do not ascend"))
            }
        }
    }

    /// The rows, ascending, put behind what `out` already holds.
    pub(super) fn ordinals(&self, out: &mut Vec<Ordinal>) -> Result<()> {
        let before = out.len();
        match self.form {
            Form::Roaring(_) | Form::All => out.extend(self.bitmap()?),
            Form::Deltas(bytes) => {
                let mut reader = Reader::new(bytes);
                out.reserve(self.count.min(bytes.len()));
                let mut next = 0u64;
                for _ in 0..self.count {
                    let ordinal = next
                        .checked_add(reader.varint()?)
                        .ok_or_else(|| damaged("an ordinal is too large"))?;
                    out.push(self.checked(u32::try_from(ordinal).unwrap_or(u32::MAX))?);
                    next = ordinal + 1;
                }
                reader.finished()?;
            }
            Form::Ascending(ordinals) | Form::Mixed(ordinals) => {
                out.reserve(ordinals.len());
                for ordinal in ordinals {
                    out.push(self.checked(u32::from_le_bytes(*ordinal))?);
                }
                if matches!(self.form, Form::Mixed(_)) {
                    let mut sorted = out.split_off(before);
                    sorted.sort_unstable();
                    sorted.dedup();
                    out.append(&mut sorted);
                } else if !out[before..].is_sorted_by(|a, b| a < b) {
                    return Err(damaged("ordinals do not ascend"));
                }
            }
        }
        Ok(())
    }

    fn checked(&self, ordinal: Ordinal) -> Result<Ordinal> {
        if ordinal < self.rows {
            Ok(ordinal)
        } else {
            Err(damaged("an ordinal is beyond the rows"))
        }
    }
}
