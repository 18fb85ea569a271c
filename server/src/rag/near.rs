//! Do two texts say almost the same?
//!
//! Similarity is the Jaccard index of their sets of word 3-shingles (Broder 1997): shared runs of three words, of all
//! runs. [`jaccard`] is exact. [`bands`] make it findable: a MinHash signature in bands (Leskovec, Rajaraman, Ullman:
//! Mining of massive datasets, 2014, chapter 3), numbers of which two texts share at least one if they are alike enough
//! (see [`bands`] for how likely), so that an index of numbers finds candidates, and the exact check decides.
//!
//! Words are Unicode's (UAX 29) in lower case, punctuation and white space apart; ideographs and kana count one by one. So two
//! texts that differ in layout or case only are equal here.
//!
//! What this is not: it knows no meaning. A translation or a paraphrase is as far as any other text.

use unicode_segmentation::UnicodeSegmentation;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// From which similarity on two texts count as almost the same, if nobody says otherwise: about one word in forty
/// changed, or one sentence in twelve exchanged.
pub const NEAR_JACCARD: f32 = 0.85;

/// Words of a shingle.
const WORDS: usize = 3;

/// Bands of a signature, and hashes in each. Texts of similarity `s` share a band with probability
/// `1 - (1 - s^6)^12`: 0.997 at [`NEAR_JACCARD`], 0.17 at 0.5, 0.01 at 0.3.
pub const BANDS: usize = 12;
const ROWS: usize = 6;

/// The 3-shingles of a text, as a set of 64-bit hashes: two of a million shingles collide with probability 3 in a
/// hundred million.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shingles {
    /// Ascending, each once.
    hashes: Vec<u64>,
}

impl Shingles {
    /// Of a text. One of fewer than three words has one shingle: all of it.
    pub fn of(text: &str) -> Self {
        Self::of_parts([text])
    }

    /// Of a text that comes in parts. A word ends where a part does.
    pub fn of_parts<'a>(parts: impl IntoIterator<Item = &'a str>) -> Self {
        let mut hashes = Vec::new();
        // The last words, oldest first.
        let mut last: [u64; WORDS] = [0; WORDS];
        let mut seen = 0usize;
        let mut lower = String::new();
        for word in parts.into_iter().flat_map(str::unicode_words) {
            lower.clear();
            lower.extend(word.chars().flat_map(char::to_lowercase));
            last.rotate_left(1);
            last[WORDS - 1] = xxh3_64(lower.as_bytes());
            seen += 1;
            if seen >= WORDS {
                hashes.push(hash_of(&last));
            }
        }
        if (1..WORDS).contains(&seen) {
            hashes.push(hash_of(&last[WORDS - seen..]));
        }
        hashes.sort_unstable();
        hashes.dedup();
        Self { hashes }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.hashes.len()
    }

    /// The text has no words.
    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }
}

fn hash_of(words: &[u64]) -> u64 {
    let mut hash = Xxh3::new();
    for word in words {
        hash.update(&word.to_le_bytes());
    }
    hash.digest()
}

/// Shared shingles of all shingles, 0 to 1. A text without words is like no other, not even its equal: there is nothing
/// that both say.
pub fn jaccard(a: &Shingles, b: &Shingles) -> f32 {
    let (mut i, mut j, mut shared) = (0, 0, 0usize);
    while let (Some(x), Some(y)) = (a.hashes.get(i), b.hashes.get(j)) {
        shared += usize::from(x == y);
        i += usize::from(x <= y);
        j += usize::from(y <= x);
    }
    let all = a.len() + b.len() - shared;
    if all == 0 { 0.0 } else { shared as f32 / all as f32 }
}

/// The banded signature: [`BANDS`] numbers, or none for a text without words. Two texts of similarity
/// [`NEAR_JACCARD`] share a number with probability 0.997, which is not certainty; and sharing one proves nothing.
///
/// The numbers are stored. Another way to make them leaves older documents without near duplicates, so a change of it
/// needs another payload key.
pub fn bands(shingles: &Shingles) -> Vec<u32> {
    if shingles.is_empty() {
        return Vec::new();
    }
    let mut least = [u64::MAX; BANDS * ROWS];
    for &hash in &shingles.hashes {
        for (least, &(add, multiply)) in least.iter_mut().zip(&PERMUTATIONS) {
            *least = (*least).min((hash ^ add).wrapping_mul(multiply));
        }
    }
    let band = |(n, rows): (usize, &[u64])| {
        let mut hash = Xxh3::with_seed(n as u64);
        for row in rows {
            hash.update(&row.to_le_bytes());
        }
        (hash.digest() >> 32) as u32
    };
    least.chunks_exact(ROWS).enumerate().map(band).collect()
}

/// One permutation of the 64-bit numbers for each hash of the signature: exclusive or, then an odd factor. The order of
/// products is decided by their high bits, which depend on all bits of a hash that is well mixed to begin with.
const PERMUTATIONS: [(u64, u64); BANDS * ROWS] = permutations();

const fn permutations() -> [(u64, u64); BANDS * ROWS] {
    let mut all = [(0, 0); BANDS * ROWS];
    let mut state = 0x6361_6972_6e00_0001;
    let mut at = 0;
    while at < all.len() {
        let (next, add) = split_mix(state);
        let (next, multiply) = split_mix(next);
        all[at] = (add, multiply | 1);
        state = next;
        at += 1;
    }
    all
}

/// SplitMix64 (Steele, Lea, Flood 2014): the next state, and a number.
const fn split_mix(state: u64) -> (u64, u64) {
    let state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (state, z ^ (z >> 31))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn like(a: &str, b: &str) -> f32 {
        jaccard(&Shingles::of(a), &Shingles::of(b))
    }

    /// Distinct words, so that every shingle is there once.
    fn numbers(range: std::ops::Range<usize>) -> String {
        range.map(|n| format!("w{n} ")).collect()
    }

    #[test]
    fn similarity_is_the_share_of_common_runs_of_three_words() {
        for (a, b, expected) in [
            ("one two three four", "one two three four", 1.0),
            ("one two three four", "ONE, two -- three (four)!", 1.0),
            ("one two three four", "one two three five", 1.0 / 3.0),
            ("one two three", "three two one", 0.0),
            ("one two", "One two.", 1.0),
            ("one two", "one", 0.0),
            ("one", "two", 0.0),
            ("", "", 0.0),
            (" -- ", "", 0.0),
            ("one two three", "", 0.0),
            // Ideographs are words by themselves: four shingles and three, two shared.
            ("東京都は大都", "東京都は大阪", 3.0 / 5.0),
            ("STRASSE ÉCOLE Ñandú", "strasse école ñandú", 1.0),
        ] {
            assert!(
                (like(a, b) - expected).abs() < 1e-6,
                "{a:?} {b:?}: {} is not {expected}",
                like(a, b)
            );
        }
    }

    #[test]
    fn parts_are_one_text() {
        assert_eq!(
            Shingles::of_parts(["one two ", "three", " four"]),
            Shingles::of("one two three four")
        );
    }

    #[test]
    fn the_stored_numbers_stay_as_they_are() {
        let bands = bands(&Shingles::of("The quick brown fox jumps over the lazy dog."));
        assert_eq!(bands.len(), BANDS);
        let frozen = [577_825_568, 1_607_316_033, 835_514_562];
        assert_eq!(bands[..3], frozen, "stored documents would lose their near duplicates");
    }

    /// The formula in the module's head, measured over texts of known similarity.
    #[test]
    fn bands_are_shared_as_often_as_computed() {
        let mut rates = Vec::new();
        for shared_words in [300, 180, 95] {
            let mut found = 0;
            let mut similarity = 0.0;
            for n in 0..300 {
                let base = n * 10_000;
                let common = numbers(base..base + shared_words);
                let a = Shingles::of(&(common.clone() + &numbers(base + 1000..base + 1000 + (320 - shared_words) / 2)));
                let b = Shingles::of(&(common + &numbers(base + 2000..base + 2000 + (320 - shared_words) / 2)));
                similarity += f64::from(jaccard(&a, &b)) / 300.0;
                let (a, b) = (bands(&a), bands(&b));
                found += usize::from(a.iter().zip(&b).any(|(x, y)| x == y));
            }
            rates.push((similarity, found as f64 / 300.0));
        }
        for (s, rate) in rates {
            let expected = 1.0 - (1.0 - s.powi(ROWS as i32)).powi(BANDS as i32);
            // Four standard deviations of 300 draws, and a little for the spread of similarities.
            let error = 4.0 * (expected * (1.0 - expected) / 300.0).sqrt() + 0.02;
            assert!(
                (rate - expected).abs() < error,
                "similarity {s}: {rate}, computed {expected}"
            );
        }
    }

    proptest! {
        #[test]
        fn jaccard_equals_the_sets_of_words_naively(a in "[abc .]{0,40}", b in "[abc .]{0,40}") {
            let naive = |text: &str| -> BTreeSet<Vec<String>> {
                let words: Vec<String> = text.unicode_words().map(str::to_owned).collect();
                let width = WORDS.min(words.len()).max(1);
                words.windows(width).map(<[String]>::to_vec).collect()
            };
            let (x, y) = (naive(&a), naive(&b));
            let all = x.union(&y).count();
            let expected = if all == 0 { 0.0 } else { x.intersection(&y).count() as f32 / all as f32 };
            prop_assert_eq!(like(&a, &b), expected);
            prop_assert_eq!(like(&a, &b), like(&b, &a));
        }

        #[test]
        fn any_text_is_survived_and_is_like_itself(text in any::<String>()) {
            let shingles = Shingles::of(&text);
            let expected = if shingles.is_empty() { (0.0, 0) } else { (1.0, BANDS) };
            prop_assert_eq!((jaccard(&shingles, &shingles), bands(&shingles).len()), expected);
        }
    }
}
