//! Claims about inverted lists, against the exact scan.

use std::cell::Cell;

use proptest::prelude::*;

use super::layout::{Look, RECALLS};
use super::*;
use crate::config::Workers;
use crate::error::ErrorKind;
use crate::types::Ordinal;
use crate::vector::kernels::Bits;
use crate::vector::tests::{
    METRICS, Random, Rows, backwards, clustered, coarse_rows, near, never, queries_near, search,
};
use crate::vector::{Allow, BitSet, Flat, Scored, VectorIndex};

/// Lists over their own bytes.
struct Made {
    layout: IvfLayout,
    index: Vec<u8>,
    records: Vec<u8>,
    packs: Vec<u8>,
}

impl Made {
    fn of(rows: &Rows, lists: Option<u32>, bits: Option<Bits>, workers: &Workers) -> Self {
        let wanted = Wanted {
            lists,
            bits: bits.filter(|_| rows.view().metric != Metric::Manhattan),
            seed: 4711,
        };
        let made = build(&rows.view(), wanted, workers, &mut |_| true).unwrap();
        let index = made.index(workers, &never).unwrap();
        let mut records = Vec::new();
        let mut put = |some: &[u8]| {
            records.extend_from_slice(some);
            Ok(())
        };
        made.records(workers, &never, &mut put).unwrap();
        let mut packs = Vec::new();
        let mut put = |some: &[u8]| {
            packs.extend_from_slice(some);
            Ok(())
        };
        made.packs(workers, &never, &mut put).unwrap();
        Self {
            layout: IvfLayout::parse(&index).unwrap(),
            index,
            records,
            packs,
        }
    }
    fn alone(rows: &Rows, lists: Option<u32>, bits: Option<Bits>) -> Self {
        Self::of(rows, lists, bits, &Workers::alone())
    }
    fn view(&self) -> Ivf<'_> {
        self.layout.view(&self.index, &self.records, &self.packs, None)
    }
    fn sizes(&self) -> Vec<usize> {
        let view = self.view();
        (0..view.lists() as Ordinal)
            .map(|list| view.places(list).len())
            .collect()
    }
    fn probe(&self, rows: &Rows, query: &[f32], k: usize, nprobe: usize, allow: &Allow<'_>) -> Probed {
        let probed = self.view().probe(&rows.view(), query, k, Some(nprobe), allow, &never);
        probed.unwrap()
    }
}

const CODED: [Option<Bits>; 3] = [None, Some(Bits::Eight), Some(Bits::Four)];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn a_look_into_all_lists_is_exact((rows, query, allowed) in coarse_rows(120), k in 0usize..40, lists in 1u32..20) {
        let made = Made::alone(&rows, Some(lists), None);
        for allow in [Allow::All, Allow::Only(&allowed)] {
            let exact = search(&Flat, &rows, &query, k, 0, &allow);
            prop_assert_eq!(made.probe(&rows, &query, k, usize::MAX, &allow).found.hits, exact);
        }
        // With codes, where all that are asked for are measured again.
        for bits in [Bits::Eight, Bits::Four] {
            let made = Made::alone(&rows, Some(lists), Some(bits));
            for allow in [Allow::All, Allow::Only(&allowed)] {
                let exact = search(&Flat, &rows, &query, 120, 0, &allow);
                prop_assert_eq!(made.probe(&rows, &query, 120, usize::MAX, &allow).found.hits, exact);
            }
        }
    }

    #[test]
    fn there_are_k_hits_whenever_k_match(
        (rows, query, allowed) in coarse_rows(120), k in 1usize..40, lists in 1u32..20, nprobe in 1usize..4,
    ) {
        for bits in CODED {
            let made = Made::alone(&rows, Some(lists), bits);
            for allow in [Allow::All, Allow::Only(&allowed)] {
                let wanted = search(&Flat, &rows, &query, k, 0, &allow).len();
                prop_assert_eq!(search(&made.view(), &rows, &query, k, 0, &allow).len(), wanted);
                prop_assert_eq!(made.probe(&rows, &query, k, nprobe, &allow).found.hits.len(), wanted);
            }
        }
    }
}

/// Recall@10 at the reach that was measured, of everything and of a tenth, in every metric.
fn check_recall(rows: &[Vec<f32>], queries: &[Vec<f32>], least: f64) {
    let mut failures = Vec::new();
    for metric in METRICS {
        for bits in CODED {
            let rows = Rows::new(metric, rows[0].len(), rows);
            let made = Made::alone(&rows, None, bits);
            let n = rows.view().len() as Ordinal;
            let tenth = BitSet::from_iter(n as usize, (0..n).filter(|o| o % 10 == 3));
            for (what, allow) in [("all", Allow::All), ("a tenth", Allow::Only(&tenth))] {
                let (mut found, mut wanted) = (0, 0);
                for query in queries {
                    let exact = search(&Flat, &rows, query, 10, 0, &allow);
                    let edge = exact.last().map_or(f32::MIN, |hit: &Scored| hit.distance);
                    let hits = search(&made.view(), &rows, query, 10, 0, &allow);
                    found += hits.iter().filter(|hit| hit.distance <= edge).count();
                    wanted += exact.len();
                }
                let recall = f64::from(found as u32) / f64::from(wanted as u32);
                if recall < least {
                    failures.push(format!("{metric:?}, {bits:?}, {what}: recall@10 {recall}"));
                }
            }
        }
    }
    assert!(failures.is_empty(), "of {} rows: {failures:#?}", rows.len());
}

#[test]
fn finds_the_nearest_among_scattered_vectors() {
    let mut random = Random(2);
    for dim in [2, 8, 32] {
        let rows: Vec<Vec<f32>> = (0..3000).map(|_| random.vector(dim)).collect();
        let queries: Vec<Vec<f32>> = (0..60).map(|_| random.vector(dim)).collect();
        check_recall(&rows, &queries, 0.95);
    }
}

#[test]
fn finds_the_nearest_among_clusters_however_narrow() {
    let mut random = Random(3);
    for (clusters, each, spread) in [(300, 10, 0.1), (40, 75, 0.05), (8, 400, 0.1), (40, 75, 1e-6)] {
        // Questions that are like the rows, as those are that the reach was measured with. In a cluster without any structure of
        // its own every list is about as near as every other, and a little is lost.
        let all = clustered(&mut random, 48, clusters, each, spread);
        let held_out = |i: &usize| i % 50 == 7;
        let some = |is_wanted: &dyn Fn(&usize) -> bool| -> Vec<Vec<f32>> {
            (0..all.len()).filter(is_wanted).map(|i| all[i].clone()).collect()
        };
        check_recall(&some(&|i| !held_out(i)), &some(&held_out), 0.9);
    }
}

#[test]
fn finds_the_nearest_among_duplicates_and_whatever_the_lengths() {
    let mut random = Random(4);
    let originals: Vec<Vec<f32>> = (0..1000).map(|_| random.vector(32)).collect();
    let mut rows = originals.clone();
    rows.extend((0..1000).map(|_| originals[0].clone()));
    rows.extend((0..1000).map(|i| originals[i % 10].clone()));
    let queries = queries_near(&mut random, &originals, 0.3);
    check_recall(&rows, &queries, 0.95);
    let rows: Vec<Vec<f32>> = (0..3000)
        .map(|_| {
            let length = random.normal().exp();
            random.vector(32).iter().map(|x| x * length).collect()
        })
        .collect();
    let queries: Vec<Vec<f32>> = (0..60).map(|_| random.vector(32)).collect();
    check_recall(&rows, &queries, 0.95);
}

/// The filters that have something to do with the question, both ways.
#[test]
fn finds_the_nearest_matches_whatever_the_filter_has_to_do_with_the_question() {
    let mut random = Random(21);
    let scattered: Vec<Vec<f32>> = (0..4000).map(|_| random.vector(24)).collect();
    let in_clusters = clustered(&mut random, 24, 40, 100, 0.3);
    let mut failures = Vec::new();
    for (what, vectors) in [("scattered", scattered), ("clustered", in_clusters)] {
        let place = vectors[17].clone();
        let queries: Vec<Vec<f32>> = (0..30).map(|_| near(&mut random, &place, 0.3)).collect();
        let rows = Rows::new(Metric::Cosine, 24, &vectors);
        let made = Made::alone(&rows, None, Some(Bits::Eight));
        let near_first: Vec<Ordinal> = search(&Flat, &rows, &place, 4000, 0, &Allow::All)
            .into_iter()
            .map(|hit| hit.ordinal)
            .collect();
        let far_first: Vec<Ordinal> = near_first.iter().rev().copied().collect();
        for percent in [50, 20, 5, 1] {
            for (filter, order) in [("near", &near_first), ("far", &far_first)] {
                let allowed = BitSet::from_iter(4000, order[..40 * percent].iter().copied());
                let allow = Allow::Only(&allowed);
                let mut right = 0;
                for query in &queries {
                    let exact = search(&Flat, &rows, query, 10, 0, &allow);
                    let hits = search(&made.view(), &rows, query, 10, 0, &allow);
                    assert_eq!(hits.len(), 10);
                    right += hits.iter().filter(|hit| hit.distance <= exact[9].distance).count();
                }
                if right < 285 {
                    failures.push(format!("{what}, {percent} % {filter}: {right} of 300"));
                }
            }
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
fn easy_questions_read_few_lists_and_more_hits_read_more() {
    let mut random = Random(5);
    let rows = Rows::new(Metric::Euclid, 32, &clustered(&mut random, 32, 100, 100, 0.2));
    let made = Made::alone(&rows, None, Some(Bits::Eight));
    let queries = queries_near(&mut random, &clustered(&mut Random(5), 32, 100, 100, 0.2), 0.2);
    let lists = |k: usize| -> usize {
        let read = queries.iter().map(|query| {
            let probed = made.view().probe(&rows.view(), query, k, None, &Allow::All, &never);
            probed.unwrap().lists
        });
        read.sum()
    };
    let (few, more) = (lists(10), lists(300));
    let all = made.view().lists() * queries.len();
    assert!(few * 20 < all, "{few} of {all}");
    assert!(more > 2 * few, "{more} and {few}");
    assert_eq!(made.probe(&rows, &queries[0], 10, 7, &Allow::All).lists, 7);
    assert!(made.view().share(100.0) >= made.view().share(10.0));
    let shares: Vec<f64> = [0.5, 0.8, 0.85, 0.9, 0.95, 0.97, 0.99, 0.999]
        .map(|recall| made.view().with_recall(recall).share(10.0))
        .to_vec();
    assert!(
        shares[..2].iter().all(|share| *share == shares[0]) && shares[7] > shares[1],
        "more is looked at to find more: {shares:?}"
    );
}

#[test]
fn lists_are_of_about_one_size_and_none_is_empty() {
    let mut random = Random(6);
    let scattered: Vec<Vec<f32>> = (0..6000).map(|_| random.vector(16)).collect();
    // A few clusters with most of the rows, and many small ones.
    let mut uneven = clustered(&mut random, 16, 3, 1500, 0.2);
    uneven.extend(clustered(&mut random, 16, 150, 10, 0.2));
    for metric in METRICS {
        for rows in [&scattered, &uneven] {
            let made = Made::alone(&Rows::new(metric, 16, rows), Some(100), None);
            let sizes = made.sizes();
            assert_eq!((sizes.len(), sizes.iter().sum::<usize>()), (100, 6000));
            assert!(sizes.iter().all(|size| *size > 0), "{metric:?}: {sizes:?}");
            // What a random row's list has, in averages: 1 if all are equal.
            let unevenness = sizes.iter().map(|size| size * size).sum::<usize>() as f64 / (6000.0 * 60.0);
            assert!(unevenness < 1.7, "{metric:?}: {unevenness} {sizes:?}");
        }
    }
}

#[test]
fn the_bytes_do_not_depend_on_who_helps() {
    let mut random = Random(7);
    let vectors = clustered(&mut random, 72, 30, 200, 0.3);
    for metric in METRICS {
        for bits in [None, Some(Bits::Four)] {
            let rows = Rows::new(metric, 72, &vectors).without(|o| o % 50 == 7);
            let alone = Made::alone(&rows, None, bits);
            assert_eq!(alone.packs.is_empty(), metric == Metric::Manhattan || bits.is_none());
            for threads in [2, 3] {
                let helped = Made::of(&rows, None, bits, &backwards(threads));
                assert!(
                    helped.index == alone.index && helped.records == alone.records && helped.packs == alone.packs,
                    "{metric:?} {bits:?}, {threads} threads"
                );
            }
        }
    }
}

/// Rows that packs leave out are none of the nearest, whatever the filter; and they leave out most.
#[test]
fn what_packs_leave_out_is_not_missed() {
    let mut random = Random(9);
    let vectors = clustered(&mut random, 100, 25, 240, 0.5);
    let queries = queries_near(&mut random, &vectors, 0.5);
    let third = BitSet::from_iter(6000, (0..6000).filter(|o| o % 3 == 1));
    let few = BitSet::from_iter(6000, (0..6000).filter(|o| o % 40 == 1));
    for metric in [Metric::Cosine, Metric::Dot, Metric::Euclid] {
        for bits in [Bits::Eight, Bits::Four] {
            let rows = Rows::new(metric, 100, &vectors).without(|o| o % 50 == 7);
            let made = Made::alone(&rows, Some(60), Some(bits));
            assert!(made.view().packs.is_some());
            let bare = made.layout.view(&made.index, &made.records, &[], None);
            for (what, allow) in [
                ("all", Allow::All),
                ("a third", Allow::Only(&third)),
                ("few", Allow::Only(&few)),
            ] {
                let (mut found, mut without, mut read, mut read_without) = (0, 0, 0, 0);
                for query in &queries {
                    let exact = search(&Flat, &rows, query, 10, 0, &allow);
                    let right = |hits: &[Scored]| hits.iter().filter(|hit| hit.distance <= exact[9].distance).count();
                    let probe =
                        |lists: &Ivf<'_>| lists.probe(&rows.view(), query, 10, Some(20), &allow, &never).unwrap();
                    let (sifted, all) = (probe(&made.view()), probe(&bare));
                    assert_eq!(sifted.found.hits.len(), 10);
                    assert!(sifted.lists <= all.lists);
                    (found, without) = (found + right(&sifted.found.hits), without + right(&all.found.hits));
                    read += sifted.found.evaluated;
                    read_without += all.found.evaluated;
                }
                let case = format!("{metric:?} {bits:?}, {what}");
                assert!(found * 100 >= without * 99, "{case}: {found} of {without}");
                if what != "few" {
                    assert!(read * 10 < read_without * 9, "{case}: {read} instead of {read_without}");
                }
            }
        }
    }
}

/// Where some of the rows are close together and far from the mean, what tables are off by is as much as what tells them apart.
#[test]
fn packs_do_not_decide_among_rows_that_are_nearly_one() {
    let mut random = Random(11);
    let mut vectors = clustered(&mut random, 128, 15, 600, 0.5);
    let centre: Vec<f32> = random.vector(128).iter().map(|x| 10.0 * x).collect();
    vectors.extend((0..300).map(|_| near(&mut random, &centre, 0.1)));
    let rows = Rows::new(Metric::Euclid, 128, &vectors);
    let made = Made::alone(&rows, Some(6), Some(Bits::Eight));
    assert!(!made.packs.is_empty());
    let bare = made.layout.view(&made.index, &made.records, &[], None);
    let (mut with, mut without) = (0, 0);
    for _ in 0..50 {
        let query = near(&mut random, &centre, 0.1);
        let exact = search(&Flat, &rows, &query, 10, 0, &Allow::All);
        let right = |lists: &Ivf<'_>| {
            let hits = search(lists, &rows, &query, 10, 0, &Allow::All);
            hits.iter().filter(|hit| hit.distance <= exact[9].distance).count()
        };
        (with, without) = (with + right(&made.view()), without + right(&bare));
    }
    assert!(with * 100 >= without * 98, "{with} of {without}");
}

/// Of the places of a list exactly those are asked for, whichever packs they are in.
#[test]
fn places_are_found_in_packs_whatever_borders_are_between() {
    for (start, end) in [
        (0, 1),
        (0, 32),
        (31, 33),
        (5, 70),
        (32, 64),
        (63, 64),
        (64, 200),
        (40, 40),
    ] {
        let places = start..end;
        let of = |packs: Vec<(usize, u32)>| -> Vec<usize> {
            let places =
                |(pack, bits): (usize, u32)| (0..32).filter(move |i| bits >> i & 1 == 1).map(move |i| pack * 32 + i);
            packs.into_iter().flat_map(places).collect()
        };
        assert_eq!(
            of(search::packs_of(&places).collect()),
            places.clone().collect::<Vec<_>>()
        );
        let some: Vec<usize> = places.step_by(3).collect();
        assert_eq!(of(search::packs_at(&some).collect()), some);
    }
}

/// Any bytes are packs: what is wrong in them leaves out the wrong rows, no worse.
#[test]
fn any_packs_are_survived() {
    let mut random = Random(10);
    let vectors = clustered(&mut random, 64, 5, 200, 0.5);
    for metric in [Metric::Cosine, Metric::Dot, Metric::Euclid] {
        let rows = Rows::new(metric, 64, &vectors);
        let made = Made::alone(&rows, Some(10), Some(Bits::Four));
        for _ in 0..200 {
            let packs: Vec<u8> = match random.below(3) {
                0 => made.packs.iter().map(|_| random.next() as u8).collect(),
                1 => vec![random.next() as u8; made.packs.len()],
                _ => made.packs.iter().map(|byte| byte ^ 1 << random.below(8)).collect(),
            };
            let view = made.layout.view(&made.index, &made.records, &packs, None);
            let hits = search(&view, &rows, &random.vector(64), 10, 0, &Allow::All);
            assert_eq!(hits.len(), 10);
        }
    }
}

#[test]
fn packs_of_another_length_do_not_fit() {
    let vectors: Vec<Vec<f32>> = (0..100).map(|i| vec![i as f32; 64]).collect();
    let made = Made::alone(&Rows::new(Metric::Euclid, 64, &vectors), Some(3), Some(Bits::Eight));
    let len = made.packs.len();
    let fit = [0, len, len - 64, len + 64].map(|len| made.layout.packs_fit(len));
    assert_eq!(fit, [true, true, false, false], "{len}");
}

#[test]
fn many_centres_are_found_by_a_graph() {
    let mut random = Random(8);
    let vectors: Vec<Vec<f32>> = (0..9000).map(|_| random.vector(6)).collect();
    for (metric, bits) in [
        (Metric::Cosine, Some(Bits::Eight)),
        (Metric::Euclid, None),
        (Metric::Manhattan, None),
    ] {
        let rows = Rows::new(metric, 6, &vectors);
        let made = Made::alone(&rows, Some(ROUTED as u32 + 100), bits);
        assert!(made.layout.records_bytes() > 0 || bits.is_none());
        let mut right = 0;
        for _ in 0..30 {
            let query = random.vector(6);
            let exact = search(&Flat, &rows, &query, 10, 0, &Allow::All);
            let hits = search(&made.view(), &rows, &query, 10, 0, &Allow::All);
            right += hits.iter().filter(|hit| hit.distance <= exact[9].distance).count();
            // Where matches are far and few, all lists are come by.
            let far = search(&Flat, &rows, &query, 9000, 0, &Allow::All).split_off(8980);
            let far = BitSet::from_iter(9000, far.iter().map(|hit| hit.ordinal));
            assert_eq!(search(&made.view(), &rows, &query, 10, 0, &Allow::Only(&far)).len(), 10);
        }
        assert!(right >= 285, "{metric:?}: {right} of 300");
    }
}

#[test]
fn lists_of_no_one_and_two_vectors_and_of_absent_ones_only() {
    for metric in METRICS {
        for n in 0..=2 {
            for bits in CODED {
                let vectors: Vec<Vec<f32>> = (0..n).map(|i| vec![1.0, i as f32]).collect();
                let rows = Rows::new(metric, 2, &vectors);
                let made = Made::alone(&rows, None, bits);
                assert_eq!(made.view().len(), n);
                let exact = search(&Flat, &rows, &[1.0, 0.0], 5, 0, &Allow::All);
                assert_eq!(search(&made.view(), &rows, &[1.0, 0.0], 5, 5, &Allow::All), exact);
                let rows = rows.without(|_| true);
                let made = Made::alone(&rows, None, bits);
                assert_eq!(search(&made.view(), &rows, &[1.0, 0.0], 5, 5, &Allow::All), []);
            }
        }
    }
}

#[test]
fn a_late_search_is_an_error_and_never_a_short_list() {
    let mut random = Random(10);
    let rows = Rows::new(Metric::Euclid, 8, &clustered(&mut random, 8, 1, 3000, 1.0));
    let query = random.vector(8);
    let made = Made::alone(&rows, None, Some(Bits::Eight));
    let complete = made.probe(&rows, &query, 10, usize::MAX, &Allow::All).found.hits;
    for late in 0.. {
        let asked = Cell::new(0);
        let stop = || {
            asked.set(asked.get() + 1);
            asked.get() > late
        };
        match made
            .view()
            .probe(&rows.view(), &query, 10, Some(usize::MAX), &Allow::All, &stop)
        {
            Ok(probed) => {
                assert_eq!(probed.found.hits, complete);
                assert!(late >= 3, "asked {late} times only");
                break;
            }
            Err(error) => assert_eq!((error.kind, error.code), (ErrorKind::Deadline, "deadline_exceeded")),
        }
    }
}

#[test]
fn a_build_reports_its_progress_and_can_be_cancelled_at_any_step() {
    let mut random = Random(11);
    let rows = Rows::new(Metric::Dot, 8, &clustered(&mut random, 8, 1, 3000, 1.0));
    let wanted = Wanted {
        lists: None,
        bits: Some(Bits::Eight),
        seed: 1,
    };
    let mut reports = Vec::new();
    let mut report = |done: usize| {
        reports.push(done);
        true
    };
    build(&rows.view(), wanted, &Workers::alone(), &mut report).unwrap();
    assert!(
        reports.is_sorted() && reports.len() > 5 && reports.last() == Some(&3000),
        "{reports:?}"
    );
    for last in 0..reports.len() {
        let mut asked = 0;
        let mut report = |_| {
            asked += 1;
            asked <= last
        };
        let error = build(&rows.view(), wanted, &Workers::alone(), &mut report)
            .err()
            .unwrap();
        assert_eq!((error.kind, error.code), (ErrorKind::Cancelled, "cancelled"));
    }
    let made = build(&rows.view(), wanted, &Workers::alone(), &mut |_| true).unwrap();
    let error = made.records(&Workers::alone(), &|| true, &mut |_| Ok(())).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Cancelled);
}

#[test]
fn changed_bytes_are_refused_or_searched_without_harm() {
    let mut random = Random(13);
    let vectors = clustered(&mut random, 4, 5, 40, 0.2);
    let n = vectors.len();
    for (metric, bits) in [(Metric::Euclid, Some(Bits::Eight)), (Metric::Manhattan, None)] {
        let rows = Rows::new(metric, 4, &vectors).without(|ordinal| ordinal == 7);
        let made = Made::alone(&rows, Some(12), bits);
        let words: &[u32] = bytemuck::cast_slice(&made.index);
        let (mut refused, mut searched) = (0, 0);
        for _ in 0..5_000 {
            let mut words = words.to_vec();
            for _ in 0..=random.below(3) {
                let at = random.below(words.len());
                words[at] = match random.below(6) {
                    0 => random.next() as u32,
                    1 => u32::MAX,
                    2 => (n - 1 + random.below(3)) as u32,
                    3 => words[at] ^ 1 << random.below(32),
                    4 => words[random.below(words.len())],
                    _ => random.below(n) as u32,
                };
            }
            if random.below(10) == 0 {
                words.truncate(random.below(words.len()));
            }
            let mut records = made.records.clone();
            if !records.is_empty() {
                let at = random.below(records.len());
                records[at] = random.next() as u8;
            }
            let bytes: &[u8] = bytemuck::cast_slice(&words);
            match IvfLayout::parse(bytes) {
                Err(error) => {
                    assert_eq!(error.kind, ErrorKind::Damaged);
                    refused += 1;
                }
                Ok(layout) if layout.records_bytes() == records.len() && layout.fits(metric, 4, n) => {
                    let query = random.vector(4);
                    let view = layout.view(bytes, &records, &[], None);
                    for k in [10, 300] {
                        let found = view.search(&rows.view(), &query, k, 0, &Allow::All, &never).unwrap();
                        let mut ordinals: Vec<Ordinal> = found.hits.iter().map(|hit| hit.ordinal).collect();
                        ordinals.sort_unstable();
                        ordinals.dedup();
                        assert_eq!(ordinals.len(), found.hits.len(), "nobody twice");
                        assert!(ordinals.iter().all(|ordinal| (*ordinal as usize) < n));
                        view.share(k as f64);
                    }
                    searched += 1;
                }
                Ok(_) => {}
            }
        }
        assert!(
            refused > 300 && searched > 300,
            "refused {refused}, searched {searched}"
        );
    }
}

#[test]
fn between_two_recalls_a_search_looks_as_far_as_their_misses_say() {
    let looks = RECALLS.map(|recall| Look {
        recall,
        reach: -(1.0 - recall).ln(),
        shares: [recall, 2.0 * recall],
        widths: [3.0 * recall, 4.0 * recall],
    });
    for look in looks {
        assert_eq!(Look::between(&looks, look.recall), look);
    }
    assert_eq!(Look::between(&looks, 0.5), looks[0]);
    assert_eq!(Look::between(&looks, 0.9999), looks[RECALLS.len() - 1]);
    for percent in 81..100 {
        let recall = percent as f32 / 100.0;
        let (look, next) = (Look::between(&looks, recall), Look::between(&looks, recall + 0.009));
        assert!(
            (look.reach + (1.0 - recall).ln()).abs() < 1e-3,
            "linear in the logarithm: {look:?}"
        );
        assert!(
            next.shares > look.shares && next.widths > look.widths,
            "{look:?} and {next:?}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]
    #[test]
    fn no_bytes_make_parse_panic(mut words in prop::collection::vec(prop_oneof![0u32..20, any::<u32>()], 0..200)) {
        let _ = IvfLayout::parse(bytemuck::cast_slice(&words));
        // And past the first checks.
        if let Some(start) = words.get_mut(..2) {
            start.copy_from_slice(&[u32::from_le_bytes(*b"CIVF"), 2]);
        }
        if let Some(reserved) = words.get_mut(9..16) {
            reserved.fill(0);
        }
        let _ = IvfLayout::parse(bytemuck::cast_slice(&words));
    }
}

#[test]
fn bytes_off_their_alignment_are_refused() {
    let bytes = Made::alone(&Rows::new(Metric::Dot, 1, &[vec![1.0]]), None, None).index;
    let mut shifted: Vec<u32> = vec![0; bytes.len() / 4 + 1];
    let shifted: &mut [u8] = bytemuck::cast_slice_mut(&mut shifted);
    shifted[1..=bytes.len()].copy_from_slice(&bytes);
    assert_eq!(
        IvfLayout::parse(&shifted[1..=bytes.len()]).unwrap_err().kind,
        ErrorKind::Damaged
    );
}
