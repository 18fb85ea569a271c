//! Our types to generated ones and back: the one place that knows the fields of both.
//!
//! Requests cannot fail to convert, but for JSON that the wire has no form for (a filter value that is an object). Answers
//! can: a server of another version may leave out what we need, and that is an error, never a default.

use cairn_proto::v1;
use serde_json::{Map, Number, Value};

use crate::documents::{
    ChatMessage, ContextItem, Document, Dropped, Enrich, EnrichFormat, Enriched, Format, Mode, Provenance, PutResult,
    StoredDocument, TokenUse, Trust, Turn,
};
use crate::error::{Error, ErrorKind, Result};
use crate::filter::{Condition, Filter};
use crate::operation::{Operation, OperationState};
use crate::points::{
    DamagedSegment, Durability, EmbedInput, Partial, Payload, Point, SparseVector, StoredPoint, Written,
};
use crate::query::{Answer, Explain, Fuse, Hit, Leg, LegScore, Query, Source};
use crate::ranking::{Ranking, Stage};
use crate::schema::{
    Analyzer, ChunkStrategy, Chunking, CollectionInfo, Embedder, Field, Index, Metric, Quantization, RecallEstimate,
    Schema, SparseSpec, VectorSpec,
};
use crate::snapshot::{Restorable, Snapshot, SnapshotCollection};

// --- JSON --------------------------------------------------------------------------------------------------------

fn value(json: Value) -> v1::Value {
    use v1::value::Kind;
    let kind = match json {
        Value::Null => Kind::Null(true),
        Value::Bool(b) => Kind::Bool(b),
        Value::Number(n) => match (n.as_i64(), n.as_u64()) {
            (Some(i), _) => Kind::Int(i),
            (None, Some(u)) => Kind::Uint(u),
            (None, None) => Kind::Double(n.as_f64().unwrap_or(f64::NAN)),
        },
        Value::String(s) => Kind::String(s),
        Value::Array(a) => Kind::List(v1::List {
            values: a.into_iter().map(value).collect(),
        }),
        Value::Object(o) => Kind::Struct(object(o)),
    };
    v1::Value { kind: Some(kind) }
}

pub(crate) fn object(json: Payload) -> v1::Struct {
    v1::Struct {
        fields: json.into_iter().map(|(k, v)| (k, value(v))).collect(),
    }
}

fn json(value: v1::Value) -> Result<Value> {
    use v1::value::Kind;
    Ok(match value.kind {
        Some(Kind::Null(_)) => Value::Null,
        Some(Kind::Bool(b)) => Value::Bool(b),
        Some(Kind::Int(i)) => Value::from(i),
        Some(Kind::Uint(u)) => Value::from(u),
        Some(Kind::Double(d)) => {
            Value::Number(Number::from_f64(d).ok_or_else(|| Error::bad_answer("a number in a payload is not finite"))?)
        }
        Some(Kind::String(s)) => Value::String(s),
        Some(Kind::List(l)) => Value::Array(l.values.into_iter().map(json).collect::<Result<_>>()?),
        Some(Kind::Struct(s)) => Value::Object(json_object(s)?),
        None => {
            return Err(Error::bad_answer(
                "a payload value of a kind that this client does not know",
            ));
        }
    })
}

fn json_object(object: v1::Struct) -> Result<Payload> {
    object.fields.into_iter().map(|(k, v)| Ok((k, json(v)?))).collect()
}

// --- filters -----------------------------------------------------------------------------------------------------

/// An empty filter is no filter.
pub(crate) fn given_filter(f: Filter) -> Result<Option<v1::Filter>> {
    if f.is_empty() && f.min_should.is_none() {
        Ok(None)
    } else {
        filter(f).map(Some)
    }
}

pub(crate) fn filter(filter: Filter) -> Result<v1::Filter> {
    let all = |conditions: Vec<Condition>| conditions.into_iter().map(condition).collect::<Result<Vec<_>>>();
    Ok(v1::Filter {
        must: all(filter.must)?,
        should: all(filter.should)?,
        must_not: all(filter.must_not)?,
        min_should: filter.min_should,
    })
}

fn condition(condition: Condition) -> Result<v1::Condition> {
    use v1::condition::Test;
    let (field, test) = match condition {
        Condition::Match { field, r#match } => (field, Test::Match(scalar(r#match)?)),
        Condition::Any { field, any } => (field, Test::Any(scalars(any)?)),
        Condition::Except { field, except } => (field, Test::Except(scalars(except)?)),
        Condition::Range { field, range } => {
            let range = v1::Range {
                gt: range.gt,
                gte: range.gte,
                lt: range.lt,
                lte: range.lte,
            };
            (field, Test::Range(range))
        }
        Condition::IsEmpty { field, is_empty } => (field, Test::IsEmpty(is_empty)),
        Condition::HasId { has_id } => (String::new(), Test::HasId(v1::Ids { ids: has_id })),
        Condition::HasDocument { has_document } => (String::new(), Test::HasDocument(v1::Ids { ids: has_document })),
        Condition::Nested(nested) => (String::new(), Test::Nested(filter(*nested)?)),
    };
    Ok(v1::Condition {
        field,
        test: Some(test),
    })
}

fn scalars(values: Vec<Value>) -> Result<v1::Scalars> {
    Ok(v1::Scalars {
        values: values.into_iter().map(scalar).collect::<Result<_>>()?,
    })
}

fn scalar(json: Value) -> Result<v1::Scalar> {
    use v1::scalar::Value as Scalar;
    let value = match json {
        Value::String(s) => Scalar::String(s),
        Value::Bool(b) => Scalar::Bool(b),
        Value::Number(n) => match n.as_i64() {
            Some(i) => Scalar::Int(i),
            None => Scalar::Double(n.as_f64().unwrap_or(f64::NAN)),
        },
        Value::Null | Value::Array(_) | Value::Object(_) => {
            return Err(Error::new(
                ErrorKind::Invalid,
                "bad_filter",
                format!("a field is compared with a string, a number or a boolean, got {json}"),
            ));
        }
    };
    Ok(v1::Scalar { value: Some(value) })
}

// --- collections -------------------------------------------------------------------------------------------------

impl From<Schema> for v1::Schema {
    fn from(schema: Schema) -> Self {
        Self {
            vectors: schema
                .vectors
                .into_iter()
                .map(|(name, spec)| (name, spec.into()))
                .collect(),
            sparse: schema
                .sparse
                .into_iter()
                .map(|(name, spec)| {
                    let embedder = spec.embedder.map(embedder);
                    (name, v1::SparseSpec { embedder })
                })
                .collect(),
            fields: schema
                .fields
                .into_iter()
                .map(|(path, field)| (path, field.into()))
                .collect(),
            dynamic: schema.dynamic,
            shards: schema.shards,
            chunking: schema.chunking.map(|c| v1::Chunking {
                max_tokens: c.max_tokens,
                overlap_tokens: c.overlap_tokens,
                strategy: match c.strategy {
                    None => v1::ChunkStrategy::Unspecified,
                    Some(ChunkStrategy::Structure) => v1::ChunkStrategy::Structure,
                    Some(ChunkStrategy::Sentence) => v1::ChunkStrategy::Sentence,
                    Some(ChunkStrategy::Fixed) => v1::ChunkStrategy::Fixed,
                }
                .into(),
            }),
            durability: durability(schema.durability).into(),
        }
    }
}

impl From<VectorSpec> for v1::VectorSpec {
    fn from(spec: VectorSpec) -> Self {
        let metric = match spec.metric {
            Metric::Cosine => v1::Metric::Cosine,
            Metric::Dot => v1::Metric::Dot,
            Metric::Euclid => v1::Metric::Euclid,
            Metric::Manhattan => v1::Metric::Manhattan,
            Metric::Hamming => v1::Metric::Hamming,
        };
        Self {
            dim: spec.dim,
            metric: metric.into(),
            quantization: match spec.quantization {
                None => v1::Quantization::Unspecified,
                Some(Quantization::None) => v1::Quantization::None,
                Some(Quantization::Int8) => v1::Quantization::Int8,
                Some(Quantization::Int4) => v1::Quantization::Int4,
            }
            .into(),
            index: spec.index.map(|index| match index {
                Index::Flat => v1::vector_spec::Index::Flat(v1::FlatIndex {}),
                Index::Hnsw { m, ef_construction } => {
                    v1::vector_spec::Index::Hnsw(v1::HnswIndex { m, ef_construction })
                }
                Index::Ivf { nlist } => v1::vector_spec::Index::Ivf(v1::IvfIndex { nlist }),
                Index::Faiss { factory } => v1::vector_spec::Index::Faiss(v1::FaissIndex { factory }),
            }),
            embedder: spec.embedder.map(embedder),
        }
    }
}

pub(crate) fn embedder(e: Embedder) -> v1::Embedder {
    v1::Embedder {
        name: e.name,
        revision: e.revision,
        dim: e.dim,
        normalized: e.normalized,
        query_prefix: e.query_prefix,
        passage_prefix: e.passage_prefix,
    }
}

impl From<Field> for v1::FieldSpec {
    fn from(field: Field) -> Self {
        use v1::field_spec::Type;
        let r#type = match field {
            Field::Keyword => Type::Keyword(v1::KeywordField {}),
            Field::Integer => Type::Integer(v1::IntegerField {}),
            Field::Float => Type::Float(v1::FloatField {}),
            Field::Bool => Type::Bool(v1::BoolField {}),
            Field::Text { analyzer } => Type::Text(v1::TextField {
                language: analyzer.language,
                version: analyzer.version,
            }),
            Field::Stored => Type::Stored(v1::StoredField {}),
        };
        Self { r#type: Some(r#type) }
    }
}

pub(crate) fn collection(c: v1::Collection) -> Result<CollectionInfo> {
    let schema = c
        .schema
        .ok_or_else(|| Error::bad_answer("a collection without its schema"))?;
    Ok(CollectionInfo {
        name: c.name,
        schema: read_schema(schema)?,
        points: c.points,
        documents: c.documents,
        indexed_points: c.indexed_points,
        segments: c.segments,
        dead_rows: c.dead_rows,
        disk_bytes: c.disk_bytes,
        growing_bytes: c.growing_bytes,
        optimizing: c.optimizing,
        notes: c.notes,
        damaged: c.damaged.into_iter().map(Into::into).collect(),
        recall_estimate: c.recall_estimate.map(|found| RecallEstimate {
            recall: found.recall,
            questions: found.questions,
        }),
    })
}

fn read_schema(schema: v1::Schema) -> Result<Schema> {
    Ok(Schema {
        vectors: schema
            .vectors
            .into_iter()
            .map(|(name, spec)| Ok((name, read_vector(spec)?)))
            .collect::<Result<_>>()?,
        sparse: schema
            .sparse
            .into_iter()
            .map(|(name, spec)| {
                let embedder = spec.embedder.map(read_embedder);
                (name, SparseSpec { embedder })
            })
            .collect(),
        fields: schema
            .fields
            .into_iter()
            .map(|(path, field)| Ok((path, read_field(field)?)))
            .collect::<Result<_>>()?,
        dynamic: schema.dynamic,
        shards: schema.shards,
        chunking: schema.chunking.map(read_chunking).transpose()?,
        durability: (schema.durability != 0).then(|| read_durability(schema.durability)),
    })
}

fn read_chunking(chunking: v1::Chunking) -> Result<Chunking> {
    let strategy = match v1::ChunkStrategy::try_from(chunking.strategy) {
        Ok(v1::ChunkStrategy::Unspecified) => None,
        Ok(v1::ChunkStrategy::Structure) => Some(ChunkStrategy::Structure),
        Ok(v1::ChunkStrategy::Sentence) => Some(ChunkStrategy::Sentence),
        Ok(v1::ChunkStrategy::Fixed) => Some(ChunkStrategy::Fixed),
        Err(_) => {
            return Err(Error::bad_answer(format!(
                "a chunk strategy that this client does not know: {}",
                chunking.strategy
            )));
        }
    };
    Ok(Chunking {
        max_tokens: chunking.max_tokens,
        overlap_tokens: chunking.overlap_tokens,
        strategy,
    })
}

fn read_vector(spec: v1::VectorSpec) -> Result<VectorSpec> {
    let metric = match v1::Metric::try_from(spec.metric) {
        Ok(v1::Metric::Unspecified | v1::Metric::Cosine) => Metric::Cosine,
        Ok(v1::Metric::Dot) => Metric::Dot,
        Ok(v1::Metric::Euclid) => Metric::Euclid,
        Ok(v1::Metric::Manhattan) => Metric::Manhattan,
        Ok(v1::Metric::Hamming) => Metric::Hamming,
        Err(_) => {
            return Err(Error::bad_answer(format!(
                "a metric that this client does not know: {}",
                spec.metric
            )));
        }
    };
    let quantization = match v1::Quantization::try_from(spec.quantization) {
        Ok(v1::Quantization::Unspecified) => None,
        Ok(v1::Quantization::None) => Some(Quantization::None),
        Ok(v1::Quantization::Int8) => Some(Quantization::Int8),
        Ok(v1::Quantization::Int4) => Some(Quantization::Int4),
        Err(_) => {
            return Err(Error::bad_answer(format!(
                "codes that this client does not know: {}",
                spec.quantization
            )));
        }
    };
    Ok(VectorSpec {
        dim: spec.dim,
        metric,
        quantization,
        index: spec.index.map(|index| match index {
            v1::vector_spec::Index::Flat(_) => Index::Flat,
            v1::vector_spec::Index::Hnsw(h) => Index::Hnsw {
                m: h.m,
                ef_construction: h.ef_construction,
            },
            v1::vector_spec::Index::Ivf(ivf) => Index::Ivf { nlist: ivf.nlist },
            v1::vector_spec::Index::Faiss(faiss) => Index::Faiss { factory: faiss.factory },
        }),
        embedder: spec.embedder.map(read_embedder),
    })
}

fn read_embedder(e: v1::Embedder) -> Embedder {
    Embedder {
        name: e.name,
        revision: e.revision,
        dim: e.dim,
        normalized: e.normalized,
        query_prefix: e.query_prefix,
        passage_prefix: e.passage_prefix,
    }
}

fn read_field(field: v1::FieldSpec) -> Result<Field> {
    use v1::field_spec::Type;
    Ok(match field.r#type {
        Some(Type::Keyword(_)) => Field::Keyword,
        Some(Type::Integer(_)) => Field::Integer,
        Some(Type::Float(_)) => Field::Float,
        Some(Type::Bool(_)) => Field::Bool,
        Some(Type::Text(t)) => Field::Text {
            analyzer: Analyzer {
                language: t.language,
                version: t.version,
            },
        },
        Some(Type::Stored(_)) => Field::Stored,
        None => return Err(Error::bad_answer("a field of a type that this client does not know")),
    })
}

// --- points ------------------------------------------------------------------------------------------------------

impl From<EmbedInput> for v1::EmbedInput {
    fn from(input: EmbedInput) -> Self {
        use v1::embed_input::Input;
        let input = match input {
            EmbedInput::Text(text) => Input::Text(text),
            EmbedInput::Image(reference) => Input::Image(reference),
            EmbedInput::Audio(reference) => Input::Audio(reference),
        };
        Self { input: Some(input) }
    }
}

impl From<Point> for v1::PointInput {
    fn from(point: Point) -> Self {
        Self {
            id: point.id,
            vector: point.vector.map(|values| v1::Vector { values }),
            vectors: point
                .vectors
                .into_iter()
                .map(|(name, values)| (name, v1::Vector { values }))
                .collect(),
            sparse: point.sparse.into_iter().map(|(name, v)| (name, sparse(v))).collect(),
            payload: (!point.payload.is_empty()).then(|| object(point.payload)),
            document: point.document.unwrap_or_default(),
            expires_at_ms: point.expires_at_ms,
            embed: point
                .embed
                .into_iter()
                .map(|(name, input)| (name, input.into()))
                .collect(),
        }
    }
}

fn sparse(vector: SparseVector) -> v1::SparseVector {
    v1::SparseVector {
        indices: vector.indices,
        values: vector.values,
    }
}

fn read_sparse(vector: v1::SparseVector) -> SparseVector {
    SparseVector {
        indices: vector.indices,
        values: vector.values,
    }
}

pub(crate) fn point(point: v1::Point) -> Result<StoredPoint> {
    Ok(StoredPoint {
        id: point.id,
        vectors: (!point.vectors.is_empty()).then(|| {
            point
                .vectors
                .into_iter()
                .map(|(name, vector)| (name, vector.values))
                .collect()
        }),
        sparse: (!point.sparse.is_empty()).then(|| {
            let vectors = point.sparse.into_iter();
            vectors.map(|(name, v)| (name, read_sparse(v))).collect()
        }),
        payload: point.payload.map(json_object).transpose()?,
        document: point.document,
        version: point.version,
    })
}

impl From<v1::WriteResponse> for Written {
    fn from(answer: v1::WriteResponse) -> Self {
        Self {
            token: answer.token,
            changed: answer.changed,
            durability: read_durability(answer.durability),
            replayed: answer.replayed,
        }
    }
}

pub(crate) fn durability(durability: Option<Durability>) -> v1::Durability {
    match durability {
        None => v1::Durability::Unspecified,
        Some(Durability::Sync) => v1::Durability::Sync,
        Some(Durability::Async) => v1::Durability::Async,
    }
}

/// Nothing said means nothing written, which nothing can lose.
pub(crate) fn read_durability(durability: i32) -> Durability {
    match v1::Durability::try_from(durability) {
        Ok(v1::Durability::Async) => Durability::Async,
        Ok(v1::Durability::Unspecified | v1::Durability::Sync) | Err(_) => Durability::Sync,
    }
}

// --- operations --------------------------------------------------------------------------------------------------

pub(crate) fn operation(o: v1::Operation) -> Result<Operation> {
    let state = match v1::OperationState::try_from(o.state) {
        Ok(v1::OperationState::Running) => OperationState::Running,
        Ok(v1::OperationState::Done) => OperationState::Done,
        Ok(v1::OperationState::Failed) => OperationState::Failed,
        Ok(v1::OperationState::Cancelled) => OperationState::Cancelled,
        Ok(v1::OperationState::Unspecified) | Err(_) => {
            return Err(Error::bad_answer(
                "an operation in a state that this client does not know",
            ));
        }
    };
    Ok(Operation {
        id: o.id,
        kind: o.kind,
        collection: o.collection,
        snapshot: o.snapshot,
        state,
        progress: o.progress,
        message: o.message,
        started_at_ms: o.started_at_ms,
        ended_at_ms: o.ended_at_ms,
        error: o.error_code.map(|code| (code, o.error.unwrap_or_default())),
    })
}

// --- snapshots ---------------------------------------------------------------------------------------------------

pub(crate) fn snapshot(s: v1::Snapshot) -> Snapshot {
    let collections = s.collections.into_iter().map(|c| SnapshotCollection {
        collection: c.collection,
        points: c.points,
        documents: c.documents,
    });
    Snapshot {
        snapshot: s.snapshot,
        created_at_ms: s.created_at_ms,
        token: s.token,
        cairn: s.cairn,
        files: s.files,
        bytes: s.bytes,
        collections_total: s.collections_total,
        collections: collections.collect(),
        restorable: s.restorable.map(|range| Restorable {
            from_token: range.from_token,
            from_ms: range.from_ms,
            to_token: range.to_token,
            to_ms: range.to_ms,
        }),
        damaged: s.damaged,
    }
}

// --- queries -----------------------------------------------------------------------------------------------------

pub(crate) fn query(query: Query, collection: String) -> Result<v1::QueryRequest> {
    use v1::query_request::Source as Wire;
    let source = match query.source {
        Source::Nearest { .. } | Source::NearestEmbedded { .. } => Wire::Nearest(nearest(query.source)),
        Source::Sparse { vector, using, made_by } => Wire::Sparse(v1::Sparse {
            embedder: made_by.map(embedder),
            ..sparse_to(v1::sparse::To::Vector(sparse(vector)), using)
        }),
        Source::SparseText { text, using } => Wire::Sparse(sparse_to(v1::sparse::To::Text(text), using)),
        Source::Text { query, fields } => Wire::Text(v1::Text { query, fields }),
        Source::Hybrid { text, using, fields } => Wire::Hybrid(v1::Hybrid { text, using, fields }),
        Source::Fused { legs, fuse } => Wire::Prefetch(prefetch(legs, fuse)?),
    };
    Ok(v1::QueryRequest {
        collection,
        source: Some(source),
        filter: given_filter(query.filter)?,
        limit: query.limit,
        offset: query.offset,
        with: Some(v1::With {
            payload: Some(!query.without_payload),
            vectors: query.vectors,
            explain: query.explain,
        }),
        params: Some(v1::Params {
            ef: query.ef,
            nprobe: query.nprobe,
            target_recall: query.target_recall,
            exact: query.exact,
        }),
        score_threshold: query.score_threshold,
        after: query.after,
        ranking: ranking(query.ranking),
        allow_partial: query.allow_partial,
    })
}

fn ranking(ranking: Ranking) -> Option<v1::Ranking> {
    let given = ranking != Ranking::default();
    given.then(|| v1::Ranking {
        decay: ranking.decay.map(|d| v1::Decay {
            field: d.field,
            half_life_ms: d.half_life_ms,
            weight: d.weight,
            origin_ms: d.origin_ms,
        }),
        rerank: ranking.rerank.map(|r| v1::Rerank {
            model: r.model,
            query: r.query,
            top: r.top,
            budget_ms: r.budget_ms,
            field: r.field,
        }),
        near_duplicates: ranking
            .near_duplicates
            .map(|threshold| v1::NearDuplicates { threshold }),
        caps: ranking
            .caps
            .into_iter()
            .map(|(field, most)| v1::Cap { field, most })
            .collect(),
        mmr: ranking.mmr.map(|m| v1::Mmr {
            lambda: m.lambda,
            candidates: m.candidates,
            using: m.using,
        }),
    })
}

fn stage(s: v1::Stage) -> Stage {
    Stage {
        name: s.name,
        took_ms: s.took_ms,
        r#in: s.r#in,
        out: s.out,
        skipped: s.skipped,
    }
}

fn nearest(source: Source) -> v1::Nearest {
    use v1::nearest::To;
    let mut stated = None;
    let (to, using) = match source {
        Source::Nearest { vector, using, made_by } => {
            stated = made_by.map(embedder);
            (Some(To::Vector(v1::Vector { values: vector })), using)
        }
        Source::NearestEmbedded { input, using } => {
            let to = match input {
                EmbedInput::Text(text) => To::Text(text),
                EmbedInput::Image(reference) => To::Image(reference),
                EmbedInput::Audio(reference) => To::Audio(reference),
            };
            (Some(to), using)
        }
        Source::Sparse { .. }
        | Source::SparseText { .. }
        | Source::Text { .. }
        | Source::Hybrid { .. }
        | Source::Fused { .. } => (None, String::new()),
    };
    v1::Nearest {
        to,
        using,
        embedder: stated,
    }
}

fn sparse_to(to: v1::sparse::To, using: String) -> v1::Sparse {
    v1::Sparse {
        to: Some(to),
        using,
        embedder: None,
    }
}

fn prefetch(legs: Vec<Leg>, fuse: Fuse) -> Result<v1::Prefetch> {
    let fuse = match fuse {
        Fuse::Rrf { k, weights } => v1::prefetch::Fuse::Rrf(v1::Rrf { k, weights }),
        Fuse::Weighted { weights } => v1::prefetch::Fuse::Weighted(v1::Weighted { weights }),
    };
    Ok(v1::Prefetch {
        legs: legs.into_iter().map(leg).collect::<Result<_>>()?,
        fuse: Some(fuse),
    })
}

fn leg(leg: Leg) -> Result<v1::Leg> {
    use v1::leg::Source as Wire;
    let source = match leg.source {
        Source::Nearest { .. } | Source::NearestEmbedded { .. } => Wire::Nearest(nearest(leg.source)),
        Source::Sparse { vector, using, made_by } => Wire::Sparse(v1::Sparse {
            embedder: made_by.map(embedder),
            ..sparse_to(v1::sparse::To::Vector(sparse(vector)), using)
        }),
        Source::SparseText { text, using } => Wire::Sparse(sparse_to(v1::sparse::To::Text(text), using)),
        Source::Text { query, fields } => Wire::Text(v1::Text { query, fields }),
        Source::Hybrid { text, using, fields } => Wire::Hybrid(v1::Hybrid { text, using, fields }),
        Source::Fused { legs, fuse } => Wire::Prefetch(prefetch(legs, fuse)?),
    };
    Ok(v1::Leg {
        name: leg.name,
        source: Some(source),
        filter: given_filter(leg.filter)?,
        limit: leg.limit,
    })
}

pub(crate) fn answer(answer: v1::QueryResponse) -> Result<Answer> {
    Ok(Answer {
        hits: answer.hits.into_iter().map(hit).collect::<Result<_>>()?,
        token: answer.token,
        explain: answer
            .explain
            .map(|e| e.legs.into_iter().map(Into::into).collect())
            .unwrap_or_default(),
        took_ms: answer.took_ms,
        notes: answer.notes,
        stages: answer.stages.into_iter().map(stage).collect(),
        partial: answer.partial.map(Into::into),
    })
}

fn hit(hit: v1::Hit) -> Result<Hit> {
    let found = hit.point.ok_or_else(|| Error::bad_answer("a hit without its point"))?;
    let legs = hit
        .legs
        .into_iter()
        .map(|l| LegScore {
            leg: l.leg,
            raw: l.raw,
            rank: l.rank,
        })
        .collect();
    Ok(Hit {
        point: point(found)?,
        score: hit.score,
        legs,
    })
}

impl From<v1::ExplainLeg> for Explain {
    fn from(e: v1::ExplainLeg) -> Self {
        Self {
            leg: e.leg,
            shard: e.shard,
            segment: e.segment,
            strategy: e.strategy,
            matches: e.matches,
            evaluated: e.evaluated,
        }
    }
}

// --- documents ---------------------------------------------------------------------------------------------------

impl From<Document> for v1::DocumentInput {
    fn from(document: Document) -> Self {
        let format = match document.format {
            Format::Plain => v1::DocumentFormat::Plain,
            Format::Markdown => v1::DocumentFormat::Markdown,
            Format::Html => v1::DocumentFormat::Html,
            Format::Pdf => v1::DocumentFormat::Pdf,
        };
        Self {
            id: document.id,
            text: document.text,
            data: document.data,
            format: format.into(),
            title: document.title,
            source: document.source,
            metadata: (!document.metadata.is_empty()).then(|| object(document.metadata)),
            trust: match document.trust {
                Trust::Unverified => v1::Trust::Unverified,
                Trust::Trusted => v1::Trust::Trusted,
                Trust::Quarantined => v1::Trust::Quarantined,
            }
            .into(),
            provenance: (document.provenance != Provenance::default()).then_some(v1::Provenance {
                origin: document.provenance.origin,
                author: document.provenance.author,
                fetched_at_ms: document.provenance.fetched_at_ms,
                licence: document.provenance.licence,
            }),
        }
    }
}

pub(crate) fn trust(trust: i32) -> Result<Trust> {
    match v1::Trust::try_from(trust) {
        Ok(v1::Trust::Unspecified | v1::Trust::Unverified) => Ok(Trust::Unverified),
        Ok(v1::Trust::Trusted) => Ok(Trust::Trusted),
        Ok(v1::Trust::Quarantined) => Ok(Trust::Quarantined),
        Err(_) => Err(Error::bad_answer(format!(
            "a trust that this client does not know: {trust}"
        ))),
    }
}

pub(crate) fn provenance(provenance: v1::Provenance) -> Provenance {
    Provenance {
        origin: provenance.origin,
        author: provenance.author,
        fetched_at_ms: provenance.fetched_at_ms,
        licence: provenance.licence,
    }
}

impl From<v1::PutDocumentResult> for PutResult {
    fn from(r: v1::PutDocumentResult) -> Self {
        Self {
            id: r.id,
            unchanged: r.unchanged,
            chunks: r.chunks,
            embedded: r.embedded,
            near_duplicate_of: r.near_duplicate_of,
            skipped: r.skipped,
            replayed: r.replayed,
        }
    }
}

pub(crate) fn document(d: v1::Document) -> Result<StoredDocument> {
    Ok(StoredDocument {
        id: d.id,
        title: d.title,
        source: d.source,
        metadata: d.metadata.map(json_object).transpose()?.unwrap_or_else(Map::new),
        chunk_count: d.chunks,
        trust: trust(d.trust)?,
        provenance: d.provenance.map(provenance),
        text_bytes: d.text_bytes,
        checksum: d.checksum,
        version: d.version,
        chunks: Vec::new(),
    })
}

pub(crate) fn enrich(enrich: Enrich, mut collections: Vec<String>) -> Result<v1::EnrichRequest> {
    let format = match enrich.format {
        EnrichFormat::String => v1::EnrichFormat::String,
        EnrichFormat::Messages => v1::EnrichFormat::Messages,
        EnrichFormat::Anthropic => v1::EnrichFormat::Anthropic,
    };
    let turn = |turn| {
        let (role, content) = match turn {
            Turn::User(content) => ("user", content),
            Turn::Assistant(content) => ("assistant", content),
        };
        v1::Turn {
            role: role.to_owned(),
            content,
        }
    };
    let trust = |trust| match trust {
        Trust::Unverified => v1::Trust::Unverified.into(),
        Trust::Trusted => v1::Trust::Trusted.into(),
        Trust::Quarantined => v1::Trust::Quarantined.into(),
    };
    let collection = match collections.len() {
        1 => collections.remove(0),
        _ => String::new(),
    };
    let mode = match enrich.mode {
        Mode::Hybrid => v1::RetrievalMode::Hybrid,
        Mode::Dense => v1::RetrievalMode::Dense,
        Mode::Bm25 => v1::RetrievalMode::Bm25,
        Mode::Sparse => v1::RetrievalMode::Sparse,
    };
    Ok(v1::EnrichRequest {
        collection,
        prompt: enrich.prompt,
        token_budget: enrich.token_budget,
        tokenizer: enrich.tokenizer,
        format: format.into(),
        filter: given_filter(enrich.filter)?,
        limit: enrich.limit,
        max_chunks: enrich.max_chunks,
        max_per_document: enrich.max_per_document,
        score_threshold: enrich.score_threshold,
        mode: mode.into(),
        after: enrich.after,
        collections,
        conversation: enrich.conversation.into_iter().map(turn).collect(),
        template: enrich.template,
        max_per_source: enrich.max_per_source,
        neighbours: enrich.neighbours,
        ranking: ranking(enrich.ranking),
        explain: enrich.explain,
        trust: enrich.trust.into_iter().map(trust).collect(),
        allow_partial: enrich.allow_partial,
    })
}

impl From<v1::Partial> for Partial {
    fn from(p: v1::Partial) -> Self {
        Self {
            points: p.points,
            segments: p.segments.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<v1::DamagedSegment> for DamagedSegment {
    fn from(d: v1::DamagedSegment) -> Self {
        Self {
            collection: d.collection,
            shard: d.shard,
            segment: d.segment,
            points: d.points,
            reason: d.reason,
        }
    }
}

impl From<v1::EnrichResponse> for Enriched {
    fn from(e: v1::EnrichResponse) -> Self {
        let tokens = e.tokens.unwrap_or_default();
        Self {
            prompt: e.prompt,
            messages: e
                .messages
                .into_iter()
                .map(|m| ChatMessage {
                    role: m.role,
                    content: m.content,
                })
                .collect(),
            context: e.context.into_iter().map(Into::into).collect(),
            tokens: TokenUse {
                prompt: tokens.prompt,
                context: tokens.context,
                budget: tokens.budget,
            },
            dropped: e
                .dropped
                .into_iter()
                .map(|d| Dropped {
                    id: d.id,
                    document: d.document,
                    reason: d.reason,
                    collection: named(d.collection),
                })
                .collect(),
            retrieval_id: e.retrieval_id,
            took_ms: e.took_ms,
            notes: e.notes,
            system: e.system,
            stages: e.stages.into_iter().map(stage).collect(),
            query: e.query,
            partial: e.partial.map(Into::into),
        }
    }
}

fn named(collection: String) -> Option<String> {
    (!collection.is_empty()).then_some(collection)
}

impl From<v1::ContextItem> for ContextItem {
    fn from(c: v1::ContextItem) -> Self {
        let span = c.span.unwrap_or_default();
        let trust = match c.trust() {
            v1::Trust::Trusted => Trust::Trusted,
            v1::Trust::Quarantined => Trust::Quarantined,
            v1::Trust::Unspecified | v1::Trust::Unverified => Trust::Unverified,
        };
        Self {
            n: c.n,
            document: c.document,
            title: c.title,
            heading: c.heading,
            source: c.source,
            span: (span.start, span.end),
            text: c.text,
            score: c.score,
            scores: c.scores.into_iter().collect(),
            ids: c.ids,
            collection: named(c.collection),
            trust,
            provenance: c.provenance.map(|p| Provenance {
                origin: p.origin,
                author: p.author,
                fetched_at_ms: p.fetched_at_ms,
                licence: p.licence,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_comes_back_as_it_went_in() {
        let given = serde_json::json!({
            "null": null, "bool": true, "zero": 0, "negative": -7, "big": 9_007_199_254_740_993_i64,
            "huge": u64::MAX, "float": 0.5, "text": "ü", "list": [1, "a", [], {}], "object": {"deep": {"er": [null]}}
        });
        let Value::Object(given) = given else {
            panic!("an object")
        };
        assert_eq!(json_object(object(given.clone())).unwrap(), given);
    }

    #[test]
    fn a_schema_comes_back_as_it_went_in() {
        let given = Schema::dense(3)
            .vector(
                "image",
                VectorSpec::new(9)
                    .metric(Metric::Manhattan)
                    .quantization(Quantization::Int4)
                    .index(Index::Hnsw {
                        m: Some(8),
                        ef_construction: None,
                    }),
            )
            .vector("bulk", VectorSpec::new(9).index(Index::Ivf { nlist: Some(64) }))
            .vector(
                "known",
                VectorSpec::new(9).index(Index::Faiss {
                    factory: "IVF16,SQ8".into(),
                }),
            )
            .field("lang", Field::Keyword)
            .field("body", Field::text())
            .shards(4)
            .dynamic(false)
            .durability(Durability::Async)
            .chunking(200, 20);
        assert_eq!(read_schema(given.clone().into()).unwrap(), given);
    }

    #[test]
    fn a_filter_value_must_be_a_scalar() {
        let refused = filter(Condition::equals("a", serde_json::json!({"b": 1})).into()).unwrap_err();
        assert_eq!((refused.kind(), refused.code()), (ErrorKind::Invalid, "bad_filter"));
        assert!(filter(Condition::any("a", [Value::from(1), Value::from("x"), Value::from(true)]).into()).is_ok());
    }

    #[test]
    fn an_answer_without_its_parts_is_an_error() {
        assert_eq!(hit(v1::Hit::default()).unwrap_err().code(), "bad_answer");
        assert_eq!(collection(v1::Collection::default()).unwrap_err().code(), "bad_answer");
        assert_eq!(json(v1::Value { kind: None }).unwrap_err().code(), "bad_answer");
    }
}
