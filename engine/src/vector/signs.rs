//! Vectors in one bit a dimension: not to rank rows by, but to see which are too far to be worth a longer look.
//!
//! RaBitQ (Gao & Long, "RaBitQ: quantizing high-dimensional vectors with a theoretical error bound for approximate nearest neighbor
//! search", 2024): the mean of all rows is taken off, what is left is rotated, and of each number its sign is kept. With `R` the
//! rotation, `y = x - μ` and `s` the signs of `Ry`, the inner product with a query's rest is estimated without bias as
//!
//! ```text
//! <q-μ, y>  ≈  |y|² / Σ|Ry|  ·  <s, R(q-μ)>
//! ```
//!
//! and its error is nearly normal, of deviation `|q-μ| · e` with `e = |y| √(1/t² - 1) / √(d-1)` and `t = Σ|Ry| / (√d |y|)`. What is added
//! to it to make a distance is what codes add ([`super::codes`]).
//!
//! A walk meets four times as many rows as it keeps. All are measured by their signs, a cache line each where codes have seven; those
//! that are so far that hardly an error of the estimate explains it are not measured by anything else.
//!
//! Promises: encoding uses single additions and multiplications in a fixed order, so the same vectors have the same signs on every
//! machine. Does not do: Manhattan distance, which has no such product; bits, which are as small themselves.
//!
//! # Bytes
//!
//! Little-endian, version 1. `n` rows of `d` dimensions.
//!
//! ```text
//!  0  "CSGN" | version | n | d | metric (0 cosine, 1 dot, 2 euclid) | 44 zero bytes         header, 64 bytes
//! 64  d f32, zeros to a multiple of 64                                                      mean
//!  ·  n records: ⌈d/64⌉ u64 of signs (1 is positive, the first dimension is the lowest      records
//!     bit), f32 extra, f32 |y|²/Σ|Ry|, f32 e, zeros; each 32 or a multiple of 64 bytes
//! ```
//!
//! The record of a row without a vector is zeros.

use std::ops::Range;

use bytemuck::{Pod, Zeroable};

use super::VectorsRef;
use super::codes::{Integers, Parts, first_line, mean, metric_number, metric_of, product, scale, take_off};
use super::kernels::{self, Bits, LINE, SignKernel, SignQuery};
use super::near::{Near, four};
use super::rotation::Rotation;
use crate::error::{Error, Result};
use crate::schema::Metric;
use crate::types::Ordinal;

const MAGIC: [u8; 4] = *b"CSGN";
const VERSION: u32 = 1;
/// Bits of a word.
const WORD: usize = 64;
/// Bytes of `extra`, `factor` and `error`, which stand behind the signs.
const CORRECTIONS: usize = 12;

/// How many deviations of its error an estimate may be too far before the row is not looked at again. Fewer lose hits that more
/// candidates have to bring back, more look at rows in vain.
const ERRORS: f32 = 1.5;

/// Vectors of fewer bytes are read as fast as signs and then them.
const BYTES_MIN: usize = 4 * LINE;

#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Header {
    magic: [u8; 4],
    version: u32,
    rows: u32,
    dim: u32,
    metric: u32,
    reserved: [u32; 11],
}

const _: () = assert!(size_of::<Header>() == LINE);

/// Where the parts of signs are; proof that the bytes were checked.
#[derive(Debug, Clone)]
pub struct SignsLayout {
    metric: Metric,
    dim: usize,
    rows: usize,
    mean: Range<usize>,
    records: Range<usize>,
}

/// Signs over their bytes.
#[derive(Debug, Clone, Copy)]
pub struct Signs<'a> {
    metric: Metric,
    dim: usize,
    record_bytes: usize,
    mean: &'a [f32],
    records: &'a [u8],
}

/// Whether signs save a walk over these vectors anything. Beside codes they do not: see docs/decisions/0019. Of the numbers, not of how they
/// are kept, so that halves make the same indexes.
pub fn are_worth_it(vectors: &VectorsRef<'_>) -> bool {
    metric_number(vectors.metric).is_some() && vectors.codes.is_none() && size_of::<f32>() * vectors.dim >= BYTES_MIN
}

fn record_bytes(dim: usize) -> usize {
    let bytes = dim.div_ceil(WORD) * size_of::<u64>() + CORRECTIONS;
    match bytes <= LINE / 2 {
        true => LINE / 2,
        false => bytes.next_multiple_of(LINE),
    }
}

impl SignsLayout {
    /// Checks header and lengths. Any signs are signs: what is wrong inside a record makes wrong estimates, no worse.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let header: Header = first_line(bytes, MAGIC, VERSION)?;
        if header.reserved != [0; 11] {
            return Err(Error::damaged("signs: not what this build reads"));
        }
        let (rows, dim) = (header.rows as usize, header.dim as usize);
        let Parts { mean, records } = Parts::place(bytes, dim, rows, record_bytes(dim))?;
        Ok(Self {
            metric: metric_of(header.metric)?,
            dim,
            rows,
            mean,
            records,
        })
    }

    /// The signs in the very bytes that were parsed, which are 4-byte aligned; a panic otherwise.
    pub fn view<'a>(&self, bytes: &'a [u8]) -> Signs<'a> {
        Signs {
            metric: self.metric,
            dim: self.dim,
            record_bytes: record_bytes(self.dim),
            mean: bytemuck::cast_slice(&bytes[self.mean.clone()]),
            records: &bytes[self.records.clone()],
        }
    }

    /// Whether these are signs of such vectors.
    pub fn fits(&self, metric: Metric, dim: usize, rows: usize) -> bool {
        (self.metric, self.dim, self.rows) == (metric, dim, rows)
    }
}

/// Writes the signs of all rows, piece by piece. The vectors must be of a metric that has an inner product.
pub fn encode(vectors: &VectorsRef<'_>, put: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
    vectors.check()?;
    let metric = metric_number(vectors.metric)
        .ok_or_else(|| Error::internal(format!("{:?} vectors have no signs", vectors.metric)))?;
    let (rows, dim) = (vectors.len(), vectors.dim);
    put(bytemuck::bytes_of(&Header {
        magic: MAGIC,
        version: VERSION,
        rows: rows as u32,
        dim: dim as u32,
        metric,
        reserved: [0; 11],
    }))?;
    let mean = mean(vectors);
    let mut padded = mean.clone();
    padded.resize(dim.next_multiple_of(LINE / size_of::<f32>()), 0.0);
    put(bytemuck::cast_slice(&padded))?;
    let rotation = Rotation::new(dim);
    let (mut record, mut rest) = (vec![0u8; record_bytes(dim)], vec![0f32; dim]);
    for ordinal in 0..rows as Ordinal {
        record.fill(0);
        if !vectors.is_absent(ordinal) {
            take_off(&mean, &vectors.row(ordinal), scale(vectors, ordinal), &mut rest);
            encode_row(vectors.metric, &mean, &rotation, &mut rest, &mut record);
        }
        put(&record)?;
    }
    Ok(())
}

/// Turns `rest` on the way.
fn encode_row(metric: Metric, mean: &[f32], rotation: &Rotation, rest: &mut [f32], record: &mut [u8]) {
    let (dim, squared) = (rest.len() as f64, product(rest, rest));
    let extra = match metric {
        Metric::Cosine | Metric::Dot => -product(mean, rest),
        Metric::Euclid | Metric::Manhattan | Metric::Hamming => squared,
    };
    rotation.turn(rest);
    let sum: f64 = rest.iter().map(|x| f64::from(x.abs())).sum();
    let (mut factor, mut error) = (0.0, 0.0);
    if sum > 0.0 {
        factor = squared / sum;
        let t = sum / (dim * squared).sqrt();
        error = (squared * (1.0 / (t * t) - 1.0).max(0.0) / (dim - 1.0).max(1.0)).sqrt();
    }
    for (i, x) in rest.iter().enumerate() {
        record[i / 8] |= u8::from(*x > 0.0) << (i % 8);
    }
    let at = rest.len().div_ceil(WORD) * size_of::<u64>();
    let corrections = [extra as f32, factor as f32, error as f32];
    record[at..at + CORRECTIONS].copy_from_slice(bytemuck::cast_slice(&corrections));
}

impl<'a> Signs<'a> {
    /// Bytes of a record.
    pub fn record_bytes(&self) -> usize {
        self.record_bytes
    }

    #[inline]
    fn record(&self, ordinal: Ordinal) -> &'a [u8] {
        let start = ordinal as usize * self.record_bytes;
        &self.records[start..start + self.record_bytes]
    }

    /// Estimates rows against a query of as many dimensions.
    pub(super) fn scorer(self, query: &[f32]) -> SignScorer<'a> {
        let scale = match self.metric {
            Metric::Cosine => super::inv_norm(query),
            Metric::Dot | Metric::Euclid | Metric::Manhattan | Metric::Hamming => 1.0,
        };
        let mut rest = vec![0f32; self.dim];
        take_off(self.mean, query, scale, &mut rest);
        let squared = kernels::dot(&rest, &rest);
        Rotation::of(self.dim).turn(&mut rest);
        let mut numbers = vec![0i8; self.dim.next_multiple_of(LINE)];
        let (step, total) = kernels::in_wide_registers(Integers {
            bits: Bits::Eight,
            numbers: &rest,
            integers: &mut numbers,
        });
        let weight = match self.metric {
            Metric::Euclid => 2.0,
            Metric::Cosine | Metric::Dot | Metric::Manhattan | Metric::Hamming => 1.0,
        };
        let kernel = kernels::best_for_codes().signs;
        SignScorer {
            signs: self,
            kernel,
            query: SignQuery::new(&numbers, kernel.by_planes),
            base: match self.metric {
                Metric::Cosine => 1.0 - kernels::dot(query, self.mean) * scale,
                Metric::Dot | Metric::Manhattan | Metric::Hamming => -kernels::dot(query, self.mean),
                Metric::Euclid => squared,
            },
            step: 2.0 * step * weight,
            total: total as f32 * step * weight,
            slack: ERRORS * weight * squared.sqrt(),
        }
    }
}

/// A query ready to be estimated against any row.
#[derive(Debug)]
pub(super) struct SignScorer<'a> {
    signs: Signs<'a>,
    kernel: SignKernel,
    query: SignQuery,
    /// Its part of every distance.
    base: f32,
    /// What a unit of the sum over set bits counts, once multiplied with the row's factor; and the sum over all bits, so counted once.
    step: f32,
    total: f32,
    /// What a row's error counts.
    slack: f32,
}

impl SignScorer<'_> {
    /// How near four rows may be: estimates, less what they may be wrong by.
    #[inline]
    pub(super) fn least(&self, ordinals: [Ordinal; 4]) -> [f32; 4] {
        let records = ordinals.map(|ordinal| self.signs.record(ordinal));
        let sums = self.kernel.of_four(&self.query, records);
        let at = self.query.bytes();
        let mut least = [0.0; 4];
        for i in 0..4 {
            let [extra, factor, error]: [f32; 3] = bytemuck::pod_read_unaligned(&records[i][at..at + CORRECTIONS]);
            let product = factor * (self.step * sums[i] as f32 - self.total);
            least[i] = self.base + extra - product - self.slack * error;
        }
        least
    }
}

/// Rows measured by something after they were looked at by their signs.
#[derive(Debug)]
pub(super) struct Sifted<'a, N> {
    pub(super) near: N,
    pub(super) signs: SignScorer<'a>,
}

impl<N: Near> Near for Sifted<'_, N> {
    #[inline]
    fn four(&self, ordinals: [Ordinal; 4]) -> [f32; 4] {
        self.near.four(ordinals)
    }

    #[inline]
    fn one(&self, ordinal: Ordinal) -> f32 {
        self.near.one(ordinal)
    }

    #[inline]
    fn prefetch(&self, ordinal: Ordinal) {
        kernels::prefetch(self.signs.signs.record(ordinal));
    }

    #[inline]
    fn prefetch_measured(&self, ordinal: Ordinal) {
        self.near.prefetch(ordinal);
    }

    #[inline]
    fn sift(&self, rows: &mut Vec<Ordinal>, edge: f32) {
        if edge < f32::INFINITY {
            let mut kept = 0;
            for start in (0..rows.len()).step_by(4) {
                let end = rows.len().min(start + 4);
                let least = self.signs.least(four(&rows[start..end], |row| *row));
                for (i, least) in (start..end).zip(least) {
                    let row = rows[i];
                    if !(least >= edge) {
                        rows[kept] = row;
                        kept += 1;
                        self.near.prefetch(row);
                    }
                }
            }
            rows.truncate(kept);
        } else {
            rows.iter().for_each(|row| self.near.prefetch(*row));
        }
    }
}

#[cfg(test)]
mod tests;
