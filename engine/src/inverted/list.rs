//! One term's rows, as bytes that are searched in place.
//!
//! ```text
//! list      = varint df | directory | postings                           df >= 1
//! directory = one entry for each window of 256 rows in which the term stands, ascending, until df rows are told:
//!             varint (gap << 2 | kind) | u8 max | [u8 count - 1]         gap: windows skipped since the one before
//!             kind 0: several rows; 1: one, without a count; 2: several that all have level max
//! postings  = for each entry: count x u8 low | count x u8 level          kinds 1 and 2 have no levels
//! ```
//!
//! `low` is the ordinal within its window, ascending. `max` is the largest level of the window, which bounds what the term
//! can add there: a search reads all of the directory, and postings where the bounds say so. Windows of 64 and 128 rows
//! were measured too: their bounds are tighter, but reading more of them costs more than the postings they save.
//!
//! Damage: [`List::blocks`] checks the directory against the bytes that are there. A low is any byte, so no
//! bytes can make a search read or write out of place; an ordinal beyond the segment is refused by who meets it.

use super::varint;
use crate::error::{Error, Result};
use crate::types::Ordinal;

/// Rows of a window: as many as a byte can tell apart.
pub const WINDOW: usize = 1 << u8::BITS;

/// What is said of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Several = 0,
    One = 1,
    Alike = 2,
}

/// Levels of rows that are all alike, so that no reader has to tell them from others.
static ALIKE: [[u8; WINDOW]; WINDOW] = {
    let mut levels = [[0; WINDOW]; WINDOW];
    let mut level = 0;
    while level < WINDOW {
        levels[level] = [level as u8; WINDOW];
        level += 1;
    }
    levels
};

/// A list being written, in ascending order of ordinals.
#[derive(Default)]
pub struct ListBuilder {
    df: u32,
    /// The first ordinal that may come next.
    next: Ordinal,
    /// The window being filled, and its postings.
    window: u32,
    lows: Vec<u8>,
    levels: Vec<u8>,
    /// The first window that an entry's gap counts from.
    after: u32,
    directory: Vec<u8>,
    postings: Vec<u8>,
}

impl ListBuilder {
    /// Adds a row.
    pub fn push(&mut self, ordinal: Ordinal, level: u8) {
        debug_assert!(ordinal >= self.next, "ordinals ascend");
        let window = ordinal / WINDOW as u32;
        if window != self.window {
            self.close();
            self.window = window;
        }
        self.lows.push((ordinal % WINDOW as u32) as u8);
        self.levels.push(level);
        self.df += 1;
        self.next = ordinal + 1;
    }

    fn close(&mut self) {
        let Some(max) = self.levels.iter().max() else {
            return;
        };
        let kind = match self.levels.len() {
            1 => Kind::One,
            _ if self.levels.iter().all(|level| level == max) => Kind::Alike,
            _ => Kind::Several,
        };
        let gap = u64::from(self.window - self.after);
        varint::put(&mut self.directory, gap << 2 | kind as u64);
        self.directory.push(*max);
        if kind != Kind::One {
            self.directory.push((self.levels.len() - 1) as u8);
        }
        self.postings.append(&mut self.lows);
        if kind == Kind::Several {
            self.postings.append(&mut self.levels);
        }
        self.levels.clear();
        self.after = self.window + 1;
    }

    /// Rows so far.
    pub fn df(&self) -> u32 {
        self.df
    }

    /// Appends the list's bytes and begins another.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        self.close();
        varint::put(out, u64::from(self.df));
        out.append(&mut self.directory);
        out.append(&mut self.postings);
        (self.df, self.next, self.window, self.after) = (0, 0, 0, 0);
    }
}

/// The rows of a list within one window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    /// Which window.
    pub window: u32,
    kind: Kind,
    /// Rows less one.
    last: u8,
    /// The largest level among them.
    pub max: u8,
    /// Where its postings begin.
    at: usize,
}

impl Block {
    /// Rows in it.
    pub fn count(&self) -> usize {
        usize::from(self.last) + 1
    }
}

/// A list that was found in a segment.
#[derive(Clone, Copy)]
pub struct List<'a> {
    df: u32,
    windows: u32,
    rest: &'a [u8],
}

fn damaged(what: &str) -> Error {
    Error::damaged(format!("posting list: {what}"))
}

impl<'a> List<'a> {
    /// The list at the front of `bytes`, of a segment of `rows` rows.
    pub fn at(mut bytes: &'a [u8], rows: u32) -> Result<Self> {
        let df = varint::take(&mut bytes)
            .and_then(|df| u32::try_from(df).ok())
            .filter(|df| (1..=rows).contains(df))
            .ok_or_else(|| damaged("of no or too many rows"))?;
        Ok(Self {
            df,
            windows: rows.div_ceil(WINDOW as u32),
            rest: bytes,
        })
    }

    /// Rows in it, dead ones included.
    pub fn df(&self) -> u32 {
        self.df
    }

    /// Reads the directory.
    pub fn blocks(&self) -> Result<Blocks<'a>> {
        let mut rest = self.rest;
        let mut blocks = Vec::with_capacity((self.df as usize).min(self.windows as usize));
        let (mut left, mut next, mut at) = (self.df, 0u64, 0usize);
        while left > 0 {
            let block = Self::entry(&mut rest, &mut next, at)
                .filter(|block| block.window < self.windows)
                .ok_or_else(|| damaged("a directory that cannot be"))?;
            let count = block.count() as u32;
            left = left
                .checked_sub(count)
                .ok_or_else(|| damaged("more rows than it says"))?;
            at += if block.kind == Kind::Several { 2 } else { 1 } * count as usize;
            blocks.push(block);
        }
        let (postings, after) = rest
            .split_at_checked(at)
            .ok_or_else(|| damaged("shorter than it says"))?;
        Ok(Blocks {
            blocks,
            postings,
            after,
        })
    }

    fn entry(rest: &mut &[u8], next: &mut u64, at: usize) -> Option<Block> {
        let code = varint::take(rest)?;
        let window = *next + (code >> 2);
        let kind = match code & 3 {
            0 => Kind::Several,
            1 => Kind::One,
            2 => Kind::Alike,
            _ => return None,
        };
        let (&max, tail) = rest.split_first()?;
        *rest = tail;
        let last = if kind == Kind::One {
            0
        } else {
            let (&last, tail) = rest.split_first().filter(|(last, _)| **last > 0)?;
            *rest = tail;
            last
        };
        *next = window + 1;
        Some(Block {
            window: u32::try_from(window).ok()?,
            kind,
            last,
            max,
            at,
        })
    }
}

/// A list with its directory read.
pub struct Blocks<'a> {
    /// By ascending window.
    pub blocks: Vec<Block>,
    postings: &'a [u8],
    /// What stands behind the list.
    pub after: &'a [u8],
}

impl<'a> Blocks<'a> {
    /// The lows of a block and their levels. `block` is one of these blocks.
    #[inline]
    pub fn postings(&self, block: &Block) -> (&'a [u8], &'a [u8]) {
        let count = block.count();
        let bytes = &self.postings[block.at..];
        let levels = match block.kind {
            Kind::Several => &bytes[count..2 * count],
            Kind::One | Kind::Alike => &ALIKE[usize::from(block.max)][..count],
        };
        (&bytes[..count], levels)
    }

    /// A row's level; `None` if it is not in the list.
    pub fn level_of(&self, ordinal: Ordinal) -> Option<u8> {
        let window = ordinal / WINDOW as u32;
        let at = self.blocks.binary_search_by_key(&window, |block| block.window).ok()?;
        let (lows, levels) = self.postings(&self.blocks[at]);
        let low = (ordinal % WINDOW as u32) as u8;
        Some(levels[lows.binary_search(&low).ok()?])
    }

    /// Every row with its level, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (Ordinal, u8)> + '_ {
        self.blocks.iter().flat_map(move |block| {
            let (lows, levels) = self.postings(block);
            let first = block.window * WINDOW as u32;
            lows.iter()
                .zip(levels)
                .map(move |(low, level)| (first + u32::from(*low), *level))
        })
    }
}
