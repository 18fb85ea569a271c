//! Exact search: measures every candidate and keeps the `k` nearest.
//!
//! Used for small segments, for the few matches of a narrow filter, as the fallback when a graph found too few, and as
//! the oracle of recall in tests. Cost: one distance per candidate, memory for `k` hits.

use std::collections::BinaryHeap;

use super::near::{Near, four};
use super::{Allow, Found, Meter, Scored, VectorIndex, VectorsRef, again};
use crate::error::{Error, Result};
use crate::types::Ordinal;

/// Candidates by code that a scan of codes keeps to be measured again: so many times `k`, and so many more. How many of them are
/// measured follows from the errors seen.
const KEPT: usize = 4;
const KEPT_MORE: usize = 64;
/// How many times as many a second scan keeps, where all that the first one kept were so near each other that codes could not
/// tell which are the nearest.
const KEPT_AGAIN: usize = 8;

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
/// codes put behind `KEPT` times `k` others, or `KEPT_AGAIN` times as many where that could matter. Reads a quarter or an eighth
/// of what [`scan`] reads, which it is where there are no codes.
pub fn scan_codes<C: Iterator<Item = Ordinal>>(
    vectors: &VectorsRef<'_>,
    query: &[f32],
    candidates: impl Fn() -> C,
    k: usize,
    stop: &dyn Fn() -> bool,
) -> Result<Found> {
    let Some(codes) = vectors.codes else {
        return scan(vectors, query, candidates(), k, stop);
    };
    vectors.check_query(query)?;
    if k == 0 {
        return Ok(Found::default());
    }
    let keep = k.saturating_mul(KEPT).saturating_add(KEPT_MORE);
    let mut meter = Meter::new(stop);
    let (by_code, exactly) = (codes.scorer(query), vectors.scorer(query));
    let mut hits = nearest(vectors, &by_code, candidates(), keep, &mut meter)?;
    let all = hits.len() < keep;
    if !again::measure(&mut hits, &mut Vec::new(), &exactly, k, &mut meter)? && !all {
        let keep = keep.saturating_mul(KEPT_AGAIN);
        hits = nearest(vectors, &by_code, candidates(), keep, &mut meter)?;
        again::measure(&mut hits, &mut Vec::new(), &exactly, k, &mut meter)?;
    }
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
    let mut meter = Meter::new(stop);
    let hits = nearest(vectors, &vectors.scorer(query), candidates, k, &mut meter)?;
    Ok(Found {
        hits,
        evaluated: meter.evaluated,
    })
}

/// All candidates that are exactly so far from the query, in their order.
pub fn scan_at(
    vectors: &VectorsRef<'_>,
    query: &[f32],
    candidates: impl Iterator<Item = Ordinal>,
    distance: f32,
    stop: &dyn Fn() -> bool,
) -> Result<Found> {
    vectors.check_query(query)?;
    let scorer = vectors.scorer(query);
    let mut meter = Meter::new(stop);
    let mut hits = Vec::new();
    for ordinal in candidates {
        meter.tick()?;
        if scorer.distance(ordinal) == distance {
            hits.push(Scored { distance, ordinal });
        }
    }
    Ok(Found {
        hits,
        evaluated: meter.evaluated,
    })
}

/// Candidates that are asked for from memory while as many before them are measured. Those of a filter lie anywhere, and memory
/// takes longer than a distance.
const AHEAD: usize = 8;

/// The `keep` nearest of the candidates, nearest first.
fn nearest(
    vectors: &VectorsRef<'_>,
    near: &impl Near,
    candidates: impl Iterator<Item = Ordinal>,
    keep: usize,
    meter: &mut Meter<'_>,
) -> Result<Vec<Scored>> {
    // The worst on top. Grows with what is found, never by an unchecked number.
    let mut best: BinaryHeap<Scored> = BinaryHeap::new();
    let mut measure = |some: &[Ordinal]| -> Result<()> {
        meter.add(some.len())?;
        for some in some.chunks(4) {
            for (ordinal, distance) in some.iter().zip(near.four(four(some, |ordinal| *ordinal))) {
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
        }
        Ok(())
    };
    let (mut now, mut next) = (Vec::with_capacity(AHEAD), Vec::with_capacity(AHEAD));
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
        near.prefetch(ordinal);
        next.push(ordinal);
        if next.len() == AHEAD {
            measure(&now)?;
            now.clear();
            std::mem::swap(&mut now, &mut next);
        }
    }
    measure(&now)?;
    measure(&next)?;
    Ok(best.into_sorted_vec())
}
