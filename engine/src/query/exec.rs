//! Runs questions on one view: from a checked request to hits, points and counts.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;

use roaring::RoaringBitmap;

use super::view::{Place, View};
use super::{
    Ahead, Explain, ExplainLeg, Hit, Input, LegScore, Query, QueryResult, Source, With, fuse, nearest, sparse, text,
};
use crate::error::{Error, ErrorKind, Result};
use crate::filter::{Filter, eval, extract};
use crate::limits;
use crate::patience::{OutOfPatience, Patience};
use crate::schema::Schema;
use crate::segment::{Segment, SegmentView, parse_payload};
use crate::text::analyzer::Analyzer;
use crate::types::{Epochs, Point, PointId, Row, SparseVectors, Vectors};
use crate::vector::BitSet;

/// What a question is asked of.
pub(crate) struct Context<'a> {
    pub(crate) view: &'a View,
    /// Who wrote the records that made it.
    pub(crate) epochs: Arc<Epochs>,
    pub(crate) schema: &'a Schema,
    pub(crate) analyzers: &'a BTreeMap<String, &'static Analyzer>,
    /// Rows that expire at or before this are invisible.
    pub(crate) now_ms: u64,
    pub(crate) patience: &'a Patience,
    /// Bytes of payloads and vectors fetched so far.
    pub(crate) answer_bytes: Cell<usize>,
    /// What was found for queries that are asked together with others.
    pub(crate) ahead: Option<&'a Ahead>,
}

/// A candidate of a leg or of a fusion.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) place: Place,
    /// Orders this list: higher is better.
    pub(super) key: f32,
    /// 0..1.
    pub(super) score: f32,
    /// What the leaf legs thought.
    pub(super) raws: Vec<Raw>,
}

#[derive(Debug, Clone)]
pub(super) struct Raw {
    pub(super) leg: String,
    pub(super) raw: f32,
    /// From 1, set when the leg's list is sorted.
    pub(super) rank: u32,
}

/// The rows of a segment that may be answered.
pub(super) enum Matches {
    /// All that live.
    Live,
    /// These (they live).
    Set(RoaringBitmap),
}

/// Matches with their count, which plans and `explain` need.
pub(super) struct Counted {
    matches: Matches,
    count: u64,
}

impl std::ops::Deref for Counted {
    type Target = Matches;
    fn deref(&self) -> &Matches {
        &self.matches
    }
}

impl Counted {
    pub(super) fn count(&self) -> u64 {
        self.count
    }
}

impl Context<'_> {
    /// Asks, unless nobody waits for the answer.
    pub(crate) fn ask<T>(&self, question: impl FnOnce(&Self) -> Result<T>) -> Result<T> {
        self.check_patience()?;
        let answer = question(self).map_err(|error| match (error.kind, self.patience.check()) {
            // A leaf knows only that it was to stop, and calls that a deadline.
            (ErrorKind::Deadline, Err(why @ OutOfPatience::Gone)) => why.into(),
            _ => error,
        });
        // Vectors and payloads are verified when they are first read. What was made of a block that failed is thrown away.
        match (&answer, self.view.damaged()) {
            (Ok(_), Some(damaged)) => Err(damaged),
            (Err(error), Some(damaged)) if error.kind == ErrorKind::Damaged => Err(damaged),
            _ => answer,
        }
    }

    pub(super) fn check_patience(&self) -> Result<()> {
        Ok(self.patience.check()?)
    }

    /// Evaluates filters on one segment: live, unexpired rows that satisfy all of them.
    pub(super) fn matches(&self, view: &SegmentView, filters: &[&Filter]) -> Result<Counted> {
        let segment = &view.segment;
        let mut set: Option<RoaringBitmap> = None;
        for filter in filters.iter().filter(|f| !f.is_empty()) {
            let late = || self.patience.is_over();
            let matching = eval::eval_within(filter, &segment.filter(), segment.rows(), &***segment, &late)?;
            set = Some(match set {
                Some(set) => set & matching,
                None => matching,
            });
        }
        if segment.has_expired(self.now_ms) {
            let expired = (0..segment.rows()).filter(|o| (1..=self.now_ms).contains(&segment.expires_at_ms(*o)));
            let expired = RoaringBitmap::from_sorted_iter(expired).expect("ordinals ascend");
            if !expired.is_empty() {
                let all = set.unwrap_or_else(|| {
                    let mut all = RoaringBitmap::new();
                    all.insert_range(0..segment.rows());
                    all
                });
                set = Some(all - expired);
            }
        }
        Ok(match set {
            None => Counted {
                matches: Matches::Live,
                count: view.live(),
            },
            Some(mut set) => {
                set -= view.dead.rows();
                Counted {
                    count: set.len(),
                    matches: Matches::Set(set),
                }
            }
        })
    }

    /// Live, matching rows of one segment from an ordinal on.
    fn matching_from(
        &self,
        view: &SegmentView,
        filters: &[&Filter],
        from: u32,
        mut each: impl FnMut(u32) -> Result<bool>,
    ) -> Result<bool> {
        match &*self.matches(view, filters)? {
            Matches::Live => {
                let dead = view.dead.rows();
                for ordinal in (from..view.segment.rows()).filter(|o| !dead.contains(*o)) {
                    if !each(ordinal)? {
                        return Ok(false);
                    }
                }
            }
            Matches::Set(set) => {
                for ordinal in set.range(from..) {
                    if !each(ordinal)? {
                        return Ok(false);
                    }
                }
            }
        }
        Ok(true)
    }

    /// Counts what a point adds to the answer, before it is fetched.
    fn spend(&self, bytes: usize) -> Result<()> {
        self.answer_bytes.set(self.answer_bytes.get() + bytes);
        if self.answer_bytes.get() > limits::ANSWER_BYTES_MAX {
            return Err(Error::invalid(
                "answer_too_large",
                format!(
                    "the answer would hold more than {} bytes of payloads and vectors: ask for fewer points, or without them",
                    limits::ANSWER_BYTES_MAX
                ),
            )
            .at("/limit"));
        }
        Ok(())
    }

    fn point(&self, place: Place, with: With) -> Result<Point> {
        // Thousands may be asked for, and each unpacks a block.
        self.check_patience()?;
        let segment = &self.view.segment(place).segment;
        if with.vectors {
            self.spend(self.schema.vectors.values().map(|v| v.dim as usize * 4).sum())?;
        }
        let vectors = with.vectors.then(|| {
            self.schema
                .vectors
                .keys()
                .enumerate()
                .filter_map(|(i, name)| Some((name.clone(), segment.vector_of(i, place.ordinal)?.into_owned())))
                .collect::<Vectors>()
        });
        let sparse = with
            .vectors
            .then(|| self.sparse_of(segment, place.ordinal))
            .transpose()?;
        let id = |text: &str| PointId::new(text).map_err(|_| Error::damaged("segment: a stored id is not an id"));
        Ok(Point {
            id: id(segment.id_of(place.ordinal))?,
            vectors,
            sparse,
            payload: if with.payload {
                let json = segment.payload_json(place.ordinal)?;
                self.spend(json.len())?;
                Some(parse_payload(&json)?)
            } else {
                None
            },
            document: segment.document_of(place.ordinal).map(id).transpose()?,
            version: self.epochs.token(segment.birth_of(place.ordinal)),
        })
    }

    fn sparse_of(&self, segment: &Segment, ordinal: u32) -> Result<SparseVectors> {
        let mut vectors = SparseVectors::new();
        for (i, name) in self.schema.sparse.keys().enumerate() {
            let column = segment.sparse(i);
            self.spend(column.row(ordinal).map_or(0, <[u8]>::len))?;
            if let Some(vector) = column.get(ordinal)? {
                vectors.insert(name.clone(), vector);
            }
        }
        Ok(vectors)
    }

    fn is_visible(&self, view: &SegmentView, ordinal: u32) -> bool {
        !view.dead.contains(ordinal) && !(1..=self.now_ms).contains(&view.segment.expires_at_ms(ordinal))
    }

    /// Sorts a leg's list, cuts it, and numbers it.
    pub(super) fn rank(&self, mut found: Vec<Found>, limit: usize, number: bool) -> Vec<Found> {
        let view = self.view;
        found.sort_by(|a, b| {
            b.key
                .total_cmp(&a.key)
                .then_with(|| view.id(a.place).cmp(view.id(b.place)))
        });
        found.truncate(limit);
        if number {
            for (i, hit) in found.iter_mut().enumerate() {
                hit.raws.iter_mut().for_each(|raw| raw.rank = i as u32 + 1);
            }
        }
        found
    }

    fn find(
        &self,
        source: &Source,
        leg: &str,
        filters: &[&Filter],
        limit: usize,
        query: &Query,
        explain: &mut Vec<ExplainLeg>,
    ) -> Result<Vec<Found>> {
        self.check_patience()?;
        match source {
            Source::Nearest { using, vector } => {
                let ask = nearest::Ask {
                    vector,
                    k: limit,
                    params: &query.params,
                };
                let found = nearest::search(self, leg, using.as_deref(), ask, filters, explain)?;
                Ok(self.rank(found, limit, true))
            }
            Source::Sparse { using, vector } => {
                let ask = sparse::Leg {
                    name: leg,
                    using: using.as_deref(),
                    vector,
                };
                let found = sparse::search(self, &ask, filters, limit, query.params.exact, explain)?;
                Ok(self.rank(found, limit, true))
            }
            Source::Text { query: words, fields } => {
                let found = text::search(self, leg, words, fields, filters, limit, explain)?;
                Ok(self.rank(found, limit, true))
            }
            Source::Fusion { inputs, method } => {
                let names = names(inputs, leg);
                let mut legs = Vec::with_capacity(inputs.len());
                for (i, (input, name)) in inputs.iter().zip(&names).enumerate() {
                    extract::check_filter(&input.filter, self.schema)
                        .map_err(|e| e.at(format!("/prefetch/{i}/filter")))?;
                    let mut all = filters.to_vec();
                    all.push(&input.filter);
                    // Never fewer than the caller can be given: a leg finds at least what is wanted in the end.
                    let wanted = input.limit.max(limit);
                    let found = self.find(&input.source, name, &all, wanted, query, explain);
                    legs.push(found.map_err(|e| e.at(format!("/prefetch/{i}")))?);
                }
                Ok(self.rank(fuse::fuse(method, legs), limit, false))
            }
        }
    }
}

/// The rows of a segment that may be answered as a set; none if that is all of them. `holder` keeps it where it must be made.
pub(super) fn allowed<'a>(
    matches: &Counted,
    view: &'a SegmentView,
    holder: &'a mut Option<BitSet>,
) -> Option<&'a BitSet> {
    match &**matches {
        Matches::Live if view.dead.count() == 0 => None,
        Matches::Live => Some(view.dead.live(view.segment.rows())),
        Matches::Set(set) => Some(holder.insert(BitSet::from_iter(view.segment.rows() as usize, set))),
    }
}

/// The k-th best of what other segments gave: what is lower is of no use.
pub(super) fn floor(found: &mut [Found], k: usize) -> f32 {
    if found.len() < k {
        return f32::NEG_INFINITY;
    }
    found
        .select_nth_unstable_by(k - 1, |a, b| b.key.total_cmp(&a.key))
        .1
        .key
}

/// What each leg of a fusion is called in answers: the given name, or its kind, numbered where kinds repeat.
fn names(inputs: &[Input], outer: &str) -> Vec<String> {
    let kind = |source: &Source| match source {
        Source::Nearest { .. } => "dense",
        Source::Sparse { .. } => "sparse",
        Source::Text { .. } => "bm25",
        Source::Fusion { .. } => "fusion",
    };
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    inputs
        .iter()
        .map(|input| {
            let base = input.name.clone().unwrap_or_else(|| kind(&input.source).to_owned());
            let base = if outer.is_empty() || input.name.is_some() {
                base
            } else {
                format!("{outer}.{base}")
            };
            let times = seen.entry(base.clone()).or_default();
            *times += 1;
            if *times > 1 { format!("{base}{times}") } else { base }
        })
        .collect()
}

/// Answers a query.
pub(crate) fn run(context: &Context<'_>, query: &Query) -> Result<QueryResult> {
    query.check()?;
    extract::check_filter(&query.filter, context.schema).map_err(|e| e.at("/filter"))?;
    let mut legs = Vec::new();
    let name = match &query.source {
        Source::Nearest { .. } => "dense",
        Source::Sparse { .. } => "sparse",
        Source::Text { .. } => "bm25",
        Source::Fusion { .. } => "",
    };
    let found = context.find(
        &query.source,
        name,
        &[&query.filter],
        query.limit + query.offset,
        query,
        &mut legs,
    )?;
    let mut hits = Vec::with_capacity(query.limit.min(found.len()));
    for found in found
        .into_iter()
        .filter(|f| query.score_threshold.is_none_or(|t| f.score >= t))
        .skip(query.offset)
    {
        context.check_patience()?;
        hits.push(Hit {
            point: context.point(found.place, query.with)?,
            score: found.score,
            legs: found
                .raws
                .into_iter()
                .map(|r| LegScore {
                    leg: r.leg,
                    raw: r.raw,
                    rank: r.rank,
                })
                .collect(),
        });
    }
    Ok(QueryResult {
        hits,
        seq: context.epochs.token(context.view.seq),
        bytes: context.answer_bytes.get(),
        explain: query.with.explain.then_some(Explain { legs }),
    })
}

/// Points by id, in the order asked.
pub(crate) fn get(context: &Context<'_>, ids: &[PointId], with: With) -> Result<Vec<Point>> {
    let mut points = Vec::with_capacity(ids.len());
    for id in ids {
        context.check_patience()?;
        let place = context.view.segments().find_map(|(place, view)| {
            let ordinal = view
                .segment
                .find_id(id.as_str())
                .find(|o| context.is_visible(view, *o))?;
            Some(Place { ordinal, ..place })
        });
        if let Some(place) = place {
            points.push(context.point(place, with)?);
        }
    }
    Ok(points)
}

/// Live points that match.
pub(crate) fn count(context: &Context<'_>, filter: &Filter) -> Result<u64> {
    filter
        .check()
        .and_then(|()| extract::check_filter(filter, context.schema))
        .map_err(|e| e.at("/filter"))?;
    let mut count = 0;
    for (_, view) in context.view.segments() {
        context.check_patience()?;
        count += context.matches(view, &[filter])?.count();
    }
    Ok(count)
}

/// The chunks of a document, in order.
pub(crate) fn chunks(context: &Context<'_>, document: &PointId, with: With) -> Result<Vec<Point>> {
    let mut points = Vec::new();
    for (place, view) in context.view.segments() {
        context.check_patience()?;
        for ordinal in view
            .segment
            .find_document(document.as_str())
            .iter()
            .filter(|o| context.is_visible(view, *o))
        {
            context.check_patience()?;
            points.push(context.point(Place { ordinal, ..place }, with)?);
        }
    }
    Ok(points)
}

/// A page of points in row order, shard by shard, and the cursor of the next.
pub(crate) fn scroll(
    context: &Context<'_>,
    filter: &Filter,
    limit: usize,
    cursor: Option<&str>,
    with: With,
) -> Result<(Vec<Point>, Option<String>)> {
    if limit == 0 || limit > limits::TOP_K_MAX {
        return Err(Error::invalid(
            "bad_limit",
            format!("limit must be 1 to {}, got {limit}", limits::TOP_K_MAX),
        )
        .at("/limit"));
    }
    filter
        .check()
        .and_then(|()| extract::check_filter(filter, context.schema))
        .map_err(|e| e.at("/filter"))?;
    let (first_shard, first_row) = match cursor {
        None => (0, Row(0)),
        Some(cursor) => parse_cursor(cursor)?,
    };
    let mut points = Vec::new();
    let mut next = None;
    'shards: for (shard_no, shard) in context.view.shards.iter().enumerate().skip(first_shard) {
        let from = if shard_no == first_shard { first_row } else { Row(0) };
        for (segment_no, view) in shard.segments.iter().enumerate() {
            context.check_patience()?;
            let start = view.segment.lower_bound(from);
            if start == view.segment.rows() {
                continue;
            }
            let more = context.matching_from(view, &[filter], start, |ordinal| {
                if points.len() == limit {
                    next = Some(format!("s{shard_no:x}-{:x}", view.segment.row_of(ordinal).0));
                    return Ok(false);
                }
                context.check_patience()?;
                points.push(context.point(
                    Place {
                        shard: shard_no as u32,
                        segment: segment_no as u32,
                        ordinal,
                    },
                    with,
                )?);
                Ok(true)
            })?;
            if !more {
                break 'shards;
            }
        }
    }
    Ok((points, next))
}

fn parse_cursor(cursor: &str) -> Result<(usize, Row)> {
    cursor
        .strip_prefix('s')
        .and_then(|rest| rest.split_once('-'))
        .and_then(|(shard, row)| {
            Some((
                usize::from_str_radix(shard, 16).ok()?,
                Row(u64::from_str_radix(row, 16).ok()?),
            ))
        })
        .ok_or_else(|| {
            Error::invalid("bad_cursor", "not a cursor that a page of this collection ended with").at("/cursor")
        })
}
