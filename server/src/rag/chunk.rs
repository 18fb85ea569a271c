//! Cutting a document into chunks: pieces small enough to embed and to cite, cut where a reader would cut.
//!
//! Promises, each held by a property test:
//! - a chunk is an exact slice of the source: `source[span] == text`;
//! - a chunk has at most `max_tokens` tokens, unless it is a single character that has more;
//! - no chunk is white space only, and spans ascend in start and in end;
//! - every character that is not white space is in some chunk, front matter apart.
//!
//! Where a reader would cut is a matter of [`Cut`]. The default tries cuts from coarse to fine: headings (never
//! within one chunk), blocks (paragraph, list item, code, table), sentences, lines, words, grapheme clusters, characters.
//! Only what is too large is cut finer. Two chunks that follow each other without overlap touch: the white space between
//! them, up to 64 bytes, belongs to the first, so that `pack` can stitch neighbours back into exact source text without
//! the source.
//!
//! `outline` says which headings and blocks a text has, `starts` where its sentences, lines and words begin, and `fill`
//! makes chunks of them.
//!
//! What this is not: it renders no Markdown. Shortcodes, HTML comments and link definitions stay in the text, because
//! a citation must point at what is there.

mod fill;
mod outline;
mod starts;

use serde::{Deserialize, Serialize};

use self::fill::Cutter;
use self::outline::Section;

/// How to read a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TextFormat {
    /// CommonMark with tables, footnotes and heading attributes; YAML (`---`) or TOML (`+++`) front matter.
    Markdown,
    /// Paragraphs between blank lines; no headings, no front matter.
    Plain,
}

/// What a cut looks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Cut {
    /// Headings and blocks first, then sentences, then words.
    #[default]
    Structure,
    /// Sentences, whatever blocks they are of, and lines of code and tables; never within one that fits. Headings still
    /// end a chunk.
    Sentence,
    /// Words: every chunk is as full as whole words make it, whatever the structure. Its heading path is that of its
    /// beginning.
    Fixed,
}

/// How large chunks are. Any values are legal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkSettings {
    /// The most tokens of a chunk; 0 is taken as 1.
    pub max_tokens: usize,
    /// How many tokens of the chunk before may be repeated, in whole sentences or lines (words, if chunks are fixed); at
    /// most half of `max_tokens`.
    pub overlap_tokens: usize,
    /// What a cut looks for.
    pub strategy: Cut,
}

/// A piece of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// The text, exactly as in the source.
    pub text: String,
    /// Bytes of the source, from and to.
    pub span: (usize, usize),
    /// The headings that the chunk stands under, outermost first.
    pub heading: Vec<String>,
    /// What `count` said of `text`.
    pub tokens: usize,
}

/// Cuts `text` into chunks. `count` is called on each byte a handful of times at most, whatever the text is.
pub fn chunk(text: &str, format: TextFormat, settings: &ChunkSettings, count: &dyn Fn(&str) -> usize) -> Vec<Chunk> {
    let sections = outline::sections(text, format);
    let cutter = Cutter::new(text, settings, count);
    let mut chunks = Vec::new();
    match settings.strategy {
        Cut::Structure | Cut::Sentence => {
            for section in &sections {
                cutter.fill(section, &mut chunks);
            }
        }
        Cut::Fixed => {
            cutter.fill(&Section::of_all(&sections), &mut chunks);
            head(&mut chunks, sections);
        }
    }
    cutter.close_gaps(&mut chunks);
    chunks
}

/// Gives each chunk the heading path of the section that it begins in. Both ascend.
fn head(chunks: &mut [Chunk], sections: Vec<Section>) {
    let mut sections = sections.into_iter().peekable();
    let mut heading = Vec::new();
    for chunk in chunks {
        while let Some(section) = sections.next_if(|section| section.start() <= chunk.span.0) {
            heading = section.heading;
        }
        chunk.heading.clone_from(&heading);
    }
}

/// What the document calls itself: its front matter's `title`, else its first heading. Plain text has no title.
pub fn title_of(text: &str, format: TextFormat) -> Option<String> {
    match format {
        TextFormat::Markdown => outline::title(text),
        TextFormat::Plain => None,
    }
}

#[cfg(test)]
mod tests;
