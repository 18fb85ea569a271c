//! A log in memory for the simulation, with the same promise as [`LocalLog`](super::LocalLog) and a power switch: what was
//! synced is kept, of what was not a beginning is, and a trim may come undone.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Fsyncs, Log, Unsynced};
use crate::error::{Error, Result};
use crate::storage::faulty::{Chance, Faults};
use crate::types::{Durability, Seq};

/// The log, as the disk has it. Outlives the engine.
pub struct MemoryLog {
    faults: Arc<Faults>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    records: BTreeMap<u64, Vec<u8>>,
    /// Of `records`, those from here on are not synced.
    synced: u64,
    /// Trimmed since the last loss of power.
    trimmed: BTreeMap<u64, Vec<u8>>,
}

impl MemoryLog {
    /// An empty log on a disk that fails as `faults` say.
    pub fn new(faults: Arc<Faults>) -> Self {
        let state = State {
            synced: u64::MAX,
            ..State::default()
        };
        Self {
            faults,
            state: Mutex::new(state),
        }
    }

    /// A process opens it: what it finds, it brings to disk before it gives it.
    pub fn reopen(&self) {
        self.state.lock().synced = u64::MAX;
    }

    /// The state was flushed. RocksDB brings the log to disk with the effects that it holds.
    pub fn flushed(&self) {
        self.state.lock().synced = u64::MAX;
    }

    /// A copy, as a snapshot takes it right after the record `last`.
    pub fn copy(&self, last: Seq) -> Self {
        let records = self.state.lock().records.clone();
        let copy = Self::new(Arc::default());
        copy.state.lock().records = records.into_iter().take_while(|(seq, _)| *seq <= last.0).collect();
        copy
    }

    /// The power goes: of records that were not synced the first few are kept, and the last trims come undone.
    pub fn lose_power(&self, chance: &mut Chance) {
        let mut state = self.state.lock();
        let unsynced: Vec<u64> = state.records.range(state.synced..).map(|(seq, _)| *seq).collect();
        let kept = chance.below(unsynced.len() as u64 + 1) as usize;
        unsynced[kept..].iter().for_each(|seq| drop(state.records.remove(seq)));
        let trimmed = std::mem::take(&mut state.trimmed);
        let back = chance.below(trimmed.len() as u64 + 1) as usize;
        state.records.extend(trimmed.into_iter().skip(back));
        state.synced = u64::MAX;
    }

    /// Loses the last record, against its word.
    pub fn forget(&self) {
        self.state.lock().records.pop_last();
    }
}

impl Log for MemoryLog {
    fn append(&self, first: Seq, records: &[Vec<u8>], wanted: Durability) -> Result<Durability> {
        {
            let mut state = self.state.lock();
            if let Some((last, _)) = state.records.last_key_value()
                && *last + 1 != first.0
            {
                return Err(Error::internal(format!("record {} follows {last}", first.0)));
            }
            state.synced = state.synced.min(first.0);
            state.records.extend((first.0..).zip(records.iter().cloned()));
        }
        if wanted == Durability::Async {
            return Ok(Durability::Async);
        }
        self.faults.point("log append: before its sync")?;
        self.state.lock().synced = u64::MAX;
        Ok(Durability::Sync)
    }

    fn begin(&self, _: Seq) {}

    fn sync(&self) -> Result<()> {
        if self.unsynced().records > 0 {
            self.faults.point("log sync: within")?;
            self.state.lock().synced = u64::MAX;
        }
        Ok(())
    }

    fn unsynced(&self) -> Unsynced {
        let state = self.state.lock();
        Unsynced {
            records: state.records.range(state.synced..).count() as u64,
            ..Unsynced::default()
        }
    }

    fn durability(&self, seq: Seq) -> Durability {
        match seq.0 < self.state.lock().synced {
            true => Durability::Sync,
            false => Durability::Async,
        }
    }

    fn fsyncs(&self) -> Fsyncs {
        Fsyncs::default()
    }

    fn last(&self) -> Result<Option<Seq>> {
        Ok(self.state.lock().records.last_key_value().map(|(seq, _)| Seq(*seq)))
    }

    fn scan(&self, from: Seq, each: &mut dyn FnMut(Seq, &[u8]) -> Result<bool>) -> Result<()> {
        let mut at = from.0;
        loop {
            let next = {
                let state = self.state.lock();
                state
                    .records
                    .range(at..)
                    .next()
                    .map(|(seq, bytes)| (*seq, bytes.clone()))
            };
            match next {
                Some((seq, bytes)) if each(Seq(seq), &bytes)? => at = seq + 1,
                _ => return Ok(()),
            }
        }
    }

    fn bytes(&self, seq: Seq) -> Result<Option<Vec<u8>>> {
        Ok(self.state.lock().records.get(&seq.0).cloned())
    }

    fn trim(&self, from: Seq, to: Seq) -> Result<()> {
        let State { records, trimmed, .. } = &mut *self.state.lock();
        let gone: Vec<u64> = records.range(from.0..to.0).map(|(seq, _)| *seq).collect();
        trimmed.extend(gone.into_iter().filter_map(|seq| records.remove_entry(&seq)));
        Ok(())
    }
}

/// A log with a place to fail before and after each of its operations.
pub struct FaultyLog {
    /// What does the work.
    pub inner: Arc<dyn Log>,
    /// What goes wrong.
    pub faults: Arc<Faults>,
}

impl FaultyLog {
    fn around<T>(&self, what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        self.faults.point(&format!("{what}: before"))?;
        let done = work()?;
        self.faults.point(&format!("{what}: after"))?;
        Ok(done)
    }
}

impl Log for FaultyLog {
    fn append(&self, first: Seq, records: &[Vec<u8>], wanted: Durability) -> Result<Durability> {
        self.around("log append", || self.inner.append(first, records, wanted))
    }
    fn begin(&self, last: Seq) {
        self.inner.begin(last);
    }
    fn sync(&self) -> Result<()> {
        self.around("log sync", || self.inner.sync())
    }
    fn unsynced(&self) -> Unsynced {
        self.inner.unsynced()
    }
    fn durability(&self, seq: Seq) -> Durability {
        self.inner.durability(seq)
    }
    fn fsyncs(&self) -> Fsyncs {
        self.inner.fsyncs()
    }
    fn last(&self) -> Result<Option<Seq>> {
        self.inner.last()
    }
    fn scan(&self, from: Seq, each: &mut dyn FnMut(Seq, &[u8]) -> Result<bool>) -> Result<()> {
        self.faults.point("log scan: before")?;
        self.inner.scan(from, each)
    }
    fn bytes(&self, seq: Seq) -> Result<Option<Vec<u8>>> {
        self.faults.point("log read: before")?;
        self.inner.bytes(seq)
    }
    fn trim(&self, from: Seq, to: Seq) -> Result<()> {
        self.around("log trim", || self.inner.trim(from, to))
    }
}
