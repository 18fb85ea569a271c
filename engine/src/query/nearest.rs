//! Nearest vectors: one leg over all segments.

use super::exec::{Context, Counted, Found as Candidate, Matches, Raw};
use super::plan::{self, Asked, Known, Listed, Strategy};
use super::view::Place;
use super::{ExplainLeg, Params, score};
use crate::error::{Error, Result};
use crate::filter::Filter;
use crate::limits::TARGET_RECALL_DEFAULT;
use crate::schema::{Metric, Schema, VectorSpec};
use crate::segment::SegmentView;
use crate::types::Ordinal;
use crate::vector::hnsw::{Effort, Walked};
use crate::vector::ivf::Ivf;
use crate::vector::{Allow, BitSet, Calibration, EDGE, Faiss, Found, Scored, VectorsRef, batch, faiss, flat, floats};

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

/// What a leg asks for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ask<'q> {
    pub(super) vector: &'q [f32],
    /// Hits wanted.
    pub(super) k: usize,
    pub(super) params: &'q Params,
}

/// What was found for it, before it has a name.
#[derive(Debug, Clone, Default)]
pub(super) struct Searched {
    /// At least the `k` nearest, in no order.
    hits: Vec<(Place, f32)>,
    looks: Vec<Look>,
}

/// How one segment was searched.
#[derive(Debug, Clone, Copy)]
struct Look {
    shard: u32,
    segment: Option<u64>,
    strategy: &'static str,
    matches: u64,
    evaluated: u64,
}

/// Questions that one reading of the rows answers together keep at most so many candidates.
const TOGETHER_KEPT_MAX: usize = 1 << 20;

/// Refuses numbers that the metric cannot compare, of a vector of finite ones.
pub(crate) fn check_values(metric: Metric, vector: &[f32]) -> Result<()> {
    match metric {
        Metric::Cosine if vector.iter().all(|x| *x == 0.0) => Err(Error::invalid(
            "zero_vector",
            "a zero vector has no direction, cosine cannot compare it",
        )),
        Metric::Hamming => match floats::not_a_bit(vector) {
            None => Ok(()),
            Some(i) => Err(Error::invalid(
                "not_a_bit",
                format!(
                    "hamming compares zeros and ones, element {i} is {}: give 1 where a number is above 0, and 0 elsewhere",
                    vector[i]
                ),
            )),
        },
        Metric::Cosine | Metric::Dot | Metric::Euclid | Metric::Manhattan => Ok(()),
    }
}

/// Checks a question against the schema; gives the place of the vector that it means.
pub(super) fn check(schema: &Schema, using: Option<&str>, query: &[f32]) -> Result<usize> {
    let index = resolve(schema, using)?;
    let (name, spec) = schema.vectors.iter().nth(index).expect("resolve found it");
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
    check_values(spec.metric, query).map_err(|e| e.at("/nearest/vector"))?;
    Ok(index)
}

pub(super) fn search(
    context: &Context<'_>,
    leg: &str,
    using: Option<&str>,
    ask: Ask<'_>,
    filters: &[&Filter],
    explain: &mut Vec<ExplainLeg>,
) -> Result<Vec<Candidate>> {
    let index = check(context.schema, using, ask.vector)?;
    let ahead = context.ahead.and_then(|ahead| ahead.find(index, filters, ask));
    let alone;
    let Searched { hits, looks } = match ahead {
        Some(searched) => searched,
        None => {
            alone = search_all(context, index, filters, &[ask])?;
            &alone[0]
        }
    };
    explain.extend(looks.iter().map(|look| ExplainLeg {
        leg: leg.to_owned(),
        shard: look.shard,
        segment: look.segment,
        strategy: look.strategy,
        matches: look.matches,
        evaluated: look.evaluated,
    }));
    let spec = spec(context.schema, index);
    let named = |(place, distance): &(Place, f32)| {
        let raw = spec.metric.raw(*distance);
        Candidate {
            place: *place,
            key: -distance,
            score: score::of_vector(spec, raw),
            raws: vec![Raw {
                leg: leg.to_owned(),
                raw,
                rank: 0,
            }],
        }
    };
    Ok(hits.iter().map(named).collect())
}

pub(super) fn spec(schema: &Schema, index: usize) -> &VectorSpec {
    schema.vectors.values().nth(index).expect("it was resolved")
}

/// Answers questions with the same filters, each as if it were alone. What all of them need is done once: the filters, and where
/// more than one is answered by looking at every match, the reading of those.
pub(super) fn search_all(
    context: &Context<'_>,
    index: usize,
    filters: &[&Filter],
    asks: &[Ask<'_>],
) -> Result<Vec<Searched>> {
    let mut all: Vec<Searched> = asks.iter().map(|_| Searched::default()).collect();
    for (place, view) in context.view.segments() {
        let matches = context.matches(view, filters)?;
        let rows = Rows::new(context, index, view, &matches);
        let plans: Vec<Planned> = asks.iter().map(|ask| rows.plan(*ask)).collect();
        let walked = |plan: &Planned| matches!(plan.chosen, Strategy::Graph { .. } | Strategy::Lists | Strategy::Faiss);
        let holder = match &*matches {
            Matches::Set(set) if plans.iter().any(walked) => Some(BitSet::from_iter(rows.count as usize, set)),
            Matches::Set(_) | Matches::Live => None,
        };
        let allow = match &holder {
            Some(set) => Allow::Only(set),
            None if view.dead.count() > 0 && plans.iter().any(walked) => Allow::Only(view.dead.live(rows.count)),
            None => Allow::All,
        };
        let mut found: Vec<Option<(&'static str, Found)>> = asks.iter().map(|_| None).collect();
        for strategy in [Strategy::Codes, Strategy::Exact] {
            let same = |i: &usize| plans[*i].chosen == strategy;
            let together: Vec<usize> = (0..asks.len()).filter(same).collect();
            if together.len() > 1 {
                rows.scan_together(strategy, asks, &together, &mut found)?;
            }
        }
        for (i, found) in found.into_iter().enumerate() {
            let found = match found {
                Some(found) => Some(found),
                None => rows.find(asks[i], plans[i], &allow)?,
            };
            let Some((strategy, found)) = found else { continue };
            all[i].looks.push(Look {
                shard: place.shard,
                segment: view.no,
                strategy,
                matches: matches.count(),
                evaluated: found.evaluated,
            });
            let hit = |hit: Scored| {
                let ordinal = hit.ordinal;
                (Place { ordinal, ..place }, hit.distance)
            };
            all[i].hits.extend(found.hits.into_iter().map(hit));
            if asks.len() > 1 {
                all[i].forget(asks[i].k);
            }
        }
    }
    Ok(all)
}

impl Searched {
    /// Drops what is farther than the `k`-th, so that many questions do not keep the hits of every segment.
    fn forget(&mut self, k: usize) {
        if k > 0 && self.hits.len() > 2 * k {
            let (_, last, _) = self.hits.select_nth_unstable_by(k - 1, |a, b| a.1.total_cmp(&b.1));
            let last = last.1;
            self.hits.retain(|(_, distance)| *distance <= last);
        }
    }
}

/// One segment, as questions with the same filters see it.
struct Rows<'a> {
    context: &'a Context<'a>,
    index: usize,
    view: &'a SegmentView,
    matches: &'a Counted,
    vectors: VectorsRef<'a>,
    count: u32,
    /// Matches that have the vector.
    candidates: u64,
}

/// How a question is to be answered, and what that was decided by.
#[derive(Clone, Copy)]
struct Planned {
    known: Known,
    ef: usize,
    target: f32,
    chosen: Strategy,
}

impl<'a> Rows<'a> {
    fn new(context: &'a Context<'a>, index: usize, view: &'a SegmentView, matches: &'a Counted) -> Self {
        let vectors = view.segment.vectors(index);
        let absent = vectors.absent.map_or(0, BitSet::count) as u64;
        let candidates = match &**matches {
            _ if absent == 0 => matches.count(),
            Matches::Live => {
                let dead_absent = view.dead.rows().iter().filter(|o| vectors.is_absent(*o)).count() as u64;
                matches.count() - (absent - dead_absent)
            }
            Matches::Set(set) => set.iter().filter(|o| !vectors.is_absent(*o)).count() as u64,
        };
        Self {
            context,
            index,
            view,
            matches,
            count: view.segment.rows(),
            vectors,
            candidates,
        }
    }

    fn plan(&self, Ask { k, params, .. }: Ask<'_>) -> Planned {
        let segment = &self.view.segment;
        let target = params.target_recall.unwrap_or(TARGET_RECALL_DEFAULT);
        // What a filter leaves may be far from the question, and was measured by nobody.
        let target = match &**self.matches {
            Matches::Live => target,
            Matches::Set(_) => target.max(TARGET_RECALL_DEFAULT),
        };
        let calibration = match &**self.matches {
            Matches::Live if self.view.dead.count() == 0 => segment.calibration_for_all(self.index),
            Matches::Live | Matches::Set(_) => segment.calibration(self.index),
        };
        let ef = effort(params, target, k, calibration, self.matches);
        let (dim, rows) = (spec(self.context.schema, self.index).dim, u64::from(self.count));
        let vector_bytes = self.vectors.data.form().row_bytes(dim as usize) as u64;
        // Of rows that match one in so many, the k-th lies where the so many times k-th of all does.
        let depth = k as f64 * rows as f64 / self.candidates.max(1) as f64;
        let lists = self.lists(params, target).map(|lists| Listed {
            count: lists.lists() as u64,
            share: match params.nprobe {
                None => lists.share(depth),
                Some(nprobe) => (nprobe as f64 / lists.lists() as f64).min(1.0),
            },
            bytes: lists.record_bytes().map_or(vector_bytes, |bytes| bytes as u64),
            sieve_bytes: lists.sieve_bytes().map(|bytes| bytes as u64),
            centre_bytes: u64::from(dim),
        });
        let faiss = self.faiss(k, params, target).map(|(faiss, effort)| Asked {
            candidates: effort.candidates as u64,
            lists: (faiss.lists().zip(effort.nprobe)).map(|(lists, nprobe)| (lists as u64, nprobe as u64)),
        });
        let known = Known {
            graph: segment.graph(self.index).is_some(),
            lists,
            faiss,
            exact: params.exact,
            matches: self.candidates,
            rows,
            k: k as u64,
            ef: ef as u64,
            vector_bytes,
            code_bytes: self.vectors.codes.map(|codes| codes.record_bytes() as u64),
        };
        Planned {
            chosen: plan::choose(known),
            known,
            ef,
            target,
        }
    }

    fn lists(&self, params: &Params, target: f32) -> Option<Ivf<'a>> {
        let lists = self.view.segment.lists(self.index)?;
        Some(match params.nprobe {
            None => lists.with_recall(target),
            Some(_) => lists,
        })
    }

    /// An index of Faiss, and what it is asked for so many hits.
    fn faiss(&self, k: usize, params: &Params, target: f32) -> Option<(&'a Faiss, faiss::Effort)> {
        let index = self.view.segment.faiss(self.index)?;
        // Of all rows that have the vector, as many as that lie about one match.
        let rows = u64::from(self.count) - self.vectors.absent.map_or(0, BitSet::count) as u64;
        let depth = rows as f64 / self.candidates.max(1) as f64;
        Some((index, index.effort(k + EDGE, depth, target, params.ef, params.nprobe)))
    }

    /// The matches that have the vector.
    fn each(&self) -> Box<dyn Iterator<Item = Ordinal> + '_> {
        let present = |o: &Ordinal| !self.vectors.is_absent(*o);
        match &**self.matches {
            Matches::Live if self.view.dead.count() == 0 => Box::new((0..self.count).filter(present)),
            Matches::Live => Box::new(self.view.dead.live(self.count).iter().filter(present)),
            Matches::Set(set) => Box::new(set.iter().filter(present)),
        }
    }

    fn scan(&self, strategy: Strategy, Ask { vector, k, .. }: Ask<'_>) -> Result<Found> {
        let stop = || self.context.patience.is_over();
        match strategy {
            Strategy::Codes => flat::scan_codes(&self.vectors, vector, || self.each(), k + EDGE, &stop),
            Strategy::Nothing | Strategy::Exact | Strategy::Graph { .. } | Strategy::Lists | Strategy::Faiss => {
                // Ids decide, not places.
                let id_of = |ordinal| self.view.segment.id_of(ordinal);
                flat::scan_by_id(&self.vectors, vector, self.each(), k, &id_of, &stop)
            }
        }
    }

    /// Answers several questions by one reading of the matches.
    fn scan_together(
        &self,
        strategy: Strategy,
        asks: &[Ask<'_>],
        together: &[usize],
        found: &mut [Option<(&'static str, Found)>],
    ) -> Result<()> {
        let stop = || self.context.patience.is_over();
        let by_code = strategy == Strategy::Codes;
        let mut rest = together;
        while !rest.is_empty() {
            let mut kept = 0;
            let some = rest.iter().take_while(|i| {
                kept += batch::kept(asks[**i].k + EDGE, by_code);
                kept <= TOGETHER_KEPT_MAX
            });
            let (now, later) = rest.split_at(some.count().max(1));
            rest = later;
            let more = if by_code { EDGE } else { 0 };
            let question = |i: &usize| batch::Question {
                vector: asks[*i].vector,
                k: asks[*i].k + more,
            };
            let questions: Vec<batch::Question<'_>> = now.iter().map(question).collect();
            let id_of = |ordinal| self.view.segment.id_of(ordinal);
            let answers = match by_code {
                true => batch::scan_codes(&self.vectors, &questions, || self.each(), &stop)?,
                false => batch::scan_by_id(&self.vectors, &questions, self.each(), &id_of, &stop)?,
            };
            for (i, answer) in now.iter().zip(answers) {
                found[*i] = Some((if by_code { "codes" } else { "exact" }, answer));
            }
        }
        Ok(())
    }

    fn effort(&self, ask: Ask<'_>, planned: Planned) -> Effort {
        let effort = Effort::beyond(ask.k, planned.ef, self.vectors.codes.is_some());
        match planned.chosen {
            Strategy::Graph { evaluations_max } => Effort {
                evaluations_max,
                ..effort
            },
            Strategy::Nothing | Strategy::Exact | Strategy::Codes | Strategy::Lists | Strategy::Faiss => effort,
        }
    }

    /// What a walk found, or a scan where that is not enough.
    fn finish(&self, ask: Ask<'_>, planned: Planned, walked: Walked) -> Result<(&'static str, Found)> {
        let k = ask.k;
        let wanted = self.candidates.min(k as u64);
        let evaluated = match walked {
            Walked::Found(mut found) if found.hits.len() as u64 >= wanted => {
                // Of all that a walk without codes kept, the hits and what ties with the last of them.
                let last = found.hits.get(k - 1).map_or(f32::INFINITY, |last| last.distance);
                let ties = found.hits.partition_point(|hit| hit.distance <= last);
                found.hits.truncate(ties.max(k + EDGE));
                return Ok(("graph", found));
            }
            Walked::Found(Found { evaluated, .. }) | Walked::GaveUp { evaluated } => evaluated,
        };
        // Whatever kept the walk from the matches, a scan comes by all of them.
        let strategy = plan::scan(planned.known);
        let mut scanned = self.scan(strategy, ask)?;
        scanned.evaluated += evaluated;
        let name = if strategy == Strategy::Codes {
            "graph+codes"
        } else {
            "graph+exact"
        };
        Ok((name, scanned))
    }

    /// Answers one question as planned; nothing if nothing matches.
    fn find(&self, ask: Ask<'_>, planned: Planned, allow: &Allow<'_>) -> Result<Option<(&'static str, Found)>> {
        let Ask { vector, k, params } = ask;
        let Planned { target, chosen, .. } = planned;
        let stop = || self.context.patience.is_over();
        Ok(Some(match (chosen, self.view.segment.graph(self.index)) {
            (Strategy::Nothing, _) => {
                // Counting matches takes time, too.
                self.context.check_patience()?;
                return Ok(None);
            }
            (Strategy::Graph { .. }, Some(graph)) => {
                let effort = self.effort(ask, planned);
                let walked = graph.search_within(&self.vectors, vector, effort, allow, &stop)?;
                self.finish(ask, planned, walked)?
            }
            (Strategy::Lists, _) => {
                let lists = self.lists(params, target);
                let lists = lists.ok_or_else(|| Error::internal("a plan for lists that are not there"))?;
                let probed = lists.probe(&self.vectors, vector, k + EDGE, params.nprobe, allow, &stop)?;
                ("lists", probed.found)
            }
            (Strategy::Faiss, _) => {
                let asked = self.faiss(k, params, target);
                let (index, effort) = asked.ok_or_else(|| Error::internal("a plan for an index that is not there"))?;
                let found = index.find(&self.vectors, vector, k + EDGE, effort, allow, &stop)?;
                if found.hits.len() as u64 >= self.candidates.min(k as u64) {
                    return Ok(Some(("faiss", found)));
                }
                // Whatever kept Faiss from the matches, a scan comes by all of them.
                let mut scanned = self.scan(plan::scan(planned.known), ask)?;
                scanned.evaluated += found.evaluated;
                ("faiss+exact", scanned)
            }
            (strategy @ Strategy::Codes, _) => ("codes", self.scan(strategy, ask)?),
            (strategy @ (Strategy::Exact | Strategy::Graph { .. }), _) => ("exact", self.scan(strategy, ask)?),
        }))
    }
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
