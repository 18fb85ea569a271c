//! The legs of a query's tree, as a search will come by them.

use super::{Query, Source};
use crate::filter::Filter;

/// A leg over dense vectors.
pub(super) struct DenseLeg<'q> {
    pub(super) using: Option<&'q str>,
    pub(super) vector: &'q [f32],
    /// Its own and those above it.
    pub(super) filters: Vec<&'q Filter>,
    /// Hits that it is asked for.
    pub(super) hits: usize,
}

/// All of them.
pub(super) fn dense(query: &Query) -> Vec<DenseLeg<'_>> {
    let mut legs = Vec::new();
    collect(&query.source, &[&query.filter], query.limit + query.offset, &mut legs);
    legs
}

fn collect<'q>(source: &'q Source, filters: &[&'q Filter], hits: usize, legs: &mut Vec<DenseLeg<'q>>) {
    match source {
        Source::Nearest { using, vector } => legs.push(DenseLeg {
            using: using.as_deref(),
            vector,
            filters: filters.to_vec(),
            hits,
        }),
        Source::Sparse { .. } | Source::Text { .. } => {}
        Source::Fusion { inputs, .. } => {
            for input in inputs {
                let mut all = filters.to_vec();
                all.push(&input.filter);
                collect(&input.source, &all, input.limit.max(hits), legs);
            }
        }
    }
}
