//! Codes are used where they tell rows apart, and only there.

use proptest::prelude::*;

use super::super::tests::{Random, Rows, clustered};
use super::*;
use crate::schema::Metric;

fn choose(rows: &Rows, wanted: Bits) -> Coding {
    Coding::choose(&rows.view(), wanted, PROBES, &Workers::alone(), &|| false).unwrap()
}

#[test]
fn clusters_narrower_than_a_step_get_finer_codes_or_none() {
    let mut random = Random(31);
    // Six deviations are cut into 15 or 255 steps.
    let cases = [
        (8, 400, 1.0, Some(Bits::Four), Some(Bits::Eight)),
        (8, 400, 0.2, Some(Bits::Eight), Some(Bits::Eight)),
        (8, 400, 0.005, None, None),
        (40, 75, 1e-3, None, None),
    ];
    // By inner product the nearest are the longest, of whatever cluster.
    for metric in [Metric::Cosine, Metric::Euclid] {
        for (clusters, each, spread, from_four, from_eight) in cases {
            let rows = Rows::new(metric, 48, &clustered(&mut random, 48, clusters, each, spread));
            for (wanted, expected) in [(Bits::Four, from_four), (Bits::Eight, from_eight)] {
                let coding = choose(&rows, wanted);
                assert_eq!(
                    coding.used, expected,
                    "{metric:?}, {clusters} clusters of {each}, spread {spread}: {coding:?}"
                );
                assert_eq!(coding.is_refused(), expected != Some(wanted));
                assert_eq!(coding.tried.first().map(|tried| tried.bits), Some(wanted));
            }
        }
    }
}

#[test]
fn copies_of_a_row_are_no_crowd() {
    let mut random = Random(32);
    let originals: Vec<Vec<f32>> = (0..300).map(|_| random.vector(64)).collect();
    let mut copied = originals.clone();
    copied.extend((0..3000).map(|i| originals[i % 20].clone()));
    let once = choose(&Rows::new(Metric::Euclid, 64, &originals), Bits::Eight);
    assert_eq!(once.used, Some(Bits::Eight), "{once:?}");
    let copied = choose(&Rows::new(Metric::Euclid, 64, &copied), Bits::Eight);
    assert_eq!(copied, once, "what is asked and what is found are the 300");
}

#[test]
fn nothing_to_tell_apart_is_told_apart() {
    for n in 0..3 {
        let rows: Vec<Vec<f32>> = (0..n).map(|i| vec![i as f32, 1.0]).collect();
        for rows in [
            Rows::new(Metric::Euclid, 2, &rows),
            Rows::new(Metric::Euclid, 2, &rows).without(|_| true),
        ] {
            let coding = choose(&rows, Bits::Four);
            assert_eq!(coding.used, Some(Bits::Four));
            assert_eq!(coding.tried[0].recall, 1.0);
        }
    }
}

#[test]
fn the_choice_does_not_depend_on_who_helps_and_can_be_cancelled() {
    let backwards = Workers::new(|shares, work| (0..shares).rev().for_each(work));
    let mut random = Random(33);
    let rows = Rows::new(Metric::Cosine, 16, &clustered(&mut random, 16, 100, 100, 0.3));
    assert!(rows.view().len() > 2 * SHARE_ROWS);
    let alone = choose(&rows, Bits::Four);
    let helped = Coding::choose(&rows.view(), Bits::Four, PROBES, &backwards, &|| false).unwrap();
    assert_eq!(alone, helped);
    let error = Coding::choose(&rows.view(), Bits::Four, PROBES, &backwards, &|| true).unwrap_err();
    assert_eq!((error.kind, error.code), (ErrorKind::Cancelled, "cancelled"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn a_choice_is_read_back_and_any_bytes_are_survived(
        used in prop::option::of(any::<bool>()),
        recalls in prop::collection::vec(0.0f32..=1.0, 0..=2),
        bytes in prop::collection::vec(prop_oneof![0u8..9, any::<u8>()], 0..24),
    ) {
        let bits = |eight: bool| if eight { Bits::Eight } else { Bits::Four };
        let tried = recalls.iter().enumerate().map(|(i, recall)| Tried { bits: bits(i == 1), recall: *recall }).collect();
        let coding = Coding { used: used.map(bits), tried };
        prop_assert_eq!(Coding::parse(&coding.encode()).unwrap(), coding);
        if let Err(error) = Coding::parse(&bytes) {
            prop_assert_eq!(error.kind, ErrorKind::Damaged);
        }
    }
}
