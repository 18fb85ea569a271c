//! Documents in JSON: put, and shown.

use base64::Engine as _;
use cairn_engine::engine::DocumentInfo;
use cairn_engine::types::Payload;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::points::PointOut;
use super::{DurabilityBody, Id};
use crate::rag::trust::{self, Provenance, Trust};
use crate::service::{DocumentFormat, DocumentText, OnNearDuplicate, PutAll};

/// Documents to put. All are checked before the first is written; each is then an atomic write of its own.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::rest) struct PutDocumentsBody {
    /// 1 to 1,000.
    documents: Vec<DocumentBody>,
    /// What to do with a document that says almost the same as another one of the collection. Looked for among what is stored
    /// when it is put: two that different requests put at the same moment may both be stored. Default: store.
    #[serde(default)]
    pub(in crate::rest) on_near_duplicate: OnNearDuplicateBody,
    /// Chosen by the client, at most 64 bytes, new for each request and the same for its retries: within 24 hours a retry is
    /// not done again and is answered what the first was answered. Another request with the same id is refused.
    pub(in crate::rest) request_id: Option<String>,
    /// When to answer. Default: the collection's.
    pub(in crate::rest) durability: Option<DurabilityBody>,
}

/// A document as it is put.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::rest) struct DocumentBody {
    /// Any UTF-8 string of 1 to 480 bytes. Its chunks are the points `<id>#0`, `<id>#1`, ...
    #[schema(value_type = String)]
    id: Id,
    /// The text, unless the document is a file, in `data`.
    #[serde(default)]
    text: String,
    /// The file itself, in base64, for `pdf` and `html`; `text` is then left out.
    #[serde(default, deserialize_with = "base64")]
    #[schema(value_type = String)]
    data: Vec<u8>,
    /// Default: plain.
    #[serde(default)]
    format: FormatBody,
    /// Shown with citations. Default: the text's own title, else empty.
    title: Option<String>,
    /// Where it came from: a path or URL.
    #[serde(default)]
    source: String,
    /// Kept with the document and at the top level of every chunk's payload. The keys `text`, `title`, `heading`, `source`,
    /// `document`, `chunk`, `span`, `trust`, `provenance` and `minhash` are reserved.
    #[serde(default)]
    #[schema(value_type = Object)]
    metadata: Payload,
    /// In every chunk's payload as `trust`. Default: unverified.
    #[serde(default)]
    trust: TrustBody,
    /// In every chunk's payload as `provenance`.
    #[serde(default)]
    provenance: ProvenanceBody,
}

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

impl From<ProvenanceBody> for Provenance {
    fn from(body: ProvenanceBody) -> Self {
        Self {
            origin: body.origin,
            author: body.author,
            fetched_at_ms: body.fetched_at_ms,
            licence: body.licence,
        }
    }
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

/// What to do with a document that says almost the same as another one of the collection.
#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::rest) enum OnNearDuplicateBody {
    /// Store it and say so in the result.
    #[default]
    Store,
    /// Do not store it; the result says of which document it is a near duplicate. A document whose id is stored already is
    /// replaced all the same, and one whose near duplicates are all trusted less is stored all the same.
    Skip,
}

impl From<OnNearDuplicateBody> for OnNearDuplicate {
    fn from(body: OnNearDuplicateBody) -> Self {
        match body {
            OnNearDuplicateBody::Store => Self::Store,
            OnNearDuplicateBody::Skip => Self::Skip,
        }
    }
}

/// Standard base64 with padding.
fn base64<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = std::borrow::Cow::<'_, str>::deserialize(deserializer)?;
    let wrong = |e| serde::de::Error::custom(format!("data is not base64: {e}"));
    base64::engine::general_purpose::STANDARD
        .decode(text.as_bytes())
        .map_err(wrong)
}

/// How to read a text or file.
#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::rest) enum FormatBody {
    /// Plain text.
    #[default]
    Plain,
    /// Cut along headings; chunks know their heading path.
    Markdown,
    /// Visible text with its headings; scripts, styles and navigation are left out.
    Html,
    /// The text layer of a PDF, in `data`.
    Pdf,
}

impl PutDocumentsBody {
    pub(in crate::rest) fn documents(self) -> Vec<DocumentText> {
        let one = |d: DocumentBody| DocumentText {
            id: d.id.0,
            text: d.text,
            data: d.data,
            format: match d.format {
                FormatBody::Plain => DocumentFormat::Plain,
                FormatBody::Markdown => DocumentFormat::Markdown,
                FormatBody::Html => DocumentFormat::Html,
                FormatBody::Pdf => DocumentFormat::Pdf,
            },
            title: d.title,
            source: d.source,
            metadata: d.metadata,
            trust: d.trust.into(),
            provenance: d.provenance.into(),
        };
        self.documents.into_iter().map(one).collect()
    }
}

/// What putting documents did.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::rest) struct PutDocumentsOut {
    /// One for each document, in order.
    results: Vec<PutDocumentOut>,
    /// Token of the last write; absent if nothing was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    /// How safe the least safe of the documents is now.
    durability: DurabilityBody,
}

#[derive(Debug, Serialize, ToSchema)]
pub(in crate::rest) struct PutDocumentOut {
    id: String,
    /// The stored document was the same: nothing was written.
    unchanged: bool,
    /// Chunks it has now.
    chunks: usize,
    /// Chunks that had to be embedded.
    embedded: usize,
    /// The stored document that this one says almost the same as, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    near_duplicate_of: Option<String>,
    /// Not stored, because it is a near duplicate and the request said so.
    skipped: bool,
    /// The request had stored this document before; nothing was done now, and the rest is what was answered then.
    replayed: bool,
}

impl From<PutAll> for PutDocumentsOut {
    fn from(all: PutAll) -> Self {
        let one = |one: crate::service::PutOne| PutDocumentOut {
            id: one.id.as_str().to_owned(),
            unchanged: one.unchanged,
            chunks: one.chunks,
            embedded: one.embedded,
            near_duplicate_of: one.near_duplicate_of.map(|id| id.as_str().to_owned()),
            skipped: one.skipped,
            replayed: one.replayed,
        };
        Self {
            results: all.results.into_iter().map(one).collect(),
            token: all.token.map(|t| t.to_string()),
            durability: all.durability.into(),
        }
    }
}

/// A stored document.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::rest) struct DocumentOut {
    id: String,
    title: String,
    source: String,
    #[schema(value_type = Object)]
    metadata: Payload,
    trust: TrustBody,
    #[serde(skip_serializing_if = "Option::is_none")]
    provenance: Option<ProvenanceBody>,
    /// Number of chunks.
    chunks: u64,
    /// Bytes of the text.
    text_bytes: u64,
    /// xxh3-128 of what decides whether the document changed, in hex.
    checksum: String,
    /// Opaque token of the write that made this version.
    version: String,
}

impl From<DocumentInfo> for DocumentOut {
    fn from(mut info: DocumentInfo) -> Self {
        let (trust, provenance) = trust::unlabel(&mut info.metadata);
        Self {
            id: info.id.as_str().to_owned(),
            title: info.title,
            source: info.source,
            metadata: info.metadata,
            trust: trust.into(),
            provenance: provenance.map(Into::into),
            chunks: info.chunks,
            text_bytes: info.text_bytes,
            checksum: info.checksum.iter().map(|b| format!("{b:02x}")).collect(),
            version: info.version.to_string(),
        }
    }
}

/// A document, and its chunks if asked for.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::rest) struct DocumentViewOut {
    pub(in crate::rest) document: DocumentOut,
    /// In order, with payload and without vectors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::rest) chunks: Option<Vec<PointOut>>,
}

/// A page of documents.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::rest) struct DocumentsOut {
    pub(in crate::rest) documents: Vec<DocumentOut>,
    /// Give this as `after_id` for the next page; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::rest) next: Option<String>,
}
