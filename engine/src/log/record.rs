//! One record's bytes.
//!
//! ```text
//! offset bytes
//!      0     4  CRC-32C of everything after it
//!      4     1  format version (3)
//!      5     1  length r of the request id (0..64), 0 = there is no request
//!      6     2  length n of the note
//!      8     4  group
//!     12     8  timestamp, ms since the Unix epoch
//!     20    16  xxh3-128 of the record before it in the log, big-endian; zeros for the first
//!     36     8  epoch: which opening of the directory wrote it, a number drawn at random
//!     44     8  when that was, ms since the Unix epoch
//!     52     r  request id, UTF-8
//!   52+r     4  part of the request, if r > 0
//!   56+r    16  fingerprint of the request, if r > 0
//!   72+r     n  note, if r > 0
//!      -     -  Vec<Op>, postcard
//! ```
//! The hash of the record before is put in last ([`follow`]), when the place in the log is known. So a record's own hash names
//! everything up to it, and records of two logs that parted are not taken for each other's, though their numbers are the same.
//! Records of version 2 have no epoch, are read as of [`EpochId::BEFORE`], and are not written any more.
//!
//! All little-endian. Postcard's wire format is fixed since 1.0 (varint lengths, declaration order of enum variants: new
//! operations are added at the end of [`Op`]).

use crate::error::{Error, Result};
use crate::limits;
use crate::op::Op;
use crate::types::{EpochId, History, Opening};

const VERSION: u8 = 3;
const HEADER: usize = 52;
/// The version before, and its header.
const VERSION_2: u8 = 2;
const HEADER_2: usize = 36;
/// Where the hash of the record before stands.
const BEFORE: std::ops::Range<usize> = 20..36;

/// Gives an encoded record its place behind the record with the hash `before`. Answers its own.
pub(crate) fn follow(bytes: &mut [u8], before: History) -> History {
    bytes[BEFORE].copy_from_slice(&before.0);
    let crc = crc32c::crc32c(&bytes[4..]);
    bytes[..4].copy_from_slice(&crc.to_le_bytes());
    hash(bytes)
}

/// The hash of a record, by its bytes.
pub(crate) fn hash(bytes: &[u8]) -> History {
    History(xxhash_rust::xxh3::xxh3_128(bytes).to_be_bytes())
}

/// The hash of the record before it, as a record says it.
pub(crate) fn before(bytes: &[u8]) -> Result<History> {
    let before = bytes.get(BEFORE).and_then(|bytes| bytes.try_into().ok());
    before
        .map(History)
        .ok_or_else(|| Error::damaged("shorter than its header"))
}

/// What one append says.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Log group.
    pub group: u32,
    /// Which opening of the directory wrote it.
    pub by: Opening,
    /// When it was accepted; decides expiry and nothing about order.
    pub timestamp_ms: u64,
    /// The request it is of, if its caller named one.
    pub request: Option<Request>,
    /// Applied in order, visible together.
    pub ops: Vec<Op>,
}

/// A request that its caller may repeat: done once, answered alike every time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// Chosen by the caller, 1 to 64 bytes.
    pub id: String,
    /// Which record of the request, where it takes several.
    pub part: u32,
    /// Equal for equal requests: the same id with another fingerprint is refused.
    pub fingerprint: [u8; 16],
    /// What the caller wants to be given back when the request is repeated.
    pub note: Vec<u8>,
}

impl Request {
    /// The same request's `part`-th record.
    #[must_use]
    pub fn part(&self, part: u32) -> Self {
        Self { part, ..self.clone() }
    }

    /// Refuses what a record cannot keep.
    pub fn check(&self) -> Result<()> {
        if self.id.is_empty() || self.id.len() > limits::REQUEST_ID_BYTES_MAX {
            return Err(Error::invalid(
                "bad_request_id",
                format!(
                    "a request id is 1 to {} bytes, got {}",
                    limits::REQUEST_ID_BYTES_MAX,
                    self.id.len()
                ),
            ));
        }
        if self.note.len() > limits::REQUEST_NOTE_BYTES_MAX {
            return Err(Error::internal(format!(
                "a request's note of {} bytes",
                self.note.len()
            )));
        }
        Ok(())
    }
}

impl Record {
    /// The bytes, as those of the first record of a log.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let mut bytes = vec![0; 4];
        let request = self.request.as_ref();
        request.map_or(Ok(()), Request::check)?;
        let (id, note) = request.map_or((0, 0), |r| (r.id.len() as u8, r.note.len() as u16));
        bytes.extend_from_slice(&[VERSION, id]);
        bytes.extend_from_slice(&note.to_le_bytes());
        bytes.extend_from_slice(&self.group.to_le_bytes());
        bytes.extend_from_slice(&self.timestamp_ms.to_le_bytes());
        bytes.extend_from_slice(&[0; BEFORE.end - BEFORE.start]);
        bytes.extend_from_slice(&self.by.epoch.0.to_le_bytes());
        bytes.extend_from_slice(&self.by.at_ms.to_le_bytes());
        if let Some(request) = request {
            bytes.extend_from_slice(request.id.as_bytes());
            bytes.extend_from_slice(&request.part.to_le_bytes());
            bytes.extend_from_slice(&request.fingerprint);
            bytes.extend_from_slice(&request.note);
        }
        let mut bytes =
            postcard::to_extend(&self.ops, bytes).map_err(|e| Error::internal(format!("encoding a record: {e}")))?;
        if bytes.len() > limits::RECORD_BYTES_MAX {
            return Err(Error::invalid(
                "request_too_large",
                format!(
                    "one request encodes to at most {} bytes, got {}: split it",
                    limits::RECORD_BYTES_MAX,
                    bytes.len()
                ),
            ));
        }
        let crc = crc32c::crc32c(&bytes[4..]);
        bytes[..4].copy_from_slice(&crc.to_le_bytes());
        Ok(bytes)
    }

    /// Reads them back; any change is noticed.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let bad = |what: &str| Error::damaged(what.to_owned());
        if bytes.len() < HEADER_2 {
            return Err(bad("shorter than its header"));
        }
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        if word(0) != crc32c::crc32c(&bytes[4..]) {
            return Err(bad("checksum does not match"));
        }
        let long = |at: usize| u64::from(word(at)) | (u64::from(word(at + 4)) << 32);
        let (header, by) = match bytes[4] {
            VERSION if bytes.len() < HEADER => return Err(bad("shorter than its header")),
            VERSION => {
                let (epoch, at_ms) = (EpochId(long(HEADER_2)), long(HEADER_2 + 8));
                (HEADER, Opening { epoch, at_ms })
            }
            VERSION_2 => (HEADER_2, Opening::BEFORE),
            other => return Err(bad(&format!("format version {other} is unknown to this build"))),
        };
        let (id, note) = (
            usize::from(bytes[5]),
            usize::from(u16::from_le_bytes([bytes[6], bytes[7]])),
        );
        let mut rest = &bytes[header..];
        let mut request = None;
        if id > 0 {
            let mut take = |n: usize| {
                let (taken, left) = rest.split_at_checked(n).ok_or_else(|| bad("request cut off"))?;
                rest = left;
                Ok::<_, Error>(taken)
            };
            let id = std::str::from_utf8(take(id)?).map_err(|_| bad("request id is not UTF-8"))?;
            let part = take(4)?.try_into().map_err(|_| bad("request cut off"))?;
            let fingerprint = take(16)?.try_into().map_err(|_| bad("request cut off"))?;
            request = Some(Request {
                id: id.to_owned(),
                part: u32::from_le_bytes(part),
                fingerprint,
                note: take(note)?.to_vec(),
            });
        } else if note > 0 {
            return Err(bad("a note without a request"));
        }
        let ops = postcard::from_bytes(rest).map_err(|e| bad(&format!("operations do not decode: {e}")))?;
        Ok(Self {
            group: word(8),
            by,
            timestamp_ms: long(12),
            request,
            ops,
        })
    }
}
