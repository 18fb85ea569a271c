//! What an answer was given without, in JSON.

use cairn_engine::engine::DamagedSegment;
use cairn_engine::segment::Missing;
use serde::Serialize;
use utoipa::ToSchema;

/// What an answer was given without, because it is damaged and the request allowed that.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::rest) struct PartialOut {
    /// Live points that were not looked at.
    points: u64,
    segments: Vec<DamagedSegmentOut>,
}

/// A segment whose file is damaged or missing.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::rest) struct DamagedSegmentOut {
    collection: String,
    shard: u32,
    segment: u64,
    /// Live points in it.
    points: u64,
    /// What is wrong.
    reason: String,
}

impl DamagedSegmentOut {
    pub(super) fn of(collection: &str, missing: Missing) -> Self {
        Self {
            collection: collection.to_owned(),
            shard: missing.shard,
            segment: missing.segment,
            points: missing.points,
            reason: missing.reason,
        }
    }
}

/// None if nothing is missing.
pub(in crate::rest) fn partial_out(collection: &str, missing: Vec<Missing>) -> Option<PartialOut> {
    let of = |missing| DamagedSegmentOut::of(collection, missing);
    partial(missing.into_iter().map(of).collect())
}

/// The same of several collections.
pub(super) fn partial_of_all(missing: Vec<DamagedSegment>) -> Option<PartialOut> {
    let of = |damaged: DamagedSegment| DamagedSegmentOut::of(&damaged.collection, damaged.missing);
    partial(missing.into_iter().map(of).collect())
}

fn partial(segments: Vec<DamagedSegmentOut>) -> Option<PartialOut> {
    let points = segments.iter().map(|segment| segment.points).sum();
    (!segments.is_empty()).then_some(PartialOut { points, segments })
}
