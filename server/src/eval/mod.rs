//! How good are ranked lists, how sure is that, and which fusion would be better? The arithmetic behind `cairn eval` and
//! `cairn-bench squad`.
//!
//! Pure: judgments and lists in, numbers out. Asking a server, printing and choosing a plot's file are its callers'.
//! Measures are those of `trec_eval` (linear gains in nDCG); intervals are percentile bootstraps over questions, seeded,
//! with the same resamples for all modes, so that differences between modes are paired.

pub mod fit;
pub mod interval;
pub mod measures;
pub mod plot;
pub mod read;

pub use interval::{Interval, Resampled, resample};
pub use measures::{Graded, Judged, Measure, Metric};
