//! Indexes that Faiss makes: a factory string says which, and the library trains, fills and searches it.
//!
//! For whoever knows what they want of that library, or has measured it there. Off by default: Faiss is C++ that is compiled with the
//! feature `faiss` of this crate, and linked with a BLAS and OpenMP. A build without it reads every schema and every segment, and
//! answers from the vectors by a scan: an index is never the only place of anything.
//!
//! - *What is indexed.* The rows that have the vector, by their place among those; ordinals are made of places here, so Faiss needs
//!   no ids. Vectors of a cosine space are made unit length first, and compared by inner product.
//! - *What is answered.* Faiss says candidates, more than are wanted; each is measured again on the vectors as they were given, so
//!   that scores and order are those of every other index. This is what `RFlat` and `Refine(..)` do, too, with a copy of their own, so
//!   such an end of a factory string is taken off ([`factory::searched`]).
//! - *Filters and deaths* are a bitmap that Faiss asks for each candidate. An index that cannot be asked so (`PQ16x4fs` without lists)
//!   says more candidates instead, and what may not be answered is left out here.
//! - *How many candidates, or lists*, is measured when a segment is made, with rows of it as questions, and kept with the index
//!   (`effort.rs`). Of lists (`IVF..`) it is how many are looked into (`nprobe`), of anything else how many candidates are asked for, which
//!   is what a graph of Faiss walks by, too.
//! - *Fewer than k hits* are possible: who promised k falls back to a scan, as [`VectorIndex::search`](super::VectorIndex) here does.
//!
//! Not here: adding rows, removing rows, indexes of bits, graphics cards. Faiss cannot be told to stop: a build looks at `stop` before and
//! after it is trained and between blocks of rows, a search before and after. An index is in memory as a whole from when its segment is first
//! looked into.
//!
//! # Bytes
//!
//! Little-endian, version 1. `n` rows of `d` dimensions, `p` of them have the vector.
//!
//! ```text
//!  0  "CFAI" | version | n | d | metric (0 cosine, 1 dot, 2 euclid) | p
//!     | u64 bytes of the index | u64 their xxh3 | s steps | kind (0 candidates, 1 lists) | 16 zero bytes    header, 64 bytes
//! 64  s x (u32 effort | f32 recall): both ascend                                                           steps
//!  ·  p u32: the ordinal of each place, ascending; only if p < n                                           present
//!  ·  the index as Faiss writes it
//! ```
//!
//! Faiss is not made for bytes that somebody changed on purpose: it gets only those whose hash is the one in the header.

#[cfg(any(test, feature = "faiss"))]
mod effort;
pub mod factory;
#[cfg(any(test, feature = "faiss"))]
mod layout;

#[cfg(feature = "faiss")]
mod index;
#[cfg(feature = "faiss")]
pub mod native;
#[cfg(all(test, feature = "faiss"))]
mod tests;

#[cfg(not(feature = "faiss"))]
mod without;

#[cfg(feature = "faiss")]
pub use index::{Faiss, build, check};
#[cfg(not(feature = "faiss"))]
pub use without::{Faiss, build, check};

/// What a search asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Effort {
    /// Candidates.
    pub candidates: usize,
    /// Lists to look into, if there are lists.
    pub nprobe: Option<usize>,
}

/// Whether this build has Faiss.
pub const AVAILABLE: bool = cfg!(feature = "faiss");
