//! How well terms match: BM25, over the posting lists that sparse vectors use too.
//!
//! The form is that of Lucene since version 8: a term adds `idf * tf / (tf + k1 * (1 - b + b * len / avg_len))`. The
//! classic factor `k1 + 1` is left out: it scales every score alike and orders nothing. A term that stands twice in a
//! query adds twice, as in Lucene and bm25s: [`query_terms`] counts, the caller multiplies.
//!
//! Document frequencies, the number of documents and their average length are those of the *live rows of the whole
//! collection*, so that a score depends neither on how rows are spread over segments nor on when segments merge. Hence
//! the two steps: first add up [`live_stats`] and [`live_df`] over all segments, then [`search`] each.

use std::collections::BTreeMap;

use super::analyzer::Analyzer;
use super::postings::{Postings, TextIndexView};
use crate::error::{Error, Result};
use crate::inverted::list::WINDOW;
use crate::inverted::top::{self, Term, Top, Walk, Wanted, Weigher};
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
    for posting in postings.iter() {
        let (ordinal, _) = posting?;
        df += u64::from(!is_dead(ordinal));
    }
    Ok(df)
}

/// A term of a question in one segment: where it stands, and what its rows are worth.
pub struct Scored<'a> {
    view: TextIndexView<'a>,
    postings: Postings<'a>,
    weight: f32,
    /// `k1 * (1 - b + b * len / avg)` is `base + slope * len`.
    base: f32,
    slope: f32,
}

impl<'a> Scored<'a> {
    /// `None` if the term stands nowhere in the segment. `weight` is [`idf`] times the term's count in the query times the
    /// field's boost; `avg_len` is [`FieldStats::avg_len`].
    pub fn new(view: TextIndexView<'a>, term: &str, weight: f32, avg_len: f32) -> Result<Option<Self>> {
        let postings = view.postings(term)?;
        Ok(postings.map(|postings| Self {
            view,
            postings,
            weight,
            base: K1 * (1.0 - B),
            slope: K1 * B / avg_len,
        }))
    }

    #[inline]
    fn worth(&self, tf: f32, len: u32) -> f32 {
        self.weight * tf / (tf + self.base + self.slope * len as f32)
    }

    /// What the term is worth to a row.
    fn of(&self, ordinal: Ordinal) -> Result<f32> {
        let tf = self.postings.tf_of(ordinal)?;
        if tf == 0 {
            return Ok(0.0);
        }
        let len = self.view.len_of(ordinal);
        let len = len
            .ok_or_else(|| Error::damaged(format!("text index: a posting of row {ordinal}, which lacks the field")))?;
        Ok(self.worth(tf as f32, len))
    }
}

impl Weigher for &Scored<'_> {
    fn bound(&self, window: u32, max: u8) -> f64 {
        // More repetitions than a level can say: the most that any number of them gives.
        if max == u8::MAX {
            return f64::from(self.weight);
        }
        f64::from(self.worth(f32::from(max), self.view.shortest(window)))
    }

    fn add(&self, window: u32, lows: &[u8], levels: &[u8], scores: &mut [f64; WINDOW]) {
        let first = window * WINDOW as u32;
        for (low, level) in lows.iter().zip(levels) {
            let len = self.view.len_of(first + u32::from(*low)).unwrap_or(0);
            scores[usize::from(*low)] += f64::from(self.worth(f32::from(*level), len));
        }
    }
}

/// What is wanted of a segment.
pub struct Ask<'a, 'i> {
    /// How many rows, at least 1.
    pub k: usize,
    /// Rows with a lower score are of no use: k better ones are known.
    pub floor: f32,
    /// Which of the rows `64 n..64 n + 64` may be answered, one bit each, lowest first.
    pub allow: &'a dyn Fn(u32) -> u64,
    /// Equal scores are ordered by this.
    pub id_of: &'a dyn Fn(Ordinal) -> &'i str,
    /// Polled; true gives a deadline error.
    pub stop: &'a dyn Fn() -> bool,
}

/// The allowed rows with the best scores above 0. A score is a sum of what terms are worth, each in single precision: in
/// double precision such a sum is exact, so that the order of terms does not matter, and then it is rounded.
pub fn search(rows: u32, terms: &[Scored<'_>], walk: Walk, ask: &Ask<'_, '_>) -> Result<Top> {
    // If some row repeats a term beyond what its level says, its sum lacks at most all that the term can be worth.
    let exceeded: f64 = terms
        .iter()
        .filter(|term| term.postings.is_exceeded())
        .map(|term| f64::from(term.weight))
        .sum();
    let rounding: f64 = terms.iter().map(|term| 1e-6 * f64::from(term.weight)).sum();
    let finish = |ordinal: Ordinal, sum: f64| -> Result<Option<f32>> {
        let sum = if exceeded == 0.0 {
            sum
        } else {
            let worths = terms.iter().map(|term| term.of(ordinal).map(f64::from));
            worths.sum::<Result<f64>>()?
        };
        let score = sum as f32;
        Ok((score > 0.0).then_some(score))
    };
    let wanted = Wanted {
        k: ask.k,
        floor: ask.floor,
        error: exceeded + rounding + f64::from(f32::MIN_POSITIVE),
        walk,
        allow: ask.allow,
        finish: &finish,
        id_of: ask.id_of,
        stop: ask.stop,
    };
    let lists = terms.iter().map(|term| Term::new(term.postings.list(), term)).collect();
    top::search(rows, lists, &wanted)
}

#[cfg(test)]
mod tests;
