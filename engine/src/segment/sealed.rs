//! A sealed file, as far as it is known: from what the manifest says of it, over which rows it has, to a segment that can be
//! searched.
//!
//! Opening looks at the tables of a file only. The rest is verified when it is asked for: [`Sealed::identity`] by writes,
//! [`Sealed::segment`] by searches, each with one read in the order of the file, which also brings it into the page cache.
//! Payloads, vectors and inverted lists are verified at first touch ([`Segment::verify_row`], [`crate::vector::Touch`]), and
//! [`Sealed::verify_some`] sees to everything in the background.
//!
//! A file that is missing, that cannot be read, or of which one block failed, is *damaged* for as long as the process lives, and
//! derived anew by the next: nothing is written about it, so there is nothing that a crash could leave half said. It stays in
//! its shard's list: its rows are known by the manifest, its dead ones by number, so that it can be answered without it, and
//! taken in again when the file is back. Nobody merges it, and nobody removes it.

use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::blocks::Blocks;
use super::identity::{self, Identity};
use super::{Dead, Segment, SegmentView};
use crate::error::{Error, ErrorKind, Result};
use crate::patience::Patience;
use crate::schema::Schema;
use crate::storage::Dir;
use crate::types::{Ordinal, Row, ShardNo};

/// How often who waits for another thread's verification looks whether its caller is still there.
const TURN_LOOK: Duration = Duration::from_millis(25);

/// What the manifest says of a sealed file: enough to do without it, and to know it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its number.
    pub no: u64,
    /// Its rows, dead ones included; never 0.
    pub rows: u32,
    /// The first row.
    pub first: Row,
    /// The last row.
    pub last: Row,
    /// Length of the file.
    pub bytes: u64,
    /// Checksum of its tables, and by them of all its bytes ([`Tables::crc`](super::file::Tables)).
    pub crc: u32,
}

/// A sealed file.
pub struct Sealed {
    /// What the manifest says of it.
    pub entry: Entry,
    schema: Arc<Schema>,
    blocks: Result<Arc<Blocks>>,
    identity: OnceLock<Arc<Identity>>,
    segment: OnceLock<Arc<Segment>>,
    /// Held by who verifies, so that a block is read once.
    turn: Mutex<()>,
    /// A row died of which nobody could say where it is: which of its rows live is not known from then on.
    is_unplaced: AtomicBool,
}

impl Sealed {
    /// Opens a file that a manifest names. Damage is not an error here: [`Self::damage`] says it.
    pub fn open(disk: &Arc<dyn Dir>, path: &Path, entry: Entry, schema: &Arc<Schema>) -> Result<Self> {
        let opened = Blocks::open(disk, path).and_then(|blocks| {
            let found = (blocks.bytes().len() as u64, blocks.tables().crc);
            let rows = blocks.section("rows").len() / 8;
            match found == (entry.bytes, entry.crc) && rows == entry.rows as usize {
                true => Ok(Arc::new(blocks)),
                false => Err(Error::damaged("it is not the file that the manifest names")),
            }
        });
        let said = |error: Error| Error {
            message: format!("{}: {}", path.display(), error.message),
            ..error
        };
        let blocks = match opened.map_err(said) {
            Err(error) if error.kind != ErrorKind::Damaged => return Err(error),
            opened => opened.inspect_err(|error| {
                tracing::error!(error = %error.message, "a sealed file is damaged: it is set aside");
            }),
        };
        Ok(Self {
            entry,
            schema: Arc::clone(schema),
            blocks,
            identity: OnceLock::new(),
            segment: OnceLock::new(),
            turn: Mutex::new(()),
            is_unplaced: AtomicBool::new(false),
        })
    }

    /// Opens a file that was just made, verifies all of it, and says what a manifest has to say of it.
    pub fn first(disk: &Arc<dyn Dir>, path: &Path, no: u64, schema: &Schema) -> Result<Self> {
        let blocks = Arc::new(Blocks::open(disk, path)?);
        blocks.verify_all(&[0..blocks.tables().end], &mut || Ok(()))?;
        let identity = Arc::new(Identity::read(Arc::clone(&blocks))?);
        let (first, last) = identity
            .row_range()
            .ok_or_else(|| Error::internal("a sealed file without rows"))?;
        let entry = Entry {
            no,
            rows: identity.rows(),
            first,
            last,
            bytes: blocks.bytes().len() as u64,
            crc: blocks.tables().crc,
        };
        let segment = Arc::new(Segment::read(Arc::clone(&identity), schema)?);
        Ok(Self {
            entry,
            schema: Arc::new(schema.clone()),
            blocks: Ok(blocks),
            identity: OnceLock::from(identity),
            segment: OnceLock::from(segment),
            turn: Mutex::new(()),
            is_unplaced: AtomicBool::new(false),
        })
    }

    /// What is wrong with the file, if anything was found yet.
    pub fn damage(&self) -> Option<&Error> {
        match &self.blocks {
            Ok(blocks) => blocks.damage(),
            Err(error) => Some(error),
        }
    }

    /// Every block was verified, and none failed.
    pub fn is_sound(&self) -> bool {
        self.segment.get().is_some()
            && self
                .blocks
                .as_ref()
                .is_ok_and(|blocks| blocks.is_verified() && blocks.damage().is_none())
    }

    /// Blocks, and those that were verified.
    pub fn progress(&self) -> (u64, u64) {
        self.blocks.as_ref().map_or((0, 0), |blocks| blocks.progress())
    }

    /// The ordinal of a row, if the file has it.
    pub fn ordinal_of(&self, row: Row) -> Result<Option<Ordinal>> {
        let Entry { rows, first, last, .. } = self.entry;
        if row < first || row > last {
            return Ok(None);
        }
        if last.0 - first.0 + 1 == u64::from(rows) {
            // No row is missing between them, so there is no need to look.
            return Ok(Some((row.0 - first.0) as Ordinal));
        }
        let blocks = self.blocks()?;
        let range = blocks.section("rows");
        blocks.verify(range.clone())?;
        let numbers: &[u64] = identity::cast(&blocks.bytes()[range])?;
        Ok(numbers.binary_search(&row.0).ok().map(|i| i as Ordinal))
    }

    /// Which rows it has, once that part of it is verified. Also of a file that is damaged elsewhere.
    pub fn identity(&self, patience: &Patience) -> Result<Arc<Identity>> {
        if let (true, Some(damage)) = (self.is_unplaced.load(Ordering::Acquire), self.damage()) {
            return Err(damage.clone());
        }
        self.made(&self.identity, patience, |blocks| {
            let ranges = identity::SECTIONS.map(|name| blocks.section(name));
            self.verify(blocks, ranges.into(), patience)?;
            Ok(Arc::new(Identity::read(Arc::clone(blocks))?))
        })
    }

    /// The segment, once all that a search looks at everywhere is verified. Also of a file in which damage was found later: who
    /// answers from it asks [`Self::damage`].
    pub fn segment(&self, patience: &Patience) -> Result<Arc<Segment>> {
        if let Some(segment) = self.segment.get() {
            return Ok(Arc::clone(segment));
        }
        let identity = self.identity(patience)?;
        self.made(&self.segment, patience, |blocks| {
            let sections = blocks.tables().sections.iter();
            let kinds = ["vector/", "halves/", "lists/"];
            let later = |name: &str| name == "payload" || kinds.iter().any(|kind| name.starts_with(kind));
            let searched = sections.filter(|(name, _)| !later(name));
            self.verify(blocks, searched.map(|(_, range)| range.clone()).collect(), patience)?;
            Ok(Arc::new(Segment::read(identity, &self.schema)?))
        })
    }

    /// The same of a file in which nothing was found wrong.
    pub fn sound(&self, patience: &Patience) -> Result<Arc<Segment>> {
        // Not read again for each question.
        if let Some(damage) = self.damage() {
            return Err(damage.clone());
        }
        let segment = self.segment(patience)?;
        match self.damage() {
            None => Ok(segment),
            Some(damage) => Err(damage.clone()),
        }
    }

    /// The segment, if somebody has asked for it before.
    pub fn if_made(&self) -> Option<&Arc<Segment>> {
        self.segment.get()
    }

    /// The segment, once every block is verified. `go_on` is asked between blocks.
    pub fn whole(&self, go_on: &mut dyn FnMut() -> Result<()>) -> Result<Arc<Segment>> {
        let blocks = self.blocks()?;
        blocks.verify_all(&[0..blocks.tables().end], go_on)?;
        self.sound(Patience::endless())
    }

    /// Verifies some bytes more of what nobody asked for yet. Returns how many; 0 when all are, or it is known to be damaged.
    pub fn verify_some(&self, bytes: usize) -> Result<usize> {
        match (&self.blocks, self.damage()) {
            (Ok(blocks), None) => blocks.verify_some(bytes),
            _ => Ok(0),
        }
    }

    /// Reads some blocks again, from `first` on: damage comes after files were verified, too. Returns the block after the last,
    /// none at the end, and how many bytes were read.
    pub fn check_again(&self, first: usize, bytes: usize) -> Result<(Option<usize>, usize)> {
        let (Ok(blocks), None) = (&self.blocks, self.damage()) else {
            return Ok((None, 0));
        };
        let (next, done) = blocks.check_again(first, bytes)?;
        Ok(((next < blocks.tables().blocks()).then_some(next), done))
    }

    /// The segment, once every block was read again, now: for who makes a copy of it. What was verified days ago may have rotted since.
    /// `go_on` is asked between blocks.
    pub fn read_again(&self, go_on: &mut dyn FnMut() -> Result<()>) -> Result<Arc<Segment>> {
        if let Some(damage) = self.damage() {
            return Err(damage.clone());
        }
        self.blocks()?.check_all_again(go_on)?;
        self.sound(Patience::endless())
    }

    /// Compares bytes that somebody else read of the file, from `at` on, with what they should be; `at` and the number of bytes are
    /// multiples of a block, but at the end of the file. What differs is damage of the file.
    pub fn check_read(&self, at: u64, bytes: &[u8]) -> Result<()> {
        let at = usize::try_from(at).map_err(|_| Error::internal("an offset beyond memory"))?;
        self.blocks()?.check_read(at, bytes)
    }

    fn blocks(&self) -> Result<&Arc<Blocks>> {
        self.blocks.as_ref().map_err(Clone::clone)
    }

    fn verify(&self, blocks: &Blocks, mut ranges: Vec<Range<usize>>, patience: &Patience) -> Result<()> {
        ranges.sort_unstable_by_key(|range| range.start);
        blocks.verify_all(&ranges, &mut || Ok(patience.check()?))
    }

    /// What is in the slot, made by one thread while others wait.
    fn made<T>(
        &self,
        slot: &OnceLock<Arc<T>>,
        patience: &Patience,
        make: impl FnOnce(&Arc<Blocks>) -> Result<Arc<T>>,
    ) -> Result<Arc<T>> {
        let turn = loop {
            if let Some(made) = slot.get() {
                return Ok(Arc::clone(made));
            }
            match self.turn.try_lock_for(patience.left().min(TURN_LOOK)) {
                Some(turn) => break turn,
                None => patience.check()?,
            }
        };
        if let Some(made) = slot.get() {
            return Ok(Arc::clone(made));
        }
        let blocks = self.blocks()?;
        let made = make(blocks).map_err(|error| match error.kind {
            // Sections that pass their checksums and contradict each other.
            ErrorKind::Damaged => blocks.condemn(error),
            _ => error,
        })?;
        drop(turn);
        Ok(Arc::clone(slot.get_or_init(|| made)))
    }
}

/// A sealed file and the rows of it that are dead, as of one moment.
#[derive(Clone)]
pub struct SealedView {
    /// The file.
    pub file: Arc<Sealed>,
    /// Those that are gone.
    pub dead: Arc<Dead>,
}

impl SealedView {
    /// A file none of whose rows is dead.
    pub fn fresh(file: Arc<Sealed>) -> Self {
        Self {
            file,
            dead: Arc::default(),
        }
    }

    /// Live rows.
    pub fn live(&self) -> u64 {
        u64::from(self.file.entry.rows).saturating_sub(self.dead.count())
    }

    /// With the segment, once it can be searched.
    pub fn with(&self, segment: Arc<Segment>) -> SegmentView {
        SegmentView {
            no: Some(self.file.entry.no),
            segment,
            dead: Arc::clone(&self.dead),
        }
    }

    /// Marks a row dead. False if there is no such live row.
    pub fn kill(&mut self, row: Row) -> bool {
        match self.file.ordinal_of(row) {
            Ok(Some(ordinal)) => {
                let segment = self.file.segment.get().cloned();
                Arc::make_mut(&mut self.dead).kill(segment.as_deref(), ordinal)
            }
            Ok(None) => false,
            // Which ordinal it has is not known, but `ids` has named it, so it is there. Whatever the reason, from now on the
            // file is not one of which every live row is known.
            Err(error) => {
                if let Ok(blocks) = &self.file.blocks {
                    blocks.condemn(error);
                }
                self.file.is_unplaced.store(true, Ordering::Release);
                Arc::make_mut(&mut self.dead).kill_unplaced(row)
            }
        }
    }

    /// What an answer without it lacks.
    pub fn missing(&self, shard: ShardNo) -> Missing {
        let Entry { no, first, last, .. } = self.file.entry;
        Missing {
            shard: shard.0,
            segment: no,
            points: self.live(),
            first_row: first.0,
            last_row: last.0,
            reason: self
                .file
                .damage()
                .map_or_else(String::new, |damage| damage.message.clone()),
        }
    }
}

/// A segment that an answer could not look into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// Its shard.
    pub shard: u32,
    /// Its number.
    pub segment: u64,
    /// Live points in it.
    pub points: u64,
    /// Its first row.
    pub first_row: u64,
    /// Its last row.
    pub last_row: u64,
    /// What is wrong with it.
    pub reason: String,
}

impl Missing {
    /// What a caller is told who did not say that a part of an answer will do.
    pub fn error(&self) -> Error {
        Error::new(
            ErrorKind::Damaged,
            "segment_damaged",
            format!(
                "the answer needs {}; bring the file back from a snapshot (cairn repair), or ask with allow_partial for an answer without \
                 these points",
                self.describe()
            ),
        )
    }

    /// Who works on a whole collection is told which.
    pub fn of(&self, collection: &str) -> Error {
        Error::new(
            ErrorKind::Damaged,
            "segment_damaged",
            format!(
                "collection {collection:?} has {}; bring the file back from a snapshot (cairn repair)",
                self.describe()
            ),
        )
    }

    /// Which segment, and what is wrong.
    pub fn describe(&self) -> String {
        format!(
            "segment {} of shard {} (rows {} to {}, {} live points), which is damaged and set aside: {}",
            self.segment, self.shard, self.first_row, self.last_row, self.points, self.reason
        )
    }
}
