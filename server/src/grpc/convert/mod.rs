//! Messages of `cairn.v1` to and from domain types: the only module that knows both, one file a resource.
//!
//! Inward conversions refuse what the messages allow and the domain does not, with a pointer that uses the messages' field
//! names. Ranges and counts are not checked here: the service and the engine do that for every adapter alike.
//!
//! Here is what the resources share: JSON values, ids, tokens, counts.

mod collections;
mod damage;
mod documents;
mod enrich;
mod filter;
mod operations;
mod points;
mod query;
mod ranking;
mod snapshots;

use cairn_engine::types::{Payload, PointId, Token};
use cairn_engine::{Error, Result, limits};
use cairn_proto::v1 as pb;
use serde_json::{Number, Value};

pub(super) use self::collections::{collection_out, schema_in};
pub(super) use self::damage::partial_out;
pub(super) use self::documents::{
    after_id_in, document_in, document_out, documents_in, on_near_duplicate_in, page_limit_in, put_all_out, put_one_out,
};
pub(super) use self::enrich::{enrich_in, enriched_out};
pub(super) use self::filter::filter_in;
pub(super) use self::operations::operation_out;
pub(super) use self::points::{
    applied_out, durability_out, made_by_in, params_in, payload_change_in, point_out, points_in, scroll_in,
    selector_in, with_in,
};
pub(super) use self::query::{answer_out, ask_in};
pub(super) use self::snapshots::{restore_in, snapshot_out};

fn value_in(value: pb::Value, depth: usize) -> Result<Value> {
    use pb::value::Kind;
    if depth > limits::PAYLOAD_DEPTH_MAX {
        return Err(Error::invalid(
            "payload_too_deep",
            format!("a payload may nest {} levels", limits::PAYLOAD_DEPTH_MAX),
        ));
    }
    Ok(match value.kind {
        None | Some(Kind::Null(_)) => Value::Null,
        Some(Kind::Bool(b)) => b.into(),
        Some(Kind::Int(i)) => i.into(),
        Some(Kind::Uint(u)) => u.into(),
        Some(Kind::Double(d)) => Value::Number(Number::from_f64(d).ok_or_else(|| {
            Error::invalid(
                "not_finite",
                format!("a payload is JSON and must hold finite numbers, got {d}"),
            )
        })?),
        Some(Kind::String(s)) => s.into(),
        Some(Kind::List(list)) => Value::Array(
            list.values
                .into_iter()
                .map(|v| value_in(v, depth + 1))
                .collect::<Result<_>>()?,
        ),
        Some(Kind::Struct(object)) => Value::Object(object_in(object, depth + 1)?),
    })
}

fn object_in(object: pb::Struct, depth: usize) -> Result<Payload> {
    let field = |(key, value)| match value_in(value, depth) {
        Ok(value) => Ok((key, value)),
        Err(e) => Err(e.at(format!("/{key}"))),
    };
    object.fields.into_iter().map(field).collect()
}

fn payload_in(payload: Option<pb::Struct>) -> Result<Payload> {
    payload.map_or_else(|| Ok(Payload::new()), |object| object_in(object, 1))
}

fn value_out(value: Value) -> pb::Value {
    use pb::value::Kind;
    let kind = match value {
        Value::Null => Kind::Null(true),
        Value::Bool(b) => Kind::Bool(b),
        Value::Number(n) => match (n.as_i64(), n.as_u64()) {
            (Some(i), _) => Kind::Int(i),
            (None, Some(u)) => Kind::Uint(u),
            (None, None) => Kind::Double(n.as_f64().unwrap_or_default()),
        },
        Value::String(s) => Kind::String(s),
        Value::Array(values) => Kind::List(pb::List {
            values: values.into_iter().map(value_out).collect(),
        }),
        Value::Object(object) => Kind::Struct(object_out(object)),
    };
    pb::Value { kind: Some(kind) }
}

fn object_out(object: Payload) -> pb::Struct {
    pb::Struct {
        fields: object.into_iter().map(|(key, value)| (key, value_out(value))).collect(),
    }
}

fn id_in(id: String, pointer: &str) -> Result<PointId> {
    PointId::new(id).map_err(|e| e.at(pointer))
}

pub(super) fn ids_in(ids: Vec<String>) -> Result<Vec<PointId>> {
    ids.into_iter()
        .enumerate()
        .map(|(i, id)| PointId::new(id).map_err(|e| e.at(format!("/ids/{i}"))))
        .collect()
}

pub(super) fn document_id_in(id: String) -> Result<PointId> {
    id_in(id, "/id")
}

/// An absent text and an empty one are the same in these messages.
pub(super) fn text_in(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

pub(super) fn token_in(token: Option<String>, pointer: &str) -> Result<Option<Token>> {
    token
        .filter(|t| !t.is_empty())
        .map(|t| t.parse::<Token>().map_err(|e| e.at(pointer)))
        .transpose()
}

fn size_in(n: u32) -> usize {
    n as usize
}

fn count_out(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

fn bad_enum(field: &str, name: &str, got: i32) -> Error {
    Error::invalid("bad_request", format!("{field} must be one of {name}, got {got}")).at(format!("/{field}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn json_survives_the_wire_with_its_integers() {
        let payload = json!({
            "null": null, "bool": true, "int": 9_007_199_254_740_993_i64, "negative": -1, "uint": u64::MAX,
            "double": 0.1, "text": "größe", "list": [1, [2.5, {"a": []}]], "object": {"": {"x": 1}}
        });
        let payload = payload.as_object().unwrap().clone();
        assert_eq!(payload_in(Some(object_out(payload.clone()))).unwrap(), payload);
    }

    #[test]
    fn numbers_that_json_lacks_are_refused_with_their_place() {
        let nan = pb::Value {
            kind: Some(pb::value::Kind::Double(f64::NAN)),
        };
        let list = pb::Value {
            kind: Some(pb::value::Kind::List(pb::List { values: vec![nan] })),
        };
        let error = payload_in(Some(pb::Struct {
            fields: [("a".to_owned(), list)].into(),
        }))
        .unwrap_err();
        assert_eq!((error.code, error.pointer.as_deref()), ("not_finite", Some("/a")));
    }

    #[test]
    fn nesting_is_bounded_before_anything_looks_at_it() {
        let mut filter = pb::Filter::default();
        for _ in 0..limits::FILTER_DEPTH_MAX {
            let nested = pb::Condition {
                field: String::new(),
                test: Some(pb::condition::Test::Nested(filter)),
            };
            filter = pb::Filter {
                must: vec![nested],
                ..pb::Filter::default()
            };
        }
        assert_eq!(filter_in(Some(filter)).unwrap_err().code, "filter_too_deep");
        let mut value = pb::Value::default();
        for _ in 0..=limits::PAYLOAD_DEPTH_MAX {
            value = pb::Value {
                kind: Some(pb::value::Kind::List(pb::List { values: vec![value] })),
            };
        }
        let payload = pb::Struct {
            fields: [("a".to_owned(), value)].into(),
        };
        assert_eq!(payload_in(Some(payload)).unwrap_err().code, "payload_too_deep");
    }
}
