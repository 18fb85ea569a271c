//! Which requests should be remembered, by the same rule as the engine: a day by the records' own clocks, and the newest so
//! many.

use std::collections::{BTreeMap, VecDeque};

use crate::limits;

/// What the first of equal requests did.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Done {
    pub(super) seq: u64,
    pub(super) at_ms: u64,
    /// None if nobody was told, because the engine ended first.
    pub(super) changed: Option<u64>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Requests {
    done: BTreeMap<u64, Done>,
    /// In the order of the log; one that was forgotten and done again is here twice.
    order: VecDeque<(u64, Done)>,
}

fn is_over(at_ms: u64, now_ms: u64) -> bool {
    now_ms.saturating_sub(at_ms) >= limits::REQUEST_MEMORY_MS
}

impl Requests {
    /// What a repetition should be answered, if it should not be done.
    pub(super) fn find(&self, request: u64, now_ms: u64) -> Option<&Done> {
        self.done.get(&request).filter(|done| !is_over(done.at_ms, now_ms))
    }

    /// A record of the request was written.
    pub(super) fn remember(&mut self, request: u64, done: Done) {
        let now_ms = done.at_ms;
        self.done.insert(request, done.clone());
        self.order.push_back((request, done));
        let surplus = |order: &VecDeque<(u64, Done)>| {
            let oldest = order.front().expect("one was just put in");
            order.len() as u64 > limits::REQUESTS_MAX || is_over(oldest.1.at_ms, now_ms)
        };
        while surplus(&self.order) {
            let Some((request, oldest)) = self.order.pop_front() else {
                return;
            };
            if self.done.get(&request).is_some_and(|done| done.seq == oldest.seq) {
                self.done.remove(&request);
            }
        }
    }

    /// Somebody was told what a record did of which nobody had been told.
    pub(super) fn told(&mut self, request: u64, changed: u64) {
        if let Some(done) = self.done.get_mut(&request) {
            done.changed.get_or_insert(changed);
        }
    }

    /// One that is remembered.
    pub(super) fn newest(&self) -> Option<u64> {
        self.order.back().map(|(request, _)| *request)
    }
}
