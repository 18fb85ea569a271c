//! What an operator sees: structured logs and metrics. The names and labels here are part of the face of the service.
//!
//! Labels come from closed sets (method names, stable error codes): no request content ever becomes a label.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use cairn_engine::engine::{EngineStats, Phase};
use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

use crate::config::{LogConfig, LogFormat};

const REQUESTS: &str = "cairn_requests_total";
const REQUEST_SECONDS: &str = "cairn_request_duration_seconds";
const SEARCH_SECONDS: &str = "cairn_search_duration_seconds";
const IN_FLIGHT: &str = "cairn_requests_in_flight";
const REJECTED: &str = "cairn_rejected_total";
const CACHE_HITS: &str = "cairn_embedding_cache_hits_total";
const CACHE_MISSES: &str = "cairn_embedding_cache_misses_total";
const MODEL_CALLS: &str = "cairn_model_calls_total";
const MODEL_RETRIES: &str = "cairn_model_retries_total";
const MODEL_SECONDS: &str = "cairn_model_duration_seconds";
const BUILD_FAILURES: &str = "cairn_build_failures_total";
const FSYNCS: &str = "cairn_wal_fsyncs_total";
const RETENTION_CUT: &str = "cairn_log_retention_cut_bytes_total";
const RECALL_QUESTIONS: &str = "cairn_recall_questions_total";
const SCRUB_BYTES: &str = "cairn_scrub_bytes_total";
const SCRUB_ERRORS: &str = "cairn_scrub_errors_total";
const SCRUB_PASSES: &str = "cairn_scrub_passes_total";
const REPLAYS: &str = "cairn_replayed_requests_total";
const MODEL_BREAKER: &str = "cairn_model_breaker_open";
const STORE_REQUESTS: &str = "cairn_object_store_requests_total";
const STORE_SECONDS: &str = "cairn_object_store_duration_seconds";
const STORE_BYTES: &str = "cairn_object_store_bytes_total";
const UPLOADED: &str = "cairn_upload_files_total";
const UPLOADED_BYTES: &str = "cairn_upload_bytes_total";
const UPLOAD_FAILURES: &str = "cairn_upload_failures_total";
const RESTORED: &str = "cairn_damaged_segments_restored_total";
const RESTORE_FAILURES: &str = "cairn_damaged_segments_restore_failures_total";
const SNAPSHOT_AT: &str = "cairn_snapshot_last_success_timestamp_seconds";

/// Upper bounds in seconds: from a cached point read to a slow document put.
const SECONDS: [f64; 16] = [
    0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
];

/// How a request came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Api {
    /// JSON over HTTP.
    Rest,
    /// gRPC.
    Grpc,
}

impl Api {
    fn label(self) -> &'static str {
        match self {
            Self::Rest => "rest",
            Self::Grpc => "grpc",
        }
    }
}

/// Sends logs to standard error. The first call of the process wins; later ones change nothing.
pub fn init_logs(config: &LogConfig) -> Result<(), ParseError> {
    let filter: EnvFilter = config.filter.parse()?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let _already_set = match config.format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    Ok(())
}

/// The process-wide metrics registry; servers of one process (tests) share it.
pub(crate) fn recorder() -> Result<&'static PrometheusHandle, BuildError> {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    static INSTALL: parking_lot::Mutex<()> = parking_lot::Mutex::new(());
    let _one_at_a_time = INSTALL.lock();
    if let Some(handle) = HANDLE.get() {
        return Ok(handle);
    }
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_duration_seconds".into()), &SECONDS)?
        .install_recorder()?;
    describe_counter!(
        REQUESTS,
        "Requests answered, by api, method and code (ok or an error's code)"
    );
    describe_histogram!(
        REQUEST_SECONDS,
        "Time from a request's decoding to its answer, queueing included"
    );
    describe_histogram!(SEARCH_SECONDS, "Time of retrieval itself, without queueing, by method");
    describe_gauge!(IN_FLIGHT, "Requests being answered or waiting for their turn");
    describe_counter!(REJECTED, "Requests refused before any work was done, by reason");
    describe_counter!(CACHE_HITS, "Texts whose vector was in the embedding cache");
    describe_counter!(CACHE_MISSES, "Texts that had to be embedded by a configured model");
    describe_counter!(
        MODEL_CALLS,
        "Calls to services that run models, by role, model and outcome (ok, rejected, unavailable, bad_answer, deadline)"
    );
    describe_counter!(
        MODEL_RETRIES,
        "Requests to such services that were sent again, by role and model"
    );
    describe_histogram!(
        MODEL_SECONDS,
        "Time of one request to such a service, by role and model"
    );
    describe_counter!(
        BUILD_FAILURES,
        "Seals and merges that panicked; each is tried again after a pause"
    );
    describe_counter!(
        RECALL_QUESTIONS,
        "Searches over dense vectors that were asked again, exactly, to know how much they find"
    );
    describe_gauge!(
        "cairn_recall_estimate",
        "Share of the exact hits that they found, the mean over the last few hundred of them; absent before the first"
    );
    describe_counter!(FSYNCS, "Fsyncs of the write-ahead log");
    describe_counter!(
        RETENTION_CUT,
        "Bytes of the log that were to be kept for restores to a point in time and went because the disk was nearly full"
    );
    describe_counter!(REPLAYS, "Repeated requests that were answered without being done again");
    describe_counter!(SCRUB_BYTES, "Bytes that were read again to find damage");
    describe_counter!(
        SCRUB_ERRORS,
        "Files and parts of the database in which reading again found damage"
    );
    describe_counter!(SCRUB_PASSES, "Times that everything was read again");
    describe_gauge!(
        MODEL_BREAKER,
        "1 while such a service is not asked because it failed too often"
    );
    describe_counter!(
        STORE_REQUESTS,
        "Requests to the store of snapshots, by operation and outcome (ok, refused, unavailable, cancelled)"
    );
    describe_histogram!(
        STORE_SECONDS,
        "Time of one request to the store of snapshots, by operation"
    );
    describe_counter!(STORE_BYTES, "Bytes to and from the store of snapshots, by operation");
    describe_counter!(
        UPLOADED,
        "Sealed files that were sent to the store of snapshots before one needed them"
    );
    describe_counter!(UPLOADED_BYTES, "Their bytes");
    describe_counter!(
        RESTORED,
        "Damaged segments that were replaced by a copy of them from the store of snapshots"
    );
    describe_counter!(RESTORE_FAILURES, "Attempts to do so that failed, or found none");
    describe_counter!(UPLOAD_FAILURES, "Attempts to send some that failed");
    describe_gauge!(
        SNAPSHOT_AT,
        "When this process last finished a snapshot, in seconds since the Unix epoch"
    );
    Ok(HANDLE.get_or_init(|| handle))
}

/// One request, from its decoding to its answer. Dropping it unanswered counts as `cancelled`.
pub(crate) struct Request {
    api: Api,
    method: &'static str,
    started: Instant,
    answered: bool,
}

impl Request {
    pub(crate) fn begin(api: Api, method: &'static str) -> Self {
        gauge!(IN_FLIGHT, "api" => api.label()).increment(1.0);
        Self {
            api,
            method,
            started: Instant::now(),
            answered: false,
        }
    }

    /// Milliseconds so far.
    pub(crate) fn ms(&self) -> f64 {
        let ms = self.started.elapsed().as_secs_f64() * 1e3;
        (ms * 1e3).round() / 1e3
    }

    /// Records the outcome, and logs what an operator must know: failures of ours at `error`, the rest at `debug`.
    pub(crate) fn end(mut self, error: Option<&cairn_engine::Error>) {
        use cairn_engine::ErrorKind::{Damaged, Exhausted, Internal, Unavailable};
        self.answered = true;
        let (api, method, ms) = (self.api.label(), self.method, self.ms());
        self.count(error.map_or("ok", |e| e.code));
        match error {
            None => tracing::debug!(api, method, ms, "answered"),
            Some(e) if matches!(e.kind, Damaged | Internal | Unavailable) => {
                tracing::error!(api, method, ms, code = e.code, error = %e, "failed");
            }
            Some(e) => {
                if e.kind == Exhausted {
                    rejected(e.code);
                }
                tracing::debug!(api, method, ms, code = e.code, error = %e, "refused");
            }
        }
    }

    fn count(&self, code: &'static str) {
        let api = self.api.label();
        counter!(REQUESTS, "api" => api, "method" => self.method, "code" => code).increment(1);
        histogram!(REQUEST_SECONDS, "api" => api, "method" => self.method).record(self.started.elapsed().as_secs_f64());
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        gauge!(IN_FLIGHT, "api" => self.api.label()).decrement(1.0);
        if !self.answered {
            self.count("cancelled");
        }
    }
}

/// A request that an adapter or a queue refused before any work was done.
pub(crate) fn rejected(reason: &'static str) {
    counter!(REJECTED, "reason" => reason).increment(1);
}

/// Retrieval alone, without queueing and encoding.
pub(crate) fn searched(method: &'static str, started: Instant) {
    histogram!(SEARCH_SECONDS, "method" => method).record(started.elapsed().as_secs_f64());
}

/// Texts that were, and were not, in the embedding cache.
pub(crate) fn embeddings_looked_up(found: usize, missing: usize) {
    counter!(CACHE_HITS).increment(found as u64);
    counter!(CACHE_MISSES).increment(missing as u64);
}

/// What a model is for. Its name is the configuration's, so that the labels are a closed set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ModelRole {
    Embedder,
    Reranker,
}

impl ModelRole {
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Embedder => "embedder",
            Self::Reranker => "reranker",
        }
    }

    /// Whether the circuit breaker of a model's service is open.
    pub(crate) fn breaker(self, model: &str, open: bool) {
        let value = if open { 1.0 } else { 0.0 };
        gauge!(MODEL_BREAKER, "role" => self.label(), "model" => model.to_owned()).set(value);
    }
}

/// One call to a service that runs a model, retries included. Dropping it unanswered counts as `deadline`.
pub(crate) struct ModelCall<'a> {
    role: ModelRole,
    model: &'a str,
    outcome: &'static str,
}

impl<'a> ModelCall<'a> {
    pub(crate) fn begin(role: ModelRole, model: &'a str) -> Self {
        Self {
            role,
            model,
            outcome: "deadline",
        }
    }

    /// One request of the call has ended.
    pub(crate) fn answered(&self, time: Duration) {
        histogram!(MODEL_SECONDS, "role" => self.role.label(), "model" => self.model.to_owned())
            .record(time.as_secs_f64());
    }

    pub(crate) fn retried(&self) {
        counter!(MODEL_RETRIES, "role" => self.role.label(), "model" => self.model.to_owned()).increment(1);
    }

    pub(crate) fn end(mut self, outcome: &'static str) {
        self.outcome = outcome;
    }
}

impl Drop for ModelCall<'_> {
    fn drop(&mut self) {
        let (role, model) = (self.role.label(), self.model.to_owned());
        counter!(MODEL_CALLS, "role" => role, "model" => model, "outcome" => self.outcome).increment(1);
    }
}

/// What is asked of the store of snapshots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StoreOperation {
    Put,
    PutPart,
    Get,
    Head,
    List,
    Delete,
}

impl StoreOperation {
    fn label(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::PutPart => "put_part",
            Self::Get => "get",
            Self::Head => "head",
            Self::List => "list",
            Self::Delete => "delete",
        }
    }
}

/// One request to the store of snapshots. Dropping it unanswered counts as `cancelled`.
pub(crate) struct StoreRequest {
    operation: StoreOperation,
    started: Instant,
    outcome: &'static str,
}

impl StoreRequest {
    pub(crate) fn begin(operation: StoreOperation) -> Self {
        Self {
            operation,
            started: Instant::now(),
            outcome: "cancelled",
        }
    }

    pub(crate) fn done(mut self) {
        self.outcome = "ok";
    }

    pub(crate) fn failed(mut self, outcome: &'static str) {
        self.outcome = outcome;
    }
}

impl Drop for StoreRequest {
    fn drop(&mut self) {
        let operation = self.operation.label();
        counter!(STORE_REQUESTS, "operation" => operation, "outcome" => self.outcome).increment(1);
        histogram!(STORE_SECONDS, "operation" => operation).record(self.started.elapsed().as_secs_f64());
    }
}

/// Bytes of contents and manifests that went to or came from the store of snapshots.
pub(crate) fn store_moved(operation: StoreOperation, bytes: u64) {
    counter!(STORE_BYTES, "operation" => operation.label()).increment(bytes);
}

/// Sealed files were sent.
pub(crate) fn uploaded(files: u64, bytes: u64) {
    counter!(UPLOADED).increment(files);
    counter!(UPLOADED_BYTES).increment(bytes);
}

/// Sending some failed.
pub(crate) fn upload_failed() {
    counter!(UPLOAD_FAILURES).increment(1);
}

/// A damaged segment was not brought back.
pub(crate) fn restore_of_segment_failed() {
    counter!(RESTORE_FAILURES).increment(1);
}

/// What is sealed and was not sent yet.
#[expect(
    clippy::cast_precision_loss,
    reason = "gauges are floats; 2^53 bytes are out of reach"
)]
pub(crate) fn uploads_waiting(files: usize, bytes: u64) {
    gauge!("cairn_upload_waiting_files").set(files as f64);
    gauge!("cairn_upload_waiting_bytes").set(bytes as f64);
}

/// A snapshot was finished now.
pub(crate) fn snapshot_finished() {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    gauge!(SNAPSHOT_AT).set(now.as_secs_f64().floor());
}

/// The engine's numbers as gauges; called when metrics are scraped.
pub(crate) fn engine_gauges(stats: &EngineStats) {
    #[expect(
        clippy::cast_precision_loss,
        reason = "gauges are floats; 2^53 bytes or points are out of reach"
    )]
    let set = |name: &'static str, value: u64| gauge!(name).set(value as f64);
    set("cairn_collections", stats.collections);
    set("cairn_points", stats.points);
    set("cairn_segments", stats.segments);
    set("cairn_growing_bytes", stats.growing_bytes);
    set("cairn_segment_bytes", stats.segment_bytes);
    set("cairn_applied_seq", stats.applied_seq);
    set("cairn_log_start_seq", stats.log_start_seq);
    set("cairn_log_bytes", stats.log_bytes);
    set("cairn_log_retained_records", stats.retained_records);
    set("cairn_log_retained_bytes", stats.retained_bytes);
    set("cairn_log_oldest_timestamp_seconds", stats.log_oldest_ms / 1_000);
    counter!(RETENTION_CUT).absolute(stats.retention_cut_bytes);
    set("cairn_replayed_records", stats.replayed_records);
    set("cairn_seals", stats.seals);
    set("cairn_merges", stats.merges);
    set("cairn_builds_failing", stats.builds_failing);
    counter!(BUILD_FAILURES).absolute(stats.build_failures);
    set("cairn_unsynced_records", stats.unsynced.records);
    set("cairn_unsynced_bytes", stats.unsynced.bytes);
    gauge!("cairn_unsynced_age_seconds").set(stats.unsynced.age.as_secs_f64());
    counter!(FSYNCS).absolute(stats.fsyncs.count);
    gauge!("cairn_wal_fsync_seconds_total").set(stats.fsyncs.time.as_secs_f64());
    gauge!("cairn_wal_fsync_seconds_max").set(stats.fsyncs.longest.as_secs_f64());
    set("cairn_wal_dropped_bytes", stats.dropped_log_bytes);
    set("cairn_requests_remembered", stats.requests);
    counter!(REPLAYS).absolute(stats.replayed_requests);
    set("cairn_disk_free_bytes", stats.disk.free);
    set("cairn_disk_reserve_bytes", stats.disk.reserve);
    set("cairn_disk_full", u64::from(stats.disk_full));
    set("cairn_segment_blocks", stats.blocks);
    set("cairn_segment_blocks_verified", stats.blocks_verified);
    set("cairn_graph_memory_bytes", stats.graph_memory_bytes);
    set("cairn_damaged_segments", stats.damaged_segments);
    set("cairn_damaged_points", stats.damaged_points);
    counter!(RESTORED).absolute(stats.taken_back);
    counter!(SCRUB_BYTES).absolute(stats.scrub.bytes);
    counter!(SCRUB_ERRORS).absolute(stats.scrub.errors);
    counter!(SCRUB_PASSES).absolute(stats.scrub.passes);
    gauge!("cairn_scrub_last_pass_timestamp_seconds").set((stats.scrub.last_pass_ms / 1_000) as f64);
    counter!(RECALL_QUESTIONS).absolute(stats.recall.questions);
    if stats.recall.questions > 0 {
        gauge!("cairn_recall_estimate").set(stats.recall.recall);
    }
    set("cairn_graphs_refined", stats.graphs.refined + stats.inverted.refined);
    #[expect(clippy::cast_precision_loss, reason = "as above")]
    let graphs = |codes: &'static str, graphs: u64| gauge!("cairn_graphs", "codes" => codes).set(graphs as f64);
    graphs("int8", stats.graphs.int8);
    graphs("int4", stats.graphs.int4);
    graphs("none", stats.graphs.f32);
    #[expect(clippy::cast_precision_loss, reason = "as above")]
    let inverted = |codes: &'static str, lists: u64| gauge!("cairn_inverted", "codes" => codes).set(lists as f64);
    inverted("int8", stats.inverted.int8);
    inverted("int4", stats.inverted.int4);
    inverted("none", stats.inverted.f32);
}

/// How long it took, from when the server was ready, until no search had to wait for a file to be verified.
pub(crate) fn verified(took: Duration) {
    gauge!("cairn_start_seconds", "phase" => "verifying").set(took.as_secs_f64());
}

/// How long each phase of opening took.
pub(crate) fn opened(phases: &[(Phase, Duration)]) {
    for (phase, took) in phases {
        gauge!("cairn_start_seconds", "phase" => phase.name()).set(took.as_secs_f64());
    }
}
