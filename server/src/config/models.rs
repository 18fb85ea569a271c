//! The tables `[embedders.NAME]` and `[rerankers.NAME]`: which models this server has besides the built-in one.
//!
//! What is checked here is the shape: names, bounds, addresses. Whether a directory holds a model and a service answers
//! is found out when `rag::models` makes them.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::ConfigError;
use crate::rag::embed::Medium;
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
    /// A service with the Cohere shape, `POST {url}/v2/rerank`.
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
    /// Length of its vectors; if not given, one text is embedded at start to find out.
    #[serde(default)]
    pub dimensions: Option<usize>,
    /// The environment variable that holds the key; never the key itself.
    #[serde(default)]
    pub api_key_env: Option<String>,
    /// Put before every query.
    #[serde(default)]
    pub query_prefix: String,
    /// Put before every passage.
    #[serde(default)]
    pub passage_prefix: String,
    /// Most inputs in one request.
    #[serde(default = "http_batch_max")]
    pub batch_max: usize,
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
    /// Most texts in one request.
    #[serde(default = "http_batch_max")]
    pub batch_max: usize,
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
            Self::Bert(_) | Self::Splade(_) => Ok(()),
            Self::Openai(http) | Self::Tei(http) => {
                check_url(&table, &http.url)?;
                if http
                    .dimensions
                    .is_some_and(|d| d == 0 || d > cairn_engine::limits::DIM_MAX)
                {
                    let most = cairn_engine::limits::DIM_MAX;
                    return Err(ConfigError(format!("{table}.dimensions must be 1 to {most}")));
                }
                check_http(&table, http.batch_max, http.timeout_ms, http.concurrency, http.retries)
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
                check_http(&table, http.batch_max, http.timeout_ms, http.concurrency, http.retries)
            }
        }
    }
}

fn check_model_name(table: &str, name: &str) -> Result<(), ConfigError> {
    cairn_engine::schema::check_name("model", name).map_err(|e| ConfigError(format!("{table}: {}", e.message)))
}

fn check_url(table: &str, url: &str) -> Result<(), ConfigError> {
    let host = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    match host {
        Some(host) if !host.is_empty() && !host.starts_with('/') => Ok(()),
        _ => Err(ConfigError(format!(
            "{table}.url must begin with http:// or https:// and name a host, got {url:?}"
        ))),
    }
}

fn check_http(table: &str, batch: usize, timeout_ms: u64, concurrency: usize, retries: u32) -> Result<(), ConfigError> {
    let bounds = [
        ("batch_max", batch as u64, 1, 2_048),
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
