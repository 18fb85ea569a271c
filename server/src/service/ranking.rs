//! Ranking: what is done with hits after they were found and fused.
//!
//! The steps are always the same and in this order, each only if it is asked for: `decay`, `rerank`, the score threshold,
//! `near_duplicates`, `caps`, `mmr`. `rag::rank` has what they compute; here is what each needs to see, how long it may
//! take, and the account of what it skipped.
//!
//! A query with a ranking takes its candidates from a pool that is larger than what is wanted and holds what its steps were
//! told to look at, and enlarges the pool until enough hits remain, all that match were seen, [`POOL_MAX`] is reached, or
//! a larger one would be more bytes than may be looked at. `offset` and `limit` cut the ranked list, so
//! pages of one ranking follow each other as long as the pool is the same: up to half of its first size.
//!
//! Only ids and scores are taken from the search; payloads and vectors are fetched from the same moment for the hits that a
//! step looks at, once each.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use cairn_engine::engine::Moment;
use cairn_engine::query::{Hit, LegScore, Query, QueryResult, With};
use cairn_engine::schema::Schema;
use cairn_engine::types::{Payload, Point, PointId, Vectors};
use cairn_engine::{Error, Result, limits};
use serde_json::Value;

use super::Core;
use super::bounds::{
    CAPS_MAX, DEFAULT_MMR_CANDIDATES, DEFAULT_RERANK_BUDGET_MS, DEFAULT_RERANK_TOP, MMR_MAX, NEAR_DUPLICATES_MAX,
    POOL_GROWTH, POOL_MAX, POOL_MIN, RERANK_BUDGET_MS_MAX, RERANK_MAX,
};
use super::pools::Budget;
use crate::rag::near::NEAR_JACCARD;
use crate::rag::rank::mmr::{Embedded, mmr};
use crate::rag::rank::near_duplicates::{Verdict, near_duplicates};
use crate::rag::rank::{caps, decay, value_at};
use crate::rag::rerank::{Reranker, Scores};
use crate::rag::retrieval;

/// Default weight of `lambda`: mostly relevance, as the paper and everybody after it uses.
const DEFAULT_LAMBDA: f32 = 0.7;
/// Where a chunk's text is.
const TEXT: &str = "text";
/// Code of the error of looking at too much.
const TOO_LARGE: &str = "answer_too_large";

/// A ranking as callers say it. What is `None` gets its default here.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Ranking {
    /// Multiplies scores by age.
    pub decay: Option<Decay>,
    /// Orders the best anew.
    pub rerank: Option<Rerank>,
    /// Leaves out what says almost the same.
    pub near_duplicates: Option<NearDuplicates>,
    /// At most so many per value of a field.
    pub caps: Vec<Cap>,
    /// Prefers what is different.
    pub mmr: Option<Mmr>,
}

/// Age.
#[derive(Debug, Clone, PartialEq)]
pub struct Decay {
    /// Path of the time.
    pub field: String,
    /// After which a score is half.
    pub half_life_ms: u64,
    /// How much of the score age decides.
    pub weight: Option<f32>,
    /// What age is counted from.
    pub origin_ms: Option<u64>,
}

/// Reranking.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rerank {
    /// Which reranker.
    pub model: Option<String>,
    /// The words to compare with.
    pub query: Option<String>,
    /// How many hits.
    pub top: Option<usize>,
    /// How long.
    pub budget_ms: Option<u64>,
    /// Path of the text.
    pub field: Option<String>,
}

/// Near duplicates.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NearDuplicates {
    /// The least similarity.
    pub threshold: Option<f32>,
}

/// One cap.
#[derive(Debug, Clone, PartialEq)]
pub struct Cap {
    /// Path of what is counted.
    pub field: String,
    /// The most hits per value.
    pub most: usize,
}

/// Diversity.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Mmr {
    /// Relevance against diversity.
    pub lambda: Option<f32>,
    /// How many hits are chosen from.
    pub candidates: Option<usize>,
    /// Vector name.
    pub using: Option<String>,
}

/// One step of answering a question.
#[derive(Debug, Clone, PartialEq)]
pub struct Stage {
    /// Which.
    pub name: &'static str,
    /// How long.
    pub took_ms: f64,
    /// Hits before.
    pub hits_in: usize,
    /// Hits after.
    pub hits_out: usize,
    /// What was not done, and why.
    pub skipped: Option<String>,
}

impl Stage {
    /// A stage that began at `started` and ends now.
    pub(super) fn new(name: &'static str, started: Instant, hits_in: usize, hits_out: usize) -> Self {
        Self {
            name,
            took_ms: started.elapsed().as_secs_f64() * 1e3,
            hits_in,
            hits_out,
            skipped: None,
        }
    }

    pub(super) fn skipping(mut self, skipped: Option<String>) -> Self {
        self.skipped = skipped;
        self
    }
}

// ---- what may be asked ----

impl Ranking {
    /// Nothing is asked for.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Everything that can be refused without a schema. Pointers begin at the ranking.
    pub fn check(&self) -> Result<()> {
        if let Some(decay) = &self.decay {
            decay.check().map_err(|e| e.at("/decay"))?;
        }
        if let Some(rerank) = &self.rerank {
            rerank.check().map_err(|e| e.at("/rerank"))?;
        }
        if let Some(near) = &self.near_duplicates
            && let Some(threshold) = near.threshold
            && !(threshold > 0.0 && threshold <= 1.0)
        {
            let message = format!("threshold must be above 0 and at most 1, got {threshold}");
            return Err(wrong(message).at("/near_duplicates/threshold"));
        }
        if self.caps.len() > CAPS_MAX {
            let message = format!("a ranking holds at most {CAPS_MAX} caps, got {}", self.caps.len());
            return Err(wrong(message).at("/caps"));
        }
        for (i, cap) in self.caps.iter().enumerate() {
            check_field(&cap.field).map_err(|e| e.at(format!("/caps/{i}")))?;
            if cap.most == 0 {
                return Err(wrong("most must be at least 1, got 0").at(format!("/caps/{i}/most")));
            }
        }
        match &self.mmr {
            Some(mmr) => mmr.check().map_err(|e| e.at("/mmr")),
            None => Ok(()),
        }
    }
}

impl Decay {
    fn check(&self) -> Result<()> {
        check_field(&self.field)?;
        if self.half_life_ms == 0 {
            return Err(wrong("half_life_ms must be at least 1, got 0").at("/half_life_ms"));
        }
        check_share("weight", self.weight)
    }
}

impl Rerank {
    fn check(&self) -> Result<()> {
        check_range("top", self.top, RERANK_MAX)?;
        let budget = self.budget_ms.map(|ms| usize::try_from(ms).unwrap_or(usize::MAX));
        check_range("budget_ms", budget, RERANK_BUDGET_MS_MAX)?;
        if let Some(field) = &self.field {
            check_field(field)?;
        }
        match &self.query {
            Some(query) if query.len() > limits::QUERY_TEXT_BYTES_MAX => {
                let most = limits::QUERY_TEXT_BYTES_MAX;
                let message = format!("a text is at most {most} bytes, got {}", query.len());
                Err(Error::invalid("query_too_large", message).at("/query"))
            }
            _ => Ok(()),
        }
    }
}

impl Mmr {
    fn check(&self) -> Result<()> {
        check_share("lambda", self.lambda)?;
        check_range("candidates", self.candidates, MMR_MAX)
    }
}

fn wrong(message: impl Into<String>) -> Error {
    Error::invalid("bad_ranking", message)
}

fn check_field(field: &str) -> Result<()> {
    let most = limits::NAME_BYTES_MAX;
    if (1..=most).contains(&field.len()) {
        return Ok(());
    }
    Err(wrong(format!(
        "field is a dotted path of 1 to {most} bytes, got {}",
        field.len()
    ))
    .at("/field"))
}

fn check_share(name: &str, value: Option<f32>) -> Result<()> {
    match value {
        Some(value) if !(0.0..=1.0).contains(&value) => {
            Err(wrong(format!("{name} must be 0 to 1, got {value}")).at(format!("/{name}")))
        }
        _ => Ok(()),
    }
}

fn check_range(name: &str, value: Option<usize>, most: usize) -> Result<()> {
    match value {
        Some(value) if !(1..=most).contains(&value) => {
            Err(wrong(format!("{name} must be 1 to {most}, got {value}")).at(format!("/{name}")))
        }
        _ => Ok(()),
    }
}

// ---- the plan ----

/// A ranking with everything that it needs at hand.
pub(super) struct Plan {
    ranking: Ranking,
    reranker: Option<(std::sync::Arc<dyn Reranker>, String)>,
    /// For each collection, the vector that MMR compares, and its space.
    compared: Vec<(String, usize)>,
    origin_ms: i64,
}

impl Core {
    /// Checks a ranking against the server's rerankers and the collections' schemas; `words` are those of the question.
    pub(super) fn plan(&self, ranking: &Ranking, schemas: &[&Schema], words: Option<&str>) -> Result<Plan> {
        ranking.check()?;
        let reranker = match &ranking.rerank {
            None => None,
            Some(rerank) => Some(self.reranker(rerank, words).map_err(|e| e.at("/rerank"))?),
        };
        let compared = match &ranking.mmr {
            None => Vec::new(),
            Some(mmr) => compared(mmr, schemas).map_err(|e| e.at("/mmr"))?,
        };
        let origin = ranking.decay.as_ref().and_then(|decay| decay.origin_ms);
        let origin = origin.unwrap_or_else(|| self.engine.now_ms());
        Ok(Plan {
            ranking: ranking.clone(),
            reranker,
            compared,
            origin_ms: i64::try_from(origin).unwrap_or(i64::MAX),
        })
    }

    fn reranker(&self, rerank: &Rerank, words: Option<&str>) -> Result<(std::sync::Arc<dyn Reranker>, String)> {
        let names = || match self.models.reranker_names() {
            names if names.is_empty() => "this server has none".to_owned(),
            names => format!("available: {}", names.join(", ")),
        };
        let Some(reranker) = self.models.reranker(rerank.model.as_deref()) else {
            let message = match &rerank.model {
                Some(model) => format!("there is no reranker {model:?}; {}", names()),
                None => format!("model must name a reranker; {}", names()),
            };
            return Err(Error::invalid("unknown_reranker", message).at("/model"));
        };
        let words = rerank
            .query
            .as_deref()
            .filter(|query| !query.trim().is_empty())
            .or(words);
        let words = words.ok_or_else(|| {
            wrong("the query has no words that a reranker could compare with, so query must give them").at("/query")
        })?;
        Ok((reranker, words.to_owned()))
    }
}

/// The vectors that MMR compares: the one named, else `dense`, else the only one.
fn compared(mmr: &Mmr, schemas: &[&Schema]) -> Result<Vec<(String, usize)>> {
    let mut spaces = Vec::new();
    let mut all = Vec::with_capacity(schemas.len());
    for schema in schemas {
        let names = || schema.vectors.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        let found = match &mmr.using {
            Some(name) => schema.vectors.get_key_value(name).ok_or_else(|| {
                let message = format!("the collection has no vector {name:?}, only: {}", names());
                Error::invalid("vector_not_found", message).at("/using")
            })?,
            None => {
                let only = if schema.vectors.len() == 1 {
                    schema.vectors.iter().next()
                } else {
                    None
                };
                schema.vectors.get_key_value(retrieval::DENSE).or(only).ok_or_else(|| {
                    let message = format!("using must name one of the collection's vectors: {}", names());
                    Error::invalid("vector_not_named", message).at("/using")
                })?
            }
        };
        let (name, spec) = found;
        // Vectors that callers made are one space where they have one length; whoever mixes models knows it.
        let identity = (spec.dim, spec.embedder.clone());
        let space = spaces.iter().position(|known| *known == identity).unwrap_or_else(|| {
            spaces.push(identity);
            spaces.len() - 1
        });
        all.push((name.clone(), space));
    }
    Ok(all)
}

// ---- hits and what they carry ----

/// A hit of one of the collections that were asked.
#[derive(Debug, Clone)]
pub(super) struct Found {
    /// Its place in the request.
    pub(super) collection: usize,
    pub(super) hit: Hit,
}

type Key = (usize, PointId);

impl Found {
    fn key(&self) -> Key {
        (self.collection, self.hit.point.id.clone())
    }
}

/// Fetches what steps look at, from the moments that were searched, each once.
pub(super) struct Fetcher<'m> {
    moments: &'m [Moment<'m>],
    payloads: HashMap<Key, Payload>,
    vectors: HashMap<Key, Vectors>,
    /// Of all that was fetched.
    bytes: usize,
    /// The most that may be fetched.
    bytes_max: usize,
}

impl<'m> Fetcher<'m> {
    pub(super) fn new(moments: &'m [Moment<'m>]) -> Self {
        Self {
            moments,
            payloads: HashMap::new(),
            vectors: HashMap::new(),
            bytes: 0,
            bytes_max: limits::ANSWER_BYTES_MAX,
        }
    }

    /// Makes the payloads of these hits known.
    pub(super) fn fetch_payloads(&mut self, hits: &[Found]) -> Result<()> {
        let with = With {
            payload: true,
            ..With::default()
        };
        let missing = missing(hits, |key| self.payloads.contains_key(key));
        for (collection, point) in self.fetch(missing, with)? {
            self.payloads
                .insert((collection, point.id), point.payload.unwrap_or_default());
        }
        Ok(())
    }

    /// Makes the vectors of these hits known.
    fn fetch_vectors(&mut self, hits: &[Found]) -> Result<()> {
        let with = With {
            vectors: true,
            ..With::default()
        };
        let missing = missing(hits, |key| self.vectors.contains_key(key));
        for (collection, point) in self.fetch(missing, with)? {
            self.vectors
                .insert((collection, point.id), point.vectors.unwrap_or_default());
        }
        Ok(())
    }

    fn fetch(&mut self, missing: HashMap<usize, Vec<PointId>>, with: With) -> Result<Vec<(usize, Point)>> {
        let mut all = Vec::new();
        for (collection, ids) in missing {
            let (points, bytes) = self.moments[collection].get(&ids, with)?;
            self.bytes += bytes;
            if self.bytes > self.bytes_max {
                let most = self.bytes_max;
                let message = format!(
                    "ranking would look at more than {most} bytes of payloads and vectors: ask for fewer hits, or rank fewer"
                );
                return Err(Error::invalid(TOO_LARGE, message).at("/ranking"));
            }
            all.extend(points.into_iter().map(|point| (collection, point)));
        }
        Ok(all)
    }

    /// A payload that was fetched; every hit has one, perhaps empty.
    pub(super) fn payload(&self, of: &Found) -> Option<&Payload> {
        self.payloads.get(&of.key())
    }

    fn value(&self, of: &Found, path: &str) -> Option<&Value> {
        value_at(self.payload(of)?, path)
    }

    fn text(&self, of: &Found, path: &str) -> Option<&str> {
        self.value(of, path)?.as_str()
    }
}

fn missing(hits: &[Found], known: impl Fn(&Key) -> bool) -> HashMap<usize, Vec<PointId>> {
    let mut missing: HashMap<usize, Vec<PointId>> = HashMap::new();
    for (collection, id) in hits.iter().map(Found::key).filter(|key| !known(key)) {
        missing.entry(collection).or_default().push(id);
    }
    missing
}

// ---- the steps ----

/// Why a step left a hit out.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Why {
    /// It scores less than asked for.
    BelowThreshold,
    /// It says almost the same as a better one.
    Like { id: String, document: String },
    /// There were enough of its kind.
    Cap { field: String, most: usize },
}

/// Ranked hits and the account.
#[derive(Debug, Default)]
pub(super) struct Ranked {
    pub(super) hits: Vec<Found>,
    pub(super) dropped: Vec<(Found, Why)>,
    pub(super) stages: Vec<Stage>,
}

impl Ranked {
    /// Says with the last step, which left hits out, what was not done.
    fn skip(&mut self, what: String) {
        if let Some(stage) = self.stages.last_mut() {
            stage.skipped = said(stage.skipped.take().into_iter().chain([what]).collect());
        }
    }
}

/// What a reranker said before, when the pool was smaller.
#[derive(Default)]
pub(super) struct Reranked {
    scores: HashMap<Key, f32>,
    spent: Duration,
    failed: Option<String>,
}

impl Plan {
    /// Runs the steps over hits that are best first. `wanted` is how many of the result will be used.
    pub(super) fn run(
        &self,
        hits: Vec<Found>,
        wanted: usize,
        threshold: Option<f32>,
        fetcher: &mut Fetcher<'_>,
        reranked: &mut Reranked,
        budget: &Budget,
    ) -> Result<Ranked> {
        let mut at = Ranked {
            hits,
            ..Ranked::default()
        };
        if let Some(decay) = &self.ranking.decay {
            self.decay(decay, &mut at, fetcher)?;
        }
        if let (Some(rerank), Some((reranker, words))) = (&self.ranking.rerank, &self.reranker) {
            run_rerank(rerank, reranker.as_ref(), words, &mut at, fetcher, reranked, budget)?;
        }
        if let Some(threshold) = threshold {
            let enough = |found: &Found| found.hit.score >= threshold;
            let (kept, below): (Vec<_>, Vec<_>) = at.hits.into_iter().partition(enough);
            at.hits = kept;
            at.dropped
                .extend(below.into_iter().map(|found| (found, Why::BelowThreshold)));
        }
        if let Some(near) = &self.ranking.near_duplicates {
            run_near_duplicates(near, &mut at, fetcher, budget)?;
        }
        if !self.ranking.caps.is_empty() {
            run_caps(&self.ranking.caps, &mut at, fetcher)?;
        }
        if let Some(mmr) = &self.ranking.mmr {
            self.mmr(mmr, wanted, &mut at, fetcher, budget)?;
        }
        Ok(at)
    }

    /// How many hits a step was told to look at: a pool of fewer would make the number mean nothing.
    fn looks_at(&self) -> usize {
        let top = self.ranking.rerank.as_ref().and_then(|rerank| rerank.top);
        let candidates = self.ranking.mmr.as_ref().and_then(|mmr| mmr.candidates);
        top.max(candidates).unwrap_or(0)
    }

    fn decay(&self, decay: &Decay, at: &mut Ranked, fetcher: &mut Fetcher<'_>) -> Result<()> {
        let (started, n) = (Instant::now(), at.hits.len());
        fetcher.fetch_payloads(&at.hits)?;
        let mut undated = 0;
        for found in &mut at.hits {
            match fetcher.value(found, &decay.field).and_then(decay::instant_ms) {
                Some(then) => {
                    let age = self.origin_ms.saturating_sub(then);
                    found.hit.score *= decay::factor(age, decay.half_life_ms, decay.weight.unwrap_or(1.0));
                }
                None => undated += 1,
            }
        }
        at.hits.sort_by(|a, b| b.hit.score.total_cmp(&a.hit.score));
        let skipped =
            (undated > 0).then(|| format!("{undated} hits have no time in {:?} and keep their score", decay.field));
        at.stages.push(Stage::new("decay", started, n, n).skipping(skipped));
        Ok(())
    }

    fn mmr(&self, of: &Mmr, wanted: usize, at: &mut Ranked, fetcher: &mut Fetcher<'_>, budget: &Budget) -> Result<()> {
        let (started, n) = (Instant::now(), at.hits.len());
        let candidates = of
            .candidates
            .unwrap_or(DEFAULT_MMR_CANDIDATES)
            .max(wanted)
            .min(MMR_MAX)
            .min(n);
        let rest = at.hits.split_off(candidates);
        fetcher.fetch_vectors(&at.hits)?;
        let vectors: Vec<Option<Embedded<'_>>> = at
            .hits
            .iter()
            .map(|found| {
                let (name, space) = &self.compared[found.collection];
                let vector = fetcher.vectors.get(&found.key())?.get(name)?;
                Some(Embedded { space: *space, vector })
            })
            .collect();
        let without = vectors.iter().filter(|vector| vector.is_none()).count();
        let scores: Vec<f32> = at.hits.iter().map(|found| found.hit.score).collect();
        let order = mmr(
            &scores,
            &vectors,
            of.lambda.unwrap_or(DEFAULT_LAMBDA),
            candidates,
            &|| budget.check(),
        )?;
        let mut hits: Vec<Option<Found>> = std::mem::take(&mut at.hits).into_iter().map(Some).collect();
        at.hits = order.into_iter().filter_map(|i| hits[i].take()).chain(rest).collect();
        let mut skipped = Vec::new();
        if wanted.min(n) > candidates {
            skipped.push(format!(
                "hits beyond the first {candidates} keep their order behind them"
            ));
        }
        if without > 0 {
            skipped.push(format!(
                "{without} hits have no such vector and count as different from all"
            ));
        }
        at.stages.push(Stage::new("mmr", started, n, n).skipping(said(skipped)));
        Ok(())
    }
}

fn said(skipped: Vec<String>) -> Option<String> {
    (!skipped.is_empty()).then(|| skipped.join("; "))
}

/// A reranker that fails or is late leaves the order, never an error of the whole question.
fn run_rerank(
    rerank: &Rerank,
    reranker: &dyn Reranker,
    words: &str,
    at: &mut Ranked,
    fetcher: &mut Fetcher<'_>,
    reranked: &mut Reranked,
    budget: &Budget,
) -> Result<()> {
    let (started, n) = (Instant::now(), at.hits.len());
    let top = rerank.top.unwrap_or(DEFAULT_RERANK_TOP).min(n);
    let budget_ms = rerank.budget_ms.unwrap_or(DEFAULT_RERANK_BUDGET_MS);
    let field = rerank.field.as_deref().unwrap_or(TEXT);
    fetcher.fetch_payloads(&at.hits[..top])?;
    let texts: Vec<(Key, &str)> = at.hits[..top]
        .iter()
        .filter_map(|found| Some((found.key(), fetcher.text(found, field)?)))
        .collect();
    let with_text = texts.len();
    let new: Vec<&(Key, &str)> = texts
        .iter()
        .filter(|(key, _)| !reranked.scores.contains_key(key))
        .collect();
    if !new.is_empty() && reranked.failed.is_none() {
        // A tenth of the request's own time is kept for what follows: a slow reranker must not make the request late.
        let patience = budget.patience();
        let rest = patience.left() * 9 / 10;
        let patience = patience.at_most(
            Duration::from_millis(budget_ms)
                .saturating_sub(reranked.spent)
                .min(rest),
        );
        let asked = Instant::now();
        let plain: Vec<&str> = new.iter().map(|(_, text)| *text).collect();
        match scores(reranker, words, &plain, &patience) {
            Ok(found) => {
                let scored = new
                    .iter()
                    .zip(found.scores)
                    .filter_map(|((key, _), score)| Some((key.clone(), score?)));
                let scored: Vec<(Key, f32)> = scored.collect();
                reranked.scores.extend(scored);
                reranked.failed = found.failed.map(|why| why.to_string());
            }
            Err(why) => reranked.failed = Some(why),
        }
        reranked.spent += asked.elapsed();
        budget.check()?;
    }
    let scored = reorder(&mut at.hits, top, &reranked.scores);
    let failed = reranked.failed.as_ref();
    let failed = failed.map(|why| format!("reranker {:?}: {why}", reranker.name()));
    let mut skipped: Vec<String> = failed.into_iter().collect();
    if with_text < top {
        skipped.push(format!("{} of {top} hits have no text in {field:?}", top - with_text));
    }
    if scored < with_text {
        let unscored = format!("{} of {with_text} hits were not scored", with_text - scored);
        match &reranked.failed {
            None => skipped.push(format!("{unscored} within {budget_ms} ms")),
            // Where nothing was, the failure says it all.
            Some(_) if scored > 0 => skipped.push(unscored),
            Some(_) => {}
        }
    }
    at.stages
        .push(Stage::new("rerank", started, n, n).skipping(said(skipped)));
    Ok(())
}

/// What the reranker says, or why it cannot be used.
fn scores(
    reranker: &dyn Reranker,
    words: &str,
    texts: &[&str],
    patience: &crate::rag::Patience,
) -> std::result::Result<Scores, String> {
    let found = reranker.rerank(words, texts, patience).map_err(|e| e.to_string())?;
    let scores = &found.scores;
    if scores.len() != texts.len() {
        return Err(format!(
            "{} texts were sent and {} scores came back",
            texts.len(),
            scores.len()
        ));
    }
    if let Some(odd) = scores.iter().flatten().find(|score| !(0.0..=1.0).contains(*score)) {
        return Err(format!("a score is 0 to 1, got {odd}"));
    }
    Ok(found)
}

/// Puts those of the first `top` that have a score before the others, best first. Returns how many have one.
fn reorder(hits: &mut Vec<Found>, top: usize, scores: &HashMap<Key, f32>) -> usize {
    let rest = hits.split_off(top);
    let mut scored = Vec::with_capacity(top);
    let mut unscored = Vec::new();
    for (found, rank) in std::mem::take(hits).into_iter().zip(1u32..) {
        match scores.get(&found.key()) {
            Some(score) => scored.push((*score, rank, found)),
            None => unscored.push(found),
        }
    }
    scored.sort_by(|(a, ..), (b, ..)| b.total_cmp(a));
    let n = scored.len();
    let better = scored
        .into_iter()
        .zip(1u32..)
        .map(|((score, before, mut found), rank)| {
            let leg = |leg: &str, raw, rank| LegScore {
                leg: leg.to_owned(),
                raw,
                rank,
            };
            found.hit.legs.push(leg("retrieval", found.hit.score, before));
            found.hit.legs.push(leg("rerank", score, rank));
            found.hit.score = score;
            found
        });
    hits.extend(better.chain(unscored).chain(rest));
    n
}

fn run_near_duplicates(
    near: &NearDuplicates,
    at: &mut Ranked,
    fetcher: &mut Fetcher<'_>,
    budget: &Budget,
) -> Result<()> {
    let (started, n) = (Instant::now(), at.hits.len());
    let compared = n.min(NEAR_DUPLICATES_MAX);
    fetcher.fetch_payloads(&at.hits[..compared])?;
    let texts: Vec<Option<&str>> = at.hits[..compared]
        .iter()
        .map(|found| fetcher.text(found, TEXT))
        .collect();
    let without = texts.iter().filter(|text| text.is_none()).count();
    let threshold = near.threshold.unwrap_or(NEAR_JACCARD);
    let verdicts = near_duplicates(&texts, threshold, &|| budget.check())?;
    let whys = verdicts.into_iter().map(|verdict| match verdict {
        Verdict::Kept => None,
        Verdict::Like(other) => {
            let point = &at.hits[other].hit.point;
            let document = point.document.as_ref().unwrap_or(&point.id);
            Some(Why::Like {
                id: point.id.as_str().to_owned(),
                document: document.as_str().to_owned(),
            })
        }
    });
    let whys: Vec<Option<Why>> = whys.collect();
    leave_out(at, whys);
    let mut skipped = Vec::new();
    if n > compared {
        skipped.push(format!("hits beyond the first {compared} were not compared"));
    }
    if without > 0 {
        skipped.push(format!("{without} hits have no text to compare"));
    }
    let stage = Stage::new("near_duplicates", started, n, at.hits.len());
    at.stages.push(stage.skipping(said(skipped)));
    Ok(())
}

fn run_caps(of: &[Cap], at: &mut Ranked, fetcher: &mut Fetcher<'_>) -> Result<()> {
    let (started, n) = (Instant::now(), at.hits.len());
    fetcher.fetch_payloads(&at.hits)?;
    let values: Vec<Vec<Option<&Value>>> = at
        .hits
        .iter()
        .map(|found| of.iter().map(|cap| fetcher.value(found, &cap.field)).collect())
        .collect();
    let most: Vec<usize> = of.iter().map(|cap| cap.most).collect();
    let verdicts = caps::caps(&values, &most);
    let why = |cap: usize| Why::Cap {
        field: of[cap].field.clone(),
        most: of[cap].most,
    };
    let whys = verdicts.into_iter().map(|cap| cap.map(why)).collect();
    leave_out(at, whys);
    at.stages.push(Stage::new("caps", started, n, at.hits.len()));
    Ok(())
}

/// Takes out the hits that have a reason; those beyond the reasons stay.
fn leave_out(at: &mut Ranked, whys: Vec<Option<Why>>) {
    let hits = std::mem::take(&mut at.hits);
    let whys = whys.into_iter().chain(std::iter::repeat(None));
    for (found, why) in hits.into_iter().zip(whys) {
        match why {
            None => at.hits.push(found),
            Some(why) => at.dropped.push((found, why)),
        }
    }
}

// ---- a ranked query ----

impl Core {
    /// Answers a query with a ranking, as the head of this file says.
    pub(super) fn search_ranked(
        &self,
        moment: &Moment<'_>,
        query: &Query,
        plan: &Plan,
        budget: &Budget,
        method: &'static str,
    ) -> Result<(QueryResult, Vec<Stage>)> {
        let mut fetcher = Fetcher::new(std::slice::from_ref(moment));
        self.search_ranked_with(&mut fetcher, moment, query, plan, budget, method)
    }

    fn search_ranked_with(
        &self,
        fetcher: &mut Fetcher<'_>,
        moment: &Moment<'_>,
        query: &Query,
        plan: &Plan,
        budget: &Budget,
        method: &'static str,
    ) -> Result<(QueryResult, Vec<Stage>)> {
        query.check()?;
        let mut reranked = Reranked::default();
        let mut spent: HashMap<&'static str, f64> = HashMap::new();
        let wanted = query.limit + query.offset;
        let mut pool = first_pool(wanted).max(plan.looks_at());
        let mut smaller: Option<(usize, QueryResult, Ranked)> = None;
        let (mut result, mut ranked) = loop {
            let light = Query {
                limit: pool,
                offset: 0,
                score_threshold: None,
                with: With {
                    payload: false,
                    vectors: false,
                    ..query.with
                },
                ..query.clone()
            };
            let mut result = self.search(moment, &light, method)?;
            let found: Vec<Found> = std::mem::take(&mut result.hits)
                .into_iter()
                .map(|hit| Found { collection: 0, hit })
                .collect();
            let n = found.len();
            // What follows scores less still, and no step makes it more.
            let worthless = query
                .score_threshold
                .is_some_and(|t| found.last().is_some_and(|f| f.hit.score < t));
            let ranked = plan.run(found, wanted, query.score_threshold, fetcher, &mut reranked, budget);
            let ranked = match (ranked, smaller.take()) {
                (Ok(ranked), _) => ranked,
                // What the smaller pool gave is an answer, if a short one: how large the payloads behind it are must not
                // decide whether a question can be asked.
                (Err(error), Some((seen, result, mut ranked))) if error.code == TOO_LARGE => {
                    let most = fetcher.bytes_max;
                    ranked.skip(format!(
                        "hits beyond the first {seen} were not looked at: their payloads and vectors are more than {most} bytes"
                    ));
                    break (result, ranked);
                }
                (Err(error), _) => return Err(error),
            };
            for stage in &ranked.stages {
                *spent.entry(stage.name).or_default() += stage.took_ms;
            }
            if ranked.hits.len() >= wanted || n < pool || pool >= POOL_MAX || worthless {
                break (result, ranked);
            }
            pool = (pool * POOL_GROWTH).min(POOL_MAX);
            smaller = Some((n, result, ranked));
        };
        for stage in &mut ranked.stages {
            stage.took_ms = spent[stage.name];
        }
        let page: Vec<Found> = ranked.hits.into_iter().skip(query.offset).take(query.limit).collect();
        let ids: Vec<PointId> = page.iter().map(|found| found.hit.point.id.clone()).collect();
        let mut points: HashMap<PointId, Point> = HashMap::new();
        if (query.with.payload || query.with.vectors) && !ids.is_empty() {
            let (fetched, bytes) = moment.get(
                &ids,
                With {
                    explain: false,
                    ..query.with
                },
            )?;
            result.bytes = bytes;
            points.extend(fetched.into_iter().map(|point| (point.id.clone(), point)));
        }
        result.hits = page
            .into_iter()
            .map(|found| match points.remove(&found.hit.point.id) {
                Some(point) => Hit { point, ..found.hit },
                None => found.hit,
            })
            .collect();
        Ok((result, ranked.stages))
    }
}

/// Twice what is wanted, rounded up to one of few sizes, so that the next page is cut from the same pool.
fn first_pool(wanted: usize) -> usize {
    let mut pool = POOL_MIN;
    while pool < POOL_MAX && pool < 2 * wanted {
        pool *= 2;
    }
    pool.min(POOL_MAX)
}

#[cfg(test)]
mod tests;
