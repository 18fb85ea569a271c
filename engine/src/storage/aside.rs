//! What is cut off a file of RocksDB is kept first, in `dropped-log/`: evidence for who looks into a crash, never read by us.

use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::{Dir, LocalDir};
use crate::error::Result;
use crate::limits;

/// Copies each file from a byte on to `<file>-from-<byte>` in `aside`; on disk when it returns. Says how many bytes those are.
pub(super) fn keep<'a>(pieces: impl IntoIterator<Item = (&'a Path, u64)>, aside: &Path) -> Result<u64> {
    fs::create_dir_all(aside)?;
    let mut bytes = 0;
    for (file, at) in pieces {
        let name = file.file_stem().unwrap_or_default().to_string_lossy();
        let mut kept = aside.join(format!("{name}-from-{at}"));
        if let Some(extension) = file.extension() {
            kept.as_mut_os_string().push(".");
            kept.as_mut_os_string().push(extension);
        }
        let mut source = File::open(file)?;
        source.seek(SeekFrom::Start(at))?;
        let mut copy = File::create(kept)?;
        bytes += io::copy(&mut source, &mut copy)?;
        copy.sync_all()?;
    }
    LocalDir.sync_dir(aside)?;
    if let Some(parent) = aside.parent() {
        LocalDir.sync_dir(parent)?;
    }
    Ok(bytes)
}

/// Removes the oldest pieces of more than are kept. Nothing depends on it.
pub(super) fn forget_oldest(aside: &Path) {
    let forget = || -> io::Result<()> {
        let aged = |entry: io::Result<fs::DirEntry>| -> io::Result<(SystemTime, PathBuf)> {
            let entry = entry?;
            Ok((entry.metadata()?.modified()?, entry.path()))
        };
        let mut kept: Vec<_> = fs::read_dir(aside)?.map(aged).collect::<io::Result<_>>()?;
        kept.sort_unstable();
        let surplus = kept.len().saturating_sub(limits::DROPPED_LOGS_MAX);
        kept.iter()
            .take(surplus)
            .try_for_each(|(_, piece)| fs::remove_file(piece))
    };
    if let Err(error) = forget() {
        tracing::warn!(%error, dir = %aside.display(), "more of what was cut off is kept than need be");
    }
}
