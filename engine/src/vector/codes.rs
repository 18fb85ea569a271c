//! Vectors in fewer bits: a code per dimension, with what is needed to correct a distance in the same record.
//!
//! Locally-adaptive vector quantization (Aguerrebere et al., "Similarity search in the blink of an eye with compressed
//! indices", 2023): the mean of all rows is taken off, then each row is cut into 255 (or 15) even steps between its own
//! smallest and largest value. A graph walk ranks candidates by these codes, at a quarter or an eighth of the memory
//! traffic, and the best of them are measured again on the vectors as they were given.
//!
//! With `μ` the mean, `y = x - μ` and `y ≈ low + step·c` for the codes `c`, and with a query's rest `q - μ ≈ s·t` in
//! integers `t` of a byte:
//!
//! ```text
//! <q-μ, y>   ≈  low · s·Σt  +  step · s·Σ t·c          Σ t·c is the integer kernel's work
//! dot        =  -<q,μ> - <μ,y> - <q-μ,y>               <μ,y> is the record's `extra`; a cosine is the dot product of
//! euclid     =  |q-μ|² + |y|² - 2·<q-μ,y>              unit vectors, from 1; |y|² is the record's `extra`
//! ```
//!
//! Promises: encoding uses single additions and multiplications in a fixed order, so the same vectors have the same codes on
//! every machine. Does not do: Manhattan distance, which has no such product; bits, which are as small themselves; keeping the vectors themselves.
//!
//! # Bytes
//!
//! Little-endian, version 1. `n` rows of `d` dimensions, `b` bits.
//!
//! ```text
//!  0  "CLVQ" | version | n | d | b | metric (0 cosine, 1 dot, 2 euclid) | 40 zero bytes     header, 64 bytes
//! 64  d f32, zeros to a multiple of 64                                                      mean
//!  ·  n records: codes, zeros, f32 low, f32 step, f32 extra; each a multiple of 64 bytes    records
//! ```
//!
//! Codes of 8 bits stand in the order of dimensions. Of 4 bits, byte `j` holds dimension `j` in its low half and `⌈d/2⌉ + j`
//! in its high half. The record of a row without a vector is zeros.

use std::ops::Range;

use bytemuck::{Pod, Zeroable};

use super::VectorsRef;
use super::kernels::{self, Bits, CodeKernel, LINE};
use crate::error::{Error, Result};
use crate::schema::{Metric, Quantization};
use crate::types::Ordinal;

const MAGIC: [u8; 4] = *b"CLVQ";
const VERSION: u32 = 1;
/// Bytes of `low`, `step` and `extra`: the end of a record.
const CORRECTIONS: usize = 12;

#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Header {
    magic: [u8; 4],
    version: u32,
    rows: u32,
    dim: u32,
    bits: u32,
    metric: u32,
    reserved: [u32; 10],
}

const _: () = assert!(size_of::<Header>() == LINE);

impl Quantization {
    /// Bits of a code, if vectors of this metric are coded at all.
    pub fn bits(self, metric: Metric) -> Option<Bits> {
        match (self, metric) {
            (Self::None, _) | (_, Metric::Manhattan | Metric::Hamming) => None,
            (Self::Int8, _) => Some(Bits::Eight),
            (Self::Int4, _) => Some(Bits::Four),
        }
    }
}

impl Bits {
    /// The largest code.
    fn levels(self) -> f32 {
        match self {
            Self::Eight => 255.0,
            Self::Four => 15.0,
        }
    }

    /// How many they are.
    pub fn count(self) -> u32 {
        match self {
            Self::Eight => 8,
            Self::Four => 4,
        }
    }

    /// Bytes that the codes of a row take.
    fn code_bytes(self, dim: usize) -> usize {
        match self {
            Self::Eight => dim,
            Self::Four => dim.div_ceil(2),
        }
    }

    /// Bytes of a record.
    pub fn record_bytes(self, dim: usize) -> usize {
        (self.code_bytes(dim) + CORRECTIONS).next_multiple_of(LINE)
    }
}

pub(super) fn metric_number(metric: Metric) -> Option<u32> {
    match metric {
        Metric::Cosine => Some(0),
        Metric::Dot => Some(1),
        Metric::Euclid => Some(2),
        Metric::Manhattan | Metric::Hamming => None,
    }
}

pub(super) fn metric_of(number: u32) -> Result<Metric> {
    let metrics = [Metric::Cosine, Metric::Dot, Metric::Euclid];
    let metric = metrics.get(number as usize).copied();
    metric.ok_or_else(|| Error::damaged(format!("vectors in fewer bits of metric {number}")))
}

/// The header of vectors in fewer bits of some kind, which begins with what it is and in which version.
pub(super) fn first_line<H: Pod>(bytes: &[u8], magic: [u8; 4], version: u32) -> Result<H> {
    let kind = String::from_utf8_lossy(&magic);
    let Some(header) = bytes.get(..LINE) else {
        return Err(Error::damaged(format!("{kind}: shorter than its header")));
    };
    let found = u32::from_le_bytes([header[4], header[5], header[6], header[7]]);
    if header[..4] != magic || header[4..8] != version.to_le_bytes() {
        return Err(Error::damaged(format!(
            "{kind}: begins with {:?} and version {found}, this build reads version {version}",
            String::from_utf8_lossy(&header[..4])
        )));
    }
    bytemuck::try_pod_read_unaligned(header).map_err(|e| Error::damaged(format!("{kind}: {e}")))
}

/// Where the mean and the records of rows in fewer bits are.
pub(super) struct Parts {
    pub(super) mean: Range<usize>,
    pub(super) records: Range<usize>,
}

impl Parts {
    /// Refuses bytes of another length, or off their alignment.
    pub(super) fn place(bytes: &[u8], dim: usize, rows: usize, of_row: usize) -> Result<Self> {
        let mean = LINE..LINE + dim * size_of::<f32>();
        let start = mean.end.next_multiple_of(LINE);
        let end = rows.checked_mul(of_row).and_then(|records| records.checked_add(start));
        if dim == 0 || end != Some(bytes.len()) {
            return Err(Error::damaged(format!(
                "{} bytes for {rows} rows of {dim} dimensions in fewer bits, {of_row} bytes each",
                bytes.len()
            )));
        }
        bytemuck::try_cast_slice::<u8, f32>(&bytes[mean.clone()])
            .map_err(|e| Error::damaged(format!("vectors in fewer bits: {e}")))?;
        Ok(Self {
            mean,
            records: start..bytes.len(),
        })
    }
}

/// Where the parts of coded vectors are; proof that the bytes were checked.
#[derive(Debug, Clone)]
pub struct CodesLayout {
    bits: Bits,
    metric: Metric,
    dim: usize,
    rows: usize,
    mean: Range<usize>,
    mean_squared: f32,
    records: Range<usize>,
}

/// Coded vectors over their bytes.
#[derive(Debug, Clone, Copy)]
pub struct Codes<'a> {
    bits: Bits,
    metric: Metric,
    dim: usize,
    record_bytes: usize,
    mean: &'a [f32],
    /// `|μ|²`.
    mean_squared: f32,
    records: &'a [u8],
}

impl CodesLayout {
    /// Checks header and lengths. Any codes are codes: what is wrong inside a record makes wrong distances, no worse.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let header: Header = first_line(bytes, MAGIC, VERSION)?;
        let bits = match header.bits {
            8 => Bits::Eight,
            4 => Bits::Four,
            other => return Err(Error::damaged(format!("codes of {other} bits"))),
        };
        if header.reserved != [0; 10] {
            return Err(Error::damaged("codes: not what this build reads"));
        }
        let metric = metric_of(header.metric)?;
        let (rows, dim) = (header.rows as usize, header.dim as usize);
        let Parts { mean, records } = Parts::place(bytes, dim, rows, bits.record_bytes(dim))?;
        let numbers: &[f32] = bytemuck::cast_slice(&bytes[mean.clone()]);
        Ok(Self {
            bits,
            metric,
            dim,
            rows,
            mean_squared: product(numbers, numbers) as f32,
            mean,
            records,
        })
    }

    /// The codes in the very bytes that were parsed, which are 4-byte aligned; a panic otherwise.
    pub fn view<'a>(&self, bytes: &'a [u8]) -> Codes<'a> {
        Codes {
            bits: self.bits,
            metric: self.metric,
            dim: self.dim,
            record_bytes: self.bits.record_bytes(self.dim),
            mean: bytemuck::cast_slice(&bytes[self.mean.clone()]),
            mean_squared: self.mean_squared,
            records: &bytes[self.records.clone()],
        }
    }

    /// Bits of a code.
    pub fn bits(&self) -> Bits {
        self.bits
    }

    /// Whether these are codes of such vectors.
    pub fn fits(&self, metric: Metric, dim: usize, rows: usize) -> bool {
        (self.metric, self.dim, self.rows) == (metric, dim, rows)
    }
}

/// Writes the codes of all rows, piece by piece. The vectors must be of a metric that is coded ([`Quantization::bits`]).
pub fn encode(vectors: &VectorsRef<'_>, bits: Bits, put: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let mut encoder = Encoder::new(vectors, bits)?;
    let (rows, dim) = (vectors.len(), vectors.dim);
    put(bytemuck::bytes_of(&Header {
        magic: MAGIC,
        version: VERSION,
        rows: rows as u32,
        dim: dim as u32,
        bits: bits.count(),
        metric: encoder.metric,
        reserved: [0; 10],
    }))?;
    let mut padded = encoder.mean.clone();
    padded.resize(dim.next_multiple_of(LINE / size_of::<f32>()), 0.0);
    put(bytemuck::cast_slice(&padded))?;
    let mut record = vec![0u8; bits.record_bytes(dim)];
    for ordinal in 0..rows as Ordinal {
        encoder.row(ordinal, &mut record);
        put(&record)?;
    }
    Ok(())
}

/// Makes the records of rows, one at a time, in any order.
#[derive(Clone)]
pub(super) struct Encoder<'a> {
    vectors: VectorsRef<'a>,
    bits: Bits,
    /// As the header says it.
    metric: u32,
    mean: Vec<f32>,
    /// The row being coded, less the mean.
    rest: Vec<f32>,
}

impl<'a> Encoder<'a> {
    /// Looks at all rows once, for their mean.
    pub(super) fn new(vectors: &VectorsRef<'a>, bits: Bits) -> Result<Self> {
        vectors.check()?;
        let metric = metric_number(vectors.metric)
            .ok_or_else(|| Error::internal(format!("{:?} vectors have no codes", vectors.metric)))?;
        Ok(Self {
            vectors: *vectors,
            bits,
            metric,
            mean: mean(vectors),
            rest: vec![0f32; vectors.dim],
        })
    }

    /// Bytes of a record.
    pub(super) fn record_bytes(&self) -> usize {
        self.bits.record_bytes(self.vectors.dim)
    }

    /// Writes the record of a row, zeros if it is absent.
    pub(super) fn row(&mut self, ordinal: Ordinal, record: &mut [u8]) {
        let vectors = &self.vectors;
        record.fill(0);
        if !vectors.is_absent(ordinal) {
            take_off(
                &self.mean,
                &vectors.row(ordinal),
                scale(vectors, ordinal),
                &mut self.rest,
            );
            let extra = match vectors.metric {
                Metric::Cosine | Metric::Dot => -product(&self.mean, &self.rest),
                Metric::Euclid | Metric::Manhattan | Metric::Hamming => product(&self.rest, &self.rest),
            };
            encode_row(self.bits, &self.rest, extra as f32, record);
        }
    }

    /// Some records as codes: the first is ordinal 0.
    pub(super) fn codes<'c>(&'c self, records: &'c [u8]) -> Codes<'c> {
        Codes {
            bits: self.bits,
            metric: self.vectors.metric,
            dim: self.vectors.dim,
            record_bytes: self.record_bytes(),
            mean: &self.mean,
            mean_squared: product(&self.mean, &self.mean) as f32,
            records,
        }
    }
}

/// Makes the records of rows that are coded by what they differ from a centre of their own, instead of the mean of all: see
/// [`ivf`](super::ivf), which has the formulas.
#[derive(Clone)]
pub(super) struct AroundCentres<'a> {
    vectors: VectorsRef<'a>,
    bits: Bits,
    mean: &'a [f32],
    /// The row being coded, less its centre.
    rest: Vec<f32>,
    /// Its centre, less the mean.
    aside: Vec<f32>,
}

impl<'a> AroundCentres<'a> {
    /// For a query less the mean.
    pub(super) fn new(vectors: &VectorsRef<'a>, bits: Bits, mean: &'a [f32]) -> Self {
        Self {
            vectors: *vectors,
            bits,
            mean,
            rest: vec![0f32; vectors.dim],
            aside: vec![0f32; vectors.dim],
        }
    }

    /// Writes the record of a row that has a vector.
    pub(super) fn row(&mut self, ordinal: Ordinal, centre: &[f32], record: &mut [u8]) {
        let vectors = &self.vectors;
        record.fill(0);
        let row = vectors.row(ordinal);
        take_off(centre, &row, scale(vectors, ordinal), &mut self.rest);
        let extra = match vectors.metric {
            Metric::Cosine | Metric::Dot => -product(self.mean, &self.rest),
            Metric::Euclid | Metric::Manhattan | Metric::Hamming => {
                take_off(self.mean, centre, 1.0, &mut self.aside);
                product(&self.rest, &self.rest) + 2.0 * product(&self.aside, &self.rest)
            }
        };
        encode_row(self.bits, &self.rest, extra as f32, record);
    }
}

/// What a row is multiplied with before it is coded.
pub(super) fn scale(vectors: &VectorsRef<'_>, ordinal: Ordinal) -> f32 {
    match vectors.metric {
        Metric::Cosine => vectors.inv_norms[ordinal as usize],
        Metric::Dot | Metric::Euclid | Metric::Manhattan | Metric::Hamming => 1.0,
    }
}

pub(super) fn mean(vectors: &VectorsRef<'_>) -> Vec<f32> {
    let mut sums = vec![0f64; vectors.dim];
    let mut present = 0u64;
    for ordinal in (0..vectors.len() as Ordinal).filter(|o| !vectors.is_absent(*o)) {
        present += 1;
        let scale = scale(vectors, ordinal);
        for (sum, x) in sums.iter_mut().zip(&*vectors.row(ordinal)) {
            *sum += f64::from(x * scale);
        }
    }
    sums.iter().map(|sum| (sum / present.max(1) as f64) as f32).collect()
}

pub(super) fn take_off(mean: &[f32], row: &[f32], scale: f32, rest: &mut [f32]) {
    for ((rest, x), mean) in rest.iter_mut().zip(row).zip(mean) {
        *rest = x * scale - mean;
    }
}

fn encode_row(bits: Bits, rest: &[f32], extra: f32, record: &mut [u8]) {
    let (low, high) = range(rest);
    let levels = bits.levels();
    // Divided first: the difference of two large floats may be none.
    let step = high / levels - low / levels;
    let per_step = if step > 0.0 { 1.0 / step } else { 0.0 };
    // A cast to an integer saturates, so no code is out of range whatever the rounding.
    let code = |x: f32| ((x - low) * per_step + 0.5).min(levels) as u8;
    match bits {
        Bits::Eight => {
            for (byte, x) in record.iter_mut().zip(rest) {
                *byte = code(*x);
            }
        }
        Bits::Four => {
            let (lows, highs) = rest.split_at(rest.len().div_ceil(2));
            for (byte, x) in record.iter_mut().zip(lows) {
                *byte = code(*x);
            }
            for (byte, x) in record.iter_mut().zip(highs) {
                *byte |= code(*x) << 4;
            }
        }
    }
    let corrections = [low, step, extra];
    let at = record.len() - CORRECTIONS;
    record[at..].copy_from_slice(bytemuck::cast_slice(&corrections));
}

/// Independent sums, so that the compiler may use wide registers without a change of order.
const LANES: usize = 8;

/// In one order of additions, so that it is the same everywhere.
pub(super) fn product(a: &[f32], b: &[f32]) -> f64 {
    let (whole_a, tail_a) = a.as_chunks::<LANES>();
    let (whole_b, tail_b) = b.as_chunks::<LANES>();
    let mut lanes = [0f64; LANES];
    for (x, y) in whole_a.iter().zip(whole_b) {
        for lane in 0..LANES {
            lanes[lane] += f64::from(x[lane]) * f64::from(y[lane]);
        }
    }
    for ((lane, x), y) in lanes.iter_mut().zip(tail_a).zip(tail_b) {
        *lane += f64::from(*x) * f64::from(*y);
    }
    lanes.iter().sum()
}

/// The least and the largest value.
#[inline(always)]
fn range(values: &[f32]) -> (f32, f32) {
    let (whole, tail) = values.as_chunks::<LANES>();
    let (mut low, mut high) = ([f32::MAX; LANES], [f32::MIN; LANES]);
    let mut take = |lane: usize, x: f32| {
        low[lane] = if x < low[lane] { x } else { low[lane] };
        high[lane] = if x > high[lane] { x } else { high[lane] };
    };
    for x in whole {
        for lane in 0..LANES {
            take(lane, x[lane]);
        }
    }
    for x in tail {
        take(0, *x);
    }
    let least = low.iter().fold(f32::MAX, |a, b| if *b < a { *b } else { a });
    (least, high.iter().fold(f32::MIN, |a, b| if *b > a { *b } else { a }))
}

impl<'a> Codes<'a> {
    /// Codes of some records. What they are measured by besides is `mean`, and what a scorer begins with.
    pub(super) fn of_records(
        bits: Bits,
        metric: Metric,
        mean: &'a [f32],
        mean_squared: f32,
        records: &'a [u8],
    ) -> Self {
        Self {
            bits,
            metric,
            dim: mean.len(),
            record_bytes: bits.record_bytes(mean.len()),
            mean,
            mean_squared,
            records,
        }
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.records.len() / self.record_bytes
    }

    /// There are no rows.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Bits of a code.
    pub fn bits(&self) -> Bits {
        self.bits
    }

    /// Bytes of a record.
    pub fn record_bytes(&self) -> usize {
        self.record_bytes
    }

    /// The record of an ordinal below `len`.
    #[inline]
    pub(super) fn record(&self, ordinal: Ordinal) -> &'a [u8] {
        let start = ordinal as usize * self.record_bytes;
        &self.records[start..start + self.record_bytes]
    }

    /// `low`, `step` and `extra` of a record.
    #[inline]
    fn corrections(&self, record: &[u8]) -> [f32; 3] {
        let at = self.record_bytes - CORRECTIONS;
        bytemuck::pod_read_unaligned(&record[at..at + CORRECTIONS])
    }

    /// How often `<q-μ, y>` counts.
    fn weight(&self) -> f32 {
        match self.metric {
            Metric::Euclid => 2.0,
            Metric::Cosine | Metric::Dot | Metric::Manhattan | Metric::Hamming => 1.0,
        }
    }

    /// Measures rows against a query of as many dimensions.
    pub fn scorer(self, query: &[f32]) -> CodeScorer<'a> {
        let scale = match self.metric {
            Metric::Cosine => super::inv_norm(query),
            Metric::Dot | Metric::Euclid | Metric::Manhattan | Metric::Hamming => 1.0,
        };
        let mut rest = vec![0f32; self.dim];
        take_off(self.mean, query, scale, &mut rest);
        let mut scorer = CodeScorer::empty(self);
        let (step, sum) = kernels::in_wide_registers(Integers {
            bits: self.bits,
            numbers: &rest,
            integers: &mut scorer.query,
        });
        scorer.step = step * self.weight();
        scorer.sum = scorer.step * sum as f32;
        scorer.base = match self.metric {
            Metric::Cosine => 1.0 - kernels::dot(query, self.mean) * scale,
            Metric::Dot | Metric::Manhattan | Metric::Hamming => -kernels::dot(query, self.mean),
            Metric::Euclid => kernels::dot(&rest, &rest),
        };
        scorer
    }

    /// `Σ (low + step·c)` of every row: what [`Self::scorer_of_row`] needs.
    pub(super) fn sums(&self) -> Vec<f32> {
        let sum = |ordinal| {
            let record = self.record(ordinal);
            let [low, step, _] = self.corrections(record);
            low * self.dim as f32 + step * self.code_sum(record) as f32
        };
        (0..self.len() as Ordinal).map(sum).collect()
    }

    fn code_sum(&self, record: &[u8]) -> u32 {
        let codes = &record[..self.bits.code_bytes(self.dim)];
        match self.bits {
            Bits::Eight => codes.iter().map(|code| u32::from(*code)).sum(),
            Bits::Four => codes
                .iter()
                .map(|code| u32::from(code & 15) + u32::from(code >> 4))
                .sum(),
        }
    }

    /// A scorer to be aimed at rows.
    pub(super) fn scorer_of_rows(self) -> CodeScorer<'a> {
        CodeScorer::empty(self)
    }
}

/// Rounded, halves to even; `x` must fit an `i8`. Floats near 1.5 · 2²³ are the whole numbers, so the low byte of the sum is the rounded
/// one. Compilers vectorise this, but not a saturating cast. Infinities and the usual NaN make 0, another NaN any number.
#[inline(always)]
fn nearest(x: f32) -> i8 {
    const TO_INTEGERS: f32 = 1.5 * (1u32 << 23) as f32;
    (x + TO_INTEGERS).to_bits() as i8
}

/// A query's numbers as integers for a kernel; gives back what one of them counts, and their sum.
pub(super) struct Integers<'a> {
    pub(super) bits: Bits,
    pub(super) numbers: &'a [f32],
    /// Zeros before, in whole lines.
    pub(super) integers: &'a mut [i8],
}

impl kernels::Loop for Integers<'_> {
    type Result = (f32, i32);

    #[inline(always)]
    fn run(self) -> (f32, i32) {
        let Self {
            bits,
            numbers,
            integers,
        } = self;
        let (low, high) = range(numbers);
        let most = if -low > high { -low } else { high };
        let step = if most > 0.0 { most / 127.0 } else { 0.0 };
        let per_step = if step > 0.0 { 1.0 / step } else { 0.0 };
        let integer = |x| nearest(x * per_step);
        match bits {
            Bits::Eight => put(integers, None, numbers, integer),
            Bits::Four => {
                let (lows, highs) = numbers.split_at(numbers.len().div_ceil(2));
                put(integers, Some(0), lows, integer);
                put(integers, Some(1), highs, integer);
            }
        }
        (step, integers.iter().map(|t| i32::from(*t)).sum())
    }
}

/// Puts an integer for each number into the lines of a query: into all of them, or, where the codes of two halves share lines, into every
/// second from the first or the second on.
#[inline(always)]
fn put<T: Copy>(query: &mut [i8], half: Option<usize>, numbers: &[T], integer: impl Fn(T) -> i8) {
    let (first, step) = half.map_or((0, 1), |half| (half, 2));
    let lines = query.chunks_exact_mut(LINE).skip(first).step_by(step);
    for (line, numbers) in lines.zip(numbers.chunks(LINE)) {
        for (t, x) in line.iter_mut().zip(numbers) {
            *t = integer(*x);
        }
    }
}

/// A query ready to be measured against any coded row, or a coded row in the place of a query.
#[derive(Debug)]
pub struct CodeScorer<'a> {
    codes: Codes<'a>,
    kernel: CodeKernel,
    /// In lines, as the kernel wants them; zeros wherever a line has no code.
    query: Vec<i8>,
    /// Its part of every distance.
    base: f32,
    /// What a unit of `Σ t·c` counts, once multiplied with the row's step.
    step: f32,
    /// What a row's `low` counts.
    sum: f32,
    /// What a row's sum of values counts: 0 for a query, whose integers are about zero.
    offset: f32,
}

impl<'a> CodeScorer<'a> {
    fn empty(codes: Codes<'a>) -> Self {
        let lines = codes.bits.code_bytes(codes.dim).div_ceil(LINE);
        let per_line = match codes.bits {
            Bits::Eight => 1,
            Bits::Four => 2,
        };
        Self {
            codes,
            kernel: kernels::best_for_codes().of(codes.bits),
            query: vec![0; lines * per_line * LINE],
            base: 0.0,
            step: 0.0,
            sum: 0.0,
            offset: 0.0,
        }
    }

    /// Every distance is from now on so much more than what records say, instead of what follows from the mean.
    pub(super) fn begin_with(&mut self, base: f32) {
        self.base = base;
    }

    /// Puts a row in the place of the query. `sums` are those of all rows ([`Codes::sums`]); distances then need them, too.
    pub(super) fn aim(&mut self, ordinal: Ordinal) {
        let codes = self.codes;
        let record = codes.record(ordinal);
        let [low, step, extra] = codes.corrections(record);
        let half = codes.dim.div_ceil(2);
        let (middle, sum) = match codes.bits {
            Bits::Eight => {
                // A byte's top bit flipped is the byte less 128.
                for (t, code) in self.query.iter_mut().zip(&record[..codes.dim]) {
                    *t = (code ^ 0x80) as i8;
                }
                (128.0, codes.code_sum(record) as f32 - 128.0 * codes.dim as f32)
            }
            Bits::Four => {
                put(&mut self.query, Some(0), &record[..half], |code| (code & 15) as i8 - 8);
                put(&mut self.query, Some(1), &record[..codes.dim - half], |code| {
                    (code >> 4) as i8 - 8
                });
                (8.0, self.query.iter().map(|t| i32::from(*t)).sum::<i32>() as f32)
            }
        };
        let weight = codes.weight();
        self.step = step * weight;
        self.sum = self.step * sum;
        self.offset = (low + step * middle) * weight;
        self.base = match codes.metric {
            // extra is -<μ,y>.
            Metric::Cosine => 1.0 - codes.mean_squared + extra,
            Metric::Dot | Metric::Manhattan | Metric::Hamming => extra - codes.mean_squared,
            Metric::Euclid => extra,
        };
    }

    /// How far four rows are from the query, about.
    #[inline]
    pub fn four(&self, ordinals: [Ordinal; 4]) -> [f32; 4] {
        let records = ordinals.map(|ordinal| self.codes.record(ordinal));
        let products = self.kernel.of_four(&self.query, records);
        let mut distances = [0.0; 4];
        for i in 0..4 {
            let [low, step, extra] = self.codes.corrections(records[i]);
            distances[i] = self.base + extra - low * self.sum - step * (self.step * products[i] as f32);
        }
        distances
    }

    /// The same from the row it is aimed at.
    #[inline]
    pub(super) fn four_rows(&self, ordinals: [Ordinal; 4], sums: &[f32]) -> [f32; 4] {
        let mut distances = self.four(ordinals);
        for (distance, ordinal) in distances.iter_mut().zip(ordinals) {
            *distance -= self.offset * sums[ordinal as usize];
        }
        distances
    }

    /// Asks for a record that will be read soon.
    #[inline]
    pub(super) fn prefetch(&self, ordinal: Ordinal) {
        kernels::prefetch(self.codes.record(ordinal));
    }
}
