//! The exact set of rows of a segment that a filter lets through.
//!
//! Set algebra over postings, leaf by leaf; no payload is read. Deaths, expiry and permissions are the caller's to
//! subtract. What a leaf means for rows with several values is said at [`Condition`]; in short, *some* value must do.

use std::collections::HashSet;

use roaring::RoaringBitmap;

use super::index::{FieldView, FilterIndexView, Identity};
use super::{Condition, Filter, Scalar};
use crate::error::{Error, ErrorKind, Result};
use crate::types::PointId;

/// Who has which id: the segment knows.
pub trait IdLookup {
    /// The rows of a point in this segment: more than one where older versions of it are dead here.
    fn ordinals_of_id(&self, id: &PointId) -> Result<RoaringBitmap>;
    /// The rows of a document's chunks in this segment.
    fn ordinals_of_document(&self, id: &PointId) -> Result<RoaringBitmap>;
}

/// The rows out of `0..rows` that match. An empty filter matches all. Expects a filter that passed [`Filter::check`],
/// which bounds the work; `rows` is the segment's own number, so that an index of another segment is found out.
pub fn eval(filter: &Filter, view: &FilterIndexView<'_>, rows: u32, ids: &dyn IdLookup) -> Result<RoaringBitmap> {
    eval_within(filter, view, rows, ids, &|| false)
}

/// The same, unless `stop` says so before it is done: the thousands of values that a filter may name are looked up one by one.
pub fn eval_within(
    filter: &Filter,
    view: &FilterIndexView<'_>,
    rows: u32,
    ids: &dyn IdLookup,
    stop: &dyn Fn() -> bool,
) -> Result<RoaringBitmap> {
    if view.rows() != rows {
        return Err(Error::damaged(format!(
            "filter index covers {} rows, its segment has {rows}",
            view.rows()
        )));
    }
    Eval { view, rows, ids, stop }.filter(filter)
}

struct Eval<'e, 'v> {
    view: &'e FilterIndexView<'v>,
    rows: u32,
    ids: &'e dyn IdLookup,
    stop: &'e dyn Fn() -> bool,
}

impl<'v> Eval<'_, 'v> {
    fn filter(&self, filter: &Filter) -> Result<RoaringBitmap> {
        let mut left = self.must(&filter.must)?;
        if left.as_ref().is_some_and(RoaringBitmap::is_empty) {
            return Ok(RoaringBitmap::new());
        }
        if !filter.should.is_empty() || filter.min_should.is_some() {
            let should = self.at_least(&filter.should, filter.min_should.unwrap_or(1))?;
            left = Some(match left {
                Some(left) => left & should,
                None => should,
            });
        }
        let mut left = left.unwrap_or_else(|| self.all());
        for condition in &filter.must_not {
            if left.is_empty() {
                break;
            }
            left -= self.condition(condition)?;
        }
        Ok(left)
    }

    /// Rows for which all hold; none if nothing is asked. Fewest rows first, because an empty set ends it.
    fn must(&self, conditions: &[Condition]) -> Result<Option<RoaringBitmap>> {
        let mut order = Vec::with_capacity(conditions.len());
        for condition in conditions {
            // Nothing to order, nothing to look up twice.
            let at_most = if conditions.len() > 1 {
                self.at_most(condition)?
            } else {
                0
            };
            order.push((at_most, condition));
        }
        order.sort_by_key(|(at_most, _)| *at_most);
        let mut left: Option<RoaringBitmap> = None;
        for (_, condition) in order {
            let matching = self.condition(condition)?;
            let remaining = match left {
                Some(left) => left & matching,
                None => matching,
            };
            if remaining.is_empty() {
                return Ok(Some(remaining));
            }
            left = Some(remaining);
        }
        Ok(left)
    }

    /// Rows for which `min` of the conditions hold.
    fn at_least(&self, conditions: &[Condition], min: u32) -> Result<RoaringBitmap> {
        if min == 0 {
            return Ok(self.all());
        }
        if min as usize > conditions.len() {
            return Ok(RoaringBitmap::new());
        }
        if min == 1 {
            let mut union = RoaringBitmap::new();
            for condition in conditions {
                union |= self.condition(condition)?;
            }
            return Ok(union);
        }
        if min as usize == conditions.len() {
            return Ok(self.must(conditions)?.unwrap_or_default());
        }
        let mut held = vec![0u32; self.rows as usize];
        for condition in conditions {
            for ordinal in self.condition(condition)? {
                held[ordinal as usize] += 1;
            }
        }
        let enough = (0..self.rows).filter(|&ordinal| held[ordinal as usize] >= min);
        Ok(RoaringBitmap::from_sorted_iter(enough).expect("counted upwards"))
    }

    /// Asked before every set that is made of a value.
    fn go_on(&self) -> Result<()> {
        if (self.stop)() {
            return Err(Error::new(
                ErrorKind::Deadline,
                "deadline_exceeded",
                "the deadline passed while a filter was evaluated",
            ));
        }
        Ok(())
    }

    fn condition(&self, condition: &Condition) -> Result<RoaringBitmap> {
        self.go_on()?;
        match condition {
            Condition::Any { field, values } => self.of_field(field, |field| self.any(&field, values)),
            Condition::Except { field, values } => self.of_field(field, |field| self.except(&field, values)),
            Condition::Range { field, range } => self.of_field(field, |field| field.range(range)?.bitmap()),
            Condition::IsEmpty { field } => Ok(self.all() - self.of_field(field, |field| field.present().bitmap())?),
            Condition::HasId { ids } => {
                let mut rows = RoaringBitmap::new();
                for id in ids {
                    self.go_on()?;
                    rows |= self.ids.ordinals_of_id(id)?;
                }
                Ok(self.known(rows))
            }
            Condition::HasDocument { ids } => {
                let mut rows = RoaringBitmap::new();
                for id in ids {
                    self.go_on()?;
                    rows |= self.ids.ordinals_of_document(id)?;
                }
                Ok(self.known(rows))
            }
            Condition::Nested(filter) => self.filter(filter),
        }
    }

    /// How many rows can match at most, as far as counts tell without decoding anything.
    fn at_most(&self, condition: &Condition) -> Result<usize> {
        let rows = self.rows as usize;
        let of_field = |field: &str, count: &dyn Fn(FieldView<'v>) -> Result<usize>| match self.view.field(field)? {
            Some(field) => count(field),
            None => Ok(0),
        };
        match condition {
            Condition::Any { field, values } => of_field(field, &|field| {
                let mut sum = 0;
                for value in values {
                    sum += field.equal(value.into())?.len();
                }
                Ok(sum)
            }),
            Condition::Except { field, .. } => of_field(field, &|field| Ok(field.present().len())),
            Condition::Range { field, range } => of_field(field, &|field| Ok(field.range(range)?.len())),
            Condition::IsEmpty { field } => Ok(rows - of_field(field, &|field| Ok(field.present().len()))?),
            Condition::HasId { ids } => Ok(ids.len()),
            Condition::HasDocument { .. } | Condition::Nested(_) => Ok(rows),
        }
    }

    fn of_field(
        &self,
        path: &str,
        matching: impl FnOnce(FieldView<'v>) -> Result<RoaringBitmap>,
    ) -> Result<RoaringBitmap> {
        match self.view.field(path)? {
            Some(field) => matching(field),
            None => Ok(RoaringBitmap::new()),
        }
    }

    fn all(&self) -> RoaringBitmap {
        let mut all = RoaringBitmap::new();
        all.insert_range(0..self.rows);
        all
    }

    fn known(&self, mut rows: RoaringBitmap) -> RoaringBitmap {
        rows.remove_range(self.rows..);
        rows
    }

    fn any(&self, field: &FieldView<'_>, values: &[Scalar]) -> Result<RoaringBitmap> {
        let mut union = RoaringBitmap::new();
        for value in values {
            self.go_on()?;
            union |= field.equal(value.into())?.bitmap()?;
        }
        Ok(union)
    }

    /// Rows with a value outside the list: those that hold none of the list, and of those that hold some, the ones with more
    /// values than they hold of the list. Only rows with several values need counting.
    fn except(&self, field: &FieldView<'_>, values: &[Scalar]) -> Result<RoaringBitmap> {
        // Not as bitmaps: thousands of large ones are gigabytes.
        let mut listed = Vec::with_capacity(values.len());
        let mut seen = HashSet::with_capacity(values.len());
        for value in values {
            // 1 and 1.0 are one value and must count once.
            if seen.insert(Identity::of(value.into())) {
                listed.push(field.equal(value.into())?);
            }
        }
        let mut holders = RoaringBitmap::new();
        for rows in &listed {
            self.go_on()?;
            holders |= rows.bitmap()?;
        }
        let mut outside = field.present().bitmap()? - &holders;

        let mut several = field.several()?;
        several.retain(|(ordinal, _)| holders.contains(*ordinal));
        if several.is_empty() {
            return Ok(outside);
        }
        let in_question = RoaringBitmap::from_sorted_iter(several.iter().map(|(ordinal, _)| *ordinal))
            .map_err(|_| Error::damaged("filter index: ordinals do not ascend"))?;
        for rows in listed {
            self.go_on()?;
            for ordinal in rows.bitmap()? & &in_question {
                let i = several.partition_point(|(other, _)| *other < ordinal);
                several[i].1 = several[i]
                    .1
                    .checked_sub(1)
                    .ok_or_else(|| Error::damaged("filter index: a row has more values than were counted"))?;
            }
        }
        outside.extend(
            several
                .into_iter()
                .filter(|(_, rest)| *rest > 0)
                .map(|(ordinal, _)| ordinal),
        );
        Ok(outside)
    }
}
