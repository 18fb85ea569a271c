//! Texts of a batch's queries, embedded together before the queries are resolved one by one: one call a model instead of
//! one a query, which is what a service behind HTTP is paid and waited for.
//!
//! Nothing is refused here but what is wrong with the models: a query that is wrong says so when it is resolved, with its
//! place. A text that was not embedded ahead is embedded then.

use std::collections::HashMap;
use std::sync::Arc;

use cairn_engine::schema::Schema;
use cairn_engine::types::SparseVector;
use cairn_engine::{ErrorKind, Result, limits};

use super::Core;
use super::embed::{embed_query, embed_sparse_query, embed_sparse_texts, embed_texts};
use super::inputs::EmbedInput;
use super::pools::Budget;
use super::query::{Ask, AskSource, NearestTo, SparseTo};
use crate::rag::embed::{Embedder, Input, SparseEmbedder, TextKind};

/// Vectors by model and text; none of a text that holds nothing the model knows.
#[derive(Default)]
pub(super) struct Ahead {
    dense: HashMap<String, HashMap<String, Option<Vec<f32>>>>,
    sparse: HashMap<String, HashMap<String, Option<SparseVector>>>,
}

impl Ahead {
    /// A question's vector; none if it holds nothing that the embedder knows.
    pub(super) fn query(&self, embedder: &dyn Embedder, input: Input<'_>, budget: &Budget) -> Result<Option<Vec<f32>>> {
        let made = self.dense.get(&embedder.fingerprint().name);
        let made = match input {
            Input::Text(text) => made.and_then(|made| made.get(text)),
            Input::Image(_) | Input::Audio(_) => None,
        };
        match made {
            Some(vector) => Ok(vector.clone()),
            None => embed_query(embedder, input, budget),
        }
    }

    /// A question's sparse vector likewise.
    pub(super) fn sparse_query(
        &self,
        embedder: &dyn SparseEmbedder,
        text: &str,
        budget: &Budget,
    ) -> Result<Option<SparseVector>> {
        let made = self.sparse.get(&embedder.fingerprint().name);
        match made.and_then(|made| made.get(text)) {
            Some(vector) => Ok(vector.clone()),
            None => embed_sparse_query(embedder, text, budget),
        }
    }
}

/// The texts of one model, each once, in the order of the queries.
struct Texts<'a, E: ?Sized> {
    by: Arc<E>,
    texts: Vec<&'a str>,
}

/// What a batch wants embedded, by the models' names.
struct Wanted<'a> {
    dense: HashMap<String, Texts<'a, dyn Embedder>>,
    sparse: HashMap<String, Texts<'a, dyn SparseEmbedder>>,
}

impl<'a, E: ?Sized> Texts<'a, E> {
    fn add(all: &mut HashMap<String, Self>, by: Arc<E>, name: &str, text: &'a str) {
        let texts = Vec::new();
        let of_model = all.entry(name.to_owned()).or_insert(Self { by, texts });
        of_model.texts.push(text);
    }
}

impl Core {
    /// Embeds the texts of several queries.
    pub(super) fn embed_ahead(&self, schema: &Schema, asks: &[Ask], budget: &Budget) -> Result<Ahead> {
        let mut wanted = Wanted {
            dense: HashMap::new(),
            sparse: HashMap::new(),
        };
        for ask in asks {
            self.want(schema, &ask.source, 1, &mut wanted);
        }
        Ok(Ahead {
            dense: together(wanted.dense, |by, texts| {
                embed_texts(by, texts, TextKind::Query, budget)
            })?,
            sparse: together(wanted.sparse, |by, texts| {
                embed_sparse_texts(by, texts, TextKind::Query, budget)
            })?,
        })
    }

    /// Collects what a source wants embedded, as far as it is right.
    fn want<'a>(&self, schema: &Schema, source: &'a AskSource, depth: usize, wanted: &mut Wanted<'a>) {
        match source {
            AskSource::Nearest {
                using,
                to: NearestTo::Embed(EmbedInput::Text(text)),
                ..
            } if may_be_embedded(text) => {
                if let Ok(found) = self.text_vector(schema, using.as_deref()) {
                    let name = found.embedder.fingerprint().name.clone();
                    Texts::add(&mut wanted.dense, found.embedder, &name, text);
                }
            }
            AskSource::Hybrid { text, using, .. } if may_be_embedded(text) => {
                if let Ok(found) = self.text_vector(schema, using.as_deref()) {
                    let name = found.embedder.fingerprint().name.clone();
                    if self.models.role(&name).languages.cover(text) {
                        Texts::add(&mut wanted.dense, found.embedder, &name, text);
                    }
                }
            }
            AskSource::Sparse {
                using,
                to: SparseTo::Text(text),
                ..
            } if may_be_embedded(text) => {
                if let Ok(found) = self.sparse_text_vector(schema, using.as_deref()) {
                    let name = found.embedder.fingerprint().name.clone();
                    Texts::add(&mut wanted.sparse, found.embedder, &name, text);
                }
            }
            AskSource::Prefetch { legs, .. } if depth <= limits::QUERY_DEPTH_MAX => {
                for leg in legs {
                    self.want(schema, &leg.source, depth + 1, wanted);
                }
            }
            AskSource::Nearest { .. }
            | AskSource::Hybrid { .. }
            | AskSource::Sparse { .. }
            | AskSource::Text { .. }
            | AskSource::Prefetch { .. } => {}
        }
    }
}

fn may_be_embedded(text: &str) -> bool {
    text.len() <= limits::QUERY_TEXT_BYTES_MAX
}

/// One call a model. A model that has one text only is left to the query that has it.
fn together<E: ?Sized, V>(
    wanted: HashMap<String, Texts<'_, E>>,
    embed: impl Fn(&E, &[&str]) -> Result<Vec<Option<V>>>,
) -> Result<HashMap<String, HashMap<String, Option<V>>>> {
    let mut all = HashMap::new();
    for (name, Texts { by, mut texts }) in wanted {
        texts.sort_unstable();
        texts.dedup();
        if texts.len() < 2 {
            continue;
        }
        match embed(&*by, &texts) {
            Ok(vectors) => {
                let texts = texts.into_iter().map(str::to_owned);
                all.insert(name, texts.zip(vectors).collect());
            }
            // A text is at fault: by itself, it is refused with its place.
            Err(error) if error.kind == ErrorKind::Invalid => {}
            Err(error) => return Err(error.at("/queries")),
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::{Duration, Instant};

    use cairn_engine::Engine;
    use cairn_engine::config::{Clock, Components, Settings, Workers};
    use cairn_engine::patience::Patience;
    use cairn_engine::query::Source;
    use cairn_engine::schema::{Metric, VectorSpec};

    use super::*;
    use crate::config::Config;
    use crate::rag::embed::{EmbedError, Fingerprint};
    use crate::rag::models::Models;
    use crate::service::SnapshotsOf;
    use crate::service::embed::fingerprint;
    use crate::service::query::AskLeg;

    /// Makes a vector of a text's length; knows nothing of a text without letters, and refuses one word.
    struct Lengths {
        fingerprint: Fingerprint,
        calls: Mutex<Vec<Vec<String>>>,
    }

    impl Embedder for Lengths {
        fn fingerprint(&self) -> &Fingerprint {
            &self.fingerprint
        }
        fn embed(&self, inputs: &[Input<'_>], kind: TextKind, _: &Patience) -> Result<Vec<Vec<f32>>, EmbedError> {
            assert_eq!(kind, TextKind::Query);
            let texts: Vec<String> = inputs.iter().map(|input| input.text().to_owned()).collect();
            self.calls.lock().unwrap().push(texts.clone());
            if let Some(index) = texts.iter().position(|text| text == "forbidden") {
                return Err(EmbedError::Rejected {
                    index: Some(index),
                    message: "not this word".into(),
                });
            }
            if let Some(index) = texts.iter().position(|text| text == "?") {
                return Err(EmbedError::EmptyText { index });
            }
            let vector = |text: &String| vec![f32::from(u16::try_from(text.len()).unwrap()), 1.0];
            Ok(texts.iter().map(vector).collect())
        }
    }

    struct Noon;

    impl Clock for Noon {
        fn now_ms(&self) -> u64 {
            43_200_000
        }
    }

    fn core() -> (Core, Arc<Lengths>, Schema, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let components = Components {
            clock: Arc::new(Noon),
            workers: Workers::alone(),
            files: Arc::new(cairn_engine::storage::LocalDir),
        };
        let lengths = Arc::new(Lengths {
            fingerprint: Fingerprint {
                name: "lengths".into(),
                revision: "1".into(),
                dim: 2,
                normalized: false,
                query_prefix: String::new(),
                passage_prefix: String::new(),
            },
            calls: Mutex::default(),
        });
        let mut models = Models::builtin();
        models.add_embedder(Arc::clone(&lengths) as Arc<dyn Embedder>);
        let config = Config {
            data_dir: dir.path().to_owned(),
            ..Config::default()
        };
        let core = Core {
            pdfs: Default::default(),
            engine: Arc::new(Engine::open(dir.path(), Settings::default(), components).unwrap()),
            models,
            snapshots: SnapshotsOf::open(&config).unwrap(),
        };
        let mut schema = crate::service::empty_schema();
        let vector = VectorSpec {
            dim: 2,
            metric: Metric::Dot,
            index: Default::default(),
            quantization: Default::default(),
            embedder: Some(fingerprint(&lengths.fingerprint)),
        };
        schema.vectors.insert("v".into(), vector);
        (core, lengths, schema, dir)
    }

    fn nearest(text: &str) -> AskSource {
        AskSource::Nearest {
            using: None,
            to: NearestTo::Embed(EmbedInput::Text(text.into())),
            embedder: None,
        }
    }

    fn ask(source: AskSource) -> Ask {
        Ask {
            source,
            ..Ask::default()
        }
    }

    fn budget() -> Budget {
        Budget::until(Instant::now() + Duration::from_secs(60))
    }

    fn vector(core: &Core, schema: &Schema, text: &str, ahead: &Ahead) -> Result<Vec<f32>> {
        match core.resolve(schema, ask(nearest(text)), ahead, &budget())?.query.source {
            Source::Nearest { vector, .. } => Ok(vector),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_texts_of_a_batch_are_embedded_in_one_call() {
        let (core, lengths, schema, _dir) = core();
        let leg = |source| AskLeg {
            name: None,
            source,
            filter: Default::default(),
            limit: None,
        };
        let asks = [
            ask(nearest("a")),
            ask(nearest("bbb")),
            ask(nearest("a")),
            ask(AskSource::Prefetch {
                legs: vec![leg(nearest("cc")), leg(nearest("?"))],
                fuse: None,
            }),
        ];
        let ahead = core.embed_ahead(&schema, &asks, &budget()).unwrap();
        let first = std::mem::take(&mut *lengths.calls.lock().unwrap());
        assert_eq!(first[0], ["?", "a", "bbb", "cc"], "each once");
        assert_eq!(first.len(), 2, "and again without the one that holds nothing");
        assert_eq!(vector(&core, &schema, "a", &ahead), Ok(vec![1.0, 1.0]));
        assert_eq!(vector(&core, &schema, "cc", &ahead), Ok(vec![2.0, 1.0]));
        assert_eq!(vector(&core, &schema, "?", &ahead).unwrap_err().code, "empty_text");
        assert!(lengths.calls.lock().unwrap().is_empty(), "nothing is embedded twice");
        assert_eq!(vector(&core, &schema, "dddd", &ahead), Ok(vec![4.0, 1.0]));
        assert_eq!(lengths.calls.lock().unwrap().len(), 1, "what was not asked ahead");
    }

    #[test]
    fn a_text_that_is_refused_is_refused_with_its_place_and_takes_no_other_along() {
        let (core, _, schema, _dir) = core();
        let asks = [ask(nearest("a")), ask(nearest("forbidden"))];
        let ahead = core.embed_ahead(&schema, &asks, &budget()).unwrap();
        assert_eq!(vector(&core, &schema, "a", &ahead), Ok(vec![1.0, 1.0]));
        let error = vector(&core, &schema, "forbidden", &ahead).unwrap_err();
        assert_eq!(
            (error.code, error.pointer.as_deref()),
            ("embedder_rejected", Some("/nearest/text"))
        );
    }

    #[test]
    fn what_is_wrong_with_a_query_is_left_to_the_query() {
        let (core, lengths, schema, _dir) = core();
        let unknown = AskSource::Nearest {
            using: Some("w".into()),
            to: NearestTo::Embed(EmbedInput::Text("a".into())),
            embedder: None,
        };
        let long = "a".repeat(limits::QUERY_TEXT_BYTES_MAX + 1);
        let asks = [
            ask(unknown.clone()),
            ask(unknown),
            ask(nearest(&long)),
            ask(nearest("b")),
        ];
        assert!(core.embed_ahead(&schema, &asks, &budget()).is_ok());
        assert!(lengths.calls.lock().unwrap().is_empty(), "one right text is no batch");
    }
}
