//! What points ask the server to embed: text, or references to images and sounds, for vectors that they do not bring.
//!
//! Everything is checked before anything is embedded, and everything is embedded before anything is written: a point
//! never comes to be without a vector that it asked for.

use std::collections::BTreeMap;
use std::sync::Arc;

use cairn_engine::schema::{EmbedderFingerprint, Schema};
use cairn_engine::types::PointInput;
use cairn_engine::{Error, Result, limits};

use super::Core;
use super::bounds::{EMBED_BATCH, REFERENCE_BYTES_MAX};
use super::embed::{By, embed_failed, not_supported};
use super::pools::Budget;
use crate::rag::embed::{EmbedError, Embedder, Input, Medium, SparseEmbedder, TextKind};

/// What an embedder makes a vector of, as a caller gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EmbedInput {
    /// A text.
    Text(String),
    /// A reference to an image.
    Image(String),
    /// A reference to a sound.
    Audio(String),
}

/// A vector of a point that the server is asked to make.
pub(super) struct Wanted {
    /// Which point of the request.
    pub(super) point: usize,
    /// The vector's name.
    pub(super) name: String,
    /// What of.
    pub(super) input: EmbedInput,
}

impl EmbedInput {
    /// As embedders take it.
    pub(super) fn as_input(&self) -> Input<'_> {
        match self {
            Self::Text(text) => Input::Text(text),
            Self::Image(reference) => Input::Image(reference),
            Self::Audio(reference) => Input::Audio(reference),
        }
    }

    /// Refuses what no embedder can take.
    pub(super) fn check(&self) -> Result<()> {
        let most = limits::QUERY_TEXT_BYTES_MAX;
        match self {
            Self::Text(text) if text.len() > most => {
                let message = format!("a text to embed is at most {most} bytes, got {}", text.len());
                Err(Error::invalid("bad_input", message))
            }
            Self::Text(_) => Ok(()),
            Self::Image(reference) | Self::Audio(reference) => check_reference(reference),
        }
    }
}

impl Wanted {
    fn pointer(&self) -> String {
        format!("/points/{}/embed/{}", self.point, self.name)
    }
}

impl Core {
    /// Embeds what points ask for and puts the vectors into them.
    pub(super) fn embed_points(
        &self,
        schema: &Schema,
        wanted: Vec<Wanted>,
        points: &mut [PointInput],
        budget: &Budget,
    ) -> Result<()> {
        let mut by_name: BTreeMap<String, (By, Vec<Wanted>)> = BTreeMap::new();
        for wanted in wanted {
            let at = wanted.pointer();
            let by = self.maker(schema, &wanted).map_err(|e| e.at(&at))?;
            let point = &points[wanted.point];
            if point.vectors.contains_key(&wanted.name) || point.sparse.contains_key(&wanted.name) {
                return Err(Error::invalid("bad_point", "give a vector or what it is embedded from, not both").at(at));
            }
            wanted.input.check().map_err(|e| e.at(&at))?;
            let (_, of_name) = by_name.entry(wanted.name.clone()).or_insert((by, Vec::new()));
            of_name.push(wanted);
        }
        for (by, wanted) in by_name.values() {
            for batch in wanted.chunks(EMBED_BATCH) {
                budget.check()?;
                match by {
                    By::Dense(embedder) => embed_dense(embedder.as_ref(), batch, points, budget)?,
                    By::Sparse(embedder) => embed_sparse(embedder.as_ref(), batch, points, budget)?,
                }
            }
        }
        Ok(())
    }

    /// Who makes the vector that is wanted, if it takes such an input.
    fn maker(&self, schema: &Schema, wanted: &Wanted) -> Result<By> {
        let (name, medium) = (wanted.name.as_str(), wanted.input.as_input().medium());
        let recorded = |embedder: &Option<EmbedderFingerprint>| {
            embedder.clone().ok_or_else(|| {
                let message =
                    format!("vector {name:?} names no embedder, so nothing can be embedded for it: give a vector");
                Error::invalid("no_embedder", message)
            })
        };
        if let Some(spec) = schema.vectors.get(name) {
            let embedder: Arc<dyn Embedder> = self.embedder(&recorded(&spec.embedder)?)?;
            return match embedder.takes(medium) {
                true => Ok(By::Dense(embedder)),
                false => Err(not_supported(medium, embedder.fingerprint())),
            };
        }
        if let Some(spec) = schema.sparse.get(name) {
            let embedder: Arc<dyn SparseEmbedder> = self.sparse_embedder(&recorded(&spec.embedder)?)?;
            return match medium {
                Medium::Text => Ok(By::Sparse(embedder)),
                Medium::Image | Medium::Audio => Err(not_supported(medium, embedder.fingerprint())),
            };
        }
        Err(unknown_vector(schema, name))
    }
}

/// Said of a name that neither a dense nor a sparse vector has.
pub(super) fn unknown_vector(schema: &Schema, name: &str) -> Error {
    let names: Vec<&str> = schema
        .vectors
        .keys()
        .chain(schema.sparse.keys())
        .map(String::as_str)
        .collect();
    let message = format!("the collection has no vector {name:?}, only: {}", names.join(", "));
    Error::invalid("vector_not_found", message)
}

fn embed_dense(embedder: &dyn Embedder, batch: &[Wanted], points: &mut [PointInput], budget: &Budget) -> Result<()> {
    let inputs: Vec<Input<'_>> = batch.iter().map(|wanted| wanted.input.as_input()).collect();
    let made = embedder.embed(&inputs, TextKind::Passage, budget.patience());
    for (wanted, vector) in batch.iter().zip(made.map_err(|e| failed(e, batch, budget))?) {
        points[wanted.point].vectors.insert(wanted.name.clone(), vector);
    }
    Ok(())
}

fn embed_sparse(
    embedder: &dyn SparseEmbedder,
    batch: &[Wanted],
    points: &mut [PointInput],
    budget: &Budget,
) -> Result<()> {
    let texts: Vec<&str> = batch.iter().map(|wanted| wanted.input.as_input().text()).collect();
    let made = embedder.embed(&texts, TextKind::Passage, budget.patience());
    for (wanted, vector) in batch.iter().zip(made.map_err(|e| failed(e, batch, budget))?) {
        points[wanted.point].sparse.insert(wanted.name.clone(), vector);
    }
    Ok(())
}

/// The failure with the place of the input that caused it, where one did.
fn failed(error: EmbedError, batch: &[Wanted], budget: &Budget) -> Error {
    let at = error.index().and_then(|i| batch.get(i)).map(Wanted::pointer);
    let error = embed_failed(error, budget);
    at.into_iter().fold(error, Error::at)
}

/// A reference is an address that the embedding service fetches, or the thing itself as a `data:` URI.
pub(super) fn check_reference(reference: &str) -> Result<()> {
    let most = REFERENCE_BYTES_MAX;
    if reference.len() > most {
        let message = format!("a reference is at most {most} bytes, got {}", reference.len());
        return Err(Error::invalid("bad_input", message));
    }
    let known = ["http://", "https://", "data:"];
    if known
        .iter()
        .any(|scheme| reference.len() > scheme.len() && reference.starts_with(scheme))
    {
        return Ok(());
    }
    let start: String = reference.chars().take(32).collect();
    let message = format!("a reference begins with http://, https:// or data:, got {start:?}");
    Err(Error::invalid("bad_input", message))
}
