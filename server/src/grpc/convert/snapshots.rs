//! Snapshots in messages.

use cairn_engine::Result;
use cairn_proto::v1 as pb;

use super::{text_in, token_in};
use crate::service::{RestoreCollections, SnapshotInfo};
use crate::snapshot::PointInTime;

pub(in crate::grpc) fn restore_in(m: pb::RestoreSnapshotRequest) -> Result<(Option<String>, RestoreCollections)> {
    let what = RestoreCollections {
        collection: text_in(m.collection),
        rename: text_in(m.r#as),
        shards: (m.shards > 0).then_some(m.shards),
        replace: m.replace,
        to: PointInTime::one_of(token_in(Some(m.to_token), "/to_token")?, m.to_time_ms)?,
    };
    Ok((text_in(m.snapshot), what))
}

pub(in crate::grpc) fn snapshot_out(info: SnapshotInfo) -> pb::Snapshot {
    let collections = info.collections.into_iter().map(|c| pb::SnapshotCollection {
        collection: c.name,
        points: c.points,
        documents: c.documents,
    });
    pb::Snapshot {
        snapshot: info.name,
        created_at_ms: info.created_at_ms,
        token: info.token,
        cairn: info.cairn,
        files: info.files,
        bytes: info.bytes,
        collections_total: info.collections_total,
        collections: collections.collect(),
        damaged: info.damaged,
        restorable: info.restorable.map(|range| pb::Restorable {
            from_token: range.from.0.to_string(),
            from_ms: range.from.1,
            to_token: range.to.0.to_string(),
            to_ms: range.to.1,
        }),
    }
}
