//! The gRPC adapter: `cairn.v1`, health and reflection. Every method is decode, call, encode.

mod convert;
mod snapshots;
mod status;

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::middleware::Next;
use cairn_engine::{Error, ErrorKind, Result};
use cairn_proto::v1 as pb;
use cairn_proto::v1::collections_server::{Collections, CollectionsServer};
use cairn_proto::v1::documents_server::{Documents, DocumentsServer};
use cairn_proto::v1::operations_server::{Operations, OperationsServer};
use cairn_proto::v1::points_server::{Points, PointsServer};
use cairn_proto::v1::query_server::{Query, QueryServer};
use cairn_proto::v1::snapshots_server::SnapshotsServer;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _};
use http::HeaderMap;
use prost::Message as _;
use tonic::codec::CompressionEncoding::Zstd;
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};

use self::status::status;
use crate::service::bodies::{Counted, Held};
use crate::service::bounds::WRITE_INLINE_BYTES;
use crate::service::pools::{deadline_exceeded, offload};
use crate::service::{Call, CreateCollection, OperationState, Service};
use crate::telemetry::Api;

/// Bytes of an answer's message. The engine bounds what it gives out far below; this is for what that bound forgets.
const ANSWER_BYTES_MAX: usize = 256 << 20;

/// Whether the service answers, for `grpc.health.v1`.
pub(crate) type Health = tonic_health::server::HealthReporter;

/// The gRPC routes, ready to be merged into an axum router, and the switch of their health service.
pub(crate) fn router(service: &Arc<Service>) -> Result<(axum::Router, Health), tonic_reflection::server::Error> {
    let most = service.limits().body_bytes_max;
    let api = Grpc {
        service: Arc::clone(service),
    };
    // The macro-generated servers share no trait for these settings.
    macro_rules! bounded {
        ($server:ident) => {
            $server::new(api.clone())
                .accept_compressed(Zstd)
                .send_compressed(Zstd)
                .max_decoding_message_size(most)
                .max_encoding_message_size(ANSWER_BYTES_MAX)
        };
    }
    let (health, health_service) = tonic_health::server::health_reporter();
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(pb::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()?;
    let routes = Routes::new(bounded!(CollectionsServer))
        .add_service(bounded!(PointsServer))
        .add_service(bounded!(QueryServer))
        .add_service(bounded!(DocumentsServer))
        .add_service(bounded!(OperationsServer))
        .add_service(bounded!(SnapshotsServer))
        .add_service(health_service)
        .add_service(reflection)
        .prepare()
        .into_axum_router()
        .layer(axum::middleware::from_fn_with_state(Arc::clone(service), in_time))
        .layer(axum::middleware::map_response(async |response| {
            status::complete(response)
        }));
    Ok((routes, health))
}

/// The methods that take a stream of messages: the stream may take any time, each of its messages may not.
const STREAMS: [&str; 2] = ["/cairn.v1.Points/UpsertStream", "/cairn.v1.Documents/PutStream"];
/// How much later than the work itself the layer around it gives up, so that the work's own answer is heard.
const ANSWER_GRACE: Duration = Duration::from_millis(100);

/// When a request's head arrived: its deadline counts from there, not from when its message was complete. And the bytes
/// that its message holds; of a stream, those of the message that is arriving.
#[derive(Clone)]
struct Arrived {
    at: Instant,
    held: Held,
}

/// The layer around all methods. tonic calls a unary method when its message is complete, so that a caller who sends
/// slowly would have no deadline. (What streams its answer is answered here when the stream begins.)
async fn in_time(
    State(service): State<Arc<Service>>,
    request: axum::extract::Request,
    next: Next,
) -> axum::response::Response {
    let held = service.hold();
    let arrived = Arrived {
        at: Instant::now(),
        held: held.clone(),
    };
    let mut request = request.map(|body| {
        axum::body::Body::new(Counted {
            body,
            held,
            refuse: |e| status(e).into(),
        })
    });
    request.extensions_mut().insert(arrived);
    if STREAMS.contains(&request.uri().path()) {
        return next.run(request).await;
    }
    let most = match timeout(request.headers()) {
        Ok(asked) => service.limits().timeout(asked),
        // The method itself refuses a timeout that is none.
        _ => return next.run(request).await,
    };
    match tokio::time::timeout(most + ANSWER_GRACE, next.run(request)).await {
        Ok(response) => response,
        Err(_) => status(&deadline_exceeded()).into_http(),
    }
}

/// The messages of a client's stream.
struct Incoming<T> {
    messages: Streaming<T>,
    /// The bytes of the message that is arriving.
    held: Held,
}

impl<T> Incoming<T> {
    fn of(request: Request<Streaming<T>>, service: &Service) -> Self {
        let arrived = request.extensions().get::<Arrived>();
        Self {
            held: arrived.map_or_else(|| service.hold(), |arrived| arrived.held.clone()),
            messages: request.into_inner(),
        }
    }

    /// The next message. It may take as long as the longest request: whoever sends may have to make it first. Its bytes are
    /// not held any more: the call for it holds them.
    async fn next(&mut self, service: &Service) -> Result<Option<T>, Status> {
        let patience = Duration::from_millis(service.limits().timeout_ms_max);
        let next = tokio::time::timeout(patience, self.messages.message());
        let next = next.await.unwrap_or_else(|_| Err(status(&deadline_exceeded())))?;
        self.held.give_back();
        Ok(next)
    }
}

/// What a request for a method that no service has is answered with.
pub(crate) fn unknown_method() -> axum::response::Response {
    let answer =
        Status::unimplemented("no such service or method, see grpc.reflection.v1").into_http::<axum::body::Body>();
    status::complete(answer)
}

/// What a caller who is a web page of elsewhere is answered with.
pub(crate) fn foreign_origin(message: String) -> axum::response::Response {
    status::refused(tonic::Code::PermissionDenied, "foreign_origin", message).into_http()
}

#[derive(Clone)]
struct Grpc {
    service: Arc<Service>,
}

type Answer<T> = Result<Response<T>, Status>;

/// Runs what a method does and turns its error into a status.
async fn answer<T>(work: impl Future<Output = Result<T>>) -> Answer<T> {
    work.await.map(Response::new).map_err(|e| status(&e))
}

/// Messages made of an answer that holds `bytes` of payloads and vectors: of a large one off the async threads, where some
/// hundred milliseconds of work would keep everybody else waiting. (tonic encodes them there.)
async fn made<T: Send + 'static>(bytes: usize, make: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    match bytes <= WRITE_INLINE_BYTES {
        true => Ok(make()),
        false => offload(make).await,
    }
}

impl Grpc {
    /// The call and the message of a unary request.
    fn open<T: prost::Message>(&self, request: Request<T>) -> Result<(Call, T)> {
        let mut call = self.service.call(Api::Grpc, timeout(request.metadata().as_ref())?);
        if let Some(arrived) = request.extensions().get::<Arrived>() {
            call.deadline -= arrived.at.elapsed();
            call.held = arrived.held.clone();
        }
        // What was counted as it arrived may be a hundredth of it: messages may be compressed.
        call.held.take_in_all(request.get_ref().encoded_len())?;
        Ok((call, request.into_inner()))
    }
}

/// `grpc-timeout`: at most eight digits and a unit.
fn timeout(headers: &HeaderMap) -> Result<Option<Duration>> {
    let Some(value) = headers.get("grpc-timeout") else {
        return Ok(None);
    };
    let parse = || {
        let text = value.to_str().ok()?;
        let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
        if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let n: u64 = digits.parse().ok()?;
        match unit {
            "H" => Some(Duration::from_secs(n * 3_600)),
            "M" => Some(Duration::from_secs(n * 60)),
            "S" => Some(Duration::from_secs(n)),
            "m" => Some(Duration::from_millis(n)),
            "u" => Some(Duration::from_micros(n)),
            "n" => Some(Duration::from_nanos(n)),
            _ => None,
        }
    };
    match parse() {
        Some(timeout) => Ok(Some(timeout)),
        None => Err(Error::invalid(
            "bad_timeout",
            format!("grpc-timeout is up to 8 digits and one of HMSmun, got {value:?}"),
        )),
    }
}

#[tonic::async_trait]
impl Collections for Grpc {
    async fn create(&self, request: Request<pb::CreateCollectionRequest>) -> Answer<pb::Collection> {
        answer(async {
            let (call, m) = self.open(request)?;
            let create = CreateCollection {
                name: m.collection,
                schema: convert::schema_in(m.schema)?,
            };
            self.service
                .create_collection(call, create)
                .await
                .map(convert::collection_out)
        })
        .await
    }

    async fn get(&self, request: Request<pb::GetCollectionRequest>) -> Answer<pb::Collection> {
        answer(async {
            let (call, m) = self.open(request)?;
            self.service
                .collection(call, m.collection)
                .await
                .map(convert::collection_out)
        })
        .await
    }

    async fn delete(&self, request: Request<pb::DeleteCollectionRequest>) -> Answer<pb::WriteResponse> {
        answer(async {
            let (call, m) = self.open(request)?;
            Ok(convert::applied_out(
                &self
                    .service
                    .delete_collection(call, m.collection, convert::text_in(m.request_id))
                    .await?,
            ))
        })
        .await
    }

    async fn list(&self, request: Request<pb::ListCollectionsRequest>) -> Answer<pb::ListCollectionsResponse> {
        answer(async {
            let (call, _) = self.open(request)?;
            Ok(pb::ListCollectionsResponse {
                collections: self.service.collections(call).await?,
            })
        })
        .await
    }

    async fn optimize(&self, request: Request<pb::OptimizeRequest>) -> Answer<pb::Operation> {
        answer(async {
            let (call, m) = self.open(request)?;
            self.service
                .optimize(call, m.collection)
                .await
                .map(convert::operation_out)
        })
        .await
    }
}

#[tonic::async_trait]
impl Operations for Grpc {
    async fn get(&self, request: Request<pb::GetOperationRequest>) -> Answer<pb::Operation> {
        answer(async {
            let (call, m) = self.open(request)?;
            self.service
                .operation(call, m.id, Duration::ZERO)
                .await
                .map(convert::operation_out)
        })
        .await
    }

    async fn list(&self, request: Request<pb::ListOperationsRequest>) -> Answer<pb::ListOperationsResponse> {
        answer(async {
            let (call, m) = self.open(request)?;
            let all = self
                .service
                .list_operations(call, convert::text_in(m.collection))
                .await?;
            Ok(pb::ListOperationsResponse {
                operations: all.into_iter().map(convert::operation_out).collect(),
            })
        })
        .await
    }

    type WatchStream = BoxStream<'static, Result<pb::Operation, Status>>;

    async fn watch(&self, request: Request<pb::GetOperationRequest>) -> Answer<Self::WatchStream> {
        answer(async {
            let (call, m) = self.open(request)?;
            let watch = self.service.watch_operation(call, m.id).await?;
            // Ends after the message that says how it ended. A slow caller skips states between, never the last.
            let told = futures::stream::unfold(Some(watch), |watch| async {
                let mut watch = watch?;
                watch.changed().await.ok()?;
                let now = watch.borrow_and_update().clone();
                let ended = now.state != OperationState::Running;
                Some((Ok(convert::operation_out(now)), (!ended).then_some(watch)))
            });
            Ok(told.boxed())
        })
        .await
    }

    async fn cancel(&self, request: Request<pb::CancelOperationRequest>) -> Answer<pb::Operation> {
        answer(async {
            let (call, m) = self.open(request)?;
            self.service
                .cancel_operation(call, m.id)
                .await
                .map(convert::operation_out)
        })
        .await
    }
}

#[tonic::async_trait]
impl Points for Grpc {
    async fn upsert(&self, request: Request<pb::UpsertRequest>) -> Answer<pb::WriteResponse> {
        answer(async {
            let (call, m) = self.open(request)?;
            let (points, made_by) = (convert::points_in(m.points)?, convert::made_by_in(m.embedders));
            let params = convert::params_in(m.request_id, m.durability)?;
            let written = self.service.upsert(call, m.collection, points, made_by, params);
            let applied = written.await?;
            Ok(convert::applied_out(&applied))
        })
        .await
    }

    async fn upsert_stream(&self, request: Request<Streaming<pb::UpsertRequest>>) -> Answer<pb::UpsertStreamResponse> {
        let asked = timeout(request.metadata().as_ref()).map_err(|e| status(&e))?;
        let mut batches = Incoming::of(request, &self.service);
        let mut done = pb::UpsertStreamResponse::default();
        let mut collection = String::new();
        loop {
            let next = batches.next(&self.service).await;
            let Some(m) = next.map_err(|s| cut_short(&s, done.batches, done.changed))? else {
                break;
            };
            let place = |e: Error| stopped(e, done.batches, done.changed);
            if !m.collection.is_empty() {
                collection.clone_from(&m.collection);
            }
            // Each message has its own deadline: a long load is many writes, not one.
            let call = self.service.call(Api::Grpc, asked);
            let written = async {
                call.held.take(m.encoded_len())?;
                let (points, made_by) = (convert::points_in(m.points)?, convert::made_by_in(m.embedders));
                let params = convert::params_in(m.request_id, m.durability)?;
                let written = self.service.upsert(call, collection.clone(), points, made_by, params);
                written.await
            };
            let applied = written.await.map_err(|e| status(&place(e)))?;
            done.token = applied.token.to_string();
            done.changed += applied.changed;
            done.batches += 1;
            done.replayed += u64::from(applied.replayed);
            // A larger number is less safe.
            done.durability = done.durability.max(convert::durability_out(applied.durability));
        }
        Ok(Response::new(done))
    }

    async fn get(&self, request: Request<pb::GetPointsRequest>) -> Answer<pb::GetPointsResponse> {
        answer(async {
            let (call, m) = self.open(request)?;
            let ids = convert::ids_in(m.ids)?;
            let with = convert::with_in(m.with);
            let get = self
                .service
                .get_points(call, m.collection.clone(), ids, with, m.allow_partial);
            let page = get.await?;
            let points = move || page.points.into_iter().map(convert::point_out).collect();
            Ok(pb::GetPointsResponse {
                points: made(page.bytes, points).await?,
                partial: convert::partial_out(&m.collection, page.missing),
            })
        })
        .await
    }

    async fn delete(&self, request: Request<pb::DeletePointsRequest>) -> Answer<pb::WriteResponse> {
        answer(async {
            let (call, m) = self.open(request)?;
            let selector = convert::selector_in(m.ids, m.filter)?;
            let params = convert::params_in(m.request_id, m.durability)?;
            Ok(convert::applied_out(
                &self.service.delete_points(call, m.collection, selector, params).await?,
            ))
        })
        .await
    }

    async fn scroll(&self, request: Request<pb::ScrollRequest>) -> Answer<pb::ScrollResponse> {
        answer(async {
            let (call, m) = self.open(request)?;
            let (collection, scroll) = convert::scroll_in(m)?;
            let page = self.service.scroll(call, collection.clone(), scroll).await?;
            let points = move || page.points.into_iter().map(convert::point_out).collect();
            Ok(pb::ScrollResponse {
                points: made(page.bytes, points).await?,
                cursor: page.cursor,
                partial: convert::partial_out(&collection, page.missing),
            })
        })
        .await
    }

    async fn count(&self, request: Request<pb::CountRequest>) -> Answer<pb::CountResponse> {
        answer(async {
            let (call, m) = self.open(request)?;
            let filter = convert::filter_in(m.filter)?;
            let collection = m.collection.clone();
            let (count, missing) = self.service.count(call, collection, filter, m.allow_partial).await?;
            Ok(pb::CountResponse {
                count,
                partial: convert::partial_out(&m.collection, missing),
            })
        })
        .await
    }

    async fn set_payload(&self, request: Request<pb::SetPayloadRequest>) -> Answer<pb::WriteResponse> {
        answer(async {
            let (call, m) = self.open(request)?;
            let ids = convert::ids_in(m.ids)?;
            let change = convert::payload_change_in(m.set, m.unset, m.replace)?;
            let params = convert::params_in(m.request_id, m.durability)?;
            Ok(convert::applied_out(
                &self
                    .service
                    .set_payload(call, m.collection, ids, change, params)
                    .await?,
            ))
        })
        .await
    }
}

/// An error in the middle of a stream says what was done before it.
fn stopped(mut error: Error, batches: u64, changed: u64) -> Error {
    error.message = in_stream(&error.message, batches, changed);
    error
}

/// The same where the next message did not arrive as one.
fn cut_short(status: &Status, batches: u64, changed: u64) -> Status {
    let message = in_stream(status.message(), batches, changed);
    let details = bytes::Bytes::copy_from_slice(status.details());
    Status::with_details_and_metadata(status.code(), message, details, status.metadata().clone())
}

fn in_stream(message: &str, batches: u64, changed: u64) -> String {
    format!("{message} (message {batches} of the stream; {changed} points before it were written)")
}

#[tonic::async_trait]
impl Query for Grpc {
    async fn run(&self, request: Request<pb::QueryRequest>) -> Answer<pb::QueryResponse> {
        answer(async {
            let (call, m) = self.open(request)?;
            let (collection, ask) = convert::ask_in(m)?;
            let answer = self.service.query(call, collection, ask).await?;
            made(answer.result.bytes, move || convert::answer_out(answer)).await
        })
        .await
    }

    async fn run_batch(&self, request: Request<pb::QueryBatchRequest>) -> Answer<pb::QueryBatchResponse> {
        answer(async {
            let (call, m) = self.open(request)?;
            let ask = |(i, query)| {
                let (named, ask) = convert::ask_in(query).map_err(|e| e.at(format!("/queries/{i}")))?;
                if named.is_empty() || named == m.collection {
                    return Ok(ask);
                }
                let message = format!("a batch asks one collection, {:?}, got {named:?}", m.collection);
                Err(Error::invalid("bad_query", message).at(format!("/queries/{i}/collection")))
            };
            let asks = m.queries.into_iter().enumerate().map(ask).collect::<Result<Vec<_>>>()?;
            let (answers, took_ms) = self.service.query_batch(call, m.collection, asks).await?;
            let bytes = answers.iter().map(|answer| answer.result.bytes).sum();
            let results = move || answers.into_iter().map(convert::answer_out).collect();
            Ok(pb::QueryBatchResponse {
                results: made(bytes, results).await?,
                took_ms,
            })
        })
        .await
    }
}

#[tonic::async_trait]
impl Documents for Grpc {
    async fn put(&self, request: Request<pb::PutDocumentsRequest>) -> Answer<pb::PutDocumentsResponse> {
        answer(async {
            let (call, m) = self.open(request)?;
            let documents = convert::documents_in(m.documents)?;
            let on_near_duplicate = convert::on_near_duplicate_in(m.on_near_duplicate)?;
            let params = convert::params_in(m.request_id, m.durability)?;
            self.service
                .put_documents(call, m.collection, documents, on_near_duplicate, params)
                .await
                .map(convert::put_all_out)
        })
        .await
    }

    type PutStreamStream = Pin<Box<dyn Stream<Item = Result<pb::PutStreamResponse, Status>> + Send>>;

    async fn put_stream(&self, request: Request<Streaming<pb::PutStreamRequest>>) -> Answer<Self::PutStreamStream> {
        let asked = timeout(request.metadata().as_ref()).map_err(|e| status(&e))?;
        let messages = Incoming::of(request, &self.service);
        let state = (self.service.clone(), messages, String::new());
        let answers = futures::stream::try_unfold(state, move |(service, mut messages, mut collection)| async move {
            let Some(mut m) = messages.next(&service).await? else {
                return Ok(None);
            };
            if !m.collection.is_empty() {
                collection.clone_from(&m.collection);
            }
            let call = service.call(Api::Grpc, asked);
            m.collection.clone_from(&collection);
            let response = put_one(&service, call, m).await;
            Ok(Some((response, (service, messages, collection))))
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn get(&self, request: Request<pb::GetDocumentRequest>) -> Answer<pb::GetDocumentResponse> {
        answer(async {
            let (call, m) = self.open(request)?;
            let id = convert::document_id_in(m.id)?;
            let view = self.service.document(call, m.collection, id, m.with_chunks).await?;
            let chunks = view.chunks.unwrap_or_default();
            let chunks = move || chunks.into_iter().map(convert::point_out).collect();
            Ok(pb::GetDocumentResponse {
                document: Some(convert::document_out(view.info)),
                chunks: made(view.bytes, chunks).await?,
            })
        })
        .await
    }

    async fn delete(&self, request: Request<pb::DeleteDocumentsRequest>) -> Answer<pb::WriteResponse> {
        answer(async {
            let (call, m) = self.open(request)?;
            let ids = convert::ids_in(m.ids)?;
            let params = convert::params_in(m.request_id, m.durability)?;
            Ok(convert::applied_out(
                &self.service.delete_documents(call, m.collection, ids, params).await?,
            ))
        })
        .await
    }

    async fn list(&self, request: Request<pb::ListDocumentsRequest>) -> Answer<pb::ListDocumentsResponse> {
        answer(async {
            let (call, m) = self.open(request)?;
            let after = convert::after_id_in(m.after_id)?;
            let page = self
                .service
                .documents(call, m.collection, after, convert::page_limit_in(m.limit))
                .await?;
            Ok(pb::ListDocumentsResponse {
                documents: page.documents.into_iter().map(convert::document_out).collect(),
                next: page.next.map(|id| id.as_str().to_owned()),
            })
        })
        .await
    }

    async fn enrich(&self, request: Request<pb::EnrichRequest>) -> Answer<pb::EnrichResponse> {
        answer(async {
            let (call, m) = self.open(request)?;
            let (collection, enrich) = convert::enrich_in(m)?;
            self.service
                .enrich(call, collection, enrich)
                .await
                .map(convert::enriched_out)
        })
        .await
    }
}

/// One message of a document stream: an error answers it and does not end the stream.
async fn put_one(service: &Service, call: Call, m: pb::PutStreamRequest) -> pb::PutStreamResponse {
    use pb::put_stream_response::Outcome;
    let id = m.document.as_ref().map(|d| d.id.clone()).unwrap_or_default();
    let put = async {
        let document = m
            .document
            .ok_or_else(|| Error::invalid("bad_request", "a message holds a document"))?;
        call.held.take(document.encoded_len())?;
        let document = convert::document_in(document).map_err(|e| e.at("/document"))?;
        let on_near_duplicate = convert::on_near_duplicate_in(m.on_near_duplicate)?;
        let params = convert::params_in(m.request_id, m.durability)?;
        service
            .put_document(call, m.collection, document, on_near_duplicate, params)
            .await
    };
    match put.await {
        Ok(one) => pb::PutStreamResponse {
            id,
            token: one.token.map(|t| t.to_string()).unwrap_or_default(),
            outcome: Some(Outcome::Result(convert::put_one_out(one))),
        },
        Err(e) => {
            let retryable = matches!(
                e.kind,
                ErrorKind::Exhausted | ErrorKind::Unavailable | ErrorKind::Deadline
            );
            let message = status(&e).message().to_owned();
            let error = pb::StreamError {
                code: e.code.to_owned(),
                message,
                pointer: e.pointer,
                retryable,
            };
            pb::PutStreamResponse {
                id,
                token: String::new(),
                outcome: Some(Outcome::Error(error)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_timeouts_are_read_and_nonsense_is_refused() {
        let read = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", text.parse().unwrap());
            timeout(&headers).map_err(|e| e.code)
        };
        assert_eq!(read("250m"), Ok(Some(Duration::from_millis(250))));
        assert_eq!(read("1n"), Ok(Some(Duration::from_nanos(1))));
        assert_eq!(read("99999999H"), Ok(Some(Duration::from_secs(99_999_999 * 3_600))));
        for bad in ["m", "5", "-5m", "123456789m", "5x"] {
            assert_eq!(read(bad), Err("bad_timeout"), "{bad}");
        }
        assert_eq!(timeout(&HeaderMap::new()).unwrap(), None);
    }
}
