//! The life of a server: listen, open, serve, drain, flush.
//!
//! The metrics listener comes first and says "not ready" while the engine replays its log; the API's port opens only
//! when there is something to answer from. On shutdown: readiness off, no new connections, requests in flight finish
//! within `drain_ms`, background work stops, the engine flushes, its lock is free. A failure of background work that
//! means damage stops the server rather than letting it answer from what cannot be trusted.

use std::io;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use cairn_engine::config::{Clock, Components};
use cairn_engine::engine::{Maintained, Phase, Progress};
use cairn_engine::patience::Patience;
use cairn_engine::storage::LocalDir;
use cairn_engine::{Engine, ErrorKind};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use metrics_exporter_prometheus::PrometheusHandle;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle as Runtime;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::config::{Config, ConfigError, Limits};
use crate::rag::extract::apart::PdfReader;
use crate::rag::models::{ModelError, Models};
use crate::rag::tokens;
use crate::service::{Service, SnapshotsOf};
use crate::snapshot::{Healer, Snapshots, Store, Uploads};
use crate::{grpc, rest, snapshot, telemetry};

/// Streams that one HTTP/2 connection may have open.
const HTTP2_STREAMS_MAX: u32 = 1_024;
/// A silent HTTP/2 peer is pinged after this long, and dropped if it stays silent.
const HTTP2_PING: Duration = Duration::from_secs(30);
/// Open connections of the metrics listener: a few scrapers and the probes of one kubelet.
const METRICS_CONNECTIONS_MAX: usize = 64;
/// Threads of background work: while one is in a long merge, the other seals, or writers would wait for the merge.
const MAINTENANCE_THREADS: usize = 2;
/// How often background work looks whether it should stop while there is nothing to do.
const MAINTENANCE_NAP: Duration = Duration::from_millis(250);
/// Bytes that are verified between two looks whether to stop.
const VERIFY_STEP: usize = 1 << 20;
/// The least that is read again at a time: a block of a file.
const SCRUB_STEP_MIN: u64 = 64 << 10;
/// The time between two passes of reading everything again.
const SCRUB_PAUSE: Duration = Duration::from_secs(60 * 60);
/// The longest that one search which is asked again may take, ...
const SAMPLE_TIME_MAX: Duration = Duration::from_secs(3);
/// ... and how many times as long the pause after it is.
const SAMPLE_PAUSES: u32 = 19;
/// How long background work waits after a failure that may pass, such as a full disk.
const MAINTENANCE_BACKOFF: Duration = Duration::from_secs(5);
/// How often measured times are put into their histograms. Until then each is kept by itself, so that a server whose
/// metrics nobody reads would grow with every request.
const METRICS_UPKEEP: Duration = Duration::from_secs(5);
/// How long the last blocking calls may hold the engine after the drain.
const RELEASE_WAIT: Duration = Duration::from_secs(5);

/// Why a server did not start, or stopped by itself.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The configuration cannot work.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// An address cannot be listened on.
    #[error("cannot listen on {addr}: {source}")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// A model of the configuration cannot be used.
    #[error("cannot use the model of {0}")]
    Model(#[from] ModelError),
    /// The data directory cannot be opened.
    #[error("cannot open data directory {}: {source}", dir.display())]
    Open {
        /// The directory.
        dir: PathBuf,
        /// Why.
        source: cairn_engine::Error,
    },
    /// The engine failed while serving.
    #[error("the engine failed: {0}")]
    Engine(cairn_engine::Error),
    /// The server could not be put together.
    #[error("cannot set up {what}: {why}")]
    Setup {
        /// Which part.
        what: &'static str,
        /// Why.
        why: String,
    },
}

/// A server that is up.
#[derive(Debug)]
pub struct Running {
    addr: SocketAddr,
    metrics_addr: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<Result<(), ServeError>>,
}

impl Running {
    /// Where REST and gRPC are.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
    /// Where `/metrics`, `/livez` and `/readyz` are.
    pub fn metrics_addr(&self) -> SocketAddr {
        self.metrics_addr
    }
    /// Drains, flushes and stops. The data directory is free when this returns.
    pub async fn shutdown(self) -> Result<(), ServeError> {
        self.stop.cancel();
        self.stopped().await
    }
    /// Serves until `shutdown` resolves, then drains; or until the server stops by itself.
    pub async fn until<T>(self, shutdown: impl Future<Output = T>) -> Result<(), ServeError> {
        let stop = self.stop.clone();
        let stopped = self.stopped();
        tokio::pin!(stopped);
        tokio::select! {
            result = &mut stopped => result,
            _ = shutdown => {
                stop.cancel();
                stopped.await
            }
        }
    }
    /// Waits until the server has stopped by itself.
    pub async fn stopped(self) -> Result<(), ServeError> {
        self.task.await.unwrap_or_else(|e| {
            Err(ServeError::Setup {
                what: "the server task",
                why: e.to_string(),
            })
        })
    }
}

/// Serves until `shutdown` resolves, then drains. Logs and metrics are the caller's to set up ([`telemetry::init_logs`]).
pub async fn serve(config: Config, shutdown: impl Future<Output = ()>) -> Result<(), ServeError> {
    tokio::pin!(shutdown);
    let running = tokio::select! {
        started = start(config) => started?,
        () = &mut shutdown => return Ok(()),
    };
    running.until(shutdown).await
}

/// Resolves at the first SIGTERM or SIGINT.
pub async fn signals() -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => tracing::info!("SIGTERM: draining"),
        _ = interrupt.recv() => tracing::info!("SIGINT: draining"),
    }
    Ok(())
}

/// Makes the tables of the default tokenizer of prompts, on a thread that nobody waits for: they take some hundred
/// milliseconds, which the first prompt would take longer. `after` a while, so that opening the data comes first.
pub fn warm_up(after: Duration) {
    let make = move || {
        std::thread::sleep(after);
        drop(tokens::counter(tokens::O200K_BASE).map(|counter| counter.count("warm")));
    };
    let _without_it_the_first_waits = std::thread::Builder::new().name("cairn-warm-up".to_owned()).spawn(make);
}

/// Starts a server and returns when it answers. It reads PDFs itself, in memory that nothing bounds: for files of one's own.
pub async fn start(config: Config) -> Result<Running, ServeError> {
    start_with(config, PdfReader::Here).await
}

/// Starts a server that reads PDFs with `pdfs`, and returns when it answers.
pub async fn start_with(config: Config, pdfs: PdfReader) -> Result<Running, ServeError> {
    config.check()?;
    if !config.listen.ip().is_loopback() {
        tracing::warn!(listen = %config.listen, "anyone who can reach this address can read and change everything");
    }
    let recorder = telemetry::recorder().map_err(|e| ServeError::Setup {
        what: "metrics",
        why: e.to_string(),
    })?;
    let state = Arc::new(State {
        recorder,
        ready: AtomicBool::new(false),
        engine: Mutex::new(None),
        progress: Progress::default(),
    });
    let metrics_listener = listen(config.metrics_listen).await?;
    let metrics_addr = address(&metrics_listener, config.metrics_listen)?;
    // Dropped on every early return below: the listener goes with it.
    let metrics_limits = Limits {
        connections_max: METRICS_CONNECTIONS_MAX,
        ..config.limits.clone()
    };
    let metrics = JoinOnDrop(tokio::spawn(serve_metrics(
        metrics_listener,
        Arc::clone(&state),
        metrics_limits,
    )));
    let upkeep = JoinOnDrop(tokio::spawn(every(METRICS_UPKEEP, || recorder.run_upkeep())));

    // Before the engine: a wrong model directory should not cost a replay of the log.
    let models = models(&config).await?;
    let engine = open(&config, &state).await?;
    *state.engine.lock() = Some(Arc::clone(&engine));
    let setup = |why: String| ServeError::Setup { what: "snapshots", why };
    // One for all that is done with it, so that bytes are counted for all together.
    let store = Store::open(&config.snapshots, &config.data_dir).map_err(setup)?;
    let snapshots = SnapshotsOf::of(&config, store.clone());
    snapshot::remove_leftovers(&config.data_dir).map_err(|e| setup(e.to_string()))?;
    let service = Arc::new(Service::new(
        Arc::clone(&engine),
        models,
        pdfs,
        config.limits.clone(),
        snapshots,
    ));
    let (grpc_routes, health) = grpc::router(&service).map_err(|e| ServeError::Setup {
        what: "reflection",
        why: e.to_string(),
    })?;
    let router = rest::router(Arc::clone(&service))
        .merge(grpc_routes.reset_fallback())
        .fallback(rest::unknown_path);
    let router = if config.listen.ip().is_loopback() {
        router.layer(axum::middleware::from_fn(rest::local_callers))
    } else {
        router
    };

    let listener = listen(config.listen).await?;
    let addr = address(&listener, config.listen)?;
    let stop = CancellationToken::new();
    let (failed, failure) = oneshot::channel();
    let work = {
        let (engine, scrub) = (Arc::clone(&engine), config.engine.scrub_bytes_per_second);
        move |work, stop: &dyn Fn() -> bool| match work {
            Work::Maintain => maintain(&engine, stop),
            Work::Verify => verify(&engine, scrub, stop),
            Work::Sync => engine.keep_synced(stop),
            Work::Sample => sample(&engine, stop),
        }
    };
    let maintenance = Maintenance::spawn(work, failed).map_err(|e| ServeError::Setup {
        what: "the maintenance threads",
        why: e.to_string(),
    })?;
    let uploads = uploads(&config, store.clone(), &engine, &stop);
    let healing = healing(&config, store, &engine, &stop);
    state.ready.store(true, Ordering::Release);
    tracing::info!(%addr, %metrics_addr, data_dir = %config.data_dir.display(), "serving");

    let task = tokio::spawn({
        let stop = stop.clone();
        async move {
            let connections = tokio::spawn(accept(listener, router, config.limits.clone(), stop.clone()));
            let failure = tokio::select! {
                () = stop.cancelled() => None,
                failure = failure => failure.ok(),
            };
            state.ready.store(false, Ordering::Release);
            health
                .set_service_status("", tonic_health::ServingStatus::NotServing)
                .await;
            stop.cancel();
            service.close();
            // It holds the engine, which is to be free when the last request is.
            drop(service);
            if let Ok(connections) = connections.await {
                connections.drain(Duration::from_millis(config.drain_ms)).await;
            }
            // They hold the engine too.
            let _ended = tokio::join!(uploads, healing);
            let flushed = close(engine, &state, maintenance, failure.is_none()).await;
            drop((metrics, upkeep));
            tracing::info!("stopped");
            match failure {
                Some(failure) => Err(ServeError::Engine(failure)),
                None => flushed.map_err(ServeError::Engine),
            }
        }
    });
    Ok(Running {
        addr,
        metrics_addr,
        stop,
        task,
    })
}

async fn listen(addr: SocketAddr) -> Result<TcpListener, ServeError> {
    TcpListener::bind(addr)
        .await
        .map_err(|source| ServeError::Listen { addr, source })
}

fn address(listener: &TcpListener, asked: SocketAddr) -> Result<SocketAddr, ServeError> {
    listener
        .local_addr()
        .map_err(|source| ServeError::Listen { addr: asked, source })
}

struct SystemClock;

impl Clock for SystemClock {
    fn now_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}

/// What engines of this process are given.
pub(crate) fn components(workers: cairn_engine::config::Workers) -> Components {
    Components {
        clock: Arc::new(SystemClock),
        workers,
        files: Arc::new(LocalDir),
    }
}

async fn models(config: &Config) -> Result<Models, ServeError> {
    let config = config.clone();
    let made = tokio::task::spawn_blocking(move || Models::open(&config)).await;
    made.map_err(|panicked| ServeError::Setup {
        what: "the models",
        why: panicked.to_string(),
    })?
    .map_err(ServeError::Model)
}

/// Opens the engine. If the log needs a file that is damaged, the store may have it.
async fn open(config: &Config, state: &Arc<State>) -> Result<Arc<Engine>, ServeError> {
    match open_once(config, state).await {
        Err(ServeError::Open { dir, source })
            if source.code == "segment_damaged" && config.snapshots.restore_damaged =>
        {
            tracing::error!(error = %source, "the log needs a file that is damaged: looking for it in the store");
            let of = config.clone();
            let bringing = move || Runtime::current().block_on(snapshot::bring_back_closed(&of, &|| false));
            match tokio::task::spawn_blocking(bringing).await {
                Ok(Ok(1..)) => open_once(config, state).await,
                Ok(Err(error)) => {
                    tracing::error!(%error, "nothing was brought back from the store");
                    Err(ServeError::Open { dir, source })
                }
                Ok(Ok(0)) | Err(_) => Err(ServeError::Open { dir, source }),
            }
        }
        opened => opened,
    }
}

async fn open_once(config: &Config, state: &Arc<State>) -> Result<Arc<Engine>, ServeError> {
    let (dir, settings, workers) = (config.data_dir.clone(), config.settings(), config.workers());
    let state = Arc::clone(state);
    let opened = tokio::task::spawn_blocking(move || {
        let engine = Engine::open_watched(&dir, settings, components(workers), &state.progress)?;
        telemetry::opened(&state.progress.finished());
        Ok::<_, cairn_engine::Error>(engine)
    });
    let failed = |source| ServeError::Open {
        dir: config.data_dir.clone(),
        source,
    };
    match opened.await {
        Ok(engine) => engine.map(Arc::new).map_err(failed),
        Err(panicked) => Err(failed(cairn_engine::Error::internal(panicked.to_string()))),
    }
}

/// Sends sealed files to the store until `stop`, or takes back that it did once.
fn uploads(config: &Config, store: Store, engine: &Arc<Engine>, stop: &CancellationToken) -> JoinHandle<()> {
    let snapshots = Snapshots::new(store);
    let (stop, dir) = (stop.clone(), config.data_dir.clone());
    if config.snapshots.upload_sealed {
        let engine = Arc::clone(engine);
        let uploads = Uploads::open(snapshots, &dir);
        let sending = move || Runtime::current().block_on(uploads.run(&engine, &|| stop.is_cancelled()));
        return tokio::task::spawn_blocking(sending);
    }
    let forgetting = move || {
        Runtime::current().block_on(async {
            let forgotten = tokio::select! {
                () = stop.cancelled() => return,
                forgotten = snapshot::forget(&snapshots, &dir) => forgotten,
            };
            if let Err(error) = forgotten {
                tracing::warn!(%error, "contents of sealed files that were sent once stay in the store for now");
            }
        });
    };
    tokio::task::spawn_blocking(forgetting)
}

/// Brings damaged files back from the store until `stop`.
fn healing(config: &Config, store: Store, engine: &Arc<Engine>, stop: &CancellationToken) -> JoinHandle<()> {
    if !config.snapshots.restore_damaged {
        return tokio::task::spawn_blocking(|| ());
    }
    let healer = Healer::new(
        Snapshots::new(store),
        &config.data_dir,
        config.engine.disk_reserve_bytes,
    );
    let (engine, stop) = (Arc::clone(engine), stop.clone());
    let healing = move || Runtime::current().block_on(healer.run(&engine, &|| stop.is_cancelled()));
    tokio::task::spawn_blocking(healing)
}

/// Stops background work, flushes, and lets go of the engine, so that the data directory is free.
async fn close(engine: Arc<Engine>, state: &State, maintenance: Maintenance, flush: bool) -> cairn_engine::Result<()> {
    *state.engine.lock() = None;
    let closed = tokio::task::spawn_blocking(move || {
        maintenance.stop();
        let flushed = if flush { engine.flush() } else { Ok(()) };
        // The last requests that were cut off may still be at work.
        let patience = Instant::now() + RELEASE_WAIT;
        while Arc::strong_count(&engine) > 1 && Instant::now() < patience {
            std::thread::sleep(Duration::from_millis(5));
        }
        if Arc::strong_count(&engine) > 1 {
            tracing::warn!("a request is still at work, the data directory stays locked until it ends");
        }
        flushed
    });
    closed
        .await
        .unwrap_or_else(|panicked| Err(cairn_engine::Error::internal(panicked.to_string())))
}

// ---- background work ----

/// The threads that seal, merge and trim, the one that fsyncs, the one that verifies files, and the one that asks searches again.
struct Maintenance {
    stop: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Maintenance {
    /// Each thread does `work` until it is told to stop. A failure or a panic ends the server: it would go on without
    /// anybody who seals, until writers find no memory. (The engine makes an error of a panic while a file is built.)
    fn spawn(
        work: impl Fn(Work, &dyn Fn() -> bool) -> cairn_engine::Result<()> + Send + Sync + 'static,
        failed: oneshot::Sender<cairn_engine::Error>,
    ) -> io::Result<Self> {
        let (work, failed) = (Arc::new(work), Arc::new(Mutex::new(Some(failed))));
        let mut maintenance = Self {
            stop: Arc::new(AtomicBool::new(false)),
            threads: Vec::with_capacity(MAINTENANCE_THREADS + 3),
        };
        let maintainers = (0..MAINTENANCE_THREADS).map(|n| (format!("cairn-maintain-{n}"), Work::Maintain));
        let others = [
            ("cairn-fsync", Work::Sync),
            ("cairn-verify", Work::Verify),
            ("cairn-recall", Work::Sample),
        ];
        let others = others.map(|(name, work)| (name.to_owned(), work));
        for (name, task) in maintainers.chain(others) {
            let (work, failed, stop) = (Arc::clone(&work), Arc::clone(&failed), Arc::clone(&maintenance.stop));
            let thread = move || {
                let done = std::panic::catch_unwind(AssertUnwindSafe(|| work(task, &|| stop.load(Ordering::Acquire))));
                let done = done.unwrap_or_else(|_| Err(cairn_engine::Error::internal("background work panicked")));
                // It holds the engine, which is to be free when the threads have ended.
                drop(work);
                let Err(e) = done else { return };
                tracing::error!(error = %e, code = e.code, "background work cannot go on, stopping");
                // The first failure ends the server; the receiver is gone only if it is ending anyway.
                if let Some(failed) = failed.lock().take() {
                    let _ = failed.send(e);
                }
            };
            match std::thread::Builder::new().name(name).spawn(thread) {
                Ok(thread) => maintenance.threads.push(thread),
                Err(e) => {
                    maintenance.stop();
                    return Err(e);
                }
            }
        }
        Ok(maintenance)
    }

    fn stop(self) {
        self.stop.store(true, Ordering::Release);
        for thread in self.threads {
            thread.join().expect("a panic of its work is caught");
        }
    }
}

/// What a background thread does.
#[derive(Clone, Copy)]
enum Work {
    /// Seals, merges and trims.
    Maintain,
    /// Fsyncs what was answered before it was on disk.
    Sync,
    /// Reads files to see whether they are what was written.
    Verify,
    /// Asks some searches again to see how much they find.
    Sample,
}

/// Works until told to stop. Damage and a poisoned engine end it with an error; other failures are retried.
fn maintain(engine: &Engine, stop: &dyn Fn() -> bool) -> cairn_engine::Result<()> {
    while !stop() {
        // A write that failed half-way stops the engine: reads could go on, but nobody would notice.
        engine.check_alive()?;
        match engine.maintain(stop) {
            Ok(Maintained::Worked) => {}
            Ok(Maintained::Idle) => engine.wait_for_work(MAINTENANCE_NAP),
            Err(e) if matches!(e.kind, ErrorKind::Damaged | ErrorKind::Unavailable) => return Err(e),
            Err(e) if e.kind == ErrorKind::Cancelled => {}
            Err(e) => {
                tracing::error!(error = %e, code = e.code, "background work failed, trying again later");
                let patience = Instant::now() + MAINTENANCE_BACKOFF;
                while !stop() && Instant::now() < patience {
                    std::thread::sleep(MAINTENANCE_NAP);
                }
            }
        }
    }
    Ok(())
}

/// Verifies what nobody has asked for yet, as fast as the disk goes; then reads everything again and again, so many bytes a
/// second. What is found is kept by the engine and told to who needs it.
fn verify(engine: &Engine, scrub: u64, stop: &dyn Fn() -> bool) -> cairn_engine::Result<()> {
    let began = Instant::now();
    while !stop() {
        match engine.verify_step(VERIFY_STEP) {
            Ok(0) => break,
            Ok(_) => {}
            Err(e) => verify_later(e, stop)?,
        }
    }
    if !stop() {
        let stats = engine.stats();
        telemetry::verified(began.elapsed());
        tracing::info!(
            blocks = stats.blocks,
            damaged = stats.damaged_segments,
            seconds = began.elapsed().as_secs_f64(),
            "every sealed file is verified"
        );
    }
    while !stop() {
        if scrub == 0 {
            std::thread::sleep(MAINTENANCE_NAP);
            continue;
        }
        // Short steps, so that the disk is never kept for long.
        let step = (scrub / 4).clamp(SCRUB_STEP_MIN, VERIFY_STEP as u64) as usize;
        match engine.scrub_step(step) {
            Ok((read, ended)) => {
                #[expect(clippy::cast_precision_loss, reason = "a step is a few megabytes at most")]
                let pause = Duration::from_secs_f64(read as f64 / scrub as f64);
                // A pass over little data is not begun again at once.
                nap(if ended { pause.max(SCRUB_PAUSE) } else { pause }, stop);
            }
            Err(e) => verify_later(e, stop)?,
        }
    }
    Ok(())
}

/// Asks some searches again, exactly, with long pauses: all of it takes a small part of one processor, however large the collections.
fn sample(engine: &Engine, stop: &dyn Fn() -> bool) -> cairn_engine::Result<()> {
    while !stop() {
        let began = Instant::now();
        // Whoever ends the server waits for no longer than that.
        let step = || engine.sample_step(&Patience::lasting(SAMPLE_TIME_MAX));
        // Its search is only asked for a number: a panic of it is no reason to stop.
        let asked = match std::panic::catch_unwind(AssertUnwindSafe(step)) {
            Ok(asked) => asked?,
            Err(_) => {
                tracing::error!("a search that was asked again panicked");
                true
            }
        };
        let pause = if asked {
            began.elapsed() * SAMPLE_PAUSES
        } else {
            Duration::ZERO
        };
        nap(pause.max(MAINTENANCE_NAP), stop);
    }
    Ok(())
}

/// A stopped engine ends the work; anything else is tried again.
fn verify_later(error: cairn_engine::Error, stop: &dyn Fn() -> bool) -> cairn_engine::Result<()> {
    if error.kind == ErrorKind::Unavailable {
        return Err(error);
    }
    tracing::error!(error = %error, code = error.code, "reading files to verify them failed, trying again later");
    nap(MAINTENANCE_BACKOFF, stop);
    Ok(())
}

fn nap(time: Duration, stop: &dyn Fn() -> bool) {
    let end = Instant::now() + time;
    while !stop() && Instant::now() < end {
        std::thread::sleep(MAINTENANCE_NAP.min(end.saturating_duration_since(Instant::now())));
    }
}

// ---- connections ----

/// What is left when accepting has ended.
struct Connections {
    open: JoinSet<()>,
    graceful: GracefulShutdown,
}

impl Connections {
    /// Asks every connection to finish what it has begun, and ends those that do not in time.
    async fn drain(mut self, patience: Duration) {
        if tokio::time::timeout(patience, self.graceful.shutdown()).await.is_err() {
            tracing::warn!(
                connections = self.open.len(),
                "requests did not finish within drain_ms and are cut off"
            );
        }
        self.open.shutdown().await;
    }
}

async fn accept(listener: TcpListener, router: Router, limits: Limits, stop: CancellationToken) -> Connections {
    let builder = Arc::new(connection_builder(&limits));
    let places = Arc::new(Semaphore::new(limits.connections_max));
    let patience = Duration::from_millis(limits.header_timeout_ms);
    let mut connections = Connections {
        open: JoinSet::new(),
        graceful: GracefulShutdown::new(),
    };
    loop {
        while connections.open.try_join_next().is_some() {}
        let next = async {
            let place = Arc::clone(&places)
                .acquire_owned()
                .await
                .expect("the semaphore is never closed");
            (listener.accept().await, place)
        };
        let (accepted, place) = tokio::select! {
            next = next => next,
            () = stop.cancelled() => return connections,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(e) => {
                // Out of file descriptors, most likely: some will be given back.
                tracing::warn!(error = %e, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let service = TowerToHyperService::new(router.clone());
        let watcher = connections.graceful.watcher();
        let builder = Arc::clone(&builder);
        let stop = stop.clone();
        connections.open.spawn(async move {
            let _place = place;
            let speaks = tokio::select! {
                speaks = first_byte(&stream, patience) => speaks,
                () = stop.cancelled() => false,
            };
            if !speaks {
                return;
            }
            let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
            if let Err(e) = watcher.watch(connection).await {
                tracing::debug!(error = %e, "a connection ended badly");
            }
        });
    }
}

/// False if the peer says nothing in time or goes away: telling HTTP/1 from HTTP/2 has no timeout of its own.
async fn first_byte(stream: &TcpStream, patience: Duration) -> bool {
    // Answers are small and whole: waiting to fill a packet only adds latency.
    let _ = stream.set_nodelay(true);
    matches!(tokio::time::timeout(patience, stream.peek(&mut [0])).await, Ok(Ok(1)))
}

fn connection_builder(limits: &Limits) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(limits.header_timeout_ms));
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(HTTP2_PING)
        .adaptive_window(true)
        .max_concurrent_streams(HTTP2_STREAMS_MAX);
    builder
}

// ---- metrics and probes ----

struct State {
    recorder: &'static PrometheusHandle,
    ready: AtomicBool,
    /// There is one while the server serves.
    engine: Mutex<Option<Arc<Engine>>>,
    /// How far opening is.
    progress: Progress,
}

/// Does some work again and again.
async fn every(period: Duration, mut work: impl FnMut()) {
    loop {
        tokio::time::sleep(period).await;
        work();
    }
}

/// A task that ends with its owner.
struct JoinOnDrop(JoinHandle<()>);

impl Drop for JoinOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What `/readyz` says while the answer is no.
fn not_ready(progress: &Progress) -> String {
    match progress.phase() {
        Phase::Open => "not ready: about to listen, or draining\n".to_owned(),
        _ => format!("not ready: starting: {progress}\n"),
    }
}

async fn serve_metrics(listener: TcpListener, state: Arc<State>, limits: Limits) {
    let metrics = {
        let state = Arc::clone(&state);
        move || async move {
            let engine = state.engine.lock().clone();
            // It asks the file system how full it is, which may take any time.
            if let Some(engine) = engine
                && let Ok(stats) = tokio::task::spawn_blocking(move || engine.stats()).await
            {
                telemetry::engine_gauges(&stats);
            }
            (
                [("content-type", "text/plain; version=0.0.4; charset=utf-8")],
                state.recorder.render(),
            )
        }
    };
    let ready = move || async move {
        match state.ready.load(Ordering::Acquire) {
            true => (StatusCode::OK, "ready\n".to_owned()),
            false => (StatusCode::SERVICE_UNAVAILABLE, not_ready(&state.progress)),
        }
    };
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(ready));
    // The same loop as the API's, so that a scraper that opens connections and never closes them runs out of places, not
    // the process out of file descriptors. It has no end of its own: the task is aborted with its owner.
    accept(listener, router, limits, CancellationToken::new()).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_of_background_work_is_a_failure_of_the_server() {
        let (failed, failure) = oneshot::channel();
        let maintenance = Maintenance::spawn(|_, _| panic!("on purpose"), failed).unwrap();
        let error = tokio::time::timeout(Duration::from_secs(20), failure).await.unwrap();
        assert_eq!(error.unwrap().kind, ErrorKind::Internal);
        maintenance.stop();
    }

    #[tokio::test]
    async fn background_work_that_is_told_to_stop_is_no_failure() {
        let (failed, failure) = oneshot::channel();
        let until_told = |_, stop: &dyn Fn() -> bool| {
            while !stop() {
                std::thread::yield_now();
            }
            Ok(())
        };
        let maintenance = Maintenance::spawn(until_told, failed).unwrap();
        assert_eq!(maintenance.threads.len(), MAINTENANCE_THREADS + 3);
        tokio::task::spawn_blocking(|| maintenance.stop()).await.unwrap();
        assert!(failure.await.is_err(), "nobody has anything to report");
    }

    #[tokio::test]
    async fn upkeep_is_done_again_and_again() {
        let (done, mut doing) = tokio::sync::mpsc::unbounded_channel();
        let _upkeep = JoinOnDrop(tokio::spawn(every(Duration::from_millis(1), move || {
            let _ = done.send(());
        })));
        for _ in 0..3 {
            doing.recv().await.unwrap();
        }
    }
}
