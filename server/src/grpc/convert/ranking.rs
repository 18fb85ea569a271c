//! Rankings and stages in messages.

use cairn_proto::v1 as pb;

use super::{count_out, size_in, text_in};
use crate::service::{Cap, Decay, Mmr, NearDuplicates, Ranking, Rerank, Stage};

pub(super) fn ranking_in(ranking: Option<pb::Ranking>) -> Ranking {
    let ranking = ranking.unwrap_or_default();
    let decay = |d: pb::Decay| Decay {
        field: d.field,
        half_life_ms: d.half_life_ms,
        weight: d.weight,
        origin_ms: d.origin_ms,
    };
    let rerank = |r: pb::Rerank| Rerank {
        model: text_in(r.model),
        query: text_in(r.query),
        top: r.top.map(size_in),
        budget_ms: r.budget_ms.map(u64::from),
        field: text_in(r.field),
    };
    let cap = |c: pb::Cap| Cap {
        field: c.field,
        most: size_in(c.most),
    };
    let mmr = |m: pb::Mmr| Mmr {
        lambda: m.lambda,
        candidates: m.candidates.map(size_in),
        using: text_in(m.using),
    };
    Ranking {
        decay: ranking.decay.map(decay),
        rerank: ranking.rerank.map(rerank),
        near_duplicates: ranking
            .near_duplicates
            .map(|n| NearDuplicates { threshold: n.threshold }),
        caps: ranking.caps.into_iter().map(cap).collect(),
        mmr: ranking.mmr.map(mmr),
    }
}

pub(super) fn stage_out(stage: Stage) -> pb::Stage {
    pb::Stage {
        name: stage.name.to_owned(),
        took_ms: stage.took_ms,
        r#in: count_out(stage.hits_in),
        out: count_out(stage.hits_out),
        skipped: stage.skipped,
    }
}
