//! A database that is looked at as a start would find it, without a byte of it being changed.
//!
//! What a crash leaves (an unfinished end of the log, a name in `CURRENT` whose manifest never came to the disk) a start puts right
//! before RocksDB opens, which refuses it otherwise. Who only looks must not, so where there is such a thing RocksDB is shown a
//! directory of our own, elsewhere: links to the files, and in the place of those that a start would change what it would
//! make of them.

use std::fs::{self, File};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::current::{self, PutBack};
use super::manifest::{self, FilesThere, Shortened};
use super::wal::{self, Dropped};
use super::{LocalDir, Storage};
use crate::error::{Error, Result};
use crate::storage::Dir;

/// A database, opened to be read.
pub(crate) struct Look {
    pub(crate) storage: Storage,
    dir: PathBuf,
    /// Removed after the storage was closed: fields go in their order.
    _elsewhere: Option<Elsewhere>,
}

/// What a start would do before it opens a database.
#[derive(Debug, Default, Clone)]
pub(crate) struct Prelude {
    /// Cut off the end of the log.
    pub(crate) cut: Option<Dropped>,
    /// Write `CURRENT` back.
    pub(crate) put_back: Option<PutBack>,
    /// Cut off the end of the manifest.
    pub(crate) shortened: Option<Shortened>,
}

impl Prelude {
    /// What a start would do, or why it would refuse.
    pub(crate) fn judge(db: &Path, files_there: FilesThere<'_>) -> Result<Self> {
        let mut prelude = Self {
            put_back: current::judge(db)?,
            cut: wal::judge(db)?,
            shortened: None,
        };
        prelude.shortened = manifest::judge(db, &prelude, files_there)?;
        Ok(prelude)
    }
}

impl Look {
    /// Opens a database as a start would.
    pub(crate) fn open(db: &Path, files_there: FilesThere<'_>) -> Result<Self> {
        Self::after(db, &Prelude::judge(db, files_there)?)
    }

    /// Opens a database as a start would after what was judged.
    pub(crate) fn after(db: &Path, prelude: &Prelude) -> Result<Self> {
        if prelude.cut.is_none() && prelude.put_back.is_none() && prelude.shortened.is_none() {
            return Ok(Self {
                storage: Storage::open_read_only(db)?,
                dir: db.to_owned(),
                _elsewhere: None,
            });
        }
        Self::elsewhere(db, prelude)?
    }

    /// The same by links, always. What is wrong with the database is told apart from what is wrong with the place for the links.
    pub(super) fn elsewhere(db: &Path, prelude: &Prelude) -> Result<Result<Self>> {
        let elsewhere = Elsewhere::make(db, prelude).map_err(|error| {
            let place = std::env::temp_dir();
            Error::internal(format!(
                "i/o: {} could not be looked at through links in {}, the directory for temporary files (TMPDIR): {error}",
                db.display(),
                place.display()
            ))
        })?;
        Ok(Storage::open_read_only(&elsewhere.0).map(|storage| Self {
            storage,
            dir: elsewhere.0.clone(),
            _elsewhere: Some(elsewhere),
        }))
    }

    /// Where its files are, as a start would leave them.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }
}

/// A directory in the system's place for temporary files, removed when dropped.
struct Elsewhere(PathBuf);

impl Elsewhere {
    fn make(db: &Path, prelude: &Prelude) -> io::Result<Self> {
        let db = std::path::absolute(db)?;
        let name = format!("cairn-look-{:016x}", RandomState::new().hash_one(std::process::id()));
        let elsewhere = Self(std::env::temp_dir().join(name));
        fs::create_dir(&elsewhere.0)?;
        let cut = prelude.cut.as_ref();
        for entry in LocalDir.list(&db)?.into_iter().filter(|entry| !entry.is_dir) {
            let (from, to) = (db.join(&entry.name), elsewhere.0.join(&entry.name));
            // Named by strings, as `judge` was given another spelling of the directory.
            let is_cut = cut.is_some_and(|cut| cut.file.file_name() == Some(entry.name.as_os_str()));
            let is_after = cut.is_some_and(|cut| is_later_log(&from, &cut.file));
            let is_written = ["CURRENT", "LOCK", "LOG"].iter().any(|name| entry.name == *name);
            let shortened = prelude.shortened.as_ref();
            let shortened = shortened.filter(|of| of.file.file_name() == Some(entry.name.as_os_str()));
            if let Some(at) = shortened.map(|of| of.at).or(cut.filter(|_| is_cut).map(|cut| cut.at)) {
                io::copy(&mut File::open(&from)?.take(at), &mut File::create(&to)?)?;
            } else if !is_after && !is_written {
                symlink(&from, &to)?;
            }
        }
        match &prelude.put_back {
            Some(put_back) => current::write(&elsewhere.0, &put_back.to)?,
            None => symlink(db.join("CURRENT"), elsewhere.0.join("CURRENT"))?,
        }
        Ok(elsewhere)
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        // A directory of links: what they name stays.
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!(dir = %self.0.display(), %error, "a temporary directory stays");
        }
    }
}

/// A log that a start removes when it cuts an older one.
fn is_later_log(file: &Path, cut: &Path) -> bool {
    let number = |path: &Path| -> Option<u64> {
        let is_log = path.extension().is_some_and(|extension| extension == "log");
        path.file_stem()?.to_str()?.parse().ok().filter(|_| is_log)
    };
    matches!((number(file), number(cut)), (Some(file), Some(cut)) if file > cut)
}
