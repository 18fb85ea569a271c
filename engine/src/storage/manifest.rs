//! The end of RocksDB's manifest: what a loss of power may leave of it, what is cut off, and what is left to RocksDB to refuse.
//!
//! RocksDB writes what a flush or a compaction changed to the manifest, fsyncs it, and only then removes what it needs no more. If
//! the power goes before that fsync, pages of the end may be on disk and those before them not. RocksDB opens a manifest whose last
//! record was cut off, passes over zeros in silence, and refuses another bad record ("checksum mismatch"), though nothing is lost.
//!
//! [`mend`] cuts the manifest at the first bad place, if what is left of it leads to everything: the tables that it names are there (a
//! database opens on them), the log that was written to after its last flush is there, and records follow each other without a gap
//! from the last applied on. A flush or compaction that is cut off so had not been waited for, or had removed nothing yet: what it did is
//! done again. Where that cannot be shown nothing changes, and RocksDB decides: it may be damage of what had been fsynced, or a crash after
//! an open without a flush since, when nothing names the log that was written to.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::look::{Look, Prelude};
use super::wal::{self, Step, Walk};
use super::{Dir, LOG, LocalDir, META, Storage, current, key};
use crate::error::Result;
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

/// Cuts off what a crash left unfinished, after it was copied to `aside`. The log was mended before.
pub(crate) fn mend(db: &Path, aside: &Path) -> Result<Option<Shortened>> {
    let Some(shortened) = judge(db, &Prelude::default())? else {
        return Ok(None);
    };
    let Shortened { file, at, bytes } = &shortened;
    fs::create_dir_all(aside)?;
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let mut source = File::open(file)?;
    source.seek(SeekFrom::Start(*at))?;
    let mut copy = File::create(aside.join(format!("{name}-from-{at}")))?;
    io::copy(&mut source, &mut copy)?;
    copy.sync_all()?;
    LocalDir.sync_dir(aside)?;
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
    if let Err(error) = wal::forget_oldest(aside) {
        tracing::warn!(%error, dir = %aside.display(), "more of what was cut off is kept than need be");
    }
    Ok(Some(shortened))
}

/// What [`mend`] would cut off after what was judged of the rest. Nothing changes.
pub(crate) fn judge(db: &Path, prelude: &Prelude) -> Result<Option<Shortened>> {
    let named = match &prelude.put_back {
        Some(put_back) => Some(put_back.to.clone()),
        None => current::named(db)?,
    };
    let Some(file) = named.map(|name| db.join(name)).filter(|file| file.is_file()) else {
        return Ok(None);
    };
    let Some(at) = first_bad(&file)? else {
        return Ok(None);
    };
    let bytes = file.metadata()?.len() - at;
    let shortened = Shortened { file, at, bytes };
    let without = Prelude {
        shortened: Some(shortened.clone()),
        ..prelude.clone()
    };
    // Why it does not open so is no news.
    let leads = Look::after(db, &without).is_ok_and(|look| leads_to_all(&look.storage, db).is_ok_and(|leads| leads));
    Ok(leads.then_some(shortened))
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

/// Whether all that was written after the last flush that a manifest knows is in the logs.
fn leads_to_all(storage: &Storage, db: &Path) -> Result<bool> {
    let first_log = storage.first_log();
    if first_log == 0 || !db.join(format!("{first_log:06}.log")).is_file() {
        return Ok(false);
    }
    let applied = storage.get(META, b"applied")?.unwrap_or_default();
    let mut next = applied.try_into().map_or(0, u64::from_le_bytes) + 1;
    let mut follows = true;
    storage.scan(LOG, &0_u32.to_be_bytes(), &key::log(0, Seq(next)), |found, _| {
        follows = *found == key::log(0, Seq(next))[..];
        next += 1;
        Ok(follows)
    })?;
    Ok(follows)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;
    use crate::storage::Effects;

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

    fn manifest(db: &Path) -> PathBuf {
        db.join(current::named(db).unwrap().unwrap())
    }

    #[test]
    fn an_unfinished_end_is_cut_off_if_all_is_there_without_it() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let storage = Storage::open(&at("db"), true).unwrap();
        put(&storage, b"1");
        storage.flush().unwrap();
        put(&storage, b"2");
        copy(&at("db"), &at("before"));
        let ends = manifest(&at("before")).metadata().unwrap().len();
        // Its tables are made, then the manifest is written, then the log goes.
        storage.flush().unwrap();
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
        let would = judge(&at("before"), &Prelude::default()).unwrap().unwrap();
        assert_eq!((would.at, &would.file), (ends, &manifest(&at("before"))));
        assert_eq!(mend(&at("before"), &at("aside")).unwrap(), Some(would));
        assert_eq!(fs::read_dir(at("aside")).unwrap().count(), 1);
        assert!(mend(&at("before"), &at("aside")).unwrap().is_none());
        let storage = Storage::open(&at("before"), true).unwrap();
        for key in [b"1", b"2"] {
            assert_eq!(storage.get(META, key).unwrap().as_deref(), Some(&b"x"[..]));
        }
        // The same bytes after the log is gone are damage.
        hole(&at("after"), 10);
        assert!(mend(&at("after"), &at("aside")).unwrap().is_none());
        assert!(Storage::open(&at("after"), true).is_err());
    }

    #[test]
    fn any_flipped_bit_is_refused_or_costs_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let storage = Storage::open(&at("db"), true).unwrap();
        for key in [b"1", b"2", b"3"] {
            put(&storage, key);
            storage.flush().unwrap();
        }
        put(&storage, b"4");
        copy(&at("db"), &at("image"));
        drop(storage);
        let bytes = fs::read(manifest(&at("image"))).unwrap();
        for i in (0..bytes.len()).step_by(41) {
            let to = at(&format!("flipped-{i}"));
            copy(&at("image"), &to);
            let mut flipped = bytes.clone();
            flipped[i] ^= 4;
            fs::write(manifest(&to), flipped).unwrap();
            let opened = mend(&to, &at("aside")).and_then(|_| Storage::open(&to, true));
            if let Ok(storage) = opened {
                for key in [b"1", b"2", b"3", b"4"] {
                    assert_eq!(storage.get(META, key).unwrap().as_deref(), Some(&b"x"[..]), "byte {i}");
                }
            }
            fs::remove_dir_all(&to).unwrap();
        }
    }
}
