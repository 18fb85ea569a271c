//! `cairn eval --fit`: chooses how the two legs are fused on some questions, as a query that can be measured on others.

use cairn_client::{Field, Schema};
use cairn_server::eval::fit::{self, List, Setting, Tried};
use cairn_server::eval::{Judged, Metric};
use serde::Serialize;
use serde_json::{Value, json};
use xxhash_rust::xxh3::xxh3_64;

use super::ask::{Asker, Interrupted};
use super::{Case, Mode};
use crate::cli::output;

/// Name of the mode that was chosen.
pub(super) const NAME: &str = "fitted";
/// Candidates of a leg, as the server's default.
const LEG_LIMIT: usize = 100;

/// What was chosen, and what it reached where it was chosen.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Fitted {
    /// Questions that it was chosen on.
    pub(super) questions: usize,
    /// Settings that were tried.
    pub(super) tried: usize,
    /// What it is best in.
    pub(super) by: String,
    /// In words.
    pub(super) setting: String,
    /// Its value there; on other questions it will be lower.
    pub(super) value: f64,
    /// That of each leg alone.
    pub(super) dense: f64,
    /// BM25 with the chosen fields.
    pub(super) bm25: f64,
    /// The query, with `{query}` where the question goes.
    pub(super) query: Value,
}

impl Fitted {
    pub(super) fn mode(&self) -> Mode {
        Mode {
            name: NAME.to_owned(),
            template: self.query.clone(),
        }
    }
}

/// Half of the questions, by the hash of their words: the same half every time, and a question that is asked twice is in
/// one of them only.
pub(super) fn split_off(cases: &mut Vec<Case>) -> Vec<Case> {
    let all = std::mem::take(cases);
    let (chosen_on, rest) = all
        .into_iter()
        .partition(|case| xxh3_64(case.question.text.trim().as_bytes()).is_multiple_of(2));
    *cases = rest;
    chosen_on
}

/// Text with more or less of the title, if there are both; else all text fields.
pub(super) fn default_fields(schema: &Schema) -> Vec<Vec<String>> {
    let has = |name: &str| matches!(schema.fields.get(name), Some(Field::Text { .. }));
    if !(has("text") && has("title")) {
        return vec![Vec::new()];
    }
    let lists: [&[&str]; 4] = [
        &["text"],
        &["text", "title^0.25"],
        &["text", "title^0.5"],
        &["text", "title"],
    ];
    lists
        .into_iter()
        .map(|list| list.iter().map(|f| (*f).to_owned()).collect())
        .collect()
}

/// Asks each leg once and tries every setting on the lists.
pub(super) async fn run(
    asker: &Asker,
    cases: &[Case],
    candidates: &[Vec<String>],
    by: Metric,
    using: Option<&str>,
    hits: usize,
) -> Result<Fitted, Interrupted> {
    let mut nearest = json!({"text": "{query}"});
    if let Some(using) = using {
        nearest["using"] = json!(using);
    }
    let limit = LEG_LIMIT.max(hits);
    let leg = |name: &str, template: Value| Mode {
        name: format!("fit: {name}"),
        template,
    };
    let judged: Vec<&Judged> = cases.iter().map(|case| &case.judged).collect();
    let asked = asker
        .ask(&leg("dense", json!({"nearest": nearest})), cases, limit)
        .await?;
    let dense: Vec<List> = asked.lists.into_iter().map(higher_is_better).collect();
    let dense_alone = by.mean(&fit::alone(&dense, &judged));

    let mut best: Option<(Tried, &Vec<String>, f64)> = None;
    for fields in candidates {
        let name = format!("bm25 {}", fields.join("+"));
        let text = json!({"text": {"query": "{query}", "fields": fields}});
        let bm25 = asker.ask(&leg(&name, text), cases, limit).await?.lists;
        let Some(tried) = fit::grid(&dense, &bm25, &judged, by, hits).into_iter().next() else {
            continue;
        };
        let better = |(best, _, _): &(Tried, &Vec<String>, f64)| (tried.value, tried.ndcg) > (best.value, best.ndcg);
        if best.as_ref().is_none_or(better) {
            let alone = by.mean(&fit::alone(&bm25, &judged));
            best = Some((tried, fields, alone));
        }
    }
    let Some((tried, fields, bm25_alone)) = best else {
        let nothing = crate::cli::Failure::usage("there is nothing to try: --fit-fields is empty");
        return Err(Interrupted::Failed(nothing));
    };
    let fuse = match tried.setting {
        Setting::Rrf { k, dense } => json!({"rrf": {"k": k, "weights": [dense, 1.0]}}),
        Setting::Weighted { dense } => json!({"weighted": {"weights": [dense, 1.0]}}),
    };
    let fitted = Fitted {
        questions: cases.len(),
        tried: Setting::all().len() * candidates.len(),
        by: by.to_string(),
        setting: format!("{}, fields {}", tried.setting.name(), shown(fields)),
        value: tried.value,
        dense: dense_alone,
        bm25: bm25_alone,
        query: json!({
            "prefetch": [
                {"name": "dense", "nearest": nearest, "limit": limit},
                {"name": "bm25", "text": {"query": "{query}", "fields": fields}, "limit": limit},
            ],
            "fuse": fuse,
        }),
    };
    output::note(format!(
        "fitted on {} questions: {}, {} {:.4} (dense {:.4}, bm25 {:.4})",
        fitted.questions, fitted.setting, fitted.by, fitted.value, fitted.dense, fitted.bm25
    ));
    Ok(fitted)
}

fn shown(fields: &[String]) -> String {
    if fields.is_empty() {
        "all".to_owned()
    } else {
        fields.join("+")
    }
}

/// Distances become scores: the engine fuses those of which more is better.
fn higher_is_better(mut list: List) -> List {
    let ends = list.first().zip(list.last());
    if ends.is_some_and(|(first, last)| first.raw < last.raw) {
        list.iter_mut().for_each(|hit| hit.raw = -hit.raw);
    }
    list
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use cairn_server::eval::fit::LegHit;
    use cairn_server::eval::read::Question;

    use super::*;

    #[test]
    fn the_split_is_the_same_every_time_and_about_half() {
        let cases = || -> Vec<Case> {
            let case = |i: u32| Case {
                question: Question {
                    id: format!("q{i}"),
                    // Every question twice.
                    text: if i < 500 {
                        format!("question {i}?")
                    } else {
                        format!(" question {}?\n", i - 500)
                    },
                },
                judged: Judged::default(),
            };
            (0..1_000).map(case).collect()
        };
        let (mut rest, mut again) = (cases(), cases());
        let chosen = split_off(&mut rest);
        assert_eq!(chosen.len() + rest.len(), 1_000);
        assert!((400..600).contains(&chosen.len()));
        let ids = |cases: &[Case]| cases.iter().map(|c| c.question.id.clone()).collect::<Vec<_>>();
        assert_eq!(ids(&chosen), ids(&split_off(&mut again)));
        assert_eq!(ids(&rest), ids(&again));
        let words = |cases: &[Case]| -> HashSet<String> {
            let words = cases.iter().map(|c| c.question.text.trim().to_owned());
            words.collect()
        };
        assert!(words(&chosen).is_disjoint(&words(&rest)));
    }

    #[test]
    fn distances_are_turned_and_scores_are_not() {
        let list = |raws: [f32; 2]| -> List {
            let hit = |raw| LegHit {
                id: String::new(),
                judged: String::new(),
                raw,
            };
            raws.into_iter().map(hit).collect()
        };
        assert_eq!(higher_is_better(list([0.9, 0.2])), list([0.9, 0.2]));
        assert_eq!(higher_is_better(list([0.2, 0.9])), list([-0.2, -0.9]));
    }
}
