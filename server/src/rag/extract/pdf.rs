//! PDF to text. `lopdf` reads the file; the walk over a page's drawing operators is ours: it keeps track of where text
//! stands, because a PDF has no spaces, lines or paragraphs, only glyphs at places.
//!
//! The crates that extract text themselves were not taken: they follow forms that contain themselves until the stack
//! ends, which no caller can catch, or know no places at all and glue words together.
//!
//! Bounded: pages, bytes of drawing operators over the whole file, as they are stored and inflated (a form that is drawn a
//! thousand times counts a thousand times), bytes that a single stream may inflate to, depth of forms. A panic of the library
//! is caught here and is an error like any other damage. Not bounded here is what the library makes of the file before any
//! of this begins; see [`super::apart`].
//!
//! Not read: pictures, annotations, form fields, and text in fonts that say nothing of their characters (composite fonts
//! without a `ToUnicode` map). Columns come in the order in which they were drawn.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use lopdf::content::{Content, Operation};
use lopdf::{DecompressError, Dictionary, Document, Encoding, Error, LoadOptions, Object, ObjectId, Stream};

use super::{ExtractError, Extracted};
use crate::rag::chunk::TextFormat;
use crate::rag::line;

/// Pages of one document: the largest standards have some thousand.
pub const PAGES_MAX: usize = 10_000;
/// Bytes of drawing operators that are read of one document. A dense page has some ten thousand.
pub const CONTENT_BYTES_MAX: usize = 256 << 20;
/// Bytes that one stream may inflate to: drawings of maps have tens of megabytes.
const STREAM_BYTES_MAX: usize = 64 << 20;
/// Bytes of a font's map of codes to characters: one of all characters there are has some megabytes.
const MAP_BYTES_MAX: usize = 8 << 20;
/// Operators between two looks at whether the caller wants to stop.
const OPERATIONS_A_STOP: usize = 1 << 12;
/// Bytes of text: what a document may have in a request. Operators are at least as long as the text they show, but a
/// font's map may make many characters of one byte.
pub(super) const TEXT_BYTES_MAX: usize = 32 << 20;
/// Forms within forms.
const FORM_DEPTH_MAX: usize = 12;
/// States saved at once (`q`); the format's own bound is 28.
const SAVED_MAX: usize = 256;
/// What a form costs besides its bytes, so that drawing an empty one for ever ends.
const FORM_COST: usize = 64;

/// Reads a file; see the module's head.
pub(super) fn read(bytes: &[u8], stop: &dyn Fn() -> bool) -> Result<Extracted, ExtractError> {
    // Nothing outlives the call, so nothing half-done can be seen.
    catch_unwind(AssertUnwindSafe(|| read_trusting(bytes, stop)))
        .unwrap_or_else(|_| Err(ExtractError::Unreadable("the PDF is damaged".into())))
}

fn read_trusting(bytes: &[u8], stop: &dyn Fn() -> bool) -> Result<Extracted, ExtractError> {
    let options = LoadOptions {
        max_decompressed_size: Some(STREAM_BYTES_MAX),
        ..LoadOptions::default()
    };
    let document = Document::load_mem_with_options(bytes, options).map_err(failed)?;
    if document.is_encrypted() {
        return Err(ExtractError::Encrypted);
    }
    let pages: Vec<ObjectId> = document.page_iter().take(PAGES_MAX + 1).collect();
    if pages.is_empty() {
        return Err(ExtractError::Unreadable("the PDF has no pages".into()));
    }
    if pages.len() > PAGES_MAX {
        return Err(ExtractError::TooLarge(format!(
            "a PDF may have {PAGES_MAX} pages, this one has more: split it"
        )));
    }
    let mut walk = Walk {
        document: &document,
        stop,
        fonts: HashMap::new(),
        content_left: CONTENT_BYTES_MAX,
        page: Page::default(),
        text: String::new(),
    };
    for page in pages {
        walk.page(page)?;
    }
    let text = walk.text;
    if text.trim().is_empty() {
        return Err(ExtractError::NoText);
    }
    Ok(Extracted {
        text,
        format: TextFormat::Plain,
        title: title(&document),
    })
}

fn failed(error: Error) -> ExtractError {
    match error {
        Error::InvalidPassword | Error::Decryption(_) | Error::UnsupportedSecurityHandler(_) => ExtractError::Encrypted,
        Error::Decompress(DecompressError::MemoryLimitExceeded { limit }) => {
            ExtractError::TooLarge(format!("a part of the PDF inflates to more than {limit} bytes"))
        }
        other => ExtractError::Unreadable(format!("the file is no PDF, or damaged: {other}")),
    }
}

/// The title of the document's information, if it has one.
fn title(document: &Document) -> Option<String> {
    let info = document.trailer.get(b"Info").ok()?;
    let info = document.dereference(info).ok()?.1.as_dict().ok()?;
    line::title(&lopdf::decode_text_string(info.get_deref(b"Title", document).ok()?).ok()?)
}

// ---- walking ----

struct Walk<'a> {
    document: &'a Document,
    stop: &'a dyn Fn() -> bool,
    /// Fonts by the place of their dictionary in memory, where it stays as long as the document; pages share them.
    fonts: HashMap<*const Dictionary, Rc<Font>>,
    content_left: usize,
    page: Page,
    text: String,
}

/// What is drawn with.
#[derive(Clone)]
struct State {
    /// User space to page.
    ctm: Matrix,
    font: Option<Rc<Font>>,
    size: f32,
    character_space: f32,
    word_space: f32,
    /// Horizontal scaling; 1 is none.
    scale: f32,
    leading: f32,
    rise: f32,
}

impl Default for State {
    fn default() -> Self {
        Self {
            ctm: Matrix::IDENTITY,
            font: None,
            size: 0.0,
            character_space: 0.0,
            word_space: 0.0,
            scale: 1.0,
            leading: 0.0,
            rise: 0.0,
        }
    }
}

impl<'a> Walk<'a> {
    fn page(&mut self, page: ObjectId) -> Result<(), ExtractError> {
        if (self.stop)() {
            return Err(ExtractError::Stopped);
        }
        let document = self.document;
        let content = self.content(page)?;
        let (own, inherited) = document.get_page_resources(page).map_err(failed)?;
        let inherited = inherited.iter().filter_map(|id| document.get_dictionary(*id).ok());
        let resources: Vec<&Dictionary> = own.into_iter().chain(inherited).collect();
        self.page = Page::default();
        self.draw(&content, &resources, State::default(), 0)?;
        let page = std::mem::take(&mut self.page.text);
        let page = page.trim();
        if !page.is_empty() {
            if !self.text.is_empty() {
                self.text.push_str("\n\n");
            }
            self.text.push_str(&joined(page));
        }
        Ok(())
    }

    /// The operators of a page. Its streams are charged as they are in the file, too: a page may name one a thousand times,
    /// and what inflates to nothing costs time all the same.
    fn content(&mut self, page: ObjectId) -> Result<Vec<u8>, ExtractError> {
        let document = self.document;
        let mut content = Vec::new();
        for id in document.get_page_contents(page) {
            if (self.stop)() {
                return Err(ExtractError::Stopped);
            }
            let Ok(stream) = document.get_object(id).and_then(Object::as_stream) else {
                continue;
            };
            self.charge(stream.content.len() + FORM_COST)?;
            let left = self.content_left.min(STREAM_BYTES_MAX).saturating_sub(content.len());
            match stream.get_plain_content_with_limit(left) {
                Ok(plain) => content.extend_from_slice(&plain),
                Err(error @ Error::Decompress(DecompressError::MemoryLimitExceeded { .. })) => {
                    return Err(failed(error));
                }
                // In an unknown filter, or damaged: missing from the page, like a picture.
                Err(_) => {}
            }
            content.push(b'\n');
        }
        Ok(content)
    }

    fn draw(
        &mut self,
        content: &[u8],
        resources: &[&Dictionary],
        mut state: State,
        depth: usize,
    ) -> Result<(), ExtractError> {
        self.charge(content.len() + FORM_COST)?;
        let mut saved: Vec<State> = Vec::new();
        let (mut matrix, mut line) = (Matrix::IDENTITY, Matrix::IDENTITY);
        for (at, operation) in Content::decode_iter(content).enumerate() {
            if at % OPERATIONS_A_STOP == 0 && (self.stop)() {
                return Err(ExtractError::Stopped);
            }
            // Damage ends a page, as it does in viewers, not the document.
            let Ok(Operation { operator, operands }) = operation else {
                break;
            };
            let number = |n: usize| {
                operands
                    .get(n)
                    .and_then(|o| o.as_float().ok())
                    .filter(|x| x.is_finite())
            };
            let n = |n: usize| number(n).unwrap_or(0.0);
            match operator.as_str() {
                "q" if saved.len() < SAVED_MAX => saved.push(state.clone()),
                "Q" => {
                    if let Some(before) = saved.pop() {
                        state = before;
                    }
                }
                "cm" => state.ctm = Matrix([n(0), n(1), n(2), n(3), n(4), n(5)]).then(&state.ctm),
                "BT" => (matrix, line) = (Matrix::IDENTITY, Matrix::IDENTITY),
                "Tf" => {
                    state.size = n(1);
                    let name = operands.first().and_then(|o| o.as_name().ok());
                    state.font = match name {
                        Some(name) => self.font(resources, name)?,
                        None => None,
                    };
                }
                "Tc" => state.character_space = n(0),
                "Tw" => state.word_space = n(0),
                "Tz" => state.scale = number(0).map_or(1.0, |percent| percent / 100.0),
                "TL" => state.leading = n(0),
                "Ts" => state.rise = n(0),
                "Tm" => {
                    line = Matrix([n(0), n(1), n(2), n(3), n(4), n(5)]);
                    matrix = line.clone();
                }
                "Td" | "TD" => {
                    if operator == "TD" {
                        state.leading = -n(1);
                    }
                    line = Matrix::moved(n(0), n(1)).then(&line);
                    matrix = line.clone();
                }
                "T*" | "'" | "\"" => {
                    line = Matrix::moved(0.0, -state.leading).then(&line);
                    matrix = line.clone();
                    let shown = if operator == "\"" {
                        (state.word_space, state.character_space) = (n(0), n(1));
                        operands.get(2)
                    } else {
                        operands.first()
                    };
                    if let Some(Object::String(bytes, _)) = shown {
                        self.show(bytes, &state, &mut matrix)?;
                    }
                }
                "Tj" => {
                    if let Some(Object::String(bytes, _)) = operands.first() {
                        self.show(bytes, &state, &mut matrix)?;
                    }
                }
                "TJ" => {
                    for part in operands.first().and_then(|o| o.as_array().ok()).into_iter().flatten() {
                        match part {
                            Object::String(bytes, _) => self.show(bytes, &state, &mut matrix)?,
                            other => {
                                let back = other.as_float().unwrap_or(0.0) / 1000.0 * state.size * state.scale;
                                matrix = Matrix::moved(-back, 0.0).then(&matrix);
                            }
                        }
                    }
                }
                "Do" if depth < FORM_DEPTH_MAX => {
                    let form = operands.first().and_then(|o| o.as_name().ok());
                    if let Some(form) = form.and_then(|name| self.form(resources, name)) {
                        self.draw_form(form, resources, &state, depth)?;
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn draw_form(
        &mut self,
        form: &Stream,
        resources: &[&Dictionary],
        state: &State,
        depth: usize,
    ) -> Result<(), ExtractError> {
        let document = self.document;
        self.charge(form.content.len())?;
        let limit = self.content_left.min(STREAM_BYTES_MAX);
        let content = match form.get_plain_content_with_limit(limit) {
            Ok(content) => content,
            Err(error @ Error::Decompress(DecompressError::MemoryLimitExceeded { .. })) => return Err(failed(error)),
            // A form in an unknown filter is missing from the page, like a picture.
            Err(_) => return Ok(()),
        };
        let own = form.dict.get_deref(b"Resources", document).and_then(Object::as_dict);
        let own = own.ok().map(|own| vec![own]);
        let mut state = state.clone();
        if let Ok(numbers) = form.dict.get_deref(b"Matrix", document).and_then(Object::as_array) {
            let numbers: Vec<f32> = numbers
                .iter()
                .filter_map(|n| n.as_float().ok())
                .filter(|n| n.is_finite())
                .collect();
            if let Ok(numbers) = <[f32; 6]>::try_from(numbers) {
                state.ctm = Matrix(numbers).then(&state.ctm);
            }
        }
        self.draw(&content, own.as_deref().unwrap_or(resources), state, depth + 1)
    }

    /// Puts the text of `bytes` where the matrix says, and moves the matrix behind it.
    fn show(&mut self, bytes: &[u8], state: &State, matrix: &mut Matrix) -> Result<(), ExtractError> {
        let Some(font) = &state.font else { return Ok(()) };
        let (text, codes, widths) = font.read(bytes);
        let spaces = text.chars().filter(|&c| c == ' ').count();
        let advance = (widths * state.size + state.character_space * codes as f32 + state.word_space * spaces as f32)
            * state.scale;
        let advance = if advance.is_finite() { advance } else { 0.0 };
        let at = Matrix::moved(0.0, state.rise).then(matrix).then(&state.ctm);
        *matrix = Matrix::moved(advance, 0.0).then(matrix);
        let end = Matrix::moved(0.0, state.rise).then(matrix).then(&state.ctm);
        self.page
            .put(&text, at.origin(), end.origin(), state.size.abs() * at.scale());
        if self.text.len() + self.page.text.len() > TEXT_BYTES_MAX {
            return Err(ExtractError::TooLarge(format!(
                "the PDF has more than {TEXT_BYTES_MAX} bytes of text: split it"
            )));
        }
        Ok(())
    }

    fn form<'b>(&self, resources: &[&'b Dictionary], name: &[u8]) -> Option<&'b Stream>
    where
        'a: 'b,
    {
        let stream = self.resource(resources, b"XObject", name)?.as_stream().ok()?;
        (stream.dict.get(b"Subtype").and_then(Object::as_name).ok()? == b"Form").then_some(stream)
    }

    fn font(&mut self, resources: &[&Dictionary], name: &[u8]) -> Result<Option<Rc<Font>>, ExtractError> {
        let document = self.document;
        let Some(font) = self
            .resource(resources, b"Font", name)
            .and_then(|font| font.as_dict().ok())
        else {
            return Ok(None);
        };
        if let Some(known) = self.fonts.get(&std::ptr::from_ref(font)) {
            return Ok(Some(known.clone()));
        }
        // A thousand fonts may share one large map, and each reads it.
        let map = font.get_deref(b"ToUnicode", document).and_then(Object::as_stream);
        let map = map.and_then(|map| map.get_plain_content_with_limit(MAP_BYTES_MAX));
        self.charge(map.map_or(FORM_COST, |map| map.len() + FORM_COST))?;
        let made = Rc::new(Font::new(font, document));
        self.fonts.insert(std::ptr::from_ref(font), made.clone());
        Ok(Some(made))
    }

    /// Counts what was read against the bound of all of it.
    fn charge(&mut self, bytes: usize) -> Result<(), ExtractError> {
        self.content_left = self.content_left.checked_sub(bytes).ok_or_else(|| {
            ExtractError::TooLarge(format!("the PDF draws more than {CONTENT_BYTES_MAX} bytes: split it"))
        })?;
        Ok(())
    }

    /// A named resource.
    fn resource<'b>(&self, resources: &[&'b Dictionary], kind: &[u8], name: &[u8]) -> Option<&'b Object>
    where
        'a: 'b,
    {
        let document = self.document;
        resources.iter().find_map(|resources| {
            let of_kind = resources.get_deref(kind, document).ok()?.as_dict().ok()?;
            of_kind.get_deref(name, document).ok()
        })
    }
}

// ---- places ----

/// The page's text so far, and where the last of it ended.
#[derive(Default)]
struct Page {
    text: String,
    last: Option<Place>,
}

struct Place {
    x: f32,
    y: f32,
    size: f32,
}

impl Page {
    /// Adds text that begins at `at` and ends at `end`: on the same line, with a space if there is a gap; or on a new
    /// line; or in a new paragraph, if more than a line's height is free above it.
    fn put(&mut self, text: &str, at: (f32, f32), end: (f32, f32), size: f32) {
        if text.is_empty() {
            return;
        }
        let size = if size.is_finite() && size > 0.0 { size } else { 1.0 };
        if let Some(last) = &self.last {
            let em = size.max(last.size);
            let (across, down) = (at.0 - last.x, (last.y - at.1).abs());
            let separator = if down > 1.7 * em {
                "\n\n"
            } else if down > 0.5 * em || across < -0.5 * em {
                "\n"
            } else if across > 0.18 * em {
                " "
            } else {
                ""
            };
            let has_it = match separator {
                " " => self.text.ends_with(char::is_whitespace) || text.starts_with(char::is_whitespace),
                _ => false,
            };
            if !has_it {
                self.text.push_str(separator);
            }
        }
        self.text
            .extend(text.chars().filter(|c| !c.is_control() || *c == '\n' || *c == '\t'));
        self.last = Some(Place {
            x: end.0,
            y: end.1,
            size,
        });
    }
}

/// The lines of a page as they read: without white space around them, and a word that was broken at the end of a line in
/// one piece again (`exam-` / `ple`).
fn joined(page: &str) -> String {
    let mut text = String::with_capacity(page.len());
    let mut lines = page.lines().map(str::trim).peekable();
    while let Some(line) = lines.next() {
        let broken = line
            .strip_suffix('-')
            .filter(|word| word.ends_with(char::is_alphabetic));
        match (broken, lines.peek()) {
            (Some(word), Some(next)) if next.starts_with(char::is_lowercase) => text.push_str(word),
            (_, Some(_)) => {
                text.push_str(line);
                text.push('\n');
            }
            (_, None) => text.push_str(line),
        }
    }
    text
}

/// `[a b c d e f]`, as the format writes it: x' = a x + c y + e, y' = b x + d y + f.
#[derive(Debug, Clone)]
struct Matrix([f32; 6]);

impl Matrix {
    const IDENTITY: Self = Self([1.0, 0.0, 0.0, 1.0, 0.0, 0.0]);

    fn moved(x: f32, y: f32) -> Self {
        Self([1.0, 0.0, 0.0, 1.0, x, y])
    }

    /// This one first, then `next`.
    fn then(&self, next: &Self) -> Self {
        let ([a, b, c, d, e, f], [g, h, i, j, k, l]) = (self.0, next.0);
        Self([
            a * g + b * i,
            a * h + b * j,
            c * g + d * i,
            c * h + d * j,
            e * g + f * i + k,
            e * h + f * j + l,
        ])
    }

    fn origin(&self) -> (f32, f32) {
        (self.0[4], self.0[5])
    }

    /// How much longer an upright line becomes.
    fn scale(&self) -> f32 {
        self.0[2].hypot(self.0[3])
    }
}

// ---- fonts ----

struct Font {
    characters: Characters,
    /// By code, in units of the font's size.
    widths: HashMap<u32, f32>,
    /// Of the others.
    width: f32,
    /// Codes have two bytes.
    composite: bool,
}

enum Characters {
    /// What each byte stands for.
    Table(Box<[String; 256]>),
    /// A map of longer codes.
    Map(Encoding<'static>),
    /// The font does not say.
    Unknown,
}

impl Font {
    fn new(font: &Dictionary, document: &Document) -> Self {
        let composite = font
            .get(b"Subtype")
            .and_then(Object::as_name)
            .is_ok_and(|name| name == b"Type0");
        let (widths, width) = if composite {
            composite_widths(font, document)
        } else {
            simple_widths(font, document)
        };
        Self {
            characters: characters(font, document, composite),
            widths,
            width,
            composite,
        }
    }

    /// The text of a string, its number of codes, and their widths together.
    fn read(&self, bytes: &[u8]) -> (String, usize, f32) {
        let text = match &self.characters {
            Characters::Table(table) => bytes.iter().map(|&byte| table[usize::from(byte)].as_str()).collect(),
            Characters::Map(map) => map.bytes_to_string(bytes).unwrap_or_default(),
            Characters::Unknown => String::new(),
        };
        let width = |code: u32| self.widths.get(&code).copied().unwrap_or(self.width);
        let (codes, widths) = if self.composite {
            let codes = bytes
                .chunks(2)
                .map(|code| code.iter().fold(0, |code, &byte| code << 8 | u32::from(byte)));
            (bytes.len().div_ceil(2), codes.map(width).sum())
        } else {
            (bytes.len(), bytes.iter().map(|&byte| width(byte.into())).sum())
        };
        (text, codes, widths)
    }
}

fn characters(font: &Dictionary, document: &Document, composite: bool) -> Characters {
    // What the font says for readers of text goes before what it says for drawing. `lopdf` takes them the other way.
    let mapped = font
        .get_deref(b"ToUnicode", document)
        .and_then(Object::as_stream)
        .is_ok();
    let mut font = font.clone();
    if mapped {
        font.remove(b"Encoding");
    }
    font.set("Type", Object::Name(b"Font".to_vec()));
    match font.get_font_encoding_with_limit(document, MAP_BYTES_MAX) {
        Ok(Encoding::UnicodeMapEncoding(map)) => {
            let map = Encoding::UnicodeMapEncoding(map);
            if composite { Characters::Map(map) } else { table(&map) }
        }
        Ok(Encoding::SimpleEncoding(name)) if composite => match name {
            b"UniGB-UCS2-H" => Characters::Map(Encoding::SimpleEncoding(b"UniGB-UCS2-H")),
            b"UniGB-UTF16-H" => Characters::Map(Encoding::SimpleEncoding(b"UniGB-UTF16-H")),
            _ => Characters::Unknown,
        },
        Ok(encoding) if !composite => table(&encoding),
        _ => Characters::Unknown,
    }
}

fn table(encoding: &Encoding<'_>) -> Characters {
    let one = |byte: usize| {
        let byte = u8::try_from(byte).unwrap_or(0);
        let text = encoding.bytes_to_string(&[byte]).unwrap_or_default();
        // What has no character is nothing, not a question mark.
        if text == "\u{fffd}" { String::new() } else { text }
    };
    Characters::Table(Box::new(std::array::from_fn(one)))
}

/// Widths of glyphs that a font does not tell: most of the standard fonts' letters are about this wide.
const USUAL_WIDTH: f32 = 0.5;

fn simple_widths(font: &Dictionary, document: &Document) -> (HashMap<u32, f32>, f32) {
    let first = font
        .get_deref(b"FirstChar", document)
        .and_then(Object::as_i64)
        .unwrap_or(0);
    let mut widths = HashMap::new();
    if let Ok(list) = font.get_deref(b"Widths", document).and_then(Object::as_array) {
        for (code, width) in (first.clamp(0, 255)..256).zip(list) {
            if let Some(width) = number(width, document) {
                widths.insert(u32::try_from(code).unwrap_or(0), width / 1000.0);
            }
        }
    }
    // Fonts that are drawn by operators have units of their own; few are text.
    (widths, USUAL_WIDTH)
}

/// `W` is a list of `c [w w ...]` and `first last w`.
fn composite_widths(font: &Dictionary, document: &Document) -> (HashMap<u32, f32>, f32) {
    let mut widths = HashMap::new();
    let descendant = font
        .get_deref(b"DescendantFonts", document)
        .and_then(Object::as_array)
        .ok()
        .and_then(|list| document.dereference(list.first()?).ok())
        .and_then(|(_, object)| object.as_dict().ok());
    let Some(descendant) = descendant else {
        return (widths, 1.0);
    };
    let default = descendant
        .get_deref(b"DW", document)
        .ok()
        .and_then(|w| number(w, document));
    let list = descendant.get_deref(b"W", document).and_then(Object::as_array);
    let mut list = list.map(|list| list.iter()).unwrap_or_default();
    while let Some(first) = list.next().and_then(|n| number(n, document)) {
        let first = first.clamp(0.0, 65_535.0) as u32;
        let Some(next) = list.next().and_then(|n| document.dereference(n).ok()).map(|(_, n)| n) else {
            break;
        };
        if let Ok(each) = next.as_array() {
            for (code, width) in (first..=65_535).zip(each) {
                if let Some(width) = number(width, document) {
                    widths.insert(code, width / 1000.0);
                }
            }
        } else {
            let last = number(next, document).unwrap_or(0.0).clamp(0.0, 65_535.0) as u32;
            let Some(width) = list.next().and_then(|n| number(n, document)) else {
                break;
            };
            // A list may name the same codes again and again; the first says it.
            for code in first..=last {
                if widths.insert(code, width / 1000.0).is_some() {
                    break;
                }
            }
        }
    }
    (widths, default.unwrap_or(1000.0) / 1000.0)
}

fn number(object: &Object, document: &Document) -> Option<f32> {
    let number = document.dereference(object).ok()?.1.as_float().ok()?;
    number.is_finite().then_some(number)
}
