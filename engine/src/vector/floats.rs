//! How the numbers of vectors are kept: as `f32`, or as halves (IEEE 754 binary16) where every one of them is the same number so.
//!
//! Nothing is rounded: models that compute in sixteen bits give numbers that a half holds, as pixels and other small integers are, and
//! where one of a segment's numbers is none its vectors stay `f32`. Kept as halves they take half of the disk, and measuring the
//! hits again reads half of the memory, which is what that waits for.

use std::borrow::Cow;
use std::ops::Range;

use half::f16;
use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};

use super::kernels;

/// Numbers one after the other.
#[derive(Debug, Clone, Copy)]
pub enum Floats<'a> {
    /// As given.
    Singles(&'a [f32]),
    /// The bits of halves that are the numbers given.
    Halves(&'a [u16]),
}

impl<'a> Floats<'a> {
    /// Bytes of a half.
    pub const HALF_BYTES: usize = size_of::<u16>();
    /// Bytes of an `f32`.
    pub const SINGLE_BYTES: usize = size_of::<f32>();

    /// Bytes of each number.
    #[inline]
    pub fn number_bytes(self) -> usize {
        match self {
            Self::Singles(_) => Self::SINGLE_BYTES,
            Self::Halves(_) => Self::HALF_BYTES,
        }
    }

    /// How many.
    #[inline]
    pub fn len(self) -> usize {
        match self {
            Self::Singles(numbers) => numbers.len(),
            Self::Halves(numbers) => numbers.len(),
        }
    }

    /// There are none.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Some of them.
    #[inline]
    pub(super) fn part(self, range: Range<usize>) -> Self {
        match self {
            Self::Singles(numbers) => Self::Singles(&numbers[range]),
            Self::Halves(numbers) => Self::Halves(&numbers[range]),
        }
    }

    /// As `f32`, the same numbers.
    pub fn singles(self) -> Cow<'a, [f32]> {
        match self {
            Self::Singles(numbers) => Cow::Borrowed(numbers),
            Self::Halves(numbers) => Cow::Owned(numbers.iter().map(|half| kernels::widen(*half)).collect()),
        }
    }

    /// The same, in a buffer's memory if they have to be made.
    #[inline]
    pub(super) fn singles_in(self, buffer: &mut Cow<'a, [f32]>) {
        *buffer = match self {
            Self::Singles(numbers) => Cow::Borrowed(numbers),
            Self::Halves(numbers) => {
                let mut widened = std::mem::take(buffer).into_owned();
                widened.clear();
                widened.extend(numbers.iter().map(|half| kernels::widen(*half)));
                Cow::Owned(widened)
            }
        };
    }

    /// As they are in memory: of numbers kept in the same way the same bytes are the same numbers.
    pub fn bytes(self) -> &'a [u8] {
        match self {
            Self::Singles(numbers) => bytemuck::cast_slice(numbers),
            Self::Halves(numbers) => bytemuck::cast_slice(numbers),
        }
    }

    /// Asks memory for them.
    #[inline]
    pub(super) fn prefetch(self) {
        match self {
            Self::Singles(numbers) => kernels::prefetch(numbers),
            Self::Halves(numbers) => kernels::prefetch(numbers),
        }
    }
}

/// Numbers that are looked at together.
const CHUNK: usize = 64;

/// Whether halves hold all of the numbers, to the sign of a zero.
pub fn are_halves(numbers: &[f32]) -> bool {
    let (mut halves, mut again) = ([f16::ZERO; CHUNK], [0f32; CHUNK]);
    numbers.chunks(CHUNK).all(|numbers| {
        let (halves, again) = (&mut halves[..numbers.len()], &mut again[..numbers.len()]);
        halves.convert_from_f32_slice(numbers);
        halves.convert_to_f32_slice(again);
        let same = |(x, y): (&f32, &f32)| x.to_bits() == y.to_bits() && x.is_finite();
        numbers.iter().zip(again.iter()).all(same)
    })
}

/// Appends the halves nearest to the numbers: those themselves if they [are halves](are_halves).
pub fn to_halves(numbers: &[f32], halves: &mut Vec<u16>) {
    let before = halves.len();
    halves.resize(before + numbers.len(), 0);
    halves[before..]
        .reinterpret_cast_mut::<f16>()
        .convert_from_f32_slice(numbers);
}

#[cfg(test)]
mod tests;
