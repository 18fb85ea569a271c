//! Every model of this server by name: dense embedders, sparse embedders, rerankers. Made from the configuration at
//! start, never changed after.
//!
//! A model that cannot be made refuses the start of the server, with the name of its table in the configuration: a
//! collection whose embedder is silently missing would fail request by request instead.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::embed::http::{Dialect, HttpEmbedder};
use super::embed::{
    Bert, Cached, CachedSparse, Embedder, EmbeddingCache, Fingerprint, SparseEmbedder, Splade, StaticMiniLm, Workers,
};
use super::language::Languages;
use super::rerank::http::{Dialect as RerankDialect, HttpReranker};
use super::rerank::{Late, Reranker};
use super::retrieval;
use crate::config::{Config, EmbedderConfig, RerankerConfig};

/// Name of the embedder that every server has.
pub const BUILTIN_EMBEDDER: &str = "static-minilm-256";

/// Every model of this server.
pub struct Models {
    embedders: BTreeMap<String, Arc<dyn Embedder>>,
    sparse: BTreeMap<String, Arc<dyn SparseEmbedder>>,
    rerankers: BTreeMap<String, Arc<dyn Reranker>>,
    default_embedder: Arc<dyn Embedder>,
    /// Local models whose token vectors rerankers may use.
    local: BTreeMap<String, Arc<Bert>>,
    /// What configured embedders look into first.
    cache: Option<Arc<EmbeddingCache>>,
    /// What local models compute on; none until the first one is made.
    workers: Option<Arc<Workers>>,
    /// What the configuration says of dense embedders, by name.
    roles: BTreeMap<String, Role>,
}

/// The part that a dense embedder plays in the default hybrid. Not in its fingerprint: it changes no vector.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Role {
    /// Texts in other languages are left to BM25.
    pub languages: Languages,
    /// Weight of its leg, where BM25 has 1.
    pub weight: f32,
}

impl Role {
    /// The built-in table's.
    const BUILTIN: Self = Self {
        languages: Languages::English,
        weight: retrieval::STATIC_DENSE_WEIGHT,
    };

    /// That of a model of the configuration.
    fn of(config: &EmbedderConfig) -> Self {
        let (languages, weight) = match config {
            EmbedderConfig::Bert(local) | EmbedderConfig::Splade(local) => (local.languages, local.hybrid_weight),
            EmbedderConfig::Openai(http) | EmbedderConfig::Tei(http) => (http.languages, http.hybrid_weight),
        };
        Self {
            languages,
            weight: weight.unwrap_or(retrieval::MODEL_DENSE_WEIGHT),
        }
    }
}

/// Why the models could not be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{table}: {why}")]
pub struct ModelError {
    /// The table of the configuration, e.g. `embedders.minilm`.
    pub table: String,
    /// What is wrong.
    pub why: String,
}

impl ModelError {
    fn new(table: String, why: impl Into<String>) -> Self {
        Self { table, why: why.into() }
    }
}

impl Models {
    /// Only what is compiled into the binary.
    pub fn builtin() -> Self {
        let builtin: Arc<dyn Embedder> = Arc::new(StaticMiniLm::builtin());
        Self {
            embedders: BTreeMap::from([(BUILTIN_EMBEDDER.to_owned(), Arc::clone(&builtin))]),
            sparse: BTreeMap::new(),
            rerankers: BTreeMap::new(),
            default_embedder: builtin,
            local: BTreeMap::new(),
            cache: None,
            workers: None,
            roles: BTreeMap::from([(BUILTIN_EMBEDDER.to_owned(), Role::BUILTIN)]),
        }
    }

    /// What is compiled in and what the configuration names. Reads model directories and asks services who they are, so
    /// it may take seconds.
    pub fn open(config: &Config) -> Result<Self, ModelError> {
        let mut models = Self::builtin();
        if config.embedding_cache_bytes > 0 {
            let cache = EmbeddingCache::new(config.embedding_cache_bytes, rand::random());
            models.cache = Some(Arc::new(cache));
        }
        for (name, embedder) in &config.embedders {
            let made = models.add_embedder_of(name, embedder);
            made.map_err(|why| ModelError::new(format!("embedders.{name}"), why))?;
            models.roles.insert(name.clone(), Role::of(embedder));
        }
        for (name, reranker) in &config.rerankers {
            let made = models.add_reranker_of(name, reranker);
            made.map_err(|why| ModelError::new(format!("rerankers.{name}"), why))?;
        }
        let default = models.embedder(&config.default_embedder).ok_or_else(|| {
            let names = models.embedder_names().join(", ");
            let why = format!(
                "must name a dense embedder, one of {names}; got {:?}",
                config.default_embedder
            );
            let key = "default_embedder".to_owned();
            ModelError::new(key, why)
        })?;
        models.default_embedder = default;
        Ok(models)
    }

    fn add_embedder_of(&mut self, name: &str, config: &EmbedderConfig) -> Result<(), String> {
        match config {
            EmbedderConfig::Bert(local) => {
                let workers = self.workers()?;
                let bert = Bert::open(name, &local.dir, &local.query_prefix, &local.passage_prefix, workers)?;
                let bert = Arc::new(bert);
                self.local.insert(name.to_owned(), Arc::clone(&bert));
                self.add_embedder(self.cached(bert));
            }
            EmbedderConfig::Splade(local) => {
                let workers = self.workers()?;
                let splade = Splade::open(name, &local.dir, &local.query_prefix, &local.passage_prefix, workers)?;
                let splade: Arc<dyn SparseEmbedder> = Arc::new(splade);
                self.add_sparse_embedder(match &self.cache {
                    Some(cache) => Arc::new(CachedSparse::new(splade, Arc::clone(cache))),
                    None => splade,
                });
            }
            EmbedderConfig::Openai(http) => {
                let remote = HttpEmbedder::open(name, Dialect::Openai, http)?;
                self.add_embedder(self.cached(Arc::new(remote)));
            }
            EmbedderConfig::Tei(http) => {
                let remote = HttpEmbedder::open(name, Dialect::Tei, http)?;
                self.add_embedder(self.cached(Arc::new(remote)));
            }
        }
        Ok(())
    }

    /// The same embedder behind the cache, if there is one.
    fn cached(&self, embedder: Arc<dyn Embedder>) -> Arc<dyn Embedder> {
        match &self.cache {
            Some(cache) => Arc::new(Cached::new(embedder, Arc::clone(cache))),
            None => embedder,
        }
    }

    fn workers(&mut self) -> Result<Arc<Workers>, String> {
        if let Some(workers) = &self.workers {
            return Ok(Arc::clone(workers));
        }
        let workers = Arc::new(Workers::new()?);
        self.workers = Some(Arc::clone(&workers));
        Ok(workers)
    }

    fn add_reranker_of(&mut self, name: &str, config: &RerankerConfig) -> Result<(), String> {
        match config {
            RerankerConfig::Late(late) => {
                let model = self.local.get(&late.embedder).cloned().ok_or_else(|| {
                    let names: Vec<&str> = self.local.keys().map(String::as_str).collect();
                    let (wanted, names) = (&late.embedder, names.join(", "));
                    format!("embedder must name one of type bert, there are: {names}; got {wanted:?}")
                })?;
                self.add_reranker(Arc::new(Late::new(name, model)));
            }
            RerankerConfig::Tei(http) => {
                self.add_reranker(Arc::new(HttpReranker::open(name, RerankDialect::Tei, http)?))
            }
            RerankerConfig::Cohere(http) => {
                self.add_reranker(Arc::new(HttpReranker::open(name, RerankDialect::Cohere, http)?));
            }
        }
        Ok(())
    }

    /// Adds a dense embedder under the name of its fingerprint, in the place of one of that name.
    pub fn add_embedder(&mut self, embedder: Arc<dyn Embedder>) {
        self.embedders.insert(embedder.fingerprint().name.clone(), embedder);
    }

    /// Adds a sparse embedder under the name of its fingerprint, in the place of one of that name.
    pub fn add_sparse_embedder(&mut self, embedder: Arc<dyn SparseEmbedder>) {
        self.sparse.insert(embedder.fingerprint().name.clone(), embedder);
    }

    /// Adds a reranker under its name, in the place of one of that name.
    pub fn add_reranker(&mut self, reranker: Arc<dyn Reranker>) {
        self.rerankers.insert(reranker.name().to_owned(), reranker);
    }

    /// The dense embedder of that name.
    pub fn embedder(&self, name: &str) -> Option<Arc<dyn Embedder>> {
        self.embedders.get(name).cloned()
    }

    /// The part that the dense embedder of that name plays in a hybrid.
    pub fn role(&self, name: &str) -> Role {
        let unsaid = Role {
            languages: Languages::Any,
            weight: retrieval::MODEL_DENSE_WEIGHT,
        };
        self.roles.get(name).copied().unwrap_or(unsaid)
    }

    /// The sparse embedder of that name.
    pub fn sparse_embedder(&self, name: &str) -> Option<Arc<dyn SparseEmbedder>> {
        self.sparse.get(name).cloned()
    }

    /// The reranker of that name; without a name, the only one there is.
    pub fn reranker(&self, name: Option<&str>) -> Option<Arc<dyn Reranker>> {
        match name {
            Some(name) => self.rerankers.get(name).cloned(),
            None if self.rerankers.len() == 1 => self.rerankers.values().next().cloned(),
            None => None,
        }
    }

    /// The embedder of collections that are made without a schema.
    pub fn default_embedder(&self) -> &dyn Embedder {
        self.default_embedder.as_ref()
    }

    /// Who the dense embedders are, by name.
    pub fn embedder_fingerprints(&self) -> impl Iterator<Item = &Fingerprint> {
        self.embedders.values().map(|e| e.fingerprint())
    }

    /// Who the sparse embedders are, by name.
    pub fn sparse_fingerprints(&self) -> impl Iterator<Item = &Fingerprint> {
        self.sparse.values().map(|e| e.fingerprint())
    }

    /// Names of the dense embedders, in order.
    pub fn embedder_names(&self) -> Vec<&str> {
        self.embedders.keys().map(String::as_str).collect()
    }

    /// Names of the sparse embedders, in order.
    pub fn sparse_names(&self) -> Vec<&str> {
        self.sparse.keys().map(String::as_str).collect()
    }

    /// Names of the rerankers, in order.
    pub fn reranker_names(&self) -> Vec<&str> {
        self.rerankers.keys().map(String::as_str).collect()
    }
}
