//! Exact search: measures every candidate and keeps the `k` nearest.
//!
//! Used for small segments, for the few matches of a narrow filter, as the fallback when a graph found too few, and as
//! the oracle of recall in tests. Cost: one distance per candidate, memory for `k` hits.

use std::collections::BinaryHeap;

use super::near::four;
use super::{Allow, Found, Meter, Scored, VectorIndex, VectorsRef, again};
use crate::error::{Error, Result};
use crate::types::Ordinal;

/// Candidates by code that a scan of codes keeps to be measured again: so many times `k`, and so many more. How many of them are
/// measured follows from the errors seen.
const KEPT: usize = 4;
const KEPT_MORE: usize = 64;

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

/// The `k` nearest of the candidates by their codes, with the best of them measured again. Nearly exact: what is missed is what
/// codes put behind `KEPT` times `k` others. Reads a quarter or an eighth of what [`scan`] reads, which it is where
/// there are no codes.
pub fn scan_codes(
    vectors: &VectorsRef<'_>,
    query: &[f32],
    candidates: impl Iterator<Item = Ordinal>,
    k: usize,
    stop: &dyn Fn() -> bool,
) -> Result<Found> {
    let Some(codes) = vectors.codes else {
        return scan(vectors, query, candidates, k, stop);
    };
    vectors.check_query(query)?;
    if k == 0 {
        return Ok(Found::default());
    }
    let keep = k.saturating_mul(KEPT).saturating_add(KEPT_MORE);
    let scorer = codes.scorer(query);
    let mut meter = Meter::new(stop);
    let mut best: BinaryHeap<Scored> = BinaryHeap::new();
    let mut offer = |some: &[Ordinal]| -> Result<()> {
        meter.add(some.len())?;
        for (ordinal, distance) in some.iter().zip(scorer.four(four(some, |o| *o))) {
            let candidate = Scored {
                distance,
                ordinal: *ordinal,
            };
            if best.len() < keep {
                best.push(candidate);
            } else if let Some(mut worst) = best.peek_mut()
                && candidate < *worst
            {
                *worst = candidate;
            }
        }
        Ok(())
    };
    let mut some = Vec::with_capacity(4);
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
        some.push(ordinal);
        if some.len() == 4 {
            offer(&some)?;
            some.clear();
        }
    }
    if !some.is_empty() {
        offer(&some)?;
    }
    let mut hits = best.into_sorted_vec();
    again::measure(&mut hits, &mut Vec::new(), &vectors.scorer(query), k, &mut meter)?;
    hits.truncate(k);
    Ok(Found {
        hits,
        evaluated: meter.evaluated,
    })
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
