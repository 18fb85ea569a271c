//! The real server as a child process: started on free ports, asked when it is ready, killed when it is dropped.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use cairn_client::{Client, Retry};

/// How long a server may take to open its data.
const READY_WAIT: Duration = Duration::from_secs(180);
/// How long a server may take to drain and flush.
const STOP_WAIT: Duration = Duration::from_secs(60);

/// The server's program: `CAIRN_BIN`, else `cairn` of the build that this program is of, so that both are of one profile.
fn binary() -> anyhow::Result<PathBuf> {
    let path = match std::env::var_os("CAIRN_BIN") {
        Some(path) => PathBuf::from(path),
        None => {
            let here = std::env::current_exe()?;
            let mut dir = here.parent().context("a program is in a directory")?;
            // Tests are one further down than programs.
            if dir.ends_with("deps") {
                dir = dir.parent().unwrap_or(dir);
            }
            dir.join("cairn")
        }
    };
    ensure!(
        path.is_file(),
        "no server at {}: build it (cargo build --workspace --bins), or name it with CAIRN_BIN",
        path.display()
    );
    Ok(path)
}

/// The built `cairn`, to be run. It takes CAIRN_... for its configuration and refuses what it does not know, so those stay here.
pub fn cairn() -> anyhow::Result<Command> {
    let mut command = Command::new(binary()?);
    for (key, _) in std::env::vars_os() {
        if key.to_string_lossy().starts_with("CAIRN_") {
            command.env_remove(key);
        }
    }
    Ok(command)
}

/// A running `cairn serve`.
pub struct Server {
    child: Child,
    /// `127.0.0.1:port` of REST and gRPC.
    pub addr: String,
    metrics_addr: String,
    /// From the start of the process until it said that it listens.
    pub ready_s: f64,
}

/// How to start one. Every start uses the same data directory and settings.
#[derive(Clone)]
pub struct Launch {
    data_dir: PathBuf,
    settings: Vec<String>,
    config: Option<PathBuf>,
    log: PathBuf,
}

/// Memory of a process, as the kernel counts it.
#[derive(Clone, Copy)]
pub struct Memory {
    /// Resident bytes now.
    pub rss: u64,
    /// The most they ever were.
    pub peak: u64,
    /// Those of `rss` that are not pages of files: what the process itself needs.
    pub anonymous: u64,
}

impl Launch {
    /// Data in `dir/data`, logs appended to `dir/server.log`; `settings` are `key=value`.
    pub fn new(dir: &Path, settings: &[&str]) -> Self {
        Self::at(&dir.join("data"), &dir.join("server.log"), settings)
    }

    /// Data in `data_dir`, logs appended to `log`.
    pub fn at(data_dir: &Path, log: &Path, settings: &[&str]) -> Self {
        Self {
            data_dir: data_dir.to_owned(),
            settings: settings.iter().map(|s| (*s).to_owned()).collect(),
            config: None,
            log: log.to_owned(),
        }
    }

    /// With this configuration file.
    pub fn config(mut self, path: &Path) -> Self {
        self.config = Some(path.to_path_buf());
        self
    }

    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// The end of the server's log, for when something is wrong.
    pub fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// Starts the process without waiting for it to be ready.
    pub fn spawn(&self) -> anyhow::Result<Unready> {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(&self.log)?;
        let mut command = cairn()?;
        command.args([
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--metrics-listen",
            "127.0.0.1:0",
            "--data-dir",
        ]);
        command.arg(&self.data_dir);
        if let Some(path) = &self.config {
            command.arg("--config").arg(path);
        }
        for setting in &self.settings {
            command.args(["--set", setting]);
        }
        let started = Instant::now();
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).spawn();
        let mut child = child.context("cannot start the server")?;
        let stdout = child.stdout.take().context("the server has no standard output")?;
        let (said, hears) = mpsc::channel();
        // Ends with the process, whose pipe it reads.
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // Nobody may be listening any more.
                let _ = said.send((line, started.elapsed().as_secs_f64()));
            }
        });
        Ok(Unready {
            child: Some(child),
            hears,
            launch: self.clone(),
        })
    }

    /// Starts it and waits until it answers.
    pub fn start(&self) -> anyhow::Result<Server> {
        self.spawn()?.ready()
    }
}

/// The context of an error of a server that did not end in an orderly way: it panicked, was ended by a signal, or hung.
#[derive(Debug)]
pub struct Failed;

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a failure, and no refusal")
    }
}

/// Whether a process ended by itself and said so: neither by a signal nor by a panic.
pub fn is_refusal(status: ExitStatus) -> bool {
    status.code().is_some_and(|code| code != 101)
}

/// A server that may still be replaying its log. Killed when dropped.
pub struct Unready {
    child: Option<Child>,
    hears: mpsc::Receiver<(String, f64)>,
    launch: Launch,
}

impl Unready {
    pub fn ready(mut self) -> anyhow::Result<Server> {
        let tail = |what: &str| anyhow::anyhow!("{what}; its log ends:\n{}", self.launch.log_tail());
        let deadline = Instant::now() + READY_WAIT;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let (line, ready_s) = match self.hears.recv_timeout(left) {
                Ok(said) => said,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    return Err(tail("the server was not ready in time").context(Failed));
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    // Its output is closed: it has ended, or is about to.
                    let mut child = self.child.take().context("the server was taken already")?;
                    let status = child.wait()?;
                    let said = tail(&format!("the server ended before it was ready, with {status}"));
                    return Err(if is_refusal(status) { said } else { said.context(Failed) });
                }
            };
            let word = |after: &str| {
                let (_, rest) = line.split_once(after)?;
                rest.split_whitespace().next().map(str::to_owned)
            };
            if let (Some(addr), Some(metrics_addr)) = (word("listening on http://"), word("metrics http://")) {
                let child = self.child.take().context("the server was taken already")?;
                return Ok(Server {
                    child,
                    addr,
                    metrics_addr,
                    ready_s,
                });
            }
        }
    }
}

impl Unready {
    /// As [`Self::ready`], and the most memory that the process itself needed until then: resident bytes that are not pages of files,
    /// looked at every millisecond.
    pub fn ready_watched(self) -> anyhow::Result<(Server, u64)> {
        let process = self.child.as_ref().context("the server was taken already")?.id();
        let is_ready = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let watched = scope.spawn(|| {
                let mut most = 0;
                while !is_ready.load(Ordering::Relaxed) {
                    // Until it is a process of its own there is nothing to read.
                    most = memory(process).map_or(most, |now| most.max(now.anonymous));
                    std::thread::sleep(Duration::from_millis(1));
                }
                most
            });
            let server = self.ready();
            is_ready.store(true, Ordering::Relaxed);
            let most = watched.join().map_err(|_| anyhow::anyhow!("the watcher panicked"))?;
            Ok((server?, most))
        })
    }
}

impl Drop for Unready {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            kill(child);
        }
    }
}

/// Processor time that a process has used, of all its threads.
pub fn cpu_seconds(process: u32) -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    // Behind the name in parentheses, which may hold anything: fields 3 and on; 14 and 15 are user and system time.
    let (_, fields) = stat.rsplit_once(')').context("no name in /proc/PID/stat")?;
    let ticks: Vec<u64> = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|t| t.parse().ok())
        .collect();
    ensure!(ticks.len() == 2, "no times in /proc/PID/stat");
    // The unit is 1/100 s on every Linux: USER_HZ is part of its interface.
    Ok(ticks.iter().sum::<u64>() as f64 / 100.0)
}

fn memory(process: u32) -> anyhow::Result<Memory> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let kib = |key: &str| {
        let line = status.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(':'));
        line.and_then(|l| l.trim().trim_end_matches(" kB").parse::<u64>().ok())
            .unwrap_or(0)
    };
    Ok(Memory {
        rss: kib("VmRSS") << 10,
        peak: kib("VmHWM") << 10,
        anonymous: kib("RssAnon") << 10,
    })
}

impl Server {
    /// A client that waits and retries, for measuring.
    pub async fn client(&self) -> anyhow::Result<Client> {
        let builder = Client::builder(format!("http://{}", self.addr)).timeout(Duration::from_secs(120));
        Ok(builder.connect().await?)
    }

    /// A client whose every failure is seen: it never sends anything twice.
    pub async fn client_without_retries(&self) -> anyhow::Result<Client> {
        let retry = Retry {
            retries: 0,
            ..Retry::default()
        };
        let builder = Client::builder(format!("http://{}", self.addr))
            .timeout(Duration::from_secs(30))
            .retry(retry);
        Ok(builder.connect().await?)
    }

    /// SIGKILL: nothing is flushed, nothing is said.
    pub fn kill(mut self) {
        kill(&mut self.child);
    }

    /// SIGTERM, and waits until the server has drained and flushed.
    pub fn stop(mut self) -> anyhow::Result<f64> {
        let started = Instant::now();
        let sent = Command::new("kill")
            .args(["-TERM", &self.child.id().to_string()])
            .status()?;
        ensure!(sent.success(), "cannot signal the server");
        if let Some(status) = self.wait_end(STOP_WAIT) {
            ensure!(status.success(), "the server ended with {status}");
            return Ok(started.elapsed().as_secs_f64());
        }
        bail!("the server did not stop within {STOP_WAIT:?}")
    }

    pub fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for the process to end by itself; none if it does not.
    pub fn wait_end(&mut self, patience: Duration) -> Option<ExitStatus> {
        let started = Instant::now();
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Some(status);
            }
            if started.elapsed() > patience {
                return None;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Processor time that the process has used, of all its threads.
    pub fn cpu_seconds(&self) -> anyhow::Result<f64> {
        cpu_seconds(self.child.id())
    }

    pub fn memory(&self) -> anyhow::Result<Memory> {
        memory(self.child.id())
    }

    /// Bytes that the process has had written to disks: pages that it dirtied, without those that were gone again before they
    /// were written.
    pub fn written(&self) -> anyhow::Result<u64> {
        let io = std::fs::read_to_string(format!("/proc/{}/io", self.child.id()))?;
        let number = |key: &str| {
            let line = io.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(": "));
            line.and_then(|l| l.parse::<u64>().ok())
                .with_context(|| format!("no {key} in /proc/PID/io"))
        };
        Ok(number("write_bytes")?.saturating_sub(number("cancelled_write_bytes")?))
    }

    /// A number that the server tells its operator.
    pub fn metric(&self, name: &str) -> anyhow::Result<f64> {
        metric(&self.metrics_addr, name)
    }

    pub fn metrics_addr(&self) -> &str {
        &self.metrics_addr
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        kill(&mut self.child);
    }
}

fn kill(child: &mut Child) {
    // Both fail only if the process is gone already.
    let _ = child.kill();
    let _ = child.wait();
}

/// A gauge or counter without labels, from `/metrics`.
pub fn metric(metrics_addr: &str, name: &str) -> anyhow::Result<f64> {
    let (status, body) = rest(metrics_addr, "GET", "/metrics", &[], b"")?;
    ensure!(status == 200, "/metrics answered {status}");
    let text = String::from_utf8_lossy(&body);
    let value = text
        .lines()
        .find_map(|l| l.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
    value.with_context(|| format!("/metrics has no {name}"))
}

/// One HTTP/1.1 request with exactly these bytes, and the answer's status and body. As plain as can be, because it must be able to send
/// what no well-behaved client would.
pub fn rest(
    addr: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> anyhow::Result<(u16, Vec<u8>)> {
    let mut stream = TcpStream::connect(addr)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    stream.set_nodelay(true)?;
    let mut request = format!("{method} {path} HTTP/1.1\r\nhost: {addr}\r\nconnection: close\r\n");
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    if !headers
        .iter()
        .any(|(name, _)| name.eq_ignore_ascii_case("content-length"))
    {
        request.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    request.push_str("\r\n");
    // The server may refuse by the head alone and close: then its answer counts, not the broken pipe.
    let _ = stream
        .write_all(request.as_bytes())
        .and_then(|()| stream.write_all(body));
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    let head_end = answer.windows(4).position(|w| w == b"\r\n\r\n");
    let Some(head_end) = head_end else {
        read?;
        bail!("the server closed the connection without an answer");
    };
    let head = String::from_utf8_lossy(&answer[..head_end]).into_owned();
    let status = head
        .split_whitespace()
        .nth(1)
        .and_then(|s| s.parse().ok())
        .context("no status line")?;
    let body = answer.split_off(head_end + 4);
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    Ok((status, if chunked { unchunked(&body) } else { body }))
}

fn unchunked(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = rest.windows(2).position(|w| w == b"\r\n") {
        let size = std::str::from_utf8(&rest[..end])
            .ok()
            .and_then(|s| usize::from_str_radix(s.trim(), 16).ok());
        let Some(size) = size.filter(|n| *n > 0) else { break };
        let from = end + 2;
        let Some(chunk) = rest.get(from..from + size) else {
            break;
        };
        body.extend_from_slice(chunk);
        rest = rest.get(from + size + 2..).unwrap_or_default();
    }
    body
}
