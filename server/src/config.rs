//! Everything that can be set, typed, with its default, checked once at start.
//!
//! Sources, later ones win: defaults, a TOML file, `CAIRN_...` environment variables (two underscores step into a table:
//! `CAIRN_LIMITS__BODY_BYTES_MAX`), flags. A key that nothing reads is refused by name, in every source: a typo must not
//! silently leave a bound at its default.

mod models;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cairn_engine::types::Durability;
use figment::error::Kind;
use figment::providers::{Env, Format, Serialized, Toml};
use figment::{Figment, Provider};
use serde::{Deserialize, Serialize};

pub use self::models::{
    EmbedderConfig, Encoding, HttpEmbedder, HttpReranker, LateReranker, LocalModel, MediaShape, RerankerConfig,
};
use crate::rag::models::BUILTIN_EMBEDDER;
use crate::service::bounds::{READS_MAX, WRITES_MAX};

/// Environment variables with our prefix that are not configuration of the server: those that the
/// command line and the build read themselves.
pub const NOT_CONFIG: [&str; 5] = ["config", "url", "timeout_ms", "cache", "models"];

/// With `engine.low_memory`: the most of `engine.seal_bytes` and `engine.growing_bytes_max`.
const LOW_SEAL_BYTES: usize = 8 << 20;
const LOW_GROWING_BYTES: usize = 32 << 20;
/// Keys that hold an address.
const ADDRESSES: [&str; 2] = ["listen", "metrics_listen"];

/// The server's configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Address of REST and gRPC. Port 0 takes any free one.
    pub listen: SocketAddr,
    /// Address of `/metrics`, `/livez` and `/readyz`, which are served nowhere else.
    pub metrics_listen: SocketAddr,
    /// Directory of the database; made if missing, locked while in use.
    pub data_dir: PathBuf,
    /// Listen beyond loopback although nobody is asked who they are.
    pub insecure_no_auth: bool,
    /// On shutdown, how long requests in flight may take to finish, in milliseconds.
    pub drain_ms: u64,
    /// Embedder of collections made without a schema (the documents preset): the built-in one, or a dense one of `embedders`.
    pub default_embedder: String,
    /// Bytes of vectors that are remembered so as not to be computed again; 0 remembers none.
    pub embedding_cache_bytes: usize,
    /// Bounds.
    pub limits: Limits,
    /// The engine.
    pub engine: EngineConfig,
    /// Snapshots.
    pub snapshots: SnapshotsConfig,
    /// Logs.
    pub log: LogConfig,
    /// Models that turn text into vectors, by name, besides the built-in one.
    pub embedders: BTreeMap<String, EmbedderConfig>,
    /// Models that order texts by how well they answer, by name.
    pub rerankers: BTreeMap<String, RerankerConfig>,
}

/// Bounds of the service. Those of the data model are constants in `cairn_engine::limits`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Bytes of a request body or gRPC message, after decompression.
    pub body_bytes_max: usize,
    /// Bytes of all requests that are being received or worked on; more are refused with 429.
    pub bodies_bytes_max: usize,
    /// Open connections.
    pub connections_max: usize,
    /// Reads that run at the same time; 0 = twice the processors, as they sometimes wait for the disk.
    pub reads_max: usize,
    /// Reads that wait for one of those places; more are refused with 429.
    pub reads_queued_max: usize,
    /// Writes that run at the same time. They mostly wait for the disk together, so there are more than processors.
    pub writes_max: usize,
    /// Writes that wait for one of those places; more are refused with 429.
    pub writes_queued_max: usize,
    /// Deadline of a request that names none, in milliseconds.
    pub timeout_ms: u64,
    /// The longest deadline a request may name, in milliseconds; a longer one is shortened.
    pub timeout_ms_max: u64,
    /// How long a connection may take to send the head of a request, in milliseconds.
    pub header_timeout_ms: u64,
}

/// Numbers of the engine; see `cairn_engine::config::Settings`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EngineConfig {
    /// A growing segment is sealed when it holds this many rows.
    pub seal_rows: usize,
    /// ... or this many bytes.
    pub seal_bytes: usize,
    /// Bytes of all growing segments of the process; writes wait, then are refused, beyond it.
    pub growing_bytes_max: usize,
    /// How long a write without a deadline waits for growing memory, in milliseconds.
    pub write_wait_ms: u64,
    /// A sealed segment of fewer rows is scanned exactly instead of getting a graph or inverted lists.
    pub graph_rows_min: usize,
    /// Graphs are written with what each node's neighbours look like from it: faster searches for more memory.
    pub graph_packs: bool,
    /// Graphs and what is walked with them are kept in memory of their own, in pages of 2 MiB where the system has them.
    pub graphs_in_memory: bool,
    /// Adjacent sealed segments of one size tier that are merged together.
    pub merge_fanin: usize,
    /// A sealed segment never grows beyond this many rows by merging.
    pub segment_rows_max: usize,
    /// Share of dead rows, in percent, past which a sealed segment is rewritten.
    pub dead_percent_max: u32,
    /// Bytes of log kept for rows that are not sealed yet.
    pub log_bytes_max: u64,
    /// How long records of the log are kept that no row needs any more, in milliseconds, for restores to a point in time.
    pub log_retention_ms: u64,
    /// The most bytes of such records.
    pub log_retention_bytes_max: u64,
    /// Threads that build graphs, of all builds together; 0 = half of the processors.
    pub build_threads: usize,
    /// When a write is answered whose request and collection say nothing of it.
    pub durability: Durability,
    /// The longest that an asynchronous write waits for its fsync, in milliseconds.
    pub async_window_ms: u64,
    /// Bytes of the disk that are kept free by refusing writes; 0 = 5 % of it, at most 1 GiB.
    pub disk_reserve_bytes: u64,
    /// One search over dense vectors in so many is asked again, exactly, to know how much searches find; 0 = none.
    pub recall_sample_every: u64,
    /// Take little memory, above all while starting: small buffers, few growing rows, early seals.
    pub low_memory: bool,
    /// How fast files and the database are read again in the background to find damage; 0 = not at all.
    pub scrub_bytes_per_second: u64,
}

/// Snapshots: where they are kept, and what may be asked of that place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SnapshotsConfig {
    /// A directory, `s3://bucket/prefix`, `gs://bucket/prefix` or `az://container/prefix`; empty: the directory beside
    /// `data_dir` that is called like it, with `-snapshots` at the end. Credentials come from the environment alone.
    pub url: String,
    /// Sealed files are sent there as soon as they are sealed, so that a snapshot has less to send.
    pub upload_sealed: bool,
    /// Damaged sealed files are brought back from there while the server runs.
    pub restore_damaged: bool,
    /// Files that are sent or fetched at the same time.
    pub transfers_max: usize,
    /// Bytes a second that are sent and fetched, of all transfers together; 0: no bound.
    pub bytes_per_second_max: u64,
    /// Time for one request to the store, in milliseconds.
    pub request_timeout_ms: u64,
    /// How long a request that failed for reasons that may pass is sent again, in milliseconds.
    pub retry_ms: u64,
}

impl SnapshotsConfig {
    /// The longest `request_timeout_ms`; leases rely on it.
    pub const REQUEST_TIMEOUT_MS_MAX: u64 = 120_000;
    /// The longest `retry_ms`; leases rely on it.
    pub const RETRY_MS_MAX: u64 = 300_000;
}

/// Logs, written to standard error.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// For people or for machines.
    pub format: LogFormat,
    /// What is logged, e.g. `info` or `info,cairn_server=debug`.
    pub filter: String,
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// One line of text.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Why a configuration was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 7700)),
            metrics_listen: SocketAddr::from(([127, 0, 0, 1], 7701)),
            data_dir: PathBuf::from("./data"),
            insecure_no_auth: false,
            drain_ms: 10_000,
            default_embedder: BUILTIN_EMBEDDER.to_owned(),
            embedding_cache_bytes: 64 << 20,
            limits: Limits::default(),
            engine: EngineConfig::default(),
            snapshots: SnapshotsConfig::default(),
            log: LogConfig::default(),
            embedders: BTreeMap::new(),
            rerankers: BTreeMap::new(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes_max: 32 << 20,
            bodies_bytes_max: 256 << 20,
            connections_max: 4_096,
            reads_max: 0,
            reads_queued_max: 1_024,
            writes_max: 32,
            writes_queued_max: 256,
            timeout_ms: 30_000,
            timeout_ms_max: 600_000,
            header_timeout_ms: 10_000,
        }
    }
}

impl Default for EngineConfig {
    fn default() -> Self {
        let s = cairn_engine::config::Settings::default();
        Self {
            seal_rows: s.seal_rows,
            seal_bytes: s.seal_bytes,
            growing_bytes_max: s.growing_bytes_max,
            write_wait_ms: s.write_wait_ms,
            graph_rows_min: s.graph_rows_min,
            graph_packs: s.graph_packs,
            graphs_in_memory: s.graphs_in_memory,
            merge_fanin: s.merge_fanin,
            segment_rows_max: s.segment_rows_max,
            dead_percent_max: s.dead_percent_max,
            log_bytes_max: s.log_bytes_max,
            log_retention_ms: s.log_retention_ms,
            log_retention_bytes_max: s.log_retention_bytes_max,
            build_threads: 0,
            durability: s.durability,
            async_window_ms: s.async_window_ms,
            disk_reserve_bytes: s.disk_reserve_bytes,
            recall_sample_every: s.recall_sample_every,
            low_memory: s.low_memory,
            scrub_bytes_per_second: 4 << 20,
        }
    }
}

impl Default for SnapshotsConfig {
    fn default() -> Self {
        Self {
            url: String::new(),
            upload_sealed: false,
            restore_damaged: true,
            transfers_max: 4,
            bytes_per_second_max: 0,
            request_timeout_ms: 30_000,
            retry_ms: 120_000,
        }
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            format: LogFormat::Text,
            filter: "info".into(),
        }
    }
}

impl Config {
    /// Reads defaults, `file`, the environment and `flags` (dotted key, value as in TOML; a bare word is a string), in
    /// this order, and checks the result.
    pub fn load(file: Option<&Path>, flags: &[(String, String)]) -> Result<Self, ConfigError> {
        let mut sources = Figment::from(Serialized::defaults(Self::default()));
        if let Some(path) = file {
            if !path.is_file() {
                return Err(ConfigError(format!("config file {} does not exist", path.display())));
            }
            sources = sources.merge(Toml::file_exact(path));
        }
        sources = sources.merge(Env::prefixed("CAIRN_").ignore(&NOT_CONFIG).split("__"));
        for (key, value) in flags {
            let value: figment::value::Value = match value.parse() {
                Ok(value) => value,
                Err(never) => match never {},
            };
            sources = sources.merge(Flag { key, value });
        }
        let config: Self = sources.extract().map_err(explain)?;
        config.check()?;
        Ok(config)
    }

    /// Refuses values that cannot work.
    pub fn check(&self) -> Result<(), ConfigError> {
        let loopback = self.listen.ip().is_loopback();
        if !loopback && !self.insecure_no_auth {
            return Err(ConfigError(format!(
                "listen = \"{}\" is reachable from other machines, and this version asks nobody who they are: listen on \
                 127.0.0.1, or say --insecure-no-auth (insecure_no_auth = true) if the network is trusted",
                self.listen
            )));
        }
        if self.listen.port() != 0 && self.listen == self.metrics_listen {
            return Err(ConfigError(format!(
                "listen and metrics_listen must differ, both are \"{}\"",
                self.listen
            )));
        }
        let l = &self.limits;
        let bounds = [
            ("limits.body_bytes_max", l.body_bytes_max as u64, 1 << 10, 1 << 30),
            (
                "limits.bodies_bytes_max",
                l.bodies_bytes_max as u64,
                l.body_bytes_max as u64,
                1 << 40,
            ),
            ("limits.connections_max", l.connections_max as u64, 1, 1 << 20),
            ("limits.reads_max", l.reads_max as u64, 0, READS_MAX as u64),
            ("limits.reads_queued_max", l.reads_queued_max as u64, 0, 1 << 20),
            ("limits.writes_max", l.writes_max as u64, 1, WRITES_MAX as u64),
            ("limits.writes_queued_max", l.writes_queued_max as u64, 0, 1 << 20),
            ("limits.timeout_ms", l.timeout_ms, 1, l.timeout_ms_max),
            ("limits.timeout_ms_max", l.timeout_ms_max, 1, 86_400_000),
            ("limits.header_timeout_ms", l.header_timeout_ms, 10, 600_000),
            ("drain_ms", self.drain_ms, 0, 3_600_000),
            ("embedding_cache_bytes", self.embedding_cache_bytes as u64, 0, 1 << 40),
            ("engine.seal_rows", self.engine.seal_rows as u64, 1, 100_000_000),
            ("engine.seal_bytes", self.engine.seal_bytes as u64, 1 << 10, 1 << 40),
            (
                "engine.growing_bytes_max",
                self.engine.growing_bytes_max as u64,
                1 << 20,
                1 << 44,
            ),
            ("engine.write_wait_ms", self.engine.write_wait_ms, 0, 600_000),
            (
                "engine.graph_rows_min",
                self.engine.graph_rows_min as u64,
                1,
                100_000_000,
            ),
            (
                "engine.segment_rows_max",
                self.engine.segment_rows_max as u64,
                1_000,
                100_000_000,
            ),
            ("engine.log_bytes_max", self.engine.log_bytes_max, 1 << 16, 1 << 44),
            // A year; a petabyte.
            (
                "engine.log_retention_ms",
                self.engine.log_retention_ms,
                0,
                31_536_000_000,
            ),
            (
                "engine.log_retention_bytes_max",
                self.engine.log_retention_bytes_max,
                1 << 20,
                1 << 50,
            ),
            ("engine.build_threads", self.engine.build_threads as u64, 0, 1_024),
            ("engine.async_window_ms", self.engine.async_window_ms, 1, 60_000),
            ("engine.disk_reserve_bytes", self.engine.disk_reserve_bytes, 0, 1 << 44),
            (
                "engine.scrub_bytes_per_second",
                self.engine.scrub_bytes_per_second,
                0,
                1 << 40,
            ),
            (
                "engine.recall_sample_every",
                self.engine.recall_sample_every,
                0,
                1 << 40,
            ),
            ("engine.merge_fanin", self.engine.merge_fanin as u64, 2, 64),
            (
                "engine.dead_percent_max",
                u64::from(self.engine.dead_percent_max),
                1,
                100,
            ),
            ("snapshots.transfers_max", self.snapshots.transfers_max as u64, 1, 64),
            (
                "snapshots.bytes_per_second_max",
                self.snapshots.bytes_per_second_max,
                0,
                1 << 40,
            ),
            (
                "snapshots.request_timeout_ms",
                self.snapshots.request_timeout_ms,
                100,
                SnapshotsConfig::REQUEST_TIMEOUT_MS_MAX,
            ),
            (
                "snapshots.retry_ms",
                self.snapshots.retry_ms,
                0,
                SnapshotsConfig::RETRY_MS_MAX,
            ),
        ];
        for (key, value, least, most) in bounds {
            if !(least..=most).contains(&value) {
                return Err(ConfigError(format!("{key} must be {least} to {most}, got {value}")));
            }
        }
        crate::snapshot::Place::parse(&self.snapshots.url).map_err(ConfigError)?;
        for (name, embedder) in &self.embedders {
            embedder.check(name)?;
        }
        for (name, reranker) in &self.rerankers {
            reranker.check(name)?;
        }
        Ok(())
    }

    /// Who helps the engine to build graphs.
    pub fn workers(&self) -> cairn_engine::config::Workers {
        let threads = match self.engine.build_threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from).div_ceil(2),
            threads => threads,
        };
        // A build's own thread is one of them.
        crate::workers::helpers(threads - 1)
    }

    /// The engine's settings.
    pub fn settings(&self) -> cairn_engine::config::Settings {
        let e = &self.engine;
        let (seal_bytes, growing_bytes_max) = match e.low_memory {
            true => (
                e.seal_bytes.min(LOW_SEAL_BYTES),
                e.growing_bytes_max.min(LOW_GROWING_BYTES),
            ),
            false => (e.seal_bytes, e.growing_bytes_max),
        };
        cairn_engine::config::Settings {
            seal_rows: e.seal_rows,
            seal_bytes,
            growing_bytes_max,
            write_wait_ms: e.write_wait_ms,
            graph_rows_min: e.graph_rows_min,
            graph_packs: e.graph_packs,
            graphs_in_memory: e.graphs_in_memory,
            merge_fanin: e.merge_fanin,
            segment_rows_max: e.segment_rows_max,
            dead_percent_max: e.dead_percent_max,
            log_bytes_max: e.log_bytes_max,
            log_retention_ms: e.log_retention_ms,
            log_retention_bytes_max: e.log_retention_bytes_max,
            durability: e.durability,
            async_window_ms: e.async_window_ms,
            disk_reserve_bytes: e.disk_reserve_bytes,
            recall_sample_every: e.recall_sample_every,
            low_memory: e.low_memory,
        }
    }

    /// Settings of an engine that is opened beside the one that serves, and only read: it takes little memory, however much that
    /// one may take, and builds no graphs that nobody walks on.
    pub fn settings_to_read(&self) -> cairn_engine::config::Settings {
        let engine = EngineConfig {
            low_memory: true,
            graph_rows_min: usize::MAX,
            disk_reserve_bytes: self.engine.disk_reserve_bytes,
            ..EngineConfig::default()
        };
        let reading = Self {
            engine,
            ..Self::default()
        };
        reading.settings()
    }
}

impl Limits {
    /// The deadline a request gets: what it asked for within the bound, or the default.
    pub fn timeout(&self, asked: Option<Duration>) -> Duration {
        asked
            .unwrap_or(Duration::from_millis(self.timeout_ms))
            .min(Duration::from_millis(self.timeout_ms_max))
    }
}

/// One flag as a source; a plain pair would be shown in messages by its Rust type.
struct Flag<'a> {
    key: &'a str,
    value: figment::value::Value,
}

impl Provider for Flag<'_> {
    fn metadata(&self) -> figment::Metadata {
        figment::Metadata::named("flags")
    }

    fn data(&self) -> figment::Result<figment::value::Map<figment::Profile, figment::value::Dict>> {
        Serialized::global(self.key, &self.value).data()
    }
}

/// Says which key of which source is wrong, and what is allowed.
fn explain(error: figment::Error) -> ConfigError {
    let source = error
        .metadata
        .as_ref()
        .map_or_else(String::new, |m| format!(" in {}", m.name));
    let at = error.path.join(".");
    ConfigError(match &error.kind {
        Kind::UnknownField(field, allowed) => {
            let key = if at.is_empty() || at.ends_with(field.as_str()) {
                field.clone()
            } else {
                format!("{at}.{field}")
            };
            format!("unknown key {key:?}{source}; allowed here: {}", allowed.join(", "))
        }
        Kind::Message(_) | Kind::InvalidValue(..) | Kind::InvalidType(..) if ADDRESSES.contains(&at.as_str()) => {
            format!("key {at:?}{source}: must be an IP address and a port, e.g. 127.0.0.1:7700")
        }
        kind => format!("key {at:?}{source}: {kind}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flag(key: &str, value: &str) -> Result<Config, ConfigError> {
        Config::load(None, &[(key.into(), value.into())])
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("cairn.toml");
        std::fs::write(&file, "drain_ms = 5\n[limits]\nwrites_max = 7\nreads_max = 3\n").unwrap();
        let config = Config::load(Some(&file), &[("limits.reads_max".into(), "9".into())]).unwrap();
        assert_eq!(
            (config.drain_ms, config.limits.writes_max, config.limits.reads_max),
            (5, 7, 9)
        );
        assert_eq!(config.limits.timeout_ms, Limits::default().timeout_ms);
    }

    #[test]
    fn an_unknown_key_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("cairn.toml");
        std::fs::write(&file, "[limits]\nbody_byte_max = 7\n").unwrap();
        let message = Config::load(Some(&file), &[]).unwrap_err().to_string();
        assert!(
            message.contains("body_byte_max") && message.contains("body_bytes_max"),
            "{message}"
        );
        let message = flag("lissten", "127.0.0.1:1").unwrap_err().to_string();
        assert!(message.contains("\"lissten\""), "{message}");
    }

    #[test]
    fn a_wrong_type_names_its_key() {
        let message = flag("limits.writes_max", "many").unwrap_err().to_string();
        assert!(message.contains("limits.writes_max"), "{message}");
        assert!(message.contains("in flags"), "{message}");
        for wrong in ["here", "localhost:7700", "7700"] {
            let message = flag("listen", wrong).unwrap_err().to_string();
            assert_eq!(
                message,
                "key \"listen\" in flags: must be an IP address and a port, e.g. 127.0.0.1:7700"
            );
        }
    }

    #[test]
    fn the_part_of_an_embedder_in_a_hybrid_is_checked() {
        let dir = tempfile::tempdir().unwrap();
        let load = |kind: &str, said: &str| {
            let file = dir.path().join("cairn.toml");
            let text = format!("[embedders.m]\ntype = \"{kind}\"\ndir = \"/m\"\n{said}\n");
            std::fs::write(&file, text).unwrap();
            Config::load(Some(&file), &[]).map_err(|e| e.to_string())
        };
        assert!(load("bert", "languages = \"any\"\nhybrid_weight = 0.5").is_ok());
        assert!(load("splade", "").is_ok());
        for (kind, said, why) in [
            (
                "bert",
                "hybrid_weight = 101.0",
                "embedders.m.hybrid_weight must be 0 to 100",
            ),
            ("bert", "languages = \"klingon\"", "klingon"),
            ("splade", "hybrid_weight = 0.5", "no sparse leg"),
            ("splade", "languages = \"any\"", "no sparse leg"),
        ] {
            let message = load(kind, said).unwrap_err();
            assert!(message.contains(why), "{said}: {message}");
        }
    }

    #[test]
    fn listening_to_the_world_without_auth_must_be_said_twice() {
        let message = flag("listen", "0.0.0.0:7700").unwrap_err().to_string();
        assert!(message.contains("--insecure-no-auth"), "{message}");
        let flags = [
            ("listen".into(), "0.0.0.0:7700".into()),
            ("insecure_no_auth".into(), "true".into()),
        ];
        assert!(Config::load(None, &flags).is_ok());
    }

    #[test]
    fn bounds_are_checked_and_named() {
        for (key, value) in [
            ("limits.body_bytes_max", "0"),
            ("limits.timeout_ms", "999999999"),
            ("engine.merge_fanin", "1"),
            ("engine.write_wait_ms", "600001"),
            ("engine.graph_rows_min", "0"),
            ("engine.segment_rows_max", "999"),
            ("engine.log_bytes_max", "1"),
            ("engine.log_retention_ms", "31536000001"),
            ("engine.log_retention_bytes_max", "1"),
            ("engine.build_threads", "1025"),
            ("limits.reads_max", "257"),
            ("limits.writes_max", "129"),
            ("snapshots.transfers_max", "0"),
            ("snapshots.retry_ms", "300001"),
            ("snapshots.url", "ftp://x/y"),
        ] {
            let message = flag(key, value).unwrap_err().to_string();
            assert!(message.starts_with(key), "{message}");
        }
    }
}
