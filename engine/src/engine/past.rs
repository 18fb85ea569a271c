//! From one moment to a later one: the records between them are taken from a log that has them, and applied to a database
//! that ends where they begin.
//!
//! That database is what a snapshot brought ([`Engine::open_as_left`]); the log is a running engine's, or that of a later
//! snapshot. Records keep their numbers and go through the same append and apply as when they were written, so what comes out
//! is what the other database was after the last of them, requests and counters included.
//!
//! Guarantees: a record is applied only where it follows: its number is the next, and the hash that it carries of the record
//! before is that of the record there. So records of another database are never applied, nor those of one that parted from this:
//! by a loss of writes that were not fsynced, or because both were restored from one snapshot. A gap is refused. A token is
//! followed only by a log in which the write that answered with it is (`token_unknown`): records say which epoch wrote them.
//! Not guaranteed: anything about a database on which a replay failed; it is thrown away.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::Engine;
use super::commit::{Shared, weight};
use super::maintain::check_stop;
use super::recover::load_epochs;
use super::retention::Hold;
use crate::error::{Error, ErrorKind, Result};
use crate::limits;
use crate::log::{LocalLog, Log, Record, record};
use crate::storage::space::Room;
use crate::storage::{META, Storage, wal};
use crate::types::{Durability, Epochs, History, Identity, Seq, Token};

/// A log to take records from: up to the last that it had when this was made.
pub struct Past {
    log: Arc<dyn Log>,
    /// Which database it is of.
    pub identity: Identity,
    /// The first record, or the one that would follow the last.
    pub first: Seq,
    /// The last record that was applied.
    pub last: Token,
    /// Who wrote its records, those included that it does not hold any more.
    pub epochs: Arc<Epochs>,
    history: History,
    /// Keeps what is to be replayed from being trimmed.
    _hold: Option<Hold>,
}

/// How far to replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// To the record of this token, which is the last.
    Token(Token),
    /// To the last record before the first that was written after this time, in milliseconds since the Unix epoch. With a clock
    /// that is not set back: everything that was answered by then, and nothing that was asked for later.
    TimeMs(u64),
}

impl Until {
    fn is_before(self, seq: Seq, record: &Record) -> bool {
        match self {
            Self::Token(last) => seq > last.seq,
            Self::TimeMs(ms) => record.timestamp_ms > ms,
        }
    }
}

/// What a replay came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replayed {
    /// The last record of the database now.
    pub token: Token,
    /// Records that were applied.
    pub records: u64,
}

/// Records that wait to be applied together.
#[derive(Default)]
struct Group {
    records: Vec<Record>,
    encoded: Vec<Vec<u8>>,
    bytes: usize,
    /// What follows from them counted in.
    weight: usize,
    history: History,
}

impl Past {
    /// The log of a database that nobody has open: the `db` directory of a snapshot is enough.
    pub fn open(db: &Path) -> Result<Self> {
        wal::mend(db, &db.join("dropped-log"))?;
        let storage = Arc::new(Storage::open(db, true)?);
        let applied = storage.get(META, b"applied")?.unwrap_or_default();
        let history = storage.get(META, b"history")?.unwrap_or_default();
        let (Ok(applied), Ok(history)) = (<[u8; 8]>::try_from(&applied[..]), <[u8; 16]>::try_from(&history[..])) else {
            return Err(Error::damaged("meta: no last record"));
        };
        let last = Seq(u64::from_le_bytes(applied));
        let epochs = load_epochs(&storage)?;
        let log = Arc::new(LocalLog::new(Arc::clone(&storage), 0, Duration::MAX));
        Ok(Self {
            identity: storage.identity()?,
            first: log.first()?.unwrap_or(Seq(last.0 + 1)),
            last: epochs.token(last),
            epochs: Arc::new(epochs),
            history: History(history),
            _hold: None,
            log,
        })
    }

    /// What history the log has up to a record; none if it says nothing of that.
    pub fn history_at(&self, seq: Seq) -> Result<Option<History>> {
        let next = Seq(seq.0.saturating_add(1));
        if seq == self.last.seq {
            return Ok(Some(self.history));
        }
        if next < self.first || next > self.last.seq {
            return Ok(None);
        }
        let bytes = self.log.bytes(next)?;
        bytes
            .map(|bytes| Record::decode(&bytes).and_then(|_| record::before(&bytes)))
            .transpose()
    }
}

impl Engine {
    /// This engine's log as of now, to be asked what it holds. It may be trimmed later.
    pub fn past(&self) -> Result<Past> {
        self.past_held(None)
    }

    /// The same, to be replayed after the record `after`: as long as it is there, what follows that record is not trimmed.
    pub fn past_after(&self, after: Seq) -> Result<Past> {
        self.past_held(Some(Seq(after.0.saturating_add(1))))
    }

    fn past_held(&self, from: Option<Seq>) -> Result<Past> {
        let applier = self.shared.locked()?;
        let epochs = self.shared.epochs.load_full();
        Ok(Past {
            log: Arc::clone(&self.shared.log),
            identity: self.shared.identity,
            first: applier.log_start,
            last: epochs.token(applier.applied),
            epochs,
            history: applier.history,
            _hold: from.map(|from| self.shared.holds.hold(from)),
        })
    }

    /// Applies the records of `past` that follow this engine's last one, until `until`. Nobody else may write to this engine;
    /// it is to be thrown away if this fails. `progress` gets 0 to 1; once `stop` says true it ends as `Cancelled`.
    pub fn replay(
        &self,
        past: &Past,
        until: Until,
        stop: &dyn Fn() -> bool,
        progress: &mut dyn FnMut(f32),
    ) -> Result<Replayed> {
        let shared = &self.shared;
        if past.identity != shared.identity {
            return Err(diverged("the log is of another database"));
        }
        let begin = self.applied().seq;
        let history = shared.locked()?.history;
        match past.history_at(begin)? {
            Some(there) if there == history => {}
            Some(_) => return Err(diverged("the log parted from what is there before its end")),
            None => return Err(gap(Seq(begin.0 + 1), past.first)),
        }
        let end = match until {
            Until::Token(last) if past.epochs.knows(last, past.last.seq) => last.seq,
            Until::Token(last) => {
                let why = format!("no write in the log up to {} answered with {last}", past.last);
                return Err(token_unknown(&why));
            }
            Until::TimeMs(_) => past.last.seq,
        };
        if end < begin {
            let why = format!("record {} is before what is there, {}", end.0, begin.0);
            return Err(Error::not_found("moment_not_restorable", why));
        }
        let all = end.0.saturating_sub(begin.0).max(1) as f32;
        let mut group = Group {
            history,
            ..Group::default()
        };
        let (mut next, mut is_reached) = (Seq(begin.0 + 1), false);
        // One look at the log for all: what is trimmed meanwhile stays visible to it.
        past.log.scan(next, &mut |seq, bytes| {
            check_stop(stop)?;
            if seq > end {
                return Ok(false);
            }
            let record =
                Record::decode(bytes).map_err(|e| Error::damaged(format!("log record {}: {}", seq.0, e.message)))?;
            if seq != next {
                return Err(gap(next, seq));
            }
            if record::before(bytes)? != group.history {
                return Err(diverged(&format!(
                    "record {} does not follow what is there: the histories parted before it",
                    seq.0
                )));
            }
            if until.is_before(seq, &record) {
                is_reached = true;
                return Ok(false);
            }
            group.history = record::hash(bytes);
            group.bytes += bytes.len();
            group.weight += weight(&record, bytes.len());
            group.records.push(record);
            group.encoded.push(bytes.to_vec());
            next = Seq(seq.0 + 1);
            if group.weight >= limits::GROUP_COMMIT_BYTES_MAX || group.records.len() == limits::GROUP_COMMIT_RECORDS_MAX
            {
                group.apply(shared)?;
                progress((next.0 - 1 - begin.0) as f32 / all);
            }
            Ok(true)
        })?;
        group.apply(shared)?;
        if !is_reached && next.0 != end.0 + 1 {
            return Err(gap(next, end));
        }
        shared.sync()?;
        shared.flush("flush of a replay")?;
        progress(1.0);
        Ok(Replayed {
            token: self.applied(),
            records: next.0 - 1 - begin.0,
        })
    }
}

impl Group {
    fn apply(&mut self, shared: &Shared) -> Result<()> {
        if self.records.is_empty() {
            return Ok(());
        }
        shared.space.check(self.bytes as u64, Room::Takes)?;
        {
            let mut applier = shared.locked()?;
            let encoded = std::mem::take(&mut self.encoded);
            shared
                .append(&mut applier, &self.records, encoded, self.history, Durability::Async)
                .inspect_err(|error| shared.stop_for(error))?;
        }
        self.records.clear();
        self.bytes = 0;
        // Nobody seals meanwhile.
        shared.shrink()
    }
}

fn diverged(why: &str) -> Error {
    Error::new(
        ErrorKind::Conflict,
        "history_diverged",
        format!("{why}; nothing of it was applied"),
    )
}

/// A token of another history.
pub(super) fn token_unknown(why: &str) -> Error {
    Error::new(ErrorKind::Conflict, "token_unknown", why)
}

fn gap(wanted: Seq, found: Seq) -> Error {
    Error::not_found(
        "moment_not_restorable",
        format!(
            "the log does not hold the records from {} to {} any more",
            wanted.0, found.0
        ),
    )
}

impl std::fmt::Debug for Past {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Past")
            .field("first", &self.first)
            .field("last", &self.last)
            .finish_non_exhaustive()
    }
}
