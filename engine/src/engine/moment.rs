//! One moment of a collection, for questions that belong together.
//!
//! A query finds, a second look fetches the payloads of some of what was found, a third the chunks beside them: all of it
//! from one view, so that no write in between shows as a point that is found and gone, or as a text that is not the one
//! that was found. Holding a moment holds its segments (files stay on disk, memory stays used): it is meant for the length
//! of one request.
//!
//! A question that needs a damaged segment fails, unless the moment allows partial answers: then it is answered without it, and
//! [`Moment::missing`] says what was left out.

use std::sync::Arc;

use parking_lot::Mutex;

use super::ask::{Page, Scroll};
use super::{Engine, check};
use crate::collection::Collection;
use crate::error::Result;
use crate::filter::Filter;
use crate::patience::Patience;
use crate::query::{self, Ahead, Context, Lacking, Listing, Query, QueryResult, With};
use crate::schema::Schema;
use crate::segment::Missing;
use crate::types::{Point, PointId, Token};

/// One moment of a collection.
pub struct Moment<'e> {
    engine: &'e Engine,
    collection: Arc<Collection>,
    listing: Arc<Listing>,
    now_ms: u64,
    patience: Patience,
    lacking: Lacking,
    /// What the answers so far were given without.
    missing: Mutex<Vec<Missing>>,
    /// What was found for queries that were announced.
    ahead: Option<Ahead>,
}

impl Engine {
    /// The newest moment of a collection, which has seen the write `after`. Every question put to it ends with an error when
    /// `patience` does.
    pub fn moment(&self, collection: &str, after: Option<Token>, patience: Patience) -> Result<Moment<'_>> {
        let collection = self.find(collection)?;
        self.check_after(after)?;
        Ok(Moment::of(self, collection, patience))
    }

    /// The clock that decides which points have expired, in milliseconds since the Unix epoch.
    pub fn now_ms(&self) -> u64 {
        self.shared.components.clock.now_ms()
    }
}

impl<'e> Moment<'e> {
    pub(super) fn of(engine: &'e Engine, collection: Arc<Collection>, patience: Patience) -> Self {
        Self {
            listing: collection.listing(),
            collection,
            now_ms: engine.now_ms(),
            engine,
            patience,
            lacking: Lacking::Refuse,
            missing: Mutex::default(),
            ahead: None,
        }
    }

    /// Whether answers may lack what damaged segments hold.
    #[must_use]
    pub fn allow_partial(self, allow: bool) -> Self {
        let lacking = if allow { Lacking::Tell } else { Lacking::Refuse };
        Self { lacking, ..self }
    }

    /// Searches for queries that will be asked together, which costs less than to search for each by itself. Their answers are the same:
    /// where anything is wrong nothing is searched for, and the query that it is wrong with says so when it is asked.
    #[must_use]
    pub fn announce(self, queries: &[&Query]) -> Self {
        if queries.is_empty() {
            return self;
        }
        let ahead = self.read(|context| Ahead::of(context, queries)).ok();
        Self { ahead, ..self }
    }

    /// The same moment for questions of another kind: it allows no partial answers, and nothing was announced.
    #[must_use]
    pub fn again(&self) -> Self {
        Self {
            engine: self.engine,
            collection: Arc::clone(&self.collection),
            listing: Arc::clone(&self.listing),
            now_ms: self.now_ms,
            patience: self.patience.clone(),
            lacking: Lacking::Refuse,
            missing: Mutex::default(),
            ahead: None,
        }
    }

    /// The segments that answers of this moment were given without.
    pub fn missing(&self) -> Vec<Missing> {
        self.missing.lock().clone()
    }

    /// The collection's definition.
    pub fn schema(&self) -> &Schema {
        &self.collection.schema
    }

    /// Answers a query. What it says of `after` and of patience is the moment's business.
    pub fn query(&self, query: &Query) -> Result<QueryResult> {
        let answer = self.read(|context| query::run(context, query))?;
        self.engine.sample(&self.collection, query);
        Ok(answer)
    }

    /// Points by id, in the order asked, and the bytes of their payloads and vectors; missing ones are left out. An id that is
    /// found needs no other segment, so damage matters only if some are not.
    pub fn get(&self, ids: &[PointId], with: With) -> Result<(Vec<Point>, usize)> {
        check::batch_size("ids", ids.len()).map_err(|e| e.at("/ids"))?;
        let (points, bytes, missing) = self.read_lacking(Lacking::Tell, |context| {
            let points = query::get(context, ids, with)?;
            Ok((points, context.answer_bytes.get(), context.view.missing.clone()))
        })?;
        if points.len() < ids.len()
            && let Some(first) = missing.first()
        {
            match self.lacking {
                Lacking::Refuse => return Err(first.error()),
                Lacking::Tell => self.note(&missing),
            }
        }
        Ok((points, bytes))
    }

    /// The first points that match, in row order, `limit` of them at most.
    pub fn matching(&self, filter: &Filter, limit: usize, with: With) -> Result<Vec<Point>> {
        self.read(|context| query::scroll(context, filter, limit, None, with).map(|(points, _)| points))
    }

    /// A page of points. What it says of `after`, of patience and of partial answers is the moment's business.
    pub fn scroll(&self, scroll: &Scroll) -> Result<Page> {
        let page = self.read(|context| {
            let cursor = scroll.cursor.as_deref();
            let (points, cursor) = query::scroll(context, &scroll.filter, scroll.limit, cursor, scroll.with)?;
            Ok(Page {
                points,
                cursor,
                bytes: context.answer_bytes.get(),
                missing: Vec::new(),
            })
        })?;
        Ok(Page {
            missing: self.missing(),
            ..page
        })
    }

    /// Live points that match.
    pub fn count(&self, filter: &Filter) -> Result<u64> {
        self.read(|context| query::count(context, filter))
    }

    fn read<T>(&self, ask: impl Fn(&Context<'_>) -> Result<T>) -> Result<T> {
        self.read_lacking(self.lacking, |context| {
            let answer = ask(context)?;
            self.note(&context.view.missing);
            Ok(answer)
        })
    }

    /// Asks; where that shows more damage, asks again without it.
    fn read_lacking<T>(&self, lacking: Lacking, ask: impl Fn(&Context<'_>) -> Result<T>) -> Result<T> {
        loop {
            let view = self.listing.view(&self.patience, lacking)?;
            let mut context = self.engine.context(&self.collection, &view, &self.patience);
            // What has expired is decided once.
            context.now_ms = self.now_ms;
            context.ahead = self.ahead.as_ref().filter(|ahead| ahead.is_of(&view));
            match context.ask(&ask) {
                // The next view is without the segment that this one had, so this ends.
                Err(error) if lacking == Lacking::Tell && error.code == "segment_damaged" => {}
                answer => return answer,
            }
        }
    }

    fn note(&self, missing: &[Missing]) {
        let mut noted = self.missing.lock();
        for missing in missing {
            if !noted
                .iter()
                .any(|m| (m.shard, m.segment) == (missing.shard, missing.segment))
            {
                noted.push(missing.clone());
            }
        }
    }
}

impl std::fmt::Debug for Moment<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Moment")
            .field("collection", &self.collection.name)
            .field("seq", &self.listing.seq)
            .finish_non_exhaustive()
    }
}
