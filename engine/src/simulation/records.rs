//! Runs as the store has them, and what a write may do to a closed one: write its history down otherwise, so that it reads
//! the same, or remove it whole.

use crate::core::state::RunState;
use crate::host::{Most, read_history};
use crate::pb::history::v1::HistoryEvent;
use crate::store::keys::{self, RunKey};
use crate::store::{Batch, Range, Reads, Space, Spaces};
use prost::Message;
use std::collections::{BTreeMap, BTreeSet};

/// What is stored of a run.
#[derive(Clone)]
pub struct Record {
    pub state: RunState,
    pub events: Vec<HistoryEvent>,
}

impl Record {
    fn of(store: &dyn Reads, run: &RunKey, state: &[u8]) -> Record {
        let events = read_history(store, run, 1, i64::MAX, Most::events(usize::MAX)).expect("reads");
        Record { state: RunState::decode(state).expect("a state"), events }
    }

    fn find(store: &dyn Reads, run: &RunKey) -> Option<Record> {
        let state = store.get(Space::Run, run).expect("reads")?;
        Some(Record::of(store, run, &state))
    }

    /// Every run that is stored.
    pub fn all(store: &dyn Reads) -> BTreeMap<RunKey, Record> {
        let stored = store.scan(Space::Run, Range::prefix(Vec::new())).expect("scans");
        let record = |(key, state): (Vec<u8>, Vec<u8>)| {
            let run = key.try_into().expect("a run's key");
            (run, Record::of(store, &run, &state))
        };
        stored.into_iter().map(record).collect()
    }
}

/// What writes did to runs since somebody asked.
#[derive(Default)]
pub struct Witness {
    /// Runs that were removed, as they were.
    pub removed: Vec<(RunKey, Record)>,
    /// How often the history of a closed run was written down otherwise.
    pub packed: u64,
    pub broken: Vec<String>,
}

impl Witness {
    /// Applies a batch to `spaces`, and looks what becomes of closed runs.
    pub fn apply(&mut self, spaces: &mut Spaces, batch: Batch) {
        let run_of = |key: &[u8]| key.get(..16).and_then(|run| RunKey::try_from(run).ok());
        let removed: BTreeSet<RunKey> =
            batch.changes(Space::Run).filter(|(_, is_left)| !is_left).filter_map(|(key, _)| run_of(key)).collect();
        let touched: BTreeSet<RunKey> =
            batch.changes(Space::History).filter_map(|(key, _)| run_of(key)).chain(removed.iter().copied()).collect();
        let before: Vec<(RunKey, Record)> =
            touched.into_iter().filter_map(|run| Some((run, Record::find(spaces, &run)?))).collect();
        spaces.apply(batch);
        for (run, record) in before {
            if removed.contains(&run) {
                self.removed.push((run, record));
            } else if !record.state.is_open() {
                self.packed += 1;
                if Record::find(spaces, &run).is_none_or(|after| after.events != record.events) {
                    self.broken.push(format!("run {} is closed and reads differently now", keys::run_id(&run)));
                }
            }
        }
    }
}
