//! A collection as readers know it: its definition, and the listing of segments that the applier published last.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;

use crate::error::Result;
use crate::query::{Listing, Samples};
use crate::schema::Schema;
use crate::segment::Spec;
use crate::text::analyzer::{self, Analyzer};
use crate::types::{CollectionNo, PointId, Seq, ShardNo};

/// A collection.
pub struct Collection {
    /// Internal number.
    pub no: CollectionNo,
    /// Name.
    pub name: String,
    /// Definition.
    pub schema: Arc<Schema>,
    /// One a text field; shared by collections whose fields are analysed alike.
    pub analyzers: BTreeMap<String, &'static Analyzer>,
    listing: ArcSwap<Listing>,
    samples: Arc<Samples>,
    /// Shared with whoever has this collection under an older name.
    dropped: Arc<AtomicBool>,
}

impl Collection {
    /// A collection without points.
    pub fn new(no: CollectionNo, name: String, schema: Schema) -> Result<Self> {
        schema.check()?;
        let mut analyzers = BTreeMap::new();
        for (path, spec) in schema.text_fields() {
            let at = |e: crate::Error| e.at(format!("/fields/{path}/analyzer"));
            analyzer::check(spec).map_err(at)?;
            analyzers.insert(path.to_owned(), Analyzer::shared(spec).map_err(at)?);
        }
        let listing = Listing::new(Seq(0), vec![Arc::default(); schema.shards as usize], 0);
        Ok(Self {
            no,
            name,
            schema: Arc::new(schema),
            analyzers,
            listing: ArcSwap::from_pointee(listing),
            samples: Arc::default(),
            dropped: Arc::default(),
        })
    }

    /// The same collection under another name. The old value shows the moment it shows now to whoever still holds it.
    pub fn renamed(&self, name: String) -> Self {
        Self {
            no: self.no,
            name,
            schema: Arc::clone(&self.schema),
            analyzers: self.analyzers.clone(),
            listing: ArcSwap::new(self.listing()),
            samples: Arc::clone(&self.samples),
            dropped: Arc::clone(&self.dropped),
        }
    }

    /// The newest moment.
    pub fn listing(&self) -> Arc<Listing> {
        self.listing.load_full()
    }

    /// Shows readers a new moment. Only the applier calls it.
    pub fn publish(&self, listing: Listing) {
        self.listing.store(Arc::new(listing));
    }

    /// Questions that are to be asked again, and what came of them.
    pub(crate) fn samples(&self) -> &Samples {
        &self.samples
    }

    /// What a segment build needs.
    pub fn spec(&self) -> Spec<'_> {
        Spec {
            schema: &self.schema,
            analyzers: &self.analyzers,
        }
    }

    /// The shard of a point: by its document if it has one, so that a document's chunks stay together.
    pub fn shard_of(&self, id: &PointId, document: Option<&PointId>) -> ShardNo {
        let key = document.unwrap_or(id);
        let hash = xxhash_rust::xxh3::xxh3_64_with_seed(key.as_str().as_bytes(), 0x5eed);
        ShardNo((hash % u64::from(self.schema.shards)) as u32)
    }

    /// Marks it gone, so that background work on it stops.
    pub fn mark_dropped(&self) {
        self.dropped.store(true, Ordering::Relaxed);
    }

    /// True once it was dropped.
    pub fn is_dropped(&self) -> bool {
        self.dropped.load(Ordering::Relaxed)
    }
}
