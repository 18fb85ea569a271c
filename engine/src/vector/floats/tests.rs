//! Claims about which numbers are halves, and that being kept as such changes nothing.

use proptest::prelude::*;

use super::super::bitset::BitSet;
use super::super::kernels::Bits;
use super::super::tests::{METRICS, Random, Rows, clustered, never, recall, search};
use super::super::{Allow, Coding, Flat, HnswLayout, VectorIndex, ivf};
use super::*;
use crate::config::Workers;
use crate::schema::Metric;

/// Codes, signs and graphs of the same numbers are the same bytes, and a search gives the same distances, to the bit.
#[test]
fn kept_as_halves_vectors_make_the_same_indexes_and_the_same_answers() {
    let mut random = Random(17);
    let round = |row: Vec<f32>| -> Vec<f32> { row.into_iter().map(|x| f16::from_f32(x).to_f32()).collect() };
    for metric in METRICS {
        let vectors: Vec<Vec<f32>> = clustered(&mut random, 70, 8, 40, 0.3).into_iter().map(round).collect();
        let plain = Rows::new(metric, 70, &vectors).without(|row| row % 50 == 0);
        for bits in [None, Some(Bits::Eight), Some(Bits::Four)] {
            let of = |rows: Rows| match bits {
                Some(bits) => rows.coded(bits),
                None => rows.signed(),
            };
            let (singles, halves) = (of(plain.clone()), of(plain.clone().halved()));
            assert_eq!(singles.coded_bytes(), halves.coded_bytes(), "{metric:?} {bits:?}");
            let (graph, same) = (singles.graph_of(8, 60), halves.graph_of(8, 60));
            assert_eq!(graph, same, "{metric:?} {bits:?}");
            if let Some(bits) = bits
                && metric != Metric::Manhattan
            {
                let chosen = |rows: &Rows| Coding::choose(&rows.view(), bits, 40, &Workers::alone(), &never).unwrap();
                assert_eq!(
                    chosen(&singles).encode(),
                    chosen(&halves).encode(),
                    "{metric:?} {bits:?}"
                );
            }
            let layout = HnswLayout::parse(&graph).unwrap();
            let (singles, halves) = (singles.packed(&graph), halves.packed(&graph));
            assert!(
                singles.packs_bytes() == halves.packs_bytes(),
                "{metric:?} {bits:?}: packs"
            );
            let view = layout.view(&graph);
            for query in &vectors[..20] {
                assert_eq!(
                    search(&view, &singles, query, 10, 30, &Allow::All),
                    search(&view, &halves, query, 10, 30, &Allow::All)
                );
                assert_eq!(
                    search(&Flat, &singles, query, 10, 0, &Allow::All),
                    search(&Flat, &halves, query, 10, 0, &Allow::All)
                );
            }
            let lists = |rows: &Rows| {
                let wanted = ivf::Wanted {
                    lists: Some(8),
                    bits,
                    seed: 1,
                };
                let view = rows.view();
                let lists = ivf::build(&view, wanted, &Workers::alone(), &mut |_| true).unwrap();
                let mut records = Vec::new();
                let mut put = |some: &[u8]| {
                    records.extend_from_slice(some);
                    Ok(())
                };
                lists.records(&Workers::alone(), &never, &mut put).unwrap();
                (lists.index(&Workers::alone(), &never).unwrap(), records)
            };
            assert!(lists(&singles) == lists(&halves), "{metric:?} {bits:?}: lists");
        }
    }
}

#[test]
fn numbers_are_halves_if_eleven_bits_and_a_small_exponent_hold_them() {
    let least = 2f32.powi(-24);
    for number in [
        0.0,
        -0.0,
        1.0,
        -255.0,
        2048.0,
        2050.0,
        65_504.0,
        0.333_251_95,
        least,
        1023.0 * least,
    ] {
        assert!(are_halves(&[1.0, number]), "{number}");
    }
    let none = [2049.0, 65_520.0, 1.0 / 3.0, least / 2.0, 1.5 * least, f32::MIN_POSITIVE];
    for number in none.into_iter().chain([f32::INFINITY, f32::NAN]) {
        assert!(!are_halves(&[1.0, number]), "{number}");
    }
    assert!(are_halves(&[]));
}

#[test]
fn one_number_that_is_no_half_is_found_anywhere() {
    for at in 0..200 {
        let mut numbers = vec![0.5; 200];
        assert!(are_halves(&numbers));
        numbers[at] = 0.1;
        assert!(!are_halves(&numbers), "at {at}");
    }
}

proptest! {
    #[test]
    fn halves_are_given_back_as_they_were(bits in prop::collection::vec(any::<u16>(), 0..300)) {
        let finite: Vec<u16> = bits.into_iter().filter(|half| half >> 10 & 31 < 31).collect();
        let numbers = Floats::Halves(&finite).singles();
        prop_assert!(are_halves(&numbers));
        let mut again = Vec::new();
        to_halves(&numbers, &mut again);
        prop_assert_eq!(again, finite);
    }
}

proptest! {
    #[test]
    fn bits_are_given_back_as_they_were(bits in prop::collection::vec(any::<u8>(), 0..100)) {
        let numbers = Floats::Bits(&bits).singles();
        prop_assert_eq!(numbers.len(), Floats::Bits(&bits).len());
        prop_assert!(not_a_bit(&numbers).is_none());
        let mut again = Vec::new();
        to_bits(&numbers, &mut again);
        prop_assert_eq!(again, bits);
    }
}

#[test]
fn the_first_number_is_the_highest_bit() {
    let mut bits = Vec::new();
    to_bits(&[1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0], &mut bits);
    assert_eq!(bits, [0b1000_0011, 0b0100_0000]);
    assert_eq!(not_a_bit(&[0.0, -0.0, 1.0, 0.5, f32::NAN]), Some(3));
    assert_eq!(not_a_bit(&[f32::NAN]), Some(0));
}

/// Rows around some centres, from each of which some bits were flipped.
fn flipped(random: &mut Random, dim: usize, centres: usize, each: usize) -> Vec<Vec<f32>> {
    let draw = |random: &mut Random| f32::from(random.below(2) as u8);
    let centres: Vec<Vec<f32>> = (0..centres).map(|_| (0..dim).map(|_| draw(random)).collect()).collect();
    let around = |centre: &Vec<f32>, random: &mut Random| -> Vec<f32> {
        let flip = |x: &f32| if random.below(5) == 0 { 1.0 - x } else { *x };
        centre.iter().map(flip).collect()
    };
    let rows = centres.iter().flat_map(|centre| (0..each).map(move |_| centre));
    rows.map(|centre| around(centre, random)).collect()
}

/// A distance is how many differ, whoever finds it; the same graph and lists are made of bits as of the numbers; and they find what is near.
#[test]
fn bits_are_compared_as_the_numbers_they_stand_for() {
    let mut random = Random(22);
    for dim in [8, 24, 128, 264, 1024] {
        let vectors = flipped(&mut random, dim, 12, 130);
        let (vectors, queries) = vectors.split_at(1500);
        let numbers = Rows::new(Metric::Hamming, dim, vectors).without(|row| row % 50 == 7);
        let bits = numbers.clone().in_bits();
        for query in queries {
            let naive = |row: &Vec<f32>| query.iter().zip(row).filter(|(x, y)| x != y).count() as f32;
            let mut expected: Vec<(f32, u32)> = vectors.iter().map(naive).zip(0..).collect();
            expected.retain(|(_, row)| row % 50 != 7);
            expected.sort_by(|x, y| x.partial_cmp(y).unwrap());
            expected.truncate(20);
            for rows in [&numbers, &bits] {
                let hits = search(&Flat, rows, query, 20, 0, &Allow::All);
                let hits: Vec<(f32, u32)> = hits.iter().map(|hit| (hit.distance, hit.ordinal)).collect();
                assert_eq!(hits, expected, "{dim} dimensions");
            }
        }
        // Codes, signs and packs say nothing of so few bits.
        assert!(bits.clone().coded(Bits::Eight).signed().coded_bytes() == [None, None]);
        let graph = bits.graph_of(16, 100);
        assert!(graph == numbers.graph_of(16, 100), "{dim} dimensions: graphs");
        let tenth = BitSet::from_iter(1500, (0..1500).filter(|row| row % 10 == 3));
        for allow in [Allow::All, Allow::Only(&tenth)] {
            let found = recall(&bits, &graph, queries, 10, 100, &allow);
            assert!(found >= 0.98, "{dim} dimensions, {allow:?}: {found}");
        }
        let wanted = ivf::Wanted {
            lists: Some(12),
            bits: None,
            seed: 1,
        };
        let lists = |rows: &Rows| {
            let view = rows.view();
            let lists = ivf::build(&view, wanted, &Workers::alone(), &mut |_| true).unwrap();
            lists.index(&Workers::alone(), &never).unwrap()
        };
        let bytes = lists(&bits);
        assert!(bytes == lists(&numbers), "{dim} dimensions: lists");
        let layout = ivf::IvfLayout::parse(&bytes).unwrap();
        assert!(layout.fits(Metric::Hamming, dim, 1500) && layout.bits().is_none());
        let (mut right, mut all) = (0, 0);
        for query in queries {
            let exact = search(&Flat, &bits, query, 10, 0, &Allow::All);
            let hits = search(&layout.view(&bytes, &[], &[], None), &bits, query, 10, 0, &Allow::All);
            let edge = exact.last().map_or(f32::MIN, |hit| hit.distance);
            right += hits.iter().filter(|hit| hit.distance <= edge).count();
            all += exact.len();
        }
        assert!(
            f64::from(right as u32) >= 0.95 * f64::from(all as u32),
            "{dim} dimensions: lists find {right} of {all}"
        );
    }
}

#[test]
fn bits_of_another_metric_or_of_part_of_a_byte_are_damage() {
    for (metric, dim, rows) in [(Metric::Euclid, 8, 1), (Metric::Hamming, 12, 2)] {
        let row = vec![1.0; dim];
        let rows = Rows::new(metric, dim, &vec![row.clone(); rows]).in_bits();
        let error = Flat.search(&rows.view(), &row, 1, 0, &Allow::All, &never).unwrap_err();
        assert!(error.message.contains("kept as bits"), "{error}");
    }
}
