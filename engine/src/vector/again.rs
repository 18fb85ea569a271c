//! Rescoring: candidates that codes put first, measured again on the vectors as given.

use super::near::{Near, four};
use super::{Meter, Scored};
use crate::error::Result;

/// Candidates measured again between two looks at whether to go on.
const STEP: usize = 4;

/// What the largest error seen so far, whichever its sign, is multiplied with to bound those not seen. Errors are looked at both
/// ways because those that codes put first were put there by the errors that made them nearer: by how far codes were too high
/// among them the others cannot be judged. Of the tenth of WordNet that is farthest from a question recall@10 is 0.968 by one
/// side at twice the error, and 1.000 by both at once.
const MARGIN: f32 = 1.0;

/// So many times the mean error is what a gap has to be for codes to tell who is near. A walk of Fashion-MNIST that keeps 19 candidates by
/// 4 bits finds 0.976 in 21.6 us with a half, 0.977 in 24.0 with 1, and 0.982 in 29 if the gap has to be as large as the largest error:
/// to keep more candidates is the better way to find more. On WordNet there is no difference.
const FEW: f32 = 0.5;

/// How well codes tell the `k` nearest from rows that are not among the candidates. What is no number tells nothing.
#[derive(Debug, Clone, Copy)]
pub(super) struct Told {
    /// How much farther than the last of the nearest the last candidate is by code: as others are at least.
    gap: f32,
    /// How far codes were off at most, and on the average.
    worst: f32,
    mean: f32,
}

impl Told {
    /// None of the others is among the nearest, if codes are never off by more than they were seen to be.
    pub(super) fn surely(self) -> bool {
        self.gap > MARGIN * self.worst
    }

    /// Few of them are: with normal errors one in three of those that are no farther by code than the last candidate, and the fewer the
    /// farther they are. Where not even that is so codes do not tell who is near.
    pub(super) fn mostly(self) -> bool {
        self.gap > FEW * self.mean
    }
}

/// Measures the candidates anew, which come nearest by code first, and drops those that are not: `k` of them are, and on as long
/// as the next by code could be among the `k` nearest, judged by how far codes were off so far. Leaves them nearest first.
///
/// `nearest` is a buffer.
pub(super) fn measure(
    candidates: &mut Vec<Scored>,
    nearest: &mut Vec<f32>,
    near: &impl Near,
    k: usize,
    meter: &mut Meter<'_>,
) -> Result<Told> {
    nearest.clear();
    let last_by_code = candidates.last().map_or(f32::INFINITY, |last| last.distance);
    let (mut off, mut sum) = (0f32, 0f32);
    let (mut done, mut asked) = (0, 0);
    while done < candidates.len() {
        if candidates[done].distance - MARGIN * off > edge(nearest, k) {
            break;
        }
        while asked < candidates.len() && asked < k.max(done + 2 * STEP) {
            near.prefetch(candidates[asked].ordinal);
            asked += 1;
        }
        let end = candidates.len().min(done + STEP);
        // `k` are measured in any case, and perhaps no more.
        let end = if done < k { end.min(k) } else { end };
        meter.add(end - done)?;
        let some = &mut candidates[done..end];
        let distances = near.four(four(some, |candidate| candidate.ordinal));
        for (candidate, distance) in some.iter_mut().zip(distances) {
            let error = (candidate.distance - distance).abs();
            (off, sum) = (off.max(error), sum + error);
            candidate.distance = distance;
            let place = nearest.partition_point(|other| *other <= distance);
            if place < k {
                nearest.truncate(k - 1);
                nearest.insert(place, distance);
            }
        }
        done = end;
    }
    candidates.truncate(done);
    candidates.sort_unstable();
    Ok(Told {
        gap: last_by_code - edge(nearest, k),
        worst: off,
        mean: sum / done.max(1) as f32,
    })
}

/// The distance of the k-th nearest so far.
fn edge(nearest: &[f32], k: usize) -> f32 {
    nearest.get(k - 1).copied().unwrap_or(f32::INFINITY)
}
