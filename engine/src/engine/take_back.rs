//! A damaged sealed file of a running engine, and a copy of it that somebody found elsewhere: the copy takes its place, and all is as if
//! the file had never been damaged.
//!
//! It is proved like by `cairn repair` (`repair.rs`): the manifest says which bytes the file has, by its length and the checksum of its
//! tables. The copy is verified before it is copied, and again what is on disk of it then. Only the exchange itself, of a name and
//! of an entry in the shard's list, is done under the applier's lock.
//!
//! What is replaced is kept in `damaged/`, once for each file, and of few files: whoever looks into a disk needs to see how it fails, and
//! what was in them is back. A crash leaves the damaged file, none (which is damage too), or the
//! copy: the next open derives what is damaged anew.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Engine;
use super::applier::Applier;
use super::commit::Shared;
use super::examine::SegmentPlace;
use super::maintain::check_stop;
use super::repair::{ASIDE, aside};
use crate::collection::Collection;
use crate::error::{Error, ErrorKind, Result};
use crate::limits;
use crate::segment::{Entry, Sealed, SealedView};
use crate::storage::{DEATHS, files, key};
use crate::types::{CollectionNo, ShardNo};

/// What `cairn repair` moves there has a number; what it gives up may be nowhere else, and stays.
const REPLACED: &str = "replaced";

/// A damaged file that points live in: a copy of it would be welcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Which file.
    pub place: SegmentPlace,
    /// Its collection's name.
    pub collection: String,
    /// Below the data directory, with slashes; the same in a snapshot.
    pub path: String,
    /// Its length.
    pub bytes: u64,
    /// Live points in it.
    pub points: u64,
}

impl Engine {
    /// Every damaged file that points live in.
    pub fn wanted(&self) -> Vec<Wanted> {
        let collections: Vec<_> = self.shared.collections.read().values().cloned().collect();
        let mut wanted = Vec::new();
        for collection in collections {
            let listing = collection.listing();
            let damaged = |view: &SealedView| view.file.damage().is_some() && view.live() > 0;
            wanted.extend(listing.sealed().filter(|(_, view)| damaged(view)).map(|(shard, view)| {
                let Entry { no: segment, bytes, .. } = view.file.entry;
                let path = files::segment_path(Path::new(""), collection.no, shard, segment);
                Wanted {
                    place: SegmentPlace {
                        collection: collection.no.0,
                        shard: shard.0,
                        segment,
                    },
                    collection: collection.name.clone(),
                    path: path.to_str().expect("made of numbers").to_owned(),
                    bytes,
                    points: view.live(),
                }
            }));
        }
        wanted
    }

    /// Puts a copy in the place of a damaged file, if it is that file, every byte of it: an error of kind `Damaged` otherwise. The
    /// segment is searched again from then on. False if there is nothing to replace any more. Once `stop` says true it ends as
    /// `Cancelled`.
    pub fn take_back(&self, place: SegmentPlace, candidate: &Path, stop: &dyn Fn() -> bool) -> Result<bool> {
        self.shared.check_alive()?;
        self.shared.take_back(place, candidate, stop)
    }
}

/// Where a file is in its shard's list, while it is damaged.
fn damaged_at(applier: &Applier, place: SegmentPlace) -> Option<(Arc<Collection>, usize)> {
    let state = applier.states.get(&CollectionNo(place.collection))?;
    let sealed = &state.shards.get(place.shard as usize)?.sealed;
    let damaged = |view: &SealedView| view.file.entry.no == place.segment && view.file.damage().is_some();
    Some((Arc::clone(&state.collection), sealed.iter().position(damaged)?))
}

impl Shared {
    fn take_back(&self, place: SegmentPlace, candidate: &Path, stop: &dyn Fn() -> bool) -> Result<bool> {
        let (no, shard) = (CollectionNo(place.collection), ShardNo(place.shard));
        let found = {
            let applier = self.locked()?;
            damaged_at(&applier, place).map(|(collection, at)| {
                let entry = applier.states[&no].shards[place.shard as usize].sealed[at].file.entry;
                (collection, entry)
            })
        };
        let Some((collection, entry)) = found else {
            return Ok(false);
        };
        let disk = &self.components.files;
        let open = |path: &Path| {
            let file = Sealed::open(disk, path, entry, &collection.schema)?;
            file.whole(&mut || check_stop(stop)).map(|_| file)
        };
        open(candidate)?;
        let missing = self.space.missing(entry.bytes).unwrap_or(0);
        if missing > 0 {
            return Err(Error::disk_full(format!(
                "there is no room for a copy of {} bytes in the place of a damaged file: {missing} more are needed",
                entry.bytes
            )));
        }
        let path = files::segment_path(&self.dir, no, shard, place.segment);
        let (mut file, temporary) = files::create_temporary(&**disk, &path)?;
        let taken = (|| {
            io::copy(&mut disk.map(candidate)?.bytes(), &mut file)?;
            file.sync()?;
            // What is on disk is what was looked at, or it does not come to its place.
            open(&temporary)?;
            let mut applier = self.locked()?;
            let Some((_, at)) = damaged_at(&applier, place) else {
                return Ok(false);
            };
            self.keep_aside(place, &path)?;
            files::publish(&**disk, &mut *file, &temporary, &path)?;
            self.exchange(&mut applier, (no, shard), at, &path, entry)?;
            Ok(true)
        })();
        if !matches!(taken, Ok(true)) {
            disk.remove(&temporary)?;
        }
        if matches!(taken, Ok(true)) {
            self.counters.taken_back.fetch_add(1, Ordering::Relaxed);
            tracing::info!(path = %path.display(), points = entry.rows, "a damaged file was replaced by a copy of it");
        }
        taken
    }

    /// The file that is at the path now becomes part of the shard, in the place of the damaged one.
    fn exchange(
        &self,
        applier: &mut Applier,
        (no, shard_no): (CollectionNo, ShardNo),
        at: usize,
        path: &Path,
        entry: Entry,
    ) -> Result<()> {
        let state = applier.states.get_mut(&no).expect("it was found with the lock");
        let shard = &mut state.shards[shard_no.0 as usize];
        let file = Sealed::open(&self.components.files, path, entry, &state.collection.schema)?;
        if let Some(damage) = file.damage() {
            return Err(damage.clone());
        }
        let mut view = SealedView::fresh(Arc::new(file));
        // As at open: of the damaged file's own account, some of the dead may have no place.
        let from = key::row(no, shard_no, entry.first);
        self.storage.scan(DEATHS, &key::shard(no, shard_no), &from, |key, _| {
            let (_, _, row) = key::parse_row(key).ok_or_else(|| Error::damaged("deaths: a key of the wrong length"))?;
            if row <= entry.last {
                view.kill(row);
            }
            Ok(row <= entry.last)
        })?;
        let (dead, before) = (view.dead.count(), shard.sealed[at].dead.count());
        if dead != before {
            return Err(Error::internal(format!(
                "{dead} rows of {} are dead, and {before} were when it was damaged",
                path.display()
            )));
        }
        shard.sealed[at] = view;
        applier.publish(no, &[shard_no]);
        applier.changed.insert((no, shard_no));
        // Less of the log may be wanted now.
        applier.looked_at_log = None;
        self.finished.ring();
        self.work.ring();
        Ok(())
    }

    /// Keeps what is there of a damaged file, unless something of it is kept already.
    fn keep_aside(&self, place: SegmentPlace, path: &Path) -> Result<()> {
        let disk = &self.components.files;
        let to: PathBuf = aside(&self.dir, place, REPLACED);
        match disk.link(path, &to) {
            Ok(()) => {
                if let Err(error) = self.forget_surplus(&to) {
                    tracing::warn!(%error, "more damaged files are kept than need be");
                }
                Ok(())
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::AlreadyExists) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::StorageFull => Ok(()),
            Err(error) => Err(Error::new(
                ErrorKind::Internal,
                "internal",
                format!("i/o: a hard link to {}: {error}", path.display()),
            )),
        }
    }

    /// Removes what is kept of others, so that no more is kept than may be: those of the lowest numbers, which were made first.
    fn forget_surplus(&self, kept: &Path) -> Result<()> {
        let disk = &self.components.files;
        let parent = self.dir.join(ASIDE);
        let mut others: Vec<PathBuf> = disk
            .list(&parent)?
            .into_iter()
            .map(|entry| parent.join(entry.name))
            .collect();
        let ours = format!(".{REPLACED}.seg");
        let number = |path: &PathBuf| -> Option<u64> {
            let name = path.file_name()?.to_str()?.strip_suffix(&ours)?;
            name.rsplit('-').next()?.parse().ok()
        };
        others.retain(|path| path != kept && number(path).is_some());
        others.sort_unstable_by_key(number);
        let surplus = (others.len() + 1).saturating_sub(limits::REPLACED_FILES_MAX);
        for path in &others[..surplus] {
            disk.remove(path)?;
        }
        Ok(())
    }
}
