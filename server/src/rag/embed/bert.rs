//! A sentence transformer of the BERT family from a directory: dense vectors, computed in this process.
//!
//! A text's vector is the mean of its tokens' vectors (or the first one's, as the directory says), normalised if the
//! directory says so. Texts longer than the model reads are cut, as sentence-transformers cuts them. The result does
//! not depend on what else is in the batch beyond the noise of floating-point sums.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use candle_core::{D, Tensor};

use super::local::{self, Batch, Directory, Encoder, Pieces, Pooling, Recipe, Weights, Workers};
use super::{EmbedError, Embedder, Fingerprint, Input, Patience, TextKind};

/// A loaded model.
pub struct Bert {
    fingerprint: Fingerprint,
    pieces: Pieces,
    encoder: Encoder,
    recipe: Recipe,
    workers: Arc<Workers>,
}

/// The vectors of a text's own tokens, each of length 1, without those that mark its ends: tokens by dimensions.
pub(crate) struct TokenVectors(Tensor);

impl Bert {
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
        let fingerprint = Fingerprint {
            name: name.to_owned(),
            revision: directory.revision(),
            dim: directory.shape.hidden,
            normalized: directory.recipe.normalize,
            query_prefix: query_prefix.to_owned(),
            passage_prefix: passage_prefix.to_owned(),
        };
        let bert = Self {
            fingerprint,
            pieces: directory.pieces,
            encoder,
            recipe: directory.recipe,
            workers,
        };
        bert.try_out()?;
        Ok(bert)
    }

    /// Damage that no shape shows (weights that are no numbers) should stop the start, not the first document.
    fn try_out(&self) -> Result<(), String> {
        let patience = Patience::lasting(local::TRY_OUT);
        let made = self.embed(&[Input::Text("a cat")], TextKind::Passage, &patience);
        made.map(drop).map_err(|e| e.to_string())
    }

    /// The token vectors of a question, none if there is nothing in it.
    pub(crate) fn question(&self, text: &str, patience: &Patience) -> Result<TokenVectors, EmbedError> {
        let tokens = [self.tokens(TextKind::Query, text)?];
        let made = local::run(&tokens, &self.workers, patience, |batch| self.token_vectors(batch))?;
        made.into_iter().next().ok_or(EmbedError::Deadline)
    }

    /// How well a question's tokens are found in those of each text, best first: as many texts as patience lasts for.
    pub(crate) fn found_in(
        &self,
        question: &TokenVectors,
        texts: &[&str],
        patience: &Patience,
    ) -> Result<Vec<f32>, EmbedError> {
        let tokens = texts.iter().map(|text| self.tokens(TextKind::Passage, text));
        let tokens = tokens.collect::<Result<Vec<_>, _>>()?;
        local::run(&tokens, &self.workers, patience, |batch| {
            let vectors = self.token_vectors(batch)?;
            vectors.iter().map(|text| question.found_in(text)).collect()
        })
    }

    /// How many tokens the model reads of a text, the marks of its ends included.
    pub fn tokens_of(&self, text: &str) -> Result<usize, EmbedError> {
        Ok(self.pieces.of(text)?.len())
    }

    fn tokens(&self, kind: TextKind, text: &str) -> Result<Vec<u32>, EmbedError> {
        let prefix = self.fingerprint.prefix(kind);
        self.pieces.of(&format!("{prefix}{text}"))
    }

    fn token_vectors(&self, batch: &Batch<'_>) -> Result<Vec<TokenVectors>, EmbedError> {
        let (before, after) = self.pieces.marks;
        let vectors = || {
            let all = self.encoder.forward(batch)?;
            let of = |text: Range<usize>| {
                let own = text.len().saturating_sub(before + after);
                unit_rows(&all.narrow(0, text.start + before, own)?).map(TokenVectors)
            };
            batch.ranges().map(of).collect::<candle_core::Result<Vec<_>>>()
        };
        vectors().map_err(|e| local::failed(&e))
    }

    fn pool(&self, batch: &Batch<'_>) -> Result<Vec<Vec<f32>>, EmbedError> {
        let pooled = || {
            let tokens = self.encoder.forward(batch)?;
            let of = |text: Range<usize>| match self.recipe.pooling {
                Pooling::First => tokens.narrow(0, text.start, 1),
                Pooling::Mean => tokens.narrow(0, text.start, text.len())?.mean_keepdim(0),
            };
            let pooled = batch.ranges().map(of).collect::<candle_core::Result<Vec<_>>>()?;
            let pooled = Tensor::cat(&pooled, 0)?;
            match self.recipe.normalize {
                true => unit_rows(&pooled),
                false => Ok(pooled),
            }
        };
        local::rows(&pooled().map_err(|e: candle_core::Error| local::failed(&e))?)
    }
}

impl Embedder for Bert {
    fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }

    fn embed(&self, inputs: &[Input<'_>], kind: TextKind, patience: &Patience) -> Result<Vec<Vec<f32>>, EmbedError> {
        patience.check()?;
        let texts = Input::texts(inputs)?;
        let tokens = self.pieces.of_all(&texts, self.fingerprint.prefix(kind))?;
        let vectors = local::run(&tokens, &self.workers, patience, |batch| self.pool(batch))?;
        match vectors.len() == texts.len() {
            true => Ok(vectors),
            false => Err(EmbedError::Deadline),
        }
    }
}

impl TokenVectors {
    /// How well these tokens find themselves in others: for each the cosine of the nearest of the others, and the mean of
    /// these (Khattab & Zaharia 2020, there the sum). From -1 to 1; -1 if there are no tokens on either side.
    fn found_in(&self, others: &Self) -> Result<f32, EmbedError> {
        let found = || {
            if self.0.dim(0)? == 0 || others.0.dim(0)? == 0 {
                return Ok(-1.0);
            }
            self.0
                .matmul(&others.0.t()?)?
                .max(D::Minus1)?
                .mean_all()?
                .to_scalar::<f32>()
        };
        found().map_err(|e: candle_core::Error| local::failed(&e))
    }
}

/// Each row at length 1. A row of zeros, which no trained model makes, stays one.
fn unit_rows(rows: &Tensor) -> candle_core::Result<Tensor> {
    let norms = rows.sqr()?.sum_keepdim(D::Minus1)?.sqrt()?;
    rows.broadcast_div(&norms.clamp(1e-12f32, f32::MAX)?)
}

#[cfg(test)]
pub(crate) mod tests;
