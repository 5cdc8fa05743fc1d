//! Simulated clients: they start, signal, ask, cancel and end workflows, and in the end tell every one to finish.

use super::executor::Kind;
use super::worker::{FINISH, FLEET, WORKFLOWS, payloads};
use super::world::{Failed, NAMESPACE, SECOND, World};
use crate::pb::common::v1::{RetryPolicy, WorkflowExecution, WorkflowType};
use crate::pb::deployment::v1::WorkerDeploymentVersion;
use crate::pb::enums::v1::{WorkflowIdConflictPolicy, WorkflowIdReusePolicy};
use crate::pb::query::v1::WorkflowQuery;
use crate::pb::taskqueue::v1::TaskQueue;
use crate::pb::workflow::v1::versioning_override::{Override, PinnedOverride, PinnedOverrideBehavior};
use crate::pb::workflow::v1::{VersioningOverride, WorkflowExecutionOptions};
use crate::pb::workflowservice::v1::*;
use crate::time::duration;
use std::rc::Rc;

/// Acts `acts` times on workflows that all clients share.
pub fn client(world: &Rc<World>, acts: u64) {
    let world = world.clone();
    world.acting.set(world.acting.get() + 1);
    world.clone().executor.spawn(Kind::Outside, async move {
        for _ in 0..acts {
            act(&world).await;
            world.sleep(world.dice.below(3_000) as i64 * SECOND / 1_000).await;
        }
        world.acting.set(world.acting.get() - 1);
    });
}

/// Ids of the workflows that clients start, and of those that workflows start; each does to both what it likes.
pub const WORKFLOW_IDS: [&str; 9] = ["w0", "w1", "w2", "w3", "w4", "c0", "c1", "c2", "c3"];

async fn act(world: &Rc<World>) {
    let dice = &world.dice;
    let workflow_id = dice.pick(&WORKFLOW_IDS).map(|id| (*id).to_owned()).unwrap_or_default();
    match dice.below(24) {
        0..=3 => start(world, &workflow_id).await,
        4..=11 => {
            let _may_be_closed = signal(world, &workflow_id, "news").await;
        }
        12 | 13 => signal_with_start(world, &workflow_id).await,
        14 | 15 => look(world, &workflow_id).await,
        16 => ask(world, &workflow_id).await,
        17 => {
            let cancel = RequestCancelWorkflowExecutionRequest {
                namespace: NAMESPACE.to_owned(),
                workflow_execution: execution(&workflow_id),
                ..Default::default()
            };
            let _may_be_closed =
                world.call::<_, RequestCancelWorkflowExecutionResponse>("RequestCancelWorkflowExecution", cancel).await;
        }
        18 if dice.permille(300) => {
            let terminate = TerminateWorkflowExecutionRequest {
                namespace: NAMESPACE.to_owned(),
                workflow_execution: execution(&workflow_id),
                ..Default::default()
            };
            let _may_be_closed =
                world.call::<_, TerminateWorkflowExecutionResponse>("TerminateWorkflowExecution", terminate).await;
        }
        20 => set_current(world).await,
        21 => set_ramp(world).await,
        22 | 23 => override_version(world, &workflow_id).await,
        _ => {
            let list = ListWorkflowExecutionsRequest { namespace: NAMESPACE.to_owned(), ..Default::default() };
            let _page = world.call::<_, ListWorkflowExecutionsResponse>("ListWorkflowExecutions", list).await;
        }
    }
}

/// A build id of the fleet, or none.
fn build_id(world: &World) -> String {
    world.dice.pick(&["", "1", "2"]).map(|id| (*id).to_owned()).unwrap_or_default()
}

async fn set_current(world: &Rc<World>) {
    let request = SetWorkerDeploymentCurrentVersionRequest {
        namespace: NAMESPACE.to_owned(),
        deployment_name: FLEET.to_owned(),
        build_id: build_id(world),
        ignore_missing_task_queues: world.dice.permille(700),
        ..Default::default()
    };
    let _may_be_refused =
        world.call::<_, SetWorkerDeploymentCurrentVersionResponse>("SetWorkerDeploymentCurrentVersion", request).await;
}

async fn set_ramp(world: &Rc<World>) {
    let request = SetWorkerDeploymentRampingVersionRequest {
        namespace: NAMESPACE.to_owned(),
        deployment_name: FLEET.to_owned(),
        build_id: build_id(world),
        percentage: world.dice.below(101) as f32,
        ignore_missing_task_queues: true,
        ..Default::default()
    };
    let _may_be_refused =
        world.call::<_, SetWorkerDeploymentRampingVersionResponse>("SetWorkerDeploymentRampingVersion", request).await;
}

/// Pins a workflow to a version, lets it go where its queue goes, or takes either back.
async fn override_version(world: &Rc<World>, workflow_id: &str) {
    let versioning_override = match world.dice.below(4) {
        0 => None,
        1 => Some(Override::AutoUpgrade(true)),
        n => {
            let build_id = (n - 1).to_string();
            let version = WorkerDeploymentVersion { deployment_name: FLEET.to_owned(), build_id };
            let behavior = PinnedOverrideBehavior::Pinned as i32;
            Some(Override::Pinned(PinnedOverride { behavior, version: Some(version) }))
        }
    };
    let request = UpdateWorkflowExecutionOptionsRequest {
        namespace: NAMESPACE.to_owned(),
        workflow_execution: execution(workflow_id),
        workflow_execution_options: Some(WorkflowExecutionOptions {
            versioning_override: versioning_override
                .map(|given| VersioningOverride { r#override: Some(given), ..Default::default() }),
            ..Default::default()
        }),
        update_mask: Some(prost_wkt_types::FieldMask { paths: vec!["versioning_override".to_owned()] }),
        ..Default::default()
    };
    let _may_be_refused =
        world.call::<_, UpdateWorkflowExecutionOptionsResponse>("UpdateWorkflowExecutionOptions", request).await;
}

fn execution(workflow_id: &str) -> Option<WorkflowExecution> {
    Some(WorkflowExecution { workflow_id: workflow_id.to_owned(), run_id: String::new() })
}

async fn start(world: &Rc<World>, workflow_id: &str) {
    let dice = &world.dice;
    let maybe = |n, seconds: i64| dice.permille(n).then(|| duration(seconds * SECOND)).flatten();
    let conflict = [
        WorkflowIdConflictPolicy::Unspecified,
        WorkflowIdConflictPolicy::Fail,
        WorkflowIdConflictPolicy::UseExisting,
        WorkflowIdConflictPolicy::TerminateExisting,
    ];
    let request = StartWorkflowExecutionRequest {
        namespace: NAMESPACE.to_owned(),
        workflow_id: workflow_id.to_owned(),
        workflow_type: Some(WorkflowType { name: "W".into() }),
        task_queue: Some(TaskQueue { name: WORKFLOWS.into(), ..Default::default() }),
        request_id: world.name("start"),
        workflow_id_reuse_policy: WorkflowIdReusePolicy::AllowDuplicate as i32,
        workflow_id_conflict_policy: dice.pick(&conflict).map_or(0, |policy| *policy as i32),
        workflow_execution_timeout: maybe(100, 400),
        workflow_run_timeout: maybe(200, 200),
        workflow_start_delay: maybe(100, 20),
        retry_policy: dice.permille(200).then(|| RetryPolicy { maximum_attempts: 3, ..Default::default() }),
        ..Default::default()
    };
    // A start that got lost is asked for again under the same request id, as SDKs do.
    for _ in 0..3 {
        let answer: Result<StartWorkflowExecutionResponse, _> =
            world.call("StartWorkflowExecution", request.clone()).await;
        match answer {
            Ok(answer) => return world.promises.borrow_mut().started(workflow_id, &answer.run_id),
            Err(Failed::Refused(_)) => return,
            Err(Failed::Lost) => {}
        }
    }
}

/// Sends one signal once; whether it was acknowledged.
pub async fn signal(world: &Rc<World>, workflow_id: &str, name: &str) -> Result<(), Failed> {
    let token = world.name("signal");
    let request = SignalWorkflowExecutionRequest {
        namespace: NAMESPACE.to_owned(),
        workflow_execution: execution(workflow_id),
        signal_name: name.to_owned(),
        input: Some(payloads(&token)),
        request_id: token.clone(),
        ..Default::default()
    };
    let _answer: SignalWorkflowExecutionResponse = world.call("SignalWorkflowExecution", request).await?;
    world.promises.borrow_mut().acknowledged(&token);
    Ok(())
}

async fn signal_with_start(world: &Rc<World>, workflow_id: &str) {
    let token = world.name("signal");
    let request = SignalWithStartWorkflowExecutionRequest {
        namespace: NAMESPACE.to_owned(),
        workflow_id: workflow_id.to_owned(),
        workflow_type: Some(WorkflowType { name: "W".into() }),
        task_queue: Some(TaskQueue { name: WORKFLOWS.into(), ..Default::default() }),
        request_id: token.clone(),
        signal_name: "news".into(),
        signal_input: Some(payloads(&token)),
        ..Default::default()
    };
    let answer: Result<SignalWithStartWorkflowExecutionResponse, _> =
        world.call("SignalWithStartWorkflowExecution", request).await;
    if let Ok(answer) = answer {
        let mut promises = world.promises.borrow_mut();
        promises.acknowledged(&token);
        promises.started(workflow_id, &answer.run_id);
    }
}

/// Reads a history, some of it by waiting for news.
async fn look(world: &Rc<World>, workflow_id: &str) {
    let reverse = GetWorkflowExecutionHistoryReverseRequest {
        namespace: NAMESPACE.to_owned(),
        execution: execution(workflow_id),
        maximum_page_size: 5,
        ..Default::default()
    };
    let page: Result<GetWorkflowExecutionHistoryReverseResponse, _> =
        world.call("GetWorkflowExecutionHistoryReverse", reverse).await;
    if page.is_err() {
        return;
    }
    let Some(run_id) = run_of(world, workflow_id).await else { return };
    let mut next_page_token = Vec::new();
    for _ in 0..world.dice.between(1, 4) {
        let request = GetWorkflowExecutionHistoryRequest {
            namespace: NAMESPACE.to_owned(),
            execution: Some(WorkflowExecution { workflow_id: workflow_id.to_owned(), run_id: run_id.clone() }),
            next_page_token,
            wait_new_event: true,
            ..Default::default()
        };
        let page: Result<GetWorkflowExecutionHistoryResponse, _> =
            world.call("GetWorkflowExecutionHistory", request).await;
        let Ok(page) = page else { return };
        world.promises.borrow_mut().read(&run_id, &page.history.unwrap_or_default().events);
        next_page_token = page.next_page_token;
        if next_page_token.is_empty() {
            return;
        }
    }
}

async fn run_of(world: &Rc<World>, workflow_id: &str) -> Option<String> {
    let describe =
        DescribeWorkflowExecutionRequest { namespace: NAMESPACE.to_owned(), execution: execution(workflow_id) };
    let described: DescribeWorkflowExecutionResponse = world.call("DescribeWorkflowExecution", describe).await.ok()?;
    Some(described.workflow_execution_info?.execution?.run_id)
}

async fn ask(world: &Rc<World>, workflow_id: &str) {
    let query = QueryWorkflowRequest {
        namespace: NAMESPACE.to_owned(),
        execution: execution(workflow_id),
        query: Some(WorkflowQuery { query_type: "q".into(), ..Default::default() }),
        ..Default::default()
    };
    let _may_be_refused = world.call::<_, QueryWorkflowResponse>("QueryWorkflow", query).await;
}

/// When no client acts any more, tells every workflow to finish until none is left; and again, as an engine that dies may
/// have one open whose end it had not written.
pub fn finisher(world: &Rc<World>) {
    let world = world.clone();
    world.clone().executor.spawn(Kind::Outside, async move {
        while world.acting.get() > 0 {
            world.sleep(SECOND).await;
        }
        // All in turn, again and again: a parent ends after its children.
        loop {
            let mut any = false;
            for workflow_id in WORKFLOW_IDS {
                let told = signal(&world, workflow_id, FINISH).await;
                any |= !matches!(told, Err(failed) if failed.is_not_found());
            }
            world.promises.borrow_mut().finished = !any;
            world.sleep(60 * SECOND).await;
        }
    });
}
