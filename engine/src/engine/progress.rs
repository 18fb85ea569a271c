//! How far opening is: for whoever waits for it.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// What opening does, in order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Phase {
    /// Nothing yet.
    #[default]
    Waiting,
    /// Reads the write-ahead log, and cuts off what a crash left unfinished.
    CheckingLog,
    /// Opens RocksDB, which reads its own log.
    OpeningStorage,
    /// Maps sealed segments.
    OpeningSegments,
    /// Brings rows that are not sealed back into memory.
    LoadingGrowing,
    /// Applies records whose effects were not flushed.
    Replaying,
    /// Removes files that nothing names.
    CleaningUp,
    /// Is open.
    Open,
}

impl Phase {
    /// Its name in logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::CheckingLog => "checking_log",
            Self::OpeningStorage => "opening_storage",
            Self::OpeningSegments => "opening_segments",
            Self::LoadingGrowing => "loading_growing",
            Self::Replaying => "replaying",
            Self::CleaningUp => "cleaning_up",
            Self::Open => "open",
        }
    }
}

/// How far it is. Written by the one who opens, read by anybody.
#[derive(Debug, Default)]
pub struct Progress {
    now: Mutex<Now>,
    done: AtomicU64,
    total: AtomicU64,
}

#[derive(Debug, Default)]
struct Now {
    phase: Phase,
    since: Option<Instant>,
    finished: Vec<(Phase, Duration)>,
}

impl Progress {
    /// Ends the phase before, and begins this one.
    pub(super) fn enter(&self, phase: Phase) {
        let mut now = self.now.lock();
        let before = now.phase;
        if let Some(since) = now.since.replace(Instant::now()) {
            let took = since.elapsed();
            let (done, total) = self.steps();
            let ms = took.as_millis() as u64;
            tracing::info!(phase = before.name(), ms, done, total, "a phase of opening ended");
            now.finished.push((before, took));
        }
        now.phase = phase;
        self.done.store(0, Ordering::Relaxed);
        self.total.store(0, Ordering::Relaxed);
    }

    /// How many steps the phase has.
    pub(super) fn expect(&self, steps: u64) {
        self.total.store(steps, Ordering::Relaxed);
    }

    pub(super) fn step(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }

    /// What is being done.
    pub fn phase(&self) -> Phase {
        self.now.lock().phase
    }

    /// Steps of the phase that are done, and all of them (0 = not known): segments, or records.
    pub fn steps(&self) -> (u64, u64) {
        (self.done.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed))
    }

    /// Phases that ended, with their durations.
    pub fn finished(&self) -> Vec<(Phase, Duration)> {
        self.now.lock().finished.clone()
    }
}

impl fmt::Display for Progress {
    /// For people and probes: `replaying, 1200 of 5000`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.phase().name())?;
        match self.steps() {
            (_, 0) => Ok(()),
            (done, total) => write!(f, ", {done} of {total}"),
        }
    }
}
