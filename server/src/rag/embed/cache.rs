//! Vectors that were made lately, so that the same question, or the same chunk after a request that failed half-way, is
//! not computed twice.
//!
//! One cache for all models of the server, bounded in bytes; what was not asked for again goes first. A key is 128 bits
//! of fingerprint, kind of text and text, hashed with a seed of the process, so that nobody outside can aim at a
//! collision. A URL of an image or sound is no key: what it leads to may change. Nothing is kept over a restart. The built-in embedder is not wrapped: it is as quick as a lookup.

use std::sync::Arc;

use cairn_engine::types::SparseVector;
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use xxhash_rust::xxh3::Xxh3;

use super::{EmbedError, Embedder, Fingerprint, Input, Medium, Patience, SparseEmbedder, TextKind};
use crate::telemetry;

/// What a vector of usual size takes with its key: how many are expected decides only how much is set aside at first.
const USUAL_BYTES: usize = 2_048;
/// Inputs given to a model at once. Each part is kept when it is made, so that a call that ran out of time half-way goes
/// on where it stopped when it is repeated; large enough for a service to be asked several times at once.
const PART: usize = 128;
/// What an entry costs besides its numbers.
const OVERHEAD_BYTES: usize = 96;

/// Vectors by what they were made of.
pub struct EmbeddingCache {
    made: Cache<u128, Made, Bytes>,
    seed: u64,
}

/// An embedder that looks into the cache first.
pub struct Cached {
    inner: Arc<dyn Embedder>,
    cache: Arc<EmbeddingCache>,
}

/// A sparse embedder that looks into the cache first.
pub struct CachedSparse {
    inner: Arc<dyn SparseEmbedder>,
    cache: Arc<EmbeddingCache>,
}

#[derive(Clone)]
enum Made {
    Dense(Arc<[f32]>),
    Sparse(Arc<SparseVector>),
}

#[derive(Clone)]
struct Bytes;

impl Weighter<u128, Made> for Bytes {
    fn weight(&self, _: &u128, made: &Made) -> u64 {
        let numbers = match made {
            Made::Dense(vector) => 4 * vector.len(),
            Made::Sparse(vector) => 8 * vector.indices.len(),
        };
        (numbers + OVERHEAD_BYTES) as u64
    }
}

impl EmbeddingCache {
    /// A cache of at most so many bytes. `seed` should be drawn at random.
    pub fn new(bytes_max: usize, seed: u64) -> Self {
        Self {
            made: Cache::with_weighter(bytes_max / USUAL_BYTES + 1, bytes_max as u64, Bytes),
            seed,
        }
    }

    /// None for what may be another thing the next time.
    fn key(&self, of: &Fingerprint, kind: TextKind, medium: Medium, text: &str) -> Option<u128> {
        if medium != Medium::Text && !text.starts_with("data:") {
            return None;
        }
        let mut hash = Xxh3::with_seed(self.seed);
        for part in [&of.name, &of.revision, of.prefix(kind)] {
            hash.update(&(part.len() as u64).to_le_bytes());
            hash.update(part.as_bytes());
        }
        hash.update(&[kind as u8, medium as u8, u8::from(of.normalized)]);
        hash.update(&(of.dim as u64).to_le_bytes());
        hash.update(text.as_bytes());
        Some(hash.digest128())
    }

    /// For each key what is there; the places of those that are not.
    fn look<T>(&self, keys: &[Option<u128>], take: impl Fn(Made) -> Option<T>) -> (Vec<Option<T>>, Vec<usize>) {
        let look = |key: &Option<u128>| self.made.get(key.as_ref()?).and_then(&take);
        let found: Vec<Option<T>> = keys.iter().map(look).collect();
        let missing: Vec<usize> = (0..keys.len()).filter(|&i| found[i].is_none()).collect();
        telemetry::embeddings_looked_up(keys.len() - missing.len(), missing.len());
        (found, missing)
    }

    fn keep(&self, key: Option<u128>, made: impl FnOnce() -> Made) {
        if let Some(key) = key {
            self.made.insert(key, made());
        }
    }
}

impl Cached {
    /// `inner` behind `cache`.
    pub fn new(inner: Arc<dyn Embedder>, cache: Arc<EmbeddingCache>) -> Self {
        Self { inner, cache }
    }
}

impl CachedSparse {
    /// `inner` behind `cache`.
    pub fn new(inner: Arc<dyn SparseEmbedder>, cache: Arc<EmbeddingCache>) -> Self {
        Self { inner, cache }
    }
}

impl Embedder for Cached {
    fn fingerprint(&self) -> &Fingerprint {
        self.inner.fingerprint()
    }

    fn takes(&self, medium: Medium) -> bool {
        self.inner.takes(medium)
    }

    fn embed(&self, inputs: &[Input<'_>], kind: TextKind, patience: &Patience) -> Result<Vec<Vec<f32>>, EmbedError> {
        let of = self.fingerprint();
        let key = |input: &Input<'_>| self.cache.key(of, kind, input.medium(), input.text());
        let keys: Vec<Option<u128>> = inputs.iter().map(key).collect();
        let (mut vectors, missing) = self.cache.look(&keys, |made| match made {
            Made::Dense(vector) => Some(vector.to_vec()),
            Made::Sparse(_) => None,
        });
        for part in missing.chunks(PART) {
            let asked: Vec<Input<'_>> = part.iter().map(|&i| inputs[i]).collect();
            let made = self.inner.embed(&asked, kind, patience).map_err(|e| e.among(part))?;
            for (&i, vector) in part.iter().zip(made) {
                self.cache.keep(keys[i], || Made::Dense(vector.as_slice().into()));
                vectors[i] = Some(vector);
            }
        }
        all(vectors)
    }
}

impl SparseEmbedder for CachedSparse {
    fn fingerprint(&self) -> &Fingerprint {
        self.inner.fingerprint()
    }

    fn embed(&self, texts: &[&str], kind: TextKind, patience: &Patience) -> Result<Vec<SparseVector>, EmbedError> {
        let of = self.fingerprint();
        let keys: Vec<Option<u128>> = texts
            .iter()
            .map(|text| self.cache.key(of, kind, Medium::Text, text))
            .collect();
        let (mut vectors, missing) = self.cache.look(&keys, |made| match made {
            Made::Sparse(vector) => Some((*vector).clone()),
            Made::Dense(_) => None,
        });
        for part in missing.chunks(PART) {
            let asked: Vec<&str> = part.iter().map(|&i| texts[i]).collect();
            let made = self.inner.embed(&asked, kind, patience).map_err(|e| e.among(part))?;
            for (&i, vector) in part.iter().zip(made) {
                self.cache.keep(keys[i], || Made::Sparse(Arc::new(vector.clone())));
                vectors[i] = Some(vector);
            }
        }
        all(vectors)
    }
}

fn all<T>(vectors: Vec<Option<T>>) -> Result<Vec<T>, EmbedError> {
    let all: Option<Vec<T>> = vectors.into_iter().collect();
    all.ok_or_else(|| EmbedError::BadAnswer {
        message: "fewer vectors came back than were asked for".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::Duration;

    use super::*;

    /// Counts, and remembers what it was asked; a text's vector is its length.
    struct Counting {
        fingerprint: Fingerprint,
        asked: Mutex<Vec<String>>,
    }

    impl Counting {
        fn new(revision: &str) -> Arc<Self> {
            let fingerprint = Fingerprint {
                name: "counting".into(),
                revision: revision.into(),
                dim: 2,
                normalized: false,
                query_prefix: "q: ".into(),
                passage_prefix: String::new(),
            };
            Arc::new(Self {
                fingerprint,
                asked: Mutex::default(),
            })
        }

        fn asked(&self) -> Vec<String> {
            std::mem::take(&mut self.asked.lock().unwrap())
        }
    }

    impl Embedder for Counting {
        fn fingerprint(&self) -> &Fingerprint {
            &self.fingerprint
        }
        fn embed(&self, inputs: &[Input<'_>], _: TextKind, _: &Patience) -> Result<Vec<Vec<f32>>, EmbedError> {
            if let Some(index) = inputs.iter().position(|input| input.text().is_empty()) {
                return Err(EmbedError::EmptyText { index });
            }
            self.asked
                .lock()
                .unwrap()
                .extend(inputs.iter().map(|input| input.text().to_owned()));
            Ok(inputs
                .iter()
                .map(|input| vec![input.text().len() as f32, 1.0])
                .collect())
        }
    }

    impl SparseEmbedder for Counting {
        fn fingerprint(&self) -> &Fingerprint {
            &self.fingerprint
        }
        fn embed(&self, texts: &[&str], _: TextKind, _: &Patience) -> Result<Vec<SparseVector>, EmbedError> {
            self.asked
                .lock()
                .unwrap()
                .extend(texts.iter().map(|text| (*text).to_owned()));
            let vector = |text: &&str| SparseVector {
                indices: vec![text.len() as u32],
                values: vec![1.0],
            };
            Ok(texts.iter().map(vector).collect())
        }
    }

    fn embed(cached: &Cached, texts: &[&str], kind: TextKind) -> Result<Vec<Vec<f32>>, EmbedError> {
        let inputs: Vec<Input<'_>> = texts.iter().map(|text| Input::Text(text)).collect();
        cached.embed(&inputs, kind, &Patience::lasting(Duration::from_secs(60)))
    }

    #[test]
    fn only_what_is_new_reaches_the_model_and_answers_keep_their_order() {
        let model = Counting::new("1");
        let cache = Arc::new(EmbeddingCache::new(1 << 20, 7));
        let cached = Cached::new(Arc::clone(&model) as _, Arc::clone(&cache));
        assert_eq!(
            embed(&cached, &["a", "bb"], TextKind::Passage).unwrap(),
            [[1.0, 1.0], [2.0, 1.0]]
        );
        assert_eq!(model.asked(), ["a", "bb"]);
        let mixed = embed(&cached, &["bb", "ccc", "a", "dddd"], TextKind::Passage).unwrap();
        assert_eq!(mixed, [[2.0, 1.0], [3.0, 1.0], [1.0, 1.0], [4.0, 1.0]]);
        assert_eq!(model.asked(), ["ccc", "dddd"]);
        embed(&cached, &["a"], TextKind::Query).unwrap();
        assert_eq!(model.asked(), ["a"], "a question is not a passage");
        let newer = Counting::new("2");
        embed(
            &Cached::new(Arc::clone(&newer) as _, Arc::clone(&cache)),
            &["a"],
            TextKind::Passage,
        )
        .unwrap();
        assert_eq!(newer.asked(), ["a"], "another revision is another model");
        let patience = Patience::lasting(Duration::from_secs(60));
        for (reference, asked) in [("https://here/a.png", 2), ("data:image/png;base64,AA==", 1)] {
            for _ in 0..2 {
                cached
                    .embed(&[Input::Image(reference)], TextKind::Passage, &patience)
                    .unwrap();
            }
            // Under a URL there may be another image the next time.
            assert_eq!(model.asked(), vec![reference; asked]);
        }
        cached
            .embed(&[Input::Image("a")], TextKind::Passage, &patience)
            .unwrap();
        assert_eq!(model.asked(), ["a"], "a reference is not a text");

        let sparse = CachedSparse::new(Arc::clone(&model) as _, cache);
        for expected in [vec!["a"], vec![]] {
            let made = sparse.embed(&["a"], TextKind::Passage, &patience).unwrap();
            assert_eq!(made[0].indices, [1]);
            assert_eq!(model.asked(), expected);
        }
    }

    #[test]
    fn an_error_names_the_place_among_all_that_were_asked() {
        let cached = Cached::new(Counting::new("1"), Arc::new(EmbeddingCache::new(1 << 20, 7)));
        embed(&cached, &["a", "b"], TextKind::Passage).unwrap();
        let error = embed(&cached, &["a", "x", "b", ""], TextKind::Passage);
        assert_eq!(error, Err(EmbedError::EmptyText { index: 3 }));
    }

    #[test]
    fn what_was_made_before_a_failure_is_kept() {
        let model = Counting::new("1");
        let cached = Cached::new(Arc::clone(&model) as _, Arc::new(EmbeddingCache::new(1 << 20, 7)));
        let mut texts: Vec<String> = (0..PART + 1).map(|i| format!("text {i}")).collect();
        texts[PART] = String::new();
        let refs: Vec<&str> = texts.iter().map(String::as_str).collect();
        let error = embed(&cached, &refs, TextKind::Passage);
        assert_eq!(error, Err(EmbedError::EmptyText { index: PART }));
        assert_eq!(model.asked().len(), PART);
        assert_eq!(embed(&cached, &refs[..PART], TextKind::Passage).unwrap().len(), PART);
        assert!(model.asked().is_empty(), "nothing is made twice");
    }

    #[test]
    fn bytes_are_bounded() {
        let bytes = 100 * (8 + OVERHEAD_BYTES);
        let cache = Arc::new(EmbeddingCache::new(bytes, 7));
        let cached = Cached::new(Counting::new("1"), Arc::clone(&cache));
        for i in 0..1_000 {
            embed(&cached, &[&format!("{i:04}")], TextKind::Passage).unwrap();
        }
        assert!(
            cache.made.weight() <= bytes as u64,
            "{} of {bytes}",
            cache.made.weight()
        );
        assert!(cache.made.len() > 50, "{} are kept", cache.made.len());
        let none = Cached::new(Counting::new("1"), Arc::new(EmbeddingCache::new(0, 7)));
        assert_eq!(
            embed(&none, &["a", "a"], TextKind::Query).unwrap().len(),
            2,
            "without room it only passes on"
        );
    }
}
