//! A dense set of ordinals: one bit per row of a segment.
//!
//! Answers "may this row be answered?" in one load, which is what a graph search asks thousands of times. Compressed
//! sets (postings) are turned into one of these before a search.

use crate::types::Ordinal;

const WORD_BITS: usize = 64;

/// A set of ordinals below a fixed length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BitSet {
    words: Vec<u64>,
    len: usize,
}

impl BitSet {
    /// The empty set over ordinals `0..len`.
    pub fn new(len: usize) -> Self {
        Self {
            words: vec![0; len.div_ceil(WORD_BITS)],
            len,
        }
    }

    /// The set of all ordinals `0..len`.
    pub fn full(len: usize) -> Self {
        let mut words = vec![u64::MAX; len.div_ceil(WORD_BITS)];
        if let Some(last) = words.last_mut()
            && !len.is_multiple_of(WORD_BITS)
        {
            *last = (1 << (len % WORD_BITS)) - 1;
        }
        Self { words, len }
    }

    /// The set of the given ordinals, all of which must be below `len`.
    pub fn from_iter(len: usize, ordinals: impl IntoIterator<Item = Ordinal>) -> Self {
        let mut set = Self::new(len);
        for ordinal in ordinals {
            set.set(ordinal);
        }
        set
    }

    /// How many ordinals there are to choose from (not how many are in the set: that is [`Self::count`]).
    pub fn len(&self) -> usize {
        self.len
    }

    /// No ordinal is in the set.
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    /// How many ordinals are in the set.
    pub fn count(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Whether the ordinal is in the set; one at or above `len` never is.
    #[inline]
    pub fn contains(&self, ordinal: Ordinal) -> bool {
        let at = ordinal as usize;
        self.words
            .get(at / WORD_BITS)
            .is_some_and(|word| word >> (at % WORD_BITS) & 1 == 1)
    }

    /// The ordinals `64 i..64 i + 64` as bits, lowest first; none beyond `len`.
    #[inline]
    pub fn word(&self, i: usize) -> u64 {
        self.words.get(i).copied().unwrap_or(0)
    }

    /// Puts the ordinal in. Panics at or above `len`: the set is sized by the segment whose ordinals it holds.
    #[inline]
    pub fn set(&mut self, ordinal: Ordinal) {
        let at = self.place(ordinal);
        self.words[at / WORD_BITS] |= 1 << (at % WORD_BITS);
    }

    /// Takes the ordinal out. Panics at or above `len`.
    #[inline]
    pub fn clear(&mut self, ordinal: Ordinal) {
        let at = self.place(ordinal);
        self.words[at / WORD_BITS] &= !(1 << (at % WORD_BITS));
    }

    /// The ordinals of the set, ascending.
    pub fn iter(&self) -> impl Iterator<Item = Ordinal> + '_ {
        self.words.iter().enumerate().flat_map(|(i, word)| {
            let mut left = *word;
            std::iter::from_fn(move || {
                if left == 0 {
                    return None;
                }
                let bit = left.trailing_zeros();
                left &= left - 1;
                Some((i * WORD_BITS) as Ordinal + bit)
            })
        })
    }

    #[inline]
    fn place(&self, ordinal: Ordinal) -> usize {
        let at = ordinal as usize;
        assert!(at < self.len, "ordinal {at} of a set over {}", self.len);
        at
    }
}
