//! `cairn-bench`: one subcommand for each thing that Cairn claims and a machine can check.
//!
//! Every bench but `ann`, `batch`, `churn`, `filters`, `ivf`, `kernels`, `layers`, `models`, `recall` and `sparse` drives the real `cairn` binary as a child process through
//! real sockets, prints a table for people and appends flat records for machines to `target/bench/<name>.jsonl` (see [`report`]).
//! Missing data is said loudly; the exit code is 1 if a promise is broken, and 3 if nothing is but what was asked for by name
//! could not be measured.
#![expect(clippy::print_stdout, reason = "printing is what a bench is for")]

mod ann;
mod badinput;
mod batch;
mod churn;
mod collections;
mod crash;
mod data;
mod filters;
mod ingest;
mod ivf;
mod kernels;
mod layers;
mod load;
mod measure;
mod models;
mod place;
mod recall;
mod report;
mod sparse;
mod squad;
mod storage;
mod torture;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::report::Verdict;

/// Exit code if what was asked for by name was not measured.
const SKIPPED: u8 = 3;

/// Measures Cairn against what it promises.
#[derive(Parser)]
#[command(version, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    bench: Bench,
}

const EXAMPLES: &str = "\
Examples:
  cairn-bench all                      the short ones, as `make bench` runs them
  cairn-bench squad                    retrieval quality on SQuAD dev, over gRPC
  cairn-bench squad --split train --fit    the grid that chose the hybrid's constants
  cairn-bench load                     117,659 vectors: ingest, recall, latency, memory, kill -9
  cairn-bench ingest --minilm-documents 40
  cairn-bench crash --cycles 100 --seed 7
  cairn-bench badinput
  cairn-bench collections --count 10000
  cairn-bench storage --points 1000000 rates, write amplification, restarts, snapshots
  cairn-bench torture --minutes 30     kills, losses of power, torn writes, damage
  cairn-bench sparse --rows 100000     sparse vectors: bytes, time, postings read

Environment: CAIRN_DATA (data sets; default ../shared/data beside the workspace), CAIRN_BIN (the server; default: beside this binary),
CAIRN_MODELS (where `make models` put them).";

#[derive(Subcommand)]
enum Bench {
    /// Retrieval quality of dense, BM25 and hybrid search on SQuAD.
    Squad(squad::Args),
    /// A hundred thousand real vectors: ingest, recall, latency, memory, disk, restart after kill -9.
    Load(load::Args),
    /// Real documents with the built-in embedder and with MiniLM: rates, processor time, what a second run costs.
    Ingest(ingest::Args),
    /// kill -9 at random moments of every kind of write, judged by an oracle outside the database.
    Crash(crash::Args),
    /// Wrong requests through REST and gRPC: status, code, message, and a server that still serves.
    Badinput(badinput::Args),
    /// Thousands of empty collections: creation, memory, reopening.
    Collections(collections::Args),
    /// The index core beside other libraries: recall against speed, build time, memory.
    Ann(ann::Args),
    /// Filtered search at every share of matching rows: recall, missing hits, latency, in this process.
    Filters(filters::Args),
    /// What an answer costs beyond the walk of its graph: view, plan, filter, payload, in this process.
    Layers(layers::Args),
    /// Inverted lists beside those of Faiss: recall against speed, build time, memory, ranges read a question.
    Ivf(ivf::Args),
    /// What a search finds that is told `target_recall` and nothing else, also where rows have died.
    Recall(recall::Args),
    /// Queries of one batch beside the same queries one by one, in this process.
    Batch(batch::Args),
    /// The inner loops: nanoseconds a distance.
    Kernels(kernels::Args),
    /// Local models: texts a second, and the milliseconds of a question and of reranking, beside their floor.
    Models(models::Args),
    /// Sparse vectors: bytes of an index, time and postings of a question, pruned, not pruned and exhaustive.
    Sparse(sparse::Args),
    /// Search while points are written, replaced and deleted, and what that leaves, in this process.
    Churn(churn::Args),
    /// What storing costs: rates, bytes written and kept, restarts, snapshots.
    Storage(storage::Args),
    /// R1 to R6 at the numbers of a release: kills, losses of power, torn writes, failed fsyncs, full disks, damage.
    Torture(torture::Args),
    /// The short ones of all of these but the last.
    All,
}

#[tokio::main]
async fn main() -> ExitCode {
    let bench = Cli::parse().bench;
    // Dropping the bench's future drops its servers, and that kills them: no child outlives an interrupted bench.
    let outcome = tokio::select! {
        outcome = Box::pin(run(bench)) => outcome,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
    };
    match outcome {
        Ok(Verdict::Held) => ExitCode::SUCCESS,
        Ok(Verdict::Broken(promises)) => {
            for promise in promises {
                println!("BROKEN: {promise}");
            }
            ExitCode::FAILURE
        }
        Ok(Verdict::Skipped(why)) => {
            println!("\n******** SKIPPED: {why} ********\n");
            // Whoever names a bench or a model wants its answer; `all` takes what is there.
            ExitCode::from(SKIPPED)
        }
        Err(e) => {
            println!("FAILED: {e:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(bench: Bench) -> anyhow::Result<Verdict> {
    match bench {
        Bench::Squad(args) => Box::pin(squad::run(args)).await,
        Bench::Load(args) => Box::pin(load::run(args)).await,
        Bench::Ingest(args) => Box::pin(ingest::run(args)).await,
        Bench::Crash(args) => Box::pin(crash::run(args)).await,
        Bench::Badinput(args) => Box::pin(badinput::run(args)).await,
        Bench::Collections(args) => Box::pin(collections::run(args)).await,
        Bench::Ann(args) => Box::pin(ann::run(args)).await,
        Bench::Filters(args) => tokio::task::block_in_place(|| filters::run(&args)),
        Bench::Layers(args) => tokio::task::block_in_place(|| layers::run(&args)),
        Bench::Ivf(args) => Box::pin(ivf::run(args)).await,
        Bench::Recall(args) => tokio::task::block_in_place(|| recall::run(&args)),
        Bench::Batch(args) => tokio::task::block_in_place(|| batch::run(&args)),
        Bench::Kernels(args) => kernels::run(args),
        Bench::Models(args) => tokio::task::block_in_place(|| models::run(&args)),
        Bench::Sparse(args) => tokio::task::block_in_place(|| sparse::run(&args)),
        Bench::Churn(args) => tokio::task::block_in_place(|| churn::run(&args)),
        Bench::Storage(args) => Box::pin(storage::run(args)).await,
        Bench::Torture(args) => Box::pin(torture::run(args)).await,
        Bench::All => all().await,
    }
}

/// Small sizes of everything: minutes, not an hour. One bench that fails does not hide the others.
async fn all() -> anyhow::Result<Verdict> {
    let mut verdict = Verdict::Held;
    let short = [
        Bench::Badinput(badinput::Args::short()),
        Bench::Squad(squad::Args::short()),
        Bench::Load(load::Args::short()),
        Bench::Ingest(ingest::Args::short()),
        Bench::Crash(crash::Args::short()),
        Bench::Collections(collections::Args::short()),
        Bench::Storage(storage::Args::short()),
        Bench::Filters(filters::Args::short()),
        Bench::Churn(churn::Args::short()),
        Bench::Recall(recall::Args::short()),
        Bench::Batch(batch::Args::short()),
        Bench::Kernels(kernels::Args::short()),
        Bench::Ann(ann::Args::short()),
        Bench::Layers(layers::Args::short()),
        Bench::Ivf(ivf::Args::short()),
        Bench::Models(models::Args::short()),
        Bench::Sparse(sparse::Args::short()),
    ];
    for bench in short {
        let outcome = Box::pin(run(bench)).await;
        verdict = verdict.and(outcome.unwrap_or_else(|e| Verdict::Broken(vec![format!("{e:#}")])));
        println!();
    }
    Ok(verdict)
}
