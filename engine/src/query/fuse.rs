//! Several ranked lists become one. Pure: lists in, list out.

use std::collections::BTreeMap;

use super::Fuse;
use super::exec::Found;
use super::view::Place;

/// Joins the legs' lists (each best first). The result is unsorted; `key` and `score` are the fused score, 0..1.
pub(super) fn fuse(method: &Fuse, legs: Vec<Vec<Found>>) -> Vec<Found> {
    let (Fuse::Rrf { weights, .. } | Fuse::Weighted { weights }) = method;
    // In f64, because the keys of a leg may be as far apart as the numbers of an f32 are.
    let weight = |leg: usize| f64::from(weights.get(leg).copied().unwrap_or(1.0));
    let best: f64 = match method {
        Fuse::Rrf { k, .. } => (0..legs.len()).map(|leg| weight(leg) / (f64::from(*k) + 1.0)).sum(),
        Fuse::Weighted { .. } => (0..legs.len()).map(weight).sum(),
    };
    // Keyed by place, so that the sums are made in the same order every time.
    let mut joined: BTreeMap<Place, (f64, Found)> = BTreeMap::new();
    for (leg, hits) in legs.into_iter().enumerate() {
        let (low, high) = hits.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), f| {
            (l.min(f64::from(f.key)), h.max(f64::from(f.key)))
        });
        for (i, mut hit) in hits.into_iter().enumerate() {
            let part = weight(leg)
                * match method {
                    Fuse::Rrf { k, .. } => 1.0 / (f64::from(*k) + (i + 1) as f64),
                    Fuse::Weighted { .. } if high > low => (f64::from(hit.key) - low) / (high - low),
                    Fuse::Weighted { .. } => 1.0,
                };
            match joined.get_mut(&hit.place) {
                Some((sum, present)) => {
                    *sum += part;
                    present.raws.append(&mut hit.raws);
                }
                None => {
                    joined.insert(hit.place, (part, hit));
                }
            }
        }
    }
    joined
        .into_values()
        .map(|(sum, mut hit)| {
            hit.key = if best > 0.0 {
                (sum / best).clamp(0.0, 1.0) as f32
            } else {
                0.0
            };
            hit.score = hit.key;
            hit
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::exec::Raw;
    use super::*;

    fn list(leg: &str, hits: &[(u32, f32)]) -> Vec<Found> {
        hits.iter()
            .enumerate()
            .map(|(i, (ordinal, key))| Found {
                place: Place {
                    shard: 0,
                    segment: 0,
                    ordinal: *ordinal,
                },
                key: *key,
                score: 0.0,
                raws: vec![Raw {
                    leg: leg.into(),
                    raw: *key,
                    rank: i as u32 + 1,
                }],
            })
            .collect()
    }

    fn check(method: &Fuse, expected: &[(u32, f32)]) {
        let mut fused = fuse(
            method,
            vec![
                list("a", &[(1, 9.0), (2, 5.0), (3, 1.0)]),
                list("b", &[(2, 0.5), (4, 0.25)]),
            ],
        );
        fused.sort_by(|x, y| y.key.total_cmp(&x.key).then(x.place.cmp(&y.place)));
        let got: Vec<_> = fused.iter().map(|f| (f.place.ordinal, f.score)).collect();
        assert_eq!(got.len(), expected.len());
        for (g, e) in got.iter().zip(expected) {
            assert_eq!(g.0, e.0, "{got:?}");
            assert!((g.1 - e.1).abs() < 1e-5, "{got:?}");
        }
    }

    #[test]
    fn rrf_adds_reciprocal_ranks_and_scales_to_one() {
        let best = 2.0 / 61.0;
        let method = Fuse::Rrf {
            k: 60.0,
            weights: vec![],
        };
        check(
            &method,
            &[
                (2, (1.0 / 62.0 + 1.0 / 61.0) / best),
                (1, 1.0 / 61.0 / best),
                (4, 1.0 / 62.0 / best),
                (3, 1.0 / 63.0 / best),
            ],
        );
    }

    #[test]
    fn weighted_normalises_each_leg_and_honours_weights() {
        let method = Fuse::Weighted {
            weights: vec![1.0, 3.0],
        };
        check(&method, &[(2, (0.5 + 3.0) / 4.0), (1, 0.25), (3, 0.0), (4, 0.0)]);
    }

    /// What sparse vectors of the largest weights give; their difference is no number of an f32.
    #[test]
    fn scores_of_the_farthest_keys_are_numbers() {
        for weights in [vec![], vec![1e6, 1e6]] {
            let method = Fuse::Weighted { weights };
            let legs = vec![
                list("a", &[(1, f32::MAX), (2, f32::MIN)]),
                list("b", &[(2, f32::MAX), (3, f32::MIN)]),
            ];
            let scores: Vec<f32> = fuse(&method, legs).iter().map(|found| found.score).collect();
            assert_eq!(scores, [0.5, 0.5, 0.0]);
        }
    }
}
