//! How one leg searches one segment. A pure function of counts, so that it can be read and tested.

/// What is known before searching.
#[derive(Debug, Clone, Copy)]
pub struct Known {
    /// The segment has a graph.
    pub graph: bool,
    /// The segment has codes of its vectors.
    pub codes: bool,
    /// The caller wants an exact answer.
    pub exact: bool,
    /// Rows that live, have the vector and match the filter.
    pub matches: u64,
    /// Rows of the segment.
    pub rows: u64,
    /// Candidates a graph search keeps.
    pub ef: u64,
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
    /// Walk the graph; non-matching rows are passed through, never answered.
    Graph,
}

/// Distances a graph search evaluates for each candidate it keeps. Measured on our graphs at m = 16: 12 to 19 between
/// ef 20 and 200; a filter that keeps a share s of the rows multiplies it by 1/s.
const EVALUATIONS_PER_EF: u64 = 16;

/// Fewer matches are scored as they are: the best that codes find, measured again, would be most of them.
const CODES_MATCHES_MIN: u64 = 256;

/// Chooses the cheaper way by counting distances.
pub fn choose(known: Known) -> Strategy {
    if known.matches == 0 {
        return Strategy::Nothing;
    }
    if known.codes && !known.graph && !known.exact && known.matches >= CODES_MATCHES_MIN {
        return Strategy::Codes;
    }
    let graph_cost = u128::from(EVALUATIONS_PER_EF * known.ef) * u128::from(known.rows) / u128::from(known.matches);
    if known.exact || !known.graph || u128::from(known.matches) <= graph_cost {
        Strategy::Exact
    } else {
        Strategy::Graph
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(matches: u64, rows: u64, ef: u64) -> Strategy {
        choose(Known {
            graph: true,
            codes: true,
            exact: false,
            matches,
            rows,
            ef,
        })
    }

    #[test]
    fn few_matches_are_scanned_and_many_are_walked_to() {
        assert_eq!(plan(0, 100_000, 128), Strategy::Nothing);
        assert_eq!(plan(10, 100_000, 128), Strategy::Exact);
        assert_eq!(plan(10_000, 100_000, 128), Strategy::Exact);
        assert_eq!(plan(50_000, 100_000, 128), Strategy::Graph);
        assert_eq!(plan(100_000, 100_000, 128), Strategy::Graph);
        assert_eq!(plan(2_000, 2_000, 128), Strategy::Exact);
    }

    #[test]
    fn without_a_graph_or_when_told_everything_is_exact() {
        let known = Known {
            graph: false,
            codes: false,
            exact: false,
            matches: 1_000_000,
            rows: 1_000_000,
            ef: 10,
        };
        assert_eq!(choose(known), Strategy::Exact);
        assert_eq!(
            choose(Known {
                graph: true,
                exact: true,
                ..known
            }),
            Strategy::Exact
        );
    }

    #[test]
    fn many_matches_without_a_graph_are_scanned_by_code_unless_told_otherwise() {
        let known = Known {
            graph: false,
            codes: true,
            exact: false,
            matches: 4_000,
            rows: 4_000,
            ef: 10,
        };
        assert_eq!(choose(known), Strategy::Codes);
        assert_eq!(choose(Known { matches: 20, ..known }), Strategy::Exact);
        assert_eq!(choose(Known { exact: true, ..known }), Strategy::Exact);
    }
}
