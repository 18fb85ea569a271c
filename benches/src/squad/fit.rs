//! Which settings the default hybrid should have: the grid of `cairn_server::eval::fit` and text fields, on SQuAD train.
//!
//! Each leg is asked once, for its best hundred. Before lists are fused here, the formula is checked against the server's own
//! fusion. The best setting has the highest recall@10, then nDCG@10.

use anyhow::{Context, ensure};
use cairn_client::{Answer, Collection, Fuse, Leg, Query};
use cairn_server::eval::Judged;
use cairn_server::eval::fit::{LegHit, List, Setting, alone, grid};

use super::cases::{Cases, METRICS, NDCG_10, RECALL_10, ask_all};
use super::sets::{Question, Set};
use crate::measure::ask;
use crate::report::{Table, Verdict};

/// Candidates of a leg, as the server's default.
const LEG_LIMIT: u32 = 100;
/// Questions on which our fusion is compared with the server's.
const COMPARED: usize = 200;
/// Settings shown.
const SHOWN: usize = 25;

const TEXT_FIELDS: [&[&str]; 4] = [
    &["text"],
    &["text", "title^0.25"],
    &["text", "title^0.5"],
    &["text", "title"],
];

/// `model` is what the records call the dense leg's embedder.
pub(super) async fn run(collection: &Collection, set: &Set, model: &str, cases: &mut Cases) -> anyhow::Result<Verdict> {
    let questions: Vec<&Question> = set.questions.iter().collect();
    let judged: Vec<&Judged> = questions.iter().map(|q| &q.judged).collect();
    let legs = |query: fn(&str) -> Query| {
        let clients = cases.clients;
        let questions = &questions;
        async move {
            let asked = ask_all(collection, questions, clients, |t| {
                query(t).limit(LEG_LIMIT).without_payload()
            })
            .await?;
            lists(&asked.answers)
        }
    };
    let dense = legs(|t| Query::nearest_text(t)).await?;
    let measure = |name: String, graded: &[_]| (name, METRICS.map(|metric| metric.mean(graded)));
    let mut shown = vec![measure(format!("dense/{model}"), &alone(&dense, &judged))];
    let mut results = Vec::new();
    for fields in TEXT_FIELDS {
        let asked = ask_all(collection, &questions, cases.clients, |t| {
            Query::text(t)
                .fields(fields.iter().copied())
                .limit(LEG_LIMIT)
                .without_payload()
        })
        .await?;
        let bm25 = lists(&asked.answers)?;
        let fields_name = fields.join("+");
        shown.push(measure(format!("bm25 {fields_name}"), &alone(&bm25, &judged)));
        if fields == TEXT_FIELDS[0] {
            for setting in [Setting::Rrf { k: 60.0, dense: 0.3 }, Setting::Weighted { dense: 0.4 }] {
                compare(collection, &questions, cases.clients, setting, &dense, &bm25).await?;
            }
        }
        for tried in grid(&dense, &bm25, &judged, RECALL_10, 10) {
            results.push(measure(format!("{} {fields_name}", tried.setting.name()), &tried.lists));
        }
    }
    results.sort_by(|(_, a), (_, b)| b[0].total_cmp(&a[0]).then(b[1].total_cmp(&a[1])));
    debug_assert!(
        METRICS[0] == RECALL_10 && METRICS[1] == NDCG_10,
        "what settings are sorted by"
    );
    let mut table = Table::new([
        "train setting",
        "recall@10",
        "ndcg@10",
        "mrr@10",
        "recall@1",
        "recall@5",
    ]);
    // The weighted ones with the chosen fields are shown in any case: how flat is the top?
    let weighted = |name: &str| name.starts_with("weighted") && name.ends_with("text+title^0.25");
    let rest = results[SHOWN.min(results.len())..]
        .iter()
        .filter(|(name, _)| weighted(name));
    for (name, values) in shown.iter().chain(results.iter().take(SHOWN)).chain(rest) {
        let mut row = vec![name.clone()];
        row.extend(values.map(|v| format!("{v:.4}")));
        table.row(row);
    }
    table.print();
    for (name, values) in shown.iter().chain(&results) {
        for (metric, value) in METRICS.iter().zip(values) {
            let case = format!("train/fit/{model}/{name}");
            cases.report.record(&case, &metric.to_string(), *value, "ratio")?;
        }
    }
    Ok(Verdict::Held)
}

/// Our fusion and the server's are the same on some questions.
async fn compare(
    collection: &Collection,
    questions: &[&Question],
    clients: usize,
    setting: Setting,
    dense: &[List],
    bm25: &[List],
) -> anyhow::Result<()> {
    let fuse = || match setting {
        Setting::Rrf { k, dense } => Fuse::Rrf {
            k: Some(k),
            weights: vec![dense, 1.0],
        },
        Setting::Weighted { dense } => Fuse::Weighted {
            weights: vec![dense, 1.0],
        },
    };
    let query = |q: &&Question| {
        let legs = [
            Leg::nearest_text(&q.text).limit(LEG_LIMIT),
            Leg::text(&q.text).fields(["text"]).limit(LEG_LIMIT),
        ];
        Query::fused(legs).fuse(fuse()).limit(10).without_payload()
    };
    let some = &questions[..questions.len().min(COMPARED)];
    let queries: Vec<Query> = some.iter().map(query).collect();
    let asked = ask(collection, &queries, clients).await?;
    for (i, answer) in asked.answers.iter().enumerate() {
        let ours: Vec<(&str, f32)> = setting
            .fuse(&dense[i], &bm25[i], 10)
            .into_iter()
            .map(|(hit, score)| (hit.id.as_str(), score))
            .collect();
        let theirs: Vec<(&str, f32)> = answer.hits.iter().map(|h| (h.point.id.as_str(), h.score)).collect();
        let same = ours.len() == theirs.len()
            && ours
                .iter()
                .zip(&theirs)
                .all(|(o, t)| o.0 == t.0 && (o.1 - t.1).abs() < 1e-4);
        ensure!(
            same,
            "{}: question {:?} is fused to {theirs:?} by the server, to {ours:?} here",
            setting.name(),
            some[i].text
        );
    }
    Ok(())
}

/// The lists of a query with one leg, with raw scores: higher is better for cosine and for BM25.
fn lists(answers: &[Answer]) -> anyhow::Result<Vec<List>> {
    let hit = |hit: &cairn_client::Hit| {
        Ok(LegHit {
            id: hit.point.id.clone(),
            judged: hit.point.document.clone().context("a hit of no document")?,
            raw: hit.legs.first().context("a hit without its leg's score")?.raw,
        })
    };
    let list = |answer: &Answer| answer.hits.iter().map(hit).collect();
    answers.iter().map(list).collect()
}
