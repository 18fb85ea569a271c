//! Makes segments: from rows just applied (a growing segment in memory), or from the live rows of other segments (a bigger
//! growing one, a sealed file, or a merge of sealed files). One writer serves all; only where the rows come from and
//! whether an index is built differ.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::Arc;

use roaring::RoaringBitmap;

use super::file::{FileSink, Writer};
use super::identity::{NO_DOCUMENT, hash_id};
use super::{Sealed, Segment, parse_payload, payload};
use crate::config::Workers;
use crate::error::{Error, Result};
use crate::filter::extract;
use crate::filter::index::{self as filter_index, FilterIndexBuilder};
use crate::schema::{IndexSpec, Metric, Schema, VectorSpec};
use crate::sparse;
use crate::storage::{Backing, Dir, NewFile, files};
use crate::text::analyzer::Analyzer;
use crate::text::postings::{self, TextIndexBuilder};
use crate::types::{Ordinal, PointId, Row, Seq};
use crate::vector::calibration::Questions;
use crate::vector::fidelity::{PROBES, PROBES_GROWING};
use crate::vector::floats::{Form, Owned};
use crate::vector::{
    BitSet, Calibration, CodesLayout, Coding, Floats, HnswLayout, PacksLayout, SignsLayout, VectorsRef, codes, faiss,
    hnsw, inv_norm, ivf, packs, signs,
};

/// A row that was applied and stands in no segment yet.
#[derive(Debug, Clone)]
pub struct PendingRow {
    /// Its number.
    pub row: Row,
    /// The record that made it.
    pub birth: Seq,
    /// Its point's id.
    pub id: PointId,
    /// The document it is a chunk of.
    pub document: Option<PointId>,
    /// 0 = never.
    pub expires_at_ms: u64,
    /// Principal sets.
    pub acl: Vec<u32>,
    /// In the schema's order of names.
    pub vectors: Vec<Option<Owned>>,
    /// In the schema's order of names, as bytes (`sparse/row.rs`).
    pub sparse: Vec<Option<Vec<u8>>>,
    /// JSON object.
    pub payload: String,
    /// Its content stands in `rows`, so it does not need the log to be rebuilt.
    pub inline: bool,
    /// Died before it got into a segment.
    pub dead: bool,
}

impl PendingRow {
    /// Rough bytes in memory.
    pub fn bytes(&self) -> usize {
        let vectors: usize = self.vectors.iter().flatten().map(|v| v.view().bytes().len()).sum();
        let sparse: usize = self.sparse.iter().flatten().map(Vec::len).sum();
        128 + self.payload.len() * 2 + vectors + sparse
    }
}

/// Rows of a segment that go into another.
pub struct Kept {
    /// The segment.
    pub segment: Arc<Segment>,
    /// Which of its rows, ascending.
    pub ordinals: Vec<Ordinal>,
}

impl Kept {
    /// The live rows of a view.
    pub fn live(view: &super::SegmentView) -> Self {
        let ordinals = (0..view.segment.rows()).filter(|o| !view.dead.contains(*o)).collect();
        Self {
            segment: Arc::clone(&view.segment),
            ordinals,
        }
    }
}

enum Rows<'a> {
    Pending(Vec<&'a PendingRow>),
    Kept(&'a [Kept]),
}

/// One row, wherever it is.
enum RowRef<'a> {
    Pending(&'a PendingRow),
    Stored(&'a Segment, Ordinal),
}

impl<'a> RowRef<'a> {
    fn row(&self) -> u64 {
        match self {
            Self::Pending(p) => p.row.0,
            Self::Stored(s, o) => s.row_of(*o).0,
        }
    }
    fn birth(&self) -> u64 {
        match self {
            Self::Pending(p) => p.birth.0,
            Self::Stored(s, o) => s.birth_of(*o).0,
        }
    }
    fn expiry(&self) -> u64 {
        match self {
            Self::Pending(p) => p.expires_at_ms,
            Self::Stored(s, o) => s.expires_at_ms(*o),
        }
    }
    fn acl(&self) -> &[u32] {
        match self {
            Self::Pending(p) => &p.acl,
            Self::Stored(s, o) => s.acl_of(*o),
        }
    }
    fn id(&self) -> &str {
        match self {
            Self::Pending(p) => p.id.as_str(),
            Self::Stored(s, o) => s.id_of(*o),
        }
    }
    fn document(&self) -> Option<&str> {
        match self {
            Self::Pending(p) => p.document.as_ref().map(PointId::as_str),
            Self::Stored(s, o) => s.document_of(*o),
        }
    }
    fn vector(&self, index: usize) -> Option<Cow<'_, [f32]>> {
        match self {
            Self::Pending(p) => p.vectors[index].as_ref().map(|vector| vector.view().singles()),
            Self::Stored(s, o) => s.vector_of(index, *o),
        }
    }
    /// Whether its vector can be kept so.
    fn can_be(&self, form: Form, index: usize) -> bool {
        match self {
            Self::Stored(s, _) if s.form(index) == form => true,
            _ => self.vector(index).is_none_or(|vector| form.can_be(&vector)),
        }
    }
}

impl RowRef<'_> {
    fn sparse(&self, index: usize) -> Option<&[u8]> {
        match self {
            Self::Pending(p) => p.sparse[index].as_deref(),
            Self::Stored(s, o) => s.sparse(index).row(*o),
        }
    }
}

impl<'a> Rows<'a> {
    fn len(&self) -> usize {
        match self {
            Self::Pending(rows) => rows.len(),
            Self::Kept(kept) => kept.iter().map(|k| k.ordinals.len()).sum(),
        }
    }
    fn for_each(&self, mut each: impl FnMut(RowRef<'_>) -> Result<()>) -> Result<()> {
        match self {
            Self::Pending(rows) => rows.iter().try_for_each(|row| each(RowRef::Pending(row))),
            Self::Kept(kept) => kept
                .iter()
                .try_for_each(|k| k.ordinals.iter().try_for_each(|o| each(RowRef::Stored(&k.segment, *o)))),
        }
    }
}

/// What a build needs to know of its collection.
pub struct Spec<'a> {
    /// Its definition.
    pub schema: &'a Schema,
    /// One a text field.
    pub analyzers: &'a BTreeMap<String, &'static Analyzer>,
}

/// Makes a growing segment of rows just applied. Rows that died in the same commit are left out.
pub fn write_memory(spec: &Spec<'_>, rows: &[PendingRow]) -> Result<Segment> {
    let rows = Rows::Pending(rows.iter().filter(|r| !r.dead).collect());
    memory(spec, &rows)
}

/// Makes one growing segment of several.
pub fn merge_memory(spec: &Spec<'_>, inputs: &[Kept]) -> Result<Segment> {
    memory(spec, &Rows::Kept(inputs))
}

/// A growing segment of fewer rows is scanned as it is: its vectors are read in some tens of microseconds, and it will soon be
/// merged into a larger one.
const GROWING_CODES_ROWS_MIN: usize = 512;

/// The codes of a growing segment, which has no graph to walk on them but is scanned by them.
fn write_growing_codes(
    writer: &mut Writer<Vec<u8>>,
    rows: &Rows<'_>,
    index: usize,
    name: &str,
    spec: &VectorSpec,
) -> Result<()> {
    let (IndexSpec::Hnsw { .. } | IndexSpec::Ivf { .. } | IndexSpec::Faiss { .. }, Some(bits)) =
        (&spec.index, spec.quantization.bits(spec.metric))
    else {
        return Ok(());
    };
    let dim = spec.dim as usize;
    let mut data = Vec::with_capacity(rows.len() * dim);
    let (mut norms, mut absent) = (Vec::new(), BitSet::new(rows.len()));
    let mut ordinal: Ordinal = 0;
    rows.for_each(|row| {
        match row.vector(index) {
            Some(vector) => data.extend_from_slice(&vector),
            None => {
                absent.set(ordinal);
                data.resize(data.len() + dim, 0.0);
            }
        }
        if spec.metric == Metric::Cosine {
            norms.push(inv_norm(&data[data.len() - dim..]));
        }
        ordinal += 1;
        Ok(())
    })?;
    let vectors = VectorsRef {
        metric: spec.metric,
        dim,
        data: Floats::Singles(&data),
        touch: None,
        inv_norms: &norms,
        absent: Some(&absent),
        codes: None,
        signs: None,
        packs: None,
    };
    let coding = Coding::choose(&vectors, bits, PROBES_GROWING, &Workers::alone(), &|| false)?;
    write_codes(writer, name, &vectors, &coding)
}

/// The codes that were chosen, if any, and why.
fn write_codes<W: Write>(writer: &mut Writer<W>, name: &str, vectors: &VectorsRef<'_>, coding: &Coding) -> Result<()> {
    writer.section(&format!("coding/{name}"), &coding.encode())?;
    if let Some(bits) = coding.used {
        writer.begin(&format!("codes/{name}"))?;
        codes::encode(vectors, bits, &mut |bytes| writer.put(bytes))?;
        writer.end()?;
    }
    Ok(())
}

fn memory(spec: &Spec<'_>, rows: &Rows<'_>) -> Result<Segment> {
    let mut writer = Writer::new(Vec::new())?;
    write_columns(&mut writer, spec, rows)?;
    if rows.len() >= GROWING_CODES_ROWS_MIN {
        for (index, (name, vector)) in spec.schema.vectors.iter().enumerate() {
            write_growing_codes(&mut writer, rows, index, name, vector)?;
        }
    }
    Segment::growing(Backing::copy(&writer.finish()?), spec.schema)
}

/// When and how a sealed file gets graphs, inverted lists, or what Faiss makes.
pub struct Graphs<'a> {
    /// Fewer rows get none.
    pub rows_min: usize,
    /// Graphs get packs.
    pub with_packs: bool,
    /// Who helps.
    pub workers: &'a Workers,
    /// Polled while they are built.
    pub stop: &'a dyn Fn() -> bool,
}

/// Makes a sealed file of the kept rows, durably, and opens it. Vectors get their codes and their graph if there are enough
/// rows.
pub fn seal(
    spec: &Spec<'_>,
    inputs: &[Kept],
    disk: &Arc<dyn Dir>,
    path: &Path,
    no: u64,
    graphs: &Graphs<'_>,
) -> Result<Sealed> {
    let (file, temporary) = files::create_temporary(&**disk, path)?;
    let attempt = Attempt {
        disk: &**disk,
        names: [&temporary, path],
    };
    let mut file = write_sealed(spec, inputs, file, &|| disk.map(&temporary), no, graphs)?;
    files::publish(&**disk, &mut *file, &temporary, path)?;
    // Whoever reads it later finds what was written, or this is no seal.
    let sealed = Sealed::first(disk, path, no, spec.schema)?;
    std::mem::forget(attempt);
    Ok(sealed)
}

/// A file that does not come to be, for an error or a panic, is removed, so that a disk does not fill up with attempts.
struct Attempt<'a> {
    disk: &'a dyn Dir,
    names: [&'a Path; 2],
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        for left in self.names {
            // Best effort: what stays is removed at the next open.
            let _ = self.disk.remove(left);
        }
    }
}

fn write_sealed(
    spec: &Spec<'_>,
    inputs: &[Kept],
    file: Box<dyn NewFile>,
    map: &dyn Fn() -> io::Result<Backing>,
    no: u64,
    graphs: &Graphs<'_>,
) -> Result<Box<dyn NewFile>> {
    let rows = Rows::Kept(inputs);
    let n = u32::try_from(rows.len()).map_err(|_| Error::internal("a segment of too many rows"))?;
    let mut writer: Writer<FileSink> = Writer::new(BufWriter::with_capacity(1 << 20, file))?;
    write_columns(&mut writer, spec, &rows)?;
    for (index, (name, vector)) in spec.schema.vectors.iter().enumerate() {
        if rows.len() >= graphs.rows_min {
            let seed = no ^ ((index as u64) << 56);
            write_index(&mut writer, map, (index, name, vector), n, inputs, seed, graphs)?;
        }
    }
    writer
        .finish()?
        .into_inner()
        .map_err(|e| Error::internal(format!("i/o: {}", e.error())))
}

/// The codes and the graph, or the lists, of vectors that are in the file already: they are made over the file as `map` shows
/// it, so a merge of any size needs no second copy of the vectors in memory.
fn write_index(
    writer: &mut Writer<FileSink>,
    map: &dyn Fn() -> io::Result<Backing>,
    (index, name, spec): (usize, &str, &VectorSpec),
    n: u32,
    inputs: &[Kept],
    seed: u64,
    graphs: &Graphs<'_>,
) -> Result<()> {
    if let IndexSpec::Flat {} = spec.index {
        return Ok(());
    }
    let written = |writer: &mut Writer<FileSink>| -> Result<Backing> {
        writer.sink().flush()?;
        Ok(map()?)
    };
    let mapped = written(writer)?;
    let map = mapped.bytes();
    let range = |writer: &Writer<FileSink>, kind: &str| writer.range_of(&format!("{kind}/{name}")).unwrap_or(0..0);
    let absent = RoaringBitmap::deserialize_from(&map[range(writer, "absent")]).unwrap_or_default();
    let absent = (!absent.is_empty()).then(|| BitSet::from_iter(n as usize, absent));
    let written_as = |form: &Form| !range(writer, form.section()).is_empty();
    let form = Form::ALL
        .into_iter()
        .find(written_as)
        .unwrap_or(Form::of_metric(spec.metric));
    let data = form.of(&map[range(writer, form.section())]);
    let mut vectors = VectorsRef {
        metric: spec.metric,
        dim: spec.dim as usize,
        data,
        touch: None,
        inv_norms: bytemuck::try_cast_slice(&map[range(writer, "norm")]).expect("sections are aligned"),
        absent: absent.as_ref(),
        codes: None,
        signs: None,
        packs: None,
    };
    let (m, ef_construction) = match &spec.index {
        IndexSpec::Flat {} => return Ok(()),
        IndexSpec::Hnsw { m, ef_construction } => (*m, *ef_construction),
        IndexSpec::Faiss { factory } => return write_faiss(writer, name, &vectors, factory, graphs),
        IndexSpec::Ivf { nlist } => {
            let wanted = ivf::Wanted {
                lists: *nlist,
                bits: spec.quantization.bits(spec.metric),
                seed,
            };
            return write_lists(writer, name, &vectors, wanted, graphs);
        }
    };
    let (with_codes, layout);
    if let Some(bits) = spec.quantization.bits(spec.metric) {
        let coding = Coding::choose(&vectors, bits, PROBES, graphs.workers, graphs.stop)?;
        write_codes(writer, name, &vectors, &coding)?;
        if coding.used.is_some() {
            with_codes = written(writer)?;
            let bytes = &with_codes.bytes()[range(writer, "codes")];
            layout = CodesLayout::parse(bytes)?;
            vectors.codes = Some(layout.view(bytes));
        }
    }
    let (with_signs, signs_layout);
    // Rows that no code tells apart signs do not, either.
    if spec.quantization.bits(spec.metric).is_none() && signs::are_worth_it(&vectors) {
        writer.begin(&format!("signs/{name}"))?;
        signs::encode(&vectors, &mut |bytes| writer.put(bytes))?;
        writer.end()?;
        with_signs = written(writer)?;
        let bytes = &with_signs.bytes()[range(writer, "signs")];
        signs_layout = SignsLayout::parse(bytes)?;
        vectors.signs = Some(signs_layout.view(bytes));
    }
    let mut go_on = |_| !(graphs.stop)();
    let largest = largest_graph(inputs, index);
    let base = largest
        .as_ref()
        .map(|(graph, places)| hnsw::Base { graph: *graph, places });
    let graph = hnsw::extend(&vectors, base, m, ef_construction, seed, graphs.workers, &mut go_on)?;
    writer.section(&format!("graph/{name}"), &graph)?;
    let layout = HnswLayout::parse(&graph)?;
    let graph = layout.view(&graph);
    let questions = Questions::draw(&vectors, graphs.workers, graphs.stop)?;
    let calibrate = |writer: &mut Writer<FileSink>, section: &str, vectors: &VectorsRef<'_>| match &questions {
        Some(questions) => {
            let measured = Calibration::measure(questions, vectors, &graph, graphs.workers, graphs.stop)?;
            writer.section(section, &measured.encode())
        }
        None => Ok(()),
    };
    calibrate(writer, &format!("recall/{name}"), &vectors)?;
    if !graphs.with_packs || !packs::are_worth_it(&vectors, spec.quantization) {
        return Ok(());
    }
    writer.begin(&format!("packs/{name}"))?;
    packs::encode(&vectors, &graph, graphs.workers, graphs.stop, &mut |bytes| {
        writer.put(bytes)
    })?;
    writer.end()?;
    let with_packs = written(writer)?;
    let bytes = &with_packs.bytes()[range(writer, "packs")];
    let layout = PacksLayout::parse(bytes, &graph)?;
    vectors.packs = Some(layout.view(bytes));
    calibrate(writer, &format!("recall.packs/{name}"), &vectors)
}

/// A graph is not gone on with where fewer of its rows than this share, in percent, are left: mending what the others leave would take
/// as long as inserting the rest, and what is chosen anew is chosen among less.
const GRAPH_KEPT_PERCENT_MIN: usize = 50;

/// The graph of the input of which most rows are kept, and where those will be; none if too few of them are.
fn largest_graph(inputs: &[Kept], index: usize) -> Option<(hnsw::Hnsw<'_>, Vec<Option<Ordinal>>)> {
    let with_graph = |(_, kept): &(usize, &Kept)| kept.segment.graph(index).is_some();
    let most = inputs.iter().enumerate().filter(with_graph);
    // Of equal ones the first.
    let (at, kept) = most.min_by_key(|(_, kept)| std::cmp::Reverse(kept.ordinals.len()))?;
    let rows = kept.segment.rows() as usize;
    if kept.ordinals.len() * 100 < rows * GRAPH_KEPT_PERCENT_MIN {
        return None;
    }
    let first: usize = inputs[..at].iter().map(|kept| kept.ordinals.len()).sum();
    let mut places = vec![None; rows];
    for (place, ordinal) in (first as Ordinal..).zip(&kept.ordinals) {
        places[*ordinal as usize] = Some(place);
    }
    Some((kept.segment.graph(index)?, places))
}

/// What Faiss makes of them, if it can and this build has it.
fn write_faiss(
    writer: &mut Writer<FileSink>,
    name: &str,
    vectors: &VectorsRef<'_>,
    factory: &str,
    graphs: &Graphs<'_>,
) -> Result<()> {
    let Some(parts) = faiss::build(vectors, factory, graphs.workers, graphs.stop)? else {
        return Ok(());
    };
    writer.begin(&format!("faiss/{name}"))?;
    parts.iter().try_for_each(|part| writer.put(part))?;
    writer.end()
}

/// Inverted lists, and last their records, one list after the other.
fn write_lists(
    writer: &mut Writer<FileSink>,
    name: &str,
    vectors: &VectorsRef<'_>,
    wanted: ivf::Wanted,
    graphs: &Graphs<'_>,
) -> Result<()> {
    let lists = ivf::build(vectors, wanted, graphs.workers, &mut |_| !(graphs.stop)())?;
    if let Some(coding) = lists.coding() {
        writer.section(&format!("coding/{name}"), &coding.encode())?;
    }
    writer.section(&format!("ivf/{name}"), &lists.index(graphs.workers, graphs.stop)?)?;
    if lists.coding().is_none_or(|coding| coding.used.is_none()) {
        return Ok(());
    }
    writer.begin(&format!("lists/{name}"))?;
    lists.records(graphs.workers, graphs.stop, &mut |bytes| writer.put(bytes))?;
    writer.end()?;
    writer.begin(&format!("lists.packs/{name}"))?;
    lists.packs(graphs.workers, graphs.stop, &mut |bytes| writer.put(bytes))?;
    writer.end()
}

fn write_columns<W: Write>(writer: &mut Writer<W>, spec: &Spec<'_>, rows: &Rows<'_>) -> Result<()> {
    let n = u32::try_from(rows.len()).map_err(|_| Error::internal("a segment of too many rows"))?;
    write_identity(writer, rows)?;
    write_payload(writer, rows)?;
    for (index, (name, vector)) in spec.schema.vectors.iter().enumerate() {
        write_vectors(writer, rows, index, name, vector.dim as usize, vector.metric)?;
    }
    for (index, name) in spec.schema.sparse.keys().enumerate() {
        write_sparse(writer, rows, index, name)?;
    }
    for (path, analyzer) in spec.analyzers {
        let index = match rows {
            Rows::Pending(rows) => build_text(rows, path, analyzer, n)?,
            Rows::Kept(kept) => merge_text(kept, path, n)?,
        };
        writer.section(&format!("text/{path}"), &index)?;
    }
    let filter = match rows {
        Rows::Pending(rows) => build_filter(rows, spec.schema, n)?,
        Rows::Kept(kept) => merge_filter(kept, n)?,
    };
    writer.section("filter", &filter)
}

/// Rows, births, expiry, ACL, ids with their hash index, documents.
fn write_identity<W: Write>(writer: &mut Writer<W>, rows: &Rows<'_>) -> Result<()> {
    let n = rows.len();
    let (mut numbers, mut births, mut expiry) = (Vec::with_capacity(n), Vec::with_capacity(n), Vec::with_capacity(n));
    let (mut acl, mut acl_at) = (Vec::<u32>::new(), vec![0u32]);
    let (mut ids, mut ids_at) = (Vec::<u8>::new(), vec![0u32]);
    let mut hashes: Vec<(u64, u32)> = Vec::with_capacity(n);
    let (mut documents, mut documents_at) = (Vec::<u8>::new(), vec![0u32]);
    let mut document_of: Vec<u32> = Vec::with_capacity(n);
    let mut document_rows: Vec<Vec<Ordinal>> = Vec::new();
    let mut document_numbers: HashMap<String, u32> = HashMap::new();
    let offset = |len: usize| u32::try_from(len).map_err(|_| Error::internal("more than 4 GiB of ids in a segment"));
    rows.for_each(|row| {
        numbers.push(row.row());
        births.push(row.birth());
        expiry.push(row.expiry());
        acl.extend_from_slice(row.acl());
        acl_at.push(acl.len() as u32);
        hashes.push((hash_id(row.id()), hashes.len() as u32));
        ids.extend_from_slice(row.id().as_bytes());
        ids_at.push(offset(ids.len())?);
        document_of.push(match row.document() {
            None => NO_DOCUMENT,
            Some(id) => match document_numbers.get(id) {
                Some(number) => *number,
                None => {
                    let number = document_numbers.len() as u32;
                    document_numbers.insert(id.to_owned(), number);
                    document_rows.push(Vec::new());
                    documents.extend_from_slice(id.as_bytes());
                    documents_at.push(offset(documents.len())?);
                    number
                }
            },
        });
        if let Some(document) = document_of.last().filter(|d| **d != NO_DOCUMENT) {
            document_rows[*document as usize].push(document_of.len() as Ordinal - 1);
        }
        Ok(())
    })?;
    // Documents by hash, each with its rows: what finds a document's chunks without a scan.
    let mut by_hash: Vec<(u64, u32)> = document_numbers
        .iter()
        .map(|(id, number)| (hash_id(id), *number))
        .collect();
    by_hash.sort_unstable();
    let (document_hash, document_order): (Vec<u64>, Vec<u32>) = by_hash.into_iter().unzip();
    let mut rows_at = vec![0u32];
    rows_at.extend(document_rows.iter().scan(0, |at, rows| {
        *at += rows.len() as u32;
        Some(*at)
    }));
    let document_rows = document_rows.concat();
    hashes.sort_unstable();
    let (hash, order): (Vec<u64>, Vec<u32>) = hashes.into_iter().unzip();
    writer.section("rows", bytemuck::cast_slice(&numbers))?;
    writer.section("births", bytemuck::cast_slice(&births))?;
    if expiry.iter().any(|e| *e != 0) {
        writer.section("expiry", bytemuck::cast_slice(&expiry))?;
    }
    if !acl.is_empty() {
        writer.section("acl", bytemuck::cast_slice(&acl))?;
        writer.section("acl.at", bytemuck::cast_slice(&acl_at))?;
    }
    writer.section("ids", &ids)?;
    writer.section("ids.at", bytemuck::cast_slice(&ids_at))?;
    writer.section("ids.hash", bytemuck::cast_slice(&hash))?;
    writer.section("ids.order", bytemuck::cast_slice(&order))?;
    writer.section("documents", &documents)?;
    writer.section("documents.at", bytemuck::cast_slice(&documents_at))?;
    writer.section("documents.of", bytemuck::cast_slice(&document_of))?;
    if !document_rows.is_empty() {
        writer.section("documents.hash", bytemuck::cast_slice(&document_hash))?;
        writer.section("documents.order", bytemuck::cast_slice(&document_order))?;
        writer.section("documents.rows.at", bytemuck::cast_slice(&rows_at))?;
        writer.section("documents.rows", bytemuck::cast_slice(&document_rows))?;
    }
    Ok(())
}

fn write_payload<W: Write>(writer: &mut Writer<W>, rows: &Rows<'_>) -> Result<()> {
    let mut packer = payload::Packer::default();
    writer.begin("payload")?;
    rows.for_each(|row| match row {
        RowRef::Pending(p) => packer.push(&p.payload, &mut |block| writer.put(block)),
        RowRef::Stored(segment, ordinal) => {
            packer.push(&segment.payload_json(ordinal)?, &mut |block| writer.put(block))
        }
    })?;
    let table = packer.finish(&mut |block| writer.put(block))?;
    writer.end()?;
    writer.section("payload.table", &table)
}

/// The vectors as given, one row an ordinal (absent ones are zeros), in the fewest bytes that hold the same numbers, and what cosine needs
/// of them.
fn write_vectors<W: Write>(
    writer: &mut Writer<W>,
    rows: &Rows<'_>,
    index: usize,
    name: &str,
    dim: usize,
    metric: Metric,
) -> Result<()> {
    let mut form = Form::of_metric(metric);
    if form == Form::Singles {
        let mut are_halves = true;
        rows.for_each(|row| {
            are_halves = are_halves && row.can_be(Form::Halves, index);
            Ok(())
        })?;
        form = if are_halves { Form::Halves } else { Form::Singles };
    }
    let (zeros, mut bytes) = (vec![0f32; dim], Vec::with_capacity(form.row_bytes(dim)));
    let mut norms = Vec::new();
    let mut absent = RoaringBitmap::new();
    let mut ordinal: Ordinal = 0;
    writer.begin(&format!("{}/{name}", form.section()))?;
    rows.for_each(|row| {
        let vector = match row.vector(index) {
            Some(vector) => vector,
            None => {
                absent.insert(ordinal);
                Cow::Borrowed(&zeros[..])
            }
        };
        if metric == Metric::Cosine {
            norms.push(inv_norm(&vector));
        }
        ordinal += 1;
        debug_assert!(form.can_be(&vector), "it was looked at");
        bytes.clear();
        form.put(&vector, &mut bytes);
        writer.put(&bytes)
    })?;
    writer.end()?;
    writer.section(&format!("norm/{name}"), bytemuck::cast_slice(&norms))?;
    if !absent.is_empty() {
        let mut bytes = Vec::new();
        absent.serialize_into(&mut bytes)?;
        writer.section(&format!("absent/{name}"), &bytes)?;
    }
    Ok(())
}

/// The sparse vectors of one name, exactly, and their inverted index. Nothing if no row has one.
fn write_sparse<W: Write>(writer: &mut Writer<W>, rows: &Rows<'_>, index: usize, name: &str) -> Result<()> {
    let (mut at, mut len) = (vec![0u64], 0u64);
    rows.for_each(|row| {
        len += row.sparse(index).map_or(0, <[u8]>::len) as u64;
        at.push(len);
        Ok(())
    })?;
    if len == 0 {
        return Ok(());
    }
    writer.begin(&format!("sparse/{name}"))?;
    rows.for_each(|row| row.sparse(index).map_or(Ok(()), |bytes| writer.put(bytes)))?;
    writer.end()?;
    writer.section(&format!("sparse.at/{name}"), bytemuck::cast_slice(&at))?;
    let terms = sparse::index::build(rows.len() as u32, &|visit| {
        let mut ordinal: Ordinal = 0;
        rows.for_each(|row| {
            ordinal += 1;
            row.sparse(index).map_or(Ok(()), |bytes| visit(ordinal - 1, bytes))
        })
    })?;
    writer.section(&format!("sparse.terms/{name}"), &terms)
}

fn build_text(rows: &[&PendingRow], path: &str, analyzer: &Analyzer, n: u32) -> Result<Vec<u8>> {
    let mut builder = TextIndexBuilder::new();
    let mut any = false;
    for (ordinal, row) in rows.iter().enumerate() {
        let payload = parse_payload(&row.payload)?;
        let mut has = false;
        extract::text_values(&payload, path, &mut |_| has = true);
        if has {
            any = true;
            builder.add(ordinal as Ordinal, |sink: &mut dyn FnMut(&str)| {
                extract::text_values(&payload, path, &mut |text| analyzer.analyze(text, &mut *sink));
            });
        }
    }
    if any { Ok(builder.finish(n)) } else { Ok(Vec::new()) }
}

fn build_filter(rows: &[&PendingRow], schema: &Schema, n: u32) -> Result<Vec<u8>> {
    let mut builder = FilterIndexBuilder::new();
    for (ordinal, row) in rows.iter().enumerate() {
        let payload = parse_payload(&row.payload)?;
        extract::extract(&payload, schema, &mut |path, value| {
            builder.add(ordinal as Ordinal, path, value)
        })?;
    }
    Ok(builder.finish(n))
}

/// Old ordinal -> new ordinal, for each input.
fn remaps(kept: &[Kept]) -> Vec<Vec<Option<Ordinal>>> {
    let mut next: Ordinal = 0;
    kept.iter()
        .map(|k| {
            let mut map = vec![None; k.segment.rows() as usize];
            for ordinal in &k.ordinals {
                map[*ordinal as usize] = Some(next);
                next += 1;
            }
            map
        })
        .collect()
}

fn merge_text(kept: &[Kept], path: &str, n: u32) -> Result<Vec<u8>> {
    let maps = remaps(kept);
    let functions: Vec<_> = maps
        .iter()
        .map(|map| |o: Ordinal| map.get(o as usize).copied().flatten())
        .collect();
    let mut inputs: Vec<(postings::TextIndexView<'_>, &dyn Fn(Ordinal) -> Option<Ordinal>)> = Vec::new();
    for (k, function) in kept.iter().zip(&functions) {
        if let Some(view) = k.segment.text(path) {
            inputs.push((view, function));
        }
    }
    if inputs.is_empty() {
        Ok(Vec::new())
    } else {
        postings::merge(&inputs, n)
    }
}

fn merge_filter(kept: &[Kept], n: u32) -> Result<Vec<u8>> {
    let maps = remaps(kept);
    let functions: Vec<_> = maps
        .iter()
        .map(|map| |o: Ordinal| map.get(o as usize).copied().flatten())
        .collect();
    let inputs: Vec<(filter_index::FilterIndexView<'_>, &dyn Fn(Ordinal) -> Option<Ordinal>)> = kept
        .iter()
        .zip(&functions)
        .map(|(k, function)| (k.segment.filter(), function as &dyn Fn(Ordinal) -> Option<Ordinal>))
        .collect();
    filter_index::merge(&inputs, n)
}
