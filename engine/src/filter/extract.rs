//! Which values of a payload can be filtered, and under which path: the one place that decides it.
//!
//! A path is the keys from the root joined by dots. Arrays are transparent: `{"a": [{"b": 1}, {"b": [2, 3]}]}` has the
//! values 1, 2 and 3 under `a.b`. So are dots in keys: `{"a.b": 1}` and `{"a": {"b": 1}}` are the same to a filter.
//! `null` is absence. Numbers keep their own kind whatever the declaration says (it checks, it does not convert); an
//! integer above `i64::MAX` is a float.
//!
//! Declared fields are checked for their type; undeclared scalars are indexed if the schema is `dynamic`. Below a
//! `stored` field only fields that are declared themselves are indexed. Not indexed, silently: undeclared strings longer
//! than [`limits::KEYWORD_BYTES_MAX`] and undeclared paths longer than [`limits::NAME_BYTES_MAX`], which no filter may
//! name. Text is not emitted here: see [`text_values`].

use serde_json::Value as Json;

use super::{Condition, Filter, Scalar};
use crate::error::{Error, Result};
use crate::limits;
use crate::schema::{FieldSpec, Schema};
use crate::types::Payload;

/// One indexed value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// Exact string.
    Str(&'a str),
    /// Integer.
    Int(i64),
    /// Float.
    Float(f64),
    /// Boolean.
    Bool(bool),
}

impl<'a> From<&'a Scalar> for Value<'a> {
    fn from(scalar: &'a Scalar) -> Self {
        match scalar {
            Scalar::Str(s) => Self::Str(s),
            Scalar::Int(i) => Self::Int(*i),
            Scalar::Float(f) => Self::Float(*f),
            Scalar::Bool(b) => Self::Bool(*b),
        }
    }
}

/// Gives every filterable value of a payload to `sink` with its path (the same value twice if it is there twice), and
/// checks the whole payload against the schema on the way: depth, types, width. An error points at the value
/// (`/a/b/0`); what the sink saw before it is void.
pub fn extract(payload: &Payload, schema: &Schema, sink: &mut dyn FnMut(&str, Value<'_>)) -> Result<()> {
    let mut walk = Walk {
        schema,
        sink,
        path: String::new(),
        dynamic_values: 0,
    };
    walk.object(payload, 1, schema.dynamic)
}

/// What [`extract`] checks, without the values.
pub fn check_payload(payload: &Payload, schema: &Schema) -> Result<()> {
    extract(payload, schema, &mut |_, _| {})
}

/// Gives every string under `path` to `sink`, in payload order, by the same rules as [`extract`].
pub fn text_values(payload: &Payload, path: &str, sink: &mut dyn FnMut(&str)) {
    // A key may itself contain dots, so each dot of the path may or may not be a step down.
    let cuts = path
        .match_indices('.')
        .map(|(at, _)| (&path[..at], Some(&path[at + 1..])));
    for (key, rest) in cuts.chain([(path, None)]) {
        if let Some(value) = payload.get(key) {
            text_below(value, rest, sink);
        }
    }
}

fn text_below(value: &Json, rest: Option<&str>, sink: &mut dyn FnMut(&str)) {
    match (value, rest) {
        (Json::Array(items), _) => items.iter().for_each(|item| text_below(item, rest, sink)),
        (Json::Object(map), Some(rest)) => text_values(map, rest, sink),
        (Json::String(text), None) => sink(text),
        (Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) | Json::Object(_), _) => {}
    }
}

/// Refuses a path that no value is indexed under, because its silence would look like an answer.
pub fn filterable(schema: &Schema, path: &str) -> Result<()> {
    let why = match schema.fields.get(path) {
        Some(FieldSpec::Keyword {} | FieldSpec::Integer {} | FieldSpec::Float {} | FieldSpec::Bool {}) => return Ok(()),
        Some(FieldSpec::Text { .. }) => "is text: search it instead",
        Some(FieldSpec::Stored {}) => "is stored without an index",
        None if below_stored(schema, path) => "is part of a field that is stored without an index",
        None if schema.dynamic => return Ok(()),
        None => "is not declared",
    };
    let indexed: Vec<&str> = schema
        .fields
        .iter()
        .filter(|(_, spec)| !matches!(spec, FieldSpec::Text { .. } | FieldSpec::Stored {}))
        .map(|(path, _)| path.as_str())
        .collect();
    let indexed = if indexed.is_empty() {
        "none".to_owned()
    } else {
        indexed.join(", ")
    };
    Err(Error::invalid(
        "field_not_indexed",
        format!("field {path:?} {why}; declared fields with an index: {indexed}"),
    ))
}

fn below_stored(schema: &Schema, path: &str) -> bool {
    path.match_indices('.')
        .any(|(at, _)| matches!(schema.fields.get(&path[..at]), Some(FieldSpec::Stored {})))
}

/// Checks every field that a filter names, at any depth. Expects a filter that passed [`Filter::check`], which bounds the
/// recursion.
pub fn check_filter(filter: &Filter, schema: &Schema) -> Result<()> {
    for (part, conditions) in [
        ("must", &filter.must),
        ("should", &filter.should),
        ("must_not", &filter.must_not),
    ] {
        for (i, condition) in conditions.iter().enumerate() {
            let checked = match condition {
                Condition::Any { field, .. }
                | Condition::Except { field, .. }
                | Condition::Range { field, .. }
                | Condition::IsEmpty { field } => filterable(schema, field).map_err(|e| e.at("/field")),
                Condition::HasId { .. } | Condition::HasDocument { .. } => Ok(()),
                Condition::Nested(filter) => check_filter(filter, schema),
            };
            checked.map_err(|e| e.at(format!("/{part}/{i}")))?;
        }
    }
    Ok(())
}

/// What is to be done with a value and, if it is an array, with its elements.
#[derive(Clone, Copy)]
enum Rule<'s> {
    Declared(&'s FieldSpec),
    /// Whether scalars are emitted: `schema.dynamic`, and not below a stored field.
    Undeclared {
        indexed: bool,
    },
}

struct Walk<'s, 'f> {
    schema: &'s Schema,
    sink: &'f mut dyn FnMut(&str, Value<'_>),
    /// Path of the value being looked at.
    path: String,
    dynamic_values: usize,
}

impl Walk<'_, '_> {
    /// `depth` counts this object and everything around it.
    fn object(&mut self, map: &Payload, depth: usize, indexed: bool) -> Result<()> {
        check_depth(depth)?;
        for (key, value) in map {
            let outer = self.path.len();
            if depth > 1 {
                self.path.push('.');
            }
            self.path.push_str(key);
            let rule = match self.schema.fields.get(&self.path) {
                Some(FieldSpec::Stored {}) => Rule::Undeclared { indexed: false },
                Some(spec) => Rule::Declared(spec),
                None => Rule::Undeclared { indexed },
            };
            self.value(value, depth, rule)
                .map_err(|e| e.at(format!("/{}", pointer_token(key))))?;
            self.path.truncate(outer);
        }
        Ok(())
    }

    fn value(&mut self, value: &Json, depth: usize, rule: Rule<'_>) -> Result<()> {
        match (value, rule) {
            (Json::Null, _) => Ok(()),
            (Json::Array(items), _) => {
                check_depth(depth + 1)?;
                for (i, item) in items.iter().enumerate() {
                    self.value(item, depth + 1, rule).map_err(|e| e.at(format!("/{i}")))?;
                }
                Ok(())
            }
            (Json::Object(map), Rule::Undeclared { indexed }) => self.object(map, depth + 1, indexed),
            (_, Rule::Undeclared { indexed }) => match scalar(value) {
                Some(value) if indexed => self.undeclared(value),
                _ => Ok(()),
            },
            (_, Rule::Declared(spec)) => self.declared(value, spec),
        }
    }

    fn undeclared(&mut self, value: Value<'_>) -> Result<()> {
        let unreachable = self.path.is_empty() || self.path.len() > limits::NAME_BYTES_MAX;
        let overlong = matches!(value, Value::Str(s) if s.len() > limits::KEYWORD_BYTES_MAX);
        if unreachable || overlong {
            return Ok(());
        }
        self.dynamic_values += 1;
        if self.dynamic_values > limits::DYNAMIC_VALUES_MAX {
            return Err(Error::invalid(
                "payload_too_wide",
                format!(
                    "a payload may hold {} values outside the schema; declare a field around them as stored",
                    limits::DYNAMIC_VALUES_MAX
                ),
            ));
        }
        (self.sink)(&self.path, value);
        Ok(())
    }

    fn declared(&mut self, value: &Json, spec: &FieldSpec) -> Result<()> {
        let (wanted, found) = match (spec, scalar(value)) {
            (FieldSpec::Text { .. }, Some(Value::Str(_))) => return Ok(()),
            (FieldSpec::Keyword {}, Some(Value::Str(s))) if s.len() > limits::KEYWORD_BYTES_MAX => {
                return Err(Error::invalid(
                    "keyword_too_long",
                    format!(
                        "a keyword may hold {} bytes, got {}",
                        limits::KEYWORD_BYTES_MAX,
                        s.len()
                    ),
                ));
            }
            (FieldSpec::Keyword {}, Some(found @ Value::Str(_)))
            | (FieldSpec::Integer {}, Some(found @ Value::Int(_)))
            | (FieldSpec::Float {}, Some(found @ (Value::Int(_) | Value::Float(_))))
            | (FieldSpec::Bool {}, Some(found @ Value::Bool(_))) => {
                (self.sink)(&self.path, found);
                return Ok(());
            }
            // Some JSON writers have only doubles: 3.0 is an integer to them, and to every filter here.
            (FieldSpec::Integer {}, Some(found @ Value::Float(f))) if is_integer(f) => {
                (self.sink)(&self.path, found);
                return Ok(());
            }
            (FieldSpec::Integer {}, _) => ("a 64-bit integer", value),
            (FieldSpec::Float {}, _) => ("a number", value),
            (FieldSpec::Bool {}, _) => ("a boolean", value),
            (FieldSpec::Keyword {} | FieldSpec::Text { .. }, _) => ("a string", value),
            (FieldSpec::Stored {}, _) => unreachable!("object() turns stored fields into undeclared ones"),
        };
        let found = match found {
            Json::Null => "null",
            Json::Bool(_) => "a boolean",
            Json::Number(n) if n.is_f64() => "a float",
            Json::Number(_) => "an integer",
            Json::String(_) => "a string",
            Json::Array(_) => "an array",
            Json::Object(_) => "an object",
        };
        Err(Error::invalid(
            "payload_type",
            format!("field {:?} wants {wanted} (or several), got {found}", self.path),
        ))
    }
}

fn check_depth(depth: usize) -> Result<()> {
    if depth > limits::PAYLOAD_DEPTH_MAX {
        return Err(Error::invalid(
            "payload_too_deep",
            format!("a payload may nest {} levels", limits::PAYLOAD_DEPTH_MAX),
        ));
    }
    Ok(())
}

fn scalar(value: &Json) -> Option<Value<'_>> {
    match value {
        Json::Bool(b) => Some(Value::Bool(*b)),
        Json::String(s) => Some(Value::Str(s)),
        Json::Number(n) => n.as_i64().map(Value::Int).or_else(|| n.as_f64().map(Value::Float)),
        Json::Null | Json::Array(_) | Json::Object(_) => None,
    }
}

/// Without a fraction and within `i64`. The upper bound is excluded: `i64::MAX as f64` is 2^63, one too many.
fn is_integer(f: f64) -> bool {
    f.fract() == 0.0 && f >= i64::MIN as f64 && f < i64::MAX as f64
}

/// A key as a step of a JSON pointer (RFC 6901).
fn pointer_token(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}
