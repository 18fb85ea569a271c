//! HTML to the text a reader sees. Tokens are those of `html5ever`, which reads any bytes as browsers do; the tree is not
//! built, because browsers' rules for it take time in the square of the depth, and a reader needs less: which elements
//! are open, which of them are hidden, where blocks begin and end. [`attributes`] says what the tokenizer gets to see.
//!
//! Left out: scripts, styles, templates, `nav` and `role=navigation`, form controls, embedded things, SVG, and what is
//! `hidden`, `aria-hidden=true`, or of inline style `display: none` or `visibility: hidden`. Style sheets are not read, so
//! what only they hide is there.

use std::cell::RefCell;

use html5ever::LocalName;
use html5ever::tendril::StrTendril;
use html5ever::tokenizer::states::RawKind;
use html5ever::tokenizer::{BufferQueue, Tag, TagKind, Token, TokenSink, TokenSinkResult, Tokenizer};

use super::attributes::{Bounded, Seen};
use super::markdown::Writer;
use crate::rag::line;

/// Elements that are open at once; browsers stop at the same depth. Deeper ones are read as if they were not there.
const DEPTH_MAX: usize = 512;

/// The text, and the `<title>`.
pub(super) fn read(html: &str) -> (String, Option<String>) {
    let tokenizer = Tokenizer::new(Reader::default(), Default::default());
    let input = BufferQueue::default();
    let mut bounded = Bounded::new(html);
    loop {
        let Some(part) = bounded.next(&tokenizer.sink.0.borrow().seen) else {
            break;
        };
        input.push_back(StrTendril::from(part));
        // The sink never asks to run a script, so it is read to the end at once.
        let _ = tokenizer.feed(&input);
    }
    tokenizer.end();
    let state = tokenizer.sink.0.into_inner();
    (state.writer.finish(), line::title(&state.title))
}

#[derive(Default)]
struct Reader(RefCell<State>);

#[derive(Default)]
struct State {
    writer: Writer,
    title: String,
    in_title: bool,
    /// Outermost first.
    open: Vec<Open>,
    /// How many of `open` are hidden.
    hidden: usize,
    /// How many of `open` are in another language than HTML: SVG or MathML.
    foreign: usize,
    seen: Seen,
}

struct Open {
    name: LocalName,
    /// See [`groups`].
    groups: u16,
    hidden: bool,
}

impl TokenSink for Reader {
    type Handle = ();

    fn process_token(&self, token: Token, _: u64) -> TokenSinkResult<()> {
        let mut state = self.0.borrow_mut();
        match token {
            Token::TagToken(tag) => {
                state.seen.constructs += 1;
                match tag.kind {
                    TagKind::StartTag => return state.start(&tag),
                    TagKind::EndTag => state.end(&tag.name),
                }
            }
            Token::CharacterTokens(text) => state.text(&text),
            Token::CommentToken(_) | Token::DoctypeToken(_) => state.seen.constructs += 1,
            Token::NullCharacterToken | Token::EOFToken | Token::ParseError(_) => {}
        }
        TokenSinkResult::Continue
    }
}

impl State {
    fn text(&mut self, text: &str) {
        if self.in_title {
            self.title.push_str(text);
        } else if self.hidden == 0 {
            self.writer.text(text);
        }
    }

    fn start(&mut self, tag: &Tag) -> TokenSinkResult<()> {
        let name = &*tag.name;
        let groups = groups(name);
        self.close_implied(groups);
        if is_void(name) {
            if self.hidden == 0 {
                match name {
                    "br" => self.writer.line_break(),
                    "hr" => self.writer.block(),
                    _ => {}
                }
            }
            return TokenSinkResult::Continue;
        }
        let foreign = self.foreign > 0;
        if foreign && tag.self_closing {
            return TokenSinkResult::Continue;
        }
        let hidden = is_left_out(name) || is_hidden(tag);
        // A document has one title, in its head; those of pictures are within `svg`.
        self.in_title = name == "title" && !foreign && self.title.is_empty();
        if self.open.len() < DEPTH_MAX {
            if !hidden && self.hidden == 0 {
                self.visible_start(name);
            }
            self.hidden += usize::from(hidden);
            self.foreign += usize::from(groups & FOREIGN != 0);
            self.open.push(Open {
                name: tag.name.clone(),
                groups,
                hidden,
            });
        }
        if foreign {
            return TokenSinkResult::Continue;
        }
        let raw = match name {
            "script" => TokenSinkResult::RawData(RawKind::ScriptData),
            "style" | "xmp" | "iframe" | "noembed" | "noframes" => TokenSinkResult::RawData(RawKind::Rawtext),
            "title" | "textarea" => TokenSinkResult::RawData(RawKind::Rcdata),
            "plaintext" => TokenSinkResult::Plaintext,
            _ => return TokenSinkResult::Continue,
        };
        self.seen.raw = Some(name.to_owned());
        raw
    }

    fn visible_start(&mut self, name: &str) {
        match name {
            "h1" | "h2" | "h3" | "h4" | "h5" | "h6" => self.writer.heading(name.as_bytes()[1] - b'0'),
            "ul" | "menu" => self.writer.list(false),
            "ol" => self.writer.list(true),
            "li" => self.writer.item(),
            "blockquote" => self.writer.quote(),
            "pre" | "xmp" | "listing" | "plaintext" => self.writer.code(),
            "table" => self.writer.table(),
            "tr" => self.writer.row_end(),
            "td" | "th" => self.writer.cell(),
            _ if is_block(name) => self.writer.block(),
            _ => {}
        }
    }

    fn visible_end(&mut self, name: &str) {
        match name {
            "h1" | "h2" | "h3" | "h4" | "h5" | "h6" => self.writer.heading_end(),
            "ul" | "menu" | "ol" => self.writer.list_end(),
            "blockquote" => self.writer.quote_end(),
            "pre" | "xmp" | "listing" | "plaintext" => self.writer.code_end(),
            "table" => self.writer.table_end(),
            "tr" => self.writer.row_end(),
            "td" | "th" => self.writer.cell_end(),
            _ if is_block(name) => self.writer.block(),
            _ => {}
        }
    }

    /// Closes the innermost element of that name, with what is open within it. An inline element takes no block with it:
    /// `<b><p>..</b>..</p>` is one paragraph.
    fn end(&mut self, name: &LocalName) {
        if &**name == "title" {
            self.in_title = false;
        }
        // Within text that is read as it is, no other tag is one.
        self.seen.raw = None;
        let Some(at) = self.open.iter().rposition(|open| open.name == *name) else {
            return;
        };
        let inline = !is_block(name) && !is_left_out(name);
        if inline && self.open[at + 1..].iter().any(|open| open.groups & BLOCK != 0) {
            let open = self.open.remove(at);
            self.forget(&open);
        } else {
            self.close_from(at);
        }
    }

    fn close_from(&mut self, at: usize) {
        while self.open.len() > at {
            let Some(open) = self.open.pop() else { return };
            if self.hidden == 0 {
                self.visible_end(&open.name);
            }
            self.forget(&open);
        }
    }

    fn forget(&mut self, open: &Open) {
        self.hidden -= usize::from(open.hidden);
        self.foreign -= usize::from(open.groups & FOREIGN != 0);
    }

    /// Ends that HTML lets authors leave out: a paragraph ends where a block begins, an item where the next does.
    fn close_implied(&mut self, begins: u16) {
        let (closed, within) = match begins {
            _ if begins & ITEM != 0 => (ITEM, LIST | TABLE | CELL),
            _ if begins & TERM != 0 => (TERM, TERMS | TABLE | CELL),
            _ if begins & CELL != 0 => (CELL, ROW | TABLE),
            _ if begins & ROW != 0 => (ROW, TABLE),
            _ if begins & ROWS != 0 => (ROWS, TABLE),
            _ if begins & HEADING != 0 => (PARAGRAPH | HEADING, BARRIER),
            _ if begins & BLOCK != 0 => (PARAGRAPH, BARRIER),
            _ => return,
        };
        // From the innermost: what is to be closed, unless something stands around it that keeps it open.
        let met = self.open.iter().rposition(|open| open.groups & (closed | within) != 0);
        if let Some(at) = met
            && self.open[at].groups & closed != 0
        {
            self.close_from(at);
        }
    }
}

// Groups of elements that close each other, or keep each other from being closed. As bits, because each start tag looks at
// all elements that are open.
const ITEM: u16 = 1;
const LIST: u16 = 1 << 1;
const TERM: u16 = 1 << 2;
const TERMS: u16 = 1 << 3;
const CELL: u16 = 1 << 4;
const ROW: u16 = 1 << 5;
const ROWS: u16 = 1 << 6;
const TABLE: u16 = 1 << 7;
const HEADING: u16 = 1 << 8;
const PARAGRAPH: u16 = 1 << 9;
/// A paragraph outside one of these is not ended by a block within it.
const BARRIER: u16 = 1 << 10;
const FOREIGN: u16 = 1 << 11;
const BLOCK: u16 = 1 << 12;

fn groups(name: &str) -> u16 {
    let groups = match name {
        "li" => ITEM,
        "ul" | "ol" | "menu" => LIST,
        "dt" | "dd" => TERM,
        "dl" => TERMS,
        "td" | "th" => CELL | BARRIER,
        "tr" => ROW,
        "tbody" | "thead" | "tfoot" => ROWS,
        "table" => TABLE | BARRIER,
        "h1" | "h2" | "h3" | "h4" | "h5" | "h6" => HEADING,
        "p" => PARAGRAPH,
        "caption" | "button" | "object" | "template" => BARRIER,
        "svg" | "math" => FOREIGN | BARRIER,
        _ => 0,
    };
    if is_block(name) { groups | BLOCK } else { groups }
}

fn is_void(name: &str) -> bool {
    matches!(
        name,
        "area"
            | "base"
            | "br"
            | "col"
            | "embed"
            | "hr"
            | "img"
            | "input"
            | "link"
            | "meta"
            | "param"
            | "source"
            | "track"
            | "wbr"
    )
}

fn is_left_out(name: &str) -> bool {
    matches!(
        name,
        "script"
            | "style"
            | "template"
            | "noscript"
            | "nav"
            | "iframe"
            | "object"
            | "svg"
            | "canvas"
            | "audio"
            | "video"
            | "map"
            | "select"
            | "datalist"
            | "button"
            | "textarea"
            | "noembed"
            | "noframes"
            | "title"
    )
}

fn is_block(name: &str) -> bool {
    matches!(
        name,
        "address"
            | "article"
            | "aside"
            | "blockquote"
            | "body"
            | "caption"
            | "center"
            | "dd"
            | "details"
            | "dialog"
            | "dir"
            | "div"
            | "dl"
            | "dt"
            | "fieldset"
            | "figcaption"
            | "figure"
            | "footer"
            | "form"
            | "h1"
            | "h2"
            | "h3"
            | "h4"
            | "h5"
            | "h6"
            | "head"
            | "header"
            | "hgroup"
            | "hr"
            | "html"
            | "legend"
            | "li"
            | "listing"
            | "main"
            | "menu"
            | "nav"
            | "ol"
            | "p"
            | "plaintext"
            | "pre"
            | "search"
            | "section"
            | "summary"
            | "table"
            | "tbody"
            | "td"
            | "tfoot"
            | "th"
            | "thead"
            | "tr"
            | "ul"
            | "xmp"
    )
}

fn is_hidden(tag: &Tag) -> bool {
    tag.attrs.iter().any(|attribute| {
        let value = attribute.value.trim();
        match &*attribute.name.local {
            // Searchers find what is hidden until found, and so do we.
            "hidden" => !value.eq_ignore_ascii_case("until-found"),
            "aria-hidden" => value.eq_ignore_ascii_case("true"),
            "role" => value.eq_ignore_ascii_case("navigation"),
            "style" => {
                let style: String = value
                    .chars()
                    .filter(|c| !c.is_whitespace())
                    .collect::<String>()
                    .to_ascii_lowercase();
                style.split(';').any(|rule| {
                    let rule = rule.trim_end_matches("!important");
                    matches!(rule, "display:none" | "visibility:hidden" | "visibility:collapse")
                })
            }
            _ => false,
        }
    })
}
