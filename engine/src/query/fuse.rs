//! Several ranked lists become one. Pure: lists in, list out.

use std::collections::BTreeMap;

use super::Fuse;
use super::exec::Found;
use super::view::Place;

/// Joins the legs' lists (each best first). The result is unsorted; `key` and `score` are the fused score, 0..1.
pub(super) fn fuse(method: &Fuse, legs: Vec<Vec<Found>>) -> Vec<Found> {
    let (Fuse::Rrf { weights, .. } | Fuse::Weighted { weights }) = method;
    let weight = |leg: usize| weights.get(leg).copied().unwrap_or(1.0);
    let best: f32 = match method {
        Fuse::Rrf { k, .. } => (0..legs.len()).map(|leg| weight(leg) / (k + 1.0)).sum(),
        Fuse::Weighted { .. } => (0..legs.len()).map(weight).sum(),
    };
    // Keyed by place, so that the sums are made in the same order every time.
    let mut joined: BTreeMap<Place, Found> = BTreeMap::new();
    for (leg, hits) in legs.into_iter().enumerate() {
        let (low, high) = hits.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(l, h), f| {
            (l.min(f.key), h.max(f.key))
        });
        for (i, mut hit) in hits.into_iter().enumerate() {
            let part = weight(leg)
                * match method {
                    Fuse::Rrf { k, .. } => 1.0 / (k + (i + 1) as f32),
                    Fuse::Weighted { .. } if high > low => (hit.key - low) / (high - low),
                    Fuse::Weighted { .. } => 1.0,
                };
            match joined.get_mut(&hit.place) {
                Some(present) => {
                    present.key += part;
                    present.raws.append(&mut hit.raws);
                }
                None => {
                    hit.key = part;
                    joined.insert(hit.place, hit);
                }
            }
        }
    }
    joined
        .into_values()
        .map(|mut hit| {
            hit.key = if best > 0.0 {
                (hit.key / best).clamp(0.0, 1.0)
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
}
