//! End to end: a real server, spoken to through both protocols.
//!
//! A [`Request`] is what a caller means, written once, with the field names that both protocols share. [`Rest`] and
//! [`Grpc`] send it; both answer in the same JSON shape ([`Outcome`]), so that one table of cases tests both and
//! any difference between them shows. [`bad_requests`] is the table of what must be refused.

pub mod bad_requests;
mod grpc;
mod model_server;
mod request;
mod rest;
mod server;

pub use grpc::Grpc;
pub use model_server::{DIM, Fault, ModelServer, Script, Seen, score_of, vector_of};
pub use request::{Failure, Kind, Method, Outcome, Request};
pub use rest::{Rest, http_client};
pub use server::TestServer;
