//! Background work: seal growing segments, merge sealed ones, trim the log, remove files.
//!
//! `maintain` does one piece at a time, chosen by `shard::policy`. Reading and building happen without any lock; only the
//! exchange of the segment list happens under the applier lock. Several threads may call it: a shard is sealed by one and
//! merged by one at a time, and of all threads one merges, so that sealing is never stuck behind a long merge.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::applier::{Applier, StoredRow, encode, to_record};
use super::ask::{Maintained, OptimizeStep, Optimizing};
use super::commit::{Shared, StopOnUnwind};
use super::failing::BuildKind;
use super::recover::{Manifest, Place};
use super::retention::Retention;
use parking_lot::MutexGuard;

use crate::collection::Collection;
use crate::error::{Error, ErrorKind, Result};
use crate::limits;
use crate::patience::Patience;
use crate::segment::{Dead, Graphs, Kept, Sealed, SealedView, SegmentView, seal};
use crate::shard::{Shard, policy};
use crate::storage::{DEATHS, Effects, LOG, META, ROWS, files, key};
use crate::types::{CollectionNo, Row, Seq, ShardNo};

/// Log bytes that may wait before a trim is worth a flush of its own.
const TRIM_BYTES: u64 = 64 << 20;

/// How often work that waits for another thread's seal or merge looks whether it should stop.
const OTHERS_WAIT: Duration = Duration::from_millis(100);

/// A piece of work.
enum Job<'a> {
    /// The last flush found the disk full; nothing is written before one succeeds.
    Flush,
    Seal(Build, Claim<'a>),
    Merge(Build, Claim<'a>),
    /// Files that nothing on disk may name any more after the next flush.
    Sweep,
    Trim,
    /// The disk is nearly full: nothing is kept that nobody needs.
    TrimAll,
    /// That was done, and its room is not given back yet.
    Reclaim,
    /// Copies rows that hold back the log into `rows`.
    Unpin(CollectionNo, ShardNo),
}

/// Segments that become one.
struct Build {
    collection: Arc<Collection>,
    shard: ShardNo,
    /// The files that a merge replaces; none are for a seal.
    files: Vec<SealedView>,
    /// What it is made of: what grows, or the segments of the files once they were verified.
    inputs: Vec<SegmentView>,
    no: u64,
    /// Without them a seal takes a fraction of the time; the next merge makes them.
    graphs: bool,
}

/// What a trim leaves in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keep {
    /// What somebody needs, and what is kept for a time.
    Retained,
    OnlyNeeded,
}

/// The right to seal what grows in a shard, or to merge what is sealed in it (and of all shards to be the one that merges).
/// It ends however the work ends: one that fails or panics must not keep its shard for ever.
struct Claim<'a> {
    shared: &'a Shared,
    place: Place,
    merges: bool,
}

impl Claim<'_> {
    /// Ends it under the applier's lock, together with the exchange of segments that it was for.
    fn end(self, applier: &mut Applier) {
        self.clear(applier);
        self.shared.failing.succeeded(self.place, self.kind());
        std::mem::forget(self);
    }

    fn kind(&self) -> BuildKind {
        match self.merges {
            true => BuildKind::Merge,
            false => BuildKind::Seal,
        }
    }

    fn clear(&self, applier: &mut Applier) {
        let state = applier.states.get_mut(&self.place.0);
        let shard = state.map(|state| &mut state.shards[self.place.1.0 as usize]);
        if self.merges {
            shard.into_iter().for_each(|shard| shard.merging = false);
            self.shared.merging.store(false, Ordering::Release);
        } else {
            shard.into_iter().for_each(|shard| shard.sealing = 0);
        }
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.clear(&mut self.shared.applier.lock());
        self.shared.finished.ring();
    }
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
            Some(Job::Seal(build, claim)) => self.run_seal(&build, claim, stop).and_then(|()| self.flush_and_trim()),
            Some(Job::Flush) => self.flush("flush of a full disk"),
            Some(Job::Merge(build, claim)) => self.run_merge(build, claim, stop),
            Some(Job::Sweep) => self.sweep(),
            Some(Job::Trim) => self.flush_and_trim(),
            Some(Job::TrimAll) => self.trim(Keep::OnlyNeeded).and_then(|()| self.reclaim()),
            Some(Job::Reclaim) => self.reclaim(),
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

    fn choose(&self, applier: &mut Applier) -> Option<Job<'_>> {
        // What could not be removed waits until there is nothing else to do: a file that stays must not stop all other work.
        if !applier.trash.is_empty() && !applier.sweep_failed {
            return Some(Job::Sweep);
        }
        if self.space.is_stuck() {
            return Some(Job::Flush);
        }
        let full = self.memory.bytes() * 2 > self.settings.growing_bytes_max as u64;
        let now_ms = self.components.clock.now_ms();
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
            let may_seal = self.failing.may_try((no, shard_no), BuildKind::Seal, now_ms);
            if shard.sealing == 0 && may_seal {
                if self.seal_due(shard) {
                    seal = Some((no, shard_no));
                    break;
                }
                let bytes = shard.waiting().1;
                if bytes > 0 && largest.is_none_or(|(most, ..)| bytes > most) {
                    largest = Some((bytes, no, shard_no));
                }
            }
            let sealed = summary(shard);
            let is_due = !shard.merging && policy::sealed_merge(&sealed, &self.settings, |_, _| true).is_some();
            match is_due {
                // One merges at a time; the others, and one that failed lately, stay marked and are found again.
                true if merge.is_some() || !self.failing.may_try((no, shard_no), BuildKind::Merge, now_ms) => {}
                // So do those for which there is no room, which hide nothing that there is room for.
                true => {
                    let may = |from: usize, to: usize| self.has_room_to_merge(&shard.sealed[from..to]);
                    let found = policy::sealed_merge(&sealed, &self.settings, may);
                    merge = found.map(|(from, to)| (no, shard_no, from, to));
                }
                false if shard.sealing == 0 && !shard.merging && may_seal => idle.push((no, shard_no)),
                false => {}
            }
        }
        for place in idle {
            applier.changed.remove(&place);
        }
        if seal.is_none() && full {
            seal = largest.map(|(_, no, shard)| (no, shard));
        }
        if let Some(place) = seal {
            return self
                .claim_seal(applier, place)
                .map(|(build, claim)| Job::Seal(build, claim));
        }
        if let Some((no, shard_no, from, to)) = merge
            && let Some((build, claim)) = self.claim_merge(applier, (no, shard_no), (from, to))
        {
            return Some(Job::Merge(build, claim));
        }
        let of_log = self.choose_of_log(applier);
        of_log.or_else(|| (!applier.trash.is_empty()).then_some(Job::Sweep))
    }

    /// What is to be done about the log, which is all that is left to do. With retention each look costs a walk over its
    /// stretches and all shards, under the lock; so there is one each time that something may have become due, not one a commit.
    fn choose_of_log<'a>(&self, applier: &mut Applier) -> Option<Job<'a>> {
        let (now_ms, bytes) = (self.components.clock.now_ms(), applier.log.bytes());
        let step = limits::LOG_STRETCH_BYTES.min(self.settings.log_bytes_max / 16);
        let is_recent = |(at_ms, then): (u64, u64)| {
            now_ms.abs_diff(at_ms) < limits::LOG_LOOK_MS && (then..then.saturating_add(step)).contains(&bytes)
        };
        if self.settings.log_retention_ms > 0 && applier.looked_at_log.is_some_and(is_recent) {
            return None;
        }
        let job = self.look_at_log(applier);
        applier.looked_at_log = job.is_none().then_some((now_ms, bytes));
        job
    }

    fn look_at_log<'a>(&self, applier: &Applier) -> Option<Job<'a>> {
        if applier.reclaim.is_some() {
            return Some(Job::Reclaim);
        }
        let (log, retention) = (&applier.log, self.retention(applier));
        if log.bytes() <= TRIM_BYTES.min(self.settings.log_bytes_max) && retention.is_off() {
            return None;
        }
        let pin = pin(applier);
        let now_ms = self.components.clock.now_ms();
        // What may go, unless it is kept, and what of it may go at once.
        let bound = self.holds.first().map_or(pin, |held| held.min(pin));
        let below = |keep: Option<Seq>| log.below(keep.map_or(bound, |keep| keep.min(bound)), applier.applied);
        let (free, unneeded) = (below(log.keep_from(now_ms, retention)), below(None));
        // What is held counts as kept: nothing can be done about it.
        let retained = log.below(pin, applier.applied) - free;
        self.tell_log(applier, pin, retained);
        if unneeded > free && self.is_nearly_full() {
            return Some(Job::TrimAll);
        }
        let is_late = !retention.is_off() && below(log.keep_from(now_ms, retention.with_slack())) > 0;
        if free > TRIM_BYTES || is_late {
            return Some(Job::Trim);
        }
        if log.bytes() - retained > self.settings.log_bytes_max {
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

    /// All that grows in a shard, to become one file. None if somebody is at it.
    fn claim_seal(&self, applier: &mut Applier, place: Place) -> Option<(Build, Claim<'_>)> {
        let state = applier.states.get_mut(&place.0)?;
        let shard = &mut state.shards[place.1.0 as usize];
        if shard.sealing > 0 {
            return None;
        }
        shard.sealing = shard.growing.len();
        let build = Build {
            collection: Arc::clone(&state.collection),
            shard: place.1,
            files: Vec::new(),
            inputs: shard.growing.iter().map(|g| g.view.clone()).collect(),
            no: next_segment(applier),
            graphs: true,
        };
        let claim = Claim {
            shared: self,
            place,
            merges: false,
        };
        Some((build, claim))
    }

    /// Some adjacent sealed segments of a shard, to become one. None if somebody merges.
    fn claim_merge(
        &self,
        applier: &mut Applier,
        place: Place,
        (from, to): (usize, usize),
    ) -> Option<(Build, Claim<'_>)> {
        let state = applier.states.get_mut(&place.0)?;
        let shard = &mut state.shards[place.1.0 as usize];
        if shard.merging || self.merging.swap(true, Ordering::AcqRel) {
            return None;
        }
        shard.merging = true;
        let build = Build {
            collection: Arc::clone(&state.collection),
            shard: place.1,
            files: shard.sealed[from..to].to_vec(),
            inputs: Vec::new(),
            no: next_segment(applier),
            graphs: true,
        };
        let claim = Claim {
            shared: self,
            place,
            merges: true,
        };
        Some((build, claim))
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
            let claimed = {
                let mut applier = self.locked()?;
                let shard = shard_at(&mut applier, place)?;
                let upto = *upto.get_or_insert(Row(shard.next_row));
                let grows = shard.growing.first().and_then(|g| g.view.segment.row_range());
                if grows.is_none_or(|(first, _)| first >= upto) {
                    return Ok(());
                }
                self.claim_seal(&mut applier, place)
            };
            match claimed {
                Some((build, claim)) => {
                    tell(OptimizeStep::Seal {
                        segments: build.inputs.len(),
                    });
                    self.run_seal(&build, claim, stop)?;
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
            let (claimed, sealed) = {
                let mut applier = self.locked()?;
                let shard = shard_at(&mut applier, place)?;
                let most = *most.get_or_insert(2 * shard.sealed.len());
                let Some(run) = policy::full_merge(&summary(shard), &self.settings) else {
                    return Ok(());
                };
                if merges == most {
                    return Ok(());
                }
                let sealed = shard.sealed.len();
                (self.claim_merge(&mut applier, place, run), sealed)
            };
            let part = merges as f32 / most.unwrap_or(1).max(1) as f32;
            match claimed {
                Some((build, claim)) => {
                    let step = OptimizeStep::Merge {
                        segments: build.files.len(),
                        of: sealed,
                    };
                    tell(part, step);
                    self.run_merge(build, claim, stop)?;
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
    fn run_seal(&self, build: &Build, claim: Claim<'_>, stop: &dyn Fn() -> bool) -> Result<()> {
        let output = match self.build(build, stop) {
            Ok(output) => output,
            Err(error) => return self.not_built(build, claim, error),
        };
        let mut applier = self.locked()?;
        claim.end(&mut applier);
        let unwinding = StopOnUnwind {
            shared: self,
            answers: &[],
        };
        let Some(shard) = shard_of(&mut applier, build) else {
            self.leave_behind(&mut applier, build);
            std::mem::forget(unwinding);
            return Ok(());
        };
        let n = build.inputs.len();
        let now: Vec<Arc<Dead>> = shard.growing[..n].iter().map(|g| Arc::clone(&g.view.dead)).collect();
        let bytes: usize = shard.growing.drain(..n).map(|g| g.bytes()).sum();
        let sealed = output.map(|file| Shard::carry_deaths(&build.inputs, &now, file));
        shard.sealed.extend(sealed.clone());
        let installed = self.install(&mut applier, build, sealed.as_ref(), "seal manifest");
        std::mem::forget(unwinding);
        installed?;
        drop(applier);
        self.memory.release(bytes as i64);
        self.counters.seals.fetch_add(1, Ordering::Relaxed);
        self.finished.ring();
        Ok(())
    }

    /// Seals the largest shards until growing memory is within its bound: while opening, when nobody else does. Does not trim.
    pub(super) fn shrink(&self) -> Result<()> {
        while self.memory.bytes() > self.settings.growing_bytes_max as u64 {
            let claimed = {
                let mut applier = self.locked()?;
                let shards = applier.states.iter().flat_map(|(no, state)| {
                    let bytes = |(i, shard): (usize, &Shard)| (shard.waiting().1, (*no, ShardNo(i as u32)));
                    state.shards.iter().enumerate().map(bytes)
                });
                let largest = shards.max().filter(|(bytes, _)| *bytes > 0);
                largest.and_then(|(_, place)| self.claim_seal(&mut applier, place))
            };
            match claimed {
                // Who starts is waited for: graphs come later.
                Some((build, claim)) => self.run_seal(&Build { graphs: false, ..build }, claim, &|| false)?,
                None => break,
            }
        }
        Ok(())
    }

    /// A merge needs as much room as what it merges, until that is removed. It can wait for it. One that gives back at least what
    /// it takes is what makes room on a full disk after points were deleted: it may use half of the reserve, as deletes do, and one of
    /// which nothing is left needs no room.
    fn has_room_to_merge(&self, inputs: &[SealedView]) -> bool {
        let bytes: u64 = inputs.iter().map(|view| view.file.entry.bytes).sum();
        let left = |view: &SealedView| {
            let entry = view.file.entry;
            let left = u128::from(entry.bytes) * u128::from(view.live()) / u128::from(entry.rows.max(1));
            u64::try_from(left).unwrap_or(u64::MAX)
        };
        let left: u64 = inputs.iter().map(left).sum();
        let room = match left {
            0 => return true,
            left if left <= bytes / 2 => self.space.has_room_to_give(left),
            _ => self.space.missing(bytes).map(|missing| missing == 0),
        };
        // A disk that does not say how full it is will say so by an error of the merge.
        room.unwrap_or(true)
    }

    /// Brings every effect to disk. A full disk is waited for; any other failure ends the engine, because what the disk has
    /// of it is unknown and a second try would hide that. `step` names the place for a disk that fails there.
    pub(super) fn flush(&self, step: &'static str) -> Result<()> {
        let before = self.storage.background_errors();
        let result = self.components.files.around(step, || self.storage.flush());
        // A failure of this flush is known, and one before a flush that succeeds has no consequences; one after it is looked for.
        let failed = match result.is_ok() {
            true => before,
            false => self.storage.background_errors(),
        };
        self.counters.background_errors.store(failed, Ordering::Relaxed);
        self.space.flushed(result.as_ref().is_err_and(is_full));
        result.inspect_err(|error| self.stop_unless_full(error))
    }

    /// A copy of the database as files. RocksDB flushes for it, so a full disk is as bad as it is to [`Self::flush`].
    pub(super) fn checkpoint(&self, to: &Path) -> Result<()> {
        let made = self
            .components
            .files
            .around("checkpoint", || self.storage.checkpoint(to));
        match &made {
            Err(error) if is_full(error) => self.space.flushed(true),
            // Whether it was RocksDB that failed, after which nothing may be acknowledged, or a link: a flush knows.
            Err(_) => self.flush("flush after a failed checkpoint")?,
            Ok(()) => {}
        }
        made
    }

    fn stop_unless_full(&self, error: &Error) {
        if !is_full(error) && error.kind != ErrorKind::Cancelled {
            self.stop_for(error);
        }
    }

    /// Sealed segments become one.
    fn run_merge(&self, mut build: Build, claim: Claim<'_>, stop: &dyn Fn() -> bool) -> Result<()> {
        // Of files in which nothing lives nothing is copied, so that they may be damaged, too.
        for view in build.files.iter().filter(|view| view.live() > 0) {
            // A row is copied with new checksums: every byte is read again before, and what is damaged is left as it is.
            match view.file.read_again(&mut || check_stop(stop)) {
                Ok(segment) => build.inputs.push(view.with(segment)),
                Err(error) if error.kind == ErrorKind::Damaged => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        let build = &build;
        let output = match self.build(build, stop) {
            Ok(output) => output,
            Err(error) => return self.not_built(build, claim, error),
        };
        let is_damaged = |view: &SealedView| view.live() > 0 && view.file.damage().is_some();
        if build.files.iter().any(is_damaged) {
            // Found while it was copied from, perhaps by that.
            self.locked()?.trash.push(self.path_of(build, build.no));
            return Ok(());
        }
        let mut applier = self.locked()?;
        claim.end(&mut applier);
        let unwinding = StopOnUnwind {
            shared: self,
            answers: &[],
        };
        let Some(shard) = shard_of(&mut applier, build) else {
            self.leave_behind(&mut applier, build);
            std::mem::forget(unwinding);
            return Ok(());
        };
        let first = build.files[0].file.entry.no;
        let from = shard
            .sealed
            .iter()
            .position(|v| v.file.entry.no == first)
            .expect("only this merge removes its inputs");
        let to = from + build.files.len();
        let copied = build
            .files
            .iter()
            .zip(&shard.sealed[from..to])
            .filter(|(view, _)| view.live() > 0);
        let now: Vec<Arc<Dead>> = copied.map(|(_, now)| Arc::clone(&now.dead)).collect();
        let merged = output.map(|file| Shard::carry_deaths(&build.inputs, &now, file));
        shard.sealed.splice(from..to, merged.clone());
        let installed = self.install(&mut applier, build, merged.as_ref(), "merge manifest");
        std::mem::forget(unwinding);
        installed?;
        let old = build.files.iter().map(|view| self.path_of(build, view.file.entry.no));
        applier.trash.extend(old);
        drop(applier);
        self.counters.merges.fetch_add(1, Ordering::Relaxed);
        self.finished.ring();
        self.sweep()
    }

    /// Takes damaged files in which nothing lives out of their shards, as `maintain` would soon.
    pub(super) fn drop_lifeless(&self) -> Result<()> {
        loop {
            let claimed = {
                let mut applier = self.locked()?;
                let first = applier.states.iter().find_map(|(no, state)| {
                    let mut idle = state.shards.iter().zip(0..).filter(|(shard, _)| !shard.merging);
                    idle.find_map(|(shard, i)| {
                        let lifeless = |view: &SealedView| view.live() == 0 && view.file.damage().is_some();
                        let at = shard.sealed.iter().position(lifeless)?;
                        Some(((*no, ShardNo(i)), at))
                    })
                });
                first.and_then(|(place, at)| self.claim_merge(&mut applier, place, (at, at + 1)))
            };
            match claimed {
                Some((build, claim)) => self.run_merge(build, claim, &|| false)?,
                None => return Ok(()),
            }
        }
    }

    /// What is built for a collection that is dropped meanwhile may find its directory swept away: nobody misses the file.
    fn not_built(&self, build: &Build, claim: Claim<'_>, error: Error) -> Result<()> {
        if !build.collection.is_dropped() {
            // Whatever else can go wrong stops the engine, or is no fault of the build.
            if error.kind == ErrorKind::Internal && self.check_alive().is_ok() {
                let now_ms = self.components.clock.now_ms();
                self.failing.failed(claim.place, claim.kind(), &error.message, now_ms);
            }
            return Err(error);
        }
        let mut applier = self.locked()?;
        claim.end(&mut applier);
        self.leave_behind(&mut applier, build);
        Ok(())
    }

    /// The collection was dropped while a file was made for it, and its directory may have been removed before that file
    /// was written.
    fn leave_behind(&self, applier: &mut Applier, build: &Build) {
        applier
            .trash
            .push(files::collection_dir(&self.dir, build.collection.no));
        self.work.ring();
    }

    fn path_of(&self, build: &Build, segment: u64) -> PathBuf {
        files::segment_path(&self.dir, build.collection.no, build.shard, segment)
    }

    /// Makes one file of the live rows of some segments. None if no row lives. A panic (a bug, or one of a helping thread) is
    /// an error of this file only: nothing that readers or the manifest see has changed, so it may be tried again.
    fn build(&self, build: &Build, stop: &dyn Fn() -> bool) -> Result<Option<Sealed>> {
        let kept: Vec<Kept> = build.inputs.iter().map(Kept::live).collect();
        if kept.iter().all(|k| k.ordinals.is_empty()) {
            return Ok(None);
        }
        let path = self.path_of(build, build.no);
        let stop = || stop() || build.collection.is_dropped();
        let graphs = Graphs {
            rows_min: match build.graphs {
                true => self.settings.graph_rows_min,
                false => usize::MAX,
            },
            with_packs: self.settings.graph_packs,
            workers: &self.components.workers,
            stop: &stop,
        };
        let disk = &self.components.files;
        let sealed = catch_unwind(AssertUnwindSafe(|| {
            seal(&build.collection.spec(), &kept, disk, &path, build.no, &graphs)
        }));
        match sealed {
            Ok(Ok(sealed)) => {
                while self.keep_graph_in_memory(&sealed) > 0 {}
                Ok(Some(sealed))
            }
            Err(panic) => {
                let said = panic
                    .downcast_ref::<String>()
                    .map(String::as_str)
                    .or_else(|| panic.downcast_ref::<&str>().copied());
                let said = said.unwrap_or("it said nothing");
                Err(Error::internal(format!("a seal or merge panicked: {said}")))
            }
            Ok(Err(error)) => {
                if !build.collection.is_dropped() {
                    self.stop_unless_full(&error);
                }
                Err(error)
            }
        }
    }

    /// The manifest changes, together with everything that follows from it, in one batch; readers see it at once.
    fn install(
        &self,
        applier: &mut Applier,
        build: &Build,
        output: Option<&SealedView>,
        step: &'static str,
    ) -> Result<()> {
        let (no, shard_no) = (build.collection.no, build.shard);
        let result = (|| {
            let mut effects = Effects::new(&self.storage);
            let shard = &applier.states[&no].shards[shard_no.0 as usize];
            let segments = shard.sealed.iter().map(|v| v.file.entry).collect();
            effects.put(
                META,
                &key::meta(b'm', no, Some(shard_no)),
                &encode(&Manifest { segments })?,
            );
            effects.put(META, b"next_segment", &applier.next_segment.to_le_bytes());
            let sealed = build.files.iter().map(|v| (v.file.entry.first, v.file.entry.last));
            let grown = build.inputs.iter().filter_map(|v| v.segment.row_range());
            if let Some((first, last)) = sealed.chain(grown).reduce(|(a, b), (c, d)| (a.min(c), b.max(d))) {
                // Rows between this and the segment before it died before they were in any file.
                let before = shard.sealed.iter().map(|v| v.file.entry.last);
                let from = before
                    .filter(|row| *row < first)
                    .max()
                    .map_or(Row(0), |row| Row(row.0 + 1));
                let (from, to) = (key::row(no, shard_no, from), key::row(no, shard_no, Row(last.0 + 1)));
                effects.delete_range(ROWS, &from, &to);
                // Deaths of rows that are in no file any more are forgotten, which may be many: all are, and the few of rows
                // that died while the file was made are said again.
                effects.delete_range(DEATHS, &from, &to);
                if let Some(view) = output {
                    let identity = view.file.identity(Patience::endless())?;
                    for ordinal in view.dead.rows() {
                        let row = key::row(no, shard_no, identity.row_of(ordinal));
                        let death = self.storage.get(DEATHS, &row)?;
                        let death = death.ok_or_else(|| Error::internal("a dead row without a death"))?;
                        effects.put(DEATHS, &row, &death);
                    }
                }
            }
            self.write(step, effects)?;
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
        let result = self.flush("flush to sweep").and_then(|()| {
            let mut first = Ok(());
            trash.retain(|path| match self.components.files.remove(path) {
                Ok(()) => false,
                Err(error) => {
                    first = std::mem::replace(&mut first, Ok(())).and(Err(error.into()));
                    true
                }
            });
            first
        });
        let mut applier = self.locked()?;
        applier.sweep_failed = result.is_err();
        applier.trash.append(&mut trash);
        result
    }

    /// Forgets what the log holds only of rows that are sealed or dead, and has held for as long as it should.
    pub(super) fn flush_and_trim(&self) -> Result<()> {
        self.trim(Keep::Retained)
    }

    fn trim(&self, keep: Keep) -> Result<()> {
        // Effects up to here are on disk after the flush; later records stay.
        let applied = self.locked()?.applied;
        self.flush("flush to trim")?;
        let mut applier = self.locked()?;
        let applier = &mut *applier;
        let pin = pin(applier);
        let bound = self.holds.first().map_or(pin, |held| held.min(pin));
        let unneeded = bound.min(Seq(applied.0 + 1));
        let retained = applier
            .log
            .keep_from(self.components.clock.now_ms(), self.retention(applier))
            .filter(|kept| *kept < unneeded);
        let to = match keep {
            Keep::Retained => retained.unwrap_or(unneeded),
            Keep::OnlyNeeded => unneeded,
        };
        if to <= applier.log_start {
            return Ok(());
        }
        self.log.trim(applier.log_start, to)?;
        let log = &applier.log;
        if let (Keep::OnlyNeeded, Some(retained)) = (keep, retained) {
            let cut = log.below(to, applier.applied) - log.below(retained, applier.applied);
            self.counters.retention_cut.fetch_add(cut, Ordering::Relaxed);
            tracing::warn!(
                bytes = cut,
                from = retained.0,
                to = to.0,
                "the disk is nearly full: records of the log that were to be kept for restores to a point in time are gone"
            );
            applier.reclaim = Some(to);
        }
        applier.log_start = to;
        self.counters.log_start.store(to.0, Ordering::Relaxed);
        let mut effects = Effects::new(&self.storage);
        // After the trim: what is not counted may be gone, what is gone must not be counted.
        let from = applier.log.forget(to, applier.applied);
        effects.delete_range(META, &key::stretch(Seq(0)), &from);
        self.storage.write_effects(effects)?;
        let retained = applier.log.below(pin, applier.applied);
        self.tell_log(applier, pin, retained);
        Ok(())
    }

    /// Gives back the room of the records that a trim forgot because the disk is nearly full. Writers go on meanwhile: nobody
    /// comes to need a record that nobody needed.
    fn reclaim(&self) -> Result<()> {
        let Some(to) = self.locked()?.reclaim else {
            return Ok(());
        };
        // Tables go at once, and what made their records unneeded may have come since the flush before the trim.
        self.flush("flush to reclaim")?;
        self.storage
            .reclaim(LOG, &key::log(0, Seq(0)), &key::log(0, Seq(to.0 - 1)))
            .inspect_err(|error| self.stop_unless_full(error))?;
        self.locked()?.reclaim.take_if(|now| *now == to);
        Ok(())
    }

    /// How much of the log is kept that nobody needs. While points are in a damaged file, which a snapshot and the log after it
    /// could bring back, time takes nothing of it.
    fn retention(&self, applier: &Applier) -> Retention {
        let retention = Retention::from(&self.settings);
        let shards = applier.states.values().flat_map(|state| &state.shards);
        let mut sealed = shards.flat_map(|shard| &shard.sealed);
        match !retention.is_off() && sealed.any(|view| view.file.damage().is_some() && view.live() > 0) {
            true => retention.of_any_age(),
            false => retention,
        }
    }

    /// Close enough to the reserve that writers would be refused soon.
    fn is_nearly_full(&self) -> bool {
        // A disk that does not say how full it is refuses writes with that error.
        self.space.is_nearly_full().unwrap_or(false)
    }

    /// For metrics.
    fn tell_log(&self, applier: &Applier, pin: Seq, retained: u64) {
        let counters = &self.counters;
        counters.log_bytes.store(applier.log.bytes(), Ordering::Relaxed);
        counters.retained_bytes.store(retained, Ordering::Relaxed);
        self.space.keeps_log(retained > 0 && self.settings.log_retention_ms > 0);
        counters.log_needed.store(pin.0, Ordering::Relaxed);
        let oldest = applier.log.oldest_ms().unwrap_or(0);
        counters.log_oldest_ms.store(oldest, Ordering::Relaxed);
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
        self.write("rows from the log", effects)
            .inspect_err(|error| self.stop_for(error))?;
        shard.growing.iter_mut().for_each(|g| g.pins = None);
        drop(applier);
        self.flush_and_trim()
    }
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

/// A shard, unless its collection was dropped.
fn shard_at(applier: &mut Applier, place: Place) -> Result<&mut Shard> {
    let state = applier
        .states
        .get_mut(&place.0)
        .ok_or_else(|| Error::not_found("collection_not_found", "the collection was dropped meanwhile"))?;
    Ok(&mut state.shards[place.1.0 as usize])
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
            rows: u64::from(v.file.entry.rows),
            dead: v.dead.count(),
            damaged: v.file.damage().is_some(),
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
