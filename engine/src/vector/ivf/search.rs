//! Looking into lists: the likeliest first, until none that is left is likely to hold anything nearer than what was found.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::f32::consts::FRAC_PI_2;
use std::ops::Range;

use super::Outlook;
use super::layout::{Centres, Ivf};
use crate::error::{Error, Result};
use crate::schema::Metric;
use crate::types::Ordinal;
use crate::vector::hnsw::{Effort, Walked};
use crate::vector::kernels::{self, PACK};
use crate::vector::near::{Near, four};
use crate::vector::packs::{PackScorer, Packs};
use crate::vector::space::QueryScorer;
use crate::vector::{Allow, BitSet, CodeScorer, Found, Meter, Scored, VectorIndex, VectorsRef, again, inv_norm};

/// Candidates by code that are kept to be measured again: so many times `k`, and so many more.
const KEPT: usize = 3;
const KEPT_MORE: usize = 48;
/// How many times as many a second look keeps, where all that the first one kept were so near each other that codes could not
/// tell which are the nearest.
const KEPT_AGAIN: usize = 8;
/// A row passes that is farther by its signs than what is kept by no more than so many times their usual error.
const DEVIATIONS: f32 = 1.0;
/// Of matches that are fewer than one in so many of a list each is measured at once.
const SIEVED: usize = 8;
/// Places that are asked for from memory before they are measured.
const AHEAD: usize = 8;
/// Matches around the query are as many as usual if they are so large a part of what their share of all rows says.
const USUAL: f64 = 0.5;
/// Lists that a graph over the centres is asked for at first, and how many times as many when they were not enough.
const ROUTES: usize = 128;
const ROUTES_MORE: usize = 4;

/// What a search found, and where.
#[derive(Debug, Clone, Default)]
pub struct Probed {
    /// The hits.
    pub found: Found,
    /// Lists whose records were read, those with a row that is allowed and seems near enough: each is one range of the file. Of two looks those
    /// of the second.
    pub lists: usize,
}

/// Beyond the trait's promises: `k` hits whenever `k` are allowed. `ef` means nothing here.
impl VectorIndex for Ivf<'_> {
    fn search(
        &self,
        vectors: &VectorsRef<'_>,
        query: &[f32],
        k: usize,
        _ef: usize,
        allow: &Allow<'_>,
        stop: &dyn Fn() -> bool,
    ) -> Result<Found> {
        Ok(self.probe(vectors, query, k, None, allow, stop)?.found)
    }
}

impl Ivf<'_> {
    /// The same as [`VectorIndex::search`], in as many lists as the caller says, if it says so, and as many more as `k` hits
    /// take.
    pub fn probe(
        &self,
        vectors: &VectorsRef<'_>,
        query: &[f32],
        k: usize,
        nprobe: Option<usize>,
        allow: &Allow<'_>,
        stop: &dyn Fn() -> bool,
    ) -> Result<Probed> {
        vectors.check_query(query)?;
        if (vectors.metric, vectors.dim, vectors.len()) != (self.metric, self.centres.vectors.dim, self.rows) {
            return Err(Error::damaged(format!(
                "lists over {} rows, {} vectors of others",
                self.rows,
                vectors.len()
            )));
        }
        if k == 0 {
            return Ok(Probed::default());
        }
        let exactly = vectors.scorer(query);
        let mut meter = Meter::new(stop);
        let query = Aimed::new(self.metric, query);
        let Some(codes) = self.codes else {
            let mut best = Best::new(k, k);
            let lists = self.look(&query, &mut Rows(exactly), None, nprobe, allow, &mut best, &mut meter)?;
            let mut hits = best.kept;
            hits.sort_unstable();
            hits.truncate(k);
            return Ok(Probed {
                found: Found {
                    hits,
                    evaluated: meter.evaluated,
                },
                lists,
            });
        };
        let mut by_code = codes.scorer(query.given);
        let sieve = self.packs.map(|packs| Sieve::new(self, packs, query.given));
        let mut keep = k.saturating_mul(KEPT).saturating_add(KEPT_MORE);
        let mut buffer = Vec::new();
        let mut may_look_again = true;
        loop {
            let mut best = Best::new(k, keep);
            // A second look is for what the first one missed, by whatever it went.
            let sieve = sieve.as_ref().filter(|_| may_look_again);
            let lists = self.look(&query, &mut by_code, sieve, nprobe, allow, &mut best, &mut meter)?;
            let mut hits = best.kept;
            hits.sort_unstable();
            let all = hits.len() < keep;
            hits.truncate(keep);
            let told = again::measure(&mut hits, &mut buffer, &exactly, k, &mut meter)?;
            if told.surely() || all || !may_look_again {
                hits.truncate(k);
                return Ok(Probed {
                    found: Found {
                        hits,
                        evaluated: meter.evaluated,
                    },
                    lists,
                });
            }
            keep = keep.saturating_mul(KEPT_AGAIN);
            may_look_again = false;
        }
    }

    /// Looks into lists, until what is left is not worth it. Returns of how many it read records.
    #[expect(clippy::too_many_arguments, reason = "what a search is made of, once")]
    fn look(
        &self,
        query: &Aimed<'_>,
        measure: &mut impl Measure,
        sieve: Option<&Sieve<'_>>,
        nprobe: Option<usize>,
        allow: &Allow<'_>,
        best: &mut Best,
        meter: &mut Meter<'_>,
    ) -> Result<usize> {
        let mut router = Router::new(self, query, nprobe, meter)?;
        // Of rows that match one in so many, the k-th lies where the so many times k-th of all does.
        let matches = match allow {
            Allow::All => self.order.len(),
            Allow::Only(set) => set.count(),
        };
        let share = matches as f64 / self.order.len().max(1) as f64;
        let (mut looked, mut read, mut seen, mut fit) = (0, 0, 0, 0);
        // None if rows that match are fewer around the query than anywhere. Known once there are k of them.
        let mut width: Option<Option<usize>> = None;
        let (mut fitting, mut passed) = (Vec::new(), Vec::new());
        while let Some((list, outlook, next)) = router.next(self, query, meter)? {
            if best.has_k() {
                let width = *width.get_or_insert_with(|| {
                    let around = fit as f64 / seen as f64;
                    (around >= USUAL * share).then(|| self.width(best.k as f64 / around.min(share)))
                });
                let enough = match (nprobe, width) {
                    (Some(nprobe), _) => looked >= nprobe,
                    (None, Some(width)) => looked >= width || outlook.best(self.look.reach) > best.kth(),
                    (None, None) => false,
                };
                if enough {
                    break;
                }
                // Hits that are far from the query are among many rows that are about as far, in any list.
                let far_reach = self.far_reach.max(self.look.reach);
                if nprobe.is_none() && outlook.best(far_reach) > best.kth() {
                    continue;
                }
            }
            let places = self.places(list);
            seen += places.len();
            if let Allow::Only(set) = allow {
                // What does not match costs a look at one bit, and a list of nothing else counts for nothing.
                fitting.clear();
                fitting.extend(places.clone().filter(|place| set.contains(self.order[*place])));
                if fitting.is_empty() {
                    continue;
                }
                fit += fitting.len();
            } else {
                fit += places.len();
            }
            looked += 1;
            if let Some(next) = next {
                self.centres.vectors.prefetch(next);
                match sieve {
                    Some(sieve) if best.edge.is_some() => sieve.prefetch(self.places(next)),
                    _ => measure.prefetch(self, next),
                }
            }
            // What is worth a look at its record: until there are enough candidates everything is.
            let few = matches!(allow, Allow::Only(_)) && fitting.len() * SIEVED < places.len();
            let edge = sieve.zip(best.edge).map(|(sieve, edge)| {
                let edge = edge + sieve.doubt(outlook, self.spreads[list as usize]);
                (sieve, edge)
            });
            let passed = match edge {
                // What is no number leaves nothing out.
                Some((sieve, edge)) if !few && edge.is_finite() && outlook.base.is_finite() => {
                    passed.clear();
                    match allow {
                        Allow::All => sieve.pass(packs_of(&places), outlook, edge, &mut passed, meter)?,
                        Allow::Only(_) => sieve.pass(packs_at(&fitting), outlook, edge, &mut passed, meter)?,
                    }
                    Some(&passed)
                }
                _ if matches!(allow, Allow::Only(_)) => Some(&fitting),
                _ => None,
            };
            if passed.is_some_and(Vec::is_empty) {
                continue;
            }
            read += 1;
            if self.touch.is_some_and(|touch| !touch.touch(list)) {
                continue;
            }
            measure.begin(outlook);
            match passed {
                None => {
                    for from in places.clone().step_by(4) {
                        let some = (places.end - from).min(4);
                        meter.add(some)?;
                        let four = [0, 1, 2, 3].map(|i: usize| from + i.min(some - 1));
                        let distances = measure.four(self, four);
                        for i in 0..some {
                            best.offer(distances[i], self.order[four[i]]);
                        }
                    }
                }
                Some(passed) => {
                    passed
                        .iter()
                        .take(AHEAD)
                        .for_each(|place| measure.prefetch_place(*place));
                    for (i, places) in passed.chunks(4).enumerate() {
                        let later = passed.iter().skip(4 * i + AHEAD).take(4);
                        later.for_each(|place| measure.prefetch_place(*place));
                        meter.add(places.len())?;
                        let distances = measure.four(self, four_places(places));
                        for (place, distance) in places.iter().zip(distances) {
                            best.offer(distance, self.order[*place]);
                        }
                    }
                }
            }
        }
        Ok(read)
    }
}

/// The packs that places stand in, and which of their thirty-two those are.
pub(super) fn packs_of(places: &Range<usize>) -> impl Iterator<Item = (usize, u32)> {
    let (start, end) = (places.start, places.end);
    let packs = start / PACK..end.div_ceil(PACK);
    packs.map(move |pack| {
        let first = pack * PACK;
        let (from, to) = (start.max(first) - first, end.min(first + PACK) - first);
        (pack, ((1u64 << to) - (1u64 << from)) as u32)
    })
}

/// The same of some places, ascending.
pub(super) fn packs_at(places: &[usize]) -> impl Iterator<Item = (usize, u32)> {
    let packs = places.chunk_by(|a, b| a / PACK == b / PACK);
    packs.map(|places| {
        let bits = places.iter().map(|place| 1u32 << (place % PACK));
        (places[0] / PACK, bits.sum())
    })
}

/// Looks at rows by a bit of each dimension, thirty-two at a time, and lets those pass that may be nearer than what is kept.
///
/// With `r` what a row differs from its centre by, `s` its signs and `f·s` what stands for it ([`packs`](crate::vector::packs)), `f·|s|` is
/// `|r|/ρ`, and with a random rotation `ρ` is about `√(2/π)` (Gao & Long, "RaBitQ", 2024): so what is missing, which stands at a right angle
/// to `r`, is `|r|·√(1/ρ² - 1)` long, and its product with what the query differs from the centre by has that over `√d` as deviation. Beside it
/// stands what the query's tables are off by, times `f`, which is about `|r|·√(π/2)/√d`: that is as large wherever the query is.
struct Sieve<'a> {
    scorer: PackScorer<'a>,
    metric: Metric,
    /// For a row that is one from the centre: by what is missing, for a query that is one from it, and by tables.
    missing: f32,
    tables: f32,
}

impl<'a> Sieve<'a> {
    fn new(ivf: &Ivf<'_>, packs: Packs<'a>, query: &[f32]) -> Self {
        let scorer = packs.scorer(query);
        let weight = match ivf.metric {
            Metric::Euclid => 2.0,
            // The nearest by inner product are rows that are longer than others, and farther from their centre.
            Metric::Dot => 2.0,
            Metric::Cosine | Metric::Manhattan | Metric::Hamming => 1.0,
        };
        let weight = DEVIATIONS * weight / (ivf.centres.vectors.dim as f32).sqrt();
        Self {
            missing: weight * (FRAC_PI_2 - 1.0).sqrt(),
            tables: weight * FRAC_PI_2.sqrt() * scorer.deviation(),
            scorer,
            metric: ivf.metric,
        }
    }

    /// How much nearer than it seems a row of a list may be.
    fn doubt(&self, outlook: Outlook, spread: f32) -> f32 {
        let aside = match self.metric {
            // Of a centre that is shorter than its rows by what they differ by.
            Metric::Cosine => (2.0 * outlook.base - spread * spread).max(0.0).sqrt(),
            Metric::Euclid => outlook.base.max(0.0).sqrt(),
            Metric::Dot => self.scorer.beyond_mean(),
            Metric::Manhattan | Metric::Hamming => f32::INFINITY,
        };
        spread * (self.missing * aside).hypot(self.tables)
    }

    /// Appends those of the places that seem nearer than the edge.
    fn pass(
        &self,
        packs: impl Iterator<Item = (usize, u32)>,
        outlook: Outlook,
        edge: f32,
        passed: &mut Vec<usize>,
        meter: &mut Meter<'_>,
    ) -> Result<()> {
        let mut estimates = [0f32; PACK];
        for (pack, wanted) in packs {
            meter.tick()?;
            let mut near = wanted & self.scorer.estimate_places(pack, outlook.base, edge, &mut estimates);
            while near != 0 {
                passed.push(pack * PACK + near.trailing_zeros() as usize);
                near &= near - 1;
            }
        }
        Ok(())
    }

    fn prefetch(&self, places: Range<usize>) {
        for pack in (places.start / PACK..places.end.div_ceil(PACK)).take(2) {
            self.scorer.prefetch(pack as Ordinal);
        }
    }
}

fn four_places(some: &[usize]) -> [usize; 4] {
    [0, 1, 2, 3].map(|i: usize| some[i.min(some.len() - 1)])
}

/// A query and what lists need of it.
struct Aimed<'q> {
    given: &'q [f32],
    /// Of unit length for cosine, which centres are measured by.
    for_centres: Option<Vec<f32>>,
    length: f32,
}

impl<'q> Aimed<'q> {
    fn new(metric: Metric, query: &'q [f32]) -> Self {
        let scaled = |scale: f32| query.iter().map(|x| x * scale).collect();
        Self {
            given: query,
            for_centres: (metric == Metric::Cosine).then(|| scaled(inv_norm(query))),
            length: match metric {
                Metric::Dot => kernels::dot(query, query).sqrt(),
                Metric::Cosine | Metric::Euclid | Metric::Manhattan | Metric::Hamming => 1.0,
            },
        }
    }

    fn for_centres(&self) -> &[f32] {
        self.for_centres.as_deref().unwrap_or(self.given)
    }
}

/// Which list is next.
struct Router<'a, 'q> {
    exactly: QueryScorer<'q>,
    /// Lists with the best that may be in them, and how far their centre is, about.
    open: BinaryHeap<Reverse<Scored>>,
    /// Lists that were asked for; fewer than all only where a graph finds them.
    asked: usize,
    /// Those that were found before.
    seen: Option<BitSet>,
    centres: Centres<'a>,
}

impl<'a, 'q> Router<'a, 'q>
where
    'a: 'q,
{
    fn new(ivf: &Ivf<'a>, query: &'q Aimed<'_>, nprobe: Option<usize>, meter: &mut Meter<'_>) -> Result<Self> {
        let centres = ivf.centres;
        let mut router = Self {
            exactly: centres.vectors.scorer(query.for_centres()),
            open: BinaryHeap::new(),
            asked: 0,
            seen: None,
            centres,
        };
        if centres.graph.is_some() {
            router.seen = Some(BitSet::new(ivf.lists()));
            let first = nprobe.map_or(ROUTES, |nprobe| nprobe.saturating_add(nprobe / 4).max(ROUTES));
            router.ask(ivf, query, first, meter)?;
        } else {
            router.ask(ivf, query, ivf.lists(), meter)?;
        }
        Ok(router)
    }

    /// The next list, what to expect of it, and perhaps the one after it.
    fn next(
        &mut self,
        ivf: &Ivf<'a>,
        query: &'q Aimed<'_>,
        meter: &mut Meter<'_>,
    ) -> Result<Option<(Ordinal, Outlook, Option<Ordinal>)>> {
        loop {
            if let Some(Reverse(list)) = self.open.pop() {
                // The order may be that of codes; what is answered from is exact. Counted, so that lists in which nothing matches
                // are not looked into for ever without a look at the time.
                meter.tick()?;
                let distance = self.exactly.distance(list.ordinal);
                let outlook = Outlook::of(ivf.metric, distance, ivf.spreads[list.ordinal as usize], query.length);
                let next = self.open.peek().map(|Reverse(next)| next.ordinal);
                return Ok(Some((list.ordinal, outlook, next)));
            }
            if self.asked >= ivf.lists() {
                return Ok(None);
            }
            self.ask(ivf, query, self.asked.saturating_mul(ROUTES_MORE), meter)?;
        }
    }

    /// Opens the `count` nearest lists, as far as they were not open before.
    fn ask(&mut self, ivf: &Ivf<'a>, query: &'q Aimed<'_>, count: usize, meter: &mut Meter<'_>) -> Result<()> {
        let centres = self.centres;
        let mut found: Vec<Scored> = Vec::new();
        match centres.graph {
            Some(graph) if count < ivf.lists() => {
                let effort = Effort::unbounded(count, count);
                let allow = Allow::All;
                match graph.search_within(&centres.vectors, query.for_centres(), effort, &allow, meter.stop)? {
                    Walked::Found(routes) => {
                        meter.add(routes.evaluated as usize)?;
                        found = routes.hits;
                    }
                    Walked::GaveUp { .. } => return Err(Error::internal("a walk without a limit gave up")),
                }
                self.asked = count;
            }
            _ => {
                meter.add(ivf.lists())?;
                let all: Vec<Ordinal> = (0..ivf.lists() as Ordinal).collect();
                found.reserve(all.len());
                match centres.vectors.codes {
                    Some(codes) => measure_all(&all, &codes.scorer(query.for_centres()), &mut found),
                    None => measure_all(&all, &self.exactly, &mut found),
                }
                self.asked = ivf.lists();
            }
        }
        let mut open = std::mem::take(&mut self.open).into_vec();
        for list in found {
            let spread = ivf.spreads[list.ordinal as usize];
            let is_new = self.seen.as_ref().is_none_or(|seen| !seen.contains(list.ordinal));
            if is_new && !ivf.places(list.ordinal).is_empty() {
                if let Some(seen) = &mut self.seen {
                    seen.set(list.ordinal);
                }
                let outlook = Outlook::of(ivf.metric, list.distance, spread, query.length);
                open.push(Reverse(Scored {
                    distance: outlook.best(ivf.look.reach),
                    ordinal: list.ordinal,
                }));
            }
        }
        self.open = BinaryHeap::from(open);
        Ok(())
    }
}

fn measure_all(all: &[Ordinal], near: &impl Near, found: &mut Vec<Scored>) {
    for some in all.chunks(4) {
        let distances = near.four(four(some, |list| *list));
        found.extend(some.iter().zip(distances).map(|(list, distance)| Scored {
            distance,
            ordinal: *list,
        }));
    }
}

/// Distances of the rows at some places of a list.
trait Measure {
    /// A list begins.
    fn begin(&mut self, outlook: Outlook);
    fn four(&self, ivf: &Ivf<'_>, places: [usize; 4]) -> [f32; 4];
    /// A list comes next.
    fn prefetch(&self, ivf: &Ivf<'_>, list: Ordinal);
    /// A place of this one comes soon.
    fn prefetch_place(&self, place: usize);
}

impl Measure for CodeScorer<'_> {
    fn begin(&mut self, outlook: Outlook) {
        self.begin_with(outlook.base);
    }
    #[inline]
    fn four(&self, _: &Ivf<'_>, places: [usize; 4]) -> [f32; 4] {
        CodeScorer::four(self, places.map(|place| place as Ordinal))
    }
    fn prefetch(&self, ivf: &Ivf<'_>, list: Ordinal) {
        let places = ivf.places(list);
        for place in places.take(4) {
            CodeScorer::prefetch(self, place as Ordinal);
        }
    }
    #[inline]
    fn prefetch_place(&self, place: usize) {
        CodeScorer::prefetch(self, place as Ordinal);
    }
}

/// Vectors as they were given, wherever they stand.
struct Rows<'a>(QueryScorer<'a>);

impl Measure for Rows<'_> {
    fn begin(&mut self, _: Outlook) {}
    #[inline]
    fn four(&self, ivf: &Ivf<'_>, places: [usize; 4]) -> [f32; 4] {
        self.0.four(places.map(|place| ivf.order[place]))
    }
    fn prefetch(&self, ivf: &Ivf<'_>, list: Ordinal) {
        for place in ivf.places(list).take(4) {
            Near::prefetch(&self.0, ivf.order[place]);
        }
    }
    fn prefetch_place(&self, _: usize) {}
}

/// The best so far. Most rows are farther than all that is kept, and cost one comparison.
struct Best {
    k: usize,
    keep: usize,
    /// At least the `keep` nearest, in no order.
    kept: Vec<Scored>,
    /// Nobody farther is kept; set once there are enough.
    edge: Option<f32>,
    /// The `k` nearest of them, the farthest on top.
    nearest: BinaryHeap<Scored>,
}

impl Best {
    fn new(k: usize, keep: usize) -> Self {
        Self {
            k,
            keep,
            kept: Vec::new(),
            edge: None,
            nearest: BinaryHeap::new(),
        }
    }

    #[inline]
    fn offer(&mut self, distance: f32, ordinal: Ordinal) {
        if self.edge.is_some_and(|edge| distance > edge) {
            return;
        }
        self.take(Scored { distance, ordinal });
    }

    fn take(&mut self, row: Scored) {
        self.kept.push(row);
        if self.nearest.len() < self.k {
            self.nearest.push(row);
        } else if let Some(mut farthest) = self.nearest.peek_mut()
            && row < *farthest
        {
            *farthest = row;
        }
        if self.kept.len() >= self.keep.saturating_mul(2).max(16) {
            self.kept.select_nth_unstable(self.keep - 1);
            self.kept.truncate(self.keep);
            self.edge = self.kept.last().map(|last| last.distance);
        }
    }

    fn has_k(&self) -> bool {
        self.nearest.len() >= self.k
    }

    /// How far the k-th is.
    fn kth(&self) -> f32 {
        match self.nearest.peek() {
            Some(farthest) if self.has_k() => farthest.distance,
            _ => f32::INFINITY,
        }
    }
}
