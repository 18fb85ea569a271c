//! RocksDB as we use it: which column families there are, how their keys are spelled, and what is synced.
//!
//! Two rules keep crashes simple. Records enter `log` in one batch with WAL and fsync: that is durability. Everything else
//! (`ids`, `rows`, `deaths`, `docs`, `requests`, `meta`) is an *effect* of records, written without WAL in one batch per group commit
//! together with the applied sequence number; `atomic_flush` makes all column families reach disk at one point, so after a
//! crash the effects are those of some prefix of the log, and the rest is replayed.
//!
//! Keys begin with collection and shard numbers, big-endian, so that one collection is one range.

mod aside;
pub(crate) mod current;
mod dir;
#[cfg(test)]
pub mod faulty;
pub mod files;
pub(crate) mod look;
pub(crate) mod manifest;
mod resident;
pub mod space;
pub(crate) mod wal;

use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::sync::Arc;

use rocksdb::checkpoint::Checkpoint;
use rocksdb::{
    ColumnFamilyDescriptor, DBWithThreadMode, FlushOptions, MultiThreaded, Options, WriteBatch, WriteOptions,
};

pub use dir::{Backing, Dir, Entry, FileId, Held, LocalDir, NewFile, ReadAt};
pub use resident::Resident;

use crate::error::{Error, Result};
use crate::types::{CollectionNo, Identity, PointId, Row, Seq, ShardNo};

/// Format version of the data directory. One of the version before is opened, and is of this one from then on; any other is
/// refused.
pub const FORMAT_VERSION: u32 = 3;
/// The version before: its records have no epoch.
pub const FORMAT_VERSION_BEFORE: u32 = 2;

/// Records by (group, seq).
pub const LOG: &str = "log";
/// Where to find the content of a row that is not sealed yet.
pub const ROWS: &str = "rows";
/// Point id -> live row.
pub const IDS: &str = "ids";
/// Dead row -> the sequence number that killed it.
pub const DEATHS: &str = "deaths";
/// Documents by id.
pub const DOCS: &str = "docs";
/// Requests that were done, by id, and their order.
pub const REQUESTS: &str = "requests";
/// Format, applied sequence number, collections, shard counters, manifests.
pub const META: &str = "meta";

const FAMILIES: [&str; 7] = [LOG, ROWS, IDS, DEATHS, DOCS, REQUESTS, META];

type Rocks = DBWithThreadMode<MultiThreaded>;

/// The one RocksDB of a log group.
pub struct Storage {
    db: Rocks,
    /// Of this opening, at random: what its marks in the log carry.
    run: u64,
    #[cfg(test)]
    pub(crate) faults: Faults,
}

/// Failures that tests order.
#[cfg(test)]
#[derive(Default)]
pub(crate) struct Faults {
    /// The next fsync of the log fails, after the bytes were written.
    pub(crate) sync: std::sync::atomic::AtomicBool,
    /// Flushes fail as on a full disk.
    pub(crate) full: std::sync::atomic::AtomicBool,
    /// Flushes that RocksDB began by itself and that failed.
    pub(crate) background: std::sync::atomic::AtomicU64,
}

/// How much memory RocksDB may take.
struct Budget {
    /// Of everything that is not flushed yet; one flush covers all families, so the log's size decides.
    unflushed: usize,
    /// Of one family's part of that.
    unflushed_family: usize,
    /// Of the log's files: what a restart reads at most.
    wal: u64,
    /// Of blocks that were read, in all families together.
    cache: usize,
    open_files: i32,
}

impl Budget {
    fn new(low_memory: bool) -> Self {
        match low_memory {
            false => Self {
                unflushed: 96 << 20,
                unflushed_family: 64 << 20,
                wal: 256 << 20,
                cache: 64 << 20,
                open_files: 512,
            },
            true => Self {
                unflushed: 12 << 20,
                unflushed_family: 8 << 20,
                wal: 32 << 20,
                cache: 4 << 20,
                open_files: 64,
            },
        }
    }
}

impl Storage {
    /// Opens or creates it. `current::mend`, `wal::mend` and `manifest::mend` come before.
    pub fn open(path: &Path, low_memory: bool) -> Result<Self> {
        let budget = Budget::new(low_memory);
        let mut options = Self::options(&budget);
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        let db = Rocks::open_cf_descriptors(&options, path, Self::families(&budget))?;
        let storage = Self {
            db,
            run: random(),
            #[cfg(test)]
            faults: Faults::default(),
        };
        storage.begin_log(storage.format()?)?;
        // What RocksDB removed in the end, the manifest before above all, is gone for good: see `current`.
        LocalDir.sync_dir(path)?;
        Ok(storage)
    }

    /// Opens what is there, to be read; nothing in the directory changes. What the log holds beyond the tables is read too.
    pub(crate) fn open_read_only(path: &Path) -> Result<Self> {
        let budget = Budget::new(true);
        let db = Rocks::open_cf_descriptors_read_only(&Self::options(&budget), path, Self::families(&budget), false)?;
        let storage = Self {
            db,
            run: random(),
            #[cfg(test)]
            faults: Faults::default(),
        };
        match storage.format()? {
            Some(_) => Ok(storage),
            None => Err(Error::damaged(
                "the database does not say its format: it is not ours, or was never used",
            )),
        }
    }

    fn options(budget: &Budget) -> Options {
        let mut options = Options::default();
        options.set_atomic_flush(true);
        options.set_paranoid_checks(true);
        // A record that was cut off is what a crash leaves; `wal::mend` has decided about anything else, and RocksDB must not
        // (docs/format.md). A recycled file would end in old records, which this mode takes for the end.
        options.set_wal_recovery_mode(rocksdb::DBRecoveryMode::TolerateCorruptedTailRecords);
        options.set_recycle_log_file_num(0);
        // A closed log that is missing or shorter than it was refuses to open.
        options.set_track_and_verify_wals_in_manifest(true);
        options.set_max_total_wal_size(budget.wal);
        options.set_max_background_jobs(2);
        // RocksDB's own messages, not our log: four files of at most 8 MiB.
        options.set_keep_log_file_num(4);
        options.set_max_log_file_size(8 << 20);
        // A manifest has a few KiB, and each open makes one or two: the default sets 4 MiB aside for each.
        options.set_manifest_preallocation_size(64 << 10);
        options.set_max_open_files(budget.open_files);
        // It starts this many for each family at each open, however few files there are: the default of 16 costs more than
        // it saves.
        options.set_max_file_opening_threads(1);
        options.set_db_write_buffer_size(budget.unflushed);
        options
    }

    fn families(budget: &Budget) -> Vec<ColumnFamilyDescriptor> {
        let cache = rocksdb::Cache::new_lru_cache(budget.cache);
        let family = |name: &&str| {
            let name = *name;
            let mut family = Options::default();
            family.set_write_buffer_size(budget.unflushed_family);
            family.set_compression_type(rocksdb::DBCompressionType::Lz4);
            let mut table = rocksdb::BlockBasedOptions::default();
            table.set_format_version(5);
            table.set_block_cache(&cache);
            if name == IDS || name == DOCS || name == REQUESTS {
                table.set_bloom_filter(10.0, false);
            }
            family.set_block_based_table_factory(&table);
            ColumnFamilyDescriptor::new(name, family)
        };
        FAMILIES.iter().map(family).collect()
    }

    /// The format that the database says; none: it is new. Another than those that this build reads is refused.
    fn format(&self) -> Result<Option<u32>> {
        let Some(bytes) = self.get(META, b"format")? else {
            return Ok(None);
        };
        let known = [FORMAT_VERSION_BEFORE, FORMAT_VERSION];
        let found = known.into_iter().find(|known| bytes == known.to_le_bytes());
        found.map(Some).ok_or_else(|| {
            Error::damaged(format!(
                "the data directory has format {bytes:?}, this build reads only {FORMAT_VERSION_BEFORE} and {FORMAT_VERSION}; use the build that wrote it"
            ))
        })
    }

    /// Has the log of this opening begin with a mark, and says the format if it was another. By the mark, what a crash leaves of RocksDB's
    /// manifest before the first flush can be told from damage: see `manifest`.
    fn begin_log(&self, format: Option<u32>) -> Result<()> {
        let last = self.last_record()?;
        let mut batch = Effects::new(self);
        // RocksDB has brought everything it found to disk.
        batch.mark(&wal::Mark {
            first: last.saturating_add(1),
            count: 0,
            synced: last,
            unsynced_groups: 0,
            unsynced_bytes: 0,
            run: self.run,
        });
        if format.is_none() {
            batch.put(META, b"identity", &[random(), random()].map(u64::to_le_bytes).concat());
        }
        if format != Some(FORMAT_VERSION) {
            batch.put(META, b"format", &FORMAT_VERSION.to_le_bytes());
        }
        self.append(batch, true)
    }

    /// The last record that was applied or is in the log; 0 before the first.
    fn last_record(&self) -> Result<u64> {
        let logged = self.last_key(LOG, &0_u32.to_be_bytes())?;
        let logged = logged.and_then(|key| key.get(4..)?.try_into().ok());
        Ok(self.applied()?.max(logged.map_or(0, u64::from_be_bytes)))
    }

    /// The last record whose effects are there; 0 before the first.
    pub(super) fn applied(&self) -> Result<u64> {
        let applied = self.get(META, b"applied")?.unwrap_or_default();
        Ok(applied.try_into().map_or(0, u64::from_le_bytes))
    }

    /// At random, of this opening: what tells groups of its log from payloads that look like groups.
    pub(crate) fn run(&self) -> u64 {
        self.run
    }

    /// Which database this is.
    pub fn identity(&self) -> Result<Identity> {
        let bytes = self.get(META, b"identity")?.unwrap_or_default();
        let bytes = <[u8; 16]>::try_from(&bytes[..]);
        bytes.map(Identity).map_err(|_| Error::damaged("meta: identity"))
    }

    fn family(&self, name: &str) -> Arc<rocksdb::BoundColumnFamily<'_>> {
        self.db.cf_handle(name).expect("every family is created at open")
    }

    /// One value.
    pub fn get(&self, family: &str, key: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.db.get_cf(&self.family(family), key)?)
    }

    /// Calls `each` for every entry whose key has the prefix, in order, from `from` (inclusive) on, until it returns false.
    pub fn scan(
        &self,
        family: &str,
        prefix: &[u8],
        from: &[u8],
        mut each: impl FnMut(&[u8], &[u8]) -> Result<bool>,
    ) -> Result<()> {
        let start = if from > prefix { from } else { prefix };
        let mode = rocksdb::IteratorMode::From(start, rocksdb::Direction::Forward);
        for entry in self.db.iterator_cf(&self.family(family), mode) {
            let (key, value) = entry?;
            if !key.starts_with(prefix) || !each(&key, &value)? {
                break;
            }
        }
        Ok(())
    }

    /// The same of all of a family's entries with a prefix, from disk and with checksums, past the cache.
    pub(crate) fn scan_checked(
        &self,
        family: &str,
        prefix: &[u8],
        mut each: impl FnMut(&[u8], &[u8]) -> Result<bool>,
    ) -> Result<()> {
        let mode = rocksdb::IteratorMode::From(prefix, rocksdb::Direction::Forward);
        for entry in self.db.iterator_cf_opt(&self.family(family), uncached(), mode) {
            let (key, value) = entry?;
            if !key.starts_with(prefix) || !each(&key, &value)? {
                break;
            }
        }
        Ok(())
    }

    /// Reads about `bytes` of a family (by its place in the list) from a key on, from disk and with checksums, past the cache.
    /// Returns how many, and where to go on: none after the last family.
    pub(crate) fn read_again(
        &self,
        family: usize,
        from: &[u8],
        bytes: usize,
    ) -> Result<(usize, Option<(usize, Vec<u8>)>)> {
        let Some(name) = FAMILIES.get(family) else {
            return Ok((0, None));
        };
        let mode = rocksdb::IteratorMode::From(from, rocksdb::Direction::Forward);
        let mut done = 0;
        for entry in self.db.iterator_cf_opt(&self.family(name), uncached(), mode) {
            let (key, value) = entry?;
            if done >= bytes {
                return Ok((done, Some((family, key.into_vec()))));
            }
            done += key.len() + value.len();
        }
        Ok((done, after_family(family)))
    }

    /// The last key of a family that has the prefix.
    pub fn last_key(&self, family: &str, prefix: &[u8]) -> Result<Option<Vec<u8>>> {
        let mut past = prefix.to_vec();
        past.extend_from_slice(&[0xff; 9]);
        let mode = rocksdb::IteratorMode::From(&past, rocksdb::Direction::Reverse);
        match self.db.iterator_cf(&self.family(family), mode).next() {
            None => Ok(None),
            Some(entry) => {
                let (key, _) = entry?;
                Ok(key.starts_with(prefix).then(|| key.into_vec()))
            }
        }
    }

    /// Writes records: one batch, WAL, and an fsync of all that was written so far if `sync`.
    pub(crate) fn append(&self, batch: Effects<'_>, sync: bool) -> Result<()> {
        let mut options = WriteOptions::default();
        options.set_sync(sync);
        self.db.write_opt(batch.batch, &options)?;
        match sync {
            true => self.injected_sync_fault(),
            false => Ok(()),
        }
    }

    /// Fsyncs every record that was written so far.
    pub(crate) fn sync(&self) -> Result<()> {
        self.injected_sync_fault()?;
        Ok(self.db.flush_wal(true)?)
    }

    #[cfg(test)]
    fn injected_sync_fault(&self) -> Result<()> {
        match self.faults.sync.swap(false, std::sync::atomic::Ordering::Relaxed) {
            true => Err(Error::internal(
                "rocksdb: IO error: While fdatasync: Input/output error",
            )),
            false => Ok(()),
        }
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "the tests' version looks")]
    fn injected_sync_fault(&self) -> Result<()> {
        Ok(())
    }

    /// Writes effects: one batch, no WAL (see the module doc).
    pub fn write_effects(&self, batch: Effects<'_>) -> Result<()> {
        let mut options = WriteOptions::default();
        options.disable_wal(true);
        Ok(self.db.write_opt(batch.batch, &options)?)
    }

    /// Gives back the room of keys in `from..=last` that were removed, instead of waiting until RocksDB does it. Whole tables go
    /// at once and for good, so what makes the keys unneeded must be on disk before. The last key is one of them: RocksDB takes
    /// a table that ends with it.
    pub(crate) fn reclaim(&self, family_name: &str, from: &[u8], last: &[u8]) -> Result<()> {
        let family = self.family(family_name);
        // A table that goes may hold what hides keys of one that stays: what hides them from now on goes to disk before, into a table of
        // the first level, of which none goes.
        let mut effects = Effects::new(self);
        effects.delete_range(family_name, from, &[last, &[0]].concat());
        self.write_effects(effects)?;
        self.flush()?;
        // Whole tables go without a byte being written; what shares a table with others is written anew without them.
        self.db.delete_file_in_range_cf(&family, from, last)?;
        self.db.compact_range_cf(&family, Some(from), Some(last));
        Ok(())
    }

    /// Brings all tables of a family into one level, of which [`Self::reclaim`] takes them.
    #[cfg(test)]
    pub(crate) fn compact(&self, family: &str) {
        self.db
            .compact_range_cf(&self.family(family), None::<&[u8]>, None::<&[u8]>);
    }

    /// The oldest log that may hold what is in no table, as far as the manifest says. 0: it does not.
    pub(super) fn first_log(&self) -> Result<u64> {
        let number = self.db.property_int_value("rocksdb.min-log-number-to-keep")?;
        number.ok_or_else(|| Error::internal("RocksDB does not tell its oldest log"))
    }

    /// Whether every table is in `db`, as long as the manifest says. An open looks at some of them only.
    pub(super) fn tables_there(&self, db: &Path) -> Result<bool> {
        for table in self.db.live_files()? {
            match std::fs::metadata(db.join(table.name.trim_start_matches('/'))) {
                Ok(found) if found.len() == table.size as u64 => {}
                Ok(_) => return Ok(false),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }

    /// Brings every effect written so far to disk, all families at one point.
    pub fn flush(&self) -> Result<()> {
        #[cfg(test)]
        if self.faults.full.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(Error::disk_full("rocksdb: IO error: No space left on device"));
        }
        let handles: Vec<_> = FAMILIES.iter().map(|name| self.family(name)).collect();
        let refs: Vec<_> = handles.iter().collect();
        let mut options = FlushOptions::default();
        options.set_wait(true);
        Ok(self.db.flush_cfs_opt(&refs, &options)?)
    }

    /// How many flushes and compactions failed that RocksDB began by itself. After one it may refuse every write, until a flush
    /// succeeds.
    pub(crate) fn background_errors(&self) -> u64 {
        let counted = self.db.property_int_value(rocksdb::properties::BACKGROUND_ERRORS);
        let counted = counted.ok().flatten().unwrap_or(0);
        #[cfg(test)]
        let counted = counted + self.faults.background.load(std::sync::atomic::Ordering::Relaxed);
        counted
    }

    /// Makes a copy of the database as of now in the new directory `to`, on the same file system: tables are hard links. It
    /// flushes first, or the effects that are only in memory would be missing from the copy.
    pub(crate) fn checkpoint(&self, to: &Path) -> Result<()> {
        Ok(Checkpoint::new(&self.db)?.create_checkpoint(to)?)
    }
}

/// 64 random bits. The engine has no other use for them than names that nobody else has.
pub(crate) fn random() -> u64 {
    RandomState::new().hash_one(())
}

/// How what is looked at once is read.
fn uncached() -> rocksdb::ReadOptions {
    let mut options = rocksdb::ReadOptions::default();
    options.set_verify_checksums(true);
    options.fill_cache(false);
    options
}

/// Where [`Storage::read_again`] goes on after a family.
pub(crate) fn after_family(family: usize) -> Option<(usize, Vec<u8>)> {
    (family + 1 < FAMILIES.len()).then(|| (family + 1, Vec::new()))
}

/// A batch under construction.
pub struct Effects<'a> {
    storage: &'a Storage,
    batch: WriteBatch,
}

impl<'a> Effects<'a> {
    /// An empty batch.
    pub fn new(storage: &'a Storage) -> Self {
        Self {
            storage,
            batch: WriteBatch::default(),
        }
    }
    /// Says first what a group of records says of the log before it.
    pub(crate) fn mark(&mut self, mark: &wal::Mark) {
        self.batch.put_log_data(mark.encode());
    }
    /// Sets a key.
    pub fn put(&mut self, family: &str, key: &[u8], value: &[u8]) {
        self.batch.put_cf(&self.storage.family(family), key, value);
    }
    /// Removes a key.
    pub fn delete(&mut self, family: &str, key: &[u8]) {
        self.batch.delete_cf(&self.storage.family(family), key);
    }
    /// Removes all keys in `from..to`.
    pub fn delete_range(&mut self, family: &str, from: &[u8], to: &[u8]) {
        self.batch.delete_range_cf(&self.storage.family(family), from, to);
    }
    /// Bytes so far.
    pub fn bytes(&self) -> usize {
        self.batch.size_in_bytes()
    }
}

/// How keys are spelled.
pub mod key {
    use super::{CollectionNo, PointId, Row, Seq, ShardNo};

    /// `log`: group, seq.
    pub fn log(group: u32, seq: Seq) -> [u8; 12] {
        let mut key = [0; 12];
        key[..4].copy_from_slice(&group.to_be_bytes());
        key[4..].copy_from_slice(&seq.0.to_be_bytes());
        key
    }
    /// Start of everything of a collection.
    pub fn collection(no: CollectionNo) -> [u8; 4] {
        no.0.to_be_bytes()
    }
    /// Start of everything of a shard.
    pub fn shard(no: CollectionNo, shard: ShardNo) -> [u8; 8] {
        let mut key = [0; 8];
        key[..4].copy_from_slice(&no.0.to_be_bytes());
        key[4..].copy_from_slice(&shard.0.to_be_bytes());
        key
    }
    /// `ids` and `docs`: collection, shard, id.
    pub fn id(no: CollectionNo, shard_no: ShardNo, id: &PointId) -> Vec<u8> {
        let mut key = shard(no, shard_no).to_vec();
        key.extend_from_slice(id.as_str().as_bytes());
        key
    }
    /// `rows` and `deaths`: collection, shard, row.
    pub fn row(no: CollectionNo, shard_no: ShardNo, row: Row) -> [u8; 16] {
        let mut key = [0; 16];
        key[..8].copy_from_slice(&shard(no, shard_no));
        key[8..].copy_from_slice(&row.0.to_be_bytes());
        key
    }
    /// `meta`: a letter, then collection (and shard).
    pub fn meta(letter: u8, no: CollectionNo, shard_no: Option<ShardNo>) -> Vec<u8> {
        let mut key = vec![letter];
        key.extend_from_slice(&no.0.to_be_bytes());
        if let Some(shard_no) = shard_no {
            key.extend_from_slice(&shard_no.0.to_be_bytes());
        }
        key
    }
    /// `meta`: a stretch of the log by its first record.
    pub fn stretch(first: Seq) -> [u8; 9] {
        let mut key = [b'l'; 9];
        key[1..].copy_from_slice(&first.0.to_be_bytes());
        key
    }
    /// `requests`: a request by its id and part.
    pub fn request(id: &str, part: u32) -> Vec<u8> {
        let mut key = vec![b'i'];
        key.extend_from_slice(&part.to_be_bytes());
        key.extend_from_slice(id.as_bytes());
        key
    }
    /// `requests`: the order in which they were done.
    pub fn request_order(seq: Seq) -> [u8; 9] {
        let mut key = [b's'; 9];
        key[1..].copy_from_slice(&seq.0.to_be_bytes());
        key
    }
    /// Splits a `rows` or `deaths` key.
    pub fn parse_row(key: &[u8]) -> Option<(CollectionNo, ShardNo, Row)> {
        let no = u32::from_be_bytes(key.get(..4)?.try_into().ok()?);
        let shard = u32::from_be_bytes(key.get(4..8)?.try_into().ok()?);
        let row = u64::from_be_bytes(key.get(8..16)?.try_into().ok()?);
        (key.len() == 16).then_some((CollectionNo(no), ShardNo(shard), Row(row)))
    }
}
