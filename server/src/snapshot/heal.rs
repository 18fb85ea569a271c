//! Damaged sealed files are brought back from the store, by themselves: under a running engine ([`Healer`]), and where a start needs one
//! of them to apply its log ([`bring_back_closed`]).
//!
//! Guarantees: what takes the place of a damaged file is that file, every byte of it; the engine proves it by its manifest. Files are
//! brought one at a time, at most `snapshots.bytes_per_second_max`, into the data directory's scratch, while there is room. Queries
//! and writes do not wait for it.
//! Not guaranteed: that the store has it. A file that was sealed or merged after the last snapshot, and not sent by
//! `snapshots.upload_sealed`, is nowhere else.
//! Failure: a file is looked for again after a pause, which doubles; also one that was brought back and is damaged again, for its disk
//! may be the reason.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cairn_engine::engine::{Repair, Wanted as Damaged};
use cairn_engine::storage::space::Space;
use cairn_engine::{Engine, Error, ErrorKind, Result};
use tokio::time::Instant;

use super::file::Wanted;
use super::{Snapshots, Store, Work, restore};
use crate::config::Config;
use crate::telemetry;

/// How often it looks for damage.
const LOOK: Duration = Duration::from_secs(2);
/// The pause before a file is looked for again, and the longest that it grows to.
const PAUSES: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(3_600));

/// Brings damaged files back.
pub(crate) struct Healer {
    snapshots: Snapshots,
    data_dir: PathBuf,
    space: Space,
    /// By path: when it is looked for again, and how long the pause is after that.
    tried: BTreeMap<String, (Instant, Duration)>,
}

impl Healer {
    pub(crate) fn new(snapshots: Snapshots, data_dir: &Path, reserve_bytes: u64) -> Self {
        Self {
            snapshots,
            data_dir: data_dir.to_owned(),
            space: Space::new(data_dir, reserve_bytes),
            tried: BTreeMap::new(),
        }
    }

    /// Brings back what is damaged, until it is stopped.
    pub(crate) async fn run(mut self, engine: &Engine, stopped: &(dyn Fn() -> bool + Sync)) {
        let work = Work {
            stopped,
            progress: &|_| (),
        };
        let pause = || async {
            tokio::time::sleep(LOOK).await;
            Ok(())
        };
        while !stopped() {
            self.look(engine, &work).await;
            if work.unless_stopped(pause()).await.is_err() {
                return;
            }
        }
    }

    /// Tries each file that is due.
    async fn look(&mut self, engine: &Engine, work: &Work<'_>) {
        for damaged in engine.wanted() {
            let now = Instant::now();
            let due = self.tried.get(&damaged.path).is_none_or(|(next, _)| *next <= now);
            if !due {
                continue;
            }
            let Damaged {
                collection,
                path,
                points,
                ..
            } = &damaged;
            match self.bring_back(engine, &damaged, work).await {
                Ok(Some(from)) => {
                    tracing::info!(
                        collection,
                        path,
                        points,
                        from,
                        "a damaged segment was brought back from the store: it is searched again"
                    );
                }
                Ok(None) => {
                    telemetry::restore_of_segment_failed();
                    tracing::warn!(
                        collection,
                        path,
                        points,
                        "a segment is damaged, and the store has no copy of it: see docs/operating/damage.md"
                    );
                }
                Err(error) if error.kind == ErrorKind::Cancelled => return,
                Err(error) => {
                    telemetry::restore_of_segment_failed();
                    tracing::warn!(collection, path, %error, "a damaged segment could not be brought back from the store, trying again later");
                }
            }
            let pause = self.tried.get(&damaged.path).map_or(PAUSES.0, |(_, pause)| *pause);
            let next = (Instant::now() + pause, (pause * 2).min(PAUSES.1));
            self.tried.insert(damaged.path, next);
        }
    }

    /// Where it was brought back from; none if the store does not have it.
    async fn bring_back(&self, engine: &Engine, damaged: &Damaged, work: &Work<'_>) -> Result<Option<String>> {
        // It is there twice for a moment: as it came, and in its place.
        if self.space.missing(damaged.bytes.saturating_mul(2)).unwrap_or(0) > 0 {
            return Err(Error::disk_full("there is no room for it"));
        }
        let scratch = restore::scratch(&self.data_dir)?;
        let wanted = Wanted {
            path: &damaged.path,
            bytes: damaged.bytes,
            accept: &|fetched| engine.take_back(damaged.place, fetched, work.stopped).map(drop),
        };
        let to = scratch.path().join("fetched.seg");
        self.snapshots.find_file(None, &wanted, &to, work).await
    }
}

/// The same of a directory that no engine has open, because it needs one of them. Returns how many files were brought back.
pub(crate) async fn bring_back_closed(config: &Config, stopped: &(dyn Fn() -> bool + Sync)) -> Result<usize> {
    let bad = |why: String| Error::invalid("bad_configuration", why);
    let snapshots = Snapshots::new(Store::open(&config.snapshots, &config.data_dir).map_err(bad)?);
    let work = Work {
        stopped,
        progress: &|_| (),
    };
    let repair = Repair::begin(&config.data_dir)?;
    let mut brought = 0;
    for damaged in tokio::task::block_in_place(|| repair.damaged(stopped))? {
        let scratch = restore::scratch(&config.data_dir)?;
        let wanted = Wanted {
            path: &damaged.path,
            bytes: damaged.bytes,
            accept: &|fetched| repair.take_back(damaged.segment, fetched, stopped),
        };
        let to = scratch.path().join("fetched.seg");
        if let Some(from) = snapshots.find_file(None, &wanted, &to, &work).await? {
            tracing::info!(
                path = damaged.path,
                from,
                "a damaged segment was brought back from the store"
            );
            brought += 1;
        }
    }
    Ok(brought)
}
