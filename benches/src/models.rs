//! Local models by themselves, without a server: texts a second as passages, as questions, and reranked by late interaction;
//! beside the floor, which is what the matrix products alone would take on the same threads in the same run.
//!
//! Texts are SQuAD's where the data sets are, else pages of the demo cut into pieces of the same size.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, ensure};
use cairn_server::rag::embed::{Bert, Embedder, Input, SparseEmbedder, Splade, TextKind, Workers};
use cairn_server::rag::patience::Patience;
use cairn_server::rag::rerank::{Late, Reranker};
use candle_core::{Device, Tensor};
use serde::Deserialize;

use crate::report::{Report, Table, Verdict};
use crate::{data, place};

/// Options of `cairn-bench models`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Texts of a measurement.
    #[arg(long, default_value_t = 400)]
    texts: usize,
}

impl Args {
    pub(crate) fn short() -> Self {
        Self { texts: 64 }
    }
}

/// Texts that a reranker is given with each question, as many as `cairn-bench squad` gives it.
const RERANKED: usize = 20;
/// Multiplications of MiniLM-L6 for a token, without attention: six layers of three matrices.
const MINILM_PRODUCTS: f64 = 6.0 * (4.0 * 384.0 * 384.0 + 2.0 * 384.0 * 1536.0);

pub(crate) fn run(args: &Args) -> anyhow::Result<Verdict> {
    ensure!(args.texts > 0, "texts must be at least 1");
    let minilm = match place::model("minilm") {
        Ok(dir) => dir,
        Err(why) => return Ok(Verdict::Skipped(why)),
    };
    let mut report = Report::begin("models")?;
    let (texts, questions) = texts(args.texts)?;
    let workers = Arc::new(Workers::new().map_err(|why| anyhow!(why))?);
    let patience = || Patience::lasting(Duration::from_secs(3_600));
    let open = |name: &str, dir| Bert::open(name, dir, "", "", Arc::clone(&workers)).map_err(|why| anyhow!(why));
    let bert = Arc::new(open("minilm", &minilm)?);
    let tokens = |texts: &[String]| texts.iter().map(|text| bert.tokens_of(text)).sum::<Result<usize, _>>();
    let products = products_a_second()?;
    println!("matrix products: {:.0} GFLOP/s", 2.0 * products / 1e9);

    let mut table = Table::new([
        "case",
        "texts",
        "tokens",
        "texts/s",
        "ms a call",
        "floor ms",
        "of the floor",
    ]);
    let mut tell =
        |case: &str, texts: usize, calls: usize, tokens: usize, seconds: f64, floored: bool| -> anyhow::Result<()> {
            let (rate, call_ms) = (texts as f64 / seconds, 1e3 * seconds / calls as f64);
            let floor_ms = 1e3 * tokens as f64 * MINILM_PRODUCTS / products / calls as f64;
            report.record(case, "throughput", rate, "texts/s")?;
            report.record(case, "call", call_ms, "ms")?;
            if floored {
                report.record_peer(case, "call", floor_ms, "ms", Some("matrix products"))?;
            }
            let of_floor = |text: String| if floored { text } else { String::new() };
            table.row(vec![
                case.to_owned(),
                texts.to_string(),
                tokens.to_string(),
                format!("{rate:.1}"),
                format!("{call_ms:.1}"),
                of_floor(format!("{floor_ms:.1}")),
                of_floor(format!("{:.0} %", 100.0 * floor_ms / call_ms)),
            ]);
            Ok(())
        };

    let inputs: Vec<Input<'_>> = texts.iter().map(|text| Input::Text(text)).collect();
    let started = Instant::now();
    black_box(bert.embed(&inputs, TextKind::Passage, &patience())?);
    tell(
        "minilm/passages",
        texts.len(),
        1,
        tokens(&texts)?,
        started.elapsed().as_secs_f64(),
        true,
    )?;

    let started = Instant::now();
    for question in &questions {
        black_box(bert.embed(&[Input::Text(question)], TextKind::Query, &patience())?);
    }
    let seconds = started.elapsed().as_secs_f64();
    tell(
        "minilm/a question",
        questions.len(),
        questions.len(),
        tokens(&questions)?,
        seconds,
        true,
    )?;

    let late = Late::new("late", Arc::clone(&bert));
    let started = Instant::now();
    let mut calls = 0;
    for (texts, question) in texts.chunks(RERANKED).zip(&questions) {
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let scores = late.rerank(question, &texts, &patience())?.scores;
        ensure!(scores.iter().all(Option::is_some), "late interaction left texts out");
        calls += 1;
    }
    let seconds = started.elapsed().as_secs_f64();
    tell(
        "minilm/late interaction",
        texts.len(),
        calls,
        tokens(&texts)? + tokens(&questions[..calls])?,
        seconds,
        true,
    )?;

    match place::model("splade-tiny") {
        Ok(dir) => {
            let splade = Splade::open("splade", &dir, "", "", Arc::clone(&workers)).map_err(|why| anyhow!(why))?;
            let all: Vec<&str> = texts.iter().map(String::as_str).collect();
            let started = Instant::now();
            black_box(splade.embed(&all, TextKind::Passage, &patience())?);
            tell(
                "splade/passages",
                texts.len(),
                1,
                tokens(&texts)?,
                started.elapsed().as_secs_f64(),
                false,
            )?;
        }
        Err(why) => println!("\n******** SKIPPED: splade: {why} ********\n"),
    }
    table.print();
    Ok(Verdict::Held)
}

/// Multiplications a second of large matrix products on all threads: the best of five.
fn products_a_second() -> anyhow::Result<f64> {
    let (rows, inner, columns) = (2_048, 384, 1_536);
    let a = Tensor::ones((rows, inner), candle_core::DType::F32, &Device::Cpu)?;
    let b = Tensor::ones((inner, columns), candle_core::DType::F32, &Device::Cpu)?;
    let mut best = 0f64;
    for _ in 0..5 {
        let started = Instant::now();
        black_box(a.matmul(&b)?);
        best = best.max((rows * inner * columns) as f64 / started.elapsed().as_secs_f64());
    }
    Ok(best)
}

#[derive(Deserialize)]
struct Line {
    text: String,
}

fn texts(most: usize) -> anyhow::Result<(Vec<String>, Vec<String>)> {
    let squad = |dir: &std::path::Path, file: &str| -> anyhow::Result<Vec<String>> {
        let lines: Vec<Line> = data::json_lines(&dir.join(file))?;
        Ok(lines.into_iter().take(most).map(|line| line.text).collect())
    };
    match place::data("squad_retrieval") {
        Ok(dir) => Ok((squad(&dir, "dev_corpus.jsonl")?, squad(&dir, "dev_queries.jsonl")?)),
        Err(why) => {
            println!("\n******** SKIPPED: texts of SQuAD: {why}; measured with pages of the demo ********\n");
            let mut all = String::new();
            for (_, page) in crate::ingest::pages(&place::workspace().join("demo/docs"))? {
                all.push_str(&std::fs::read_to_string(&page).with_context(|| page.display().to_string())?);
            }
            let words: Vec<&str> = all.split_whitespace().collect();
            let of = |words_each: usize| {
                words
                    .chunks(words_each)
                    .take(most)
                    .map(|piece| piece.join(" "))
                    .collect()
            };
            Ok((of(120), of(10)))
        }
    }
}
