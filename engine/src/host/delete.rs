//! Removing a run and everything that was stored for it.

use super::{Error, Host, Slot, record, wait};
use crate::core::Refusal;
use crate::core::terminate::Terminate;
use crate::store::{self, Batch, Durability, Range, Space, keys};
use crate::time::Time;
use std::sync::Arc;
use tokio::sync::oneshot;

impl Host {
    /// Deletes a run; an open one is terminated first.
    pub async fn delete(self: &Arc<Self>, slot: &Arc<Slot>) -> Result<(), Error> {
        let (namespace, workflow_id) = {
            let run = slot.run.lock();
            (run.state.namespace.clone(), run.state.workflow_id.clone())
        };
        let lock = self.starts.lock(&namespace, &workflow_id).await;
        let terminate = Terminate {
            reason: "deleted".to_owned(),
            details: None,
            identity: "history-service".to_owned(),
            first_run_id: String::new(),
            from: None,
        };
        match self.transact(slot, terminate, Durability::Synced).await {
            Ok(()) | Err(Error::Refused(Refusal::Closed)) => {}
            Err(error) => return Err(error),
        }
        // An end that is decided and not yet written is nothing that can be told.
        self.sync().await?;
        // Its parent hears of its end, and its children end with it, before nobody knows of it any more.
        self.settle(slot)?;
        let done = {
            let run = slot.run.lock();
            if slot.is_deleted() {
                return Err(Error::NoRun);
            }
            let state = &run.state;
            let started_at = Time(state.started_at);
            let mut batch = Batch::default();
            for space in [Space::History, Space::Signal, Space::Errand] {
                for (key, _) in self.store.scan(space, Range::prefix(slot.key.to_vec()))? {
                    batch.remove(space, key);
                }
            }
            batch.remove(Space::Run, slot.key.to_vec());
            batch.remove(Space::Busy, slot.key.to_vec());
            batch.remove(Space::Listed, keys::listed(&namespace, started_at, &slot.key));
            batch.remove(Space::ByWorkflow, keys::by_workflow(&namespace, &workflow_id, started_at, &slot.key));
            record::closed_entries(state, &slot.key).into_iter().for_each(|(space, entry)| batch.remove(space, entry));
            if state.wake_at != 0 {
                batch.remove(Space::Timer, keys::timer(Time(state.wake_at), &slot.key));
            }
            let current = keys::current(&namespace, &workflow_id);
            if self.store.get(Space::Current, &current)?.as_deref() == Some(&slot.key[..]) {
                batch.remove(Space::Current, current);
            }
            slot.mark_deleted();
            let (done, waits) = oneshot::channel();
            let (host, slot) = (self.clone(), slot.clone());
            let after = move |result: Result<(), Arc<store::Error>>| {
                match &result {
                    Ok(()) => host.cache.remove(&slot.key),
                    Err(_) => host.poison(),
                }
                drop(lock);
                let _nobody_waits = done.send(result);
            };
            self.submit(batch, Durability::Synced, Box::new(after));
            waits
        };
        wait(done).await
    }
}
