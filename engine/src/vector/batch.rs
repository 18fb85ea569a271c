//! Many questions asked of the same rows at once.
//!
//! A scan reads every row for one question, and waits for memory most of that time: a core reads some 17 GB a second, and could
//! measure several times as much. Here all questions are asked of a few rows, which stay in the nearest cache, before the next rows are
//! read. So `q` questions cost one reading of the rows, and `q` distances a row at the speed of that cache.
//!
//! Each question is answered as [`flat`] answers it alone, to the bit. Deterministic: hits are ordered by distance, then ordinal,
//! whoever helped to find them.

use std::ops::Range;

use super::flat::{self, Best, IdOf};
use super::near::{Near, four};
use super::space::QueryScorer;
use super::{Allow, Found, Meter, Scored, VectorsRef};
use crate::config::Workers;
use crate::error::{Error, ErrorKind, Result};
use crate::types::Ordinal;

/// Rows of a share of the work.
const SHARE_ROWS: usize = 4096;
/// Shares between two looks at whether to go on, and about how many products of numbers that takes.
const ROUND_SHARES: usize = 16;
const ROUND_PRODUCTS: usize = 1 << 31;
/// Rows that all questions are asked of before the next rows are.
const BLOCK_ROWS: usize = 64;
/// Questions that [`nearest`] asks at once: with more there would be fewer shares of a round than helpers, and their copies add up.
const TOGETHER: usize = 256;

/// A question and how many hits it wants.
#[derive(Debug, Clone, Copy)]
pub struct Question<'q> {
    /// To what the hits are near.
    pub vector: &'q [f32],
    /// How many.
    pub k: usize,
}

/// Candidates that a question for `k` hits keeps.
pub fn kept(k: usize, by_code: bool) -> usize {
    if by_code {
        flat::kept(k)
    } else {
        k.saturating_add(flat::ties(k))
    }
}

/// What [`flat::scan_by_id`] finds for each question. Candidates as there. `stop` is asked between blocks of rows.
pub fn scan_by_id(
    vectors: &VectorsRef<'_>,
    questions: &[Question<'_>],
    candidates: impl Iterator<Item = Ordinal>,
    id_of: IdOf<'_>,
    stop: &dyn Fn() -> bool,
) -> Result<Vec<Found>> {
    let best = |k| Best::by_id(k, id_of);
    scan(vectors, questions, candidates, best, stop)
}

fn scan<'i>(
    vectors: &VectorsRef<'_>,
    questions: &[Question<'_>],
    candidates: impl Iterator<Item = Ordinal>,
    best: impl Fn(usize) -> Best<'i>,
    stop: &dyn Fn() -> bool,
) -> Result<Vec<Found>> {
    let mut asked = Vec::with_capacity(questions.len());
    for question in questions {
        vectors.check_query(question.vector)?;
        asked.push((vectors.scorer(question.vector), best(question.k)));
    }
    let evaluated = measure(vectors, &mut asked, candidates, stop)?;
    let found = |(_, best): (_, Best<'_>)| Found {
        hits: best.into_sorted(),
        evaluated,
    };
    Ok(asked.into_iter().map(found).collect())
}

/// What [`flat::scan_codes`] finds for each question.
pub fn scan_codes<C: Iterator<Item = Ordinal>>(
    vectors: &VectorsRef<'_>,
    questions: &[Question<'_>],
    candidates: impl Fn() -> C,
    stop: &dyn Fn() -> bool,
) -> Result<Vec<Found>> {
    let Some(codes) = vectors.codes else {
        return scan(vectors, questions, candidates(), Best::new, stop);
    };
    let mut asked = Vec::with_capacity(questions.len());
    for question in questions {
        vectors.check_query(question.vector)?;
        asked.push((codes.scorer(question.vector), Best::new(flat::kept(question.k))));
    }
    let evaluated = measure(vectors, &mut asked, candidates(), stop)?;
    let settle = |(question, (by_code, best)): (&Question<'_>, (_, Best<'_>))| {
        let mut meter = Meter::new(stop);
        meter.add(evaluated as usize)?;
        let Question { vector, k } = *question;
        if k == 0 {
            return Ok(Found::default());
        }
        flat::settle_codes(
            vectors,
            vector,
            &by_code,
            best.into_sorted(),
            &candidates,
            k,
            &mut meter,
        )
    };
    questions.iter().zip(asked).map(settle).collect()
}

/// Asks all questions of all candidates; gives how many those are.
fn measure<N: Near>(
    vectors: &VectorsRef<'_>,
    asked: &mut [(N, Best<'_>)],
    candidates: impl Iterator<Item = Ordinal>,
    stop: &dyn Fn() -> bool,
) -> Result<u64> {
    let (mut evaluated, mut meter) = (0, Meter::new(stop));
    let mut block = Vec::with_capacity(BLOCK_ROWS);
    let mut candidates = candidates.fuse();
    loop {
        block.clear();
        for ordinal in candidates.by_ref() {
            if flat::is_present(vectors, ordinal)? {
                block.push(ordinal);
                if block.len() == BLOCK_ROWS {
                    break;
                }
            }
        }
        if block.is_empty() {
            return Ok(evaluated);
        }
        meter.add(block.len() * asked.len())?;
        ask(asked, &block);
        evaluated += block.len() as u64;
    }
}

/// Asks all questions of a block of rows.
#[inline]
fn ask<N: Near>(asked: &mut [(N, Best<'_>)], block: &[Ordinal]) {
    for (near, best) in asked {
        for some in block.chunks(4) {
            for (ordinal, distance) in some.iter().zip(near.four(four(some, |ordinal| *ordinal))) {
                best.offer(Scored {
                    distance,
                    ordinal: *ordinal,
                });
            }
        }
    }
}

/// The `k` nearest of the allowed rows to each question, nearest first, exactly; by several threads. Memory: `k` hits for each
/// question, times the shares of a round.
pub fn nearest(
    vectors: &VectorsRef<'_>,
    questions: &[impl AsRef<[f32]> + Sync],
    k: usize,
    allow: &Allow<'_>,
    workers: &Workers,
    stop: &dyn Fn() -> bool,
) -> Result<Vec<Vec<Scored>>> {
    for question in questions {
        vectors.check_query(question.as_ref())?;
    }
    let mut found = Vec::with_capacity(questions.len());
    for some in questions.chunks(TOGETHER) {
        found.extend(nearest_of_some(vectors, some, k, allow, workers, stop)?);
    }
    Ok(found)
}

fn nearest_of_some(
    vectors: &VectorsRef<'_>,
    questions: &[impl AsRef<[f32]> + Sync],
    k: usize,
    allow: &Allow<'_>,
    workers: &Workers,
    stop: &dyn Fn() -> bool,
) -> Result<Vec<Vec<Scored>>> {
    let mut all: Vec<Best<'_>> = questions.iter().map(|_| Best::new(k)).collect();
    let shares = vectors.len().div_ceil(SHARE_ROWS);
    let products = SHARE_ROWS * vectors.dim * questions.len().max(1);
    let round = (ROUND_PRODUCTS / products.max(1)).clamp(2, ROUND_SHARES);
    for first in (0..shares).step_by(round) {
        if stop() {
            return Err(Error::new(
                ErrorKind::Cancelled,
                "cancelled",
                "a scan for many questions was cancelled",
            ));
        }
        let some = workers.map(round.min(shares - first), |share| {
            let start = (first + share) * SHARE_ROWS;
            let rows = start..vectors.len().min(start + SHARE_ROWS);
            nearest_of(vectors, questions, k, allow, rows)
        });
        for share in some {
            for (all, some) in all.iter_mut().zip(share) {
                some.into_sorted().into_iter().for_each(|row| all.offer(row));
            }
        }
    }
    Ok(all.into_iter().map(Best::into_sorted).collect())
}

fn nearest_of(
    vectors: &VectorsRef<'_>,
    questions: &[impl AsRef<[f32]>],
    k: usize,
    allow: &Allow<'_>,
    rows: Range<usize>,
) -> Vec<Best<'static>> {
    let rows: Vec<Ordinal> = (rows.start as Ordinal..rows.end as Ordinal)
        .filter(|ordinal| allow.contains(*ordinal) && !vectors.is_absent(*ordinal))
        .collect();
    let mut asked: Vec<(QueryScorer<'_>, Best<'_>)> = questions
        .iter()
        .map(|question| (vectors.scorer(question.as_ref()), Best::new(k)))
        .collect();
    for block in rows.chunks(BLOCK_ROWS) {
        ask(&mut asked, block);
    }
    asked.into_iter().map(|(_, best)| best).collect()
}

#[cfg(test)]
mod tests;
