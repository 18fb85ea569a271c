//! Points in messages: written, read, scrolled, deleted.

use std::collections::BTreeMap;

use cairn_engine::engine::{PayloadChange, Selector};
use cairn_engine::op::Applied;
use cairn_engine::query::With;
use cairn_engine::schema::EmbedderFingerprint;
use cairn_engine::types::{Durability, Point, SparseVector};
use cairn_engine::{Error, Result};
use cairn_proto::v1 as pb;

use super::collections::embedder_in;
use super::filter::filter_in;
use super::{bad_enum, id_in, ids_in, object_out, payload_in, size_in, text_in, token_in};
use crate::service::{EmbedInput, GivenVectors, NewPoint, ScrollRequest, WriteParams};

pub(in crate::grpc) fn with_in(with: Option<pb::With>) -> With {
    let with = with.unwrap_or_default();
    With {
        payload: with.payload.unwrap_or(true),
        vectors: with.vectors,
        explain: with.explain,
    }
}

fn point_in(point: pb::PointInput) -> Result<NewPoint> {
    let vectors = match point.vector {
        Some(_) if !point.vectors.is_empty() => {
            return Err(Error::invalid("bad_point", "give vector or vectors, not both").at("/vectors"));
        }
        Some(vector) => GivenVectors::Only(vector.values),
        None => GivenVectors::Named(point.vectors.into_iter().map(|(name, v)| (name, v.values)).collect()),
    };
    Ok(NewPoint {
        id: id_in(point.id, "/id")?,
        vectors,
        embed: embed_in(point.embed)?,
        sparse: point.sparse.into_iter().map(|(name, v)| (name, sparse_in(v))).collect(),
        payload: payload_in(point.payload).map_err(|e| e.at("/payload"))?,
        document: text_in(point.document).map(|d| id_in(d, "/document")).transpose()?,
        expires_at_ms: point.expires_at_ms,
    })
}

fn embed_in(embed: BTreeMap<String, pb::EmbedInput>) -> Result<BTreeMap<String, EmbedInput>> {
    use pb::embed_input::Input;
    let one = |(name, body): (String, pb::EmbedInput)| {
        let input = match body.input {
            Some(Input::Text(text)) => EmbedInput::Text(text),
            Some(Input::Image(image)) => EmbedInput::Image(image),
            Some(Input::Audio(audio)) => EmbedInput::Audio(audio),
            None => {
                let error = Error::invalid("bad_input", "give exactly one of text, image and audio");
                return Err(error.at(format!("/embed/{name}")));
            }
        };
        Ok((name, input))
    };
    embed.into_iter().map(one).collect()
}

pub(super) fn sparse_in(vector: pb::SparseVector) -> SparseVector {
    SparseVector {
        indices: vector.indices,
        values: vector.values,
    }
}

fn sparse_out(vector: SparseVector) -> pb::SparseVector {
    pb::SparseVector {
        indices: vector.indices,
        values: vector.values,
    }
}

pub(in crate::grpc) fn made_by_in(embedders: BTreeMap<String, pb::Embedder>) -> BTreeMap<String, EmbedderFingerprint> {
    let stated = embedders.into_iter();
    stated.map(|(name, embedder)| (name, embedder_in(embedder))).collect()
}

pub(in crate::grpc) fn points_in(points: Vec<pb::PointInput>) -> Result<Vec<NewPoint>> {
    let point = |(i, point)| point_in(point).map_err(|e| e.at(format!("/points/{i}")));
    points.into_iter().enumerate().map(point).collect()
}

pub(in crate::grpc) fn point_out(point: Point) -> pb::Point {
    let vectors = point.vectors.unwrap_or_default();
    pb::Point {
        id: point.id.as_str().to_owned(),
        vectors: vectors
            .into_iter()
            .map(|(name, values)| (name, pb::Vector { values }))
            .collect(),
        payload: point.payload.map(object_out),
        document: point.document.map(|d| d.as_str().to_owned()),
        version: point.version.to_string(),
        sparse: point
            .sparse
            .unwrap_or_default()
            .into_iter()
            .map(|(name, vector)| (name, sparse_out(vector)))
            .collect(),
    }
}

pub(in crate::grpc) fn applied_out(applied: &Applied) -> pb::WriteResponse {
    pb::WriteResponse {
        token: applied.token.to_string(),
        changed: applied.changed,
        durability: durability_out(applied.durability),
        replayed: applied.replayed,
    }
}

/// How a write is wanted.
pub(in crate::grpc) fn params_in(request_id: String, durability: i32) -> Result<WriteParams> {
    Ok(WriteParams {
        request_id: text_in(request_id),
        durability: durability_in(durability)?,
    })
}

pub(super) fn durability_in(durability: i32) -> Result<Option<Durability>> {
    match pb::Durability::try_from(durability) {
        Ok(pb::Durability::Unspecified) => Ok(None),
        Ok(pb::Durability::Sync) => Ok(Some(Durability::Sync)),
        Ok(pb::Durability::Async) => Ok(Some(Durability::Async)),
        Err(_) => Err(bad_enum("durability", "Durability", durability)),
    }
}

/// Numbers grow with what may be lost.
pub(in crate::grpc) fn durability_out(durability: Durability) -> i32 {
    match durability {
        Durability::Sync => pb::Durability::Sync,
        Durability::Async => pb::Durability::Async,
    }
    .into()
}

pub(in crate::grpc) fn selector_in(ids: Vec<String>, filter: Option<pb::Filter>) -> Result<Selector> {
    match filter {
        Some(_) if !ids.is_empty() => Err(Error::invalid("bad_selector", "give ids or filter, not both").at("/filter")),
        Some(filter) => filter_in(Some(filter)).map(Selector::Matching),
        None => ids_in(ids).map(Selector::Ids),
    }
}

pub(in crate::grpc) fn scroll_in(request: pb::ScrollRequest) -> Result<(String, ScrollRequest)> {
    let scroll = ScrollRequest {
        filter: filter_in(request.filter)?,
        limit: request.limit.map(size_in),
        cursor: request.cursor,
        with: with_in(request.with),
        after: token_in(request.after, "/after")?,
        allow_partial: request.allow_partial,
    };
    Ok((request.collection, scroll))
}

pub(in crate::grpc) fn payload_change_in(
    set: Option<pb::Struct>,
    unset: Vec<String>,
    replace: bool,
) -> Result<PayloadChange> {
    Ok(PayloadChange {
        set: payload_in(set).map_err(|e| e.at("/set"))?,
        unset,
        replace,
    })
}
