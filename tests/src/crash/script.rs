//! Operations one after the other: at every moment, what must be there is what the first n of them made, for one n or two.

use std::ops::{Range, RangeInclusive};

use cairn_client::{Client, Error};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::Counts;
use super::judge::Seen;
use super::oracle::{Expected, What};
use super::work::{self, Content, POINT_WRITERS};

/// Few keys, so that most operations meet what earlier ones left.
const KEYS: u32 = 120;
/// Points of one upsert.
const UPSERT_MAX: usize = 12;

/// A list of operations that follows from a seed.
pub struct Script {
    pub content: Content,
    ops: Vec<(usize, What)>,
}

/// What came of one. Moments are given by whoever plays the script.
pub struct Said {
    pub sent_at: usize,
    pub answered_at: usize,
    pub answer: Result<(), Error>,
}

impl Script {
    pub fn new(seed: u64, len: usize) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let any = |_| {
            if rng.random_ratio(1, 5) {
                (POINT_WRITERS, work::any_document(&mut rng, POINT_WRITERS))
            } else {
                (0, work::points_of(&mut rng, 0, KEYS, UPSERT_MAX))
            }
        };
        Self {
            content: Content { seed },
            ops: (0..len).map(any).collect(),
        }
    }

    pub fn len(&self) -> usize {
        self.ops.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Sends a part of it. Ends behind the first operation that was not acknowledged.
    pub async fn play(&self, client: &Client, part: Range<usize>, now: impl Fn() -> usize) -> Vec<Said> {
        let mut all = Vec::new();
        for i in part {
            let sent_at = now();
            let (writer, what) = &self.ops[i];
            let answer = work::send(self.content, client, *writer, number(i), what).await;
            let failed = answer.is_err();
            all.push(Said {
                sent_at,
                answered_at: now(),
                answer,
            });
            if failed {
                break;
            }
        }
        all
    }

    /// The state after the first `n` operations.
    pub fn after(&self, n: usize) -> Expected {
        let mut expected = Expected::default();
        for (i, (writer, what)) in self.ops[..n].iter().enumerate() {
            expected.apply(*writer, number(i), what);
        }
        expected
    }

    /// How many operations made what is there, if it is a number within `range`; if not, what is wrong by its start.
    pub fn made_by(&self, seen: &Seen, range: RangeInclusive<usize>) -> Result<usize, Counts> {
        let fits = |n: &usize| seen.differences(&self.after(*n)).all_zero();
        let start = *range.start();
        range
            .rev()
            .find(fits)
            .ok_or_else(|| seen.differences(&self.after(start)))
    }
}

/// Operations are numbered from 1: 0 is no operation.
fn number(i: usize) -> u64 {
    i as u64 + 1
}
