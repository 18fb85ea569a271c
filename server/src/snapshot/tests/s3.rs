//! Snapshots against a server that speaks S3's protocol (moto, a process of its own), through a proxy that is slow, answers 503,
//! resets connections, cuts answers short, and loses the answers of requests that succeeded.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::AtomicUsize;

use axum::body::Body;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use object_store::aws::AmazonS3Builder;
use object_store::{BackoffConfig, ClientOptions, RetryConfig};

use super::store_server::{BUCKET, StoreServer};
use super::*;
use crate::rag::remote::install_crypto;
use crate::snapshot::sealed::Looked;

/// What the proxy does to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    None,
    /// Later than the client waits.
    Slow,
    /// Too busy, says the store.
    Busy,
    /// The connection ends before the request is passed on.
    Reset,
    /// The request succeeds, the connection ends before its answer.
    Lost,
    /// Half of the answer's body, then the connection ends.
    Truncated,
}

/// Which faults, and which share of the requests has one.
const FAULTS: [(&[Fault], usize); 7] = [
    (&[], 1),
    (&[Fault::Busy], 2),
    (&[Fault::Reset], 3),
    (&[Fault::Lost], 3),
    (&[Fault::Truncated], 3),
    (&[Fault::Slow], 17),
    (
        &[Fault::Busy, Fault::Reset, Fault::Lost, Fault::Truncated, Fault::Slow],
        4,
    ),
];

/// How long a client waits for an answer, and how long a slow one takes.
const PATIENCE: Duration = Duration::from_secs(3);
const SLOW: Duration = Duration::from_secs(4);

/// Between the client and the server. Every `every`-th request suffers the next of `faults`.
pub(super) struct Proxy {
    pub(super) addr: SocketAddr,
    suffered: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Proxy {
    pub(super) async fn start(server: SocketAddr, faults: &'static [Fault], every: usize) -> Self {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (requests, suffered) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let counted = Arc::clone(&suffered);
        let handler = move |request: Request| {
            let n = requests.fetch_add(1, Ordering::Relaxed);
            let fault = match n % every == every - 1 && !faults.is_empty() {
                true => faults[counted.fetch_add(1, Ordering::Relaxed) % faults.len()],
                false => Fault::None,
            };
            pass(client.clone(), server, request, fault)
        };
        let router = axum::Router::new().fallback(handler);
        let task = tokio::spawn(async move { axum_serve(listener, router).await });
        Self { addr, suffered, task }
    }

    pub(super) fn store(&self) -> Store {
        let s3 = AmazonS3Builder::new()
            .with_bucket_name(BUCKET)
            .with_region("us-east-1")
            .with_access_key_id("key")
            .with_secret_access_key("secret")
            .with_endpoint(format!("http://{}", self.addr))
            .with_client_options(client())
            .with_retry(retry())
            .build()
            .unwrap();
        patient(Arc::new(s3), "the test's S3")
    }
}

/// How every client here talks to the proxy.
pub(super) fn client() -> ClientOptions {
    ClientOptions::new().with_allow_http(true).with_timeout(PATIENCE)
}

pub(super) fn retry() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(5),
            max_backoff: Duration::from_millis(50),
            base: 2.0,
        },
        max_retries: 10,
        retry_timeout: Duration::from_secs(60),
    }
}

pub(super) fn patient(inner: Arc<dyn ObjectStore>, shown: &str) -> Store {
    let mut store = Store::over(inner, Path::from("a/prefix"), shown.to_owned());
    store.retry = Duration::from_secs(60);
    store
}

/// Serves a listener; axum's own function is not compiled in.
async fn axum_serve(listener: tokio::net::TcpListener, router: axum::Router) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            return;
        };
        let service = hyper_util::service::TowerToHyperService::new(router.clone());
        tokio::spawn(async move {
            let io = hyper_util::rt::TokioIo::new(stream);
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(io, service)
                .await;
        });
    }
}

/// Ends the connection without an answer, and without a word in the log.
fn hang_up() -> ! {
    std::panic::resume_unwind(Box::new("hung up"))
}

async fn pass(client: reqwest::Client, to: SocketAddr, request: Request, fault: Fault) -> Result<Response, Infallible> {
    match fault {
        Fault::Reset => hang_up(),
        Fault::Busy => return Ok(StatusCode::SERVICE_UNAVAILABLE.into_response()),
        Fault::Slow => tokio::time::sleep(SLOW).await,
        Fault::None | Fault::Lost | Fault::Truncated => {}
    }
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap_or_default();
    let url = format!("http://{to}{}", head.uri);
    let mut headers = head.headers;
    headers.remove("host");
    let sent = client
        .request(head.method, url)
        .headers(headers)
        .body(body)
        .send()
        .await;
    let Ok(answer) = sent else { hang_up() };
    let (status, headers) = (answer.status(), answer.headers().clone());
    let bytes = answer.bytes().await.unwrap_or_default();
    if fault == Fault::Lost {
        hang_up();
    }
    let body = if fault == Fault::Truncated && bytes.len() > 1 {
        let half = bytes.slice(..bytes.len() / 2);
        let broken = std::io::Error::other("cut off");
        Body::from_stream(stream::iter([Ok::<Bytes, std::io::Error>(half), Err(broken)]))
    } else {
        Body::from(bytes)
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response.headers_mut().remove("transfer-encoding");
    Ok(response)
}

/// Two snapshots that share most, one of them large enough for parts; checked, restored, deleted.
async fn all_of_it(snapshots: &Snapshots) {
    let large: Vec<u8> = (0..20u32 << 20).map(|i| (i % 251) as u8).collect();
    let (first, second) = (Files::new(&[b"one", &large]), Files::new(&[b"one", &large, b"two"]));
    let made = snapshots.create("first", first.source(), &WORK).await.unwrap();
    assert_eq!(made.new_files, 3);
    let made = snapshots.create("second", second.source(), &WORK).await.unwrap();
    assert_eq!((made.new_files, made.new_bytes), (1, 3));
    let taken = snapshots.create("second", first.source(), &WORK).await.unwrap_err();
    assert_eq!(taken.code, "snapshot_exists");
    assert_eq!(snapshots.list().await.unwrap().len(), 2);
    snapshots.verify("first", &WORK).await.unwrap();
    assert!(restored(snapshots, "second").await.unwrap() == second.files);
    let freed = delete(snapshots, "second").await.unwrap();
    assert_eq!(freed, Collected::Removed { objects: 1, bytes: 3 });
    assert!(restored(snapshots, "first").await.unwrap() == first.files);
    delete(snapshots, "first").await.unwrap();
    for below in ["snapshots", "objects", "leases"] {
        let left: Vec<String> = snapshots
            .store
            .list(below)
            .await
            .unwrap()
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        assert!(left.is_empty(), "{below}: {left:?}");
    }
}

/// All of it, through each of the faults.
pub(super) async fn through_everything(server: &StoreServer, store: fn(&Proxy) -> Store) {
    for (faults, every) in FAULTS {
        let proxy = Proxy::start(SocketAddr::from(([127, 0, 0, 1], server.port)), faults, every).await;
        all_of_it(&Snapshots::new(store(&proxy))).await;
        let suffered = proxy.suffered.load(Ordering::Relaxed);
        assert!(
            faults.is_empty() || suffered >= 3,
            "{faults:?} hit only {suffered} requests"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_on_s3_survive_everything_that_passes() {
    install_crypto();
    let Some(server) = StoreServer::s3() else { return };
    through_everything(&server, Proxy::store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_gone_or_refuses_is_said_and_nothing_is_half_done() {
    install_crypto();
    let Some(server) = StoreServer::s3() else { return };
    let good = Proxy::start(SocketAddr::from(([127, 0, 0, 1], server.port)), &[], 1).await;
    let files = Files::new(&[b"one"]);
    let missing = AmazonS3Builder::new()
        .with_bucket_name("no-such-bucket")
        .with_region("us-east-1")
        .with_access_key_id("key")
        .with_secret_access_key("secret")
        .with_endpoint(format!("http://{}", good.addr))
        .with_client_options(ClientOptions::new().with_allow_http(true))
        .build()
        .unwrap();
    let missing = Snapshots::new(Store::over(
        Arc::new(missing),
        Path::default(),
        "s3://no-such-bucket".into(),
    ));
    let refused = missing.create("s", files.source(), &WORK).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Unavailable, "{refused}");
    assert!(refused.message.contains("no-such-bucket"), "{refused}");
    let snapshots = Snapshots::new(good.store());
    snapshots.create("s", files.source(), &WORK).await.unwrap();
    let mut store = good.store();
    drop(good);
    store.transfers = 1;
    let begun = std::time::Instant::now();
    let work = Work {
        stopped: &|| begun.elapsed() > Duration::from_secs(2),
        progress: &|_| (),
    };
    // Whoever waits for a store that does not answer can still stop waiting.
    let stopped = Snapshots::new(store).verify("s", &work).await.unwrap_err();
    assert!(
        matches!(stopped.kind, ErrorKind::Cancelled | ErrorKind::Unavailable),
        "{stopped}"
    );
    assert!(begun.elapsed() < Duration::from_secs(30));
}

#[tokio::test(flavor = "multi_thread")]
async fn sealed_files_reach_s3_through_everything_that_passes() {
    install_crypto();
    let Some(server) = StoreServer::s3() else { return };
    for (faults, every) in FAULTS {
        let proxy = Proxy::start(SocketAddr::from(([127, 0, 0, 1], server.port)), faults, every).await;
        let large: Vec<u8> = (0..20u32 << 20).map(|i| (i % 241) as u8).collect();
        let files = Files::new(&[b"one", b"two", &large, b"three", b"four"]);
        let sealed: Vec<_> = files.files.iter().filter(|(path, _)| path.ends_with(".seg")).collect();
        let sealed: Vec<_> = sealed
            .into_iter()
            .map(|(path, content)| cairn_engine::engine::SealedFile {
                path: path.clone(),
                bytes: content.len() as u64,
                is_damaged: false,
                original: None,
            })
            .collect();
        let mut uploads = Uploads::open(Snapshots::new(proxy.store()), files.dir.path());
        let mut sent = 0;
        while let Looked::Sent(more) = uploads.look(sealed.clone(), 1_000, &WORK).await.unwrap() {
            sent += more;
        }
        assert_eq!(sent, 5, "{faults:?}");
        let snapshots = Snapshots::new(proxy.store());
        let made = snapshots.create("s", files.source(), &WORK).await.unwrap();
        assert_eq!(made.new_files, 1, "{faults:?}: only the database is sent");
        assert!(restored(&snapshots, "s").await.unwrap() == files.files);
        // Nobody names them but who wants them, then nobody.
        assert_eq!(
            delete(&snapshots, "s").await.unwrap(),
            Collected::Removed { objects: 1, bytes: 16 }
        );
        forget(&snapshots, files.dir.path()).await.unwrap();
        snapshots.create("s", Files::new(&[]).source(), &WORK).await.unwrap();
        delete(&snapshots, "s").await.unwrap();
        for below in ["objects", "wanted", "leases"] {
            assert!(
                snapshots.store.list(below).await.unwrap().is_empty(),
                "{faults:?}: {below}"
            );
        }
    }
}
