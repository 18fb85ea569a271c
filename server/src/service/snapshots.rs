//! Snapshots: what may be asked of them. Making one, checking one, bringing one back and removing one are operations; what
//! is done with the store is in `snapshot`, what is done with the data belongs to the engine.
//!
//! A collection is restored from a second engine: the files of the snapshot are brought into a directory inside the data
//! directory, opened there, and the collection is copied through the write path. So nothing of a snapshot gets into the
//! database that could not have been written by a caller.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use cairn_engine::Engine;
use cairn_engine::config::{Settings, Workers};
use cairn_engine::engine::{Import, Past};
use cairn_engine::schema::check_name;
use cairn_engine::storage::space::Space;
use cairn_engine::{Error, ErrorKind, Result};
use tokio::runtime::Handle as Runtime;

use super::operations::{Asked, Handle, Operation};
use super::pools::Budget;
use super::{Call, Core, Service};
use crate::config::Config;
use crate::snapshot::{
    Collected, Known, Live, Manifest, PointInTime, Records, Restorable, Snapshots, Source, Store, Summary, Tried,
    Unreadable, Way, Work, already_there, check_room, known_of, name_of, not_followed, not_found, open_download,
    past_of, restorable, scratch, ways,
};
use crate::telemetry;

/// Part of a snapshot's time that verifying takes, where much was not read yet: disks read faster than stores write.
const VERIFYING: f32 = 0.3;
/// Part of a restore's time that bringing the files takes, more or less.
const BRINGING: f32 = 0.3;
/// After which the records that followed are replayed, if there is a point in time.
const REPLAYED: f32 = 0.5;

/// The snapshots of a server, and what a restore needs.
pub(crate) struct SnapshotsOf {
    snapshots: Snapshots,
    data_dir: PathBuf,
    /// Where restores bring their files.
    space: Space,
    /// Whether log is kept that nobody needs.
    retains: bool,
    /// What they are opened with.
    settings: Settings,
}

impl SnapshotsOf {
    /// Those that a configuration says. Nothing is asked of the store yet.
    #[cfg(test)]
    pub(crate) fn open(config: &Config) -> Result<Self, String> {
        Ok(Self::of(config, Store::open(&config.snapshots, &config.data_dir)?))
    }

    /// Those of a store.
    pub(crate) fn of(config: &Config, store: Store) -> Self {
        Self {
            snapshots: Snapshots::new(store),
            data_dir: config.data_dir.clone(),
            space: Space::new(&config.data_dir, config.engine.disk_reserve_bytes),
            retains: config.engine.log_retention_ms > 0,
            settings: config.settings_to_read(),
        }
    }
}

/// A snapshot, as it is told.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SnapshotInfo {
    /// Its name.
    pub name: String,
    /// When the moment was that it holds, in milliseconds since the Unix epoch.
    pub created_at_ms: u64,
    /// The last write in it.
    pub token: String,
    /// Version of Cairn that wrote it.
    pub cairn: String,
    /// Files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// How many collections it holds.
    pub collections_total: u64,
    /// The collections; not in a list.
    pub collections: Vec<SnapshotCollection>,
    /// From where to where it can be restored: it can be followed by the log.
    pub restorable: Option<Restorable>,
    /// Why it cannot be read; then only the name is known.
    pub damaged: Option<String>,
}

/// A collection of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotCollection {
    /// Its name.
    pub name: String,
    /// Live points.
    pub points: u64,
    /// Documents.
    pub documents: u64,
}

/// What to bring back of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RestoreCollections {
    /// One collection, or all.
    pub collection: Option<String>,
    /// The name it gets; none: the one it has.
    pub rename: Option<String>,
    /// Shards it gets; none: as many as it has.
    pub shards: Option<u32>,
    /// Whether collections that have the names are replaced.
    pub replace: bool,
    /// The moment that they are of; none: the snapshot's.
    pub to: Option<PointInTime>,
}

impl From<Manifest> for SnapshotInfo {
    fn from(manifest: Manifest) -> Self {
        let summary = Summary::from(&manifest);
        let collections = manifest.collections.into_iter().map(|c| SnapshotCollection {
            name: c.name,
            points: c.points,
            documents: c.documents,
        });
        Self {
            collections: collections.collect(),
            ..Self::listed(manifest.name, summary)
        }
    }
}

impl SnapshotInfo {
    fn listed(name: String, summary: Summary) -> Self {
        Self {
            name,
            created_at_ms: summary.created_at_ms,
            token: summary.token.to_string(),
            cairn: summary.cairn,
            files: summary.files,
            bytes: summary.bytes,
            collections_total: summary.collections,
            collections: Vec::new(),
            restorable: None,
            damaged: None,
        }
    }
}

impl Service {
    /// Makes a snapshot of this moment.
    pub async fn create_snapshot(&self, call: Call, name: Option<String>) -> Result<Operation> {
        self.begin(call, "Snapshots.Create", |core, budget| {
            let name = name.unwrap_or_else(|| name_of(core.engine.now_ms()));
            if !budget.wait(core.snapshots.snapshots.keys_of(&name))?.is_empty() {
                return Err(already_there(&name));
            }
            let asked = Asked::new("create_snapshot", "").with_snapshot(&name);
            Ok((asked, move |core: &Core, handle: &Handle<'_>| {
                create(core, handle, &name)
            }))
        })
        .await
    }

    /// Compares everything that a snapshot names with what it should be.
    pub async fn verify_snapshot(&self, call: Call, name: String) -> Result<Operation> {
        self.begin(call, "Snapshots.Verify", |core, budget| {
            core.described(budget, &name)?;
            let asked = Asked::new("verify_snapshot", "").with_snapshot(&name);
            Ok((asked, move |core: &Core, handle: &Handle<'_>| {
                let snapshots = &core.snapshots.snapshots;
                let read = with_store(handle, 1.0, async |work| snapshots.verify(&name, work).await)?;
                let (files, bytes) = (read.files.len(), read.bytes);
                handle.say(format!("{files} files of {bytes} bytes are what they should be"));
                Ok(())
            }))
        })
        .await
    }

    /// Removes a snapshot and what no other needs. A damaged one can be removed as well.
    pub async fn delete_snapshot(&self, call: Call, name: String) -> Result<Operation> {
        self.begin(call, "Snapshots.Delete", move |core, budget| {
            // What stands there now: a snapshot that gets the name later is not meant.
            let keys = budget.wait(core.snapshots.snapshots.keys_of(&name))?;
            if keys.is_empty() {
                return Err(not_found(&name));
            }
            let asked = Asked::new("delete_snapshot", "")
                .with_snapshot(&name)
                .in_detail(format!("{keys:?}"));
            Ok((asked, move |core: &Core, handle: &Handle<'_>| {
                let snapshots = &core.snapshots.snapshots;
                let freed = with_store(handle, 1.0, async |work| snapshots.remove(&keys, work).await)?;
                handle.say(told(&freed));
                Ok(())
            }))
        })
        .await
    }

    /// Brings collections back: of a snapshot, or of any moment, for which the best snapshot is found if none is named.
    pub async fn restore_snapshot(
        &self,
        call: Call,
        name: Option<String>,
        what: RestoreCollections,
    ) -> Result<Operation> {
        if let Some(to) = what.to {
            return self.restore_to(call, name, what, to).await;
        }
        self.begin(call, "Snapshots.Restore", move |core, budget| {
            let Some(name) = name else {
                let why = "say which snapshot, or to which moment (to_token, to_time_ms)";
                return Err(Error::invalid("bad_restore", why).at("/snapshot"));
            };
            let key = budget.wait(core.snapshots.snapshots.find(&name))?;
            let manifest = budget.wait(core.snapshots.snapshots.read(&key))?;
            check_request(core, &what)?;
            let names: Vec<String> = manifest.collections.iter().map(|c| c.name.clone()).collect();
            let imports = imports(core, &names, &format!("snapshot {name:?}"), &what)?;
            check_room(core.room(), &manifest, manifest.bytes)?;
            // What is restored, under which name, in how many shards, in whose place.
            let asked = Asked::new("restore_snapshot", what.collection.as_deref().unwrap_or_default())
                .with_snapshot(&name)
                .in_detail(format!("{key} {imports:?}"));
            Ok((asked, move |core: &Core, handle: &Handle<'_>| {
                restore(core, handle, &manifest, &imports)
            }))
        })
        .await
    }

    async fn restore_to(
        &self,
        call: Call,
        name: Option<String>,
        what: RestoreCollections,
        to: PointInTime,
    ) -> Result<Operation> {
        self.begin(call, "Snapshots.Restore", move |core, budget| {
            check_request(core, &what)?;
            let (known, unreadable) = budget.wait(core.snapshots.snapshots.known())?;
            let base = {
                let past = core.engine.past()?;
                let follows = |base: &Summary| follows(&past, base);
                let live = live(core, &past, &follows);
                ways((&known, &unreadable), Some(&live), name.as_deref(), to)?[0]
                    .base
                    .name
                    .clone()
            };
            let asked = Asked::new("restore_snapshot", what.collection.as_deref().unwrap_or_default())
                .with_snapshot(&base)
                .in_detail(format!("{name:?} {what:?}"));
            Ok((asked, move |core: &Core, handle: &Handle<'_>| {
                restore_moment(core, handle, (&known, unreadable), name.as_deref(), to, &what)
            }))
        })
        .await
    }

    /// All snapshots, the newest first.
    pub async fn snapshots(&self, call: Call) -> Result<Vec<SnapshotInfo>> {
        self.look(call, "Snapshots.List", |core, budget| {
            let all = budget.wait(core.snapshots.snapshots.list())?;
            let known = known_of(all.clone());
            let past = core.engine.past()?;
            let follows = |base: &Summary| follows(&past, base);
            let live = live(core, &past, &follows);
            let told = all.into_iter().map(|one| match one.found {
                Ok(summary) => SnapshotInfo {
                    restorable: Some(restorable(&summary, &known, Some(&live))),
                    ..SnapshotInfo::listed(one.name, summary)
                },
                Err(why) => SnapshotInfo {
                    name: one.name,
                    damaged: Some(why.message),
                    ..SnapshotInfo::default()
                },
            });
            Ok(told.collect())
        })
        .await
    }

    /// One snapshot.
    pub async fn snapshot(&self, call: Call, name: String) -> Result<SnapshotInfo> {
        self.look(call, "Snapshots.Get", move |core, budget| {
            let manifest = core.described(budget, &name)?;
            let (known, _) = budget.wait(core.snapshots.snapshots.known())?;
            let past = core.engine.past()?;
            let follows = |base: &Summary| follows(&past, base);
            let live = live(core, &past, &follows);
            let restorable = restorable(&Summary::from(&manifest), &known, Some(&live));
            Ok(SnapshotInfo {
                restorable: Some(restorable),
                ..SnapshotInfo::from(manifest)
            })
        })
        .await
    }

    /// Looks first, so that what is wrong with a request is its answer; then begins the operation.
    async fn begin<W>(
        &self,
        call: Call,
        method: &'static str,
        look: impl FnOnce(&Core, &Budget) -> Result<(Asked, W)> + Send + 'static,
    ) -> Result<Operation>
    where
        W: FnOnce(&Core, &Handle<'_>) -> Result<()> + Send + 'static,
    {
        let operations = Arc::clone(&self.operations);
        let core = Arc::clone(&self.core);
        self.look(call, method, move |found, budget| {
            let (asked, work) = look(found, budget)?;
            operations.start(asked, move |handle| work(&core, handle))
        })
        .await
    }
}

impl Core {
    /// Where restores bring their files. What is kept to come to a moment must not be given up for them.
    fn room(&self) -> &Space {
        let of = &self.snapshots;
        of.space.keeps_log(of.retains && self.engine.stats().retained_bytes > 0);
        &of.space
    }

    fn described(&self, budget: &Budget, name: &str) -> Result<Manifest> {
        budget.wait(self.snapshots.snapshots.describe(name))
    }
}

/// Does work with the store on the blocking thread of an operation, until that is to stop. It is this `share` of the whole.
fn with_store<T>(handle: &Handle<'_>, share: f32, work: impl AsyncFnOnce(&Work<'_>) -> Result<T>) -> Result<T> {
    let told = Work {
        stopped: &|| handle.stopped(),
        progress: &|part| handle.progress(part * share),
    };
    Runtime::current().block_on(work(&told))
}

/// What a delete did, for people.
fn told(freed: &Collected) -> String {
    match freed {
        Collected::Removed { objects, bytes } => format!("removed {objects} files of {bytes} bytes"),
        Collected::Later => {
            "a snapshot is being written: the next delete removes the files that nobody needs".to_owned()
        }
        Collected::Kept { manifest, why, more } => {
            let others = match more {
                0 => String::new(),
                more => format!(" (and {more} others)"),
            };
            format!(
                "the snapshot is removed, and its files stay: what snapshot {:?}{others} needs cannot be read, {why}. Bring its \
                 manifest back (snapshots/{manifest}), or delete it; a delete after that removes the files that nobody needs",
                manifest.name
            )
        }
    }
}

fn create(core: &Core, handle: &Handle<'_>, name: &str) -> Result<()> {
    let snapshots = &core.snapshots.snapshots;
    let cut = core.engine.cut(&|| handle.stopped(), &mut |part| {
        handle.tell(
            part * VERIFYING,
            "verifying what was not read since the start".to_owned(),
        );
    })?;
    handle.tell(VERIFYING, "sending what is new".to_owned());
    let told = Work {
        stopped: &|| handle.stopped(),
        progress: &|part| handle.progress(VERIFYING + (1.0 - VERIFYING) * part),
    };
    let made = Runtime::current().block_on(snapshots.create(name, Source::from(&cut), &told))?;
    telemetry::snapshot_finished();
    handle.say(format!(
        "{} files of {} bytes, of them new: {} files of {} bytes",
        made.manifest.files.len(),
        made.manifest.bytes,
        made.new_files,
        made.new_bytes
    ));
    Ok(())
}

fn restore(core: &Core, handle: &Handle<'_>, manifest: &Manifest, imports: &[Import]) -> Result<()> {
    let of = &core.snapshots;
    // Declared first: it goes after the engine that is open in it.
    let scratch = scratch(&of.data_dir)?;
    with_store(handle, BRINGING, async |work| {
        of.snapshots.download(manifest, scratch.path(), core.room(), work).await
    })?;
    let source = open_download(scratch.path(), of.settings.clone(), Workers::alone(), manifest, &|| {
        handle.stopped()
    })?;
    import(core, handle, &source, imports, BRINGING)
}

/// Whether a log has what follows a snapshot. One that cannot be read does not.
fn follows(past: &Past, base: &Summary) -> bool {
    past.identity == base.identity
        && past
            .history_at(base.token.seq)
            .is_ok_and(|there| there == Some(base.history))
}

fn live<'a>(core: &Core, past: &'a Past, follows: &'a dyn Fn(&Summary) -> bool) -> Live<'a> {
    Live {
        identity: past.identity,
        epochs: &past.epochs,
        last: past.last,
        now_ms: core.engine.now_ms(),
        follows,
    }
}

/// Brings a database to a moment in a directory of its own, and collections from there.
fn restore_moment(
    core: &Core,
    handle: &Handle<'_>,
    (known, unreadable): (&[Known], Unreadable),
    name: Option<&str>,
    to: PointInTime,
    what: &RestoreCollections,
) -> Result<()> {
    let past = core.engine.past()?;
    let follows = |base: &Summary| follows(&past, base);
    let live = live(core, &past, &follows);
    let ways = ways((known, &unreadable), Some(&live), name, to)?;
    let mut tried = Tried::beginning(unreadable);
    for way in &ways {
        if !tried.leaves(way) {
            break;
        }
        // Declared first: it goes after the database that is open in it.
        let scratch = scratch(&core.snapshots.data_dir)?;
        match brought_to(core, handle, way, to, scratch.path()) {
            Ok(source) => {
                let imports = imports(core, &source.collection_names(), &format!("the moment {to}"), what)?;
                return import(core, handle, &source, &imports, REPLAYED);
            }
            Err(error) => tried.note(way, error)?,
        }
    }
    Err(tried.error(&ways))
}

/// A database at a moment, in `dir`.
fn brought_to(core: &Core, handle: &Handle<'_>, way: &Way<'_>, to: PointInTime, dir: &Path) -> Result<Engine> {
    let of = &core.snapshots;
    // Declared first: it goes after the log that is open in it.
    let beside = scratch(&of.data_dir)?;
    let past = match way.records {
        Records::Nothing => None,
        // Before anything is brought: from now on what follows the snapshot is not trimmed, however full the disk is.
        Records::Live => Some(core.engine.past_after(way.base.summary.token.seq)?),
        Records::Of(later) => {
            let brought = with_store(handle, BRINGING, async |work| {
                past_of(&of.snapshots, later, way.base, beside.path(), core.room(), work).await
            })?;
            Some(brought.ok_or_else(|| not_followed(std::slice::from_ref(way)))?)
        }
    };
    let manifest = with_store(handle, BRINGING, async |work| {
        let manifest = of.snapshots.describe_known(way.base).await?;
        of.snapshots.download(&manifest, dir, core.room(), work).await?;
        Ok(manifest)
    })?;
    let stopped = || handle.stopped();
    let source = open_download(dir, of.settings.clone(), Workers::alone(), &manifest, &stopped)?;
    if let Some(past) = past {
        let mut progress = |part: f32| handle.progress(BRINGING + (REPLAYED - BRINGING) * part);
        source.replay(&past, to.until(), &stopped, &mut progress)?;
    }
    Ok(source)
}

/// Copies collections of a database that is complete. `from` is how much of the operation is done already.
fn import(core: &Core, handle: &Handle<'_>, source: &Engine, imports: &[Import], from: f32) -> Result<()> {
    let mut points = 0;
    for (i, import) in imports.iter().enumerate() {
        #[expect(clippy::cast_precision_loss, reason = "a part between 0 and 1")]
        let (done, all) = (i as f32, imports.len() as f32);
        let mut progress = |part: f32| handle.progress(from + (1.0 - from) * (done + part) / all);
        let imported = core.engine.import(source, import, &|| handle.stopped(), &mut progress);
        let info = imported.map_err(|e| Error {
            message: format!(
                "{i} of {all} collections were restored before this happened: {}",
                e.message
            ),
            ..e
        })?;
        points += info.points;
    }
    handle.say(format!(
        "{} collections with {points} points, as they were after {}",
        imports.len(),
        source.applied()
    ));
    Ok(())
}

/// Refuses what can be refused of a request before anything is looked at.
fn check_request(core: &Core, what: &RestoreCollections) -> Result<()> {
    let most = cairn_engine::limits::SHARDS_MAX;
    if what.collection.is_none() && (what.rename.is_some() || what.shards.is_some()) {
        let why = "a name or a number of shards is for one collection: say which";
        return Err(Error::invalid("bad_restore", why).at("/collection"));
    }
    if what.shards.is_some_and(|n| !(1..=most).contains(&n)) {
        return Err(Error::invalid("bad_shards", format!("shards must be 1 to {most}")).at("/shards"));
    }
    let Some(name) = &what.collection else {
        return Ok(());
    };
    check_name("collection", name).map_err(|e| e.at("/collection"))?;
    check_target(core, what.rename.as_ref().unwrap_or(name), what.replace)
}

/// Refuses a name that a restored collection cannot get.
fn check_target(core: &Core, name: &str, replace: bool) -> Result<()> {
    check_name("collection", name).map_err(|e| e.at("/as"))?;
    if replace || core.engine.schema(name).is_err() {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Conflict,
        "collection_exists",
        format!(
            "collection {name:?} exists: restore it under another name (as), or say that it is to be replaced (replace)"
        ),
    ))
}

/// Which of the collections `there` become which; refuses before anything is written what would be refused after.
fn imports(core: &Core, there: &[String], whose: &str, what: &RestoreCollections) -> Result<Vec<Import>> {
    let of = |name: &str| Import {
        collection: name.to_owned(),
        name: what.rename.clone().unwrap_or_else(|| name.to_owned()),
        shards: what.shards,
        replace: what.replace,
    };
    let all: Vec<Import> = match &what.collection {
        None => there.iter().map(|name| of(name)).collect(),
        Some(name) if there.contains(name) => vec![of(name)],
        Some(name) => {
            return Err(Error::not_found(
                "collection_not_found",
                format!("{whose} holds no collection {name:?}"),
            ));
        }
    };
    for import in &all {
        check_target(core, &import.name, import.replace)?;
    }
    Ok(all)
}
