//! `hnsw_rs`, a graph of the same kind as ours over the vectors themselves.
//!
//! Its own call for a batch sends every answer through a channel and sorts them by a hash map; the threads here each answer
//! their share of the questions one by one, as ours do, which is the faster way to ask it.

use std::time::Instant;

use anyhow::Context;
use cairn_engine::schema::Metric;
use hnsw_rs::api::AnnT;
use hnsw_rs::prelude::{DistDot, DistL2, Distance, Hnsw};

use super::super::{Built, Case, Contestant, EFS, K, answer_all};
use super::own_mib;

const M: usize = 16;
const EF_CONSTRUCTION: usize = 200;
/// As many as it knows.
const LAYERS: usize = 16;

pub(super) fn contestant<'a>(case: &'a Case) -> Box<dyn Contestant + 'a> {
    match case.metric {
        Metric::Euclid => Box::new(HnswRs::of(case, DistL2)),
        // Of vectors of unit length, which the product is faster for than its cosine.
        Metric::Cosine | Metric::Dot | Metric::Manhattan | Metric::Hamming => Box::new(HnswRs::of(case, DistDot)),
    }
}

struct HnswRs<'a, D: Distance<f32> + Send + Sync> {
    case: &'a Case,
    distance: D,
    queries: Vec<f32>,
    index: Option<Hnsw<'static, f32, D>>,
}

impl<'a, D: Distance<f32> + Send + Sync> HnswRs<'a, D> {
    fn of(case: &'a Case, distance: D) -> Self {
        Self {
            case,
            distance,
            queries: case.queries_for_peers().collect(),
            index: None,
        }
    }
}

impl<D: Distance<f32> + Copy + Send + Sync> Contestant for HnswRs<'_, D> {
    fn name(&self) -> &str {
        "hnsw_rs"
    }

    fn threads(&self) -> &[usize] {
        &[1, 2]
    }

    fn values(&self) -> &[usize] {
        &EFS
    }

    fn build(&mut self, threads: usize) -> anyhow::Result<Built> {
        let (rows, dim) = (self.case.rows(), self.case.dim);
        let base: Vec<f32> = self.case.base_for_peers().collect();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
        let (before, started) = (own_mib(), Instant::now());
        let mut index = Hnsw::new(M, rows, LAYERS, EF_CONSTRUCTION, self.distance);
        let numbered: Vec<(&[f32], usize)> = base.chunks_exact(dim).zip(0..).collect();
        pool.install(|| index.parallel_insert_slice(&numbered));
        index.set_searching_mode(true);
        let seconds = started.elapsed().as_secs_f64();
        drop(numbered);
        let memory_mib = own_mib() - before;
        let place = tempfile::tempdir()?;
        index.file_dump(place.path(), "index")?;
        let disk_mib = crate::place::disk_bytes(place.path())? as f64 / f64::from(1 << 20);
        self.index = Some(index);
        Ok(Built {
            seconds,
            memory_mib,
            disk_mib: Some(disk_mib),
        })
    }

    fn search(&mut self, ef: usize, threads: usize) -> anyhow::Result<(f64, Vec<i32>)> {
        let index = self.index.as_ref().context("not built")?;
        let dim = self.case.dim;
        answer_all(self.case, threads, |i, ids| {
            let found = index.search(&self.queries[i * dim..(i + 1) * dim], K, ef);
            for (id, hit) in ids.iter_mut().zip(&found) {
                *id = i32::try_from(hit.get_origin_id())?;
            }
            Ok(())
        })
    }
}
