//! What is done with hits after they were found: age, a reranker, near duplicates, caps, diversity.

use serde::Serialize;

/// Steps after retrieval, always in this order, each only if it is set.
///
/// ```
/// use cairn_client::{Query, Ranking};
/// use std::time::Duration;
/// let month = Duration::from_secs(30 * 24 * 3_600);
/// let query = Query::hybrid("leader election")
///     .ranking(Ranking::new().decay("published", month).near_duplicates().cap("document", 2).mmr());
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
#[must_use]
pub struct Ranking {
    /// Multiplies scores by age.
    pub decay: Option<Decay>,
    /// Orders the best anew by a model that reads question and text together.
    pub rerank: Option<Rerank>,
    /// Leaves out what says almost the same as a better hit: least Jaccard similarity, `None` for the server's default.
    pub near_duplicates: Option<Option<f32>>,
    /// At most so many hits per value of a field.
    pub caps: Vec<(String, u32)>,
    /// Prefers hits that differ from those before them.
    pub mmr: Option<Mmr>,
}

/// Multiplies scores by age: half after every half-life.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Decay {
    /// Path of a number (milliseconds since the Unix epoch) or a string (RFC 3339).
    pub field: String,
    /// At least 1.
    pub half_life_ms: u64,
    /// How much of the score age decides, 0 to 1. Default: 1.
    pub weight: Option<f32>,
    /// What age is counted from. Default: now.
    pub origin_ms: Option<u64>,
}

/// Orders the best hits anew. What is `None` or empty gets the server's default.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rerank {
    /// One of the server's rerankers; may be empty if there is exactly one.
    pub model: String,
    /// The words to compare with; empty: those of the query.
    pub query: String,
    /// Hits that are reranked. Default: 50.
    pub top: Option<u32>,
    /// How long it may take. Default: 1,000.
    pub budget_ms: Option<u32>,
    /// Path of the text. Default: `text`.
    pub field: String,
}

/// Maximal marginal relevance. What is `None` or empty gets the server's default.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Mmr {
    /// 1: relevance alone, 0: diversity alone. Default: 0.7.
    pub lambda: Option<f32>,
    /// Hits that are chosen from. Default: 100.
    pub candidates: Option<u32>,
    /// Vector name.
    pub using: String,
}

impl Decay {
    /// Scores halve with every half-life of the time in `field`.
    pub fn new(field: impl Into<String>, half_life: std::time::Duration) -> Self {
        Self {
            field: field.into(),
            half_life_ms: u64::try_from(half_life.as_millis()).unwrap_or(u64::MAX),
            ..Self::default()
        }
    }
}

impl Ranking {
    /// No step yet.
    pub fn new() -> Self {
        Self::default()
    }
    /// Scores halve with every half-life of the time in `field`.
    pub fn decay(mut self, field: impl Into<String>, half_life: std::time::Duration) -> Self {
        self.decay = Some(Decay::new(field, half_life));
        self
    }
    /// Orders the best anew with one of the server's rerankers; an empty name is the only one.
    pub fn rerank(mut self, model: impl Into<String>) -> Self {
        self.rerank = Some(Rerank {
            model: model.into(),
            ..Rerank::default()
        });
        self
    }
    /// Leaves out what says almost the same as a better hit.
    pub fn near_duplicates(mut self) -> Self {
        self.near_duplicates = Some(None);
        self
    }
    /// At most so many hits per value of a field; may be said several times.
    pub fn cap(mut self, field: impl Into<String>, most: u32) -> Self {
        self.caps.push((field.into(), most));
        self
    }
    /// Prefers hits that differ from those before them.
    pub fn mmr(mut self) -> Self {
        self.mmr = Some(Mmr::default());
        self
    }
}

/// One step of answering a question.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Stage {
    /// `condense`, `embed`, `retrieve`, `decay`, `rerank`, `near_duplicates`, `caps`, `mmr`, `neighbours`, `pack`, `render`.
    pub name: String,
    /// How long it took.
    pub took_ms: f64,
    /// Hits before.
    pub r#in: u32,
    /// Hits after.
    pub out: u32,
    /// What was not done, and why; none if everything was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skipped: Option<String>,
}
