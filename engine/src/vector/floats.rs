//! How the numbers of vectors are kept: as `f32`; as halves (IEEE 754 binary16) where every one of them is the same number so; as bits
//! where a metric compares bits.
//!
//! Nothing is rounded: models that compute in sixteen bits give numbers that a half holds, as pixels and other small integers are, and
//! where one of a segment's numbers is none its vectors stay `f32`. Kept as halves they take half of the disk, and measuring the
//! hits again reads half of the memory, which is what that waits for. [`Metric::Hamming`] is of vectors of zeros and ones, which take a
//! bit each, eight to a byte with the first in the highest place, as `numpy.packbits` has it (docs/decisions/0023).

use std::borrow::Cow;
use std::ops::Range;

use half::f16;
use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};

use super::kernels;
use crate::schema::Metric;

/// Dimensions of a byte of bits; vectors that are kept so have a multiple of them.
pub const PER_BYTE: usize = u8::BITS as usize;

/// How the numbers of vectors are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// As `f32`.
    Singles,
    /// As halves.
    Halves,
    /// As bits.
    Bits,
}

impl Form {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::Singles, Self::Halves, Self::Bits];

    /// How vectors of the metric are kept where nobody looks at their numbers: in the log, and until they are in a segment.
    pub fn of_metric(metric: Metric) -> Self {
        match metric {
            Metric::Hamming => Self::Bits,
            Metric::Cosine | Metric::Dot | Metric::Euclid | Metric::Manhattan => Self::Singles,
        }
    }

    /// Whether vectors of the metric may be kept so in a segment.
    pub fn is_for(self, metric: Metric) -> bool {
        (self == Self::Bits) == (metric == Metric::Hamming)
    }

    /// The section of a segment that holds them.
    pub fn section(self) -> &'static str {
        match self {
            Self::Singles => "vector",
            Self::Halves => "halves",
            Self::Bits => "bits",
        }
    }

    /// Bytes of a vector.
    pub fn row_bytes(self, dim: usize) -> usize {
        match self {
            Self::Singles => dim * size_of::<f32>(),
            Self::Halves => dim * size_of::<u16>(),
            Self::Bits => {
                debug_assert!(dim.is_multiple_of(PER_BYTE), "a schema has whole bytes of them");
                dim / PER_BYTE
            }
        }
    }

    /// Numbers over their bytes; a panic if these are not aligned.
    pub fn of(self, bytes: &[u8]) -> Floats<'_> {
        match self {
            Self::Singles => Floats::Singles(bytemuck::cast_slice(bytes)),
            Self::Halves => Floats::Halves(bytemuck::cast_slice(bytes)),
            Self::Bits => Floats::Bits(bytes),
        }
    }

    /// Appends the bytes of a vector, which must be one that [can be](Self::can_be) kept so.
    pub fn put(self, vector: &[f32], bytes: &mut Vec<u8>) {
        match self {
            Self::Singles => bytes.extend_from_slice(bytemuck::cast_slice(vector)),
            Self::Halves => {
                let mut halves = Vec::with_capacity(vector.len());
                to_halves(vector, &mut halves);
                bytes.extend_from_slice(bytemuck::cast_slice(&halves));
            }
            Self::Bits => to_bits(vector, bytes),
        }
    }

    /// Whether the numbers are the same when they are kept so. Of bits, 0 and -0 are one.
    pub fn can_be(self, vector: &[f32]) -> bool {
        match self {
            Self::Singles => true,
            Self::Halves => are_halves(vector),
            Self::Bits => not_a_bit(vector).is_none(),
        }
    }
}

/// Numbers one after the other.
#[derive(Debug, Clone, Copy)]
pub enum Floats<'a> {
    /// As given.
    Singles(&'a [f32]),
    /// The bits of halves that are the numbers given.
    Halves(&'a [u16]),
    /// Bits that are the numbers given, eight to a byte.
    Bits(&'a [u8]),
}

impl<'a> Floats<'a> {
    /// How they are kept.
    #[inline]
    pub fn form(self) -> Form {
        match self {
            Self::Singles(_) => Form::Singles,
            Self::Halves(_) => Form::Halves,
            Self::Bits(_) => Form::Bits,
        }
    }

    /// How many.
    #[inline]
    pub fn len(self) -> usize {
        match self {
            Self::Singles(numbers) => numbers.len(),
            Self::Halves(numbers) => numbers.len(),
            Self::Bits(bytes) => bytes.len() * PER_BYTE,
        }
    }

    /// There are none.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Some of them; of bits whole bytes.
    #[inline]
    pub(super) fn part(self, range: Range<usize>) -> Self {
        match self {
            Self::Singles(numbers) => Self::Singles(&numbers[range]),
            Self::Halves(numbers) => Self::Halves(&numbers[range]),
            Self::Bits(bytes) => Self::Bits(&bytes[range.start / PER_BYTE..range.end / PER_BYTE]),
        }
    }

    /// As `f32`, the same numbers.
    pub fn singles(self) -> Cow<'a, [f32]> {
        match self {
            Self::Singles(numbers) => Cow::Borrowed(numbers),
            Self::Halves(numbers) => Cow::Owned(numbers.iter().map(|half| kernels::widen(*half)).collect()),
            Self::Bits(bytes) => Cow::Owned(of_bits(bytes).collect()),
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
            Self::Bits(bytes) => {
                let mut numbers = std::mem::take(buffer).into_owned();
                numbers.clear();
                numbers.extend(of_bits(bytes));
                Cow::Owned(numbers)
            }
        };
    }

    /// As they are in memory: of numbers kept in the same way the same bytes are the same numbers.
    pub fn bytes(self) -> &'a [u8] {
        match self {
            Self::Singles(numbers) => bytemuck::cast_slice(numbers),
            Self::Halves(numbers) => bytemuck::cast_slice(numbers),
            Self::Bits(bytes) => bytes,
        }
    }

    /// Asks memory for them.
    #[inline]
    pub(super) fn prefetch(self) {
        match self {
            Self::Singles(numbers) => kernels::prefetch(numbers),
            Self::Halves(numbers) => kernels::prefetch(numbers),
            Self::Bits(bytes) => kernels::prefetch(bytes),
        }
    }
}

/// A vector in memory of its own, in the form of its metric ([`Form::of_metric`]).
#[derive(Debug, Clone, PartialEq)]
pub enum Owned {
    /// As given.
    Singles(Vec<f32>),
    /// Bits that are the numbers given.
    Bits(Vec<u8>),
}

impl Owned {
    /// Of a vector that the metric can compare.
    pub fn new(metric: Metric, vector: Cow<'_, [f32]>) -> Self {
        match metric {
            Metric::Hamming => {
                let mut bits = Vec::new();
                to_bits(&vector, &mut bits);
                Self::Bits(bits)
            }
            Metric::Cosine | Metric::Dot | Metric::Euclid | Metric::Manhattan => Self::Singles(vector.into_owned()),
        }
    }

    /// Of bytes that [`Form::put`] made of so many numbers; none of another length.
    pub fn read(metric: Metric, dim: usize, bytes: &[u8]) -> Option<Self> {
        let form = Form::of_metric(metric);
        if bytes.len() != form.row_bytes(dim) {
            return None;
        }
        Some(match form {
            Form::Bits => Self::Bits(bytes.to_vec()),
            // They may be anywhere, aligned or not.
            Form::Singles | Form::Halves => {
                Self::Singles(bytes.as_chunks().0.iter().copied().map(f32::from_le_bytes).collect())
            }
        })
    }

    /// The numbers.
    pub fn view(&self) -> Floats<'_> {
        match self {
            Self::Singles(numbers) => Floats::Singles(numbers),
            Self::Bits(bits) => Floats::Bits(bits),
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

/// The place of the first number that is neither 0 nor 1.
pub fn not_a_bit(numbers: &[f32]) -> Option<usize> {
    numbers.iter().position(|x| *x != 0.0 && *x != 1.0)
}

/// Appends a bit for each number, 1 for those above 0; the last byte is filled up with zeros.
pub fn to_bits(numbers: &[f32], bits: &mut Vec<u8>) {
    let byte = |eight: &[f32]| {
        let ones = eight
            .iter()
            .enumerate()
            .map(|(i, x)| u8::from(*x > 0.0) << (PER_BYTE - 1 - i));
        ones.sum::<u8>()
    };
    bits.extend(numbers.chunks(PER_BYTE).map(byte));
}

/// The numbers that bits stand for.
pub fn of_bits(bits: &[u8]) -> impl Iterator<Item = f32> + '_ {
    let eight = |byte: &u8| {
        let byte = *byte;
        (0..PER_BYTE).map(move |i| f32::from(byte >> (PER_BYTE - 1 - i) & 1))
    };
    bits.iter().flat_map(eight)
}

#[cfg(test)]
mod tests;
