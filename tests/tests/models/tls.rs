//! Services behind TLS whose certificate an authority of one's own has signed: asked with `ca_file`, refused without, with
//! another authority, and under another name. `tls/make.sh` made the certificates.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cairn_server::config::{Config, EmbedderConfig};
use cairn_server::rag::embed::http::{Dialect, HttpEmbedder};
use cairn_tests::{Method, ModelServer, Request, Script};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/models/tls")
        .join(name)
}

/// TLS before a service that speaks plain HTTP. Ends when this is dropped.
struct Front {
    port: u16,
    task: JoinHandle<()>,
}

impl Front {
    async fn start(service: &ModelServer) -> Self {
        let chain = CertificateDer::pem_file_iter(file("localhost.pem")).unwrap();
        let key = PrivateKeyDer::from_pem_file(file("localhost.key")).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain.collect::<Result<_, _>>().unwrap(), key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let behind = service.url().trim_start_matches("http://").to_owned();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, behind) = (acceptor.clone(), behind.clone());
                tokio::spawn(async move {
                    // A caller who does not trust us hangs up.
                    let Ok(mut outside) = acceptor.accept(stream).await else {
                        return;
                    };
                    let mut inside = TcpStream::connect(behind).await.unwrap();
                    let _ended = tokio::io::copy_bidirectional(&mut outside, &mut inside).await;
                });
            }
        });
        Self { port, task }
    }

    fn url(&self, host: &str) -> String {
        format!("https://{host}:{}", self.port)
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn ca_file(name: &str) -> String {
    format!("ca_file = {:?}\n", file(name).to_str().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_authority_of_ones_own_is_trusted_by_its_file() {
    let models = ModelServer::start(Script::default()).await;
    let front = Front::start(&models).await;
    let (url, ca) = (front.url("localhost"), ca_file("ours.pem"));
    let server = super::server_with(&format!(
        "[embedders.remote]\ntype = \"tei\"\nurl = \"{url}\"\n{ca}[rerankers.cross]\ntype = \"tei\"\nurl = \"{url}\"\n{ca}"
    ))
    .await;
    let (rest, grpc) = (server.rest(), server.grpc().await);
    let schema = json!({"vectors": {"dense": {"embedder": {"name": "remote"}}}, "fields": {"text": {"type": "text"}}});
    let documents =
        json!({"documents": [{"id": "a", "text": "A cairn marks the path."}, {"id": "b", "text": "Moss grows."}]});
    for (method, body) in [(Method::CreateCollection, schema), (Method::PutDocuments, documents)] {
        rest.send(&Request::new(method, "docs", body)).await.unwrap();
    }
    models.forget();
    let query = json!({"nearest": {"text": "Moss grows."}, "limit": 2,
                       "ranking": {"rerank": {"query": "cairn path.", "budget_ms": 60_000}}});
    let request = Request::new(Method::Query, "docs", query);
    for outcome in [rest.send(&request).await, grpc.send(&request).await] {
        let answer = outcome.unwrap();
        let order: Vec<_> = answer["hits"]
            .as_array()
            .unwrap()
            .iter()
            .map(|h| &h["document"])
            .collect();
        assert_eq!(order, ["a", "b"], "{answer}");
    }
    let paths: BTreeSet<String> = models.seen().into_iter().map(|s| s.path).collect();
    assert_eq!(
        paths,
        ["/embed", "/rerank"].map(str::to_owned).into(),
        "all of it came through"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_else_is_trusted_and_the_error_says_what_to_do() {
    let models = ModelServer::start(Script::default()).await;
    let front = Front::start(&models).await;
    let cases = [
        // Those of the system do not know it. (Where a system has none at all, that is what is said.)
        ("localhost", String::new(), "ca_file"),
        ("localhost", ca_file("stranger.pem"), "ca_file"),
        ("127.0.0.1", ca_file("ours.pem"), "not valid for name"),
    ];
    for (host, ca, expected) in cases {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cairn.toml");
        let table = format!(
            "[embedders.remote]\ntype = \"tei\"\nretries = 0\nurl = \"{}\"\n{ca}",
            front.url(host)
        );
        std::fs::write(&path, table).unwrap();
        let mut config = Config::load(Some(&path), &[]).unwrap();
        let Some(EmbedderConfig::Tei(table)) = config.embedders.remove("remote") else {
            panic!("a tei embedder");
        };
        let open = move || HttpEmbedder::open("remote", Dialect::Tei, &table).err();
        let refused = tokio::task::spawn_blocking(open).await.unwrap();
        let refused = refused.unwrap_or_else(|| panic!("{host} {ca}: accepted"));
        assert!(refused.contains(expected), "{host} {ca}: {refused}");
        assert!(refused.contains("certificate"), "{host} {ca}: {refused}");
    }
    assert!(
        models.seen().is_empty(),
        "nothing was said to a service that is not trusted"
    );
}
