//! Enrich: a prompt in, the same prompt with cited context inside a token budget out.
//!
//! Condense (if there is a conversation), embed, retrieve (hybrid by default, from one or several collections), rank (if
//! asked for), pack with neighbours, render. What each computes is in `rag`; this file puts them in order and keeps the
//! account: what was found, what was left out and why, what it cost. `retrieve.rs` asks the engine.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use cairn_engine::engine::{DamagedSegment, Moment};
use cairn_engine::filter::Filter;
use cairn_engine::query::Source;
use cairn_engine::schema::Schema;
use cairn_engine::text::analyzer::Analyzer;
use cairn_engine::types::{Payload, PointId, Token};
use cairn_engine::{Error, Result, limits};
use serde_json::Value;

use super::ahead::Ahead;
use super::bounds::{
    CANDIDATES_MAX, CONVERSATION_BYTES_MAX, CONVERSATION_TURNS_MAX, DEFAULT_CANDIDATES, DEFAULT_TOKEN_BUDGET,
    ENRICH_COLLECTIONS_MAX, NEIGHBOURS_MAX, TOKEN_BUDGET_MAX,
};
use super::embed::{TextVector, embed_query, embed_sparse_query};
use super::pools::Budget;
use super::ranking::{Fetcher, Found, Ranking, Reranked, Stage, Why};
use super::retrieve::Labels;
use super::{Call, Core, Service, Work, check_collection};
use crate::rag::condense::{self, Condensed, Turn};
use crate::rag::embed::Input;
use crate::rag::pack::{self, Candidate, DropReason, Dropped, PackRequest, Packed};
use crate::rag::render::{self, PromptFormat};
use crate::rag::template::Template;
use crate::rag::tokens::TokenCounter;
use crate::rag::trust::{Provenance, Trust};
use crate::rag::{retrieval, tokens};

/// A prompt to enrich. What is `None` gets its default here.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Enrich {
    /// The user's words.
    pub prompt: String,
    /// Most tokens of the context.
    pub token_budget: Option<usize>,
    /// Whose tokens.
    pub tokenizer: Option<String>,
    /// What comes out.
    pub format: PromptFormat,
    /// What may be found.
    pub filter: Filter,
    /// Candidates retrieved before packing.
    pub limit: Option<usize>,
    /// Most chunks in the context.
    pub max_chunks: Option<usize>,
    /// Most chunks of one document.
    pub max_per_document: Option<usize>,
    /// Candidates with a lower score are not considered.
    pub score_threshold: Option<f32>,
    /// How candidates are found.
    pub mode: Mode,
    /// A write that must be visible.
    pub after: Option<Token>,
    /// The turns before the prompt, oldest first.
    pub conversation: Vec<Turn>,
    /// Instead of the standard prompt.
    pub template: Option<String>,
    /// Most chunks of one source.
    pub max_per_source: Option<usize>,
    /// Chunks on each side of a chunk that come with it.
    pub neighbours: u32,
    /// Applied to the candidates before packing.
    pub ranking: Ranking,
    /// Say what each stage did.
    pub explain: bool,
    /// Labels whose documents may be put in; empty: unverified and trusted.
    pub trust: Vec<Trust>,
    /// Whether points of damaged segments may be missing.
    pub allow_partial: bool,
}

/// How candidates are found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mode {
    /// Both legs, fused.
    #[default]
    Hybrid,
    /// Nearest vectors only.
    Dense,
    /// Full text only.
    Bm25,
    /// Sparse vectors that record an embedder.
    Sparse,
}

/// An enriched prompt and its account.
#[derive(Debug, Clone, PartialEq)]
pub struct Enriched {
    /// Text or messages.
    pub prompt: render::Enriched,
    /// Context, citations, and what was dropped, by packing or before it.
    pub packed: Packed,
    /// The collections by their place, if the request named several.
    pub collections: Option<Vec<String>>,
    /// What was searched, if it is not the prompt.
    pub query: Option<String>,
    /// What each stage did.
    pub stages: Vec<Stage>,
    /// Tokens of the prompt as given.
    pub tokens_prompt: usize,
    /// The budget that held.
    pub token_budget: usize,
    /// Names this retrieval in logs.
    pub retrieval_id: String,
    /// What the caller should know.
    pub notes: Vec<String>,
    /// Time in the server, queueing included.
    pub took_ms: f64,
    /// What it was made without.
    pub missing: Vec<DamagedSegment>,
}

impl Service {
    /// Enriches a prompt from one or several collections.
    pub async fn enrich(&self, call: Call, collections: Vec<String>, enrich: Enrich) -> Result<Enriched> {
        let work = move |core: &Core, budget: &Budget| core.enrich(&collections, &enrich, budget);
        let (mut enriched, took_ms) = self.run(call, "Documents.Enrich", Work::Read, work).await?;
        enriched.took_ms = took_ms;
        Ok(enriched)
    }
}

/// What the answers of a moment were given without.
pub(super) fn missing(collection: &str, moment: &Moment<'_>) -> Vec<DamagedSegment> {
    let named = |missing| DamagedSegment {
        collection: collection.to_owned(),
        missing,
    };
    moment.missing().into_iter().map(named).collect()
}

/// What was done so far, and what of it is told.
struct Account {
    stages: Vec<Stage>,
    notes: Vec<String>,
}

impl Core {
    fn enrich(&self, names: &[String], enrich: &Enrich, budget: &Budget) -> Result<Enriched> {
        let moments = self.moments(names, enrich, budget)?;
        enrich.check()?;
        let template = enrich.template.as_deref().map(read_template).transpose()?;
        let counter = counter(
            enrich.tokenizer.as_deref(),
            template.as_ref().map_or(1, Template::contexts),
        )?;
        let schemas: Vec<&Schema> = moments.iter().map(Moment::schema).collect();
        let mut account = Account {
            stages: Vec::new(),
            notes: Vec::new(),
        };

        let query = condense(enrich, schemas[0], &mut account);
        let plan = match enrich.ranking.is_empty() {
            true => None,
            false => Some(
                self.plan(&enrich.ranking, &schemas, Some(&query))
                    .map_err(|e| e.at("/ranking"))?,
            ),
        };
        let labels = Labels::new(&enrich.trust);
        let mut fetcher = Fetcher::new(&moments);
        let found = self.found(&moments, enrich, &query, &labels, &mut fetcher, budget, &mut account)?;
        let count = found.len();

        let mut dropped = Vec::new();
        let ranked = match &plan {
            None => found,
            Some(plan) => {
                let mut memory = Reranked::default();
                let threshold = enrich.score_threshold;
                let ranked = plan.run(found, count, threshold, &mut fetcher, &mut memory, budget)?;
                account.stages.extend(ranked.stages);
                dropped = ranked.dropped;
                ranked.hits
            }
        };
        let candidates: Vec<Candidate> = ranked
            .iter()
            .enumerate()
            .filter_map(|(place, found)| {
                candidate(found, fetcher.payload(found)?, if plan.is_some() { place } else { 0 })
            })
            .collect();
        let mut packed = self.pack(
            &moments,
            enrich,
            &labels,
            &candidates,
            counter.as_ref(),
            budget,
            &mut account,
        )?;
        // What a ranking left out may have come in beside another chunk: then it is in the context, and only there.
        let left = dropped.into_iter().map(|(found, why)| left_out(&found, why, &packed));
        let left: Vec<Dropped> = left
            .filter(|out| pack::cited_as(&packed.context, out.collection, &out.id).is_none())
            .collect();
        packed.dropped.extend(left);

        let started = Instant::now();
        let prompt = render::enrich(&enrich.prompt, &packed, enrich.format, template.as_ref());
        let passages = packed.context.len();
        account.stages.push(Stage::new("render", started, passages, passages));
        let retrieval_id = format!("r-{:016x}", rand::random::<u64>());
        tracing::debug!(
            retrieval_id,
            collections = names.join(","),
            found = count,
            context = passages,
            tokens = packed.tokens_context,
            "enriched"
        );
        account.stages.retain(|stage| enrich.explain || stage.skipped.is_some());
        Ok(Enriched {
            prompt,
            tokens_prompt: tokens_of(enrich.tokenizer.as_deref(), &enrich.prompt)?,
            packed,
            collections: (names.len() > 1).then(|| names.to_vec()),
            query: (query != enrich.prompt).then_some(query),
            stages: account.stages,
            token_budget: enrich.token_budget.unwrap_or(DEFAULT_TOKEN_BUDGET),
            retrieval_id,
            notes: account.notes,
            took_ms: 0.0,
            missing: names
                .iter()
                .zip(&moments)
                .flat_map(|(name, moment)| missing(name, moment))
                .collect(),
        })
    }

    /// One moment of each collection, in the order of the request.
    fn moments(&self, names: &[String], enrich: &Enrich, budget: &Budget) -> Result<Vec<Moment<'_>>> {
        let several = names.len() > 1;
        if !(1..=ENRICH_COLLECTIONS_MAX).contains(&names.len()) {
            let message = format!(
                "a request names 1 to {ENRICH_COLLECTIONS_MAX} collections, got {}",
                names.len()
            );
            return Err(Error::invalid("bad_collections", message).at("/collections"));
        }
        if several && enrich.after.is_some() {
            let message = "a token is a write to one collection, so after goes with one collection only";
            return Err(Error::invalid("bad_collections", message).at("/after"));
        }
        let mut seen = HashSet::new();
        let mut moments = Vec::with_capacity(names.len());
        for (i, name) in names.iter().enumerate() {
            let mut moment = || {
                check_collection(name)?;
                if !seen.insert(name) {
                    return Err(Error::invalid(
                        "bad_collections",
                        format!("collection {name:?} is named twice"),
                    ));
                }
                let moment = self.engine.moment(name, enrich.after, budget.patience().clone())?;
                Ok(moment.allow_partial(enrich.allow_partial))
            };
            moments.push(moment().map_err(|mut e| {
                if several {
                    e.pointer = None;
                    return e.at(format!("/collections/{i}"));
                }
                e
            })?);
        }
        Ok(moments)
    }

    /// Hits that have text and whose label is allowed, with their payloads fetched.
    #[expect(clippy::too_many_arguments, reason = "what one step of one request needs")]
    fn found(
        &self,
        moments: &[Moment<'_>],
        enrich: &Enrich,
        query: &str,
        labels: &Labels,
        fetcher: &mut Fetcher<'_>,
        budget: &Budget,
        account: &mut Account,
    ) -> Result<Vec<Found>> {
        let limit = enrich.limit.unwrap_or(DEFAULT_CANDIDATES);
        // Known before the sources are made: each leg of a hybrid must take so many, or those not allowed would fill it.
        let wanted = labels.wanted(moments.iter().map(Moment::schema), limit);
        let started = Instant::now();
        let mut sources = Vec::with_capacity(moments.len());
        for (i, moment) in moments.iter().enumerate() {
            let source = self.candidates_source(moment.schema(), enrich, query, wanted, budget, &mut account.notes);
            sources.push(source.map_err(|mut e| {
                if moments.len() > 1 && e.pointer.as_deref() != Some("/prompt") {
                    e.pointer = Some(format!("/collections/{i}"));
                }
                e
            })?);
        }
        account.notes.dedup();
        let embedded = sources
            .iter()
            .filter(|(source, _)| super::retrieve::has_vector(source))
            .count();
        account
            .stages
            .push(Stage::new("embed", started, sources.len(), embedded));

        let started = Instant::now();
        let mut retrieved = self.retrieve(moments, sources, &enrich.filter, labels, wanted)?;
        budget.check()?;
        fetcher.fetch_payloads(&retrieved.hits)?;
        let before = retrieved.hits.len();
        retrieved
            .hits
            .retain(|found| fetcher.payload(found).is_some_and(|payload| labels.allow(payload)));
        let excluded = retrieved.excluded + (before - retrieved.hits.len()) as u64;
        retrieved.hits.truncate(limit);
        let all = retrieved.hits.len();
        let has_text = |found: &Found| {
            fetcher
                .payload(found)
                .is_some_and(|payload| payload.get("text").is_some_and(Value::is_string))
        };
        retrieved.hits.retain(has_text);
        let without = all - retrieved.hits.len();
        if without > 0 {
            account.notes.push(format!(
                "{without} points found have no text in their payload and were passed over"
            ));
        }
        let stage = Stage::new("retrieve", started, 0, retrieved.hits.len());
        account.stages.push(stage.skipping(labels.said(excluded)));
        Ok(retrieved.hits)
    }

    #[expect(clippy::too_many_arguments, reason = "what one step of one request needs")]
    fn pack(
        &self,
        moments: &[Moment<'_>],
        enrich: &Enrich,
        labels: &Labels,
        candidates: &[Candidate],
        counter: &dyn TokenCounter,
        budget: &Budget,
        account: &mut Account,
    ) -> Result<Packed> {
        let request = PackRequest {
            token_budget: enrich.token_budget.unwrap_or(DEFAULT_TOKEN_BUDGET),
            max_chunks: enrich.max_chunks,
            max_per_document: enrich.max_per_document,
            max_per_source: enrich.max_per_source,
            neighbours: enrich.neighbours,
            score_threshold: enrich.score_threshold,
            seed: rand::random(),
        };
        let started = Instant::now();
        let (mut looked, mut failed) = (Duration::ZERO, None);
        let mut beside = |of: &Candidate| {
            let started = Instant::now();
            let fetched = match failed {
                None => self.beside(moments, enrich, labels, of).and_then(|chunks| {
                    budget.check()?;
                    Ok(chunks)
                }),
                Some(_) => Ok(Vec::new()),
            };
            looked += started.elapsed();
            fetched.unwrap_or_else(|e| {
                failed = Some(e);
                Vec::new()
            })
        };
        let packed = pack::pack(candidates, &request, counter, &mut beside);
        if let Some(error) = failed {
            return Err(error);
        }
        budget.check()?;
        if enrich.neighbours > 0 {
            let left = packed.neighbours_left;
            let stage = Stage {
                name: "neighbours",
                took_ms: looked.as_secs_f64() * 1e3,
                hits_in: packed.neighbours + left,
                hits_out: packed.neighbours,
                skipped: (left > 0)
                    .then(|| format!("{left} chunks beside packed ones did not fit a cap or the token budget")),
            };
            account.stages.push(stage);
        }
        let chunks = packed.context.iter().map(|block| block.chunk_ids.len()).sum();
        let untried = packed
            .dropped
            .iter()
            .filter(|dropped| dropped.reason == DropReason::NotTried)
            .count();
        let mut stage = Stage::new("pack", started, candidates.len(), chunks);
        stage.took_ms -= looked.as_secs_f64() * 1e3;
        account
            .stages
            .push(stage.skipping((untried > 0).then(|| format!("{untried} candidates were not tried"))));
        Ok(packed)
    }

    /// The chunks on both sides of a candidate. They obey the request's filter and labels like everything that is found.
    fn beside(
        &self,
        moments: &[Moment<'_>],
        enrich: &Enrich,
        labels: &Labels,
        of: &Candidate,
    ) -> Result<Vec<Candidate>> {
        let first = of.ordinal.saturating_sub(enrich.neighbours);
        let ids = (first..=of.ordinal.saturating_add(enrich.neighbours)).filter(|n| *n != of.ordinal);
        let ids: Vec<PointId> = ids
            .filter_map(|n| PointId::new(format!("{}#{n}", of.document)).ok())
            .collect();
        let Ok(document) = PointId::new(of.document.as_str()) else {
            return Ok(Vec::new());
        };
        let points = super::retrieve::beside(&moments[of.collection], &enrich.filter, labels, document, ids)?;
        let hits = points.into_iter().map(|mut point| {
            let payload = point.payload.take().unwrap_or_default();
            let hit = cairn_engine::query::Hit {
                point,
                score: 0.0,
                legs: Vec::new(),
            };
            (
                Found {
                    collection: of.collection,
                    hit,
                },
                payload,
            )
        });
        Ok(hits
            .filter(|(_, payload)| labels.allow(payload))
            .filter_map(|(found, payload)| candidate(&found, &payload, usize::MAX))
            .collect())
    }

    /// Where candidates come from; and the name of the leg if there is only one, whose scores the engine reports under a
    /// name of its own.
    fn candidates_source(
        &self,
        schema: &Schema,
        enrich: &Enrich,
        query: &str,
        wanted: usize,
        budget: &Budget,
        notes: &mut Vec<String>,
    ) -> Result<(Source, Option<&'static str>)> {
        let text = query.to_owned();
        let bm25 = |text| {
            check_text_fields(schema)?;
            Ok((
                Source::Text {
                    query: text,
                    fields: retrieval::default_fields(schema),
                },
                Some(retrieval::BM25),
            ))
        };
        if enrich.mode == Mode::Bm25 {
            return bm25(text);
        }
        if enrich.mode == Mode::Sparse {
            return Ok((self.sparse_candidates(schema, &text, budget)?, Some(retrieval::SPARSE)));
        }
        let using = self.enrich_vector(schema)?;
        if enrich.mode == Mode::Dense {
            let vector =
                embed_query(using.embedder.as_ref(), Input::Text(&text), budget).map_err(|e| e.at("/prompt"))?;
            let vector = vector.ok_or_else(|| {
                let why = "the prompt holds nothing that the embedder knows, try mode bm25";
                Error::invalid("empty_text", why).at("/prompt")
            })?;
            let using = Some(using.name);
            return Ok((Source::Nearest { using, vector }, Some(retrieval::DENSE)));
        }
        let dense = self
            .dense_leg(using, &text, &Ahead::default(), budget, notes)
            .map_err(|e| e.at("/prompt"))?;
        if dense.is_none() {
            return bm25(text);
        }
        check_text_fields(schema)?;
        Ok((
            retrieval::hybrid(dense, text, retrieval::default_fields(schema), wanted),
            None,
        ))
    }

    /// The first sparse vector whose embedder this server has, and the prompt's vector in it.
    fn sparse_candidates(&self, schema: &Schema, prompt: &str, budget: &Budget) -> Result<Source> {
        let ours = |name: &&String| {
            let embedder = schema.sparse[*name].embedder.as_ref();
            embedder.is_some_and(|e| self.sparse_embedder(e).is_ok())
        };
        let name = schema.sparse.keys().find(ours).or(schema.sparse.keys().next());
        // With none of ours, this says what is missing.
        let using = self
            .sparse_text_vector(schema, name.map(String::as_str))
            .map_err(|e| Error { pointer: None, ..e }.at("/mode"))?;
        let vector = embed_sparse_query(using.embedder.as_ref(), prompt, budget).map_err(|e| e.at("/prompt"))?;
        let vector = vector.ok_or_else(|| {
            Error::invalid(
                "empty_text",
                "the prompt holds nothing that the embedder knows, try mode bm25",
            )
            .at("/prompt")
        })?;
        Ok(Source::Sparse {
            using: Some(using.name),
            vector,
        })
    }

    /// The vector that prompts are compared with: `dense`, else the first whose embedder this server has.
    fn enrich_vector(&self, schema: &Schema) -> Result<TextVector> {
        let ours = |name: &str| {
            let embedder = schema.vectors.get(name).and_then(|v| v.embedder.as_ref());
            embedder.is_some_and(|e| self.embedder(e).is_ok())
        };
        let name = [retrieval::DENSE]
            .into_iter()
            .chain(schema.vectors.keys().map(String::as_str))
            .find(|name| ours(name))
            .or(schema.vectors.keys().next().map(String::as_str));
        // With none of ours, this says what is missing.
        self.text_vector(schema, name).map_err(|mut e| {
            e.message = format!("{}; or ask with mode bm25", e.message);
            e.pointer = None;
            e.at("/mode")
        })
    }
}

impl Enrich {
    /// Everything about a request that can be refused without a schema.
    fn check(&self) -> Result<()> {
        if self.prompt.trim().is_empty() {
            return Err(Error::invalid("empty_prompt", "a prompt must hold more than white space").at("/prompt"));
        }
        if self.prompt.len() > limits::QUERY_TEXT_BYTES_MAX {
            return Err(Error::invalid(
                "query_too_large",
                format!(
                    "a prompt is at most {} bytes, got {}",
                    limits::QUERY_TEXT_BYTES_MAX,
                    self.prompt.len()
                ),
            )
            .at("/prompt"));
        }
        let bounds = [
            ("token_budget", self.token_budget, TOKEN_BUDGET_MAX, "bad_token_budget"),
            ("limit", self.limit, CANDIDATES_MAX, "bad_limit"),
            ("max_chunks", self.max_chunks, CANDIDATES_MAX, "bad_limit"),
            ("max_per_document", self.max_per_document, CANDIDATES_MAX, "bad_limit"),
            ("max_per_source", self.max_per_source, CANDIDATES_MAX, "bad_limit"),
        ];
        for (name, value, most, code) in bounds {
            if let Some(value) = value
                && !(1..=most).contains(&value)
            {
                return Err(
                    Error::invalid(code, format!("{name} must be 1 to {most}, got {value}")).at(format!("/{name}"))
                );
            }
        }
        if self.neighbours > NEIGHBOURS_MAX {
            let message = format!("neighbours must be 0 to {NEIGHBOURS_MAX}, got {}", self.neighbours);
            return Err(Error::invalid("bad_limit", message).at("/neighbours"));
        }
        self.check_conversation().map_err(|e| e.at("/conversation"))?;
        self.ranking.check().map_err(|e| e.at("/ranking"))?;
        match self.score_threshold {
            Some(t) if !(0.0..=1.0).contains(&t) => Err(Error::invalid(
                "bad_score_threshold",
                format!("score_threshold must be 0 to 1, got {t}"),
            )
            .at("/score_threshold")),
            _ => self.filter.check().map_err(|e| e.at("/filter")),
        }
    }

    fn check_conversation(&self) -> Result<()> {
        let (turns, bytes) = self
            .conversation
            .iter()
            .fold((0, 0), |(n, bytes), turn| (n + 1, bytes + turn.content.len()));
        if turns > CONVERSATION_TURNS_MAX || bytes > CONVERSATION_BYTES_MAX {
            return Err(Error::invalid(
                "bad_conversation",
                format!(
                    "a conversation is at most {CONVERSATION_TURNS_MAX} turns and {CONVERSATION_BYTES_MAX} bytes, got {turns} and \
                     {bytes}: leave the oldest out"
                ),
            ));
        }
        Ok(())
    }
}

fn read_template(text: &str) -> Result<Template> {
    Template::read(text).map_err(|e| Error::invalid("bad_template", e.to_string()).at("/template"))
}

/// Counts a text as often as it will stand in the prompt, so that a budget holds for all of it.
struct Repeated {
    counter: std::sync::Arc<dyn TokenCounter>,
    times: usize,
}

impl TokenCounter for Repeated {
    fn count(&self, text: &str) -> usize {
        self.times * self.counter.count(text)
    }
    fn name(&self) -> &str {
        self.counter.name()
    }
}

fn plain_counter(tokenizer: Option<&str>) -> Result<std::sync::Arc<dyn TokenCounter>> {
    tokens::counter(tokenizer.unwrap_or(tokens::O200K_BASE))
        .map_err(|e| Error::invalid("unknown_tokenizer", e.to_string()).at("/tokenizer"))
}

fn counter(tokenizer: Option<&str>, times: usize) -> Result<Box<dyn TokenCounter>> {
    let counter = plain_counter(tokenizer)?;
    Ok(Box::new(Repeated { counter, times }))
}

fn tokens_of(tokenizer: Option<&str>, text: &str) -> Result<usize> {
    Ok(plain_counter(tokenizer)?.count(text))
}

/// What to search for. Which words say something is asked of the analyzer of the text that is searched.
fn condense(enrich: &Enrich, schema: &Schema, account: &mut Account) -> String {
    if enrich.conversation.is_empty() {
        return enrich.prompt.clone();
    }
    let started = Instant::now();
    let fields: Vec<_> = schema.text_fields().collect();
    let spec = fields.iter().find(|(path, _)| *path == "text").or(fields.first());
    let spec = spec.map(|(_, spec)| (*spec).clone()).unwrap_or_default();
    let analyzer = Analyzer::shared(&spec).ok();
    let is_content = |word: &str| {
        let mut kept = analyzer.is_none();
        if let Some(analyzer) = analyzer {
            analyzer.analyze(word, &mut |_| kept = true);
        }
        kept
    };
    let Condensed { mut query, turns } =
        condense::condense(&enrich.prompt, &enrich.conversation, &spec.language, &is_content);
    let mut skipped = None;
    if query.len() > limits::QUERY_TEXT_BYTES_MAX {
        query.clone_from(&enrich.prompt);
        skipped = Some("the prompt is too long for more words".to_owned());
    }
    let stage = Stage::new("condense", started, enrich.conversation.len(), turns);
    account.stages.push(stage.skipping(skipped));
    query
}

/// What a ranking left out, as packing would say it.
fn left_out(found: &Found, why: Why, packed: &Packed) -> Dropped {
    let point = &found.hit.point;
    let reason = match why {
        Why::BelowThreshold => DropReason::BelowThreshold,
        Why::Like { id, document } => DropReason::NearDuplicate {
            n: pack::cited_as(&packed.context, found.collection, &id),
            id,
            document,
        },
        Why::Cap { field, most } => DropReason::FieldCap { field, most },
    };
    Dropped {
        id: point.id.as_str().to_owned(),
        collection: found.collection,
        document: point.document.as_ref().unwrap_or(&point.id).as_str().to_owned(),
        reason,
    }
}

/// BM25 needs a field to search.
pub(super) fn check_text_fields(schema: &Schema) -> Result<()> {
    if schema.text_fields().next().is_some() {
        return Ok(());
    }
    Err(Error::invalid(
        "no_text_field",
        "the collection declares no text field, so there is nothing to search words in: make it with a field of type text",
    ))
}

/// What packing needs of a hit; none if its payload holds no text. Points that are nobody's chunk may be found as well:
/// such a point is its own document.
fn candidate(found: &Found, payload: &Payload, place: usize) -> Option<Candidate> {
    let Some(Value::String(text)) = payload.get("text") else {
        return None;
    };
    let point = &found.hit.point;
    let heading = match payload.get("heading") {
        Some(Value::Array(parts)) => parts.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    };
    let ordinal = payload.get("chunk").and_then(Value::as_u64);
    Some(Candidate {
        id: point.id.as_str().to_owned(),
        collection: found.collection,
        document: point.document.as_ref().unwrap_or(&point.id).as_str().to_owned(),
        title: string(payload, "title"),
        source: string(payload, "source"),
        ordinal: ordinal.and_then(|n| u32::try_from(n).ok()).unwrap_or(0),
        heading,
        span: span(payload).unwrap_or((0, text.len())),
        text: text.clone(),
        score: found.hit.score,
        legs: found.hit.legs.iter().map(|leg| (leg.leg.clone(), leg.raw)).collect(),
        place,
        trust: Trust::of(payload),
        provenance: Provenance::of(payload),
    })
}

fn string(payload: &Payload, key: &str) -> Option<String> {
    match payload.get(key) {
        Some(Value::String(text)) if !text.is_empty() => Some(text.clone()),
        _ => None,
    }
}

fn span(payload: &Payload) -> Option<(usize, usize)> {
    let ends = payload.get("span")?.as_array()?;
    let end = |i: usize| ends.get(i)?.as_u64().and_then(|n| usize::try_from(n).ok());
    (ends.len() == 2).then_some((end(0)?, end(1)?))
}

#[cfg(test)]
mod tests {
    use cairn_engine::query::{Hit, LegScore};
    use cairn_engine::types::Point;
    use serde_json::json;

    use super::*;

    fn found(payload: &Value) -> (Found, Payload) {
        let point = Point {
            id: PointId::new("d#1").unwrap(),
            vectors: None,
            sparse: None,
            payload: None,
            document: Some(PointId::new("d").unwrap()),
            version: Token::default(),
        };
        let leg = LegScore {
            leg: "dense".into(),
            raw: 0.4,
            rank: 1,
        };
        let hit = Hit {
            point,
            score: 0.5,
            legs: vec![leg],
        };
        (Found { collection: 0, hit }, payload.as_object().cloned().unwrap())
    }

    #[test]
    fn a_chunk_becomes_a_candidate_with_its_citation() {
        let (hit, payload) = found(&json!({
            "text": "t", "title": "T", "heading": ["A", "B"], "source": "s", "chunk": 1, "span": [7, 8],
            "trust": "trusted", "provenance": {"author": "me"}
        }));
        let c = candidate(&hit, &payload, 3).unwrap();
        assert_eq!(
            (c.document.as_str(), c.ordinal, c.span, c.text.as_str(), c.place),
            ("d", 1, (7, 8), "t", 3)
        );
        assert_eq!(
            (c.title.as_deref(), c.source.as_deref(), c.heading.len()),
            (Some("T"), Some("s"), 2)
        );
        assert_eq!((c.trust, c.provenance.unwrap().author.as_str()), (Trust::Trusted, "me"));
        assert_eq!(c.legs, [("dense".to_owned(), 0.4)]);
    }

    #[test]
    fn a_point_without_text_is_no_candidate_and_odd_payloads_do_no_harm() {
        let (hit, payload) = found(&json!({"title": "T"}));
        assert_eq!(candidate(&hit, &payload, 0), None);
        let (hit, payload) =
            found(&json!({"text": "abc", "span": [1], "chunk": -3, "heading": "H", "title": 7, "trust": 1}));
        let odd = candidate(&hit, &payload, 0).unwrap();
        assert_eq!(
            (odd.span, odd.ordinal, odd.heading.len(), odd.title, odd.trust),
            ((0, 3), 0, 0, None, Trust::Unverified)
        );
    }

    #[test]
    fn bounds_are_checked_with_their_names() {
        let base = Enrich {
            prompt: "p".into(),
            ..Enrich::default()
        };
        assert!(base.check().is_ok());
        let turn = |content: &str| Turn {
            by: condense::Speaker::User,
            content: content.into(),
        };
        type Change = fn(&mut Enrich);
        let cases: [(Change, &str, &str); 6] = [
            (|e| e.prompt = " ".into(), "empty_prompt", "/prompt"),
            (|e| e.token_budget = Some(0), "bad_token_budget", "/token_budget"),
            (|e| e.limit = Some(CANDIDATES_MAX + 1), "bad_limit", "/limit"),
            (|e| e.max_per_source = Some(0), "bad_limit", "/max_per_source"),
            (|e| e.neighbours = NEIGHBOURS_MAX + 1, "bad_limit", "/neighbours"),
            (
                |e| e.score_threshold = Some(f32::NAN),
                "bad_score_threshold",
                "/score_threshold",
            ),
        ];
        for (change, code, pointer) in cases {
            let mut enrich = base.clone();
            change(&mut enrich);
            let error = enrich.check().unwrap_err();
            assert_eq!((error.code, error.pointer.as_deref()), (code, Some(pointer)));
        }
        for conversation in [
            vec![turn("a"); CONVERSATION_TURNS_MAX + 1],
            vec![turn(&"a".repeat(CONVERSATION_BYTES_MAX + 1))],
        ] {
            let enrich = Enrich {
                conversation,
                ..base.clone()
            };
            assert_eq!(enrich.check().unwrap_err().code, "bad_conversation");
        }
    }

    #[test]
    fn a_context_that_stands_twice_is_counted_twice() {
        let (once, twice) = (counter(None, 1).unwrap(), counter(None, 2).unwrap());
        assert_eq!(2 * once.count("a few words"), twice.count("a few words"));
        assert_eq!(tokens_of(None, "a few words").unwrap(), once.count("a few words"));
    }
}
