//! Inverted lists: rows grouped around centres, so that a search looks into the few groups that can hold what it wants.
//!
//! For segments that are large or cold, and for bulk: a list is one stretch of the file, read from front to back, where a walk
//! over a graph reads a record here and there. [`build`] makes the bytes,
//! [`IvfLayout::parse`] checks them once, [`IvfLayout::view`] searches them.
//!
//! - *Centres* come from k-means over a bounded sample (`kmeans.rs`): seeded, the same for any number of threads, with lists of
//!   about one size. For cosine it is spherical. For inner product it is not: rows of one direction and different lengths must
//!   not share a list, or every list has long rows and none can be left out.
//! - *Records* are [`codes`](super::codes) of what a row differs from its list's centre, which is less than it differs from the
//!   mean of all: the same bits tell more rows apart. A query is turned into integers once, not once a list: the rest is one
//!   number a list (below).
//! - *Packs* hold the same rows in a bit a dimension, as they are seen from their centre, thirty-two together ([`packs`](super::packs)). Once a
//!   search has enough candidates, only rows that seem nearer than those by their bits are measured by their records.
//! - *Which lists.* What is known of a list is how far its rows should be (`outlook`): expected, and by how much they vary.
//!   Lists are looked into in the order of `expected - reach · deviation`, until that is beyond the k-th hit, or until so many
//!   were read as hold nearly all neighbours of as many rows (the *width*; it grows with `k`, and where a filter leaves one row
//!   in so many as if so many times as many were wanted). Where a filter leaves few of the rows around the query, its hits are
//!   somewhere else: then there is no width, and a farther reach. All are measured when the segment is made (`measure.rs`), for
//!   several recalls, and kept with the lists. A caller says how much is to be found ([`Ivf::with_recall`]), or how many lists.
//! - *Filters and deaths* are looked up row by row. Fewer than k hits never end a search: it goes on to the last list.
//! - *Many centres* (more than [`ROUTED`]) are found by a graph over them, fewer by a scan of their codes.
//!
//! Not here: adding rows, removing rows, reading from anywhere but memory.
//!
//! # Distances by code
//!
//! With `c` the centre, `y = x - c ≈ low + step·code` and `μ` the mean of all centres, `q - μ` in integers:
//!
//! ```text
//! dot     -<q,x>  = -<q,c> - <μ,y> - <q-μ,y>                          <μ,y> is the record's `extra`
//! cosine  of unit vectors, from 1
//! euclid  |q-x|²  =  |q-c|² + (|y|² + 2·<c-μ,y>) - 2·<q-μ,y>           the bracket is the record's `extra`
//! ```
//!
//! # Bytes
//!
//! Little-endian, version 2, in three sections. `n` rows of `d` dimensions, `l` lists, `p` rows in them. Each part begins at a
//! multiple of 64.
//!
//! ```text
//!  0  "CIVF" | version | n | d | l | p | bits (0: no records) | metric (0 cosine, 1 dot, 2 euclid, 3 manhattan, 4 hamming)
//!     | f32 far reach | 28 zero bytes                                              header, 64 bytes
//! 64  7 x (f32 recall | reach | share of rows for 10 | for 100 | width for 10 | for 100)         looks
//!  ·  d f32                                                                        mean of the centres
//!  ·  l x d f32: the mean of each list's rows                                      centres
//!  ·  the centres as codes of 8 bits; not for manhattan                            coded centres ("CLVQ")
//!  ·  l f32: root of the mean square of what rows differ from their centre         spreads
//!  ·  l+1 u32: list i is places start[i]..start[i+1]                               starts
//!  ·  p u32: the ordinal at each place, ascending within a list                    order
//!  ·  graph over the centres; only if l > 4096                                     router ("CHNW")
//! ```
//!
//! The second section holds `p` records as in [`codes`](super::codes), in the order of places: list `i` is the bytes
//! `start[i]·r..start[i+1]·r` of it, for records of `r` bytes. Without codes there is none, and rows are read one by one.
//!
//! The third holds `⌈p/32⌉` packs, of 32 places each, whatever lists those are of: 32 times `A` and 32 times `F` as in
//! [`packs`](super::packs), with the mean and the centres of these lists, `⌈d/8⌉` times 32 bytes of signs, zeros to a multiple of 64. There is none
//! without codes, and none of fewer than 64 dimensions.

mod build;
mod kmeans;
mod layout;
mod measure;
mod search;
#[cfg(test)]
mod tests;

pub use build::{Lists, Wanted, build, default_lists};
pub use layout::{Ivf, IvfLayout};
pub use search::Probed;

/// More centres than these are found by a graph. A scan of so many takes about what a list of as many rows does.
pub const ROUTED: usize = 4096;

use crate::schema::Metric;

/// What can be known of the rows of a list before they are looked at.
#[derive(Debug, Clone, Copy)]
struct Outlook {
    /// What a distance by code begins with.
    base: f32,
    /// How far a row is, on average.
    expected: f32,
    /// How much that varies, up to a factor that is one for all lists of a segment.
    deviation: f32,
}

impl Outlook {
    /// From how far the centre is from the query ([`Centres`](layout::Centres)) and how far rows are from it.
    fn of(metric: Metric, centre_distance: f32, spread: f32, query_length: f32) -> Self {
        let (base, expected, deviation) = match metric {
            // Centres are measured by inner product.
            Metric::Cosine => (1.0 + centre_distance, 1.0 + centre_distance, spread),
            Metric::Dot => (centre_distance, centre_distance, spread * query_length),
            Metric::Euclid | Metric::Hamming => (
                centre_distance,
                centre_distance + spread * spread,
                spread * (2.0 * centre_distance.max(0.0).sqrt() + spread),
            ),
            // What is random in each dimension adds up like squares.
            Metric::Manhattan => (centre_distance, centre_distance.hypot(spread), spread),
        };
        Self {
            base,
            expected,
            deviation,
        }
    }

    /// How near the nearest rows may well be.
    fn best(self, reach: f32) -> f32 {
        self.expected - reach * self.deviation
    }
}
