//! What runs can be selected and ordered by: the attributes that every run has, and those that a namespace registered.

use super::Subject;
use crate::core::versioning;
use crate::pb::common::v1::Payload;
use crate::pb::enums::v1::{IndexedValueType as Kind, VersioningBehavior, WorkflowExecutionStatus};
use crate::pb::workflow::v1::WorkflowExecutionInfo;
use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};

/// The attributes that every run has.
pub const BUILT_IN: &[(&str, Kind)] = &[
    ("CloseTime", Kind::Datetime),
    ("ExecutionDuration", Kind::Int),
    ("ExecutionStatus", Kind::Keyword),
    ("ExecutionTime", Kind::Datetime),
    ("HistoryLength", Kind::Int),
    ("HistorySizeBytes", Kind::Int),
    ("ParentRunId", Kind::Keyword),
    ("ParentWorkflowId", Kind::Keyword),
    ("RootRunId", Kind::Keyword),
    ("RootWorkflowId", Kind::Keyword),
    ("RunId", Kind::Keyword),
    ("StartTime", Kind::Datetime),
    ("StateTransitionCount", Kind::Int),
    ("TaskQueue", Kind::Keyword),
    ("TemporalWorkerDeployment", Kind::Keyword),
    ("TemporalWorkerDeploymentVersion", Kind::Keyword),
    ("TemporalWorkflowVersioningBehavior", Kind::Keyword),
    ("WorkflowId", Kind::Keyword),
    ("WorkflowType", Kind::Keyword),
];

/// Attributes that a namespace registered, with their types.
pub type Registered = BTreeMap<String, Kind>;

/// The name of a type, as values carry it.
pub fn type_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Unspecified => "Unspecified",
        Kind::Text => "Text",
        Kind::Keyword => "Keyword",
        Kind::Int => "Int",
        Kind::Double => "Double",
        Kind::Bool => "Bool",
        Kind::Datetime => "Datetime",
        Kind::KeywordList => "KeywordList",
    }
}

/// A name that a query uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attribute {
    pub name: String,
    pub kind: Kind,
    is_built_in: bool,
}

/// One value of an attribute. Values of one kind only are compared with each other.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Text(String),
    Int(i64),
    Double(f64),
    Bool(bool),
    /// Nanoseconds since the epoch.
    Time(i64),
}

impl Attribute {
    pub fn find(name: &str, registered: &Registered) -> Option<Attribute> {
        let built_in = BUILT_IN.iter().find(|built_in| built_in.0 == name).map(|built_in| built_in.1);
        let kind = built_in.or_else(|| registered.get(name).copied())?;
        Some(Attribute { name: name.to_owned(), kind, is_built_in: built_in.is_some() })
    }

    /// One that everything has that is looked for.
    pub fn built_in(name: &str, kind: Kind) -> Attribute {
        Attribute { name: name.to_owned(), kind, is_built_in: true }
    }

    pub fn is(&self, name: &str) -> bool {
        self.is_built_in && self.name == name
    }

    /// What a word or a text of a query means as a value of this attribute.
    pub fn value(&self, text: &str) -> Option<Value> {
        match self.kind {
            _ if self.is("ExecutionStatus") => {
                let known = STATUSES.iter().map(|status| status_name(*status));
                known.into_iter().find(|name| name.eq_ignore_ascii_case(text)).map(|name| Value::Text(name.to_owned()))
            }
            Kind::Int => text.parse().ok().map(Value::Int),
            Kind::Double => text.parse().ok().map(Value::Double),
            Kind::Bool => text.to_ascii_lowercase().parse().ok().map(Value::Bool),
            Kind::Datetime => time(text),
            Kind::Text | Kind::Keyword | Kind::KeywordList | Kind::Unspecified => Some(Value::Text(text.to_owned())),
        }
    }
}

impl Subject for WorkflowExecutionInfo {
    fn values(&self, attribute: &Attribute) -> Vec<Value> {
        if !attribute.is_built_in {
            let fields = self.search_attributes.as_ref().map(|attributes| &attributes.indexed_fields);
            let payload = fields.and_then(|fields| fields.get(&attribute.name));
            return payload.map(|payload| decode(payload, attribute.kind)).unwrap_or_default();
        }
        let execution = self.execution.as_ref();
        let text = |text: &str| Some(Value::Text(text.to_owned()));
        let some = |text: String| (!text.is_empty()).then_some(Value::Text(text));
        let version = || self.versioning_info.as_ref().and_then(versioning::version_shown);
        let value = match attribute.name.as_str() {
            "CloseTime" => Value::time(self.close_time.as_ref()),
            "ExecutionDuration" => self.execution_duration.as_ref().map(|d| Value::Int(crate::time::nanos(Some(d)))),
            "ExecutionStatus" => text(status_name(self.status())),
            "ExecutionTime" => Value::time(self.execution_time.as_ref()),
            "HistoryLength" => Some(Value::Int(self.history_length)),
            "HistorySizeBytes" => Some(Value::Int(self.history_size_bytes)),
            "ParentRunId" => self.parent_execution.as_ref().and_then(|parent| text(&parent.run_id)),
            "ParentWorkflowId" => self.parent_execution.as_ref().and_then(|parent| text(&parent.workflow_id)),
            "RootRunId" => self.root_execution.as_ref().and_then(|root| text(&root.run_id)),
            "RootWorkflowId" => self.root_execution.as_ref().and_then(|root| text(&root.workflow_id)),
            "RunId" => text(execution.map_or("", |execution| &execution.run_id)),
            "StartTime" => Value::time(self.start_time.as_ref()),
            "StateTransitionCount" => Some(Value::Int(self.state_transition_count)),
            "TaskQueue" => text(&self.task_queue),
            "TemporalWorkerDeployment" => some(version().map_or(self.worker_deployment_name.clone(), |v| v.deployment)),
            "TemporalWorkerDeploymentVersion" => version().and_then(|version| some(version.to_string())),
            "TemporalWorkflowVersioningBehavior" => {
                let behavior = self.versioning_info.as_ref().map(versioning::behavior_shown);
                behavior.and_then(|behavior| some(behavior_name(behavior).to_owned()))
            }
            "WorkflowId" => text(execution.map_or("", |execution| &execution.workflow_id)),
            "WorkflowType" => text(self.r#type.as_ref().map_or("", |t| &t.name)),
            _ => None,
        };
        value.into_iter().collect()
    }
}

impl Value {
    /// A moment that something has, or has not.
    pub fn time(time: Option<&prost_wkt_types::Timestamp>) -> Option<Value> {
        time.map(|time| Value::Time(time.seconds * 1_000_000_000 + i64::from(time.nanos)))
    }

    pub fn compare(&self, other: &Value) -> Option<Ordering> {
        match (self, other) {
            (Value::Text(a), Value::Text(b)) => Some(a.cmp(b)),
            (Value::Int(a), Value::Int(b)) | (Value::Time(a), Value::Time(b)) => Some(a.cmp(b)),
            (Value::Double(a), Value::Double(b)) => a.partial_cmp(b),
            (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
            _ => None,
        }
    }
}

/// A moment, as RFC 3339 or in nanoseconds since the epoch.
fn time(text: &str) -> Option<Value> {
    if let Ok(nanos) = text.parse() {
        return Some(Value::Time(nanos));
    }
    let moment: jiff::Timestamp = text.parse().ok()?;
    i64::try_from(moment.as_nanosecond()).ok().map(Value::Time)
}

/// The values that a payload of a search attribute holds; none if they are not of its kind.
pub fn decode(payload: &Payload, kind: Kind) -> Vec<Value> {
    let Ok(json) = serde_json::from_slice::<serde_json::Value>(&payload.data) else { return Vec::new() };
    let items = match json {
        serde_json::Value::Array(items) => items,
        serde_json::Value::Null => Vec::new(),
        one => vec![one],
    };
    let value = |item: serde_json::Value| match kind {
        Kind::Int => item.as_i64().map(Value::Int),
        Kind::Double => item.as_f64().map(Value::Double),
        Kind::Bool => item.as_bool().map(Value::Bool),
        Kind::Datetime => item.as_str().and_then(time),
        Kind::Text | Kind::Keyword | Kind::KeywordList | Kind::Unspecified => {
            item.as_str().map(|text| Value::Text(text.to_owned()))
        }
    };
    items.into_iter().filter_map(value).collect()
}

const STATUSES: [WorkflowExecutionStatus; 7] = [
    WorkflowExecutionStatus::Running,
    WorkflowExecutionStatus::Completed,
    WorkflowExecutionStatus::Failed,
    WorkflowExecutionStatus::Canceled,
    WorkflowExecutionStatus::Terminated,
    WorkflowExecutionStatus::ContinuedAsNew,
    WorkflowExecutionStatus::TimedOut,
];

/// A status as queries write it.
pub fn status_name(status: WorkflowExecutionStatus) -> &'static str {
    match status {
        WorkflowExecutionStatus::Running => "Running",
        WorkflowExecutionStatus::Completed => "Completed",
        WorkflowExecutionStatus::Failed => "Failed",
        WorkflowExecutionStatus::Canceled => "Canceled",
        WorkflowExecutionStatus::Terminated => "Terminated",
        WorkflowExecutionStatus::ContinuedAsNew => "ContinuedAsNew",
        WorkflowExecutionStatus::TimedOut => "TimedOut",
        WorkflowExecutionStatus::Paused => "Paused",
        WorkflowExecutionStatus::Unspecified => "",
    }
}

/// A behavior as queries write it.
fn behavior_name(behavior: VersioningBehavior) -> &'static str {
    match behavior {
        VersioningBehavior::Pinned => "Pinned",
        VersioningBehavior::AutoUpgrade => "AutoUpgrade",
        VersioningBehavior::Unspecified => "",
    }
}

/// A keyword as search attributes are encoded.
pub fn keyword_payload(word: &str) -> Payload {
    let metadata =
        HashMap::from([("encoding".to_owned(), b"json/plain".to_vec()), ("type".to_owned(), b"Keyword".to_vec())]);
    Payload { metadata, data: format!("\"{word}\"").into_bytes(), ..Default::default() }
}
