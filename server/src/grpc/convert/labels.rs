//! Trust and provenance in messages.

use cairn_engine::Result;
use cairn_proto::v1 as pb;

use super::bad_enum;
use crate::rag::trust::{Provenance, Trust};

pub(in crate::grpc) fn trust_in(trust: i32) -> Result<Trust> {
    match pb::Trust::try_from(trust) {
        Ok(pb::Trust::Unspecified | pb::Trust::Unverified) => Ok(Trust::Unverified),
        Ok(pb::Trust::Trusted) => Ok(Trust::Trusted),
        Ok(pb::Trust::Quarantined) => Ok(Trust::Quarantined),
        Err(_) => Err(bad_enum("trust", "Trust", trust)),
    }
}

pub(in crate::grpc) fn trust_out(trust: Trust) -> pb::Trust {
    match trust {
        Trust::Unverified => pb::Trust::Unverified,
        Trust::Trusted => pb::Trust::Trusted,
        Trust::Quarantined => pb::Trust::Quarantined,
    }
}

pub(in crate::grpc) fn provenance_out(provenance: Provenance) -> pb::Provenance {
    pb::Provenance {
        origin: provenance.origin,
        author: provenance.author,
        fetched_at_ms: provenance.fetched_at_ms,
        licence: provenance.licence,
    }
}
