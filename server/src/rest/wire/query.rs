//! Queries and their answers in JSON.

use std::collections::BTreeMap;

use cairn_engine::query::{Fuse, Params};
use cairn_engine::types::Payload;
use cairn_engine::{Error, Result, limits};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::collections::EmbedderBody;
use super::damage::{PartialOut, partial_of_all};
use super::filter::{FilterBody, filter_in};
use super::points::{SparseVectorBody, WithBody, sparse_out, with_in};
use super::ranking::{RankingBody, StageOut};
use super::{after_in, sizes};
use crate::service::{Answer, Ask, AskLeg, AskSource, EmbedInput, NearestTo, SparseTo, parse_field};

/// A query: exactly one of `nearest`, `sparse`, `text`, `hybrid`, `prefetch`.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::rest) struct QueryBody {
    /// Nearest vectors.
    nearest: Option<NearestBody>,
    /// Largest inner products with a sparse vector.
    sparse: Option<SparseBody>,
    /// BM25.
    text: Option<TextBody>,
    /// The default hybrid.
    hybrid: Option<HybridBody>,
    /// Legs whose hits become one list. At most 4 levels and 16 legs in all.
    prefetch: Option<Vec<LegBody>>,
    /// How the legs of `prefetch` become one list. Default: rrf with its defaults.
    fuse: Option<FuseBody>,
    /// Which points may be answered, in every leg.
    filter: Option<FilterBody>,
    /// Hits wanted, at least 1; limit + offset at most 10,000. Default: 10.
    limit: Option<u32>,
    /// Hits skipped. Default: 0.
    #[serde(default)]
    offset: u32,
    with: Option<WithBody>,
    #[serde(default)]
    params: ParamsBody,
    /// 0 to 1; hits with a lower final score are dropped.
    score_threshold: Option<f32>,
    /// Token of an earlier write that must be visible.
    after: Option<String>,
    /// What is done with the hits after they were found and fused.
    ranking: Option<RankingBody>,
    /// Answer without the points of damaged segments, and say so in `partial`. Otherwise such an answer is an error
    /// (`segment_damaged`). Default: false.
    #[serde(default)]
    allow_partial: bool,
}

/// Nearest to exactly one of `vector`, `text`, `image`, `audio`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::rest) struct NearestBody {
    vector: Option<Vec<f32>>,
    /// Embedded with the model that the vector's schema names. At most 1 MiB.
    text: Option<String>,
    /// The same of an image: an http(s) URL or a data: URI, at most 8 MiB, for models that take images.
    image: Option<String>,
    /// The same of a sound.
    audio: Option<String>,
    /// Vector name; may be left out if the collection has exactly one.
    using: Option<String>,
    /// The model whose vectors are meant. Refused (`embedder_mismatch`) if the collection records another; what is left out is
    /// not compared.
    embedder: Option<EmbedderBody>,
}

/// Largest inner products with a sparse vector, given or made of a text.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::rest) struct SparseBody {
    vector: Option<SparseVectorBody>,
    /// Embedded with the model that the sparse vector's schema names.
    text: Option<String>,
    /// Sparse vector name; may be left out if the collection has exactly one.
    using: Option<String>,
    /// The model whose vectors are meant, as in `nearest`.
    embedder: Option<EmbedderBody>,
}

/// BM25 over text fields.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::rest) struct TextBody {
    /// At most 1 MiB.
    query: String,
    /// Text fields, each with an optional weight: `title^2`. Empty: all of the collection's, weight 1.
    #[serde(default)]
    fields: Vec<String>,
}

/// `nearest` text and BM25 with the same words, fused by the weighted mean of their normalised scores.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::rest) struct HybridBody {
    text: String,
    /// Vector name; may be left out if the collection has exactly one.
    using: Option<String>,
    /// Text fields as in `text`; empty: `text` and `title^0.25` where the collection has them, else all.
    #[serde(default)]
    fields: Vec<String>,
}

/// One leg: exactly one of `nearest`, `sparse`, `text`, `hybrid`, `prefetch`.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::rest) struct LegBody {
    /// Name under which its scores are reported.
    name: Option<String>,
    nearest: Option<NearestBody>,
    sparse: Option<SparseBody>,
    text: Option<TextBody>,
    hybrid: Option<HybridBody>,
    #[schema(no_recursion)]
    prefetch: Option<Vec<LegBody>>,
    fuse: Option<FuseBody>,
    /// Restricts this leg further.
    filter: Option<FilterBody>,
    /// Candidates taken from this leg, 1 to 10,000. Default: 100, at least the hits wanted.
    limit: Option<u32>,
}

/// Exactly one of `rrf`, `weighted`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::rest) struct FuseBody {
    /// Reciprocal rank fusion: sum of weight / (k + rank), scaled to 0..1.
    rrf: Option<RrfBody>,
    /// Weighted mean of the legs' scores, each normalised over its candidates to 0..1.
    weighted: Option<WeightedBody>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::rest) struct RrfBody {
    /// At least 0. Default: 60.
    k: Option<f32>,
    /// One number a leg; empty: 1 each.
    #[serde(default)]
    weights: Vec<f32>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::rest) struct WeightedBody {
    /// One number a leg; empty: 1 each.
    #[serde(default)]
    weights: Vec<f32>,
}

/// Expert settings.
#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::rest) struct ParamsBody {
    /// Candidates kept by a graph search, 1 to 10,000, never fewer than the hits wanted. Default: as many as `target_recall` needs.
    ef: Option<u32>,
    /// Lists of an ivf index that a search looks into in each segment, 1 to 65,536, and more if they hold too few hits. Default:
    /// as far as was measured when the segment was made.
    nprobe: Option<u32>,
    /// Share of the k nearest (recall@k) that a search of a sealed segment is to find on average, 0.5 to 0.999, by what was
    /// measured with questions made of stored rows when its graph or lists were made. A mean and no promise for one question;
    /// questions unlike any row may find less. With a filter a search makes at least the default effort. `ef` and `nprobe`
    /// win over it for the index they belong to; `exact` finds all. Default: 0.95.
    target_recall: Option<f32>,
    /// Scan exactly, use no index. Default: false.
    #[serde(default)]
    exact: bool,
}

/// The five ways of saying where hits come from.
struct SourceBody {
    nearest: Option<NearestBody>,
    sparse: Option<SparseBody>,
    text: Option<TextBody>,
    hybrid: Option<HybridBody>,
    prefetch: Option<Vec<LegBody>>,
    fuse: Option<FuseBody>,
}

impl SourceBody {
    fn source(self, depth: usize) -> Result<AskSource> {
        let one_of = || {
            Error::invalid(
                "bad_query",
                "a query holds exactly one of nearest, sparse, text, hybrid, prefetch",
            )
        };
        if self.fuse.is_some() && self.prefetch.is_none() {
            return Err(
                Error::invalid("bad_query", "fuse joins the legs of a prefetch, and there is none").at("/fuse"),
            );
        }
        match (self.nearest, self.sparse, self.text, self.hybrid, self.prefetch) {
            (Some(nearest), None, None, None, None) => nearest.source().map_err(|e| e.at("/nearest")),
            (None, Some(sparse), None, None, None) => sparse.source().map_err(|e| e.at("/sparse")),
            (None, None, Some(text), None, None) => {
                let fields = fields_in(&text.fields).map_err(|e| e.at("/text"))?;
                Ok(AskSource::Text {
                    query: text.query,
                    fields,
                })
            }
            (None, None, None, Some(hybrid), None) => {
                let fields = fields_in(&hybrid.fields).map_err(|e| e.at("/hybrid"))?;
                Ok(AskSource::Hybrid {
                    text: hybrid.text,
                    using: hybrid.using,
                    fields,
                })
            }
            (None, None, None, None, Some(legs)) => {
                if depth > limits::QUERY_DEPTH_MAX {
                    let message = format!("a query may nest {} levels", limits::QUERY_DEPTH_MAX);
                    return Err(Error::invalid("query_too_large", message));
                }
                let leg = |(i, leg): (usize, LegBody)| leg.leg(depth).map_err(|e| e.at(format!("/prefetch/{i}")));
                let legs = legs.into_iter().enumerate().map(leg).collect::<Result<_>>()?;
                Ok(AskSource::Prefetch {
                    legs,
                    fuse: self.fuse.map(FuseBody::fuse).transpose()?,
                })
            }
            _ => Err(one_of()),
        }
    }
}

fn fields_in(fields: &[String]) -> Result<Vec<cairn_engine::query::TextField>> {
    fields
        .iter()
        .enumerate()
        .map(|(i, f)| parse_field(f).map_err(|e| e.at(format!("/fields/{i}"))))
        .collect()
}

impl NearestBody {
    fn source(self) -> Result<AskSource> {
        let to = match (self.vector, self.text, self.image, self.audio) {
            (Some(vector), None, None, None) => NearestTo::Vector(vector),
            (None, Some(text), None, None) => NearestTo::Embed(EmbedInput::Text(text)),
            (None, None, Some(image), None) => NearestTo::Embed(EmbedInput::Image(image)),
            (None, None, None, Some(audio)) => NearestTo::Embed(EmbedInput::Audio(audio)),
            _ => {
                return Err(Error::invalid(
                    "bad_query",
                    "nearest holds exactly one of vector, text, image, audio",
                ));
            }
        };
        Ok(AskSource::Nearest {
            using: self.using,
            to,
            embedder: self.embedder.map(EmbedderBody::fingerprint),
        })
    }
}

impl SparseBody {
    fn source(self) -> Result<AskSource> {
        let to = match (self.vector, self.text) {
            (Some(vector), None) => SparseTo::Vector(vector.into()),
            (None, Some(text)) => SparseTo::Text(text),
            _ => {
                return Err(Error::invalid(
                    "bad_query",
                    "sparse holds a vector or a text, and not both",
                ));
            }
        };
        Ok(AskSource::Sparse {
            using: self.using,
            to,
            embedder: self.embedder.map(EmbedderBody::fingerprint),
        })
    }
}

impl LegBody {
    fn leg(self, depth: usize) -> Result<AskLeg> {
        let source = SourceBody {
            nearest: self.nearest,
            sparse: self.sparse,
            text: self.text,
            hybrid: self.hybrid,
            prefetch: self.prefetch,
            fuse: self.fuse,
        };
        Ok(AskLeg {
            name: self.name,
            source: source.source(depth + 1)?,
            filter: filter_in(self.filter)?,
            limit: sizes(self.limit),
        })
    }
}

impl FuseBody {
    fn fuse(self) -> Result<Fuse> {
        match (self.rrf, self.weighted) {
            (Some(rrf), None) => Ok(Fuse::Rrf {
                k: rrf.k.unwrap_or(crate::rag::retrieval::DEFAULT_RRF_K),
                weights: rrf.weights,
            }),
            (None, Some(weighted)) => Ok(Fuse::Weighted {
                weights: weighted.weights,
            }),
            _ => Err(Error::invalid("bad_query", "fuse holds exactly one of rrf, weighted").at("/fuse")),
        }
    }
}

impl QueryBody {
    pub(in crate::rest) fn ask(self) -> Result<Ask> {
        let source = SourceBody {
            nearest: self.nearest,
            sparse: self.sparse,
            text: self.text,
            hybrid: self.hybrid,
            prefetch: self.prefetch,
            fuse: self.fuse,
        };
        Ok(Ask {
            source: source.source(1)?,
            filter: filter_in(self.filter)?,
            limit: sizes(self.limit),
            offset: self.offset as usize,
            score_threshold: self.score_threshold,
            with: with_in(self.with),
            params: Params {
                ef: sizes(self.params.ef),
                nprobe: sizes(self.params.nprobe),
                target_recall: self.params.target_recall,
                exact: self.params.exact,
            },
            after: after_in(self.after)?,
            allow_partial: self.allow_partial,
            ranking: self.ranking.map(RankingBody::ranking).unwrap_or_default(),
        })
    }
}

/// A query's answer.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::rest) struct QueryOut {
    /// Best first, ties by id; with a ranking, in its order.
    hits: Vec<HitOut>,
    /// Token of the moment that was searched.
    token: String,
    /// If asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    explain: Option<Vec<ExplainOut>>,
    /// What the caller should know.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notes: Vec<String>,
    /// Steps of `ranking`, if it was asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    stages: Vec<StageOut>,
    /// Time in the server, queueing included. Absent in a batch.
    #[serde(skip_serializing_if = "Option::is_none")]
    took_ms: Option<f64>,
    /// What is missing; absent if nothing is.
    #[serde(skip_serializing_if = "Option::is_none")]
    partial: Option<PartialOut>,
}

/// A point that was found.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::rest) struct HitOut {
    id: String,
    /// 0..1, higher is better.
    score: f32,
    /// What each leg that found the point thought of it.
    legs: Vec<LegScoreOut>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    payload: Option<Payload>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vectors: Option<BTreeMap<String, Vec<f32>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sparse: Option<BTreeMap<String, SparseVectorBody>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<String>,
    version: String,
}

#[derive(Debug, Serialize, ToSchema)]
pub(in crate::rest) struct LegScoreOut {
    leg: String,
    /// Cosine, inner product, distance, BM25, or what a reranker said (`rerank`), as the metric defines it.
    raw: f32,
    /// Place in that leg, from 1.
    rank: u32,
}

/// What one leg did in one segment.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::rest) struct ExplainOut {
    leg: String,
    shard: u32,
    /// Absent for growing segments.
    #[serde(skip_serializing_if = "Option::is_none")]
    segment: Option<u64>,
    /// `exact`, `codes`, `graph`, `graph+exact`, `graph+codes` or `postings`.
    strategy: &'static str,
    /// Points of the segment that live and match the filter.
    matches: u64,
    /// Distances or postings evaluated.
    evaluated: u64,
}

impl QueryOut {
    pub(in crate::rest) fn alone(answer: Answer) -> Self {
        let took_ms = answer.took_ms;
        Self {
            took_ms: Some(took_ms),
            ..Self::in_batch(answer)
        }
    }

    pub(in crate::rest) fn in_batch(answer: Answer) -> Self {
        let leg = |l: cairn_engine::query::LegScore| LegScoreOut {
            leg: l.leg,
            raw: l.raw,
            rank: l.rank,
        };
        let hit = |h: cairn_engine::query::Hit| HitOut {
            id: h.point.id.as_str().to_owned(),
            score: h.score,
            legs: h.legs.into_iter().map(leg).collect(),
            payload: h.point.payload,
            vectors: h.point.vectors.filter(|v| !v.is_empty()),
            sparse: sparse_out(h.point.sparse),
            document: h.point.document.map(|d| d.as_str().to_owned()),
            version: h.point.version.to_string(),
        };
        let explain = |l: cairn_engine::query::ExplainLeg| ExplainOut {
            leg: l.leg,
            shard: l.shard,
            segment: l.segment,
            strategy: l.strategy,
            matches: l.matches,
            evaluated: l.evaluated,
        };
        Self {
            hits: answer.result.hits.into_iter().map(hit).collect(),
            token: answer.result.seq.to_string(),
            explain: answer.result.explain.map(|e| e.legs.into_iter().map(explain).collect()),
            notes: answer.notes,
            stages: answer.stages.into_iter().map(StageOut::from).collect(),
            took_ms: None,
            partial: partial_of_all(answer.missing),
        }
    }
}

/// Queries on one collection.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::rest) struct QueryBatchBody {
    /// 1 to 1,000.
    queries: Vec<QueryBody>,
}

impl QueryBatchBody {
    pub(in crate::rest) fn asks(self) -> Result<Vec<Ask>> {
        let ask = |(i, q): (usize, QueryBody)| q.ask().map_err(|e| e.at(format!("/queries/{i}")));
        self.queries.into_iter().enumerate().map(ask).collect()
    }
}

/// Answers in the order of the queries.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::rest) struct QueryBatchOut {
    pub(in crate::rest) results: Vec<QueryOut>,
    /// Time in the server, queueing included.
    pub(in crate::rest) took_ms: f64,
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_query_has_exactly_one_source() {
        let ask = |value: Value| serde_json::from_value::<QueryBody>(value).unwrap().ask();
        assert!(ask(json!({"nearest": {"text": "a"}})).is_ok());
        assert!(ask(json!({"hybrid": {"text": "a"}, "limit": 3})).is_ok());
        let legs = json!([{"nearest": {"vector": [1.0]}}, {"text": {"query": "a", "fields": ["title^2", "text"]}}]);
        let both = ask(json!({"prefetch": legs, "fuse": {"rrf": {"k": 60, "weights": [0.3, 1]}}})).unwrap();
        let AskSource::Prefetch { legs, fuse } = both.source else {
            panic!("a prefetch")
        };
        assert_eq!(
            (legs.len(), fuse),
            (
                2,
                Some(Fuse::Rrf {
                    k: 60.0,
                    weights: vec![0.3, 1.0]
                })
            )
        );
        let wrong = [
            (json!({}), None),
            (json!({"nearest": {"text": "a"}, "text": {"query": "a"}}), None),
            (json!({"nearest": {}}), Some("/nearest")),
            (
                json!({"sparse": {"text": "a", "vector": {"indices": [], "values": []}}}),
                Some("/sparse"),
            ),
            (json!({"nearest": {"text": "a"}, "fuse": {"rrf": {}}}), Some("/fuse")),
            (
                json!({"prefetch": [{"text": {"query": "a", "fields": ["t^x"]}}]}),
                Some("/prefetch/0/text/fields/0"),
            ),
            (
                json!({"prefetch": [{"text": {"query": "a"}}], "fuse": {}}),
                Some("/fuse"),
            ),
        ];
        for (value, pointer) in wrong {
            assert_eq!(ask(value).unwrap_err().pointer.as_deref(), pointer);
        }
    }
}
