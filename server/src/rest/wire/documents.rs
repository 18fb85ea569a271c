//! Documents in JSON: put, and shown.

use cairn_engine::engine::DocumentInfo;
use cairn_engine::types::Payload;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Id;
use super::points::PointOut;
use crate::rag::chunk::TextFormat;
use crate::service::{DocumentText, PutAll};

/// Documents to put. All are checked before the first is written; each is then an atomic write of its own.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::rest) struct PutDocumentsBody {
    /// 1 to 1,000.
    documents: Vec<DocumentBody>,
    /// Chosen by the client, at most 64 bytes; kept in the log.
    pub(in crate::rest) request_id: Option<String>,
}

/// A document as it is put.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::rest) struct DocumentBody {
    /// Any UTF-8 string of 1 to 480 bytes. Its chunks are the points `<id>#0`, `<id>#1`, ...
    #[schema(value_type = String)]
    id: Id,
    text: String,
    /// Default: plain.
    #[serde(default)]
    format: FormatBody,
    /// Shown with citations. Default: the text's own title, else empty.
    title: Option<String>,
    /// Where it came from: a path or URL.
    #[serde(default)]
    source: String,
    /// Kept with the document and at the top level of every chunk's payload. The keys `text`, `title`, `heading`, `source`,
    /// `document`, `chunk` and `span` are reserved.
    #[serde(default)]
    #[schema(value_type = Object)]
    metadata: Payload,
}

/// How to read a text.
#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::rest) enum FormatBody {
    #[default]
    Plain,
    Markdown,
}

impl PutDocumentsBody {
    pub(in crate::rest) fn documents(self) -> Vec<DocumentText> {
        let one = |d: DocumentBody| DocumentText {
            id: d.id.0,
            text: d.text,
            format: match d.format {
                FormatBody::Plain => TextFormat::Plain,
                FormatBody::Markdown => TextFormat::Markdown,
            },
            title: d.title,
            source: d.source,
            metadata: d.metadata,
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
}

impl From<PutAll> for PutDocumentsOut {
    fn from(all: PutAll) -> Self {
        let one = |one: crate::service::PutOne| PutDocumentOut {
            id: one.id.as_str().to_owned(),
            unchanged: one.unchanged,
            chunks: one.chunks,
            embedded: one.embedded,
        };
        Self {
            results: all.results.into_iter().map(one).collect(),
            token: all.token.map(|t| t.to_string()),
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
    fn from(info: DocumentInfo) -> Self {
        Self {
            id: info.id.as_str().to_owned(),
            title: info.title,
            source: info.source,
            metadata: info.metadata,
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
