//! Collections: make, look at, remove, list; and the preset that makes a collection ready for documents.

use std::collections::BTreeMap;

use cairn_engine::engine::CollectionInfo;
use cairn_engine::op::Applied;
use cairn_engine::schema::{AnalyzerSpec, FieldSpec, IndexSpec, Metric, Quantization, Schema, VectorSpec};
use cairn_engine::{Error, ErrorKind, Result};

use super::embed::fingerprint;
use super::points::{WriteParams, write_options};
use super::{Call, Core, Service, check_collection};
use crate::rag::retrieval;

/// What a collection should be.
#[derive(Debug, Clone, PartialEq)]
pub struct CreateCollection {
    /// Its name.
    pub name: String,
    /// Its definition. Without vectors, sparse vectors and fields it is the documents preset, with the given shards, chunking and
    /// `dynamic`.
    pub schema: Schema,
}

/// A collection and its state.
#[derive(Debug, Clone, PartialEq)]
pub struct CollectionView {
    /// As the engine has it.
    pub info: CollectionInfo,
    /// What the caller should know of it.
    pub notes: Vec<String>,
}

impl Service {
    /// Makes a collection; again with an equal schema is not an error.
    pub async fn create_collection(&self, call: Call, create: CreateCollection) -> Result<CollectionView> {
        self.write(call, "Collections.Create", move |core, _| {
            core.create_collection(create)
        })
        .await
    }

    /// One collection and its state.
    pub async fn collection(&self, call: Call, name: String) -> Result<CollectionView> {
        self.read(call, "Collections.Get", move |core, _| {
            check_collection(&name)?;
            core.engine.collection(&name).map(|info| core.view(info))
        })
        .await
    }

    /// Removes a collection and everything in it.
    pub async fn delete_collection(&self, call: Call, name: String, request_id: Option<String>) -> Result<Applied> {
        self.write(call, "Collections.Delete", move |core, budget| {
            check_collection(&name)?;
            let params = WriteParams {
                request_id,
                durability: None,
            };
            let options = write_options(budget, params, |f| {
                f.text("delete_collection").text(&name);
            })?;
            core.engine.drop_collection(&name, &options).and_then(applied)
        })
        .await
    }

    /// Names of all collections, in order.
    pub async fn collections(&self, call: Call) -> Result<Vec<String>> {
        self.read(call, "Collections.List", |core, _| Ok(core.engine.collection_names()))
            .await
    }
}

impl Core {
    fn create_collection(&self, create: CreateCollection) -> Result<CollectionView> {
        check_collection(&create.name)?;
        let mut schema = create.schema;
        if schema.vectors.is_empty() && schema.sparse.is_empty() && schema.fields.is_empty() {
            (schema.vectors, schema.fields) = self.documents_preset();
        }
        self.complete(&mut schema).map_err(|e| e.at("/schema"))?;
        schema.check().map_err(|e| e.at("/schema"))?;
        let made = self.engine.create_collection(&create.name, schema);
        made.map(|info| self.view(info))
    }

    /// Says which background work fails, and for which vectors nothing can be embedded, because this server does not have the
    /// model that they record. Callers may have it, and bring the vectors; who only mistook the name learns it here, and not
    /// from the first document.
    fn view(&self, info: CollectionInfo) -> CollectionView {
        let lacking = |name: &String, e: Error| format!("nothing can be embedded for vector {name:?}: {}", e.message);
        let dense = info.schema.vectors.iter().filter_map(|(name, spec)| {
            let missing = self.embedder(spec.embedder.as_ref()?).err()?;
            Some(lacking(name, missing))
        });
        let sparse = info.schema.sparse.iter().filter_map(|(name, spec)| {
            let missing = self.sparse_embedder(spec.embedder.as_ref()?).err()?;
            Some(lacking(name, missing))
        });
        let failing = info.failing.iter().map(|failure| format!("indexing fails: {failure}"));
        let notes = dense.chain(sparse).chain(failing).collect();
        CollectionView { info, notes }
    }

    /// Vectors of the default embedder, full text over text and title, and what citations need.
    fn documents_preset(&self) -> (BTreeMap<String, VectorSpec>, BTreeMap<String, FieldSpec>) {
        let embedder = fingerprint(self.models.default_embedder().fingerprint());
        let vector = VectorSpec {
            dim: embedder.dim,
            metric: Metric::Cosine,
            index: IndexSpec::default(),
            quantization: Quantization::default(),
            embedder: Some(embedder),
        };
        let text = || FieldSpec::Text {
            analyzer: AnalyzerSpec::default(),
        };
        let fields = [
            ("text", text()),
            ("title", text()),
            ("document", FieldSpec::Keyword {}),
            ("source", FieldSpec::Keyword {}),
        ];
        (
            BTreeMap::from([(retrieval::DENSE.to_owned(), vector)]),
            fields.into_iter().map(|(path, spec)| (path.to_owned(), spec)).collect(),
        )
    }
}

/// A record that was durable but changed nothing is an error for its caller.
pub(super) fn applied(applied: Applied) -> Result<Applied> {
    match applied.refused {
        None => Ok(applied),
        Some(refused) => Err(refused),
    }
}

/// An empty schema: what an absent one in a request means.
pub(crate) fn empty_schema() -> Schema {
    Schema {
        vectors: BTreeMap::new(),
        sparse: BTreeMap::new(),
        fields: BTreeMap::new(),
        dynamic: true,
        shards: 1,
        chunking: cairn_engine::schema::Chunking::default(),
        durability: None,
    }
}

/// True for the error of making what exists already, which gRPC has a status of its own for.
pub(crate) fn already_exists(error: &Error) -> bool {
    error.kind == ErrorKind::Conflict && matches!(error.code, "collection_exists" | "snapshot_exists")
}
