//! Claims about the loops: every set against arithmetic that is plainly right, and against the others.
//!
//! Without anything from outside of this folder, so that it can be compiled by itself, for another processor too (`make test-arm`).

use super::*;

/// Small, fast, the same everywhere (SplitMix64).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    /// Nearly normal: a sum of four uniform numbers, mean 0, deviation 1.
    pub(crate) fn normal(&mut self) -> f32 {
        let sum: f64 = (0..4).map(|_| (self.next() >> 11) as f64 / (1u64 << 53) as f64).sum();
        ((sum - 2.0) * 3f64.sqrt()) as f32
    }
    pub(crate) fn vector(&mut self, dim: usize) -> Vec<f32> {
        (0..dim).map(|_| self.normal()).collect()
    }
}

fn naive(a: &[f32], b: &[f32], term: fn(f64, f64) -> f64) -> f64 {
    a.iter().zip(b).map(|(a, b)| term(f64::from(*a), f64::from(*b))).sum()
}

/// `magnitude` is the sum of the terms' absolute values: what rounding is proportional to.
fn assert_close(got: f32, want: f64, magnitude: f64, what: &str) {
    let error = (f64::from(got) - want).abs();
    assert!(error <= 1e-5 * magnitude + 1e-30, "{what}: got {got}, want {want}");
}

pub(crate) fn check_kernels(set: &Kernels, a: &[f32], b: &[f32]) {
    let what = |kernel: &str| format!("{} {kernel} of {} dimensions", set.name, a.len());
    let magnitude = naive(a, b, |a, b| (a * b).abs());
    assert_close(set.dot.of(a, b), naive(a, b, |a, b| a * b), magnitude, &what("dot"));
    // A difference is rounded before it is summed: in proportion to its operands.
    let l2 = naive(a, b, |a, b| (a - b) * (a - b));
    let operands = naive(a, b, |a, b| a * a + b * b);
    assert_close(set.l2_squared.of(a, b), l2, l2 + 0.1 * operands, &what("l2"));
    let l1 = naive(a, b, |a, b| (a - b).abs());
    let operands = naive(a, b, |a, b| a.abs() + b.abs());
    assert_close(set.l1.of(a, b), l1, l1 + 0.1 * operands, &what("l1"));
}

#[test]
fn every_kernel_agrees_with_f64_in_every_dimension() {
    let mut random = Random(1);
    // One float more than needed, so that rows start at addresses no register is aligned to.
    let (a, b) = (random.vector(2001), random.vector(2001));
    for set in available() {
        for dim in 0..=2000 {
            check_kernels(set, &a[1..=dim], &b[..dim]);
        }
    }
}

#[test]
fn four_rows_at_once_give_what_they_give_one_by_one() {
    let mut random = Random(14);
    let rows: Vec<Vec<f32>> = (0..5).map(|_| random.vector(200)).collect();
    for set in available() {
        for dim in 0..=200 {
            let row = |i: usize| &rows[i][..dim];
            for kernel in [set.dot, set.l2_squared, set.l1] {
                let one_by_one = [1, 2, 3, 4].map(|i| kernel.of(row(0), row(i)));
                let at_once = kernel.of_four(row(0), [row(1), row(2), row(3), row(4)]);
                assert_eq!(at_once, one_by_one, "{} of {dim} dimensions", set.name);
            }
        }
    }
}

/// The number of a half, by its definition.
fn of_half(half: u16) -> f64 {
    let (sign, exponent, fraction) = (half >> 15, i32::from(half >> 10 & 31), f64::from(half & 1023));
    let size = match exponent {
        0 => fraction * 2f64.powi(-24),
        _ => (1024.0 + fraction) * 2f64.powi(exponent - 25),
    };
    if sign == 1 { -size } else { size }
}

fn is_finite(half: u16) -> bool {
    half >> 10 & 31 < 31
}

#[test]
fn every_finite_half_is_the_same_number_widened() {
    for half in (0..=u16::MAX).filter(|half| is_finite(*half)) {
        assert_eq!(f64::from(widen(half)), of_half(half), "{half:#x}");
        assert_eq!(widen(half).is_sign_negative(), half >> 15 == 1, "{half:#x}");
    }
}

#[test]
fn halves_give_what_the_same_numbers_give_as_floats() {
    let mut random = Random(16);
    let query = random.vector(300);
    let halves: Vec<Vec<u16>> = (0..4)
        .map(|_| {
            let any = std::iter::repeat_with(|| random.next() as u16);
            any.filter(|half| is_finite(*half)).take(300).collect()
        })
        .collect();
    let floats: Vec<Vec<f32>> = halves
        .iter()
        .map(|row| row.iter().map(|half| widen(*half)).collect())
        .collect();
    for set in available() {
        // From an odd place on, so that rows start at addresses no register is aligned to.
        for dim in 0..300 {
            let query = &query[..dim];
            let (halves, floats) = (
                [0, 1, 2, 3].map(|i: usize| &halves[i][1..=dim]),
                [0, 1, 2, 3].map(|i: usize| &floats[i][1..=dim]),
            );
            for kernel in [set.dot, set.l2_squared, set.l1] {
                let bits = |sums: [f32; 4]| sums.map(f32::to_bits);
                let of_floats = bits(kernel.of_four(query, floats));
                let what = format!("{} of {dim} dimensions", set.name);
                assert_eq!(bits(kernel.of_four_halves(query, halves)), of_floats, "{what}");
                let one_by_one = halves.map(|row| kernel.of_halves(query, row));
                assert_eq!(bits(one_by_one), of_floats, "{what}");
            }
        }
    }
    // What is no number may be any.
    let none: Vec<u16> = [0x7c00, 0x7d00, 0x7e00, 0xfc00].into_iter().cycle().take(300).collect();
    for set in available() {
        for kernel in [set.dot, set.l2_squared, set.l1] {
            let _ = kernel.of_four_halves(&query, [&none; 4]);
        }
    }
}

#[test]
fn every_loop_over_bits_counts_those_that_differ() {
    let mut random = Random(21);
    let mut drawn = || -> Vec<u8> { (0..400).map(|_| random.next() as u8).collect() };
    let rows = [drawn(), drawn(), drawn(), drawn(), vec![0xff; 400]];
    for query in [drawn(), vec![0; 400]] {
        for length in 0..399 {
            // From an odd place on, so that rows start at addresses no register is aligned to.
            let query = &query[..length];
            let rows = [1, 2, 3, 4].map(|i: usize| &rows[i][1..=length]);
            let naive = rows.map(|row| {
                let bit = |i: usize| query[i / 8] >> (i % 8) & 1 != row[i / 8] >> (i % 8) & 1;
                (0..8 * length).filter(|i| bit(*i)).count() as u32
            });
            for kernel in available_for_bits() {
                assert_eq!(kernel.of_four(query, rows), naive, "{kernel:?}, {length} bytes");
                assert_eq!(
                    rows.map(|row| kernel.of(query, row)),
                    naive,
                    "{kernel:?}, {length} bytes"
                );
            }
        }
    }
    // As many as there can be.
    let (none, all) = (vec![0; DIM_MAX / 8], vec![0xff; DIM_MAX / 8]);
    for kernel in available_for_bits() {
        assert_eq!(
            kernel.of_four(&none, [&all; 4]),
            [DIM_MAX as u32 / 8 * 8; 4],
            "{kernel:?}"
        );
    }
}

#[test]
#[should_panic(expected = "one length")]
fn bits_of_different_lengths_are_refused() {
    best_for_bits().of(&[1, 2], &[1]);
}

/// Exact: integers have no rounding.
pub(crate) fn check_code_kernels(set: &CodeKernels, query: &[i8], records: &[Vec<u8>; 4]) {
    let product = |t: i8, code: u8| i64::from(t) * i64::from(code);
    let eight = |record: &Vec<u8>| -> i64 { query.iter().zip(record).map(|(t, code)| product(*t, *code)).sum() };
    let four = |record: &Vec<u8>| -> i64 {
        let at = |line: usize, i: usize| query[2 * line * LINE + i];
        (0..query.len() / 2)
            .map(|j| (j, at(j / LINE, j % LINE), at(j / LINE, LINE + j % LINE)))
            .map(|(j, low, high)| product(low, record[j] & 15) + product(high, record[j] >> 4))
            .sum()
    };
    let slices = [&records[0][..], &records[1][..], &records[2][..], &records[3][..]];
    let wide = |sums: [i32; 4]| sums.map(i64::from).to_vec();
    let what = format!("{} of {} bytes", set.name, query.len());
    assert_eq!(
        wide(set.eight.of_four(query, slices)),
        records.iter().map(eight).collect::<Vec<_>>(),
        "8 bits, {what}"
    );
    if query.len().is_multiple_of(2 * LINE) {
        assert_eq!(
            wide(set.four.of_four(query, slices)),
            records.iter().map(four).collect::<Vec<_>>(),
            "4 bits, {what}"
        );
    }
}

#[test]
fn every_code_kernel_is_exact() {
    let mut random = Random(15);
    for lines in 0..20 {
        let bytes = lines * LINE;
        let random_query: Vec<i8> = (0..bytes).map(|_| random.next() as i8).collect();
        // As large as sums can become, and one byte off every alignment.
        for query in [random_query, vec![-128; bytes], vec![127; bytes]] {
            let full = |_| vec![255u8; bytes];
            let drawn = |_| (0..bytes + 7).map(|_| random.next() as u8).collect();
            let records = [[0, 1, 2, 3].map(full), [0, 1, 2, 3].map(drawn)];
            for set in available_for_codes() {
                for records in &records {
                    check_code_kernels(set, &query, records);
                }
            }
        }
    }
}

/// Dimensions at most; `code · query` is at most `255 · 128` for each of them.
pub(crate) const DIM_MAX: usize = 65_535;

#[test]
fn code_kernels_do_not_overflow_in_the_most_dimensions() {
    let bytes = DIM_MAX.next_multiple_of(LINE);
    let records = [0, 1, 2, 3].map(|_| vec![255u8; bytes]);
    for number in [-128, 127] {
        let mut query = vec![number; bytes];
        query[DIM_MAX..].fill(0);
        for set in available_for_codes() {
            check_code_kernels(set, &query, &records);
        }
    }
}

/// A hint has no effect that could be seen.
#[test]
fn anything_can_be_asked_for() {
    prefetch::<f32>(&[]);
    prefetch(&[1u8]);
    prefetch_all(&[0.5f32; 1000]);
}

/// `make test-arm` says which loops have to be the best ones there.
#[test]
fn the_best_sets_are_those_that_the_cpu_has() {
    if let Ok(expected) = std::env::var("KERNELS_EXPECTED") {
        assert_eq!(format!("{} {}", best().name, best_for_codes().name), expected);
    }
}

#[test]
#[should_panic(expected = "as long as the query")]
fn code_kernels_refuse_short_records() {
    let query = [0i8; LINE];
    best_for_codes()
        .eight
        .of_four(&query, [&[0; LINE], &[0; LINE], &[0; LINE - 1], &[0; LINE]]);
}

#[test]
#[should_panic(expected = "one length")]
fn kernels_refuse_slices_of_different_lengths() {
    dot(&[1.0, 2.0], &[1.0]);
}

#[test]
fn the_free_functions_use_the_best_set() {
    let (a, b) = ([1.0, 2.0, 3.0], [4.0, -5.0, 6.0]);
    assert_eq!((dot(&a, &b), l2_squared(&a, &b), l1(&a, &b)), (12.0, 67.0, 13.0));
    assert_eq!(best().name, available()[0].name);
    assert_eq!(available().last().map(|set| set.name), Some("portable"));
}

#[test]
fn every_set_of_loops_adds_up_the_same() {
    let mut random = Random(72);
    for dim in [1, 7, 8, 63, 64, 65, 384, 1000] {
        let numbers: Vec<i8> = (0..dim).map(|_| random.next() as i8).collect();
        let query = SignQuery::new(&numbers, true);
        let records: Vec<Vec<u8>> = (0..4)
            .map(|_| (0..query.bytes() + 5).map(|_| random.next() as u8).collect())
            .collect();
        let naive = |record: &[u8]| -> i32 {
            let set = |i: &usize| record[i / 8] >> (i % 8) & 1 == 1;
            (0..dim).filter(set).map(|i| i32::from(numbers[i])).sum()
        };
        let four: [&[u8]; 4] = std::array::from_fn(|i| records[i].as_slice());
        for set in available_for_codes() {
            let query = SignQuery::new(&numbers, set.signs.by_planes);
            assert_eq!(set.signs.of_four(&query, four), four.map(naive), "{} {dim}", set.name);
        }
    }
}

#[test]
fn every_set_of_loops_finds_the_same_place() {
    let mut random = Random(88);
    for length in (0..70).chain([255, 1024]) {
        // Among numbers of both halves of what there is, some of them twice, and a last one that is more than any of them.
        let mut numbers: Vec<u64> = (0..length).map(|_| random.next() >> (length % 3 * 30)).collect();
        for i in (4..numbers.len()).step_by(5) {
            numbers[i] = numbers[i - 4];
        }
        numbers.sort_unstable();
        if length % 2 == 0 && numbers.pop().is_some() {
            numbers.push(u64::MAX);
        }
        let edges = [0, 1, u64::MAX / 2, u64::MAX / 2 + 1, u64::MAX];
        let beside = numbers
            .iter()
            .flat_map(|number| [number.saturating_sub(1), *number, number.saturating_add(1)]);
        for number in beside.chain(edges) {
            let expected = numbers.partition_point(|other| *other < number);
            for set in available_for_codes() {
                let name = format!("{}: {number} among {length}", set.name);
                assert_eq!(set.rank.of(&numbers, number), expected, "{name}");
                let Some(last) = numbers.last() else { continue };
                // The last leaves.
                if number <= *last {
                    let mut changed = numbers.clone();
                    assert_eq!(set.rank.insert(&mut changed, number), expected, "{name}");
                    let mut wanted = numbers.clone();
                    wanted.insert(expected, number);
                    wanted.pop();
                    assert_eq!(changed, wanted, "{name}");
                }
                for at in [0, numbers.len() / 3, numbers.len() / 2, numbers.len() - 1] {
                    let mut wanted = numbers.clone();
                    let old = wanted.remove(at);
                    let place = wanted.partition_point(|other| *other < number);
                    wanted.insert(place, number);
                    let mut changed = numbers.clone();
                    assert_eq!(
                        set.rank.replace(&mut changed, old, number),
                        place,
                        "{name} instead of {old}"
                    );
                    assert_eq!(changed, wanted, "{name} instead of {old}");
                }
            }
        }
    }
}

#[test]
fn every_set_of_loops_estimates_the_same() {
    let mut random = Random(83);
    for dim in [1usize, 4, 7, 8, 9, 64, 384, 2047, 2048, 2049, 5000] {
        let numbers: Vec<f32> = (0..dim).map(|_| random.normal()).collect();
        let mut signs: Vec<u8> = (0..dim.div_ceil(8) * PACK).map(|_| random.next() as u8).collect();
        // Nothing stands behind the last dimension.
        let last = signs.len() - PACK;
        signs[last..]
            .iter_mut()
            .for_each(|eight| *eight &= (255u16 >> (dim.next_multiple_of(8) - dim)) as u8);
        let halves: [[u16; PACK]; 2] =
            std::array::from_fn(|_| std::array::from_fn(|_| (random.normal().to_bits() >> 16) as u16));
        let numbers_of_rows = halves.map(|of| of.map(|half| f32::from_bits(u32::from(half) << 16)));
        let of = |kernel: PackKernel, edge: f32| {
            let mut estimates = [0f32; PACK];
            // With tables of its own making.
            let query = kernel.query(&numbers);
            let nearer = kernel.of(&query, 5.0, edge, [&halves[0], &halves[1]], &signs, &mut estimates);
            (estimates, nearer)
        };
        let sets = available_for_codes();
        let (expected, all) = of(sets.last().unwrap().packs, f32::INFINITY);
        assert_eq!(all, u32::MAX);
        let edge = expected[7];
        let (_, nearer) = of(sets.last().unwrap().packs, edge);
        for (i, estimate) in expected.iter().enumerate() {
            // The same from the numbers themselves.
            let sign = |d: usize| {
                if signs[d / 8 * PACK + i] >> (d % 8) & 1 == 1 {
                    1.0
                } else {
                    -1.0
                }
            };
            let product: f64 = (0..dim).map(|d| sign(d) * f64::from(numbers[d])).sum();
            let [a, f] = [0, 1].map(|which| f64::from(numbers_of_rows[which][i]));
            let wanted = 5.0 + a - f * product;
            // Numbers of 8 bits, and half a step of each table, which may all be wrong the same way at worst.
            let most = 0.005 * (1.0 + a.abs() + (f * product).abs()) + f.abs() * 0.03 * dim as f64;
            let off = (f64::from(*estimate) - wanted).abs();
            assert!(off < most, "{dim} dimensions: {estimate} for {wanted}");
            assert_eq!(nearer >> i & 1 == 1, *estimate < edge);
        }
        for set in sets {
            assert_eq!(
                of(set.packs, edge),
                (expected, nearer),
                "{} in {dim} dimensions",
                set.name
            );
        }
    }
}

#[test]
fn tables_of_numbers_that_are_no_numbers_are_tables() {
    for odd in [f32::NAN, f32::INFINITY, f32::MAX, f32::MIN_POSITIVE, -0.0] {
        let mut estimates = [0f32; PACK];
        let sets = available_for_codes();
        let portable = sets.last().unwrap().packs;
        for set in &sets {
            let numbers = [odd, 1.0, -odd, 0.0, 2.0];
            let query = set.packs.query(&numbers);
            assert_eq!(
                format!("{query:?}"),
                format!("{:?}", portable.query(&numbers)),
                "{}",
                set.name
            );
            set.packs
                .of(&query, 1.0, 0.0, [&[0x3f80; PACK]; 2], &[255; PACK], &mut estimates);
        }
    }
}
