//! One universal question and its answer.
//!
//! A query is a tree: leaves find candidates (nearest vectors, sparse vectors, BM25), inner nodes fuse them. It is validated against the
//! schema, planned per segment (scan of vectors or codes, or graph walk), run on one view to the end, fused, and only the final k hits
//! fetch their payload.

mod ahead;
mod ask;
mod exec;
mod fuse;
mod legs;
mod listing;
mod nearest;
pub mod plan;
mod sample;
pub mod score;
mod sparse;
#[cfg(test)]
mod tests;
mod text;
mod view;

pub(crate) use ahead::Ahead;
pub(crate) use ask::check_vector;
pub use ask::{Explain, ExplainLeg, Fuse, Hit, Input, LegScore, Params, Query, QueryResult, Source, TextField, With};
pub(crate) use exec::{Context, chunks, count, get, run, scroll};
pub use listing::{Lacking, Listing, ShardListing};
pub(crate) use nearest::check_values;
pub use sample::Estimate;
pub(crate) use sample::{Picked, Samples};
pub use view::{ShardView, View};
