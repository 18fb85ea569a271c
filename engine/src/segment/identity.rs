//! Which rows a segment has: their numbers, births, ids, documents, and when they expire.
//!
//! It is a small part of a segment, and all that most writes ask for. It is read and checked by itself, so that a write need
//! not wait until a segment can be searched, and need not fail where only that part of a file is damaged.

use std::ops::Range;
use std::sync::Arc;

use roaring::RoaringBitmap;

use super::blocks::Blocks;
use crate::error::{Error, Result};
use crate::filter::eval::IdLookup;
use crate::types::{Ordinal, PointId, Row, Seq};

/// The identity of a segment's rows.
pub struct Identity {
    pub(super) blocks: Arc<Blocks>,
    pub(super) rows: u32,
    columns: Columns,
    first_expiry_ms: u64,
}

/// Where the sections are, looked up once.
struct Columns {
    rows: Range<usize>,
    births: Range<usize>,
    expiry: Range<usize>,
    acl: Range<usize>,
    acl_at: Range<usize>,
    ids: Range<usize>,
    ids_at: Range<usize>,
    ids_hash: Range<usize>,
    ids_order: Range<usize>,
    documents: Range<usize>,
    documents_at: Range<usize>,
    documents_of: Range<usize>,
    documents_hash: Range<usize>,
    documents_order: Range<usize>,
    documents_rows: Range<usize>,
    documents_rows_at: Range<usize>,
}

/// The sections that are read here.
pub(super) const SECTIONS: [&str; 16] = [
    "rows",
    "births",
    "expiry",
    "acl",
    "acl.at",
    "ids",
    "ids.at",
    "ids.hash",
    "ids.order",
    "documents",
    "documents.at",
    "documents.of",
    "documents.hash",
    "documents.order",
    "documents.rows",
    "documents.rows.at",
];

impl Identity {
    /// Reads it from blocks that were verified.
    pub(super) fn read(blocks: Arc<Blocks>) -> Result<Self> {
        let bytes = blocks.bytes();
        let sections = &blocks.tables().sections;
        let range = |name: &str| sections.get(name).cloned().unwrap_or(0..0);
        let slice = |name: &str| &bytes[range(name)];
        let rows = u32::try_from(slice("rows").len() / 8).map_err(|_| Error::damaged("segment: too many rows"))?;
        let n = rows as usize;
        let expect = |name: &str, len: usize| {
            if slice(name).len() == len {
                Ok(())
            } else {
                Err(Error::damaged(format!(
                    "segment: section {name} has {} bytes, expected {len}",
                    slice(name).len()
                )))
            }
        };
        expect("rows", n * 8)?;
        expect("births", n * 8)?;
        if sections.contains_key("expiry") {
            expect("expiry", n * 8)?;
        }
        if n == 0 {
            for name in [
                "ids.hash",
                "ids.order",
                "documents.of",
                "documents.hash",
                "documents.order",
            ] {
                expect(name, 0)?;
            }
        } else {
            check_offsets(slice("ids.at"), n, slice("ids").len(), "ids")?;
            expect("ids.hash", n * 8)?;
            expect("ids.order", n * 4)?;
            expect("documents.of", n * 4)?;
            let documents = (slice("documents.at").len() / 4).saturating_sub(1);
            if documents > 0 {
                check_offsets(slice("documents.at"), documents, slice("documents").len(), "documents")?;
            }
            let of: &[u32] = cast(slice("documents.of"))?;
            if of.iter().any(|d| *d != NO_DOCUMENT && *d as usize >= documents) {
                return Err(Error::damaged("segment: a row names a document that is not there"));
            }
            expect("documents.hash", documents * 8)?;
            expect("documents.order", documents * 4)?;
            let members: &[u32] = cast(slice("documents.rows"))?;
            if documents > 0 {
                check_offsets(slice("documents.rows.at"), documents, members.len(), "documents.rows")?;
            }
            let order: &[u32] = cast(slice("documents.order"))?;
            if order.iter().any(|d| *d as usize >= documents) || members.iter().any(|o| *o >= rows) {
                return Err(Error::damaged("segment: the document index names what is not there"));
            }
            if sections.contains_key("acl.at") {
                let acl: &[u32] = cast(slice("acl"))?;
                check_offsets(slice("acl.at"), n, acl.len(), "acl")?;
            } else {
                expect("acl", 0)?;
            }
            let order: &[u32] = cast(slice("ids.order"))?;
            if order.iter().any(|o| *o >= rows) {
                return Err(Error::damaged("segment: the id index names a row that is not there"));
            }
            let numbers: &[u64] = cast(slice("rows"))?;
            if numbers.windows(2).any(|w| w[0] >= w[1]) {
                return Err(Error::damaged("segment: rows are not in order"));
            }
            std::str::from_utf8(slice("ids")).map_err(|_| Error::damaged("segment: ids are not UTF-8"))?;
            std::str::from_utf8(slice("documents")).map_err(|_| Error::damaged("segment: documents are not UTF-8"))?;
        }
        let columns = Columns {
            rows: range("rows"),
            births: range("births"),
            expiry: range("expiry"),
            acl: range("acl"),
            acl_at: range("acl.at"),
            ids: range("ids"),
            ids_at: range("ids.at"),
            ids_hash: range("ids.hash"),
            ids_order: range("ids.order"),
            documents: range("documents"),
            documents_at: range("documents.at"),
            documents_of: range("documents.of"),
            documents_hash: range("documents.hash"),
            documents_order: range("documents.order"),
            documents_rows: range("documents.rows"),
            documents_rows_at: range("documents.rows.at"),
        };
        let expiries: &[u64] = cast(slice("expiry"))?;
        let first_expiry_ms = expiries.iter().copied().filter(|at| *at != 0).min().unwrap_or(u64::MAX);
        Ok(Self {
            rows,
            columns,
            first_expiry_ms,
            blocks,
        })
    }

    pub(super) fn slice(&self, range: &Range<usize>) -> &[u8] {
        &self.blocks.bytes()[range.clone()]
    }

    pub(super) fn numbers<T: bytemuck::AnyBitPattern>(&self, range: &Range<usize>) -> &[T] {
        // Sections are 64-byte aligned in a container that is 8-byte aligned at least, and lengths were checked when it was read.
        match self.slice(range) {
            [] => &[],
            bytes => bytemuck::cast_slice(bytes),
        }
    }

    /// Rows, dead ones included.
    pub fn rows(&self) -> u32 {
        self.rows
    }

    /// The row at an ordinal.
    pub fn row_of(&self, ordinal: Ordinal) -> Row {
        Row(self.numbers::<u64>(&self.columns.rows)[ordinal as usize])
    }

    /// The ordinal of a row, if this segment has it.
    pub fn ordinal_of(&self, row: Row) -> Option<Ordinal> {
        self.numbers::<u64>(&self.columns.rows)
            .binary_search(&row.0)
            .ok()
            .map(|i| i as Ordinal)
    }

    /// First ordinal whose row is at least `row`.
    pub fn lower_bound(&self, row: Row) -> Ordinal {
        self.numbers::<u64>(&self.columns.rows).partition_point(|r| *r < row.0) as Ordinal
    }

    /// First and last row.
    pub fn row_range(&self) -> Option<(Row, Row)> {
        let rows = self.numbers::<u64>(&self.columns.rows);
        Some((Row(*rows.first()?), Row(*rows.last()?)))
    }

    /// The record that made a row.
    pub fn birth_of(&self, ordinal: Ordinal) -> Seq {
        Seq(self.numbers::<u64>(&self.columns.births)[ordinal as usize])
    }

    /// When a row expires; 0 = never.
    pub fn expires_at_ms(&self, ordinal: Ordinal) -> u64 {
        self.numbers::<u64>(&self.columns.expiry)
            .get(ordinal as usize)
            .copied()
            .unwrap_or(0)
    }

    /// True if some row has expired by then.
    pub fn has_expired(&self, now_ms: u64) -> bool {
        self.first_expiry_ms <= now_ms
    }

    /// Principal sets that may see a row; empty = everybody.
    pub fn acl_of(&self, ordinal: Ordinal) -> &[u32] {
        let at = self.numbers::<u32>(&self.columns.acl_at);
        let all = self.numbers::<u32>(&self.columns.acl);
        match (at.get(ordinal as usize), at.get(ordinal as usize + 1)) {
            (Some(from), Some(to)) => all.get(*from as usize..*to as usize).unwrap_or(&[]),
            _ => &[],
        }
    }

    /// A row's id.
    pub fn id_of(&self, ordinal: Ordinal) -> &str {
        self.text_at(&self.columns.ids_at, &self.columns.ids, ordinal as usize)
    }

    /// The document a row is a chunk of.
    pub fn document_of(&self, ordinal: Ordinal) -> Option<&str> {
        match self.numbers::<u32>(&self.columns.documents_of)[ordinal as usize] {
            NO_DOCUMENT => None,
            document => Some(self.text_at(&self.columns.documents_at, &self.columns.documents, document as usize)),
        }
    }

    fn text_at(&self, offsets: &Range<usize>, bytes: &Range<usize>, i: usize) -> &str {
        let at = self.numbers::<u32>(offsets);
        // Offsets were checked when the segment was read to ascend within the section; a damaged one that splits a character gives "".
        std::str::from_utf8(&self.slice(bytes)[at[i] as usize..at[i + 1] as usize]).unwrap_or("")
    }

    /// Ordinals of the rows with an id, oldest first (an id may have several rows here, all but one dead).
    pub fn find_id<'a>(&'a self, id: &'a str) -> impl Iterator<Item = Ordinal> + 'a {
        let hash = hash_id(id);
        let hashes = self.numbers::<u64>(&self.columns.ids_hash);
        let order = self.numbers::<u32>(&self.columns.ids_order);
        let from = hashes.partition_point(|h| *h < hash);
        hashes[from..]
            .iter()
            .take_while(move |h| **h == hash)
            .enumerate()
            .map(move |(i, _)| order[from + i])
            .filter(move |ordinal| self.id_of(*ordinal) == id)
    }

    /// Ordinals of a document's rows.
    pub fn find_document(&self, id: &str) -> RoaringBitmap {
        let hash = hash_id(id);
        let hashes = self.numbers::<u64>(&self.columns.documents_hash);
        let order = self.numbers::<u32>(&self.columns.documents_order);
        let from = hashes.partition_point(|h| *h < hash);
        let candidates = hashes[from..]
            .iter()
            .zip(&order[from..])
            .take_while(|(h, _)| **h == hash)
            .map(|(_, d)| *d as usize);
        let rows_at = self.numbers::<u32>(&self.columns.documents_rows_at);
        let rows = self.numbers::<u32>(&self.columns.documents_rows);
        candidates
            .filter(|d| self.text_at(&self.columns.documents_at, &self.columns.documents, *d) == id)
            .flat_map(|d| &rows[rows_at[d] as usize..rows_at[d + 1] as usize])
            .copied()
            .collect()
    }
}

impl IdLookup for Identity {
    fn ordinals_of_id(&self, id: &PointId) -> Result<RoaringBitmap> {
        Ok(self.find_id(id.as_str()).collect())
    }
    fn ordinals_of_document(&self, id: &PointId) -> Result<RoaringBitmap> {
        Ok(self.find_document(id.as_str()))
    }
}

/// Marks a row that belongs to no document.
pub(super) const NO_DOCUMENT: u32 = u32::MAX;

pub(super) fn hash_id(id: &str) -> u64 {
    xxhash_rust::xxh3::xxh3_64(id.as_bytes())
}

pub(super) fn cast<T: bytemuck::AnyBitPattern>(bytes: &[u8]) -> Result<&[T]> {
    if bytes.is_empty() {
        return Ok(&[]);
    }
    bytemuck::try_cast_slice(bytes).map_err(|_| Error::damaged("segment: a section of the wrong size"))
}

fn check_offsets(offsets: &[u8], n: usize, len: usize, what: &str) -> Result<()> {
    let at: &[u32] = cast(offsets)?;
    let ok =
        at.len() == n + 1 && at.windows(2).all(|w| w[0] <= w[1]) && at.last().is_some_and(|end| *end as usize <= len);
    if ok {
        Ok(())
    } else {
        Err(Error::damaged(format!("segment: offsets of {what} do not fit")))
    }
}
