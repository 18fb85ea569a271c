//! Embedders behind HTTP: services with the OpenAI shape (`POST /embeddings`) and text-embeddings-inference
//! (`POST /embed`, `GET /info`).
//!
//! A call is cut into requests by the service's limits; several are under way at a time. Of every answer the number of
//! vectors, their order, length and finiteness are checked: a wrong vector would be stored for good. If the service
//! refuses a request, the request is halved until the input it means is found, so that the error names it. Vectors that
//! arrived before another request of the call failed are kept for its repetition ([`kept`]).
//!
//! Who the model is: its configured revision, or what `/info` says, or the model's name. Length and normalisation are
//! measured by embedding two texts at start, unless all of it is configured; then nothing is asked at start, and the
//! service may come up later. A TEI service is asked again who it is whenever it was away: it may have come back as
//! another model. Services of the OpenAI shape do not say, so for those only the length of their vectors is watched.

mod batch;
mod kept;
mod wire;

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use futures::StreamExt;
use parking_lot::Mutex;
use serde_json::Value;

use self::batch::BatchLimits;
use self::kept::Kept;
use self::wire::{Asked, TeiInfo};
use super::{EmbedError, Embedder, Fingerprint, Input, Medium, TextKind};
use crate::config::{HttpEmbedder as Config, MediaShape};
use crate::rag::patience::Patience;
use crate::rag::remote::{Ask, Bridge, CallError, Remote, Settings};
use crate::telemetry::ModelRole;

/// How long the questions at start may take, retries included.
const START_PATIENCE: Duration = Duration::from_secs(30);
/// Texts that are embedded at start, to see how long vectors are and whether they have length 1.
const PROBES: [&str; 2] = ["What is measured here?", "The length of a vector."];
/// How far from 1 the length of a normalised vector may be: half floats have 3 digits.
const UNIT_TOLERANCE: f64 = 5e-3;
/// Bytes of `/info`.
const INFO_BYTES_MAX: usize = 64 << 10;

/// The shapes of services.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// `POST {url}/embeddings`.
    Openai,
    /// `POST {url}/embed`.
    Tei,
}

impl Dialect {
    /// Services of the OpenAI shape do not say who they are.
    fn is_anonymous(self) -> bool {
        self == Self::Openai
    }
}

/// One embedding service.
pub struct HttpEmbedder {
    fingerprint: Fingerprint,
    dialect: Dialect,
    media: Vec<Medium>,
    asked: Asked,
    /// As configured.
    limits: BatchLimits,
    /// Inputs of a request that the service said it takes.
    inputs_max: AtomicUsize,
    remote: Remote,
    bridge: Bridge,
    kept: Mutex<Kept>,
    /// `Remote::troubles` when the service last said who it is.
    known_at: AtomicU64,
    known: AtomicBool,
}

impl HttpEmbedder {
    /// The embedder of a table of the configuration. Asks the service who it is, unless the table says it all.
    pub fn open(name: &str, dialect: Dialect, config: &Config) -> Result<Self, String> {
        let remote = Remote::new(&Settings {
            role: ModelRole::Embedder,
            name,
            url: &config.url,
            api_key_env: config.api_key_env.as_deref(),
            api_key_file: config.api_key_file.as_deref(),
            ca_file: config.ca_file.as_deref(),
            timeout_ms: config.timeout_ms,
            concurrency: config.concurrency,
            retries: config.retries,
        })?;
        let jina = config.media_shape == MediaShape::Jina;
        let mut embedder = Self {
            fingerprint: Fingerprint {
                name: name.to_owned(),
                revision: config.revision.clone().or(config.model.clone()).unwrap_or_default(),
                dim: config.dimensions.unwrap_or_default(),
                normalized: config.normalized.unwrap_or_default(),
                query_prefix: config.query_prefix.clone(),
                passage_prefix: config.passage_prefix.clone(),
            },
            dialect,
            media: config.media.clone(),
            asked: Asked {
                model: config.model.clone(),
                dimensions: config.dimensions.filter(|_| config.send_dimensions),
                encoding: config.encoding,
                media: config.media_shape,
            },
            limits: BatchLimits {
                inputs: config.batch_max,
                bytes: config.batch_bytes_max,
                mixed: jina,
                media_together: config.media_shape != MediaShape::Vllm,
            },
            inputs_max: AtomicUsize::new(usize::MAX),
            remote,
            bridge: Bridge::here()?,
            kept: Mutex::default(),
            known_at: AtomicU64::new(0),
            known: AtomicBool::new(false),
        };
        embedder.meet(config)?;
        Ok(embedder)
    }

    /// Finds out what the configuration does not say.
    fn meet(&mut self, config: &Config) -> Result<(), String> {
        let identified = self.dialect.is_anonymous() || config.revision.is_some();
        let measured = config.dimensions.is_some() && config.normalized.is_some();
        if identified && measured {
            return Ok(());
        }
        let patience = Patience::lasting(START_PATIENCE);
        let asked = self.bridge.wait(&patience, self.ask_who(config, measured, &patience));
        let who = asked.map_err(CallError::from).and_then(|who| who);
        let (info, probe) = who.map_err(|e| {
            format!(
                "{}; to start without asking the service, set dimensions, normalized{}",
                EmbedError::from(e),
                if self.dialect.is_anonymous() {
                    ""
                } else {
                    " and revision"
                }
            )
        })?;
        if let Some(info) = info {
            self.met(&info, self.remote.troubles());
            let revision = info.revision();
            match &config.revision {
                Some(wanted) if *wanted != revision => return Err(other_model(&revision, wanted)),
                _ => self.fingerprint.revision = revision,
            }
            tracing::info!(
                embedder = self.fingerprint.name,
                revision = self.fingerprint.revision,
                batch_max = self.limits().inputs,
                input_tokens_max = info.max_input_length,
                "an embedding service said who it is"
            );
        }
        if let Some((vectors, model)) = probe {
            self.fingerprint.dim = vectors[0].len();
            let unit = vectors.iter().all(|v| (length(v) - 1.0).abs() <= UNIT_TOLERANCE);
            match config.normalized {
                Some(said) if said && !unit => {
                    let found = length(&vectors[0]);
                    return Err(format!(
                        "normalized = true, but its vectors have other lengths than 1, e.g. {found:.3}"
                    ));
                }
                Some(said) => self.fingerprint.normalized = said,
                None => self.fingerprint.normalized = unit,
            }
            if self.fingerprint.revision.is_empty() {
                self.fingerprint.revision = model.unwrap_or_default();
            }
        }
        Ok(())
    }

    async fn ask_who(&self, config: &Config, measured: bool, patience: &Patience) -> Result<Met, CallError> {
        let info = match self.dialect {
            Dialect::Tei => Some(self.info(patience).await?),
            Dialect::Openai => None,
        };
        if measured {
            return Ok((info, None));
        }
        let probes = PROBES.map(Input::Text);
        Ok((info, Some(self.request(&probes, config.dimensions, patience).await?)))
    }

    async fn info(&self, patience: &Patience) -> Result<TeiInfo, CallError> {
        let ask = Ask {
            path: "/info",
            body: None,
            answer_bytes_max: INFO_BYTES_MAX,
        };
        self.remote.ask(&ask, patience, TeiInfo::read).await
    }

    /// What goes into one request: as configured, and no more than the service takes.
    fn limits(&self) -> BatchLimits {
        let inputs = self.limits.inputs.min(self.inputs_max.load(Ordering::Relaxed));
        BatchLimits {
            inputs: inputs.max(1),
            ..self.limits
        }
    }

    /// Remembers that the service just said who it is, and what it takes.
    fn met(&self, info: &TeiInfo, troubles: u64) {
        let most = info.max_client_batch_size.unwrap_or(usize::MAX);
        self.inputs_max.store(most, Ordering::Relaxed);
        self.known_at.store(troubles, Ordering::Relaxed);
        self.known.store(true, Ordering::Relaxed);
    }

    /// Asks a service that was away whether it is still the same.
    async fn check_identity(&self, patience: &Patience) -> Result<(), CallError> {
        // Looked at before asking: trouble in between makes it ask again.
        let troubles = self.remote.troubles();
        let unmoved = self.known_at.load(Ordering::Relaxed) == troubles;
        if self.dialect.is_anonymous() || (self.known.load(Ordering::Relaxed) && unmoved) {
            return Ok(());
        }
        let info = self.info(patience).await?;
        if info.revision() != self.fingerprint.revision {
            let message = other_model(&info.revision(), &self.fingerprint.revision);
            return Err(CallError::BadAnswer(message));
        }
        self.met(&info, troubles);
        Ok(())
    }

    /// One request, as it is. `dim` is what its vectors must have, if that is known.
    async fn request(
        &self,
        inputs: &[Input<'_>],
        dim: Option<usize>,
        patience: &Patience,
    ) -> Result<(Vec<Vec<f32>>, Option<String>), CallError> {
        let (path, body) = match self.dialect {
            Dialect::Openai => ("/embeddings", wire::openai_body(&self.asked, inputs)),
            Dialect::Tei => ("/embed", wire::tei_body(&self.asked, inputs)),
        };
        let ask = Ask {
            path,
            body: Some(bytes(&body)),
            answer_bytes_max: wire::answer_bytes_max(inputs.len(), dim.unwrap_or(cairn_engine::limits::DIM_MAX)),
        };
        let read = |body: &[u8]| {
            let (vectors, model) = match self.dialect {
                Dialect::Openai => wire::openai_vectors(body, inputs.len())?,
                Dialect::Tei => (wire::tei_vectors(body, inputs.len())?, None),
            };
            wire::check_vectors(&vectors, dim)?;
            Ok((vectors, model))
        };
        self.remote.ask(&ask, patience, read).await
    }

    /// The inputs at `positions`, halved as often as the service refuses them. What arrives goes into `done`, also before
    /// a failure.
    async fn embed_some(&self, inputs: &[Input<'_>], positions: Vec<usize>, patience: &Patience) -> Arrived {
        let mut done = Vec::with_capacity(positions.len());
        let mut open = vec![positions];
        while let Some(part) = open.pop() {
            let these: Vec<Input<'_>> = part.iter().map(|&i| inputs[i]).collect();
            match self.request(&these, Some(self.fingerprint.dim), patience).await {
                Ok((vectors, _)) => done.extend(part.into_iter().zip(vectors)),
                Err(CallError::Rejected(_)) if part.len() > 1 => {
                    let (left, right) = part.split_at(part.len() / 2);
                    // The left half first: the first input that is refused is the one that is named.
                    open.push(right.to_vec());
                    open.push(left.to_vec());
                }
                Err(e) => {
                    let failed = match e {
                        CallError::Rejected(message) => EmbedError::Rejected {
                            index: part.first().copied(),
                            message,
                        },
                        other => other.into(),
                    };
                    return (done, Err(failed));
                }
            }
        }
        (done, Ok(()))
    }

    /// All inputs at `missing`, several requests at a time. Once one has failed no other is begun, but those under way
    /// are waited for: they are paid for.
    async fn embed_all(
        &self,
        inputs: &[Input<'_>],
        missing: &[usize],
        vectors: &mut [Option<Vec<f32>>],
        patience: &Patience,
    ) -> Result<(), EmbedError> {
        self.check_identity(patience).await?;
        let sent: Vec<Input<'_>> = missing.iter().map(|&i| inputs[i]).collect();
        let failed = AtomicBool::new(false);
        let batches = batch::plan(&sent, &self.limits());
        let batches = batches.into_iter().take_while(|_| !failed.load(Ordering::Relaxed));
        let positions = batches.map(|batch| batch.into_iter().map(|i| missing[i]).collect::<Vec<_>>());
        let mut answers = futures::stream::iter(positions)
            .map(|positions| self.embed_some(inputs, positions, patience))
            .buffer_unordered(self.remote.concurrency());
        let mut first: Option<EmbedError> = None;
        while let Some((done, result)) = answers.next().await {
            for (i, vector) in done {
                vectors[i] = Some(vector);
            }
            if let Err(e) = result {
                failed.store(true, Ordering::Relaxed);
                first.get_or_insert(e);
            }
        }
        first.map_or(Ok(()), Err)
    }
}

/// What is known of a service after it was asked.
type Met = (Option<TeiInfo>, Option<(Vec<Vec<f32>>, Option<String>)>);
/// Vectors that arrived, by position, and whether all did.
type Arrived = (Vec<(usize, Vec<f32>)>, Result<(), EmbedError>);

impl Embedder for HttpEmbedder {
    fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }

    fn takes(&self, medium: Medium) -> bool {
        medium == Medium::Text || self.media.contains(&medium)
    }

    fn embed(&self, inputs: &[Input<'_>], kind: TextKind, patience: &Patience) -> Result<Vec<Vec<f32>>, EmbedError> {
        for (index, input) in inputs.iter().enumerate() {
            let medium = input.medium();
            if !self.takes(medium) {
                return Err(EmbedError::Unsupported { index, medium });
            }
            if batch::reference(input).trim().is_empty() {
                return Err(EmbedError::EmptyText { index });
            }
        }
        let prefix = self.fingerprint.prefix(kind);
        let prefixed = |input: &Input<'_>| match *input {
            Input::Text(text) if !prefix.is_empty() => Some(format!("{prefix}{text}")),
            _ => None,
        };
        let prefixed: Vec<Option<String>> = inputs.iter().map(prefixed).collect();
        let whole = inputs.iter().zip(&prefixed);
        let whole: Vec<Input<'_>> = whole.map(|(&i, p)| p.as_deref().map_or(i, Input::Text)).collect();

        let mut vectors = self.taken(&whole, kind);
        let missing: Vec<usize> = (0..whole.len()).filter(|&i| vectors[i].is_none()).collect();
        let work = self.embed_all(&whole, &missing, &mut vectors, patience);
        let result = self
            .bridge
            .wait(patience, work)
            .map_err(EmbedError::from)
            .and_then(|r| r);
        match result {
            Ok(()) => Ok(vectors.into_iter().flatten().collect()),
            Err(e) => {
                self.keep(&whole, kind, vectors);
                Err(e)
            }
        }
    }
}

impl HttpEmbedder {
    /// What a failed call left, for these inputs.
    fn taken(&self, inputs: &[Input<'_>], kind: TextKind) -> Vec<Option<Vec<f32>>> {
        let mut kept = self.kept.lock();
        if kept.is_empty() {
            return vec![None; inputs.len()];
        }
        let take = |input| Kept::key(input, kind).and_then(|key| kept.take(key));
        inputs.iter().map(take).collect()
    }

    fn keep(&self, inputs: &[Input<'_>], kind: TextKind, vectors: Vec<Option<Vec<f32>>>) {
        let mut kept = self.kept.lock();
        for (input, vector) in inputs.iter().zip(vectors) {
            if let (Some(key), Some(vector)) = (Kept::key(input, kind), vector) {
                kept.put(key, vector);
            }
        }
    }
}

impl From<CallError> for EmbedError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Rejected(message) => Self::Rejected { index: None, message },
            CallError::Unavailable(message, retry_after) => Self::Unavailable { message, retry_after },
            CallError::BadAnswer(message) => Self::BadAnswer { message },
            CallError::Deadline => Self::Deadline,
        }
    }
}

fn other_model(found: &str, wanted: &str) -> String {
    format!(
        "the service serves {found:?}, and this embedder is {wanted:?}: serve that one, or configure another embedder"
    )
}

fn bytes(body: &Value) -> bytes::Bytes {
    body.to_string().into()
}

fn length(vector: &[f32]) -> f64 {
    vector.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt()
}
