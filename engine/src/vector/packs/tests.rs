//! Claims about packs: how far estimates are off, whom they are of, and that no bytes break them.

use proptest::prelude::*;

use super::super::tests::{METRICS, Random, Rows, backwards, clustered, coarse_rows, near, never, recall, search};
use super::*;
use crate::config::Workers;
use crate::vector::kernels::Bits;
use crate::vector::{Allow, BitSet, Flat, HnswLayout, VectorIndex};

fn graph_of(rows: &Rows) -> Vec<u8> {
    super::super::hnsw::build(&rows.view(), 8, 60, 7, &Workers::alone(), &mut |_| true).unwrap()
}

fn encoded(rows: &Rows, graph: &[u8], workers: &Workers) -> Vec<u8> {
    let mut bytes = Vec::new();
    let graph = HnswLayout::parse(graph).unwrap().view(graph);
    encode(&rows.view(), &graph, workers, &never, &mut |some| {
        bytes.extend_from_slice(some);
        Ok(())
    })
    .unwrap();
    bytes
}

#[test]
fn estimates_are_right_on_average_and_off_as_signs_are() {
    let mut random = Random(81);
    for metric in METRICS.into_iter().filter(|metric| *metric != Metric::Manhattan) {
        for dim in [100, 384] {
            // Far from the origin, and with a few dimensions that hold most of the length.
            let mut row = || -> Vec<f32> {
                let mut row = random.vector(dim);
                row.iter_mut().step_by(9).for_each(|x| *x = *x * 4.0 + 3.0);
                row
            };
            let vectors: Vec<Vec<f32>> = (0..640).map(|_| row()).collect();
            let questions: Vec<Vec<f32>> = (0..10).map(|_| row()).collect();
            let rows = Rows::new(metric, dim, &vectors);
            let graph = graph_of(&rows);
            let bytes = encoded(&rows, &graph, &Workers::alone());
            let layout = HnswLayout::parse(&graph).unwrap();
            let packs = PacksLayout::parse(&bytes, &layout.view(&graph)).unwrap().view(&bytes);
            let view = rows.view();
            let unit = |ordinal: Ordinal| -> Vec<f32> {
                let scale = scale(&view, ordinal);
                view.row(ordinal).iter().map(|x| x * scale).collect()
            };
            let mean = mean(&view);
            let (mut errors, mut squares, mut count) = (0.0, 0.0, 0);
            let (mut root_errors, mut roots) = (0.0, 0);
            for question in &questions {
                let (exactly, scorer) = (view.scorer(question), packs.scorer(question));
                let of_query = if metric == Metric::Cosine {
                    super::super::inv_norm(question)
                } else {
                    1.0
                };
                for pack in scorer.roots() {
                    let mut estimates = [0f32; PACK];
                    scorer.estimate_root(pack, f32::INFINITY, &mut estimates);
                    let away: f64 = question
                        .iter()
                        .zip(&mean)
                        .map(|(q, m)| f64::from(q * of_query - m).powi(2))
                        .sum();
                    let mut from = vec![0f32; dim];
                    for (id, estimate) in pack.ids().iter().zip(estimates).filter(|(id, _)| **id != NONE) {
                        take_off(&mean, &view.row(*id), scale(&view, *id), &mut from);
                        let weight = if metric == Metric::Euclid { 2.0 } else { 1.0 };
                        let said = weight * 0.75 * (away * product(&from, &from) / dim as f64).sqrt();
                        root_errors += f64::from(exactly.distance(*id) - estimate) / said;
                        roots += 1;
                    }
                }
                for node in 0..400 {
                    let centre = unit(node);
                    let (mut away, mut from) = (0f64, vec![0f32; dim]);
                    for i in 0..dim {
                        let centre = if metric == Metric::Dot { mean[i] } else { centre[i] };
                        away += f64::from(question[i] * of_query - centre).powi(2);
                    }
                    for pack in scorer.of(node) {
                        let mut estimates = [0f32; PACK];
                        scorer.estimate(pack, exactly.distance(node), f32::INFINITY, &mut estimates);
                        for (id, estimate) in pack.ids().iter().zip(estimates).filter(|(id, _)| **id != NONE) {
                            take_off(&centre, &view.row(*id), scale(&view, *id), &mut from);
                            // What the sign of each dimension leaves open of an inner product with something in no direction.
                            let weight = if metric == Metric::Euclid { 2.0 } else { 1.0 };
                            let said = weight * 0.75 * (away * product(&from, &from) / dim as f64).sqrt();
                            let off = f64::from(exactly.distance(*id) - estimate) / said;
                            errors += off;
                            squares += off * off;
                            count += 1;
                        }
                    }
                }
            }
            assert!(roots > 0, "{metric:?}: no roots");
            let mean_root = root_errors / f64::from(roots);
            assert!(
                mean_root.abs() < 0.2,
                "{metric:?}, {dim} dimensions: roots {mean_root} deviations too far on average"
            );
            assert!(count > 10 * 400 * 16, "{metric:?}: {count} estimates");
            let (mean, deviation) = (errors / f64::from(count), (squares / f64::from(count)).sqrt());
            assert!(
                mean.abs() < 0.1,
                "{metric:?}, {dim} dimensions: {mean} deviations too far on average"
            );
            assert!(
                (0.7..1.3).contains(&deviation),
                "{metric:?}, {dim} dimensions: {deviation} deviations"
            );
        }
    }
}

#[test]
fn packs_are_filled_up_with_others_and_name_nobody_twice() {
    let mut random = Random(82);
    let rows = Rows::new(Metric::Cosine, 24, &clustered(&mut random, 24, 6, 80, 0.3));
    for (m, packs_of_node) in [(4, 1), (16, 1), (20, 2)] {
        let graph = super::super::hnsw::build(&rows.view(), m, 60, 7, &Workers::alone(), &mut |_| true).unwrap();
        let bytes = encoded(&rows, &graph, &Workers::alone());
        let layout = HnswLayout::parse(&graph).unwrap();
        let graph = layout.view(&graph);
        let packs = PacksLayout::parse(&bytes, &graph).unwrap().view(&bytes);
        let mut full = 0;
        for node in 0..480 {
            assert_eq!(packs.of(node).count(), packs_of_node);
            let ids = packs.of(node).flat_map(|pack| pack.ids().iter().copied());
            let ids: Vec<Ordinal> = ids.filter(|id| *id != NONE).collect();
            let links: Vec<Ordinal> = graph.neighbours(0, node).collect();
            assert_eq!(ids[..links.len()], links, "links come first");
            let mut sorted = ids.clone();
            sorted.sort_unstable();
            sorted.dedup();
            assert_eq!(sorted.len(), ids.len(), "each once");
            assert!(!ids.contains(&node), "nobody is its own neighbour");
            full += usize::from(ids.len() == packs_of_node * PACK);
        }
        // Eight links lead to few others, and there are not many more than sixty-four in a cluster.
        assert!(m != 16 || full > 400, "m {m}: {full} of 480 are full");
    }
}

#[test]
fn roots_are_spread_over_all_that_have_links_and_may_be_missing() {
    let mut random = Random(87);
    let vectors: Vec<Vec<f32>> = (0..1500).map(|_| random.vector(24)).collect();
    let rows = Rows::new(Metric::Euclid, 24, &vectors);
    let graph = graph_of(&rows);
    let layout = HnswLayout::parse(&graph).unwrap();
    let mut bytes = encoded(&rows, &graph, &Workers::alone());
    let parsed = PacksLayout::parse(&bytes, &layout.view(&graph)).unwrap();
    let roots: Vec<Ordinal> = parsed
        .view(&bytes)
        .roots()
        .flat_map(|pack| pack.ids().to_vec())
        .collect();
    assert_eq!(roots.len(), 1500 / NODES_PER_ROOT / PACK * PACK);
    assert!(
        roots.windows(2).all(|two| (1..40).contains(&(two[1] - two[0]))),
        "{roots:?}"
    );
    assert!(roots[0] < 40 && roots[roots.len() - 1] > 1400, "{roots:?}");
    // As they were written before there were any.
    let without = {
        bytes.truncate(parsed.roots.start);
        bytes[24..28].fill(0);
        PacksLayout::parse(&bytes, &layout.view(&graph)).unwrap()
    };
    let view = VectorsRef {
        packs: Some(without.view(&bytes)),
        ..rows.view()
    };
    for question in &vectors[..20] {
        let graph = layout.view(&graph);
        let found = graph.search(&view, question, 1, 64, &Allow::All, &never).unwrap();
        assert_eq!(found.hits[0].distance, 0.0, "a row finds itself from the entry, too");
    }
}

/// Searches by packs, over vectors and over codes, find what there is among the many.
#[test]
fn a_walk_by_estimates_finds_what_a_walk_by_distances_does() {
    let mut random = Random(84);
    let vectors = clustered(&mut random, 48, 40, 100, 0.35);
    let queries: Vec<Vec<f32>> = (0..100).map(|i| near(&mut random, &vectors[i * 37], 0.35)).collect();
    let most = BitSet::from_iter(4000, (0..4000).filter(|ordinal| ordinal % 5 != 2));
    // The half of all clusters: of some questions everybody near is left out.
    let topics = BitSet::from_iter(4000, (0..4000).filter(|ordinal| ordinal / 100 % 2 == 0));
    for metric in METRICS.into_iter().filter(|metric| *metric != Metric::Manhattan) {
        for bits in [None, Some(Bits::Eight), Some(Bits::Four)] {
            let rows = Rows::new(metric, 48, &vectors);
            let rows = match bits {
                None => rows,
                Some(bits) => rows.coded(bits),
            };
            let graph = graph_of(&rows);
            let packed = rows.clone().packed(&graph);
            for (what, allow) in [
                ("all", Allow::All),
                ("most", Allow::Only(&most)),
                ("every second cluster", Allow::Only(&topics)),
            ] {
                let [by_distance, by_estimate] =
                    [&rows, &packed].map(|rows| recall(rows, &graph, &queries, 10, 100, &allow));
                assert!(
                    by_estimate > by_distance - 0.02 && by_estimate > 0.93,
                    "{metric:?}, {bits:?}, {what}: {by_estimate}, by distance {by_distance}"
                );
            }
        }
    }
}

/// As many hits as there are to find, each of them right, which `search` looks at.
fn check_answers(rows: &Rows, query: &[f32], allowed: &BitSet, k: usize) -> Result<(), TestCaseError> {
    prop_assume!(rows.view().metric != Metric::Manhattan && !rows.view().is_empty());
    let graph = graph_of(rows);
    let packed = rows.clone().packed(&graph);
    let index = HnswLayout::parse(&graph).unwrap();
    for allow in [Allow::All, Allow::Only(allowed)] {
        let hits = search(&index.view(&graph), &packed, query, k, k, &allow);
        let exact = search(&Flat, rows, query, k, 0, &allow);
        prop_assert_eq!(hits.len(), exact.len());
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// Of so many rows that there are roots.
    #[test]
    fn a_walk_from_roots_answers_who_may_be_answered((rows, query, allowed) in coarse_rows(3000), k in 1usize..12) {
        check_answers(&rows, &query, &allowed, k)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn a_walk_by_estimates_answers_who_may_be_answered((rows, query, allowed) in coarse_rows(200), k in 1usize..12) {
        check_answers(&rows, &query, &allowed, k)?;
    }

    #[test]
    fn packs_are_the_same_whoever_helps((rows, _, _) in coarse_rows(200)) {
        prop_assume!(rows.view().metric != Metric::Manhattan && !rows.view().is_empty());
        let graph = graph_of(&rows);
        prop_assert!(encoded(&rows, &graph, &Workers::alone()) == encoded(&rows, &graph, &backwards(3)));
    }

    #[test]
    fn any_bytes_are_refused_or_searched_with(
        (rows, query, _) in coarse_rows(60),
        changes in prop::collection::vec((any::<usize>(), any::<u8>()), 1..4),
        cut in any::<usize>(),
    ) {
        let view = rows.view();
        prop_assume!(view.metric != Metric::Manhattan && !view.is_empty());
        let graph = graph_of(&rows);
        let index = HnswLayout::parse(&graph).unwrap();
        let index = index.view(&graph);
        let mut bytes = encoded(&rows, &graph, &Workers::alone());
        let whole = PacksLayout::parse(&bytes, &index).unwrap();
        prop_assert!(whole.fits(view.metric, view.dim, view.len()));
        for (at, to) in changes {
            let at = at % bytes.len();
            bytes[at] = to;
        }
        if let Ok(layout) = PacksLayout::parse(&bytes, &index) && layout.fits(view.metric, view.dim, view.len()) {
            let packs = Some(layout.view(&bytes));
            let found = VectorIndex::search(
                &index, &VectorsRef { packs, ..view }, &query, 5, 5, &Allow::All, &never,
            ).unwrap();
            prop_assert!(found.hits.windows(2).all(|pair| pair[0] < pair[1]));
            prop_assert!(found.hits.iter().all(|hit| !view.is_absent(hit.ordinal)));
        }
        bytes.truncate(cut % bytes.len());
        prop_assert!(PacksLayout::parse(&bytes, &index).is_err());
    }
}

#[test]
fn encoding_can_be_cancelled() {
    let mut random = Random(85);
    let rows = Rows::new(Metric::Euclid, 8, &clustered(&mut random, 8, 4, 50, 0.2));
    let graph = graph_of(&rows);
    let layout = HnswLayout::parse(&graph).unwrap();
    let cancelled = encode(
        &rows.view(),
        &layout.view(&graph),
        &Workers::alone(),
        &|| true,
        &mut |_| Ok(()),
    );
    assert_eq!(cancelled.unwrap_err().code, "cancelled");
}
