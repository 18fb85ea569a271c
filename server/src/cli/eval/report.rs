//! What was measured, as a table for people, as JSON, and as a picture.

use std::collections::BTreeMap;

use cairn_server::eval::plot::{self, Line};
use cairn_server::eval::{Graded, Interval, Measure, Metric, Resampled, resample};
use serde::Serialize;
use serde_json::Value;

use super::ask::Asked;
use super::fit::Fitted;
use super::{By, Case};
use crate::cli::output;

/// Notes of the server that are shown for a mode.
const NOTES_SHOWN: usize = 3;

/// How it was measured.
pub(super) struct Settings {
    pub(super) collection: String,
    pub(super) by: By,
    pub(super) cuts: Vec<usize>,
    pub(super) resamples: usize,
    pub(super) seed: u64,
    /// Questions left out because nothing is relevant to them.
    pub(super) unjudged: usize,
    /// Place of the mode that the others are compared with; none if it was not measured.
    pub(super) baseline: Option<usize>,
}

/// All modes, measured.
pub(super) struct Report<'a> {
    settings: Settings,
    questions: usize,
    metrics: Vec<Metric>,
    modes: Vec<Measured>,
    resampled: Resampled,
    fitted: Option<&'a Fitted>,
}

struct Measured {
    asked: Asked,
    graded: Vec<Graded>,
}

#[derive(Serialize)]
pub(super) struct Json<'a> {
    collection: &'a str,
    questions: usize,
    questions_without_judgments: usize,
    judged_by: &'static str,
    resamples: usize,
    seed: u64,
    modes: Vec<ModeJson<'a>>,
    differences: Vec<DifferenceJson<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fit: Option<&'a Fitted>,
}

#[derive(Serialize)]
struct ModeJson<'a> {
    name: &'a str,
    query: &'a Value,
    metrics: BTreeMap<String, Interval>,
    latency_ms: BTreeMap<&'static str, f64>,
    queries_per_second: f64,
    notes: &'a BTreeMap<String, usize>,
}

#[derive(Serialize)]
struct DifferenceJson<'a> {
    mode: &'a str,
    than: &'a str,
    metrics: BTreeMap<String, Interval>,
}

impl<'a> Report<'a> {
    pub(super) fn new(settings: Settings, cases: &[Case], asked: Vec<Asked>, fitted: Option<&'a Fitted>) -> Self {
        let mut cuts = settings.cuts.clone();
        cuts.sort_unstable();
        cuts.dedup();
        let last = cuts.last().copied().unwrap_or(1);
        let of = |measure: Measure| cuts.iter().map(move |k| Metric::new(measure, *k));
        let mut metrics: Vec<Metric> = of(Measure::Recall).collect();
        metrics.extend([Metric::new(Measure::Ndcg, last), Metric::new(Measure::Mrr, last)]);
        metrics.extend(of(Measure::Precision));
        let measured = |asked: Asked| {
            let grade = |(list, case): (&Vec<_>, &Case)| {
                let ids = list
                    .iter()
                    .map(|hit: &cairn_server::eval::fit::LegHit| hit.judged.as_str());
                case.judged.grade_list(ids)
            };
            let graded = asked.lists.iter().zip(cases).map(grade).collect();
            Measured { asked, graded }
        };
        let modes: Vec<Measured> = asked.into_iter().map(measured).collect();
        let column = |mode: &'_ Measured, metric: &Metric| mode.graded.iter().map(|list| metric.of(list)).collect();
        let mut columns: Vec<Vec<f64>> = Vec::with_capacity(modes.len() * metrics.len());
        for mode in &modes {
            columns.extend(metrics.iter().map(|metric| column(mode, metric)));
        }
        let resampled = resample(&columns, settings.resamples, settings.seed);
        Self {
            settings,
            questions: cases.len(),
            metrics,
            modes,
            resampled,
            fitted,
        }
    }

    fn interval(&self, mode: usize, metric: usize) -> Interval {
        self.resampled.mean(mode * self.metrics.len() + metric)
    }

    fn difference(&self, mode: usize, than: usize, metric: usize) -> Interval {
        let place = |mode: usize| mode * self.metrics.len() + metric;
        self.resampled.difference(place(mode), place(than))
    }

    /// Places of modes that are compared, each with the baseline.
    fn compared(&self) -> impl Iterator<Item = (usize, usize)> {
        let pairs = move |than: usize| {
            (0..self.modes.len())
                .filter(move |i| *i != than)
                .map(move |i| (i, than))
        };
        self.settings.baseline.into_iter().flat_map(pairs)
    }

    /// To standard output: a table of values, then one of differences.
    pub(super) fn show(&self) {
        let s = &self.settings;
        let (questions, left_out) = (output::number(self.questions as u64), s.unjudged);
        output::out(format!(
            "{questions} questions to {}, judged by {}",
            s.collection,
            s.by.name()
        ));
        if left_out > 0 {
            output::out(format!("{left_out} questions have nothing relevant and were left out"));
        }
        let shown: Vec<usize> = (0..self.metrics.len()).filter(|&m| self.in_table(m)).collect();
        let names = shown.iter().map(|&m| self.metrics[m].to_string());
        let timing = ["q/s", "p50 ms", "p95 ms", "p99 ms"].map(str::to_owned);
        let head = std::iter::once("mode".to_owned()).chain(names.clone()).chain(timing);
        let mut rows: Vec<Vec<String>> = vec![head.collect()];
        for (i, mode) in self.modes.iter().enumerate() {
            let mut row = vec![mode.asked.mode.name.clone()];
            row.extend(shown.iter().map(|&m| {
                let v = self.interval(i, m);
                format!("{:.4} ±{:.4}", v.mean, v.half_width())
            }));
            row.push(format!("{:.0}", mode.per_second()));
            row.extend([0.5, 0.95, 0.99].map(|q| format!("{:.2}", mode.ms(q))));
            rows.push(row);
        }
        output::out("");
        table(&rows);

        if let Some((_, than)) = self.compared().next() {
            let baseline = &self.modes[than].asked.mode.name;
            let head = std::iter::once(format!("better than {baseline} by")).chain(names);
            let mut rows: Vec<Vec<String>> = vec![head.collect()];
            for (i, than) in self.compared() {
                let mut row = vec![self.modes[i].asked.mode.name.clone()];
                row.extend(shown.iter().map(|&m| {
                    let d = self.difference(i, than, m);
                    let sure = if d.excludes_zero() { "*" } else { " " };
                    format!("{:+.4} [{:+.4} {:+.4}]{sure}", d.mean, d.low, d.high)
                }));
                rows.push(row);
            }
            output::out("");
            table(&rows);
        }
        for mode in &self.modes {
            for (note, times) in mode.asked.notes.iter().take(NOTES_SHOWN) {
                output::note(format!("{}: {times} times: {note}", mode.asked.mode.name));
            }
        }
        if let Some(fitted) = self.fitted {
            output::out("");
            output::out(format!(
                "fitted on {} other questions, best of {} settings in {}: {}",
                output::number(fitted.questions as u64),
                fitted.tried,
                fitted.by,
                fitted.setting
            ));
            output::out(fitted.query.to_string());
        }
    }

    /// Precision is only shown at the last cut: the table is wide enough.
    fn in_table(&self, metric: usize) -> bool {
        self.metrics[metric].measure != Measure::Precision || metric + 1 == self.metrics.len()
    }

    pub(super) fn json(&self) -> Json<'_> {
        let metrics = |of: &dyn Fn(usize) -> Interval| {
            let named = self
                .metrics
                .iter()
                .enumerate()
                .map(|(m, metric)| (metric.to_string(), of(m)));
            named.collect::<BTreeMap<String, Interval>>()
        };
        let name = |i: usize| self.modes[i].asked.mode.name.as_str();
        let mode = |(i, mode): (usize, &'_ Measured)| ModeJson {
            name: name(i),
            query: &self.modes[i].asked.mode.template,
            metrics: metrics(&|m| self.interval(i, m)),
            latency_ms: [("p50", 0.5), ("p95", 0.95), ("p99", 0.99)]
                .map(|(name, q)| (name, mode.ms(q)))
                .into(),
            queries_per_second: mode.per_second(),
            notes: &self.modes[i].asked.notes,
        };
        let difference = |(i, than): (usize, usize)| DifferenceJson {
            mode: name(i),
            than: name(than),
            metrics: metrics(&|m| self.difference(i, than, m)),
        };
        Json {
            collection: &self.settings.collection,
            questions: self.questions,
            questions_without_judgments: self.settings.unjudged,
            judged_by: self.settings.by.name(),
            resamples: self.settings.resamples,
            seed: self.settings.seed,
            modes: self.modes.iter().enumerate().map(mode).collect(),
            differences: self.compared().map(difference).collect(),
            fit: self.fitted,
        }
    }

    pub(super) fn svg(&self) -> Result<Vec<u8>, String> {
        plot::svg(&self.title(), &self.lines()).map(String::into_bytes)
    }

    pub(super) fn png(&self) -> Result<Vec<u8>, String> {
        plot::png(&self.title(), &self.lines())
    }

    fn title(&self) -> String {
        let questions = output::number(self.questions as u64);
        format!("{}, {questions} questions", self.settings.collection)
    }

    fn lines(&self) -> Vec<Line> {
        let at = |measure: Measure| {
            let places = self.metrics.iter().enumerate();
            places
                .filter(move |(_, m)| m.measure == measure)
                .map(|(place, m)| (place, m.k))
        };
        let cuts = at(Measure::Recall).map(|(_, k)| k).max().unwrap_or(1);
        let ndcg = at(Measure::Ndcg).next().map_or(0, |(place, _)| place);
        let line = |(i, mode): (usize, &Measured)| Line {
            name: mode.asked.mode.name.clone(),
            recall: (1..=cuts)
                .map(|k| Metric::new(Measure::Recall, k).mean(&mode.graded))
                .collect(),
            intervals: at(Measure::Recall)
                .map(|(place, k)| (k, self.interval(i, place)))
                .collect(),
            ndcg: self.interval(i, ndcg),
        };
        self.modes.iter().enumerate().map(line).collect()
    }
}

impl Measured {
    fn per_second(&self) -> f64 {
        self.graded.len() as f64 / self.asked.elapsed.as_secs_f64().max(1e-9)
    }

    /// A quantile of the latency: the smallest that so many questions do not exceed.
    fn ms(&self, quantile: f64) -> f64 {
        let all = &self.asked.latencies;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 0 and the length"
        )]
        let place = (quantile * all.len() as f64).ceil() as usize;
        all.get(place.saturating_sub(1)).copied().unwrap_or(0.0)
    }
}

impl By {
    fn name(self) -> &'static str {
        match self {
            Self::Document => "document",
            Self::Chunk => "chunk",
        }
    }
}

/// The first column left, the others right.
fn table(rows: &[Vec<String>]) {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |c: usize| rows.iter().filter_map(|r| r.get(c)).map(|t| t.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|c| width(c).unwrap_or(0)).collect();
    for (i, row) in rows.iter().enumerate() {
        let cells = row.iter().zip(&widths).enumerate().map(|(c, (text, width))| {
            if c == 0 {
                format!("{text:<width$}")
            } else {
                format!("{text:>width$}")
            }
        });
        let line = cells.collect::<Vec<_>>().join("  ");
        let line = line.trim_end();
        output::out(if i == 0 { output::bold(line) } else { line.to_owned() });
    }
}
