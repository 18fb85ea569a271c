//! One moment of a collection: what a query sees from its first byte to its last.

use std::sync::Arc;

use crate::error::Error;
use crate::segment::{Missing, SegmentView};
use crate::types::{Ordinal, Seq, ShardNo};

/// One moment of all shards of a collection.
#[derive(Clone, Default)]
pub struct View {
    /// The record that made this moment.
    pub seq: Seq,
    /// By shard number.
    pub shards: Vec<Arc<ShardView>>,
    /// Documents.
    pub documents: u64,
    /// Segments with live points that are not in it, because they are damaged.
    pub missing: Vec<Missing>,
}

/// One moment of a shard: segments by ascending rows, sealed ones first.
#[derive(Clone, Default)]
pub struct ShardView {
    /// The segments.
    pub segments: Vec<SegmentView>,
}

/// Where a row is in a view. Orders as scrolling does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Place {
    pub(super) shard: u32,
    pub(super) segment: u32,
    pub(super) ordinal: Ordinal,
}

impl View {
    pub(super) fn segment(&self, place: Place) -> &SegmentView {
        &self.shards[place.shard as usize].segments[place.segment as usize]
    }

    pub(super) fn id(&self, place: Place) -> &str {
        self.segment(place).segment.id_of(place.ordinal)
    }

    /// Every segment with its place (ordinal 0).
    pub(super) fn segments(&self) -> impl Iterator<Item = (Place, &SegmentView)> {
        self.shards.iter().enumerate().flat_map(|(shard, view)| {
            view.segments.iter().enumerate().map(move |(segment, view)| {
                (
                    Place {
                        shard: shard as u32,
                        segment: segment as u32,
                        ordinal: 0,
                    },
                    view,
                )
            })
        })
    }

    /// What an answer from this view is worth no more: damage was found in one of its segments since it was made, perhaps by
    /// the very question.
    pub fn damaged(&self) -> Option<Error> {
        let found = self.segments().find(|(_, view)| view.segment.damage().is_some());
        found.map(|(place, view)| view.missing(ShardNo(place.shard)).error())
    }

    /// Live points.
    pub fn live(&self) -> u64 {
        self.segments().map(|(_, view)| view.live()).sum()
    }
}
