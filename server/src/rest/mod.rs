//! The REST adapter: `/api/v1`. Every handler is decode, call, encode; OpenAPI is generated from this code and served.
//!
//! Ids travel in bodies or query parameters, never in the path: they are any UTF-8. Every error is a [`Problem`], also those
//! of routing (unknown path, wrong method) and of a panic.

mod answer;
mod extract;
mod guard;
mod problem;
mod snapshots;
mod wire;

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::answer::written;
use self::extract::{Body, Name, OperationId, Params, Plain};
pub(crate) use self::guard::local_callers;
use self::problem::Problem;
pub(crate) use self::problem::retry_after_ms;
use self::wire::{
    CollectionOut, CollectionsOut, CountBody, CountOut, DeletePointsBody, DocumentViewOut, DocumentsOut,
    DurabilityBody, EnrichBody, EnrichOut, GetPointsBody, OperationOut, OperationsOut, PageOut, PointsOut,
    PutDocumentsBody, PutDocumentsOut, QueryBatchBody, QueryBatchOut, QueryBody, QueryOut, SchemaBody, ScrollBody,
    SetPayloadBody, UpsertBody, WriteOut, params_in, partial_out,
};
use crate::grpc;
use crate::service::{CreateCollection, Service};

/// Where the contract is served.
const OPENAPI_PATH: &str = "/api/v1/openapi.json";

type App = State<Arc<Service>>;
type Reply<T> = Result<Json<T>, Problem>;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Cairn",
        description = "A vector database service for retrieval-augmented generation. Errors are RFC 9457 problems with a \
                       stable `code`. Every request takes `timeout_ms` as a query parameter, or the header \
                       `cairn-timeout-ms`: how long the caller waits (default 30,000).",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    tags(
        (name = "collections", description = "What points of one kind have in common"),
        (name = "points", description = "Ids, vectors, payloads"),
        (name = "query", description = "Nearest vectors, full text, hybrids"),
        (name = "documents", description = "Text in, cited context out"),
        (name = "operations", description = "Work that outlives the request that asked for it"),
        (name = "snapshots", description = "One moment of the whole database, kept in a store"),
    ),
)]
struct Contract;

/// The REST routes with their layers; merged with gRPC's by the caller. Requests for no route at all are told apart
/// here by their content type.
pub(crate) fn router(service: Arc<Service>) -> Router {
    let (routes, contract) = routes().split_for_parts();
    let contract: Arc<str> = json(&contract).into();
    let serve_contract = move || async move { ([(header::CONTENT_TYPE, "application/json")], contract.to_string()) };
    routes
        .route(OPENAPI_PATH, axum::routing::get(serve_contract))
        .method_not_allowed_fallback(wrong_method)
        .with_state(service)
        .layer(CompressionLayer::new())
        .layer(CatchPanicLayer::custom(panicked))
}

/// What answers a path that neither adapter has.
pub(crate) async fn unknown_path(request: Request) -> Response {
    if is_grpc(request.headers()) {
        return grpc::unknown_method();
    }
    let detail = format!("no such path, {OPENAPI_PATH} lists them, got {}", shown(request.uri()));
    Problem::refused(StatusCode::NOT_FOUND, "unknown_path", detail).into_response()
}

/// Whether the caller expects an answer of gRPC.
fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok());
    kind.is_some_and(|kind| kind.starts_with("application/grpc"))
}

async fn wrong_method(method: Method, uri: Uri) -> Problem {
    let detail = format!(
        "{} does not take {method}, the Allow header says what it takes",
        shown(&uri)
    );
    Problem::refused(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail)
}

fn panicked(_: Box<dyn Any + Send>) -> Response {
    Problem::from(cairn_engine::Error::internal("a handler panicked")).into_response()
}

/// A path short enough to be shown back.
fn shown(uri: &Uri) -> String {
    uri.path().chars().take(200).collect()
}

fn json(contract: &utoipa::openapi::OpenApi) -> String {
    contract.to_pretty_json().expect("the contract is plain data")
}

fn routes() -> OpenApiRouter<Arc<Service>> {
    OpenApiRouter::with_openapi(Contract::openapi())
        .routes(routes!(list_collections))
        .routes(routes!(create_collection, get_collection, delete_collection))
        .routes(routes!(optimize))
        .routes(routes!(list_operations))
        .routes(routes!(get_operation, cancel_operation))
        .routes(routes!(upsert, set_payload))
        .routes(routes!(get_points))
        .routes(routes!(delete_points))
        .routes(routes!(scroll))
        .routes(routes!(count))
        .routes(routes!(query))
        .routes(routes!(query_batch))
        .routes(routes!(put_documents, get_document, delete_documents))
        .routes(routes!(list_documents))
        .routes(routes!(enrich))
        .routes(routes!(enrich_from_several))
        .merge(snapshots::routes())
}

// ---- collections ----

/// Names of all collections, in order.
#[utoipa::path(get, path = "/api/v1/collections", tag = "collections",
    responses((status = 200, body = CollectionsOut), (status = "default", body = Problem)))]
async fn list_collections(State(service): App, Plain(call): Plain) -> Reply<CollectionsOut> {
    Ok(Json(CollectionsOut {
        collections: service.collections(call).await?,
    }))
}

/// Makes a collection. Repeating it with an equal schema answers with the existing one; another schema is a 409. `{}` is
/// the documents preset.
#[utoipa::path(put, path = "/api/v1/collections/{collection}", tag = "collections",
    params(("collection" = String, Path, description = "[a-z0-9][a-z0-9._-]* without \"..\", at most 128 bytes")),
    request_body = SchemaBody,
    responses((status = 200, body = CollectionOut), (status = "default", body = Problem)))]
async fn create_collection(
    State(service): App,
    Plain(call): Plain,
    Name(name): Name,
    Body(body): Body<SchemaBody>,
) -> Reply<CollectionOut> {
    let create = CreateCollection {
        name,
        schema: body.schema()?,
    };
    let made = service.create_collection(call, create).await;
    made.map(|info| Json(info.into()))
        .map_err(|e| Problem::from(e).without_prefix("/schema"))
}

/// One collection and its state.
#[utoipa::path(get, path = "/api/v1/collections/{collection}", tag = "collections",
    params(("collection" = String, Path)),
    responses((status = 200, body = CollectionOut), (status = "default", body = Problem)))]
async fn get_collection(State(service): App, Plain(call): Plain, Name(name): Name) -> Reply<CollectionOut> {
    Ok(Json(service.collection(call, name).await?.into()))
}

/// Removes a collection and everything in it.
#[utoipa::path(delete, path = "/api/v1/collections/{collection}", tag = "collections",
    params(("collection" = String, Path), ("request_id" = Option<String>, Query)),
    responses((status = 200, body = WriteOut), (status = "default", body = Problem)))]
async fn delete_collection(State(service): App, params: Params, Name(name): Name) -> Reply<WriteOut> {
    let call = params.call.clone();
    let request_id = params.only(&["request_id"])?.pop().map(|(_, id)| id);
    Ok(Json(service.delete_collection(call, name, request_id).await?.into()))
}

/// Seals what grows and merges each shard into as few segments as its settings allow. Reads and writes go on. Answers at
/// once with the operation to watch; an `optimize` of the collection that runs already, and was not asked to stop, is answered
/// instead.
#[utoipa::path(post, path = "/api/v1/collections/{collection}/optimize", tag = "collections",
    params(("collection" = String, Path)),
    responses((status = 202, body = OperationOut), (status = "default", body = Problem)))]
async fn optimize(
    State(service): App,
    Plain(call): Plain,
    Name(name): Name,
) -> Result<(StatusCode, Json<OperationOut>), Problem> {
    let operation = service.optimize(call, name).await?;
    Ok((StatusCode::ACCEPTED, Json(operation.into())))
}

// ---- operations ----

/// Those that run and the last 1,000 that ended, newest first. They are forgotten when the server stops.
#[utoipa::path(get, path = "/api/v1/operations", tag = "operations",
    params(("collection" = Option<String>, Query, description = "Only those of this collection")),
    responses((status = 200, body = OperationsOut), (status = "default", body = Problem)))]
async fn list_operations(State(service): App, params: Params) -> Reply<OperationsOut> {
    let call = params.call.clone();
    let collection = params.only(&["collection"])?.pop().map(|(_, name)| name);
    let all = service.list_operations(call, collection).await?;
    Ok(Json(OperationsOut {
        operations: all.into_iter().map(Into::into).collect(),
    }))
}

/// One operation. With `wait_ms` the answer comes when it has ended or the time has passed, whichever is first.
#[utoipa::path(get, path = "/api/v1/operations/{id}", tag = "operations",
    params(("id" = String, Path), ("wait_ms" = Option<u64>, Query, description = "Default: 0; at most the deadline")),
    responses((status = 200, body = OperationOut), (status = "default", body = Problem)))]
async fn get_operation(State(service): App, OperationId(id): OperationId, params: Params) -> Reply<OperationOut> {
    let call = params.call.clone();
    let wait_ms = match params.only(&["wait_ms"])?.pop() {
        Some((key, value)) => parameter(&key, &value, "a whole number of milliseconds")?,
        None => 0,
    };
    let wait = Duration::from_millis(wait_ms);
    Ok(Json(service.operation(call, id, wait).await?.into()))
}

/// Asks an operation to stop; answers with what it is then. One that has ended stays as it is.
#[utoipa::path(delete, path = "/api/v1/operations/{id}", tag = "operations",
    params(("id" = String, Path)),
    responses((status = 200, body = OperationOut), (status = "default", body = Problem)))]
async fn cancel_operation(
    State(service): App,
    OperationId(id): OperationId,
    Plain(call): Plain,
) -> Reply<OperationOut> {
    Ok(Json(service.cancel_operation(call, id).await?.into()))
}

// ---- points ----

/// Inserts points or replaces them whole: all or none, durable when answered.
#[utoipa::path(post, path = "/api/v1/collections/{collection}/points", tag = "points",
    params(("collection" = String, Path)), request_body = UpsertBody,
    responses((status = 200, body = WriteOut), (status = "default", body = Problem)))]
async fn upsert(
    State(service): App,
    Plain(call): Plain,
    Name(name): Name,
    Body(mut body): Body<UpsertBody>,
) -> Reply<WriteOut> {
    let (params, made_by) = (params_in(body.request_id.take(), body.durability), body.made_by());
    let applied = service.upsert(call, name, body.points()?, made_by, params).await?;
    Ok(Json(applied.into()))
}

/// Changes payloads of existing points; vectors stay.
#[utoipa::path(patch, path = "/api/v1/collections/{collection}/points", tag = "points",
    params(("collection" = String, Path)), request_body = SetPayloadBody,
    responses((status = 200, body = WriteOut), (status = "default", body = Problem)))]
async fn set_payload(
    State(service): App,
    Plain(call): Plain,
    Name(name): Name,
    Body(mut body): Body<SetPayloadBody>,
) -> Reply<WriteOut> {
    let params = params_in(body.request_id.take(), body.durability);
    let (ids, change) = body.change()?;
    Ok(Json(service.set_payload(call, name, ids, change, params).await?.into()))
}

/// Points by id, in the order asked; missing ones are left out.
#[utoipa::path(post, path = "/api/v1/collections/{collection}/points/get", tag = "points",
    params(("collection" = String, Path)), request_body = GetPointsBody,
    responses((status = 200, body = PointsOut), (status = "default", body = Problem)))]
async fn get_points(
    State(service): App,
    Plain(call): Plain,
    Name(name): Name,
    Body(body): Body<GetPointsBody>,
) -> Result<Response, Problem> {
    let partial = body.allow_partial;
    let (ids, with) = body.ask()?;
    let page = service.get_points(call, name.clone(), ids, with, partial).await?;
    let out = PointsOut {
        points: page.points.into_iter().map(Into::into).collect(),
        partial: partial_out(&name, page.missing),
    };
    written(page.bytes, out).await
}

/// Deletes points by id or by filter.
#[utoipa::path(post, path = "/api/v1/collections/{collection}/points/delete", tag = "points",
    params(("collection" = String, Path)), request_body = DeletePointsBody,
    responses((status = 200, body = WriteOut), (status = "default", body = Problem)))]
async fn delete_points(
    State(service): App,
    Plain(call): Plain,
    Name(name): Name,
    Body(mut body): Body<DeletePointsBody>,
) -> Reply<WriteOut> {
    let params = params_in(body.request_id.take(), body.durability);
    Ok(Json(
        service
            .delete_points(call, name, body.selector()?, params)
            .await?
            .into(),
    ))
}

/// Points page by page, in the order they were inserted.
#[utoipa::path(post, path = "/api/v1/collections/{collection}/points/scroll", tag = "points",
    params(("collection" = String, Path)), request_body = ScrollBody,
    responses((status = 200, body = PageOut), (status = "default", body = Problem)))]
async fn scroll(
    State(service): App,
    Plain(call): Plain,
    Name(name): Name,
    Body(body): Body<ScrollBody>,
) -> Result<Response, Problem> {
    let page = service.scroll(call, name.clone(), body.request()?).await?;
    let out = PageOut {
        points: page.points.into_iter().map(Into::into).collect(),
        cursor: page.cursor,
        partial: partial_out(&name, page.missing),
    };
    written(page.bytes, out).await
}

/// Live points that match, exactly.
#[utoipa::path(post, path = "/api/v1/collections/{collection}/points/count", tag = "points",
    params(("collection" = String, Path)), request_body = CountBody,
    responses((status = 200, body = CountOut), (status = "default", body = Problem)))]
async fn count(
    State(service): App,
    Plain(call): Plain,
    Name(name): Name,
    Body(body): Body<CountBody>,
) -> Reply<CountOut> {
    let partial = body.allow_partial;
    let (count, missing) = service.count(call, name.clone(), body.filter()?, partial).await?;
    Ok(Json(CountOut {
        count,
        partial: partial_out(&name, missing),
    }))
}

// ---- query ----

/// Answers a query from one view of the collection. If at least `limit` points match, `limit` hits are returned.
#[utoipa::path(post, path = "/api/v1/collections/{collection}/query", tag = "query",
    params(("collection" = String, Path)), request_body = QueryBody,
    responses((status = 200, body = QueryOut), (status = "default", body = Problem)))]
async fn query(
    State(service): App,
    Plain(call): Plain,
    Name(name): Name,
    Body(body): Body<QueryBody>,
) -> Result<Response, Problem> {
    let answer = service.query(call, name, body.ask()?).await?;
    written(answer.result.bytes, QueryOut::alone(answer)).await
}

/// Up to 1,000 queries on one collection, answered in order. One wrong query refuses the batch.
#[utoipa::path(post, path = "/api/v1/collections/{collection}/query/batch", tag = "query",
    params(("collection" = String, Path)), request_body = QueryBatchBody,
    responses((status = 200, body = QueryBatchOut), (status = "default", body = Problem)))]
async fn query_batch(
    State(service): App,
    Plain(call): Plain,
    Name(name): Name,
    Body(body): Body<QueryBatchBody>,
) -> Result<Response, Problem> {
    let (answers, took_ms) = service.query_batch(call, name, body.asks()?).await?;
    let bytes = answers.iter().map(|answer| answer.result.bytes).sum();
    let results = answers.into_iter().map(QueryOut::in_batch).collect();
    written(bytes, QueryBatchOut { results, took_ms }).await
}

// ---- documents ----

/// Cuts, embeds and stores documents. Each replaces its older version atomically; unchanged chunks are not embedded
/// again, unchanged documents are not written.
#[utoipa::path(post, path = "/api/v1/collections/{collection}/documents", tag = "documents",
    params(("collection" = String, Path)), request_body = PutDocumentsBody,
    responses((status = 200, body = PutDocumentsOut), (status = "default", body = Problem)))]
async fn put_documents(
    State(service): App,
    Plain(call): Plain,
    Name(name): Name,
    Body(mut body): Body<PutDocumentsBody>,
) -> Reply<PutDocumentsOut> {
    let params = params_in(body.request_id.take(), body.durability);
    let on_near_duplicate = body.on_near_duplicate.into();
    Ok(Json(
        service
            .put_documents(call, name, body.documents(), on_near_duplicate, params)
            .await?
            .into(),
    ))
}

/// One document, and its chunks if asked for.
#[utoipa::path(get, path = "/api/v1/collections/{collection}/documents", tag = "documents",
    params(("collection" = String, Path), ("id" = String, Query), ("with_chunks" = Option<bool>, Query)),
    responses((status = 200, body = DocumentViewOut), (status = "default", body = Problem)))]
async fn get_document(State(service): App, params: Params, Name(name): Name) -> Result<Response, Problem> {
    let call = params.call.clone();
    let (mut id, mut with_chunks) = (None, false);
    for (key, value) in params.only(&["id", "with_chunks"])? {
        match key.as_str() {
            "id" => id = Some(value),
            _ => with_chunks = parameter(&key, &value, "true or false")?,
        }
    }
    let id = id.ok_or_else(|| {
        let detail = "say which document with ?id=...; .../documents/list lists them";
        Problem::refused(StatusCode::BAD_REQUEST, "missing_parameter", detail).at("id")
    })?;
    let view = service.document(call, name, document_id(id)?, with_chunks).await?;
    let chunks = view.chunks.map(|chunks| chunks.into_iter().map(Into::into).collect());
    let document = view.info.into();
    written(view.bytes, DocumentViewOut { document, chunks }).await
}

/// Deletes documents with their chunks; missing ids are ignored. `id` may be repeated.
#[utoipa::path(delete, path = "/api/v1/collections/{collection}/documents", tag = "documents",
    params(("collection" = String, Path), ("id" = Vec<String>, Query), ("request_id" = Option<String>, Query),
        ("durability" = Option<DurabilityBody>, Query)),
    responses((status = 200, body = WriteOut), (status = "default", body = Problem)))]
async fn delete_documents(State(service): App, params: Params, Name(name): Name) -> Reply<WriteOut> {
    let call = params.call.clone();
    let (mut ids, mut request_id, mut durability) = (Vec::new(), None, None);
    for (key, value) in params.only(&["id", "request_id", "durability"])? {
        match key.as_str() {
            "id" => ids.push(document_id(value)?),
            "durability" => durability = Some(parameter(&key, &value, "sync or async")?),
            _ => request_id = Some(value),
        }
    }
    let params = params_in(request_id, durability);
    Ok(Json(service.delete_documents(call, name, ids, params).await?.into()))
}

/// Documents page by page, in id order.
#[utoipa::path(get, path = "/api/v1/collections/{collection}/documents/list", tag = "documents",
    params(("collection" = String, Path), ("after_id" = Option<String>, Query), ("limit" = Option<u32>, Query)),
    responses((status = 200, body = DocumentsOut), (status = "default", body = Problem)))]
async fn list_documents(State(service): App, params: Params, Name(name): Name) -> Reply<DocumentsOut> {
    let call = params.call.clone();
    let (mut after, mut limit) = (None, None);
    for (key, value) in params.only(&["after_id", "limit"])? {
        match key.as_str() {
            "after_id" => after = Some(document_id(value)?),
            _ => limit = Some(parameter::<u32>(&key, &value, "a whole number of at least 1")? as usize),
        }
    }
    let page = service.documents(call, name, after, limit).await?;
    Ok(Json(DocumentsOut {
        documents: page.documents.into_iter().map(Into::into).collect(),
        next: page.next.map(|id| id.as_str().to_owned()),
    }))
}

/// Finds what matters to a prompt and packs it, cited, into a token budget.
#[utoipa::path(post, path = "/api/v1/collections/{collection}/enrich", tag = "documents",
    params(("collection" = String, Path)), request_body = EnrichBody,
    responses((status = 200, body = EnrichOut), (status = "default", body = Problem)))]
async fn enrich(
    State(service): App,
    Plain(call): Plain,
    Name(name): Name,
    Body(body): Body<EnrichBody>,
) -> Reply<EnrichOut> {
    if !body.collections.is_empty() {
        let detail = "the path names the collection; several are named in the body of /api/v1/enrich";
        return Err(Problem::refused(StatusCode::BAD_REQUEST, "bad_collections", detail).at("/collections"));
    }
    Ok(Json(service.enrich(call, vec![name], body.enrich()?).await?.into()))
}

/// The same from several collections, which `collections` names: they are searched alike and ranked together.
#[utoipa::path(post, path = "/api/v1/enrich", tag = "documents", request_body = EnrichBody,
    responses((status = 200, body = EnrichOut), (status = "default", body = Problem)))]
async fn enrich_from_several(
    State(service): App,
    Plain(call): Plain,
    Body(mut body): Body<EnrichBody>,
) -> Reply<EnrichOut> {
    let collections = std::mem::take(&mut body.collections);
    Ok(Json(service.enrich(call, collections, body.enrich()?).await?.into()))
}

fn document_id(id: String) -> Result<cairn_engine::types::PointId, Problem> {
    cairn_engine::types::PointId::new(id).map_err(|e| Problem::from(e).at("id"))
}

fn parameter<T: std::str::FromStr>(key: &str, value: &str, allowed: &str) -> Result<T, Problem> {
    value.parse().map_err(|_| {
        let detail = format!("{key} is {allowed}, got {value:?}");
        Problem::refused(StatusCode::BAD_REQUEST, "bad_parameter", detail).at(key)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `UPDATE_GOLDEN=1 cargo test -p cairn-server openapi` writes the file anew; review it like code.
    #[test]
    fn openapi_is_what_was_agreed() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json");
        let now = json(routes().get_openapi()) + "\n";
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(path, &now).unwrap();
        }
        let agreed = std::fs::read_to_string(path).unwrap();
        assert!(
            now == agreed,
            "the REST contract changed: if that is meant, run with UPDATE_GOLDEN=1"
        );
    }
}
