//! Filters in JSON.

use cairn_engine::filter::{Condition, Filter, Range, Scalar};
use cairn_engine::{Error, Result, limits};
use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::{Id, ids_in};

/// A boolean tree. Empty means everything; all given parts must hold. At most 16 levels and 4,096 conditions and values.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::rest) struct FilterBody {
    /// Every condition holds.
    #[serde(default)]
    must: Vec<ConditionBody>,
    /// At least `min_should` of these hold.
    #[serde(default)]
    should: Vec<ConditionBody>,
    /// None of these holds.
    #[serde(default)]
    must_not: Vec<ConditionBody>,
    /// 1 to the number of `should` conditions. Default: 1 if there are any.
    min_should: Option<u32>,
}

/// One test on `field` (`match`, `any`, `except`, `range`, `is_empty`), or `has_id`, or `has_document`, or a filter again.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::rest) struct ConditionBody {
    /// Dotted path into the payload. An array matches if one of its elements does.
    field: Option<String>,
    /// The field equals this string, number or boolean.
    #[schema(value_type = Option<Object>)]
    r#match: Option<Value>,
    /// The field equals one of these.
    #[schema(value_type = Option<Vec<Object>>)]
    any: Option<Vec<Value>>,
    /// The field has an element that is none of these.
    #[schema(value_type = Option<Vec<Object>>)]
    except: Option<Vec<Value>>,
    /// The field is a number in the range.
    range: Option<RangeBody>,
    /// True: the field is missing, null or an empty array. False: it is not.
    is_empty: Option<bool>,
    /// The point's id is one of these.
    #[schema(value_type = Option<Vec<String>>)]
    has_id: Option<Vec<Id>>,
    /// The point is a chunk of one of these documents.
    #[schema(value_type = Option<Vec<String>>)]
    has_document: Option<Vec<Id>>,
    /// A filter as a condition: every one holds.
    #[schema(no_recursion)]
    must: Option<Vec<ConditionBody>>,
    /// A filter as a condition: at least `min_should` of these hold.
    #[schema(no_recursion)]
    should: Option<Vec<ConditionBody>>,
    /// A filter as a condition: none of these holds.
    #[schema(no_recursion)]
    must_not: Option<Vec<ConditionBody>>,
    min_should: Option<u32>,
}

/// Numeric bounds; at least one must be given.
#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::rest) struct RangeBody {
    gt: Option<f64>,
    gte: Option<f64>,
    lt: Option<f64>,
    lte: Option<f64>,
}

pub(super) fn filter_in(filter: Option<FilterBody>) -> Result<Filter> {
    filter
        .map_or_else(|| Ok(Filter::default()), |f| filter_at(f, 1))
        .map_err(|e| e.at("/filter"))
}

fn filter_at(filter: FilterBody, depth: usize) -> Result<Filter> {
    if depth > limits::FILTER_DEPTH_MAX {
        return Err(Error::invalid(
            "filter_too_deep",
            format!("a filter may nest {} levels", limits::FILTER_DEPTH_MAX),
        ));
    }
    let part = |name: &str, conditions: Vec<ConditionBody>| -> Result<Vec<Condition>> {
        let one = |(i, c)| condition_in(c, depth).map_err(|e: Error| e.at(format!("/{name}/{i}")));
        conditions.into_iter().enumerate().map(one).collect()
    };
    Ok(Filter {
        must: part("must", filter.must)?,
        should: part("should", filter.should)?,
        must_not: part("must_not", filter.must_not)?,
        min_should: filter.min_should,
    })
}

const CONDITION: &str = "a condition holds exactly one of match, any, except, range, is_empty (these with a field), has_id, \
                         has_document, or a nested filter (must, should, must_not)";

fn condition_in(c: ConditionBody, depth: usize) -> Result<Condition> {
    let nested = c.must.is_some() || c.should.is_some() || c.must_not.is_some() || c.min_should.is_some();
    let on_field = [
        c.r#match.is_some(),
        c.any.is_some(),
        c.except.is_some(),
        c.range.is_some(),
        c.is_empty.is_some(),
    ]
    .into_iter();
    let on_field = on_field.filter(|given| *given).count();
    let others = [c.has_id.is_some(), c.has_document.is_some(), nested]
        .into_iter()
        .filter(|given| *given)
        .count();
    if on_field + others != 1 {
        return Err(Error::invalid("bad_filter", CONDITION));
    }
    let field = match (c.field, on_field) {
        (Some(field), 1) => field,
        (None, 0) => String::new(),
        (Some(_), _) => return Err(Error::invalid("bad_filter", "this condition takes no field").at("/field")),
        (None, _) => return Err(Error::invalid("bad_filter", "this condition needs a field").at("/field")),
    };
    if let Some(value) = c.r#match {
        return Ok(Condition::Any {
            field,
            values: vec![scalar_in(value, "/match")?],
        });
    }
    if let Some(values) = c.any {
        return Ok(Condition::Any {
            field,
            values: scalars_in(values, "/any")?,
        });
    }
    if let Some(values) = c.except {
        return Ok(Condition::Except {
            field,
            values: scalars_in(values, "/except")?,
        });
    }
    if let Some(r) = c.range {
        return Ok(Condition::Range {
            field,
            range: Range {
                gt: r.gt,
                gte: r.gte,
                lt: r.lt,
                lte: r.lte,
            },
        });
    }
    if let Some(empty) = c.is_empty {
        let is_empty = Condition::IsEmpty { field };
        if empty {
            return Ok(is_empty);
        }
        return Ok(Condition::Nested(Box::new(Filter {
            must_not: vec![is_empty],
            ..Filter::default()
        })));
    }
    if let Some(ids) = c.has_id {
        return Ok(Condition::HasId {
            ids: ids_in(ids, "/has_id")?,
        });
    }
    if let Some(ids) = c.has_document {
        return Ok(Condition::HasDocument {
            ids: ids_in(ids, "/has_document")?,
        });
    }
    let filter = FilterBody {
        must: c.must.unwrap_or_default(),
        should: c.should.unwrap_or_default(),
        must_not: c.must_not.unwrap_or_default(),
        min_should: c.min_should,
    };
    Ok(Condition::Nested(Box::new(filter_at(filter, depth + 1)?)))
}

fn scalar_in(value: Value, pointer: &str) -> Result<Scalar> {
    match value {
        Value::String(s) => Ok(Scalar::Str(s)),
        Value::Bool(b) => Ok(Scalar::Bool(b)),
        Value::Number(n) => match (n.as_i64(), n.as_f64()) {
            (Some(i), _) => Ok(Scalar::Int(i)),
            (None, Some(f)) => Ok(Scalar::Float(f)),
            (None, None) => Err(Error::invalid("bad_filter", format!("the number {n} is out of range")).at(pointer)),
        },
        Value::Null | Value::Array(_) | Value::Object(_) => {
            Err(Error::invalid("bad_filter", "a value to match is a string, a number or a boolean").at(pointer))
        }
    }
}

fn scalars_in(values: Vec<Value>, pointer: &str) -> Result<Vec<Scalar>> {
    values
        .into_iter()
        .enumerate()
        .map(|(i, v)| scalar_in(v, &format!("{pointer}/{i}")))
        .collect()
}

#[cfg(test)]
mod tests {
    use cairn_engine::types::PointId;
    use serde_json::json;

    use super::*;

    fn filter(value: Value) -> Result<Filter> {
        filter_in(Some(serde_json::from_value(value).unwrap()))
    }

    #[test]
    fn every_condition_has_its_json() {
        let text = |s: &str| Scalar::Str(s.into());
        let any = |field: &str, values| Condition::Any {
            field: field.into(),
            values,
        };
        let id = |s: &str| PointId::new(s).unwrap();
        let cases = [
            (json!({"field": "lang", "match": "en"}), any("lang", vec![text("en")])),
            (
                json!({"field": "n", "any": [1, 2.5, true]}),
                any("n", vec![Scalar::Int(1), Scalar::Float(2.5), Scalar::Bool(true)]),
            ),
            (
                json!({"field": "n", "except": ["a"]}),
                Condition::Except {
                    field: "n".into(),
                    values: vec![text("a")],
                },
            ),
            (
                json!({"field": "n", "range": {"gte": 1}}),
                Condition::Range {
                    field: "n".into(),
                    range: Range {
                        gte: Some(1.0),
                        ..Range::default()
                    },
                },
            ),
            (
                json!({"field": "x", "is_empty": true}),
                Condition::IsEmpty { field: "x".into() },
            ),
            (
                json!({"has_id": ["a", 1, -2]}),
                Condition::HasId {
                    ids: vec![id("a"), id("1"), id("-2")],
                },
            ),
            (
                json!({"has_document": ["d"]}),
                Condition::HasDocument { ids: vec![id("d")] },
            ),
            (
                json!({"should": [{"field": "a", "match": 1}], "min_should": 1}),
                Condition::Nested(Box::new(Filter {
                    should: vec![any("a", vec![Scalar::Int(1)])],
                    min_should: Some(1),
                    ..Filter::default()
                })),
            ),
        ];
        for (json, condition) in cases {
            assert_eq!(filter(json!({ "must": [json] })).unwrap(), Filter::must(condition));
        }
    }

    #[test]
    fn a_wrong_condition_says_where_and_what_is_allowed() {
        let cases = [
            (json!({}), ""),
            (json!({"field": "a"}), ""),
            (json!({"field": "a", "match": 1, "any": [1]}), ""),
            (json!({"match": 1}), "/field"),
            (json!({"field": "a", "has_id": ["b"]}), "/field"),
            (json!({"field": "a", "match": {"b": 1}}), "/match"),
            (json!({"field": "a", "any": [1, null]}), "/any/1"),
            (json!({"has_id": ["a", ""]}), "/has_id/1"),
        ];
        for (condition, at) in cases {
            let error = filter(json!({"must_not": [{"must": [condition]}]})).unwrap_err();
            assert_eq!(
                error.pointer.unwrap(),
                format!("/filter/must_not/0/must/0{at}"),
                "{}",
                error.message
            );
        }
    }

    #[test]
    fn a_filter_nests_as_deep_as_the_engine_allows_and_no_deeper() {
        let nested = |levels: usize| {
            let mut value = json!({"field": "a", "match": 1});
            for _ in 0..levels {
                value = json!({ "must": [value] });
            }
            filter(value)
        };
        assert!(nested(limits::FILTER_DEPTH_MAX).is_ok());
        assert_eq!(
            nested(limits::FILTER_DEPTH_MAX + 1).unwrap_err().code,
            "filter_too_deep"
        );
    }
}
