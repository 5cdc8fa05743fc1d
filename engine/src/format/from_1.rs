//! What the first format lacked: an index of closed runs, and the retention of namespaces, of which nothing but the
//! description was stored.

use super::Error;
use crate::core::state::RunState;
use crate::host::{Kept, closed_entries};
use crate::store::keys::{self, RunKey};
use crate::store::{Batch, Durability, Range, Space, Storage};
use prost::Message;
use tracing::warn;

/// Runs that are read at a time.
const RUNS: usize = 1_024;

pub fn migrate(store: &dyn Storage) -> Result<Batch, Error> {
    let mut range = Range { limit: RUNS, ..Range::prefix(Vec::new()) };
    loop {
        let runs = store.scan(Space::Run, range.clone())?;
        let mut batch = Batch::default();
        for (key, value) in &runs {
            index(key, value, &mut batch);
        }
        store.write(vec![batch], Durability::Journaled)?;
        match runs.last() {
            Some((last, _)) if runs.len() == RUNS => range.from = [last.as_slice(), &[0]].concat(),
            _ => break,
        }
    }
    let mut last = Batch::default();
    for (name, description) in store.scan(Space::Namespace, Range::prefix(Vec::new()))? {
        let description = String::from_utf8_lossy(&description).into_owned();
        last.put(Space::Namespace, name, Kept { description, retention_ns: 0 }.encode_to_vec());
    }
    Ok(last)
}

/// What the indexes say of a run; one that is damaged stays out of them, and `verify` tells of it.
fn index(key: &[u8], value: &[u8], batch: &mut Batch) {
    let Ok(key) = RunKey::try_from(key) else { return };
    match RunState::decode(value) {
        Ok(state) => {
            closed_entries(&state, &key).into_iter().for_each(|(space, entry)| batch.put(space, entry, Vec::new()));
        }
        Err(error) => {
            let run_id = keys::run_id(&key);
            warn!(run_id, error = &error as &dyn std::error::Error, "a run is damaged and stays as it is");
        }
    }
}
