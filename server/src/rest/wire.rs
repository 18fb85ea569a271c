//! The JSON of `/api/v1` to and from domain types: the only file that knows both.
//!
//! Field names, units and defaults are those of the gRPC messages. Requests refuse unknown fields. Shapes that are one of
//! several are structs of options here, not enums, so that an error can say which field is wrong.

use std::collections::BTreeMap;
use std::fmt;

use cairn_engine::engine::{CollectionInfo, DocumentInfo, PayloadChange, Selector};
use cairn_engine::filter::{Condition, Filter, Range, Scalar};
use cairn_engine::op::Applied;
use cairn_engine::query::{Fuse, Params, With};
use cairn_engine::schema::{
    AnalyzerSpec, Chunking, EmbedderFingerprint, FieldSpec, IndexSpec, Metric, Schema, VectorSpec,
};
use cairn_engine::types::{Payload, Point, PointId, Token};
use cairn_engine::{Error, Result, limits};
use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::Value;
use utoipa::ToSchema;

use crate::rag::chunk::TextFormat;
use crate::rag::render::{self, PromptFormat};
use crate::service::{
    Answer, Ask, AskLeg, AskSource, DocumentText, Enrich, Enriched, GivenVectors, Mode, NearestTo, NewPoint, Operation,
    OperationState, PutAll, ScrollRequest, empty_schema, parse_field,
};

// ---- ids, tokens ----

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

// ---- collections ----

/// A collection's definition. Without vectors and fields it is the documents preset: a vector `dense` of the built-in
/// embedder, full text over `text` and `title`, keywords `document` and `source`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SchemaBody {
    /// Dense vectors by name, at most 16.
    #[serde(default)]
    vectors: BTreeMap<String, VectorBody>,
    /// Declared payload fields by dotted path, at most 128.
    #[serde(default)]
    fields: BTreeMap<String, FieldBody>,
    /// Index every scalar of the payload that is not declared, so that it can be filtered. Default: true.
    dynamic: Option<bool>,
    /// 1 to 64. Default: 1.
    shards: Option<u32>,
    /// How documents are cut.
    chunking: Option<ChunkingBody>,
}

/// One named dense vector.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct VectorBody {
    /// 1 to 65,535.
    dim: u32,
    /// Default: cosine.
    #[serde(default)]
    metric: MetricBody,
    /// Index of sealed segments. Default: hnsw.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    index: Option<IndexBody>,
    /// The model whose vectors live here. Needed for text in `nearest` and for documents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    embedder: Option<EmbedderBody>,
}

/// How closeness is measured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum MetricBody {
    #[default]
    Cosine,
    Dot,
    Euclid,
    Manhattan,
}

/// Index of a sealed segment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct IndexBody {
    r#type: IndexKind,
    /// hnsw: links per node, 2 to 256. Default: 16.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    m: Option<u32>,
    /// hnsw: candidates kept while inserting, m to 4,096. Default: 128.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ef_construction: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum IndexKind {
    Flat,
    Hnsw,
}

/// Identity of the model that made a vector. The built-in one is `static-minilm-256`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct EmbedderBody {
    name: String,
    #[serde(default)]
    revision: String,
    dim: u32,
    #[serde(default)]
    normalized: bool,
    #[serde(default)]
    query_prefix: String,
    #[serde(default)]
    passage_prefix: String,
}

/// One declared payload field.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct FieldBody {
    r#type: FieldKind,
    /// Only for `text`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    analyzer: Option<AnalyzerBody>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum FieldKind {
    Keyword,
    Integer,
    Float,
    Bool,
    Text,
    Stored,
}

/// How text becomes terms.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AnalyzerBody {
    /// Language of stemmer and stop words, e.g. `english`, `german`, or `none`. Default: english.
    language: Option<String>,
    /// Version of the analysis rules. Default: the newest, which is then recorded.
    version: Option<u32>,
}

/// How documents are cut into chunks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ChunkingBody {
    /// Most word pieces in a chunk, 16 to 8,192. Default: 256.
    max_tokens: Option<u32>,
    /// Word pieces that a chunk repeats of the one before it, at most half of max_tokens. Default: 32.
    overlap_tokens: Option<u32>,
}

impl SchemaBody {
    pub(super) fn schema(self) -> Result<Schema> {
        let empty = empty_schema();
        let mut vectors = BTreeMap::new();
        for (name, body) in self.vectors {
            let spec = body.spec().map_err(|e| e.at(format!("/vectors/{name}")))?;
            vectors.insert(name, spec);
        }
        let mut fields = BTreeMap::new();
        for (path, body) in self.fields {
            let spec = body.spec().map_err(|e| e.at(format!("/fields/{path}")))?;
            fields.insert(path, spec);
        }
        let chunking = match self.chunking {
            None => empty.chunking,
            Some(c) => Chunking {
                max_tokens: c.max_tokens.unwrap_or(empty.chunking.max_tokens),
                overlap_tokens: c.overlap_tokens.unwrap_or(empty.chunking.overlap_tokens),
            },
        };
        Ok(Schema {
            vectors,
            fields,
            dynamic: self.dynamic.unwrap_or(empty.dynamic),
            shards: self.shards.unwrap_or(empty.shards),
            chunking,
        })
    }
}

impl VectorBody {
    fn spec(self) -> Result<VectorSpec> {
        let metric = match self.metric {
            MetricBody::Cosine => Metric::Cosine,
            MetricBody::Dot => Metric::Dot,
            MetricBody::Euclid => Metric::Euclid,
            MetricBody::Manhattan => Metric::Manhattan,
        };
        let index = match self.index {
            None => IndexSpec::default(),
            Some(IndexBody {
                r#type: IndexKind::Flat,
                m: None,
                ef_construction: None,
            }) => IndexSpec::Flat {},
            Some(IndexBody {
                r#type: IndexKind::Flat,
                ..
            }) => {
                return Err(
                    Error::invalid("bad_index", "m and ef_construction are settings of hnsw, not of flat").at("/index"),
                );
            }
            Some(IndexBody {
                r#type: IndexKind::Hnsw,
                m,
                ef_construction,
            }) => match IndexSpec::default() {
                IndexSpec::Hnsw {
                    m: m_default,
                    ef_construction: ef_default,
                } => IndexSpec::Hnsw {
                    m: m.unwrap_or(m_default),
                    ef_construction: ef_construction.unwrap_or(ef_default),
                },
                flat @ IndexSpec::Flat {} => flat,
            },
        };
        let embedder = self.embedder.map(|e| EmbedderFingerprint {
            name: e.name,
            revision: e.revision,
            dim: e.dim,
            normalized: e.normalized,
            query_prefix: e.query_prefix,
            passage_prefix: e.passage_prefix,
        });
        Ok(VectorSpec {
            dim: self.dim,
            metric,
            index,
            embedder,
        })
    }
}

impl FieldBody {
    fn spec(self) -> Result<FieldSpec> {
        if self.analyzer.is_some() && self.r#type != FieldKind::Text {
            return Err(Error::invalid("bad_field", "only a field of type text has an analyzer").at("/analyzer"));
        }
        Ok(match self.r#type {
            FieldKind::Keyword => FieldSpec::Keyword {},
            FieldKind::Integer => FieldSpec::Integer {},
            FieldKind::Float => FieldSpec::Float {},
            FieldKind::Bool => FieldSpec::Bool {},
            FieldKind::Stored => FieldSpec::Stored {},
            FieldKind::Text => {
                let mut analyzer = AnalyzerSpec::default();
                if let Some(body) = self.analyzer {
                    analyzer.language = body.language.unwrap_or(analyzer.language);
                    analyzer.version = body.version.unwrap_or(analyzer.version);
                }
                FieldSpec::Text { analyzer }
            }
        })
    }
}

/// A collection and its state.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CollectionOut {
    name: String,
    schema: SchemaBody,
    /// Live points.
    points: u64,
    documents: u64,
    /// Live points in sealed, indexed segments.
    indexed_points: u64,
    /// Sealed segments.
    segments: u64,
    /// Dead rows that no merge has dropped yet.
    dead_rows: u64,
    /// Bytes of sealed files.
    disk_bytes: u64,
    /// Bytes of growing segments in memory.
    growing_bytes: u64,
    /// A seal or merge is due or running.
    optimizing: bool,
}

impl From<CollectionInfo> for CollectionOut {
    fn from(info: CollectionInfo) -> Self {
        Self {
            name: info.name,
            schema: info.schema.into(),
            points: info.points,
            documents: info.documents,
            indexed_points: info.indexed_points,
            segments: info.segments,
            dead_rows: info.dead_rows,
            disk_bytes: info.disk_bytes,
            growing_bytes: info.growing_bytes,
            optimizing: info.optimizing,
        }
    }
}

// ---- operations ----

/// Work that outlives the request that asked for it.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct OperationOut {
    id: String,
    /// `optimize`.
    kind: &'static str,
    collection: String,
    state: OperationStateOut,
    /// 0 to 1.
    progress: f32,
    /// What it is at, for people.
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
pub(super) enum OperationStateOut {
    Running,
    Done,
    Failed,
    Cancelled,
}

#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct OperationsOut {
    pub(super) operations: Vec<OperationOut>,
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

// ---- schemas ----

impl From<Schema> for SchemaBody {
    fn from(schema: Schema) -> Self {
        let vector = |(name, v): (String, VectorSpec)| {
            let metric = match v.metric {
                Metric::Cosine => MetricBody::Cosine,
                Metric::Dot => MetricBody::Dot,
                Metric::Euclid => MetricBody::Euclid,
                Metric::Manhattan => MetricBody::Manhattan,
            };
            let index = match v.index {
                IndexSpec::Flat {} => IndexBody {
                    r#type: IndexKind::Flat,
                    m: None,
                    ef_construction: None,
                },
                IndexSpec::Hnsw { m, ef_construction } => IndexBody {
                    r#type: IndexKind::Hnsw,
                    m: Some(m),
                    ef_construction: Some(ef_construction),
                },
            };
            let embedder = v.embedder.map(|e| EmbedderBody {
                name: e.name,
                revision: e.revision,
                dim: e.dim,
                normalized: e.normalized,
                query_prefix: e.query_prefix,
                passage_prefix: e.passage_prefix,
            });
            (
                name,
                VectorBody {
                    dim: v.dim,
                    metric,
                    index: Some(index),
                    embedder,
                },
            )
        };
        let field = |(path, f): (String, FieldSpec)| {
            let plain = |r#type| FieldBody { r#type, analyzer: None };
            let body = match f {
                FieldSpec::Keyword {} => plain(FieldKind::Keyword),
                FieldSpec::Integer {} => plain(FieldKind::Integer),
                FieldSpec::Float {} => plain(FieldKind::Float),
                FieldSpec::Bool {} => plain(FieldKind::Bool),
                FieldSpec::Stored {} => plain(FieldKind::Stored),
                FieldSpec::Text { analyzer } => FieldBody {
                    r#type: FieldKind::Text,
                    analyzer: Some(AnalyzerBody {
                        language: Some(analyzer.language),
                        version: Some(analyzer.version),
                    }),
                },
            };
            (path, body)
        };
        Self {
            vectors: schema.vectors.into_iter().map(vector).collect(),
            fields: schema.fields.into_iter().map(field).collect(),
            dynamic: Some(schema.dynamic),
            shards: Some(schema.shards),
            chunking: Some(ChunkingBody {
                max_tokens: Some(schema.chunking.max_tokens),
                overlap_tokens: Some(schema.chunking.overlap_tokens),
            }),
        }
    }
}

/// Names of all collections.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CollectionsOut {
    pub(super) collections: Vec<String>,
}

/// What a write answers.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct WriteOut {
    /// Opaque place of this write. A read that gives it as `after` sees at least this write.
    token: String,
    /// Points inserted, replaced or deleted.
    changed: u64,
}

impl From<Applied> for WriteOut {
    fn from(applied: Applied) -> Self {
        Self {
            token: applied.token.to_string(),
            changed: applied.changed,
        }
    }
}

// ---- points ----

/// Points to insert or replace, all or none.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct UpsertBody {
    /// 1 to 10,000.
    points: Vec<PointBody>,
    /// Chosen by the client, at most 64 bytes; kept in the log.
    pub(super) request_id: Option<String>,
}

/// A point as it is written.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PointBody {
    /// Any UTF-8 string of 1 to 512 bytes, or an integer that means its digits.
    #[schema(value_type = String)]
    id: Id,
    /// The vector of a collection that has exactly one. Give this or `vectors`, not both.
    vector: Option<Vec<f32>>,
    /// Vectors by name. A point may lack some of the collection's.
    vectors: Option<BTreeMap<String, Vec<f32>>>,
    /// At most 1 MiB and 32 levels deep.
    #[schema(value_type = Option<Object>)]
    payload: Option<Payload>,
    /// The document this point is a chunk of. Decides the shard.
    #[schema(value_type = Option<String>)]
    document: Option<Id>,
    /// Milliseconds since the Unix epoch after which the point is invisible.
    expires_at_ms: Option<u64>,
}

impl UpsertBody {
    pub(super) fn points(self) -> Result<Vec<NewPoint>> {
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
        Ok(NewPoint {
            id: self.id.check("/id")?,
            vectors,
            payload: self.payload.unwrap_or_default(),
            document: self.document.map(|d| d.check("/document")).transpose()?,
            expires_at_ms: self.expires_at_ms,
        })
    }
}

/// What points carry in an answer besides their ids.
#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct WithBody {
    /// Default: true.
    payload: Option<bool>,
    /// Default: false.
    #[serde(default)]
    vectors: bool,
    /// The plan of a query and its costs. Only for queries. Default: false.
    #[serde(default)]
    explain: bool,
}

fn with_in(with: Option<WithBody>) -> With {
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
pub(super) struct GetPointsBody {
    /// 1 to 10,000.
    #[schema(value_type = Vec<String>)]
    ids: Vec<Id>,
    with: Option<WithBody>,
}

impl GetPointsBody {
    pub(super) fn ask(self) -> Result<(Vec<PointId>, With)> {
        Ok((ids_in(self.ids, "/ids")?, with_in(self.with)))
    }
}

/// A point as it is stored.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PointOut {
    id: String,
    /// Exactly the vectors that were written; only if asked for and there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    vectors: Option<BTreeMap<String, Vec<f32>>>,
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
            payload: point.payload,
            document: point.document.map(|d| d.as_str().to_owned()),
            version: point.version.to_string(),
        }
    }
}

/// Points, missing ones left out.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PointsOut {
    pub(super) points: Vec<PointOut>,
}

/// Points to delete: by ids or by filter.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DeletePointsBody {
    /// At most 10,000; missing ones are ignored.
    #[schema(value_type = Option<Vec<String>>)]
    ids: Option<Vec<Id>>,
    /// Everything that matches. An empty filter is refused.
    filter: Option<FilterBody>,
    /// Chosen by the client, at most 64 bytes; kept in the log.
    pub(super) request_id: Option<String>,
}

impl DeletePointsBody {
    pub(super) fn selector(self) -> Result<Selector> {
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
pub(super) struct ScrollBody {
    filter: Option<FilterBody>,
    /// Points in a page, 1 to 10,000. Default: 100.
    limit: Option<u32>,
    /// `cursor` of the page before.
    cursor: Option<String>,
    with: Option<WithBody>,
    /// Token of an earlier write that must be visible.
    after: Option<String>,
}

impl ScrollBody {
    pub(super) fn request(self) -> Result<ScrollRequest> {
        Ok(ScrollRequest {
            filter: filter_in(self.filter)?,
            limit: sizes(self.limit),
            cursor: self.cursor,
            with: with_in(self.with),
            after: after_in(self.after)?,
        })
    }
}

/// A page of points.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PageOut {
    pub(super) points: Vec<PointOut>,
    /// Give this back for the next page; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cursor: Option<String>,
}

/// What to count.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CountBody {
    filter: Option<FilterBody>,
}

impl CountBody {
    pub(super) fn filter(self) -> Result<Filter> {
        filter_in(self.filter)
    }
}

/// Live points that match.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CountOut {
    pub(super) count: u64,
}

/// A change of payloads.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SetPayloadBody {
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
    /// Chosen by the client, at most 64 bytes; kept in the log.
    pub(super) request_id: Option<String>,
}

impl SetPayloadBody {
    pub(super) fn change(self) -> Result<(Vec<PointId>, PayloadChange)> {
        let change = PayloadChange {
            set: self.set,
            unset: self.unset,
            replace: self.replace,
        };
        Ok((ids_in(self.ids, "/ids")?, change))
    }
}

// ---- filters ----

/// A boolean tree. Empty means everything; all given parts must hold. At most 16 levels and 4,096 conditions and values.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct FilterBody {
    /// Every condition holds.
    #[serde(default)]
    must: Vec<ConditionBody>,
    /// At least `min_should` of these hold.
    #[serde(default)]
    should: Vec<ConditionBody>,
    /// None of these holds.
    #[serde(default)]
    must_not: Vec<ConditionBody>,
    /// 1 to the number of `should` conditions. Default: 1 if there are any.
    min_should: Option<u32>,
}

/// One test on `field` (`match`, `any`, `except`, `range`, `is_empty`), or `has_id`, or `has_document`, or a filter again.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ConditionBody {
    /// Dotted path into the payload. An array matches if one of its elements does.
    field: Option<String>,
    /// The field equals this string, number or boolean.
    #[schema(value_type = Option<Object>)]
    r#match: Option<Value>,
    /// The field equals one of these.
    #[schema(value_type = Option<Vec<Object>>)]
    any: Option<Vec<Value>>,
    /// The field has an element that is none of these.
    #[schema(value_type = Option<Vec<Object>>)]
    except: Option<Vec<Value>>,
    /// The field is a number in the range.
    range: Option<RangeBody>,
    /// True: the field is missing, null or an empty array. False: it is not.
    is_empty: Option<bool>,
    /// The point's id is one of these.
    #[schema(value_type = Option<Vec<String>>)]
    has_id: Option<Vec<Id>>,
    /// The point is a chunk of one of these documents.
    #[schema(value_type = Option<Vec<String>>)]
    has_document: Option<Vec<Id>>,
    /// A filter as a condition: every one holds.
    #[schema(no_recursion)]
    must: Option<Vec<ConditionBody>>,
    /// A filter as a condition: at least `min_should` of these hold.
    #[schema(no_recursion)]
    should: Option<Vec<ConditionBody>>,
    /// A filter as a condition: none of these holds.
    #[schema(no_recursion)]
    must_not: Option<Vec<ConditionBody>>,
    min_should: Option<u32>,
}

/// Numeric bounds; at least one must be given.
#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RangeBody {
    gt: Option<f64>,
    gte: Option<f64>,
    lt: Option<f64>,
    lte: Option<f64>,
}

fn filter_in(filter: Option<FilterBody>) -> Result<Filter> {
    filter
        .map_or_else(|| Ok(Filter::default()), |f| filter_at(f, 1))
        .map_err(|e| e.at("/filter"))
}

fn filter_at(filter: FilterBody, depth: usize) -> Result<Filter> {
    if depth > limits::FILTER_DEPTH_MAX {
        return Err(Error::invalid(
            "filter_too_deep",
            format!("a filter may nest {} levels", limits::FILTER_DEPTH_MAX),
        ));
    }
    let part = |name: &str, conditions: Vec<ConditionBody>| -> Result<Vec<Condition>> {
        let one = |(i, c)| condition_in(c, depth).map_err(|e: Error| e.at(format!("/{name}/{i}")));
        conditions.into_iter().enumerate().map(one).collect()
    };
    Ok(Filter {
        must: part("must", filter.must)?,
        should: part("should", filter.should)?,
        must_not: part("must_not", filter.must_not)?,
        min_should: filter.min_should,
    })
}

const CONDITION: &str = "a condition holds exactly one of match, any, except, range, is_empty (these with a field), has_id, \
                         has_document, or a nested filter (must, should, must_not)";

fn condition_in(c: ConditionBody, depth: usize) -> Result<Condition> {
    let nested = c.must.is_some() || c.should.is_some() || c.must_not.is_some() || c.min_should.is_some();
    let on_field = [
        c.r#match.is_some(),
        c.any.is_some(),
        c.except.is_some(),
        c.range.is_some(),
        c.is_empty.is_some(),
    ]
    .into_iter();
    let on_field = on_field.filter(|given| *given).count();
    let others = [c.has_id.is_some(), c.has_document.is_some(), nested]
        .into_iter()
        .filter(|given| *given)
        .count();
    if on_field + others != 1 {
        return Err(Error::invalid("bad_filter", CONDITION));
    }
    let field = match (c.field, on_field) {
        (Some(field), 1) => field,
        (None, 0) => String::new(),
        (Some(_), _) => return Err(Error::invalid("bad_filter", "this condition takes no field").at("/field")),
        (None, _) => return Err(Error::invalid("bad_filter", "this condition needs a field").at("/field")),
    };
    if let Some(value) = c.r#match {
        return Ok(Condition::Any {
            field,
            values: vec![scalar_in(value, "/match")?],
        });
    }
    if let Some(values) = c.any {
        return Ok(Condition::Any {
            field,
            values: scalars_in(values, "/any")?,
        });
    }
    if let Some(values) = c.except {
        return Ok(Condition::Except {
            field,
            values: scalars_in(values, "/except")?,
        });
    }
    if let Some(r) = c.range {
        return Ok(Condition::Range {
            field,
            range: Range {
                gt: r.gt,
                gte: r.gte,
                lt: r.lt,
                lte: r.lte,
            },
        });
    }
    if let Some(empty) = c.is_empty {
        let is_empty = Condition::IsEmpty { field };
        if empty {
            return Ok(is_empty);
        }
        return Ok(Condition::Nested(Box::new(Filter {
            must_not: vec![is_empty],
            ..Filter::default()
        })));
    }
    if let Some(ids) = c.has_id {
        return Ok(Condition::HasId {
            ids: ids_in(ids, "/has_id")?,
        });
    }
    if let Some(ids) = c.has_document {
        return Ok(Condition::HasDocument {
            ids: ids_in(ids, "/has_document")?,
        });
    }
    let filter = FilterBody {
        must: c.must.unwrap_or_default(),
        should: c.should.unwrap_or_default(),
        must_not: c.must_not.unwrap_or_default(),
        min_should: c.min_should,
    };
    Ok(Condition::Nested(Box::new(filter_at(filter, depth + 1)?)))
}

fn scalar_in(value: Value, pointer: &str) -> Result<Scalar> {
    match value {
        Value::String(s) => Ok(Scalar::Str(s)),
        Value::Bool(b) => Ok(Scalar::Bool(b)),
        Value::Number(n) => match (n.as_i64(), n.as_f64()) {
            (Some(i), _) => Ok(Scalar::Int(i)),
            (None, Some(f)) => Ok(Scalar::Float(f)),
            (None, None) => Err(Error::invalid("bad_filter", format!("the number {n} is out of range")).at(pointer)),
        },
        Value::Null | Value::Array(_) | Value::Object(_) => {
            Err(Error::invalid("bad_filter", "a value to match is a string, a number or a boolean").at(pointer))
        }
    }
}

fn scalars_in(values: Vec<Value>, pointer: &str) -> Result<Vec<Scalar>> {
    values
        .into_iter()
        .enumerate()
        .map(|(i, v)| scalar_in(v, &format!("{pointer}/{i}")))
        .collect()
}

// ---- queries ----

/// A query: exactly one of `nearest`, `text`, `hybrid`, `prefetch`.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct QueryBody {
    /// Nearest vectors.
    nearest: Option<NearestBody>,
    /// BM25.
    text: Option<TextBody>,
    /// The default hybrid.
    hybrid: Option<HybridBody>,
    /// Legs whose hits become one list. At most 4 levels and 16 legs in all.
    prefetch: Option<Vec<LegBody>>,
    /// How the legs of `prefetch` become one list. Default: rrf with its defaults.
    fuse: Option<FuseBody>,
    /// Which points may be answered, in every leg.
    filter: Option<FilterBody>,
    /// Hits wanted, at least 1; limit + offset at most 10,000. Default: 10.
    limit: Option<u32>,
    /// Hits skipped. Default: 0.
    #[serde(default)]
    offset: u32,
    with: Option<WithBody>,
    #[serde(default)]
    params: ParamsBody,
    /// 0 to 1; hits with a lower final score are dropped.
    score_threshold: Option<f32>,
    /// Token of an earlier write that must be visible.
    after: Option<String>,
}

/// Nearest to a vector or to a text.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NearestBody {
    vector: Option<Vec<f32>>,
    /// Embedded with the model that the vector's schema names.
    text: Option<String>,
    /// Vector name; may be left out if the collection has exactly one.
    using: Option<String>,
}

/// BM25 over text fields.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TextBody {
    /// At most 1 MiB.
    query: String,
    /// Text fields, each with an optional weight: `title^2`. Empty: all of the collection's, weight 1.
    #[serde(default)]
    fields: Vec<String>,
}

/// `nearest` text and BM25 with the same words, fused by the weighted mean of their normalised scores.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct HybridBody {
    text: String,
    /// Vector name; may be left out if the collection has exactly one.
    using: Option<String>,
    /// Text fields as in `text`; empty: the default ones.
    #[serde(default)]
    fields: Vec<String>,
}

/// One leg: exactly one of `nearest`, `text`, `hybrid`, `prefetch`.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LegBody {
    /// Name under which its scores are reported.
    name: Option<String>,
    nearest: Option<NearestBody>,
    text: Option<TextBody>,
    hybrid: Option<HybridBody>,
    #[schema(no_recursion)]
    prefetch: Option<Vec<LegBody>>,
    fuse: Option<FuseBody>,
    /// Restricts this leg further.
    filter: Option<FilterBody>,
    /// Candidates taken from this leg, 1 to 10,000. Default: 100.
    limit: Option<u32>,
}

/// Exactly one of `rrf`, `weighted`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct FuseBody {
    /// Reciprocal rank fusion: sum of weight / (k + rank), scaled to 0..1.
    rrf: Option<RrfBody>,
    /// Weighted mean of the legs' scores, each normalised over its candidates to 0..1.
    weighted: Option<WeightedBody>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RrfBody {
    /// At least 0. Default: 60.
    k: Option<f32>,
    /// One number a leg; empty: 1 each.
    #[serde(default)]
    weights: Vec<f32>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct WeightedBody {
    /// One number a leg; empty: 1 each.
    #[serde(default)]
    weights: Vec<f32>,
}

/// Expert settings.
#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ParamsBody {
    /// Candidates kept by a graph search, 1 to 10,000. Default: 128, at least the hits wanted.
    ef: Option<u32>,
    /// Scan exactly, use no index. Default: false.
    #[serde(default)]
    exact: bool,
}

/// The four ways of saying where hits come from.
struct SourceBody {
    nearest: Option<NearestBody>,
    text: Option<TextBody>,
    hybrid: Option<HybridBody>,
    prefetch: Option<Vec<LegBody>>,
    fuse: Option<FuseBody>,
}

impl SourceBody {
    fn source(self, depth: usize) -> Result<AskSource> {
        let one_of = || {
            Error::invalid(
                "bad_query",
                "a query holds exactly one of nearest, text, hybrid, prefetch",
            )
        };
        if self.fuse.is_some() && self.prefetch.is_none() {
            return Err(
                Error::invalid("bad_query", "fuse joins the legs of a prefetch, and there is none").at("/fuse"),
            );
        }
        match (self.nearest, self.text, self.hybrid, self.prefetch) {
            (Some(nearest), None, None, None) => nearest.source().map_err(|e| e.at("/nearest")),
            (None, Some(text), None, None) => {
                let fields = fields_in(&text.fields).map_err(|e| e.at("/text"))?;
                Ok(AskSource::Text {
                    query: text.query,
                    fields,
                })
            }
            (None, None, Some(hybrid), None) => {
                let fields = fields_in(&hybrid.fields).map_err(|e| e.at("/hybrid"))?;
                Ok(AskSource::Hybrid {
                    text: hybrid.text,
                    using: hybrid.using,
                    fields,
                })
            }
            (None, None, None, Some(legs)) => {
                if depth > limits::QUERY_DEPTH_MAX {
                    let message = format!("a query may nest {} levels", limits::QUERY_DEPTH_MAX);
                    return Err(Error::invalid("query_too_large", message));
                }
                let leg = |(i, leg): (usize, LegBody)| leg.leg(depth).map_err(|e| e.at(format!("/prefetch/{i}")));
                let legs = legs.into_iter().enumerate().map(leg).collect::<Result<_>>()?;
                Ok(AskSource::Prefetch {
                    legs,
                    fuse: self.fuse.map(FuseBody::fuse).transpose()?,
                })
            }
            _ => Err(one_of()),
        }
    }
}

fn fields_in(fields: &[String]) -> Result<Vec<cairn_engine::query::TextField>> {
    fields
        .iter()
        .enumerate()
        .map(|(i, f)| parse_field(f).map_err(|e| e.at(format!("/fields/{i}"))))
        .collect()
}

impl NearestBody {
    fn source(self) -> Result<AskSource> {
        let to = match (self.vector, self.text) {
            (Some(vector), None) => NearestTo::Vector(vector),
            (None, Some(text)) => NearestTo::Text(text),
            _ => {
                return Err(Error::invalid(
                    "bad_query",
                    "nearest holds a vector or a text, and not both",
                ));
            }
        };
        Ok(AskSource::Nearest { using: self.using, to })
    }
}

impl LegBody {
    fn leg(self, depth: usize) -> Result<AskLeg> {
        let source = SourceBody {
            nearest: self.nearest,
            text: self.text,
            hybrid: self.hybrid,
            prefetch: self.prefetch,
            fuse: self.fuse,
        };
        Ok(AskLeg {
            name: self.name,
            source: source.source(depth + 1)?,
            filter: filter_in(self.filter)?,
            limit: sizes(self.limit),
        })
    }
}

impl FuseBody {
    fn fuse(self) -> Result<Fuse> {
        match (self.rrf, self.weighted) {
            (Some(rrf), None) => Ok(Fuse::Rrf {
                k: rrf.k.unwrap_or(crate::rag::retrieval::DEFAULT_RRF_K),
                weights: rrf.weights,
            }),
            (None, Some(weighted)) => Ok(Fuse::Weighted {
                weights: weighted.weights,
            }),
            _ => Err(Error::invalid("bad_query", "fuse holds exactly one of rrf, weighted").at("/fuse")),
        }
    }
}

impl QueryBody {
    pub(super) fn ask(self) -> Result<Ask> {
        let source = SourceBody {
            nearest: self.nearest,
            text: self.text,
            hybrid: self.hybrid,
            prefetch: self.prefetch,
            fuse: self.fuse,
        };
        Ok(Ask {
            source: source.source(1)?,
            filter: filter_in(self.filter)?,
            limit: sizes(self.limit),
            offset: self.offset as usize,
            score_threshold: self.score_threshold,
            with: with_in(self.with),
            params: Params {
                ef: sizes(self.params.ef),
                exact: self.params.exact,
            },
            after: after_in(self.after)?,
        })
    }
}

/// A query's answer.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct QueryOut {
    /// Best first; ties by id.
    hits: Vec<HitOut>,
    /// Token of the moment that was searched.
    token: String,
    /// If asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    explain: Option<Vec<ExplainOut>>,
    /// What the caller should know.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notes: Vec<String>,
    /// Time in the server, queueing included. Absent in a batch.
    #[serde(skip_serializing_if = "Option::is_none")]
    took_ms: Option<f64>,
}

/// A point that was found.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct HitOut {
    id: String,
    /// 0..1, higher is better.
    score: f32,
    /// What each leg that found the point thought of it.
    legs: Vec<LegScoreOut>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    payload: Option<Payload>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vectors: Option<BTreeMap<String, Vec<f32>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<String>,
    version: String,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct LegScoreOut {
    leg: String,
    /// Cosine, inner product, distance or BM25, as the metric defines it.
    raw: f32,
    /// Place in that leg, from 1.
    rank: u32,
}

/// What one leg did in one segment.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ExplainOut {
    leg: String,
    shard: u32,
    /// Absent for growing segments.
    #[serde(skip_serializing_if = "Option::is_none")]
    segment: Option<u64>,
    /// `exact`, `graph`, `graph+exact` or `postings`.
    strategy: &'static str,
    /// Points of the segment that live and match the filter.
    matches: u64,
    /// Distances or postings evaluated.
    evaluated: u64,
}

impl QueryOut {
    pub(super) fn alone(answer: Answer) -> Self {
        let took_ms = answer.took_ms;
        Self {
            took_ms: Some(took_ms),
            ..Self::in_batch(answer)
        }
    }

    pub(super) fn in_batch(answer: Answer) -> Self {
        let leg = |l: cairn_engine::query::LegScore| LegScoreOut {
            leg: l.leg,
            raw: l.raw,
            rank: l.rank,
        };
        let hit = |h: cairn_engine::query::Hit| HitOut {
            id: h.point.id.as_str().to_owned(),
            score: h.score,
            legs: h.legs.into_iter().map(leg).collect(),
            payload: h.point.payload,
            vectors: h.point.vectors.filter(|v| !v.is_empty()),
            document: h.point.document.map(|d| d.as_str().to_owned()),
            version: h.point.version.to_string(),
        };
        let explain = |l: cairn_engine::query::ExplainLeg| ExplainOut {
            leg: l.leg,
            shard: l.shard,
            segment: l.segment,
            strategy: l.strategy,
            matches: l.matches,
            evaluated: l.evaluated,
        };
        Self {
            hits: answer.result.hits.into_iter().map(hit).collect(),
            token: answer.result.seq.to_string(),
            explain: answer.result.explain.map(|e| e.legs.into_iter().map(explain).collect()),
            notes: answer.notes,
            took_ms: None,
        }
    }
}

/// Queries on one collection.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct QueryBatchBody {
    /// 1 to 1,000.
    queries: Vec<QueryBody>,
}

impl QueryBatchBody {
    pub(super) fn asks(self) -> Result<Vec<Ask>> {
        let ask = |(i, q): (usize, QueryBody)| q.ask().map_err(|e| e.at(format!("/queries/{i}")));
        self.queries.into_iter().enumerate().map(ask).collect()
    }
}

/// Answers in the order of the queries.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct QueryBatchOut {
    pub(super) results: Vec<QueryOut>,
    /// Time in the server, queueing included.
    pub(super) took_ms: f64,
}

// ---- documents ----

/// Documents to put. All are checked before the first is written; each is then an atomic write of its own.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PutDocumentsBody {
    /// 1 to 1,000.
    documents: Vec<DocumentBody>,
    /// Chosen by the client, at most 64 bytes; kept in the log.
    pub(super) request_id: Option<String>,
}

/// A document as it is put.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DocumentBody {
    /// Any UTF-8 string of 1 to 480 bytes. Its chunks are the points `<id>#0`, `<id>#1`, ...
    #[schema(value_type = String)]
    id: Id,
    text: String,
    /// Default: plain.
    #[serde(default)]
    format: FormatBody,
    /// Shown with citations. Default: the text's own title, else empty.
    title: Option<String>,
    /// Where it came from: a path or URL.
    #[serde(default)]
    source: String,
    /// Kept with the document and at the top level of every chunk's payload. The keys `text`, `title`, `heading`, `source`,
    /// `document`, `chunk` and `span` are reserved.
    #[serde(default)]
    #[schema(value_type = Object)]
    metadata: Payload,
}

/// How to read a text.
#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum FormatBody {
    #[default]
    Plain,
    Markdown,
}

impl PutDocumentsBody {
    pub(super) fn documents(self) -> Vec<DocumentText> {
        let one = |d: DocumentBody| DocumentText {
            id: d.id.0,
            text: d.text,
            format: match d.format {
                FormatBody::Plain => TextFormat::Plain,
                FormatBody::Markdown => TextFormat::Markdown,
            },
            title: d.title,
            source: d.source,
            metadata: d.metadata,
        };
        self.documents.into_iter().map(one).collect()
    }
}

/// What putting documents did.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PutDocumentsOut {
    /// One for each document, in order.
    results: Vec<PutDocumentOut>,
    /// Token of the last write; absent if nothing was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PutDocumentOut {
    id: String,
    /// The stored document was the same: nothing was written.
    unchanged: bool,
    /// Chunks it has now.
    chunks: usize,
    /// Chunks that had to be embedded.
    embedded: usize,
}

impl From<PutAll> for PutDocumentsOut {
    fn from(all: PutAll) -> Self {
        let one = |one: crate::service::PutOne| PutDocumentOut {
            id: one.id.as_str().to_owned(),
            unchanged: one.unchanged,
            chunks: one.chunks,
            embedded: one.embedded,
        };
        Self {
            results: all.results.into_iter().map(one).collect(),
            token: all.token.map(|t| t.to_string()),
        }
    }
}

/// A stored document.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DocumentOut {
    id: String,
    title: String,
    source: String,
    #[schema(value_type = Object)]
    metadata: Payload,
    /// Number of chunks.
    chunks: u64,
    /// Bytes of the text.
    text_bytes: u64,
    /// xxh3-128 of what decides whether the document changed, in hex.
    checksum: String,
    /// Opaque token of the write that made this version.
    version: String,
}

impl From<DocumentInfo> for DocumentOut {
    fn from(info: DocumentInfo) -> Self {
        Self {
            id: info.id.as_str().to_owned(),
            title: info.title,
            source: info.source,
            metadata: info.metadata,
            chunks: info.chunks,
            text_bytes: info.text_bytes,
            checksum: info.checksum.iter().map(|b| format!("{b:02x}")).collect(),
            version: info.version.to_string(),
        }
    }
}

/// A document, and its chunks if asked for.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DocumentViewOut {
    pub(super) document: DocumentOut,
    /// In order, with payload and without vectors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) chunks: Option<Vec<PointOut>>,
}

/// A page of documents.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DocumentsOut {
    pub(super) documents: Vec<DocumentOut>,
    /// Give this as `after_id` for the next page; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) next: Option<String>,
}

// ---- enrich ----

/// A prompt to enrich.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct EnrichBody {
    /// The user's words; 1 byte to 1 MiB.
    prompt: String,
    /// Most tokens of the context with its fences and citations, the prompt not counted. 1 to 1,000,000. Default: 2,000.
    token_budget: Option<u32>,
    /// Whose tokens. Default: o200k_base.
    tokenizer: Option<String>,
    /// What comes out: one text or chat messages. Default: string.
    #[serde(default)]
    format: EnrichFormatBody,
    filter: Option<FilterBody>,
    /// Candidates retrieved before packing, 1 to 1,000. Default: 50.
    limit: Option<u32>,
    /// Most chunks in the context. Default: as many as fit.
    max_chunks: Option<u32>,
    /// Most chunks of one document. Default: as many as fit.
    max_per_document: Option<u32>,
    /// 0 to 1; candidates with a lower score are not considered.
    score_threshold: Option<f32>,
    /// How candidates are found. Default: hybrid.
    #[serde(default)]
    mode: ModeBody,
    /// Token of an earlier write that must be visible.
    after: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum EnrichFormatBody {
    #[default]
    String,
    Messages,
}

#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum ModeBody {
    #[default]
    Hybrid,
    Dense,
    Bm25,
}

impl EnrichBody {
    pub(super) fn enrich(self) -> Result<Enrich> {
        Ok(Enrich {
            prompt: self.prompt,
            token_budget: sizes(self.token_budget),
            tokenizer: self.tokenizer,
            format: match self.format {
                EnrichFormatBody::String => PromptFormat::String,
                EnrichFormatBody::Messages => PromptFormat::Messages,
            },
            filter: filter_in(self.filter)?,
            limit: sizes(self.limit),
            max_chunks: sizes(self.max_chunks),
            max_per_document: sizes(self.max_per_document),
            score_threshold: self.score_threshold,
            mode: match self.mode {
                ModeBody::Hybrid => Mode::Hybrid,
                ModeBody::Dense => Mode::Dense,
                ModeBody::Bm25 => Mode::Bm25,
            },
            after: after_in(self.after)?,
        })
    }
}

/// An enriched prompt and its account: `prompt` or `messages`, as asked for.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct EnrichOut {
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    messages: Option<Vec<MessageOut>>,
    /// What was put in, in citation order.
    context: Vec<ContextOut>,
    tokens: TokensOut,
    /// Candidates that were left out, and why.
    dropped: Vec<DroppedOut>,
    /// Names this retrieval in logs.
    retrieval_id: String,
    /// Time in the server, queueing included.
    took_ms: f64,
    /// What the caller should know.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notes: Vec<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct MessageOut {
    /// `system` or `user`.
    role: &'static str,
    content: String,
}

/// A cited passage.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ContextOut {
    /// Citation number, from 1.
    n: usize,
    document: String,
    title: String,
    /// Heading path.
    heading: Vec<String>,
    /// Where the document came from.
    source: String,
    /// Bytes of the document's text, from and to.
    span: [usize; 2],
    text: String,
    /// 0..1, higher is better.
    score: f32,
    /// Raw scores by leg: `dense` (cosine), `bm25`.
    scores: BTreeMap<String, f32>,
    /// Points that make up this passage: neighbouring chunks are merged.
    ids: Vec<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TokensOut {
    /// Tokens of the prompt as given.
    prompt: usize,
    /// Tokens of the context with its fences and citations; never above the budget.
    context: usize,
    budget: usize,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DroppedOut {
    /// Point id.
    id: String,
    document: String,
    reason: String,
}

impl From<Enriched> for EnrichOut {
    fn from(enriched: Enriched) -> Self {
        let (prompt, messages) = match enriched.prompt {
            render::Enriched::Prompt(prompt) => (Some(prompt), None),
            render::Enriched::Messages(messages) => {
                let message = |m: render::Message| MessageOut {
                    role: match m.role {
                        render::Role::System => "system",
                        render::Role::User => "user",
                    },
                    content: m.content,
                };
                (None, Some(messages.into_iter().map(message).collect()))
            }
        };
        let context = |b: crate::rag::pack::ContextBlock| ContextOut {
            n: b.n,
            document: b.document,
            title: b.title.unwrap_or_default(),
            heading: b.heading,
            source: b.source.unwrap_or_default(),
            span: [b.span.0, b.span.1],
            text: b.text,
            score: b.score,
            scores: b.legs.into_iter().collect(),
            ids: b.chunk_ids,
        };
        let dropped = |d: crate::rag::pack::Dropped| DroppedOut {
            id: d.id,
            document: d.document,
            reason: d.reason.to_string(),
        };
        Self {
            prompt,
            messages,
            tokens: TokensOut {
                prompt: enriched.tokens_prompt,
                context: enriched.packed.tokens_context,
                budget: enriched.token_budget,
            },
            context: enriched.packed.context.into_iter().map(context).collect(),
            dropped: enriched.packed.dropped.into_iter().map(dropped).collect(),
            retrieval_id: enriched.retrieval_id,
            took_ms: enriched.took_ms,
            notes: enriched.notes,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn filter(value: Value) -> Result<Filter> {
        filter_in(Some(serde_json::from_value(value).unwrap()))
    }

    #[test]
    fn every_condition_has_its_json() {
        let text = |s: &str| Scalar::Str(s.into());
        let any = |field: &str, values| Condition::Any {
            field: field.into(),
            values,
        };
        let id = |s: &str| PointId::new(s).unwrap();
        let cases = [
            (json!({"field": "lang", "match": "en"}), any("lang", vec![text("en")])),
            (
                json!({"field": "n", "any": [1, 2.5, true]}),
                any("n", vec![Scalar::Int(1), Scalar::Float(2.5), Scalar::Bool(true)]),
            ),
            (
                json!({"field": "n", "except": ["a"]}),
                Condition::Except {
                    field: "n".into(),
                    values: vec![text("a")],
                },
            ),
            (
                json!({"field": "n", "range": {"gte": 1}}),
                Condition::Range {
                    field: "n".into(),
                    range: Range {
                        gte: Some(1.0),
                        ..Range::default()
                    },
                },
            ),
            (
                json!({"field": "x", "is_empty": true}),
                Condition::IsEmpty { field: "x".into() },
            ),
            (
                json!({"has_id": ["a", 1, -2]}),
                Condition::HasId {
                    ids: vec![id("a"), id("1"), id("-2")],
                },
            ),
            (
                json!({"has_document": ["d"]}),
                Condition::HasDocument { ids: vec![id("d")] },
            ),
            (
                json!({"should": [{"field": "a", "match": 1}], "min_should": 1}),
                Condition::Nested(Box::new(Filter {
                    should: vec![any("a", vec![Scalar::Int(1)])],
                    min_should: Some(1),
                    ..Filter::default()
                })),
            ),
        ];
        for (json, condition) in cases {
            assert_eq!(filter(json!({ "must": [json] })).unwrap(), Filter::must(condition));
        }
    }

    #[test]
    fn a_wrong_condition_says_where_and_what_is_allowed() {
        let cases = [
            (json!({}), ""),
            (json!({"field": "a"}), ""),
            (json!({"field": "a", "match": 1, "any": [1]}), ""),
            (json!({"match": 1}), "/field"),
            (json!({"field": "a", "has_id": ["b"]}), "/field"),
            (json!({"field": "a", "match": {"b": 1}}), "/match"),
            (json!({"field": "a", "any": [1, null]}), "/any/1"),
            (json!({"has_id": ["a", ""]}), "/has_id/1"),
        ];
        for (condition, at) in cases {
            let error = filter(json!({"must_not": [{"must": [condition]}]})).unwrap_err();
            assert_eq!(
                error.pointer.unwrap(),
                format!("/filter/must_not/0/must/0{at}"),
                "{}",
                error.message
            );
        }
    }

    #[test]
    fn a_filter_nests_as_deep_as_the_engine_allows_and_no_deeper() {
        let nested = |levels: usize| {
            let mut value = json!({"field": "a", "match": 1});
            for _ in 0..levels {
                value = json!({ "must": [value] });
            }
            filter(value)
        };
        assert!(nested(limits::FILTER_DEPTH_MAX).is_ok());
        assert_eq!(
            nested(limits::FILTER_DEPTH_MAX + 1).unwrap_err().code,
            "filter_too_deep"
        );
    }

    #[test]
    fn a_schema_survives_its_json() {
        let schema: Schema = serde_json::from_value(json!({
            "vectors": {"a": {"dim": 3, "metric": "euclid", "index": {"type": "flat"},
                              "embedder": {"name": "x", "dim": 3, "query_prefix": "q: "}},
                        "b": {"dim": 4}},
            "fields": {"k": {"type": "keyword"}, "t": {"type": "text", "analyzer": {"language": "none", "version": 1}}},
            "dynamic": false, "shards": 2, "chunking": {"max_tokens": 64, "overlap_tokens": 0}
        }))
        .unwrap();
        let json = serde_json::to_value(SchemaBody::from(schema.clone())).unwrap();
        let back: SchemaBody = serde_json::from_value(json).unwrap();
        assert_eq!(back.schema().unwrap(), schema);
        let empty: SchemaBody = serde_json::from_value(json!({})).unwrap();
        assert_eq!(empty.schema().unwrap(), empty_schema());
    }

    #[test]
    fn a_query_has_exactly_one_source() {
        let ask = |value: Value| serde_json::from_value::<QueryBody>(value).unwrap().ask();
        assert!(ask(json!({"nearest": {"text": "a"}})).is_ok());
        assert!(ask(json!({"hybrid": {"text": "a"}, "limit": 3})).is_ok());
        let legs = json!([{"nearest": {"vector": [1.0]}}, {"text": {"query": "a", "fields": ["title^2", "text"]}}]);
        let both = ask(json!({"prefetch": legs, "fuse": {"rrf": {"k": 60, "weights": [0.3, 1]}}})).unwrap();
        let AskSource::Prefetch { legs, fuse } = both.source else {
            panic!("a prefetch")
        };
        assert_eq!(
            (legs.len(), fuse),
            (
                2,
                Some(Fuse::Rrf {
                    k: 60.0,
                    weights: vec![0.3, 1.0]
                })
            )
        );
        let wrong = [
            (json!({}), None),
            (json!({"nearest": {"text": "a"}, "text": {"query": "a"}}), None),
            (json!({"nearest": {}}), Some("/nearest")),
            (json!({"nearest": {"text": "a"}, "fuse": {"rrf": {}}}), Some("/fuse")),
            (
                json!({"prefetch": [{"text": {"query": "a", "fields": ["t^x"]}}]}),
                Some("/prefetch/0/text/fields/0"),
            ),
            (
                json!({"prefetch": [{"text": {"query": "a"}}], "fuse": {}}),
                Some("/fuse"),
            ),
        ];
        for (value, pointer) in wrong {
            assert_eq!(ask(value).unwrap_err().pointer.as_deref(), pointer);
        }
    }
}
