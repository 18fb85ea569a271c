//! Which segments a collection has at one moment, whether or not anybody has looked into them yet.
//!
//! The applier publishes listings, and they cost it no look into a file. A question is asked of a [`View`], which is made of a
//! listing when every file of it that is needed was verified.

use std::sync::{Arc, OnceLock};

use super::view::{ShardView, View};
use crate::error::{ErrorKind, Result};
use crate::patience::Patience;
use crate::segment::{Missing, SealedView, SegmentView};
use crate::types::{Seq, ShardNo};

/// One moment of all shards of a collection.
#[derive(Default)]
pub struct Listing {
    /// The record that made this moment.
    pub seq: Seq,
    /// By shard number.
    pub shards: Vec<Arc<ShardListing>>,
    /// Documents.
    pub documents: u64,
    /// The view of all segments, once there is one.
    view: OnceLock<Arc<View>>,
}

/// One moment of a shard.
#[derive(Clone, Default)]
pub struct ShardListing {
    /// Sealed files by ascending rows.
    pub sealed: Vec<SealedView>,
    /// Growing segments by ascending rows, all after the sealed ones.
    pub growing: Vec<SegmentView>,
}

/// What is to become of an answer that would need a damaged segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lacking {
    /// There is none but an error.
    Refuse,
    /// It is given without the segment, and says so.
    Tell,
}

impl Listing {
    /// A moment.
    pub fn new(seq: Seq, shards: Vec<Arc<ShardListing>>, documents: u64) -> Self {
        Self {
            seq,
            shards,
            documents,
            view: OnceLock::new(),
        }
    }

    /// Every sealed file with its shard.
    pub fn sealed(&self) -> impl Iterator<Item = (ShardNo, &SealedView)> {
        let shards = self.shards.iter().zip(0..).map(|(shard, no)| (ShardNo(no), shard));
        shards.flat_map(|(no, shard)| shard.sealed.iter().map(move |view| (no, view)))
    }

    /// Live points, those in damaged files too.
    pub fn live(&self) -> u64 {
        let growing = self.shards.iter().flat_map(|shard| &shard.growing);
        self.sealed().map(|(_, view)| view.live()).sum::<u64>() + growing.map(SegmentView::live).sum::<u64>()
    }

    /// Files that are known to be damaged.
    pub fn damaged(&self) -> impl Iterator<Item = Missing> {
        let damaged = self.sealed().filter(|(_, view)| view.file.damage().is_some());
        damaged.map(|(shard, view)| view.missing(shard))
    }

    /// What questions can be asked of. Verifies what was not verified yet; other callers' verifications are waited for.
    pub fn view(&self, patience: &Patience, lacking: Lacking) -> Result<Arc<View>> {
        if let Some(view) = self.view.get().filter(|view| view.damaged().is_none()) {
            return Ok(Arc::clone(view));
        }
        let mut view = View {
            seq: self.seq,
            shards: Vec::with_capacity(self.shards.len()),
            documents: self.documents,
            missing: Vec::new(),
        };
        for (shard, listed) in self.shards.iter().enumerate() {
            let mut segments = Vec::with_capacity(listed.sealed.len() + listed.growing.len());
            for sealed in &listed.sealed {
                match sealed.file.sound(patience) {
                    Ok(segment) => segments.push(sealed.with(segment)),
                    // Of a file without live rows nothing is missing.
                    Err(error) if error.kind == ErrorKind::Damaged && sealed.live() == 0 => {}
                    Err(error) if error.kind == ErrorKind::Damaged => {
                        let missing = sealed.missing(ShardNo(shard as u32));
                        match lacking {
                            Lacking::Refuse => return Err(missing.error()),
                            Lacking::Tell => view.missing.push(missing),
                        }
                    }
                    Err(error) => return Err(error),
                }
            }
            segments.extend(listed.growing.iter().cloned());
            view.shards.push(Arc::new(ShardView { segments }));
        }
        let view = Arc::new(view);
        if view.missing.is_empty() {
            // Another one may have been faster, or be older than some damage.
            let _ = self.view.set(Arc::clone(&view));
        }
        Ok(view)
    }
}
