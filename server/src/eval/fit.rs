//! Which fusion of a dense leg and BM25 is best on some questions? Every setting of a grid, on lists that were asked once.
//!
//! Lists are fused here by the engine's formula (`engine/src/query/fuse.rs`); `cairn-bench squad --fit` compares the two
//! on real answers. The best setting has the highest value of the metric, then the highest nDCG. Whoever reports it must do so
//! on other questions than these.

use std::collections::BTreeMap;

use super::measures::{Graded, Judged, Measure, Metric};

/// `k` of a fusion by ranks.
const RRF_K: [f32; 8] = [1.0, 2.0, 5.0, 10.0, 20.0, 40.0, 60.0, 100.0];
/// Weights of the dense leg, where BM25 has 1.
const DENSE_WEIGHTS: [f32; 16] = [
    0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.85, 1.0, 1.25, 1.5, 2.0, 3.0,
];

/// A way to fuse.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Setting {
    /// By ranks.
    Rrf {
        /// Flattens the head of the lists.
        k: f32,
        /// Weight of the dense leg.
        dense: f32,
    },
    /// By the mean of normalised scores.
    Weighted {
        /// Weight of the dense leg.
        dense: f32,
    },
}

/// One hit of one leg.
#[derive(Debug, Clone, PartialEq)]
pub struct LegHit {
    /// The point.
    pub id: String,
    /// What is judged: its document, or the point itself.
    pub judged: String,
    /// Its raw score in the leg, higher is better.
    pub raw: f32,
}

/// One leg's list for one question, best first.
pub type List = Vec<LegHit>;

/// A setting and what it reaches.
#[derive(Debug, Clone, PartialEq)]
pub struct Tried {
    /// Which.
    pub setting: Setting,
    /// What it is chosen by.
    pub value: f64,
    /// nDCG at the same cut, which decides between equals.
    pub ndcg: f64,
    /// Every question's list.
    pub lists: Vec<Graded>,
}

impl Setting {
    /// The whole grid.
    pub fn all() -> Vec<Self> {
        let rrf = RRF_K
            .into_iter()
            .flat_map(|k| DENSE_WEIGHTS.map(|dense| Self::Rrf { k, dense }));
        rrf.chain(DENSE_WEIGHTS.map(|dense| Self::Weighted { dense })).collect()
    }
    /// As a person reads it.
    pub fn name(self) -> String {
        match self {
            Self::Rrf { k, dense } => format!("rrf k={k} dense={dense}"),
            Self::Weighted { dense } => format!("weighted dense={dense}"),
        }
    }

    /// Two lists joined, scores 0..1, the best `limit`; ties by id.
    pub fn fuse<'a>(self, dense: &'a [LegHit], bm25: &'a [LegHit], limit: usize) -> Vec<(&'a LegHit, f32)> {
        let (weight, best) = match self {
            Self::Rrf { k, dense } => (dense, dense / (k + 1.0) + 1.0 / (k + 1.0)),
            Self::Weighted { dense } => (dense, dense + 1.0),
        };
        let mut joined: BTreeMap<&str, (&LegHit, f32)> = BTreeMap::new();
        for (list, weight) in [(dense, weight), (bm25, 1.0)] {
            let ends = (f32::INFINITY, f32::NEG_INFINITY);
            let (low, high) = list.iter().fold(ends, |(l, h), hit| (l.min(hit.raw), h.max(hit.raw)));
            for (i, hit) in list.iter().enumerate() {
                let part = weight
                    * match self {
                        Self::Rrf { k, .. } => 1.0 / (k + (i + 1) as f32),
                        Self::Weighted { .. } if high > low => (hit.raw - low) / (high - low),
                        Self::Weighted { .. } => 1.0,
                    };
                joined.entry(&hit.id).or_insert((hit, 0.0)).1 += part;
            }
        }
        let scaled = joined
            .into_values()
            .map(|(hit, sum)| (hit, (sum / best).clamp(0.0, 1.0)));
        let mut fused: Vec<_> = scaled.collect();
        fused.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.id.cmp(&b.0.id)));
        fused.truncate(limit);
        fused
    }
}

/// A leg by itself.
pub fn alone(lists: &[List], judged: &[&Judged]) -> Vec<Graded> {
    let grade = |(list, judged): (&List, &&Judged)| judged.grade_list(list.iter().map(|h| h.judged.as_str()));
    lists.iter().zip(judged).map(grade).collect()
}

/// Tries every setting on the questions whose lists these are; the best comes first. `hits` are taken from a fused list
/// before it is judged.
pub fn grid(dense: &[List], bm25: &[List], judged: &[&Judged], by: Metric, hits: usize) -> Vec<Tried> {
    let ndcg = Metric::new(Measure::Ndcg, by.k);
    let try_one = |setting: Setting| {
        let fuse = |((dense, bm25), judged): ((&List, &List), &&Judged)| {
            let fused = setting.fuse(dense, bm25, hits);
            judged.grade_list(fused.iter().map(|(hit, _)| hit.judged.as_str()))
        };
        let lists: Vec<Graded> = dense.iter().zip(bm25).zip(judged).map(fuse).collect();
        Tried {
            setting,
            value: by.mean(&lists),
            ndcg: ndcg.mean(&lists),
            lists,
        }
    };
    let mut tried: Vec<Tried> = Setting::all().into_iter().map(try_one).collect();
    tried.sort_by(|a, b| b.value.total_cmp(&a.value).then(b.ndcg.total_cmp(&a.ndcg)));
    tried
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(hits: &[(&str, f32)]) -> List {
        let hit = |(id, raw): &(&str, f32)| LegHit {
            id: (*id).to_owned(),
            judged: (*id).to_owned(),
            raw: *raw,
        };
        hits.iter().map(hit).collect()
    }

    /// The examples of the engine's own test.
    #[test]
    fn fusing_is_what_the_engine_does() {
        let (a, b) = (
            list(&[("1", 9.0), ("2", 5.0), ("3", 1.0)]),
            list(&[("2", 0.5), ("4", 0.25)]),
        );
        let check = |setting: Setting, expected: &[(&str, f32)]| {
            let fused = setting.fuse(&a, &b, 10);
            assert_eq!(fused.len(), expected.len());
            for ((hit, score), (id, value)) in fused.iter().zip(expected) {
                assert!(hit.id == *id && (score - value).abs() < 1e-5, "{setting:?}: {fused:?}");
            }
        };
        let best = 2.0 / 61.0;
        check(
            Setting::Rrf { k: 60.0, dense: 1.0 },
            &[
                ("2", (1.0 / 62.0 + 1.0 / 61.0) / best),
                ("1", 1.0 / 61.0 / best),
                ("4", 1.0 / 62.0 / best),
                ("3", 1.0 / 63.0 / best),
            ],
        );
        // The engine's example has weights 1 and 3: a third for the dense leg.
        check(
            Setting::Weighted { dense: 1.0 / 3.0 },
            &[("2", (0.5 + 3.0) / 4.0), ("1", 0.25), ("3", 0.0), ("4", 0.0)],
        );
    }

    #[test]
    fn the_grid_finds_the_leg_that_is_right() {
        let judged = Judged::new([("good".to_owned(), 1)]);
        let right = list(&[("good", 1.0), ("bad", 0.4), ("worse", 0.0)]);
        let wrong = list(&[("bad", 1.0), ("worse", 0.9), ("good", 0.1)]);
        let by = Metric::new(Measure::Recall, 1);
        let best = |dense: &List, bm25: &List| {
            let tried = grid(
                std::slice::from_ref(dense),
                std::slice::from_ref(bm25),
                &[&judged],
                by,
                10,
            );
            assert_eq!(tried[0].value, 1.0);
            match tried[0].setting {
                Setting::Rrf { dense, .. } | Setting::Weighted { dense } => dense,
            }
        };
        assert!(best(&right, &wrong) >= 0.85);
        assert!(best(&wrong, &right) <= 0.85);
    }
}
