//! Filters in messages.

use cairn_engine::filter::{Condition, Filter, Range, Scalar};
use cairn_engine::{Error, Result, limits};
use cairn_proto::v1 as pb;

use super::ids_in;

pub(in crate::grpc) fn filter_in(filter: Option<pb::Filter>) -> Result<Filter> {
    filter
        .map_or_else(|| Ok(Filter::default()), |f| filter_at(f, 1))
        .map_err(|e| e.at("/filter"))
}

fn filter_at(filter: pb::Filter, depth: usize) -> Result<Filter> {
    if depth > limits::FILTER_DEPTH_MAX {
        return Err(Error::invalid(
            "filter_too_deep",
            format!("a filter may nest {} levels", limits::FILTER_DEPTH_MAX),
        ));
    }
    let part = |name: &str, conditions: Vec<pb::Condition>| -> Result<Vec<Condition>> {
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

fn condition_in(condition: pb::Condition, depth: usize) -> Result<Condition> {
    use pb::condition::Test;
    let field = condition.field;
    let on_field = |field: String| match field.is_empty() {
        true => Err(Error::invalid("bad_filter", "this condition needs a field").at("/field")),
        false => Ok(field),
    };
    let no_field = |field: &str| match field.is_empty() {
        true => Ok(()),
        false => Err(Error::invalid("bad_filter", "this condition takes no field").at("/field")),
    };
    let ids = |ids: pb::Ids| ids_in(ids.ids);
    match condition.test {
        None => Err(Error::invalid(
            "bad_filter",
            "a condition holds one of match, any, except, range, is_empty, has_id, has_document, nested",
        )),
        Some(Test::Match(value)) => Ok(Condition::Any {
            field: on_field(field)?,
            values: vec![scalar_in(value, "/match")?],
        }),
        Some(Test::Any(values)) => Ok(Condition::Any {
            field: on_field(field)?,
            values: scalars_in(values, "/any")?,
        }),
        Some(Test::Except(values)) => Ok(Condition::Except {
            field: on_field(field)?,
            values: scalars_in(values, "/except")?,
        }),
        Some(Test::Range(r)) => {
            let range = Range {
                gt: r.gt,
                gte: r.gte,
                lt: r.lt,
                lte: r.lte,
            };
            Ok(Condition::Range {
                field: on_field(field)?,
                range,
            })
        }
        Some(Test::IsEmpty(true)) => Ok(Condition::IsEmpty {
            field: on_field(field)?,
        }),
        Some(Test::IsEmpty(false)) => {
            let empty = Condition::IsEmpty {
                field: on_field(field)?,
            };
            Ok(Condition::Nested(Box::new(Filter {
                must_not: vec![empty],
                ..Filter::default()
            })))
        }
        Some(Test::HasId(list)) => {
            no_field(&field)?;
            Ok(Condition::HasId {
                ids: ids(list).map_err(|e| e.at("/has_id"))?,
            })
        }
        Some(Test::HasDocument(list)) => {
            no_field(&field)?;
            Ok(Condition::HasDocument {
                ids: ids(list).map_err(|e| e.at("/has_document"))?,
            })
        }
        Some(Test::Nested(filter)) => {
            no_field(&field)?;
            Ok(Condition::Nested(Box::new(
                filter_at(filter, depth + 1).map_err(|e| e.at("/nested"))?,
            )))
        }
    }
}

fn scalar_in(scalar: pb::Scalar, pointer: &str) -> Result<Scalar> {
    use pb::scalar::Value;
    match scalar.value {
        Some(Value::String(s)) => Ok(Scalar::Str(s)),
        Some(Value::Int(i)) => Ok(Scalar::Int(i)),
        Some(Value::Double(d)) => Ok(Scalar::Float(d)),
        Some(Value::Bool(b)) => Ok(Scalar::Bool(b)),
        None => Err(Error::invalid("bad_filter", "a value is a string, int, double or bool").at(pointer)),
    }
}

fn scalars_in(scalars: pb::Scalars, pointer: &str) -> Result<Vec<Scalar>> {
    scalars
        .values
        .into_iter()
        .enumerate()
        .map(|(i, s)| scalar_in(s, &format!("{pointer}/{i}")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_say_where_they_are_wrong() {
        use pb::condition::Test;
        let filter = |condition: pb::Condition| {
            let nested = pb::Filter {
                should: vec![condition],
                ..pb::Filter::default()
            };
            let outer = pb::Condition {
                field: String::new(),
                test: Some(Test::Nested(nested)),
            };
            filter_in(Some(pb::Filter {
                must: vec![outer],
                ..pb::Filter::default()
            }))
        };
        let scalar = pb::Scalar {
            value: Some(pb::scalar::Value::Int(1)),
        };
        let cases = [
            (
                pb::Condition {
                    field: "a".into(),
                    test: None,
                },
                "",
            ),
            (
                pb::Condition {
                    field: String::new(),
                    test: Some(Test::Match(scalar.clone())),
                },
                "/field",
            ),
            (
                pb::Condition {
                    field: "a".into(),
                    test: Some(Test::HasId(pb::Ids::default())),
                },
                "/field",
            ),
            (
                pb::Condition {
                    field: "a".into(),
                    test: Some(Test::Match(pb::Scalar { value: None })),
                },
                "/match",
            ),
            (
                pb::Condition {
                    field: String::new(),
                    test: Some(Test::HasId(pb::Ids {
                        ids: vec![String::new()],
                    })),
                },
                "/has_id/ids/0",
            ),
        ];
        for (condition, at) in cases {
            let error = filter(condition).unwrap_err();
            assert_eq!(error.pointer.unwrap(), format!("/filter/must/0/nested/should/0{at}"));
        }
        let right = filter(pb::Condition {
            field: "a".into(),
            test: Some(Test::Match(scalar)),
        })
        .unwrap();
        let leaf = Condition::Any {
            field: "a".into(),
            values: vec![Scalar::Int(1)],
        };
        let inner = Filter {
            should: vec![leaf],
            ..Filter::default()
        };
        assert_eq!(right, Filter::must(Condition::Nested(Box::new(inner))));
    }
}
