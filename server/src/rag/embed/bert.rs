//! A sentence transformer of the BERT family from a directory: dense vectors, computed in this process.
//!
//! A text's vector is the mean of its tokens' vectors (or the first one's, as the directory says), normalised if the
//! directory says so. Texts longer than the model reads are cut, as sentence-transformers cuts them. The result does
//! not depend on what else is in the batch beyond the noise of floating-point sums.

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

    /// The token vectors of texts, computed in the order given; none for those that patience did not last for. An empty
    /// text has no tokens.
    pub(crate) fn token_vectors(
        &self,
        texts: &[&str],
        kind: TextKind,
        patience: &Patience,
    ) -> Result<Vec<Option<TokenVectors>>, EmbedError> {
        let prefix = self.fingerprint.prefix(kind);
        let mut all: Vec<Option<TokenVectors>> = texts.iter().map(|_| None).collect();
        let tokens = texts
            .iter()
            .map(|text| self.pieces.of(&format!("{prefix}{text}")))
            .collect::<Result<Vec<_>, _>>()?;
        let order: Vec<usize> = (0..texts.len()).collect();
        let (before, after) = self.pieces.marks;
        local::run_batches(local::batches(&tokens, &order), &self.workers, patience, |batch| {
            let computed = self.encoder.forward(&batch).map_err(|e| local::failed(&e))?;
            for (row, (&i, &length)) in batch.members.iter().zip(&batch.lengths).enumerate() {
                let own = length.saturating_sub(before + after);
                let vectors = computed.get(row).and_then(|text| text.narrow(0, before, own));
                let vectors = vectors.and_then(|own| unit_rows(&own)).map_err(|e| local::failed(&e))?;
                all[i] = Some(TokenVectors(vectors));
            }
            Ok(())
        })?;
        Ok(all)
    }

    fn pool(&self, batch: &Batch) -> Result<Vec<Vec<f32>>, EmbedError> {
        let pooled = || {
            let tokens = self.encoder.forward(batch)?;
            let pooled = match self.recipe.pooling {
                Pooling::First => tokens.narrow(1, 0, 1)?.squeeze(1)?,
                Pooling::Mean => mean(&tokens, &batch.lengths)?,
            };
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
        let mut vectors = vec![Vec::new(); texts.len()];
        let batches = local::batches_by_length(&tokens);
        let all = local::run_batches(batches, &self.workers, patience, |batch| {
            let pooled = self.pool(&batch)?;
            for (i, vector) in batch.members.into_iter().zip(pooled) {
                vectors[i] = vector;
            }
            Ok(())
        })?;
        match all {
            true => Ok(vectors),
            false => Err(EmbedError::Deadline),
        }
    }
}

impl TokenVectors {
    /// How well these tokens find themselves in others: for each the cosine of the nearest of the others, and the mean of
    /// these (Khattab & Zaharia 2020, there the sum). From -1 to 1; -1 if there are no tokens on either side.
    pub(crate) fn found_in(&self, others: &Self) -> Result<f32, EmbedError> {
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

/// The mean of each text's tokens: texts by width by hidden to texts by hidden. Padding is not counted.
fn mean(tokens: &Tensor, lengths: &[usize]) -> candle_core::Result<Tensor> {
    let (texts, width, _) = tokens.dims3()?;
    let mut shares = vec![0f32; texts * width];
    for (row, &length) in shares.chunks_mut(width).zip(lengths) {
        row[..length].fill(1.0 / length as f32);
    }
    let shares = Tensor::from_vec(shares, (texts, 1, width), tokens.device())?;
    shares.matmul(tokens)?.squeeze(1)
}

/// Each row at length 1. A row of zeros, which no trained model makes, stays one.
fn unit_rows(rows: &Tensor) -> candle_core::Result<Tensor> {
    let norms = rows.sqr()?.sum_keepdim(D::Minus1)?.sqrt()?;
    rows.broadcast_div(&norms.clamp(1e-12f32, f32::MAX)?)
}

#[cfg(test)]
pub(crate) mod tests;
