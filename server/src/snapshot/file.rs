//! One sealed file out of whatever the store has of it: what a damaged one is brought back from.
//!
//! A file's number is never given twice, so the same path in a snapshot of the same database is the same file; whether it is
//! one of the same database is for the caller to prove, by the bytes (`accept`). Snapshots are asked first, the newest first, then what
//! servers have sent of what they sealed, whether a snapshot names it or not. Each content is fetched once.

use std::collections::HashSet;
use std::path::Path;

use cairn_engine::{Error, ErrorKind, Result};

use super::manifest::FileEntry;
use super::{Snapshots, Store, Work};
use crate::config::Config;

/// Which file, and whether what was fetched is it.
pub(crate) struct Wanted<'a> {
    /// Below the data directory; with slashes.
    pub(crate) path: &'a str,
    pub(crate) bytes: u64,
    pub(crate) accept: &'a (dyn Fn(&Path) -> Result<()> + Sync),
}

/// Fetches the file with this path and length from a snapshot, or from the newest thing in the store that has one which `accept`
/// does. Returns where it was, in words; none if nothing has it.
pub async fn find_file(
    config: &Config,
    snapshot: Option<&str>,
    (path, bytes): (&str, u64),
    to: &Path,
    accept: &(dyn Fn(&Path) -> Result<()> + Sync),
) -> Result<Option<String>> {
    let bad = |why: String| Error::invalid("bad_configuration", why);
    let snapshots = Snapshots::new(Store::open(&config.snapshots, &config.data_dir).map_err(bad)?);
    let work = Work {
        stopped: &|| false,
        progress: &|_| {},
    };
    let wanted = Wanted { path, bytes, accept };
    snapshots.find_file(snapshot, &wanted, to, &work).await
}

impl Snapshots {
    /// The same, of a store that is open.
    pub(crate) async fn find_file(
        &self,
        snapshot: Option<&str>,
        wanted: &Wanted<'_>,
        to: &Path,
        work: &Work<'_>,
    ) -> Result<Option<String>> {
        let names: Vec<String> = match snapshot {
            Some(name) => vec![name.to_owned()],
            None => {
                let listed = work.unless_stopped(self.list()).await?;
                listed.into_iter().map(|one| one.name).collect()
            }
        };
        let mut tried = HashSet::new();
        for name in names {
            let manifest = match work.unless_stopped(self.describe(&name)).await {
                // Another one may do; so it may where this one is of a later build.
                Err(error)
                    if snapshot.is_none()
                        && matches!(
                            error.kind,
                            ErrorKind::Damaged | ErrorKind::NotFound | ErrorKind::Conflict
                        ) =>
                {
                    continue;
                }
                manifest => manifest?,
            };
            if self
                .fetch_of(&manifest.files, &name, wanted, to, &mut tried, work)
                .await?
            {
                return Ok(Some(format!("snapshot {name}")));
            }
        }
        if snapshot.is_none() {
            for files in self.lists(work).await? {
                const PLACE: &str = "what was sent as it was sealed";
                if self.fetch_of(&files, PLACE, wanted, to, &mut tried, work).await? {
                    return Ok(Some(PLACE.to_owned()));
                }
            }
        }
        Ok(None)
    }

    /// Whether the file was among these, could be fetched, and is the one.
    async fn fetch_of(
        &self,
        files: &[FileEntry],
        place: &str,
        wanted: &Wanted<'_>,
        to: &Path,
        tried: &mut HashSet<super::Hash>,
        work: &Work<'_>,
    ) -> Result<bool> {
        let Wanted { path, bytes, accept } = *wanted;
        let file = files.iter().find(|file| file.path == path && file.bytes == bytes);
        let Some(file) = file.filter(|file| tried.insert(file.sha256)) else {
            return Ok(false);
        };
        let fetched = self.store.fetch(place, file.content(), Some(to), work, &|_| {}).await;
        let accepted = match fetched {
            Ok(()) => tokio::task::block_in_place(|| accept(to)),
            Err(error) => Err(error),
        };
        match accepted {
            Ok(()) => Ok(true),
            Err(error) => {
                match std::fs::remove_file(to) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
                    _ => {}
                }
                match error.kind {
                    ErrorKind::Damaged => {
                        tracing::warn!(place, path, error = %error, "what the store has is not the file that is missing");
                        Ok(false)
                    }
                    _ => Err(error),
                }
            }
        }
    }
}
