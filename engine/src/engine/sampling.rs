//! Asking some questions once more, exactly, to know how much searches find ([`crate::query::Samples`]).

use std::sync::Arc;

use super::Engine;
use crate::collection::Collection;
use crate::error::Result;
use crate::patience::Patience;
use crate::query::Estimate;

impl Engine {
    /// Asks one of the picked questions again, if any waits. Costs what an exact search does, so whoever calls it decides how often.
    /// Returns whether there was one.
    pub fn sample_step(&self, patience: &Patience) -> Result<bool> {
        self.shared.check_alive()?;
        let mut collections: Vec<Arc<Collection>> = self.shared.collections.read().values().cloned().collect();
        // Each time others come first, so that a busy collection does not keep those behind it from their turn.
        let turn = self.recall_estimate().questions as usize % collections.len().max(1);
        collections.rotate_left(turn);
        for collection in collections {
            let Some(picked) = collection.samples().next() else {
                continue;
            };
            match self.read(&collection, patience, |context| picked.recall(context)) {
                Ok(Some(recall)) => {
                    collection.samples().add(recall);
                    self.shared.sampled.lock().add(recall);
                }
                // Nothing matches any more. Or it took too long, or a file is damaged, which is said elsewhere: this question says
                // nothing.
                Ok(None) | Err(_) => {}
            }
            return Ok(true);
        }
        Ok(false)
    }

    /// How much searches of all collections found, of those that were asked again.
    pub fn recall_estimate(&self) -> Estimate {
        *self.shared.sampled.lock()
    }
}
