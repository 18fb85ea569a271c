//! A shard as its one writer keeps it: counters, sealed and growing segments, rows not yet in any segment.
//!
//! Everything here is owned by the applier (one thread at a time). Readers get copies of the segment list inside a view.
//! `policy` decides what is sealed and merged; it is a pure function of numbers.

pub mod policy;

use std::sync::Arc;

use crate::error::Result;
use crate::limits;
use crate::patience::Patience;
use crate::query::ShardListing;
use crate::schema::Schema;
use crate::segment::{
    Dead, Identity, Kept, PendingRow, Sealed, SealedView, Segment, SegmentView, Spec, merge_memory, write_memory,
};
use crate::types::{Ordinal, PointId, Row, Seq};
use crate::vector::floats::Owned;

/// One shard, for its writer.
#[derive(Default)]
pub struct Shard {
    /// The next row's number.
    pub next_row: u64,
    /// Sealed files by ascending rows.
    pub sealed: Vec<SealedView>,
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
        if let Some(i) = self.sealed_with(row) {
            return self.sealed[i].kill(row);
        }
        let found = self
            .growing
            .iter_mut()
            .find_map(|g| Some((g.view.segment.ordinal_of(row)?, &mut g.view)));
        let Some((ordinal, view)) = found else {
            return false;
        };
        Arc::make_mut(&mut view.dead).kill(Some(&view.segment), ordinal)
    }

    /// Which sealed file has a row, if one does.
    pub fn sealed_with(&self, row: Row) -> Option<usize> {
        let i = self.sealed.partition_point(|view| view.file.entry.last < row);
        (self.sealed.get(i)?.file.entry.first <= row).then_some(i)
    }

    /// A live row's content, wherever it is.
    pub fn load(&self, row: Row, schema: &Schema) -> Result<Option<PendingRow>> {
        if let Ok(i) = self.pending.binary_search_by_key(&row, |p| p.row) {
            return Ok(Some(self.pending[i].clone()));
        }
        if let Some(i) = self.sealed_with(row) {
            let segment = self.sealed[i].file.segment(Patience::endless())?;
            let ordinal = segment.ordinal_of(row);
            return ordinal.map(|ordinal| content(&segment, ordinal, schema)).transpose();
        }
        let growing = self.growing.iter().map(|g| &g.view.segment);
        let found = growing
            .filter_map(|segment| Some((segment, segment.ordinal_of(row)?)))
            .next();
        found
            .map(|(segment, ordinal)| content(segment, ordinal, schema))
            .transpose()
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
    pub fn listing(&self) -> ShardListing {
        ShardListing {
            sealed: self.sealed.clone(),
            growing: self.growing.iter().map(|g| g.view.clone()).collect(),
        }
    }

    /// Which rows there are in each of its segments, and which of them are dead. An error if a file cannot tell.
    pub fn identities(&self) -> impl Iterator<Item = Result<(Arc<Identity>, &Dead)>> {
        let sealed = self.sealed.iter().filter(|view| view.live() > 0);
        let sealed = sealed.map(|view| Ok((view.file.identity(Patience::endless())?, &*view.dead)));
        sealed.chain(
            self.growing
                .iter()
                .map(|g| Ok((g.view.segment.shared_identity(), &*g.view.dead))),
        )
    }

    /// Each of its segments, to be read for a write. An error if one cannot be.
    pub fn segments(&self) -> impl Iterator<Item = Result<SegmentView>> {
        let sealed = self.sealed.iter().filter(|view| view.live() > 0);
        let sealed = sealed.map(|view| Ok(view.with(view.file.segment(Patience::endless())?)));
        sealed.chain(self.growing.iter().map(|g| Ok(g.view.clone())))
    }

    /// Rows and bytes that wait to be sealed.
    pub fn waiting(&self) -> (usize, usize) {
        self.growing.iter().fold((0, 0), |(rows, bytes), g| {
            (rows + g.view.segment.rows() as usize, bytes + g.bytes())
        })
    }

    /// Which rows of `output` are dead: it was made of `inputs`, as they were when the work began, and of these the rows died
    /// that are dead `now` and were not then. Only those are looked at, for writers wait.
    pub fn carry_deaths(inputs: &[SegmentView], now: &[Arc<Dead>], output: Sealed) -> SealedView {
        let mut output = SealedView::fresh(Arc::new(output));
        for (input, now) in inputs.iter().zip(now) {
            for ordinal in now.rows() - input.dead.rows() {
                output.kill(input.segment.row_of(ordinal));
            }
        }
        output
    }
}

/// A row's content, as it was written.
pub fn content(segment: &Segment, ordinal: Ordinal, schema: &Schema) -> Result<PendingRow> {
    segment.verify_row(ordinal)?;
    Ok(PendingRow {
        row: segment.row_of(ordinal),
        birth: segment.birth_of(ordinal),
        id: PointId::new(segment.id_of(ordinal))?,
        document: segment.document_of(ordinal).map(PointId::new).transpose()?,
        expires_at_ms: segment.expires_at_ms(ordinal),
        acl: segment.acl_of(ordinal).to_vec(),
        vectors: schema
            .vectors
            .values()
            .enumerate()
            .map(|(i, spec)| Some(Owned::new(spec.metric, segment.vector_of(i, ordinal)?)))
            .collect(),
        sparse: (0..schema.sparse.len())
            .map(|i| segment.sparse(i).row(ordinal).map(<[u8]>::to_vec))
            .collect(),
        payload: segment.payload_json(ordinal)?.into_owned(),
        inline: false,
        dead: false,
    })
}
