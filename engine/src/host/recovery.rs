//! After a restart: what stood in queues is put there again, what workers had is given up or timed out, and what runs
//! owe to each other is done.

use super::{Done, Error, Host, wait};
use crate::core::recover::Recover;
use crate::store::{Durability, Range, Space, keys};
use std::sync::Arc;
use tracing::info;

impl Host {
    /// Queues the recovery of every run that was busy when the engine stopped; returns what to wait for.
    pub fn recover(self: &Arc<Self>) -> Result<Vec<Done>, Error> {
        let busy = self.store.scan(Space::Busy, Range::prefix(Vec::new()))?;
        let mut pending = Vec::with_capacity(busy.len());
        for (key, _) in busy {
            let Ok(key) = key.try_into() else { continue };
            if let Some(slot) = self.slot(&key)? {
                pending.push(self.decide(&slot, Recover, Durability::Synced)?.1);
            }
        }
        for (key, _) in self.store.scan(Space::Errand, Range::prefix(Vec::new()))? {
            if let Some((run, _)) = keys::parse_errand(&key) {
                self.errands.push(run);
            }
        }
        if !pending.is_empty() {
            info!(runs = pending.len(), "recovering runs that were busy");
        }
        Ok(pending)
    }
}

/// Waits for all of them.
pub async fn recovered(pending: Vec<Done>) -> Result<(), Error> {
    for done in pending {
        wait(done).await?;
    }
    Ok(())
}
