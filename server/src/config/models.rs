//! The tables `[embedders.NAME]` and `[rerankers.NAME]`: which models this server has besides the built-in one.
//!
//! What is checked here is the shape: names, bounds, addresses. Whether a directory holds a model and a service answers
//! is found out when `rag::models` makes them.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::ConfigError;
use crate::rag::embed::Medium;
use crate::rag::language::Languages;
use crate::rag::models::BUILTIN_EMBEDDER;

/// One embedder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum EmbedderConfig {
    /// A BERT-family sentence transformer from a directory; dense.
    Bert(LocalModel),
    /// A SPLADE model from a directory; sparse.
    Splade(LocalModel),
    /// A service with the OpenAI shape, `POST {url}/embeddings`; dense.
    Openai(HttpEmbedder),
    /// A text-embeddings-inference service, `POST {url}/embed`; dense.
    Tei(HttpEmbedder),
}

/// One reranker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum RerankerConfig {
    /// A text-embeddings-inference service, `POST {url}/rerank`.
    Tei(HttpReranker),
    /// A service with the Cohere shape, `POST {url}/rerank`.
    Cohere(HttpReranker),
    /// Late interaction over the token vectors of an embedder of type `bert`.
    Late(LateReranker),
}

/// A model in a directory: `config.json`, `tokenizer.json`, `model.safetensors`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LocalModel {
    /// The directory.
    pub dir: PathBuf,
    /// Put before every query.
    #[serde(default)]
    pub query_prefix: String,
    /// Put before every passage.
    #[serde(default)]
    pub passage_prefix: String,
    /// Texts in other languages are left to BM25 in a hybrid.
    #[serde(default)]
    pub languages: Languages,
    /// Weight of its leg in the default hybrid, where BM25 has 1.
    #[serde(default)]
    pub hybrid_weight: Option<f32>,
}

/// How a service is asked to write numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    /// JSON numbers, which every service can.
    #[default]
    Float,
    /// Base64 of 4 bytes a number: half as long, quicker to read.
    Base64,
}

/// How images and sounds are said to a service of the OpenAI shape, which knows only text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MediaShape {
    /// `{"input": [URL, ...], "modality": "image"}`: Infinity.
    #[default]
    Infinity,
    /// `{"input": [{"image": URL}, {"text": ...}, ...]}`: Jina.
    Jina,
    /// `{"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": URL}}]}]}`, one a request: vLLM.
    Vllm,
}

/// An embedding service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpEmbedder {
    /// Where the service is, e.g. `http://127.0.0.1:8080` or `https://api.example.org/v1`.
    pub url: String,
    /// The model to ask for; a service of one model needs none.
    #[serde(default)]
    pub model: Option<String>,
    /// Length of its vectors; if not given, texts are embedded at start to find out.
    #[serde(default)]
    pub dimensions: Option<usize>,
    /// Ask for vectors of that length; false for models that have one length only and refuse to be asked.
    #[serde(default = "yes")]
    pub send_dimensions: bool,
    /// Whether its vectors have length 1; if not given, it is measured at start.
    #[serde(default)]
    pub normalized: Option<bool>,
    /// Part of the model's identity; if not given, what a TEI service says of itself, else the model's name.
    #[serde(default)]
    pub revision: Option<String>,
    /// How it writes numbers.
    #[serde(default)]
    pub encoding: Encoding,
    /// The environment variable that holds the key; never the key itself.
    #[serde(default)]
    pub api_key_env: Option<String>,
    /// Or the file that does.
    #[serde(default)]
    pub api_key_file: Option<PathBuf>,
    /// Certificates (PEM) that are trusted for https instead of the system's.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// Put before every query.
    #[serde(default)]
    pub query_prefix: String,
    /// Put before every passage.
    #[serde(default)]
    pub passage_prefix: String,
    /// Most inputs in one request.
    #[serde(default = "http_batch_max")]
    pub batch_max: usize,
    /// Most bytes of inputs in one request; a longer input goes alone.
    #[serde(default = "http_batch_bytes_max")]
    pub batch_bytes_max: usize,
    /// How long one request may take, in milliseconds.
    #[serde(default = "http_timeout_ms")]
    pub timeout_ms: u64,
    /// Most requests at the same time.
    #[serde(default = "http_concurrency")]
    pub concurrency: usize,
    /// How often a request that failed for a reason that may pass is sent again.
    #[serde(default = "http_retries")]
    pub retries: u32,
    /// What it takes besides text.
    #[serde(default)]
    pub media: Vec<Medium>,
    /// How that is said to it.
    #[serde(default)]
    pub media_shape: MediaShape,
    /// Texts in other languages are left to BM25 in a hybrid.
    #[serde(default)]
    pub languages: Languages,
    /// Weight of its leg in the default hybrid, where BM25 has 1.
    #[serde(default)]
    pub hybrid_weight: Option<f32>,
}

/// A reranking service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpReranker {
    /// Where the service is.
    pub url: String,
    /// The model to ask for; a service of one model needs none.
    #[serde(default)]
    pub model: Option<String>,
    /// The environment variable that holds the key; never the key itself.
    #[serde(default)]
    pub api_key_env: Option<String>,
    /// Or the file that does.
    #[serde(default)]
    pub api_key_file: Option<PathBuf>,
    /// Certificates (PEM) that are trusted for https instead of the system's.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// Most texts in one request.
    #[serde(default = "http_batch_max")]
    pub batch_max: usize,
    /// Most bytes of texts in one request; a longer text goes alone.
    #[serde(default = "http_batch_bytes_max")]
    pub batch_bytes_max: usize,
    /// How long one request may take, in milliseconds.
    #[serde(default = "http_timeout_ms")]
    pub timeout_ms: u64,
    /// Most requests at the same time.
    #[serde(default = "http_concurrency")]
    pub concurrency: usize,
    /// How often a request that failed for a reason that may pass is sent again.
    #[serde(default = "http_retries")]
    pub retries: u32,
}

/// Late interaction.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LateReranker {
    /// Name of an embedder of type `bert`.
    pub embedder: String,
}

fn http_batch_max() -> usize {
    32
}
/// No tokenizer makes more tokens than bytes, so this stays below the 300,000 tokens that OpenAI takes.
fn http_batch_bytes_max() -> usize {
    256 << 10
}
fn yes() -> bool {
    true
}
fn http_timeout_ms() -> u64 {
    10_000
}
fn http_concurrency() -> usize {
    4
}
fn http_retries() -> u32 {
    3
}

impl EmbedderConfig {
    pub(super) fn check(&self, name: &str) -> Result<(), ConfigError> {
        let table = format!("embedders.{name}");
        if name == BUILTIN_EMBEDDER {
            return Err(ConfigError(format!("{table}: this name is the built-in embedder's")));
        }
        check_model_name(&table, name)?;
        match self {
            Self::Bert(local) => check_weight(&table, local.hybrid_weight),
            Self::Splade(local) if local.hybrid_weight.is_some() || local.languages != Languages::default() => {
                Err(ConfigError(format!(
                    "{table}: hybrid_weight and languages are of dense embedders; the default hybrid has no sparse leg"
                )))
            }
            Self::Splade(_) => Ok(()),
            Self::Openai(http) | Self::Tei(http) => {
                check_weight(&table, http.hybrid_weight)?;
                check_url(&table, &http.url)?;
                if http
                    .dimensions
                    .is_some_and(|d| d == 0 || d > cairn_engine::limits::DIM_MAX)
                {
                    let most = cairn_engine::limits::DIM_MAX;
                    return Err(ConfigError(format!("{table}.dimensions must be 1 to {most}")));
                }
                let (batch, bytes) = (http.batch_max, http.batch_bytes_max);
                check_http(&table, batch, bytes, http.timeout_ms, http.concurrency, http.retries)?;
                check_media(&table, http, matches!(self, Self::Tei(_)))
            }
        }
    }
}

impl RerankerConfig {
    pub(super) fn check(&self, name: &str) -> Result<(), ConfigError> {
        let table = format!("rerankers.{name}");
        check_model_name(&table, name)?;
        match self {
            Self::Late(_) => Ok(()),
            Self::Tei(http) | Self::Cohere(http) => {
                check_url(&table, &http.url)?;
                let (batch, bytes) = (http.batch_max, http.batch_bytes_max);
                check_http(&table, batch, bytes, http.timeout_ms, http.concurrency, http.retries)
            }
        }
    }
}

fn check_weight(table: &str, weight: Option<f32>) -> Result<(), ConfigError> {
    match weight {
        Some(weight) if !(0.0..=100.0).contains(&weight) => Err(ConfigError(format!(
            "{table}.hybrid_weight must be 0 to 100, got {weight}"
        ))),
        _ => Ok(()),
    }
}

fn check_model_name(table: &str, name: &str) -> Result<(), ConfigError> {
    cairn_engine::schema::check_name("model", name).map_err(|e| ConfigError(format!("{table}: {}", e.message)))
}

fn check_url(table: &str, url: &str) -> Result<(), ConfigError> {
    let after = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    let host = after.map(|after| after.split(['/', '?', '#']).next().unwrap_or_default());
    match host {
        // A password in the address would be shown in messages, a query would end up in the middle of the path.
        Some(host) if !host.is_empty() && !host.contains('@') && !url.contains(['?', '#', ' ']) => Ok(()),
        _ => Err(ConfigError(format!(
            "{table}.url must begin with http:// or https://, name a host, and hold no user, password or query"
        ))),
    }
}

fn check_http(
    table: &str,
    batch: usize,
    bytes: usize,
    timeout_ms: u64,
    concurrency: usize,
    retries: u32,
) -> Result<(), ConfigError> {
    let bounds = [
        ("batch_max", batch as u64, 1, 2_048),
        ("batch_bytes_max", bytes as u64, 1 << 10, 64 << 20),
        ("timeout_ms", timeout_ms, 1, 600_000),
        ("concurrency", concurrency as u64, 1, 256),
        ("retries", u64::from(retries), 0, 10),
    ];
    for (key, value, least, most) in bounds {
        if !(least..=most).contains(&value) {
            return Err(ConfigError(format!(
                "{table}.{key} must be {least} to {most}, got {value}"
            )));
        }
    }
    Ok(())
}

fn check_media(table: &str, http: &HttpEmbedder, tei: bool) -> Result<(), ConfigError> {
    if http.media.contains(&Medium::Text) {
        return Err(ConfigError(format!(
            "{table}.media says what is taken besides text: image, audio"
        )));
    }
    if tei && !http.media.is_empty() {
        return Err(ConfigError(format!(
            "{table}.media: a service of type \"tei\" takes text only; say type = \"openai\" if it has that shape too"
        )));
    }
    Ok(())
}
