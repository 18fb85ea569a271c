//! `POST /rerank` in Cohere's shape, which Jina, vLLM, Infinity and others speak too: what is asked, what is answered. Pure.

use serde::Deserialize;
use serde_json::{Value, json};

/// Nothing optional is said: all of these services score every document by default, and some refuse what they do not know.
pub(super) fn body(model: Option<&str>, query: &str, texts: &[&str]) -> Value {
    let mut body = json!({"query": query, "documents": texts});
    if let Some(model) = model {
        body["model"] = model.into();
    }
    body
}

/// Scores with the positions of their documents, as they came.
pub(super) fn scores(body: &[u8]) -> Result<Vec<(usize, f32)>, String> {
    #[derive(Deserialize)]
    struct Answer {
        results: Vec<Ranked>,
    }
    #[derive(Deserialize)]
    struct Ranked {
        index: usize,
        relevance_score: f32,
    }
    let answer: Answer = serde_json::from_slice(body).map_err(|e| format!("the answer has another shape: {e}"))?;
    Ok(answer
        .results
        .into_iter()
        .map(|r| (r.index, r.relevance_score))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_asked_and_read_in_its_shape() {
        let expected = json!({"model": "m", "query": "q", "documents": ["a"]});
        assert_eq!(body(Some("m"), "q", &["a"]), expected);
        assert_eq!(body(None, "q", &["a"]), json!({"query": "q", "documents": ["a"]}));
        let answer = br#"{"id": "x", "results": [{"index": 1, "relevance_score": 0.5, "document": {"text": "b"}},
            {"index": 0, "relevance_score": 0.125}], "meta": {}}"#;
        assert_eq!(scores(answer).unwrap(), [(1, 0.5), (0, 0.125)]);
        for wrong in [&b"[]"[..], b"{\"results\": [{\"index\": 0}]}", b""] {
            assert!(scores(wrong).unwrap_err().contains("another shape"));
        }
    }
}
