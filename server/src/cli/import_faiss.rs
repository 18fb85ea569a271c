//! `cairn import-faiss`: the rows of a Faiss index file as points of a collection.
//!
//! Faiss reads the file as a whole, so it has to fit the memory of this process, and is as trusted as a program: the library does not
//! defend itself against files that somebody made to harm it. Rows are read back a batch at a time. They are points under the ids
//! of the index, so the same file again replaces what it brought before.

use clap::{Args, ValueEnum};

use super::Connection;
#[cfg(not(feature = "faiss"))]
use super::Failure;

const EXAMPLES: &str = "\
Examples:
  cairn import-faiss vectors.index --collection photos
  cairn import-faiss vectors.index --collection photos --metric cosine --vector clip
  cairn import-faiss vectors.index --collection photos --factory IVF1024,PQ48x4fs

Ids are those of the index (IDMap), or 0, 1, 2, ... without. Vectors are what the
index remembers: the very ones if it keeps them whole (Flat), else approximations.
A collection that is not there is made; one that is keeps what else it has. Only in
programs that were built with `--features faiss`.";

/// `cairn import-faiss`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ImportFaiss {
    /// A file that Faiss wrote (`faiss.write_index`).
    file: String,
    /// Where its rows go.
    #[arg(long, short, value_name = "NAME")]
    collection: String,
    /// The vector they are [default: the collection's only one, or `dense` in a new collection].
    #[arg(long, value_name = "NAME")]
    vector: Option<String>,
    /// How nearness is measured in a new collection [default: as in the index, dot or euclid]. An index of unit vectors by
    /// inner product is one of cosine.
    #[arg(long, value_enum)]
    metric: Option<MetricArg>,
    /// What Faiss makes an index of in a new collection [default: a graph of Cairn's own].
    #[arg(long, value_name = "STRING")]
    factory: Option<String>,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Clone, Copy, ValueEnum)]
enum MetricArg {
    Cosine,
    Dot,
    Euclid,
}

#[cfg(not(feature = "faiss"))]
impl ImportFaiss {
    pub(super) async fn run(self) -> Result<(), Failure> {
        Err(Failure::usage(
            "this program was built without Faiss: build it with `cargo build --release --bin cairn --features faiss`",
        ))
    }
}

#[cfg(feature = "faiss")]
mod with {
    use std::io::IsTerminal;
    use std::time::Instant;

    use cairn_client::{Client, Index, Metric, Point, Schema, VectorSpec};
    use cairn_engine::vector::faiss::native::{Ids, Measure, Native};
    use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

    use super::{ImportFaiss, MetricArg};
    use crate::cli::{Failure, output};

    /// Points of a request, by what their vectors weigh and by number.
    const BATCH_BYTES: usize = 4 << 20;
    const BATCH_POINTS_MAX: usize = 1_000;

    impl ImportFaiss {
        pub(in crate::cli) async fn run(self) -> Result<(), Failure> {
            let failed = |said: String| Failure::new(format!("{}: {said}", self.file));
            let path = self.file.clone();
            let read = tokio::task::spawn_blocking(move || {
                let mut index = Native::read_file(&path)?;
                let ids = index.ids();
                index.remember_places()?;
                Ok::<_, String>((index, ids))
            });
            let read = read.await.map_err(|e| Failure::new(format!("reading ended: {e}")))?;
            let (index, ids) = read.map_err(failed)?;
            if let Ids::Given(ids) = &ids
                && ids.len() != index.len()
            {
                return Err(failed(format!("{} ids of {} rows", ids.len(), index.len())));
            }
            let (rows, dim) = (index.len(), index.dim());
            let exact = index.keeps_whole();
            output::note(format!(
                "{}: {} rows of {dim} dimensions{}",
                self.file,
                output::number(rows as u64),
                match exact {
                    Some(true) => ", kept whole",
                    Some(false) => "; the index has codes of them, so what is imported are approximations",
                    None => "; approximations, unless the index keeps them whole",
                }
            ));
            // Before anything is made: an index that gives no rows back is of no use.
            if rows > 0 {
                index.rows(0, 1).map_err(|said| {
                    failed(format!(
                        "the index does not give its rows back: {said} (ids that lists were given are not read)"
                    ))
                })?;
            }
            let client = self.connection.client().await?;
            let vector = self.prepare(&client, &index).await?;
            let collection = client.collection(&self.collection);
            let batch = (BATCH_BYTES / (dim * 4).max(1)).clamp(1, BATCH_POINTS_MAX);
            let (bar, began) = (progress(rows), Instant::now());
            for first in (0..rows).step_by(batch) {
                let count = batch.min(rows - first);
                let some = index.rows(first, count).map_err(failed)?;
                let point = |(i, row): (usize, &[f32])| {
                    let id = match &ids {
                        Ids::Places => (first + i).to_string(),
                        Ids::Given(ids) => ids[first + i].to_string(),
                    };
                    Point::new(id).named_vector(&vector, row)
                };
                let points: Vec<Point> = some.chunks_exact(dim).enumerate().map(point).collect();
                collection.upsert(points).await.map_err(|error| {
                    bar.abandon();
                    let kept = output::number(first as u64);
                    Failure::new(format!(
                        "rows from {kept} on: {error} (those before are stored; the same again goes on)"
                    ))
                })?;
                bar.inc(count as u64);
            }
            bar.finish_and_clear();
            output::out(format!(
                "{} points into {}, {} a second",
                output::number(rows as u64),
                self.collection,
                output::rate(rows as u64, began.elapsed())
            ));
            Ok(())
        }

        /// Sees to it that there is a collection with such a vector, and says which it is.
        async fn prepare(&self, client: &Client, index: &Native) -> Result<String, Failure> {
            let dim = u32::try_from(index.dim()).map_err(|_| Failure::new("too many dimensions"))?;
            let found = match client.get_collection(&self.collection).await {
                Ok(found) => found,
                Err(error) if error.code() == "collection_not_found" => {
                    let metric = match (self.metric, index.measure()) {
                        (Some(MetricArg::Cosine), _) => Metric::Cosine,
                        (Some(MetricArg::Dot), _) | (None, Measure::Dot) => Metric::Dot,
                        (Some(MetricArg::Euclid), _) | (None, Measure::Euclid) => Metric::Euclid,
                        (None, Measure::Other) => {
                            return Err(Failure::usage(
                                "the index measures by something that Cairn does not: say --metric cosine, dot or euclid",
                            ));
                        }
                    };
                    let mut spec = VectorSpec::new(dim).metric(metric);
                    if let Some(factory) = &self.factory {
                        spec = spec.index(Index::Faiss {
                            factory: factory.clone(),
                        });
                    }
                    let name = self.vector.clone().unwrap_or_else(|| "dense".to_owned());
                    let schema = Schema::default().vector(&name, spec);
                    client.create_collection(&self.collection, schema).await?;
                    output::note(format!("made the collection {}", self.collection));
                    return Ok(name);
                }
                Err(error) => return Err(error.into()),
            };
            if self.metric.is_some() || self.factory.is_some() {
                return Err(Failure::usage(format!(
                    "{} is there already: --metric and --factory are for a new collection",
                    self.collection
                )));
            }
            let vectors = &found.schema.vectors;
            let names = || vectors.keys().cloned().collect::<Vec<_>>().join(", ");
            let (name, spec) = match (&self.vector, vectors.len()) {
                (Some(name), _) => vectors.get_key_value(name),
                (None, 1) => vectors.iter().next(),
                (None, _) => None,
            }
            .ok_or_else(|| {
                Failure::usage(format!(
                    "say with --vector which vector of {} it is: one of {}",
                    self.collection,
                    names()
                ))
            })?;
            if spec.dim != dim {
                return Err(Failure::usage(format!(
                    "vector {name} of {} has {} dimensions, the index {dim}",
                    self.collection, spec.dim
                )));
            }
            Ok(name.clone())
        }
    }

    fn progress(rows: usize) -> ProgressBar {
        let target = match std::io::stderr().is_terminal() {
            true => ProgressDrawTarget::stderr(),
            false => ProgressDrawTarget::hidden(),
        };
        let bar = ProgressBar::with_draw_target(Some(rows as u64), target);
        let style = ProgressStyle::with_template("{bar:30} {human_pos}/{human_len}  {per_sec}  {eta} left");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar
    }
}
