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

/// Enough for a burst; keeps one sync from waiting for an endless queue.
const GROUP_MAX: usize = 1_024;

impl Committer {
    pub fn start(store: Arc<dyn Storage>) -> std::io::Result<Committer> {
        let (queue, commits) = channel();
        let thread =
            std::thread::Builder::new().name("engine-commit".to_owned()).spawn(move || run(&*store, &commits))?;
        Ok(Committer { queue: Some(queue), thread: Some(thread) })
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

fn run(store: &dyn Storage, commits: &Receiver<Commit>) {
    let mut failed: Option<Arc<Error>> = None;
    while let Ok(first) = commits.recv() {
        let mut durability = first.durability;
        let (mut batches, mut afters) = (vec![first.batch], vec![first.after]);
        while afters.len() < GROUP_MAX
            && let Ok(next) = commits.try_recv()
        {
            durability = durability.max(next.durability);
            batches.push(next.batch);
            afters.push(next.after);
        }
        if failed.is_none()
            && let Err(error) = store.write(batches, durability)
        {
            error!(error = &error as &dyn std::error::Error, "the store failed, no more writes are accepted");
            failed = Some(Arc::new(error));
        }
        for after in afters {
            after(failed.clone().map_or(Ok(()), Err));
        }
    }
}
