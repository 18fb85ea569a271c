//! Dense vectors seen as ordinals and bytes: distances, exact scan and graph search.
//!
//! Callers hand in the rows of one segment ([`VectorsRef`]), the ordinals that may be answered ([`Allow`]: deaths and
//! filter already folded in) and a way to say "time is up"; they get the nearest ordinals. Nothing here knows points,
//! files, clocks or segments.
//!
//! [`Flat`] is exact and always available, and the oracle of the tests; [`hnsw`] is the graph for what is too large
//! to scan, [`ivf`] are inverted lists, for what is larger still or cold. [`mod@faiss`] is whatever that library makes, in builds that have it.

use std::cmp::Ordering;

mod again;
pub mod batch;
pub mod bitset;
pub mod calibration;
pub mod codes;
pub mod faiss;
pub mod fidelity;
pub mod flat;
pub mod floats;
pub mod hnsw;
pub mod ivf;
pub mod kernels;
mod least;
mod near;
pub mod packs;
mod rotation;
pub mod signs;
pub mod space;
#[cfg(test)]
mod tests;
mod twins;

pub use self::faiss::Faiss;
pub use bitset::BitSet;
pub use calibration::Calibration;
use codes::CodeScorer;
pub use codes::{Codes, CodesLayout};
pub use fidelity::Coding;
pub use flat::Flat;
pub use floats::Floats;
pub use hnsw::HnswLayout;
pub use ivf::IvfLayout;
pub use packs::PacksLayout;
pub use signs::SignsLayout;
pub use space::{QueryScorer, Touch, VectorsRef, inv_norm};

use crate::error::{Error, ErrorKind, Result};
use crate::types::Ordinal;

/// Finds the vectors nearest to a query.
///
/// - *Operations:* one search over one segment's vectors, the same ones the index was built from.
/// - *Guarantees:* hits ascend by distance, then ordinal; each is allowed, present and appears once; at most `k` of
///   them.
/// - *Non-guarantees:* an approximate index may miss near vectors, and may return fewer than `k` hits although `k` are
///   allowed: a caller that promised `k` falls back to [`Flat`].
/// - *Failure:* a query of the wrong length is `Invalid`, vectors that do not fit the index are `Damaged`, and once
///   `stop` says true the search ends as `Deadline`: never a short list for want of time. Nothing is kept between
///   searches, so any of them can be retried.
/// - *Enforced by:* the tests beside this file, which run every implementation against `Flat`.
pub trait VectorIndex {
    /// The `k` nearest of the allowed vectors. `ef` is how many candidates an approximate index keeps in mind while
    /// it looks (more is slower and finds more; at least `k` are kept); an exact one ignores it.
    fn search(
        &self,
        vectors: &VectorsRef<'_>,
        query: &[f32],
        k: usize,
        ef: usize,
        allow: &Allow<'_>,
        stop: &dyn Fn() -> bool,
    ) -> Result<Found>;
}

/// Hits beyond the last one that are asked for where each is measured again: ties at the edge are among them.
pub const EDGE: usize = 4;

/// Which ordinals may be answered.
#[derive(Debug, Clone, Copy)]
pub enum Allow<'a> {
    /// Every one that has a vector.
    All,
    /// Those of the set.
    Only(&'a BitSet),
}

impl Allow<'_> {
    /// Whether the ordinal may be answered.
    #[inline]
    pub fn contains(&self, ordinal: Ordinal) -> bool {
        match self {
            Self::All => true,
            Self::Only(set) => set.contains(ordinal),
        }
    }
}

/// What a search found.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Found {
    /// Nearest first.
    pub hits: Vec<Scored>,
    /// How many distances were computed to find them; what is estimated for thirty-two rows at once counts as one.
    pub evaluated: u64,
}

/// An ordinal and its distance from something; ordered by distance, then ordinal.
#[derive(Debug, Clone, Copy)]
pub struct Scored {
    /// Smaller is closer; [`crate::schema::Metric::raw`] turns it into the metric's value.
    pub distance: f32,
    /// Whose distance.
    pub ordinal: Ordinal,
}

impl Ord for Scored {
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        // Total even for NaN, so that no input can break a heap.
        self.distance
            .total_cmp(&other.distance)
            .then(self.ordinal.cmp(&other.ordinal))
    }
}

impl PartialOrd for Scored {
    #[inline]
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Scored {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Scored {}

/// Counts distance evaluations and now and then asks whether to go on.
struct Meter<'a> {
    stop: &'a dyn Fn() -> bool,
    evaluated: u64,
    /// When to ask again.
    ask_at: u64,
    /// Nodes that a walk looked through to those behind them: reading links costs about half of what a distance does.
    passed: u64,
    /// What a walk may spend before it gives up.
    evaluations_max: u64,
}

impl<'a> Meter<'a> {
    /// Between two questions: some tens of microseconds of work, far below any deadline, far above the question's cost.
    const EVERY: u64 = 256;

    fn new(stop: &'a dyn Fn() -> bool) -> Self {
        Self {
            stop,
            evaluated: 0,
            ask_at: 0,
            passed: 0,
            evaluations_max: u64::MAX,
        }
    }

    /// Whether more was spent than a walk may.
    #[inline]
    fn is_spent(&self) -> bool {
        self.evaluated + self.passed / 2 > self.evaluations_max
    }

    /// Counts one evaluation that is about to happen.
    #[inline]
    fn tick(&mut self) -> Result<()> {
        self.add(1)
    }

    /// Counts some evaluations that are about to happen. The first one asks, so that a late search does no work at all.
    #[inline]
    fn add(&mut self, evaluations: usize) -> Result<()> {
        if self.evaluated >= self.ask_at {
            if (self.stop)() {
                return Err(Error::new(
                    ErrorKind::Deadline,
                    "deadline_exceeded",
                    format!(
                        "the deadline passed during a vector search, after {} distances",
                        self.evaluated
                    ),
                ));
            }
            self.ask_at = self.evaluated + Self::EVERY;
        }
        self.evaluated += evaluations as u64;
        Ok(())
    }
}
