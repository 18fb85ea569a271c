//! Latencies of many questions asked at once. What answers are worth is measured by `cairn_server::eval`.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use cairn_client::{Answer, Collection, Query};
use hdrhistogram::Histogram;

/// Answers in the order of the questions, and how long they took.
pub(crate) struct Asked {
    pub(crate) answers: Vec<Answer>,
    pub(crate) latency: Histogram<u64>,
    pub(crate) elapsed: Duration,
}

impl Asked {
    pub(crate) fn per_second(&self) -> f64 {
        self.answers.len() as f64 / self.elapsed.as_secs_f64()
    }
    /// A quantile of the latency in milliseconds.
    pub(crate) fn ms(&self, quantile: f64) -> f64 {
        self.latency.value_at_quantile(quantile) as f64 / 1e3
    }
}

/// Asks every question once, from `clients` tasks that each wait for an answer before they ask the next.
pub(crate) async fn ask(collection: &Collection, questions: &[Query], clients: usize) -> anyhow::Result<Asked> {
    let next = AtomicUsize::new(0);
    let started = Instant::now();
    let tasks = (0..clients.max(1)).map(|_| async {
        let mut mine = Vec::new();
        loop {
            let i = next.fetch_add(1, Ordering::Relaxed);
            let Some(question) = questions.get(i) else {
                return anyhow::Ok(mine);
            };
            let asked = Instant::now();
            let answer = collection.query(question.clone()).await?;
            mine.push((i, answer, asked.elapsed()));
        }
    });
    let all = futures::future::try_join_all(tasks).await?;
    let elapsed = started.elapsed();
    let mut latency = Histogram::new_with_bounds(1, 600_000_000, 3)?;
    let mut answers = vec![None; questions.len()];
    for (i, answer, took) in all.into_iter().flatten() {
        latency.saturating_record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        answers[i] = Some(answer);
    }
    let answers = answers
        .into_iter()
        .collect::<Option<Vec<_>>>()
        .context("a question was not answered")?;
    Ok(Asked {
        answers,
        latency,
        elapsed,
    })
}

/// The median and the largest of some seconds.
pub(crate) fn median_and_max(mut values: Vec<f64>) -> (f64, f64) {
    values.sort_by(f64::total_cmp);
    let max = values.last().copied().unwrap_or(0.0);
    (values.get(values.len() / 2).copied().unwrap_or(0.0), max)
}
