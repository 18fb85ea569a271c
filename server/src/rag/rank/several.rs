//! One list of the hits of several collections.
//!
//! Each collection was asked with the same legs. A leg's values are comparable where they are measured alike: cosines under
//! one embedder, BM25 over any collection (each with its own word statistics, as in federated search). Such lists are one
//! *scale*: they are put together, ranked by value, and cut to what one collection would have given. What follows is
//! the rule of a single collection: a leg alone on one scale keeps its scores; otherwise each scale is normalised over its
//! candidates to 0..1, and a hit's score is the weighted mean over the legs of its collection.
//!
//! So two collections with one embedder answer a dense question exactly as one collection with the points of both would,
//! and a hybrid one but for the word statistics. Ranks alone (RRF) would give every collection the same share of the head
//! of the list, whether it holds an answer or not.

use std::collections::{BTreeMap, HashMap};

/// What one leg found in one collection.
#[derive(Debug, Clone, PartialEq)]
pub struct Leg<K> {
    /// The collection, by its place in the request.
    pub collection: usize,
    /// What the leg is called in answers.
    pub name: String,
    /// Values under one scale can be compared.
    pub scale: String,
    /// How much the leg counts.
    pub weight: f32,
    /// The most hits of this scale.
    pub limit: usize,
    /// Best first.
    pub hits: Vec<Found<K>>,
}

/// A hit of one leg.
#[derive(Debug, Clone, PartialEq)]
pub struct Found<K> {
    /// What it is, within its collection.
    pub key: K,
    /// Orders the scale: higher is better.
    pub value: f32,
    /// 0..1, by the leg's own map.
    pub score: f32,
    /// As the leg reports it.
    pub raw: f32,
}

/// A hit of the joined list.
#[derive(Debug, Clone, PartialEq)]
pub struct Joined<K> {
    /// The collection, by its place in the request.
    pub collection: usize,
    /// What it is, within its collection.
    pub key: K,
    /// 0..1.
    pub score: f32,
    /// Raw value and rank in each leg that found it; ranks count over all collections of the scale.
    pub legs: Vec<(String, f32, u32)>,
}

/// Joins them, best first; ties by collection, then by key.
pub fn join<K: Clone + Ord + std::hash::Hash>(legs: Vec<Leg<K>>) -> Vec<Joined<K>> {
    let mut weights: HashMap<usize, f32> = HashMap::new();
    for leg in &legs {
        *weights.entry(leg.collection).or_default() += leg.weight;
    }
    let mut scales: BTreeMap<String, Vec<Leg<K>>> = BTreeMap::new();
    for leg in legs {
        scales.entry(leg.scale.clone()).or_default().push(leg);
    }
    let alone = scales.len() == 1;
    let mut joined: BTreeMap<(usize, K), (f32, Joined<K>)> = BTreeMap::new();
    for legs in scales.into_values() {
        let ranked = rank(&legs);
        let high = ranked.first().map_or(0.0, |(_, found)| found.value);
        let low = ranked.last().map_or(0.0, |(_, found)| found.value);
        for ((leg, found), rank) in ranked.into_iter().zip(1..) {
            let normal = if high > low {
                (found.value - low) / (high - low)
            } else {
                1.0
            };
            let entry = joined.entry((leg.collection, found.key.clone())).or_insert_with(|| {
                let hit = Joined {
                    collection: leg.collection,
                    key: found.key.clone(),
                    score: 0.0,
                    legs: Vec::new(),
                };
                (f32::NEG_INFINITY, hit)
            });
            let total = weights[&leg.collection];
            let (order, hit) = entry;
            if alone {
                (*order, hit.score) = (found.value, found.score);
            } else if total > 0.0 {
                hit.score = (hit.score + leg.weight * normal / total).min(1.0);
                *order = hit.score;
            }
            hit.legs.push((leg.name.clone(), found.raw, rank));
        }
    }
    // In the order of collection and key; sorting keeps it among equals.
    let mut all: Vec<(f32, Joined<K>)> = joined.into_values().collect();
    all.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    all.into_iter().map(|(_, hit)| hit).collect()
}

/// The hits of one scale, best first, cut to its limit.
fn rank<K: Ord>(legs: &[Leg<K>]) -> Vec<(&Leg<K>, &Found<K>)> {
    let limit = legs.iter().map(|leg| leg.limit).max().unwrap_or(0);
    let mut all: Vec<(&Leg<K>, &Found<K>)> = legs
        .iter()
        .flat_map(|leg| leg.hits.iter().map(move |found| (leg, found)))
        .collect();
    all.sort_by(|(a, x), (b, y)| {
        let ties = || (a.collection, &x.key).cmp(&(b.collection, &y.key));
        y.value.total_cmp(&x.value).then_with(ties)
    });
    all.truncate(limit);
    all
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn leg(collection: usize, name: &str, scale: &str, weight: f32, hits: &[(u32, f32)]) -> Leg<u32> {
        let found = |&(key, value): &(u32, f32)| Found {
            key,
            value,
            score: value / (value + 10.0),
            raw: value,
        };
        let (name, scale) = (name.to_owned(), scale.to_owned());
        Leg {
            collection,
            name,
            scale,
            weight,
            limit: 100,
            hits: hits.iter().map(found).collect(),
        }
    }

    fn order(joined: &[Joined<u32>]) -> Vec<(usize, u32)> {
        joined.iter().map(|hit| (hit.collection, hit.key)).collect()
    }

    #[test]
    fn one_leg_on_one_scale_keeps_its_scores() {
        let joined = join(vec![
            leg(0, "bm25", "bm25", 1.0, &[(1, 5.0), (2, 1.0)]),
            leg(1, "bm25", "bm25", 1.0, &[(1, 3.0)]),
        ]);
        assert_eq!(order(&joined), [(0, 1), (1, 1), (0, 2)]);
        assert_eq!(joined[1].score, 3.0 / 13.0);
        assert_eq!(joined[1].legs, [("bm25".to_owned(), 3.0, 2)]);
    }

    #[test]
    fn a_collection_without_an_answer_gets_no_share_of_the_head() {
        let joined = join(vec![
            leg(0, "dense", "m", 0.3, &[(1, 0.9), (2, 0.8), (3, 0.7)]),
            leg(1, "dense", "m", 0.3, &[(4, 0.2), (5, 0.1)]),
            leg(0, "bm25", "bm25", 1.0, &[(1, 9.0), (2, 8.0)]),
            leg(1, "bm25", "bm25", 1.0, &[(4, 0.5)]),
        ]);
        assert_eq!(order(&joined), [(0, 1), (0, 2), (0, 3), (1, 4), (1, 5)]);
    }

    #[test]
    fn embedders_that_cannot_be_compared_are_normalised_apart() {
        let joined = join(vec![
            leg(0, "dense", "a", 1.0, &[(1, 0.9), (2, 0.5)]),
            leg(1, "dense", "b", 1.0, &[(1, 0.3), (2, 0.1)]),
        ]);
        assert_eq!(order(&joined), [(0, 1), (1, 1), (0, 2), (1, 2)]);
        assert_eq!(
            joined.iter().map(|hit| hit.score).collect::<Vec<_>>(),
            [1.0, 1.0, 0.0, 0.0]
        );
    }

    #[test]
    fn a_collection_that_has_only_words_is_not_punished_for_it() {
        let joined = join(vec![
            leg(0, "dense", "m", 0.3, &[(1, 0.9), (2, 0.1)]),
            leg(0, "bm25", "bm25", 1.0, &[(2, 4.0), (1, 1.0)]),
            leg(1, "bm25", "bm25", 1.0, &[(3, 9.0)]),
        ]);
        assert_eq!(order(&joined)[0], (1, 3));
        assert_eq!(joined[0].score, 1.0);
    }

    /// Values of hits 0, 1, .., all different: which of equal ones is cut off depends on what breaks the tie.
    fn distinct() -> impl Strategy<Value = Vec<u8>> {
        (1u8..30).prop_flat_map(|n| Just((0..n).collect::<Vec<u8>>()).prop_shuffle())
    }

    proptest! {
        /// The claim of the module's head, for any hits parted in any way.
        #[test]
        fn parted_hits_are_ranked_as_if_they_were_together(
            dense in distinct(), words in distinct(), parts in prop::collection::vec(0usize..3, 30), limit in 1usize..40,
        ) {
            let list = |values: &[u8], name: &str, weight, part: Option<usize>| {
                let mut hits: Vec<(u32, f32)> = (0u32..).zip(values.iter().map(|v| f32::from(*v))).collect();
                hits.retain(|(key, _)| part.is_none_or(|part| parts[*key as usize] == part));
                hits.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
                hits.truncate(limit);
                Leg { limit, ..leg(part.unwrap_or(0), name, name, weight, &hits) }
            };
            let together = join(vec![list(&dense, "dense", 0.3, None), list(&words, "bm25", 1.0, None)]);
            let parted = join(
                (0..3).flat_map(|p| [list(&dense, "dense", 0.3, Some(p)), list(&words, "bm25", 1.0, Some(p))]).collect(),
            );
            let scores = |joined: &[Joined<u32>]| joined.iter().map(|hit| (hit.key, hit.score)).collect::<BTreeMap<_, _>>();
            prop_assert_eq!(scores(&together), scores(&parted));
            prop_assert!(parted.windows(2).all(|pair| pair[0].score >= pair[1].score));
            prop_assert!(parted.iter().all(|hit| (0.0..=1.0).contains(&hit.score)));
        }
    }
}
