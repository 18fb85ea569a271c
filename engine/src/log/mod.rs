//! The log: the one truth. What was acked is here, in order; everything else can be rebuilt from it.
//!
//! Operations: `append` records, `sync` what was appended, `read` records in order, `trim` what is no longer needed.
//! Guarantees: when `append` says `Sync`, its records and all before them are fsynced; one that says `Async` is fsynced by the
//! next that says `Sync`, or by `sync`, and is asked to be within the window. Sequence numbers are consecutive and never
//! reused; `read` gives exactly what was appended, checked by CRC. A loss of power takes a suffix of what was not fsynced.
//! Not guaranteed: that records below the last trim exist; that a record whose `append` failed is absent.
//! Failure: an append or a sync that fails leaves the log in an unknown state: the engine stops (it never retries an fsync).
//! Enforced by: the conformance tests beside this file, and the crash tests.

mod record;
#[cfg(test)]
mod tests;
mod unsynced;

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
pub use record::{Record, Request};
pub use unsynced::{Fsyncs, Unsynced};

use self::unsynced::Account;
use crate::error::{Error, Result};
use crate::storage::{Effects, LOG, Storage, key};
use crate::types::{Durability, Seq};

/// The log of a single node: a column family of the group's RocksDB.
pub struct LocalLog {
    storage: Arc<Storage>,
    group: u32,
    /// The longest that a record may wait for its fsync while others are appended.
    window: Duration,
    account: Mutex<Account>,
}

impl LocalLog {
    /// The log of a group. `window` is the longest that an `Async` record may wait for its fsync while others are appended.
    pub fn new(storage: Arc<Storage>, group: u32, window: Duration) -> Self {
        Self {
            storage,
            group,
            window,
            account: Mutex::new(Account::new()),
        }
    }

    /// Says where the log ends, once it was read: what an open found is on disk, since RocksDB flushes what it recovers.
    pub fn begin(&self, last: Seq) {
        self.account.lock().begin(last);
    }

    /// Appends encoded records with consecutive sequence numbers from `first`, by one writer at a time. Answers what they got:
    /// at least what was wanted.
    pub fn append(&self, first: Seq, records: &[Vec<u8>], wanted: Durability) -> Result<Durability> {
        let last = Seq(first.0 + records.len() as u64 - 1);
        let bytes = records.iter().map(|record| record.len() as u64).sum();
        let mut batch = Effects::new(&self.storage);
        let sync = {
            let account = self.account.lock();
            batch.mark(&account.mark(first, records.len() as u64));
            wanted == Durability::Sync || account.is_due(self.window, bytes)
        };
        for (i, record) in records.iter().enumerate() {
            batch.put(LOG, &key::log(self.group, Seq(first.0 + i as u64)), record);
        }
        let began = Instant::now();
        self.storage.append(batch, sync)?;
        let mut account = self.account.lock();
        account.written(last, bytes);
        if sync {
            account.synced(last, began.elapsed());
            return Ok(Durability::Sync);
        }
        Ok(Durability::Async)
    }

    /// Fsyncs everything that was appended, if anything waits for it.
    pub fn sync(&self) -> Result<()> {
        let last = {
            let account = self.account.lock();
            if account.unsynced().records == 0 {
                return Ok(());
            }
            account.last_written()
        };
        let began = Instant::now();
        self.storage.sync()?;
        self.account.lock().synced(last, began.elapsed());
        Ok(())
    }

    /// What is not fsynced yet.
    pub fn unsynced(&self) -> Unsynced {
        self.account.lock().unsynced()
    }

    /// How safe a record is now.
    pub fn durability(&self, seq: Seq) -> Durability {
        match self.account.lock().covers(seq) {
            true => Durability::Sync,
            false => Durability::Async,
        }
    }

    /// Fsyncs so far.
    pub fn fsyncs(&self) -> Fsyncs {
        self.account.lock().fsyncs
    }

    /// Calls `each` for every record from `from` on, in order, until it returns false. A gap or a bad record is damage.
    pub fn read(&self, from: Seq, mut each: impl FnMut(Seq, Record, usize) -> Result<bool>) -> Result<()> {
        let mut expected: Option<u64> = None;
        self.storage.scan(
            LOG,
            &self.group.to_be_bytes(),
            &key::log(self.group, from),
            |key, value| {
                let seq = parse_seq(key)?;
                if expected.is_some_and(|e| e != seq.0) {
                    return Err(Error::damaged(format!(
                        "log gap: expected record {expected:?}, found {}",
                        seq.0
                    )));
                }
                expected = Some(seq.0 + 1);
                each(seq, Record::decode(value).map_err(|e| at(seq, &e))?, value.len())
            },
        )
    }

    /// One record and its length in bytes.
    pub fn get(&self, seq: Seq) -> Result<Option<(Record, usize)>> {
        match self.storage.get(LOG, &key::log(self.group, seq))? {
            Some(bytes) => Ok(Some((Record::decode(&bytes).map_err(|e| at(seq, &e))?, bytes.len()))),
            None => Ok(None),
        }
    }

    /// First sequence number present.
    pub fn first(&self) -> Result<Option<Seq>> {
        let mut first = None;
        self.storage.scan(LOG, &self.group.to_be_bytes(), &[], |key, _| {
            first = Some(parse_seq(key)?);
            Ok(false)
        })?;
        Ok(first)
    }

    /// Last sequence number present.
    pub fn last(&self) -> Result<Option<Seq>> {
        let key = self.storage.last_key(LOG, &self.group.to_be_bytes())?;
        key.map(|key| parse_seq(&key)).transpose()
    }

    /// Forgets records below `to`. The caller has flushed their effects.
    pub fn trim(&self, from: Seq, to: Seq) -> Result<()> {
        let mut batch = Effects::new(&self.storage);
        batch.delete_range(LOG, &key::log(self.group, from), &key::log(self.group, to));
        self.storage.write_effects(batch)
    }
}

fn parse_seq(key: &[u8]) -> Result<Seq> {
    key.get(4..12)
        .and_then(|bytes| bytes.try_into().ok())
        .map(|bytes| Seq(u64::from_be_bytes(bytes)))
        .ok_or_else(|| Error::damaged("a log key of the wrong length"))
}

fn at(seq: Seq, error: &Error) -> Error {
    Error::damaged(format!("log record {}: {}", seq.0, error.message))
}
