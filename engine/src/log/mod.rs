//! The log: the one truth. What was acked is here, in order; everything else can be rebuilt from it.
//!
//! Operations: `append` records, `sync` what was appended, `read` records in order, `trim` what is no longer needed.
//! Guarantees: when `append` says `Sync`, its records and all before them are fsynced; one that says `Async` is fsynced by the
//! next that says `Sync`, or by `sync`, and is asked to be within the window. Sequence numbers are consecutive and never
//! reused; `read` gives exactly what was appended, checked by CRC. A loss of power takes a suffix of what was not fsynced.
//! What a log gives after it was opened is durable, whatever became of the append that wrote it: state that is flushed points
//! into it.
//! Not guaranteed: that records below the last trim exist; that a record whose `append` failed is absent.
//! Failure: an append or a sync that fails leaves the log in an unknown state: the engine stops (it never retries an fsync).
//! Enforced by: the conformance tests beside this file, which every log passes, and the crash tests.

#[cfg(test)]
pub mod memory;
pub(crate) mod record;
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

/// A log of one group. What it stores are encoded records; what it gives is checked here, the same for every log.
pub trait Log: Send + Sync {
    /// Appends encoded records with consecutive sequence numbers from `first`, by one writer at a time. Answers what they got:
    /// at least what was wanted.
    fn append(&self, first: Seq, records: &[Vec<u8>], wanted: Durability) -> Result<Durability>;

    /// Says where the log ends, once it was read.
    fn begin(&self, last: Seq);

    /// Fsyncs everything that was appended, if anything waits for it.
    fn sync(&self) -> Result<()>;

    /// What is not fsynced yet.
    fn unsynced(&self) -> Unsynced;

    /// How safe a record is now.
    fn durability(&self, seq: Seq) -> Durability;

    /// Fsyncs so far.
    fn fsyncs(&self) -> Fsyncs;

    /// Last sequence number present.
    fn last(&self) -> Result<Option<Seq>>;

    /// Calls `each` with the bytes of every record from `from` on, in order, until it returns false.
    fn scan(&self, from: Seq, each: &mut dyn FnMut(Seq, &[u8]) -> Result<bool>) -> Result<()>;

    /// The bytes of one record.
    fn bytes(&self, seq: Seq) -> Result<Option<Vec<u8>>>;

    /// Forgets records below `to`, of which `from` is the first. The caller has flushed their effects.
    fn trim(&self, from: Seq, to: Seq) -> Result<()>;

    /// Calls `each` for every record from `from` on with its bytes, in order, until it returns false. A gap or a bad record
    /// is damage.
    fn read(&self, from: Seq, each: &mut dyn FnMut(Seq, Record, &[u8]) -> Result<bool>) -> Result<()> {
        let mut expected: Option<u64> = None;
        self.scan(from, &mut |seq, bytes| {
            if expected.is_some_and(|e| e != seq.0) {
                return Err(Error::damaged(format!(
                    "log gap: expected record {expected:?}, found {}",
                    seq.0
                )));
            }
            expected = Some(seq.0 + 1);
            each(seq, Record::decode(bytes).map_err(|e| at(seq, &e))?, bytes)
        })
    }

    /// One record and its length in bytes.
    fn get(&self, seq: Seq) -> Result<Option<(Record, usize)>> {
        match self.bytes(seq)? {
            Some(bytes) => Ok(Some((Record::decode(&bytes).map_err(|e| at(seq, &e))?, bytes.len()))),
            None => Ok(None),
        }
    }

    /// First sequence number present.
    fn first(&self) -> Result<Option<Seq>> {
        let mut first = None;
        self.scan(Seq(0), &mut |seq, _| {
            first = Some(seq);
            Ok(false)
        })?;
        Ok(first)
    }
}

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
        let account = Account::new(storage.run());
        Self {
            storage,
            group,
            window,
            account: Mutex::new(account),
        }
    }
}

impl Log for LocalLog {
    /// What an open found is on disk, since RocksDB flushes what it recovers.
    fn begin(&self, last: Seq) {
        self.account.lock().begin(last);
    }

    fn append(&self, first: Seq, records: &[Vec<u8>], wanted: Durability) -> Result<Durability> {
        let last = Seq(first.0 + records.len() as u64 - 1);
        let wanted_bytes = records.iter().map(|record| record.len() as u64).sum();
        let mut batch = Effects::new(&self.storage);
        let sync = {
            let account = self.account.lock();
            batch.mark(&account.mark(first, records.len() as u64));
            wanted == Durability::Sync || account.is_due(self.window, wanted_bytes)
        };
        for (i, record) in records.iter().enumerate() {
            batch.put(LOG, &key::log(self.group, Seq(first.0 + i as u64)), record);
        }
        // As the WAL holds them, with what RocksDB and the mark put around the records: `wal::proves` compares places in files.
        let bytes = batch.bytes() as u64;
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

    fn sync(&self) -> Result<()> {
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

    fn unsynced(&self) -> Unsynced {
        self.account.lock().unsynced()
    }

    fn durability(&self, seq: Seq) -> Durability {
        match self.account.lock().covers(seq) {
            true => Durability::Sync,
            false => Durability::Async,
        }
    }

    fn fsyncs(&self) -> Fsyncs {
        self.account.lock().fsyncs
    }

    fn scan(&self, from: Seq, each: &mut dyn FnMut(Seq, &[u8]) -> Result<bool>) -> Result<()> {
        self.storage.scan(
            LOG,
            &self.group.to_be_bytes(),
            &key::log(self.group, from),
            |key, value| each(parse_seq(key)?, value),
        )
    }

    fn bytes(&self, seq: Seq) -> Result<Option<Vec<u8>>> {
        self.storage.get(LOG, &key::log(self.group, seq))
    }

    fn last(&self) -> Result<Option<Seq>> {
        let key = self.storage.last_key(LOG, &self.group.to_be_bytes())?;
        key.map(|key| parse_seq(&key)).transpose()
    }

    fn trim(&self, from: Seq, to: Seq) -> Result<()> {
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
