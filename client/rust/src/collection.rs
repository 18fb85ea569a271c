//! Everything that is said to one collection.

use std::collections::BTreeMap;
use std::pin::{Pin, pin};
use std::sync::Arc;

use cairn_proto::v1;
use futures::{Stream, StreamExt, stream};

use crate::client::{Client, request_id};
use crate::documents::{
    Document, DocumentPage, Enrich, Enriched, OnNearDuplicate, PutResult, PutSummary, StoredDocument,
};
use crate::error::{Error, ErrorKind, Result};
use crate::filter::Filter;
use crate::points::{Durability, Partial, Payload, Point, Scroll, ScrollPage, Selection, StoredPoint, Written};
use crate::query::{Answer, Query};
use crate::schema::{CollectionInfo, Embedder};
use crate::wire;

/// Points in one message of a stream, that is in one atomic write.
const BATCH_POINTS_MAX: usize = 1_000;
/// Bytes in one message, well below the server's default bound of 32 MiB.
const BATCH_BYTES_MAX: usize = 4 << 20;
/// Messages in one stream. They are kept until the server has answered for all of them, so that a broken stream can be
/// sent again: with the bound above, at most 32 MiB.
const WINDOW_BATCHES: usize = 8;
/// Documents in one request; the server's bound.
const PUT_DOCUMENTS_MAX: usize = 1_000;

/// One collection of a server. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Collection {
    client: Client,
    name: String,
    /// By vector name.
    made_by: BTreeMap<String, v1::Embedder>,
    durability: Option<Durability>,
}

/// What [`Collection::upsert_stream`] wrote.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamSummary {
    /// Token of the last write; empty if there were no points.
    pub token: String,
    /// Points written.
    pub changed: u64,
    /// Atomic writes they were sent in.
    pub batches: u64,
    /// Of these, how many an attempt whose answer was lost had done already.
    pub replayed: u64,
    /// How safe the least safe of them is now.
    pub durability: Durability,
}

impl Collection {
    pub(crate) fn new(client: Client, name: String) -> Self {
        Self {
            client,
            name,
            made_by: BTreeMap::new(),
            durability: None,
        }
    }

    /// When writes by this handle are answered, instead of as the collection says.
    #[must_use]
    pub fn with_durability(mut self, durability: Durability) -> Self {
        self.durability = Some(durability);
        self
    }

    fn durability(&self) -> i32 {
        wire::durability(self.durability).into()
    }

    /// The client it belongs to.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The same, saying with every point that is written here that the vectors of this name are of this model: the server
    /// refuses them if the collection records another. What is left empty of the embedder is not compared.
    #[must_use]
    pub fn vectors_made_by(mut self, vector: impl Into<String>, embedder: Embedder) -> Self {
        self.made_by.insert(vector.into(), wire::embedder(embedder));
        self
    }

    /// Its definition and state.
    pub async fn info(&self) -> Result<CollectionInfo> {
        self.client.get_collection(&self.name).await
    }

    // --- points ---

    /// Inserts points or replaces them whole: all or none, durable when this returns.
    pub async fn upsert(&self, points: impl IntoIterator<Item = Point>) -> Result<Written> {
        let request = v1::UpsertRequest {
            collection: self.name.clone(),
            points: points.into_iter().map(Into::into).collect(),
            request_id: request_id(),
            embedders: self.made_by.clone(),
            durability: self.durability(),
        };
        let answer = self
            .client
            .call(request, |c, r| async move { c.points().upsert(r).await })
            .await?;
        Ok(answer.into())
    }

    /// Writes any number of points, in batches that are atomic each and durable when this returns. The source is read as
    /// fast as the server takes batches, and no faster: at most 32 MiB of points wait here.
    ///
    /// A stream that breaks is sent again from its last acknowledged window; upserts replace whole points, so that this is safe.
    /// After an error, some of the points may have been written.
    pub async fn upsert_stream(&self, points: impl Stream<Item = Point> + Send) -> Result<StreamSummary> {
        let mut points = pin!(points.fuse());
        let mut summary = StreamSummary::default();
        loop {
            let window = self.next_window(points.as_mut()).await;
            if window.is_empty() {
                return Ok(summary);
            }
            let window = Arc::new(window);
            let answer = self
                .client
                .retrying(|client, left| {
                    let window = Arc::clone(&window);
                    let messages = (0..window.len()).map(move |i| window[i].clone());
                    let mut request = tonic::Request::new(stream::iter(messages));
                    request.set_timeout(left);
                    async move { client.points().upsert_stream(request).await }
                })
                .await?;
            summary.token = answer.token;
            summary.changed += answer.changed;
            summary.batches += answer.batches;
            summary.replayed += answer.replayed;
            summary.durability = summary.durability.max(wire::read_durability(answer.durability));
        }
    }

    /// [`Collection::upsert_stream`] from an iterator.
    pub async fn upsert_all<I>(&self, points: I) -> Result<StreamSummary>
    where
        I: IntoIterator<Item = Point>,
        I::IntoIter: Send,
    {
        self.upsert_stream(stream::iter(points)).await
    }

    /// The next messages of a stream, bounded in number and each in points and bytes.
    async fn next_window(&self, mut points: Pin<&mut (impl Stream<Item = Point> + Send)>) -> Vec<v1::UpsertRequest> {
        let mut window: Vec<v1::UpsertRequest> = Vec::new();
        let mut bytes = BATCH_BYTES_MAX;
        while let Some(point) = points.next().await {
            let full = window.last().is_none_or(|b| b.points.len() >= BATCH_POINTS_MAX) || bytes >= BATCH_BYTES_MAX;
            if full {
                bytes = 0;
                let collection = self.name.clone();
                window.push(v1::UpsertRequest {
                    collection,
                    points: Vec::new(),
                    request_id: request_id(),
                    embedders: self.made_by.clone(),
                    durability: self.durability(),
                });
            }
            bytes += point.bytes();
            if let Some(batch) = window.last_mut() {
                batch.points.push(point.into());
                let ends = batch.points.len() >= BATCH_POINTS_MAX || bytes >= BATCH_BYTES_MAX;
                if ends && window.len() >= WINDOW_BATCHES {
                    break;
                }
            }
        }
        window
    }

    /// Points by id, in the order asked; missing ones are left out.
    pub async fn get<S: Into<String>>(&self, ids: impl IntoIterator<Item = S>) -> Result<Vec<StoredPoint>> {
        Ok(self.get_points(ids, false, false).await?.0)
    }

    /// As [`Collection::get`], with the vectors.
    pub async fn get_with_vectors<S: Into<String>>(
        &self,
        ids: impl IntoIterator<Item = S>,
    ) -> Result<Vec<StoredPoint>> {
        Ok(self.get_points(ids, true, false).await?.0)
    }

    /// As [`Collection::get`], without the points of damaged segments; the second says what is missing, if anything is.
    pub async fn get_partial<S: Into<String>>(
        &self,
        ids: impl IntoIterator<Item = S>,
    ) -> Result<(Vec<StoredPoint>, Option<Partial>)> {
        self.get_points(ids, false, true).await
    }

    async fn get_points<S: Into<String>>(
        &self,
        ids: impl IntoIterator<Item = S>,
        vectors: bool,
        allow_partial: bool,
    ) -> Result<(Vec<StoredPoint>, Option<Partial>)> {
        let request = v1::GetPointsRequest {
            collection: self.name.clone(),
            ids: ids.into_iter().map(Into::into).collect(),
            with: Some(v1::With {
                payload: Some(true),
                vectors,
                explain: false,
            }),
            allow_partial,
        };
        let answer = self
            .client
            .call(request, |c, r| async move { c.points().get(r).await })
            .await?;
        let points = answer.points.into_iter().map(wire::point).collect::<Result<_>>()?;
        Ok((points, answer.partial.map(Into::into)))
    }

    /// Deletes points by id or by filter.
    pub async fn delete(&self, which: impl Into<Selection>) -> Result<Written> {
        let (ids, filter) = match which.into() {
            Selection::Ids(ids) => (ids, None),
            Selection::Filter(filter) => (Vec::new(), Some(wire::filter(filter)?)),
        };
        let request = v1::DeletePointsRequest {
            collection: self.name.clone(),
            ids,
            filter,
            request_id: request_id(),
            durability: self.durability(),
        };
        let answer = self
            .client
            .call(request, |c, r| async move { c.points().delete(r).await })
            .await?;
        Ok(answer.into())
    }

    /// Changes payloads of existing points: the given top-level keys are set, others and the vectors stay. Missing ids are
    /// ignored.
    pub async fn set_payload<S: Into<String>>(
        &self,
        ids: impl IntoIterator<Item = S>,
        set: Payload,
    ) -> Result<Written> {
        let request = v1::SetPayloadRequest {
            collection: self.name.clone(),
            ids: ids.into_iter().map(Into::into).collect(),
            set: Some(wire::object(set)),
            unset: Vec::new(),
            replace: false,
            request_id: request_id(),
            durability: self.durability(),
        };
        let answer = self
            .client
            .call(request, |c, r| async move { c.points().set_payload(r).await })
            .await?;
        Ok(answer.into())
    }

    /// One page of points, in the order they were inserted.
    pub async fn scroll(&self, scroll: Scroll) -> Result<ScrollPage> {
        let request = v1::ScrollRequest {
            collection: self.name.clone(),
            filter: wire::given_filter(scroll.filter)?,
            limit: scroll.limit,
            cursor: scroll.cursor,
            with: Some(v1::With {
                payload: Some(!scroll.without_payload),
                vectors: scroll.vectors,
                explain: false,
            }),
            after: scroll.after,
            allow_partial: scroll.allow_partial,
        };
        let answer = self
            .client
            .call(request, |c, r| async move { c.points().scroll(r).await })
            .await?;
        let points = answer.points.into_iter().map(wire::point).collect::<Result<_>>()?;
        Ok(ScrollPage {
            points,
            cursor: answer.cursor,
            partial: answer.partial.map(Into::into),
        })
    }

    /// Live points that match, exactly.
    pub async fn count(&self, filter: impl Into<Filter>) -> Result<u64> {
        Ok(self.count_points(filter.into(), false).await?.0)
    }

    /// As [`Collection::count`], without the points of damaged segments, and what was left out for that.
    pub async fn count_partial(&self, filter: impl Into<Filter>) -> Result<(u64, Option<Partial>)> {
        self.count_points(filter.into(), true).await
    }

    async fn count_points(&self, filter: Filter, allow_partial: bool) -> Result<(u64, Option<Partial>)> {
        let request = v1::CountRequest {
            collection: self.name.clone(),
            filter: wire::given_filter(filter)?,
            allow_partial,
        };
        let answer = self
            .client
            .call(request, |c, r| async move { c.points().count(r).await })
            .await?;
        Ok((answer.count, answer.partial.map(Into::into)))
    }

    // --- questions ---

    /// Answers a query.
    pub async fn query(&self, query: Query) -> Result<Answer> {
        let request = wire::query(query, self.name.clone())?;
        let answer = self
            .client
            .call(request, |c, r| async move { c.queries().run(r).await })
            .await?;
        wire::answer(answer)
    }

    /// Answers up to 1,000 queries in order, in one request. One wrong query refuses the batch.
    pub async fn query_batch(&self, queries: impl IntoIterator<Item = Query>) -> Result<Vec<Answer>> {
        let queries = queries
            .into_iter()
            .map(|q| wire::query(q, String::new()))
            .collect::<Result<_>>()?;
        let request = v1::QueryBatchRequest {
            collection: self.name.clone(),
            queries,
        };
        let answer = self
            .client
            .call(request, |c, r| async move { c.queries().run_batch(r).await })
            .await?;
        answer.results.into_iter().map(wire::answer).collect()
    }

    /// Finds what matters to a prompt and packs it, cited, into a token budget.
    pub async fn enrich(&self, enrich: Enrich) -> Result<Enriched> {
        self.client.enrich([self.name.clone()], enrich).await
    }

    // --- documents ---

    /// Cuts, embeds and stores one document, replacing its older version atomically.
    pub async fn put_document(&self, document: Document) -> Result<PutResult> {
        let summary = self.put_documents([document]).await?;
        summary
            .results
            .into_iter()
            .next()
            .ok_or_else(|| Error::bad_answer("a document was put and nothing was said about it"))
    }

    /// Any number of documents, in as few requests as the server's bounds allow. Each document is atomic; after an
    /// error, those of earlier requests are stored. An error that points at a document counts from the first one given.
    pub async fn put_documents(&self, documents: impl IntoIterator<Item = Document>) -> Result<PutSummary> {
        self.put_documents_unless(documents, OnNearDuplicate::Store).await
    }

    /// The same, and says what becomes of documents that say almost the same as stored ones.
    pub async fn put_documents_unless(
        &self,
        documents: impl IntoIterator<Item = Document>,
        on_near_duplicate: OnNearDuplicate,
    ) -> Result<PutSummary> {
        let mut summary = PutSummary::default();
        let mut documents = documents.into_iter().peekable();
        while documents.peek().is_some() {
            let mut batch = Vec::new();
            let mut bytes = 0;
            while let Some(next) = documents.peek()
                && batch.len() < PUT_DOCUMENTS_MAX
                && (batch.is_empty() || bytes + next.bytes() <= BATCH_BYTES_MAX)
            {
                bytes += next.bytes();
                batch.extend(documents.next().map(Into::into));
            }
            let sent = batch.len();
            let request = v1::PutDocumentsRequest {
                collection: self.name.clone(),
                documents: batch,
                request_id: request_id(),
                durability: self.durability(),
                on_near_duplicate: match on_near_duplicate {
                    OnNearDuplicate::Store => v1::OnNearDuplicate::Store,
                    OnNearDuplicate::Skip => v1::OnNearDuplicate::Skip,
                }
                .into(),
            };
            let answer = self
                .client
                .call(request, |c, r| async move { c.documents().put(r).await })
                .await
                .map_err(|e| e.after("/documents/", summary.results.len()))?;
            if answer.results.len() != sent {
                return Err(Error::bad_answer(format!(
                    "{sent} documents were put, {} answered for",
                    answer.results.len()
                )));
            }
            summary.results.extend(answer.results.into_iter().map(Into::into));
            summary.durability = summary.durability.max(wire::read_durability(answer.durability));
            if !answer.token.is_empty() {
                summary.token = answer.token;
            }
        }
        Ok(summary)
    }

    /// One document without its chunks; `None` if there is no such document.
    pub async fn get_document(&self, id: &str) -> Result<Option<StoredDocument>> {
        self.find_document(id, false).await
    }

    /// One document with its chunks in order; `None` if there is no such document.
    pub async fn get_document_with_chunks(&self, id: &str) -> Result<Option<StoredDocument>> {
        self.find_document(id, true).await
    }

    async fn find_document(&self, id: &str, with_chunks: bool) -> Result<Option<StoredDocument>> {
        let request = v1::GetDocumentRequest {
            collection: self.name.clone(),
            id: id.to_owned(),
            with_chunks,
        };
        match self
            .client
            .call(request, |c, r| async move { c.documents().get(r).await })
            .await
        {
            Ok(answer) => {
                let document = answer
                    .document
                    .ok_or_else(|| Error::bad_answer("a found document is missing"))?;
                let mut document = wire::document(document)?;
                document.chunks = answer.chunks.into_iter().map(wire::point).collect::<Result<_>>()?;
                Ok(Some(document))
            }
            // An unknown collection is an error; only the document may be absent.
            Err(e) if e.kind() == ErrorKind::NotFound && e.code().contains("document") => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Deletes documents with their chunks; missing ids are ignored.
    pub async fn delete_documents<S: Into<String>>(&self, ids: impl IntoIterator<Item = S>) -> Result<Written> {
        let request = v1::DeleteDocumentsRequest {
            collection: self.name.clone(),
            ids: ids.into_iter().map(Into::into).collect(),
            request_id: request_id(),
            durability: self.durability(),
        };
        let answer = self
            .client
            .call(request, |c, r| async move { c.documents().delete(r).await })
            .await?;
        Ok(answer.into())
    }

    /// One page of documents, in id order; `after_id` is the `next` of the page before.
    pub async fn list_documents(&self, after_id: Option<&str>, limit: Option<u32>) -> Result<DocumentPage> {
        let request = v1::ListDocumentsRequest {
            collection: self.name.clone(),
            after_id: after_id.map(str::to_owned),
            limit,
        };
        let answer = self
            .client
            .call(request, |c, r| async move { c.documents().list(r).await })
            .await?;
        let documents = answer
            .documents
            .into_iter()
            .map(wire::document)
            .collect::<Result<_>>()?;
        Ok(DocumentPage {
            documents,
            next: answer.next,
        })
    }
}
