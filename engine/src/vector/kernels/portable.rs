//! Plain loops with as many independent sums as a wide register has lanes: floating-point addition may not be reordered
//! by the compiler, so one running sum could never become SIMD. Integer sums need no such care.

use super::{
    BitKernel, Bits, CodeKernel, CodeKernels, Kernel, Kernels, LINE, Numbers, PACK, PARTS, PackKernel, PackQuery,
    RankKernel, SignKernel, SignQuery, widen,
};

pub(super) static SET: Kernels = Kernels {
    name: "portable",
    dot: Kernel {
        one: |a, b| dot(a, b, f32::from),
        four: |a, rows| rows.map(|row| dot(a, row, f32::from)),
        one_of_halves: |a, b| dot(a, b, widen),
        four_of_halves: |a, rows| rows.map(|row| dot(a, row, widen)),
    },
    l2_squared: Kernel {
        one: |a, b| l2_squared(a, b, f32::from),
        four: |a, rows| rows.map(|row| l2_squared(a, row, f32::from)),
        one_of_halves: |a, b| l2_squared(a, b, widen),
        four_of_halves: |a, rows| rows.map(|row| l2_squared(a, row, widen)),
    },
    l1: Kernel {
        one: |a, b| l1(a, b, f32::from),
        four: |a, rows| rows.map(|row| l1(a, row, f32::from)),
        one_of_halves: |a, b| l1(a, b, widen),
        four_of_halves: |a, rows| rows.map(|row| l1(a, row, widen)),
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
    packs: PackKernel { of: packs, tables },
    rank: RankKernel {
        of: rank,
        in_one_pass: None,
    },
};

pub(super) const BITS: BitKernel = BitKernel {
    name: "portable",
    one: differing,
    four: |a, rows| rows.map(|row| differing(a, row)),
};

const LANES: usize = 16;

fn dot<T: Copy>(a: &[f32], b: &[T], widen: impl Fn(T) -> f32) -> f32 {
    sum(a, b, widen, |x, y| x * y)
}

fn l2_squared<T: Copy>(a: &[f32], b: &[T], widen: impl Fn(T) -> f32) -> f32 {
    sum(a, b, widen, |x, y| (x - y) * (x - y))
}

fn l1<T: Copy>(a: &[f32], b: &[T], widen: impl Fn(T) -> f32) -> f32 {
    sum(a, b, widen, |x, y| (x - y).abs())
}

#[inline(always)]
fn sum<T: Copy>(a: &[f32], b: &[T], widen: impl Fn(T) -> f32, term: impl Fn(f32, f32) -> f32) -> f32 {
    let (whole_a, tail_a) = a.as_chunks::<LANES>();
    let (whole_b, tail_b) = b.as_chunks::<LANES>();
    let mut lanes = [0.0f32; LANES];
    for (x, y) in whole_a.iter().zip(whole_b) {
        for lane in 0..LANES {
            lanes[lane] += term(x[lane], widen(y[lane]));
        }
    }
    for ((lane, x), y) in lanes.iter_mut().zip(tail_a).zip(tail_b) {
        *lane += term(*x, widen(*y));
    }
    lanes.iter().sum()
}

fn rank(ascending: &[u64], number: u64) -> usize {
    ascending.partition_point(|other| *other < number)
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

#[inline(always)]
pub(super) fn differing(a: &[u8], b: &[u8]) -> u32 {
    let ((words_a, rest_a), (words_b, rest_b)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    let words = words_a.iter().zip(words_b);
    let words = words.map(|(x, y)| (u64::from_le_bytes(*x) ^ u64::from_le_bytes(*y)).count_ones());
    let rest = rest_a.iter().zip(rest_b).map(|(x, y)| (x ^ y).count_ones());
    words.chain(rest).sum()
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

/// All ones where a pattern of four signs has a bit.
const HAS: [[u16; 16]; 4] = {
    let mut has = [[0; 16]; 4];
    let mut i = 0;
    while i < 64 {
        has[i / 16][i % 16] = if i % 16 >> (i / 16) & 1 == 1 { u16::MAX } else { 0 };
        i += 1;
    }
    has
};

pub(super) fn tables(eights: &[[f32; 8]], to_parts: f32, tables: &mut [[u8; 32]]) {
    let (fours, _) = eights.as_flattened().as_chunks::<4>();
    let (halves, _) = tables.as_flattened_mut().as_chunks_mut::<16>();
    for (four, table) in fours.iter().zip(halves) {
        // What a positive sign makes more than the least that the four can make: each size twice if the number is positive, and a
        // negative sign if it is negative.
        let mut entries = [PARTS / 2; 16];
        for bit in 0..4 {
            let size = (four[bit].abs() * to_parts) as u16;
            let unless = if four[bit] > 0.0 { 0 } else { u16::MAX };
            for pattern in 0..16 {
                entries[pattern] = entries[pattern].wrapping_add(size & (HAS[bit][pattern] ^ unless));
            }
        }
        for pattern in 0..16 {
            table[pattern] = (entries[pattern] >> PARTS.ilog2()) as u8;
        }
    }
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
    nearer(estimates, numbers.edge)
}

/// A bit for each that is less than the edge.
#[inline(always)]
pub(super) fn nearer(estimates: &[f32; PACK], edge: f32) -> u32 {
    let estimates = estimates.iter().enumerate();
    estimates.map(|(i, distance)| u32::from(*distance < edge) << i).sum()
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
