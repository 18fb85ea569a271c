//! The network of BERT (Devlin et al. 2018), forward only: token ids in, one vector a token out.
//!
//! Written out here rather than taken from `candle-transformers`, which compiles every model it knows (85 seconds). The
//! weights are those of `transformers`, with or without the prefix `bert.`; layer norms may call theirs `gamma` and
//! `beta`, as TensorFlow's did. Inference only: no dropout, no gradients; every token has type 0, as a text alone has.

use std::ops::Range;

use candle_core::{D, DType, Device, Tensor};
use candle_nn::ops;
use safetensors::{Dtype, SafeTensors};

use super::Batch;
use super::elementwise::{add_bias, softmax};

/// The numbers that decide every tensor's shape.
#[derive(Debug, Clone, PartialEq)]
pub(in super::super) struct Shape {
    pub(in super::super) hidden: usize,
    pub(in super::super) layers: usize,
    pub(in super::super) heads: usize,
    pub(in super::super) intermediate: usize,
    pub(in super::super) vocabulary: usize,
    pub(in super::super) positions: usize,
    pub(in super::super) types: usize,
    pub(in super::super) epsilon: f32,
    pub(in super::super) activation: Activation,
}

/// What is between the two matrices of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Activation {
    /// x times the normal distribution up to x.
    Gelu,
    /// Its approximation with a hyperbolic tangent.
    GeluTanh,
    /// The positive part.
    Relu,
}

/// A file of tensors, each checked when it is taken.
pub(in super::super) struct Weights<'a> {
    file: SafeTensors<'a>,
    prefix: &'static str,
}

/// Everything between token ids and token vectors.
pub(in super::super) struct Encoder {
    words: Tensor,
    /// The vector of type 0 is added already.
    positions: Tensor,
    norm: Norm,
    layers: Vec<Layer>,
}

/// What BERT guesses hidden words with: token vectors in, a number for each word of the vocabulary out.
pub(in super::super) struct MaskedLanguageHead {
    transform: Linear,
    activation: Activation,
    norm: Norm,
    words: Tensor,
    bias: Tensor,
}

struct Layer {
    /// Query, key and value in one matrix: one product instead of three.
    attend: Linear,
    heads: usize,
    attended: Linear,
    attended_norm: Norm,
    widen: Linear,
    activation: Activation,
    narrow: Linear,
    norm: Norm,
}

struct Linear {
    /// Out by in.
    weight: Tensor,
    bias: Tensor,
}

struct Norm {
    weight: Tensor,
    bias: Tensor,
    epsilon: f32,
}

impl<'a> Weights<'a> {
    /// Reads the list of tensors. The message says what is wrong with the bytes.
    pub(in super::super) fn read(bytes: &'a [u8]) -> Result<Self, String> {
        let file = SafeTensors::deserialize(bytes).map_err(|e| e.to_string())?;
        let bert = file.tensor("bert.embeddings.word_embeddings.weight").is_ok();
        let prefix = if bert { "bert." } else { "" };
        Ok(Self { file, prefix })
    }

    /// A tensor as 32-bit floats, if it has this shape.
    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor, String> {
        let found = self
            .file
            .tensor(name)
            .map_err(|_| format!("there is no tensor {name:?}"))?;
        let dtype = match found.dtype() {
            Dtype::F32 => DType::F32,
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::BF16,
            other => return Err(format!("tensor {name:?} must be of F32, F16 or BF16, is of {other:?}")),
        };
        if found.shape() != shape {
            return Err(format!(
                "tensor {name:?} must have the shape {shape:?}, has {:?}",
                found.shape()
            ));
        }
        Tensor::from_raw_buffer(found.data(), dtype, shape, &Device::Cpu)
            .and_then(|t| t.to_dtype(DType::F32))
            .map_err(|e| format!("tensor {name:?}: {e}"))
    }

    fn of_encoder(&self, name: &str, shape: &[usize]) -> Result<Tensor, String> {
        self.tensor(&format!("{}{name}", self.prefix), shape)
    }

    fn linear(&self, name: &str, outputs: usize, inputs: usize) -> Result<Linear, String> {
        Ok(Linear {
            weight: self.tensor(&format!("{name}.weight"), &[outputs, inputs])?,
            bias: self.tensor(&format!("{name}.bias"), &[outputs])?,
        })
    }

    fn norm(&self, name: &str, width: usize, epsilon: f32) -> Result<Norm, String> {
        let old = self.file.tensor(&format!("{name}.gamma")).is_ok();
        let (weight, bias) = if old { ("gamma", "beta") } else { ("weight", "bias") };
        Ok(Norm {
            weight: self.tensor(&format!("{name}.{weight}"), &[width])?,
            bias: self.tensor(&format!("{name}.{bias}"), &[width])?,
            epsilon,
        })
    }
}

impl Encoder {
    /// Takes the weights of all layers.
    pub(in super::super) fn load(weights: &Weights<'_>, shape: &Shape) -> Result<Self, String> {
        let of = |name: &str, rows| {
            weights.of_encoder(&format!("embeddings.{name}_embeddings.weight"), &[rows, shape.hidden])
        };
        let types = of("token_type", shape.types)?;
        let positions = of("position", shape.positions)?;
        let positions = types
            .get(0)
            .and_then(|first| positions.broadcast_add(&first))
            .map_err(|e| e.to_string())?;
        let name = format!("{}embeddings.LayerNorm", weights.prefix);
        Ok(Self {
            words: of("word", shape.vocabulary)?,
            positions,
            norm: weights.norm(&name, shape.hidden, shape.epsilon)?,
            layers: (0..shape.layers)
                .map(|n| Layer::load(weights, shape, n))
                .collect::<Result<_, _>>()?,
        })
    }

    /// The vectors of all tokens of a batch, in their order: tokens by hidden.
    pub(in super::super) fn forward(&self, batch: &Batch<'_>) -> candle_core::Result<Tensor> {
        let texts: Vec<Range<usize>> = batch.ranges().collect();
        let ids: Vec<u32> = batch.texts.concat();
        let places: Vec<u32> = texts.iter().flat_map(|text| 0..text.len() as u32).collect();
        let of = |table: &Tensor, rows: Vec<u32>| table.index_select(&Tensor::new(rows, &Device::Cpu)?, 0);
        let mut x = (of(&self.words, ids)? + of(&self.positions, places)?)?;
        x = self.norm.forward(&x)?;
        for layer in &self.layers {
            x = layer.forward(&x, &texts)?;
        }
        Ok(x)
    }
}

impl Layer {
    fn load(weights: &Weights<'_>, shape: &Shape, n: usize) -> Result<Self, String> {
        let name = |part: &str| format!("{}encoder.layer.{n}.{part}", weights.prefix);
        let Shape {
            hidden,
            intermediate,
            epsilon,
            ..
        } = *shape;
        let parts = ["query", "key", "value"]
            .map(|part| weights.linear(&name(&format!("attention.self.{part}")), hidden, hidden));
        let [query, key, value] = parts;
        let (query, key, value) = (query?, key?, value?);
        // The attention's scale is put into the query's weights once.
        let scale = 1.0 / ((hidden / shape.heads) as f64).sqrt();
        let join = |[query, key, value]: [&Tensor; 3]| {
            let query = (query * scale).map_err(|e| e.to_string())?;
            Tensor::cat(&[&query, key, value], 0).map_err(|e| e.to_string())
        };
        Ok(Self {
            attend: Linear {
                weight: join([&query.weight, &key.weight, &value.weight])?,
                bias: join([&query.bias, &key.bias, &value.bias])?,
            },
            heads: shape.heads,
            attended: weights.linear(&name("attention.output.dense"), hidden, hidden)?,
            attended_norm: weights.norm(&name("attention.output.LayerNorm"), hidden, epsilon)?,
            widen: weights.linear(&name("intermediate.dense"), intermediate, hidden)?,
            activation: shape.activation,
            narrow: weights.linear(&name("output.dense"), hidden, intermediate)?,
            norm: weights.norm(&name("output.LayerNorm"), hidden, epsilon)?,
        })
    }

    /// `x`: all tokens of all texts by hidden.
    fn forward(&self, x: &Tensor, texts: &[Range<usize>]) -> candle_core::Result<Tensor> {
        let attended = self.attended.forward(&self.attention(x, texts)?, None)?;
        let x = self.attended_norm.forward(&(attended + x)?)?;
        let wide = self.widen.forward(&x, Some(self.activation))?;
        self.norm.forward(&(self.narrow.forward(&wide, None)? + x)?)
    }

    /// Tokens attend to those of their own text only.
    fn attention(&self, x: &Tensor, texts: &[Range<usize>]) -> candle_core::Result<Tensor> {
        let hidden = x.dim(1)?;
        let joined = self.attend.forward(x, None)?;
        let one = |text: &Range<usize>| -> candle_core::Result<Tensor> {
            let of_text = joined.narrow(0, text.start, text.len())?;
            // Tokens, three, heads, size; a part is heads by tokens by size, where it stands.
            let of_text = of_text.reshape((text.len(), 3, self.heads, hidden / self.heads))?;
            let part = |n: usize| of_text.narrow(1, n, 1)?.squeeze(1)?.transpose(0, 1);
            let weights = part(0)?.matmul(&part(1)?.transpose(1, 2)?)?;
            softmax(&weights)?;
            let mixed = weights.matmul(&part(2)?)?;
            mixed.transpose(0, 1)?.reshape((text.len(), hidden))
        };
        match texts {
            [alone] => one(alone),
            _ => Tensor::cat(&texts.iter().map(one).collect::<candle_core::Result<Vec<_>>>()?, 0),
        }
    }
}

impl MaskedLanguageHead {
    /// Takes the weights of the head; the last matrix is that of the words unless the file has another.
    pub(in super::super) fn load(weights: &Weights<'_>, shape: &Shape, encoder: &Encoder) -> Result<Self, String> {
        let decoder = "cls.predictions.decoder.weight";
        let words = match weights.file.tensor(decoder) {
            Ok(_) => weights.tensor(decoder, &[shape.vocabulary, shape.hidden])?,
            Err(_) => encoder.words.clone(),
        };
        Ok(Self {
            transform: weights.linear("cls.predictions.transform.dense", shape.hidden, shape.hidden)?,
            activation: shape.activation,
            norm: weights.norm("cls.predictions.transform.LayerNorm", shape.hidden, shape.epsilon)?,
            words,
            bias: weights.tensor("cls.predictions.bias", &[shape.vocabulary])?,
        })
    }

    /// For each word of the vocabulary the largest number that one of these tokens (tokens by hidden) gives it.
    ///
    /// Computed as words by tokens, so that the largest is taken along memory and before the bias, which is the same for
    /// all tokens: nothing of tokens times vocabulary is ever copied.
    pub(in super::super) fn largest(&self, tokens: &Tensor) -> candle_core::Result<Tensor> {
        let x = self.transform.forward(tokens, Some(self.activation))?;
        let x = self.norm.forward(&x)?;
        self.words.matmul(&x.t()?)?.max(D::Minus1)? + &self.bias
    }
}

impl Linear {
    fn forward(&self, x: &Tensor, then: Option<Activation>) -> candle_core::Result<Tensor> {
        let rows = x.matmul(&self.weight.t()?)?;
        add_bias(&rows, &self.bias, then)?;
        Ok(rows)
    }
}

impl Norm {
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        ops::layer_norm(&x.contiguous()?, &self.weight, &self.bias, self.epsilon)
    }
}
