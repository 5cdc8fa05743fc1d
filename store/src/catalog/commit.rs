//! Group commit: one thread takes the writes that wait, checks and applies each, and syncs once for all of them.
//!
//! No answer leaves before the sync, not even a conflict: it, too, tells of a write that must not be taken back. The
//! first failure to apply or to sync refuses every later write, as nobody then knows what is on disk.

use std::sync::Arc;
use std::thread::JoinHandle;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::{Batch, Cause, Durability, Error, Table};

/// How many writes share a sync at most. More only makes the first of them wait longer.
const GROUP_MAX: usize = 256;
/// How many writes wait before the next caller has to wait to hand in its own.
const QUEUE_MAX: usize = 1024;

/// Where the writes go. Used by one thread alone.
pub(super) trait Journal: Send + 'static {
    /// The row with everything applied so far, published or not.
    fn read(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, Error>;
    fn apply(&mut self, batch: Batch) -> Result<(), Cause>;
    /// Puts everything applied so far on disk.
    fn sync(&mut self) -> Result<(), Cause>;
    /// Shows readers everything applied so far.
    fn publish(&mut self);
}

/// The handle of the thread. Dropping it finishes the waiting writes and joins the thread.
pub(super) struct Committer {
    queue: Option<mpsc::Sender<Request>>,
    thread: Option<JoinHandle<()>>,
}

struct Request {
    batch: Batch,
    durability: Durability,
    answer: oneshot::Sender<Result<(), Error>>,
}

impl Committer {
    pub(super) fn start(journal: impl Journal) -> std::io::Result<Self> {
        let (queue, requests) = mpsc::channel(QUEUE_MAX);
        let thread = std::thread::Builder::new().name("catalog".into()).spawn(move || run(journal, requests))?;
        Ok(Self { queue: Some(queue), thread: Some(thread) })
    }

    pub(super) async fn write(&self, batch: Batch, durability: Durability) -> Result<(), Error> {
        batch.check()?;
        let (answer, answered) = oneshot::channel();
        let queue = self.queue.as_ref().expect("the queue is there until drop");
        queue.send(Request { batch, durability, answer }).await.map_err(|_| Error::Closed)?;
        answered.await.map_err(|_| Error::Closed)?
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("catalog thread panicked");
        }
    }
}

fn run(mut journal: impl Journal, mut requests: mpsc::Receiver<Request>) {
    let mut poison: Option<Cause> = None;
    let mut group = Vec::with_capacity(GROUP_MAX);
    while requests.blocking_recv_many(&mut group, GROUP_MAX) > 0 {
        if poison.is_none()
            && let Err(cause) = commit(&mut journal, &mut group)
        {
            tracing::error!(error = %cause, "catalog write failed, no more are taken");
            poison = Some(cause);
        }
        if let Some(source) = &poison {
            for request in group.drain(..) {
                answer(request.answer, Err(Error::Poisoned { source: Arc::clone(source) }));
            }
        }
    }
}

/// Commits the group and answers it, emptying it. On an error it is left for the caller to answer.
fn commit(journal: &mut impl Journal, group: &mut Vec<Request>) -> Result<(), Cause> {
    let mut sync = false;
    let mut results = Vec::with_capacity(group.len());
    for request in group.iter_mut() {
        let checked = check(journal, &request.batch);
        if checked.is_ok() {
            journal.apply(std::mem::take(&mut request.batch))?;
            sync |= request.durability == Durability::Synced;
        }
        results.push(checked);
    }
    if sync {
        journal.sync()?;
    }
    journal.publish();
    for (request, result) in group.drain(..).zip(results) {
        answer(request.answer, result);
    }
    Ok(())
}

fn check(journal: &impl Journal, batch: &Batch) -> Result<(), Error> {
    for (table, key, condition) in &batch.conditions {
        if !condition.holds(journal.read(*table, key)?.as_deref()) {
            return Err(Error::Conflict { table: table.name() });
        }
    }
    Ok(())
}

/// A caller that stopped waiting wants no answer.
fn answer(to: oneshot::Sender<Result<(), Error>>, result: Result<(), Error>) {
    let _ = to.send(result);
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::io;
    use std::sync::mpsc::{Receiver, Sender, channel};

    use futures::future::join_all;
    use parking_lot::Mutex;

    use super::*;
    use crate::catalog::Condition;

    const ROWS: Table = Table::new("rows");

    #[derive(Default)]
    struct Seen {
        syncs: usize,
        applied: usize,
        published: usize,
    }

    /// A journal whose syncs wait for a word from the test: go on, or fail. Without a word to come they fail.
    struct Scripted {
        rows: HashMap<Vec<u8>, Bytes>,
        seen: Arc<Mutex<Seen>>,
        entered: Sender<()>,
        word: Receiver<bool>,
    }

    impl Journal for Scripted {
        fn read(&self, _: Table, key: &[u8]) -> Result<Option<Bytes>, Error> {
            Ok(self.rows.get(key).cloned())
        }
        fn apply(&mut self, batch: Batch) -> Result<(), Cause> {
            self.seen.lock().applied += 1;
            self.rows.extend(batch.puts.into_iter().map(|(_, key, value)| (key, value)));
            Ok(())
        }
        fn sync(&mut self) -> Result<(), Cause> {
            self.seen.lock().syncs += 1;
            self.entered.send(()).unwrap();
            match self.word.recv() {
                Ok(true) => Ok(()),
                _ => Err(Arc::new(io::Error::other("no disk"))),
            }
        }
        fn publish(&mut self) {
            self.seen.lock().published += 1;
        }
    }

    struct Fixture {
        committer: Arc<Committer>,
        seen: Arc<Mutex<Seen>>,
        entered: Receiver<()>,
        word: Sender<bool>,
    }

    fn fixture() -> Fixture {
        let (entered_tx, entered) = channel();
        let (word, word_rx) = channel();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let journal = Scripted { rows: HashMap::new(), seen: seen.clone(), entered: entered_tx, word: word_rx };
        Fixture { committer: Arc::new(Committer::start(journal).unwrap()), seen, entered, word }
    }

    fn put(key: &str) -> Batch {
        Batch::new().put(ROWS, key, "x")
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn writes_that_wait_share_one_sync() {
        let f = fixture();
        let first = tokio::spawn({
            let committer = f.committer.clone();
            async move { committer.write(put("first"), Durability::Synced).await }
        });
        f.entered.recv().unwrap();
        // While the first sync is held, twenty more writes queue up.
        let mut rest: Vec<_> = (0..20)
            .map(|n| {
                let committer = f.committer.clone();
                Box::pin(async move { committer.write(put(&format!("{n}")), Durability::Synced).await })
            })
            .collect();
        for write in &mut rest {
            assert!(futures::poll!(write.as_mut()).is_pending());
        }
        f.word.send(true).unwrap();
        f.word.send(true).unwrap();
        drop(f.word);
        assert!(join_all(rest).await.into_iter().all(|result| result.is_ok()));
        first.await.unwrap().unwrap();
        let seen = f.seen.lock();
        assert_eq!((seen.syncs, seen.applied), (2, 21));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn nothing_is_answered_or_shown_before_the_sync() {
        let f = fixture();
        let mut write = Box::pin(f.committer.write(put("a"), Durability::Synced));
        assert!(futures::poll!(write.as_mut()).is_pending());
        f.entered.recv().unwrap();
        assert!(futures::poll!(write.as_mut()).is_pending());
        assert_eq!(f.seen.lock().published, 0);
        // A conflict with the unsynced row is not told either.
        let late = put("a").require(ROWS, "a", Condition::Absent);
        let mut late = Box::pin(f.committer.write(late, Durability::Synced));
        assert!(futures::poll!(late.as_mut()).is_pending());
        f.word.send(true).unwrap();
        write.await.unwrap();
        assert!(matches!(late.await, Err(Error::Conflict { .. })));
    }

    #[tokio::test]
    async fn lazy_writes_are_shown_without_a_sync() {
        let f = fixture();
        f.committer.write(put("a"), Durability::Lazy).await.unwrap();
        let seen = f.seen.lock();
        assert_eq!((seen.syncs, seen.published), (0, 1));
    }

    #[tokio::test]
    async fn a_failed_sync_refuses_every_later_write() {
        let f = fixture();
        f.word.send(false).unwrap();
        drop(f.word);
        let failed = f.committer.write(put("a"), Durability::Synced).await;
        assert!(matches!(failed, Err(Error::Poisoned { .. })));
        for durability in [Durability::Synced, Durability::Lazy] {
            let later = f.committer.write(put("b"), durability).await;
            assert!(matches!(later, Err(Error::Poisoned { .. })));
        }
        let seen = f.seen.lock();
        assert_eq!((seen.syncs, seen.applied, seen.published), (1, 1, 0));
    }
}
