//! Nearest vectors: one leg over all segments.

use super::exec::{Context, Found, Matches, Raw};
use super::plan::{self, Known, Strategy};
use super::view::Place;
use super::{ExplainLeg, Params, score};
use crate::error::{Error, Result};
use crate::filter::Filter;
use crate::schema::Schema;
use crate::vector::{Allow, BitSet, Flat, VectorIndex, flat};

/// `ef` when the caller gives none.
pub(super) const EF_DEFAULT: usize = 128;

/// Which vector a name means, and its place in the schema.
pub(super) fn resolve(schema: &Schema, using: Option<&str>) -> Result<usize> {
    let names = || schema.vectors.keys().cloned().collect::<Vec<_>>().join(", ");
    match using {
        Some(name) => schema.vectors.keys().position(|k| k == name).ok_or_else(|| {
            Error::invalid(
                "vector_not_found",
                format!("the collection has no vector {name:?}, only: {}", names()),
            )
            .at("/nearest/using")
        }),
        None if schema.vectors.len() == 1 => Ok(0),
        None => Err(Error::invalid(
            "vector_not_named",
            format!("say which vector with using: one of: {}", names()),
        )
        .at("/nearest/using")),
    }
}

pub(super) fn search(
    context: &Context<'_>,
    leg: &str,
    using: Option<&str>,
    query: &[f32],
    filters: &[&Filter],
    k: usize,
    params: &Params,
    explain: &mut Vec<ExplainLeg>,
) -> Result<Vec<Found>> {
    let index = resolve(context.schema, using)?;
    let (name, spec) = context.schema.vectors.iter().nth(index).expect("resolve found it");
    if query.len() != spec.dim as usize {
        return Err(Error::invalid(
            "wrong_dim",
            format!(
                "vector {name:?} has {} dimensions, the query has {}",
                spec.dim,
                query.len()
            ),
        )
        .at("/nearest/vector"));
    }
    if spec.metric == crate::schema::Metric::Cosine && query.iter().all(|x| *x == 0.0) {
        return Err(Error::invalid(
            "zero_vector",
            "a zero vector has no direction, cosine cannot compare it",
        )
        .at("/nearest/vector"));
    }
    let ef = params.ef.unwrap_or(EF_DEFAULT).max(k);
    let stop = || context.is_late();
    let mut found = Vec::new();
    for (place, view) in context.view.segments() {
        let segment = &view.segment;
        let vectors = segment.vectors(index);
        let matches = context.matches(view, filters)?;
        let absent = vectors.absent.map_or(0, BitSet::count) as u64;
        let present = |o: &u32| !vectors.is_absent(*o);
        let candidates = match &*matches {
            _ if absent == 0 => matches.count(),
            Matches::Live => (0..segment.rows())
                .filter(|o| !view.dead.contains(*o))
                .filter(present)
                .count() as u64,
            Matches::Set(set) => set.iter().filter(present).count() as u64,
        };
        let graph = segment.graph(index);
        let known = Known {
            graph: graph.is_some(),
            exact: params.exact,
            matches: candidates,
            rows: u64::from(segment.rows()),
            ef: ef as u64,
        };
        let exact = || match &*matches {
            Matches::Live => {
                let dead = view.dead.rows();
                let live = (0..segment.rows())
                    .filter(|o| dead.is_empty() || !dead.contains(*o))
                    .filter(present);
                flat::scan(&vectors, query, live, k, &stop)
            }
            Matches::Set(set) => flat::scan(&vectors, query, set.iter().filter(present), k, &stop),
        };
        let (strategy, hits) = match (plan::choose(known), graph) {
            (Strategy::Nothing, _) => continue,
            (Strategy::Graph, Some(graph)) => {
                let holder;
                let allow = match &*matches {
                    Matches::Live if view.dead.count() == 0 => Allow::All,
                    Matches::Live => Allow::Only(view.dead.live(segment.rows())),
                    Matches::Set(set) => {
                        holder = BitSet::from_iter(segment.rows() as usize, set);
                        Allow::Only(&holder)
                    }
                };
                let walked = graph.search(&vectors, query, k, ef, &allow, &stop)?;
                let wanted = (k as u64).min(candidates);
                if (walked.hits.len() as u64) < wanted {
                    let mut scanned = exact()?;
                    scanned.evaluated += walked.evaluated;
                    ("graph+exact", scanned)
                } else {
                    ("graph", walked)
                }
            }
            (Strategy::Exact | Strategy::Graph, _) => match (&*matches, view.dead.count(), absent) {
                (Matches::Live, 0, 0) => ("exact", Flat.search(&vectors, query, k, ef, &Allow::All, &stop)?),
                _ => ("exact", exact()?),
            },
        };
        explain.push(ExplainLeg {
            leg: leg.to_owned(),
            shard: place.shard,
            segment: segment.no,
            strategy,
            matches: matches.count(),
            evaluated: hits.evaluated,
        });
        found.extend(hits.hits.into_iter().map(|hit| {
            let raw = spec.metric.raw(hit.distance);
            Found {
                place: Place {
                    ordinal: hit.ordinal,
                    ..place
                },
                key: -hit.distance,
                score: score::of_metric(spec.metric, raw),
                raws: vec![Raw {
                    leg: leg.to_owned(),
                    raw,
                    rank: 0,
                }],
            }
        }));
    }
    Ok(found)
}
