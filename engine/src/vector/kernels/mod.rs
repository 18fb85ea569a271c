//! The inner loops of vector search, one against one and one against four.
//!
//! Over `f32`, against rows of `f32` or of halves: dot product, squared Euclidean and Manhattan distance. Over codes
//! ([`super::codes`]): the integer dot product of a query of `i8` with codes of 8 or of 4 bits. Over rows of bits: how many differ. Over signs ([`super::signs`]): the sum of a query's `i8` where bits are set.
//! Over packs ([`super::packs`]): a query's tables, and estimates of thirty-two neighbours by them. Over sorted numbers: where one belongs,
//! and putting it there ([`RankKernel`]).
//!
//! Several sets of the same loops, one file each: portable (written so that the compiler vectorises it for any target),
//! AVX2 with FMA and F16C, AVX-512, and NEON. The best set this CPU can run is chosen once, at first use. Sets of `f32` loops differ in
//! the order of their additions, so results agree to rounding, not to the bit: whatever must be reproducible on another
//! machine must not depend on the last digits. Integer loops give the same number everywhere.
//!
//! What is done once a question and is no kernel, plain loops over a vector, can be compiled for wide registers as it is
//! ([`in_wide_registers`]).
//!
//! Four at once share the loads of the query and keep four streams of memory busy; the results are those of four calls
//! for one, to the bit. Halves (IEEE 754 binary16, as bits) give what the same numbers give as `f32`, to the bit.
//!
//! Promises: any slices of equal length, no alignment asked; lengths that do not fit panic rather than read past an end.
//! Not here: anything that knows what a vector means.
//!
//! All `unsafe` of the vector module is in this folder, for three reasons only: calling a function compiled for CPU
//! features the build target does not promise; loading SIMD registers from slices and storing them there; and instructions
//! that the standard library has no safe name for (prefetches, SDOT, FCVTL), which touch no memory.

#[cfg(target_arch = "aarch64")]
use std::arch::is_aarch64_feature_detected;
use std::fmt;
use std::sync::LazyLock;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;

/// Bytes of a cache line: codes are read in whole ones.
pub const LINE: usize = 64;

/// `Σ a·b`.
#[inline]
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    best().dot.of(a, b)
}

/// `Σ (a-b)²`.
#[inline]
pub fn l2_squared(a: &[f32], b: &[f32]) -> f32 {
    best().l2_squared.of(a, b)
}

/// `Σ |a-b|`.
#[inline]
pub fn l1(a: &[f32], b: &[f32]) -> f32 {
    best().l1.of(a, b)
}

/// One loop over floats of one set. Hold it across a search to skip the choice of the set.
#[derive(Clone, Copy)]
pub struct Kernel {
    /// Private, so that only this folder can pair a loop with a CPU: whoever holds a `Kernel` may run it.
    one: unsafe fn(&[f32], &[f32]) -> f32,
    four: unsafe fn(&[f32], [&[f32]; 4]) -> [f32; 4],
    one_of_halves: unsafe fn(&[f32], &[u16]) -> f32,
    four_of_halves: unsafe fn(&[f32], [&[u16]; 4]) -> [f32; 4],
}

impl Kernel {
    /// Runs the loop. Panics when the lengths differ.
    #[inline]
    #[expect(unsafe_code, reason = "calls a loop compiled for features checked at run time")]
    pub fn of(self, a: &[f32], b: &[f32]) -> f32 {
        check_lengths(a, [b]);
        // SAFETY: a `Kernel` is only handed out by `available`, which includes a set only after the CPU was seen to
        // have every feature its loops are compiled for; the lengths are equal, which is all the loops rely on.
        unsafe { (self.one)(a, b) }
    }

    /// Runs the loop for four rows. Panics when the lengths differ.
    #[inline]
    #[expect(unsafe_code, reason = "calls a loop compiled for features checked at run time")]
    pub fn of_four(self, a: &[f32], rows: [&[f32]; 4]) -> [f32; 4] {
        check_lengths(a, rows);
        // SAFETY: as in `of`.
        unsafe { (self.four)(a, rows) }
    }

    /// Runs the loop for a row of halves. Those that are no finite numbers count as any number. Panics when the lengths differ.
    #[inline]
    #[expect(unsafe_code, reason = "calls a loop compiled for features checked at run time")]
    pub fn of_halves(self, a: &[f32], b: &[u16]) -> f32 {
        check_lengths(a, [b]);
        // SAFETY: as in `of`.
        unsafe { (self.one_of_halves)(a, b) }
    }

    /// The same of four.
    #[inline]
    #[expect(unsafe_code, reason = "calls a loop compiled for features checked at run time")]
    pub fn of_four_halves(self, a: &[f32], rows: [&[u16]; 4]) -> [f32; 4] {
        check_lengths(a, rows);
        // SAFETY: as in `of`.
        unsafe { (self.four_of_halves)(a, rows) }
    }
}

#[inline]
fn check_lengths<Q, T, const N: usize>(a: &[Q], rows: [&[T]; N]) {
    assert!(
        rows.iter().all(|row| row.len() == a.len()),
        "vectors of one space have one length"
    );
}

/// A finite half as the `f32` that is the same number.
#[inline]
pub const fn widen(half: u16) -> f32 {
    // As an `f32` these bits are the number times 2^-112, the smallest ones too.
    const SCALE: f32 = f32::from_bits((127 + 112) << 23);
    let size = f32::from_bits((half as u32 & 0x7fff) << 13) * SCALE;
    f32::from_bits(size.to_bits() | (half as u32 & 0x8000) << 16)
}

impl fmt::Debug for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Kernel")
    }
}

/// How many bits a code has, and so how many lines of a query go with one line of codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bits {
    /// A byte per dimension: line `i` of codes goes with line `i` of the query.
    Eight,
    /// Two dimensions per byte: the low halves of line `i` of codes go with line `2i` of the query, the high halves with
    /// line `2i + 1`.
    Four,
}

/// One loop over codes of one set: `Σ code·query`, over whole lines.
#[derive(Clone, Copy)]
pub struct CodeKernel {
    bits: Bits,
    /// As in [`Kernel`].
    four: unsafe fn(&[i8], [&[u8]; 4]) -> [i32; 4],
}

impl CodeKernel {
    /// Runs the loop for four records. The query has whole lines; a record has at least as many lines as go with it,
    /// and what stands after them is not looked at.
    ///
    /// No sum overflows: `255 · 128 · 65,535` dimensions are below `2^31`.
    #[inline]
    #[expect(unsafe_code, reason = "calls a loop compiled for features checked at run time")]
    pub fn of_four(self, query: &[i8], records: [&[u8]; 4]) -> [i32; 4] {
        let bytes = match self.bits {
            Bits::Eight => query.len(),
            Bits::Four => query.len() / 2,
        };
        assert!(
            bytes.is_multiple_of(LINE) && records.iter().all(|record| record.len() >= bytes),
            "records are as long as the query"
        );
        // SAFETY: a `CodeKernel` is only handed out by `available_for_codes`, which includes a set only after the CPU was
        // seen to have every feature its loops are compiled for; the query is whole lines and every record has the lines
        // that go with it, which is all the loops rely on.
        unsafe { (self.four)(query, records) }
    }
}

impl fmt::Debug for CodeKernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CodeKernel({:?})", self.bits)
    }
}

/// One loop over rows of bits of one set: how many of them differ.
#[derive(Clone, Copy)]
pub struct BitKernel {
    /// `avx512vpopcntdq`, `avx2`, `neon` or `portable`.
    pub name: &'static str,
    /// As in [`Kernel`].
    one: unsafe fn(&[u8], &[u8]) -> u32,
    four: unsafe fn(&[u8], [&[u8]; 4]) -> [u32; 4],
}

impl BitKernel {
    /// Runs the loop. Panics when the lengths differ.
    #[inline]
    #[expect(unsafe_code, reason = "calls a loop compiled for features checked at run time")]
    pub fn of(self, a: &[u8], b: &[u8]) -> u32 {
        check_lengths(a, [b]);
        // SAFETY: a `BitKernel` is only handed out by `available_for_bits`, which includes one only after the CPU was seen to have
        // every feature its loops are compiled for; the lengths are equal, which is all the loops rely on.
        unsafe { (self.one)(a, b) }
    }

    /// Runs the loop for four rows. Panics when the lengths differ.
    #[inline]
    #[expect(unsafe_code, reason = "calls a loop compiled for features checked at run time")]
    pub fn of_four(self, a: &[u8], rows: [&[u8]; 4]) -> [u32; 4] {
        check_lengths(a, rows);
        // SAFETY: as in `of`.
        unsafe { (self.four)(a, rows) }
    }
}

impl fmt::Debug for BitKernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BitKernel({})", self.name)
    }
}

/// A query to be added up where rows have bits: its numbers as they are, and bit by bit.
#[derive(Debug)]
pub struct SignQuery {
    /// In lines of 64, zeros at the end.
    numbers: Vec<i8>,
    /// Of each 64 numbers the lowest bits, then the next, ... Empty if the kernel does not look at them.
    planes: Vec<[u64; 8]>,
}

impl SignQuery {
    /// Of one number a dimension. `by_planes` is what the kernel says ([`SignKernel::by_planes`]).
    pub fn new(numbers: &[i8], by_planes: bool) -> Self {
        let mut padded = numbers.to_vec();
        padded.resize(numbers.len().next_multiple_of(LINE), 0);
        let planes = padded.chunks_exact(LINE).map(|line| {
            let mut planes = [0u64; 8];
            for (i, number) in line.iter().enumerate() {
                for (bit, plane) in planes.iter_mut().enumerate() {
                    *plane |= u64::from(*number as u8 >> bit & 1) << i;
                }
            }
            planes
        });
        Self {
            planes: if by_planes { planes.collect() } else { Vec::new() },
            numbers: padded,
        }
    }

    /// Bytes of bits that go with it.
    #[inline]
    pub fn bytes(&self) -> usize {
        self.numbers.len() / 8
    }
}

/// One loop over signs of one set: the sum of the query's numbers where a row has ones.
#[derive(Clone, Copy)]
pub struct SignKernel {
    /// It adds up bit by bit.
    pub by_planes: bool,
    /// As in [`Kernel`].
    four: unsafe fn(&SignQuery, [&[u8]; 4]) -> [i32; 4],
}

impl SignKernel {
    /// Runs the loop for four records, of which what stands after the bits is not looked at. Panics if one has fewer.
    #[inline]
    #[expect(unsafe_code, reason = "calls a loop compiled for features checked at run time")]
    pub fn of_four(self, query: &SignQuery, records: [&[u8]; 4]) -> [i32; 4] {
        let planes = if self.by_planes {
            query.numbers.len() / LINE
        } else {
            query.planes.len()
        };
        assert!(
            query.planes.len() == planes && records.iter().all(|record| record.len() >= query.bytes()),
            "records have a bit for each number, and the query is made for the kernel"
        );
        // SAFETY: a `SignKernel` is only handed out by `available_for_codes`, which includes a set only after the CPU was seen to
        // have every feature its loops are compiled for; every record has the words that go with the query, which is all the
        // loops rely on.
        unsafe { (self.four)(query, records) }
    }
}

impl fmt::Debug for SignKernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SignKernel")
    }
}

/// Neighbours that are looked at together.
pub const PACK: usize = 32;
/// Pairs of tables whose entries add up to less than 2^16: each adds 254 at most.
const PAIRS: usize = 256;

/// A query as tables: what each pattern of four signs adds to an inner product, for four dimensions after the other.
#[derive(Debug)]
pub struct PackQuery {
    /// Two tables of sixteen for each eight dimensions, of 7 bits.
    tables: Vec<[u8; 32]>,
    /// What a sum of entries stands for is `base + step · sum`.
    base: f32,
    step: f32,
}

impl PackQuery {
    /// By how much a sum is off, as a rule: each entry by up to half a step, and so by the root of a twelfth of one on the average.
    pub fn deviation(&self) -> f32 {
        self.step * (2.0 * self.tables.len() as f32 / 12.0).sqrt()
    }
}

/// The largest entry of a table.
const ENTRY_MAX: f32 = 127.0;
/// Of what an entry counts, so that four of them add up to no more than a rounding off.
const PARTS: u16 = 256;

/// The sum of all sizes, and the most that four of them add up to, of numbers whose fours lie side by side.
struct Spans<'a>(&'a [[f32; 8]]);

impl Loop for Spans<'_> {
    type Result = (f32, f32);

    #[inline(always)]
    fn run(self) -> (f32, f32) {
        let (mut sums, mut widest) = ([0f32; 8], [0f32; 8]);
        for eight in self.0 {
            let sizes = eight.map(f32::abs);
            let twos: [f32; 8] = std::array::from_fn(|i| sizes[i] + sizes[i ^ 1]);
            for i in 0..8 {
                sums[i] += sizes[i];
                let four = twos[i] + twos[i ^ 2];
                widest[i] = if four > widest[i] { four } else { widest[i] };
            }
        }
        let widest = widest.into_iter().fold(0f32, |most, x| if x > most { x } else { most });
        (sums.iter().sum(), widest)
    }
}

/// The loops over packs ([`super::packs`]) of one set: a query's tables, and estimates of thirty-two neighbours by them.
#[derive(Clone, Copy)]
pub struct PackKernel {
    /// As in [`Kernel`].
    of: unsafe fn(&PackQuery, &[[u8; PACK]], Numbers<'_>, &mut [f32; PACK]) -> u32,
    /// Makes two tables of each eight numbers; the float is how many parts of an entry a number of 1 is.
    tables: unsafe fn(&[[f32; 8]], f32, &mut [[u8; 32]]),
}

/// What there is beside the signs of a pack.
#[derive(Clone, Copy)]
struct Numbers<'a> {
    distance: f32,
    edge: f32,
    /// The first number of each, then the second: the high halves of floats.
    halves: [&'a [u16; PACK]; 2],
}

impl PackKernel {
    /// A query of one number a dimension.
    #[expect(unsafe_code, reason = "calls a loop compiled for features checked at run time")]
    pub fn query(self, numbers: &[f32]) -> PackQuery {
        let mut padded = numbers.to_vec();
        padded.resize(numbers.len().next_multiple_of(8), 0.0);
        let (eights, _) = padded.as_chunks::<8>();
        // The least that four signs can make, and the most, differ by twice the four sizes.
        let (sum, widest) = in_wide_registers(Spans(eights));
        let step = 2.0 * widest / ENTRY_MAX;
        // Of numbers that are none, or too small to be told from nothing, all entries are zeros.
        let to_parts = match 2.0 * f32::from(PARTS) / step {
            to_parts if step.is_finite() && to_parts.is_finite() => to_parts,
            _ => 0.0,
        };
        let mut tables = vec![[0u8; 32]; eights.len()];
        // SAFETY: as in `of`.
        unsafe { (self.tables)(eights, to_parts, &mut tables) };
        PackQuery {
            tables,
            base: -sum,
            step,
        }
    }

    /// `distance + A - F·S` for each of the thirty-two, and a bit for each that is less than `edge`: `A` and `F` are given as the high
    /// halves of floats, `S` is what their signs add of the query. Panics if there are fewer signs than dimensions.
    #[inline]
    #[expect(unsafe_code, reason = "calls a loop compiled for features checked at run time")]
    pub fn of(
        self,
        query: &PackQuery,
        distance: f32,
        edge: f32,
        halves: [&[u16; PACK]; 2],
        signs: &[u8],
        estimates: &mut [f32; PACK],
    ) -> u32 {
        let (signs, _) = signs.as_chunks::<PACK>();
        assert!(
            signs.len() >= query.tables.len(),
            "a pack has as many dimensions as the query"
        );
        let numbers = Numbers { distance, edge, halves };
        // SAFETY: a `PackKernel` is only handed out by `available_for_codes`, which includes a set only after the CPU was seen to
        // have every feature its loops are compiled for. They rely on nothing else.
        unsafe { (self.of)(query, signs, numbers, estimates) }
    }
}

impl fmt::Debug for PackKernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PackKernel")
    }
}

/// Finds the place of a number among others, for lists of some dozens to hundreds that change all the time.
#[derive(Clone, Copy)]
pub struct RankKernel {
    /// As in [`Kernel`].
    of: unsafe fn(&[u64], u64) -> usize,
    /// Where registers are wide enough.
    in_one_pass: Option<OnePass>,
}

/// Loops that find the place of a number in a short list and move those behind it at once.
#[derive(Clone, Copy)]
struct OnePass {
    /// Puts a number in place of the last.
    insert: unsafe fn(&mut [u64], u64) -> usize,
    /// Puts a number in place of another.
    replace: unsafe fn(&mut [u64], u64, u64) -> usize,
}

impl RankKernel {
    /// Among so many it counts; more are halved first.
    const COUNTED: usize = 32;
    /// Lists of so many at most are changed in one pass; in longer ones the place is found first.
    const MOVED: usize = 64;

    /// Puts a number in its place, which the last leaves for it. Gives back how many are less. Panics if the last is less.
    #[inline]
    #[expect(unsafe_code, reason = "calls a loop compiled for features checked at run time")]
    pub fn insert(self, ascending: &mut [u64], number: u64) -> usize {
        assert!(
            ascending.last().is_some_and(|last| number <= *last),
            "the last makes room"
        );
        if let Some(OnePass { insert, .. }) = self.in_one_pass
            && ascending.len() <= Self::MOVED
        {
            // SAFETY: as in `of`.
            return unsafe { insert(ascending, number) };
        }
        let place = self.of(ascending, number);
        ascending.copy_within(place..ascending.len() - 1, place + 1);
        ascending[place] = number;
        place
    }

    /// Takes out a number, the `old` one, and puts another in its place. Gives back how many are less. If the old one is not there, what
    /// is left may be any numbers, or it panics.
    #[inline]
    #[expect(unsafe_code, reason = "calls a loop compiled for features checked at run time")]
    pub fn replace(self, ascending: &mut [u64], old: u64, new: u64) -> usize {
        if let Some(OnePass { replace, .. }) = self.in_one_pass
            && ascending.len() <= Self::MOVED
        {
            // SAFETY: as in `of`.
            return unsafe { replace(ascending, old, new) };
        }
        let (from, to) = (self.of(ascending, old), self.of(ascending, new));
        let place = if to <= from {
            ascending.copy_within(to..from, to + 1);
            to
        } else {
            // The old one is among those that are less.
            ascending.copy_within(from + 1..to, from);
            to - 1
        };
        ascending[place] = new;
        place
    }

    /// How many of the numbers, which ascend, are less.
    #[inline]
    #[expect(unsafe_code, reason = "calls a loop compiled for features checked at run time")]
    pub fn of(self, ascending: &[u64], number: u64) -> usize {
        let (mut before, mut rest) = (0, ascending);
        while rest.len() > Self::COUNTED {
            let (low, high) = rest.split_at(rest.len() / 2);
            let is_above = high[0] < number;
            before += if is_above { low.len() } else { 0 };
            rest = if is_above { high } else { low };
        }
        // SAFETY: a `RankKernel` is only handed out by `available_for_codes`, which includes a set only after the CPU was seen to
        // have every feature its loops are compiled for. They rely on nothing else.
        before + unsafe { (self.of)(rest, number) }
    }
}

impl Default for RankKernel {
    fn default() -> Self {
        best_for_codes().rank
    }
}

impl fmt::Debug for RankKernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RankKernel")
    }
}

/// The loops over floats of one instruction set.
#[derive(Debug)]
pub struct Kernels {
    /// `avx512`, `avx2`, `neon` or `portable`.
    pub name: &'static str,
    /// Dot product.
    pub dot: Kernel,
    /// Squared Euclidean distance.
    pub l2_squared: Kernel,
    /// Manhattan distance.
    pub l1: Kernel,
}

/// The loops over codes of one instruction set.
#[derive(Debug)]
pub struct CodeKernels {
    /// `avx512vnni`, `avx2`, `neon-dotprod`, `neon` or `portable`.
    pub name: &'static str,
    /// Codes of a byte.
    pub eight: CodeKernel,
    /// Codes of half a byte.
    pub four: CodeKernel,
    /// Signs.
    pub signs: SignKernel,
    /// Packs.
    pub packs: PackKernel,
    /// Places in lists.
    pub rank: RankKernel,
}

impl CodeKernels {
    /// The loop for codes of that many bits.
    pub fn of(&self, bits: Bits) -> CodeKernel {
        match bits {
            Bits::Eight => self.eight,
            Bits::Four => self.four,
        }
    }
}

/// The fastest set over floats that this CPU can run.
#[inline]
pub fn best() -> &'static Kernels {
    static BEST: LazyLock<&'static Kernels> = LazyLock::new(|| available()[0]);
    *BEST
}

/// The fastest set over codes that this CPU can run.
#[inline]
pub fn best_for_codes() -> &'static CodeKernels {
    static BEST: LazyLock<&'static CodeKernels> = LazyLock::new(|| available_for_codes()[0]);
    *BEST
}

/// The fastest loop over bits that this CPU can run.
#[inline]
pub fn best_for_bits() -> BitKernel {
    static BEST: LazyLock<BitKernel> = LazyLock::new(|| available_for_bits()[0]);
    *BEST
}

/// Every loop over bits that this CPU can run, fastest first. The portable one is always last.
pub fn available_for_bits() -> Vec<BitKernel> {
    let mut loops = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vpopcntdq")
        {
            loops.push(avx512::BITS);
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("popcnt") {
            loops.push(avx2::BITS);
        }
    }
    #[cfg(target_arch = "aarch64")]
    if is_aarch64_feature_detected!("neon") {
        loops.push(neon::BITS);
    }
    loops.push(portable::BITS);
    loops
}

/// Every set over floats that this CPU can run, fastest first. The portable one is always last.
pub fn available() -> Vec<&'static Kernels> {
    let mut sets: Vec<&'static Kernels> = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            sets.push(&avx512::SET);
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c") {
            sets.push(&avx2::SET);
        }
    }
    #[cfg(target_arch = "aarch64")]
    if is_aarch64_feature_detected!("neon") {
        sets.push(&neon::SET);
    }
    sets.push(&portable::SET);
    sets
}

/// Every set over codes that this CPU can run, fastest first. The portable one is always last.
pub fn available_for_codes() -> Vec<&'static CodeKernels> {
    let mut sets: Vec<&'static CodeKernels> = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vnni")
            && is_x86_feature_detected!("popcnt")
        {
            sets.push(&avx512::CODES);
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("popcnt") {
            sets.push(&avx2::CODES);
        }
    }
    #[cfg(target_arch = "aarch64")]
    if is_aarch64_feature_detected!("neon") {
        if is_aarch64_feature_detected!("dotprod") {
            sets.push(&neon::CODES_BY_DOT);
        }
        sets.push(&neon::CODES);
    }
    sets.push(&portable::CODES);
    sets
}

/// Plain loops to be compiled once more for wide registers ([`in_wide_registers`]).
pub trait Loop {
    /// What comes of them.
    type Result;
    /// Has to be `#[inline(always)]`, and what it calls to be inlined: what is not stays as it is compiled for everybody.
    fn run(self) -> Self::Result;
}

/// Runs plain loops compiled for wide registers where the CPU has them: with the same results, since nothing is fused or reordered.
/// What is not inlined into `work` stays as it is.
#[inline]
#[cfg_attr(
    target_arch = "x86_64",
    expect(unsafe_code, reason = "calls a loop compiled for features checked at run time")
)]
pub fn in_wide_registers<L: Loop>(work: L) -> L::Result {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the CPU was seen to have the feature.
        return unsafe { avx2::run(work) };
    }
    work.run()
}

/// Asks for the start of a row that will be read soon. A hint: no result, no effect but time.
///
/// Half a kilobyte is enough for the hardware's own stream prefetcher to follow.
#[inline]
pub fn prefetch<T>(row: &[T]) {
    const AHEAD: usize = 512;
    ask_for(row, AHEAD);
}

/// Asks for all of a row, where all of it will be read at once and very soon.
#[inline]
pub fn prefetch_all<T>(row: &[T]) {
    ask_for(row, usize::MAX);
}

#[inline]
#[cfg_attr(target_arch = "x86_64", expect(unsafe_code, reason = "prefetch takes a raw address"))]
fn ask_for<T>(row: &[T], most: usize) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let start = row.as_ptr().cast::<i8>();
        for offset in (0..size_of_val(row).min(most)).step_by(LINE) {
            // SAFETY: the address is inside `row`; and a prefetch never faults whatever the address.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(start.add(offset)) };
        }
    }
    #[cfg(target_arch = "aarch64")]
    for offset in (0..size_of_val(row).min(most)).step_by(LINE) {
        neon::prefetch(row.as_ptr().cast::<u8>().wrapping_add(offset));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = (row, most);
}

#[cfg(test)]
pub(crate) mod tests;
