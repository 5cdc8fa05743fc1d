//! The workers that say that they live, each as it last described itself. Kept in memory alone: whoever lives says so
//! again soon, also after a restart.

use crate::pb::enums::v1::WorkerStatus;
use crate::pb::worker::v1::WorkerHeartbeat;
use crate::time::Time;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};

/// A worker that was silent for so long is not listed any more. Workers speak every 30 or 60 seconds.
const SILENCE_NS: i64 = 5 * 60 * 1_000_000_000;

/// By namespace, then by the worker's instance key.
#[derive(Default)]
pub struct Workers(Mutex<HashMap<String, BTreeMap<String, Heard>>>);

struct Heard {
    heartbeat: WorkerHeartbeat,
    at: Time,
}

impl Workers {
    /// Workers of a namespace said how they are. One that shuts down is forgotten; of more than `max`, whoever was
    /// silent longest.
    pub fn record(&self, namespace: &str, heartbeats: Vec<WorkerHeartbeat>, now: Time, max: usize) {
        let mut namespaces = self.0.lock();
        let workers = namespaces.entry(namespace.to_owned()).or_default();
        for heartbeat in heartbeats {
            let key = heartbeat.worker_instance_key.clone();
            if heartbeat.status() == WorkerStatus::Shutdown {
                workers.remove(&key);
            } else if workers.insert(key, Heard { heartbeat, at: now }).is_none() {
                bound(workers, now, max);
            }
        }
    }

    /// The living workers of a namespace in the order of their keys, from behind `after` (empty: the first).
    pub fn list(&self, namespace: &str, after: &str, now: Time) -> Vec<WorkerHeartbeat> {
        let namespaces = self.0.lock();
        let living = namespaces.get(namespace).into_iter().flatten().filter(|(_, heard)| lives(heard, now));
        living.filter(|(key, _)| key.as_str() > after).map(|(_, heard)| heard.heartbeat.clone()).collect()
    }

    pub fn get(&self, namespace: &str, key: &str, now: Time) -> Option<WorkerHeartbeat> {
        let namespaces = self.0.lock();
        let heard = namespaces.get(namespace)?.get(key)?;
        lives(heard, now).then(|| heard.heartbeat.clone())
    }
}

fn lives(heard: &Heard, now: Time) -> bool {
    now < heard.at.plus(SILENCE_NS)
}

fn bound(workers: &mut BTreeMap<String, Heard>, now: Time, max: usize) {
    workers.retain(|_, heard| lives(heard, now));
    while workers.len() > max {
        let Some(oldest) = workers.iter().min_by_key(|(_, heard)| heard.at).map(|(key, _)| key.clone()) else { return };
        workers.remove(&oldest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    fn heartbeat(key: &str, status: WorkerStatus) -> Vec<WorkerHeartbeat> {
        vec![WorkerHeartbeat { worker_instance_key: key.into(), status: status as i32, ..Default::default() }]
    }

    fn keys(workers: &Workers, namespace: &str, after: &str, now: Time) -> Vec<String> {
        workers.list(namespace, after, now).into_iter().map(|heartbeat| heartbeat.worker_instance_key).collect()
    }

    #[test]
    fn whoever_spoke_last_is_listed_until_it_stops_or_is_silent_for_five_minutes() {
        let workers = Workers::default();
        let begin = Time(1_000 * SECOND);
        workers.record("n", heartbeat("b", WorkerStatus::Running), begin, 10);
        workers.record("n", heartbeat("a", WorkerStatus::Running), begin.plus(100 * SECOND), 10);
        workers.record("elsewhere", heartbeat("c", WorkerStatus::Running), begin, 10);
        assert_eq!(keys(&workers, "n", "", begin.plus(299 * SECOND)), ["a", "b"]);
        assert_eq!(keys(&workers, "n", "a", begin.plus(299 * SECOND)), ["b"], "from behind the first");
        assert_eq!(keys(&workers, "n", "", begin.plus(300 * SECOND)), ["a"], "b was silent");
        assert!(workers.get("n", "b", begin.plus(300 * SECOND)).is_none());
        workers.record("n", heartbeat("b", WorkerStatus::ShuttingDown), begin.plus(300 * SECOND), 10);
        let described = workers.get("n", "b", begin.plus(300 * SECOND)).expect("spoke again");
        assert_eq!(described.status(), WorkerStatus::ShuttingDown);
        workers.record("n", heartbeat("a", WorkerStatus::Shutdown), begin.plus(301 * SECOND), 10);
        assert_eq!(keys(&workers, "n", "", begin.plus(301 * SECOND)), ["b"], "a said goodbye");
    }

    #[test]
    fn of_too_many_workers_those_that_were_silent_longest_are_forgotten() {
        let workers = Workers::default();
        for n in 0..5 {
            let at = Time(1_000 * SECOND).plus(i64::from(n) * SECOND);
            workers.record("n", heartbeat(&format!("w{n}"), WorkerStatus::Running), at, 3);
        }
        assert_eq!(keys(&workers, "n", "", Time(1_005 * SECOND)), ["w2", "w3", "w4"]);
    }
}
