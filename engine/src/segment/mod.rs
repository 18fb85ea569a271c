//! A contiguous range of rows, with everything needed to search and return them, in one immutable container.
//!
//! Growing and sealed segments have the same bytes and the same reader: a growing one lives in memory and has no graph, a
//! sealed one is a mapped file. So there is one way to search, one way to merge, and one format to trust. A segment is never
//! edited: deaths live beside it in a [`SegmentView`].

mod build;
mod dead;
pub mod file;
mod payload;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use roaring::RoaringBitmap;

use crate::error::{Error, Result};
use crate::filter::eval::IdLookup;
use crate::filter::index::{FilterIndexLayout, FilterIndexView};
use crate::schema::Schema;
use crate::sparse::Column;
use crate::sparse::index::IndexLayout;
use crate::storage::{Backing, Dir};
use crate::text::postings::{TextIndexLayout, TextIndexView};
use crate::types::{Ordinal, Payload, PointId, Row, Seq};
use crate::vector::{BitSet, CodesLayout, Coding, HnswLayout, VectorsRef};
pub use build::{Graphs, Kept, PendingRow, Spec, merge_memory, seal, write_memory};
pub use dead::Dead;

/// An immutable segment. Cheap to share.
pub struct Segment {
    /// Number of a sealed segment; growing ones have none.
    pub no: Option<u64>,
    backing: Backing,
    rows: u32,
    columns: Columns,
    vectors: Vec<VectorPart>,
    sparse: Vec<SparsePart>,
    texts: BTreeMap<String, (TextIndexLayout, Range<usize>)>,
    filter: FilterIndexLayout,
    payload: payload::Layout,
    first_expiry_ms: u64,
}

/// Where the sections are that every row has, looked up once.
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
    payload: Range<usize>,
    filter: Range<usize>,
}

struct VectorPart {
    data: Range<usize>,
    norms: Range<usize>,
    codes_at: Range<usize>,
    graph_at: Range<usize>,
    dim: usize,
    metric: crate::schema::Metric,
    absent: Option<BitSet>,
    codes: Option<CodesLayout>,
    coding: Option<Coding>,
    graph: Option<HnswLayout>,
}

/// Where a sparse vector's sections are; the ranges are empty if no row has it.
struct SparsePart {
    data: Range<usize>,
    at: Range<usize>,
    terms: Range<usize>,
    index: Option<IndexLayout>,
}

/// A segment and the rows of it that are dead, as of one moment.
#[derive(Clone)]
pub struct SegmentView {
    /// The rows.
    pub segment: Arc<Segment>,
    /// Those that are gone.
    pub dead: Arc<Dead>,
}

impl SegmentView {
    /// A segment none of whose rows is dead.
    pub fn fresh(segment: Arc<Segment>) -> Self {
        Self {
            segment,
            dead: Arc::new(Dead::default()),
        }
    }
    /// Live rows.
    pub fn live(&self) -> u64 {
        u64::from(self.segment.rows) - self.dead.count()
    }
}

impl Segment {
    /// Maps a sealed file and checks every block of it.
    pub fn open(disk: &dyn Dir, path: &Path, no: u64, schema: &Schema) -> Result<Self> {
        Self::read(disk.map(path)?, Some(no), schema, true).map_err(|e| Error {
            message: format!("{}: {}", path.display(), e.message),
            ..e
        })
    }

    /// Reads a container.
    fn read(backing: Backing, no: Option<u64>, schema: &Schema, verify: bool) -> Result<Self> {
        let bytes = backing.bytes();
        let sections = file::sections(bytes, verify)?;
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
        let mut vectors = Vec::new();
        for (name, spec) in &schema.vectors {
            let dim = spec.dim as usize;
            expect(&format!("vector/{name}"), n * dim * 4)?;
            let norms = if spec.metric == crate::schema::Metric::Cosine {
                n
            } else {
                0
            };
            expect(&format!("norm/{name}"), norms * 4)?;
            let absent = match slice(&format!("absent/{name}")) {
                [] => None,
                bytes => {
                    let set =
                        RoaringBitmap::deserialize_from(bytes).map_err(|_| Error::damaged("segment: absent set"))?;
                    if set.max().is_some_and(|max| max >= rows) {
                        return Err(Error::damaged("segment: absent set names a row that is not there"));
                    }
                    Some(BitSet::from_iter(n, set))
                }
            };
            let graph = match slice(&format!("graph/{name}")) {
                [] => None,
                bytes => {
                    let layout = HnswLayout::parse(bytes)?;
                    if layout.len() != n {
                        return Err(Error::damaged("segment: the graph has another number of rows"));
                    }
                    Some(layout)
                }
            };
            let codes = match slice(&format!("codes/{name}")) {
                [] => None,
                bytes => {
                    let layout = CodesLayout::parse(bytes)?;
                    if !layout.fits(spec.metric, dim, n) {
                        return Err(Error::damaged("segment: the codes are those of other vectors"));
                    }
                    Some(layout)
                }
            };
            let coding = match slice(&format!("coding/{name}")) {
                [] => None,
                bytes => Some(Coding::parse(bytes)?),
            };
            if codes.as_ref().map(CodesLayout::bits) != coding.as_ref().and_then(|coding| coding.used) {
                return Err(Error::damaged("segment: the codes are not those that were chosen"));
            }
            let range = |kind: &str| range(&format!("{kind}/{name}"));
            vectors.push(VectorPart {
                data: range("vector"),
                norms: range("norm"),
                codes_at: range("codes"),
                graph_at: range("graph"),
                dim,
                metric: spec.metric,
                absent,
                codes,
                coding,
                graph,
            });
        }
        let mut sparse = Vec::new();
        for name in schema.sparse.keys() {
            let [data, at, terms] =
                ["sparse", "sparse.at", "sparse.terms"].map(|kind| range(&format!("{kind}/{name}")));
            let mut index = None;
            if !data.is_empty() {
                let starts: &[u64] = cast(&bytes[at.clone()])?;
                let fit = starts.len() == n + 1
                    && starts.windows(2).all(|w| w[0] <= w[1])
                    && starts.last() == Some(&(data.len() as u64));
                if !fit {
                    return Err(Error::damaged("segment: offsets of sparse vectors do not fit"));
                }
                let layout = IndexLayout::parse(&bytes[terms.clone()])?;
                if layout.rows() != rows {
                    return Err(Error::damaged("segment: a sparse index has another number of rows"));
                }
                index = Some(layout);
            }
            sparse.push(SparsePart { data, at, terms, index });
        }
        let mut texts = BTreeMap::new();
        for (path, _) in schema.text_fields() {
            let bytes = slice(&format!("text/{path}"));
            if !bytes.is_empty() {
                let layout = TextIndexLayout::parse(bytes)?;
                if layout.view(bytes).rows() != rows {
                    return Err(Error::damaged("segment: a text index has another number of rows"));
                }
                texts.insert(path.to_owned(), (layout, range(&format!("text/{path}"))));
            }
        }
        let filter = FilterIndexLayout::parse(slice("filter"))?;
        if filter.rows() != rows {
            return Err(Error::damaged("segment: the filter index has another number of rows"));
        }
        let payload = payload::Layout::parse(slice("payload.table"), slice("payload").len(), rows)?;
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
            payload: range("payload"),
            filter: range("filter"),
        };
        let expiries: &[u64] = cast(slice("expiry"))?;
        let first_expiry_ms = expiries.iter().copied().filter(|at| *at != 0).min().unwrap_or(u64::MAX);
        Ok(Self {
            no,
            rows,
            columns,
            vectors,
            sparse,
            texts,
            filter,
            payload,
            first_expiry_ms,
            backing,
        })
    }

    fn slice(&self, range: &Range<usize>) -> &[u8] {
        &self.backing.bytes()[range.clone()]
    }

    fn numbers<T: bytemuck::AnyBitPattern>(&self, range: &Range<usize>) -> &[T] {
        // Sections are 64-byte aligned in a container that is 8-byte aligned at least, and lengths were checked at open.
        match self.slice(range) {
            [] => &[],
            bytes => bytemuck::cast_slice(bytes),
        }
    }

    /// Rows, dead ones included.
    pub fn rows(&self) -> u32 {
        self.rows
    }

    /// Bytes of the container.
    pub fn bytes(&self) -> usize {
        self.backing.bytes().len()
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
        // Offsets were checked at open to ascend within the section; a damaged one that splits a character gives "".
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

    /// A row's payload as JSON text.
    pub fn payload_json(&self, ordinal: Ordinal) -> Result<Cow<'_, str>> {
        self.payload.get(self.slice(&self.columns.payload), ordinal)
    }

    /// The vectors under the schema's n-th name.
    pub fn vectors(&self, index: usize) -> VectorsRef<'_> {
        let part = &self.vectors[index];
        VectorsRef {
            metric: part.metric,
            dim: part.dim,
            data: self.numbers(&part.data),
            inv_norms: self.numbers(&part.norms),
            absent: part.absent.as_ref(),
            codes: part
                .codes
                .as_ref()
                .map(|layout| layout.view(self.slice(&part.codes_at))),
        }
    }

    /// For each graph the codes it is walked on and what was measured before; `None` where no codes were wanted.
    pub fn graphs(&self) -> impl Iterator<Item = Option<&Coding>> {
        let with_graph = self.vectors.iter().filter(|part| part.graph.is_some());
        with_graph.map(|part| part.coding.as_ref())
    }

    /// The graph over them, if there is one.
    pub fn graph(&self, index: usize) -> Option<crate::vector::hnsw::Hnsw<'_>> {
        let part = &self.vectors[index];
        part.graph
            .as_ref()
            .map(|layout| layout.view(self.slice(&part.graph_at)))
    }

    /// A row's vector, as it was written.
    pub fn vector_of(&self, index: usize, ordinal: Ordinal) -> Option<&[f32]> {
        let vectors = self.vectors(index);
        (!vectors.is_absent(ordinal)).then(|| vectors.row(ordinal))
    }

    /// The sparse vectors under the schema's n-th name.
    pub fn sparse(&self, index: usize) -> Column<'_> {
        let part = &self.sparse[index];
        let Some(layout) = part.index else {
            return Column::default();
        };
        let terms = layout.view(self.slice(&part.terms));
        Column::new(self.slice(&part.data), self.numbers(&part.at), Some(terms))
    }

    /// The inverted index of a text field, if any row here has that field.
    pub fn text(&self, path: &str) -> Option<TextIndexView<'_>> {
        self.texts
            .get(path)
            .map(|(layout, range)| layout.view(self.slice(range)))
    }

    /// The payload index.
    pub fn filter(&self) -> FilterIndexView<'_> {
        self.filter.view(self.slice(&self.columns.filter))
    }
}

impl IdLookup for Segment {
    fn ordinals_of_id(&self, id: &PointId) -> Result<RoaringBitmap> {
        Ok(self.find_id(id.as_str()).collect())
    }
    fn ordinals_of_document(&self, id: &PointId) -> Result<RoaringBitmap> {
        Ok(self.find_document(id.as_str()))
    }
}

/// A stored payload.
pub fn parse_payload(json: &str) -> Result<Payload> {
    serde_json::from_str(json).map_err(|e| Error::damaged(format!("segment: payload is not a JSON object: {e}")))
}

/// Marks a row that belongs to no document.
const NO_DOCUMENT: u32 = u32::MAX;

fn hash_id(id: &str) -> u64 {
    xxhash_rust::xxh3::xxh3_64(id.as_bytes())
}

fn cast<T: bytemuck::AnyBitPattern>(bytes: &[u8]) -> Result<&[T]> {
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
