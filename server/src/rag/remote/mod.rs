//! One service that runs a model, asked over HTTP: what embedders and rerankers of that kind share.
//!
//! A request may fail for reasons that pass (no connection, 408, 429, 5xx, a broken or late answer): it is sent again
//! after a wait with jitter, not before the service's `Retry-After`, as often as configured and as long as the caller's
//! patience lasts. Other refusals are answered at once. So many requests at a time, so many bytes of an answer, and no
//! requests at all for a while after too many failures in a row ([`breaker`]). The key is read once at start, sent as a
//! bearer token, and appears in no message and no log. No redirect is followed (it would carry the texts elsewhere), and
//! no proxy of the environment is used.
//!
//! What is *not* promised: that the service did nothing when a request failed. Embedding twice costs, but harms nobody.

mod backoff;
mod breaker;
mod bridge;

use std::error::Error as _;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use parking_lot::Mutex;
use reqwest::{Certificate, Client, StatusCode, redirect};
use serde_json::Value;
use tokio::sync::{Semaphore, SemaphorePermit};

use self::breaker::{Breaker, Pass};
pub(crate) use self::bridge::Bridge;
use super::line::one_line;
use super::patience::{OutOfPatience, Patience};
use crate::telemetry::{ModelCall, ModelRole};

/// How long a connection may take to be made; less if a whole request may take less.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// Bytes of an error's body that are read: enough for its message.
const REFUSAL_BYTES_MAX: usize = 64 << 10;
/// Characters of a service's own words in our messages.
const SAID_CHARS_MAX: usize = 300;
/// Bytes of a key file: a key is a line.
const KEY_BYTES_MAX: u64 = 16 << 10;

/// A service, and what we know of how it is doing.
pub(crate) struct Remote {
    role: ModelRole,
    name: String,
    /// Without a slash at its end.
    url: String,
    client: Client,
    key: Option<Key>,
    timeout: Duration,
    retries: u32,
    /// Requests at the same time.
    concurrency: usize,
    places: Semaphore,
    breaker: Mutex<Breaker>,
    /// Requests that failed, ever.
    troubles: AtomicU64,
}

/// What a service is made of; see `config::models`.
pub(crate) struct Settings<'a> {
    pub(crate) role: ModelRole,
    pub(crate) name: &'a str,
    pub(crate) url: &'a str,
    pub(crate) api_key_env: Option<&'a str>,
    pub(crate) api_key_file: Option<&'a Path>,
    pub(crate) ca_file: Option<&'a Path>,
    pub(crate) timeout_ms: u64,
    pub(crate) concurrency: usize,
    pub(crate) retries: u32,
}

/// One question to a service.
pub(crate) struct Ask<'a> {
    /// Below the service's url, with its slash.
    pub(crate) path: &'a str,
    /// JSON to post; none to get.
    pub(crate) body: Option<Bytes>,
    /// A longer answer is refused unread.
    pub(crate) answer_bytes_max: usize,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CallError {
    /// The service refuses what it was given; it would again.
    Rejected(String),
    /// The service cannot be reached or cannot answer now.
    Unavailable(String, Option<Duration>),
    /// The service answers something else than it should, or refuses us whatever we ask.
    BadAnswer(String),
    /// The caller waits no more.
    Deadline,
}

impl From<OutOfPatience> for CallError {
    fn from(_: OutOfPatience) -> Self {
        Self::Deadline
    }
}

struct Key {
    header: HeaderValue,
    /// To be found in what the service says.
    text: String,
}

/// A failure that may pass.
struct Trouble {
    why: String,
    retry_after: Option<Duration>,
}

/// What came back.
enum Reply {
    Body(Bytes),
    TooLarge,
    Refused {
        status: StatusCode,
        retry_after: Option<Duration>,
        said: String,
    },
    Broken(String),
}

impl Remote {
    /// A service; nothing is sent yet. The error says which setting cannot work.
    pub(crate) fn new(settings: &Settings<'_>) -> Result<Self, String> {
        let timeout = Duration::from_millis(settings.timeout_ms);
        Ok(Self {
            role: settings.role,
            name: settings.name.to_owned(),
            url: settings.url.trim_end_matches('/').to_owned(),
            client: client(settings, timeout)?,
            key: key(settings)?,
            timeout,
            retries: settings.retries,
            concurrency: settings.concurrency,
            places: Semaphore::new(settings.concurrency),
            breaker: Mutex::new(Breaker::default()),
            troubles: AtomicU64::new(0),
        })
    }

    /// Its name in the configuration.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Requests at the same time.
    pub(crate) fn concurrency(&self) -> usize {
        self.concurrency
    }

    /// Requests that failed so far. If it has not moved, the service was there all the time.
    pub(crate) fn troubles(&self) -> u64 {
        self.troubles.load(Ordering::Relaxed)
    }

    /// Asks, again if need be, and reads the answer with `read`, whose error says what is wrong with it.
    pub(crate) async fn ask<T>(
        &self,
        ask: &Ask<'_>,
        patience: &Patience,
        read: impl FnOnce(&[u8]) -> Result<T, String>,
    ) -> Result<T, CallError> {
        // Counts itself as given up if the caller drops us.
        let call = ModelCall::begin(self.role, &self.name);
        let answer = self.attempts(ask, patience, &call).await;
        // What is wrong with an answer may quote it, and an answer has megabytes.
        let wrong = |why: String| CallError::BadAnswer(format!("{}: {}", self.shown(ask), self.short(&why)));
        let answer = answer.and_then(|body| read(&body).map_err(wrong));
        call.end(match &answer {
            Ok(_) => "ok",
            Err(CallError::Rejected(_)) => "rejected",
            Err(CallError::Unavailable(..)) => "unavailable",
            Err(CallError::BadAnswer(_)) => "bad_answer",
            Err(CallError::Deadline) => "deadline",
        });
        if let Err(CallError::BadAnswer(why)) = &answer {
            tracing::warn!(model = self.name, why, "the service of a model gives wrong answers");
        }
        answer
    }

    async fn attempts(&self, ask: &Ask<'_>, patience: &Patience, call: &ModelCall<'_>) -> Result<Bytes, CallError> {
        for n in 1.. {
            let Trouble { why, retry_after } = match self.attempt(ask, patience, call).await? {
                Ok(body) => return Ok(body),
                Err(trouble) => trouble,
            };
            self.troubles.fetch_add(1, Ordering::Relaxed);
            let wait = backoff::wait(n, retry_after, rand::random());
            // Waiting beyond the caller's patience could only end in an error that says less.
            if n > self.retries || wait >= patience.left() {
                let times = if n == 1 { "once" } else { "times" };
                let count = if n == 1 { String::new() } else { format!("{n} ") };
                let message = format!("{} was tried {count}{times}: {why}", self.shown(ask));
                tracing::warn!(model = self.name, why, "the service of a model does not answer");
                return Err(CallError::Unavailable(message, retry_after));
            }
            call.retried();
            tracing::debug!(model = self.name, why, ?wait, "asking again");
            tokio::time::sleep(wait).await;
        }
        unreachable!("the loop ends by returning")
    }

    /// One request: the body of its answer, a failure that may pass, or one that will not.
    async fn attempt(
        &self,
        ask: &Ask<'_>,
        patience: &Patience,
        call: &ModelCall<'_>,
    ) -> Result<Result<Bytes, Trouble>, CallError> {
        // Until it is known what the answer asks for: whoever has the place next keeps to that.
        let _place = self.place(ask, patience).await?;
        let permit = self.admitted(ask, patience)?;
        let left = patience.left();
        let began = permit.sent;
        let reply = tokio::time::timeout(self.timeout.min(left), self.exchange(ask)).await;
        call.answered(began.elapsed());
        let reply = match reply {
            Ok(reply) => reply,
            // The permit knows whether that was the service's fault.
            Err(_) if left <= self.timeout => return Err(CallError::Deadline),
            Err(_) => Reply::Broken(format!("no answer within {} ms", self.timeout.as_millis())),
        };
        match reply {
            Reply::Body(body) => {
                permit.succeeded();
                Ok(Ok(body))
            }
            Reply::TooLarge => {
                permit.succeeded();
                let most = ask.answer_bytes_max;
                Err(CallError::BadAnswer(format!(
                    "{}: the answer has more than {most} bytes",
                    self.shown(ask)
                )))
            }
            Reply::Broken(why) => {
                permit.failed(&why);
                Ok(Err(Trouble { why, retry_after: None }))
            }
            Reply::Refused {
                status,
                retry_after,
                said,
            } => {
                let why = format!("{status}{said}");
                match status.as_u16() {
                    // Busy, not broken.
                    429 => {
                        permit.succeeded();
                        if let Some(asked) = retry_after {
                            self.breaker.lock().hold(Instant::now() + asked);
                        }
                        Ok(Err(Trouble { why, retry_after }))
                    }
                    408 | 500..=599 => {
                        permit.failed(&why);
                        Ok(Err(Trouble { why, retry_after }))
                    }
                    400 | 413 | 422 => {
                        permit.succeeded();
                        Err(CallError::Rejected(why))
                    }
                    // A dependency of the service (its GPU, say) failed on this request.
                    424 => {
                        permit.succeeded();
                        Err(CallError::Unavailable(format!("{}: {why}", self.shown(ask)), None))
                    }
                    401 | 403 => {
                        permit.succeeded();
                        let hint = match &self.key {
                            Some(_) => "check the key",
                            None => "it wants a key: set api_key_env or api_key_file",
                        };
                        Err(CallError::BadAnswer(format!("{}: {why}; {hint}", self.shown(ask))))
                    }
                    _ => {
                        permit.succeeded();
                        Err(CallError::BadAnswer(format!(
                            "{}: {why}; check url and model",
                            self.shown(ask)
                        )))
                    }
                }
            }
        }
    }

    /// A place among the requests at the same time, when the service wants to be asked. It may have said something else while
    /// this request waited for its place.
    async fn place(&self, ask: &Ask<'_>, patience: &Patience) -> Result<SemaphorePermit<'_>, CallError> {
        loop {
            self.wait_while_held(ask, patience).await?;
            let place = self.places.acquire().await.expect("the semaphore is never closed");
            if self.breaker.lock().held(Instant::now()).is_zero() {
                return Ok(place);
            }
        }
    }

    /// Everybody waits if the service told one of us to come back later; and then some, each as long as its dice say: all would
    /// come back at once otherwise.
    async fn wait_while_held(&self, ask: &Ask<'_>, patience: &Patience) -> Result<(), CallError> {
        loop {
            let held = self.breaker.lock().held(Instant::now());
            if held.is_zero() {
                return Ok(());
            }
            if held >= patience.left() {
                let message = format!("{} asked to be left alone for {}", self.shown(ask), shown(held));
                return Err(CallError::Unavailable(message, Some(held)));
            }
            let jitter = backoff::wait(1, None, rand::random());
            tokio::time::sleep(held.saturating_add(jitter).min(patience.left())).await;
        }
    }

    fn admitted<'a>(&'a self, ask: &Ask<'_>, patience: &'a Patience) -> Result<Permit<'a>, CallError> {
        let sent = Instant::now();
        let pass = self.breaker.lock().admit(sent);
        match pass {
            Ok(pass) => Ok(Permit {
                remote: self,
                pass: Some(pass),
                patience,
                sent,
            }),
            Err(refused) => {
                let message = format!(
                    "{} failed {} times in a row, the next attempt is in {}; the last failure: {}",
                    self.shown(ask),
                    refused.failures,
                    shown(refused.after),
                    refused.last
                );
                Err(CallError::Unavailable(message, Some(refused.after)))
            }
        }
    }

    async fn exchange(&self, ask: &Ask<'_>) -> Reply {
        let url = format!("{}{}", self.url, ask.path);
        let mut request = match &ask.body {
            Some(body) => self
                .client
                .post(url)
                .header(CONTENT_TYPE, "application/json")
                .body(body.clone()),
            None => self.client.get(url),
        };
        if let Some(key) = &self.key {
            request = request.header(AUTHORIZATION, key.header.clone());
        }
        let mut response = match request.send().await {
            Ok(response) => response,
            Err(e) => return Reply::Broken(reason(&e)),
        };
        let status = response.status();
        let most = if status.is_success() {
            ask.answer_bytes_max
        } else {
            REFUSAL_BYTES_MAX
        };
        let mut body = Vec::new();
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) if body.len() + chunk.len() <= most => body.extend_from_slice(&chunk),
                Ok(Some(_)) if status.is_success() => return Reply::TooLarge,
                // Of an error, the beginning is enough.
                Ok(Some(_) | None) => break,
                Err(e) if status.is_success() => return Reply::Broken(reason(&e)),
                Err(_) => break,
            }
        }
        if status.is_success() {
            return Reply::Body(body.into());
        }
        let retry_after = response.headers().get(RETRY_AFTER).and_then(|v| v.to_str().ok());
        Reply::Refused {
            status,
            retry_after: retry_after.and_then(|v| backoff::retry_after(v, SystemTime::now())),
            said: self.said(&body),
        }
    }

    /// The service's own words, short, without our key.
    fn said(&self, body: &[u8]) -> String {
        let text = self.short(&words(body));
        if text.is_empty() { text } else { format!(": {text}") }
    }

    fn short(&self, text: &str) -> String {
        short(text, self.key.as_ref().map(|key| key.text.as_str()))
    }

    fn shown(&self, ask: &Ask<'_>) -> String {
        format!("{}{}", self.url, ask.path)
    }
}

/// Leave to send a request, to be given back with what became of it.
struct Permit<'a> {
    remote: &'a Remote,
    pass: Option<Pass>,
    /// How long the caller waits.
    patience: &'a Patience,
    /// When it was given.
    sent: Instant,
}

impl Permit<'_> {
    fn succeeded(mut self) {
        self.pass = None;
        self.change(|breaker| breaker.succeeded(Instant::now()));
    }

    fn failed(mut self, why: &str) {
        if let Some(pass) = self.pass.take() {
            self.change(|breaker| breaker.failed(pass, why, Instant::now()));
        }
    }

    fn change(&self, change: impl FnOnce(&mut Breaker)) {
        let mut breaker = self.remote.breaker.lock();
        let before = breaker.is_open();
        change(&mut breaker);
        let after = breaker.is_open();
        drop(breaker);
        if before != after {
            self.remote.role.breaker(&self.remote.name, after);
            let state = if after { "open" } else { "closed" };
            tracing::warn!(
                model = self.remote.name,
                state,
                "the circuit breaker of a model's service changed"
            );
        }
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        let Some(pass) = self.pass.take() else { return };
        // Who has gone away says nothing about the service; who has no more time does, if it was long enough.
        if self.patience.check() != Err(OutOfPatience::Late) {
            self.remote.breaker.lock().abandoned(pass);
            return;
        }
        let (sent, now) = (self.sent, Instant::now());
        let why = format!(
            "no answer within {} ms, when its caller had no more time",
            now.saturating_duration_since(sent).as_millis()
        );
        let mut counts = false;
        self.change(|breaker| counts = breaker.late(pass, &why, sent, now));
        if counts {
            self.remote.troubles.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Makes sure that TLS has its cryptography. Whoever installs one first wins; all are good.
pub fn install_crypto() {
    static DONE: OnceLock<()> = OnceLock::new();
    DONE.get_or_init(|| {
        let _installed_already = rustls::crypto::ring::default_provider().install_default();
    });
}

fn client(settings: &Settings<'_>, timeout: Duration) -> Result<Client, String> {
    install_crypto();
    let builder = Client::builder()
        .user_agent(concat!("cairn/", env!("CARGO_PKG_VERSION")))
        .no_proxy()
        .redirect(redirect::Policy::none())
        .connect_timeout(timeout.min(CONNECT_MAX))
        .pool_max_idle_per_host(settings.concurrency);
    let builder = match settings.ca_file {
        Some(file) => {
            let pem = std::fs::read(file).map_err(|e| format!("ca_file {}: {e}", file.display()))?;
            let certificates = Certificate::from_pem_bundle(&pem)
                .ok()
                .filter(|found| !found.is_empty())
                .ok_or_else(|| format!("ca_file {} holds no certificates in PEM", file.display()))?;
            builder.tls_certs_only(certificates)
        }
        // A container without the system's certificates can still speak plain http.
        None if settings.url.starts_with("http://") => builder.tls_certs_only([]),
        None => builder,
    };
    builder.build().map_err(|e| {
        format!(
            "TLS cannot be set up: {}; ca_file names the certificates to trust",
            reason(&e)
        )
    })
}

fn key(settings: &Settings<'_>) -> Result<Option<Key>, String> {
    let text = match (settings.api_key_env, settings.api_key_file) {
        (None, None) => return Ok(None),
        (Some(_), Some(_)) => return Err("api_key_env and api_key_file are both given, want one".to_owned()),
        (Some(name), None) => {
            std::env::var(name).map_err(|_| format!("api_key_env names the variable {name:?}, which is not set"))?
        }
        (None, Some(file)) => {
            let shown = file.display();
            let bytes = std::fs::metadata(file)
                .map_err(|e| format!("api_key_file {shown}: {e}"))?
                .len();
            if bytes > KEY_BYTES_MAX {
                return Err(format!("api_key_file {shown} has more than {KEY_BYTES_MAX} bytes"));
            }
            std::fs::read_to_string(file).map_err(|e| format!("api_key_file {shown}: {e}"))?
        }
    };
    let text = text.trim().to_owned();
    let header = HeaderValue::from_str(&format!("Bearer {text}"))
        .ok()
        .filter(|_| !text.is_empty());
    let mut header = header.ok_or("the API key is empty or holds what a header cannot carry")?;
    header.set_sensitive(true);
    Ok(Some(Key { header, text }))
}

/// What a service says went wrong, wherever it puts it.
fn words(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let json: Value = serde_json::from_str(&text).unwrap_or_default();
    let places = ["/error/message", "/error", "/message", "/detail/0/msg", "/detail"];
    let message = places.iter().find_map(|at| json.pointer(at).and_then(Value::as_str));
    message.unwrap_or(&text).to_owned()
}

/// On one line, without the key, cut after [`SAID_CHARS_MAX`]; in this order, so that no part of a key is left at the cut.
fn short(text: &str, key: Option<&str>) -> String {
    let text = key.map_or_else(|| text.to_owned(), |key| text.replace(key, "[key]"));
    one_line(&text, SAID_CHARS_MAX)
}

/// The first cause of a failure says only that something failed, the last one what.
fn reason(error: &reqwest::Error) -> String {
    let mut last = None;
    let mut source = error.source();
    while let Some(cause) = source {
        last = Some(cause.to_string());
        source = cause.source();
    }
    let last = last.unwrap_or_else(|| "no reason given".to_owned());
    if last.contains("UnknownIssuer") {
        format!(
            "no connection: {last}; if an authority of your own has signed it, ca_file names that one's certificate"
        )
    } else if error.is_connect() {
        format!("no connection: {last}")
    } else if error.is_timeout() {
        format!("too slow: {last}")
    } else {
        format!("the connection broke: {last}")
    }
}

fn shown(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_a_service_are_found_and_kept_short() {
        let said = |body: &[u8]| short(&words(body), Some("s3cret-key"));
        let cases = [
            (r#"{"error": {"message": "too long", "type": "x"}}"#, "too long"),
            (
                r#"{"error": "Input validation error", "error_type": "Validation"}"#,
                "Input validation error",
            ),
            (r#"{"message": "no such model"}"#, "no such model"),
            (
                r#"{"detail": [{"loc": ["body"], "msg": "field required"}]}"#,
                "field required",
            ),
            (r#"{"detail": "Not Found"}"#, "Not Found"),
            ("<html>\n  <b>Bad   Gateway</b>", "<html> <b>Bad Gateway</b>"),
            ("", ""),
        ];
        for (body, expected) in cases {
            assert_eq!(said(body.as_bytes()), expected, "{body}");
        }
        assert_eq!(said("ä".repeat(1_000).as_bytes()).chars().count(), SAID_CHARS_MAX + 1);
        assert!(!said(&[0xff, 0xfe]).is_empty());
        // A key that is echoed where the message is cut leaves nothing of itself.
        for before in SAID_CHARS_MAX - 12..=SAID_CHARS_MAX {
            let echo = said(format!("{}s3cret-key is no key of ours", "x".repeat(before)).as_bytes());
            assert!(!echo.contains("s3"), "{echo}");
        }
    }

    #[test]
    fn a_key_comes_from_a_file_or_a_variable_and_never_from_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("key");
        let of = |env: Option<&str>, file: Option<&Path>| {
            let settings = Settings {
                role: ModelRole::Embedder,
                name: "x",
                url: "http://127.0.0.1:1",
                api_key_env: env,
                api_key_file: file,
                ca_file: None,
                timeout_ms: 1,
                concurrency: 1,
                retries: 0,
            };
            key(&settings).map(|key| key.map(|k| k.header.to_str().unwrap().to_owned()))
        };
        std::fs::write(&file, "s3cret\n").unwrap();
        assert_eq!(of(None, None), Ok(None));
        assert_eq!(of(None, Some(&file)), Ok(Some("Bearer s3cret".to_owned())));
        // Cargo sets this one for every test.
        let version = Some(format!("Bearer {}", env!("CARGO_PKG_VERSION")));
        assert_eq!(of(Some("CARGO_PKG_VERSION"), None), Ok(version));
        for (env, file) in [
            (Some("CAIRN_NO_SUCH_KEY"), None),
            (Some("CARGO_PKG_VERSION"), Some(file.as_path())),
            (None, Some(dir.path().join("missing").as_path())),
        ] {
            assert!(of(env, file).is_err());
        }
        std::fs::write(&file, " \n").unwrap();
        assert!(of(None, Some(&file)).unwrap_err().contains("empty"));
        std::fs::write(&file, vec![b'k'; KEY_BYTES_MAX as usize + 1]).unwrap();
        assert!(of(None, Some(&file)).unwrap_err().contains("bytes"));
    }
}
