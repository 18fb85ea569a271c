//! Plain loops with as many independent sums as a wide register has lanes: floating-point addition may not be reordered
//! by the compiler, so one running sum could never become SIMD. Integer sums need no such care.

use super::{
    Bits, CodeKernel, CodeKernels, Kernel, Kernels, LINE, Numbers, PACK, PackKernel, PackQuery, RankKernel, SignKernel,
    SignQuery,
};

pub(super) static SET: Kernels = Kernels {
    name: "portable",
    dot: Kernel {
        one: dot,
        four: |a, rows| rows.map(|row| dot(a, row)),
    },
    l2_squared: Kernel {
        one: l2_squared,
        four: |a, rows| rows.map(|row| l2_squared(a, row)),
    },
    l1: Kernel {
        one: l1,
        four: |a, rows| rows.map(|row| l1(a, row)),
    },
};

pub(super) static CODES: CodeKernels = CodeKernels {
    name: "portable",
    eight: CodeKernel {
        bits: Bits::Eight,
        four: |query, records| records.map(|record| eight(query, record)),
    },
    four: CodeKernel {
        bits: Bits::Four,
        four: |query, records| records.map(|record| four(query, record)),
    },
    signs: SignKernel {
        by_planes: true,
        four: |query, records| records.map(|record| signs(query, record)),
    },
    packs: PackKernel { of: packs },
    rank: RankKernel {
        of: |ascending, number| ascending.partition_point(|other| *other < number),
    },
};

const LANES: usize = 16;

fn dot(a: &[f32], b: &[f32]) -> f32 {
    sum(a, b, |x, y| x * y)
}

fn l2_squared(a: &[f32], b: &[f32]) -> f32 {
    sum(a, b, |x, y| (x - y) * (x - y))
}

fn l1(a: &[f32], b: &[f32]) -> f32 {
    sum(a, b, |x, y| (x - y).abs())
}

#[inline(always)]
fn sum(a: &[f32], b: &[f32], term: impl Fn(f32, f32) -> f32) -> f32 {
    let (whole_a, tail_a) = a.as_chunks::<LANES>();
    let (whole_b, tail_b) = b.as_chunks::<LANES>();
    let mut lanes = [0.0f32; LANES];
    for (x, y) in whole_a.iter().zip(whole_b) {
        for lane in 0..LANES {
            lanes[lane] += term(x[lane], y[lane]);
        }
    }
    for ((lane, x), y) in lanes.iter_mut().zip(tail_a).zip(tail_b) {
        *lane += term(*x, *y);
    }
    lanes.iter().sum()
}

fn eight(query: &[i8], record: &[u8]) -> i32 {
    let terms = query.iter().zip(record);
    terms.map(|(q, code)| i32::from(*q) * i32::from(*code)).sum()
}

fn four(query: &[i8], record: &[u8]) -> i32 {
    let mut sum = 0;
    for (query, codes) in query.chunks_exact(2 * LINE).zip(record.chunks_exact(LINE)) {
        let (low, high) = query.split_at(LINE);
        let terms = codes.iter().zip(low).zip(high);
        sum += terms
            .map(|((code, low), high)| i32::from(*low) * i32::from(code & 15) + i32::from(*high) * i32::from(code >> 4))
            .sum::<i32>();
    }
    sum
}

/// By planes: the number of ones that a bit of the numbers meets counts as much as that bit, and its sign bit as much less.
#[inline(always)]
pub(super) fn signs(query: &SignQuery, record: &[u8]) -> i32 {
    let (words, _) = record.as_chunks::<8>();
    let mut sum = 0;
    for (word, planes) in words.iter().zip(&query.planes) {
        let word = u64::from_le_bytes(*word);
        for (bit, plane) in planes.iter().enumerate() {
            let ones = (word & plane).count_ones() as i32;
            sum += if bit == 7 { -(ones << 7) } else { ones << bit };
        }
    }
    sum
}

fn packs(query: &PackQuery, signs: &[[u8; PACK]], numbers: Numbers<'_>, estimates: &mut [f32; PACK]) -> u32 {
    let mut sums = [0i32; PACK];
    for (tables, signs) in query.tables.iter().zip(signs) {
        let (low, high) = tables.split_at(16);
        for (sum, eight) in sums.iter_mut().zip(signs) {
            *sum += i32::from(low[usize::from(eight & 15)]) + i32::from(high[usize::from(eight >> 4)]);
        }
    }
    estimate(query, numbers, &sums, estimates);
    let nearer = estimates.iter().enumerate();
    nearer
        .map(|(i, distance)| u32::from(*distance < numbers.edge) << i)
        .sum()
}

/// Estimates from sums of entries.
#[inline(always)]
pub(super) fn estimate(query: &PackQuery, numbers: Numbers<'_>, sums: &[i32; PACK], estimates: &mut [f32; PACK]) {
    let [a, f] = numbers.halves;
    let whole = |half: u16| f32::from_bits(u32::from(half) << 16);
    for i in 0..PACK {
        let product = query.base + query.step * sums[i] as f32;
        estimates[i] = numbers.distance + whole(a[i]) - whole(f[i]) * product;
    }
}
