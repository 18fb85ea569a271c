//! A sorted dictionary from byte strings to small cells, searched where it lies.
//!
//! ```text
//! dictionary = entry* , starts
//! entry      = varint shared, varint suffix_len, suffix, varint cell_len, cell
//! starts     = u64 LE for each block but the first: where it begins
//! ```
//!
//! A block is [`BLOCK`] entries. Its first key is whole (`shared` = 0); each other key repeats only what differs from the
//! key before it. A lookup is a binary search over the blocks' first keys and a walk through one block. The number of
//! entries is kept by whoever points here; up to [`BLOCK`] entries cost no `starts` at all, which is what most paths
//! have.
//!
//! Why not `fst`, which would be smaller: it panics on damaged bytes and may walk in circles in them, and verifying its
//! checksum at open means reading all of it.

use super::bytes::{Reader, damaged, put_varint};
use crate::error::Result;

/// Entries in a block: the walk through one costs about as much as the binary search that found it.
const BLOCK: usize = 16;

#[derive(Default)]
pub(super) struct DictBuilder {
    entries: Vec<u8>,
    starts: Vec<u64>,
    last: Vec<u8>,
    count: usize,
}

impl DictBuilder {
    /// Keys come in ascending order, each once.
    pub(super) fn insert(&mut self, key: &[u8], cell: &[u8]) {
        debug_assert!(self.count == 0 || self.last.as_slice() < key, "keys must ascend");
        let shared = if self.count.is_multiple_of(BLOCK) {
            if self.count > 0 {
                self.starts.push(self.entries.len() as u64);
            }
            0
        } else {
            common_prefix(&self.last, key)
        };
        put_varint(shared as u64, &mut self.entries);
        put_varint((key.len() - shared) as u64, &mut self.entries);
        self.entries.extend_from_slice(&key[shared..]);
        put_varint(cell.len() as u64, &mut self.entries);
        self.entries.extend_from_slice(cell);
        self.last.clear();
        self.last.extend_from_slice(key);
        self.count += 1;
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    pub(super) fn finish(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.entries);
        for start in self.starts {
            out.extend_from_slice(&start.to_le_bytes());
        }
    }
}

fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

#[derive(Clone, Copy)]
pub(super) struct Dict<'a> {
    entries: &'a [u8],
    starts: &'a [[u8; 8]],
    count: usize,
}

struct Entry<'a> {
    shared: usize,
    suffix: &'a [u8],
    cell: &'a [u8],
}

impl<'a> Dict<'a> {
    /// Splits the bytes; the entries are checked as they are read.
    pub(super) fn new(bytes: &'a [u8], count: usize) -> Result<Self> {
        let starts = count.div_ceil(BLOCK).saturating_sub(1);
        let entries_len = starts
            .checked_mul(8)
            .and_then(|len| bytes.len().checked_sub(len))
            .ok_or_else(|| damaged("ends early"))?;
        let (entries, starts) = bytes.split_at(entries_len);
        Ok(Self {
            entries,
            starts: starts.as_chunks().0,
            count,
        })
    }

    pub(super) fn get(&self, key: &[u8]) -> Result<Option<&'a [u8]>> {
        // The last block whose first key is not greater.
        let (mut low, mut high) = (0, self.count.div_ceil(BLOCK));
        while low < high {
            let middle = low + (high - low) / 2;
            let first = entry(&mut self.block(middle)?)?;
            if first.suffix <= key {
                low = middle + 1
            } else {
                high = middle
            }
        }
        let Some(block) = low.checked_sub(1) else {
            return Ok(None);
        };

        // `matched` bytes of `key` agree with the entry before, which is less than `key`. An entry that shares more than
        // that is less as well; one that shares less is greater.
        let mut reader = self.block(block)?;
        let mut matched = 0;
        for _ in 0..BLOCK.min(self.count - block * BLOCK) {
            let entry = entry(&mut reader)?;
            if entry.shared > matched {
                continue;
            }
            if entry.shared < matched {
                return Ok(None);
            }
            let rest = &key[matched..];
            match entry.suffix.cmp(rest) {
                std::cmp::Ordering::Less => matched += common_prefix(entry.suffix, rest),
                std::cmp::Ordering::Equal => return Ok(Some(entry.cell)),
                std::cmp::Ordering::Greater => return Ok(None),
            }
        }
        Ok(None)
    }

    pub(super) fn cursor(&self) -> Cursor<'a> {
        Cursor {
            reader: Reader::new(self.entries),
            left: self.count,
            started: false,
            key: Vec::new(),
            cell: &[],
        }
    }

    fn block(&self, block: usize) -> Result<Reader<'a>> {
        let start = match block.checked_sub(1) {
            None => 0,
            Some(i) => usize::try_from(u64::from_le_bytes(
                *self.starts.get(i).ok_or_else(|| damaged("ends early"))?,
            ))
            .map_err(|_| damaged("an offset is too large"))?,
        };
        Ok(Reader::new(
            self.entries
                .get(start..)
                .ok_or_else(|| damaged("an offset points outside"))?,
        ))
    }
}

fn entry<'a>(reader: &mut Reader<'a>) -> Result<Entry<'a>> {
    let shared = reader.size()?;
    let suffix_len = reader.size()?;
    let suffix = reader.take(suffix_len)?;
    let cell_len = reader.size()?;
    Ok(Entry {
        shared,
        suffix,
        cell: reader.take(cell_len)?,
    })
}

/// All entries in order.
pub(super) struct Cursor<'a> {
    reader: Reader<'a>,
    left: usize,
    started: bool,
    /// Of the current entry.
    pub(super) key: Vec<u8>,
    /// Of the current entry.
    pub(super) cell: &'a [u8],
}

impl Cursor<'_> {
    /// Steps to the next entry; false at the end. Keys that do not ascend are damage: merges rely on the order.
    pub(super) fn advance(&mut self) -> Result<bool> {
        let Some(left) = self.left.checked_sub(1) else {
            self.reader.finished()?;
            return Ok(false);
        };
        let entry = entry(&mut self.reader)?;
        let replaced = self
            .key
            .get(entry.shared..)
            .ok_or_else(|| damaged("a key shares more than there is"))?;
        if self.started && replaced >= entry.suffix {
            return Err(damaged("keys do not ascend"));
        }
        (self.left, self.started) = (left, true);
        self.key.truncate(entry.shared);
        self.key.extend_from_slice(entry.suffix);
        self.cell = entry.cell;
        Ok(true)
    }
}
