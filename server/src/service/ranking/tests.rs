//! Rankings over a real engine: what each step does to hits, how many remain, and what a reranker may do wrong.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use cairn_engine::Engine;
use cairn_engine::config::{Clock, Components, Settings};
use cairn_engine::engine::WriteOptions;
use cairn_engine::query::{Params, Source};
use cairn_engine::schema::{AnalyzerSpec, FieldSpec, IndexSpec, Metric, VectorSpec};
use cairn_engine::types::PointInput;
use serde_json::json;

use super::*;
use crate::config::Config;
use crate::rag::models::Models;
use crate::rag::rerank::RerankError;
use crate::rag::{OutOfPatience, Patience};
use crate::service::SnapshotsOf;
use crate::service::pools::Budget;

/// The day that ages are counted from.
const NOW: u64 = 1_700_000_000_000;
const DAY: u64 = 86_400_000;

struct Frozen;

impl Clock for Frozen {
    fn now_ms(&self) -> u64 {
        NOW
    }
}

struct Bench {
    _dir: tempfile::TempDir,
    core: Core,
}

type Answered = (Vec<String>, QueryResult, Vec<Stage>);

impl Bench {
    /// Points on a quarter circle: the first is nearest to `[1, 0]`. Payloads as given.
    fn new(payloads: &[Value], rerankers: Vec<Arc<dyn Reranker>>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let components = Components {
            clock: Arc::new(Frozen),
            workers: cairn_engine::config::Workers::alone(),
            files: Arc::new(cairn_engine::storage::LocalDir),
        };
        let engine = Engine::open(dir.path(), Settings::default(), components).unwrap();
        let vector = VectorSpec {
            dim: 2,
            metric: Metric::Cosine,
            index: IndexSpec::default(),
            embedder: None,
            quantization: Default::default(),
        };
        let text = FieldSpec::Text {
            analyzer: AnalyzerSpec::default(),
        };
        let schema = Schema {
            vectors: BTreeMap::from([("v".to_owned(), vector)]),
            fields: BTreeMap::from([("text".to_owned(), text)]),
            ..crate::service::empty_schema()
        };
        engine.create_collection("c", schema).unwrap();
        let points = payloads.iter().enumerate().map(|(i, payload)| {
            #[expect(clippy::cast_precision_loss, reason = "a few hundred points")]
            let angle = i as f32 / payloads.len() as f32 * std::f32::consts::FRAC_PI_2;
            PointInput {
                id: PointId::new(format!("p{i:04}")).unwrap(),
                vectors: BTreeMap::from([("v".to_owned(), vec![angle.cos(), angle.sin()])])
                    .into_iter()
                    .collect(),
                sparse: Default::default(),
                payload: payload.as_object().unwrap().clone(),
                document: None,
                expires_at_ms: None,
            }
        });
        engine.upsert("c", points.collect(), &WriteOptions::default()).unwrap();
        let mut models = Models::builtin();
        rerankers.into_iter().for_each(|reranker| models.add_reranker(reranker));
        let config = Config {
            data_dir: dir.path().to_owned(),
            ..Config::default()
        };
        let core = Core {
            pdfs: Default::default(),
            engine: Arc::new(engine),
            models,
            snapshots: SnapshotsOf::open(&config).unwrap(),
        };
        Self { _dir: dir, core }
    }

    fn query(limit: usize, offset: usize) -> Query {
        Query {
            source: Source::Nearest {
                using: None,
                vector: vec![1.0, 0.0],
            },
            filter: Default::default(),
            limit,
            offset,
            score_threshold: None,
            with: With {
                payload: true,
                ..With::default()
            },
            params: Params::default(),
            after: None,
            patience: Patience::default(),
        }
    }

    fn plan(&self, ranking: &Ranking) -> Result<Plan> {
        let schema = self.core.engine.schema("c").unwrap();
        self.core.plan(ranking, &[&schema], Some("what?"))
    }

    fn ask(&self, query: &Query, ranking: &Ranking, budget: &Budget) -> Answered {
        let plan = self.plan(ranking).unwrap();
        let moment = self.core.engine.moment("c", None, Patience::default()).unwrap();
        let (result, stages) = self
            .core
            .search_ranked(&moment, query, &plan, budget, "Query.Run")
            .unwrap();
        let ids = result.hits.iter().map(|hit| hit.point.id.as_str().to_owned()).collect();
        (ids, result, stages)
    }

    fn ids(&self, limit: usize, offset: usize, ranking: &Ranking) -> Vec<String> {
        self.ask(&Self::query(limit, offset), ranking, &patient()).0
    }
}

fn patient() -> Budget {
    Budget::until(Instant::now() + Duration::from_secs(60))
}

fn texts(n: usize, text: impl Fn(usize) -> String) -> Vec<Value> {
    (0..n).map(|i| json!({"text": text(i), "n": i})).collect()
}

/// Different in every word.
fn distinct(i: usize) -> String {
    (0..12).map(|word| format!("w{i}x{word} ")).collect()
}

fn id(i: usize) -> String {
    format!("p{i:04}")
}

// ---- enough hits, pages ----

#[test]
fn enough_hits_remain_if_there_are_enough() {
    // 700 near duplicates in front, then what is wanted.
    let payloads = texts(720, |i| {
        if i < 700 {
            "the same old words over and over again".to_owned()
        } else {
            distinct(i)
        }
    });
    let bench = Bench::new(&payloads, vec![]);
    let ranking = Ranking {
        near_duplicates: Some(NearDuplicates::default()),
        ..Ranking::default()
    };
    let (ids, result, stages) = bench.ask(&Bench::query(5, 0), &ranking, &patient());
    assert_eq!(ids, [id(0), id(700), id(701), id(702), id(703)]);
    assert!(result.hits[1].point.payload.as_ref().unwrap()["text"].is_string() && result.bytes > 0);
    assert_eq!(
        (stages.len(), stages[0].name, stages[0].hits_in, stages[0].hits_out),
        (1, "near_duplicates", 720, 21)
    );
    // All there are, if there are not enough.
    assert_eq!(bench.ids(50, 0, &ranking).len(), 21);
    assert_eq!(bench.ids(50, 20, &ranking), [id(719)]);
}

#[test]
fn a_pool_that_would_be_too_large_leaves_the_answer_of_the_one_before() {
    let payloads: Vec<Value> = (0..450)
        .map(|i| json!({"kind": if i < 440 { 0 } else { i }, "text": distinct(i)}))
        .collect();
    let bench = Bench::new(&payloads, vec![]);
    let ranking = Ranking {
        caps: vec![Cap {
            field: "kind".into(),
            most: 3,
        }],
        ..Ranking::default()
    };
    let moments = [bench.core.engine.moment("c", None, Patience::default()).unwrap()];
    let plan = bench.plan(&ranking).unwrap();
    let ask = |bytes_max| {
        let mut fetcher = Fetcher {
            bytes_max,
            ..Fetcher::new(&moments)
        };
        let query = Bench::query(5, 0);
        let asked = bench
            .core
            .search_ranked_with(&mut fetcher, &moments[0], &query, &plan, &patient(), "Query.Run");
        asked.map(|(result, stages)| {
            (
                result.hits.len(),
                stages[0].hits_in,
                stages[0].skipped.clone(),
                fetcher.bytes,
            )
        })
    };
    let (hits, seen, skipped, bytes) = ask(usize::MAX).unwrap();
    assert_eq!((hits, seen, skipped), (5, 450, None));
    // The first pool is 100 hits, the next 400: enough bytes for the one and not for the other.
    let (hits, seen, skipped, _) = ask(bytes / 2).unwrap();
    assert_eq!((hits, seen), (3, 100));
    assert!(
        skipped
            .unwrap()
            .starts_with("hits beyond the first 100 were not looked at")
    );
    assert_eq!(ask(bytes / 10).unwrap_err().code, "answer_too_large");
}

#[test]
fn pages_are_cut_from_the_ranked_list() {
    let payloads: Vec<Value> = (0..90).map(|i| json!({"text": distinct(i), "kind": i % 7})).collect();
    let bench = Bench::new(&payloads, vec![]);
    let ranking = Ranking {
        caps: vec![Cap {
            field: "kind".into(),
            most: 3,
        }],
        mmr: Some(Mmr {
            lambda: Some(0.0),
            ..Mmr::default()
        }),
        ..Ranking::default()
    };
    let all = bench.ids(21, 0, &ranking);
    assert_eq!(all.len(), 21);
    let pages: Vec<String> = (0..3).flat_map(|page| bench.ids(7, 7 * page, &ranking)).collect();
    assert_eq!(pages, all);
    assert_ne!(all, bench.ids(21, 0, &Ranking { mmr: None, ..ranking }));
}

#[test]
fn a_payload_is_given_only_if_asked_for_though_steps_look_at_it() {
    let bench = Bench::new(&texts(10, distinct), vec![]);
    let ranking = Ranking {
        near_duplicates: Some(NearDuplicates::default()),
        ..Ranking::default()
    };
    let bare = Query {
        with: With::default(),
        ..Bench::query(3, 0)
    };
    let (_, result, _) = bench.ask(&bare, &ranking, &patient());
    assert!(
        result
            .hits
            .iter()
            .all(|hit| hit.point.payload.is_none() && hit.point.vectors.is_none())
    );
    let vectors = Query {
        with: With {
            vectors: true,
            ..With::default()
        },
        ..Bench::query(3, 0)
    };
    let (_, result, _) = bench.ask(&vectors, &ranking, &patient());
    assert!(
        result
            .hits
            .iter()
            .all(|hit| hit.point.payload.is_none() && hit.point.vectors.is_some())
    );
}

// ---- the steps, one by one ----

#[test]
fn what_is_old_falls_behind_and_what_has_no_date_does_not() {
    let old = NOW - 30 * DAY;
    let payloads = [
        json!({"at": old}),
        json!({"at": "2023-11-14T22:13:20Z"}),
        json!({}),
        json!({"at": {"x": 1}}),
    ];
    let bench = Bench::new(&payloads, vec![]);
    let decay = Decay {
        field: "at".into(),
        half_life_ms: 30 * DAY,
        weight: None,
        origin_ms: None,
    };
    let ranking = Ranking {
        decay: Some(decay.clone()),
        ..Ranking::default()
    };
    let (ids, result, stages) = bench.ask(&Bench::query(4, 0), &ranking, &patient());
    assert_eq!(ids, [id(1), id(2), id(3), id(0)]);
    assert!((result.hits[3].score - 0.5).abs() < 1e-4, "{}", result.hits[3].score);
    assert_eq!(
        stages[0].skipped.as_deref(),
        Some("2 hits have no time in \"at\" and keep their score")
    );
    let then = Ranking {
        decay: Some(Decay {
            origin_ms: Some(old),
            ..decay
        }),
        ..Ranking::default()
    };
    assert_eq!(bench.ids(4, 0, &then), [id(0), id(1), id(2), id(3)]);
}

#[test]
fn mmr_takes_its_vectors_by_name_and_says_what_it_left() {
    let bench = Bench::new(&texts(40, distinct), vec![]);
    let few = Mmr {
        lambda: Some(0.0),
        candidates: Some(10),
        using: Some("v".into()),
    };
    let ranking = Ranking {
        mmr: Some(few),
        ..Ranking::default()
    };
    // Diversity alone, of the ten nearest: the nearest, then the farthest of them.
    let first = bench.ids(2, 0, &ranking);
    assert_eq!(first, [id(0), id(9)]);
    let unknown = Ranking {
        mmr: Some(Mmr {
            using: Some("w".into()),
            ..Mmr::default()
        }),
        ..Ranking::default()
    };
    let error = bench.plan(&unknown).err().unwrap();
    assert_eq!(
        (error.code, error.pointer.as_deref()),
        ("vector_not_found", Some("/mmr/using"))
    );
}

#[test]
fn every_hit_is_kept_or_left_out_once_whatever_the_steps() {
    let payloads: Vec<Value> = (0..60)
        .map(|i| json!({"text": if i % 4 == 0 { "the same old words again and again".to_owned() } else { distinct(i) }, "kind": i % 5, "at": NOW - DAY * (i as u64 % 9)}))
        .collect();
    let scripted = Scripted::new(|texts, _| {
        Ok(texts
            .iter()
            .enumerate()
            .map(|(i, _)| (i % 3 > 0).then_some(0.5))
            .collect())
    });
    let bench = Bench::new(&payloads, vec![scripted]);
    let moment = bench.core.engine.moment("c", None, Patience::default()).unwrap();
    let all = moment
        .query(&Query {
            with: With::default(),
            ..Bench::query(60, 0)
        })
        .unwrap()
        .hits;
    let given: std::collections::BTreeSet<String> = all.iter().map(|hit| hit.point.id.as_str().to_owned()).collect();
    for steps in 0..64_usize {
        let asked = |bit: usize| steps >> bit & 1 == 1;
        let ranking = Ranking {
            decay: asked(0).then(|| Decay {
                field: "at".into(),
                half_life_ms: DAY,
                weight: None,
                origin_ms: None,
            }),
            rerank: asked(1).then(|| Rerank {
                top: Some(20),
                ..Rerank::default()
            }),
            near_duplicates: asked(2).then(NearDuplicates::default),
            caps: if asked(3) {
                vec![Cap {
                    field: "kind".into(),
                    most: 4,
                }]
            } else {
                vec![]
            },
            mmr: asked(4).then(|| Mmr {
                candidates: Some(10),
                ..Mmr::default()
            }),
        };
        let plan = bench.plan(&ranking).unwrap();
        let found = all
            .iter()
            .map(|hit| Found {
                collection: 0,
                hit: hit.clone(),
            })
            .collect();
        let mut fetcher = Fetcher::new(std::slice::from_ref(&moment));
        let threshold = asked(5).then_some(0.45);
        let ranked = plan
            .run(found, 5, threshold, &mut fetcher, &mut Reranked::default(), &patient())
            .unwrap();
        let ids: Vec<String> = ranked
            .hits
            .iter()
            .chain(ranked.dropped.iter().map(|(found, _)| found))
            .map(|found| found.hit.point.id.as_str().to_owned())
            .collect();
        assert_eq!(ids.len(), 60, "steps {steps:b}");
        assert_eq!(
            ids.into_iter().collect::<std::collections::BTreeSet<_>>(),
            given,
            "steps {steps:b}"
        );
        assert_eq!(ranked.stages.len(), (0..5).filter(|bit| asked(*bit)).count());
        assert!(threshold.is_none_or(|t| ranked.hits.iter().all(|found| found.hit.score >= t)));
    }
}

// ---- rerankers ----

/// Answers as its script says.
struct Scripted {
    script: fn(&[&str], &Patience) -> std::result::Result<Vec<Option<f32>>, RerankError>,
    texts: AtomicUsize,
    words: Mutex<Vec<String>>,
}

impl Scripted {
    fn new(script: fn(&[&str], &Patience) -> std::result::Result<Vec<Option<f32>>, RerankError>) -> Arc<Self> {
        Arc::new(Self {
            script,
            texts: AtomicUsize::new(0),
            words: Mutex::default(),
        })
    }
}

impl Reranker for Scripted {
    fn name(&self) -> &str {
        "scripted"
    }
    fn rerank(&self, query: &str, texts: &[&str], patience: &Patience) -> std::result::Result<Scores, RerankError> {
        self.texts.fetch_add(texts.len(), Ordering::Relaxed);
        self.words.lock().unwrap().push(query.to_owned());
        (self.script)(texts, patience).map(Scores::from)
    }
}

/// The number in the text, as a share of a thousand.
fn by_number(text: &str) -> f32 {
    text.trim_start_matches("text ").parse::<f32>().unwrap() / 1_000.0
}

fn numbered(n: usize) -> Vec<Value> {
    texts(n, |i| format!("text {i}"))
}

fn reranked(top: usize) -> Ranking {
    let rerank = Rerank {
        top: Some(top),
        ..Rerank::default()
    };
    Ranking {
        rerank: Some(rerank),
        ..Ranking::default()
    }
}

#[test]
fn the_reranker_decides_the_order_of_the_best_and_the_others_follow() {
    let scripted = Scripted::new(|texts, _| Ok(texts.iter().map(|text| Some(by_number(text))).collect()));
    let bench = Bench::new(&numbered(20), vec![scripted.clone()]);
    let (ids, result, stages) = bench.ask(&Bench::query(6, 0), &reranked(4), &patient());
    assert_eq!(ids, [3, 2, 1, 0, 4, 5].map(id));
    let hit = &result.hits[0];
    let leg = |name: &str| {
        hit.legs
            .iter()
            .find(|leg| leg.leg == name)
            .map(|leg| (leg.raw, leg.rank))
    };
    assert_eq!((hit.score, leg("rerank")), (0.003, Some((0.003, 1))));
    let (before, rank) = leg("retrieval").unwrap();
    assert!(before > 0.9 && rank == 4 && leg("dense").is_some());
    assert_eq!((stages[0].name, stages[0].skipped.as_deref()), ("rerank", None));
    assert_eq!(*scripted.words.lock().unwrap(), ["what?"]);

    let words = Rerank {
        query: Some("other words".into()),
        ..Rerank::default()
    };
    bench.ids(
        1,
        0,
        &Ranking {
            rerank: Some(words),
            ..Ranking::default()
        },
    );
    assert_eq!(scripted.words.lock().unwrap().last().unwrap(), "other words");
}

#[test]
fn as_many_are_looked_at_as_the_ranking_says() {
    let scripted = Scripted::new(|texts, _| Ok(texts.iter().map(|text| Some(by_number(text))).collect()));
    let bench = Bench::new(&numbered(300), vec![scripted.clone()]);
    assert_eq!(bench.ids(2, 0, &reranked(250)), [id(249), id(248)]);
    assert_eq!(scripted.texts.load(Ordering::Relaxed), 250);
    let diverse = Mmr {
        lambda: Some(0.0),
        candidates: Some(300),
        ..Mmr::default()
    };
    let ranking = Ranking {
        mmr: Some(diverse),
        ..Ranking::default()
    };
    assert_eq!(bench.ids(2, 0, &ranking), [id(0), id(299)], "the farthest of all");
}

#[test]
fn a_threshold_is_compared_with_what_the_reranker_said() {
    let scripted = Scripted::new(|texts, _| Ok(texts.iter().map(|text| Some(by_number(text) * 100.0)).collect()));
    let bench = Bench::new(&numbered(10), vec![scripted]);
    let query = Query {
        score_threshold: Some(0.75),
        ..Bench::query(10, 0)
    };
    assert_eq!(bench.ask(&query, &reranked(10), &patient()).0, [id(9), id(8)]);
}

#[test]
fn a_reranker_that_fails_or_lies_leaves_the_order_and_is_said_so() {
    type Script = fn(&[&str], &Patience) -> std::result::Result<Vec<Option<f32>>, RerankError>;
    let scripts: [(Script, &str); 6] = [
        (
            |_, _| {
                Err(RerankError::Unavailable {
                    message: "no route".into(),
                    retry_after: None,
                })
            },
            "no route",
        ),
        (|_, _| Err(RerankError::Deadline), "passed"),
        (|_, _| Err(RerankError::BadAnswer { message: "html".into() }), "html"),
        (
            |texts, _| Ok(vec![Some(0.5); texts.len() + 1]),
            "4 texts were sent and 5 scores came back",
        ),
        (
            |texts, _| Ok(vec![Some(f32::NAN); texts.len()]),
            "a score is 0 to 1, got NaN",
        ),
        (|texts, _| Ok(vec![Some(1.5); texts.len()]), "got 1.5"),
    ];
    for (script, says) in scripts {
        let bench = Bench::new(&numbered(4), vec![Scripted::new(script)]);
        let (ids, result, stages) = bench.ask(&Bench::query(4, 0), &reranked(4), &patient());
        assert_eq!(ids, [0, 1, 2, 3].map(id));
        assert!(result.hits.iter().all(|hit| hit.legs.len() == 1));
        let skipped = stages[0].skipped.as_deref().unwrap();
        assert!(
            skipped.contains(says) && skipped.starts_with("reranker \"scripted\""),
            "{skipped}"
        );
    }
}

#[test]
fn what_was_not_scored_in_time_keeps_its_order_behind_what_was() {
    let scripted = Scripted::new(|texts, _| {
        Ok(texts
            .iter()
            .map(|text| [Some(0.1), None, Some(0.9), None][(by_number(text) * 1_000.0) as usize % 4])
            .collect())
    });
    let bench = Bench::new(&numbered(6), vec![scripted]);
    let (ids, _, stages) = bench.ask(&Bench::query(6, 0), &reranked(4), &patient());
    assert_eq!(ids, [2, 0, 1, 3, 4, 5].map(id));
    assert_eq!(
        stages[0].skipped.as_deref(),
        Some("2 of 4 hits were not scored within 1000 ms")
    );
}

/// Scores the first half, and then its service fails.
struct Halfway;

impl Reranker for Halfway {
    fn name(&self) -> &str {
        "halfway"
    }
    fn rerank(&self, _: &str, texts: &[&str], _: &Patience) -> std::result::Result<Scores, RerankError> {
        let half = texts.len() / 2;
        let scores = texts
            .iter()
            .enumerate()
            .map(|(i, text)| (i < half).then(|| by_number(text)));
        Ok(Scores {
            scores: scores.collect(),
            failed: Some(RerankError::BadAnswer { message: "html".into() }),
        })
    }
}

#[test]
fn what_was_scored_before_a_failure_counts_and_the_failure_is_said() {
    let bench = Bench::new(&numbered(6), vec![Arc::new(Halfway)]);
    let (ids, _, stages) = bench.ask(&Bench::query(6, 0), &reranked(4), &patient());
    assert_eq!(ids, [1, 0, 2, 3, 4, 5].map(id));
    assert_eq!(
        stages[0].skipped.as_deref(),
        Some("reranker \"halfway\": the reranker gave a wrong answer: html; 2 of 4 hits were not scored")
    );
}

#[test]
fn a_reranker_is_given_its_budget_and_never_all_of_the_requests_time() {
    let waits = Scripted::new(|texts, patience| {
        // The second request: a tenth of its time is not the reranker's.
        if patience.left() > Duration::from_secs(1) {
            assert!(patience.left() <= Duration::from_secs(54), "{:?}", patience.left());
            return Ok(vec![None; texts.len()]);
        }
        while patience.check() != Err(OutOfPatience::Late) {
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(vec![None; texts.len()])
    });
    let bench = Bench::new(&numbered(4), vec![waits]);
    let short = Rerank {
        budget_ms: Some(5),
        ..Rerank::default()
    };
    let ranking = Ranking {
        rerank: Some(short),
        ..Ranking::default()
    };
    assert_eq!(bench.ids(4, 0, &ranking).len(), 4);
    // The request ends long before the reranker's budget.
    let rerank = Rerank {
        budget_ms: Some(60_000),
        ..Rerank::default()
    };
    let ranking = Ranking {
        rerank: Some(rerank),
        ..Ranking::default()
    };
    let hurried = Budget::until(Instant::now() + Duration::from_secs(60));
    assert_eq!(bench.ask(&Bench::query(4, 0), &ranking, &hurried).0.len(), 4);
}

#[test]
fn a_larger_pool_does_not_rerank_again_what_was_reranked() {
    let scripted = Scripted::new(|texts, _| Ok(vec![Some(0.5); texts.len()]));
    let payloads = texts(500, |_| "all alike, word by word".to_owned());
    let bench = Bench::new(&payloads, vec![scripted.clone()]);
    let ranking = Ranking {
        near_duplicates: Some(NearDuplicates::default()),
        ..reranked(50)
    };
    assert_eq!(bench.ids(10, 0, &ranking), [id(0)]);
    assert_eq!(scripted.texts.load(Ordering::Relaxed), 50);
}

#[test]
fn hits_without_text_are_not_reranked() {
    let scripted = Scripted::new(|texts, _| Ok(vec![Some(0.5); texts.len()]));
    let bench = Bench::new(&[json!({"n": 1}), json!({"text": "text 1"})], vec![scripted]);
    let (ids, _, stages) = bench.ask(&Bench::query(2, 0), &reranked(9), &patient());
    assert_eq!(ids, [id(1), id(0)]);
    assert_eq!(
        stages[0].skipped.as_deref(),
        Some("1 of 2 hits have no text in \"text\"")
    );
}

#[test]
fn an_unknown_reranker_is_refused_with_the_list() {
    let named = |model: &str| Ranking {
        rerank: Some(Rerank {
            model: Some(model.into()),
            ..Rerank::default()
        }),
        ..Ranking::default()
    };
    let one = Bench::new(
        &numbered(1),
        vec![Scripted::new(|texts, _| Ok(vec![None; texts.len()]))],
    );
    let error = one.plan(&named("nobody")).err().unwrap();
    assert_eq!(
        (error.code, error.pointer.as_deref()),
        ("unknown_reranker", Some("/rerank/model"))
    );
    assert!(error.message.contains("scripted"), "{}", error.message);
    assert!(one.plan(&named("scripted")).is_ok());
    let none = Bench::new(&numbered(1), vec![]);
    let error = none.plan(&reranked(1)).err().unwrap();
    assert!(error.message.contains("none"), "{}", error.message);
    let schema = one.core.engine.schema("c").unwrap();
    let error = one.core.plan(&reranked(1), &[&schema], None).err().unwrap();
    assert_eq!(
        (error.code, error.pointer.as_deref()),
        ("bad_ranking", Some("/rerank/query"))
    );
}

// ---- bounds ----

#[test]
fn bounds_are_checked_with_their_places() {
    let decay = |half_life_ms, weight| Ranking {
        decay: Some(Decay {
            field: "f".into(),
            half_life_ms,
            weight,
            origin_ms: None,
        }),
        ..Ranking::default()
    };
    let rerank = |rerank| Ranking {
        rerank: Some(rerank),
        ..Ranking::default()
    };
    let near = |threshold| Ranking {
        near_duplicates: Some(NearDuplicates {
            threshold: Some(threshold),
        }),
        ..Ranking::default()
    };
    let cap = |field: &str, most| Cap {
        field: field.into(),
        most,
    };
    let caps = |caps| Ranking {
        caps,
        ..Ranking::default()
    };
    let mmr = |mmr| Ranking {
        mmr: Some(mmr),
        ..Ranking::default()
    };
    let cases = [
        (decay(0, None), "/decay/half_life_ms"),
        (decay(1, Some(1.1)), "/decay/weight"),
        (decay(1, Some(f32::NAN)), "/decay/weight"),
        (
            rerank(Rerank {
                top: Some(0),
                ..Rerank::default()
            }),
            "/rerank/top",
        ),
        (
            rerank(Rerank {
                top: Some(RERANK_MAX + 1),
                ..Rerank::default()
            }),
            "/rerank/top",
        ),
        (
            rerank(Rerank {
                budget_ms: Some(60_001),
                ..Rerank::default()
            }),
            "/rerank/budget_ms",
        ),
        (
            rerank(Rerank {
                field: Some(String::new()),
                ..Rerank::default()
            }),
            "/rerank/field",
        ),
        (near(0.0), "/near_duplicates/threshold"),
        (near(1.01), "/near_duplicates/threshold"),
        (near(f32::NAN), "/near_duplicates/threshold"),
        (caps(vec![cap("a", 1), cap("", 1)]), "/caps/1/field"),
        (caps(vec![cap("a", 0)]), "/caps/0/most"),
        (caps(vec![cap("a", 1); CAPS_MAX + 1]), "/caps"),
        (
            mmr(Mmr {
                lambda: Some(-0.1),
                ..Mmr::default()
            }),
            "/mmr/lambda",
        ),
        (
            mmr(Mmr {
                candidates: Some(0),
                ..Mmr::default()
            }),
            "/mmr/candidates",
        ),
    ];
    for (ranking, pointer) in cases {
        let error = ranking.check().unwrap_err();
        assert_eq!((error.code, error.pointer.as_deref()), ("bad_ranking", Some(pointer)));
    }
    assert!(Ranking::default().is_empty() && Ranking::default().check().is_ok());
}

#[test]
fn the_first_pool_is_twice_what_is_wanted_in_few_sizes() {
    for (wanted, pool) in [
        (1, 100),
        (50, 100),
        (51, 200),
        (100, 200),
        (1_000, 3_200),
        (9_000, POOL_MAX),
    ] {
        assert_eq!(first_pool(wanted), pool, "{wanted}");
    }
}
