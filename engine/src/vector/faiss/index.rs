//! Making an index of a segment's rows, reading it back, and searching it.

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, Ordering};

use super::effort::{self, HITS, STEPS_MAX, Step};
use super::layout::Layout;
use super::native::{Measure, Native, use_threads};
use super::{Effort, factory};
use crate::config::Workers;
use crate::error::{Error, ErrorKind, Result};
use crate::limits::TARGET_RECALL_DEFAULT;
use crate::schema::Metric;
use crate::types::Ordinal;
use crate::vector::near::{Near, four};
use crate::vector::{Allow, BitSet, Flat, Found, Meter, Scored, VectorIndex, VectorsRef, batch, inv_norm};

/// Rows that are added between two looks at whether to go on, by what they weigh.
const BLOCK_BYTES: usize = 16 << 20;
/// Rows that an index is trained with, at most. Faiss takes a sample of its own where that is more than it wants (256 rows for each
/// list); this bounds what is copied for it.
const TRAINING_BYTES_MAX: usize = 1 << 30;
/// Nothing is measured of fewer rows.
const MEASURED_ROWS_MIN: usize = 1024;
/// Questions it is measured with.
const QUESTIONS: usize = 64;
/// The first candidates that are asked for, and the last of them.
const CANDIDATES_FIRST: u32 = 16;
const CANDIDATES_LAST: u32 = 2048;
/// With so much found nothing more is measured.
const ENOUGH: f32 = 0.9995;

/// An index in memory, ready to be searched.
pub struct Faiss {
    native: Native,
    layout: Layout,
    /// It can be told what may be answered.
    selects: bool,
    /// A failure of a search was told of.
    told: AtomicBool,
}

fn measure(metric: Metric) -> Result<Measure> {
    match metric {
        Metric::Cosine | Metric::Dot => Ok(Measure::Dot),
        Metric::Euclid => Ok(Measure::Euclid),
        Metric::Manhattan | Metric::Hamming => Err(Error::invalid(
            "bad_index",
            "faiss: no index by manhattan or hamming distance",
        )),
    }
}

/// Refuses a string that Faiss makes no index of.
pub fn check(factory: &str, metric: Metric, dim: usize) -> Result<()> {
    factory::check(factory, dim)?;
    match Native::make(dim, factory::searched(factory), measure(metric)?) {
        Ok(_) => Ok(()),
        Err(said) => Err(Error::invalid(
            "bad_index",
            format!("faiss refuses {factory:?}: {said}"),
        )),
    }
}

fn cancelled() -> Error {
    Error::new(
        ErrorKind::Cancelled,
        "cancelled",
        "the build of a faiss index was cancelled",
    )
}

/// Makes the bytes of an index: ours, and those of Faiss behind them. None if Faiss cannot make it of these rows: there are too few of them to train it, as a rule.
pub fn build(
    vectors: &VectorsRef<'_>,
    factory: &str,
    workers: &Workers,
    stop: &dyn Fn() -> bool,
) -> Result<Option<[Vec<u8>; 2]>> {
    vectors.check()?;
    let rows = vectors.len();
    let present: Vec<Ordinal> = (0..rows as Ordinal).filter(|o| !vectors.is_absent(*o)).collect();
    if present.is_empty() {
        return Ok(None);
    }
    if stop() {
        return Err(cancelled());
    }
    use_threads(workers.threads());
    let native = match fill(vectors, factory, &present, stop) {
        Ok(native) => native?,
        Err(said) => {
            tracing::info!(
                factory,
                rows = present.len(),
                said,
                "faiss makes no index of a segment, which is scanned instead"
            );
            return Ok(None);
        }
    };
    let by_lists = native.lists().is_some();
    let mut made = Faiss {
        layout: Layout {
            rows,
            dim: vectors.dim,
            metric: vectors.metric,
            count: present.len(),
            by_lists,
            steps: Vec::new(),
            present: (present.len() < rows).then_some(present),
            index: 0..0,
        },
        selects: false,
        native,
        told: AtomicBool::new(false),
    };
    made.layout.steps = match made.measure(vectors, workers, stop)? {
        Ok(steps) => steps,
        Err(said) => {
            tracing::warn!(
                factory,
                said,
                "faiss cannot search an index that it made: the segment is scanned instead"
            );
            return Ok(None);
        }
    };
    let mut index = Vec::new();
    let written = made.native.write(&mut |bytes| {
        index.extend_from_slice(bytes);
        !stop()
    });
    match written {
        _ if stop() => Err(cancelled()),
        Err(said) => {
            tracing::warn!(
                factory,
                said,
                "faiss cannot write an index that it made: the segment is scanned instead"
            );
            Ok(None)
        }
        Ok(()) => Ok(Some([made.layout.encode(&index)?, index])),
    }
}

/// Some rows as Faiss compares them.
fn rows_of(vectors: &VectorsRef<'_>, some: &[Ordinal]) -> Vec<f32> {
    let mut rows = Vec::with_capacity(some.len() * vectors.dim);
    for ordinal in some {
        let row = vectors.row(*ordinal);
        match vectors.metric {
            Metric::Cosine => {
                let inv_norm = vectors.inv_norms[*ordinal as usize];
                rows.extend(row.iter().map(|x| x * inv_norm));
            }
            Metric::Dot | Metric::Euclid | Metric::Manhattan | Metric::Hamming => rows.extend_from_slice(&row),
        }
    }
    rows
}

/// An index of these rows. What Faiss says is the outer error, a cancellation the inner one.
fn fill(
    vectors: &VectorsRef<'_>,
    factory: &str,
    present: &[Ordinal],
    stop: &dyn Fn() -> bool,
) -> Result<Result<Native>, String> {
    let measure = measure(vectors.metric).map_err(|error| error.message)?;
    let mut native = Native::make(vectors.dim, factory::searched(factory), measure)?;
    let row_bytes = vectors.dim * 4;
    if !native.is_trained() {
        let most = (TRAINING_BYTES_MAX / row_bytes).max(1);
        // Spread over all of them, in their order.
        let step = present.len().div_ceil(most).max(1);
        let sample: Vec<Ordinal> = present.iter().copied().step_by(step).collect();
        native.train(&rows_of(vectors, &sample))?;
    }
    // A graph of this kind is made of all rows at once.
    let block = match factory.contains("NSG") {
        true => present.len(),
        false => (BLOCK_BYTES / row_bytes).max(1),
    };
    for some in present.chunks(block) {
        if stop() {
            return Ok(Err(cancelled()));
        }
        native.add(&rows_of(vectors, some))?;
    }
    match native.len() == present.len() {
        true => Ok(Ok(native)),
        false => Err(format!("{} of {} rows were added", native.len(), present.len())),
    }
}

impl Faiss {
    /// Reads what [`build`] made of so many vectors. Always some: what Faiss cannot read is damaged.
    pub fn read(
        bytes: &[u8],
        metric: Metric,
        dim: usize,
        rows: usize,
        absent: Option<&BitSet>,
    ) -> Result<Option<Self>> {
        let layout = Layout::parse(bytes)?;
        let fits = layout.rows == rows && layout.dim == dim && layout.metric == metric;
        let same = match (&layout.present, absent) {
            (None, absent) => absent.is_none_or(|absent| absent.count() == 0),
            (Some(present), Some(absent)) => {
                present.len() + absent.count() == layout.rows && !present.iter().any(|o| absent.contains(*o))
            }
            (Some(_), None) => false,
        };
        if !fits || !same {
            return Err(Error::damaged("faiss: an index of other vectors"));
        }
        let native = Native::read(&bytes[layout.index.clone()])
            .map_err(|said| Error::damaged(format!("faiss: an index that cannot be read: {said}")))?;
        let expected = (layout.count, layout.dim, Ok(native.measure()), layout.by_lists);
        let found = (
            native.len(),
            native.dim(),
            measure(layout.metric),
            native.lists().is_some(),
        );
        if expected != found {
            return Err(Error::damaged("faiss: an index of other rows"));
        }
        let selects = selects(&native);
        Ok(Some(Self {
            native,
            layout,
            selects,
            told: AtomicBool::new(false),
        }))
    }

    /// Lists, if it has any that a search can choose among.
    pub fn lists(&self) -> Option<usize> {
        self.native.lists()
    }

    /// What finds that share of the `k` nearest where one row in `depth` may be answered. A caller may say how many candidates, or how many
    /// lists.
    pub fn effort(
        &self,
        k: usize,
        depth: f64,
        target: f32,
        candidates: Option<usize>,
        nprobe: Option<usize>,
    ) -> Effort {
        let lists = self.lists();
        let chosen = effort::choose(&self.layout.steps, lists, k, depth, target);
        Effort {
            candidates: match (candidates, lists) {
                (Some(candidates), None) => candidates.max(k),
                _ => chosen.candidates,
            },
            nprobe: match (nprobe, lists) {
                (Some(nprobe), Some(lists)) => Some(nprobe.clamp(1, lists.max(1))),
                _ => chosen.nprobe,
            },
        }
    }

    /// At most `k` hits, fewer if what Faiss says of candidates may not be answered.
    pub fn find(
        &self,
        vectors: &VectorsRef<'_>,
        query: &[f32],
        k: usize,
        effort: Effort,
        allow: &Allow<'_>,
        stop: &dyn Fn() -> bool,
    ) -> Result<Found> {
        vectors.check_query(query)?;
        if k == 0 {
            return Ok(Found::default());
        }
        let mut meter = Meter::new(stop);
        // Asks before Faiss is called, which nobody can stop.
        meter.add(0)?;
        use_threads(1);
        let only = match allow {
            Allow::Only(set) if self.selects => Some(self.bitmap(set)),
            Allow::Only(_) | Allow::All => None,
        };
        let found = self.native.search(
            &direction(vectors.metric, query),
            effort.candidates,
            effort.nprobe,
            only.as_deref(),
        );
        let places = match found {
            Ok(places) => places,
            Err(said) => {
                // Nothing is lost by it: who asked for k scans.
                if !self.told.swap(true, Ordering::Relaxed) {
                    tracing::warn!(said, "faiss cannot search an index: its segment is scanned instead");
                }
                Vec::new()
            }
        };
        let mut candidates: Vec<Ordinal> = places.into_iter().map(|place| self.ordinal(place)).collect();
        candidates.retain(|ordinal| allow.contains(*ordinal) && !vectors.is_absent(*ordinal));
        candidates.sort_unstable();
        candidates.dedup();
        let scorer = vectors.scorer(query);
        let mut hits = Vec::with_capacity(candidates.len());
        for some in candidates.chunks(4) {
            meter.add(some.len())?;
            let distances = Near::four(&scorer, four(some, |ordinal| *ordinal));
            hits.extend(some.iter().zip(distances).map(|(ordinal, distance)| Scored {
                distance,
                ordinal: *ordinal,
            }));
        }
        hits.sort_unstable();
        hits.truncate(k);
        Ok(Found {
            hits,
            evaluated: meter.evaluated,
        })
    }

    fn ordinal(&self, place: usize) -> Ordinal {
        match &self.layout.present {
            None => place as Ordinal,
            Some(present) => present[place],
        }
    }

    /// The places of the ordinals of a set, a bit each, lowest first.
    fn bitmap(&self, set: &BitSet) -> Vec<u8> {
        let count = self.layout.count;
        match &self.layout.present {
            None => {
                let words = (0..count.div_ceil(64)).flat_map(|i| set.word(i).to_le_bytes());
                words.take(count.div_ceil(8)).collect()
            }
            Some(present) => {
                let mut bitmap = vec![0u8; count.div_ceil(8)];
                for (place, ordinal) in present.iter().enumerate() {
                    bitmap[place / 8] |= u8::from(set.contains(*ordinal)) << (place % 8);
                }
                bitmap
            }
        }
    }

    /// What each effort finds of the nearest of some rows. What Faiss says is the inner error.
    fn measure(
        &self,
        vectors: &VectorsRef<'_>,
        workers: &Workers,
        stop: &dyn Fn() -> bool,
    ) -> Result<Result<Vec<Step>, String>> {
        let count = self.layout.count;
        let questions = QUESTIONS.min(count);
        let rows: Vec<Ordinal> = (0..questions).map(|i| self.ordinal(i * count / questions)).collect();
        let asked: Vec<Cow<'_, [f32]>> = rows.iter().map(|row| vectors.row(*row)).collect();
        // Whether it can be searched at all.
        if let Err(said) = self
            .native
            .search(&direction(vectors.metric, &asked[0]), 1, self.lists().map(|_| 1), None)
        {
            return Ok(Err(said));
        }
        if count < MEASURED_ROWS_MIN {
            return Ok(Ok(Vec::new()));
        }
        // One more, for the row itself.
        let nearest = batch::nearest(vectors, &asked, HITS + 1, &Allow::All, workers, stop)?;
        let mut steps: Vec<Step> = Vec::new();
        let (mut at, last) = match self.lists() {
            Some(lists) => (1, lists as u32),
            None => (CANDIDATES_FIRST, CANDIDATES_LAST.min(count as u32)),
        };
        while steps.len() < STEPS_MAX {
            if stop() {
                return Err(cancelled());
            }
            let effort = match self.lists() {
                Some(_) => Effort {
                    candidates: effort::kept(HITS),
                    nprobe: Some(at as usize),
                },
                None => Effort {
                    candidates: at as usize,
                    nprobe: None,
                },
            };
            let ask = |i: usize| -> Result<f64> {
                let others = |hits: &[Scored]| -> Vec<Scored> {
                    let other = |hit: &&Scored| hit.ordinal != rows[i];
                    hits.iter().filter(other).take(HITS).copied().collect()
                };
                let right = others(&nearest[i]);
                let edge = right.last().map_or(f32::INFINITY, |last| last.distance);
                let found = self.find(vectors, &asked[i], HITS + 1, effort, &Allow::All, &|| false)?;
                let same = others(&found.hits).iter().filter(|hit| hit.distance <= edge).count();
                Ok(same as f64 / right.len().max(1) as f64)
            };
            let found = workers.map(questions, ask).into_iter().collect::<Result<Vec<f64>>>()?;
            let mean = found.iter().sum::<f64>() / questions as f64;
            let variance = found.iter().map(|share| (share - mean).powi(2)).sum::<f64>() / questions as f64;
            // Less its standard error: a sample may be lucky.
            let recall = (mean - (variance / questions as f64).sqrt()).clamp(0.0, 1.0) as f32;
            let before = steps.last().map_or(0.0, |step| step.recall);
            steps.push(Step {
                effort: at,
                recall: recall.max(before),
            });
            if recall >= ENOUGH || at >= last {
                break;
            }
            at = (at * 2).min(last);
        }
        // Of steps that found as much the first is enough.
        steps.dedup_by(|later, before| later.recall <= before.recall);
        Ok(Ok(steps))
    }
}

/// A query as Faiss compares it.
fn direction(metric: Metric, query: &[f32]) -> Vec<f32> {
    match metric {
        Metric::Cosine => {
            let inv_norm = inv_norm(query);
            query.iter().map(|x| x * inv_norm).collect()
        }
        Metric::Dot | Metric::Euclid | Metric::Manhattan | Metric::Hamming => query.to_vec(),
    }
}

/// Whether a search of it takes a bitmap: found out by one.
fn selects(native: &Native) -> bool {
    let query = vec![1.0; native.dim()];
    let all = vec![0xFF; native.len().div_ceil(8)];
    native.search(&query, 1, native.lists().map(|_| 1), Some(&all)).is_ok()
}

impl VectorIndex for Faiss {
    fn search(
        &self,
        vectors: &VectorsRef<'_>,
        query: &[f32],
        k: usize,
        ef: usize,
        allow: &Allow<'_>,
        stop: &dyn Fn() -> bool,
    ) -> Result<Found> {
        let rows = self.layout.count as f64;
        let depth = match allow {
            Allow::All => 1.0,
            Allow::Only(set) => rows / set.count().max(1) as f64,
        };
        let chosen = self.effort(k, depth, TARGET_RECALL_DEFAULT, None, None);
        let effort = Effort {
            candidates: chosen.candidates.max(ef),
            ..chosen
        };
        let found = self.find(vectors, query, k, effort, allow, stop)?;
        if found.hits.len() >= k.min(self.layout.count) {
            return Ok(found);
        }
        // Whatever kept Faiss from them, a scan comes by all.
        let scanned = Flat.search(vectors, query, k, ef, allow, stop)?;
        Ok(Found {
            evaluated: found.evaluated + scanned.evaluated,
            ..scanned
        })
    }
}
