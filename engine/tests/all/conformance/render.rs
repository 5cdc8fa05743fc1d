//! Histories as text that is the same on every server and in every run: without what is random (ids, times, sizes) and
//! without what describes the worker rather than the workflow.

use temporalio_common::protos::temporal::api::history::v1::HistoryEvent;
use temporalio_common::protos::temporal::api::history::v1::history_event::Attributes;

/// Fields whose value differs between runs; whether they are set does not.
const RANDOM: &[&str] = &[
    "identity",
    "request_id",
    "run_id",
    "original_execution_run_id",
    "first_execution_run_id",
    "continued_execution_run_id",
    "new_execution_run_id",
    "workflow_id",
    "history_size_bytes",
    "stack_trace",
    "namespace_id",
    "parent_workflow_namespace_id",
    "seconds_of_time",
];

/// All events, numbered, with what is set in them.
pub fn history(events: &[HistoryEvent]) -> String {
    let mut text = String::new();
    for event in events {
        text.push_str(&format!("{} {:?}\n", event.event_id, event.event_type()));
        let attributes = event.attributes.clone().map(steady).map(|a| format!("{a:#?}")).unwrap_or_default();
        let metadata = event.user_metadata.as_ref().map(|m| format!("user_metadata: {m:#?}")).unwrap_or_default();
        for line in lines(&attributes).chain(lines(&metadata)) {
            text.push_str(&format!("  {line}\n"));
        }
    }
    text
}

/// What is left of a debug print: fields that are set, random values as `*`, bytes as text.
fn lines(debug: &str) -> impl Iterator<Item = String> {
    let mut kept: Vec<String> = Vec::new();
    let mut bytes: Option<Vec<u8>> = None;
    for line in debug.lines() {
        let trimmed = line.trim();
        if let Some(collected) = &mut bytes {
            match trimmed.trim_end_matches(',').parse() {
                Ok(byte) => collected.push(byte),
                Err(_) => {
                    let collected = bytes.take().unwrap_or_default();
                    kept.push(format!("{:?}", String::from_utf8_lossy(&collected)));
                }
            }
            continue;
        }
        if trimmed.ends_with(": [") && !trimmed.starts_with("payloads") && !trimmed.contains("types") {
            kept.push(trimmed.trim_end_matches('[').to_owned());
            bytes = Some(Vec::new());
            continue;
        }
        let unset = [": None,", ": \"\",", ": 0,", ": 0.0,", ": [],", ": {},", ": false,", ": Unspecified,"];
        if unset.iter().any(|unset| trimmed.ends_with(unset)) || trimmed.chars().all(|c| "()[]{},".contains(c)) {
            continue;
        }
        match trimmed.split_once(": ") {
            Some((field, _)) if RANDOM.contains(&field) => kept.push(format!("{field}: *")),
            _ => kept.push(trimmed.split(' ').map(unless_random).collect::<Vec<_>>().join(" ")),
        }
    }
    kept.into_iter()
}

/// A word of a text, unless it is an id that some run made.
fn unless_random(word: &str) -> &str {
    if uuid::Uuid::parse_str(word).is_ok() { "*" } else { word }
}

/// Without what a server adds about workers, versions and its own bookkeeping, and with sorted maps.
#[expect(deprecated, reason = "the server still fills the fields")]
fn steady(mut attributes: Attributes) -> Attributes {
    use Attributes::*;
    match &mut attributes {
        WorkflowExecutionStartedEventAttributes(a) => {
            a.prev_auto_reset_points = None;
            a.workflow_execution_expiration_time = None;
            a.header = None;
            a.root_workflow_execution = None;
            a.priority = None;
            a.parent_workflow_namespace_id.clear();
            a.source_version_stamp = None;
            a.inherited_build_id.clear();
            if !a.continued_execution_run_id.is_empty() {
                // A server holds back a run that follows another within a second; one machine has no need to.
                a.first_workflow_task_backoff = None;
            }
        }
        WorkflowTaskScheduledEventAttributes(a) => {
            // A sticky queue's name is the worker's own.
            if let Some(queue) = a.task_queue.as_mut().filter(|queue| !queue.normal_name.is_empty()) {
                queue.name = "sticky".to_owned();
            }
        }
        WorkflowTaskStartedEventAttributes(a) => a.worker_version = None,
        WorkflowTaskCompletedEventAttributes(a) => {
            a.worker_version = None;
            a.binary_checksum.clear();
            a.deployment = None;
            a.worker_deployment_version.clear();
            a.metering_metadata = None;
            if let Some(metadata) = &mut a.sdk_metadata {
                metadata.core_used_flags.sort();
            }
        }
        WorkflowTaskFailedEventAttributes(a) => {
            a.worker_version = None;
            a.binary_checksum.clear();
        }
        ActivityTaskScheduledEventAttributes(a) => {
            a.use_workflow_build_id = false;
            a.header = None;
            a.priority = None;
        }
        ActivityTaskStartedEventAttributes(a) => a.worker_version = None,
        ActivityTaskCompletedEventAttributes(a) => a.worker_version = None,
        ActivityTaskFailedEventAttributes(a) => a.worker_version = None,
        ActivityTaskCanceledEventAttributes(a) => a.worker_version = None,
        MarkerRecordedEventAttributes(a) => {
            let mut keys: Vec<_> = a.details.drain().map(|entry| entry.0).collect();
            keys.sort();
            a.marker_name = format!("{} {}", a.marker_name, keys.join(" "));
            a.header = None;
        }
        WorkflowExecutionContinuedAsNewEventAttributes(a) => {
            a.inherit_build_id = false;
            a.header = None;
            a.backoff_start_interval = None;
        }
        WorkflowExecutionSignaledEventAttributes(a) => a.header = None,
        _ => {}
    }
    attributes
}

/// Fails with the first lines that differ.
pub fn assert_same(name: &str, kept: &str, ours: &str) {
    if kept == ours {
        return;
    }
    let mut lines = kept.lines().zip(ours.lines()).enumerate();
    let at =
        lines.find(|(_, (kept, ours))| kept != ours).map_or(kept.lines().count().min(ours.lines().count()), |d| d.0);
    let around = |text: &str| text.lines().skip(at.saturating_sub(6)).take(14).collect::<Vec<_>>().join("\n");
    panic!("{name}: line {} differs\n--- kept\n{}\n--- ours\n{}", at + 1, around(kept), around(ours));
}
