//! A sparse embedder that counts words, and what the service does with it: documents, questions and prompts in its vectors.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cairn_engine::config::{Clock, Components, Settings};
use cairn_engine::query::With;
use cairn_engine::schema::{EmbedderFingerprint, FieldSpec, SparseSpec};
use cairn_engine::types::{PointId, SparseVector};
use cairn_engine::{Engine, Error};

use super::embed::fingerprint;
use super::*;
use crate::config::Config;
use crate::rag::embed::{EmbedError, Fingerprint, SparseEmbedder, TextKind};
use crate::rag::extract::apart::PdfReader;
use crate::rag::models::Models;
use crate::rag::patience::Patience;

/// A word's term number is made of its letters, its weight is how often it stands there.
struct Words {
    fingerprint: Fingerprint,
    embedded: AtomicUsize,
}

impl SparseEmbedder for Words {
    fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }
    fn embed(&self, texts: &[&str], _: TextKind, _: &Patience) -> Result<Vec<SparseVector>, EmbedError> {
        let vector = |(index, text): (usize, &&str)| {
            let mut terms: BTreeMap<u32, f32> = BTreeMap::new();
            for word in text.split(|c: char| !c.is_alphanumeric()).filter(|w| w.len() > 3) {
                let number = word
                    .to_lowercase()
                    .bytes()
                    .fold(7u32, |n, b| n.wrapping_mul(31).wrapping_add(u32::from(b)));
                *terms.entry(number).or_default() += 1.0;
            }
            if terms.is_empty() {
                return Err(EmbedError::EmptyText { index });
            }
            Ok(SparseVector {
                indices: terms.keys().copied().collect(),
                values: terms.into_values().collect(),
            })
        };
        let vectors = texts.iter().enumerate().map(vector).collect::<Result<Vec<_>, _>>()?;
        self.embedded.fetch_add(vectors.len(), Ordering::Relaxed);
        Ok(vectors)
    }
}

struct Noon;

impl Clock for Noon {
    fn now_ms(&self) -> u64 {
        43_200_000
    }
}

fn with_learned(embedder: Option<EmbedderFingerprint>) -> schema::Schema {
    let mut schema = empty_schema();
    schema.sparse.insert("learned".into(), SparseSpec { embedder });
    let analyzer = schema::AnalyzerSpec::default();
    schema.fields.insert("text".into(), FieldSpec::Text { analyzer });
    schema
}

struct Fixture {
    service: Service,
    words: Arc<Words>,
    _dir: tempfile::TempDir,
}

fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let components = Components {
        clock: Arc::new(Noon),
        workers: cairn_engine::config::Workers::alone(),
        files: Arc::new(cairn_engine::storage::LocalDir),
    };
    let engine = Arc::new(Engine::open(dir.path(), Settings::default(), components).unwrap());
    let words = Arc::new(Words {
        fingerprint: Fingerprint {
            name: "words".into(),
            revision: "1".into(),
            dim: 1 << 30,
            normalized: false,
            query_prefix: String::new(),
            passage_prefix: String::new(),
        },
        embedded: AtomicUsize::new(0),
    });
    let mut models = Models::builtin();
    models.add_sparse_embedder(Arc::clone(&words) as Arc<dyn SparseEmbedder>);
    let config = Config {
        data_dir: dir.path().to_owned(),
        ..Config::default()
    };
    Fixture {
        service: Service::new(
            engine,
            models,
            PdfReader::Here,
            Limits::default(),
            SnapshotsOf::open(&config).unwrap(),
        ),
        words,
        _dir: dir,
    }
}

impl Fixture {
    fn call(&self) -> Call {
        self.service.call(Api::Rest, None)
    }

    async fn create(&self, name: &str, embedder: Option<EmbedderFingerprint>) {
        let create = CreateCollection {
            name: name.into(),
            schema: with_learned(embedder),
        };
        self.service.create_collection(self.call(), create).await.unwrap();
    }

    async fn put(&self, collection: &str, texts: &[(&str, &str)]) -> Result<PutAll, Error> {
        let documents = texts.iter().map(|(id, text)| DocumentText {
            id: (*id).to_string(),
            text: (*text).to_string(),
            ..DocumentText::default()
        });
        let documents = documents.collect();
        self.service
            .put_documents(
                self.call(),
                collection.into(),
                documents,
                OnNearDuplicate::Store,
                WriteParams::default(),
            )
            .await
    }

    async fn ask(&self, collection: &str, text: &str) -> Result<Vec<(String, f32)>, Error> {
        let ask = Ask {
            source: AskSource::Sparse {
                using: None,
                to: SparseTo::Text(text.into()),
                embedder: None,
            },
            ..Ask::default()
        };
        let answer = self.service.query(self.call(), collection.into(), ask).await?;
        let hits = answer.result.hits.into_iter();
        Ok(hits.map(|h| (h.point.id.to_string(), h.legs[0].raw)).collect())
    }
}

const TEXTS: [(&str, &str); 3] = [
    ("a", "stones mark the path, stones on stones"),
    ("b", "a path through the hills"),
    ("c", "of it"),
];

#[tokio::test]
async fn documents_and_questions_are_embedded_into_sparse_vectors() {
    let f = fixture();
    f.create("c", Some(fingerprint(&f.words.fingerprint))).await;
    let put = f.put("c", &TEXTS).await.unwrap();
    assert_eq!(put.results.iter().map(|r| r.embedded).collect::<Vec<_>>(), [1, 1, 1]);
    // A text that holds nothing for the model is stored without a vector.
    let ids = ["a#0", "c#0"].map(|id| PointId::new(id).unwrap()).to_vec();
    let with = With {
        vectors: true,
        ..With::default()
    };
    let page = f.service.get_points(f.call(), "c".into(), ids, with, false);
    let points = page.await.unwrap().points;
    let vectors: Vec<_> = points.iter().map(|p| p.sparse.as_ref().unwrap().len()).collect();
    assert_eq!(vectors, [1, 0]);
    assert_eq!(
        f.ask("c", "stones and path").await.unwrap(),
        [("a#0".to_owned(), 4.0), ("b#0".to_owned(), 1.0)]
    );
    let refused = f.ask("c", "of").await.unwrap_err();
    assert_eq!(
        (refused.code, refused.pointer.as_deref()),
        ("empty_text", Some("/sparse/text"))
    );

    // The same text again embeds nothing; a new title keeps the text, and so its vector.
    let before = f.words.embedded.load(Ordering::Relaxed);
    assert!(f.put("c", &TEXTS[..1]).await.unwrap().results[0].unchanged);
    assert_eq!(f.words.embedded.load(Ordering::Relaxed), before);
}

#[tokio::test]
async fn a_prompt_is_enriched_from_sparse_vectors() {
    let f = fixture();
    // Its name is enough: the rest is recorded from the server's.
    let named = EmbedderFingerprint {
        name: "words".into(),
        revision: String::new(),
        dim: 0,
        ..fingerprint(&f.words.fingerprint)
    };
    f.create("c", Some(named)).await;
    f.put("c", &TEXTS).await.unwrap();
    let enrich = |prompt: &str| Enrich {
        prompt: prompt.into(),
        mode: Mode::Sparse,
        ..Enrich::default()
    };
    let found = f
        .service
        .enrich(f.call(), vec!["c".into()], enrich("which stones?"))
        .await
        .unwrap();
    let context = &found.packed.context;
    assert_eq!(context.len(), 1);
    assert!(context[0].text.contains("stones mark the path"));
}

#[tokio::test]
async fn vectors_of_another_model_are_refused_with_what_to_do() {
    let f = fixture();
    let other = EmbedderFingerprint {
        name: "letters".into(),
        ..fingerprint(&f.words.fingerprint)
    };
    let create = CreateCollection {
        name: "other".into(),
        schema: with_learned(Some(other)),
    };
    // The caller may have the model; but it is said at once that this server has not.
    let made = f.service.create_collection(f.call(), create).await.unwrap();
    assert_eq!(made.notes.len(), 1);
    assert!(
        made.notes[0].contains("\"learned\"") && made.notes[0].contains("letters"),
        "{:?}",
        made.notes
    );
    f.create("none", None).await;
    let codes = |e: Error| (e.code, e.message.contains("words"));
    assert_eq!(
        codes(f.put("other", &TEXTS).await.unwrap_err()),
        ("unknown_embedder", true)
    );
    assert_eq!(
        codes(f.ask("other", "stones").await.unwrap_err()),
        ("unknown_embedder", true)
    );
    assert_eq!(codes(f.ask("none", "stones").await.unwrap_err()), ("no_embedder", true));
    // Without an embedder, documents are stored by their words only.
    assert_eq!(f.put("none", &TEXTS).await.unwrap().results[0].embedded, 0);
}
