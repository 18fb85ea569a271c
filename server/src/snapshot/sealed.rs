//! Sealed files go to the store as soon as they are sealed, so that a snapshot finds them there and sends only the rest.
//!
//! A content is the same whether a snapshot or this sends it, and has the same name. What no snapshot names yet is protected by a
//! list of what this server wants (`wanted/<number>`), which whoever removes contents reads like a manifest. The list names a content
//! before it is sent, both under a lease of a writer of snapshots: so no remover runs between. A segment that was merged away or
//! dropped leaves the list with the next one that is written, and its content goes with the next collection of garbage, which
//! this asks for by itself now and then.
//!
//! Guarantees: seals, merges, writes and queries never wait for it: it looks at what is sealed, and nobody queues anything. What was
//! sent is not sent again, also after a restart (`uploads.json` in the data directory, beside the database). A snapshot never
//! relies on it: it looks for each content itself.
//! Not guaranteed: that what is listed is there, if somebody else removed it; that a server which was off for [`EXPIRES`] finds its
//! contents: its list expires, so that servers which are gone do not keep theirs for ever.
//! Failure: a store that fails is asked again after a pause, which grows.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cairn_engine::engine::SealedFile;
use cairn_engine::storage::{Dir, LocalDir};
use cairn_engine::{Engine, Error, ErrorKind, Result};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde::{Deserialize, Serialize};

use super::lease::Lease;
use super::manifest::{FileEntry, framed, inner};
use super::store::{self, Content, blocking};
use super::{Collected, Snapshots, Work};
use crate::telemetry;

/// What was sent, in a data directory.
const STATE: &str = "uploads.json";
/// Files that are sent under one lease: whoever removes contents waits for it.
const BATCH_FILES: usize = 64;
/// ... and their bytes, unless the first has more.
const BATCH_BYTES: u64 = 1 << 30;
/// Files that are listed, so that whoever reads the list takes it: more than a server of many collections has. What is sealed beside
/// them is sent by snapshots.
const LISTED_MAX: usize = 150_000;
/// How often it looks for sealed files.
const LOOK: Duration = Duration::from_secs(5);
/// The pause after a failure, and the longest that it grows to.
const PAUSES: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(600));
/// How often a list is written anew that did not change.
const RENEW_MS: u64 = 24 * 3_600_000;
/// A list that was not renewed for so long is nobody's.
pub(super) const EXPIRES: Duration = Duration::from_secs(30 * 24 * 3_600);
/// A list that was not renewed for half of that may have been taken for nobody's by now, whatever the clocks say.
const DOUBTED_MS: u64 = EXPIRES.as_millis() as u64 / 2;
/// How often it asks for a collection of garbage, if it has dropped something.
const COLLECT_MS: u64 = 3_600_000;

/// What a server has sent, and wants to stay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    format: u32,
    /// Of the list in the store.
    id: String,
    /// When the list was last written, in milliseconds since the Unix epoch.
    listed_at_ms: u64,
    files: Vec<FileEntry>,
}

/// Sends sealed files.
pub(crate) struct Uploads {
    snapshots: Snapshots,
    data_dir: PathBuf,
    id: String,
    listed_at_ms: u64,
    /// By path.
    sent: BTreeMap<String, FileEntry>,
    /// What was sent once and may be gone since: only its hash is known.
    known: BTreeMap<String, FileEntry>,
    /// Something is to leave the list that stands in the store.
    stale: bool,
    /// Something left the list since garbage was last collected.
    dropped: bool,
    /// None before the first look.
    collected_at_ms: Option<u64>,
    collect_ms: u64,
}

/// What a look came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Looked {
    /// So many files were new and are in the store now; there may be more.
    Sent(usize),
    Idle,
}

impl Uploads {
    /// Goes on where it ended.
    pub(crate) fn open(snapshots: Snapshots, data_dir: &Path) -> Self {
        let state = read_state(data_dir).unwrap_or_else(|| State {
            format: 1,
            id: format!("{:016x}", rand::random::<u64>()),
            listed_at_ms: 0,
            files: Vec::new(),
        });
        Self {
            snapshots,
            data_dir: data_dir.to_owned(),
            id: state.id,
            listed_at_ms: state.listed_at_ms,
            sent: state.files.into_iter().map(|file| (file.path.clone(), file)).collect(),
            known: BTreeMap::new(),
            stale: false,
            dropped: true,
            collected_at_ms: None,
            collect_ms: COLLECT_MS,
        }
    }

    /// Sends what is sealed, until it is stopped.
    pub(crate) async fn run(mut self, engine: &Engine, stopped: &(dyn Fn() -> bool + Sync)) {
        let work = Work {
            stopped,
            progress: &|_| (),
        };
        let mut pause = PAUSES.0;
        while !stopped() {
            let wait = match self.look(engine.sealed_files(), engine.now_ms(), &work).await {
                Ok(Looked::Sent(_)) => {
                    pause = PAUSES.0;
                    continue;
                }
                Ok(Looked::Idle) => {
                    pause = PAUSES.0;
                    LOOK
                }
                Err(error) if error.kind == ErrorKind::Cancelled => return,
                Err(error) => {
                    telemetry::upload_failed();
                    tracing::warn!(%error, pause_s = pause.as_secs(), "sealed files could not be sent to the store, trying again later");
                    let wait = pause;
                    pause = (pause * 2).min(PAUSES.1);
                    wait
                }
            };
            let slept = async {
                tokio::time::sleep(wait).await;
                Ok(())
            };
            if work.unless_stopped(slept).await.is_err() {
                return;
            }
        }
    }

    /// Sends some of what is sealed and was not sent, and forgets what is gone.
    pub(super) async fn look(&mut self, sealed: Vec<SealedFile>, now_ms: u64, work: &Work<'_>) -> Result<Looked> {
        let sealed: BTreeMap<String, SealedFile> = sealed.into_iter().map(|file| (file.path.clone(), file)).collect();
        if now_ms.saturating_sub(self.listed_at_ms) >= DOUBTED_MS {
            self.known.append(&mut self.sent);
        }
        let before = self.sent.len();
        self.sent
            .retain(|path, file| sealed.get(path).is_some_and(|sealed| sealed.bytes == file.bytes));
        // Until a list without it was written, which may fail.
        self.stale |= self.sent.len() < before;
        self.dropped |= self.stale;
        // What was sent of a file that is damaged by now stays, and nothing is sent of what is left of one.
        let new = |file: &SealedFile| !self.sent.contains_key(&file.path) && !file.is_damaged;
        let waiting: Vec<SealedFile> = sealed.into_values().filter(new).collect();
        telemetry::uploads_waiting(waiting.len(), waiting.iter().map(|file| file.bytes).sum());
        let mut batch = Vec::new();
        let mut bytes = 0;
        let most = BATCH_FILES.min(LISTED_MAX.saturating_sub(self.sent.len()));
        for file in waiting.into_iter().take(most) {
            if !batch.is_empty() && bytes + file.bytes > BATCH_BYTES {
                break;
            }
            bytes += file.bytes;
            batch.push(file);
        }
        let renew = now_ms.saturating_sub(self.listed_at_ms) >= RENEW_MS && !self.sent.is_empty();
        if batch.is_empty() && !self.stale && !renew {
            self.known.clear();
            self.collect(now_ms, work).await?;
            return Ok(Looked::Idle);
        }
        let hashed = self.hashed(batch, work).await?;
        let sent = self.send(hashed, work).await?;
        self.stale = false;
        self.listed_at_ms = now_ms;
        self.save().await?;
        Ok(match sent {
            0 => Looked::Idle,
            sent => Looked::Sent(sent),
        })
    }

    /// The contents of files. What is merged away meanwhile is left out.
    async fn hashed(&self, batch: Vec<SealedFile>, work: &Work<'_>) -> Result<Vec<FileEntry>> {
        let dir = &self.data_dir;
        let known = &self.known;
        let hashes = batch.into_iter().map(|file| async move {
            let SealedFile {
                path, bytes, original, ..
            } = file;
            if let Some(file) = known.get(&path).filter(|file| file.bytes == bytes) {
                return Ok(Some(file.clone()));
            }
            let file = dir.join(&path);
            match store::hash(&file, bytes, original.as_ref(), work).await {
                Ok(sha256) => Ok(Some(FileEntry { path, bytes, sha256 })),
                Err(_) if !file.exists() => Ok(None),
                // Set aside by now; nothing is sent of it.
                Err(error) if error.kind == ErrorKind::Damaged => Ok(None),
                Err(error) => Err(error),
            }
        });
        let hashed: Vec<Option<FileEntry>> = stream::iter(hashes).buffered(self.at_once()).try_collect().await?;
        Ok(hashed.into_iter().flatten().collect())
    }

    /// Half of what a snapshot may have at the same time: one that is made meanwhile goes on.
    fn at_once(&self) -> usize {
        self.snapshots.store.transfers.div_ceil(2)
    }

    /// Lists files, then sends those that the store does not have, under a lease.
    async fn send(&mut self, files: Vec<FileEntry>, work: &Work<'_>) -> Result<usize> {
        let lease = work.unless_stopped(self.snapshots.writing()).await?;
        let sent = lease.during(self.send_under(&lease, &files, work)).await;
        let ended = lease.end_after(&sent).await;
        let there = sent?;
        if let Err(error) = ended {
            tracing::warn!(%error, "a lease stays until it expires: contents are not removed before");
        }
        let files: Vec<FileEntry> = files
            .into_iter()
            .zip(there)
            .filter_map(|(file, there)| there.then_some(file))
            .collect();
        let sent = files.len();
        self.sent
            .extend(files.into_iter().map(|file| (file.path.clone(), file)));
        Ok(sent)
    }

    /// Which of them are in the store now.
    async fn send_under(&self, lease: &Lease<'_>, files: &[FileEntry], work: &Work<'_>) -> Result<Vec<bool>> {
        let store = &self.snapshots.store;
        lease.check()?;
        // Before anything that it names.
        work.unless_stopped(store.put(&key(&self.id), self.list(files)?))
            .await?;
        let (new_files, new_bytes) = (&AtomicU64::new(0), &AtomicU64::new(0));
        let sends = files.iter().map(|file| async move {
            lease.check()?;
            let content = Content {
                hash: file.sha256,
                bytes: file.bytes,
            };
            if work.unless_stopped(store.size(&content.key())).await? == Some(file.bytes) {
                return Ok(true);
            }
            let path = self.data_dir.join(&file.path);
            match store.send(&path, content, work).await {
                Ok(()) => {
                    new_files.fetch_add(1, Ordering::Relaxed);
                    new_bytes.fetch_add(file.bytes, Ordering::Relaxed);
                    Ok(true)
                }
                // Merged away meanwhile.
                Err(_) if !path.exists() => Ok(false),
                Err(error) => Err(error),
            }
        });
        let there = stream::iter(sends).buffered(self.at_once()).try_collect().await?;
        telemetry::uploaded(new_files.load(Ordering::Relaxed), new_bytes.load(Ordering::Relaxed));
        Ok(there)
    }

    /// The bytes of the list: what was sent, and what is about to be. It reads like a manifest to who removes contents.
    fn list(&self, more: &[FileEntry]) -> Result<Vec<u8>> {
        #[derive(Serialize)]
        struct Wanted<'a> {
            format: u32,
            cairn: &'a str,
            files: Vec<&'a FileEntry>,
        }
        let wanted = Wanted {
            format: 1,
            cairn: env!("CARGO_PKG_VERSION"),
            files: self.sent.values().chain(more).collect(),
        };
        let inner = serde_json::to_vec(&wanted).map_err(|e| Error::internal(format!("a list of uploads: {e}")))?;
        Ok(framed(&inner))
    }

    /// Removes what nobody names, if something left the list, and not too often.
    async fn collect(&mut self, now_ms: u64, work: &Work<'_>) -> Result<()> {
        let last = *self.collected_at_ms.get_or_insert(now_ms);
        if !self.dropped || now_ms.saturating_sub(last) < self.collect_ms {
            return Ok(());
        }
        self.collected_at_ms = Some(now_ms);
        if let Collected::Removed { objects, bytes } = self.snapshots.collect(work).await? {
            self.dropped = false;
            tracing::debug!(
                objects,
                bytes,
                "removed contents that no snapshot and no sealed file needs"
            );
        }
        Ok(())
    }

    async fn save(&self) -> Result<()> {
        let state = State {
            format: 1,
            id: self.id.clone(),
            listed_at_ms: self.listed_at_ms,
            files: self.sent.values().cloned().collect(),
        };
        let bytes = serde_json::to_vec(&state).map_err(|e| Error::internal(format!("{STATE}: {e}")))?;
        let dir = self.data_dir.clone();
        blocking(move || {
            let temporary = dir.join(format!("{STATE}.tmp"));
            std::fs::write(&temporary, framed(&bytes))?;
            std::fs::File::open(&temporary)?.sync_all()?;
            std::fs::rename(&temporary, dir.join(STATE))?;
            LocalDir.sync_dir(&dir)
        })
        .await
    }
}

/// Where the list of a server stands.
fn key(id: &str) -> String {
    format!("wanted/{id}")
}

/// Whether this is the name of a list.
pub(super) fn is_list(file: &str) -> bool {
    file.len() == 16 && file.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// What was sent, if that is known: what is not is looked for in the store.
fn read_state(data_dir: &Path) -> Option<State> {
    let path = data_dir.join(STATE);
    let bytes = std::fs::read(&path).ok()?;
    let state = inner(&bytes).ok().map(serde_json::from_slice::<State>);
    match state {
        Some(Ok(state)) if state.format == 1 && is_list(&state.id) => Some(state),
        _ => {
            tracing::warn!(path = %path.display(), "it is not known which sealed files were sent: all are looked for in the store");
            None
        }
    }
}

/// Takes back what a server wanted that does not send sealed files any more.
pub(crate) async fn forget(snapshots: &Snapshots, data_dir: &Path) -> Result<()> {
    let Some(state) = read_state(data_dir) else {
        return Ok(());
    };
    snapshots.store.delete(&key(&state.id)).await?;
    let path = data_dir.join(STATE);
    blocking(move || std::fs::remove_file(path)).await
}

#[cfg(test)]
impl Uploads {
    /// Asks for garbage to be collected at each look.
    pub(super) fn eager(mut self) -> Self {
        self.collect_ms = 0;
        self
    }
}
