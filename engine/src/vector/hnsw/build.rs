//! Building a graph: insertion (the paper's algorithms 1, 3 and 4), then a pass that joins what insertion
//! left apart.
//!
//! Levels are hashes, so every block's place is known before anything is inserted: memory is allocated once, and the
//! graph under construction is walked by the same code as the finished one. Each link keeps its distance while the
//! graph is built, which spares half the work of choosing neighbours anew; finished, only the ordinals are written.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::layout::{Hnsw, LEVEL_MAX, M, NONE};
use super::search::{DESCENT_EF, Walk};
use crate::error::{Error, ErrorKind, Result};
use crate::schema::Metric;
use crate::types::Ordinal;
use crate::vector::kernels::{self, Kernel};
use crate::vector::{BitSet, Meter, Scored, VectorsRef};

/// Rows between two calls of `progress`: some tens of milliseconds.
const PROGRESS_EVERY: usize = 64;

/// Builds the graph of all present vectors and gives back its bytes, ready for
/// [`HnswLayout::parse`](super::HnswLayout::parse).
///
/// `m` links per node (twice that on the base level), `ef_construction` candidates while inserting. Calls `progress`
/// every so often with the number of rows done; when it answers false the build ends as `Cancelled`.
///
/// Memory beside the vectors: the graph three times over for a moment (links, their distances, the bytes).
pub fn build(
    vectors: &VectorsRef<'_>,
    m: u32,
    ef_construction: u32,
    seed: u64,
    progress: &mut dyn FnMut(usize) -> bool,
) -> Result<Vec<u8>> {
    vectors.check()?;
    if !M.contains(&m) {
        return Err(Error::invalid(
            "bad_index",
            format!("m must be {} to {}, got {m}", M.start(), M.end()),
        ));
    }
    let rows = vectors.len();
    let mut report = |done: usize| {
        if progress(done) {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Cancelled,
            "cancelled",
            format!("graph build cancelled after {done} of {rows} rows"),
        ))
    };
    let mut builder = Builder::new(vectors, m as usize, ef_construction as usize, seed)?;
    for (done, node) in builder.insertion_order().into_iter().enumerate() {
        if done.is_multiple_of(PROGRESS_EVERY) {
            report(done)?;
        }
        builder.insert(node)?;
    }
    for level in (0..=builder.graph.top_level).rev() {
        report(rows)?;
        builder.join(level)?;
    }
    report(rows)?;
    Ok(builder.graph.view().encode())
}

struct Builder<'a> {
    space: Space<'a>,
    graph: Graph,
    /// Ordinals that are not nodes: absent ones, and twins after the first.
    outside: BitSet,
    seed: u64,
    ef: usize,
    walk: Walk,
    // Buffers, kept between insertions.
    pool: Vec<Scored>,
    chosen: Vec<Scored>,
    chosen_back: Vec<Scored>,
    passed_over: Vec<Scored>,
}

impl<'a> Builder<'a> {
    fn new(vectors: &VectorsRef<'a>, m: usize, ef_construction: usize, seed: u64) -> Result<Self> {
        let (twins, outside) = find_twins(vectors);
        let mut tower_starts = vec![0u32; vectors.len() + 1];
        let mut blocks = 0u32;
        for ordinal in 0..vectors.len() as Ordinal {
            if !outside.contains(ordinal) {
                // At most about one block per node (m = 2), so only a node count near 2^32 can fail here.
                blocks = blocks
                    .checked_add(level_of(chance(ordinal, seed), m))
                    .ok_or_else(|| Error::invalid("segment_too_large", "a graph has at most 2^32 upper blocks"))?;
            }
            tower_starts[ordinal as usize + 1] = blocks;
        }
        Ok(Self {
            space: Space::new(vectors),
            graph: Graph {
                m,
                entry: NONE,
                top_level: 0,
                base: Blocks::new(vectors.len(), 2 * m),
                towers: Blocks::new(blocks as usize, m),
                tower_starts,
                twins,
            },
            outside,
            seed,
            // Fewer candidates than links to choose would leave the choice to chance.
            ef: ef_construction.max(m),
            walk: Walk::default(),
            pool: Vec::new(),
            chosen: Vec::new(),
            chosen_back: Vec::new(),
            passed_over: Vec::new(),
        })
    }

    /// The nodes in the order of their insertion: in rounds, each about as large as all before it together, each a
    /// sample of everything, each in ordinal order.
    ///
    /// Plain ordinal order would insert one document after the other, and a cluster that comes late finds only links
    /// that were chosen without it: with 40 clusters of 100 in a row, recall@10 was 0.97 and did not rise with `ef`;
    /// in rounds it is 1.00. A full shuffle does the same, but rounds keep neighbouring ordinals together, whose
    /// vectors are often near each other and then still in the cache (117,659 WordNet glosses: 54 s in ordinal order,
    /// 62 s in rounds, 72 s shuffled). Nodes of upper levels are in the first rounds, since one number decides both.
    fn insertion_order(&self) -> Vec<Ordinal> {
        let mut order: Vec<Ordinal> = (0..self.graph.twins.len() as Ordinal)
            .filter(|ordinal| !self.outside.contains(*ordinal))
            .collect();
        order.sort_by_key(|ordinal| Reverse(chance(*ordinal, self.seed).leading_zeros()));
        order
    }

    /// Algorithm 1: finds the node's surroundings from the top down, and links it to a choice of them on each of its
    /// levels.
    fn insert(&mut self, node: Ordinal) -> Result<()> {
        let level = self.graph.view().level(node);
        let top = self.graph.top_level;
        if self.graph.entry != NONE {
            self.approach(node, level + 1)?;
            for level in (0..=level.min(top)).rev() {
                self.explore(node, level, self.ef)?;
                let mut chosen = std::mem::take(&mut self.chosen);
                choose(
                    &self.space,
                    &self.walk.nearby,
                    self.graph.m,
                    &mut chosen,
                    &mut self.passed_over,
                );
                self.graph.set_links(level, node, &chosen);
                for neighbour in &chosen {
                    self.link_back(
                        level,
                        neighbour.ordinal,
                        Scored {
                            distance: neighbour.distance,
                            ordinal: node,
                        },
                    );
                }
                self.chosen = chosen;
            }
        }
        if self.graph.entry == NONE || level > top {
            self.graph.entry = node;
            self.graph.top_level = level;
        }
        Ok(())
    }

    /// Adds a link; a node that has no room for it chooses anew among its old ones and this.
    fn link_back(&mut self, level: usize, from: Ordinal, to: Scored) {
        if self.graph.add_link(level, from, to) {
            return;
        }
        self.pool.clear();
        self.pool.push(to);
        self.pool.extend(self.graph.links(level, from));
        self.pool.sort_unstable();
        // A choice rarely fills the room it may use: what it leaves takes the next links for free. Were it filled up
        // with what was passed over, nearly every insertion would have to choose anew for each of its neighbours.
        let room = self.pool.len() - 1;
        choose(
            &self.space,
            &self.pool,
            room,
            &mut self.chosen_back,
            &mut self.passed_over,
        );
        self.graph.set_links(level, from, &self.chosen_back);
    }

    /// Leaves in `walk.nearby` the way into the level below `bottom`, as near to the node as the levels above can tell.
    fn approach(&mut self, node: Ordinal, bottom: usize) -> Result<()> {
        self.begin(node)?;
        for level in (bottom..=self.graph.top_level).rev() {
            self.explore(node, level, DESCENT_EF)?;
        }
        Ok(())
    }

    fn begin(&mut self, node: Ordinal) -> Result<()> {
        let Self { space, graph, walk, .. } = self;
        walk.begin(graph.entry, |other| space.between(node, other), &mut Meter::new(&never))
    }

    /// Replaces `walk.nearby` by the `ef` nodes of a level that are nearest to the node, as far as links lead there.
    fn explore(&mut self, node: Ordinal, level: usize, ef: usize) -> Result<()> {
        let Self { space, graph, walk, .. } = self;
        let distance = |other| space.between(node, other);
        walk.layer(
            &graph.view(),
            level,
            &space.vectors,
            distance,
            ef,
            |_| true,
            &mut Meter::new(&never),
        )
    }

    /// Gives every node of the level that cannot be reached from the entry a link from the nearest one that can, as the
    /// spanning tree of NSG does (Fu et al. 2019). Insertion leaves such nodes behind where all links to them lost
    /// against nearer ones: the rims of dense clusters.
    fn join(&mut self, level: usize) -> Result<()> {
        if self.graph.entry == NONE {
            return Ok(());
        }
        let rows = self.graph.twins.len();
        let mut reached = BitSet::new(rows);
        self.graph.flood(level, self.graph.entry, &mut reached);
        for node in 0..rows as Ordinal {
            let is_apart =
                !self.outside.contains(node) && self.graph.view().level(node) >= level && !reached.contains(node);
            if is_apart {
                // Sets out where searches come from, but only from what is reached: so all it finds is.
                self.approach(node, level + 1)?;
                self.walk.nearby.retain(|start| reached.contains(start.ordinal));
                let Self { space, graph, walk, .. } = self;
                walk.also_from(graph.entry, |other| space.between(node, other), &mut Meter::new(&never))?;
                self.explore(node, level, self.ef)?;
                self.bridge(level, node);
                self.graph.flood(level, node, &mut reached);
            }
        }
        Ok(())
    }

    /// Links the nearest of `walk.nearby` that has room to the node, and back if there is room. Where none has room,
    /// the farthest link of the nearest is led through the node, so that nothing that was reached is lost.
    fn bridge(&mut self, level: usize, node: Ordinal) {
        let Self { space, graph, walk, .. } = self;
        for from in &walk.nearby {
            if graph.add_link(level, from.ordinal, Scored { ordinal: node, ..*from }) {
                if !graph.has_link(level, node, from.ordinal) {
                    graph.add_link(level, node, *from);
                }
                return;
            }
        }
        let Some(from) = walk.nearby.first() else { return };
        let Some(onward) = graph.swap_farthest(level, from.ordinal, Scored { ordinal: node, ..*from }) else {
            return;
        };
        if !graph.has_link(level, node, onward.ordinal) {
            let onward = Scored {
                distance: space.between(node, onward.ordinal),
                ordinal: onward.ordinal,
            };
            if !graph.add_link(level, node, onward) {
                // What the node gives up for it was reached before, or comes later in the order of ordinals: nodes
                // before this one were all reached without it.
                graph.swap_farthest(level, node, onward);
            }
        }
    }
}

fn never() -> bool {
    false
}

/// Algorithm 4: of the pool, nearest first, those that are nearer to the centre than to any chosen before them. Keeps
/// one link per direction instead of many into the same crowd. `passed_over` is a buffer.
fn choose(space: &Space<'_>, pool: &[Scored], limit: usize, chosen: &mut Vec<Scored>, passed_over: &mut Vec<Scored>) {
    chosen.clear();
    passed_over.clear();
    for candidate in pool {
        if chosen.len() == limit {
            return;
        }
        let is_apart = |other: &Scored| space.between(candidate.ordinal, other.ordinal) >= candidate.distance;
        if chosen.iter().all(is_apart) {
            chosen.push(*candidate);
        } else {
            passed_over.push(*candidate);
        }
    }
    if space.fills_up {
        chosen.extend(passed_over.iter().take(limit - chosen.len()));
    }
}

/// A number drawn evenly from all `u64`: the one chance in a node's life.
fn chance(ordinal: Ordinal, seed: u64) -> u64 {
    xxh3_64_with_seed(&ordinal.to_le_bytes(), seed)
}

/// The level of a node, with probability `m^-l` at least `l`: the paper's `⌊-ln(u)/ln(m)⌋`, in integers so that it is
/// the same everywhere.
fn level_of(chance: u64, m: usize) -> u32 {
    let mut bound = u64::MAX / m as u64;
    let mut level = 0;
    while chance < bound && level < LEVEL_MAX as u32 {
        level += 1;
        bound /= m as u64;
    }
    level
}

/// For every ordinal the next one with the same vector, bit by bit; and who is no node: absent ones and those that
/// follow.
fn find_twins(vectors: &VectorsRef<'_>) -> (Vec<u32>, BitSet) {
    let mut twins = vec![NONE; vectors.len()];
    let mut outside = BitSet::new(vectors.len());
    let mut last_by_hash: HashMap<u64, Ordinal> = HashMap::with_capacity(vectors.len());
    for ordinal in 0..vectors.len() as Ordinal {
        if vectors.is_absent(ordinal) {
            outside.set(ordinal);
            continue;
        }
        let row: &[u8] = bytemuck::cast_slice(vectors.row(ordinal));
        match last_by_hash.entry(xxh3_64(row)) {
            Entry::Vacant(entry) => {
                entry.insert(ordinal);
            }
            // A collision of different vectors costs nothing but a node of its own.
            Entry::Occupied(mut entry) if row == bytemuck::cast_slice::<f32, u8>(vectors.row(*entry.get())) => {
                let before = entry.insert(ordinal);
                twins[before as usize] = ordinal;
                outside.set(ordinal);
            }
            Entry::Occupied(_) => {}
        }
    }
    (twins, outside)
}

/// Distances among the vectors themselves.
struct Space<'a> {
    vectors: VectorsRef<'a>,
    kernel: Kernel,
    /// Whether a choice of neighbours takes the nearest of those passed over into the room that is left (the paper's
    /// `keepPrunedConnections`): for inner product of vectors of different lengths. It is no metric, and the long
    /// vectors stand before everything else: a choice by direction alone leaves a link or two per node.
    ///
    /// Rejected: the metric space with one more dimension that makes all vectors equally long (Bachrach et al. 2014).
    /// 4,000 vectors of dimension 64 with log-normal lengths (σ = 1): recall@10 at ef 128 was 0.31 there, 0.999 here.
    /// For true metrics filling up makes builds 1.4 times as long, and among clusters it lost a hundredth of the
    /// answers at ef 128.
    fills_up: bool,
}

impl<'a> Space<'a> {
    fn new(vectors: &VectorsRef<'a>) -> Self {
        let kernel = vectors.metric.kernel();
        Self {
            vectors: *vectors,
            kernel,
            fills_up: vectors.metric == Metric::Dot && !are_equally_long(vectors),
        }
    }

    #[inline]
    fn between(&self, a: Ordinal, b: Ordinal) -> f32 {
        let sum = self.kernel.of(self.vectors.row(a), self.vectors.row(b));
        match self.vectors.metric {
            Metric::Cosine => 1.0 - sum * self.vectors.inv_norms[a as usize] * self.vectors.inv_norms[b as usize],
            Metric::Dot => -sum,
            Metric::Euclid | Metric::Manhattan => sum,
        }
    }
}

/// Whether lengths differ by less than a hundredth, as those of normalised vectors do after rounding to few bits;
/// then inner product ranks as cosine does.
fn are_equally_long(vectors: &VectorsRef<'_>) -> bool {
    let present = (0..vectors.len() as Ordinal).filter(|ordinal| !vectors.is_absent(*ordinal));
    let squares = present.map(|ordinal| kernels::dot(vectors.row(ordinal), vectors.row(ordinal)));
    let (least, most) = squares.fold((f32::MAX, 0.0), |(least, most), s| (s.min(least), s.max(most)));
    least >= 0.98 * most
}

/// The graph under construction: what [`Hnsw`] reads, owned, with the distance of each link.
struct Graph {
    m: usize,
    entry: u32,
    top_level: usize,
    base: Blocks,
    towers: Blocks,
    tower_starts: Vec<u32>,
    twins: Vec<u32>,
}

/// Blocks of links, in no order.
struct Blocks {
    width: usize,
    degrees: Vec<u16>,
    ids: Vec<u32>,
    distances: Vec<f32>,
}

impl Blocks {
    fn new(blocks: usize, width: usize) -> Self {
        Self {
            width,
            degrees: vec![0; blocks],
            ids: vec![NONE; blocks * width],
            distances: vec![0.0; blocks * width],
        }
    }
}

impl Graph {
    fn view(&self) -> Hnsw<'_> {
        Hnsw {
            m: self.m,
            entry: self.entry,
            top_level: self.top_level,
            base: &self.base.ids,
            towers: &self.towers.ids,
            tower_starts: &self.tower_starts,
            twins: &self.twins,
        }
    }

    fn block(&self, level: usize, node: Ordinal) -> (&Blocks, usize) {
        match level {
            0 => (&self.base, node as usize),
            _ => (&self.towers, self.tower_starts[node as usize] as usize + level - 1),
        }
    }

    fn block_mut(&mut self, level: usize, node: Ordinal) -> (&mut Blocks, usize) {
        match level {
            0 => (&mut self.base, node as usize),
            _ => (&mut self.towers, self.tower_starts[node as usize] as usize + level - 1),
        }
    }

    fn links(&self, level: usize, node: Ordinal) -> impl Iterator<Item = Scored> + '_ {
        let (blocks, block) = self.block(level, node);
        let start = block * blocks.width;
        let used = start..start + blocks.degrees[block] as usize;
        let pairs = blocks.ids[used.clone()].iter().zip(&blocks.distances[used]);
        pairs.map(|(ordinal, distance)| Scored {
            distance: *distance,
            ordinal: *ordinal,
        })
    }

    fn set_links(&mut self, level: usize, node: Ordinal, links: &[Scored]) {
        let (blocks, block) = self.block_mut(level, node);
        let start = block * blocks.width;
        blocks.ids[start..start + blocks.width].fill(NONE);
        for (i, link) in links.iter().enumerate() {
            blocks.ids[start + i] = link.ordinal;
            blocks.distances[start + i] = link.distance;
        }
        blocks.degrees[block] = links.len() as u16;
    }

    /// False when the node's block is full.
    fn add_link(&mut self, level: usize, from: Ordinal, to: Scored) -> bool {
        let (blocks, block) = self.block_mut(level, from);
        let degree = blocks.degrees[block] as usize;
        if degree == blocks.width {
            return false;
        }
        blocks.ids[block * blocks.width + degree] = to.ordinal;
        blocks.distances[block * blocks.width + degree] = to.distance;
        blocks.degrees[block] += 1;
        true
    }

    fn has_link(&self, level: usize, from: Ordinal, to: Ordinal) -> bool {
        self.links(level, from).any(|link| link.ordinal == to)
    }

    /// Puts `to` in the place of the node's farthest link, which it gives back.
    fn swap_farthest(&mut self, level: usize, from: Ordinal, to: Scored) -> Option<Scored> {
        let mut links: Vec<Scored> = self.links(level, from).collect();
        let farthest = links.iter_mut().max()?;
        let gone = std::mem::replace(farthest, to);
        self.set_links(level, from, &links);
        Some(gone)
    }

    /// Adds everything to `reached` that links lead to from `start` on.
    fn flood(&self, level: usize, start: Ordinal, reached: &mut BitSet) {
        let graph = self.view();
        let mut open = vec![start];
        reached.set(start);
        while let Some(node) = open.pop() {
            for neighbour in graph.neighbours(level, node) {
                if !reached.contains(neighbour) {
                    reached.set(neighbour);
                    open.push(neighbour);
                }
            }
        }
    }
}
