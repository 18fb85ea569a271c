//! How far a search has to look, and whether codes tell rows apart: measured when lists are made, with some of the rows as
//! questions.
//!
//! Each question meets every row once, exactly and by code. That gives its true neighbours, and so, for each of [`RECALLS`],
//! - the *reach*: in how many deviations from what is expected of their lists the neighbours are ([`Outlook`]). Those beyond it are
//!   [`MISSED_BY_REACH`] of what may be missed. No search is run for it, and none could be: how many lists one looks into depends on
//!   it.
//! - the *widths*: how many lists, in the order in which they are looked into, hold all of 10 and of 100 neighbours but
//!   [`MISSED_BY_WIDTH`] of what may be missed.
//!   Questions that are unlike any row are far from everything, so that the reach would take them into a large part of the lists
//!   (of WordNet's, asked with the questions of SQuAD, 43 % for a recall of 0.997).
//! - the *shares* of all rows that are looked at so, by which a plan knows what a search costs.
//!
//! and besides
//! - the *far reach*: the same of nearly all rows, wherever they are, for hits that a filter leaves far from the query.
//! - the share of neighbours that are among the first by code, as [`fidelity`](crate::vector::fidelity) measures it.
//!
//! The questions are a sample, what they are asked of is not: among a tenth of the rows neighbours are farther away.

use std::ops::Range;

use super::Outlook;
use super::build::Lists;
use super::kmeans::{GoOn, draw};
use super::layout::{Look, Looks, RECALLS};
use crate::config::Workers;
use crate::error::Result;
use crate::schema::Metric;
use crate::types::Ordinal;
use crate::vector::codes::AroundCentres;
use crate::vector::fidelity::{DEPTH, NEAREST};
use crate::vector::kernels::{self, Bits};
use crate::vector::least::Least;
use crate::vector::near::four;
use crate::vector::twins::Twins;
use crate::vector::{Codes, Scored, inv_norm};

/// Questions.
const PROBES: usize = 128;
/// What is known of each list is kept for each question: so much of it, so fewer questions where there are very many lists.
const OUTLOOKS_MAX: usize = 1 << 20;
const PROBES_MIN: usize = 16;
/// Of the true neighbours that may be missed, the share that may be beyond the reach, and the share that may be beyond the width.
/// What may be missed besides is left to codes, and to questions that are not as rows are.
const MISSED_BY_REACH: f64 = 0.2;
const MISSED_BY_WIDTH: f64 = 0.5;
/// The share of all rows that has to be within the far reach: hits of a filter that leaves what is far from the query are those that
/// chance has put nearest of very many.
const REACHED_FAR: f64 = 0.9995;
/// Rows that are looked at for it, of all questions together.
const ANYWHERE: usize = 1 << 18;
/// Neighbours that are remembered: for these shares are measured.
const REMEMBERED: usize = 100;
/// Rows of a share of the work.
const SHARE_ROWS: usize = 1024;
/// Shares between two looks at whether to go on.
const ROUND_SHARES: usize = 32;
/// Rows that all questions are asked of before the next rows are.
const BLOCK_ROWS: usize = 64;

/// What was measured.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Measured {
    pub(super) looks: Looks,
    pub(super) far_reach: f32,
    /// Of the true neighbours among the first by code; 1 without codes.
    pub(super) recall: f32,
}

/// Asks the questions of all rows, by codes of so many bits.
pub(super) fn measure(
    lists: &Lists<'_>,
    bits: Option<Bits>,
    seed: u64,
    workers: &Workers,
    go_on: GoOn<'_>,
) -> Result<Measured> {
    let rows = lists.order.len();
    let probes = (OUTLOOKS_MAX / lists.spreads.len()).clamp(PROBES_MIN, PROBES);
    // By place: each stretch of places is a few lists, so questions come from everywhere. One of those that are the same: copies
    // of a row are easy to find, and would be most of the questions where boilerplate is most of the rows.
    let outside = Twins::of(&lists.vectors).outside;
    let others = lists.order.iter().copied().filter(|row| !outside.contains(*row));
    let others: Vec<Ordinal> = others.collect();
    let count = probes.min(others.len());
    let questions: Vec<Question> = (0..count)
        .map(|i| Question::new(lists, others[draw(i, count, others.len(), seed)]))
        .collect();
    let mut all: Vec<Answer> = questions.iter().map(|_| Answer::new()).collect();
    let shares: Vec<Range<usize>> = (0..rows)
        .step_by(SHARE_ROWS)
        .map(|from| from..rows.min(from + SHARE_ROWS))
        .collect();
    // In the order of ordinals, which is that of the file.
    let mut present: Vec<Ordinal> = lists.order.clone();
    present.sort_unstable();
    let step = (rows * count / ANYWHERE).max(1);
    for shares in shares.chunks(ROUND_SHARES) {
        go_on()?;
        let some = workers.map(shares.len(), |share| {
            ask(lists, bits, &questions, &present[shares[share].clone()], step)
        });
        for share in some {
            for (all, some) in all.iter_mut().zip(share) {
                all.add(some);
            }
        }
    }
    go_on()?;
    Ok(judge(lists, &questions, &all, workers))
}

/// A row as a question.
struct Question {
    ordinal: Ordinal,
    /// Of each list.
    outlooks: Vec<Outlook>,
}

impl Question {
    fn new(lists: &Lists<'_>, ordinal: Ordinal) -> Self {
        let vectors = &lists.vectors;
        let row = vectors.row(ordinal);
        let scale = match vectors.metric {
            Metric::Cosine => inv_norm(&row),
            Metric::Dot | Metric::Euclid | Metric::Manhattan | Metric::Hamming => 1.0,
        };
        let scaled: Vec<f32> = row.iter().map(|x| x * scale).collect();
        let length = match vectors.metric {
            Metric::Dot => kernels::dot(&row, &row).sqrt(),
            Metric::Cosine | Metric::Euclid | Metric::Manhattan | Metric::Hamming => 1.0,
        };
        let centres = lists.centre_vectors();
        let scorer = centres.scorer(&scaled);
        let outlook = |list: usize| {
            let distance = scorer.distance(list as Ordinal);
            Outlook::of(vectors.metric, distance, lists.spreads[list], length)
        };
        Self {
            ordinal,
            outlooks: (0..lists.spreads.len()).map(outlook).collect(),
        }
    }
}

/// Asks all questions of some rows; what is looked at anywhere is one row in `step`.
fn ask(lists: &Lists<'_>, bits: Option<Bits>, questions: &[Question], rows: &[Ordinal], step: usize) -> Vec<Answer> {
    let vectors = &lists.vectors;
    let records = bits.map(|bits| {
        let mut encoder = AroundCentres::new(vectors, bits, &lists.mean);
        let mut records = vec![0u8; rows.len() * bits.record_bytes(vectors.dim)];
        for (ordinal, record) in rows
            .iter()
            .zip(records.chunks_exact_mut(bits.record_bytes(vectors.dim)))
        {
            encoder.row(*ordinal, lists.centre_of(*ordinal), record);
        }
        (bits, records)
    });
    let codes = records
        .as_ref()
        .map(|(bits, records)| Codes::of_records(*bits, vectors.metric, &lists.mean, 0.0, records));
    let mut asked: Vec<_> = questions
        .iter()
        .map(|question| {
            let row = vectors.row(question.ordinal);
            let coded = codes.map(|codes| {
                let mut scorer = codes.scorer(&row);
                scorer.begin_with(0.0);
                scorer
            });
            (question, vectors.scorer(row), coded, Answer::new())
        })
        .collect();
    let places: Vec<usize> = (0..rows.len()).collect();
    for block in places.chunks(BLOCK_ROWS) {
        for (question, exact, coded, answer) in &mut asked {
            for some in block.chunks(4) {
                let exact = exact.four(four(some, |place| rows[*place]));
                let coded = coded
                    .as_ref()
                    .map_or([0.0; 4], |coded| coded.four(four(some, |place| *place as Ordinal)));
                for (i, place) in some.iter().enumerate() {
                    let ordinal = rows[*place];
                    // A row finds itself whatever the lists.
                    if ordinal != question.ordinal {
                        let outlook = question.outlooks[lists.list_of[ordinal as usize] as usize];
                        answer.offer(ordinal, exact[i], coded[i] + outlook.base);
                        if place.is_multiple_of(step) {
                            answer.anywhere.push((outlook.expected - exact[i]) / outlook.deviation);
                        }
                    }
                }
            }
        }
    }
    asked.into_iter().map(|(.., answer)| answer).collect()
}

/// What a question found so far.
struct Answer {
    /// Of some rows, wherever they are: in how many deviations from what is expected they are.
    anywhere: Vec<f32>,
    nearest: Least<Scored>,
    /// The first by code, with their exact distances.
    first: Least<(Scored, f32)>,
}

impl Answer {
    fn new() -> Self {
        Self {
            anywhere: Vec::new(),
            nearest: Least::new(REMEMBERED),
            first: Least::new(DEPTH),
        }
    }

    #[inline]
    fn offer(&mut self, ordinal: Ordinal, exact: f32, coded: f32) {
        let [row, coded] = [exact, coded].map(|distance| Scored { distance, ordinal });
        self.nearest.offer(row, |row| *row);
        self.first.offer((coded, exact), |(coded, _)| *coded);
    }

    /// Adds what was found among other rows.
    fn add(&mut self, other: Self) {
        self.anywhere.extend(other.anywhere);
        for row in other.nearest.into_vec() {
            self.nearest.offer(row, |row| *row);
        }
        for row in other.first.into_vec() {
            self.first.offer(row, |(coded, _)| *coded);
        }
    }

    /// The nearest of all, so many of them.
    fn neighbours(&self, k: usize) -> &[Scored] {
        let nearest = self.nearest.as_slice();
        &nearest[..nearest.len().min(k)]
    }

    /// How far the k-th is, or the last.
    fn edge(&self, k: usize) -> Option<f32> {
        self.neighbours(k).last().map(|last| last.distance)
    }
}

fn judge(lists: &Lists<'_>, questions: &[Question], answers: &[Answer], workers: &Workers) -> Measured {
    let (mut found, mut wanted) = (0, 0);
    let mut needs = Vec::new();
    for (question, answer) in questions.iter().zip(answers) {
        let Some(edge) = answer.edge(NEAREST) else { continue };
        let near = answer
            .first
            .as_slice()
            .iter()
            .filter(|(_, exact)| *exact <= edge)
            .count();
        let neighbours = answer.neighbours(NEAREST);
        found += near.min(neighbours.len());
        wanted += neighbours.len();
        needs.extend(neighbours.iter().map(|row| {
            let outlook = question.outlooks[lists.list_of[row.ordinal as usize] as usize];
            let beyond = outlook.expected - edge;
            match outlook.deviation > 0.0 {
                true => beyond / outlook.deviation,
                // All rows of the list are where its centre is.
                false => 0.0,
            }
        }));
    }
    let mut anywhere: Vec<f32> = answers
        .iter()
        .flat_map(|answer| answer.anywhere.iter().copied())
        .collect();
    anywhere.retain(|need| need.is_finite());
    anywhere.sort_by(f32::total_cmp);
    needs.sort_by(f32::total_cmp);
    let looks = workers.map(RECALLS.len(), |i| look(lists, questions, answers, &needs, RECALLS[i]));
    Measured {
        looks: looks.try_into().unwrap_or_default(),
        far_reach: quantile(&anywhere, REACHED_FAR).unwrap_or(0.0),
        // Where there is nothing to be told apart, nothing is missed.
        recall: if wanted == 0 { 1.0 } else { found as f32 / wanted as f32 },
    }
}

/// How far a search has to look to find so much.
fn look(lists: &Lists<'_>, questions: &[Question], answers: &[Answer], needs: &[f32], recall: f32) -> Look {
    let missed = 1.0 - f64::from(recall);
    let reach = quantile(needs, 1.0 - MISSED_BY_REACH * missed);
    let reach = reach.filter(|need| need.is_finite()).unwrap_or(0.0);
    let all = lists.spreads.len();
    // The order in which each question comes by lists, and at which place in it each list stands.
    let orders: Vec<Vec<u32>> = questions
        .iter()
        .map(|question| {
            let filled = (0..all as u32).filter(|list| lists.size(*list as usize) > 0);
            let mut order: Vec<Scored> = filled
                .map(|list| Scored {
                    distance: question.outlooks[list as usize].best(reach),
                    ordinal: list,
                })
                .collect();
            order.sort_unstable();
            order.into_iter().map(|list| list.ordinal).collect()
        })
        .collect();
    let width = |k: usize| {
        let mut places = Vec::new();
        let mut place_of = vec![0u32; all];
        for (order, answer) in orders.iter().zip(answers) {
            for (place, list) in order.iter().enumerate() {
                place_of[*list as usize] = place as u32 + 1;
            }
            let neighbours = answer.neighbours(k).iter();
            places.extend(neighbours.map(|row| place_of[lists.list_of[row.ordinal as usize] as usize] as f32));
        }
        places.sort_by(f32::total_cmp);
        quantile(&places, 1.0 - MISSED_BY_WIDTH * missed).unwrap_or(1.0)
    };
    let widths = [width(NEAREST), width(REMEMBERED)];
    let share = |k: usize, width: f32| {
        let (mut rows, mut asked_of) = (0usize, 0usize);
        for ((question, answer), order) in questions.iter().zip(answers).zip(&orders) {
            let edge = answer.edge(k).unwrap_or(f32::INFINITY);
            let looked = order
                .iter()
                .take(width as usize)
                .take_while(|list| question.outlooks[**list as usize].best(reach) <= edge);
            rows += looked.map(|list| lists.size(*list as usize)).sum::<usize>();
            asked_of += lists.order.len();
        }
        rows as f32 / asked_of.max(1) as f32
    };
    Look {
        recall,
        reach,
        shares: [share(NEAREST, widths[0]), share(REMEMBERED, widths[1])],
        widths: widths.map(|width| width / all as f32),
    }
}

/// The least of the numbers, which ascend, that so large a share of them is not above.
fn quantile(ascending: &[f32], share: f64) -> Option<f32> {
    let at = (ascending.len() as f64 * share).ceil() as usize;
    ascending.get(at.max(1) - 1).copied()
}
