//! What a build without Faiss says of such indexes: that there are none.

use super::Effort;
use crate::config::Workers;
use crate::error::{Error, Result};
use crate::schema::Metric;
use crate::vector::{Allow, BitSet, Found, VectorsRef};

/// An index that this build cannot read.
pub enum Faiss {}

/// Refuses every factory string.
pub fn check(_factory: &str, _metric: Metric, _dim: usize) -> Result<()> {
    Err(Error::invalid(
        "bad_index",
        "this build has no Faiss: build with `--features faiss`, or use hnsw or ivf",
    ))
}

/// Makes nothing.
pub fn build(
    _vectors: &VectorsRef<'_>,
    _factory: &str,
    _workers: &Workers,
    _stop: &dyn Fn() -> bool,
) -> Result<Option<[Vec<u8>; 2]>> {
    Ok(None)
}

impl Faiss {
    /// Leaves the bytes alone.
    pub fn read(
        _bytes: &[u8],
        _metric: Metric,
        _dim: usize,
        _rows: usize,
        _absent: Option<&BitSet>,
    ) -> Result<Option<Self>> {
        Ok(None)
    }

    /// Never called.
    pub fn effort(
        &self,
        _k: usize,
        _depth: f64,
        _target: f32,
        _candidates: Option<usize>,
        _nprobe: Option<usize>,
    ) -> Effort {
        match *self {}
    }

    /// Never called.
    pub fn lists(&self) -> Option<usize> {
        match *self {}
    }

    /// Never called.
    pub fn find(
        &self,
        _vectors: &VectorsRef<'_>,
        _query: &[f32],
        _k: usize,
        _effort: Effort,
        _allow: &Allow<'_>,
        _stop: &dyn Fn() -> bool,
    ) -> Result<Found> {
        match *self {}
    }
}
