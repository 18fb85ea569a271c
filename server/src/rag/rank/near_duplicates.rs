//! Leaves out what says almost the same as a better hit.
//!
//! Greedy, best first: a hit whose words are those of a hit kept before it, as far as the Jaccard similarity of their word
//! 3-shingles (`rag/near.rs`) tells, is left out. What was left out itself stands for nobody, so two hits that resemble
//! only it are both kept, and so is at least one of every group.

use super::GoOn;
use crate::rag::near::{Shingles, jaccard};

/// Whether a hit is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It says something new, or has no text.
    Kept,
    /// It says almost the same as that hit, which is better and kept.
    Like(usize),
}

/// One verdict a hit. Texts are best first; a hit without words is nobody's duplicate.
pub fn near_duplicates(texts: &[Option<&str>], threshold: f32, go_on: GoOn<'_>) -> cairn_engine::Result<Vec<Verdict>> {
    let mut kept: Vec<(usize, Shingles)> = Vec::new();
    let mut verdicts = Vec::with_capacity(texts.len());
    for (hit, text) in texts.iter().enumerate() {
        go_on()?;
        let shingles = text.map(Shingles::of).filter(|shingles| !shingles.is_empty());
        let Some(shingles) = shingles else {
            verdicts.push(Verdict::Kept);
            continue;
        };
        let like = kept.iter().find(|(_, other)| jaccard(other, &shingles) >= threshold);
        verdicts.push(match like {
            Some((other, _)) => Verdict::Like(*other),
            None => {
                kept.push((hit, shingles));
                Verdict::Kept
            }
        });
    }
    Ok(verdicts)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn verdicts(texts: &[&str], threshold: f32) -> Vec<Verdict> {
        let texts: Vec<Option<&str>> = texts.iter().map(|t| Some(*t)).collect();
        near_duplicates(&texts, threshold, &|| Ok(())).unwrap()
    }

    const FOX: &str = "The quick brown fox jumps over the lazy dog and then it sleeps in the warm sun until evening";

    #[test]
    fn a_text_with_a_word_changed_is_left_out_and_another_is_not() {
        let changed = FOX.replace("evening", "nightfall");
        let other = "A cluster elects a leader by Raft, and the leader sends heartbeats to its followers";
        assert_eq!(
            verdicts(&[FOX, other, &changed, FOX], 0.8),
            [Verdict::Kept, Verdict::Kept, Verdict::Like(0), Verdict::Like(0)]
        );
        // White space, case and punctuation are not words.
        assert_eq!(
            verdicts(&[FOX, &FOX.to_uppercase().replace(' ', "\n ")], 1.0)[1],
            Verdict::Like(0)
        );
        assert_eq!(verdicts(&[FOX, &changed], 0.99)[1], Verdict::Kept);
    }

    #[test]
    fn what_has_no_words_is_nobodys_duplicate() {
        assert_eq!(verdicts(&["", "", "…", "…"], 0.5), [Verdict::Kept; 4]);
        assert_eq!(
            near_duplicates(&[None, None], 0.5, &|| Ok(())).unwrap(),
            [Verdict::Kept; 2]
        );
    }

    proptest! {
        #[test]
        fn no_two_kept_are_alike_and_each_left_out_is_like_a_kept_one_before_it(
            picks in prop::collection::vec((0usize..4, 0usize..6), 0..20), threshold in 1u8..=10,
        ) {
            let words = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa"];
            let texts: Vec<String> = picks
                .iter()
                .map(|(from, len)| words[*from..*from + *len].join(" "))
                .collect();
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            let threshold = f32::from(threshold) / 10.0;
            let out = verdicts(&texts, threshold);
            let alike = |a: usize, b: usize| jaccard(&Shingles::of(texts[a]), &Shingles::of(texts[b])) >= threshold;
            for (hit, verdict) in out.iter().enumerate() {
                match verdict {
                    Verdict::Like(other) => {
                        prop_assert!(*other < hit && out[*other] == Verdict::Kept && alike(*other, hit));
                    }
                    Verdict::Kept if texts[hit].is_empty() => {}
                    Verdict::Kept => {
                        let twin = (0..hit).find(|&o| out[o] == Verdict::Kept && !texts[o].is_empty() && alike(o, hit));
                        prop_assert_eq!(twin, None);
                    }
                }
            }
        }
    }
}
