//! One ranked list against its judgments: recall, precision, nDCG and reciprocal rank at a cut.

use std::collections::{BTreeMap, HashSet};
use std::fmt;

/// What is relevant to one question, and how much. Grade 0 is the same as not judged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Judged {
    grades: BTreeMap<String, u32>,
}

/// A ranked list as its judgments see it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Graded {
    /// The grade of each hit, best hit first.
    pub gains: Vec<u32>,
    /// The grades of everything relevant, highest first.
    pub ideal: Vec<u32>,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Measure {
    /// Share of what is relevant that was found.
    Recall,
    /// Share of the places that hold something relevant.
    Precision,
    /// Discounted gains, divided by those of the best possible list. Gains are the grades, as in `trec_eval`.
    Ndcg,
    /// 1 / place of the first relevant hit; 0 if there is none.
    Mrr,
}

/// A measure and how many hits it looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Metric {
    /// What.
    pub measure: Measure,
    /// At how many hits.
    pub k: usize,
}

impl Judged {
    /// From ids and grades; of an id named twice the higher grade holds.
    pub fn new(grades: impl IntoIterator<Item = (String, u32)>) -> Self {
        let mut judged = Self::default();
        for (id, grade) in grades {
            judged.add(id, grade);
        }
        judged
    }

    /// Adds one judgment.
    pub fn add(&mut self, id: String, grade: u32) {
        if grade > 0 {
            let present = self.grades.entry(id).or_default();
            *present = grade.max(*present);
        }
    }

    /// Adds the judgments of another source.
    pub fn merge(&mut self, other: Option<&Self>) {
        for (id, grade) in other.into_iter().flat_map(|other| &other.grades) {
            self.add(id.clone(), *grade);
        }
    }

    /// Nothing is relevant: such a question measures nothing.
    pub fn is_empty(&self) -> bool {
        self.grades.is_empty()
    }

    /// The grade of an id.
    pub fn grade(&self, id: &str) -> u32 {
        self.grades.get(id).copied().unwrap_or(0)
    }

    /// A list, best first. Of an id that comes more than once (two chunks of one document) the first counts, and the others
    /// take no place.
    pub fn grade_list<'a>(&self, found: impl IntoIterator<Item = &'a str>) -> Graded {
        let mut seen = HashSet::new();
        let gains = found.into_iter().filter(|id| seen.insert(*id)).map(|id| self.grade(id));
        let gains = gains.collect();
        let mut ideal: Vec<u32> = self.grades.values().copied().collect();
        ideal.sort_unstable_by(|a, b| b.cmp(a));
        Graded { gains, ideal }
    }
}

impl Metric {
    /// `measure` at `k`.
    pub fn new(measure: Measure, k: usize) -> Self {
        Self { measure, k }
    }

    /// Its value for one question, 0 to 1.
    pub fn of(self, list: &Graded) -> f64 {
        let head = &list.gains[..list.gains.len().min(self.k)];
        let hits = || head.iter().filter(|&&gain| gain > 0).count() as f64;
        match self.measure {
            Measure::Recall => hits() / list.ideal.len().max(1) as f64,
            Measure::Precision => hits() / self.k.max(1) as f64,
            Measure::Ndcg => {
                let best = discounted(&list.ideal[..list.ideal.len().min(self.k)]);
                if best > 0.0 { discounted(head) / best } else { 0.0 }
            }
            Measure::Mrr => {
                let first = head.iter().position(|&gain| gain > 0);
                first.map_or(0.0, |place| 1.0 / (place + 1) as f64)
            }
        }
    }

    /// The mean over questions.
    pub fn mean<'a>(self, lists: impl IntoIterator<Item = &'a Graded>) -> f64 {
        let (sum, n) = lists
            .into_iter()
            .fold((0.0, 0usize), |(sum, n), list| (sum + self.of(list), n + 1));
        sum / n.max(1) as f64
    }
}

fn discounted(gains: &[u32]) -> f64 {
    let gain = |(place, gain): (usize, &u32)| f64::from(*gain) / ((place + 2) as f64).log2();
    gains.iter().enumerate().map(gain).sum()
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.measure {
            Measure::Recall => "recall",
            Measure::Precision => "precision",
            Measure::Ndcg => "ndcg",
            Measure::Mrr => "mrr",
        };
        write!(f, "{name}@{}", self.k)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn judged(grades: &[(&str, u32)]) -> Judged {
        Judged::new(grades.iter().map(|(id, grade)| ((*id).to_owned(), *grade)))
    }

    #[track_caller]
    fn check(measure: Measure, k: usize, list: &Graded, expected: f64) {
        let got = Metric::new(measure, k).of(list);
        assert!((got - expected).abs() < 1e-9, "{measure:?}@{k}: {got}, not {expected}");
    }

    #[test]
    fn measures_agree_with_a_worked_example() {
        let list = judged(&[("3", 1)]).grade_list(["7", "3", "9"]);
        check(Measure::Recall, 1, &list, 0.0);
        check(Measure::Recall, 2, &list, 1.0);
        check(Measure::Precision, 5, &list, 0.2);
        check(Measure::Mrr, 10, &list, 0.5);
        check(Measure::Ndcg, 10, &list, 1.0 / 3f64.log2());
        let list = judged(&[("5", 1), ("1", 1)]).grade_list(["1", "2"]);
        check(Measure::Recall, 10, &list, 0.5);
        check(Measure::Ndcg, 10, &list, 1.0 / (1.0 + 1.0 / 3f64.log2()));
    }

    #[test]
    fn grades_weigh_in_ndcg_as_trec_eval_does_it() {
        let list = judged(&[("a", 3), ("b", 1), ("c", 0)]).grade_list(["b", "c", "a"]);
        check(Measure::Ndcg, 3, &list, (1.0 + 3.0 / 2.0) / (3.0 + 1.0 / 3f64.log2()));
        check(Measure::Ndcg, 1, &list, 1.0 / 3.0);
        check(Measure::Recall, 3, &list, 1.0);
    }

    #[test]
    fn the_second_chunk_of_a_document_takes_no_place() {
        let list = judged(&[("b", 1)]).grade_list(["a", "a", "a", "b", "b"]);
        check(Measure::Recall, 2, &list, 1.0);
        check(Measure::Precision, 2, &list, 0.5);
        check(Measure::Mrr, 2, &list, 0.5);
    }

    proptest! {
        #[test]
        fn every_measure_is_a_share_and_the_best_list_has_all(grades in prop::collection::vec(0u32..4, 1..12), k in 1usize..15) {
            let ids: Vec<String> = (0..grades.len()).map(|i| i.to_string()).collect();
            let judged = Judged::new(ids.iter().cloned().zip(grades.iter().copied()));
            let list = judged.grade_list(ids.iter().map(String::as_str));
            for measure in [Measure::Recall, Measure::Precision, Measure::Ndcg, Measure::Mrr] {
                prop_assert!((0.0..=1.0 + 1e-12).contains(&Metric::new(measure, k).of(&list)));
            }
            let best = Graded { gains: list.ideal.clone(), ideal: list.ideal };
            let expected = if judged.is_empty() { 0.0 } else { 1.0 };
            prop_assert!((Metric::new(Measure::Ndcg, k).of(&best) - expected).abs() < 1e-12);
        }
    }
}
