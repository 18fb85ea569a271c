//! One case: a set's questions asked in one way, judged, with intervals; and the promises between cases.

use anyhow::Context;
use cairn_client::{Collection, Query};
use cairn_server::eval::{Graded, Interval, Measure, Metric, resample};

use super::sets::{Question, Set};
use crate::measure::{Asked, ask};
use crate::report::{Report, Table};

/// What is recorded of every case. The first is what hybrids are chosen by.
pub(super) const METRICS: [Metric; 5] = [RECALL_10, NDCG_10, MRR_10, RECALL_1, RECALL_5];
pub(super) const RECALL_10: Metric = metric(Measure::Recall, 10);
pub(super) const NDCG_10: Metric = metric(Measure::Ndcg, 10);
const MRR_10: Metric = metric(Measure::Mrr, 10);
const RECALL_1: Metric = metric(Measure::Recall, 1);
const RECALL_5: Metric = metric(Measure::Recall, 5);
/// Resamples of an interval, and their seed.
const RESAMPLES: usize = 1_000;
const SEED: u64 = 1;

const fn metric(measure: Measure, k: usize) -> Metric {
    Metric { measure, k }
}

/// A case that was measured.
pub(super) struct Measured {
    pub(super) case: String,
    /// One for each question asked.
    pub(super) graded: Vec<Graded>,
    /// Answers of a hybrid that were BM25's alone.
    pub(super) noted: usize,
}

/// Where cases are written.
pub(super) struct Cases {
    pub(super) report: Report,
    pub(super) clients: usize,
    table: Table,
}

impl Cases {
    pub(super) fn new(report: Report, clients: usize) -> Self {
        let table = Table::new([
            "case",
            "recall@10",
            "ndcg@10",
            "mrr@10",
            "recall@1",
            "recall@5",
            "bm25 alone",
            "queries/s",
            "p50 ms",
            "p99 ms",
        ]);
        Self { report, clients, table }
    }

    /// Asks and judges; every `every`th question.
    pub(super) async fn measure(
        &mut self,
        collection: &Collection,
        set: &Set,
        name: &str,
        every: usize,
        query: impl Fn(&str) -> Query,
    ) -> anyhow::Result<Measured> {
        let questions: Vec<&Question> = set.questions.iter().step_by(every).collect();
        let asked = ask_all(collection, &questions, self.clients, |text| query(text).limit(10)).await?;
        let case = set.case(name);
        let graded: Vec<Graded> = asked
            .answers
            .iter()
            .zip(&questions)
            .map(|(answer, question)| {
                let found = answer.hits.iter().filter_map(|h| h.point.document.as_deref());
                question.judged.grade_list(found)
            })
            .collect();
        let noted = asked
            .answers
            .iter()
            .filter(|a| a.notes.iter().any(|n| n.contains("only bm25")))
            .count();
        let measured = Measured { case, graded, noted };
        self.record(&measured, &asked)?;
        Ok(measured)
    }

    fn record(&mut self, measured: &Measured, asked: &Asked) -> anyhow::Result<()> {
        let case = &measured.case;
        let columns: Vec<Vec<f64>> = METRICS.iter().map(|m| column(*m, &measured.graded)).collect();
        let resampled = resample(&columns, RESAMPLES, SEED);
        let mut row = vec![case.clone()];
        for (i, metric) in METRICS.iter().enumerate() {
            let value = resampled.mean(i);
            for (end, value) in [("", value.mean), (" low", value.low), (" high", value.high)] {
                self.report.record(case, &format!("{metric}{end}"), value, "ratio")?;
            }
            row.push(if i < 2 {
                format!("{:.4} ±{:.4}", value.mean, value.half_width())
            } else {
                format!("{:.4}", value.mean)
            });
        }
        let noted = measured.noted as f64 / measured.graded.len().max(1) as f64;
        self.report.record(case, "bm25 alone", noted, "ratio")?;
        self.report
            .record(case, "throughput", asked.per_second(), "queries/s")?;
        row.extend([
            format!("{:.1} %", noted * 100.0),
            format!("{:.0}", asked.per_second()),
            format!("{:.2}", asked.ms(0.5)),
            format!("{:.2}", asked.ms(0.99)),
        ]);
        println!("{}", row.join("  "));
        self.table.row(row);
        Ok(())
    }

    pub(super) fn print(&self) {
        println!();
        self.table.print();
    }
}

impl Measured {
    pub(super) fn mean(&self, metric: Metric) -> f64 {
        metric.mean(&self.graded)
    }

    /// How much better this is than another case on the same questions.
    pub(super) fn better_than(&self, other: &Self, metric: Metric) -> Interval {
        let columns = [column(metric, &self.graded), column(metric, &other.graded)];
        resample(&columns, RESAMPLES, SEED).difference(0, 1)
    }

    /// The share of questions left to BM25.
    pub(super) fn noted_share(&self) -> f64 {
        self.noted as f64 / self.graded.len().max(1) as f64
    }
}

fn column(metric: Metric, graded: &[Graded]) -> Vec<f64> {
    graded.iter().map(|list| metric.of(list)).collect()
}

/// A hybrid must not be worse than its better leg beyond the paired interval; and where it is asked to, it must find more
/// than each.
pub(super) fn hybrid_broken(hybrid: &Measured, legs: &[&Measured], must_find_more: bool) -> Vec<String> {
    let mut broken = Vec::new();
    for leg in legs {
        for metric in [RECALL_10, NDCG_10] {
            let better = hybrid.better_than(leg, metric);
            if better.high < 0.0 {
                let by = format!("[{:.4}, {:.4}]", better.low, better.high);
                broken.push(format!(
                    "{} {metric} is below that of {} by {by}",
                    hybrid.case, leg.case
                ));
            }
        }
        let (own, leg_has) = (hybrid.mean(RECALL_10), leg.mean(RECALL_10));
        if must_find_more && own <= leg_has {
            broken.push(format!(
                "{} recall@10 {own:.4} is not above that of {}, {leg_has:.4}",
                hybrid.case, leg.case
            ));
        }
    }
    broken
}

pub(super) async fn ask_all(
    collection: &Collection,
    questions: &[&Question],
    clients: usize,
    query: impl Fn(&str) -> Query,
) -> anyhow::Result<Asked> {
    let queries: Vec<Query> = questions.iter().map(|q| query(&q.text)).collect();
    // The first answers find cold caches and a connection that is still growing its window.
    ask(collection, &queries[..queries.len().min(50)], clients).await?;
    ask(collection, &queries, clients).await.context("asking")
}

#[cfg(test)]
mod tests {
    use cairn_server::eval::Judged;

    use super::*;

    fn measured(case: &str, right: usize) -> Measured {
        let judged = Judged::new([("a".to_owned(), 1)]);
        let list = |i| judged.grade_list([if i < right { "a" } else { "b" }]);
        Measured {
            case: case.to_owned(),
            graded: (0..400).map(list).collect(),
            noted: 0,
        }
    }

    #[test]
    fn a_hybrid_below_a_leg_is_a_broken_promise() {
        let (low, middle, high) = (measured("low", 300), measured("middle", 320), measured("high", 340));
        assert_eq!(hybrid_broken(&high, &[&low, &middle], true), Vec::<String>::new());
        assert_eq!(
            hybrid_broken(&middle, &[&low, &high], false).len(),
            2,
            "recall and nDCG below high"
        );
        assert_eq!(hybrid_broken(&middle, &[&middle], false), Vec::<String>::new());
        assert_eq!(hybrid_broken(&middle, &[&middle], true).len(), 1, "not above");
    }
}
