//! What is said to embedding services, and what they answer: bodies out, vectors in. Pure; what an answer gets wrong is
//! said in words.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};

use super::batch::reference;
use crate::config::{Encoding, MediaShape};
use crate::rag::embed::{Input, Medium};

/// Bytes of a number in JSON, with its comma: the longest f64 has 24 characters.
const NUMBER_BYTES_MAX: usize = 32;
/// Bytes around the numbers of one vector, and around all of them.
const AROUND_BYTES_MAX: usize = 4 << 10;

/// What a body is made with, besides its inputs.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Asked {
    pub(super) model: Option<String>,
    /// Length to ask for, of services that can give several.
    pub(super) dimensions: Option<usize>,
    pub(super) encoding: Encoding,
    pub(super) media: MediaShape,
}

/// `POST /embeddings`. Media other than text are said as [`MediaShape`] describes.
pub(super) fn openai_body(asked: &Asked, inputs: &[Input<'_>]) -> Value {
    let mut body = Map::new();
    if let Some(model) = &asked.model {
        body.insert("model".into(), model.as_str().into());
    }
    if let Some(dimensions) = asked.dimensions {
        body.insert("dimensions".into(), dimensions.into());
    }
    // What is the default everywhere is not said: some services refuse what they do not know.
    if asked.encoding == Encoding::Base64 {
        body.insert("encoding_format".into(), "base64".into());
    }
    let medium = inputs.iter().map(Input::medium).find(|m| *m != Medium::Text);
    let plain = || Value::from(inputs.iter().map(reference).collect::<Vec<_>>());
    match (medium, asked.media) {
        (None, _) => {
            body.insert("input".into(), plain());
        }
        (Some(medium), MediaShape::Infinity) => {
            body.insert("input".into(), plain());
            body.insert("modality".into(), json!(medium));
        }
        (Some(_), MediaShape::Jina) => {
            let one = |input: &Input<'_>| match *input {
                Input::Text(text) => json!({"text": text}),
                Input::Image(url) => json!({"image": url}),
                Input::Audio(url) => json!({"audio": url}),
            };
            body.insert("input".into(), inputs.iter().map(one).collect());
        }
        (Some(_), MediaShape::Vllm) => {
            let one = |input: &Input<'_>| match *input {
                Input::Text(text) => json!({"type": "text", "text": text}),
                Input::Image(url) => json!({"type": "image_url", "image_url": {"url": url}}),
                Input::Audio(url) => json!({"type": "audio_url", "audio_url": {"url": url}}),
            };
            let content: Vec<Value> = inputs.iter().map(one).collect();
            body.insert("messages".into(), json!([{"role": "user", "content": content}]));
        }
    }
    Value::Object(body)
}

/// `POST /embed`. Longer texts than the model reads are cut by the service.
pub(super) fn tei_body(asked: &Asked, inputs: &[Input<'_>]) -> Value {
    let texts: Vec<&str> = inputs.iter().map(reference).collect();
    let mut body = json!({"inputs": texts, "normalize": true, "truncate": true});
    if let Some(dimensions) = asked.dimensions {
        body["dimensions"] = dimensions.into();
    }
    body
}

/// The largest answer of so many vectors of so many numbers.
pub(super) fn answer_bytes_max(vectors: usize, dim: usize) -> usize {
    let vector = dim.saturating_mul(NUMBER_BYTES_MAX).saturating_add(AROUND_BYTES_MAX);
    vectors.saturating_mul(vector).saturating_add(AROUND_BYTES_MAX)
}

/// The vectors of an OpenAI answer in the order of the inputs, whatever order they came in, and the model it names.
pub(super) fn openai_vectors(body: &[u8], inputs: usize) -> Result<(Vec<Vec<f32>>, Option<String>), String> {
    #[derive(Deserialize)]
    struct Answer {
        data: Vec<Item>,
        model: Option<String>,
    }
    #[derive(Deserialize)]
    struct Item {
        index: Option<usize>,
        embedding: Numbers,
    }
    let answer: Answer = parse(body)?;
    check_count(answer.data.len(), inputs)?;
    let mut vectors: Vec<Option<Vec<f32>>> = vec![None; inputs];
    for (n, item) in answer.data.into_iter().enumerate() {
        let at = item.index.unwrap_or(n);
        match vectors.get_mut(at) {
            Some(place @ None) => *place = Some(item.embedding.0),
            Some(Some(_)) => return Err(format!("two vectors have the index {at}")),
            None => return Err(format!("a vector has the index {at}, of {inputs} inputs")),
        }
    }
    // As many as inputs, each in a place of its own: none is missing.
    let vectors: Option<Vec<Vec<f32>>> = vectors.into_iter().collect();
    Ok((vectors.ok_or("a vector is missing")?, answer.model))
}

/// The vectors of a TEI answer.
pub(super) fn tei_vectors(body: &[u8], inputs: usize) -> Result<Vec<Vec<f32>>, String> {
    let vectors: Vec<Vec<f32>> = parse(body)?;
    check_count(vectors.len(), inputs)?;
    Ok(vectors)
}

/// Refuses vectors that no index should hold. `dim` is none while it is being found out.
pub(super) fn check_vectors(vectors: &[Vec<f32>], dim: Option<usize>) -> Result<(), String> {
    let dim = dim.or(vectors.first().map(Vec::len)).unwrap_or_default();
    for (i, vector) in vectors.iter().enumerate() {
        if vector.len() != dim || vector.is_empty() {
            return Err(format!("vector {i} has {} numbers, want {dim}", vector.len()));
        }
        if let Some(at) = vector.iter().position(|x| !x.is_finite()) {
            return Err(format!("vector {i} holds {} at {at}", vector[at]));
        }
        if vector.iter().all(|x| *x == 0.0) {
            return Err(format!("vector {i} is all zeros"));
        }
    }
    Ok(())
}

/// What a TEI service says about itself, in `GET /info`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct TeiInfo {
    pub(super) model_id: String,
    pub(super) model_sha: Option<String>,
    #[serde(default)]
    pub(super) model_type: Value,
    pub(super) max_client_batch_size: Option<usize>,
    pub(super) max_input_length: Option<usize>,
}

impl TeiInfo {
    pub(super) fn read(body: &[u8]) -> Result<Self, String> {
        let info: Self = parse(body)?;
        // `{"embedding": {"pooling": "cls"}}`; older versions say a bare word.
        let embeds =
            info.model_type.get("embedding").is_some() || info.model_type.is_null() || info.model_type == "embedding";
        if !embeds {
            return Err(format!(
                "it serves {}, which is no embedder: {}",
                info.model_id, info.model_type
            ));
        }
        Ok(info)
    }

    /// Everything it says that decides its vectors.
    pub(super) fn revision(&self) -> String {
        let sha = self.model_sha.as_deref().unwrap_or("unknown");
        match self.model_type.pointer("/embedding/pooling").and_then(Value::as_str) {
            Some(pooling) => format!("{}@{sha} ({pooling})", self.model_id),
            None => format!("{}@{sha}", self.model_id),
        }
    }
}

fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, String> {
    serde_json::from_slice(body).map_err(|e| match e.classify() {
        serde_json::error::Category::Data => format!("the answer has another shape: {e}"),
        _ => format!("the answer is not JSON: {e}"),
    })
}

fn check_count(got: usize, want: usize) -> Result<(), String> {
    if got == want {
        return Ok(());
    }
    Err(format!("{got} vectors for {want} inputs"))
}

/// A vector as numbers, or as base64 of little-endian f32.
#[derive(Debug, PartialEq)]
struct Numbers(Vec<f32>);

impl<'de> Deserialize<'de> for Numbers {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Numbers;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("numbers, or base64 of 4 bytes a number")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Numbers, A::Error> {
                let mut numbers = Vec::new();
                while let Some(number) = seq.next_element::<f32>()? {
                    numbers.push(number);
                }
                Ok(Numbers(numbers))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Numbers, E> {
                let engine = if text.ends_with('=') { STANDARD } else { STANDARD_NO_PAD };
                let bytes = engine.decode(text).ok();
                let numbers = bytes.as_deref().map(<[u8]>::as_chunks::<4>);
                match numbers {
                    Some((numbers, [])) => Ok(Numbers(numbers.iter().copied().map(f32::from_le_bytes).collect())),
                    _ => Err(E::invalid_value(de::Unexpected::Str("other text"), &self)),
                }
            }
        }
        from.deserialize_any(Either)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn asked() -> Asked {
        Asked {
            model: Some("m".into()),
            dimensions: None,
            encoding: Encoding::Float,
            media: MediaShape::Infinity,
        }
    }

    fn base64(numbers: &[f32]) -> String {
        let bytes: Vec<u8> = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
        STANDARD.encode(bytes)
    }

    #[test]
    fn bodies_say_what_is_asked_and_nothing_else() {
        let texts = [Input::Text("a"), Input::Text("b")];
        assert_eq!(
            openai_body(&asked(), &texts),
            json!({"model": "m", "input": ["a", "b"]})
        );
        let full = Asked {
            model: None,
            dimensions: Some(8),
            encoding: Encoding::Base64,
            ..asked()
        };
        let expected = json!({"input": ["a", "b"], "dimensions": 8, "encoding_format": "base64"});
        assert_eq!(openai_body(&full, &texts), expected);
        let expected = json!({"inputs": ["a", "b"], "normalize": true, "truncate": true, "dimensions": 8});
        assert_eq!(tei_body(&full, &texts), expected);
    }

    #[test]
    fn images_and_sounds_are_said_in_the_shape_of_the_service() {
        let url = "https://example.org/cat.png";
        let shape = |media, input: Input<'_>| {
            let mut body = openai_body(&Asked { media, ..asked() }, &[input]);
            body.as_object_mut().unwrap().remove("model");
            body
        };
        let cases = [
            (
                MediaShape::Infinity,
                Input::Image(url),
                json!({"input": [url], "modality": "image"}),
            ),
            (
                MediaShape::Infinity,
                Input::Audio(url),
                json!({"input": [url], "modality": "audio"}),
            ),
            (MediaShape::Jina, Input::Image(url), json!({"input": [{"image": url}]})),
            (MediaShape::Jina, Input::Audio(url), json!({"input": [{"audio": url}]})),
            (
                MediaShape::Vllm,
                Input::Image(url),
                json!({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]}),
            ),
            (
                MediaShape::Vllm,
                Input::Audio(url),
                json!({"messages": [{"role": "user", "content": [{"type": "audio_url", "audio_url": {"url": url}}]}]}),
            ),
            // Text is text everywhere.
            (MediaShape::Jina, Input::Text("a"), json!({"input": ["a"]})),
            (MediaShape::Vllm, Input::Text("a"), json!({"input": ["a"]})),
        ];
        for (media, input, expected) in cases {
            assert_eq!(shape(media, input), expected, "{media:?} {input:?}");
        }
    }

    #[test]
    fn vectors_come_back_in_the_order_of_the_inputs() {
        let answer = json!({"object": "list", "model": "m", "usage": {"total_tokens": 1}, "data": [
            {"object": "embedding", "index": 1, "embedding": [1.0, 2.5]},
            {"object": "embedding", "index": 0, "embedding": base64(&[3.0, 4.0])},
        ]});
        let (vectors, model) = openai_vectors(answer.to_string().as_bytes(), 2).unwrap();
        assert_eq!(vectors, [vec![3.0, 4.0], vec![1.0, 2.5]]);
        assert_eq!(model.as_deref(), Some("m"));
        let bare = br#"{"data": [{"embedding": [1]}, {"embedding": [2]}]}"#;
        assert_eq!(openai_vectors(bare, 2).unwrap(), (vec![vec![1.0], vec![2.0]], None));
        assert_eq!(
            tei_vectors(b"[[1, 2], [3, 4]]", 2).unwrap(),
            [vec![1.0, 2.0], vec![3.0, 4.0]]
        );
    }

    #[test]
    fn a_wrong_answer_is_named() {
        let one = |item: Value| json!({"data": [item]}).to_string();
        let cases = [
            ("<html>".to_owned(), "not JSON"),
            (r#"{"data": [{"embedding": [NaN]}]}"#.to_owned(), "not JSON"),
            (r#"{"data": [{"embed"#.to_owned(), "not JSON"),
            (json!({"error": "no"}).to_string(), "another shape"),
            (json!({"data": []}).to_string(), "0 vectors for 1 inputs"),
            (
                json!({"data": [{"embedding": [1]}, {"embedding": [1]}]}).to_string(),
                "2 vectors for 1",
            ),
            (one(json!({"index": 1, "embedding": [1]})), "index 1, of 1"),
            (one(json!({"embedding": [null]})), "another shape"),
            (one(json!({"embedding": [[1.0]]})), "another shape"),
            (one(json!({"embedding": "AAA="})), "another shape"),
            (one(json!({"embedding": "not base64!"})), "another shape"),
        ];
        for (body, expected) in cases {
            let why = openai_vectors(body.as_bytes(), 1).unwrap_err();
            assert!(why.contains(expected), "{body}: {why}");
        }
        let twice = json!({"data": [{"index": 0, "embedding": [1]}, {"index": 0, "embedding": [1]}]}).to_string();
        assert!(openai_vectors(twice.as_bytes(), 2).unwrap_err().contains("two vectors"));
        assert!(tei_vectors(b"[[1]]", 2).unwrap_err().contains("1 vectors for 2"));
        assert!(tei_vectors(b"{}", 2).unwrap_err().contains("another shape"));
    }

    #[test]
    fn vectors_that_no_index_should_hold_are_refused() {
        assert_eq!(check_vectors(&[vec![1.0, 0.0], vec![0.5, 2.0]], Some(2)), Ok(()));
        let cases = [
            (vec![vec![1.0]], Some(2), "1 numbers, want 2"),
            (vec![vec![1.0, 2.0], vec![1.0]], None, "vector 1 has 1 numbers"),
            (vec![vec![]], None, "0 numbers"),
            (vec![vec![1.0, f32::NAN]], Some(2), "NaN at 1"),
            (vec![vec![f32::INFINITY, 1.0]], Some(2), "inf at 0"),
            (vec![vec![0.0, -0.0]], Some(2), "all zeros"),
        ];
        for (vectors, dim, expected) in cases {
            let why = check_vectors(&vectors, dim).unwrap_err();
            assert!(why.contains(expected), "{why}");
        }
        // What is too large for f32 is refused one way or the other.
        let huge = tei_vectors(b"[[1e39]]", 1);
        assert!(huge.and_then(|v| check_vectors(&v, Some(1))).is_err());
    }

    #[test]
    fn info_tells_who_it_is_and_a_reranker_is_none() {
        let info = json!({"model_id": "BAAI/bge-small-en", "model_sha": "abc", "model_dtype": "float16",
            "model_type": {"embedding": {"pooling": "cls"}}, "max_client_batch_size": 32, "max_input_length": 512});
        let read = TeiInfo::read(info.to_string().as_bytes()).unwrap();
        assert_eq!(read.revision(), "BAAI/bge-small-en@abc (cls)");
        assert_eq!(
            (read.max_client_batch_size, read.max_input_length),
            (Some(32), Some(512))
        );
        let reranker = json!({"model_id": "r", "model_sha": null, "model_type": {"reranker": {}}});
        assert!(
            TeiInfo::read(reranker.to_string().as_bytes())
                .unwrap_err()
                .contains("no embedder")
        );
    }

    proptest! {
        #[test]
        fn base64_and_numbers_are_the_same_vector(numbers in prop::collection::vec(-1e6_f32..1e6, 1..50)) {
            for embedding in [json!(base64(&numbers)), json!(base64(&numbers).trim_end_matches('=')), json!(numbers)] {
                let body = json!({"data": [{"embedding": embedding}]}).to_string();
                let (vectors, _) = openai_vectors(body.as_bytes(), 1).unwrap();
                prop_assert_eq!(&vectors[0], &numbers);
                prop_assert!(body.len() <= answer_bytes_max(1, numbers.len()));
            }
        }

        #[test]
        fn no_bytes_make_reading_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = openai_vectors(&bytes, 3);
            let _ = tei_vectors(&bytes, 3);
            let _ = TeiInfo::read(&bytes);
        }
    }
}
