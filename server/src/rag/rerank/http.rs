//! Rerankers behind HTTP, in the shapes of TEI and Cohere.
//!
//! Texts go in requests of so many texts and bytes, best first, several at a time; scores do not depend on which texts go
//! together. What was scored when patience runs out, or when a request fails, is answered, the rest is `None`. Scores outside of 0 to 1 (some
//! models give cosines) are clamped, which keeps their order as far as the bounds go; that is documented, not reported.

use bytes::Bytes;
use futures::StreamExt;

use super::{RerankError, Reranker, Scores, cohere, tei};
use crate::config::HttpReranker as Config;
use crate::rag::patience::Patience;
use crate::rag::remote::{Ask, Bridge, CallError, Remote, Settings};
use crate::telemetry::ModelRole;

/// Bytes of a score in an answer, with its position and what stands around it.
const SCORE_BYTES_MAX: usize = 1 << 10;
/// Services may send each text back, and JSON may take six bytes for one (`\u0000`).
const ESCAPED_BYTES_MAX: usize = 6;

/// The shapes of services.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// Text-embeddings-inference.
    Tei,
    /// Cohere, Jina, vLLM, Infinity.
    Cohere,
}

/// One reranking service.
pub struct HttpReranker {
    dialect: Dialect,
    model: Option<String>,
    batch_max: usize,
    batch_bytes_max: usize,
    remote: Remote,
    bridge: Bridge,
}

impl HttpReranker {
    /// The reranker of a table of the configuration. Nothing is asked yet: a query can do without it.
    pub fn open(name: &str, dialect: Dialect, config: &Config) -> Result<Self, String> {
        let remote = Remote::new(&Settings {
            role: ModelRole::Reranker,
            name,
            url: &config.url,
            api_key_env: config.api_key_env.as_deref(),
            api_key_file: config.api_key_file.as_deref(),
            ca_file: config.ca_file.as_deref(),
            timeout_ms: config.timeout_ms,
            concurrency: config.concurrency,
            retries: config.retries,
        })?;
        Ok(Self {
            dialect,
            model: config.model.clone(),
            batch_max: config.batch_max,
            batch_bytes_max: config.batch_bytes_max,
            remote,
            bridge: Bridge::here()?,
        })
    }

    async fn request(&self, query: &str, texts: &[&str], patience: &Patience) -> Result<Vec<f32>, CallError> {
        let body = match self.dialect {
            Dialect::Tei => tei::body(query, texts),
            Dialect::Cohere => cohere::body(self.model.as_deref(), query, texts),
        };
        let bytes: usize = texts.iter().map(|t| t.len()).sum();
        let ask = Ask {
            path: "/rerank",
            body: Some(Bytes::from(body.to_string())),
            answer_bytes_max: (texts.len() + 1) * SCORE_BYTES_MAX + bytes * ESCAPED_BYTES_MAX,
        };
        let read = |body: &[u8]| {
            let scores = match self.dialect {
                Dialect::Tei => tei::scores(body)?,
                Dialect::Cohere => cohere::scores(body)?,
            };
            in_order(&scores, texts.len())
        };
        self.remote.ask(&ask, patience, read).await
    }

    /// Scores what it can. A request whose texts are refused fails alone; after any other failure no more are sent, since they
    /// would most likely only wait for the same.
    async fn rerank_all(
        &self,
        query: &str,
        texts: &[&str],
        scores: &mut [Option<f32>],
        patience: &Patience,
    ) -> Result<(), CallError> {
        let batches = batches(texts, self.batch_max, self.batch_bytes_max);
        let mut answers = futures::stream::iter(batches)
            .map(|range| async move { (range.clone(), self.request(query, &texts[range], patience).await) })
            .buffer_unordered(self.remote.concurrency());
        let mut refused = Ok(());
        while let Some((range, result)) = answers.next().await {
            match result {
                Ok(found) => {
                    for (place, score) in scores[range].iter_mut().zip(found) {
                        *place = Some(score);
                    }
                }
                Err(error @ CallError::Rejected(_)) => refused = refused.and(Err(error)),
                Err(error) => return Err(error),
            }
        }
        refused
    }
}

impl Reranker for HttpReranker {
    fn name(&self) -> &str {
        self.remote.name()
    }

    fn rerank(&self, query: &str, texts: &[&str], patience: &Patience) -> Result<Scores, RerankError> {
        let mut scores = vec![None; texts.len()];
        let work = self.rerank_all(query, texts, &mut scores, patience);
        let result = self
            .bridge
            .wait(patience, work)
            .map_err(CallError::from)
            .and_then(|r| r);
        match result {
            Ok(()) => Ok(scores.into()),
            Err(e) if scores.iter().all(Option::is_none) => Err(e.into()),
            Err(CallError::Deadline) => Ok(scores.into()),
            Err(e) => Ok(Scores {
                scores,
                failed: Some(e.into()),
            }),
        }
    }
}

impl From<CallError> for RerankError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Rejected(message) => Self::Rejected { index: None, message },
            CallError::Unavailable(message, retry_after) => Self::Unavailable { message, retry_after },
            CallError::BadAnswer(message) => Self::BadAnswer { message },
            CallError::Deadline => Self::Deadline,
        }
    }
}

/// Ranges of texts that go together: as many as fit, each at least one.
fn batches(texts: &[&str], most: usize, bytes_max: usize) -> Vec<std::ops::Range<usize>> {
    let mut batches: Vec<std::ops::Range<usize>> = Vec::new();
    let mut bytes = 0;
    for (i, text) in texts.iter().enumerate() {
        match batches.last_mut() {
            Some(batch) if batch.len() < most && bytes + text.len() <= bytes_max => batch.end = i + 1,
            _ => {
                batches.push(i..i + 1);
                bytes = 0;
            }
        }
        bytes += text.len();
    }
    batches
}

/// One finite score for each text, clamped to 0..1, in the order of the texts.
fn in_order(scores: &[(usize, f32)], texts: usize) -> Result<Vec<f32>, String> {
    if scores.len() != texts {
        return Err(format!("{} scores for {texts} texts", scores.len()));
    }
    let mut placed = vec![None; texts];
    for &(index, score) in scores {
        if !score.is_finite() {
            return Err(format!("the score of text {index} is {score}"));
        }
        match placed.get_mut(index) {
            Some(place @ None) => *place = Some(score.clamp(0.0, 1.0)),
            Some(Some(_)) => return Err(format!("two scores have the index {index}")),
            None => return Err(format!("a score has the index {index}, of {texts} texts")),
        }
    }
    let placed: Option<Vec<f32>> = placed.into_iter().collect();
    placed.ok_or_else(|| "a score is missing".to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn scores_are_put_in_order_and_clamped() {
        assert_eq!(in_order(&[(1, 0.5), (0, 1.5), (2, -3.0)], 3), Ok(vec![1.0, 0.5, 0.0]));
        let cases = [
            (&[(0, 0.5)][..], "1 scores for 2"),
            (&[(0, 0.5), (0, 0.5)], "two scores"),
            (&[(0, 0.5), (2, 0.5)], "index 2, of 2"),
            (&[(0, 0.5), (1, f32::NAN)], "NaN"),
            (&[(0, f32::INFINITY), (1, 0.0)], "inf"),
        ];
        for (scores, expected) in cases {
            let why = in_order(scores, 2).unwrap_err();
            assert!(why.contains(expected), "{why}");
        }
    }

    proptest! {
        #[test]
        fn every_text_goes_once_and_no_request_is_too_large(
            sizes in prop::collection::vec(0_usize..50, 0..60), most in 1_usize..9, bytes in 1_usize..100,
        ) {
            let texts: Vec<String> = sizes.iter().map(|n| "x".repeat(*n)).collect();
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            let batches = batches(&texts, most, bytes);
            let all: Vec<usize> = batches.iter().cloned().flatten().collect();
            prop_assert_eq!(all, (0..texts.len()).collect::<Vec<_>>());
            for batch in batches {
                let size: usize = sizes[batch.clone()].iter().sum();
                prop_assert!(batch.len() <= most && (size <= bytes || batch.len() == 1));
            }
        }
    }
}
