//! A contiguous range of rows, with everything needed to search and return them, in one immutable container.
//!
//! Growing and sealed segments have the same bytes and the same reader: a growing one lives in memory and has no graph, a
//! sealed one is a mapped file. So there is one way to search, one way to merge, and one format to trust. A segment is never
//! edited: deaths live beside it in a [`SegmentView`].
//!
//! A [`Segment`] is one that can be searched. Of a file it is made when somebody first asks ([`Sealed`]), after its blocks were
//! verified; before that, and if the file is damaged or gone, only what the manifest says of it is known.

mod blocks;
mod build;
mod dead;
pub mod file;
mod identity;
mod payload;
mod sealed;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::{Deref, Range};
use std::sync::{Arc, OnceLock};

use roaring::RoaringBitmap;

use crate::error::{Error, Result};
use crate::filter::index::{FilterIndexLayout, FilterIndexView};
use crate::schema::Schema;
use crate::sparse::Column;
use crate::sparse::index::IndexLayout;
use crate::storage::{Backing, Resident};
use crate::text::postings::{TextIndexLayout, TextIndexView};
use crate::types::{Ordinal, Payload, Row, ShardNo};
use crate::vector::floats::Form;
use crate::vector::ivf::Ivf;
use crate::vector::{
    BitSet, Calibration, CodesLayout, Coding, Faiss, HnswLayout, IvfLayout, PacksLayout, SignsLayout, Touch, VectorsRef,
};
use blocks::Blocks;
pub use build::{Graphs, Kept, PendingRow, Spec, merge_memory, seal, write_memory};
pub use dead::Dead;
pub use identity::Identity;
use identity::cast;
pub use sealed::{Entry, Missing, Sealed, SealedView};

/// An immutable segment that can be searched. Cheap to share.
pub struct Segment {
    identity: Arc<Identity>,
    vectors: Vec<VectorPart>,
    sparse: Vec<SparsePart>,
    texts: BTreeMap<String, (TextIndexLayout, Range<usize>)>,
    filter: (FilterIndexLayout, Range<usize>),
    payload: (payload::Layout, Range<usize>),
}

/// Sections that a walk of a graph reads, and which of them is which.
const WALKED: [&str; 5] = ["graph", "codes", "signs", "packs", "bits"];
const GRAPH: usize = 0;
const CODES: usize = 1;
const SIGNS: usize = 2;
const PACKS: usize = 3;
const BITS: usize = 4;

struct VectorPart {
    raw: RawVectors,
    norms: Range<usize>,
    /// What is walked: [`GRAPH`] and what is beside it.
    walked: [Range<usize>; WALKED.len()],
    /// The same in memory of its own, if it was asked for.
    resident: OnceLock<Resident>,
    dim: usize,
    metric: crate::schema::Metric,
    absent: Option<BitSet>,
    codes: Option<CodesLayout>,
    signs: Option<SignsLayout>,
    packs: Option<PacksLayout>,
    coding: Option<Coding>,
    graph: Option<HnswLayout>,
    calibration: Option<Calibration>,
    /// The same of walks that go by packs.
    calibration_by_packs: Option<Calibration>,
    lists: Option<Lists>,
    faiss: Option<Faiss>,
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
    /// Number of a sealed segment; growing ones have none.
    pub no: Option<u64>,
    /// The rows.
    pub segment: Arc<Segment>,
    /// Those that are gone.
    pub dead: Arc<Dead>,
}

impl SegmentView {
    /// A segment none of whose rows is dead.
    pub fn fresh(segment: Arc<Segment>) -> Self {
        Self {
            no: None,
            segment,
            dead: Arc::new(Dead::default()),
        }
    }
    /// Live rows.
    pub fn live(&self) -> u64 {
        u64::from(self.segment.rows()) - self.dead.count()
    }

    /// What an answer without it lacks.
    pub fn missing(&self, shard: ShardNo) -> Missing {
        let (first, last) = self.segment.row_range().unwrap_or((Row(0), Row(0)));
        let damage = self.segment.damage();
        Missing {
            shard: shard.0,
            segment: self.no.unwrap_or_default(),
            points: self.live(),
            first_row: first.0,
            last_row: last.0,
            reason: damage.map_or_else(String::new, |damage| damage.message.clone()),
        }
    }
}

impl Segment {
    /// A growing segment: a container that was just made in memory.
    fn growing(backing: Backing, schema: &Schema) -> Result<Self> {
        let identity = Identity::read(Arc::new(Blocks::trusted(backing)?))?;
        Self::read(Arc::new(identity), schema)
    }

    /// Reads what is left of a container whose identity was read, from blocks that were verified: all but those that hold
    /// payloads, lists, and vectors that are no bits only, which are verified when they are first looked at.
    fn read(identity: Arc<Identity>, schema: &Schema) -> Result<Self> {
        let blocks = Arc::clone(&identity.blocks);
        let bytes = blocks.bytes();
        let rows = identity.rows;
        let n = rows as usize;
        let range = |name: &str| blocks.section(name);
        let slice = |name: &str| &bytes[range(name)];
        let expect = |name: &str, len: usize| {
            if range(name).len() == len {
                Ok(())
            } else {
                Err(Error::damaged(format!(
                    "segment: section {name} has {} bytes, expected {len}",
                    range(name).len()
                )))
            }
        };
        let mut vectors = Vec::new();
        for (name, spec) in &schema.vectors {
            let dim = spec.dim as usize;
            // In one form, and not in the others.
            let is_there = |form: &Form| !slice(&format!("{}/{name}", form.section())).is_empty();
            let form = Form::ALL
                .into_iter()
                .find(is_there)
                .unwrap_or(Form::of_metric(spec.metric));
            if !form.is_for(spec.metric) {
                return Err(Error::damaged(format!(
                    "segment: vectors kept as {form:?}, compared by {:?}",
                    spec.metric
                )));
            }
            for other in Form::ALL {
                let bytes = if other == form { n * form.row_bytes(dim) } else { 0 };
                expect(&format!("{}/{name}", other.section()), bytes)?;
            }
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
            let calibration = match slice(&format!("recall/{name}")) {
                [] => None,
                _ if graph.is_none() => return Err(Error::damaged("segment: a calibration of no graph")),
                bytes => Some(Calibration::parse(bytes)?),
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
            let signs = match slice(&format!("signs/{name}")) {
                [] => None,
                _ if graph.is_none() => return Err(Error::damaged("segment: signs of no graph")),
                bytes => {
                    let layout = SignsLayout::parse(bytes)?;
                    if !layout.fits(spec.metric, dim, n) {
                        return Err(Error::damaged("segment: the signs are those of other vectors"));
                    }
                    Some(layout)
                }
            };
            let packs = match (slice(&format!("packs/{name}")), &graph) {
                ([], _) => None,
                (_, None) => return Err(Error::damaged("segment: packs of no graph")),
                (bytes, Some(graph)) => {
                    let graph = graph.view(slice(&format!("graph/{name}")));
                    let layout = PacksLayout::parse(bytes, &graph)?;
                    if !layout.fits(spec.metric, dim, n) {
                        return Err(Error::damaged("segment: the packs are those of other vectors"));
                    }
                    Some(layout)
                }
            };
            let calibration_by_packs = match slice(&format!("recall.packs/{name}")) {
                [] => None,
                _ if packs.is_none() => return Err(Error::damaged("segment: a calibration of no packs")),
                bytes => Some(Calibration::parse(bytes)?),
            };
            let coding = match slice(&format!("coding/{name}")) {
                [] => None,
                bytes => Some(Coding::parse(bytes)?),
            };
            let range = |kind: &str| range(&format!("{kind}/{name}"));
            let lists = match &bytes[range("ivf")] {
                [] => None,
                bytes => {
                    let layout = IvfLayout::parse(bytes)?;
                    let fit =
                        layout.records_bytes() == range("lists").len() && layout.packs_fit(range("lists.packs").len());
                    if !layout.fits(spec.metric, dim, n) || !fit {
                        return Err(Error::damaged("segment: the lists are those of other vectors"));
                    }
                    Some(Lists {
                        blocks: Arc::clone(&blocks),
                        layout,
                        at: range("ivf"),
                        records: range("lists"),
                        packs: range("lists.packs"),
                    })
                }
            };
            let faiss = match &bytes[range("faiss")] {
                [] => None,
                _ if graph.is_some() || lists.is_some() => {
                    return Err(Error::damaged("segment: an index of faiss beside another"));
                }
                bytes => Faiss::read(bytes, spec.metric, dim, n, absent.as_ref())?,
            };
            let bits = match &lists {
                None => codes.as_ref().map(CodesLayout::bits),
                Some(_) if codes.is_some() => return Err(Error::damaged("segment: codes beside lists")),
                Some(lists) => lists.layout.bits(),
            };
            if bits != coding.as_ref().and_then(|coding| coding.used) {
                return Err(Error::damaged("segment: the codes are not those that were chosen"));
            }
            vectors.push(VectorPart {
                raw: RawVectors {
                    blocks: Arc::clone(&blocks),
                    data: range(form.section()),
                    row_bytes: form.row_bytes(dim),
                    form,
                },
                norms: range("norm"),
                walked: WALKED.map(range),
                resident: OnceLock::new(),
                dim,
                metric: spec.metric,
                absent,
                codes,
                signs,
                packs,
                coding,
                graph,
                calibration,
                calibration_by_packs,
                lists,
                faiss,
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
        Ok(Self {
            vectors,
            sparse,
            texts,
            filter: (filter, range("filter")),
            payload: (payload, range("payload")),
            identity,
        })
    }

    /// Bytes of the container.
    pub fn bytes(&self) -> usize {
        self.blocks.bytes().len()
    }

    /// Verifies what a row has of its own and is not verified with the rest: its payload and its vectors.
    pub fn verify_row(&self, ordinal: Ordinal) -> Result<()> {
        let (payload, section) = &self.payload;
        let within = payload.block_of(ordinal)?;
        self.blocks
            .verify(section.start + within.start..section.start + within.end)?;
        self.vectors
            .iter()
            .try_for_each(|part| self.blocks.verify(part.raw.range_of(ordinal)))
    }

    /// Which rows it has, by itself.
    pub fn shared_identity(&self) -> Arc<Identity> {
        Arc::clone(&self.identity)
    }

    /// What was found wrong with its file since it was read.
    pub fn damage(&self) -> Option<&Error> {
        self.blocks.damage()
    }

    /// A row's payload as JSON text.
    pub fn payload_json(&self, ordinal: Ordinal) -> Result<Cow<'_, str>> {
        let (payload, section) = &self.payload;
        let within = payload.block_of(ordinal)?;
        self.blocks
            .verify(section.start + within.start..section.start + within.end)?;
        payload.get(self.slice(section), ordinal)
    }

    /// The vectors under the schema's n-th name.
    pub fn vectors(&self, index: usize) -> VectorsRef<'_> {
        let part = &self.vectors[index];
        VectorsRef {
            metric: part.metric,
            dim: part.dim,
            data: part.raw.form.of(match part.raw.form {
                Form::Singles | Form::Halves => self.slice(&part.raw.data),
                Form::Bits => self.walked(part, BITS),
            }),
            touch: match part.raw.form {
                Form::Singles | Form::Halves if !self.blocks.is_verified() => Some(&part.raw),
                // Bits were verified with all else that is walked.
                Form::Singles | Form::Halves | Form::Bits => None,
            },
            inv_norms: self.numbers(&part.norms),
            absent: part.absent.as_ref(),
            codes: part.codes.as_ref().map(|layout| layout.view(self.walked(part, CODES))),
            signs: part.signs.as_ref().map(|layout| layout.view(self.walked(part, SIGNS))),
            packs: part.packs.as_ref().map(|layout| layout.view(self.walked(part, PACKS))),
        }
    }

    /// For each graph the codes it is walked on and what was measured before; `None` where no codes were wanted.
    pub fn graphs(&self) -> impl Iterator<Item = Option<&Coding>> {
        let with_graph = self.vectors.iter().filter(|part| part.graph.is_some());
        with_graph.map(|part| part.coding.as_ref())
    }

    /// The same of inverted lists, and the codes in them.
    pub fn inverted(&self) -> impl Iterator<Item = Option<&Coding>> {
        let with_lists = self.vectors.iter().filter(|part| part.lists.is_some());
        with_lists.map(|part| part.coding.as_ref())
    }

    /// The graph over them, if there is one.
    pub fn graph(&self, index: usize) -> Option<crate::vector::hnsw::Hnsw<'_>> {
        let part = &self.vectors[index];
        part.graph.as_ref().map(|layout| layout.view(self.walked(part, GRAPH)))
    }

    /// Bytes of a part of what is walked.
    fn walked<'a>(&'a self, part: &'a VectorPart, which: usize) -> &'a [u8] {
        match part.resident.get() {
            Some(resident) => resident.part(which),
            None => self.slice(&part.walked[which]),
        }
    }

    /// Copies a graph and what is walked with it into memory of its own, the first for which that was not done before. Gives back how many
    /// bytes were copied, 0 if there is none left. What is walked must have been verified, as it is of every segment that there is.
    pub fn keep_graph_in_memory(&self) -> Result<usize> {
        let is_mapped = |part: &&VectorPart| part.graph.is_some() && part.resident.get().is_none();
        let Some(part) = self.vectors.iter().find(is_mapped) else {
            return Ok(0);
        };
        let resident = Resident::copy(&part.walked.each_ref().map(|range| self.slice(range)))?;
        let bytes = resident.bytes();
        // Somebody else may have been faster.
        let _ = part.resident.set(resident);
        Ok(bytes)
    }

    /// Bytes of graphs that are in memory of their own.
    pub fn graph_bytes_in_memory(&self) -> usize {
        let residents = self.vectors.iter().filter_map(|part| part.resident.get());
        residents.map(Resident::bytes).sum()
    }

    /// What effort finds how much in that graph, if it was measured.
    pub fn calibration(&self, index: usize) -> Option<&Calibration> {
        self.vectors[index].calibration.as_ref()
    }

    /// The same of walks that go by packs, as those among all rows do; of the others if there are no packs.
    pub fn calibration_for_all(&self, index: usize) -> Option<&Calibration> {
        let part = &self.vectors[index];
        match part.packs {
            Some(_) => part.calibration_by_packs.as_ref(),
            None => part.calibration.as_ref(),
        }
    }

    /// The inverted lists of them, if there are any.
    pub fn lists(&self, index: usize) -> Option<Ivf<'_>> {
        let lists = self.vectors[index].lists.as_ref()?;
        let touch = (!self.blocks.is_verified()).then_some(lists as &dyn Touch);
        Some(lists.layout.view(
            self.slice(&lists.at),
            self.slice(&lists.records),
            self.slice(&lists.packs),
            touch,
        ))
    }

    /// What Faiss made of them, if it did and this build has it.
    pub fn faiss(&self, index: usize) -> Option<&Faiss> {
        self.vectors[index].faiss.as_ref()
    }

    /// A row's vector, as it was written.
    pub fn vector_of(&self, index: usize, ordinal: Ordinal) -> Option<Cow<'_, [f32]>> {
        let vectors = self.vectors(index);
        (!vectors.is_absent(ordinal)).then(|| vectors.row(ordinal))
    }

    /// How its vectors under the schema's n-th name are kept.
    pub(super) fn form(&self, index: usize) -> Form {
        self.vectors[index].raw.form
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
        self.filter.0.view(self.slice(&self.filter.1))
    }
}

impl Deref for Segment {
    type Target = Identity;
    fn deref(&self) -> &Identity {
        &self.identity
    }
}

/// Vectors as they were given, the largest part of a file.
struct RawVectors {
    blocks: Arc<Blocks>,
    data: Range<usize>,
    row_bytes: usize,
    form: Form,
}

impl RawVectors {
    fn range_of(&self, ordinal: Ordinal) -> Range<usize> {
        let from = self.data.start + ordinal as usize * self.row_bytes;
        from..from + self.row_bytes
    }
}

impl Touch for RawVectors {
    fn touch(&self, ordinal: Ordinal) -> bool {
        // What the search finds is thrown away for the damage that is kept: whatever the reason, it was not looked at.
        let verified = self.blocks.verify(self.range_of(ordinal));
        verified.map_err(|error| self.blocks.condemn(error)).is_ok()
    }
}

/// Inverted lists, whose records are read list by list.
struct Lists {
    blocks: Arc<Blocks>,
    layout: IvfLayout,
    at: Range<usize>,
    records: Range<usize>,
    packs: Range<usize>,
}

impl Touch for Lists {
    fn touch(&self, list: Ordinal) -> bool {
        let within = self.layout.records_of(&self.blocks.bytes()[self.at.clone()], list);
        let range = self.records.start + within.start..self.records.start + within.end;
        // As with vectors.
        let verified = self.blocks.verify(range);
        verified.map_err(|error| self.blocks.condemn(error)).is_ok()
    }
}

/// A stored payload.
pub fn parse_payload(json: &str) -> Result<Payload> {
    serde_json::from_str(json).map_err(|e| Error::damaged(format!("segment: payload is not a JSON object: {e}")))
}
