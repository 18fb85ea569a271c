//! The index gives back what was put in, merges to the same bytes, and survives any bytes.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;
use crate::error::ErrorKind;

/// Rows of a segment: `None` lacks the field, otherwise its terms as small numbers.
type Rows = Vec<Option<Vec<u8>>>;

fn any_rows(max: usize) -> impl Strategy<Value = Rows> {
    vec(option::weighted(0.8, vec(0_u8..12, 0..20)), 0..max)
}

fn term(number: u8) -> String {
    format!("t{}", u32::from(number).pow(3))
}

fn build(rows: &Rows) -> Vec<u8> {
    let mut builder = TextIndexBuilder::new();
    for (ordinal, row) in rows.iter().enumerate() {
        if let Some(row) = row {
            builder.add(ordinal as Ordinal, |sink| {
                row.iter().for_each(|&number| sink(&term(number)))
            });
        }
    }
    builder.finish(rows.len() as u32)
}

fn view(bytes: &[u8]) -> TextIndexView<'_> {
    TextIndexLayout::parse(bytes).unwrap().view(bytes)
}

type Lists = BTreeMap<String, Vec<(Ordinal, u32)>>;

fn lists_of(view: &TextIndexView<'_>) -> Result<Lists> {
    let mut lists = Lists::new();
    view.visit_terms(&mut |term, postings| {
        lists.insert(term.to_owned(), postings.iter().collect::<Result<_>>()?);
        Ok(())
    })?;
    Ok(lists)
}

fn lists_expected(rows: &Rows) -> Lists {
    let mut lists: BTreeMap<String, BTreeMap<Ordinal, u32>> = BTreeMap::new();
    for (ordinal, row) in rows.iter().enumerate() {
        for &number in row.iter().flatten() {
            *lists
                .entry(term(number))
                .or_default()
                .entry(ordinal as Ordinal)
                .or_default() += 1;
        }
    }
    lists
        .into_iter()
        .map(|(term, list)| (term, list.into_iter().collect()))
        .collect()
}

#[test]
fn an_index_of_nothing_answers() {
    for rows in [0, 3] {
        let bytes = TextIndexBuilder::new().finish(rows);
        let view = view(&bytes);
        assert_eq!(
            (view.rows(), view.docs(), view.total_len(), view.len_of(0)),
            (rows, 0, 0, None)
        );
        assert!(view.postings("x").unwrap().is_none());
        assert!(view.postings("").unwrap().is_none());
    }
}

#[test]
fn far_rows_and_many_repetitions_are_kept() {
    let mut builder = TextIndexBuilder::new();
    builder.add(5, |sink| (0..100_000).for_each(|_| sink("much")));
    builder.add(6, |sink| (0..255).for_each(|_| sink("much")));
    builder.add(7, |sink| (0..254).for_each(|_| sink("much")));
    builder.add(3_000_000, |sink| sink("much"));
    let bytes = builder.finish(3_000_001);
    let postings = view(&bytes).postings("much").unwrap().unwrap();
    assert_eq!(postings.df(), 4);
    let expected = [(5, 100_000), (6, 255), (7, 254), (3_000_000, 1)];
    assert_eq!(postings.iter().collect::<Result<Vec<_>>>().unwrap(), expected);
    for (ordinal, tf) in expected {
        assert_eq!(postings.tf_of(ordinal).unwrap(), tf);
    }
    assert_eq!(postings.tf_of(8).unwrap(), 0);
    assert!(postings.is_exceeded());
}

/// Going through the whole list for each row would take a minute.
#[test]
fn a_word_that_many_rows_repeat_very_often_is_not_looked_for_again_and_again() {
    const ROWS: u32 = 60_000;
    let mut builder = TextIndexBuilder::new();
    for ordinal in 0..ROWS {
        builder.add(ordinal, |sink| (0..255 + ordinal % 7).for_each(|_| sink("spam")));
    }
    let bytes = builder.finish(ROWS);
    let postings = view(&bytes).postings("spam").unwrap().unwrap();
    let started = std::time::Instant::now();
    for ordinal in 0..ROWS {
        assert_eq!(postings.tf_of(ordinal).unwrap(), 255 + ordinal % 7);
    }
    let took = started.elapsed();
    assert!(took.as_secs() < 20, "{took:?}");
}

#[test]
#[should_panic(expected = "ascending")]
fn rows_out_of_order_are_a_bug() {
    let mut builder = TextIndexBuilder::new();
    builder.add(1, |_| ());
    builder.add(1, |_| ());
}

#[test]
fn a_merge_that_shuffles_rows_is_refused() {
    let bytes = build(&vec![Some(vec![1]), Some(vec![2])]);
    let index = view(&bytes);
    let backwards = |old: Ordinal| Some(1 - old);
    assert_eq!(merge(&[(index, &backwards)], 2).unwrap_err().kind, ErrorKind::Internal);
    let beyond = |old: Ordinal| Some(old + 1);
    assert_eq!(merge(&[(index, &beyond)], 2).unwrap_err().kind, ErrorKind::Internal);
}

#[test]
fn changed_header_lengths_or_dictionary_are_noticed() {
    let bytes = build(&vec![Some(vec![1, 2, 3]), None, Some(vec![3, 3])]);
    let layout = TextIndexLayout::parse(&bytes).unwrap();
    for at in 0..layout.postings_start {
        for bit in 0..8 {
            let mut changed = bytes.clone();
            changed[at] ^= 1 << bit;
            let error = TextIndexLayout::parse(&changed).expect_err("a changed bit was not noticed");
            assert_eq!(error.kind, ErrorKind::Damaged, "byte {at} bit {bit}");
        }
    }
    for len in 0..bytes.len() {
        assert_eq!(
            TextIndexLayout::parse(&bytes[..len]).unwrap_err().kind,
            ErrorKind::Damaged
        );
    }
}

#[test]
fn impossible_postings_are_damage() {
    let rows = vec![Some(vec![1, 1]), Some(vec![1])];
    let bytes = build(&rows);
    let start = TextIndexLayout::parse(&bytes).unwrap().postings_start;
    // The one list: df 2 | window 0, several | most 2 | two rows | rows 0 and 1 | twice and once.
    assert_eq!(bytes[start..], [2, 0, 2, 1, 0, 1, 2, 1]);
    let cases: [(&str, [u8; 8]); 8] = [
        ("no postings", [0, 0, 2, 1, 0, 1, 2, 1]),
        ("more postings than documents", [3, 0, 2, 2, 0, 1, 2, 1]),
        ("more rows in a window than postings", [1, 0, 2, 1, 0, 1, 2, 1]),
        ("a window beyond the segment", [2, 4, 2, 1, 0, 1, 2, 1]),
        ("a row beyond the segment", [2, 0, 2, 1, 0, 2, 2, 1]),
        ("rows out of order", [2, 0, 2, 1, 1, 0, 2, 1]),
        ("tf 0", [2, 0, 2, 1, 0, 1, 0, 1]),
        ("a frequency that is left out", [2, 0, 255, 1, 0, 1, 2, 255]),
    ];
    for (what, list) in cases {
        let mut changed = bytes.clone();
        changed[start..].copy_from_slice(&list);
        let error = lists_of(&view(&changed)).expect_err(what);
        assert_eq!(error.kind, ErrorKind::Damaged, "{what}");
        let all = |old| Some(old);
        assert_eq!(
            merge(&[(view(&changed), &all)], 2).expect_err(what).kind,
            ErrorKind::Damaged,
            "{what}"
        );
    }
}

proptest! {
    #[test]
    fn what_goes_in_comes_out(rows in any_rows(40)) {
        let bytes = build(&rows);
        let view = view(&bytes);
        prop_assert_eq!(view.rows() as usize, rows.len());
        prop_assert_eq!(view.docs() as usize, rows.iter().flatten().count());
        prop_assert_eq!(view.total_len() as usize, rows.iter().flatten().map(Vec::len).sum::<usize>());
        for (ordinal, row) in rows.iter().enumerate() {
            prop_assert_eq!(view.len_of(ordinal as Ordinal), row.as_ref().map(|row| row.len() as u32));
        }
        prop_assert_eq!(view.len_of(rows.len() as Ordinal), None);
        prop_assert_eq!(view.len_of(Ordinal::MAX), None);
        let expected = lists_expected(&rows);
        prop_assert_eq!(&lists_of(&view).unwrap(), &expected);
        for number in 0..12 {
            let list = view.postings(&term(number)).unwrap();
            prop_assert_eq!(list.as_ref().map_or(0, Postings::df) as usize, expected.get(&term(number)).map_or(0, Vec::len));
            let list = list.map(|list| list.iter().collect::<Result<Vec<_>>>().unwrap());
            prop_assert_eq!(list.as_ref(), expected.get(&term(number)));
        }
    }

    #[test]
    fn merged_parts_are_the_whole_byte_for_byte(
        parts in vec(vec((option::weighted(0.8, vec(0_u8..12, 0..20)), any::<bool>()), 0..15), 0..5),
    ) {
        let kept: Rows = parts.iter().flatten().filter(|(_, keep)| *keep).map(|(row, _)| row.clone()).collect();
        let indexes: Vec<Vec<u8>> =
            parts.iter().map(|part| build(&part.iter().map(|(row, _)| row.clone()).collect())).collect();
        let mut next = 0;
        let tables: Vec<Vec<Option<Ordinal>>> = parts
            .iter()
            .map(|part| part.iter().map(|(_, keep)| keep.then(|| { next += 1; next - 1 })).collect())
            .collect();
        let remaps: Vec<_> = tables.iter().map(|table| |old: Ordinal| table[old as usize]).collect();
        let inputs: Vec<MergeInput<'_>> =
            indexes.iter().zip(&remaps).map(|(bytes, remap)| (view(bytes), remap as _)).collect();
        prop_assert_eq!(merge(&inputs, kept.len() as u32).unwrap(), build(&kept));
    }

    #[test]
    fn any_change_is_survived(
        rows in any_rows(20),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        only_postings in any::<bool>(),
    ) {
        let mut bytes = build(&rows);
        let from = if only_postings { TextIndexLayout::parse(&bytes).unwrap().postings_start } else { 0 };
        prop_assume!(from < bytes.len());
        for (at, value) in changes {
            let at = from + at.index(bytes.len() - from);
            bytes[at] = value;
        }
        survives(&bytes)?;
    }

    #[test]
    fn any_bytes_are_survived(mut bytes in vec(any::<u8>(), 0..200), disguised in any::<bool>()) {
        if disguised && bytes.len() >= HEADER_BYTES {
            bytes[..4].copy_from_slice(&MAGIC);
            bytes[4..HEADER_BYTES].fill(0);
            let rest = bytes.len() - HEADER_BYTES;
            bytes[24] = rest as u8;
        }
        survives(&bytes)?;
    }
}

/// Reads everything there is: an answer or `Damaged`, nothing else.
fn survives(bytes: &[u8]) -> Result<(), TestCaseError> {
    let read = || -> Result<()> {
        let view = TextIndexLayout::parse(bytes)?.view(bytes);
        lists_of(&view)?;
        let all = |old| Some(old);
        merge(&[(view, &all)], view.rows())?;
        Ok(())
    };
    if let Err(error) = read() {
        prop_assert_eq!(error.kind, ErrorKind::Damaged);
    }
    Ok(())
}
