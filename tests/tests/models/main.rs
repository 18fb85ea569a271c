//! Models behind HTTP, against a scripted service that is slow, drops, refuses and lies: the embedders and rerankers
//! themselves, and a whole server that ingests and answers with them.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod embed;
mod ingest;
mod media;
mod ranking;
mod rerank;
mod several;
mod tls;

use cairn_server::config::Config;
use cairn_tests::TestServer;

/// A server with the models of a configuration as a person writes it.
async fn server_with(models: &str) -> TestServer {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("cairn.toml");
    std::fs::write(&file, models).unwrap();
    let config = Config::load(Some(&file), &[]).unwrap();
    TestServer::start_with(|c| {
        c.embedders = config.embedders;
        c.rerankers = config.rerankers;
        c.default_embedder = config.default_embedder;
    })
    .await
}
