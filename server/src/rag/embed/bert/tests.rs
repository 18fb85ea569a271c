//! The local model against a forward pass written independently in f64, against damage, and against the real MiniLM.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;

// ---- a tiny model ----

const WORDS: [&str; 16] = [
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "cat", "sleeps", "on", "the", "mat", "##s", "dog", "query", ":", "and",
    "it",
];
const HIDDEN: usize = 8;
const LAYERS: usize = 2;
const HEADS: usize = 2;
const WIDE: usize = 12;
const POSITIONS: usize = 10;
const EPSILON: f64 = 1e-12;

/// A model directory of random weights, and the same numbers by name.
pub(crate) struct Tiny {
    pub(crate) dir: TempDir,
    pub(crate) weights: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
}

impl Tiny {
    /// As transformers writes it; with `masked`, as a masked language model with the names of TensorFlow.
    pub(crate) fn new(seed: u64, masked: bool) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let mut weights = BTreeMap::new();
        let prefix = if masked { "bert." } else { "" };
        let norm = if masked { ["gamma", "beta"] } else { ["weight", "bias"] };
        let mut add = |name: String, shape: &[usize], around: f32| {
            let n = shape.iter().product();
            let values = (0..n).map(|_| around + random.random_range(-0.6..0.6)).collect();
            weights.insert(name, (shape.to_vec(), values));
        };
        for (name, rows) in [("word", WORDS.len()), ("position", POSITIONS), ("token_type", 2)] {
            add(
                format!("{prefix}embeddings.{name}_embeddings.weight"),
                &[rows, HIDDEN],
                0.0,
            );
        }
        let mut norms = vec![format!("{prefix}embeddings.LayerNorm")];
        let mut linears = Vec::new();
        for n in 0..LAYERS {
            let layer = format!("{prefix}encoder.layer.{n}");
            for part in ["self.query", "self.key", "self.value", "output.dense"] {
                linears.push((format!("{layer}.attention.{part}"), HIDDEN, HIDDEN));
            }
            linears.push((format!("{layer}.intermediate.dense"), WIDE, HIDDEN));
            linears.push((format!("{layer}.output.dense"), HIDDEN, WIDE));
            norms.push(format!("{layer}.attention.output.LayerNorm"));
            norms.push(format!("{layer}.output.LayerNorm"));
        }
        if masked {
            linears.push(("cls.predictions.transform.dense".to_owned(), HIDDEN, HIDDEN));
            norms.push("cls.predictions.transform.LayerNorm".to_owned());
            add("cls.predictions.bias".to_owned(), &[WORDS.len()], 0.0);
        }
        for (name, outputs, inputs) in linears {
            add(format!("{name}.weight"), &[outputs, inputs], 0.0);
            add(format!("{name}.bias"), &[outputs], 0.0);
        }
        for name in norms {
            add(format!("{name}.{}", norm[0]), &[HIDDEN], 1.0);
            add(format!("{name}.{}", norm[1]), &[HIDDEN], 0.0);
        }
        let tiny = Self {
            dir: tempfile::tempdir().unwrap(),
            weights,
        };
        tiny.write_weights();
        tiny.write("config.json", &Self::config());
        tiny.write("tokenizer.json", &Self::tokenizer());
        tiny
    }

    pub(crate) fn config() -> Value {
        json!({
            "model_type": "bert", "hidden_size": HIDDEN, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
            "intermediate_size": WIDE, "vocab_size": WORDS.len(), "max_position_embeddings": POSITIONS,
            "layer_norm_eps": EPSILON, "hidden_act": "gelu",
        })
    }

    fn tokenizer() -> Value {
        let vocabulary: BTreeMap<&str, usize> = WORDS.iter().enumerate().map(|(i, &word)| (word, i)).collect();
        let special = |id: usize| {
            json!({"id": id, "content": WORDS[id], "special": true, "single_word": false, "lstrip": false, "rstrip": false,
                   "normalized": false})
        };
        let mark = |id: usize| json!({"id": WORDS[id], "ids": [id], "tokens": [WORDS[id]]});
        json!({
            "version": "1.0",
            // Both are overruled: lengths are the model's, and padding is ours.
            "truncation": {"max_length": 4, "strategy": "LongestFirst", "stride": 0},
            "padding": {"strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0,
                        "pad_type_id": 0, "pad_token": "[PAD]"},
            "added_tokens": (0..4).map(special).collect::<Vec<_>>(),
            "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
                           "strip_accents": null, "lowercase": true},
            "pre_tokenizer": {"type": "BertPreTokenizer"},
            "post_processor": {
                "type": "TemplateProcessing",
                "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                           {"SpecialToken": {"id": "[SEP]", "type_id": 0}}],
                "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
                "special_tokens": {"[CLS]": mark(2), "[SEP]": mark(3)},
            },
            "decoder": null,
            "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                      "max_input_chars_per_word": 100, "vocab": vocabulary},
        })
    }

    pub(crate) fn write(&self, file: &str, value: &Value) {
        let path = self.dir.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, value.to_string()).unwrap();
    }

    pub(crate) fn write_weights(&self) {
        fs::write(self.dir.path().join("model.safetensors"), self.bytes()).unwrap();
    }

    fn bytes(&self) -> Vec<u8> {
        let raw: Vec<(&String, &Vec<usize>, Vec<u8>)> = self
            .weights
            .iter()
            .map(|(name, (shape, values))| (name, shape, values.iter().flat_map(|x| x.to_le_bytes()).collect()))
            .collect();
        let views = raw.iter().map(|(name, shape, bytes)| {
            let view = TensorView::new(Dtype::F32, (*shape).clone(), bytes).unwrap();
            ((*name).clone(), view)
        });
        safetensors::serialize(views, None).unwrap()
    }

    pub(crate) fn open(&self) -> Result<Bert, String> {
        Bert::open("tiny", self.dir.path(), "", "", workers())
    }
}

pub(crate) fn workers() -> Arc<Workers> {
    Arc::new(Workers::new().unwrap())
}

fn hour() -> Patience {
    Patience::lasting(Duration::from_secs(3_600))
}

fn embed(bert: &Bert, texts: &[&str], kind: TextKind) -> Vec<Vec<f32>> {
    let inputs: Vec<Input<'_>> = texts.iter().map(|text| Input::Text(text)).collect();
    bert.embed(&inputs, kind, &hour()).unwrap()
}

// ---- the same network, written as the paper says it, one text at a time, in f64 ----

/// A naive BERT: no batches, no padding, no tensors.
pub(crate) struct Naive<'a> {
    pub(crate) weights: &'a BTreeMap<String, (Vec<usize>, Vec<f32>)>,
    pub(crate) masked: bool,
}

pub(crate) type Rows = Vec<Vec<f64>>;

impl Naive<'_> {
    pub(crate) fn get(&self, name: &str) -> Rows {
        let bare = name.starts_with("cls.");
        let name = if self.masked && !bare {
            format!("bert.{name}")
        } else {
            name.to_owned()
        };
        let (shape, values) = &self.weights[&name];
        let width = *shape.last().unwrap();
        values
            .chunks(width)
            .map(|row| row.iter().map(|&x| f64::from(x)).collect())
            .collect()
    }

    pub(crate) fn linear(&self, name: &str, x: &Rows) -> Rows {
        let (weight, bias) = (self.get(&format!("{name}.weight")), self.get(&format!("{name}.bias")));
        x.iter()
            .map(|x| weight.iter().zip(&bias[0]).map(|(w, b)| dot(w, x) + b).collect())
            .collect()
    }

    pub(crate) fn norm(&self, name: &str, x: &Rows) -> Rows {
        let names = if self.masked {
            ["gamma", "beta"]
        } else {
            ["weight", "bias"]
        };
        let [weight, bias] = names.map(|part| self.get(&format!("{name}.{part}")).remove(0));
        let one = |x: &Vec<f64>| {
            let mean = x.iter().sum::<f64>() / x.len() as f64;
            let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / x.len() as f64;
            let scaled = x.iter().map(|x| (x - mean) / (variance + EPSILON).sqrt());
            scaled
                .zip(weight.iter().zip(&bias))
                .map(|(x, (w, b))| x * w + b)
                .collect()
        };
        x.iter().map(one).collect()
    }

    /// The vectors of all tokens of a text.
    pub(crate) fn tokens(&self, ids: &[usize]) -> Rows {
        let of = |name: &str| self.get(&format!("embeddings.{name}_embeddings.weight"));
        let (words, positions, types) = (of("word"), of("position"), of("token_type"));
        let summed = ids.iter().enumerate().map(|(at, &id)| {
            (0..HIDDEN)
                .map(|i| words[id][i] + positions[at][i] + types[0][i])
                .collect()
        });
        let mut x = self.norm("embeddings.LayerNorm", &summed.collect());
        for n in 0..LAYERS {
            let name = |part: &str| format!("encoder.layer.{n}.{part}");
            let part = |part: &str| self.linear(&name(&format!("attention.self.{part}")), &x);
            let (query, key, value) = (part("query"), part("key"), part("value"));
            let size = HIDDEN / HEADS;
            let mut mixed = vec![vec![0.0; HIDDEN]; ids.len()];
            for head in 0..HEADS {
                let range = head * size..(head + 1) * size;
                for (q, mixed) in query.iter().zip(&mut mixed) {
                    let scores = key
                        .iter()
                        .map(|k| dot(&q[range.clone()], &k[range.clone()]) / (size as f64).sqrt());
                    let shares: Vec<f64> = scores.map(f64::exp).collect();
                    let sum: f64 = shares.iter().sum();
                    for (share, v) in shares.iter().zip(&value) {
                        for i in range.clone() {
                            mixed[i] += share / sum * v[i];
                        }
                    }
                }
            }
            let attended = self.linear(&name("attention.output.dense"), &mixed);
            x = self.norm(&name("attention.output.LayerNorm"), &add(&attended, &x));
            let wide = gelu(self.linear(&name("intermediate.dense"), &x));
            let narrow = self.linear(&name("output.dense"), &wide);
            x = self.norm(&name("output.LayerNorm"), &add(&narrow, &x));
        }
        x
    }
}

pub(crate) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn add(a: &Rows, b: &Rows) -> Rows {
    a.iter()
        .zip(b)
        .map(|(a, b)| a.iter().zip(b).map(|(a, b)| a + b).collect())
        .collect()
}

pub(crate) fn gelu(x: Rows) -> Rows {
    let one = |x: f64| 0.5 * x * (1.0 + erf(x / 2f64.sqrt()));
    x.into_iter().map(|row| row.into_iter().map(one).collect()).collect()
}

/// Its Taylor series, which converges everywhere and is exact enough for the small numbers here.
fn erf(x: f64) -> f64 {
    let (mut term, mut sum, mut n) = (x, x, 0.0);
    while f64::abs(term) > 1e-17 && n < 200.0 {
        n += 1.0;
        term *= -x * x / n;
        sum += term / (2.0 * n + 1.0);
    }
    sum * 2.0 / std::f64::consts::PI.sqrt()
}

fn naive_vector(tokens: &Rows, pooling: Pooling, normalize: bool) -> Vec<f64> {
    let mut vector: Vec<f64> = match pooling {
        Pooling::First => tokens[0].clone(),
        Pooling::Mean => (0..HIDDEN)
            .map(|i| tokens.iter().map(|t| t[i]).sum::<f64>() / tokens.len() as f64)
            .collect(),
    };
    if normalize {
        let norm = dot(&vector, &vector).sqrt();
        vector.iter_mut().for_each(|x| *x /= norm);
    }
    vector
}

fn worst(a: &[f32], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter()
        .zip(b)
        .map(|(&a, b)| (f64::from(a) - b).abs())
        .fold(0.0, f64::max)
}

/// Texts of different lengths, so that batches are padded, with the ids they should have.
pub(crate) const TEXTS: [(&str, &[usize]); 5] = [
    ("the cat sleeps on the mat", &[2, 8, 5, 6, 7, 8, 9, 3]),
    ("dogs", &[2, 11, 10, 3]),
    ("A cat.", &[2, 4, 5, 1, 3]),
    ("it", &[2, 15, 3]),
    // Longer than the model reads: the end is cut, the mark stays.
    (
        "the dog and the cat and it and the mat and the dog",
        &[2, 8, 11, 14, 8, 5, 14, 15, 14, 3],
    ),
];

// ---- claims ----

#[test]
fn vectors_are_those_of_a_naive_forward_pass_whatever_is_in_the_batch() {
    for seed in 0..4 {
        let tiny = Tiny::new(seed, false);
        let bert = tiny.open().unwrap();
        assert_eq!((bert.fingerprint().dim, bert.fingerprint().normalized), (HIDDEN, true));
        let naive = Naive {
            weights: &tiny.weights,
            masked: false,
        };
        let together = embed(&bert, &TEXTS.map(|(text, _)| text), TextKind::Passage);
        for ((text, ids), vector) in TEXTS.iter().zip(&together) {
            let pieces: Vec<usize> = bert.pieces.of(text).unwrap().iter().map(|&id| id as usize).collect();
            assert_eq!(pieces, *ids, "{text}");
            let expected = naive_vector(&naive.tokens(ids), Pooling::Mean, true);
            assert!(
                worst(vector, &expected) < 2e-6,
                "seed {seed}: {text:?} is off by {}",
                worst(vector, &expected)
            );
            let alone = &embed(&bert, &[text], TextKind::Query)[0];
            assert!(worst(alone, &expected) < 2e-6, "alone: {text:?}");
        }
    }
}

#[test]
fn the_directory_decides_pooling_normalisation_and_length() {
    let modules = |normalize: bool| {
        let mut modules = vec![json!({"path": "", "type": "sentence_transformers.models.Transformer"})];
        modules.push(json!({"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}));
        modules.extend(
            normalize.then(|| json!({"path": "2_Normalize", "type": "sentence_transformers.models.Normalize"})),
        );
        json!(modules)
    };
    let mut revisions = Vec::new();
    for (first, normalize) in [(false, false), (true, false), (true, true)] {
        let tiny = Tiny::new(7, false);
        tiny.write("modules.json", &modules(normalize));
        let pooling =
            json!({"word_embedding_dimension": 8, "pooling_mode_cls_token": first, "pooling_mode_mean_tokens": !first});
        tiny.write("1_Pooling/config.json", &pooling);
        tiny.write("sentence_bert_config.json", &json!({"max_seq_length": 5}));
        let bert = tiny.open().unwrap();
        assert_eq!(bert.fingerprint().normalized, normalize);
        let naive = Naive {
            weights: &tiny.weights,
            masked: false,
        };
        let pooling = if first { Pooling::First } else { Pooling::Mean };
        // [CLS] the cat sleeps [SEP]: five tokens.
        let expected = naive_vector(&naive.tokens(&[2, 8, 5, 6, 3]), pooling, normalize);
        let vector = &embed(&bert, &["the cat sleeps on the mat"], TextKind::Passage)[0];
        assert!(worst(vector, &expected) < 5e-6, "{first} {normalize}");
        revisions.push(bert.fingerprint().revision.clone());
    }
    let weights = |revision: &String| revision.split('-').next().unwrap().to_owned();
    assert!(
        revisions.iter().all(|r| weights(r) == weights(&revisions[0])),
        "the weights are the same"
    );
    assert!(
        revisions[0] != revisions[1] && revisions[1] != revisions[2],
        "{revisions:?}: the recipes are not"
    );
}

#[test]
fn prefixes_are_part_of_the_text_and_of_the_identity() {
    let tiny = Tiny::new(3, false);
    let plain = tiny.open().unwrap();
    let bert = Bert::open("tiny", tiny.dir.path(), "query: ", "the ", workers()).unwrap();
    assert_ne!(bert.fingerprint(), plain.fingerprint());
    for (kind, spelled) in [(TextKind::Query, "query: cat"), (TextKind::Passage, "the cat")] {
        let with = &embed(&bert, &["cat"], kind)[0];
        let spelled: Vec<f64> = embed(&plain, &[spelled], kind)[0]
            .iter()
            .map(|&x| f64::from(x))
            .collect();
        assert!(worst(with, &spelled) < 1e-6, "{kind:?}");
        let empty = bert.embed(&[Input::Text("cat"), Input::Text(" \n")], kind, &hour());
        assert_eq!(
            empty,
            Err(EmbedError::EmptyText { index: 1 }),
            "a prefix alone is no text"
        );
    }
}

#[test]
fn patience_and_other_media_end_in_their_errors() {
    let tiny = Tiny::new(3, false);
    let bert = tiny.open().unwrap();
    let gone = Patience::lasting(Duration::ZERO);
    assert_eq!(
        bert.embed(&[Input::Text("cat")], TextKind::Query, &gone),
        Err(EmbedError::Deadline)
    );
    let image = bert.embed(&[Input::Image("https://example.org/cat.png")], TextKind::Query, &hour());
    assert!(matches!(image, Err(EmbedError::Unsupported { index: 0, .. })));
    assert_eq!(bert.embed(&[], TextKind::Query, &hour()), Ok(vec![]));
}

#[test]
fn a_directory_that_cannot_be_right_is_refused_with_its_file_and_reason() {
    let set = |tiny: &Tiny, key: &str, value: Value| {
        let mut config = Tiny::config();
        config[key] = value;
        tiny.write("config.json", &config);
    };
    let cases: [(&str, &dyn Fn(&Tiny), &str); 15] = [
        (
            "no file",
            &|t| fs::remove_file(t.dir.path().join("tokenizer.json")).unwrap(),
            "tokenizer.json",
        ),
        (
            "not JSON",
            &|t| fs::write(t.dir.path().join("config.json"), "{").unwrap(),
            "config.json: EOF",
        ),
        (
            "another model",
            &|t| set(t, "model_type", json!("gpt2")),
            "model_type must be \"bert\"",
        ),
        (
            "no numbers",
            &|t| set(t, "hidden_size", json!(0)),
            "hidden_size must be 1 to",
        ),
        (
            "huge",
            &|t| set(t, "vocab_size", json!(1u64 << 40)),
            "vocab_size must be 1 to",
        ),
        (
            "negative",
            &|t| set(t, "num_hidden_layers", json!(-1)),
            "config.json: invalid value",
        ),
        (
            "heads",
            &|t| set(t, "num_attention_heads", json!(3)),
            "multiple of num_attention_heads",
        ),
        (
            "relative positions",
            &|t| set(t, "position_embedding_type", json!("relative_key")),
            "\"absolute\"",
        ),
        (
            "more layers than weights",
            &|t| set(t, "num_hidden_layers", json!(3)),
            "there is no tensor \"encoder.layer.2",
        ),
        (
            "other widths",
            &|t| set(t, "intermediate_size", json!(13)),
            "must have the shape [13, 8], has [12, 8]",
        ),
        (
            "too few words",
            &|t| set(t, "vocab_size", json!(5)),
            "it has a token 15, and the model knows 5",
        ),
        (
            "no tokenizer",
            &|t| t.write("tokenizer.json", &json!({"version": "1.0"})),
            "tokenizer.json: ",
        ),
        (
            "unknown module",
            &|t| t.write("modules.json", &json!([{"path": "2_Dense", "type": "x.Dense"}])),
            "got \"x.Dense\"",
        ),
        (
            "a way out",
            &|t| t.write("modules.json", &json!([{"path": "../x", "type": "x.Pooling"}])),
            "must stay in the directory",
        ),
        (
            "max pooling",
            &|t| t.write("1_Pooling/config.json", &json!({"pooling_mode_max_tokens": true})),
            "exactly one of",
        ),
    ];
    for (case, damage, reason) in cases {
        let tiny = Tiny::new(1, false);
        damage(&tiny);
        let error = tiny.open().err().unwrap_or_else(|| panic!("{case}: opened"));
        assert!(error.contains(reason), "{case}: {error}");
    }
    let mut tiny = Tiny::new(1, false);
    tiny.weights.get_mut("encoder.layer.0.output.dense.bias").unwrap().1[0] = f32::NAN;
    tiny.write_weights();
    let error = tiny.open().err().unwrap();
    assert!(error.contains("not finite"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Untrusted bytes: opened or refused, never a panic.
    #[test]
    fn damaged_files_never_panic(file in 0..3usize, at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>()) {
        let tiny = Tiny::new(1, false);
        let path = tiny.dir.path().join(["config.json", "tokenizer.json", "model.safetensors"][file]);
        let mut bytes = fs::read(&path).unwrap();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if cut {
            bytes.truncate(at);
        }
        fs::write(&path, bytes).unwrap();
        let _ = tiny.open();
    }
}

// ---- the real one ----

#[derive(Deserialize)]
struct Golden {
    tolerance: f64,
    texts: Vec<GoldenText>,
}

#[derive(Deserialize)]
struct GoldenText {
    text: String,
    vector: Vec<f64>,
}

/// The directory of a model that `make models` fetched; says so loudly if there is none.
pub(crate) fn fetched(name: &str) -> Option<PathBuf> {
    let cache = std::env::var_os("CAIRN_MODELS").map(PathBuf::from).or_else(|| {
        let home = std::env::var_os("HOME")?;
        Some(PathBuf::from(home).join(".cache/cairn/models"))
    })?;
    let dir = cache.join(name);
    if dir.join("model.safetensors").is_file() {
        return Some(dir);
    }
    let _ = writeln!(
        std::io::stderr(),
        "\n******** SKIPPED: run `make models` to check the real {name} ({} is missing) ********\n",
        dir.display()
    );
    None
}

#[test]
fn minilm_makes_the_vectors_of_sentence_transformers() {
    let Some(dir) = fetched("minilm") else { return };
    let bert = Bert::open("minilm", &dir, "", "", workers()).unwrap();
    assert!(
        bert.fingerprint().revision.starts_with("53aa51172d142c89-"),
        "{:?}",
        bert.fingerprint()
    );
    assert_eq!((bert.fingerprint().dim, bert.fingerprint().normalized), (384, true));
    let golden: Golden = serde_json::from_str(include_str!("../testdata/minilm.json")).unwrap();
    assert!(golden.texts.len() >= 8);
    let texts: Vec<&str> = golden.texts.iter().map(|t| t.text.as_str()).collect();
    for (vector, expected) in embed(&bert, &texts, TextKind::Passage).iter().zip(&golden.texts) {
        let off = worst(vector, &expected.vector);
        assert!(off <= golden.tolerance, "{:?} is off by {off}", expected.text);
    }
}
