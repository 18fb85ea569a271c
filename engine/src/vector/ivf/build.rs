//! Making lists of vectors that are in a file already: centres from a sample, then one pass that puts every row into its list,
//! one that measures, and one that writes the records.
//!
//! Memory beside the mapped vectors: the sample ([`SAMPLE_BYTES_MAX`]), twelve bytes a row, the centres, and a piece of the
//! records ([`PIECE_BYTES`]). The vectors are read in the order of the file, except that records are written list after list:
//! for each piece of them the rows that belong in it are read, in their order.

use super::kmeans::{self, GoOn, Groups, Nearest, Space, draw};
use super::layout::{Content, metric_of_centres};
use super::measure::{Measured, measure};
use crate::config::Workers;
use crate::error::{Error, ErrorKind, Result};
use crate::limits::LISTS_MAX;
use crate::schema::Metric;
use crate::types::Ordinal;
use crate::vector::codes::{self, AroundCentres};
use crate::vector::fidelity::{Coding, FLOOR, Tried};
use crate::vector::kernels::{Bits, PACK};
use crate::vector::{Floats, VectorsRef, packs};

/// Rows of the sample for each list. More make centres that fit rows outside of it no better.
const SAMPLE_ROWS: usize = 48;
/// Bytes of the sample at most.
const SAMPLE_BYTES_MAX: usize = 256 << 20;
/// Bytes of records that are put in order at a time.
const PIECE_BYTES: usize = 64 << 20;
/// Of fewer dimensions a bit of each says too little of where a row is.
const PACKED_DIM_MIN: usize = 64;
/// Lists, for each root of the number of rows, unless the caller says how many.
const LISTS_PER_ROOT: f64 = 4.0;
/// Rows of a list on average, at least: of fewer a centre would say little more than each of them.
const LIST_ROWS_MIN: usize = 32;
/// Rows of a share of the work.
const SHARE_ROWS: usize = 1024;
/// Shares between two looks at whether to go on.
const ROUND_SHARES: usize = 32;
/// What is reported while centres are sought: this part of the rows.
const CLUSTERED: f64 = 0.4;

/// What lists are wanted.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// How many; as many as suit the rows if none.
    pub lists: Option<u32>,
    /// The coarsest codes of records; none are made if none.
    pub bits: Option<Bits>,
    /// Chance.
    pub seed: u64,
}

/// Lists of vectors, without their records.
pub struct Lists<'a> {
    pub(super) vectors: VectorsRef<'a>,
    pub(super) centres: Vec<f32>,
    pub(super) mean: Vec<f32>,
    pub(super) spreads: Vec<f32>,
    pub(super) starts: Vec<u32>,
    pub(super) order: Vec<Ordinal>,
    /// Of each ordinal; of an absent one it means nothing.
    pub(super) list_of: Vec<u32>,
    coding: Option<Coding>,
    measured: Measured,
    seed: u64,
}

/// How many lists so many rows get: four times their root, at which a question reads about as many centres as rows, and one for
/// [`LIST_ROWS_MIN`] rows at most.
pub fn default_lists(rows: usize) -> usize {
    let lists = (LISTS_PER_ROOT * (rows as f64).sqrt()).round() as usize;
    lists.min(rows / LIST_ROWS_MIN).clamp(1, LISTS_MAX as usize)
}

/// Groups all present vectors, of which a caller makes sure that there is at least one. Calls `progress` every so often with
/// the number of rows done; when it answers false the build ends as `Cancelled`.
pub fn build<'a>(
    vectors: &VectorsRef<'a>,
    wanted: Wanted,
    workers: &Workers,
    progress: &mut dyn FnMut(usize) -> bool,
) -> Result<Lists<'a>> {
    vectors.check()?;
    let rows = vectors.len();
    let mut report = |done: usize| match progress(done) {
        true => Ok(()),
        false => Err(Error::new(
            ErrorKind::Cancelled,
            "cancelled",
            format!("lists were cancelled after {done} of {rows} rows"),
        )),
    };
    let clustered = (rows as f64 * CLUSTERED) as usize;
    report(0)?;
    let present: Vec<Ordinal> = (0..rows as Ordinal).filter(|o| !vectors.is_absent(*o)).collect();
    let space = Space::of(vectors.metric, vectors.dim);
    let count = wanted
        .lists
        .map_or_else(|| default_lists(present.len()), |n| n as usize);
    let count = count.clamp(1, present.len().max(1));
    let mut lists = Lists {
        vectors: *vectors,
        centres: vec![0.0; vectors.dim],
        mean: vec![0.0; vectors.dim],
        spreads: vec![0.0],
        starts: vec![0, 0],
        order: Vec::new(),
        list_of: vec![0; rows],
        coding: None,
        measured: Measured::default(),
        seed: wanted.seed,
    };
    if !present.is_empty() {
        let sample = sample(vectors, &present, count, wanted.seed);
        let go_on: GoOn<'_> = &mut || report(0);
        lists.centres = kmeans::cluster(&sample, space, count, wanted.seed, workers, go_on)?;
        drop(sample);
        lists.fill(&present, space, workers, &mut |done| {
            report(clustered + (done as f64 / present.len() as f64 * (rows - clustered) as f64) as usize)
        })?;
    }
    drop(present);
    lists.choose_codes(wanted.bits, workers, &mut || report(rows))?;
    report(rows)?;
    Ok(lists)
}

/// Rows spread over all, of unit length for cosine.
fn sample(vectors: &VectorsRef<'_>, present: &[Ordinal], lists: usize, seed: u64) -> Vec<f32> {
    let row_bytes = vectors.dim * size_of::<f32>();
    let most = (SAMPLE_BYTES_MAX / row_bytes).max(lists);
    let count = present.len().min(lists.saturating_mul(SAMPLE_ROWS)).min(most);
    let mut sample = Vec::with_capacity(count * vectors.dim);
    for i in 0..count {
        let ordinal = present[draw(i, count, present.len(), seed)];
        put_scaled(vectors, ordinal, &mut sample);
    }
    sample
}

fn put_scaled(vectors: &VectorsRef<'_>, ordinal: Ordinal, to: &mut Vec<f32>) {
    let scale = codes::scale(vectors, ordinal);
    to.extend(vectors.row(ordinal).iter().map(|x| x * scale));
}

impl<'a> Lists<'a> {
    /// Puts every row into the list of its nearest centre.
    fn fill(
        &mut self,
        present: &[Ordinal],
        space: Space,
        workers: &Workers,
        report: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<()> {
        let count = self.centres.len() / space.dim;
        let vectors = self.vectors;
        let centres = kmeans::Centres::new(space, &self.centres, workers, &mut || report(0))?;
        let shares: Vec<&[Ordinal]> = present.chunks(SHARE_ROWS).collect();
        let mut nearest: Vec<Nearest> = Vec::with_capacity(present.len());
        for shares in shares.chunks(ROUND_SHARES) {
            report(nearest.len())?;
            let found = workers.map(shares.len(), |share| {
                let mut rows = Vec::with_capacity(shares[share].len() * space.dim);
                for ordinal in shares[share] {
                    put_scaled(&vectors, *ordinal, &mut rows);
                }
                centres.nearest(&rows)
            });
            for found in found {
                nearest.extend(found?);
            }
        }
        drop(centres);
        let mut sums = vec![0f64; count];
        for (ordinal, nearest) in present.iter().zip(&nearest) {
            self.list_of[*ordinal as usize] = nearest.centre;
            sums[nearest.centre as usize] += f64::from(nearest.distance);
        }
        let groups = Groups::of(&nearest, count);
        self.order = groups.rows.iter().map(|i| present[*i as usize]).collect();
        self.starts = groups.starts;
        self.spreads = vec![0.0; count];
        let mut mean = vec![0f64; space.dim];
        for list in 0..count {
            let size = self.size(list).max(1) as f64;
            let distance = (sums[list] / size) as f32;
            let centre = &mut self.centres[list * space.dim..(list + 1) * space.dim];
            self.spreads[list] = match vectors.metric {
                // Of unit vectors around a centre of unit length: the mean of their cosines with it follows, and with it how
                // long their mean is, which becomes the centre.
                Metric::Cosine => {
                    let cosine = (1.0 - distance / 2.0).clamp(0.0, 1.0);
                    centre.iter_mut().for_each(|x| *x *= cosine);
                    (1.0 - cosine * cosine).max(0.0).sqrt()
                }
                Metric::Dot | Metric::Euclid | Metric::Hamming => distance.max(0.0).sqrt(),
                Metric::Manhattan => distance,
            };
            let weight = self.size(list) as f64 / self.order.len() as f64;
            let centre = &self.centres[list * space.dim..(list + 1) * space.dim];
            for (mean, x) in mean.iter_mut().zip(centre) {
                *mean += f64::from(*x) * weight;
            }
        }
        self.mean = mean.into_iter().map(|x| x as f32).collect();
        Ok(())
    }

    /// The coarsest codes from those wanted on that tell rows apart, and how far a search has to look.
    fn choose_codes(&mut self, wanted: Option<Bits>, workers: &Workers, go_on: GoOn<'_>) -> Result<()> {
        let Some(wanted) = wanted.filter(|_| codes::metric_number(self.vectors.metric).is_some()) else {
            self.measured = measure(self, None, self.seed, workers, go_on)?;
            return Ok(());
        };
        let mut coding = Coding {
            used: None,
            tried: Vec::new(),
        };
        for bits in [Bits::Four, Bits::Eight] {
            if bits.count() < wanted.count() {
                continue;
            }
            self.measured = measure(self, Some(bits), self.seed, workers, go_on)?;
            let recall = self.measured.recall;
            coding.tried.push(Tried { bits, recall });
            if recall >= FLOOR {
                coding.used = Some(bits);
                break;
            }
        }
        self.coding = Some(coding);
        Ok(())
    }

    /// Which codes the records hold and what was measured before; none where none were wanted.
    pub fn coding(&self) -> Option<&Coding> {
        self.coding.as_ref()
    }

    fn bits(&self) -> Option<Bits> {
        self.coding.as_ref().and_then(|coding| coding.used)
    }

    /// Rows in a list.
    pub(super) fn size(&self, list: usize) -> usize {
        (self.starts[list + 1] - self.starts[list]) as usize
    }

    pub(super) fn centre_of(&self, ordinal: Ordinal) -> &[f32] {
        let list = self.list_of[ordinal as usize] as usize;
        &self.centres[list * self.vectors.dim..(list + 1) * self.vectors.dim]
    }

    /// The centres, as a search measures them.
    pub(super) fn centre_vectors(&self) -> VectorsRef<'_> {
        VectorsRef {
            metric: metric_of_centres(self.vectors.metric),
            dim: self.vectors.dim,
            data: Floats::Singles(&self.centres),
            touch: None,
            inv_norms: &[],
            absent: None,
            codes: None,
            signs: None,
            packs: None,
        }
    }

    /// The bytes of everything but the records, ready for [`IvfLayout::parse`](super::IvfLayout::parse).
    pub fn index(&self, workers: &Workers, stop: &dyn Fn() -> bool) -> Result<Vec<u8>> {
        let centres = self.centre_vectors();
        let mut coded = Vec::new();
        if self.vectors.metric != Metric::Manhattan {
            codes::encode(&centres, Bits::Eight, &mut |bytes| {
                coded.extend_from_slice(bytes);
                Ok(())
            })?;
        }
        let mut graph = Vec::new();
        if self.spreads.len() > super::ROUTED {
            let layout = (!coded.is_empty())
                .then(|| crate::vector::CodesLayout::parse(&coded))
                .transpose()?;
            let vectors = VectorsRef {
                codes: layout.as_ref().map(|layout| layout.view(&coded)),
                ..centres
            };
            graph = kmeans::graph(&vectors, workers, &mut || match stop() {
                true => Err(Error::new(ErrorKind::Cancelled, "cancelled", "lists were cancelled")),
                false => Ok(()),
            })?;
        }
        let content = Content {
            metric: self.vectors.metric,
            dim: self.vectors.dim,
            rows: self.vectors.len(),
            bits: self.bits(),
            far_reach: self.measured.far_reach,
            looks: &self.measured.looks,
            mean: &self.mean,
            centres: &self.centres,
            coded: &coded,
            spreads: &self.spreads,
            starts: &self.starts,
            order: &self.order,
            graph: &graph,
        };
        Ok(content.encode())
    }

    /// Writes the records in the order of their places, piece by piece; nothing without codes.
    pub fn records(
        &self,
        workers: &Workers,
        stop: &dyn Fn() -> bool,
        put: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let Some(bits) = self.bits() else { return Ok(()) };
        let encoder = AroundCentres::new(&self.vectors, bits, &self.mean);
        let of_share = |rows: &[(Ordinal, usize)], records: &mut [u8], record: usize| {
            let mut encoder = encoder.clone();
            for ((ordinal, _), record) in rows.iter().zip(records.chunks_exact_mut(record)) {
                encoder.row(*ordinal, self.centre_of(*ordinal), record);
            }
        };
        self.in_order(bits.record_bytes(self.vectors.dim), &of_share, workers, stop, put)
    }

    /// Writes the packs of the same rows, thirty-two places together, piece by piece; nothing where lists have none.
    pub fn packs(
        &self,
        workers: &Workers,
        stop: &dyn Fn() -> bool,
        put: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let dim = self.vectors.dim;
        if self.bits().is_none() || dim < PACKED_DIM_MIN {
            return Ok(());
        }
        let encoder = || packs::Encoder::new(&self.vectors, &self.mean);
        let of_share = |rows: &[(Ordinal, usize)], looks: &mut [u8], look: usize| {
            let mut encoder = encoder();
            for ((ordinal, _), look) in rows.iter().zip(looks.chunks_exact_mut(look)) {
                encoder.row(*ordinal, self.centre_of(*ordinal), look);
            }
        };
        let row_bytes = encoder().row_bytes();
        let mut pack = Vec::new();
        self.in_order(row_bytes, &of_share, workers, stop, &mut |rows| {
            for rows in rows.chunks(row_bytes * PACK) {
                pack.clear();
                pack.resize(packs::bytes_of_places(dim), 0);
                for (i, row) in rows.chunks_exact(row_bytes).enumerate() {
                    packs::put_row(&mut pack, i, row);
                }
                put(&pack)?;
            }
            Ok(())
        })
    }

    /// Makes so many bytes of each row and gives them in the order of places, piece by piece. Rows are read in their order, a share of them by
    /// each helper: `of_share` gets the ordinals and where their bytes go.
    fn in_order(
        &self,
        row_bytes: usize,
        of_share: &(dyn Fn(&[(Ordinal, usize)], &mut [u8], usize) + Sync),
        workers: &Workers,
        stop: &dyn Fn() -> bool,
        put: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        // Whole packs of them, counted with what they are sorted by.
        let each = row_bytes + size_of::<(Ordinal, usize)>();
        let piece = (PIECE_BYTES / each / PACK).max(1) * PACK;
        for from in (0..self.order.len()).step_by(piece) {
            let order = &self.order[from..self.order.len().min(from + piece)];
            let mut rows: Vec<(Ordinal, usize)> = order.iter().copied().zip(0..).collect();
            rows.sort_unstable();
            let mut bytes = vec![0u8; order.len() * row_bytes];
            let shares: Vec<&[(Ordinal, usize)]> = rows.chunks(SHARE_ROWS).collect();
            for shares in shares.chunks(ROUND_SHARES) {
                if stop() {
                    return Err(Error::new(ErrorKind::Cancelled, "cancelled", "lists were cancelled"));
                }
                let some = workers.map(shares.len(), |share| {
                    let mut made = vec![0u8; shares[share].len() * row_bytes];
                    of_share(shares[share], &mut made, row_bytes);
                    made
                });
                for (rows, made) in shares.iter().zip(&some) {
                    for ((_, place), made) in rows.iter().zip(made.chunks_exact(row_bytes)) {
                        bytes[place * row_bytes..(place + 1) * row_bytes].copy_from_slice(made);
                    }
                }
            }
            put(&bytes)?;
        }
        Ok(())
    }
}
