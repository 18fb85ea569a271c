//! The JSON of `/api/v1` to and from domain types: the only module that knows both, one file a resource.
//!
//! Field names, units and defaults are those of the gRPC messages. Requests refuse unknown fields. Shapes that are one of
//! several are structs of options here, not enums, so that an error can say which field is wrong.
//!
//! Here is what the resources share: ids, tokens, and what a write answers.

mod collections;
mod damage;
mod documents;
mod enrich;
mod filter;
mod operations;
mod points;
mod query;
mod ranking;
mod snapshots;

use std::fmt;

use cairn_engine::Result;
use cairn_engine::op::Applied;
use cairn_engine::types::{Durability, PointId, Token};
use serde::{Deserialize, Deserializer, Serialize, de};
use utoipa::ToSchema;

pub(super) use self::collections::{CollectionOut, CollectionsOut, SchemaBody};
pub(super) use self::damage::partial_out;
pub(super) use self::documents::{DocumentViewOut, DocumentsOut, PutDocumentsBody, PutDocumentsOut};
pub(super) use self::enrich::{EnrichBody, EnrichOut};
pub(super) use self::operations::{OperationOut, OperationsOut};
pub(super) use self::points::{
    CountBody, CountOut, DeletePointsBody, GetPointsBody, PageOut, PointsOut, ScrollBody, SetPayloadBody, UpsertBody,
};
pub(super) use self::query::{QueryBatchBody, QueryBatchOut, QueryBody, QueryOut};
pub(super) use self::snapshots::{CreateSnapshotBody, RestoreBody, RestoreSnapshotBody, SnapshotOut, SnapshotsOut};
use crate::service::WriteParams;

/// An id: a string, or an integer that means its decimal digits. Ids come back as strings.
#[derive(Debug, Clone)]
pub(super) struct Id(String);

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Id;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an id: a string or an integer")
            }
            fn visit_str<E: de::Error>(self, id: &str) -> Result<Id, E> {
                Ok(Id(id.to_owned()))
            }
            fn visit_string<E: de::Error>(self, id: String) -> Result<Id, E> {
                Ok(Id(id))
            }
            fn visit_u64<E: de::Error>(self, id: u64) -> Result<Id, E> {
                Ok(Id(id.to_string()))
            }
            fn visit_i64<E: de::Error>(self, id: i64) -> Result<Id, E> {
                Ok(Id(id.to_string()))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl Id {
    fn check(self, pointer: &str) -> Result<PointId> {
        PointId::new(self.0).map_err(|e| e.at(pointer))
    }
}

pub(super) fn ids_in(ids: Vec<Id>, pointer: &str) -> Result<Vec<PointId>> {
    ids.into_iter()
        .enumerate()
        .map(|(i, id)| id.check(&format!("{pointer}/{i}")))
        .collect()
}

fn after_in(token: Option<String>) -> Result<Option<Token>> {
    token
        .map(|t| t.parse::<Token>().map_err(|e| e.at("/after")))
        .transpose()
}

fn sizes(n: Option<u32>) -> Option<usize> {
    n.map(|n| n as usize)
}

/// What a write answers.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct WriteOut {
    /// Opaque place of this write. A read that gives it as `after` sees at least this write.
    token: String,
    /// Points inserted, replaced or deleted.
    changed: u64,
    /// How safe it is now: what was asked for, or more.
    durability: DurabilityBody,
    /// The request had been done before. Nothing was done now; this is what was answered then.
    replayed: bool,
}

/// When a write is answered, and how safe it is then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum DurabilityBody {
    /// After the write was fsynced: it survives a loss of power.
    Sync,
    /// Before that: it survives the end of the process, and is fsynced within the server's window (100 ms by default).
    Async,
}

impl std::str::FromStr for DurabilityBody {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "sync" => Ok(Self::Sync),
            "async" => Ok(Self::Async),
            _ => Err(()),
        }
    }
}

impl From<DurabilityBody> for Durability {
    fn from(body: DurabilityBody) -> Self {
        match body {
            DurabilityBody::Sync => Self::Sync,
            DurabilityBody::Async => Self::Async,
        }
    }
}

impl From<Durability> for DurabilityBody {
    fn from(durability: Durability) -> Self {
        match durability {
            Durability::Sync => Self::Sync,
            Durability::Async => Self::Async,
        }
    }
}

/// How a write is wanted.
pub(super) fn params_in(request_id: Option<String>, durability: Option<DurabilityBody>) -> WriteParams {
    WriteParams {
        request_id,
        durability: durability.map(Into::into),
    }
}

impl From<Applied> for WriteOut {
    fn from(applied: Applied) -> Self {
        Self {
            token: applied.token.to_string(),
            changed: applied.changed,
            durability: applied.durability.into(),
            replayed: applied.replayed,
        }
    }
}
