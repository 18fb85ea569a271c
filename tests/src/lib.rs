//! End to end: a real server, spoken to through both protocols.
//!
//! A [`Request`] is what a caller means, written once, with the field names that both protocols share. [`Rest`] and
//! [`Grpc`] send it; both answer in the same JSON shape ([`Outcome`]), so that one table of cases tests both and
//! any difference between them shows. [`bad_requests`] is the table of what must be refused.
//!
//! [`process`] is the server as a child process, [`faultfs`] a faulty file system under it, [`crash`] a load with an oracle and a judge;
//! [`reliability`] is what they are for.

pub mod bad_requests;
pub mod crash;
pub mod faultfs;
mod grpc;
mod model_server;
pub mod process;
pub mod reliability;
mod request;
mod rest;
mod server;

pub use grpc::Grpc;
pub use model_server::{DIM, Fault, ModelServer, Script, Seen, score_of, vector_of};
pub use request::{Failure, Kind, Method, Outcome, Request};
pub use rest::{Rest, http_client};
pub use server::TestServer;
