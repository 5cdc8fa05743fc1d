//! Group commit. Transitions hand over their batches in the order in which they were decided; one thread writes all that
//! wait, syncs once for all of them, and then lets each go on. After a failed write nothing is written any more.

use super::{Batch, Durability, Error, Storage};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use tracing::error;

/// Runs on the committer's thread once the batch counts, or will never: must not block.
pub type After = Box<dyn FnOnce(Result<(), Arc<Error>>) + Send>;

struct Commit {
    batch: Batch,
    durability: Durability,
    after: After,
}

/// The way into the store for writes.
pub struct Committer {
    queue: Option<Sender<Commit>>,
    thread: Option<JoinHandle<()>>,
}

/// The other end: what waits to be written.
pub struct Commits {
    store: Arc<dyn Storage>,
    queue: Receiver<Commit>,
    failed: Option<Arc<Error>>,
}

/// Enough for a burst; keeps one sync from waiting for an endless queue.
const GROUP_MAX: usize = 1_024;

impl Committer {
    /// A committer with a thread of its own.
    pub fn start(store: Arc<dyn Storage>) -> std::io::Result<Committer> {
        let (mut committer, mut commits) = Committer::unattended(store);
        let work = move || {
            while let Ok(first) = commits.queue.recv() {
                commits.write(first);
            }
        };
        let thread = std::thread::Builder::new().name("engine-commit".to_owned()).spawn(work)?;
        committer.thread = Some(thread);
        Ok(committer)
    }

    /// A committer whose writes happen when somebody attends to the other end.
    pub fn unattended(store: Arc<dyn Storage>) -> (Committer, Commits) {
        let (queue, waiting) = channel();
        (Committer { queue: Some(queue), thread: None }, Commits { store, queue: waiting, failed: None })
    }

    /// Queues a batch; batches are written in the order of these calls.
    pub fn submit(&self, batch: Batch, durability: Durability, after: After) {
        let commit = Commit { batch, durability, after };
        match &self.queue {
            Some(queue) => {
                if let Err(refused) = queue.send(commit) {
                    (refused.0.after)(Err(Arc::new(Error::Poisoned)));
                }
            }
            None => (commit.after)(Err(Arc::new(Error::Poisoned))),
        }
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            // The last handle may be dropped by the thread itself, in an `after`.
            if thread.thread().id() != std::thread::current().id() && thread.join().is_err() {
                error!("the commit thread panicked");
            }
        }
    }
}

impl Commits {
    /// Writes one group of what waits, if anything does; whether there was any.
    #[cfg(test)]
    pub fn turn(&mut self) -> bool {
        self.queue.try_recv().map(|first| self.write(first)).is_ok()
    }

    /// Writes `first` and all that waits behind it as one group.
    fn write(&mut self, first: Commit) {
        let mut durability = first.durability;
        let (mut batches, mut afters) = (vec![first.batch], vec![first.after]);
        while afters.len() < GROUP_MAX
            && let Ok(next) = self.queue.try_recv()
        {
            durability = durability.max(next.durability);
            batches.push(next.batch);
            afters.push(next.after);
        }
        if self.failed.is_none()
            && let Err(error) = self.store.write(batches, durability)
        {
            error!(error = &error as &dyn std::error::Error, "the store failed, no more writes are accepted");
            self.failed = Some(Arc::new(error));
        }
        for after in afters {
            after(self.failed.clone().map_or(Ok(()), Err));
        }
    }
}
