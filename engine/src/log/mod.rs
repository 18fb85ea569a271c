//! The log: the one truth. What was acked is here, in order; everything else can be rebuilt from it.
//!
//! Operations: `append` records durably, `read` them in order, `trim` what is no longer needed.
//! Guarantees: when `append` returns, its records are fsynced; sequence numbers are consecutive and never reused; `read`
//! gives exactly what was appended, checked by CRC. What a log gives after it was opened is durable, whatever became of the
//! append that wrote it: state that is flushed points into it.
//! Not guaranteed: that records below the last trim exist; that a record whose `append` failed is absent.
//! Failure: an append that fails leaves the log in an unknown state: the engine stops (it never retries an fsync).
//! Enforced by: the conformance tests beside this file, which every log passes, and the crash tests.

#[cfg(test)]
pub mod memory;
mod record;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use record::Record;

use crate::error::{Error, Result};
use crate::storage::{Effects, LOG, Storage, key};
use crate::types::Seq;

/// A log of one group. What it stores are encoded records; what it gives is checked here, the same for every log.
pub trait Log: Send + Sync {
    /// Appends encoded records with consecutive sequence numbers from `first`, durably.
    fn append(&self, first: Seq, records: &[Vec<u8>]) -> Result<()>;

    /// Calls `each` with the bytes of every record from `from` on, in order, until it returns false.
    fn scan(&self, from: Seq, each: &mut dyn FnMut(Seq, &[u8]) -> Result<bool>) -> Result<()>;

    /// The bytes of one record.
    fn bytes(&self, seq: Seq) -> Result<Option<Vec<u8>>>;

    /// Forgets records below `to`, of which `from` is the first. The caller has flushed their effects.
    fn trim(&self, from: Seq, to: Seq) -> Result<()>;

    /// Calls `each` for every record from `from` on with its length, in order, until it returns false. A gap or a bad record
    /// is damage.
    fn read(&self, from: Seq, each: &mut dyn FnMut(Seq, Record, usize) -> Result<bool>) -> Result<()> {
        let mut expected: Option<u64> = None;
        self.scan(from, &mut |seq, bytes| {
            if expected.is_some_and(|e| e != seq.0) {
                return Err(Error::damaged(format!(
                    "log gap: expected record {expected:?}, found {}",
                    seq.0
                )));
            }
            expected = Some(seq.0 + 1);
            each(seq, Record::decode(bytes).map_err(|e| at(seq, &e))?, bytes.len())
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
}

impl LocalLog {
    /// The log of a group.
    pub fn new(storage: Arc<Storage>, group: u32) -> Self {
        Self { storage, group }
    }
}

impl Log for LocalLog {
    fn append(&self, first: Seq, records: &[Vec<u8>]) -> Result<()> {
        let mut batch = Effects::new(&self.storage);
        for (i, record) in records.iter().enumerate() {
            batch.put(LOG, &key::log(self.group, Seq(first.0 + i as u64)), record);
        }
        self.storage.append(batch)
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
