//! Which rows of a segment are gone, as of one moment. Never edits the segment; a change is a new value.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use roaring::RoaringBitmap;

use super::Segment;
use crate::text::bm25::FieldStats;
use crate::types::{Ordinal, Row};
use crate::vector::BitSet;

type Texts = BTreeMap<String, FieldStats>;

/// Dead rows of a segment.
#[derive(Default)]
pub struct Dead {
    rows: RoaringBitmap,
    /// Of a damaged file: rows whose ordinals cannot be read.
    unplaced: BTreeSet<Row>,
    /// Their share of the text statistics, counted when it is first asked for and then with each death.
    texts: OnceLock<Texts>,
    live: OnceLock<BitSet>,
}

impl Clone for Dead {
    fn clone(&self) -> Self {
        Self {
            rows: self.rows.clone(),
            unplaced: self.unplaced.clone(),
            texts: self.texts.clone(),
            live: OnceLock::new(),
        }
    }
}

impl Dead {
    /// Adds a row, and its share of the text statistics if the segment can be read. False if it was dead already.
    pub fn kill(&mut self, segment: Option<&Segment>, ordinal: Ordinal) -> bool {
        if !self.rows.insert(ordinal) {
            return false;
        }
        self.live = OnceLock::new();
        match (self.texts.get_mut(), segment) {
            (Some(texts), Some(segment)) => add(texts, segment, ordinal),
            (Some(_), None) => self.texts = OnceLock::new(),
            (None, _) => {}
        }
        true
    }

    /// Adds a row of a file that cannot be read. False if it was dead already.
    pub fn kill_unplaced(&mut self, row: Row) -> bool {
        self.unplaced.insert(row)
    }

    /// Dead rows of which the ordinals are known: all, unless the file is damaged.
    pub fn rows(&self) -> &RoaringBitmap {
        &self.rows
    }

    /// The others.
    pub fn unplaced(&self) -> &BTreeSet<Row> {
        &self.unplaced
    }

    /// How many.
    pub fn count(&self) -> u64 {
        self.rows.len() + self.unplaced.len() as u64
    }

    /// True if the row is dead.
    pub fn contains(&self, ordinal: Ordinal) -> bool {
        self.rows.contains(ordinal)
    }

    /// What the dead rows contribute to a text field's statistics.
    pub fn text(&self, segment: &Segment, path: &str) -> FieldStats {
        let texts = self.texts.get_or_init(|| {
            let mut texts = Texts::new();
            self.rows.iter().for_each(|ordinal| add(&mut texts, segment, ordinal));
            texts
        });
        texts.get(path).copied().unwrap_or_default()
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

fn add(texts: &mut Texts, segment: &Segment, ordinal: Ordinal) {
    for path in segment.texts.keys() {
        if let Some(len) = segment.text(path).and_then(|view| view.len_of(ordinal)) {
            texts.entry(path.clone()).or_default().add(FieldStats {
                docs: 1,
                total_len: u64::from(len),
            });
        }
    }
}
