//! Cairn's database as a synchronous library: documents' chunks in, nearest and best-matching points out.
//!
//! The log is the truth. Segments are a cache of the log. A view is one moment of the segments.
//!
//! No sockets, no wire types, no async. Time, files and threads come in from outside. Modules are listed from the base
//! up; a module imports only from those above it in this list (checked by a test).

// base
pub mod config;
pub mod error;
pub mod limits;
pub mod log;
pub mod op;
pub mod patience;
pub mod schema;
pub mod storage;
pub mod types;
// posting lists
pub mod inverted;
// what indexes and answers
pub mod filter;
pub mod sparse;
pub mod text;
pub mod vector;
// rows at rest
pub mod segment;
// questions
pub mod query;
// state and its one writer
pub mod collection;
pub mod shard;
// the face
pub mod engine;

pub use engine::Engine;
pub use error::{Error, ErrorKind, Result};
