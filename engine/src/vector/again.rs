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

/// Measures the candidates anew, which come nearest by code first, and drops those that are not: `k` of them are, and on as long
/// as the next by code could be among the `k` nearest, judged by how far codes were off so far. Leaves them nearest first.
///
/// False if all were measured and the next, were there another, could still be among the `k` nearest: codes that put only these
/// first do not tell who is.
///
/// `nearest` is a buffer.
pub(super) fn measure(
    candidates: &mut Vec<Scored>,
    nearest: &mut Vec<f32>,
    near: &impl Near,
    k: usize,
    meter: &mut Meter<'_>,
) -> Result<bool> {
    nearest.clear();
    let last_by_code = candidates.last().map_or(f32::INFINITY, |last| last.distance);
    let mut off = 0f32;
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
            off = off.max((candidate.distance - distance).abs());
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
    Ok(last_by_code - MARGIN * off > edge(nearest, k))
}

/// The distance of the k-th nearest so far.
fn edge(nearest: &[f32], k: usize) -> f32 {
    nearest.get(k - 1).copied().unwrap_or(f32::INFINITY)
}
