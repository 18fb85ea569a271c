//! Lists give back what was put in, any bytes are survived, and the best rows are those that scoring everything gives.

use proptest::prelude::*;

use super::list::{List, ListBuilder, WINDOW};
use super::top::{Term, Top, Walk, Wanted, Weigher, search};
use super::varint;
use crate::error::Result;
use crate::types::Ordinal;

fn list_of(rows: &[(Ordinal, u8)]) -> Vec<u8> {
    let (mut builder, mut bytes) = (ListBuilder::default(), Vec::new());
    rows.iter().for_each(|(ordinal, level)| builder.push(*ordinal, *level));
    builder.finish(&mut bytes);
    bytes
}

fn read(bytes: &[u8], rows: u32) -> Result<Vec<(Ordinal, u8)>> {
    Ok(List::at(bytes, rows)?.blocks()?.iter().collect())
}

#[test]
fn a_list_is_its_documented_bytes() {
    // One row alone, then a window of two, then a window skipped.
    let rows = [(3, 7), (256, 9), (257, 4), (800, 1)];
    let bytes = list_of(&rows);
    assert_eq!(bytes, [4, 1, 7, 0, 9, 1, 5, 1, 3, 0, 1, 9, 4, 32]);
    // Levels that are alike are said once.
    let alike = [(0, 5), (1, 5), (300, 5)];
    assert_eq!(list_of(&alike), [3, 2, 5, 1, 1, 5, 0, 1, 44]);
    assert_eq!(read(&list_of(&alike), 301).unwrap(), alike);
    assert!(read(&[1, 3, 5, 0], 301).is_err(), "a kind that is none");
    assert_eq!(read(&bytes, 801).unwrap(), rows, "and they are read back");
    assert!(List::at(&[0], 10).is_err(), "a list of nothing");
    assert!(List::at(&bytes, 3).is_err(), "more rows than the segment has");
    assert!(read(&bytes, 768).is_err(), "a window beyond the segment");
    assert!(read(&bytes[..13], 801).is_err(), "cut off");
}

#[test]
fn a_finished_builder_begins_anew() {
    let (mut builder, mut bytes) = (ListBuilder::default(), Vec::new());
    for _ in 0..2 {
        builder.push(100, 1);
        builder.finish(&mut bytes);
    }
    let (first, second) = bytes.split_at(bytes.len() / 2);
    assert_eq!(first, second);
}

/// Level times a weight that may be negative.
struct Times(f64);

impl Weigher for Times {
    fn bound(&self, _: u32, max: u8) -> f64 {
        self.0 * f64::from(if self.0 < 0.0 { 0 } else { max })
    }
    fn add(&self, _: u32, lows: &[u8], levels: &[u8], scores: &mut [f64; WINDOW]) {
        for (low, level) in lows.iter().zip(levels) {
            scores[usize::from(*low)] += self.0 * f64::from(*level);
        }
    }
}

fn best(
    rows: u32,
    lists: &[(f64, Vec<u8>)],
    k: usize,
    floor: f32,
    allowed: &dyn Fn(Ordinal) -> bool,
    ids: &[String],
    walk: Walk,
) -> Result<Top> {
    let read: Vec<_> = lists
        .iter()
        .map(|(_, bytes)| List::at(bytes, rows)?.blocks())
        .collect::<Result<_>>()?;
    let terms = lists
        .iter()
        .zip(&read)
        .map(|((weight, _), list)| Term::new(list, Times(*weight)))
        .collect();
    let wanted = Wanted {
        k,
        floor,
        error: 1e-3,
        walk,
        allow: &|n| (0..64).fold(0, |word, bit| word | u64::from(allowed(n * 64 + bit)) << bit),
        finish: &|_, sum| Ok(Some(sum as f32)),
        id_of: &|ordinal| ids[ordinal as usize].as_str(),
        stop: &|| false,
    };
    search(rows, terms, &wanted)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn what_is_written_is_read(levels in proptest::collection::btree_map(0u32..2_000, any::<u8>(), 1..300)) {
        let rows: Vec<_> = levels.into_iter().collect();
        let bytes = list_of(&rows);
        prop_assert_eq!(read(&bytes, 2_000).unwrap(), rows.clone());
        let list = List::at(&bytes, 2_000).unwrap().blocks().unwrap();
        prop_assert!(list.after.is_empty());
        let levels: std::collections::BTreeMap<_, _> = rows.into_iter().collect();
        for ordinal in 0..2_000 {
            prop_assert_eq!(list.level_of(ordinal), levels.get(&ordinal).copied());
        }
    }

    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..80), rows in 0u32..1_000) {
        if let Ok(found) = read(&bytes, rows) {
            prop_assert!(!found.is_empty());
        }
        let ids: Vec<String> = (0..rows).map(|i| i.to_string()).collect();
        let _ = best(rows, &[(1.0, bytes)], 5, f32::NEG_INFINITY, &|_| true, &ids, Walk::Pruned);
    }

    #[test]
    fn numbers_are_read_back(value in 0u64..1 << 35) {
        let mut bytes = Vec::new();
        varint::put(&mut bytes, value);
        let mut rest = &bytes[..];
        prop_assert_eq!(varint::take(&mut rest), Some(value));
        prop_assert!(rest.is_empty());
    }

    /// With few distinct scores, so that ties at the edge are common.
    #[test]
    fn the_best_are_those_of_scoring_everything(
        lists in proptest::collection::vec(
            (-3i8..4, proptest::collection::btree_map(0u32..1_500, 0u8..5, 1..400)), 1..8),
        k in 1usize..40,
        modulus in 1u32..9,
        floor in proptest::option::of(-3i8..20),
        shuffle in any::<u32>(),
    ) {
        let rows = 1_500;
        let ids: Vec<String> = (0..rows).map(|i| (i ^ shuffle).reverse_bits().to_string()).collect();
        let allowed = |o: Ordinal| o.is_multiple_of(modulus);
        let mut sums: std::collections::BTreeMap<Ordinal, f64> = Default::default();
        for (weight, levels) in &lists {
            for (ordinal, level) in levels {
                *sums.entry(*ordinal).or_default() += f64::from(*weight) * f64::from(*level);
            }
        }
        let mut expected: Vec<(f32, Ordinal)> = sums.into_iter().filter(|(o, _)| allowed(*o)).map(|(o, s)| (s as f32, o)).collect();
        expected.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| ids[a.1 as usize].cmp(&ids[b.1 as usize])));
        expected.truncate(k);
        let floor = floor.map_or(f32::NEG_INFINITY, f32::from);
        expected.retain(|(score, _)| *score >= floor);
        let bytes: Vec<(f64, Vec<u8>)> = lists
            .iter()
            .map(|(weight, levels)| (f64::from(*weight), list_of(&levels.iter().map(|(o, l)| (*o, *l)).collect::<Vec<_>>())))
            .collect();
        let mut evaluated = Vec::new();
        for walk in [Walk::Pruned, Walk::All] {
            let top = best(rows, &bytes, k, floor, &allowed, &ids, walk).unwrap();
            // 0 and -0 are one score.
            let hits: Vec<(f32, Ordinal)> = top.hits.iter().map(|(s, o)| (s + 0.0, *o)).collect();
            prop_assert_eq!(hits, expected.iter().map(|(s, o)| (s + 0.0, *o)).collect::<Vec<_>>());
            evaluated.push(top.evaluated);
        }
        prop_assert!(evaluated[0] <= evaluated[1]);
    }
}

/// One row is far better than all others: most of the postings are never read.
#[test]
fn a_clear_best_leaves_most_postings_unread() {
    let rows = 20_000;
    let ids: Vec<String> = (0..rows).map(|i| i.to_string()).collect();
    let everywhere: Vec<(Ordinal, u8)> = (0..rows).map(|o| (o, if o == 12_345 { 200 } else { 3 })).collect();
    let lists: Vec<(f64, Vec<u8>)> = (0..4).map(|_| (1.0, list_of(&everywhere))).collect();
    let top = best(rows, &lists, 1, f32::NEG_INFINITY, &|_| true, &ids, Walk::Pruned).unwrap();
    assert_eq!(top.hits, [(800.0, 12_345)]);
    assert!(top.evaluated <= 4 * 256, "{} postings", top.evaluated);
}

#[test]
fn a_passed_deadline_is_an_error() {
    let bytes = list_of(&[(0, 1)]);
    let list = List::at(&bytes, 1).unwrap().blocks().unwrap();
    let terms = vec![Term::new(&list, Times(1.0))];
    let wanted = Wanted {
        k: 1,
        floor: f32::NEG_INFINITY,
        error: 0.0,
        walk: Walk::Pruned,
        allow: &|_| u64::MAX,
        finish: &|_, sum| Ok(Some(sum as f32)),
        id_of: &|_| "a",
        stop: &|| true,
    };
    assert_eq!(search(1, terms, &wanted).unwrap_err().code, "deadline_exceeded");
}
