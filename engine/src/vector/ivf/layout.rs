//! The bytes of inverted lists: checked once by [`IvfLayout::parse`], then searched without checks by [`Ivf`].
//!
//! The layout is drawn in the parent module.

use std::ops::Range;

use bytemuck::{Pod, Zeroable};

use super::ROUTED;
use crate::error::{Error, Result};
use crate::limits;
use crate::schema::Metric;
use crate::types::Ordinal;
use crate::vector::hnsw::Hnsw;
use crate::vector::kernels::{Bits, LINE, PACK};
use crate::vector::packs::{self, Packs};
use crate::vector::{BitSet, Codes, CodesLayout, Floats, HnswLayout, Touch, VectorsRef};

const MAGIC: [u8; 4] = *b"CIVF";
const VERSION: u32 = 2;
/// In the order of their numbers.
const METRICS: [Metric; 5] = [
    Metric::Cosine,
    Metric::Dot,
    Metric::Euclid,
    Metric::Manhattan,
    Metric::Hamming,
];

#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Header {
    magic: [u8; 4],
    version: u32,
    rows: u32,
    dim: u32,
    lists: u32,
    places: u32,
    bits: u32,
    metric: u32,
    far_reach: f32,
    reserved: [u32; 7],
}

const _: () = assert!(size_of::<Header>() == LINE);

/// How far a search looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Look {
    /// To find that share of the hits.
    pub(super) recall: f32,
    pub(super) reach: f32,
    /// Of all rows, for 10 and for 100 hits.
    pub(super) shares: [f32; 2],
    /// Of all lists, likewise.
    pub(super) widths: [f32; 2],
}

/// Recalls for which it is measured how far a search has to look.
pub(super) const RECALLS: [f32; 7] = [0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999];

pub(super) type Looks = [Look; RECALLS.len()];

/// Where the parts are; proof that the bytes were checked. Holds no reference, so it can live beside the mapping.
#[derive(Debug, Clone)]
pub struct IvfLayout {
    metric: Metric,
    dim: usize,
    rows: usize,
    bits: Option<Bits>,
    far_reach: f32,
    looks: Looks,
    parts: Parts,
    mean_squared: f32,
    coded: Option<CodesLayout>,
    graph: Option<HnswLayout>,
}

/// Bytes of each part.
#[derive(Debug, Clone)]
struct Parts {
    looks: Range<usize>,
    mean: Range<usize>,
    centres: Range<usize>,
    coded: Range<usize>,
    spreads: Range<usize>,
    starts: Range<usize>,
    order: Range<usize>,
    graph: Range<usize>,
}

/// What lists are made of, ready to be written.
pub(super) struct Content<'a> {
    pub(super) metric: Metric,
    pub(super) dim: usize,
    pub(super) rows: usize,
    pub(super) bits: Option<Bits>,
    pub(super) far_reach: f32,
    pub(super) looks: &'a Looks,
    pub(super) mean: &'a [f32],
    pub(super) centres: &'a [f32],
    pub(super) coded: &'a [u8],
    pub(super) spreads: &'a [f32],
    pub(super) starts: &'a [u32],
    pub(super) order: &'a [Ordinal],
    pub(super) graph: &'a [u8],
}

/// Inverted lists over their bytes, ready to be searched ([`VectorIndex`](crate::vector::VectorIndex)).
#[derive(Clone, Copy)]
pub struct Ivf<'a> {
    pub(super) metric: Metric,
    pub(super) rows: usize,
    /// How far a search looks, unless it is said otherwise.
    pub(super) look: Look,
    looks: Looks,
    /// How far where what matches is not where the nearest rows are.
    pub(super) far_reach: f32,
    pub(super) centres: Centres<'a>,
    pub(super) spreads: &'a [f32],
    pub(super) starts: &'a [u32],
    pub(super) order: &'a [Ordinal],
    /// The records, by place.
    pub(super) codes: Option<Codes<'a>>,
    /// The same rows in a bit a dimension, thirty-two places together.
    pub(super) packs: Option<Packs<'a>>,
    /// Told of each list before it is read.
    pub(super) touch: Option<&'a dyn Touch>,
}

/// The centres of all lists, and how the nearest of them are found.
#[derive(Clone, Copy)]
pub(super) struct Centres<'a> {
    /// Cosine is measured as the inner product with a query of unit length: a centre is shorter than its rows, and how much is
    /// a part of how far they are.
    pub(super) vectors: VectorsRef<'a>,
    pub(super) graph: Option<Hnsw<'a>>,
}

/// What centres are measured by. Where zeros and ones differ they differ by one, squared too: the mean of some of them is a centre for what
/// they differ in.
pub(super) fn metric_of_centres(metric: Metric) -> Metric {
    match metric {
        Metric::Cosine | Metric::Dot => Metric::Dot,
        Metric::Euclid | Metric::Hamming => Metric::Euclid,
        Metric::Manhattan => Metric::Manhattan,
    }
}

fn damaged(what: &str) -> Error {
    Error::damaged(format!("lists: {what}"))
}

impl IvfLayout {
    /// Checks everything a search relies on. `bytes` must be 4-byte aligned, as mapped files and fresh buffers are.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let header = bytes.get(..LINE).ok_or_else(|| damaged("shorter than their header"))?;
        let header: Header = bytemuck::pod_read_unaligned(header);
        if header.magic != MAGIC || header.version != VERSION || header.reserved != [0; 7] {
            return Err(damaged(&format!(
                "magic {:?}, version {}: not what this build reads",
                header.magic, header.version
            )));
        }
        let metric = *METRICS
            .get(header.metric as usize)
            .ok_or_else(|| damaged(&format!("metric {}", header.metric)))?;
        let bits = match (header.bits, metric) {
            (0, _) => None,
            (8, Metric::Cosine | Metric::Dot | Metric::Euclid) => Some(Bits::Eight),
            (4, Metric::Cosine | Metric::Dot | Metric::Euclid) => Some(Bits::Four),
            (other, _) => return Err(damaged(&format!("{other} bits"))),
        };
        if header.dim == 0 || header.lists == 0 || header.places > header.rows {
            return Err(damaged(&format!(
                "{} dimensions, {} lists of {} of {} rows",
                header.dim, header.lists, header.places, header.rows
            )));
        }
        let parts = Parts::place(&header, metric, bytes.len())?;
        let numbers = |range: &Range<usize>| -> Result<&[u32]> {
            bytemuck::try_cast_slice(&bytes[range.clone()]).map_err(|e| damaged(&e.to_string()))
        };
        let mean: &[f32] = bytemuck::cast_slice(numbers(&parts.mean)?);
        let (dim, lists, rows) = (header.dim as usize, header.lists as usize, header.rows as usize);
        check_places(numbers(&parts.starts)?, numbers(&parts.order)?, rows)?;
        let looks: Looks = bytemuck::pod_read_unaligned(&bytes[parts.looks.clone()]);
        if looks.map(|look| look.recall) != RECALLS {
            return Err(damaged("they were measured for other recalls"));
        }
        let mut layout = Self {
            metric,
            dim,
            rows,
            bits,
            far_reach: header.far_reach,
            looks,
            mean_squared: mean.iter().map(|x| x * x).sum(),
            coded: None,
            graph: None,
            parts,
        };
        if metric != Metric::Manhattan {
            let coded = CodesLayout::parse(&bytes[layout.parts.coded.clone()])?;
            if !coded.fits(metric_of_centres(metric), dim, lists) || coded.bits() != Bits::Eight {
                return Err(damaged("the coded centres are those of others"));
            }
            layout.coded = Some(coded);
        }
        if lists > ROUTED {
            let graph = HnswLayout::parse(&bytes[layout.parts.graph.clone()])?;
            if graph.len() != lists {
                return Err(damaged("the graph is over other centres"));
            }
            layout.graph = Some(graph);
        }
        Ok(layout)
    }

    /// The lists in the very bytes that were parsed, and the bytes of their records and packs, which [`Self::records_bytes`] and
    /// [`Self::packs_fit`] say the number of; a panic if any are others.
    pub fn view<'a>(
        &self,
        bytes: &'a [u8],
        records: &'a [u8],
        packs: &'a [u8],
        touch: Option<&'a dyn Touch>,
    ) -> Ivf<'a> {
        let floats = |range: &Range<usize>| -> &'a [f32] { bytemuck::cast_slice(&bytes[range.clone()]) };
        let numbers = |range: &Range<usize>| -> &'a [u32] { bytemuck::cast_slice(&bytes[range.clone()]) };
        let mean = floats(&self.parts.mean);
        assert_eq!(records.len(), self.records_bytes(), "the records of these lists");
        assert!(self.packs_fit(packs.len()), "the packs of these lists");
        let vectors = VectorsRef {
            metric: metric_of_centres(self.metric),
            dim: self.dim,
            data: Floats::Singles(floats(&self.parts.centres)),
            touch: None,
            inv_norms: &[],
            absent: None,
            codes: self
                .coded
                .as_ref()
                .map(|layout| layout.view(&bytes[self.parts.coded.clone()])),
            signs: None,
            packs: None,
        };
        let all = Ivf {
            metric: self.metric,
            rows: self.rows,
            look: Look::default(),
            looks: self.looks,
            far_reach: self.far_reach,
            centres: Centres {
                vectors,
                graph: self
                    .graph
                    .as_ref()
                    .map(|layout| layout.view(&bytes[self.parts.graph.clone()])),
            },
            spreads: floats(&self.parts.spreads),
            starts: numbers(&self.parts.starts),
            order: numbers(&self.parts.order),
            codes: self
                .bits
                .map(|bits| Codes::of_records(bits, self.metric, mean, self.mean_squared, records)),
            packs: (!packs.is_empty()).then(|| Packs::of_places(self.metric, self.dim, mean, packs)),
            touch,
        };
        all.with_recall(limits::TARGET_RECALL_DEFAULT)
    }

    /// How many bytes their records take.
    pub fn records_bytes(&self) -> usize {
        let places = self.parts.order.len() / size_of::<u32>();
        self.bits.map_or(0, |bits| bits.record_bytes(self.dim)) * places
    }

    /// Whether so many bytes may be those of packs of their rows: none are, and as many as they all take where there are codes.
    pub fn packs_fit(&self, len: usize) -> bool {
        let places = self.parts.order.len() / size_of::<u32>();
        len == 0 || (self.bits.is_some() && len == places.div_ceil(PACK) * packs::bytes_of_places(self.dim))
    }

    /// Which of these bytes are the records of a list, as the bytes that were parsed say.
    pub fn records_of(&self, bytes: &[u8], list: Ordinal) -> Range<usize> {
        let starts: &[u32] = bytemuck::cast_slice(&bytes[self.parts.starts.clone()]);
        let record = self.bits.map_or(0, |bits| bits.record_bytes(self.dim));
        let at = |i: usize| starts[i] as usize * record;
        at(list as usize)..at(list as usize + 1)
    }

    /// Bits of the codes in the records.
    pub fn bits(&self) -> Option<Bits> {
        self.bits
    }

    /// Whether these are lists of such vectors.
    pub fn fits(&self, metric: Metric, dim: usize, rows: usize) -> bool {
        (self.metric, self.dim, self.rows) == (metric, dim, rows)
    }
}

impl Parts {
    /// Places the parts, or refuses a header that does not fit the length.
    fn place(header: &Header, metric: Metric, len: usize) -> Result<Self> {
        // Nothing here comes near 2^64: at most 2^32 lists of 2^32 dimensions of 4 bytes is the one product that could.
        let (dim, lists) = (u128::from(header.dim), u128::from(header.lists));
        let coded = match metric {
            Metric::Manhattan => 0,
            Metric::Cosine | Metric::Dot | Metric::Euclid | Metric::Hamming => {
                let line = LINE as u128;
                line + (4 * dim).next_multiple_of(line) + lists * Bits::Eight.record_bytes(header.dim as usize) as u128
            }
        };
        let sizes = [
            size_of::<Looks>() as u128,
            4 * dim,
            4 * dim * lists,
            coded,
            4 * lists,
            4 * (lists + 1),
            4 * u128::from(header.places),
        ];
        let mut end = LINE as u128;
        let mut ranges = Vec::with_capacity(sizes.len());
        for size in sizes {
            let start = end.next_multiple_of(LINE as u128);
            end = start + size;
            ranges.push((start, end));
        }
        let routed = header.lists as usize > ROUTED;
        let graph_at = if routed {
            end.next_multiple_of(LINE as u128)
        } else {
            end
        };
        let len_fits = if routed {
            graph_at < len as u128
        } else {
            end == len as u128
        };
        if !len_fits {
            return Err(damaged(&format!("{end} bytes announced, {len} present")));
        }
        // They end within a length that exists, so each fits a usize.
        let mut ranges = ranges.into_iter().map(|(from, to)| from as usize..to as usize);
        let mut next = || ranges.next().expect("a range a size");
        Ok(Self {
            looks: next(),
            mean: next(),
            centres: next(),
            coded: next(),
            spreads: next(),
            starts: next(),
            order: next(),
            graph: graph_at as usize..len,
        })
    }
}

/// Lists follow each other without gap, and every row is there and in one place at most: so nothing is answered twice.
fn check_places(starts: &[u32], order: &[Ordinal], rows: usize) -> Result<()> {
    let follow = starts.first() == Some(&0)
        && starts.last() == Some(&(order.len() as u32))
        && starts.windows(2).all(|pair| pair[0] <= pair[1]);
    if !follow {
        return Err(damaged("they overlap"));
    }
    let mut seen = BitSet::new(rows);
    for ordinal in order {
        if *ordinal as usize >= rows || seen.contains(*ordinal) {
            return Err(damaged(&format!("row {ordinal} is in none or in two")));
        }
        seen.set(*ordinal);
    }
    Ok(())
}

impl Content<'_> {
    /// The bytes, as [`IvfLayout::parse`] wants them.
    pub(super) fn encode(&self) -> Vec<u8> {
        let metric = METRICS.iter().position(|metric| *metric == self.metric);
        let header = Header {
            magic: MAGIC,
            version: VERSION,
            rows: self.rows as u32,
            dim: self.dim as u32,
            lists: self.spreads.len() as u32,
            places: self.order.len() as u32,
            bits: self.bits.map_or(0, Bits::count),
            metric: metric.expect("every metric has a number") as u32,
            far_reach: self.far_reach,
            reserved: [0; 7],
        };
        let parts: [&[u8]; 7] = [
            bytemuck::bytes_of(self.looks),
            bytemuck::cast_slice(self.mean),
            bytemuck::cast_slice(self.centres),
            self.coded,
            bytemuck::cast_slice(self.spreads),
            bytemuck::cast_slice(self.starts),
            bytemuck::cast_slice(self.order),
        ];
        let graph = (!self.graph.is_empty()).then_some(self.graph);
        let mut bytes = bytemuck::bytes_of(&header).to_vec();
        for part in parts.into_iter().chain(graph) {
            bytes.resize(bytes.len().next_multiple_of(LINE), 0);
            bytes.extend_from_slice(part);
        }
        bytes
    }
}

impl Ivf<'_> {
    /// How many lists there are.
    pub fn lists(&self) -> usize {
        self.spreads.len()
    }

    /// How many ordinals they are over, absent ones included.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// There are no rows.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Bytes of a record, if there are records.
    pub fn record_bytes(&self) -> Option<usize> {
        self.codes.map(|codes| codes.record_bytes())
    }

    /// Bytes of a row's part of a pack, if there are packs.
    pub fn sieve_bytes(&self) -> Option<usize> {
        self.packs
            .map(|_| packs::bytes_of_places(self.centres.vectors.dim) / PACK)
    }

    /// The same lists, of which so many are looked into as find that share of the hits, by what was measured.
    pub fn with_recall(self, recall: f32) -> Self {
        Self {
            look: Look::between(&self.looks, recall),
            ..self
        }
    }

    /// The same lists, so many times as many of which are looked into.
    pub fn with_effort(self, times: f32) -> Self {
        let widths = self.look.widths.map(|width| width * times);
        Self {
            look: Look { widths, ..self.look },
            ..self
        }
    }

    /// About which share of all rows a search for `k` hits looks at, by what was measured.
    pub fn share(&self, k: f64) -> f64 {
        at_depth(self.look.shares, k)
    }

    /// Into how many lists a search for `k` hits looks at most, unless it takes more to find them.
    pub(super) fn width(&self, k: f64) -> usize {
        ((at_depth(self.look.widths, k) * self.lists() as f64).ceil() as usize).max(1)
    }

    /// Which places a list has.
    #[inline]
    pub(super) fn places(&self, list: Ordinal) -> Range<usize> {
        self.starts[list as usize] as usize..self.starts[list as usize + 1] as usize
    }
}

impl Look {
    /// What is between two that were measured, by how many misses are allowed, on a logarithmic scale.
    pub(super) fn between(looks: &Looks, recall: f32) -> Self {
        let after = looks.partition_point(|look| look.recall < recall);
        let (Some(below), Some(above)) = (after.checked_sub(1).map(|i| looks[i]), looks.get(after).copied()) else {
            // Less than the least, or more than the most.
            return looks[after.min(looks.len() - 1)];
        };
        if recall == above.recall {
            return above;
        }
        let [from, to, wanted] = [below.recall, above.recall, recall].map(|recall| (1.0 - recall).ln());
        let share = (wanted - from) / (to - from);
        let mix = |a: f32, b: f32| a + share * (b - a);
        let mixed = |a: [f32; 2], b: [f32; 2]| [mix(a[0], b[0]), mix(a[1], b[1])];
        Self {
            recall,
            reach: mix(below.reach, above.reach),
            shares: mixed(below.shares, above.shares),
            widths: mixed(below.widths, above.widths),
        }
    }
}

/// A share that was measured for 10 and for 100 hits, for as many as are wanted: it grows as a power of them.
fn at_depth(measured: [f32; 2], k: f64) -> f64 {
    let [ten, hundred] = measured.map(|share| f64::from(share).clamp(1e-6, 1.0));
    let power = (hundred / ten).log10().clamp(0.0, 1.0);
    let share = ten * (k / 10.0).max(0.1).powf(power);
    // Wherever the file's numbers come from, one that is no number looks at everything.
    if share.is_nan() { 1.0 } else { share.clamp(0.0, 1.0) }
}
