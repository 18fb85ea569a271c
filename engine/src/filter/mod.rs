//! Which points may be answered: a typed filter, and its exact evaluation to a set of ordinals per segment.
//!
//! `ast` is what a caller says, bounded in depth and size before anything else looks at it. `extract` says which typed
//! values of a payload are indexed under which path. `index` is the part of a segment that holds them: postings of typed
//! values, sorted numeric columns, presence. `eval` joins them. Evaluation is exact, so a plan may count matches before
//! it chooses how to search.

mod ast;
pub mod eval;
pub mod extract;
pub mod index;
#[cfg(test)]
mod tests;

pub use ast::{Condition, Filter, Range, Scalar};
