//! Prompts to enrich, and enriched ones, in JSON.

use std::collections::BTreeMap;

use cairn_engine::Result;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::damage::{PartialOut, partial_of_all};
use super::documents::{ProvenanceBody, TrustBody};
use super::filter::{FilterBody, filter_in};
use super::ranking::{RankingBody, StageOut};
use super::{after_in, sizes};
use crate::rag::condense::{Speaker, Turn};
use crate::rag::render::{self, PromptFormat};
use crate::service::{Enrich, Enriched, Mode};

/// A prompt to enrich.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::rest) struct EnrichBody {
    /// The user's words; 1 byte to 1 MiB.
    prompt: String,
    /// Most tokens of the context with its fences and citations, the prompt not counted. 1 to 1,000,000. Default: 2,000.
    token_budget: Option<u32>,
    /// Whose tokens. Default: o200k_base.
    tokenizer: Option<String>,
    /// What comes out: one text or chat messages. Default: string.
    #[serde(default)]
    format: EnrichFormatBody,
    filter: Option<FilterBody>,
    /// Candidates retrieved before packing, 1 to 1,000. Default: 50.
    limit: Option<u32>,
    /// Most chunks in the context. Default: as many as fit.
    max_chunks: Option<u32>,
    /// Most chunks of one document. Default: as many as fit.
    max_per_document: Option<u32>,
    /// 0 to 1; candidates with a lower score are not considered.
    score_threshold: Option<f32>,
    /// How candidates are found. Default: hybrid.
    #[serde(default)]
    mode: ModeBody,
    /// Token of an earlier write that must be visible. Only with one collection.
    after: Option<String>,
    /// 1 to 8 collections, searched alike and ranked together. Only in `/api/v1/enrich`, whose path names none.
    #[serde(default)]
    pub(in crate::rest) collections: Vec<String>,
    /// The turns before the prompt, oldest first, at most 100 and 1 MiB. What is searched is then made of the prompt and of
    /// the last turns, by a rule without a model (docs/rag.md says which), and comes back as `query`.
    #[serde(default)]
    conversation: Vec<TurnBody>,
    /// Instead of the standard prompt: text with `{{prompt}}` and `{{context}}`, each at least once. At most 64 KiB.
    template: Option<String>,
    /// Most chunks of one source. Default: as many as fit.
    max_per_source: Option<u32>,
    /// Chunks before and after each chunk of its document that are put in with it if the budget allows, 0 to 10.
    /// Default: 0.
    #[serde(default)]
    neighbours: u32,
    /// Applied to the candidates before packing.
    ranking: Option<RankingBody>,
    /// Say what each stage did. Default: false.
    #[serde(default)]
    explain: bool,
    /// Trust labels whose documents may be put in. Empty: unverified and trusted.
    #[serde(default)]
    trust: Vec<TrustBody>,
    /// Make the prompt without the points of damaged segments, and say so in `partial`. Otherwise such an answer is an error
    /// (`segment_damaged`). Default: false.
    #[serde(default)]
    allow_partial: bool,
}

/// One turn of a conversation.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::rest) struct TurnBody {
    role: RoleBody,
    content: String,
}

#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::rest) enum RoleBody {
    User,
    Assistant,
}

#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::rest) enum EnrichFormatBody {
    /// One prompt text.
    #[default]
    String,
    /// Chat messages as OpenAI takes them: `system` and `user` are roles.
    Messages,
    /// Chat messages as Anthropic takes them: the system text stands beside them, in `system`.
    Anthropic,
}

#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::rest) enum ModeBody {
    #[default]
    Hybrid,
    Dense,
    Bm25,
    /// A sparse vector with an embedder.
    Sparse,
}

impl EnrichBody {
    pub(in crate::rest) fn enrich(self) -> Result<Enrich> {
        Ok(Enrich {
            prompt: self.prompt,
            token_budget: sizes(self.token_budget),
            tokenizer: self.tokenizer,
            format: match self.format {
                EnrichFormatBody::String => PromptFormat::String,
                EnrichFormatBody::Messages => PromptFormat::Messages,
                EnrichFormatBody::Anthropic => PromptFormat::Anthropic,
            },
            filter: filter_in(self.filter)?,
            limit: sizes(self.limit),
            max_chunks: sizes(self.max_chunks),
            max_per_document: sizes(self.max_per_document),
            score_threshold: self.score_threshold,
            mode: match self.mode {
                ModeBody::Hybrid => Mode::Hybrid,
                ModeBody::Dense => Mode::Dense,
                ModeBody::Bm25 => Mode::Bm25,
                ModeBody::Sparse => Mode::Sparse,
            },
            after: after_in(self.after)?,
            conversation: self.conversation.into_iter().map(TurnBody::turn).collect(),
            template: self.template,
            max_per_source: sizes(self.max_per_source),
            neighbours: self.neighbours,
            ranking: self.ranking.map(RankingBody::ranking).unwrap_or_default(),
            explain: self.explain,
            trust: self.trust.into_iter().map(Into::into).collect(),
            allow_partial: self.allow_partial,
        })
    }
}

impl TurnBody {
    fn turn(self) -> Turn {
        Turn {
            by: match self.role {
                RoleBody::User => Speaker::User,
                RoleBody::Assistant => Speaker::Assistant,
            },
            content: self.content,
        }
    }
}

/// An enriched prompt and its account: `prompt` or `messages`, as asked for.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::rest) struct EnrichOut {
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    messages: Option<Vec<MessageOut>>,
    /// If format is anthropic: the system text; absent without context.
    #[serde(skip_serializing_if = "Option::is_none")]
    system: Option<String>,
    /// What was put in, in citation order.
    context: Vec<ContextOut>,
    tokens: TokensOut,
    /// Candidates that were left out, and why.
    dropped: Vec<DroppedOut>,
    /// Names this retrieval in logs.
    retrieval_id: String,
    /// Time in the server, queueing included.
    took_ms: f64,
    /// What the caller should know.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notes: Vec<String>,
    /// What each stage did: always those that skipped something, all of them if `explain`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    stages: Vec<StageOut>,
    /// What was searched, if it is not the prompt.
    #[serde(skip_serializing_if = "Option::is_none")]
    query: Option<String>,
    /// What is missing; absent if nothing is.
    #[serde(skip_serializing_if = "Option::is_none")]
    partial: Option<PartialOut>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(in crate::rest) struct MessageOut {
    /// `system` or `user`.
    role: &'static str,
    content: String,
}

/// A cited passage.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::rest) struct ContextOut {
    /// Citation number, from 1.
    n: usize,
    document: String,
    title: String,
    /// Heading path.
    heading: Vec<String>,
    /// Where the document came from.
    source: String,
    /// Bytes of the document's text, from and to.
    span: [usize; 2],
    text: String,
    /// 0..1, higher is better.
    score: f32,
    /// Raw scores by leg: `dense` (cosine), `bm25`.
    scores: BTreeMap<String, f32>,
    /// Points that make up this passage: neighbouring chunks are merged.
    ids: Vec<String>,
    /// The collection, if the request named several.
    #[serde(skip_serializing_if = "Option::is_none")]
    collection: Option<String>,
    /// Of the least trusted of its chunks.
    trust: TrustBody,
    #[serde(skip_serializing_if = "Option::is_none")]
    provenance: Option<ProvenanceBody>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(in crate::rest) struct TokensOut {
    /// Tokens of the prompt as given.
    prompt: usize,
    /// Tokens of the context with its fences and citations; never above the budget.
    context: usize,
    budget: usize,
}

#[derive(Debug, Serialize, ToSchema)]
pub(in crate::rest) struct DroppedOut {
    /// Point id.
    id: String,
    document: String,
    reason: String,
    /// The collection, if the request named several.
    #[serde(skip_serializing_if = "Option::is_none")]
    collection: Option<String>,
}

impl From<Enriched> for EnrichOut {
    fn from(enriched: Enriched) -> Self {
        let message = |m: render::Message| MessageOut {
            role: match m.role {
                render::Role::System => "system",
                render::Role::User => "user",
            },
            content: m.content,
        };
        let all = |messages: Vec<render::Message>| Some(messages.into_iter().map(message).collect());
        let (prompt, system, messages) = match enriched.prompt {
            render::Enriched::Prompt(prompt) => (Some(prompt), None, None),
            render::Enriched::Messages(messages) => (None, None, all(messages)),
            render::Enriched::Anthropic { system, messages } => (None, system, all(messages)),
        };
        let collections = enriched.collections;
        let collection = |at: usize| collections.as_ref().map(|names| names[at].clone());
        let context = |b: crate::rag::pack::ContextBlock| ContextOut {
            n: b.n,
            document: b.document,
            title: b.title.unwrap_or_default(),
            heading: b.heading,
            source: b.source.unwrap_or_default(),
            span: [b.span.0, b.span.1],
            text: b.text,
            score: b.score,
            scores: b.legs.into_iter().collect(),
            ids: b.chunk_ids,
            collection: collection(b.collection),
            trust: b.trust.into(),
            provenance: b.provenance.map(Into::into),
        };
        let dropped = |d: crate::rag::pack::Dropped| DroppedOut {
            id: d.id,
            document: d.document,
            reason: d.reason.to_string(),
            collection: collection(d.collection),
        };
        Self {
            prompt,
            messages,
            system,
            tokens: TokensOut {
                prompt: enriched.tokens_prompt,
                context: enriched.packed.tokens_context,
                budget: enriched.token_budget,
            },
            context: enriched.packed.context.into_iter().map(context).collect(),
            dropped: enriched.packed.dropped.into_iter().map(dropped).collect(),
            retrieval_id: enriched.retrieval_id,
            took_ms: enriched.took_ms,
            notes: enriched.notes,
            stages: enriched.stages.into_iter().map(Into::into).collect(),
            query: enriched.query,
            partial: partial_of_all(enriched.missing),
        }
    }
}
