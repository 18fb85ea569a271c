//! One sealed file out of whatever snapshot has it: what a damaged one is brought back from.
//!
//! A file's number is never given twice, so the same path in a snapshot of the same database is the same file; whether it is
//! one of the same database is for the caller to prove, by the bytes (`accept`). Each content is fetched once.

use std::collections::HashSet;
use std::path::Path;

use cairn_engine::{Error, ErrorKind, Result};

use super::{Snapshots, Store, Work};
use crate::config::Config;

/// Fetches the file with this path and length from a snapshot, or from the newest that has one which `accept` does. Returns the
/// snapshot's name; none if none has it.
pub async fn find_file(
    config: &Config,
    snapshot: Option<&str>,
    (path, bytes): (&str, u64),
    to: &Path,
    accept: &(dyn Fn(&Path) -> Result<()> + Sync),
) -> Result<Option<String>> {
    let bad = |why: String| Error::invalid("bad_configuration", why);
    let snapshots = Snapshots::new(Store::open(&config.snapshots, &config.data_dir).map_err(bad)?);
    let names: Vec<String> = match snapshot {
        Some(name) => vec![name.to_owned()],
        None => snapshots.list().await?.into_iter().map(|one| one.name).collect(),
    };
    let work = Work {
        stopped: &|| false,
        progress: &|_| {},
    };
    let mut tried = HashSet::new();
    for name in names {
        let manifest = match snapshots.describe(&name).await {
            // Another one may do.
            Err(error) if snapshot.is_none() && matches!(error.kind, ErrorKind::Damaged | ErrorKind::NotFound) => {
                continue;
            }
            manifest => manifest?,
        };
        let file = manifest
            .files
            .iter()
            .find(|file| file.path == path && file.bytes == bytes);
        let Some(file) = file.filter(|file| tried.insert(file.sha256)) else {
            continue;
        };
        let fetched = snapshots
            .store
            .fetch(&name, file.content(), Some(to), &work, &|_| {})
            .await;
        let accepted = match fetched {
            Ok(()) => tokio::task::block_in_place(|| accept(to)),
            Err(error) => Err(error),
        };
        match accepted {
            Ok(()) => return Ok(Some(name)),
            Err(error) if error.kind == ErrorKind::Damaged => {
                tracing::warn!(snapshot = name, path, error = %error, "a snapshot's file is not the one that is missing");
                match std::fs::remove_file(to) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
                    _ => {}
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}
