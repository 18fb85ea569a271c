//! Writing Markdown that reads back as it was meant: headings are headings to `chunk`, and text that looks like one is
//! not.
//!
//! A block is collected in `line` with its white space collapsed, and written when it ends. Escapes are the few that
//! matter to `chunk`: a heading, an underline that makes the line above one, a fence, a quote, HTML, and front matter.

use std::fmt::Write as _;

/// How deep lists are indented. Deeper ones stand at this depth.
const LIST_DEPTH_MAX: usize = 8;
/// A cell of more bytes than this is not data: its table only arranges a page.
const CELL_BYTES_MAX: usize = 2_000;

#[derive(Default)]
pub(super) struct Writer {
    out: String,
    /// The block that is being collected. Line ends in it are meant.
    line: String,
    /// White space was read, and stands in the text if more follows.
    space: bool,
    heading: Option<u8>,
    /// Within `<pre>`: text as it is.
    code: Option<String>,
    quotes: usize,
    lists: Vec<List>,
    tables: Vec<Table>,
    last: Last,
}

/// A list, and whether its item has been begun but for its text.
struct List {
    /// The number of the next item, if they are numbered.
    number: Option<u32>,
    marker: Option<String>,
}

#[derive(Default)]
struct Table {
    cells: Vec<String>,
    rows: usize,
    in_cell: bool,
    /// It arranges a page: its cells are read like any block.
    layout: bool,
}

/// What was written last: items follow items and rows follow rows without an empty line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Last {
    #[default]
    Nothing,
    Block,
    Item,
    Row,
}

impl Writer {
    /// Text of the page, character references resolved.
    pub(super) fn text(&mut self, text: &str) {
        if let Some(code) = &mut self.code {
            code.push_str(text);
            return;
        }
        for c in text.chars() {
            match c {
                // Invisible: hints where a word may be broken.
                '\u{ad}' | '\u{200b}' | '\0' => {}
                c if c.is_whitespace() => self.space = true,
                c => {
                    if std::mem::take(&mut self.space) && !self.line.is_empty() && !self.line.ends_with('\n') {
                        self.line.push(' ');
                    }
                    self.line.push(c);
                }
            }
        }
        if self.line.len() > CELL_BYTES_MAX && self.in_data_cell() {
            self.is_layout();
        }
    }

    /// A line ends within a block.
    pub(super) fn line_break(&mut self) {
        if let Some(code) = &mut self.code {
            code.push('\n');
        } else if self.in_data_cell() || self.heading.is_some() {
            self.space = true;
        } else if !self.line.is_empty() {
            self.line.push('\n');
            self.space = false;
        }
    }

    /// A block begins or ends.
    pub(super) fn block(&mut self) {
        if self.code.is_some() {
            return;
        }
        if self.in_data_cell() {
            self.space = true;
            return;
        }
        self.space = false;
        let line = std::mem::take(&mut self.line);
        let line = line.trim();
        if line.is_empty() {
            return;
        }
        if let Some(level) = self.heading {
            let title = line.split_whitespace().collect::<Vec<_>>().join(" ");
            self.separate(Last::Block);
            let _ = write!(self.out, "{} {title}", "#".repeat(level.into()));
            return;
        }
        let marker = self.lists.last_mut().and_then(|list| list.marker.take());
        let depth = self.lists.len().min(LIST_DEPTH_MAX);
        self.separate(if marker.is_some() { Last::Item } else { Last::Block });
        let quote = if self.quotes > 0 && depth == 0 { "> " } else { "" };
        for (n, text) in line.lines().map(str::trim).filter(|text| !text.is_empty()).enumerate() {
            if n > 0 {
                self.out.push('\n');
            }
            let indent = match (&marker, n) {
                (Some(_), 0) => depth.saturating_sub(1),
                _ => depth,
            };
            self.out.extend(std::iter::repeat_n("  ", indent));
            self.out.push_str(quote);
            if let (Some(marker), 0) = (&marker, n) {
                self.out.push_str(marker);
            }
            if looks_like_markup(text) {
                self.out.push('\\');
            }
            self.out.push_str(text);
        }
    }

    /// A heading of level 1 to 6 begins.
    pub(super) fn heading(&mut self, level: u8) {
        if self.in_data_cell() {
            self.is_layout();
        }
        self.block();
        self.heading = Some(level.clamp(1, 6));
    }

    pub(super) fn heading_end(&mut self) {
        self.block();
        self.heading = None;
    }

    pub(super) fn list(&mut self, numbered: bool) {
        self.block();
        self.lists.push(List {
            number: numbered.then_some(1),
            marker: None,
        });
    }

    pub(super) fn list_end(&mut self) {
        self.block();
        self.lists.pop();
    }

    pub(super) fn item(&mut self) {
        self.block();
        if let Some(list) = self.lists.last_mut() {
            list.marker = Some(match &mut list.number {
                Some(number) => {
                    let marker = format!("{number}. ");
                    *number = number.saturating_add(1);
                    marker
                }
                None => "- ".to_owned(),
            });
        }
    }

    pub(super) fn quote(&mut self) {
        self.block();
        self.quotes += 1;
    }

    pub(super) fn quote_end(&mut self) {
        self.block();
        self.quotes = self.quotes.saturating_sub(1);
    }

    pub(super) fn code(&mut self) {
        self.block();
        if !self.in_data_cell() {
            self.code = Some(String::new());
        }
    }

    pub(super) fn code_end(&mut self) {
        let Some(code) = self.code.take() else {
            return self.block();
        };
        let code = code.strip_prefix('\n').unwrap_or(&code).trim_end();
        if code.trim().is_empty() {
            return;
        }
        // A fence longer than any run of its character within.
        let run = code.split(|c| c != '`').map(str::len).max().unwrap_or(0);
        let fence = "`".repeat(run.max(2) + 1);
        self.separate(Last::Block);
        let _ = write!(self.out, "{fence}\n{code}\n{fence}");
    }

    pub(super) fn table(&mut self) {
        if self.in_data_cell() {
            self.is_layout();
        }
        self.block();
        self.tables.push(Table::default());
    }

    pub(super) fn table_end(&mut self) {
        self.row_end();
        self.tables.pop();
        if self.last == Last::Row {
            self.last = Last::Block;
        }
    }

    pub(super) fn cell(&mut self) {
        self.cell_end();
        if let Some(table) = self.tables.last_mut() {
            table.in_cell = true;
        }
    }

    pub(super) fn cell_end(&mut self) {
        if !self.in_data_cell() {
            return self.block();
        }
        let cell = std::mem::take(&mut self.line);
        self.space = false;
        if let Some(table) = self.tables.last_mut() {
            table.cells.push(cell.trim().to_owned());
            table.in_cell = false;
        }
    }

    /// A row ends. One cell is no row but a paragraph.
    pub(super) fn row_end(&mut self) {
        if self.in_data_cell() {
            self.cell_end();
        }
        self.block();
        let Some(table) = self.tables.last_mut() else { return };
        let cells = std::mem::take(&mut table.cells);
        if cells.iter().all(String::is_empty) {
            return;
        }
        if let [only] = cells.as_slice() {
            self.line.clone_from(only);
            return self.block();
        }
        table.rows += 1;
        let first = table.rows == 1;
        self.separate(if first { Last::Block } else { Last::Row });
        self.last = Last::Row;
        for cell in &cells {
            let _ = write!(self.out, "| {} ", cell.replace('|', "\\|"));
        }
        self.out.push('|');
        if first {
            self.out.push('\n');
            self.out.extend(std::iter::repeat_n("|---", cells.len()));
            self.out.push('|');
        }
    }

    /// The text so far, and nothing more.
    pub(super) fn finish(mut self) -> String {
        if self.code.is_some() {
            self.code_end();
        }
        while !self.tables.is_empty() {
            self.table_end();
        }
        self.block();
        if !self.out.is_empty() {
            self.out.push('\n');
        }
        self.out
    }

    fn in_data_cell(&self) -> bool {
        self.tables.last().is_some_and(|table| table.in_cell && !table.layout)
    }

    /// The innermost table turned out to arrange a page. What was collected of its row is written as blocks.
    fn is_layout(&mut self) {
        let Some(table) = self.tables.last_mut() else { return };
        table.layout = true;
        let cells = std::mem::take(&mut table.cells);
        let line = std::mem::take(&mut self.line);
        for cell in cells.into_iter().chain([line]) {
            self.line = cell;
            self.block();
        }
    }

    fn separate(&mut self, next: Last) {
        self.out.push_str(match (self.last, next) {
            (Last::Nothing, _) => "",
            (Last::Item, Last::Item) | (Last::Row, Last::Row) => "\n",
            _ => "\n\n",
        });
        self.last = next;
    }
}

/// Text at the beginning of a line that Markdown would take for a heading, its underline, a fence, a quote, HTML or
/// front matter.
fn looks_like_markup(line: &str) -> bool {
    line.starts_with(['#', '>', '<'])
        || line.starts_with("```")
        || line.starts_with("~~~")
        || line.starts_with("+++")
        || line.chars().all(|c| c == '=')
        || line.chars().all(|c| c == '-')
}
