//! Largest inner products of sparse vectors: one leg over all segments, always exact.
//!
//! A segment is searched through its postings, or row by row where so few rows match the filter that looking at each is
//! cheaper ([`choose`]).

use super::exec::{self, Context, Found, Matches, Raw};
use super::view::Place;
use super::{ExplainLeg, score};
use crate::error::{Error, Result};
use crate::filter::Filter;
use crate::inverted::top::Walk;
use crate::schema::Schema;
use crate::sparse::{Ask, Question};
use crate::types::{Ordinal, SparseVector};

/// What a leg asks.
pub(super) struct Leg<'a> {
    pub(super) name: &'a str,
    pub(super) using: Option<&'a str>,
    pub(super) vector: &'a SparseVector,
}

/// How one segment is searched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Strategy {
    /// Through the posting lists of the question's terms.
    Postings,
    /// Score every match.
    Exact,
}

/// What scoring a weight of a row costs, measured in postings added up.
const WEIGHT_COST: u64 = 3;

/// Chooses the cheaper way: `postings` of the question's terms, or `matches` rows of `weights` weights each.
fn choose(exact: bool, postings: u64, matches: u64, weights: u64) -> Strategy {
    if exact || matches.saturating_mul(weights.max(1)).saturating_mul(WEIGHT_COST) <= postings {
        Strategy::Exact
    } else {
        Strategy::Postings
    }
}

/// Which sparse vector a name means, as its place in the schema.
fn resolve(schema: &Schema, using: Option<&str>) -> Result<usize> {
    let names = || schema.sparse.keys().cloned().collect::<Vec<_>>().join(", ");
    let place = match using {
        Some(name) => schema.sparse.keys().position(|k| k == name).ok_or_else(|| {
            Error::invalid(
                "vector_not_found",
                format!("the collection has no sparse vector {name:?}, only: {}", names()),
            )
        }),
        None if schema.sparse.len() == 1 => Ok(0),
        None if schema.sparse.is_empty() => Err(Error::invalid(
            "vector_not_found",
            "the collection has no sparse vector; declare one in its schema",
        )),
        None => Err(Error::invalid(
            "vector_not_named",
            format!("say which sparse vector with using: one of: {}", names()),
        )),
    };
    place.map_err(|e| e.at("/sparse/using"))
}

pub(super) fn search(
    context: &Context<'_>,
    leg: &Leg<'_>,
    filters: &[&Filter],
    k: usize,
    exact: bool,
    explain: &mut Vec<ExplainLeg>,
) -> Result<Vec<Found>> {
    let index = resolve(context.schema, leg.using)?;
    let question = Question::from(leg.vector);
    let stop = || context.patience.is_over();
    let mut found: Vec<Found> = Vec::new();
    for (place, view) in context.view.segments() {
        context.check_patience()?;
        let segment = &view.segment;
        let column = segment.sparse(index);
        let postings = column.postings(&question)?;
        if postings == 0 {
            continue;
        }
        let matches = context.matches(view, filters)?;
        if matches.count() == 0 {
            continue;
        }
        let id_of = |ordinal: Ordinal| segment.id_of(ordinal);
        let ask = Ask {
            k,
            floor: exec::floor(&mut found, k),
            id_of: &id_of,
            stop: &stop,
        };
        let (strategy, top) = match choose(exact, postings, matches.count(), column.mean_weights()) {
            Strategy::Exact => {
                let rows: Box<dyn Iterator<Item = Ordinal>> = match &*matches {
                    Matches::Live => Box::new((0..segment.rows()).filter(|o| !view.dead.contains(*o))),
                    Matches::Set(set) => Box::new(set.iter()),
                };
                ("exact", column.scan(&question, rows, &ask)?)
            }
            Strategy::Postings => {
                let mut holder = None;
                let allowed = exec::allowed(&matches, view, &mut holder);
                let allow = |n: u32| allowed.map_or(u64::MAX, |set| set.word(n as usize));
                ("postings", column.search(&question, Walk::Pruned, &allow, &ask)?)
            }
        };
        explain.push(ExplainLeg {
            leg: leg.name.to_owned(),
            shard: place.shard,
            segment: view.no,
            strategy,
            matches: matches.count(),
            evaluated: top.evaluated,
        });
        found.extend(top.hits.into_iter().map(|(raw, ordinal)| Found {
            place: Place { ordinal, ..place },
            key: raw,
            score: score::of_sparse(raw),
            raws: vec![Raw {
                leg: leg.name.to_owned(),
                raw,
                rank: 0,
            }],
        }));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_matches_are_scored_one_by_one_and_many_through_postings() {
        assert_eq!(choose(false, 10_000, 20, 120), Strategy::Exact);
        assert_eq!(choose(false, 10_000, 200, 120), Strategy::Postings);
        assert_eq!(choose(false, 5, 100_000, 120), Strategy::Postings);
        assert_eq!(choose(true, 5, 100_000, 120), Strategy::Exact);
        // A damaged index may say anything.
        assert_eq!(choose(false, 5, 100_000, u64::MAX), Strategy::Postings);
    }
}
