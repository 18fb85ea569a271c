//! Measures: quality of ranked lists against judgments, and latencies of many questions asked at once.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use cairn_client::{Answer, Collection, Query};
use hdrhistogram::Histogram;

/// Means over questions of the usual measures at a cut of ten.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Quality {
    pub(crate) recall_1: f64,
    pub(crate) recall_5: f64,
    pub(crate) recall_10: f64,
    pub(crate) mrr_10: f64,
    pub(crate) ndcg_10: f64,
}

impl Quality {
    /// Name and value of each measure.
    pub(crate) fn named(&self) -> [(&'static str, f64); 5] {
        [
            ("recall@1", self.recall_1),
            ("recall@5", self.recall_5),
            ("recall@10", self.recall_10),
            ("mrr@10", self.mrr_10),
            ("ndcg@10", self.ndcg_10),
        ]
    }

    /// Judges lists of documents, best first, by the documents that answer each question (binary relevance).
    pub(crate) fn of<'a, D, L>(questions: L) -> Self
    where
        D: PartialEq + 'a,
        L: Iterator<Item = (&'a [D], &'a [D])>,
    {
        let mut sum = Self::default();
        let mut n = 0.0;
        for (found, relevant) in questions {
            n += 1.0;
            let gains: Vec<f64> = found
                .iter()
                .take(10)
                .map(|d| if relevant.contains(d) { 1.0 } else { 0.0 })
                .collect();
            let all = relevant.len().max(1) as f64;
            let recall = |k: usize| gains.iter().take(k).sum::<f64>() / all;
            sum.recall_1 += recall(1);
            sum.recall_5 += recall(5);
            sum.recall_10 += recall(10);
            sum.mrr_10 += gains
                .iter()
                .position(|g| *g > 0.0)
                .map_or(0.0, |i| 1.0 / (i + 1) as f64);
            let discount = |i: usize| 1.0 / ((i + 2) as f64).log2();
            let best: f64 = (0..relevant.len().min(10)).map(discount).sum();
            let got: f64 = gains.iter().enumerate().map(|(i, g)| g * discount(i)).sum();
            sum.ndcg_10 += if best > 0.0 { got / best } else { 0.0 };
        }
        if n > 0.0 {
            for value in [
                &mut sum.recall_1,
                &mut sum.recall_5,
                &mut sum.recall_10,
                &mut sum.mrr_10,
                &mut sum.ndcg_10,
            ] {
                *value /= n;
            }
        }
        sum
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measures_agree_with_a_worked_example() {
        let one: (&[u32], &[u32]) = (&[7, 3, 9], &[3]);
        let two: (&[u32], &[u32]) = (&[1, 2], &[5, 1]);
        let q = Quality::of([one, two].into_iter());
        let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-9, "{a} {b}");
        close(q.recall_1, (0.0 + 0.5) / 2.0);
        close(q.recall_10, (1.0 + 0.5) / 2.0);
        close(q.mrr_10, (0.5 + 1.0) / 2.0);
        let log = 1.0 / 3f64.log2();
        close(q.ndcg_10, (log + 1.0 / (1.0 + log)) / 2.0);
    }
}
