//! Which headings and blocks does a text have?
//!
//! Blocks begin and end at lines, and together they are the whole text from its first character on, front matter and a
//! byte order mark apart. Nothing is rendered or interpreted but headings.

use pulldown_cmark::{Event, HeadingLevel, Options, Parser, Tag, TagEnd};

use super::TextFormat;
use crate::rag::line::{self, one_line};

/// A heading longer than this is cut in heading paths: every chunk below carries it.
pub(super) const HEADING_CHARS_MAX: usize = 200;

/// What stands under one heading, the heading's line included.
///
/// A heading directly above a deeper one has no text of its own. Its line goes with the deeper section, whose path
/// names it anyway: as a chunk by itself it would match queries and answer none.
pub(super) struct Section {
    pub(super) heading: Vec<String>,
    pub(super) blocks: Vec<Block>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Block {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
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

impl Section {
    /// Where it begins.
    pub(super) fn start(&self) -> usize {
        self.blocks.first().map_or(0, |block| block.start)
    }

    /// All sections as one, without a heading.
    pub(super) fn of_all(sections: &[Self]) -> Self {
        Self {
            heading: Vec::new(),
            blocks: sections.iter().flat_map(|section| section.blocks.clone()).collect(),
        }
    }
}

/// The sections of a text, in order.
pub(super) fn sections(text: &str, format: TextFormat) -> Vec<Section> {
    let from = body_start(text, format);
    match format {
        TextFormat::Markdown => markdown_sections(text, from),
        TextFormat::Plain => plain_sections(text, from),
    }
}

/// Where the text itself begins: behind front matter and byte order mark.
pub(super) fn body_start(text: &str, format: TextFormat) -> usize {
    match format {
        TextFormat::Markdown => front_matter(text).map_or(bom_len(text), |matter| matter.end),
        TextFormat::Plain => bom_len(text),
    }
}

/// The title of a Markdown text: its front matter's, else its first heading.
pub(super) fn title(text: &str) -> Option<String> {
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
        line::title(&title)
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

// ---- sections of blocks ----

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
                    *empty = one_line(&title, HEADING_CHARS_MAX);
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
