//! What is done with hits after they were found and fused: age, near duplicates, caps, diversity, and several
//! collections in one list.
//!
//! Pure functions over scores, values, texts and vectors. They know nothing of points and queries: a hit is its place in
//! the list that the caller holds, best first. `service/ranking.rs` fetches what each needs, runs them in the documented
//! order and keeps the account.

pub mod caps;
pub mod decay;
pub mod mmr;
pub mod near_duplicates;
pub mod several;

use cairn_engine::types::Payload;
use serde_json::Value;

/// Says whether to go on; loops whose length a request decides ask now and then.
pub type GoOn<'a> = &'a dyn Fn() -> cairn_engine::Result<()>;

/// The value under a dotted path. A key may itself contain dots, so each dot may or may not be a step down; what is
/// found first, shortest key last, counts. Arrays are values, not steps.
pub fn value_at<'p>(payload: &'p Payload, path: &str) -> Option<&'p Value> {
    if let Some(value) = payload.get(path) {
        return Some(value);
    }
    let cuts = path.match_indices('.').rev();
    cuts.filter_map(|(at, _)| Some((payload.get(&path[..at])?.as_object()?, &path[at + 1..])))
        .find_map(|(inner, rest)| value_at(inner, rest))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_path_finds_values_below_objects_and_under_keys_with_dots() {
        let payload = json!({"a": {"b": {"c": 1}, "x": [1, 2]}, "a.b": {"d": 2}, "e": null});
        let payload = payload.as_object().unwrap();
        let cases = [
            ("a.b.c", Some(json!(1))),
            ("a.b.d", Some(json!(2))),
            ("a.x", Some(json!([1, 2]))),
            ("a.x.0", None),
            ("e", Some(json!(null))),
            ("e.f", None),
            ("nothing", None),
            ("", None),
        ];
        for (path, value) in cases {
            assert_eq!(value_at(payload, path), value.as_ref(), "{path}");
        }
    }
}
