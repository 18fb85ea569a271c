//! Claims about which numbers are halves, and that being kept as such changes nothing.

use proptest::prelude::*;

use super::super::kernels::Bits;
use super::super::tests::{METRICS, Random, Rows, clustered, never, search};
use super::super::{Allow, Coding, Flat, HnswLayout, ivf};
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
