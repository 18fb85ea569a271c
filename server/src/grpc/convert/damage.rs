//! What an answer was given without, in messages.

use cairn_engine::engine::DamagedSegment;
use cairn_engine::segment::Missing;
use cairn_proto::v1 as pb;

pub(super) fn damaged_out(collection: &str, missing: Missing) -> pb::DamagedSegment {
    pb::DamagedSegment {
        collection: collection.to_owned(),
        shard: missing.shard,
        segment: missing.segment,
        points: missing.points,
        reason: missing.reason,
    }
}

/// None if nothing is missing.
pub(in crate::grpc) fn partial_out(collection: &str, missing: Vec<Missing>) -> Option<pb::Partial> {
    partial(
        missing
            .into_iter()
            .map(|missing| damaged_out(collection, missing))
            .collect(),
    )
}

/// The same of several collections.
pub(super) fn partial_of_all(missing: Vec<DamagedSegment>) -> Option<pb::Partial> {
    let of = |damaged: DamagedSegment| damaged_out(&damaged.collection, damaged.missing);
    partial(missing.into_iter().map(of).collect())
}

fn partial(segments: Vec<pb::DamagedSegment>) -> Option<pb::Partial> {
    let points = segments.iter().map(|segment| segment.points).sum();
    (!segments.is_empty()).then_some(pb::Partial { points, segments })
}
