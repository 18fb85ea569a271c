//! The filter as a whole against a naive reading of the same payloads, and the rules of `extract`.
//!
//! The naive evaluator knows nothing of paths, typed values or sets: it walks JSON, one row and one condition at a time.

use std::cmp::Ordering;

use proptest::collection::vec;
use proptest::prelude::*;
use roaring::RoaringBitmap;
use serde_json::{Value as Json, json};

use super::eval::{IdLookup, eval, eval_within};
use super::extract::{Value, check_filter, check_payload, extract, text_values};
use super::index::{FilterIndexBuilder, FilterIndexLayout, merge};
use super::{Condition, Filter, Range, Scalar};
use crate::error::{ErrorKind, Result};
use crate::schema::{FieldSpec, Schema};
use crate::types::{Ordinal, Payload, PointId};

fn schema(fields: &[(&str, FieldSpec)], dynamic: bool) -> Schema {
    Schema {
        sparse: Default::default(),
        vectors: Default::default(),
        fields: fields
            .iter()
            .map(|(path, spec)| ((*path).to_owned(), spec.clone()))
            .collect(),
        dynamic,
        shards: 1,
        chunking: Default::default(),
        durability: None,
    }
}

fn payload(json: Json) -> Payload {
    let Json::Object(map) = json else {
        panic!("a payload is an object")
    };
    map
}

fn text() -> FieldSpec {
    FieldSpec::Text {
        analyzer: Default::default(),
    }
}

// ---- extract ----

/// What `extract` emits, as `path=value` lines, or the error's code and pointer.
fn extracted(json: Json, schema: &Schema) -> Vec<String> {
    let mut lines = Vec::new();
    match extract(&payload(json), schema, &mut |path, value| {
        lines.push(format!("{path}={value:?}"))
    }) {
        Ok(()) => lines,
        Err(e) => vec![format!("{} {}", e.code, e.pointer.unwrap_or_default())],
    }
}

#[test]
fn every_scalar_leaf_is_a_value_of_its_dotted_path() {
    let dynamic = schema(&[], true);
    for (json, lines) in [
        (json!({}), vec![]),
        (json!({"a": null, "b": [], "c": {}, "d": [null, {}]}), vec![]),
        (
            json!({"a": "x", "b": 1, "c": 1.5, "d": true}),
            vec![r#"a=Str("x")"#, "b=Int(1)", "c=Float(1.5)", "d=Bool(true)"],
        ),
        (
            json!({"a": {"b": {"c": 1}}, "a.b": 2}),
            vec!["a.b.c=Int(1)", "a.b=Int(2)"],
        ),
        (
            json!({"a": [1, "x", [2, [3]]]}),
            vec!["a=Int(1)", r#"a=Str("x")"#, "a=Int(2)", "a=Int(3)"],
        ),
        (
            json!({"a": [{"b": 1}, {"b": [2, 3], "c": 4}]}),
            vec!["a.b=Int(1)", "a.b=Int(2)", "a.b=Int(3)", "a.c=Int(4)"],
        ),
        (json!({"": 1, "b": {"": {"c": 2}}}), vec!["b..c=Int(2)"]),
        (json!({"": {"a": 1}}), vec![".a=Int(1)"]),
        (
            json!({"a": u64::MAX, "b": i64::MAX}),
            vec!["a=Float(1.8446744073709552e19)", "b=Int(9223372036854775807)"],
        ),
        (
            json!({"long": "x".repeat(513), "path": {"p".repeat(123): 1, "p".repeat(124): 2}}),
            {
                vec![concat!(
                    "path.",
                    "ppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppp",
                    "pppppppppppppppppppppppppppppppppppppppppppppppppppppppppppp",
                    "=Int(1)"
                )]
            },
        ),
    ] {
        assert_eq!(extracted(json.clone(), &dynamic), lines, "{json}");
        assert_eq!(extracted(json, &schema(&[], false)), Vec::<String>::new());
    }
}

#[test]
fn declared_fields_are_checked_and_errors_point_at_the_value() {
    let schema = schema(
        &[
            ("k", FieldSpec::Keyword {}),
            ("n.i", FieldSpec::Integer {}),
            ("f", FieldSpec::Float {}),
            ("b", FieldSpec::Bool {}),
            ("t", text()),
            ("s", FieldSpec::Stored {}),
            ("s.k", FieldSpec::Keyword {}),
        ],
        true,
    );
    for (json, lines) in [
        (
            json!({"k": ["x", null, "y"], "b": false}),
            vec!["b=Bool(false)", r#"k=Str("x")"#, r#"k=Str("y")"#],
        ),
        (
            json!({"n": [{"i": 1}, {"i": [2, 3.0]}], "f": [1, 2.5]}),
            vec!["f=Int(1)", "f=Float(2.5)", "n.i=Int(1)", "n.i=Int(2)", "n.i=Float(3.0)"],
        ),
        (json!({"t": "words", "f": null}), vec![]),
        (json!({"t": ["words", null, "more"]}), vec![]),
        (
            json!({"s": {"x": 1, "y": ["z"], "k": "found"}}),
            vec![r#"s.k=Str("found")"#],
        ),
        (json!({"s": 1}), vec![]),
        (json!({"k": 1}), vec!["payload_type /k"]),
        (json!({"k": {"x": "y"}}), vec!["payload_type /k"]),
        (json!({"k": ["x", ["y", true]]}), vec!["payload_type /k/1/1"]),
        (json!({"n": [{"i": 1}, {"i": [2, 2.5]}]}), vec!["payload_type /n/1/i/1"]),
        (json!({"n": {"i": u64::MAX}}), vec!["payload_type /n/i"]),
        (json!({"n": {"i": 9.3e18}}), vec!["payload_type /n/i"]),
        (json!({"f": "1.0"}), vec!["payload_type /f"]),
        (json!({"b": 0}), vec!["payload_type /b"]),
        (json!({"t": 5}), vec!["payload_type /t"]),
        (json!({"t": {"x": "y"}}), vec!["payload_type /t"]),
        (json!({"k": "x".repeat(513)}), vec!["keyword_too_long /k"]),
    ] {
        assert_eq!(extracted(json.clone(), &schema), lines, "{json}");
        let failed = lines.len() == 1 && lines[0].contains(" /");
        assert_eq!(
            check_payload(&payload(json.clone()), &schema).is_err(),
            failed,
            "{json}"
        );
    }
}

#[test]
fn pointers_escape_keys() {
    let schema = schema(&[("a/b~c", FieldSpec::Bool {})], true);
    assert_eq!(extracted(json!({"a/b~c": 1}), &schema), ["payload_type /a~1b~0c"]);
}

#[test]
fn depth_and_width_are_bounded() {
    let nested = |levels: usize| (1..levels).fold(json!({"x": 1}), |inner, _| json!({"x": inner}));
    let dynamic = schema(&[], true);
    assert_eq!(extracted(nested(32), &dynamic).len(), 1);
    assert_eq!(
        extracted(nested(33), &dynamic),
        [format!("payload_too_deep {}", "/x".repeat(32))]
    );
    let stored = schema(&[("x", FieldSpec::Stored {})], true);
    assert_eq!(
        extracted(nested(33), &stored),
        [format!("payload_too_deep {}", "/x".repeat(32))]
    );
    let arrays = (0..32).fold(json!(1), |inner, _| json!([inner]));
    assert!(extracted(json!({"x": arrays}), &dynamic)[0].starts_with("payload_too_deep /x/0/0"));

    assert_eq!(extracted(json!({"x": vec![7; 256]}), &dynamic).len(), 256);
    assert_eq!(
        extracted(json!({"x": vec![7; 257]}), &dynamic),
        ["payload_too_wide /x/256"]
    );
    assert_eq!(
        extracted(
            json!({"x": vec![7; 257]}),
            &schema(&[("x", FieldSpec::Integer {})], true)
        )
        .len(),
        257
    );
    assert_eq!(extracted(json!({"x": vec![7; 257]}), &schema(&[], false)).len(), 0);
}

#[test]
fn text_values_are_the_strings_under_a_path() {
    let payload = payload(json!({"a": [{"t": "one"}, {"t": ["two", null, 3, ["three"]]}], "a.t": "four", "t": "no"}));
    let mut found = Vec::new();
    text_values(&payload, "a.t", &mut |text| found.push(text.to_owned()));
    assert_eq!(found, ["one", "two", "three", "four"]);
}

#[test]
fn a_filter_on_an_unindexed_field_is_refused_where_it_stands() {
    let fields = [
        ("body", text()),
        ("lang", FieldSpec::Keyword {}),
        ("raw", FieldSpec::Stored {}),
        ("raw.id", FieldSpec::Integer {}),
    ];
    let on = |field: &str| Condition::IsEmpty { field: field.into() };
    for (field, dynamic, refused) in [
        ("lang", false, false),
        ("raw.id", false, false),
        ("other", true, false),
        ("other", false, true),
        ("body", true, true),
        ("raw", true, true),
        ("raw.deep.er", true, true),
    ] {
        let nested = Filter {
            must_not: vec![on("lang"), on(field)],
            ..Filter::default()
        };
        let filter = Filter {
            should: vec![Condition::Nested(Box::new(nested))],
            ..Filter::default()
        };
        let checked = check_filter(&filter, &schema(&fields, dynamic));
        assert_eq!(checked.is_err(), refused, "{field} {dynamic}");
        if let Err(e) = checked {
            assert_eq!((e.kind, e.code), (ErrorKind::Invalid, "field_not_indexed"));
            assert_eq!(e.pointer.as_deref(), Some("/should/0/must_not/1/field"));
            assert!(e.message.ends_with("lang, raw.id"), "{e}");
        }
    }
}

// ---- the naive evaluator ----

#[derive(Debug)]
struct Row {
    payload: Payload,
    id: String,
    document: Option<String>,
}

fn matches(row: &Row, filter: &Filter) -> bool {
    let holds = |condition: &Condition| holds(row, condition);
    filter.must.iter().all(holds)
        && !filter.must_not.iter().any(holds)
        && (filter.should.is_empty()
            || filter.should.iter().filter(|c| holds(c)).count() >= filter.min_should.unwrap_or(1) as usize)
}

fn holds(row: &Row, condition: &Condition) -> bool {
    let root = Json::Object(row.payload.clone());
    match condition {
        Condition::Any { field, values } => leaves(&root, field).any(|leaf| values.iter().any(|v| equal(leaf, v))),
        Condition::Except { field, values } => leaves(&root, field).any(|leaf| !values.iter().any(|v| equal(leaf, v))),
        Condition::Range { field, range } => leaves(&root, field).any(|leaf| {
            let is = |bound: Option<f64>, orders: &[Ordering]| {
                bound.is_none_or(|bound| compare(leaf, bound).is_some_and(|order| orders.contains(&order)))
            };
            is(range.gt, &[Ordering::Greater])
                && is(range.gte, &[Ordering::Greater, Ordering::Equal])
                && is(range.lt, &[Ordering::Less])
                && is(range.lte, &[Ordering::Less, Ordering::Equal])
        }),
        Condition::IsEmpty { field } => leaves(&root, field).next().is_none(),
        Condition::HasId { ids } => ids.iter().any(|id| id.as_str() == row.id),
        Condition::HasDocument { ids } => ids.iter().any(|id| Some(id.as_str()) == row.document.as_deref()),
        Condition::Nested(filter) => matches(row, filter),
    }
}

/// Scalars whose keys, joined by dots, spell `path`.
fn leaves<'j>(value: &'j Json, path: &str) -> impl Iterator<Item = &'j Json> {
    fn collect<'j>(value: &'j Json, spelled: &str, root: bool, path: &str, found: &mut Vec<&'j Json>) {
        match value {
            Json::Null => {}
            Json::Array(items) => items.iter().for_each(|item| collect(item, spelled, root, path, found)),
            Json::Object(map) => map.iter().for_each(|(key, value)| {
                let spelled = if root { key.clone() } else { format!("{spelled}.{key}") };
                collect(value, &spelled, false, path, found);
            }),
            _ if spelled == path => found.push(value),
            _ => {}
        }
    }
    let mut found = Vec::new();
    collect(value, "", true, path, &mut found);
    found.into_iter()
}

fn equal(leaf: &Json, value: &Scalar) -> bool {
    match (leaf, value) {
        (Json::String(a), Scalar::Str(b)) => a == b,
        (Json::Bool(a), Scalar::Bool(b)) => a == b,
        (Json::Number(_), Scalar::Float(b)) => compare(leaf, *b) == Some(Ordering::Equal),
        (Json::Number(a), Scalar::Int(b)) => match a.as_i64() {
            Some(a) => a == *b,
            // A float, or an integer that has become one.
            None => compare(&json!(*b), a.as_f64().unwrap()) == Some(Ordering::Equal),
        },
        _ => false,
    }
}

/// A JSON number against a float, without rounding either.
fn compare(leaf: &Json, float: f64) -> Option<Ordering> {
    let Json::Number(n) = leaf else { return None };
    let Some(int) = n.as_i64() else {
        return n.as_f64().unwrap().partial_cmp(&float);
    };
    if float.abs() > 1e19 {
        return Some(if float > 0.0 { Ordering::Less } else { Ordering::Greater });
    }
    let whole = i128::from(int).cmp(&(float.floor() as i128));
    Some(if whole == Ordering::Equal && float.fract() != 0.0 {
        Ordering::Less
    } else {
        whole
    })
}

impl IdLookup for &[Row] {
    fn ordinals_of_id(&self, id: &PointId) -> Result<RoaringBitmap> {
        Ok(self
            .iter()
            .position(|row| row.id == id.as_str())
            .map(|i| i as u32)
            .into_iter()
            .collect())
    }
    fn ordinals_of_document(&self, id: &PointId) -> Result<RoaringBitmap> {
        let rows = self
            .iter()
            .enumerate()
            .filter(|(_, row)| row.document.as_deref() == Some(id.as_str()));
        Ok(rows.map(|(i, _)| i as Ordinal).collect())
    }
}

// ---- index and naive evaluator agree ----

fn build(rows: &[Row]) -> Vec<u8> {
    let (schema, mut builder) = (schema(&[], true), FilterIndexBuilder::new());
    for (ordinal, row) in rows.iter().enumerate() {
        extract(&row.payload, &schema, &mut |path, value| {
            builder.add(ordinal as Ordinal, path, value)
        })
        .unwrap();
    }
    builder.finish(rows.len() as u32)
}

#[test]
fn a_long_filter_ends_when_the_time_is_up_wherever_that_is() {
    let rows: Vec<Row> = (0..50)
        .map(|i| Row {
            id: i.to_string(),
            document: None,
            payload: payload(json!({"n": [i, i + 1]})),
        })
        .collect();
    let section = build(&rows);
    let view = FilterIndexLayout::parse(&section).unwrap().view(&section);
    let values: Vec<Scalar> = (0..40).map(Scalar::Int).collect();
    let ids: Vec<PointId> = (0..40).map(|i| PointId::new(i.to_string()).unwrap()).collect();
    let field = || "n".to_owned();
    for condition in [
        Condition::Any {
            field: field(),
            values: values.clone(),
        },
        Condition::Except { field: field(), values },
        Condition::HasId { ids: ids.clone() },
        Condition::HasDocument { ids },
    ] {
        let filter = Filter::must(condition);
        let (asked, late) = (std::cell::Cell::new(0), std::cell::Cell::new(u32::MAX));
        let stop = || {
            asked.set(asked.get() + 1);
            asked.get() > late.get()
        };
        let within = || eval_within(&filter, &view, 50, &rows.as_slice(), &stop);
        let complete = within().unwrap();
        assert_eq!(complete, eval(&filter, &view, 50, &rows.as_slice()).unwrap());
        let times = asked.get();
        assert!(times >= 40, "{filter:?}: asked {times} times");
        for n in 0..times {
            asked.set(0);
            late.set(n);
            let error = within().unwrap_err();
            assert_eq!((error.kind, error.code), (ErrorKind::Deadline, "deadline_exceeded"));
        }
    }
}

fn check_against_naive(rows: &[Row], section: &[u8], filters: &[Filter]) {
    let view = FilterIndexLayout::parse(section).unwrap().view(section);
    for filter in filters {
        filter.check().unwrap();
        let found: Vec<Ordinal> = eval(filter, &view, rows.len() as u32, &rows)
            .unwrap()
            .into_iter()
            .collect();
        let expected: Vec<Ordinal> = rows
            .iter()
            .enumerate()
            .filter(|(_, row)| matches(row, filter))
            .map(|(i, _)| i as Ordinal)
            .collect();
        assert_eq!(found, expected, "{filter:?}");
    }
}

const BIG: i64 = 1 << 53;

fn numbers() -> impl Strategy<Value = Json> {
    prop::sample::select(vec![
        json!(0),
        json!(1),
        json!(-1),
        json!(2),
        json!(-0.0),
        json!(1.0),
        json!(0.5),
        json!(-1.5),
        json!(1e300),
        json!(-1e300),
        json!(BIG),
        json!(BIG + 1),
        json!(BIG + 2),
        json!(BIG as f64),
        json!(-BIG - 1),
        json!(-BIG),
        json!(i64::MAX),
        json!(i64::MAX - 1),
        json!(i64::MIN),
        json!(i64::MIN + 1),
        json!(u64::MAX),
        json!(1u64 << 63),
        json!(9.3e18),
        json!(5e-324),
    ])
}

fn scalars() -> impl Strategy<Value = Json> {
    prop_oneof![
        3 => numbers(),
        2 => prop::sample::select(vec!["", "x", "y", "1", "true", "xy"]).prop_map(|s| json!(s)),
        1 => any::<bool>().prop_map(|b| json!(b)),
        1 => Just(Json::Null),
    ]
}

fn objects(value: impl Strategy<Value = Json>) -> impl Strategy<Value = Json> {
    vec((prop::sample::select(vec!["a", "b", "c", "a.b", ""]), value), 0..4)
        .prop_map(|entries| Json::Object(entries.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()))
}

fn rows() -> impl Strategy<Value = Vec<Row>> {
    let value = scalars().prop_recursive(
        3,
        12,
        4,
        |inner| prop_oneof![2 => vec(inner.clone(), 0..4).prop_map(Json::Array), 1 => objects(inner)],
    );
    let row = (objects(value), prop::option::of(0..3u32));
    vec(row, 0..24).prop_map(|rows| {
        let row = |(i, (json, document)): (usize, (Json, Option<u32>))| Row {
            payload: payload(json),
            id: format!("p{i}"),
            document: document.map(|d| format!("d{d}")),
        };
        rows.into_iter().enumerate().map(row).collect()
    })
}

fn filter_scalars() -> impl Strategy<Value = Scalar> {
    prop_oneof![scalars().prop_filter_map("null is no scalar", |json| {
        match json {
            Json::String(s) => Some(Scalar::Str(s)),
            Json::Bool(b) => Some(Scalar::Bool(b)),
            Json::Number(n) => Some(
                n.as_i64()
                    .map_or_else(|| Scalar::Float(n.as_f64().unwrap()), Scalar::Int),
            ),
            Json::Null | Json::Array(_) | Json::Object(_) => None,
        }
    })]
}

fn ranges() -> impl Strategy<Value = Range> {
    let end = || prop_oneof![Just(f64::INFINITY), Just(f64::NEG_INFINITY)];
    let bound = || prop_oneof![9 => numbers().prop_map(|n| n.as_f64().unwrap()), 1 => end()];
    // One bound mostly: two that are drawn alone leave nothing between them half of the time.
    (
        vec(bound(), 4),
        prop_oneof![4 => Just(1), 2 => Just(2), 1 => Just(4)],
        0..4usize,
    )
        .prop_map(|(bounds, given, from)| {
            let bound = |i: usize| ((i + 4 - from) % 4 < given).then_some(bounds[i]);
            Range {
                gt: bound(0),
                lt: bound(1),
                gte: bound(2),
                lte: bound(3),
            }
        })
}

fn ids(prefix: &'static str) -> impl Strategy<Value = Vec<PointId>> {
    vec(
        (0..30u32).prop_map(move |i| PointId::new(format!("{prefix}{i}")).unwrap()),
        0..4,
    )
}

fn filters() -> impl Strategy<Value = Filter> {
    let field = || {
        prop::sample::select(vec!["a", "b", "c", "a.b", "b.a", "a.a", "a.b.c", "a.", "none"]).prop_map(str::to_owned)
    };
    let values = || vec(filter_scalars(), 1..4);
    let leaf = prop_oneof![
        3 => (field(), values()).prop_map(|(field, values)| Condition::Any { field, values }),
        3 => (field(), values()).prop_map(|(field, values)| Condition::Except { field, values }),
        3 => (field(), ranges()).prop_map(|(field, range)| Condition::Range { field, range }),
        1 => field().prop_map(|field| Condition::IsEmpty { field }),
        1 => ids("p").prop_map(|ids| Condition::HasId { ids }),
        1 => ids("d").prop_map(|ids| Condition::HasDocument { ids }),
    ];
    let alone = leaf.clone().prop_map(Filter::must);
    let conditions = leaf.prop_recursive(2, 12, 4, |inner| {
        trees(inner).prop_map(|f| Condition::Nested(Box::new(f)))
    });
    prop_oneof![alone, trees(conditions)]
}

fn trees(condition: impl Strategy<Value = Condition> + Clone) -> impl Strategy<Value = Filter> {
    let part = || vec(condition.clone(), 0..3);
    (
        part(),
        vec(condition.clone(), 0..5),
        part(),
        any::<prop::sample::Index>(),
    )
        .prop_map(|(must, should, must_not, min)| {
            // 0 stands for not given.
            let min = min.index(should.len() + 1) as u32;
            Filter {
                must,
                should,
                must_not,
                min_should: (min > 0).then_some(min),
            }
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn evaluation_agrees_with_a_naive_reading(rows in rows(), filters in vec(filters(), 1..12)) {
        check_against_naive(&rows, &build(&rows), &filters);
    }

    /// Cut anywhere into parts, drop any rows, merge: the same bytes as building what is left, hence the same answers.
    #[test]
    fn a_merge_is_the_build_of_what_is_left(
        rows in rows(),
        parts in vec(0..24usize, 0..3),
        kept in vec(any::<bool>(), 24),
        filters in vec(filters(), 1..4),
    ) {
        let mut cuts = parts;
        cuts.extend([0, rows.len()]);
        cuts.iter_mut().for_each(|cut| *cut = (*cut).min(rows.len()));
        cuts.sort_unstable();
        let sections: Vec<Vec<u8>> = cuts.windows(2).map(|cut| build(&rows[cut[0]..cut[1]])).collect();
        let new_ordinal: Vec<Option<Ordinal>> = kept.iter().scan(0, |next, &kept| {
            let ordinal = *next;
            *next += Ordinal::from(kept);
            Some(kept.then_some(ordinal))
        }).collect();
        let remaps: Vec<_> = cuts.iter().map(|&start| {
            let new_ordinal = &new_ordinal;
            move |old: Ordinal| new_ordinal[start + old as usize]
        }).collect();
        let left: Vec<Row> = rows.into_iter().zip(&kept).filter(|(_, kept)| **kept).map(|(row, _)| row).collect();

        let inputs: Vec<_> = sections.iter().zip(&remaps).map(|(section, remap)| {
            let remap: &dyn Fn(Ordinal) -> Option<Ordinal> = remap;
            (FilterIndexLayout::parse(section).unwrap().view(section), remap)
        }).collect();
        let merged = merge(&inputs, left.len() as u32).unwrap();
        prop_assert_eq!(&merged, &build(&left));
        check_against_naive(&left, &merged, &filters);
    }
}

#[test]
fn integers_beyond_doubles_stay_apart() {
    let rows: Vec<Row> = [
        json!(BIG),
        json!(BIG + 1),
        json!(BIG as f64),
        json!(-0.0),
        json!(0),
        json!("0"),
        json!(false),
    ]
    .into_iter()
    .map(|n| Row {
        payload: payload(json!({"n": n})),
        id: String::new(),
        document: None,
    })
    .collect();
    let section = build(&rows);
    let view = FilterIndexLayout::parse(&section).unwrap().view(&section);
    for (value, expected) in [
        (Scalar::Int(BIG), vec![0, 2]),
        (Scalar::Int(BIG + 1), vec![1]),
        (Scalar::Float(BIG as f64), vec![0, 2]),
        (Scalar::Float(-0.0), vec![3, 4]),
        (Scalar::Int(0), vec![3, 4]),
        (Scalar::Str("0".into()), vec![5]),
        (Scalar::Bool(false), vec![6]),
    ] {
        let filter = Filter::must(Condition::Any {
            field: "n".into(),
            values: vec![value],
        });
        let found = eval(&filter, &view, rows.len() as u32, &rows.as_slice()).unwrap();
        assert_eq!(found.into_iter().collect::<Vec<_>>(), expected, "{filter:?}");
    }
    let mut listed = Vec::new();
    view.values("n", &mut |value, rows| {
        listed.push(format!("{value:?} x{}", rows.len()));
        Ok(std::ops::ControlFlow::Continue(()))
    })
    .unwrap();
    assert_eq!(
        listed,
        [
            r#"Str("0") x1"#,
            "Bool(false) x1",
            "Int(0) x2",
            "Int(9007199254740992) x2",
            "Int(9007199254740993) x1"
        ]
    );
}

#[test]
fn except_wants_one_element_outside_the_list() {
    let rows: Vec<Row> = [
        json!([1, "x"]),
        json!([1, 1.0]),
        json!("x"),
        json!([]),
        json!(null),
        json!([1, "x", 2]),
    ]
    .into_iter()
    .map(|f| Row {
        payload: payload(json!({"f": f})),
        id: String::new(),
        document: None,
    })
    .collect();
    let section = build(&rows);
    let one = || [Scalar::Int(1), Scalar::Float(1.0)].to_vec();
    let with = |more: Scalar| one().into_iter().chain([more]).collect::<Vec<_>>();
    for (values, expected) in [
        // The same number said twice is one exclusion.
        (one(), vec![0, 2, 5]),
        (with(Scalar::Str("x".into())), vec![5]),
        (with(Scalar::Int(7)), vec![0, 2, 5]),
        (vec![Scalar::Str("none".into())], vec![0, 1, 2, 5]),
    ] {
        let filter = Filter::must(Condition::Except {
            field: "f".into(),
            values,
        });
        check_against_naive(&rows, &section, std::slice::from_ref(&filter));
        let view = FilterIndexLayout::parse(&section).unwrap().view(&section);
        let found = eval(&filter, &view, rows.len() as u32, &rows.as_slice()).unwrap();
        assert_eq!(found.into_iter().collect::<Vec<_>>(), expected, "{filter:?}");
    }
}

#[test]
fn an_index_of_another_segment_is_damage() {
    let section = FilterIndexBuilder::new().finish(7);
    let view = FilterIndexLayout::parse(&section).unwrap().view(&section);
    let none: &[Row] = &[];
    assert_eq!(eval(&Filter::default(), &view, 7, &none).unwrap().len(), 7);
    assert_eq!(
        eval(&Filter::default(), &view, 8, &none).unwrap_err().kind,
        ErrorKind::Damaged
    );
}

/// `cargo test -p cairn-engine --lib filter::tests::measure -- --ignored --nocapture`
#[test]
#[ignore = "a measurement"]
fn measure() {
    const ROWS: u32 = 100_000;
    let started = std::time::Instant::now();
    let mut builder = FilterIndexBuilder::new();
    for i in 0..ROWS {
        let mixed = u64::from(i).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        builder.add(i, "lang", Value::Str(if mixed % 2 == 0 { "en" } else { "de" }));
        builder.add(i, "at", Value::Int((mixed % 1_000_000) as i64));
        builder.add(i, "source", Value::Str(&format!("https://example.org/page/{mixed}")));
    }
    let section = builder.finish(ROWS);
    eprintln!("build {:?}, {} bytes", started.elapsed(), section.len());
    let started = std::time::Instant::now();
    let view = FilterIndexLayout::parse(&section).unwrap().view(&section);
    let merged = merge(&[(view, &|old| Some(old)), (view, &|old| Some(old + ROWS))], 2 * ROWS).unwrap();
    eprintln!("merge of two {:?}, {} bytes", started.elapsed(), merged.len());

    let keyword = Condition::Any {
        field: "lang".into(),
        values: vec![Scalar::Str("en".into())],
    };
    let range = Condition::Range {
        field: "at".into(),
        range: Range {
            gte: Some(4e5),
            lt: Some(5e5),
            ..Range::default()
        },
    };
    let except = Condition::Except {
        field: "lang".into(),
        values: vec![Scalar::Str("en".into())],
    };
    let unique = Condition::Any {
        field: "source".into(),
        values: vec![Scalar::Str("https://example.org/page/0".into())],
    };
    let none: &[Row] = &[];
    for (name, must) in [
        ("keyword", vec![keyword.clone()]),
        ("range", vec![range.clone()]),
        ("both", vec![keyword, range]),
        ("except", vec![except]),
        ("unique", vec![unique]),
    ] {
        let filter = Filter {
            must,
            ..Filter::default()
        };
        let mut times: Vec<_> = (0..200)
            .map(|_| {
                let started = std::time::Instant::now();
                let found = eval(&filter, &view, ROWS, &none).unwrap();
                (started.elapsed(), found.len())
            })
            .collect();
        times.sort();
        eprintln!("{name}: {} rows, median {:?}", times[100].1, times[100].0);
    }
}
