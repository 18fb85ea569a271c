//! Who may remove contents while others may need them: writers of snapshots and the collector of what no snapshot names shut
//! each other out, across servers that share a store.
//!
//! Each puts a lease, an object of its own, and then looks for leases of the other side. Stores show what was written to
//! whoever lists after the write, so of two who meet at least one sees the other, and who sees the other goes away. (It is
//! Dekker's algorithm, with objects for flags.) So a collector never runs while a snapshot is being written: what it does not
//! find named is needed by nobody.
//!
//! A process may end without taking its lease away. A lease is renewed as long as its owner works, and one that was not
//! renewed for [`EXPIRES`] is ignored. An owner that could not renew for [`SAFE`] stops by itself; the difference is longer
//! than a request can be under way, so nothing that it began ends after its lease. Age is told by the store's clock alone.
//!
//! Leases that have expired are removed by whoever takes one next: nobody counts them, and their owners have stopped.
//!
//! The requests that the lease is there for (a manifest is written, a content removed) may still be under way when their sender
//! has given up on them. After such an end the lease is left to expire.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use cairn_engine::{Error, ErrorKind, Result};
use object_store::ObjectMeta;
use parking_lot::Mutex;

use super::store::Store;
use crate::config::SnapshotsConfig;

/// How often a lease is renewed.
const RENEW: Duration = Duration::from_secs(30);
/// An owner that could not renew for so long stops.
const SAFE: Duration = Duration::from_secs(240);
/// How long giving back may take.
const END_WITHIN: Duration = Duration::from_secs(60);
/// The same, for whoever cancelled the work: he does not wait for a store that is gone.
const END_SOON: Duration = Duration::from_secs(2);
/// A lease that was not renewed for so long is nobody's.
const EXPIRES: Duration = Duration::from_secs(1_200);

const _: () = assert!(
    SAFE.as_millis() as u64 + 2 * SnapshotsConfig::RETRY_MS_MAX + SnapshotsConfig::REQUEST_TIMEOUT_MS_MAX
        < EXPIRES.as_millis() as u64,
    "no request of an owner may be under way when its lease expires"
);

/// What a lease is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Writes a snapshot.
    Write,
    /// Removes what no snapshot names.
    Collect,
}

impl Role {
    fn letter(self) -> char {
        match self {
            Self::Write => 'w',
            Self::Collect => 'c',
        }
    }

    fn other(self) -> Self {
        match self {
            Self::Write => Self::Collect,
            Self::Collect => Self::Write,
        }
    }
}

/// A lease that is held. It is to be given back with [`Lease::end_after`]; one that is only dropped expires.
pub(super) struct Lease<'a> {
    store: &'a Store,
    key: String,
    renewed: Mutex<Renewed>,
    /// A request that matters may be under way.
    unsettled: AtomicBool,
}

/// By two clocks: one stands still while a machine sleeps, the other may be set back.
#[derive(Clone, Copy)]
struct Renewed(Instant, SystemTime);

impl Renewed {
    fn now() -> Self {
        Self(Instant::now(), SystemTime::now())
    }

    fn age(self) -> Duration {
        self.0.elapsed().max(self.1.elapsed().unwrap_or_default())
    }
}

/// What a look at the leases showed.
struct Found {
    /// None of the other side counts.
    alone: bool,
    expired: Vec<String>,
}

/// By the store's clock.
fn is_expired(now: SystemTime, renewed: SystemTime) -> bool {
    now.duration_since(renewed).is_ok_and(|age| age >= EXPIRES)
}

/// Others may keep things beside ours.
fn is_lease(name: &str) -> bool {
    let number = name.strip_prefix(['w', 'c']).and_then(|rest| rest.strip_prefix('-'));
    number.is_some_and(|n| n.len() == 16 && n.bytes().all(|b| b.is_ascii_hexdigit()))
}

impl<'a> Lease<'a> {
    /// Takes a lease, or says that the other side is at work.
    pub(super) async fn take(store: &'a Store, role: Role) -> Result<Option<Self>> {
        let name = format!("{}-{:016x}", role.letter(), rand::random::<u64>());
        let lease = Self {
            store,
            key: format!("leases/{name}"),
            // Before the request: the store's time of it is not earlier.
            renewed: Mutex::new(Renewed::now()),
            unsettled: AtomicBool::new(false),
        };
        store.put(&lease.key, Vec::new()).await?;
        match lease.look(&name, role).await {
            Ok(found) if found.alone => {
                lease.remove(found.expired).await;
                Ok(Some(lease))
            }
            Ok(_) => lease.end(END_WITHIN).await.map(|()| None),
            Err(error) => {
                let _ = lease.end(END_SOON).await;
                Err(error)
            }
        }
    }

    async fn look(&self, name: &str, role: Role) -> Result<Found> {
        let all = self.store.list("leases").await?;
        let now = all.iter().find(|(other, _)| other == name).ok_or_else(|| {
            Error::new(
                ErrorKind::Unavailable,
                "snapshot_store_unavailable",
                "the store does not list what was just written: snapshots need one that does",
            )
        })?;
        let now = SystemTime::from(now.1.last_modified);
        let expired = |meta: &ObjectMeta| is_expired(now, meta.last_modified.into());
        let mut others = all.iter().filter(|(other, _)| other.starts_with(role.other().letter()));
        Ok(Found {
            alone: others.all(|(_, meta)| expired(meta)),
            expired: all
                .into_iter()
                .filter(|(other, meta)| is_lease(other) && expired(meta))
                .map(|(other, _)| other)
                .collect(),
        })
    }

    /// Removes leases of owners that are gone. It is not needed for anything, so what fails is left for the next.
    async fn remove(&self, expired: Vec<String>) {
        for name in expired {
            if let Err(error) = self.store.delete(&format!("leases/{name}")).await {
                tracing::warn!(%error, name, "a lease that has expired stays");
                break;
            }
        }
    }

    /// Removes from the store what writers that are gone have left unfinished. To be called by who collects: nobody writes
    /// contents meanwhile.
    pub(super) async fn remove_staged(&self) -> Result<()> {
        if let Some(now) = self.written_at().await? {
            let removed = self.store.remove_staged(now - EXPIRES).await?;
            if removed > 0 {
                tracing::info!(
                    removed,
                    "removed files that were cut off while they were written to the store"
                );
            }
        }
        Ok(())
    }

    /// When it was renewed last, by the store's clock; none if it is gone.
    pub(super) async fn written_at(&self) -> Result<Option<SystemTime>> {
        let all = self.store.list("leases").await?;
        let ours = all.iter().find(|(other, _)| self.key.ends_with(other.as_str()));
        Ok(ours.map(|(_, meta)| meta.last_modified.into()))
    }

    /// Does `work` while the lease is renewed, and gives it up when it could not be renewed for too long.
    pub(super) async fn during<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let mut work = pin!(work);
        tokio::select! {
            done = &mut work => done,
            lost = self.renewals() => match self.unsettled.load(Ordering::Relaxed) {
                // In the middle of what must not be left half done: it looks at the lease itself, and takes back what it did.
                true => work.await,
                false => Err(lost),
            },
        }
    }

    async fn renewals(&self) -> Error {
        loop {
            tokio::time::sleep(RENEW).await;
            let now = Renewed::now();
            let put = self.store.put(&self.key, Vec::new()).await;
            // Of the renewal before this one: a process that was stopped for long has lost the lease, though it can still
            // write it, as another may have come and gone.
            if let Err(lost) = self.check() {
                return lost;
            }
            match put {
                Ok(()) => *self.renewed.lock() = now,
                Err(error) => tracing::warn!(%error, key = self.key, "a lease could not be renewed"),
            }
        }
    }

    /// Before each step that must not happen without the lease.
    pub(super) fn check(&self) -> Result<()> {
        match self.renewed.lock().age() < SAFE {
            true => Ok(()),
            false => Err(Error::new(
                ErrorKind::Unavailable,
                "snapshot_store_unavailable",
                "the work on snapshots was interrupted for so long that another server may have taken over: begin again",
            )),
        }
    }

    /// As if the machine had slept for so long.
    #[cfg(test)]
    pub(super) fn slept(&self, time: Duration) {
        self.renewed.lock().1 -= time;
    }

    /// From here on requests may be under way that the lease is there for.
    pub(super) fn begin(&self) {
        self.unsettled.store(true, Ordering::Relaxed);
    }

    /// None is any more: all were answered.
    pub(super) fn settled(&self) {
        self.unsettled.store(false, Ordering::Relaxed);
    }

    /// Gives it back after work that ended so, unless a request may still be under way.
    pub(super) async fn end_after<T>(self, done: &Result<T>) -> Result<()> {
        match done {
            Err(error) if error.kind == ErrorKind::Cancelled => self.end(END_SOON).await,
            _ => self.end(END_WITHIN).await,
        }
    }

    async fn end(self, within: Duration) -> Result<()> {
        if self.unsettled.load(Ordering::Relaxed) {
            tracing::warn!(
                key = self.key,
                "it is not known what came of a request: the lease is left to expire"
            );
            return Ok(());
        }
        match tokio::time::timeout(within, self.store.delete(&self.key)).await {
            Ok(ended) => ended,
            Err(_) => {
                tracing::warn!(key = self.key, "the store does not answer: the lease is left to expire");
                Ok(())
            }
        }
    }
}
