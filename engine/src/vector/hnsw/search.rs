//! Walking a graph: the best-first search of one layer (the paper's algorithm 2), and searches of a whole graph made
//! of it (algorithm 5). Construction uses the same walk, on the graph built so far.
//!
//! A search allocates nothing in the long run: each thread keeps its working memory, which grows to the largest graph
//! it has searched (a bit for each node, four bytes for each that a walk met, and the candidates).

use std::cell::Cell;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::layout::{Hnsw, NONE};
use super::lazy::Line;
use crate::error::{Error, Result};
use crate::types::Ordinal;
use crate::vector::again;
use crate::vector::kernels::{Bits, RankKernel};
use crate::vector::near::{Near, four};
use crate::vector::packs::PackScorer;
use crate::vector::signs::Sifted;
use crate::vector::{Allow, BitSet, EDGE, Found, Meter, QueryScorer, Scored, VectorIndex, VectorsRef};

/// Candidates kept on the way down while inserting. The paper's single one ends in the wrong cluster where clusters lie far
/// apart: 20 of 500 points under Manhattan distance gave recall@10 of 0.83 at ef 128, and 1.00 with 8, for some tens of
/// distances more.
pub(super) const DESCENT_EF: usize = 8;
/// The same of a search, in a graph that was built so. The tests of clusters pass with 1; WordNet at `ef` 24 needs 692
/// distances with 8, 572 with 2 and 551 with 1, at one recall.
const SEARCH_DESCENT_EF: usize = 2;

/// Nodes that are expanded at a time: what they lead to comes from memory together. With 1 a search of Fashion-MNIST takes 1.08 times
/// as long, with 4 as long as with 2.
const WIDTH: usize = 2;
/// A walk that keeps fewer candidates expands one at a time.
const WIDE_EF_MIN: usize = 8;
/// How many candidates a beam holds at most: beyond it, moving its tail for every insertion costs more than a heap.
pub(super) const BEAM_MAX: usize = 1024;

/// Beyond the trait's promises: where at most `max(ef, k)` nodes match, the search finds all of them; so a graph that was
/// built whole never returns fewer than `k` hits while `k` are allowed. Without codes they are exactly the nearest; with
/// codes, exactly where all that match are measured again.
impl VectorIndex for Hnsw<'_> {
    fn search(
        &self,
        vectors: &VectorsRef<'_>,
        query: &[f32],
        k: usize,
        ef: usize,
        allow: &Allow<'_>,
        stop: &dyn Fn() -> bool,
    ) -> Result<Found> {
        match self.search_within(vectors, query, Effort::unbounded(k, ef), allow, stop)? {
            Walked::Found(found) => Ok(found),
            Walked::GaveUp { evaluated } => Err(Error::internal(format!(
                "a walk without a limit gave up after {evaluated} distances"
            ))),
        }
    }
}

/// What a walk is to find and may spend.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// Hits given back.
    pub k: usize,
    /// Those among them that count: rows that do not match are walked to as far as they are nearer than these.
    pub hits: usize,
    /// Candidates kept while looking; at least `k` are.
    pub ef: usize,
    /// Distances after which it gives up.
    pub evaluations_max: u64,
    /// Whether it may be done once more where codes do not tell what is near.
    pub again: bool,
}

/// How many times as many candidates a walk keeps when it is done once more.
const WIDENED: usize = 4;

impl Effort {
    /// Whatever it takes.
    pub fn unbounded(k: usize, ef: usize) -> Self {
        Self {
            k,
            hits: k,
            ef,
            evaluations_max: u64::MAX,
            again: true,
        }
    }

    /// The same, done once whatever codes tell: what a walk finds that may be done again does not always grow with `ef`, since with
    /// more candidates fewer are.
    pub(in crate::vector) fn once(self) -> Self {
        Self { again: false, ..self }
    }

    /// So many hits and what ties with the last of them: all that the walk keeps where that costs nothing, a few where each is
    /// measured again.
    pub fn beyond(hits: usize, ef: usize, has_codes: bool) -> Self {
        let ef = ef.max(hits);
        Self {
            hits,
            ..Self::unbounded(if has_codes { (hits + EDGE).min(ef) } else { ef }, ef)
        }
    }

    /// With a few candidates more than hits, if it keeps fewer: where the last of them is too near to the last hit for codes to tell
    /// ([`again::Told::mostly`]), the walk is done once more with [`WIDENED`] times as many.
    fn by_code(self, bits: Bits) -> Self {
        let more = match bits {
            Bits::Eight => self.k / 8 + 1,
            Bits::Four => self.k / 2 + EDGE,
        };
        let room = self.k.saturating_add(more);
        // As many as a beam holds: keeping more costs more than a few walks that are done once more.
        let ef = self.ef.max(room.min(BEAM_MAX));
        Self { ef, ..self }
    }

    fn kept(self) -> usize {
        self.ef.max(self.k)
    }

    /// So many matches are as many as a walk keeps that does not look who matches: by chance there may be fewer among its candidates.
    fn enough(self) -> usize {
        self.hits.max(self.kept() - self.kept() / 4)
    }
}

/// How a walk ended that may spend so much and no more.
#[derive(Debug, Clone, PartialEq)]
pub enum Walked {
    /// It found what there is near the query.
    Found(Found),
    /// It spent what it might before that.
    GaveUp {
        /// Distances computed in vain.
        evaluated: u64,
    },
}

impl Hnsw<'_> {
    /// The same as [`VectorIndex::search`], unless it takes more distances than it may: where few nodes match and
    /// none of them is near the query, a walk comes by most of the graph, and whoever knows that a scan of the matches costs
    /// less than that can say so here.
    pub fn search_within(
        &self,
        vectors: &VectorsRef<'_>,
        query: &[f32],
        effort: Effort,
        allow: &Allow<'_>,
        stop: &dyn Fn() -> bool,
    ) -> Result<Walked> {
        vectors.check_query(query)?;
        if vectors.len() != self.len() {
            return Err(Error::damaged(format!(
                "graph over {} rows, {} vectors",
                self.len(),
                vectors.len()
            )));
        }
        if effort.k == 0 || self.entry == NONE {
            return Ok(Walked::Found(Found::default()));
        }
        let mut meter = Meter {
            evaluations_max: effort.evaluations_max,
            ..Meter::new(stop)
        };
        let mut walk = Walk::of_this_thread();
        self.nodes(vectors, query, effort, allow, &mut walk, &mut meter)?;
        let evaluated = meter.evaluated;
        if walk.gave_up {
            walk.keep_for_this_thread();
            return Ok(Walked::GaveUp { evaluated });
        }
        let answerable = |ordinal| allow.contains(ordinal) && !vectors.is_absent(ordinal);
        let hits = self.expand(&walk.nearby, effort.k, answerable);
        walk.keep_for_this_thread();
        Ok(Walked::Found(Found { hits, evaluated }))
    }

    /// How far the nodes are that a search near the row finds, nearest first, as if the row were none of them: what is found
    /// with a row as its question says little as long as the walk may come by the row itself, whose links are what is looked for.
    pub(in crate::vector) fn distances_without(
        &self,
        row: Ordinal,
        vectors: &VectorsRef<'_>,
        effort: Effort,
    ) -> Result<Vec<f32>> {
        if effort.k == 0 || self.entry == NONE {
            return Ok(Vec::new());
        }
        let mut walk = Walk::of_this_thread();
        // Where every search begins stays where it is, and is no hit.
        walk.hidden = Some(row).filter(|row| *row != self.entry);
        let (query, mut meter) = (vectors.row(row), Meter::new(&|| false));
        self.nodes(vectors, &query, effort, &Allow::All, &mut walk, &mut meter)?;
        let found = walk.nearby.iter().filter(|node| node.ordinal != row);
        let distances = found.map(|node| node.distance).collect();
        walk.keep_for_this_thread();
        Ok(distances)
    }

    /// Leaves the nearest allowed nodes in `walk.nearby`, at least `k` if there are so many, measured exactly and nearest first;
    /// unless the walk gave up.
    fn nodes(
        &self,
        vectors: &VectorsRef<'_>,
        query: &[f32],
        effort: Effort,
        allow: &Allow<'_>,
        walk: &mut Walk,
        meter: &mut Meter<'_>,
    ) -> Result<()> {
        let scorer = vectors.scorer(query);
        let effort = vectors.codes.map_or(effort, |codes| effort.by_code(codes.bits()));
        let packs = vectors.packs.filter(|_| match allow {
            Allow::All => true,
            Allow::Only(set) => self.as_many_matching(effort.kept(), set).is_some(),
        });
        let packs = packs.map(|packs| packs.scorer(query));
        let packs = packs.as_ref();
        match (vectors.codes, vectors.signs) {
            (None, None) => self.walk(vectors, packs, &scorer, effort, allow, walk, meter),
            (None, Some(signs)) => {
                let (near, signs) = (vectors.scorer(query), signs.scorer(query));
                self.walk(vectors, packs, &Sifted { near, signs }, effort, allow, walk, meter)
            }
            (Some(codes), None) => {
                let near = codes.scorer(query);
                self.nodes_by_code(vectors, packs, &near, &scorer, effort, allow, walk, meter)
            }
            (Some(codes), Some(signs)) => {
                let (near, signs) = (codes.scorer(query), signs.scorer(query));
                self.nodes_by_code(
                    vectors,
                    packs,
                    &Sifted { near, signs },
                    &scorer,
                    effort,
                    allow,
                    walk,
                    meter,
                )
            }
        }
    }

    /// The same by codes, after which the nearest are measured exactly.
    #[expect(clippy::too_many_arguments, reason = "what a walk is made of")]
    fn nodes_by_code(
        &self,
        vectors: &VectorsRef<'_>,
        packs: Option<&PackScorer<'_>>,
        coded: &impl Near,
        scorer: &QueryScorer<'_>,
        effort: Effort,
        allow: &Allow<'_>,
        walk: &mut Walk,
        meter: &mut Meter<'_>,
    ) -> Result<()> {
        self.walk(vectors, packs, coded, effort, allow, walk, meter)?;
        self.measure_again(vectors, packs, coded, scorer, effort, allow, walk, meter)
    }

    /// Measures exactly what a walk by codes has found.
    #[expect(clippy::too_many_arguments, reason = "what a walk is made of")]
    fn measure_again(
        &self,
        vectors: &VectorsRef<'_>,
        packs: Option<&PackScorer<'_>>,
        coded: &impl Near,
        scorer: &QueryScorer<'_>,
        mut effort: Effort,
        allow: &Allow<'_>,
        walk: &mut Walk,
        meter: &mut Meter<'_>,
    ) -> Result<()> {
        let mut may_widen = effort.again;
        while !walk.gave_up {
            let kept = walk.nearby.len();
            let full = kept >= effort.enough();
            let told = again::measure(&mut walk.nearby, &mut walk.nearest, scorer, effort.k, meter)?;
            if told.mostly() || !full || !may_widen {
                break;
            }
            // So many rows are about as far as the hits that codes cannot tell them apart: once more, with more of them.
            effort.ef = kept.saturating_mul(WIDENED);
            may_widen = false;
            self.walk(vectors, packs, coded, effort, allow, walk, meter)?;
        }
        Ok(())
    }

    /// Leaves the `ef` nearest allowed nodes in `walk.nearby`.
    #[expect(clippy::too_many_arguments, reason = "what a walk is made of")]
    fn walk(
        &self,
        vectors: &VectorsRef<'_>,
        packs: Option<&PackScorer<'_>>,
        near: &impl Near,
        effort: Effort,
        allow: &Allow<'_>,
        walk: &mut Walk,
        meter: &mut Meter<'_>,
    ) -> Result<()> {
        let ef = effort.kept();
        let Allow::Only(set) = allow else {
            // Absent rows are no nodes.
            return match packs {
                Some(packs) if Walk::may_be_lazy(self, ef) => walk.lazily(self, packs, near, ef, meter),
                _ => {
                    walk.go_down(self, near, meter)?;
                    walk.layer(self, 0, near, ef, meter)
                }
            };
        };
        let answerable = |ordinal| set.contains(ordinal) && !vectors.is_absent(ordinal);
        // A node counts once, however many twins it stands for: were they to fill the candidates, nothing else would be looked at
        // around them.
        let matches = |node| match self.has_twins {
            true => self.twins_of(node).any(answerable),
            false => answerable(node),
        };
        if let Some(packs) = packs
            && let Some(wider) = self.as_many_matching(ef, set)
            && Walk::may_be_lazy(self, wider)
        {
            walk.lazily(self, packs, near, wider, meter)?;
            let nearest = walk.nearby.first().copied();
            walk.nearby.retain(|node| matches(node.ordinal));
            if walk.nearby.len() >= effort.enough() {
                return Ok(());
            }
            // Those that do not match are where the query is. On from there, with a look at who matches.
            walk.nearby.extend(nearest.filter(|node| !matches(node.ordinal)));
            walk.also_from(self.entry, near, meter)?;
        } else {
            walk.go_down(self, near, meter)?;
        }
        walk.layer_matching(self, 0, near, effort, matches, meter)
    }

    /// How many candidates have `ef` matches among them if they lie anywhere. None if fewer than half of all match: then it is better to
    /// look for them.
    fn as_many_matching(&self, ef: usize, set: &BitSet) -> Option<usize> {
        let matches = set.count();
        (2 * matches >= self.len()).then(|| ef.saturating_mul(self.len()).div_ceil(matches.max(1)))
    }

    /// The `k` first ordinals that the nodes, nearest first, stand for.
    fn expand(&self, nodes: &[Scored], k: usize, answerable: impl Fn(Ordinal) -> bool) -> Vec<Scored> {
        let mut hits: Vec<Scored> = Vec::with_capacity(k.min(nodes.len()));
        for node in nodes {
            // Nodes at one distance share the places among them by ordinal, so all of them are looked at.
            if hits.len() >= k && hits.last().is_some_and(|last| last.distance < node.distance) {
                break;
            }
            let twins = self
                .twins_of(node.ordinal)
                .filter(|ordinal| answerable(*ordinal))
                .take(k);
            hits.extend(twins.map(|ordinal| Scored {
                distance: node.distance,
                ordinal,
            }));
        }
        hits.sort_unstable();
        hits.truncate(k);
        hits
    }
}

/// The working memory of a walk, and between two layers its result.
#[derive(Debug, Default)]
pub(super) struct Walk {
    /// The last layer's result, nearest first, and the next layer's entry points.
    pub(super) nearby: Vec<Scored>,
    pub(super) seen: Seen,
    beam: Beam,
    /// What a walk by estimates keeps in mind.
    pub(super) line: Line,
    /// To be expanded, nearest on top.
    frontier: BinaryHeap<Reverse<Scored>>,
    /// The least exact distances so far.
    nearest: Vec<f32>,
    /// The best matches so far, worst on top.
    matching: BinaryHeap<Scored>,
    /// The best of these, as many as are wanted in the end, worst on top.
    answers: BinaryHeap<Scored>,
    /// Nodes that one expansion meets for the first time.
    fresh: Vec<Ordinal>,
    /// Its neighbours among them that do not match.
    passed: Vec<Ordinal>,
    /// Those that were measured and not walked to.
    left_out: Vec<Scored>,
    /// A node that is passed over as if it were not there.
    pub(super) hidden: Option<Ordinal>,
    /// The meter ended the last layer, and its result is not what it would have been.
    gave_up: bool,
}

thread_local! {
    /// Taken out while in use, so that a search inside a search merely finds none.
    static WALK: Cell<Option<Box<Walk>>> = const { Cell::new(None) };
}

impl Walk {
    pub(super) fn of_this_thread() -> Box<Self> {
        WALK.take().unwrap_or_default()
    }

    pub(super) fn keep_for_this_thread(mut self: Box<Self>) {
        self.hidden = None;
        WALK.set(Some(self));
    }

    /// Forgets where the last walk ended: the next layer is searched from one node.
    pub(super) fn begin(&mut self, at: Ordinal, near: &impl Near, meter: &mut Meter<'_>) -> Result<()> {
        self.gave_up = false;
        self.nearby.clear();
        self.also_from(at, near, meter)
    }

    /// Lets the next layer be searched from one more node.
    pub(super) fn also_from(&mut self, at: Ordinal, near: &impl Near, meter: &mut Meter<'_>) -> Result<()> {
        if self.nearby.iter().all(|start| start.ordinal != at) {
            meter.tick()?;
            self.nearby.push(Scored {
                distance: near.one(at),
                ordinal: at,
            });
        }
        Ok(())
    }

    /// Leaves in `nearby` where level 0 is to be searched from: the nearest that the upper levels lead to, and the entry.
    pub(super) fn go_down(&mut self, graph: &Hnsw<'_>, near: &impl Near, meter: &mut Meter<'_>) -> Result<()> {
        self.begin(graph.entry, near, meter)?;
        for level in (1..=graph.top_level).rev() {
            self.layer(graph, level, near, SEARCH_DESCENT_EF, meter)?;
        }
        // Every node can be reached from the entry, which the way down may have left: so an `ef` that covers all
        // matches finds all of them.
        self.also_from(graph.entry, near, meter)
    }

    /// Best-first search of one layer from `nearby`, which it replaces by the `ef` nearest nodes it could find.
    ///
    /// The walk ends when the nearest node not yet expanded is farther than `ef` others, or when the layer is exhausted:
    /// each node is expanded at most once.
    pub(super) fn layer(
        &mut self,
        graph: &Hnsw<'_>,
        level: usize,
        near: &impl Near,
        ef: usize,
        meter: &mut Meter<'_>,
    ) -> Result<()> {
        if ef > BEAM_MAX || graph.len() > Beam::NODES_MAX {
            return self.layer_matching(graph, level, near, Effort::unbounded(ef, ef), |_| true, meter);
        }
        self.set_out(graph, ef);
        while self.meet(graph, level, near) {
            self.sift(near, meter)?;
            self.measure(graph, level, near);
        }
        self.arrive();
        Ok(())
    }

    /// Begins a layer from `nearby`.
    fn set_out(&mut self, graph: &Hnsw<'_>, ef: usize) {
        self.seen.reset(graph.len());
        if let Some(hidden) = self.hidden {
            self.seen.insert(hidden);
        }
        self.beam.begin(ef);
        for start in self.nearby.drain(..) {
            if self.seen.insert(start.ordinal) {
                self.beam.offer(start, 0);
            }
        }
    }

    /// Expands the nearest nodes that were not: leaves in `fresh` whom they lead to for the first time, and asks memory for those. False
    /// if there are none to expand.
    #[inline]
    fn meet(&mut self, graph: &Hnsw<'_>, level: usize, near: &impl Near) -> bool {
        self.fresh.clear();
        let mut expanded = 0;
        while expanded < self.beam.width()
            && let Some(next) = self.beam.expand()
        {
            meet(graph, level, next, near, &mut self.seen, &mut self.fresh);
            expanded += 1;
        }
        expanded > 0
    }

    /// Drops those that are too far to be measured.
    #[inline]
    fn sift(&mut self, near: &impl Near, meter: &mut Meter<'_>) -> Result<()> {
        let met = self.fresh.len();
        near.sift(&mut self.fresh, self.beam.edge());
        // A look costs less than a distance.
        meter.passed += (met - self.fresh.len()) as u64;
        meter.add(self.fresh.len())
    }

    /// Measures those that are left.
    #[inline]
    fn measure(&mut self, graph: &Hnsw<'_>, level: usize, near: &impl Near) {
        let soon = 2 * self.beam.width();
        for nodes in self.fresh.chunks(4) {
            let distances = near.four(four(nodes, |node| *node));
            for (ordinal, distance) in nodes.iter().zip(distances) {
                let node = Scored {
                    distance,
                    ordinal: *ordinal,
                };
                // Whoever comes next is the likeliest to be expanded next.
                if self.beam.offer(node, soon) {
                    graph.prefetch(level, *ordinal);
                }
            }
        }
    }

    /// Ends a layer: what was found is in `nearby`.
    fn arrive(&mut self) {
        self.beam.drain_into(&mut self.nearby);
    }

    /// The same, of which only those that match are answers, and `hits` of them are what is wanted in the end; it may also end
    /// because the meter says so.
    ///
    /// Neighbours that do not match are looked through to the matches among their own neighbours (the idea of ACORN: Patel et
    /// al. 2024), until there are as many as an expansion meets for the first time where everybody matches: half of its
    /// links. They are walked to only while they are nearer than the `hits` nearest matches: of the nodes around the query as
    /// many as stand between it and its answers, instead of all among the `ef` best. Left out altogether they would be missed
    /// where matches are far from the query, in all directions, with nothing but others between them: of the half of WordNet
    /// that is farthest from a question recall@10 was 0.84. In the end everybody is walked to if the matches that were found
    /// are fewer than `ef`.
    pub(super) fn layer_matching(
        &mut self,
        graph: &Hnsw<'_>,
        level: usize,
        near: &impl Near,
        effort: Effort,
        matches: impl Fn(Ordinal) -> bool,
        meter: &mut Meter<'_>,
    ) -> Result<()> {
        let Self {
            nearby,
            seen,
            frontier,
            matching,
            answers,
            fresh,
            passed,
            left_out,
            hidden,
            gave_up,
            ..
        } = self;
        let (hits, ef) = (effort.hits, effort.kept());
        seen.reset(graph.len());
        if let Some(hidden) = hidden {
            seen.insert(*hidden);
        }
        frontier.clear();
        matching.clear();
        answers.clear();
        left_out.clear();
        for start in nearby.drain(..) {
            if seen.insert(start.ordinal) {
                frontier.push(Reverse(start));
                if matches(start.ordinal) {
                    offer(matching, ef, start);
                    offer(answers, hits, start);
                }
            }
        }
        let enough = if level == 0 { graph.m } else { graph.m / 2 };
        let mut everybody = false;
        loop {
            if meter.is_spent() {
                *gave_up = true;
                break;
            }
            let Some(Reverse(next)) = frontier.pop() else {
                if matching.len() < ef && !left_out.is_empty() {
                    everybody = true;
                    frontier.extend(left_out.drain(..).map(Reverse));
                    continue;
                }
                break;
            };
            if !is_wanted(matching, ef, &next) {
                break;
            }
            if !everybody && !is_wanted(answers, hits, &next) && !matches(next.ordinal) {
                left_out.push(next);
                continue;
            }
            fresh.clear();
            passed.clear();
            let mut found = 0;
            for neighbour in graph.neighbours(level, next.ordinal) {
                if seen.insert(neighbour) {
                    near.prefetch(neighbour);
                    fresh.push(neighbour);
                    if matches(neighbour) {
                        found += 1;
                    } else {
                        graph.prefetch(level, neighbour);
                        passed.push(neighbour);
                    }
                }
            }
            for through in passed.iter() {
                if found >= enough {
                    break;
                }
                meter.passed += 1;
                for neighbour in graph.neighbours(level, *through) {
                    if found < enough && matches(neighbour) && seen.insert(neighbour) {
                        near.prefetch(neighbour);
                        fresh.push(neighbour);
                        found += 1;
                    }
                }
            }
            let (met, full) = (fresh.len(), matching.len() >= ef);
            let edge = matching
                .peek()
                .filter(|_| full)
                .map_or(f32::INFINITY, |worst| worst.distance);
            near.sift(fresh, edge);
            meter.passed += (met - fresh.len()) as u64;
            meter.add(fresh.len())?;
            for nodes in fresh.chunks(4) {
                let distances = near.four(four(nodes, |node| *node));
                for (ordinal, distance) in nodes.iter().zip(distances) {
                    let candidate = Scored {
                        distance,
                        ordinal: *ordinal,
                    };
                    if !is_wanted(matching, ef, &candidate) {
                        continue;
                    }
                    if matches(*ordinal) {
                        frontier.push(Reverse(candidate));
                        offer(matching, ef, candidate);
                        offer(answers, hits, candidate);
                    } else if everybody || is_wanted(answers, hits, &candidate) {
                        frontier.push(Reverse(candidate));
                    } else {
                        left_out.push(candidate);
                    }
                }
            }
        }
        nearby.extend(matching.drain());
        nearby.sort_unstable();
        Ok(())
    }
}

/// Adds the neighbours that were not seen before to `fresh`, and asks for all of them, so that they are on their way from
/// memory while the first of them is measured.
#[inline]
fn meet(graph: &Hnsw<'_>, level: usize, node: Ordinal, near: &impl Near, seen: &mut Seen, fresh: &mut Vec<Ordinal>) {
    // Nobody knows who was met before, so this has no branch on it: what is written beyond the end is written over.
    let (block, known) = (graph.block(level, node), fresh.len());
    fresh.resize(known + block.len(), NONE);
    let mut count = known;
    for neighbour in block {
        if *neighbour == NONE {
            break;
        }
        fresh[count] = *neighbour;
        count += usize::from(seen.mark(*neighbour));
    }
    fresh.truncate(count);
    for neighbour in &fresh[known..] {
        near.prefetch(*neighbour);
        seen.keep(*neighbour);
    }
}

/// The nearest nodes a walk has met, in order, each with whether it was expanded: what a heap of results and a heap of what
/// to expand would hold together.
///
/// A node is one number that sorts as distance, then ordinal: 32 bits of distance, 31 of ordinal, one for expanded.
#[derive(Debug, Default)]
struct Beam {
    nodes: Vec<u64>,
    ef: usize,
    /// Everybody before is expanded.
    at: usize,
    rank: RankKernel,
}

impl Beam {
    const NODES_MAX: usize = 1 << 31;

    fn begin(&mut self, ef: usize) {
        self.nodes.clear();
        (self.ef, self.at) = (ef, 0);
    }

    /// Keeps the node if it is among the `ef` nearest. True if it is among the `soon` that will be expanded next, as things are.
    #[inline]
    fn offer(&mut self, node: Scored, soon: usize) -> bool {
        let key = u64::from(sortable(node.distance)) << 32 | u64::from(node.ordinal) << 1;
        if self.nodes.len() < self.ef {
            self.nodes.push(u64::MAX);
        } else if self.nodes.last().is_none_or(|last| key >= *last) {
            return false;
        }
        let place = self.rank.insert(&mut self.nodes, key);
        self.at = self.at.min(place);
        place < self.at + soon
    }

    /// How many are expanded at a time.
    #[inline]
    fn width(&self) -> usize {
        if self.ef >= WIDE_EF_MIN { WIDTH } else { 1 }
    }

    /// How far a node may be at most to be kept.
    #[inline]
    fn edge(&self) -> f32 {
        match self.nodes.last() {
            Some(last) if self.nodes.len() == self.ef => unsorted((*last >> 32) as u32),
            _ => f32::INFINITY,
        }
    }

    /// The nearest node that was not expanded yet, which is then.
    #[inline]
    fn expand(&mut self) -> Option<Ordinal> {
        while self.nodes.get(self.at)? & 1 == 1 {
            self.at += 1;
        }
        let next = self.nodes[self.at] as u32 >> 1;
        self.nodes[self.at] |= 1;
        self.at += 1;
        Some(next)
    }

    fn drain_into(&mut self, nearby: &mut Vec<Scored>) {
        nearby.extend(self.nodes.drain(..).map(|key| Scored {
            distance: unsorted((key >> 32) as u32),
            ordinal: key as u32 >> 1,
        }));
    }
}

/// Bits that sort as `f32::total_cmp` does.
#[inline]
pub(super) fn sortable(distance: f32) -> u32 {
    let bits = distance.to_bits();
    bits ^ ((bits as i32 >> 31) as u32 | 1 << 31)
}

pub(super) fn unsorted(sortable: u32) -> f32 {
    let was_positive = sortable >> 31 == 1;
    f32::from_bits(if was_positive { sortable ^ 1 << 31 } else { !sortable })
}

/// Whether the candidate is among the `ef` best so far.
#[inline]
fn is_wanted(best: &BinaryHeap<Scored>, ef: usize, candidate: &Scored) -> bool {
    best.len() < ef || best.peek().is_some_and(|worst| candidate < worst)
}

/// Keeps the candidate if it is among the `ef` best.
#[inline]
fn offer(best: &mut BinaryHeap<Scored>, ef: usize, candidate: Scored) {
    if best.len() < ef {
        best.push(candidate);
    } else if let Some(mut worst) = best.peek_mut()
        && candidate < *worst
    {
        *worst = candidate;
    }
}

/// The nodes a walk has met. A bit each, so that it stays in the nearest cache; emptied by going over what was put
/// in, so that a walk costs what it walked and not what the graph holds.
#[derive(Debug, Default)]
pub(super) struct Seen {
    words: Vec<u64>,
    touched: Vec<u32>,
}

impl Seen {
    pub(super) fn reset(&mut self, nodes: usize) {
        for word in self.touched.drain(..) {
            self.words[word as usize] = 0;
        }
        let words = nodes.div_ceil(64);
        if self.words.len() < words {
            self.words.resize(words, 0);
        }
    }

    /// Whether the node was not in yet.
    #[inline]
    pub(super) fn insert(&mut self, node: Ordinal) -> bool {
        let word = &mut self.words[node as usize / 64];
        let bit = 1 << (node % 64);
        let fresh = *word & bit == 0;
        if fresh {
            if *word == 0 {
                self.touched.push(node / 64);
            }
            *word |= bit;
        }
        fresh
    }

    /// The same without a branch on what nobody can foresee. Who was not in has to be [kept](Self::keep) or [taken out](Self::take_out).
    #[inline]
    pub(super) fn mark(&mut self, node: Ordinal) -> bool {
        let word = &mut self.words[node as usize / 64];
        let bit = 1 << (node % 64);
        let fresh = *word & bit == 0;
        *word |= bit;
        fresh
    }

    #[inline]
    pub(super) fn keep(&mut self, node: Ordinal) {
        self.touched.push(node / 64);
    }

    #[inline]
    pub(super) fn take_out(&mut self, node: Ordinal) {
        self.words[node as usize / 64] &= !(1 << (node % 64));
    }
}
