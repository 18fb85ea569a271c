//! `cairn ingest` while the service of the embedder fails: no document is lost, every one that is not stored is named by its
//! file, and running the command again stores what is missing, once.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use cairn_client::{Client, Scroll};
use serde_json::Value;
use tempfile::TempDir;

use super::model_server::{Fault, ModelServer, Script, vector_of};
use super::process::{Running, Server, cairn, code, stderr};

/// Files of a folder that takes more than one request.
const MANY: usize = 40;
/// Files of a folder that one request takes.
const FEW: usize = 30;

/// A folder, a server whose default embedder is a scripted service, and that service.
struct Bench {
    runtime: tokio::runtime::Runtime,
    models: ModelServer,
    server: Server,
    docs: PathBuf,
    files: usize,
    // The directory goes last.
    _dir: TempDir,
}

impl Bench {
    /// So many files, the last with several chunks; `table` are more keys of the embedder.
    fn new(files: usize, table: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let models = runtime.block_on(ModelServer::start(Script::default()));
        let dir = tempfile::tempdir().unwrap();
        let docs = dir.path().join("docs");
        std::fs::create_dir(&docs).unwrap();
        for i in 0..files {
            let text = match i + 1 {
                last if last == files => (0..900).map(|w| format!("word{} ", w % 300)).collect(),
                _ => format!("Stone number {i} of the path."),
            };
            std::fs::write(docs.join(file(i)), text).unwrap();
        }
        let config = dir.path().join("cairn.toml");
        let text = format!(
            "default_embedder = \"remote\"\n[embedders.remote]\ntype = \"openai\"\nurl = \"{}\"\nmodel = \"m\"\n{table}\n",
            models.url()
        );
        std::fs::write(&config, text).unwrap();
        let server = serve(&dir.path().join("data"), &config);
        // The questions at start are none of the tests'.
        models.forget();
        Self {
            runtime,
            models,
            server,
            docs,
            files,
            _dir: dir,
        }
    }

    /// How all runs here are begun.
    fn ingest_args(&self) -> [&str; 6] {
        let docs = self.docs.to_str().unwrap();
        ["ingest", docs, "-c", "docs", "--create", "--json"]
    }

    fn ingest(&self, more: &[&str]) -> Report {
        let output = self.server.run(&[&self.ingest_args(), more].concat());
        let said = stderr(&output);
        Report {
            code: code(&output),
            json: serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {said}")),
            said,
        }
    }

    /// Ids and number of chunks of what is stored. Every stored vector is that of its chunk's text, and no chunk is there twice.
    fn stored(&self) -> BTreeMap<String, u64> {
        let collection = self
            .runtime
            .block_on(async { Client::connect(&self.server.url).await.unwrap().collection("docs") });
        let listed = self
            .runtime
            .block_on(collection.list_documents(None, Some(1_000)))
            .unwrap();
        let documents: BTreeMap<String, u64> = listed.documents.into_iter().map(|d| (d.id, d.chunk_count)).collect();
        let all = Scroll::new().with_vectors().limit(1_000);
        let page = self.runtime.block_on(collection.scroll(all)).unwrap();
        let mut places = BTreeSet::new();
        for point in &page.points {
            let payload = point.payload.as_ref().unwrap();
            let text = payload["text"].as_str().unwrap();
            assert_eq!(point.vectors.as_ref().unwrap()["dense"], vector_of(text), "{text:?}");
            assert!(
                places.insert((point.document.clone(), payload["span"].to_string())),
                "twice: {text:?}"
            );
        }
        assert_eq!(page.points.len() as u64, documents.values().sum::<u64>());
        documents
    }

    fn all(&self) -> BTreeSet<String> {
        (0..self.files).map(file).collect()
    }

    /// The run that completes: what `first` said is true, everything is stored, and a third run asks nobody.
    fn completes_after(&self, what: &str, first: &Report) {
        let before: BTreeSet<String> = self.stored().into_keys().collect();
        assert_eq!(
            before,
            &self.all() - &first.failed(),
            "{what}: what is not reported is stored"
        );
        self.models.change(|script| *script = Script::default());
        let again = self.ingest(&[]);
        assert_eq!((again.code, again.failed().len()), (0, 0), "{what}: {}", again.said);
        let n = |key: &str| again.json[key].as_u64().unwrap();
        let expected = (self.files as u64, before.len() as u64);
        assert_eq!((n("documents"), n("unchanged")), expected, "{what}: {}", again.json);
        assert_eq!(self.stored().into_keys().collect::<BTreeSet<_>>(), self.all(), "{what}");
        let twice: Vec<_> = self
            .models
            .embedded()
            .into_iter()
            .filter(|(_, times)| *times > 1)
            .collect();
        assert!(twice.is_empty(), "{what}: embedded twice: {twice:?}");
        self.asks_nobody(what);
    }

    /// A run after which nothing is left to do.
    fn asks_nobody(&self, what: &str) {
        self.models.forget();
        let last = self.ingest(&[]);
        assert_eq!(
            (last.code, &last.json["unchanged"]),
            (0, &self.files.into()),
            "{what}: {}",
            last.json
        );
        assert!(self.models.seen().is_empty(), "{what}: unchanged documents ask nobody");
    }
}

/// A server that does not warn of what the test makes the service do.
fn serve(data: &Path, config: &Path) -> Server {
    Server::start_with(
        data,
        &["--config", config.to_str().unwrap(), "--set", "log.filter=error"],
    )
}

fn file(i: usize) -> String {
    format!("{i:02}.txt")
}

/// What a run said.
struct Report {
    code: i32,
    json: Value,
    said: String,
}

impl Report {
    /// Files that failed, by name.
    fn failed(&self) -> BTreeSet<String> {
        let failures = self.json["failures"].as_array().unwrap().iter();
        let names: BTreeSet<String> = failures
            .map(|f| {
                Path::new(f["what"].as_str().unwrap())
                    .file_name()
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .to_owned()
            })
            .collect();
        assert_eq!(
            names.len() as u64,
            self.json["failed"].as_u64().unwrap(),
            "each is named: {}",
            self.json
        );
        names
    }

    fn why(&self, name: &str) -> &str {
        let failures = self.json["failures"].as_array().unwrap();
        let failure = failures.iter().find(|f| f["what"].as_str().unwrap().ends_with(name));
        failure.unwrap_or_else(|| panic!("{name} did not fail: {}", self.json))["why"]
            .as_str()
            .unwrap()
    }
}

#[test]
fn a_service_that_fails_now_and_then_costs_nothing() {
    let busy = Fault::Status(429, vec![("retry-after", "0".to_owned())]);
    for (fault, every) in [
        (Fault::Drop, 3),
        (Fault::Truncated, 4),
        (Fault::Status(500, vec![]), 3),
        (busy, 2),
        (Fault::Slow(Duration::from_millis(20)), 1),
    ] {
        let what = format!("{fault:?}");
        let bench = Bench::new(MANY, "retries = 2\nencoding = \"base64\"");
        bench.models.change(|script| {
            (script.always, script.every) = (Some(fault), every);
            (script.base64, script.reversed) = (true, true);
        });
        let first = bench.ingest(&[]);
        assert_eq!((first.code, first.failed().len()), (0, 0), "{what}: {}", first.said);
        bench.completes_after(&what, &first);
    }
}

#[test]
fn a_service_that_breaks_in_the_middle_fails_only_what_comes_after_and_names_it() {
    for (fault, expected) in [
        (Fault::Drop, "embedder_unavailable"),
        (Fault::Status(500, vec![]), "500 Internal Server Error"),
        (Fault::Never, "no answer within 2000 ms"),
        (Fault::NaN, "embedder_bad_answer"),
        (Fault::WrongDim, "15 numbers, want 16"),
        (Fault::TooFew, " vectors for "),
        (Fault::NotJson, "not JSON"),
    ] {
        let what = format!("{fault:?}");
        // Only who never answers is to be given up: a busy machine answers late.
        let timeout_ms = if matches!(fault, Fault::Never) { 2_000 } else { 60_000 };
        let bench = Bench::new(FEW, &format!("retries = 0\ntimeout_ms = {timeout_ms}"));
        // Seven documents are embedded, then it breaks for good.
        bench.models.change(|script| {
            script.next = (0..7).map(|_| Fault::Slow(Duration::ZERO)).collect();
            script.always = Some(fault);
        });
        let first = bench.ingest(&["--parallel", "1", "--timeout-ms", "120000"]);
        assert_eq!(first.code, 4, "{what}: {}", first.said);
        assert_eq!(first.failed(), (7..FEW).map(file).collect(), "{what}");
        for name in [7, 8, FEW - 1].map(file) {
            assert!(
                first.why(&name).contains(expected),
                "{what}: {name}: {}",
                first.why(&name)
            );
            assert!(first.said.contains(&format!("{name}: ")), "{what}: {}", first.said);
        }
        assert!(first.said.contains("23 documents failed"), "{what}: {}", first.said);
        bench.completes_after(&what, &first);
    }
}

#[test]
fn one_document_that_the_service_refuses_fails_alone() {
    let bench = Bench::new(MANY, "");
    bench
        .models
        .change(|script| script.refuses = Some("number 17".to_owned()));
    let first = bench.ingest(&[]);
    assert_eq!((first.code, first.failed()), (4, [file(17)].into()), "{}", first.said);
    let why = first.why(&file(17));
    assert!(
        why.contains("embedder_rejected") && why.contains("the text holds number 17"),
        "{why}"
    );
    assert!(!why.contains("before it"), "the others are none of its business: {why}");
    bench.completes_after("a refusal", &first);
}

#[test]
fn a_request_that_takes_too_long_is_sent_document_by_document() {
    let bench = Bench::new(MANY, "");
    bench
        .models
        .change(|script| script.always = Some(Fault::Slow(Duration::from_millis(250))));
    // 32 documents take eight seconds, one a sixteenth of the time that it has.
    let first = bench.ingest(&["--timeout-ms", "4000"]);
    assert_eq!((first.code, first.failed().len()), (0, 0), "{}", first.said);
    assert_eq!(bench.stored().into_keys().collect::<BTreeSet<_>>(), bench.all());
    bench.asks_nobody("a slow service");
}

#[test]
fn ctrl_c_ends_a_run_soon_also_while_a_service_is_slow() {
    let bench = Bench::new(MANY, "timeout_ms = 60000");
    bench
        .models
        .change(|script| script.always = Some(Fault::Slow(Duration::from_secs(2))));
    let run = cairn()
        .args(bench.ingest_args())
        .args(["--url", &bench.server.url])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map(Running)
        .unwrap();
    let ends = Instant::now() + Duration::from_secs(60);
    while bench.models.seen().is_empty() {
        assert!(Instant::now() < ends, "it began");
        std::thread::sleep(Duration::from_millis(20));
    }
    let asked = Instant::now();
    let (code, printed) = run.interrupt();
    // Both requests on their way would take more than a minute.
    assert!(asked.elapsed() < Duration::from_secs(30), "{:?}", asked.elapsed());
    let report: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!((code, &report["interrupted"]), (Some(130), &true.into()), "{report}");
    assert_eq!(report["failed"], 0, "what was not finished is no failure: {report}");

    bench.models.change(|script| *script = Script::default());
    let again = bench.ingest(&[]);
    assert_eq!(
        (again.code, &again.json["documents"]),
        (0, &MANY.into()),
        "{}",
        again.said
    );
    assert_eq!(bench.stored().len(), MANY);
}

#[test]
fn a_server_that_goes_away_ends_the_run_and_the_next_one_goes_on() {
    let mut bench = Bench::new(MANY, "");
    bench
        .models
        .change(|script| script.always = Some(Fault::Slow(Duration::from_millis(300))));
    let run = cairn()
        .args(bench.ingest_args())
        .args(["--url", &bench.server.url, "--timeout-ms", "30000"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map(Running)
        .unwrap();
    let ends = Instant::now() + Duration::from_secs(60);
    while bench.models.seen().len() < 4 {
        assert!(Instant::now() < ends, "it began");
        std::thread::sleep(Duration::from_millis(20));
    }
    let killed = Command::new("kill")
        .args(["-KILL", &bench.server.id().to_string()])
        .status()
        .unwrap();
    assert!(killed.success());
    let output = run.output();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("run it again to go on"), "{said}");

    let config = bench.docs.with_file_name("cairn.toml");
    let data = bench.docs.with_file_name("data");
    bench.server = serve(&data, &config);
    bench.models.change(|script| *script = Script::default());
    let again = bench.ingest(&[]);
    assert_eq!(
        (again.code, &again.json["documents"]),
        (0, &MANY.into()),
        "{}",
        again.said
    );
    assert_eq!(bench.stored().len(), MANY);
}
