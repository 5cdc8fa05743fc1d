//! Deployments of workers as operators see them, and workers as they describe themselves.

use crate::fixture::{WorkerShape, beside_worker, client, describe, happened, history, memory, open};
use crate::fleet::{FLEET, PINNED, QUEUE, UPGRADES, fleet, pin, set_current, set_ramp, worker};
use crate::workflows::*;
use std::time::Duration;
use steadyhand_engine::{Options, Store};
use temporalio_client::tonic::{Code, IntoRequest};
use temporalio_client::{
    Client, WorkflowGetResultOptions, WorkflowHandle, WorkflowSignalOptions, WorkflowStartOptions,
    WorkflowTerminateOptions,
};
use temporalio_common::protos::temporal::api::deployment::v1::WorkerDeploymentVersion;
use temporalio_common::protos::temporal::api::enums::v1::{
    TaskQueueType, VersionDrainageStatus, VersioningBehavior, WorkerDeploymentVersionStatus as Status, WorkerStatus,
};
use temporalio_common::protos::temporal::api::history::v1::history_event::Attributes;
use temporalio_common::protos::temporal::api::taskqueue::v1::TaskQueue;
use temporalio_common::protos::temporal::api::worker::v1::WorkerHeartbeat;
use temporalio_common::protos::temporal::api::workflowservice::v1::*;

fn options(id: &str) -> WorkflowStartOptions {
    WorkflowStartOptions::new(QUEUE, id).task_timeout(Duration::from_secs(5)).build()
}

async fn mailbox(client: &Client, id: &str) -> WorkflowHandle<Client, Mailbox> {
    client.start_workflow(Mailbox::run, (), options(id)).await.expect("starts");
    let handle = client.get_workflow_handle::<Mailbox>(id.to_owned());
    happened(&handle, "WorkflowTaskCompleted").await;
    handle
}

async fn stop(handle: &WorkflowHandle<Client, Mailbox>) {
    handle.signal(Mailbox::post, "stop".to_owned(), WorkflowSignalOptions::default()).await.expect("signals");
    handle.get_result(WorkflowGetResultOptions::default()).await.expect("completes");
}

/// The build ids of the workers that completed workflow tasks, in their order.
async fn went(handle: &WorkflowHandle<Client, Mailbox>) -> Vec<String> {
    let version = |attributes| match attributes {
        Some(Attributes::WorkflowTaskCompletedEventAttributes(a)) => {
            Some(a.deployment_version.map(|version| version.build_id).unwrap_or_default())
        }
        _ => None,
    };
    history(handle).await.into_iter().filter_map(|event| version(event.attributes)).collect()
}

async fn status(client: &Client, build_id: &str) -> Status {
    let summaries = fleet(client).await.version_summaries;
    let of = |summary: &&_| -> bool {
        let summary: &temporalio_common::protos::temporal::api::deployment::v1::worker_deployment_info::WorkerDeploymentVersionSummary = summary;
        summary.deployment_version.as_ref().is_some_and(|version| version.build_id == build_id)
    };
    summaries.iter().find(of).expect("a version").status()
}

#[tokio::test]
async fn versions_drain_when_their_last_pinned_run_ends_also_after_a_restart() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let store = || Options::new(Store::Fjall(folder.path().to_owned()));
    let engine = open(store());
    {
        let client = client(&engine).await;
        let (first, second) = (worker("1", PINNED), worker("2", PINNED));
        beside_worker(
            &client,
            first,
            beside_worker(&client, second, async {
                set_current(&client, "1").await;
                let old = mailbox(&client, "old").await;
                assert_eq!(
                    (status(&client, "1").await, status(&client, "2").await),
                    (Status::Current, Status::Inactive)
                );
                set_current(&client, "2").await;
                assert_eq!(
                    (status(&client, "1").await, status(&client, "2").await),
                    (Status::Draining, Status::Current)
                );
                let new = mailbox(&client, "new").await;
                old.signal(Mailbox::post, "x".to_owned(), WorkflowSignalOptions::default()).await.expect("signals");
                happened(&old, "WorkflowTaskCompleted x2").await;
                assert_eq!((went(&old).await, went(&new).await), (vec!["1".into(), "1".into()], vec!["2".to_owned()]));
                stop(&new).await;
            }),
        )
        .await;
    }
    engine.shutdown().await;
    let engine = open(store());
    let client = client(&engine).await;
    assert_eq!(status(&client, "1").await, Status::Draining, "it is not forgotten");
    let mut service = client.connection().workflow_service();
    let delete = DeleteWorkerDeploymentVersionRequest {
        namespace: "default".to_owned(),
        deployment_version: Some(WorkerDeploymentVersion { deployment_name: FLEET.into(), build_id: "1".into() }),
        ..Default::default()
    };
    let refused = service.delete_worker_deployment_version(delete.clone().into_request()).await;
    assert_eq!(refused.expect_err("drains").code(), Code::FailedPrecondition);
    let old = client.get_workflow_handle::<Mailbox>("old");
    beside_worker(&client, worker("1", PINNED), stop(&old)).await;
    assert_eq!(status(&client, "1").await, Status::Drained);
    let request = DescribeWorkerDeploymentVersionRequest {
        namespace: "default".to_owned(),
        deployment_version: delete.deployment_version.clone(),
        report_task_queue_stats: true,
        ..Default::default()
    };
    let described = service.describe_worker_deployment_version(request.into_request()).await.expect("is there");
    let described = described.into_inner();
    let info = described.worker_deployment_version_info.expect("a version");
    assert_eq!(info.drainage_info.expect("drains").status(), VersionDrainageStatus::Drained);
    let mut queues: Vec<_> =
        described.version_task_queues.iter().map(|queue| (queue.name.as_str(), queue.r#type())).collect();
    queues.sort();
    assert_eq!(queues, [(QUEUE, TaskQueueType::Workflow), (QUEUE, TaskQueueType::Activity)]);
    let report = engine.verify().expect("reads");
    assert!(report.is_sound(), "{:#?}", report.problems);
    engine.shutdown().await;
}

#[tokio::test]
async fn a_ramp_sends_its_share_of_new_workflows_and_moves_those_that_may_move() {
    let engine = memory();
    let client = client(&engine).await;
    let (first, second) = (worker("1", UPGRADES), worker("2", UPGRADES));
    beside_worker(
        &client,
        first,
        beside_worker(&client, second, async {
            set_current(&client, "1").await;
            set_ramp(&client, "2", 50.0).await;
            let mut ramped = 0;
            for n in 0..20 {
                let id = format!("ramped-{n}");
                let handle = mailbox(&client, &id).await;
                // The formula of the server, which takes go-farm's Fingerprint32 of the workflow id.
                let place = 100.0 * f64::from(farmhash::fingerprint32(id.as_bytes())) / 4_294_967_296.0;
                let expected = if place <= 50.0 { "2" } else { "1" };
                assert_eq!(went(&handle).await, [expected], "{id} stands at {place}");
                ramped += usize::from(expected == "2");
            }
            assert!((1..20).contains(&ramped), "both versions had some");
            set_ramp(&client, "2", 100.0).await;
            for n in 0..20 {
                let handle = client.get_workflow_handle::<Mailbox>(format!("ramped-{n}"));
                stop(&handle).await;
                assert_eq!(went(&handle).await.last().map(String::as_str), Some("2"));
            }
        }),
    )
    .await;
    engine.shutdown().await;
}

#[tokio::test]
async fn what_waits_for_a_worker_goes_where_the_routing_goes() {
    let engine = memory();
    let client = client(&engine).await;
    // The version is known, and nobody is there any more.
    beside_worker(&client, worker("1", PINNED), set_current(&client, "1")).await;
    client.start_workflow(Mailbox::run, (), options("waits")).await.expect("starts");
    let waiting = client.get_workflow_handle::<Mailbox>("waits");
    beside_worker(&client, worker("2", PINNED), async {
        set_current(&client, "2").await;
        happened(&waiting, "WorkflowTaskCompleted").await;
        assert_eq!(went(&waiting).await, ["2"]);
        let described = describe(&client, "waits").await.workflow_execution_info.expect("a run");
        let info = described.versioning_info.expect("a version");
        assert_eq!(
            (info.behavior(), info.deployment_version.expect("a version").build_id),
            (VersioningBehavior::Pinned, "2".to_owned())
        );
        assert_eq!(described.worker_deployment_name, FLEET);
        let queue = DescribeTaskQueueRequest {
            namespace: "default".to_owned(),
            task_queue: Some(TaskQueue { name: QUEUE.to_owned(), ..Default::default() }),
            ..Default::default()
        };
        let mut service = client.connection().workflow_service();
        let queue = service.describe_task_queue(queue.into_request()).await.expect("is there").into_inner();
        let current = queue.versioning_info.expect("is routed").current_deployment_version;
        assert_eq!(current.expect("a version").build_id, "2");
        assert!(
            queue
                .pollers
                .iter()
                .any(|poller| { poller.deployment_options.as_ref().is_some_and(|options| options.build_id == "2") })
        );
        for (query, found) in [
            ("TemporalWorkerDeploymentVersion = 'fleet:2' AND TemporalWorkflowVersioningBehavior = 'Pinned'", 1),
            ("TemporalWorkerDeployment = 'fleet'", 1),
            ("TemporalWorkerDeploymentVersion = 'fleet:1'", 0),
        ] {
            let request = CountWorkflowExecutionsRequest { namespace: "default".to_owned(), query: query.to_owned() };
            let counted = service.count_workflow_executions(request.into_request()).await.expect("counts");
            assert_eq!(counted.into_inner().count, found, "{query}");
        }
    })
    .await;
    engine.shutdown().await;
}

#[tokio::test]
async fn deployments_are_listed_and_requests_that_make_no_sense_are_refused() {
    let engine = memory();
    let client = client(&engine).await;
    let mut service = client.connection().workflow_service();
    let unknown = SetWorkerDeploymentCurrentVersionRequest {
        namespace: "default".to_owned(),
        deployment_name: FLEET.to_owned(),
        build_id: "1".to_owned(),
        ..Default::default()
    };
    let refused = service.set_worker_deployment_current_version(unknown.clone().into_request()).await;
    assert_eq!(refused.expect_err("is not there").code(), Code::NotFound);
    beside_worker(&client, worker("1", PINNED), async {
        set_current(&client, "1").await;
        let mut service = client.connection().workflow_service();
        let ramp = SetWorkerDeploymentRampingVersionRequest {
            namespace: "default".to_owned(),
            deployment_name: FLEET.to_owned(),
            build_id: "1".to_owned(),
            percentage: 10.0,
            ..Default::default()
        };
        let refused = service.set_worker_deployment_ramping_version(ramp.clone().into_request()).await;
        assert_eq!(refused.expect_err("is current").code(), Code::FailedPrecondition);
        let refused = SetWorkerDeploymentRampingVersionRequest { percentage: 101.0, ..ramp };
        let refused = service.set_worker_deployment_ramping_version(refused.into_request()).await;
        assert_eq!(refused.expect_err("is too much").code(), Code::InvalidArgument);
        let stale = SetWorkerDeploymentCurrentVersionRequest { conflict_token: vec![1], ..unknown };
        let refused = service.set_worker_deployment_current_version(stale.into_request()).await;
        assert_eq!(refused.expect_err("saw another").code(), Code::FailedPrecondition);
        let list = ListWorkerDeploymentsRequest { namespace: "default".to_owned(), ..Default::default() };
        let listed = service.list_worker_deployments(list.into_request()).await.expect("lists").into_inner();
        let names: Vec<_> = listed.worker_deployments.iter().map(|deployment| deployment.name.as_str()).collect();
        assert_eq!(names, [FLEET]);
        let current = listed.worker_deployments[0].current_version_summary.as_ref().expect("a version");
        assert_eq!(current.deployment_version.as_ref().expect("a version").build_id, "1");
        let handle = mailbox(&client, "pinned").await;
        let pinned = pin(&client, "pinned", Some("1")).await;
        assert!(pinned.workflow_execution_options.expect("options").versioning_override.is_some());
        handle.terminate(WorkflowTerminateOptions::default()).await.expect("terminates");
    })
    .await;
    engine.shutdown().await;
}

#[tokio::test]
async fn workers_are_listed_while_they_say_that_they_live() {
    let engine = memory();
    let client = client(&engine).await;
    let mut service = client.connection().workflow_service();
    let heartbeat = |key: &str, status: WorkerStatus| RecordWorkerHeartbeatRequest {
        namespace: "default".to_owned(),
        worker_heartbeat: vec![WorkerHeartbeat {
            worker_instance_key: key.to_owned(),
            task_queue: format!("queue-{key}"),
            status: status as i32,
            ..Default::default()
        }],
        ..Default::default()
    };
    for key in ["a", "b", "c"] {
        service.record_worker_heartbeat(heartbeat(key, WorkerStatus::Running).into_request()).await.expect("is heard");
    }
    let list = |query: &str, page_size, next_page_token| ListWorkersRequest {
        namespace: "default".to_owned(),
        query: query.to_owned(),
        page_size,
        next_page_token,
        ..Default::default()
    };
    let (mut keys, mut token) = (Vec::new(), Vec::new());
    loop {
        let page = service.list_workers(list("", 2, token).into_request()).await.expect("lists").into_inner();
        assert!(page.workers.len() <= 2);
        keys.extend(page.workers.into_iter().map(|worker| worker.worker_instance_key));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(keys, ["a", "b", "c"]);
    let found = service.list_workers(list("TaskQueue = 'queue-b'", 0, vec![]).into_request()).await.expect("lists");
    assert_eq!(found.into_inner().workers.len(), 1);
    let wrong = service.list_workers(list("Nonsense = 1", 0, vec![]).into_request()).await.expect_err("is nonsense");
    assert_eq!(wrong.code(), Code::InvalidArgument);
    let describe =
        |key: &str| DescribeWorkerRequest { namespace: "default".to_owned(), worker_instance_key: key.to_owned() };
    service.describe_worker(describe("c").into_request()).await.expect("is there");
    let shutdown = ShutdownWorkerRequest {
        namespace: "default".to_owned(),
        worker_heartbeat: heartbeat("c", WorkerStatus::Shutdown).worker_heartbeat.pop(),
        ..Default::default()
    };
    service.shutdown_worker(shutdown.into_request()).await.expect("stops");
    let gone = service.describe_worker(describe("c").into_request()).await.expect_err("said goodbye");
    assert_eq!(gone.code(), Code::NotFound);
    let count = CountWorkersRequest { namespace: "default".to_owned(), ..Default::default() };
    assert_eq!(service.count_workers(count.into_request()).await.expect("counts").into_inner().count, 2);
    engine.shutdown().await;
}

/// An SDK's own worker says that it lives because the namespace says that it may.
#[tokio::test]
async fn a_worker_of_the_sdk_is_listed() {
    let engine = memory();
    let client = client(&engine).await;
    beside_worker(&client, WorkerShape { heartbeats: true, ..WorkerShape::default() }, async {
        let mut service = client.connection().workflow_service();
        loop {
            let list = ListWorkersRequest { namespace: "default".to_owned(), ..Default::default() };
            let listed = service.list_workers(list.into_request()).await.expect("lists").into_inner();
            if let [worker] = listed.workers.as_slice() {
                assert_eq!((worker.task_queue.as_str(), worker.status()), ("q", WorkerStatus::Running));
                assert!(!worker.sdk_name.is_empty());
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    engine.shutdown().await;
}
