//! What orders texts by how well they answer a question, reading both together.
//!
//! A reranker is slower than retrieval by orders of magnitude and better than it, so it sees only the best hits, inside
//! a time of its own, and says which of them it did not get to.

mod cohere;
pub mod http;
mod late;
mod tei;

use std::time::Duration;

pub use self::late::Late;
use super::patience::{OutOfPatience, Patience};

/// A question and texts in, one score each out.
///
/// - *Guarantees*: as many scores as texts, in their order, each 0 to 1, higher is better. What was not scored before
///   `patience` ran out is `None`; the caller's order decides what is scored first.
/// - *Non-guarantees*: scores of two rerankers, or of two questions, cannot be compared.
/// - *Failure*: an error means that nothing was scored; running out of time is none. What failed after something was scored is
///   told beside the scores.
pub trait Reranker: Send + Sync {
    /// Its name in the configuration.
    fn name(&self) -> &str;
    /// A score of 0 to 1 for each text, in order; none for those not scored before `patience` ran out, or because of a failure.
    fn rerank(&self, query: &str, texts: &[&str], patience: &Patience) -> Result<Scores, RerankError>;
}

/// What a reranker says of texts.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Scores {
    /// One for each text, in order.
    pub scores: Vec<Option<f32>>,
    /// Why some texts have none, if it is not the time.
    pub failed: Option<RerankError>,
}

impl From<Vec<Option<f32>>> for Scores {
    fn from(scores: Vec<Option<f32>>) -> Self {
        Self { scores, failed: None }
    }
}

/// Why nothing was scored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RerankError {
    /// The question or a text is refused; a retry fails again.
    #[error("the reranker refused the input: {message}")]
    Rejected {
        /// Position among the texts, from 0, where one is known.
        index: Option<usize>,
        /// Why.
        message: String,
    },
    /// The service cannot be reached or is overloaded; a retry may help.
    #[error("the reranker is not available: {message}")]
    Unavailable {
        /// Why.
        message: String,
        /// When it says it will be.
        retry_after: Option<Duration>,
    },
    /// The caller waits no more, and nothing was scored by then.
    #[error("the time for reranking passed before anything was scored")]
    Deadline,
    /// What came back are not the scores that were asked for.
    #[error("the reranker gave a wrong answer: {message}")]
    BadAnswer {
        /// What is wrong with it.
        message: String,
    },
}

impl From<OutOfPatience> for RerankError {
    fn from(_: OutOfPatience) -> Self {
        Self::Deadline
    }
}
