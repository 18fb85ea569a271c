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
use crate::types::{PointId, Row, Seq};

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
                let segment = &view.segment;
                return Ok(Some(PendingRow {
                    row,
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
                }));
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

#[cfg(test)]
mod measure {
    //! Temporary.
    use super::*;
    use crate::storage::{DEATHS, Effects, Storage, key};
    use crate::types::{CollectionNo, ShardNo};
    use std::collections::BTreeMap;
    use std::time::Instant;

    #[test]
    fn measure_carry() {
        let schema: Schema = serde_json::from_str("{}").unwrap();
        let analyzers = BTreeMap::new();
        let spec = Spec { schema: &schema, analyzers: &analyzers };
        let n = 500_000u64;
        let rows: Vec<PendingRow> = (0..n)
            .map(|i| PendingRow {
                row: Row(i), birth: Seq(1), id: PointId::new(format!("{i}")).unwrap(), document: None, expires_at_ms: 0,
                acl: vec![], vectors: vec![], sparse: vec![], payload: "{}".into(), inline: false, dead: false,
            })
            .collect();
        let t = Instant::now();
        let segment = Arc::new(write_memory(&spec, &rows).unwrap());
        println!("built {n} in {:?}", t.elapsed());
        let mut dead = Dead::default();
        let t = Instant::now();
        (0..n as u32).filter(|o| o % 3 == 0).for_each(|o| drop(dead.kill(&segment, o)));
        println!("killed {} in {:?}", dead.count(), t.elapsed());
        let before = SegmentView { segment: Arc::clone(&segment), dead: Arc::new(dead.clone()) };
        let kept = [Kept::live(&before)];
        let output = Arc::new(merge_memory(&spec, &kept).unwrap());
        (0..n as u32).filter(|o| o % 100 == 1).for_each(|o| drop(dead.kill(&segment, o)));
        let now = SegmentView { segment, dead: Arc::new(dead) };
        let t = Instant::now();
        let all = Shard::carry_deaths(&[SegmentView::fresh(Arc::clone(&before.segment))], &[now.clone()], &output);
        println!("carry all {} in {:?}", all.count(), t.elapsed());
        let t = Instant::now();
        let new = Shard::carry_deaths(&[before], &[now.clone()], &output);
        println!("carry new {} in {:?}", new.count(), t.elapsed());
        let dir = tempfile::tempdir().unwrap();
        let storage = Storage::open(dir.path()).unwrap();
        let (no, shard) = (CollectionNo(1), ShardNo(0));
        let mut batch = Effects::new(&storage);
        for o in now.dead.rows() {
            batch.put(DEATHS, &key::row(no, shard, Row(u64::from(o))), &1u64.to_le_bytes());
        }
        storage.write_effects(batch).unwrap();
        storage.flush().unwrap();
        let t = Instant::now();
        let mut effects = Effects::new(&storage);
        storage.scan(DEATHS, &key::shard(no, shard), &[], |key, _| {
            let row = key::parse_row(key).unwrap().2;
            if output.ordinal_of(row).is_none() { effects.delete(DEATHS, key); }
            Ok(true)
        }).unwrap();
        println!("old scan {:?}", t.elapsed());
        drop(effects);
        let t = Instant::now();
        let mut effects = Effects::new(&storage);
        effects.delete_range(DEATHS, &key::row(no, shard, Row(0)), &key::row(no, shard, Row(n)));
        for o in new.rows() {
            let row = key::row(no, shard, output.row_of(o));
            let v = storage.get(DEATHS, &row).unwrap().unwrap();
            effects.put(DEATHS, &row, &v);
        }
        storage.write_effects(effects).unwrap();
        println!("new range {:?}", t.elapsed());
    }
}
