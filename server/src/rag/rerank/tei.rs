//! `POST /rerank` of text-embeddings-inference: what is asked, what is answered. Pure.

use serde::Deserialize;
use serde_json::{Value, json};

/// Scores through a sigmoid (`raw_scores` false), so 0 to 1. Longer texts than the model reads are cut by the service.
pub(super) fn body(query: &str, texts: &[&str]) -> Value {
    json!({"query": query, "texts": texts, "raw_scores": false, "return_text": false, "truncate": true})
}

/// Scores with the positions of their texts, as they came.
pub(super) fn scores(body: &[u8]) -> Result<Vec<(usize, f32)>, String> {
    #[derive(Deserialize)]
    struct Rank {
        index: usize,
        score: f32,
    }
    let ranks: Vec<Rank> = serde_json::from_slice(body).map_err(|e| format!("the answer has another shape: {e}"))?;
    Ok(ranks.into_iter().map(|r| (r.index, r.score)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_asked_and_read_in_its_shape() {
        let expected =
            json!({"query": "q", "texts": ["a", "b"], "raw_scores": false, "return_text": false, "truncate": true});
        assert_eq!(body("q", &["a", "b"]), expected);
        let answer = br#"[{"index": 1, "score": 0.75, "text": "b"}, {"index": 0, "score": 0.25}]"#;
        assert_eq!(scores(answer).unwrap(), [(1, 0.75), (0, 0.25)]);
        for wrong in [
            &b"{}"[..],
            b"[{\"index\": 0}]",
            b"[{\"index\": -1, \"score\": 1}]",
            b"nonsense",
        ] {
            assert!(scores(wrong).unwrap_err().contains("another shape"));
        }
    }
}
