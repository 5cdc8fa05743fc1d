//! Reading runs and their history back.

use super::packing::unpack;
use super::{Error, Host, Slot};
use crate::core::state::{Run, RunState};
use crate::pb::common::v1::WorkflowExecution;
use crate::pb::history::v1::HistoryEvent;
use crate::store::keys::{self, RunKey};
use crate::store::{Order, Range, Reads, Space};
use prost::Message;
use std::sync::Arc;

impl Host {
    /// The run with this key.
    pub fn slot(&self, key: &RunKey) -> Result<Option<Arc<Slot>>, Error> {
        self.cache.get_or_load(key, || self.load(key))
    }

    /// The run that `execution` names in `namespace`; without a run id the newest.
    pub fn resolve(&self, namespace: &str, execution: &WorkflowExecution) -> Result<Arc<Slot>, Error> {
        let slot = if execution.run_id.is_empty() {
            self.newest(namespace, &execution.workflow_id)?
        } else {
            keys::run(&execution.run_id).map(|key| self.slot(&key)).transpose()?.flatten()
        };
        let slot = slot.ok_or(Error::NoRun)?;
        let belongs = {
            let run = slot.run.lock();
            run.state.namespace == namespace
                && (run.state.workflow_id == execution.workflow_id || execution.workflow_id.is_empty())
        };
        if belongs && !slot.is_deleted() { Ok(slot) } else { Err(Error::NoRun) }
    }

    /// The newest run of a workflow id. The stored pointer may lag behind a run that is just being continued, so the
    /// chain is followed to its end.
    pub fn newest(&self, namespace: &str, workflow_id: &str) -> Result<Option<Arc<Slot>>, Error> {
        let Some(pointer) = self.store.get(Space::Current, &keys::current(namespace, workflow_id))? else {
            return Ok(None);
        };
        let mut key: Option<RunKey> = pointer.try_into().ok();
        let mut newest = None;
        while let Some(next) = key {
            let Some(slot) = self.slot(&next)? else { break };
            key = keys::run(&slot.run.lock().state.successor);
            newest = Some(slot);
        }
        Ok(newest)
    }

    fn load(&self, key: &RunKey) -> Result<Option<Run>, Error> {
        let Some(bytes) = self.store.get(Space::Run, key)? else { return Ok(None) };
        let state = RunState::decode(bytes.as_slice())
            .map_err(|source| Error::Corrupt { run_id: keys::run_id(key), source })?;
        let signals =
            if state.is_open() { self.store.scan(Space::Signal, Range::prefix(key.to_vec()))? } else { vec![] };
        let id_of = |entry: &(Vec<u8>, Vec<u8>)| String::from_utf8_lossy(&entry.0[key.len()..]).into_owned();
        let signal_ids = signals.iter().map(id_of).collect();
        Ok(Some(Run { state, signal_ids }))
    }

    /// Events `from..to` of a run, at most so many; none only where there is none.
    pub fn history(&self, run: &RunKey, from: i64, to: i64, most: Most) -> Result<Vec<HistoryEvent>, Error> {
        read(&*self.store, run, from, to, most)
    }

    /// At most `limit` events before `before`, newest first.
    pub fn history_reverse(&self, run: &RunKey, before: i64, limit: usize) -> Result<Vec<HistoryEvent>, Error> {
        let mut events: Vec<HistoryEvent> = Vec::new();
        // All before this is still to be read. What is packed meanwhile may hold later events too.
        let mut to = before;
        while to > 1 && events.len() < limit {
            let range = Range {
                from: keys::history(run, 0),
                to: keys::history(run, to),
                order: Order::Descending,
                limit: (limit - events.len()).min(64),
            };
            let batches = self.store.scan(Space::History, range)?;
            if batches.is_empty() {
                break;
            }
            for (key, bytes) in &batches {
                let (stored, _) = unpack(run, bytes)?;
                let wanted = stored.into_iter().rev().filter(|event| event.event_id < to);
                events.extend(wanted.take(limit - events.len()));
                to = keys::first_event_id(key).unwrap_or(0);
            }
        }
        Ok(events)
    }
}

/// How much is read in one go.
#[derive(Clone, Copy, Debug)]
pub struct Most {
    pub events: usize,
    /// Of batches of events, unpacked: whoever reads stops after the one that reaches it.
    pub bytes: usize,
}

impl Most {
    pub fn events(events: usize) -> Most {
        Most { events, bytes: usize::MAX }
    }
}

/// Events `from..to` of a run as `store` has them, at most so many.
pub fn read(store: &dyn Reads, run: &RunKey, from: i64, to: i64, most: Most) -> Result<Vec<HistoryEvent>, Error> {
    let limit = most.events;
    let mut events = Vec::new();
    let (mut next, mut bytes_read) = (from, 0);
    // The batch that holds an event may begin before it: the first one, and any one when the run is packed meanwhile.
    let mut begins_before = true;
    while next < to && events.len() < limit {
        let range = match begins_before {
            true => Range {
                from: keys::history(run, 0),
                to: keys::history(run, next + 1),
                order: Order::Descending,
                limit: 1,
            },
            false => Range {
                from: keys::history(run, next),
                to: keys::history(run, to),
                order: Order::Ascending,
                limit: (limit - events.len()).min(64),
            },
        };
        let first = next;
        for (key, bytes) in &store.scan(Space::History, range)? {
            if keys::first_event_id(key).is_some_and(|first| first > next) {
                break;
            }
            if bytes_read >= most.bytes {
                return Ok(events);
            }
            let (stored, length) = unpack(run, bytes)?;
            for event in stored {
                if event.event_id >= next && event.event_id < to && events.len() < limit {
                    next = event.event_id + 1;
                    events.push(event);
                }
            }
            // The first batch may have nothing but events before.
            bytes_read += if events.is_empty() { 0 } else { length };
        }
        match (next > first, begins_before) {
            (true, _) => begins_before = false,
            (false, false) => begins_before = true,
            (false, true) => break,
        }
    }
    Ok(events)
}
