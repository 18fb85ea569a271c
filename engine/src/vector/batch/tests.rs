//! Many questions at once find what each finds alone.

use proptest::prelude::*;

use super::super::tests::{backwards, coarse_rows, never, search};
use super::*;
use crate::vector::Flat;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn each_question_finds_what_it_finds_alone((rows, query, allowed) in coarse_rows(120), k in 0usize..40) {
        let view = rows.view();
        let questions: Vec<&[f32]> = (0..view.len().min(5) as Ordinal)
            .map(|ordinal| view.row(ordinal))
            .chain([query.as_slice()])
            .collect();
        for allow in [Allow::All, Allow::Only(&allowed)] {
            let found = nearest(&view, &questions, k, &allow, &backwards(2), &never).unwrap();
            for (question, found) in questions.iter().zip(found) {
                prop_assert_eq!(found, search(&Flat, &rows, question, k, 0, &allow));
            }
        }
    }
}
