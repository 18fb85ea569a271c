//! Vectors that are the same, bit by bit: boilerplate chunks make many of them. One of each stands for all where neighbours are
//! looked for, or it would be surrounded by copies of itself.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use xxhash_rust::xxh3::xxh3_64;

use super::{BitSet, VectorsRef};
use crate::types::Ordinal;

/// Marks an ordinal that no twin follows.
pub(super) const NONE: u32 = u32::MAX;

/// Who has which vector in common.
#[derive(Clone)]
pub(super) struct Twins {
    /// For every ordinal the next larger one with the same vector, or [`NONE`].
    pub(super) next: Vec<u32>,
    /// Ordinals that stand for nothing: absent ones, and those that follow another.
    pub(super) outside: BitSet,
}

impl Twins {
    pub(super) fn of(vectors: &VectorsRef<'_>) -> Self {
        let mut next = vec![NONE; vectors.len()];
        let mut outside = BitSet::new(vectors.len());
        let mut last_by_hash: HashMap<u64, Ordinal> = HashMap::with_capacity(vectors.len());
        for ordinal in 0..vectors.len() as Ordinal {
            if vectors.is_absent(ordinal) {
                outside.set(ordinal);
                continue;
            }
            let row = vectors.numbers(ordinal).bytes();
            match last_by_hash.entry(xxh3_64(row)) {
                Entry::Vacant(entry) => {
                    entry.insert(ordinal);
                }
                // A collision of different vectors costs nothing but that one of them has no twins.
                Entry::Occupied(mut entry) if row == vectors.numbers(*entry.get()).bytes() => {
                    let before = entry.insert(ordinal);
                    next[before as usize] = ordinal;
                    outside.set(ordinal);
                }
                Entry::Occupied(_) => {}
            }
        }
        Self { next, outside }
    }
}
