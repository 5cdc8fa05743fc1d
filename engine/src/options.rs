//! What the host chooses when it opens an engine, and the limits with Temporal's defaults. Reads no environment.

use crate::clock::Clock;
use std::path::PathBuf;
use std::sync::Arc;

/// Where the state lives.
#[derive(Clone, Debug)]
pub enum Store {
    /// Nothing survives the process.
    Memory,
    /// A fjall database in this folder; created when missing, locked while open.
    Fjall(PathBuf),
}

/// How an engine is opened.
#[derive(Clone)]
pub struct Options {
    pub store: Store,
    /// Namespaces that exist without being registered.
    pub namespaces: Vec<String>,
    pub limits: Limits,
    pub clock: Arc<dyn Clock>,
    /// Runs kept decoded in memory; others are read back from the store when they are touched.
    pub cached_runs_max: usize,
    /// What the journal of a fjall store may hold, in bytes, at least 64 MiB: opening a store takes as long as reading that,
    /// however much is stored.
    pub journal_bytes: u64,
    /// Every id the engine makes is derived from this and from what asked for it.
    pub seed: u64,
}

impl Options {
    /// Temporal's limits, the system clock and the namespace `default` over the given store.
    pub fn new(store: Store) -> Self {
        Options {
            store,
            namespaces: vec!["default".to_owned()],
            limits: Limits::default(),
            clock: Arc::new(crate::clock::SystemClock),
            cached_runs_max: 2_000,
            journal_bytes: crate::store::JOURNAL_BYTES,
            seed: crate::clock::entropy(),
        }
    }
}

/// Bounds of one run, one request and one page. The defaults are those of a Temporal server.
#[derive(Clone, Debug)]
pub struct Limits {
    /// History events after which a workflow task suggests to continue as new.
    pub suggest_history_events: i64,
    /// History bytes after which a workflow task suggests to continue as new.
    pub suggest_history_bytes: i64,
    /// History events beyond which a run is terminated.
    pub history_events_max: i64,
    /// History bytes beyond which a run is terminated.
    pub history_bytes_max: i64,
    /// Events that may wait behind one started workflow task before it is failed.
    pub buffered_events_max: usize,
    /// Bytes that may wait behind one started workflow task before it is failed.
    pub buffered_bytes_max: usize,
    /// Signals one run accepts.
    pub signals_max: i64,
    /// Activities one run may have pending.
    pub pending_activities_max: usize,
    /// Children one run may have open.
    pub pending_children_max: usize,
    /// Signals to other runs that one run may have on their way.
    pub pending_signals_max: usize,
    /// Requests to other runs to cancel themselves that one run may have on their way.
    pub pending_cancels_max: usize,
    /// Bytes of one payload field (input, result, details).
    pub blob_bytes_max: usize,
    /// Bytes of a memo.
    pub memo_bytes_max: usize,
    /// Events in one page of history. Large, because the SDK reads all of a run before it replays it, and moves everything
    /// that it has with each page: the time goes up with the square of the pages.
    pub history_page_max: usize,
    /// Bytes of history after which a page ends: well under the 4 MiB that gRPC clients take by default.
    pub history_page_bytes: usize,
    /// Events in one page of history that is read backwards, which people do.
    pub reverse_page_max: usize,
    /// Runs in one page of a list.
    pub list_page_max: usize,
    /// Bytes of an identifier (workflow id, type, task queue, ...).
    pub id_bytes_max: usize,
    /// How long a poll for a task waits, in nanoseconds.
    pub task_poll_ns: i64,
    /// How long a poll for history waits, in nanoseconds.
    pub history_poll_ns: i64,
    /// How long a chain of heartbeating workflow tasks may last, in nanoseconds.
    pub task_heartbeat_ns: i64,
    /// How long a query waits when the caller names no deadline, in nanoseconds.
    pub query_ns: i64,
    /// Queries that may wait for one run.
    pub buffered_queries_max: usize,
    /// Tasks that wait for workers, of all runs together: they are in memory. While it is so many nothing is taken that makes
    /// more: starts, signals, queries, updates.
    pub waiting_tasks_max: usize,
    /// Updates of one run that may be on their way.
    pub in_flight_updates_max: usize,
    /// Updates that one run accepts.
    pub updates_max: usize,
    /// The shortest time for which a namespace keeps its closed runs, in nanoseconds.
    pub retention_min_ns: i64,
    /// How long after a run's end its history is packed, in nanoseconds: until then it is read most.
    pub pack_after_ns: i64,
    /// Living workers of one namespace that are listed.
    pub workers_max: usize,
    /// Deployments of workers in one namespace.
    pub deployments_max: usize,
    /// Versions of one deployment.
    pub deployment_versions_max: usize,
    /// Task queues that workers of one version poll.
    pub version_queues_max: usize,
}

const SECOND: i64 = 1_000_000_000;
const MIB: i64 = 1024 * 1024;

impl Default for Limits {
    fn default() -> Self {
        Limits {
            suggest_history_events: 4_096,
            suggest_history_bytes: 4 * MIB,
            history_events_max: 51_200,
            history_bytes_max: 50 * MIB,
            buffered_events_max: 100,
            buffered_bytes_max: 2 * MIB as usize,
            signals_max: 10_000,
            pending_activities_max: 2_000,
            pending_children_max: 2_000,
            pending_signals_max: 2_000,
            pending_cancels_max: 2_000,
            blob_bytes_max: 2 * MIB as usize,
            memo_bytes_max: 2 * MIB as usize,
            history_page_max: 4_096,
            history_page_bytes: 2 * MIB as usize,
            reverse_page_max: 256,
            list_page_max: 1_000,
            id_bytes_max: 1_000,
            task_poll_ns: 60 * SECOND,
            history_poll_ns: 20 * SECOND,
            task_heartbeat_ns: 30 * 60 * SECOND,
            query_ns: 10 * SECOND,
            buffered_queries_max: 1_000,
            waiting_tasks_max: 1_000_000,
            in_flight_updates_max: 10,
            updates_max: 2_000,
            retention_min_ns: 60 * 60 * SECOND,
            pack_after_ns: 60 * SECOND,
            workers_max: 10_000,
            deployments_max: 1_000,
            deployment_versions_max: 100,
            version_queues_max: 1_000,
        }
    }
}
