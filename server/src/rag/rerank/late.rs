//! Late interaction: a text scores by how well each token of the question is found among the text's tokens.
//!
//! For each token of the question the cosine of the nearest token of the text, and the mean of these, moved from -1..1 to
//! 0..1 (Khattab & Zaharia 2020, "MaxSim"; theirs is the sum, which cannot be compared between questions of different
//! lengths). The token vectors are those of a local sentence transformer, which was not trained for this: it costs one
//! forward pass a text and needs no further model. Texts are scored in the order given until patience ends.

use std::sync::Arc;

use super::{RerankError, Reranker, Scores};
use crate::rag::Patience;
use crate::rag::embed::{Bert, EmbedError};

/// Late interaction over the tokens of one local model.
pub struct Late {
    name: String,
    model: Arc<Bert>,
}

impl Late {
    /// A reranker called `name` over the tokens of `model`.
    pub fn new(name: &str, model: Arc<Bert>) -> Self {
        Self {
            name: name.to_owned(),
            model,
        }
    }
}

impl Reranker for Late {
    fn name(&self) -> &str {
        &self.name
    }

    fn rerank(&self, query: &str, texts: &[&str], patience: &Patience) -> Result<Scores, RerankError> {
        let mut scores = vec![None; texts.len()];
        let question = match self.model.question(query, patience) {
            Ok(question) => question,
            Err(EmbedError::Deadline) => return Ok(scores.into()),
            Err(error) => return Err(failed(error)),
        };
        let found = self.model.found_in(&question, texts, patience).map_err(failed)?;
        for (score, found) in scores.iter_mut().zip(found) {
            *score = Some(((1.0 + found) / 2.0).clamp(0.0, 1.0));
        }
        Ok(scores.into())
    }
}

fn failed(error: EmbedError) -> RerankError {
    match error {
        EmbedError::Rejected { index, message } => RerankError::Rejected { index, message },
        EmbedError::Deadline => RerankError::Deadline,
        other => RerankError::BadAnswer {
            message: other.to_string(),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::rag::embed::bert::tests::{Naive, TEXTS, Tiny, dot, fetched, workers};

    fn hour() -> Patience {
        Patience::lasting(Duration::from_secs(3_600))
    }

    #[test]
    fn scores_are_the_mean_of_the_largest_cosines_of_a_naive_forward_pass() {
        let tiny = Tiny::new(5, false);
        let late = Late::new("late", Arc::new(tiny.open().unwrap()));
        let naive = Naive {
            weights: &tiny.weights,
            masked: false,
        };
        let own = |ids: &[usize]| {
            let mut tokens = naive.tokens(ids);
            tokens.pop();
            tokens.remove(0);
            for token in &mut tokens {
                let norm = dot(token, token).sqrt();
                token.iter_mut().for_each(|x| *x /= norm);
            }
            tokens
        };
        let (query, query_ids) = TEXTS[2];
        let scores = late
            .rerank(query, &TEXTS.map(|(text, _)| text), &hour())
            .unwrap()
            .scores;
        let question = own(query_ids);
        for ((text, ids), score) in TEXTS.iter().zip(&scores) {
            let tokens = own(ids);
            let nearest = |q: &Vec<f64>| tokens.iter().map(|t| dot(q, t)).fold(-1.0, f64::max);
            let mean = question.iter().map(nearest).sum::<f64>() / question.len() as f64;
            let expected = (1.0 + mean) / 2.0;
            assert!(
                (f64::from(score.unwrap()) - expected).abs() < 1e-5,
                "{text:?}: {score:?}, not {expected}"
            );
        }
        assert!(scores[2].unwrap() > 0.999_99, "a text finds itself");
    }

    #[test]
    fn what_there_is_no_time_for_is_not_scored_and_no_error() {
        let tiny = Tiny::new(5, false);
        let late = Late::new("late", Arc::new(tiny.open().unwrap()));
        let gone = Patience::lasting(Duration::ZERO);
        assert_eq!(
            late.rerank("cat", &["a cat", "a dog"], &gone),
            Ok(vec![None, None].into())
        );
        assert_eq!(late.rerank("cat", &[], &hour()), Ok(Scores::default()));
        let empty = late.rerank("cat", &["", "cat"], &hour()).unwrap().scores;
        assert_eq!(empty[0], Some(0.0), "an empty text holds nothing of the question");
        assert!(empty[1] > empty[0]);
    }

    #[test]
    fn minilm_puts_the_answer_before_what_only_shares_words() {
        let Some(dir) = fetched("minilm") else { return };
        let model = Bert::open("minilm", &dir, "", "", workers()).unwrap();
        let late = Late::new("late", Arc::new(model));
        let texts = [
            "The leader of the orchestra chose the music for the election night.",
            "etcd uses Raft: a member that hears no heartbeat becomes a candidate and asks the others for their votes.",
        ];
        let scores = late
            .rerank("How do the members of etcd agree on a leader?", &texts, &hour())
            .unwrap()
            .scores;
        assert!(scores[1] > scores[0], "{scores:?}");
    }
}
