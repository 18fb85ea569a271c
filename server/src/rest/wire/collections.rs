//! Collections and their schemas in JSON.

use std::collections::BTreeMap;

use cairn_engine::schema::{
    AnalyzerSpec, ChunkStrategy, Chunking, EmbedderFingerprint, FieldSpec, IndexSpec, Metric, Quantization, Schema,
    SparseSpec, VectorSpec,
};
use cairn_engine::{Error, Result};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::DurabilityBody;
use super::damage::DamagedSegmentOut;
use crate::service::{CollectionView, empty_schema};

/// A collection's definition. Without vectors, sparse vectors and fields it is the documents preset: a vector `dense` of the server's
/// default embedder, full text over `text` and `title`, keywords `document` and `source`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::rest) struct SchemaBody {
    /// Dense vectors by name, at most 16.
    #[serde(default)]
    vectors: BTreeMap<String, VectorBody>,
    /// Sparse vectors by name, at most 16. Names are shared with `vectors`: one name is one or the other.
    #[serde(default)]
    sparse: BTreeMap<String, SparseSpecBody>,
    /// Declared payload fields by dotted path, at most 128.
    #[serde(default)]
    fields: BTreeMap<String, FieldBody>,
    /// Index every scalar of the payload that is not declared, so that it can be filtered. Default: true.
    dynamic: Option<bool>,
    /// 1 to 64. Default: 1.
    shards: Option<u32>,
    /// How documents are cut.
    chunking: Option<ChunkingBody>,
    /// When writes are answered that do not say it themselves. Default: as the server is configured, which is sync.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    durability: Option<DurabilityBody>,
}

/// One named dense vector.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::rest) struct VectorBody {
    /// 1 to 65,535. May be left out if `embedder` names one of the server's: it is then the embedder's.
    #[serde(default)]
    dim: u32,
    /// Default: cosine.
    #[serde(default)]
    metric: MetricBody,
    /// Index of sealed segments. Default: hnsw.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    index: Option<IndexBody>,
    /// What an hnsw or ivf index ranks candidates by. The best are measured again on the vectors as given, so scores and
    /// their order do not change. Default: int8. Not for hamming.
    #[serde(default)]
    quantization: QuantizationBody,
    /// The model whose vectors live here. Needed for text in `nearest` and for documents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    embedder: Option<EmbedderBody>,
}

/// One named sparse vector; closeness is the inner product.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::rest) struct SparseSpecBody {
    /// The model whose vectors live here. Needed for text in `sparse` and for documents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    embedder: Option<EmbedderBody>,
}

/// How closeness is measured. `hamming`: how many dimensions differ, of vectors whose values are all 0 or 1, as models with binary embeddings
/// make them; they are kept in a bit each, `dim` is a multiple of 8, and there is no embedder.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::rest) enum MetricBody {
    #[default]
    Cosine,
    Dot,
    Euclid,
    Manhattan,
    Hamming,
}

/// Codes that an hnsw or ivf index has of its vectors.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::rest) enum QuantizationBody {
    /// None: the vectors themselves.
    None,
    /// A byte per dimension.
    #[default]
    Int8,
    /// Half a byte per dimension.
    Int4,
}

/// Index of a sealed segment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::rest) struct IndexBody {
    r#type: IndexKind,
    /// hnsw: links per node, 2 to 256. Default: 16.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    m: Option<u32>,
    /// hnsw: candidates kept while inserting, m to 4,096. Default: 128.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ef_construction: Option<u32>,
    /// ivf: lists of a segment, 1 to 65,536. Default: four times the root of its rows, and one for 32 of them at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    nlist: Option<u32>,
    /// faiss: the factory string, such as `IVF1024,PQ48x4fs,RFlat`, 1 to 200 bytes. No IDMap: points have ids of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    factory: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::rest) enum IndexKind {
    /// Exact scan.
    Flat,
    /// A graph.
    Hnsw,
    /// Inverted lists: for large or cold segments and for bulk.
    Ivf,
    /// Whatever Faiss makes of a factory string, in servers that were built with it. Metrics: cosine, dot, euclid.
    Faiss,
}

/// Identity of the model that made a vector. The name of one of the server's embedders is enough: what is left out is
/// taken from it and recorded; what is given must be equal to it. The built-in one is `static-minilm-256`. A model that only
/// callers have is recorded as it is given, and the collection's `notes` say that nothing can be embedded here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::rest) struct EmbedderBody {
    name: String,
    #[serde(default)]
    revision: String,
    #[serde(default)]
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
pub(in crate::rest) struct FieldBody {
    r#type: FieldKind,
    /// Only for `text`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    analyzer: Option<AnalyzerBody>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::rest) enum FieldKind {
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
pub(in crate::rest) struct AnalyzerBody {
    /// Language of stemmer and stop words, e.g. `english`, `german`, or `none`. Default: english.
    language: Option<String>,
    /// Version of the analysis rules. Default: the newest, which is then recorded.
    version: Option<u32>,
}

/// How documents are cut into chunks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::rest) struct ChunkingBody {
    /// Most word pieces in a chunk, 16 to 8,192. Default: 256.
    max_tokens: Option<u32>,
    /// Word pieces that a chunk repeats of the one before it, at most half of max_tokens. Default: 32.
    overlap_tokens: Option<u32>,
    /// Where they are cut. Default: structure.
    strategy: Option<StrategyBody>,
}

/// Where documents are cut.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::rest) enum StrategyBody {
    /// At headings and blocks first, then sentences, then words; as much as fits.
    Structure,
    /// Between sentences (lines of code and tables), never inside one that fits, as many as fit, whatever blocks they are
    /// of; headings still end a chunk.
    Sentence,
    /// Every max_tokens, between words, whatever the structure. A chunk's heading path is that of its beginning.
    Fixed,
}

impl EmbedderBody {
    pub(super) fn fingerprint(self) -> EmbedderFingerprint {
        EmbedderFingerprint {
            name: self.name,
            revision: self.revision,
            dim: self.dim,
            normalized: self.normalized,
            query_prefix: self.query_prefix,
            passage_prefix: self.passage_prefix,
        }
    }

    fn of(embedder: EmbedderFingerprint) -> Self {
        Self {
            name: embedder.name,
            revision: embedder.revision,
            dim: embedder.dim,
            normalized: embedder.normalized,
            query_prefix: embedder.query_prefix,
            passage_prefix: embedder.passage_prefix,
        }
    }
}

impl SchemaBody {
    pub(in crate::rest) fn schema(self) -> Result<Schema> {
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
                strategy: match c.strategy {
                    None | Some(StrategyBody::Structure) => ChunkStrategy::Structure,
                    Some(StrategyBody::Sentence) => ChunkStrategy::Sentence,
                    Some(StrategyBody::Fixed) => ChunkStrategy::Fixed,
                },
            },
        };
        let sparse = |(name, body): (String, SparseSpecBody)| {
            let embedder = body.embedder.map(EmbedderBody::fingerprint);
            (name, SparseSpec { embedder })
        };
        Ok(Schema {
            vectors,
            sparse: self.sparse.into_iter().map(sparse).collect(),
            fields,
            dynamic: self.dynamic.unwrap_or(empty.dynamic),
            shards: self.shards.unwrap_or(empty.shards),
            chunking,
            durability: self.durability.map(Into::into),
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
            MetricBody::Hamming => Metric::Hamming,
        };
        let index = match self.index {
            None => IndexSpec::default(),
            Some(body) => body.spec()?,
        };
        let embedder = self.embedder.map(EmbedderBody::fingerprint);
        Ok(VectorSpec {
            dim: self.dim,
            metric,
            index,
            quantization: match self.quantization {
                QuantizationBody::None => Quantization::None,
                QuantizationBody::Int8 => Quantization::Int8,
                QuantizationBody::Int4 => Quantization::Int4,
            },
            embedder,
        })
    }
}

impl IndexBody {
    fn spec(self) -> Result<IndexSpec> {
        match self {
            Self {
                r#type: IndexKind::Flat,
                m: None,
                ef_construction: None,
                nlist: None,
                factory: None,
            } => Ok(IndexSpec::Flat {}),
            Self {
                r#type: IndexKind::Ivf,
                m: None,
                ef_construction: None,
                nlist,
                factory: None,
            } => Ok(IndexSpec::Ivf { nlist }),
            Self {
                r#type: IndexKind::Faiss,
                m: None,
                ef_construction: None,
                nlist: None,
                factory: Some(factory),
            } => Ok(IndexSpec::Faiss { factory }),
            Self {
                r#type: IndexKind::Hnsw,
                m,
                ef_construction,
                nlist: None,
                factory: None,
            } => Ok(match IndexSpec::default() {
                IndexSpec::Hnsw {
                    m: m_default,
                    ef_construction: ef_default,
                } => IndexSpec::Hnsw {
                    m: m.unwrap_or(m_default),
                    ef_construction: ef_construction.unwrap_or(ef_default),
                },
                other @ (IndexSpec::Flat {} | IndexSpec::Ivf { .. } | IndexSpec::Faiss { .. }) => other,
            }),
            Self { .. } => Err(Error::invalid(
                "bad_index",
                "m and ef_construction are settings of hnsw, nlist is one of ivf, factory is what faiss needs, and flat has none",
            )
            .at("/index")),
        }
    }

    fn of(index: &IndexSpec) -> Self {
        let none = Self {
            r#type: IndexKind::Flat,
            m: None,
            ef_construction: None,
            nlist: None,
            factory: None,
        };
        match index {
            IndexSpec::Flat {} => none,
            IndexSpec::Hnsw { m, ef_construction } => Self {
                r#type: IndexKind::Hnsw,
                m: Some(*m),
                ef_construction: Some(*ef_construction),
                ..none
            },
            IndexSpec::Ivf { nlist } => Self {
                r#type: IndexKind::Ivf,
                nlist: *nlist,
                ..none
            },
            IndexSpec::Faiss { factory } => Self {
                r#type: IndexKind::Faiss,
                factory: Some(factory.clone()),
                ..none
            },
        }
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
pub(in crate::rest) struct CollectionOut {
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
    /// What the caller should know, e.g. that this server does not have the embedder of a vector: then nothing can be
    /// embedded for it here.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notes: Vec<String>,
    /// Sealed segments that are damaged, as far as it is known. Their points are counted above.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    damaged: Vec<DamagedSegmentOut>,
    /// How much its searches over dense vectors found, of those that were asked again, exactly. Absent until one was since
    /// the server started.
    #[serde(skip_serializing_if = "Option::is_none")]
    recall_estimate: Option<RecallEstimateOut>,
}

/// How much searches found.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::rest) struct RecallEstimateOut {
    /// The share of the exact hits that was found, 0 to 1: the mean over the last few hundred questions.
    recall: f64,
    /// Questions that were asked again since the server started.
    questions: u64,
}

impl From<CollectionView> for CollectionOut {
    fn from(CollectionView { info, notes }: CollectionView) -> Self {
        let damaged = info.damaged.into_iter();
        let recall = (info.recall.questions > 0).then_some(info.recall);
        Self {
            notes,
            damaged: damaged
                .map(|missing| DamagedSegmentOut::of(&info.name, missing))
                .collect(),
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
            recall_estimate: recall.map(|found| RecallEstimateOut {
                recall: found.recall,
                questions: found.questions,
            }),
        }
    }
}

impl From<Schema> for SchemaBody {
    fn from(schema: Schema) -> Self {
        let vector = |(name, v): (String, VectorSpec)| {
            let metric = match v.metric {
                Metric::Cosine => MetricBody::Cosine,
                Metric::Dot => MetricBody::Dot,
                Metric::Euclid => MetricBody::Euclid,
                Metric::Manhattan => MetricBody::Manhattan,
                Metric::Hamming => MetricBody::Hamming,
            };
            let embedder = v.embedder.map(EmbedderBody::of);
            (
                name,
                VectorBody {
                    dim: v.dim,
                    metric,
                    index: Some(IndexBody::of(&v.index)),
                    quantization: match v.quantization {
                        Quantization::None => QuantizationBody::None,
                        Quantization::Int8 => QuantizationBody::Int8,
                        Quantization::Int4 => QuantizationBody::Int4,
                    },
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
            sparse: schema
                .sparse
                .into_iter()
                .map(|(name, s)| {
                    let embedder = s.embedder.map(EmbedderBody::of);
                    (name, SparseSpecBody { embedder })
                })
                .collect(),
            fields: schema.fields.into_iter().map(field).collect(),
            dynamic: Some(schema.dynamic),
            shards: Some(schema.shards),
            durability: schema.durability.map(Into::into),
            chunking: Some(ChunkingBody {
                max_tokens: Some(schema.chunking.max_tokens),
                overlap_tokens: Some(schema.chunking.overlap_tokens),
                strategy: Some(match schema.chunking.strategy {
                    ChunkStrategy::Structure => StrategyBody::Structure,
                    ChunkStrategy::Sentence => StrategyBody::Sentence,
                    ChunkStrategy::Fixed => StrategyBody::Fixed,
                }),
            }),
        }
    }
}

/// Names of all collections.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::rest) struct CollectionsOut {
    pub(in crate::rest) collections: Vec<String>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_schema_survives_its_json() {
        let schema: Schema = serde_json::from_value(json!({
            "vectors": {"a": {"dim": 3, "metric": "euclid", "index": {"type": "flat"},
                              "embedder": {"name": "x", "dim": 3, "query_prefix": "q: "}},
                        "b": {"dim": 4}, "c": {"dim": 4, "quantization": "int4"}, "d": {"dim": 4, "quantization": "none"}},
            "sparse": {"s": {}, "u": {"embedder": {"name": "y", "dim": 30_522}}},
            "fields": {"k": {"type": "keyword"}, "t": {"type": "text", "analyzer": {"language": "none", "version": 1}}},
            "dynamic": false, "shards": 2, "chunking": {"max_tokens": 64, "overlap_tokens": 0, "strategy": "fixed"}, "durability": "async"
        }))
        .unwrap();
        let json = serde_json::to_value(SchemaBody::from(schema.clone())).unwrap();
        let back: SchemaBody = serde_json::from_value(json).unwrap();
        assert_eq!(back.schema().unwrap(), schema);
        let empty: SchemaBody = serde_json::from_value(json!({})).unwrap();
        assert_eq!(empty.schema().unwrap(), empty_schema());
    }
}
