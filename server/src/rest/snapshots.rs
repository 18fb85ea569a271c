//! `/api/v1/snapshots`: decode, call, encode, as in the module above.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::extract::{Body, Plain};
use super::problem::Problem;
use super::wire::{CreateSnapshotBody, OperationOut, RestoreBody, RestoreSnapshotBody, SnapshotOut, SnapshotsOut};
use super::{App, Reply};
use crate::service::{Operation, Service};

type Begun = Result<(StatusCode, Json<OperationOut>), Problem>;

pub(super) fn routes() -> OpenApiRouter<Arc<Service>> {
    OpenApiRouter::new()
        .routes(routes!(create_snapshot, list_snapshots))
        .routes(routes!(get_snapshot, delete_snapshot))
        .routes(routes!(verify_snapshot))
        .routes(routes!(restore_snapshot))
        .routes(routes!(restore))
}

fn begun(operation: Operation) -> (StatusCode, Json<OperationOut>) {
    (StatusCode::ACCEPTED, Json(operation.into()))
}

/// Makes a snapshot of this moment while reads and writes go on. Answers at once with the operation to watch, which names
/// the snapshot.
#[utoipa::path(post, path = "/api/v1/snapshots", tag = "snapshots", request_body = CreateSnapshotBody,
    responses((status = 202, body = OperationOut), (status = "default", body = Problem)))]
async fn create_snapshot(State(service): App, Plain(call): Plain, Body(body): Body<CreateSnapshotBody>) -> Begun {
    Ok(begun(service.create_snapshot(call, body.snapshot).await?))
}

/// All snapshots of the store, the newest first, without their collections.
#[utoipa::path(get, path = "/api/v1/snapshots", tag = "snapshots",
    responses((status = 200, body = SnapshotsOut), (status = "default", body = Problem)))]
async fn list_snapshots(State(service): App, Plain(call): Plain) -> Reply<SnapshotsOut> {
    let snapshots = service.snapshots(call).await?;
    Ok(Json(SnapshotsOut {
        snapshots: snapshots.into_iter().map(Into::into).collect(),
    }))
}

/// One snapshot.
#[utoipa::path(get, path = "/api/v1/snapshots/{snapshot}", tag = "snapshots",
    params(("snapshot" = String, Path)),
    responses((status = 200, body = SnapshotOut), (status = "default", body = Problem)))]
async fn get_snapshot(State(service): App, Path(name): Path<String>, Plain(call): Plain) -> Reply<SnapshotOut> {
    Ok(Json(service.snapshot(call, name).await?.into()))
}

/// Removes a snapshot and what no other needs. Answers at once with the operation to watch.
#[utoipa::path(delete, path = "/api/v1/snapshots/{snapshot}", tag = "snapshots",
    params(("snapshot" = String, Path)),
    responses((status = 202, body = OperationOut), (status = "default", body = Problem)))]
async fn delete_snapshot(State(service): App, Path(name): Path<String>, Plain(call): Plain) -> Begun {
    Ok(begun(service.delete_snapshot(call, name).await?))
}

/// Reads everything that a snapshot names and compares it with what it should be. Answers at once with the operation.
#[utoipa::path(post, path = "/api/v1/snapshots/{snapshot}/verify", tag = "snapshots",
    params(("snapshot" = String, Path)),
    responses((status = 202, body = OperationOut), (status = "default", body = Problem)))]
async fn verify_snapshot(State(service): App, Path(name): Path<String>, Plain(call): Plain) -> Begun {
    Ok(begun(service.verify_snapshot(call, name).await?))
}

/// Brings one collection back, or all, through the write path: as the snapshot holds them, or as they were at a moment after
/// it. Answers at once with the operation to watch.
#[utoipa::path(post, path = "/api/v1/snapshots/{snapshot}/restore", tag = "snapshots",
    params(("snapshot" = String, Path)), request_body = RestoreSnapshotBody,
    responses((status = 202, body = OperationOut), (status = "default", body = Problem)))]
async fn restore_snapshot(
    State(service): App,
    Path(name): Path<String>,
    Plain(call): Plain,
    Body(body): Body<RestoreSnapshotBody>,
) -> Begun {
    Ok(begun(service.restore_snapshot(call, Some(name), body.read()?).await?))
}

/// The same from the snapshot that suits the moment best, unless one is named. Answers at once with the operation to watch.
#[utoipa::path(post, path = "/api/v1/restore", tag = "snapshots", request_body = RestoreBody,
    responses((status = 202, body = OperationOut), (status = "default", body = Problem)))]
async fn restore(State(service): App, Plain(call): Plain, Body(body): Body<RestoreBody>) -> Begun {
    let (snapshot, what) = body.read()?;
    Ok(begun(service.restore_snapshot(call, snapshot, what).await?))
}
