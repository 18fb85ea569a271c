//! Claims about vector search, against naive code (`f64`, sorting) and against the exact scan.

use std::cell::Cell;
use std::collections::BTreeSet;

use proptest::prelude::*;

pub(super) use super::kernels::tests::Random;
use super::kernels::tests::check_kernels;
use super::kernels::{self, Bits, LINE, Loop};
use super::*;
use crate::config::Workers;
use crate::schema::Metric;

pub(super) const METRICS: [Metric; 4] = [Metric::Cosine, Metric::Dot, Metric::Euclid, Metric::Manhattan];

impl Random {
    pub(super) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}

/// Owned vectors of one space.
#[derive(Debug, Clone)]
pub(super) struct Rows {
    metric: Metric,
    dim: usize,
    data: Vec<f32>,
    halves: Option<Vec<u16>>,
    bits: Option<Vec<u8>>,
    inv_norms: Vec<f32>,
    absent: Option<BitSet>,
    codes: Option<(CodesLayout, Vec<u8>)>,
    signs: Option<(SignsLayout, Vec<u8>)>,
    packs: Option<(PacksLayout, Vec<u8>)>,
}

impl Rows {
    pub(super) fn new(metric: Metric, dim: usize, rows: &[Vec<f32>]) -> Self {
        let inv_norms = match metric {
            Metric::Cosine => rows.iter().map(|row| inv_norm(row)).collect(),
            Metric::Dot | Metric::Euclid | Metric::Manhattan | Metric::Hamming => Vec::new(),
        };
        Self {
            metric,
            dim,
            data: rows.concat(),
            halves: None,
            bits: None,
            inv_norms,
            absent: None,
            codes: None,
            signs: None,
            packs: None,
        }
    }
    /// Without the vectors for which `is_absent`.
    pub(super) fn without(mut self, is_absent: impl Fn(Ordinal) -> bool) -> Self {
        let rows = self.data.len() / self.dim;
        let absent = BitSet::from_iter(rows, (0..rows as Ordinal).filter(|ordinal| is_absent(*ordinal)));
        for ordinal in absent.iter() {
            let start = ordinal as usize * self.dim;
            self.data[start..start + self.dim].fill(0.0);
            if let Some(inv_norm) = self.inv_norms.get_mut(ordinal as usize) {
                *inv_norm = 0.0;
            }
        }
        self.absent = Some(absent);
        self
    }
    pub(super) fn view(&self) -> VectorsRef<'_> {
        VectorsRef {
            metric: self.metric,
            dim: self.dim,
            data: match (&self.halves, &self.bits) {
                (Some(halves), _) => Floats::Halves(halves),
                (_, Some(bits)) => Floats::Bits(bits),
                (None, None) => Floats::Singles(&self.data),
            },
            touch: None,
            inv_norms: &self.inv_norms,
            absent: self.absent.as_ref(),
            codes: self.codes.as_ref().map(|(layout, bytes)| layout.view(bytes)),
            signs: self.signs.as_ref().map(|(layout, bytes)| layout.view(bytes)),
            packs: self.packs.as_ref().map(|(layout, bytes)| layout.view(bytes)),
        }
    }
    /// The same numbers, which must be halves, kept as such.
    pub(super) fn halved(mut self) -> Self {
        assert!(floats::are_halves(&self.data));
        let mut halves = Vec::new();
        floats::to_halves(&self.data, &mut halves);
        self.halves = Some(halves);
        self
    }
    /// The same numbers, which must be zeros and ones, kept as bits.
    pub(super) fn in_bits(mut self) -> Self {
        assert_eq!(floats::not_a_bit(&self.data), None);
        let mut bits = Vec::new();
        floats::to_bits(&self.data, &mut bits);
        self.bits = Some(bits);
        self
    }
    fn has_codes(&self) -> bool {
        !matches!(self.metric, Metric::Manhattan | Metric::Hamming)
    }
    /// With codes, if the metric has any.
    pub(super) fn coded(mut self, bits: Bits) -> Self {
        if self.has_codes() {
            let mut bytes = Vec::new();
            let mut put = |some: &[u8]| {
                bytes.extend_from_slice(some);
                Ok(())
            };
            codes::encode(&self.view(), bits, &mut put).unwrap();
            self.codes = Some((CodesLayout::parse(&bytes).unwrap(), bytes));
        }
        self
    }
    /// With signs, if the metric has any.
    pub(super) fn signed(mut self) -> Self {
        if self.has_codes() {
            let mut bytes = Vec::new();
            let mut put = |some: &[u8]| {
                bytes.extend_from_slice(some);
                Ok(())
            };
            signs::encode(&self.view(), &mut put).unwrap();
            self.signs = Some((SignsLayout::parse(&bytes).unwrap(), bytes));
        }
        self
    }
    /// The bytes of codes and of signs.
    pub(super) fn coded_bytes(&self) -> [Option<&[u8]>; 2] {
        [
            &self.codes.as_ref().map(|(_, bytes)| bytes),
            &self.signs.as_ref().map(|(_, bytes)| bytes),
        ]
        .map(|bytes| bytes.map(Vec::as_slice))
    }
    pub(super) fn packs_bytes(&self) -> Option<&[u8]> {
        self.packs.as_ref().map(|(_, bytes)| bytes.as_slice())
    }
    /// With packs of a graph over them, if the metric has any.
    pub(super) fn packed(mut self, graph: &[u8]) -> Self {
        if self.has_codes() {
            let layout = HnswLayout::parse(graph).unwrap();
            let graph = layout.view(graph);
            let mut bytes = Vec::new();
            let mut put = |some: &[u8]| {
                bytes.extend_from_slice(some);
                Ok(())
            };
            packs::encode(&self.view(), &graph, &Workers::alone(), &never, &mut put).unwrap();
            self.packs = Some((PacksLayout::parse(&bytes, &graph).unwrap(), bytes));
        }
        self
    }
    /// With the codes that a segment of them would have.
    pub(super) fn quantized(self, wanted: Bits) -> Self {
        if !self.has_codes() {
            return self;
        }
        let coding = Coding::choose(&self.view(), wanted, fidelity::PROBES, &Workers::alone(), &never).unwrap();
        match coding.used {
            Some(bits) => self.coded(bits),
            None => self,
        }
    }
    fn graph(&self) -> Vec<u8> {
        self.graph_of(16, 100)
    }
    pub(super) fn graph_of(&self, m: u32, ef_construction: u32) -> Vec<u8> {
        hnsw::build(&self.view(), m, ef_construction, 4711, &Workers::alone(), &mut |_| true).unwrap()
    }
}

pub(super) fn never() -> bool {
    false
}
pub(super) fn search(
    index: &dyn VectorIndex,
    rows: &Rows,
    query: &[f32],
    k: usize,
    ef: usize,
    allow: &Allow<'_>,
) -> Vec<Scored> {
    let hits = index.search(&rows.view(), query, k, ef, allow, &never).unwrap().hits;
    assert!(hits.len() <= k);
    assert!(hits.is_sorted_by(|a, b| a < b), "ascending, nobody twice");
    for hit in &hits {
        assert!(allow.contains(hit.ordinal) && !rows.view().is_absent(hit.ordinal));
        assert_eq!(hit.distance, rows.view().scorer(query).distance(hit.ordinal));
    }
    hits
}

/// The share of the exact answers that the graph's answers are as near as.
pub(super) fn recall(rows: &Rows, bytes: &[u8], queries: &[Vec<f32>], k: usize, ef: usize, allow: &Allow<'_>) -> f64 {
    let layout = HnswLayout::parse(bytes).unwrap();
    let graph = layout.view(bytes);
    let (mut found, mut all) = (0, 0);
    for query in queries {
        let exact = search(&Flat, rows, query, k, 0, allow);
        let hits = search(&graph, rows, query, k, ef, allow);
        // By distance: which of several equally near rows is answered does not matter here.
        let farthest = exact.last().map_or(f32::MIN, |hit| hit.distance);
        found += hits.iter().filter(|hit| hit.distance <= farthest).count();
        all += exact.len();
    }
    found as f64 / all as f64
}

// ---- kernels

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn every_kernel_agrees_with_f64_on_any_values(
        pairs in prop::collection::vec((-1e6f32..1e6, -1e-3f32..1e-3, any::<bool>()), 1..300),
    ) {
        let a: Vec<f32> = pairs.iter().map(|(large, small, swap)| if *swap { *small } else { *large }).collect();
        let b: Vec<f32> = pairs.iter().map(|(large, small, _)| large * 0.5 + small).collect();
        for set in kernels::available() {
            check_kernels(set, &a, &b);
        }
    }
}

/// The inner loops are tested with the largest sums that there can be.
const _: () = assert!(crate::limits::DIM_MAX == kernels::tests::DIM_MAX);

/// They stand where the codes are that they go with, and wide registers make the same ones as plain code.
#[test]
fn a_question_is_rounded_to_the_nearest_integers() {
    let mut random = Random(90);
    for dim in [1usize, 2, 63, 64, 65, 127, 129, 384, 785] {
        let numbers: Vec<f32> = (0..dim).map(|_| random.normal()).collect();
        for (bits, half) in [(Bits::Eight, dim), (Bits::Four, dim.div_ceil(2))] {
            let lines = half.div_ceil(LINE) * if bits == Bits::Four { 2 } else { 1 };
            let (mut plain, mut wide) = (vec![0i8; lines * LINE], vec![0i8; lines * LINE]);
            let integers = |integers| codes::Integers {
                bits,
                numbers: &numbers,
                integers,
            };
            let (step, sum) = integers(&mut plain).run();
            assert_eq!((step, sum), kernels::in_wide_registers(integers(&mut wide)));
            assert_eq!(plain, wide, "{bits:?}, {dim} dimensions");
            assert_eq!(sum, plain.iter().map(|t| i32::from(*t)).sum::<i32>());
            for (i, x) in numbers.iter().enumerate() {
                let place = match bits {
                    Bits::Eight => i,
                    Bits::Four => i % half / LINE * 2 * LINE + i / half * LINE + i % half % LINE,
                };
                let off = f32::from(plain[place]) - x / step;
                assert!(
                    off.abs() < 0.501,
                    "{bits:?}, {dim} dimensions: {} for {}",
                    plain[place],
                    x / step
                );
            }
        }
    }
}

// ---- sets, distances

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn bit_sets_behave_as_sets(
        len in 1usize..300,
        steps in prop::collection::vec((any::<u16>(), any::<bool>()), 0..200),
    ) {
        let (mut bits, mut set) = (BitSet::new(len), BTreeSet::new());
        for (at, put) in steps {
            let ordinal = (at as usize % len) as Ordinal;
            if put {
                bits.set(ordinal);
                set.insert(ordinal);
            } else {
                bits.clear(ordinal);
                set.remove(&ordinal);
            }
        }
        prop_assert!(bits.iter().eq(set.iter().copied()));
        prop_assert_eq!((bits.count(), bits.is_empty(), bits.len()), (set.len(), set.is_empty(), len));
        prop_assert!((0..len as Ordinal + 100).all(|ordinal| bits.contains(ordinal) == set.contains(&ordinal)));
        prop_assert_eq!(BitSet::from_iter(len, set), bits);
    }
}

#[test]
fn distances_and_raw_values_of_each_metric() {
    let row = vec![3.0, 4.0];
    let cases = [
        (Metric::Cosine, vec![8.0, 6.0], 0.04, 0.96),
        (Metric::Cosine, vec![-3.0, -4.0], 2.0, -1.0),
        (Metric::Dot, vec![1.0, 2.0], -11.0, 11.0),
        (Metric::Euclid, vec![0.0, 0.0], 25.0, 5.0),
        (Metric::Manhattan, vec![1.0, 6.0], 4.0, 4.0),
        (Metric::Hamming, vec![3.0, 5.0], 1.0, 1.0),
    ];
    for (metric, query, distance, raw) in cases {
        let rows = Rows::new(metric, 2, std::slice::from_ref(&row));
        let got = rows.view().scorer(&query).distance(0);
        assert!((got - distance).abs() < 1e-6, "{metric:?} {query:?}: {got}");
        assert!(
            (metric.raw(got) - raw).abs() < 1e-6,
            "{metric:?} {query:?}: raw {}",
            metric.raw(got)
        );
    }
    assert_eq!(Metric::Cosine.raw(-1e-7), 1.0, "rounding never shows a cosine above 1");
}

#[test]
fn cosine_does_not_depend_on_lengths_however_extreme() {
    for length in [1e-40f32, 1e-30, 1e-3, 1.0, 1e3, 1e19] {
        let row: Vec<f32> = [1.0f32, 2.0, 3.0].iter().map(|x| x * length).collect();
        let rows = Rows::new(Metric::Cosine, 3, std::slice::from_ref(&row));
        assert!(rows.inv_norms[0].is_finite());
        let query: Vec<f32> = [3.0f32, 2.0, 1.0].iter().map(|x| x * 1e18).collect();
        let cosine = Metric::Cosine.raw(rows.view().scorer(&query).distance(0));
        // The smallest floats have few digits and no reciprocal: in range is all that is asked of them.
        let exact = if length < 1e-38 { 1.0 } else { 1e-6 };
        assert!((cosine - 10.0 / 14.0).abs() <= exact, "length {length}: {cosine}");
    }
    assert_eq!(inv_norm(&[0.0, 0.0]), 0.0);
}

// ---- codes

#[test]
fn distances_by_code_are_near_the_true_ones() {
    let mut random = Random(16);
    for dim in [1, 2, 3, 7, 50, 63, 64, 65, 127, 128, 129, 384, 785] {
        // Far from the origin, as the vectors of many models are: it is the mean that is taken off.
        let centre: Vec<f32> = random.vector(dim).iter().map(|x| 5.0 * x).collect();
        let rows: Vec<Vec<f32>> = (0..50).map(|_| near(&mut random, &centre, 1.0)).collect();
        let query = near(&mut random, &centre, 1.0);
        for metric in [Metric::Cosine, Metric::Dot, Metric::Euclid] {
            for (bits, steps) in [(Bits::Eight, 255.0), (Bits::Four, 15.0)] {
                let rows = Rows::new(metric, dim, &rows).coded(bits);
                let view = rows.view();
                let (exact, coded) = (view.scorer(&query), view.codes.unwrap().scorer(&query));
                // A step is at most 8 deviations wide over the steps; its error is even and adds up like noise. The query has
                // an error of its own, of at most 8 deviations over 254.
                let scale = match metric {
                    Metric::Cosine => 1.0 / (26.0 * dim as f32),
                    Metric::Dot | Metric::Manhattan | Metric::Hamming => 1.0,
                    Metric::Euclid => 2.0,
                };
                let bound = scale * 6.0 * (dim as f32).sqrt() * 2.0 * (8.0 / steps + 8.0 / 254.0) * 0.3 + 1e-4;
                for ordinal in 0..50 {
                    let (want, got) = (exact.distance(ordinal), coded.four([ordinal; 4])[0]);
                    assert!(
                        (want - got).abs() <= bound * if metric == Metric::Cosine { 5.0 } else { 1.0 },
                        "{metric:?} {bits:?} {dim} dimensions: {got}, exact {want}, bound {bound}"
                    );
                }
            }
        }
    }
}

#[test]
fn codes_rank_the_same_from_a_row_as_from_a_query_of_its_values() {
    let mut random = Random(17);
    for dim in [3, 64, 100] {
        let rows: Vec<Vec<f32>> = (0..40).map(|_| random.vector(dim)).collect();
        for metric in [Metric::Cosine, Metric::Dot, Metric::Euclid] {
            for bits in [Bits::Eight, Bits::Four] {
                let rows = Rows::new(metric, dim, &rows).coded(bits);
                let codes = rows.view().codes.unwrap();
                let sums = codes.sums();
                let mut aimed = codes.scorer_of_rows();
                let size = if metric == Metric::Cosine { 1.5 } else { dim as f32 };
                let slack = 0.02 * size * if bits == Bits::Four { 10.0 } else { 1.0 };
                for from in 0..40 {
                    aimed.aim(from);
                    let query = codes.scorer(&rows.view().row(from));
                    for to in (0..40).step_by(4) {
                        let to = [to, to + 1, to + 2, to + 3];
                        for (a, b) in aimed.four_rows(to, &sums).into_iter().zip(query.four(to)) {
                            assert!((a - b).abs() < slack, "{metric:?} {bits:?} {dim}: {a} {b}");
                        }
                    }
                    // Twice the same codes: no distance at all.
                    let itself = aimed.four_rows([from; 4], &sums)[0];
                    if metric == Metric::Euclid {
                        assert!(itself.abs() < slack, "{bits:?} {dim}: {itself} to itself");
                    }
                }
            }
        }
    }
}

#[test]
fn codes_of_extreme_vectors_are_codes() {
    let rows = [
        vec![0.0; 3],
        vec![f32::MAX, -f32::MAX, 1.0],
        vec![1e-40; 3],
        vec![7.0; 3],
    ];
    for metric in [Metric::Cosine, Metric::Dot, Metric::Euclid] {
        for bits in [Bits::Eight, Bits::Four] {
            let rows = Rows::new(metric, 3, &rows).coded(bits);
            rows.view()
                .codes
                .unwrap()
                .scorer(&[1.0, f32::MAX, 0.0])
                .four([0, 1, 2, 3]);
            search(&Flat, &rows, &[1.0, 2.0, 3.0], 4, 4, &Allow::All);
            rows.graph();
        }
    }
}

#[test]
fn codes_that_do_not_fit_are_refused() {
    let mut random = Random(18);
    let vectors: Vec<Vec<f32>> = (0..9).map(|_| random.vector(20)).collect();
    let rows = Rows::new(Metric::Euclid, 20, &vectors).coded(Bits::Four);
    let (layout, bytes) = rows.codes.clone().unwrap();
    assert!(layout.fits(Metric::Euclid, 20, 9));
    assert!(
        !layout.fits(Metric::Dot, 20, 9) && !layout.fits(Metric::Euclid, 21, 9) && !layout.fits(Metric::Euclid, 20, 8)
    );
    for length in 0..bytes.len() {
        assert_eq!(
            CodesLayout::parse(&bytes[..length]).unwrap_err().kind,
            ErrorKind::Damaged
        );
    }
    for at in 0..LINE {
        for value in [0, 1, 255] {
            let mut bytes = bytes.clone();
            if bytes[at] != value {
                bytes[at] = value;
                // A metric may be another valid one; then it does not fit.
                let fits = CodesLayout::parse(&bytes).is_ok_and(|layout| layout.fits(Metric::Euclid, 20, 9));
                assert!(!fits, "byte {at} = {value}");
            }
        }
    }
    let mut fewer = rows.view();
    fewer.data = fewer.data.part(20..fewer.data.len());
    assert_eq!(
        Flat.search(&fewer, &vectors[0], 1, 1, &Allow::All, &never)
            .unwrap_err()
            .kind,
        ErrorKind::Damaged
    );
}

// ---- exact scan

/// Small integers: many equal distances and equal vectors.
pub(super) fn coarse_rows(max: usize) -> impl Strategy<Value = (Rows, Vec<f32>, BitSet)> {
    let metric = prop::sample::select(METRICS.to_vec());
    (metric, 1usize..6, 0..max).prop_flat_map(|(metric, dim, n)| {
        let row = prop::collection::vec((-2i8..=2).prop_map(f32::from), dim);
        let rows = prop::collection::vec((row.clone(), prop::bool::weighted(0.1), any::<bool>()), n);
        (rows, row).prop_map(move |(rows, query)| {
            let vectors: Vec<Vec<f32>> = rows.iter().map(|(row, ..)| row.clone()).collect();
            let allowed = (0..rows.len() as Ordinal).filter(|ordinal| rows[*ordinal as usize].2);
            let allowed = BitSet::from_iter(rows.len(), allowed);
            let some_absent = Rows::new(metric, dim, &vectors).without(|ordinal| rows[ordinal as usize].1);
            (some_absent, query, allowed)
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn flat_is_sorting((rows, query, allowed) in coarse_rows(80), k in 0usize..20) {
        for allow in [Allow::All, Allow::Only(&allowed)] {
            let vectors = rows.view();
            let scorer = vectors.scorer(&query);
            let mut naive: Vec<Scored> = (0..vectors.len() as Ordinal)
                .filter(|ordinal| allow.contains(*ordinal) && !vectors.is_absent(*ordinal))
                .map(|ordinal| Scored { distance: scorer.distance(ordinal), ordinal })
                .collect();
            naive.sort();
            naive.truncate(k);
            prop_assert_eq!(&search(&Flat, &rows, &query, k, 0, &allow), &naive);
            if let Allow::Only(set) = allow {
                let backwards: Vec<Ordinal> = set.iter().collect();
                let found = flat::scan(&vectors, &query, backwards.into_iter().rev(), k, &never).unwrap();
                prop_assert_eq!(found.hits, naive);
            }
        }
    }
}

#[test]
fn a_scan_of_codes_finds_nearly_what_a_scan_of_vectors_does() {
    let mut random = Random(20);
    for (clusters, each, spread) in [
        (1, 3000, 1.0),
        (40, 75, 0.1),
        (8, 375, 0.1),
        (8, 375, 0.01),
        (40, 75, 1e-6),
    ] {
        let rows = clustered(&mut random, 48, clusters, each, spread);
        let queries = queries_near(&mut random, &rows, spread);
        let third = BitSet::from_iter(3000, (0..3000).filter(|o| o % 3 == 0));
        for metric in METRICS {
            for bits in [Bits::Eight, Bits::Four] {
                let rows = Rows::new(metric, 48, &rows).without(|o| o == 5).quantized(bits);
                let (mut right, mut all) = (0, 0);
                for query in &queries {
                    for allow in [Allow::All, Allow::Only(&third)] {
                        let exact = search(&Flat, &rows, query, 10, 0, &allow);
                        let candidates = || (0..3000).filter(|o| allow.contains(*o));
                        let found = flat::scan_codes(&rows.view(), query, candidates, 10, &never).unwrap();
                        assert_eq!(found.hits.len(), 10);
                        assert!(found.hits.is_sorted_by(|a, b| a < b));
                        right += found.hits.iter().filter(|hit| exact.contains(hit)).count();
                        all += 10;
                    }
                }
                let recall = right as f64 / f64::from(all);
                let eight = rows.view().codes.is_none_or(|codes| codes.bits() == Bits::Eight);
                let least = if eight { 0.99 } else { 0.95 };
                assert!(
                    recall >= least,
                    "{metric:?} {bits:?}, {clusters} clusters: recall@10 {recall}"
                );
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn a_scan_of_codes_is_exact_where_it_keeps_everything((rows, query, allowed) in coarse_rows(80), k in 0usize..20) {
        let rows = rows.coded(Bits::Eight);
        let found = flat::scan_codes(&rows.view(), &query, || allowed.iter(), k, &never).unwrap();
        let exact = search(&Flat, &rows, &query, k, 0, &Allow::Only(&allowed));
        prop_assert_eq!(found.hits.len(), exact.len());
        for (a, b) in found.hits.iter().zip(&exact) {
            prop_assert!(a.distance <= b.distance + 1e-6 + b.distance.abs() * 0.1);
        }
    }
}

// ---- graph: what it finds

/// `clusters` centres, `each` rows around each of them, one cluster after the other.
pub(super) fn clustered(random: &mut Random, dim: usize, clusters: usize, each: usize, spread: f32) -> Vec<Vec<f32>> {
    let mut rows = Vec::with_capacity(clusters * each);
    for _ in 0..clusters {
        let centre = random.vector(dim);
        rows.extend((0..each).map(|_| near(random, &centre, spread)));
    }
    rows
}

pub(super) fn near(random: &mut Random, row: &[f32], spread: f32) -> Vec<f32> {
    row.iter().map(|x| x + spread * random.normal()).collect()
}

pub(super) fn queries_near(random: &mut Random, rows: &[Vec<f32>], spread: f32) -> Vec<Vec<f32>> {
    (0..100)
        .map(|_| {
            let row = random.below(rows.len());
            near(random, &rows[row], spread)
        })
        .collect()
}

/// Recall@10 at ef 128, of everything and of a tenth, in every metric.
fn check_recall(rows: &[Vec<f32>], queries: &[Vec<f32>], least: f64) {
    let mut failures = Vec::new();
    for metric in METRICS {
        for bits in [None, Some(Bits::Eight), Some(Bits::Four)] {
            let rows = Rows::new(metric, rows[0].len(), rows);
            let rows = match bits {
                None => rows,
                Some(bits) => rows.quantized(bits),
            };
            let bytes = rows.graph();
            let tenth = BitSet::from_iter(
                rows.view().len(),
                (0..rows.view().len() as Ordinal).filter(|o| o % 10 == 3),
            );
            for with in ["nothing", "signs", "packs"] {
                let rows = match with {
                    "signs" => rows.clone().signed(),
                    "packs" => rows.clone().packed(&bytes),
                    _ => rows.clone(),
                };
                for (what, allow) in [("all", Allow::All), ("a tenth", Allow::Only(&tenth))] {
                    let recall = recall(&rows, &bytes, queries, 10, 128, &allow);
                    // Scattered in no direction is what estimates are worst at; a calibration makes up for it.
                    let least = if with == "packs" && what == "all" {
                        least - 0.035
                    } else {
                        least
                    };
                    if recall < least {
                        failures.push(format!(
                            "{metric:?}, {bits:?}, {with} beside, {what}: recall@10 {recall}"
                        ));
                    }
                }
            }
        }
    }
    assert!(failures.is_empty(), "of {} rows: {failures:#?}", rows.len());
}

#[test]
fn finds_the_nearest_among_scattered_vectors() {
    let mut random = Random(2);
    let rows: Vec<Vec<f32>> = (0..3000).map(|_| random.vector(32)).collect();
    let queries: Vec<Vec<f32>> = (0..100).map(|_| random.vector(32)).collect();
    check_recall(&rows, &queries, 0.95);
}

#[test]
fn finds_the_nearest_among_well_separated_clusters() {
    let mut random = Random(3);
    // A step of codes is 6 deviations over 255 or 15: the narrower ones of these are one to 4 bits, or to any.
    for (clusters, each, spread) in [
        (300, 10, 0.1),
        (40, 75, 0.05),
        (8, 400, 0.1),
        (8, 400, 0.02),
        (40, 75, 1e-6),
    ] {
        let rows = clustered(&mut random, 48, clusters, each, spread);
        let queries = queries_near(&mut random, &rows, spread);
        check_recall(&rows, &queries, 0.95);
    }
}

/// The rows in the order of how near they are to a place: what filters that go with a question are made of.
fn by_nearness(rows: &Rows, place: &[f32]) -> Vec<Ordinal> {
    let hits = search(&Flat, rows, place, rows.view().len(), 0, &Allow::All);
    hits.into_iter().map(|hit| hit.ordinal).collect()
}

#[test]
fn a_walk_finds_the_nearest_matches_whatever_the_filter_has_to_do_with_the_question() {
    let mut random = Random(21);
    let scattered: Vec<Vec<f32>> = (0..6000).map(|_| random.vector(24)).collect();
    let in_clusters = clustered(&mut random, 24, 60, 100, 0.3);
    let mut failures = Vec::new();
    for (what, vectors) in [("scattered", scattered), ("clustered", in_clusters)] {
        let place = vectors[17].clone();
        let queries: Vec<Vec<f32>> = (0..40).map(|_| near(&mut random, &place, 0.3)).collect();
        for rows in [
            Rows::new(Metric::Euclid, 24, &vectors),
            Rows::new(Metric::Cosine, 24, &vectors).quantized(Bits::Eight),
        ] {
            let bytes = rows.graph();
            let near_first = by_nearness(&rows, &place);
            let mut any = near_first.clone();
            any.sort_by_key(|ordinal| xxhash_rust::xxh3::xxh3_64(&ordinal.to_le_bytes()));
            let far_first: Vec<Ordinal> = near_first.iter().rev().copied().collect();
            for percent in [50, 20, 10, 5, 2] {
                for (filter, order) in [("near", &near_first), ("any", &any), ("far", &far_first)] {
                    let some = order[..60 * percent].iter().copied();
                    let allowed = BitSet::from_iter(6000, some);
                    let recall = recall(&rows, &bytes, &queries, 10, 128, &Allow::Only(&allowed));
                    if recall < 0.95 {
                        failures.push(format!("{what}, {percent} % {filter}: recall@10 {recall}"));
                    }
                }
            }
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
fn a_walk_leaves_out_most_that_do_not_match_and_gives_up_where_it_is_told_to() {
    let mut random = Random(22);
    let vectors: Vec<Vec<f32>> = (0..8000).map(|_| random.vector(16)).collect();
    let rows = Rows::new(Metric::Euclid, 16, &vectors);
    let bytes = rows.graph();
    let layout = HnswLayout::parse(&bytes).unwrap();
    let graph = layout.view(&bytes);
    let query = random.vector(16);
    let walk = |allow: &Allow<'_>, most: u64| {
        let effort = hnsw::Effort {
            evaluations_max: most,
            ..hnsw::Effort::unbounded(10, 64)
        };
        graph
            .search_within(&rows.view(), &query, effort, allow, &never)
            .unwrap()
    };
    let hnsw::Walked::Found(all) = walk(&Allow::All, u64::MAX) else {
        panic!("nothing limits it")
    };
    for share in [2, 5, 10] {
        let some = BitSet::from_iter(8000, (0..8000).filter(|ordinal| ordinal % share == 0));
        let hnsw::Walked::Found(found) = walk(&Allow::Only(&some), u64::MAX) else {
            panic!("nothing limits it")
        };
        assert!(
            found.evaluated < 6 * all.evaluated,
            "one of {share}: {} distances, {} for all",
            found.evaluated,
            all.evaluated
        );
    }
    // Of what is farthest away nothing is found before everything was seen.
    let far: Vec<Ordinal> = by_nearness(&rows, &query).into_iter().rev().take(100).collect();
    let far = BitSet::from_iter(8000, far);
    match walk(&Allow::Only(&far), 1000) {
        hnsw::Walked::GaveUp { evaluated } => assert!(evaluated <= 1100, "{evaluated}"),
        found @ hnsw::Walked::Found(_) => panic!("{found:?}"),
    }
    assert!(matches!(walk(&Allow::Only(&far), u64::MAX), hnsw::Walked::Found(found) if found.hits.len() == 10));
}

#[test]
fn finds_the_nearest_among_vectors_with_many_duplicates() {
    let mut random = Random(4);
    let originals: Vec<Vec<f32>> = (0..1000).map(|_| random.vector(32)).collect();
    let mut rows = originals.clone();
    // One vector a thousand times, ten of them a hundred times, and some at random.
    rows.extend((0..1000).map(|_| originals[0].clone()));
    rows.extend((0..1000).map(|i| originals[i % 10].clone()));
    rows.extend((0..500).map(|_| originals[random.below(1000)].clone()));
    let queries = queries_near(&mut random, &originals, 0.3);
    check_recall(&rows, &queries, 0.95);
}

#[test]
fn finds_the_nearest_by_inner_product_whatever_the_lengths() {
    let mut random = Random(5);
    let rows: Vec<Vec<f32>> = (0..3000)
        .map(|_| {
            let length = random.normal().exp();
            random.vector(64).iter().map(|x| x * length).collect()
        })
        .collect();
    let queries: Vec<Vec<f32>> = (0..100).map(|_| random.vector(64)).collect();
    let rows = Rows::new(Metric::Dot, 64, &rows);
    let recall = recall(&rows, &rows.graph(), &queries, 10, 128, &Allow::All);
    assert!(recall >= 0.95, "recall@10 {recall}");
}

#[test]
fn finds_the_nearest_present_ones_where_vectors_are_absent() {
    let mut random = Random(6);
    let rows: Vec<Vec<f32>> = (0..2000).map(|_| random.vector(32)).collect();
    let queries: Vec<Vec<f32>> = (0..100).map(|_| random.vector(32)).collect();
    for metric in METRICS {
        let rows = Rows::new(metric, 32, &rows).without(|ordinal| ordinal % 3 == 0);
        let recall = recall(&rows, &rows.graph(), &queries, 10, 128, &Allow::All);
        assert!(recall >= 0.95, "{metric:?}: recall@10 {recall}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn a_graph_is_exact_when_ef_covers_it((rows, query, allowed) in coarse_rows(120), k in 0usize..40) {
        // The smallest blocks: links are chosen anew all the time, and nodes are left to be joined.
        let bytes = rows.graph_of(2, 4);
        let layout = HnswLayout::parse(&bytes).unwrap();
        for allow in [Allow::All, Allow::Only(&allowed)] {
            let exact = search(&Flat, &rows, &query, k, 0, &allow);
            prop_assert_eq!(search(&layout.view(&bytes), &rows, &query, k, 120, &allow), exact);
        }
        // With codes all that are asked for are measured again.
        let rows = rows.coded(Bits::Four);
        let bytes = rows.graph_of(2, 4);
        let layout = HnswLayout::parse(&bytes).unwrap();
        for allow in [Allow::All, Allow::Only(&allowed)] {
            let exact = search(&Flat, &rows, &query, 120, 0, &allow);
            prop_assert_eq!(search(&layout.view(&bytes), &rows, &query, 120, 120, &allow), exact);
        }
    }
}

#[test]
fn a_graph_never_returns_fewer_than_k_while_k_are_allowed() {
    let mut random = Random(7);
    let rows = clustered(&mut random, 16, 20, 100, 0.05);
    let query = random.vector(16);
    for metric in METRICS {
        let rows = Rows::new(metric, 16, &rows);
        let bytes = rows.graph();
        let layout = HnswLayout::parse(&bytes).unwrap();
        for matches in [0, 1, 9, 10, 11, 50, 2000] {
            let allowed = BitSet::from_iter(2000, (0..matches).map(|_| random.below(2000) as Ordinal));
            let hits = search(&layout.view(&bytes), &rows, &query, 10, 10, &Allow::Only(&allowed));
            assert_eq!(hits.len(), allowed.count().min(10), "{metric:?}, {matches} draws");
        }
    }
}

#[test]
fn graphs_of_no_one_and_two_vectors_and_of_absent_ones_only() {
    for metric in METRICS {
        for n in 0..=2 {
            let vectors: Vec<Vec<f32>> = (0..n).map(|i| vec![1.0, i as f32]).collect();
            let rows = Rows::new(metric, 2, &vectors);
            let bytes = rows.graph();
            let layout = HnswLayout::parse(&bytes).unwrap();
            assert_eq!(layout.len(), n);
            let exact = search(&Flat, &rows, &[1.0, 0.0], 5, 0, &Allow::All);
            assert_eq!(
                search(&layout.view(&bytes), &rows, &[1.0, 0.0], 5, 5, &Allow::All),
                exact
            );
            let rows = rows.without(|_| true);
            let bytes = rows.graph();
            let layout = HnswLayout::parse(&bytes).unwrap();
            assert_eq!(search(&layout.view(&bytes), &rows, &[1.0, 0.0], 5, 5, &Allow::All), []);
        }
    }
}

#[test]
fn twins_are_answered_by_ordinal_and_one_by_one() {
    let mut random = Random(8);
    let mut vectors: Vec<Vec<f32>> = (0..100).map(|_| random.vector(8)).collect();
    let twin = vectors[40].clone();
    vectors.extend((0..50).map(|_| twin.clone()));
    let rows = Rows::new(Metric::Euclid, 8, &vectors).without(|ordinal| ordinal == 110);
    let bytes = rows.graph();
    let layout = HnswLayout::parse(&bytes).unwrap();
    let ordinals = |k, allow: &Allow<'_>| -> Vec<Ordinal> {
        search(&layout.view(&bytes), &rows, &twin, k, 16, allow)
            .iter()
            .map(|hit| hit.ordinal)
            .collect()
    };
    assert_eq!(ordinals(4, &Allow::All), [40, 100, 101, 102]);
    let only = BitSet::from_iter(150, [109, 110, 111, 149]);
    assert_eq!(
        ordinals(9, &Allow::Only(&only)),
        [109, 111, 149],
        "each twin is allowed or not for itself"
    );
}

// ---- graph: how it behaves

#[test]
fn the_same_vectors_give_the_same_bytes() {
    let mut random = Random(9);
    let rows = Rows::new(Metric::Cosine, 24, &clustered(&mut random, 24, 10, 50, 0.1));
    assert_eq!(rows.graph(), rows.graph());
    let other_seed = hnsw::build(&rows.view(), 16, 100, 4712, &Workers::alone(), &mut |_| true).unwrap();
    assert_ne!(rows.graph(), other_seed);
}

/// All shares on threads of their own, the last first.
pub(super) fn backwards(threads: usize) -> Workers {
    Workers::new(move |shares, work| {
        std::thread::scope(|scope| {
            for thread in (0..threads).rev() {
                scope.spawn(move || {
                    (0..shares)
                        .rev()
                        .filter(|share| share % threads == thread)
                        .for_each(work)
                });
            }
        });
    })
}

#[test]
fn the_bytes_do_not_depend_on_who_helps() {
    let mut random = Random(19);
    let vectors = clustered(&mut random, 24, 30, 100, 0.1);
    for metric in METRICS {
        for bits in [None, Some(Bits::Eight)] {
            let rows = Rows::new(metric, 24, &vectors);
            let rows = match bits {
                None => rows,
                Some(bits) => rows.coded(bits),
            };
            let alone = rows.graph_of(8, 40);
            for threads in [2, 3] {
                let helped = hnsw::build(&rows.view(), 8, 40, 4711, &backwards(threads), &mut |_| true).unwrap();
                assert!(helped == alone, "{metric:?} {bits:?}, {threads} threads");
            }
        }
    }
}

#[test]
fn a_late_search_is_an_error_and_never_a_short_list() {
    let mut random = Random(10);
    let rows = Rows::new(Metric::Euclid, 8, &clustered(&mut random, 8, 1, 2000, 1.0));
    let query = random.vector(8);
    let bytes = rows.graph();
    let layout = HnswLayout::parse(&bytes).unwrap();
    let graph = layout.view(&bytes);
    for index in [&Flat as &dyn VectorIndex, &graph] {
        let complete = search(index, &rows, &query, 10, 500, &Allow::All);
        let mut late = 0;
        loop {
            let asked = Cell::new(0);
            let stop = || {
                asked.set(asked.get() + 1);
                asked.get() > late
            };
            match index.search(&rows.view(), &query, 10, 500, &Allow::All, &stop) {
                Ok(found) => {
                    assert_eq!(found.hits, complete);
                    break;
                }
                Err(error) => assert_eq!((error.kind, error.code), (ErrorKind::Deadline, "deadline_exceeded")),
            }
            late += 1;
        }
        assert!(late >= 3, "asked {late} times only");
    }
}

#[test]
fn a_build_reports_its_progress_and_can_be_cancelled() {
    let mut random = Random(11);
    let rows = Rows::new(Metric::Dot, 8, &clustered(&mut random, 8, 1, 500, 1.0));
    let mut reports = Vec::new();
    hnsw::build(&rows.view(), 8, 32, 1, &Workers::alone(), &mut |done| {
        reports.push(done);
        true
    })
    .unwrap();
    assert!(
        reports.is_sorted() && reports.len() > 5 && reports.last() == Some(&500),
        "{reports:?}"
    );
    let error = hnsw::build(&rows.view(), 8, 32, 1, &Workers::alone(), &mut |done| done < 300).unwrap_err();
    assert_eq!((error.kind, error.code), (ErrorKind::Cancelled, "cancelled"));
}

#[test]
fn parts_that_do_not_fit_are_errors() {
    let mut random = Random(12);
    let rows = Rows::new(Metric::Cosine, 4, &clustered(&mut random, 4, 1, 20, 1.0));
    let bytes = rows.graph();
    let layout = HnswLayout::parse(&bytes).unwrap();
    let graph = layout.view(&bytes);
    let kind = |index: &dyn VectorIndex, vectors: VectorsRef<'_>, query: &[f32]| {
        index
            .search(&vectors, query, 1, 1, &Allow::All, &never)
            .map_err(|error| error.kind)
    };
    for index in [&Flat as &dyn VectorIndex, &graph] {
        let vectors = rows.view();
        assert_eq!(kind(index, vectors, &[1.0; 3]), Err(ErrorKind::Invalid));
        assert_eq!(
            kind(
                index,
                VectorsRef {
                    inv_norms: &[],
                    ..vectors
                },
                &[1.0; 4]
            ),
            Err(ErrorKind::Damaged)
        );
        assert_eq!(
            kind(
                index,
                VectorsRef {
                    data: vectors.data.part(1..vectors.data.len()),
                    touch: None,
                    ..vectors
                },
                &[1.0; 4]
            ),
            Err(ErrorKind::Damaged)
        );
    }
    let fewer = VectorsRef {
        data: Floats::Singles(&rows.data[4..]),
        touch: None,
        inv_norms: &rows.inv_norms[1..],
        ..rows.view()
    };
    assert_eq!(kind(&graph, fewer, &[1.0; 4]), Err(ErrorKind::Damaged));
    assert!(flat::scan(&rows.view(), &[1.0; 4], [20].into_iter(), 1, &never).is_err());
    for m in [0, 1, 257] {
        let error = hnsw::build(&rows.view(), m, 32, 1, &Workers::alone(), &mut |_| true).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Invalid);
    }
}

#[test]
fn changed_bytes_are_refused_or_searched_without_harm() {
    let mut random = Random(13);
    let mut vectors = clustered(&mut random, 4, 5, 40, 0.2);
    vectors.extend_from_within(..30);
    let rows = Rows::new(Metric::Euclid, 4, &vectors).without(|ordinal| ordinal == 7);
    let n = vectors.len();
    let valid = rows.graph_of(4, 16);
    let words: &[u32] = bytemuck::cast_slice(&valid);
    let (mut refused, mut searched) = (0, 0);
    for _ in 0..20_000 {
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
        let bytes: &[u8] = bytemuck::cast_slice(&words);
        match HnswLayout::parse(bytes) {
            Err(error) => {
                assert_eq!(error.kind, ErrorKind::Damaged);
                refused += 1;
            }
            Ok(layout) if layout.len() == n => {
                let query = random.vector(4);
                // Also checks that nothing absent and nobody twice is answered.
                search(&layout.view(bytes), &rows, &query, 10, 300, &Allow::All);
                searched += 1;
            }
            Ok(_) => {}
        }
    }
    assert!(
        refused > 1000 && searched > 1000,
        "refused {refused}, searched {searched}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]
    #[test]
    fn no_bytes_make_parse_panic(mut words in prop::collection::vec(prop_oneof![0u32..20, any::<u32>()], 0..200)) {
        let _ = HnswLayout::parse(bytemuck::cast_slice(&words));
        // And past the first check.
        if let Some(start) = words.get_mut(..2) {
            start.copy_from_slice(&[u32::from_le_bytes(*b"CHNW"), 1]);
        }
        let _ = HnswLayout::parse(bytemuck::cast_slice(&words));
    }
}

#[test]
fn bytes_off_their_alignment_are_refused() {
    let bytes = Rows::new(Metric::Dot, 1, &[vec![1.0]]).graph();
    let mut shifted: Vec<u32> = vec![0; bytes.len() / 4 + 1];
    let shifted: &mut [u8] = bytemuck::cast_slice_mut(&mut shifted);
    shifted[1..=bytes.len()].copy_from_slice(&bytes);
    assert_eq!(
        HnswLayout::parse(&shifted[1..=bytes.len()]).unwrap_err().kind,
        ErrorKind::Damaged
    );
}

// ---- a measurement

/// 117,659 WordNet glosses (MiniLM), SQuAD questions, and the hundred nearest of each; none if `CAIRN_DATA` does not name them.
fn wordnet() -> Option<(Rows, Vec<f32>, Vec<u32>)> {
    let Some(dir) = std::env::var_os("CAIRN_DATA").map(std::path::PathBuf::from) else {
        eprintln!("skipped: CAIRN_DATA is not set");
        return None;
    };
    let npy = |name: &str| {
        let bytes = std::fs::read(dir.join(name)).unwrap();
        let header = 10 + u16::from_le_bytes([bytes[8], bytes[9]]) as usize;
        bytes[header..].to_vec()
    };
    let halves = npy("wordnet_minilm_384.npy");
    let glosses = halves.as_chunks().0.iter().map(|half| widen(u16::from_le_bytes(*half)));
    let glosses: Vec<f32> = glosses.collect();
    let glosses: Vec<Vec<f32>> = glosses.chunks_exact(WORDNET_DIM).map(<[f32]>::to_vec).collect();
    let rows = Rows::new(Metric::Cosine, WORDNET_DIM, &glosses);
    let queries = npy("wordnet_queries_minilm_384.npy");
    let queries = queries.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
    let truth = npy("wordnet_gt_top100_ids.npy");
    let truth = truth.as_chunks().0.iter().map(|bytes| u32::from_le_bytes(*bytes));
    Some((rows, queries.collect(), truth.collect()))
}

const WORDNET_DIM: usize = 384;

/// Build time, recall and speed on WordNet:
/// `CAIRN_DATA=<dir> cargo test -p cairn-engine --lib measure_wordnet -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement of about a minute; CAIRN_DATA names the directory of wordnet_*.npy"]
fn measure_wordnet() {
    let Some((rows, queries, truth)) = wordnet() else {
        return;
    };
    let started = std::time::Instant::now();
    let bytes = rows.graph_of(16, 128);
    eprintln!(
        "{}: built in {:.1} s, {} bytes",
        kernels::best().name,
        started.elapsed().as_secs_f64(),
        bytes.len()
    );
    let started = std::time::Instant::now();
    let layout = HnswLayout::parse(&bytes).unwrap();
    eprintln!("parsed in {:.1} ms", started.elapsed().as_secs_f64() * 1e3);
    let graph = layout.view(&bytes);
    for (index, ef) in [
        (&graph as &dyn VectorIndex, 32),
        (&graph, 64),
        (&graph, 128),
        (&graph, 256),
        (&Flat, 0),
    ] {
        let count = if ef == 0 { 50 } else { queries.len() / WORDNET_DIM };
        let started = std::time::Instant::now();
        let (mut right, mut evaluated) = (0, 0);
        for (query, truth) in queries
            .chunks_exact(WORDNET_DIM)
            .zip(truth.chunks_exact(100))
            .take(count)
        {
            let found = index.search(&rows.view(), query, 10, ef, &Allow::All, &never).unwrap();
            right += found
                .hits
                .iter()
                .filter(|hit| truth[..10].contains(&hit.ordinal))
                .count();
            evaluated += found.evaluated;
        }
        let per_second = count as f64 / started.elapsed().as_secs_f64();
        let recall = right as f64 / (10 * count) as f64;
        eprintln!(
            "ef {ef}: recall@10 {recall:.4}, {per_second:.0} queries/s, {} distances",
            evaluated / count as u64
        );
    }
}

/// What each way of a plan costs on WordNet, for the constants of `query/plan.rs`:
/// `CAIRN_DATA=<dir> cargo test -p cairn-engine --lib measure_ways -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement of about two minutes; CAIRN_DATA names the directory of wordnet_*.npy"]
fn measure_ways() {
    const QUERIES: usize = 100;
    let Some((floats, queries, _)) = wordnet() else { return };
    let both = Workers::new(|shares, work| {
        let next = std::sync::atomic::AtomicUsize::new(0);
        let help = || {
            loop {
                let share = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                if share >= shares {
                    return;
                }
                work(share);
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(help);
            help();
        });
    });
    let n = floats.view().len();
    let mut any: Vec<Ordinal> = (0..n as Ordinal).collect();
    any.sort_by_key(|ordinal| xxhash_rust::xxh3::xxh3_64(&ordinal.to_le_bytes()));
    for bits in [Bits::Four, Bits::Eight] {
        let started = std::time::Instant::now();
        let coding = Coding::choose(&floats.view(), bits, fidelity::PROBES, &both, &never).unwrap();
        eprintln!("{coding:?} in {:.2} s", started.elapsed().as_secs_f64());
    }
    let rows = floats.coded(Bits::Eight);
    let started = std::time::Instant::now();
    let bytes = hnsw::build(&rows.view(), 16, 128, 1, &both, &mut |_| true).unwrap();
    eprintln!("built in {:.1} s", started.elapsed().as_secs_f64());
    let layout = HnswLayout::parse(&bytes).unwrap();
    let (graph, view) = (layout.view(&bytes), rows.view());
    for percent in [100.0, 50.0, 30.0, 20.0, 10.0, 5.0, 2.0, 1.0, 0.1] {
        let count = (n as f64 * percent / 100.0) as usize;
        let allowed = BitSet::from_iter(n, any[..count].iter().copied());
        let allow = Allow::Only(&allowed);
        let ask = |way: &dyn Fn(&[f32]) -> Found| -> (f64, u64, Vec<Found>) {
            let all = || queries.chunks_exact(WORDNET_DIM).take(QUERIES);
            all().take(10).for_each(|query| drop(way(query)));
            let started = std::time::Instant::now();
            let found: Vec<Found> = all().map(way).collect();
            let us = started.elapsed().as_secs_f64() * 1e6 / QUERIES as f64;
            let evaluated = found.iter().map(|found| found.evaluated).sum::<u64>() / QUERIES as u64;
            (us, evaluated, found)
        };
        let (exact_us, _, exact) = ask(&|query| flat::scan(&view, query, allowed.iter(), 10, &never).unwrap());
        let (codes_us, _, coded) = ask(&|query| flat::scan_codes(&view, query, || allowed.iter(), 14, &never).unwrap());
        let recall = |found: &[Found]| {
            let right = found.iter().zip(&exact).map(|(found, exact)| {
                let hits = found.hits.iter().filter(|hit| exact.hits.contains(hit));
                hits.count()
            });
            right.sum::<usize>() as f64 / exact.iter().map(|exact| exact.hits.len()).sum::<usize>() as f64
        };
        eprint!(
            "{percent:>5} %: exact {exact_us:.0} us ({:.1} ns a match), codes {codes_us:.0} us ({:.1}), recall {:.4}",
            exact_us * 1e3 / count as f64,
            codes_us * 1e3 / count as f64,
            recall(&coded)
        );
        for ef in [32, 128] {
            let (us, evaluated, walked) = ask(&|query| graph.search(&view, query, 14, ef, &allow, &never).unwrap());
            eprint!(
                "; walk ef {ef}: {us:.0} us, {evaluated} distances ({:.0} ns each), recall {:.4}",
                us * 1e3 / evaluated as f64,
                recall(&walked)
            );
        }
        eprintln!();
    }
}

/// An IEEE half as a float.
fn widen(half: u16) -> f32 {
    let sign = if half >> 15 == 1 { -1.0 } else { 1.0 };
    let (exponent, fraction) = (i32::from(half >> 10 & 0x1f), f32::from(half & 0x3ff));
    match exponent {
        0 => sign * fraction * 2f32.powi(-24),
        _ => sign * (1.0 + fraction / 1024.0) * 2f32.powi(exponent - 15),
    }
}
