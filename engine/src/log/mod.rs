//! The log: the one truth. What was acked is here, in order; everything else can be rebuilt from it.
//!
//! Operations: `append` records durably, `read` them in order, `trim` what is no longer needed.
//! Guarantees: when `append` returns, its records are fsynced; sequence numbers are consecutive and never reused; `read`
//! gives exactly what was appended, checked by CRC.
//! Not guaranteed: that records below the last trim exist; that a record whose `append` failed is absent.
//! Failure: an append that fails leaves the log in an unknown state: the engine stops (it never retries an fsync).
//! Enforced by: the conformance tests beside this file, and the crash tests.

mod record;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use record::Record;

use crate::error::{Error, Result};
use crate::storage::{Effects, LOG, Storage, key};
use crate::types::Seq;

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

    /// Appends encoded records with consecutive sequence numbers from `first`, durably.
    pub fn append(&self, first: Seq, records: &[Vec<u8>]) -> Result<()> {
        let mut batch = Effects::new(&self.storage);
        for (i, record) in records.iter().enumerate() {
            batch.put(LOG, &key::log(self.group, Seq(first.0 + i as u64)), record);
        }
        self.storage.append(batch)
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
