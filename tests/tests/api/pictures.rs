//! Images: put as references, and asked for with references. A part of the story that both protocols tell; the model is
//! the scripted service, whose vector of a reference is a function of its letters.

use cairn_server::config::{Config, EmbedderConfig};
use cairn_tests::{DIM, Kind, Method, ModelServer};
use serde_json::{Value, json};

use super::cases::{Expect, Step, step};

const CAT: &str = "https://example.org/cat.png";
const DOG: &str = "data:image/png;base64,ZG9n";

/// Gives a server the embedder `looks`, which takes images.
pub(super) fn with_looks(config: &mut Config, models: &ModelServer) {
    let table = json!({"type": "openai", "url": models.url(), "model": "clip", "dimensions": DIM, "send_dimensions": false,
                       "normalized": true, "media": ["image"], "query_prefix": "a picture of "});
    let table: EmbedderConfig = serde_json::from_value(table).unwrap();
    config.embedders.insert("looks".to_owned(), table);
}

pub(super) fn pictures() -> Vec<Step> {
    let on = |name, method, body, expect| step(name, method, "pictures", body, expect);
    let query = |name, body: Value, expect| on(name, Method::Query, body, expect);
    let first = |id: &str| Expect::Holds(json!({"hits": [{"id": id, "score": 1.0}]}));
    vec![
        on(
            "a vector of pictures beside one of words",
            Method::CreateCollection,
            json!({"vectors": {"look": {"embedder": {"name": "looks"}}, "words": {"embedder": {"name": "static-minilm-256"}}}}),
            Expect::Holds(json!({"schema": {"vectors": {"look": {"dim": DIM, "embedder": {"name": "looks"}}}}})),
        ),
        on(
            "pictures are put as references",
            Method::Upsert,
            json!({"points": [{"id": "cat", "embed": {"look": {"image": CAT}, "words": {"text": "a cat"}}},
                              {"id": "dog", "embed": {"look": {"image": DOG}, "words": {"text": "a dog"}}},
                              {"id": "said", "embed": {"look": {"text": "a picture of a fish"}}}]}),
            Expect::Holds(json!({"changed": 3})),
        ),
        query(
            "a picture is found by its address",
            json!({"nearest": {"image": CAT, "using": "look"}, "limit": 1}),
            first("cat"),
        ),
        query(
            "and by its bytes",
            json!({"nearest": {"image": DOG, "using": "look"}, "limit": 1}),
            first("dog"),
        ),
        query(
            "a text is compared with pictures, with its prefix",
            json!({"nearest": {"text": "a fish", "using": "look"}, "limit": 1}),
            first("said"),
        ),
        query(
            "a picture is one leg among others",
            json!({"prefetch": [{"nearest": {"image": DOG, "using": "look"}, "limit": 1},
                                {"nearest": {"text": "a dog", "using": "words"}, "limit": 1}], "limit": 1}),
            first("dog"),
        ),
        on(
            "in a batch too",
            Method::QueryBatch,
            json!({"queries": [{"nearest": {"image": DOG, "using": "look"}, "limit": 1},
                               {"nearest": {"image": CAT, "using": "look"}, "limit": 1}]}),
            Expect::Holds(json!({"results": [{"hits": [{"id": "dog"}]}, {"hits": [{"id": "cat"}]}]})),
        ),
        query(
            "a model of images takes no sounds",
            json!({"nearest": {"audio": "https://example.org/bark.wav", "using": "look"}}),
            Expect::Refused(Kind::Invalid, "medium_not_supported"),
        ),
        query(
            "a model of words takes no images",
            json!({"nearest": {"image": CAT, "using": "words"}}),
            Expect::Refused(Kind::Invalid, "medium_not_supported"),
        ),
        query(
            "a picture for one of two vectors, not said which",
            json!({"nearest": {"image": CAT}}),
            Expect::Refused(Kind::Invalid, "vector_not_named"),
        ),
        on(
            "pictures go",
            Method::DeleteCollection,
            json!(null),
            Expect::Is(|_| true),
        ),
    ]
}
