//! Cairn as a service: what stands between a request and the engine.
//!
//! One service layer serves REST and gRPC alike; adapters only decode, call and encode. The RAG parts ([`rag`]) are
//! pure and synchronous: text in, chunks, vectors and prompts out; no clock, no network, no ambient randomness.

pub mod rag;
