//! How one leg searches one segment: what each way would cost, in nanoseconds, and the cheapest of them. Pure functions of
//! counts, so that they can be read and tested.
//!
//! A search waits for memory, so a distance costs by the bytes it reads: those of a vector, or of its code, which of `f32` are a
//! quarter or an eighth. The constants are what 117,659 vectors of 384 dimensions with 8-bit codes cost on a machine that was
//! busy with other things (`measure_ways` in `vector/tests.rs` prints them; `cairn-bench kernels` has the distances alone). Only
//! their ratios decide anything, and where two ways cost about the same either will do.
//!
//! A scan costs what its matches cost. A walk comes by all rows that are nearer than the hits, which is little as long as matches
//! lie anywhere; where none lies near the query that may be nearly everything, and nothing that could be counted beforehand
//! says so. So a walk is told what the scan would cost, and gives up when it has spent that: no
//! filter, however it is correlated with the query, makes a search cost more than twice its cheapest scan.

/// What is known before searching.
#[derive(Debug, Clone, Copy)]
pub struct Known {
    /// The segment has a graph.
    pub graph: bool,
    /// The caller wants an exact answer.
    pub exact: bool,
    /// Rows that live, have the vector and match the filter.
    pub matches: u64,
    /// Rows of the segment.
    pub rows: u64,
    /// Hits wanted.
    pub k: u64,
    /// Candidates a graph search keeps.
    pub ef: u64,
    /// Bytes of a vector.
    pub vector_bytes: u64,
    /// Bytes of a code with its corrections, if the segment has codes of its vectors.
    pub code_bytes: Option<u64>,
    /// The segment has inverted lists.
    pub lists: Option<Listed>,
    /// The segment has an index of Faiss.
    pub faiss: Option<Asked>,
}

/// What an index of Faiss will be asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Asked {
    /// Candidates, each of which is measured on its vector.
    pub candidates: u64,
    /// Lists and how many of them are looked into, if it has lists.
    pub lists: Option<(u64, u64)>,
}

/// What is known of inverted lists.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Listed {
    /// How many there are.
    pub count: u64,
    /// The share of the rows that a search will come by.
    pub share: f64,
    /// What a row of them is measured by.
    pub bytes: u64,
    /// What it is looked at by before that, if lists have packs.
    pub sieve_bytes: Option<u64>,
    /// Bytes of a centre, as the nearest are sought.
    pub centre_bytes: u64,
}

/// How to search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strategy {
    /// No row matches.
    Nothing,
    /// Score every match.
    Exact,
    /// Score every match by its code, and the best of them again.
    Codes,
    /// Walk the graph, as long as that takes no more than so many distances.
    Graph {
        /// Where the walk gives up.
        evaluations_max: u64,
    },
    /// Look into the nearest inverted lists.
    Lists,
    /// Ask Faiss.
    Faiss,
}

/// A distance, however short the vectors.
const DISTANCE_NS: f64 = 5.0;
/// What each byte of it adds, at a place that was asked for from memory some distances before: about 45 ns a match by codes of
/// 448 bytes, 76 and more by vectors of 1,536.
const BYTE_NS: f64 = 0.08;
/// Finding the next match in a set, and comparing its distance with the best so far.
const MATCH_NS: f64 = 4.0;
/// What a walk does for each distance besides: links, what it has seen, its queue. A walk without a filter spends twice on a
/// distance what a scan does.
const STEP_NS: f64 = 50.0;
/// Distances of a walk for each candidate it keeps: 12 to 19 at m = 16 between `ef` 20 and 200.
const STEPS_PER_EF: f64 = 16.0;
/// Distances of the way down, and least of all.
const STEPS_MIN: f64 = 100.0;
/// What looking through others adds to each distance, for every row that does not match per row that does ...
const PASS_NS: f64 = 10.0;
/// ... up to those that an expansion meets.
const PASSED_MAX: f64 = 6.0;
/// Finding out that a row of a list does not match.
const LOOK_NS: f64 = 1.5;
/// Candidates by code that are measured again, for each hit and besides.
const AGAIN_PER_HIT: f64 = 2.0;
const AGAIN_MORE: f64 = 16.0;

impl Known {
    fn distance(bytes: u64) -> f64 {
        DISTANCE_NS + BYTE_NS * bytes as f64
    }

    /// Measuring again what codes put first, where there are codes.
    fn again(&self) -> f64 {
        match self.code_bytes.or(self.lists.map(|lists| lists.bytes)) {
            None => 0.0,
            Some(_) => {
                let most = AGAIN_PER_HIT * self.k as f64 + AGAIN_MORE;
                most.min(self.matches as f64) * Self::distance(self.vector_bytes)
            }
        }
    }

    /// A scan of the matches' vectors.
    fn exact_ns(&self) -> f64 {
        self.matches as f64 * (MATCH_NS + Self::distance(self.vector_bytes))
    }

    /// A scan of the matches' codes.
    fn codes_ns(&self) -> Option<f64> {
        let code_bytes = self.code_bytes?;
        Some(self.matches as f64 * (MATCH_NS + Self::distance(code_bytes)) + self.again())
    }

    /// One distance of a walk.
    fn step_ns(&self) -> f64 {
        STEP_NS + Self::distance(self.code_bytes.unwrap_or(self.vector_bytes))
    }

    /// A walk over matches that lie anywhere.
    fn graph_ns(&self) -> f64 {
        let others = (self.rows as f64 / self.matches as f64 - 1.0).max(0.0);
        // Matches among the best, and the others among the hits.
        let walked_to = self.ef as f64 + self.k as f64 * others;
        let steps = (STEPS_MIN + STEPS_PER_EF * walked_to).min(self.rows as f64);
        steps * (self.step_ns() + others.min(PASSED_MAX) * PASS_NS) + self.again()
    }
}

/// Rows of a pack cost a quarter of what one by one would: 52 bytes in 2.5 ns. Of WordNet's one in twenty is then measured by its code.
const SIEVED_TOGETHER: f64 = 4.0;
const PASSED: f64 = 0.05;
/// Of fewer matches than one row in so many none is sieved.
const SIEVED: u64 = 8;

impl Known {
    /// Inverted lists. At worst, whatever a filter has to do with the question, all of them: a look at each row, and what a scan
    /// of the matches costs, so nothing has to give up.
    fn lists_ns(&self, lists: Listed) -> f64 {
        let look = if self.matches < self.rows { LOOK_NS } else { 0.0 };
        let matches = self.matches as f64 * Self::distance(lists.bytes);
        let matches = match lists.sieve_bytes {
            // Packs are looked at whole.
            Some(bytes) if self.matches * SIEVED >= self.rows => {
                self.rows as f64 * Self::distance(bytes) / SIEVED_TOGETHER + matches * PASSED
            }
            _ => matches,
        };
        let rows = self.rows as f64 * look + matches;
        lists.count as f64 * Self::distance(lists.centre_bytes) + lists.share * rows + self.again()
    }
}

/// What an index of Faiss reads of a row, as a share of its vector: codes, as a rule.
const FAISS_SHARE: f64 = 0.25;

impl Known {
    /// Faiss. What its index does nobody told us: with lists it is taken for lists, else for a walk, and a filter for what has to be
    /// asked of each row.
    fn faiss_ns(&self, asked: Asked) -> f64 {
        let rows = self.rows as f64;
        let (centres, met) = match asked.lists {
            Some((lists, nprobe)) => (lists as f64, rows * (nprobe as f64 / lists.max(1) as f64).min(1.0)),
            None => (0.0, (STEPS_MIN + STEPS_PER_EF * asked.candidates as f64).min(rows)),
        };
        let vector = Self::distance(self.vector_bytes);
        let step = if asked.lists.is_some() { 0.0 } else { STEP_NS };
        let look = if self.matches < self.rows { LOOK_NS } else { 0.0 };
        let row = DISTANCE_NS + FAISS_SHARE * BYTE_NS * self.vector_bytes as f64 + step + look;
        centres * vector + met * row + (asked.candidates as f64).min(self.matches as f64) * vector
    }
}

/// The cheapest way to look at all matches.
pub fn scan(known: Known) -> Strategy {
    match known.codes_ns() {
        _ if known.matches == 0 => Strategy::Nothing,
        Some(codes_ns) if !known.exact && codes_ns < known.exact_ns() => Strategy::Codes,
        _ => Strategy::Exact,
    }
}

/// The cheapest way of all.
pub fn choose(known: Known) -> Strategy {
    let scan = scan(known);
    let scan_ns = match scan {
        Strategy::Codes => known.codes_ns().unwrap_or(f64::INFINITY),
        Strategy::Nothing | Strategy::Exact | Strategy::Graph { .. } | Strategy::Lists | Strategy::Faiss => {
            known.exact_ns()
        }
    };
    if let Some(asked) = known.faiss
        && !known.exact
        && known.matches > 0
        && known.faiss_ns(asked) < scan_ns
    {
        return Strategy::Faiss;
    }
    if let Some(lists) = known.lists
        && !known.exact
        && known.matches > 0
        && known.lists_ns(lists) < scan_ns
    {
        return Strategy::Lists;
    }
    if known.exact || !known.graph || known.graph_ns() >= scan_ns {
        return scan;
    }
    Strategy::Graph {
        evaluations_max: (scan_ns / known.step_ns()) as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(matches: u64, rows: u64) -> Known {
        Known {
            graph: true,
            exact: false,
            matches,
            rows,
            k: 10,
            ef: 128,
            vector_bytes: 1536,
            code_bytes: Some(448),
            lists: None,
            faiss: None,
        }
    }

    /// The same with lists, of which so large a share is read.
    fn listed(matches: u64, rows: u64, share: f64) -> Known {
        Known {
            graph: false,
            code_bytes: None,
            lists: Some(Listed {
                count: 4 * rows.isqrt(),
                share,
                bytes: 448,
                sieve_bytes: None,
                centre_bytes: 448,
            }),
            ..known(matches, rows)
        }
    }

    #[test]
    fn lists_are_looked_into_unless_few_rows_match() {
        assert_eq!(choose(listed(0, 100_000, 0.02)), Strategy::Nothing);
        assert_eq!(choose(listed(10, 100_000, 1.0)), Strategy::Exact);
        assert_eq!(choose(listed(10_000, 100_000, 0.1)), Strategy::Lists);
        assert_eq!(choose(listed(100_000, 100_000, 0.02)), Strategy::Lists);
        assert_eq!(
            choose(listed(1_000, 1_000, 1.0)),
            Strategy::Lists,
            "records are shorter"
        );
        let exact = Known {
            exact: true,
            ..listed(100_000, 100_000, 0.02)
        };
        assert_eq!(choose(exact), Strategy::Exact);
        // Packs make a look cheaper where many rows match, and nothing of it where few do.
        let ns = |matches, sieve_bytes| {
            let known = listed(matches, 100_000, 0.1);
            let lists = known.lists.map(|lists| Listed { sieve_bytes, ..lists });
            known.lists_ns(lists.unwrap())
        };
        assert!(3.0 * ns(100_000, Some(52)) < 2.0 * ns(100_000, None));
        assert_eq!(ns(10_000, Some(52)), ns(10_000, None));
        assert!(
            ns(20_000, Some(52)) > ns(100_000, Some(52)) / 2.0,
            "they are looked at whole"
        );
    }

    #[test]
    fn faiss_is_asked_unless_few_rows_match() {
        let known = |matches, candidates, lists| Known {
            graph: false,
            code_bytes: None,
            faiss: Some(Asked { candidates, lists }),
            ..known(matches, 100_000)
        };
        for lists in [None, Some((1024, 16))] {
            assert_eq!(choose(known(0, 128, lists)), Strategy::Nothing);
            assert_eq!(choose(known(10, 128, lists)), Strategy::Exact);
            assert_eq!(choose(known(100_000, 128, lists)), Strategy::Faiss);
            let exact = Known {
                exact: true,
                ..known(100_000, 128, lists)
            };
            assert_eq!(choose(exact), Strategy::Exact);
        }
        assert_eq!(
            choose(known(1_000, 10_000, None)),
            Strategy::Exact,
            "what a filter asks for"
        );
    }

    fn is_graph(strategy: Strategy) -> bool {
        matches!(strategy, Strategy::Graph { .. })
    }

    #[test]
    fn few_matches_are_scanned_some_by_code_and_many_are_walked_to() {
        assert_eq!(choose(known(0, 100_000)), Strategy::Nothing);
        assert_eq!(choose(known(10, 100_000)), Strategy::Exact);
        assert_eq!(choose(known(1_000, 100_000)), Strategy::Codes);
        assert!(is_graph(choose(known(50_000, 100_000))));
        assert!(is_graph(choose(known(100_000, 100_000))));
        assert!(is_graph(choose(known(100_000, 2_000_000))));
        assert_eq!(choose(known(2_000, 2_000)), Strategy::Codes, "a small segment");
    }

    #[test]
    fn a_code_costs_less_than_the_vector_it_stands_for() {
        let coded = known(30_000, 100_000);
        let floats = Known {
            code_bytes: None,
            ..coded
        };
        assert!(coded.codes_ns().unwrap() * 2.0 < floats.exact_ns());
        assert!(coded.graph_ns() * 1.5 < floats.graph_ns());
    }

    #[test]
    fn without_a_graph_or_when_told_everything_is_scanned() {
        let all = known(1_000_000, 1_000_000);
        let floats = Known {
            code_bytes: None,
            ..all
        };
        for (known, expected) in [
            (Known { graph: false, ..all }, Strategy::Codes),
            (Known { graph: false, ..floats }, Strategy::Exact),
            (Known { exact: true, ..all }, Strategy::Exact),
            (Known { exact: true, ..floats }, Strategy::Exact),
        ] {
            assert_eq!(choose(known), expected, "{known:?}");
        }
    }

    #[test]
    fn more_matches_never_make_a_scan_of_a_walk_and_a_walk_never_costs_more_than_the_scan_it_replaces() {
        for code_bytes in [None, Some(64), Some(448)] {
            for k in [1, 10, 100, 10_000] {
                for rows in [100, 10_000, 1_000_000] {
                    let mut walked = false;
                    for percent in 1..=100 {
                        let matches = rows * percent / 100;
                        let known = Known {
                            code_bytes,
                            k,
                            ef: k.max(128),
                            ..known(matches, rows)
                        };
                        let strategy = choose(known);
                        assert!(!walked || is_graph(strategy), "{known:?}: {strategy:?}");
                        walked = is_graph(strategy);
                        if let Strategy::Graph { evaluations_max } = strategy {
                            let scan_ns = known.exact_ns().min(known.codes_ns().unwrap_or(f64::MAX));
                            assert!(evaluations_max as f64 * known.step_ns() <= scan_ns);
                            assert!(known.graph_ns() < scan_ns);
                        }
                    }
                }
            }
        }
    }
}
