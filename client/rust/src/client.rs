//! Connecting, and what every call has in common: deadline, retries, limits, request ids.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use cairn_proto::v1;
use futures::future::BoxFuture;
use tonic::codec::CompressionEncoding;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status};

use crate::collection::Collection;
use crate::documents::{Enrich, Enriched};
use crate::error::{Error, ErrorKind, Result};
use crate::operation::{Operation, OperationState};
use crate::retry::Retry;
use crate::schema::{CollectionInfo, Schema};
use crate::snapshot::{Restore, Snapshot};
use crate::wire;

/// Answers may hold whole documents or vectors: more than gRPC's default of 4 MiB. The server bounds them in bytes of JSON
/// (64 MiB), of which a message may need several for each; this is its bound for messages.
const ANSWER_BYTES_MAX: usize = 256 << 20;

/// Generated clients have the same settings under unrelated types.
macro_rules! stub {
    ($client:expr, $stub:ty) => {{
        let stub = <$stub>::new($client.channel.clone())
            .accept_compressed(CompressionEncoding::Zstd)
            .max_decoding_message_size(ANSWER_BYTES_MAX);
        if $client.compress {
            stub.send_compressed(CompressionEncoding::Zstd)
        } else {
            stub
        }
    }};
}

/// A connection to a Cairn server. Cheap to clone; all clones share one HTTP/2 connection, which is made again when it breaks.
#[derive(Clone)]
pub struct Client {
    channel: Channel,
    url: String,
    timeout: Duration,
    retry: Retry,
    compress: bool,
}

/// Settings of a [`Client`].
#[derive(Debug, Clone)]
#[must_use]
pub struct Builder {
    url: String,
    timeout: Duration,
    connect_timeout: Duration,
    retry: Retry,
    compress: bool,
}

impl Client {
    /// Settings for a server such as `http://127.0.0.1:7700`.
    pub fn builder(url: impl Into<String>) -> Builder {
        Builder {
            url: url.into(),
            timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(5),
            retry: Retry::default(),
            compress: false,
        }
    }

    /// Connects with the default settings. Fails with [`ErrorKind::Unreachable`] if nothing answers.
    pub async fn connect(url: impl Into<String>) -> Result<Self> {
        Self::builder(url).connect().await
    }

    /// The address that this client was made for.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The collection `name`, for reading and writing. Asks nothing of the server yet.
    pub fn collection(&self, name: impl Into<String>) -> Collection {
        Collection::new(self.clone(), name.into())
    }

    /// Finds what matters to a prompt in one or several collections, ranked together, and packs it, cited, into a token
    /// budget.
    pub async fn enrich<S: Into<String>>(
        &self,
        collections: impl IntoIterator<Item = S>,
        enrich: Enrich,
    ) -> Result<Enriched> {
        let request = wire::enrich(enrich, collections.into_iter().map(Into::into).collect())?;
        let answer = self
            .call(request, |c, r| async move { c.documents().enrich(r).await })
            .await?;
        Ok(answer.into())
    }

    /// Makes a collection. Repeating it with the same schema answers with the existing one; with another schema it is
    /// [`ErrorKind::Conflict`].
    pub async fn create_collection(&self, name: &str, schema: Schema) -> Result<CollectionInfo> {
        let request = v1::CreateCollectionRequest {
            collection: name.to_owned(),
            schema: Some(schema.into()),
        };
        let made = self
            .call(request, |c, r| async move { c.collections().create(r).await })
            .await?;
        wire::collection(made)
    }

    /// One collection's definition and state.
    pub async fn get_collection(&self, name: &str) -> Result<CollectionInfo> {
        let request = v1::GetCollectionRequest {
            collection: name.to_owned(),
        };
        let found = self
            .call(request, |c, r| async move { c.collections().get(r).await })
            .await?;
        wire::collection(found)
    }

    /// Names of all collections, in order.
    pub async fn list_collections(&self) -> Result<Vec<String>> {
        let request = v1::ListCollectionsRequest {};
        Ok(self
            .call(request, |c, r| async move { c.collections().list(r).await })
            .await?
            .collections)
    }

    /// Removes a collection and everything in it.
    pub async fn delete_collection(&self, name: &str) -> Result<()> {
        let request = v1::DeleteCollectionRequest {
            collection: name.to_owned(),
            request_id: request_id(),
        };
        self.call(request, |c, r| async move { c.collections().delete(r).await })
            .await
            .map(|_| ())
    }

    /// Seals what grows and merges each shard into as few segments as its settings allow. Answers at once with the operation
    /// that does it; [`Client::wait`] waits for its end.
    pub async fn optimize(&self, collection: &str) -> Result<Operation> {
        let request = v1::OptimizeRequest {
            collection: collection.to_owned(),
        };
        self.call(request, |c, r| async move { c.collections().optimize(r).await })
            .await
            .and_then(wire::operation)
    }

    /// One operation.
    pub async fn operation(&self, id: &str) -> Result<Operation> {
        let request = v1::GetOperationRequest { id: id.to_owned() };
        self.call(request, |c, r| async move { c.operations().get(r).await })
            .await
            .and_then(wire::operation)
    }

    /// Operations that run and those that ended lately, newest first.
    pub async fn operations_of(&self, collection: Option<&str>) -> Result<Vec<Operation>> {
        let request = v1::ListOperationsRequest {
            collection: collection.unwrap_or_default().to_owned(),
        };
        let all = self
            .call(request, |c, r| async move { c.operations().list(r).await })
            .await?;
        all.operations.into_iter().map(wire::operation).collect()
    }

    /// Asks an operation to stop; answers with what it is then.
    pub async fn cancel_operation(&self, id: &str) -> Result<Operation> {
        let request = v1::CancelOperationRequest { id: id.to_owned() };
        self.call(request, |c, r| async move { c.operations().cancel(r).await })
            .await
            .and_then(wire::operation)
    }

    /// Waits for an operation's end, however long it takes, and tells every change on the way. A connection that breaks is
    /// made again as often as a call would be repeated, counted anew with each change that is heard of. A server that was
    /// started again has forgotten the operation ([`ErrorKind::NotFound`]).
    pub async fn wait(&self, id: &str, mut told: impl FnMut(&Operation)) -> Result<Operation> {
        let mut last: Option<Operation> = None;
        let mut broken = 0;
        loop {
            let request = v1::GetOperationRequest { id: id.to_owned() };
            // No timeout goes with it: it would be that of the whole stream.
            let mut watching = self
                .retrying(|client, _| {
                    let request = Request::new(request.clone());
                    async move { client.operations().watch(request).await }
                })
                .await?;
            let error = loop {
                match watching.message().await {
                    Ok(Some(now)) => {
                        let now = wire::operation(now)?;
                        if last.as_ref() != Some(&now) {
                            told(&now);
                            broken = 0;
                        }
                        if now.state != OperationState::Running {
                            return Ok(now);
                        }
                        last = Some(now);
                    }
                    Ok(None) => break Error::bad_answer("the server stopped telling of an operation before its end"),
                    Err(status) => match Error::from_status(&status) {
                        error if error.is_retryable() => break error,
                        error => return Err(error),
                    },
                }
            };
            broken += 1;
            if broken > self.retry.retries {
                return Err(error);
            }
            tokio::time::sleep(self.retry.wait(broken, &error)).await;
        }
    }

    /// Makes a snapshot of this moment; without a name it gets the date and time. Answers at once with the operation that
    /// does it, which names the snapshot.
    pub async fn create_snapshot(&self, name: Option<&str>) -> Result<Operation> {
        let request = v1::CreateSnapshotRequest {
            snapshot: name.unwrap_or_default().to_owned(),
        };
        self.call(request, |c, r| async move { c.snapshots_service().create(r).await })
            .await
            .and_then(wire::operation)
    }

    /// All snapshots of the server's store, the newest first, without their collections.
    pub async fn snapshots(&self) -> Result<Vec<Snapshot>> {
        let all = self
            .call(v1::ListSnapshotsRequest {}, |c, r| async move {
                c.snapshots_service().list(r).await
            })
            .await?;
        Ok(all.snapshots.into_iter().map(wire::snapshot).collect())
    }

    /// One snapshot.
    pub async fn snapshot(&self, name: &str) -> Result<Snapshot> {
        let request = v1::GetSnapshotRequest {
            snapshot: name.to_owned(),
        };
        self.call(request, |c, r| async move { c.snapshots_service().get(r).await })
            .await
            .map(wire::snapshot)
    }

    /// Reads everything that a snapshot names and compares it with what it should be. Answers at once with the operation.
    pub async fn verify_snapshot(&self, name: &str) -> Result<Operation> {
        let request = v1::VerifySnapshotRequest {
            snapshot: name.to_owned(),
        };
        self.call(request, |c, r| async move { c.snapshots_service().verify(r).await })
            .await
            .and_then(wire::operation)
    }

    /// Brings collections of a snapshot back. Answers at once with the operation.
    pub async fn restore_snapshot(&self, name: &str, what: Restore) -> Result<Operation> {
        self.restore_from(name.to_owned(), what).await
    }

    /// Brings collections back as they were at the moment that `what` names ([`Restore::to_token`], [`Restore::to_time_ms`]),
    /// from the snapshot that suits it best. Answers at once with the operation, which names the snapshot.
    pub async fn restore(&self, what: Restore) -> Result<Operation> {
        self.restore_from(String::new(), what).await
    }

    async fn restore_from(&self, snapshot: String, what: Restore) -> Result<Operation> {
        let request = v1::RestoreSnapshotRequest {
            snapshot,
            collection: what.collection,
            r#as: what.rename,
            shards: what.shards,
            replace: what.replace,
            to_token: what.to_token,
            to_time_ms: what.to_time_ms,
        };
        self.call(request, |c, r| async move { c.snapshots_service().restore(r).await })
            .await
            .and_then(wire::operation)
    }

    /// Removes a snapshot and what no other needs. Answers at once with the operation.
    pub async fn delete_snapshot(&self, name: &str) -> Result<Operation> {
        let request = v1::DeleteSnapshotRequest {
            snapshot: name.to_owned(),
        };
        self.call(request, |c, r| async move { c.snapshots_service().delete(r).await })
            .await
            .and_then(wire::operation)
    }

    /// One unary call: the message is cloned for each attempt, which carries the time that is left.
    pub(crate) async fn call<M, R, C, F>(&self, message: M, call: C) -> Result<R>
    where
        M: Clone + Send + Sync,
        C: Fn(Self, Request<M>) -> F + Send + Sync,
        F: Future<Output = Result<Response<R>, Status>> + Send,
    {
        self.retrying(|client, left| {
            let mut request = Request::new(message.clone());
            request.set_timeout(left);
            call(client, request)
        })
        .await
    }

    /// Any call: `attempt` makes one attempt in the time it is given.
    pub(crate) async fn retrying<R, A, F>(&self, attempt: A) -> Result<R>
    where
        A: Fn(Self, Duration) -> F + Send + Sync,
        F: Future<Output = Result<Response<R>, Status>> + Send,
    {
        let once = |left| {
            // On the heap: a call's state is some kilobytes, which every caller's future would carry by value.
            let answer: BoxFuture<'_, _> = Box::pin(attempt(self.clone(), left));
            async {
                answer
                    .await
                    .map(Response::into_inner)
                    .map_err(|s| Error::from_status(&s))
            }
        };
        self.retry.run(self.timeout, once).await
    }

    pub(crate) fn collections(&self) -> v1::collections_client::CollectionsClient<Channel> {
        stub!(self, v1::collections_client::CollectionsClient<Channel>)
    }

    pub(crate) fn points(&self) -> v1::points_client::PointsClient<Channel> {
        stub!(self, v1::points_client::PointsClient<Channel>)
    }

    pub(crate) fn queries(&self) -> v1::query_client::QueryClient<Channel> {
        stub!(self, v1::query_client::QueryClient<Channel>)
    }

    pub(crate) fn operations(&self) -> v1::operations_client::OperationsClient<Channel> {
        stub!(self, v1::operations_client::OperationsClient<Channel>)
    }

    pub(crate) fn snapshots_service(&self) -> v1::snapshots_client::SnapshotsClient<Channel> {
        stub!(self, v1::snapshots_client::SnapshotsClient<Channel>)
    }

    pub(crate) fn documents(&self) -> v1::documents_client::DocumentsClient<Channel> {
        stub!(self, v1::documents_client::DocumentsClient<Channel>)
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("url", &self.url)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

impl Builder {
    /// Time for one call with all its attempts. Default: 30 s.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }
    /// Time for making the connection. Default: 5 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }
    /// When to repeat calls that failed for now. Default: 5 retries, waits of up to 50 ms, 100 ms, ... 5 s.
    pub fn retry(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }
    /// Compress requests with zstd; pays off between machines, not on one. Answers are accepted compressed anyway.
    pub fn compress(mut self, yes: bool) -> Self {
        self.compress = yes;
        self
    }

    /// Connects, and repeats that too if it fails.
    pub async fn connect(self) -> Result<Client> {
        let endpoint = self.endpoint()?;
        let (retry, timeout) = (self.retry, self.connect_timeout.max(self.timeout));
        let once = |_| async {
            endpoint.connect().await.map_err(|e| {
                Error::new(
                    ErrorKind::Unreachable,
                    "unreachable",
                    format!("{}: {}", self.url, root_cause(&e)),
                )
            })
        };
        let channel = retry.run(timeout, once).await?;
        Ok(self.client(channel))
    }

    /// A client that connects when it is first used.
    pub fn connect_lazy(self) -> Result<Client> {
        let channel = self.endpoint()?.connect_lazy();
        Ok(self.client(channel))
    }

    fn endpoint(&self) -> Result<Endpoint> {
        let bad = |why: String| {
            Error::new(
                ErrorKind::Invalid,
                "bad_endpoint",
                format!(
                    "an endpoint is a URL like http://127.0.0.1:7700, got {:?}: {why}",
                    self.url
                ),
            )
        };
        if !self.url.starts_with("http://") {
            return Err(bad("only http:// is spoken".to_owned()));
        }
        Ok(Endpoint::from_shared(self.url.clone())
            .map_err(|e| bad(e.to_string()))?
            .connect_timeout(self.connect_timeout)
            // Batches are small messages to Nagle and a lost round trip to us.
            .tcp_nodelay(true)
            // Finds a peer that vanished without a goodbye before the call's deadline does.
            .http2_keep_alive_interval(Duration::from_secs(20))
            .keep_alive_timeout(Duration::from_secs(10))
            // One batch of vectors exceeds HTTP/2's default window of 64 KiB many times.
            .initial_stream_window_size(4 << 20)
            .initial_connection_window_size(16 << 20))
    }

    fn client(self, channel: Channel) -> Client {
        Client {
            channel,
            url: self.url,
            timeout: self.timeout,
            retry: self.retry,
            compress: self.compress,
        }
    }
}

/// A fresh request id: 128 random bits. Every attempt of a write carries the same one.
pub(crate) fn request_id() -> String {
    format!("{:032x}", rand::random::<u128>())
}

fn root_cause(e: &dyn std::error::Error) -> String {
    let mut cause = e;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
