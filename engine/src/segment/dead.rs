//! Which rows of a segment are gone, as of one moment. Never edits the segment; a change is a new value.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use roaring::RoaringBitmap;

use super::Segment;
use crate::text::bm25::FieldStats;
use crate::types::Ordinal;
use crate::vector::BitSet;

/// Dead rows of a segment.
#[derive(Default)]
pub struct Dead {
    rows: RoaringBitmap,
    texts: BTreeMap<String, FieldStats>,
    live: OnceLock<BitSet>,
}

impl Clone for Dead {
    fn clone(&self) -> Self {
        Self {
            rows: self.rows.clone(),
            texts: self.texts.clone(),
            live: OnceLock::new(),
        }
    }
}

impl Dead {
    /// Adds a row. Its share of the text statistics goes with it. False if it was dead already.
    pub fn kill(&mut self, segment: &Segment, ordinal: Ordinal) -> bool {
        if !self.rows.insert(ordinal) {
            return false;
        }
        self.live = OnceLock::new();
        for path in segment.texts.keys() {
            if let Some(view) = segment.text(path) {
                if let Some(len) = view.len_of(ordinal) {
                    self.texts.entry(path.clone()).or_default().add(FieldStats {
                        docs: 1,
                        total_len: u64::from(len),
                    });
                }
            }
        }
        true
    }

    /// Dead rows.
    pub fn rows(&self) -> &RoaringBitmap {
        &self.rows
    }

    /// How many.
    pub fn count(&self) -> u64 {
        self.rows.len()
    }

    /// True if the row is dead.
    pub fn contains(&self, ordinal: Ordinal) -> bool {
        self.rows.contains(ordinal)
    }

    /// What the dead rows contribute to a text field's statistics.
    pub fn text(&self, path: &str) -> FieldStats {
        self.texts.get(path).copied().unwrap_or_default()
    }

    /// The live rows as a dense set, made once per moment.
    pub fn live(&self, rows: u32) -> &BitSet {
        self.live.get_or_init(|| {
            let mut set = BitSet::full(rows as usize);
            self.rows.iter().for_each(|ordinal| set.clear(ordinal));
            set
        })
    }
}
