//! What waiting for an operation promises, against a server that loses its connections.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cairn_client::{Client, ErrorKind, OperationState, Retry};
use cairn_proto::v1;
use cairn_proto::v1::operations_server::{Operations, OperationsServer};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Code, Request, Response, Status};

type Told = Vec<Result<v1::Operation, Status>>;

/// What each watch of the operation is told before its stream ends; an error alone refuses the watch.
#[derive(Clone, Default)]
struct Scripted(Arc<Mutex<VecDeque<Told>>>);

#[tonic::async_trait]
impl Operations for Scripted {
    async fn get(&self, _: Request<v1::GetOperationRequest>) -> Result<Response<v1::Operation>, Status> {
        Err(Status::unimplemented("not scripted"))
    }
    async fn list(
        &self,
        _: Request<v1::ListOperationsRequest>,
    ) -> Result<Response<v1::ListOperationsResponse>, Status> {
        Err(Status::unimplemented("not scripted"))
    }
    type WatchStream = tokio_stream::Iter<std::vec::IntoIter<Result<v1::Operation, Status>>>;
    async fn watch(&self, _: Request<v1::GetOperationRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let told = self.0.lock().unwrap().pop_front().unwrap_or_default();
        match told.as_slice() {
            [Err(status)] => Err(status.clone()),
            _ => Ok(Response::new(tokio_stream::iter(told))),
        }
    }
    async fn cancel(&self, _: Request<v1::CancelOperationRequest>) -> Result<Response<v1::Operation>, Status> {
        Err(Status::unimplemented("not scripted"))
    }
}

const RETRIES: u32 = 2;

async fn serve(script: impl IntoIterator<Item = Told>) -> (Client, Scripted) {
    let server = Scripted(Arc::new(Mutex::new(script.into_iter().collect())));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(
        tonic::transport::Server::builder()
            .add_service(OperationsServer::new(server.clone()))
            .serve_with_incoming(TcpListenerStream::new(listener)),
    );
    let retry = Retry {
        retries: RETRIES,
        first_wait: Duration::from_millis(1),
        wait_max: Duration::from_millis(5),
    };
    (Client::builder(url).retry(retry).connect().await.unwrap(), server)
}

fn at(progress: f32, state: v1::OperationState) -> Result<v1::Operation, Status> {
    Ok(v1::Operation {
        id: "op".into(),
        state: state.into(),
        progress,
        ..v1::Operation::default()
    })
}

fn running(progress: f32) -> Result<v1::Operation, Status> {
    at(progress, v1::OperationState::Running)
}

fn done() -> Result<v1::Operation, Status> {
    at(1.0, v1::OperationState::Done)
}

fn busy() -> Result<v1::Operation, Status> {
    let mut status = Status::new(Code::Unavailable, "draining");
    status.metadata_mut().insert("cairn-code", "draining".parse().unwrap());
    Err(status)
}

#[tokio::test]
async fn an_operation_is_waited_for_through_broken_connections() {
    let script = [
        vec![busy()],
        vec![running(0.1), busy()],
        // Ends in the middle, as a proxy ends what takes long.
        vec![running(0.1), running(0.2)],
        vec![running(0.3), busy()],
        vec![running(0.4), running(0.5)],
        vec![running(0.5), done()],
    ];
    let (client, server) = serve(script).await;
    let mut told = Vec::new();
    let ended = client.wait("op", |now| told.push(now.progress)).await.unwrap();
    assert_eq!(ended.state, OperationState::Done);
    assert_eq!(told, [0.1, 0.2, 0.3, 0.4, 0.5, 1.0], "every change once");
    assert!(server.0.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_server_that_says_nothing_new_is_not_asked_for_ever() {
    let (client, server) = serve((0..50).map(|_| vec![running(0.1)])).await;
    let error = client.wait("op", |_| ()).await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Server, "bad_answer"));
    assert_eq!(server.0.lock().unwrap().len(), 50 - 1 - RETRIES as usize);
}

#[tokio::test]
async fn an_operation_that_is_forgotten_is_not_waited_for() {
    let mut status = Status::new(Code::NotFound, "a restart forgets them");
    status
        .metadata_mut()
        .insert("cairn-code", "operation_not_found".parse().unwrap());
    let (client, _server) = serve([vec![running(0.1), busy()], vec![Err(status)]]).await;
    let error = client.wait("op", |_| ()).await.unwrap_err();
    assert_eq!(error.code(), "operation_not_found");
}
