//! Operations in messages: work that outlives the request that asked for it.

use cairn_proto::v1 as pb;

use crate::service::{Operation, OperationState};

pub(in crate::grpc) fn operation_out(o: Operation) -> pb::Operation {
    let state = match o.state {
        OperationState::Running => pb::OperationState::Running,
        OperationState::Done => pb::OperationState::Done,
        OperationState::Failed => pb::OperationState::Failed,
        OperationState::Cancelled => pb::OperationState::Cancelled,
    };
    pb::Operation {
        id: o.id,
        kind: o.kind.to_owned(),
        collection: o.collection,
        snapshot: o.snapshot,
        state: state.into(),
        progress: o.progress,
        message: o.message,
        started_at_ms: o.started_at_ms,
        ended_at_ms: o.ended_at_ms,
        error_code: o.error.as_ref().map(|e| e.code.to_owned()),
        error: o.error.map(|e| e.message),
    }
}
