//! Vectors of calls that failed half-way, kept for their repetition.
//!
//! A call is all or nothing, but the service may have embedded (and charged for) most of it before one request failed.
//! Those vectors wait here, so that running again embeds only what is missing. Bounded: the oldest make room.

use std::collections::{HashMap, VecDeque};

use xxhash_rust::xxh3::Xxh3;

use super::batch::reference;
use crate::rag::embed::{Input, Medium, TextKind};

/// Bytes of all kept vectors of one embedder: those of 8,000 chunks at 1,024 numbers.
const KEPT_BYTES_MAX: usize = 32 << 20;

/// Vectors by what they were made of.
#[derive(Debug, Default)]
pub(super) struct Kept {
    vectors: HashMap<u128, Vec<f32>>,
    /// Oldest first; may name some that were taken.
    order: VecDeque<u128>,
    bytes: usize,
}

impl Kept {
    /// What stands for an input. Two inputs with one key are as likely as a broken disk.
    pub(super) fn key(input: &Input<'_>, kind: TextKind) -> u128 {
        let medium = match input.medium() {
            Medium::Text => 0_u8,
            Medium::Image => 1,
            Medium::Audio => 2,
        };
        let kind = match kind {
            TextKind::Query => 0_u8,
            TextKind::Passage => 1,
        };
        let mut hash = Xxh3::new();
        hash.update(&[medium, kind]);
        hash.update(reference(input).as_bytes());
        hash.digest128()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.vectors.is_empty()
    }

    pub(super) fn put(&mut self, key: u128, vector: Vec<f32>) {
        let size = Self::size(&vector);
        if self.vectors.contains_key(&key) || size > KEPT_BYTES_MAX {
            return;
        }
        while self.bytes + size > KEPT_BYTES_MAX || self.order.len() > KEPT_BYTES_MAX / 64 {
            let Some(oldest) = self.order.pop_front() else { break };
            self.take(oldest);
        }
        self.bytes += size;
        self.vectors.insert(key, vector);
        self.order.push_back(key);
    }

    pub(super) fn take(&mut self, key: u128) -> Option<Vec<f32>> {
        let vector = self.vectors.remove(&key)?;
        self.bytes -= Self::size(&vector);
        if self.vectors.is_empty() {
            self.order.clear();
        }
        Some(vector)
    }

    /// A vector with its key in both collections, about.
    fn size(vector: &[f32]) -> usize {
        size_of_val(vector) + 64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_taken_once_and_only_for_the_same_input() {
        let mut kept = Kept::default();
        let key = Kept::key(&Input::Text("a"), TextKind::Passage);
        for other in [
            Kept::key(&Input::Text("b"), TextKind::Passage),
            Kept::key(&Input::Text("a"), TextKind::Query),
            Kept::key(&Input::Image("a"), TextKind::Passage),
        ] {
            assert_ne!(key, other);
        }
        kept.put(key, vec![1.0]);
        assert_eq!(kept.take(key), Some(vec![1.0]));
        assert_eq!(kept.take(key), None);
        assert!(kept.is_empty() && kept.bytes == 0);
    }

    #[test]
    fn the_oldest_make_room() {
        let mut kept = Kept::default();
        let vector = vec![0.5; 1 << 20];
        for key in 0..20 {
            kept.put(key, vector.clone());
            assert!(kept.bytes <= KEPT_BYTES_MAX);
        }
        assert_eq!(kept.take(0), None);
        assert_eq!(kept.take(19), Some(vector));
    }
}
