//! A service that runs models, scripted: it embeds and reranks like OpenAI, TEI or Cohere, and fails as it is told.
//!
//! Vectors are a function of the text, so that a test can say whether a stored vector is that of its text. It speaks HTTP/1.1
//! by hand, because what it must do wrong (break off in the middle of a body, never answer) no library does. Needs nothing
//! of this crate: tests of the binary include the file by its path.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Numbers of a vector.
pub const DIM: usize = 16;

/// What goes wrong with one answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Fault {
    /// Nothing, but it takes a while.
    Slow(Duration),
    /// The connection is closed instead of an answer.
    Drop,
    /// The body breaks off in the middle.
    Truncated,
    /// No answer for as long as the caller waits.
    Never,
    /// This status, with these headers.
    Status(u16, Vec<(&'static str, String)>),
    /// 200, and not JSON.
    NotJson,
    /// 200, and more bytes than anybody wants.
    Huge,
    /// A vector (score) that is NaN: as base64, or as the literal that some libraries write.
    NaN,
    /// Vectors of another length.
    WrongDim,
    /// One vector (score) too few.
    TooFew,
    /// One vector (score) too many.
    TooMany,
    /// Two with one index.
    SameIndex,
}

/// One request, as it came.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Its path.
    pub path: String,
    /// Its body; null of a GET.
    pub body: Value,
    /// The header of that name.
    pub authorization: Option<String>,
    /// Whether it got a right answer.
    pub answered: bool,
    /// When it had come.
    pub at: Instant,
}

/// How it behaves.
#[derive(Debug, Clone)]
pub struct Script {
    /// Faults of the next requests, in order.
    pub next: VecDeque<Fault>,
    /// The fault of every other request.
    pub always: Option<Fault>,
    /// Every so many requests have the fault of `always` (1: all of them).
    pub every: usize,
    /// How long it takes over every answer.
    pub pause: Duration,
    /// Texts that hold this are refused with 422.
    pub refuses: Option<String>,
    /// Answers in base64 even if numbers were asked for.
    pub base64: bool,
    /// Vectors in another order than the inputs, with their indices.
    pub reversed: bool,
    /// What `/info` says.
    pub info: Value,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            next: VecDeque::new(),
            always: None,
            every: 1,
            pause: Duration::ZERO,
            refuses: None,
            base64: false,
            reversed: false,
            info: json!({
                "model_id": "test/model", "model_sha": "abc", "model_type": {"embedding": {"pooling": "mean"}},
                "max_client_batch_size": 8, "max_input_length": 512,
            }),
        }
    }
}

/// The service. It ends when this is dropped.
#[derive(Debug)]
pub struct ModelServer {
    addr: SocketAddr,
    state: Arc<State>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct State {
    script: Mutex<Script>,
    seen: Mutex<Vec<Seen>>,
    at_once: AtomicUsize,
    most_at_once: AtomicUsize,
}

impl ModelServer {
    /// On a free port of loopback.
    pub async fn start(script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("a bound listener has an address");
        let state = Arc::new(State::default());
        *state.script.lock().expect("nobody panics in there") = script;
        let task = tokio::spawn({
            let state = Arc::clone(&state);
            async move {
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(connection(stream, Arc::clone(&state)));
                }
            }
        });
        Self { addr, state, task }
    }

    /// Where it is, for both shapes.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Changes how it behaves.
    pub fn change(&self, change: impl FnOnce(&mut Script)) {
        change(&mut self.state.script.lock().expect("nobody panics in there"));
    }

    /// The requests so far, without those for `/info`.
    pub fn seen(&self) -> Vec<Seen> {
        let seen = self.state.seen.lock().expect("nobody panics in there");
        seen.iter().filter(|s| s.path != "/info").cloned().collect()
    }

    /// Forgets the requests so far.
    pub fn forget(&self) {
        self.state.seen.lock().expect("nobody panics in there").clear();
    }

    /// How often each text was embedded in an answer that was right.
    pub fn embedded(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for seen in self.seen().iter().filter(|s| s.answered) {
            for text in texts(&seen.body) {
                *counts.entry(text).or_default() += 1;
            }
        }
        counts
    }

    /// The most requests that were under way at the same time.
    pub fn most_at_once(&self) -> usize {
        self.state.most_at_once.load(Ordering::SeqCst)
    }
}

impl Drop for ModelServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The vector of a text: of length 1, another for every other text.
pub fn vector_of(text: &str) -> Vec<f32> {
    let mut state = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let high = u32::try_from(state >> 40).expect("24 bits");
        f64::from(high) / f64::from(1_u32 << 23) - 1.0
    };
    let raw: Vec<f64> = (0..DIM).map(|_| next()).collect();
    let length = raw.iter().map(|x| x * x).sum::<f64>().sqrt();
    #[expect(clippy::cast_possible_truncation, reason = "a test vector")]
    raw.iter().map(|x| (x / length) as f32).collect()
}

/// The score of a text: the share of the question's words that it holds.
pub fn score_of(query: &str, text: &str) -> f64 {
    let words: Vec<&str> = query.split_whitespace().collect();
    let hits = words.iter().filter(|word| text.contains(**word)).count();
    f64::from(u32::try_from(hits).expect("few")) / f64::from(u32::try_from(words.len().max(1)).expect("few"))
}

// ---- what is asked and answered ----

/// The inputs of a request of any shape.
fn texts(body: &Value) -> Vec<String> {
    let text = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        other => ["text", "image", "audio", "url"].iter().find_map(|key| {
            let inner = other.get(key).or_else(|| other.pointer(&format!("/{key}_url/url")))?;
            inner.as_str().map(str::to_owned)
        }),
    };
    let list = ["/input", "/inputs", "/texts", "/documents", "/messages/0/content"];
    let list = list.iter().find_map(|at| body.pointer(at)?.as_array());
    list.into_iter().flatten().filter_map(text).collect()
}

fn answer(path: &str, body: &Value, script: &Script, fault: Option<&Fault>) -> Value {
    let texts = texts(body);
    let query = body["query"].as_str().unwrap_or_default();
    let mut count = texts.len();
    match fault {
        Some(Fault::TooFew) => count -= 1,
        Some(Fault::TooMany) => count += 1,
        _ => {}
    }
    let index = |i: usize| if fault == Some(&Fault::SameIndex) { 0 } else { i };
    let text = |i: usize| texts.get(i).map_or("", String::as_str);
    let vector = |i: usize| {
        let mut vector = vector_of(text(i));
        if fault == Some(&Fault::WrongDim) {
            vector.pop();
        }
        if fault == Some(&Fault::NaN) {
            vector[0] = f32::NAN;
        }
        vector
    };
    // Null is sent as NaN.
    let score = |i: usize| (fault != Some(&Fault::NaN)).then(|| score_of(query, text(i)));
    let mut order: Vec<usize> = (0..count).collect();
    if script.reversed {
        order.reverse();
    }
    match path.rsplit('/').next().unwrap_or_default() {
        "embed" => (0..count).map(vector).map(|v| json!(v)).collect(),
        "embeddings" => {
            let base64 = script.base64 || body["encoding_format"] == "base64" || fault == Some(&Fault::NaN);
            let one = |i: usize| {
                let embedding = if base64 {
                    json!(base64_of(&vector(i)))
                } else {
                    json!(vector(i))
                };
                json!({"object": "embedding", "index": index(i), "embedding": embedding})
            };
            let data: Value = order.into_iter().map(one).collect();
            json!({"object": "list", "model": "answered-model", "data": data, "usage": {"total_tokens": 1}})
        }
        "rerank" if body.get("documents").is_some() => {
            let one = |i: usize| json!({"index": index(i), "relevance_score": score(i)});
            json!({"results": order.into_iter().map(one).collect::<Value>()})
        }
        _ => {
            let one = |i: usize| json!({"index": index(i), "score": score(i)});
            order.into_iter().map(one).collect()
        }
    }
}

fn base64_of(vector: &[f32]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let mut group = [0; 3];
        group[..chunk.len()].copy_from_slice(chunk);
        let bits = u32::from_be_bytes([0, group[0], group[1], group[2]]);
        for digit in 0..4 {
            let at = (bits >> (18 - 6 * digit)) & 63;
            let used = digit <= u32::try_from(chunk.len()).expect("at most 3");
            text.push(if used { char::from(DIGITS[at as usize]) } else { '=' });
        }
    }
    text
}

// ---- HTTP by hand ----

async fn connection(mut stream: TcpStream, state: Arc<State>) {
    let mut buffer = Vec::new();
    while let Some(request) = read(&mut stream, &mut buffer).await {
        let now = state.at_once.fetch_add(1, Ordering::SeqCst) + 1;
        state.most_at_once.fetch_max(now, Ordering::SeqCst);
        let open = respond(&mut stream, request, &state).await;
        state.at_once.fetch_sub(1, Ordering::SeqCst);
        if !open {
            return;
        }
    }
}

/// The next request of a connection; none if it ended.
async fn read(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Seen> {
    let head_end = loop {
        if let Some(at) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8_lossy(&buffer[..head_end]).into_owned();
    let header = |name: &str| {
        head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        })
    };
    let length: usize = header("content-length").and_then(|l| l.parse().ok()).unwrap_or(0);
    while buffer.len() < head_end + length {
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
    let rest = buffer.split_off(head_end + length);
    let body = std::mem::replace(buffer, rest).split_off(head_end);
    Some(Seen {
        path: head.split_whitespace().nth(1)?.to_owned(),
        body: serde_json::from_slice(&body).unwrap_or(Value::Null),
        authorization: header("authorization"),
        answered: false,
        at: Instant::now(),
    })
}

/// Answers as the script says; whether the connection stays open.
async fn respond(stream: &mut TcpStream, mut request: Seen, state: &State) -> bool {
    let script = state.script.lock().expect("nobody panics in there").clone();
    if request.path == "/info" {
        remember(state, request);
        return send(stream, 200, &[], script.info.to_string().as_bytes()).await;
    }
    let number = state.seen.lock().expect("nobody panics in there").len();
    let scripted = state.script.lock().expect("nobody panics in there").next.pop_front();
    let fault = scripted.or_else(|| script.always.clone().filter(|_| number.is_multiple_of(script.every)));
    let refused = script.refuses.as_ref();
    let refused = refused.filter(|word| texts(&request.body).iter().any(|text| text.contains(word.as_str())));
    let right = matches!(fault, None | Some(Fault::Slow(_))) && refused.is_none();
    let body = answer(&request.path, &request.body, &script, fault.as_ref()).to_string();
    request.answered = right;
    let message =
        json!({"error": {"message": format!("no, {}", request.authorization.as_deref().unwrap_or("stranger"))}});
    remember(state, request);
    tokio::time::sleep(script.pause).await;
    if let Some(Fault::Slow(time)) = fault {
        tokio::time::sleep(time).await;
    }
    if right {
        return send(stream, 200, &[], body.as_bytes()).await;
    }
    if let Some(word) = refused {
        let body = json!({"error": format!("the text holds {word}")}).to_string();
        return send(stream, 422, &[], body.as_bytes()).await;
    }
    match fault {
        Some(Fault::Drop) => false,
        Some(Fault::Never) => {
            // Ends when the caller closes the connection.
            let _ = stream.read_u8().await;
            false
        }
        Some(Fault::Truncated) => {
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
            let _ = stream.write_all(head.as_bytes()).await;
            let _ = stream.write_all(&body.as_bytes()[..body.len() / 2]).await;
            false
        }
        Some(Fault::Status(code, headers)) => send(stream, code, &headers, message.to_string().as_bytes()).await,
        Some(Fault::NotJson) => send(stream, 200, &[], b"<html>Welcome</html>").await,
        Some(Fault::Huge) => {
            let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
            let _ = stream.write_all(head.as_bytes()).await;
            let chunk = format!("{:x}\r\n{}\r\n", 1 << 16, "[".repeat(1 << 16));
            // Until the caller has had enough; it must not take a gigabyte.
            for _ in 0..1 << 14 {
                if stream.write_all(chunk.as_bytes()).await.is_err() {
                    break;
                }
            }
            false
        }
        // NaN in JSON is `null` for this library; others write it as it is.
        Some(Fault::NaN) => send(stream, 200, &[], body.replace("null", "NaN").as_bytes()).await,
        _ => send(stream, 200, &[], body.as_bytes()).await,
    }
}

fn remember(state: &State, request: Seen) {
    state.seen.lock().expect("nobody panics in there").push(request);
}

async fn send(stream: &mut TcpStream, code: u16, headers: &[(&'static str, String)], body: &[u8]) -> bool {
    let mut head = format!("HTTP/1.1 {code} Scripted\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes()).await.is_ok() && stream.write_all(body).await.is_ok()
}
