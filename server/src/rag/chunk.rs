//! Cutting a document into chunks: pieces small enough to embed and to cite, cut where a reader would cut.
//!
//! Promises, each held by a property test:
//! - a chunk is an exact slice of the source: `source[span] == text`;
//! - a chunk has at most `max_tokens` tokens, unless it is a single character that has more;
//! - no chunk is white space only, and spans ascend in start and in end;
//! - every character that is not white space is in some chunk, front matter apart.
//!
//! Cuts are tried from coarse to fine: headings (never within one chunk, see [`Section`]), blocks (paragraph, list
//! item, code, table), sentences, lines, words, grapheme clusters, characters. Only what is too large is cut finer.
//! Two chunks that follow each other without overlap touch: the white space between them, up to [`GAP_BYTES_MAX`],
//! belongs to the first, so that `pack` can stitch neighbours back into exact source text without the source.
//!
//! What this is not: it renders no Markdown. Shortcodes, HTML comments and link definitions stay in the text, because
//! a citation must point at what is there.

use pulldown_cmark::{Event, HeadingLevel, Options, Parser, Tag, TagEnd};
use serde::{Deserialize, Serialize};
use unicode_segmentation::UnicodeSegmentation;

/// How to read a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TextFormat {
    /// CommonMark with tables, footnotes and heading attributes; YAML (`---`) or TOML (`+++`) front matter.
    Markdown,
    /// Paragraphs between blank lines; no headings, no front matter.
    Plain,
}

/// How large chunks are. Any values are legal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkSettings {
    /// The most tokens of a chunk; 0 is taken as 1.
    pub max_tokens: usize,
    /// How many tokens of the chunk before may be repeated, in whole sentences or lines; at most half of `max_tokens`.
    pub overlap_tokens: usize,
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

/// White space after a chunk that still belongs to it. Blank lines and indentation fit; a page of spaces does not.
const GAP_BYTES_MAX: usize = 64;

/// A token is taken to have at most so many bytes. Prose has 4 to 6; but WordPiece counts a megabyte of base64 as one
/// unknown word, and a chunk must be bounded in bytes as well.
const TOKEN_BYTES_MAX: usize = 64;

/// A heading longer than this is cut in heading paths: every chunk below carries it.
const HEADING_CHARS_MAX: usize = 200;

/// Cuts `text` into chunks. `count` is called on each byte a handful of times at most, whatever the text is.
pub fn chunk(text: &str, format: TextFormat, settings: &ChunkSettings, count: &dyn Fn(&str) -> usize) -> Vec<Chunk> {
    let max = settings.max_tokens.max(1);
    let cutter = Cutter {
        text,
        max,
        overlap: settings.overlap_tokens.min(max / 2),
        count,
    };
    let sections = match format {
        TextFormat::Markdown => markdown_sections(text, front_matter(text).map_or(bom_len(text), |matter| matter.end)),
        TextFormat::Plain => plain_sections(text, bom_len(text)),
    };
    let mut chunks = Vec::new();
    for section in &sections {
        cutter.fill(section, &mut chunks);
    }
    cutter.close_gaps(&mut chunks);
    chunks
}

/// What the document calls itself: its front matter's `title`, else its first heading. Plain text has no title.
pub fn title_of(text: &str, format: TextFormat) -> Option<String> {
    if format == TextFormat::Plain {
        return None;
    }
    let matter = front_matter(text);
    let body = matter.as_ref().map_or(bom_len(text), |matter| matter.end);
    matter.and_then(|matter| matter.title()).or_else(|| {
        let mut titles = markdown_marks(text, body)
            .into_iter()
            .filter_map(|mark| Some(mark.heading?.1));
        titles.find(|title| !title.is_empty())
    })
}

fn bom_len(text: &str) -> usize {
    if text.starts_with('\u{feff}') {
        '\u{feff}'.len_utf8()
    } else {
        0
    }
}

// ---- front matter ----

struct FrontMatter<'a> {
    fields: &'a str,
    toml: bool,
    /// Where the document's own text begins.
    end: usize,
}

/// Front matter is on the first line or not at all, and must be closed.
fn front_matter(text: &str) -> Option<FrontMatter<'_>> {
    let start = bom_len(text);
    let mut lines = text[start..].split_inclusive('\n');
    let first = lines.next()?;
    let toml = match first.trim_end() {
        "---" => false,
        "+++" => true,
        _ => return None,
    };
    let fields_start = start + first.len();
    let mut at = fields_start;
    for line in lines {
        let closes = match line.trim_end() {
            "---" | "..." => !toml,
            "+++" => toml,
            _ => false,
        };
        if closes {
            return Some(FrontMatter {
                fields: &text[fields_start..at],
                toml,
                end: at + line.len(),
            });
        }
        at += line.len();
    }
    None
}

impl FrontMatter<'_> {
    /// The top-level `title`, if it is a string on one line; a YAML or TOML parser would be much for one field.
    fn title(&self) -> Option<String> {
        let separator = if self.toml { '=' } else { ':' };
        let own = self
            .fields
            .lines()
            .take_while(|line| !(self.toml && line.starts_with('[')));
        let value = own
            .filter_map(|line| line.split_once(separator))
            .find(|(key, _)| key.trim_end() == "title")?
            .1;
        let value = value.trim();
        let title = match value.chars().next()? {
            quote @ ('"' | '\'') => unquote(&value[1..], quote, self.toml)?,
            '>' | '|' | '&' | '*' | '[' | '{' => return None,
            _ => value.split(" #").next().unwrap_or_default().trim_end().to_owned(),
        };
        let title = title.split_whitespace().collect::<Vec<_>>().join(" ");
        (!title.is_empty()).then_some(title)
    }
}

/// The string up to its closing quote. Within double quotes a backslash escapes; within YAML's single ones, a quote.
fn unquote(value: &str, quote: char, toml: bool) -> Option<String> {
    let mut unquoted = String::new();
    let mut chars = value.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' if quote == '"' => match chars.next()? {
                'n' | 't' | 'r' => unquoted.push(' '),
                escaped => unquoted.push(escaped),
            },
            '\'' if quote == '\'' && !toml && chars.peek() == Some(&'\'') => {
                chars.next();
                unquoted.push('\'');
            }
            c if c == quote => return Some(unquoted),
            c => unquoted.push(c),
        }
    }
    None
}

// ---- outline: sections of blocks ----

/// What stands under one heading, the heading's line included.
///
/// A heading directly above a deeper one has no text of its own. Its line goes with the deeper section, whose path
/// names it anyway: as a chunk by itself it would match queries and answer none.
struct Section {
    heading: Vec<String>,
    blocks: Vec<Block>,
}

#[derive(Debug, Clone, Copy)]
struct Block {
    start: usize,
    end: usize,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Heading,
    /// Text with sentences.
    Prose,
    /// Code, tables, HTML: text with lines.
    Lines,
}

/// A block begins at this line.
struct Mark {
    at: usize,
    kind: Kind,
    heading: Option<(HeadingLevel, String)>,
}

fn plain_sections(text: &str, from: usize) -> Vec<Section> {
    let mut blocks = Vec::new();
    let (mut start, mut at) = (from, from);
    for line in text[from..].split_inclusive('\n') {
        if line.trim().is_empty() {
            blocks.push(Block {
                start,
                end: at,
                kind: Kind::Prose,
            });
            start = at + line.len();
        }
        at += line.len();
    }
    blocks.push(Block {
        start,
        end: at,
        kind: Kind::Prose,
    });
    vec![Section {
        heading: Vec::new(),
        blocks,
    }]
}

fn markdown_sections(text: &str, from: usize) -> Vec<Section> {
    let marks = markdown_marks(text, from);
    let mut sections = vec![Section {
        heading: Vec::new(),
        blocks: Vec::new(),
    }];
    let mut path: Vec<(HeadingLevel, String)> = Vec::new();
    // The heading of the current section, while nothing but headings stands in it.
    let mut bare: Option<HeadingLevel> = None;

    let ends = marks
        .iter()
        .skip(1)
        .map(|mark| mark.at)
        .chain([text.len()])
        .collect::<Vec<_>>();
    for (mark, end) in marks.into_iter().zip(ends) {
        let block = Block {
            start: mark.at,
            end,
            kind: mark.kind,
        };
        if let Some((level, title)) = mark.heading {
            path.retain(|(above, _)| *above < level);
            path.push((level, title));
            let heading = path
                .iter()
                .map(|(_, title)| title.clone())
                .filter(|title| !title.is_empty())
                .collect();
            match sections.last_mut() {
                Some(section) if bare.is_some_and(|above| above < level) => section.heading = heading,
                _ => sections.push(Section {
                    heading,
                    blocks: Vec::new(),
                }),
            }
            bare = Some(level);
        } else if !text[block.start..block.end].trim().is_empty() {
            bare = None;
        }
        sections
            .last_mut()
            .expect("there is always a section")
            .blocks
            .push(block);
    }
    sections
}

/// Where blocks begin, ascending. Markdown's blocks begin and end at lines, whatever containers they are in. A heading
/// within a quote, a list or a footnote heads nothing of the document.
fn markdown_marks(text: &str, from: usize) -> Vec<Mark> {
    let body = &text[from..];
    let options = Options::ENABLE_TABLES | Options::ENABLE_FOOTNOTES | Options::ENABLE_HEADING_ATTRIBUTES;
    let mut marks = vec![Mark {
        at: 0,
        kind: Kind::Prose,
        heading: None,
    }];
    let mut containers = 0usize;
    let mut title: Option<String> = None;
    // Events come in the order of the text, so each byte is searched for line ends once, even when a single line opens
    // a hundred thousand quotes.
    let (mut line, mut searched) = (0, 0);
    let mut line_start = |at: usize| {
        if let Some(unsearched) = body.get(searched..at) {
            line = unsearched.rfind('\n').map_or(line, |newline| searched + newline + 1);
            searched = at;
        }
        line
    };
    let next_line = |at: usize| {
        let last = at.saturating_sub(1);
        body.as_bytes()[last..]
            .iter()
            .position(|&byte| byte == b'\n')
            .map_or(body.len(), |newline| last + newline + 1)
    };

    for (event, range) in Parser::new_ext(body, options).into_offset_iter() {
        match event {
            Event::Start(tag) => {
                let (kind, heading) = match tag {
                    Tag::Heading { level, .. } if containers == 0 => (Kind::Heading, Some((level, String::new()))),
                    Tag::BlockQuote(_) | Tag::FootnoteDefinition(_) | Tag::List(_) => {
                        containers += 1;
                        (Kind::Prose, None)
                    }
                    Tag::Heading { .. } | Tag::Paragraph | Tag::Item => (Kind::Prose, None),
                    Tag::CodeBlock(_) | Tag::HtmlBlock | Tag::Table(_) => (Kind::Lines, None),
                    _ => continue,
                };
                title = heading.is_some().then(String::new);
                marks.push(Mark {
                    at: line_start(range.start),
                    kind,
                    heading,
                });
                if kind != Kind::Prose {
                    marks.push(Mark {
                        at: next_line(range.end),
                        kind: Kind::Prose,
                        heading: None,
                    });
                }
            }
            Event::End(TagEnd::Heading(_)) => {
                if let Some(title) = title.take()
                    && let Some((_, empty)) = marks.iter_mut().rev().find_map(|mark| mark.heading.as_mut())
                {
                    *empty = heading_text(&title);
                }
            }
            Event::End(TagEnd::BlockQuote(_) | TagEnd::FootnoteDefinition | TagEnd::List(_)) => {
                containers = containers.saturating_sub(1);
            }
            Event::Text(part) | Event::Code(part) | Event::InlineHtml(part) => {
                if let Some(title) = &mut title {
                    title.push_str(&part);
                }
            }
            Event::SoftBreak | Event::HardBreak => {
                if let Some(title) = &mut title {
                    title.push(' ');
                }
            }
            _ => {}
        }
    }
    one_mark_a_line(&mut marks);
    for mark in &mut marks {
        mark.at += from;
    }
    marks
}

/// One line may open several blocks (`- > text`) and close another: they are one block, a heading if any is, and
/// made of lines if any is.
fn one_mark_a_line(marks: &mut Vec<Mark>) {
    marks.sort_by_key(|mark| mark.at);
    marks.dedup_by(|later, kept| {
        let same = later.at == kept.at;
        if same && kept.kind != Kind::Heading && later.kind != Kind::Prose {
            kept.kind = later.kind;
            kept.heading = later.heading.take();
        }
        same
    });
}

fn heading_text(title: &str) -> String {
    let words = title.split_whitespace().collect::<Vec<_>>().join(" ");
    match words.char_indices().nth(HEADING_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &words[..end]),
        None => words,
    }
}

// ---- filling chunks ----

/// What a piece is cut from: the coarser, the more welcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
enum Grain {
    Block,
    Sentence,
    Line,
    Word,
    Character,
}

/// A part of a section that is not cut (unless it must be): trimmed, never empty.
#[derive(Debug, Clone, Copy)]
struct Piece {
    start: usize,
    end: usize,
    kind: Kind,
    grain: Grain,
    /// See [`Cutter::size`].
    size: usize,
}

/// The chunk being filled: pieces, with some of the chunk before in front of them.
#[derive(Default)]
struct Open {
    start: usize,
    pieces: Vec<Piece>,
    size: usize,
}

/// A place in the last chunk where the next may begin, and how much it would repeat from there.
struct Repeat {
    start: usize,
    size: usize,
}

struct Cutter<'a> {
    text: &'a str,
    max: usize,
    overlap: usize,
    count: &'a dyn Fn(&str) -> usize,
}

impl Cutter<'_> {
    /// Cuts a section: greedily, piece after piece, each chunk as full as whole pieces make it.
    ///
    /// Sizes of pieces are added up to decide, since counting the growing chunk again and again would be quadratic.
    /// Counts do not quite add up, so a finished chunk is counted once more and gives pieces back if it must.
    fn fill(&self, section: &Section, chunks: &mut Vec<Chunk>) {
        let pieces = section
            .blocks
            .iter()
            .filter_map(|block| self.piece(block.start, block.end, block.kind, Grain::Block));
        let mut todo: Vec<Piece> = pieces.collect();
        todo.reverse();
        let mut open = Open::default();
        let mut repeats: Vec<Repeat> = Vec::new();

        loop {
            while let Some(piece) = todo.pop() {
                let fits = open.size + piece.size <= self.max;
                // Rather than leave a heading alone, the block below it is cut.
                let lonely = !fits && open.is_heading() && open.size <= self.max / 2 && piece.grain < Grain::Word;
                if (piece.size > self.max || lonely)
                    && let Some(finer) = self.finer(&piece)
                {
                    todo.extend(finer.into_iter().rev());
                } else if open.pieces.is_empty() {
                    open = self.open(piece, &repeats);
                } else if fits {
                    open.size += piece.size;
                    open.pieces.push(piece);
                } else {
                    todo.push(piece);
                    break;
                }
            }
            if open.pieces.is_empty() {
                return;
            }
            let full = std::mem::take(&mut open);
            let kept = self.close(full, &mut todo);
            let text = self.text[kept.start..kept.end()].to_owned();
            let tokens = (self.count)(&text);
            chunks.push(Chunk {
                text,
                span: (kept.start, kept.end()),
                heading: section.heading.clone(),
                tokens,
            });
            repeats = self.repeats(&kept);
        }
    }

    /// Begins a chunk with `piece`, repeating as much of the last chunk as there is room for.
    fn open(&self, piece: Piece, repeats: &[Repeat]) -> Open {
        let longest = repeats.iter().rev().find(|repeat| repeat.size + piece.size <= self.max);
        match longest {
            Some(repeat) if self.size(repeat.start, piece.end) <= self.max => Open {
                start: repeat.start,
                size: repeat.size + piece.size,
                pieces: vec![piece],
            },
            _ => Open {
                start: piece.start,
                size: piece.size,
                pieces: vec![piece],
            },
        }
    }

    /// Makes sure that what was filled by adding up is within bounds as a whole; what is not goes back to `todo`.
    fn close(&self, mut full: Open, todo: &mut Vec<Piece>) -> Open {
        while full.pieces.len() > 1 && self.size(full.start, full.end()) > self.max {
            // An eighth at a time: logarithmically many counts even for a counter whose sums are far off.
            let keep = full.pieces.len() - full.pieces.len().div_ceil(8);
            todo.extend(full.pieces.drain(keep..).rev());
        }
        full
    }

    /// Where the chunk after `kept` may begin: before each whole sentence or line, from the last one backwards.
    fn repeats(&self, kept: &Open) -> Vec<Repeat> {
        let mut repeats = Vec::new();
        let mut size = 0;
        if self.overlap == 0 {
            return repeats;
        }
        for piece in kept.pieces.iter().rev() {
            if piece.grain > Grain::Line {
                break;
            }
            let starts = match (piece.grain, piece.kind) {
                (Grain::Block, Kind::Prose) => sentence_starts(self.slice(piece)),
                (Grain::Block, Kind::Lines) => line_starts(self.slice(piece)),
                _ => vec![0],
            };
            let mut end = piece.end;
            for start in starts.into_iter().rev().map(|start| piece.start + start) {
                let Some(part) = self.piece(start, end, piece.kind, Grain::Sentence) else {
                    continue;
                };
                size += part.size;
                // The whole chunk is no overlap: chunks must get on.
                if size > self.overlap || part.start <= kept.start {
                    return repeats;
                }
                repeats.push(Repeat {
                    start: part.start,
                    size,
                });
                end = start;
            }
        }
        repeats
    }

    /// Gives each chunk the white space up to the next, where that is little and fits.
    fn close_gaps(&self, chunks: &mut [Chunk]) {
        for at in 1..chunks.len() {
            let next = chunks[at].span.0;
            let chunk = &mut chunks[at - 1];
            let (start, end) = chunk.span;
            if end < next && next - end <= GAP_BYTES_MAX {
                let text = &self.text[start..next];
                let tokens = (self.count)(text);
                if tokens <= self.max {
                    *chunk = Chunk {
                        text: text.to_owned(),
                        span: (start, next),
                        tokens,
                        heading: std::mem::take(&mut chunk.heading),
                    };
                }
            }
        }
    }

    /// The piece cut one grain finer, or as fine as it takes to get more than one; `None` if it is one character.
    fn finer(&self, piece: &Piece) -> Option<Vec<Piece>> {
        let text = self.slice(piece);
        // What was too large a heading is read as prose from here on.
        let kind = if piece.kind == Kind::Heading {
            Kind::Prose
        } else {
            piece.kind
        };
        let mut grain = piece.grain;
        loop {
            let starts;
            (grain, starts) = match grain {
                Grain::Block if kind == Kind::Prose => (Grain::Sentence, sentence_starts(text)),
                Grain::Block | Grain::Sentence => (Grain::Line, line_starts(text)),
                Grain::Line => (Grain::Word, word_starts(text)),
                Grain::Word => (Grain::Character, self.character_starts(text)),
                Grain::Character => return None,
            };
            if starts.len() == 1 {
                continue;
            }
            let ends = starts.iter().skip(1).copied().chain([text.len()]);
            let cuts = starts.iter().zip(ends);
            let piece = |(&start, end)| self.piece(piece.start + start, piece.start + end, kind, grain);
            let pieces: Vec<Piece> = cuts.filter_map(piece).collect();
            if pieces.len() > 1 {
                return Some(pieces);
            }
        }
    }

    /// Where to cut a word that is too large: as few cuts as possible, at grapheme clusters; within one only if it is
    /// too large itself.
    fn character_starts(&self, word: &str) -> Vec<usize> {
        let fits = |start: usize, end: usize| self.size_of(&word[start..end]) <= self.max;
        let mut ends: Vec<usize> = Vec::new();
        for (at, grapheme) in word.grapheme_indices(true) {
            if grapheme.chars().nth(1).is_some() && !fits(at, at + grapheme.len()) {
                ends.extend(grapheme.char_indices().skip(1).map(|(offset, _)| at + offset));
            }
            ends.push(at + grapheme.len());
        }
        let mut starts = vec![0];
        // ends[..from] are behind us. The last length is the best guess for the next: text tends to stay as it is.
        let (mut from, mut guess) = (0, self.max);
        while from < ends.len() {
            let start = starts[starts.len() - 1];
            let fits = |length: usize| fits(start, ends[from + length - 1]);
            let length = longest(ends.len() - from, guess, fits);
            from += length;
            guess = length;
            if from < ends.len() {
                starts.push(ends[from - 1]);
            }
        }
        starts
    }

    /// `None` if there is only white space.
    fn piece(&self, start: usize, end: usize, kind: Kind, grain: Grain) -> Option<Piece> {
        let text = &self.text[start..end];
        let trimmed = text.trim_start();
        let start = start + (text.len() - trimmed.len());
        let end = start + trimmed.trim_end().len();
        (start < end).then(|| Piece {
            start,
            end,
            kind,
            grain,
            size: self.size(start, end),
        })
    }

    fn slice(&self, piece: &Piece) -> &str {
        &self.text[piece.start..piece.end]
    }

    fn size(&self, start: usize, end: usize) -> usize {
        self.size_of(&self.text[start..end])
    }

    /// Tokens, but never fewer than the bytes allow: see [`TOKEN_BYTES_MAX`]. At least 1 for any text.
    fn size_of(&self, text: &str) -> usize {
        (self.count)(text).max(text.len().div_ceil(TOKEN_BYTES_MAX))
    }
}

impl Open {
    fn end(&self) -> usize {
        self.pieces.last().map_or(self.start, |piece| piece.end)
    }

    fn is_heading(&self) -> bool {
        !self.pieces.is_empty() && self.pieces.iter().all(|piece| piece.kind == Kind::Heading)
    }
}

/// The longest length in `1..=available` that fits, to within an eighth, trying few; 1 even if that does not fit.
/// Doubles from (or halves below) the guess and then bisects, so it costs some counts of twice the answer's text.
fn longest(available: usize, guess: usize, fits: impl Fn(usize) -> bool) -> usize {
    let (mut good, mut bad) = (1, available + 1);
    let mut try_next = guess.clamp(1, available);
    while good + 1 < bad && bad - good > good / 8 {
        if fits(try_next) {
            good = try_next;
        } else {
            bad = try_next.max(2);
        }
        try_next = if bad > available {
            (2 * good).min(available)
        } else {
            good.midpoint(bad)
        };
        if try_next == good {
            break;
        }
    }
    good
}

// ---- where sentences, lines and words begin ----

/// Each line's start.
fn line_starts(text: &str) -> Vec<usize> {
    [0].into_iter()
        .chain(text.match_indices('\n').map(|(at, _)| at + 1))
        .collect()
}

/// Each word's start: a character behind white space.
fn word_starts(text: &str) -> Vec<usize> {
    let mut starts = vec![0];
    let mut white = false;
    for (at, c) in text.char_indices() {
        if white && !c.is_whitespace() {
            starts.push(at);
        }
        white = c.is_whitespace();
    }
    starts
}

/// Each sentence's start, by a simple rule: a sentence ends at 。！？ and the like; at . ! ? … if white space follows,
/// then no lower-case letter ("e.g. this"), and if no single letter or digit stands before ("J. Smith", "1. First").
/// Closing quotes and brackets belong to the sentence they close.
fn sentence_starts(text: &str) -> Vec<usize> {
    let mut starts = vec![0];
    let mut chars = text.char_indices().peekable();
    // Characters of the word before, if they are all letters and digits.
    let mut word = Some(0usize);
    while let Some((_, c)) = chars.next() {
        match c {
            '。' | '！' | '？' | '｡' => {
                while chars
                    .next_if(|(_, next)| closes(*next) || matches!(next, '。' | '！' | '？' | '｡'))
                    .is_some()
                {}
                if let Some(&(next, _)) = chars.peek() {
                    starts.push(next);
                }
            }
            '.' | '!' | '?' | '…' | '؟' | '।' => {
                let initial = c == '.' && word == Some(1);
                while chars
                    .next_if(|(_, next)| closes(*next) || matches!(next, '.' | '!' | '?' | '…'))
                    .is_some()
                {}
                let mut white = false;
                while chars.next_if(|(_, next)| next.is_whitespace()).is_some() {
                    white = true;
                }
                if let Some(&(next, first)) = chars.peek()
                    && white
                    && !initial
                    && !first.is_lowercase()
                {
                    starts.push(next);
                }
                word = if white { Some(0) } else { None };
            }
            c if c.is_whitespace() => word = Some(0),
            c if c.is_alphanumeric() => word = word.map(|chars| chars + 1),
            _ => word = None,
        }
    }
    starts
}

fn closes(c: char) -> bool {
    matches!(
        c,
        '"' | '\'' | ')' | ']' | '”' | '’' | '»' | '」' | '』' | '）' | '】' | '》' | '*' | '_'
    )
}

#[cfg(test)]
mod tests;
