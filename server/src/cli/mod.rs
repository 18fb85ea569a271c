//! The command line: what can be said, and what the process's exit code means.
//!
//! Results go to standard output, everything else (progress, timings, errors) to standard error, so that
//! `cairn enrich ... | llm` and `cairn search --json | jq` work. All commands but `serve`, `restore`, `check`, `repair` and `demo` are clients: they
//! speak gRPC through `cairn-client` and know nothing of the engine.

mod ask;
mod check;
mod collections;
mod demo;
mod eval;
mod extract;
mod import_faiss;
mod ingest;
mod operations;
mod output;
mod read_pdf;
mod repair;
mod rest;
mod restore;
mod serve;
mod snapshots;

use std::fmt;
use std::process::ExitCode;
use std::time::Duration;

use cairn_client::{Client, ErrorKind};
use cairn_server::rag::extract::apart;
use clap::{Args, Parser, Subcommand};

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed
  2  wrong usage
  3  server unreachable
  4  ingest: some documents failed, the others are stored
  130  ingest: stopped before the end";

const EXAMPLES: &str = "\
Examples:
  cairn serve                                        start a server on 127.0.0.1:7700
  cairn ingest ./docs --collection docs --create     put files in: Markdown, HTML, PDF, JSONL, ...
  cairn search \"leader election\" -c docs             find chunks
  cairn enrich \"How is a leader elected?\" -c docs    get a prompt with cited context
  cairn eval -c docs --queries questions.jsonl       how good is it? recall, nDCG, MRR, latency
  cairn demo                                         see all of it on sample documents";

#[derive(Parser)]
#[command(name = "cairn", version, about = "A vector database for retrieval-augmented generation", after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the server: REST and gRPC on one port, metrics and health on another.
    Serve(serve::Serve),
    /// Put documents into a collection: Markdown, text, HTML, PDF, JSONL and CSV files, or directories.
    Ingest(ingest::Ingest),
    /// Print the text that is read out of a file, which the spans of citations point into.
    Extract(extract::Extract),
    /// Find the chunks of a collection that match a text.
    Search(ask::Search),
    /// Turn a question into a prompt with cited context, ready for a language model.
    Enrich(ask::Enrich),
    /// Measure retrieval on questions with judgments: recall, nDCG, MRR with intervals, and latency.
    Eval(eval::Eval),
    /// Put the vectors of a Faiss index file into a collection, under its ids.
    ImportFaiss(import_faiss::ImportFaiss),
    /// List, create, show, optimize and delete collections.
    Collections(collections::Collections),
    /// Long work in the server: list it, wait for it, cancel it.
    Operations(operations::Operations),
    /// Make, look at, verify, restore and delete snapshots.
    #[command(visible_alias = "snapshot")]
    Snapshots(snapshots::Snapshots),
    /// Bring a whole instance back from a snapshot, into an empty data directory, without a server.
    Restore(restore::Restore),
    /// Look for damage in a data directory, all of it, without a server.
    Check(check::Check),
    /// Bring damaged files back from snapshots or copies, or give them up, without a server.
    Repair(repair::Repair),
    /// Start a server for a moment, ingest the sample documents, and ask three questions: command line, REST, gRPC.
    Demo(demo::Demo),
    /// Read one PDF from standard input; the server starts it.
    #[command(hide = true, name = apart::COMMAND)]
    ReadPdf(read_pdf::ReadPdf),
}

/// How a client command reaches its server.
#[derive(Args, Clone)]
struct Connection {
    /// Address of the server.
    #[arg(long, global = true, env = "CAIRN_URL", default_value = "http://127.0.0.1:7700")]
    url: String,
    /// Time for one request with its retries, in milliseconds.
    #[arg(long, global = true, env = "CAIRN_TIMEOUT_MS", default_value_t = 60_000, value_parser = clap::value_parser!(u64).range(1..))]
    timeout_ms: u64,
}

impl Connection {
    async fn client(&self) -> Result<Client, Failure> {
        let client = Client::builder(&self.url)
            .timeout(Duration::from_millis(self.timeout_ms))
            .connect()
            .await?;
        Ok(client)
    }
}

/// When the server answers a write.
#[derive(Clone, Copy, clap::ValueEnum)]
enum DurabilityArg {
    Sync,
    Async,
}

impl From<DurabilityArg> for cairn_client::Durability {
    fn from(arg: DurabilityArg) -> Self {
        match arg {
            DurabilityArg::Sync => Self::Sync,
            DurabilityArg::Async => Self::Async,
        }
    }
}

/// Why a command ends without success, and with which exit code.
#[derive(Debug)]
struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    const FAILED: u8 = 1;
    const USAGE: u8 = 2;
    const UNREACHABLE: u8 = 3;
    const PARTLY: u8 = 4;
    /// What shells say of a command that Ctrl-C ended.
    const STOPPED: u8 = 130;

    fn new(message: impl Into<String>) -> Self {
        Self {
            code: Self::FAILED,
            message: message.into(),
        }
    }
    fn usage(message: impl Into<String>) -> Self {
        Self {
            code: Self::USAGE,
            message: message.into(),
        }
    }
    fn unreachable(why: &str) -> Self {
        Self {
            code: Self::UNREACHABLE,
            message: format!("no server answers: {why} (is `cairn serve` running? --url or CAIRN_URL says where)"),
        }
    }
    fn partly(message: impl Into<String>) -> Self {
        Self {
            code: Self::PARTLY,
            message: message.into(),
        }
    }
}

impl From<cairn_client::Error> for Failure {
    fn from(error: cairn_client::Error) -> Self {
        match error.kind() {
            ErrorKind::Unreachable => Self::unreachable(error.message()),
            // Cairn's own refusals carry a code of Cairn; this is what gRPC makes of a plain 404.
            _ if error.code() == "unimplemented" => Self {
                code: Self::UNREACHABLE,
                message: "this is not Cairn's API port, perhaps that of its metrics: --url or CAIRN_URL says where the API is"
                    .to_owned(),
            },
            _ if error.code() == "bad_endpoint" => Self::usage(error.message()),
            _ => Self::new(error.to_string()),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Parses the arguments, runs the command, and says how it ended. Wrong arguments end the process in clap, with code 2.
pub(crate) fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Command::ReadPdf(_) = &cli.command {
        // Before there is a runtime: its threads would count against the bounds.
        return ended(read_pdf::ReadPdf::run());
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            output::error(&format!("no runtime: {e}"));
            return ExitCode::from(Failure::FAILED);
        }
    };
    ended(runtime.block_on(run(cli.command)))
}

fn ended(how: Result<(), Failure>) -> ExitCode {
    match how {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output::error(&failure.message);
            ExitCode::from(failure.code)
        }
    }
}

async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Serve(command) => Box::pin(command.run()).await,
        Command::Ingest(command) => Box::pin(command.run()).await,
        Command::Extract(command) => command.run(),
        Command::Search(command) => Box::pin(command.run()).await,
        Command::Enrich(command) => Box::pin(command.run()).await,
        Command::Eval(command) => Box::pin(command.run()).await,
        Command::ImportFaiss(command) => Box::pin(command.run()).await,
        Command::Collections(command) => Box::pin(command.run()).await,
        Command::Operations(command) => Box::pin(command.run()).await,
        Command::Snapshots(command) => Box::pin(command.run()).await,
        Command::Restore(command) => Box::pin(command.run()).await,
        Command::Check(command) => Box::pin(command.run()).await,
        Command::Repair(command) => Box::pin(command.run()).await,
        Command::Demo(command) => Box::pin(command.run()).await,
        Command::ReadPdf(_) => read_pdf::ReadPdf::run(),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_explains_itself_with_an_example() {
        for command in Cli::command().get_subcommands().filter(|c| !c.is_hide_set()) {
            let help = command.clone().render_long_help().to_string();
            assert!(
                help.contains("Examples:") && help.contains("cairn "),
                "{}",
                command.get_name()
            );
        }
    }
}
