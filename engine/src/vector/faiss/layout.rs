//! The bytes around an index: written, and checked before Faiss sees what is between them.
//!
//! The layout is drawn in the parent module.

use std::ops::Range;

use xxhash_rust::xxh3::xxh3_64;

use super::effort::{STEPS_MAX, Step};
use crate::error::{Error, Result};
use crate::schema::Metric;
use crate::types::Ordinal;

const MAGIC: [u8; 4] = *b"CFAI";
const VERSION: u32 = 1;
const HEADER: usize = 64;

/// What the header and what follows it say.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Layout {
    pub(super) rows: usize,
    pub(super) dim: usize,
    pub(super) metric: Metric,
    /// Rows that have the vector.
    pub(super) count: usize,
    /// The steps are of lists.
    pub(super) by_lists: bool,
    pub(super) steps: Vec<Step>,
    /// The ordinal of each place; none if every row has the vector.
    pub(super) present: Option<Vec<Ordinal>>,
    /// Where the index is.
    pub(super) index: Range<usize>,
}

fn number(metric: Metric) -> Option<u32> {
    match metric {
        Metric::Cosine => Some(0),
        Metric::Dot => Some(1),
        Metric::Euclid => Some(2),
        Metric::Manhattan | Metric::Hamming => None,
    }
}

impl Layout {
    /// The bytes before those of the index. What the layout says of where that is is not looked at.
    pub(super) fn encode(&self, index: &[u8]) -> Result<Vec<u8>> {
        let metric = number(self.metric).ok_or_else(|| Error::internal("faiss: an index by manhattan distance"))?;
        let small = |n: usize| u32::try_from(n).map_err(|_| Error::internal("faiss: a segment of too many rows"));
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&MAGIC);
        for word in [VERSION, small(self.rows)?, small(self.dim)?, metric, small(self.count)?] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        bytes.extend_from_slice(&(index.len() as u64).to_le_bytes());
        bytes.extend_from_slice(&xxh3_64(index).to_le_bytes());
        for word in [small(self.steps.len())?, u32::from(self.by_lists)] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        bytes.resize(HEADER, 0);
        for step in &self.steps {
            bytes.extend_from_slice(&step.effort.to_le_bytes());
            bytes.extend_from_slice(&step.recall.to_le_bytes());
        }
        for ordinal in self.present.iter().flatten() {
            bytes.extend_from_slice(&ordinal.to_le_bytes());
        }
        Ok(bytes)
    }

    /// Reads them back.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self> {
        let damaged = |what: &str| Error::damaged(format!("faiss: {what}"));
        let header = bytes.get(..HEADER).ok_or_else(|| damaged("less than a header"))?;
        let word = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes"));
        let long = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().expect("eight bytes"));
        if header[..4] != MAGIC || word(4) != VERSION || header[48..].iter().any(|byte| *byte != 0) {
            return Err(damaged("not an index of this version"));
        }
        let (rows, dim, count, steps) = (word(8), word(12), word(20), word(40) as usize);
        let metric = [Metric::Cosine, Metric::Dot, Metric::Euclid].get(word(16) as usize);
        let (Some(metric), true) = (metric, count <= rows && dim > 0 && steps <= STEPS_MAX && word(44) <= 1) else {
            return Err(damaged("a header that cannot be"));
        };
        let ordinals = if count < rows { count as usize } else { 0 };
        // None of these can be beyond what a usize holds: 32 steps and 2^32 ordinals.
        let present_at = HEADER + steps * 8;
        let index_at = present_at + ordinals * 4;
        let len = bytes.len().checked_sub(index_at).map(|len| len as u64);
        if len != Some(long(24)) {
            return Err(damaged("its parts have another length"));
        }
        let words = |range: Range<usize>| {
            let (words, _) = bytes[range].as_chunks::<4>();
            words.iter().map(|word| u32::from_le_bytes(*word)).collect::<Vec<u32>>()
        };
        let steps: Vec<Step> = words(HEADER..present_at)
            .chunks_exact(2)
            .map(|pair| Step {
                effort: pair[0],
                recall: f32::from_bits(pair[1]),
            })
            .collect();
        let ascend = steps
            .windows(2)
            .all(|w| w[0].effort < w[1].effort && w[0].recall <= w[1].recall);
        if !ascend || steps.iter().any(|s| s.effort == 0 || !(0.0..=1.0).contains(&s.recall)) {
            return Err(damaged("steps that cannot be"));
        }
        let present = (count < rows).then(|| words(present_at..index_at));
        if let Some(present) = &present
            && (present.windows(2).any(|w| w[0] >= w[1]) || present.last().is_some_and(|last| *last >= rows))
        {
            return Err(damaged("ordinals that are not those of rows"));
        }
        if xxh3_64(&bytes[index_at..]) != long(32) {
            return Err(damaged("the index is not what was written"));
        }
        Ok(Self {
            rows: rows as usize,
            dim: dim as usize,
            metric: *metric,
            count: count as usize,
            by_lists: word(44) == 1,
            steps,
            present,
            index: index_at..bytes.len(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layouts() -> [Layout; 3] {
        let all = Layout {
            rows: 5,
            dim: 3,
            metric: Metric::Dot,
            count: 5,
            by_lists: true,
            steps: vec![Step { effort: 1, recall: 0.5 }, Step { effort: 4, recall: 0.5 }],
            present: None,
            index: 80..87,
        };
        let some = Layout {
            count: 2,
            steps: Vec::new(),
            by_lists: false,
            present: Some(vec![1, 4]),
            index: 72..79,
            ..all.clone()
        };
        let none = Layout {
            count: 0,
            present: Some(Vec::new()),
            index: 64..71,
            ..some.clone()
        };
        [all, some, none]
    }

    #[test]
    fn what_is_written_is_read_back() {
        for layout in layouts() {
            let bytes = [&layout.encode(b"an inde").unwrap()[..], b"an inde"].concat();
            assert_eq!(Layout::parse(&bytes).unwrap(), layout);
            assert_eq!(&bytes[layout.index], b"an inde");
        }
    }

    #[test]
    fn any_change_of_a_byte_is_damage_and_so_is_any_other_length() {
        for layout in layouts() {
            let bytes = [&layout.encode(b"an inde").unwrap()[..], b"an inde"].concat();
            for at in 0..bytes.len() {
                for bit in 0..8 {
                    let mut changed = bytes.clone();
                    changed[at] ^= 1 << bit;
                    if let Ok(read) = Layout::parse(&changed) {
                        // Numbers that describe other vectors: the segment knows which it has.
                        assert_ne!(read, layout, "byte {at}");
                        assert_eq!(read.index, layout.index, "byte {at}");
                    }
                }
            }
            for len in 0..bytes.len() {
                assert!(Layout::parse(&bytes[..len]).is_err(), "{len} bytes");
            }
        }
    }
}
