//! Reading bytes that may be damaged: every step is checked, nothing is believed.

use crate::error::{Error, Result};

#[cold]
pub(super) fn damaged(what: &str) -> Error {
    Error::damaged(format!("filter index: {what}"))
}

/// LEB128: seven bits a byte, least significant first.
pub(super) fn put_varint(mut n: u64, out: &mut Vec<u8>) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

/// What is left to read.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    pub(super) rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(rest: &'a [u8]) -> Self {
        Self { rest }
    }

    pub(super) fn byte(&mut self) -> Result<u8> {
        let (&byte, rest) = self.rest.split_first().ok_or_else(|| damaged("ends early"))?;
        self.rest = rest;
        Ok(byte)
    }

    #[inline]
    pub(super) fn varint(&mut self) -> Result<u64> {
        let mut n = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            n |= bits << shift;
            if byte < 0x80 {
                return Ok(n);
            }
        }
        Err(damaged("a number has more than 64 bits"))
    }

    /// A varint that must fit the address space, as every length and count does.
    pub(super) fn size(&mut self) -> Result<usize> {
        usize::try_from(self.varint()?).map_err(|_| damaged("a length is too large"))
    }

    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or_else(|| damaged("ends early"))?;
        self.rest = rest;
        Ok(taken)
    }

    /// An array of `count` fixed-width little-endian items, unaligned.
    pub(super) fn array<const N: usize>(&mut self, count: usize) -> Result<&'a [[u8; N]]> {
        let len = count.checked_mul(N).ok_or_else(|| damaged("a count is too large"))?;
        Ok(self.take(len)?.as_chunks().0)
    }

    pub(super) fn finished(&self) -> Result<()> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(damaged("bytes are left over"))
        }
    }
}

/// The part of a section that a record points at.
pub(super) fn slice(section: &[u8], at: usize, len: usize) -> Result<&[u8]> {
    let end = at.checked_add(len).ok_or_else(|| damaged("an offset is too large"))?;
    section.get(at..end).ok_or_else(|| damaged("an offset points outside"))
}
