//! Snapshots in JSON.

use cairn_engine::Result;
use cairn_engine::types::Token;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::service::{RestoreCollections, SnapshotInfo};
use crate::snapshot::PointInTime;

/// A snapshot to make.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::rest) struct CreateSnapshotBody {
    /// Like the name of a collection. Default: the date and time.
    pub(in crate::rest) snapshot: Option<String>,
}

/// What to bring back, and of which moment.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::rest) struct RestoreBody {
    /// Which snapshot to begin with. Default, with a moment: the newest that is not after it.
    pub(in crate::rest) snapshot: Option<String>,
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
    /// The moment right after this write. Default: the snapshot's own.
    to_token: Option<String>,
    /// The moment in milliseconds since the Unix epoch, instead of `to_token`: everything that was answered by then, and
    /// nothing that was asked for later.
    to_time_ms: Option<u64>,
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
    /// The moment right after this write. Default: the snapshot's own.
    to_token: Option<String>,
    /// The moment in milliseconds since the Unix epoch, instead of `to_token`: everything that was answered by then, and
    /// nothing that was asked for later.
    to_time_ms: Option<u64>,
}

impl RestoreBody {
    pub(in crate::rest) fn read(self) -> Result<(Option<String>, RestoreCollections)> {
        let what = RestoreCollections {
            collection: self.collection,
            rename: self.rename,
            shards: self.shards,
            replace: self.replace,
            to: moment(self.to_token, self.to_time_ms)?,
        };
        Ok((self.snapshot, what))
    }
}

impl RestoreSnapshotBody {
    pub(in crate::rest) fn read(self) -> Result<RestoreCollections> {
        Ok(RestoreCollections {
            collection: self.collection,
            rename: self.rename,
            shards: self.shards,
            replace: self.replace,
            to: moment(self.to_token, self.to_time_ms)?,
        })
    }
}

fn moment(token: Option<String>, time_ms: Option<u64>) -> Result<Option<PointInTime>> {
    let token = token.map(|token| token.parse::<Token>().map_err(|e| e.at("/to_token")));
    PointInTime::one_of(token.transpose()?, time_ms)
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
    /// From where to where it can be restored: its own moment, and how far the log that is there follows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    restorable: Option<RestorableOut>,
    /// Why it cannot be read, if it cannot; then only its name is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    damaged: Option<String>,
}

/// Each a write's token, and a time in milliseconds since the Unix epoch.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(in crate::rest) struct RestorableOut {
    from_token: String,
    from_ms: u64,
    to_token: String,
    to_ms: u64,
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
            restorable: info.restorable.map(|range| RestorableOut {
                from_token: range.from.0.to_string(),
                from_ms: range.from.1,
                to_token: range.to.0.to_string(),
                to_ms: range.to.1,
            }),
            damaged: info.damaged,
        }
    }
}
