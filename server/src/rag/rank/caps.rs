//! At most so many hits per value of a field.
//!
//! Hits are taken best first. One that would be too many under any cap is left out and uses up no other cap's room.

use std::collections::HashMap;

use serde_json::Value;

/// For each hit, the cap that leaves it out, if one does. `hits[i][c]` is what hit `i` has under the field of cap `c`.
pub fn caps(hits: &[Vec<Option<&Value>>], most: &[usize]) -> Vec<Option<usize>> {
    let mut taken: HashMap<(usize, String), usize> = HashMap::new();
    let mut decide = |fields: &Vec<Option<&Value>>| {
        let keys: Vec<(usize, String)> = fields
            .iter()
            .enumerate()
            .flat_map(|(cap, value)| keys(*value).into_iter().map(move |key| (cap, key)))
            .collect();
        let full = keys
            .iter()
            .find(|key| taken.get(key).copied().unwrap_or(0) >= most[key.0]);
        if let Some((cap, _)) = full {
            return Some(*cap);
        }
        for key in keys {
            *taken.entry(key).or_default() += 1;
        }
        None
    };
    hits.iter().map(&mut decide).collect()
}

/// What a hit is counted under: each of its values once. A missing field, null and an object are no value: nothing
/// says that such hits belong together.
fn keys(value: Option<&Value>) -> Vec<String> {
    match value {
        None | Some(Value::Null | Value::Object(_)) => Vec::new(),
        Some(Value::Array(values)) => {
            let mut all: Vec<String> = values
                .iter()
                .filter(|v| !v.is_array())
                .flat_map(|v| keys(Some(v)))
                .collect();
            all.sort_unstable();
            all.dedup();
            all
        }
        // As JSON, so that "1" and 1 are two values.
        Some(scalar) => vec![scalar.to_string()],
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn check(hits: &[&[Value]], most: &[usize], expected: &[Option<usize>]) {
        let hits: Vec<Vec<Option<&Value>>> = hits.iter().map(|h| h.iter().map(Some).collect()).collect();
        assert_eq!(caps(&hits, most), expected);
    }

    #[test]
    fn the_first_of_each_value_are_kept() {
        let (a, b) = ([json!("a")], [json!("b")]);
        check(&[&a, &a, &b, &a, &b], &[2], &[None, None, None, Some(0), None]);
    }

    #[test]
    fn what_one_cap_leaves_out_takes_no_room_under_another() {
        let hit = |source: &str, document: &str| [json!(source), json!(document)];
        check(
            &[&hit("s", "d"), &hit("s", "e"), &hit("t", "e"), &hit("t", "e")],
            &[1, 1],
            &[None, Some(0), None, Some(0)],
        );
    }

    #[test]
    fn missing_values_are_not_counted_and_arrays_count_under_each_element() {
        let null = [json!(null)];
        check(&[&null, &null, &null], &[1], &[None, None, None]);
        check(
            &[
                &[json!(["a", "b", "a"])],
                &[json!("b")],
                &[json!("c")],
                &[json!({"x": 1})],
                &[json!({"x": 1})],
            ],
            &[1],
            &[None, Some(0), None, None, None],
        );
        check(
            &[&[json!(1)], &[json!("1")], &[json!(true)], &[json!(1)]],
            &[1],
            &[None, None, None, Some(0)],
        );
        assert_eq!(caps(&[vec![None], vec![None]], &[1]), [None, None]);
    }

    proptest! {
        #[test]
        fn no_value_is_kept_more_often_than_its_cap_and_nothing_is_dropped_needlessly(
            hits in prop::collection::vec((0u8..4, prop::option::of(0u8..3)), 0..60), most in (1usize..4, 1usize..4),
        ) {
            let values: Vec<(Value, Option<Value>)> = hits.iter().map(|(a, b)| (json!(a), b.map(|b| json!(b)))).collect();
            let hits: Vec<Vec<Option<&Value>>> = values.iter().map(|(a, b)| vec![Some(a), b.as_ref()]).collect();
            let most = [most.0, most.1];
            let out = caps(&hits, &most);
            let kept = |upto: usize, cap: usize, value: Option<&Value>| {
                (0..upto).filter(|&i| out[i].is_none() && hits[i][cap] == value && value.is_some()).count()
            };
            for (i, verdict) in out.iter().enumerate() {
                for (cap, most) in most.iter().enumerate() {
                    prop_assert!(kept(hits.len(), cap, hits[i][cap]) <= *most);
                }
                if let Some(cap) = verdict {
                    prop_assert_eq!(kept(i, *cap, hits[i][*cap]), most[*cap]);
                }
            }
        }
    }
}
