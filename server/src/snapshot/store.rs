//! Where snapshots are kept: a directory, S3, Google Cloud Storage or Azure, spoken to with `object_store`.
//!
//! Operations: small objects are written and read whole; files are sent and fetched in parts, so that no request is longer
//! than its timeout and memory stays bounded; so many transfers at a time, so many bytes a second.
//! Guarantees: a file that was fetched is exactly the content that its name says; one that was sent was exactly that when it
//! was read. A request that failed for reasons that may pass (no connection, a reset, a timeout, 429, 5xx, a truncated
//! answer) is sent again until `snapshots.retry_ms` is over. What was refused is told at once.
//! Not guaranteed: that a request which failed did nothing. Contents may be sent twice, which changes nothing.
//!
//! Credentials come from the environment alone (`AWS_...`, `GOOGLE_...`, `AZURE_...`): a URL with a password in it is refused.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path as FilePath;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use cairn_engine::engine::Original;
use cairn_engine::limits::BLOCK_BYTES;
use cairn_engine::{Error, ErrorKind, Result};
use futures::TryStreamExt as _;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ClientConfigKey, ObjectMeta, ObjectStore, ObjectStoreExt as _, PutPayload, RetryConfig};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::directory::Directory;
use super::manifest::{Hash, damaged};
use super::rate::Rate;
use super::upload::Upload;
use super::work::Work;
use crate::config::SnapshotsConfig;
use crate::rag::remote::install_crypto;
use crate::telemetry::{StoreOperation, StoreRequest, store_moved};

/// Bytes of a part: large enough for a request to be worth it, small enough for a slow line within the timeout.
const PART_BYTES: u64 = 8 << 20;
/// Parts of one object: S3 takes 10,000.
const PARTS_MAX: u64 = 9_000;
/// Requests for one thing: the wait between them doubles, so `retry_ms` ends it first.
const ATTEMPTS_MAX: usize = 12;
/// The wait before a request is sent again; it doubles, and varies by half.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const WAIT_MAX: Duration = Duration::from_secs(5);
/// Longest time to make a connection.
const CONNECT_MS: u64 = 5_000;

/// The store of a server's snapshots. Clones share their rate.
#[derive(Clone)]
pub(crate) struct Store {
    inner: Arc<dyn ObjectStore>,
    /// If it is one.
    directory: Option<Directory>,
    root: Path,
    shown: String,
    /// Transfers at the same time.
    pub(super) transfers: usize,
    /// How long a request is sent again.
    pub(super) retry: Duration,
    pub(super) rate: Arc<Rate>,
}

fn in_directory(directory: &Directory, below: &str) -> object_store::Result<Vec<ObjectMeta>> {
    let failed = |source: io::Error| object_store::Error::Generic {
        store: "snapshots",
        source: source.into(),
    };
    let mut all = Vec::new();
    for (path, meta) in directory.list(below).map_err(failed)? {
        // What others keep there may have any name.
        if let Ok(location) = Path::from_absolute_path(&path) {
            all.push(ObjectMeta {
                location,
                last_modified: meta.modified().map_err(failed)?.into(),
                size: meta.len(),
                e_tag: None,
                version: None,
            });
        }
    }
    Ok(all)
}

/// A content: what it is called by, and how long it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) hash: Hash,
    pub(super) bytes: u64,
}

impl Content {
    pub(super) fn key(self) -> String {
        let hash = self.hash.to_string();
        format!("objects/{}/{hash}", &hash[..2])
    }
}

impl Store {
    /// Opens what the settings name. Nothing is asked of it yet.
    pub(crate) fn open(config: &SnapshotsConfig, data_dir: &FilePath) -> Result<Self, String> {
        let place = Place::parse(&config.url)?;
        let retry = RetryConfig {
            max_retries: ATTEMPTS_MAX,
            retry_timeout: Duration::from_millis(config.retry_ms),
            ..RetryConfig::default()
        };
        let timeout = format!("{}ms", config.request_timeout_ms);
        let connect = format!("{}ms", CONNECT_MS.min(config.request_timeout_ms));
        let (t, c) = (ClientConfigKey::Timeout, ClientConfigKey::ConnectTimeout);
        if !matches!(place, Place::Directory(_)) {
            install_crypto();
        }
        let failed = |e: object_store::Error| format!("snapshots.url = {:?}: {e}", config.url);
        let mut directory = None;
        let (inner, root): (Arc<dyn ObjectStore>, Path) = match &place {
            Place::Directory(dir) => {
                let dir = match dir {
                    Some(dir) => dir.clone(),
                    None => beside(data_dir),
                };
                let dir = std::path::absolute(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
                let root = Path::from_absolute_path(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
                directory = Some(Directory::new(&dir));
                (Arc::new(LocalFileSystem::new().with_fsync(true)), root)
            }
            Place::S3 { bucket, prefix } => {
                let builder = AmazonS3Builder::from_env()
                    .with_bucket_name(bucket)
                    .with_config(AmazonS3ConfigKey::Client(t), timeout)
                    .with_config(AmazonS3ConfigKey::Client(c), connect)
                    .with_retry(retry);
                (Arc::new(builder.build().map_err(failed)?), Path::from(prefix.as_str()))
            }
            Place::Gcs { bucket, prefix } => {
                let builder = GoogleCloudStorageBuilder::from_env()
                    .with_bucket_name(bucket)
                    .with_config(GoogleConfigKey::Client(t), timeout)
                    .with_config(GoogleConfigKey::Client(c), connect)
                    .with_retry(retry);
                (Arc::new(builder.build().map_err(failed)?), Path::from(prefix.as_str()))
            }
            Place::Azure { container, prefix } => {
                let builder = MicrosoftAzureBuilder::from_env()
                    .with_container_name(container)
                    .with_config(AzureConfigKey::Client(t), timeout)
                    .with_config(AzureConfigKey::Client(c), connect)
                    .with_retry(retry);
                (Arc::new(builder.build().map_err(failed)?), Path::from(prefix.as_str()))
            }
        };
        let shown = match config.url.is_empty() {
            true => format!("the directory /{root}"),
            false => config.url.clone(),
        };
        let mut store = Self::over(inner, root, shown);
        store.directory = directory;
        store.transfers = config.transfers_max;
        store.retry = Duration::from_millis(config.retry_ms);
        store.rate = Arc::new(Rate::new(config.bytes_per_second_max));
        Ok(store)
    }

    /// Over any store; nothing is repeated here.
    pub(super) fn over(inner: Arc<dyn ObjectStore>, root: Path, shown: String) -> Self {
        Self {
            inner,
            directory: None,
            root,
            shown,
            transfers: SnapshotsConfig::default().transfers_max,
            retry: Duration::ZERO,
            rate: Arc::new(Rate::new(0)),
        }
    }

    fn at(&self, key: &str) -> Path {
        key.split('/').fold(self.root.clone(), |path, part| path.join(part))
    }

    /// Asks until there is an answer, or until it has failed for `retry` for reasons that may pass. Whatever is asked here may
    /// be asked twice; `object_store` repeats by itself only what it knows to be so.
    async fn ask<T>(
        &self,
        operation: StoreOperation,
        once: impl AsyncFn() -> object_store::Result<T>,
    ) -> object_store::Result<T> {
        use object_store::Error::{Generic, JoinError};
        let begun = Instant::now();
        let mut wait = FIRST_WAIT;
        loop {
            let request = StoreRequest::begin(operation);
            let done = once().await;
            match &done {
                Err(error) if is_refusal(error) => {
                    request.failed("refused");
                    return done;
                }
                Err(error @ (Generic { .. } | JoinError { .. })) => {
                    request.failed("unavailable");
                    if begun.elapsed() + wait >= self.retry {
                        return done;
                    }
                    tracing::debug!(%error, ?operation, "asking the store of snapshots again");
                }
                Ok(_) | Err(_) => {
                    request.done();
                    return done;
                }
            }
            tokio::time::sleep(wait.mul_f64(rand::random_range(0.5..1.5))).await;
            wait = (wait * 2).min(WAIT_MAX);
        }
    }

    /// Writes a small object, in the place of whatever was there. It does not wait for its turn in the rate.
    pub(super) async fn put(&self, key: &str, bytes: Vec<u8>) -> Result<()> {
        let sent = bytes.len() as u64;
        let payload = PutPayload::from(bytes);
        let put = async || self.inner.put(&self.at(key), payload.clone()).await;
        self.ask(StoreOperation::Put, put).await.map_err(|e| self.failed(&e))?;
        store_moved(StoreOperation::Put, sent);
        Ok(())
    }

    /// A small object, or none. One that is larger than `most` is an error.
    pub(super) async fn get(&self, key: &str, most: u64) -> Result<Option<Bytes>> {
        let get = async || {
            let found = self.inner.get(&self.at(key)).await?;
            match found.meta.size > most {
                true => Ok(Err(found.meta.size)),
                false => found.bytes().await.map(Ok),
            }
        };
        match self.ask(StoreOperation::Get, get).await {
            Ok(Ok(bytes)) => {
                store_moved(StoreOperation::Get, bytes.len() as u64);
                Ok(Some(bytes))
            }
            Ok(Err(size)) => Err(damaged(key, format!("it takes {size} bytes, {most} at most are read"))),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.failed(&error)),
        }
    }

    /// Size of an object, or none.
    pub(super) async fn size(&self, key: &str) -> Result<Option<u64>> {
        let head = async || self.inner.head(&self.at(key)).await;
        match self.ask(StoreOperation::Head, head).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.failed(&error)),
        }
    }

    /// Every object below a key: the last part of its name, and what is known of it.
    pub(super) async fn list(&self, below: &str) -> Result<Vec<(String, ObjectMeta)>> {
        let prefix = self.at(below);
        // A list may leave out what goes while it is made. Nothing else may be passed over: what is missing in it would be removed as what
        // nobody needs.
        let list = async || match self.directory.clone() {
            Some(directory) => {
                let below = below.to_owned();
                tokio::task::spawn_blocking(move || in_directory(&directory, &below)).await?
            }
            None => self.inner.list(Some(&prefix)).try_collect::<Vec<ObjectMeta>>().await,
        };
        let all = self
            .ask(StoreOperation::List, list)
            .await
            .map_err(|e| self.failed(&e))?;
        let named = |meta: ObjectMeta| Some((meta.location.filename()?.to_owned(), meta));
        Ok(all.into_iter().filter_map(named).collect())
    }

    /// Removes an object; one that is not there is removed already. Durable after [`Self::settle`].
    pub(super) async fn delete(&self, key: &str) -> Result<()> {
        let delete = async || self.inner.delete(&self.at(key)).await;
        match self.ask(StoreOperation::Delete, delete).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.failed(&error)),
        }
    }

    /// What was removed below a key, or found there, is durable when this returns.
    pub(super) async fn settle(&self, below: &'static str) -> Result<()> {
        match self.directory.clone() {
            Some(directory) => blocking(move || directory.sync(below)).await,
            // Other stores answer when it is.
            None => Ok(()),
        }
    }

    /// Removes what was being written and has not changed since a time of the store's clock; no list shows it.
    pub(super) async fn remove_staged(&self, before: SystemTime) -> Result<u64> {
        match self.directory.clone() {
            Some(directory) => blocking(move || directory.remove_staged(before)).await,
            None => Ok(0),
        }
    }

    /// Sends a file that has this content; an error if it has another by now.
    pub(super) async fn send(&self, file: &FilePath, content: Content, work: &Work<'_>) -> Result<()> {
        let Content { hash, bytes } = content;
        let key = &content.key();
        let file = open(file).await?;
        if bytes <= PART_BYTES {
            let (part, hasher) = read(&file, 0, bytes, Sha256::new()).await?;
            same(hash, Hash::end(hasher))?;
            let sent = async {
                self.rate.take(bytes).await;
                self.put(key, part).await
            };
            return work.unless_stopped(sent).await;
        }
        let begin = async || self.inner.put_multipart(&self.at(key)).await;
        let begun = async { self.ask(StoreOperation::Put, begin).await.map_err(|e| self.failed(&e)) };
        let mut upload = Upload::new(work.unless_stopped(begun).await?, key);
        let (mut at, mut hasher) = (0, Sha256::new());
        while at < bytes {
            let length = part_size(bytes).min(bytes - at);
            let (part, next) = read(&file, at, length, hasher).await?;
            hasher = next;
            let sent = async {
                self.rate.take(length).await;
                // Each part is repeated inside until it is sent.
                self.once(StoreOperation::PutPart, upload.put(part.into())).await?;
                store_moved(StoreOperation::PutPart, length);
                Ok(())
            };
            work.unless_stopped(sent).await?;
            at += length;
        }
        same(hash, Hash::end(hasher))?;
        let Err(error) = self.once(StoreOperation::Put, upload.complete()).await else {
            return Ok(());
        };
        // The answer to a first attempt may have been lost, and the upload is not there to be finished again.
        match self.size(key).await {
            Ok(Some(found)) if found == bytes => Ok(()),
            _ => Err(error),
        }
    }

    /// A request that is not repeated here.
    async fn once<T>(
        &self,
        operation: StoreOperation,
        request: impl Future<Output = object_store::Result<T>>,
    ) -> Result<T> {
        let counted = StoreRequest::begin(operation);
        match request.await {
            Ok(done) => {
                counted.done();
                Ok(done)
            }
            Err(error) => {
                counted.failed("unavailable");
                Err(self.failed(&error))
            }
        }
    }

    /// Fetches a content, into a new file or only to look at it. What differs is `snapshot_damaged` of `name`, and the file
    /// is not to be used.
    pub(super) async fn fetch(
        &self,
        name: &str,
        content: Content,
        to: Option<&FilePath>,
        work: &Work<'_>,
        told: &dyn Fn(u64),
    ) -> Result<()> {
        let Content { hash, bytes } = content;
        let key = &content.key();
        match work.unless_stopped(self.size(key)).await? {
            None => return Err(damaged(name, format!("object {key} is missing"))),
            Some(found) if found != bytes => {
                return Err(damaged(
                    name,
                    format!("object {key} has {found} bytes instead of {bytes}"),
                ));
            }
            Some(_) => {}
        }
        let mut file = match to {
            Some(to) => Some(create(to).await?),
            None => None,
        };
        let (mut at, mut hasher) = (0, Sha256::new());
        while at < bytes {
            let length = PART_BYTES.min(bytes - at);
            let part = work.unless_stopped(self.part(key, at, length)).await?;
            (file, hasher) = write(file, part, hasher).await?;
            at += length;
            told(length);
        }
        if Hash::end(hasher) != hash {
            return Err(damaged(
                name,
                format!("object {key} has another content than its name says"),
            ));
        }
        match file {
            Some(file) => blocking(move || file.sync_all()).await,
            None => Ok(()),
        }
    }

    /// Part of an object, as long as it was asked for.
    async fn part(&self, key: &str, at: u64, length: u64) -> Result<Bytes> {
        self.rate.take(length).await;
        let get = async || {
            let part = self.inner.get_range(&self.at(key), at..at + length).await?;
            match part.len() as u64 == length {
                true => Ok(part),
                false => Err(object_store::Error::Generic {
                    store: "snapshots",
                    source: format!("{} bytes instead of {length}", part.len()).into(),
                }),
            }
        };
        let part = self.ask(StoreOperation::Get, get).await.map_err(|e| self.failed(&e))?;
        store_moved(StoreOperation::Get, length);
        Ok(part)
    }

    /// What a failure of the store means for the caller. Its text holds no secrets: `object_store` strips them.
    fn failed(&self, error: &object_store::Error) -> Error {
        match is_refusal(error) {
            true => Error::new(
                ErrorKind::Upstream,
                "snapshot_store_refused",
                format!(
                    "{} refuses us: {error}; credentials come from the environment",
                    self.shown
                ),
            ),
            false => Error::new(
                ErrorKind::Unavailable,
                "snapshot_store_unavailable",
                format!("{} does not do what is asked: {error}", self.shown),
            ),
        }
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("at", &self.shown).finish_non_exhaustive()
    }
}

/// What `snapshots.url` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// None: the one beside the data directory.
    Directory(Option<std::path::PathBuf>),
    S3 {
        bucket: String,
        prefix: String,
    },
    Gcs {
        bucket: String,
        prefix: String,
    },
    Azure {
        container: String,
        prefix: String,
    },
}

impl Place {
    pub(crate) fn parse(url: &str) -> Result<Self, String> {
        let Some((scheme, rest)) = url.split_once("://") else {
            return Ok(Self::Directory((!url.is_empty()).then(|| url.into())));
        };
        // What follows may be a signature.
        let shown = url.split(['?', '#']).next().unwrap_or_default();
        let bad = |why: &str| Err(format!("snapshots.url = {shown:?}: {why}"));
        if rest.contains('@') {
            // Not shown: it may be a password.
            return Err(
                "snapshots.url holds a user or a password: credentials come from the environment alone".to_owned(),
            );
        }
        if rest.contains(['?', '#', '%', '\\']) || rest.chars().any(char::is_whitespace) {
            return bad("a bucket and a prefix of plain characters are all that it can say");
        }
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let (bucket, prefix) = (bucket.to_owned(), prefix.trim_matches('/').to_owned());
        if prefix.split('/').any(|part| part == "." || part == "..") {
            return bad("its path must not step up");
        }
        match scheme {
            "file" if bucket.is_empty() && !prefix.is_empty() => Ok(Self::Directory(Some(format!("/{prefix}").into()))),
            "file" => bad("write a directory as file:///path, or as the path alone"),
            _ if bucket.is_empty() => bad("it names no bucket"),
            "s3" => Ok(Self::S3 { bucket, prefix }),
            "gs" => Ok(Self::Gcs { bucket, prefix }),
            "az" => Ok(Self::Azure {
                container: bucket,
                prefix,
            }),
            _ => bad("use a directory, file:///..., s3://bucket/prefix, gs://bucket/prefix or az://container/prefix"),
        }
    }
}

/// Whether the store refuses us, which does not pass. Of requests that name no object (every list, Azure's deletes, tokens)
/// `object_store` tells the status in the text alone.
fn is_refusal(error: &object_store::Error) -> bool {
    use object_store::Error::{Generic, PermissionDenied, Unauthenticated};
    match error {
        PermissionDenied { .. } | Unauthenticated { .. } => true,
        Generic { .. } => {
            let text = error.to_string();
            let status = text.split_once("non-2xx status code: ").map(|(_, status)| status);
            status.is_some_and(|status| status.starts_with("401") || status.starts_with("403"))
        }
        _ => false,
    }
}

/// `data-snapshots` for `data`.
fn beside(data_dir: &FilePath) -> std::path::PathBuf {
    let mut name = data_dir.file_name().unwrap_or_default().to_owned();
    name.push("-snapshots");
    data_dir.with_file_name(name)
}

fn part_size(bytes: u64) -> u64 {
    PART_BYTES.max(bytes.div_ceil(PARTS_MAX))
}

fn same(expected: Hash, found: Hash) -> Result<()> {
    match expected == found {
        true => Ok(()),
        false => Err(Error::damaged(format!(
            "a file of a snapshot changed while it was read: {found} instead of {expected}"
        ))),
    }
}

/// The hash of a file, part by part. Each part is compared with what it should be, if that is known: the hash is of those bytes.
pub(super) async fn hash(path: &FilePath, bytes: u64, original: Option<&Original>, work: &Work<'_>) -> Result<Hash> {
    const {
        assert!(
            PART_BYTES.is_multiple_of(BLOCK_BYTES as u64),
            "parts end where blocks do"
        )
    };
    let file = open(path).await?;
    let (mut at, mut hasher) = (0, Sha256::new());
    while at < bytes {
        work.check()?;
        let length = PART_BYTES.min(bytes - at);
        let (part, next) = read(&file, at, length, hasher).await?;
        hasher = next;
        if let Some(original) = original.cloned() {
            let checked = tokio::task::spawn_blocking(move || original.check(at, &part)).await;
            checked.map_err(|panicked| Error::internal(panicked.to_string()))??;
        }
        at += length;
    }
    Ok(Hash::end(hasher))
}

async fn open(path: &FilePath) -> Result<Arc<File>> {
    let path = path.to_owned();
    blocking(move || File::open(path).map(Arc::new)).await
}

async fn create(path: &FilePath) -> Result<File> {
    let path = path.to_owned();
    blocking(move || {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        File::create_new(path)
    })
    .await
}

async fn read(file: &Arc<File>, at: u64, length: u64, mut hasher: Sha256) -> Result<(Vec<u8>, Sha256)> {
    let file = Arc::clone(file);
    blocking(move || {
        let mut part = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        file.read_exact_at(&mut part, at)?;
        hasher.update(&part);
        Ok((part, hasher))
    })
    .await
}

async fn write(file: Option<File>, part: Bytes, mut hasher: Sha256) -> Result<(Option<File>, Sha256)> {
    blocking(move || {
        hasher.update(&part);
        if let Some(mut file) = file.as_ref() {
            file.write_all(&part)?;
        }
        Ok((file, hasher))
    })
    .await
}

/// File work, off the async threads.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(Error::from),
        Err(panicked) => Err(Error::internal(panicked.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_directory_or_a_bucket_and_holds_no_secret() {
        let dir = |path: &str| Ok(Place::Directory(Some(path.into())));
        assert_eq!(Place::parse(""), Ok(Place::Directory(None)));
        assert_eq!(Place::parse("/var/backups/cairn"), dir("/var/backups/cairn"));
        assert_eq!(Place::parse("backups"), dir("backups"));
        assert_eq!(Place::parse("file:///var/backups/"), dir("/var/backups"));
        let (bucket, prefix) = ("b".to_owned(), "a/c".to_owned());
        let s3 = |prefix: &str| Place::S3 {
            bucket: bucket.clone(),
            prefix: prefix.to_owned(),
        };
        assert_eq!(Place::parse("s3://b"), Ok(s3("")));
        assert_eq!(Place::parse("s3://b/a/c/"), Ok(s3("a/c")));
        let gcs = Place::Gcs {
            bucket: bucket.clone(),
            prefix: prefix.clone(),
        };
        assert_eq!(Place::parse("gs://b/a/c"), Ok(gcs));
        let azure = Place::Azure {
            container: bucket.clone(),
            prefix,
        };
        assert_eq!(Place::parse("az://b/a/c"), Ok(azure));
        for bad in [
            "s3://",
            "s3:///x",
            "file://host/x",
            "ftp://b/x",
            "s3://b/../x",
            "s3://b/x?region=y",
            "s3://b/ x",
        ] {
            let message = Place::parse(bad).unwrap_err();
            assert!(message.starts_with("snapshots.url"), "{message}");
        }
        let secret = Place::parse("s3://key:secret@b/x").unwrap_err();
        assert!(
            !secret.contains("secret@") && secret.contains("environment"),
            "{secret}"
        );
    }

    #[test]
    fn the_default_is_beside_the_data_directory() {
        assert_eq!(beside(FilePath::new("./data")), FilePath::new("./data-snapshots"));
        assert_eq!(
            beside(FilePath::new("/var/lib/cairn")),
            FilePath::new("/var/lib/cairn-snapshots")
        );
    }

    #[test]
    fn parts_stay_within_what_stores_take() {
        assert_eq!(part_size(1), PART_BYTES);
        for bytes in [PART_BYTES * PARTS_MAX, PART_BYTES * PARTS_MAX + 1, 1 << 42] {
            assert!(bytes.div_ceil(part_size(bytes)) <= PARTS_MAX);
        }
    }
}
