//! Collections and their schemas in messages.

use std::collections::BTreeMap;

use cairn_engine::schema::{
    AnalyzerSpec, ChunkStrategy, Chunking, EmbedderFingerprint, FieldSpec, IndexSpec, Metric, Quantization, Schema,
    SparseSpec, VectorSpec,
};
use cairn_engine::{Error, Result};
use cairn_proto::v1 as pb;

use super::bad_enum;
use super::damage::damaged_out;
use super::points::{durability_in, durability_out};
use crate::service::{CollectionView, empty_schema};

pub(in crate::grpc) fn schema_in(schema: Option<pb::Schema>) -> Result<Schema> {
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
        sparse: schema
            .sparse
            .into_iter()
            .map(|(name, s)| (name, sparse_spec_in(s)))
            .collect(),
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
            strategy: strategy_in(chunking.strategy).map_err(|e| e.at("/schema/chunking"))?,
        },
        durability: durability_in(schema.durability).map_err(|e| e.at("/schema"))?,
    })
}

fn strategy_in(strategy: i32) -> Result<ChunkStrategy> {
    match pb::ChunkStrategy::try_from(strategy) {
        Ok(pb::ChunkStrategy::Unspecified | pb::ChunkStrategy::Structure) => Ok(ChunkStrategy::Structure),
        Ok(pb::ChunkStrategy::Sentence) => Ok(ChunkStrategy::Sentence),
        Ok(pb::ChunkStrategy::Fixed) => Ok(ChunkStrategy::Fixed),
        Err(_) => Err(bad_enum("strategy", "ChunkStrategy", strategy)),
    }
}

fn strategy_out(strategy: ChunkStrategy) -> pb::ChunkStrategy {
    match strategy {
        ChunkStrategy::Structure => pb::ChunkStrategy::Structure,
        ChunkStrategy::Sentence => pb::ChunkStrategy::Sentence,
        ChunkStrategy::Fixed => pb::ChunkStrategy::Fixed,
    }
}

fn sparse_spec_in(spec: pb::SparseSpec) -> SparseSpec {
    SparseSpec {
        embedder: spec.embedder.map(embedder_in),
    }
}

pub(in crate::grpc) fn embedder_in(embedder: pb::Embedder) -> EmbedderFingerprint {
    EmbedderFingerprint {
        name: embedder.name,
        revision: embedder.revision,
        dim: embedder.dim,
        normalized: embedder.normalized,
        query_prefix: embedder.query_prefix,
        passage_prefix: embedder.passage_prefix,
    }
}

fn embedder_out(embedder: EmbedderFingerprint) -> pb::Embedder {
    pb::Embedder {
        name: embedder.name,
        revision: embedder.revision,
        dim: embedder.dim,
        normalized: embedder.normalized,
        query_prefix: embedder.query_prefix,
        passage_prefix: embedder.passage_prefix,
    }
}

fn vector_spec_in(spec: pb::VectorSpec) -> Result<VectorSpec> {
    use pb::vector_spec::Index;
    let metric = match pb::Metric::try_from(spec.metric) {
        Ok(pb::Metric::Unspecified | pb::Metric::Cosine) => Metric::Cosine,
        Ok(pb::Metric::Dot) => Metric::Dot,
        Ok(pb::Metric::Euclid) => Metric::Euclid,
        Ok(pb::Metric::Manhattan) => Metric::Manhattan,
        Ok(pb::Metric::Hamming) => Metric::Hamming,
        Err(_) => {
            return Err(Error::invalid(
                "bad_metric",
                format!("metric must be one of Metric, got {}", spec.metric),
            )
            .at("/metric"));
        }
    };
    let quantization = match pb::Quantization::try_from(spec.quantization) {
        Ok(pb::Quantization::Unspecified) => Quantization::default(),
        Ok(pb::Quantization::None) => Quantization::None,
        Ok(pb::Quantization::Int8) => Quantization::Int8,
        Ok(pb::Quantization::Int4) => Quantization::Int4,
        Err(_) => {
            return Err(Error::invalid(
                "bad_quantization",
                format!("quantization must be one of Quantization, got {}", spec.quantization),
            )
            .at("/quantization"));
        }
    };
    let index = match (spec.index, IndexSpec::default()) {
        (None, default) => default,
        (Some(Index::Flat(_)), _) => IndexSpec::Flat {},
        (Some(Index::Hnsw(h)), IndexSpec::Hnsw { m, ef_construction }) => IndexSpec::Hnsw {
            m: h.m.unwrap_or(m),
            ef_construction: h.ef_construction.unwrap_or(ef_construction),
        },
        (Some(Index::Hnsw(_)), IndexSpec::Flat {} | IndexSpec::Ivf { .. } | IndexSpec::Faiss { .. }) => {
            unreachable!("the default index is a graph")
        }
        (Some(Index::Ivf(ivf)), _) => IndexSpec::Ivf { nlist: ivf.nlist },
        (Some(Index::Faiss(faiss)), _) => IndexSpec::Faiss { factory: faiss.factory },
    };
    let embedder = spec.embedder.map(embedder_in);
    Ok(VectorSpec {
        dim: spec.dim,
        metric,
        index,
        quantization,
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
            Metric::Hamming => pb::Metric::Hamming,
        };
        let quantization = match v.quantization {
            Quantization::None => pb::Quantization::None,
            Quantization::Int8 => pb::Quantization::Int8,
            Quantization::Int4 => pb::Quantization::Int4,
        };
        let index = match v.index {
            IndexSpec::Flat {} => Index::Flat(pb::FlatIndex {}),
            IndexSpec::Hnsw { m, ef_construction } => Index::Hnsw(pb::HnswIndex {
                m: Some(m),
                ef_construction: Some(ef_construction),
            }),
            IndexSpec::Ivf { nlist } => Index::Ivf(pb::IvfIndex { nlist }),
            IndexSpec::Faiss { factory } => Index::Faiss(pb::FaissIndex { factory }),
        };
        let embedder = v.embedder.map(embedder_out);
        (
            name,
            pb::VectorSpec {
                dim: v.dim,
                metric: metric.into(),
                index: Some(index),
                quantization: quantization.into(),
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
        durability: schema.durability.map_or(0, durability_out),
        chunking: Some(pb::Chunking {
            max_tokens: Some(schema.chunking.max_tokens),
            overlap_tokens: Some(schema.chunking.overlap_tokens),
            strategy: strategy_out(schema.chunking.strategy).into(),
        }),
        sparse: schema
            .sparse
            .into_iter()
            .map(|(name, s)| {
                let embedder = s.embedder.map(embedder_out);
                (name, pb::SparseSpec { embedder })
            })
            .collect(),
    }
}

pub(in crate::grpc) fn collection_out(CollectionView { info, notes }: CollectionView) -> pb::Collection {
    let damaged = info.damaged.into_iter();
    let recall = (info.recall.questions > 0).then_some(info.recall);
    pb::Collection {
        notes,
        damaged: damaged.map(|missing| damaged_out(&info.name, missing)).collect(),
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
        recall_estimate: recall.map(|found| pb::RecallEstimate {
            recall: found.recall,
            questions: found.questions,
        }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_schema_survives_the_wire() {
        let schema: Schema = serde_json::from_value(json!({
            "vectors": {
                "a": {"dim": 3, "metric": "dot", "index": {"type": "flat"}},
                "c": {"dim": 4, "quantization": "int4"},
                "d": {"dim": 4, "quantization": "none"},
                "e": {"dim": 4, "index": {"type": "ivf"}},
                "f": {"dim": 4, "index": {"type": "ivf", "nlist": 64}},
                "g": {"dim": 4, "index": {"type": "faiss", "factory": "IVF16,Flat"}},
                "h": {"dim": 8, "metric": "hamming"},
                "b": {"dim": 4, "metric": "manhattan", "index": {"type": "hnsw", "m": 8, "ef_construction": 64},
                      "embedder": {"name": "x", "revision": "1", "dim": 4, "normalized": true}}
            },
            "fields": {
                "k": {"type": "keyword"}, "i": {"type": "integer"}, "f": {"type": "float"}, "b": {"type": "bool"},
                "s": {"type": "stored"}, "t": {"type": "text", "analyzer": {"language": "german", "version": 1}}
            },
            "dynamic": false, "shards": 3, "chunking": {"max_tokens": 99, "overlap_tokens": 9, "strategy": "sentence"}, "durability": "async"
        }))
        .unwrap();
        assert_eq!(schema_in(Some(schema_out(schema.clone()))).unwrap(), schema);
        assert_eq!(
            schema_in(Some(pb::Schema::default())).unwrap(),
            schema_in(None).unwrap()
        );
    }
}
