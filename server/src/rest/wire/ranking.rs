//! Rankings and stages in JSON.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::sizes;
use crate::service::{Cap, Decay, Mmr, NearDuplicates, Ranking, Rerank, Stage};

/// What is done with hits after they were found and fused, in the order of these fields. Each step is optional, works on
/// the payloads that the hits have, and is reported in the answer's `stages`, with what it skipped and why.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::rest) struct RankingBody {
    /// Multiplies scores by age.
    decay: Option<DecayBody>,
    /// Orders the best anew by a model that reads question and text together.
    rerank: Option<RerankBody>,
    /// Leaves out what says almost the same as a better hit.
    near_duplicates: Option<NearDuplicatesBody>,
    /// At most so many hits per value of a field.
    #[serde(default)]
    caps: Vec<CapBody>,
    /// Prefers hits that differ from those before them.
    mmr: Option<MmrBody>,
}

/// score * (1 - weight + weight * 2^(-age / half_life)). Points without the field keep their score.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct DecayBody {
    /// Dotted path of a number (milliseconds since the Unix epoch) or a string (RFC 3339).
    field: String,
    /// At least 1.
    half_life_ms: u64,
    /// 0 to 1. Default: 1.
    weight: Option<f32>,
    /// What age is counted from, in milliseconds since the Unix epoch. Default: now.
    origin_ms: Option<u64>,
}

/// The reranker's score, 0 to 1, becomes the hit's; what it was before is among its legs as `retrieval`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RerankBody {
    /// One of the server's rerankers; may be left out if there is exactly one.
    model: Option<String>,
    /// The words to compare with. Default: those of the query.
    query: Option<String>,
    /// Hits that are reranked, best first, 1 to 1,000; others follow behind them. Default: 50.
    top: Option<u32>,
    /// How long it may take; what is not scored by then keeps its order behind what is. 1 to 60,000. Default: 1,000.
    budget_ms: Option<u32>,
    /// Dotted path of the text. Default: `text`.
    field: Option<String>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NearDuplicatesBody {
    /// Least Jaccard similarity of word 3-shingles, above 0 to 1. Default: 0.85.
    threshold: Option<f32>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CapBody {
    /// Dotted path, e.g. `document` or `source`.
    field: String,
    /// At least 1.
    most: u32,
}

/// Maximal marginal relevance (Carbonell & Goldstein 1998) over the hits' dense vectors.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct MmrBody {
    /// 1: relevance alone, 0: diversity alone. Default: 0.7.
    lambda: Option<f32>,
    /// Hits that are chosen from, 1 to 1,000. Default: 100, at least the hits wanted.
    candidates: Option<u32>,
    /// Vector name; may be left out if the collection has exactly one, or a `dense`.
    using: Option<String>,
}

impl RankingBody {
    pub(super) fn ranking(self) -> Ranking {
        let decay = |d: DecayBody| Decay {
            field: d.field,
            half_life_ms: d.half_life_ms,
            weight: d.weight,
            origin_ms: d.origin_ms,
        };
        let rerank = |r: RerankBody| Rerank {
            model: r.model,
            query: r.query,
            top: sizes(r.top),
            budget_ms: r.budget_ms.map(u64::from),
            field: r.field,
        };
        let cap = |c: CapBody| Cap {
            field: c.field,
            most: c.most as usize,
        };
        let mmr = |m: MmrBody| Mmr {
            lambda: m.lambda,
            candidates: sizes(m.candidates),
            using: m.using,
        };
        Ranking {
            decay: self.decay.map(decay),
            rerank: self.rerank.map(rerank),
            near_duplicates: self.near_duplicates.map(|n| NearDuplicates { threshold: n.threshold }),
            caps: self.caps.into_iter().map(cap).collect(),
            mmr: self.mmr.map(mmr),
        }
    }
}

/// One step of answering a question.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::rest) struct StageOut {
    /// `condense`, `embed`, `retrieve`, `decay`, `rerank`, `near_duplicates`, `caps`, `mmr`, `neighbours`, `pack`, `render`.
    name: &'static str,
    took_ms: f64,
    /// Hits before.
    r#in: usize,
    /// Hits after.
    out: usize,
    /// What was not done, and why; absent if everything was.
    #[serde(skip_serializing_if = "Option::is_none")]
    skipped: Option<String>,
}

impl From<Stage> for StageOut {
    fn from(stage: Stage) -> Self {
        Self {
            name: stage.name,
            took_ms: stage.took_ms,
            r#in: stage.hits_in,
            out: stage.hits_out,
            skipped: stage.skipped,
        }
    }
}
