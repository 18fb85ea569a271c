//! `cairn ingest`: files to documents, a bounded number of requests at a time.
//!
//! Nothing is remembered here: the server says which documents are unchanged, so running the command again resumes an
//! interrupted run, retries what failed and updates what changed. A document's id is its path below the directory that
//! was named (a file named directly: its file name; a line of JSONL: its own id), so that the same folder gives the same
//! ids from everywhere. One wrong file does not stop the others.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, IsTerminal, Lines};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cairn_client::{Collection, Document, Error, ErrorKind, Format, Payload, PutResult, Schema};
use clap::Args;
use futures::StreamExt;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::{Deserialize, Serialize};

use super::{Connection, Failure, output};

/// Documents in one request. Small, so that requests overlap and progress moves.
const BATCH_DOCUMENTS: usize = 32;
/// Bytes in one request.
const BATCH_BYTES: usize = 1 << 20;
/// The largest file or line read: what a server takes in one message by default, with room for the rest of the message.
const DOCUMENT_BYTES_MAX: u64 = 31 << 20;
/// Failures that are printed; the others are counted.
const FAILURES_SHOWN: usize = 50;

const EXAMPLES: &str = "\
Examples:
  cairn ingest ./docs --collection docs --create     a directory, with everything below it
  cairn ingest README.md notes.txt -c docs           single files
  cairn ingest articles.jsonl -c docs                one document a line
  cairn ingest ./docs -c docs --prefix handbook/     ids begin with handbook/

Files: .md and .markdown (cut along headings), .txt, and .jsonl with \"id\" and
\"text\" on each line, and if wanted \"title\", \"source\", \"format\" (plain or
markdown) and \"metadata\". Other files of a directory are left out, and so is
what begins with a dot. Running it again skips what is unchanged and goes on
where it was stopped.

A document's id is its path below the directory that you name, so that two
folders with a file of the same path overwrite each other: give each its own
--prefix. A file that you remove stays in the collection until its document is
deleted.

Exit codes: 0 all stored, 1 nothing done, 3 server unreachable, 4 some documents failed.";

/// `cairn ingest`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Ingest {
    /// Files, or directories to walk.
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// The collection.
    #[arg(long, short)]
    collection: String,
    /// Make the collection if there is none.
    #[arg(long)]
    create: bool,
    /// Put before every id.
    #[arg(long, default_value = "")]
    prefix: String,
    /// Requests at the same time.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    parallel: u16,
    /// Print the summary as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

/// What became of the documents.
#[derive(Debug, Default, Serialize)]
pub(super) struct Summary {
    pub(super) documents: u64,
    pub(super) unchanged: u64,
    /// Nothing but white space and front matter; what was stored under the id is removed.
    pub(super) empty: u64,
    pub(super) failed: u64,
    pub(super) chunks: u64,
    pub(super) embedded: u64,
    pub(super) bytes: u64,
    pub(super) seconds: f64,
    failures: Vec<FailedDocument>,
}

#[derive(Debug, Serialize)]
struct FailedDocument {
    what: String,
    why: String,
}

impl Ingest {
    pub(super) async fn run(self) -> Result<(), Failure> {
        // Before the server is asked: a wrong path is wrong whether or not it runs.
        let sources = find(&self.paths, &self.prefix)?;
        let client = self.connection.client().await?;
        match client.get_collection(&self.collection).await {
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::NotFound && self.create => {
                client.create_collection(&self.collection, Schema::documents()).await?;
                output::note(format!("made collection {}", self.collection));
            }
            Err(e) if e.kind() == ErrorKind::NotFound => {
                return Err(Failure::new(format!(
                    "there is no collection {:?}: say --create to make it",
                    self.collection
                )));
            }
            Err(e) => return Err(e.into()),
        }
        let collection = client.collection(&self.collection);
        let summary = ingest(&collection, sources, self.parallel.into(), &Progress::new(true)).await?;
        if self.json {
            output::json(&summary)?;
        } else {
            output::out(summary.to_string());
        }
        summary.show_failures();
        match summary.failed {
            0 => Ok(()),
            n if n > FAILURES_SHOWN as u64 => Err(Failure::partly(format!(
                "{n} documents failed, the first {FAILURES_SHOWN} are above"
            ))),
            n => Err(Failure::partly(format!("{n} documents failed"))),
        }
    }
}

impl Summary {
    pub(super) fn show_failures(&self) {
        for failure in self.failures.iter().take(FAILURES_SHOWN) {
            output::error(&format!("{}: {}", failure.what, failure.why));
        }
    }
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let time = Duration::from_secs_f64(self.seconds);
        write!(
            f,
            "{} documents ({}) in {:.1} s: {} new or changed, {} unchanged, {} empty, {} failed; {} chunks, {} embedded; {} documents/s, {} chunks/s",
            output::number(self.documents),
            output::bytes(self.bytes),
            self.seconds,
            output::number(self.documents - self.unchanged - self.empty - self.failed),
            output::number(self.unchanged),
            output::number(self.empty),
            output::number(self.failed),
            output::number(self.chunks),
            output::number(self.embedded),
            output::rate(self.documents, time),
            output::rate(self.chunks, time),
        )
    }
}

// --- sending -----------------------------------------------------------------------------------------------------

/// Reads and sends everything; memory is bounded by `parallel` batches. Fails only if nothing answers any more.
pub(super) async fn ingest(
    collection: &Collection,
    sources: Vec<Source>,
    parallel: usize,
    progress: &Progress,
) -> Result<Summary, Failure> {
    let began = Instant::now();
    progress.begin(sources.iter().map(|s| s.bytes).sum());
    // Once nobody answers, the rest is not tried: each batch would wait for its own deadline.
    let unreachable = AtomicBool::new(false);
    let mut seen = HashSet::new();
    let items = sources
        .into_iter()
        .flat_map(Source::documents)
        .map(move |item| once(&mut seen, item));
    let batches = Batches { items, waiting: None };
    let mut answers = futures::stream::iter(batches.take_while(|_| !unreachable.load(Ordering::Relaxed)))
        .map(|batch| put(collection, batch))
        .buffer_unordered(parallel);

    let mut summary = Summary::default();
    let mut lost = None;
    while let Some(outcomes) = answers.next().await {
        for Outcome { what, bytes, result } in outcomes {
            summary.documents += 1;
            summary.bytes += bytes;
            match result {
                Ok(None) => summary.empty += 1,
                Ok(Some(put)) => {
                    summary.unchanged += u64::from(put.unchanged);
                    summary.chunks += u64::from(put.chunks);
                    summary.embedded += u64::from(put.embedded);
                }
                Err(why) => {
                    summary.failed += 1;
                    if let Why::Refused(e) = &why
                        && e.kind() == ErrorKind::Unreachable
                    {
                        unreachable.store(true, Ordering::Relaxed);
                        lost.get_or_insert_with(|| e.clone());
                    }
                    summary.failures.push(FailedDocument {
                        what,
                        why: why.to_string(),
                    });
                }
            }
            progress.moved(bytes, summary.documents, began.elapsed());
        }
    }
    drop(answers);
    progress.end();
    summary.seconds = began.elapsed().as_secs_f64();
    match lost {
        Some(e) => {
            let mut failure = Failure::from(e);
            let stored = summary.documents - summary.failed;
            failure.message = format!(
                "{}; {stored} documents are stored, run it again to go on",
                failure.message
            );
            Err(failure)
        }
        None => Ok(summary),
    }
}

/// Refuses a second document of the same id: requests overlap, so that it would be chance which one stays.
fn once(seen: &mut HashSet<String>, mut item: Item) -> Item {
    if let Ok(document) = &item.document
        && !seen.insert(document.id.clone())
    {
        item.document = Err(format!(
            "an earlier document of this run has the same id: {:?}; ingest its folder by itself, with --prefix",
            document.id
        ));
    }
    item
}

/// What became of one document.
struct Outcome {
    what: String,
    bytes: u64,
    /// Nothing, if the document is empty.
    result: Result<Option<PutResult>, Why>,
}

enum Why {
    Refused(Error),
    Said(String),
}

impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused(e) => e.fmt(f),
            Self::Said(text) => f.write_str(text),
        }
    }
}

/// Sends one batch. The server refuses a batch whole if one of its documents is wrong: then each is sent alone, to
/// store the good ones and to know the bad one.
async fn put(collection: &Collection, batch: Vec<Item>) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    let mut good = Vec::new();
    for Item { what, bytes, document } in batch {
        match document {
            Ok(document) => good.push((what, bytes, document)),
            Err(why) => outcomes.push(Outcome {
                what,
                bytes,
                result: Err(Why::Said(why)),
            }),
        }
    }
    let together = collection.put_documents(good.iter().map(|(_, _, d)| d.clone())).await;
    let results = match together {
        Ok(summary) => summary.results.into_iter().map(|put| Ok(Some(put))).collect(),
        Err(e) if e.kind() == ErrorKind::Invalid => {
            let mut results = Vec::new();
            for (_, _, document) in &good {
                results.push(put_alone(collection, document.clone()).await);
            }
            results
        }
        Err(e) => vec![Err(e); good.len()],
    };
    let sent = good.into_iter().zip(results);
    outcomes.extend(sent.map(|((what, bytes, _), result)| Outcome {
        what,
        bytes,
        result: result.map_err(Why::Refused),
    }));
    outcomes
}

/// One document. A file that holds nothing any more (a folder's index of front matter, say) has nothing to find: what
/// was stored under its id goes, and that is no failure.
async fn put_alone(collection: &Collection, document: Document) -> Result<Option<PutResult>, Error> {
    let id = document.id.clone();
    match collection.put_document(document).await {
        Ok(put) => Ok(Some(put)),
        Err(e) if e.code() == "empty_document" => collection.delete_documents([id]).await.map(|_| None),
        Err(e) => Err(e),
    }
}

// --- reading -----------------------------------------------------------------------------------------------------

/// A file to read.
pub(super) struct Source {
    path: PathBuf,
    id: String,
    kind: Kind,
    bytes: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Markdown,
    Text,
    Jsonl,
}

/// A document, or why there is none, and how many bytes of input it took.
struct Item {
    what: String,
    bytes: u64,
    document: Result<Document, String>,
}

/// A line of JSONL. Unknown keys are refused: a mistyped `metadata` would be lost silently.
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
}

/// All files below `paths`, in order of their paths. A path that cannot be read, or a file of no known kind that was named, is an
/// error before anything is sent.
pub(super) fn find(paths: &[PathBuf], prefix: &str) -> Result<Vec<Source>, Failure> {
    let mut sources = Vec::new();
    for path in paths {
        let meta = fs::metadata(path).map_err(|e| Failure::usage(format!("{}: {e}", path.display())))?;
        if meta.is_dir() {
            let visible = |e: &walkdir::DirEntry| e.depth() == 0 || !e.file_name().to_string_lossy().starts_with('.');
            for entry in walkdir::WalkDir::new(path)
                .sort_by_file_name()
                .into_iter()
                .filter_entry(visible)
            {
                let entry = entry.map_err(|e| Failure::new(e.to_string()))?;
                if entry.file_type().is_file()
                    && let Some(kind) = kind(entry.path())
                {
                    let below = entry.path().strip_prefix(path).unwrap_or(entry.path());
                    let bytes = entry.metadata().map_or(0, |m| m.len());
                    sources.push(Source {
                        id: id_of(prefix, below),
                        path: entry.into_path(),
                        kind,
                        bytes,
                    });
                }
            }
        } else {
            let known = "a file must end in .md, .markdown, .txt or .jsonl";
            let kind = kind(path).ok_or_else(|| Failure::usage(format!("{}: {known}", path.display())))?;
            let name = path.file_name().map_or(path.as_path(), Path::new);
            sources.push(Source {
                id: id_of(prefix, name),
                path: path.clone(),
                kind,
                bytes: meta.len(),
            });
        }
    }
    if sources.is_empty() {
        return Err(Failure::new("no .md, .markdown, .txt or .jsonl file there"));
    }
    Ok(sources)
}

fn kind(path: &Path) -> Option<Kind> {
    match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
        "md" | "markdown" => Some(Kind::Markdown),
        "txt" => Some(Kind::Text),
        "jsonl" => Some(Kind::Jsonl),
        _ => None,
    }
}

/// Ids are the same on every system: parts are joined with `/`.
fn id_of(prefix: &str, path: &Path) -> String {
    let parts: Vec<_> = path.components().map(|c| c.as_os_str().to_string_lossy()).collect();
    format!("{prefix}{}", parts.join("/"))
}

impl Source {
    /// The documents of a file, read as they are asked for.
    fn documents(self) -> Box<dyn Iterator<Item = Item> + Send> {
        match self.kind {
            Kind::Markdown | Kind::Text => Box::new(std::iter::once(self.whole())),
            Kind::Jsonl => match File::open(&self.path) {
                Ok(file) => Box::new(JsonLines {
                    lines: BufReader::new(file).lines(),
                    path: self.path,
                    number: 0,
                    done: false,
                }),
                Err(e) => Box::new(std::iter::once(self.unreadable(&e))),
            },
        }
    }

    fn whole(self) -> Item {
        if self.bytes > DOCUMENT_BYTES_MAX {
            let why = format!(
                "a document is at most {}, this file has {}",
                output::bytes(DOCUMENT_BYTES_MAX),
                output::bytes(self.bytes)
            );
            return Item {
                what: self.path.display().to_string(),
                bytes: self.bytes,
                document: Err(why),
            };
        }
        match fs::read_to_string(&self.path) {
            Ok(text) => {
                let document = match self.kind {
                    Kind::Markdown => Document::markdown(&self.id, text),
                    Kind::Text | Kind::Jsonl => Document::plain(&self.id, text),
                };
                let document = Ok(document.source(&self.id));
                Item {
                    what: self.path.display().to_string(),
                    bytes: self.bytes,
                    document,
                }
            }
            Err(e) => self.unreadable(&e),
        }
    }

    fn unreadable(&self, e: &std::io::Error) -> Item {
        Item {
            what: self.path.display().to_string(),
            bytes: self.bytes,
            document: Err(e.to_string()),
        }
    }
}

struct JsonLines {
    lines: Lines<BufReader<File>>,
    path: PathBuf,
    number: u64,
    done: bool,
}

impl Iterator for JsonLines {
    type Item = Item;

    fn next(&mut self) -> Option<Item> {
        while !self.done {
            let line = self.lines.next()?;
            self.number += 1;
            let what = format!("{}:{}", self.path.display(), self.number);
            match line {
                Ok(line) if line.trim().is_empty() => {}
                Ok(line) => {
                    let document = serde_json::from_str::<Line>(&line)
                        .map(Document::from)
                        .map_err(|e| e.to_string());
                    return Some(Item {
                        what,
                        bytes: line.len() as u64 + 1,
                        document,
                    });
                }
                // Bad UTF-8 spoils a line, a failing disk the rest of the file.
                Err(e) => {
                    self.done = e.kind() != std::io::ErrorKind::InvalidData;
                    return Some(Item {
                        what,
                        bytes: 0,
                        document: Err(e.to_string()),
                    });
                }
            }
        }
        None
    }
}

impl From<Line> for Document {
    fn from(line: Line) -> Self {
        let id = match line.id {
            Id::Text(id) => id,
            Id::Number(id) => id.to_string(),
        };
        Self {
            id,
            text: line.text,
            format: match line.format {
                LineFormat::Plain => Format::Plain,
                LineFormat::Markdown => Format::Markdown,
            },
            title: line.title,
            source: line.source,
            metadata: line.metadata,
            ..Self::default()
        }
    }
}

/// Groups items by number and bytes.
struct Batches<I> {
    items: I,
    waiting: Option<Item>,
}

impl<I: Iterator<Item = Item>> Iterator for Batches<I> {
    type Item = Vec<Item>;

    fn next(&mut self) -> Option<Vec<Item>> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        while let Some(item) = self.waiting.take().or_else(|| self.items.next()) {
            let size = item.document.as_ref().map_or(0, |d| d.text.len());
            if !batch.is_empty() && (batch.len() >= BATCH_DOCUMENTS || bytes + size > BATCH_BYTES) {
                self.waiting = Some(item);
                break;
            }
            bytes += size;
            batch.push(item);
        }
        (!batch.is_empty()).then_some(batch)
    }
}

// --- progress ----------------------------------------------------------------------------------------------------

/// A bar on a terminal, a line every few seconds elsewhere, or nothing.
pub(super) struct Progress {
    bar: ProgressBar,
    lines: bool,
    last: std::sync::Mutex<Instant>,
}

impl Progress {
    const EVERY: Duration = Duration::from_secs(5);

    pub(super) fn new(shown: bool) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let target = if shown && terminal {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(Some(0), target);
        let style = ProgressStyle::with_template("{bar:30} {decimal_bytes}/{decimal_total_bytes}  {msg}  {eta} left");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self {
            bar,
            lines: shown && !terminal,
            last: std::sync::Mutex::new(Instant::now()),
        }
    }

    fn begin(&self, bytes: u64) {
        self.bar.set_length(bytes);
    }

    fn moved(&self, bytes: u64, documents: u64, time: Duration) {
        self.bar.inc(bytes);
        let message = format!(
            "{} documents, {}/s",
            output::number(documents),
            output::rate(documents, time)
        );
        if self.lines
            && let Ok(mut last) = self.last.lock()
            && last.elapsed() >= Self::EVERY
        {
            *last = Instant::now();
            let (at, of) = (self.bar.position(), self.bar.length().unwrap_or_default());
            output::note(format!("{message}, {} of {}", output::bytes(at), output::bytes(of)));
        }
        self.bar.set_message(message);
    }

    fn end(&self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(dir: &Path, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    fn items(paths: &[PathBuf], prefix: &str) -> Vec<Item> {
        find(paths, prefix)
            .unwrap()
            .into_iter()
            .flat_map(Source::documents)
            .collect()
    }

    fn ids(items: &[Item]) -> Vec<&str> {
        items
            .iter()
            .filter_map(|i| i.document.as_ref().ok())
            .map(|d| d.id.as_str())
            .collect()
    }

    #[test]
    fn ids_are_paths_below_what_was_named() {
        let dir = tempfile::tempdir().unwrap();
        for name in [
            "b.txt",
            "a/z.md",
            "a/y.MARKDOWN",
            "a/picture.png",
            ".git/x.md",
            "a/.hidden.md",
        ] {
            write(dir.path(), name, "text");
        }
        let root = dir.path().to_owned();
        assert_eq!(
            ids(&items(std::slice::from_ref(&root), "")),
            ["a/y.MARKDOWN", "a/z.md", "b.txt"]
        );
        assert_eq!(ids(&items(&[root.join("a").join("z.md")], "")), ["z.md"]);
        assert_eq!(
            ids(&items(&[root.join("a")], "hand/")),
            ["hand/y.MARKDOWN", "hand/z.md"]
        );
        let formats: Vec<_> = items(&[root], "")
            .into_iter()
            .map(|i| i.document.unwrap().format)
            .collect();
        assert_eq!(formats, [Format::Markdown, Format::Markdown, Format::Plain]);
    }

    #[test]
    fn what_was_named_must_be_there_and_of_a_known_kind() {
        let dir = tempfile::tempdir().unwrap();
        let png = write(dir.path(), "x.png", "");
        for paths in [vec![png], vec![dir.path().join("missing.md")]] {
            assert_eq!(find(&paths, "").err().unwrap().code, Failure::USAGE);
        }
        assert_eq!(find(&[dir.path().to_owned()], "").err().unwrap().code, Failure::FAILED);
    }

    #[test]
    fn a_wrong_line_or_file_does_not_stop_the_others() {
        let dir = tempfile::tempdir().unwrap();
        let mut lines = br#"{"id": 42, "text": "t", "title": "T", "format": "markdown", "metadata": {"a": [1]}}

{"id": "b", "text": "t", "metdata": {}}
{"id": "c"}
"#
        .to_vec();
        lines.extend_from_slice(b"\xff\xfe\n{\"id\": \"d\", \"text\": \"t\"}\n");
        write(dir.path(), "a.jsonl", lines);
        write(dir.path(), "bad.txt", b"\xff\xfe");
        write(dir.path(), "good.txt", "t");
        let items = items(&[dir.path().to_owned()], "");
        assert_eq!(ids(&items), ["42", "d", "good.txt"]);
        let bad: Vec<&str> = items
            .iter()
            .filter(|i| i.document.is_err())
            .map(|i| i.what.rsplit('/').next().unwrap())
            .collect();
        assert_eq!(bad, ["a.jsonl:3", "a.jsonl:4", "a.jsonl:5", "bad.txt"]);
    }

    #[test]
    fn the_first_document_of_an_id_wins() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a/x.md", "b/x.md"] {
            write(dir.path(), name, name);
        }
        let mut seen = HashSet::new();
        let paths = [dir.path().join("a"), dir.path().join("b")];
        let items: Vec<Item> = items(&paths, "")
            .into_iter()
            .map(|item| once(&mut seen, item))
            .collect();
        assert_eq!(items[0].document.as_ref().unwrap().text, "a/x.md");
        assert!(items[1].document.as_ref().unwrap_err().contains("same id"));
    }

    #[test]
    fn batches_are_bounded_and_lose_nothing() {
        let item = |bytes: usize| Item {
            what: String::new(),
            bytes: 0,
            document: Ok(Document::plain("x", "a".repeat(bytes))),
        };
        let sizes = |items: Vec<Item>| -> Vec<usize> {
            Batches {
                items: items.into_iter(),
                waiting: None,
            }
            .map(|b| b.len())
            .collect()
        };
        assert_eq!(sizes((0..70).map(|_| item(1)).collect()), [32, 32, 6]);
        assert_eq!(
            sizes(vec![item(BATCH_BYTES * 2), item(10), item(BATCH_BYTES - 10), item(1)]),
            [1, 2, 1]
        );
        assert!(sizes(Vec::new()).is_empty());
    }
}
