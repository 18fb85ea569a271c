//! From a snapshot to a data directory that a server can be started on.
//!
//! The files are brought into `restoring/` inside the data directory, compared with their hashes, and opened there once, so
//! that everything an engine checks at open is checked before anything counts. Then they are renamed to their places, the
//! database last. While `restoring/` is there, an engine refuses to open the directory (`restore_incomplete`), and restoring
//! again begins anew; so a crash at any point leaves a directory that is restored, or says that it is not.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use cairn_engine::config::{Settings, Workers};
use cairn_engine::engine::Past;
use cairn_engine::storage::files::{DirLock, RESTORING, create_root, foreign_entry};
use cairn_engine::storage::space::{Free, Space};
use cairn_engine::storage::{Dir, LocalDir};
use cairn_engine::{Engine, Error, ErrorKind, Result};

use super::store::blocking;
use super::{
    Manifest, PointInTime, Records, Snapshots, Store, Tried, Way, Work, ambiguous, damaged, not_followed, past_of,
    unnamed, ways,
};
use crate::config::Config;

/// What a restore brought back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// The snapshot's name.
    pub snapshot: String,
    /// The last write in it.
    pub token: String,
    /// Collections.
    pub collections: usize,
    /// Points in all of them.
    pub points: u64,
    /// Bytes of its files.
    pub bytes: u64,
}

/// Part of a restore's time that bringing the files takes, where records are replayed after that, more or less.
const BRINGING: f32 = 0.5;

/// Restores a snapshot, or the newest, into the data directory of a configuration, which must be empty or new. With a point in
/// time the snapshot before it is restored, or the named one, and followed to there by the log that a later one holds.
pub async fn restore_into(
    config: &Config,
    name: Option<&str>,
    to: Option<PointInTime>,
    progress: &(dyn Fn(f32) + Sync),
) -> Result<Restored> {
    let bad = |why: String| Error::invalid("bad_configuration", why);
    let store = Store::open(&config.snapshots, &config.data_dir).map_err(bad)?;
    let snapshots = Snapshots::new(store);
    if let Some(to) = to {
        return restore_to(config, &snapshots, name, to, progress).await;
    }
    let manifest = match name {
        Some(name) => snapshots.describe(name).await?,
        None => newest(&snapshots).await?,
    };
    let dir = config.data_dir.clone();
    let place = blocking(move || Ok(EmptyPlace::take(&dir))).await??;
    let work = Work {
        stopped: &|| false,
        progress,
    };
    let space = Space::new(&place.staging, config.engine.disk_reserve_bytes);
    let brought = async {
        snapshots.download(&manifest, &place.staging, &space, &work).await?;
        let (staging, settings, workers) = (place.staging.clone(), config.settings(), config.workers());
        let manifest = manifest.clone();
        blocking(move || Ok(open_download(&staging, settings, workers, &manifest, &|| false).map(drop))).await?
    };
    match brought.await {
        Ok(()) => blocking(move || place.fill()).await?,
        Err(error) => {
            blocking(move || place.leave()).await?;
            return Err(error);
        }
    }
    Ok(Restored {
        collections: manifest.collections.len(),
        points: manifest.collections.iter().map(|c| c.points).sum(),
        snapshot: manifest.name,
        token: manifest.token,
        bytes: manifest.bytes,
    })
}

async fn restore_to(
    config: &Config,
    snapshots: &Snapshots,
    name: Option<&str>,
    to: PointInTime,
    progress: &(dyn Fn(f32) + Sync),
) -> Result<Restored> {
    let (known, unreadable) = snapshots.known().await?;
    let ways = ways((&known, &unreadable), None, name, to)?;
    let dir = config.data_dir.clone();
    let place = blocking(move || Ok(EmptyPlace::take(&dir))).await??;
    let space = Space::new(&place.staging, config.engine.disk_reserve_bytes);
    let tried = Tried::beginning(unreadable);
    match follow(config, snapshots, (&ways, tried), to, &place.staging, &space, progress).await {
        Ok(restored) => {
            blocking(move || place.fill()).await?;
            Ok(restored)
        }
        Err(error) => {
            blocking(move || place.leave()).await?;
            Err(error)
        }
    }
}

/// Brings a database to a point in time into `staging`.
async fn follow(
    config: &Config,
    snapshots: &Snapshots,
    (ways, mut tried): (&[Way<'_>], Tried),
    to: PointInTime,
    staging: &Path,
    space: &Space,
    progress: &(dyn Fn(f32) + Sync),
) -> Result<Restored> {
    let bring = |part: f32| progress(part * BRINGING);
    let work = Work {
        stopped: &|| false,
        progress: &bring,
    };
    for way in ways {
        if !tried.leaves(way) {
            break;
        }
        match brought_to(config, snapshots, way, to, staging, space, &work).await {
            Ok(restored) => {
                progress(1.0);
                return Ok(restored);
            }
            Err(error) => tried.note(way, error)?,
        }
        for part in PARTS.iter().chain([&LATER]) {
            remove(&staging.join(part))?;
        }
    }
    Err(tried.error(ways))
}

async fn brought_to(
    config: &Config,
    snapshots: &Snapshots,
    way: &Way<'_>,
    to: PointInTime,
    staging: &Path,
    space: &Space,
    work: &Work<'_>,
) -> Result<Restored> {
    let past = match way.records {
        Records::Nothing => None,
        Records::Live => return Err(Error::internal("a restore without a server has no live log")),
        Records::Of(later) => {
            let brought = past_of(snapshots, later, way.base, &staging.join(LATER), space, work).await?;
            Some(brought.ok_or_else(|| not_followed(std::slice::from_ref(way)))?)
        }
    };
    let manifest = snapshots.describe_known(way.base).await?;
    snapshots.download(&manifest, staging, space, work).await?;
    (work.progress)(1.0);
    let (dir, settings, workers) = (staging.to_owned(), config.settings(), config.workers());
    blocking(move || Ok(replay(&dir, settings, workers, &manifest, past.as_ref(), to))).await?
}

/// Opens what was downloaded, and brings it to a point in time.
fn replay(
    dir: &Path,
    settings: Settings,
    workers: Workers,
    manifest: &Manifest,
    past: Option<&Past>,
    to: PointInTime,
) -> Result<Restored> {
    let engine = open_download(dir, settings, workers, manifest, &|| false)?;
    if let Some(past) = past {
        engine.replay(past, to.until(), &|| false, &mut |_| {})?;
    }
    let mut restored = Restored {
        snapshot: manifest.name.clone(),
        token: engine.applied().to_string(),
        collections: 0,
        points: 0,
        bytes: manifest.bytes,
    };
    for name in engine.collection_names() {
        restored.collections += 1;
        restored.points += engine.collection(&name)?.points;
    }
    Ok(restored)
}

/// The newest of a store that is of one database: servers may share one.
async fn newest(snapshots: &Snapshots) -> Result<Manifest> {
    let (known, unreadable) = snapshots.known().await?;
    if let Some(why) = unreadable.any() {
        // It may be the newest, or of another database.
        return Err(unnamed(why));
    }
    let newest = known.first().ok_or_else(|| {
        Error::not_found(
            "snapshot_not_found",
            "the store holds no snapshot that can be read: snapshots.url says where it is",
        )
    })?;
    if known
        .iter()
        .any(|other| other.summary.identity != newest.summary.identity)
    {
        return Err(ambiguous("restored"));
    }
    snapshots.describe_known(newest).await
}

/// Refuses if `bytes` of a snapshot do not fit beside what is kept free on the disk.
pub(crate) fn check_room(space: &Space, manifest: &Manifest, bytes: u64) -> Result<()> {
    let (Free { free, reserve }, missing) = (space.free()?, space.missing(bytes)?);
    if missing == 0 {
        return Ok(());
    }
    let kept = match space.is_keeping_log() {
        false => "",
        true => ", and a quarter more so that the log that is kept for restores stays",
    };
    Err(Error::disk_full(format!(
        "snapshot {:?} needs {bytes} bytes on the disk of {}, where {free} are free and {reserve} are kept in reserve{kept}: make \
         room for {missing} more; nothing was changed",
        manifest.name,
        space.dir().display(),
    )))
}

/// Opens what was downloaded and compares it with what the manifest says is in it. That reads every byte: `stop` ends it.
pub(crate) fn open_download(
    dir: &Path,
    settings: Settings,
    workers: Workers,
    manifest: &Manifest,
    stop: &dyn Fn() -> bool,
) -> Result<Engine> {
    let components = crate::serve::components(workers);
    let said = |e: Error| match is_of_this_machine(&e) {
        true => Error {
            message: format!(
                "snapshot {:?} could not be opened here, which is no fault of its own: {}; nothing was changed",
                manifest.name, e.message
            ),
            ..e
        },
        false => damaged(&manifest.name, e),
    };
    // As it was: records may be brought after it, which follow the last one in it.
    let engine = Engine::open_as_left(dir, settings, components).map_err(said)?;
    // Opening looks at little of a file; of one that somebody else may have written everything is looked at first.
    engine.verify_all(stop, &mut |_| ()).map_err(said)?;
    let found = engine.opened_at().to_string();
    if found != manifest.token {
        return Err(damaged(
            &manifest.name,
            format!("its database ends at {found} instead of {}", manifest.token),
        ));
    }
    let found = engine.collection_names();
    if !found.iter().eq(manifest.collections.iter().map(|c| &c.name)) {
        return Err(damaged(
            &manifest.name,
            "its database holds other collections than it says",
        ));
    }
    for said in &manifest.collections {
        let found = engine.collection(&said.name)?;
        if (found.points, found.documents) != (said.points, said.documents) {
            let (points, name) = (found.points, &said.name);
            return Err(damaged(
                &manifest.name,
                format!(
                    "{name:?} holds {points} points instead of {}, or other documents",
                    said.points
                ),
            ));
        }
    }
    Ok(engine)
}

/// Whether files that are what they should be could not be opened for reasons that lie here: the disk is full, too many files
/// are open, nothing may be read. The engine tells most of them as text only. A file that is not there is a fault of the
/// snapshot, as each that it names was brought; and so is whatever is wrong with what they say.
pub(super) fn is_of_this_machine(error: &Error) -> bool {
    match error.kind {
        ErrorKind::Exhausted | ErrorKind::Unavailable | ErrorKind::Deadline | ErrorKind::Cancelled => true,
        ErrorKind::Internal => {
            let io = error.message.contains("i/o: ") || error.message.contains("IO error: ");
            io && !error.message.contains("No such file or directory")
        }
        ErrorKind::Invalid | ErrorKind::NotFound | ErrorKind::Conflict | ErrorKind::Upstream | ErrorKind::Damaged => {
            false
        }
    }
}

/// A data directory that holds nothing, locked.
struct EmptyPlace {
    dir: PathBuf,
    staging: PathBuf,
    _lock: DirLock,
}

impl EmptyPlace {
    fn take(dir: &Path) -> Result<Self> {
        create_root(&LocalDir, dir)?;
        let refused = |what: String| {
            Err(Error::new(
                ErrorKind::Conflict,
                "data_directory_not_empty",
                format!("{} {what}: restore into an empty or a new directory", dir.display()),
            ))
        };
        if let Some(entry) = foreign_entry(&LocalDir, dir)? {
            return refused(format!("holds other things ({})", entry.display()));
        }
        let Some(lock) = DirLock::take(&LocalDir, dir)? else {
            return refused("is in use by another process".to_owned());
        };
        let place = Self {
            dir: dir.to_owned(),
            staging: dir.join(RESTORING),
            _lock: lock,
        };
        if place.staging.exists() {
            // An earlier restore did not come to its end: what stands here is its work. As long as any of it may be there, also
            // after a loss of power, so must be what says so.
            for part in PARTS {
                remove(&dir.join(part))?;
            }
            LocalDir.sync_dir(dir)?;
            remove(&place.staging)?;
        }
        if PARTS.iter().any(|part| dir.join(part).exists()) {
            return refused("holds a database".to_owned());
        }
        fs::create_dir(&place.staging)?;
        LocalDir.sync_dir(dir)?;
        Ok(place)
    }

    /// What was brought becomes the data directory.
    fn fill(self) -> io::Result<()> {
        for part in PARTS {
            let from = self.staging.join(part);
            if from.exists() {
                fs::rename(from, self.dir.join(part))?;
            }
        }
        LocalDir.sync_dir(&self.dir)?;
        self.leave()
    }

    /// Nothing was here, nothing stays.
    fn leave(self) -> io::Result<()> {
        remove(&self.staging)?;
        LocalDir.sync_dir(&self.dir)
    }
}

/// What a data directory consists of, in the order in which it is filled: an engine looks for the database.
const PARTS: [&str; 2] = ["segments", "db"];
/// Where the log is brought to that a snapshot is followed by.
const LATER: &str = "later";

fn remove(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Where collections are restored from, in a data directory that is served.
const RESTORES: &str = "restores";

/// A directory of its own for one restore into a running server.
pub(crate) fn scratch(data_dir: &Path) -> io::Result<tempfile::TempDir> {
    let parent = data_dir.join(RESTORES);
    fs::create_dir_all(&parent)?;
    tempfile::tempdir_in(parent)
}

/// Removes what a crash left of restores. The engine holds the directory's lock.
pub(crate) fn remove_leftovers(data_dir: &Path) -> io::Result<()> {
    remove(&data_dir.join(RESTORES))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_machine_lacks_is_no_damage() {
        let raw = |n: i32| Error::from(io::Error::from_raw_os_error(n));
        let rocksdb = |text: &str| Error::internal(format!("rocksdb: IO error: While open a file: x.sst: {text}"));
        // ENOSPC, EMFILE, EACCES, EIO, ENOMEM.
        for here in [
            raw(28),
            raw(24),
            raw(13),
            raw(5),
            raw(12),
            rocksdb("Too many open files"),
        ] {
            assert!(is_of_this_machine(&here), "{here}");
        }
        for of_it in [
            raw(2),
            rocksdb("No such file or directory"),
            Error::damaged("a checksum"),
            Error::invalid("not_a_data_directory", "no database"),
            Error::internal("rocksdb: Invalid argument: column families not opened: x"),
        ] {
            assert!(!is_of_this_machine(&of_it), "{of_it}");
        }
    }
}
