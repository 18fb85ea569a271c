//! The bytes of a graph: checked once by [`HnswLayout::parse`], then walked without checks by [`Hnsw`].
//!
//! The layout is drawn in the parent module.

use std::ops::Range;

use bytemuck::{Pod, Zeroable};

use crate::error::{Error, Result};
use crate::types::Ordinal;
use crate::vector::{BitSet, kernels};

// The bytes are cast, not decoded; on a big-endian machine every number would be wrong.
const _: () = assert!(
    cfg!(target_endian = "little"),
    "sealed files are little-endian and mapped as they are"
);

const MAGIC: [u8; 4] = *b"CHNW";
const VERSION: u32 = 1;

/// No ordinal: the rest of a block is empty, a chain ends, a graph has no entry.
pub(super) use crate::vector::twins::NONE;
/// Links per node: what the schema allows.
pub(in crate::vector) const M: std::ops::RangeInclusive<u32> = 2..=256;
/// Most levels above the base: with the smallest `m` of 2, level 32 is for one node in four billion.
pub(super) const LEVEL_MAX: usize = 32;

#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Header {
    magic: [u8; 4],
    version: u32,
    nodes: u32,
    m: u32,
    entry: u32,
    top_level: u32,
    tower_blocks: u32,
    reserved: [u32; 9],
}

const HEADER_WORDS: usize = size_of::<Header>() / size_of::<u32>();
const _: () = assert!(size_of::<Header>() == 64);

/// Where the parts of a graph are; proof that its bytes were checked. Holds no reference, so it can live beside the
/// mapping.
#[derive(Debug, Clone)]
pub struct HnswLayout {
    m: usize,
    entry: u32,
    top_level: usize,
    /// In words, like all ranges here.
    base: Range<usize>,
    towers: Range<usize>,
    tower_starts: Range<usize>,
    twins: Range<usize>,
    has_twins: bool,
}

/// A graph over its bytes, ready to be searched ([`VectorIndex`](crate::vector::VectorIndex)).
#[derive(Debug, Clone, Copy)]
pub struct Hnsw<'a> {
    pub(super) m: usize,
    /// Where every search begins; NONE in a graph of no nodes.
    pub(super) entry: u32,
    /// The entry's level, the highest of all.
    pub(super) top_level: usize,
    pub(super) base: &'a [u32],
    pub(super) towers: &'a [u32],
    pub(super) tower_starts: &'a [u32],
    pub(super) twins: &'a [u32],
    /// Some node stands for several ordinals.
    pub(super) has_twins: bool,
}

impl HnswLayout {
    /// Checks everything a search relies on. `bytes` must be 4-byte aligned, as mapped files and fresh buffers are.
    /// Reads all of them once; anything out of place is `Damaged`.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let words = words(bytes)?;
        let Some((header, _)) = words.split_at_checked(HEADER_WORDS) else {
            return Err(Error::damaged(format!(
                "graph of {} bytes is shorter than its header",
                bytes.len()
            )));
        };
        let header: &Header = bytemuck::from_bytes(bytemuck::cast_slice(header));
        let mut layout = Self::place(header, words.len())?;
        layout.over(words).check(header)?;
        layout.has_twins = words[layout.twins.clone()].iter().any(|next| *next != NONE);
        Ok(layout)
    }

    /// The graph in the very bytes that were parsed; a panic if they are shorter or moved off their alignment.
    pub fn view<'a>(&self, bytes: &'a [u8]) -> Hnsw<'a> {
        self.over(words(bytes).expect("the bytes that were parsed are aligned"))
    }

    /// How many ordinals the graph is over.
    pub fn len(&self) -> usize {
        self.twins.len()
    }

    /// The graph is over no ordinals.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Places the parts, or refuses a header that does not fit the length.
    fn place(header: &Header, words: usize) -> Result<Self> {
        let damaged = |what: String| Err(Error::damaged(format!("graph header: {what}")));
        if header.magic != MAGIC || header.reserved != [0; 9] {
            return damaged("not a graph".into());
        }
        if header.version != VERSION {
            return damaged(format!("version {}, this build reads {VERSION}", header.version));
        }
        if !M.contains(&header.m) || header.nodes == NONE || header.top_level as usize > LEVEL_MAX {
            return damaged(format!(
                "n {}, m {}, top level {}",
                header.nodes, header.m, header.top_level
            ));
        }
        let (nodes, m) = (u64::from(header.nodes), u64::from(header.m));
        // Largest case: 2^32 · 512 + 2^32 · 256 + 2^33 words, far inside u64.
        let sizes = [nodes * 2 * m, u64::from(header.tower_blocks) * m, nodes + 1, nodes];
        let total = HEADER_WORDS as u64 + sizes.iter().sum::<u64>();
        if total != words as u64 {
            return damaged(format!("{total} words announced, {words} present"));
        }
        // They sum up to a length that exists, so each fits a usize.
        let mut end = HEADER_WORDS;
        let [base, towers, tower_starts, twins] = sizes.map(|size| {
            let start = end;
            end += size as usize;
            start..end
        });
        let (m, top_level) = (header.m as usize, header.top_level as usize);
        Ok(Self {
            m,
            entry: header.entry,
            top_level,
            base,
            towers,
            tower_starts,
            twins,
            has_twins: true,
        })
    }

    fn over<'a>(&self, words: &'a [u32]) -> Hnsw<'a> {
        Hnsw {
            m: self.m,
            entry: self.entry,
            top_level: self.top_level,
            base: &words[self.base.clone()],
            towers: &words[self.towers.clone()],
            tower_starts: &words[self.tower_starts.clone()],
            twins: &words[self.twins.clone()],
            has_twins: self.has_twins,
        }
    }
}

impl<'a> Hnsw<'a> {
    /// How many ordinals the graph is over, absent ones and twins included.
    pub(in crate::vector) fn len(&self) -> usize {
        self.twins.len()
    }

    /// Links of a node on level 0, at most.
    pub(in crate::vector) fn links(&self) -> usize {
        2 * self.m
    }

    /// The block of a node on a level it reaches: its neighbours, then NONE to the end.
    #[inline]
    pub(super) fn block(&self, level: usize, node: Ordinal) -> &'a [u32] {
        let node = node as usize;
        if level == 0 {
            let width = 2 * self.m;
            &self.base[node * width..(node + 1) * width]
        } else {
            let block = self.tower_starts[node] as usize + level - 1;
            &self.towers[block * self.m..(block + 1) * self.m]
        }
    }

    /// The neighbours of a node on a level it reaches.
    #[inline]
    pub(in crate::vector) fn neighbours(&self, level: usize, node: Ordinal) -> impl Iterator<Item = Ordinal> + use<'a> {
        self.block(level, node)
            .iter()
            .copied()
            .take_while(|neighbour| *neighbour != NONE)
    }

    /// Asks memory for a block that will be read soon.
    #[inline]
    pub(super) fn prefetch(&self, level: usize, node: Ordinal) {
        kernels::prefetch(self.block(level, node));
    }

    /// The highest level of a node.
    #[inline]
    pub(super) fn level(&self, node: Ordinal) -> usize {
        let node = node as usize;
        (self.tower_starts[node + 1] - self.tower_starts[node]) as usize
    }

    /// The ordinals that share a node's vector, the node first, ascending.
    #[inline]
    pub(super) fn twins_of(&self, node: Ordinal) -> impl Iterator<Item = Ordinal> + use<'a> {
        let twins = self.twins;
        std::iter::successors(Some(node), move |at| {
            Some(twins[*at as usize]).filter(|next| *next != NONE)
        })
    }

    /// The ordinals that follow another with the same vector.
    pub(in crate::vector) fn followers(&self) -> BitSet {
        let next = self.twins.iter().copied().filter(|next| *next != NONE);
        BitSet::from_iter(self.len(), next)
    }

    /// Whether a node has no neighbour, as absent ordinals have none.
    pub(super) fn is_alone(&self, node: Ordinal) -> bool {
        self.neighbours(0, node).next().is_none()
    }

    /// The bytes, as [`HnswLayout::parse`] wants them.
    pub(super) fn encode(&self) -> Vec<u8> {
        let header = Header {
            magic: MAGIC,
            version: VERSION,
            nodes: self.len() as u32,
            m: self.m as u32,
            entry: self.entry,
            top_level: self.top_level as u32,
            tower_blocks: (self.towers.len() / self.m) as u32,
            reserved: [0; 9],
        };
        debug_assert!(
            self.check(&header).is_ok(),
            "a graph is checked before it is written, too"
        );
        let parts = [self.base, self.towers, self.tower_starts, self.twins];
        let words = HEADER_WORDS + parts.iter().map(|part| part.len()).sum::<usize>();
        let mut bytes = Vec::with_capacity(words * size_of::<u32>());
        bytes.extend_from_slice(bytemuck::bytes_of(&header));
        for part in parts {
            bytes.extend_from_slice(bytemuck::cast_slice(part));
        }
        bytes
    }

    /// Every number a search follows: towers, chains, entry, links, in the order in which each relies on the one
    /// before.
    fn check(&self, header: &Header) -> Result<()> {
        self.check_towers(header)?;
        let followers = self.check_twins()?;
        let in_graph = |node: u32| (node as usize) < self.len() && !followers.contains(node);
        if self.entry == NONE {
            if self.top_level != 0 {
                return Err(Error::damaged("graph without entry has upper levels"));
            }
        } else if !in_graph(self.entry) || self.level(self.entry) != self.top_level {
            return Err(Error::damaged(format!(
                "graph entry {} is not a node of the top level",
                self.entry
            )));
        }
        for node in 0..self.len() as Ordinal {
            for level in 0..=self.level(node) {
                let block = self.block(level, node);
                let degree = block.iter().position(|id| *id == NONE).unwrap_or(block.len());
                let (links, rest) = block.split_at(degree);
                // A link may only lead where the target has a block to go on from.
                let sound = links.iter().all(|id| in_graph(*id) && self.level(*id) >= level)
                    && rest.iter().all(|id| *id == NONE)
                    && (links.is_empty() || in_graph(node));
                if !sound {
                    return Err(Error::damaged(format!("graph links of node {node} on level {level}")));
                }
            }
        }
        Ok(())
    }

    /// Towers follow each other without gap, none is higher than the top level.
    fn check_towers(&self, header: &Header) -> Result<()> {
        let starts = self.tower_starts;
        let sound = starts.first() == Some(&0)
            && starts.last() == Some(&header.tower_blocks)
            && starts
                .windows(2)
                .all(|pair| pair[0] <= pair[1] && (pair[1] - pair[0]) as usize <= self.top_level);
        if sound {
            Ok(())
        } else {
            Err(Error::damaged("graph towers overlap or rise above the top level"))
        }
    }

    /// Chains of twins ascend, so they end; and no two of them meet, so nothing is answered twice. Gives back everyone
    /// who follows another.
    fn check_twins(&self) -> Result<BitSet> {
        let mut followers = BitSet::new(self.len());
        for (node, next) in self.twins.iter().copied().enumerate().filter(|(_, next)| *next != NONE) {
            let sound = next as usize > node && (next as usize) < self.len() && !followers.contains(next);
            if !sound || self.level(next) != 0 {
                return Err(Error::damaged(format!("graph twins of node {node}")));
            }
            followers.set(next);
        }
        Ok(followers)
    }
}

fn words(bytes: &[u8]) -> Result<&[u32]> {
    bytemuck::try_cast_slice(bytes).map_err(|e| Error::damaged(format!("graph of {} bytes: {e}", bytes.len())))
}
