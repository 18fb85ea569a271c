//! What turns text into a vector, dense or sparse, and how a collection remembers which one did.
//!
//! Vectors of different embedders look alike and mean nothing to each other, so every embedder has a [`Fingerprint`]
//! that a collection stores with its vectors and compares before it accepts a write or a text query.

pub mod http;
mod static_minilm;
mod wordpiece;

mod local;

pub mod bert;
pub mod cache;
pub mod splade;

use std::fmt;
use std::time::Duration;

use cairn_engine::types::SparseVector;
use serde::{Deserialize, Serialize};

use super::patience::{OutOfPatience, Patience};

pub use bert::Bert;
pub use cache::{Cached, CachedSparse, EmbeddingCache};
pub use local::Workers;
pub use splade::Splade;
pub use static_minilm::StaticMiniLm;
pub use wordpiece::WordPiece;

/// Which embedder made a vector. Two vectors may be compared only if their fingerprints are equal in every field.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Fingerprint {
    /// The model, for example `static-minilm-256`.
    pub name: String,
    /// The model's weights and recipe; changes whenever the same text could give another vector.
    pub revision: String,
    /// Length of every vector.
    pub dim: usize,
    /// Whether vectors have length 1, so that dot product and cosine agree.
    pub normalized: bool,
    /// What the embedder itself puts before a query; empty if nothing.
    pub query_prefix: String,
    /// What the embedder itself puts before a passage; empty if nothing.
    pub passage_prefix: String,
}

/// The part a text plays. Models trained with prefixes embed the same words differently as a question and as an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TextKind {
    /// What is asked.
    Query,
    /// What is searched.
    Passage,
}

/// What can be embedded. References are passed on as they are: http(s) URLs or `data:` URIs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Input<'a> {
    /// A text.
    Text(&'a str),
    /// A reference to an image.
    Image(&'a str),
    /// A reference to a sound.
    Audio(&'a str),
}

/// What kind of thing an [`Input`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Medium {
    /// Text.
    Text,
    /// Images.
    Image,
    /// Sounds.
    Audio,
}

/// Inputs in, one dense vector each out.
///
/// - *Guarantees*: as many vectors as inputs, in their order, each of `fingerprint().dim` finite numbers; the same
///   embedder gives the same input the same vector (within the noise of floating-point sums), whatever else is in the
///   batch. `patience` is looked at between batches of the model's own and while waiting for others.
/// - *Non-guarantees*: no bound on the time of one batch of the model. A text longer than the model reads is truncated
///   by models that have a limit (the built-in one has none). Media other than text need [`Embedder::takes`].
/// - *Failure*: all or nothing. The error names the input that failed by its index where one did; nothing was stored, so
///   the caller may leave that one out and call again.
/// - *Enforced by*: the tests of each implementation, and the collection's fingerprint check.
pub trait Embedder: Send + Sync {
    /// Which embedder this is; constant for its lifetime.
    fn fingerprint(&self) -> &Fingerprint;
    /// What it can embed. Text, unless it says otherwise.
    fn takes(&self, medium: Medium) -> bool {
        medium == Medium::Text
    }
    /// One vector for each input.
    fn embed(&self, inputs: &[Input<'_>], kind: TextKind, patience: &Patience) -> Result<Vec<Vec<f32>>, EmbedError>;
}

impl<T: Embedder + ?Sized> Embedder for &T {
    fn fingerprint(&self) -> &Fingerprint {
        (**self).fingerprint()
    }
    fn takes(&self, medium: Medium) -> bool {
        (**self).takes(medium)
    }
    fn embed(&self, inputs: &[Input<'_>], kind: TextKind, patience: &Patience) -> Result<Vec<Vec<f32>>, EmbedError> {
        (**self).embed(inputs, kind, patience)
    }
}

/// Texts in, one sparse vector each out: weights by term number. The contract is that of [`Embedder`]; indices ascend,
/// values are finite and not zero.
pub trait SparseEmbedder: Send + Sync {
    /// Which embedder this is. Its `dim` is the number of terms.
    fn fingerprint(&self) -> &Fingerprint;
    /// One vector for each text.
    fn embed(&self, texts: &[&str], kind: TextKind, patience: &Patience) -> Result<Vec<SparseVector>, EmbedError>;
}

/// Why a batch was not embedded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EmbedError {
    /// Nothing in the text that the model knows how to weigh: no vector exists, and a zero one would match everything.
    #[error("empty text: nothing to embed in text {index} of the batch")]
    EmptyText {
        /// Position in the batch, from 0.
        index: usize,
    },
    /// The model does not take this kind of input.
    #[error("input {index} of the batch is {medium}, which this embedder does not take")]
    Unsupported {
        /// Position in the batch, from 0.
        index: usize,
        /// What it is.
        medium: Medium,
    },
    /// The model or its service refuses the input; a retry fails again.
    #[error("the embedder refused the input: {message}")]
    Rejected {
        /// Position in the batch, from 0, where one is known.
        index: Option<usize>,
        /// Why.
        message: String,
    },
    /// The service cannot be reached or is overloaded; a retry may help.
    #[error("the embedder is not available: {message}")]
    Unavailable {
        /// Why.
        message: String,
        /// When it says it will be.
        retry_after: Option<Duration>,
    },
    /// The caller waits no more.
    #[error("the deadline passed before the texts were embedded")]
    Deadline,
    /// What came back are not the vectors that were asked for.
    #[error("the embedder gave a wrong answer: {message}")]
    BadAnswer {
        /// What is wrong with it.
        message: String,
    },
}

impl From<OutOfPatience> for EmbedError {
    fn from(_: OutOfPatience) -> Self {
        Self::Deadline
    }
}

impl EmbedError {
    /// Which input failed, where one did.
    pub fn index(&self) -> Option<usize> {
        match self {
            Self::EmptyText { index } | Self::Unsupported { index, .. } => Some(*index),
            Self::Rejected { index, .. } => *index,
            Self::Unavailable { .. } | Self::Deadline | Self::BadAnswer { .. } => None,
        }
    }

    /// The same error of a larger batch, of which the one that failed were the members at `places`.
    #[must_use]
    pub fn among(mut self, places: &[usize]) -> Self {
        let place = |index: usize| places.get(index).copied().unwrap_or(index);
        match &mut self {
            Self::EmptyText { index } | Self::Unsupported { index, .. } => *index = place(*index),
            Self::Rejected { index, .. } => *index = index.map(place),
            Self::Unavailable { .. } | Self::Deadline | Self::BadAnswer { .. } => {}
        }
        self
    }
}

impl<'a> Input<'a> {
    /// The text or the reference.
    pub fn text(&self) -> &'a str {
        match self {
            Self::Text(text) | Self::Image(text) | Self::Audio(text) => text,
        }
    }

    /// What kind of thing it is.
    pub fn medium(&self) -> Medium {
        match self {
            Self::Text(_) => Medium::Text,
            Self::Image(_) => Medium::Image,
            Self::Audio(_) => Medium::Audio,
        }
    }

    /// All of a batch as texts, for models that take nothing else.
    pub fn texts(inputs: &[Self]) -> Result<Vec<&'a str>, EmbedError> {
        let text = |(index, input): (usize, &Self)| match *input {
            Self::Text(text) => Ok(text),
            Self::Image(_) | Self::Audio(_) => Err(EmbedError::Unsupported {
                index,
                medium: input.medium(),
            }),
        };
        inputs.iter().enumerate().map(text).collect()
    }
}

impl fmt::Display for Medium {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Image => "an image",
            Self::Audio => "audio",
        })
    }
}

impl Fingerprint {
    /// As it is said in messages.
    pub fn describe(&self) -> String {
        format!("{} (revision {:?}, dim {})", self.name, self.revision, self.dim)
    }

    /// What goes before a text of this kind.
    pub fn prefix(&self, kind: TextKind) -> &str {
        match kind {
            TextKind::Query => &self.query_prefix,
            TextKind::Passage => &self.passage_prefix,
        }
    }
}
