//! The end of RocksDB's manifest: what a loss of power may leave of it, what is cut off, and what is refused.
//!
//! RocksDB writes what a flush or a compaction changed to the manifest, fsyncs it, and only then removes what it needs no more. If
//! the power goes before that fsync, pages of the end may be on disk and those before them not. RocksDB opens a manifest whose last
//! record was cut off, passes over zeros in silence, and refuses another bad record ("checksum mismatch"), though nothing is lost.
//!
//! [`mend`] cuts the manifest at the first bad place, if nothing has happened that had to wait for it: of what is left of it the tables are
//! there, the log that was written to after its last flush is there, records follow each other without a gap from the last applied on, and
//! the sealed files are there that the database names then. So a flush or compaction that is cut off had removed nothing, and nobody else
//! had because of it: what it did is done again. Where any of that is missing, what is bad had been fsynced: that is refused, and
//! nothing changes.
//!
//! Which log that is, the manifest says from the first flush of an opening on. Before, it names none or one that never was; then the log of
//! the opening has to be there, which begins with a mark of no records, and all that was there when it was written. (Recovery
//! moves records from the logs before into tables; were that what is bad, the mark would know of records that are nowhere.) The log alone
//! shows little: RocksDB keeps it at a flush if nothing was written to it since the flush before, as effects are not.
//!
//! A manifest that is bad before anything was stored, in a directory that is new, is cut as well.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use super::look::{Look, Prelude};
use super::wal::{self, Step, Walk};
use super::{LOG, Storage, aside, current, files, key};
use crate::error::{Error, Result};
use crate::types::Seq;

/// A manifest that ends earlier than it did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shortened {
    /// Which.
    pub(crate) file: PathBuf,
    /// Where it ends.
    pub(crate) at: u64,
    /// Bytes from there on.
    pub(crate) bytes: u64,
}

/// In what RocksDB says when it could not look, which says nothing of the database.
const OF_THE_SYSTEM: [&str; 3] = ["Too many open files", "Cannot allocate memory", "Input/output error"];

/// Whether the sealed files that a database names are there.
pub(crate) type FilesThere<'a> = &'a dyn Fn(&Storage) -> Result<bool>;

/// Cuts off what a crash left unfinished, after it was copied to `aside`. The log was mended before.
pub(crate) fn mend(db: &Path, aside: &Path, files_there: FilesThere<'_>) -> Result<Option<Shortened>> {
    let Some(shortened) = judge(db, &Prelude::default(), files_there)? else {
        return Ok(None);
    };
    let Shortened { file, at, bytes } = &shortened;
    aside::keep([(file.as_path(), *at)], aside)?;
    tracing::warn!(
        file = %file.display(),
        at,
        bytes,
        kept_in = %aside.display(),
        "cutting off the end of RocksDB's manifest, which a crash kept from the disk in part: all that it is about is there without it, \
         and nothing is lost"
    );
    let manifest = OpenOptions::new().write(true).open(file)?;
    manifest.set_len(*at)?;
    manifest.sync_all()?;
    aside::forget_oldest(aside);
    Ok(Some(shortened))
}

/// What [`mend`] would cut off after what was judged of the rest. Nothing changes.
pub(crate) fn judge(db: &Path, prelude: &Prelude, files_there: FilesThere<'_>) -> Result<Option<Shortened>> {
    let named = match &prelude.put_back {
        Some(put_back) => Some(put_back.to.clone()),
        None => current::named(db)?,
    };
    let Some((file, number)) = named.and_then(|name| Some((db.join(&name), current::number_of(&name)?))) else {
        return Ok(None);
    };
    if !file.is_file() {
        return Ok(None);
    }
    let Some(at) = first_bad(&file)? else {
        return Ok(None);
    };
    let bytes = file.metadata()?.len() - at;
    let shortened = Shortened { file, at, bytes };
    let without = Prelude {
        shortened: Some(shortened.clone()),
        ..prelude.clone()
    };
    let mut why = String::new();
    let unfinished = match Look::elsewhere(db, &without)? {
        Ok(look) => leads_to_all(&look, number)? && files_there(&look.storage)?,
        Err(_) if at > 0 && is_new(db, prelude)? => true,
        // Not of the database: what the system has too few of, or a disk that fails now.
        Err(error) if OF_THE_SYSTEM.iter().any(|why| error.message.contains(why)) => return Err(error),
        Err(error) => {
            why = format!(" ({})", error.message);
            false
        }
    };
    match unfinished {
        true => Ok(Some(shortened)),
        false => Err(Error::damaged(format!(
            "the manifest {} is damaged at byte {at}: not all that it is about is there without what stands there{why}. This directory stays \
             closed and unchanged: restore it from a copy or a snapshot, and check the disk",
            shortened.file.display()
        ))),
    }
}

/// Whether nothing was ever stored: there is no sealed file, no table, and no byte of a log.
fn is_new(db: &Path, prelude: &Prelude) -> Result<bool> {
    let segments = db.parent().map(|dir| dir.join(files::SEGMENTS));
    if segments.is_some_and(|segments| fs::read_dir(segments).is_ok_and(|mut all| all.next().is_some())) {
        return Ok(false);
    }
    for entry in fs::read_dir(db)? {
        let entry = entry?;
        let path = entry.path();
        // Later logs go with one that is cut at its beginning.
        let is_cut = prelude
            .cut
            .as_ref()
            .is_some_and(|cut| cut.at == 0 && cut.file.file_name() <= path.file_name());
        let extension = path.extension().and_then(|extension| extension.to_str());
        if extension == Some("sst") || extension == Some("log") && !is_cut && entry.metadata()?.len() > 0 {
            return Ok(false);
        }
    }
    Ok(true)
}

fn first_bad(file: &Path) -> io::Result<Option<u64>> {
    let mut walk = Walk::new(io::BufReader::new(File::open(file)?), 0);
    while let Some(step) = walk.step()? {
        if let Step::Bad { at } = step {
            return Ok(Some(at));
        }
    }
    Ok(None)
}

/// Whether all that was written after the last flush that the manifest of this number knows is in the logs.
fn leads_to_all(look: &Look, number: u64) -> Result<bool> {
    let (storage, db) = (&look.storage, look.dir());
    let first_log = storage.first_log()?;
    let Some((log, begins, following)) = wal::oldest(db, first_log)? else {
        return Ok(false);
    };
    if !storage.tables_there(db)? {
        return Ok(false);
    }
    let mut next = storage.applied()? + 1;
    let mut follows = true;
    storage.scan(LOG, &0_u32.to_be_bytes(), &key::log(0, Seq(next)), |found, _| {
        follows = *found == key::log(0, Seq(next))[..];
        next += 1;
        Ok(follows)
    })?;
    // RocksDB numbers the log of an opening before its manifest, and each later one after it.
    let is_first = |mark: wal::Mark| log < number && mark.count == 0 && mark.first <= next;
    // One that an opening before left may be there again after a loss of power, without those after it.
    let alone = following.is_none_or(|following| following > number);
    Ok(follows && alone && (log == first_log || begins.is_some_and(is_first)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;
    use crate::error::ErrorKind;
    use crate::storage::{Effects, META};

    fn put(storage: &Storage, key: &[u8]) {
        let mut batch = Effects::new(storage);
        batch.put(META, key, b"x");
        storage.append(batch, true).unwrap();
    }

    fn copy(from: &Path, to: &Path) {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }

    /// Flushes, and waits until the log is gone that nobody needs any more.
    fn flush(storage: &Storage, db: &Path) {
        storage.flush().unwrap();
        let first = storage.first_log().unwrap();
        for _ in 0..5_000 {
            if wal::oldest(db, 0).unwrap().is_none_or(|(log, ..)| log >= first) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        panic!("a log stays");
    }

    /// Three records, each in a table.
    fn tables(storage: &Storage, db: &Path) {
        for seq in 1..4 {
            write(storage, seq, false);
            flush(storage, db);
        }
    }

    fn manifest(db: &Path) -> PathBuf {
        db.join(current::named(db).unwrap().unwrap())
    }

    #[test]
    fn an_unfinished_end_is_cut_off_if_all_is_there_without_it() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let storage = Storage::open(&at("db"), true).unwrap();
        put(&storage, b"1");
        flush(&storage, &at("db"));
        put(&storage, b"2");
        copy(&at("db"), &at("before"));
        let ends = manifest(&at("before")).metadata().unwrap().len();
        // Its tables are made, then the manifest is written, then the log goes.
        flush(&storage, &at("db"));
        copy(&at("db"), &at("after"));
        drop(storage);
        let whole = manifest(&at("after"));
        assert!(whole.metadata().unwrap().len() > ends + 40);
        let hole = |db: &Path, from: u64| {
            let file = OpenOptions::new().write(true).open(manifest(db)).unwrap();
            file.write_all_at(&[0; 20], ends + from).unwrap();
        };
        // The power went before the fsync: the log and the tables before are there, of the end of the manifest the second half.
        fs::copy(&whole, manifest(&at("before"))).unwrap();
        hole(&at("before"), 10);
        copy(&at("before"), &at("unmended"));
        assert!(
            Storage::open(&at("unmended"), true).is_err(),
            "RocksDB mends it by itself now"
        );
        let would = judge(&at("before"), &Prelude::default(), &|_| Ok(true))
            .unwrap()
            .unwrap();
        assert_eq!((would.at, &would.file), (ends, &manifest(&at("before"))));
        assert_eq!(mend(&at("before"), &at("aside"), &|_| Ok(true)).unwrap(), Some(would));
        assert_eq!(fs::read_dir(at("aside")).unwrap().count(), 1);
        assert!(mend(&at("before"), &at("aside"), &|_| Ok(true)).unwrap().is_none());
        let storage = Storage::open(&at("before"), true).unwrap();
        for key in [b"1", b"2"] {
            assert_eq!(storage.get(META, key).unwrap().as_deref(), Some(&b"x"[..]));
        }
        // The same bytes after the log is gone are damage, and so are zeros, which RocksDB would pass over.
        for from in [10, 0] {
            let damaged = at(&format!("damaged-{from}"));
            copy(&at("after"), &damaged);
            hole(&damaged, from);
            let refused = mend(&damaged, &at("aside"), &|_| Ok(true)).unwrap_err();
            assert_eq!(refused.kind, ErrorKind::Damaged, "{refused}");
        }
    }

    /// A record in the log, or an effect.
    fn write(storage: &Storage, seq: u64, is_effect: bool) {
        let mut batch = Effects::new(storage);
        if is_effect {
            batch.put(META, b"effect", &seq.to_le_bytes());
            return storage.write_effects(batch).unwrap();
        }
        batch.put(LOG, &key::log(0, Seq(seq)), b"x");
        storage.append(batch, true).unwrap();
    }

    #[test]
    fn before_the_first_flush_of_an_opening_its_log_is_known_by_its_beginning() {
        let dir = tempfile::tempdir().unwrap();
        // Of a new database, and of one that was opened before: records from before and after the flush.
        for (again, before, later) in [(0, 2, 0), (0, 2, 1), (1, 2, 0), (1, 2, 1), (1, 1, 1), (2, 1, 0)] {
            let told = format!("opened {again} times before, {before} records, {later} after the flush");
            let at = |name: &str| dir.path().join(format!("{again}-{before}-{later}-{name}"));
            let mut seq = 1..;
            for _ in 0..again {
                let storage = Storage::open(&at("db"), true).unwrap();
                write(&storage, seq.next().unwrap(), false);
            }
            let storage = Storage::open(&at("db"), true).unwrap();
            seq.by_ref().take(before).for_each(|seq| write(&storage, seq, false));
            copy(&at("db"), &at("before"));
            let ends = manifest(&at("before")).metadata().unwrap().len();
            flush(&storage, &at("db"));
            seq.by_ref().take(later).for_each(|seq| write(&storage, seq, false));
            copy(&at("db"), &at("after"));
            drop(storage);
            fs::copy(manifest(&at("after")), manifest(&at("before"))).unwrap();
            for (from, len) in [(10, 20), (0, 20), (0, 4_000)] {
                for name in ["before", "after"] {
                    let to = at(&format!("{name}-{from}-{len}"));
                    copy(&at(name), &to);
                    let file = OpenOptions::new().write(true).open(manifest(&to)).unwrap();
                    file.write_all_at(&vec![0; len], ends + from).unwrap();
                    let mended = mend(&to, &at("aside"), &|_| Ok(true));
                    if name == "after" {
                        assert_eq!(mended.unwrap_err().kind, ErrorKind::Damaged, "{told}");
                        continue;
                    }
                    assert_eq!(mended.unwrap().unwrap().at, ends, "{told}");
                    let storage = Storage::open(&to, true).unwrap();
                    for seq in 1..=(again + before) as u64 {
                        assert!(storage.get(LOG, &key::log(0, Seq(seq))).unwrap().is_some(), "{told}");
                    }
                }
            }
        }
    }

    #[test]
    fn what_an_opening_brought_into_tables_is_not_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let storage = Storage::open(&at("db"), true).unwrap();
        tables(&storage, &at("db"));
        (4..6).for_each(|seq| write(&storage, seq, false));
        copy(&at("db"), &at("crashed"));
        drop(storage);
        let storage = Storage::open(&at("crashed"), true).unwrap();
        copy(&at("crashed"), &at("image"));
        drop(storage);
        assert!(flip(&at("image"), 7, 5) > 0);
    }

    #[test]
    fn a_table_that_is_gone_is_missed() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let storage = Storage::open(&at("db"), true).unwrap();
        for seq in 1..40 {
            write(&storage, seq, false);
            storage.flush().unwrap();
        }
        storage.compact(LOG);
        let tables = storage.db.live_files().unwrap();
        assert!(storage.tables_there(&at("db")).unwrap() && tables.len() > 1);
        for table in &tables {
            let file = at("db").join(table.name.trim_start_matches('/'));
            fs::rename(&file, at("gone")).unwrap();
            assert!(!storage.tables_there(&at("db")).unwrap(), "{}", table.name);
            fs::rename(at("gone"), &file).unwrap();
        }
    }

    #[test]
    fn a_flush_that_kept_its_log_is_known_by_the_files_that_went_after_it() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let storage = Storage::open(&at("db"), true).unwrap();
        write(&storage, 1, false);
        flush(&storage, &at("db"));
        write(&storage, 2, true);
        let ends = manifest(&at("db")).metadata().unwrap().len();
        storage.flush().unwrap();
        write(&storage, 2, false);
        copy(&at("db"), &at("image"));
        drop(storage);
        let file = OpenOptions::new().write(true).open(manifest(&at("image"))).unwrap();
        file.write_all_at(&[0; 20], ends).unwrap();
        let asked = std::cell::Cell::new(0);
        let there = |storage: &Storage| {
            asked.set(asked.get() + 1);
            assert_eq!(
                storage.get(META, b"effect").unwrap(),
                None,
                "what it names without the bad end"
            );
            Ok(false)
        };
        let refused = mend(&at("image"), &at("aside"), &there).unwrap_err();
        assert_eq!((refused.kind, asked.get()), (ErrorKind::Damaged, 1), "{refused}");
        assert!(mend(&at("image"), &at("aside"), &|_| Ok(true)).unwrap().is_some());
    }

    #[test]
    fn the_first_start_of_a_new_directory_may_lose_its_power() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        drop(Storage::open(&at("db"), true).unwrap());
        let whole = fs::read(manifest(&at("db"))).unwrap();
        let (mut tried, mut good) = (0, 0);
        for from in (0..whole.len()).step_by(23) {
            let to = at(&format!("new-{from}"));
            copy(&at("db"), &to);
            for log in fs::read_dir(&to).unwrap().map(|entry| entry.unwrap().path()) {
                if log.extension().is_some_and(|extension| extension == "log") {
                    File::create(log).unwrap();
                }
            }
            let file = OpenOptions::new().write(true).open(manifest(&to)).unwrap();
            file.write_all_at(&[0; 20], from as u64).unwrap();
            // What it writes before it gives the manifest its name is on disk then.
            let opened = mend(&to, &at("aside"), &|_| Ok(true)).and_then(|_| Storage::open(&to, true));
            tried += 1;
            good += u32::from(opened.is_ok_and(|storage| storage.identity().is_ok()));
        }
        assert!(good * 2 > tried, "{good} of {tried}");
    }

    #[test]
    fn any_flipped_bit_is_refused_or_costs_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let storage = Storage::open(&at("db"), true).unwrap();
        tables(&storage, &at("db"));
        write(&storage, 4, false);
        copy(&at("db"), &at("image"));
        drop(storage);
        flip(&at("image"), 41, 4);
    }

    /// Flips a bit of one in so many bytes of an image's manifest: it is refused, or all records are there. How many times it is refused.
    fn flip(image: &Path, step: usize, records: u64) -> usize {
        let dir = tempfile::tempdir().unwrap();
        let (to, aside) = (dir.path().join("db"), dir.path().join("aside"));
        let bytes = fs::read(manifest(image)).unwrap();
        let is_refused = |i: &usize| {
            copy(image, &to);
            let mut flipped = bytes.clone();
            flipped[*i] ^= 4;
            fs::write(manifest(&to), flipped).unwrap();
            let opened = mend(&to, &aside, &|_| Ok(true)).and_then(|_| Storage::open(&to, true));
            for seq in opened.iter().flat_map(|_| 1..=records) {
                let there = opened
                    .as_ref()
                    .is_ok_and(|db| db.get(LOG, &key::log(0, Seq(seq))).unwrap().is_some());
                assert!(there, "byte {i}, record {seq}");
            }
            let is_refused = opened.is_err();
            drop(opened);
            fs::remove_dir_all(&to).unwrap();
            is_refused
        };
        (0..bytes.len()).step_by(step).filter(is_refused).count()
    }
}
