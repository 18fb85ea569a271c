//! Prompts to enrich, and enriched ones, in messages.

use cairn_engine::Result;
use cairn_proto::v1 as pb;

use super::filter::filter_in;
use super::{bad_enum, count_out, not_built, size_in, text_in, token_in};
use crate::rag::render::{self, PromptFormat, Role};
use crate::service::{Enrich, Enriched, Mode};

pub(in crate::grpc) fn enrich_in(request: pb::EnrichRequest) -> Result<(String, Enrich)> {
    let format = match pb::EnrichFormat::try_from(request.format) {
        Ok(pb::EnrichFormat::Unspecified | pb::EnrichFormat::String) => PromptFormat::String,
        Ok(pb::EnrichFormat::Messages) => PromptFormat::Messages,
        Ok(pb::EnrichFormat::Anthropic) => return Err(not_built("/format")),
        Err(_) => return Err(bad_enum("format", "EnrichFormat", request.format)),
    };
    let mode = match pb::RetrievalMode::try_from(request.mode) {
        Ok(pb::RetrievalMode::Unspecified | pb::RetrievalMode::Hybrid) => Mode::Hybrid,
        Ok(pb::RetrievalMode::Dense) => Mode::Dense,
        Ok(pb::RetrievalMode::Bm25) => Mode::Bm25,
        Ok(pb::RetrievalMode::Sparse) => Mode::Sparse,
        Err(_) => return Err(bad_enum("mode", "RetrievalMode", request.mode)),
    };
    let enrich = Enrich {
        prompt: request.prompt,
        token_budget: request.token_budget.map(size_in),
        tokenizer: text_in(request.tokenizer),
        format,
        filter: filter_in(request.filter)?,
        limit: request.limit.map(size_in),
        max_chunks: request.max_chunks.map(size_in),
        max_per_document: request.max_per_document.map(size_in),
        score_threshold: request.score_threshold,
        mode,
        after: token_in(request.after, "/after")?,
    };
    Ok((request.collection, enrich))
}

pub(in crate::grpc) fn enriched_out(enriched: Enriched) -> pb::EnrichResponse {
    let (prompt, messages) = match enriched.prompt {
        render::Enriched::Prompt(prompt) => (Some(prompt), Vec::new()),
        render::Enriched::Messages(messages) => {
            let role = |role| match role {
                Role::System => "system".to_owned(),
                Role::User => "user".to_owned(),
            };
            (
                None,
                messages
                    .into_iter()
                    .map(|m| pb::ChatMessage {
                        role: role(m.role),
                        content: m.content,
                    })
                    .collect(),
            )
        }
    };
    let tokens = pb::TokenUse {
        prompt: count_out(enriched.tokens_prompt),
        context: count_out(enriched.packed.tokens_context),
        budget: count_out(enriched.token_budget),
    };
    let item = |b: crate::rag::pack::ContextBlock| pb::ContextItem {
        n: count_out(b.n),
        document: b.document,
        title: b.title.unwrap_or_default(),
        heading: b.heading,
        source: b.source.unwrap_or_default(),
        span: Some(pb::Span {
            start: b.span.0 as u64,
            end: b.span.1 as u64,
        }),
        text: b.text,
        score: b.score,
        scores: b.legs.into_iter().collect(),
        ids: b.chunk_ids,
        ..Default::default()
    };
    let dropped = |d: crate::rag::pack::Dropped| pb::Dropped {
        id: d.id,
        document: d.document,
        reason: d.reason.to_string(),
    };
    pb::EnrichResponse {
        prompt,
        messages,
        context: enriched.packed.context.into_iter().map(item).collect(),
        tokens: Some(tokens),
        dropped: enriched.packed.dropped.into_iter().map(dropped).collect(),
        retrieval_id: enriched.retrieval_id,
        took_ms: enriched.took_ms,
        notes: enriched.notes,
        ..Default::default()
    }
}
