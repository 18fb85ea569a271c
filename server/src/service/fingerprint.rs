//! What a request asks for, in sixteen bytes: equal for its retries, different for any other request.
//!
//! Fed with what the caller gave, before anything is embedded or looked up: what a model or the database makes of it may
//! differ between two attempts. Every part says its length, so that no two requests feed the same bytes.

use cairn_engine::engine::{PayloadChange, Selector};
use cairn_engine::types::{Payload, PointId, SparseVectors};
use xxhash_rust::xxh3::Xxh3;

use super::inputs::EmbedInput;
use super::intake::DocumentText;
use super::points::{GivenVectors, NewPoint};

/// A fingerprint in the making.
#[derive(Default)]
pub(super) struct Fingerprint(Xxh3);

/// Payloads are hashed as they are written.
impl std::io::Write for Fingerprint {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Fingerprint {
    pub(super) fn end(self) -> [u8; 16] {
        self.0.digest128().to_le_bytes()
    }

    pub(super) fn number(&mut self, number: u64) -> &mut Self {
        self.0.update(&number.to_le_bytes());
        self
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.number(bytes.len() as u64);
        self.0.update(bytes);
        self
    }

    pub(super) fn text(&mut self, text: &str) -> &mut Self {
        self.bytes(text.as_bytes())
    }

    /// A value, or none.
    fn maybe<T>(&mut self, value: Option<T>, feed: impl FnOnce(&mut Self, T)) -> &mut Self {
        self.number(u64::from(value.is_some()));
        if let Some(value) = value {
            feed(self, value);
        }
        self
    }

    pub(super) fn all<'a, T: 'a>(
        &mut self,
        values: impl IntoIterator<Item = &'a T, IntoIter: ExactSizeIterator>,
        feed: impl Fn(&mut Self, &T),
    ) -> &mut Self {
        let values = values.into_iter();
        self.number(values.len() as u64);
        values.for_each(|value| feed(self, value));
        self
    }

    pub(super) fn ids(&mut self, ids: &[PointId]) -> &mut Self {
        self.all(ids, |f, id| {
            f.text(id.as_str());
        })
    }

    /// JSON ends where its braces do.
    fn payload(&mut self, payload: &Payload) -> &mut Self {
        serde_json::to_writer(&mut *self, payload).expect("a JSON object is written and a hash takes everything");
        self
    }

    fn floats(&mut self, values: &[f32]) -> &mut Self {
        self.number(values.len() as u64);
        values
            .iter()
            .for_each(|value| self.0.update(&value.to_bits().to_le_bytes()));
        self
    }

    fn sparse(&mut self, vectors: &SparseVectors) -> &mut Self {
        self.number(vectors.len() as u64);
        for (name, vector) in vectors {
            self.text(name)
                .floats(&vector.values)
                .number(vector.indices.len() as u64);
            vector
                .indices
                .iter()
                .for_each(|index| self.0.update(&index.to_le_bytes()));
        }
        self
    }

    pub(super) fn point(&mut self, point: &NewPoint) {
        self.text(point.id.as_str())
            .payload(&point.payload)
            .sparse(&point.sparse);
        match &point.vectors {
            GivenVectors::Only(vector) => {
                self.number(0).floats(vector);
            }
            GivenVectors::Named(vectors) => {
                self.number(1).number(vectors.len() as u64);
                for (name, vector) in vectors {
                    self.text(name).floats(vector);
                }
            }
        }
        self.number(point.embed.len() as u64);
        for (name, input) in &point.embed {
            let (kind, text) = match input {
                EmbedInput::Text(text) => (0, text),
                EmbedInput::Image(reference) => (1, reference),
                EmbedInput::Audio(reference) => (2, reference),
            };
            self.text(name).number(kind).text(text);
        }
        self.maybe(point.document.as_ref(), |f, id| {
            f.text(id.as_str());
        });
        self.maybe(point.expires_at_ms, |f, at| {
            f.number(at);
        });
    }

    /// A filter is a tree of closed kinds, and small: its debug text says all of it.
    pub(super) fn selector(&mut self, selector: &Selector) {
        match selector {
            Selector::Ids(ids) => self.number(0).ids(ids),
            Selector::Matching(filter) => self.number(1).text(&format!("{filter:?}")),
        };
    }

    pub(super) fn change(&mut self, change: &PayloadChange) {
        self.payload(&change.set).number(u64::from(change.replace));
        self.all(&change.unset, |f, key| {
            f.text(key);
        });
    }

    pub(super) fn document(&mut self, document: &DocumentText) {
        self.text(&document.id).text(&document.text).bytes(&document.data);
        self.number(document.format as u64).payload(&document.metadata);
        self.maybe(document.title.as_deref(), |f, title| {
            f.text(title);
        });
        self.text(&document.source).number(document.trust as u64);
        let from = &document.provenance;
        self.text(&from.origin).text(&from.author).text(&from.licence);
        self.maybe(from.fetched_at_ms, |f, at| {
            f.number(at);
        });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;

    use super::*;

    fn point(id: &str) -> NewPoint {
        NewPoint {
            id: PointId::new(id).unwrap(),
            vectors: GivenVectors::Only(vec![1.0, 2.0]),
            embed: [].into(),
            sparse: SparseVectors::new(),
            payload: json!({"a": 1}).as_object().unwrap().clone(),
            document: None,
            expires_at_ms: None,
        }
    }

    #[test]
    fn equal_requests_are_equal_and_every_part_counts() {
        let of = |points: &[NewPoint]| {
            let mut fingerprint = Fingerprint::default();
            fingerprint.text("upsert").all(points, Fingerprint::point);
            fingerprint.end()
        };
        assert_eq!(of(&[point("a"), point("b")]), of(&[point("a"), point("b")]));
        let change = |change: fn(&mut NewPoint)| {
            let mut point = point("a");
            change(&mut point);
            of(&[point])
        };
        let different = [
            of(&[]),
            of(&[point("a")]),
            of(&[point("a"), point("a")]),
            of(&[point("ab")]),
            change(|p| p.vectors = GivenVectors::Only(vec![1.0])),
            change(|p| p.vectors = GivenVectors::Named([("v".into(), vec![1.0, 2.0])].into())),
            change(|p| p.vectors = GivenVectors::Named([].into())),
            change(|p| p.payload = json!({"a": 2}).as_object().unwrap().clone()),
            change(|p| p.document = Some(PointId::new("d").unwrap())),
            change(|p| p.expires_at_ms = Some(0)),
            change(|p| p.embed = [("v".into(), EmbedInput::Text("t".into()))].into()),
            change(|p| p.embed = [("v".into(), EmbedInput::Image("t".into()))].into()),
            change(|p| {
                let vector = [(3, 1.0)].into_iter().unzip();
                p.sparse = [(
                    "s".into(),
                    cairn_engine::types::SparseVector {
                        indices: vector.0,
                        values: vector.1,
                    },
                )]
                .into();
            }),
        ];
        assert_eq!(different.iter().collect::<BTreeSet<_>>().len(), different.len());
    }
}
