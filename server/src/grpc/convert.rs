//! Messages of `cairn.v1` to and from domain types: the only file that knows both.
//!
//! Inward conversions refuse what the messages allow and the domain does not, with a pointer that uses the messages' field
//! names. Ranges and counts are not checked here: the service and the engine do that for every adapter alike.

use std::collections::BTreeMap;

use cairn_engine::engine::{CollectionInfo, DocumentInfo, PayloadChange, Selector};
use cairn_engine::filter::{Condition, Filter, Range, Scalar};
use cairn_engine::op::Applied;
use cairn_engine::query::{Explain, Fuse, Hit, Params, With};
use cairn_engine::schema::{
    AnalyzerSpec, Chunking, EmbedderFingerprint, FieldSpec, IndexSpec, Metric, Schema, VectorSpec,
};
use cairn_engine::types::{Payload, Point, PointId, Token};
use cairn_engine::{Error, Result, limits};
use cairn_proto::v1 as pb;
use serde_json::{Number, Value};

use crate::rag::chunk::TextFormat;
use crate::rag::render::{self, PromptFormat, Role};
use crate::service::{
    Answer, Ask, AskLeg, AskSource, DocumentText, Enrich, Enriched, GivenVectors, Mode, NearestTo, NewPoint, Operation,
    OperationState, PutAll, PutOne, ScrollRequest, empty_schema, parse_field,
};

// ---- values, payloads, ids, vectors ----

fn value_in(value: pb::Value, depth: usize) -> Result<Value> {
    use pb::value::Kind;
    if depth > limits::PAYLOAD_DEPTH_MAX {
        return Err(Error::invalid(
            "payload_too_deep",
            format!("a payload may nest {} levels", limits::PAYLOAD_DEPTH_MAX),
        ));
    }
    Ok(match value.kind {
        None | Some(Kind::Null(_)) => Value::Null,
        Some(Kind::Bool(b)) => b.into(),
        Some(Kind::Int(i)) => i.into(),
        Some(Kind::Uint(u)) => u.into(),
        Some(Kind::Double(d)) => Value::Number(Number::from_f64(d).ok_or_else(|| {
            Error::invalid(
                "not_finite",
                format!("a payload is JSON and must hold finite numbers, got {d}"),
            )
        })?),
        Some(Kind::String(s)) => s.into(),
        Some(Kind::List(list)) => Value::Array(
            list.values
                .into_iter()
                .map(|v| value_in(v, depth + 1))
                .collect::<Result<_>>()?,
        ),
        Some(Kind::Struct(object)) => Value::Object(object_in(object, depth + 1)?),
    })
}

fn object_in(object: pb::Struct, depth: usize) -> Result<Payload> {
    let field = |(key, value)| match value_in(value, depth) {
        Ok(value) => Ok((key, value)),
        Err(e) => Err(e.at(format!("/{key}"))),
    };
    object.fields.into_iter().map(field).collect()
}

fn payload_in(payload: Option<pb::Struct>) -> Result<Payload> {
    payload.map_or_else(|| Ok(Payload::new()), |object| object_in(object, 1))
}

fn value_out(value: Value) -> pb::Value {
    use pb::value::Kind;
    let kind = match value {
        Value::Null => Kind::Null(true),
        Value::Bool(b) => Kind::Bool(b),
        Value::Number(n) => match (n.as_i64(), n.as_u64()) {
            (Some(i), _) => Kind::Int(i),
            (None, Some(u)) => Kind::Uint(u),
            (None, None) => Kind::Double(n.as_f64().unwrap_or_default()),
        },
        Value::String(s) => Kind::String(s),
        Value::Array(values) => Kind::List(pb::List {
            values: values.into_iter().map(value_out).collect(),
        }),
        Value::Object(object) => Kind::Struct(object_out(object)),
    };
    pb::Value { kind: Some(kind) }
}

fn object_out(object: Payload) -> pb::Struct {
    pb::Struct {
        fields: object.into_iter().map(|(key, value)| (key, value_out(value))).collect(),
    }
}

fn id_in(id: String, pointer: &str) -> Result<PointId> {
    PointId::new(id).map_err(|e| e.at(pointer))
}

pub(super) fn ids_in(ids: Vec<String>) -> Result<Vec<PointId>> {
    ids.into_iter()
        .enumerate()
        .map(|(i, id)| PointId::new(id).map_err(|e| e.at(format!("/ids/{i}"))))
        .collect()
}

pub(super) fn document_id_in(id: String) -> Result<PointId> {
    id_in(id, "/id")
}

/// An absent text and an empty one are the same in these messages.
pub(super) fn text_in(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

pub(super) fn token_in(token: Option<String>, pointer: &str) -> Result<Option<Token>> {
    token
        .filter(|t| !t.is_empty())
        .map(|t| t.parse::<Token>().map_err(|e| e.at(pointer)))
        .transpose()
}

fn size_in(n: u32) -> usize {
    n as usize
}

fn count_out(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

pub(super) fn with_in(with: Option<pb::With>) -> With {
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
        payload: payload_in(point.payload).map_err(|e| e.at("/payload"))?,
        document: text_in(point.document).map(|d| id_in(d, "/document")).transpose()?,
        expires_at_ms: point.expires_at_ms,
    })
}

pub(super) fn points_in(points: Vec<pb::PointInput>) -> Result<Vec<NewPoint>> {
    let point = |(i, point)| point_in(point).map_err(|e| e.at(format!("/points/{i}")));
    points.into_iter().enumerate().map(point).collect()
}

pub(super) fn point_out(point: Point) -> pb::Point {
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
        ..Default::default()
    }
}

pub(super) fn applied_out(applied: &Applied) -> pb::WriteResponse {
    pb::WriteResponse {
        token: applied.token.to_string(),
        changed: applied.changed,
    }
}

// ---- filters ----

pub(super) fn filter_in(filter: Option<pb::Filter>) -> Result<Filter> {
    filter
        .map_or_else(|| Ok(Filter::default()), |f| filter_at(f, 1))
        .map_err(|e| e.at("/filter"))
}

fn filter_at(filter: pb::Filter, depth: usize) -> Result<Filter> {
    if depth > limits::FILTER_DEPTH_MAX {
        return Err(Error::invalid(
            "filter_too_deep",
            format!("a filter may nest {} levels", limits::FILTER_DEPTH_MAX),
        ));
    }
    let part = |name: &str, conditions: Vec<pb::Condition>| -> Result<Vec<Condition>> {
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

fn condition_in(condition: pb::Condition, depth: usize) -> Result<Condition> {
    use pb::condition::Test;
    let field = condition.field;
    let on_field = |field: String| match field.is_empty() {
        true => Err(Error::invalid("bad_filter", "this condition needs a field").at("/field")),
        false => Ok(field),
    };
    let no_field = |field: &str| match field.is_empty() {
        true => Ok(()),
        false => Err(Error::invalid("bad_filter", "this condition takes no field").at("/field")),
    };
    let ids = |ids: pb::Ids| ids_in(ids.ids);
    match condition.test {
        None => Err(Error::invalid(
            "bad_filter",
            "a condition holds one of match, any, except, range, is_empty, has_id, has_document, nested",
        )),
        Some(Test::Match(value)) => Ok(Condition::Any {
            field: on_field(field)?,
            values: vec![scalar_in(value, "/match")?],
        }),
        Some(Test::Any(values)) => Ok(Condition::Any {
            field: on_field(field)?,
            values: scalars_in(values, "/any")?,
        }),
        Some(Test::Except(values)) => Ok(Condition::Except {
            field: on_field(field)?,
            values: scalars_in(values, "/except")?,
        }),
        Some(Test::Range(r)) => {
            let range = Range {
                gt: r.gt,
                gte: r.gte,
                lt: r.lt,
                lte: r.lte,
            };
            Ok(Condition::Range {
                field: on_field(field)?,
                range,
            })
        }
        Some(Test::IsEmpty(true)) => Ok(Condition::IsEmpty {
            field: on_field(field)?,
        }),
        Some(Test::IsEmpty(false)) => {
            let empty = Condition::IsEmpty {
                field: on_field(field)?,
            };
            Ok(Condition::Nested(Box::new(Filter {
                must_not: vec![empty],
                ..Filter::default()
            })))
        }
        Some(Test::HasId(list)) => {
            no_field(&field)?;
            Ok(Condition::HasId {
                ids: ids(list).map_err(|e| e.at("/has_id"))?,
            })
        }
        Some(Test::HasDocument(list)) => {
            no_field(&field)?;
            Ok(Condition::HasDocument {
                ids: ids(list).map_err(|e| e.at("/has_document"))?,
            })
        }
        Some(Test::Nested(filter)) => {
            no_field(&field)?;
            Ok(Condition::Nested(Box::new(
                filter_at(filter, depth + 1).map_err(|e| e.at("/nested"))?,
            )))
        }
    }
}

fn scalar_in(scalar: pb::Scalar, pointer: &str) -> Result<Scalar> {
    use pb::scalar::Value;
    match scalar.value {
        Some(Value::String(s)) => Ok(Scalar::Str(s)),
        Some(Value::Int(i)) => Ok(Scalar::Int(i)),
        Some(Value::Double(d)) => Ok(Scalar::Float(d)),
        Some(Value::Bool(b)) => Ok(Scalar::Bool(b)),
        None => Err(Error::invalid("bad_filter", "a value is a string, int, double or bool").at(pointer)),
    }
}

fn scalars_in(scalars: pb::Scalars, pointer: &str) -> Result<Vec<Scalar>> {
    scalars
        .values
        .into_iter()
        .enumerate()
        .map(|(i, s)| scalar_in(s, &format!("{pointer}/{i}")))
        .collect()
}

// ---- collections ----

pub(super) fn schema_in(schema: Option<pb::Schema>) -> Result<Schema> {
    let Some(schema) = schema else {
        return Ok(empty_schema());
    };
    let vector = |(name, v)| match vector_spec_in(v) {
        Ok(spec) => Ok((name, spec)),
        Err(e) => Err(e.at(format!("/schema/vectors/{name}"))),
    };
    let field = |(path, f)| match field_spec_in(f) {
        Ok(spec) => Ok((path, spec)),
        Err(e) => Err(e.at(format!("/schema/fields/{path}"))),
    };
    let defaults = Chunking::default();
    let chunking = schema.chunking.unwrap_or_default();
    Ok(Schema {
        vectors: schema
            .vectors
            .into_iter()
            .map(vector)
            .collect::<Result<BTreeMap<_, _>>>()?,
        fields: schema
            .fields
            .into_iter()
            .map(field)
            .collect::<Result<BTreeMap<_, _>>>()?,
        dynamic: schema.dynamic.unwrap_or(true),
        shards: schema.shards.unwrap_or(1),
        chunking: Chunking {
            max_tokens: chunking.max_tokens.unwrap_or(defaults.max_tokens),
            overlap_tokens: chunking.overlap_tokens.unwrap_or(defaults.overlap_tokens),
        },
    })
}

fn vector_spec_in(spec: pb::VectorSpec) -> Result<VectorSpec> {
    use pb::vector_spec::Index;
    let metric = match pb::Metric::try_from(spec.metric) {
        Ok(pb::Metric::Unspecified | pb::Metric::Cosine) => Metric::Cosine,
        Ok(pb::Metric::Dot) => Metric::Dot,
        Ok(pb::Metric::Euclid) => Metric::Euclid,
        Ok(pb::Metric::Manhattan) => Metric::Manhattan,
        Err(_) => {
            return Err(Error::invalid(
                "bad_metric",
                format!("metric must be one of Metric, got {}", spec.metric),
            )
            .at("/metric"));
        }
    };
    let index = match (spec.index, IndexSpec::default()) {
        (None, default) => default,
        (Some(Index::Flat(_)), _) => IndexSpec::Flat {},
        (Some(Index::Hnsw(h)), IndexSpec::Hnsw { m, ef_construction }) => IndexSpec::Hnsw {
            m: h.m.unwrap_or(m),
            ef_construction: h.ef_construction.unwrap_or(ef_construction),
        },
        (Some(Index::Hnsw(_)), IndexSpec::Flat {}) => unreachable!("the default index is a graph"),
    };
    let embedder = spec.embedder.map(|e| EmbedderFingerprint {
        name: e.name,
        revision: e.revision,
        dim: e.dim,
        normalized: e.normalized,
        query_prefix: e.query_prefix,
        passage_prefix: e.passage_prefix,
    });
    Ok(VectorSpec {
        dim: spec.dim,
        metric,
        index,
        embedder,
    })
}

fn field_spec_in(spec: pb::FieldSpec) -> Result<FieldSpec> {
    use pb::field_spec::Type;
    Ok(match spec.r#type {
        Some(Type::Keyword(_)) => FieldSpec::Keyword {},
        Some(Type::Integer(_)) => FieldSpec::Integer {},
        Some(Type::Float(_)) => FieldSpec::Float {},
        Some(Type::Bool(_)) => FieldSpec::Bool {},
        Some(Type::Stored(_)) => FieldSpec::Stored {},
        Some(Type::Text(text)) => {
            let default = AnalyzerSpec::default();
            let analyzer = AnalyzerSpec {
                language: text.language.unwrap_or(default.language),
                version: text.version.unwrap_or(default.version),
            };
            FieldSpec::Text { analyzer }
        }
        None => {
            return Err(Error::invalid(
                "bad_field",
                "a field's type is one of keyword, integer, float, bool, text, stored",
            ));
        }
    })
}

fn schema_out(schema: Schema) -> pb::Schema {
    use pb::field_spec::Type;
    use pb::vector_spec::Index;
    let vector = |(name, v): (String, VectorSpec)| {
        let metric = match v.metric {
            Metric::Cosine => pb::Metric::Cosine,
            Metric::Dot => pb::Metric::Dot,
            Metric::Euclid => pb::Metric::Euclid,
            Metric::Manhattan => pb::Metric::Manhattan,
        };
        let index = match v.index {
            IndexSpec::Flat {} => Index::Flat(pb::FlatIndex {}),
            IndexSpec::Hnsw { m, ef_construction } => Index::Hnsw(pb::HnswIndex {
                m: Some(m),
                ef_construction: Some(ef_construction),
            }),
        };
        let embedder = v.embedder.map(|e| pb::Embedder {
            name: e.name,
            revision: e.revision,
            dim: e.dim,
            normalized: e.normalized,
            query_prefix: e.query_prefix,
            passage_prefix: e.passage_prefix,
        });
        (
            name,
            pb::VectorSpec {
                dim: v.dim,
                metric: metric.into(),
                index: Some(index),
                embedder,
            },
        )
    };
    let field = |(path, f): (String, FieldSpec)| {
        let r#type = match f {
            FieldSpec::Keyword {} => Type::Keyword(pb::KeywordField {}),
            FieldSpec::Integer {} => Type::Integer(pb::IntegerField {}),
            FieldSpec::Float {} => Type::Float(pb::FloatField {}),
            FieldSpec::Bool {} => Type::Bool(pb::BoolField {}),
            FieldSpec::Stored {} => Type::Stored(pb::StoredField {}),
            FieldSpec::Text { analyzer } => Type::Text(pb::TextField {
                language: Some(analyzer.language),
                version: Some(analyzer.version),
            }),
        };
        (path, pb::FieldSpec { r#type: Some(r#type) })
    };
    pb::Schema {
        vectors: schema.vectors.into_iter().map(vector).collect(),
        fields: schema.fields.into_iter().map(field).collect(),
        dynamic: Some(schema.dynamic),
        shards: Some(schema.shards),
        chunking: Some(pb::Chunking {
            max_tokens: Some(schema.chunking.max_tokens),
            overlap_tokens: Some(schema.chunking.overlap_tokens),
            ..Default::default()
        }),
        ..Default::default()
    }
}

pub(super) fn operation_out(o: Operation) -> pb::Operation {
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
        state: state.into(),
        progress: o.progress,
        message: o.message,
        started_at_ms: o.started_at_ms,
        ended_at_ms: o.ended_at_ms,
        error_code: o.error.as_ref().map(|e| e.code.to_owned()),
        error: o.error.map(|e| e.message),
    }
}

pub(super) fn collection_out(info: CollectionInfo) -> pb::Collection {
    pb::Collection {
        name: info.name,
        schema: Some(schema_out(info.schema)),
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

// ---- points ----

pub(super) fn selector_in(ids: Vec<String>, filter: Option<pb::Filter>) -> Result<Selector> {
    match filter {
        Some(_) if !ids.is_empty() => Err(Error::invalid("bad_selector", "give ids or filter, not both").at("/filter")),
        Some(filter) => filter_in(Some(filter)).map(Selector::Matching),
        None => ids_in(ids).map(Selector::Ids),
    }
}

pub(super) fn scroll_in(request: pb::ScrollRequest) -> Result<(String, ScrollRequest)> {
    let scroll = ScrollRequest {
        filter: filter_in(request.filter)?,
        limit: request.limit.map(size_in),
        cursor: request.cursor,
        with: with_in(request.with),
        after: token_in(request.after, "/after")?,
    };
    Ok((request.collection, scroll))
}

pub(super) fn payload_change_in(set: Option<pb::Struct>, unset: Vec<String>, replace: bool) -> Result<PayloadChange> {
    Ok(PayloadChange {
        set: payload_in(set).map_err(|e| e.at("/set"))?,
        unset,
        replace,
    })
}

// ---- queries ----

pub(super) fn ask_in(request: pb::QueryRequest) -> Result<(String, Ask)> {
    use pb::query_request::Source;
    let source = match request.source {
        Some(Source::Nearest(n)) => nearest_in(n)?,
        Some(Source::Text(t)) => text_source_in(t)?,
        Some(Source::Hybrid(h)) => hybrid_in(h)?,
        Some(Source::Prefetch(p)) => prefetch_in(p, 1)?,
        Some(Source::Sparse(_)) => return Err(not_built("/sparse")),
        None => return Err(no_source()),
    };
    let params = request.params.unwrap_or_default();
    let ask = Ask {
        source,
        filter: filter_in(request.filter)?,
        limit: request.limit.map(size_in),
        offset: size_in(request.offset),
        score_threshold: request.score_threshold,
        with: with_in(request.with),
        params: Params {
            ef: params.ef.map(size_in),
            exact: params.exact,
        },
        after: token_in(request.after, "/after")?,
    };
    Ok((request.collection, ask))
}

/// What the messages have a place for and this build does not do yet.
fn not_built(pointer: &str) -> Error {
    Error::invalid("not_built", "this version does not do that yet").at(pointer)
}

fn no_source() -> Error {
    Error::invalid("bad_query", "a query holds one of nearest, text, hybrid, prefetch")
}

fn nearest_in(nearest: pb::Nearest) -> Result<AskSource> {
    use pb::nearest::To;
    let to = match nearest.to {
        Some(To::Vector(v)) => NearestTo::Vector(v.values),
        Some(To::Text(t)) => NearestTo::Text(t),
        Some(To::Image(_)) => return Err(not_built("/nearest/image")),
        Some(To::Audio(_)) => return Err(not_built("/nearest/audio")),
        None => return Err(Error::invalid("bad_query", "nearest holds a vector or a text").at("/nearest")),
    };
    Ok(AskSource::Nearest {
        using: text_in(nearest.using),
        to,
    })
}

fn text_source_in(text: pb::Text) -> Result<AskSource> {
    let fields = text
        .fields
        .iter()
        .enumerate()
        .map(|(i, f)| parse_field(f).map_err(|e| e.at(format!("/text/fields/{i}"))));
    Ok(AskSource::Text {
        fields: fields.collect::<Result<_>>()?,
        query: text.query,
    })
}

fn hybrid_in(hybrid: pb::Hybrid) -> Result<AskSource> {
    let fields = hybrid
        .fields
        .iter()
        .enumerate()
        .map(|(i, f)| parse_field(f).map_err(|e| e.at(format!("/hybrid/fields/{i}"))));
    Ok(AskSource::Hybrid {
        fields: fields.collect::<Result<_>>()?,
        text: hybrid.text,
        using: text_in(hybrid.using),
    })
}

fn prefetch_in(prefetch: pb::Prefetch, depth: usize) -> Result<AskSource> {
    use pb::prefetch::Fuse as Wire;
    if depth > limits::QUERY_DEPTH_MAX {
        return Err(Error::invalid(
            "query_too_large",
            format!("a query may nest {} levels", limits::QUERY_DEPTH_MAX),
        ));
    }
    let leg = |(i, leg)| leg_in(leg, depth).map_err(|e: Error| e.at(format!("/prefetch/{i}")));
    let fuse = prefetch.fuse.map(|fuse| match fuse {
        Wire::Rrf(rrf) => Fuse::Rrf {
            k: rrf.k.unwrap_or(crate::rag::retrieval::DEFAULT_RRF_K),
            weights: rrf.weights,
        },
        Wire::Weighted(weighted) => Fuse::Weighted {
            weights: weighted.weights,
        },
    });
    Ok(AskSource::Prefetch {
        legs: prefetch.legs.into_iter().enumerate().map(leg).collect::<Result<_>>()?,
        fuse,
    })
}

fn leg_in(leg: pb::Leg, depth: usize) -> Result<AskLeg> {
    use pb::leg::Source;
    let source = match leg.source {
        Some(Source::Nearest(n)) => nearest_in(n)?,
        Some(Source::Text(t)) => text_source_in(t)?,
        Some(Source::Hybrid(h)) => hybrid_in(h)?,
        Some(Source::Prefetch(p)) => prefetch_in(p, depth + 1)?,
        Some(Source::Sparse(_)) => return Err(not_built("/sparse")),
        None => return Err(no_source()),
    };
    Ok(AskLeg {
        name: text_in(leg.name),
        source,
        filter: filter_in(leg.filter)?,
        limit: leg.limit.map(size_in),
    })
}

pub(super) fn answer_out(answer: Answer) -> pb::QueryResponse {
    pb::QueryResponse {
        hits: answer.result.hits.into_iter().map(hit_out).collect(),
        token: answer.result.seq.to_string(),
        explain: answer.result.explain.map(explain_out),
        took_ms: answer.took_ms,
        notes: answer.notes,
        ..Default::default()
    }
}

fn hit_out(hit: Hit) -> pb::Hit {
    let leg = |l: cairn_engine::query::LegScore| pb::LegScore {
        leg: l.leg,
        raw: l.raw,
        rank: l.rank,
    };
    pb::Hit {
        point: Some(point_out(hit.point)),
        score: hit.score,
        legs: hit.legs.into_iter().map(leg).collect(),
    }
}

fn explain_out(explain: Explain) -> pb::Explain {
    let leg = |l: cairn_engine::query::ExplainLeg| pb::ExplainLeg {
        leg: l.leg,
        shard: l.shard,
        segment: l.segment,
        strategy: l.strategy.to_owned(),
        matches: l.matches,
        evaluated: l.evaluated,
    };
    pb::Explain {
        legs: explain.legs.into_iter().map(leg).collect(),
    }
}

// ---- documents ----

pub(super) fn document_in(document: pb::DocumentInput) -> Result<DocumentText> {
    let format = match pb::DocumentFormat::try_from(document.format) {
        Ok(pb::DocumentFormat::Unspecified | pb::DocumentFormat::Plain) => TextFormat::Plain,
        Ok(pb::DocumentFormat::Markdown) => TextFormat::Markdown,
        Ok(pb::DocumentFormat::Html | pb::DocumentFormat::Pdf) => return Err(not_built("/format")),
        Err(_) => return Err(bad_enum("format", "DocumentFormat", document.format)),
    };
    Ok(DocumentText {
        id: document.id,
        text: document.text,
        format,
        title: text_in(document.title),
        source: document.source,
        metadata: payload_in(document.metadata).map_err(|e| e.at("/metadata"))?,
    })
}

pub(super) fn documents_in(documents: Vec<pb::DocumentInput>) -> Result<Vec<DocumentText>> {
    let one = |(i, d)| document_in(d).map_err(|e: Error| e.at(format!("/documents/{i}")));
    documents.into_iter().enumerate().map(one).collect()
}

pub(super) fn put_all_out(all: PutAll) -> pb::PutDocumentsResponse {
    pb::PutDocumentsResponse {
        token: all.token.map(|t| t.to_string()).unwrap_or_default(),
        results: all.results.into_iter().map(put_one_out).collect(),
    }
}

pub(super) fn put_one_out(one: PutOne) -> pb::PutDocumentResult {
    pb::PutDocumentResult {
        id: one.id.as_str().to_owned(),
        unchanged: one.unchanged,
        chunks: count_out(one.chunks),
        embedded: count_out(one.embedded),
        ..Default::default()
    }
}

pub(super) fn document_out(info: DocumentInfo) -> pb::Document {
    pb::Document {
        id: info.id.as_str().to_owned(),
        title: info.title,
        source: info.source,
        metadata: Some(object_out(info.metadata)),
        chunks: info.chunks,
        text_bytes: info.text_bytes,
        checksum: info.checksum.iter().map(|b| format!("{b:02x}")).collect(),
        version: info.version.to_string(),
    }
}

pub(super) fn page_limit_in(limit: Option<u32>) -> Option<usize> {
    limit.map(size_in)
}

pub(super) fn after_id_in(after: Option<String>) -> Result<Option<PointId>> {
    after.and_then(text_in).map(|id| id_in(id, "/after_id")).transpose()
}

pub(super) fn enrich_in(request: pb::EnrichRequest) -> Result<(String, Enrich)> {
    let format = match pb::EnrichFormat::try_from(request.format) {
        Ok(pb::EnrichFormat::Unspecified | pb::EnrichFormat::String) => PromptFormat::String,
        Ok(pb::EnrichFormat::Messages) => PromptFormat::Messages,
        Ok(pb::EnrichFormat::Anthropic) => return Err(not_built("/format")),
        Err(_) => return Err(bad_enum("format", "EnrichFormat", request.format)),
    };
    let mode = match pb::RetrievalMode::try_from(request.mode) {
        Ok(pb::RetrievalMode::Unspecified | pb::RetrievalMode::Hybrid) => Mode::Hybrid,
        Ok(pb::RetrievalMode::Dense) => Mode::Dense,
        Ok(pb::RetrievalMode::Bm25) => Mode::Bm25,
        Ok(pb::RetrievalMode::Sparse) => return Err(not_built("/mode")),
        Err(_) => return Err(bad_enum("mode", "RetrievalMode", request.mode)),
    };
    let enrich = Enrich {
        prompt: request.prompt,
        token_budget: request.token_budget.map(size_in),
        tokenizer: text_in(request.tokenizer),
        format,
        filter: filter_in(request.filter)?,
        limit: request.limit.map(size_in),
        max_chunks: request.max_chunks.map(size_in),
        max_per_document: request.max_per_document.map(size_in),
        score_threshold: request.score_threshold,
        mode,
        after: token_in(request.after, "/after")?,
    };
    Ok((request.collection, enrich))
}

fn bad_enum(field: &str, name: &str, got: i32) -> Error {
    Error::invalid("bad_request", format!("{field} must be one of {name}, got {got}")).at(format!("/{field}"))
}

pub(super) fn enriched_out(enriched: Enriched) -> pb::EnrichResponse {
    let (prompt, messages) = match enriched.prompt {
        render::Enriched::Prompt(prompt) => (Some(prompt), Vec::new()),
        render::Enriched::Messages(messages) => {
            let role = |role| match role {
                Role::System => "system".to_owned(),
                Role::User => "user".to_owned(),
            };
            (
                None,
                messages
                    .into_iter()
                    .map(|m| pb::ChatMessage {
                        role: role(m.role),
                        content: m.content,
                    })
                    .collect(),
            )
        }
    };
    let tokens = pb::TokenUse {
        prompt: count_out(enriched.tokens_prompt),
        context: count_out(enriched.packed.tokens_context),
        budget: count_out(enriched.token_budget),
    };
    let item = |b: crate::rag::pack::ContextBlock| pb::ContextItem {
        n: count_out(b.n),
        document: b.document,
        title: b.title.unwrap_or_default(),
        heading: b.heading,
        source: b.source.unwrap_or_default(),
        span: Some(pb::Span {
            start: b.span.0 as u64,
            end: b.span.1 as u64,
        }),
        text: b.text,
        score: b.score,
        scores: b.legs.into_iter().collect(),
        ids: b.chunk_ids,
        ..Default::default()
    };
    let dropped = |d: crate::rag::pack::Dropped| pb::Dropped {
        id: d.id,
        document: d.document,
        reason: d.reason.to_string(),
    };
    pb::EnrichResponse {
        prompt,
        messages,
        context: enriched.packed.context.into_iter().map(item).collect(),
        tokens: Some(tokens),
        dropped: enriched.packed.dropped.into_iter().map(dropped).collect(),
        retrieval_id: enriched.retrieval_id,
        took_ms: enriched.took_ms,
        notes: enriched.notes,
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn json_survives_the_wire_with_its_integers() {
        let payload = json!({
            "null": null, "bool": true, "int": 9_007_199_254_740_993_i64, "negative": -1, "uint": u64::MAX,
            "double": 0.1, "text": "größe", "list": [1, [2.5, {"a": []}]], "object": {"": {"x": 1}}
        });
        let payload = payload.as_object().unwrap().clone();
        assert_eq!(payload_in(Some(object_out(payload.clone()))).unwrap(), payload);
    }

    #[test]
    fn numbers_that_json_lacks_are_refused_with_their_place() {
        let nan = pb::Value {
            kind: Some(pb::value::Kind::Double(f64::NAN)),
        };
        let list = pb::Value {
            kind: Some(pb::value::Kind::List(pb::List { values: vec![nan] })),
        };
        let error = payload_in(Some(pb::Struct {
            fields: [("a".to_owned(), list)].into(),
        }))
        .unwrap_err();
        assert_eq!((error.code, error.pointer.as_deref()), ("not_finite", Some("/a")));
    }

    #[test]
    fn a_schema_survives_the_wire() {
        let schema: Schema = serde_json::from_value(json!({
            "vectors": {
                "a": {"dim": 3, "metric": "dot", "index": {"type": "flat"}},
                "b": {"dim": 4, "metric": "manhattan", "index": {"type": "hnsw", "m": 8, "ef_construction": 64},
                      "embedder": {"name": "x", "revision": "1", "dim": 4, "normalized": true}}
            },
            "fields": {
                "k": {"type": "keyword"}, "i": {"type": "integer"}, "f": {"type": "float"}, "b": {"type": "bool"},
                "s": {"type": "stored"}, "t": {"type": "text", "analyzer": {"language": "german", "version": 1}}
            },
            "dynamic": false, "shards": 3, "chunking": {"max_tokens": 99, "overlap_tokens": 9}
        }))
        .unwrap();
        assert_eq!(schema_in(Some(schema_out(schema.clone()))).unwrap(), schema);
        assert_eq!(
            schema_in(Some(pb::Schema::default())).unwrap(),
            schema_in(None).unwrap()
        );
    }

    #[test]
    fn conditions_say_where_they_are_wrong() {
        use pb::condition::Test;
        let filter = |condition: pb::Condition| {
            let nested = pb::Filter {
                should: vec![condition],
                ..pb::Filter::default()
            };
            let outer = pb::Condition {
                field: String::new(),
                test: Some(Test::Nested(nested)),
            };
            filter_in(Some(pb::Filter {
                must: vec![outer],
                ..pb::Filter::default()
            }))
        };
        let scalar = pb::Scalar {
            value: Some(pb::scalar::Value::Int(1)),
        };
        let cases = [
            (
                pb::Condition {
                    field: "a".into(),
                    test: None,
                },
                "",
            ),
            (
                pb::Condition {
                    field: String::new(),
                    test: Some(Test::Match(scalar.clone())),
                },
                "/field",
            ),
            (
                pb::Condition {
                    field: "a".into(),
                    test: Some(Test::HasId(pb::Ids::default())),
                },
                "/field",
            ),
            (
                pb::Condition {
                    field: "a".into(),
                    test: Some(Test::Match(pb::Scalar { value: None })),
                },
                "/match",
            ),
            (
                pb::Condition {
                    field: String::new(),
                    test: Some(Test::HasId(pb::Ids {
                        ids: vec![String::new()],
                    })),
                },
                "/has_id/ids/0",
            ),
        ];
        for (condition, at) in cases {
            let error = filter(condition).unwrap_err();
            assert_eq!(error.pointer.unwrap(), format!("/filter/must/0/nested/should/0{at}"));
        }
        let right = filter(pb::Condition {
            field: "a".into(),
            test: Some(Test::Match(scalar)),
        })
        .unwrap();
        let leaf = Condition::Any {
            field: "a".into(),
            values: vec![Scalar::Int(1)],
        };
        let inner = Filter {
            should: vec![leaf],
            ..Filter::default()
        };
        assert_eq!(right, Filter::must(Condition::Nested(Box::new(inner))));
    }

    #[test]
    fn nesting_is_bounded_before_anything_looks_at_it() {
        let mut filter = pb::Filter::default();
        for _ in 0..limits::FILTER_DEPTH_MAX {
            let nested = pb::Condition {
                field: String::new(),
                test: Some(pb::condition::Test::Nested(filter)),
            };
            filter = pb::Filter {
                must: vec![nested],
                ..pb::Filter::default()
            };
        }
        assert_eq!(filter_in(Some(filter)).unwrap_err().code, "filter_too_deep");
        let mut value = pb::Value::default();
        for _ in 0..=limits::PAYLOAD_DEPTH_MAX {
            value = pb::Value {
                kind: Some(pb::value::Kind::List(pb::List { values: vec![value] })),
            };
        }
        let payload = pb::Struct {
            fields: [("a".to_owned(), value)].into(),
        };
        assert_eq!(payload_in(Some(payload)).unwrap_err().code, "payload_too_deep");
    }
}
