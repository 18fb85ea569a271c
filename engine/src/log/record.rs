//! One record's bytes.
//!
//! ```text
//! offset bytes
//!      0     4  CRC-32C of everything after it
//!      4     1  format version (2)
//!      5     1  length r of the request id (0..64)
//!      6     2  reserved, 0
//!      8     4  group
//!     12     8  timestamp, ms since the Unix epoch
//!     20     r  request id, UTF-8
//!   20+r     -  Vec<Op>, postcard
//! ```
//! All little-endian. Postcard's wire format is fixed since 1.0 (varint lengths, declaration order of enum variants: new
//! operations are added at the end of [`Op`]).

use crate::error::{Error, Result};
use crate::limits;
use crate::op::Op;

const VERSION: u8 = 2;
const HEADER: usize = 20;

/// What one append says.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Log group.
    pub group: u32,
    /// When it was accepted; decides expiry and nothing about order.
    pub timestamp_ms: u64,
    /// The client's id of the request; empty if it gave none.
    pub request_id: String,
    /// Applied in order, visible together.
    pub ops: Vec<Op>,
}

impl Record {
    /// The bytes.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let id = self.request_id.as_bytes();
        if id.len() > limits::REQUEST_ID_BYTES_MAX {
            return Err(Error::invalid(
                "bad_request_id",
                format!(
                    "a request id is at most {} bytes, got {}",
                    limits::REQUEST_ID_BYTES_MAX,
                    id.len()
                ),
            ));
        }
        let mut bytes = vec![0; 4];
        bytes.extend_from_slice(&[VERSION, id.len() as u8, 0, 0]);
        bytes.extend_from_slice(&self.group.to_le_bytes());
        bytes.extend_from_slice(&self.timestamp_ms.to_le_bytes());
        bytes.extend_from_slice(id);
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
        if bytes.len() < HEADER {
            return Err(bad("shorter than its header"));
        }
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        if word(0) != crc32c::crc32c(&bytes[4..]) {
            return Err(bad("checksum does not match"));
        }
        if bytes[4] != VERSION {
            return Err(bad(&format!("format version {} is unknown to this build", bytes[4])));
        }
        let end = HEADER + usize::from(bytes[5]);
        let request_id = bytes.get(HEADER..end).ok_or_else(|| bad("request id cut off"))?;
        let request_id = std::str::from_utf8(request_id)
            .map_err(|_| bad("request id is not UTF-8"))?
            .to_owned();
        let ops = postcard::from_bytes(&bytes[end..]).map_err(|e| bad(&format!("operations do not decode: {e}")))?;
        Ok(Self {
            group: word(8),
            timestamp_ms: u64::from(word(12)) | (u64::from(word(16)) << 32),
            request_id,
            ops,
        })
    }
}
