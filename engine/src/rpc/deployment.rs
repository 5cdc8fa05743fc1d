//! Deployments of workers: which versions there are, which of them are current and ramping, and what workers say of
//! themselves.

use super::{Call, Reply, status, task_queue};
use crate::core::versioning::{Version, Worker};
use crate::deployments::Routing;
use crate::deployments::state::{Deployment, Ramp, Refusal, UNVERSIONED, VersionState, Wish};
use crate::dispatch::Kind;
use crate::host::DeploymentError;
use crate::pb::deployment::v1::worker_deployment_info::WorkerDeploymentVersionSummary;
use crate::pb::deployment::v1::worker_deployment_version_info::VersionTaskQueueInfo;
use crate::pb::deployment::v1::*;
use crate::pb::enums::v1::{
    ResourceExhaustedCause as Cause, ResourceExhaustedScope as Scope, RoutingConfigUpdateState, TaskQueueType,
    VersionDrainageStatus, VersioningBehavior, WorkerVersioningMode,
};
use crate::pb::taskqueue::v1::TaskQueueVersioningInfo;
use crate::pb::workflowservice::v1::describe_worker_deployment_version_response::VersionTaskQueue;
use crate::pb::workflowservice::v1::list_worker_deployments_response::WorkerDeploymentSummary;
use crate::pb::workflowservice::v1::*;
use crate::time::Time;
use prost_wkt_types::Timestamp;
use tonic::Status;

/// Deployments in a page when the request does not say.
const PAGE: usize = 100;

impl From<DeploymentError> for Status {
    fn from(error: DeploymentError) -> Status {
        let refusal = match error {
            DeploymentError::Host(error) => return error.into(),
            DeploymentError::Refused(refusal) => refusal,
        };
        match &refusal {
            Refusal::NoDeployment(_) | Refusal::NoVersion { .. } => status::not_found(&refusal.to_string()),
            Refusal::TooManyVersions { .. } | Refusal::TooManyQueues { .. } | Refusal::TooManyDeployments(_) => {
                let (cause, scope) = (Cause::WorkerDeploymentLimits, Scope::Namespace);
                status::exhausted(&refusal.to_string(), cause, scope)
            }
            _ => Status::failed_precondition(refusal.to_string()),
        }
    }
}

/// The version of a worker that polls; none: it has none.
pub fn of_worker(options: Option<&WorkerDeploymentOptions>) -> Reply<Option<Version>> {
    let Some(options) = options.filter(|options| options.worker_versioning_mode() == WorkerVersioningMode::Versioned)
    else {
        return Ok(None);
    };
    let invalid = |message: &str| Err(Status::invalid_argument(message));
    match (options.deployment_name.as_str(), options.build_id.as_str()) {
        ("", _) => invalid("versioned worker must have deployment name"),
        (_, "") => invalid("versioned worker must have build id"),
        (name, _) if name.contains([':', '.']) => invalid("deployment name cannot contain ':' or '.'"),
        (name, build_id) => Ok(Some(Version { deployment: name.to_owned(), build_id: build_id.to_owned() })),
    }
}

/// What a worker that completes a workflow task says of itself.
pub fn worker(call: &Call, namespace: &str, options: Option<WorkerDeploymentOptions>, behavior: i32) -> Reply<Worker> {
    let version = of_worker(options.as_ref())?;
    let queues =
        version.as_ref().map(|version| call.host.queues.deployments.read().workflow_queues(namespace, version));
    // SDKs report a default behavior also for workers without a version.
    let behavior = version.as_ref().map(|_| VersioningBehavior::try_from(behavior).unwrap_or_default());
    Ok(Worker {
        deployment: options.map(|options| options.deployment_name).unwrap_or_default(),
        version,
        behavior: behavior.unwrap_or_default(),
        queues: queues.unwrap_or_default(),
    })
}

/// A build id as requests name it: in a field of its own or, by older clients, with its deployment before it.
fn build_id(deployment: &str, build_id: String, version: &str) -> Reply<Option<String>> {
    if !build_id.is_empty() {
        return Ok(Some(build_id));
    }
    match Version::from_dotted(version) {
        _ if version.is_empty() || version == UNVERSIONED => Ok(None),
        Some(version) if version.deployment == deployment => Ok(Some(version.build_id)),
        _ => {
            let message = format!("invalid version string '{version}' does not match deployment name '{deployment}'");
            Err(Status::invalid_argument(message))
        }
    }
}

/// The version that a request means.
fn version_of(version: Option<&WorkerDeploymentVersion>, dotted: &str) -> Reply<Version> {
    let named = Version::of(version).or_else(|| Version::from_dotted(dotted));
    named.ok_or_else(|| Status::invalid_argument("WorkerDeploymentVersion is not set on request."))
}

#[expect(deprecated, reason = "older clients still use the fields")]
pub async fn set_current(
    call: Call,
    r: SetWorkerDeploymentCurrentVersionRequest,
) -> Reply<SetWorkerDeploymentCurrentVersionResponse> {
    let namespace = call.namespace(&r.namespace)?;
    call.id("DeploymentName", &r.deployment_name)?;
    let build_id = build_id(&r.deployment_name, r.build_id, &r.version)?;
    let wish = Wish {
        identity: r.identity,
        conflict_token: r.conflict_token,
        allow_no_pollers: r.allow_no_pollers,
        missing_queues: !r.ignore_missing_task_queues,
    };
    let changed = call.host.set_current(namespace, &r.deployment_name, build_id.as_deref(), wish).await?;
    let (before, after) = changed;
    let previous = before.current.as_ref().map(|build_id| before.version(build_id));
    Ok(SetWorkerDeploymentCurrentVersionResponse {
        conflict_token: after.conflict_token(),
        previous_version: previous.as_ref().map_or_else(|| UNVERSIONED.to_owned(), Version::dotted),
        previous_deployment_version: previous.as_ref().map(Version::wire),
    })
}

#[expect(deprecated, reason = "older clients still use the fields")]
pub async fn set_ramping(
    call: Call,
    r: SetWorkerDeploymentRampingVersionRequest,
) -> Reply<SetWorkerDeploymentRampingVersionResponse> {
    let namespace = call.namespace(&r.namespace)?;
    call.id("DeploymentName", &r.deployment_name)?;
    if !(0.0..=100.0).contains(&r.percentage) {
        return Err(Status::invalid_argument("Percentage must be between 0 and 100 (inclusive)"));
    }
    let to = build_id(&r.deployment_name, r.build_id, &r.version)?;
    // No version and no share: nothing ramps any more.
    let ramp = (to.is_some() || r.percentage > 0.0).then_some(Ramp { to, percentage: r.percentage });
    let wish = Wish {
        identity: r.identity,
        conflict_token: r.conflict_token,
        allow_no_pollers: r.allow_no_pollers,
        missing_queues: !r.ignore_missing_task_queues,
    };
    let (before, after) = call.host.set_ramp(namespace, &r.deployment_name, ramp, wish).await?;
    let previous = ramping(&before);
    Ok(SetWorkerDeploymentRampingVersionResponse {
        conflict_token: after.conflict_token(),
        previous_version: ramping_text(&before),
        previous_deployment_version: previous.as_ref().map(Version::wire),
        previous_percentage: before.ramp.as_ref().map_or(0.0, |ramp| ramp.percentage),
    })
}

fn ramping(deployment: &Deployment) -> Option<Version> {
    let ramp = deployment.ramp.as_ref()?;
    ramp.to.as_ref().map(|build_id| deployment.version(build_id))
}

/// Nothing, workers without a version, or a version.
fn ramping_text(deployment: &Deployment) -> String {
    match (&deployment.ramp, ramping(deployment)) {
        (None, _) => String::new(),
        (Some(_), None) => UNVERSIONED.to_owned(),
        (Some(_), Some(version)) => version.dotted(),
    }
}

#[expect(deprecated, reason = "older clients still read the fields")]
fn routing_config(deployment: &Deployment) -> RoutingConfig {
    let current = deployment.current.as_ref().map(|build_id| deployment.version(build_id));
    RoutingConfig {
        current_deployment_version: current.as_ref().map(Version::wire),
        current_version: current.as_ref().map_or_else(|| UNVERSIONED.to_owned(), Version::dotted),
        ramping_deployment_version: ramping(deployment).as_ref().map(Version::wire),
        ramping_version: ramping_text(deployment),
        ramping_version_percentage: deployment.ramp.as_ref().map_or(0.0, |ramp| ramp.percentage),
        current_version_changed_time: Time(deployment.current_changed_at).timestamp(),
        ramping_version_changed_time: Time(deployment.ramp_changed_at).timestamp(),
        ramping_version_percentage_changed_time: Time(deployment.percentage_changed_at).timestamp(),
        revision_number: deployment.revision,
    }
}

fn drainage_info(version: &VersionState, now: Time) -> Option<VersionDrainageInfo> {
    let status = version.drainage();
    let checked = match status {
        VersionDrainageStatus::Unspecified => return None,
        VersionDrainageStatus::Draining => now,
        VersionDrainageStatus::Drained => Time(version.drainage_checked_at),
    };
    Some(VersionDrainageInfo {
        status: status as i32,
        last_changed_time: Time(version.drainage_changed_at).timestamp(),
        last_checked_time: checked.timestamp(),
    })
}

#[expect(deprecated, reason = "older clients still read the fields")]
fn summary(version: &Version, state: &VersionState, now: Time) -> WorkerDeploymentVersionSummary {
    WorkerDeploymentVersionSummary {
        version: version.dotted(),
        status: state.status,
        deployment_version: Some(version.wire()),
        create_time: Time(state.created_at).timestamp(),
        drainage_status: state.drainage() as i32,
        drainage_info: drainage_info(state, now),
        current_since_time: Time(state.current_since).timestamp(),
        ramping_since_time: Time(state.ramping_since).timestamp(),
        routing_update_time: Time(state.routing_changed_at).timestamp(),
        first_activation_time: Time(state.first_activated_at).timestamp(),
        last_current_time: Time(state.last_current_at).timestamp(),
        last_deactivation_time: Time(state.last_deactivated_at).timestamp(),
        ..Default::default()
    }
}

/// All versions, the newest first.
fn summaries(deployment: &Deployment, now: Time) -> Vec<WorkerDeploymentVersionSummary> {
    let mut versions: Vec<_> = deployment.versions.iter().collect();
    versions.sort_by_key(|(build_id, state)| (std::cmp::Reverse(state.created_at), (*build_id).clone()));
    versions.into_iter().map(|(build_id, state)| summary(&deployment.version(build_id), state, now)).collect()
}

pub async fn describe(call: Call, r: DescribeWorkerDeploymentRequest) -> Reply<DescribeWorkerDeploymentResponse> {
    let namespace = call.namespace(&r.namespace)?;
    call.host.refresh_drainage(namespace, &r.deployment_name).await?;
    let Some(deployment) = call.host.queues.deployments.read().get(namespace, &r.deployment_name).cloned() else {
        return Err(DeploymentError::from(Refusal::NoDeployment(r.deployment_name)).into());
    };
    Ok(DescribeWorkerDeploymentResponse {
        conflict_token: deployment.conflict_token(),
        worker_deployment_info: Some(WorkerDeploymentInfo {
            name: deployment.name.clone(),
            version_summaries: summaries(&deployment, call.host.clock.now()),
            create_time: Time(deployment.created_at).timestamp(),
            routing_config: Some(routing_config(&deployment)),
            last_modifier_identity: deployment.last_modifier.clone(),
            routing_config_update_state: RoutingConfigUpdateState::Completed as i32,
            ..Default::default()
        }),
    })
}

pub async fn list(call: Call, r: ListWorkerDeploymentsRequest) -> Reply<ListWorkerDeploymentsResponse> {
    let namespace = call.namespace(&r.namespace)?;
    let after = String::from_utf8(r.next_page_token).map_err(|_| Status::invalid_argument("Invalid NextPageToken."))?;
    let size = usize::try_from(r.page_size).ok().filter(|size| *size > 0).unwrap_or(PAGE);
    let names: Vec<_> = {
        let table = call.host.queues.deployments.read();
        let names = table.all(namespace).map(|deployment| deployment.name.clone());
        names.filter(|name| after.is_empty() || *name > after).take(size + 1).collect()
    };
    let next_page_token = names.get(size).map(|_| names[size - 1].clone().into_bytes()).unwrap_or_default();
    let now = call.host.clock.now();
    let mut worker_deployments = Vec::new();
    for name in names.into_iter().take(size) {
        call.host.refresh_drainage(namespace, &name).await?;
        let Some(deployment) = call.host.queues.deployments.read().get(namespace, &name).cloned() else { continue };
        let of = |build_id: Option<&String>| {
            let build_id = build_id?;
            deployment.versions.get(build_id).map(|state| summary(&deployment.version(build_id), state, now))
        };
        worker_deployments.push(WorkerDeploymentSummary {
            name,
            create_time: Time(deployment.created_at).timestamp(),
            routing_config: Some(routing_config(&deployment)),
            latest_version_summary: summaries(&deployment, now).into_iter().next(),
            current_version_summary: of(deployment.current.as_ref()),
            ramping_version_summary: of(deployment.ramp.as_ref().and_then(|ramp| ramp.to.as_ref())),
        });
    }
    Ok(ListWorkerDeploymentsResponse { next_page_token, worker_deployments })
}

#[expect(deprecated, reason = "older clients still use the fields")]
pub async fn describe_version(
    call: Call,
    r: DescribeWorkerDeploymentVersionRequest,
) -> Reply<DescribeWorkerDeploymentVersionResponse> {
    let namespace = call.namespace(&r.namespace)?;
    let version = version_of(r.deployment_version.as_ref(), &r.version)?;
    call.host.refresh_drainage(namespace, &version.deployment).await?;
    let deployment = call.host.queues.deployments.read().get(namespace, &version.deployment).cloned();
    let Some((deployment, state)) = deployment.and_then(|deployment| {
        let state = deployment.versions.get(&version.build_id).cloned();
        state.map(|state| (deployment, state))
    }) else {
        return Err(status::not_found("Worker Deployment Version not found"));
    };
    let kind = |is_activity| if is_activity { TaskQueueType::Activity } else { TaskQueueType::Workflow } as i32;
    let stats = |name: &str, is_activity| {
        let kind = if is_activity { Kind::Activity } else { Kind::Workflow };
        let of_this = |lane: Option<&Version>| lane == Some(&version);
        task_queue::stats(&call, call.host.queues.describe(namespace, name, kind, of_this).traffic)
    };
    let ramp = deployment.ramp.as_ref().filter(|ramp| ramp.to.as_ref() == Some(&version.build_id));
    Ok(DescribeWorkerDeploymentVersionResponse {
        worker_deployment_version_info: Some(WorkerDeploymentVersionInfo {
            version: version.dotted(),
            status: state.status,
            deployment_version: Some(version.wire()),
            deployment_name: version.deployment.clone(),
            create_time: Time(state.created_at).timestamp(),
            routing_changed_time: Time(state.routing_changed_at).timestamp(),
            current_since_time: Time(state.current_since).timestamp(),
            ramping_since_time: Time(state.ramping_since).timestamp(),
            first_activation_time: Time(state.first_activated_at).timestamp(),
            last_current_time: Time(state.last_current_at).timestamp(),
            last_deactivation_time: Time(state.last_deactivated_at).timestamp(),
            ramp_percentage: ramp.map_or(0.0, |ramp| ramp.percentage),
            task_queue_infos: state
                .queues
                .iter()
                .map(|queue| VersionTaskQueueInfo { name: queue.name.clone(), r#type: kind(queue.is_activity) })
                .collect(),
            drainage_info: drainage_info(&state, call.host.clock.now()),
            metadata: state.metadata.clone(),
            last_modifier_identity: state.last_modifier.clone(),
            ..Default::default()
        }),
        version_task_queues: state
            .queues
            .iter()
            .map(|queue| VersionTaskQueue {
                name: queue.name.clone(),
                r#type: kind(queue.is_activity),
                stats: r.report_task_queue_stats.then(|| stats(&queue.name, queue.is_activity)),
                ..Default::default()
            })
            .collect(),
    })
}

#[expect(deprecated, reason = "older clients still use the fields")]
pub async fn update_metadata(
    call: Call,
    r: UpdateWorkerDeploymentVersionMetadataRequest,
) -> Reply<UpdateWorkerDeploymentVersionMetadataResponse> {
    let namespace = call.namespace(&r.namespace)?;
    let version = version_of(r.deployment_version.as_ref(), &r.version)?;
    let change = |metadata: &mut VersionMetadata| {
        metadata.entries.extend(r.upsert_entries);
        r.remove_entries.iter().for_each(|key| drop(metadata.entries.remove(key)));
    };
    let metadata = call.host.set_version_metadata(namespace, &version, &r.identity, change).await?;
    Ok(UpdateWorkerDeploymentVersionMetadataResponse { metadata: Some(metadata) })
}

#[expect(deprecated, reason = "older clients still use the fields")]
pub async fn delete_version(
    call: Call,
    r: DeleteWorkerDeploymentVersionRequest,
) -> Reply<DeleteWorkerDeploymentVersionResponse> {
    let namespace = call.namespace(&r.namespace)?;
    let version = version_of(r.deployment_version.as_ref(), &r.version)?;
    call.host.delete_version(namespace, &version, r.skip_drainage).await?;
    Ok(DeleteWorkerDeploymentVersionResponse {})
}

pub async fn delete(call: Call, r: DeleteWorkerDeploymentRequest) -> Reply<DeleteWorkerDeploymentResponse> {
    let namespace = call.namespace(&r.namespace)?;
    call.host.delete_deployment(namespace, &r.deployment_name).await?;
    Ok(DeleteWorkerDeploymentResponse {})
}

/// The time of what never happened, as servers tell it.
const NEVER: Timestamp = Timestamp { seconds: -62_135_596_800, nanos: 0 };

/// Where a task queue goes, as its description shows.
#[expect(deprecated, reason = "older clients still read the fields")]
pub fn queue_info(routing: Routing) -> TaskQueueVersioningInfo {
    let current = routing.current.version;
    let (ramping, percentage) = match routing.ramp {
        Some((target, percentage)) => (Some(target.version), percentage),
        None => (None, 0.0),
    };
    let text = |version: &Option<Version>| version.as_ref().map_or_else(|| UNVERSIONED.to_owned(), Version::dotted);
    TaskQueueVersioningInfo {
        current_version: text(&current),
        current_deployment_version: current.as_ref().map(Version::wire),
        ramping_version: ramping.as_ref().map(text).unwrap_or_default(),
        ramping_deployment_version: ramping.flatten().as_ref().map(Version::wire),
        ramping_version_percentage: percentage,
        update_time: Some(routing.changed_at.timestamp().unwrap_or(NEVER)),
    }
}
