//! Workers with versions, and what operators do to their deployment.

use crate::fixture::WorkerShape;
use std::time::Duration;
use temporalio_client::Client;
use temporalio_client::tonic::{Code, IntoRequest};
use temporalio_common::protos::temporal::api::common::v1::WorkflowExecution;
use temporalio_common::protos::temporal::api::deployment::v1::{WorkerDeploymentInfo, WorkerDeploymentVersion};
use temporalio_common::protos::temporal::api::enums::v1::RoutingConfigUpdateState;
use temporalio_common::protos::temporal::api::workflow::v1::versioning_override::{
    Override, PinnedOverride, PinnedOverrideBehavior,
};
use temporalio_common::protos::temporal::api::workflow::v1::{VersioningOverride, WorkflowExecutionOptions};
use temporalio_common::protos::temporal::api::workflowservice::v1::*;
use temporalio_common::worker::VersioningBehavior;

/// The task queue of workers with versions.
pub const QUEUE: &str = "versioned";
pub const FLEET: &str = "fleet";
pub const PINNED: VersioningBehavior = VersioningBehavior::Pinned;
pub const UPGRADES: VersioningBehavior = VersioningBehavior::AutoUpgrade;

pub fn worker(build_id: &'static str, behavior: VersioningBehavior) -> WorkerShape {
    WorkerShape { version: Some((build_id, behavior)), ..WorkerShape::default() }
}

pub async fn fleet(client: &Client) -> WorkerDeploymentInfo {
    let request =
        DescribeWorkerDeploymentRequest { namespace: "default".to_owned(), deployment_name: FLEET.to_owned() };
    let described = client.connection().workflow_service().describe_worker_deployment(request.into_request()).await;
    described.expect("is there").into_inner().worker_deployment_info.expect("a deployment")
}

/// Makes a version current, as soon as its workers have shown themselves, and waits until task queues know.
pub async fn set_current(client: &Client, build_id: &str) {
    let request = SetWorkerDeploymentCurrentVersionRequest {
        namespace: "default".to_owned(),
        deployment_name: FLEET.to_owned(),
        build_id: build_id.to_owned(),
        identity: "operator".to_owned(),
        ..Default::default()
    };
    let mut service = client.connection().workflow_service();
    loop {
        match service.set_worker_deployment_current_version(request.clone().into_request()).await {
            Ok(_) => break,
            Err(status) if matches!(status.code(), Code::NotFound | Code::FailedPrecondition) => {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Err(status) => panic!("{status}"),
        }
    }
    is_known(client).await;
}

pub async fn set_ramp(client: &Client, build_id: &str, percentage: f32) {
    let request = SetWorkerDeploymentRampingVersionRequest {
        namespace: "default".to_owned(),
        deployment_name: FLEET.to_owned(),
        build_id: build_id.to_owned(),
        percentage,
        identity: "operator".to_owned(),
        ..Default::default()
    };
    let mut service = client.connection().workflow_service();
    service.set_worker_deployment_ramping_version(request.into_request()).await.expect("ramps");
    is_known(client).await;
}

async fn is_known(client: &Client) {
    while fleet(client).await.routing_config_update_state() == RoutingConfigUpdateState::InProgress {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Pins a workflow to a version, or takes the pin back.
pub async fn pin(client: &Client, workflow_id: &str, build_id: Option<&str>) -> UpdateWorkflowExecutionOptionsResponse {
    let pinned = |build_id: &str| PinnedOverride {
        behavior: PinnedOverrideBehavior::Pinned as i32,
        version: Some(WorkerDeploymentVersion { deployment_name: FLEET.to_owned(), build_id: build_id.to_owned() }),
    };
    let versioning_override = build_id.map(|build_id| VersioningOverride {
        r#override: Some(Override::Pinned(pinned(build_id))),
        ..Default::default()
    });
    let request = UpdateWorkflowExecutionOptionsRequest {
        namespace: "default".to_owned(),
        workflow_execution: Some(WorkflowExecution { workflow_id: workflow_id.to_owned(), run_id: String::new() }),
        workflow_execution_options: Some(WorkflowExecutionOptions { versioning_override, ..Default::default() }),
        update_mask: Some(prost_wkt_types::FieldMask { paths: vec!["versioning_override".to_owned()] }),
        identity: "operator".to_owned(),
    };
    let mut service = client.connection().workflow_service();
    service.update_workflow_execution_options(request.into_request()).await.expect("overrides").into_inner()
}
