//! How much Faiss is asked for, and what was measured of it.
//!
//! An index of Faiss says little about itself, so there is one number that is turned: of lists how many are looked into, of everything else
//! how many candidates are asked for. What the steps of it found is measured once (`index.rs`), with rows of the segment as questions
//! for their ten nearest. Rows are easier than what people ask, so of what a search may miss a part is left to that, as with
//! [`calibration`](crate::vector::calibration). Nothing is measured for more hits than ten, nor with filters: what is looked at grows in
//! proportion there, which is what one would expect and no more. A recall is aimed at and not promised.

use super::Effort;
use crate::limits::EF_MAX;
use crate::vector::calibration::MISSED_BY_ROWS;

/// Hits that questions asked for when it was measured.
pub(super) const HITS: usize = 10;
/// Candidates of a look into lists: so many times the hits, and so many more.
const PER_HIT: usize = 4;
const MORE: usize = 64;
/// Candidates where nothing was measured, in small segments.
const UNMEASURED: usize = 512;
/// The most steps that are kept.
pub(super) const STEPS_MAX: usize = 32;

/// What an effort found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Step {
    pub(super) effort: u32,
    pub(super) recall: f32,
}

/// Candidates that are measured again whatever lists are looked into.
pub(super) fn kept(k: usize) -> usize {
    k.saturating_mul(PER_HIT).saturating_add(MORE)
}

/// What finds that share of the `k` nearest, by the steps that were measured, where one row in `depth` may be answered. `lists` are
/// those of the index.
pub(super) fn choose(steps: &[Step], lists: Option<usize>, k: usize, depth: f64, target: f32) -> Effort {
    let target = 1.0 - (1.0 - target) * MISSED_BY_ROWS;
    let enough = steps.iter().find(|step| step.recall >= target);
    let measured = enough.or(steps.last()).map(|step| f64::from(step.effort));
    let depth = depth.max(1.0);
    // Ten times as many hits lie in a ball that reaches into some more lists, not into ten times as many.
    let times = (k as f64 / HITS as f64).max(1.0);
    match lists {
        Some(lists) => {
            let nprobe = measured.map_or(lists as f64, |nprobe| nprobe * depth * times.sqrt());
            Effort {
                candidates: kept(k),
                nprobe: Some((nprobe.ceil() as usize).clamp(1, lists.max(1))),
            }
        }
        None => {
            let candidates = measured.unwrap_or(UNMEASURED as f64) * depth * times;
            Effort {
                candidates: (candidates.ceil() as usize).clamp(k, EF_MAX.max(k)),
                nprobe: None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps() -> Vec<Step> {
        [(1, 0.5), (4, 0.9), (16, 0.98), (64, 0.99)]
            .map(|(effort, recall)| Step { effort, recall })
            .to_vec()
    }

    #[test]
    fn the_first_step_that_finds_enough_is_taken_and_the_last_if_none_does() {
        for (target, nprobe) in [(0.5, 4), (0.7, 4), (0.94, 16), (0.999, 64)] {
            assert_eq!(
                choose(&steps(), Some(100), 10, 1.0, target).nprobe,
                Some(nprobe),
                "{target}"
            );
            assert_eq!(choose(&steps(), None, 1, 1.0, target).candidates, nprobe, "{target}");
        }
    }

    #[test]
    fn more_is_looked_at_for_more_hits_and_where_less_may_be_answered_and_never_more_than_there_is() {
        let nprobe = |k, depth| choose(&steps(), Some(100), k, depth, 0.94).nprobe.unwrap();
        assert_eq!((nprobe(10, 1.0), nprobe(10, 3.0), nprobe(40, 1.0)), (16, 48, 32));
        assert_eq!((nprobe(10, 1e9), nprobe(10_000, 5.0)), (100, 100));
        let candidates = |k, depth| choose(&steps(), None, k, depth, 0.94).candidates;
        assert_eq!(
            (candidates(10, 1.0), candidates(10, 3.0), candidates(100, 1.0)),
            (16, 48, 160)
        );
        assert_eq!(candidates(10, 1e9), EF_MAX);
    }

    #[test]
    fn where_nothing_was_measured_all_lists_are_looked_into() {
        assert_eq!(choose(&[], Some(7), 10, 1.0, 0.95).nprobe, Some(7));
        assert_eq!(choose(&[], None, 10, 1.0, 0.95).candidates, UNMEASURED);
    }
}
