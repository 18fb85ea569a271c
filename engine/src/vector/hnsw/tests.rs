//! Claims about graphs that go on from others; what every graph does is claimed in the parent's tests.

use proptest::prelude::*;

use super::super::tests::{Random, Rows, backwards, coarse_rows, recall, search};
use super::*;
use crate::config::Workers;
use crate::schema::Metric;
use crate::types::Ordinal;
use crate::vector::kernels::Bits;
use crate::vector::{Allow, Flat};

const M: u32 = 8;
const EF_CONSTRUCTION: u32 = 60;

fn fresh(rows: &Rows) -> Vec<u8> {
    build(&rows.view(), M, EF_CONSTRUCTION, 7, &Workers::alone(), &mut |_| true).unwrap()
}

fn extended(rows: &Rows, old: &[u8], places: &[Option<Ordinal>], workers: &Workers) -> Vec<u8> {
    let layout = HnswLayout::parse(old).unwrap();
    let base = Base {
        graph: layout.view(old),
        places,
    };
    let bytes = extend(&rows.view(), Some(base), M, EF_CONSTRUCTION, 8, workers, &mut |_| true).unwrap();
    HnswLayout::parse(&bytes).unwrap();
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn a_graph_that_goes_on_from_another_finds_all_and_is_the_same_whoever_helps(
        (all, query, kept) in coarse_rows(120),
        others_first in any::<bool>(),
    ) {
        // The old graph is of the first two thirds, of which some stay; the rest is new, before or behind.
        let view = all.view();
        let old_rows = view.len() as Ordinal * 2 / 3;
        let is_absent = |ordinal: Ordinal| view.is_absent(ordinal);
        let rows_of = |ordinals: &[Ordinal]| {
            let rows: Vec<Vec<f32>> = ordinals.iter().map(|ordinal| view.row(*ordinal).to_vec()).collect();
            Rows::new(view.metric, view.dim, &rows).without(|place| is_absent(ordinals[place as usize]))
        };
        let old: Vec<Ordinal> = (0..old_rows).collect();
        let stay: Vec<Ordinal> = old.iter().copied().filter(|ordinal| kept.contains(*ordinal)).collect();
        let new: Vec<Ordinal> = (old_rows..view.len() as Ordinal).collect();
        let (together, first) = match others_first {
            true => ([new.clone(), stay.clone()].concat(), new.len()),
            false => ([stay.clone(), new].concat(), 0),
        };
        let mut places = vec![None; old.len()];
        for (place, ordinal) in (first as Ordinal..).zip(&stay) {
            places[*ordinal as usize] = Some(place);
        }
        let (before, after) = (rows_of(&old), rows_of(&together));
        let bytes = extended(&after, &fresh(&before), &places, &Workers::alone());
        prop_assert!(bytes == extended(&after, &fresh(&before), &places, &backwards(3)), "whoever helps");
        let layout = HnswLayout::parse(&bytes).unwrap();
        let found = search(&layout.view(&bytes), &after, &query, 200, 200, &Allow::All);
        prop_assert_eq!(found, search(&Flat, &after, &query, 200, 0, &Allow::All));
    }
}

/// Rows about some centres, and questions like them.
fn clustered(random: &mut Random, centres: &[Vec<f32>], count: usize) -> Vec<Vec<f32>> {
    let row = |_| {
        let centre = &centres[random.below(centres.len())];
        centre.iter().map(|x| x + 0.5 * random.normal()).collect()
    };
    (0..count).map(row).collect()
}

#[test]
fn a_graph_that_went_on_many_times_finds_what_a_new_one_does() {
    const ROWS: usize = 3_000;
    for (metric, bits) in [
        (Metric::Cosine, Some(Bits::Eight)),
        (Metric::Euclid, Some(Bits::Four)),
        (Metric::Dot, None),
    ] {
        let mut random = Random(90);
        let centres: Vec<Vec<f32>> = (0..60).map(|_| random.vector(24)).collect();
        let questions = clustered(&mut random, &centres, 200);
        let made = |rows: &[Vec<f32>]| {
            let made = Rows::new(metric, 24, rows);
            match bits {
                Some(bits) => made.coded(bits),
                None => made,
            }
        };
        let mut rows = clustered(&mut random, &centres, ROWS);
        let mut bytes = fresh(&made(&rows));
        // Each time a third dies and as many come, so that after eight nearly nothing is left of what was first.
        for _ in 0..8 {
            let stays: Vec<bool> = rows.iter().map(|_| random.below(3) > 0).collect();
            let mut next = Vec::new();
            let mut places = Vec::new();
            for (row, stays) in rows.iter().zip(&stays) {
                places.push(stays.then_some(next.len() as Ordinal));
                if *stays {
                    next.push(row.clone());
                }
            }
            next.extend(clustered(&mut random, &centres, ROWS - next.len()));
            bytes = extended(&made(&next), &bytes, &places, &Workers::alone());
            rows = next;
        }
        let rows = made(&rows);
        let found = |bytes: &[u8]| recall(&rows, bytes, &questions, 10, 48, &Allow::All);
        let (went_on, anew) = (found(&bytes), found(&fresh(&rows)));
        assert!(
            went_on >= anew - 0.01,
            "{metric:?} {bits:?}: recall@10 {went_on}, of a new graph {anew}"
        );
    }
}

#[test]
fn a_graph_of_other_vectors_or_of_other_links_is_not_gone_on_with() {
    let mut random = Random(91);
    let some: Vec<Vec<f32>> = (0..50).map(|_| random.vector(4)).collect();
    let rows = Rows::new(Metric::Euclid, 4, &some);
    let bytes = fresh(&rows);
    let layout = HnswLayout::parse(&bytes).unwrap();
    let go_on = |places: &[Option<Ordinal>], m: u32| {
        let graph = layout.view(&bytes);
        let base = Some(Base { graph, places });
        extend(
            &rows.view(),
            base,
            m,
            EF_CONSTRUCTION,
            7,
            &Workers::alone(),
            &mut |_| true,
        )
    };
    let all: Vec<Option<Ordinal>> = (0..50).map(Some).collect();
    for places in [&all[..49], &[all.clone(), vec![Some(50)]].concat()[1..], &[Some(3); 50]] {
        assert!(go_on(places, M).unwrap_err().message.contains("of other vectors"));
    }
    let other = build(&rows.view(), 5, EF_CONSTRUCTION, 7, &Workers::alone(), &mut |_| true).unwrap();
    assert_eq!(go_on(&all, 5).unwrap(), other, "made anew");
}
