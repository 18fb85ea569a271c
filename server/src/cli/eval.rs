//! `cairn eval`: how good is retrieval on one's own questions? Asks a running server every question in several modes and
//! compares the answers with judgments.
//!
//! A mode is a query of the REST API with `{query}` where the question goes, so that what was measured can be sent with
//! curl, and any query that the API takes can be measured. The arithmetic is `cairn_server::eval`. Modes are asked one
//! after the other, so that their latencies do not mix.

mod ask;
mod fit;
mod report;

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cairn_server::eval::Judged;
use cairn_server::eval::read::{self, Fields, Judgments, Question};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use self::ask::{Asker, Interrupted};
use self::report::{Report, Settings};
use super::{Connection, Failure, output};

/// Hits of a question judged by document, for each hit wanted: chunks of one document count once.
const CHUNKS_PER_DOCUMENT: usize = 4;
/// The most hits a query may ask for.
const HITS_MAX: usize = 10_000;

const EXAMPLES: &str = "\
Examples:
  cairn eval -c demo --queries demo/eval/questions.jsonl
  cairn eval -c docs --queries questions.jsonl --judgments qrels.txt --plot eval.svg
  cairn eval -c docs --queries questions.jsonl --mode bm25,hybrid,hybrid+rerank -k 1,5,20
  cairn eval -c docs --queries questions.jsonl --mode hybrid \\
      --query 'titles={\"text\": {\"query\": \"{query}\", \"fields\": [\"title^3\", \"text\"]}}'
  cairn eval -c docs --queries questions.jsonl --fit --json | jq .fit

Questions: JSON lines with \"id\" and \"text\", and if wanted \"relevant\": a list of
document ids, or an object of ids and grades. Judgments in a file of their own: JSON
lines with \"id\" and \"relevant\", or TREC qrels (`question 0 document grade`).
Questions without anything relevant are left out, and counted.

Intervals are 95 % bootstrap intervals over the questions. A difference that is no
chance is marked with *: its paired interval does not hold zero.

--fit tries fusion settings (weights, reciprocal ranks, text fields) on one half of
the questions and measures everything, the best of them included, on the other half.

Exit codes: 0 measured, 1 failed or stopped, 2 wrong usage, 3 server unreachable.";

/// `cairn eval`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Eval {
    /// The collection.
    #[arg(long, short)]
    collection: String,
    /// Questions, as JSON lines.
    #[arg(long, value_name = "FILE")]
    queries: PathBuf,
    /// Judgments, as JSON lines or TREC qrels; those beside the questions hold as well.
    #[arg(long, value_name = "FILE")]
    judgments: Option<PathBuf>,
    /// Modes to measure.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [ModeArg::Dense, ModeArg::Bm25, ModeArg::Hybrid])]
    mode: Vec<ModeArg>,
    /// One more mode: a query of the REST API in which `{query}` stands for the question; `@FILE` reads it from a file.
    #[arg(long = "query", value_name = "NAME=JSON", value_parser = template)]
    templates: Vec<Mode>,
    /// Cuts of recall and precision; nDCG and MRR are taken at the largest.
    #[arg(short = 'k', long = "cuts", value_delimiter = ',', default_values_t = [1, 5, 10], value_parser = cut)]
    cuts: Vec<usize>,
    /// What the judgments name.
    #[arg(long, value_enum, default_value_t = By::Document)]
    by: By,
    /// Hits asked for. Default: the largest cut, four times that if judged by document.
    #[arg(long)]
    hits: Option<usize>,
    /// Vector of the dense leg, where a collection has several.
    #[arg(long, value_name = "VECTOR")]
    using: Option<String>,
    /// Reranker of hybrid+rerank, where a server has several.
    #[arg(long, value_name = "NAME")]
    reranker: Option<String>,
    /// Time that hybrid+rerank may take for reranking, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 10_000)]
    rerank_budget_ms: u32,
    /// The mode that the others are compared with. Default: the first.
    #[arg(long, value_name = "MODE")]
    baseline: Option<String>,
    /// Only the first N questions.
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Questions asked at the same time.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    parallel: u16,
    /// Resamples of an interval.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(100..=100_000))]
    resamples: u32,
    /// Seed of the resamples: the same seed gives the same intervals.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Choose a fusion on one part of the questions; report on the other.
    #[arg(long)]
    fit: bool,
    /// Choose on these questions instead, and report on all of --queries.
    #[arg(long, value_name = "FILE", requires = "fit")]
    fit_queries: Option<PathBuf>,
    /// Text fields to try, e.g. `text,title^0.5`; may be said several times. Default: text with more or less of title.
    #[arg(long, value_name = "FIELDS", requires = "fit")]
    fit_fields: Vec<String>,
    /// What the best setting is best in, at the largest cut; nDCG decides between equals.
    #[arg(long, value_enum, default_value_t = FitBy::Recall, requires = "fit")]
    fit_by: FitBy,
    /// Names of the fields of JSON lines.
    #[arg(long, value_name = "FIELD", default_value = "id")]
    id_field: String,
    /// The field with the question's words.
    #[arg(long, value_name = "FIELD", default_value = "text")]
    text_field: String,
    /// The field with what is relevant.
    #[arg(long, value_name = "FIELD", default_value = "relevant")]
    relevant_field: String,
    /// Draw the modes side by side, as SVG, or as PNG if the name ends so.
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

/// Modes that have a name.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ModeArg {
    /// Vectors only.
    Dense,
    /// BM25 only, over all text fields.
    Bm25,
    /// Sparse vectors only.
    Sparse,
    /// The server's default: vectors and BM25, fused.
    Hybrid,
    /// The same, reranked.
    #[value(name = "hybrid+rerank")]
    HybridRerank,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum By {
    /// Documents; of several chunks of one the best counts.
    Document,
    /// Chunks, or points that belong to no document.
    Chunk,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FitBy {
    Recall,
    Ndcg,
    Mrr,
}

/// A query with a hole for the question.
#[derive(Debug, Clone, PartialEq)]
struct Mode {
    name: String,
    template: Value,
}

/// A question that measures something.
struct Case {
    question: Question,
    judged: Judged,
}

impl Eval {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let fields = Fields {
            id: self.id_field.clone(),
            text: self.text_field.clone(),
            relevant: self.relevant_field.clone(),
        };
        let judgments = match &self.judgments {
            Some(path) => read::judgments(&read_file(path)?, &fields).map_err(|e| wrong(path, &e))?,
            None => Judgments::new(),
        };
        let (mut cases, unjudged) = cases(&self.queries, &judgments, &fields, self.limit)?;
        let mut modes = self.modes()?;
        let asker = Asker {
            url: self.connection.url.clone(),
            timeout: Duration::from_millis(self.connection.timeout_ms),
            collection: self.collection.clone(),
            by: self.by,
            parallel: self.parallel.into(),
        };
        let hits = self.hits()?;

        let mut fitted = None;
        if self.fit {
            let chosen_on = match &self.fit_queries {
                Some(path) => {
                    let chosen_on = self::cases(path, &judgments, &fields, None)?.0;
                    match shared(&chosen_on, &cases) {
                        0 => chosen_on,
                        n => {
                            return Err(Failure::usage(format!(
                                "{n} questions are in --queries and in --fit-queries: what is chosen on a question must not be \
                                 reported on it"
                            )));
                        }
                    }
                }
                None => fit::split_off(&mut cases),
            };
            if chosen_on.is_empty() || cases.is_empty() {
                return Err(Failure::new(
                    "there are too few questions to choose on some and report on others",
                ));
            }
            let candidates = self.fit_candidates().await?;
            let outcome = Box::pin(fit::run(
                &asker,
                &chosen_on,
                &candidates,
                self.fit_metric(),
                self.using.as_deref(),
                hits,
            ));
            let outcome = outcome.await.map_err(Interrupted::failure)?;
            modes.push(outcome.mode());
            fitted = Some(outcome);
        }

        let mut measured = Vec::new();
        let mut stopped = None;
        for mode in &modes {
            match Box::pin(asker.ask(mode, &cases, hits)).await {
                Ok(asked) => measured.push(asked),
                Err(Interrupted::Stopped) if !measured.is_empty() => {
                    stopped = Some(format!(
                        "stopped: {} of {} modes were measured",
                        measured.len(),
                        modes.len()
                    ));
                    break;
                }
                Err(interrupted) => return Err(interrupted.failure()),
            }
        }
        let baseline = baseline(self.baseline.as_deref(), &modes, measured.len());
        if let (Some(said), None) = (&mut stopped, baseline) {
            said.push_str(", and not the one to compare with");
        }
        let report = Report::new(
            Settings {
                collection: self.collection.clone(),
                by: self.by,
                cuts: self.cuts.clone(),
                resamples: self.resamples as usize,
                seed: self.seed,
                unjudged,
                baseline,
            },
            &cases,
            measured,
            fitted.as_ref(),
        );
        if let Some(path) = &self.plot {
            let png = path
                .extension()
                .is_some_and(|suffix| suffix.eq_ignore_ascii_case("png"));
            let plot = if png { report.png() } else { report.svg() };
            let plot = plot.map_err(|e| Failure::new(format!("the plot: {e}")))?;
            fs::write(path, plot).map_err(|e| Failure::new(format!("{}: {e}", path.display())))?;
            output::note(format!("plot: {}", path.display()));
        }
        if self.json {
            output::json(&report.json())?;
        } else {
            report.show();
        }
        stopped.map_or(Ok(()), |why| Err(Failure::new(why)))
    }

    /// Everything that is asked, by name; names are unique.
    fn modes(&self) -> Result<Vec<Mode>, Failure> {
        // Chosen later, and measured with the others.
        let fitted = self.fit.then_some(fit::NAME);
        let mut modes: Vec<Mode> = Vec::new();
        let named = self.mode.iter().map(|mode| self.named(*mode));
        for mode in named.chain(self.templates.iter().cloned()) {
            if modes.iter().any(|m| m.name == mode.name) || fitted.is_some_and(|name| name == mode.name) {
                return Err(Failure::usage(format!("there are two modes {:?}", mode.name)));
            }
            modes.push(mode);
        }
        let names: Vec<&str> = modes.iter().map(|m| m.name.as_str()).chain(fitted).collect();
        if let Some(name) = &self.baseline
            && !names.contains(&name.as_str())
        {
            return Err(Failure::usage(format!(
                "the baseline must be one of the modes {}, got {name:?}",
                names.join(", ")
            )));
        }
        Ok(modes)
    }

    fn named(&self, mode: ModeArg) -> Mode {
        let mut vector = json!({"text": "{query}"});
        if let Some(using) = &self.using {
            vector["using"] = json!(using);
        }
        let mut rerank = json!({"budget_ms": self.rerank_budget_ms});
        if let Some(model) = &self.reranker {
            rerank["model"] = json!(model);
        }
        let (name, template) = match mode {
            ModeArg::Dense => ("dense", json!({"nearest": vector})),
            ModeArg::Bm25 => ("bm25", json!({"text": {"query": "{query}"}})),
            ModeArg::Sparse => ("sparse", json!({"sparse": {"text": "{query}"}})),
            ModeArg::Hybrid => ("hybrid", json!({"hybrid": vector})),
            ModeArg::HybridRerank => (
                "hybrid+rerank",
                json!({"hybrid": vector, "ranking": {"rerank": rerank}}),
            ),
        };
        Mode {
            name: name.to_owned(),
            template,
        }
    }

    fn hits(&self) -> Result<usize, Failure> {
        let most = self.cuts.iter().copied().max().unwrap_or(1);
        let wanted = match (self.hits, self.by) {
            (Some(hits), _) => hits,
            (None, By::Chunk) => most,
            (None, By::Document) => (most * CHUNKS_PER_DOCUMENT).min(HITS_MAX),
        };
        if (most..=HITS_MAX).contains(&wanted) {
            return Ok(wanted);
        }
        Err(Failure::usage(format!(
            "--hits must be {most} (the largest cut) to {HITS_MAX}, got {wanted}"
        )))
    }

    fn fit_metric(&self) -> cairn_server::eval::Metric {
        use cairn_server::eval::{Measure, Metric};
        let measure = match self.fit_by {
            FitBy::Recall => Measure::Recall,
            FitBy::Ndcg => Measure::Ndcg,
            FitBy::Mrr => Measure::Mrr,
        };
        Metric::new(measure, self.cuts.iter().copied().max().unwrap_or(1))
    }

    /// Lists of text fields to try.
    async fn fit_candidates(&self) -> Result<Vec<Vec<String>>, Failure> {
        let said = self
            .fit_fields
            .iter()
            .map(|list| list.split(',').map(str::to_owned).collect());
        let said: Vec<Vec<String>> = said.collect();
        if !said.is_empty() {
            return Ok(said);
        }
        let collection = self.connection.client().await?.get_collection(&self.collection).await?;
        Ok(fit::default_fields(&collection.schema))
    }
}

/// Place of the mode that the others are compared with, if it is among the first so many, which were measured.
fn baseline(name: Option<&str>, modes: &[Mode], measured: usize) -> Option<usize> {
    let is_it = |mode: &Mode| name.is_none_or(|name| mode.name == name);
    modes.iter().take(measured).position(is_it)
}

/// Questions with something relevant, and how many had nothing.
fn cases(
    path: &Path,
    judgments: &Judgments,
    fields: &Fields,
    limit: Option<usize>,
) -> Result<(Vec<Case>, usize), Failure> {
    let (mut questions, mut beside) = read::questions(&read_file(path)?, fields).map_err(|e| wrong(path, &e))?;
    questions.truncate(limit.unwrap_or(usize::MAX));
    let all = questions.len();
    let case = |question: Question| {
        let mut judged = beside.remove(&question.id).unwrap_or_default();
        judged.merge(judgments.get(&question.id));
        (!judged.is_empty()).then_some(Case { question, judged })
    };
    let cases: Vec<Case> = questions.into_iter().filter_map(case).collect();
    if cases.is_empty() {
        let file = path.display();
        return Err(Failure::usage(format!(
            "none of the {all} questions of {file} has anything relevant: the judgments must name the same ids"
        )));
    }
    let unjudged = all - cases.len();
    Ok((cases, unjudged))
}

/// How many questions of `some` are asked in `others`, too. Ids of two files may mean different questions; words do not.
fn shared(some: &[Case], others: &[Case]) -> usize {
    let words: HashSet<&str> = others.iter().map(|case| case.question.text.trim()).collect();
    some.iter()
        .filter(|case| words.contains(case.question.text.trim()))
        .count()
}

fn read_file(path: &Path) -> Result<String, Failure> {
    fs::read_to_string(path).map_err(|e| Failure::usage(format!("{}: {e}", path.display())))
}

fn wrong(path: &Path, why: &str) -> Failure {
    Failure::usage(format!("{}: {why}", path.display()))
}

fn cut(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(k) if (1..=1_000).contains(&k) => Ok(k),
        _ => Err("a cut is a whole number of 1 to 1,000".to_owned()),
    }
}

fn template(text: &str) -> Result<Mode, String> {
    let (name, query) = text
        .split_once('=')
        .filter(|(name, _)| !name.is_empty())
        .ok_or("write it like NAME=JSON")?;
    let query = match query.strip_prefix('@') {
        Some(path) => fs::read_to_string(path).map_err(|e| format!("{path}: {e}"))?,
        None => query.to_owned(),
    };
    let template: Value = serde_json::from_str(&query).map_err(|e| format!("the query is no JSON: {e}"))?;
    if !template.is_object() {
        return Err("the query must be a JSON object".to_owned());
    }
    if ask::fill(&template, "a") == ask::fill(&template, "b") {
        return Err("the query must hold {query} where the question goes".to_owned());
    }
    Ok(Mode {
        name: name.to_owned(),
        template,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_is_an_object_with_a_hole() {
        let good = template(r#"mine={"text": {"query": "{query}", "fields": ["title^2"]}}"#).unwrap();
        assert_eq!(good.name, "mine");
        for wrong in [
            "{}",
            "x",
            "=1",
            "x={",
            "x=[]",
            r#"x={"text": {"query": "fixed"}}"#,
            "x=@/no/such/file",
        ] {
            assert!(template(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn questions_of_both_files_are_found_by_their_words() {
        let cases = |texts: &[&str]| -> Vec<Case> {
            let question = |text: &&str| Question {
                id: text.len().to_string(),
                text: (*text).to_owned(),
            };
            let case = |text| Case {
                question: question(text),
                judged: Judged::default(),
            };
            texts.iter().map(case).collect()
        };
        assert_eq!(shared(&cases(&["one", "two "]), &cases(&["two", "six"])), 1);
        assert_eq!(shared(&cases(&["one"]), &cases(&["two"])), 0);
    }

    #[test]
    fn the_fitted_mode_may_be_the_baseline_if_there_is_one() {
        use clap::Parser;
        #[derive(Parser)]
        struct Line {
            #[command(flatten)]
            eval: Eval,
        }
        let modes = |more: &[&str]| {
            let line = ["x", "-c", "docs", "--queries", "q.jsonl", "--baseline", "fitted"];
            let line = Line::try_parse_from(line.iter().chain(more).copied()).unwrap();
            line.eval.modes().map_err(|e| e.message)
        };
        assert!(modes(&["--fit"]).is_ok());
        assert!(modes(&[]).unwrap_err().contains("dense, bm25, hybrid, got"));
        let mine = ["--fit", "--query", r#"fitted={"text": {"query": "{query}"}}"#];
        assert!(modes(&mine).unwrap_err().contains("two modes"));
    }

    #[test]
    fn nothing_is_compared_with_a_baseline_that_was_not_measured() {
        let mode = |name: &str| Mode {
            name: name.to_owned(),
            template: json!({}),
        };
        let modes = ["dense", "bm25", "fitted"].map(mode);
        let cases = [Case {
            question: Question {
                id: "1".to_owned(),
                text: "one".to_owned(),
            },
            judged: Judged::default(),
        }];
        // What is compared with what, if so many were measured before somebody said stop.
        let compared = |name: Option<&str>, measured: usize| {
            let asked = |mode: &Mode| ask::Asked {
                mode: mode.clone(),
                lists: vec![Vec::new()],
                latencies: vec![1.0],
                elapsed: Duration::from_secs(1),
                notes: std::collections::BTreeMap::new(),
            };
            let settings = Settings {
                collection: "docs".to_owned(),
                by: By::Document,
                cuts: vec![1],
                resamples: 10,
                seed: 1,
                unjudged: 0,
                baseline: baseline(name, &modes, measured),
            };
            let asked = modes.iter().take(measured).map(asked).collect();
            let report = Report::new(settings, &cases, asked, None);
            let json = serde_json::to_value(report.json()).unwrap();
            let pair = |d: &Value| format!("{} than {}", d["mode"].as_str().unwrap(), d["than"].as_str().unwrap());
            let pairs: Vec<String> = json["differences"].as_array().unwrap().iter().map(pair).collect();
            pairs.join(", ")
        };
        assert_eq!(compared(Some("fitted"), 2), "");
        assert_eq!(compared(Some("fitted"), 3), "dense than fitted, bm25 than fitted");
        assert_eq!(compared(Some("bm25"), 2), "dense than bm25");
        assert_eq!(compared(None, 2), "bm25 than dense");
        assert_eq!(compared(None, 1), "");
    }

    #[test]
    fn cuts_are_bounded() {
        assert_eq!(cut("10"), Ok(10));
        for wrong in ["0", "1001", "-1", "x"] {
            assert!(cut(wrong).is_err());
        }
    }
}
