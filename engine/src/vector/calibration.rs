//! How much effort finds how much: measured when a graph was made, so that a search can be told a recall instead of an effort.
//!
//! Rows of the segment are the questions, since nobody has asked any yet. Three things would make them easier than what will be asked, and
//! are made up for:
//! - A walk that comes by the row itself finds its links, which are what it looks for: so the row is hidden
//!   ([`Hnsw::distances_without`](super::hnsw::Hnsw)).
//! - What is found of a sample varies: so what is kept is the mean less its standard error.
//! - Questions of people are unlike any row, farther from all of them and with neighbours on several sides: so of what a search may
//!   miss, three fifths are left to that ([`Calibration::ef`]). WordNet's glosses at the effort that finds 0.95 of a gloss's neighbours
//!   give 0.92 to the questions of SQuAD.
//!
//! For each of `HITS` recall is measured at growing `ef` until there is nothing left to find, or until more effort finds no more (what
//! cannot be reached is not found by effort); in between, it is a power.
//!
//! # Bytes
//!
//! ```text
//! for each step: u32 hits, u32 ef, f32 recall                      ascending by hits, then ef; recall does not descend
//! ```

use std::borrow::Cow;

use xxhash_rust::xxh3::xxh3_64;

use super::hnsw::{Effort, Hnsw};
use super::twins::Twins;
use super::{Allow, BitSet, Scored, VectorsRef, batch};
use crate::config::Workers;
use crate::error::{Error, ErrorKind, Result};
use crate::limits;
use crate::types::Ordinal;

/// Segments of fewer rows are not measured: a search keeps what finds nearly all there.
pub const ROWS_MIN: usize = 2048;
/// Of what may be missed, the share that rows as questions may miss.
pub(super) const MISSED_BY_ROWS: f32 = 0.4;
/// Questions: one for so many rows, no fewer and no more than these.
const ROWS_A_QUESTION: usize = 64;
const QUESTIONS_MIN: usize = 64;
const QUESTIONS_MAX: usize = 1024;
/// Where less is missed fewer questions say as much: at a larger `ef` than the first, the fewer the larger it is, down to the second.
const EF_OF_ALL: usize = 128;
const QUESTIONS_ENOUGH: usize = 256;
/// Hits that are asked for.
const HITS: [usize; 2] = [10, 100];
/// The first `ef` is so much more than the hits. With less a walk over codes keeps more all the same.
const EF_FIRST_MORE: usize = 4;
/// Each next `ef` is larger by this factor, up to a largest one, and up to one row in so many.
const EF_STEP: f64 = std::f64::consts::SQRT_2;
const EF_LAST: usize = 2048;
const EF_SHARE: usize = 4;
/// With so much found nothing more is measured ...
const ENOUGH: f32 = 0.9995;
/// ... nor if twice the effort finds no more than this.
const GAIN_MIN: f32 = 0.0005;
/// Nothing is said about misses below this.
const MISS_MIN: f64 = 1e-4;
/// How far beyond the largest `ef` that was measured an effort may be.
const BEYOND: f64 = 4.0;
/// Beyond what was measured misses become fewer by a power of `ef`, no higher than this one. By a lower one than the least more effort
/// would find hardly more, and is not made.
const POWER_MIN: f64 = 0.5;
const POWER_MAX: f64 = 3.0;
/// Questions of a share of the work.
const SHARE_QUESTIONS: usize = 8;
/// More steps than any measurement makes.
const STEPS_MAX: usize = 64;

/// What was measured of a graph.
#[derive(Debug, Clone, PartialEq)]
pub struct Calibration {
    /// For each number of hits, ascending; at least one.
    curves: Vec<Curve>,
}

#[derive(Debug, Clone, PartialEq)]
struct Curve {
    hits: u32,
    /// Ascending; at least one.
    steps: Vec<Step>,
}

/// What an effort found.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Step {
    ef: u32,
    recall: f32,
}

/// A row as a question, without itself.
struct Question {
    row: Ordinal,
    /// The exact answer.
    nearest: Vec<Scored>,
}

impl Question {
    /// Numbers that are beyond all bounds, or rows that are all as near, say nothing.
    fn says_something(&self) -> bool {
        match self.nearest.as_slice() {
            [first, .., last] => last.distance.is_finite() && first.distance < last.distance,
            _ => false,
        }
    }
}

/// What is asked of every graph over the same vectors.
pub struct Questions {
    /// Rows that might have been drawn.
    of: usize,
    all: Vec<Question>,
}

impl Questions {
    /// Draws rows, and finds exactly what is nearest to them. `None` of few rows.
    pub fn draw(vectors: &VectorsRef<'_>, workers: &Workers, stop: &dyn Fn() -> bool) -> Result<Option<Self>> {
        let outside = Twins::of(vectors).outside;
        let nodes = (0..vectors.len() as Ordinal).filter(|ordinal| !outside.contains(*ordinal));
        let nodes: Vec<Ordinal> = nodes.collect();
        if nodes.len() < ROWS_MIN {
            return Ok(None);
        }
        let all = questions(vectors, &nodes, workers, stop)?;
        Ok((all.len() >= QUESTIONS_MIN / 2).then_some(Self { of: nodes.len(), all }))
    }
}

impl Calibration {
    /// Asks the graph, and remembers what it takes to find how much.
    pub fn measure(
        questions: &Questions,
        vectors: &VectorsRef<'_>,
        graph: &Hnsw<'_>,
        workers: &Workers,
        stop: &dyn Fn() -> bool,
    ) -> Result<Self> {
        let Questions { of, all: questions } = questions;
        let ef_last = EF_LAST.min(of / EF_SHARE);
        let mut curves = Vec::new();
        for hits in HITS {
            let mut steps: Vec<Step> = Vec::new();
            let mut ef = (hits + EF_FIRST_MORE) as f64;
            while ef as usize <= ef_last {
                if stop() {
                    return Err(Error::new(
                        ErrorKind::Cancelled,
                        "cancelled",
                        "a calibration was cancelled",
                    ));
                }
                let effort = Effort::beyond(hits, ef as usize, vectors.codes.is_some()).once();
                let asked = &questions[..asked(questions.len(), hits, ef as usize)];
                let found = recall(asked, vectors, graph, effort, workers)?;
                let before = |steps_ago: usize| {
                    let step = steps.len().checked_sub(steps_ago).map(|at| steps[at]);
                    step.map_or(0.0, |step| step.recall)
                };
                let (found, half) = (found.max(before(1)), before(2));
                steps.push(Step {
                    ef: ef as u32,
                    recall: found,
                });
                if found >= ENOUGH || (steps.len() > 2 && found - half < GAIN_MIN) {
                    break;
                }
                ef *= EF_STEP;
            }
            curves.push(Curve {
                hits: hits as u32,
                steps,
            });
        }
        Ok(Self { curves })
    }

    /// How many candidates a search for so many hits has to keep to find that share of them, on average. Beyond what was measured
    /// what is kept besides the hits becomes less for each of them: half for ten times as many.
    pub fn ef(&self, target: f32, hits: usize) -> usize {
        let (Some(first), Some(last)) = (self.curves.first(), self.curves.last()) else {
            return hits;
        };
        let target = 1.0 - (1.0 - target) * MISSED_BY_ROWS;
        let (low, few) = (first.ef(target), f64::from(first.hits));
        let (high, many) = (last.ef(target).max(low), f64::from(last.hits));
        let wanted = (hits as f64).max(few);
        let ef = if wanted < many {
            low * (high / low).powf((wanted / few).ln() / (many / few).ln())
        } else {
            wanted * (1.0 + (high / many - 1.0) * (wanted / many).powf(0.5f64.log10()))
        };
        // Whole numbers stay what they are in spite of rounding.
        let ef = (ef - 1e-6).ceil() as usize;
        let least = hits.saturating_add(EF_FIRST_MORE);
        ef.clamp(least.min(limits::EF_MAX), limits::EF_MAX)
    }

    /// The bytes of the section.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for curve in &self.curves {
            for step in &curve.steps {
                bytes.extend_from_slice(&curve.hits.to_le_bytes());
                bytes.extend_from_slice(&step.ef.to_le_bytes());
                bytes.extend_from_slice(&step.recall.to_le_bytes());
            }
        }
        bytes
    }

    /// Reads them back.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let damaged = || Error::damaged("segment: a calibration that cannot be");
        let (words, []) = bytes.as_chunks::<4>() else {
            return Err(damaged());
        };
        let (all, []) = words.as_chunks::<3>() else {
            return Err(damaged());
        };
        let mut curves: Vec<Curve> = Vec::new();
        for [hits, ef, recall] in all {
            let hits = u32::from_le_bytes(*hits);
            let step = Step {
                ef: u32::from_le_bytes(*ef),
                recall: f32::from_le_bytes(*recall),
            };
            if hits == 0 || step.ef < hits || !(0.0..=1.0).contains(&step.recall) {
                return Err(damaged());
            }
            match curves.last_mut() {
                Some(curve) if curve.hits == hits => {
                    let last = curve.steps.last();
                    if last.is_some_and(|last| last.ef >= step.ef || last.recall > step.recall) {
                        return Err(damaged());
                    }
                    curve.steps.push(step);
                }
                Some(curve) if curve.hits > hits => return Err(damaged()),
                _ => curves.push(Curve {
                    hits,
                    steps: vec![step],
                }),
            }
        }
        if curves.is_empty() || all.len() > STEPS_MAX {
            return Err(damaged());
        }
        Ok(Self { curves })
    }
}

impl Curve {
    /// The `ef` that finds so much: between two steps, and beyond the last one, misses become fewer by a power of it.
    fn ef(&self, target: f32) -> f64 {
        let point = |step: &Step| (f64::from(step.ef).ln(), miss(step.recall).ln());
        let wanted = miss(target).ln();
        let at = self.steps.partition_point(|step| step.recall < target);
        match (at, &self.steps[..]) {
            (0, [first, ..]) => f64::from(first.ef),
            (at, steps) if at < steps.len() => {
                let ((from, more), (to, less)) = (point(&steps[at - 1]), point(&steps[at]));
                let share = if more > less {
                    (more - wanted) / (more - less)
                } else {
                    1.0
                };
                (from + share.clamp(0.0, 1.0) * (to - from)).exp()
            }
            (_, steps) => {
                let Some(last) = steps.last() else { return 1.0 };
                let (to, less) = point(last);
                // By the last half of what was measured: two steps differ by little more than chance.
                let (from, more) = point(&steps[(steps.len() - 1) / 2]);
                let power = (more - less) / (to - from);
                // Not a number if there is one step.
                let factor = if power >= POWER_MIN {
                    ((less - wanted) / power.min(POWER_MAX)).exp()
                } else {
                    1.0
                };
                f64::from(last.ef) * factor.clamp(1.0, BEYOND)
            }
        }
    }
}

fn miss(recall: f32) -> f64 {
    (1.0 - f64::from(recall)).max(MISS_MIN)
}

/// How many of the questions are asked.
fn asked(all: usize, hits: usize, ef: usize) -> usize {
    let some = (all * EF_OF_ALL / ef).max(QUESTIONS_ENOUGH).min(all);
    // Of more hits fewer questions say as much.
    if hits > HITS[0] { some.div_ceil(2) } else { some }
}

/// Rows spread over all, in no order, and what is exactly nearest to them.
fn questions(
    vectors: &VectorsRef<'_>,
    nodes: &[Ordinal],
    workers: &Workers,
    stop: &dyn Fn() -> bool,
) -> Result<Vec<Question>> {
    let count = (nodes.len() / ROWS_A_QUESTION).clamp(QUESTIONS_MIN, QUESTIONS_MAX);
    // Each at a place within its stretch that looks like chance: documents of one length must not be met at one place of each.
    let drawn = |i: usize| {
        let (from, to) = (i * nodes.len() / count, (i + 1) * nodes.len() / count);
        let chance = xxh3_64(&(i as u64 + 0x9E37).to_le_bytes());
        nodes[from + (chance % (to - from) as u64) as usize]
    };
    let mut rows: Vec<Ordinal> = (0..count).map(drawn).collect();
    // So that any part of them is a sample of all.
    rows.sort_by_key(|row| xxh3_64(&row.to_le_bytes()));
    let all = BitSet::from_iter(vectors.len(), nodes.iter().copied());
    let asked: Vec<Cow<'_, [f32]>> = rows.iter().map(|row| vectors.row(*row)).collect();
    // One more, for the row itself.
    let most = HITS.into_iter().max().unwrap_or_default() + 1;
    let nearest = batch::nearest(vectors, &asked, most, &Allow::Only(&all), workers, stop)?;
    let question = |(row, nearest): (Ordinal, Vec<Scored>)| Question {
        row,
        nearest: nearest.into_iter().filter(|node| node.ordinal != row).collect(),
    };
    let mut questions: Vec<Question> = rows.into_iter().zip(nearest).map(question).collect();
    questions.retain(Question::says_something);
    Ok(questions)
}

/// The share of the hits that a search finds, less the standard error of its mean.
fn recall(
    questions: &[Question],
    vectors: &VectorsRef<'_>,
    graph: &Hnsw<'_>,
    effort: Effort,
    workers: &Workers,
) -> Result<f32> {
    let ask = |question: &Question| -> Result<usize> {
        let nearest = &question.nearest[..question.nearest.len().min(effort.hits)];
        let edge = nearest.last().map_or(f32::INFINITY, |last| last.distance);
        let found = graph.distances_without(question.row, vectors, effort)?;
        let right = found.iter().filter(|distance| **distance <= edge).count();
        Ok(right.min(effort.hits))
    };
    let shares: Vec<&[Question]> = questions.chunks(SHARE_QUESTIONS).collect();
    let found = workers.map(shares.len(), |share| {
        shares[share].iter().map(ask).collect::<Result<Vec<usize>>>()
    });
    let found = found.into_iter().collect::<Result<Vec<_>>>()?.concat();
    let count = found.len().max(1) as f64;
    let share = |found: &usize| *found as f64 / effort.hits as f64;
    let mean = found.iter().map(share).sum::<f64>() / count;
    let variance = found.iter().map(|found| (share(found) - mean).powi(2)).sum::<f64>() / count;
    Ok((mean - (variance / count).sqrt()).max(0.0) as f32)
}

#[cfg(test)]
mod tests;
