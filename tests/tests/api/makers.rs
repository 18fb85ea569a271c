//! Vectors of callers' own models: who made them may be said with every write and question, and is compared with what the
//! collection records. A part of the story that both protocols tell.

use cairn_tests::{Kind, Method};
use serde_json::{Value, json};

use super::cases::{Expect, Step, step};

pub(super) fn makers() -> Vec<Step> {
    let on = |name, method, body, expect| step(name, method, "makers", body, expect);
    let mine = json!({"name": "mine", "revision": "3", "dim": 2, "query_prefix": "q: "});
    let terms = json!({"name": "my-terms", "revision": "1"});
    let upsert = |name, id: &str, embedders: Value, expect| {
        let point = json!({"id": id, "vectors": {"own": [1, 0]}, "sparse": {"terms": {"indices": [3], "values": [1]}}});
        on(
            name,
            Method::Upsert,
            json!({"points": [point], "embedders": embedders}),
            expect,
        )
    };
    let nearest = |name, embedder: Value, expect| {
        let body =
            json!({"nearest": {"vector": [1, 0], "using": "own", "embedder": embedder}, "with": {"payload": false}});
        on(name, Method::Query, body, expect)
    };
    let refused = || Expect::Refused(Kind::Invalid, "embedder_mismatch");
    let both = || Expect::Holds(json!({"hits": [{"id": "a"}, {"id": "b"}]}));
    vec![
        on(
            "a collection records models that only its callers have",
            Method::CreateCollection,
            json!({"vectors": {"own": {"embedder": mine.clone()}, "plain": {"dim": 2}}, "sparse": {"terms": {"embedder": terms.clone()}}}),
            Expect::Holds(json!({"schema": {"vectors": {"own": {"dim": 2, "embedder": mine.clone()}}}})),
        ),
        upsert(
            "the same models, said in full",
            "a",
            json!({"own": mine.clone(), "terms": terms}),
            Expect::Holds(json!({"changed": 1})),
        ),
        upsert(
            "their names are enough",
            "b",
            json!({"own": {"name": "mine"}, "terms": {"name": "my-terms"}}),
            Expect::Holds(json!({"changed": 1})),
        ),
        upsert("another model", "c", json!({"own": {"name": "yours"}}), refused()),
        upsert(
            "another revision",
            "c",
            json!({"own": {"name": "mine", "revision": "4"}}),
            refused(),
        ),
        upsert(
            "another model of terms",
            "c",
            json!({"terms": {"name": "mine"}}),
            refused(),
        ),
        nearest("a question of the same model", mine, both()),
        nearest(
            "of another prefix",
            json!({"name": "mine", "query_prefix": "query: "}),
            refused(),
        ),
        nearest("of another length", json!({"name": "mine", "dim": 3}), refused()),
        on(
            "a sparse question of the same model",
            Method::Query,
            json!({"sparse": {"vector": {"indices": [3], "values": [1]}, "embedder": {"name": "my-terms"}}, "with": {"payload": false}}),
            both(),
        ),
        on(
            "one leg of another",
            Method::Query,
            json!({"prefetch": [{"nearest": {"vector": [1, 0], "using": "own"}},
                                {"sparse": {"vector": {"indices": [3], "values": [1]}, "embedder": {"name": "mine"}}}]}),
            refused(),
        ),
        on(
            "nothing of what was refused is there",
            Method::Count,
            json!({}),
            Expect::Holds(json!({"count": 2})),
        ),
        on(
            "the makers go",
            Method::DeleteCollection,
            Value::Null,
            Expect::Is(|_| true),
        ),
    ]
}
