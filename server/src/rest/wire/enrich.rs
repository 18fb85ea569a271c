//! Prompts to enrich, and enriched ones, in JSON.

use std::collections::BTreeMap;

use cairn_engine::Result;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::filter::{FilterBody, filter_in};
use super::{after_in, sizes};
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
    /// Token of an earlier write that must be visible.
    after: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::rest) enum EnrichFormatBody {
    #[default]
    String,
    Messages,
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
        })
    }
}

/// An enriched prompt and its account: `prompt` or `messages`, as asked for.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::rest) struct EnrichOut {
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    messages: Option<Vec<MessageOut>>,
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
}

impl From<Enriched> for EnrichOut {
    fn from(enriched: Enriched) -> Self {
        let (prompt, messages) = match enriched.prompt {
            render::Enriched::Prompt(prompt) => (Some(prompt), None),
            render::Enriched::Messages(messages) => {
                let message = |m: render::Message| MessageOut {
                    role: match m.role {
                        render::Role::System => "system",
                        render::Role::User => "user",
                    },
                    content: m.content,
                };
                (None, Some(messages.into_iter().map(message).collect()))
            }
        };
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
        };
        let dropped = |d: crate::rag::pack::Dropped| DroppedOut {
            id: d.id,
            document: d.document,
            reason: d.reason.to_string(),
        };
        Self {
            prompt,
            messages,
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
        }
    }
}
