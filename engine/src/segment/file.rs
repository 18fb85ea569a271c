//! The container of a segment: named sections in one file, each block of it checksummed.
//!
//! ```text
//! offset  bytes
//!      0     64  header: magic "CAIRNSEG", u32 format version, zeros
//!     64      -  sections, each beginning at a multiple of 64, zero-padded between
//!      T      -  section table: u32 count, then per section u16 name length, name, u64 offset, u64 length
//!      C      -  block table: CRC-32C (u32) of each 64 KiB block of [0, C), the last block may be short
//!   end-32    32  footer: u64 T, u64 C, u32 CRC-32C of block table, T and C, u32 format version, magic "CAIRNEND"
//! ```
//! The table stands at the end so that a file is written front to back, and an index can be built from vectors that are
//! already in it. The same bytes live in memory for growing segments, where only the section table is verified. Of a file
//! the other blocks are verified when they are first needed (`blocks.rs`).

use std::collections::BTreeMap;
use std::io::{BufWriter, Write};
use std::ops::Range;

use crate::error::{Error, Result};
use crate::limits::BLOCK_BYTES;
use crate::storage::NewFile;

const MAGIC: &[u8; 8] = b"CAIRNSEG";
const MAGIC_END: &[u8; 8] = b"CAIRNEND";
/// Version of the container and of the sections' meaning.
pub const FORMAT_VERSION: u32 = 3;
/// The one before it, which is read, too: it has no vectors of halves. Any other is refused.
const FORMAT_VERSION_BEFORE: u32 = 2;
const HEADER: usize = 64;
const FOOTER: usize = 32;
/// Sections start at multiples of this: a cache line, and the strictest alignment a section's numbers need.
pub const ALIGN: usize = 64;

/// Writes a container front to back.
pub struct Writer<W: Write> {
    out: W,
    at: u64,
    block_crc: u32,
    block_filled: usize,
    blocks: Vec<u32>,
    sections: Vec<(String, u64, u64)>,
}

impl<W: Write> Writer<W> {
    /// Begins with the header.
    pub fn new(out: W) -> Result<Self> {
        let mut writer = Self {
            out,
            at: 0,
            block_crc: 0,
            block_filled: 0,
            blocks: Vec::new(),
            sections: Vec::new(),
        };
        let mut header = [0u8; HEADER];
        header[..8].copy_from_slice(MAGIC);
        header[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        writer.put(&header)?;
        Ok(writer)
    }

    /// Adds a section in one piece. Empty sections are left out.
    pub fn section(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.begin(name)?;
        self.put(bytes)?;
        self.end()
    }

    /// Begins a section that is written piece by piece.
    pub fn begin(&mut self, name: &str) -> Result<()> {
        let gap = (ALIGN - (self.at as usize % ALIGN)) % ALIGN;
        self.put(&[0u8; ALIGN][..gap])?;
        self.sections.push((name.to_owned(), self.at, 0));
        Ok(())
    }

    /// Ends it. Returns where it stands.
    pub fn end(&mut self) -> Result<()> {
        let at = self.at;
        let section = self.sections.last_mut().expect("end follows begin");
        section.2 = at - section.1;
        Ok(())
    }

    /// Where a finished section stands.
    pub fn range_of(&self, name: &str) -> Option<Range<usize>> {
        let (_, offset, len) = self.sections.iter().find(|s| s.0 == name)?;
        Some(*offset as usize..(*offset + *len) as usize)
    }

    /// Writes bytes of the current section.
    pub fn put(&mut self, mut bytes: &[u8]) -> Result<()> {
        self.at += bytes.len() as u64;
        self.out.write_all(bytes)?;
        while !bytes.is_empty() {
            let take = bytes.len().min(BLOCK_BYTES - self.block_filled);
            self.block_crc = crc32c::crc32c_append(self.block_crc, &bytes[..take]);
            self.block_filled += take;
            bytes = &bytes[take..];
            if self.block_filled == BLOCK_BYTES {
                self.close_block();
            }
        }
        Ok(())
    }

    fn close_block(&mut self) {
        if self.block_filled > 0 {
            self.blocks.push(self.block_crc);
            self.block_crc = 0;
            self.block_filled = 0;
        }
    }

    /// The sink, for a look at what is written so far.
    pub fn sink(&mut self) -> &mut W {
        &mut self.out
    }

    /// Ends with tables and footer; gives the sink back, flushed.
    pub fn finish(mut self) -> Result<W> {
        let table_at = self.at;
        let mut table = (self.sections.len() as u32).to_le_bytes().to_vec();
        for (name, offset, len) in &self.sections {
            table.extend_from_slice(&(name.len() as u16).to_le_bytes());
            table.extend_from_slice(name.as_bytes());
            table.extend_from_slice(&offset.to_le_bytes());
            table.extend_from_slice(&len.to_le_bytes());
        }
        self.put(&table)?;
        self.close_block();
        let blocks_at = self.at;
        let blocks: Vec<u8> = self.blocks.iter().flat_map(|crc| crc.to_le_bytes()).collect();
        self.out.write_all(&blocks)?;
        let mut footer = Vec::with_capacity(FOOTER);
        footer.extend_from_slice(&table_at.to_le_bytes());
        footer.extend_from_slice(&blocks_at.to_le_bytes());
        let crc = crc32c::crc32c_append(crc32c::crc32c(&blocks), &footer);
        footer.extend_from_slice(&crc.to_le_bytes());
        footer.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        footer.extend_from_slice(MAGIC_END);
        self.out.write_all(&footer)?;
        self.out.flush()?;
        Ok(self.out)
    }
}

/// Sink of sealed files.
pub type FileSink = BufWriter<Box<dyn NewFile>>;

/// What the end of a container says of it, checked.
#[derive(Debug)]
pub struct Tables {
    /// Where each section is.
    pub sections: BTreeMap<String, Range<usize>>,
    /// Where the blocks end and the block table begins.
    pub end: usize,
    /// Checksum of the block table and the footer. The table has that of every block, so equal ones mean equal bytes.
    pub crc: u32,
}

impl Tables {
    /// How many blocks there are.
    pub fn blocks(&self) -> usize {
        self.end.div_ceil(BLOCK_BYTES)
    }

    /// Which bytes a block is.
    pub fn block(&self, i: usize) -> Range<usize> {
        i * BLOCK_BYTES..((i + 1) * BLOCK_BYTES).min(self.end)
    }

    /// Compares a block of the container `bytes`, wherever it was read, with its checksum.
    pub fn check_block(&self, bytes: &[u8], i: usize, block: &[u8]) -> Result<()> {
        let at = self.end + i * 4;
        if bytes.get(at..at + 4) == Some(&crc32c::crc32c(block).to_le_bytes()[..]) {
            Ok(())
        } else {
            Err(bad(&format!(
                "checksum of block {i} (offset {}) does not match",
                i * BLOCK_BYTES
            )))
        }
    }
}

/// Bytes at the end that say where the tables are.
pub const FOOTER_BYTES: usize = FOOTER;

/// Where the section table begins, as the footer says: what is read first of a file. Nothing is checked yet.
pub fn tables_at(footer: &[u8; FOOTER]) -> u64 {
    u64::from_le_bytes(footer[..8].try_into().expect("eight bytes"))
}

fn bad(what: &str) -> Error {
    Error::damaged(format!("segment container: {what}"))
}

/// Reads the tables: checks the footer, the block table, and the blocks that hold the section table. No other block is
/// looked at.
pub fn tables(bytes: &[u8]) -> Result<Tables> {
    if bytes.len() < HEADER + FOOTER {
        return Err(bad("shorter than header and footer"));
    }
    let u32_at = |at: usize| {
        bytes
            .get(at..at + 4)
            .map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
    };
    let u64_at = |at: usize| {
        bytes
            .get(at..at + 8)
            .map(|b| u64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]))
    };
    let footer = bytes.len() - FOOTER;
    if &bytes[..8] != MAGIC || &bytes[bytes.len() - 8..] != MAGIC_END {
        return Err(bad("not a segment file, or cut off"));
    }
    let versions = [8, footer + 20].map(u32_at);
    for version in versions {
        match version {
            Some(FORMAT_VERSION | FORMAT_VERSION_BEFORE) => {}
            version => return Err(bad(&format!("format version {version:?} is unknown to this build"))),
        }
    }
    // No checksum is about that of the footer.
    if versions[0] != versions[1] {
        return Err(bad("header and footer differ in their format version"));
    }
    let offset = |at: usize| -> Result<usize> {
        usize::try_from(u64_at(at).unwrap_or(u64::MAX))
            .ok()
            .filter(|o| *o <= footer)
            .ok_or_else(|| bad("offset beyond the file"))
    };
    let (table_at, blocks_at) = (offset(footer)?, offset(footer + 8)?);
    if table_at > blocks_at || blocks_at + blocks_at.div_ceil(BLOCK_BYTES) * 4 != footer {
        return Err(bad("tables do not fit together"));
    }
    // Where the tables are is checked with them: elsewhere may stand something that reads like a table of nothing.
    let crc = crc32c::crc32c(&bytes[blocks_at..footer + 16]);
    if u32_at(footer + 16) != Some(crc) {
        return Err(bad("checksum of the block table and the footer does not match"));
    }
    let mut tables = Tables {
        sections: BTreeMap::new(),
        end: blocks_at,
        crc,
    };
    for i in table_at / BLOCK_BYTES..tables.blocks() {
        tables.check_block(bytes, i, &bytes[tables.block(i)])?;
    }
    let mut at = table_at;
    let mut take = |n: usize| -> Result<&[u8]> {
        let end = at
            .checked_add(n)
            .filter(|end| *end <= blocks_at)
            .ok_or_else(|| bad("section table cut off"))?;
        let slice = &bytes[at..end];
        at = end;
        Ok(slice)
    };
    let number = |b: &[u8]| b.iter().rev().fold(0u64, |n, byte| (n << 8) | u64::from(*byte));
    let count = number(take(4)?);
    for _ in 0..count {
        let name_len = number(take(2)?) as usize;
        let name = std::str::from_utf8(take(name_len)?)
            .map_err(|_| bad("section name is not UTF-8"))?
            .to_owned();
        let (offset, len) = (number(take(8)?), number(take(8)?));
        let end = offset
            .checked_add(len)
            .filter(|end| *end <= table_at as u64 && offset % ALIGN as u64 == 0);
        let end = end.ok_or_else(|| bad(&format!("section {name} lies outside the file")))?;
        tables.sections.insert(name, offset as usize..end as usize);
    }
    Ok(tables)
}
