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
#[serde(untagged)]
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
    Nested {
        /// The inner tree.
        nested: Box<Filter>,
    },
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
        Self::Nested {
            nested: Box::new(filter),
        }
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
