//! One task queue: entries in order, a wake-up for each, and who polls.

use super::Task;
use super::rate::Rate;
use crate::time::Time;
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use tokio::sync::Notify;

/// Identities remembered for a description of the queue.
const IDENTITIES_MAX: usize = 64;

#[derive(Default)]
pub struct Queue {
    tasks: Mutex<Tasks>,
    last_task: AtomicI64,
    news: Notify,
    polls: Mutex<Polls>,
    shut: AtomicBool,
}

#[derive(Default)]
struct Tasks {
    /// Each with the time at which it came.
    waiting: VecDeque<(Time, Task)>,
    added: Rate,
    taken: Rate,
}

/// What waits in a queue and how it moves.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Traffic {
    pub waiting: usize,
    /// When the oldest task that waits came.
    pub oldest: Option<Time>,
    pub added_per_s: f32,
    pub taken_per_s: f32,
}

#[derive(Default)]
struct Polls {
    open: usize,
    last: Time,
    identities: HashMap<String, Time>,
}

impl Queue {
    pub fn push(&self, task: Task, now: Time) {
        let mut tasks = self.tasks.lock();
        tasks.waiting.push_back((now, task));
        tasks.added.count(now);
        drop(tasks);
        self.last_task.store(now.0, Ordering::Release);
        // A wake-up given to a poll that goes away is passed on to the next.
        self.news.notify_one();
    }

    pub fn pop(&self, now: Time) -> Option<Task> {
        let mut tasks = self.tasks.lock();
        let (_, task) = tasks.waiting.pop_front()?;
        tasks.taken.count(now);
        Some(task)
    }

    pub fn traffic(&self, now: Time) -> Traffic {
        let tasks = self.tasks.lock();
        Traffic {
            waiting: tasks.waiting.len(),
            oldest: tasks.waiting.front().map(|entry| entry.0),
            added_per_s: tasks.added.per_second(now),
            taken_per_s: tasks.taken.per_second(now),
        }
    }

    pub async fn news(&self) {
        self.news.notified().await;
    }

    pub fn len(&self) -> usize {
        self.tasks.lock().waiting.len()
    }

    /// Closes the queue and returns what waited in it.
    pub fn shut(&self) -> Vec<Task> {
        self.shut.store(true, Ordering::Release);
        self.drain()
    }

    /// Takes out all that waits.
    pub fn drain(&self) -> Vec<Task> {
        std::mem::take(&mut self.tasks.lock().waiting).into_iter().map(|entry| entry.1).collect()
    }

    pub fn is_used_since(&self, since: Time) -> bool {
        self.len() > 0 || self.last_task.load(Ordering::Acquire) >= since.0
    }

    pub fn is_shut(&self) -> bool {
        self.shut.load(Ordering::Acquire)
    }

    pub fn is_polled_since(&self, since: Time) -> bool {
        let polls = self.polls.lock();
        polls.open > 0 || polls.last >= since
    }

    pub fn pollers(&self) -> Vec<(String, Time)> {
        self.polls.lock().identities.iter().map(|(identity, at)| (identity.clone(), *at)).collect()
    }

    /// Counts a poll in; it is counted out when the guard goes, whatever happens to the poll.
    pub fn enter(self: &Arc<Self>, identity: &str, now: Time) -> Poll {
        let mut polls = self.polls.lock();
        polls.open += 1;
        polls.last = now;
        if polls.identities.len() >= IDENTITIES_MAX
            && let Some(oldest) = polls.identities.iter().min_by_key(|entry| *entry.1).map(|entry| entry.0.clone())
        {
            polls.identities.remove(&oldest);
        }
        polls.identities.insert(identity.to_owned(), now);
        Poll(self.clone())
    }
}

/// An open poll.
pub struct Poll(Arc<Queue>);

impl Poll {
    /// The poll returned in good order at `now`.
    pub fn leave(self, now: Time) {
        self.0.polls.lock().last = now;
    }
}

impl Drop for Poll {
    fn drop(&mut self) {
        self.0.polls.lock().open -= 1;
    }
}
