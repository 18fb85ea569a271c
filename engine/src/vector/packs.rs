//! What a node's neighbours look like from it: their numbers, and one bit a dimension of each, thirty-two together, so that an expansion
//! looks at one place of memory instead of one for each neighbour.
//!
//! SymphonyQG (Gou et al., "SymphonyQG: towards symphonious integration of quantization and graph for approximate nearest neighbor
//! search", 2025) over RaBitQ (Gao & Long 2024), scanned by tables in registers (André, Kermarrec & Le Scouarnec, "Cache locality is not
//! enough: high-performance nearest neighbor search with product quantization fast scan", 2015). A neighbour `x` of the node `c` is known
//! by the signs `s` of `R(x - c)`, with `R` a [rotation](super::rotation): what is estimated is where it is *from the node*, which is near,
//! so the error is that much smaller than of signs around one centre for all. With `r = x - c`, `μ` the mean of all rows,
//! `S = <s, R(q-μ)>`, `G = <s, R(c-μ)>` and `f = |r|² / Σ|Rr|`,
//!
//! ```text
//! <q-c, r>  ≈  f · (S - G)
//! cosine    =  d(c) - <c,r> - <q-c,r>         of unit vectors      A = f·G - <c,r>    F = f
//! euclid    =  d(c) + |r|² - 2·<q-c,r>                             A = |r|² + 2·f·G   F = 2f
//! dot       =  d(c) - <μ,r> - <q-μ,r>         <q-μ,r> ≈ f·S        A = -<μ,r>         F = f
//! ```
//!
//! so an estimate is `d(c) + A - F·S`, where `d(c)` was measured before the node is expanded, `A` and `F` are the neighbour's, as floats of
//! 16 bits (a link may be a thousand times as long as another beside it), and `S` comes from tables: of each four dimensions, what each of
//! sixteen patterns of signs adds, in 7 bits.
//!
//! A node that has fewer links than places is given more neighbours here, among those of its neighbours: they cost nothing to look at. They
//! are chosen as links are, by a weaker rule (`FILL`).
//!
//! Where a walk begins is told in the same way: some hundreds of nodes, the *roots*, are in packs of their own as they are seen from `μ`, and a
//! walk starts from those that seem nearest. On WordNet that is as near as the way down through the upper levels, for no distance instead of
//! 118.
//!
//! Promises: encoding uses single additions and multiplications in a fixed order, and of floats only in comparisons whether a neighbour is
//! given more; so the same graph over the same vectors has the same packs on machines of one instruction set, whoever helps. Does not do:
//! Manhattan distance, which has no such product; bits; upper levels of a graph; filters that few rows match, where a walk looks through the others.
//!
//! # Bytes
//!
//! Little-endian, version 1. `n` rows of `d` dimensions, `p` packs a node, `r` roots (none before there were any).
//!
//! ```text
//!  0  "CPAK" | version | n | d | metric (0 cosine, 1 dot, 2 euclid) | p | r | 36 zero bytes  header, 64 bytes
//! 64  d f32, zeros to a multiple of 64                                                       mean
//!  ·  n times p packs of 32 neighbours: 32 u32, whose numbers they are, then NONE to the     packs
//!     end, 32 times A and 32 times F, the high halves of f32 each, ⌈d/8⌉ times 32 bytes: of
//!     each neighbour the signs of 8 dimensions (1 is positive, the first is the lowest bit),
//!     zeros to a multiple of 64
//!  ·  ⌈r/32⌉ packs of the roots, as they are seen from the mean
//! ```
//!
//! A node without links has NONE and zeros.

use std::ops::Range;

use bytemuck::{Pod, Zeroable};

use super::codes::{Parts, first_line, mean, metric_number, metric_of, product, scale, take_off};
use super::hnsw::Hnsw;
use super::kernels::{self, LINE, PACK, PackKernel, PackQuery};
use super::near::{Near, four};
use super::rotation::Rotation;
use super::twins::NONE;
use super::{Scored, VectorsRef};
use crate::config::Workers;
use crate::error::{Error, ErrorKind, Result};
use crate::schema::{Metric, Quantization};
use crate::types::Ordinal;

const MAGIC: [u8; 4] = *b"CPAK";
const VERSION: u32 = 1;
/// Bytes of whose signs they are, and of one of their two numbers, which stand before the signs.
const IDS: usize = PACK * size_of::<Ordinal>();
const NUMBER: usize = PACK * size_of::<u16>();
/// Packs of a node at most: links of [`hnsw`](super::hnsw) divided.
const PACKS_MAX: usize = 2 * *super::hnsw::M.end() as usize / PACK;

/// Those are preferred to fill a pack up that are farther than this from all in it, as a share of how far they are from the node (the squared
/// distance; Subramanya et al., "DiskANN", 2019, have it as α). A search of WordNet at `ef` 40 finds 0.939 of what there is without more
/// neighbours, 0.953 with the nearest ones, 0.958 by this rule.
const FILL: f32 = 1.0 / 1.21;
/// Neighbours of neighbours that are looked at for it.
const CANDIDATES: usize = 256;
/// Nodes that a walk may start from, at most, and how many nodes there are for each of them, at least.
const ROOTS_MAX: usize = 512;
const NODES_PER_ROOT: usize = 16;
/// Nodes that are encoded by one thread at a time, at most, and about how many bytes; how many such shares there are between two looks at
/// whether to go on.
const SHARE_NODES: usize = 128;
const SHARE_BYTES: usize = 1 << 20;
const SHARES: usize = 32;

#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Header {
    magic: [u8; 4],
    version: u32,
    rows: u32,
    dim: u32,
    metric: u32,
    packs: u32,
    roots: u32,
    reserved: [u32; 9],
}

const _: () = assert!(size_of::<Header>() == LINE);

/// Where the parts of packs are; proof that the bytes were checked.
#[derive(Debug, Clone)]
pub struct PacksLayout {
    metric: Metric,
    dim: usize,
    rows: usize,
    count: usize,
    mean: Range<usize>,
    records: Range<usize>,
    roots: Range<usize>,
}

/// Packs over their bytes.
#[derive(Debug, Clone, Copy)]
pub struct Packs<'a> {
    metric: Metric,
    dim: usize,
    /// Packs of a node.
    count: usize,
    pack_bytes: usize,
    mean: &'a [f32],
    records: &'a [u8],
    roots: &'a [u8],
}

/// Whether packs say anything of these vectors, of which codes are wanted or not. Where codes are wanted and there are none they
/// did not tell rows apart, and signs do not, either.
pub fn are_worth_it(vectors: &VectorsRef<'_>, wanted: Quantization) -> bool {
    metric_number(vectors.metric).is_some() && (vectors.codes.is_some() || wanted == Quantization::None)
}

fn pack_bytes(dim: usize) -> usize {
    (IDS + 2 * NUMBER + dim.div_ceil(8) * PACK).next_multiple_of(LINE)
}

/// Bytes of a pack that does not say whose signs it holds: of rows that stand at places, as those of inverted lists.
pub(super) fn bytes_of_places(dim: usize) -> usize {
    (2 * NUMBER + dim.div_ceil(8) * PACK).next_multiple_of(LINE)
}

impl PacksLayout {
    /// Checks header and lengths, and that whoever is named is a node of the graph. Any signs are signs, and any nodes neighbours:
    /// what is wrong among them makes wrong estimates and ways that are not found, no worse. `bytes` must be 4-byte aligned.
    pub fn parse(bytes: &[u8], graph: &Hnsw<'_>) -> Result<Self> {
        let header: Header = first_line(bytes, MAGIC, VERSION)?;
        let (rows, dim, count) = (header.rows as usize, header.dim as usize, header.packs as usize);
        if header.reserved != [0; 9] || !(1..=PACKS_MAX).contains(&count) || rows != graph.len() {
            return Err(Error::damaged(format!(
                "packs: {count} for each of {rows} rows, beside a graph of {}",
                graph.len()
            )));
        }
        let of_roots = (header.roots as usize).div_ceil(PACK).checked_mul(pack_bytes(dim));
        let Some(end) = of_roots.and_then(|roots| bytes.len().checked_sub(roots)) else {
            return Err(Error::damaged(format!("packs: {} roots", header.roots)));
        };
        let Parts { mean, records } = Parts::place(&bytes[..end], dim, rows, count * pack_bytes(dim))?;
        let layout = Self {
            metric: metric_of(header.metric)?,
            dim,
            rows,
            count,
            mean,
            records,
            roots: end..bytes.len(),
        };
        let (packs, followers) = (layout.view(bytes), graph.followers());
        let is_node = |id: &Ordinal| (*id as usize) < rows && !followers.contains(*id);
        let is_sound = |pack: Pack<'_>| {
            let known = pack.ids().iter().position(|id| *id == NONE).unwrap_or(PACK);
            let (ids, rest) = pack.ids().split_at(known);
            ids.iter().all(is_node) && rest.iter().all(|id| *id == NONE)
        };
        if let Some(node) = (0..rows as Ordinal).find(|node| !packs.of(*node).all(is_sound)) {
            return Err(Error::damaged(format!("packs: neighbours of node {node}")));
        }
        if !packs.roots().all(is_sound) {
            return Err(Error::damaged("packs: roots"));
        }
        Ok(layout)
    }

    /// The packs in the very bytes that were parsed, which are 4-byte aligned; a panic otherwise.
    pub fn view<'a>(&self, bytes: &'a [u8]) -> Packs<'a> {
        Packs {
            metric: self.metric,
            dim: self.dim,
            count: self.count,
            pack_bytes: pack_bytes(self.dim),
            mean: bytemuck::cast_slice(&bytes[self.mean.clone()]),
            records: &bytes[self.records.clone()],
            roots: &bytes[self.roots.clone()],
        }
    }

    /// Whether these are packs of such vectors.
    pub fn fits(&self, metric: Metric, dim: usize, rows: usize) -> bool {
        (self.metric, self.dim, self.rows) == (metric, dim, rows)
    }
}

/// Writes the packs of all nodes, piece by piece. The vectors must be of a metric that has an inner product, and those of the graph.
pub fn encode(
    vectors: &VectorsRef<'_>,
    graph: &Hnsw<'_>,
    workers: &Workers,
    stop: &dyn Fn() -> bool,
    put: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    vectors.check()?;
    let metric = metric_number(vectors.metric)
        .ok_or_else(|| Error::internal(format!("{:?} vectors have no packs", vectors.metric)))?;
    let (rows, dim, count) = (vectors.len(), vectors.dim, graph.links().div_ceil(PACK));
    let roots = roots(graph);
    put(bytemuck::bytes_of(&Header {
        magic: MAGIC,
        version: VERSION,
        rows: rows as u32,
        dim: dim as u32,
        metric,
        packs: count as u32,
        roots: roots.len() as u32,
        reserved: [0; 9],
    }))?;
    let mean = mean(vectors);
    let mut padded = mean.clone();
    padded.resize(dim.next_multiple_of(LINE / size_of::<f32>()), 0.0);
    put(bytemuck::cast_slice(&padded))?;
    let of_node = count * pack_bytes(dim);
    let share_nodes = (SHARE_BYTES / of_node).clamp(1, SHARE_NODES);
    let shares: Vec<usize> = (0..rows).step_by(share_nodes).collect();
    for some in shares.chunks(SHARES) {
        if stop() {
            return Err(Error::new(ErrorKind::Cancelled, "cancelled", "packs were cancelled"));
        }
        let encoded = workers.map(some.len(), |share| {
            let nodes = some[share]..rows.min(some[share] + share_nodes);
            let mut encoder = Encoder::new(vectors, &mean);
            let mut records = vec![0u8; nodes.len() * of_node];
            for (node, record) in nodes.zip(records.chunks_exact_mut(of_node)) {
                encoder.node(node as Ordinal, graph, record);
            }
            records
        });
        encoded.iter().try_for_each(|records| put(records))?;
    }
    let mut record = vec![0u8; roots.len().div_ceil(PACK) * pack_bytes(dim)];
    Encoder::new(vectors, &mean).roots(&roots, &mut record);
    put(&record)
}

/// Nodes to start from: of those that have links one of each so many, in the order of ordinals, which is about that in which points came. So
/// no document and no topic that came together is far from all of them.
fn roots(graph: &Hnsw<'_>) -> Vec<Ordinal> {
    let has_links = |node: &Ordinal| graph.neighbours(0, *node).next().is_some();
    let nodes: Vec<Ordinal> = (0..graph.len() as Ordinal).filter(has_links).collect();
    let wanted = (nodes.len() / NODES_PER_ROOT).min(ROOTS_MAX) / PACK * PACK;
    (0..wanted).map(|i| nodes[i * nodes.len() / wanted]).collect()
}

/// Makes the packs of nodes, one node at a time, in any order; or what packs hold of a row that is seen from some centre.
pub(super) struct Encoder<'a> {
    vectors: VectorsRef<'a>,
    mean: &'a [f32],
    rotation: Rotation,
    /// The node as it is measured, and less the mean and turned.
    centre: Vec<f32>,
    turned: Vec<f32>,
    /// A neighbour less the node.
    rest: Vec<f32>,
}

impl<'a> Encoder<'a> {
    pub(super) fn new(vectors: &VectorsRef<'a>, mean: &'a [f32]) -> Self {
        let zeros = vec![0f32; vectors.dim];
        Self {
            vectors: *vectors,
            mean,
            rotation: Rotation::new(vectors.dim),
            centre: zeros.clone(),
            turned: zeros.clone(),
            rest: zeros,
        }
    }

    /// Writes the packs of a node, which are zeros.
    fn node(&mut self, node: Ordinal, graph: &Hnsw<'_>, record: &mut [u8]) {
        let vectors = self.vectors;
        let pack_bytes = pack_bytes(vectors.dim);
        let mut links: Vec<Ordinal> = graph.neighbours(0, node).collect();
        fill(&vectors, graph, node, &mut links, record.len() / pack_bytes * PACK);
        let (own, row) = (scale(&vectors, node), vectors.row(node));
        for (c, x) in self.centre.iter_mut().zip(&*row) {
            *c = x * own;
        }
        take_off(self.mean, &row, own, &mut self.turned);
        self.rotation.turn(&mut self.turned);
        self.around(&links, record);
    }

    /// Writes packs of nodes as they are seen from the mean of all.
    fn roots(&mut self, roots: &[Ordinal], record: &mut [u8]) {
        self.centre.copy_from_slice(self.mean);
        self.turned.fill(0.0);
        self.around(roots, record);
    }

    /// Writes packs of nodes as they are seen from the centre.
    fn around(&mut self, nodes: &[Ordinal], record: &mut [u8]) {
        let mut links = nodes.chunks(PACK);
        let pack_bytes = pack_bytes(self.vectors.dim);
        for pack in record.chunks_exact_mut(pack_bytes) {
            let links = links.next().unwrap_or_default();
            let (ids, pack) = pack.split_at_mut(IDS);
            let ids: &mut [Ordinal] = bytemuck::cast_slice_mut(ids);
            ids.fill(NONE);
            ids[..links.len()].copy_from_slice(links);
            for (i, neighbour) in links.iter().enumerate() {
                let numbers = self.neighbour(*neighbour).map(high_half);
                put_at(pack, i, numbers, self.signs());
            }
        }
    }

    /// Eight dimensions a byte of the row that was looked at last.
    fn signs(&self) -> impl Iterator<Item = u8> {
        let signs = |eight: &[f32]| {
            let bits = eight.iter().enumerate().map(|(bit, x)| u8::from(*x > 0.0) << bit);
            bits.sum()
        };
        self.rest.chunks(8).map(signs)
    }

    /// Bytes of what packs hold of a row.
    pub(super) fn row_bytes(&self) -> usize {
        2 * size_of::<u16>() + self.vectors.dim.div_ceil(8)
    }

    /// Writes that of a row, as it is seen from a centre; [`put_row`] puts it into a pack.
    pub(super) fn row(&mut self, ordinal: Ordinal, centre: &[f32], bytes: &mut [u8]) {
        self.centre.copy_from_slice(centre);
        take_off(self.mean, centre, 1.0, &mut self.turned);
        self.rotation.turn(&mut self.turned);
        let [a, f] = self.neighbour(ordinal).map(high_half);
        bytes[..2].copy_from_slice(&a.to_le_bytes());
        bytes[2..4].copy_from_slice(&f.to_le_bytes());
        for (byte, signs) in bytes[4..].iter_mut().zip(self.signs()) {
            *byte = signs;
        }
    }

    /// `A` and `F` of a neighbour; leaves what it differs by, turned, in `rest`.
    fn neighbour(&mut self, neighbour: Ordinal) -> [f32; 2] {
        let vectors = self.vectors;
        take_off(
            &self.centre,
            &vectors.row(neighbour),
            scale(&vectors, neighbour),
            &mut self.rest,
        );
        let squared = product(&self.rest, &self.rest);
        let aside = match vectors.metric {
            Metric::Cosine => product(&self.centre, &self.rest),
            Metric::Dot | Metric::Manhattan | Metric::Hamming => product(self.mean, &self.rest),
            Metric::Euclid => 0.0,
        };
        self.rotation.turn(&mut self.rest);
        let (mut sum, mut along) = (0f64, 0f64);
        for (r, c) in self.rest.iter().zip(&self.turned) {
            sum += f64::from(r.abs());
            along += f64::from(if *r > 0.0 { *c } else { -*c });
        }
        let f = if sum > 0.0 { squared / sum } else { 0.0 };
        let (a, f) = match vectors.metric {
            Metric::Cosine => (f * along - aside, f),
            Metric::Dot | Metric::Manhattan | Metric::Hamming => (-aside, f),
            Metric::Euclid => (squared + 2.0 * f * along, 2.0 * f),
        };
        [a as f32, f as f32]
    }
}

/// Puts what [`Encoder::row`] wrote into a pack of places.
pub(super) fn put_row(pack: &mut [u8], i: usize, row: &[u8]) {
    let number = |at: usize| u16::from_le_bytes([row[at], row[at + 1]]);
    put_at(pack, i, [number(0), number(2)], row[4..].iter().copied());
}

/// Puts the `i`-th of the thirty-two into a pack, behind whose signs they are.
fn put_at(pack: &mut [u8], i: usize, [a, f]: [u16; 2], signs: impl Iterator<Item = u8>) {
    let (numbers, all) = pack.split_at_mut(2 * NUMBER);
    let numbers: &mut [u16] = bytemuck::cast_slice_mut(numbers);
    (numbers[i], numbers[PACK + i]) = (a, f);
    for (j, signs) in signs.enumerate() {
        all[j * PACK + i] = signs;
    }
}

/// Adds neighbours of neighbours to a node's links until there are `wanted`: the nearest that are not too near to those before them, then
/// the nearest of the others.
fn fill(vectors: &VectorsRef<'_>, graph: &Hnsw<'_>, node: Ordinal, links: &mut Vec<Ordinal>, wanted: usize) {
    if links.is_empty() || links.len() >= wanted {
        return;
    }
    let behind = links.iter().flat_map(|link| graph.neighbours(0, *link));
    let mut candidates: Vec<Ordinal> = behind.filter(|other| *other != node).collect();
    candidates.sort_unstable();
    candidates.dedup();
    candidates.retain(|other| !links.contains(other));
    // Any of them, where there are many: their numbers say nothing of where they are.
    let every = candidates.len().div_ceil(CANDIDATES).max(1);
    let candidates: Vec<Ordinal> = candidates.into_iter().step_by(every).collect();
    let mut candidates = match vectors.codes {
        Some(codes) => measured(&codes.scorer(&vectors.row(node)), &candidates),
        None => measured(&vectors.scorer(vectors.row(node)), &candidates),
    };
    candidates.sort_unstable();
    let mut passed = Vec::new();
    for candidate in candidates {
        if links.len() == wanted {
            return;
        }
        let from = vectors.scorer(vectors.row(candidate.ordinal));
        // An inner product is no distance: nobody is too near to another by it.
        let is_apart = vectors.metric == Metric::Dot
            || links
                .iter()
                .all(|link| from.distance(*link) > FILL * candidate.distance);
        match is_apart {
            true => links.push(candidate.ordinal),
            false => passed.push(candidate.ordinal),
        }
    }
    let missing = wanted - links.len();
    links.extend(passed.into_iter().take(missing));
}

fn measured(near: &impl Near, ordinals: &[Ordinal]) -> Vec<Scored> {
    ordinals.iter().for_each(|ordinal| near.prefetch(*ordinal));
    let mut measured = Vec::with_capacity(ordinals.len());
    for some in ordinals.chunks(4) {
        let distances = near.four(four(some, |ordinal| *ordinal)).into_iter();
        measured.extend(some.iter().zip(distances).map(|(ordinal, distance)| Scored {
            distance,
            ordinal: *ordinal,
        }));
    }
    measured
}

/// The 16 bits that make the nearest float, of halves the even one.
fn high_half(x: f32) -> u16 {
    let bits = x.to_bits();
    match x.is_finite() {
        true => ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16,
        false => (bits >> 16) as u16,
    }
}

/// The neighbours of a node, thirty-two at most.
#[derive(Clone, Copy)]
pub(super) struct Pack<'a>(&'a [u8]);

impl<'a> Pack<'a> {
    /// Whose estimates these are, then NONE to the end.
    #[inline]
    pub(super) fn ids(self) -> &'a [Ordinal] {
        bytemuck::cast_slice(&self.0[..IDS])
    }
}

impl<'a> Packs<'a> {
    /// Packs of places, by their number, around centres that are known otherwise.
    pub(super) fn of_places(metric: Metric, dim: usize, mean: &'a [f32], records: &'a [u8]) -> Self {
        Self {
            metric,
            dim,
            count: 1,
            pack_bytes: bytes_of_places(dim),
            mean,
            records,
            roots: &[],
        }
    }

    #[inline]
    fn record(&self, node: Ordinal) -> &'a [u8] {
        let bytes = self.count * self.pack_bytes;
        let start = node as usize * bytes;
        &self.records[start..start + bytes]
    }

    /// The packs of those a walk may start from.
    fn roots(&self) -> impl Iterator<Item = Pack<'a>> + use<'a> {
        self.roots.chunks_exact(self.pack_bytes).map(Pack)
    }

    /// The packs of a node.
    #[inline]
    fn of(&self, node: Ordinal) -> impl Iterator<Item = Pack<'a>> + use<'a> {
        self.record(node).chunks_exact(self.pack_bytes).map(Pack)
    }

    /// Estimates neighbours against a query of as many dimensions.
    pub(super) fn scorer(self, query: &[f32]) -> PackScorer<'a> {
        let scale = match self.metric {
            Metric::Cosine => super::inv_norm(query),
            Metric::Dot | Metric::Euclid | Metric::Manhattan | Metric::Hamming => 1.0,
        };
        let mut rest = vec![0f32; self.dim];
        take_off(self.mean, query, scale, &mut rest);
        let mean_distance = match self.metric {
            // Of the query as it is scaled: its products with others may be beyond what a float holds.
            Metric::Cosine => 1.0 - kernels::dot(&rest, self.mean) - kernels::dot(self.mean, self.mean),
            Metric::Dot | Metric::Manhattan | Metric::Hamming => -kernels::dot(query, self.mean),
            Metric::Euclid => kernels::dot(&rest, &rest),
        };
        let beyond_mean = kernels::dot(&rest, &rest).sqrt();
        Rotation::of(self.dim).turn(&mut rest);
        let kernel = kernels::best_for_codes().packs;
        PackScorer {
            packs: self,
            kernel,
            query: kernel.query(&rest),
            mean_distance,
            beyond_mean,
        }
    }
}

/// A query ready to be estimated against the neighbours of any node.
pub(super) struct PackScorer<'a> {
    packs: Packs<'a>,
    kernel: PackKernel,
    query: PackQuery,
    /// How far the mean of all is.
    mean_distance: f32,
    beyond_mean: f32,
}

impl<'a> PackScorer<'a> {
    /// The packs of a node.
    #[inline]
    pub(super) fn of(&self, node: Ordinal) -> impl Iterator<Item = Pack<'a>> + use<'a> {
        self.packs.of(node)
    }

    /// The packs of those a walk may start from.
    pub(super) fn roots(&self) -> impl Iterator<Item = Pack<'a>> + use<'a> {
        self.packs.roots()
    }

    /// By how much the tables are off for a row, as a rule.
    pub(super) fn deviation(&self) -> f32 {
        self.query.deviation()
    }

    /// How long what the query differs from the mean of all by is.
    pub(super) fn beyond_mean(&self) -> f32 {
        self.beyond_mean
    }

    /// About how far some of those are, as [`Self::estimate`] says of neighbours.
    #[inline]
    pub(super) fn estimate_root(&self, pack: Pack<'_>, edge: f32, estimates: &mut [f32; PACK]) -> u32 {
        self.estimate(pack, self.mean_distance, edge, estimates)
    }

    /// About how far the neighbours are of a node that is so far itself. Gives back a bit for each that seems nearer than `edge`;
    /// those that are none may be among them.
    #[inline]
    pub(super) fn estimate(&self, pack: Pack<'_>, distance: f32, edge: f32, estimates: &mut [f32; PACK]) -> u32 {
        self.estimate_all(&pack.0[IDS..], distance, edge, estimates)
    }

    /// The same of a pack of places, around a centre that is so far.
    #[inline]
    pub(super) fn estimate_places(&self, pack: usize, distance: f32, edge: f32, estimates: &mut [f32; PACK]) -> u32 {
        self.estimate_all(self.packs.record(pack as Ordinal), distance, edge, estimates)
    }

    #[inline]
    fn estimate_all(&self, pack: &[u8], distance: f32, edge: f32, estimates: &mut [f32; PACK]) -> u32 {
        let (numbers, signs) = pack.split_at(2 * NUMBER);
        let (a, f) = bytemuck::cast_slice::<u8, u16>(numbers).split_at(PACK);
        let halves = [a, f].map(|of| of.first_chunk().expect("a number for each of the pack"));
        self.kernel.of(&self.query, distance, edge, halves, signs, estimates)
    }

    /// Asks memory for the beginning of the packs of a node that may be expanded soon.
    #[inline]
    pub(super) fn prefetch(&self, node: Ordinal) {
        kernels::prefetch(self.packs.record(node));
    }

    /// Asks for all of them.
    #[inline]
    pub(super) fn prefetch_all(&self, node: Ordinal) {
        kernels::prefetch_all(self.packs.record(node));
    }
}

#[cfg(test)]
mod tests;
