//! Compares histories, states and indexes as they stand in the store.

use super::Report;
use crate::core::errand::errands;
use crate::core::ledger::Ledger;
use crate::core::state::RunState;
use crate::host::{Error, Most, closed_entries, read_history};
use crate::store::keys::{self, RunKey};
use crate::store::{Range, Reads, Space};
use crate::time::Time;
use prost::Message;

/// Runs, and events of one run, that are read at a time.
const CHUNK: usize = 1_024;
/// Stored batches of events that are read at a time: each may be as large as a transaction.
const BATCHES: usize = 16;

/// Examines every run and index of `store`, which must not change meanwhile.
pub fn examine(store: &dyn Reads, report: &mut Report) -> Result<(), Error> {
    let mut from = Vec::new();
    loop {
        let range = Range { from, limit: CHUNK, ..Range::prefix(Vec::new()) };
        let runs = store.scan(Space::Run, range)?;
        for (key, value) in &runs {
            run(store, key, value, report)?;
        }
        match runs.last() {
            Some((key, _)) if runs.len() == CHUNK => from = [key.as_slice(), &[0]].concat(),
            _ => break,
        }
    }
    histories(store, report)?;
    indexes(store, report)
}

/// Stored batches of events, and whether each has a run.
fn histories(store: &dyn Reads, report: &mut Report) -> Result<(), Error> {
    let mut range = Range { limit: BATCHES, ..Range::prefix(Vec::new()) };
    let mut last = None;
    loop {
        let batches = store.scan(Space::History, range.clone())?;
        for (key, value) in &batches {
            report.history_stored_bytes += value.len() as u64;
            let run = key.get(..16).and_then(|run| RunKey::try_from(run).ok());
            if last.replace(run) != Some(run) {
                let is_there = run.map(|run| store.get(Space::Run, &run)).transpose()?.flatten().is_some();
                if !is_there {
                    let run = run.map(|run| keys::run_id(&run)).unwrap_or_default();
                    report.problems.push(format!("run {run}: it has history and is not there"));
                }
            }
        }
        match batches.last() {
            Some((key, _)) if batches.len() == BATCHES => range.from = [key.as_slice(), &[0]].concat(),
            _ => return Ok(()),
        }
    }
}

fn run(store: &dyn Reads, key: &[u8], value: &[u8], report: &mut Report) -> Result<(), Error> {
    let Ok(key) = RunKey::try_from(key) else {
        report.problems.push("a key of the run space is not a run id".to_owned());
        return Ok(());
    };
    let run_id = keys::run_id(&key);
    let state = RunState::decode(value).map_err(|source| Error::Corrupt { run_id: run_id.clone(), source })?;
    report.runs += 1;
    report.open_runs += u64::from(state.is_open());
    let mut problem = |text: String| report.problems.push(format!("run {run_id}: {text}"));
    if state.run_id != run_id {
        problem(format!("its state says that it is {}", state.run_id));
    }
    let mut ledger = Ledger::new();
    let mut bytes = 0;
    loop {
        let events = read_history(store, &key, ledger.next_event_id(), i64::MAX, Most::events(CHUNK))?;
        if events.is_empty() {
            break;
        }
        for event in &events {
            ledger.take(event).into_iter().for_each(&mut problem);
            bytes += event.encoded_len() as i64;
        }
    }
    if bytes != state.history_bytes {
        problem(format!("history has {bytes} bytes and the state says {}", state.history_bytes));
    }
    ledger.disagreements(&state).into_iter().for_each(&mut problem);
    if crate::core::deadline::earliest(&state).is_some_and(|at| state.wake_at == 0 || state.wake_at > at.0) {
        problem("it would miss its next deadline".to_owned());
    }
    entries(store, &key, &state, &mut problem)?;
    family(store, &state, &mut problem)?;
    report.history_events += (ledger.next_event_id() - 1) as u64;
    Ok(())
}

/// Index entries that the state calls for.
fn entries(store: &dyn Reads, key: &RunKey, state: &RunState, problem: &mut impl FnMut(String)) -> Result<(), Error> {
    let started_at = Time(state.started_at);
    let mut expected = vec![
        (Space::Listed, keys::listed(&state.namespace, started_at, key)),
        (Space::ByWorkflow, keys::by_workflow(&state.namespace, &state.workflow_id, started_at, key)),
    ];
    if state.wake_at != 0 {
        expected.push((Space::Timer, keys::timer(Time(state.wake_at), key)));
    }
    if state.is_busy() {
        expected.push((Space::Busy, key.to_vec()));
    }
    expected.extend(state.pinned_to().map(|version| (Space::Pinned, keys::pinned(&state.namespace, &version, key))));
    expected.extend(errands(state).map(|errand| (Space::Errand, keys::errand(key, errand.event_id))));
    // A run is loose until it is packed, which may be at any time.
    expected.extend(closed_entries(state, key).into_iter().filter(|(space, _)| *space == Space::Closed));
    for (space, entry) in expected {
        if store.get(space, &entry)?.is_none() {
            problem(format!("its entry in {} is missing", space.name()));
        }
    }
    let current = store.get(Space::Current, &keys::current(&state.namespace, &state.workflow_id))?;
    if state.is_open() && current.as_deref() != Some(&key[..]) {
        problem("it is open and not the current run of its workflow id".to_owned());
    }
    Ok(())
}

/// What a child and its parent must agree on while the parent is open: it knows of a child until it has heard of its
/// end, and hears of it once.
fn family(store: &dyn Reads, state: &RunState, problem: &mut impl FnMut(String)) -> Result<(), Error> {
    let Some(of) = &state.parent else { return Ok(()) };
    let parent = keys::run(&of.run_id).map(|key| state_of(store, &key)).transpose()?.flatten();
    let Some(parent) = parent.filter(RunState::is_open) else { return Ok(()) };
    let knows = parent.children.get(&of.initiated_event_id).is_some_and(|child| child.run_id == state.first_run_id);
    let next = keys::run(&state.successor).map(|key| state_of(store, &key)).transpose()?.flatten();
    let goes_on = next.is_some_and(|next| next.first_run_id == state.first_run_id);
    match state.is_open() || state.owes_parent {
        true if !knows => problem(format!("its parent {} does not know of it", of.run_id)),
        false if knows && !goes_on => problem(format!("it ended, and its parent {} will not hear of it", of.run_id)),
        _ => {}
    }
    Ok(())
}

fn state_of(store: &dyn Reads, key: &RunKey) -> Result<Option<RunState>, Error> {
    let value = store.get(Space::Run, key)?;
    let decode = |value: Vec<u8>| {
        RunState::decode(value.as_slice()).map_err(|source| Error::Corrupt { run_id: keys::run_id(key), source })
    };
    value.map(decode).transpose()
}

/// Index entries that no state calls for.
fn indexes(store: &dyn Reads, report: &mut Report) -> Result<(), Error> {
    let indexes = [
        Space::Timer,
        Space::Busy,
        Space::Errand,
        Space::Listed,
        Space::ByWorkflow,
        Space::Signal,
        Space::Pinned,
        Space::Closed,
        Space::Loose,
    ];
    for space in indexes {
        let mut from = Vec::new();
        loop {
            let range = Range { from, limit: CHUNK, ..Range::prefix(Vec::new()) };
            let entries = store.scan(space, range)?;
            for (entry, _) in &entries {
                let run = match space {
                    Space::Signal => entry.get(..16).and_then(|key| key.try_into().ok()),
                    Space::Errand => keys::parse_errand(entry).map(|errand| errand.0),
                    _ => keys::trailing_run(entry),
                };
                let state = run.map(|run| state_of(store, &run)).transpose()?.flatten();
                let belongs = state.as_ref().is_some_and(|state| match space {
                    Space::Busy => state.is_busy(),
                    Space::Errand => keys::parse_errand(entry)
                        .is_some_and(|(_, event_id)| errands(state).any(|owed| owed.event_id == event_id)),
                    Space::Pinned => run
                        .zip(state.pinned_to())
                        .is_some_and(|(run, version)| *entry == keys::pinned(&state.namespace, &version, &run)),
                    Space::Closed | Space::Loose => run.is_some_and(|run| {
                        closed_entries(state, &run).iter().any(|(of, key)| *of == space && key == entry)
                    }),
                    Space::Timer => keys::parse_timer(entry).is_some_and(|(at, _)| at.0 == state.wake_at),
                    _ => true,
                });
                if !belongs {
                    let run = run.map(|run| keys::run_id(&run)).unwrap_or_default();
                    report.problems.push(format!("run {run}: an entry in {} has no reason", space.name()));
                }
            }
            match entries.last() {
                Some((key, _)) if entries.len() == CHUNK => from = [key.as_slice(), &[0]].concat(),
                _ => break,
            }
        }
    }
    Ok(())
}
