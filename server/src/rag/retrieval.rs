//! The default hybrid retrieval: which legs, how many candidates, how they are fused. The one place to tune it.
//!
//! The numbers were chosen on 5,000 questions of SQuAD train, never on dev, by `cairn-bench squad --split train --fit`: the highest
//! recall@10, then nDCG@10, of 432 settings (built-in embedder, the best hundred of each leg):
//!
//! | setting                                        | recall@10 | nDCG@10 |
//! |------------------------------------------------|-----------|---------|
//! | dense alone                                    | 0.7570    | 0.5906  |
//! | BM25 alone, text                               | 0.9135    | 0.8141  |
//! | BM25 alone, text + title^0.25                  | 0.9158    | 0.8154  |
//! | **weighted, dense 0.3, text + title^0.25**     | 0.9263    | 0.8240  |
//! | weighted, dense 0.4, text                      | 0.9246    | 0.8235  |
//! | best by ranks: k 10, dense 0.5, the same text  | 0.9259    | 0.7972  |
//!
//! Ranks alone forget by how much BM25 prefers its first hit, which costs nDCG when the other leg is much weaker.
//!
//! A stronger model deserves a larger weight. all-MiniLM-L6-v2 reads too slowly to embed all of train: 71 of its articles with
//! 853 questions (every fourth of the first 284), by `cairn eval --fit`:
//!
//! | setting, text + title^0.25                     | recall@10 | nDCG@10 |
//! |------------------------------------------------|-----------|---------|
//! | dense alone                                    | 0.9238    | 0.7794  |
//! | BM25 alone, all fields                         | 0.9531    | 0.8577  |
//! | weighted, dense 0.3                            | 0.9648    | 0.8761  |
//! | weighted, dense 0.7                            | 0.9683    | 0.8868  |
//! | **weighted, dense 1**                          | 0.9777    | 0.8874  |
//! | best by ranks: k 10, dense 0.85, text + title  | 0.9789    | 0.8719  |
//!
//! The rule that follows: the built-in table weighs 0.3, any other model as much as BM25, unless its configuration says more.

use cairn_engine::query::{Fuse, Input, Source, TextField};
use cairn_engine::schema::Schema;

/// Name of the dense leg, and of the vector that the documents preset makes.
pub const DENSE: &str = "dense";
/// Name of the leg of sparse vectors.
pub const SPARSE: &str = "sparse";
/// Name of the full text leg.
pub const BM25: &str = "bm25";
/// `k` of a fusion by ranks that names none. The value of the paper (Cormack, Clarke & Buettcher 2009).
pub const DEFAULT_RRF_K: f32 = 60.0;
/// Weight of the dense leg of the built-in table: it is weaker than BM25 on English prose, so it corrects rather than leads.
pub const STATIC_DENSE_WEIGHT: f32 = 0.3;
/// Weight of the dense leg of any other model whose configuration names none: that of MiniLM, the smallest one that people
/// use.
pub const MODEL_DENSE_WEIGHT: f32 = 1.0;
/// Weight of the full text leg.
pub const DEFAULT_BM25_WEIGHT: f32 = 1.0;
/// Candidates taken from each leg, at least the hits wanted.
pub const DEFAULT_LEG_LIMIT: usize = 100;
/// Text fields of the full text leg and their weights, those that the collection has; all of its fields if it has none.
pub const DEFAULT_TEXT_FIELDS: [(&str, f32); 2] = [("text", 1.0), ("title", 0.25)];

/// The text fields searched when a request names none.
pub fn default_fields(schema: &Schema) -> Vec<TextField> {
    DEFAULT_TEXT_FIELDS
        .iter()
        .filter(|(path, _)| schema.text_fields().any(|(declared, _)| declared == *path))
        .map(|(path, weight)| TextField {
            path: (*path).to_owned(),
            weight: *weight,
        })
        .collect()
}

/// What the dense leg of a hybrid is asked with.
#[derive(Debug, Clone, PartialEq)]
pub struct DenseLeg {
    /// Name of the vector.
    pub using: String,
    /// The question's.
    pub vector: Vec<f32>,
    /// Weight of the leg.
    pub weight: f32,
}

/// Both legs fused by their normalised scores; without a dense one, BM25 alone under its usual name.
pub fn hybrid(dense: Option<DenseLeg>, text: String, fields: Vec<TextField>, wanted: usize) -> Source {
    let leg = |name: &str, source| Input {
        name: Some(name.to_owned()),
        source,
        filter: cairn_engine::filter::Filter::default(),
        limit: DEFAULT_LEG_LIMIT.max(wanted),
    };
    let mut inputs = Vec::with_capacity(2);
    let mut weights = Vec::with_capacity(2);
    if let Some(dense) = dense {
        inputs.push(leg(
            DENSE,
            Source::Nearest {
                using: Some(dense.using),
                vector: dense.vector,
            },
        ));
        weights.push(dense.weight);
    }
    inputs.push(leg(BM25, Source::Text { query: text, fields }));
    weights.push(DEFAULT_BM25_WEIGHT);
    Source::Fusion {
        inputs,
        method: Fuse::Weighted { weights },
    }
}
