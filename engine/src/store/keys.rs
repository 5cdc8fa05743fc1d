//! What stands where in the store. Numbers are big-endian, so that byte order is their order; names are preceded by
//! their length, so that no name is the beginning of another's key.

use crate::core::versioning::Version;
use crate::time::Time;
use uuid::Uuid;

/// A run's key: its UUID. Run ids that are no UUID belong to no run.
pub type RunKey = [u8; 16];

pub fn run(run_id: &str) -> Option<RunKey> {
    Uuid::parse_str(run_id).ok().map(Uuid::into_bytes)
}

/// The run id that a key stands for.
pub fn run_id(key: &RunKey) -> String {
    Uuid::from_bytes(*key).to_string()
}

/// The history batch of `run` that begins with `first_event_id`.
pub fn history(run: &RunKey, first_event_id: i64) -> Vec<u8> {
    let mut key = run.to_vec();
    key.extend_from_slice(&(first_event_id as u64).to_be_bytes());
    key
}

/// The event id that a history key ends with.
pub fn first_event_id(history_key: &[u8]) -> Option<i64> {
    history_key.get(16..24)?.try_into().ok().map(|bytes| u64::from_be_bytes(bytes) as i64)
}

/// A request id that `run` took.
pub fn signal(run: &RunKey, request_id: &str) -> Vec<u8> {
    let mut key = run.to_vec();
    key.extend_from_slice(request_id.as_bytes());
    key
}

/// The pointer to the newest run of a workflow id.
pub fn current(namespace: &str, workflow_id: &str) -> Vec<u8> {
    let mut key = named(namespace);
    key.extend_from_slice(workflow_id.as_bytes());
    key
}

/// The wake-up of `run` at `at`.
pub fn timer(at: Time, run: &RunKey) -> Vec<u8> {
    let mut key = (at.0 as u64).to_be_bytes().to_vec();
    key.extend_from_slice(run);
    key
}

/// What a timer key says.
pub fn parse_timer(key: &[u8]) -> Option<(Time, RunKey)> {
    let at = u64::from_be_bytes(key.get(..8)?.try_into().ok()?);
    Some((Time(at as i64), key.get(8..24)?.try_into().ok()?))
}

/// What `run` owes because of the event.
pub fn errand(run: &RunKey, event_id: i64) -> Vec<u8> {
    history(run, event_id)
}

/// What an errand key says.
pub fn parse_errand(key: &[u8]) -> Option<(RunKey, i64)> {
    Some((key.get(..16)?.try_into().ok()?, first_event_id(key)?))
}

/// A run in the list of its namespace, newest first.
pub fn listed(namespace: &str, started_at: Time, run: &RunKey) -> Vec<u8> {
    let mut key = named(namespace);
    key.extend_from_slice(&(!(started_at.0 as u64)).to_be_bytes());
    key.extend_from_slice(run);
    key
}

/// A run among those of its workflow id, newest first.
pub fn by_workflow(namespace: &str, workflow_id: &str, started_at: Time, run: &RunKey) -> Vec<u8> {
    let mut key = by_workflow_prefix(namespace, workflow_id);
    key.extend_from_slice(&(!(started_at.0 as u64)).to_be_bytes());
    key.extend_from_slice(run);
    key
}

pub fn by_workflow_prefix(namespace: &str, workflow_id: &str) -> Vec<u8> {
    let mut key = named(namespace);
    key.extend(named(workflow_id));
    key
}

/// The run that a key of the two lists ends with.
pub fn trailing_run(key: &[u8]) -> Option<RunKey> {
    key.get(key.len().checked_sub(16)?..)?.try_into().ok()
}

/// A closed run of a namespace, by its end.
pub fn closed(namespace: &str, closed_at: Time, run: &RunKey) -> Vec<u8> {
    let mut key = named(namespace);
    key.extend(timer(closed_at, run));
    key
}

/// What a key of the closed runs says.
pub fn parse_closed(key: &[u8]) -> Option<(Time, RunKey)> {
    parse_timer(key.get(key.len().checked_sub(24)?..)?)
}

/// A closed run whose history is not packed, by its end.
pub fn loose(closed_at: Time, run: &RunKey) -> Vec<u8> {
    timer(closed_at, run)
}

/// What such a key says.
pub fn parse_loose(key: &[u8]) -> Option<(Time, RunKey)> {
    parse_timer(key)
}

/// A search attribute of a namespace.
pub fn attribute(namespace: &str, name: &str) -> Vec<u8> {
    let mut key = named(namespace);
    key.extend_from_slice(name.as_bytes());
    key
}

/// A deployment of a namespace.
pub fn deployment(namespace: &str, name: &str) -> Vec<u8> {
    attribute(namespace, name)
}

/// The namespace that a key begins with.
pub fn namespace_of(key: &[u8]) -> Option<String> {
    let length = u32::from_be_bytes(key.get(..4)?.try_into().ok()?) as usize;
    String::from_utf8(key.get(4..4 + length)?.to_vec()).ok()
}

/// An open run that belongs to a version.
pub fn pinned(namespace: &str, version: &Version, run: &RunKey) -> Vec<u8> {
    let mut key = pinned_prefix(namespace, version);
    key.extend_from_slice(run);
    key
}

/// What the keys of all open runs begin with that belong to a version.
pub fn pinned_prefix(namespace: &str, version: &Version) -> Vec<u8> {
    let mut key = named(namespace);
    key.extend(named(&version.deployment));
    key.extend(named(&version.build_id));
    key
}

/// A name with its length in front.
pub fn named(name: &str) -> Vec<u8> {
    let mut key = (name.len() as u32).to_be_bytes().to_vec();
    key.extend_from_slice(name.as_bytes());
    key
}
