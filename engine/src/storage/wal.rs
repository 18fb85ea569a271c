//! RocksDB's write-ahead log as bytes: what a crash may leave in it, what is cut off, and what is refused.
//!
//! RocksDB itself ends its replay quietly where a record is cut off, skips a stretch of zeros quietly, and refuses any other
//! bad record, even an unfinished write whose bytes reached the disk in the wrong order. [`mend`] looks first, and decides by
//! evidence. Every group of records carries a [`Mark`]: how far the log was known to be fsynced when the group was written. So
//! does the beginning of the log of each opening, before any record.
//! A readable group after a bad place whose mark lies beyond that place proves that what is bad had been acknowledged by the
//! disk: that is damage, and the directory is not opened. Without such a proof the bad place is the end of what was synced:
//! the log is cut there, the bytes are set aside and reported, and what is lost was never promised. A flip in the very last
//! group cannot be told from an unfinished write; it is cut and reported as well. A gap between two groups is looked into with the
//! tables: what is in neither was lost, and by the same evidence it is damage or the end.
//!
//! The format (RocksDB's `db/log_format.h`): blocks of 32 KiB hold physical records `masked CRC-32C | u16 length | type |
//! payload`, eleven bytes of header for recycled files (the log's number is the rest). A logical record is one physical one
//! or a chain first, middle..., last. Fewer than 7 bytes at the end of a block are zeros. The payload is a write batch:
//! u64 sequence, u32 count, then entries; ours begin with the mark as log data (tag 3), which RocksDB never applies.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::look::{Look, Prelude};
use super::{Dir, LOG, LocalDir, Storage, aside, current, key};
use crate::error::{Error, Result};
use crate::types::Seq;

#[cfg(test)]
mod tests;

const BLOCK: usize = 32 << 10;
const HEADER: usize = 7;
const RECYCLED_HEADER: usize = 11;
/// Of a write batch: sequence and count.
const BATCH_HEADER: usize = 12;
/// Tag of log data in a write batch.
const LOG_DATA: u8 = 3;
const MAGIC: &[u8; 4] = b"CWM1";
/// Bytes of a mark.
const MARK: usize = 52;
/// As much of a logical record as is looked at: its mark stands first.
const PREFIX: usize = BATCH_HEADER + 2 + MARK;

/// What a group of records says about the log before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    /// Sequence number of the group's first record.
    pub(crate) first: u64,
    /// Records in the group. None: an opening begins here.
    pub(crate) count: u64,
    /// Last sequence number that was known to be fsynced when the group was written.
    pub(crate) synced: u64,
    /// Groups written since then.
    pub(crate) unsynced_groups: u64,
    /// And their bytes.
    pub(crate) unsynced_bytes: u64,
    /// Of this run of the engine, at random: a payload that looks like a group does not know it.
    pub(crate) run: u64,
}

impl Mark {
    /// The bytes, for the beginning of a write batch.
    pub(crate) fn encode(&self) -> [u8; MARK] {
        let mut bytes = [0; MARK];
        bytes[..4].copy_from_slice(MAGIC);
        let numbers = [
            self.first,
            self.count,
            self.synced,
            self.unsynced_groups,
            self.unsynced_bytes,
            self.run,
        ];
        for (slot, number) in bytes[4..].chunks_exact_mut(8).zip(numbers) {
            slot.copy_from_slice(&number.to_le_bytes());
        }
        bytes
    }

    /// Of the first bytes of a logical record; none if they are not of a group of ours.
    fn decode(record: &[u8]) -> Option<Self> {
        let entry = record.get(BATCH_HEADER..PREFIX)?;
        if entry[0] != LOG_DATA || usize::from(entry[1]) != MARK || &entry[2..6] != MAGIC {
            return None;
        }
        let mut numbers = entry[6..]
            .chunks_exact(8)
            .filter_map(|bytes| bytes.try_into().ok().map(u64::from_le_bytes));
        Some(Self {
            first: numbers.next()?,
            count: numbers.next()?,
            synced: numbers.next()?,
            unsynced_groups: numbers.next()?,
            unsynced_bytes: numbers.next()?,
            run: numbers.next()?,
        })
    }
}

/// What was cut off at the end of the log when the directory was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dropped {
    /// The file that was cut.
    pub file: PathBuf,
    /// Where.
    pub at: u64,
    /// Bytes from there to the end of the log.
    pub bytes: u64,
    /// Readable groups of records among them, written after the last fsync.
    pub groups: u64,
    /// Where the bytes were copied to.
    pub kept_in: PathBuf,
}

/// What one step over a file finds.
pub(super) enum Step {
    /// A logical record that reads well: where it begins, and its first bytes.
    Record { at: u64, prefix: Vec<u8> },
    /// Bytes that do not belong to such a record.
    Bad { at: u64 },
}

/// Walks over the logical records of one file. RocksDB's manifests have the same form.
pub(super) struct Walk<R> {
    reader: R,
    number: u64,
    block: Vec<u8>,
    /// Offset of the block in the file.
    base: u64,
    at: usize,
    /// A record whose last fragment has not come yet.
    open: Option<(u64, Vec<u8>)>,
    /// Of the marks in this file, once one was read.
    run: Option<u64>,
    ended: bool,
}

impl<R: Read> Walk<R> {
    pub(super) fn new(reader: R, number: u64) -> Self {
        Self {
            reader,
            number,
            block: Vec::new(),
            base: 0,
            at: 0,
            open: None,
            run: None,
            ended: false,
        }
    }

    /// False at the end of the file.
    fn next_block(&mut self) -> io::Result<bool> {
        self.base += self.block.len() as u64;
        self.at = 0;
        self.block.clear();
        (&mut self.reader).take(BLOCK as u64).read_to_end(&mut self.block)?;
        Ok(!self.block.is_empty())
    }

    fn skip_block(&mut self) {
        self.at = self.block.len();
    }

    /// The next step; none at the end of the file.
    pub(super) fn step(&mut self) -> io::Result<Option<Step>> {
        while !self.ended {
            let rest = &self.block[self.at..];
            if rest.len() < HEADER {
                // The end of a whole block is padded with zeros; anything else here is a header that was cut off.
                let torn = rest.iter().any(|byte| *byte != 0) || (!rest.is_empty() && self.block.len() < BLOCK);
                let at = self.base + self.at as u64;
                if torn {
                    self.skip_block();
                    return Ok(Some(self.bad(at)));
                }
                if !self.next_block()? {
                    self.ended = true;
                    if let Some((at, _)) = self.open.take() {
                        return Ok(Some(Step::Bad { at }));
                    }
                }
                continue;
            }
            let at = self.base + self.at as u64;
            let Some((kind, payload, end)) = physical(rest, self.number) else {
                self.at = self.resumption();
                return Ok(Some(self.bad(at)));
            };
            let head = payload[..payload.len().min(PREFIX)].to_vec();
            if matches!(kind, Kind::Full | Kind::First)
                && let Some((unfinished, _)) = self.open.take()
            {
                // This one is read again after the bad place was told of.
                return Ok(Some(Step::Bad { at: unfinished }));
            }
            self.at += end;
            match kind {
                Kind::Full => return Ok(Some(self.record(at, head))),
                Kind::First => self.open = Some((at, head)),
                Kind::Middle | Kind::Last => match &mut self.open {
                    None => return Ok(Some(Step::Bad { at })),
                    Some((_, prefix)) => {
                        let wanted = PREFIX - prefix.len().min(PREFIX);
                        prefix.extend_from_slice(&head[..head.len().min(wanted)]);
                        if kind == Kind::Last
                            && let Some((at, prefix)) = self.open.take()
                        {
                            return Ok(Some(self.record(at, prefix)));
                        }
                    }
                },
                Kind::Other => {}
            }
        }
        Ok(None)
    }

    fn record(&mut self, at: u64, prefix: Vec<u8>) -> Step {
        let run = Mark::decode(&prefix).map(|mark| mark.run);
        self.run = self.run.or(run);
        Step::Record { at, prefix }
    }

    /// Where to go on in this block after the bad physical record at `self.at`: where its length says, if something reads
    /// well there; else at the next group of this file; else nowhere, as a wrong length would lead anywhere, even into a
    /// payload that looks like records.
    fn resumption(&self) -> usize {
        let rest = &self.block[self.at..];
        let stated = HEADER + usize::from(u16::from_le_bytes([rest[4], rest[5]]));
        if rest
            .get(stated..)
            .is_some_and(|bytes| physical(bytes, self.number).is_some())
        {
            return self.at + stated;
        }
        let group = |skip: &usize| {
            let bytes = &rest[*skip..];
            let mark = bytes.get(HEADER..).and_then(Mark::decode);
            mark.is_some_and(|mark| self.run.is_none_or(|run| run == mark.run))
                && physical(bytes, self.number).is_some()
        };
        (1..rest.len())
            .find(group)
            .map_or(self.block.len(), |skip| self.at + skip)
    }

    /// A bad place makes the record around it bad.
    fn bad(&mut self, at: u64) -> Step {
        let at = self.open.take().map_or(at, |(first, _)| first);
        Step::Bad { at }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Full,
    First,
    Middle,
    Last,
    /// Of RocksDB's own bookkeeping, such as compression; RocksDB decides about it.
    Other,
}

/// One physical record: kind, payload, and the bytes it takes. None if it does not read well.
fn physical(bytes: &[u8], number: u64) -> Option<(Kind, &[u8], usize)> {
    let stored = u32::from_le_bytes(bytes.get(..4)?.try_into().ok()?);
    let length = usize::from(u16::from_le_bytes(bytes.get(4..6)?.try_into().ok()?));
    let kind = *bytes.get(6)?;
    let recycled = matches!(kind, 5..=8 | 11 | 131);
    let header = if recycled { RECYCLED_HEADER } else { HEADER };
    let end = header + length;
    let covered = bytes.get(6..end)?;
    if kind == 0 || unmask(stored) != crc32c::crc32c(covered) {
        return None;
    }
    if recycled {
        // What a recycled file held before is nothing of this log.
        let of = u32::from_le_bytes(bytes[HEADER..RECYCLED_HEADER].try_into().ok()?);
        if u64::from(of) != number & u64::from(u32::MAX) {
            return None;
        }
    }
    let kind = match kind {
        1 | 5 => Kind::Full,
        2 | 6 => Kind::First,
        3 | 7 => Kind::Middle,
        4 | 8 => Kind::Last,
        _ => Kind::Other,
    };
    Some((kind, &bytes[header..end], end))
}

/// RocksDB stores checksums rotated and shifted, because a log may hold logs.
fn unmask(stored: u32) -> u32 {
    stored.wrapping_sub(0xa282_ead8).rotate_left(15)
}

/// The first bad place of the log, and what stands before it.
struct Place {
    file: usize,
    at: u64,
    /// Last sequence number before it, if the log says.
    last: Option<u64>,
}

/// Whether a group after a bad place proves that the place had been fsynced. `between` is the bytes from the one to the other.
fn proves(place: &Place, mark: Option<Mark>, between: u64) -> bool {
    // A group without a mark is not ours to explain away.
    let Some(mark) = mark else { return true };
    match place.last {
        Some(last) => mark.synced > last,
        // The log begins with the bad place. It had been synced in part if more bytes lie between than were unsynced, with
        // the headers and paddings that those took at most.
        None => {
            let overhead = 7 * mark.unsynced_groups + 13 * (between / BLOCK as u64 + 1);
            mark.unsynced_bytes.saturating_add(overhead) < between
        }
    }
}

/// A group that does not follow the one before it.
struct Gap {
    file: usize,
    at: u64,
    /// Last sequence number before it.
    last: u64,
    /// Its own first.
    first: u64,
    /// Last sequence number that it, or a group after it, says to be fsynced.
    synced: u64,
    /// Readable groups from it on.
    groups: u64,
}

/// What the logs show.
#[derive(Default)]
struct Looked {
    /// The place from which on they are not known to be fsynced, and how many readable groups follow it.
    bad: Option<(Place, u64)>,
    /// Before that place.
    gaps: Vec<Gap>,
}

/// Looks at every log of `db` and cuts off what a crash left unfinished, after it was copied to `aside`. Damage of what had
/// been synced is an error that names the file and the place. Nothing of a log that reads well is touched. What is left is on
/// disk when it returns.
pub(crate) fn mend(db: &Path, aside: &Path) -> Result<Option<Dropped>> {
    let logs = logs(db)?;
    let looked = look(&logs)?;
    let mut dropped = match &looked.bad {
        None => None,
        Some((place, groups)) => Some(cut(db, &logs, (place.file, place.at), *groups, aside)?),
    };
    let lost = match looked.gaps.is_empty() {
        true => None,
        false => lost_before(&Storage::open_read_only(db)?, &logs, looked.gaps)?,
    };
    if let Some(gap) = lost {
        // What was cut already came after it.
        let logs = self::logs(db)?;
        let more = cut(db, &logs, (gap.file, gap.at), gap.groups, aside)?;
        dropped = Some(match dropped {
            None => more,
            Some(first) => Dropped {
                bytes: first.bytes + more.bytes,
                groups: first.groups + more.groups,
                ..more
            },
        });
    }
    settle(db)?;
    Ok(dropped)
}

/// What [`mend`] would cut off, or its error. Nothing changes.
pub(crate) fn judge(db: &Path) -> Result<Option<Dropped>> {
    let logs = logs(db)?;
    let looked = look(&logs)?;
    let would = |(file, at): (usize, u64), groups| Dropped {
        file: logs[file].1.clone(),
        at,
        bytes: logs[file..].iter().map(|(_, _, len)| len).sum::<u64>() - at,
        groups,
        kept_in: PathBuf::new(),
    };
    let after = looked.bad.as_ref().map_or(0, |(_, groups)| *groups);
    let cut = looked.bad.map(|(place, groups)| would((place.file, place.at), groups));
    if looked.gaps.is_empty() {
        return Ok(cut);
    }
    // As it would be when a start looks into the gaps.
    let before = Prelude {
        cut: cut.clone(),
        put_back: current::judge(db)?,
        shortened: None,
    };
    let lost = lost_before(&Look::after(db, &before)?.storage, &logs, looked.gaps)?;
    Ok(lost.map(|gap| would((gap.file, gap.at), gap.groups + after)).or(cut))
}

fn look(logs: &[(u64, PathBuf, u64)]) -> Result<Looked> {
    let mut place: Option<Place> = None;
    let mut gaps: Vec<Gap> = Vec::new();
    let (mut last, mut groups, mut before) = (None, 0, 0);
    for (file, (number, path, _)) in logs.iter().enumerate() {
        let reader = io::BufReader::with_capacity(8 * BLOCK, File::open(path)?);
        let mut walk = Walk::new(reader, *number);
        while let Some(step) = walk.step()? {
            match (step, &place) {
                (Step::Bad { at }, None) => {
                    place = Some(Place { file, at, last });
                    before = at;
                }
                (Step::Bad { .. }, Some(_)) => {}
                (Step::Record { at, prefix }, None) => {
                    let Some(mark) = Mark::decode(&prefix) else { continue };
                    gaps.extend(
                        last.filter(|last: &u64| last.saturating_add(1) < mark.first)
                            .map(|last| Gap {
                                file,
                                at,
                                last,
                                first: mark.first,
                                synced: 0,
                                groups: 0,
                            }),
                    );
                    for gap in &mut gaps {
                        gap.synced = gap.synced.max(mark.synced);
                        gap.groups += 1;
                    }
                    last = Some(mark.first.saturating_add(mark.count).saturating_sub(1));
                }
                (Step::Record { at, prefix }, Some(bad)) => {
                    let between: u64 = logs[bad.file..file].iter().map(|(_, _, len)| len).sum::<u64>() + at - before;
                    if proves(bad, Mark::decode(&prefix), between) {
                        return Err(refusal(&logs[bad.file].1, bad.at, path, at));
                    }
                    // What it says of the log before the bad place is as true.
                    let synced = Mark::decode(&prefix).map_or(0, |mark| mark.synced);
                    gaps.iter_mut().for_each(|gap| gap.synced = gap.synced.max(synced));
                    groups += 1;
                }
            }
        }
    }
    Ok(Looked {
        bad: place.map(|place| (place, groups)),
        gaps,
    })
}

/// The first gap whose missing records are nowhere. Mostly they are in tables: RocksDB removes logs in any order when it needs them no
/// more, and what is left then has holes. But the end of a log that was just closed, exactly between two groups, may be lost with the
/// power while the next log is there, if nothing was fsynced in between: then what follows must go as well, for a hole is no suffix.
/// That they had been fsynced is damage.
fn lost_before(storage: &Storage, logs: &[(u64, PathBuf, u64)], gaps: Vec<Gap>) -> Result<Option<Gap>> {
    let applied = storage.applied()?;
    for gap in gaps {
        let there = gap.first - 1 <= applied || storage.get(LOG, &key::log(0, Seq(gap.first - 1)))?.is_some();
        if there {
            continue;
        }
        let path = &logs[gap.file].1;
        if gap.synced > gap.last.max(applied) {
            return Err(Error::damaged(format!(
                "the write-ahead log has records {} to {} nowhere, and what follows them in {} at byte {} shows that they had been \
                 written to disk safely. Opening would lose acknowledged writes silently, so this directory stays closed: restore it from a copy or a snapshot, and check the disk",
                gap.last + 1,
                gap.first - 1,
                path.display(),
                gap.at
            )));
        }
        return Ok(Some(gap));
    }
    Ok(None)
}

/// Has every log on disk, bytes and names, before RocksDB recovers from them. It flushes what they hold and removes them without
/// an fsync of either: a loss of power could bring back one of them torn, which no later group could explain. It also makes
/// true that what is read at an open is durable, whatever became of the append that wrote it.
fn settle(db: &Path) -> Result<()> {
    let logs = logs(db)?;
    for (_, path, _) in &logs {
        File::open(path)?.sync_all()?;
    }
    if !logs.is_empty() {
        LocalDir.sync_dir(db)?;
    }
    Ok(())
}

fn refusal(file: &Path, at: u64, later: &Path, later_at: u64) -> Error {
    Error::damaged(format!(
        "the write-ahead log {} is damaged at byte {at}: what stands there had been written to disk safely, as the records \
         at byte {later_at} of {} show. Opening would lose acknowledged writes silently, so this directory stays closed and \
         unchanged: restore it from a copy or a snapshot, and check the disk",
        file.display(),
        later.file_name().unwrap_or_default().display(),
    ))
}

/// The oldest log from a number on: its own, the mark that it begins with, and the number of the log after it.
pub(super) fn oldest(db: &Path, from: u64) -> Result<Option<(u64, Option<Mark>, Option<u64>)>> {
    let logs = logs(db)?;
    let mut logs = logs.iter().skip_while(|(number, ..)| *number < from);
    let Some((number, path, _)) = logs.next() else {
        return Ok(None);
    };
    let mut walk = Walk::new(io::BufReader::new(File::open(path)?), *number);
    let mark = match walk.step()? {
        Some(Step::Record { prefix, .. }) => Mark::decode(&prefix),
        _ => None,
    };
    Ok(Some((*number, mark, logs.next().map(|(number, ..)| *number))))
}

/// Number, path and length of each log, in order.
fn logs(db: &Path) -> Result<Vec<(u64, PathBuf, u64)>> {
    let mut logs = Vec::new();
    let entries = match fs::read_dir(db) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(logs),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let path = entry.path();
        let number = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
        if let (Some(number), Some("log")) = (number, path.extension().and_then(|e| e.to_str())) {
            logs.push((number, path, entry.metadata()?.len()));
        }
    }
    logs.sort_unstable();
    Ok(logs)
}

/// Copies what is cut off to `aside` first, so that a crash in between leaves everything as it was or nothing to do.
fn cut(
    db: &Path,
    logs: &[(u64, PathBuf, u64)],
    (first, from): (usize, u64),
    groups: u64,
    aside: &Path,
) -> Result<Dropped> {
    let pieces = logs.iter().enumerate().skip(first);
    let pieces = pieces.map(|(i, (_, path, _))| (path.as_path(), if i == first { from } else { 0 }));
    let dropped = Dropped {
        file: logs[first].1.clone(),
        at: from,
        bytes: aside::keep(pieces, aside)?,
        groups,
        kept_in: aside.to_owned(),
    };
    // Before it is done: whoever dies in the middle has said so.
    tracing::warn!(
        file = %dropped.file.display(),
        at = dropped.at,
        bytes = dropped.bytes,
        groups,
        kept_in = %aside.display(),
        "cutting off the end of the log, which was not known to be fsynced: an unfinished write, writes that were answered \
         with durability async within the window before a loss of power, or damage to the very last write"
    );
    // The last file first: a log must never have a hole in its middle.
    for (i, (_, path, _)) in logs.iter().enumerate().skip(first).rev() {
        if i == first {
            // Only when those behind it are gone for good: with one of them back, the cut would be a hole.
            LocalDir.sync_dir(db)?;
            let file = OpenOptions::new().write(true).open(path)?;
            file.set_len(from)?;
            file.sync_all()?;
        } else {
            fs::remove_file(path)?;
        }
    }
    LocalDir.sync_dir(db)?;
    aside::forget_oldest(aside);
    Ok(dropped)
}
