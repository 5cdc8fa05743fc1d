//! Deployments of workers: which versions there are, and which of them the tasks of a run go to. A table in memory of
//! what the store has; whoever changes it stores it first ([`crate::host`]).

pub mod state;

use crate::core::versioning::{Route, Target, Version};
use crate::time::Time;
use parking_lot::{RwLock, RwLockReadGuard};
use state::Deployment;
use std::collections::{BTreeMap, BTreeSet};

/// By namespace, then by name.
#[derive(Default)]
pub struct Deployments(RwLock<Table>);

#[derive(Default)]
pub struct Table(BTreeMap<String, BTreeMap<String, Deployment>>);

/// Where a task queue goes, as a description of it shows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Routing {
    pub current: Target,
    pub ramp: Option<(Target, f32)>,
    pub changed_at: Time,
}

impl Deployments {
    /// The deployments as they are; they do not change while this is held.
    pub fn read(&self) -> RwLockReadGuard<'_, Table> {
        self.0.read()
    }

    /// Puts a deployment in the place of what was there. Whoever read the table before this has finished.
    pub fn put(&self, namespace: &str, deployment: Deployment) {
        let mut table = self.0.write();
        table.0.entry(namespace.to_owned()).or_default().insert(deployment.name.clone(), deployment);
    }

    pub fn remove(&self, namespace: &str, name: &str) {
        if let Some(deployments) = self.0.write().0.get_mut(namespace) {
            deployments.remove(name);
        }
    }
}

/// Which of several deployments decides: whether it names a version, and when that was said.
type Weight = (bool, i64);
/// What goes to a version that is ramped up, in percent.
type Share = Option<(Target, f32)>;

impl Table {
    pub fn get(&self, namespace: &str, name: &str) -> Option<&Deployment> {
        self.0.get(namespace)?.get(name)
    }

    pub fn all(&self, namespace: &str) -> impl Iterator<Item = &Deployment> {
        self.0.get(namespace).into_iter().flat_map(BTreeMap::values)
    }

    /// Whether workers of a version ever polled a queue.
    pub fn polls(&self, namespace: &str, version: &Version, queue: &str, is_activity: bool) -> bool {
        let deployment = self.get(namespace, &version.deployment);
        let version = deployment.and_then(|deployment| deployment.versions.get(&version.build_id));
        version.is_some_and(|version| version.has_queue(queue, is_activity))
    }

    /// The queues where workers of a version take workflow tasks.
    pub fn workflow_queues(&self, namespace: &str, version: &Version) -> BTreeSet<String> {
        let deployment = self.get(namespace, &version.deployment);
        let version = deployment.and_then(|deployment| deployment.versions.get(&version.build_id));
        let queues = version.into_iter().flat_map(|version| &version.queues);
        queues.filter(|queue| !queue.is_activity).map(|queue| queue.name.clone()).collect()
    }

    /// The revision of the routing that a version follows; zero for workers without one.
    pub fn revision(&self, namespace: &str, version: Option<&Version>) -> i64 {
        let deployment = version.and_then(|version| self.get(namespace, &version.deployment));
        deployment.map_or(0, |deployment| deployment.revision)
    }

    /// Where a queue goes. Of several deployments whose workers poll it the one that was changed last decides, and one
    /// that sends it to a version before one that sends it to workers without.
    pub fn routing(&self, namespace: &str, queue: &str, is_activity: bool) -> Routing {
        let mut current: Option<(Weight, Target)> = None;
        let mut ramp: Option<(Weight, Share)> = None;
        for deployment in self.all(namespace) {
            let polls = |build_id: &str| {
                deployment.versions.get(build_id).is_some_and(|version| version.has_queue(queue, is_activity))
            };
            if !deployment.versions.keys().any(|build_id| polls(build_id)) {
                continue;
            }
            // A version that does not poll the queue has nothing to say about it.
            let target = |to: &Option<String>| match to {
                Some(build_id) if polls(build_id) => Some((true, Some(deployment.version(build_id)))),
                Some(_) => None,
                None => Some((false, None)),
            };
            let revision = deployment.revision;
            if let Some((is_versioned, version)) = target(&deployment.current) {
                let candidate = ((is_versioned, deployment.current_changed_at), Target { version, revision });
                if current.as_ref().is_none_or(|known| known.0 < candidate.0) {
                    current = Some(candidate);
                }
            }
            let to = deployment.ramp.as_ref().map_or(&None, |ramp| &ramp.to);
            if let Some((is_versioned, version)) = target(to) {
                let share = deployment.ramp.as_ref().map(|ramp| (Target { version, revision }, ramp.percentage));
                let candidate = ((is_versioned, deployment.percentage_changed_at), share);
                if ramp.as_ref().is_none_or(|known| known.0 < candidate.0) {
                    ramp = Some(candidate);
                }
            }
        }
        let changed_at = current.as_ref().map_or(0, |known| known.0.1).max(ramp.as_ref().map_or(0, |known| known.0.1));
        Routing {
            current: current.map(|known| known.1).unwrap_or_default(),
            ramp: ramp.and_then(|known| known.1),
            changed_at: Time(changed_at),
        }
    }

    /// Where tasks of a run go on a queue if it is not pinned.
    pub fn target(&self, namespace: &str, queue: &str, is_activity: bool, route: &Route) -> Target {
        if self.0.get(namespace).is_none_or(BTreeMap::is_empty) {
            return Target::default();
        }
        let routing = self.routing(namespace, queue, is_activity);
        match routing.ramp {
            Some((target, _)) if route.ramping && target.version.is_some() => target,
            Some((target, percentage)) if is_in_ramp(&route.workflow_id, percentage) => target,
            _ => routing.current,
        }
    }

    /// The version whose workers may have a task of a run; none: workers without a version. An activity whose queue the
    /// run's version does not poll has its own way.
    pub fn worker_of(&self, namespace: &str, queue: &str, is_activity: bool, route: &Route) -> Option<Version> {
        match &route.pinned {
            Some(version) if !is_activity || self.polls(namespace, version, queue, true) => Some(version.clone()),
            _ => self.target(namespace, queue, is_activity, route).version,
        }
    }
}

/// Whether a workflow belongs to the first `percentage` of a hundred: the same ones on every server.
fn is_in_ramp(workflow_id: &str, percentage: f32) -> bool {
    if percentage <= 0.0 {
        return false;
    }
    let hash = farmhash::fingerprint32(workflow_id.as_bytes());
    let place = 100.0 * (f64::from(hash) / (f64::from(u32::MAX) + 1.0));
    percentage >= 100.0 || place <= f64::from(percentage)
}

#[cfg(test)]
mod tests;
