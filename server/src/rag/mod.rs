//! Retrieval-augmented generation, the parts that need no database: cutting documents into chunks, counting tokens,
//! turning text into vectors, and packing what was found into a prompt.
//!
//! Everything here is a function of its arguments, except for models behind HTTP ([`remote`]). The service layer fetches,
//! calls, stores and records; a test calls the same functions with a counter or an embedder of its own. Modules are listed
//! from the base up.

pub mod line;
pub mod remote;
pub mod tokens;

pub mod chunk;
pub mod condense;
pub mod embed;
pub mod extract;
pub mod language;
pub mod models;
pub mod near;
pub mod pack;
pub mod rank;
pub mod render;
pub mod rerank;
pub mod retrieval;
pub mod template;
pub mod trust;

pub use cairn_engine::patience::{self, OutOfPatience, Patience};
