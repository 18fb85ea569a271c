//! How well terms match: BM25, plain and exhaustive.
//!
//! The form is that of Lucene since version 8: a term adds `idf * tf / (tf + k1 * (1 - b + b * len / avg_len))`. The
//! classic factor `k1 + 1` is left out: it scales every score alike and orders nothing. A term that stands twice in a
//! query adds twice, as in Lucene and bm25s: [`query_terms`] counts, the caller multiplies.
//!
//! Document frequencies, the number of documents and their average length are those of the *live rows of the whole
//! collection*, so that a score depends neither on how rows are spread over segments nor on when segments merge. Hence
//! the two steps: first add up [`live_stats`] and [`live_df`] over all segments, then [`accumulate`] in each.

use std::collections::BTreeMap;

use super::analyzer::Analyzer;
use super::postings::TextIndexView;
use crate::error::{Error, Result};
use crate::types::Ordinal;

/// How fast repeating a term stops helping. Lucene's default.
pub const K1: f32 = 1.2;
/// How much a long text must repeat a term more than a short one. Lucene's default.
pub const B: f32 = 0.75;

/// Tells whether a row of a segment is dead. `None` in place of one says that no row is.
pub type IsDead<'a> = Option<&'a dyn Fn(Ordinal) -> bool>;

/// What scores need to know of a field: sums over live rows, so they add up over segments.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FieldStats {
    /// Rows that have the field.
    pub docs: u64,
    /// Terms of all of them, repetitions included.
    pub total_len: u64,
}

impl FieldStats {
    /// Adds another segment's.
    pub fn add(&mut self, other: Self) {
        self.docs += other.docs;
        self.total_len += other.total_len;
    }
    /// Mean terms of a row; 1 when there are none, so that dividing by it is always safe.
    pub fn avg_len(&self) -> f32 {
        if self.docs == 0 || self.total_len == 0 {
            1.0
        } else {
            (self.total_len as f64 / self.docs as f64) as f32
        }
    }
}

/// The weight of a term that stands in `df` of `docs` rows: `ln(1 + (docs - df + 0.5) / (df + 0.5))`, never negative.
pub fn idf(docs: u64, df: u64) -> f32 {
    let (docs, df) = (docs as f64, df.min(docs) as f64);
    ((docs - df + 0.5) / (df + 0.5)).ln_1p() as f32
}

/// The distinct terms of a query and how often each stands in it.
pub fn query_terms(analyzer: &Analyzer, query: &str) -> BTreeMap<String, u32> {
    let mut terms = BTreeMap::new();
    analyzer.analyze(query, &mut |term| match terms.get_mut(term) {
        Some(count) => *count += 1,
        None => {
            terms.insert(term.to_owned(), 1);
        }
    });
    terms
}

/// A segment's part of the field's statistics. Costs a pass over the rows when some are dead.
pub fn live_stats(view: &TextIndexView<'_>, is_dead: IsDead<'_>) -> FieldStats {
    let Some(is_dead) = is_dead else {
        return FieldStats {
            docs: u64::from(view.docs()),
            total_len: view.total_len(),
        };
    };
    let mut stats = FieldStats::default();
    for ordinal in 0..view.rows() {
        if let Some(len) = view.len_of(ordinal)
            && !is_dead(ordinal)
        {
            stats.add(FieldStats {
                docs: 1,
                total_len: u64::from(len),
            });
        }
    }
    stats
}

/// In how many live rows of a segment a term stands. Costs a pass over its postings when some rows are dead.
pub fn live_df(view: &TextIndexView<'_>, term: &str, is_dead: IsDead<'_>) -> Result<u64> {
    let Some(postings) = view.postings(term)? else {
        return Ok(0);
    };
    let Some(is_dead) = is_dead else {
        return Ok(u64::from(postings.df()));
    };
    let mut df = 0;
    for posting in postings {
        let (ordinal, _) = posting?;
        df += u64::from(!is_dead(ordinal));
    }
    Ok(df)
}

/// Adds what one term is worth to each row it stands in. `scores` has one entry per row of the segment, dead rows
/// included: dropping those is the caller's. `weight_times_idf` is [`idf`] times the term's count in the query times
/// the field's boost; `avg_len` is [`FieldStats::avg_len`]. `evaluated` grows by the postings read.
pub fn accumulate(
    view: &TextIndexView<'_>,
    term: &str,
    weight_times_idf: f32,
    avg_len: f32,
    scores: &mut [f32],
    evaluated: &mut u64,
) -> Result<()> {
    if scores.len() != view.rows() as usize {
        return Err(Error::internal(format!(
            "{} scores for a segment of {} rows",
            scores.len(),
            view.rows()
        )));
    }
    let Some(postings) = view.postings(term)? else {
        return Ok(());
    };
    *evaluated += u64::from(postings.df());
    // k1 * (1 - b + b * len / avg) as one multiplication and one addition.
    let base = K1 * (1.0 - B);
    let slope = K1 * B / avg_len;
    for posting in postings {
        let (ordinal, tf) = posting?;
        let len = view
            .len_of(ordinal)
            .ok_or_else(|| Error::damaged(format!("text index: a posting of row {ordinal}, which lacks the field")))?;
        let tf = tf as f32;
        scores[ordinal as usize] += weight_times_idf * tf / (tf + base + slope * len as f32);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
