//! Points: ids, vectors, payloads.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use crate::filter::Filter;

/// A point's payload: a JSON object. Integers come back as they went in.
pub type Payload = serde_json::Map<String, Value>;

/// Dense vectors by name.
pub type Vectors = BTreeMap<String, Vec<f32>>;

/// Weights by term number, as SPLADE and its like make them.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct SparseVector {
    /// Term numbers, strictly ascending.
    pub indices: Vec<u32>,
    /// As many weights, finite and not 0.
    pub values: Vec<f32>,
}

impl FromIterator<(u32, f32)> for SparseVector {
    /// Of terms in any order; weights of 0 are left out, and of equal terms the last counts.
    fn from_iter<I: IntoIterator<Item = (u32, f32)>>(terms: I) -> Self {
        let terms: BTreeMap<u32, f32> = terms.into_iter().collect();
        let (indices, values) = terms.into_iter().filter(|(_, weight)| *weight != 0.0).unzip();
        Self { indices, values }
    }
}

/// Sparse vectors by name.
pub type SparseVectors = BTreeMap<String, SparseVector>;

/// A point to write. Writing an id again replaces the whole point.
#[derive(Debug, Clone, Default, PartialEq)]
#[must_use]
pub struct Point {
    /// Chosen by the caller: 1 to 512 bytes of UTF-8.
    pub id: String,
    /// The vector of a collection that has exactly one.
    pub vector: Option<Vec<f32>>,
    /// Vectors by name.
    pub vectors: Vectors,
    /// What the server embeds, by the name of a vector that has an embedder and is not given above.
    pub embed: BTreeMap<String, EmbedInput>,
    /// Sparse vectors by name.
    pub sparse: SparseVectors,
    /// JSON payload.
    pub payload: Payload,
    /// The document this point is a chunk of, if any.
    pub document: Option<String>,
    /// Milliseconds since the Unix epoch after which the point is invisible.
    pub expires_at_ms: Option<u64>,
}

/// What an embedder makes a vector of. References are http(s) URLs or `data:` URIs; only models that say so take them.
/// A `&str` or a `String` is a text.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum EmbedInput {
    /// A text.
    Text(String),
    /// A reference to an image.
    Image(String),
    /// A reference to a sound.
    Audio(String),
}

impl Point {
    /// A point without vectors and payload.
    pub fn new(id: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            ..Self::default()
        }
    }
    /// The vector of a collection that has exactly one.
    pub fn vector(mut self, vector: impl Into<Vec<f32>>) -> Self {
        self.vector = Some(vector.into());
        self
    }
    /// One of several named vectors.
    pub fn named_vector(mut self, name: impl Into<String>, vector: impl Into<Vec<f32>>) -> Self {
        self.vectors.insert(name.into(), vector.into());
        self
    }
    /// Lets the server embed a text for one of its named vectors.
    pub fn embed_text(self, vector: impl Into<String>, text: impl Into<String>) -> Self {
        self.embed(vector, EmbedInput::Text(text.into()))
    }
    /// Lets the server make one of its named vectors.
    pub fn embed(mut self, vector: impl Into<String>, input: impl Into<EmbedInput>) -> Self {
        self.embed.insert(vector.into(), input.into());
        self
    }
    /// One of the sparse vectors.
    pub fn sparse_vector(mut self, name: impl Into<String>, vector: SparseVector) -> Self {
        self.sparse.insert(name.into(), vector);
        self
    }
    /// Sets one key of the payload.
    pub fn with(mut self, key: impl Into<String>, value: impl Into<Value>) -> Self {
        self.payload.insert(key.into(), value.into());
        self
    }
    /// Sets the whole payload.
    pub fn payload(mut self, payload: Payload) -> Self {
        self.payload = payload;
        self
    }
    /// About how many bytes it takes on the wire; what batches are bounded by.
    pub(crate) fn bytes(&self) -> usize {
        let vectors = self
            .vector
            .iter()
            .chain(self.vectors.values())
            .map(|v| v.len() * 4)
            .sum::<usize>();
        let sparse: usize = self.sparse.values().map(|v| v.indices.len() * 8).sum();
        let payload = self
            .payload
            .iter()
            .map(|(k, v)| k.len() + value_bytes(v))
            .sum::<usize>();
        let embed = self.embed.iter().map(|(name, input)| name.len() + input.bytes());
        self.id.len() + vectors + sparse + embed.sum::<usize>() + payload + 64
    }
}

impl From<&str> for EmbedInput {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for EmbedInput {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl EmbedInput {
    fn bytes(&self) -> usize {
        match self {
            Self::Text(text) | Self::Image(text) | Self::Audio(text) => text.len(),
        }
    }
}

fn value_bytes(value: &Value) -> usize {
    8 + match value {
        Value::String(s) => s.len(),
        Value::Array(a) => a.iter().map(value_bytes).sum(),
        Value::Object(o) => o.iter().map(|(k, v)| k.len() + value_bytes(v)).sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) => 8,
    }
}

/// A point as it is stored.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct StoredPoint {
    /// The id it was written under.
    pub id: String,
    /// Exactly what was written; only if asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vectors: Option<Vectors>,
    /// Exactly what was written; only if vectors are asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sparse: Option<SparseVectors>,
    /// Exactly what was written; only if asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload: Option<Payload>,
    /// The document this point is a chunk of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub document: Option<String>,
    /// Opaque token of the write that made this version.
    pub version: String,
}

/// What a write answers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Written {
    /// Opaque place of this write; a read that gives it as `after` sees at least this write.
    pub token: String,
    /// Points inserted, replaced or deleted.
    pub changed: u64,
    /// How safe it is now: what was asked for, or more.
    pub durability: Durability,
    /// An attempt whose answer was lost had done it already; this is what was answered then.
    pub replayed: bool,
}

/// When a write is answered, and how safe it is then. The larger the less safe.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// After the write was fsynced: it survives a loss of power.
    #[default]
    Sync,
    /// Before that: it survives the end of the server's process, and is fsynced within the server's window.
    Async,
}

/// Which points a delete takes.
#[derive(Debug, Clone, PartialEq)]
pub enum Selection {
    /// These; missing ones are ignored.
    Ids(Vec<String>),
    /// All that match. An empty filter is refused.
    Filter(Filter),
}

impl Selection {
    /// These ids.
    pub fn ids<S: Into<String>>(ids: impl IntoIterator<Item = S>) -> Self {
        Self::Ids(ids.into_iter().map(Into::into).collect())
    }
}

impl From<Filter> for Selection {
    fn from(filter: Filter) -> Self {
        Self::Filter(filter)
    }
}

/// A walk over points, page by page, in the order they were inserted.
#[derive(Debug, Clone, Default, PartialEq)]
#[must_use]
pub struct Scroll {
    /// Which points.
    pub filter: Filter,
    /// Points in a page. Default: 100.
    pub limit: Option<u32>,
    /// `cursor` of the page before.
    pub cursor: Option<String>,
    /// Give the vectors too.
    pub vectors: bool,
    /// Leave the payload out.
    pub without_payload: bool,
    /// Token of an earlier write that must be visible.
    pub after: Option<String>,
    /// Go on without the points of damaged segments, and say so in [`ScrollPage::partial`].
    pub allow_partial: bool,
}

impl Scroll {
    /// Everything, from the beginning.
    pub fn new() -> Self {
        Self::default()
    }
    /// Only points that match.
    pub fn filter(mut self, filter: impl Into<Filter>) -> Self {
        self.filter = filter.into();
        self
    }
    /// Points in a page.
    pub fn limit(mut self, limit: u32) -> Self {
        self.limit = Some(limit);
        self
    }
    /// Continues where a page ended.
    pub fn cursor(mut self, cursor: impl Into<String>) -> Self {
        self.cursor = Some(cursor.into());
        self
    }
    /// Gives the vectors too.
    pub fn with_vectors(mut self) -> Self {
        self.vectors = true;
        self
    }
    /// Goes on without the points of damaged segments, and says so in [`ScrollPage::partial`].
    pub fn allow_partial(mut self) -> Self {
        self.allow_partial = true;
        self
    }
}

/// One page of a walk.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct ScrollPage {
    /// The points.
    pub points: Vec<StoredPoint>,
    /// Continues after this page; absent at the end.
    pub cursor: Option<String>,
    /// What is missing, if the walk allowed that and something is.
    pub partial: Option<Partial>,
}

/// What an answer was given without, because it is damaged and the request allowed that.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Partial {
    /// Live points that were not looked at.
    pub points: u64,
    /// The segments that they are in.
    pub segments: Vec<DamagedSegment>,
}

/// A segment whose file is damaged or missing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct DamagedSegment {
    /// Its collection.
    pub collection: String,
    /// Its shard.
    pub shard: u32,
    /// Its number.
    pub segment: u64,
    /// Live points in it.
    pub points: u64,
    /// What is wrong.
    pub reason: String,
}
