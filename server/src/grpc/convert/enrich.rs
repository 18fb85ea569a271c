//! Prompts to enrich, and enriched ones, in messages.

use cairn_engine::{Error, Result};
use cairn_proto::v1 as pb;

use super::damage::partial_of_all;
use super::documents::{provenance_out, trust_in, trust_out};
use super::filter::filter_in;
use super::ranking::{ranking_in, stage_out};
use super::{bad_enum, count_out, size_in, text_in, token_in};
use crate::rag::condense::{Speaker, Turn};
use crate::rag::render::{self, PromptFormat, Role};
use crate::service::{Enrich, Enriched, Mode};

pub(in crate::grpc) fn enrich_in(request: pb::EnrichRequest) -> Result<(Vec<String>, Enrich)> {
    let format = match pb::EnrichFormat::try_from(request.format) {
        Ok(pb::EnrichFormat::Unspecified | pb::EnrichFormat::String) => PromptFormat::String,
        Ok(pb::EnrichFormat::Messages) => PromptFormat::Messages,
        Ok(pb::EnrichFormat::Anthropic) => PromptFormat::Anthropic,
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
        conversation: request
            .conversation
            .into_iter()
            .enumerate()
            .map(|(i, turn)| turn_in(turn).map_err(|e| e.at(format!("/conversation/{i}"))))
            .collect::<Result<_>>()?,
        template: text_in(request.template),
        max_per_source: request.max_per_source.map(size_in),
        neighbours: request.neighbours,
        ranking: ranking_in(request.ranking),
        explain: request.explain,
        trust: request.trust.into_iter().map(trust_in).collect::<Result<_>>()?,
        allow_partial: request.allow_partial,
    };
    let collections = match (request.collections, request.collection) {
        (several, one) if several.is_empty() => vec![one],
        (several, one) if one.is_empty() => several,
        _ => {
            let message = "give collection or collections, not both";
            return Err(Error::invalid("bad_collections", message).at("/collections"));
        }
    };
    Ok((collections, enrich))
}

fn turn_in(turn: pb::Turn) -> Result<Turn> {
    let by = match turn.role.as_str() {
        "user" => Speaker::User,
        "assistant" => Speaker::Assistant,
        other => {
            let message = format!("role must be user or assistant, got {other:?}");
            return Err(Error::invalid("bad_request", message).at("/role"));
        }
    };
    Ok(Turn {
        by,
        content: turn.content,
    })
}

pub(in crate::grpc) fn enriched_out(enriched: Enriched) -> pb::EnrichResponse {
    let message = |m: render::Message| pb::ChatMessage {
        role: match m.role {
            Role::System => "system".to_owned(),
            Role::User => "user".to_owned(),
        },
        content: m.content,
    };
    let all = |messages: Vec<render::Message>| messages.into_iter().map(message).collect();
    let (prompt, system, messages) = match enriched.prompt {
        render::Enriched::Prompt(prompt) => (Some(prompt), None, Vec::new()),
        render::Enriched::Messages(messages) => (None, None, all(messages)),
        render::Enriched::Anthropic { system, messages } => (None, system, all(messages)),
    };
    let collections = enriched.collections;
    let collection = |at: usize| collections.as_ref().map(|names| names[at].clone()).unwrap_or_default();
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
        collection: collection(b.collection),
        trust: trust_out(b.trust).into(),
        provenance: b.provenance.map(provenance_out),
    };
    let dropped = |d: crate::rag::pack::Dropped| pb::Dropped {
        id: d.id,
        document: d.document,
        reason: d.reason.to_string(),
        collection: collection(d.collection),
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
        system,
        stages: enriched.stages.into_iter().map(stage_out).collect(),
        query: enriched.query,
        partial: partial_of_all(enriched.missing),
    }
}
