//! A PDF is read in a process of its own, so that no file can take the server's memory or time.
//!
//! Some kilobytes of PDF can stand for gigabytes of objects: an object stream may name one large array a thousand times, and
//! `lopdf` makes every object of a file before it hands out the first. Measured: 200 KB of file, 2.3 GiB and 10 seconds.
//! Nothing within a process bounds that, so the server starts its own program once more, as `cairn read-pdf`: the file goes
//! in, the text comes out. The system bounds its memory and its processor time, and it ends when nobody waits any more.
//!
//! It has no environment, opens no file and writes none. That is a bound on what a damaged or hostile file costs, no
//! sandbox for code.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::pdf::TEXT_BYTES_MAX;
use super::{ExtractError, Extracted};
use crate::rag::chunk::TextFormat;
use crate::rag::line::TITLE_CHARS_MAX;

/// What the command line calls the reading process.
pub const COMMAND: &str = "read-pdf";
/// Memory that one reading process may write: several times what the largest honest file of a request takes. Two of them
/// leave room for the server in a container of 2 GiB.
pub const MEMORY_BYTES_MAX: u64 = 512 << 20;
/// Processor time of one reading process. The deadline of a request is usually nearer.
pub const PROCESSOR_SECONDS_MAX: u64 = 60;
/// Reading processes at the same time; others wait.
pub const READERS_MAX: usize = 2;
/// How often it is looked whether somebody still waits.
const LOOK: Duration = Duration::from_millis(25);
/// An answer: one line about the text (a title's characters take 12 bytes at most, escaped), then the text.
const ANSWER_BYTES_MAX: usize = TEXT_BYTES_MAX + 12 * TITLE_CHARS_MAX + 4_096;

/// Where PDFs are read.
#[derive(Debug, Clone, Default)]
pub enum PdfReader {
    /// In this process. Fit for files of one's own: what a file takes is not bounded.
    #[default]
    Here,
    /// In processes of their own.
    Apart(Arc<Apart>),
}

/// How reading processes are started, and how many there are.
#[derive(Debug)]
pub struct Apart {
    program: PathBuf,
    arguments: Vec<OsString>,
    running: Mutex<usize>,
    ended: Condvar,
}

impl PdfReader {
    /// In processes of this program, which must understand [`COMMAND`].
    pub fn apart(program: PathBuf) -> Self {
        Self::Apart(Arc::new(Apart::new(program, vec![COMMAND.into()])))
    }

    /// The text of a file, as [`super::pdf`] reads it.
    pub fn read(&self, bytes: &[u8], stop: &dyn Fn() -> bool) -> Result<Extracted, ExtractError> {
        match self {
            Self::Here => super::pdf(bytes, stop),
            Self::Apart(apart) => apart.read(bytes, stop),
        }
    }
}

impl Apart {
    fn new(program: PathBuf, arguments: Vec<OsString>) -> Self {
        Self {
            program,
            arguments,
            running: Mutex::new(0),
            ended: Condvar::new(),
        }
    }

    fn read(&self, bytes: &[u8], stop: &dyn Fn() -> bool) -> Result<Extracted, ExtractError> {
        let _place = self.place(stop)?;
        let failed = |e: io::Error| ExtractError::Failed(format!("{}: {e}", self.program.display()));
        let child = Command::new(&self.program)
            .args(&self.arguments)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let mut child = Reaped(child.map_err(failed)?);
        let said = child.converse(bytes, stop)?.map_err(failed)?;
        let status = child.0.wait().map_err(failed)?;
        if status.success() {
            return heard(&said);
        }
        if status.code().is_some() {
            return Err(ExtractError::Failed(format!("the reading process says {status}")));
        }
        // A signal of the system, for what it took; a panic of the library is caught in there.
        Err(ExtractError::TooLarge(format!(
            "reading the PDF takes more than {} MiB of memory or {PROCESSOR_SECONDS_MAX} s of processor time ({status})",
            MEMORY_BYTES_MAX >> 20
        )))
    }

    /// Waits for its turn.
    fn place(&self, stop: &dyn Fn() -> bool) -> Result<Place<'_>, ExtractError> {
        let mut running = self.running.lock();
        while *running >= READERS_MAX {
            if stop() {
                return Err(ExtractError::Stopped);
            }
            self.ended.wait_for(&mut running, LOOK);
        }
        *running += 1;
        Ok(Place(self))
    }
}

/// One of the processes that may be there.
struct Place<'a>(&'a Apart);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        *self.0.running.lock() -= 1;
        self.0.ended.notify_one();
    }
}

/// A process that does not outlive the call.
struct Reaped(Child);

impl Drop for Reaped {
    fn drop(&mut self) {
        let _ended_already = self.0.kill();
        let _nothing_to_do = self.0.wait();
    }
}

impl Reaped {
    /// Gives it the file and takes what it says, until nobody waits any more. Both at once: it may speak before it has
    /// heard all.
    fn converse(&mut self, bytes: &[u8], stop: &dyn Fn() -> bool) -> Result<io::Result<Vec<u8>>, ExtractError> {
        let (Some(mut input), Some(output)) = (self.0.stdin.take(), self.0.stdout.take()) else {
            return Err(ExtractError::Failed("a reading process without pipes".to_owned()));
        };
        let (done, heard) = channel();
        std::thread::scope(|scope| {
            // Fails if it ends before it has heard all; its status says why.
            scope.spawn(move || drop(input.write_all(bytes)));
            scope.spawn(move || {
                let mut said = Vec::new();
                let read = output.take(ANSWER_BYTES_MAX as u64).read_to_end(&mut said);
                // Nobody listens any more if nobody waits.
                let _ = done.send(read.map(|_| said));
            });
            loop {
                match heard.recv_timeout(LOOK) {
                    Ok(said) => return Ok(said),
                    Err(RecvTimeoutError::Timeout) if stop() => {
                        // Closes its pipes, which ends both threads.
                        let _ended_already = self.0.kill();
                        return Err(ExtractError::Stopped);
                    }
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => {
                        return Err(ExtractError::Failed("nobody listened to a reading process".to_owned()));
                    }
                }
            }
        })
    }
}

/// The reading process: bounds itself, reads the file from its standard input, and says the text.
pub fn serve(input: impl Read, mut output: impl Write) -> io::Result<()> {
    bound_this_process()?;
    let mut bytes = Vec::new();
    { input }.read_to_end(&mut bytes)?;
    let read = super::pdf(&bytes, &|| false);
    let (about, text) = match read {
        Ok(read) => (Ok(read.title), read.text),
        Err(e) => (Err(e), String::new()),
    };
    serde_json::to_writer(&mut output, &about)?;
    output.write_all(b"\n")?;
    output.write_all(text.as_bytes())?;
    output.flush()
}

fn bound_this_process() -> io::Result<()> {
    for (resource, most) in [
        (Resource::Data, MEMORY_BYTES_MAX),
        (Resource::Cpu, PROCESSOR_SECONDS_MAX),
        // The three streams it has.
        (Resource::Nofile, 3),
        (Resource::Fsize, 0),
        (Resource::Core, 0),
    ] {
        // Nobody may raise what is lower already.
        let most = getrlimit(resource).maximum.map_or(most, |hard| hard.min(most));
        let limit = Rlimit {
            current: Some(most),
            maximum: Some(most),
        };
        setrlimit(resource, limit)?;
    }
    Ok(())
}

/// What a reading process said.
fn heard(said: &[u8]) -> Result<Extracted, ExtractError> {
    let wrong = || ExtractError::Failed("a reading process gave a wrong answer".to_owned());
    let end = said.iter().position(|&byte| byte == b'\n').ok_or_else(wrong)?;
    let about: Result<Option<String>, ExtractError> = serde_json::from_slice(&said[..end]).map_err(|_| wrong())?;
    let title = about?;
    let text = String::from_utf8(said[end + 1..].to_vec()).map_err(|_| wrong())?;
    Ok(Extracted {
        text,
        format: TextFormat::Plain,
        title,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    /// A reading process that does what a script says.
    fn shell(script: &str) -> Apart {
        Apart::new("/bin/sh".into(), vec!["-c".into(), script.into()])
    }

    fn read(apart: &Apart) -> Result<Extracted, ExtractError> {
        apart.read(&[b'x'; 1 << 20], &|| false)
    }

    #[test]
    fn what_the_process_says_is_the_answer() {
        let read_one = read(&shell(r#"cat >/dev/null; printf '{"Ok":"T"}\none\ntwo'"#)).unwrap();
        assert_eq!(
            (read_one.title.as_deref(), read_one.text.as_str()),
            (Some("T"), "one\ntwo")
        );
        // It need not listen to the end.
        let refused = read(&shell(r#"printf '{"Err":"Encrypted"}\n'"#));
        assert_eq!(refused, Err(ExtractError::Encrypted));
    }

    #[test]
    fn a_process_that_dies_or_lies_is_an_error() {
        for script in ["kill -9 $$", "kill -6 $$"] {
            let error = read(&shell(script)).unwrap_err();
            assert!(matches!(error, ExtractError::TooLarge(_)), "{script}: {error:?}");
        }
        for script in ["true", "exit 1", "echo nonsense", r#"printf '{"Ok":null}\n\377'"#] {
            let error = read(&shell(script)).unwrap_err();
            assert!(matches!(error, ExtractError::Failed(_)), "{script}: {error:?}");
        }
        let missing = Apart::new("/no/such/program".into(), Vec::new());
        assert!(matches!(read(&missing), Err(ExtractError::Failed(_))));
    }

    #[test]
    fn it_ends_when_nobody_waits_and_leaves_its_place() {
        let apart = shell("exec sleep 600");
        let began = Instant::now();
        for _ in 0..=READERS_MAX {
            let stop = || began.elapsed() > Duration::from_millis(50);
            assert_eq!(apart.read(b"x", &stop), Err(ExtractError::Stopped));
        }
        assert!(began.elapsed() < Duration::from_secs(60));
        // All places taken: who waits for one may stop waiting.
        let _taken: Vec<_> = (0..READERS_MAX).map(|_| apart.place(&|| false).unwrap()).collect();
        assert!(matches!(apart.place(&|| true), Err(ExtractError::Stopped)));
    }
}
