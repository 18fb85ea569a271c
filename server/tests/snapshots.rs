//! Snapshots by the command line: a server makes them, `cairn restore` brings an instance back without it, in a directory and
//! on servers that speak the protocols of S3 and Azure (moto, installed by `scripts/s3.sh`, and Azurite, by `scripts/azurite.sh`;
//! without one that part says so and is skipped). Where the store is and who we are comes from the variables that the manual names.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

#[path = "../src/snapshot/tests/store_server.rs"]
mod store_server;

use store_server::{ACCOUNT, ACCOUNT_KEY, BUCKET, StoreServer};

/// Variables of the environment.
type Env<'a> = &'a [(&'a str, &'a str)];

/// A command that sees no configuration of ours, and reaches the store of the test.
fn cairn(store: Env<'_>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cairn"));
    let ours = ["CAIRN_", "AWS_", "AZURE_", "GOOGLE_"];
    for (key, _) in std::env::vars().filter(|(key, _)| ours.iter().any(|prefix| key.starts_with(prefix))) {
        command.env_remove(key);
    }
    command.envs(store.iter().copied());
    command
}

/// `cairn serve`; killed when dropped.
struct Server {
    process: Child,
    url: String,
}

impl Server {
    fn start(env: Env<'_>, data_dir: &Path, store: &str) -> Self {
        Self::spawn(cairn(env), data_dir, store, &[])
    }

    fn spawn(mut command: Command, data_dir: &Path, store: &str, settings: &[&str]) -> Self {
        command.args(["serve", "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"]);
        for setting in settings {
            command.args(["--set", setting]);
        }
        let mut process = command
            .args([
                "--set",
                "log.filter=warn",
                "--set",
                &format!("snapshots.url=\"{store}\""),
                "--data-dir",
            ])
            .arg(data_dir)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut out = BufReader::new(process.stdout.take().unwrap());
        out.read_line(&mut line).unwrap();
        let url = line.split_whitespace().find(|word| word.starts_with("http://"));
        let url = url.expect("the first line says where").to_owned();
        Self { process, url }
    }

    fn run(&self, args: &[&str]) -> Output {
        cairn(&[]).args(args).args(["--url", &self.url]).output().unwrap()
    }

    fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {}", said(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    fn terminate(mut self) {
        let sent = Command::new("kill")
            .args(["-TERM", &self.process.id().to_string()])
            .status();
        assert!(sent.unwrap().success());
        assert!(self.process.wait().unwrap().success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Fails if it ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn there_and_back(dir: &Path, store: &str, env: Env<'_>) {
    let docs = dir.join("docs");
    std::fs::create_dir_all(&docs).unwrap();
    std::fs::write(
        docs.join("a.md"),
        "# Cairns\n\nA cairn marks the path for whoever comes next.",
    )
    .unwrap();
    let docs = docs.to_str().unwrap();
    let server = Server::start(env, &dir.join("data"), store);
    server.ok(&["ingest", docs, "--collection", "docs", "--create"]);
    let created = server.ok(&["snapshots", "create", "before"]);
    assert!(created.starts_with("before\n") && created.contains("done"), "{created}");
    std::fs::write(dir.join("docs/b.md"), "# Later\n\nThis came after the snapshot.").unwrap();
    server.ok(&["ingest", docs, "--collection", "docs"]);
    let listed = server.ok(&["snapshots"]);
    assert!(
        listed.contains("before") && listed.contains("1 collections"),
        "{listed}"
    );
    server.ok(&["snapshots", "verify", "before"]);
    let refused = server.run(&["snapshots", "restore", "before"]);
    assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
    assert!(said(&refused).contains("collection_exists"), "{}", said(&refused));
    server.ok(&[
        "snapshots",
        "restore",
        "before",
        "--collection",
        "docs",
        "--as",
        "old",
        "--shards",
        "2",
    ]);
    assert_eq!(points(&server, "old"), 1);
    assert_eq!(points(&server, "docs"), 2);
    let careful = server.run(&["snapshots", "delete", "before"]);
    assert_eq!(careful.status.code(), Some(2));
    server.terminate();

    let restore = |data: &str, name: &[&str]| {
        let mut command = cairn(env);
        command
            .arg("restore")
            .args(name)
            .args(["--snapshots", store, "--set", "log.filter=warn", "--data-dir"]);
        command.arg(dir.join(data)).output().unwrap()
    };
    let taken = restore("data", &["before"]);
    assert!(said(&taken).contains("data_directory_not_empty"), "{}", said(&taken));
    let missing = restore("new", &["after"]);
    assert!(said(&missing).contains("snapshot_not_found"), "{}", said(&missing));
    let restored = restore("new", &[]);
    assert!(restored.status.success(), "{}", said(&restored));
    assert!(said(&restored).contains("before is in"), "{}", said(&restored));
    for (_, secret) in env
        .iter()
        .filter(|(key, _)| key.ends_with("_KEY") || key.ends_with("_TOKEN"))
    {
        assert!(!said(&restored).contains(secret));
    }

    let server = Server::start(env, &dir.join("new"), store);
    assert_eq!(points(&server, "docs"), 1);
    let found = server.ok(&["search", "who comes next", "--collection", "docs"]);
    assert!(found.contains("a.md"), "{found}");
    server.ok(&["snapshots", "delete", "before", "--yes"]);
    assert_eq!(server.ok(&["snapshots", "list", "--json"]).trim(), "[]");
    server.terminate();
}

fn points(server: &Server, collection: &str) -> u64 {
    let info = server.ok(&["collections", "get", collection, "--json"]);
    let info: serde_json::Value = serde_json::from_str(&info).unwrap();
    info["points"].as_u64().unwrap()
}

#[test]
fn an_instance_comes_back_from_a_directory() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    there_and_back(dir.path(), store.to_str().unwrap(), &[]);
}

#[test]
fn an_instance_comes_back_from_s3_with_credentials_of_the_environment() {
    let Some(s3) = StoreServer::s3() else { return };
    let dir = tempfile::tempdir().unwrap();
    let endpoint = format!("http://127.0.0.1:{}", s3.port);
    let env = [
        ("AWS_ENDPOINT", endpoint.as_str()),
        ("AWS_ALLOW_HTTP", "true"),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ACCESS_KEY_ID", "key"),
        ("AWS_SECRET_ACCESS_KEY", "a-secret-that-is-never-shown"),
    ];
    there_and_back(dir.path(), &format!("s3://{BUCKET}/some/prefix"), &env);
}

#[test]
fn an_instance_comes_back_from_azure_with_credentials_of_the_environment() {
    let Some(azurite) = StoreServer::azurite() else { return };
    let dir = tempfile::tempdir().unwrap();
    let endpoint = format!("http://127.0.0.1:{}/{ACCOUNT}", azurite.port);
    let env = [
        ("AZURE_STORAGE_ENDPOINT", endpoint.as_str()),
        ("AZURE_ALLOW_HTTP", "true"),
        ("AZURE_STORAGE_ACCOUNT_NAME", ACCOUNT),
        ("AZURE_STORAGE_ACCOUNT_KEY", ACCOUNT_KEY),
    ];
    there_and_back(dir.path(), &format!("az://{BUCKET}/some/prefix"), &env);
}

/// moto takes what is asked of Google Cloud Storage (`server/src/snapshot/tests/others.rs`).
#[test]
fn an_instance_comes_back_by_requests_for_google_with_credentials_of_the_environment() {
    let Some(server) = StoreServer::s3() else { return };
    let dir = tempfile::tempdir().unwrap();
    let address = format!("http://127.0.0.1:{}", server.port);
    let env = [
        ("GOOGLE_BASE_URL", address.as_str()),
        ("GOOGLE_BEARER_TOKEN", "a-token-that-is-never-shown"),
    ];
    there_and_back(dir.path(), &format!("gs://{BUCKET}/some/prefix"), &env);
}

/// A server that takes connections and never says a word; it tells each.
fn silent() -> (u16, mpsc::Receiver<()>) {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        let mut held = Vec::new();
        while let Ok((stream, _)) = listener.accept() {
            held.push(stream);
            let _ = tell.send(());
        }
    });
    (port, told)
}

#[test]
fn a_store_that_hangs_takes_no_place_of_reads() {
    let dir = tempfile::tempdir().unwrap();
    let (port, told) = silent();
    let endpoint = format!("http://127.0.0.1:{port}");
    let command = cairn(&[
        ("AWS_ENDPOINT", endpoint.as_str()),
        ("AWS_ALLOW_HTTP", "true"),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ACCESS_KEY_ID", "key"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
    ]);
    let one_place = [
        "limits.reads_max=1",
        "limits.timeout_ms=600000",
        "snapshots.request_timeout_ms=120000",
    ];
    let server = Server::spawn(command, &dir.path().join("data"), "s3://backups/x", &one_place);
    let address = server.url.strip_prefix("http://").unwrap();
    // More than there are places for reads.
    let waiting: Vec<_> = (0..3)
        .map(|_| {
            let mut stream = std::net::TcpStream::connect(address).unwrap();
            let head = format!("GET /api/v1/snapshots HTTP/1.1\r\nHost: {address}\r\n\r\n");
            stream.write_all(head.as_bytes()).unwrap();
            stream
        })
        .collect();
    // The first of them waits for the store.
    told.recv_timeout(Duration::from_secs(60)).unwrap();
    server.ok(&["collections", "list"]);
    drop(waiting);
}

/// Milliseconds since the Unix epoch, with nothing else in the same one.
fn now_ms() -> u64 {
    let wait = || std::thread::sleep(Duration::from_millis(3));
    wait();
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    wait();
    u64::try_from(now.as_millis()).unwrap()
}

#[test]
fn a_moment_between_snapshots_comes_back_from_the_server_and_without_it() {
    const KEEP: [&str; 2] = ["engine.log_retention_ms=3600000", "snapshots.upload_sealed=true"];
    let dir = tempfile::tempdir().unwrap();
    let (data, store) = (dir.path().join("data"), dir.path().join("store"));
    let store = store.to_str().unwrap();
    let docs = dir.path().join("docs");
    std::fs::create_dir_all(&docs).unwrap();
    let server = Server::spawn(cairn(&[]), &data, store, &KEEP);
    let ingest = |name: &str| {
        std::fs::write(docs.join(name), format!("# {name}\n\nThis is {name}.")).unwrap();
        server.ok(&["ingest", docs.to_str().unwrap(), "--collection", "docs", "--create"]);
    };
    let begun = now_ms();
    ingest("a.md");
    server.ok(&["snapshots", "create", "before"]);
    ingest("b.md");
    let then = now_ms().to_string();
    ingest("c.md");
    // What is sealed needs no log any more: it is kept all the same.
    server.ok(&["collections", "optimize", "docs"]);
    let range = server.ok(&["snapshots", "get", "before"]);
    assert!(range.contains("restorable from c1-"), "{range}");

    let restore = |to: &[&str]| {
        let args = [&["snapshots", "restore", "--collection", "docs"], to].concat();
        server.run(&args)
    };
    let done = restore(&["--as", "then", "--to-time", &then]);
    assert!(done.status.success(), "{}", said(&done));
    assert_eq!(points(&server, "then"), 2);
    let done = restore(&["before", "--as", "now", "--to-time", &now_ms().to_string()]);
    assert!(done.status.success(), "{}", said(&done));
    assert_eq!(points(&server, "now"), 3);
    let future = (now_ms() + 3_600_000).to_string();
    for (outside, code) in [
        (["--to-time", begun.to_string().as_str()], "moment_not_restorable"),
        (["--to-time", &future], "moment_not_restorable"),
        (["--to-token", "c1-1-0-ffff"], "token_unknown"),
    ] {
        let refused = restore(&[&["--as", "x"], &outside[..]].concat());
        assert!(said(&refused).contains(code), "{outside:?}: {}", said(&refused));
    }
    let both = restore(&["--as", "x", "--to-token", "c1-1-0-5", "--to-time", &then]);
    assert_eq!(both.status.code(), Some(2), "{}", said(&both));

    server.ok(&["snapshots", "create", "after"]);
    let after = server.ok(&["snapshots", "get", "after"]);
    server.terminate();
    // The disk is lost.
    std::fs::remove_dir_all(&data).unwrap();
    let new = dir.path().join("new");
    let restored = cairn(&[])
        .args([
            "restore",
            "--to-time",
            &then,
            "--snapshots",
            store,
            "--set",
            "log.filter=warn",
            "--data-dir",
        ])
        .arg(&new)
        .output()
        .unwrap();
    assert!(restored.status.success(), "{}", said(&restored));
    assert!(
        said(&restored).contains("before, followed to c1-"),
        "{}",
        said(&restored)
    );
    let server = Server::spawn(cairn(&[]), &new, store, &KEEP);
    assert_eq!(points(&server, "docs"), 2);
    assert_eq!(
        server.run(&["collections", "get", "then"]).status.code(),
        Some(1),
        "it came later"
    );
    // It goes on, and can be restored to moments of its own.
    let later = now_ms().to_string();
    server.ok(&["ingest", docs.to_str().unwrap(), "--collection", "docs"]);
    assert_eq!(points(&server, "docs"), 3);
    server.ok(&[
        "snapshots",
        "restore",
        "before",
        "--collection",
        "docs",
        "--replace",
        "--to-time",
        &later,
    ]);
    assert_eq!(points(&server, "docs"), 2);
    // What was given up is told from it: as long as a snapshot knows its token it leads there, and then nowhere.
    let given_up = &after[after.find("c1-").unwrap()..];
    let given_up = given_up.split_whitespace().next().unwrap();
    let restore = |name: &str| {
        server.run(&[
            "snapshots",
            "restore",
            "--collection",
            "docs",
            "--as",
            name,
            "--to-token",
            given_up,
        ])
    };
    assert!(restore("before-the-loss").status.success());
    assert_eq!(points(&server, "before-the-loss"), 3);
    server.ok(&["snapshots", "delete", "after", "--yes"]);
    let refused = restore("gone");
    assert!(said(&refused).contains("token_unknown"), "{}", said(&refused));
    server.terminate();
}
