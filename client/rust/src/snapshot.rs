//! Snapshots: one moment of the whole database, kept in a store, from which it can be brought back.

use serde::Serialize;

/// A snapshot.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Snapshot {
    /// Its name.
    pub snapshot: String,
    /// When the moment was that it holds, in milliseconds since the Unix epoch.
    pub created_at_ms: u64,
    /// The last write in it.
    pub token: String,
    /// Version of Cairn that wrote it.
    pub cairn: String,
    /// Files.
    pub files: u64,
    /// Bytes of its files. What several snapshots share is stored once.
    pub bytes: u64,
    /// How many collections it holds.
    pub collections_total: u64,
    /// What is in it, by name; empty in a list.
    pub collections: Vec<SnapshotCollection>,
    /// From where to where it can be restored: its own moment, and how far the log that is there follows it.
    pub restorable: Option<Restorable>,
    /// Why it cannot be read, if it cannot; then only its name is known.
    pub damaged: Option<String>,
}

/// From where to where a snapshot can be restored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Restorable {
    /// The last write in the snapshot.
    pub from_token: String,
    /// The snapshot's moment, in milliseconds since the Unix epoch.
    pub from_ms: u64,
    /// The last write that it can be followed to.
    pub to_token: String,
    /// The last moment, in milliseconds since the Unix epoch.
    pub to_ms: u64,
}

/// A collection of a snapshot.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct SnapshotCollection {
    /// Its name.
    pub collection: String,
    /// Live points.
    pub points: u64,
    /// Documents.
    pub documents: u64,
}

/// What to bring back of a snapshot: all of its collections under their names, unless it is said otherwise.
#[derive(Debug, Clone, Default, PartialEq)]
#[must_use]
pub struct Restore {
    pub(crate) collection: String,
    pub(crate) rename: String,
    pub(crate) shards: u32,
    pub(crate) replace: bool,
    pub(crate) to_token: String,
    pub(crate) to_time_ms: Option<u64>,
}

impl Restore {
    /// All collections.
    pub fn all() -> Self {
        Self::default()
    }
    /// One collection.
    pub fn collection(name: impl Into<String>) -> Self {
        Self {
            collection: name.into(),
            ..Self::default()
        }
    }
    /// The name that the one collection gets.
    pub fn rename(mut self, name: impl Into<String>) -> Self {
        self.rename = name.into();
        self
    }
    /// The shards that the one collection gets.
    pub fn shards(mut self, shards: u32) -> Self {
        self.shards = shards;
        self
    }
    /// As they were right after this write, instead of at the snapshot's moment.
    pub fn to_token(mut self, token: impl Into<String>) -> Self {
        self.to_token = token.into();
        self
    }
    /// As they were at this time, in milliseconds since the Unix epoch: with everything that was answered by then.
    pub fn to_time_ms(mut self, ms: u64) -> Self {
        self.to_time_ms = Some(ms);
        self
    }
    /// Replaces collections that have the names, each at once when the restored one is complete.
    pub fn replace(mut self) -> Self {
        self.replace = true;
        self
    }
}
