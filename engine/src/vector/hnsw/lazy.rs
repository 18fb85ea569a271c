//! Walking level 0 of a graph whose nodes know about how far their neighbours are ([`packs`](crate::vector::packs)).
//!
//! It starts from those of some hundreds of nodes that seem nearest, and from the entry, from where everybody can be reached.
//!
//! Whoever is met is kept in mind by an estimate. Only when it is among the next to be expanded it is measured, and only if it is among
//! them still it is expanded: that takes a quarter of the distances of a walk without estimates at the same `ef`. Measuring everybody whose
//! estimate is among the best when it is met finds as much for 1.6 times as many distances, and expanding by estimates alone, as SymphonyQG
//! does, for 1.6 times as many expansions (WordNet, recall@10 0.95).

use super::layout::{Hnsw, NONE};
use super::search::{Walk, sortable, unsorted};
use crate::error::Result;
use crate::types::Ordinal;
use crate::vector::kernels::{PACK, RankKernel};
use crate::vector::near::{Near, four};
use crate::vector::packs::{Pack, PackScorer};
use crate::vector::{Meter, Scored};

/// Nodes that are expanded, and that are measured, before it is looked again who is the nearest; and of how many of the nearest they are.
const WIDTH: usize = 2;
const MEASURED_WIDTH: usize = 4;
const WINDOW: usize = 8;
// They are measured together.
const _: () = assert!(MEASURED_WIDTH == 4);
/// Who comes in as one of so many next is asked for from memory.
const SOON: usize = 4;
/// Roots that a walk starts from: the nearest of them by their estimates.
const STARTS: usize = 8;
/// A walk that keeps more candidates goes by distances: keeping that many in order takes as long as measuring them (WordNet: at 600 it is 1.17
/// times as long).
const EF_MAX: usize = 512;
/// A graph of fewer nodes than this for each candidate is walked by distances, so that whoever keeps as many as there are nodes finds all.
const NODES_PER_CANDIDATE: usize = 4;

/// The nearest nodes that were met, in order, each with what was done about it.
///
/// A node is one number that sorts as distance, then ordinal: 32 bits of distance, 30 of ordinal, two of its [`State`].
#[derive(Debug, Default)]
pub(super) struct Line {
    nodes: Vec<u64>,
    ef: usize,
    /// Everybody before is expanded.
    at: usize,
    rank: RankKernel,
    measuring: [u64; MEASURED_WIDTH + 1],
    expanding: [u64; WIDTH + 1],
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Estimated = 0,
    Measured = 1,
    Expanded = 2,
}

impl Line {
    const NODES_MAX: usize = 1 << 30;

    fn begin(&mut self, ef: usize) {
        self.nodes.clear();
        (self.ef, self.at) = (ef, 0);
    }

    fn key(node: Scored, state: State) -> u64 {
        u64::from(sortable(node.distance)) << 32 | u64::from(node.ordinal) << 2 | state as u64
    }

    fn node(key: u64) -> Scored {
        Scored {
            distance: unsorted((key >> 32) as u32),
            ordinal: key as u32 >> 2,
        }
    }

    fn is(key: u64, state: State) -> bool {
        key & 3 == state as u64
    }

    /// How far a node may be at most to be kept.
    #[inline]
    fn edge(&self) -> f32 {
        match self.nodes.last() {
            Some(last) if self.is_full() => match Self::node(*last).distance {
                edge if edge.is_nan() => f32::INFINITY,
                edge => edge,
            },
            _ => f32::INFINITY,
        }
    }

    #[inline]
    fn is_full(&self) -> bool {
        self.nodes.len() == self.ef
    }

    /// Keeps the node if it is among the `ef` nearest. Says then whether it is among the next to be looked at.
    #[inline]
    fn offer(&mut self, key: u64) -> Option<bool> {
        if self.is_full() {
            if self.nodes.last().is_none_or(|last| key >= *last) {
                return None;
            }
        } else {
            self.nodes.push(u64::MAX);
        }
        let place = self.rank.insert(&mut self.nodes, key);
        self.at = self.at.min(place);
        Some(place < self.at + SOON)
    }

    /// Puts a node that is kept by an estimate where it belongs now that it was measured. True if it is among the next to be expanded.
    #[inline]
    fn measured(&mut self, estimated: u64, node: Scored) -> bool {
        debug_assert!(
            self.nodes.binary_search(&estimated).is_ok(),
            "measuring changes how many are kept as little as whom"
        );
        let place = self
            .rank
            .replace(&mut self.nodes, estimated, Self::key(node, State::Measured));
        self.at = self.at.min(place);
        place < self.at + WIDTH
    }

    /// Leaves in `measuring` and `expanding` what is to be done next, and says how many those are.
    #[inline]
    fn choose(&mut self) -> (usize, usize) {
        while let Some(node) = self.nodes.get(self.at)
            && Self::is(*node, State::Expanded)
        {
            self.at += 1;
        }
        // Nobody knows which state is next, so this has no branch on it: what is written beyond the end is written over.
        let (mut measuring, mut expanding) = (0, 0);
        for key in self.nodes.iter_mut().skip(self.at).take(WINDOW) {
            let is_measured = Self::is(*key, State::Measured) && expanding < WIDTH;
            self.measuring[measuring] = *key;
            self.expanding[expanding] = *key;
            measuring += usize::from(Self::is(*key, State::Estimated) && measuring < MEASURED_WIDTH);
            expanding += usize::from(is_measured);
            *key += u64::from(is_measured);
        }
        (measuring, expanding)
    }
}

impl Walk {
    /// Whether a walk that keeps so many candidates may go by estimates.
    pub(super) fn may_be_lazy(graph: &Hnsw<'_>, ef: usize) -> bool {
        ef <= EF_MAX.min(graph.len() / NODES_PER_CANDIDATE) && graph.len() <= Line::NODES_MAX
    }

    /// Leaves the `ef` nearest nodes in `nearby`, by estimates; where [`Self::may_be_lazy`].
    pub(super) fn lazily(
        &mut self,
        graph: &Hnsw<'_>,
        packs: &PackScorer<'_>,
        near: &impl Near,
        ef: usize,
        meter: &mut Meter<'_>,
    ) -> Result<()> {
        match packs.roots().next() {
            Some(_) => self.begin(graph.entry, near, meter)?,
            // A small graph has none.
            None => self.go_down(graph, near, meter)?,
        }
        self.layer_lazily(graph, packs, near, ef, meter)
    }

    /// The same from `nearby` and the roots.
    fn layer_lazily(
        &mut self,
        graph: &Hnsw<'_>,
        packs: &PackScorer<'_>,
        near: &impl Near,
        ef: usize,
        meter: &mut Meter<'_>,
    ) -> Result<()> {
        let Self {
            nearby,
            seen,
            hidden,
            line,
            ..
        } = self;
        seen.reset(graph.len());
        if let Some(hidden) = hidden {
            seen.insert(*hidden);
        }
        let (mut estimates, mut met) = ([0f32; PACK], [0u64; PACK]);
        // The entry has its place in any case.
        line.begin(STARTS.min(ef - 1));
        for pack in packs.roots() {
            meter.passed += 2;
            let nearer = packs.estimate_root(pack, line.edge(), &mut estimates);
            let count = keys(
                pack,
                nearer,
                line.is_full(),
                &estimates,
                |node| Some(node) != *hidden,
                &mut met,
            );
            for key in &met[..count] {
                line.offer(*key);
            }
        }
        // Whoever is not among the few to start from may be met again.
        line.nodes.retain(|key| seen.insert(Line::node(*key).ordinal));
        line.ef = ef;
        for start in nearby.drain(..) {
            if seen.insert(start.ordinal) {
                line.offer(Line::key(start, State::Measured));
            }
        }
        line.nodes
            .iter()
            .for_each(|key| near.prefetch_measured(Line::node(*key).ordinal));
        loop {
            let (measuring, expanding) = line.choose();
            if (measuring, expanding) == (0, 0) {
                break;
            }
            // What is expanded is on its way from memory while others are measured.
            let expanding = line.expanding.map(Line::node).into_iter().take(expanding);
            for node in expanding.clone() {
                packs.prefetch_all(node.ordinal);
            }
            meter.add(measuring)?;
            if measuring > 0 {
                let keys = line.measuring;
                let distances = near.four(four(&keys[..measuring], |key| Line::node(*key).ordinal));
                for (estimated, distance) in keys.into_iter().take(measuring).zip(distances) {
                    let ordinal = Line::node(estimated).ordinal;
                    if line.measured(estimated, Scored { distance, ordinal }) {
                        packs.prefetch(ordinal);
                    }
                }
            }
            for node in expanding {
                for pack in packs.of(node.ordinal) {
                    // Reading estimates takes about as long as a distance. No walk gives up here: it keeps few candidates, of which
                    // most match.
                    meter.passed += 2;
                    let nearer = packs.estimate(pack, node.distance, line.edge(), &mut estimates);
                    let count = keys(
                        pack,
                        nearer,
                        line.is_full(),
                        &estimates,
                        |node| seen.mark(node),
                        &mut met,
                    );
                    for key in &met[..count] {
                        let ordinal = Line::node(*key).ordinal;
                        match line.offer(*key) {
                            Some(is_soon) => {
                                seen.keep(ordinal);
                                if is_soon {
                                    near.prefetch_measured(ordinal);
                                }
                            }
                            // It may be met again, from where it is seen better.
                            None => seen.take_out(ordinal),
                        }
                    }
                }
            }
        }
        nearby.extend(line.nodes.drain(..).map(Line::node));
        Ok(())
    }
}

/// What is kept in mind of those of a pack that are nearer than the edge, or of all where a line is not full, and are `fresh`. Gives back how
/// many they are.
///
/// Nobody knows who was met before, so this has no branch on it: what is written beyond the end is written over.
#[inline]
fn keys(
    pack: Pack<'_>,
    nearer: u32,
    is_full: bool,
    estimates: &[f32; PACK],
    mut is_fresh: impl FnMut(Ordinal) -> bool,
    keys: &mut [u64; PACK],
) -> usize {
    let ids = pack.ids();
    let mut left = if is_full { nearer } else { u32::MAX };
    let mut count = 0;
    while left != 0 {
        let i = left.trailing_zeros() as usize;
        left &= left - 1;
        let ordinal = ids[i];
        if ordinal == NONE {
            break;
        }
        // Numbers may be beyond what estimates can hold; who is behind them is found all the same.
        let distance = if estimates[i].is_finite() {
            estimates[i]
        } else {
            f32::MAX
        };
        keys[count] = Line::key(Scored { distance, ordinal }, State::Estimated);
        count += usize::from(is_fresh(ordinal));
    }
    count
}
