//! Background work: seal growing segments, merge sealed ones, trim the log, remove files.
//!
//! `maintain` does one piece at a time, chosen by `shard::policy`. Reading and building happen without any lock; only the
//! exchange of the segment list happens under the applier lock. Several threads may call it: a shard is sealed by one and
//! merged by one at a time, and of all threads one merges, so that sealing is never stuck behind a long merge.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::applier::{Applier, StoredRow, encode, to_record};
use super::ask::{Maintained, OptimizeStep, Optimizing};
use super::commit::Shared;
use super::recover::{Manifest, Place};
use parking_lot::MutexGuard;

use crate::collection::Collection;
use crate::error::{Error, ErrorKind, Result};
use crate::segment::{Graphs, Kept, Segment, SegmentView, seal};
use crate::shard::{Shard, policy};
use crate::storage::{DEATHS, Effects, META, ROWS, files, key};
use crate::types::{CollectionNo, Row, Seq, ShardNo};

/// Log bytes that may wait before a trim is worth a flush of its own.
const TRIM_BYTES: u64 = 64 << 20;

/// How often work that waits for another thread's seal or merge looks whether it should stop.
const OTHERS_WAIT: Duration = Duration::from_millis(100);

/// A piece of work.
enum Job {
    /// The last flush found the disk full; nothing is written before one succeeds.
    Flush,
    Seal(Build),
    Merge(Build),
    /// Files that nothing on disk may name any more after the next flush.
    Sweep,
    Trim,
    /// Copies rows that hold back the log into `rows`.
    Unpin(CollectionNo, ShardNo),
}

/// Segments that become one.
struct Build {
    collection: Arc<Collection>,
    shard: ShardNo,
    inputs: Vec<SegmentView>,
    no: u64,
    /// Without them a seal takes a fraction of the time; the next merge makes them.
    graphs: bool,
}

impl Shared {
    pub(super) fn maintain(&self, stop: &dyn Fn() -> bool) -> Result<Maintained> {
        self.check_alive()?;
        let job = {
            let mut applier = self.locked()?;
            self.choose(&mut applier)
        };
        let done = match job {
            None => return Ok(Maintained::Idle),
            Some(Job::Seal(build)) => self.run_seal(&build, stop).and_then(|()| self.flush_and_trim()),
            Some(Job::Flush) => self.flush(),
            Some(Job::Merge(build)) => {
                let done = self.run_merge(&build, stop);
                self.merging.store(false, Ordering::Release);
                done
            }
            Some(Job::Sweep) => self.sweep(),
            Some(Job::Trim) => self.flush_and_trim(),
            Some(Job::Unpin(no, shard)) => self.unpin(no, shard),
        };
        match done {
            Ok(()) => Ok(Maintained::Worked),
            Err(error) if error.kind == ErrorKind::Cancelled => Ok(Maintained::Idle),
            Err(error) => Err(error),
        }
    }

    /// The applier, unless a failure stopped the engine: memory and disk may differ then, and disk must stay as it is. The
    /// check comes after the lock, because who stops the engine holds it.
    pub(super) fn locked(&self) -> Result<MutexGuard<'_, Applier>> {
        let applier = self.applier.lock();
        self.check_alive()?;
        Ok(applier)
    }

    fn choose(&self, applier: &mut Applier) -> Option<Job> {
        if !applier.trash.is_empty() {
            return Some(Job::Sweep);
        }
        if self.space.is_stuck() {
            return Some(Job::Flush);
        }
        let full = self.memory.bytes() * 2 > self.settings.growing_bytes_max as u64;
        let mut largest: Option<(usize, CollectionNo, ShardNo)> = None;
        let mut idle = Vec::new();
        let mut merge: Option<(CollectionNo, ShardNo, usize, usize)> = None;
        let mut seal = None;
        // While memory is short every shard counts, not only those that changed lately.
        let places: Vec<(CollectionNo, ShardNo)> = if full {
            applier
                .states
                .iter()
                .flat_map(|(no, s)| (0..s.shards.len() as u32).map(move |i| (*no, ShardNo(i))))
                .collect()
        } else {
            applier.changed.iter().copied().collect()
        };
        for (no, shard_no) in places {
            let Some(shard) = applier.states.get(&no).and_then(|s| s.shards.get(shard_no.0 as usize)) else {
                idle.push((no, shard_no));
                continue;
            };
            if shard.sealing == 0 {
                if self.seal_due(shard) {
                    seal = Some((no, shard_no));
                    break;
                }
                let bytes = shard.waiting().1;
                if bytes > 0 && largest.is_none_or(|(most, ..)| bytes > most) {
                    largest = Some((bytes, no, shard_no));
                }
            }
            let due = if shard.merging {
                None
            } else {
                policy::sealed_merge(&summary(shard), &self.settings)
            };
            match due {
                // One merges at a time; the others stay marked and are found again.
                Some((from, to)) => {
                    merge.get_or_insert((no, shard_no, from, to));
                }
                None if shard.sealing == 0 && !shard.merging => idle.push((no, shard_no)),
                None => {}
            }
        }
        for place in idle {
            applier.changed.remove(&place);
        }
        if seal.is_none() && full {
            seal = largest.map(|(_, no, shard)| (no, shard));
        }
        if let Some(place) = seal {
            return begin_seal(applier, place).map(Job::Seal);
        }
        if let Some((no, shard_no, from, to)) = merge
            && self.has_room_to_merge(applier, (no, shard_no), from, to)
            && !self.merging.swap(true, Ordering::AcqRel)
        {
            let state = applier.states.get_mut(&no)?;
            let shard = &mut state.shards[shard_no.0 as usize];
            shard.merging = true;
            let inputs = shard.sealed[from..to].to_vec();
            let collection = Arc::clone(&state.collection);
            return Some(Job::Merge(Build {
                collection,
                shard: shard_no,
                inputs,
                no: next_segment(applier),
                graphs: true,
            }));
        }
        let log_bytes: u64 = applier.log_sizes.iter().map(|(_, bytes)| bytes).sum();
        if log_bytes <= TRIM_BYTES.min(self.settings.log_bytes_max) {
            return None;
        }
        let pin = pin(applier);
        let below: u64 = applier
            .log_sizes
            .iter()
            .take_while(|(seq, _)| *seq < pin)
            .map(|(_, bytes)| bytes)
            .sum();
        if below > TRIM_BYTES {
            return Some(Job::Trim);
        }
        if log_bytes > self.settings.log_bytes_max {
            let pinned = |shard: &Shard| shard.growing.iter().filter_map(|g| g.pins).min();
            let oldest = applier.states.iter().flat_map(|(no, state)| {
                state
                    .shards
                    .iter()
                    .enumerate()
                    .filter(|(_, s)| s.sealing == 0)
                    .filter_map(|(i, s)| Some((pinned(s)?, *no, ShardNo(i as u32))))
            });
            return oldest
                .min_by_key(|(seq, ..)| *seq)
                .map(|(_, no, shard)| Job::Unpin(no, shard));
        }
        None
    }

    pub(super) fn seal_due(&self, shard: &Shard) -> bool {
        let (rows, bytes) = shard.waiting();
        rows >= self.settings.seal_rows || bytes >= self.settings.seal_bytes
    }

    /// Seals what grows now, and merges each shard until [`policy::full_merge`] finds nothing more. Shares the shard's flags
    /// with [`Self::maintain`], so the two may run side by side; where the other is at work this one waits for it.
    pub(super) fn optimize(
        &self,
        collection: &Arc<Collection>,
        stop: &dyn Fn() -> bool,
        progress: &mut dyn FnMut(Optimizing),
    ) -> Result<()> {
        let shards = collection.schema.shards;
        let mut tell = |shard: u32, part: f32, step: OptimizeStep| {
            progress(Optimizing {
                part: (shard as f32 + part) / shards as f32,
                shard,
                shards,
                step,
            });
        };
        for i in 0..shards {
            let place = (collection.no, ShardNo(i));
            self.seal_now(place, stop, &mut |step| tell(i, 0.0, step))?;
            self.merge_now(place, stop, &mut |part, step| tell(i, 0.3 + 0.7 * part, step))?;
        }
        tell(shards - 1, 1.0, OptimizeStep::Trim);
        self.flush_and_trim()
    }

    /// Until every row that grows now is sealed; rows that are written meanwhile may stay.
    fn seal_now(&self, place: Place, stop: &dyn Fn() -> bool, tell: &mut dyn FnMut(OptimizeStep)) -> Result<()> {
        let mut upto: Option<Row> = None;
        loop {
            check_stop(stop)?;
            let build = {
                let mut applier = self.locked()?;
                let no = next_segment(&mut applier);
                let (collection, shard) = shard_at(&mut applier, place)?;
                let upto = *upto.get_or_insert(Row(shard.next_row));
                let grows = shard.growing.first().and_then(|g| g.view.segment.row_range());
                if grows.is_none_or(|(first, _)| first >= upto) {
                    return Ok(());
                }
                (shard.sealing == 0).then(|| {
                    shard.sealing = shard.growing.len();
                    Build {
                        collection,
                        shard: place.1,
                        inputs: shard.growing.iter().map(|g| g.view.clone()).collect(),
                        no,
                        graphs: true,
                    }
                })
            };
            match build {
                Some(build) => {
                    tell(OptimizeStep::Seal {
                        segments: build.inputs.len(),
                    });
                    self.run_seal(&build, stop)?;
                    self.flush_and_trim()?;
                }
                None => {
                    tell(OptimizeStep::Wait);
                    self.finished.wait(OTHERS_WAIT);
                }
            }
        }
    }

    /// Until nothing is left to merge, or everything that was there at the start was merged twice: writes that go on
    /// leave dead rows behind for ever.
    fn merge_now(&self, place: Place, stop: &dyn Fn() -> bool, tell: &mut dyn FnMut(f32, OptimizeStep)) -> Result<()> {
        let mut merges = 0;
        let mut most = None;
        loop {
            check_stop(stop)?;
            let (build, sealed) = {
                let mut applier = self.locked()?;
                let no = next_segment(&mut applier);
                let (collection, shard) = shard_at(&mut applier, place)?;
                let most = *most.get_or_insert(2 * shard.sealed.len());
                let Some((from, to)) = policy::full_merge(&summary(shard), &self.settings) else {
                    return Ok(());
                };
                if merges == most {
                    return Ok(());
                }
                let free = !shard.merging && !self.merging.swap(true, Ordering::AcqRel);
                let build = free.then(|| {
                    shard.merging = true;
                    Build {
                        collection,
                        shard: place.1,
                        inputs: shard.sealed[from..to].to_vec(),
                        no,
                        graphs: true,
                    }
                });
                (build, shard.sealed.len())
            };
            let part = merges as f32 / most.unwrap_or(1).max(1) as f32;
            match build {
                Some(build) => {
                    let step = OptimizeStep::Merge {
                        segments: build.inputs.len(),
                        of: sealed,
                    };
                    tell(part, step);
                    let done = self.run_merge(&build, stop);
                    self.merging.store(false, Ordering::Release);
                    done?;
                    merges += 1;
                }
                None => {
                    tell(part, OptimizeStep::Wait);
                    self.finished.wait(OTHERS_WAIT);
                }
            }
        }
    }

    /// Growing segments become a sealed file.
    fn run_seal(&self, build: &Build, stop: &dyn Fn() -> bool) -> Result<()> {
        let built = self.build(build, stop);
        let mut applier = self.locked()?;
        let Some(shard) = shard_of(&mut applier, build) else {
            // Dropped meanwhile: the collection's directory is in the trash.
            return Ok(());
        };
        let n = std::mem::take(&mut shard.sealing);
        let output = built?;
        let frozen: Vec<SegmentView> = shard.growing[..n].iter().map(|g| g.view.clone()).collect();
        let bytes: usize = shard.growing.drain(..n).map(|g| g.bytes()).sum();
        if let Some(segment) = &output {
            let dead = Shard::carry_deaths(&frozen, segment);
            shard.sealed.push(SegmentView {
                segment: Arc::clone(segment),
                dead,
            });
        }
        self.install(&mut applier, build, &frozen, output.as_ref())?;
        drop(applier);
        self.memory.release(bytes as i64);
        self.counters.seals.fetch_add(1, Ordering::Relaxed);
        self.finished.ring();
        Ok(())
    }

    /// Seals the largest shards until growing memory is within its bound: while opening, when nobody else does. Does not trim.
    pub(super) fn shrink(&self) -> Result<()> {
        while self.memory.bytes() > self.settings.growing_bytes_max as u64 {
            let build = {
                let mut applier = self.locked()?;
                let shards = applier.states.iter().flat_map(|(no, state)| {
                    let bytes = |(i, shard): (usize, &Shard)| (shard.waiting().1, (*no, ShardNo(i as u32)));
                    state.shards.iter().enumerate().map(bytes)
                });
                let largest = shards.max().filter(|(bytes, _)| *bytes > 0);
                largest.and_then(|(_, place)| begin_seal(&mut applier, place))
            };
            match build {
                // Who starts is waited for: graphs come later.
                Some(build) => self.run_seal(&Build { graphs: false, ..build }, &|| false)?,
                None => break,
            }
        }
        Ok(())
    }

    /// A merge needs as much room as what it merges, until that is removed. It can wait for it.
    fn has_room_to_merge(&self, applier: &Applier, (no, shard_no): Place, from: usize, to: usize) -> bool {
        let shard = applier.states.get(&no).map(|state| &state.shards[shard_no.0 as usize]);
        let inputs = shard.map_or(&[][..], |shard| &shard.sealed[from..to]);
        let bytes = inputs.iter().map(|view| view.segment.bytes() as u64).sum();
        // A disk that does not say how full it is will say so by an error of the merge.
        self.space.fits(bytes).unwrap_or(true)
    }

    /// Brings every effect to disk. A full disk is waited for; any other failure ends the engine, because what the disk has
    /// of it is unknown and a second try would hide that.
    fn flush(&self) -> Result<()> {
        let result = self.storage.flush();
        self.space.flushed(result.as_ref().is_err_and(is_full));
        result.inspect_err(|error| self.stop_unless_full(error))
    }

    fn stop_unless_full(&self, error: &Error) {
        if !is_full(error) && error.kind != ErrorKind::Cancelled {
            self.stop_for(error);
        }
    }

    /// Sealed segments become one.
    fn run_merge(&self, build: &Build, stop: &dyn Fn() -> bool) -> Result<()> {
        let built = self.build(build, stop);
        let mut applier = self.locked()?;
        let Some(shard) = shard_of(&mut applier, build) else {
            return Ok(());
        };
        shard.merging = false;
        let output = built?;
        let first = build.inputs[0].segment.no;
        let from = shard
            .sealed
            .iter()
            .position(|v| v.segment.no == first)
            .expect("only this merge removes its inputs");
        let to = from + build.inputs.len();
        let now: Vec<SegmentView> = shard.sealed[from..to].to_vec();
        let replacement = output.as_ref().map(|segment| SegmentView {
            segment: Arc::clone(segment),
            dead: Shard::carry_deaths(&now, segment),
        });
        shard.sealed.splice(from..to, replacement);
        self.install(&mut applier, build, &now, output.as_ref())?;
        let path = |view: &SegmentView| {
            files::segment_path(
                &self.dir,
                build.collection.no,
                build.shard,
                view.segment.no.expect("sealed segments have a number"),
            )
        };
        let old: Vec<PathBuf> = now.iter().map(path).collect();
        applier.trash.extend(old);
        drop(applier);
        self.counters.merges.fetch_add(1, Ordering::Relaxed);
        self.finished.ring();
        self.sweep()
    }

    /// Makes one file of the live rows of some segments. None if no row lives. A panic (a bug, or one of a helping thread) is
    /// a failure like any other: else the shard would be marked as being worked on for ever, and its memory never freed.
    fn build(&self, build: &Build, stop: &dyn Fn() -> bool) -> Result<Option<Arc<Segment>>> {
        let kept: Vec<Kept> = build.inputs.iter().map(Kept::live).collect();
        if kept.iter().all(|k| k.ordinals.is_empty()) {
            return Ok(None);
        }
        let path = files::segment_path(&self.dir, build.collection.no, build.shard, build.no);
        let stop = || stop() || build.collection.is_dropped();
        let graphs = Graphs {
            rows_min: match build.graphs {
                true => self.settings.graph_rows_min,
                false => usize::MAX,
            },
            workers: &self.components.workers,
            stop: &stop,
        };
        let sealed = catch_unwind(AssertUnwindSafe(|| {
            seal(&build.collection.spec(), &kept, &path, build.no, &graphs)
        }));
        match sealed.unwrap_or_else(|_| Err(Error::internal("a seal or merge panicked"))) {
            Ok(segment) => Ok(Some(Arc::new(segment))),
            Err(error) => {
                // Half a file helps nobody, least of all on a full disk. What cannot be removed is removed at the next open.
                let _ = std::fs::remove_file(path.with_extension("tmp"));
                self.stop_unless_full(&error);
                Err(error)
            }
        }
    }

    /// The manifest changes, together with everything that follows from it, in one batch; readers see it at once.
    fn install(
        &self,
        applier: &mut Applier,
        build: &Build,
        inputs: &[SegmentView],
        output: Option<&Arc<Segment>>,
    ) -> Result<()> {
        let (no, shard_no) = (build.collection.no, build.shard);
        let result = (|| {
            let mut effects = Effects::new(&self.storage);
            let shard = &applier.states[&no].shards[shard_no.0 as usize];
            let segments = shard
                .sealed
                .iter()
                .map(|v| v.segment.no.expect("sealed segments have a number"))
                .collect();
            effects.put(
                META,
                &key::meta(b'm', no, Some(shard_no)),
                &encode(&Manifest { segments })?,
            );
            effects.put(META, b"next_segment", &applier.next_segment.to_le_bytes());
            let ranges = inputs.iter().filter_map(|v| v.segment.row_range());
            if let Some((first, last)) = ranges.reduce(|(a, b), (c, d)| (a.min(c), b.max(d))) {
                // Rows between this and the segment before it died before they were in any file.
                let before = shard
                    .sealed
                    .iter()
                    .filter_map(|v| v.segment.row_range())
                    .map(|(_, last)| last);
                let from = before
                    .filter(|row| *row < first)
                    .max()
                    .map_or(Row(0), |row| Row(row.0 + 1));
                let from_key = key::row(no, shard_no, from);
                effects.delete_range(ROWS, &from_key, &key::row(no, shard_no, Row(last.0 + 1)));
                // Deaths of rows that are in no file any more are forgotten.
                self.storage
                    .scan(DEATHS, &key::shard(no, shard_no), &from_key, |key, _| {
                        let row = key::parse_row(key)
                            .ok_or_else(|| Error::damaged("deaths: a key of the wrong length"))?
                            .2;
                        if row <= last && output.is_none_or(|o| o.ordinal_of(row).is_none()) {
                            effects.delete(DEATHS, key);
                        }
                        Ok(row <= last)
                    })?;
            }
            self.storage.write_effects(effects)?;
            applier.publish(no, &[shard_no]);
            applier.changed.insert((no, shard_no));
            Ok(())
        })();
        if let Err(error) = &result {
            // Memory has the new list, disk may not: stop rather than differ.
            self.stop_for(error);
        }
        result
    }

    /// Removes files that nothing on disk names after a flush. What cannot be removed now is tried again later.
    fn sweep(&self) -> Result<()> {
        let mut trash = std::mem::take(&mut self.locked()?.trash);
        let result = self.flush().and_then(|()| {
            while let Some(path) = trash.last() {
                let gone = if path.is_dir() {
                    std::fs::remove_dir_all(path)
                } else {
                    std::fs::remove_file(path)
                };
                match gone {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
                    _ => drop(trash.pop()),
                }
            }
            Ok(())
        });
        if !trash.is_empty() {
            self.locked()?.trash.append(&mut trash);
        }
        result
    }

    /// Forgets what the log holds only of rows that are sealed or dead.
    pub(super) fn flush_and_trim(&self) -> Result<()> {
        // Effects up to here are on disk after the flush; later records stay.
        let applied = self.locked()?.applied;
        self.flush()?;
        let mut applier = self.locked()?;
        let to = pin(&applier).min(Seq(applied.0 + 1));
        if to <= applier.log_start {
            return Ok(());
        }
        self.log.trim(applier.log_start, to)?;
        applier.log_start = to;
        self.counters.log_start.store(to.0, Ordering::Relaxed);
        // A stretch that straddles the trim keeps its bytes: the sum is a bound, not an account.
        while applier.log_sizes.get(1).is_some_and(|(next, _)| *next <= to) {
            applier.log_sizes.pop_front();
        }
        if applier.log_sizes.len() == 1 && to.0 > applier.applied.0 {
            applier.log_sizes.clear();
        }
        Ok(())
    }

    /// Copies a shard's growing rows into `rows`, so that the log may be trimmed past them.
    fn unpin(&self, no: CollectionNo, shard_no: ShardNo) -> Result<()> {
        let mut applier = self.locked()?;
        let Some(state) = applier.states.get_mut(&no) else {
            return Ok(());
        };
        let schema = Arc::clone(&state.collection.schema);
        let shard = &mut state.shards[shard_no.0 as usize];
        let mut effects = Effects::new(&self.storage);
        for growing in shard.growing.iter().filter(|g| g.pins.is_some()) {
            let view = &growing.view;
            for ordinal in (0..view.segment.rows()).filter(|o| !view.dead.contains(*o)) {
                let row = view.segment.row_of(ordinal);
                if let Some(content) = shard.load(row, &schema)? {
                    let stored = StoredRow::Inline {
                        birth: content.birth,
                        point: to_record(&content),
                    };
                    effects.put(ROWS, &key::row(no, shard_no, row), &encode(&stored)?);
                }
            }
        }
        // Only rows that are copied let go of the log.
        self.storage
            .write_effects(effects)
            .inspect_err(|error| self.stop_for(error))?;
        shard.growing.iter_mut().for_each(|g| g.pins = None);
        drop(applier);
        self.flush_and_trim()
    }
}

/// Takes what grows in a shard out for a seal.
fn begin_seal(applier: &mut Applier, (no, shard_no): Place) -> Option<Build> {
    let state = applier.states.get_mut(&no)?;
    let shard = &mut state.shards[shard_no.0 as usize];
    shard.sealing = shard.growing.len();
    let inputs = shard.growing.iter().map(|g| g.view.clone()).collect();
    let collection = Arc::clone(&state.collection);
    Some(Build {
        collection,
        shard: shard_no,
        inputs,
        no: next_segment(applier),
        graphs: true,
    })
}

fn is_full(error: &Error) -> bool {
    error.code == "disk_full"
}

fn next_segment(applier: &mut Applier) -> u64 {
    let no = applier.next_segment;
    applier.next_segment += 1;
    no
}

pub(super) fn check_stop(stop: &dyn Fn() -> bool) -> Result<()> {
    match stop() {
        true => Err(Error::new(
            ErrorKind::Cancelled,
            "cancelled",
            "the work was cancelled; what it had finished stays",
        )),
        false => Ok(()),
    }
}

/// A shard and its collection, unless it was dropped.
fn shard_at(applier: &mut Applier, place: Place) -> Result<(Arc<Collection>, &mut Shard)> {
    let state = applier
        .states
        .get_mut(&place.0)
        .ok_or_else(|| Error::not_found("collection_not_found", "the collection was dropped meanwhile"))?;
    let shard = &mut state.shards[place.1.0 as usize];
    Ok((Arc::clone(&state.collection), shard))
}

fn shard_of<'a>(applier: &'a mut Applier, build: &Build) -> Option<&'a mut Shard> {
    applier
        .states
        .get_mut(&build.collection.no)?
        .shards
        .get_mut(build.shard.0 as usize)
}

pub(super) fn summary(shard: &Shard) -> Vec<policy::Sealed> {
    shard
        .sealed
        .iter()
        .map(|v| policy::Sealed {
            rows: u64::from(v.segment.rows()),
            dead: v.dead.count(),
        })
        .collect()
}

/// The oldest record that is still needed.
fn pin(applier: &Applier) -> Seq {
    let pins = applier
        .states
        .values()
        .flat_map(|s| &s.shards)
        .flat_map(|s| &s.growing)
        .filter_map(|g| g.pins);
    pins.min().unwrap_or(Seq(applier.applied.0 + 1))
}
