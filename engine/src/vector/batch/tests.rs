//! Many questions at once find what each finds alone.

use std::borrow::Cow;
use std::cell::Cell;

use proptest::prelude::*;

use super::super::tests::{Rows, backwards, coarse_rows, never, search};
use super::*;
use crate::schema::Metric;
use crate::vector::Flat;
use crate::vector::kernels::Bits;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn each_question_finds_what_it_finds_alone((rows, query, allowed) in coarse_rows(120), k in 0usize..40) {
        let view = rows.view();
        let questions: Vec<Cow<'_, [f32]>> = (0..view.len().min(5) as Ordinal)
            .map(|ordinal| view.row(ordinal))
            .chain([Cow::from(&query)])
            .collect();
        for allow in [Allow::All, Allow::Only(&allowed)] {
            let found = nearest(&view, &questions, k, &allow, &backwards(2), &never).unwrap();
            for (question, found) in questions.iter().zip(found) {
                prop_assert_eq!(found, search(&Flat, &rows, question, k, 0, &allow));
            }
        }
    }

    #[test]
    fn questions_of_their_own_numbers_of_hits_find_what_they_find_alone(
        (rows, query, allowed) in coarse_rows(300),
        ks in proptest::collection::vec(0usize..40, 1..6),
        coded in any::<bool>(),
    ) {
        let rows = if coded { rows.coded(Bits::Eight) } else { rows };
        let view = rows.view();
        let vectors: Vec<Vec<f32>> = (0..ks.len()).map(|i| query.iter().map(|x| x + i as f32 / 3.0).collect()).collect();
        let questions: Vec<Question<'_>> =
            vectors.iter().zip(&ks).map(|(vector, k)| Question { vector, k: *k }).collect();
        let each = || allowed.iter();
        // In another order than places.
        let ids: Vec<String> = (0..view.len()).map(|ordinal| format!("{:03}", ordinal * 37 % 301)).collect();
        let id_of = |ordinal: Ordinal| ids[ordinal as usize].as_str();
        let exactly = scan_by_id(&view, &questions, each(), &id_of, &never).unwrap();
        let by_code = scan_codes(&view, &questions, each, &never).unwrap();
        for ((question, exactly), by_code) in questions.iter().zip(exactly).zip(by_code) {
            let alone = flat::scan_by_id(&view, question.vector, each(), question.k, &id_of, &never).unwrap();
            prop_assert_eq!(&exactly.hits, &alone.hits);
            // No row is looked at twice, however many are equally far.
            prop_assert!(question.k == 0 || exactly.evaluated == alone.evaluated);
            prop_assert!(alone.evaluated <= allowed.count() as u64);
            let mut sorted = flat::scan(&view, question.vector, each(), view.len(), &never).unwrap().hits;
            sorted.sort_by(|a, b| a.distance.total_cmp(&b.distance).then_with(|| id_of(a.ordinal).cmp(id_of(b.ordinal))));
            sorted.truncate(question.k);
            sorted.sort_unstable();
            prop_assert_eq!(&exactly.hits, &sorted);
            prop_assert_eq!(&by_code.hits, &flat::scan_codes(&view, question.vector, each, question.k, &never).unwrap().hits);
        }
    }
}

/// Nor is it among the nearest if there are others.
#[test]
fn what_is_no_number_ties_with_nothing() {
    let rows = [f32::NAN, 1.0, 0.5, 1.0, f32::NAN, 1.0].map(|x| vec![x, 0.0]);
    let rows = Rows::new(Metric::Euclid, 2, &rows);
    let ids = ["a", "f", "e", "c", "b", "d"];
    let id_of = |ordinal: Ordinal| ids[ordinal as usize];
    for (k, expected) in [(1, vec![2]), (2, vec![2, 3]), (3, vec![2, 3, 5]), (4, vec![2, 1, 3, 5])] {
        let found = flat::scan_by_id(&rows.view(), &[0.0, 0.0], 0..6, k, &id_of, &never).unwrap();
        let hits: Vec<Ordinal> = found.hits.iter().map(|hit| hit.ordinal).collect();
        assert_eq!(hits, expected, "{k}");
    }
}

#[test]
fn a_scan_for_many_ends_when_it_is_told_to() {
    let rows: Vec<Vec<f32>> = (0..2_000).map(|i| vec![i as f32, 1.0]).collect();
    let rows = Rows::new(Metric::Euclid, 2, &rows);
    let vector = [7.0, 1.0];
    let question = Question { vector: &vector, k: 3 };
    let asked = Cell::new(0);
    let late = || asked.replace(asked.get() + 1) >= 2;
    let error = scan_by_id(&rows.view(), &[question; 2], 0..2_000, &|_| "", &late).unwrap_err();
    assert_eq!((error.kind, error.code), (ErrorKind::Deadline, "deadline_exceeded"));
}
