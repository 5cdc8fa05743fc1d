//! The runs and everything that happens to them: loads a run, lets the core decide, hands the result to the store, and
//! performs the effects once they are durable. The only place where core, store and dispatch meet.

mod cache;
mod create;
mod delete;
mod deployments;
mod errands;
mod history;
mod keeping;
mod listing;
mod packing;
mod pair;
mod query;
mod record;
mod recovery;
mod slot;
mod system;
mod updates;
mod wheel;
mod workers;

pub use create::{Start, StartOutcome};
pub use deployments::DeploymentError;
pub use listing::ListPage;
pub use query::{Answer, QueryError};
pub use record::info as run_info;
pub use recovery::recovered;
pub use slot::{Seen, Slot};
pub use system::Kept;
pub use updates::{Stage, Unanswered, Until, UpdateError};

pub use history::Most;
pub(crate) use history::read as read_history;
pub(crate) use record::closed_entries;

use crate::clock::Clock;
use crate::core::state::{Run, RunState};
use crate::core::{self, At, Effects, Input, Refusal};
use crate::dispatch::Queues;
use crate::options::Limits;
use crate::pb::history::v1::WorkflowExecutionStartedEventAttributes;
use crate::store::committer::{After, Committer};
use crate::store::{self, Batch, Durability, Storage};
use cache::RunCache;
use errands::Errands;
use keeping::Keeping;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::sync::{OwnedMutexGuard, oneshot, watch};
use wheel::Wheel;

/// Why something could not be done to a run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("no such run")]
    NoRun,
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("event {event_id} of run {run_id} is not the one that its state tells of")]
    Disagrees { run_id: String, event_id: i64 },
    #[error("store")]
    Store(#[source] Arc<store::Error>),
    #[error("decode what the store holds of run {run_id}")]
    Corrupt {
        run_id: String,
        #[source]
        source: prost::DecodeError,
    },
    #[error("decode what the store holds of namespace {name}")]
    CorruptNamespace {
        name: String,
        #[source]
        source: prost::DecodeError,
    },
    #[error("unpack the history of run {run_id}")]
    Unpack {
        run_id: String,
        #[source]
        source: std::io::Error,
    },
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        Error::Store(Arc::new(error))
    }
}

pub struct Host {
    pub clock: Arc<dyn Clock>,
    pub limits: Limits,
    pub queues: Queues,
    pub workers: workers::Workers,
    store: Arc<dyn Storage>,
    /// `None`: the store is only read.
    committer: Option<Committer>,
    cache: RunCache,
    wheel: Wheel,
    errands: Errands,
    keeping: Keeping,
    starts: create::StartLocks,
    deploying: Arc<tokio::sync::Mutex<()>>,
    poisoned: AtomicBool,
    closing: watch::Sender<bool>,
    seed: u64,
    ids_made: AtomicU64,
}

/// How a host is made.
pub struct Settings {
    pub clock: Arc<dyn Clock>,
    pub limits: Limits,
    pub cached_runs_max: usize,
    pub seed: u64,
}

/// The durable end of a transition.
pub type Done = oneshot::Receiver<Result<(), Arc<store::Error>>>;

impl Host {
    /// A host over `store`; without a committer it refuses every change.
    pub fn new(store: Arc<dyn Storage>, committer: Option<Committer>, settings: Settings) -> Host {
        let Settings { clock, limits, cached_runs_max, seed } = settings;
        Host {
            queues: Queues::new(clock.clone()),
            workers: workers::Workers::default(),
            clock,
            limits,
            committer,
            store,
            cache: RunCache::new(cached_runs_max),
            wheel: Wheel::default(),
            errands: Errands::default(),
            keeping: Keeping::default(),
            starts: create::StartLocks::default(),
            deploying: Arc::default(),
            poisoned: AtomicBool::new(false),
            closing: watch::Sender::new(false),
            seed,
            ids_made: AtomicU64::new(0),
        }
    }

    /// Applies `input` and waits until it counts.
    pub async fn transact<I: Input>(
        self: &Arc<Self>,
        slot: &Arc<Slot>,
        input: I,
        durability: Durability,
    ) -> Result<I::Reply, Error> {
        let (reply, done) = self.decide(slot, input, durability)?;
        wait(done).await?;
        Ok(reply)
    }

    /// Applies `input` and queues the write; its effects follow when it is durable, whether or not anybody waits.
    pub fn decide<I: Input>(
        self: &Arc<Self>,
        slot: &Arc<Slot>,
        input: I,
        durability: Durability,
    ) -> Result<(I::Reply, Done), Error> {
        self.decide_and(slot, input, durability, |reply| reply)
    }

    /// The same; `then` sees the reply before anything else can happen to the run.
    pub fn decide_and<I: Input, R>(
        self: &Arc<Self>,
        slot: &Arc<Slot>,
        input: I,
        durability: Durability,
        then: impl FnOnce(I::Reply) -> R,
    ) -> Result<(R, Done), Error> {
        self.check_writable()?;
        let mut run = slot.run.lock();
        if slot.is_deleted() {
            return Err(Error::NoRun);
        }
        let started = match run.state.retry_policy {
            Some(_) if run.state.is_open() => Some(self.started_event(slot)?),
            _ => None,
        };
        let at = At { now: self.clock.now(), limits: &self.limits, started: started.as_ref() };
        let before = record::Before::of(&run.state);
        let (reply, effects) = core::apply(&mut run, input, &at)?;
        let done = self.commit(slot, &run, effects, before, durability, None);
        Ok((then(reply), done))
    }

    /// Queues the write of a transition. Must be called with the run locked: that is what orders the writes. `held` is
    /// let go when the write counts.
    fn commit(
        self: &Arc<Self>,
        slot: &Arc<Slot>,
        run: &Run,
        effects: Effects,
        before: record::Before,
        durability: Durability,
        held: Option<OwnedMutexGuard<()>>,
    ) -> Done {
        self.commit_all([Change { slot, run, effects, before }], durability, held)
    }

    /// The same for several runs, in one write. Must be called with all of them locked.
    fn commit_all<'a>(
        self: &Arc<Self>,
        changes: impl IntoIterator<Item = Change<'a>>,
        durability: Durability,
        held: Option<OwnedMutexGuard<()>>,
    ) -> Done {
        let mut batch = Batch::default();
        let mut all = Vec::new();
        for Change { slot, run, mut effects, before } in changes {
            record::transition(&mut batch, &slot.key, run, &mut effects, before);
            all.push((slot.clone(), Published::of(&run.state, effects.work, effects.updates)));
            if let Some(successor) = effects.successor {
                let (run, mut effects) = *successor;
                let slot = self.cache.insert(&run, &effects.events);
                record::transition(&mut batch, &slot.key, &run, &mut effects, record::Before::nothing());
                record::make_current(&mut batch, &run);
                all.push((slot, Published::of(&run.state, effects.work, effects.updates)));
            }
        }
        let (done, waits) = oneshot::channel();
        let host = self.clone();
        let after = move |result: Result<(), Arc<store::Error>>| {
            match &result {
                Ok(()) => all.into_iter().for_each(|(slot, published)| host.publish(&slot, published)),
                Err(_) => host.poison(),
            }
            drop(held);
            let _nobody_waits = done.send(result);
        };
        self.submit(batch, durability, Box::new(after));
        waits
    }

    fn submit(&self, batch: Batch, durability: Durability, after: After) {
        match &self.committer {
            Some(committer) => committer.submit(batch, durability, after),
            None => after(Err(Arc::new(store::Error::ReadOnly))),
        }
    }

    /// Sets in motion what a durable transition left to do.
    fn publish(self: &Arc<Self>, slot: &Arc<Slot>, published: Published) {
        slot.publish(published.seen);
        if published.wake_at != 0 {
            self.wheel.arm(crate::time::Time(published.wake_at), slot.key);
        }
        if published.owes {
            self.errands.push(slot.key);
        }
        if published.is_closed {
            self.keeping.tell();
        }
        for work in published.work {
            self.queues.push(&published.namespace, slot.key, work, published.route.clone());
        }
        self.tell_updates(slot, published.updates);
        self.dispatch_updates(slot);
        self.dispatch_queries(slot);
    }

    fn check_writable(&self) -> Result<(), Error> {
        if self.committer.is_none() {
            return Err(store::Error::ReadOnly.into());
        }
        match self.is_poisoned() {
            true => Err(store::Error::Poisoned.into()),
            false => Ok(()),
        }
    }

    fn is_poisoned(&self) -> bool {
        self.poisoned.load(Ordering::Acquire)
    }

    fn poison(&self) {
        self.poisoned.store(true, Ordering::Release);
    }

    /// The first event of a run, which a retry of its workflow repeats.
    fn started_event(&self, slot: &Slot) -> Result<WorkflowExecutionStartedEventAttributes, Error> {
        use crate::pb::history::v1::history_event::Attributes;
        if let Some(started) = slot.beginning() {
            return Ok(started);
        }
        let first = history::read(&*self.store, &slot.key, 1, 2, Most::events(1))?.into_iter().next();
        match first.and_then(|event| event.attributes) {
            Some(Attributes::WorkflowExecutionStartedEventAttributes(started)) => Ok(started),
            _ => Err(Error::NoRun),
        }
    }

    /// An id that a client left to us.
    pub fn fresh_id(&self) -> String {
        let (high, low) = self.draw();
        core::ids::ordered_from(self.clock.now(), high, low)
    }

    /// Random-looking bits that follow from the engine's seed.
    fn draw(&self) -> (u64, u64) {
        let n = self.ids_made.fetch_add(1, Ordering::Relaxed);
        let base = self.seed ^ n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (core::ids::mix(base), core::ids::mix(base ^ 0xd1b5_4a32_d192_ed03))
    }
}

/// A transition that was decided and is to be written.
struct Change<'a> {
    slot: &'a Arc<Slot>,
    run: &'a Run,
    effects: Effects,
    before: record::Before,
}

/// What a transition sets in motion.
struct Published {
    namespace: String,
    seen: Seen,
    wake_at: i64,
    /// The run owes something to another run.
    owes: bool,
    is_closed: bool,
    work: Vec<core::Work>,
    /// Which workers the work is for.
    route: core::versioning::Route,
    updates: Vec<(String, core::update::News)>,
}

impl Published {
    fn of(state: &RunState, work: Vec<core::Work>, updates: Vec<(String, core::update::News)>) -> Self {
        Published {
            seen: Seen::of(state),
            wake_at: state.wake_at,
            owes: core::errand::errands(state).next().is_some(),
            is_closed: !state.is_open(),
            namespace: state.namespace.clone(),
            route: if work.is_empty() { Default::default() } else { state.route() },
            work,
            updates,
        }
    }
}

/// Waits until a transition counts.
pub async fn wait(done: Done) -> Result<(), Error> {
    match done.await {
        Ok(result) => result.map_err(Error::Store),
        Err(_gone) => Err(store::Error::Poisoned.into()),
    }
}

#[cfg(test)]
mod tests;
