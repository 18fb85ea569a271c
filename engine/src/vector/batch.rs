//! Many questions asked of the same rows at once, exactly.
//!
//! A scan reads every row for one question, and waits for memory most of that time: a core reads some 17 GB a second, and could
//! measure several times as much. Here all questions are asked of a few rows, which stay in the nearest cache, before the next rows are
//! read. So `q` questions cost one reading of the rows, and `q` distances a row at the speed of that cache.
//!
//! Deterministic: hits are ordered by distance, then ordinal, whoever helped to find them.

use std::ops::Range;

use super::least::Least;
use super::near::four;
use super::space::QueryScorer;
use super::{Allow, Scored, VectorsRef};
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

/// The `k` nearest of the allowed rows to each question, nearest first. Meant for `k` up to some hundred. Memory: `k` hits for each
/// question, times the shares of a round.
pub fn nearest(
    vectors: &VectorsRef<'_>,
    questions: &[&[f32]],
    k: usize,
    allow: &Allow<'_>,
    workers: &Workers,
    stop: &dyn Fn() -> bool,
) -> Result<Vec<Vec<Scored>>> {
    for question in questions {
        vectors.check_query(question)?;
    }
    let mut all: Vec<Least<Scored>> = questions.iter().map(|_| Least::new(k)).collect();
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
            ask(
                vectors,
                questions,
                k,
                allow,
                start..vectors.len().min(start + SHARE_ROWS),
            )
        });
        for share in some {
            for (all, some) in all.iter_mut().zip(share) {
                some.into_vec().into_iter().for_each(|row| all.offer(row, |row| *row));
            }
        }
    }
    Ok(all.into_iter().map(Least::into_vec).collect())
}

/// Asks all questions of some rows.
fn ask(
    vectors: &VectorsRef<'_>,
    questions: &[&[f32]],
    k: usize,
    allow: &Allow<'_>,
    rows: Range<usize>,
) -> Vec<Least<Scored>> {
    let rows: Vec<Ordinal> = (rows.start as Ordinal..rows.end as Ordinal)
        .filter(|ordinal| allow.contains(*ordinal) && !vectors.is_absent(*ordinal))
        .collect();
    let mut asked: Vec<(QueryScorer<'_>, Least<Scored>)> = questions
        .iter()
        .map(|question| (vectors.scorer(question), Least::new(k)))
        .collect();
    for block in rows.chunks(BLOCK_ROWS) {
        for (scorer, least) in &mut asked {
            for some in block.chunks(4) {
                let distances = scorer.four(four(some, |ordinal| *ordinal));
                for (ordinal, distance) in some.iter().zip(distances) {
                    let row = Scored {
                        distance,
                        ordinal: *ordinal,
                    };
                    least.offer(row, |row| *row);
                }
            }
        }
    }
    asked.into_iter().map(|(_, least)| least).collect()
}

#[cfg(test)]
mod tests;
