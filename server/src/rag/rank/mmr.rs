//! Diversity: maximal marginal relevance (J. Carbonell, J. Goldstein: The use of MMR, diversity-based reranking for
//! reordering documents and producing summaries, 1998).
//!
//! Greedy: of what is left, the one with the largest `lambda * relevance - (1 - lambda) * similarity` to the most similar
//! one chosen before. Similarity is the cosine, whatever the metric of the vectors, and nothing below 0: opposite
//! directions are not more different than unrelated ones. Relevance is stretched to 0..1 over the hits given, or `lambda`
//! would mean another thing for scores that lie close together (RRF) than for others.

use super::GoOn;

/// A hit's vector. Those of different spaces, as two embedders make them, cannot be compared.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Embedded<'a> {
    /// Equal numbers are one space.
    pub space: usize,
    /// In it.
    pub vector: &'a [f32],
}

/// The order in which hits are taken, `wanted` of them at most. `relevance` and `vectors` are of one length, best first.
/// A hit is similar to none of another space, and to none at all if it has no
/// vector. Equal values: the better-ranked first, so the first is always the best.
pub fn mmr(
    relevance: &[f32],
    vectors: &[Option<Embedded<'_>>],
    lambda: f32,
    wanted: usize,
    go_on: GoOn<'_>,
) -> cairn_engine::Result<Vec<usize>> {
    debug_assert_eq!(relevance.len(), vectors.len());
    let relevance = stretched(relevance);
    let norms: Vec<f32> = vectors
        .iter()
        .map(|v| v.map_or(0.0, |v| dot(v.vector, v.vector).sqrt()))
        .collect();
    // What is left, with its similarity to the most similar one chosen.
    let mut left: Vec<(usize, f32)> = (0..relevance.len()).map(|hit| (hit, 0.0)).collect();
    let mut chosen = Vec::with_capacity(wanted.min(left.len()));
    while chosen.len() < wanted && !left.is_empty() {
        go_on()?;
        let value = |(hit, similar): (usize, f32)| lambda * relevance[hit] - (1.0 - lambda) * similar;
        let best = (1..left.len()).fold(
            0,
            |best, at| if value(left[at]) > value(left[best]) { at } else { best },
        );
        let (hit, _) = left.remove(best);
        chosen.push(hit);
        for (other, similar) in &mut left {
            if let (Some(a), Some(b)) = (vectors[hit], vectors[*other])
                && a.space == b.space
            {
                let norm = norms[hit] * norms[*other];
                let cosine = if norm > 0.0 {
                    dot(a.vector, b.vector) / norm
                } else {
                    // Zeros have no direction, but are like each other.
                    f32::from(u8::from(a.vector == b.vector))
                };
                *similar = similar.max(cosine);
            }
        }
    }
    Ok(chosen)
}

/// To 0..1, the order of the list kept: where a list is not ordered by its scores (hits that a reranker had no time for
/// stand behind those it scored), a hit is as relevant as the least before it.
fn stretched(scores: &[f32]) -> Vec<f32> {
    let mut least = f32::INFINITY;
    let falling: Vec<f32> = scores
        .iter()
        .map(|score| {
            least = least.min(*score);
            least
        })
        .collect();
    let (Some(high), Some(low)) = (falling.first().copied(), falling.last().copied()) else {
        return falling;
    };
    let span = high - low;
    let stretch = |score: f32| if span > 0.0 { (score - low) / span } else { 1.0 };
    falling.into_iter().map(stretch).collect()
}

/// In four lanes, so that the compiler can use vectors of floats.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0_f32; 4];
    let (a4, b4) = (a.chunks_exact(4), b.chunks_exact(4));
    let tail: f32 = a4.remainder().iter().zip(b4.remainder()).map(|(x, y)| x * y).sum();
    for (x, y) in a4.zip(b4) {
        for lane in 0..4 {
            lanes[lane] += x[lane] * y[lane];
        }
    }
    lanes.iter().sum::<f32>() + tail
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn order(scores: &[f32], vectors: &[&[f32]], lambda: f32, wanted: usize) -> Vec<usize> {
        let vectors: Vec<_> = vectors
            .iter()
            .map(|vector| Some(Embedded { space: 0, vector }))
            .collect();
        mmr(scores, &vectors, lambda, wanted, &|| Ok(())).unwrap()
    }

    #[test]
    fn a_twin_of_what_was_chosen_waits_behind_something_new() {
        let twins: [&[f32]; 3] = [&[1.0, 0.0], &[1.0, 0.0], &[0.0, 1.0]];
        assert_eq!(order(&[0.9, 0.89, 0.5], &twins, 0.4, 3), [0, 2, 1]);
        assert_eq!(order(&[0.9, 0.89, 0.5], &twins, 1.0, 3), [0, 1, 2]);
        assert_eq!(order(&[0.9, 0.89, 0.5], &twins, 0.4, 2), [0, 2]);
        assert_eq!(order(&[], &[], 0.5, 3), [0_usize; 0]);
    }

    #[test]
    fn lambda_means_the_same_for_scores_that_lie_close_together() {
        let vectors: [&[f32]; 3] = [&[1.0, 0.0], &[0.9, 0.1], &[0.0, 1.0]];
        let wide = order(&[0.9, 0.5, 0.1], &vectors, 0.5, 3);
        assert_eq!(order(&[0.51, 0.50, 0.49], &vectors, 0.5, 3), wide);
    }

    #[test]
    fn hits_without_a_vector_or_of_another_space_are_similar_to_none() {
        let one = |space| Some(Embedded { space, vector: &[1.0] });
        let vectors = [one(0), one(0), None];
        assert_eq!(mmr(&[0.9, 0.9, 0.8], &vectors, 0.3, 3, &|| Ok(())).unwrap(), [0, 2, 1]);
        let zeros = Some(Embedded {
            space: 0,
            vector: &[0.0],
        });
        let vectors = [zeros, zeros, one(0)];
        assert_eq!(mmr(&[0.9, 0.9, 0.8], &vectors, 0.3, 3, &|| Ok(())).unwrap(), [0, 2, 1]);
        let vectors = [one(0), one(0), one(1)];
        assert_eq!(mmr(&[0.9, 0.9, 0.8], &vectors, 0.3, 3, &|| Ok(())).unwrap(), [0, 2, 1]);
    }

    #[test]
    fn a_late_caller_is_told_so() {
        let late = || Err(cairn_engine::Error::internal("late"));
        assert!(mmr(&[0.5], &[None], 0.5, 1, &late).is_err());
    }

    /// The formula, term by term.
    fn naive(scores: &[f32], vectors: &[Option<Embedded<'_>>], lambda: f32) -> Vec<usize> {
        let relevance = stretched(scores);
        let similarity = |a: usize, b: usize| match (vectors[a], vectors[b]) {
            (Some(x), Some(y)) => {
                let (x, y) = (x.vector, y.vector);
                let norm = (dot(x, x).sqrt()) * (dot(y, y).sqrt());
                match norm > 0.0 {
                    true => (dot(x, y) / norm).max(0.0),
                    false if x == y => 1.0,
                    false => 0.0,
                }
            }
            _ => 0.0,
        };
        let mut chosen: Vec<usize> = Vec::new();
        while chosen.len() < scores.len() {
            let value = |hit: usize| {
                let similar = chosen.iter().map(|c| similarity(*c, hit)).fold(0.0, f32::max);
                lambda * relevance[hit] - (1.0 - lambda) * similar
            };
            let left = (0..scores.len()).filter(|hit| !chosen.contains(hit));
            let best = left.fold(None, |best: Option<usize>, hit| match best {
                Some(b) if value(hit) <= value(b) => Some(b),
                _ => Some(hit),
            });
            chosen.extend(best);
        }
        chosen
    }

    proptest! {
        #[test]
        fn any_hits_are_ordered_as_the_formula_says(
            hits in prop::collection::vec((0u8..50, prop::option::weighted(0.8, prop::array::uniform3(-3i8..4))), 0..25),
            lambda in 0u8..=10, wanted in 0usize..30,
        ) {
            let mut scores: Vec<f32> = hits.iter().map(|(score, _)| f32::from(*score) / 50.0).collect();
            scores.sort_by(|a, b| b.total_cmp(a));
            let vectors: Vec<Option<Vec<f32>>> =
                hits.iter().map(|(_, v)| v.map(|v| v.iter().map(|x| f32::from(*x)).collect())).collect();
            let vectors: Vec<_> =
                vectors.iter().map(|v| v.as_deref().map(|vector| Embedded { space: 0, vector })).collect();
            let lambda = f32::from(lambda) / 10.0;
            let got = mmr(&scores, &vectors, lambda, wanted, &|| Ok(())).unwrap();
            let all = naive(&scores, &vectors, lambda);
            // A page is the head of the whole.
            prop_assert_eq!(&got[..], &all[..wanted.min(all.len())]);
            if lambda == 1.0 {
                prop_assert!(got.iter().copied().eq(0..got.len()));
            }
            prop_assert_eq!(got.first().copied(), (wanted > 0 && !hits.is_empty()).then_some(0));
        }
    }
}
