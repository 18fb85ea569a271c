//! The binary as a person uses it: a server process, and commands that end with the exit codes that they document.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod process;
mod services;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use process::{Running, Server, cairn, code, json, stderr, stdout};

#[path = "../../../tests/src/model_server.rs"]
#[expect(
    dead_code,
    unreachable_pub,
    reason = "shared with the end-to-end tests, which use all of it"
)]
mod model_server;
#[path = "../../../client/rust/examples/quickstart.rs"]
#[expect(
    dead_code,
    unreachable_pub,
    reason = "an example: its `main` and its `pub` are for its readers"
)]
mod quickstart;

/// A folder of documents: three good ones, one wrong line, one file that is no text.
fn documents(dir: &Path) -> PathBuf {
    let docs = dir.join("docs");
    std::fs::create_dir_all(docs.join("a")).unwrap();
    let write = |name: &str, text: &[u8]| std::fs::write(docs.join(name), text).unwrap();
    write(
        "a/raft.md",
        b"# Raft\n\n## Election\n\nA candidate becomes leader when a majority of the members votes for it.",
    );
    write(
        "tea.txt",
        b"Green tea is brewed with water of seventy to eighty degrees.",
    );
    write("facts.jsonl", b"{\"id\": 7, \"text\": \"Cairns mark the path for whoever comes next.\", \"metadata\": {\"kind\": \"stone\"}}\n{\"id\": \"x\"}\n");
    write("broken.md", b"\xff\xfe\xfd");
    docs
}

#[test]
fn documents_go_in_and_come_out_cited() {
    let dir = tempfile::tempdir().unwrap();
    let docs = documents(dir.path());
    let docs = docs.to_str().unwrap();
    let server = Server::start(&dir.path().join("data"));

    // Without a collection, and with one made on the way: the wrong ones are named, the others stored.
    let refused = server.run(&["ingest", docs, "-c", "docs"]);
    assert_eq!(code(&refused), 1);
    assert!(stderr(&refused).contains("--create"), "{}", stderr(&refused));
    let partly = server.run(&["ingest", docs, "-c", "docs", "--create", "--json"]);
    assert_eq!(code(&partly), 4, "{}", stderr(&partly));
    let summary: Value = serde_json::from_slice(&partly.stdout).unwrap();
    assert_eq!(
        (&summary["documents"], &summary["failed"], &summary["unchanged"]),
        (&5.into(), &2.into(), &0.into())
    );
    for wrong in ["broken.md", "facts.jsonl:2"] {
        assert!(stderr(&partly).contains(wrong), "{}", stderr(&partly));
    }

    // Again: nothing is embedded twice.
    std::fs::remove_file(Path::new(docs).join("broken.md")).unwrap();
    std::fs::write(
        Path::new(docs).join("tea.txt"),
        "Black tea is brewed with boiling water.",
    )
    .unwrap();
    let again = server.run(&["ingest", docs, "-c", "docs", "--json"]);
    let summary: Value = serde_json::from_slice(&again.stdout).unwrap();
    assert_eq!(
        (&summary["unchanged"], &summary["embedded"], &summary["failed"]),
        (&2.into(), &1.into(), &1.into())
    );

    // A file that holds nothing any more takes what was stored with it.
    std::fs::write(Path::new(docs).join("a/raft.md"), "---\ntitle: Raft\n---\n").unwrap();
    let hollow = server.run(&["ingest", &format!("{docs}/a"), "-c", "docs", "--prefix", "a/", "--json"]);
    assert_eq!(json(&hollow)["empty"], 1);
    let found = json(&server.run(&["search", "majority", "-c", "docs", "--mode", "bm25", "--json"]));
    assert_eq!(found["hits"], Value::Array(vec![]));
    documents(dir.path());
    assert_eq!(
        code(&server.run(&["ingest", &format!("{docs}/a"), "-c", "docs", "--prefix", "a/"])),
        0
    );
    std::fs::write(
        Path::new(docs).join("tea.txt"),
        "Black tea is brewed with boiling water.",
    )
    .unwrap();

    // Search in each mode finds the right chunk first.
    for mode in ["hybrid", "dense", "bm25"] {
        let found = json(&server.run(&[
            "search",
            "majority of votes makes a leader",
            "-c",
            "docs",
            "--mode",
            mode,
            "--json",
        ]));
        assert_eq!(found["hits"][0]["document"], "a/raft.md", "{mode}: {found}");
    }
    let only_stones = r#"{"must": [{"field": "kind", "match": "stone"}]}"#;
    let found = json(&server.run(&["search", "path", "-c", "docs", "--filter", only_stones, "--json"]));
    let ids: Vec<&str> = found["hits"]
        .as_array()
        .unwrap()
        .iter()
        .map(|h| h["document"].as_str().unwrap())
        .collect();
    assert_eq!(ids, ["7"]);
    let shown = server.run(&["search", "leader", "-c", "docs"]);
    assert!(stdout(&shown).contains("Raft › Election"), "{}", stdout(&shown));
    // The first search over vectors is asked again, on spare time.
    until("an estimate is shown", || {
        let shown = stdout(&server.run(&["collections", "get", "docs"]));
        let line = "  recall     1.000 (1 searches asked again)\n";
        if shown.contains(line) { Ok(()) } else { Err(shown) }
    });

    // Enrich: the prompt alone on standard output, sources beside it.
    let enriched = server.run(&[
        "enrich",
        "How does a candidate become leader?",
        "-c",
        "docs",
        "--budget",
        "300",
    ]);
    assert_eq!(code(&enriched), 0, "{}", stderr(&enriched));
    assert!(
        stdout(&enriched).contains("majority of the members") && stdout(&enriched).contains("How does a candidate")
    );
    assert!(
        stderr(&enriched).contains("[1] a/raft.md") && !stdout(&enriched).contains("tokens used"),
        "{}",
        stderr(&enriched)
    );
    let whole = json(&server.run(&["enrich", "tea?", "-c", "docs", "--format", "messages", "--json"]));
    assert!(whole["messages"].as_array().is_some_and(|m| !m.is_empty()), "{whole}");
    assert!(whole["tokens"]["context"].as_u64() <= whole["tokens"]["budget"].as_u64());

    // What was acked is there after a drain and a restart.
    assert_eq!(server.terminate(), Some(0));
    let server = Server::start(&dir.path().join("data"));
    let found = json(&server.run(&["search", "boiling water", "-c", "docs", "--mode", "bm25", "--json"]));
    assert_eq!(found["hits"][0]["document"], "tea.txt");
}

/// A command that needs no server.
fn alone(args: &[&str]) -> Output {
    cairn().args(args).output().unwrap()
}

#[test]
fn files_of_every_kind_go_in_and_a_wrong_one_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let docs = dir.path().join("docs");
    std::fs::create_dir(&docs).unwrap();
    let write = |name: &str, bytes: &[u8]| std::fs::write(docs.join(name), bytes).unwrap();
    write("page.html", include_bytes!("../../src/rag/extract/sample.html"));
    write("notes.pdf", include_bytes!("../../src/rag/extract/sample.pdf"));
    write("broken.pdf", b"%PDF-1.7 and nothing more");
    write(
        "rows.csv",
        b"sku,name,about,kind\n1,Flat stone,\"Broad, flat\nand grey\",stone\n2,Peg\n3,Rope,Thirty metres of hemp,rope\n",
    );
    write("copy.txt", b"Broad, flat\nand grey");
    let server = Server::start(&dir.path().join("data"));
    let docs = docs.to_str().unwrap();
    let ingest = || {
        let records = [
            "--id-field",
            "sku",
            "--text-field",
            "name,about",
            "--metadata-field",
            "kind",
        ];
        let labels = ["--trust", "trusted", "--origin", "shelf"];
        let all = [
            &["ingest", docs, "-c", "files", "--create", "--json"][..],
            &records,
            &labels,
        ]
        .concat();
        let output = server.run(&all);
        let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        (code(&output), report)
    };
    let (ended, report) = ingest();
    assert_eq!(ended, 4, "{report}");
    assert_eq!(
        (&report["documents"], &report["failed"], &report["interrupted"]),
        (&7.into(), &2.into(), &false.into()),
        "{report}"
    );
    let why = |report: &Value, what: &str| {
        let failures = report["failures"].as_array().unwrap();
        let failure = failures.iter().find(|f| f["what"].as_str().unwrap().ends_with(what));
        failure.expect("it failed")["why"].as_str().unwrap().to_owned()
    };
    assert!(why(&report, "broken.pdf").contains("no PDF"), "{report}");
    assert!(why(&report, "rows.csv:4").contains("2 values"), "{report}");

    // Again: nothing is embedded, and what failed fails again.
    let (_, report) = ingest();
    assert_eq!(
        (&report["unchanged"], &report["embedded"], &report["failed"]),
        (&5.into(), &0.into(), &2.into()),
        "{report}"
    );

    // A citation points at bytes of the text that is printed.
    let found = json(&server.run(&["search", "never build on moss", "-c", "files", "--limit", "1", "--json"]));
    let payload = &found["hits"][0]["payload"];
    assert_eq!(
        (&payload["document"], &payload["trust"]),
        (&"notes.pdf".into(), &"trusted".into()),
        "{found}"
    );
    assert_eq!(payload["provenance"], serde_json::json!({"origin": "shelf"}));
    let pdf = format!("{docs}/notes.pdf");
    let span = format!("{},{}", payload["span"][0], payload["span"][1]);
    assert_eq!(
        Value::from(stdout(&alone(&["extract", &pdf, "--span", &span]))),
        payload["text"]
    );
    assert_eq!(code(&alone(&["extract", &pdf, "--span", "0,100000"])), 1);
    let title = alone(&["extract", &format!("{docs}/page.html"), "--title"]);
    assert_eq!(stdout(&title), "Leader election – Handbook\n");

    // Almost the same under another id is named, and left out if that is wanted.
    let copies = dir.path().join("copies");
    std::fs::create_dir(&copies).unwrap();
    std::fs::copy(format!("{docs}/page.html"), copies.join("mirror.html")).unwrap();
    let copies = copies.to_str().unwrap();
    let skipped = json(&server.run(&["ingest", copies, "-c", "files", "--json", "--on-near-duplicate", "skip"]));
    assert_eq!(skipped["skipped"], 1, "{skipped}");
    let near = serde_json::json!([{"id": "mirror.html", "of": "page.html", "skipped": true}]);
    assert_eq!(skipped["near"], near);

    // Files that hold something, and no text, are named, and what was stored stays; an empty one takes it with it.
    write("notes.pdf", &scanned());
    write("page.html", b"<div id=\"app\"></div><script>start()</script>");
    write("copy.txt", b" \n");
    let (ended, report) = ingest();
    assert_eq!(ended, 4, "{report}");
    assert_eq!(
        (&report["failed"], &report["empty"], &report["unchanged"]),
        (&4.into(), &1.into(), &2.into()),
        "{report}"
    );
    assert!(why(&report, "notes.pdf").contains("text recognition first"), "{report}");
    assert!(why(&report, "page.html").contains("no text"), "{report}");
    let documents =
        |server: &Server| json(&server.run(&["collections", "get", "files", "--json"]))["documents"].clone();
    assert_eq!(documents(&server), 4, "notes.pdf, page.html and two rows");
}

/// Waits for something that happens sooner or later; the bound is only for what never does.
fn until(what: &str, mut seen: impl FnMut() -> Result<(), String>) {
    let ends = std::time::Instant::now() + std::time::Duration::from_secs(120);
    while let Err(instead) = seen() {
        assert!(std::time::Instant::now() < ends, "{what}: {instead}");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

#[test]
fn a_watched_folder_is_followed_until_ctrl_c() {
    let dir = tempfile::tempdir().unwrap();
    let docs = dir.path().join("docs");
    std::fs::create_dir_all(docs.join("old")).unwrap();
    let write = |name: &str, text: &[u8]| std::fs::write(docs.join(name), text).unwrap();
    write("first.md", b"# First\n\nThere from the beginning.");
    write("old/away.txt", b"Soon moved out of sight.");
    let server = Server::start(&dir.path().join("data"));
    // Documents of others, with ids as files of these folders would have them.
    let rows = dir.path().join("rows.jsonl");
    std::fs::write(&rows, "{\"id\": \"old/row\", \"text\": \"Written by others.\"}\n{\"id\": \"docs/row\", \"text\": \"Written by others, too.\"}\n").unwrap();
    let put = server.run(&["ingest", rows.to_str().unwrap(), "-c", "docs", "--create"]);
    assert_eq!(code(&put), 0, "{}", stderr(&put));
    let log = dir.path().join("log");
    let watching = cairn()
        .args(["ingest", docs.to_str().unwrap(), "-c", "docs", "--json"])
        .args(["--watch", "--delete-missing", "--url", &server.url])
        .stdout(Stdio::piped())
        .stderr(std::fs::File::create(&log).unwrap())
        .spawn()
        .map(Running)
        .unwrap();
    let stored = |what: &str, ours: &[&str]| {
        let mut there = ["Written by others, too.", "Written by others."].to_vec();
        there.extend(ours);
        there.sort_unstable();
        until(what, || {
            let all = server.run(&["search", "first soon written", "-c", "docs", "--limit", "100", "--json"]);
            let found: Value = serde_json::from_slice(&all.stdout).unwrap_or_default();
            let text = |hit: &Value| hit["payload"]["text"].as_str().unwrap_or_default().to_owned();
            let mut texts: Vec<String> = found["hits"].as_array().into_iter().flatten().map(text).collect();
            texts.sort();
            (texts == there)
                .then_some(())
                .ok_or_else(|| format!("{texts:?} is not {there:?}"))
        });
    };
    let said = |what: &str| {
        until(what, || {
            let log = std::fs::read_to_string(&log).unwrap();
            log.contains(what).then_some(()).ok_or(log)
        });
    };
    stored(
        "at first",
        &["# First\n\nThere from the beginning.", "Soon moved out of sight."],
    );
    write("second.txt", b"Written while somebody watches.");
    write("first.md", b"# First\n\nChanged since.");
    stored(
        "after changes",
        &[
            "# First\n\nChanged since.",
            "Soon moved out of sight.",
            "Written while somebody watches.",
        ],
    );
    std::fs::remove_file(docs.join("second.txt")).unwrap();
    std::fs::rename(docs.join("old"), dir.path().join("elsewhere")).unwrap();
    stored("after removals", &["# First\n\nChanged since."]);

    // What failed and is mended has not failed.
    write("mended.txt", b"\xff\xfe");
    said("1 failed");
    write("mended.txt", b"Mended since.");
    stored("after mending", &["# First\n\nChanged since.", "Mended since."]);

    // The folder itself moves away, and another one is made in its place.
    std::fs::rename(&docs, dir.path().join("parked")).unwrap();
    said("it is not there");
    let anew = dir.path().join("anew");
    std::fs::create_dir(&anew).unwrap();
    std::fs::write(anew.join("mended.txt"), "Mended since.").unwrap();
    std::fs::write(anew.join("third.md"), "Made anew.").unwrap();
    std::fs::rename(&anew, &docs).unwrap();
    stored("after the folder was made anew", &["Made anew.", "Mended since."]);
    write("third.md", b"Made anew, and changed.");
    stored("as before", &["Made anew, and changed.", "Mended since."]);
    let (code, printed) = watching.interrupt();
    let report: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(
        (code, &report["deleted"], &report["failed"]),
        (Some(0), &3.into(), &0.into()),
        "{report}"
    );
    assert!(report["documents"].as_u64().unwrap() >= 6, "{report}");
}

#[test]
fn a_watch_outlives_its_server() {
    let dir = tempfile::tempdir().unwrap();
    let (docs, data) = (dir.path().join("docs"), dir.path().join("data"));
    std::fs::create_dir(&docs).unwrap();
    let write = |name: &str, text: &str| std::fs::write(docs.join(name), text).unwrap();
    write("first.txt", "There from the beginning.");
    let server = Server::start(&data);
    let (url, address) = (server.url.clone(), server.url.replace("http://", ""));
    let log = dir.path().join("log");
    let watching = cairn()
        .args(["ingest", docs.to_str().unwrap(), "-c", "docs", "--create", "--json"])
        .args(["--watch", "--delete-missing", "--timeout-ms", "5000", "--url", &url])
        .stdout(Stdio::piped())
        .stderr(std::fs::File::create(&log).unwrap())
        .spawn()
        .map(Running)
        .unwrap();
    let stored = |server: &Server, documents: u64| {
        until("documents", || {
            let found = server.run(&["collections", "get", "docs", "--json"]);
            let found: Value = serde_json::from_slice(&found.stdout).unwrap_or_default();
            (found["documents"] == documents)
                .then_some(())
                .ok_or_else(|| found.to_string())
        });
    };
    stored(&server, 1);
    // Written while nobody listens.
    let fails = |file: &str| {
        let told = || {
            std::fs::read_to_string(&log)
                .unwrap()
                .matches("to be tried again")
                .count()
        };
        let before = told();
        write(file, "Nobody listens.");
        until(file, || {
            (told() > before)
                .then_some(())
                .ok_or_else(|| "it does not fail".to_owned())
        });
    };
    assert_eq!(server.terminate(), Some(0));
    fails("second.txt");
    let server = Server::start_on(&address, &data);
    stored(&server, 2);
    // Who says stop while a file waits for the server is told that it is not done.
    assert_eq!(server.terminate(), Some(0));
    fails("third.txt");
    let (code, printed) = watching.interrupt();
    let report: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(
        (code, &report["failed"], &report["interrupted"]),
        (Some(130), &0.into(), &true.into()),
        "{report}"
    );
}

#[test]
fn a_renamed_file_stays_though_near_duplicates_are_skipped() {
    let dir = tempfile::tempdir().unwrap();
    let docs = dir.path().join("docs");
    // A path that is too long for an id: it is refused, and was never stored.
    let long = docs.join("l".repeat(200));
    let deep = long.join("l".repeat(200)).join("l".repeat(200));
    std::fs::create_dir_all(&deep).unwrap();
    std::fs::write(deep.join("x.md"), "Too far away.").unwrap();
    std::fs::write(
        docs.join("old.md"),
        "A name is all that changes about this stone of the path.",
    )
    .unwrap();
    let server = Server::start(&dir.path().join("data"));
    let watching = cairn()
        .args(["ingest", docs.to_str().unwrap(), "-c", "docs", "--create", "--json"])
        .args(["--watch", "--delete-missing", "--on-near-duplicate", "skip"])
        .args(["--url", &server.url])
        .stdout(Stdio::piped())
        .spawn()
        .map(Running)
        .unwrap();
    let stored = |only: &str| {
        until(only, || {
            let found = server.run(&["search", "a stone of the path", "-c", "docs", "--json"]);
            let found: Value = serde_json::from_slice(&found.stdout).unwrap_or_default();
            let hits = found["hits"].as_array().into_iter().flatten();
            let ids: Vec<&str> = hits.filter_map(|hit| hit["document"].as_str()).collect();
            (ids == [only]).then_some(()).ok_or_else(|| format!("{ids:?}"))
        });
    };
    stored("old.md");
    std::fs::rename(long, dir.path().join("elsewhere")).unwrap();
    std::fs::rename(docs.join("old.md"), docs.join("new.md")).unwrap();
    stored("new.md");
    let (code, printed) = watching.interrupt();
    let report: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(
        (code, &report["failed"], &report["skipped"], &report["deleted"]),
        (Some(0), &0.into(), &0.into(), &1.into()),
        "{report}"
    );
}

/// A PDF of these objects, of which the first is the catalogue.
fn pdf(objects: &[String]) -> Vec<u8> {
    let (mut file, mut places) = ("%PDF-1.5\n".to_owned(), Vec::new());
    for (n, object) in objects.iter().enumerate() {
        places.push(file.len());
        file += &format!("{} 0 obj\n{object}\nendobj\n", n + 1);
    }
    let (table, size) = (file.len(), objects.len() + 1);
    file += &format!("xref\n0 {size}\n0000000000 65535 f \n");
    for place in places {
        file += &format!("{place:010} 00000 n \n");
    }
    file += &format!("trailer\n<< /Size {size} /Root 1 0 R >>\nstartxref\n{table}\n%%EOF\n");
    file.into_bytes()
}

/// A page that shows no text.
fn scanned() -> Vec<u8> {
    pdf(&[
        "<< /Type /Catalog /Pages 2 0 R >>".to_owned(),
        "<< /Type /Pages /Count 1 /Kids [3 0 R] >>".to_owned(),
        "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 100 100] /Contents 4 0 R >>".to_owned(),
        "<< /Length 3 >>\nstream\nq Q\nendstream".to_owned(),
    ])
}

/// A PDF of 200 KB whose one object stream names one array two hundred times: 2.3 GiB for whoever makes the objects.
fn bomb() -> Vec<u8> {
    let index: String = (100..300).map(|n| format!("{n} 0 ")).collect();
    let members = format!("{index}[{}]", "1 ".repeat(100_000));
    let (first, length) = (index.len(), members.len());
    pdf(&[
        "<< /Type /Catalog /Pages 2 0 R >>".to_owned(),
        "<< /Type /Pages /Count 0 /Kids [] >>".to_owned(),
        format!("<< /Type /ObjStm /N 200 /First {first} /Length {length} >>\nstream\n{members}\nendstream"),
    ])
}

/// The most memory that a process had, in MiB.
fn peak_mib(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() >> 10
}

#[test]
fn a_pdf_that_stands_for_gigabytes_costs_a_refusal() {
    let dir = tempfile::tempdir().unwrap();
    let docs = dir.path().join("docs");
    std::fs::create_dir(&docs).unwrap();
    std::fs::write(docs.join("bomb.pdf"), bomb()).unwrap();
    std::fs::write(
        docs.join("good.pdf"),
        include_bytes!("../../src/rag/extract/sample.pdf"),
    )
    .unwrap();
    let server = Server::start(&dir.path().join("data"));
    let before = peak_mib(server.id());
    let partly = server.run(&["ingest", docs.to_str().unwrap(), "-c", "docs", "--create", "--json"]);
    assert_eq!(code(&partly), 4, "{}", stderr(&partly));
    let summary: Value = serde_json::from_slice(&partly.stdout).unwrap();
    assert_eq!((&summary["documents"], &summary["failed"]), (&2.into(), &1.into()));
    let why = &summary["failures"][0];
    assert!(
        why["what"].as_str().unwrap().ends_with("bomb.pdf")
            && why["why"].as_str().unwrap().contains("document_too_large"),
        "{why}"
    );
    let grown = peak_mib(server.id()) - before;
    assert!(grown < 400, "the server itself took {grown} MiB");
    // The command line reads files in the same way.
    let extracted = alone(&["extract", docs.join("bomb.pdf").to_str().unwrap()]);
    assert_eq!(code(&extracted), 1);
    assert!(stderr(&extracted).contains("memory"), "{}", stderr(&extracted));
    let extracted = alone(&["extract", docs.join("good.pdf").to_str().unwrap(), "--title"]);
    assert_eq!(stdout(&extracted).trim(), "Field notes");
}

#[test]
fn a_stopped_run_finishes_what_is_on_its_way_and_the_next_one_goes_on() {
    use std::io::Write;
    let dir = tempfile::tempdir().unwrap();
    let (pipe, file) = (dir.path().join("pipe.jsonl"), dir.path().join("all.jsonl"));
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let line = |n: usize| format!("{{\"id\": {n}, \"text\": \"Stone number {n} of the path.\"}}\n");
    let server = Server::start(&dir.path().join("data"));
    let mut running = cairn()
        .args([
            "ingest",
            pipe.to_str().unwrap(),
            "-c",
            "docs",
            "--create",
            "--json",
            "--url",
            &server.url,
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map(Running)
        .unwrap();
    // Two requests of 32 and the beginning of a third; then it waits for the pipe.
    let mut lines = std::fs::OpenOptions::new().write(true).open(&pipe).unwrap();
    lines
        .write_all((0..70).map(line).collect::<String>().as_bytes())
        .unwrap();
    let sent = Command::new("kill")
        .args(["-INT", &running.0.id().to_string()])
        .status()
        .unwrap();
    assert!(sent.success());
    let mut said = BufReader::new(running.0.stderr.take().unwrap()).lines();
    assert!(said.any(|line| line.unwrap().contains("stopping")), "it heard");
    // Who waits for the pipe goes on with this; who does not may have closed it.
    if let Err(closed) = lines.write_all((70..100).map(line).collect::<String>().as_bytes()) {
        assert_eq!(closed.kind(), std::io::ErrorKind::BrokenPipe);
    }
    drop(lines);
    let mut printed = String::new();
    std::io::Read::read_to_string(&mut running.0.stdout.take().unwrap(), &mut printed).unwrap();
    assert_eq!(running.0.wait().unwrap().code(), Some(130));
    let report: Value = serde_json::from_str(&printed).unwrap();
    let first = report["documents"].as_u64().unwrap();
    assert_eq!(report["interrupted"], true, "{report}");
    assert!(first <= 64, "the third request was not sent: {report}");

    std::fs::write(&file, (0..100).map(line).collect::<String>()).unwrap();
    let rest = json(&server.run(&["ingest", file.to_str().unwrap(), "-c", "docs", "--json"]));
    assert_eq!(
        (&rest["documents"], &rest["unchanged"]),
        (&100.into(), &first.into()),
        "{rest}"
    );
    assert_eq!(
        (&rest["embedded"], &rest["interrupted"]),
        (&(100 - first).into(), &false.into()),
        "{rest}"
    );
}

#[test]
fn a_run_that_loses_its_server_reports_what_became_of_everything() {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    /// As Linux has it: opening a pipe that nobody reads fails and does not wait.
    const O_NONBLOCK: i32 = 0o4000;
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("pipe.jsonl");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let server = Server::start(&dir.path().join("data"));
    let running = cairn()
        .args(["ingest", pipe.to_str().unwrap(), "-c", "docs", "--create", "--json"])
        .args(["--url", &server.url])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map(Running)
        .unwrap();
    // Somebody reads it once the collection was made.
    let mut lines = None;
    until("the pipe is read", || {
        let opened = std::fs::OpenOptions::new()
            .write(true)
            .custom_flags(O_NONBLOCK)
            .open(&pipe);
        lines = Some(opened.map_err(|e| e.to_string())?);
        Ok(())
    });
    let mut lines = lines.unwrap();
    assert_eq!(server.terminate(), Some(0));
    lines
        .write_all(b"{\"id\": 1, \"text\": \"Nobody takes it.\"}\n{\"id\": 2}\n")
        .unwrap();
    drop(lines);
    let output = running.output();
    assert_eq!(code(&output), 3, "{}", stderr(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&report["documents"], &report["failed"]),
        (&2.into(), &2.into()),
        "{report}"
    );
}

#[test]
fn collections_are_made_shown_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    assert_eq!(
        json(&server.run(&["collections", "list", "--json"])),
        Value::Array(vec![])
    );
    let made = server.run(&[
        "collections",
        "create",
        "shop",
        "--dim",
        "4",
        "--metric",
        "dot",
        "--field",
        "brand=keyword",
        "--field",
        "title=text",
    ]);
    assert_eq!(code(&made), 0, "{}", stderr(&made));
    let shop = json(&server.run(&["collections", "get", "shop", "--json"]));
    assert_eq!(
        (
            &shop["schema"]["vectors"]["dense"]["dim"],
            &shop["schema"]["vectors"]["dense"]["metric"]
        ),
        (&4.into(), &"dot".into())
    );
    assert_eq!(shop["schema"]["fields"]["brand"]["type"], "keyword");
    assert_eq!(stdout(&server.run(&["collections"])), "shop\n");
    // Deleting everything must be meant.
    assert_eq!(code(&server.run(&["collections", "delete", "shop"])), 2);
    assert_eq!(code(&server.run(&["collections", "delete", "shop", "--yes"])), 0);
    let gone = server.run(&["collections", "get", "shop"]);
    assert_eq!((code(&gone), stdout(&gone).as_str()), (1, ""));
    assert!(stderr(&gone).contains("not_found"), "{}", stderr(&gone));
}

#[test]
fn exit_codes_say_what_kind_of_failure() {
    let dir = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| cairn().current_dir(dir.path()).args(args).output().unwrap();
    // Nobody listens on a port that was free a moment ago.
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let nobody = format!("http://{free}");
    let unreachable = run(&["collections", "--url", &nobody, "--timeout-ms", "500"]);
    assert_eq!(code(&unreachable), 3, "{}", stderr(&unreachable));
    assert!(
        stderr(&unreachable).contains("cairn serve"),
        "it says what to do: {}",
        stderr(&unreachable)
    );
    for usage in [
        &["nonsense"][..],
        &["ingest", "-c", "docs"],
        &["ingest", "missing.md", "-c", "docs"],
        &["search", "x", "-c", "docs", "--filter", "{"],
        &["collections", "--url", "no-url"],
        &["serve", "--set", "lissten=1"],
        &["serve", "--listen", "0.0.0.0:0", "--data-dir", "data"],
        &["demo", "--docs", "missing"],
        &["eval", "-c", "docs", "--queries", "missing.jsonl"],
    ] {
        let output = run(usage);
        assert_eq!(code(&output), 2, "{usage:?}: {}", stderr(&output));
        assert_eq!(stdout(&output), "", "errors are no results: {usage:?}");
    }
    assert!(
        !dir.path().join("data").exists(),
        "a refused configuration touches nothing"
    );
}

#[test]
fn a_port_that_is_not_the_apis_is_called_that() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let lost = cairn()
        .args(["collections", "--url", &server.metrics_url])
        .output()
        .unwrap();
    assert_eq!(code(&lost), 3, "{}", stderr(&lost));
    assert!(stderr(&lost).contains("not Cairn's API port"), "{}", stderr(&lost));
}

#[test]
fn a_data_directory_has_one_server() {
    let dir = tempfile::tempdir().unwrap();
    let _first = Server::start(dir.path());
    let second = cairn()
        .args([
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--metrics-listen",
            "127.0.0.1:0",
            "--data-dir",
        ])
        .arg(dir.path())
        .output()
        .unwrap();
    assert_eq!(code(&second), 1, "{}", stderr(&second));
    assert!(stderr(&second).contains("data directory"), "{}", stderr(&second));
}

#[test]
fn the_clients_readme_example_runs() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let prompt = runtime.block_on(quickstart::quickstart(&server.url)).unwrap();
    assert!(
        prompt.contains("How is a leader elected?") && prompt.contains("majority of the members"),
        "{prompt}"
    );
}

/// The example of the README, and what the report promises.
#[test]
fn retrieval_is_measured_on_the_sample_questions() {
    let dir = tempfile::tempdir().unwrap();
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../demo");
    let server = Server::start(&dir.path().join("data"));
    let docs = demo.join("docs");
    let stored = server.run(&["ingest", docs.to_str().unwrap(), "-c", "demo", "--create"]);
    assert_eq!(code(&stored), 0, "{}", stderr(&stored));

    let questions = demo.join("eval/questions.jsonl");
    let questions = questions.to_str().unwrap();
    let shown = server.run(&["eval", "-c", "demo", "--queries", questions]);
    assert_eq!(code(&shown), 0, "{}", stderr(&shown));
    for part in [
        "20 questions",
        "dense",
        "bm25",
        "hybrid",
        "recall@10",
        "ndcg@10",
        "p99 ms",
        "better than dense",
    ] {
        assert!(stdout(&shown).contains(part), "{part}: {}", stdout(&shown));
    }

    let plot = dir.path().join("plot.svg");
    let plot = plot.to_str().unwrap();
    let titles = r#"titles={"text": {"query": "{query}", "fields": ["title"]}}"#;
    let all = [
        "eval",
        "-c",
        "demo",
        "--queries",
        questions,
        "--query",
        titles,
        "--baseline",
        "bm25",
    ];
    let report = json(&server.run(&[&all[..], &["-k", "1,10", "--plot", plot, "--json"]].concat()));
    let modes = report["modes"].as_array().unwrap();
    let value = |i: usize, metric: &str| modes[i]["metrics"][metric]["mean"].as_f64().unwrap();
    assert_eq!(modes.len(), 4);
    assert!(
        value(2, "recall@10") >= 0.8,
        "the hybrid finds what the questions are about: {report}"
    );
    assert!(
        value(2, "recall@10") > value(3, "recall@10"),
        "titles alone find less: {report}"
    );
    for mode in modes {
        let recall = &mode["metrics"]["recall@10"];
        let [low, mean, high] = ["low", "mean", "high"].map(|end| recall[end].as_f64().unwrap());
        assert!(low <= mean && mean <= high && low < high, "{recall}");
        assert!(mode["latency_ms"]["p99"].as_f64().unwrap() >= mode["latency_ms"]["p50"].as_f64().unwrap());
    }
    assert_eq!(report["differences"].as_array().unwrap().len(), 3);
    assert_eq!(report["differences"][0]["than"], "bm25");
    let svg = std::fs::read_to_string(plot).unwrap();
    assert!(svg.starts_with("<svg") && svg.contains("hybrid") && svg.contains("titles"));

    let png = dir.path().join("plot.PNG");
    let drawn = server.run(&[&all[..], &["--plot", png.to_str().unwrap()]].concat());
    assert_eq!(code(&drawn), 0, "{}", stderr(&drawn));
    assert!(std::fs::read(png).unwrap().starts_with(b"\x89PNG\r\n\x1a\n"));

    // The best fusion of one half, measured on the other: its query is one that the API takes.
    let fitted = json(&server.run(&[
        "eval",
        "-c",
        "demo",
        "--queries",
        questions,
        "--fit",
        "--baseline",
        "fitted",
        "--json",
    ]));
    assert_eq!(fitted["differences"][0]["than"], "fitted", "{fitted}");
    let (half, tried) = (&fitted["fit"]["questions"], &fitted["fit"]["tried"]);
    assert_eq!(half.as_u64().unwrap() + fitted["questions"].as_u64().unwrap(), 20);
    assert!(tried.as_u64().unwrap() > 500, "{tried}");
    assert_eq!(fitted["modes"][3]["name"], "fitted");
    assert_eq!(fitted["modes"][3]["query"], fitted["fit"]["query"]);

    // The same judgments as TREC writes them, by other names: the same numbers.
    let mut qrels = String::new();
    let mut renamed = String::new();
    for line in std::fs::read_to_string(questions).unwrap().lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let id = line["id"].as_str().unwrap();
        for (document, grade) in line["relevant"].as_object().unwrap() {
            qrels.push_str(&format!("{id} 0 {document} {grade}\n"));
        }
        renamed.push_str(&format!(
            "{}\n",
            serde_json::json!({"_id": id, "question": line["text"]})
        ));
    }
    qrels.push_str("cncf-twice 0 cncf-glossary-en/agile-software-development.md 0\n");
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (qrels, renamed) = (write("qrels.txt", &qrels), write("questions.jsonl", &renamed));
    let bm25 = ["eval", "-c", "demo", "--mode", "bm25", "--json"];
    let trec = [
        "--queries",
        &renamed,
        "--judgments",
        &qrels,
        "--id-field",
        "_id",
        "--text-field",
        "question",
    ];
    let one = json(&server.run(&[&bm25[..], &["--queries", questions]].concat()));
    let other = json(&server.run(&[&bm25[..], &trec].concat()));
    assert_eq!(one["modes"][0]["metrics"], other["modes"][0]["metrics"]);

    // What is wrong is said before, or with, the question that it is about.
    let wrong = |args: &[&str]| {
        let output = server.run(&[&["eval", "-c", "demo", "--queries", questions], args].concat());
        (code(&output), stderr(&output))
    };
    assert_eq!(wrong(&["--baseline", "sparse"]).0, 2);
    assert_eq!(wrong(&["--query", "x={}"]).0, 2);
    assert_eq!(wrong(&["-k", "0"]).0, 2);
    assert_eq!(wrong(&["--mode", "dense,dense"]).0, 2);
    assert_eq!(
        server.run(&["eval", "-c", "demo", "--queries", &renamed]).status.code(),
        Some(2)
    );
    let (code, said) = wrong(&["--query", r#"x={"text": {"querry": "{query}"}}"#]);
    assert!(
        code == 1 && said.contains("mode x, question") && said.contains("querry"),
        "{said}"
    );
}

#[test]
fn the_demo_asks_three_ways_and_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../demo/docs/etcd-v3.6/learning");
    let output = cairn()
        .env("TMPDIR", dir.path())
        .arg("demo")
        .arg("--docs")
        .arg(&docs)
        .output()
        .unwrap();
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let shown = stdout(&output);
    for part in [
        "Ask on the command line",
        "Ask by REST",
        "Ask by gRPC",
        "documents/s",
        "stop",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    assert!(shown.matches("[1]").count() >= 3, "three cited prompts: {shown}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "no database is left");
}

#[cfg(feature = "faiss")]
#[test]
fn a_faiss_file_is_imported_under_its_ids_and_searched_by_faiss() {
    use cairn_engine::vector::faiss::native::{Measure, Native};
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("some.index");
    let rows: Vec<f32> = (0..2_000).map(|i| ((i * 7919) % 1_000) as f32 / 1_000.0).collect();
    // With the id map that Python's `IndexIDMap` writes, and without.
    let mut native = Native::make(8, "IDMap,Flat", Measure::Euclid).unwrap();
    let ids: Vec<i64> = (0..250).map(|i| i * 3 + 1_000).collect();
    native.add_with_ids(&rows, &ids).unwrap();
    let mut bytes = Vec::new();
    native
        .write(&mut |some| {
            bytes.extend_from_slice(some);
            true
        })
        .unwrap();
    std::fs::write(&file, &bytes).unwrap();
    let file = file.to_str().unwrap();
    let server = Server::start(&dir.path().join("data"));
    for _ in 0..2 {
        let imported = server.run(&["import-faiss", file, "-c", "given"]);
        assert_eq!(code(&imported), 0, "{}", stderr(&imported));
        assert!(stderr(&imported).contains("kept whole"), "{}", stderr(&imported));
        assert!(stdout(&imported).contains("250 points"), "{}", stdout(&imported));
        let got: Value = json(&server.run(&["collections", "get", "given", "--json"]));
        assert_eq!(got["points"], 250, "the same ids again replace");
        assert_eq!(got["schema"]["vectors"]["dense"]["metric"], "euclid");
    }
    let made = server.run(&[
        "import-faiss",
        file,
        "-c",
        "by-faiss",
        "--metric",
        "cosine",
        "--factory",
        "IVF4,SQ8",
    ]);
    assert_eq!(code(&made), 0, "{}", stderr(&made));
    let twice = server.run(&["import-faiss", file, "-c", "by-faiss", "--metric", "dot"]);
    assert_eq!(code(&twice), 2, "{}", stderr(&twice));
    let none = server.run(&["import-faiss", "nothing.index", "-c", "given"]);
    assert_eq!(code(&none), 1, "{}", stderr(&none));
}

#[cfg(not(feature = "faiss"))]
#[test]
fn a_program_without_faiss_says_so() {
    let refused = cairn()
        .args(["import-faiss", "some.index", "-c", "docs"])
        .output()
        .unwrap();
    assert_eq!(code(&refused), 2);
    assert!(stderr(&refused).contains("--features faiss"), "{}", stderr(&refused));
}
