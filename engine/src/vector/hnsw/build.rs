//! Building a graph: insertion (the paper's algorithms 1, 3 and 4) in batches, then a pass that joins what insertion left
//! apart.
//!
//! Levels are hashes, so every block's place is known before anything is inserted: memory is allocated once, and the
//! graph under construction is walked by the same code as the finished one. Each link keeps its distance while the
//! graph is built, which spares half the work of choosing neighbours anew; finished, only the ordinals are written.
//!
//! The nodes of a batch look for their surroundings in the graph as it was before the batch, all at the same time; then
//! links are set in the order of the batch, and nodes that got more than they have room for choose anew, again all at the
//! same time (as ParlayANN does: Manohar et al., "ParlayANN: scalable and deterministic parallel graph-based approximate
//! nearest neighbor search algorithms", 2024). What a share of the work yields depends on nothing but the graph before, so
//! the bytes are the same however many threads help.
//!
//! A build may begin with a graph of some of the vectors, the largest of those that are merged: its nodes keep their levels and their
//! links, and a node that was linked to one that is gone chooses anew among its other neighbours and those of the one that is gone (as
//! FreshDiskANN does: Singh et al. 2021). Then the others are inserted.

use std::borrow::Cow;
use std::cmp::Reverse;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::layout::{Hnsw, LEVEL_MAX, M, NONE};
use super::search::{DESCENT_EF, Walk};
use crate::config::Workers;
use crate::error::{Error, ErrorKind, Result};
use crate::schema::Metric;
use crate::types::Ordinal;
use crate::vector::codes::{CodeScorer, Codes};
use crate::vector::kernels;
use crate::vector::near::{Near, four};
use crate::vector::space::Against;
use crate::vector::twins::Twins;
use crate::vector::{BitSet, Meter, Scored, VectorsRef};

/// A batch is at most this share of the nodes before it, since its nodes do not see each other. ParlayANN found no loss up
/// to a fiftieth; neither did we.
const BATCH_SHARE: usize = 32;
/// Nodes of a batch at most: some tens of milliseconds between two calls of `progress`.
const BATCH_MAX: usize = 1024;
/// Nodes that one share of the work inserts, or chooses anew for: a millisecond or two, far more than handing it out costs.
const SHARE_NODES: usize = 16;

/// Builds the graph of all present vectors and gives back its bytes, ready for
/// [`HnswLayout::parse`](super::HnswLayout::parse). Distances are those of the codes, if the vectors come with codes.
///
/// `m` links per node (twice that on the base level), `ef_construction` candidates while inserting. Calls `progress`
/// every so often with the number of rows done; when it answers false the build ends as `Cancelled`.
///
/// Memory beside the vectors: the graph three times over for a moment (links, their distances, the bytes), and some 20 bytes a row.
pub fn build(
    vectors: &VectorsRef<'_>,
    m: u32,
    ef_construction: u32,
    seed: u64,
    workers: &Workers,
    progress: &mut dyn FnMut(usize) -> bool,
) -> Result<Vec<u8>> {
    extend(vectors, None, m, ef_construction, seed, workers, progress)
}

/// A graph of some of the vectors, and where they are now.
#[derive(Debug, Clone, Copy)]
pub struct Base<'b> {
    /// The graph.
    pub graph: Hnsw<'b>,
    /// For each ordinal of it the one that the vector has now; none if it is gone. Ordinals stay distinct and ascend.
    pub places: &'b [Option<Ordinal>],
}

/// [`build`], which begins with the graph of some of the vectors, if that has as many links a node.
pub fn extend(
    vectors: &VectorsRef<'_>,
    base: Option<Base<'_>>,
    m: u32,
    ef_construction: u32,
    seed: u64,
    workers: &Workers,
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
    let base = base.filter(|base| base.graph.m == m as usize);
    let kept = Adopted::of(vectors, base)?;
    let mut builder = Builder::new(vectors, &kept, m as usize, ef_construction as usize, seed)?;
    let mut done = 0;
    for batch in kept.nodes.chunks(BATCH_MAX) {
        report(done)?;
        builder.adopt(batch, &kept, workers);
        done += batch.len();
    }
    for batch in builder.batches(&kept) {
        report(done)?;
        builder.insert(&batch, workers)?;
        done += batch.len();
    }
    for level in (0..=builder.graph.top_level).rev() {
        report(rows)?;
        builder.join(level)?;
    }
    report(rows)?;
    Ok(builder.graph.view().encode())
}

/// The nodes of a graph that a build begins with.
struct Adopted<'b> {
    base: Option<Base<'b>>,
    twins: Twins,
    /// Those that are still nodes, ascending.
    nodes: Vec<Ordinal>,
    /// For each ordinal the one that it had; NONE for others than nodes.
    from: Vec<Ordinal>,
}

impl<'b> Adopted<'b> {
    fn of(vectors: &VectorsRef<'_>, base: Option<Base<'b>>) -> Result<Self> {
        let twins = Twins::of(vectors);
        let mut from = vec![NONE; vectors.len()];
        let mut nodes = Vec::new();
        if let Some(Base { graph, places }) = base {
            let fits = places.len() == graph.len()
                && places.iter().flatten().is_sorted_by(|a, b| a < b)
                && places.iter().flatten().all(|place| (*place as usize) < vectors.len());
            if !fits {
                return Err(Error::internal("a graph to begin with is of other vectors"));
            }
            let followers = graph.followers();
            for (old, place) in places.iter().enumerate() {
                // Who shares the vector of a row before it is no node; who did and does not any more was none, and is inserted.
                if let Some(place) = place
                    && !twins.outside.contains(*place)
                    && !followers.contains(old as Ordinal)
                    && !graph.is_alone(old as Ordinal)
                {
                    from[*place as usize] = old as Ordinal;
                    nodes.push(*place);
                }
            }
        }
        Ok(Self {
            base,
            twins,
            nodes,
            from,
        })
    }

    fn contains(&self, ordinal: Ordinal) -> bool {
        self.from[ordinal as usize] != NONE
    }

    /// Where a node of the old graph is now, if it still is one.
    fn place(&self, old: Ordinal) -> Option<Ordinal> {
        let place = self.base?.places[old as usize]?;
        self.contains(place).then_some(place)
    }
}

struct Builder<'a> {
    space: Space<'a>,
    graph: Graph,
    /// Ordinals that are not nodes: absent ones, and twins after the first.
    outside: BitSet,
    seed: u64,
    ef: usize,
}

/// What one thread needs to insert nodes: kept between insertions.
struct Tools<'s> {
    walk: Box<Walk>,
    aim: Aim<'s>,
    choice: Choice,
}

impl<'s> Tools<'s> {
    fn new(space: &'s Space<'_>) -> Self {
        Self {
            walk: Walk::of_this_thread(),
            aim: space.aim(),
            choice: Choice::default(),
        }
    }
}

/// A link that some node should get.
struct Offer {
    level: usize,
    to: Ordinal,
    link: Scored,
}

impl<'a> Builder<'a> {
    fn new(vectors: &VectorsRef<'a>, kept: &Adopted<'_>, m: usize, ef_construction: usize, seed: u64) -> Result<Self> {
        let Twins { next: twins, outside } = kept.twins.clone();
        let mut tower_starts = vec![0u32; vectors.len() + 1];
        let mut blocks = 0u32;
        for ordinal in 0..vectors.len() as Ordinal {
            if !outside.contains(ordinal) {
                let level = match kept.base {
                    Some(base) if kept.contains(ordinal) => base.graph.level(kept.from[ordinal as usize]) as u32,
                    _ => level_of(chance(ordinal, seed), m),
                };
                // At most about one block per node (m = 2), so only a node count near 2^32 can fail here.
                blocks = blocks
                    .checked_add(level)
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
        })
    }

    /// Takes over nodes of the graph that the build begins with: their links to nodes that are still there, and where one is gone, a
    /// choice among those and the neighbours of the one that is gone.
    fn adopt(&mut self, nodes: &[Ordinal], kept: &Adopted<'_>, workers: &Workers) {
        let Some(Base { graph: old, .. }) = kept.base else {
            return;
        };
        let shares: Vec<&[Ordinal]> = nodes.chunks(SHARE_NODES).collect();
        let adopt_share = |share: usize| -> Vec<Vec<Vec<Scored>>> {
            let (mut aim, mut choice) = (self.space.aim(), Choice::default());
            let all = shares[share].iter().map(|node| {
                let levels = 0..=self.graph.view().level(*node);
                let links = levels.map(|level| self.adopted(old, kept, *node, level, &mut aim, &mut choice));
                links.collect()
            });
            all.collect()
        };
        let adopted = workers.map(shares.len(), adopt_share);
        for (node, levels) in nodes.iter().zip(adopted.iter().flatten()) {
            for (level, links) in levels.iter().enumerate() {
                self.graph.set_links(level, *node, links);
            }
            let level = levels.len() - 1;
            if self.graph.entry == NONE || level > self.graph.top_level {
                self.graph.entry = *node;
                self.graph.top_level = level;
            }
        }
    }

    /// The links of one of them on one level.
    fn adopted(
        &self,
        old: Hnsw<'_>,
        kept: &Adopted<'_>,
        node: Ordinal,
        level: usize,
        aim: &mut Aim<'_>,
        choice: &mut Choice,
    ) -> Vec<Scored> {
        let (mut near, mut gone) = (Vec::new(), Vec::new());
        for neighbour in old.neighbours(level, kept.from[node as usize]) {
            match kept.place(neighbour) {
                Some(place) => near.push(place),
                None => gone.push(neighbour),
            }
        }
        let behind = gone.iter().flat_map(|gone| old.neighbours(level, *gone));
        near.extend(behind.filter_map(|old| kept.place(old)).filter(|place| *place != node));
        near.sort_unstable();
        near.dedup();
        aim.at(node);
        let mut pool: Vec<Scored> = Vec::with_capacity(near.len());
        for some in near.chunks(4) {
            let distances = aim.four(four(some, |ordinal| *ordinal));
            pool.extend(some.iter().zip(distances).map(|(ordinal, distance)| Scored {
                distance,
                ordinal: *ordinal,
            }));
        }
        pool.sort_unstable();
        if gone.is_empty() {
            return pool;
        }
        choice.of(&self.space, aim, &pool, self.graph.width(level)).to_vec()
    }

    /// The nodes in the order of their insertion: in rounds, each about as large as all before it together, each a
    /// sample of everything; a round in batches.
    ///
    /// Plain ordinal order would insert one document after the other, and a cluster that comes late finds only links
    /// that were chosen without it: with 40 clusters of 100 in a row, recall@10 was 0.97 and did not rise with `ef`;
    /// in rounds it is 1.00. Nodes of upper levels are in the first rounds, since one number decides both.
    ///
    /// A batch takes every so-manieth node of its round: neighbouring ordinals are often chunks of one document and near
    /// each other, and nodes of one batch do not see each other.
    fn batches(&self, kept: &Adopted<'_>) -> Vec<Vec<Ordinal>> {
        let mut order: Vec<Ordinal> = (0..self.graph.twins.len() as Ordinal)
            .filter(|ordinal| !self.outside.contains(*ordinal) && !kept.contains(*ordinal))
            .collect();
        let round = |ordinal: &Ordinal| chance(*ordinal, self.seed).leading_zeros();
        order.sort_by_key(|ordinal| Reverse(round(ordinal)));
        let mut batches = Vec::new();
        let mut done = kept.nodes.len();
        for nodes in order.chunk_by(|a, b| round(a) == round(b)) {
            let batch = (done / BATCH_SHARE).clamp(1, BATCH_MAX);
            let count = nodes.len().div_ceil(batch);
            batches.extend((0..count).map(|i| nodes.iter().skip(i).step_by(count).copied().collect()));
            done += nodes.len();
        }
        batches
    }

    /// Algorithm 1 for some nodes at once: finds the surroundings of each from the top down, and links it to a choice of
    /// them on each of its levels.
    fn insert(&mut self, batch: &[Ordinal], workers: &Workers) -> Result<()> {
        let shares: Vec<&[Ordinal]> = batch.chunks(SHARE_NODES).collect();
        let plan_share = |share: usize| -> Result<Vec<Vec<Vec<Scored>>>> {
            let mut tools = Tools::new(&self.space);
            let planned = shares[share].iter().map(|node| self.plan(*node, &mut tools)).collect();
            tools.walk.keep_for_this_thread();
            planned
        };
        let planned: Vec<_> = workers
            .map(shares.len(), plan_share)
            .into_iter()
            .collect::<Result<_>>()?;
        let mut offers = Vec::new();
        for (node, levels) in batch.iter().zip(planned.iter().flatten()) {
            for (level, links) in levels.iter().enumerate() {
                self.graph.set_links(level, *node, links);
                offers.extend(links.iter().map(|link| Offer {
                    level,
                    to: link.ordinal,
                    link: Scored {
                        distance: link.distance,
                        ordinal: *node,
                    },
                }));
            }
            let level = self.graph.view().level(*node);
            if self.graph.entry == NONE || level > self.graph.top_level {
                self.graph.entry = *node;
                self.graph.top_level = level;
            }
        }
        self.take(offers, workers);
        Ok(())
    }

    /// The links a node should get, on each level from the base up.
    fn plan(&self, node: Ordinal, tools: &mut Tools<'_>) -> Result<Vec<Vec<Scored>>> {
        if self.graph.entry == NONE {
            return Ok(Vec::new());
        }
        let level = self.graph.view().level(node);
        self.approach(node, level + 1, tools)?;
        let mut levels = Vec::with_capacity(level + 1);
        for level in (0..=level.min(self.graph.top_level)).rev() {
            self.explore(level, self.ef, tools)?;
            let Tools { walk, aim, choice } = tools;
            levels.push(choice.of(&self.space, aim, &walk.nearby, self.graph.m).to_vec());
            // The choice aimed elsewhere.
            aim.at(node);
        }
        levels.reverse();
        Ok(levels)
    }

    /// Adds the links; nodes that have no room for theirs choose anew among their old ones and these.
    ///
    /// A choice rarely fills the room it may use: what it leaves takes the next links for free. Were it filled up with what
    /// was passed over, nearly every insertion would have to choose anew for each of its neighbours.
    fn take(&mut self, mut offers: Vec<Offer>, workers: &Workers) {
        offers.sort_by_key(|offer| (offer.level, offer.to));
        let graph = &mut self.graph;
        let is_one = |a: &Offer, b: &Offer| (a.level, a.to) == (b.level, b.to);
        let crowded: Vec<&[Offer]> = offers
            .chunk_by(is_one)
            .filter(|offers| !graph.add_links(offers[0].level, offers[0].to, offers))
            .collect();
        let (space, graph) = (&self.space, &self.graph);
        let shares: Vec<&[&[Offer]]> = crowded.chunks(SHARE_NODES).collect();
        let choose_share = |share: usize| -> Vec<Vec<Scored>> {
            let (mut aim, mut choice, mut pool) = (space.aim(), Choice::default(), Vec::new());
            let chosen = shares[share].iter().map(|offers| {
                let (level, node) = (offers[0].level, offers[0].to);
                pool.clear();
                pool.extend(graph.links(level, node));
                pool.extend(offers.iter().map(|offer| offer.link));
                pool.sort_unstable();
                choice.of(space, &mut aim, &pool, graph.width(level)).to_vec()
            });
            chosen.collect()
        };
        let chosen = workers.map(shares.len(), choose_share);
        for (offers, links) in crowded.iter().zip(chosen.iter().flatten()) {
            self.graph.set_links(offers[0].level, offers[0].to, links);
        }
    }

    /// Aims at the node, and leaves in `walk.nearby` the way into the level below `bottom`, as near to the node as the
    /// levels above can tell.
    fn approach(&self, node: Ordinal, bottom: usize, tools: &mut Tools<'_>) -> Result<()> {
        let Tools { walk, aim, .. } = tools;
        aim.at(node);
        walk.begin(self.graph.entry, aim, &mut Meter::new(&never))?;
        for level in (bottom..=self.graph.top_level).rev() {
            self.explore(level, DESCENT_EF, tools)?;
        }
        Ok(())
    }

    /// Replaces `walk.nearby` by the `ef` nodes of a level that are nearest to what is aimed at, as far as links lead there.
    fn explore(&self, level: usize, ef: usize, tools: &mut Tools<'_>) -> Result<()> {
        let Tools { walk, aim, .. } = tools;
        walk.layer(&self.graph.view(), level, aim, ef, &mut Meter::new(&never))
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
                let mut tools = Tools::new(&self.space);
                self.approach(node, level + 1, &mut tools)?;
                tools.walk.nearby.retain(|start| reached.contains(start.ordinal));
                tools
                    .walk
                    .also_from(self.graph.entry, &tools.aim, &mut Meter::new(&never))?;
                self.explore(level, self.ef, &mut tools)?;
                let Tools { walk, aim, .. } = tools;
                bridge(&mut self.graph, level, node, &walk.nearby, &aim);
                walk.keep_for_this_thread();
                self.graph.flood(level, node, &mut reached);
            }
        }
        Ok(())
    }
}

/// Links the nearest of `nearby` that has room to the node, and back if there is room. Where none has room, the farthest
/// link of the nearest is led through the node, so that nothing that was reached is lost.
fn bridge(graph: &mut Graph, level: usize, node: Ordinal, nearby: &[Scored], aim: &Aim<'_>) {
    for from in nearby {
        if graph.add_link(level, from.ordinal, Scored { ordinal: node, ..*from }) {
            if !graph.has_link(level, node, from.ordinal) {
                graph.add_link(level, node, *from);
            }
            return;
        }
    }
    let Some(from) = nearby.first() else { return };
    let Some(onward) = graph.swap_farthest(level, from.ordinal, Scored { ordinal: node, ..*from }) else {
        return;
    };
    if !graph.has_link(level, node, onward.ordinal) {
        let onward = Scored {
            distance: aim.one(onward.ordinal),
            ordinal: onward.ordinal,
        };
        if !graph.add_link(level, node, onward) {
            // What the node gives up for it was reached before, or comes later in the order of ordinals: nodes
            // before this one were all reached without it.
            graph.swap_farthest(level, node, onward);
        }
    }
}

fn never() -> bool {
    false
}

/// A choice of neighbours, with its buffers.
#[derive(Debug, Default)]
struct Choice {
    chosen: Vec<Scored>,
    open: Vec<Scored>,
    passed_over: Vec<Scored>,
}

impl Choice {
    /// Algorithm 4: of the pool, nearest first, those that are nearer to the centre than to any chosen before them. Keeps
    /// one link per direction instead of many into the same crowd.
    ///
    /// Whoever is chosen strikes out at once all that are nearer to it: so four are measured at a time.
    fn of(&mut self, space: &Space<'_>, aim: &mut Aim<'_>, pool: &[Scored], limit: usize) -> &[Scored] {
        let Self {
            chosen,
            open,
            passed_over,
        } = self;
        chosen.clear();
        passed_over.clear();
        open.clear();
        // Nearest last, to be taken off the end.
        open.extend(pool.iter().rev());
        while let Some(next) = open.pop() {
            chosen.push(next);
            if chosen.len() == limit {
                break;
            }
            aim.at(next.ordinal);
            let mut kept = 0;
            for start in (0..open.len()).step_by(4) {
                let end = open.len().min(start + 4);
                let distances = aim.four(four(&open[start..end], |other| other.ordinal));
                for (i, distance) in (start..end).zip(distances) {
                    let other = open[i];
                    if distance >= other.distance {
                        open[kept] = other;
                        kept += 1;
                    } else {
                        passed_over.push(other);
                    }
                }
            }
            open.truncate(kept);
        }
        if space.fills_up {
            passed_over.append(open);
            passed_over.sort_unstable();
            chosen.extend(passed_over.iter().take(limit - chosen.len()));
        }
        chosen
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

/// Distances among the vectors themselves.
struct Space<'a> {
    measure: Measure<'a>,
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

enum Measure<'a> {
    Floats(VectorsRef<'a>),
    Codes { codes: Codes<'a>, sums: Vec<f32> },
}

impl<'a> Space<'a> {
    fn new(vectors: &VectorsRef<'a>) -> Self {
        let measure = match vectors.codes {
            Some(codes) => Measure::Codes {
                codes,
                sums: codes.sums(),
            },
            None => Measure::Floats(*vectors),
        };
        Self {
            measure,
            fills_up: vectors.metric == Metric::Dot && !are_equally_long(vectors),
        }
    }

    fn aim(&self) -> Aim<'_> {
        match &self.measure {
            Measure::Floats(vectors) => Aim::Floats {
                vectors,
                node: 0,
                row: vectors.against(Cow::Borrowed(&[])),
            },
            Measure::Codes { codes, sums } => Aim::Codes {
                scorer: codes.scorer_of_rows(),
                sums,
            },
        }
    }
}

/// Measures from one node to others.
enum Aim<'s> {
    Floats {
        vectors: &'s VectorsRef<'s>,
        node: Ordinal,
        row: Against<'s>,
    },
    Codes {
        scorer: CodeScorer<'s>,
        sums: &'s [f32],
    },
}

impl Aim<'_> {
    fn at(&mut self, to: Ordinal) {
        match self {
            Self::Floats { vectors, node, row, .. } => {
                *node = to;
                vectors.aim(to, row);
            }
            Self::Codes { scorer, .. } => scorer.aim(to),
        }
    }
}

impl Near for Aim<'_> {
    #[inline]
    fn four(&self, nodes: [Ordinal; 4]) -> [f32; 4] {
        match self {
            Self::Floats { vectors, node, row } => {
                let sums = vectors.sums(row, nodes);
                let mut distances = [0.0; 4];
                for i in 0..4 {
                    distances[i] = match vectors.metric {
                        Metric::Cosine => {
                            let inv_norm = |node: Ordinal| vectors.inv_norms[node as usize];
                            1.0 - sums[i] * inv_norm(*node) * inv_norm(nodes[i])
                        }
                        Metric::Dot => -sums[i],
                        Metric::Euclid | Metric::Manhattan | Metric::Hamming => sums[i],
                    };
                }
                distances
            }
            Self::Codes { scorer, sums } => scorer.four_rows(nodes, sums),
        }
    }

    #[inline]
    fn prefetch(&self, node: Ordinal) {
        match self {
            Self::Floats { vectors, .. } => vectors.prefetch(node),
            Self::Codes { scorer, .. } => scorer.prefetch(node),
        }
    }
}

/// Whether lengths differ by less than a hundredth, as those of normalised vectors do after rounding to few bits;
/// then inner product ranks as cosine does.
fn are_equally_long(vectors: &VectorsRef<'_>) -> bool {
    let present = (0..vectors.len() as Ordinal).filter(|ordinal| !vectors.is_absent(*ordinal));
    let squares = present.map(|ordinal| {
        let row = vectors.row(ordinal);
        kernels::dot(&row, &row)
    });
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
            has_twins: true,
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

    /// Adds all of the links, or none and false when the node's block has not room for them.
    fn add_links(&mut self, level: usize, from: Ordinal, offers: &[Offer]) -> bool {
        let (blocks, block) = self.block(level, from);
        blocks.degrees[block] as usize + offers.len() <= blocks.width
            && offers.iter().all(|offer| self.add_link(level, from, offer.link))
    }

    /// Links a node has room for.
    fn width(&self, level: usize) -> usize {
        if level == 0 { self.base.width } else { self.towers.width }
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
