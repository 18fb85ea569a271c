//! How far is a document's content trusted, and where is it from? Two labels that go with every chunk, in its payload, so
//! that a filter, a prompt and a citation can tell.
//!
//! The server promises to keep and show them, and to leave what is quarantined out of prompts. It does not find them out:
//! whoever puts a document says so.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Where the label is in a payload.
pub const TRUST_KEY: &str = "trust";
/// Where the provenance is in a payload.
pub const PROVENANCE_KEY: &str = "provenance";

/// How far a document's content is trusted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trust {
    /// Nobody has looked at it.
    #[default]
    Unverified,
    /// Somebody vouches for it.
    Trusted,
    /// Kept, searchable by query, but not put into prompts unless a request names this label.
    Quarantined,
}

impl Trust {
    /// All labels.
    pub const ALL: [Self; 3] = [Self::Unverified, Self::Trusted, Self::Quarantined];

    /// As it stands in payloads.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unverified => "unverified",
            Self::Trusted => "trusted",
            Self::Quarantined => "quarantined",
        }
    }

    /// Orders labels from the best to the worst. Not the order of the variants, which is that of the API: the default comes
    /// first.
    pub fn doubt(self) -> u8 {
        match self {
            Self::Trusted => 0,
            Self::Unverified => 1,
            Self::Quarantined => 2,
        }
    }

    /// Of a chunk. One without a label, and so everything stored before there were labels, is unverified.
    pub fn of(payload: &Map<String, Value>) -> Self {
        let label = payload.get(TRUST_KEY).and_then(Value::as_str);
        Self::ALL
            .into_iter()
            .find(|trust| Some(trust.name()) == label)
            .unwrap_or_default()
    }
}

/// Where a document's content is from. All parts are optional.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Provenance {
    /// Who or what brought it in, e.g. `crawler`, `upload`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub origin: String,
    /// Who wrote it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub author: String,
    /// When it was fetched, in milliseconds since the Unix epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fetched_at_ms: Option<u64>,
    /// What may be done with it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub licence: String,
}

impl Provenance {
    /// Nothing is said.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Of a chunk, if it says something that can be read.
    pub fn of(payload: &Map<String, Value>) -> Option<Self> {
        let provenance: Self = serde_json::from_value(payload.get(PROVENANCE_KEY)?.clone()).ok()?;
        (!provenance.is_empty()).then_some(provenance)
    }
}

/// Writes both labels into a payload. The trust is always written, so that a filter finds it.
pub fn label(payload: &mut Map<String, Value>, trust: Trust, provenance: &Provenance) {
    payload.insert(TRUST_KEY.into(), trust.name().into());
    if !provenance.is_empty() {
        let value = serde_json::to_value(provenance).expect("strings and a number are JSON");
        payload.insert(PROVENANCE_KEY.into(), value);
    }
}

/// Takes both labels out of a payload again.
pub fn unlabel(payload: &mut Map<String, Value>) -> (Trust, Option<Provenance>) {
    let labels = (Trust::of(payload), Provenance::of(payload));
    payload.remove(TRUST_KEY);
    payload.remove(PROVENANCE_KEY);
    labels
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn labels_are_written_and_taken_out_again() {
        let crawled = Provenance {
            origin: "crawler".into(),
            fetched_at_ms: Some(5),
            ..Provenance::default()
        };
        for (trust, provenance, expected) in [
            (
                Trust::Trusted,
                Provenance::default(),
                json!({"lang": "en", "trust": "trusted"}),
            ),
            (
                Trust::Quarantined,
                crawled,
                json!({"lang": "en", "trust": "quarantined", "provenance": {"origin": "crawler", "fetched_at_ms": 5}}),
            ),
        ] {
            let mut payload = json!({"lang": "en"}).as_object().unwrap().clone();
            label(&mut payload, trust, &provenance);
            assert_eq!(Value::Object(payload.clone()), expected);
            let said = (!provenance.is_empty()).then_some(provenance);
            assert_eq!(unlabel(&mut payload), (trust, said));
            assert_eq!(Value::Object(payload), json!({"lang": "en"}));
        }
    }

    #[test]
    fn what_says_nothing_is_unverified() {
        for payload in [
            json!({}),
            json!({"trust": null}),
            json!({"trust": "sure"}),
            json!({"trust": 1, "provenance": [2]}),
        ] {
            let payload = payload.as_object().unwrap();
            assert_eq!((Trust::of(payload), Provenance::of(payload)), (Trust::Unverified, None));
        }
    }
}
