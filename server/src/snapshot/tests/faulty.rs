//! A store that fails, answers late and loses answers, as a seed says.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};

/// What goes wrong.
#[derive(Debug)]
pub(super) struct Plan {
    /// In 100 requests, how many fail before anything happens.
    fail: u64,
    /// ... how many answers are lost after it happened.
    lose: u64,
    /// ... how many answers to reads are cut short.
    cut: u64,
    /// Requests wait up to so many turns, before and after.
    turns: u64,
    /// Answers to writes come so much later.
    late: Duration,
    /// From this request on nothing is answered.
    hang: u64,
    /// From this request on all fail.
    refuse: u64,
    /// Uploads in parts hang, and once one has begun, contents that are sent whole fail.
    spoil: bool,
    /// The first so many reads of objects below `.0` find nothing.
    missing: Option<(&'static str, AtomicU64)>,
    seed: AtomicU64,
    requests: AtomicU64,
}

impl Plan {
    fn quiet(seed: u64) -> Self {
        Self {
            fail: 0,
            lose: 0,
            cut: 0,
            turns: 0,
            late: Duration::ZERO,
            hang: u64::MAX,
            refuse: u64::MAX,
            spoil: false,
            missing: None,
            seed: AtomicU64::new(seed),
            requests: AtomicU64::new(0),
        }
    }

    /// Requests of several tasks overtake each other.
    pub(super) fn shuffled(seed: u64) -> Self {
        Self {
            turns: 12,
            ..Self::quiet(seed)
        }
    }

    /// One request in seven goes wrong.
    pub(super) fn failing(seed: u64) -> Self {
        Self {
            fail: 5,
            lose: 5,
            cut: 5,
            ..Self::quiet(seed)
        }
    }

    pub(super) fn fail_after(requests: u64) -> Self {
        Self {
            refuse: requests,
            ..Self::quiet(0)
        }
    }

    pub(super) fn spoiling() -> Self {
        Self {
            spoil: true,
            ..Self::quiet(0)
        }
    }

    /// The first so many reads of objects below a place are answered with "not found", though they are there.
    pub(super) fn not_found(below: &'static str, times: u64) -> Self {
        Self {
            missing: Some((below, AtomicU64::new(times))),
            ..Self::quiet(0)
        }
    }

    pub(super) fn late(late: Duration) -> Self {
        Self { late, ..Self::quiet(0) }
    }

    pub(super) fn hang_after(requests: u64) -> Self {
        Self {
            hang: requests,
            ..Self::quiet(0)
        }
    }

    /// SplitMix64.
    fn below(&self, n: u64) -> u64 {
        let mut z = self.seed.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }

    async fn wait(&self) {
        if self.turns > 0 {
            for _ in 0..self.below(self.turns) {
                tokio::task::yield_now().await;
            }
        }
    }
}

/// What became of uploads in parts.
#[derive(Debug, Default)]
pub(super) struct Uploads {
    pub(super) begun: AtomicU64,
    pub(super) completed: AtomicU64,
    pub(super) given_up: AtomicU64,
}

#[derive(Debug, Clone)]
pub(super) struct Faulty {
    inner: Arc<InMemory>,
    plan: Arc<Plan>,
    pub(super) uploads: Arc<Uploads>,
}

#[derive(Debug)]
struct Counted {
    inner: Box<dyn MultipartUpload>,
    of: Faulty,
}

#[tonic::async_trait]
impl MultipartUpload for Counted {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        match self.of.plan.spoil {
            true => std::future::pending().boxed(),
            false => self.inner.put_part(data),
        }
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let done = self.inner.complete().await;
        self.of.uploads.completed.fetch_add(1, Ordering::Relaxed);
        done
    }

    async fn abort(&mut self) -> Result<()> {
        self.inner.abort().await?;
        self.of.uploads.given_up.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

impl Faulty {
    pub(super) fn over(inner: &Arc<InMemory>, plan: Plan) -> Self {
        Self {
            inner: Arc::clone(inner),
            plan: Arc::new(plan),
            uploads: Arc::default(),
        }
    }

    async fn request<T>(&self, does: impl Future<Output = Result<T>>) -> Result<T> {
        let requests = self.plan.requests.fetch_add(1, Ordering::Relaxed);
        if requests >= self.plan.hang {
            std::future::pending::<()>().await;
        }
        if requests >= self.plan.refuse {
            return Err(broken("connection refused"));
        }
        self.plan.wait().await;
        let fate = self.plan.below(100);
        if fate < self.plan.fail {
            return Err(broken("connection reset"));
        }
        let done = does.await;
        self.plan.wait().await;
        if fate < self.plan.fail + self.plan.lose {
            return Err(broken("no answer"));
        }
        done
    }
}

fn broken(why: &str) -> object_store::Error {
    object_store::Error::Generic {
        store: "faulty",
        source: why.into(),
    }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("faulty")
    }
}

#[tonic::async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        if self.plan.spoil && location.as_ref().contains("objects/") {
            while self.uploads.begun.load(Ordering::Relaxed) == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            return Err(broken("connection reset"));
        }
        let put = self.request(self.inner.put_opts(location, payload, options)).await;
        if !self.plan.late.is_zero() {
            tokio::time::sleep(self.plan.late).await;
        }
        put
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let inner = self.request(self.inner.put_multipart_opts(location, options)).await?;
        self.uploads.begun.fetch_add(1, Ordering::Relaxed);
        let of = self.clone();
        Ok(Box::new(Counted { inner, of }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let head = options.head;
        if let Some((below, times)) = &self.plan.missing
            && location.as_ref().contains(below)
            && times
                .try_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
                .is_ok()
        {
            return Err(object_store::Error::NotFound {
                path: location.to_string(),
                source: "404 page not found".into(),
            });
        }
        let found = self.request(self.inner.get_opts(location, options)).await?;
        if head || self.plan.below(100) >= self.plan.cut {
            return Ok(found);
        }
        let (meta, range, attributes) = (found.meta.clone(), found.range.clone(), found.attributes.clone());
        let extensions = found.extensions.clone();
        let whole = found.bytes().await?;
        let part = whole.slice(..whole.len() / 2);
        let stream = futures::stream::iter([Ok::<Bytes, object_store::Error>(part), Err(broken("cut off"))]);
        Ok(GetResult {
            payload: GetResultPayload::Stream(stream.boxed()),
            meta,
            range,
            attributes,
            extensions,
        })
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let this = self.clone();
        let each = locations.and_then(move |location| {
            let this = this.clone();
            async move {
                let one = futures::stream::iter([Ok(location.clone())]).boxed();
                let gone = async { this.inner.delete_stream(one).try_collect::<Vec<_>>().await };
                this.request(gone).await.map(|_| location)
            }
        });
        each.boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (this, prefix) = (self.clone(), prefix.cloned());
        let listed = async move {
            let found = async { this.inner.list(prefix.as_ref()).try_collect::<Vec<_>>().await };
            this.request(found).await
        };
        let stream = futures::stream::once(listed);
        stream
            .map_ok(|all| futures::stream::iter(all.into_iter().map(Ok)))
            .try_flatten()
            .boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.request(self.inner.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.request(self.inner.copy_opts(from, to, options)).await
    }
}
