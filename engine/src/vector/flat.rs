//! Exact search: measures every candidate and keeps the `k` nearest.
//!
//! Used for small segments, for the few matches of a narrow filter, as the fallback when a graph found too few, and as
//! the oracle of recall in tests. Cost: one distance per candidate, memory for `k` hits.

use std::collections::BinaryHeap;

use super::near::{Near, four};
use super::{Allow, CodeScorer, Found, Meter, Scored, VectorIndex, VectorsRef, again};
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
    let keep = kept(k);
    let mut meter = Meter::new(stop);
    let by_code = codes.scorer(query);
    let first = nearest(vectors, &by_code, candidates(), keep, &mut meter)?;
    settle_codes(vectors, query, &by_code, first, candidates, k, &mut meter)
}

/// How many candidates by code are kept to be measured again.
pub(super) fn kept(k: usize) -> usize {
    k.saturating_mul(KEPT).saturating_add(KEPT_MORE)
}

/// The `k` nearest of what is nearest by code, of which [`kept`] are in `first`.
pub(super) fn settle_codes<C: Iterator<Item = Ordinal>>(
    vectors: &VectorsRef<'_>,
    query: &[f32],
    by_code: &CodeScorer<'_>,
    first: Vec<Scored>,
    candidates: impl Fn() -> C,
    k: usize,
    meter: &mut Meter<'_>,
) -> Result<Found> {
    let exactly = vectors.scorer(query);
    let mut hits = first;
    let all = hits.len() < kept(k);
    if !again::measure(&mut hits, &mut Vec::new(), &exactly, k, meter)?.surely() && !all {
        hits = nearest(
            vectors,
            by_code,
            candidates(),
            kept(k).saturating_mul(KEPT_AGAIN),
            meter,
        )?;
        again::measure(&mut hits, &mut Vec::new(), &exactly, k, meter)?;
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

/// The same where ids decide: of those that are exactly as far as the last hit the first by id.
pub fn scan_by_id<'i>(
    vectors: &VectorsRef<'_>,
    query: &[f32],
    candidates: impl Iterator<Item = Ordinal>,
    k: usize,
    id_of: IdOf<'i>,
    stop: &dyn Fn() -> bool,
) -> Result<Found> {
    vectors.check_query(query)?;
    if k == 0 {
        return Ok(Found::default());
    }
    let mut meter = Meter::new(stop);
    let best = Best::by_id(k, id_of);
    let hits = offer_all(vectors, &vectors.scorer(query), candidates, best, &mut meter)?;
    Ok(Found {
        hits,
        evaluated: meter.evaluated,
    })
}

/// The id of a row.
pub type IdOf<'i> = &'i (dyn Fn(Ordinal) -> &'i str + Sync);

/// The nearest so far, at most `keep` of them, the worst on top, and [`ties`] where ids decide. Grows with what is found, never by an
/// unchecked number.
pub(super) struct Best<'i> {
    heap: BinaryHeap<Scored>,
    keep: usize,
    /// Decides who is among them where several are as far as the last; else ordinals do.
    id_of: Option<IdOf<'i>>,
    /// Those as far as the last one in the heap that are not in it, or the first of them by id; only where ids decide.
    ties: Vec<Scored>,
}

impl<'i> Best<'i> {
    pub(super) fn new(keep: usize) -> Self {
        Self {
            heap: BinaryHeap::new(),
            keep,
            id_of: None,
            ties: Vec::new(),
        }
    }

    pub(super) fn by_id(keep: usize, id_of: IdOf<'i>) -> Self {
        Self {
            id_of: Some(id_of),
            ..Self::new(keep)
        }
    }

    /// Keeps it if it is among the nearest.
    #[inline]
    pub(super) fn offer(&mut self, candidate: Scored) {
        if self.heap.len() < self.keep {
            self.heap.push(candidate);
            return;
        }
        let Some(mut worst) = self.heap.peek_mut() else { return };
        if candidate < *worst {
            let out = std::mem::replace(&mut *worst, candidate);
            drop(worst);
            if self.id_of.is_some() {
                self.tie(out);
            }
        } else if self.id_of.is_some() && candidate.distance == worst.distance {
            drop(worst);
            self.tie(candidate);
        }
    }

    /// Keeps one that was not, or is no longer, in the heap, if it is as far as the last one there.
    fn tie(&mut self, row: Scored) {
        let edge = self.heap.peek().map_or(f32::INFINITY, |worst| worst.distance);
        // What is no number ties with nothing.
        let is_tie = row.distance <= edge;
        if !is_tie {
            // The edge has come nearer.
            self.ties.clear();
            return;
        }
        self.ties.push(row);
        // Small integers tie all the time, and no more than `keep` of them can be wanted.
        if let Some(id_of) = self.id_of
            && self.ties.len() >= ties(self.keep)
        {
            first_by_id(&mut self.ties, self.keep, id_of);
        }
    }

    /// Nearest first.
    pub(super) fn into_sorted(self) -> Vec<Scored> {
        let mut nearest = self.heap.into_sorted_vec();
        if let (Some(id_of), Some(last)) = (self.id_of, nearest.last())
            && !self.ties.is_empty()
        {
            let edge = last.distance;
            let nearer = nearest.partition_point(|hit| hit.distance < edge);
            let mut ties = nearest.split_off(nearer);
            let wanted = ties.len();
            ties.extend(self.ties);
            first_by_id(&mut ties, wanted, id_of);
            ties.sort_unstable();
            nearest.extend(ties);
        }
        nearest
    }
}

/// Ties are not sorted out before there are so many.
const TIES_MIN: usize = 64;

/// So many are kept at most of those that tie with the last of `keep`.
pub(super) fn ties(keep: usize) -> usize {
    keep.saturating_mul(2).max(TIES_MIN)
}

fn first_by_id(rows: &mut Vec<Scored>, count: usize, id_of: IdOf<'_>) {
    if count > 0 && rows.len() > count {
        rows.select_nth_unstable_by(count - 1, |a, b| id_of(a.ordinal).cmp(id_of(b.ordinal)));
    }
    rows.truncate(count);
}

/// Candidates that are asked for from memory while as many before them are measured. Those of a filter lie anywhere, and memory
/// takes longer than a distance.
const AHEAD: usize = 8;

/// Whether the ordinal has a vector.
#[inline]
pub(super) fn is_present(vectors: &VectorsRef<'_>, ordinal: Ordinal) -> Result<bool> {
    if ordinal as usize >= vectors.len() {
        return Err(Error::damaged(format!(
            "ordinal {ordinal} of {} vectors",
            vectors.len()
        )));
    }
    Ok(!vectors.is_absent(ordinal))
}

/// The `keep` nearest of the candidates, nearest first.
fn nearest(
    vectors: &VectorsRef<'_>,
    near: &impl Near,
    candidates: impl Iterator<Item = Ordinal>,
    keep: usize,
    meter: &mut Meter<'_>,
) -> Result<Vec<Scored>> {
    offer_all(vectors, near, candidates, Best::new(keep), meter)
}

fn offer_all(
    vectors: &VectorsRef<'_>,
    near: &impl Near,
    candidates: impl Iterator<Item = Ordinal>,
    mut best: Best<'_>,
    meter: &mut Meter<'_>,
) -> Result<Vec<Scored>> {
    let mut measure = |some: &[Ordinal]| -> Result<()> {
        meter.add(some.len())?;
        for some in some.chunks(4) {
            for (ordinal, distance) in some.iter().zip(near.four(four(some, |ordinal| *ordinal))) {
                best.offer(Scored {
                    distance,
                    ordinal: *ordinal,
                });
            }
        }
        Ok(())
    };
    let (mut now, mut next) = (Vec::with_capacity(AHEAD), Vec::with_capacity(AHEAD));
    for ordinal in candidates {
        if !is_present(vectors, ordinal)? {
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
    Ok(best.into_sorted())
}
