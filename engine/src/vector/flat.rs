//! Exact search: measures every candidate and keeps the `k` nearest.
//!
//! Used for small segments, for the few matches of a narrow filter, as the fallback when a graph found too few, and as
//! the oracle of recall in tests. Cost: one distance per candidate, memory for `k` hits.

use std::collections::BinaryHeap;

use super::{Allow, Found, Meter, Scored, VectorIndex, VectorsRef};
use crate::error::{Error, Result};
use crate::types::Ordinal;

/// The index that is no index.
#[derive(Debug, Clone, Copy, Default)]
pub struct Flat;

impl VectorIndex for Flat {
    fn search(
        &self,
        vectors: &VectorsRef<'_>,
        query: &[f32],
        k: usize,
        _ef: usize,
        allow: &Allow<'_>,
        stop: &dyn Fn() -> bool,
    ) -> Result<Found> {
        match allow {
            Allow::All => scan(vectors, query, 0..vectors.len() as Ordinal, k, stop),
            Allow::Only(set) => scan(vectors, query, set.iter(), k, stop),
        }
    }
}

/// The `k` nearest of the candidates, exactly. Candidates are distinct ordinals below `vectors.len()`, in any order
/// (ascending reads memory in order); absent ones are skipped.
pub fn scan(
    vectors: &VectorsRef<'_>,
    query: &[f32],
    candidates: impl Iterator<Item = Ordinal>,
    k: usize,
    stop: &dyn Fn() -> bool,
) -> Result<Found> {
    vectors.check_query(query)?;
    if k == 0 {
        return Ok(Found::default());
    }
    let scorer = vectors.scorer(query);
    let mut meter = Meter::new(stop);
    // The worst on top. Grows with what is found, never by an unchecked k.
    let mut nearest: BinaryHeap<Scored> = BinaryHeap::new();
    for ordinal in candidates {
        if ordinal as usize >= vectors.len() {
            return Err(Error::damaged(format!(
                "ordinal {ordinal} of {} vectors",
                vectors.len()
            )));
        }
        if vectors.is_absent(ordinal) {
            continue;
        }
        meter.tick()?;
        let candidate = Scored {
            distance: scorer.distance(ordinal),
            ordinal,
        };
        if nearest.len() < k {
            nearest.push(candidate);
        } else if let Some(mut worst) = nearest.peek_mut()
            && candidate < *worst
        {
            *worst = candidate;
        }
    }
    Ok(Found {
        hits: nearest.into_sorted_vec(),
        evaluated: meter.evaluated,
    })
}
