//! Operations: work of the server that outlives the request that asked for it.

use serde::Serialize;

/// An operation, as it is at some moment.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Operation {
    /// Names it.
    pub id: String,
    /// What kind of work, e.g. `optimize`.
    pub kind: String,
    /// On which collection; empty: on all, or on none.
    pub collection: String,
    /// With which snapshot, if it is one that has to do with them.
    pub snapshot: Option<String>,
    /// How it stands.
    pub state: OperationState,
    /// 0 to 1.
    pub progress: f32,
    /// What it is at, or what came of it, for people.
    pub message: String,
    /// Milliseconds since the Unix epoch.
    pub started_at_ms: u64,
    /// The same, once it has ended.
    pub ended_at_ms: Option<u64>,
    /// If it failed: the stable code and the message of the error.
    pub error: Option<(String, String)>,
}

/// How an operation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum OperationState {
    /// At work.
    Running,
    /// Ended well.
    Done,
    /// Ended with an error.
    Failed,
    /// Ended because somebody asked.
    Cancelled,
}
