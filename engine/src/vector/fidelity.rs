//! Whether codes tell neighbours apart: measured when a segment is made, before its graph is built on them.
//!
//! A code cuts a row into 255 or 15 steps between its least and its largest value. Rows of a cluster that is narrower than a
//! step look alike by code, and a walk among more of them than it keeps finds some of the nearest by chance. So some rows are
//! taken as questions, and their exact nearest rows are looked for among the first by code. Where too many are missing the next
//! finer code is tried, and the vectors themselves are walked on if none will do.
//!
//! The questions are a sample, what they are asked of is not: among a tenth of the rows a cluster has a tenth of its crowd, and
//! any code would do. So the cost is [`PROBES`] distances a row, of vectors and of codes, in blocks that stay in the nearest
//! caches: a thirtieth of a build.
//!
//! Deterministic: the questions follow from the number of rows, and nothing depends on how many threads help.
//!
//! # Bytes
//!
//! ```text
//! u32 bits of the codes that are used, 0: none | for each kind that was tried: u32 bits, f32 recall
//! ```

use super::codes::{CodeScorer, Encoder};
use super::kernels::Bits;
use super::least::Least;
use super::near::four;
use super::space::QueryScorer;
use super::twins::Twins;
use super::{BitSet, Scored, VectorsRef};
use crate::config::Workers;
use crate::error::{Error, ErrorKind, Result};
use crate::types::Ordinal;

/// Questions to a sealed segment.
pub const PROBES: usize = 64;
/// Questions to a growing one, which is made while a writer waits: a few milliseconds.
pub const PROBES_GROWING: usize = 16;

/// Exact nearest rows of a question ...
pub(super) const NEAREST: usize = 10;
/// ... that have to be among so many by code: a quarter of what a walk keeps unless it is told otherwise, so that a cluster of
/// a hundred rows that look alike is noticed.
pub(super) const DEPTH: usize = 32;
/// The share that has to be found.
pub(super) const FLOOR: f32 = 0.97;

/// Rows of a share of the work.
const SHARE_ROWS: usize = 4096;
/// Shares between two looks at whether to go on.
const ROUND_SHARES: usize = 16;
/// Rows that all questions are asked of before the next rows are.
const BLOCK_ROWS: usize = 64;

/// Which codes a segment's vectors have, and why.
#[derive(Debug, Clone, PartialEq)]
pub struct Coding {
    /// Bits of a code; none where the vectors themselves are walked on.
    pub used: Option<Bits>,
    /// What was measured, coarsest first.
    pub tried: Vec<Tried>,
}

/// One kind of code, measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tried {
    /// Bits of a code.
    pub bits: Bits,
    /// The share of exact neighbours that are among the first by code.
    pub recall: f32,
}

impl Coding {
    /// The coarsest codes from `wanted` on that tell the vectors apart.
    pub fn choose(
        vectors: &VectorsRef<'_>,
        wanted: Bits,
        probes: usize,
        workers: &Workers,
        stop: &dyn Fn() -> bool,
    ) -> Result<Self> {
        vectors.check()?;
        let twins = Twins::of(vectors);
        let probes = probes_of(&twins.outside, probes);
        let mut tried = Vec::new();
        for bits in [Bits::Four, Bits::Eight] {
            if bits.count() < wanted.count() {
                continue;
            }
            let recall = recall(vectors, bits, &twins.outside, &probes, workers, stop)?;
            tried.push(Tried { bits, recall });
            if recall >= FLOOR {
                return Ok(Self {
                    used: Some(bits),
                    tried,
                });
            }
        }
        Ok(Self { used: None, tried })
    }

    /// Whether codes were wanted that would not do.
    pub fn is_refused(&self) -> bool {
        self.tried.iter().any(|tried| Some(tried.bits) != self.used)
    }

    /// The bytes of the section.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = self.used.map_or(0, Bits::count).to_le_bytes().to_vec();
        for tried in &self.tried {
            bytes.extend_from_slice(&tried.bits.count().to_le_bytes());
            bytes.extend_from_slice(&tried.recall.to_le_bytes());
        }
        bytes
    }

    /// Reads them back.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let damaged = || Error::damaged("segment: a choice of codes that cannot be");
        let (words, []) = bytes.as_chunks::<4>() else {
            return Err(damaged());
        };
        let (used, tried) = words.split_first().ok_or_else(damaged)?;
        let (tried, []) = tried.as_chunks::<2>() else {
            return Err(damaged());
        };
        let bits = |word: [u8; 4]| match u32::from_le_bytes(word) {
            4 => Ok(Bits::Four),
            8 => Ok(Bits::Eight),
            _ => Err(damaged()),
        };
        let used = match u32::from_le_bytes(*used) {
            0 => None,
            _ => Some(bits(*used)?),
        };
        let tried = tried.iter().map(|[kind, recall]| {
            Ok(Tried {
                bits: bits(*kind)?,
                recall: f32::from_le_bytes(*recall),
            })
        });
        let tried: Vec<Tried> = tried.collect::<Result<_>>()?;
        if tried.len() > 2 || tried.iter().any(|tried| !(0.0..=1.0).contains(&tried.recall)) {
            return Err(damaged());
        }
        Ok(Self { used, tried })
    }
}

/// Rows spread over all that have a vector of their own, each at a place within its stretch that looks like chance: documents
/// of one length must not be met at one place of each.
fn probes_of(outside: &BitSet, count: usize) -> Vec<Ordinal> {
    let nodes: Vec<Ordinal> = (0..outside.len() as Ordinal)
        .filter(|ordinal| !outside.contains(*ordinal))
        .collect();
    let count = count.min(nodes.len());
    let probe = |i: usize| {
        let (from, to) = (i * nodes.len() / count, (i + 1) * nodes.len() / count);
        let chance = xxhash_rust::xxh3::xxh3_64(&(i as u64).to_le_bytes());
        nodes[from + (chance % (to - from) as u64) as usize]
    };
    (0..count).map(probe).collect()
}

/// The share of the questions' exact nearest rows that are among the first by code.
fn recall(
    vectors: &VectorsRef<'_>,
    bits: Bits,
    outside: &BitSet,
    probes: &[Ordinal],
    workers: &Workers,
    stop: &dyn Fn() -> bool,
) -> Result<f32> {
    let encoder = Encoder::new(vectors, bits)?;
    let mut all: Vec<Probe> = probes.iter().map(|probe| Probe::new(*probe)).collect();
    let shares = vectors.len().div_ceil(SHARE_ROWS);
    for first in (0..shares).step_by(ROUND_SHARES) {
        if stop() {
            return Err(Error::new(
                ErrorKind::Cancelled,
                "cancelled",
                "the measurement of codes was cancelled",
            ));
        }
        let some = workers.map(ROUND_SHARES.min(shares - first), |share| {
            let start = (first + share) * SHARE_ROWS;
            let rows = start..vectors.len().min(start + SHARE_ROWS);
            ask(vectors, encoder.clone(), outside, probes, rows)
        });
        for share in some {
            for (all, some) in all.iter_mut().zip(share) {
                all.add(some);
            }
        }
    }
    let (mut found, mut wanted) = (0, 0);
    for probe in &all {
        found += probe.found();
        wanted += probe.nearest.as_slice().len();
    }
    // Where there is nothing to be told apart, nothing is missed.
    Ok(if wanted == 0 { 1.0 } else { found as f32 / wanted as f32 })
}

/// Asks all questions of some rows.
fn ask(
    vectors: &VectorsRef<'_>,
    mut encoder: Encoder<'_>,
    outside: &BitSet,
    probes: &[Ordinal],
    rows: std::ops::Range<usize>,
) -> Vec<Probe> {
    let nodes: Vec<Ordinal> = (rows.start as Ordinal..rows.end as Ordinal)
        .filter(|ordinal| !outside.contains(*ordinal))
        .collect();
    let mut records = vec![0u8; nodes.len() * encoder.record_bytes()];
    for (ordinal, record) in nodes.iter().zip(records.chunks_exact_mut(encoder.record_bytes())) {
        encoder.row(*ordinal, record);
    }
    let codes = encoder.codes(&records);
    let mut asked: Vec<(Probe, QueryScorer<'_>, CodeScorer<'_>)> = probes
        .iter()
        .map(|probe| {
            let row = vectors.row(*probe);
            let coded = codes.scorer(&row);
            (Probe::new(*probe), vectors.scorer(row), coded)
        })
        .collect();
    let places: Vec<usize> = (0..nodes.len()).collect();
    for block in places.chunks(BLOCK_ROWS) {
        for (probe, exact, coded) in &mut asked {
            for some in block.chunks(4) {
                let exact = exact.four(four(some, |place| nodes[*place]));
                let coded = coded.four(four(some, |place| *place as Ordinal));
                for (i, place) in some.iter().enumerate() {
                    probe.offer(nodes[*place], exact[i], coded[i]);
                }
            }
        }
    }
    asked.into_iter().map(|(probe, ..)| probe).collect()
}

/// A row as a question, and what was found so far.
struct Probe {
    ordinal: Ordinal,
    /// The least exact distances.
    nearest: Least<f32>,
    /// The first by code, with their exact distances.
    first: Least<(Scored, f32)>,
}

impl Probe {
    fn new(ordinal: Ordinal) -> Self {
        Self {
            ordinal,
            nearest: Least::new(NEAREST),
            first: Least::new(DEPTH),
        }
    }

    #[inline]
    fn offer(&mut self, ordinal: Ordinal, exact: f32, coded: f32) {
        // A row finds itself by any code.
        if ordinal != self.ordinal {
            let coded = Scored {
                distance: coded,
                ordinal,
            };
            self.nearest.offer(exact, |exact| *exact);
            self.first.offer((coded, exact), |(coded, _)| *coded);
        }
    }

    /// Adds what was found among other rows.
    fn add(&mut self, other: Self) {
        for exact in other.nearest.into_vec() {
            self.nearest.offer(exact, |exact| *exact);
        }
        for row in other.first.into_vec() {
            self.first.offer(row, |(coded, _)| *coded);
        }
    }

    /// How many of the exact nearest are among the first by code. By distance: which of equally near ones does not matter.
    fn found(&self) -> usize {
        let nearest = self.nearest.as_slice();
        let Some(edge) = nearest.last() else { return 0 };
        let near = self.first.as_slice().iter().filter(|(_, exact)| exact <= edge).count();
        near.min(nearest.len())
    }
}

#[cfg(test)]
mod tests;
