//! Retrieval quality on SQuAD: every paragraph a document of one chunk, every question over gRPC, judged by document.
//!
//! Promised on dev: BM25 no worse than the measured baseline (`../shared/data/README.md`), dense search as good as the exact scan
//! of the same embeddings, the default hybrid above both of its legs in recall@10. Segments are sealed small, so that the graph
//! answers and not the growing segment's scan. What the hybrid's constants should be is [`fit`]'s question, asked of train only.

mod fit;

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use cairn_client::{Collection, Document, Query, Schema};
use serde::Deserialize;

use crate::measure::{Asked, Quality, ask};
use crate::report::{Report, Table, Verdict};
use crate::server::{Launch, Server};
use crate::{data, place};

/// BM25 of the baseline: recall@10 and nDCG@10 on all of dev.
const BM25_BASELINE: (f64, f64) = (0.9535, 0.8676);
/// How far below the baseline BM25 may be.
const BM25_SLACK: f64 = 0.01;
/// How far dense search may be from the exact scan.
const DENSE_SLACK: f64 = 0.005;
/// No paragraph is longer: each is one chunk.
const CHUNK_TOKENS: u32 = 8_192;
/// Small enough that dev is sealed, large enough that searching its graph is cheaper than scanning it.
const SEAL_ROWS: &str = "engine.seal_rows=2060";

/// Options of `cairn-bench squad`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Ask only the first N questions; promises about the whole set are not checked then.
    #[arg(long)]
    limit: Option<usize>,
    /// Which questions.
    #[arg(long, value_enum, default_value = "dev")]
    split: Split,
    /// Try the hybrid's settings instead of measuring the default ones. Only on train.
    #[arg(long)]
    fit: bool,
    /// Questions asked at the same time.
    #[arg(long, default_value_t = 4)]
    clients: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Split {
    /// 2,067 paragraphs, 10,530 questions: what is reported.
    Dev,
    /// 18,891 paragraphs, 5,000 questions: what settings are chosen on.
    Train,
}

#[derive(Deserialize)]
struct Paragraph {
    id: String,
    title: String,
    text: String,
}

/// A question and the paragraphs that answer it.
#[derive(Deserialize)]
struct Question {
    text: String,
    relevant: Vec<String>,
}

impl Args {
    pub(crate) fn short() -> Self {
        Self {
            limit: Some(2_000),
            split: Split::Dev,
            fit: false,
            clients: 4,
        }
    }
}

pub(crate) async fn run(args: Args) -> anyhow::Result<Verdict> {
    let (corpus, queries) = match args.split {
        Split::Dev => ("squad_retrieval/dev_corpus.jsonl", "squad_retrieval/dev_queries.jsonl"),
        Split::Train => (
            "squad_retrieval/train_corpus.jsonl.gz",
            "squad_retrieval/train_queries_5k.jsonl",
        ),
    };
    let (corpus, queries) = match (place::data(corpus), place::data(queries)) {
        (Ok(corpus), Ok(queries)) => (corpus, queries),
        (Err(why), _) | (_, Err(why)) => return Ok(Verdict::Skipped(format!("squad: {why}"))),
    };
    ensure!(
        !args.fit || args.split == Split::Train,
        "settings are chosen on train, never on dev: add --split train"
    );
    let paragraphs: Vec<Paragraph> = data::json_lines(&corpus)?;
    let mut questions: Vec<Question> = data::json_lines(&queries)?;
    let all = args.limit.is_none_or(|n| n >= questions.len());
    questions.truncate(args.limit.unwrap_or(usize::MAX));

    let mut report = Report::begin("squad")?;
    let dir = tempfile::tempdir()?;
    let launch = Launch::new(dir.path(), &[SEAL_ROWS]);
    let server = launch.start()?;
    let collection = load(&server, &paragraphs, args.split, &mut report).await?;
    if args.fit {
        return fit::run(&collection, &questions, args.clients, &mut report).await;
    }

    let prefix = if args.split == Split::Dev { "" } else { "train/" };
    let suffix = if all {
        String::new()
    } else {
        format!("/first-{}", questions.len())
    };
    let mut table = Table::new([
        "case",
        "recall@1",
        "recall@5",
        "recall@10",
        "mrr@10",
        "ndcg@10",
        "queries/s",
        "p50 ms",
        "p99 ms",
    ]);
    let mut measured = Vec::new();
    let cases: [(&str, fn(&str) -> Query); 5] = [
        ("dense/builtin", |text| Query::nearest_text(text)),
        ("dense/builtin-exact", |text| Query::nearest_text(text).exact()),
        ("bm25", |text| Query::text(text).fields(["text"])),
        ("bm25/text+title^0.25", |text| {
            Query::text(text).fields(["text", "title^0.25"])
        }),
        ("hybrid/builtin", |text| Query::hybrid(text)),
    ];
    for (case, query) in cases {
        let asked = ask_all(&collection, &questions, args.clients, |text| query(text).limit(10)).await?;
        let quality = judge(&questions, &asked);
        let case = format!("{prefix}{case}{suffix}");
        let mut row = vec![case.clone()];
        for (metric, value) in quality.named() {
            report.record(&case, metric, value, "ratio")?;
            row.push(format!("{value:.4}"));
        }
        report.record(&case, "throughput", asked.per_second(), "queries/s")?;
        row.extend([
            format!("{:.0}", asked.per_second()),
            format!("{:.2}", asked.ms(0.5)),
            format!("{:.2}", asked.ms(0.99)),
        ]);
        table.row(row);
        measured.push(quality);
    }
    table.print();
    Ok(Verdict::of(broken(&measured, all && args.split == Split::Dev)))
}

/// Which promises do not hold. The measures are those of the cases, in their order.
fn broken(measured: &[Quality], whole_of_dev: bool) -> Vec<String> {
    let [dense, exact, bm25, bm25_titles, hybrid] = measured else {
        unreachable!("one measure for each of the cases")
    };
    let mut broken = Vec::new();
    for ((metric, dense), (_, exact)) in dense.named().into_iter().zip(exact.named()) {
        if (dense - exact).abs() > DENSE_SLACK {
            broken.push(format!(
                "dense {metric} {dense:.4} is not within {DENSE_SLACK} of exact search, {exact:.4}"
            ));
        }
    }
    let (recall, ndcg) = BM25_BASELINE;
    if whole_of_dev && (bm25.recall_10 < recall - BM25_SLACK || bm25.ndcg_10 < ndcg - BM25_SLACK) {
        broken.push(format!(
            "BM25 recall@10 {:.4}, nDCG@10 {:.4}: the baseline is {recall}, {ndcg}",
            bm25.recall_10, bm25.ndcg_10
        ));
    }
    for leg in [dense, bm25, bm25_titles] {
        if hybrid.recall_10 <= leg.recall_10 {
            broken.push(format!(
                "hybrid recall@10 {:.4} is not above its leg's, {:.4}",
                hybrid.recall_10, leg.recall_10
            ));
        }
    }
    broken
}

/// Puts every paragraph as a document, and waits until everything is indexed.
async fn load(
    server: &Server,
    paragraphs: &[Paragraph],
    split: Split,
    report: &mut Report,
) -> anyhow::Result<Collection> {
    let client = server.client().await?;
    client
        .create_collection("squad", Schema::documents().chunking(CHUNK_TOKENS, 0))
        .await?;
    let collection = client.collection("squad");
    let started = Instant::now();
    for batch in paragraphs.chunks(200) {
        let documents = batch.iter().map(|p| Document::plain(&p.id, &p.text).title(&p.title));
        let put = collection.put_documents(documents).await?;
        for result in put.results {
            ensure!(
                result.chunks == 1,
                "document {} has {} chunks, one was meant",
                result.id,
                result.chunks
            );
        }
    }
    let stored = started.elapsed().as_secs_f64();
    let info = indexed(&collection).await?;
    ensure!(
        info.points == paragraphs.len() as u64,
        "{} points of {} paragraphs",
        info.points,
        paragraphs.len()
    );
    let rate = paragraphs.len() as f64 / stored;
    println!(
        "{} documents in {stored:.1} s ({rate:.0}/s), indexed after {:.1} s: {} of them in {} segments",
        paragraphs.len(),
        started.elapsed().as_secs_f64(),
        info.indexed_points,
        info.segments
    );
    let case = if split == Split::Dev { "ingest" } else { "train/ingest" };
    report.record(case, "throughput", rate, "documents/s")?;
    let plan = collection
        .query(Query::nearest_text(&paragraphs[0].text).explain())
        .await?;
    ensure!(
        plan.explain.iter().any(|leg| leg.strategy.starts_with("graph")),
        "no graph was searched: {:?}",
        plan.explain
    );
    Ok(collection)
}

/// Waits until no seal or merge is due or running.
pub(crate) async fn indexed(collection: &Collection) -> anyhow::Result<cairn_client::CollectionInfo> {
    let deadline = Instant::now() + Duration::from_secs(3_600);
    let mut idle = 0;
    loop {
        let info = collection.info().await?;
        // Between a seal and the merge that it calls for there is a moment of rest.
        idle = if info.optimizing { 0 } else { idle + 1 };
        if idle >= 4 {
            return Ok(info);
        }
        ensure!(Instant::now() < deadline, "still indexing: {info:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn ask_all(
    collection: &Collection,
    questions: &[Question],
    clients: usize,
    query: impl Fn(&str) -> Query,
) -> anyhow::Result<Asked> {
    let queries: Vec<Query> = questions.iter().map(|q| query(&q.text).without_payload()).collect();
    // The first answers find cold caches and a connection that is still growing its window.
    ask(collection, &queries[..queries.len().min(50)], clients).await?;
    ask(collection, &queries, clients).await.context("asking")
}

fn judge(questions: &[Question], asked: &Asked) -> Quality {
    let found: Vec<Vec<String>> = asked
        .answers
        .iter()
        .map(|a| a.hits.iter().filter_map(|h| h.point.document.clone()).collect())
        .collect();
    Quality::of(
        found
            .iter()
            .zip(questions)
            .map(|(found, q)| (found.as_slice(), q.relevant.as_slice())),
    )
}
