//! A store that is a directory: what `object_store` does not do for one.
//!
//! It fsyncs a file and the directories it is in before it says that the file is written. It does not fsync a directory from
//! which it removed something; nor one in which it finds what another process wrote, which may have died before its own fsync.
//! And a process that dies while it writes leaves a file with `#` and a number at the end of its name, which no list shows.
//! Its list passes over what cannot be looked at (a disk that fails, a mount that hangs); who collects garbage would take that for
//! gone.

use std::fs::{self, File, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The directories of a store: nothing else below its root is looked at.
const OURS: [&str; 4] = ["objects", "snapshots", "leases", "wanted"];

/// The directory of a store.
#[derive(Debug, Clone)]
pub(super) struct Directory(PathBuf);

impl Directory {
    pub(super) fn new(root: &Path) -> Self {
        Self(root.to_owned())
    }

    /// Brings to disk which files there are below one of its directories, and that directory itself: what was removed is gone
    /// for good, what is found stays. One that is not there is no error.
    pub(super) fn sync(&self, below: &str) -> io::Result<()> {
        match sync_tree(&self.0.join(below)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            synced => synced?,
        }
        File::open(&self.0)?.sync_all()?;
        match self.0.parent().map(File::open) {
            Some(Ok(above)) => above.sync_all(),
            // Not ours to look into: then we have not made the root in it.
            Some(Err(error)) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
            Some(Err(error)) => Err(error),
            None => Ok(()),
        }
    }

    /// Every file below one of its directories, but those that are being written. What goes meanwhile may be left out; what cannot be
    /// looked at is an error.
    pub(super) fn list(&self, below: &str) -> io::Result<Vec<(PathBuf, Metadata)>> {
        let mut found = Vec::new();
        unless_gone(list(&self.0.join(below), &|path| fs::metadata(path), &mut found))?;
        Ok(found)
    }

    /// Removes what was being written and has not changed since `before`. Says how many files.
    pub(super) fn remove_staged(&self, before: SystemTime) -> io::Result<u64> {
        let mut removed = 0;
        for below in OURS {
            match remove_staged(&self.0.join(below), before, &mut removed) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(removed)
    }
}

fn unless_gone<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        result => result.map(Some),
    }
}

/// A link counts as what it leads to.
fn list(
    dir: &Path,
    look: &dyn Fn(&Path) -> io::Result<Metadata>,
    found: &mut Vec<(PathBuf, Metadata)>,
) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let Some(meta) = unless_gone(look(&path))? else {
            continue;
        };
        if meta.is_dir() {
            unless_gone(list(&path, look, found))?;
        } else if meta.is_file() && !is_staged(&path.file_name().unwrap_or_default().to_string_lossy()) {
            found.push((path, meta));
        }
    }
    Ok(())
}

fn remove_staged(dir: &Path, before: SystemTime, removed: &mut u64) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            remove_staged(&entry.path(), before, removed)?;
        } else if kind.is_file() && is_staged(&entry.file_name().to_string_lossy()) {
            match entry.metadata().and_then(|meta| meta.modified()) {
                Ok(changed) if changed < before => match fs::remove_file(entry.path()) {
                    Ok(()) => *removed += 1,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                },
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

/// As `object_store` calls what is not complete.
fn is_staged(name: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    name.rsplit_once('#')
        .is_some_and(|(of, number)| !of.is_empty() && digits(number))
}

/// Brings the entries of a directory and of all below it to disk; its files are there already.
pub(super) fn sync_tree(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_tree(&entry.path())?;
        }
    }
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_cannot_be_looked_at_is_not_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let snapshots = dir.path().join("snapshots");
        fs::create_dir_all(snapshots.join("below")).unwrap();
        for name in ["one", "two", "two#1", "below/three"] {
            fs::write(snapshots.join(name), name).unwrap();
        }
        std::os::unix::fs::symlink(snapshots.join("nowhere"), snapshots.join("link")).unwrap();
        let directory = Directory::new(dir.path());
        let mut names: Vec<_> = directory
            .list("snapshots")
            .unwrap()
            .into_iter()
            .map(|(path, _)| path)
            .collect();
        names.sort();
        assert_eq!(names, ["below/three", "one", "two"].map(|name| snapshots.join(name)));
        assert!(directory.list("leases").unwrap().is_empty());
        let hangs = |path: &Path| match path.ends_with("two") {
            true => Err(io::Error::from_raw_os_error(116)),
            false => fs::metadata(path),
        };
        let error = list(&snapshots, &hangs, &mut Vec::new()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(116));
    }

    #[test]
    fn what_was_being_written_long_ago_is_removed_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let old = SystemTime::now() - Duration::from_secs(3_600);
        let put = |path: &str, changed: SystemTime| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let file = File::create(&path).unwrap();
            file.set_modified(changed).unwrap();
            path
        };
        let gone = [
            "objects/ab/abcd#1",
            "objects/ab/abcd#12",
            "snapshots/s@0#1",
            "leases/w-1#3",
        ]
        .map(|path| put(path, old));
        let now = SystemTime::now();
        let stays = [
            put("objects/ab/abcd#2", now),
            put("objects/ab/abcd", old),
            put("objects/ab/abcd#x", old),
            put("objects/ab/#1", old),
            put("others/ab#1", old),
            put("ab#1", old),
        ];
        std::os::unix::fs::symlink(&stays[4], dir.path().join("objects/link#1")).unwrap();
        let directory = Directory::new(dir.path());
        let removed = directory.remove_staged(now - Duration::from_secs(60)).unwrap();
        assert_eq!(removed, gone.len() as u64);
        assert!(gone.iter().all(|path| !path.exists()) && stays.iter().all(|path| path.exists()));
        directory.sync("objects").unwrap();
        directory.sync("nothing").unwrap();
        assert_eq!(
            Directory::new(&dir.path().join("nowhere")).remove_staged(now).unwrap(),
            0
        );
    }
}
