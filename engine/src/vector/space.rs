//! Vectors of one segment and how close a query is to each of them.
//!
//! Whatever the metric, searching sees one number per vector, the *distance*, of which smaller is closer; what a
//! caller is shown is the *raw* value of the metric ([`Metric::raw`]). Vectors are never changed to suit a metric:
//! cosine divides by norms kept beside them.
//!
//! | metric    | distance   | raw value         |
//! |-----------|------------|-------------------|
//! | cosine    | `1 - cos`  | cosine similarity |
//! | dot       | `-dot`     | inner product     |
//! | euclid    | `Σ (a-b)²` | `√Σ (a-b)²`       |
//! | manhattan | `Σ \|a-b\|` | `Σ \|a-b\|`       |
//! | hamming   | dimensions that differ, of zeros and ones | the same |

use std::borrow::Cow;
use std::ops::Range;

use super::BitSet;
use super::codes::{Codes, product};
use super::floats::{self, Floats, Form};
use super::kernels::{self, BitKernel, Kernel};
use super::packs::Packs;
use super::signs::Signs;
use crate::error::{Error, Result};
use crate::limits;
use crate::schema::Metric;
use crate::types::Ordinal;

impl Metric {
    /// The value of the metric that a distance stands for.
    pub fn raw(self, distance: f32) -> f32 {
        match self {
            // The clamp hides rounding: a cosine of 1.0000001 would make readers doubt the rest.
            Self::Cosine => (1.0 - distance).clamp(-1.0, 1.0),
            Self::Dot => -distance,
            Self::Euclid => distance.sqrt(),
            Self::Manhattan | Self::Hamming => distance,
        }
    }

    fn kernel(self) -> Kernel {
        let kernels = kernels::best();
        match self {
            Self::Cosine | Self::Dot => kernels.dot,
            Self::Euclid => kernels.l2_squared,
            // Zeros and ones that are kept as numbers differ by one where they differ.
            Self::Manhattan | Self::Hamming => kernels.l1,
        }
    }
}

/// `1/|v|`, and 0 for the zero vector (whose cosine with anything is then 0). Finite for every finite vector.
pub fn inv_norm(v: &[f32]) -> f32 {
    let squared = product(v, v);
    if squared == 0.0 {
        return 0.0;
    }
    // f32 has no reciprocal for its smallest numbers; its largest number is near enough.
    (1.0 / squared.sqrt()).min(f64::from(f32::MAX)) as f32
}

/// Told of each row, or list, before it is read: where vectors are read from a disk, whoever made them checks them then. A search goes on
/// with zeros where a row cannot be read; who asked for the search asks whoever made the vectors what came of it.
pub trait Touch: Sync {
    /// A row, or an inverted list, is about to be read. False if it must not be: the disk may not give it.
    fn touch(&self, ordinal: Ordinal) -> bool;
}

/// What a search sees of a row that cannot be read.
static UNREADABLE: [f32; limits::DIM_MAX] = [0.0; limits::DIM_MAX];
static UNREADABLE_HALVES: [u16; limits::DIM_MAX] = [0; limits::DIM_MAX];
static UNREADABLE_BITS: [u8; limits::DIM_MAX / floats::PER_BYTE] = [0; limits::DIM_MAX / floats::PER_BYTE];

/// What rows are measured against: a vector as the loops want it that measure rows as they are kept.
#[derive(Clone)]
pub(super) enum Against<'a> {
    Numbers(Kernel, Cow<'a, [f32]>),
    Bits(BitKernel, Cow<'a, [u8]>),
}

const OTHER_ROWS: &str = "what rows are measured against was made for rows that are kept as they are";

/// The vectors of one segment, one row per ordinal, exactly the numbers that were given.
#[derive(Clone, Copy)]
pub struct VectorsRef<'a> {
    /// How closeness is measured.
    pub metric: Metric,
    /// Numbers per row.
    pub dim: usize,
    /// The rows one after the other; an absent vector is a row of zeros.
    pub data: Floats<'a>,
    /// Whom to tell of rows that are read.
    pub touch: Option<&'a dyn Touch>,
    /// [`inv_norm`] of each row for [`Metric::Cosine`], else empty.
    pub inv_norms: &'a [f32],
    /// Ordinals that have no vector: never indexed, never answered.
    pub absent: Option<&'a BitSet>,
    /// The same vectors in fewer bits, for walks.
    pub codes: Option<Codes<'a>>,
    /// The same in one bit a dimension, for walks that sift what they meet.
    pub signs: Option<Signs<'a>>,
    /// What a graph's nodes know of their neighbours, for walks that look at those without measuring them.
    pub packs: Option<Packs<'a>>,
}

impl<'a> VectorsRef<'a> {
    /// Rows, absent ones included.
    pub fn len(&self) -> usize {
        self.data.len().checked_div(self.dim).unwrap_or(0)
    }

    /// There are no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The vector of an ordinal below `len`.
    #[inline]
    pub fn row(&self, ordinal: Ordinal) -> Cow<'a, [f32]> {
        self.numbers(ordinal).singles()
    }

    /// The same as it is kept.
    #[inline]
    pub(super) fn numbers(&self, ordinal: Ordinal) -> Floats<'a> {
        match (self.data, self.is_readable(ordinal)) {
            (_, true) => self.data.part(self.place(ordinal)),
            (Floats::Singles(_), false) => Floats::Singles(&UNREADABLE[..self.dim]),
            (Floats::Halves(_), false) => Floats::Halves(&UNREADABLE_HALVES[..self.dim]),
            (Floats::Bits(_), false) => Floats::Bits(&UNREADABLE_BITS[..self.dim / floats::PER_BYTE]),
        }
    }

    #[inline]
    fn place(&self, ordinal: Ordinal) -> Range<usize> {
        let start = ordinal as usize * self.dim;
        start..start + self.dim
    }

    #[inline]
    fn is_readable(&self, ordinal: Ordinal) -> bool {
        self.touch.is_none_or(|touch| touch.touch(ordinal))
    }

    /// A vector to measure rows against.
    pub(super) fn against(&self, vector: Cow<'a, [f32]>) -> Against<'a> {
        match self.data.form() {
            Form::Singles | Form::Halves => Against::Numbers(self.metric.kernel(), vector),
            Form::Bits => {
                let mut bits = Vec::with_capacity(self.dim / floats::PER_BYTE);
                floats::to_bits(&vector, &mut bits);
                Against::Bits(kernels::best_for_bits(), Cow::Owned(bits))
            }
        }
    }

    /// Measures against a row from now on.
    #[inline]
    pub(super) fn aim(&self, ordinal: Ordinal, against: &mut Against<'a>) {
        match (self.numbers(ordinal), against) {
            (Floats::Bits(row), Against::Bits(_, bits)) => *bits = Cow::Borrowed(row),
            (row, Against::Numbers(_, numbers)) => row.singles_in(numbers),
            (Floats::Singles(_) | Floats::Halves(_), Against::Bits(..)) => unreachable!("{OTHER_ROWS}"),
        }
    }

    /// Runs the loop over a row.
    #[inline]
    fn sum(&self, against: &Against<'_>, ordinal: Ordinal) -> f32 {
        match (self.numbers(ordinal), against) {
            (Floats::Singles(row), Against::Numbers(kernel, query)) => kernel.of(query, row),
            (Floats::Halves(row), Against::Numbers(kernel, query)) => kernel.of_halves(query, row),
            (Floats::Bits(row), Against::Bits(kernel, query)) => kernel.of(query, row) as f32,
            (Floats::Singles(_) | Floats::Halves(_), Against::Bits(..)) | (Floats::Bits(_), Against::Numbers(..)) => {
                unreachable!("{OTHER_ROWS}")
            }
        }
    }

    /// The same of four rows, to the bit.
    #[inline]
    pub(super) fn sums(&self, against: &Against<'_>, ordinals: [Ordinal; 4]) -> [f32; 4] {
        let place = |ordinal| self.is_readable(ordinal).then(|| self.place(ordinal));
        match (self.data, against) {
            (Floats::Singles(data), Against::Numbers(kernel, query)) => {
                let row = |ordinal| place(ordinal).map_or(&UNREADABLE[..self.dim], |place| &data[place]);
                kernel.of_four(query, ordinals.map(row))
            }
            (Floats::Halves(data), Against::Numbers(kernel, query)) => {
                let row = |ordinal| place(ordinal).map_or(&UNREADABLE_HALVES[..self.dim], |place| &data[place]);
                kernel.of_four_halves(query, ordinals.map(row))
            }
            (Floats::Bits(data), Against::Bits(kernel, query)) => {
                let bytes = self.dim / floats::PER_BYTE;
                let row = |ordinal| match self.is_readable(ordinal) {
                    true => &data[ordinal as usize * bytes..(ordinal as usize + 1) * bytes],
                    false => &UNREADABLE_BITS[..bytes],
                };
                // A count of dimensions is a whole number of 16 bits.
                kernel
                    .of_four(query, ordinals.map(row))
                    .map(|differing| differing as f32)
            }
            (Floats::Singles(_) | Floats::Halves(_), Against::Bits(..)) | (Floats::Bits(_), Against::Numbers(..)) => {
                unreachable!("{OTHER_ROWS}")
            }
        }
    }

    /// Asks memory for a row that will be read soon. Nobody is told of it: it is not read yet.
    #[inline]
    pub(super) fn prefetch(&self, ordinal: Ordinal) {
        self.data.part(self.place(ordinal)).prefetch();
    }

    /// Whether the ordinal has no vector.
    #[inline]
    pub fn is_absent(&self, ordinal: Ordinal) -> bool {
        self.absent.is_some_and(|absent| absent.contains(ordinal))
    }

    /// Measures rows against a query of `dim` floats (checked by every search before it comes here).
    pub fn scorer(&self, query: impl Into<Cow<'a, [f32]>>) -> QueryScorer<'a> {
        let query = query.into();
        assert_eq!(query.len(), self.dim, "a query has the dimensions of its space");
        let query = match self.metric {
            // Unit length first, so that the products stay in range whatever the lengths.
            Metric::Cosine => {
                let inv_norm = inv_norm(&query);
                let mut query = query.into_owned();
                query.iter_mut().for_each(|x| *x *= inv_norm);
                Cow::Owned(query)
            }
            Metric::Dot | Metric::Euclid | Metric::Manhattan | Metric::Hamming => query,
        };
        QueryScorer {
            vectors: *self,
            query: self.against(query),
        }
    }

    /// Refuses parts that do not fit each other, so that no search has to look again.
    pub(super) fn check(&self) -> Result<()> {
        let rows = self.len();
        let norms = if self.metric == Metric::Cosine { rows } else { 0 };
        if self.dim == 0 || !self.data.len().is_multiple_of(self.dim) || rows >= Ordinal::MAX as usize {
            return Err(Error::damaged(format!(
                "{} floats are not rows of {} dimensions",
                self.data.len(),
                self.dim
            )));
        }
        if let Floats::Bits(_) = self.data
            && (self.metric != Metric::Hamming || !self.dim.is_multiple_of(floats::PER_BYTE))
        {
            return Err(Error::damaged(format!(
                "vectors of {} dimensions kept as bits, compared by {:?}",
                self.dim, self.metric
            )));
        }
        if self.codes.is_some_and(|codes| codes.len() != rows) {
            return Err(Error::damaged(format!("the codes are not those of {rows} rows")));
        }
        if self.inv_norms.len() != norms {
            return Err(Error::damaged(format!(
                "{rows} rows need {norms} norms, got {}",
                self.inv_norms.len()
            )));
        }
        Ok(())
    }

    pub(super) fn check_query(&self, query: &[f32]) -> Result<()> {
        self.check()?;
        if query.len() != self.dim {
            return Err(Error::invalid(
                "bad_dim",
                format!("the vector has {} dimensions, the query has {}", self.dim, query.len()),
            ));
        }
        Ok(())
    }
}

/// A query ready to be measured against any row of its vectors.
pub struct QueryScorer<'a> {
    vectors: VectorsRef<'a>,
    /// Of unit length for cosine, else as given.
    query: Against<'a>,
}

impl QueryScorer<'_> {
    /// How far the row is from the query; smaller is closer.
    #[inline]
    pub fn distance(&self, ordinal: Ordinal) -> f32 {
        self.of_sum(ordinal, self.vectors.sum(&self.query, ordinal))
    }

    /// The same of four rows, to the bit.
    #[inline]
    pub fn four(&self, ordinals: [Ordinal; 4]) -> [f32; 4] {
        let sums = self.vectors.sums(&self.query, ordinals);
        let mut distances = [0.0; 4];
        for i in 0..4 {
            distances[i] = self.of_sum(ordinals[i], sums[i]);
        }
        distances
    }

    /// Asks for a row that will be read soon.
    #[inline]
    pub(super) fn prefetch(&self, ordinal: Ordinal) {
        self.vectors.prefetch(ordinal);
    }

    #[inline]
    fn of_sum(&self, ordinal: Ordinal, sum: f32) -> f32 {
        match self.vectors.metric {
            Metric::Cosine => 1.0 - sum * self.vectors.inv_norms[ordinal as usize],
            Metric::Dot => -sum,
            Metric::Euclid | Metric::Manhattan | Metric::Hamming => sum,
        }
    }
}
