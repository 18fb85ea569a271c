//! Points in JSON: written, read, scrolled, counted, deleted.

use std::collections::BTreeMap;

use cairn_engine::engine::{PayloadChange, Selector};
use cairn_engine::filter::Filter;
use cairn_engine::query::With;
use cairn_engine::schema::EmbedderFingerprint;
use cairn_engine::types::{Payload, Point, PointId, SparseVector, SparseVectors};
use cairn_engine::{Error, Result};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::collections::EmbedderBody;
use super::damage::PartialOut;
use super::filter::{FilterBody, filter_in};
use super::{DurabilityBody, Id, after_in, ids_in, sizes};
use crate::service::{EmbedInput, GivenVectors, NewPoint, ScrollRequest};

/// Points to insert or replace, all or none.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::rest) struct UpsertBody {
    /// 1 to 10,000.
    points: Vec<PointBody>,
    /// Chosen by the client, at most 64 bytes, new for each request and the same for its retries: within 24 hours a retry is
    /// not done again and is answered what the first was answered. Another request with the same id is refused.
    pub(in crate::rest) request_id: Option<String>,
    /// When to answer. Default: the collection's.
    pub(in crate::rest) durability: Option<DurabilityBody>,
    /// The models that made the vectors given here, by vector name. Refused (`embedder_mismatch`) if the collection records
    /// another; what is left out of an embedder is not compared.
    embedders: Option<BTreeMap<String, EmbedderBody>>,
}

/// A point as it is written.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::rest) struct PointBody {
    /// Any UTF-8 string of 1 to 512 bytes, or an integer that means its digits.
    #[schema(value_type = String)]
    id: Id,
    /// The vector of a collection that has exactly one. Give this or `vectors`, not both.
    vector: Option<Vec<f32>>,
    /// Vectors by name. A point may lack some of the collection's.
    vectors: Option<BTreeMap<String, Vec<f32>>>,
    /// What the server embeds, by the name of a vector that has an embedder and is not given above.
    embed: Option<BTreeMap<String, EmbedInputBody>>,
    /// Sparse vectors by name. A point may lack some of the collection's.
    sparse: Option<BTreeMap<String, SparseVectorBody>>,
    /// At most 1 MiB and 32 levels deep.
    #[schema(value_type = Option<Object>)]
    payload: Option<Payload>,
    /// The document this point is a chunk of. Decides the shard.
    #[schema(value_type = Option<String>)]
    document: Option<Id>,
    /// Milliseconds since the Unix epoch after which the point is invisible.
    expires_at_ms: Option<u64>,
}

/// What an embedder makes a vector of: exactly one of these. References are passed to the embedding service as they are;
/// the server does not fetch them. Only models that say so take images or audio.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::rest) struct EmbedInputBody {
    /// At most 1 MiB.
    text: Option<String>,
    /// An http(s) URL or a data: URI, at most 8 MiB.
    image: Option<String>,
    /// An http(s) URL or a data: URI, at most 8 MiB.
    audio: Option<String>,
}

fn embed_in(embed: Option<BTreeMap<String, EmbedInputBody>>) -> Result<BTreeMap<String, EmbedInput>> {
    let one = |(name, body): (String, EmbedInputBody)| {
        let input = match (body.text, body.image, body.audio) {
            (Some(text), None, None) => EmbedInput::Text(text),
            (None, Some(image), None) => EmbedInput::Image(image),
            (None, None, Some(audio)) => EmbedInput::Audio(audio),
            _ => {
                let error = Error::invalid("bad_input", "give exactly one of text, image and audio");
                return Err(error.at(format!("/embed/{name}")));
            }
        };
        Ok((name, input))
    };
    embed.unwrap_or_default().into_iter().map(one).collect()
}

impl UpsertBody {
    pub(in crate::rest) fn made_by(&mut self) -> BTreeMap<String, EmbedderFingerprint> {
        let stated = self.embedders.take().unwrap_or_default().into_iter();
        stated.map(|(name, body)| (name, body.fingerprint())).collect()
    }

    pub(in crate::rest) fn points(self) -> Result<Vec<NewPoint>> {
        let point = |(i, body): (usize, PointBody)| body.point().map_err(|e| e.at(format!("/points/{i}")));
        self.points.into_iter().enumerate().map(point).collect()
    }
}

impl PointBody {
    fn point(self) -> Result<NewPoint> {
        let vectors = match (self.vector, self.vectors) {
            (Some(_), Some(_)) => {
                return Err(Error::invalid("bad_point", "give vector or vectors, not both").at("/vectors"));
            }
            (Some(vector), None) => GivenVectors::Only(vector),
            (None, vectors) => GivenVectors::Named(vectors.unwrap_or_default()),
        };
        let sparse = self.sparse.unwrap_or_default();
        Ok(NewPoint {
            id: self.id.check("/id")?,
            vectors,
            embed: embed_in(self.embed)?,
            sparse: sparse.into_iter().map(|(name, v)| (name, v.into())).collect(),
            payload: self.payload.unwrap_or_default(),
            document: self.document.map(|d| d.check("/document")).transpose()?,
            expires_at_ms: self.expires_at_ms,
        })
    }
}

/// Weights by term number, as SPLADE and its like make them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::rest) struct SparseVectorBody {
    /// Term numbers, strictly ascending, at most 4,096.
    indices: Vec<u32>,
    /// As many weights, finite and not 0.
    values: Vec<f32>,
}

impl From<SparseVectorBody> for SparseVector {
    fn from(body: SparseVectorBody) -> Self {
        Self {
            indices: body.indices,
            values: body.values,
        }
    }
}

/// Sparse vectors by name, if there are any.
pub(super) fn sparse_out(vectors: Option<SparseVectors>) -> Option<BTreeMap<String, SparseVectorBody>> {
    let body = |vector: SparseVector| SparseVectorBody {
        indices: vector.indices,
        values: vector.values,
    };
    let vectors = vectors.filter(|v| !v.is_empty())?;
    Some(vectors.into_iter().map(|(name, v)| (name, body(v))).collect())
}

/// What points carry in an answer besides their ids.
#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::rest) struct WithBody {
    /// Default: true.
    payload: Option<bool>,
    /// Default: false.
    #[serde(default)]
    vectors: bool,
    /// The plan of a query and its costs. Only for queries. Default: false.
    #[serde(default)]
    explain: bool,
}

pub(super) fn with_in(with: Option<WithBody>) -> With {
    let with = with.unwrap_or_default();
    With {
        payload: with.payload.unwrap_or(true),
        vectors: with.vectors,
        explain: with.explain,
    }
}

/// Points to get.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::rest) struct GetPointsBody {
    /// 1 to 10,000.
    #[schema(value_type = Vec<String>)]
    ids: Vec<Id>,
    with: Option<WithBody>,
    /// Answer without the points of damaged segments, and say so in `partial`. Otherwise such an answer is an error
    /// (`segment_damaged`). Default: false.
    #[serde(default)]
    pub(in crate::rest) allow_partial: bool,
}

impl GetPointsBody {
    pub(in crate::rest) fn ask(self) -> Result<(Vec<PointId>, With)> {
        Ok((ids_in(self.ids, "/ids")?, with_in(self.with)))
    }
}

/// A point as it is stored.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::rest) struct PointOut {
    id: String,
    /// Exactly the vectors that were written; only if asked for and there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    vectors: Option<BTreeMap<String, Vec<f32>>>,
    /// Exactly the sparse vectors that were written; only if vectors are asked for and there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    sparse: Option<BTreeMap<String, SparseVectorBody>>,
    /// Exactly the payload that was written; only if asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    payload: Option<Payload>,
    /// The document this point is a chunk of.
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<String>,
    /// Opaque token of the write that made this version.
    version: String,
}

impl From<Point> for PointOut {
    fn from(point: Point) -> Self {
        Self {
            id: point.id.as_str().to_owned(),
            vectors: point.vectors.filter(|v| !v.is_empty()),
            sparse: sparse_out(point.sparse),
            payload: point.payload,
            document: point.document.map(|d| d.as_str().to_owned()),
            version: point.version.to_string(),
        }
    }
}

/// Points, missing ones left out.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::rest) struct PointsOut {
    pub(in crate::rest) points: Vec<PointOut>,
    /// What is missing; absent if nothing is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::rest) partial: Option<PartialOut>,
}

/// Points to delete: by ids or by filter.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::rest) struct DeletePointsBody {
    /// At most 10,000; missing ones are ignored.
    #[schema(value_type = Option<Vec<String>>)]
    ids: Option<Vec<Id>>,
    /// Everything that matches. An empty filter is refused.
    filter: Option<FilterBody>,
    /// Chosen by the client, at most 64 bytes, new for each request and the same for its retries: within 24 hours a retry is
    /// not done again and is answered what the first was answered. Another request with the same id is refused.
    pub(in crate::rest) request_id: Option<String>,
    /// When to answer. Default: the collection's.
    pub(in crate::rest) durability: Option<DurabilityBody>,
}

impl DeletePointsBody {
    pub(in crate::rest) fn selector(self) -> Result<Selector> {
        match (self.ids, self.filter) {
            (Some(ids), None) => ids_in(ids, "/ids").map(Selector::Ids),
            (None, Some(filter)) => filter_in(Some(filter)).map(Selector::Matching),
            (Some(_), Some(_)) => Err(Error::invalid("bad_selector", "give ids or filter, not both").at("/filter")),
            (None, None) => Err(Error::invalid("bad_selector", "give ids or filter").at("/ids")),
        }
    }
}

/// A page of points to read.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::rest) struct ScrollBody {
    filter: Option<FilterBody>,
    /// Points in a page, 1 to 10,000. Default: 100.
    limit: Option<u32>,
    /// `cursor` of the page before.
    cursor: Option<String>,
    with: Option<WithBody>,
    /// Token of an earlier write that must be visible.
    after: Option<String>,
    /// Answer without the points of damaged segments, and say so in `partial`. Otherwise such an answer is an error
    /// (`segment_damaged`). Default: false.
    #[serde(default)]
    allow_partial: bool,
}

impl ScrollBody {
    pub(in crate::rest) fn request(self) -> Result<ScrollRequest> {
        Ok(ScrollRequest {
            filter: filter_in(self.filter)?,
            limit: sizes(self.limit),
            cursor: self.cursor,
            with: with_in(self.with),
            after: after_in(self.after)?,
            allow_partial: self.allow_partial,
        })
    }
}

/// A page of points.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::rest) struct PageOut {
    pub(in crate::rest) points: Vec<PointOut>,
    /// Give this back for the next page; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::rest) cursor: Option<String>,
    /// What is missing; absent if nothing is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::rest) partial: Option<PartialOut>,
}

/// What to count.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::rest) struct CountBody {
    filter: Option<FilterBody>,
    /// Count without the points of damaged segments, and say so in `partial`. Otherwise such an answer is an error
    /// (`segment_damaged`). Default: false.
    #[serde(default)]
    pub(in crate::rest) allow_partial: bool,
}

impl CountBody {
    pub(in crate::rest) fn filter(self) -> Result<Filter> {
        filter_in(self.filter)
    }
}

/// Live points that match.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::rest) struct CountOut {
    pub(in crate::rest) count: u64,
    /// What is missing; absent if nothing is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::rest) partial: Option<PartialOut>,
}

/// A change of payloads.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::rest) struct SetPayloadBody {
    /// 1 to 10,000; missing ones are ignored.
    #[schema(value_type = Vec<String>)]
    ids: Vec<Id>,
    /// Top-level keys to set.
    #[serde(default)]
    #[schema(value_type = Object)]
    set: Payload,
    /// Top-level keys to remove.
    #[serde(default)]
    unset: Vec<String>,
    /// Replace the whole payload by `set` instead of merging.
    #[serde(default)]
    replace: bool,
    /// Chosen by the client, at most 64 bytes, new for each request and the same for its retries: within 24 hours a retry is
    /// not done again and is answered what the first was answered. Another request with the same id is refused.
    pub(in crate::rest) request_id: Option<String>,
    /// When to answer. Default: the collection's.
    pub(in crate::rest) durability: Option<DurabilityBody>,
}

impl SetPayloadBody {
    pub(in crate::rest) fn change(self) -> Result<(Vec<PointId>, PayloadChange)> {
        let change = PayloadChange {
            set: self.set,
            unset: self.unset,
            replace: self.replace,
        };
        Ok((ids_in(self.ids, "/ids")?, change))
    }
}
