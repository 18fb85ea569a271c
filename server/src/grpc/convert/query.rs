//! Queries and their answers in messages.

use cairn_engine::query::{Explain, Fuse, Hit, Params};
use cairn_engine::{Error, Result, limits};
use cairn_proto::v1 as pb;

use super::collections::embedder_in;
use super::damage::partial_of_all;
use super::filter::filter_in;
use super::points::{point_out, sparse_in, with_in};
use super::ranking::{ranking_in, stage_out};
use super::{size_in, text_in, token_in};
use crate::service::{Answer, Ask, AskLeg, AskSource, EmbedInput, NearestTo, SparseTo, parse_field};

pub(in crate::grpc) fn ask_in(request: pb::QueryRequest) -> Result<(String, Ask)> {
    use pb::query_request::Source;
    let source = match request.source {
        Some(Source::Nearest(n)) => nearest_in(n)?,
        Some(Source::Text(t)) => text_source_in(t)?,
        Some(Source::Hybrid(h)) => hybrid_in(h)?,
        Some(Source::Prefetch(p)) => prefetch_in(p, 1)?,
        Some(Source::Sparse(s)) => sparse_source_in(s)?,
        None => return Err(no_source()),
    };
    let params = request.params.unwrap_or_default();
    let ask = Ask {
        source,
        filter: filter_in(request.filter)?,
        limit: request.limit.map(size_in),
        offset: size_in(request.offset),
        score_threshold: request.score_threshold,
        with: with_in(request.with),
        params: Params {
            ef: params.ef.map(size_in),
            nprobe: params.nprobe.map(size_in),
            target_recall: params.target_recall,
            exact: params.exact,
        },
        after: token_in(request.after, "/after")?,
        ranking: ranking_in(request.ranking),
        allow_partial: request.allow_partial,
    };
    Ok((request.collection, ask))
}

fn no_source() -> Error {
    Error::invalid(
        "bad_query",
        "a query holds one of nearest, sparse, text, hybrid, prefetch",
    )
}

fn nearest_in(nearest: pb::Nearest) -> Result<AskSource> {
    use pb::nearest::To;
    let to = match nearest.to {
        Some(To::Vector(v)) => NearestTo::Vector(v.values),
        Some(To::Text(text)) => NearestTo::Embed(EmbedInput::Text(text)),
        Some(To::Image(image)) => NearestTo::Embed(EmbedInput::Image(image)),
        Some(To::Audio(audio)) => NearestTo::Embed(EmbedInput::Audio(audio)),
        None => {
            let message = "nearest holds one of vector, text, image, audio";
            return Err(Error::invalid("bad_query", message).at("/nearest"));
        }
    };
    Ok(AskSource::Nearest {
        using: text_in(nearest.using),
        to,
        embedder: nearest.embedder.map(embedder_in),
    })
}

fn sparse_source_in(sparse: pb::Sparse) -> Result<AskSource> {
    use pb::sparse::To;
    let to = match sparse.to {
        Some(To::Vector(v)) => SparseTo::Vector(sparse_in(v)),
        Some(To::Text(t)) => SparseTo::Text(t),
        None => return Err(Error::invalid("bad_query", "sparse holds a vector or a text").at("/sparse")),
    };
    Ok(AskSource::Sparse {
        using: text_in(sparse.using),
        to,
        embedder: sparse.embedder.map(embedder_in),
    })
}

fn text_source_in(text: pb::Text) -> Result<AskSource> {
    let fields = text
        .fields
        .iter()
        .enumerate()
        .map(|(i, f)| parse_field(f).map_err(|e| e.at(format!("/text/fields/{i}"))));
    Ok(AskSource::Text {
        fields: fields.collect::<Result<_>>()?,
        query: text.query,
    })
}

fn hybrid_in(hybrid: pb::Hybrid) -> Result<AskSource> {
    let fields = hybrid
        .fields
        .iter()
        .enumerate()
        .map(|(i, f)| parse_field(f).map_err(|e| e.at(format!("/hybrid/fields/{i}"))));
    Ok(AskSource::Hybrid {
        fields: fields.collect::<Result<_>>()?,
        text: hybrid.text,
        using: text_in(hybrid.using),
    })
}

fn prefetch_in(prefetch: pb::Prefetch, depth: usize) -> Result<AskSource> {
    use pb::prefetch::Fuse as Wire;
    if depth > limits::QUERY_DEPTH_MAX {
        return Err(Error::invalid(
            "query_too_large",
            format!("a query may nest {} levels", limits::QUERY_DEPTH_MAX),
        ));
    }
    let leg = |(i, leg)| leg_in(leg, depth).map_err(|e: Error| e.at(format!("/prefetch/{i}")));
    let fuse = prefetch.fuse.map(|fuse| match fuse {
        Wire::Rrf(rrf) => Fuse::Rrf {
            k: rrf.k.unwrap_or(crate::rag::retrieval::DEFAULT_RRF_K),
            weights: rrf.weights,
        },
        Wire::Weighted(weighted) => Fuse::Weighted {
            weights: weighted.weights,
        },
    });
    Ok(AskSource::Prefetch {
        legs: prefetch.legs.into_iter().enumerate().map(leg).collect::<Result<_>>()?,
        fuse,
    })
}

fn leg_in(leg: pb::Leg, depth: usize) -> Result<AskLeg> {
    use pb::leg::Source;
    let source = match leg.source {
        Some(Source::Nearest(n)) => nearest_in(n)?,
        Some(Source::Text(t)) => text_source_in(t)?,
        Some(Source::Hybrid(h)) => hybrid_in(h)?,
        Some(Source::Prefetch(p)) => prefetch_in(p, depth + 1)?,
        Some(Source::Sparse(s)) => sparse_source_in(s)?,
        None => return Err(no_source()),
    };
    Ok(AskLeg {
        name: text_in(leg.name),
        source,
        filter: filter_in(leg.filter)?,
        limit: leg.limit.map(size_in),
    })
}

pub(in crate::grpc) fn answer_out(answer: Answer) -> pb::QueryResponse {
    pb::QueryResponse {
        hits: answer.result.hits.into_iter().map(hit_out).collect(),
        token: answer.result.seq.to_string(),
        explain: answer.result.explain.map(explain_out),
        took_ms: answer.took_ms,
        notes: answer.notes,
        stages: answer.stages.into_iter().map(stage_out).collect(),
        partial: partial_of_all(answer.missing),
    }
}

fn hit_out(hit: Hit) -> pb::Hit {
    let leg = |l: cairn_engine::query::LegScore| pb::LegScore {
        leg: l.leg,
        raw: l.raw,
        rank: l.rank,
    };
    pb::Hit {
        point: Some(point_out(hit.point)),
        score: hit.score,
        legs: hit.legs.into_iter().map(leg).collect(),
    }
}

fn explain_out(explain: Explain) -> pb::Explain {
    let leg = |l: cairn_engine::query::ExplainLeg| pb::ExplainLeg {
        leg: l.leg,
        shard: l.shard,
        segment: l.segment,
        strategy: l.strategy.to_owned(),
        matches: l.matches,
        evaluated: l.evaluated,
    };
    pb::Explain {
        legs: explain.legs.into_iter().map(leg).collect(),
    }
}
