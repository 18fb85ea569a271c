//! One content on its way to the store in parts.
//!
//! Guarantees: it becomes an object when it is complete and not before. However it ends otherwise, by an error, because it was
//! cancelled, or because the work that it is part of failed elsewhere and it is dropped, the store is asked to forget its parts:
//! they cost money, and no list shows them.
//! Not guaranteed: that the store is asked if the process dies, or if the request to begin succeeded and its answer was lost.
//! A lifecycle rule of the store is for those (docs/operating/snapshots.md).

use std::time::Duration;

use bytes::Bytes;
use object_store::{MultipartUpload, PutPayload, Result};
use tokio::runtime::Handle;
use tokio::task::JoinSet;

/// Parts under way at the same time.
const IN_FLIGHT: usize = 2;
/// How often, and how long, giving up is tried.
const GIVE_UP_TRIES: u32 = 3;
const GIVE_UP_WITHIN: Duration = Duration::from_secs(60);
const GIVE_UP_WAIT: Duration = Duration::from_millis(200);

/// An upload under way.
pub(super) struct Upload {
    /// None once it has ended.
    inner: Option<Box<dyn MultipartUpload>>,
    parts: JoinSet<Result<()>>,
    key: String,
}

impl Upload {
    pub(super) fn new(inner: Box<dyn MultipartUpload>, key: &str) -> Self {
        Self {
            inner: Some(inner),
            parts: JoinSet::new(),
            key: key.to_owned(),
        }
    }

    /// Sends a part, and waits until not too many are under way. All but the last are of one size.
    pub(super) async fn put(&mut self, part: Bytes) -> Result<()> {
        let upload = self.inner.as_mut().expect("it has not ended");
        self.parts.spawn(upload.put_part(PutPayload::from(part)));
        self.wait(IN_FLIGHT - 1).await
    }

    async fn wait(&mut self, most: usize) -> Result<()> {
        while self.parts.len() > most {
            match self.parts.join_next().await {
                Some(Ok(sent)) => sent?,
                Some(Err(source)) => return Err(object_store::Error::JoinError { source }),
                None => break,
            }
        }
        Ok(())
    }

    /// The parts become an object.
    pub(super) async fn complete(mut self) -> Result<()> {
        self.wait(0).await?;
        let upload = self.inner.as_mut().expect("it has not ended");
        upload.complete().await?;
        self.inner = None;
        Ok(())
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let (Some(upload), Ok(runtime)) = (self.inner.take(), Handle::try_current()) else {
            return;
        };
        let (parts, key) = (std::mem::take(&mut self.parts), std::mem::take(&mut self.key));
        runtime.spawn(async move {
            if tokio::time::timeout(GIVE_UP_WITHIN, give_up(upload, parts, &key))
                .await
                .is_err()
            {
                tracing::warn!(key, "an upload could not be given up: the store does not answer");
            }
        });
    }
}

async fn give_up(mut upload: Box<dyn MultipartUpload>, mut parts: JoinSet<Result<()>>, key: &str) {
    // A part that arrives afterwards would stay.
    parts.shutdown().await;
    for attempt in 1..=GIVE_UP_TRIES {
        match upload.abort().await {
            // The store may have completed it, and the answer was lost.
            Ok(()) | Err(object_store::Error::NotFound { .. }) => return,
            Err(error) if attempt == GIVE_UP_TRIES => {
                tracing::warn!(%error, key, "an upload that failed could not be given up");
            }
            Err(_) => tokio::time::sleep(GIVE_UP_WAIT * attempt).await,
        }
    }
}
