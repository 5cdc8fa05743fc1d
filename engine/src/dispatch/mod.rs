//! Task queues: what waits for a worker, and the polls that wait for it. A cache of the runs' states, rebuilt at start;
//! every entry is checked against its run when it is taken. A poll that goes away takes nothing with it: an entry leaves
//! its queue only in the same step in which the poll returns it.

mod queue;

use crate::clock::Clock;
use crate::core::Work;
use crate::store::keys::RunKey;
use crate::time::Time;
use parking_lot::Mutex;
use queue::Queue;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Notify;

/// A sticky queue that nobody polled for this long has lost its worker.
const STICKY_WINDOW_NS: i64 = 10_000_000_000;
/// Workers that said goodbye and may still have polls on the way.
const SHUT_WORKERS_MAX: usize = 1_000;

/// Which kind of queue: names of different kinds have nothing to do with each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    Workflow,
    /// Workflow tasks for one worker's cache.
    Sticky,
    Activity,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct QueueKey {
    pub namespace: String,
    pub name: String,
    pub kind: Kind,
}

/// An entry of a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    pub run: RunKey,
    pub what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    WorkflowTask { stamp: i64 },
    Query { id: String },
    Activity { scheduled_event_id: i64, attempt: i32 },
}

/// All task queues of an engine.
pub struct Queues {
    queues: Mutex<HashMap<QueueKey, Arc<Queue>>>,
    workers: Mutex<ShutWorkers>,
    /// A worker or the engine said goodbye: every poll looks whether it is meant.
    goodbye: Notify,
    closed: AtomicBool,
    clock: Arc<dyn Clock>,
}

#[derive(Default)]
struct ShutWorkers {
    keys: HashSet<String>,
    order: VecDeque<String>,
}

impl Queues {
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Queues {
            queues: Mutex::default(),
            workers: Mutex::default(),
            goodbye: Notify::new(),
            closed: AtomicBool::new(false),
            clock,
        }
    }

    /// Puts what a transition left to do into its queue.
    pub fn push(&self, namespace: &str, run: RunKey, work: Work) {
        match work {
            Work::WorkflowTask { queue, sticky, normal_queue, stamp } => {
                let task = Task { run, what: What::WorkflowTask { stamp } };
                self.push_workflow(namespace, sticky.then_some(queue), normal_queue, task);
            }
            Work::Activity { queue, scheduled_event_id, attempt } => {
                let key = QueueKey { namespace: namespace.to_owned(), name: queue, kind: Kind::Activity };
                let what = What::Activity { scheduled_event_id, attempt };
                self.queue(key).push(Task { run, what });
            }
        }
    }

    /// Puts a task onto the sticky queue if its worker lives, otherwise onto the normal one.
    pub fn push_workflow(&self, namespace: &str, sticky: Option<String>, normal: String, task: Task) {
        let key = |name, kind| QueueKey { namespace: namespace.to_owned(), name, kind };
        let alive = sticky.map(|name| key(name, Kind::Sticky)).filter(|key| self.has_poller(key));
        self.queue(alive.unwrap_or_else(|| key(normal, Kind::Workflow))).push(task);
    }

    /// Whether somebody polls this queue, or did a moment ago.
    pub fn has_poller(&self, key: &QueueKey) -> bool {
        let since = Time(self.clock.now().0 - STICKY_WINDOW_NS);
        self.queues.lock().get(key).is_some_and(|queue| queue.is_polled_since(since))
    }

    /// How many tasks wait in a queue, and who polls it (identity, last time).
    pub fn describe(&self, key: &QueueKey) -> (usize, Vec<(String, Time)>) {
        let queue = self.queues.lock().get(key).cloned();
        queue.map_or((0, Vec::new()), |queue| (queue.len(), queue.pollers()))
    }

    /// Waits for a task until `deadline`. `None`: nothing came, the worker is shutting down, or the engine is.
    pub async fn take(&self, key: &QueueKey, worker: &str, identity: &str, deadline: Time) -> Option<Task> {
        let queue = self.queue(key.clone());
        let poll = queue.enter(identity, self.clock.now());
        let mut expired = self.clock.sleep_until(deadline);
        let task = loop {
            let goodbye = self.goodbye.notified();
            tokio::pin!(goodbye);
            goodbye.as_mut().enable();
            if self.closed.load(Ordering::Acquire) || self.is_shut(worker) || queue.is_shut() {
                break None;
            }
            if let Some(task) = queue.pop() {
                break Some(task);
            }
            tokio::select! {
                biased;
                () = queue.news() => {}
                () = &mut goodbye => {}
                () = &mut expired => {
                    if self.clock.now() >= deadline {
                        break None;
                    }
                    expired = self.clock.sleep_until(deadline);
                }
            }
        };
        poll.leave(self.clock.now());
        self.forget_if_unused(key);
        task
    }

    /// A worker stops: its polls return, and tasks that wait for its cache go to everybody.
    pub fn shut_worker(&self, namespace: &str, worker: &str, sticky_queue: &str) -> Vec<Task> {
        if !worker.is_empty() {
            let mut workers = self.workers.lock();
            if workers.keys.insert(worker.to_owned()) {
                workers.order.push_back(worker.to_owned());
            }
            if workers.order.len() > SHUT_WORKERS_MAX
                && let Some(oldest) = workers.order.pop_front()
            {
                workers.keys.remove(&oldest);
            }
        }
        let key = QueueKey { namespace: namespace.to_owned(), name: sticky_queue.to_owned(), kind: Kind::Sticky };
        let sticky = self.queues.lock().remove(&key);
        let stranded = sticky.map(|queue| queue.shut()).unwrap_or_default();
        self.goodbye.notify_waiters();
        stranded
    }

    /// Every poll returns empty, now and from now on.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.goodbye.notify_waiters();
    }

    fn is_shut(&self, worker: &str) -> bool {
        !worker.is_empty() && self.workers.lock().keys.contains(worker)
    }

    fn queue(&self, key: QueueKey) -> Arc<Queue> {
        self.queues.lock().entry(key).or_default().clone()
    }

    /// Queues are named by workers and may be many (one a worker, one a host): an idle one is forgotten.
    fn forget_if_unused(&self, key: &QueueKey) {
        let since = Time(self.clock.now().0 - STICKY_WINDOW_NS);
        let mut queues = self.queues.lock();
        if queues.len() > 256 {
            queues.retain(|other, queue| {
                other == key || queue.len() > 0 || queue.is_polled_since(since) || Arc::strong_count(queue) > 1
            });
        }
    }
}

#[cfg(test)]
mod tests;
