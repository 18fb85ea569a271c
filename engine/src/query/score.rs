//! From what a metric measures to one score: 0 to 1, higher is better, the same map for every query.
//!
//! | metric    | raw score              | score                      |
//! |-----------|------------------------|----------------------------|
//! | cosine    | cosine similarity      | (1 + raw) / 2              |
//! | dot       | inner product          | 1 / (1 + e^-raw)           |
//! | euclid    | L2 distance            | 1 / (1 + raw)              |
//! | manhattan | L1 distance            | 1 / (1 + raw)              |
//! | hamming   | dimensions that differ | 1 - raw / dim              |
//! | sparse    | inner product          | (1 + raw / (\|raw\| + 10)) / 2 |
//! | BM25      | sum over terms, >= 0   | raw / (raw + 10)           |
//! | RRF       | sum of w / (k + rank)  | raw / (sum of w / (k + 1)) |
//! | weighted  | weighted mean of min-max normalised legs, already 0 to 1 |
//!
//! Each map is monotone and hits are ordered before it is applied, so it never changes an order (a dot product beyond
//! about 17 is 1 in f32, and stays ordered by what it was); a threshold means the same for every query of a metric.

use crate::schema::{Metric, VectorSpec};

/// The BM25 score that maps to one half.
pub const BM25_HALF: f32 = 10.0;

/// Score of a raw vector similarity or distance.
pub fn of_vector(spec: &VectorSpec, raw: f32) -> f32 {
    let score = match spec.metric {
        Metric::Cosine => (1.0 + raw) / 2.0,
        Metric::Dot => 1.0 / (1.0 + (-raw).exp()),
        Metric::Euclid | Metric::Manhattan => 1.0 / (1.0 + raw),
        Metric::Hamming => 1.0 - raw / spec.dim as f32,
    };
    score.clamp(0.0, 1.0)
}

/// The inner product of sparse vectors that maps to three quarters; its negative maps to one quarter.
pub const SPARSE_HALF: f32 = 10.0;

/// Score of an inner product of sparse vectors. Not the map of dense ones: learned sparse products are in the tens, where
/// that one is 1 for all.
pub fn of_sparse(raw: f32) -> f32 {
    (1.0 + raw / (raw.abs() + SPARSE_HALF)) / 2.0
}

/// Score of a BM25 sum.
pub fn of_bm25(raw: f32) -> f32 {
    raw / (raw + BM25_HALF)
}
