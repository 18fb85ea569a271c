//! Documents: text in; cut, embedded where it is new, and stored as one atomic record.
//!
//! A document that is the same in everything that decides its chunks is not written; a chunk whose text is stored
//! already, in the same document, is not embedded again. Both are decided by checksums, never by times or lengths.

use std::collections::HashMap;

use cairn_engine::engine::{ChunkInput, ChunkVectors, DocumentInfo, DocumentInput, WriteOptions};
use cairn_engine::op::Applied;
use cairn_engine::query::With;
use cairn_engine::schema::{ChunkStrategy, Schema};
use cairn_engine::types::{Durability, Payload, Point, PointId, PointInput, Token};
use cairn_engine::{Error, Result, limits};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use xxhash_rust::xxh3::Xxh3;

use super::bounds::{BATCH_DOCUMENTS_MAX, DEFAULT_PAGE, REQUEST_TEXT_BYTES_MAX};
use super::collections::applied;
use super::embed::{By, Embedding, embed_sparse_texts, embed_texts};
use super::intake::{self, DocumentText, Like, NEAR_KEY, OnNearDuplicate, Signature};
use super::points::{WriteParams, write_options};
use super::pools::Budget;
use super::{Call, Core, Service, check_count, check_limit};
use crate::rag::chunk::{self, Chunk, ChunkSettings, Cut};
use crate::rag::embed::TextKind;
use crate::rag::extract::Extracted;
use crate::rag::tokens;
use crate::rag::trust::{self, PROVENANCE_KEY, TRUST_KEY};

/// Keys of a chunk's payload that are ours; metadata may not use them.
pub const RESERVED_KEYS: [&str; 10] = [
    "text",
    "title",
    "heading",
    "source",
    "document",
    "chunk",
    "span",
    TRUST_KEY,
    PROVENANCE_KEY,
    NEAR_KEY,
];

/// Part of every document's checksum: raise it when the same input would give other chunks or payloads.
const CHUNKS_VERSION: u32 = 2;

/// What putting one document did.
#[derive(Debug, Clone, PartialEq)]
pub struct PutOne {
    /// Its id.
    pub id: PointId,
    /// The stored document was the same.
    pub unchanged: bool,
    /// Chunks it has now.
    pub chunks: usize,
    /// Chunks that had to be embedded.
    pub embedded: usize,
    /// The stored document that this one says almost the same as. Not looked for if nothing changed.
    pub near_duplicate_of: Option<PointId>,
    /// Not stored, because it is a near duplicate and the request said so.
    pub skipped: bool,
    /// The write; none if nothing was written.
    pub token: Option<Token>,
    /// How safe it is.
    pub durability: Durability,
    /// The request had stored it before.
    pub replayed: bool,
}

/// What putting several did.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PutAll {
    /// One for each document, in order.
    pub results: Vec<PutOne>,
    /// The last write; none if nothing was written.
    pub token: Option<Token>,
    /// How safe the least safe of them is.
    pub durability: Durability,
}

/// A document, and its chunks if asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct DocumentView {
    /// The document.
    pub info: DocumentInfo,
    /// In order.
    pub chunks: Option<Vec<Point>>,
    /// Of the chunks' texts.
    pub bytes: usize,
}

/// A page of documents.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DocumentsPage {
    /// In id order.
    pub documents: Vec<DocumentInfo>,
    /// Give this back for the next page; none at the end.
    pub next: Option<PointId>,
}

impl Service {
    /// Puts documents, each atomically, in order. All are checked and cut before the first is written.
    pub async fn put_documents(
        &self,
        call: Call,
        collection: String,
        documents: Vec<DocumentText>,
        on_near_duplicate: OnNearDuplicate,
        params: WriteParams,
    ) -> Result<PutAll> {
        self.write(call, "Documents.Put", move |core, budget| {
            let schema = core.schema(&collection)?;
            check_count("documents", documents.len(), BATCH_DOCUMENTS_MAX, "/documents")?;
            let target = core.target(&collection, &schema, on_near_duplicate)?;
            let mut prepared = Vec::with_capacity(documents.len());
            let mut text_bytes = 0;
            for (i, document) in documents.into_iter().enumerate() {
                let options = put_options(budget, &params, &target, &document, i)?;
                let one = core.prepare_once(&target, document, options, budget).and_then(|one| {
                    text_bytes += match &one {
                        Todo::Put(one, _) => one.text.text.len(),
                        Todo::Done(_) => 0,
                    };
                    check_text_bytes(text_bytes).map(|()| one)
                });
                prepared.push(one.map_err(|e| e.at(format!("/documents/{i}")))?);
            }
            let mut all = PutAll::default();
            for (i, todo) in prepared.into_iter().enumerate() {
                let one = core.put_once(&target, todo, budget).map_err(|mut e| {
                    if i > 0 {
                        e.message = format!("{}; the {i} documents before it were stored", e.message);
                    }
                    e.at(format!("/documents/{i}"))
                })?;
                // What an earlier try had done is older than what this one writes.
                let writes = |one: &PutOne| !one.replayed && one.token.is_some();
                if !one.replayed || !all.results.iter().any(writes) {
                    all.token = one.token.or(all.token);
                }
                if one.durability == Durability::Async {
                    all.durability = Durability::Async;
                }
                all.results.push(one);
            }
            Ok(all)
        })
        .await
    }

    /// Puts one document of a stream.
    pub async fn put_document(
        &self,
        call: Call,
        collection: String,
        document: DocumentText,
        on_near_duplicate: OnNearDuplicate,
        params: WriteParams,
    ) -> Result<PutOne> {
        self.write(call, "Documents.PutStream", move |core, budget| {
            let schema = core.schema(&collection)?;
            let target = core.target(&collection, &schema, on_near_duplicate)?;
            let options = put_options(budget, &params, &target, &document, 0)?;
            let put = || {
                let todo = core.prepare_once(&target, document, options, budget)?;
                core.put_once(&target, todo, budget)
            };
            put().map_err(|e| e.at("/document"))
        })
        .await
    }

    /// One document (`document_not_found` if there is none).
    pub async fn document(&self, call: Call, collection: String, id: PointId, chunks: bool) -> Result<DocumentView> {
        self.read(call, "Documents.Get", move |core, budget| {
            core.schema(&collection)?;
            let with = With {
                payload: true,
                ..With::default()
            };
            // Read together, so that the document and its chunks are of one moment.
            let found = if chunks {
                let found = core
                    .engine
                    .document_with_chunks(&collection, &id, with, budget.patience())?;
                found.map(|(info, chunks)| (info, Some(chunks)))
            } else {
                core.engine.document(&collection, &id)?.map(|info| (info, None))
            };
            let (info, chunks) = found.ok_or_else(|| {
                Error::not_found(
                    "document_not_found",
                    format!("collection {collection:?} has no document {:?}", id.as_str()),
                )
            })?;
            // Chunks repeat a little of each other, and carry what the document does: about this much.
            let bytes = chunks
                .as_ref()
                .map_or(0, |_| usize::try_from(info.text_bytes).unwrap_or(usize::MAX));
            Ok(DocumentView { info, chunks, bytes })
        })
        .await
    }

    /// Deletes documents with their chunks; missing ids are ignored.
    pub async fn delete_documents(
        &self,
        call: Call,
        collection: String,
        ids: Vec<PointId>,
        params: WriteParams,
    ) -> Result<Applied> {
        self.write(call, "Documents.Delete", move |core, budget| {
            core.schema(&collection)?;
            check_count("ids", ids.len(), limits::BATCH_POINTS_MAX, "/ids")?;
            let options = write_options(budget, params, |f| {
                f.text("delete_documents").text(&collection).ids(&ids);
            })?;
            core.engine
                .delete_documents(&collection, ids, &options)
                .and_then(applied)
        })
        .await
    }

    /// A page of documents in id order.
    pub async fn documents(
        &self,
        call: Call,
        collection: String,
        after: Option<PointId>,
        limit: Option<usize>,
    ) -> Result<DocumentsPage> {
        self.read(call, "Documents.List", move |core, budget| {
            core.schema(&collection)?;
            let limit = limit.unwrap_or(DEFAULT_PAGE);
            check_limit(limit)?;
            // One more tells whether there is a next page. The largest page cannot ask for it: a full one may be the last.
            let asked = (limit + 1).min(limits::TOP_K_MAX);
            let mut documents = core
                .engine
                .documents(&collection, after.as_ref(), asked, budget.patience())?;
            let more = documents.len() >= asked;
            documents.truncate(limit);
            let next = more.then(|| documents.last().map(|d| d.id.clone())).flatten();
            Ok(DocumentsPage { documents, next })
        })
        .await
    }
}

/// Where documents go.
struct Target<'a> {
    collection: &'a str,
    schema: &'a Schema,
    /// What chunks are embedded for, and by whom.
    embeddings: Vec<Embedding>,
    on_near_duplicate: OnNearDuplicate,
}

/// A document with everything that could be wrong with it checked, but for what the engine says of its metadata.
struct Prepared {
    id: PointId,
    /// Without its content.
    document: DocumentText,
    text: Extracted,
    title: String,
    checksum: [u8; 16],
    /// None if the stored document was the same when this was prepared.
    chunks: Option<Vec<Chunk>>,
}

/// A document of a request.
enum Todo {
    /// To be put.
    Put(Box<Prepared>, WriteOptions),
    /// The request was done before, and this is what it did.
    Done(PutOne),
}

/// What a document's record keeps for a repetition of its request.
#[derive(Serialize, Deserialize)]
struct PutNote {
    id: PointId,
    chunks: usize,
    embedded: usize,
    near_duplicate_of: Option<PointId>,
}

impl PutNote {
    fn encode(one: &PutOne) -> Result<Vec<u8>> {
        let note = Self {
            id: one.id.clone(),
            chunks: one.chunks,
            embedded: one.embedded,
            near_duplicate_of: one.near_duplicate_of.clone(),
        };
        serde_json::to_vec(&note).map_err(|e| Error::internal(format!("a request's note: {e}")))
    }

    fn decode(done: &Applied) -> Result<PutOne> {
        let note: Self =
            serde_json::from_slice(&done.note).map_err(|e| Error::damaged(format!("requests: a note: {e}")))?;
        Ok(PutOne {
            id: note.id,
            unchanged: done.changed == 0,
            chunks: note.chunks,
            embedded: note.embedded,
            near_duplicate_of: note.near_duplicate_of,
            skipped: false,
            token: (done.changed > 0).then_some(done.token),
            durability: done.durability,
            replayed: true,
        })
    }
}

/// Each document of a request is a record of its own, so it is a part of the request.
fn put_options(
    budget: &Budget,
    params: &WriteParams,
    target: &Target<'_>,
    document: &DocumentText,
    i: usize,
) -> Result<WriteOptions> {
    let mut options = write_options(budget, params.clone(), |f| {
        f.text("put")
            .text(target.collection)
            .number(target.on_near_duplicate as u64);
        f.document(document);
    })?;
    options.request = options.request.map(|request| request.part(i as u32));
    Ok(options)
}

impl Core {
    /// Prepares a document, unless its request stored it before.
    fn prepare_once(
        &self,
        target: &Target<'_>,
        document: DocumentText,
        options: WriteOptions,
        budget: &Budget,
    ) -> Result<Todo> {
        match self.replayed(target.collection, &options)? {
            Some(done) => PutNote::decode(&done).map(Todo::Done),
            None => Ok(Todo::Put(Box::new(self.prepare(target, document, budget)?), options)),
        }
    }

    fn put_once(&self, target: &Target<'_>, todo: Todo, budget: &Budget) -> Result<PutOne> {
        match todo {
            Todo::Done(one) => Ok(one),
            Todo::Put(prepared, options) => self.put(target, *prepared, budget, options),
        }
    }

    fn target<'a>(
        &self,
        collection: &'a str,
        schema: &'a Schema,
        on_near_duplicate: OnNearDuplicate,
    ) -> Result<Target<'a>> {
        intake::check_can_skip(schema, on_near_duplicate)?;
        Ok(Target {
            collection,
            schema,
            embeddings: self.embeddings(schema)?,
            on_near_duplicate,
        })
    }

    fn prepare(&self, target: &Target<'_>, mut document: DocumentText, budget: &Budget) -> Result<Prepared> {
        budget.check()?;
        let id = intake::check(&document)?;
        let mut text = intake::read(&mut document, &self.pdfs, budget)?;
        let given = document.title.take().filter(|title| !title.is_empty());
        let title = given
            .or_else(|| text.title.take())
            .or_else(|| chunk::title_of(&text.text, text.format))
            .unwrap_or_default();
        let checksum = document_checksum(target, &document, &text, &title);
        let stored = self.engine.document(target.collection, &id)?;
        let chunks = match stored.is_some_and(|stored| stored.checksum == checksum) {
            true => None,
            false => Some(cut(target.schema, &text)?),
        };
        Ok(Prepared {
            id,
            document,
            text,
            title,
            checksum,
            chunks,
        })
    }

    fn put(
        &self,
        target: &Target<'_>,
        prepared: Prepared,
        budget: &Budget,
        mut options: WriteOptions,
    ) -> Result<PutOne> {
        budget.check()?;
        let Target {
            collection,
            schema,
            embeddings,
            on_near_duplicate,
        } = target;
        let Prepared {
            id,
            document,
            text,
            title,
            checksum,
            chunks,
        } = prepared;
        let mut result = PutOne {
            id: id.clone(),
            unchanged: false,
            chunks: 0,
            embedded: 0,
            near_duplicate_of: None,
            skipped: false,
            token: None,
            durability: Durability::Sync,
            replayed: false,
        };
        // Asked again: the same id may stand in the request twice.
        let stored = self.engine.document(collection, &id)?;
        if let Some(stored) = &stored
            && stored.checksum == checksum
            && stored.whole
        {
            result.unchanged = true;
            result.chunks = usize::try_from(stored.chunks).unwrap_or(usize::MAX);
            result.durability = self.engine.durability_of(collection, stored.version, &options)?;
            return Ok(result);
        }

        let chunks = match chunks {
            Some(chunks) => chunks,
            None => cut(schema, &text)?,
        };
        check_carried(&document, &title, chunks.len())?;
        let signature = Signature::of(schema, &chunks);
        let like = match &signature {
            Some(signature) => self.near_duplicate(collection, &id, document.trust, signature, budget)?,
            None => Like::default(),
        };
        // A stored document is replaced, whatever the new version is like: else the old one would stay.
        if *on_near_duplicate == OnNearDuplicate::Skip && stored.is_none() && like.instead.is_some() {
            result.near_duplicate_of = like.instead;
            result.skipped = true;
            return Ok(result);
        }
        result.near_duplicate_of = like.most;
        let checksums: Vec<[u8; 16]> = chunks.iter().map(|c| chunk_checksum(embeddings, &c.text)).collect();
        let (mut by_checksum, embedded) = if embeddings.is_empty() {
            (HashMap::new(), 0)
        } else {
            let stored = self.engine.chunk_vectors(collection, &id, budget.patience())?;
            embed_missing(&chunks, &checksums, embeddings, stored, budget)?
        };
        result.chunks = chunks.len();
        result.embedded = embedded;

        // The labels go where the metadata goes: into every chunk, and beside the document.
        let mut metadata = document.metadata;
        trust::label(&mut metadata, document.trust, &document.provenance);
        let mut inputs = Vec::with_capacity(chunks.len());
        for (n, (chunk, checksum)) in chunks.into_iter().zip(checksums).enumerate() {
            // Equal chunks of one document share a vector: it is cloned, not moved.
            let vectors = by_checksum.get(&checksum).cloned().unwrap_or_default();
            let mut payload = payload(&metadata, &title, &document.source, &id, n, chunk);
            if let (0, Some(signature)) = (n, &signature) {
                payload.insert(NEAR_KEY.into(), signature.bands.as_slice().into());
            }
            let point = PointInput {
                id: PointId::new(format!("{id}#{n}"))?,
                vectors: vectors.dense,
                sparse: vectors.sparse,
                payload,
                document: Some(id.clone()),
                expires_at_ms: None,
            };
            inputs.push(ChunkInput { checksum, point });
        }
        by_checksum.clear();
        let input = DocumentInput {
            id,
            title,
            source: document.source,
            metadata,
            checksum,
            text_bytes: text.text.len() as u64,
            chunks: inputs,
        };
        if let Some(request) = &mut options.request {
            request.note = PutNote::encode(&result)?;
        }
        let done = self
            .engine
            .put_document(collection, input, &options)
            .and_then(applied)
            .map_err(in_metadata)?;
        if done.replayed {
            // Another attempt of this request was faster.
            return PutNote::decode(&done);
        }
        result.durability = done.durability;
        result.unchanged = done.changed == 0;
        result.token = (done.changed > 0).then_some(done.token);
        Ok(result)
    }
}

/// Vectors by chunk checksum, stored ones reused; and how many chunks had to be embedded. A chunk that holds nothing
/// an embedder knows gets no vector of it: it is found by its words only.
fn embed_missing(
    chunks: &[Chunk],
    checksums: &[[u8; 16]],
    embeddings: &[Embedding],
    stored: HashMap<[u8; 16], ChunkVectors>,
    budget: &Budget,
) -> Result<(HashMap<[u8; 16], ChunkVectors>, usize)> {
    let names = embeddings.iter().flat_map(|e| &e.names);
    let mut by_checksum: HashMap<[u8; 16], ChunkVectors> = HashMap::with_capacity(chunks.len());
    let mut missing: Vec<(&str, [u8; 16])> = Vec::new();
    for (chunk, checksum) in chunks.iter().zip(checksums) {
        if by_checksum.contains_key(checksum) {
            continue;
        }
        match stored.get(checksum).filter(|v| {
            names
                .clone()
                .all(|name| v.dense.contains_key(name) || v.sparse.contains_key(name))
        }) {
            Some(vectors) => {
                by_checksum.insert(*checksum, vectors.clone());
            }
            None => {
                by_checksum.insert(*checksum, ChunkVectors::default());
                missing.push((&chunk.text, *checksum));
            }
        }
    }
    let texts: Vec<&str> = missing.iter().map(|(text, _)| *text).collect();
    for embedding in embeddings {
        let names = &embedding.names;
        match &embedding.by {
            By::Dense(embedder) => {
                let vectors = embed_texts(embedder.as_ref(), &texts, TextKind::Passage, budget)?;
                for ((_, checksum), vector) in missing.iter().zip(vectors) {
                    let Some(vector) = vector else { continue };
                    let of_chunk = by_checksum.entry(*checksum).or_default();
                    of_chunk
                        .dense
                        .extend(names.iter().map(|name| (name.clone(), vector.clone())));
                }
            }
            By::Sparse(embedder) => {
                let vectors = embed_sparse_texts(embedder.as_ref(), &texts, TextKind::Passage, budget)?;
                for ((_, checksum), vector) in missing.iter().zip(vectors) {
                    let Some(vector) = vector else { continue };
                    let of_chunk = by_checksum.entry(*checksum).or_default();
                    of_chunk
                        .sparse
                        .extend(names.iter().map(|name| (name.clone(), vector.clone())));
                }
            }
        }
    }
    Ok((by_checksum, missing.len()))
}

/// Refuses a document whose chunks would together carry more than a record holds, before they are made: each carries title,
/// source, metadata and labels.
fn check_carried(document: &DocumentText, title: &str, chunks: usize) -> Result<()> {
    let labels = json!([document.metadata, document.provenance]).to_string().len();
    let each = labels + title.len() + document.source.len();
    if each.saturating_mul(chunks) <= limits::RECORD_BYTES_MAX {
        return Ok(());
    }
    Err(Error::invalid(
        "document_too_large",
        format!(
            "every chunk carries the title, the source and the metadata: {chunks} chunks of {each} bytes are more than the {} \
             bytes of a document; shorten them",
            limits::RECORD_BYTES_MAX
        ),
    )
    .at("/metadata"))
}

/// Everything that decides a document's chunks and their payloads.
fn document_checksum(target: &Target<'_>, document: &DocumentText, text: &Extracted, title: &str) -> [u8; 16] {
    let embedded = |e: &Embedding| json!([e.names, e.fingerprint()]);
    let about = json!([
        CHUNKS_VERSION,
        text.format,
        title,
        document.source,
        document.metadata,
        document.trust,
        document.provenance,
        target.schema.chunking,
        target.embeddings.iter().map(embedded).collect::<Vec<_>>(),
        tokens::BERT_UNCASED,
    ]);
    let mut hash = Xxh3::new();
    hash.update(about.to_string().as_bytes());
    hash.update(&[0]);
    hash.update(text.text.as_bytes());
    hash.digest128().to_le_bytes()
}

/// What decides a chunk's vectors: its text and the models.
fn chunk_checksum(embeddings: &[Embedding], text: &str) -> [u8; 16] {
    let mut hash = Xxh3::new();
    for embedding in embeddings {
        let of = embedding.fingerprint();
        for part in [&of.name, &of.revision, &of.passage_prefix] {
            hash.update(part.as_bytes());
            hash.update(&[0]);
        }
    }
    hash.update(text.as_bytes());
    hash.digest128().to_le_bytes()
}

/// Bounds the text that was read out of files.
fn check_text_bytes(bytes: usize) -> Result<()> {
    if bytes <= REQUEST_TEXT_BYTES_MAX {
        return Ok(());
    }
    Err(Error::invalid(
        "request_too_large",
        format!("the documents of a request may hold {REQUEST_TEXT_BYTES_MAX} bytes of text: send fewer"),
    ))
}

/// The engine points into chunks that the caller never saw. What it can refuse of a chunk came from the metadata.
fn in_metadata(mut error: Error) -> Error {
    if let Some(pointer) = error.pointer.take_if(|p| p.starts_with("/chunks/")) {
        error.pointer = pointer
            .split_once("/payload")
            .map(|(_, inner)| format!("/metadata{inner}"));
    }
    error
}

fn cut(schema: &Schema, text: &Extracted) -> Result<Vec<Chunk>> {
    let settings = ChunkSettings {
        max_tokens: schema.chunking.max_tokens as usize,
        overlap_tokens: schema.chunking.overlap_tokens as usize,
        strategy: match schema.chunking.strategy {
            ChunkStrategy::Structure => Cut::Structure,
            ChunkStrategy::Sentence => Cut::Sentence,
            ChunkStrategy::Fixed => Cut::Fixed,
        },
    };
    let counter = tokens::counter(tokens::BERT_UNCASED).map_err(|e| Error::internal(e.to_string()))?;
    let chunks = chunk::chunk(&text.text, text.format, &settings, &|text| counter.count(text));
    if chunks.is_empty() {
        return Err(Error::invalid(
            "empty_document",
            "a document's text must hold more than white space and front matter",
        )
        .at("/text"));
    }
    if chunks.len() > limits::DOCUMENT_CHUNKS_MAX {
        return Err(Error::invalid(
            "document_too_large",
            format!(
                "a document may have {} chunks, this one would have {}: split it, or raise max_tokens",
                limits::DOCUMENT_CHUNKS_MAX,
                chunks.len()
            ),
        )
        .at("/text"));
    }
    Ok(chunks)
}

/// A chunk's payload: the document's metadata with its labels, and the seven keys that citations need.
fn payload(metadata: &Payload, title: &str, source: &str, id: &PointId, n: usize, chunk: Chunk) -> Payload {
    let mut payload = metadata.clone();
    let ours: [(&str, Value); 7] = [
        ("text", chunk.text.into()),
        ("title", title.into()),
        ("heading", chunk.heading.into()),
        ("source", source.into()),
        ("document", id.as_str().into()),
        ("chunk", n.into()),
        ("span", json!([chunk.span.0, chunk.span.1])),
    ];
    debug_assert!(
        ours.iter().all(|(key, _)| RESERVED_KEYS.contains(key)),
        "the reserved keys are those we write"
    );
    payload.extend(ours.map(|(key, value)| (key.to_owned(), value)));
    payload
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_carries_its_citation_and_the_metadata() {
        let metadata = json!({"lang": "en"}).as_object().unwrap().clone();
        let chunk = Chunk {
            text: "t".into(),
            span: (3, 4),
            heading: vec!["H".into()],
            tokens: 1,
        };
        let payload = payload(&metadata, "T", "s.md", &PointId::new("d").unwrap(), 2, chunk);
        let expected = json!({"lang": "en", "text": "t", "title": "T", "heading": ["H"], "source": "s.md",
                              "document": "d", "chunk": 2, "span": [3, 4]});
        assert_eq!(Value::Object(payload), expected);
    }

    #[test]
    fn what_every_chunk_carries_counts_as_often_as_there_are_chunks() {
        let document = |bytes: usize| DocumentText {
            metadata: json!({"note": "x".repeat(bytes)}).as_object().unwrap().clone(),
            ..DocumentText::default()
        };
        let most = limits::RECORD_BYTES_MAX;
        assert!(check_carried(&document(most / 200), "title", 100).is_ok());
        // Before, ten gigabytes were made of such a request, and then refused.
        let error = check_carried(&document(1 << 20), "title", limits::DOCUMENT_CHUNKS_MAX).unwrap_err();
        assert_eq!(
            (error.code, error.pointer.as_deref()),
            ("document_too_large", Some("/metadata"))
        );
        assert!(check_carried(&document(0), &"t".repeat(most), 2).is_err());
    }
}
