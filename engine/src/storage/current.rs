//! Which manifest of RocksDB counts: what a loss of power may leave of it, what is put right, and what is refused.
//!
//! RocksDB makes a new manifest at each open: it writes and fsyncs `MANIFEST-n`, renames a file that names it over `CURRENT`,
//! and then fsyncs the directory, once for both names. If the power goes before that fsync is done, or it fails, the rename may be on
//! disk and the manifest's own name not: then `CURRENT` names a file that never was. RocksDB does not open such a directory, though
//! nothing is lost: it removes nothing of the state before until that fsync has succeeded, so the manifest before and all
//! that it needs are there. [`mend`] writes `CURRENT` back to it, which is what the same crash leaves if the rename is lost too.
//!
//! That the manifest before is meant, and none that was given up or has served its time, is made sure of at each open: before
//! RocksDB, what is newer than the one that `CURRENT` names is removed (nobody ever used it) and the directory is fsynced; after it,
//! when the older one is gone, once more (`Storage::open`). So an older manifest beside a missing one says that its successor never
//! served, and a missing one alone is damage, which is refused.

use std::fs;
use std::io;
use std::io::Write;
use std::path::{Path, PathBuf};

use super::{Dir, LocalDir};
use crate::error::{Error, Result};

const CURRENT: &str = "CURRENT";
const MANIFEST: &str = "MANIFEST-";
/// The manifest that a new database begins with, until its first open is done.
const FIRST: u64 = 1;

/// What `CURRENT` said, and what it says now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PutBack {
    /// The manifest that is not there.
    pub(crate) missing: String,
    /// The one before it.
    pub(crate) to: String,
}

/// What was found.
enum Found {
    /// No database, or one whose first manifest was not finished: nothing was ever stored in it.
    New,
    /// `CURRENT` names a manifest that is there. Those that are newer were never used.
    Sound { newer: Vec<PathBuf> },
    /// It does not, and the one before is there.
    Before(PutBack),
    /// It cannot be read as a name: RocksDB says what is wrong.
    Unreadable,
}

/// Puts right what a crash left of `CURRENT`, and has it and what it names on disk. Damage is an error, and nothing changes.
pub(crate) fn mend(db: &Path) -> Result<Option<PutBack>> {
    let put_back = match look(db)? {
        Found::Unreadable => return Ok(None),
        Found::New => {
            match fs::remove_file(db.join(CURRENT)) {
                // Nothing to make durable: the directory may not even be there.
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                removed => removed?,
            }
            None
        }
        Found::Sound { newer } => {
            newer.iter().try_for_each(fs::remove_file)?;
            None
        }
        Found::Before(put_back) => {
            write(db, &put_back.to)?;
            Some(put_back)
        }
    };
    LocalDir.sync_dir(db)?;
    Ok(put_back)
}

/// What [`mend`] would put back, or its error. Nothing changes.
pub(crate) fn judge(db: &Path) -> Result<Option<PutBack>> {
    match look(db)? {
        Found::Before(put_back) => Ok(Some(put_back)),
        _ => Ok(None),
    }
}

/// The manifest that counts; none if there is no name to be read.
pub(super) fn named(db: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(db.join(CURRENT)) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData) => Ok(None),
        current => Ok(current?
            .strip_suffix('\n')
            .filter(|name| number_of(name).is_some())
            .map(str::to_owned)),
    }
}

/// Has `CURRENT` name a manifest.
pub(crate) fn write(db: &Path, manifest: &str) -> io::Result<()> {
    let temporary = db.join("CURRENT.dbtmp");
    let mut file = fs::File::create(&temporary)?;
    writeln!(file, "{manifest}")?;
    file.sync_all()?;
    fs::rename(&temporary, db.join(CURRENT))
}

fn look(db: &Path) -> Result<Found> {
    let entries = match fs::read_dir(db) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::New),
        entries => entries?,
    };
    let (mut manifests, mut holds_data, mut holds_tables) = (Vec::new(), false, false);
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        if let Some(number) = number_of(name) {
            manifests.push((number, name.to_owned()));
        }
        holds_tables |= name.ends_with(".sst");
        holds_data |= name.ends_with(".sst") || name.ends_with(".log") && entry.metadata()?.len() > 0;
    }
    manifests.sort_unstable();
    let current = match fs::read_to_string(db.join(CURRENT)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && holds_data => {
            // Beside tables RocksDB would make a new database, and remove those, as it does not know them.
            return Err(refusal(db, "CURRENT is missing, though there are tables or a log"));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::New),
        // Bytes that are no text are no name.
        Err(error) if error.kind() == io::ErrorKind::InvalidData => return Ok(Found::Unreadable),
        current => current?,
    };
    let Some((named, number)) = current
        .strip_suffix('\n')
        .and_then(|name| Some((name, number_of(name)?)))
    else {
        return Ok(Found::Unreadable);
    };
    if manifests.iter().any(|(_, name)| name == named) {
        let newer = manifests.iter().filter(|(other, _)| *other > number);
        return Ok(Found::Sound {
            newer: newer.map(|(_, name)| db.join(name)).collect(),
        });
    }
    match manifests.iter().rev().find(|(other, _)| *other < number) {
        // The first one knows no table.
        Some((FIRST, _)) if holds_tables => {}
        Some((_, before)) => {
            return Ok(Found::Before(PutBack {
                missing: named.to_owned(),
                to: before.clone(),
            }));
        }
        None if number == FIRST && manifests.is_empty() && !holds_data => return Ok(Found::New),
        None => {}
    }
    Err(refusal(
        db,
        &format!("CURRENT names {named}, which is not there, and neither is the manifest before it"),
    ))
}

fn refusal(db: &Path, what: &str) -> Error {
    Error::damaged(format!(
        "the database {} is damaged: {what}. This directory stays closed and unchanged: restore it from a copy or a snapshot, and \
         check the disk",
        db.display()
    ))
}

/// The number of a manifest, by its name.
pub(super) fn number_of(name: &str) -> Option<u64> {
    let digits = name.strip_prefix(MANIFEST)?;
    digits
        .bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| digits.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{Effects, META, Storage};

    /// A database with an entry in a table and one that is only in the log.
    fn used(db: &Path) {
        let storage = Storage::open(db, true).unwrap();
        for key in [b"1", b"2"] {
            let mut batch = Effects::new(&storage);
            batch.put(META, key, b"x");
            storage.append(batch, true).unwrap();
            if key == b"1" {
                storage.flush().unwrap();
            }
        }
    }

    fn current(db: &Path) -> String {
        fs::read_to_string(db.join(CURRENT)).unwrap().trim_end().to_owned()
    }

    fn manifests(db: &Path) -> Vec<String> {
        let names = fs::read_dir(db)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.filter(|name| name.starts_with(MANIFEST)).collect();
        names.sort_unstable();
        names
    }

    fn holds_all(db: &Path) {
        let storage = Storage::open(db, true).unwrap();
        for key in [b"1", b"2"] {
            assert_eq!(storage.get(META, key).unwrap().as_deref(), Some(&b"x"[..]));
        }
    }

    #[test]
    fn a_manifest_that_never_came_to_the_disk_is_put_back_to_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let db = dir.path();
        used(db);
        let before = current(db);
        // What an open leaves whose last fsync did not come: the new name in `CURRENT`, and its manifest nowhere.
        write(db, "MANIFEST-009999").unwrap();
        assert!(Storage::open(db, true).is_err(), "RocksDB does not do it by itself");
        let expected = PutBack {
            missing: "MANIFEST-009999".to_owned(),
            to: before.clone(),
        };
        assert_eq!(judge(db).unwrap(), Some(expected.clone()));
        assert_eq!(mend(db).unwrap(), Some(expected));
        assert_eq!(current(db), before);
        holds_all(db);
        assert_eq!(mend(db).unwrap(), None);
    }

    #[test]
    fn an_older_manifest_is_gone_once_a_newer_one_serves_and_newer_ones_that_never_served_go() {
        let dir = tempfile::tempdir().unwrap();
        let db = dir.path();
        used(db);
        holds_all(db);
        assert_eq!(
            manifests(db),
            [current(db)],
            "one that could be taken for the one before"
        );
        let given_up = db.join("MANIFEST-009998");
        fs::copy(db.join(current(db)), &given_up).unwrap();
        assert_eq!(mend(db).unwrap(), None);
        assert!(!given_up.exists());
        holds_all(db);
    }

    #[test]
    fn a_missing_manifest_without_one_before_and_a_missing_current_are_refused_and_nothing_changes() {
        let dir = tempfile::tempdir().unwrap();
        let db = dir.path();
        used(db);
        let named = current(db);
        let aside = dir.path().join("aside");
        let files = |db: &Path| fs::read_dir(db).unwrap().count();
        for lost in [named.as_str(), CURRENT] {
            fs::rename(db.join(lost), &aside).unwrap();
            let n = files(db);
            let error = mend(db).unwrap_err();
            assert_eq!(error.code, "data_damaged", "{error}");
            assert_eq!(files(db), n);
            fs::rename(&aside, db.join(lost)).unwrap();
        }
        // An older one that has a newer number than the lost one, and the first one, which knows no table, are not the one before.
        fs::rename(db.join(&named), db.join("MANIFEST-009999")).unwrap();
        assert!(mend(db).is_err());
        fs::rename(db.join("MANIFEST-009999"), db.join("MANIFEST-000001")).unwrap();
        assert!(mend(db).is_err());
        fs::rename(db.join("MANIFEST-000001"), db.join(&named)).unwrap();
        holds_all(db);
    }

    #[test]
    fn a_database_whose_first_manifest_never_came_is_new() {
        let dir = tempfile::tempdir().unwrap();
        let db = dir.path().join("db");
        assert_eq!(mend(&db).unwrap(), None);
        fs::create_dir(&db).unwrap();
        write(&db, "MANIFEST-000001").unwrap();
        assert_eq!(mend(&db).unwrap(), None);
        used(&db);
        holds_all(&db);
    }
}
