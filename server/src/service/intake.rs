//! What a document is when it comes in: text or a file, in a format; and whether the collection has almost the same
//! already.
//!
//! Everything that can be wrong with what a caller sends is found here, before anything is cut or written. Near duplicates
//! are looked for among what is stored when the document is put: of two that are put at the same time by different
//! requests, neither may see the other.

use cairn_engine::engine::Scroll;
use cairn_engine::filter::{Condition, Filter, Scalar};
use cairn_engine::query::With;
use cairn_engine::schema::{FieldSpec, Schema};
use cairn_engine::types::{Payload, PointId};
use cairn_engine::{Error, Result};

use super::Core;
use super::bounds::{DOCUMENT_ID_BYTES_MAX, NEAR_CANDIDATES_MAX, NEAR_CHECKS_MAX};
use super::documents::RESERVED_KEYS;
use super::pools::Budget;
use crate::rag::chunk::{Chunk, TextFormat};
use crate::rag::extract::apart::PdfReader;
use crate::rag::extract::{self, ExtractError, Extracted};
use crate::rag::near::{self, NEAR_JACCARD, Shingles};
use crate::rag::trust::{Provenance, Trust};

/// Where a document's banded signature is: in the payload of its first chunk.
pub const NEAR_KEY: &str = "minhash";

/// A document as a caller gives it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DocumentText {
    /// Its id.
    pub id: String,
    /// Its text, or empty if it comes as a file.
    pub text: String,
    /// The file, or empty if it comes as text.
    pub data: Vec<u8>,
    /// How to read the text or file.
    pub format: DocumentFormat,
    /// Shown with citations; if not given, what the text calls itself.
    pub title: Option<String>,
    /// Where it came from.
    pub source: String,
    /// Kept with the document and every chunk.
    pub metadata: Payload,
    /// How far it is trusted.
    pub trust: Trust,
    /// Where its content is from.
    pub provenance: Provenance,
}

/// How a document is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DocumentFormat {
    /// Plain text.
    #[default]
    Plain,
    /// Markdown.
    Markdown,
    /// A page, as text or as a file.
    Html,
    /// A file.
    Pdf,
}

/// What to do with a document that says almost the same as another one of the collection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnNearDuplicate {
    /// Store it and say so.
    #[default]
    Store,
    /// Do not store it, unless its id is stored already: an old version would stay; or unless only documents that are
    /// trusted less are like it: whoever can put a copy into quarantine first must not keep the original out.
    Skip,
}

/// Everything about a document that can be refused without reading its content.
pub(super) fn check(document: &DocumentText) -> Result<PointId> {
    let bytes = document.id.len();
    if bytes == 0 || bytes > DOCUMENT_ID_BYTES_MAX {
        return Err(Error::invalid(
            "bad_id",
            format!("a document id is 1 to {DOCUMENT_ID_BYTES_MAX} bytes of UTF-8, got {bytes} bytes"),
        )
        .at("/id"));
    }
    let wrong = match (document.format, document.text.is_empty(), document.data.is_empty()) {
        (_, false, false) => Some("a document has a `text` or `data`, not both"),
        (DocumentFormat::Pdf, _, true) => Some("a PDF is given in `data`"),
        (DocumentFormat::Plain | DocumentFormat::Markdown, true, false) => {
            Some("`data` is for html and pdf; plain text and Markdown are given in `text`")
        }
        _ => None,
    };
    if let Some(wrong) = wrong {
        return Err(Error::invalid("bad_document", wrong).at("/data"));
    }
    if document.data.is_empty() && document.text.trim().is_empty() {
        return Err(Error::invalid("empty_document", "a document's text must hold more than white space").at("/text"));
    }
    if let Some(key) = RESERVED_KEYS.iter().find(|key| document.metadata.contains_key(**key)) {
        return Err(Error::invalid(
            "reserved_key",
            format!(
                "metadata must not use the keys of chunks ({}), got {key:?}",
                RESERVED_KEYS.join(", ")
            ),
        )
        .at(format!("/metadata/{key}")));
    }
    PointId::new(document.id.as_str())
}

/// The document's text, out of its file if it is one. Takes the content: it is large.
pub(super) fn read(document: &mut DocumentText, pdfs: &PdfReader, budget: &Budget) -> Result<Extracted> {
    let text = std::mem::take(&mut document.text);
    let data = std::mem::take(&mut document.data);
    let at = if data.is_empty() { "/text" } else { "/data" };
    let as_it_is = |text, format| Extracted {
        text,
        format,
        title: None,
    };
    let read = match document.format {
        DocumentFormat::Plain => as_it_is(text, TextFormat::Plain),
        DocumentFormat::Markdown => as_it_is(text, TextFormat::Markdown),
        DocumentFormat::Html if data.is_empty() => extract::html(&text),
        DocumentFormat::Html => extract::html_bytes(&data),
        DocumentFormat::Pdf => match pdfs.read(&data, &|| budget.check().is_err()) {
            Ok(read) => read,
            Err(ExtractError::Stopped) => {
                budget.check()?;
                return Err(Error::internal("reading a PDF stopped for no reason"));
            }
            Err(error) => return Err(refused(&error).at(at)),
        },
    };
    if read.text.trim().is_empty() {
        return Err(Error::invalid("empty_document", "the page shows no text").at(at));
    }
    Ok(read)
}

fn refused(error: &ExtractError) -> Error {
    let says = error.to_string();
    match error {
        ExtractError::Unreadable(_) | ExtractError::Stopped => Error::invalid("unreadable_document", says),
        ExtractError::Encrypted => Error::invalid("encrypted_document", says),
        ExtractError::NoText => Error::invalid("empty_document", says),
        ExtractError::TooLarge(_) => Error::invalid("document_too_large", says),
        ExtractError::Failed(_) => Error::internal(says),
    }
}

/// What near duplicates are looked for with: none if the collection cannot be asked.
pub(super) struct Signature {
    shingles: Shingles,
    pub(super) bands: Vec<u32>,
}

impl Signature {
    /// Of a document that is to be stored. Chunks rather than text, because chunks are what is stored of the others.
    pub(super) fn of(schema: &Schema, chunks: &[Chunk]) -> Option<Self> {
        can_ask(schema).then(|| {
            let shingles = shingles(chunks.iter().map(|chunk| (chunk.span.0, chunk.text.as_str())));
            let bands = near::bands(&shingles);
            Self { shingles, bands }
        })
    }
}

/// Refuses to skip near duplicates where none can be found.
pub(super) fn check_can_skip(schema: &Schema, on_near_duplicate: OnNearDuplicate) -> Result<()> {
    if on_near_duplicate == OnNearDuplicate::Skip && !can_ask(schema) {
        return Err(Error::invalid(
            "field_not_indexed",
            format!(
                "near duplicates are found through the field {NEAR_KEY:?}, which this collection does not index: make it \
                 dynamic, or declare the field as integer"
            ),
        )
        .at("/on_near_duplicate"));
    }
    Ok(())
}

fn can_ask(schema: &Schema) -> bool {
    match schema.fields.get(NEAR_KEY) {
        Some(FieldSpec::Integer {}) => true,
        Some(_) => false,
        None => schema.dynamic,
    }
}

/// Chunks may overlap, and what is repeated counts once.
fn shingles<'a>(chunks: impl IntoIterator<Item = (usize, &'a str)>) -> Shingles {
    let mut covered = 0usize;
    Shingles::of_parts(chunks.into_iter().map(|(start, text)| {
        let repeated = covered.saturating_sub(start).min(text.len());
        covered = covered.max(start + text.len());
        // A span that is not the text's own would cut a character: then all of it counts.
        text.get(repeated..).unwrap_or(text)
    }))
}

/// The stored documents that are like enough.
#[derive(Debug, Default)]
pub(super) struct Like {
    /// The one that is most like it.
    pub(super) most: Option<PointId>,
    /// The one that is most like it of those that are trusted at least as much.
    pub(super) instead: Option<PointId>,
}

impl Core {
    /// The stored documents that are most like this one, which is trusted so far.
    pub(super) fn near_duplicate(
        &self,
        collection: &str,
        id: &PointId,
        trust: Trust,
        signature: &Signature,
        budget: &Budget,
    ) -> Result<Like> {
        if signature.bands.is_empty() {
            return Ok(Like::default());
        }
        let scroll = Scroll {
            // A near duplicate that cannot be read is not seen; that is no reason to refuse a document.
            allow_partial: true,
            filter: Filter::must(Condition::Any {
                field: NEAR_KEY.into(),
                values: signature.bands.iter().map(|&band| Scalar::Int(band.into())).collect(),
            }),
            limit: NEAR_CANDIDATES_MAX,
            with: With {
                payload: true,
                ..With::default()
            },
            patience: budget.patience().clone(),
            ..Scroll::default()
        };
        let mut candidates: Vec<(usize, u8, PointId)> = Vec::new();
        for point in self.engine.scroll(collection, &scroll)?.points {
            if let Some(document) = point.document.filter(|document| document != id) {
                let theirs = point
                    .payload
                    .as_ref()
                    .and_then(|payload| payload.get(NEAR_KEY)?.as_array());
                let shared = theirs.into_iter().flatten().filter_map(serde_json::Value::as_u64);
                let shared = shared
                    .filter(|band| signature.bands.iter().any(|own| u64::from(*own) == *band))
                    .count();
                let doubt = point.payload.as_ref().map(Trust::of).unwrap_or_default().doubt();
                candidates.push((shared, doubt, document));
            }
        }
        // The more bands are shared, the likelier. Of equals the trusted ones first, so that copies in quarantine do not
        // use up the checks; ids make the order the same every time.
        candidates.sort_by(|(a, p, x), (b, q, y)| b.cmp(a).then(p.cmp(q)).then_with(|| x.as_str().cmp(y.as_str())));
        let mut like = Like::default();
        let (mut most, mut instead) = (f32::NEG_INFINITY, f32::NEG_INFINITY);
        for (_, _, document) in candidates.into_iter().take(NEAR_CHECKS_MAX) {
            budget.check()?;
            let chunks = self
                .engine
                .chunks(collection, &document, scroll.with, budget.patience())?;
            let of_chunk = |point: &cairn_engine::types::Point| -> Option<(usize, String)> {
                let payload = point.payload.as_ref()?;
                let start = payload.get("span")?.get(0)?.as_u64()?;
                Some((usize::try_from(start).ok()?, payload.get("text")?.as_str()?.to_owned()))
            };
            let labels = chunks.iter().filter_map(|point| point.payload.as_ref()).map(Trust::of);
            // Labels of single chunks can be changed: a document is trusted as far as the least of its chunks.
            let doubt = labels.map(Trust::doubt).max();
            let chunks: Vec<(usize, String)> = chunks.iter().filter_map(of_chunk).collect();
            let theirs = shingles(chunks.iter().map(|(start, text)| (*start, text.as_str())));
            let similarity = near::jaccard(&signature.shingles, &theirs);
            if similarity < NEAR_JACCARD {
                continue;
            }
            if similarity > instead && doubt.is_some_and(|theirs| theirs <= trust.doubt()) {
                instead = similarity;
                like.instead = Some(document.clone());
            }
            if similarity > most {
                most = similarity;
                like.most = Some(document);
            }
        }
        Ok(like)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn document(id: &str, text: &str) -> DocumentText {
        DocumentText {
            id: id.into(),
            text: text.into(),
            ..DocumentText::default()
        }
    }

    #[test]
    fn a_document_is_refused_with_the_place_and_what_is_allowed() {
        let long = "x".repeat(DOCUMENT_ID_BYTES_MAX + 1);
        let mut reserved = document("a", "text");
        reserved.metadata.insert("span".into(), json!(1));
        let file = |format, text: &str, data: &[u8]| DocumentText {
            format,
            data: data.to_vec(),
            ..document("a", text)
        };
        let cases = [
            (document("", "text"), "bad_id", "/id"),
            (document(&long, "text"), "bad_id", "/id"),
            (document("a", " \n"), "empty_document", "/text"),
            (file(DocumentFormat::Html, "", b""), "empty_document", "/text"),
            (file(DocumentFormat::Html, "<p>", b"<p>"), "bad_document", "/data"),
            (file(DocumentFormat::Pdf, "text", b""), "bad_document", "/data"),
            (file(DocumentFormat::Pdf, "", b""), "bad_document", "/data"),
            (file(DocumentFormat::Markdown, "", b"text"), "bad_document", "/data"),
            (file(DocumentFormat::Plain, "", b"text"), "bad_document", "/data"),
            (reserved, "reserved_key", "/metadata/span"),
        ];
        for (document, code, pointer) in cases {
            let error = check(&document).unwrap_err();
            assert_eq!(
                (error.code, error.pointer.as_deref()),
                (code, Some(pointer)),
                "{document:?}"
            );
        }
        assert!(check(&document(&long[1..], "text")).is_ok());
        assert!(check(&file(DocumentFormat::Html, "", b"<p>x")).is_ok());
    }

    #[test]
    fn overlapping_chunks_count_once() {
        let whole = Shingles::of("one two three four five six");
        assert_eq!(
            shingles([(0, "one two three "), (8, "three four five six")]),
            Shingles::of("one two three four five six")
        );
        assert_eq!(shingles([(0, "one two three four five six")]), whole);
        // Spans that are not the text's own do not cut characters.
        assert!(!shingles([(0, "ab"), (1, "éé")]).is_empty());
    }

    #[test]
    fn near_duplicates_need_their_field() {
        let mut schema = crate::service::empty_schema();
        assert!(check_can_skip(&schema, OnNearDuplicate::Skip).is_ok());
        schema.dynamic = false;
        assert_eq!(
            check_can_skip(&schema, OnNearDuplicate::Skip).unwrap_err().code,
            "field_not_indexed"
        );
        assert!(check_can_skip(&schema, OnNearDuplicate::Store).is_ok());
        schema.fields.insert(NEAR_KEY.into(), FieldSpec::Integer {});
        assert!(check_can_skip(&schema, OnNearDuplicate::Skip).is_ok());
        schema.fields.insert(NEAR_KEY.into(), FieldSpec::Keyword {});
        assert!(check_can_skip(&schema, OnNearDuplicate::Skip).is_err());
    }
}
