//! Nearest vectors: one leg over all segments.

use super::exec::{Context, Found as Candidate, Matches, Raw};
use super::plan::{self, Known, Listed, Strategy};
use super::view::Place;
use super::{ExplainLeg, Params, score};
use crate::error::{Error, Result};
use crate::filter::Filter;
use crate::limits::TARGET_RECALL_DEFAULT;
use crate::schema::Schema;
use crate::types::Ordinal;
use crate::vector::hnsw::{Effort, Walked};
use crate::vector::{Allow, BitSet, Calibration, EDGE, Found, Scored, VectorsRef, flat};

/// `ef` where it was not measured what finds how much, which is in small segments; and the least with a filter, which may leave
/// what is far from the question.
const EF_DEFAULT: usize = 128;
/// The same for more than the default recall.
const EF_UNMEASURED: usize = 512;

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

#[expect(clippy::too_many_arguments, reason = "a leg's question, and where it is asked")]
pub(super) fn search(
    context: &Context<'_>,
    leg: &str,
    using: Option<&str>,
    query: &[f32],
    filters: &[&Filter],
    k: usize,
    params: &Params,
    explain: &mut Vec<ExplainLeg>,
) -> Result<Vec<Candidate>> {
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
    let target = params.target_recall.unwrap_or(TARGET_RECALL_DEFAULT);
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
        // What a filter leaves may be far from the question, and was measured by nobody.
        let target = match &*matches {
            Matches::Live => target,
            Matches::Set(_) => target.max(TARGET_RECALL_DEFAULT),
        };
        let ef = effort(params, target, k, segment.calibration(index), &matches);
        let lists = segment.lists(index).map(|lists| match params.nprobe {
            None => lists.with_recall(target),
            Some(_) => lists,
        });
        let rows = u64::from(segment.rows());
        // Of rows that match one in so many, the k-th lies where the so many times k-th of all does.
        let depth = k as f64 * rows as f64 / candidates.max(1) as f64;
        let known = Known {
            graph: graph.is_some(),
            lists: lists.map(|lists| Listed {
                count: lists.lists() as u64,
                share: match params.nprobe {
                    None => lists.share(depth),
                    Some(nprobe) => (nprobe as f64 / lists.lists() as f64).min(1.0),
                },
                bytes: lists
                    .record_bytes()
                    .map_or(4 * u64::from(spec.dim), |bytes| bytes as u64),
                centre_bytes: u64::from(spec.dim),
            }),
            exact: params.exact,
            matches: candidates,
            rows,
            k: k as u64,
            ef: ef as u64,
            vector_bytes: 4 * u64::from(spec.dim),
            code_bytes: vectors.codes.map(|codes| codes.record_bytes() as u64),
        };
        let each = || -> Box<dyn Iterator<Item = Ordinal> + '_> {
            match &*matches {
                Matches::Live if view.dead.count() == 0 => Box::new((0..segment.rows()).filter(present)),
                Matches::Live => Box::new(view.dead.live(segment.rows()).iter().filter(present)),
                Matches::Set(set) => Box::new(set.iter().filter(present)),
            }
        };
        let scan = |strategy: Strategy| match strategy {
            Strategy::Codes => flat::scan_codes(&vectors, query, each, k + EDGE, &stop),
            Strategy::Nothing | Strategy::Exact | Strategy::Graph { .. } | Strategy::Lists => {
                exact(&vectors, query, &each, k, &|ordinal| segment.id_of(ordinal), &stop)
            }
        };
        let chosen = plan::choose(known);
        // Scans go by `each`.
        let by_index = matches!(chosen, Strategy::Graph { .. } | Strategy::Lists);
        let holder = match &*matches {
            Matches::Set(set) if by_index => Some(BitSet::from_iter(segment.rows() as usize, set)),
            Matches::Set(_) | Matches::Live => None,
        };
        let allow = match &holder {
            Some(set) => Allow::Only(set),
            None if by_index && view.dead.count() > 0 => Allow::Only(view.dead.live(segment.rows())),
            None => Allow::All,
        };
        let (strategy, hits) = match (chosen, graph) {
            (Strategy::Nothing, _) => {
                // Counting matches takes time, too.
                context.check_patience()?;
                continue;
            }
            (Strategy::Graph { evaluations_max }, Some(graph)) => {
                let effort = Effort {
                    evaluations_max,
                    ..Effort::beyond(k, ef, vectors.codes.is_some())
                };
                let walked = match graph.search_within(&vectors, query, effort, &allow, &stop)? {
                    Walked::Found(found) if found.hits.len() as u64 >= candidates.min(k as u64) => Ok(found),
                    Walked::Found(Found { evaluated, .. }) | Walked::GaveUp { evaluated } => Err(evaluated),
                };
                match walked {
                    Ok(mut found) => {
                        // Of all that a walk without codes kept, the hits and what ties with the last of them.
                        let last = found.hits.get(k - 1).map_or(f32::INFINITY, |last| last.distance);
                        let ties = found.hits.partition_point(|hit| hit.distance <= last);
                        found.hits.truncate(ties.max(k + EDGE));
                        ("graph", found)
                    }
                    // Whatever kept the walk from the matches, a scan comes by all of them.
                    Err(evaluated) => {
                        let strategy = plan::scan(known);
                        let mut scanned = scan(strategy)?;
                        scanned.evaluated += evaluated;
                        let name = if strategy == Strategy::Codes {
                            "graph+codes"
                        } else {
                            "graph+exact"
                        };
                        (name, scanned)
                    }
                }
            }
            (Strategy::Lists, _) => {
                let lists = lists.ok_or_else(|| Error::internal("a plan for lists that are not there"))?;
                let probed = lists.probe(&vectors, query, k + EDGE, params.nprobe, &allow, &stop)?;
                ("lists", probed.found)
            }
            (strategy @ Strategy::Codes, _) => ("codes", scan(strategy)?),
            (strategy @ (Strategy::Exact | Strategy::Graph { .. }), _) => ("exact", scan(strategy)?),
        };
        explain.push(ExplainLeg {
            leg: leg.to_owned(),
            shard: place.shard,
            segment: view.no,
            strategy,
            matches: matches.count(),
            evaluated: hits.evaluated,
        });
        found.extend(hits.hits.into_iter().map(|hit| {
            let raw = spec.metric.raw(hit.distance);
            Candidate {
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

/// How many candidates a walk keeps.
fn effort(params: &Params, target: f32, k: usize, calibration: Option<&Calibration>, matches: &Matches) -> usize {
    let ef = match (params.ef, calibration) {
        (Some(ef), _) => return ef.max(k),
        (None, None) if target > TARGET_RECALL_DEFAULT => EF_UNMEASURED,
        (None, None) => EF_DEFAULT,
        (None, Some(calibration)) => match matches {
            Matches::Live => calibration.ef(target, k),
            Matches::Set(_) => calibration.ef(target, k).max(EF_DEFAULT),
        },
    };
    ef.max(k + EDGE)
}

/// The `k` nearest of the candidates, exactly, and of those that are exactly as far as the k-th the first by id: ids decide, not
/// places.
fn exact<'c, 's, I: Iterator<Item = Ordinal> + 'c>(
    vectors: &VectorsRef<'_>,
    query: &[f32],
    each: &'c dyn Fn() -> I,
    k: usize,
    id_of: &dyn Fn(Ordinal) -> &'s str,
    stop: &dyn Fn() -> bool,
) -> Result<Found> {
    let mut found = flat::scan(vectors, query, each(), k + 1, stop)?;
    let edge = match found.hits.get(k - 1) {
        Some(last) if found.hits.len() > k => last.distance,
        _ => return Ok(found),
    };
    if found.hits[k].distance > edge {
        found.hits.truncate(k);
        return Ok(found);
    }
    let at_edge = flat::scan_at(vectors, query, each(), edge, stop)?;
    found.evaluated += at_edge.evaluated;
    found.hits.retain(|hit| hit.distance < edge);
    let missing = k - found.hits.len();
    let mut ties: Vec<Scored> = at_edge.hits;
    if ties.len() > missing {
        ties.select_nth_unstable_by(missing - 1, |a, b| id_of(a.ordinal).cmp(id_of(b.ordinal)));
        ties.truncate(missing);
    }
    found.hits.extend(ties);
    Ok(found)
}
