//! Answers found ahead, for the queries of one batch together.
//!
//! Queries that name the same vector and the same filters are asked of a segment at once: its filters are evaluated for all of them,
//! and what is answered by looking at every match (rows that are not sealed, narrow filters, `exact`) is read once for all
//! ([`crate::vector::batch`]). A graph or lists are searched for each, as ever. When a query is run, its legs find their answers here;
//! those that do not are searched then. So a batch answers what its queries would have been answered one by one, of that moment.

use std::collections::HashMap;
use std::sync::Arc;

use super::exec::Context;
use super::nearest::{self, Ask, Searched};
use super::view::View;
use super::{Params, Query, legs};
use crate::error::Result;
use crate::filter::{Filter, extract};
use crate::segment::Segment;

/// Hits, or candidates where more of them are asked for, of all legs that are looked for ahead; those of the queries after that are not.
/// They stay in memory until the batch is done.
const HITS_MAX: usize = 100_000;

/// What was found for the legs of some queries.
pub(crate) struct Ahead {
    /// Where it was found: places are of this view, and of no other that lacks a segment of it.
    segments: Vec<Arc<Segment>>,
    /// By the bits of the vector asked for.
    found: HashMap<Vec<u32>, Vec<Answer>>,
}

struct Answer {
    index: usize,
    filters: Vec<Filter>,
    k: usize,
    params: Params,
    searched: Searched,
}

/// Legs that may be asked together.
struct Group<'q> {
    index: usize,
    filters: Vec<&'q Filter>,
    asks: Vec<Ask<'q>>,
}

impl Ahead {
    /// Searches for the legs of queries that will be run of the same view. A query with anything wrong in it is left to say so when it
    /// is run.
    pub(crate) fn of(context: &Context<'_>, queries: &[&Query]) -> Result<Self> {
        let mut groups: Vec<Group<'_>> = Vec::new();
        let mut hits = 0;
        for query in queries {
            context.check_patience()?;
            if query.check().is_err() {
                continue;
            }
            let legs = legs::dense(query);
            let least = query.params.ef.unwrap_or(0);
            let wanted: usize = legs.iter().map(|leg| leg.hits.max(least)).sum();
            if hits + wanted > HITS_MAX {
                continue;
            }
            hits += wanted;
            for leg in legs {
                let filters: Vec<&Filter> = leg.filters.into_iter().filter(|filter| !filter.is_empty()).collect();
                let valid = |filter: &&Filter| extract::check_filter(filter, context.schema).is_ok();
                let Ok(index) = nearest::check(context.schema, leg.using, leg.vector) else {
                    continue;
                };
                if !filters.iter().all(valid) {
                    continue;
                }
                let ask = Ask {
                    vector: leg.vector,
                    k: leg.hits,
                    params: &query.params,
                };
                let same = |group: &&mut Group<'_>| group.index == index && group.filters == filters;
                match groups.iter_mut().find(same) {
                    Some(group) => group.asks.push(ask),
                    None => groups.push(Group {
                        index,
                        filters,
                        asks: vec![ask],
                    }),
                }
            }
        }
        let mut ahead = Self {
            segments: segments(context.view).map(Arc::clone).collect(),
            found: HashMap::new(),
        };
        // Alone there is nothing to share.
        for group in groups.into_iter().filter(|group| group.asks.len() > 1) {
            let searched = nearest::search_all(context, group.index, &group.filters, &group.asks)?;
            for (ask, searched) in group.asks.into_iter().zip(searched) {
                let answers = ahead.found.entry(bits(ask.vector).to_vec()).or_default();
                answers.push(Answer {
                    index: group.index,
                    filters: group.filters.iter().map(|filter| (*filter).clone()).collect(),
                    k: ask.k,
                    params: ask.params.clone(),
                    searched,
                });
            }
        }
        Ok(ahead)
    }

    /// Whether the answers are of this view.
    pub(crate) fn is_of(&self, view: &View) -> bool {
        let same = |(ours, its): (&Arc<Segment>, &Arc<Segment>)| Arc::ptr_eq(ours, its);
        self.segments.len() == segments(view).count() && self.segments.iter().zip(segments(view)).all(same)
    }

    /// The answer to just this question.
    pub(super) fn find(&self, index: usize, filters: &[&Filter], ask: Ask<'_>) -> Option<&Searched> {
        let same = |answer: &&Answer| {
            answer.index == index
                && answer.k == ask.k
                && answer.params == *ask.params
                && answer
                    .filters
                    .iter()
                    .eq(filters.iter().copied().filter(|filter| !filter.is_empty()))
        };
        let found = self.found.get(bits(ask.vector))?.iter().find(same)?;
        Some(&found.searched)
    }
}

fn segments(view: &View) -> impl Iterator<Item = &Arc<Segment>> {
    view.segments().map(|(_, view)| &view.segment)
}

fn bits(vector: &[f32]) -> &[u32] {
    bytemuck::cast_slice(vector)
}
