//! How much do searches find? Some of those that are really asked are asked once more, on spare time: as they were, and exactly, both
//! of one moment. That says what no measurement before can, which knows the rows and not the questions.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::exec::{Context, Found};
use super::{Params, Query, Source, legs, nearest};
use crate::error::Result;
use crate::filter::Filter;
use crate::vector::floats::Form;

/// Searches for more hits are left alone: they are few, and say little more than those for less.
const HITS_MAX: usize = 1_000;
/// Of more bytes of vectors no exact search is made: it would take too long, and push out of memory what others need.
const SCAN_BYTES_MAX: u64 = 2 << 30;
/// Questions of which a mean is made; older ones fade.
const MEMORY: u64 = 256;

/// The turns of a collection's searches, and what those found that were asked again.
#[derive(Default)]
pub(crate) struct Samples {
    /// Searches over dense vectors since open.
    asked: AtomicU64,
    found: Mutex<Estimate>,
}

/// A leg that is to be asked again.
pub(crate) struct Picked {
    using: Option<String>,
    vector: Vec<f32>,
    filters: Vec<Filter>,
    hits: usize,
    params: Params,
}

/// The recall of searches: the mean over the last few hundred questions that were asked again.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Estimate {
    /// 0 to 1; nothing is known while there are no questions.
    pub recall: f64,
    /// Questions asked again since open.
    pub questions: u64,
}

impl Estimate {
    /// One question more.
    pub(crate) fn add(&mut self, recall: f64) {
        self.questions += 1;
        self.recall += (recall - self.recall) / self.questions.min(MEMORY) as f64;
    }
}

impl Samples {
    /// One of the query's legs over dense vectors if it is its turn: that of one such query in `every`, none if that is 0.
    pub(crate) fn pick(&self, query: &Query, every: u64) -> Option<Picked> {
        if query.params.exact || every == 0 || !has_dense(&query.source) {
            return None;
        }
        let turn = self.asked.fetch_add(1, Ordering::Relaxed);
        if !turn.is_multiple_of(every) {
            return None;
        }
        let mut legs = legs::dense(query);
        let leg = legs.swap_remove((turn / every) as usize % legs.len());
        (1..=HITS_MAX).contains(&leg.hits).then(|| Picked {
            using: leg.using.map(str::to_owned),
            vector: leg.vector.to_vec(),
            filters: leg.filters.into_iter().cloned().collect(),
            hits: leg.hits,
            params: query.params.clone(),
        })
    }

    pub(crate) fn add(&self, recall: f64) {
        self.found.lock().add(recall);
    }

    pub(crate) fn estimate(&self) -> Estimate {
        *self.found.lock()
    }
}

fn has_dense(source: &Source) -> bool {
    match source {
        Source::Nearest { .. } => true,
        Source::Sparse { .. } | Source::Text { .. } => false,
        Source::Fusion { inputs, .. } => inputs.iter().any(|input| has_dense(&input.source)),
    }
}

impl Picked {
    /// The share of the exact hits that are found; none if there are none, or too many bytes to look at.
    pub(crate) fn recall(&self, context: &Context<'_>) -> Result<Option<f64>> {
        // As if they were kept as `f32`, as most are; or as bits.
        let spec = nearest::spec(context.schema, nearest::resolve(context.schema, self.using.as_deref())?);
        let row_bytes = Form::of_metric(spec.metric).row_bytes(spec.dim as usize);
        if context.view.live() * row_bytes as u64 > SCAN_BYTES_MAX {
            return Ok(None);
        }
        let filters: Vec<&Filter> = self.filters.iter().collect();
        let find = |params: &Params| -> Result<Vec<Found>> {
            let (using, mut explain) = (self.using.as_deref(), Vec::new());
            let ask = nearest::Ask {
                vector: &self.vector,
                k: self.hits,
                params,
            };
            let found = nearest::search(context, "", using, ask, &filters, &mut explain)?;
            Ok(context.rank(found, self.hits, false))
        };
        let exact = find(&Params {
            exact: true,
            ..Params::default()
        })?;
        let Some(last) = exact.last() else { return Ok(None) };
        let found = find(&self.params)?;
        // By distance: which of equally near points is answered does not matter.
        let right = found.iter().filter(|hit| hit.key >= last.key).count();
        Ok(Some(right.min(exact.len()) as f64 / exact.len() as f64))
    }
}
