//! Asking every question in one mode: a bounded number at a time, with progress, until all are answered or Ctrl-C.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cairn_server::eval::fit::LegHit;
use futures::future::try_join_all;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};

use super::super::rest::Rest;
use super::{By, Case, Mode};
use crate::cli::{Failure, output};

/// Asked before the clock runs: the first answers find cold caches and new connections.
const WARM_UP: usize = 20;
/// Where there is no terminal, a line of progress so often.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);
/// The hole in a template.
const HOLE: &str = "{query}";

/// How questions are asked.
pub(super) struct Asker {
    pub(super) url: String,
    pub(super) timeout: Duration,
    pub(super) collection: String,
    pub(super) by: By,
    pub(super) parallel: usize,
}

/// The answers of one mode, in the order of the questions.
pub(super) struct Asked {
    pub(super) mode: Mode,
    /// What was found, best first, as the judgments name it.
    pub(super) lists: Vec<Vec<LegHit>>,
    /// Of each question, in milliseconds, ascending.
    pub(super) latencies: Vec<f64>,
    pub(super) elapsed: Duration,
    /// What the server said beside its answers, and how often.
    pub(super) notes: BTreeMap<String, usize>,
}

/// Why a mode was not measured.
pub(super) enum Interrupted {
    /// Ctrl-C.
    Stopped,
    Failed(Failure),
}

impl Interrupted {
    pub(super) fn failure(self) -> Failure {
        match self {
            Self::Stopped => Failure::new("stopped before anything was measured"),
            Self::Failed(failure) => failure,
        }
    }
}

/// One answer.
struct One {
    place: usize,
    list: Vec<LegHit>,
    notes: Vec<String>,
    took: Duration,
}

impl Asker {
    /// Every question once, after a few for warming up.
    pub(super) async fn ask(&self, mode: &Mode, cases: &[Case], hits: usize) -> Result<Asked, Interrupted> {
        let some = &cases[..cases.len().min(WARM_UP)];
        let all = async {
            self.all(mode, some, hits, None).await?;
            let progress = Progress::new(&mode.name, cases.len());
            let began = Instant::now();
            let answers = self.all(mode, cases, hits, Some(&progress)).await;
            progress.bar.finish_and_clear();
            answers.map(|answers| (answers, began.elapsed()))
        };
        let (mut answers, elapsed) = tokio::select! {
            answered = all => answered.map_err(Interrupted::Failed)?,
            _ = tokio::signal::ctrl_c() => return Err(Interrupted::Stopped),
        };
        answers.sort_by_key(|one| one.place);
        let mut latencies: Vec<f64> = answers.iter().map(|one| one.took.as_secs_f64() * 1e3).collect();
        latencies.sort_by(f64::total_cmp);
        let mut notes = BTreeMap::new();
        for note in answers.iter().flat_map(|one| &one.notes) {
            *notes.entry(note.clone()).or_default() += 1;
        }
        Ok(Asked {
            mode: mode.clone(),
            lists: answers.into_iter().map(|one| one.list).collect(),
            latencies,
            elapsed,
            notes,
        })
    }

    /// From so many connections that each wait for an answer before they ask the next.
    async fn all(
        &self,
        mode: &Mode,
        cases: &[Case],
        hits: usize,
        progress: Option<&Progress>,
    ) -> Result<Vec<One>, Failure> {
        let path = format!("/api/v1/collections/{}/query", self.collection);
        let next = AtomicUsize::new(0);
        let tasks = (0..self.parallel.min(cases.len())).map(|_| async {
            let mut rest = Rest::new(&self.url, self.timeout)?;
            let mut mine = Vec::new();
            loop {
                let place = next.fetch_add(1, Ordering::Relaxed);
                let Some(case) = cases.get(place) else {
                    return Ok::<_, Failure>(mine);
                };
                let request = request(&mode.template, &case.question.text, hits);
                let asked = Instant::now();
                let answer = rest.post(&path, &request).await.map_err(|mut failure| {
                    let id = &case.question.id;
                    failure.message = format!("mode {}, question {id:?}: {}", mode.name, failure.message);
                    failure
                })?;
                mine.push(One {
                    place,
                    took: asked.elapsed(),
                    list: self.list(&answer)?,
                    notes: notes(&answer),
                });
                if let Some(progress) = progress {
                    progress.moved();
                }
            }
        });
        Ok(try_join_all(tasks).await?.into_iter().flatten().collect())
    }

    /// The hits of an answer. What is judged by document and belongs to none is its own document.
    fn list(&self, answer: &Value) -> Result<Vec<LegHit>, Failure> {
        let hits = answer["hits"]
            .as_array()
            .ok_or_else(|| Failure::new(format!("an answer without hits: {answer}")))?;
        let hit = |hit: &Value| {
            let id = hit["id"].as_str()?.to_owned();
            let judged = match (self.by, hit["document"].as_str()) {
                (By::Document, Some(document)) => document.to_owned(),
                _ => id.clone(),
            };
            #[expect(clippy::cast_possible_truncation, reason = "it was an f32 before it was JSON")]
            let raw = hit["legs"][0]["raw"].as_f64().unwrap_or(0.0) as f32;
            Some(LegHit { id, judged, raw })
        };
        hits.iter()
            .map(|h| hit(h).ok_or_else(|| Failure::new(format!("a hit without an id: {h}"))))
            .collect()
    }
}

fn notes(answer: &Value) -> Vec<String> {
    let notes = answer["notes"].as_array().into_iter().flatten();
    notes.filter_map(Value::as_str).map(str::to_owned).collect()
}

/// The template with the question in its holes, and as many hits as are wanted unless it says itself.
fn request(template: &Value, question: &str, hits: usize) -> Value {
    let mut request = fill(template, question);
    if let Some(object) = request.as_object_mut() {
        object.entry("limit").or_insert_with(|| json!(hits));
        object.entry("with").or_insert_with(|| json!({"payload": false}));
    }
    request
}

/// `{query}` in every text of the template is the question.
pub(super) fn fill(template: &Value, question: &str) -> Value {
    match template {
        Value::String(text) => Value::String(text.replace(HOLE, question)),
        Value::Array(items) => items.iter().map(|item| fill(item, question)).collect(),
        Value::Object(map) => {
            let entry = |(key, value): (&String, &Value)| (key.clone(), fill(value, question));
            Value::Object(map.iter().map(entry).collect())
        }
        other => other.clone(),
    }
}

/// A bar on a terminal, a line every few seconds elsewhere.
struct Progress {
    bar: ProgressBar,
    name: String,
    last: Option<std::sync::Mutex<Instant>>,
}

impl Progress {
    fn new(name: &str, questions: usize) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let target = if terminal {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(Some(questions as u64), target);
        let style = ProgressStyle::with_template("{msg:20} {bar:30} {pos}/{len}  {per_sec}  {eta} left");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_message(name.to_owned());
        Self {
            bar,
            name: name.to_owned(),
            last: (!terminal).then(|| std::sync::Mutex::new(Instant::now())),
        }
    }

    fn moved(&self) {
        self.bar.inc(1);
        if let Some(last) = &self.last
            && let Ok(mut last) = last.lock()
            && last.elapsed() >= PROGRESS_EVERY
        {
            *last = Instant::now();
            let (at, of) = (self.bar.position(), self.bar.length().unwrap_or_default());
            output::note(format!(
                "{}: {} of {}",
                self.name,
                output::number(at),
                output::number(of)
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_put_where_the_template_says_and_nowhere_else() {
        let template = json!({"prefetch": [{"text": {"query": "{query}", "fields": ["a^2"]}}, {"nearest": {"text": "passage: {query}"}}], "limit": 3});
        let request = request(&template, "say \"hi\" {query}", 50);
        assert_eq!(request["prefetch"][0]["text"]["query"], "say \"hi\" {query}");
        assert_eq!(request["prefetch"][1]["nearest"]["text"], "passage: say \"hi\" {query}");
        assert_eq!(
            (&request["limit"], &request["with"]["payload"]),
            (&json!(3), &json!(false))
        );
        assert_eq!(
            super::request(&json!({"hybrid": {"text": "{query}"}}), "q", 50)["limit"],
            50
        );
    }
}
