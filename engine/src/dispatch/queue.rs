//! One task queue: entries in order, a wake-up for each, and who polls.

use super::Task;
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
    tasks: Mutex<VecDeque<Task>>,
    last_task: AtomicI64,
    news: Notify,
    polls: Mutex<Polls>,
    shut: AtomicBool,
}

#[derive(Default)]
struct Polls {
    open: usize,
    last: Time,
    identities: HashMap<String, Time>,
}

impl Queue {
    pub fn push(&self, task: Task, now: Time) {
        self.tasks.lock().push_back(task);
        self.last_task.store(now.0, Ordering::Release);
        // A wake-up given to a poll that goes away is passed on to the next.
        self.news.notify_one();
    }

    pub fn pop(&self) -> Option<Task> {
        self.tasks.lock().pop_front()
    }

    pub async fn news(&self) {
        self.news.notified().await;
    }

    pub fn len(&self) -> usize {
        self.tasks.lock().len()
    }

    /// Closes the queue and returns what waited in it.
    pub fn shut(&self) -> Vec<Task> {
        self.shut.store(true, Ordering::Release);
        self.drain()
    }

    /// Takes out all that waits.
    pub fn drain(&self) -> Vec<Task> {
        std::mem::take(&mut *self.tasks.lock()).into()
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
