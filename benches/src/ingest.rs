//! Real documents through `cairn ingest`, with the built-in embedder and with a local MiniLM: how many documents and chunks
//! a second, and what they cost the server's processor.
//!
//! Promised: running it again embeds nothing, and editing one page embeds only the chunks that the edit changed.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, ensure};
use cairn_client::Schema;
use serde::Deserialize;

use crate::place;
use crate::report::{Report, Table, Verdict};
use cairn_tests::process::{Launch, Server};

const COLLECTION: &str = "docs";
/// What a page gets at its end: one short paragraph, which is one chunk more or one chunk changed.
const EDIT: &str = "\n\n## Changed\n\nThis paragraph was added by the measurement and stands nowhere else.\n";
/// Chunks that such an edit may embed: the last one and the new one.
const EDITED_CHUNKS_MAX: u64 = 2;

/// Options of `cairn-bench ingest`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// A folder of documents. Default: the demo's, and `demo_docs` of the data sets for the built-in embedder.
    #[arg(long, value_name = "DIR")]
    docs: Option<PathBuf>,
    /// Only so many documents with MiniLM, evenly drawn; 0 leaves MiniLM out.
    #[arg(long, default_value_t = usize::MAX)]
    minilm_documents: usize,
}

impl Args {
    pub(crate) fn short() -> Self {
        Self {
            docs: None,
            minilm_documents: 12,
        }
    }
}

/// What `cairn ingest --json` says.
#[derive(Debug, Deserialize)]
struct Summary {
    documents: u64,
    unchanged: u64,
    /// Pages that hold no text: never stored, so never unchanged.
    empty: u64,
    failed: u64,
    chunks: u64,
    embedded: u64,
    seconds: f64,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<Verdict> {
    let mut report = Report::begin("ingest")?;
    let mut table = Table::new([
        "case",
        "documents",
        "chunks",
        "embedded",
        "seconds",
        "documents/s",
        "chunks/s",
        "server cpu s",
    ]);
    let demo = args
        .docs
        .clone()
        .unwrap_or_else(|| place::workspace().join("demo/docs"));
    let mut broken = Vec::new();
    let mut skipped = Vec::new();
    let builtin = Model {
        name: "builtin",
        settings: Vec::new(),
    };
    measure(&builtin, "demo", &pages(&demo)?, &mut report, &mut table, &mut broken).await?;
    if args.docs.is_none() {
        match place::data("demo_docs") {
            Ok(large) => {
                measure(
                    &builtin,
                    "demo_docs",
                    &pages(&large)?,
                    &mut report,
                    &mut table,
                    &mut broken,
                )
                .await?
            }
            Err(why) => skipped.push(why),
        }
    }
    match place::model("minilm") {
        Ok(dir) if args.minilm_documents > 0 => {
            let minilm = Model {
                name: "minilm",
                settings: vec![
                    "embedders.minilm.type=bert".to_owned(),
                    format!("embedders.minilm.dir=\"{}\"", dir.display()),
                    "default_embedder=minilm".to_owned(),
                ],
            };
            let pages = drawn(pages(&demo)?, args.minilm_documents);
            measure(&minilm, "demo", &pages, &mut report, &mut table, &mut broken).await?;
        }
        Ok(_) => {}
        Err(why) => skipped.push(why),
    }
    table.print();
    for why in &skipped {
        println!("\n******** SKIPPED: {why} ********");
    }
    Ok(Verdict::of(broken))
}

struct Model {
    name: &'static str,
    settings: Vec<String>,
}

/// Ingests pages, ingests them again, edits one and ingests them a third time.
async fn measure(
    model: &Model,
    set: &str,
    pages: &[(PathBuf, PathBuf)],
    report: &mut Report,
    table: &mut Table,
    broken: &mut Vec<String>,
) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let docs = dir.path().join("docs");
    for (inside, page) in pages {
        let to = docs.join(inside);
        std::fs::create_dir_all(to.parent().context("a page is in a folder")?)?;
        std::fs::copy(page, to)?;
    }
    let settings: Vec<&str> = model.settings.iter().map(String::as_str).collect();
    let server = Launch::new(dir.path(), &settings).start()?;
    server
        .client()
        .await?
        .create_collection(COLLECTION, Schema::documents())
        .await?;
    let case = format!("{set}-{}/{}", pages.len(), model.name);

    let mut step = |step: &str| -> anyhow::Result<Summary> {
        let before = server.cpu_seconds()?;
        let summary = ingest(&server, &docs)?;
        let cpu = server.cpu_seconds()? - before;
        ensure!(summary.failed == 0, "{case}: {} documents failed", summary.failed);
        let case = format!("{case}/{step}");
        let (documents, chunks) = (summary.documents as f64, summary.chunks as f64);
        for (metric, value, unit) in [
            ("documents", documents, "count"),
            ("chunks", chunks, "count"),
            ("embedded", summary.embedded as f64, "count"),
            ("seconds", summary.seconds, "s"),
            ("document_throughput", documents / summary.seconds, "documents/s"),
            ("chunk_throughput", chunks / summary.seconds, "chunks/s"),
            ("server_cpu", cpu, "s"),
        ] {
            report.record(&case, metric, value, unit)?;
        }
        table.row(vec![
            case,
            summary.documents.to_string(),
            summary.chunks.to_string(),
            summary.embedded.to_string(),
            format!("{:.2}", summary.seconds),
            format!("{:.1}", documents / summary.seconds),
            format!("{:.1}", chunks / summary.seconds),
            format!("{cpu:.2}"),
        ]);
        Ok(summary)
    };
    let first = step("first")?;
    let again = step("again")?;
    let (edited, _) = &pages[pages.len() / 2];
    let mut text = std::fs::read_to_string(docs.join(edited))?;
    text.push_str(EDIT);
    std::fs::write(docs.join(edited), text)?;
    let edit = step("one page edited")?;
    server.stop()?;

    if first.embedded == 0 {
        broken.push(format!("{case}: the first run embedded nothing"));
    }
    if again.embedded > 0 || again.unchanged + again.empty != again.documents {
        broken.push(format!("{case}: running it again embedded {} chunks", again.embedded));
    }
    let changed = edit.documents - edit.unchanged - edit.empty;
    if changed != 1 || !(1..=EDITED_CHUNKS_MAX).contains(&edit.embedded) {
        broken.push(format!(
            "{case}: one edited page changed {changed} documents and embedded {} chunks",
            edit.embedded
        ));
    }
    Ok(())
}

/// As a person would.
fn ingest(server: &Server, docs: &Path) -> anyhow::Result<Summary> {
    let mut command = cairn_tests::process::cairn()?;
    command.arg("ingest").arg(docs);
    command.args(["--collection", COLLECTION, "--json", "--timeout-ms", "600000"]);
    command.args(["--url", &format!("http://{}", server.addr)]);
    let started = Instant::now();
    let done = command.output().context("cannot run cairn ingest")?;
    ensure!(
        done.status.success(),
        "cairn ingest ended with {} after {:?}: {}",
        done.status,
        started.elapsed(),
        String::from_utf8_lossy(&done.stderr)
    );
    serde_json::from_slice(&done.stdout).context("cairn ingest did not print its summary")
}

/// Markdown pages below a folder with their paths in it, in order.
pub(crate) fn pages(dir: &Path) -> anyhow::Result<Vec<(PathBuf, PathBuf)>> {
    let mut pages = Vec::new();
    let mut open = vec![dir.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|e| e == "md") {
                pages.push((path.strip_prefix(dir)?.to_owned(), path));
            }
        }
    }
    pages.sort();
    ensure!(!pages.is_empty(), "{} holds no Markdown", dir.display());
    Ok(pages)
}

/// At most `most` of them, from everywhere.
fn drawn(pages: Vec<(PathBuf, PathBuf)>, most: usize) -> Vec<(PathBuf, PathBuf)> {
    let every = pages.len().div_ceil(most.max(1)).max(1);
    pages.into_iter().step_by(every).collect()
}
