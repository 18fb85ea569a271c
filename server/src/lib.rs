//! Cairn as a service: what stands between a request and the engine.
//!
//! One service layer serves REST and gRPC alike; adapters only decode, call and encode. The RAG parts ([`rag`]) are
//! pure and synchronous: text in, chunks, vectors and prompts out; no clock, no network, no ambient randomness.
//!
//! ```text
//! rest | grpc -> service -> { pools, rag, snapshot } -> engine
//! ```
//!
//! [`eval`] stands beside it: what retrieval is worth, from answers and judgments.

pub mod config;
pub mod eval;
pub mod rag;
pub mod service;
pub mod snapshot;
pub mod telemetry;

mod grpc;
mod rest;
pub mod serve;
mod workers;
