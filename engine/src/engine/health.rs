//! Whether the files are what was written: verified once after opening, and read again from time to time.
//!
//! What is verified can be copied into memory then, graph by graph ([`Settings::graphs_in_memory`](crate::config::Settings::graphs_in_memory)).
//!
//! All of it happens in steps on the caller's thread, which decides how fast ([`Engine::verify_step`], [`Engine::scrub_step`]).
//! What a step finds is kept with the file, and everybody who asks for it afterwards is told.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::Engine;
use super::commit::Shared;
use super::maintain::check_stop;
use crate::error::{ErrorKind, Result};
use crate::limits::BLOCK_BYTES;
use crate::patience::Patience;
use crate::query::Listing;
use crate::segment::{Missing, Sealed};
use crate::types::CollectionNo;

/// What was read again, since open.
#[derive(Default)]
pub(super) struct Scrub {
    place: Mutex<Place>,
    bytes: AtomicU64,
    errors: AtomicU64,
    passes: AtomicU64,
    last_pass_ms: AtomicU64,
}

/// Where the next step goes on.
#[derive(Default)]
struct Place {
    /// The file, by its collection, shard and number; files are gone through in this order.
    file: Option<(CollectionNo, u32, u64)>,
    block: usize,
    /// The files are done, and the database is under way: its family and the key to go on with.
    database: Option<(usize, Vec<u8>)>,
}

/// What was read again, since open.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ScrubStats {
    /// Bytes read.
    pub bytes: u64,
    /// Files and parts of the database in which damage was found.
    pub errors: u64,
    /// Times that everything was read.
    pub passes: u64,
    /// When that happened last, in milliseconds since the Unix epoch; 0: not yet.
    pub last_pass_ms: u64,
}

/// A damaged file and the collection that it is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DamagedSegment {
    /// The collection's name.
    pub collection: String,
    /// Which file, and what of it is missing.
    pub missing: Missing,
}

impl Shared {
    /// Copies a graph of a sound file into memory, where that is wanted and there is one for which it was not done. Gives back how many bytes it
    /// copied.
    pub(super) fn keep_graph_in_memory(&self, file: &Sealed) -> usize {
        let segment = file
            .if_made()
            .filter(|_| self.settings.graphs_in_memory && file.is_sound());
        let copied = segment.map_or(Ok(0), |segment| segment.keep_graph_in_memory());
        copied.unwrap_or_else(|error| {
            // It is served from its mapping, as it would be without the setting.
            tracing::warn!(error = %error, segment = file.entry.no, "there is no memory for a graph");
            0
        })
    }
}

#[expect(clippy::cast_precision_loss, reason = "a part between 0 and 1")]
fn part_of(done: u64, all: u64) -> f32 {
    (done as f32 / all.max(1) as f32).min(1.0)
}

impl Engine {
    /// Verifies about so many bytes of files that nobody has asked for since they were opened, and, where
    /// [`Settings::graphs_in_memory`](crate::config::Settings::graphs_in_memory) says so, copies graphs of verified files into memory, one at least.
    /// Returns how many; 0 when everything is done.
    pub fn verify_step(&self, bytes: usize) -> Result<usize> {
        self.shared.check_alive()?;
        let mut done = 0;
        for (_, file) in self.files() {
            if done >= bytes {
                break;
            }
            let verified = match file.verify_some(bytes - done) {
                // What fits its checksums must fit together, too; and whoever asks next need not wait for that.
                Ok(0) if file.if_made().is_none() && file.damage().is_none() => {
                    file.segment(Patience::endless()).map(|_| BLOCK_BYTES)
                }
                Ok(0) => Ok(self.shared.keep_graph_in_memory(&file)),
                verified => verified,
            };
            match verified {
                Ok(verified) => done += verified,
                // It is said in the log, and kept with the file.
                Err(error) if error.kind == ErrorKind::Damaged => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    /// Verifies every byte of every file, and that what passes its checksums fits together. The first damage is an error; once
    /// `stop` says true it ends as `Cancelled`. `progress` is told which part of the bytes is verified.
    pub fn verify_all(&self, stop: &dyn Fn() -> bool, progress: &mut dyn FnMut(f32)) -> Result<()> {
        let collections: Vec<_> = self.shared.collections.read().values().cloned().collect();
        let bytes = |listing: &Listing| listing.sealed().map(|(_, view)| view.file.entry.bytes).sum::<u64>();
        let all = collections.iter().map(|of| bytes(&of.listing())).sum();
        let mut done = 0;
        for collection in collections {
            // One at a time: a list keeps the files on disk that are merged away meanwhile.
            for (shard, view) in collection.listing().sealed() {
                let verified = view.file.whole(&mut || check_stop(stop));
                done += view.file.entry.bytes;
                progress(part_of(done, all));
                match verified {
                    Err(error) if error.kind == ErrorKind::Damaged && collection.is_dropped() => {}
                    Err(error) if error.kind == ErrorKind::Damaged => {
                        return Err(view.missing(shard).of(&collection.name));
                    }
                    whole => drop(whole?),
                }
            }
        }
        Ok(())
    }

    /// Reads about so many bytes again, going on where the last call ended: all files, then the database, and so on for ever.
    /// Returns how many were read, and whether that ended a pass.
    pub fn scrub_step(&self, bytes: usize) -> Result<(usize, bool)> {
        self.shared.check_alive()?;
        let scrub = &self.shared.scrub;
        let mut place = scrub.place.lock();
        let mut done = 0;
        if place.database.is_none() {
            for (key, file) in self.files() {
                if place.file.is_some_and(|at| key < at) {
                    continue;
                }
                let first = match place.file == Some(key) {
                    true => place.block,
                    false => 0,
                };
                place.file = Some(key);
                match file.check_again(first, bytes) {
                    Ok((Some(next), read)) => {
                        place.block = next;
                        scrub.bytes.fetch_add(read as u64, Ordering::Relaxed);
                        return Ok((read, false));
                    }
                    Ok((None, read)) => {
                        place.file = Some((key.0, key.1, key.2 + 1));
                        place.block = 0;
                        done += read;
                    }
                    Err(error) if error.kind == ErrorKind::Damaged => {
                        scrub.errors.fetch_add(1, Ordering::Relaxed);
                        place.file = Some((key.0, key.1, key.2 + 1));
                        place.block = 0;
                    }
                    Err(error) => return Err(error),
                }
                if done >= bytes {
                    scrub.bytes.fetch_add(done as u64, Ordering::Relaxed);
                    return Ok((done, false));
                }
            }
            place.database = Some((0, Vec::new()));
            place.file = None;
        }
        let (family, from) = place.database.take().unwrap_or_default();
        let (read, next) = match self.shared.storage.read_again(family, &from, bytes) {
            Ok(read) => read,
            Err(error) => {
                // Nothing of the database can be set aside; what needs the block fails, and this says so before.
                tracing::error!(error = %error.message, "the database is damaged: restore it from a snapshot");
                scrub.errors.fetch_add(1, Ordering::Relaxed);
                (0, crate::storage::after_family(family))
            }
        };
        done += read;
        scrub.bytes.fetch_add(done as u64, Ordering::Relaxed);
        place.database = next;
        if place.database.is_some() {
            return Ok((done, false));
        }
        scrub.passes.fetch_add(1, Ordering::Relaxed);
        scrub.last_pass_ms.store(self.now_ms(), Ordering::Relaxed);
        Ok((done, true))
    }

    /// What was read again.
    pub fn scrubbed(&self) -> ScrubStats {
        let scrub = &self.shared.scrub;
        ScrubStats {
            bytes: scrub.bytes.load(Ordering::Relaxed),
            errors: scrub.errors.load(Ordering::Relaxed),
            passes: scrub.passes.load(Ordering::Relaxed),
            last_pass_ms: scrub.last_pass_ms.load(Ordering::Relaxed),
        }
    }

    /// Files that are known to be damaged, by collection.
    pub fn damaged(&self) -> Vec<DamagedSegment> {
        let collections: Vec<_> = self.shared.collections.read().values().cloned().collect();
        let damaged = collections.iter().flat_map(|collection| {
            let missing: Vec<Missing> = collection.listing().damaged().collect();
            missing.into_iter().map(|missing| DamagedSegment {
                collection: collection.name.clone(),
                missing,
            })
        });
        damaged.collect()
    }

    /// All sealed files, in order.
    fn files(&self) -> Vec<((CollectionNo, u32, u64), Arc<Sealed>)> {
        let collections: Vec<_> = self.shared.collections.read().values().cloned().collect();
        let mut files = Vec::new();
        for collection in collections {
            for (shard, view) in collection.listing().sealed() {
                files.push(((collection.no, shard.0, view.file.entry.no), Arc::clone(&view.file)));
            }
        }
        files.sort_unstable_by_key(|(key, _)| *key);
        files
    }
}
