//! Which model embeds for which vector, and what its failures mean to a caller.
//!
//! A collection records the fingerprint of each vector's embedder. Text is only ever embedded by the model of this
//! server whose fingerprint equals it in every field; anything else is refused, with both named and the ways out.

use std::collections::BTreeMap;
use std::sync::Arc;

use cairn_engine::schema::{EmbedderFingerprint, Schema};
use cairn_engine::types::PointInput;
use cairn_engine::{Error, ErrorKind, Result, limits};

use super::Core;
use super::bounds::{EMBED_BATCH, REFERENCE_BYTES_MAX};
use super::pools::{Budget, deadline_exceeded};
use super::query::NO_EMBEDDING;
use crate::rag::embed::{EmbedError, Embedder, Fingerprint, Input, Medium, SparseEmbedder, TextKind};
use crate::rag::retrieval::DenseLeg;

/// A vector that text can be compared with.
pub(super) struct TextVector {
    /// Its name.
    pub(super) name: String,
    /// Who made it.
    pub(super) embedder: Arc<dyn Embedder>,
}

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

/// The vectors of a collection that one embedder makes.
pub(super) struct Embedding {
    /// Their names; each gets the same vector.
    pub(super) names: Vec<String>,
    /// Who makes them.
    pub(super) embedder: Arc<dyn Embedder>,
}

impl EmbedInput {
    pub(super) fn as_input(&self) -> Input<'_> {
        match self {
            Self::Text(text) => Input::Text(text),
            Self::Image(reference) => Input::Image(reference),
            Self::Audio(reference) => Input::Audio(reference),
        }
    }

    /// Refuses what no embedder can take.
    pub(super) fn check(&self) -> Result<()> {
        match self {
            Self::Text(text) if text.len() > limits::QUERY_TEXT_BYTES_MAX => Err(Error::invalid(
                "bad_input",
                format!(
                    "a text to embed is at most {} bytes, got {}",
                    limits::QUERY_TEXT_BYTES_MAX,
                    text.len()
                ),
            )),
            Self::Text(_) => Ok(()),
            Self::Image(reference) | Self::Audio(reference) => check_reference(reference),
        }
    }
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
    Err(Error::invalid(
        "bad_input",
        format!("a reference begins with http://, https:// or data:, got {start:?}"),
    ))
}

impl Wanted {
    fn pointer(&self) -> String {
        format!("/points/{}/embed/{}", self.point, self.name)
    }
}

impl Core {
    /// The dense embedder of a recorded fingerprint.
    pub(super) fn embedder(&self, of: &EmbedderFingerprint) -> Result<Arc<dyn Embedder>> {
        let found = self.models.embedder(&of.name);
        let same = found.filter(|e| fingerprint(e.fingerprint()) == *of);
        same.ok_or_else(|| unknown_embedder(of, self.models.embedder_fingerprints()))
    }

    /// The sparse embedder of a recorded fingerprint.
    #[expect(dead_code, reason = "sparse vectors of collections come with the engine's")]
    pub(super) fn sparse_embedder(&self, of: &EmbedderFingerprint) -> Result<Arc<dyn SparseEmbedder>> {
        let found = self.models.sparse_embedder(&of.name);
        let same = found.filter(|e| fingerprint(e.fingerprint()) == *of);
        same.ok_or_else(|| unknown_embedder(of, self.models.sparse_fingerprints()))
    }

    /// Fills in what a new collection's schema leaves to the embedders of this server.
    pub(super) fn complete(&self, schema: &mut Schema) -> Result<()> {
        for (name, spec) in &mut schema.vectors {
            let Some(given) = &mut spec.embedder else { continue };
            let ours = self.models.embedder(&given.name).map(|e| fingerprint(e.fingerprint()));
            let at = || format!("/vectors/{name}/embedder");
            *given = recorded(given, ours).map_err(|e| e.at(at()))?;
            // Of a model that only the caller has, one of the two lengths is enough.
            if spec.dim == 0 {
                spec.dim = given.dim;
            } else if given.dim == 0 {
                given.dim = spec.dim;
            }
            if spec.dim == 0 {
                let have = self.models.embedder_names().join(", ");
                let message = format!(
                    "this server has no dense embedder {:?} to take the vector's dim from: give a dim, or name one of: {have}",
                    given.name
                );
                return Err(Error::invalid("unknown_embedder", message).at(at()));
            }
        }
        Ok(())
    }

    /// Embeds what points ask for and puts the vectors into them.
    pub(super) fn embed_points(
        &self,
        schema: &Schema,
        wanted: Vec<Wanted>,
        points: &mut [PointInput],
        budget: &Budget,
    ) -> Result<()> {
        let mut by_name: BTreeMap<String, (Arc<dyn Embedder>, Vec<Wanted>)> = BTreeMap::new();
        for wanted in wanted {
            let at = wanted.pointer();
            let embedder = self.embedder_for(schema, &wanted).map_err(|e| e.at(&at))?;
            if points[wanted.point].vectors.contains_key(&wanted.name) {
                return Err(Error::invalid("bad_point", "give a vector or what it is embedded from, not both").at(at));
            }
            wanted.input.check().map_err(|e| e.at(&at))?;
            let (_, of_name) = by_name.entry(wanted.name.clone()).or_insert((embedder, Vec::new()));
            of_name.push(wanted);
        }
        let patience = budget.patience();
        for (embedder, wanted) in by_name.values() {
            for batch in wanted.chunks(EMBED_BATCH) {
                budget.check()?;
                let inputs: Vec<Input<'_>> = batch.iter().map(|w| w.input.as_input()).collect();
                let vectors = embedder.embed(&inputs, TextKind::Passage, &patience).map_err(|error| {
                    let at = error.index().and_then(|i| batch.get(i)).map(Wanted::pointer);
                    let error = embed_failed(error, budget);
                    at.into_iter().fold(error, Error::at)
                })?;
                for (wanted, vector) in batch.iter().zip(vectors) {
                    points[wanted.point].vectors.insert(wanted.name.clone(), vector);
                }
            }
        }
        Ok(())
    }

    fn embedder_for(&self, schema: &Schema, wanted: &Wanted) -> Result<Arc<dyn Embedder>> {
        let spec = schema.vectors.get(&wanted.name).ok_or_else(|| {
            let names: Vec<&str> = schema.vectors.keys().map(String::as_str).collect();
            Error::invalid(
                "vector_not_found",
                format!(
                    "the collection has no vector {:?}, only: {}",
                    wanted.name,
                    names.join(", ")
                ),
            )
        })?;
        let recorded = spec.embedder.as_ref().ok_or_else(|| {
            Error::invalid(
                "no_embedder",
                format!(
                    "vector {:?} names no embedder, so nothing can be embedded for it: give a vector",
                    wanted.name
                ),
            )
        })?;
        let embedder = self.embedder(recorded)?;
        let medium = wanted.input.as_input().medium();
        match embedder.takes(medium) {
            true => Ok(embedder),
            false => Err(not_supported(medium)),
        }
    }

    /// The vectors that documents are embedded for: all that record an embedder, and this server must have it.
    pub(super) fn embeddings(&self, schema: &Schema) -> Result<Vec<Embedding>> {
        let mut by_name: BTreeMap<&str, Embedding> = BTreeMap::new();
        for (name, spec) in &schema.vectors {
            let Some(recorded) = &spec.embedder else { continue };
            let embedder = self.embedder(recorded)?;
            let made = by_name.entry(&recorded.name).or_insert_with(|| Embedding {
                names: Vec::new(),
                embedder,
            });
            made.names.push(name.clone());
        }
        Ok(by_name.into_values().collect())
    }
}

impl Core {
    /// The dense leg of a hybrid; none, with a note that says why, if the embedder knows nothing of the text or was not made
    /// for its language.
    pub(super) fn dense_leg(
        &self,
        using: TextVector,
        text: &str,
        budget: &Budget,
        notes: &mut Vec<String>,
    ) -> Result<Option<DenseLeg>> {
        let embedder = using.embedder.as_ref();
        let name = &embedder.fingerprint().name;
        let role = self.models.role(name);
        if !role.languages.cover(text) {
            notes.push(format!(
                "the text is not in English, which is what embedder {name} was made for: only bm25 was used"
            ));
            return Ok(None);
        }
        let Some(vector) = embed_query(embedder, text, budget)? else {
            notes.push(NO_EMBEDDING.to_owned());
            return Ok(None);
        };
        Ok(Some(DenseLeg {
            using: using.name,
            vector,
            weight: role.weight,
        }))
    }
}

/// A question's vector; none if it holds nothing that the embedder knows.
pub(super) fn embed_query(embedder: &dyn Embedder, text: &str, budget: &Budget) -> Result<Option<Vec<f32>>> {
    match embedder.embed(&[Input::Text(text)], TextKind::Query, &budget.patience()) {
        Ok(mut vectors) => Ok(vectors.pop()),
        Err(EmbedError::EmptyText { .. }) => Ok(None),
        Err(error) => Err(embed_failed(error, budget)),
    }
}

/// Passages' vectors, in order; none for those that hold nothing the embedder knows.
pub(super) fn embed_passages(
    embedder: &dyn Embedder,
    texts: &[&str],
    budget: &Budget,
) -> Result<Vec<Option<Vec<f32>>>> {
    let patience = budget.patience();
    let mut all: Vec<Option<Vec<f32>>> = vec![None; texts.len()];
    for first in (0..texts.len()).step_by(EMBED_BATCH) {
        budget.check()?;
        let mut batch: Vec<usize> = (first..texts.len().min(first + EMBED_BATCH)).collect();
        while !batch.is_empty() {
            let inputs: Vec<Input<'_>> = batch.iter().map(|&i| Input::Text(texts[i])).collect();
            match embedder.embed(&inputs, TextKind::Passage, &patience) {
                Ok(vectors) => {
                    for (i, vector) in batch.drain(..).zip(vectors) {
                        all[i] = Some(vector);
                    }
                }
                Err(EmbedError::EmptyText { index }) if index < batch.len() => _ = batch.remove(index),
                Err(error) => return Err(embed_failed(error, budget)),
            }
        }
    }
    Ok(all)
}

/// What a caller is told when a model fails. A text without content is the caller's to judge: this says so too.
pub(super) fn embed_failed(error: EmbedError, budget: &Budget) -> Error {
    let message = error.to_string();
    match error {
        EmbedError::EmptyText { .. } => Error::invalid("empty_text", "the text holds nothing that the embedder knows"),
        EmbedError::Unsupported { medium, .. } => not_supported(medium),
        EmbedError::Rejected { .. } => Error::invalid("embedder_rejected", message),
        EmbedError::Unavailable { retry_after, .. } => {
            Error::new(ErrorKind::Unavailable, "embedder_unavailable", message).retry_after(retry_after)
        }
        EmbedError::BadAnswer { .. } => Error::new(ErrorKind::Upstream, "embedder_bad_answer", message),
        EmbedError::Deadline => budget.check().err().unwrap_or_else(deadline_exceeded),
    }
}

fn not_supported(medium: Medium) -> Error {
    Error::invalid(
        "medium_not_supported",
        format!("the vector's embedder does not take {medium}"),
    )
}

/// A model's identity as the engine records it.
pub(super) fn fingerprint(of: &Fingerprint) -> EmbedderFingerprint {
    EmbedderFingerprint {
        name: of.name.clone(),
        revision: of.revision.clone(),
        dim: u32::try_from(of.dim).expect("an embedder's dim is far below 2^32"),
        normalized: of.normalized,
        query_prefix: of.query_prefix.clone(),
        passage_prefix: of.passage_prefix.clone(),
    }
}

fn unknown_embedder<'a>(of: &EmbedderFingerprint, have: impl Iterator<Item = &'a Fingerprint>) -> Error {
    let have: Vec<EmbedderFingerprint> = have.map(fingerprint).collect();
    let instead = match have.iter().find(|e| e.name == of.name) {
        Some(other) => format!("this server's {} differs in {}", of.name, differences(of, other)),
        None if have.is_empty() => "this server has none of that kind".to_owned(),
        None => {
            let have: Vec<String> = have.iter().map(describe).collect();
            format!("this server has {}", have.join(", "))
        }
    };
    Error::invalid(
        "unknown_embedder",
        format!(
            "the collection's vectors are made by {}; {instead}. Start the server with the model that made them, or make a \
             new collection with one that it has and put everything again",
            describe(of)
        ),
    )
}

fn describe(of: &EmbedderFingerprint) -> String {
    format!("{} (revision {:?}, dim {})", of.name, of.revision, of.dim)
}

/// The fields in which two identities of one name differ, with what the second has.
fn differences(recorded: &EmbedderFingerprint, ours: &EmbedderFingerprint) -> String {
    let mut fields = Vec::new();
    let mut compare = |field: &str, recorded: String, ours: String| {
        if recorded != ours {
            fields.push(format!("{field}: {ours}, not {recorded}"));
        }
    };
    let quoted = |text: &str| format!("{text:?}");
    compare("revision", quoted(&recorded.revision), quoted(&ours.revision));
    compare("dim", recorded.dim.to_string(), ours.dim.to_string());
    compare(
        "normalized",
        recorded.normalized.to_string(),
        ours.normalized.to_string(),
    );
    compare(
        "query_prefix",
        quoted(&recorded.query_prefix),
        quoted(&ours.query_prefix),
    );
    compare(
        "passage_prefix",
        quoted(&recorded.passage_prefix),
        quoted(&ours.passage_prefix),
    );
    fields.join("; ")
}

/// What is recorded of an embedder that a new collection names. Of one that this server has, what was left out is filled
/// in, and what was given must be equal to it; another is taken as it is said, for vectors that callers make themselves.
fn recorded(given: &EmbedderFingerprint, ours: Option<EmbedderFingerprint>) -> Result<EmbedderFingerprint> {
    let Some(ours) = ours else { return Ok(given.clone()) };
    let or = |given: &str, ours: &str| {
        if given.is_empty() {
            ours.to_owned()
        } else {
            given.to_owned()
        }
    };
    let said = EmbedderFingerprint {
        name: given.name.clone(),
        revision: or(&given.revision, &ours.revision),
        dim: if given.dim == 0 { ours.dim } else { given.dim },
        normalized: given.normalized || ours.normalized,
        query_prefix: or(&given.query_prefix, &ours.query_prefix),
        passage_prefix: or(&given.passage_prefix, &ours.passage_prefix),
    };
    if said == ours {
        return Ok(ours);
    }
    Err(Error::invalid(
        "unknown_embedder",
        format!(
            "this server's {} differs from the schema's in {}. Leave these out to record the server's, or start it with the \
             model that the schema names",
            given.name,
            differences(&said, &ours)
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ours() -> EmbedderFingerprint {
        EmbedderFingerprint {
            name: "e5".into(),
            revision: "1".into(),
            dim: 384,
            normalized: true,
            query_prefix: "query: ".into(),
            passage_prefix: "passage: ".into(),
        }
    }

    fn named(name: &str) -> EmbedderFingerprint {
        EmbedderFingerprint {
            name: name.into(),
            revision: String::new(),
            dim: 0,
            normalized: false,
            query_prefix: String::new(),
            passage_prefix: String::new(),
        }
    }

    #[test]
    fn a_name_is_enough_for_an_embedder_that_the_server_has() {
        assert_eq!(recorded(&named("e5"), Some(ours())), Ok(ours()));
        assert_eq!(recorded(&ours(), Some(ours())), Ok(ours()));
        let own = EmbedderFingerprint {
            dim: 3,
            ..named("mine")
        };
        assert_eq!(
            recorded(&own, None),
            Ok(own.clone()),
            "vectors of callers' own models are theirs to name"
        );
    }

    #[test]
    fn what_differs_is_refused_with_both_values_and_the_ways_out() {
        type Change = fn(&mut EmbedderFingerprint);
        let changes: [(Change, &str); 4] = [
            (|e| e.revision = "2".into(), "revision: \"1\", not \"2\""),
            (|e| e.dim = 8, "dim: 384, not 8"),
            (|e| e.query_prefix = "q".into(), "query_prefix: \"query: \", not \"q\""),
            (
                |e| e.passage_prefix = "p".into(),
                "passage_prefix: \"passage: \", not \"p\"",
            ),
        ];
        for (change, said) in changes {
            let mut given = ours();
            change(&mut given);
            let error = recorded(&given, Some(ours())).unwrap_err();
            assert_eq!(error.code, "unknown_embedder");
            assert!(error.message.contains(said), "{}", error.message);
            assert!(error.message.contains("Leave these out"), "{}", error.message);

            let server = Fingerprint {
                name: "e5".into(),
                revision: "1".into(),
                dim: 384,
                normalized: true,
                query_prefix: "query: ".into(),
                passage_prefix: "passage: ".into(),
            };
            let error = unknown_embedder(&given, [&server].into_iter());
            assert!(error.message.contains(said), "{}", error.message);
            assert!(
                error.message.contains("Start the server with the model"),
                "{}",
                error.message
            );
        }
        let error = unknown_embedder(&ours(), std::iter::empty());
        assert!(error.message.contains("none of that kind"), "{}", error.message);
    }
}
