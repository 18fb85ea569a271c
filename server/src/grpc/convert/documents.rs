//! Documents in messages: put, and shown.

use cairn_engine::engine::DocumentInfo;
use cairn_engine::types::PointId;
use cairn_engine::{Error, Result};
use cairn_proto::v1 as pb;

use super::{bad_enum, count_out, id_in, not_built, object_out, payload_in, size_in, text_in};
use crate::rag::chunk::TextFormat;
use crate::service::{DocumentText, PutAll, PutOne};

pub(in crate::grpc) fn document_in(document: pb::DocumentInput) -> Result<DocumentText> {
    let format = match pb::DocumentFormat::try_from(document.format) {
        Ok(pb::DocumentFormat::Unspecified | pb::DocumentFormat::Plain) => TextFormat::Plain,
        Ok(pb::DocumentFormat::Markdown) => TextFormat::Markdown,
        Ok(pb::DocumentFormat::Html | pb::DocumentFormat::Pdf) => return Err(not_built("/format")),
        Err(_) => return Err(bad_enum("format", "DocumentFormat", document.format)),
    };
    Ok(DocumentText {
        id: document.id,
        text: document.text,
        format,
        title: text_in(document.title),
        source: document.source,
        metadata: payload_in(document.metadata).map_err(|e| e.at("/metadata"))?,
    })
}

pub(in crate::grpc) fn documents_in(documents: Vec<pb::DocumentInput>) -> Result<Vec<DocumentText>> {
    let one = |(i, d)| document_in(d).map_err(|e: Error| e.at(format!("/documents/{i}")));
    documents.into_iter().enumerate().map(one).collect()
}

pub(in crate::grpc) fn put_all_out(all: PutAll) -> pb::PutDocumentsResponse {
    pb::PutDocumentsResponse {
        token: all.token.map(|t| t.to_string()).unwrap_or_default(),
        results: all.results.into_iter().map(put_one_out).collect(),
    }
}

pub(in crate::grpc) fn put_one_out(one: PutOne) -> pb::PutDocumentResult {
    pb::PutDocumentResult {
        id: one.id.as_str().to_owned(),
        unchanged: one.unchanged,
        chunks: count_out(one.chunks),
        embedded: count_out(one.embedded),
        ..Default::default()
    }
}

pub(in crate::grpc) fn document_out(info: DocumentInfo) -> pb::Document {
    pb::Document {
        id: info.id.as_str().to_owned(),
        title: info.title,
        source: info.source,
        metadata: Some(object_out(info.metadata)),
        chunks: info.chunks,
        text_bytes: info.text_bytes,
        checksum: info.checksum.iter().map(|b| format!("{b:02x}")).collect(),
        version: info.version.to_string(),
    }
}

pub(in crate::grpc) fn page_limit_in(limit: Option<u32>) -> Option<usize> {
    limit.map(size_in)
}

pub(in crate::grpc) fn after_id_in(after: Option<String>) -> Result<Option<PointId>> {
    after.and_then(text_in).map(|id| id_in(id, "/after_id")).transpose()
}
