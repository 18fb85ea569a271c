//! One moment of a collection, for questions that belong together.
//!
//! A query finds, a second look fetches the payloads of some of what was found, a third the chunks beside them: all of it
//! from one view, so that no write in between shows as a point that is found and gone, or as a text that is not the one
//! that was found. Holding a moment holds its segments (files stay on disk, memory stays used): it is meant for the length
//! of one request.

use std::sync::Arc;

use super::{Engine, check};
use crate::collection::Collection;
use crate::error::Result;
use crate::filter::Filter;
use crate::patience::Patience;
use crate::query::{self, Context, Query, QueryResult, View, With};
use crate::schema::Schema;
use crate::types::{Point, PointId, Token};

/// One moment of a collection.
pub struct Moment<'e> {
    engine: &'e Engine,
    collection: Arc<Collection>,
    view: Arc<View>,
    now_ms: u64,
    patience: Patience,
}

impl Engine {
    /// The newest moment of a collection, which has seen the write `after`. Every question put to it ends with an error when
    /// `patience` does.
    pub fn moment(&self, collection: &str, after: Option<Token>, patience: Patience) -> Result<Moment<'_>> {
        let collection = self.find(collection)?;
        self.check_after(after)?;
        Ok(Moment {
            view: collection.view(),
            collection,
            now_ms: self.now_ms(),
            engine: self,
            patience,
        })
    }

    /// The clock that decides which points have expired, in milliseconds since the Unix epoch.
    pub fn now_ms(&self) -> u64 {
        self.shared.components.clock.now_ms()
    }
}

impl Moment<'_> {
    /// The collection's definition.
    pub fn schema(&self) -> &Schema {
        &self.collection.schema
    }

    /// Answers a query. What it says of `after` and of patience is the moment's business.
    pub fn query(&self, query: &Query) -> Result<QueryResult> {
        self.read(|context| query::run(context, query))
    }

    /// Points by id, in the order asked, and the bytes of their payloads and vectors; missing ones are left out.
    pub fn get(&self, ids: &[PointId], with: With) -> Result<(Vec<Point>, usize)> {
        check::batch_size("ids", ids.len()).map_err(|e| e.at("/ids"))?;
        self.read(|context| Ok((query::get(context, ids, with)?, context.answer_bytes.get())))
    }

    /// The first points that match, in row order, `limit` of them at most.
    pub fn matching(&self, filter: &Filter, limit: usize, with: With) -> Result<Vec<Point>> {
        self.read(|context| query::scroll(context, filter, limit, None, with).map(|(points, _)| points))
    }

    /// Live points that match.
    pub fn count(&self, filter: &Filter) -> Result<u64> {
        self.read(|context| query::count(context, filter))
    }

    fn read<T>(&self, ask: impl FnOnce(&Context<'_>) -> Result<T>) -> Result<T> {
        let mut context = self.engine.context(&self.collection, &self.view, &self.patience);
        // What has expired is decided once.
        context.now_ms = self.now_ms;
        context.ask(ask)
    }
}

impl std::fmt::Debug for Moment<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Moment")
            .field("collection", &self.collection.name)
            .field("seq", &self.view.seq)
            .finish_non_exhaustive()
    }
}
