//! One sparse vector as bytes: in the log, in growing rows and in segments alike.
//!
//! ```text
//! varint n | n x varint gap (term numbers skipped since the one before, since 0 for the first) | n x f32
//! ```
//!
//! An absent vector is no bytes; an empty one is `00`. Any bytes give a vector or [`Error::damaged`].

use crate::error::{Error, Result};
use crate::inverted::varint;
use crate::limits;
use crate::types::SparseVector;

fn damaged() -> Error {
    Error::damaged("a sparse vector that cannot be")
}

/// The bytes of a checked vector.
pub fn encode(vector: &SparseVector) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(2 + vector.indices.len() * 6);
    varint::put(&mut bytes, vector.indices.len() as u64);
    let mut next = 0u64;
    for index in &vector.indices {
        varint::put(&mut bytes, u64::from(*index) - next);
        next = u64::from(*index) + 1;
    }
    for value in &vector.values {
        bytes.extend_from_slice(&value.to_le_bytes());
    }
    bytes
}

/// The vector of some bytes.
pub fn decode(bytes: &[u8]) -> Result<SparseVector> {
    let (mut indices, mut values) = (Vec::new(), Vec::new());
    each(bytes, &mut |index, value| {
        indices.push(index);
        values.push(value);
    })?;
    Ok(SparseVector { indices, values })
}

/// Hands over each term and its weight, ascending.
pub fn each(bytes: &[u8], visit: &mut dyn FnMut(u32, f32)) -> Result<()> {
    let mut reader = Reader::new(bytes)?;
    while let Some((index, value)) = reader.next()? {
        visit(index, value);
    }
    reader.end()
}

/// The inner product with a question; `None` if they have no term in common. Summed in the order of terms.
pub fn product(bytes: &[u8], question: &[(u32, f64)]) -> Result<Option<f64>> {
    let mut reader = Reader::new(bytes)?;
    let (mut sum, mut any) = (0.0, false);
    let mut asked = question.iter();
    let Some(mut want) = asked.next() else {
        return Ok(None);
    };
    'row: while let Some((index, value)) = reader.next()? {
        while want.0 < index {
            match asked.next() {
                Some(next) => want = next,
                None => break 'row,
            }
        }
        if want.0 == index {
            sum += want.1 * f64::from(value);
            any = true;
        }
    }
    Ok(any.then_some(sum))
}

/// Terms at the front, weights at the back.
struct Reader<'a> {
    gaps: &'a [u8],
    values: &'a [u8],
    next: u64,
}

impl<'a> Reader<'a> {
    fn new(mut bytes: &'a [u8]) -> Result<Self> {
        let n = varint::take(&mut bytes).ok_or_else(damaged)? as usize;
        if n > limits::SPARSE_WEIGHTS_MAX {
            return Err(damaged());
        }
        let gaps = bytes.len().checked_sub(4 * n).ok_or_else(damaged)?;
        let (gaps, values) = bytes.split_at(gaps);
        Ok(Self { gaps, values, next: 0 })
    }

    #[inline]
    fn next(&mut self) -> Result<Option<(u32, f32)>> {
        let Some((value, values)) = self.values.split_first_chunk::<4>() else {
            return Ok(None);
        };
        let index = varint::take(&mut self.gaps)
            .and_then(|gap| u32::try_from(self.next + gap).ok())
            .ok_or_else(damaged)?;
        self.values = values;
        self.next = u64::from(index) + 1;
        Ok(Some((index, f32::from_le_bytes(*value))))
    }

    /// Nothing may be left when all weights are read.
    fn end(&self) -> Result<()> {
        if self.gaps.is_empty() { Ok(()) } else { Err(damaged()) }
    }
}
