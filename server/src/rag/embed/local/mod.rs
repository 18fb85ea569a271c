//! A model of the BERT family in a directory, as sentence-transformers and transformers leave it there: `config.json`,
//! `tokenizer.json`, `model.safetensors`.
//!
//! What is read is untrusted: every size is bounded and every tensor's shape checked before it is used, and a file that
//! cannot be right is an error that names it. Only what changes a vector is read; what this code does not know how to
//! apply (another architecture, another pooling, a further layer) is refused rather than left out.
//!
//! Texts become batches here: tokenised, cut to the model's length, sorted by length so that little is padding, and run
//! on the threads of [`Workers`], with a look at the caller's patience between batches.

mod files;
mod network;
mod workers;

use std::path::Path;
use std::time::Duration;

use candle_core::Tensor;
use tokenizers::Tokenizer;

pub(super) use self::files::{Directory, Pooling, Recipe};
pub(super) use self::network::{Encoder, MaskedLanguageHead, Weights};
pub use self::workers::Workers;
use super::{EmbedError, Patience};

/// Tokens of one batch, padding included: about half a second of a small model on one core, which is how long a caller
/// who left may still cost; larger batches are not faster on a CPU.
const BATCH_TOKENS_MAX: usize = 1_024;
/// How long the one text may take that is embedded at start, on a machine that does nothing else yet.
pub(super) const TRY_OUT: Duration = Duration::from_secs(60);
/// Texts of one batch: short ones gain up to here.
const BATCH_TEXTS_MAX: usize = 32;

/// A tokenizer that cuts to the model's length.
pub(super) struct Pieces {
    tokenizer: Tokenizer,
    /// Tokens before and behind those of the text itself, which mark its ends.
    pub(super) marks: (usize, usize),
}

/// Texts of similar length, run together. Padded to the longest.
pub(super) struct Batch {
    /// Which texts these are.
    pub(super) members: Vec<usize>,
    /// Tokens of each, without padding.
    pub(super) lengths: Vec<usize>,
    /// Tokens of each, with padding.
    pub(super) width: usize,
    /// Row-major, `members` by `width`.
    pub(super) ids: Vec<u32>,
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

/// Batches of texts, shortest first: little padding, and the cheap ones are done when patience ends.
pub(super) fn batches_by_length(tokens: &[Vec<u32>]) -> Vec<Batch> {
    let mut order: Vec<usize> = (0..tokens.len()).collect();
    order.sort_by_key(|&i| (tokens[i].len(), i));
    batches(tokens, &order)
}

/// Batches of texts in the order given.
pub(super) fn batches(tokens: &[Vec<u32>], order: &[usize]) -> Vec<Batch> {
    let mut batches = Vec::new();
    let mut members: Vec<usize> = Vec::new();
    let mut width = 0;
    for &i in order {
        let wider = width.max(tokens[i].len());
        let full = members.len() == BATCH_TEXTS_MAX || (members.len() + 1) * wider > BATCH_TOKENS_MAX;
        if full && !members.is_empty() {
            batches.push(Batch::new(std::mem::take(&mut members), tokens));
            width = 0;
        }
        width = width.max(tokens[i].len());
        members.push(i);
    }
    if !members.is_empty() {
        batches.push(Batch::new(members, tokens));
    }
    batches
}

impl Batch {
    fn new(members: Vec<usize>, tokens: &[Vec<u32>]) -> Self {
        let lengths: Vec<usize> = members.iter().map(|&i| tokens[i].len()).collect();
        let width = lengths.iter().copied().max().unwrap_or(0);
        let mut ids = Vec::with_capacity(members.len() * width);
        for &i in &members {
            ids.extend_from_slice(&tokens[i]);
            // Any id will do: padding is masked.
            ids.resize(ids.len() + width - tokens[i].len(), 0);
        }
        Self {
            members,
            lengths,
            width,
            ids,
        }
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

/// Runs `work` for each batch in turn, on the workers, while there is patience. True if all were run.
pub(super) fn run_batches(
    batches: Vec<Batch>,
    workers: &Workers,
    patience: &Patience,
    mut work: impl FnMut(Batch) -> Result<(), EmbedError> + Send,
) -> Result<bool, EmbedError> {
    for batch in batches {
        if patience.check().is_err() {
            return Ok(false);
        }
        match workers.run(patience, || work(batch)) {
            Ok(done) => done?,
            Err(_) => return Ok(false),
        }
    }
    Ok(true)
}

/// A path as it is said in messages.
fn shown(path: &Path) -> String {
    path.display().to_string()
}
