//! Walking a graph: the best-first search of one layer (the paper's algorithm 2), and searches of a whole graph made
//! of it (algorithm 5). Construction uses the same walk, on the graph built so far.
//!
//! A search allocates nothing in the long run: each thread keeps its working memory, which grows to the largest graph
//! it has searched (one bit per node, and the candidates).

use std::cell::Cell;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::layout::{Hnsw, NONE};
use crate::error::{Error, Result};
use crate::types::Ordinal;
use crate::vector::again;
use crate::vector::near::{Near, four};
use crate::vector::{Allow, Found, Meter, Scored, VectorIndex, VectorsRef};

/// Candidates kept on the way down while inserting. The paper's single one ends in the wrong cluster where clusters lie far
/// apart: 20 of 500 points under Manhattan distance gave recall@10 of 0.83 at ef 128, and 1.00 with 8, for some tens of
/// distances more.
pub(super) const DESCENT_EF: usize = 8;
/// The same of a search, in a graph that was built so. The tests of clusters pass with 1; WordNet at `ef` 24 needs 692
/// distances with 8, 572 with 2 and 551 with 1, at one recall.
const SEARCH_DESCENT_EF: usize = 2;

/// How many candidates a beam holds at most: beyond it, moving its tail for every insertion costs more than a heap.
const BEAM_MAX: usize = 1024;

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
        vectors.check_query(query)?;
        if vectors.len() != self.len() {
            return Err(Error::damaged(format!(
                "graph over {} rows, {} vectors",
                self.len(),
                vectors.len()
            )));
        }
        if k == 0 || self.entry == NONE {
            return Ok(Found::default());
        }
        let scorer = vectors.scorer(query);
        let mut meter = Meter::new(stop);
        let mut walk = Walk::of_this_thread();
        match vectors.codes {
            None => self.walk(vectors, &scorer, ef.max(k), allow, &mut walk, &mut meter)?,
            Some(codes) => {
                self.walk(vectors, &codes.scorer(query), ef.max(k), allow, &mut walk, &mut meter)?;
                again::measure(&mut walk.nearby, &mut walk.nearest, &scorer, k, &mut meter)?;
            }
        }
        let answerable = |ordinal| allow.contains(ordinal) && !vectors.is_absent(ordinal);
        let hits = self.expand(&walk.nearby, k, answerable);
        walk.keep_for_this_thread();
        Ok(Found {
            hits,
            evaluated: meter.evaluated,
        })
    }
}

impl Hnsw<'_> {
    /// Leaves the `ef` nearest allowed nodes in `walk.nearby`.
    fn walk(
        &self,
        vectors: &VectorsRef<'_>,
        near: &impl Near,
        ef: usize,
        allow: &Allow<'_>,
        walk: &mut Walk,
        meter: &mut Meter<'_>,
    ) -> Result<()> {
        walk.begin(self.entry, near, meter)?;
        for level in (1..=self.top_level).rev() {
            walk.layer(self, level, near, SEARCH_DESCENT_EF, meter)?;
        }
        // Every node can be reached from the entry, which the way down may have left: so an `ef` that covers all
        // matches finds all of them.
        walk.also_from(self.entry, near, meter)?;
        match allow {
            // Absent rows are no nodes.
            Allow::All => walk.layer(self, 0, near, ef, meter),
            // A node counts once, however many twins it stands for: were they to fill the candidates, nothing else would
            // be looked at around them.
            Allow::Only(set) => {
                let answerable = |ordinal| set.contains(ordinal) && !vectors.is_absent(ordinal);
                let matches = |node| self.twins_of(node).any(answerable);
                walk.layer_matching(self, 0, near, ef, matches, meter)
            }
        }
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
    seen: Seen,
    beam: Beam,
    /// To be expanded, nearest on top.
    frontier: BinaryHeap<Reverse<Scored>>,
    /// The least exact distances so far.
    nearest: Vec<f32>,
    /// The best matches so far, worst on top.
    matching: BinaryHeap<Scored>,
    /// Neighbours that one expansion meets for the first time.
    fresh: Vec<Ordinal>,
}

thread_local! {
    /// Taken out while in use, so that a search inside a search merely finds none.
    static WALK: Cell<Option<Box<Walk>>> = const { Cell::new(None) };
}

impl Walk {
    pub(super) fn of_this_thread() -> Box<Self> {
        WALK.take().unwrap_or_default()
    }

    pub(super) fn keep_for_this_thread(self: Box<Self>) {
        WALK.set(Some(self));
    }

    /// Forgets where the last walk ended: the next layer is searched from one node.
    pub(super) fn begin(&mut self, at: Ordinal, near: &impl Near, meter: &mut Meter<'_>) -> Result<()> {
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
            return self.layer_matching(graph, level, near, ef, |_| true, meter);
        }
        let Self {
            nearby,
            seen,
            beam,
            fresh,
            ..
        } = self;
        seen.reset(graph.len());
        beam.begin(ef);
        for start in nearby.drain(..) {
            if seen.insert(start.ordinal) {
                beam.offer(start);
            }
        }
        while let Some((next, after)) = beam.expand() {
            // Whoever comes next is the likeliest to be expanded next.
            if let Some(after) = after {
                graph.prefetch(level, after);
            }
            meet(graph, level, next, near, seen, fresh);
            meter.add(fresh.len())?;
            for nodes in fresh.chunks(4) {
                let distances = near.four(four(nodes, |node| *node));
                for (ordinal, distance) in nodes.iter().zip(distances) {
                    beam.offer(Scored {
                        distance,
                        ordinal: *ordinal,
                    });
                }
            }
        }
        beam.drain_into(nearby);
        Ok(())
    }

    /// The same, of which only those that match are answers. Nodes that do not match are walked through all the same.
    pub(super) fn layer_matching(
        &mut self,
        graph: &Hnsw<'_>,
        level: usize,
        near: &impl Near,
        ef: usize,
        matches: impl Fn(Ordinal) -> bool,
        meter: &mut Meter<'_>,
    ) -> Result<()> {
        let Self {
            nearby,
            seen,
            frontier,
            matching,
            fresh,
            ..
        } = self;
        seen.reset(graph.len());
        frontier.clear();
        matching.clear();
        for start in nearby.drain(..) {
            seen.insert(start.ordinal);
            frontier.push(Reverse(start));
            if matches(start.ordinal) {
                offer(matching, ef, start);
            }
        }
        while let Some(Reverse(next)) = frontier.pop() {
            if !is_wanted(matching, ef, &next) {
                break;
            }
            meet(graph, level, next.ordinal, near, seen, fresh);
            meter.add(fresh.len())?;
            for nodes in fresh.chunks(4) {
                let distances = near.four(four(nodes, |node| *node));
                for (ordinal, distance) in nodes.iter().zip(distances) {
                    let candidate = Scored {
                        distance,
                        ordinal: *ordinal,
                    };
                    if is_wanted(matching, ef, &candidate) {
                        frontier.push(Reverse(candidate));
                        if matches(*ordinal) {
                            offer(matching, ef, candidate);
                        }
                    }
                }
            }
        }
        nearby.extend(matching.drain());
        nearby.sort_unstable();
        Ok(())
    }
}

/// Puts the neighbours that were not seen before into `fresh`, and asks for all of them, so that they are on their way from
/// memory while the first of them is measured.
#[inline]
fn meet(graph: &Hnsw<'_>, level: usize, node: Ordinal, near: &impl Near, seen: &mut Seen, fresh: &mut Vec<Ordinal>) {
    fresh.clear();
    for neighbour in graph.neighbours(level, node) {
        if seen.insert(neighbour) {
            near.prefetch(neighbour);
            fresh.push(neighbour);
        }
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
}

impl Beam {
    const NODES_MAX: usize = 1 << 31;

    fn begin(&mut self, ef: usize) {
        self.nodes.clear();
        (self.ef, self.at) = (ef, 0);
    }

    /// Keeps the node if it is among the `ef` nearest.
    #[inline]
    fn offer(&mut self, node: Scored) {
        let key = u64::from(sortable(node.distance)) << 32 | u64::from(node.ordinal) << 1;
        if self.nodes.len() == self.ef {
            match self.nodes.last() {
                Some(last) if key < *last => drop(self.nodes.pop()),
                _ => return,
            }
        }
        let place = self.nodes.partition_point(|other| *other < key);
        self.nodes.insert(place, key);
        self.at = self.at.min(place);
    }

    /// The nearest node that was not expanded yet, which is then, and the one after it.
    #[inline]
    fn expand(&mut self) -> Option<(Ordinal, Option<Ordinal>)> {
        while self.nodes.get(self.at)? & 1 == 1 {
            self.at += 1;
        }
        let next = self.nodes[self.at] as u32 >> 1;
        self.nodes[self.at] |= 1;
        self.at += 1;
        let after = self.nodes.get(self.at).filter(|key| **key & 1 == 0);
        Some((next, after.map(|key| *key as u32 >> 1)))
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
fn sortable(distance: f32) -> u32 {
    let bits = distance.to_bits();
    bits ^ ((bits as i32 >> 31) as u32 | 1 << 31)
}

fn unsorted(sortable: u32) -> f32 {
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
struct Seen {
    words: Vec<u64>,
    touched: Vec<u32>,
}

impl Seen {
    fn reset(&mut self, nodes: usize) {
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
    fn insert(&mut self, node: Ordinal) -> bool {
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
}
