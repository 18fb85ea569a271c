//! A shard as its one writer keeps it: counters, sealed and growing segments, rows not yet in any segment.
//!
//! Everything here is owned by the applier (one thread at a time). Readers get copies of the segment list inside a view.
//! `policy` decides what is sealed and merged; it is a pure function of numbers.

pub mod policy;

use std::sync::Arc;

use crate::error::Result;
use crate::limits;
use crate::query::ShardView;
use crate::schema::Schema;
use crate::segment::{Dead, Kept, PendingRow, Segment, SegmentView, Spec, merge_memory, write_memory};
use crate::types::{Ordinal, PointId, Row, Seq};

/// One shard, for its writer.
#[derive(Default)]
pub struct Shard {
    /// The next row's number.
    pub next_row: u64,
    /// Sealed segments by ascending rows.
    pub sealed: Vec<SegmentView>,
    /// Growing segments by ascending rows, all after the sealed ones.
    pub growing: Vec<Growing>,
    /// Rows of the group commit being applied.
    pub pending: Vec<PendingRow>,
    /// The first growing segments are being sealed and must stay as they are.
    pub sealing: usize,
    /// A merge of sealed segments is running.
    pub merging: bool,
}

/// A growing segment.
#[derive(Clone)]
pub struct Growing {
    /// Its rows.
    pub view: SegmentView,
    /// The oldest record it needs to be rebuilt; none if its rows were copied to `rows`.
    pub pins: Option<Seq>,
}

impl Growing {
    fn new(segment: Segment, pins: Option<Seq>) -> Self {
        Self {
            view: SegmentView::fresh(Arc::new(segment)),
            pins,
        }
    }
    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        self.view.segment.bytes()
    }
}

impl Shard {
    /// Takes the next row number.
    pub fn take_row(&mut self) -> Row {
        let row = Row(self.next_row);
        self.next_row += 1;
        row
    }

    /// Marks a live row dead, wherever it is. False if there is no such live row.
    pub fn kill(&mut self, row: Row) -> bool {
        if let Ok(i) = self.pending.binary_search_by_key(&row, |p| p.row) {
            return !std::mem::replace(&mut self.pending[i].dead, true);
        }
        let holds = |view: &SegmentView| {
            view.segment
                .row_range()
                .is_some_and(|(first, last)| first <= row && row <= last)
        };
        let growing = self.growing.iter_mut().map(|g| &mut g.view);
        let Some(view) = self.sealed.iter_mut().chain(growing).find(|view| holds(view)) else {
            return false;
        };
        let Some(ordinal) = view.segment.ordinal_of(row) else {
            return false;
        };
        let segment = Arc::clone(&view.segment);
        Arc::make_mut(&mut view.dead).kill(&segment, ordinal)
    }

    /// A live row's content, wherever it is.
    pub fn load(&self, row: Row, schema: &Schema) -> Result<Option<PendingRow>> {
        if let Ok(i) = self.pending.binary_search_by_key(&row, |p| p.row) {
            return Ok(Some(self.pending[i].clone()));
        }
        let views = self.sealed.iter().chain(self.growing.iter().map(|g| &g.view));
        for view in views {
            if let Some(ordinal) = view.segment.ordinal_of(row) {
                return content(&view.segment, ordinal, schema).map(Some);
            }
        }
        Ok(None)
    }

    /// Turns pending rows into a growing segment, and small growing segments into larger ones: eight of a tier become one
    /// of the next, so a row is copied a few times at most and a query sees few segments. Returns the change in bytes.
    pub fn settle(&mut self, spec: &Spec<'_>) -> Result<i64> {
        let mut change = 0i64;
        let pending = std::mem::take(&mut self.pending);
        for part in pending.chunks(limits::MEMORY_SEGMENT_ROWS_MAX) {
            let segment = write_memory(spec, part)?;
            if segment.rows() > 0 {
                change += segment.bytes() as i64;
                let pins = part.iter().filter(|p| !p.dead && !p.inline).map(|p| p.birth).min();
                self.growing.push(Growing::new(segment, pins));
            }
        }
        while let Some(from) = policy::memory_merge(&self.growing_rows(), self.sealing) {
            let inputs: Vec<Kept> = self.growing[from..].iter().map(|g| Kept::live(&g.view)).collect();
            let pins = self.growing[from..].iter().filter_map(|g| g.pins).min();
            let segment = merge_memory(spec, &inputs)?;
            change -= self.growing[from..].iter().map(|g| g.bytes() as i64).sum::<i64>();
            self.growing.truncate(from);
            if segment.rows() > 0 {
                change += segment.bytes() as i64;
                self.growing.push(Growing::new(segment, pins));
            }
        }
        Ok(change)
    }

    fn growing_rows(&self) -> Vec<u32> {
        self.growing.iter().map(|g| g.view.segment.rows()).collect()
    }

    /// What readers see of it now.
    pub fn view(&self) -> ShardView {
        let segments = self
            .sealed
            .iter()
            .chain(self.growing.iter().map(|g| &g.view))
            .cloned()
            .collect();
        ShardView { segments }
    }

    /// Rows and bytes that wait to be sealed.
    pub fn waiting(&self) -> (usize, usize) {
        self.growing.iter().fold((0, 0), |(rows, bytes), g| {
            (rows + g.view.segment.rows() as usize, bytes + g.bytes())
        })
    }

    /// Which rows of `output` are dead: it was made of `inputs`, as they were when the work began, and of these the rows died
    /// that are dead `now` and were not then. Only those are looked at, for writers wait.
    pub fn carry_deaths(inputs: &[SegmentView], now: &[SegmentView], output: &Arc<Segment>) -> Arc<Dead> {
        let mut dead = Dead::default();
        for (input, now) in inputs.iter().zip(now) {
            for ordinal in now.dead.rows() - input.dead.rows() {
                if let Some(ordinal) = output.ordinal_of(now.segment.row_of(ordinal)) {
                    dead.kill(output, ordinal);
                }
            }
        }
        Arc::new(dead)
    }
}

/// A row's content, as it was written.
pub fn content(segment: &Segment, ordinal: Ordinal, schema: &Schema) -> Result<PendingRow> {
    Ok(PendingRow {
        row: segment.row_of(ordinal),
        birth: segment.birth_of(ordinal),
        id: PointId::new(segment.id_of(ordinal))?,
        document: segment.document_of(ordinal).map(PointId::new).transpose()?,
        expires_at_ms: segment.expires_at_ms(ordinal),
        acl: segment.acl_of(ordinal).to_vec(),
        vectors: (0..schema.vectors.len())
            .map(|i| segment.vector_of(i, ordinal).map(<[f32]>::to_vec))
            .collect(),
        sparse: (0..schema.sparse.len())
            .map(|i| segment.sparse(i).row(ordinal).map(<[u8]>::to_vec))
            .collect(),
        payload: segment.payload_json(ordinal)?.into_owned(),
        inline: false,
        dead: false,
    })
}
