//! Asking some questions once more, exactly, to know how much searches find ([`crate::query::Estimate`]).

use parking_lot::Mutex;
use std::collections::VecDeque;

use super::Engine;
use crate::collection::Collection;
use crate::error::Result;
use crate::patience::Patience;
use crate::query::{Estimate, Picked, Query};
use crate::types::CollectionNo;

/// Questions that wait to be asked again, of all collections and of one. Of more the oldest are dropped.
const WAITING_MAX: usize = 32;
const WAITING_OF_ONE_MAX: usize = 8;

/// Questions that wait to be asked again, and what all of them found.
#[derive(Default)]
pub(super) struct Sampling {
    waiting: Mutex<VecDeque<Waiting>>,
    found: Mutex<Estimate>,
}

/// A question, and of which collection. The collection itself would keep files that were merged away.
struct Waiting {
    no: CollectionNo,
    name: String,
    picked: Picked,
}

impl Engine {
    /// Keeps one of some questions, to be asked again.
    pub(super) fn sample(&self, collection: &Collection, query: &Query) {
        let settings = &self.shared.settings;
        // Where memory is short no vectors are read for this.
        let every = if settings.low_memory {
            0
        } else {
            settings.recall_sample_every
        };
        let Some(picked) = collection.samples().pick(query, every) else {
            return;
        };
        let next = Waiting {
            no: collection.no,
            name: collection.name.clone(),
            picked,
        };
        let mut waiting = self.shared.sampling.waiting.lock();
        let of_it = |one: &Waiting| one.no == collection.no;
        if waiting.iter().filter(|one| of_it(one)).count() >= WAITING_OF_ONE_MAX {
            let oldest = waiting.iter().position(of_it);
            oldest.and_then(|at| waiting.remove(at));
        } else if waiting.len() >= WAITING_MAX {
            waiting.pop_front();
        }
        waiting.push_back(next);
    }

    /// Asks one of the picked questions again, if any waits. Costs what an exact search does, so whoever calls it decides how often.
    /// Returns whether there was one.
    pub fn sample_step(&self, patience: &Patience) -> Result<bool> {
        self.shared.check_alive()?;
        let next = self.shared.sampling.waiting.lock().pop_front();
        let Some(Waiting { no, name, picked }) = next else {
            return Ok(false);
        };
        let collection = match self.find(&name) {
            Ok(collection) if collection.no == no => collection,
            // Dropped, or called otherwise.
            _ => return Ok(true),
        };
        let recall = self.read(&collection, patience, |context| picked.recall(context));
        // Without one nothing matches any more, or the collection is too large. Or it took too long, or a file is damaged, which is
        // said elsewhere. Such a question says nothing.
        if let Ok(Some(recall)) = recall {
            collection.samples().add(recall);
            self.shared.sampling.found.lock().add(recall);
        }
        Ok(true)
    }

    /// How much searches of all collections found, of those that were asked again.
    pub fn recall_estimate(&self) -> Estimate {
        *self.shared.sampling.found.lock()
    }
}
