//! Where things are: the workspace and the data sets; and what a record says of the machine and the commit.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use cairn_engine::config::Clock;

/// The workspace's root.
pub(crate) fn workspace() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_path_buf()
}

/// Where the scripts put what they fetch: `CAIRN_BENCH_CACHE`, which `make bench` sets to its cache.
fn cache() -> PathBuf {
    if let Some(cache) = std::env::var_os("CAIRN_BENCH_CACHE") {
        return cache.into();
    }
    let home = std::env::var_os("HOME").map_or_else(|| "/root".into(), PathBuf::from);
    home.join(".cache/cairn")
}

/// A Python that has other libraries: what `CAIRN_BENCH_PYTHON` names, or what `scripts/peers.sh` made, or that of the system.
pub(crate) fn python() -> String {
    let made = cache().join("peers-venv/bin/python");
    let found = std::env::var("CAIRN_BENCH_PYTHON").ok();
    let found = found.or_else(|| made.is_file().then(|| made.display().to_string()));
    found.unwrap_or_else(|| "python3".to_owned())
}

/// A file or folder of the data sets, or of what `scripts/peers.sh` fetched; `Err` is the reason to skip.
pub(crate) fn data(name: &str) -> Result<PathBuf, String> {
    let root = std::env::var_os("CAIRN_DATA").map_or_else(|| workspace().join("../shared/data"), PathBuf::from);
    let path = root.join(name);
    if path.exists() {
        return Ok(path);
    }
    let fetched = cache().join("data").join(name);
    if fetched.exists() {
        return Ok(fetched);
    }
    Err(format!(
        "{} is not there; CAIRN_DATA names the folder of the data sets",
        path.display()
    ))
}

/// The directory of a model that `make models` fetched; `Err` is the reason to skip.
pub(crate) fn model(name: &str) -> Result<PathBuf, String> {
    let models = std::env::var_os("CAIRN_MODELS").map_or_else(|| cache().join("models"), PathBuf::from);
    let dir = models.join(name);
    if dir.join("model.safetensors").is_file() {
        return Ok(dir);
    }
    Err(format!("{} holds no model: run `make models`", dir.display()))
}

/// The commit that is measured, with `+` if the tree has changes.
pub(crate) fn commit() -> &'static str {
    static COMMIT: OnceLock<String> = OnceLock::new();
    COMMIT.get_or_init(|| {
        let git = |args: &[&str]| {
            let out = Command::new("git").current_dir(workspace()).args(args).output().ok()?;
            out.status
                .success()
                .then(|| String::from_utf8_lossy(&out.stdout).trim().to_owned())
        };
        let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) else {
            return "unknown".to_owned();
        };
        let changed = git(&["status", "--porcelain", "--untracked-files=no"]).is_none_or(|s| !s.is_empty());
        if changed { format!("{commit}+") } else { commit }
    })
}

/// Processor, cores and memory, and whether debug assertions slow things down.
pub(crate) fn machine() -> &'static str {
    static MACHINE: OnceLock<String> = OnceLock::new();
    MACHINE.get_or_init(|| {
        let line = |file: &str, key: &str| {
            let text = std::fs::read_to_string(file).unwrap_or_default();
            let found = text
                .lines()
                .find(|l| l.starts_with(key))
                .and_then(|l| l.split_once(':'));
            found.map_or_else(|| "unknown".to_owned(), |(_, v)| v.trim().to_owned())
        };
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let kib: u64 = line("/proc/meminfo", "MemTotal")
            .trim_end_matches(" kB")
            .parse()
            .unwrap_or(0);
        let profile = if cfg!(debug_assertions) { "dev" } else { "release" };
        format!(
            "{cores} x {}, {} GiB, {profile} profile",
            line("/proc/cpuinfo", "model name"),
            kib >> 20
        )
    })
}

/// Bytes of all files under a directory.
pub(crate) fn disk_bytes(dir: &Path) -> anyhow::Result<u64> {
    let mut total = 0;
    for entry in std::fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        // Background work may remove a file between listing and looking.
        let Ok(entry) = entry else { continue };
        let Ok(meta) = entry.metadata() else { continue };
        total += if meta.is_dir() {
            disk_bytes(&entry.path()).unwrap_or(0)
        } else {
            meta.len()
        };
    }
    Ok(total)
}

/// The time of day, for an engine in this process.
pub(crate) struct WallClock;

impl Clock for WallClock {
    fn now_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}
