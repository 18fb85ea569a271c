//! The shape of a query and of its answer: plain data, no logic but bounds.

use crate::error::{Error, Result};
use crate::filter::Filter;
use crate::limits;
use crate::patience::Patience;
use crate::types::{Point, SparseVector, Token};

/// One retrieval request on one collection.
#[derive(Debug, Clone)]
pub struct Query {
    /// Where candidates come from.
    pub source: Source,
    /// Which points may be answered, in every leg.
    pub filter: Filter,
    /// Hits wanted.
    pub limit: usize,
    /// Hits skipped.
    pub offset: usize,
    /// Hits whose final score is lower are dropped (after fusion; the score is 0..1).
    pub score_threshold: Option<f32>,
    /// What hits carry.
    pub with: With,
    /// Expert settings.
    pub params: Params,
    /// Answer only from a view that has seen this write.
    pub after: Option<Token>,
    /// How long the caller waits; then there is an error, never a short list.
    pub patience: Patience,
}

/// Where candidates come from.
#[derive(Debug, Clone, PartialEq)]
pub enum Source {
    /// Nearest vectors.
    Nearest {
        /// Vector name; may be omitted if the collection has exactly one.
        using: Option<String>,
        /// Query vector.
        vector: Vec<f32>,
    },
    /// Largest inner products with a sparse vector.
    Sparse {
        /// Sparse vector name; may be omitted if the collection has exactly one.
        using: Option<String>,
        /// Query vector.
        vector: SparseVector,
    },
    /// BM25 over text fields.
    Text {
        /// The words.
        query: String,
        /// Fields and their weights; empty means every text field with weight 1.
        fields: Vec<TextField>,
    },
    /// Joins the hits of several sources.
    Fusion {
        /// The sources.
        inputs: Vec<Input>,
        /// How their hits become one list.
        method: Fuse,
    },
}

/// A text field and its weight.
#[derive(Debug, Clone, PartialEq)]
pub struct TextField {
    /// Dotted path of a text field.
    pub path: String,
    /// Multiplies the field's BM25 score.
    pub weight: f32,
}

/// One leg of a fusion.
#[derive(Debug, Clone, PartialEq)]
pub struct Input {
    /// Name under which its scores are reported (`dense`, `bm25`, ...). Defaults to the kind of source and its place.
    pub name: Option<String>,
    /// The leg.
    pub source: Source,
    /// Restricts this leg further.
    pub filter: Filter,
    /// Candidates taken from this leg.
    pub limit: usize,
}

/// How hits of several legs become one list.
#[derive(Debug, Clone, PartialEq)]
pub enum Fuse {
    /// Reciprocal rank fusion (Cormack, Clarke & Buettcher 2009): sum of w / (k + rank), rank from 1, scaled to 0..1.
    Rrf {
        /// Flattens the head of the lists.
        k: f32,
        /// One weight a leg; empty means 1 each.
        weights: Vec<f32>,
    },
    /// Weighted mean of the legs' scores, each min-max normalised over its candidates to 0..1.
    Weighted {
        /// One weight a leg; empty means 1 each.
        weights: Vec<f32>,
    },
}

/// What hits carry besides id and scores.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct With {
    /// The payload.
    pub payload: bool,
    /// The vectors.
    pub vectors: bool,
    /// The plan and its costs.
    pub explain: bool,
}

/// Expert settings.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Params {
    /// Candidates kept by a graph search, never fewer than the hits wanted (default: as many as `target_recall` needs).
    pub ef: Option<usize>,
    /// Inverted lists that a search looks into, and more if that is not enough for the hits wanted (default: as far as was
    /// measured when a segment was made).
    pub nprobe: Option<usize>,
    /// Share of the k nearest (recall@k) that a search of a sealed segment is to find on average, by what was measured with
    /// questions made of stored rows when its graph or lists were made: [`limits::TARGET_RECALL_MIN`] to
    /// [`limits::TARGET_RECALL_MAX`] (default [`limits::TARGET_RECALL_DEFAULT`]). A mean and no promise for one question;
    /// questions unlike any row may find less. With a filter a search makes at least the default effort. `ef` and `nprobe`
    /// say the effort directly instead, and win over it for the index they belong to; `exact` always answers exactly.
    pub target_recall: Option<f32>,
    /// Scan exactly, use no index.
    pub exact: bool,
}

/// One hit.
#[derive(Debug, Clone, PartialEq)]
pub struct Hit {
    /// The point; payload and vectors as asked for.
    pub point: Point,
    /// 0..1, higher is better; how it is made from the raw score is documented in [`crate::query::score`].
    pub score: f32,
    /// The raw score and rank in each leg that found it.
    pub legs: Vec<LegScore>,
}

/// What one leg thought of a hit.
#[derive(Debug, Clone, PartialEq)]
pub struct LegScore {
    /// The leg's name.
    pub leg: String,
    /// Cosine, inner product, distance or BM25, as the metric defines it.
    pub raw: f32,
    /// Place in that leg, from 1.
    pub rank: u32,
}

/// A query's answer.
#[derive(Debug, Clone, Default)]
pub struct QueryResult {
    /// Best first; ties by id.
    pub hits: Vec<Hit>,
    /// The moment that was searched.
    pub seq: Token,
    /// Bytes of payloads and vectors in it.
    pub bytes: usize,
    /// Present if asked for.
    pub explain: Option<Explain>,
}

/// How a query was answered.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Explain {
    /// One entry a leg and segment.
    pub legs: Vec<ExplainLeg>,
}

/// What one leg did in one segment.
#[derive(Debug, Clone, PartialEq)]
pub struct ExplainLeg {
    /// The leg's name.
    pub leg: String,
    /// Shard number.
    pub shard: u32,
    /// Segment number; growing segments have none.
    pub segment: Option<u64>,
    /// `exact`, `codes`, `graph`, `graph+exact` and `graph+codes` (a filtered walk that came back short, or would have cost more
    /// than a scan, and was finished by one), or `postings`.
    pub strategy: &'static str,
    /// Points of the segment that live and match the filter.
    pub matches: u64,
    /// Distances or postings evaluated.
    pub evaluated: u64,
}

impl Query {
    /// Everything about a query that can be refused without a schema. Errors carry a JSON pointer.
    pub fn check(&self) -> Result<()> {
        if self.limit == 0 || self.limit.saturating_add(self.offset) > limits::TOP_K_MAX {
            return Err(Error::invalid(
                "bad_limit",
                format!(
                    "limit must be at least 1 and limit + offset at most {}, got {} + {}",
                    limits::TOP_K_MAX,
                    self.limit,
                    self.offset
                ),
            )
            .at("/limit"));
        }
        if let Some(ef) = self.params.ef
            && (ef == 0 || ef > limits::EF_MAX)
        {
            return Err(
                Error::invalid("bad_ef", format!("ef must be 1 to {}, got {ef}", limits::EF_MAX)).at("/params/ef"),
            );
        }
        if let Some(nprobe) = self.params.nprobe
            && (nprobe == 0 || nprobe > limits::LISTS_MAX as usize)
        {
            return Err(Error::invalid(
                "bad_nprobe",
                format!("nprobe must be 1 to {}, got {nprobe}", limits::LISTS_MAX),
            )
            .at("/params/nprobe"));
        }
        // Not a number is in no range.
        if let Some(recall) = self.params.target_recall
            && !(limits::TARGET_RECALL_MIN..=limits::TARGET_RECALL_MAX).contains(&recall)
        {
            return Err(Error::invalid(
                "bad_target_recall",
                format!(
                    "target_recall must be {} to {} (exact: true finds all), got {recall}",
                    limits::TARGET_RECALL_MIN,
                    limits::TARGET_RECALL_MAX
                ),
            )
            .at("/params/target_recall"));
        }
        if let Some(t) = self.score_threshold
            && !(0.0..=1.0).contains(&t)
        {
            return Err(Error::invalid(
                "bad_score_threshold",
                format!("score_threshold must be 0 to 1, got {t}"),
            )
            .at("/score_threshold"));
        }
        self.filter.check().map_err(|e| e.at("/filter"))?;
        let mut legs = 0;
        self.source.check(1, &mut legs)
    }
}

impl Source {
    fn check(&self, depth: usize, legs: &mut usize) -> Result<()> {
        *legs += 1;
        if depth > limits::QUERY_DEPTH_MAX || *legs > limits::QUERY_LEGS_MAX {
            return Err(Error::invalid(
                "query_too_large",
                format!(
                    "a query may nest {} levels and hold {} legs",
                    limits::QUERY_DEPTH_MAX,
                    limits::QUERY_LEGS_MAX
                ),
            )
            .at("/prefetch"));
        }
        match self {
            Self::Nearest { vector, .. } => check_vector(vector).map_err(|e| e.at("/nearest/vector")),
            Self::Sparse { vector, .. } => vector.check().map_err(|e| e.at("/sparse/vector")),
            Self::Text { query, fields } => {
                if query.len() > limits::QUERY_TEXT_BYTES_MAX {
                    return Err(Error::invalid(
                        "query_too_large",
                        format!(
                            "a text query is at most {} bytes, got {}",
                            limits::QUERY_TEXT_BYTES_MAX,
                            query.len()
                        ),
                    )
                    .at("/text/query"));
                }
                if fields.len() > limits::FIELDS_MAX {
                    return Err(Error::invalid(
                        "query_too_large",
                        format!(
                            "a text query searches at most {} fields, got {}",
                            limits::FIELDS_MAX,
                            fields.len()
                        ),
                    )
                    .at("/text/fields"));
                }
                match fields
                    .iter()
                    .position(|f| !(0.0..=limits::WEIGHT_MAX).contains(&f.weight))
                {
                    Some(i) => Err(Error::invalid(
                        "bad_weight",
                        format!("a field weight must be at least 0 and at most {:e}", limits::WEIGHT_MAX),
                    )
                    .at(format!("/text/fields/{i}"))),
                    None => Ok(()),
                }
            }
            Self::Fusion { inputs, method } => {
                if inputs.is_empty() {
                    return Err(Error::invalid("bad_query", "prefetch must hold at least one leg").at("/prefetch"));
                }
                let (Fuse::Rrf { weights, .. } | Fuse::Weighted { weights }) = method;
                if !weights.is_empty() && weights.len() != inputs.len() {
                    return Err(Error::invalid(
                        "bad_weight",
                        format!(
                            "weights must name one number a leg ({}), got {}",
                            inputs.len(),
                            weights.len()
                        ),
                    )
                    .at("/fuse"));
                }
                if weights.iter().any(|w| !(0.0..=limits::WEIGHT_MAX).contains(w))
                    || (!weights.is_empty() && weights.iter().all(|w| *w == 0.0))
                {
                    return Err(Error::invalid(
                        "bad_weight",
                        format!(
                            "weights must be at least 0, at most {:e}, and not all 0",
                            limits::WEIGHT_MAX
                        ),
                    )
                    .at("/fuse"));
                }
                if let Fuse::Rrf { k, .. } = method
                    && !(k.is_finite() && *k >= 0.0)
                {
                    return Err(
                        Error::invalid("bad_query", "rrf k must be a finite number of at least 0").at("/fuse/rrf/k"),
                    );
                }
                for (i, input) in inputs.iter().enumerate() {
                    let at = format!("/prefetch/{i}");
                    if input.limit == 0 || input.limit > limits::TOP_K_MAX {
                        return Err(Error::invalid(
                            "bad_limit",
                            format!("limit must be 1 to {}, got {}", limits::TOP_K_MAX, input.limit),
                        )
                        .at(format!("{at}/limit")));
                    }
                    input.filter.check().map_err(|e| e.at(format!("{at}/filter")))?;
                    input.source.check(depth + 1, legs).map_err(|e| e.at(&at))?;
                }
                Ok(())
            }
        }
    }
}

/// A vector without NaN and infinities, and not so long that products of two of them are.
pub(crate) fn check_vector(vector: &[f32]) -> Result<()> {
    if let Some(i) = vector.iter().position(|x| !x.is_finite()) {
        return Err(Error::invalid(
            "not_finite",
            format!("a vector must hold finite numbers, element {i} is {}", vector[i]),
        ));
    }
    let length = vector.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    if length > limits::VECTOR_LENGTH_MAX {
        return Err(Error::invalid(
            "vector_too_long",
            format!(
                "a vector's Euclidean length is at most {:e}, got {length:e}: scale it down",
                limits::VECTOR_LENGTH_MAX
            ),
        ));
    }
    Ok(())
}
