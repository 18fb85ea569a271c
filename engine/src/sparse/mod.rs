//! Which sparse vectors have the largest inner product with another? Weights by term number, as SPLADE and its like make
//! them, searched through the same posting lists as text (`inverted`).
//!
//! A segment keeps each vector twice: exactly, row by row ([`row`]), which is what points give back, what merges read and
//! what scores are computed from; and as an inverted index of one-byte weights ([`index`]), which finds the few rows worth
//! scoring. An answer is exactly the k largest inner products of the stored f32 values (summed in f64 in the order of
//! terms, then rounded to f32); docs/decisions/0006-sparse-vectors.md has the sizes and the alternatives.
//!
//! A row that has no term in common with the question is no hit, whatever k is; one whose product is negative or zero is.

pub mod index;
pub mod row;

#[cfg(test)]
mod tests;

use crate::error::{Error, ErrorKind, Result};
use crate::inverted::top::{self, Best, Top, Walk, Wanted};
use crate::types::{Ordinal, SparseVector};
use index::{IndexView, Linear};

/// The sparse vectors of one name in a segment.
#[derive(Clone, Copy, Default)]
pub struct Column<'a> {
    /// The rows, one after another.
    data: &'a [u8],
    /// Where each begins, and where the last ends; empty if no row has the vector.
    at: &'a [u64],
    /// Left out likewise.
    index: Option<IndexView<'a>>,
}

/// A question: terms with weights, ascending.
pub struct Question {
    terms: Vec<(u32, f64)>,
}

impl From<&SparseVector> for Question {
    fn from(vector: &SparseVector) -> Self {
        let terms = vector.indices.iter().zip(&vector.values);
        Self {
            terms: terms.map(|(index, value)| (*index, f64::from(*value))).collect(),
        }
    }
}

/// What is wanted of a column.
pub struct Ask<'a, 'i> {
    /// How many rows, at least 1.
    pub k: usize,
    /// Rows with a smaller product are of no use: k better ones are known.
    pub floor: f32,
    /// Equal products are ordered by this.
    pub id_of: &'a dyn Fn(Ordinal) -> &'i str,
    /// Polled; true gives a deadline error.
    pub stop: &'a dyn Fn() -> bool,
}

/// Rows between two looks at the clock in a scan.
const POLL: u64 = 256;

impl<'a> Column<'a> {
    /// Parts that were checked when the segment was opened: `at` ascends, within `data`.
    pub fn new(data: &'a [u8], at: &'a [u64], index: Option<IndexView<'a>>) -> Self {
        Self { data, at, index }
    }

    /// A row's bytes; `None` if it lacks the vector.
    pub fn row(&self, ordinal: Ordinal) -> Option<&'a [u8]> {
        let i = ordinal as usize;
        let (from, to) = (*self.at.get(i)?, *self.at.get(i + 1)?);
        self.data
            .get(from as usize..to as usize)
            .filter(|bytes| !bytes.is_empty())
    }

    /// A row's vector, exactly as it was written.
    pub fn get(&self, ordinal: Ordinal) -> Result<Option<SparseVector>> {
        self.row(ordinal).map(row::decode).transpose()
    }

    /// How many rows the question's terms stand in, summed over terms: the cost of [`Self::search`] without pruning.
    pub fn postings(&self, question: &Question) -> Result<u64> {
        let Some(index) = self.index else { return Ok(0) };
        question.terms.iter().try_fold(0, |sum, (term, _)| {
            let df = index.list(*term)?.map_or(0, |(list, _)| list.df());
            Ok(sum + u64::from(df))
        })
    }

    /// Weights of an average row: what scoring one row costs.
    pub fn mean_weights(&self) -> u64 {
        self.index
            .map_or(0, |index| index.postings() / u64::from(index.rows().max(1)))
    }

    /// The allowed rows with the largest products, through the index.
    pub fn search(
        &self,
        question: &Question,
        walk: Walk,
        allow: &dyn Fn(u32) -> u64,
        ask: &Ask<'_, '_>,
    ) -> Result<Top> {
        let Some(index) = self.index else {
            return Ok(Top::default());
        };
        let (mut lists, mut error) = (Vec::new(), 0.0);
        for (term, weight) in &question.terms {
            if let Some((list, scale)) = index.list(*term)? {
                let linear = Linear::new(*weight, scale);
                error += linear.error();
                lists.push((list.blocks()?, linear));
            }
        }
        let terms = lists
            .iter()
            .map(|(list, linear)| top::Term::new(list, *linear))
            .collect();
        let finish = |ordinal: Ordinal, _: f64| self.product(ordinal, question);
        let wanted = Wanted {
            k: ask.k,
            floor: ask.floor,
            error: error + f64::from(f32::MIN_POSITIVE),
            walk,
            allow,
            finish: &finish,
            id_of: ask.id_of,
            stop: ask.stop,
        };
        top::search(index.rows(), terms, &wanted)
    }

    /// The same of some rows, by looking at each of them.
    pub fn scan(&self, question: &Question, rows: impl Iterator<Item = Ordinal>, ask: &Ask<'_, '_>) -> Result<Top> {
        let mut best = Best::new(ask.k, ask.floor);
        let mut evaluated = 0u64;
        for ordinal in rows {
            if evaluated.is_multiple_of(POLL) && (ask.stop)() {
                return Err(Error::new(
                    ErrorKind::Deadline,
                    "deadline_exceeded",
                    format!("the deadline passed during a scan of sparse vectors, after {evaluated} rows"),
                ));
            }
            evaluated += 1;
            if let Some(score) = self.product(ordinal, question)? {
                best.offer(score, ordinal, (ask.id_of)(ordinal));
            }
        }
        Ok(Top {
            hits: best.into_hits(),
            evaluated,
        })
    }

    /// The product with a row; `None` if they have no term in common. Beyond f32 it is the largest f32, so that it stays a
    /// number.
    fn product(&self, ordinal: Ordinal, question: &Question) -> Result<Option<f32>> {
        let Some(bytes) = self.row(ordinal) else {
            return Ok(None);
        };
        let product = row::product(bytes, &question.terms)?;
        Ok(product.map(|p| (p as f32).clamp(f32::MIN, f32::MAX)))
    }
}
