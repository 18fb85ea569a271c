//! Snapshots: one moment of the whole database, kept in a store, from which it can be brought back.
//!
//! ```text
//! snapshots/<name>@<digits>  a manifest: which files, by the hash of their content ([`names`])
//! objects/<2 digits>/<hash>  a content, named by its SHA-256
//! wanted/<number>            which contents a server has sent of what it sealed, whether a snapshot names them or not ([`sealed`])
//! leases/<w or c>-<number>   somebody writes a snapshot (w), or removes what none names (c)
//! ```
//!
//! Operations: create from a cut of the engine, list, find, read, verify, remove, download.
//! Guarantees: a manifest is written after everything it names, so a snapshot is there whole or not at all. A content is sent
//! once, however many snapshots name it: a second snapshot costs what changed. What a snapshot names, or one that is being
//! written may name, is never removed ([`lease`]). Nothing that is downloaded is used before its size and hash were compared
//! with the manifest, and the manifest with its own hash and with the grammar of names ([`manifest`]).
//! Not guaranteed: that a store keeps what it was given; [`Snapshots::verify`] finds out. That who can write to the store is
//! who he should be: hashes show damage, they are no signature.

mod directory;
mod file;
mod heal;
mod lease;
mod manifest;
mod names;
mod point;
mod rate;
mod restore;
mod sealed;
mod store;
mod time;
mod upload;
mod work;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use cairn_engine::engine::{Cut, Original};
use cairn_engine::storage::space::Space;
use cairn_engine::types::{Epochs, History, Identity, Token};
use cairn_engine::{Error, ErrorKind, Result};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use parking_lot::Mutex;

pub use self::file::find_file;
pub(crate) use self::heal::{Healer, bring_back_closed};
use self::lease::{Lease, Role};
pub(crate) use self::manifest::{CollectionEntry, Manifest, Summary};
use self::manifest::{FileEntry, Hash, MANIFEST_BYTES_MAX, contents_named, damaged, files_named, is_ours};
use self::names::check_snapshot;
pub(crate) use self::names::{Key, already_there, name_of, not_found};
pub(crate) use self::point::{Known, Live, Records, Tried, Unreadable, Way, not_followed, past_of, restorable, ways};
pub use self::point::{PointInTime, Restorable};
use self::point::{ambiguous, unnamed};
pub use self::restore::{Restored, restore_into};
pub(crate) use self::restore::{check_room, open_download, remove_leftovers, scratch};
pub(crate) use self::sealed::{Uploads, forget};
use self::store::{Content, blocking};
pub(crate) use self::store::{Place, Store};
pub use self::time::{parse_time, show_time};
use self::work::Meter;
pub(crate) use self::work::Work;

/// Snapshots that a store may hold: listing reads the manifest of each.
const SNAPSHOTS_MAX: usize = 1_000;
/// Snapshots that are listed. More than may be made: servers that make some at the same time do not see each other's.
const LISTED_MAX: usize = SNAPSHOTS_MAX + 100;
/// Manifests that are in memory at the same time.
const MANIFESTS_AT_ONCE: usize = 4;
/// Of an object that a list shows and that is not there when it is asked for.
const NOT_FOUND_YET_LISTED: &str = "the store lists it and says that it is not there";
/// How long a snapshot waits for a collection of garbage that is under way; it takes a request for each content.
const COLLECTED_WITHIN: Duration = Duration::from_secs(60);

/// What RocksDB writes beside a database and does not need to open one.
const LEFT_OUT: [&str; 2] = ["db/OPTIONS-", "db/IDENTITY"];

/// The snapshots of a store.
#[derive(Debug)]
pub(crate) struct Snapshots {
    store: Store,
    /// How many there may be when one is made.
    most: usize,
    /// How long a snapshot waits for a collection of garbage that is under way.
    collected_within: Duration,
    /// What manifests say that were read, by when they were written and how long they are: only damage changes one.
    summaries: Mutex<BTreeMap<(SystemTime, Key, u64), Summary>>,
    /// Milliseconds between two looks whether it has ended: not in step with somebody else who waits.
    look_ms: std::ops::Range<u64>,
}

/// What a snapshot says of the moment it holds.
#[derive(Debug, Clone)]
pub(crate) struct About {
    pub(crate) token: Token,
    pub(crate) taken_at_ms: u64,
    pub(crate) identity: Identity,
    pub(crate) history: History,
    pub(crate) log_from: Token,
    pub(crate) epochs: Epochs,
    pub(crate) collections: Vec<CollectionEntry>,
}

/// Files to make a snapshot of: they do not change while it is made.
pub(crate) struct Source<'a> {
    dir: &'a Path,
    about: About,
    /// Path, length, and what it should be, where that is known.
    files: Vec<(String, u64, Option<Original>)>,
}

impl<'a> From<&'a Cut> for Source<'a> {
    fn from(cut: &'a Cut) -> Self {
        let collections = cut.collections.iter().map(|c| CollectionEntry {
            name: c.name.clone(),
            points: c.points,
            documents: c.documents,
        });
        let files = cut
            .files
            .iter()
            .filter(|f| !LEFT_OUT.iter().any(|left| f.path.starts_with(left)));
        Self {
            dir: cut.dir(),
            about: About {
                token: cut.token,
                taken_at_ms: cut.taken_at_ms,
                identity: cut.identity,
                history: cut.history,
                log_from: cut.log_from,
                epochs: cut.epochs.clone(),
                collections: collections.collect(),
            },
            files: files.map(|f| (f.path.clone(), f.bytes, f.original.clone())).collect(),
        }
    }
}

/// What making a snapshot took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Created {
    pub(crate) manifest: Manifest,
    /// Contents that were not in the store yet.
    pub(crate) new_files: u64,
    pub(crate) new_bytes: u64,
}

/// One of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) name: String,
    /// Or why it cannot be read.
    pub(crate) found: Result<Summary>,
}

/// What removing a snapshot freed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Collected {
    /// Contents that no other snapshot names, and their bytes.
    Removed { objects: u64, bytes: u64 },
    /// A snapshot is being written: the next delete does it.
    Later,
    /// Nothing: there are manifests that do not say what they need. One of them, why it does not, and how many more there are.
    Kept { manifest: Key, why: String, more: usize },
}

impl Snapshots {
    pub(crate) fn new(store: Store) -> Self {
        Self {
            store,
            most: SNAPSHOTS_MAX,
            collected_within: COLLECTED_WITHIN,
            summaries: Mutex::default(),
            look_ms: 200..1_000,
        }
    }

    /// Makes a snapshot; there is none of its name, or it is a conflict.
    pub(crate) async fn create(&self, name: &str, source: Source<'_>, work: &Work<'_>) -> Result<Created> {
        check_snapshot(name)?;
        let keys = work.unless_stopped(self.keys()).await?;
        if keys.iter().any(|key| key.name == name) {
            return Err(already_there(name));
        }
        if keys.len() >= self.most {
            return Err(too_many(self.most));
        }
        let lease = work.unless_stopped(self.writing()).await?;
        let made = lease.during(self.write(name, source, &lease, work)).await;
        let ended = lease.end_after(&made).await;
        let made = made?;
        if let Err(error) = ended {
            tracing::warn!(%error, "a lease stays until it expires: contents are not removed before");
        }
        Ok(made)
    }

    async fn writing(&self) -> Result<Lease<'_>> {
        let until = tokio::time::Instant::now() + self.collected_within;
        loop {
            if let Some(lease) = Lease::take(&self.store, Role::Write).await? {
                return Ok(lease);
            }
            if tokio::time::Instant::now() >= until {
                return Err(Error::new(
                    ErrorKind::Unavailable,
                    "snapshots_busy",
                    "contents of deleted snapshots are being removed, no snapshot is written meanwhile: try again later",
                ));
            }
            tokio::time::sleep(Duration::from_millis(rand::random_range(self.look_ms.clone()))).await;
        }
    }

    async fn write(&self, name: &str, source: Source<'_>, lease: &Lease<'_>, work: &Work<'_>) -> Result<Created> {
        let Source { dir, about, files } = source;
        if let Some((path, ..)) = files.iter().find(|(path, ..)| !is_ours(path)) {
            return Err(Error::internal(format!("{path} in a cut, which no snapshot holds")));
        }
        let meter = &Meter::new(work, files.iter().map(|(_, bytes, _)| bytes).sum());
        let (new_files, new_bytes) = (&AtomicU64::new(0), &AtomicU64::new(0));
        let sent = stream::iter(files.into_iter().map(|(path, bytes, original)| async move {
            lease.check()?;
            let file = dir.join(&path);
            let sha256 = store::hash(&file, bytes, original.as_ref(), work).await?;
            let content = Content { hash: sha256, bytes };
            if work.unless_stopped(self.store.size(&content.key())).await? != Some(bytes) {
                self.store.send(&file, content, work).await?;
                new_files.fetch_add(1, Ordering::Relaxed);
                new_bytes.fetch_add(bytes, Ordering::Relaxed);
            }
            meter.add(bytes);
            Ok::<_, Error>(FileEntry { path, bytes, sha256 })
        }));
        let files = sent.buffered(self.store.transfers).try_collect::<Vec<_>>().await?;
        // Contents that were found there may be of a server that died before they were durable.
        self.store.settle("objects").await?;
        let manifest = Manifest::new(name.to_owned(), about, files);
        let bytes = manifest.bytes()?;
        lease.check()?;
        let key = Key::new(name);
        // Not to be stopped in the middle: what came of it must be known before the lease is given back.
        lease.begin();
        self.store.put(&key.object(), bytes).await?;
        // A machine that slept in between may have been passed by who collects: then its contents may be gone.
        let kept = lease.check();
        if kept.is_err() {
            self.store.delete(&key.object()).await?;
        }
        lease.settled();
        kept?;
        if self.keys_of(name).await?.iter().any(|other| *other != key) {
            self.store.delete(&key.object()).await?;
            return Err(already_there(name));
        }
        Ok(Created {
            manifest,
            new_files: new_files.load(Ordering::Relaxed),
            new_bytes: new_bytes.load(Ordering::Relaxed),
        })
    }

    /// All snapshots, the newest first; damaged ones last.
    pub(crate) async fn list(&self) -> Result<Vec<Listed>> {
        let found = self.found().await?;
        if found.len() > LISTED_MAX {
            return Err(too_many(self.most));
        }
        let known = {
            let mut known = self.summaries.lock();
            known.retain(|one, _| found.binary_search(one).is_ok());
            known.clone()
        };
        let known = &known;
        let read = stream::iter(found.into_iter().map(|one| async move {
            let key = &one.1;
            if let Some(summary) = known.get(&one) {
                let (name, found) = (key.name.clone(), Ok(summary.clone()));
                return Ok(Some(Listed { name, found }));
            }
            // Only what a list tells is kept: a manifest may have 200,000 files.
            let found = match self.read(key).await {
                Ok(manifest) => {
                    let summary = Summary::from(&manifest);
                    self.summaries.lock().insert(one.clone(), summary.clone());
                    Ok(summary)
                }
                Err(error) if error.kind == ErrorKind::NotFound => {
                    return match self.is_listed("snapshots", &key.to_string()).await? {
                        // Deleted since.
                        false => Ok(None),
                        true => Err(Error::new(
                            ErrorKind::Unavailable,
                            "snapshot_store_unavailable",
                            format!("snapshot {:?}: {NOT_FOUND_YET_LISTED}", key.name),
                        )),
                    };
                }
                Err(error) if matches!(error.kind, ErrorKind::Damaged | ErrorKind::Conflict) => Err(error),
                Err(error) => return Err(error),
            };
            let name = key.name.clone();
            Ok(Some(Listed { name, found }))
        }));
        let read: Vec<Option<Listed>> = read.buffered(MANIFESTS_AT_ONCE).try_collect().await?;
        let mut all: Vec<Listed> = read.into_iter().flatten().collect();
        all.sort_by_key(|one| std::cmp::Reverse(one.found.as_ref().map_or(0, |found| found.created_at_ms)));
        Ok(all)
    }

    /// Those of the list that can be read, and why the others cannot, by name.
    pub(crate) async fn known(&self) -> Result<(Vec<Known>, Unreadable)> {
        let all = self.list().await?;
        let unreadable = all
            .iter()
            .filter_map(|one| Some((one.name.clone(), one.found.as_ref().err()?.clone())));
        let unreadable = Unreadable(unreadable.collect());
        Ok((known_of(all), unreadable))
    }

    /// Whether an object that was listed is listed still. Something between us and the store (a gateway without a backend)
    /// may answer "not found" for what is there: before that is believed, the list must say so too.
    async fn is_listed(&self, below: &str, file: &str) -> Result<bool> {
        Ok(self.store.list(below).await?.iter().any(|(name, _)| name == file))
    }

    /// Where manifests stand; of one name those that were there first come first.
    async fn keys(&self) -> Result<Vec<Key>> {
        Ok(self.found().await?.into_iter().map(|(_, key, _)| key).collect())
    }

    /// The same, with when they were written and their bytes; in order.
    async fn found(&self) -> Result<Vec<(SystemTime, Key, u64)>> {
        let all = self.store.list("snapshots").await?;
        // Others may keep things beside ours; what has no name of ours is not ours.
        let ours = all
            .into_iter()
            .filter_map(|(file, meta)| Some((meta.last_modified.into(), Key::parse(&file)?, meta.size)));
        let mut ours: Vec<_> = ours.collect();
        ours.sort();
        Ok(ours)
    }

    /// What stands under a name, whatever its state; more than one only if servers that made one of the name met and died.
    pub(crate) async fn keys_of(&self, name: &str) -> Result<Vec<Key>> {
        check_snapshot(name)?;
        let mut keys = self.keys().await?;
        keys.retain(|key| key.name == name);
        Ok(keys)
    }

    /// The snapshot that a name means.
    pub(crate) async fn find(&self, name: &str) -> Result<Key> {
        let keys = self.keys_of(name).await?;
        keys.into_iter().next().ok_or_else(|| not_found(name))
    }

    /// What a snapshot says of itself.
    pub(crate) async fn read(&self, key: &Key) -> Result<Manifest> {
        match self.store.get(&key.object(), MANIFEST_BYTES_MAX).await? {
            Some(bytes) => Manifest::read(&key.name, &bytes),
            None => Err(not_found(&key.name)),
        }
    }

    /// The same of the one that a name means.
    pub(crate) async fn describe(&self, name: &str) -> Result<Manifest> {
        self.read(&self.find(name).await?).await
    }

    /// The same, if it is the one that was listed: its name may have been given to another since.
    pub(crate) async fn describe_known(&self, known: &Known) -> Result<Manifest> {
        let manifest = self.describe(&known.name).await?;
        match Summary::from(&manifest) == known.summary {
            true => Ok(manifest),
            false => Err(not_found(&known.name)),
        }
    }

    /// Reads everything that a snapshot names and compares it with what it should be.
    pub(crate) async fn verify(&self, name: &str, work: &Work<'_>) -> Result<Manifest> {
        let manifest = work.unless_stopped(self.describe(name)).await?;
        let all = manifest.contents()?;
        let meter = &Meter::new(work, all.iter().map(|content| content.bytes).sum());
        let checks = all.into_iter().map(|content| async move {
            let told = |bytes| meter.add(bytes);
            self.store.fetch(name, content, None, work, &told).await
        });
        stream::iter(checks)
            .buffer_unordered(self.store.transfers)
            .try_collect::<()>()
            .await?;
        Ok(manifest)
    }

    /// Removes the snapshots that stand there, and the contents that no other names. What is gone already is no error.
    pub(crate) async fn remove(&self, keys: &[Key], work: &Work<'_>) -> Result<Collected> {
        for key in keys {
            work.unless_stopped(self.store.delete(&key.object())).await?;
        }
        // Before any content is: else a loss of power could bring back a manifest without its contents.
        self.store.settle("snapshots").await?;
        self.collect(work).await.map_err(|e| Error {
            message: format!(
                "the snapshot is removed; of the contents that only it needed some are still there, the next delete removes them: {}",
                e.message
            ),
            ..e
        })
    }

    /// Removes the contents that no snapshot names.
    async fn collect(&self, work: &Work<'_>) -> Result<Collected> {
        let Some(lease) = work.unless_stopped(Lease::take(&self.store, Role::Collect)).await? else {
            return Ok(Collected::Later);
        };
        let done = lease.during(self.remove_unnamed(&lease, work)).await;
        let ended = lease.end_after(&done).await;
        let done = done?;
        ended.map(|()| done)
    }

    async fn remove_unnamed(&self, lease: &Lease<'_>, work: &Work<'_>) -> Result<Collected> {
        // With the lease nobody writes a snapshot, so what is listed now is all that can name a content.
        let (mut named, mut unknown) = (HashSet::new(), Vec::new());
        for key in work.unless_stopped(self.keys()).await? {
            match work.unless_stopped(self.contents_of(&key)).await? {
                Ok(contents) => named.extend(contents),
                Err(why) => unknown.push((key, why)),
            }
        }
        // Who does not show what is there now may not have shown all manifests either.
        let Some(now) = work.unless_stopped(lease.written_at()).await? else {
            return Ok(Collected::Later);
        };
        let Some(wanted) = self.wanted(now, work).await? else {
            return Ok(Collected::Later);
        };
        named.extend(wanted);
        // What those need is not known, so nothing may be removed.
        if let Some((manifest, why)) = unknown.pop() {
            tracing::warn!(%manifest, why, "no content is removed while a manifest cannot be read");
            let more = unknown.len();
            return Ok(Collected::Kept { manifest, why, more });
        }
        let all = work.unless_stopped(self.store.list("objects")).await?;
        let unnamed = all.into_iter().filter_map(|(name, meta)| {
            let (hash, bytes) = (Hash::parse(&name)?, meta.size);
            (!named.contains(&hash)).then_some(Content { hash, bytes })
        });
        let unnamed: Vec<Content> = unnamed.collect();
        let (objects, bytes) = (unnamed.len() as u64, unnamed.iter().map(|content| content.bytes).sum());
        lease.begin();
        let removals = unnamed.into_iter().map(|content| async move {
            lease.check()?;
            match work.check() {
                Ok(()) => self.store.delete(&content.key()).await,
                // Those under way are waited for.
                Err(_) => Ok(()),
            }
        });
        stream::iter(removals)
            .buffer_unordered(self.store.transfers)
            .try_collect::<()>()
            .await?;
        lease.settled();
        work.check()?;
        self.store.settle("objects").await?;
        if let Err(error) = lease.remove_staged().await {
            tracing::warn!(%error, "what was cut off while it was written stays in the store");
        }
        Ok(Collected::Removed { objects, bytes })
    }

    /// What servers want to stay of what they sealed; none if a list cannot be read, which its server writes anew within a day.
    /// A list that was not renewed for long is removed, by the store's clock, which is not earlier than `now`.
    async fn wanted(&self, now: SystemTime, work: &Work<'_>) -> Result<Option<Vec<Hash>>> {
        let mut wanted = Vec::new();
        for (file, meta) in work.unless_stopped(self.store.list("wanted")).await? {
            let key = format!("wanted/{file}");
            let age = now.duration_since(meta.last_modified.into()).unwrap_or_default();
            if !sealed::is_list(&file) {
                continue;
            }
            if age >= sealed::EXPIRES {
                tracing::warn!(
                    key,
                    "a server that sent what it sealed was not seen for long: its contents are not kept any more"
                );
                work.unless_stopped(self.store.delete(&key)).await?;
                continue;
            }
            match work
                .unless_stopped(self.store.get(&key, MANIFEST_BYTES_MAX))
                .await?
                .map(|bytes| contents_named(&bytes))
            {
                None if work.unless_stopped(self.is_listed("wanted", &file)).await? => {
                    tracing::warn!(key, why = NOT_FOUND_YET_LISTED, "no content is removed");
                    return Ok(None);
                }
                None => {}
                Some(Ok(contents)) => wanted.extend(contents),
                Some(Err(why)) => {
                    tracing::warn!(
                        key,
                        why,
                        "no content is removed while a list of what is wanted cannot be read"
                    );
                    return Ok(None);
                }
            }
        }
        Ok(Some(wanted))
    }

    /// The lists of what servers have sent of what they sealed. One that cannot be read is left out.
    async fn lists(&self, work: &Work<'_>) -> Result<Vec<Vec<FileEntry>>> {
        let mut lists = Vec::new();
        let all = work.unless_stopped(self.store.list("wanted")).await?;
        for (file, _) in all.into_iter().filter(|(file, _)| sealed::is_list(file)) {
            let key = format!("wanted/{file}");
            match work.unless_stopped(self.store.get(&key, MANIFEST_BYTES_MAX)).await {
                Ok(Some(bytes)) => lists.extend(files_named(&bytes)),
                Ok(None) => {}
                Err(error) if error.kind == ErrorKind::Damaged => {}
                Err(error) => return Err(error),
            }
        }
        Ok(lists)
    }

    /// What a manifest needs, or why it does not say so. One that is gone needs nothing.
    async fn contents_of(&self, key: &Key) -> Result<Result<Vec<Hash>, String>> {
        match self.store.get(&key.object(), MANIFEST_BYTES_MAX).await {
            Ok(Some(bytes)) => Ok(contents_named(&bytes)),
            Ok(None) if self.is_listed("snapshots", &key.to_string()).await? => {
                Ok(Err(NOT_FOUND_YET_LISTED.to_owned()))
            }
            Ok(None) => Ok(Ok(Vec::new())),
            Err(error) if error.kind == ErrorKind::Damaged => Ok(Err("it is larger than a manifest can be".to_owned())),
            Err(error) => Err(error),
        }
    }

    /// Brings the files of a snapshot into a new directory, each compared with its hash, while `space` has room for them.
    pub(crate) async fn download(&self, manifest: &Manifest, to: &Path, space: &Space, work: &Work<'_>) -> Result<()> {
        self.bring(manifest, &|_| true, to, space, work).await
    }

    /// The same of those that make the database without the sealed rows: its log is in them.
    pub(crate) async fn download_log(
        &self,
        manifest: &Manifest,
        to: &Path,
        space: &Space,
        work: &Work<'_>,
    ) -> Result<()> {
        self.bring(manifest, &|path| path.starts_with("db/"), to, space, work)
            .await
    }

    async fn bring(
        &self,
        manifest: &Manifest,
        which: &(dyn Fn(&str) -> bool + Sync),
        to: &Path,
        space: &Space,
        work: &Work<'_>,
    ) -> Result<()> {
        manifest.contents()?;
        let files = || manifest.files.iter().filter(|file| which(&file.path));
        let bytes = files().map(|file| file.bytes).sum();
        check_room(space, manifest, bytes)?;
        let meter = &Meter::new(work, bytes);
        let fetches = files().map(|file| async move {
            // Others write to this disk too.
            check_room(space, manifest, file.bytes)?;
            let told = |bytes| meter.add(bytes);
            let (content, to) = (file.content(), to.join(&file.path));
            self.store.fetch(&manifest.name, content, Some(&to), work, &told).await
        });
        stream::iter(fetches)
            .buffer_unordered(self.store.transfers)
            .try_collect::<()>()
            .await?;
        let to = to.to_owned();
        blocking(move || directory::sync_tree(&to)).await
    }
}

/// Those of a list that can be read.
pub(crate) fn known_of(all: Vec<Listed>) -> Vec<Known> {
    let known = all.into_iter().filter_map(|Listed { name, found }| {
        let summary = found.ok()?;
        Some(Known { name, summary })
    });
    known.collect()
}

fn too_many(most: usize) -> Error {
    Error::new(
        ErrorKind::Exhausted,
        "too_many_snapshots",
        format!("the store holds {most} snapshots or more, which is the most: delete some"),
    )
}
