//! What becomes of closed runs: some time after its end a run's history is packed, and when the retention of its namespace
//! is over nothing of the run is left. Two indexes name the runs by the time of their end; one task for all, asleep until
//! the next is due. Neither says anything that counts: what is lost of it is done again.

use super::{Error, Host, packing, wait};
use crate::store::keys::{self, RunKey};
use crate::store::{self, Batch, Durability, Range, Space};
use crate::time::Time;
use futures::future::OptionFuture;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::{Notify, oneshot};
use tracing::{debug, warn};

/// Entries of an index that are read at a time.
const ENTRIES: usize = 64;
/// The pause after the store could not be read or written, in nanoseconds.
const PAUSE_NS: i64 = 60_000_000_000;

#[derive(Default)]
pub struct Keeping {
    news: Notify,
    /// Nothing waits to be packed: whoever closes a run says so.
    idle: AtomicBool,
    closed: AtomicBool,
}

impl Keeping {
    /// A run was closed.
    pub fn tell(&self) {
        if self.idle.swap(false, Ordering::AcqRel) {
            self.news.notify_one();
        }
    }

    /// There may be something to do that was not known of.
    pub fn look_again(&self) {
        self.news.notify_one();
    }

    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.news.notify_one();
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }
}

impl Host {
    /// Packs and removes closed runs until the engine closes.
    pub async fn run_keeping(self: Arc<Self>) {
        // Found damaged while this process runs; `verify` tells of them.
        let mut damaged = HashSet::new();
        while !self.keeping.is_closed() && !self.is_poisoned() {
            let next = match self.keep(&mut damaged).await {
                Ok(next) => next,
                Err(error) => {
                    warn!(error = &error as &dyn std::error::Error, "closed runs could not be packed or removed");
                    Some(self.clock.now().plus(PAUSE_NS))
                }
            };
            let next = next.map(|at| self.clock.sleep_until(at));
            tokio::select! {
                biased;
                () = self.keeping.news.notified() => {}
                Some(()) = OptionFuture::from(next) => {}
            }
        }
    }

    /// Does what is due, and says when something will be.
    async fn keep(self: &Arc<Self>, damaged: &mut HashSet<RunKey>) -> Result<Option<Time>, Error> {
        // Before looking: a run that is closed from now on announces itself.
        self.keeping.idle.store(true, Ordering::Release);
        let packs = self.pack_due(damaged).await?;
        if packs.is_some() {
            // Whatever is closed from now on is packed later than what is known of.
            self.keeping.idle.store(false, Ordering::Release);
        }
        let expires = self.expire_due(damaged).await?;
        Ok(packs.into_iter().chain(expires).min())
    }

    async fn pack_due(self: &Arc<Self>, damaged: &mut HashSet<RunKey>) -> Result<Option<Time>, Error> {
        let mut range = Range { limit: ENTRIES, ..Range::prefix(Vec::new()) };
        loop {
            let loose = self.store.scan(Space::Loose, range.clone())?;
            for (entry, _) in &loose {
                let Some((closed_at, run)) = keys::parse_loose(entry) else { continue };
                let at = closed_at.plus(self.limits.pack_after_ns);
                if at > self.clock.now() || self.keeping.is_closed() {
                    return Ok(Some(at));
                }
                if !damaged.contains(&run) {
                    let packed = self.pack(&run, entry).await;
                    put_aside(packed, &run, damaged)?;
                }
            }
            match loose.last() {
                Some((last, _)) if loose.len() == ENTRIES => range.from = [last.as_slice(), &[0]].concat(),
                _ => return Ok(None),
            }
        }
    }

    /// Packs a run chunk by chunk. None of the writes is waited for on the device: what is lost is packed again.
    async fn pack(self: &Arc<Self>, run: &RunKey, entry: &[u8]) -> Result<(), Error> {
        let Some(slot) = self.slot(run)? else { return Ok(()) };
        let mut from = Some(1);
        while let Some(first) = from {
            let (done, waits) = oneshot::channel();
            {
                // Whoever deletes the run does it before or after this.
                let _run = slot.run.lock();
                if slot.is_deleted() {
                    return Ok(());
                }
                let mut batch = Batch::default();
                from = packing::pack(&*self.store, run, first, &mut batch)?;
                if from.is_none() {
                    batch.remove(Space::Loose, entry.to_vec());
                }
                let host = self.clone();
                let after = move |result: Result<(), Arc<store::Error>>| {
                    if result.is_err() {
                        host.poison();
                    }
                    let _nobody_waits = done.send(result);
                };
                self.submit(batch, Durability::Journaled, Box::new(after));
            }
            wait(waits).await?;
        }
        Ok(())
    }

    async fn expire_due(self: &Arc<Self>, damaged: &mut HashSet<RunKey>) -> Result<Option<Time>, Error> {
        let mut next: Option<Time> = None;
        for (namespace, kept) in self.stored_namespaces()? {
            if kept.retention_ns > 0 {
                let expires = self.expire_due_in(&namespace, kept.retention_ns, damaged).await?;
                next = next.into_iter().chain(expires).min();
            }
        }
        Ok(next)
    }

    async fn expire_due_in(
        self: &Arc<Self>,
        namespace: &str,
        retention_ns: i64,
        damaged: &mut HashSet<RunKey>,
    ) -> Result<Option<Time>, Error> {
        let mut range = Range { limit: ENTRIES, ..Range::prefix(keys::named(namespace)) };
        loop {
            let closed = self.store.scan(Space::Closed, range.clone())?;
            for (entry, _) in &closed {
                let Some((closed_at, run)) = keys::parse_closed(entry) else { continue };
                let at = closed_at.plus(retention_ns);
                if at > self.clock.now() || self.keeping.is_closed() {
                    return Ok(Some(at));
                }
                if !damaged.contains(&run) {
                    let expired = self.expire(&run).await;
                    put_aside(expired, &run, damaged)?;
                }
            }
            match closed.last() {
                Some((last, _)) if closed.len() == ENTRIES => range.from = [last.as_slice(), &[0]].concat(),
                _ => return Ok(None),
            }
        }
    }

    async fn expire(self: &Arc<Self>, run: &RunKey) -> Result<(), Error> {
        let Some(slot) = self.slot(run)? else { return Ok(()) };
        match self.delete(&slot).await {
            Ok(()) => debug!(run_id = keys::run_id(run), "a closed run was removed after its retention"),
            // Somebody else deleted it.
            Err(Error::NoRun) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

/// A run that cannot be understood must not stand in the way of others; a store that fails does.
fn put_aside(result: Result<(), Error>, run: &RunKey, damaged: &mut HashSet<RunKey>) -> Result<(), Error> {
    match result {
        Err(error @ (Error::Corrupt { .. } | Error::Unpack { .. } | Error::Disagrees { .. })) => {
            let run_id = keys::run_id(run);
            warn!(run_id, error = &error as &dyn std::error::Error, "a closed run is damaged and stays as it is");
            damaged.insert(*run);
            Ok(())
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, SimulatedClock};
    use crate::core::terminate::Terminate;
    use crate::host::{Kept, Most, Settings, Slot, Start};
    use crate::options::Limits;
    use crate::pb::history::v1::WorkflowExecutionStartedEventAttributes;
    use crate::store::committer::Committer;
    use crate::store::{MemoryStore, Reads, Storage};
    use std::time::Duration;

    const HOUR_NS: i64 = 3_600_000_000_000;

    fn host(store: &Arc<MemoryStore>, clock: &SimulatedClock) -> Arc<Host> {
        let committer = Committer::start(store.clone()).expect("a committer");
        let settings =
            Settings { clock: Arc::new(clock.clone()), limits: Limits::default(), cached_runs_max: 10, seed: 7 };
        Arc::new(Host::new(store.clone(), Some(committer), settings))
    }

    async fn start(host: &Arc<Host>, namespace: &str, workflow_id: &str) -> Arc<Slot> {
        let start = Start {
            namespace: namespace.into(),
            request_id: workflow_id.into(),
            started: WorkflowExecutionStartedEventAttributes {
                workflow_id: workflow_id.into(),
                identity: "somebody ".repeat(50),
                ..Default::default()
            },
            user_metadata: None,
            reuse: Default::default(),
            conflict: Default::default(),
            signal: None,
        };
        host.start(start).await.expect("starts");
        host.newest(namespace, workflow_id).expect("reads").expect("is there")
    }

    async fn end(host: &Arc<Host>, slot: &Arc<Slot>) {
        host.transact(slot, Terminate::default(), Durability::Synced).await.expect("ends");
    }

    fn count(store: &MemoryStore, space: Space, prefix: &[u8]) -> usize {
        store.scan(space, Range::prefix(prefix.to_vec())).expect("scans").len()
    }

    /// Lets tasks go on until something is so.
    async fn until(is_so: impl Fn() -> bool) {
        let turns = async {
            while !is_so() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), turns).await.expect("it becomes so");
    }

    #[tokio::test]
    async fn a_history_is_packed_a_minute_after_the_end_and_reads_the_same() {
        let (store, clock) = (Arc::new(MemoryStore::default()), SimulatedClock::new(Time(1_700_000_000_000_000_000)));
        let host = host(&store, &clock);
        let keeping = tokio::spawn(host.clone().run_keeping());
        let (open, ended) = (start(&host, "default", "open").await, start(&host, "default", "ended").await);
        let before = count(&store, Space::History, &open.key);
        end(&host, &ended).await;
        let history = || host.history(&ended.key, 1, i64::MAX, Most::events(100)).expect("reads");
        let backwards = || host.history_reverse(&ended.key, 100, 100).expect("reads");
        let written = (history(), backwards());
        assert_eq!((written.0.len(), count(&store, Space::History, &ended.key)), (3, 2));
        // It sleeps until then.
        let due = clock.now().plus(Limits::default().pack_after_ns);
        until(|| clock.earliest() == Some(due)).await;
        assert_eq!(count(&store, Space::History, &ended.key), 2);
        clock.advance(Duration::from_secs(60));
        until(|| count(&store, Space::Loose, &[]) == 0).await;
        assert_eq!(count(&store, Space::History, &ended.key), 1);
        assert_eq!(count(&store, Space::History, &open.key), before, "what is open is left alone");
        assert_eq!((history(), backwards()), written);
        // One that closes while nothing waits is noticed.
        end(&host, &open).await;
        until(|| clock.earliest().is_some()).await;
        clock.advance(Duration::from_secs(60));
        until(|| count(&store, Space::Loose, &[]) == 0).await;
        host.close();
        keeping.await.expect("ends");
        assert_eq!(crate::verify::verify(&*store).expect("reads").problems, Vec::<String>::new());
    }

    #[tokio::test]
    async fn closed_runs_go_when_the_retention_of_their_namespace_is_over_and_no_others() {
        let (store, clock) = (Arc::new(MemoryStore::default()), SimulatedClock::new(Time(1_700_000_000_000_000_000)));
        let first = host(&store, &clock);
        for (namespace, hours) in [("day", 24), ("hour", 1), ("ever", 0)] {
            let kept = Kept { description: String::new(), retention_ns: hours * HOUR_NS };
            first.store_namespace(namespace, &kept).await.expect("is stored");
        }
        for namespace in ["day", "hour", "ever", "default"] {
            start(&first, namespace, "open").await;
            let ended = start(&first, namespace, "ended").await;
            end(&first, &ended).await;
        }
        first.close();
        // What was closed before is known to whoever opens the store again.
        let host = host(&store, &clock);
        let keeping = tokio::spawn(host.clone().run_keeping());
        let there = |namespace: &str| count(&store, Space::ByWorkflow, &keys::named(namespace));
        for (hours, left) in [(0, [2, 2, 2, 2]), (1, [2, 1, 2, 2]), (24, [1, 1, 2, 2])] {
            let at = Time(1_700_000_000_000_000_000).plus(hours * HOUR_NS);
            clock.advance(clock.now().until(at));
            until(|| ["day", "hour", "ever", "default"].map(there) == left).await;
            until(|| clock.earliest().is_none_or(|next| next > clock.now())).await;
        }
        assert!(host.newest("hour", "ended").expect("reads").is_none(), "nobody finds it any more");
        assert!(host.newest("hour", "open").expect("reads").is_some());
        assert_eq!(count(&store, Space::Closed, &[]), 2);
        host.close();
        keeping.await.expect("ends");
        assert_eq!(crate::verify::verify(&*store).expect("reads").problems, Vec::<String>::new());
    }

    #[tokio::test]
    async fn a_damaged_run_stands_in_nobodys_way() {
        let (store, clock) = (Arc::new(MemoryStore::default()), SimulatedClock::new(Time(1_700_000_000_000_000_000)));
        let host = host(&store, &clock);
        let (damaged, ended) = (start(&host, "default", "damaged").await, start(&host, "default", "ended").await);
        end(&host, &damaged).await;
        clock.advance(Duration::from_secs(1));
        end(&host, &ended).await;
        let mut batch = Batch::default();
        batch.put(Space::History, keys::history(&damaged.key, 1), b"no history".to_vec());
        store.write(vec![batch], Durability::Synced).expect("writes");
        clock.advance(Duration::from_secs(60));
        let keeping = tokio::spawn(host.clone().run_keeping());
        until(|| count(&store, Space::Loose, &[]) == 1).await;
        let left = store.scan(Space::Loose, Range::prefix(Vec::new())).expect("scans");
        assert_eq!(keys::parse_loose(&left[0].0).expect("a key").1, damaged.key);
        host.close();
        keeping.await.expect("ends");
    }
}
