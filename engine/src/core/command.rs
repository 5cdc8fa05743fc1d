//! The commands of a completed workflow task, one by one: what each does to the run, and what makes one unacceptable.
//! A command that is refused fails the whole task; nothing of its batch stays.

#![expect(deprecated, reason = "SDKs still fill the fields, and servers repeat them in the events")]

use super::external::{self, bound};
use super::state::Activity;
use super::{Tx, activity, child, close, retry, timer};
use crate::options::Limits;
use crate::pb::command::v1::command::Attributes as Command;
use crate::pb::command::v1::{
    ModifyWorkflowPropertiesCommandAttributes, RecordMarkerCommandAttributes,
    RequestCancelActivityTaskCommandAttributes, ScheduleActivityTaskCommandAttributes,
    UpsertWorkflowSearchAttributesCommandAttributes,
};
use crate::pb::common::v1::{Memo, Payload, Payloads, SearchAttributes};
use crate::pb::enums::v1::WorkflowTaskFailedCause as Cause;
use crate::pb::history::v1::history_event::Attributes;
use crate::pb::history::v1::{
    ActivityTaskCancelRequestedEventAttributes, ActivityTaskCanceledEventAttributes,
    ActivityTaskScheduledEventAttributes, MarkerRecordedEventAttributes, UpsertWorkflowSearchAttributesEventAttributes,
    WorkflowPropertiesModifiedEventAttributes,
};
use crate::pb::sdk::v1::UserMetadata;
use crate::pb::taskqueue::v1::TaskQueue;
use crate::time::{duration, nanos};
use prost::Message;
use std::collections::{BTreeSet, HashMap, HashSet};

/// Why a command is not acceptable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandError {
    pub cause: Cause,
    pub message: String,
    /// The run ends with it: no other attempt would say less.
    pub is_fatal: bool,
}

impl CommandError {
    /// The message begins with the cause, as servers write it.
    pub fn new(cause: Cause, message: impl AsRef<str>) -> Self {
        CommandError { cause, message: format!("{cause:?}: {}", message.as_ref()), is_fatal: false }
    }

    /// Something is larger than a history takes.
    pub fn fatal(cause: Cause, message: impl AsRef<str>) -> Self {
        CommandError { is_fatal: true, ..CommandError::new(cause, message) }
    }
}

/// What the commands of one task add up to.
#[derive(Default)]
pub struct Outcome {
    /// Activities that the worker asked to run itself.
    pub eager: Vec<i64>,
    /// An activity ended by its cancellation: the workflow must hear of it.
    pub news: bool,
    /// Workflow ids of children that this task starts: it may not cancel them too.
    pub children: HashSet<String>,
    /// Where workers of the version that has the run take workflow tasks.
    pub queues: BTreeSet<String>,
}

/// Performs one command. `completed_event_id` is the event that all of them refer to.
pub fn perform(
    tx: &mut Tx<'_>,
    command: Command,
    user_metadata: Option<UserMetadata>,
    completed_event_id: i64,
    identity: &str,
    outcome: &mut Outcome,
) -> Result<(), CommandError> {
    if closes(&command) && !tx.state.buffered.is_empty() {
        let (cause, message) = (Cause::UnhandledCommand, "UnhandledCommand".to_owned());
        return Err(CommandError { cause, message, is_fatal: false });
    }
    match command {
        Command::ScheduleActivityTaskCommandAttributes(c) => {
            schedule_activity(tx, c, user_metadata, completed_event_id, outcome)
        }
        Command::RequestCancelActivityTaskCommandAttributes(c) => {
            request_cancel_activity(tx, &c, completed_event_id, identity, outcome)
        }
        Command::StartTimerCommandAttributes(c) => timer::start(tx, c, completed_event_id, user_metadata),
        Command::CancelTimerCommandAttributes(c) => timer::cancel(tx, c, completed_event_id, identity),
        Command::StartChildWorkflowExecutionCommandAttributes(c) => {
            child::start(tx, c, user_metadata, completed_event_id, outcome)
        }
        Command::SignalExternalWorkflowExecutionCommandAttributes(c) => {
            external::signal(tx, c, user_metadata, completed_event_id)
        }
        Command::RequestCancelExternalWorkflowExecutionCommandAttributes(c) => {
            external::request_cancel(tx, c, user_metadata, completed_event_id, outcome)
        }
        Command::RecordMarkerCommandAttributes(c) => record_marker(tx, c, user_metadata, completed_event_id),
        Command::ModifyWorkflowPropertiesCommandAttributes(c) => modify_properties(tx, c, completed_event_id),
        Command::UpsertWorkflowSearchAttributesCommandAttributes(c) => {
            upsert_search_attributes(tx, c, completed_event_id)
        }
        Command::CompleteWorkflowExecutionCommandAttributes(c) => close::complete(tx, c, completed_event_id),
        Command::FailWorkflowExecutionCommandAttributes(c) => close::fail(tx, c, completed_event_id),
        Command::CancelWorkflowExecutionCommandAttributes(c) => {
            close::cancel(tx, c, completed_event_id);
            Ok(())
        }
        Command::ContinueAsNewWorkflowExecutionCommandAttributes(c) => {
            close::continue_as_new(tx, c, completed_event_id, &outcome.queues)
        }
        other => {
            Err(CommandError::new(Cause::FeatureDisabled, format!("{} is not supported by this server", name(&other))))
        }
    }
}

fn closes(command: &Command) -> bool {
    matches!(
        command,
        Command::CompleteWorkflowExecutionCommandAttributes(_)
            | Command::FailWorkflowExecutionCommandAttributes(_)
            | Command::CancelWorkflowExecutionCommandAttributes(_)
            | Command::ContinueAsNewWorkflowExecutionCommandAttributes(_)
    )
}

fn name(command: &Command) -> &'static str {
    match command {
        Command::ProtocolMessageCommandAttributes(_) => "ProtocolMessage",
        Command::ScheduleNexusOperationCommandAttributes(_) => "ScheduleNexusOperation",
        Command::RequestCancelNexusOperationCommandAttributes(_) => "RequestCancelNexusOperation",
        _ => "this command",
    }
}

fn schedule_activity(
    tx: &mut Tx<'_>,
    command: ScheduleActivityTaskCommandAttributes,
    user_metadata: Option<UserMetadata>,
    completed_event_id: i64,
    outcome: &mut Outcome,
) -> Result<(), CommandError> {
    let bad = |message: &str| CommandError::new(Cause::BadScheduleActivityAttributes, message);
    let limits = tx.at.limits;
    let activity_type = command.activity_type.clone().unwrap_or_default();
    if command.activity_id.is_empty() {
        return Err(bad("ActivityId is not set on ScheduleActivityTaskCommand."));
    }
    if activity_type.name.is_empty() {
        return Err(bad("ActivityType is not set on ScheduleActivityTaskCommand."));
    }
    let queue = command.task_queue.as_ref().map(|queue| queue.name.clone()).filter(|name| !name.is_empty());
    let queue = queue.unwrap_or_else(|| tx.state.task_queue.clone());
    for (what, id) in [("activityId", &command.activity_id), ("activityType", &activity_type.name)] {
        id_within(id, limits).map_err(|length| bad(&format!("{what} exceeds length limit. {length}")))?;
    }
    id_within(&queue, limits).map_err(|_| bad("taskQueue length exceeds limit"))?;
    payloads_within(
        command.input.as_ref(),
        limits,
        Cause::BadScheduleActivityAttributes,
        "ScheduleActivityTaskCommandAttributes.Input exceeds size limit.",
    )?;
    if let Some(message) = command.retry_policy.as_ref().and_then(retry::invalid) {
        return Err(bad(message));
    }
    if tx.state.activities.values().any(|pending| pending.activity_id == command.activity_id) {
        let message = format!("activity {} is already pending", command.activity_id);
        return Err(CommandError::new(Cause::ScheduleActivityDuplicateId, message));
    }
    let pending = tx.state.activities.len();
    bound(pending, limits.pending_activities_max, Cause::PendingActivitiesLimitExceeded, "activities")?;
    let timeouts = Timeouts::settle(&command, tx.state.run_timeout).ok_or_else(|| {
        bad("A valid StartToClose or ScheduleToCloseTimeout is not set on ScheduleActivityTaskCommand.")
    })?;
    let retry_policy = retry::with_defaults(command.retry_policy.as_ref());
    let now = tx.now().0;
    let scheduled_event_id = tx.append_with(
        Attributes::ActivityTaskScheduledEventAttributes(ActivityTaskScheduledEventAttributes {
            activity_id: command.activity_id.clone(),
            activity_type: command.activity_type,
            task_queue: Some(TaskQueue { name: queue.clone(), kind: 1, normal_name: String::new() }),
            header: command.header,
            input: command.input,
            schedule_to_close_timeout: duration(timeouts.schedule_to_close),
            schedule_to_start_timeout: duration(timeouts.schedule_to_start),
            start_to_close_timeout: duration(timeouts.start_to_close),
            heartbeat_timeout: duration(timeouts.heartbeat),
            workflow_task_completed_event_id: completed_event_id,
            retry_policy: Some(retry_policy.clone()),
            priority: command.priority,
            use_workflow_build_id: command.use_workflow_build_id,
        }),
        user_metadata,
    );
    let pending = Activity {
        scheduled_event_id,
        activity_id: command.activity_id,
        activity_type: activity_type.name,
        task_queue: queue,
        schedule_to_close: timeouts.schedule_to_close,
        schedule_to_start: timeouts.schedule_to_start,
        start_to_close: timeouts.start_to_close,
        heartbeat: timeouts.heartbeat,
        retry_policy: Some(retry_policy),
        attempt: 1,
        first_scheduled_at: now,
        attempt_scheduled_at: now,
        ..Default::default()
    };
    tx.state.activities.insert(scheduled_event_id, pending);
    if command.request_eager_execution {
        outcome.eager.push(scheduled_event_id);
    } else {
        activity::put_in_queue(tx, scheduled_event_id);
    }
    Ok(())
}

/// The four timeouts of an activity with the missing ones derived from the others; 0 is none.
struct Timeouts {
    schedule_to_close: i64,
    schedule_to_start: i64,
    start_to_close: i64,
    heartbeat: i64,
}

impl Timeouts {
    /// `None` when neither start-to-close nor schedule-to-close is given.
    fn settle(command: &ScheduleActivityTaskCommandAttributes, run_timeout: i64) -> Option<Timeouts> {
        let within = |value: i64, bound: i64| if bound > 0 && (value == 0 || value > bound) { bound } else { value };
        let mut schedule_to_close = nanos(command.schedule_to_close_timeout.as_ref());
        let mut schedule_to_start = nanos(command.schedule_to_start_timeout.as_ref());
        let mut start_to_close = nanos(command.start_to_close_timeout.as_ref());
        if schedule_to_close > 0 {
            schedule_to_start = within(schedule_to_start, schedule_to_close);
            start_to_close = within(start_to_close, schedule_to_close);
        } else if start_to_close == 0 {
            return None;
        }
        schedule_to_close = within(schedule_to_close, run_timeout);
        schedule_to_start = within(schedule_to_start, run_timeout);
        start_to_close = within(start_to_close, run_timeout);
        let heartbeat = nanos(command.heartbeat_timeout.as_ref());
        let heartbeat = if heartbeat > 0 { within(heartbeat, start_to_close) } else { 0 };
        Some(Timeouts { schedule_to_close, schedule_to_start, start_to_close, heartbeat })
    }
}

fn request_cancel_activity(
    tx: &mut Tx<'_>,
    command: &RequestCancelActivityTaskCommandAttributes,
    completed_event_id: i64,
    identity: &str,
    outcome: &mut Outcome,
) -> Result<(), CommandError> {
    let scheduled_event_id = command.scheduled_event_id;
    if scheduled_event_id <= 0 || scheduled_event_id >= tx.state.next_event_id {
        let message = format!("no activity was scheduled by event {scheduled_event_id}");
        return Err(CommandError::new(Cause::BadRequestCancelActivityAttributes, message));
    }
    let asked_event_id =
        tx.append(Attributes::ActivityTaskCancelRequestedEventAttributes(ActivityTaskCancelRequestedEventAttributes {
            scheduled_event_id,
            workflow_task_completed_event_id: completed_event_id,
        }));
    // An activity that ended meanwhile is no longer pending: the request stays in history and does nothing.
    let Some(pending) = tx.state.activities.get_mut(&scheduled_event_id) else { return Ok(()) };
    pending.cancel_requested_event_id = asked_event_id;
    if pending.is_started() {
        return Ok(());
    }
    tx.state.activities.remove(&scheduled_event_id);
    tx.append(Attributes::ActivityTaskCanceledEventAttributes(ActivityTaskCanceledEventAttributes {
        details: Some(json_string("ACTIVITY_ID_NOT_STARTED")),
        latest_cancel_requested_event_id: asked_event_id,
        scheduled_event_id,
        started_event_id: 0,
        identity: identity.to_owned(),
        ..Default::default()
    }));
    outcome.news = true;
    Ok(())
}

fn json_string(text: &str) -> Payloads {
    let metadata = HashMap::from([("encoding".to_owned(), b"json/plain".to_vec())]);
    Payloads { payloads: vec![Payload { metadata, data: format!("\"{text}\"").into_bytes(), ..Default::default() }] }
}

fn record_marker(
    tx: &mut Tx<'_>,
    command: RecordMarkerCommandAttributes,
    user_metadata: Option<UserMetadata>,
    completed_event_id: i64,
) -> Result<(), CommandError> {
    let bad = |message: String| CommandError::new(Cause::BadRecordMarkerAttributes, message);
    if command.marker_name.is_empty() {
        return Err(bad("MarkerName is not set on RecordMarkerCommand.".to_owned()));
    }
    let name = &command.marker_name;
    let too_long =
        |length| format!("MarkerName on RecordMarkerCommand exceeds length limit. MarkerName={name} {length}");
    id_within(name, tx.at.limits).map_err(|length| bad(too_long(length)))?;
    let bytes: usize = command.details.iter().map(|(name, payloads)| name.len() + payloads.encoded_len()).sum();
    if bytes > tx.at.limits.blob_bytes_max {
        let message = "RecordMarkerCommandAttributes.Details exceeds size limit.";
        return Err(CommandError::fatal(Cause::BadRecordMarkerAttributes, message));
    }
    tx.append_with(
        Attributes::MarkerRecordedEventAttributes(MarkerRecordedEventAttributes {
            marker_name: command.marker_name,
            details: command.details,
            workflow_task_completed_event_id: completed_event_id,
            header: command.header,
            failure: command.failure,
        }),
        user_metadata,
    );
    Ok(())
}

fn modify_properties(
    tx: &mut Tx<'_>,
    command: ModifyWorkflowPropertiesCommandAttributes,
    completed_event_id: i64,
) -> Result<(), CommandError> {
    let cause = Cause::BadModifyWorkflowPropertiesAttributes;
    let Some(upserted) = command.upserted_memo else {
        return Err(CommandError::new(cause, "UpsertedMemo is not set on ModifyWorkflowPropertiesCommand."));
    };
    let mut memo = tx.state.memo.clone().unwrap_or_default();
    merge(&mut memo.fields, &upserted.fields);
    if memo.encoded_len() > tx.at.limits.memo_bytes_max {
        return Err(CommandError::fatal(cause, "ModifyWorkflowPropertiesCommandAttributes exceeds size limit."));
    }
    tx.append(Attributes::WorkflowPropertiesModifiedEventAttributes(WorkflowPropertiesModifiedEventAttributes {
        workflow_task_completed_event_id: completed_event_id,
        upserted_memo: Some(upserted),
    }));
    tx.state.memo = Some(Memo { fields: memo.fields });
    tx.effects.listed = true;
    Ok(())
}

fn upsert_search_attributes(
    tx: &mut Tx<'_>,
    command: UpsertWorkflowSearchAttributesCommandAttributes,
    completed_event_id: i64,
) -> Result<(), CommandError> {
    let Some(upserted) = command.search_attributes.filter(|attributes| !attributes.indexed_fields.is_empty()) else {
        return Err(CommandError::new(
            Cause::BadSearchAttributes,
            "SearchAttributes are not set on UpsertWorkflowSearchAttributesCommand.",
        ));
    };
    let mut fields = tx.state.search_attributes.clone().unwrap_or_default().indexed_fields;
    merge(&mut fields, &upserted.indexed_fields);
    tx.append(Attributes::UpsertWorkflowSearchAttributesEventAttributes(
        UpsertWorkflowSearchAttributesEventAttributes {
            workflow_task_completed_event_id: completed_event_id,
            search_attributes: Some(upserted),
        },
    ));
    tx.state.search_attributes = Some(SearchAttributes { indexed_fields: fields });
    tx.effects.listed = true;
    Ok(())
}

/// Fields that have a value; none if there are none.
pub fn with_values(fields: Option<&HashMap<String, Payload>>) -> Option<HashMap<String, Payload>> {
    let mut kept = HashMap::new();
    merge(&mut kept, fields?);
    (!kept.is_empty()).then_some(kept)
}

/// An upserted value replaces; a null or empty one removes.
fn merge(fields: &mut HashMap<String, Payload>, upserted: &HashMap<String, Payload>) {
    for (name, payload) in upserted {
        let encoding = payload.metadata.get("encoding").map(Vec::as_slice);
        let removes = encoding == Some(b"binary/null") || matches!(payload.data.as_slice(), b"" | b"null" | b"[]");
        if removes {
            fields.remove(name);
        } else {
            fields.insert(name.clone(), payload.clone());
        }
    }
}

/// Whether an id is of acceptable length; otherwise what it is and what it may be.
pub fn id_within(id: &str, limits: &Limits) -> Result<(), String> {
    if id.len() > limits.id_bytes_max {
        return Err(format!("Length={} Limit={}", id.len(), limits.id_bytes_max));
    }
    Ok(())
}

/// Refuses payloads that are too large for one field.
pub fn payloads_within(
    payloads: Option<&Payloads>,
    limits: &Limits,
    cause: Cause,
    message: &str,
) -> Result<(), CommandError> {
    if payloads.is_some_and(|payloads| payloads.encoded_len() > limits.blob_bytes_max) {
        return Err(CommandError::fatal(cause, message));
    }
    Ok(())
}
