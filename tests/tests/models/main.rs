//! Models behind HTTP, against a scripted service that is slow, drops, refuses and lies: the embedders and rerankers
//! themselves, and a whole server that ingests and answers with them.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod embed;
mod ingest;
mod rerank;
