//! Task queues: what waits for a worker, and the polls that wait for it. A cache of the runs' states, rebuilt at start;
//! every entry is checked against its run when it is taken. A poll that goes away takes nothing with it: an entry leaves
//! its queue only in the same step in which the poll returns it.

mod queue;
mod rate;

use crate::clock::Clock;
use crate::core::Work;
use crate::core::versioning::{Route, Version};
use crate::deployments::Deployments;
use crate::store::keys::RunKey;
use crate::time::Time;
use parking_lot::Mutex;
use queue::Queue;
pub use queue::Traffic;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tokio::sync::Notify;

/// A sticky queue that nobody polled for this long has lost its worker.
const STICKY_WINDOW_NS: i64 = 10_000_000_000;
/// A queue to which no task came for this long is not in use.
const IN_USE_NS: i64 = 30_000_000_000;
/// Workers that said goodbye and may still have polls on the way.
const SHUT_WORKERS_MAX: usize = 1_000;

/// Which kind of queue: names of different kinds have nothing to do with each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Workflow,
    /// Workflow tasks for one worker's cache.
    Sticky,
    Activity,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueKey {
    pub namespace: String,
    pub name: String,
    pub kind: Kind,
    /// Whose workers take from it; none: workers without a version, and sticky queues, which are one worker's anyway.
    pub version: Option<Version>,
}

/// An entry of a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    pub run: RunKey,
    pub what: What,
    /// The task queue that it was meant for, whichever worker gets it.
    pub queue: String,
    pub route: Route,
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
    /// Tasks in all of them.
    waiting: AtomicUsize,
    workers: Mutex<ShutWorkers>,
    /// Where tasks go whose workers have versions.
    pub deployments: Deployments,
    /// A worker or the engine said goodbye: every poll looks whether it is meant.
    goodbye: Notify,
    closed: AtomicBool,
    clock: Arc<dyn Clock>,
}

/// A task queue as others see it.
#[derive(Default)]
pub struct Described {
    pub traffic: Traffic,
    /// Identity, last time, version.
    pub pollers: Vec<(String, Time, Option<Version>)>,
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
            waiting: AtomicUsize::new(0),
            workers: Mutex::default(),
            deployments: Deployments::default(),
            goodbye: Notify::new(),
            closed: AtomicBool::new(false),
            clock,
        }
    }

    /// Puts what a transition left to do into its queue.
    pub fn push(&self, namespace: &str, run: RunKey, work: Work, route: Route) {
        match work {
            Work::WorkflowTask { queue, sticky, normal_queue, stamp } => {
                let task = Task { run, what: What::WorkflowTask { stamp }, queue: normal_queue, route };
                self.push_workflow(namespace, sticky.then_some(queue), task);
            }
            Work::Activity { queue, scheduled_event_id, attempt } => {
                let what = What::Activity { scheduled_event_id, attempt };
                self.push_activity(namespace, Task { run, what, queue, route });
            }
        }
    }

    /// Puts a task onto the sticky queue if its worker lives and the run does not go to another version, otherwise onto
    /// the normal one.
    pub fn push_workflow(&self, namespace: &str, sticky: Option<String>, task: Task) {
        // Held until the task stands in its queue: what is put there by an old routing is there before it changes.
        let deployments = self.deployments.read();
        let version = deployments.worker_of(namespace, &task.queue, false, &task.route);
        let stays = version.is_none() || version == task.route.on;
        let key = |name, kind, version| QueueKey { namespace: namespace.to_owned(), name, kind, version };
        let alive = sticky.filter(|_| stays).map(|name| key(name, Kind::Sticky, None));
        let alive = alive.filter(|key| self.has_poller(key));
        self.put(alive.unwrap_or_else(|| key(task.queue.clone(), Kind::Workflow, version)), task);
    }

    fn push_activity(&self, namespace: &str, task: Task) {
        let deployments = self.deployments.read();
        let version = deployments.worker_of(namespace, &task.queue, true, &task.route);
        let (namespace, name) = (namespace.to_owned(), task.queue.clone());
        self.put(QueueKey { namespace, name, kind: Kind::Activity, version }, task);
    }

    fn put(&self, key: QueueKey, task: Task) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        self.queue(key).push(task, self.clock.now());
    }

    /// Tasks that wait for workers, in all queues.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    fn took(&self, tasks: usize) {
        self.waiting.fetch_sub(tasks, Ordering::Relaxed);
    }

    /// The routing of a namespace has changed: what waits goes where it belongs now.
    pub fn reroute(&self, namespace: &str) {
        let lanes: BTreeMap<_, _> = {
            let queues = self.queues.lock();
            let lanes = queues.iter().filter(|(key, queue)| key.namespace == namespace && queue.len() > 0);
            lanes.map(|(key, queue)| (key.clone(), queue.clone())).collect()
        };
        for (key, queue) in lanes {
            let tasks = queue.drain();
            self.took(tasks.len());
            for task in tasks {
                match key.kind {
                    Kind::Workflow => self.push_workflow(namespace, None, task),
                    Kind::Sticky => self.push_workflow(namespace, Some(key.name.clone()), task),
                    Kind::Activity => self.push_activity(namespace, task),
                }
            }
        }
    }

    /// Whether tasks wait in a queue, or came a moment ago.
    pub fn is_in_use(&self, key: &QueueKey) -> bool {
        let since = Time(self.clock.now().0 - IN_USE_NS);
        self.queues.lock().get(key).is_some_and(|queue| queue.is_used_since(since))
    }

    /// Whether somebody polls this queue, or did a moment ago.
    pub fn has_poller(&self, key: &QueueKey) -> bool {
        let since = Time(self.clock.now().0 - STICKY_WINDOW_NS);
        self.queues.lock().get(key).is_some_and(|queue| queue.is_polled_since(since))
    }

    /// What waits in a task queue, and who polls it: in those of its lanes that are meant.
    pub fn describe(
        &self,
        namespace: &str,
        name: &str,
        kind: Kind,
        is_meant: impl Fn(Option<&Version>) -> bool,
    ) -> Described {
        let now = self.clock.now();
        let queues = self.queues.lock();
        let lanes = queues.iter().filter(|(key, _)| key.namespace == namespace && key.name == name && key.kind == kind);
        let mut described = Described::default();
        for (key, queue) in lanes.filter(|(key, _)| is_meant(key.version.as_ref())) {
            let (all, lane) = (&mut described.traffic, queue.traffic(now));
            all.waiting += lane.waiting;
            all.oldest = all.oldest.into_iter().chain(lane.oldest).min();
            all.added_per_s += lane.added_per_s;
            all.taken_per_s += lane.taken_per_s;
            let pollers = queue.pollers().into_iter().map(|(identity, at)| (identity, at, key.version.clone()));
            described.pollers.extend(pollers);
        }
        described.pollers.sort();
        described
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
            if let Some(task) = queue.pop(self.clock.now()) {
                self.took(1);
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
        let (namespace, name) = (namespace.to_owned(), sticky_queue.to_owned());
        let key = QueueKey { namespace, name, kind: Kind::Sticky, version: None };
        let sticky = self.queues.lock().remove(&key);
        let stranded = sticky.map(|queue| queue.shut()).unwrap_or_default();
        self.took(stranded.len());
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
