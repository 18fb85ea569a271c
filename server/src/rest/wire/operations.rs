//! Operations in JSON: work that outlives the request that asked for it.

use serde::Serialize;
use utoipa::ToSchema;

use crate::service::{Operation, OperationState};

/// Work that outlives the request that asked for it.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(in crate::rest) struct OperationOut {
    id: String,
    /// `optimize`, `create_snapshot`, `verify_snapshot`, `restore_snapshot`, `delete_snapshot`.
    kind: &'static str,
    /// Empty: all collections, or none.
    collection: String,
    /// Of an operation that has to do with snapshots: which.
    #[serde(skip_serializing_if = "Option::is_none")]
    snapshot: Option<String>,
    state: OperationStateOut,
    /// 0 to 1.
    progress: f32,
    /// For people: what it is at, e.g. `merging 3 of 8 sealed segments of shard 2 of 4`; when it is done, what came of it.
    message: String,
    /// Milliseconds since the Unix epoch.
    started_at_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_at_ms: Option<u64>,
    /// If it failed: the stable code of the error.
    #[serde(skip_serializing_if = "Option::is_none")]
    error_code: Option<&'static str>,
    /// And its message.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::rest) enum OperationStateOut {
    Running,
    Done,
    Failed,
    Cancelled,
}

#[derive(Debug, Clone, Serialize, ToSchema)]
pub(in crate::rest) struct OperationsOut {
    pub(in crate::rest) operations: Vec<OperationOut>,
}

impl From<Operation> for OperationOut {
    fn from(o: Operation) -> Self {
        let state = match o.state {
            OperationState::Running => OperationStateOut::Running,
            OperationState::Done => OperationStateOut::Done,
            OperationState::Failed => OperationStateOut::Failed,
            OperationState::Cancelled => OperationStateOut::Cancelled,
        };
        Self {
            id: o.id,
            kind: o.kind,
            collection: o.collection,
            snapshot: o.snapshot,
            state,
            progress: o.progress,
            message: o.message,
            started_at_ms: o.started_at_ms,
            ended_at_ms: o.ended_at_ms,
            error_code: o.error.as_ref().map(|e| e.code),
            error: o.error.map(|e| e.message),
        }
    }
}
