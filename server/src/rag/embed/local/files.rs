//! The files of a model directory, read and checked. Nothing is computed here.

use std::fs::File;
use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use tokenizers::{Tokenizer, TruncationParams};

use super::network::{Activation, Shape};
use super::{Pieces, shown};

/// Bytes of a JSON file about a model: they are a few kilobytes.
const JSON_BYTES_MAX: u64 = 1 << 20;
/// Bytes of a tokenizer: those of 250,000 pieces take 17 MB.
const TOKENIZER_BYTES_MAX: u64 = 128 << 20;
/// Bytes of weights: ten times those of the largest model of this family.
const WEIGHTS_BYTES_MAX: u64 = 16 << 30;

/// Everything a directory says about its model, and its weights as bytes.
pub(in super::super) struct Directory {
    path: PathBuf,
    pub(in super::super) shape: Shape,
    pub(in super::super) pieces: Pieces,
    pub(in super::super) recipe: Recipe,
    pub(in super::super) weights: Vec<u8>,
    digests: String,
}

/// How token vectors become a text's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Recipe {
    pub(in super::super) pooling: Pooling,
    pub(in super::super) normalize: bool,
}

/// How token vectors become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Pooling {
    /// Their mean.
    Mean,
    /// That of the first token.
    First,
}

/// `config.json` of transformers, as far as it decides a vector.
#[derive(Deserialize)]
struct Config {
    model_type: String,
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    vocab_size: usize,
    max_position_embeddings: usize,
    #[serde(default = "two")]
    type_vocab_size: usize,
    #[serde(default = "epsilon")]
    layer_norm_eps: f64,
    #[serde(default = "gelu")]
    hidden_act: String,
    #[serde(default)]
    position_embedding_type: Option<String>,
}

fn two() -> usize {
    2
}
fn epsilon() -> f64 {
    1e-12
}
fn gelu() -> String {
    "gelu".to_owned()
}

/// One module of sentence-transformers' `modules.json`.
#[derive(Deserialize)]
struct Module {
    #[serde(default)]
    path: String,
    r#type: String,
}

/// `1_Pooling/config.json`.
#[derive(Default, Deserialize)]
#[serde(default)]
struct PoolingConfig {
    pooling_mode_cls_token: bool,
    pooling_mode_mean_tokens: bool,
    pooling_mode_max_tokens: bool,
    pooling_mode_mean_sqrt_len_tokens: bool,
    pooling_mode_weightedmean_tokens: bool,
    pooling_mode_lasttoken: bool,
}

/// `sentence_bert_config.json`.
#[derive(Default, Deserialize)]
#[serde(default)]
struct TransformerConfig {
    max_seq_length: Option<usize>,
}

/// `tokenizer_config.json`.
#[derive(Default, Deserialize)]
#[serde(default)]
struct TokenizerConfig {
    /// Some models say 10^30 for "no limit".
    model_max_length: Option<f64>,
}

impl Directory {
    /// Reads everything. The message names the file that is wrong.
    pub(in super::super) fn read(path: &Path) -> Result<Self, String> {
        if !path.is_dir() {
            return Err(format!("{} is not a directory", shown(path)));
        }
        let config: Config = json(&path.join("config.json"))?;
        let shape = shape(config).map_err(|why| format!("{}: {why}", shown(&path.join("config.json"))))?;
        let recipe = recipe(path)?;
        let tokenizer = path.join("tokenizer.json");
        let bytes = bytes(&tokenizer, TOKENIZER_BYTES_MAX)?;
        let longest = longest(path, shape.positions)?;
        let pieces = pieces(&bytes, longest, &shape).map_err(|why| format!("{}: {why}", shown(&tokenizer)))?;
        let weights = self::bytes(&path.join("model.safetensors"), WEIGHTS_BYTES_MAX)?;
        let mut about = Sha256::new();
        about.update(&bytes);
        about.update(format!("{recipe:?} {longest} {shape:?}"));
        let digests = format!(
            "{}-{}",
            hex(&Sha256::digest(&weights)[..8]),
            hex(&about.finalize()[..4])
        );
        Ok(Self {
            path: path.to_owned(),
            shape,
            pieces,
            recipe,
            weights,
            digests,
        })
    }

    /// The first half is the beginning of the SHA-256 of the weights, so that it can be checked with `sha256sum`; the
    /// second is of the tokenizer and all numbers that decide a vector.
    pub(in super::super) fn revision(&self) -> String {
        self.digests.clone()
    }

    /// What is wrong with the weights, with the name of their file.
    pub(in super::super) fn in_weights(&self, why: &str) -> String {
        format!("{}: {why}", shown(&self.path.join("model.safetensors")))
    }
}

fn shape(config: Config) -> Result<Shape, String> {
    if config.model_type != "bert" {
        return Err(format!("model_type must be \"bert\", got {:?}", config.model_type));
    }
    match config.position_embedding_type.as_deref() {
        None | Some("absolute") => {}
        Some(other) => return Err(format!("position_embedding_type must be \"absolute\", got {other:?}")),
    }
    let activation = match config.hidden_act.as_str() {
        "gelu" => Activation::Gelu,
        "gelu_new" | "gelu_pytorch_tanh" => Activation::GeluTanh,
        "relu" => Activation::Relu,
        other => {
            return Err(format!(
                "hidden_act must be gelu, gelu_new, gelu_pytorch_tanh or relu, got {other:?}"
            ));
        }
    };
    // Wider than any published model of this family, narrow enough that no product of two overflows or exhausts memory.
    let bounds = [
        ("hidden_size", config.hidden_size, 16_384),
        ("num_hidden_layers", config.num_hidden_layers, 256),
        ("num_attention_heads", config.num_attention_heads, 256),
        ("intermediate_size", config.intermediate_size, 65_536),
        ("vocab_size", config.vocab_size, 2_000_000),
        ("max_position_embeddings", config.max_position_embeddings, 32_768),
        ("type_vocab_size", config.type_vocab_size, 16),
    ];
    for (name, value, most) in bounds {
        if !(1..=most).contains(&value) {
            return Err(format!("{name} must be 1 to {most}, got {value}"));
        }
    }
    if !config.hidden_size.is_multiple_of(config.num_attention_heads) {
        return Err(format!(
            "hidden_size must be a multiple of num_attention_heads, got {} and {}",
            config.hidden_size, config.num_attention_heads
        ));
    }
    if !(config.layer_norm_eps > 0.0 && config.layer_norm_eps < 1.0) {
        return Err(format!(
            "layer_norm_eps must be above 0 and below 1, got {}",
            config.layer_norm_eps
        ));
    }
    Ok(Shape {
        hidden: config.hidden_size,
        layers: config.num_hidden_layers,
        heads: config.num_attention_heads,
        intermediate: config.intermediate_size,
        vocabulary: config.vocab_size,
        positions: config.max_position_embeddings,
        types: config.type_vocab_size,
        epsilon: config.layer_norm_eps as f32,
        activation,
    })
}

/// Mean and normalise, unless sentence-transformers' files say otherwise.
fn recipe(dir: &Path) -> Result<Recipe, String> {
    let file = dir.join("modules.json");
    let Some(modules) = optional_json::<Vec<Module>>(&file)? else {
        return Ok(Recipe {
            pooling: pooling(&dir.join("1_Pooling/config.json"))?,
            normalize: true,
        });
    };
    let mut recipe = Recipe {
        pooling: Pooling::Mean,
        normalize: false,
    };
    for module in modules {
        match module.r#type.rsplit('.').next().unwrap_or_default() {
            // The sparse ones are those of SPLADE, which has a recipe of its own.
            "Transformer" | "MLMTransformer" | "SpladePooling" => {}
            "Pooling" => recipe.pooling = pooling(&dir.join(plain(&file, &module.path)?).join("config.json"))?,
            "Normalize" => recipe.normalize = true,
            _ => {
                return Err(format!(
                    "{}: modules of the types Transformer, Pooling and Normalize are known, got {:?}",
                    shown(&file),
                    module.r#type
                ));
            }
        }
    }
    Ok(recipe)
}

/// The name of a folder in the directory: a path in a file that was downloaded must not lead out of it.
fn plain<'a>(file: &Path, path: &'a str) -> Result<&'a str, String> {
    let inside = Path::new(path)
        .components()
        .all(|c| matches!(c, std::path::Component::Normal(_)));
    match inside {
        true => Ok(path),
        false => Err(format!(
            "{}: path must stay in the directory, got {path:?}",
            shown(file)
        )),
    }
}

fn pooling(file: &Path) -> Result<Pooling, String> {
    let Some(config) = optional_json::<PoolingConfig>(file)? else {
        return Ok(Pooling::Mean);
    };
    let others = config.pooling_mode_max_tokens
        || config.pooling_mode_mean_sqrt_len_tokens
        || config.pooling_mode_weightedmean_tokens
        || config.pooling_mode_lasttoken;
    match (config.pooling_mode_mean_tokens, config.pooling_mode_cls_token, others) {
        (true, false, false) => Ok(Pooling::Mean),
        (false, true, false) => Ok(Pooling::First),
        _ => Err(format!(
            "{}: exactly one of pooling_mode_mean_tokens and pooling_mode_cls_token must be true, other modes are not known",
            shown(file)
        )),
    }
}

/// Tokens of the longest text: what sentence-transformers was told, or the tokenizer, and never more than positions.
fn longest(dir: &Path, positions: usize) -> Result<usize, String> {
    let told: Option<TransformerConfig> = optional_json(&dir.join("sentence_bert_config.json"))?;
    let tokenizer: Option<TokenizerConfig> = optional_json(&dir.join("tokenizer_config.json"))?;
    let by_tokenizer = tokenizer
        .and_then(|t| t.model_max_length)
        .filter(|n| (1.0..1e9).contains(n))
        .map(|n| n as usize);
    let longest = told.and_then(|t| t.max_seq_length).or(by_tokenizer);
    Ok(longest.unwrap_or(positions).min(positions))
}

/// Reads a tokenizer. The crate that does promises nothing about hostile files, so a panic in it is an error here.
fn pieces(bytes: &[u8], longest: usize, shape: &Shape) -> Result<Pieces, String> {
    let read = || -> Result<Pieces, String> {
        let mut tokenizer = Tokenizer::from_bytes(bytes).map_err(|e| e.to_string())?;
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(|e| e.to_string())?;
        let marks = tokenizer.encode_fast("", true).map_err(|e| e.to_string())?.len();
        if marks >= longest {
            return Err(format!(
                "an empty text has {marks} tokens, and the model reads {longest}"
            ));
        }
        // Any letter tells where the marks are: what is not special is the text's.
        let letter = tokenizer.encode_fast("a", true).map_err(|e| e.to_string())?;
        let own = |&special: &u32| special == 0;
        let before = letter
            .get_special_tokens_mask()
            .iter()
            .position(own)
            .unwrap_or(marks.min(1));
        let cut = TruncationParams {
            max_length: longest,
            ..TruncationParams::default()
        };
        tokenizer.with_truncation(Some(cut)).map_err(|e| e.to_string())?;
        let highest = tokenizer.get_vocab(true).into_values().max().unwrap_or(0) as usize;
        if highest >= shape.vocabulary {
            return Err(format!(
                "it has a token {highest}, and the model knows {}",
                shape.vocabulary
            ));
        }
        Ok(Pieces {
            tokenizer,
            marks: (before, marks.saturating_sub(before)),
        })
    };
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| Err("it cannot be read as a tokenizer".to_owned()))
}

// ---- reading ----

fn json<T: DeserializeOwned>(file: &Path) -> Result<T, String> {
    let bytes = bytes(file, JSON_BYTES_MAX)?;
    serde_json::from_slice(&bytes).map_err(|e| format!("{}: {e}", shown(file)))
}

fn optional_json<T: DeserializeOwned>(file: &Path) -> Result<Option<T>, String> {
    match file.exists() {
        true => json(file).map(Some),
        false => Ok(None),
    }
}

fn bytes(file: &Path, most: u64) -> Result<Vec<u8>, String> {
    let failed = |e: std::io::Error| format!("{}: {e}", shown(file));
    let opened = File::open(file).map_err(failed)?;
    let size = opened.metadata().map_err(failed)?.len();
    let mut bytes = Vec::with_capacity(usize::try_from(size.min(most)).unwrap_or(0));
    // What is read is bounded, not what the file system says of it: a pipe has no size.
    let read = opened.take(most + 1).read_to_end(&mut bytes).map_err(failed)?;
    if read as u64 > most {
        return Err(format!("{}: larger than {most} bytes", shown(file)));
    }
    Ok(bytes)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
