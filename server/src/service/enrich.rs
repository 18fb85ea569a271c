//! Enrich: a prompt in, the same prompt with cited context inside a token budget out.
//!
//! Retrieve (hybrid by default), pack, render. Packing and rendering are pure functions of `rag`; this file asks the
//! engine and keeps the account: what was found, what was left out and why, what it cost.

use cairn_engine::filter::Filter;
use cairn_engine::query::{Hit, Params, Query, Source, With};
use cairn_engine::schema::Schema;
use cairn_engine::types::{Payload, Token};
use cairn_engine::{Error, Result, limits};
use serde_json::Value;

use super::bounds::{CANDIDATES_MAX, DEFAULT_CANDIDATES, DEFAULT_TOKEN_BUDGET, TOKEN_BUDGET_MAX};
use super::embed::{TextVector, embed_query, embed_sparse_query};
use super::pools::Budget;
use super::{Call, Core, Service, Work};
use crate::rag::pack::{self, Candidate, PackRequest, Packed};
use crate::rag::render::{self, PromptFormat};
use crate::rag::{retrieval, tokens};

/// A prompt to enrich. What is `None` gets its default here.
#[derive(Debug, Clone, PartialEq)]
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
    /// Context, citations, and what was dropped.
    pub packed: Packed,
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
}

impl Service {
    /// Enriches a prompt from one collection.
    pub async fn enrich(&self, call: Call, collection: String, enrich: Enrich) -> Result<Enriched> {
        let work = move |core: &Core, budget: &Budget| core.enrich(&collection, enrich, budget);
        let (mut enriched, took_ms) = self.run(call, "Documents.Enrich", Work::Read, work).await?;
        enriched.took_ms = took_ms;
        Ok(enriched)
    }
}

impl Core {
    fn enrich(&self, collection: &str, enrich: Enrich, budget: &Budget) -> Result<Enriched> {
        let schema = self.schema(collection)?;
        enrich.check()?;
        let tokenizer = enrich.tokenizer.as_deref().unwrap_or(tokens::O200K_BASE);
        let counter = tokens::counter(tokenizer)
            .map_err(|e| Error::invalid("unknown_tokenizer", e.to_string()).at("/tokenizer"))?;
        let token_budget = enrich.token_budget.unwrap_or(DEFAULT_TOKEN_BUDGET);
        let limit = enrich.limit.unwrap_or(DEFAULT_CANDIDATES);

        let mut notes = Vec::new();
        let (source, only_leg) = self.candidates_source(&schema, &enrich, limit, budget, &mut notes)?;
        let query = Query {
            source,
            filter: enrich.filter,
            limit,
            offset: 0,
            // Packing applies the threshold, so that what it drops is accounted for.
            score_threshold: None,
            with: With {
                payload: true,
                ..With::default()
            },
            params: Params::default(),
            after: enrich.after,
            deadline: Some(budget.deadline),
        };
        query.check()?;
        let moment = self.engine.moment(collection, query.after, query.deadline)?;
        let hits = self.search(&moment, &query, "Documents.Enrich")?.hits;
        budget.check()?;

        let found = hits.len();
        let candidates: Vec<Candidate> = hits.into_iter().filter_map(|hit| candidate(hit, only_leg)).collect();
        if candidates.len() < found {
            notes.push(format!(
                "{} points found have no text in their payload and were passed over",
                found - candidates.len()
            ));
        }
        let request = PackRequest {
            token_budget,
            max_chunks: enrich.max_chunks,
            max_per_document: enrich.max_per_document,
            score_threshold: enrich.score_threshold,
            seed: rand::random(),
        };
        let packed = pack::pack(&candidates, &request, counter.as_ref());
        budget.check()?;
        let retrieval_id = format!("r-{:016x}", rand::random::<u64>());
        tracing::debug!(
            retrieval_id,
            collection,
            found,
            context = packed.context.len(),
            tokens = packed.tokens_context,
            "enriched"
        );
        Ok(Enriched {
            prompt: render::enrich(&enrich.prompt, &packed, enrich.format),
            tokens_prompt: counter.count(&enrich.prompt),
            packed,
            token_budget,
            retrieval_id,
            notes,
            took_ms: 0.0,
        })
    }

    /// Where candidates come from; and the name of the leg if there is only one, whose scores the engine reports under a
    /// name of its own.
    fn candidates_source(
        &self,
        schema: &Schema,
        enrich: &Enrich,
        limit: usize,
        budget: &Budget,
        notes: &mut Vec<String>,
    ) -> Result<(Source, Option<&'static str>)> {
        let text = enrich.prompt.clone();
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
            let vector = embed_query(using.embedder.as_ref(), &text, budget).map_err(|e| e.at("/prompt"))?;
            let vector = vector.ok_or_else(|| {
                let why = "the prompt holds nothing that the embedder knows, try mode bm25";
                Error::invalid("empty_text", why).at("/prompt")
            })?;
            let using = Some(using.name);
            return Ok((Source::Nearest { using, vector }, Some(retrieval::DENSE)));
        }
        let dense = self
            .dense_leg(using, &text, budget, notes)
            .map_err(|e| e.at("/prompt"))?;
        if dense.is_none() {
            return bm25(text);
        }
        check_text_fields(schema)?;
        Ok((
            retrieval::hybrid(dense, text, retrieval::default_fields(schema), limit),
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
        match self.score_threshold {
            Some(t) if !(0.0..=1.0).contains(&t) => Err(Error::invalid(
                "bad_score_threshold",
                format!("score_threshold must be 0 to 1, got {t}"),
            )
            .at("/score_threshold")),
            _ => self.filter.check().map_err(|e| e.at("/filter")),
        }
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
fn candidate(hit: Hit, only_leg: Option<&str>) -> Option<Candidate> {
    let mut payload = hit.point.payload.unwrap_or_default();
    let Some(Value::String(text)) = payload.remove("text") else {
        return None;
    };
    let id = hit.point.id.as_str().to_owned();
    let span = span(&payload).unwrap_or((0, text.len()));
    let heading = match payload.remove("heading") {
        Some(Value::Array(parts)) => parts.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    };
    Some(Candidate {
        document: hit.point.document.map_or_else(|| id.clone(), |d| d.as_str().to_owned()),
        title: string(&mut payload, "title"),
        source: string(&mut payload, "source"),
        ordinal: payload
            .get("chunk")
            .and_then(Value::as_u64)
            .and_then(|n| u32::try_from(n).ok())
            .unwrap_or(0),
        heading,
        span,
        text,
        score: hit.score,
        legs: hit
            .legs
            .into_iter()
            .map(|leg| (only_leg.map_or(leg.leg, str::to_owned), leg.raw))
            .collect(),
        id,
    })
}

fn string(payload: &mut Payload, key: &str) -> Option<String> {
    match payload.remove(key) {
        Some(Value::String(text)) if !text.is_empty() => Some(text),
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
    use cairn_engine::query::LegScore;
    use cairn_engine::types::{Point, PointId, Seq};
    use serde_json::json;

    use super::*;

    fn hit(payload: &Value) -> Hit {
        let point = Point {
            id: PointId::new("d#1").unwrap(),
            vectors: None,
            sparse: None,
            payload: payload.as_object().cloned(),
            document: Some(PointId::new("d").unwrap()),
            version: Token::local(Seq(1)),
        };
        Hit {
            point,
            score: 0.5,
            legs: vec![LegScore {
                leg: "nearest".into(),
                raw: 0.4,
                rank: 1,
            }],
        }
    }

    #[test]
    fn a_chunk_becomes_a_candidate_with_its_citation() {
        let payload =
            json!({"text": "t", "title": "T", "heading": ["A", "B"], "source": "s", "chunk": 1, "span": [7, 8]});
        let c = candidate(hit(&payload), Some("dense")).unwrap();
        assert_eq!(
            (c.document.as_str(), c.ordinal, c.span, c.text.as_str()),
            ("d", 1, (7, 8), "t")
        );
        assert_eq!(
            (c.title.as_deref(), c.source.as_deref(), c.heading.len()),
            (Some("T"), Some("s"), 2)
        );
        assert_eq!(c.legs, [("dense".to_owned(), 0.4)]);
    }

    #[test]
    fn a_point_without_text_is_no_candidate_and_odd_payloads_do_no_harm() {
        assert_eq!(candidate(hit(&json!({"title": "T"})), None), None);
        let odd = candidate(
            hit(&json!({"text": "abc", "span": [1], "chunk": -3, "heading": "H", "title": 7})),
            None,
        )
        .unwrap();
        assert_eq!(
            (odd.span, odd.ordinal, odd.heading.len(), odd.title),
            ((0, 3), 0, 0, None)
        );
    }

    #[test]
    fn bounds_are_checked_with_their_names() {
        let base = Enrich {
            prompt: "p".into(),
            token_budget: None,
            tokenizer: None,
            format: PromptFormat::String,
            filter: Filter::default(),
            limit: None,
            max_chunks: None,
            max_per_document: None,
            score_threshold: None,
            mode: Mode::Hybrid,
            after: None,
        };
        assert!(base.check().is_ok());
        let cases = [
            (
                Enrich {
                    prompt: " ".into(),
                    ..base.clone()
                },
                "empty_prompt",
            ),
            (
                Enrich {
                    token_budget: Some(0),
                    ..base.clone()
                },
                "bad_token_budget",
            ),
            (
                Enrich {
                    limit: Some(CANDIDATES_MAX + 1),
                    ..base.clone()
                },
                "bad_limit",
            ),
            (
                Enrich {
                    score_threshold: Some(f32::NAN),
                    ..base
                },
                "bad_score_threshold",
            ),
        ];
        for (enrich, code) in cases {
            assert_eq!(enrich.check().unwrap_err().code, code);
        }
    }
}
