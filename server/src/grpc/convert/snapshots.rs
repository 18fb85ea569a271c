//! Snapshots in messages.

use cairn_proto::v1 as pb;

use super::text_in;
use crate::service::{RestoreCollections, SnapshotInfo};

pub(in crate::grpc) fn restore_in(m: pb::RestoreSnapshotRequest) -> (String, RestoreCollections) {
    let what = RestoreCollections {
        collection: text_in(m.collection),
        rename: text_in(m.r#as),
        shards: (m.shards > 0).then_some(m.shards),
        replace: m.replace,
    };
    (m.snapshot, what)
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
    }
}
