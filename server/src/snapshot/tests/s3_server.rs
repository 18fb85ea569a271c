//! A server that speaks S3's protocol (moto, a process of its own), for the tests here and for `server/tests/snapshots.rs`.
//!
//! It is installed by `scripts/s3.sh`; without it whoever starts it says so and checks nothing.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The bucket that it has.
pub(crate) const BUCKET: &str = "backups";

/// moto, with a bucket [`BUCKET`]; ends with its value.
pub(crate) struct S3 {
    process: Child,
    pub(crate) port: u16,
}

impl Drop for S3 {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl S3 {
    /// None if it is not installed.
    pub(crate) fn start() -> Option<Self> {
        let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache/cairn/s3-venv"));
        let venv = std::env::var_os("S3_TEST_VENV").map(PathBuf::from).or_else(home)?;
        if !venv.join("complete").is_file() {
            let _ = writeln!(
                std::io::stderr(),
                "\n******** SKIPPED: no S3 server in {} (scripts/s3.sh installs it) ********\n",
                venv.display()
            );
            return None;
        }
        let port = std::net::TcpListener::bind(("127.0.0.1", 0))
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let python = venv.join("bin/python");
        let process = Command::new(python)
            .args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &port.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self { process, port };
        let patience = Instant::now() + Duration::from_secs(60);
        while Instant::now() < patience {
            if put_bucket(port).is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")) {
                return Some(server);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("the S3 server does not come up");
    }
}

fn put_bucket(port: u16) -> std::io::Result<String> {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port))?;
    let head = format!("PUT /{BUCKET} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
