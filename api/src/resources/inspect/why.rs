//! Which part a session waits for, with the evidence and the next safe thing to do. Types, counts and times only.

use domain::session::queue;
use domain::{Status, Time};
use schemars::JsonSchema;
use serde::Serialize;
use temporalio_common::protos::temporal::api::enums::v1::{PendingActivityState, TaskQueueType};
use temporalio_common::protos::temporal::api::workflow::v1::PendingActivityInfo;
use temporalio_common::protos::temporal::api::workflowservice::v1::DescribeWorkflowExecutionResponse;

use crate::app::App;
use crate::error::Result;
use crate::resources::events::calls::Calls;
use crate::resources::sessions::current::Current;

#[derive(Clone, PartialEq, Debug, Serialize, JsonSchema)]
pub struct Why {
    pub waiting_for: Part,
    pub evidence: Vec<String>,
    /// What to do, or that there is nothing to do.
    pub next: &'static str,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "WaitedForPart")]
pub enum Part {
    Model,
    Hand,
    BrainWorker,
    You,
    Nothing,
}

pub async fn explain(
    app: &App,
    id: &str,
    current: &Current,
    calls: &Calls,
    described: Option<DescribeWorkflowExecutionResponse>,
) -> Result<Why> {
    let mut evidence = vec![format!("the session is {}", current.status.public())];
    let Some(described) = described else {
        return Ok(Why { waiting_for: Part::Nothing, evidence, next: "it has ended: make another session" });
    };
    // What holds the turn comes first; sealing and releasing go on beside it.
    let mut pending: Vec<&PendingActivityInfo> = described.pending_activities.iter().collect();
    pending.sort_by_key(|activity| !holds_turn(activity));
    evidence.extend(pending.iter().map(|activity| of_activity(activity)));
    if let Some(activity) = pending.first().filter(|activity| holds_turn(activity)) {
        return on_activity(app, id, activity, evidence).await;
    }
    if let Some(task) = &described.pending_workflow_task {
        let since = task.scheduled_time.as_ref().map(|at| time(at.seconds, at.nanos));
        evidence.push(format!("a decision is due since {}, attempt {}", or_unknown(since), task.attempt));
        return on_brain(app, id, TaskQueueType::Workflow, evidence).await;
    }
    if current.status == Status::RequiresAction || calls.wait(current.summary.attributes.self_hosted) {
        let ids = calls.waiting(current.summary.attributes.self_hosted);
        evidence.push(format!("{} tool calls wait for an answer: {}", ids.len(), ids.join(", ")));
        return Ok(Why { waiting_for: Part::You, evidence, next: "answer them, or interrupt the session" });
    }
    match current.status {
        Status::Rescheduling => {
            let next = "nothing: the model is asked again by itself, or interrupt the session";
            Ok(Why { waiting_for: Part::Model, evidence, next })
        }
        Status::Running => on_brain(app, id, TaskQueueType::Workflow, evidence).await,
        _ => Ok(Why { waiting_for: Part::Nothing, evidence, next: "send it a message" }),
    }
}

fn kind(activity: &PendingActivityInfo) -> &str {
    activity.activity_type.as_ref().map_or("", |kind| &kind.name)
}

fn holds_turn(activity: &PendingActivityInfo) -> bool {
    matches!(
        kind(activity),
        "call_model" | "execute" | "provision" | "list_tools" | "call_mcp" | "read_log" | "fetch_page"
    )
}

async fn on_activity(app: &App, id: &str, activity: &PendingActivityInfo, mut evidence: Vec<String>) -> Result<Why> {
    let is_started = activity.state() == PendingActivityState::Started;
    if kind(activity) == "call_model" {
        if !is_started {
            return on_brain(app, id, TaskQueueType::Activity, evidence).await;
        }
        let next = "nothing: the answer is being written, or interrupt the session";
        return Ok(Why { waiting_for: Part::Model, evidence, next });
    }
    if kind(activity) == "read_log" {
        return on_brain(app, id, TaskQueueType::Activity, evidence).await;
    }
    let next = match is_started {
        true => "nothing: the tool is at work, or interrupt the session",
        false => {
            let workers = app.gateway.pollers(id, queue::HANDS, TaskQueueType::Activity).await?;
            evidence.push(format!("{workers} workers poll queue {}", queue::HANDS));
            match workers {
                0 => "start a hand worker",
                _ => "nothing: a hand worker takes it up, or interrupt the session",
            }
        }
    };
    Ok(Why { waiting_for: Part::Hand, evidence, next })
}

async fn on_brain(app: &App, id: &str, kind: TaskQueueType, mut evidence: Vec<String>) -> Result<Why> {
    let workers = app.gateway.pollers(id, queue::BRAIN, kind).await?;
    evidence.push(format!("{workers} workers poll queue {}", queue::BRAIN));
    let next = match workers {
        0 => "start a brain worker",
        _ => "nothing yet: a brain worker is there; if this stays, look at its log",
    };
    Ok(Why { waiting_for: Part::BrainWorker, evidence, next })
}

fn of_activity(activity: &PendingActivityInfo) -> String {
    let state = match activity.state() {
        PendingActivityState::Started => "runs",
        PendingActivityState::CancelRequested => "is told to stop",
        _ => "waits for a worker",
    };
    let mut text = format!("{} {} {state}, attempt {}", kind(activity), activity.activity_id, activity.attempt);
    if let Some(at) = &activity.last_heartbeat_time {
        text.push_str(&format!(", last heartbeat {}", time(at.seconds, at.nanos)));
    }
    if !activity.last_worker_identity.is_empty() {
        text.push_str(&format!(", worker {}", activity.last_worker_identity));
    }
    if let Some(failure) = &activity.last_failure {
        text.push_str(&format!(", last failure: {}", failure.message));
    }
    text
}

fn time(seconds: i64, nanos: i32) -> Time {
    Time::from_ms(seconds.saturating_mul(1000) + i64::from(nanos) / 1_000_000)
}

fn or_unknown(time: Option<Time>) -> String {
    time.map_or_else(|| "an unknown time".to_owned(), |time| time.to_string())
}
