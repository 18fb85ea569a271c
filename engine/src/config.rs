//! What is given to an engine when it opens: numbers in [`Settings`], things that do work in [`Components`].

use std::sync::Arc;

use parking_lot::Mutex;

use crate::storage::Dir;
use crate::types::Durability;

/// Numbers, checked once at open. Defaults suit a laptop and a small server alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// A growing segment is sealed when it holds this many rows.
    pub seal_rows: usize,
    /// ... or this many bytes of vectors, payloads and postings.
    pub seal_bytes: usize,
    /// Bytes of all growing segments of the process; writes wait, then are refused, beyond it.
    pub growing_bytes_max: usize,
    /// How long a write without a deadline waits for growing memory, in milliseconds.
    pub write_wait_ms: u64,
    /// Sealed segments with fewer rows are scanned: a graph, or inverted lists, would cost more than they save.
    pub graph_rows_min: usize,
    /// Graphs are written with what each node's neighbours look like from it ([`packs`](crate::vector::packs)): searches without a filter are
    /// faster, and take more memory.
    pub graph_packs: bool,
    /// Graphs, and the codes, signs and packs that are walked with them, are copied from files into memory of their own, in pages of 2 MiB where
    /// the system has them ([`Engine::verify_step`](crate::Engine::verify_step) does it): faster, and not dropped with the page cache.
    pub graphs_in_memory: bool,
    /// Adjacent sealed segments of one size tier that are merged together.
    pub merge_fanin: usize,
    /// A sealed segment never grows beyond this many rows by merging.
    pub segment_rows_max: usize,
    /// Share of dead rows, in percent, past which a sealed segment is rewritten.
    pub dead_percent_max: u32,
    /// Bytes of log kept for rows that are not sealed yet; beyond it the oldest such rows are copied to `rows`.
    pub log_bytes_max: u64,
    /// How long records are kept that are not needed any more, in milliseconds: so far back a snapshot can be followed.
    pub log_retention_ms: u64,
    /// The most bytes of such records.
    pub log_retention_bytes_max: u64,
    /// When a write is answered whose request and collection say nothing of it.
    pub durability: Durability,
    /// The longest that an asynchronous write waits for its fsync, in milliseconds.
    pub async_window_ms: u64,
    /// Bytes of the disk that are kept free by refusing writes; 0 = 5 % of it, at most 1 GiB.
    pub disk_reserve_bytes: u64,
    /// One search over dense vectors in so many is asked again, exactly, to know how much searches find; 0 = none.
    pub recall_sample_every: u64,
    /// Take little memory, above all while opening: smaller buffers, and seals as soon as they are due.
    pub low_memory: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            seal_rows: 20_000,
            seal_bytes: 64 << 20,
            growing_bytes_max: 512 << 20,
            write_wait_ms: 5_000,
            graph_rows_min: 1_000,
            graph_packs: false,
            graphs_in_memory: false,
            merge_fanin: 8,
            segment_rows_max: 2_000_000,
            dead_percent_max: 30,
            log_bytes_max: 1 << 30,
            log_retention_ms: 0,
            log_retention_bytes_max: 16 << 30,
            durability: Durability::Sync,
            async_window_ms: 100,
            disk_reserve_bytes: 0,
            recall_sample_every: 1_000,
            low_memory: false,
        }
    }
}

/// Wall-clock time. Decides record timestamps and expiry, never durability or order.
pub trait Clock: Send + Sync {
    /// Milliseconds since the Unix epoch.
    fn now_ms(&self) -> u64;
}

/// Threads that may help with heavy background work. What is computed never depends on how many there are.
#[derive(Clone)]
pub struct Workers {
    run: Arc<Run>,
    threads: usize,
}

/// Calls the work once with each of `0..shares`, on any threads in any order, and returns when all calls have returned.
type Run = dyn Fn(usize, &(dyn Fn(usize) + Sync)) + Send + Sync;

impl Workers {
    /// Nobody helps: whoever shares work does all of it.
    pub fn alone() -> Self {
        Self::new(|shares, work| (0..shares).for_each(work))
    }

    /// Helpers that somebody else keeps. `run` must call the work once with each of `0..shares` and return after the last
    /// call has: a share that is left out is a panic of the caller.
    pub fn new(run: impl Fn(usize, &(dyn Fn(usize) + Sync)) + Send + Sync + 'static) -> Self {
        Self {
            run: Arc::new(run),
            threads: 1,
        }
    }

    /// The same, who may be so many at once, whoever asks included.
    #[must_use]
    pub fn of_threads(self, threads: usize) -> Self {
        Self { threads, ..self }
    }

    /// How many may be at work at once, at most: for a library that brings threads of its own.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// The results of all shares, in order.
    pub fn map<T: Send>(&self, shares: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
        let results: Vec<Mutex<Option<T>>> = (0..shares).map(|_| Mutex::new(None)).collect();
        (self.run)(shares, &|share| *results[share].lock() = Some(work(share)));
        let result = |slot: Mutex<Option<T>>| slot.into_inner().expect("`run` calls the work with every share");
        results.into_iter().map(result).collect()
    }
}

/// Things that do work. The engine reads no clock, spawns no thread and, outside RocksDB, opens no file by itself.
#[derive(Clone)]
pub struct Components {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Who helps to build graphs and lists, and how many threads Faiss may bring.
    pub workers: Workers,
    /// Files: [`LocalDir`](crate::storage::LocalDir), except in tests.
    pub files: Arc<dyn Dir>,
}
