//! Claims about signs: how far estimates are off, and that no bytes break them.

use proptest::prelude::*;

use super::super::tests::{METRICS, Random, Rows, coarse_rows};
use super::*;

fn encoded(rows: &Rows) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(&rows.view(), &mut |some| {
        bytes.extend_from_slice(some);
        Ok(())
    })
    .unwrap();
    bytes
}

#[test]
fn a_rotation_keeps_lengths_and_angles_and_spreads_one_dimension_over_all() {
    let mut random = Random(70);
    for dim in [1, 2, 3, 5, 64, 96, 100, 384, 784, 1000] {
        let rotation = Rotation::new(dim);
        let (a, b) = (random.vector(dim), random.vector(dim));
        let turned = |v: &[f32]| {
            let mut v = v.to_vec();
            rotation.turn(&mut v);
            v
        };
        let (turned_a, turned_b) = (turned(&a), turned(&b));
        let length = (product(&a, &a) * product(&b, &b)).sqrt();
        assert!((product(&turned_a, &turned_b) - product(&a, &b)).abs() < 1e-4 * length.max(1.0));
        if dim >= 64 {
            let mut one = vec![0.0; dim];
            one[dim / 3] = 1.0;
            let most = turned(&one).into_iter().fold(0f32, |most, x| most.max(x.abs()));
            assert!(most < 6.0 / (dim as f32).sqrt(), "{dim} dimensions: {most}");
        }
    }
}

#[test]
fn estimates_are_off_by_what_they_say() {
    let mut random = Random(71);
    for metric in METRICS.into_iter().filter(|metric| *metric != Metric::Manhattan) {
        for dim in [100, 384] {
            // Far from the origin, and with a few dimensions that hold most of the length.
            let mut row = || -> Vec<f32> {
                let mut row = random.vector(dim);
                row.iter_mut().step_by(9).for_each(|x| *x = *x * 4.0 + 3.0);
                row
            };
            let vectors: Vec<Vec<f32>> = (0..500).map(|_| row()).collect();
            let questions: Vec<Vec<f32>> = (0..20).map(|_| row()).collect();
            let rows = Rows::new(metric, dim, &vectors);
            let bytes = encoded(&rows);
            let signs = SignsLayout::parse(&bytes).unwrap().view(&bytes);
            let (mut errors, mut squares, mut beyond) = (0.0, 0.0, 0);
            let mut count = 0;
            for question in &questions {
                let (exactly, scorer) = (rows.view().scorer(question), signs.scorer(question));
                for ordinal in 0..500 {
                    let record = signs.record(ordinal);
                    let at = dim.div_ceil(WORD) * 8;
                    let [_, _, error]: [f32; 3] = bytemuck::pod_read_unaligned(&record[at..at + CORRECTIONS]);
                    let said = scorer.slack / ERRORS * error;
                    let estimate = scorer.least([ordinal; 4])[0] + scorer.slack * error;
                    let off = f64::from((exactly.distance(ordinal) - estimate) / said);
                    errors += off;
                    squares += off * off;
                    beyond += i32::from(off.abs() > 3.0);
                    count += 1;
                }
            }
            let (mean, deviation) = (errors / f64::from(count), (squares / f64::from(count)).sqrt());
            assert!(
                mean.abs() < 0.1,
                "{metric:?}, {dim} dimensions: {mean} deviations too far on average"
            );
            assert!(
                (0.8..1.2).contains(&deviation),
                "{metric:?}, {dim} dimensions: {deviation} of what they say"
            );
            assert!(
                beyond < count / 100,
                "{metric:?}, {dim} dimensions: {beyond} of {count}"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn any_bytes_are_refused_or_estimated_with((rows, query, _) in coarse_rows(20), at in any::<usize>(), to in any::<u8>(), cut in any::<usize>()) {
        let view = rows.view();
        prop_assume!(view.metric != Metric::Manhattan && !view.is_empty());
        let mut bytes = encoded(&rows);
        let all = SignsLayout::parse(&bytes).unwrap();
        prop_assert!(all.fits(view.metric, view.dim, view.len()));
        let at = at % bytes.len();
        bytes[at] = to;
        if let Ok(layout) = SignsLayout::parse(&bytes) && layout.fits(view.metric, view.dim, view.len()) {
            let scorer = layout.view(&bytes).scorer(&query);
            for ordinal in 0..view.len() as Ordinal {
                let _ = scorer.least([ordinal; 4]);
            }
        }
        bytes.truncate(cut % bytes.len());
        prop_assert!(SignsLayout::parse(&bytes).is_err());
    }
}
