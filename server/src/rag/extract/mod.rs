//! Files to text: what a person would read in an HTML page or a PDF.
//!
//! Pure functions from bytes to text, the format in which to cut it, and the title the file gives itself. Spans of
//! chunks, and so citations, are bytes of this text; `cairn extract` prints it.
//!
//! Any bytes are survived. The time and memory of HTML are those of its length; of a PDF they are bounded by [`apart`], and
//! only there: what the library makes of a hostile file is not bounded within the process that reads it. What cannot be read
//! is an error that says why, never a guess: a damaged PDF gives no half of itself.

pub mod apart;
mod attributes;
mod charset;
mod html;
mod markdown;
mod pdf;

use serde::{Deserialize, Serialize};

use super::chunk::TextFormat;

pub use self::pdf::{CONTENT_BYTES_MAX, PAGES_MAX};

/// A document's text, as it is in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extracted {
    /// The text.
    pub text: String,
    /// How to cut it.
    pub format: TextFormat,
    /// What the file calls itself, if it does.
    pub title: Option<String>,
}

/// Why a file gave no text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum ExtractError {
    /// Not such a file, or a damaged one.
    #[error("{0}")]
    Unreadable(String),
    /// It takes a password to read it.
    #[error("the file is encrypted: decrypt it first")]
    Encrypted,
    /// It has pages, and no text on any: pictures of text, most likely.
    #[error("the file has no text layer; scanned pages need text recognition first")]
    NoText,
    /// One of the bounds; says which.
    #[error("{0}")]
    TooLarge(String),
    /// The caller said stop.
    #[error("stopped")]
    Stopped,
    /// The file could not be looked at; it is no fault of the file.
    #[error("the file could not be read: {0}")]
    Failed(String),
}

/// The visible text of an HTML page, with headings, lists, tables and code in Markdown. Scripts, styles, navigation and
/// what is hidden are left out.
pub fn html(text: &str) -> Extracted {
    let (text, title) = html::read(text);
    Extracted {
        text,
        format: TextFormat::Markdown,
        title,
    }
}

/// The same of bytes, in the character set that they say they are in, or that they look like.
pub fn html_bytes(bytes: &[u8]) -> Extracted {
    html(&charset::decode(bytes))
}

/// The text layer of a PDF, page by page, in the order in which it was drawn. `stop` is asked at every page and every few
/// thousand drawing operators. For files of strangers see [`apart::PdfReader`].
pub fn pdf(bytes: &[u8], stop: &dyn Fn() -> bool) -> Result<Extracted, ExtractError> {
    pdf::read(bytes, stop)
}

#[cfg(test)]
mod tests;
