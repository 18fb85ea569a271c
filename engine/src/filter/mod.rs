//! Which points may be answered: a typed filter, and its exact evaluation to a set of ordinals per segment.
//!
//! `ast` is what a caller says, bounded in depth and size before anything else looks at it. `index` is the part of a
//! segment that answers it: postings of typed values, sorted numeric columns, presence. `eval` joins them. Evaluation is
//! exact, so a plan may count matches before it chooses how to search.

mod ast;



pub use ast::{Condition, Filter, Range, Scalar};
