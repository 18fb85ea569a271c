//! Other libraries written in Rust, in this process as ours is: `hnsw_rs`, and Microsoft's `diskann` over its own in-memory
//! store, with vectors and with codes of 8 bits that are measured again on 16-bit floats.
//!
//! They are compiled in with the feature `peers-rust` only, so that no other build pays for them. Their memory is measured: what
//! the process's own pages grew by while they built, after the allocator gave back what it held for nobody. So it counts what
//! an allocator rounds up, which the computed memory of ours does not.

#[cfg(feature = "peers-rust")]
mod diskann;
#[cfg(feature = "peers-rust")]
mod hnsw;

#[cfg(feature = "peers-rust")]
use cairn_engine::schema::Metric;

use super::{Case, Contestant};

const NAMES: [&str; 3] = ["hnsw_rs", "diskann", "diskann-int8"];

/// The contestant of this name if it is one of these; the inner error says why it cannot take part.
#[cfg(feature = "peers-rust")]
pub(crate) fn start<'a>(name: &str, case: &'a Case) -> Option<Result<Box<dyn Contestant + 'a>, String>> {
    if case.metric == Metric::Hamming && NAMES.contains(&name) {
        return Some(Err("it is not given bits here".into()));
    }
    Some(Ok(match name {
        "hnsw_rs" => hnsw::contestant(case),
        "diskann" => Box::new(diskann::DiskAnn::over_vectors(case)),
        "diskann-int8" => Box::new(diskann::DiskAnn::over_codes(case)),
        _ => return None,
    }))
}

#[cfg(not(feature = "peers-rust"))]
pub(crate) fn start<'a>(name: &str, _: &'a Case) -> Option<Result<Box<dyn Contestant + 'a>, String>> {
    NAMES.contains(&name).then(|| {
        Err("not compiled in: build cairn-bench with `--features cairn-bench/peers-rust`, as `make bench` does".into())
    })
}

/// MiB of this process's own pages, without those that the allocator only keeps.
#[cfg(feature = "peers-rust")]
fn own_mib() -> f64 {
    give_back();
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let own = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = own.and_then(|own| own.trim().trim_end_matches(" kB").parse().ok());
    kib.map_or(f64::NAN, |kib: f64| kib / 1024.0)
}

#[cfg(all(feature = "peers-rust", target_env = "gnu"))]
#[expect(
    unsafe_code,
    reason = "what was freed before must not be taken for memory that a library does without"
)]
fn give_back() {
    // SAFETY: it takes a number of bytes to keep and touches only what is free, under the allocator's own locks.
    unsafe { libc::malloc_trim(0) };
}

#[cfg(all(feature = "peers-rust", not(target_env = "gnu")))]
fn give_back() {}
