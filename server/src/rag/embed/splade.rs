//! SPLADE from a directory: sparse vectors, computed in this process.
//!
//! A masked language model guesses, for each token of a text, which words could stand there. A word's weight is
//! log(1 + the largest of these numbers that is positive) over all tokens, marks included (Formal, Lassance, Piwowarski &
//! Clinchant 2021, SPLADE v2 with max pooling). So a text about Normandy also weighs `france`.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use cairn_engine::limits;
use cairn_engine::types::SparseVector;

use super::local::{self, Batch, Directory, Encoder, MaskedLanguageHead, Pieces, Weights, Workers};
use super::{EmbedError, Fingerprint, Patience, SparseEmbedder, TextKind};

/// Terms of a vector; the lightest beyond it are left out.
const TERMS_MAX: usize = limits::SPARSE_WEIGHTS_MAX;

/// A loaded model.
pub struct Splade {
    fingerprint: Fingerprint,
    pieces: Pieces,
    encoder: Encoder,
    head: MaskedLanguageHead,
    workers: Arc<Workers>,
}

impl Splade {
    /// Reads the model of a directory. The message names the file that is wrong and says why.
    pub fn open(
        name: &str,
        dir: &Path,
        query_prefix: &str,
        passage_prefix: &str,
        workers: Arc<Workers>,
    ) -> Result<Self, String> {
        let directory = Directory::read(dir)?;
        let weights = Weights::read(&directory.weights).map_err(|why| directory.in_weights(&why))?;
        let encoder = Encoder::load(&weights, &directory.shape).map_err(|why| directory.in_weights(&why))?;
        let head = MaskedLanguageHead::load(&weights, &directory.shape, &encoder);
        let head = head.map_err(|why| directory.in_weights(&why))?;
        let fingerprint = Fingerprint {
            name: name.to_owned(),
            revision: directory.revision(),
            dim: directory.shape.vocabulary,
            normalized: false,
            query_prefix: query_prefix.to_owned(),
            passage_prefix: passage_prefix.to_owned(),
        };
        let splade = Self {
            fingerprint,
            pieces: directory.pieces,
            encoder,
            head,
            workers,
        };
        let patience = Patience::lasting(local::TRY_OUT);
        let tried = splade.embed(&["a cat"], TextKind::Passage, &patience);
        tried.map_err(|e| e.to_string())?;
        Ok(splade)
    }

    /// The vector of each text of a batch; one text at a time, as the vocabulary is long.
    fn weigh(&self, batch: &Batch<'_>) -> Result<Vec<SparseVector>, EmbedError> {
        let weighed = || -> candle_core::Result<Vec<Vec<f32>>> {
            let tokens = self.encoder.forward(batch)?;
            let one = |text: Range<usize>| self.head.largest(&tokens.narrow(0, text.start, text.len())?)?.to_vec1();
            batch.ranges().map(one).collect()
        };
        let weighed = weighed().map_err(|e| local::failed(&e))?;
        weighed.iter().map(|row| sparse(row)).collect()
    }
}

impl SparseEmbedder for Splade {
    fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }

    fn embed(&self, texts: &[&str], kind: TextKind, patience: &Patience) -> Result<Vec<SparseVector>, EmbedError> {
        patience.check()?;
        let tokens = self.pieces.of_all(texts, self.fingerprint.prefix(kind))?;
        let vectors = local::run(&tokens, &self.workers, patience, |batch| self.weigh(batch))?;
        if vectors.len() < texts.len() {
            return Err(EmbedError::Deadline);
        }
        match vectors.iter().position(|v| v.indices.is_empty()) {
            Some(index) => Err(EmbedError::EmptyText { index }),
            None => Ok(vectors),
        }
    }
}

/// Terms with a positive number, ascending; the heaviest if there are more than a sparse vector may have.
fn sparse(row: &[f32]) -> Result<SparseVector, EmbedError> {
    if row.iter().any(|x| !x.is_finite()) {
        return Err(EmbedError::BadAnswer {
            message: "the local model made numbers that are not finite: its weights are damaged".to_owned(),
        });
    }
    let mut terms: Vec<(u32, f32)> = (0u32..)
        .zip(row)
        .map(|(term, &x)| (term, x.max(0.0).ln_1p()))
        .filter(|&(_, weight)| weight > 0.0)
        .collect();
    let most = TERMS_MAX;
    if terms.len() > most {
        terms.select_nth_unstable_by(most - 1, |a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        terms.truncate(most);
        terms.sort_unstable_by_key(|&(term, _)| term);
    }
    let (indices, values) = terms.into_iter().unzip();
    Ok(SparseVector { indices, values })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::bert::tests::{Naive, TEXTS, Tiny, dot, fetched, gelu, workers};
    use super::*;

    fn hour() -> Patience {
        Patience::lasting(Duration::from_secs(3_600))
    }

    #[test]
    fn weights_are_those_of_a_naive_forward_pass_whatever_is_in_the_batch() {
        for seed in 0..4 {
            let tiny = Tiny::new(seed, true);
            let splade = Splade::open("tiny", tiny.dir.path(), "", "", workers()).unwrap();
            let naive = Naive {
                weights: &tiny.weights,
                masked: true,
            };
            let texts = TEXTS.map(|(text, _)| text);
            let vectors = splade.embed(&texts, TextKind::Passage, &hour()).unwrap();
            for ((text, ids), vector) in TEXTS.iter().zip(&vectors) {
                let hidden = gelu(naive.linear("cls.predictions.transform.dense", &naive.tokens(ids)));
                let hidden = naive.norm("cls.predictions.transform.LayerNorm", &hidden);
                let words = naive.get("embeddings.word_embeddings.weight");
                let bias = naive.get("cls.predictions.bias").remove(0);
                let number = |word: usize, token: &Vec<f64>| dot(&words[word], token) + bias[word];
                for word in 0..words.len() {
                    let best = hidden.iter().map(|token| number(word, token)).fold(f64::MIN, f64::max);
                    let expected = best.max(0.0).ln_1p();
                    let at = vector.indices.binary_search(&(word as u32));
                    let found = at.map_or(0.0, |at| f64::from(vector.values[at]));
                    assert!(
                        (found - expected).abs() < 5e-6,
                        "{text:?} {word}: {found}, not {expected}"
                    );
                }
                assert!(vector.indices.is_sorted() && vector.values.iter().all(|&x| x > 0.0));
            }
        }
    }

    #[test]
    fn a_model_without_the_head_an_empty_text_and_a_caller_who_left_are_refused() {
        let dense = Tiny::new(1, false);
        let error = Splade::open("tiny", dense.dir.path(), "", "", workers()).err().unwrap();
        assert!(
            error.contains("there is no tensor \"cls.predictions.transform.dense.weight\""),
            "{error}"
        );
        let tiny = Tiny::new(1, true);
        let splade = Splade::open("tiny", tiny.dir.path(), "", "", workers()).unwrap();
        let empty = splade.embed(&["cat", " "], TextKind::Query, &hour());
        assert_eq!(empty, Err(EmbedError::EmptyText { index: 1 }));
        let gone = Patience::lasting(Duration::ZERO);
        assert_eq!(
            splade.embed(&["cat"], TextKind::Query, &gone),
            Err(EmbedError::Deadline)
        );
    }

    #[test]
    fn the_heaviest_terms_stay_if_there_are_too_many() {
        let row: Vec<f32> = (0..TERMS_MAX + 100).map(|i| 1.0 + (i % 977) as f32).collect();
        let vector = sparse(&row).unwrap();
        assert_eq!(vector.indices.len(), TERMS_MAX);
        assert!(vector.indices.windows(2).all(|w| w[0] < w[1]));
        let mut all: Vec<f32> = row.iter().map(|x| x.ln_1p()).collect();
        all.sort_by(|a, b| b.total_cmp(a));
        let mut kept = vector.values.clone();
        kept.sort_by(|a, b| b.total_cmp(a));
        assert_eq!(kept, all[..TERMS_MAX]);
        assert!(sparse(&[f32::NAN]).is_err());
        assert_eq!(sparse(&[-1.0, 0.0, 1.0]).unwrap().indices, [2]);
    }

    #[test]
    fn the_real_model_adds_words_that_the_text_does_not_have() {
        let Some(dir) = fetched("splade-tiny") else { return };
        let splade = Splade::open("splade", &dir, "", "", workers()).unwrap();
        assert!(splade.fingerprint().revision.starts_with("96e1dd8dbbc82439-"));
        let vector = &splade.embed(&["Where is Normandy?"], TextKind::Query, &hour()).unwrap()[0];
        let weight = |word: &str| {
            let term = splade.pieces.id(word).unwrap();
            vector.indices.binary_search(&term).map_or(0.0, |at| vector.values[at])
        };
        assert!(weight("normandy") > 1.0, "{}", weight("normandy"));
        assert!(weight("france") > 0.1, "{}", weight("france"));
        assert_eq!(weight("banana"), 0.0);
    }
}
