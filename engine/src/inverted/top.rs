//! The k best rows of several posting lists.
//!
//! Rows are looked at window by window (256 rows). A list says with each window the largest level in it, so the sum over
//! the lists bounds every score of the window: first the windows with the largest bounds are scored, which finds a good
//! k-th score early; then the others in order, and those whose bound is below the k-th score are passed over (block-max
//! pruning: Ding and Suel 2011; Mallia et al. 2024 for windows of rows). Within a window the lists are added from the one
//! that can give most, and the window is left as soon as no row of it can reach the k-th score any more (MaxScore: Turtle
//! and Flood 1995).
//!
//! Promises: exactly the rows that scoring everything would give, ties by id, never fewer than k where k allowed rows hold
//! a term. What a list adds may be an estimate: `error` says how far a sum may be off, and in the end the rows that could be
//! among the best are handed to `finish`, which gives their true scores. Bounds below zero count as zero, because a row may lack the term.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use super::list::{Block, Blocks, WINDOW};
use crate::error::{Error, ErrorKind, Result};
use crate::types::Ordinal;

/// What the rows of a list are worth.
pub trait Weigher {
    /// The most that a row of this window can get, if its level is at most `max`. At least the true maximum.
    fn bound(&self, window: u32, max: u8) -> f64;
    /// Adds what each row is worth to its place in `scores`.
    fn add(&self, window: u32, lows: &[u8], levels: &[u8], scores: &mut [f64; WINDOW]);
}

/// A term of the question: a list and what its rows are worth.
pub struct Term<'a, W> {
    list: &'a Blocks<'a>,
    weigher: W,
    /// The most that any row can get.
    bound: f64,
    /// First block that the walk has not passed.
    next: usize,
}

impl<'a, W: Weigher> Term<'a, W> {
    /// A term that stands somewhere.
    pub fn new(list: &'a Blocks<'a>, weigher: W) -> Self {
        let bounds = list.blocks.iter().map(|b| weigher.bound(b.window, b.max));
        let bound = bounds.fold(0.0, f64::max);
        Self {
            list,
            weigher,
            bound,
            next: 0,
        }
    }
}

/// How much is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Walk {
    /// Everything that cannot be among the best.
    Pruned,
    /// Nothing: every posting is scored. The measure of what pruning saves.
    All,
}

/// What is wanted.
pub struct Wanted<'a, 'i> {
    /// How many rows, at least 1.
    pub k: usize,
    /// Rows whose score is lower are of no use: k better ones are known.
    pub floor: f32,
    /// How far the sum of what terms add may be from the true score, rounded to f32.
    pub error: f64,
    /// How much is left out.
    pub walk: Walk,
    /// Which of the rows `64 n..64 n + 64` may be answered, one bit each, lowest first.
    pub allow: &'a dyn Fn(u32) -> u64,
    /// The true score of a row, from the sum of what terms added; `None` if the row is no hit.
    pub finish: &'a dyn Fn(Ordinal, f64) -> Result<Option<f32>>,
    /// Equal scores are ordered by this.
    pub id_of: &'a dyn Fn(Ordinal) -> &'i str,
    /// Polled; true gives a deadline error.
    pub stop: &'a dyn Fn() -> bool,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Top {
    /// Best first.
    pub hits: Vec<(f32, Ordinal)>,
    /// Postings whose worth was added.
    pub evaluated: u64,
}

/// A row with its true score; the greatest is the worst.
struct Scored<'i> {
    score: f32,
    id: &'i str,
    ordinal: Ordinal,
}

impl Ord for Scored<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        other
            .score
            .total_cmp(&self.score)
            .then_with(|| self.id.cmp(other.id))
            .then(self.ordinal.cmp(&other.ordinal))
    }
}
impl PartialOrd for Scored<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl PartialEq for Scored<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}
impl Eq for Scored<'_> {}

/// The best so far, and the score that a row must reach to be among them.
pub struct Best<'i> {
    k: usize,
    floor: f32,
    heap: BinaryHeap<Scored<'i>>,
}

impl<'i> Best<'i> {
    /// Nothing yet; scores below `floor` are of no use.
    pub fn new(k: usize, floor: f32) -> Self {
        Self {
            k: k.max(1),
            floor,
            heap: BinaryHeap::new(),
        }
    }
    /// A lower score than this is of no use; an equal one may be, by its id.
    pub fn least(&self) -> f32 {
        match self.heap.peek() {
            Some(worst) if self.heap.len() >= self.k => worst.score.max(self.floor),
            _ => self.floor,
        }
    }
    /// Offers a row.
    pub fn offer(&mut self, score: f32, ordinal: Ordinal, id: &'i str) {
        if score < self.floor {
            return;
        }
        let scored = Scored { score, id, ordinal };
        if self.heap.len() < self.k {
            self.heap.push(scored);
        } else if let Some(mut worst) = self.heap.peek_mut()
            && scored < *worst
        {
            *worst = scored;
        }
    }
    /// Best first.
    pub fn into_hits(self) -> Vec<(f32, Ordinal)> {
        let sorted = self.heap.into_sorted_vec();
        sorted.into_iter().map(|c| (c.score, c.ordinal)).collect()
    }
}

/// Windows that are scored before the others, to know a good k-th score: a few, and as many as hold k rows.
const SEEDS: usize = 8;
/// Words of a window's set of rows.
const WORDS: usize = WINDOW / 64;
/// Windows between two looks at the clock: some microseconds each.
const POLL: usize = 64;

/// Finds them. `rows` is the size of the segment.
pub fn search<'i, W: Weigher>(rows: u32, mut terms: Vec<Term<'_, W>>, wanted: &Wanted<'_, 'i>) -> Result<Top> {
    terms.sort_by(|a, b| b.bound.total_cmp(&a.bound));
    let bounds = window_bounds(rows, &terms);
    let mut run = Run {
        rows,
        wanted,
        candidates: Candidates::new(wanted),
        windows: 0,
        evaluated: 0,
        here: Vec::with_capacity(terms.len()),
    };
    let mut seeds = Vec::new();
    if wanted.walk == Walk::Pruned {
        seeds = best_windows(&bounds, SEEDS + wanted.k / WINDOW);
        for &window in &seeds {
            if !run.can_matter(bounds[window as usize]) {
                break;
            }
            for (i, term) in terms.iter().enumerate() {
                let blocks = &term.list.blocks;
                if let Ok(at) = blocks.binary_search_by_key(&window, |b| b.window) {
                    run.here.push((i, blocks[at]));
                }
            }
            run.window(window, &terms)?;
        }
        seeds.sort_unstable();
    }
    for (window, bound) in bounds.iter().enumerate() {
        if *bound == NOWHERE || !run.can_matter(*bound) {
            continue;
        }
        let window = window as u32;
        if seeds.binary_search(&window).is_ok() {
            continue;
        }
        for (i, term) in terms.iter_mut().enumerate() {
            let blocks = &term.list.blocks;
            while blocks.get(term.next).is_some_and(|b| b.window < window) {
                term.next += 1;
            }
            if let Some(block) = blocks.get(term.next).filter(|b| b.window == window) {
                run.here.push((i, *block));
            }
        }
        run.window(window, &terms)?;
    }
    let evaluated = run.evaluated;
    let hits = run.candidates.finish(wanted)?;
    Ok(Top { hits, evaluated })
}

/// The bound of a window in which no term stands.
const NOWHERE: f64 = f64::NEG_INFINITY;

fn window_bounds<W: Weigher>(rows: u32, terms: &[Term<'_, W>]) -> Vec<f64> {
    let mut bounds = vec![NOWHERE; rows.div_ceil(WINDOW as u32) as usize];
    for term in terms {
        for block in &term.list.blocks {
            let sum = &mut bounds[block.window as usize];
            *sum = sum.max(0.0) + term.weigher.bound(block.window, block.max).max(0.0);
        }
    }
    bounds
}

/// The windows with the largest bounds, the largest first.
fn best_windows(bounds: &[f64], n: usize) -> Vec<u32> {
    let mut windows: Vec<u32> = (0..bounds.len() as u32)
        .filter(|w| bounds[*w as usize] != NOWHERE)
        .collect();
    if windows.len() > n {
        windows.select_nth_unstable_by(n - 1, |a, b| bounds[*b as usize].total_cmp(&bounds[*a as usize]));
        windows.truncate(n);
    }
    windows.sort_unstable_by(|a, b| bounds[*b as usize].total_cmp(&bounds[*a as usize]));
    windows
}

/// The rows of a window in which a term stands.
fn touched<W: Weigher>(terms: &[Term<'_, W>], here: &[(usize, Block)]) -> [u64; WORDS] {
    let mut touched = [0u64; WORDS];
    for (i, block) in here {
        for low in terms[*i].list.postings(block).0 {
            touched[usize::from(*low) / 64] |= 1 << (low % 64);
        }
    }
    touched
}

/// The largest score, at least 0.
fn most(scores: &[f64; WINDOW]) -> f64 {
    // Eight at a time, which the compiler turns into vector instructions.
    let mut most = [0.0f64; 8];
    for chunk in scores.chunks_exact(8) {
        for (most, score) in most.iter_mut().zip(chunk) {
            *most = if *score > *most { *score } else { *most };
        }
    }
    most.into_iter().fold(0.0, f64::max)
}

/// Rows that may be among the best, by the sums of what terms add. A sum may be `error` off, so the k-th true score is at
/// least the k-th largest sum less `error`, and a row can reach it only if its sum is at least that less `error` once more.
struct Candidates {
    k: usize,
    /// What a sum must reach.
    least: f64,
    slack: f64,
    /// The k largest sums, the least on top.
    largest: BinaryHeap<Reverse<Sum>>,
    found: Vec<(f64, Ordinal)>,
    /// When so many are found, those that cannot be among the best any more are dropped.
    full: usize,
}

/// A finite sum.
struct Sum(f64);

impl Eq for Sum {}
impl PartialEq for Sum {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}
impl PartialOrd for Sum {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Sum {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl Candidates {
    fn new(wanted: &Wanted<'_, '_>) -> Self {
        let k = wanted.k.max(1);
        let mut new = Self {
            k,
            least: f64::NEG_INFINITY,
            slack: 2.0 * wanted.error,
            largest: BinaryHeap::new(),
            found: Vec::new(),
            full: 4 * k + 256,
        };
        new.raise(f64::from(wanted.floor) - wanted.error);
        new
    }

    fn raise(&mut self, least: f64) {
        // Scores are f32: what is below the smallest one is equal to it.
        if least > self.least && least > f64::from(f32::MIN) {
            self.least = least;
        }
    }

    fn offer(&mut self, sum: f64, ordinal: Ordinal) {
        self.found.push((sum, ordinal));
        if self.largest.len() < self.k {
            self.largest.push(Reverse(Sum(sum)));
        } else if let Some(mut least) = self.largest.peek_mut()
            && sum > least.0.0
        {
            *least = Reverse(Sum(sum));
        }
        if self.largest.len() == self.k
            && let Some(Reverse(Sum(kth))) = self.largest.peek()
        {
            let kth = kth.min(f64::from(f32::MAX));
            self.raise(kth - self.slack);
        }
        if self.found.len() >= self.full {
            let least = self.least;
            self.found.retain(|(sum, _)| *sum >= least);
            self.full = 2 * self.found.len() + 256;
        }
    }

    /// True scores, from the largest sum down, until no sum can reach the k-th of them.
    fn finish(mut self, wanted: &Wanted<'_, '_>) -> Result<Vec<(f32, Ordinal)>> {
        self.found.retain(|(sum, _)| *sum >= self.least);
        self.found.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
        let mut best = Best::new(self.k, wanted.floor);
        for (n, (sum, ordinal)) in self.found.into_iter().enumerate() {
            if f64::max(sum + wanted.error, f64::from(f32::MIN)) < f64::from(best.least()) {
                break;
            }
            if n % POLL == POLL - 1 && (wanted.stop)() {
                return Err(late("true scores", n));
            }
            if let Some(score) = (wanted.finish)(ordinal, sum)? {
                best.offer(score, ordinal, (wanted.id_of)(ordinal));
            }
        }
        Ok(best.into_hits())
    }
}

fn late(what: &str, n: usize) -> Error {
    Error::new(
        ErrorKind::Deadline,
        "deadline_exceeded",
        format!("the deadline passed during a search of postings, after {n} {what}"),
    )
}

/// A search under way.
struct Run<'w, 'a, 'i> {
    rows: u32,
    wanted: &'w Wanted<'a, 'i>,
    candidates: Candidates,
    windows: usize,
    evaluated: u64,
    /// The terms that stand in the window being scored, from the one that can give most; kept to reuse its memory.
    here: Vec<(usize, Block)>,
}

impl Run<'_, '_, '_> {
    /// Whether postings that give a row at most this sum are worth reading.
    fn can_matter(&self, sum: f64) -> bool {
        self.wanted.walk == Walk::All || sum >= self.candidates.least
    }

    fn window<W: Weigher>(&mut self, window: u32, terms: &[Term<'_, W>]) -> Result<()> {
        let here = std::mem::take(&mut self.here);
        let done = self.score(window, terms, &here);
        self.here = here;
        self.here.clear();
        done
    }

    fn score<W: Weigher>(&mut self, window: u32, terms: &[Term<'_, W>], here: &[(usize, Block)]) -> Result<()> {
        if self.windows.is_multiple_of(POLL) && (self.wanted.stop)() {
            return Err(late("windows of rows", self.windows));
        }
        self.windows += 1;
        let allowed: [u64; WORDS] =
            std::array::from_fn(|word| (self.wanted.allow)(window * WORDS as u32 + word as u32));
        if allowed == [0; WORDS] {
            return Ok(());
        }
        let bound = |(i, block): &(usize, Block)| terms[*i].weigher.bound(window, block.max).max(0.0);
        let mut left: f64 = here.iter().map(bound).sum();
        let mut scores = [0.0; WINDOW];
        for (n, place) in here.iter().enumerate() {
            // Whoever is best now, and whoever is not touched yet, can get at most `left` more. Finding the best costs as
            // much as adding a list, so it is done for every second one.
            if n % 2 == 1 && !self.can_matter(left) && !self.can_matter(most(&scores) + left) {
                return Ok(());
            }
            let (i, block) = place;
            let (lows, levels) = terms[*i].list.postings(block);
            terms[*i].weigher.add(window, lows, levels, &mut scores);
            self.evaluated += lows.len() as u64;
            left -= bound(place);
        }
        // A row that no term touched has a sum of 0. Only where 0 is not too little it must be told from one that is touched.
        let touched = if self.candidates.least > 0.0 {
            [u64::MAX; WORDS]
        } else {
            touched(terms, here)
        };
        for word in 0..WORDS {
            let mut candidates = touched[word] & allowed[word];
            while candidates != 0 {
                let low = word as u32 * 64 + candidates.trailing_zeros();
                candidates &= candidates - 1;
                let sum = scores[low as usize];
                if sum < self.candidates.least {
                    continue;
                }
                let ordinal = window * WINDOW as u32 + low;
                if ordinal >= self.rows {
                    return Err(Error::damaged("posting list: a row beyond the segment"));
                }
                self.candidates.offer(sum, ordinal);
            }
        }
        Ok(())
    }
}
