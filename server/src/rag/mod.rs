//! Retrieval-augmented generation, the parts that need no database: cutting documents into chunks, counting tokens,
//! turning text into vectors, and packing what was found into a prompt.
//!
//! Everything here is a function of its arguments. The service layer fetches, calls, stores and records; a test
//! calls the same functions with a counter or an embedder of its own. Modules are listed from the base up.

pub mod patience;
pub mod tokens;

pub mod chunk;
pub mod embed;
pub mod models;
pub mod pack;
pub mod render;
pub mod rerank;
pub mod retrieval;

pub use patience::{OutOfPatience, Patience};
