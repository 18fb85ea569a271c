//! The question sets: SQuAD dev and train, XQuAD in eleven languages, CMRC 2018. Paragraphs, questions, and which
//! paragraph answers which question.

use std::collections::BTreeSet;

use cairn_server::eval::Judged;
use serde::Deserialize;

use crate::{data, place};

/// The languages of XQuAD. `en` is a part of SQuAD dev.
pub(super) const XQUAD: [&str; 11] = ["ar", "de", "el", "en", "es", "hi", "ru", "th", "tr", "vi", "zh"];

/// Paragraphs and questions.
pub(super) struct Set {
    /// What its cases begin with; empty for SQuAD dev.
    pub(super) prefix: String,
    pub(super) paragraphs: Vec<Paragraph>,
    pub(super) questions: Vec<Question>,
    /// No question was left out.
    pub(super) whole: bool,
}

#[derive(Deserialize)]
pub(super) struct Paragraph {
    pub(super) id: String,
    #[serde(default)]
    pub(super) title: String,
    pub(super) text: String,
}

/// A question and the paragraphs that answer it.
pub(super) struct Question {
    pub(super) text: String,
    pub(super) judged: Judged,
}

#[derive(Deserialize)]
struct Line {
    text: String,
    relevant: Vec<String>,
}

impl Set {
    /// `Err` is the reason to skip it.
    fn read(prefix: &str, corpus: &str, queries: &str, limit: Option<usize>) -> Result<anyhow::Result<Self>, String> {
        let (corpus, queries) = (place::data(corpus)?, place::data(queries)?);
        let read = || -> anyhow::Result<Self> {
            let lines: Vec<Line> = data::json_lines(&queries)?;
            let all = lines.len();
            let question = |line: Line| Question {
                text: line.text,
                judged: Judged::new(line.relevant.into_iter().map(|id| (id, 1))),
            };
            let questions: Vec<Question> = lines.into_iter().take(limit.unwrap_or(all)).map(question).collect();
            Ok(Self {
                prefix: prefix.to_owned(),
                paragraphs: data::json_lines(&corpus)?,
                whole: questions.len() == all,
                questions,
            })
        };
        Ok(read())
    }

    /// 2,067 paragraphs, 10,530 questions: what is reported.
    pub(super) fn dev(limit: Option<usize>) -> Result<anyhow::Result<Self>, String> {
        Self::read(
            "",
            "squad_retrieval/dev_corpus.jsonl",
            "squad_retrieval/dev_queries.jsonl",
            limit,
        )
    }
    /// 18,891 paragraphs, 5,000 questions: what settings are chosen on.
    pub(super) fn train(limit: Option<usize>) -> Result<anyhow::Result<Self>, String> {
        Self::read(
            "train/",
            "squad_retrieval/train_corpus.jsonl.gz",
            "squad_retrieval/train_queries_5k.jsonl",
            limit,
        )
    }
    /// Every `every`th article with its paragraphs and the questions about them: a smaller haystack of the same kind.
    pub(super) fn part(mut self, every: usize) -> Self {
        let mut articles: Vec<&str> = self.paragraphs.iter().map(|p| p.title.as_str()).collect();
        articles.dedup();
        let kept: BTreeSet<String> = articles.into_iter().step_by(every).map(str::to_owned).collect();
        self.paragraphs.retain(|p| kept.contains(&p.title));
        let (paragraphs, before) = (&self.paragraphs, self.questions.len());
        let ids: BTreeSet<&str> = paragraphs.iter().map(|p| p.id.as_str()).collect();
        self.questions.retain(|q| ids.iter().any(|id| q.judged.grade(id) > 0));
        self.whole &= self.questions.len() == before;
        self
    }
    /// 240 paragraphs and about 1,185 questions in one language.
    pub(super) fn xquad(language: &str, limit: Option<usize>) -> Result<anyhow::Result<Self>, String> {
        Self::read(
            &format!("xquad/{language}/"),
            &format!("xquad/{language}/corpus.jsonl"),
            &format!("xquad/{language}/queries.jsonl"),
            limit,
        )
    }
    /// 848 paragraphs and 3,218 questions in Chinese.
    pub(super) fn cmrc(limit: Option<usize>) -> Result<anyhow::Result<Self>, String> {
        Self::read(
            "cmrc2018_zh/",
            "cmrc2018_zh/corpus.jsonl",
            "cmrc2018_zh/queries.jsonl",
            limit,
        )
    }

    /// What a case of this set is called.
    pub(super) fn case(&self, name: &str) -> String {
        let suffix = if self.whole {
            String::new()
        } else {
            format!("/first-{}", self.questions.len())
        };
        format!("{}{name}{suffix}", self.prefix)
    }
}
