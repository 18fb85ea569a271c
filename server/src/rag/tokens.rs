//! How many tokens a text is, by the tokenizer somebody named.
//!
//! Budgets and chunk sizes are promises about a particular model's tokens, so the tokenizer is always named, never
//! guessed. Counting needs no network: the BPE ranks and the WordPiece vocabulary are in the binary.

use std::path::Path;
use std::sync::Arc;

use tiktoken_rs::{CoreBPE, cl100k_base_singleton, o200k_base_singleton};
use tokenizers::Tokenizer;

use super::embed::WordPiece;

/// OpenAI's newer models (GPT-4o and later); the default for prompt budgets.
pub const O200K_BASE: &str = "o200k_base";
/// OpenAI's GPT-4 and its embedding models.
pub const CL100K_BASE: &str = "cl100k_base";
/// The built-in embedder's own pieces; the default for chunk sizes, and by far the fastest.
pub const BERT_UNCASED: &str = "bert_uncased";

/// Every name that [`counter`] knows.
pub const NAMES: [&str; 3] = [O200K_BASE, CL100K_BASE, BERT_UNCASED];

/// Counts tokens.
///
/// - *Guarantees*: a function of the text alone; never panics; special tokens spelled out in the text count as text.
/// - *Non-guarantees*: counts do not add up. A whole may have fewer tokens than its parts together, or a few more, so
///   whoever keeps a budget counts the final text.
pub trait TokenCounter: Send + Sync {
    /// How many tokens `text` is.
    fn count(&self, text: &str) -> usize;
    /// The name the counter was asked for by.
    fn name(&self) -> &str;
}

/// Why there is no such counter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokensError {
    /// Not one of [`NAMES`].
    #[error("unknown tokenizer {name:?}; allowed are {}", NAMES.join(", "))]
    Unknown {
        /// What was asked for.
        name: String,
    },
    /// The file cannot be read, or is not a tokenizer of a kind we know.
    #[error("cannot load tokenizer file {path:?}: {reason}")]
    File {
        /// Which file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// The built-in counter of that name. Cheap; a BPE's tables are made at its first count (some hundred milliseconds).
pub fn counter(name: &str) -> Result<Arc<dyn TokenCounter>, TokensError> {
    match name {
        O200K_BASE => Ok(Arc::new(Tiktoken {
            name: O200K_BASE,
            bpe: o200k_base_singleton,
        })),
        CL100K_BASE => Ok(Arc::new(Tiktoken {
            name: CL100K_BASE,
            bpe: cl100k_base_singleton,
        })),
        BERT_UNCASED => Ok(Arc::new(BertUncased)),
        _ => Err(TokensError::Unknown { name: name.to_owned() }),
    }
}

/// A counter from a Hugging Face `tokenizer.json`. For the operator's settings only: a request must never name a path.
pub fn counter_from_file(path: &Path) -> Result<Arc<dyn TokenCounter>, TokensError> {
    let name = path.display().to_string();
    let failed = |error: tokenizers::Error| TokensError::File {
        path: name.clone(),
        reason: error.to_string(),
    };
    let mut tokenizer = Tokenizer::from_file(path).map_err(failed)?;
    // The file may say how its model wants batches cut and filled; a count is of the whole text and nothing else.
    tokenizer.with_truncation(None).map_err(failed)?.with_padding(None);
    Ok(Arc::new(FromFile { name, tokenizer }))
}

struct BertUncased;

impl TokenCounter for BertUncased {
    fn count(&self, text: &str) -> usize {
        WordPiece::builtin().count(text)
    }
    fn name(&self) -> &str {
        BERT_UNCASED
    }
}

struct FromFile {
    name: String,
    tokenizer: Tokenizer,
}

impl TokenCounter for FromFile {
    fn count(&self, text: &str) -> usize {
        // A tokenizer without an unknown token can fail on a text. Its bytes are then a safe bound: no budget breaks.
        self.tokenizer
            .encode_fast(text, false)
            .map_or(text.len(), |encoding| encoding.len())
    }
    fn name(&self) -> &str {
        &self.name
    }
}

struct Tiktoken {
    name: &'static str,
    bpe: fn() -> &'static CoreBPE,
}

impl TokenCounter for Tiktoken {
    fn count(&self, text: &str) -> usize {
        let bpe = (self.bpe)();
        slices(text).map(|slice| bpe.count_ordinary(slice)).sum()
    }
    fn name(&self) -> &str {
        self.name
    }
}

/// The most text given to a BPE at once. Its regular expression backtracks over runs of white space, and the crate
/// panics when it gives up (after a million steps); slices keep any text far from that.
const SLICE_BYTES_MAX: usize = 64 * 1024;

/// The text in slices. A cut after a line end with a letter or digit behind it changes no count, since no pattern of
/// o200k or cl100k matches across it; a text without such a place is cut anywhere, at the price of a token or two.
fn slices(mut text: &str) -> impl Iterator<Item = &str> {
    std::iter::from_fn(move || {
        if text.is_empty() {
            return None;
        }
        let cut = if text.len() <= SLICE_BYTES_MAX {
            text.len()
        } else {
            slice_end(text)
        };
        let (slice, rest) = text.split_at(cut);
        text = rest;
        Some(slice)
    })
}

fn slice_end(text: &str) -> usize {
    let window = text.floor_char_boundary(SLICE_BYTES_MAX);
    let starts_word = |at: &usize| text[*at..].chars().next().is_some_and(char::is_alphanumeric);
    let line_starts = text[..window].rmatch_indices('\n').map(|(at, _)| at + 1);
    line_starts.into_iter().find(starts_word).unwrap_or(window)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_texts_have_known_counts() {
        // Published examples: OpenAI's cookbook counts "tiktoken is great!" as 6 tokens in both encodings.
        for (name, text, tokens) in [
            (O200K_BASE, "tiktoken is great!", 6),
            (CL100K_BASE, "tiktoken is great!", 6),
            (CL100K_BASE, "2 + 2 = 4", 7),
            (CL100K_BASE, "お誕生日おめでとう", 9),
            (O200K_BASE, "お誕生日おめでとう", 8),
            (BERT_UNCASED, "Kubernetes pod autoscaling with custom metrics", 12),
            (BERT_UNCASED, " \n", 0),
        ] {
            assert_eq!(counter(name).unwrap().count(text), tokens, "{name} {text:?}");
        }
    }

    #[test]
    fn special_tokens_in_a_text_count_as_text() {
        for name in [O200K_BASE, CL100K_BASE] {
            assert!(counter(name).unwrap().count("<|endoftext|>") > 1);
        }
    }

    #[test]
    fn an_unknown_name_is_told_what_is_allowed() {
        let error = counter("gpt-9").err().unwrap();
        assert_eq!(
            error.to_string(),
            "unknown tokenizer \"gpt-9\"; allowed are o200k_base, cl100k_base, bert_uncased"
        );
        assert!(NAMES.iter().all(|&name| counter(name).unwrap().name() == name));
    }

    #[test]
    fn long_runs_of_one_character_neither_panic_nor_stall() {
        for name in NAMES {
            let counter = counter(name).unwrap();
            for run in [
                " ",
                "\n",
                "\r\n",
                "a",
                "A",
                "é",
                "你",
                "1",
                "!",
                "👩‍👩‍👧",
                " a",
                "\t ",
                "'s",
            ] {
                let text = run.repeat(200_000 / run.len());
                assert!(counter.count(&text) <= text.len(), "{name} {run:?}");
                assert!(counter.count(&(text + "x")) > 0, "{name} {run:?}");
            }
        }
    }

    #[test]
    fn slicing_at_line_starts_changes_no_count() {
        let line = "The  quick (brown) fox's 1234 tail;  \n\n  jumps over //\n/the lazy dog.\nNext ";
        let text = line.repeat(4 * SLICE_BYTES_MAX / line.len());
        assert!(slices(&text).count() > 3);
        assert_eq!(slices(&text).collect::<String>(), text);
        for bpe in [o200k_base_singleton(), cl100k_base_singleton()] {
            assert_eq!(
                slices(&text).map(|slice| bpe.count_ordinary(slice)).sum::<usize>(),
                bpe.count_ordinary(&text)
            );
        }
    }

    #[test]
    fn a_tokenizer_file_counts_whole_texts_and_a_bad_one_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tokenizer.json");
        let json = r#"{"version":"1.0","truncation":{"direction":"Right","max_length":2,"strategy":"LongestFirst","stride":0},
            "padding":null,"added_tokens":[],"normalizer":null,"pre_tokenizer":{"type":"Whitespace"},"post_processor":null,
            "decoder":null,"model":{"type":"WordLevel","vocab":{"[UNK]":0,"a":1},"unk_token":"[UNK]"}}"#;
        std::fs::write(&path, json).unwrap();
        assert_eq!(counter_from_file(&path).unwrap().count("a b a c"), 4);

        std::fs::write(&path, "{}").unwrap();
        let error = counter_from_file(&path).err().unwrap().to_string();
        assert!(
            error.contains("cannot load tokenizer file") && error.contains("tokenizer.json"),
            "{error}"
        );
        assert!(counter_from_file(&directory.path().join("missing")).is_err());
    }
}
