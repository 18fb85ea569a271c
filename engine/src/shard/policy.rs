//! When growing rows are sealed and sealed segments merged: pure functions of counts, so that they can be proofread.

use crate::config::Settings;
use crate::limits::{MEMORY_MERGE_FANIN, MEMORY_SEGMENT_ROWS_MAX};

/// From which growing segment on the tail is merged in memory, if it should be. Tiers are powers of the fan-in: when the
/// last eight have at most the size of the largest among them's tier, they become one. The first `frozen` are being sealed.
pub fn memory_merge(rows: &[u32], frozen: usize) -> Option<usize> {
    let from = rows.len().checked_sub(MEMORY_MERGE_FANIN)?;
    if from < frozen {
        return None;
    }
    let tail = &rows[from..];
    let tier = |n: u32| n.max(1).ilog(MEMORY_MERGE_FANIN as u32);
    let total: usize = tail.iter().map(|n| *n as usize).sum();
    let same = tail.iter().all(|n| tier(*n) <= tier(tail[tail.len() - 1]));
    (same && total <= MEMORY_SEGMENT_ROWS_MAX).then_some(from)
}

/// What is known of a sealed segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sealed {
    /// Rows, dead ones included.
    pub rows: u64,
    /// Dead rows.
    pub dead: u64,
    /// It cannot be read. It stays as it is, and so do its neighbours apart from each other: a merge across it would cover
    /// its rows. With no row of it alive there is nothing to read, and it goes.
    pub damaged: bool,
}

impl Sealed {
    /// Nothing lives in it.
    fn is_lifeless(&self) -> bool {
        self.dead >= self.rows
    }
}

/// Which adjacent sealed segments (from, to exclusive) should become one, if any, of those that may.
///
/// A segment with too many dead rows is rewritten, the deadest first. Otherwise the first run of `merge_fanin`
/// adjacent segments of one size tier is merged; tiers are powers of the fan-in, so a row is rewritten a logarithmic number
/// of times.
pub fn sealed_merge(
    segments: &[Sealed],
    settings: &Settings,
    may: impl Fn(usize, usize) -> bool,
) -> Option<(usize, usize)> {
    let live = |s: &Sealed| s.rows - s.dead;
    let most = u64::from(settings.dead_percent_max);
    let too_dead = |s: &Sealed| s.is_lifeless() || (!s.damaged && s.dead * 100 > s.rows * most);
    // It gives most back for what it costs.
    let deadest = |(_, a): &(usize, &Sealed), (_, b): &(usize, &Sealed)| (live(a) * b.rows).cmp(&(live(b) * a.rows));
    let dead = segments
        .iter()
        .enumerate()
        .filter(|(i, s)| too_dead(s) && may(*i, i + 1));
    if let Some((i, _)) = dead.min_by(deadest) {
        return Some((i, i + 1));
    }
    let fanin = settings.merge_fanin.max(2);
    let tier = |s: &Sealed| live(s).max(1).ilog(fanin as u64);
    for from in 0..segments.len() {
        let Some(run) = segments.get(from..from + fanin) else {
            break;
        };
        if run.iter().any(|s| s.damaged) {
            continue;
        }
        let largest = run.iter().map(tier).max().unwrap_or(0);
        let similar = run.iter().all(|s| tier(s) + 1 >= largest);
        let fits = run.iter().map(live).sum::<u64>() <= settings.segment_rows_max as u64;
        if similar && fits && may(from, from + fanin) {
            return Some((from, from + fanin));
        }
    }
    None
}

/// The next merge (from, to exclusive) on the way to as few segments as may be: the first run of adjacent ones that fit
/// into one, as long as it goes, or a single one that has dead rows. None when there is nothing to gain.
pub fn full_merge(segments: &[Sealed], settings: &Settings) -> Option<(usize, usize)> {
    for (from, first) in segments.iter().enumerate() {
        if first.damaged && first.is_lifeless() {
            return Some((from, from + 1));
        }
        let mut live = 0;
        let fits = segments[from..].iter().take_while(|s| {
            live += s.rows - s.dead;
            !s.damaged && live <= settings.segment_rows_max as u64
        });
        let run = fits.count();
        if run > 1 || (first.dead > 0 && run == 1) {
            return Some((from, from + run));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(segments: &[Sealed], settings: &Settings) -> Option<(usize, usize)> {
        sealed_merge(segments, settings, |_, _| true)
    }

    #[test]
    fn a_full_merge_leaves_as_few_segments_as_fit() {
        let settings = Settings {
            segment_rows_max: 100,
            ..Settings::default()
        };
        let of = |rows, dead| Sealed {
            rows,
            dead,
            damaged: false,
        };
        let next = |segments: &[Sealed]| full_merge(segments, &settings);
        assert_eq!(next(&[]), None);
        assert_eq!(next(&[of(100, 0)]), None);
        assert_eq!(next(&[of(100, 1)]), Some((0, 1)), "dead rows go");
        assert_eq!(next(&[of(40, 0), of(60, 0), of(1, 0)]), Some((0, 2)));
        assert_eq!(next(&[of(90, 0), of(60, 0), of(40, 0)]), Some((1, 3)));
        assert_eq!(next(&[of(90, 0), of(60, 20), of(70, 0)]), Some((1, 2)));
        assert_eq!(next(&[of(101, 0), of(100, 0)]), None, "what is too large stays");
        let damaged = Sealed {
            damaged: true,
            ..of(10, 5)
        };
        assert_eq!(
            next(&[of(10, 0), damaged, of(10, 0)]),
            None,
            "nothing is merged across damage"
        );
        assert_eq!(next(&[damaged, of(10, 0), of(10, 0)]), Some((1, 3)));
        let lifeless = Sealed { dead: 10, ..damaged };
        assert_eq!(next(&[of(10, 0), lifeless, of(10, 0)]), Some((1, 2)), "alone");
        assert_eq!(due(&[of(10, 0), lifeless], &settings), Some((1, 2)));
        assert_eq!(due(&[of(10, 0), damaged], &settings), None);
        assert_eq!(
            due(&[of(10, 9), of(10, 10)], &settings),
            Some((1, 2)),
            "it costs nothing"
        );
        let deadest = [of(100, 40), of(10, 5), of(9, 4)];
        assert_eq!(due(&deadest, &settings), Some((1, 2)));
        let room = |from, _| from != 1;
        assert_eq!(
            sealed_merge(&deadest, &settings, room),
            Some((2, 3)),
            "what there is room for"
        );
        assert_eq!(sealed_merge(&deadest, &settings, |_, _| false), None);
        let never = Settings {
            dead_percent_max: 100,
            ..settings
        };
        assert_eq!(due(&[of(10, 9), of(10, 10)], &never), Some((1, 2)));
    }

    #[test]
    fn eight_small_growing_segments_become_one() {
        assert_eq!(memory_merge(&[1; 7], 0), None);
        assert_eq!(memory_merge(&[1; 8], 0), Some(0));
        assert_eq!(memory_merge(&[8, 1, 1, 1, 1, 1, 1, 1, 1], 0), Some(1));
        assert_eq!(memory_merge(&[8; 8], 0), Some(0));
        assert_eq!(memory_merge(&[8; 8], 1), None, "frozen segments stay");
        assert_eq!(memory_merge(&[4096; 8], 0), None, "full segments stay");
    }

    /// Single writes for ever: the number of growing segments stays small and each row is copied a few times.
    #[test]
    fn single_writes_keep_the_list_short_and_copy_little() {
        let (mut rows, mut copied) = (Vec::<u32>::new(), 0u64);
        for _ in 0..50_000 {
            rows.push(1);
            while let Some(from) = memory_merge(&rows, 0) {
                let sum: u32 = rows[from..].iter().sum();
                copied += u64::from(sum);
                rows.truncate(from);
                rows.push(sum);
            }
            assert!(rows.len() < 64, "{rows:?}");
        }
        assert!(copied < 50_000 * 6, "{copied}");
    }

    #[test]
    fn equal_neighbours_merge_and_dead_segments_are_rewritten() {
        let settings = Settings {
            merge_fanin: 4,
            ..Settings::default()
        };
        let of = |rows, dead| Sealed {
            rows,
            dead,
            damaged: false,
        };
        let fresh = |rows| of(rows, 0);
        assert_eq!(due(&[fresh(20_000); 3], &settings), None);
        assert_eq!(due(&[fresh(20_000); 4], &settings), Some((0, 4)));
        assert_eq!(
            due(
                &[
                    fresh(900_000),
                    fresh(20_000),
                    fresh(20_000),
                    fresh(20_000),
                    fresh(20_000)
                ],
                &settings
            ),
            Some((1, 5))
        );
        assert_eq!(due(&[fresh(1_000), of(100, 31)], &settings), Some((1, 2)));
        let damaged = Sealed {
            damaged: true,
            ..of(20_000, 19_999)
        };
        let around = [fresh(20_000), fresh(20_000), damaged, fresh(20_000), fresh(20_000)];
        assert_eq!(due(&around, &settings), None, "damage is left alone");
        let full = fresh(settings.segment_rows_max as u64);
        assert_eq!(due(&[full; 4], &settings), None, "a full segment is final");
    }
}
