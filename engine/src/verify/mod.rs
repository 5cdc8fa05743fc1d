//! Proves that what the store holds fits together: every history has the right shape, every state agrees with its
//! history, and every index has exactly the entries that the states call for.

mod examine;

use crate::host::Error;
use crate::store::Reads;

/// What an examination found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub runs: u64,
    pub open_runs: u64,
    pub history_events: u64,
    /// Of the histories as they are stored: those of closed runs are packed some time after their end.
    pub history_stored_bytes: u64,
    /// What is wrong, each with the run that it concerns. Empty: all is well.
    pub problems: Vec<String>,
}

impl Report {
    pub fn is_sound(&self) -> bool {
        self.problems.is_empty()
    }
}

/// Examines a store that does not change meanwhile: a snapshot.
pub fn verify(store: &dyn Reads) -> Result<Report, Error> {
    let mut report = Report::default();
    examine::examine(store, &mut report)?;
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SimulatedClock;
    use crate::host::{Host, Settings, Start};
    use crate::options::Limits;
    use crate::pb::common::v1::WorkflowType;
    use crate::pb::history::v1::WorkflowExecutionStartedEventAttributes;
    use crate::pb::taskqueue::v1::TaskQueue;
    use crate::store::committer::Committer;
    use crate::store::{Batch, Durability, MemoryStore, Range, Reads, Space, Storage};
    use crate::time::{Time, duration};
    use std::sync::Arc;

    /// A store with one open run that has a deadline, made by a host.
    async fn store() -> Arc<MemoryStore> {
        let store = Arc::new(MemoryStore::default());
        let committer = Committer::start(store.clone()).expect("a committer");
        let clock = Arc::new(SimulatedClock::new(Time(1_700_000_000_000_000_000)));
        let settings = Settings { clock, limits: Limits::default(), cached_runs_max: 10, seed: 7 };
        let host = Arc::new(Host::new(store.clone(), Some(committer), settings));
        let started = WorkflowExecutionStartedEventAttributes {
            workflow_id: "w".into(),
            workflow_type: Some(WorkflowType { name: "W".into() }),
            task_queue: Some(TaskQueue { name: "q".into(), ..Default::default() }),
            workflow_run_timeout: duration(60_000_000_000),
            ..Default::default()
        };
        let start = Start {
            namespace: "default".into(),
            request_id: "r".into(),
            started,
            user_metadata: None,
            reuse: Default::default(),
            conflict: Default::default(),
            signal: None,
        };
        host.start(start).await.expect("starts");
        store
    }

    #[tokio::test]
    async fn a_sound_store_has_no_problems_and_each_kind_of_damage_is_found() {
        let store_of_one = store().await;
        let report = verify(&*store_of_one).expect("reads");
        assert!(report.history_stored_bytes > 50, "{report:?}");
        let sound = Report { history_stored_bytes: report.history_stored_bytes, ..Report::default() };
        assert_eq!(report, Report { runs: 1, open_runs: 1, history_events: 2, ..sound });

        for space in [Space::History, Space::Current, Space::Timer, Space::Busy, Space::Listed, Space::ByWorkflow] {
            let store = store().await;
            let mut batch = Batch::default();
            for (key, _) in store.scan(space, Range::prefix(Vec::new())).expect("scans") {
                batch.remove(space, key);
            }
            store.write(vec![batch], Durability::Synced).expect("writes");
            let report = verify(&*store).expect("reads");
            assert!(!report.is_sound(), "nobody missed what was in {}", space.name());
        }
        let indexes = [Space::Timer, Space::Busy, Space::Listed, Space::ByWorkflow, Space::Signal, Space::Pinned];
        for space in indexes.into_iter().chain([Space::Closed, Space::Loose, Space::History]) {
            let store = store().await;
            let mut batch = Batch::default();
            batch.put(space, vec![9; 40], Vec::new());
            store.write(vec![batch], Durability::Synced).expect("writes");
            let report = verify(&*store).expect("reads");
            assert!(!report.is_sound(), "nobody wondered what was in {}", space.name());
        }
    }
}
