//! Trust and provenance in JSON.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::rag::trust::{Provenance, Trust};

/// How far a document's content is trusted.
#[derive(Debug, Clone, Copy, Default, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::rest) enum TrustBody {
    /// Nobody has looked at it.
    #[default]
    Unverified,
    /// Somebody vouches for it.
    Trusted,
    /// Kept, searchable by query, but not put into prompts unless a request names this label.
    Quarantined,
}

impl From<TrustBody> for Trust {
    fn from(trust: TrustBody) -> Self {
        match trust {
            TrustBody::Unverified => Self::Unverified,
            TrustBody::Trusted => Self::Trusted,
            TrustBody::Quarantined => Self::Quarantined,
        }
    }
}

impl From<Trust> for TrustBody {
    fn from(trust: Trust) -> Self {
        match trust {
            Trust::Unverified => Self::Unverified,
            Trust::Trusted => Self::Trusted,
            Trust::Quarantined => Self::Quarantined,
        }
    }
}

/// Where a document's content is from. All parts are optional and come back with citations.
#[derive(Debug, Clone, Default, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::rest) struct ProvenanceBody {
    /// Who or what brought it in, e.g. `crawler`, `upload`.
    #[serde(skip_serializing_if = "String::is_empty")]
    origin: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    author: String,
    /// Milliseconds since the Unix epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    fetched_at_ms: Option<u64>,
    #[serde(skip_serializing_if = "String::is_empty")]
    licence: String,
}

impl From<Provenance> for ProvenanceBody {
    fn from(provenance: Provenance) -> Self {
        Self {
            origin: provenance.origin,
            author: provenance.author,
            fetched_at_ms: provenance.fetched_at_ms,
            licence: provenance.licence,
        }
    }
}
