//! Sixteen lanes, four sums in flight; the tail is one masked load instead of a scalar loop. Codes by VNNI, which
//! multiplies 64 pairs of bytes and adds the products up by four in one instruction.

use std::arch::x86_64::*;

use super::{
    BitKernel, Bits, CodeKernel, CodeKernels, Kernel, Kernels, LINE, Numbers, OnePass, PACK, PAIRS, PackKernel,
    PackQuery, RankKernel, SignKernel, SignQuery, avx2,
};

pub(super) static SET: Kernels = Kernels {
    name: "avx512",
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
    name: "avx512vnni",
    eight: CodeKernel {
        bits: Bits::Eight,
        four: eight_bits,
    },
    four: CodeKernel {
        bits: Bits::Four,
        four: four_bits,
    },
    signs: SignKernel {
        by_planes: false,
        four: signs,
    },
    packs: PackKernel {
        of: packs,
        tables: avx2::tables,
    },
    rank: RankKernel {
        of: rank,
        in_one_pass: Some(OnePass { insert, replace }),
    },
};

pub(super) const BITS: BitKernel = BitKernel {
    name: "avx512vpopcntdq",
    one: differing_one,
    four: differing_four,
};

const LANES: usize = 16;
const SUMS: usize = 4;

/// Sixteen numbers of a row, or as many as are left of it: the others are zeros.
///
/// # Safety
///
/// There are sixteen at `at`, or `count`, which is 1 to 16.
mod load {
    use super::*;

    #[inline]
    #[target_feature(enable = "avx512f")]
    #[expect(unsafe_code, reason = "a register load")]
    pub(super) unsafe fn floats(at: *const f32) -> __m512 {
        // SAFETY: as above. The load asks no alignment.
        unsafe { _mm512_loadu_ps(at) }
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    #[expect(unsafe_code, reason = "a register load")]
    pub(super) unsafe fn some_floats(at: *const f32, count: usize) -> __m512 {
        debug_assert!((1..=LANES).contains(&count), "some, and no more than a register holds");
        let mask = u16::MAX >> (LANES - count);
        // SAFETY: as above: lanes that are masked off are not read.
        unsafe { _mm512_maskz_loadu_ps(mask, at) }
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    #[expect(unsafe_code, reason = "a register load")]
    pub(super) unsafe fn halves(at: *const u16) -> __m512 {
        // SAFETY: as above. The load asks no alignment.
        _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(at.cast()) })
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    #[expect(unsafe_code, reason = "a register load")]
    pub(super) unsafe fn some_halves(at: *const u16, count: usize) -> __m512 {
        if count == LANES {
            // SAFETY: as above.
            return unsafe { halves(at) };
        }
        let mut all = [0; LANES];
        // SAFETY: as above.
        all[..count].copy_from_slice(unsafe { std::slice::from_raw_parts(at, count) });
        // SAFETY: there are sixteen.
        unsafe { halves(all.as_ptr()) }
    }
}

/// The loops of one kind from their step (`acc, x, y -> acc`), for any number of rows. Lanes beyond a row's end are zero in both operands,
/// and every step leaves `acc` unchanged for two zeros.
macro_rules! kernel {
    ($name:ident, $step:expr) => {
        mod $name {
            use super::*;

            kernel!(one, four, rows, f32, load::floats, load::some_floats, $step);
            kernel!(
                one_of_halves,
                four_of_halves,
                rows_of_halves,
                u16,
                load::halves,
                load::some_halves,
                $step
            );
        }
    };
    ($one:ident, $four:ident, $rows:ident, $number:ty, $load:path, $load_some:path, $step:expr) => {
        #[target_feature(enable = "avx512f")]
        pub(super) fn $one(a: &[f32], b: &[$number]) -> f32 {
            let [sum] = $rows(a, [b]);
            sum
        }

        #[target_feature(enable = "avx512f")]
        pub(super) fn $four(a: &[f32], rows: [&[$number]; 4]) -> [f32; 4] {
            $rows(a, rows)
        }

        #[inline]
        #[target_feature(enable = "avx512f")]
        #[expect(unsafe_code, reason = "register loads from slices")]
        fn $rows<const N: usize>(a: &[f32], rows: [&[$number]; N]) -> [f32; N] {
            const BLOCK: usize = LANES * SUMS;
            let whole = a.len() / BLOCK * BLOCK;
            let mut sums = [[_mm512_setzero_ps(); SUMS]; N];
            for block in (0..whole).step_by(BLOCK) {
                for i in 0..SUMS {
                    let at = block + i * LANES;
                    // SAFETY: `at + LANES` is at most `whole`, which no slice is shorter than: every row is as long as `a`
                    // (`Kernel` checked).
                    let x = unsafe { load::floats(a.as_ptr().add(at)) };
                    for row in 0..N {
                        // SAFETY: as above.
                        let y = unsafe { $load(rows[row].as_ptr().add(at)) };
                        sums[row][i] = $step(sums[row][i], x, y);
                    }
                }
            }
            for at in (whole..a.len()).step_by(LANES) {
                let count = (a.len() - at).min(LANES);
                // SAFETY: there are `count` from `at` up to a.len(), the length of every row.
                let x = unsafe { load::some_floats(a.as_ptr().add(at), count) };
                for row in 0..N {
                    // SAFETY: as above.
                    let y = unsafe { $load_some(rows[row].as_ptr().add(at), count) };
                    sums[row][0] = $step(sums[row][0], x, y);
                }
            }
            let mut totals = [0.0; N];
            for row in 0..N {
                let [s0, s1, s2, s3] = sums[row];
                totals[row] = _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(s0, s1), _mm512_add_ps(s2, s3)));
            }
            totals
        }
    };
}

kernel!(dot, |acc, x, y| _mm512_fmadd_ps(x, y, acc));
kernel!(l2_squared, |acc, x, y| {
    let d = _mm512_sub_ps(x, y);
    _mm512_fmadd_ps(d, d, acc)
});
kernel!(l1, |acc, x, y| _mm512_add_ps(acc, _mm512_abs_ps(_mm512_sub_ps(x, y))));

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
#[expect(unsafe_code, reason = "register loads from slices")]
fn eight_bits(query: &[i8], records: [&[u8]; 4]) -> [i32; 4] {
    let mut sums = [_mm512_setzero_si512(); 4];
    for at in (0..query.len()).step_by(LINE) {
        // SAFETY: the query is whole lines and each record is at least as long (`CodeKernel::of_four`), so a line from `at`
        // on is inside all five slices. The loads ask no alignment.
        let (q, codes) = unsafe {
            (
                _mm512_loadu_si512(query.as_ptr().add(at).cast()),
                records.map(|record| _mm512_loadu_si512(record.as_ptr().add(at).cast())),
            )
        };
        for i in 0..4 {
            sums[i] = _mm512_dpbusd_epi32(sums[i], codes[i], q);
        }
    }
    totals(sums)
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
#[expect(unsafe_code, reason = "register loads from slices")]
fn four_bits(query: &[i8], records: [&[u8]; 4]) -> [i32; 4] {
    let mask = _mm512_set1_epi8(15);
    let mut sums = [_mm512_setzero_si512(); 4];
    for at in (0..query.len() / 2).step_by(LINE) {
        // SAFETY: `at` steps through query.len() / 2 bytes, which are whole lines that every record has
        // (`CodeKernel::of_four`), and twice as many lines of query. The loads ask no alignment.
        let (low, high, codes) = unsafe {
            (
                _mm512_loadu_si512(query.as_ptr().add(2 * at).cast()),
                _mm512_loadu_si512(query.as_ptr().add(2 * at + LINE).cast()),
                records.map(|record| _mm512_loadu_si512(record.as_ptr().add(at).cast())),
            )
        };
        for i in 0..4 {
            let lows = _mm512_and_si512(codes[i], mask);
            let highs = _mm512_and_si512(_mm512_srli_epi16::<4>(codes[i]), mask);
            sums[i] = _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(sums[i], lows, low), highs, high);
        }
    }
    totals(sums)
}

#[target_feature(enable = "avx512f,avx512bw,avx512vpopcntdq")]
fn differing_one(a: &[u8], b: &[u8]) -> u32 {
    let [sum] = differing(a, [b]);
    _mm512_reduce_add_epi64(sum) as u32
}

#[target_feature(enable = "avx512f,avx512bw,avx512vpopcntdq")]
fn differing_four(a: &[u8], rows: [&[u8]; 4]) -> [u32; 4] {
    // No sum of a lane needs more than its lower half.
    totals(differing(a, rows)).map(|total| total as u32)
}

/// How many bits differ, lane by lane of 64 bits; the tail is one masked load.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vpopcntdq")]
#[expect(unsafe_code, reason = "register loads from slices")]
fn differing<const N: usize>(a: &[u8], rows: [&[u8]; N]) -> [__m512i; N] {
    let whole = a.len() / LINE * LINE;
    let mut sums = [_mm512_setzero_si512(); N];
    for at in (0..whole).step_by(LINE) {
        // SAFETY: `at + LINE` is at most `whole`, which no slice is shorter than: every row is as long as `a` (`BitKernel` checked).
        // The loads ask no alignment.
        let (x, ys) = unsafe {
            (
                _mm512_loadu_si512(a.as_ptr().add(at).cast()),
                rows.map(|row| _mm512_loadu_si512(row.as_ptr().add(at).cast())),
            )
        };
        for i in 0..N {
            sums[i] = _mm512_add_epi64(sums[i], _mm512_popcnt_epi64(_mm512_xor_si512(x, ys[i])));
        }
    }
    if whole < a.len() {
        let mask = u64::MAX >> (LINE - (a.len() - whole));
        // SAFETY: bytes that are masked off are not read, and as many as are not are in every slice from `whole` on.
        let (x, ys) = unsafe {
            (
                _mm512_maskz_loadu_epi8(mask, a.as_ptr().add(whole).cast()),
                rows.map(|row| _mm512_maskz_loadu_epi8(mask, row.as_ptr().add(whole).cast())),
            )
        };
        for i in 0..N {
            sums[i] = _mm512_add_epi64(sums[i], _mm512_popcnt_epi64(_mm512_xor_si512(x, ys[i])));
        }
    }
    sums
}

/// A word of bits is a mask of 64 numbers.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
#[expect(unsafe_code, reason = "register loads from slices")]
fn signs(query: &SignQuery, records: [&[u8]; 4]) -> [i32; 4] {
    let ones = _mm512_set1_epi8(1);
    let mut sums = [_mm512_setzero_si512(); 4];
    for (word, line) in query.numbers.chunks_exact(LINE).enumerate() {
        // SAFETY: the line is 64 bytes, and each record has a word for each line (`SignKernel::of_four`). The loads ask no alignment.
        let (numbers, masks) = unsafe {
            (
                _mm512_loadu_si512(line.as_ptr().cast()),
                records.map(|record| record.as_ptr().add(word * 8).cast::<u64>().read_unaligned()),
            )
        };
        for i in 0..4 {
            sums[i] = _mm512_dpbusd_epi32(sums[i], ones, _mm512_maskz_mov_epi8(masks[i], numbers));
        }
    }
    totals(sums)
}

/// As with AVX2, sixteen dimensions at a time: the lower half of a register has the patterns of the first eight, the upper half those of the
/// next, and their sums are added up in the end.
#[target_feature(enable = "avx512f,avx512bw")]
#[expect(unsafe_code, reason = "register loads from slices, and stores")]
fn packs(query: &PackQuery, signs: &[[u8; PACK]], numbers: Numbers<'_>, estimates: &mut [f32; PACK]) -> u32 {
    let mask = _mm512_set1_epi8(15);
    let mut sums = [_mm512_setzero_si512(); 2];
    for (tables, signs) in query.tables.chunks(PAIRS).zip(signs.chunks(PAIRS)) {
        let (mut both, mut odd) = (_mm512_setzero_si512(), _mm512_setzero_si512());
        let ((pairs, last), (signs, last_signs)) = (tables.as_chunks::<2>(), signs[..tables.len()].as_chunks::<2>());
        let whole = pairs.iter().zip(signs).map(|(tables, signs)| {
            // SAFETY: each is two times thirty-two bytes; the loads ask no alignment.
            unsafe {
                (
                    _mm512_loadu_si512(tables.as_ptr().cast()),
                    _mm512_loadu_si512(signs.as_ptr().cast()),
                )
            }
        });
        // Tables of zeros add nothing.
        let half = last.iter().zip(last_signs).map(|(tables, signs)| {
            // SAFETY: each is thirty-two bytes; the loads ask no alignment.
            let (tables, signs) = unsafe {
                (
                    _mm256_loadu_si256(tables.as_ptr().cast()),
                    _mm256_loadu_si256(signs.as_ptr().cast()),
                )
            };
            (_mm512_zextsi256_si512(tables), _mm512_zextsi256_si512(signs))
        });
        for (tables, signs) in whole.chain(half) {
            let low = _mm512_shuffle_i32x4::<0b10_10_00_00>(tables, tables);
            let high = _mm512_shuffle_i32x4::<0b11_11_01_01>(tables, tables);
            let first = _mm512_shuffle_epi8(low, _mm512_and_si512(signs, mask));
            let second = _mm512_shuffle_epi8(high, _mm512_and_si512(_mm512_srli_epi16::<4>(signs), mask));
            let entries = _mm512_add_epi8(first, second);
            both = _mm512_add_epi16(both, entries);
            odd = _mm512_add_epi16(odd, _mm512_srli_epi16::<8>(entries));
        }
        let [both, odd] = [both, odd]
            .map(|halves| _mm256_add_epi16(_mm512_castsi512_si256(halves), _mm512_extracti64x4_epi64::<1>(halves)));
        let even = _mm256_sub_epi16(both, _mm256_slli_epi16::<8>(odd));
        let (near, far) = (_mm256_unpacklo_epi16(even, odd), _mm256_unpackhi_epi16(even, odd));
        let in_order = [
            _mm256_permute2x128_si256::<0x20>(near, far),
            _mm256_permute2x128_si256::<0x31>(near, far),
        ];
        for i in 0..2 {
            sums[i] = _mm512_add_epi32(sums[i], _mm512_cvtepu16_epi32(in_order[i]));
        }
    }
    let (base, step) = (_mm512_set1_ps(query.base), _mm512_set1_ps(query.step));
    let (distance, edge) = (_mm512_set1_ps(numbers.distance), _mm512_set1_ps(numbers.edge));
    let mut nearer = 0;
    for i in 0..2 {
        let [a, f] = numbers.halves.map(|halves| {
            // SAFETY: sixteen halves from the beginning or the middle of thirty-two; the load asks no alignment.
            let halves = unsafe { _mm256_loadu_si256(halves.as_ptr().add(i * LANES).cast()) };
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(halves)))
        });
        // In the order of `portable::estimate`, without fused steps.
        let product = _mm512_add_ps(base, _mm512_mul_ps(step, _mm512_cvtepi32_ps(sums[i])));
        let some = _mm512_sub_ps(_mm512_add_ps(distance, a), _mm512_mul_ps(f, product));
        // SAFETY: sixteen floats from the beginning or the middle of thirty-two; the store asks no alignment.
        unsafe { _mm512_storeu_ps(estimates.as_mut_ptr().add(i * LANES), some) };
        nearer |= u32::from(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(some, edge)) << (i * LANES);
    }
    nearer
}

/// Adds up each register; the four trees of additions run side by side.
#[target_feature(enable = "avx512f,avx512bw")]
fn totals(sums: [__m512i; 4]) -> [i32; 4] {
    let [a, b, c, d] = sums.map(|sum| {
        let half = _mm256_add_epi32(_mm512_castsi512_si256(sum), _mm512_extracti64x4_epi64::<1>(sum));
        _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256::<1>(half))
    });
    let all = _mm_hadd_epi32(_mm_hadd_epi32(a, b), _mm_hadd_epi32(c, d));
    [
        _mm_cvtsi128_si32(all),
        _mm_extract_epi32::<1>(all),
        _mm_extract_epi32::<2>(all),
        _mm_extract_epi32::<3>(all),
    ]
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni,popcnt")]
#[expect(unsafe_code, reason = "register loads from slices, and stores")]
fn insert(ascending: &mut [u64], number: u64) -> usize {
    let number = _mm512_set1_epi64(number as i64);
    // A place keeps what it has if that is less; it takes what is before it if that is not less, else the new number.
    let step = |own, before| _mm512_min_epu64(own, _mm512_max_epu64(before, number));
    let mut less = 0;
    let mut end = ascending.len();
    while end > 8 {
        let start = end - 8;
        // SAFETY: there are eight numbers from `start` on, and one before them; loads and stores ask no alignment.
        unsafe {
            let at = ascending.as_mut_ptr().add(start);
            let own = _mm512_loadu_si512(at.cast());
            less += _mm512_cmplt_epu64_mask(own, number).count_ones();
            _mm512_storeu_si512(at.cast(), step(own, _mm512_loadu_si512(at.sub(1).cast())));
        }
        end = start;
    }
    let mask = ((1u16 << end) - 1) as u8;
    // SAFETY: the mask names those that are left, at most eight; others are neither read nor written.
    unsafe {
        let own = _mm512_maskz_loadu_epi64(mask, ascending.as_ptr().cast());
        less += _mm512_mask_cmplt_epu64_mask(mask, own, number).count_ones();
        // Nothing is before the first.
        let before = _mm512_alignr_epi64::<7>(own, _mm512_setzero_si512());
        _mm512_mask_storeu_epi64(ascending.as_mut_ptr().cast(), mask, step(own, before));
    }
    less as usize
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni,popcnt")]
#[expect(unsafe_code, reason = "register loads from slices, and stores")]
fn replace(ascending: &mut [u64], old: u64, new: u64) -> usize {
    let (old, new) = (_mm512_set1_epi64(old as i64), _mm512_set1_epi64(new as i64));
    let most = _mm512_set1_epi64(-1);
    let mut less = 0;
    let mut last = _mm512_setzero_si512();
    let len = ascending.len();
    for start in (0..len).step_by(8) {
        let here = ((1u32 << (len - start).min(8)) - 1) as u8;
        let next = ((1u32 << (len - start - 1).min(8)) - 1) as u8;
        // SAFETY: the masks name those that are there from `start` on, and from the one after it on; others are neither read nor written.
        unsafe {
            let at = ascending.as_mut_ptr().add(start);
            let own = _mm512_maskz_loadu_epi64(here, at.cast());
            let after = _mm512_mask_loadu_epi64(most, next, at.add(1).cast());
            let before = _mm512_alignr_epi64::<7>(own, last);
            // Without the old one: from it on everybody is followed by the next.
            let follows = _mm512_mask_blend_epi64(_mm512_cmplt_epu64_mask(own, old), after, own);
            let leads = _mm512_mask_blend_epi64(_mm512_cmplt_epu64_mask(before, old), own, before);
            less += _mm512_mask_cmplt_epu64_mask(here, follows, new).count_ones();
            let moved = _mm512_min_epu64(follows, _mm512_max_epu64(leads, new));
            _mm512_mask_storeu_epi64(at.cast(), here, moved);
            last = own;
        }
    }
    less as usize
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni,popcnt")]
#[expect(unsafe_code, reason = "register loads from slices")]
fn rank(ascending: &[u64], number: u64) -> usize {
    let number = _mm512_set1_epi64(number as i64);
    let (whole, rest) = ascending.as_chunks::<8>();
    let mut less = 0;
    for eight in whole {
        // SAFETY: eight numbers are one register; the load asks no alignment.
        let eight = unsafe { _mm512_loadu_si512(eight.as_ptr().cast()) };
        less += _mm512_cmplt_epu64_mask(eight, number).count_ones();
    }
    let mask = (1u8 << rest.len()) - 1;
    // SAFETY: the mask names those that are left; others are not read.
    let few = unsafe { _mm512_maskz_loadu_epi64(mask, rest.as_ptr().cast()) };
    less += _mm512_mask_cmplt_epu64_mask(mask, few, number).count_ones();
    less as usize
}
