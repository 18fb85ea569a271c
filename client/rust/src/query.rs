//! One universal question: nearest vectors, full text, the default hybrid, or any tree of them fused.

use serde::Serialize;

use crate::filter::Filter;
use crate::points::{EmbedInput, Partial, SparseVector, StoredPoint};
use crate::ranking::{Ranking, Stage};
use crate::schema::Embedder;

/// A question to one collection.
///
/// ```
/// use cairn_client::{Condition, Fuse, Leg, Query};
/// let simple = Query::hybrid("leader election").limit(5).filter(Condition::equals("lang", "en"));
/// let by_hand = Query::fused([
///     Leg::nearest_text("leader election").limit(100),
///     Leg::text("leader election").fields(["title^2", "text"]).limit(100),
/// ])
/// .fuse(Fuse::Rrf { k: Some(60.0), weights: vec![] });
/// ```
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub struct Query {
    pub(crate) source: Source,
    pub(crate) filter: Filter,
    pub(crate) limit: Option<u32>,
    pub(crate) offset: u32,
    pub(crate) without_payload: bool,
    pub(crate) vectors: bool,
    pub(crate) explain: bool,
    pub(crate) ef: Option<u32>,
    pub(crate) nprobe: Option<u32>,
    pub(crate) target_recall: Option<f32>,
    pub(crate) exact: bool,
    pub(crate) score_threshold: Option<f32>,
    pub(crate) after: Option<String>,
    pub(crate) ranking: Ranking,
    pub(crate) allow_partial: bool,
}

/// Where hits come from.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Source {
    Nearest {
        vector: Vec<f32>,
        using: String,
        made_by: Option<Embedder>,
    },
    NearestEmbedded {
        input: EmbedInput,
        using: String,
    },
    Sparse {
        vector: SparseVector,
        using: String,
        made_by: Option<Embedder>,
    },
    SparseText {
        text: String,
        using: String,
    },
    Text {
        query: String,
        fields: Vec<String>,
    },
    Hybrid {
        text: String,
        using: String,
        fields: Vec<String>,
    },
    Fused {
        legs: Vec<Leg>,
        fuse: Fuse,
    },
}

impl Source {
    fn set_using(&mut self, name: String) {
        match self {
            Self::Nearest { using, .. }
            | Self::NearestEmbedded { using, .. }
            | Self::Sparse { using, .. }
            | Self::SparseText { using, .. }
            | Self::Hybrid { using, .. } => *using = name,
            Self::Text { .. } | Self::Fused { .. } => {}
        }
    }
    fn set_made_by(&mut self, embedder: Embedder) {
        match self {
            Self::Nearest { made_by, .. } | Self::Sparse { made_by, .. } => *made_by = Some(embedder),
            Self::NearestEmbedded { .. }
            | Self::SparseText { .. }
            | Self::Text { .. }
            | Self::Hybrid { .. }
            | Self::Fused { .. } => {}
        }
    }
    fn set_fields(&mut self, names: Vec<String>) {
        match self {
            Self::Text { fields, .. } | Self::Hybrid { fields, .. } => *fields = names,
            Self::Nearest { .. }
            | Self::NearestEmbedded { .. }
            | Self::Sparse { .. }
            | Self::SparseText { .. }
            | Self::Fused { .. } => {}
        }
    }
}

/// How the hits of several legs become one list.
#[derive(Debug, Clone, PartialEq)]
pub enum Fuse {
    /// Reciprocal rank fusion.
    Rrf {
        /// Flattens the head of the lists. Default: 60.
        k: Option<f32>,
        /// One number a leg; empty: 1 each.
        weights: Vec<f32>,
    },
    /// Weighted mean of the legs' normalised scores.
    Weighted {
        /// One number a leg; empty: 1 each.
        weights: Vec<f32>,
    },
}

impl Default for Fuse {
    fn default() -> Self {
        Self::Rrf {
            k: None,
            weights: Vec::new(),
        }
    }
}

impl Query {
    fn of(source: Source) -> Self {
        Self {
            source,
            filter: Filter::new(),
            limit: None,
            offset: 0,
            without_payload: false,
            vectors: false,
            explain: false,
            ef: None,
            nprobe: None,
            target_recall: None,
            exact: false,
            score_threshold: None,
            after: None,
            ranking: Ranking::default(),
            allow_partial: false,
        }
    }
    /// Points whose vector is nearest.
    pub fn nearest(vector: impl Into<Vec<f32>>) -> Self {
        Self::of(Source::Nearest {
            vector: vector.into(),
            using: String::new(),
            made_by: None,
        })
    }
    /// Points whose vector is nearest to that of a text, which the server embeds.
    pub fn nearest_text(text: impl Into<String>) -> Self {
        Self::nearest_embedded(EmbedInput::Text(text.into()))
    }
    /// Points whose vector is nearest to that of an image or a sound, which the server embeds with the vector's model.
    pub fn nearest_embedded(input: impl Into<EmbedInput>) -> Self {
        Self::of(Source::NearestEmbedded {
            input: input.into(),
            using: String::new(),
        })
    }
    /// Points whose sparse vector has the largest inner product with this one.
    pub fn sparse(vector: SparseVector) -> Self {
        Self::of(Source::Sparse {
            vector,
            using: String::new(),
            made_by: None,
        })
    }
    /// The same with the sparse vector of a text, which the server embeds.
    pub fn sparse_text(text: impl Into<String>) -> Self {
        Self::of(Source::SparseText {
            text: text.into(),
            using: String::new(),
        })
    }
    /// BM25 over text fields.
    pub fn text(query: impl Into<String>) -> Self {
        Self::of(Source::Text {
            query: query.into(),
            fields: Vec::new(),
        })
    }
    /// The server's default: nearest text and BM25 with the same words, fused.
    pub fn hybrid(text: impl Into<String>) -> Self {
        Self::of(Source::Hybrid {
            text: text.into(),
            using: String::new(),
            fields: Vec::new(),
        })
    }
    /// Several legs joined into one list.
    pub fn fused(legs: impl IntoIterator<Item = Leg>) -> Self {
        Self::of(Source::Fused {
            legs: legs.into_iter().collect(),
            fuse: Fuse::default(),
        })
    }

    /// How [`Query::fused`] joins its legs; other queries ignore it.
    pub fn fuse(mut self, how: Fuse) -> Self {
        if let Source::Fused { fuse, .. } = &mut self.source {
            *fuse = how;
        }
        self
    }
    /// The model that made the given vector: the server refuses it if the collection records another. Queries without one
    /// ignore it.
    pub fn made_by(mut self, embedder: Embedder) -> Self {
        self.source.set_made_by(embedder);
        self
    }
    /// The vector to search, where a collection has several.
    pub fn using(mut self, name: impl Into<String>) -> Self {
        self.source.set_using(name.into());
        self
    }
    /// The text fields to search, each with an optional weight (`title^2`).
    pub fn fields<S: Into<String>>(mut self, fields: impl IntoIterator<Item = S>) -> Self {
        self.source.set_fields(fields.into_iter().map(Into::into).collect());
        self
    }
    /// Only points that match, in every leg.
    pub fn filter(mut self, filter: impl Into<Filter>) -> Self {
        self.filter = filter.into();
        self
    }
    /// Hits wanted. Default: 10.
    pub fn limit(mut self, limit: u32) -> Self {
        self.limit = Some(limit);
        self
    }
    /// Hits skipped.
    pub fn offset(mut self, offset: u32) -> Self {
        self.offset = offset;
        self
    }
    /// Leaves payloads out.
    pub fn without_payload(mut self) -> Self {
        self.without_payload = true;
        self
    }
    /// Gives vectors too.
    pub fn with_vectors(mut self) -> Self {
        self.vectors = true;
        self
    }
    /// Asks how the query was answered.
    pub fn explain(mut self) -> Self {
        self.explain = true;
        self
    }
    /// Candidates kept by a graph search: more finds more and takes longer.
    pub fn ef(mut self, ef: u32) -> Self {
        self.ef = Some(ef);
        self
    }
    /// Lists of an ivf index that are looked into: more finds more and takes longer.
    pub fn nprobe(mut self, nprobe: u32) -> Self {
        self.nprobe = Some(nprobe);
        self
    }
    /// Share of the k nearest (recall@k) that a search is to find on average, 0.5 to 0.999; anything else is refused
    /// (`bad_target_recall`). Default: 0.95. What that takes was measured in each sealed segment with questions made of its
    /// rows: no promise for one question, and questions unlike any row may find less. [`Query::ef`] and [`Query::nprobe`] win
    /// over it for the index they belong to; [`Query::exact`] finds all.
    pub fn target_recall(mut self, share: f32) -> Self {
        self.target_recall = Some(share);
        self
    }
    /// Scans exactly, uses no index.
    pub fn exact(mut self) -> Self {
        self.exact = true;
        self
    }
    /// Drops hits with a lower final score (0 to 1).
    pub fn score_threshold(mut self, score: f32) -> Self {
        self.score_threshold = Some(score);
        self
    }
    /// Answers only from a state that has seen the write with this token.
    pub fn after(mut self, token: impl Into<String>) -> Self {
        self.after = Some(token.into());
        self
    }
    /// What is done with the hits after they were found and fused.
    pub fn ranking(mut self, ranking: Ranking) -> Self {
        self.ranking = ranking;
        self
    }
    /// Answers without the points of damaged segments, and says so in [`Answer::partial`]; otherwise that is an error
    /// (`segment_damaged`).
    pub fn allow_partial(mut self) -> Self {
        self.allow_partial = true;
        self
    }
}

/// One leg of [`Query::fused`].
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub struct Leg {
    pub(crate) name: String,
    pub(crate) source: Source,
    pub(crate) filter: Filter,
    pub(crate) limit: Option<u32>,
}

impl Leg {
    fn of(source: Source) -> Self {
        Self {
            name: String::new(),
            source,
            filter: Filter::new(),
            limit: None,
        }
    }
    /// As [`Query::nearest`].
    pub fn nearest(vector: impl Into<Vec<f32>>) -> Self {
        Self::of(Source::Nearest {
            vector: vector.into(),
            using: String::new(),
            made_by: None,
        })
    }
    /// As [`Query::nearest_text`].
    pub fn nearest_text(text: impl Into<String>) -> Self {
        Self::nearest_embedded(EmbedInput::Text(text.into()))
    }
    /// As [`Query::nearest_embedded`].
    pub fn nearest_embedded(input: impl Into<EmbedInput>) -> Self {
        Self::of(Source::NearestEmbedded {
            input: input.into(),
            using: String::new(),
        })
    }
    /// As [`Query::sparse`].
    pub fn sparse(vector: SparseVector) -> Self {
        Self::of(Source::Sparse {
            vector,
            using: String::new(),
            made_by: None,
        })
    }
    /// As [`Query::sparse_text`].
    pub fn sparse_text(text: impl Into<String>) -> Self {
        Self::of(Source::SparseText {
            text: text.into(),
            using: String::new(),
        })
    }
    /// As [`Query::text`].
    pub fn text(query: impl Into<String>) -> Self {
        Self::of(Source::Text {
            query: query.into(),
            fields: Vec::new(),
        })
    }
    /// As [`Query::hybrid`].
    pub fn hybrid(text: impl Into<String>) -> Self {
        Self::of(Source::Hybrid {
            text: text.into(),
            using: String::new(),
            fields: Vec::new(),
        })
    }
    /// Legs joined into one leg.
    pub fn fused(legs: impl IntoIterator<Item = Self>, fuse: Fuse) -> Self {
        Self::of(Source::Fused {
            legs: legs.into_iter().collect(),
            fuse,
        })
    }
    /// Name under which its scores are reported.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }
    /// As [`Query::made_by`].
    pub fn made_by(mut self, embedder: Embedder) -> Self {
        self.source.set_made_by(embedder);
        self
    }
    /// The vector to search, where a collection has several.
    pub fn using(mut self, name: impl Into<String>) -> Self {
        self.source.set_using(name.into());
        self
    }
    /// The text fields to search, each with an optional weight (`title^2`).
    pub fn fields<S: Into<String>>(mut self, fields: impl IntoIterator<Item = S>) -> Self {
        self.source.set_fields(fields.into_iter().map(Into::into).collect());
        self
    }
    /// Restricts this leg further.
    pub fn filter(mut self, filter: impl Into<Filter>) -> Self {
        self.filter = filter.into();
        self
    }
    /// Candidates taken from this leg. Default: 100.
    pub fn limit(mut self, limit: u32) -> Self {
        self.limit = Some(limit);
        self
    }
}

/// A query's answer.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Answer {
    /// Best first, ties by id; with a ranking, in its order.
    pub hits: Vec<Hit>,
    /// Token of the moment that was searched.
    pub token: String,
    /// How it was answered, if asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub explain: Vec<Explain>,
    /// Time in the server, queueing included.
    pub took_ms: f64,
    /// What the caller should know.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Steps of the ranking, if one was asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stages: Vec<Stage>,
    /// What is missing, if the query allowed that and something is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partial: Option<Partial>,
}

/// One hit.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Hit {
    /// The point; payload and vectors as asked for.
    #[serde(flatten)]
    pub point: StoredPoint,
    /// 0..1, higher is better.
    pub score: f32,
    /// What each leg that found the point thought of it.
    pub legs: Vec<LegScore>,
}

/// What one leg thought of a hit.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct LegScore {
    /// The leg's name.
    pub leg: String,
    /// Cosine, inner product, distance or BM25.
    pub raw: f32,
    /// Place in that leg, from 1.
    pub rank: u32,
}

/// What one leg did in one segment.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Explain {
    /// The leg's name.
    pub leg: String,
    /// Shard number.
    pub shard: u32,
    /// Segment number; growing segments have none.
    pub segment: Option<u64>,
    /// `exact`, `codes`, `graph`, `graph+exact`, `graph+codes` or `postings`.
    pub strategy: String,
    /// Points of the segment that live and match the filter.
    pub matches: u64,
    /// Distances or postings evaluated.
    pub evaluated: u64,
}
