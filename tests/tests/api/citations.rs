//! Citations point at the exact text: every sample document is put, asked for, and each passage that comes back is compared
//! with the slice of its source that its span names. Budgets hold, and every candidate is accounted for once.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::Path;

use cairn_tests::{Method, Request, Rest, TestServer};
use serde_json::{Value, json};

const COLLECTIONS: [&str; 2] = ["prose", "manuals"];
const QUESTIONS: [&str; 6] = [
    "How does etcd elect a leader?",
    "When should I use a histogram instead of a summary in Prometheus?",
    "Why does Rust refuse two mutable references to the same value?",
    "What is a service mesh?",
    "How are alerts routed?",
    "What does ownership mean?",
];

/// Documents by id, in two collections: what is in the first half of the alphabet, and the rest.
fn sources() -> BTreeMap<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../demo/docs");
    let mut found = BTreeMap::new();
    let mut open = vec![root.clone()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|kind| kind == "md") {
                let id = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
                let text = std::fs::read_to_string(&path).unwrap();
                if !text.trim().is_empty() {
                    found.insert(id, text);
                }
            }
        }
    }
    found
}

fn collection_of(document: &str) -> &'static str {
    COLLECTIONS[usize::from(document.starts_with(['p', 'r']))]
}

/// Puts what has a text; pages that are front matter and nothing else are refused, and left out of `sources`.
async fn put(rest: &Rest, sources: &mut BTreeMap<String, String>) {
    for name in COLLECTIONS {
        let schema = json!({"chunking": {"max_tokens": 128, "overlap_tokens": 16}});
        rest.send(&Request::new(Method::CreateCollection, name, schema))
            .await
            .unwrap();
    }
    let mut empty = Vec::new();
    for (id, text) in &*sources {
        let document = json!({"id": id, "text": text, "format": "markdown", "source": id});
        let body = json!({ "documents": [document] });
        let put = Request::new(Method::PutDocuments, collection_of(id), body);
        if let Err(refused) = rest.send(&put).await {
            assert_eq!(refused.code, "empty_document", "{id}: {refused:?}");
            empty.push(id.clone());
        }
    }
    assert!(empty.len() < 10, "{empty:?}");
    sources.retain(|id, _| !empty.contains(id));
}

/// What an answer must be, whatever was asked; the documents it cites.
fn check(answer: &Value, sources: &BTreeMap<String, String>, body: &Value) -> BTreeSet<String> {
    let tokens = &answer["tokens"];
    assert!(
        tokens["context"].as_u64() <= tokens["budget"].as_u64(),
        "{body}: {tokens}"
    );
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let mut seen = HashSet::new();
    let mut cited = BTreeSet::new();
    for (item, n) in answer["context"].as_array().unwrap().iter().zip(1..) {
        assert_eq!(item["n"], n);
        let document = text(&item["document"]);
        let end = |i: usize| usize::try_from(item["span"][i].as_u64().unwrap()).unwrap();
        let slice = sources[&document].get(end(0)..end(1));
        assert_eq!(slice, item["text"].as_str(), "{body}: [{n}] of {document}");
        // Chunks of one passage stand in the order of their document.
        let numbers: Vec<u64> = item["ids"]
            .as_array()
            .unwrap()
            .iter()
            .map(|id| {
                id.as_str()
                    .unwrap()
                    .strip_prefix(&format!("{document}#"))
                    .unwrap()
                    .parse()
                    .unwrap()
            })
            .collect();
        assert!(
            numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]),
            "{body}: {numbers:?} of {document}"
        );
        for number in numbers {
            assert!(
                seen.insert(format!("{document}#{number}")),
                "{document}#{number} is cited twice"
            );
        }
        cited.insert(document);
    }
    for dropped in answer["dropped"].as_array().unwrap() {
        assert!(seen.insert(text(&dropped["id"])), "{body}: {} twice", dropped["id"]);
        assert!(!text(&dropped["reason"]).is_empty());
    }
    cited
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn citations_are_the_exact_text_of_every_sample_document() {
    let mut sources = sources();
    assert!(sources.len() > 300, "{} sample documents", sources.len());
    let server = TestServer::start().await;
    let rest = server.rest();
    put(&rest, &mut sources).await;

    // Each document, by its own beginning.
    let mut cited = BTreeSet::new();
    for (id, text) in &sources {
        let beginning: String = text.chars().take(300).collect();
        let body = json!({"prompt": beginning, "filter": {"must": [{"has_document": [id]}]}, "neighbours": 2, "token_budget": 1_500,
                          "tokenizer": "bert_uncased"});
        let answer = rest
            .send(&Request::new(Method::Enrich, collection_of(id), body.clone()))
            .await
            .unwrap();
        cited.extend(check(&answer, &sources, &body));
    }
    let missing: Vec<_> = sources.keys().filter(|id| !cited.contains(*id)).collect();
    assert!(missing.is_empty(), "never cited: {missing:?}");

    // Questions to both, in every way of asking.
    for question in QUESTIONS {
        for more in [
            json!({}),
            json!({"token_budget": 300, "neighbours": 3}),
            json!({"mode": "bm25", "max_per_document": 1, "max_per_source": 1, "limit": 200}),
            json!({"mode": "dense", "ranking": {"near_duplicates": {}, "mmr": {}}, "neighbours": 1}),
            json!({"ranking": {"caps": [{"field": "document", "most": 2}]}, "max_chunks": 4, "format": "anthropic"}),
            json!({"template": "{{context}}\n{{prompt}}\n{{context}}", "token_budget": 800}),
        ] {
            let mut body = json!({"prompt": question, "collections": COLLECTIONS});
            body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            let answer = rest
                .send(&Request::new(Method::Enrich, "", body.clone()))
                .await
                .unwrap();
            let cited = check(&answer, &sources, &body);
            assert!(!cited.is_empty(), "{body}");
            for item in answer["context"].as_array().unwrap() {
                assert_eq!(item["collection"], collection_of(item["document"].as_str().unwrap()));
            }
        }
    }
    server.stop().await.unwrap();
}
