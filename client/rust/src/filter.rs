//! What a caller may say about payloads and ids.
//!
//! A [`Filter`] is written with the constructors here or read from the JSON that REST takes
//! (`{"must": [{"field": "lang", "match": "en"}]}`): one shape, said twice.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A boolean tree. Empty means everything; all given parts must hold.
///
/// ```
/// use cairn_client::{Condition, Filter, Range};
/// let recent_english = Filter::new()
///     .must(Condition::equals("lang", "en"))
///     .must(Condition::range("year", Range::at_least(2024.0)))
///     .must_not(Condition::any("status", ["draft", "withdrawn"]));
/// let json = serde_json::json!({
///     "must": [{"field": "lang", "match": "en"}, {"field": "year", "range": {"gte": 2024.0}}],
///     "must_not": [{"field": "status", "any": ["draft", "withdrawn"]}]
/// });
/// assert_eq!(serde_json::from_value::<Filter>(json)?, recent_english);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Filter {
    /// Every condition holds.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub must: Vec<Condition>,
    /// At least `min_should` of these hold.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub should: Vec<Condition>,
    /// None of these holds.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub must_not: Vec<Condition>,
    /// How many of `should` must hold. Default: 1 if there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_should: Option<u32>,
}

impl Filter {
    /// A filter that everything passes.
    pub fn new() -> Self {
        Self::default()
    }
    /// Adds a condition that must hold.
    #[must_use]
    pub fn must(mut self, condition: Condition) -> Self {
        self.must.push(condition);
        self
    }
    /// Adds a condition of which at least one (or `min_should`) must hold.
    #[must_use]
    pub fn should(mut self, condition: Condition) -> Self {
        self.should.push(condition);
        self
    }
    /// Adds a condition that must not hold.
    #[must_use]
    pub fn must_not(mut self, condition: Condition) -> Self {
        self.must_not.push(condition);
        self
    }
    /// True if it says nothing.
    pub fn is_empty(&self) -> bool {
        self.must.is_empty() && self.should.is_empty() && self.must_not.is_empty()
    }
}

impl From<Condition> for Filter {
    fn from(condition: Condition) -> Self {
        Self::new().must(condition)
    }
}

/// One test, or a tree of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged, try_from = "Body")]
pub enum Condition {
    /// The field equals the value.
    Match {
        /// Dotted path into the payload.
        field: String,
        /// A string, number or boolean.
        r#match: Value,
    },
    /// The field equals one of the values.
    Any {
        /// Dotted path into the payload.
        field: String,
        /// Strings, numbers or booleans; at least one.
        any: Vec<Value>,
    },
    /// The field has an element that is none of the values.
    Except {
        /// Dotted path into the payload.
        field: String,
        /// Strings, numbers or booleans; at least one.
        except: Vec<Value>,
    },
    /// The field is a number in the range.
    Range {
        /// Dotted path into the payload.
        field: String,
        /// At least one bound.
        range: Range,
    },
    /// The field is missing, null or an empty array (or, if false, is not).
    IsEmpty {
        /// Dotted path into the payload.
        field: String,
        /// What is asked for.
        is_empty: bool,
    },
    /// The point's id is one of these.
    HasId {
        /// Point ids.
        has_id: Vec<String>,
    },
    /// The point is a chunk of one of these documents.
    HasDocument {
        /// Document ids.
        has_document: Vec<String>,
    },
    /// A filter as a condition.
    Nested(Box<Filter>),
}

impl Condition {
    /// `field` equals `value`: a string, number or boolean.
    pub fn equals(field: impl Into<String>, value: impl Into<Value>) -> Self {
        Self::Match {
            field: field.into(),
            r#match: value.into(),
        }
    }
    /// `field` equals one of `values`.
    pub fn any<V: Into<Value>>(field: impl Into<String>, values: impl IntoIterator<Item = V>) -> Self {
        Self::Any {
            field: field.into(),
            any: values.into_iter().map(Into::into).collect(),
        }
    }
    /// `field` has an element that is none of `values`.
    pub fn except<V: Into<Value>>(field: impl Into<String>, values: impl IntoIterator<Item = V>) -> Self {
        Self::Except {
            field: field.into(),
            except: values.into_iter().map(Into::into).collect(),
        }
    }
    /// `field` is a number in `range`.
    pub fn range(field: impl Into<String>, range: Range) -> Self {
        Self::Range {
            field: field.into(),
            range,
        }
    }
    /// `field` is missing, null or an empty array.
    pub fn is_empty(field: impl Into<String>) -> Self {
        Self::IsEmpty {
            field: field.into(),
            is_empty: true,
        }
    }
    /// The point's id is one of `ids`.
    pub fn has_id<S: Into<String>>(ids: impl IntoIterator<Item = S>) -> Self {
        Self::HasId {
            has_id: ids.into_iter().map(Into::into).collect(),
        }
    }
    /// The point is a chunk of one of the documents `ids`.
    pub fn has_document<S: Into<String>>(ids: impl IntoIterator<Item = S>) -> Self {
        Self::HasDocument {
            has_document: ids.into_iter().map(Into::into).collect(),
        }
    }
    /// A filter as a condition.
    pub fn nested(filter: Filter) -> Self {
        Self::Nested(Box::new(filter))
    }
}

/// Numeric bounds; at least one must be given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Range {
    /// Greater than.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gt: Option<f64>,
    /// Greater than or equal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gte: Option<f64>,
    /// Less than.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lt: Option<f64>,
    /// Less than or equal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lte: Option<f64>,
}

impl Range {
    /// `min` and more.
    pub fn at_least(min: f64) -> Self {
        Self {
            gte: Some(min),
            ..Self::default()
        }
    }
    /// `max` and less.
    pub fn at_most(max: f64) -> Self {
        Self {
            lte: Some(max),
            ..Self::default()
        }
    }
}

/// A condition as it is written in JSON. Every key is known, and exactly one test must be there: a key that is silently left out
/// would find too much.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Body {
    field: Option<String>,
    r#match: Option<Value>,
    any: Option<Vec<Value>>,
    except: Option<Vec<Value>>,
    range: Option<Range>,
    is_empty: Option<bool>,
    has_id: Option<Vec<Id>>,
    has_document: Option<Vec<Id>>,
    must: Option<Vec<Condition>>,
    should: Option<Vec<Condition>>,
    must_not: Option<Vec<Condition>>,
    min_should: Option<u32>,
}

/// `42` and `"42"` are the same id.
#[derive(Deserialize)]
#[serde(untagged)]
enum Id {
    Text(String),
    Number(i64),
}

impl TryFrom<Body> for Condition {
    type Error = String;

    fn try_from(body: Body) -> Result<Self, String> {
        let field = body.field;
        let named = |test: &str| field.clone().ok_or_else(|| format!("{test} needs a field"));
        let ids = |ids: Vec<Id>| ids.into_iter().map(Id::text).collect();
        let mut tests = Vec::new();
        if let Some(r#match) = body.r#match {
            tests.push(Self::Match {
                field: named("match")?,
                r#match,
            });
        }
        if let Some(any) = body.any {
            tests.push(Self::Any {
                field: named("any")?,
                any,
            });
        }
        if let Some(except) = body.except {
            tests.push(Self::Except {
                field: named("except")?,
                except,
            });
        }
        if let Some(range) = body.range {
            tests.push(Self::Range {
                field: named("range")?,
                range,
            });
        }
        if let Some(is_empty) = body.is_empty {
            tests.push(Self::IsEmpty {
                field: named("is_empty")?,
                is_empty,
            });
        }
        let on_a_field = !tests.is_empty();
        if let Some(has_id) = body.has_id {
            tests.push(Self::HasId { has_id: ids(has_id) });
        }
        if let Some(has_document) = body.has_document {
            tests.push(Self::HasDocument {
                has_document: ids(has_document),
            });
        }
        if body.must.is_some() || body.should.is_some() || body.must_not.is_some() || body.min_should.is_some() {
            let [must, should, must_not] = [body.must, body.should, body.must_not].map(Option::unwrap_or_default);
            tests.push(Self::nested(Filter {
                must,
                should,
                must_not,
                min_should: body.min_should,
            }));
        }
        match (tests.pop(), tests.len(), field.is_some() == on_a_field) {
            (Some(test), 0, true) => Ok(test),
            (Some(_), 0, false) => Err("has_id, has_document and nested filters take no field".to_owned()),
            _ => Err("a condition holds exactly one of match, any, except, range, is_empty, has_id, has_document, or a filter".to_owned()),
        }
    }
}

impl Id {
    fn text(self) -> String {
        match self {
            Self::Text(id) => id,
            Self::Number(id) => id.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_read_as_the_server_reads_it_and_written_back() {
        for (text, condition) in [
            (r#"{"field":"a","match":1}"#, Condition::equals("a", 1)),
            (r#"{"field":"a","except":["x"]}"#, Condition::except("a", ["x"])),
            (r#"{"field":"a","is_empty":true}"#, Condition::is_empty("a")),
            (r#"{"has_id":["1","b"]}"#, Condition::has_id(["1", "b"])),
            (
                r#"{"should":[{"has_document":["d"]}]}"#,
                Condition::nested(Filter::new().should(Condition::has_document(["d"]))),
            ),
        ] {
            assert_eq!(serde_json::from_str::<Condition>(text).unwrap(), condition);
            assert_eq!(serde_json::to_string(&condition).unwrap(), text);
        }
        let numbers: Condition = serde_json::from_str(r#"{"has_id": [1, "b"]}"#).unwrap();
        assert_eq!(numbers, Condition::has_id(["1", "b"]));
    }

    #[test]
    fn a_condition_is_exactly_one_known_test() {
        for wrong in [
            r#"{}"#,
            r#"{"field":"a"}"#,
            r#"{"match":1}"#,
            r#"{"field":"a","match":1,"range":{"gt":0}}"#,
            r#"{"field":"a","has_id":["1"]}"#,
            r#"{"field":"a","match":1,"boost":2}"#,
            r#"{"field":"a","range":{"min":0}}"#,
        ] {
            assert!(serde_json::from_str::<Condition>(wrong).is_err(), "{wrong}");
        }
    }
}
