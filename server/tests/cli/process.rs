//! Processes of the binary: a server, and commands that run beside it.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

const CAIRN: &str = env!("CARGO_BIN_EXE_cairn");
/// How long a command is waited for that ends by itself; only what never does takes so long.
const ENDS_MAX: Duration = Duration::from_secs(300);

/// A command that sees no configuration of ours but what the test gives it.
pub(crate) fn cairn() -> Command {
    let mut command = Command::new(CAIRN);
    for (key, _) in std::env::vars().filter(|(key, _)| key.starts_with("CAIRN_")) {
        command.env_remove(key);
    }
    command
}

/// `cairn serve` on free ports; killed when dropped.
pub(crate) struct Server {
    process: Child,
    pub(crate) url: String,
    pub(crate) metrics_url: String,
}

impl Server {
    pub(crate) fn start(data_dir: &Path) -> Self {
        Self::start_with(data_dir, &[])
    }

    /// With more arguments.
    pub(crate) fn start_with(data_dir: &Path, more: &[&str]) -> Self {
        Self::spawn("127.0.0.1:0", data_dir, more)
    }

    /// On an address of the test's choice.
    pub(crate) fn start_on(address: &str, data_dir: &Path) -> Self {
        Self::spawn(address, data_dir, &[])
    }

    fn spawn(address: &str, data_dir: &Path, more: &[&str]) -> Self {
        let mut process = cairn()
            .args([
                "serve",
                "--listen",
                address,
                "--metrics-listen",
                "127.0.0.1:0",
                "--set",
                "log.filter=warn",
                "--data-dir",
            ])
            .arg(data_dir)
            .args(more)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let mut urls = line.split_whitespace().filter(|word| word.starts_with("http://"));
        let mut url = || urls.next().expect("the first line says where").to_owned();
        Self {
            process,
            url: url(),
            metrics_url: url(),
        }
    }

    /// The process.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    pub(crate) fn run(&self, args: &[&str]) -> Output {
        cairn().args(args).args(["--url", &self.url]).output().unwrap()
    }

    /// SIGTERM, as an orchestrator sends it, and the exit status after the drain.
    pub(crate) fn terminate(mut self) -> Option<i32> {
        let sent = Command::new("kill")
            .args(["-TERM", &self.process.id().to_string()])
            .status()
            .unwrap();
        assert!(sent.success());
        self.process.wait().unwrap().code()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Fails if it ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub(crate) fn code(output: &Output) -> i32 {
    output.status.code().expect("not killed")
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

pub(crate) fn json(output: &Output) -> Value {
    assert_eq!(code(output), 0, "{}", stderr(output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Runs until it is ended; killed when dropped.
pub(crate) struct Running(pub(crate) Child);

impl Running {
    /// SIGINT, as Ctrl-C sends it: how it ended, and what it printed.
    pub(crate) fn interrupt(mut self) -> (Option<i32>, String) {
        let sent = Command::new("kill")
            .args(["-INT", &self.0.id().to_string()])
            .status()
            .unwrap();
        assert!(sent.success());
        let mut printed = String::new();
        self.0.stdout.take().unwrap().read_to_string(&mut printed).unwrap();
        (self.0.wait().unwrap().code(), printed)
    }

    /// How it ended by itself, and what it printed to the pipes that it has.
    pub(crate) fn output(mut self) -> Output {
        let (stdout, stderr) = (all_of(self.0.stdout.take()), all_of(self.0.stderr.take()));
        let ends = Instant::now() + ENDS_MAX;
        let status = loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < ends, "it ends");
            std::thread::sleep(Duration::from_millis(20));
        };
        Output {
            status,
            stdout: stdout.join().unwrap(),
            stderr: stderr.join().unwrap(),
        }
    }
}

/// Read beside the process, which would wait with a full pipe.
fn all_of(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut all = Vec::new();
        if let Some(mut pipe) = pipe {
            pipe.read_to_end(&mut all).unwrap();
        }
        all
    })
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
