//! What turns text into a dense vector, and how a collection remembers which one did.
//!
//! Vectors of different embedders look alike and mean nothing to each other, so every embedder has a [`Fingerprint`]
//! that a collection stores with its vectors and compares before it accepts a write or a text query.

mod static_minilm;
mod wordpiece;

use serde::{Deserialize, Serialize};

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

/// Texts in, one vector each out.
///
/// - *Guarantees*: as many vectors as texts, in their order, each of `fingerprint().dim` finite numbers; the same
///   embedder gives the same text the same vector, whatever else is in the batch.
/// - *Non-guarantees*: no bound on the time of a call; the caller bounds the batch. A text longer than the model reads
///   may be truncated by models that have a limit (the built-in one has none).
/// - *Failure*: all or nothing. The error names the text that failed by its index; nothing was stored, so the caller
///   may leave that text out and call again.
/// - *Enforced by*: the tests of each implementation, and the collection's fingerprint check.
pub trait Embedder: Send + Sync {
    /// Which embedder this is; constant for its lifetime.
    fn fingerprint(&self) -> &Fingerprint;
    /// One vector for each text.
    fn embed(&self, texts: &[&str], kind: TextKind) -> Result<Vec<Vec<f32>>, EmbedError>;
}

/// Why a batch was not embedded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EmbedError {
    /// Nothing in the text that the model knows how to weigh: no vector exists, and a zero one would match everything.
    #[error("empty text: nothing to embed in text {index} of the batch")]
    EmptyText {
        /// Position in the batch, from 0.
        index: usize,
    },
}
