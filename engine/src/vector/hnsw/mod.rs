//! A hierarchical navigable small world graph (Malkov & Yashunin, "Efficient and robust approximate nearest neighbor
//! search using HNSW graphs", 2016), built for each sealed segment, of new or from the largest that is merged into it ([`extend`]), and searched
//! straight from its bytes.
//!
//! [`build`] makes the bytes, [`HnswLayout::parse`] checks them once, [`HnswLayout::view`] searches them. What the
//! paper leaves open is decided like this:
//!
//! - *Deterministic.* A hash of seed and ordinal decides a node's level and its turn; ties are broken by ordinal; nodes are
//!   inserted in batches that do not see each other. So the same vectors, and the same graph to begin with, give the same bytes, however many threads help. Over
//!   codes that holds on every machine; over floats on the same instruction set (see [`kernels`](super::kernels)).
//! - *Insertion in rounds*, each a sample of everything, not document after document (`build.rs` says why).
//! - *Codes.* Where the vectors come with [`codes`](super::codes), a build and a walk measure those, and a search measures
//!   the best it found again on the vectors themselves: what it answers is exact in score and order, whatever was found.
//! - *Twins.* Bit-identical vectors are one node. The smallest ordinal stands in the graph and the others hang on it
//!   in a chain: as nodes they would link to each other at distance 0 until no link led out (boilerplate chunks do
//!   that).
//! - *Inner product* is not a metric. The graph is built by it all the same (ip-NSW, Morozov & Babenko 2018), with
//!   blocks filled up where vectors differ in length.
//! - *No islands.* After insertion every node that cannot be reached from the entry point is given a link from the
//!   nearest one that can, level by level.
//! - *Filters.* Nodes that do not match are looked through to those behind them, and walked to as far as they are nearer than
//!   the hits (`search.rs` says why).
//! - *Descent* keeps a few candidates instead of the paper's single one: between well separated clusters a
//!   greedy walk ends in the wrong one.
//!
//! Not here: changes to a graph that is in use, threads (a build is given [`Workers`](crate::config::Workers)).
//!
//! # Bytes
//!
//! Little-endian, version 1. `n` rows, `m0 = 2m`, `t` tower blocks. Every part is whole `u32`s; `NONE` is `u32::MAX`.
//!
//! ```text
//!        0  "CHNW" | version | n | m | entry | top level | t | 36 zero bytes         header, 64 bytes
//!       64  n blocks of m0 u32: neighbours on level 0, then NONE to the end          base
//!  + 4n·m0  t blocks of m u32: neighbours on one upper level, then NONE to the end   towers
//!   + 4t·m  n+1 u32: node i owns tower blocks start[i]..start[i+1],                  tower starts
//!           the first for level 1; so the difference is its level
//! + 4(n+1)  n u32: the next larger ordinal with the same vector, or NONE             twins
//!     + 4n  end
//! ```
//!
//! A block carries no count: with the default `m = 16` a base block is exactly two cache lines. `entry` is NONE when
//! no row has a vector. Blocks of absent ordinals and of twins after the first are empty. Checksums are the business
//! of the file around these bytes; a damaged file that slips through still cannot make a search panic, loop or answer
//! a row twice, because `parse` looks at every number a search will follow.

mod build;
mod layout;
mod lazy;
mod search;
#[cfg(test)]
mod tests;

pub use build::{Base, build, extend};
pub(super) use layout::M;
pub use layout::{Hnsw, HnswLayout};
pub use search::{Effort, Walked};
