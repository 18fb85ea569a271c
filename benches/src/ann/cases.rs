//! The vectors, the queries and the exact answers of each case.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, bail, ensure};
use cairn_engine::schema::Metric;
use cairn_engine::vector::{Allow, Flat, Floats, VectorIndex, VectorsRef, floats, inv_norm};
use flate2::read::GzDecoder;

use super::K;
use crate::data::Npy;
use crate::place;
use crate::report::Verdict;

pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) metric: Metric,
    pub(crate) dim: usize,
    base: Vec<f32>,
    /// The same numbers, if halves hold all of them, as a sealed file keeps them.
    halves: Vec<u16>,
    /// The same, if they are compared by bits.
    bits: Vec<u8>,
    norms: Vec<f32>,
    queries: Vec<f32>,
    /// How far the tenth exact answer of each query is.
    tenth: Vec<f32>,
}

/// Measures each of the cases that has its data. What lacks it is said; it counts when nothing else was measured.
pub(crate) fn each(
    names: &[String],
    queries: usize,
    mut measure: impl FnMut(&Case) -> anyhow::Result<()>,
) -> anyhow::Result<Verdict> {
    ensure!(queries > 0, "at least one query");
    let mut skipped = Vec::new();
    for name in names {
        match Case::load(name, queries)? {
            Ok(case) => measure(&case)?,
            Err(why) => {
                println!("\n******** SKIPPED: {name}: {why} ********\n");
                skipped.push(why);
            }
        }
    }
    Ok(if skipped.len() == names.len() {
        Verdict::Skipped(skipped.join("; "))
    } else {
        Verdict::Held
    })
}

/// Nothing if one of the numbers is no half.
fn halves_of(base: &[f32]) -> Vec<u16> {
    let mut halves = Vec::new();
    if floats::are_halves(base) {
        floats::to_halves(base, &mut halves);
    }
    halves
}

impl Case {
    /// The inner error says what is missing.
    pub(crate) fn load(name: &str, queries: usize) -> anyhow::Result<Result<Self, String>> {
        let (of, is_bits) = match name.strip_suffix("-bits") {
            Some(of) => (of, true),
            None => (name, false),
        };
        let (mut metric, dim, mut base, mut asked) = match of {
            "wordnet" => match wordnet()? {
                Ok((base, asked)) => (Metric::Cosine, 384, base, asked),
                Err(why) => return Ok(Err(why)),
            },
            // Queries from the vectors themselves, as peers are often compared.
            "wordnet-heldout" => match wordnet()? {
                Ok((all, _)) => {
                    let (base, asked) = hold_out(&all, 384, queries);
                    (Metric::Cosine, 384, base, asked)
                }
                Err(why) => return Ok(Err(why)),
            },
            "fashion" => match fashion()? {
                Ok((base, asked)) => (Metric::Euclid, 784, base, asked),
                Err(why) => return Ok(Err(why)),
            },
            "glove" => match place::data("glove_6B_50d_emb.npy") {
                Ok(path) => {
                    let all = floats(&Npy::read(&path)?);
                    let (base, asked) = hold_out(&all, 50, queries);
                    (Metric::Cosine, 50, base, asked)
                }
                Err(why) => return Ok(Err(why)),
            },
            "clustered1m" => {
                let all = clustered(1_000_000 + queries, 96);
                let (base, asked) = hold_out(&all, 96, queries);
                (Metric::Euclid, 96, base, asked)
            }
            other => bail!("no case {other:?}"),
        };
        asked.truncate(queries * dim);
        let mut bits = Vec::new();
        if is_bits {
            if !dim.is_multiple_of(floats::PER_BYTE) {
                return Ok(Err(format!("{dim} dimensions are no whole bytes of bits")));
            }
            metric = Metric::Hamming;
            for x in base.iter_mut().chain(&mut asked) {
                *x = f32::from(u8::from(*x > 0.0));
            }
            floats::to_bits(&base, &mut bits);
        }
        let norms = match metric {
            Metric::Cosine => base.chunks_exact(dim).map(inv_norm).collect(),
            Metric::Dot | Metric::Euclid | Metric::Manhattan | Metric::Hamming => Vec::new(),
        };
        let mut case = Self {
            name: name.to_owned(),
            metric,
            dim,
            halves: if is_bits { Vec::new() } else { halves_of(&base) },
            bits,
            base,
            norms,
            queries: asked,
            tenth: Vec::new(),
        };
        case.tenth = case.exact()?;
        Ok(Ok(case))
    }

    /// Whether sixteen bits hold every number, as they then are kept.
    pub(crate) fn has_halves(&self) -> bool {
        !self.halves.is_empty()
    }

    pub(crate) fn rows(&self) -> usize {
        self.base.len() / self.dim
    }

    pub(crate) fn query_count(&self) -> usize {
        self.queries.len() / self.dim
    }

    pub(crate) fn query(&self, i: usize) -> &[f32] {
        &self.queries[i * self.dim..(i + 1) * self.dim]
    }

    pub(crate) fn vectors(&self) -> VectorsRef<'_> {
        VectorsRef {
            metric: self.metric,
            dim: self.dim,
            data: match (self.halves.is_empty(), self.bits.is_empty()) {
                (_, false) => Floats::Bits(&self.bits),
                (false, _) => Floats::Halves(&self.halves),
                (true, true) => Floats::Singles(&self.base),
            },
            touch: None,
            inv_norms: &self.norms,
            absent: None,
            codes: None,
            signs: None,
            packs: None,
        }
    }

    fn exact(&self) -> anyhow::Result<Vec<f32>> {
        let share = self
            .query_count()
            .div_ceil(std::thread::available_parallelism()?.get())
            .max(1);
        let starts: Vec<usize> = (0..self.query_count()).step_by(share).collect();
        let parts: Vec<anyhow::Result<Vec<f32>>> = std::thread::scope(|scope| {
            let part = |from: usize| {
                (from..self.query_count().min(from + share))
                    .map(|i| {
                        let found = Flat.search(&self.vectors(), self.query(i), K, 0, &Allow::All, &|| false)?;
                        Ok(found.hits.last().context("no vectors")?.distance)
                    })
                    .collect()
            };
            let threads: Vec<_> = starts.iter().map(|from| scope.spawn(move || part(*from))).collect();
            threads
                .into_iter()
                .map(|t| t.join().expect("a scan does not panic"))
                .collect()
        });
        Ok(parts.into_iter().collect::<anyhow::Result<Vec<_>>>()?.concat())
    }

    /// The share of answers that are as near as the tenth exact one; nobody counts twice.
    pub(crate) fn recall(&self, ids: &[i32]) -> f64 {
        let vectors = self.vectors();
        let mut right = 0;
        for (i, ids) in ids.chunks_exact(K).enumerate() {
            let scorer = vectors.scorer(self.query(i));
            let edge = self.tenth[i] + self.tenth[i].abs() * 1e-5 + 1e-6;
            let mut ids: Vec<u32> = ids.iter().filter_map(|id| u32::try_from(*id).ok()).collect();
            ids.sort_unstable();
            ids.dedup();
            ids.retain(|id| (*id as usize) < self.rows());
            right += ids.iter().filter(|id| scorer.distance(**id) <= edge).count();
        }
        right as f64 / (K * self.query_count()) as f64
    }

    /// The vectors as the peers get them ([`for_peers`]).
    #[cfg(feature = "peers-rust")]
    pub(crate) fn base_for_peers(&self) -> impl Iterator<Item = f32> {
        for_peers(self.metric, self.base.chunks_exact(self.dim))
    }

    #[cfg(feature = "peers-rust")]
    pub(crate) fn queries_for_peers(&self) -> impl Iterator<Item = f32> {
        for_peers(self.metric, self.queries.chunks_exact(self.dim))
    }

    /// Writes the vectors for the peers that are processes.
    pub(crate) fn write(&self, place: &Path) -> anyhow::Result<()> {
        write_rows(&place.join("base.f32"), self.metric, self.base.chunks_exact(self.dim))?;
        write_rows(
            &place.join("queries.f32"),
            self.metric,
            self.queries.chunks_exact(self.dim),
        )?;
        let shape = serde_json::json!({"rows": self.rows(), "dim": self.dim, "queries": self.query_count()});
        std::fs::write(place.join("shape.json"), shape.to_string())?;
        Ok(())
    }
}

/// Rows of unit length if cosine is asked for, which some of the peers only have as a product.
fn for_peers<'a>(metric: Metric, rows: impl Iterator<Item = &'a [f32]>) -> impl Iterator<Item = f32> {
    rows.flat_map(move |row| {
        let scale = if metric == Metric::Cosine { inv_norm(row) } else { 1.0 };
        row.iter().map(move |x| x * scale)
    })
}

/// Writes rows as the peers that are processes read them.
pub(crate) fn write_rows<'a>(path: &Path, metric: Metric, rows: impl Iterator<Item = &'a [f32]>) -> anyhow::Result<()> {
    let mut out = std::io::BufWriter::new(std::fs::File::create(path)?);
    for x in for_peers(metric, rows) {
        out.write_all(&x.to_le_bytes())?;
    }
    Ok(out.flush()?)
}

fn floats(array: &Npy) -> Vec<f32> {
    (0..array.rows).flat_map(|row| array.row_f32(row)).collect()
}

pub(crate) fn wordnet() -> anyhow::Result<Result<(Vec<f32>, Vec<f32>), String>> {
    let paths = ["wordnet_minilm_384.npy", "wordnet_queries_minilm_384.npy"].map(place::data);
    Ok(match paths {
        [Ok(base), Ok(queries)] => Ok((floats(&Npy::read(&base)?), floats(&Npy::read(&queries)?))),
        [Err(why), _] | [_, Err(why)] => Err(why),
    })
}

/// The Debian package `dataset-fashion-mnist`, installed, or its files beside the data sets.
fn fashion() -> anyhow::Result<Result<(Vec<f32>, Vec<f32>), String>> {
    let installed = Path::new("/usr/share/datasets/fashion-mnist");
    let folder = match place::data("fashion_mnist/train-images-idx3-ubyte.gz") {
        _ if installed.is_dir() => installed.to_path_buf(),
        Ok(file) => file.parent().context("a file is in a folder")?.to_path_buf(),
        Err(why) => {
            return Ok(Err(format!(
                "{why}; or install the Debian package dataset-fashion-mnist"
            )));
        }
    };
    let images = |name: &str| -> anyhow::Result<Vec<f32>> {
        let mut bytes = Vec::new();
        let path = folder.join(name);
        let file = std::fs::File::open(&path).with_context(|| path.display().to_string())?;
        std::io::Read::read_to_end(&mut GzDecoder::new(file), &mut bytes)?;
        ensure!(
            bytes.len() > 16 && (bytes.len() - 16).is_multiple_of(784),
            "not images of 28 x 28"
        );
        Ok(bytes[16..].iter().map(|pixel| f32::from(*pixel)).collect())
    };
    Ok(Ok((
        images("train-images-idx3-ubyte.gz")?,
        images("t10k-images-idx3-ubyte.gz")?,
    )))
}

/// Takes out every so-manieth row as a query.
pub(crate) fn hold_out(all: &[f32], dim: usize, queries: usize) -> (Vec<f32>, Vec<f32>) {
    let step = (all.len() / dim / queries.max(1)).max(1);
    let (mut base, mut asked) = (Vec::with_capacity(all.len()), Vec::new());
    for (i, row) in all.chunks_exact(dim).enumerate() {
        let is_query = i % step == 0 && asked.len() < queries * dim;
        if is_query { &mut asked } else { &mut base }.extend_from_slice(row);
    }
    (base, asked)
}

/// A thousand clusters of different sizes and widths: what data made of topics looks like, and what stalls a walk that does
/// not find its way between them.
pub(crate) fn clustered(rows: usize, dim: usize) -> Vec<f32> {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};
    let mut rng = StdRng::seed_from_u64(1);
    let mut normal = move || (0..4).map(|_| rng.random::<f32>() - 0.5).sum::<f32>() * 3f32.sqrt();
    let centres: Vec<f32> = (0..1000 * dim).map(|_| normal()).collect();
    let mut all = Vec::with_capacity(rows * dim);
    for row in 0..rows {
        // Squared, so that the first clusters are larger.
        let share = (row as f32 * 0.618_034).fract();
        let cluster = ((share * share * 1000.0) as usize).min(999);
        let width = 0.1 + 0.3 * (cluster % 7) as f32 / 7.0;
        let centre = &centres[cluster * dim..(cluster + 1) * dim];
        all.extend(centre.iter().map(|x| x + width * normal()));
    }
    all
}
