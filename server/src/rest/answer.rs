//! Answers in JSON. A large one is written off the async threads, where some hundred milliseconds of work would keep
//! everybody else waiting, probes included.

use axum::Json;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use cairn_engine::Error;
use serde::Serialize;

use super::problem::Problem;
use crate::service::bounds::WRITE_INLINE_BYTES;
use crate::service::pools::offload;

/// An answer that holds `bytes` of payloads and vectors.
pub(super) async fn written<T: Serialize + Send + 'static>(bytes: usize, answer: T) -> Result<Response, Problem> {
    if bytes <= WRITE_INLINE_BYTES {
        return Ok(Json(answer).into_response());
    }
    let json = offload(move || serde_json::to_vec(&answer)).await?;
    let json = json.map_err(|e| Error::internal(format!("an answer is no JSON: {e}")))?;
    Ok(([(header::CONTENT_TYPE, "application/json")], json).into_response())
}

#[cfg(test)]
mod tests {
    use std::thread::{ThreadId, current};

    use serde::Serializer;

    use super::*;

    /// Says which thread it was written by.
    struct Spy(std::sync::mpsc::Sender<ThreadId>);

    impl Serialize for Spy {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let _ = self.0.send(current().id());
            serializer.serialize_str("written")
        }
    }

    #[tokio::test]
    async fn a_large_answer_is_written_by_another_thread_to_the_same_bytes() {
        let (by, of) = std::sync::mpsc::channel();
        let mut bodies = Vec::new();
        for bytes in [0, WRITE_INLINE_BYTES, WRITE_INLINE_BYTES + 1] {
            let response = written(bytes, Spy(by.clone())).await.unwrap();
            assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json");
            bodies.push(axum::body::to_bytes(response.into_body(), 100).await.unwrap());
            assert_eq!(
                of.recv().unwrap() == current().id(),
                bytes <= WRITE_INLINE_BYTES,
                "{bytes}"
            );
        }
        assert!(bodies.iter().all(|body| body == "\"written\""), "{bodies:?}");
    }
}
