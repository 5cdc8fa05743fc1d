//! Runs futures one poll at a time in an order that the dice choose. A task is polled when it was woken and at no other
//! time, so that a wake-up that gets lost is a task that stands still.

use super::dice::Dice;
use parking_lot::Mutex;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Wake, Waker};

type Future = Pin<Box<dyn std::future::Future<Output = ()>>>;

/// Who lives as long as what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Part of the engine's process.
    Engine,
    /// A call that the engine's process is answering.
    Call,
    /// Elsewhere.
    Outside,
}

#[derive(Default)]
pub struct Executor {
    tasks: RefCell<BTreeMap<u64, (Kind, Future)>>,
    spawned: RefCell<Vec<(u64, Kind, Future)>>,
    next: Cell<u64>,
    ready: Arc<Mutex<BTreeSet<u64>>>,
}

struct Ready {
    id: u64,
    ready: Arc<Mutex<BTreeSet<u64>>>,
}

impl Wake for Ready {
    fn wake(self: Arc<Self>) {
        self.ready.lock().insert(self.id);
    }
}

impl Executor {
    pub fn spawn(&self, kind: Kind, future: impl std::future::Future<Output = ()> + 'static) -> u64 {
        let id = self.next.get();
        self.next.set(id + 1);
        self.spawned.borrow_mut().push((id, kind, Box::pin(future)));
        self.ready.lock().insert(id);
        id
    }

    /// Polls one task that was woken; whether there was one.
    pub fn poll_one(&self, dice: &Dice) -> bool {
        self.settle();
        let ready: Vec<u64> = self.ready.lock().iter().copied().collect();
        let Some(id) = dice.pick(&ready).copied() else { return false };
        self.ready.lock().remove(&id);
        // Out of the map while it runs: it may spawn, and end others.
        let Some((kind, mut future)) = self.tasks.borrow_mut().remove(&id) else { return true };
        let waker = Waker::from(Arc::new(Ready { id, ready: self.ready.clone() }));
        if future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
            self.tasks.borrow_mut().insert(id, (kind, future));
        }
        true
    }

    /// Ends every task of these kinds where it stands.
    pub fn end(&self, kinds: &[Kind]) {
        self.settle();
        let gone: Vec<u64> =
            self.tasks.borrow().iter().filter(|task| kinds.contains(&task.1.0)).map(|task| *task.0).collect();
        gone.iter().for_each(|id| self.end_one(*id));
    }

    pub fn end_one(&self, id: u64) {
        self.settle();
        let task = self.tasks.borrow_mut().remove(&id);
        self.ready.lock().remove(&id);
        drop(task); // with nothing borrowed: what is dropped may wake others
    }

    /// The tasks of a kind.
    pub fn ids(&self, kind: Kind) -> Vec<u64> {
        self.settle();
        self.tasks.borrow().iter().filter(|task| task.1.0 == kind).map(|task| *task.0).collect()
    }

    fn settle(&self) {
        let spawned = std::mem::take(&mut *self.spawned.borrow_mut());
        self.tasks.borrow_mut().extend(spawned.into_iter().map(|(id, kind, future)| (id, (kind, future))));
    }
}
