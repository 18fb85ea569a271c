//! From a file to its documents, read as they are asked for. A wrong line, row or file is an item that says what is wrong
//! with it; the next one is read all the same. Nothing larger than a document is ever in memory.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cairn_client::{Document, Format, Payload, Provenance, Trust};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::super::output;
use super::fields::Fields;
use super::find::{Kind, Source};

/// The largest file, line or row read: what a server takes in one message by default, with room for the rest of the
/// message.
pub(super) const DOCUMENT_BYTES_MAX: u64 = 31 << 20;

/// How files are read.
#[derive(Debug, Clone, Default)]
pub(in crate::cli) struct Reading {
    /// Put before every id.
    pub(super) prefix: String,
    pub(super) fields: Fields,
    /// Of every document.
    pub(super) trust: Trust,
    pub(super) provenance: Provenance,
}

/// Where a document is from, as the report names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) file: String,
    /// Of a file of several documents.
    pub(super) line: Option<u64>,
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.line {
            None => f.write_str(&self.file),
            Some(line) => write!(f, "{}:{line}", self.file),
        }
    }
}

impl Origin {
    pub(super) fn new(file: &Path, line: Option<u64>) -> Self {
        Self {
            file: file.display().to_string(),
            line,
        }
    }
}

/// A document, or why there is none, and how many bytes of input it took.
pub(super) struct Item {
    pub(super) what: Origin,
    pub(super) bytes: u64,
    pub(super) document: Result<Document, String>,
}

impl Reading {
    /// The documents of a file.
    pub(super) fn documents(self: &Arc<Self>, source: Source) -> Box<dyn Iterator<Item = Item> + Send> {
        match source.kind {
            Kind::Markdown | Kind::Text | Kind::Html | Kind::Pdf => Box::new(std::iter::once(self.whole(&source))),
            Kind::Jsonl => match File::open(&source.path) {
                Ok(file) => Box::new(Lines {
                    reading: Arc::clone(self),
                    file: BufReader::new(file),
                    path: source.path,
                    number: 0,
                    done: false,
                }),
                Err(e) => Box::new(std::iter::once(unreadable(&source, &e))),
            },
            Kind::Csv { delimiter } => match Rows::open(Arc::clone(self), &source, delimiter) {
                Ok(rows) => Box::new(rows),
                Err(why) => Box::new(std::iter::once(Item {
                    what: Origin::new(&source.path, None),
                    bytes: source.bytes,
                    document: Err(why),
                })),
            },
        }
    }

    fn whole(&self, source: &Source) -> Item {
        if source.bytes > DOCUMENT_BYTES_MAX {
            let why = format!(
                "a document is at most {}, this file has {}",
                output::bytes(DOCUMENT_BYTES_MAX),
                output::bytes(source.bytes)
            );
            return Item {
                what: Origin::new(&source.path, None),
                bytes: source.bytes,
                document: Err(why),
            };
        }
        let id = source.id.as_str();
        let read = match source.kind {
            Kind::Html => fs::read(&source.path).map(|bytes| Document::html_file(id, bytes)),
            Kind::Pdf => fs::read(&source.path).map(|bytes| Document::pdf(id, bytes)),
            Kind::Markdown => fs::read_to_string(&source.path).map(|text| Document::markdown(id, text)),
            Kind::Text | Kind::Jsonl | Kind::Csv { .. } => {
                fs::read_to_string(&source.path).map(|text| Document::plain(id, text))
            }
        };
        match read {
            Ok(document) => Item {
                what: Origin::new(&source.path, None),
                bytes: source.bytes,
                document: Ok(self.labelled(document.source(id))),
            },
            Err(e) => unreadable(source, &e),
        }
    }

    fn labelled(&self, mut document: Document) -> Document {
        document.trust = self.trust;
        document.provenance = self.provenance.clone();
        document
    }

    fn of_line(&self, line: &str) -> Result<Document, String> {
        let document = if self.fields.are_mapped() {
            let record: Map<String, Value> = serde_json::from_str(line).map_err(|e| e.to_string())?;
            self.fields.document(&record, &self.prefix)?
        } else {
            let line: Line = serde_json::from_str(line).map_err(|e| e.to_string())?;
            line.document(&self.prefix)
        };
        Ok(self.labelled(document))
    }
}

fn unreadable(source: &Source, e: &io::Error) -> Item {
    Item {
        what: Origin::new(&source.path, None),
        bytes: source.bytes,
        document: Err(e.to_string()),
    }
}

// --- JSONL -------------------------------------------------------------------------------------------------------

/// A line of JSONL, if nobody said which fields are what. Unknown keys are refused: a mistyped `metadata` would be lost
/// silently.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    id: Id,
    text: String,
    #[serde(default)]
    title: String,
    #[serde(default)]
    source: String,
    #[serde(default)]
    format: LineFormat,
    #[serde(default)]
    metadata: Payload,
}

/// `42` and `"42"` are the same id.
#[derive(Deserialize)]
#[serde(untagged)]
enum Id {
    Text(String),
    Number(i64),
}

#[derive(Deserialize, Default, Clone, Copy)]
#[serde(rename_all = "snake_case")]
enum LineFormat {
    #[default]
    Plain,
    Markdown,
    Html,
}

impl Line {
    fn document(self, prefix: &str) -> Document {
        let id = match self.id {
            Id::Text(id) => id,
            Id::Number(id) => id.to_string(),
        };
        Document {
            format: match self.format {
                LineFormat::Plain => Format::Plain,
                LineFormat::Markdown => Format::Markdown,
                LineFormat::Html => Format::Html,
            },
            title: self.title,
            source: self.source,
            metadata: self.metadata,
            ..Document::plain(format!("{prefix}{id}"), self.text)
        }
    }
}

struct Lines<R> {
    reading: Arc<Reading>,
    file: R,
    path: PathBuf,
    number: u64,
    done: bool,
}

impl<R: BufRead> Iterator for Lines<R> {
    type Item = Item;

    fn next(&mut self) -> Option<Item> {
        while !self.done {
            let mut line = Vec::new();
            let read = (&mut self.file)
                .take(DOCUMENT_BYTES_MAX + 1)
                .read_until(b'\n', &mut line);
            self.number += 1;
            let (document, more) = match read {
                Ok(0) => return None,
                Ok(_) if line.len() as u64 > DOCUMENT_BYTES_MAX => {
                    let skipped = skip_line(&mut self.file);
                    self.done = skipped.is_err();
                    let why = format!("a line is at most {}", output::bytes(DOCUMENT_BYTES_MAX));
                    (Err(why), skipped.unwrap_or(0))
                }
                Ok(_) => match std::str::from_utf8(&line) {
                    Ok(text) if text.trim().is_empty() => continue,
                    Ok(text) => (self.reading.of_line(text.trim_start_matches('\u{feff}')), 0),
                    Err(e) => (Err(format!("the line is not UTF-8: {e}")), 0),
                },
                // A failing disk ends the file.
                Err(e) => {
                    self.done = true;
                    (Err(e.to_string()), 0)
                }
            };
            return Some(Item {
                what: Origin::new(&self.path, Some(self.number)),
                bytes: line.len() as u64 + more,
                document,
            });
        }
        None
    }
}

/// Reads on to the end of the line without keeping it.
fn skip_line(file: &mut impl BufRead) -> io::Result<u64> {
    let mut skipped = 0;
    loop {
        let buffer = file.fill_buf()?;
        let (used, ends) = match buffer.iter().position(|&byte| byte == b'\n') {
            Some(at) => (at + 1, true),
            None => (buffer.len(), buffer.is_empty()),
        };
        file.consume(used);
        skipped += used as u64;
        if ends {
            return Ok(skipped);
        }
    }
}

// --- CSV ---------------------------------------------------------------------------------------------------------

struct Rows {
    reading: Arc<Reading>,
    rows: csv::StringRecordsIntoIter<Bounded<File>>,
    names: Vec<String>,
    path: PathBuf,
    /// Where the last row ended.
    at: u64,
    read: Arc<AtomicU64>,
    done: bool,
}

/// A reader that gives up after too many bytes for one row: a quote that is never closed makes a row of the rest of the
/// file.
struct Bounded<R> {
    inner: R,
    /// Bytes since the last row; whoever takes rows sets it back.
    read: Arc<AtomicU64>,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        let before = self.read.fetch_add(read as u64, Ordering::Relaxed);
        if before > DOCUMENT_BYTES_MAX {
            let why = format!(
                "a row is at most {}; is a quote not closed?",
                output::bytes(DOCUMENT_BYTES_MAX)
            );
            return Err(io::Error::other(why));
        }
        Ok(read)
    }
}

impl Rows {
    fn open(reading: Arc<Reading>, source: &Source, delimiter: u8) -> Result<Self, String> {
        let read = Arc::new(AtomicU64::new(0));
        let file = Bounded {
            inner: File::open(&source.path).map_err(|e| e.to_string())?,
            read: Arc::clone(&read),
        };
        // Between tabs a quote is a character like any other: what writes .tsv quotes nothing.
        let tsv = delimiter == b'\t';
        let delimiter = reading.fields.delimiter.unwrap_or(delimiter);
        let mut reader = csv::ReaderBuilder::new()
            .delimiter(delimiter)
            .quoting(!(tsv && delimiter == b'\t'))
            .from_reader(file);
        let header = reader.headers().map_err(|e| e.to_string())?;
        let names: Vec<String> = header
            .iter()
            .map(|name| name.trim_start_matches('\u{feff}').to_owned())
            .collect();
        let mut seen = HashSet::with_capacity(names.len());
        if let Some(twice) = names.iter().find(|name| !seen.insert(name.as_str())) {
            return Err(format!("two columns are called {twice:?}"));
        }
        Ok(Self {
            at: reader.position().byte(),
            rows: reader.into_records(),
            reading,
            names,
            path: source.path.clone(),
            read,
            done: false,
        })
    }

    fn of_row(&self, row: &csv::StringRecord) -> Result<Document, String> {
        // An empty value is none: CSV has no other way to say so.
        let said = self.names.iter().zip(row).filter(|(_, value)| !value.is_empty());
        let record: Map<String, Value> = said.map(|(name, value)| (name.clone(), value.into())).collect();
        let document = self.reading.fields.document(&record, &self.reading.prefix)?;
        Ok(self.reading.labelled(document))
    }
}

impl Iterator for Rows {
    type Item = Item;

    fn next(&mut self) -> Option<Item> {
        if self.done {
            return None;
        }
        let line = self.rows.reader().position().line();
        let row = self.rows.next()?;
        self.read.store(0, Ordering::Relaxed);
        let (line, document) = match &row {
            Ok(row) => (row.position().map_or(line, csv::Position::line), self.of_row(row)),
            Err(e) => {
                // Bad UTF-8 or too few values spoil a row, a failing disk the rest of the file.
                self.done = e.is_io_error();
                (e.position().map_or(line, csv::Position::line), Err(wrong(e)))
            }
        };
        let at = self.rows.reader().position().byte();
        let bytes = at.saturating_sub(std::mem::replace(&mut self.at, at));
        Some(Item {
            what: Origin::new(&self.path, Some(line)),
            bytes,
            document,
        })
    }
}

fn wrong(e: &csv::Error) -> String {
    match e.kind() {
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!("the row has {len} values, the header {expected_len}")
        }
        csv::ErrorKind::Utf8 { .. } => "the row is not UTF-8".to_owned(),
        csv::ErrorKind::Io(e) => e.to_string(),
        _ => e.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::find::find;
    use super::*;

    fn read(dir: &Path, flags: &[&str]) -> Vec<Item> {
        use clap::Parser;
        #[derive(Parser)]
        struct Flags {
            #[command(flatten)]
            fields: Fields,
        }
        let fields = Flags::try_parse_from(std::iter::once("x").chain(flags.iter().copied()))
            .unwrap()
            .fields;
        let reading = Arc::new(Reading {
            prefix: "p/".into(),
            fields,
            trust: Trust::Trusted,
            ..Reading::default()
        });
        let found = find(&[dir.to_owned()], "p/").unwrap();
        found
            .sources
            .into_iter()
            .flat_map(|source| reading.documents(source))
            .collect()
    }

    fn ids(items: &[Item]) -> Vec<&str> {
        items
            .iter()
            .filter_map(|i| i.document.as_ref().ok())
            .map(|d| d.id.as_str())
            .collect()
    }

    fn wrong(items: &[Item]) -> Vec<String> {
        let wrong = items.iter().filter(|i| i.document.is_err());
        wrong
            .map(|i| i.what.to_string().rsplit('/').next().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn a_wrong_line_or_file_does_not_stop_the_others() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| fs::write(dir.path().join(name), bytes).unwrap();
        let mut lines = br#"{"id": 42, "text": "t", "title": "T", "format": "markdown", "metadata": {"a": [1]}}

{"id": "b", "text": "t", "metdata": {}}
{"id": "c"}
"#
        .to_vec();
        lines.extend_from_slice(b"\xff\xfe\n{\"id\": \"d\", \"text\": \"t\"}");
        write("a.jsonl", &lines);
        write("bad.txt", b"\xff\xfe");
        write("good.txt", b"t");
        write("page.html", b"\xff\xfe");
        let items = read(dir.path(), &[]);
        assert_eq!(ids(&items), ["p/42", "p/d", "p/good.txt", "p/page.html"]);
        assert_eq!(wrong(&items), ["a.jsonl:3", "a.jsonl:4", "a.jsonl:5", "bad.txt"]);
        assert_eq!(
            items.iter().take(5).map(|i| i.bytes).sum::<u64>(),
            lines.len() as u64 - 1,
            "but for the empty line"
        );
        let d = items[0].document.as_ref().unwrap();
        assert_eq!(
            (d.format, d.title.as_str(), d.trust),
            (Format::Markdown, "T", Trust::Trusted)
        );
    }

    #[test]
    fn rows_are_documents_and_wrong_ones_are_named_by_their_line() {
        let dir = tempfile::tempdir().unwrap();
        let mut rows =
            b"\xef\xbb\xbfkey;body;lang\n1;\"two\nlines; and \"\"quotes\"\"\";en\n2;short\n3;ok;\n;no id;de\n".to_vec();
        rows.extend_from_slice(b"4;\xff;x\n5;last;fr");
        fs::write(dir.path().join("rows.csv"), &rows).unwrap();
        let items = read(
            dir.path(),
            &[
                "--delimiter",
                ";",
                "--id-field",
                "key",
                "--text-field",
                "body",
                "--metadata-field",
                "all",
            ],
        );
        assert_eq!(ids(&items), ["p/1", "p/3", "p/5"]);
        assert_eq!(wrong(&items), ["rows.csv:4", "rows.csv:6", "rows.csv:7"]);
        assert_eq!(
            items.iter().map(|i| i.bytes).sum::<u64>(),
            rows.len() as u64 - 17,
            "but for the header"
        );
        let first = items[0].document.as_ref().unwrap();
        assert_eq!(first.text, "two\nlines; and \"quotes\"");
        assert_eq!(Value::Object(first.metadata.clone()), serde_json::json!({"lang": "en"}));
        assert!(
            items[2].document.as_ref().unwrap().metadata.is_empty(),
            "an empty value is none"
        );
    }

    #[test]
    fn tabs_separate_tsv_and_a_column_twice_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(
            dir.path().join("a.tsv"),
            "id\ttext\n1\tone, two\n2\t\"Tea\" is its name\n3\t\"open\n4\tlast\n",
        )
        .unwrap();
        fs::write(dir.path().join("b.csv"), "id,text,id\n1,a,2\n").unwrap();
        fs::write(dir.path().join("c.csv"), "").unwrap();
        let items = read(dir.path(), &[]);
        let texts: Vec<&str> = items
            .iter()
            .filter_map(|i| i.document.as_ref().ok())
            .map(|d| d.text.as_str())
            .collect();
        assert_eq!(
            texts,
            ["one, two", "\"Tea\" is its name", "\"open", "last"],
            "a quote is a character"
        );
        assert_eq!(wrong(&items), ["b.csv"]);
        // A header of two million columns ends within the test's patience.
        let names: Vec<String> = (0..2_000_000).map(|n| n.to_string()).collect();
        fs::write(dir.path().join("a.tsv"), names.join("\t")).unwrap();
        assert_eq!(ids(&read(dir.path(), &[])), [""; 0]);
    }

    #[test]
    fn nothing_larger_than_a_document_is_kept() {
        // A line too long, and one behind it.
        let long = usize::try_from(DOCUMENT_BYTES_MAX).unwrap() + 10;
        let mut file = vec![b'x'; long];
        file.extend_from_slice(b"\n{\"id\": \"b\", \"text\": \"t\"}\n");
        let lines = Lines {
            reading: Arc::default(),
            file: BufReader::new(file.as_slice()),
            path: "f".into(),
            number: 0,
            done: false,
        };
        let items: Vec<Item> = lines.collect();
        assert!(items[0].document.as_ref().unwrap_err().contains("at most"));
        assert_eq!(ids(&items), ["b"]);
        assert_eq!(items.iter().map(|i| i.bytes).sum::<u64>(), file.len() as u64);
        // A quote that is never closed.
        let read = Arc::new(AtomicU64::new(0));
        let mut endless = Bounded {
            inner: io::repeat(b'x'),
            read: Arc::clone(&read),
        };
        let mut sink = vec![0; 1 << 20];
        let failed = (0..100).find_map(|_| endless.read(&mut sink).err()).unwrap();
        assert!(failed.to_string().contains("quote"), "{failed}");
        read.store(0, Ordering::Relaxed);
        assert!(endless.read(&mut sink).is_ok());
    }
}
