//! For 64-bit ARM: four lanes, four sums in flight. Codes by `SDOT`, which adds up four products of bytes in each lane, where the CPU has it,
//! and else by products of sixteen bits.
//!
//! Not here: SVE, whose registers have no size that is known when this is compiled.

use std::arch::aarch64::*;
use std::arch::asm;

use super::{
    BitKernel, Bits, CodeKernel, CodeKernels, Kernel, Kernels, LINE, Numbers, PACK, PAIRS, PackKernel, PackQuery,
    RankKernel, SignKernel, SignQuery, portable, widen,
};

pub(super) static SET: Kernels = Kernels {
    name: "neon",
    dot: Kernel {
        one: dot::one,
        four: dot::four,
        one_of_halves: dot::one_of_halves,
        four_of_halves: dot::four_of_halves,
    },
    l2_squared: Kernel {
        one: l2_squared::one,
        four: l2_squared::four,
        one_of_halves: l2_squared::one_of_halves,
        four_of_halves: l2_squared::four_of_halves,
    },
    l1: Kernel {
        one: l1::one,
        four: l1::four,
        one_of_halves: l1::one_of_halves,
        four_of_halves: l1::four_of_halves,
    },
};

pub(super) static CODES: CodeKernels = codes("neon", widened::eight_bits, widened::four_bits);

pub(super) static CODES_BY_DOT: CodeKernels = codes("neon-dotprod", sdot::eight_bits, sdot::four_bits);

type Codes = unsafe fn(&[i8], [&[u8]; 4]) -> [i32; 4];

const fn codes(name: &'static str, eight: Codes, four: Codes) -> CodeKernels {
    CodeKernels {
        name,
        eight: CodeKernel {
            bits: Bits::Eight,
            four: eight,
        },
        four: CodeKernel { bits: Bits::Four, four },
        signs: SignKernel {
            by_planes: true,
            four: signs,
        },
        packs: PackKernel {
            of: packs,
            tables: portable::tables,
        },
        rank: RankKernel {
            of: rank,
            in_one_pass: None,
        },
    }
}

pub(super) const BITS: BitKernel = BitKernel {
    name: "neon",
    one: differing_one,
    four: differing::<4>,
};

const LANES: usize = 4;
const SUMS: usize = 4;

/// Four numbers of a row.
///
/// # Safety
///
/// There are four at `at`.
mod load {
    use super::*;

    #[inline]
    #[target_feature(enable = "neon")]
    #[expect(unsafe_code, reason = "a register load")]
    pub(super) unsafe fn floats(at: *const f32) -> float32x4_t {
        // SAFETY: as above; the load asks no alignment.
        unsafe { vld1q_f32(at) }
    }

    /// By `vcvt_f32_f16`, whose type is unstable in the version of Rust that we promise to compile with.
    #[inline]
    #[target_feature(enable = "neon")]
    #[expect(unsafe_code, reason = "a register load, and an instruction by name")]
    pub(super) unsafe fn halves(at: *const u16) -> float32x4_t {
        // SAFETY: as above; the load asks no alignment.
        let halves = unsafe { vld1_u16(at) };
        let floats: float32x4_t;
        // SAFETY: an instruction of the feature that this is compiled for; it touches no memory.
        unsafe {
            asm!(
                "fcvtl {floats:v}.4s, {halves:v}.4h",
                floats = lateout(vreg) floats,
                halves = in(vreg) halves,
                // Some that are no numbers set a flag.
                options(pure, nomem, nostack)
            );
        }
        floats
    }
}

/// The loops of one kind, for one row and for four, from a step for registers (`acc, x, y -> acc`) and one for the tail's scalars
/// (`x, y -> term`).
macro_rules! kernel {
    ($name:ident, $step:expr, $term:expr) => {
        mod $name {
            use super::*;

            kernel!(one, four, rows, f32, load::floats, f32::from, $step, $term);
            kernel!(
                one_of_halves,
                four_of_halves,
                rows_of_halves,
                u16,
                load::halves,
                widen,
                $step,
                $term
            );
        }
    };
    ($one:ident, $four:ident, $rows:ident, $number:ty, $load:path, $widen:path, $step:expr, $term:expr) => {
        #[target_feature(enable = "neon")]
        pub(super) fn $one(a: &[f32], b: &[$number]) -> f32 {
            $rows(a, [b])[0]
        }

        #[target_feature(enable = "neon")]
        pub(super) fn $four(a: &[f32], b: [&[$number]; 4]) -> [f32; 4] {
            $rows(a, b)
        }

        #[inline]
        #[target_feature(enable = "neon")]
        #[expect(unsafe_code, reason = "register loads from slices")]
        fn $rows<const ROWS: usize>(a: &[f32], rows: [&[$number]; ROWS]) -> [f32; ROWS] {
            let whole = a.len() / (LANES * SUMS) * LANES * SUMS;
            let mut sums = [[vdupq_n_f32(0.0); SUMS]; ROWS];
            for at in (0..whole).step_by(LANES * SUMS) {
                for i in 0..SUMS {
                    let at = at + i * LANES;
                    // SAFETY: `at + LANES` is within `whole`, and each row is as long as `a` (`Kernel` checked).
                    let x = unsafe { load::floats(a.as_ptr().add(at)) };
                    for row in 0..ROWS {
                        // SAFETY: as above.
                        let y = unsafe { $load(rows[row].as_ptr().add(at)) };
                        sums[row][i] = $step(sums[row][i], x, y);
                    }
                }
            }
            let mut of_rows = [0.0; ROWS];
            for row in 0..ROWS {
                let [first, second, third, fourth] = sums[row];
                let all = vaddq_f32(vaddq_f32(first, second), vaddq_f32(third, fourth));
                let tail = a[whole..].iter().zip(&rows[row][whole..]);
                of_rows[row] = vaddvq_f32(all) + tail.map(|(x, y)| $term(*x, $widen(*y))).sum::<f32>();
            }
            of_rows
        }
    };
}

kernel!(dot, |acc, x, y| vfmaq_f32(acc, x, y), |x: f32, y: f32| x * y);
kernel!(
    l2_squared,
    |acc, x, y| {
        let d = vsubq_f32(x, y);
        vfmaq_f32(acc, d, d)
    },
    |x: f32, y: f32| (x - y) * (x - y)
);
kernel!(l1, |acc, x, y| vaddq_f32(acc, vabdq_f32(x, y)), |x: f32, y: f32| (x
    - y)
    .abs());

/// Bytes of a register.
const BYTES: usize = 16;

/// The loops over codes from a step (`acc, x, y -> acc`) that adds products of signed bytes to the lanes.
macro_rules! codes {
    ($name:ident, $features:literal, $step:expr) => {
        mod $name {
            use super::*;

            /// A code less 128 is signed; what is missing is 128 times the sum of the query.
            #[target_feature(enable = $features)]
            #[expect(unsafe_code, reason = "register loads from slices")]
            pub(super) fn eight_bits(query: &[i8], records: [&[u8]; 4]) -> [i32; 4] {
                let (top, ones) = (vdupq_n_u8(0x80), vdupq_n_s8(1));
                let (mut sums, mut total) = ([vdupq_n_s32(0); 4], vdupq_n_s32(0));
                for at in (0..query.len()).step_by(BYTES) {
                    // SAFETY: the query is whole lines and each record is at least as long (`CodeKernel::of_four`), and a line is whole
                    // steps. The loads ask no alignment.
                    let (q, codes) = unsafe {
                        (
                            vld1q_s8(query.as_ptr().add(at)),
                            records.map(|record| vld1q_u8(record.as_ptr().add(at))),
                        )
                    };
                    total = $step(total, ones, q);
                    for i in 0..4 {
                        sums[i] = $step(sums[i], vreinterpretq_s8_u8(veorq_u8(codes[i], top)), q);
                    }
                }
                let missing = 128 * vaddvq_s32(total);
                sums.map(|sum| vaddvq_s32(sum) + missing)
            }

            #[target_feature(enable = $features)]
            #[expect(unsafe_code, reason = "register loads from slices")]
            pub(super) fn four_bits(query: &[i8], records: [&[u8]; 4]) -> [i32; 4] {
                let mask = vdupq_n_u8(15);
                let mut sums = [vdupq_n_s32(0); 4];
                for at in (0..query.len() / 2).step_by(BYTES) {
                    // Low halves of a line of codes go with an even line of the query, high halves with the odd one after it.
                    let low_at = at / LINE * 2 * LINE + at % LINE;
                    // SAFETY: `at` steps through query.len() / 2 bytes, which are whole lines that every record has
                    // (`CodeKernel::of_four`); `low_at + LINE` is inside the same pair of lines of the query. The loads ask no alignment.
                    let (low, high, codes) = unsafe {
                        (
                            vld1q_s8(query.as_ptr().add(low_at)),
                            vld1q_s8(query.as_ptr().add(low_at + LINE)),
                            records.map(|record| vld1q_u8(record.as_ptr().add(at))),
                        )
                    };
                    for i in 0..4 {
                        let lows = vreinterpretq_s8_u8(vandq_u8(codes[i], mask));
                        let highs = vreinterpretq_s8_u8(vshrq_n_u8::<4>(codes[i]));
                        sums[i] = $step($step(sums[i], lows, low), highs, high);
                    }
                }
                sums.map(|sum| vaddvq_s32(sum))
            }
        }
    };
}

codes!(widened, "neon", |acc, x, y| {
    let low = vmull_s8(vget_low_s8(x), vget_low_s8(y));
    vpadalq_s16(vpadalq_s16(acc, low), vmull_high_s8(x, y))
});

codes!(sdot, "neon,dotprod", |acc, x, y| add_products(acc, x, y));

/// `vdotq_s32`, which is unstable in the version of Rust that we promise to compile with (rust-lang/rust#117224).
#[inline]
#[target_feature(enable = "neon,dotprod")]
#[expect(unsafe_code, reason = "an instruction by name")]
fn add_products(acc: int32x4_t, x: int8x16_t, y: int8x16_t) -> int32x4_t {
    let mut acc = acc;
    // SAFETY: an instruction of the feature that this is compiled for; it touches no memory.
    unsafe {
        asm!(
            "sdot {acc:v}.4s, {x:v}.16b, {y:v}.16b",
            acc = inout(vreg) acc,
            x = in(vreg) x,
            y = in(vreg) y,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    acc
}

#[target_feature(enable = "neon")]
fn signs(query: &SignQuery, records: [&[u8]; 4]) -> [i32; 4] {
    records.map(|record| portable::signs(query, record))
}

#[target_feature(enable = "neon")]
fn differing_one(a: &[u8], b: &[u8]) -> u32 {
    differing(a, [b])[0]
}

#[inline]
#[target_feature(enable = "neon")]
#[expect(unsafe_code, reason = "register loads from slices")]
fn differing<const N: usize>(a: &[u8], rows: [&[u8]; N]) -> [u32; N] {
    let whole = a.len() / BYTES * BYTES;
    let mut sums = [vdupq_n_u32(0); N];
    for at in (0..whole).step_by(BYTES) {
        // SAFETY: `at + BYTES` is at most `whole`, which no slice is shorter than: every row is as long as `a` (`BitKernel` checked).
        // The loads ask no alignment.
        let (x, ys) = unsafe {
            (
                vld1q_u8(a.as_ptr().add(at)),
                rows.map(|row| vld1q_u8(row.as_ptr().add(at))),
            )
        };
        for i in 0..N {
            let of_bytes = vcntq_u8(veorq_u8(x, ys[i]));
            sums[i] = vpadalq_u16(sums[i], vpaddlq_u8(of_bytes));
        }
    }
    let mut counts = [0; N];
    for i in 0..N {
        counts[i] = vaddvq_u32(sums[i]) + portable::differing(&a[whole..], &rows[i][whole..]);
    }
    counts
}

/// Sixteen patterns are looked up for sixteen neighbours by one instruction. Entries of two tables fit a byte together; bytes are added up in
/// sixteen bits.
#[target_feature(enable = "neon")]
#[expect(unsafe_code, reason = "register loads from slices")]
fn packs(query: &PackQuery, signs: &[[u8; PACK]], numbers: Numbers<'_>, estimates: &mut [f32; PACK]) -> u32 {
    let mask = vdupq_n_u8(15);
    let mut sums = [0i32; PACK];
    for (tables, signs) in query.tables.chunks(PAIRS).zip(signs.chunks(PAIRS)) {
        let mut eights = [vdupq_n_u16(0); PACK / 8];
        for (tables, signs) in tables.iter().zip(signs) {
            // SAFETY: both are two times sixteen bytes; the loads ask no alignment.
            let ([first, second], signs) = unsafe {
                (
                    [0, BYTES].map(|at| vld1q_u8(tables.as_ptr().add(at))),
                    [0, BYTES].map(|at| vld1q_u8(signs.as_ptr().add(at))),
                )
            };
            for i in 0..2 {
                let low = vqtbl1q_u8(first, vandq_u8(signs[i], mask));
                let entries = vaddq_u8(low, vqtbl1q_u8(second, vshrq_n_u8::<4>(signs[i])));
                eights[2 * i] = vaddw_u8(eights[2 * i], vget_low_u8(entries));
                eights[2 * i + 1] = vaddw_high_u8(eights[2 * i + 1], entries);
            }
        }
        for (eight, sums) in eights.into_iter().zip(sums.chunks_exact_mut(8)) {
            let mut more = [0u16; 8];
            // SAFETY: eight numbers are one register; the store asks no alignment.
            unsafe { vst1q_u16(more.as_mut_ptr(), eight) };
            for (sum, more) in sums.iter_mut().zip(more) {
                *sum += i32::from(more);
            }
        }
    }
    portable::estimate(query, numbers, &sums, estimates);
    portable::nearer(estimates, numbers.edge)
}

/// A dozen to some dozens of numbers: the compiler's own loop counts them without a branch on each.
fn rank(ascending: &[u64], number: u64) -> usize {
    ascending.iter().map(|other| usize::from(*other < number)).sum()
}

/// Asks for a line of memory.
#[inline]
#[expect(unsafe_code, reason = "an instruction by name")]
pub(super) fn prefetch(line: *const u8) {
    // SAFETY: a hint that never faults, whatever the address, and changes nothing.
    unsafe { asm!("prfm pldl1keep, [{0}]", in(reg) line, options(nostack, preserves_flags, nomem)) };
}
