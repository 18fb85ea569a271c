//! What an answered write is worth, with the real binary: killed, its log torn or changed, its fsync failing, its disk full.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(60);

/// `cairn serve` on free ports; killed when dropped.
struct Server {
    process: Child,
    api: String,
    metrics: String,
}

impl Server {
    fn spawn(data_dir: &Path, settings: &[&str]) -> Child {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cairn"));
        for (key, _) in std::env::vars().filter(|(key, _)| key.starts_with("CAIRN_")) {
            command.env_remove(key);
        }
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"])
            .arg("--data-dir")
            .arg(data_dir);
        for setting in settings {
            command.args(["--set", setting]);
        }
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    fn start(data_dir: &Path, settings: &[&str]) -> Self {
        let mut process = Self::spawn(data_dir, settings);
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let mut urls = line.split_whitespace().filter_map(|word| word.strip_prefix("http://"));
        let (api, metrics) = match (urls.next(), urls.next()) {
            (Some(api), Some(metrics)) => (api.to_owned(), metrics.to_owned()),
            _ => panic!("did not start: {}", said(&mut process)),
        };
        Self { process, api, metrics }
    }

    /// Exit code and what was said, of a start that must fail.
    fn refuses(data_dir: &Path) -> (Option<i32>, String) {
        let mut process = Self::spawn(data_dir, &[]);
        let code = process.wait().unwrap().code();
        (code, said(&mut process))
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let (status, text) = http(&self.api, method, &format!("/api/v1{path}"), &body.to_string()).unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    fn make(&self) {
        let schema = json!({"vectors": {"v": {"dim": 2, "index": {"type": "flat"}}}});
        assert_eq!(self.ask("PUT", "/collections/c", &schema).0, 200);
    }

    fn put(&self, id: &str, more: Value) -> (u16, Value) {
        let mut body = json!({"points": [{"id": id, "vector": [1.0, 2.0], "payload": {"id": id}}]});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.ask("POST", "/collections/c/points", &body)
    }

    fn count(&self) -> u64 {
        let (status, answer) = self.ask("POST", "/collections/c/points/count", &json!({}));
        assert_eq!(status, 200, "{answer}");
        answer["count"].as_u64().unwrap()
    }

    fn has(&self, id: &str) -> bool {
        let (status, answer) = self.ask("POST", "/collections/c/points/get", &json!({"ids": [id]}));
        assert_eq!(status, 200, "{answer}");
        answer["points"].as_array().unwrap().len() == 1
    }

    fn metric(&self, name: &str) -> f64 {
        let (_, text) = http(&self.metrics, "GET", "/metrics", "").unwrap();
        let line = text.lines().find(|line| line.split([' ', '{']).next() == Some(name));
        let line = line.unwrap_or_else(|| panic!("no metric {name} in {text}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }

    /// SIGKILL: what the operating system has stays, and nothing else is done.
    fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Exit code and last words of a server that must end by itself.
    fn ends(&mut self) -> (Option<i32>, String) {
        let patience = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                return (status.code(), said(&mut self.process));
            }
            assert!(Instant::now() < patience, "the server goes on");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Fails if it ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn said(process: &mut Child) -> String {
    let mut text = String::new();
    process.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    text
}

fn http(addr: &str, method: &str, path: &str, body: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(addr)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nhost: {addr}\r\nconnection: close\r\ncontent-type: application/json\r\n\
         accept-encoding: identity\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    Ok((status, body.to_owned()))
}

/// The log that holds the most.
fn log_file(data_dir: &Path) -> PathBuf {
    let files = std::fs::read_dir(data_dir.join("db"))
        .unwrap()
        .map(|e| e.unwrap().path());
    let logs = files.filter(|path| path.extension().is_some_and(|e| e == "log"));
    logs.max_by_key(|path| path.metadata().unwrap().len()).unwrap()
}

#[test]
fn a_torn_end_is_cut_and_reported_and_only_what_was_not_synced_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &["engine.async_window_ms=60000"]);
    server.make();
    for i in 0..10 {
        let (status, answer) = server.put(&format!("s{i}"), json!({}));
        assert_eq!((status, answer["durability"].as_str()), (200, Some("sync")));
    }
    let synced = log_file(dir.path()).metadata().unwrap().len();
    for i in 0..10 {
        let (status, answer) = server.put(&format!("a{i}"), json!({"durability": "async"}));
        assert_eq!((status, answer["durability"].as_str()), (200, Some("async")));
    }
    assert!(server.metric("cairn_unsynced_records") == 10.0 && server.metric("cairn_unsynced_bytes") > 0.0);
    assert!(server.metric("cairn_wal_fsyncs_total") >= 11.0);
    server.kill();

    // The process alone takes nothing with it.
    let log = log_file(dir.path());
    let whole = std::fs::read(&log).unwrap();
    let image = dir.path().join("image");
    copy(&dir.path().join("db"), &image.join("db"));
    let server = Server::start(dir.path(), &[]);
    assert_eq!((server.count(), server.metric("cairn_wal_dropped_bytes")), (20, 0.0));
    drop(server);

    // A loss of power takes a suffix of what was not synced: here, from the middle of a record on.
    let cut = synced as usize + (whole.len() - synced as usize) / 2 + 20;
    std::fs::write(image.join("db").join(log.file_name().unwrap()), &whole[..cut]).unwrap();
    let server = Server::start(&image, &[]);
    assert!(server.metric("cairn_wal_dropped_bytes") > 0.0);
    assert_eq!(std::fs::read_dir(image.join("dropped-log")).unwrap().count(), 1);
    assert!((0..10).all(|i| server.has(&format!("s{i}"))), "a synced write is gone");
    let left = (0..10).take_while(|i| server.has(&format!("a{i}"))).count();
    assert!(
        (3..=6).contains(&left) && server.count() == 10 + left as u64,
        "{left}: not a prefix"
    );
    server.kill();
    let again = Server::start(&image, &[]);
    assert_eq!(
        (again.count(), again.metric("cairn_wal_dropped_bytes")),
        (10 + left as u64, 0.0)
    );
}

#[test]
fn a_changed_log_is_refused_by_name_unless_it_is_its_very_end_which_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    server.make();
    let text = "x".repeat(50_000);
    let mut ends = Vec::new();
    for i in 0..4 {
        assert_eq!(
            server
                .put(
                    &format!("p{i}"),
                    json!({"request_id": format!("r{i}"), "points": [
            {"id": format!("p{i}"), "vector": [1.0, 2.0], "payload": {"text": text}}]})
                )
                .0,
            200
        );
        ends.push(log_file(dir.path()).metadata().unwrap().len() as usize);
    }
    server.kill();
    let log = log_file(dir.path());
    let whole = std::fs::read(&log).unwrap();
    let mut flipped = whole.clone();
    flipped[ends[1] + 30_000] ^= 0x10;
    std::fs::write(&log, &flipped).unwrap();
    let (code, said) = Server::refuses(dir.path());
    assert_eq!(code, Some(1), "{said}");
    for part in [
        log.to_str().unwrap(),
        "is damaged at byte",
        "restore it from a copy or a snapshot",
    ] {
        assert!(said.contains(part), "{part:?} is not in {said}");
    }
    assert_eq!(std::fs::read(&log).unwrap(), flipped, "it was left as it was");

    let mut flipped = whole;
    flipped[ends[2] + 30_000] ^= 0x10;
    std::fs::write(&log, &flipped).unwrap();
    let server = Server::start(dir.path(), &[]);
    assert_eq!(server.count(), 3);
    assert_eq!(server.metric("cairn_wal_dropped_bytes") as usize, ends[3] - ends[2]);
}

#[test]
fn a_repeated_request_is_done_once_across_a_kill_in_both_kinds_of_write() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    assert_eq!(server.ask("PUT", "/collections/docs", &json!({})).0, 200);
    server.make();
    let documents = json!({"request_id": "d-1", "documents": [
        {"id": "a", "text": "# Raft\n\nA candidate becomes leader when a majority votes for it.", "format": "markdown"},
        {"id": "b", "text": "Green tea is brewed with water of seventy degrees."}]});
    let put = |server: &Server| server.ask("POST", "/collections/docs/documents", &documents);
    let (status, first) = put(&server);
    assert_eq!(
        (status, &first["results"][0]["replayed"]),
        (200, &json!(false)),
        "{first}"
    );
    let (_, point) = server.put("p", json!({"request_id": "p-1"}));
    // Somebody else replaces one of them meanwhile.
    let other = json!({"documents": [{"id": "b", "text": "Black tea is brewed with boiling water."}]});
    assert_eq!(server.ask("POST", "/collections/docs/documents", &other).0, 200);
    let check = |server: &Server| {
        let (status, again) = put(server);
        assert_eq!((status, &again["token"]), (200, &first["token"]));
        for (now, then) in again["results"]
            .as_array()
            .unwrap()
            .iter()
            .zip(first["results"].as_array().unwrap())
        {
            let mut then = then.clone();
            then["replayed"] = json!(true);
            assert_eq!(now, &then);
        }
        let (_, stored) = server.ask("GET", "/collections/docs/documents?id=b&with_chunks=true", &Value::Null);
        assert!(
            stored["chunks"][0]["payload"]["text"]
                .as_str()
                .unwrap()
                .starts_with("Black"),
            "{stored}"
        );
        let (_, again) = server.put("p", json!({"request_id": "p-1"}));
        assert_eq!((&again["token"], &again["replayed"]), (&point["token"], &json!(true)));
        let (status, reused) = server.put("q", json!({"request_id": "p-1"}));
        assert_eq!(
            (status, reused["code"].as_str()),
            (409, Some("request_id_reused")),
            "{reused}"
        );
    };
    check(&server);
    assert!(server.metric("cairn_replayed_requests_total") >= 3.0);
    server.kill();
    check(&Server::start(dir.path(), &[]));
}

/// Every fdatasync of a running server fails, as on a dying disk.
#[test]
fn a_failed_fsync_ends_the_process_and_nothing_is_answered_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path(), &[]);
    server.make();
    assert_eq!(server.put("acked", json!({})).0, 200);
    let strace = Command::new("strace")
        .args([
            "-f",
            "-e",
            "trace=fdatasync",
            "-e",
            "inject=fdatasync:error=EIO",
            "-o",
            "/dev/null",
            "-p",
        ])
        .arg(server.process.id().to_string())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut strace) = strace else {
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED: there is no strace here, so no fsync can be made to fail"
        );
        return;
    };
    let mut attached = String::new();
    BufReader::new(strace.stderr.take().unwrap())
        .read_line(&mut attached)
        .unwrap();
    if !attached.contains("attached") {
        let _ = writeln!(std::io::stderr(), "SKIPPED: strace may not attach here: {attached}");
        return;
    }
    let (status, answer) = server.put("lost", json!({}));
    assert_eq!(status, 500, "{answer}");
    // Whoever asks until the end gets no success.
    while let Ok((status, _)) = http(
        &server.api,
        "POST",
        "/api/v1/collections/c/points",
        r#"{"points": [{"id": "later", "vector": [1.0, 2.0]}]}"#,
    ) {
        assert_ne!(status, 200);
        std::thread::sleep(Duration::from_millis(10));
    }
    let (code, said) = server.ends();
    let _ = strace.wait();
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("the engine stops") && said.contains("Input/output error"),
        "{said}"
    );
    let server = Server::start(dir.path(), &[]);
    assert!(server.has("acked") && !server.has("later"));
    assert_eq!(server.put("later", json!({})).0, 200);
}

// ---- a full disk ----

/// RocksDB reserves as much for its log as its buffers take: on these disks they must be small.
const SMALL: &str = "engine.low_memory=true";

/// A disk of 96 MiB in memory; unmounted when dropped.
struct Disk(tempfile::TempDir);

impl Disk {
    fn new() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=96m", "tmpfs"])
            .arg(dir.path())
            .status();
        if !mounted.is_ok_and(|status| status.success()) {
            let _ = writeln!(
                std::io::stderr(),
                "SKIPPED: a tmpfs cannot be mounted here, so no disk can be filled"
            );
            return None;
        }
        Some(Self(dir))
    }

    fn data(&self) -> PathBuf {
        self.0.path().join("data")
    }

    /// Leaves about this much free.
    fn leave(&self, bytes: u64) {
        let free = Command::new("df")
            .args(["--output=avail", "-B1"])
            .arg(self.0.path())
            .output()
            .unwrap();
        let free: u64 = String::from_utf8(free.stdout)
            .unwrap()
            .lines()
            .nth(1)
            .unwrap()
            .trim()
            .parse()
            .unwrap();
        let ballast = vec![7; free.saturating_sub(bytes) as usize];
        std::fs::write(self.0.path().join("ballast"), ballast).unwrap();
    }

    fn free(&self) {
        std::fs::remove_file(self.0.path().join("ballast")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // A mount that stays would keep the directory from being removed; nothing else depends on it.
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

/// Writes half megabytes until one is refused. Which were answered with success, and the refusal.
fn fill(server: &Server, prefix: &str) -> (Vec<String>, (u16, Value)) {
    let mut acked = Vec::new();
    for i in 0..1_000 {
        let id = format!("{prefix}{i}");
        let text: String = (0..500_000)
            .map(|n: u32| char::from(33 + (n.wrapping_mul(n ^ i) % 90) as u8))
            .collect();
        let answer = server.put(
            &id,
            json!({"points": [{"id": id, "vector": [1.0, 2.0], "payload": {"text": text}}]}),
        );
        match answer.0 {
            200 => acked.push(id),
            _ => return (acked, answer),
        }
    }
    panic!("nothing was refused");
}

#[test]
fn writes_stop_before_the_disk_is_full_reads_go_on_and_writes_come_back_with_room() {
    let Some(disk) = Disk::new() else { return };
    let server = Server::start(&disk.data(), &[SMALL, "engine.disk_reserve_bytes=25000000"]);
    server.make();
    disk.leave(40_000_000);
    let (acked, (status, refusal)) = fill(&server, "p");
    assert_eq!(
        (status, refusal["code"].as_str()),
        (429, Some("disk_full")),
        "{refusal}"
    );
    assert!(acked.len() > 3, "{acked:?}");
    assert_eq!(server.metric("cairn_disk_full"), 1.0);
    assert_eq!(server.count(), acked.len() as u64);
    let gone = server.ask("POST", "/collections/c/points/delete", &json!({"ids": [acked[0]]}));
    assert_eq!(gone.0, 200, "what makes room may use the reserve: {}", gone.1);
    disk.free();
    assert_eq!(server.put("again", json!({})).0, 200);
    assert_eq!(server.metric("cairn_disk_full"), 0.0);
    assert_eq!(server.count(), acked.len() as u64);
}

#[test]
fn a_disk_that_fills_all_the_same_loses_and_invents_nothing() {
    let Some(disk) = Disk::new() else { return };
    let mut server = Server::start(&disk.data(), &[SMALL, "engine.disk_reserve_bytes=1"]);
    server.make();
    disk.leave(9_000_000);
    let (acked, (status, refusal)) = fill(&server, "p");
    assert!(
        acked.len() > 3 && [429, 500, 503].contains(&status),
        "{status} {refusal}"
    );
    disk.free();
    // A write or flush that failed half-way ends the process, at once or with the next write, before there is room again. A
    // write that was refused before it began does not.
    let patience = Instant::now() + PATIENCE;
    let point = json!({"points": [{"id": "again", "vector": [1.0, 2.0]}]}).to_string();
    let mut ended = false;
    while !matches!(
        http(&server.api, "POST", "/api/v1/collections/c/points", &point),
        Ok((200, _))
    ) {
        assert!(Instant::now() < patience, "writes do not come back");
        std::thread::sleep(Duration::from_millis(100));
        if let Some(status) = server.process.try_wait().unwrap() {
            assert!(!ended, "it ends again, with room");
            ended = true;
            let said = said(&mut server.process);
            assert_eq!(status.code(), Some(1), "{said}");
            assert!(said.contains("No space left on device"), "{said}");
            server = Server::start(&disk.data(), &[SMALL]);
        }
    }
    assert!(acked.iter().all(|id| server.has(id)), "an answered write is gone");
    server.kill();
    let server = Server::start(&disk.data(), &[SMALL]);
    assert!(
        acked.iter().all(|id| server.has(id)),
        "an answered write is gone after a restart"
    );
    // The one without success may be there if it failed on the way, and nothing else.
    let more = server.count() - acked.len() as u64 - 1;
    assert!(
        more == 0 || (more == 1 && status != 429),
        "{more} points that nobody wrote"
    );
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}
