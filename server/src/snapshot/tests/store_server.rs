//! Servers that speak the protocols of stores, processes of their own, for the tests here and for `server/tests/snapshots.rs`:
//! moto for S3's, Azurite for Azure's.
//!
//! They are installed by `scripts/s3.sh` and `scripts/azurite.sh`; without one, whoever starts it says so and checks nothing.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The bucket, or container, that each has.
pub(crate) const BUCKET: &str = "backups";

/// The account that Azurite has, and its key: both are published with it.
pub(crate) const ACCOUNT: &str = "devstoreaccount1";
pub(crate) const ACCOUNT_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// Makes a container of [`ACCOUNT`], signed with its key: who may create containers, until 2999.
const CREATE_CONTAINER: &str = "restype=container&sv=2023-11-03&ss=b&srt=c&sp=c&se=2999-01-01&sig=BeDTEr%2BCLazYNeLUbnk0kvdoQzgNZLfb2y8XDRWXJHA%3D";

/// A server with a bucket [`BUCKET`]; ends with its value.
pub(crate) struct StoreServer {
    process: Child,
    pub(crate) port: u16,
}

impl Drop for StoreServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl StoreServer {
    /// None if it is not installed.
    pub(crate) fn s3() -> Option<Self> {
        let venv = place("S3_TEST_VENV", ".cache/cairn/s3-venv")?;
        if !venv.join("complete").is_file() {
            return skipped("no S3 server", &venv, "scripts/s3.sh");
        }
        let mut command = Command::new(venv.join("bin/python"));
        command.args(["-m", "moto.server", "-H", "127.0.0.1", "-p"]);
        Some(Self::start(command, &format!("/{BUCKET}")))
    }

    /// None if it is not installed.
    pub(crate) fn azurite() -> Option<Self> {
        let program = place("AZURITE", ".cache/cairn/azurite/node_modules/.bin/azurite-blob")?;
        // What an installation that broke off has left does not run; a program that a variable names is complete.
        let broke_off = std::env::var_os("AZURITE").is_none()
            && program
                .ancestors()
                .nth(3)
                .is_none_or(|dir| !dir.join("complete").is_file());
        if !program.is_file() || broke_off {
            return skipped("no Azurite", &program, "scripts/azurite.sh");
        }
        let mut command = Command::new(program);
        // Without the option it reports its use to its makers.
        command.args(["--disableTelemetry", "--inMemoryPersistence", "--silent"]);
        command.args(["--blobHost", "127.0.0.1", "--blobPort"]);
        Some(Self::start(command, &format!("/{ACCOUNT}/{BUCKET}?{CREATE_CONTAINER}")))
    }

    /// Starts what takes a port as its last argument, and waits until it has made a bucket.
    fn start(mut command: Command, bucket: &str) -> Self {
        let port = std::net::TcpListener::bind(("127.0.0.1", 0))
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let process = command
            .arg(port.to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self { process, port };
        let patience = Instant::now() + Duration::from_secs(60);
        while Instant::now() < patience {
            if put(port, bucket).is_ok_and(|answer| answer.starts_with("HTTP/1.1 20")) {
                return server;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("the server of {bucket} does not come up");
    }
}

/// Where something is installed: a variable says it, or it is in the cache.
fn place(variable: &str, cached: &str) -> Option<PathBuf> {
    let cached = || Some(PathBuf::from(std::env::var_os("HOME")?).join(cached));
    std::env::var_os(variable).map(PathBuf::from).or_else(cached)
}

fn skipped(what: &str, place: &Path, script: &str) -> Option<StoreServer> {
    let _ = writeln!(
        std::io::stderr(),
        "\n******** SKIPPED: {what} in {} ({script} installs it) ********\n",
        place.display()
    );
    None
}

fn put(port: u16, path: &str) -> std::io::Result<String> {
    use std::io::Read;
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port))?;
    let head = format!("PUT {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
