//! Snapshots on stores that are not S3, through the same proxy and its faults.
//!
//! Azure: against Azurite, which Microsoft makes for this. Google Cloud Storage: nothing that can be installed here speaks the
//! part of its protocol that `object_store` uses (fake-gcs-server takes no `PUT` of it and no uploads in parts, gcp-storage-emulator
//! no lists), but that part is S3's with other credentials and paths with `%2F`: moto takes it. So the requests are tried, not
//! Google's answers to them.

use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;

use super::s3::{Proxy, client, patient, retry, through_everything};
use super::store_server::{ACCOUNT, ACCOUNT_KEY, BUCKET, StoreServer};
use super::*;
use crate::rag::remote::install_crypto;
use crate::snapshot::store::hash;

fn azure(proxy: &Proxy) -> Store {
    azure_with(proxy, ACCOUNT_KEY)
}

fn azure_with(proxy: &Proxy, key: &str) -> Store {
    let azure = MicrosoftAzureBuilder::new()
        .with_container_name(BUCKET)
        .with_account(ACCOUNT)
        .with_access_key(key)
        .with_endpoint(format!("http://{}/{ACCOUNT}", proxy.addr))
        .with_client_options(client())
        .with_retry(retry())
        .build()
        .unwrap();
    patient(Arc::new(azure), "the test's Azure")
}

fn gcs(proxy: &Proxy) -> Store {
    let gcs = GoogleCloudStorageBuilder::new()
        .with_bucket_name(BUCKET)
        .with_bearer_token("token")
        .with_base_url(&format!("http://{}", proxy.addr))
        .with_client_options(client())
        .with_retry(retry())
        .build()
        .unwrap();
    patient(Arc::new(gcs), "the test's Google Cloud Storage")
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_on_azure_survive_everything_that_passes() {
    install_crypto();
    let Some(server) = StoreServer::azurite() else { return };
    through_everything(&server, azure).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_on_what_takes_the_requests_for_google_survive_everything_that_passes() {
    install_crypto();
    let Some(server) = StoreServer::s3() else { return };
    through_everything(&server, gcs).await;
}

/// In Azure the parts of all uploads of a blob are in one place: whoever completes the first takes away those of the others.
#[tokio::test(flavor = "multi_thread")]
async fn two_may_send_the_same_large_content_to_azure_at_once() {
    install_crypto();
    let Some(server) = StoreServer::azurite() else { return };
    let proxy = Proxy::start(([127, 0, 0, 1], server.port).into(), &[], 1).await;
    let large = vec![3; 40 << 20];
    let files = Files::new(&[&large]);
    let file = files.dir.path().join("segments/1/0/0000000000.seg");
    let bytes = large.len() as u64;
    let hash = hash(&file, bytes, None, &WORK).await.unwrap();
    let (content, store) = (Content { hash, bytes }, azure(&proxy));
    let (one, two) = tokio::join!(store.send(&file, content, &WORK), store.send(&file, content, &WORK));
    one.unwrap();
    two.unwrap();
    store.fetch("s", content, None, &WORK, &|_| {}).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_refuses_us_is_not_asked_again_and_again() {
    install_crypto();
    let Some(server) = StoreServer::azurite() else { return };
    let proxy = Proxy::start(([127, 0, 0, 1], server.port).into(), &[], 1).await;
    let snapshots = Snapshots::new(azure_with(&proxy, "d3Jvbmc="));
    let files = Files::new(&[b"one"]);
    let begun = std::time::Instant::now();
    for refused in [
        snapshots.list().await.map(drop),
        snapshots.create("s", files.source(), &WORK).await.map(drop),
        snapshots.store.delete("snapshots/s").await,
        snapshots.store.put("snapshots/s", Vec::new()).await,
    ] {
        assert_eq!(refused.unwrap_err().code, "snapshot_store_refused");
    }
    // A store is patient here for a minute.
    assert!(begun.elapsed() < Duration::from_secs(30));
}

/// A server that answers 403 to everything.
async fn forbidding() -> std::net::SocketAddr {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let _ = stream.read(&mut [0; 4096]).await;
                let answer = b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
                let _ = stream.write_all(answer).await;
            });
        }
    });
    addr
}

/// What lists and Azure's deletes are answered has its status in the text alone, which is that of a crate: it may change.
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_known_in_every_protocol() {
    install_crypto();
    let addr = forbidding().await;
    let proxy = Proxy::start(addr, &[], 1).await;
    for (store, begun) in [
        (azure(&proxy), std::time::Instant::now()),
        (gcs(&proxy), std::time::Instant::now()),
        (proxy.store(), std::time::Instant::now()),
    ] {
        for refused in [
            store.delete("snapshots/s").await,
            store.put("snapshots/s", b"one".to_vec()).await,
            Snapshots::new(store).list().await.map(drop),
        ] {
            assert_eq!(refused.unwrap_err().code, "snapshot_store_refused");
        }
        // A store is patient here for a minute.
        assert!(begun.elapsed() < Duration::from_secs(30));
    }
}
