//! Documents in messages: put, and shown.

use cairn_engine::engine::DocumentInfo;
use cairn_engine::types::PointId;
use cairn_engine::{Error, Result};
use cairn_proto::v1 as pb;

use super::points::durability_out;
use super::{bad_enum, count_out, id_in, object_out, payload_in, size_in, text_in};
use crate::rag::trust::{self, Provenance, Trust};
use crate::service::{DocumentFormat, DocumentText, OnNearDuplicate, PutAll, PutOne};

pub(in crate::grpc) fn document_in(document: pb::DocumentInput) -> Result<DocumentText> {
    let format = match pb::DocumentFormat::try_from(document.format) {
        Ok(pb::DocumentFormat::Unspecified | pb::DocumentFormat::Plain) => DocumentFormat::Plain,
        Ok(pb::DocumentFormat::Markdown) => DocumentFormat::Markdown,
        Ok(pb::DocumentFormat::Html) => DocumentFormat::Html,
        Ok(pb::DocumentFormat::Pdf) => DocumentFormat::Pdf,
        Err(_) => return Err(bad_enum("format", "DocumentFormat", document.format)),
    };
    Ok(DocumentText {
        id: document.id,
        text: document.text,
        data: document.data,
        format,
        title: text_in(document.title),
        source: document.source,
        metadata: payload_in(document.metadata).map_err(|e| e.at("/metadata"))?,
        trust: trust_in(document.trust)?,
        provenance: document.provenance.map(provenance_in).unwrap_or_default(),
    })
}

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

fn provenance_in(provenance: pb::Provenance) -> Provenance {
    Provenance {
        origin: provenance.origin,
        author: provenance.author,
        fetched_at_ms: provenance.fetched_at_ms,
        licence: provenance.licence,
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

pub(in crate::grpc) fn on_near_duplicate_in(on: i32) -> Result<OnNearDuplicate> {
    match pb::OnNearDuplicate::try_from(on) {
        Ok(pb::OnNearDuplicate::Unspecified | pb::OnNearDuplicate::Store) => Ok(OnNearDuplicate::Store),
        Ok(pb::OnNearDuplicate::Skip) => Ok(OnNearDuplicate::Skip),
        Err(_) => Err(bad_enum("on_near_duplicate", "OnNearDuplicate", on)),
    }
}

pub(in crate::grpc) fn documents_in(documents: Vec<pb::DocumentInput>) -> Result<Vec<DocumentText>> {
    let one = |(i, d)| document_in(d).map_err(|e: Error| e.at(format!("/documents/{i}")));
    documents.into_iter().enumerate().map(one).collect()
}

pub(in crate::grpc) fn put_all_out(all: PutAll) -> pb::PutDocumentsResponse {
    pb::PutDocumentsResponse {
        token: all.token.map(|t| t.to_string()).unwrap_or_default(),
        durability: durability_out(all.durability),
        results: all.results.into_iter().map(put_one_out).collect(),
    }
}

pub(in crate::grpc) fn put_one_out(one: PutOne) -> pb::PutDocumentResult {
    pb::PutDocumentResult {
        id: one.id.as_str().to_owned(),
        unchanged: one.unchanged,
        chunks: count_out(one.chunks),
        embedded: count_out(one.embedded),
        near_duplicate_of: one.near_duplicate_of.map(|id| id.as_str().to_owned()),
        skipped: one.skipped,
        replayed: one.replayed,
    }
}

pub(in crate::grpc) fn document_out(mut info: DocumentInfo) -> pb::Document {
    let (trust, provenance) = trust::unlabel(&mut info.metadata);
    pb::Document {
        id: info.id.as_str().to_owned(),
        title: info.title,
        source: info.source,
        metadata: Some(object_out(info.metadata)),
        chunks: info.chunks,
        text_bytes: info.text_bytes,
        checksum: info.checksum.iter().map(|b| format!("{b:02x}")).collect(),
        version: info.version.to_string(),
        trust: trust_out(trust).into(),
        provenance: provenance.map(provenance_out),
    }
}

pub(in crate::grpc) fn page_limit_in(limit: Option<u32>) -> Option<usize> {
    limit.map(size_in)
}

pub(in crate::grpc) fn after_id_in(after: Option<String>) -> Result<Option<PointId>> {
    after.and_then(text_in).map(|id| id_in(id, "/after_id")).transpose()
}
