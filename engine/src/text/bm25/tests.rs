//! Scores equal those of the textbook, written over plain strings.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;
use crate::schema::AnalyzerSpec;
use crate::text::postings::{TextIndexBuilder, TextIndexLayout};

/// A row: its words (none: it lacks the field) and whether it is dead.
type Row = (Option<Vec<&'static str>>, bool);

const WORDS: [&str; 6] = ["raft", "log", "leader", "term", "vote", "quorum"];

fn build(rows: &[Row]) -> Vec<u8> {
    let mut builder = TextIndexBuilder::new();
    for (ordinal, (words, _)) in rows.iter().enumerate() {
        if let Some(words) = words {
            builder.add(ordinal as Ordinal, |sink| words.iter().for_each(|word| sink(word)));
        }
    }
    builder.finish(rows.len() as u32)
}

/// Scores of all rows, segment after segment, as a query computes them; dead rows get none.
fn scores(segments: &[Vec<Row>], query: &[(&str, u32)]) -> Vec<Option<f32>> {
    let indexes: Vec<Vec<u8>> = segments.iter().map(|rows| build(rows)).collect();
    let views: Vec<TextIndexView<'_>> = indexes
        .iter()
        .map(|bytes| TextIndexLayout::parse(bytes).unwrap().view(bytes))
        .collect();
    let dead: Vec<_> = segments
        .iter()
        .map(|rows| |ordinal: Ordinal| rows[ordinal as usize].1)
        .collect();
    // A segment without dead rows takes the short way.
    let is_dead = |at: usize| -> IsDead<'_> {
        if segments[at].iter().any(|(_, dead)| *dead) {
            Some(&dead[at])
        } else {
            None
        }
    };

    let mut stats = FieldStats::default();
    views
        .iter()
        .enumerate()
        .for_each(|(at, view)| stats.add(live_stats(view, is_dead(at))));
    let mut all = Vec::new();
    for (at, view) in views.iter().enumerate() {
        let mut scores = vec![0.0; view.rows() as usize];
        let (mut terms, mut expected) = (Vec::new(), 0);
        for &(term, count) in query {
            let df = (0..views.len())
                .map(|at| live_df(&views[at], term, is_dead(at)).unwrap())
                .sum();
            let weight = idf(stats.docs, df) * count as f32;
            terms.extend(Scored::new(*view, term, weight, stats.avg_len()).unwrap());
            expected += segments[at]
                .iter()
                .filter(|(words, _)| words.iter().flatten().any(|word| *word == term))
                .count();
        }
        let ask = Ask {
            k: scores.len().max(1),
            floor: 0.0,
            allow: &|_| u64::MAX,
            id_of: &|_| "",
            stop: &|| false,
        };
        let top = search(view.rows(), &terms, Walk::All, &ask).unwrap();
        assert_eq!(top.evaluated as usize, expected);
        top.hits
            .iter()
            .for_each(|(score, ordinal)| scores[*ordinal as usize] = *score);
        all.extend(
            scores
                .iter()
                .zip(&segments[at])
                .map(|(score, (_, dead))| (!dead).then_some(*score)),
        );
    }
    all
}

/// BM25 by its definition, in f64, over the live rows of everything.
fn scores_by_the_book(segments: &[Vec<Row>], query: &[(&str, u32)]) -> Vec<Option<f32>> {
    let live: Vec<&Vec<&str>> = segments
        .iter()
        .flatten()
        .filter(|(_, dead)| !dead)
        .filter_map(|(words, _)| words.as_ref())
        .collect();
    let docs = live.len() as f64;
    let avg_len = live.iter().map(|words| words.len()).sum::<usize>() as f64 / docs;
    let score = |words: &Vec<&str>| -> f64 {
        let occurrences = query
            .iter()
            .flat_map(|&(term, count)| std::iter::repeat_n(term, count as usize));
        occurrences
            .map(|term| {
                let tf = words.iter().filter(|word| **word == term).count() as f64;
                let df = live.iter().filter(|words| words.contains(&term)).count() as f64;
                let idf = (1.0 + (docs - df + 0.5) / (df + 0.5)).ln();
                if tf == 0.0 {
                    0.0
                } else {
                    idf * tf / (tf + 1.2 * (0.25 + 0.75 * words.len() as f64 / avg_len))
                }
            })
            .sum()
    };
    let scored = |(words, dead): &Row| (!dead).then(|| words.as_ref().map_or(0.0, |words| score(words) as f32));
    segments.iter().flatten().map(scored).collect()
}

#[test]
fn one_score_by_hand() {
    // Two rows of mean length 2; "raft" in one of them, twice: ln(1 + 1.5/1.5) * 2 / (2 + 1.2 * (0.25 + 0.75 * 3/2)).
    let rows = vec![(Some(vec!["raft", "log", "raft"]), false), (Some(vec!["log"]), false)];
    let got = scores(&[rows], &[("raft", 1)]);
    let expected = 2.0_f32.ln() * 2.0 / (2.0 + 1.2 * (0.25 + 0.75 * 1.5));
    assert!(
        (got[0].unwrap() - expected).abs() < 1e-6 && got[1] == Some(0.0),
        "{got:?} {expected}"
    );
}

#[test]
fn idf_falls_with_df_and_is_never_negative() {
    assert_eq!(idf(10, 0), 22.0_f32.ln());
    assert!((1..=10).all(|df| idf(10, df) < idf(10, df - 1) && idf(10, df) > 0.0));
    // More rows than there are cannot be, but must not poison scores.
    assert_eq!(idf(10, 11), idf(10, 10));
    assert!(idf(0, 0).is_finite());
}

#[test]
fn statistics_of_nothing_divide_safely() {
    assert_eq!(FieldStats::default().avg_len(), 1.0);
    assert_eq!(FieldStats { docs: 3, total_len: 0 }.avg_len(), 1.0);
    assert_eq!(FieldStats { docs: 2, total_len: 5 }.avg_len(), 2.5);
}

#[test]
fn repeated_query_terms_are_counted() {
    let analyzer = Analyzer::new(&AnalyzerSpec::default()).unwrap();
    let terms = query_terms(&analyzer, "the leader of leaders elects");
    assert_eq!(
        terms.into_iter().collect::<Vec<_>>(),
        [("elect".to_owned(), 1), ("leader".to_owned(), 2)]
    );
}

/// The best k of all, found with pruning, are the first k of everything scored.
#[test]
fn pruning_loses_nothing() {
    let mut seed = 5u32;
    let mut random = |n: u32| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 16) % n
    };
    let rows: Vec<Row> = (0..5_000)
        .map(|i| {
            let words = (0..1 + random(30)).map(|_| WORDS[random(6).min(random(6)) as usize]);
            let mut words: Vec<&'static str> = words.collect();
            // Some rows repeat a word beyond what a level can say.
            if i % 997 == 5 {
                words.extend(std::iter::repeat_n("vote", 200 + random(400) as usize));
            }
            (Some(words), false)
        })
        .collect();
    let bytes = build(&rows);
    let view = TextIndexLayout::parse(&bytes).unwrap().view(&bytes);
    let ids: Vec<String> = (0..5_000u32).map(|i| i.reverse_bits().to_string()).collect();
    for query in [&WORDS[..1], &WORDS[3..5], &WORDS[..], &["vote", "raft"]] {
        let terms: Vec<Scored<'_>> = query
            .iter()
            .filter_map(|term| {
                let df = live_df(&view, term, None).unwrap();
                Scored::new(view, term, idf(5_000, df), 15.0).unwrap()
            })
            .collect();
        let find = |k, walk| {
            let ask = Ask {
                k,
                floor: f32::NEG_INFINITY,
                allow: &|_| 0xffff_0fff_ffff_ffff,
                id_of: &|o| ids[o as usize].as_str(),
                stop: &|| false,
            };
            search(view.rows(), &terms, walk, &ask).unwrap().hits
        };
        let all = find(5_000, Walk::All);
        for k in [1, 10, 100] {
            assert_eq!(find(k, Walk::Pruned), all[..k.min(all.len())], "{query:?} k={k}");
        }
    }
}

fn any_row() -> impl Strategy<Value = Row> {
    (
        option::weighted(0.9, vec(prop::sample::select(&WORDS[..]), 0..12)),
        prop::bool::weighted(0.2),
    )
}

proptest! {
    #[test]
    fn scores_are_those_of_the_book_however_rows_are_spread_and_die(
        segments in vec(vec(any_row(), 0..12), 1..4),
        query in vec((prop::sample::select(&WORDS[..]), 1_u32..3), 1..4),
    ) {
        let (got, expected) = (scores(&segments, &query), scores_by_the_book(&segments, &query));
        prop_assert_eq!(got.len(), expected.len());
        for (got, expected) in got.iter().zip(&expected) {
            prop_assert_eq!(got.is_some(), expected.is_some());
            prop_assert!((got.unwrap_or(0.0) - expected.unwrap_or(0.0)).abs() < 1e-4, "{:?} {:?}", got, expected);
        }
    }

    #[test]
    fn scores_do_not_depend_on_segments(rows in vec(any_row(), 1..20), at in any::<prop::sample::Index>()) {
        let (left, right) = rows.split_at(at.index(rows.len()));
        let query = [("raft", 1), ("vote", 2)];
        prop_assert_eq!(scores(&[left.to_vec(), right.to_vec()], &query), scores(&[rows], &query));
    }
}
