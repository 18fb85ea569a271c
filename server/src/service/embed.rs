//! Which model embeds for which vector, and what its failures mean to a caller.
//!
//! A collection records the fingerprint of each vector's embedder. Text is only ever embedded by the model of this
//! server whose fingerprint equals it in every field; anything else is refused, with both named and the ways out.

use std::collections::BTreeMap;
use std::sync::Arc;

use cairn_engine::schema::{EmbedderFingerprint, Schema};
use cairn_engine::types::SparseVector;
use cairn_engine::{Error, ErrorKind, Result};

use super::Core;
use super::ahead::Ahead;
use super::bounds::EMBED_BATCH;
use super::pools::{Budget, deadline_exceeded};
use super::query::NO_EMBEDDING;
use crate::rag::embed::{EmbedError, Embedder, Fingerprint, Input, Medium, SparseEmbedder, TextKind};
use crate::rag::retrieval::DenseLeg;

/// A vector that text, or whatever else its embedder takes, can be compared with.
pub(super) struct TextVector {
    /// Its name.
    pub(super) name: String,
    /// Who made it.
    pub(super) embedder: Arc<dyn Embedder>,
}

/// A sparse vector that text can be compared with.
pub(super) struct SparseTextVector {
    /// Its name.
    pub(super) name: String,
    /// Who made it.
    pub(super) embedder: Arc<dyn SparseEmbedder>,
}

/// The vectors of a collection that one embedder makes.
pub(super) struct Embedding {
    /// Their names; each gets the same vector.
    pub(super) names: Vec<String>,
    /// Who makes them.
    pub(super) by: By,
}

/// What makes the vectors of documents.
pub(super) enum By {
    /// Dense ones.
    Dense(Arc<dyn Embedder>),
    /// Sparse ones.
    Sparse(Arc<dyn SparseEmbedder>),
}

impl Embedding {
    /// Who makes them.
    pub(super) fn fingerprint(&self) -> &Fingerprint {
        match &self.by {
            By::Dense(embedder) => embedder.fingerprint(),
            By::Sparse(embedder) => embedder.fingerprint(),
        }
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
        for (name, spec) in &mut schema.sparse {
            let Some(given) = &mut spec.embedder else { continue };
            let ours = self.models.sparse_embedder(&given.name);
            let ours = ours.map(|e| fingerprint(e.fingerprint()));
            *given = recorded(given, ours).map_err(|e| e.at(format!("/sparse/{name}/embedder")))?;
        }
        Ok(())
    }

    /// The sparse vector that text is embedded for: the named one, or the only one; it must record an embedder, and one that
    /// this server has.
    pub(super) fn sparse_text_vector(&self, schema: &Schema, using: Option<&str>) -> Result<SparseTextVector> {
        let names = || schema.sparse.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        let (name, spec) = match using {
            Some(name) => schema.sparse.get_key_value(name).ok_or_else(|| {
                Error::invalid(
                    "vector_not_found",
                    format!("the collection has no sparse vector {name:?}, only: {}", names()),
                )
                .at("/using")
            })?,
            None if schema.sparse.len() == 1 => schema.sparse.iter().next().expect("there is exactly one"),
            None if schema.sparse.is_empty() => {
                return Err(Error::invalid(
                    "vector_not_found",
                    "the collection has no sparse vector; declare one in its schema",
                ));
            }
            None => {
                return Err(Error::invalid(
                    "vector_not_named",
                    format!("using must name one of the collection's sparse vectors: {}", names()),
                )
                .at("/using"));
            }
        };
        let Some(embedder) = &spec.embedder else {
            let have = self.models.sparse_names();
            return Err(Error::invalid(
                "no_embedder",
                format!(
                    "sparse vector {name:?} names no embedder, so text cannot be compared with it: give a vector, or make the \
                     collection with an embedder; available: {}",
                    if have.is_empty() {
                        "none".to_owned()
                    } else {
                        have.join(", ")
                    }
                ),
            ));
        };
        Ok(SparseTextVector {
            name: name.clone(),
            embedder: self.sparse_embedder(embedder)?,
        })
    }

    /// The vectors that documents are embedded for: all that record an embedder, and this server must have it.
    pub(super) fn embeddings(&self, schema: &Schema) -> Result<Vec<Embedding>> {
        let mut by_name: BTreeMap<&str, Embedding> = BTreeMap::new();
        for (name, spec) in &schema.vectors {
            let Some(recorded) = &spec.embedder else { continue };
            let embedder = self.embedder(recorded)?;
            let made = by_name.entry(&recorded.name).or_insert_with(|| Embedding {
                names: Vec::new(),
                by: By::Dense(embedder),
            });
            made.names.push(name.clone());
        }
        let mut sparse: BTreeMap<&str, Embedding> = BTreeMap::new();
        for (name, spec) in &schema.sparse {
            let Some(recorded) = &spec.embedder else { continue };
            let embedder = self.sparse_embedder(recorded)?;
            let made = sparse.entry(&recorded.name).or_insert_with(|| Embedding {
                names: Vec::new(),
                by: By::Sparse(embedder),
            });
            made.names.push(name.clone());
        }
        Ok(by_name.into_values().chain(sparse.into_values()).collect())
    }
}

impl Core {
    /// The dense leg of a hybrid; none, with a note that says why, if the embedder knows nothing of the text or was not made
    /// for its language.
    pub(super) fn dense_leg(
        &self,
        using: TextVector,
        text: &str,
        ahead: &Ahead,
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
        let Some(vector) = ahead.query(embedder, Input::Text(text), budget)? else {
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
pub(super) fn embed_query(embedder: &dyn Embedder, input: Input<'_>, budget: &Budget) -> Result<Option<Vec<f32>>> {
    match embedder.embed(&[input], TextKind::Query, budget.patience()) {
        Ok(mut vectors) => Ok(vectors.pop()),
        Err(EmbedError::EmptyText { .. }) => Ok(None),
        Err(error) => Err(embed_failed(error, budget)),
    }
}

/// A question's sparse vector; none if it holds nothing that the embedder knows.
pub(super) fn embed_sparse_query(
    embedder: &dyn SparseEmbedder,
    text: &str,
    budget: &Budget,
) -> Result<Option<SparseVector>> {
    match embedder.embed(&[text], TextKind::Query, budget.patience()) {
        Ok(mut vectors) => Ok(vectors.pop()),
        Err(EmbedError::EmptyText { .. }) => Ok(None),
        Err(error) => Err(embed_failed(error, budget)),
    }
}

/// Texts' vectors, in order; none for those that hold nothing the embedder knows.
pub(super) fn embed_texts(
    embedder: &dyn Embedder,
    texts: &[&str],
    kind: TextKind,
    budget: &Budget,
) -> Result<Vec<Option<Vec<f32>>>> {
    in_batches(texts, budget, |batch| {
        let inputs: Vec<Input<'_>> = batch.iter().map(|text| Input::Text(text)).collect();
        embedder.embed(&inputs, kind, budget.patience())
    })
}

/// Texts' sparse vectors likewise.
pub(super) fn embed_sparse_texts(
    embedder: &dyn SparseEmbedder,
    texts: &[&str],
    kind: TextKind,
    budget: &Budget,
) -> Result<Vec<Option<SparseVector>>> {
    in_batches(texts, budget, |batch| embedder.embed(batch, kind, budget.patience()))
}

/// Embeds batch by batch. A text that holds nothing is left out, and the rest of its batch tried again.
fn in_batches<V: Clone>(
    texts: &[&str],
    budget: &Budget,
    embed: impl Fn(&[&str]) -> Result<Vec<V>, EmbedError>,
) -> Result<Vec<Option<V>>> {
    let mut all: Vec<Option<V>> = vec![None; texts.len()];
    for first in (0..texts.len()).step_by(EMBED_BATCH) {
        budget.check()?;
        let mut batch: Vec<usize> = (first..texts.len().min(first + EMBED_BATCH)).collect();
        while !batch.is_empty() {
            let of_batch: Vec<&str> = batch.iter().map(|&i| texts[i]).collect();
            match embed(&of_batch) {
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
        EmbedError::Unsupported { .. } => Error::invalid("medium_not_supported", message),
        EmbedError::Rejected { .. } => Error::invalid("embedder_rejected", message),
        EmbedError::Unavailable { retry_after, .. } => {
            Error::new(ErrorKind::Unavailable, "embedder_unavailable", message).retry_after(retry_after)
        }
        EmbedError::BadAnswer { .. } => Error::new(ErrorKind::Upstream, "embedder_bad_answer", message),
        EmbedError::Deadline => budget.check().err().unwrap_or_else(deadline_exceeded),
    }
}

/// Said before anything is embedded. `by` makes the vector.
pub(super) fn not_supported(medium: Medium, by: &Fingerprint) -> Error {
    Error::invalid(
        "medium_not_supported",
        format!(
            "embedder {}, which makes this vector, does not take {medium}: give text or a vector, or use an embedder whose \
             media hold it",
            by.name
        ),
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

/// Refuses vectors that are said to be made by another model than the one that the collection records for `name`. What is
/// left out of a statement is not compared.
pub(super) fn same_maker(
    name: &str,
    recorded: Option<&EmbedderFingerprint>,
    stated: &EmbedderFingerprint,
) -> Result<()> {
    let Some(recorded) = recorded else {
        return Err(Error::invalid(
            "embedder_mismatch",
            format!(
                "vector {name:?} records no embedder to compare with {}: leave embedder out, or make the collection with it",
                stated.name
            ),
        ));
    };
    let said = filled(stated, recorded);
    if said == *recorded {
        return Ok(());
    }
    let differs = match said.name == recorded.name {
        true => format!(", which differs in {}", differences(recorded, &said)),
        false => String::new(),
    };
    Err(Error::invalid(
        "embedder_mismatch",
        format!(
            "vector {name:?} holds vectors of {}, and these are said to be of {}{differs}. Embed with the model that the \
             collection records, or make a new collection for the other and put everything again",
            describe(recorded),
            describe(&said)
        ),
    ))
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
    let said = filled(given, &ours);
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

/// What is left out of one identity, taken from another.
fn filled(given: &EmbedderFingerprint, from: &EmbedderFingerprint) -> EmbedderFingerprint {
    let or = |given: &str, from: &str| if given.is_empty() { from } else { given }.to_owned();
    EmbedderFingerprint {
        name: given.name.clone(),
        revision: or(&given.revision, &from.revision),
        dim: if given.dim == 0 { from.dim } else { given.dim },
        normalized: given.normalized || from.normalized,
        query_prefix: or(&given.query_prefix, &from.query_prefix),
        passage_prefix: or(&given.passage_prefix, &from.passage_prefix),
    }
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
    fn vectors_are_taken_from_their_own_model_only() {
        for same in [ours(), named("e5")] {
            assert_eq!(same_maker("dense", Some(&ours()), &same), Ok(()));
        }
        type Change = fn(&mut EmbedderFingerprint);
        let changes: [(Change, &str); 5] = [
            (|e| e.name = "bge".into(), "of bge (revision \"1\", dim 384)."),
            (|e| e.revision = "2".into(), "differs in revision: \"2\", not \"1\""),
            (|e| e.dim = 8, "differs in dim: 8, not 384"),
            (|e| e.query_prefix = "q".into(), "query_prefix: \"q\", not \"query: \""),
            (
                |e| e.passage_prefix = "p".into(),
                "passage_prefix: \"p\", not \"passage: \"",
            ),
        ];
        for (change, said) in changes {
            let mut stated = ours();
            change(&mut stated);
            let error = same_maker("dense", Some(&ours()), &stated).unwrap_err();
            assert_eq!(error.code, "embedder_mismatch");
            assert!(error.message.contains(said), "{}", error.message);
            assert!(
                error.message.contains("of e5 (revision \"1\", dim 384), and"),
                "{}",
                error.message
            );
        }
        let error = same_maker("dense", None, &ours()).unwrap_err();
        assert_eq!(error.code, "embedder_mismatch");
        assert!(error.message.contains("records no embedder"), "{}", error.message);
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
