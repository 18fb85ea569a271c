//! The nouns everything else is written in: ids, numbers, points, tokens.
//!
//! An *id* is what a person chose; a *row* is one inserted version of a point, never reused; an *ordinal* is a
//! row's place inside one segment. Mixing them is a type error.

mod epochs;

use std::collections::BTreeMap;
use std::fmt;

pub use epochs::{Epoch, Epochs};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::limits;

/// One inserted version of a point in a shard. Grows for ever; an update is a new row and the old row's death.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Row(pub u64);

/// A place in a log group: one record, one sequence number. Orders everything in the group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Seq(pub u64);

/// When a write is answered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// After its record was fsynced.
    #[default]
    Sync,
    /// After its record was handed to the operating system. It is fsynced within a bounded time (`async_window_ms`); until
    /// then the end of the machine, though not of the process, may take it away, together with everything after it.
    Async,
}

/// A row's place inside one segment.
pub type Ordinal = u32;

/// Internal number of a collection: never reused, the first bytes of every key. Paths on disk use it, never the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CollectionNo(pub u32);

/// A shard of a collection, counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ShardNo(pub u32);

/// A point's or document's id: any UTF-8 string of 1 to 512 bytes. `42` and `"42"` are the same id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PointId(Box<str>);

impl PointId {
    /// Checks the length; nothing is normalised.
    pub fn new(id: impl Into<Box<str>>) -> Result<Self> {
        let id = id.into();
        if id.is_empty() || id.len() > limits::ID_BYTES_MAX {
            return Err(Error::invalid(
                "bad_id",
                format!(
                    "an id is 1 to {} bytes of UTF-8, got {} bytes",
                    limits::ID_BYTES_MAX,
                    id.len()
                ),
            ));
        }
        Ok(Self(id))
    }
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A point's payload: a JSON object.
pub type Payload = serde_json::Map<String, serde_json::Value>;

/// Dense vectors by name. The unnamed vector of a collection with a single one is called `""` nowhere: it has the
/// schema's name (default `dense`).
pub type Vectors = BTreeMap<String, Vec<f32>>;

/// Weights by term number, as SPLADE and its like make them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SparseVector {
    /// Term numbers, strictly ascending.
    pub indices: Vec<u32>,
    /// Their weights, finite and not zero.
    pub values: Vec<f32>,
}

impl SparseVector {
    /// Refuses what is not one. Pointers are relative to the vector.
    pub fn check(&self) -> Result<()> {
        let bad = |at: String, message: String| Err(Error::invalid("bad_sparse_vector", message).at(at));
        let (indices, values) = (&self.indices, &self.values);
        if indices.len() != values.len() {
            let message = format!(
                "a sparse vector has as many values as indices, got {} and {}",
                values.len(),
                indices.len()
            );
            return bad("/values".into(), message);
        }
        if indices.len() > limits::SPARSE_WEIGHTS_MAX {
            let message = format!(
                "a sparse vector has at most {} weights, got {}",
                limits::SPARSE_WEIGHTS_MAX,
                indices.len()
            );
            return bad("/indices".into(), message);
        }
        if let Some(i) = (1..indices.len()).find(|&i| indices[i - 1] >= indices[i]) {
            let message = format!(
                "indices must ascend strictly, {} stands after {}",
                indices[i],
                indices[i - 1]
            );
            return bad(format!("/indices/{i}"), message);
        }
        if let Some(i) = values.iter().position(|v| !v.is_finite()) {
            let message = format!("a vector must hold finite numbers, element {i} is {}", values[i]);
            return Err(Error::invalid("not_finite", message).at(format!("/values/{i}")));
        }
        match values.iter().position(|v| *v == 0.0) {
            Some(i) => bad(format!("/values/{i}"), "a weight must not be 0: leave it out".into()),
            None => Ok(()),
        }
    }
}

/// Sparse vectors by name.
pub type SparseVectors = BTreeMap<String, SparseVector>;

/// A point as a caller gives it.
#[derive(Debug, Clone, PartialEq)]
pub struct PointInput {
    /// Chosen by the caller.
    pub id: PointId,
    /// Dense vectors by name; a point may lack some of the collection's.
    pub vectors: Vectors,
    /// Sparse vectors by name; a point may lack some of the collection's.
    pub sparse: SparseVectors,
    /// JSON payload.
    pub payload: Payload,
    /// The document this point is a chunk of, if any. Decides the shard.
    pub document: Option<PointId>,
    /// Milliseconds since the Unix epoch after which the point is invisible. Stored now; enforced at read.
    pub expires_at_ms: Option<u64>,
}

/// A point as it is stored and given back.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// The id it was written under.
    pub id: PointId,
    /// Exactly the vectors that were written (only when asked for).
    pub vectors: Option<Vectors>,
    /// Exactly the sparse vectors that were written (only when vectors are asked for).
    pub sparse: Option<SparseVectors>,
    /// Exactly the payload that was written (only when asked for).
    pub payload: Option<Payload>,
    /// The document this point is a chunk of.
    pub document: Option<PointId>,
    /// Opaque token of the write that made this version.
    pub version: Token,
}

/// Names one log up to one record: the hash of the record's bytes, which hold that of the record before. Two logs that have
/// one history up to a record hold the same records up to it.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct History(pub [u8; 16]);

/// Names a database: chosen at random when its directory was made, kept by its snapshots and by what is restored from them.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Identity(pub [u8; 16]);

macro_rules! hexadecimal {
    ($type:ident, $what:literal) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", u128::from_be_bytes(self.0))
            }
        }
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{self}")
            }
        }
        impl std::str::FromStr for $type {
            type Err = Error;
            /// 32 lower-case hexadecimal digits, nothing else.
            fn from_str(text: &str) -> Result<Self> {
                let digits = text
                    .bytes()
                    .all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c));
                let number = (text.len() == 32 && digits).then(|| u128::from_str_radix(text, 16).ok());
                let number = number
                    .flatten()
                    .ok_or_else(|| Error::damaged(concat!("not ", $what)))?;
                Ok(Self(number.to_be_bytes()))
            }
        }
    };
}

hexadecimal!(History, "a history");
hexadecimal!(Identity, "an identity");

/// Names what one opening of a data directory wrote: drawn at random, so that the records which a directory, a copy of it and
/// what was restored from its snapshots go on with can be told apart, though their numbers are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct EpochId(pub u64);

impl EpochId {
    /// Of records that were forgotten so long ago that nobody knows their epoch: no token of it is taken.
    pub const FORGOTTEN: Self = Self(0);
    /// Of records that were written before there were epochs.
    pub const BEFORE: Self = Self(1);

    /// One of 2^63 that is none of these, of 64 random bits.
    pub fn of_random(bits: u64) -> Self {
        Self(bits | 1 << 63)
    }
}

/// An opening of a data directory, of whatever is written before the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opening {
    /// Its name.
    pub epoch: EpochId,
    /// When it was, in milliseconds since the Unix epoch.
    pub at_ms: u64,
}

impl Opening {
    /// Of records that were written before openings had names.
    pub const BEFORE: Self = Self {
        epoch: EpochId::BEFORE,
        at_ms: 0,
    };
}

/// An opaque place in the history of a log group: what a write answers with and a read may ask to see (`after`).
/// It says which epoch wrote the record there, so two histories that share numbers do not share tokens. Places of one
/// history are ordered by `seq`; tokens as such are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Token {
    /// Who wrote the record.
    pub epoch: EpochId,
    /// Log group (0 on a single node).
    pub group: u32,
    /// Place in the group's log.
    pub seq: Seq,
}

impl Default for Token {
    /// Before the first record of every database.
    fn default() -> Self {
        Epochs::default().token(Seq(0))
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "c1-{:x}-{:x}-{:x}", self.epoch.0, self.group, self.seq.0)
    }
}

impl std::str::FromStr for Token {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let bad = || Error::invalid("bad_token", "not a token that a write of this service returned");
        let mut parts = text.strip_prefix("c1-").ok_or_else(bad)?.split('-');
        let mut number = || {
            parts
                .next()
                .and_then(|p| u64::from_str_radix(p, 16).ok())
                .ok_or_else(bad)
        };
        let (epoch, group, seq) = (number()?, number()?, number()?);
        if parts.next().is_some() {
            return Err(bad());
        }
        Ok(Self {
            epoch: EpochId(epoch),
            group: u32::try_from(group).map_err(|_| bad())?,
            seq: Seq(seq),
        })
    }
}
