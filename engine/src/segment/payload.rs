//! Payloads of a segment: JSON text in compressed blocks of whole rows.
//!
//! Sections: `payload` holds the blocks one after another; `payload.table` says where they are:
//! ```text
//! u32 number of blocks b
//! b+1 x u64 offset of each block in `payload` (the last is its length)
//! b+1 x u32 first ordinal of each block (the last is the number of rows)
//! b   x u32 bytes of each block uncompressed; the top bit set = stored as is
//! rows x u32 where the row begins in its uncompressed block
//! ```
//! A block holds about 16 KiB: small enough that fetching the payload of ten hits unpacks little, large enough that
//! neighbouring rows (chunks of one document) share their words.

use std::borrow::Cow;
use std::ops::Range;

use crate::error::{Error, Result};
use crate::types::Ordinal;

const BLOCK: usize = 16 << 10;
const STORED: u32 = 1 << 31;
/// No block is larger when unpacked: one payload at its limit and a block's worth of others.
const UNPACKED_MAX: usize = crate::limits::PAYLOAD_BYTES_MAX * 2 + BLOCK;

/// Packs payloads, in order of ordinals.
#[derive(Default)]
pub(super) struct Packer {
    offsets: Vec<u64>,
    first: Vec<u32>,
    sizes: Vec<u32>,
    starts: Vec<u32>,
    block: Vec<u8>,
    written: u64,
}

impl Packer {
    /// Adds a row's payload; calls `out` with a block when one is full.
    pub(super) fn push(&mut self, json: &str, out: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        if self.block.is_empty() {
            self.first.push(self.starts.len() as u32);
            self.offsets.push(self.written);
        }
        self.starts.push(self.block.len() as u32);
        self.block.extend_from_slice(json.as_bytes());
        if self.block.len() >= BLOCK {
            self.close(out)
        } else {
            Ok(())
        }
    }

    fn close(&mut self, out: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        // Every row of the schema has at least "{}", so an open block is never empty.
        if self.block.is_empty() {
            return Ok(());
        }
        let packed = lz4_flex::block::compress(&self.block);
        let stored = packed.len() >= self.block.len();
        let bytes = if stored { &self.block } else { &packed };
        out(bytes)?;
        self.written += bytes.len() as u64;
        self.sizes
            .push(self.block.len() as u32 | if stored { STORED } else { 0 });
        self.block.clear();
        Ok(())
    }

    /// Ends the last block; gives the table.
    pub(super) fn finish(mut self, out: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<Vec<u8>> {
        self.close(out)?;
        self.offsets.push(self.written);
        self.first.push(self.starts.len() as u32);
        let mut table = (self.sizes.len() as u32).to_le_bytes().to_vec();
        self.offsets
            .iter()
            .for_each(|o| table.extend_from_slice(&o.to_le_bytes()));
        for column in [&self.first, &self.sizes, &self.starts] {
            column.iter().for_each(|n| table.extend_from_slice(&n.to_le_bytes()));
        }
        Ok(table)
    }
}

/// Where payloads are: the checked table, as numbers.
pub(super) struct Layout {
    offsets: Vec<u64>,
    first: Vec<u32>,
    sizes: Vec<u32>,
    starts: Vec<u32>,
}

impl Layout {
    /// Reads a table.
    pub(super) fn parse(table: &[u8], payload_len: usize, rows: u32) -> Result<Self> {
        let bad = || Error::damaged("segment: payload table does not fit");
        if rows == 0 {
            return Ok(Self {
                offsets: vec![0],
                first: vec![0],
                sizes: Vec::new(),
                starts: Vec::new(),
            });
        }
        let words = |bytes: &[u8]| -> Vec<u32> {
            bytes
                .chunks_exact(4)
                .map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
                .collect()
        };
        let blocks = *words(table.get(..4).ok_or_else(bad)?).first().ok_or_else(bad)? as usize;
        let n = rows as usize;
        if blocks > n || table.len() != 4 + (blocks + 1) * 12 + blocks * 4 + n * 4 {
            return Err(bad());
        }
        let (offsets, rest) = table[4..].split_at((blocks + 1) * 8);
        let offsets: Vec<u64> = words(offsets)
            .chunks_exact(2)
            .map(|w| u64::from(w[0]) | (u64::from(w[1]) << 32))
            .collect();
        let (first, rest) = rest.split_at((blocks + 1) * 4);
        let (sizes, starts) = rest.split_at(blocks * 4);
        let layout = Self {
            offsets,
            first: words(first),
            sizes: words(sizes),
            starts: words(starts),
        };
        let ascending = layout.offsets.windows(2).all(|w| w[0] <= w[1]) && layout.first.windows(2).all(|w| w[0] < w[1]);
        let whole = layout.offsets.last() == Some(&(payload_len as u64))
            && layout.first.first() == Some(&0)
            && layout.first.last() == Some(&rows);
        let small = layout.sizes.iter().all(|s| (s & !STORED) as usize <= UNPACKED_MAX);
        if ascending && whole && small {
            Ok(layout)
        } else {
            Err(bad())
        }
    }

    /// Which bytes of the section a row's block is.
    pub(super) fn block_of(&self, ordinal: Ordinal) -> Result<Range<usize>> {
        let block = self.first.partition_point(|f| *f <= ordinal).wrapping_sub(1);
        match (self.offsets.get(block), self.offsets.get(block + 1)) {
            (Some(from), Some(to)) => Ok(*from as usize..*to as usize),
            _ => Err(Error::damaged("segment: payload block: row out of range")),
        }
    }

    /// One row's JSON, from blocks that were verified.
    pub(super) fn get<'a>(&self, payload: &'a [u8], ordinal: Ordinal) -> Result<Cow<'a, str>> {
        let bad = |what: &str| Error::damaged(format!("segment: payload block: {what}"));
        let block = self.first.partition_point(|f| *f <= ordinal) - 1;
        if block >= self.sizes.len() {
            return Err(bad("row out of range"));
        }
        let packed = &payload[self.offsets[block] as usize..self.offsets[block + 1] as usize];
        let size = (self.sizes[block] & !STORED) as usize;
        let from = self.starts[ordinal as usize] as usize;
        let last = ordinal + 1 == self.first[block + 1];
        let to = if last {
            size
        } else {
            self.starts[ordinal as usize + 1] as usize
        };
        if from > to || to > size {
            return Err(bad("row outside its block"));
        }
        let cut = |bytes: &[u8]| -> Result<String> {
            let bytes = bytes.get(from..to).ok_or_else(|| bad("shorter than it says"))?;
            Ok(std::str::from_utf8(bytes).map_err(|_| bad("not UTF-8"))?.to_owned())
        };
        if self.sizes[block] & STORED != 0 {
            let bytes = packed.get(from..to).ok_or_else(|| bad("shorter than it says"))?;
            return Ok(Cow::Borrowed(std::str::from_utf8(bytes).map_err(|_| bad("not UTF-8"))?));
        }
        let unpacked = lz4_flex::block::decompress(packed, size).map_err(|e| bad(&format!("does not unpack: {e}")))?;
        Ok(Cow::Owned(cut(&unpacked)?))
    }
}
