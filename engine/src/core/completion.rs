//! A worker completes its workflow task: the commands are performed in order, and the next task is made if there is news.
//! All of it happens or none: a bad command fails the task instead.

use super::command::{self, CommandError, Outcome};
use super::state::{Activity, Sticky, WorkflowTask};
use super::update::Messages;
use super::versioning::{self, Worker};
use super::workflow_task::{self, Started, TaskRef};
use super::{Effects, Input, Refusal, Tx, activity, close, server_failure, terminate};
use crate::pb::command::v1::Command;
use crate::pb::command::v1::command::Attributes as CommandAttributes;
use crate::pb::common::v1::MeteringMetadata;
use crate::pb::enums::v1::WorkflowTaskFailedCause;
use crate::pb::history::v1::WorkflowTaskCompletedEventAttributes;
use crate::pb::history::v1::history_event::Attributes;
use crate::pb::protocol::v1::Message;
use crate::pb::sdk::v1::WorkflowTaskCompletedMetadata;
use crate::time::Time;

pub struct Complete {
    pub token: TaskRef,
    pub commands: Vec<Command>,
    /// What the workflow says to updates.
    pub messages: Vec<Message>,
    pub identity: String,
    pub sticky: Option<Sticky>,
    /// The worker takes the next task in the answer, if there is one.
    pub return_new_task: bool,
    /// The worker is still busy (with local activities) and wants another task now.
    pub force_new_task: bool,
    pub sdk_metadata: Option<WorkflowTaskCompletedMetadata>,
    pub metering_metadata: Option<MeteringMetadata>,
    pub worker: Worker,
}

/// What became of the completion.
#[derive(Clone, Debug, PartialEq)]
pub enum Completed {
    Accepted {
        next: Option<Started>,
        /// Started for the worker that completed the task.
        eager: Vec<Activity>,
    },
    /// A command was unacceptable and the task has failed, or the run has ended with it.
    Failed { message: String },
    /// The chain of heartbeating tasks lasted too long and the task has timed out.
    HeartbeatTimedOut,
}

impl Completed {
    /// What the worker is given with the answer.
    pub fn handed_out(&self) -> (Option<&Started>, &[Activity]) {
        match self {
            Completed::Accepted { next, eager } => (next.as_ref(), eager),
            Completed::Failed { .. } | Completed::HeartbeatTimedOut => (None, &[]),
        }
    }
}

impl Input for Complete {
    type Reply = Completed;

    fn apply(self, tx: &mut Tx<'_>) -> Result<Completed, Refusal> {
        let task = self.token.check(tx)?;
        let heartbeat_over = tx.now() > Time(task.original_scheduled_at).plus(tx.at.limits.task_heartbeat_ns);
        if self.force_new_task && heartbeat_over {
            workflow_task::time_out(tx);
            workflow_task::again(tx);
            return Ok(Completed::HeartbeatTimedOut);
        }
        let before = tx.state.clone();
        let identity = self.identity.clone();
        match complete(tx, self, &task) {
            // It is terminated when this transition is complete.
            Ok(completed) => match close::outgrown(tx) {
                Some(reason) => Ok(Completed::Failed { message: reason.to_owned() }),
                None => Ok(completed),
            },
            Err(error) => {
                *tx.state = before;
                tx.effects = Effects::default();
                if error.is_fatal {
                    let by = terminate::BY_THE_ENGINE.to_owned();
                    terminate::terminate(tx, error.message.clone(), None, by);
                    return Ok(Completed::Failed { message: error.message });
                }
                // A repeated attempt that fails again is dropped: its timeout, which grows, paces the next one.
                if task.attempt > 1 && error.cause != WorkflowTaskFailedCause::UnhandledCommand {
                    return Err(Refusal::Invalid(error.message));
                }
                workflow_task::fail(tx, error.cause, Some(server_failure(&error.message)), identity);
                workflow_task::again(tx);
                Ok(Completed::Failed { message: error.message })
            }
        }
    }
}

fn complete(tx: &mut Tx<'_>, completion: Complete, task: &WorkflowTask) -> Result<Completed, CommandError> {
    let (scheduled_event_id, started_event_id) = workflow_task::materialize(tx, task);
    let completed_event_id =
        tx.append(Attributes::WorkflowTaskCompletedEventAttributes(WorkflowTaskCompletedEventAttributes {
            scheduled_event_id,
            started_event_id,
            identity: completion.identity.clone(),
            sdk_metadata: completion.sdk_metadata,
            metering_metadata: completion.metering_metadata,
            worker_deployment_name: completion.worker.deployment.clone(),
            deployment_version: completion.worker.version.as_ref().map(versioning::Version::wire),
            versioning_behavior: completion.worker.behavior as i32,
            ..Default::default()
        }));
    tx.state.task = None;
    tx.state.task_attempt = 1;
    tx.state.previous_started_event_id = started_event_id;
    versioning::completed(tx, &completion.worker);
    // A run that goes to another version is not left with this worker.
    let leaves = versioning::leaves(tx.state, &completion.worker);
    tx.state.sticky = completion.sticky.filter(|_| !leaves);

    let mut outcome = Outcome { queues: completion.worker.queues, ..Default::default() };
    let mut messages = Messages::new(completion.messages);
    for command in completion.commands {
        if !tx.state.is_open() {
            break; // the workflow closed itself: what it asked for after that cannot happen
        }
        let Some(attributes) = command.attributes else {
            let cause = WorkflowTaskFailedCause::Unspecified;
            return Err(CommandError::new(cause, "a command has no attributes"));
        };
        let (metadata, identity) = (command.user_metadata, &completion.identity);
        if let CommandAttributes::ProtocolMessageCommandAttributes(turn) = &attributes {
            messages.perform(tx, &turn.message_id)?;
            continue;
        }
        let shown = tx.effects.events.len();
        command::perform(tx, attributes, metadata, completed_event_id, identity, &mut outcome)?;
        tx.group(shown, command.event_group_markers);
    }
    messages.perform_rest(tx)?;
    if !tx.state.is_open() {
        return Ok(Completed::Accepted { next: None, eager: Vec::new() });
    }
    let eager = match leaves {
        true => queue_instead(tx, outcome.eager),
        false => start_eager(tx, outcome.eager, completion.worker.version, &completion.identity),
    };
    let has_news = !tx.state.buffered.is_empty() || outcome.news || tx.state.is_in_transition();
    if has_news || completion.force_new_task {
        let heartbeat_since = completion.force_new_task.then_some(Time(task.original_scheduled_at));
        workflow_task::schedule(tx, heartbeat_since);
    }
    let next = (completion.return_new_task && tx.state.task.is_some() && !leaves).then(|| {
        tx.effects.work.retain(|work| !matches!(work, super::Work::WorkflowTask { .. }));
        workflow_task::start(tx, completion.identity)
    });
    Ok(Completed::Accepted { next, eager })
}

fn start_eager(
    tx: &mut Tx<'_>,
    scheduled: Vec<i64>,
    worker: Option<versioning::Version>,
    identity: &str,
) -> Vec<Activity> {
    let pending: Vec<i64> = scheduled.into_iter().filter(|id| tx.state.activities.contains_key(id)).collect();
    pending.into_iter().map(|id| activity::start(tx, id, identity.to_owned(), worker.clone())).collect()
}

/// Activities that the worker wanted to run itself, and may not.
fn queue_instead(tx: &mut Tx<'_>, scheduled: Vec<i64>) -> Vec<Activity> {
    scheduled.into_iter().for_each(|id| activity::put_in_queue(tx, id));
    Vec::new()
}
