//! Queries: a request as adapters give it becomes an engine query. What is to be embedded is embedded here, with the
//! collection's own embedder, and the default hybrid is spelled out.
//!
//! A hybrid whose text has no embedding is answered by BM25 alone, and the answer's notes say so.
//! A plain `nearest` text without an embedding is an error: there is nothing to answer from.

use std::time::Instant;

use cairn_engine::engine::{DamagedSegment, Moment};
use cairn_engine::filter::Filter;
use cairn_engine::query::{Fuse, Input, Params, Query, QueryResult, Source, TextField, With};
use cairn_engine::schema::{EmbedderFingerprint, Schema};
use cairn_engine::types::{SparseVector, Token};
use cairn_engine::{Error, Result, limits};

use super::ahead::Ahead;
use super::bounds::{BATCH_HITS_MAX, DEFAULT_LIMIT};
use super::embed::{TextVector, not_supported, same_maker};
use super::enrich::check_text_fields;
use super::inputs::EmbedInput;
use super::pools::Budget;
use super::ranking::{Plan, Ranking, Stage};
use super::{Call, Core, Service, Work, check_count};
use crate::rag::retrieval;
use crate::telemetry;

/// What prefers an embedding over nothing: said in notes.
pub(super) const NO_EMBEDDING: &str = "the text holds nothing that the embedder knows, only bm25 was used";

/// A query as callers say it. What is `None` gets its default here, so that adapters cannot differ.
#[derive(Debug, Clone, Default)]
pub struct Ask {
    /// Where hits come from.
    pub source: AskSource,
    /// Which points may be answered, in every leg.
    pub filter: Filter,
    /// Hits wanted; [`DEFAULT_LIMIT`] if not said.
    pub limit: Option<usize>,
    /// Hits skipped.
    pub offset: usize,
    /// Hits whose final score is lower are dropped.
    pub score_threshold: Option<f32>,
    /// What hits carry.
    pub with: With,
    /// Expert settings.
    pub params: Params,
    /// A write that must be visible.
    pub after: Option<Token>,
    /// What is done with the hits after they were found.
    pub ranking: Ranking,
    /// Whether points of damaged segments may be missing.
    pub allow_partial: bool,
}

/// Where hits come from, before text has become vectors.
#[derive(Debug, Clone, PartialEq)]
pub enum AskSource {
    /// Nearest vectors.
    Nearest {
        /// Vector name; may be omitted if the collection has exactly one.
        using: Option<String>,
        /// To what.
        to: NearestTo,
        /// The model whose vectors the caller means; the recorded one, if nothing is said.
        embedder: Option<EmbedderFingerprint>,
    },
    /// Largest inner products with a sparse vector.
    Sparse {
        /// Sparse vector name; may be omitted if the collection has exactly one.
        using: Option<String>,
        /// With what.
        to: SparseTo,
        /// The model whose vectors the caller means; the recorded one, if nothing is said.
        embedder: Option<EmbedderFingerprint>,
    },
    /// BM25.
    Text {
        /// The words.
        query: String,
        /// Empty means every text field.
        fields: Vec<TextField>,
    },
    /// The default hybrid.
    Hybrid {
        /// The words of both legs.
        text: String,
        /// Vector name; may be omitted if the collection has exactly one.
        using: Option<String>,
        /// Empty means the default fields.
        fields: Vec<TextField>,
    },
    /// Several legs in one list.
    Prefetch {
        /// The legs.
        legs: Vec<AskLeg>,
        /// Default: reciprocal ranks with equal weights.
        fuse: Option<Fuse>,
    },
}

/// What to be near to.
#[derive(Debug, Clone, PartialEq)]
pub enum NearestTo {
    /// A vector.
    Vector(Vec<f32>),
    /// A text, an image or a sound, embedded with the model that the vector records.
    Embed(EmbedInput),
}

/// What to be multiplied with.
#[derive(Debug, Clone, PartialEq)]
pub enum SparseTo {
    /// A vector.
    Vector(SparseVector),
    /// A text, embedded with the model that the sparse vector records.
    Text(String),
}

/// One leg of a prefetch.
#[derive(Debug, Clone, PartialEq)]
pub struct AskLeg {
    /// Name under which its scores are reported.
    pub name: Option<String>,
    /// The leg.
    pub source: AskSource,
    /// Restricts this leg further.
    pub filter: Filter,
    /// Candidates; `retrieval::DEFAULT_LEG_LIMIT` if not said.
    pub limit: Option<usize>,
}

/// A query's answer.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    /// What the engine found.
    pub result: QueryResult,
    /// What the caller should know.
    pub notes: Vec<String>,
    /// Steps of the ranking, if one was asked for.
    pub stages: Vec<Stage>,
    /// Time in the server, queueing included.
    pub took_ms: f64,
    /// What it was given without.
    pub missing: Vec<DamagedSegment>,
}

impl Default for AskSource {
    fn default() -> Self {
        Self::Prefetch {
            legs: Vec::new(),
            fuse: None,
        }
    }
}

impl Service {
    /// Answers one query.
    pub async fn query(&self, call: Call, collection: String, ask: Ask) -> Result<Answer> {
        let work = move |core: &Core, budget: &Budget| {
            let schema = core.schema(&collection)?;
            let question = core.resolve(&schema, ask, &Ahead::default(), budget)?;
            core.answer(&collection, question, budget, "Query.Run")
        };
        let (mut answer, took_ms) = self.run(call, "Query.Run", Work::Read, work).await?;
        answer.took_ms = took_ms;
        Ok(answer)
    }

    /// Answers queries on one collection, in order, all of one moment. All are checked before the first is run, and searched for
    /// together where that saves work.
    pub async fn query_batch(&self, call: Call, collection: String, asks: Vec<Ask>) -> Result<(Vec<Answer>, f64)> {
        let work = move |core: &Core, budget: &Budget| {
            let schema = core.schema(&collection)?;
            check_count("queries", asks.len(), limits::QUERY_BATCH_MAX, "/queries")?;
            check_hits(&asks)?;
            let ahead = core.embed_ahead(&schema, &asks, budget)?;
            let mut questions = Vec::with_capacity(asks.len());
            for (i, ask) in asks.into_iter().enumerate() {
                budget.check()?;
                let question = core.resolve(&schema, ask, &ahead, budget);
                questions.push(question.map_err(|e| e.at(format!("/queries/{i}")))?);
            }
            let moments = core.moments_of_batch(&collection, &questions, budget)?;
            let mut answers = Vec::with_capacity(questions.len());
            let mut bytes = 0;
            for (i, question) in questions.into_iter().enumerate() {
                budget.check()?;
                let moment = &moments[usize::from(question.allow_partial)];
                let answer = core.answer_of(moment, &collection, question, budget, "Query.RunBatch");
                let answer = answer.and_then(|answer| {
                    bytes += answer.result.bytes;
                    check_batch_bytes(bytes)?;
                    Ok(answer)
                });
                answers.push(answer.map_err(|e| e.at(format!("/queries/{i}")))?);
            }
            Ok(answers)
        };
        self.run(call, "Query.RunBatch", Work::Read, work).await
    }
}

/// A batch is answered whole, from memory: what all its queries ask for is bounded, not only what each does.
fn check_hits(asks: &[Ask]) -> Result<()> {
    let wanted = |ask: &Ask| ask.limit.unwrap_or(DEFAULT_LIMIT);
    let hits = asks.iter().map(wanted).fold(0, usize::saturating_add);
    if hits <= BATCH_HITS_MAX {
        return Ok(());
    }
    Err(Error::invalid(
        "bad_limit",
        format!("the limits of a batch add up to at most {BATCH_HITS_MAX} hits, got {hits}"),
    )
    .at("/queries"))
}

/// ... and so are the payloads and vectors of all its hits: together they may take what one query's may.
fn check_batch_bytes(bytes: usize) -> Result<()> {
    if bytes <= limits::ANSWER_BYTES_MAX {
        return Ok(());
    }
    Err(Error::invalid(
        "answer_too_large",
        format!(
            "a batch's answers hold at most {} bytes of payloads and vectors: ask for fewer hits or leave payloads out",
            limits::ANSWER_BYTES_MAX
        ),
    ))
}

/// A query with its text embedded and its ranking planned.
pub(super) struct Question {
    pub(super) query: Query,
    plan: Option<Plan>,
    notes: Vec<String>,
    allow_partial: bool,
}

impl Core {
    /// Runs a query and records how long retrieval itself took.
    pub(super) fn search(&self, moment: &Moment<'_>, query: &Query, method: &'static str) -> Result<QueryResult> {
        let started = Instant::now();
        let result = moment.query(query)?;
        telemetry::searched(method, started);
        Ok(result)
    }

    /// All that is answered to a question is of one moment.
    fn answer(&self, collection: &str, question: Question, budget: &Budget, method: &'static str) -> Result<Answer> {
        let Query { after, patience, .. } = &question.query;
        let moment = self.engine.moment(collection, *after, patience.clone())?;
        let moment = moment.allow_partial(question.allow_partial);
        self.answer_of(&moment, collection, question, budget, method)
    }

    /// The moment of a batch, for its questions that want whole answers and for those that take partial ones.
    fn moments_of_batch(&self, collection: &str, questions: &[Question], budget: &Budget) -> Result<[Moment<'_>; 2]> {
        for (i, question) in questions.iter().enumerate() {
            let seen = self.engine.check_after(question.query.after);
            seen.map_err(|e| e.at(format!("/queries/{i}")))?;
        }
        let whole = self.engine.moment(collection, None, budget.patience().clone())?;
        let partial = whole.again().allow_partial(true);
        // A ranking asks for other hits than its query says.
        let announced = |allow_partial: bool| -> Vec<&Query> {
            let plain = questions
                .iter()
                .filter(|q| q.plan.is_none() && q.allow_partial == allow_partial);
            plain.map(|question| &question.query).collect()
        };
        Ok([whole.announce(&announced(false)), partial.announce(&announced(true))])
    }

    fn answer_of(
        &self,
        moment: &Moment<'_>,
        collection: &str,
        question: Question,
        budget: &Budget,
        method: &'static str,
    ) -> Result<Answer> {
        let Question {
            query,
            plan,
            notes,
            allow_partial: _,
        } = question;
        let (result, stages) = match &plan {
            None => (self.search(moment, &query, method)?, Vec::new()),
            Some(plan) => self.search_ranked(moment, &query, plan, budget, method)?,
        };
        Ok(Answer {
            result,
            notes,
            stages,
            took_ms: 0.0,
            missing: super::enrich::missing(collection, moment),
        })
    }

    pub(super) fn resolve(&self, schema: &Schema, ask: Ask, ahead: &Ahead, budget: &Budget) -> Result<Question> {
        let mut notes = Vec::new();
        let plan = match ask.ranking.is_empty() {
            true => None,
            false => {
                let plan = self.plan(&ask.ranking, &[schema], words_of(&ask.source));
                Some(plan.map_err(|e| e.at("/ranking"))?)
            }
        };
        let limit = ask.limit.unwrap_or(DEFAULT_LIMIT);
        let wanted = limit.saturating_add(ask.offset).min(limits::TOP_K_MAX);
        let query = Query {
            source: self.resolve_source(schema, ask.source, wanted, 1, ahead, budget, &mut notes)?,
            filter: ask.filter,
            limit,
            offset: ask.offset,
            score_threshold: ask.score_threshold,
            with: ask.with,
            params: ask.params,
            after: ask.after,
            patience: budget.patience().clone(),
        };
        query.check()?;
        Ok(Question {
            query,
            plan,
            notes,
            allow_partial: ask.allow_partial,
        })
    }

    #[expect(clippy::too_many_arguments, reason = "what one step of one request needs")]
    fn resolve_source(
        &self,
        schema: &Schema,
        source: AskSource,
        wanted: usize,
        depth: usize,
        ahead: &Ahead,
        budget: &Budget,
        notes: &mut Vec<String>,
    ) -> Result<Source> {
        // The engine checks the whole tree; this keeps our own walk bounded before that.
        if depth > limits::QUERY_DEPTH_MAX {
            return Err(Error::invalid(
                "query_too_large",
                format!("a query may nest {} levels", limits::QUERY_DEPTH_MAX),
            ));
        }
        match source {
            AskSource::Nearest { using, to, embedder } => {
                let recorded = schema
                    .vectors
                    .iter()
                    .map(|(name, spec)| (name.as_str(), &spec.embedder));
                check_embedder(embedder, using.as_deref(), recorded).map_err(|e| e.at("/nearest"))?;
                match to {
                    NearestTo::Vector(vector) => Ok(Source::Nearest { using, vector }),
                    NearestTo::Embed(input) => self
                        .resolve_nearest(schema, using.as_deref(), &input, ahead, budget)
                        .map_err(|e| e.at("/nearest")),
                }
            }
            AskSource::Sparse { using, to, embedder } => {
                let recorded = schema.sparse.iter().map(|(name, spec)| (name.as_str(), &spec.embedder));
                check_embedder(embedder, using.as_deref(), recorded).map_err(|e| e.at("/sparse"))?;
                self.resolve_sparse(schema, using, to, ahead, budget)
            }
            AskSource::Text { query, fields } => {
                check_text_fields(schema)?;
                check_text(&query).map_err(|e| e.at("/text/query"))?;
                Ok(Source::Text { query, fields })
            }
            AskSource::Hybrid { text, using, fields } => {
                check_text_fields(schema)?;
                check_text(&text).map_err(|e| e.at("/hybrid/text"))?;
                let using = self
                    .text_vector(schema, using.as_deref())
                    .map_err(|e| e.at("/hybrid"))?;
                let dense = self
                    .dense_leg(using, &text, ahead, budget, notes)
                    .map_err(|e| e.at("/hybrid/text"))?;
                let fields = if fields.is_empty() {
                    retrieval::default_fields(schema)
                } else {
                    fields
                };
                Ok(retrieval::hybrid(dense, text, fields, wanted))
            }
            AskSource::Prefetch { legs, fuse } => {
                let mut inputs = Vec::with_capacity(legs.len().min(limits::QUERY_LEGS_MAX));
                for (i, leg) in legs.into_iter().enumerate() {
                    let limit = leg.limit.unwrap_or(retrieval::DEFAULT_LEG_LIMIT.max(wanted));
                    let source = self
                        .resolve_source(
                            schema,
                            leg.source,
                            limit.min(limits::TOP_K_MAX),
                            depth + 1,
                            ahead,
                            budget,
                            notes,
                        )
                        .map_err(|e| e.at(format!("/prefetch/{i}")))?;
                    inputs.push(Input {
                        name: leg.name,
                        source,
                        filter: leg.filter,
                        limit,
                    });
                }
                let method = fuse.unwrap_or(Fuse::Rrf {
                    k: retrieval::DEFAULT_RRF_K,
                    weights: Vec::new(),
                });
                Ok(Source::Fusion { inputs, method })
            }
        }
    }

    fn resolve_nearest(
        &self,
        schema: &Schema,
        using: Option<&str>,
        input: &EmbedInput,
        ahead: &Ahead,
        budget: &Budget,
    ) -> Result<Source> {
        let TextVector { name, embedder } = self.text_vector(schema, using)?;
        let embed = || {
            match input {
                EmbedInput::Text(text) => check_text(text)?,
                EmbedInput::Image(_) | EmbedInput::Audio(_) => input.check()?,
            }
            let medium = input.as_input().medium();
            if !embedder.takes(medium) {
                return Err(not_supported(medium, embedder.fingerprint()));
            }
            let vector = ahead.query(embedder.as_ref(), input.as_input(), budget)?;
            vector.ok_or_else(|| Error::invalid("empty_text", "the text holds nothing that the embedder knows"))
        };
        let at = match input {
            EmbedInput::Text(_) => "/text",
            EmbedInput::Image(_) => "/image",
            EmbedInput::Audio(_) => "/audio",
        };
        Ok(Source::Nearest {
            vector: embed().map_err(|e| e.at(at))?,
            using: Some(name),
        })
    }

    fn resolve_sparse(
        &self,
        schema: &Schema,
        using: Option<String>,
        to: SparseTo,
        ahead: &Ahead,
        budget: &Budget,
    ) -> Result<Source> {
        let text = match to {
            SparseTo::Vector(vector) => return Ok(Source::Sparse { using, vector }),
            SparseTo::Text(text) => text,
        };
        let at = "/sparse/text";
        let using = self
            .sparse_text_vector(schema, using.as_deref())
            .map_err(|e| e.at("/sparse"))?;
        check_text(&text).map_err(|e| e.at(at))?;
        let vector = ahead
            .sparse_query(using.embedder.as_ref(), &text, budget)
            .map_err(|e| e.at(at))?;
        let vector = vector
            .ok_or_else(|| Error::invalid("empty_text", "the text holds nothing that the embedder knows").at(at))?;
        Ok(Source::Sparse {
            using: Some(using.name),
            vector,
        })
    }

    /// The vector that a question is embedded for: it must name an embedder, and one that this server has.
    pub(super) fn text_vector(&self, schema: &Schema, using: Option<&str>) -> Result<TextVector> {
        let names = || schema.vectors.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        let (name, spec) = match using {
            Some(name) => schema.vectors.get_key_value(name).ok_or_else(|| {
                Error::invalid(
                    "vector_not_found",
                    format!("the collection has no vector {name:?}, only: {}", names()),
                )
                .at("/using")
            })?,
            None if schema.vectors.len() == 1 => schema.vectors.iter().next().expect("there is exactly one"),
            None => {
                return Err(Error::invalid(
                    "vector_not_named",
                    format!("using must name one of the collection's vectors: {}", names()),
                )
                .at("/using"));
            }
        };
        let Some(embedder) = &spec.embedder else {
            return Err(Error::invalid(
                "no_embedder",
                format!(
                    "vector {name:?} names no embedder, so nothing can be embedded to be compared with it: give a vector, or \
                     make the collection with an embedder; available: {}",
                    self.models.embedder_names().join(", ")
                ),
            ));
        };
        Ok(TextVector {
            name: name.clone(),
            embedder: self.embedder(embedder)?,
        })
    }
}

/// Compares the model that a caller means with the one that the collection records for the named vector, or for its only one.
/// A name that no vector has is refused by what comes after.
fn check_embedder<'a>(
    stated: Option<EmbedderFingerprint>,
    using: Option<&str>,
    mut recorded: impl ExactSizeIterator<Item = (&'a str, &'a Option<EmbedderFingerprint>)>,
) -> Result<()> {
    let Some(stated) = stated else { return Ok(()) };
    let alone = recorded.len() == 1;
    match recorded.find(|(name, _)| using.map_or(alone, |using| using == *name)) {
        Some((name, recorded)) => same_maker(name, recorded.as_ref(), &stated).map_err(|e| e.at("/embedder")),
        None => Ok(()),
    }
}

/// The first words that a source compares with, which a reranker then reads together with the hits. Expects any depth; looks
/// no deeper than a query may nest.
fn words_of(source: &AskSource) -> Option<&str> {
    fn first(source: &AskSource, depth: usize) -> Option<&str> {
        let text: &str = match source {
            AskSource::Nearest {
                to: NearestTo::Embed(EmbedInput::Text(text)),
                ..
            } => text,
            AskSource::Sparse {
                to: SparseTo::Text(text),
                ..
            } => text,
            AskSource::Text { query, .. } => query,
            AskSource::Hybrid { text, .. } => text,
            AskSource::Prefetch { legs, .. } if depth <= limits::QUERY_DEPTH_MAX => {
                return legs.iter().find_map(|leg| first(&leg.source, depth + 1));
            }
            AskSource::Nearest { .. } | AskSource::Sparse { .. } | AskSource::Prefetch { .. } => return None,
        };
        (!text.trim().is_empty()).then_some(text)
    }
    first(source, 1)
}

/// `title^2` is the field `title` with weight 2.
pub fn parse_field(text: &str) -> Result<TextField> {
    let (path, weight) = match text.rsplit_once('^') {
        None => (text, 1.0),
        Some((path, weight)) => (
            path,
            weight.parse().map_err(|_| {
                Error::invalid(
                    "bad_weight",
                    format!("a field is a dotted path, or path^weight with a number, got {text:?}"),
                )
            })?,
        ),
    };
    Ok(TextField {
        path: path.to_owned(),
        weight,
    })
}

fn check_text(text: &str) -> Result<()> {
    let most = limits::QUERY_TEXT_BYTES_MAX;
    if text.len() > most {
        return Err(Error::invalid(
            "query_too_large",
            format!("a text is at most {most} bytes, got {}", text.len()),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_may_ask_for_so_many_hits() {
        let batch = |limits: &[Option<usize>]| {
            let asks = limits.iter().map(|&limit| Ask {
                limit,
                ..Ask::default()
            });
            check_hits(&asks.collect::<Vec<_>>()).map_err(|e| e.code)
        };
        assert_eq!(batch(&[Some(10_000); 10]), Ok(()));
        assert_eq!(
            batch(&[[Some(10_000); 10].as_slice(), &[None]].concat()),
            Err("bad_limit")
        );
        assert_eq!(batch(&[Some(usize::MAX), Some(1)]), Err("bad_limit"));
    }

    #[test]
    fn the_answers_of_a_batch_are_bounded_together() {
        assert!(check_batch_bytes(limits::ANSWER_BYTES_MAX).is_ok());
        assert_eq!(
            check_batch_bytes(limits::ANSWER_BYTES_MAX + 1).unwrap_err().code,
            "answer_too_large"
        );
    }

    #[test]
    fn a_field_may_carry_its_weight() {
        let field = |path: &str, weight| TextField {
            path: path.into(),
            weight,
        };
        assert_eq!(parse_field("title^2").unwrap(), field("title", 2.0));
        assert_eq!(parse_field("a.b").unwrap(), field("a.b", 1.0));
        assert_eq!(parse_field("a^b^0.5").unwrap(), field("a^b", 0.5));
        assert_eq!(parse_field("title^two").unwrap_err().code, "bad_weight");
    }
}
