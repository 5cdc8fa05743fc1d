//! What the engine promised to those outside, and whether it kept it. Nothing acknowledged may be missing, nothing may
//! be there twice, and no attempt may be given to two workers.

use super::records::{Record, Witness};
use crate::core::ledger::Ledger;
use crate::pb::common::v1::Payloads;
use crate::pb::history::v1::HistoryEvent;
use crate::pb::history::v1::history_event::Attributes;
use crate::pb::workflowservice::v1::*;
use crate::store::Reads;
use crate::store::keys::{self, RunKey};
use crate::time::Time;
use crate::verify::verify;
use prost::Message;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Default)]
pub struct Promises {
    /// Tokens (of signals, markers, results) that were acknowledged.
    acknowledged: BTreeSet<String>,
    /// Runs that were acknowledged to have been started, with their workflow ids.
    started: BTreeMap<String, String>,
    /// Runs that were acknowledged to have been terminated or completed.
    closed: BTreeSet<String>,
    /// Attempts that a call gave out in this life of the disk.
    handed_out: BTreeSet<(String, i64, i32, i64)>,
    /// Events that somebody read, encoded.
    read: BTreeMap<(String, i64), Vec<u8>>,
    /// Runs whose time was over, as they were when they were removed.
    removed: BTreeMap<RunKey, Record>,
    /// How often the history of a closed run was packed, and how often a run was removed.
    pub packed: u64,
    pub expired: u64,
    pub power_losses: u64,
    /// Whether the last client is content.
    pub finished: bool,
    pub broken: Vec<String>,
}

impl Promises {
    pub fn acknowledged(&mut self, token: &str) {
        self.acknowledged.insert(token.to_owned());
    }

    pub fn started(&mut self, workflow_id: &str, run_id: &str) {
        self.started.insert(run_id.to_owned(), workflow_id.to_owned());
    }

    pub fn closed(&mut self, run_id: &str) {
        self.closed.insert(run_id.to_owned());
    }

    pub fn broken(&mut self, what: String) {
        self.broken.push(what);
    }

    /// The store was written to; a run may go when it was closed at `due` or before.
    pub fn witnessed(&mut self, witness: Witness, due: Time) {
        self.packed += witness.packed;
        self.broken.extend(witness.broken);
        for (run, record) in witness.removed {
            let run_id = keys::run_id(&run);
            if record.state.is_open() {
                self.broken.push(format!("run {run_id} was open and is gone"));
            } else if record.state.closed_at > due.0 {
                let early = (record.state.closed_at - due.0) / 1_000_000;
                self.broken.push(format!("run {run_id} is gone {early} ms before its time"));
            }
            self.expired += 1;
            self.removed.insert(run, record);
        }
    }

    /// Somebody read a part of a history; what was read once stays.
    pub fn read(&mut self, run_id: &str, events: &[HistoryEvent]) {
        for event in events {
            let seen = self.read.entry((run_id.to_owned(), event.event_id)).or_insert_with(|| event.encode_to_vec());
            if *seen != event.encode_to_vec() {
                self.broken.push(format!("run {run_id}: event {} reads differently now", event.event_id));
            }
        }
    }

    /// The engine died. What it recovers of a workflow task is another task; attempts of activities stay what they were.
    pub fn engine_died(&mut self) {
        self.handed_out.retain(|(_, started_event_id, _, _)| *started_event_id == 0);
    }

    /// Starts are journaled, not synced: after power loss they may be repeated, and reads of them undone.
    pub fn power_was_lost(&mut self) {
        self.power_losses += 1;
        self.handed_out.clear();
        self.read.clear();
    }

    /// The engine answered a call; tasks in the answer are given out, whether or not they arrive.
    pub fn handed_out(&mut self, rpc: &str, bytes: &[u8]) {
        let decoded = "the engine's answers can be decoded";
        match rpc {
            "PollWorkflowTaskQueue" => {
                let task = PollWorkflowTaskQueueResponse::decode(bytes).expect(decoded);
                self.workflow_task(&task);
            }
            "PollActivityTaskQueue" => {
                let task = PollActivityTaskQueueResponse::decode(bytes).expect(decoded);
                self.activity_task(&task);
            }
            "RespondWorkflowTaskCompleted" => {
                let answer = RespondWorkflowTaskCompletedResponse::decode(bytes).expect(decoded);
                answer.workflow_task.iter().for_each(|task| self.workflow_task(task));
                answer.activity_tasks.iter().for_each(|task| self.activity_task(task));
            }
            _ => {}
        }
    }

    fn workflow_task(&mut self, task: &PollWorkflowTaskQueueResponse) {
        if task.task_token.is_empty() || task.query.is_some() {
            return;
        }
        let run_id = task.workflow_execution.clone().unwrap_or_default().run_id;
        self.attempt(run_id, task.started_event_id, task.attempt, 0);
    }

    fn activity_task(&mut self, task: &PollActivityTaskQueueResponse) {
        if task.task_token.is_empty() {
            return;
        }
        let run_id = task.workflow_execution.clone().unwrap_or_default().run_id;
        let scheduled = task.scheduled_time.map_or(0, |t| t.seconds * 1_000_000_000 + i64::from(t.nanos));
        self.attempt(format!("{run_id} {}", task.activity_id), 0, task.attempt, scheduled);
    }

    fn attempt(&mut self, whose: String, event: i64, attempt: i32, at: i64) {
        if !self.handed_out.insert((whose.clone(), event, attempt, at)) {
            self.broken.push(format!("attempt {attempt} of {whose} ({event}) was given out twice"));
        }
    }

    /// Compares what was promised with what `store` holds; the run ids that are still open.
    pub fn check(&mut self, store: &dyn Reads) -> Vec<String> {
        let report = verify(store).expect("what is stored can be read");
        self.broken.extend(report.problems);
        let mut found: BTreeSet<String> = BTreeSet::new();
        let mut runs = BTreeSet::new();
        let mut open = Vec::new();
        let mut messages = Messages::default();
        // A removal that power loss undid is done again.
        let mut records = self.removed.clone();
        records.extend(Record::all(store));
        for (key, Record { state, events }) in records {
            let run_id = keys::run_id(&key);
            let mut ledger = Ledger::new();
            // A signal that was sent twice may be in two runs of a chain; in one it is known by its request id.
            let mut here = BTreeSet::new();
            messages.of_run(&run_id, events.iter().chain(&state.buffered));
            for event in &events {
                ledger.take(event);
                for token in tokens(event) {
                    if !here.insert(token.clone()) {
                        self.broken.push(format!("run {run_id}: {token} is there twice"));
                    }
                }
                if let Some(seen) = self.read.get(&(run_id.clone(), event.event_id))
                    && *seen != event.encode_to_vec()
                {
                    self.broken.push(format!("run {run_id}: event {} is not what was read", event.event_id));
                }
            }
            // What waits behind a workflow task is not in history yet.
            for token in state.buffered.iter().flat_map(tokens) {
                if !here.insert(token.clone()) {
                    self.broken.push(format!("run {run_id}: {token} is there and waits to be"));
                }
            }
            found.extend(here);
            if ledger.closed_event_id() == 0 {
                open.push(run_id.clone());
            }
            runs.insert(run_id);
        }
        self.broken.extend(messages.broken());
        for (run_id, event_id) in self.read.keys() {
            if !runs.contains(run_id) {
                self.broken.push(format!("run {run_id}, of which event {event_id} was read, is gone"));
            }
        }
        for (run_id, workflow_id) in &self.started {
            if !runs.contains(run_id) {
                self.broken.push(format!("run {run_id} of {workflow_id} was acknowledged and is gone"));
            }
        }
        for run_id in self.closed.iter().filter(|run_id| open.contains(run_id)) {
            self.broken.push(format!("run {run_id} was acknowledged to be closed and is open"));
        }
        for token in self.acknowledged.difference(&found) {
            self.broken.push(format!("{token} was acknowledged and is gone"));
        }
        open
    }
}

/// What workflows told each other, by the tokens of their signals: whoever was told that one arrived is right, and so is
/// whoever was told that it did not, or nothing yet. Both sides stand in one write.
#[derive(Default)]
struct Messages {
    /// Whether it was answered that they arrived.
    sent: BTreeMap<String, bool>,
    arrived: BTreeMap<String, u32>,
}

impl Messages {
    fn of_run<'a>(&mut self, run_id: &str, events: impl Iterator<Item = &'a HistoryEvent>) {
        let mut initiated = BTreeMap::new();
        for event in events {
            match &event.attributes {
                Some(Attributes::SignalExternalWorkflowExecutionInitiatedEventAttributes(a)) => {
                    let token = text(&a.input).concat();
                    self.sent.insert(token.clone(), false);
                    initiated.insert(event.event_id, token);
                }
                Some(Attributes::ExternalWorkflowExecutionSignaledEventAttributes(a)) => {
                    let token = initiated.get(&a.initiated_event_id);
                    let token = token.unwrap_or_else(|| panic!("run {run_id} hears of a signal that it never sent"));
                    self.sent.insert(token.clone(), true);
                }
                Some(Attributes::WorkflowExecutionSignaledEventAttributes(a))
                    if a.external_workflow_execution.is_some() =>
                {
                    *self.arrived.entry(text(&a.input).concat()).or_default() += 1;
                }
                _ => {}
            }
        }
    }

    fn broken(&self) -> impl Iterator<Item = String> {
        self.sent.iter().filter_map(|(token, answered)| {
            let times = self.arrived.get(token).copied().unwrap_or(0);
            (times != u32::from(*answered)).then(|| format!("{token} arrived {times} times, answered: {answered}"))
        })
    }
}

fn text(payloads: &Option<Payloads>) -> Vec<String> {
    let payloads = payloads.iter().flat_map(|payloads| &payloads.payloads);
    payloads.map(|payload| String::from_utf8_lossy(&payload.data).into_owned()).collect()
}

/// The tokens that those outside put into an event.
fn tokens(event: &HistoryEvent) -> Vec<String> {
    match &event.attributes {
        Some(Attributes::WorkflowExecutionSignaledEventAttributes(a)) => text(&a.input),
        Some(Attributes::ActivityTaskCompletedEventAttributes(a)) => text(&a.result),
        Some(Attributes::MarkerRecordedEventAttributes(a)) => vec![a.marker_name.clone()],
        _ => Vec::new(),
    }
}
