//! `cairn demo`: the whole of Cairn on real documents, in one process and a minute.
//!
//! Nothing here is special to the demo: the server is the one of `cairn serve`, on free loopback ports; documents go in
//! by the code of `cairn ingest`; and the three questions take the three ways in that users have: the command line (a
//! second process of this binary), REST (JSON over HTTP/1.1), and gRPC (the Rust client).

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use cairn_client::{Client, Enrich, Schema};
use cairn_server::config::{Config, LogConfig};
use cairn_server::{serve, telemetry};
use clap::Args;
use serde_json::{Value, json};

use super::{Failure, ask, ingest, output, read_pdf, rest};

const COLLECTION: &str = "demo";
const BUDGET: u32 = 600;
const BY_COMMAND_LINE: &str = "How does etcd elect a leader?";
const BY_REST: &str = "When should I use a histogram instead of a summary in Prometheus?";
const BY_GRPC: &str = "Why does Rust refuse two mutable references to the same value?";

const EXAMPLES: &str = "\
Examples:
  cairn demo                                   the sample documents of the source tree
  cairn demo --docs ./my-docs                  your own Markdown, text, HTML, PDF, JSONL or CSV files
  cairn demo --keep /tmp/cairn-demo            keep the database, to serve it afterwards";

/// `cairn demo`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Demo {
    /// Documents to ingest.
    #[arg(long, value_name = "DIR", default_value = "demo/docs")]
    docs: PathBuf,
    /// Keep the database in this directory instead of removing it.
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

impl Demo {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let began = Instant::now();
        let found = ingest::find(std::slice::from_ref(&self.docs), "")
            .and_then(ingest::some)
            .map_err(|e| {
                Failure::usage(format!(
                    "{e}: run it from the source tree, or name documents of your own with --docs DIR"
                ))
            })?;
        let temporary = tempfile::tempdir().map_err(|e| Failure::new(format!("no temporary directory: {e}")))?;
        let data_dir = self.keep.clone().unwrap_or_else(|| temporary.path().join("data"));

        title("Start a server");
        let free = SocketAddr::from(([127, 0, 0, 1], 0));
        let config = Config {
            listen: free,
            metrics_listen: free,
            data_dir: data_dir.clone(),
            log: LogConfig {
                filter: "warn".to_owned(),
                ..LogConfig::default()
            },
            ..Config::default()
        };
        telemetry::init_logs(&config.log).map_err(|e| Failure::new(e.to_string()))?;
        serve::warm_up(Duration::ZERO);
        let (running, start) = timed(serve::start_with(config, read_pdf::apart()?)).await;
        let running = running?;
        let url = format!("http://{}", running.addr());
        output::out(format!(
            "cairn serve --listen {} --data-dir {}",
            running.addr(),
            data_dir.display()
        ));
        output::out(format!("answers after {} ms", start.as_millis()));

        // A failed question must not leave the server's directory behind half-written: stop first, then say it.
        let asked = Box::pin(self.show(&url, running.addr(), found)).await;
        let (stopped, stop) = timed(running.shutdown()).await;
        let timings = asked?;
        stopped?;

        title("Timings");
        let ms = |d: Duration| format!("{} ms", d.as_millis());
        output::out(format!("start          {:>10}", ms(start)));
        output::out(format!(
            "ingest         {:>10}   {}",
            ms(timings.ingest),
            timings.ingested
        ));
        for (way, time) in timings.questions {
            output::out(format!("{way:<15}{:>10}", ms(time)));
        }
        output::out(format!("stop           {:>10}", ms(stop)));
        output::out(format!("all            {:>10}", ms(began.elapsed())));
        if let Some(dir) = self.keep {
            output::out(format!(
                "\nThe database is kept: cairn serve --data-dir {}",
                dir.display()
            ));
        }
        Ok(())
    }

    async fn show(&self, url: &str, addr: SocketAddr, found: ingest::Found) -> Result<Timings, Failure> {
        title("Put documents in");
        output::out(format!(
            "cairn ingest {} --collection {COLLECTION} --create",
            self.docs.display()
        ));
        let client = Client::connect(url).await?;
        client.create_collection(COLLECTION, Schema::documents()).await?;
        let collection = client.collection(COLLECTION);
        let (plan, progress, mut summary) = (
            ingest::Plan::default(),
            ingest::Progress::new(true),
            ingest::Summary::default(),
        );
        summary.unread(found.unread);
        let work = ingest::ingest(&collection, found.sources, &plan, &progress, &mut summary);
        let (done, ingest_time) = timed(work).await;
        done?;
        output::out(summary.to_string());
        summary.show_failures();
        if summary.failed > 0 {
            return Err(Failure::partly(format!(
                "{} sample documents were refused",
                summary.failed
            )));
        }

        let mut questions = Vec::new();

        title("Ask on the command line");
        output::out(format!(
            "cairn enrich \"{BY_COMMAND_LINE}\" -c {COLLECTION} --budget {BUDGET}\n"
        ));
        let (shown, time) = timed(by_command_line(url)).await;
        shown?;
        questions.push(("command line", time));

        title("Ask by REST");
        let path = format!("/api/v1/collections/{COLLECTION}/enrich");
        let body = json!({"prompt": BY_REST, "token_budget": BUDGET, "format": "messages"});
        output::out(format!(
            "curl {url}{path} -H 'content-type: application/json' -d '{body}'\n"
        ));
        let mut rest = rest::Rest::new(&format!("http://{addr}"), Duration::from_secs(60))?;
        let (answer, time) = timed(rest.post(&path, &body)).await;
        show_rest(&answer?)?;
        questions.push(("REST", time));

        title("Ask by gRPC");
        output::out(format!(
            "collection.enrich(Enrich::new(\"{BY_GRPC}\").token_budget({BUDGET})).await\n"
        ));
        let (enriched, time) = timed(collection.enrich(Enrich::new(BY_GRPC).token_budget(BUDGET))).await;
        let enriched = enriched?;
        cited(enriched.context.len())?;
        ask::show_prompt(&enriched);
        ask::show_sources(&enriched);
        questions.push(("gRPC", time));

        let ingested = format!(
            "{} documents/s, {} chunks/s",
            output::rate(summary.documents, ingest_time),
            output::rate(summary.chunks, ingest_time)
        );
        Ok(Timings {
            ingest: ingest_time,
            ingested,
            questions,
        })
    }
}

struct Timings {
    ingest: Duration,
    ingested: String,
    questions: Vec<(&'static str, Duration)>,
}

/// The same binary as a client, as a person would call it. It prints by itself.
async fn by_command_line(url: &str) -> Result<(), Failure> {
    let cairn = std::env::current_exe().map_err(|e| Failure::new(format!("where is this binary? {e}")))?;
    let mut command = Command::new(cairn);
    let budget = BUDGET.to_string();
    command.args([
        "enrich",
        BY_COMMAND_LINE,
        "--collection",
        COLLECTION,
        "--budget",
        &budget,
        "--url",
        url,
    ]);
    let status = tokio::task::spawn_blocking(move || command.stdin(Stdio::null()).status());
    let status = status.await.map_err(std::io::Error::other).flatten();
    let status = status.map_err(|e| Failure::new(format!("cairn enrich: {e}")))?;
    if status.success() {
        Ok(())
    } else {
        Err(Failure::new(format!("cairn enrich ended with {status}")))
    }
}

/// What a program without a client library would do with the JSON.
fn show_rest(answer: &Value) -> Result<(), Failure> {
    for message in answer["messages"].as_array().into_iter().flatten() {
        output::out(output::bold(&format!(
            "[{}]",
            message["role"].as_str().unwrap_or_default()
        )));
        output::out(message["content"].as_str().unwrap_or_default());
    }
    let context: Vec<&Value> = answer["context"].as_array().into_iter().flatten().collect();
    cited(context.len())?;
    output::note("");
    for item in context {
        output::note(format!(
            "[{}] {}  score {:.3}",
            item["n"],
            item["document"].as_str().unwrap_or_default(),
            item["score"].as_f64().unwrap_or_default()
        ));
    }
    output::note(format!("tokens {}  took {} ms", answer["tokens"], answer["took_ms"]));
    Ok(())
}

/// A prompt without context would be no demonstration.
fn cited(context: usize) -> Result<(), Failure> {
    if context == 0 {
        Err(Failure::new("nothing was found for the question"))
    } else {
        Ok(())
    }
}

async fn timed<T>(work: impl Future<Output = T>) -> (T, Duration) {
    let began = Instant::now();
    let result = work.await;
    (result, began.elapsed())
}

fn title(text: &str) {
    output::out(format!("\n{}", output::bold(&format!("== {text} =="))));
}
