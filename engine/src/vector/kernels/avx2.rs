//! Eight lanes, four sums in flight: an FMA takes four cycles and two start in each, so fewer sums would wait.

use std::arch::x86_64::*;

use super::{
    BitKernel, Bits, CodeKernel, CodeKernels, Kernel, Kernels, LINE, Numbers, PACK, PAIRS, PARTS, PackKernel,
    PackQuery, RankKernel, SignKernel, SignQuery, portable, widen,
};

pub(super) static SET: Kernels = Kernels {
    name: "avx2",
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

pub(super) static CODES: CodeKernels = CodeKernels {
    name: "avx2",
    eight: CodeKernel {
        bits: Bits::Eight,
        four: eight_bits,
    },
    four: CodeKernel {
        bits: Bits::Four,
        four: four_bits,
    },
    signs: SignKernel {
        by_planes: true,
        four: signs,
    },
    packs: PackKernel { of: packs, tables },
    rank: RankKernel {
        of: rank,
        in_one_pass: None,
    },
};

pub(super) const BITS: BitKernel = BitKernel {
    name: "avx2",
    one: differing_one,
    four: differing::<4>,
};

const LANES: usize = 8;
const SUMS: usize = 4;

/// Eight numbers of a row.
mod load {
    use super::*;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    #[expect(unsafe_code, reason = "a register load")]
    pub(super) fn floats(of: &[f32; LANES]) -> __m256 {
        // SAFETY: there are eight; the load asks no alignment.
        unsafe { _mm256_loadu_ps(of.as_ptr()) }
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    #[expect(unsafe_code, reason = "a register load")]
    pub(super) fn halves(of: &[u16; LANES]) -> __m256 {
        // SAFETY: there are eight; the load asks no alignment.
        _mm256_cvtph_ps(unsafe { _mm_loadu_si128(of.as_ptr().cast()) })
    }
}

/// The loops of one kind from the two forms of a step: for registers (`acc, x, y -> acc`) and for the tail's scalars (`x, y -> term`).
/// Four rows are done one after the other: four sums for each of four rows are more registers than there are.
macro_rules! kernel {
    ($name:ident, $step:expr, $term:expr) => {
        mod $name {
            use super::*;

            kernel!(one, four, f32, load::floats, f32::from, $step, $term);
            kernel!(
                one_of_halves,
                four_of_halves,
                u16,
                load::halves,
                widen,
                $step,
                $term
            );
        }
    };
    ($one:ident, $four:ident, $number:ty, $load:path, $widen:path, $step:expr, $term:expr) => {
        #[target_feature(enable = "avx2,fma,f16c")]
        pub(super) fn $four(a: &[f32], rows: [&[$number]; 4]) -> [f32; 4] {
            let [first, second, third, fourth] = rows;
            [$one(a, first), $one(a, second), $one(a, third), $one(a, fourth)]
        }

        #[target_feature(enable = "avx2,fma,f16c")]
        pub(super) fn $one(a: &[f32], b: &[$number]) -> f32 {
            let ((eights_a, tail_a), (eights_b, tail_b)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
            let ((blocks_a, rest_a), (blocks_b, rest_b)) = (eights_a.as_chunks::<SUMS>(), eights_b.as_chunks::<SUMS>());
            let mut sums = [_mm256_setzero_ps(); SUMS];
            for (x, y) in blocks_a.iter().zip(blocks_b) {
                for i in 0..SUMS {
                    sums[i] = $step(sums[i], load::floats(&x[i]), $load(&y[i]));
                }
            }
            for (x, y) in rest_a.iter().zip(rest_b) {
                sums[0] = $step(sums[0], load::floats(x), $load(y));
            }
            let all = _mm256_add_ps(_mm256_add_ps(sums[0], sums[1]), _mm256_add_ps(sums[2], sums[3]));
            let half = _mm_add_ps(_mm256_castps256_ps128(all), _mm256_extractf128_ps::<1>(all));
            let quarter = _mm_add_ps(half, _mm_movehl_ps(half, half));
            let one = _mm_add_ss(quarter, _mm_movehdup_ps(quarter));
            let tail: f32 = tail_a
                .iter()
                .zip(tail_b)
                .map(|(x, y)| $term(*x, $widen(*y)))
                .sum();
            _mm_cvtss_f32(one) + tail
        }
    };
}

kernel!(dot, |acc, x, y| _mm256_fmadd_ps(x, y, acc), |x: f32, y: f32| x * y);
kernel!(
    l2_squared,
    |acc, x, y| {
        let d = _mm256_sub_ps(x, y);
        _mm256_fmadd_ps(d, d, acc)
    },
    |x: f32, y: f32| (x - y) * (x - y)
);
kernel!(
    l1,
    |acc, x, y| _mm256_add_ps(acc, _mm256_andnot_ps(_mm256_set1_ps(-0.0), _mm256_sub_ps(x, y))),
    |x: f32, y: f32| (x - y).abs()
);

/// Bytes of a register.
const BYTES: usize = 32;

/// Bytes are widened to sixteen bits first: `maddubs` adds two products of a byte in sixteen bits, and `2 · 255 · 127` is
/// more than they hold.
#[target_feature(enable = "avx2")]
#[expect(unsafe_code, reason = "register loads from slices")]
fn eight_bits(query: &[i8], records: [&[u8]; 4]) -> [i32; 4] {
    const HALF: usize = BYTES / 2;
    let mut sums = [_mm256_setzero_si256(); 4];
    for at in (0..query.len()).step_by(HALF) {
        // SAFETY: the query is whole lines and each record is at least as long (`CodeKernel::of_four`), and a line is
        // whole steps: sixteen bytes from `at` on are inside all five slices. The loads ask no alignment.
        let (q, codes) = unsafe {
            (
                _mm_loadu_si128(query.as_ptr().add(at).cast()),
                records.map(|record| _mm_loadu_si128(record.as_ptr().add(at).cast())),
            )
        };
        let q = _mm256_cvtepi8_epi16(q);
        for i in 0..4 {
            sums[i] = _mm256_add_epi32(sums[i], _mm256_madd_epi16(q, _mm256_cvtepu8_epi16(codes[i])));
        }
    }
    [total(sums[0]), total(sums[1]), total(sums[2]), total(sums[3])]
}

/// `2 · 15 · 128` twice is far inside sixteen bits, so `maddubs` is exact here.
#[target_feature(enable = "avx2")]
#[expect(unsafe_code, reason = "register loads from slices")]
fn four_bits(query: &[i8], records: [&[u8]; 4]) -> [i32; 4] {
    let (mask, ones) = (_mm256_set1_epi8(15), _mm256_set1_epi16(1));
    let mut sums = [_mm256_setzero_si256(); 4];
    for at in (0..query.len() / 2).step_by(BYTES) {
        // Low halves of a line of codes go with an even line of the query, high halves with the odd one after it.
        let low_at = at / LINE * 2 * LINE + at % LINE;
        // SAFETY: `at` steps through query.len() / 2 bytes, which are whole lines that every record has
        // (`CodeKernel::of_four`); `low_at + LINE` is inside the same pair of lines of the query. The loads ask no alignment.
        let (low, high, codes) = unsafe {
            (
                _mm256_loadu_si256(query.as_ptr().add(low_at).cast()),
                _mm256_loadu_si256(query.as_ptr().add(low_at + LINE).cast()),
                records.map(|record| _mm256_loadu_si256(record.as_ptr().add(at).cast())),
            )
        };
        for i in 0..4 {
            let lows = _mm256_and_si256(codes[i], mask);
            let highs = _mm256_and_si256(_mm256_srli_epi16::<4>(codes[i]), mask);
            let pairs = _mm256_add_epi16(_mm256_maddubs_epi16(lows, low), _mm256_maddubs_epi16(highs, high));
            sums[i] = _mm256_add_epi32(sums[i], _mm256_madd_epi16(pairs, ones));
        }
    }
    [total(sums[0]), total(sums[1]), total(sums[2]), total(sums[3])]
}

#[target_feature(enable = "avx2")]
fn total(sums: __m256i) -> i32 {
    let half = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256::<1>(sums));
    let quarter = _mm_add_epi32(half, _mm_shuffle_epi32::<0b01_00_11_10>(half));
    let one = _mm_add_epi32(quarter, _mm_shuffle_epi32::<0b00_00_00_01>(quarter));
    _mm_cvtsi128_si32(one)
}

#[target_feature(enable = "avx2,popcnt")]
fn differing_one(a: &[u8], b: &[u8]) -> u32 {
    differing(a, [b])[0]
}

/// A shuffle looks up the ones of thirty-two halves of bytes (Mula, Kurz & Lemire, "Faster population counts using AVX2 instructions",
/// 2018).
#[inline]
#[target_feature(enable = "avx2,popcnt")]
#[expect(unsafe_code, reason = "register loads from slices")]
fn differing<const N: usize>(a: &[u8], rows: [&[u8]; N]) -> [u32; N] {
    let ones = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4));
    let mask = _mm256_set1_epi8(15);
    let whole = a.len() / BYTES * BYTES;
    let mut sums = [_mm256_setzero_si256(); N];
    for at in (0..whole).step_by(BYTES) {
        // SAFETY: `at + BYTES` is at most `whole`, which no slice is shorter than: every row is as long as `a` (`BitKernel` checked).
        // The loads ask no alignment.
        let (x, ys) = unsafe {
            (
                _mm256_loadu_si256(a.as_ptr().add(at).cast()),
                rows.map(|row| _mm256_loadu_si256(row.as_ptr().add(at).cast())),
            )
        };
        for i in 0..N {
            let differ = _mm256_xor_si256(x, ys[i]);
            let low = _mm256_shuffle_epi8(ones, _mm256_and_si256(differ, mask));
            let high = _mm256_shuffle_epi8(ones, _mm256_and_si256(_mm256_srli_epi16::<4>(differ), mask));
            let of_bytes = _mm256_add_epi8(low, high);
            sums[i] = _mm256_add_epi64(sums[i], _mm256_sad_epu8(of_bytes, _mm256_setzero_si256()));
        }
    }
    let mut counts = [0; N];
    for i in 0..N {
        counts[i] = total(sums[i]) as u32 + portable::differing(&a[whole..], &rows[i][whole..]);
    }
    counts
}

#[target_feature(enable = "avx2,popcnt")]
fn signs(query: &SignQuery, records: [&[u8]; 4]) -> [i32; 4] {
    records.map(|record| portable::signs(query, record))
}

/// Sixteen patterns are looked up for thirty-two neighbours by one shuffle. Entries of two tables fit a byte together; bytes are
/// added up in sixteen bits, those of even neighbours with what the odd ones beside them put above, which is taken off in the end.
#[target_feature(enable = "avx2")]
#[expect(unsafe_code, reason = "register loads from slices")]
pub(super) fn packs(query: &PackQuery, signs: &[[u8; PACK]], numbers: Numbers<'_>, estimates: &mut [f32; PACK]) -> u32 {
    let mask = _mm256_set1_epi8(15);
    let mut sums = [0i32; PACK];
    for (tables, signs) in query.tables.chunks(PAIRS).zip(signs.chunks(PAIRS)) {
        let (mut both, mut odd) = (_mm256_setzero_si256(), _mm256_setzero_si256());
        for (tables, signs) in tables.iter().zip(signs) {
            // SAFETY: each is thirty-two bytes; the loads ask no alignment.
            let (tables, signs) = unsafe {
                (
                    _mm256_loadu_si256(tables.as_ptr().cast()),
                    _mm256_loadu_si256(signs.as_ptr().cast()),
                )
            };
            let low = _mm256_permute2x128_si256::<0x00>(tables, tables);
            let high = _mm256_permute2x128_si256::<0x11>(tables, tables);
            let first = _mm256_shuffle_epi8(low, _mm256_and_si256(signs, mask));
            let second = _mm256_shuffle_epi8(high, _mm256_and_si256(_mm256_srli_epi16::<4>(signs), mask));
            let entries = _mm256_add_epi8(first, second);
            both = _mm256_add_epi16(both, entries);
            odd = _mm256_add_epi16(odd, _mm256_srli_epi16::<8>(entries));
        }
        let even = _mm256_sub_epi16(both, _mm256_slli_epi16::<8>(odd));
        let (near, far) = (_mm256_unpacklo_epi16(even, odd), _mm256_unpackhi_epi16(even, odd));
        let in_order = [
            _mm256_castsi256_si128(near),
            _mm256_castsi256_si128(far),
            _mm256_extracti128_si256::<1>(near),
            _mm256_extracti128_si256::<1>(far),
        ];
        for (eight, sums) in in_order.into_iter().zip(sums.chunks_exact_mut(8)) {
            let at: *mut __m256i = sums.as_mut_ptr().cast();
            // SAFETY: eight sums are one register; neither asks alignment.
            unsafe {
                _mm256_storeu_si256(
                    at,
                    _mm256_add_epi32(_mm256_loadu_si256(at), _mm256_cvtepu16_epi32(eight)),
                )
            };
        }
    }
    portable::estimate(query, numbers, &sums, estimates);
    let edge = _mm256_set1_ps(numbers.edge);
    let mut nearer = 0;
    for (i, eight) in estimates.chunks_exact(8).enumerate() {
        // SAFETY: eight floats are one register; the load asks no alignment.
        let eight = unsafe { _mm256_loadu_ps(eight.as_ptr()) };
        nearer |= (_mm256_movemask_ps(_mm256_cmp_ps::<_CMP_LT_OQ>(eight, edge)) as u32) << (8 * i);
    }
    nearer
}

#[target_feature(enable = "avx2")]
#[expect(unsafe_code, reason = "register loads from slices")]
pub(super) fn tables(eights: &[[f32; 8]], to_parts: f32, tables: &mut [[u8; 32]]) {
    let (to_parts, size) = (
        _mm256_set1_ps(to_parts),
        _mm256_castsi256_ps(_mm256_set1_epi32(i32::MAX)),
    );
    let half = _mm256_set1_epi16(PARTS as i16 / 2);
    let pattern = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
    // Each of a lane's four sizes, spread over the lane; and which of the first eight patterns have its bit.
    let splat = [0x0100, 0x0302, 0x0504, 0x0706].map(|word| _mm256_set1_epi16(word));
    let has = [
        _mm256_broadcastsi128_si256(_mm_setr_epi16(0, -1, 0, -1, 0, -1, 0, -1)),
        _mm256_broadcastsi128_si256(_mm_setr_epi16(0, 0, -1, -1, 0, 0, -1, -1)),
        _mm256_broadcastsi128_si256(_mm_setr_epi16(0, 0, 0, 0, -1, -1, -1, -1)),
    ];
    for (eight, table) in eights.iter().zip(tables) {
        // SAFETY: eight floats are one register; the load asks no alignment.
        let numbers = unsafe { _mm256_loadu_ps(eight.as_ptr()) };
        let sizes = _mm256_cvttps_epi32(_mm256_mul_ps(_mm256_and_ps(numbers, size), to_parts));
        let sizes = _mm256_packus_epi32(sizes, sizes);
        let [first, second, third, fourth] = splat.map(|word| _mm256_shuffle_epi8(sizes, word));
        let low = _mm256_add_epi16(
            _mm256_add_epi16(half, _mm256_and_si256(first, has[0])),
            _mm256_add_epi16(_mm256_and_si256(second, has[1]), _mm256_and_si256(third, has[2])),
        );
        let high = _mm256_add_epi16(low, fourth);
        let entries = _mm256_packus_epi16(
            _mm256_srli_epi16::<{ PARTS.ilog2() as i32 }>(low),
            _mm256_srli_epi16::<{ PARTS.ilog2() as i32 }>(high),
        );
        // Of negative numbers it is a negative sign that makes more: the same table, in another order.
        let negative = _mm256_movemask_ps(numbers);
        let flip = _mm256_set_m128i(
            _mm_set1_epi8((negative >> 4) as i8),
            _mm_set1_epi8((negative & 15) as i8),
        );
        let entries = _mm256_shuffle_epi8(entries, _mm256_xor_si256(pattern, flip));
        // SAFETY: thirty-two bytes are one register; the store asks no alignment.
        unsafe { _mm256_storeu_si256(table.as_mut_ptr().cast(), entries) };
    }
}

#[target_feature(enable = "avx2,popcnt")]
#[expect(unsafe_code, reason = "register loads from slices")]
fn rank(ascending: &[u64], number: u64) -> usize {
    // There is only a comparison of signed numbers.
    let flip = _mm256_set1_epi64x(i64::MIN);
    let edge = _mm256_set1_epi64x(number as i64 ^ i64::MIN);
    let (whole, rest) = ascending.as_chunks::<4>();
    // Minus how many there are in each lane.
    let mut less = _mm256_setzero_si256();
    for four in whole {
        // SAFETY: four numbers are one register; the load asks no alignment.
        let four = unsafe { _mm256_loadu_si256(four.as_ptr().cast()) };
        less = _mm256_add_epi64(less, _mm256_cmpgt_epi64(edge, _mm256_xor_si256(four, flip)));
    }
    let half = _mm_add_epi64(_mm256_castsi256_si128(less), _mm256_extracti128_si256::<1>(less));
    let whole = -(_mm_cvtsi128_si64(half) + _mm_extract_epi64::<1>(half));
    whole as usize + rest.iter().filter(|other| **other < number).count()
}

/// Plain code, compiled for AVX2.
#[target_feature(enable = "avx2")]
pub(super) fn run<L: super::Loop>(work: L) -> L::Result {
    work.run()
}
