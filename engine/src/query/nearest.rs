//! Nearest vectors: one leg over all segments.

use super::exec::{Context, Found, Matches, Raw};
use super::plan::{self, Known, Strategy};
use super::view::Place;
use super::{ExplainLeg, Params, score};
use crate::error::{Error, Result};
use crate::filter::Filter;
use crate::schema::Schema;
use crate::types::Ordinal;
use crate::vector::{Allow, BitSet, Scored, VectorIndex, flat};

/// `ef` when the caller gives none.
pub(super) const EF_DEFAULT: usize = 128;

/// Hits beyond the k-th that are asked of a walk over codes.
const EDGE: usize = 4;

/// Rows between two looks whether somebody still waits, while ties are gathered.
const TIES_POLL: usize = 256;

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
    let stop = || context.patience.is_over();
    let mut found = Vec::new();
    for (place, view) in context.view.segments() {
        let segment = &view.segment;
        let vectors = segment.vectors(index);
        let matches = context.matches(view, filters)?;
        let absent = vectors.absent.map_or(0, BitSet::count) as u64;
        let present = |o: &Ordinal| !vectors.is_absent(*o);
        let candidates = match &*matches {
            _ if absent == 0 => matches.count(),
            Matches::Live => {
                let dead_absent = view.dead.rows().iter().filter(|o| vectors.is_absent(*o)).count() as u64;
                matches.count() - (absent - dead_absent)
            }
            Matches::Set(set) => set.iter().filter(present).count() as u64,
        };
        let graph = segment.graph(index);
        let known = Known {
            graph: graph.is_some(),
            codes: vectors.codes.is_some(),
            exact: params.exact,
            matches: candidates,
            rows: u64::from(segment.rows()),
            ef: ef as u64,
        };
        let each = || -> Box<dyn Iterator<Item = Ordinal> + '_> {
            match &*matches {
                Matches::Live => {
                    let dead = view.dead.rows();
                    let live = move |o: &Ordinal| dead.is_empty() || !dead.contains(*o);
                    Box::new((0..segment.rows()).filter(live).filter(present))
                }
                Matches::Set(set) => Box::new(set.iter().filter(present)),
            }
        };
        let exact = || -> Result<crate::vector::Found> {
            let mut found = flat::scan(&vectors, query, each(), k + 1, &stop)?;
            let edge = match found.hits.get(k - 1) {
                Some(last) if found.hits.len() > k => last.distance,
                _ => return Ok(found),
            };
            if found.hits[k].distance > edge {
                found.hits.truncate(k);
                return Ok(found);
            }
            // More rows are exactly as far as the k-th: all of them are candidates, so that ids decide, not places.
            let scorer = vectors.scorer(query);
            found.hits.retain(|hit| hit.distance < edge);
            let mut ties: Vec<Ordinal> = Vec::new();
            for (n, ordinal) in each().enumerate() {
                if n.is_multiple_of(TIES_POLL) {
                    context.check_patience()?;
                }
                if scorer.distance(ordinal) == edge {
                    ties.push(ordinal);
                }
            }
            let missing = k - found.hits.len();
            if ties.len() > missing {
                ties.select_nth_unstable_by(missing - 1, |a, b| segment.id_of(*a).cmp(segment.id_of(*b)));
                ties.truncate(missing);
            }
            found.hits.extend(ties.into_iter().map(|ordinal| Scored {
                distance: edge,
                ordinal,
            }));
            found.evaluated *= 2;
            Ok(found)
        };
        let (strategy, hits) = match (plan::choose(known), graph) {
            (Strategy::Nothing, _) => continue,
            (Strategy::Codes, _) => ("codes", flat::scan_codes(&vectors, query, each(), k + EDGE, &stop)?),
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
                // More than k, because ties at the edge are among them: all that the walk kept where that costs nothing, a few
                // where each is measured again.
                let asked = if vectors.codes.is_some() {
                    (k + EDGE).min(ef)
                } else {
                    ef
                };
                let walked = graph.search(&vectors, query, asked, ef, &allow, &stop)?;
                if (walked.hits.len() as u64) < candidates.min(k as u64) {
                    let mut scanned = exact()?;
                    scanned.evaluated += walked.evaluated;
                    ("graph+exact", scanned)
                } else {
                    ("graph", walked)
                }
            }
            (Strategy::Exact | Strategy::Graph, _) => ("exact", exact()?),
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
