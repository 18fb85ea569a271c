//! Measuring rows four at a time, whatever they are measured by: floats, codes, or another row of a graph under construction.

use super::codes::CodeScorer;
use super::space::QueryScorer;
use crate::types::Ordinal;

/// How far rows are from something.
pub(super) trait Near {
    /// How far four of them are.
    fn four(&self, ordinals: [Ordinal; 4]) -> [f32; 4];
    /// How far one is: the same number as among four.
    #[inline]
    fn one(&self, ordinal: Ordinal) -> f32 {
        self.four([ordinal; 4])[0]
    }
    /// Asks memory for a row that will be measured soon.
    fn prefetch(&self, ordinal: Ordinal);
    /// Asks for a row that will be measured whatever [`Self::sift`] would say of it.
    #[inline]
    fn prefetch_measured(&self, ordinal: Ordinal) {
        self.prefetch(ordinal);
    }
    /// Takes out rows that were asked for and are at least as far as `edge`, as far as that can be told without measuring them.
    #[inline]
    fn sift(&self, _rows: &mut Vec<Ordinal>, _edge: f32) {}
}

impl Near for QueryScorer<'_> {
    #[inline]
    fn four(&self, ordinals: [Ordinal; 4]) -> [f32; 4] {
        QueryScorer::four(self, ordinals)
    }
    #[inline]
    fn one(&self, ordinal: Ordinal) -> f32 {
        self.distance(ordinal)
    }
    #[inline]
    fn prefetch(&self, ordinal: Ordinal) {
        QueryScorer::prefetch(self, ordinal);
    }
}

impl Near for CodeScorer<'_> {
    #[inline]
    fn four(&self, ordinals: [Ordinal; 4]) -> [f32; 4] {
        CodeScorer::four(self, ordinals)
    }
    #[inline]
    fn prefetch(&self, ordinal: Ordinal) {
        CodeScorer::prefetch(self, ordinal);
    }
}

/// Four of one to four: the last one stands for those that are missing.
#[inline]
pub(super) fn four<T>(some: &[T], ordinal: impl Fn(&T) -> Ordinal) -> [Ordinal; 4] {
    let last = some.len() - 1;
    [0, 1, 2, 3].map(|i: usize| ordinal(&some[i.min(last)]))
}
