//! What a collection is made of: named vectors, payload fields, analyzers, shards, embedder.
//!
//! A schema is checked once, when it is created or changed, and is then a value that every reader trusts. It is
//! serialised into the collection's record; new fields get a serde default so that old records stay readable.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::limits;
use crate::types::Durability;

/// A collection's definition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schema {
    /// Dense vectors by name.
    #[serde(default)]
    pub vectors: BTreeMap<String, VectorSpec>,
    /// Sparse vectors by name. A name is that of a dense or of a sparse vector, never of both.
    #[serde(default)]
    pub sparse: BTreeMap<String, SparseSpec>,
    /// Declared payload fields by dotted path (`a.b`).
    #[serde(default)]
    pub fields: BTreeMap<String, FieldSpec>,
    /// Index every scalar leaf of the payload that is not declared (default true), so that it can be filtered.
    #[serde(default = "yes")]
    pub dynamic: bool,
    /// Shards on this node (default 1).
    #[serde(default = "one")]
    pub shards: u32,
    /// How documents put into this collection are cut into chunks.
    #[serde(default)]
    pub chunking: Chunking,
    /// When writes are answered that do not say it themselves; none = as the engine's settings say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub durability: Option<Durability>,
}

/// One named dense vector.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VectorSpec {
    /// Dimensions.
    pub dim: u32,
    /// How closeness is measured.
    #[serde(default)]
    pub metric: Metric,
    /// Index of sealed segments.
    #[serde(default)]
    pub index: IndexSpec,
    /// Codes of sealed segments, which graphs are walked on and lists hold.
    #[serde(default)]
    pub quantization: Quantization,
    /// The embedder whose vectors live here; others are refused.
    #[serde(default)]
    pub embedder: Option<EmbedderFingerprint>,
}

/// One named sparse vector; closeness is the inner product.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SparseSpec {
    /// The model whose vectors live here; those of others are refused.
    #[serde(default)]
    pub embedder: Option<EmbedderFingerprint>,
}

/// Distance or similarity of dense vectors.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Cosine similarity; vectors are stored as given, never normalised in place. Zero vectors are refused.
    #[default]
    Cosine,
    /// Inner product.
    Dot,
    /// Euclidean (L2) distance.
    Euclid,
    /// Manhattan (L1) distance.
    Manhattan,
    /// How many dimensions differ, of vectors of zeros and ones, which are kept in a bit each.
    Hamming,
}

/// Index of a sealed segment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type", deny_unknown_fields)]
pub enum IndexSpec {
    /// Exact scan.
    Flat {},
    /// Hierarchical navigable small world graph (Malkov & Yashunin 2016).
    Hnsw {
        /// Links per node above the base layer; the base layer has `2 m`.
        #[serde(default = "default_m")]
        m: u32,
        /// Candidates kept while inserting.
        #[serde(default = "default_ef_construction")]
        ef_construction: u32,
    },
    /// Inverted lists: rows grouped around centres.
    Ivf {
        /// Lists of a segment; none = four times the root of its rows, and one for 32 of them at most.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        nlist: Option<u32>,
    },
    /// Whatever Faiss makes of a factory string. Builds without that library read it, and scan.
    Faiss {
        /// As the library documents it, such as `IVF1024,PQ48x4fs,RFlat`.
        factory: String,
    },
}

impl Default for IndexSpec {
    fn default() -> Self {
        Self::Hnsw {
            m: default_m(),
            ef_construction: default_ef_construction(),
        }
    }
}

/// What a graph walk, and a look into lists, ranks candidates by. The best of them are measured again on the vectors as they were
/// given, so that answers are in the same order, with the same scores, whatever stands here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Quantization {
    /// The vectors themselves.
    None,
    /// A byte per dimension.
    #[default]
    Int8,
    /// Half a byte per dimension.
    Int4,
}

/// Identity of the model that made a vector.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmbedderFingerprint {
    /// Model id, e.g. `static-minilm-256`.
    pub name: String,
    /// Model revision.
    #[serde(default)]
    pub revision: String,
    /// Dimensions.
    pub dim: u32,
    /// Vectors are unit length.
    #[serde(default)]
    pub normalized: bool,
    /// Put before a query text.
    #[serde(default)]
    pub query_prefix: String,
    /// Put before a passage text.
    #[serde(default)]
    pub passage_prefix: String,
}

/// One declared payload field.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type", deny_unknown_fields)]
pub enum FieldSpec {
    /// Exact strings (or arrays of them).
    Keyword {},
    /// 64-bit integers.
    Integer {},
    /// 64-bit floats.
    Float {},
    /// Booleans.
    Bool {},
    /// Full text, searched with BM25. Not filterable by `match`.
    Text {
        /// How text becomes terms; recorded with its version so that text and queries are always cut alike.
        #[serde(default)]
        analyzer: AnalyzerSpec,
    },
    /// Stored, not indexed.
    Stored {},
}

/// How text becomes terms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AnalyzerSpec {
    /// Language of stemmer and stop words for alphabetic scripts; `none` switches both off. CJK, Thai, Khmer and Lao are
    /// recognised by script and need no setting.
    pub language: String,
    /// Version of the analysis rules; fixed when the field is created.
    pub version: u32,
}

impl Default for AnalyzerSpec {
    fn default() -> Self {
        Self {
            language: "english".into(),
            version: ANALYZER_VERSION,
        }
    }
}

/// The analysis rules this build writes and understands.
pub const ANALYZER_VERSION: u32 = 1;

/// How documents are cut.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Chunking {
    /// Most tokens in a chunk.
    pub max_tokens: u32,
    /// Tokens that a chunk repeats of the one before it.
    pub overlap_tokens: u32,
    /// What a cut looks for.
    pub strategy: ChunkStrategy,
}

/// What a cut looks for. The engine keeps it; whoever cuts gives it its meaning.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChunkStrategy {
    /// Headings and blocks first, then sentences, then words.
    #[default]
    Structure,
    /// Sentences, whatever blocks they are of.
    Sentence,
    /// Words, whatever the structure.
    Fixed,
}

impl Default for Chunking {
    fn default() -> Self {
        Self {
            max_tokens: 256,
            overlap_tokens: 32,
            strategy: ChunkStrategy::default(),
        }
    }
}

fn yes() -> bool {
    true
}
fn one() -> u32 {
    1
}
fn default_m() -> u32 {
    16
}
fn default_ef_construction() -> u32 {
    128
}

/// Checks a name that becomes part of an API path: lower-case ASCII letters, digits, `_`, `-`, `.`, starting with a letter or digit.
pub fn check_name(what: &str, name: &str) -> Result<()> {
    let ok = !name.is_empty()
        && name.len() <= limits::NAME_BYTES_MAX
        && name.as_bytes()[0].is_ascii_alphanumeric()
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-' | b'.'))
        && !name.contains("..");
    if ok {
        return Ok(());
    }
    Err(Error::invalid(
        "bad_name",
        format!(
            "{what} name must match [a-z0-9][a-z0-9._-]* without \"..\", at most {} bytes, got {:?}",
            limits::NAME_BYTES_MAX,
            name.chars().take(64).collect::<String>()
        ),
    ))
}

/// What any build can see of a factory string. A build with Faiss asks it, too, when a collection is made.
fn check_factory(factory: &str, metric: Metric) -> Result<()> {
    if !(1..=limits::FACTORY_BYTES_MAX).contains(&factory.len()) || !factory.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(Error::invalid(
            "bad_index",
            format!(
                "factory must be 1 to {} printable ASCII characters without spaces, got {:?}",
                limits::FACTORY_BYTES_MAX,
                factory.chars().take(64).collect::<String>()
            ),
        ));
    }
    match metric {
        Metric::Cosine | Metric::Dot | Metric::Euclid => Ok(()),
        Metric::Manhattan | Metric::Hamming => Err(Error::invalid(
            "bad_index",
            "a faiss index compares by cosine, dot or euclid, not by manhattan or hamming",
        )),
    }
}

/// What there is to say of vectors of zeros and ones.
fn check_bits(spec: &VectorSpec) -> Result<()> {
    if !spec.dim.is_multiple_of(u8::BITS) {
        return Err(Error::invalid(
            "bad_dim",
            format!(
                "vectors compared by hamming have a multiple of {} dimensions, got {}: add zeros to all of them",
                u8::BITS,
                spec.dim
            ),
        )
        .at("/dim"));
    }
    match &spec.embedder {
        None => Ok(()),
        Some(embedder) => Err(Error::invalid(
            "bad_metric",
            format!(
                "hamming compares zeros and ones, embedder {} makes other numbers: use cosine, dot or euclid, or give vectors",
                embedder.name
            ),
        )
        .at("/metric")),
    }
}

impl Schema {
    /// Refuses what this build cannot keep its promises for. Analyzers are checked by `text`, which knows them.
    pub fn check(&self) -> Result<()> {
        let too_many =
            |what, n: usize, max: usize| Error::invalid("schema_too_large", format!("at most {max} {what}, got {n}"));
        if self.vectors.len() > limits::VECTORS_MAX {
            return Err(too_many("vectors", self.vectors.len(), limits::VECTORS_MAX).at("/vectors"));
        }
        if self.sparse.len() > limits::SPARSE_VECTORS_MAX {
            return Err(too_many("sparse vectors", self.sparse.len(), limits::SPARSE_VECTORS_MAX).at("/sparse"));
        }
        if self.fields.len() > limits::FIELDS_MAX {
            return Err(too_many("fields", self.fields.len(), limits::FIELDS_MAX).at("/fields"));
        }
        if self.shards == 0 || self.shards > limits::SHARDS_MAX {
            return Err(Error::invalid(
                "bad_shards",
                format!("shards must be 1 to {}, got {}", limits::SHARDS_MAX, self.shards),
            )
            .at("/shards"));
        }
        for (name, spec) in &self.vectors {
            let at = format!("/vectors/{name}");
            check_name("vector", name).map_err(|e| e.at(&at))?;
            if spec.dim == 0 || spec.dim as usize > limits::DIM_MAX {
                return Err(Error::invalid(
                    "bad_dim",
                    format!("dim must be 1 to {}, got {}", limits::DIM_MAX, spec.dim),
                )
                .at(format!("{at}/dim")));
            }
            if spec.metric == Metric::Hamming {
                check_bits(spec).map_err(|e| e.at(&at))?;
            }
            if let Some(e) = &spec.embedder
                && e.dim != spec.dim
            {
                return Err(Error::invalid(
                    "bad_dim",
                    format!(
                        "embedder {} makes {} dimensions, the vector has {}",
                        e.name, e.dim, spec.dim
                    ),
                )
                .at(at));
            }
            if let IndexSpec::Faiss { factory } = &spec.index {
                check_factory(factory, spec.metric).map_err(|e| e.at(format!("{at}/index/factory")))?;
            }
            if let IndexSpec::Hnsw { m, ef_construction } = spec.index {
                if !(2..=256).contains(&m) {
                    return Err(
                        Error::invalid("bad_index", format!("m must be 2 to 256, got {m}")).at(format!("{at}/index/m"))
                    );
                }
                if !(m..=4096).contains(&ef_construction) {
                    return Err(Error::invalid(
                        "bad_index",
                        format!("ef_construction must be m to 4096, got {ef_construction}"),
                    )
                    .at(format!("{at}/index/ef_construction")));
                }
            }
            if let IndexSpec::Ivf { nlist: Some(nlist) } = spec.index
                && !(1..=limits::LISTS_MAX).contains(&nlist)
            {
                return Err(Error::invalid(
                    "bad_index",
                    format!("nlist must be 1 to {}, got {nlist}", limits::LISTS_MAX),
                )
                .at(format!("{at}/index/nlist")));
            }
        }
        for name in self.sparse.keys() {
            let at = format!("/sparse/{name}");
            check_name("vector", name).map_err(|e| e.at(&at))?;
            if self.vectors.contains_key(name) {
                return Err(Error::invalid(
                    "bad_name",
                    format!("{name:?} is the name of a dense vector already: a name is one or the other"),
                )
                .at(at));
            }
        }
        for path in self.fields.keys() {
            let at = format!("/fields/{path}");
            if path.is_empty() || path.len() > limits::NAME_BYTES_MAX || path.split('.').any(str::is_empty) {
                return Err(Error::invalid(
                    "bad_field",
                    format!(
                        "a field is a dotted path of 1 to {} bytes without empty parts",
                        limits::NAME_BYTES_MAX
                    ),
                )
                .at(at));
            }
        }
        let c = &self.chunking;
        if !(16..=8192).contains(&c.max_tokens) || c.overlap_tokens > c.max_tokens / 2 {
            return Err(Error::invalid(
                "bad_chunking",
                format!(
                    "max_tokens must be 16 to 8192 and overlap_tokens at most half of it, got {} and {}",
                    c.max_tokens, c.overlap_tokens
                ),
            )
            .at("/chunking"));
        }
        Ok(())
    }

    /// The declared text fields, in path order.
    pub fn text_fields(&self) -> impl Iterator<Item = (&str, &AnalyzerSpec)> {
        self.fields.iter().filter_map(|(path, spec)| match spec {
            FieldSpec::Text { analyzer } => Some((path.as_str(), analyzer)),
            FieldSpec::Keyword {}
            | FieldSpec::Integer {}
            | FieldSpec::Float {}
            | FieldSpec::Bool {}
            | FieldSpec::Stored {} => None,
        })
    }
}
