//! Deployments of workers: each change is stored, then the table in memory takes it, then what waits in queues goes where
//! it belongs. One change after the other.

use super::{Error, Host, Slot, wait};
use crate::core::state::RunState;
use crate::core::versioning::{Poller, Route, Version};
use crate::deployments::state::{Deployment, Ramp, Refusal, VersionQueue, Wish};
use crate::dispatch::{Kind, QueueKey};
use crate::pb::deployment::v1::VersionMetadata;
use crate::pb::enums::v1::WorkerDeploymentVersionStatus as Status;
use crate::store::{self, Batch, Durability, Range, Space, keys};
use crate::time::Time;
use prost::Message;
use std::sync::Arc;
use tokio::sync::{OwnedMutexGuard, oneshot};

/// Why a deployment could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum DeploymentError {
    #[error(transparent)]
    Host(#[from] Error),
    #[error(transparent)]
    Refused(#[from] Refusal),
}

impl Host {
    /// Reads the deployments that the store has.
    pub fn load_deployments(&self) -> Result<(), Error> {
        for (key, value) in self.store.scan(Space::Deployment, Range::prefix(Vec::new()))? {
            let corrupt = |source| Error::Corrupt { run_id: String::new(), source };
            let deployment = Deployment::decode(value.as_slice()).map_err(corrupt)?;
            if let Some(namespace) = keys::namespace_of(&key) {
                self.queues.deployments.put(&namespace, deployment);
            }
        }
        Ok(())
    }

    /// A worker of a version polls a queue: both are known from now on.
    pub async fn register_worker(
        self: &Arc<Self>,
        namespace: &str,
        version: &Version,
        queue: &str,
        is_activity: bool,
    ) -> Result<(), DeploymentError> {
        if self.queues.deployments.read().polls(namespace, version, queue, is_activity) {
            return Ok(());
        }
        let (build_id, limits) = (&version.build_id, &self.limits);
        let register = |deployment: &mut Deployment, now: Time| {
            if !deployment.versions.contains_key(build_id) {
                self.make_room(namespace, deployment)?;
            }
            let known = deployment.add(build_id, Status::Inactive, now);
            if known.status() == Status::Created {
                known.status = Status::Inactive as i32;
            }
            if !known.has_queue(queue, is_activity) {
                if known.queues.len() >= limits.version_queues_max {
                    let (version, max) = (version.to_string(), limits.version_queues_max);
                    return Err(Refusal::TooManyQueues { version, max });
                }
                known.queues.push(VersionQueue { name: queue.to_owned(), is_activity });
            }
            Ok(())
        };
        self.change(namespace, &version.deployment, Missing::IsMade, register).await.map(|_| ())
    }

    /// A deployment with too many versions forgets the oldest that nobody needs.
    fn make_room(&self, namespace: &str, deployment: &mut Deployment) -> Result<(), Refusal> {
        let max = self.limits.deployment_versions_max;
        if deployment.versions.len() < max {
            return Ok(());
        }
        let is_idle = |(build_id, version): &(&String, &crate::deployments::state::VersionState)| {
            matches!(version.status(), Status::Drained | Status::Inactive | Status::Created)
                && !self.has_pollers(namespace, &deployment.version(build_id), version)
        };
        let oldest = deployment.versions.iter().filter(is_idle).min_by_key(|(_, version)| version.created_at);
        match oldest.map(|(build_id, _)| build_id.clone()) {
            Some(build_id) => {
                deployment.versions.remove(&build_id);
                Ok(())
            }
            None => Err(Refusal::TooManyVersions { deployment: deployment.name.clone(), max }),
        }
    }

    fn has_pollers(&self, namespace: &str, version: &Version, state: &crate::deployments::state::VersionState) -> bool {
        state.queues.iter().any(|queue| self.queues.has_poller(&lane(namespace, version, queue)))
    }

    /// Sends the queues of a deployment to a version. Gives the deployment as it was and as it is.
    pub async fn set_current(
        self: &Arc<Self>,
        namespace: &str,
        name: &str,
        build_id: Option<&str>,
        wish: Wish,
    ) -> Result<(Deployment, Deployment), DeploymentError> {
        let missing = if wish.allow_no_pollers { Missing::IsMade } else { Missing::IsRefused };
        let change = |deployment: &mut Deployment, now: Time| {
            let wish = self.with_missing_queues(namespace, deployment, build_id, wish);
            deployment.set_current(build_id, &wish, now)
        };
        self.change(namespace, name, missing, change).await
    }

    /// Sends a share of a deployment's workflows to a version. Gives the deployment as it was and as it is.
    pub async fn set_ramp(
        self: &Arc<Self>,
        namespace: &str,
        name: &str,
        ramp: Option<Ramp>,
        wish: Wish,
    ) -> Result<(Deployment, Deployment), DeploymentError> {
        let missing = if wish.allow_no_pollers { Missing::IsMade } else { Missing::IsRefused };
        let change = |deployment: &mut Deployment, now: Time| {
            let build_id = ramp.as_ref().and_then(|ramp| ramp.to.clone());
            let wish = self.with_missing_queues(namespace, deployment, build_id.as_deref(), wish);
            deployment.set_ramp(ramp, &wish, now)
        };
        self.change(namespace, name, missing, change).await
    }

    /// Whether a version would leave queues of the current one behind that are in use; `missing_queues` says on the way in
    /// whether that matters.
    fn with_missing_queues(
        &self,
        namespace: &str,
        deployment: &Deployment,
        build_id: Option<&str>,
        wish: Wish,
    ) -> Wish {
        let (Some(build_id), Some(current), true) = (build_id, &deployment.current, wish.missing_queues) else {
            return Wish { missing_queues: false, ..wish };
        };
        let current = deployment.version(current);
        let is_left_behind = |queue: &VersionQueue| {
            let routing = self.queues.deployments.read().routing(namespace, &queue.name, queue.is_activity);
            routing.current.version.as_ref() == Some(&current)
                && self.queues.is_in_use(&lane(namespace, &current, queue))
        };
        Wish { missing_queues: deployment.queues_missing_in(build_id).iter().any(is_left_behind), ..wish }
    }

    pub async fn set_version_metadata(
        self: &Arc<Self>,
        namespace: &str,
        version: &Version,
        identity: &str,
        change: impl FnOnce(&mut VersionMetadata),
    ) -> Result<VersionMetadata, DeploymentError> {
        let set = |deployment: &mut Deployment, _: Time| {
            let Some(known) = deployment.versions.get_mut(&version.build_id) else { return Err(unknown(version)) };
            change(known.metadata.get_or_insert_default());
            known.last_modifier = identity.to_owned();
            Ok(())
        };
        let (_, after) = self.change(namespace, &version.deployment, Missing::IsRefused, set).await?;
        let version = after.versions.get(&version.build_id);
        Ok(version.and_then(|version| version.metadata.clone()).unwrap_or_default())
    }

    pub async fn delete_version(
        self: &Arc<Self>,
        namespace: &str,
        version: &Version,
        skip_drainage: bool,
    ) -> Result<(), DeploymentError> {
        let delete = |deployment: &mut Deployment, _: Time| {
            let Some(known) = deployment.versions.get(&version.build_id) else { return Err(unknown(version)) };
            match known.status() {
                Status::Current | Status::Ramping => return Err(Refusal::InUse(version.to_string())),
                Status::Draining if !skip_drainage => return Err(Refusal::Draining(version.to_string())),
                _ if self.has_pollers(namespace, version, known) => {
                    return Err(Refusal::HasPollers(version.to_string()));
                }
                _ => {}
            }
            deployment.versions.remove(&version.build_id);
            Ok(())
        };
        self.refresh_drainage(namespace, &version.deployment).await?;
        self.change(namespace, &version.deployment, Missing::IsRefused, delete).await.map(|_| ())
    }

    /// Deletes a deployment that has no versions.
    pub async fn delete_deployment(self: &Arc<Self>, namespace: &str, name: &str) -> Result<(), DeploymentError> {
        let lock = self.deploying.clone().lock_owned().await;
        self.check_writable()?;
        match self.queues.deployments.read().get(namespace, name) {
            None => return Ok(()),
            Some(deployment) if !deployment.versions.is_empty() => {
                return Err(Refusal::HasVersions(name.to_owned()).into());
            }
            Some(_) => {}
        }
        let mut batch = Batch::default();
        batch.remove(Space::Deployment, keys::deployment(namespace, name));
        self.store_deployment(namespace, name, None, batch, lock).await
    }

    /// Looks which versions of a deployment still have open runs, and remembers what is new.
    pub async fn refresh_drainage(self: &Arc<Self>, namespace: &str, name: &str) -> Result<(), DeploymentError> {
        let Some(known) = self.queues.deployments.read().get(namespace, name).cloned() else { return Ok(()) };
        let mut looked = known.clone();
        if !self.look(namespace, &mut looked, self.clock.now())? {
            return Ok(());
        }
        let mut failed = None;
        let refresh = |deployment: &mut Deployment, now: Time| {
            failed = self.look(namespace, deployment, now).err();
            Ok(())
        };
        self.change(namespace, name, Missing::IsRefused, refresh).await?;
        failed.map_or(Ok(()), |error| Err(error.into()))
    }

    fn look(&self, namespace: &str, deployment: &mut Deployment, now: Time) -> Result<bool, Error> {
        let mut is_news = false;
        let name = deployment.name.clone();
        for (build_id, state) in &mut deployment.versions {
            if matches!(state.status(), Status::Draining | Status::Drained | Status::Inactive) {
                let version = Version { deployment: name.clone(), build_id: build_id.clone() };
                let range = Range { limit: 1, ..Range::prefix(keys::pinned_prefix(namespace, &version)) };
                let has_runs = !self.store.scan(Space::Pinned, range)?.is_empty();
                is_news |= state.look(has_runs, now);
            }
        }
        Ok(is_news)
    }

    /// Changes one deployment and stores it, if that makes a difference. Gives it as it was and as it is.
    async fn change(
        self: &Arc<Self>,
        namespace: &str,
        name: &str,
        missing: Missing,
        change: impl FnOnce(&mut Deployment, Time) -> Result<(), Refusal>,
    ) -> Result<(Deployment, Deployment), DeploymentError> {
        let lock = self.deploying.clone().lock_owned().await;
        self.check_writable()?;
        let now = self.clock.now();
        let known = {
            let table = self.queues.deployments.read();
            match (table.get(namespace, name).cloned(), missing) {
                (Some(known), _) => Some(known),
                (None, Missing::IsRefused) => return Err(Refusal::NoDeployment(name.to_owned()).into()),
                (None, Missing::IsMade) if table.all(namespace).count() >= self.limits.deployments_max => {
                    return Err(Refusal::TooManyDeployments(self.limits.deployments_max).into());
                }
                (None, Missing::IsMade) => None,
            }
        };
        let before = known.clone().unwrap_or_else(|| Deployment::new(name, now));
        let mut after = before.clone();
        change(&mut after, now)?;
        if known.as_ref() != Some(&after) {
            let mut batch = Batch::default();
            batch.put(Space::Deployment, keys::deployment(namespace, name), after.encode_to_vec());
            self.store_deployment(namespace, name, Some(after.clone()), batch, lock).await?;
        }
        Ok((before, after))
    }

    async fn store_deployment(
        self: &Arc<Self>,
        namespace: &str,
        name: &str,
        deployment: Option<Deployment>,
        batch: Batch,
        lock: OwnedMutexGuard<()>,
    ) -> Result<(), DeploymentError> {
        let (done, waits) = oneshot::channel();
        let (host, namespace, name) = (self.clone(), namespace.to_owned(), name.to_owned());
        let after = move |result: Result<(), Arc<store::Error>>| {
            match (&result, deployment) {
                (Ok(()), Some(deployment)) => host.queues.deployments.put(&namespace, deployment),
                (Ok(()), None) => host.queues.deployments.remove(&namespace, &name),
                (Err(_), _) => host.poison(),
            }
            if result.is_ok() {
                host.queues.reroute(&namespace);
            }
            drop(lock);
            let _nobody_waits = done.send(result);
        };
        self.submit(batch, Durability::Synced, Box::new(after));
        Ok(wait(waits).await?)
    }

    /// The worker that takes a task of a run, with what the routing says about the run now.
    pub fn poller(&self, slot: &Slot, version: Option<Version>) -> Poller {
        let (namespace, queue, route) = {
            let run = slot.run.lock();
            (run.state.namespace.clone(), run.state.task_queue.clone(), run.state.route())
        };
        let table = self.queues.deployments.read();
        let target = table.target(&namespace, &queue, false, &Route { pinned: None, ..route });
        Poller { revision: table.revision(&namespace, version.as_ref()), target, version }
    }

    /// Whether workers of a run's version take workflow tasks from this queue.
    pub(super) fn is_in_version_of(&self, state: &RunState, queue: &str) -> bool {
        queue == state.task_queue
            || state
                .version()
                .is_some_and(|version| self.queues.deployments.read().polls(&state.namespace, &version, queue, false))
    }
}

/// What becomes of a change to a deployment that is not there.
#[derive(Clone, Copy)]
enum Missing {
    IsMade,
    IsRefused,
}

fn unknown(version: &Version) -> Refusal {
    Refusal::NoVersion { deployment: version.deployment.clone(), build_id: version.build_id.clone() }
}

/// Where tasks of a task queue stand for the workers of a version.
fn lane(namespace: &str, version: &Version, queue: &VersionQueue) -> QueueKey {
    QueueKey {
        namespace: namespace.to_owned(),
        name: queue.name.clone(),
        kind: if queue.is_activity { Kind::Activity } else { Kind::Workflow },
        version: Some(version.clone()),
    }
}
