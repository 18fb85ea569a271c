//! A model of the BERT family in a directory, as sentence-transformers and transformers leave it there: `config.json`,
//! `tokenizer.json`, `model.safetensors`.
//!
//! What is read is untrusted: every size is bounded and every tensor's shape checked before it is used, and a file that
//! cannot be right is an error that names it. Only what changes a vector is read; what this code does not know how to
//! apply (another architecture, another pooling, a further layer) is refused rather than left out.
//!
//! Texts become batches here: tokenised, cut to the model's length, laid one after another, and run on the threads of
//! [`Workers`], several batches side by side, with a look at the caller's patience between rounds.

mod elementwise;
mod files;
mod network;
mod workers;

use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use candle_core::Tensor;
use tokenizers::Tokenizer;

pub(super) use self::files::{Directory, Pooling, Recipe};
pub(super) use self::network::{Encoder, MaskedLanguageHead, Weights};
pub use self::workers::Workers;
use super::{EmbedError, Patience};

/// Tokens of one batch, some ten milliseconds of a small model on one core: how long a caller who left may still cost.
/// Enough for full speed: a matrix product of 128 rows is as quick for each row as one of a thousand.
const BATCH_TOKENS_MAX: usize = 256;
/// How long the one text may take that is embedded at start, on a machine that does nothing else yet.
pub(super) const TRY_OUT: Duration = Duration::from_secs(60);

/// A tokenizer that cuts to the model's length.
pub(super) struct Pieces {
    tokenizer: Tokenizer,
    /// Tokens before and behind those of the text itself, which mark its ends.
    pub(super) marks: (usize, usize),
}

/// Texts that are run together: their tokens one after another, without padding.
pub(super) struct Batch<'a> {
    /// The first of them; they follow each other.
    pub(super) first: usize,
    /// Tokens of each, at least one text.
    pub(super) texts: &'a [Vec<u32>],
}

impl Pieces {
    /// The number of a piece.
    #[cfg(test)]
    pub(super) fn id(&self, piece: &str) -> Option<u32> {
        self.tokenizer.token_to_id(piece)
    }

    /// The tokens of a text, marks included; none of its own if there is nothing in it.
    pub(super) fn of(&self, text: &str) -> Result<Vec<u32>, EmbedError> {
        let encoded = self.tokenizer.encode_fast(text, true);
        let encoded = encoded.map_err(|e| EmbedError::Rejected {
            index: None,
            message: format!("the model's tokenizer fails: {e}"),
        })?;
        Ok(encoded.get_ids().to_vec())
    }

    /// The tokens of each text behind its prefix. A text that adds nothing to the prefix is an error.
    pub(super) fn of_all(&self, texts: &[&str], prefix: &str) -> Result<Vec<Vec<u32>>, EmbedError> {
        let bare = self.of(prefix)?.len();
        let mut joined = String::new();
        let mut all = Vec::with_capacity(texts.len());
        for (index, text) in texts.iter().enumerate() {
            joined.clear();
            joined.push_str(prefix);
            joined.push_str(text);
            let ids = self.of(&joined)?;
            if ids.len() <= bare {
                return Err(EmbedError::EmptyText { index });
            }
            all.push(ids);
        }
        Ok(all)
    }
}

/// Batches of texts in their order: as many as have few enough tokens together, at least one.
pub(super) fn batches(tokens: &[Vec<u32>]) -> Vec<Batch<'_>> {
    let mut batches: Vec<Batch<'_>> = Vec::new();
    let mut together = 0;
    for (i, text) in tokens.iter().enumerate() {
        match batches.last_mut() {
            Some(batch) if together + text.len() <= BATCH_TOKENS_MAX => batch.texts = &tokens[batch.first..=i],
            _ => {
                batches.push(Batch {
                    first: i,
                    texts: &tokens[i..=i],
                });
                together = 0;
            }
        }
        together += text.len();
    }
    batches
}

impl Batch<'_> {
    /// Where the tokens of each text are among all.
    pub(super) fn ranges(&self) -> impl Iterator<Item = Range<usize>> {
        self.texts.iter().scan(0, |end, text| {
            let start = *end;
            *end += text.len();
            Some(start..*end)
        })
    }
}

/// A candle error is a bug of ours or a file that lies in a way that was not foreseen; neither is the caller's.
pub(super) fn failed(error: &candle_core::Error) -> EmbedError {
    EmbedError::BadAnswer {
        message: format!("the local model failed: {error}"),
    }
}

/// The numbers of a tensor of two dimensions, row by row.
pub(super) fn rows(tensor: &Tensor) -> Result<Vec<Vec<f32>>, EmbedError> {
    let rows = tensor.to_vec2::<f32>().map_err(|e| failed(&e))?;
    if rows.iter().flatten().all(|x| x.is_finite()) {
        return Ok(rows);
    }
    Err(EmbedError::BadAnswer {
        message: "the local model made numbers that are not finite: its weights are damaged".to_owned(),
    })
}

/// Runs `work` for the texts on the workers while there is patience: what it made of each text, in order. Fewer than there
/// are texts if patience ended.
pub(super) fn run<T: Send>(
    tokens: &[Vec<u32>],
    workers: &Workers,
    patience: &Patience,
    work: impl Fn(&Batch<'_>) -> Result<Vec<T>, EmbedError> + Sync,
) -> Result<Vec<T>, EmbedError> {
    let done = workers.run(batches(tokens).into_iter(), patience, |batch| work(&batch));
    let mut all = Vec::with_capacity(tokens.len());
    for made in done {
        all.extend(made?);
    }
    Ok(all)
}

/// A path as it is said in messages.
fn shown(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_text_is_in_one_batch_and_no_batch_is_too_large(lengths in prop::collection::vec(0..400usize, 0..50)) {
            let tokens: Vec<Vec<u32>> = lengths.iter().map(|&n| vec![7; n]).collect();
            let mut next = 0;
            for batch in batches(&tokens) {
                prop_assert_eq!(batch.first, next);
                next += batch.texts.len();
                let ranges: Vec<Range<usize>> = batch.ranges().collect();
                prop_assert_eq!(ranges.iter().map(ExactSizeIterator::len).collect::<Vec<_>>(), &lengths[batch.first..next]);
                prop_assert!(ranges.windows(2).all(|w| w[0].end == w[1].start));
                prop_assert!(ranges.len() == 1 || ranges[ranges.len() - 1].end <= BATCH_TOKENS_MAX);
            }
            prop_assert_eq!(next, lengths.len());
        }
    }
}
