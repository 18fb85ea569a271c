//! Which settings the default hybrid should have: a grid over fusion, weights and text fields, on SQuAD train.
//!
//! Each leg is asked once, for its best hundred; lists are then fused here by the engine's formula (`engine/src/query/fuse.rs`), which is
//! first checked against the server's own fusion. The best setting has the highest recall@10, then nDCG@10.

use std::collections::BTreeMap;

use anyhow::{Context, ensure};
use cairn_client::{Answer, Collection, Fuse, Leg, Query};

use super::{Question, ask_all};
use crate::measure::{Quality, ask};
use crate::report::{Report, Table, Verdict};

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
const RRF_K: [f32; 8] = [1.0, 2.0, 5.0, 10.0, 20.0, 40.0, 60.0, 100.0];
const DENSE_WEIGHTS: [f32; 12] = [0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.85, 1.0];

/// One leg's list for one question: document and raw score, best first.
type List = Vec<(u32, f32)>;

#[derive(Clone, Copy)]
enum How {
    Rrf { k: f32, dense: f32 },
    Weighted { dense: f32 },
}

impl How {
    fn name(self) -> String {
        match self {
            Self::Rrf { k, dense } => format!("rrf k={k} dense={dense}"),
            Self::Weighted { dense } => format!("weighted dense={dense}"),
        }
    }
    /// As the server is asked for it; BM25 has weight 1.
    fn fuse(self) -> Fuse {
        match self {
            Self::Rrf { k, dense } => Fuse::Rrf {
                k: Some(k),
                weights: vec![dense, 1.0],
            },
            Self::Weighted { dense } => Fuse::Weighted {
                weights: vec![dense, 1.0],
            },
        }
    }
    fn all() -> Vec<Self> {
        let rrf = RRF_K
            .into_iter()
            .flat_map(|k| DENSE_WEIGHTS.map(|dense| Self::Rrf { k, dense }));
        rrf.chain(DENSE_WEIGHTS.map(|dense| Self::Weighted { dense })).collect()
    }
}

pub(super) async fn run(
    collection: &Collection,
    questions: &[Question],
    clients: usize,
    report: &mut Report,
) -> anyhow::Result<Verdict> {
    let mut ids = Ids::default();
    let relevant: Vec<Vec<u32>> = questions
        .iter()
        .map(|q| q.relevant.iter().map(|id| ids.number(id)).collect())
        .collect();
    let dense = ask_all(collection, questions, clients, |t| {
        Query::nearest_text(t).limit(LEG_LIMIT)
    })
    .await?;
    let dense = lists(&dense.answers, &mut ids)?;

    let mut results: Vec<(String, Quality)> = vec![("dense".to_owned(), quality(&dense, &relevant))];
    for fields in TEXT_FIELDS {
        let bm25 = ask_all(collection, questions, clients, |t| {
            Query::text(t).fields(fields.iter().copied()).limit(LEG_LIMIT)
        })
        .await?;
        let bm25 = lists(&bm25.answers, &mut ids)?;
        let fields_name = fields.join("+");
        results.push((format!("bm25 {fields_name}"), quality(&bm25, &relevant)));
        if fields == TEXT_FIELDS[0] {
            for how in [How::Rrf { k: 60.0, dense: 0.3 }, How::Weighted { dense: 0.4 }] {
                compare(collection, questions, clients, how, &dense, &bm25, &mut ids).await?;
            }
        }
        for how in How::all() {
            let fused: Vec<List> = dense.iter().zip(&bm25).map(|(d, b)| fuse(how, d, b, &ids)).collect();
            results.push((format!("{} {fields_name}", how.name()), quality(&fused, &relevant)));
        }
    }

    let legs: Vec<(String, Quality)> = results
        .iter()
        .filter(|(n, _)| n.starts_with("dense") || n.starts_with("bm25"))
        .cloned()
        .collect();
    results.sort_by(|(_, a), (_, b)| {
        b.recall_10
            .total_cmp(&a.recall_10)
            .then(b.ndcg_10.total_cmp(&a.ndcg_10))
    });
    let mut table = Table::new([
        "train setting",
        "recall@1",
        "recall@5",
        "recall@10",
        "mrr@10",
        "ndcg@10",
    ]);
    for (name, quality) in legs.iter().chain(results.iter().take(SHOWN)) {
        let mut row = vec![name.clone()];
        row.extend(quality.named().map(|(_, v)| format!("{v:.4}")));
        table.row(row);
    }
    table.print();
    for (name, quality) in &results {
        for (metric, value) in quality.named() {
            report.record(&format!("train/fit/{name}"), metric, value, "ratio")?;
        }
    }
    Ok(Verdict::Held)
}

/// The engine's formula on two lists; the best ten.
fn fuse(how: How, dense: &List, bm25: &List, ids: &Ids) -> List {
    let (dense_weight, best) = match how {
        How::Rrf { k, dense } => (dense, dense / (k + 1.0) + 1.0 / (k + 1.0)),
        How::Weighted { dense } => (dense, dense + 1.0),
    };
    let mut joined: BTreeMap<u32, f32> = BTreeMap::new();
    for (list, weight) in [(dense, dense_weight), (bm25, 1.0)] {
        let (low, high) = list.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(l, h), (_, s)| {
            (l.min(*s), h.max(*s))
        });
        for (i, (document, raw)) in list.iter().enumerate() {
            *joined.entry(*document).or_default() += weight
                * match how {
                    How::Rrf { k, .. } => 1.0 / (k + (i + 1) as f32),
                    How::Weighted { .. } if high > low => (raw - low) / (high - low),
                    How::Weighted { .. } => 1.0,
                };
        }
    }
    let mut fused: List = joined
        .into_iter()
        .map(|(document, sum)| (document, (sum / best).clamp(0.0, 1.0)))
        .collect();
    fused.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| ids.name(a.0).cmp(ids.name(b.0))));
    fused.truncate(10);
    fused
}

/// Our fusion and the server's are the same on some questions.
async fn compare(
    collection: &Collection,
    questions: &[Question],
    clients: usize,
    how: How,
    dense: &[List],
    bm25: &[List],
    ids: &mut Ids,
) -> anyhow::Result<()> {
    let query = |q: &Question| {
        let legs = [
            Leg::nearest_text(&q.text).limit(LEG_LIMIT),
            Leg::text(&q.text).fields(["text"]).limit(LEG_LIMIT),
        ];
        Query::fused(legs).fuse(how.fuse()).limit(10).without_payload()
    };
    let some = &questions[..questions.len().min(COMPARED)];
    let queries: Vec<Query> = some.iter().map(query).collect();
    let asked = ask(collection, &queries, clients).await?;
    for (i, answer) in asked.answers.iter().enumerate() {
        let ours = fuse(how, &dense[i], &bm25[i], ids);
        let theirs: List = fused_list(answer, ids)?;
        let same = ours.len() == theirs.len()
            && ours
                .iter()
                .zip(&theirs)
                .all(|(o, t)| o.0 == t.0 && (o.1 - t.1).abs() < 1e-4);
        ensure!(
            same,
            "{}: question {:?} is fused to {theirs:?} by the server, to {ours:?} here",
            how.name(),
            some[i].text
        );
    }
    Ok(())
}

fn fused_list(answer: &Answer, ids: &mut Ids) -> anyhow::Result<List> {
    let hit = |h: &cairn_client::Hit| {
        Ok((
            ids.number(h.point.document.as_deref().context("a hit of no document")?),
            h.score,
        ))
    };
    answer.hits.iter().map(hit).collect()
}

/// The lists of a query with one leg, with raw scores: higher is better for cosine and for BM25.
fn lists(answers: &[Answer], ids: &mut Ids) -> anyhow::Result<Vec<List>> {
    let mut all = Vec::with_capacity(answers.len());
    for answer in answers {
        let mut list = Vec::with_capacity(answer.hits.len());
        for hit in &answer.hits {
            let document = hit.point.document.as_deref().context("a hit of no document")?;
            let raw = hit.legs.first().context("a hit without its leg's score")?.raw;
            list.push((ids.number(document), raw));
        }
        all.push(list);
    }
    Ok(all)
}

fn quality(found: &[List], relevant: &[Vec<u32>]) -> Quality {
    let found: Vec<Vec<u32>> = found
        .iter()
        .map(|l| l.iter().take(10).map(|(d, _)| *d).collect())
        .collect();
    Quality::of(found.iter().zip(relevant).map(|(f, r)| (f.as_slice(), r.as_slice())))
}

/// Document ids as numbers.
#[derive(Default)]
struct Ids {
    numbers: BTreeMap<String, u32>,
    names: Vec<String>,
}

impl Ids {
    fn number(&mut self, name: &str) -> u32 {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        let number = u32::try_from(self.names.len()).expect("SQuAD has a few thousand documents");
        self.numbers.insert(name.to_owned(), number);
        self.names.push(name.to_owned());
        number
    }
    fn name(&self, number: u32) -> &str {
        &self.names[number as usize]
    }
}
