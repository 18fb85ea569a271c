//! Centres of a sample of rows (Lloyd's k-means), the same for any number of threads.
//!
//! - *Seeds from above.* Many centres are not drawn at random, which leaves lists of very different sizes: a square root of them
//!   is found first, and each gets as many of its own as its share of the rows says. That is most of the balance, and it costs
//!   two small clusterings instead of one large.
//! - *Rounds* over the whole sample follow. Between two of them a centre with next to no rows is moved to where one has too
//!   many, beside one of its rows, so that the crowd is divided; so no centre stays empty where there is something to divide.
//! - *Deterministic.* Who is nearest to what is computed in shares that do not see each other; sums are added in the order of
//!   rows by one thread. Over floats that holds on the same instruction set (see [`kernels`](crate::vector::kernels)).
//!
//! Not here: the choice of the sample, the number of centres, anything about a query.

use std::collections::BinaryHeap;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::ROUTED;
use crate::config::Workers;
use crate::error::Result;
use crate::schema::Metric;
use crate::vector::kernels::{self, Kernel};
use crate::vector::{Allow, Floats, HnswLayout, VectorIndex, VectorsRef, hnsw};

/// Rounds over the whole sample, after the seeds.
const ROUNDS: usize = 4;
/// Rounds of each clustering that makes seeds.
const SEED_ROUNDS: usize = 6;
/// So many centres are drawn at random, more are found from above.
const DRAWN_MAX: usize = 64;
/// Rows for each centre above that those are found by.
const ROWS_ABOVE: usize = 128;
/// A centre with fewer rows than this part of the average is moved ...
const FEW: usize = 8;
/// ... to one with more than this many times the average, if it is not empty: then to any that can be divided.
const MANY: usize = 2;
/// Rows that are looked at for the place to move to: the farthest from its centre is taken.
const TRIES: u64 = 8;
/// Rows of a share of the work.
const SHARE_ROWS: usize = 512;
/// Shares between two looks at whether to go on.
const ROUND_SHARES: usize = 32;
/// Rows that meet four centres while these are in the nearest cache.
const BLOCK_ROWS: usize = 16;
/// Candidates that a graph over centres keeps while it looks for the nearest one.
const ROUTE_EF: usize = 32;

/// Where rows are compared.
#[derive(Debug, Clone, Copy)]
pub(super) struct Space {
    pub(super) dim: usize,
    /// Centres are of unit length, as the rows are.
    pub(super) is_spherical: bool,
    metric: Metric,
    kernel: Kernel,
}

impl Space {
    /// For rows of a metric: of unit length for cosine, else as they are.
    pub(super) fn of(metric: Metric, dim: usize) -> Self {
        let (metric, kernel, is_spherical) = match metric {
            Metric::Manhattan => (Metric::Manhattan, kernels::best().l1, false),
            Metric::Cosine => (Metric::Euclid, kernels::best().l2_squared, true),
            // By Euclidean distance also for inner product: it tells long rows from short ones.
            Metric::Dot | Metric::Euclid | Metric::Hamming => (Metric::Euclid, kernels::best().l2_squared, false),
        };
        Self {
            dim,
            is_spherical,
            metric,
            kernel,
        }
    }
}

/// A row's nearest centre.
#[derive(Debug, Clone, Copy)]
pub(super) struct Nearest {
    pub(super) centre: u32,
    /// Squared for Euclidean distance, and for cosine.
    pub(super) distance: f32,
}

/// Asked between pieces of work; an error ends it.
pub(super) type GoOn<'a> = &'a mut dyn FnMut() -> Result<()>;

/// `count` centres of the rows, of which there are at least as many.
pub(super) fn cluster(
    rows: &[f32],
    space: Space,
    count: usize,
    seed: u64,
    workers: &Workers,
    go_on: GoOn<'_>,
) -> Result<Vec<f32>> {
    let seeds = seeds(rows, space, count, seed, workers, go_on)?;
    rounds(rows, space, seeds, ROUNDS, seed, workers, go_on)
}

fn seeds(rows: &[f32], space: Space, count: usize, seed: u64, workers: &Workers, go_on: GoOn<'_>) -> Result<Vec<f32>> {
    let (dim, n) = (space.dim, rows.len() / space.dim);
    if count == 0 {
        return Ok(Vec::new());
    }
    if count <= DRAWN_MAX {
        let drawn = (0..count).flat_map(|i| {
            let row = draw(i, count, n, seed);
            rows[row * dim..(row + 1) * dim].iter().copied()
        });
        return rounds(rows, space, drawn.collect(), SEED_ROUNDS, seed, workers, go_on);
    }
    let above = count.isqrt();
    let part = n.min(above * ROWS_ABOVE);
    let some: Vec<f32> = (0..part)
        .flat_map(|i| {
            let row = draw(i, part, n, seed ^ 1);
            rows[row * dim..(row + 1) * dim].iter().copied()
        })
        .collect();
    let above = seeds(&some, space, above, seed ^ 2, workers, go_on)?;
    drop(some);
    let centres = Centres::new(space, &above, workers, go_on)?;
    let groups = Groups::of(&centres.nearest_of_all(rows, workers, go_on)?, centres.len());
    // As many as the share of the rows says, so that they add up.
    let upto = |rows: usize| rows * count / n;
    let mut found = Vec::with_capacity(count * dim);
    for first in (0..groups.len()).step_by(ROUND_SHARES) {
        go_on()?;
        let some = workers.map(ROUND_SHARES.min(groups.len() - first), |share| {
            let members = groups.members(first + share);
            let from = groups.starts[first + share] as usize;
            let count = upto(from + members.len()) - upto(from);
            let own: Vec<f32> = members
                .iter()
                .flat_map(|row| rows[*row as usize * dim..(*row as usize + 1) * dim].iter().copied())
                .collect();
            let seed = xxh3_64_with_seed(&(first + share).to_le_bytes(), seed);
            seeds(&own, space, count, seed, &Workers::alone(), &mut || Ok(()))
        });
        for centres in some {
            found.extend(centres?);
        }
    }
    Ok(found)
}

/// The i-th of `count` rows out of `n`: somewhere in the i-th stretch of them, so nobody is drawn twice.
pub(super) fn draw(i: usize, count: usize, n: usize, seed: u64) -> usize {
    let (from, to) = (i * n / count, (i + 1) * n / count);
    let chance = xxh3_64_with_seed(&(i as u64).to_le_bytes(), seed);
    from + (chance % (to - from) as u64) as usize
}

fn rounds(
    rows: &[f32],
    space: Space,
    mut centres: Vec<f32>,
    rounds: usize,
    seed: u64,
    workers: &Workers,
    go_on: GoOn<'_>,
) -> Result<Vec<f32>> {
    for round in 0..rounds {
        go_on()?;
        let nearest = Centres::new(space, &centres, workers, go_on)?.nearest_of_all(rows, workers, go_on)?;
        update(rows, space, &nearest, &mut centres);
        if round + 1 < rounds {
            divide(rows, space, &nearest, &mut centres, seed ^ round as u64);
        }
    }
    Ok(centres)
}

/// Moves each centre to the mean of its rows; one without rows stays.
fn update(rows: &[f32], space: Space, nearest: &[Nearest], centres: &mut [f32]) {
    let dim = space.dim;
    let mut sizes = vec![0u32; centres.len() / dim];
    let mut sums = vec![0f32; centres.len()];
    for (row, nearest) in rows.chunks_exact(dim).zip(nearest) {
        let centre = nearest.centre as usize;
        sizes[centre] += 1;
        for (sum, x) in sums[centre * dim..(centre + 1) * dim].iter_mut().zip(row) {
            *sum += x;
        }
    }
    for ((centre, sum), size) in centres.chunks_exact_mut(dim).zip(sums.chunks_exact(dim)).zip(sizes) {
        if size == 0 {
            continue;
        }
        let scale = match space.is_spherical {
            // A mean of nothing in particular keeps its length: there is no direction to make longer.
            true => Some(crate::vector::inv_norm(sum)).filter(|inv_norm| *inv_norm > 0.0),
            false => None,
        };
        let scale = scale.unwrap_or(1.0 / size as f32);
        for (x, sum) in centre.iter_mut().zip(sum) {
            *x = sum * scale;
        }
    }
}

/// Moves centres with few rows to where there are many.
fn divide(rows: &[f32], space: Space, nearest: &[Nearest], centres: &mut [f32], seed: u64) {
    let dim = space.dim;
    let groups = Groups::of(nearest, centres.len() / dim);
    let average = nearest.len() / groups.len();
    let size = |group: usize| groups.members(group).len();
    let mut few: Vec<usize> = (0..groups.len()).filter(|group| size(*group) * FEW < average).collect();
    few.extend((0..groups.len()).filter(|group| size(*group) == 0 && average < FEW));
    few.sort_by_key(|group| (size(*group), *group));
    few.dedup();
    let mut many: BinaryHeap<(usize, usize)> = (0..groups.len()).map(|group| (size(group), group)).collect();
    let mut moves = 0u64;
    for small in few {
        loop {
            let Some((left, large)) = many.pop() else { return };
            let worth = if size(small) == 0 { 2 } else { MANY * average.max(1) };
            if left < worth {
                // All others are smaller.
                return;
            }
            let members = groups.members(large);
            let farthest = (0..TRIES)
                .map(|i| {
                    let chance = xxh3_64_with_seed(&(moves * TRIES + i).to_le_bytes(), seed);
                    members[(chance % members.len() as u64) as usize]
                })
                .max_by(|a, b| {
                    let distance = |row: &u32| nearest[*row as usize].distance;
                    distance(a).total_cmp(&distance(b)).then(b.cmp(a))
                });
            moves += 1;
            let Some(row) = farthest.filter(|row| nearest[*row as usize].distance > 0.0) else {
                // Many times the same row, which nothing divides.
                continue;
            };
            let row = row as usize;
            centres[small * dim..(small + 1) * dim].copy_from_slice(&rows[row * dim..(row + 1) * dim]);
            many.push((left / 2, large));
            break;
        }
    }
}

/// Rows by their nearest centre.
pub(super) struct Groups {
    /// Group i is `rows[starts[i]..starts[i + 1]]`.
    pub(super) starts: Vec<u32>,
    /// Ascending within a group.
    pub(super) rows: Vec<u32>,
}

impl Groups {
    pub(super) fn of(nearest: &[Nearest], centres: usize) -> Self {
        let mut starts = vec![0u32; centres + 1];
        for nearest in nearest {
            starts[nearest.centre as usize + 1] += 1;
        }
        for i in 0..centres {
            starts[i + 1] += starts[i];
        }
        let mut next = starts.clone();
        let mut rows = vec![0; nearest.len()];
        for (row, nearest) in nearest.iter().enumerate() {
            let place = &mut next[nearest.centre as usize];
            rows[*place as usize] = row as u32;
            *place += 1;
        }
        Self { starts, rows }
    }

    pub(super) fn len(&self) -> usize {
        self.starts.len() - 1
    }

    fn members(&self, group: usize) -> &[u32] {
        &self.rows[self.starts[group] as usize..self.starts[group + 1] as usize]
    }
}

/// Centres that rows look for the nearest of.
pub(super) struct Centres<'c> {
    space: Space,
    data: &'c [f32],
    /// Over them, if they are many.
    graph: Option<(HnswLayout, Vec<u8>)>,
}

impl<'c> Centres<'c> {
    pub(super) fn new(space: Space, data: &'c [f32], workers: &Workers, go_on: GoOn<'_>) -> Result<Self> {
        let mut centres = Self {
            space,
            data,
            graph: None,
        };
        if centres.len() > ROUTED {
            let bytes = graph(&centres.vectors(), workers, go_on)?;
            centres.graph = Some((HnswLayout::parse(&bytes)?, bytes));
        }
        Ok(centres)
    }

    pub(super) fn len(&self) -> usize {
        self.data.len() / self.space.dim
    }

    fn row(&self, centre: usize) -> &[f32] {
        &self.data[centre * self.space.dim..(centre + 1) * self.space.dim]
    }

    fn vectors(&self) -> VectorsRef<'_> {
        VectorsRef {
            metric: self.space.metric,
            dim: self.space.dim,
            data: Floats::Singles(self.data),
            touch: None,
            inv_norms: &[],
            absent: None,
            codes: None,
            signs: None,
            packs: None,
        }
    }

    /// Of each row.
    pub(super) fn nearest(&self, rows: &[f32]) -> Result<Vec<Nearest>> {
        let dim = self.space.dim;
        if let Some((layout, bytes)) = &self.graph {
            let graph = layout.view(bytes);
            let one = |row: &[f32]| {
                let found = graph.search(&self.vectors(), row, 1, ROUTE_EF, &Allow::All, &|| false)?;
                Ok(found.hits.first().map_or(Nearest::NONE, |hit| Nearest {
                    centre: hit.ordinal,
                    distance: hit.distance,
                }))
            };
            return rows.chunks_exact(dim).map(one).collect();
        }
        let mut found = vec![Nearest::NONE; rows.len() / dim];
        for (rows, found) in rows.chunks(BLOCK_ROWS * dim).zip(found.chunks_mut(BLOCK_ROWS)) {
            for first in (0..self.len()).step_by(4) {
                let four = [0, 1, 2, 3].map(|i| (first + i).min(self.len() - 1));
                let centres = four.map(|centre| self.row(centre));
                for (row, nearest) in rows.chunks_exact(dim).zip(&mut *found) {
                    let distances = self.space.kernel.of_four(row, centres);
                    for (centre, distance) in four.into_iter().zip(distances) {
                        if distance < nearest.distance {
                            *nearest = Nearest {
                                centre: centre as u32,
                                distance,
                            };
                        }
                    }
                }
            }
        }
        Ok(found)
    }

    fn nearest_of_all(&self, rows: &[f32], workers: &Workers, go_on: GoOn<'_>) -> Result<Vec<Nearest>> {
        let shares: Vec<&[f32]> = rows.chunks(SHARE_ROWS * self.space.dim).collect();
        let mut all = Vec::with_capacity(rows.len() / self.space.dim);
        for shares in shares.chunks(ROUND_SHARES) {
            go_on()?;
            for found in workers.map(shares.len(), |share| self.nearest(shares[share])) {
                all.extend(found?);
            }
        }
        Ok(all)
    }
}

impl Nearest {
    const NONE: Self = Self {
        centre: 0,
        distance: f32::INFINITY,
    };
}

/// A graph over centres: of few links, since many of them are asked for.
pub(super) fn graph(centres: &VectorsRef<'_>, workers: &Workers, go_on: GoOn<'_>) -> Result<Vec<u8>> {
    const M: u32 = 16;
    const EF_CONSTRUCTION: u32 = 64;
    let mut stopped = None;
    let built = hnsw::build(centres, M, EF_CONSTRUCTION, 1, workers, &mut |_| {
        stopped = go_on().err();
        stopped.is_none()
    });
    match stopped {
        Some(error) => Err(error),
        None => built,
    }
}
