//! What a calibration says of a graph is what searches of it find.

use proptest::prelude::*;

use super::super::tests::{Random, Rows, backwards, near, never, search};
use super::*;
use crate::schema::Metric;
use crate::vector::kernels::Bits;
use crate::vector::{Flat, HnswLayout, hnsw};

fn graph(rows: &Rows) -> Vec<u8> {
    hnsw::build(&rows.view(), 16, 100, 4711, &Workers::alone(), &mut |_| true).unwrap()
}

fn measure(rows: &Rows, graph: &[u8], workers: &Workers) -> Option<Calibration> {
    let layout = HnswLayout::parse(graph).unwrap();
    let questions = Questions::draw(&rows.view(), workers, &never).unwrap()?;
    Some(Calibration::measure(&questions, &rows.view(), &layout.view(graph), workers, &never).unwrap())
}

fn recall_of(rows: &Rows, graph: &[u8], queries: &[Vec<f32>], k: usize, ef: usize) -> f64 {
    let layout = HnswLayout::parse(graph).unwrap();
    let (mut found, mut wanted) = (0, 0);
    for query in queries {
        let exact = search(&Flat, rows, query, k, 0, &Allow::All);
        let edge = exact.last().map_or(f32::MIN, |hit| hit.distance);
        let hits = search(&layout.view(graph), rows, query, k, ef, &Allow::All);
        found += hits.iter().filter(|hit| hit.distance <= edge).count();
        wanted += exact.len();
    }
    found as f64 / wanted as f64
}

/// Held-out rows as questions, of data of several kinds.
#[test]
fn a_search_finds_as_much_as_was_asked_for() {
    let mut random = Random(41);
    let scattered: Vec<Vec<f32>> = (0..6_000).map(|_| random.vector(24)).collect();
    let centres: Vec<Vec<f32>> = (0..60).map(|_| random.vector(32)).collect();
    let topics: Vec<Vec<f32>> = (0..6_000).map(|i| near(&mut random, &centres[i % 60], 0.4)).collect();
    for (what, all) in [("scattered", scattered), ("topics", topics)] {
        let (queries, rows) = all.split_at(300);
        for metric in [Metric::Cosine, Metric::Euclid, Metric::Manhattan] {
            let rows = Rows::new(metric, rows[0].len(), rows).quantized(Bits::Eight);
            let graph = graph(&rows);
            let calibration = measure(&rows, &graph, &Workers::alone()).unwrap();
            for (k, target) in [(10, 0.9), (10, 0.95), (10, 0.99), (30, 0.95), (100, 0.95)] {
                let ef = calibration.ef(target, k);
                let found = recall_of(&rows, &graph, queries, k, ef);
                assert!(
                    found >= f64::from(target) - 0.01,
                    "{what}, {metric:?}: recall@{k} {found} at ef {ef} for {target}: {calibration:?}"
                );
            }
        }
    }
}

/// Walks that keep little are done once more where codes do not tell, and then find more than those that keep a little more: were that
/// measured, it would look as if more effort found no more.
#[test]
fn more_effort_finds_more_though_less_may_be_made_twice() {
    let mut random = Random(43);
    for (clusters, spread) in [(3, 0.4), (12, 0.5), (6, 0.3)] {
        let centres: Vec<Vec<f32>> = (0..clusters).map(|_| random.vector(96)).collect();
        let crowds: Vec<Vec<f32>> = (0..6_000)
            .map(|i| near(&mut random, &centres[i % clusters], spread))
            .collect();
        let rows = Rows::new(Metric::Euclid, 96, &crowds).quantized(Bits::Eight);
        let calibration = measure(&rows, &graph(&rows), &Workers::alone()).unwrap();
        let steps = &calibration.curves[0].steps;
        assert!(
            steps[..4].is_sorted_by(|less, more| less.recall + 0.01 < more.recall),
            "{clusters} clusters: {steps:?}"
        );
    }
}

#[test]
fn a_row_that_is_hidden_is_neither_found_nor_walked_through() {
    let mut random = Random(42);
    // Scattered: what is hidden is nobody's only way.
    let scattered: Vec<Vec<f32>> = (0..1_000).map(|_| random.vector(12)).collect();
    let rows = Rows::new(Metric::Euclid, 12, &scattered).quantized(Bits::Eight);
    let bytes = graph(&rows);
    let layout = HnswLayout::parse(&bytes).unwrap();
    let vectors = rows.view();
    for row in (0..vectors.len() as Ordinal).step_by(37) {
        let effort = Effort::beyond(10, vectors.len(), true);
        let found = layout.view(&bytes).distances_without(row, &vectors, effort).unwrap();
        let others = BitSet::from_iter(
            vectors.len(),
            (0..vectors.len() as Ordinal).filter(|other| *other != row),
        );
        let exact = search(&Flat, &rows, &vectors.row(row), 10, 0, &Allow::Only(&others));
        let exact: Vec<f32> = exact.into_iter().map(|hit| hit.distance).collect();
        assert_eq!(found[..10], exact, "without row {row}");
    }
}

#[test]
fn the_same_is_measured_by_any_number_of_threads_and_nothing_of_few_rows() {
    let mut random = Random(43);
    let rows: Vec<Vec<f32>> = (0..ROWS_MIN + 100).map(|_| random.vector(8)).collect();
    let few = Rows::new(Metric::Cosine, 8, &rows[..ROWS_MIN - 1]);
    assert_eq!(measure(&few, &graph(&few), &Workers::alone()), None);
    let twins = vec![rows[0].clone(); ROWS_MIN * 2];
    let twins = Rows::new(Metric::Cosine, 8, &twins);
    assert_eq!(measure(&twins, &graph(&twins), &Workers::alone()), None, "one node");
    let rows = Rows::new(Metric::Cosine, 8, &rows);
    let graph = graph(&rows);
    let alone = measure(&rows, &graph, &Workers::alone()).unwrap();
    assert_eq!(measure(&rows, &graph, &backwards(3)).as_ref(), Some(&alone));
    assert_eq!(Calibration::parse(&alone.encode()).unwrap(), alone);
    let layout = HnswLayout::parse(&graph).unwrap();
    let (view, alone) = (rows.view(), Workers::alone());
    assert_eq!(
        Questions::draw(&view, &alone, &|| true).err().unwrap().code,
        "cancelled"
    );
    let questions = Questions::draw(&view, &alone, &never).unwrap().unwrap();
    let stopped = Calibration::measure(&questions, &view, &layout.view(&graph), &alone, &|| true);
    assert_eq!(stopped.unwrap_err().code, "cancelled");
}

#[test]
fn the_less_is_missed_the_fewer_are_asked() {
    for (all, hits, ef, some) in [
        (1024, 10, 14, 1024),
        (1024, 10, 128, 1024),
        (1024, 10, 256, 512),
        (1024, 10, 2048, 256),
        (1024, 100, 104, 512),
        (1024, 100, 2048, 128),
        (100, 10, 2048, 100),
        (100, 100, 104, 50),
    ] {
        assert_eq!(asked(all, hits, ef), some, "{all} for {hits} at {ef}");
    }
}

fn of(curves: &[(u32, &[(u32, f32)])]) -> Calibration {
    let curve = |(hits, steps): &(u32, &[(u32, f32)])| Curve {
        hits: *hits,
        steps: steps
            .iter()
            .map(|(ef, recall)| Step {
                ef: *ef,
                recall: *recall,
            })
            .collect(),
    };
    Calibration {
        curves: curves.iter().map(curve).collect(),
    }
}

#[test]
fn between_what_was_measured_and_beyond_it_misses_shrink_by_a_power() {
    let ten: &[(u32, f32)] = &[(10, 0.8), (20, 0.9), (40, 0.95)];
    let hundred: &[(u32, f32)] = &[(100, 0.9), (200, 0.95)];
    let both = of(&[(10, ten), (100, hundred)]);
    // Of what may be missed rows may miss two fifths.
    for (target, hits, ef) in [
        (0.5, 10, 14),
        // Half as many misses for twice the effort.
        (0.8, 10, 25),
        (0.9, 1, 50),
        (0.9, 10, 50),
        (0.95, 10, 100),
        (0.95, 100, 500),
        (0.95, 31, 221),
        // As many as four besides each at a hundred: half as many at a thousand.
        (0.95, 1000, 3000),
        (0.9, 1000, 1750),
        (0.999, 10, 160),
    ] {
        let got = both.ef(target, hits);
        assert!(got.abs_diff(ef) <= 1, "{target} of {hits}: {got}, not {ef}");
    }
    assert_eq!(of(&[(10, &[(10, 1.0)])]).ef(0.999, 10), 14);
    assert_eq!(
        of(&[(10, &[(10, 0.0), (40, 0.0)])]).ef(0.95, 10),
        40,
        "nothing was ever found"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]
    #[test]
    fn any_bytes_are_survived(
        mut words in prop::collection::vec(prop_oneof![0u32..300, any::<u32>(), any::<f32>().prop_map(f32::to_bits)], 0..60),
        cut in 0usize..4,
        sorted in any::<bool>(),
        target in 0.5f32..0.999,
        hits in 0usize..20_000,
    ) {
        if sorted {
            // Likelier to be read.
            for (i, step) in words.chunks_exact_mut(3).enumerate() {
                step[0] = if i < 6 { 10 } else { 100 };
                step[1] = 100 + 10 * i as u32;
                step[2] = (0.04 * i as f32).to_bits();
            }
        }
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        if let Ok(read) = Calibration::parse(&bytes[..bytes.len().saturating_sub(cut)]) {
            prop_assert_eq!(Calibration::parse(&read.encode()).unwrap(), read.clone());
            let ef = read.ef(target, hits);
            prop_assert!(ef <= limits::EF_MAX && ef >= hits.min(limits::EF_MAX));
            prop_assert!(read.ef(target + 0.0005, hits) >= ef, "more for more");
            prop_assert!(read.ef(target, hits + 1) >= ef, "more for more hits");
        }
    }
}
