//! Snapshots in JSON.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::service::{RestoreCollections, SnapshotInfo};

/// A snapshot to make.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::rest) struct CreateSnapshotBody {
    /// Like the name of a collection. Default: the date and time.
    pub(in crate::rest) snapshot: Option<String>,
}

/// What to bring back.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::rest) struct RestoreSnapshotBody {
    /// Which collection. Default: all.
    collection: Option<String>,
    /// The name it gets. Default: the one it has. Only with `collection`.
    #[serde(rename = "as")]
    rename: Option<String>,
    /// Shards it gets. Default: as many as it has. Only with `collection`.
    shards: Option<u32>,
    /// A collection that has the name is replaced, at once when the restored one is complete. Without this it is an error.
    #[serde(default)]
    replace: bool,
}

impl From<RestoreSnapshotBody> for RestoreCollections {
    fn from(body: RestoreSnapshotBody) -> Self {
        Self {
            collection: body.collection,
            rename: body.rename,
            shards: body.shards,
            replace: body.replace,
        }
    }
}

/// A snapshot.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(in crate::rest) struct SnapshotOut {
    snapshot: String,
    /// When the moment was that it holds, in milliseconds since the Unix epoch.
    created_at_ms: u64,
    /// The last write in it.
    token: String,
    /// Version of Cairn that wrote it.
    cairn: String,
    files: u64,
    /// Bytes of its files. What several snapshots share is stored once.
    bytes: u64,
    /// How many collections it holds.
    collections_total: u64,
    /// What is in it, by name; left out of a list.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    collections: Vec<SnapshotCollectionOut>,
    /// Why it cannot be read, if it cannot; then only its name is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    damaged: Option<String>,
}

/// A collection of a snapshot.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(in crate::rest) struct SnapshotCollectionOut {
    collection: String,
    points: u64,
    documents: u64,
}

#[derive(Debug, Clone, Serialize, ToSchema)]
pub(in crate::rest) struct SnapshotsOut {
    /// The newest first; damaged ones last.
    pub(in crate::rest) snapshots: Vec<SnapshotOut>,
}

impl From<SnapshotInfo> for SnapshotOut {
    fn from(info: SnapshotInfo) -> Self {
        let collections = info.collections.into_iter().map(|c| SnapshotCollectionOut {
            collection: c.name,
            points: c.points,
            documents: c.documents,
        });
        Self {
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
}
