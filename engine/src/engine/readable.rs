//! What a write reads of sealed files, and that it can be read: decided before its record enters the log.
//!
//! What a record does is decided when it is applied, from the state as the records before it left it, and a restart decides
//! again. So it must not depend on whether a file is damaged today. Most writes need no file: `ids` says which row an id means,
//! and the manifest says which file has the row, so that it can die unseen. Those that do need one are refused here while it
//! cannot be read, and nothing of them is written ([decision 14](../../../docs/decisions/0014-damaged-segments.md)):
//!
//! | operation | reads |
//! |---|---|
//! | `Upsert`, `Delete` | nothing |
//! | `PutDocument`, `DeleteDocuments` | which rows there are in the document's shard ([`Sealed::identity`](crate::segment::Sealed::identity)) |
//! | `SetPayload` | the rows that it changes |
//! | `DeleteMatching` | what is searched of every segment |
//!
//! What was verified here stays readable for the applier, which has the lock, even if damage is found elsewhere meanwhile.

use super::applier::{Applier, State};
use super::commit::Shared;
use crate::collection::Collection;
use crate::error::{Error, ErrorKind, Result};
use crate::op::Op;
use crate::patience::Patience;
use crate::segment::SealedView;
use crate::storage::{IDS, Storage, key};
use crate::types::{PointId, Row, ShardNo};

impl Shared {
    /// Verifies what operations will read, before their turn comes and while others write. Damage is no error yet: it is
    /// decided with the lock.
    pub(super) fn verify_for(&self, collection: &Collection, ops: &[Op], patience: &Patience) -> Result<()> {
        let listing = collection.listing();
        let shards = |shard: usize| &listing.shards[shard].sealed[..];
        for op in ops.iter().filter(|op| reads(op) == Some(collection.no)) {
            match check(&self.storage, collection, &shards, op, patience) {
                Err(error) if error.kind != ErrorKind::Damaged => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

impl Applier {
    /// An error if one of the operations needs what cannot be read.
    pub(super) fn check_readable(&self, storage: &Storage, ops: &[Op]) -> Result<()> {
        for op in ops {
            let Some(state) = reads(op).and_then(|no| self.states.get(&no)) else {
                continue;
            };
            let State { collection, shards, .. } = state;
            let sealed = |shard: usize| &shards[shard].sealed[..];
            check(storage, collection, &sealed, op, Patience::endless())?;
        }
        Ok(())
    }
}

/// Of which collection an operation reads files.
fn reads(op: &Op) -> Option<crate::types::CollectionNo> {
    match op {
        Op::DeleteMatching { no, .. }
        | Op::SetPayload { no, .. }
        | Op::PutDocument { no, .. }
        | Op::DeleteDocuments { no, .. } => Some(*no),
        Op::CreateCollection { .. }
        | Op::DropCollection { .. }
        | Op::Upsert { .. }
        | Op::Delete { .. }
        | Op::RenameCollection { .. } => None,
    }
}

fn check<'a>(
    storage: &Storage,
    collection: &Collection,
    shards: &dyn Fn(usize) -> &'a [SealedView],
    op: &Op,
    patience: &Patience,
) -> Result<()> {
    let all = || (0..collection.schema.shards as usize).flat_map(|shard| shards(shard).iter().map(move |v| (shard, v)));
    if all().all(|(_, view)| view.file.is_sound()) {
        return Ok(());
    }
    let refused = |shard: usize, view: &SealedView, error: Error| match error.kind {
        ErrorKind::Damaged => {
            let missing = view.missing(ShardNo(shard as u32));
            Error {
                message: format!(
                    "nothing was written: the write has to read {}; bring the file back from a snapshot (cairn repair). \
                     Upserts and deletes by id need no file and go on",
                    missing.describe(),
                ),
                ..missing.error()
            }
        }
        _ => error,
    };
    let document = |id: &PointId| -> Result<()> {
        let shard = collection.shard_of(id, None).0 as usize;
        shards(shard)
            .iter()
            .filter(|view| view.live() > 0)
            .try_for_each(|view| {
                let identity = view.file.identity(patience);
                identity.map(drop).map_err(|error| refused(shard, view, error))
            })
    };
    match op {
        Op::DeleteMatching { .. } => all().filter(|(_, view)| view.live() > 0).try_for_each(|(shard, view)| {
            let segment = view.file.segment(patience);
            segment.map(drop).map_err(|error| refused(shard, view, error))
        }),
        Op::PutDocument { document: put, .. } => document(&put.id),
        Op::DeleteDocuments { ids, .. } => ids.iter().try_for_each(document),
        Op::SetPayload { ids, .. } => {
            for id in ids {
                for shard in 0..collection.schema.shards {
                    let Some(bytes) = storage.get(IDS, &key::id(collection.no, ShardNo(shard), id))? else {
                        continue;
                    };
                    let bytes = <[u8; 8]>::try_from(&bytes[..])
                        .map_err(|_| Error::damaged("ids: a row of the wrong length"))?;
                    let row = Row(u64::from_le_bytes(bytes));
                    let shard = shard as usize;
                    let with = |view: &&SealedView| view.file.entry.first <= row && row <= view.file.entry.last;
                    if let Some(view) = shards(shard).iter().find(with) {
                        let read = view.file.segment(patience).and_then(|segment| {
                            let ordinal = segment.ordinal_of(row);
                            ordinal.map_or(Ok(()), |ordinal| segment.verify_row(ordinal))
                        });
                        read.map_err(|error| refused(shard, view, error))?;
                    }
                }
            }
            Ok(())
        }
        Op::CreateCollection { .. }
        | Op::DropCollection { .. }
        | Op::Upsert { .. }
        | Op::Delete { .. }
        | Op::RenameCollection { .. } => Ok(()),
    }
}
