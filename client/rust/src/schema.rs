//! What a collection is made of.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::points::{DamagedSegment, Durability};

/// A collection's definition.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[must_use]
pub struct Schema {
    /// Dense vectors by name.
    pub vectors: BTreeMap<String, VectorSpec>,
    /// Sparse vectors by name. A name is that of a dense or of a sparse vector, never of both.
    pub sparse: BTreeMap<String, SparseSpec>,
    /// Declared payload fields by dotted path.
    pub fields: BTreeMap<String, Field>,
    /// Index every scalar of the payload that is not declared. Default: true.
    pub dynamic: Option<bool>,
    /// Shards. Default: 1.
    pub shards: Option<u32>,
    /// How documents are cut.
    pub chunking: Option<Chunking>,
    /// When writes are answered that do not say it themselves; otherwise as the server is configured.
    pub durability: Option<Durability>,
}

impl Schema {
    /// The preset for documents: vectors by the server's built-in embedder and full text over text and title, chosen by
    /// the server because nothing is said.
    pub fn documents() -> Self {
        Self::default()
    }
    /// The same preset with another of the server's embedders.
    pub fn documents_by(embedder: impl Into<String>) -> Self {
        Self::default()
            .vector("dense", VectorSpec::embedded_by(embedder))
            .document_fields()
    }
    /// Declares the fields of that preset: full text over text and title, and what citations need.
    pub fn document_fields(self) -> Self {
        self.field("text", Field::text())
            .field("title", Field::text())
            .field("document", Field::Keyword)
            .field("source", Field::Keyword)
    }
    /// One cosine vector named `dense` of `dim` numbers, which the caller makes.
    pub fn dense(dim: u32) -> Self {
        Self::default().vector("dense", VectorSpec::new(dim))
    }
    /// Adds a named vector.
    pub fn vector(mut self, name: impl Into<String>, spec: VectorSpec) -> Self {
        self.vectors.insert(name.into(), spec);
        self
    }
    /// Adds a named sparse vector.
    pub fn sparse(mut self, name: impl Into<String>, spec: SparseSpec) -> Self {
        self.sparse.insert(name.into(), spec);
        self
    }
    /// Declares a payload field.
    pub fn field(mut self, path: impl Into<String>, field: Field) -> Self {
        self.fields.insert(path.into(), field);
        self
    }
    /// Spreads the collection over this many shards.
    pub fn shards(mut self, shards: u32) -> Self {
        self.shards = Some(shards);
        self
    }
    /// Whether undeclared scalars of the payload are indexed.
    pub fn dynamic(mut self, yes: bool) -> Self {
        self.dynamic = Some(yes);
        self
    }
    /// Cuts documents into chunks of at most `max_tokens`, which repeat `overlap_tokens` of the one before.
    pub fn chunking(mut self, max_tokens: u32, overlap_tokens: u32) -> Self {
        self.chunking = Some(Chunking {
            max_tokens: Some(max_tokens),
            overlap_tokens: Some(overlap_tokens),
            ..self.chunking.unwrap_or_default()
        });
        self
    }
    /// When writes are answered that do not say it themselves.
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = Some(durability);
        self
    }
    /// Where documents are cut.
    pub fn chunk_strategy(mut self, strategy: ChunkStrategy) -> Self {
        self.chunking.get_or_insert_default().strategy = Some(strategy);
        self
    }
}

/// One named dense vector.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[must_use]
pub struct VectorSpec {
    /// How many numbers; 0 for as many as the embedder makes.
    pub dim: u32,
    /// How nearness is measured.
    pub metric: Metric,
    /// How sealed segments are searched; the server chooses if nothing is said.
    pub index: Option<Index>,
    /// What a walk of a graph ranks candidates by; the server chooses if nothing is said. Not for [`Metric::Hamming`].
    pub quantization: Option<Quantization>,
    /// The model whose vectors live here, if the server embeds.
    pub embedder: Option<Embedder>,
}

impl VectorSpec {
    /// Cosine, default index, vectors made by the caller.
    pub fn new(dim: u32) -> Self {
        Self {
            dim,
            metric: Metric::Cosine,
            index: None,
            quantization: None,
            embedder: None,
        }
    }
    /// Vectors that the server makes with its embedder of this name, and as long as that one's.
    pub fn embedded_by(name: impl Into<String>) -> Self {
        let mut spec = Self::new(0);
        spec.embedder = Some(Embedder {
            name: name.into(),
            ..Embedder::default()
        });
        spec
    }
    /// Another metric.
    pub fn metric(mut self, metric: Metric) -> Self {
        self.metric = metric;
        self
    }
    /// Other codes, or none.
    pub fn quantization(mut self, quantization: Quantization) -> Self {
        self.quantization = Some(quantization);
        self
    }
    /// Another index.
    pub fn index(mut self, index: Index) -> Self {
        self.index = Some(index);
        self
    }
}

/// One named sparse vector, compared by inner product.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[must_use]
pub struct SparseSpec {
    /// The model whose vectors live here, if the server embeds.
    pub embedder: Option<Embedder>,
}

impl SparseSpec {
    /// Vectors made by the caller.
    pub fn new() -> Self {
        Self::default()
    }
    /// Vectors made by one of the server's sparse embedders; the server adds what else belongs to it.
    pub fn embedded_by(embedder: impl Into<String>) -> Self {
        let name = embedder.into();
        Self {
            embedder: Some(Embedder {
                name,
                ..Embedder::default()
            }),
        }
    }
}

/// How nearness is measured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Cosine similarity; zero vectors are refused.
    #[default]
    Cosine,
    /// Inner product.
    Dot,
    /// Euclidean distance.
    Euclid,
    /// Manhattan distance.
    Manhattan,
    /// How many dimensions differ, of vectors whose values are all 0 or 1: binary embeddings. `dim` is a multiple of 8.
    Hamming,
}

/// Codes that an index ranks candidates by. The best are measured again on the vectors as given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Quantization {
    /// The vectors themselves.
    None,
    /// A byte per dimension.
    Int8,
    /// Half a byte per dimension.
    Int4,
}

/// How sealed segments are searched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum Index {
    /// Exact scan.
    Flat,
    /// Hierarchical navigable small world graph.
    Hnsw {
        /// Links per node. Default: 16.
        m: Option<u32>,
        /// Candidates kept while inserting. Default: 128.
        ef_construction: Option<u32>,
    },
    /// Inverted lists, of which a search looks into the likeliest: for large or cold segments and for bulk.
    Ivf {
        /// Lists of a segment. Default: four times the root of its rows, and one for 32 of them at most.
        nlist: Option<u32>,
    },
    /// Whatever Faiss makes of a factory string, in servers that were built with it.
    Faiss {
        /// As Faiss documents it, such as `IVF1024,PQ48x4fs,RFlat`.
        factory: String,
    },
}

/// Identity of the model that made a vector. The server refuses vectors and text of another.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Embedder {
    /// Name.
    pub name: String,
    /// Revision.
    pub revision: String,
    /// Numbers in a vector.
    pub dim: u32,
    /// Vectors have unit length.
    pub normalized: bool,
    /// Put before the text of a query.
    pub query_prefix: String,
    /// Put before the text of a passage.
    pub passage_prefix: String,
}

/// One declared payload field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum Field {
    /// Exact strings, or arrays of them.
    Keyword,
    /// 64-bit integers.
    Integer,
    /// 64-bit floats.
    Float,
    /// Booleans.
    Bool,
    /// Full text, searched with BM25.
    Text {
        /// How text becomes terms.
        analyzer: Analyzer,
    },
    /// Stored, not indexed.
    Stored,
}

/// How text becomes terms, of what is stored and of questions alike.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Analyzer {
    /// Language of stemmer and stop words, or `none`. Default: english.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    /// Version of the analysis rules. Default: the newest, which is then recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
}

impl Field {
    /// Full text in the default language, English.
    pub fn text() -> Self {
        Self::Text {
            analyzer: Analyzer::default(),
        }
    }
}

/// How documents are cut into chunks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Chunking {
    /// Most word pieces in a chunk. Default: 256.
    pub max_tokens: Option<u32>,
    /// Word pieces that a chunk repeats of the one before it. Default: 32.
    pub overlap_tokens: Option<u32>,
    /// Where they are cut. Default: structure.
    pub strategy: Option<ChunkStrategy>,
}

/// Where documents are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ChunkStrategy {
    /// At headings and blocks first, then sentences, then words; as much as fits.
    Structure,
    /// Between sentences, as many as fit, whatever blocks they are of; headings still end a chunk.
    Sentence,
    /// Every `max_tokens`, between words, whatever the structure.
    Fixed,
}

/// A collection's definition and state.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct CollectionInfo {
    /// Name.
    pub name: String,
    /// Definition, with the server's defaults filled in.
    pub schema: Schema,
    /// Live points.
    pub points: u64,
    /// Documents.
    pub documents: u64,
    /// Live points in sealed, indexed segments.
    pub indexed_points: u64,
    /// Sealed segments.
    pub segments: u64,
    /// Dead rows that no merge has dropped yet.
    pub dead_rows: u64,
    /// Bytes of sealed files.
    pub disk_bytes: u64,
    /// Bytes of growing segments in memory.
    pub growing_bytes: u64,
    /// A seal or merge is due or running.
    pub optimizing: bool,
    /// What the caller should know, e.g. that the server does not have the embedder of a vector.
    pub notes: Vec<String>,
    /// Sealed segments that are damaged, as far as it is known. Their points are counted above.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub damaged: Vec<DamagedSegment>,
    /// How much its searches over dense vectors found, of those that were asked again, exactly. Absent until one was since the
    /// server started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recall_estimate: Option<RecallEstimate>,
}

/// How much searches found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct RecallEstimate {
    /// The share of the exact hits that was found, 0 to 1: the mean over the last few hundred questions.
    pub recall: f64,
    /// Questions that were asked again since the server started.
    pub questions: u64,
}
