//! How sure is a mean over questions? Percentile bootstrap intervals, and paired ones of differences.
//!
//! Questions are drawn with replacement, all modes' values of a drawn question together (Efron 1979). Two modes that are
//! measured on the same questions differ by less than their own intervals suggest; the paired interval says by how much.

use serde::Serialize;

/// Share of the resamples inside an interval.
const COVERAGE: f64 = 0.95;

/// A mean and its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Interval {
    /// Over the questions themselves.
    pub mean: f64,
    /// 2.5th percentile of the resampled means.
    pub low: f64,
    /// 97.5th percentile.
    pub high: f64,
}

/// Means of some columns under the same resamples.
#[derive(Debug, Clone, PartialEq)]
pub struct Resampled {
    means: Vec<f64>,
    /// By column, one mean a resample.
    draws: Vec<Vec<f64>>,
}

/// Draws `times` resamples of the questions. Each column holds one value a question; columns must be equally long.
pub fn resample(columns: &[Vec<f64>], times: usize, seed: u64) -> Resampled {
    let questions = columns.first().map_or(0, Vec::len);
    debug_assert!(columns.iter().all(|c| c.len() == questions), "paired columns");
    let mean = |sum: f64| sum / questions.max(1) as f64;
    let mut random = SplitMix(seed);
    let mut drawn = vec![0u32; questions];
    let mut draws = vec![Vec::with_capacity(times); columns.len()];
    for _ in 0..times {
        drawn.fill(0);
        for _ in 0..questions {
            drawn[random.below(questions)] += 1;
        }
        for (column, draws) in columns.iter().zip(&mut draws) {
            let sum: f64 = column.iter().zip(&drawn).map(|(value, n)| value * f64::from(*n)).sum();
            draws.push(mean(sum));
        }
    }
    Resampled {
        means: columns.iter().map(|c| mean(c.iter().sum())).collect(),
        draws,
    }
}

impl Resampled {
    /// The mean of one column.
    pub fn mean(&self, column: usize) -> Interval {
        interval(self.means[column], self.draws[column].clone())
    }

    /// How much larger the mean of `a` is than that of `b`, question by question.
    pub fn difference(&self, a: usize, b: usize) -> Interval {
        let draws = self.draws[a].iter().zip(&self.draws[b]).map(|(a, b)| a - b);
        interval(self.means[a] - self.means[b], draws.collect())
    }
}

impl Interval {
    /// The larger distance from the mean to an end.
    pub fn half_width(&self) -> f64 {
        (self.high - self.mean).max(self.mean - self.low)
    }

    /// Zero lies outside: of a difference, that it is no chance.
    pub fn excludes_zero(&self) -> bool {
        self.low > 0.0 || self.high < 0.0
    }
}

fn interval(mean: f64, mut draws: Vec<f64>) -> Interval {
    draws.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let place = (share * draws.len().saturating_sub(1) as f64).round();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 0 and the length"
        )]
        draws.get(place as usize).copied().unwrap_or(mean)
    };
    Interval {
        mean,
        low: at((1.0 - COVERAGE) / 2.0),
        high: at((1.0 + COVERAGE) / 2.0),
    }
}

/// Steele, Lea & Flood 2014. Not `rand`'s: the same seed gives the same interval whatever the version of a library.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform below `n`, up to a bias of n / 2^64.
    fn below(&mut self, n: usize) -> usize {
        usize::try_from((u128::from(self.next()) * n as u128) >> 64).expect("below n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 0 or 1, about `share` ones.
    fn coins(n: usize, share: f64, seed: u64) -> Vec<f64> {
        let mut random = SplitMix(seed);
        let coin = |_| {
            if (random.below(1_000) as f64) < share * 1_000.0 {
                1.0
            } else {
                0.0
            }
        };
        (0..n).map(coin).collect()
    }

    #[test]
    fn the_interval_is_about_two_standard_errors_wide() {
        let column = coins(2_000, 0.8, 7);
        let interval = resample(std::slice::from_ref(&column), 1_000, 1).mean(0);
        let mean = column.iter().sum::<f64>() / 2_000.0;
        let error = (mean * (1.0 - mean) / 2_000.0).sqrt();
        assert!((interval.mean - mean).abs() < 1e-12);
        for width in [interval.high - mean, mean - interval.low] {
            assert!((1.7..2.3).contains(&(width / error)), "{}", width / error);
        }
    }

    #[test]
    fn the_interval_covers_the_truth_as_often_as_it_says() {
        let covered = (0..200).filter(|&seed| {
            let i = resample(&[coins(300, 0.7, 1_000 + seed)], 300, seed).mean(0);
            (i.low..=i.high).contains(&0.7)
        });
        let covered = covered.count();
        assert!((180..=199).contains(&covered), "{covered} of 200");
    }

    #[test]
    fn paired_differences_are_surer_than_their_parts() {
        let a = coins(1_000, 0.6, 3);
        // Better on one question in fifty, never worse.
        let better = |(i, v): (usize, &f64)| if i % 50 == 0 { 1.0 } else { *v };
        let b: Vec<f64> = a.iter().enumerate().map(better).collect();
        let both = resample(&[a, b], 1_000, 5);
        let difference = both.difference(1, 0);
        assert!(difference.excludes_zero() && difference.low > 0.0);
        assert!(difference.half_width() < both.mean(0).half_width() / 2.0);
        let same = both.difference(0, 0);
        assert_eq!((same.mean, same.low, same.high), (0.0, 0.0, 0.0));
    }

    #[test]
    fn a_seed_is_a_result() {
        let column = coins(100, 0.5, 1);
        let draw = |seed| resample(std::slice::from_ref(&column), 200, seed).mean(0);
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        let none = resample(&[Vec::new()], 10, 1).mean(0);
        assert_eq!((none.mean, none.low, none.high), (0.0, 0.0, 0.0));
    }
}
