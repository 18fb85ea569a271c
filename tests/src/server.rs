//! A server of its own for a test: real sockets on free ports, a real data directory that goes with it.

use std::net::SocketAddr;
use std::path::Path;

use cairn_server::config::Config;
use cairn_server::serve::{Running, start};
use cairn_server::snapshot::restore_into;
use tempfile::TempDir;

use crate::{Grpc, Rest};

/// A running server and its directory.
pub struct TestServer {
    running: Running,
    dir: TempDir,
    config: Config,
}

/// A directory, and settings for a server in it.
fn place() -> (TempDir, Config) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let config = Config {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        metrics_listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        data_dir: dir.path().join("data"),
        ..Config::default()
    };
    (dir, config)
}

impl TestServer {
    /// With everything at its default.
    pub async fn start() -> Self {
        Self::start_with(|_| ()).await
    }

    /// With settings of the test's choice.
    pub async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let (dir, mut config) = place();
        change(&mut config);
        let running = start(config.clone()).await.expect("the server starts");
        Self { running, dir, config }
    }

    /// A whole instance, brought back from a snapshot in a directory.
    pub async fn restored(snapshot: &str, store: &Path) -> Self {
        let (dir, mut config) = place();
        config.snapshots.url = store.to_str().expect("a path in UTF-8").to_owned();
        restore_into(&config, Some(snapshot), None, &|_| ())
            .await
            .expect("the snapshot is restored");
        let running = start(config.clone()).await.expect("the server starts");
        Self { running, dir, config }
    }

    /// The same directory, served anew.
    pub async fn restart(self) -> Self {
        self.running.shutdown().await.expect("the server stops");
        let running = start(self.config.clone()).await.expect("the server starts again");
        Self {
            running,
            dir: self.dir,
            config: self.config,
        }
    }

    /// The same directory, served with other settings.
    pub async fn restart_with(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(&mut self.config);
        self.restart().await
    }

    /// Stops, and says how that went.
    pub async fn stop(self) -> Result<(), cairn_server::serve::ServeError> {
        self.running.shutdown().await
    }

    /// Where REST and gRPC are.
    pub fn addr(&self) -> SocketAddr {
        self.running.addr()
    }

    /// Where metrics and probes are.
    pub fn metrics_addr(&self) -> SocketAddr {
        self.running.metrics_addr()
    }

    /// The data directory.
    pub fn data_dir(&self) -> &Path {
        &self.config.data_dir
    }

    /// A caller over REST.
    pub fn rest(&self) -> Rest {
        Rest::new(self.addr())
    }

    /// A caller over gRPC.
    pub async fn grpc(&self) -> Grpc {
        Grpc::connect(self.addr())
            .await
            .expect("the server accepts connections")
    }
}
