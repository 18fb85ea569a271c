//! Vectors of calls that failed half-way, kept for their repetition.
//!
//! A call is all or nothing, but the service may have embedded (and charged for) most of it before one request failed.
//! Those vectors wait here, so that running again embeds only what is missing. Bounded: the oldest make room. A URL of an
//! image or sound is not kept: what it leads to may be another thing when the call is repeated.

use std::collections::{BTreeMap, HashMap};

use xxhash_rust::xxh3::Xxh3;

use super::batch::reference;
use crate::rag::embed::{Input, Medium, TextKind};

/// Bytes of all kept vectors of one embedder: those of 8,000 chunks at 1,024 numbers.
const KEPT_BYTES_MAX: usize = 32 << 20;

/// Vectors by what they were made of.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// With the number under which each is in `order`.
    vectors: HashMap<u128, (u64, Vec<f32>)>,
    /// Oldest first.
    order: BTreeMap<u64, u128>,
    /// Vectors put so far.
    puts: u64,
    bytes: usize,
}

impl Kept {
    /// What stands for an input; none for what may be another thing the next time. Two inputs with one key are as likely as a
    /// broken disk.
    pub(super) fn key(input: &Input<'_>, kind: TextKind) -> Option<u128> {
        if input.medium() != Medium::Text && !reference(input).starts_with("data:") {
            return None;
        }
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
        Some(hash.digest128())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.vectors.is_empty()
    }

    pub(super) fn put(&mut self, key: u128, vector: Vec<f32>) {
        let size = Self::size(&vector);
        if self.vectors.contains_key(&key) || size > KEPT_BYTES_MAX {
            return;
        }
        while self.bytes + size > KEPT_BYTES_MAX {
            let Some((_, oldest)) = self.order.pop_first() else {
                break;
            };
            self.take(oldest);
        }
        self.bytes += size;
        self.puts += 1;
        self.vectors.insert(key, (self.puts, vector));
        self.order.insert(self.puts, key);
    }

    pub(super) fn take(&mut self, key: u128) -> Option<Vec<f32>> {
        let (number, vector) = self.vectors.remove(&key)?;
        self.order.remove(&number);
        self.bytes -= Self::size(&vector);
        Some(vector)
    }

    /// A vector with its key in both collections, about.
    fn size(vector: &[f32]) -> usize {
        size_of_val(vector) + 96
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_taken_once_and_only_for_the_same_input() {
        let mut kept = Kept::default();
        let key = |input, kind| Kept::key(&input, kind).unwrap();
        let a = key(Input::Text("data:a"), TextKind::Passage);
        for other in [
            key(Input::Text("b"), TextKind::Passage),
            key(Input::Text("data:a"), TextKind::Query),
            key(Input::Image("data:a"), TextKind::Passage),
        ] {
            assert_ne!(a, other);
        }
        kept.put(a, vec![1.0]);
        assert_eq!(kept.take(a), Some(vec![1.0]));
        assert_eq!(kept.take(a), None);
        assert!(kept.is_empty() && kept.bytes == 0);
    }

    #[test]
    fn what_a_url_leads_to_is_not_kept() {
        for input in [Input::Image("https://host/a.png"), Input::Audio("https://host/a.wav")] {
            assert_eq!(Kept::key(&input, TextKind::Passage), None);
        }
    }

    #[test]
    fn what_was_taken_and_put_again_is_as_old_as_its_last_put() {
        let mut kept = Kept::default();
        let third = vec![0.5; KEPT_BYTES_MAX / 4 / 3 - 24];
        kept.put(1, third.clone());
        kept.put(2, third.clone());
        for _ in 0..20 {
            kept.take(1).unwrap();
            kept.put(1, third.clone());
        }
        assert_eq!(kept.order.len(), 2);
        kept.put(3, third.clone());
        kept.put(4, third);
        assert_eq!((kept.take(2), kept.take(1).is_some()), (None, true));
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
