//! What is checked of a write before it enters the log: bounds, names, dimensions, numbers, payload types. Errors point into
//! the request, as JSON pointers relative to the list of points.

use super::ask::DocumentInput;
use crate::error::{Error, Result};
use crate::filter::extract;
use crate::limits;
use crate::op::{DocumentRecord, PointRecord, SparseRecord, VectorRecord};
use crate::query::{check_values, check_vector};
use crate::schema::{IndexSpec, Schema};
use crate::sparse::row;
use crate::types::{Payload, PointId, PointInput};
use crate::vector::faiss;
use crate::vector::floats::Form;

/// A list of something that one request may hold.
pub(super) fn batch_size(what: &str, n: usize) -> Result<()> {
    if n == 0 || n > limits::BATCH_POINTS_MAX {
        return Err(Error::invalid(
            "bad_batch",
            format!("a request holds 1 to {} {what}, got {n}", limits::BATCH_POINTS_MAX),
        ));
    }
    Ok(())
}

/// Refuses indexes that this build cannot make. Not asked of collections that are there already: whatever made their indexes, they are
/// answered from.
pub(super) fn new_indexes(schema: &Schema) -> Result<()> {
    for (name, spec) in &schema.vectors {
        if let IndexSpec::Faiss { factory } = &spec.index {
            let at = format!("/vectors/{name}/index");
            faiss::check(factory, spec.metric, spec.dim as usize).map_err(|e| e.at(at))?;
        }
    }
    Ok(())
}

pub(super) fn points(schema: &Schema, points: &[PointInput]) -> Result<()> {
    batch_size("points", points.len()).map_err(|e| e.at("/points"))?;
    points
        .iter()
        .enumerate()
        .try_for_each(|(i, p)| point(schema, p).map_err(|e| e.at(format!("/points/{i}"))))
}

fn point(schema: &Schema, point: &PointInput) -> Result<()> {
    for (name, vector) in &point.vectors {
        let at = format!("/vectors/{name}");
        let Some(spec) = schema.vectors.get(name) else {
            let known = schema.vectors.keys().cloned().collect::<Vec<_>>().join(", ");
            return Err(Error::invalid(
                "vector_not_found",
                format!("the collection has no vector {name:?}, only: {known}"),
            )
            .at(at));
        };
        if vector.len() != spec.dim as usize {
            return Err(Error::invalid(
                "wrong_dim",
                format!("vector {name:?} has {} dimensions, got {}", spec.dim, vector.len()),
            )
            .at(at));
        }
        check_vector(vector)
            .and_then(|()| check_values(spec.metric, vector))
            .map_err(|e| e.at(at))?;
    }
    for (name, vector) in &point.sparse {
        let at = format!("/sparse/{name}");
        if !schema.sparse.contains_key(name) {
            let known = schema.sparse.keys().cloned().collect::<Vec<_>>().join(", ");
            return Err(Error::invalid(
                "vector_not_found",
                format!("the collection has no sparse vector {name:?}, only: {known}"),
            )
            .at(at));
        }
        vector.check().map_err(|e| e.at(at))?;
    }
    payload(schema, &point.payload).map_err(|e| e.at("/payload"))
}

pub(super) fn payload(schema: &Schema, payload: &Payload) -> Result<()> {
    extract::check_payload(payload, schema)?;
    super::payload_json(payload).map(drop)
}

/// From the caller's form to the log's. The point was checked.
pub(super) fn record(schema: &Schema, point: PointInput) -> Result<PointRecord> {
    let vectors = schema.vectors.iter().enumerate().filter_map(|(i, (name, spec))| {
        let mut data = Vec::new();
        Form::of_metric(spec.metric).put(point.vectors.get(name)?, &mut data);
        Some(VectorRecord { index: i as u8, data })
    });
    let sparse = schema.sparse.keys().enumerate().filter_map(|(i, name)| {
        let data = row::encode(point.sparse.get(name)?);
        Some(SparseRecord { index: i as u8, data })
    });
    Ok(PointRecord {
        vectors: vectors.collect(),
        sparse: sparse.collect(),
        payload: super::payload_json(&point.payload)?,
        id: point.id,
        document: point.document,
        expires_at_ms: point.expires_at_ms.unwrap_or(0),
        acl: Vec::new(),
    })
}

/// A checked document and its chunks, in the log's form.
pub(super) fn document(schema: &Schema, document: DocumentInput) -> Result<(DocumentRecord, Vec<PointRecord>)> {
    if document.chunks.len() > limits::DOCUMENT_CHUNKS_MAX {
        return Err(Error::invalid(
            "document_too_large",
            format!(
                "a document has at most {} chunks, got {}: split it",
                limits::DOCUMENT_CHUNKS_MAX,
                document.chunks.len()
            ),
        ));
    }
    let metadata = super::payload_json(&document.metadata).map_err(|e| e.at("/metadata"))?;
    let mut seen = std::collections::BTreeSet::<&PointId>::new();
    for (i, chunk) in document.chunks.iter().enumerate() {
        point(schema, &chunk.point).map_err(|e| e.at(format!("/chunks/{i}")))?;
        if !seen.insert(&chunk.point.id) {
            return Err(Error::invalid(
                "duplicate_id",
                format!("two chunks have the id {:?}", chunk.point.id.as_str()),
            )
            .at(format!("/chunks/{i}")));
        }
    }
    let chunks = document
        .chunks
        .iter()
        .map(|c| (c.point.id.clone(), c.checksum))
        .collect();
    let record = DocumentRecord {
        id: document.id.clone(),
        title: document.title,
        source: document.source,
        metadata,
        checksum: document.checksum,
        chunks,
        text_bytes: document.text_bytes,
    };
    let points = document
        .chunks
        .into_iter()
        .map(|chunk| {
            self::record(
                schema,
                PointInput {
                    document: Some(document.id.clone()),
                    ..chunk.point
                },
            )
        })
        .collect::<Result<Vec<_>>>()?;
    Ok((record, points))
}
