//! The service: one method a use case, domain types in and out, the same for every adapter.
//!
//! A method admits the request (bounded places and queues), waits for its turn until the deadline, does the work on a
//! blocking thread, and records the outcome: [`Service::run`] is that order, written once. Authentication and
//! authorisation will go before admission. Adapters only decode, call and encode.
//!
//! What is done is in the methods of [`Core`], plain synchronous functions over the engine and the models, one file
//! a noun.

mod ahead;
pub(crate) mod bodies;
pub mod bounds;
mod collections;
mod documents;
mod embed;
mod enrich;
mod fingerprint;
mod inputs;
mod intake;
mod operations;
mod points;
pub(crate) mod pools;
mod query;
mod ranking;
mod retrieve;
mod snapshots;
#[cfg(test)]
mod sparse_tests;
#[cfg(test)]
mod trust_tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use cairn_engine::schema;
use cairn_engine::{Engine, Error, Result};

pub use collections::{CollectionView, CreateCollection};
pub(crate) use collections::{already_exists, empty_schema};
pub use documents::{DocumentView, DocumentsPage, PutAll, PutOne, RESERVED_KEYS};
pub use enrich::{Enrich, Enriched, Mode};
pub use inputs::EmbedInput;
pub use intake::{DocumentFormat, DocumentText, NEAR_KEY, OnNearDuplicate};
pub use operations::{Operation, OperationState};
pub use points::{GivenVectors, NewPoint, ScrollRequest, WriteParams};
pub use query::{Answer, Ask, AskLeg, AskSource, NearestTo, SparseTo, parse_field};
pub use ranking::{Cap, Decay, Mmr, NearDuplicates, Ranking, Rerank, Stage};
pub(crate) use snapshots::SnapshotsOf;
pub use snapshots::{RestoreCollections, SnapshotCollection, SnapshotInfo};

use self::bodies::{Bodies, Held};
use self::pools::{Budget, Pools};
use crate::config::Limits;
use crate::rag::extract::apart::PdfReader;
use crate::rag::models::Models;
use crate::telemetry::{Api, Request};

/// The service over one engine. Cheap to share behind an `Arc`.
pub struct Service {
    core: Arc<Core>,
    pools: Pools,
    bodies: Bodies,
    operations: Arc<operations::Operations>,
    limits: Limits,
}

/// Where a request came from and how long its caller waits.
#[derive(Debug, Clone)]
pub struct Call {
    /// The adapter.
    pub api: Api,
    /// When the caller stops waiting.
    pub deadline: Instant,
    /// The bytes of its message, given back when its work has ended.
    pub(crate) held: Held,
}

/// What the work is done with.
pub(crate) struct Core {
    engine: Arc<Engine>,
    models: Models,
    pdfs: PdfReader,
    snapshots: SnapshotsOf,
}

/// Which places a request needs.
#[derive(Clone, Copy)]
enum Work {
    Read,
    Write,
    /// In the store of snapshots, which may hang.
    Look,
}

impl Service {
    /// A service over `engine` with `models` and a store of `snapshots`, which reads PDFs with `pdfs`.
    pub(crate) fn new(
        engine: Arc<Engine>,
        models: Models,
        pdfs: PdfReader,
        limits: Limits,
        snapshots: SnapshotsOf,
    ) -> Self {
        Self {
            core: Arc::new(Core {
                engine,
                models,
                pdfs,
                snapshots,
            }),
            pools: Pools::new(&limits),
            bodies: Bodies::new(limits.bodies_bytes_max),
            operations: Arc::default(),
            limits,
        }
    }

    /// The bounds this service was made with.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// A call that begins now and may take `timeout`, or the default.
    pub fn call(&self, api: Api, timeout: Option<Duration>) -> Call {
        Call {
            api,
            deadline: Instant::now() + self.limits.timeout(timeout),
            held: self.bodies.hold(),
        }
    }

    /// Holds no bytes yet, for a request whose call is not known yet.
    pub(crate) fn hold(&self) -> Held {
        self.bodies.hold()
    }

    /// Admit, wait for a place, do, record. `work` also gets the time so far, for `took_ms`.
    async fn run<T: Send + 'static>(
        &self,
        call: Call,
        method: &'static str,
        places: Work,
        work: impl FnOnce(&Core, &Budget) -> Result<T> + Send + 'static,
    ) -> Result<(T, f64)> {
        let request = Request::begin(call.api, method);
        let core = Arc::clone(&self.core);
        let pool = match places {
            Work::Read => &self.pools.reads,
            Work::Write => &self.pools.writes,
            Work::Look => &self.pools.looks,
        };
        let held = call.held;
        let work = move |budget: &Budget| {
            let _held = held;
            work(&core, budget)
        };
        let result = pool.run(call.deadline, work).await;
        let ms = request.ms();
        request.end(result.as_ref().err());
        result.map(|value| (value, ms))
    }

    async fn read<T: Send + 'static>(
        &self,
        call: Call,
        method: &'static str,
        work: impl FnOnce(&Core, &Budget) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.run(call, method, Work::Read, work).await.map(|(value, _)| value)
    }

    async fn write<T: Send + 'static>(
        &self,
        call: Call,
        method: &'static str,
        work: impl FnOnce(&Core, &Budget) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.run(call, method, Work::Write, work).await.map(|(value, _)| value)
    }

    async fn look<T: Send + 'static>(
        &self,
        call: Call,
        method: &'static str,
        work: impl FnOnce(&Core, &Budget) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.run(call, method, Work::Look, work).await.map(|(value, _)| value)
    }
}

impl Core {
    /// The schema of a collection, after checking that its name is one: path-like names never reach the engine.
    fn schema(&self, collection: &str) -> Result<Arc<schema::Schema>> {
        check_collection(collection)?;
        self.engine.schema(collection)
    }
}

/// An error's message, cut to what adapters may send of it.
pub(crate) fn sendable(mut message: String) -> String {
    if message.len() > bounds::MESSAGE_BYTES_MAX {
        message.truncate(message.floor_char_boundary(bounds::MESSAGE_BYTES_MAX));
        message.push_str(" ... (cut)");
    }
    message
}

/// A collection's name, checked.
fn check_collection(name: &str) -> Result<()> {
    schema::check_name("collection", name).map_err(|e| e.at("/collection"))
}

/// Refuses an empty or oversized list.
fn check_count(what: &str, n: usize, most: usize, pointer: &str) -> Result<()> {
    if (1..=most).contains(&n) {
        return Ok(());
    }
    Err(Error::invalid("bad_batch", format!("a request holds 1 to {most} {what}, got {n}")).at(pointer))
}

/// Refuses a page that is empty or too long.
fn check_limit(limit: usize) -> Result<()> {
    let most = cairn_engine::limits::TOP_K_MAX;
    if (1..=most).contains(&limit) {
        return Ok(());
    }
    Err(Error::invalid("bad_limit", format!("limit must be 1 to {most}, got {limit}")).at("/limit"))
}
