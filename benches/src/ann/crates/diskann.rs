//! Microsoft's `diskann`, a graph of one layer built by inserts, over its own in-memory store (`diskann-inmem`): 32 neighbours
//! a node, candidates of 200 and an alpha of 1.2, of vectors of unit length where cosine is asked for.
//!
//! Its calls are futures; over memory they are ready when they are first asked. It cannot be saved yet, so it has no size on disk.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::Context as _;
use cairn_engine::schema;
use diskann::graph::SearchOutputBuffer;
use diskann::graph::config::{Builder, MaxDegree};
use diskann::graph::search::Knn;
use diskann::graph::{Config, DiskANNIndex};
use diskann::neighbor::{BackInserter, Neighbor};
use diskann_inmem::num;
use diskann_inmem::repr::Full;
use diskann_inmem::repr::quantized::scalar::{Metric as CodesMetric, Scalar};
use diskann_inmem::repr::quantized::{Backend, Quantized, Rerank};
use diskann_inmem::{Context, Provider, Strategy};
use diskann_quantization::num::Positive;
use diskann_quantization::scalar::train::ScalarQuantizationParameters;
use diskann_utils::sampling::medoid::ComputeMedoid;
use diskann_utils::views::rowmajor;
use diskann_vector::distance::Metric;
use futures::FutureExt;

use super::super::{Built, Case, Contestant, EFS, K, answer_all};
use super::own_mib;

const DEGREE: usize = 32;
const CANDIDATES: usize = 200;
const ALPHA: f32 = 1.2;
/// Standard deviations that codes reach to; what lies beyond is cut off. With so many, codes find what the vectors find (20,000
/// rows of WordNet, at every number of candidates).
const DEVIATIONS: f64 = 2.0;

pub(super) struct DiskAnn<'a> {
    name: &'static str,
    case: &'a Case,
    with_codes: bool,
    queries: Vec<f32>,
    index: Option<Index>,
}

enum Index {
    Vectors(DiskANNIndex<Provider<Full<f32>>>),
    Codes(DiskANNIndex<Provider<Quantized>>),
}

impl<'a> DiskAnn<'a> {
    pub(super) fn over_vectors(case: &'a Case) -> Self {
        Self::of("diskann", case, false)
    }

    pub(super) fn over_codes(case: &'a Case) -> Self {
        Self::of("diskann-int8", case, true)
    }

    fn of(name: &'static str, case: &'a Case, with_codes: bool) -> Self {
        Self {
            name,
            case,
            with_codes,
            queries: case.queries_for_peers().collect(),
            index: None,
        }
    }

    fn metric(&self) -> Metric {
        match self.case.metric {
            schema::Metric::Euclid => Metric::L2,
            schema::Metric::Cosine | schema::Metric::Dot | schema::Metric::Manhattan | schema::Metric::Hamming => {
                Metric::CosineNormalized
            }
        }
    }

    /// Empty, but for the node that every walk starts at.
    fn empty(&self, base: rowmajor::Ref<'_, f32>) -> anyhow::Result<Index> {
        let config = self.config()?;
        let capacity = num::Capacity::new(self.case.rows());
        let degree = num::MaxDegree::new(config.max_degree().get());
        let start = rowmajor::Owned::row_vector(Box::from(f32::compute_medoid(base)));
        Ok(if self.with_codes {
            let codes = ScalarQuantizationParameters::new(Positive::new(DEVIATIONS)?).train(base);
            let codes = Backend::new(Scalar::<8>::new(codes, CodesMetric::try_from(self.metric())?));
            let again = Rerank::F16 {
                metric: self.metric().into(),
            };
            let store = Quantized::config(codes, capacity, degree, start, again)?;
            Index::Codes(DiskANNIndex::new(config, Provider::new(store)?, None))
        } else {
            let store = Full::config(capacity, degree, self.metric(), start)?;
            Index::Vectors(DiskANNIndex::new(config, Provider::new(store)?, None))
        })
    }

    fn config(&self) -> anyhow::Result<Config> {
        let prune = self.metric().into();
        let config = Builder::new_with(DEGREE, MaxDegree::default_slack(), CANDIDATES, prune, |more| {
            more.alpha(ALPHA);
        });
        Ok(config.build()?)
    }
}

/// What a future over memory says.
fn at_once<T, E: Into<anyhow::Error>>(future: impl Future<Output = Result<T, E>>) -> anyhow::Result<T> {
    future
        .now_or_never()
        .context("it waits for something")?
        .map_err(Into::into)
}

impl Index {
    fn insert(&self, id: u32, row: &[f32]) -> anyhow::Result<()> {
        match self {
            Self::Vectors(index) => at_once(index.insert(&Strategy, &Context, &id, row)),
            Self::Codes(index) => at_once(index.insert(&Strategy, &Context, &id, row)),
        }
    }

    /// How many it found.
    fn search(&self, query: &[f32], candidates: usize, places: &mut [Neighbor<u32>]) -> anyhow::Result<usize> {
        let how = Knn::new(candidates, None)?;
        let mut found = BackInserter::new(places);
        match self {
            Self::Vectors(index) => at_once(index.search(how, &Strategy, &Context, query, &mut found))?,
            Self::Codes(index) => at_once(index.search(how, &Strategy, &Context, query, &mut found))?,
        };
        Ok(found.current_len())
    }
}

impl Contestant for DiskAnn<'_> {
    fn name(&self) -> &str {
        self.name
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
        let (before, started) = (own_mib(), Instant::now());
        let index = self.empty(rowmajor::Ref::try_from_data(&base, rows, dim).map_err(|e| e.as_static())?)?;
        let next = AtomicUsize::new(0);
        let insert = || -> anyhow::Result<()> {
            loop {
                let row = next.fetch_add(1, Ordering::Relaxed);
                if row >= rows {
                    return Ok(());
                }
                index.insert(u32::try_from(row)?, &base[row * dim..(row + 1) * dim])?;
            }
        };
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(insert)).collect();
            workers
                .into_iter()
                .try_for_each(|worker| worker.join().expect("an insert does not panic"))
        })?;
        let seconds = started.elapsed().as_secs_f64();
        let memory_mib = own_mib() - before;
        self.index = Some(index);
        Ok(Built {
            seconds,
            memory_mib,
            disk_mib: None,
        })
    }

    fn search(&mut self, candidates: usize, threads: usize) -> anyhow::Result<(f64, Vec<i32>)> {
        let index = self.index.as_ref().context("not built")?;
        let dim = self.case.dim;
        answer_all(self.case, threads, |i, ids| {
            let mut places = [Neighbor::default(); K];
            let found = index.search(&self.queries[i * dim..(i + 1) * dim], candidates, &mut places)?;
            for (id, hit) in ids.iter_mut().zip(&places[..found]) {
                *id = i32::try_from(*hit.id())?;
            }
            Ok(())
        })
    }
}
