//! The mutable state of one run: what the rules need to decide, and nothing that history already holds at length
//! (inputs and results stay there). It is stored as one protobuf blob and written anew with every transition.

use super::versioning::{Version, Versioning};
use crate::pb::common::v1::{Memo, Payloads, Priority, RetryPolicy, SearchAttributes, WorkflowExecution};
use crate::pb::enums::v1::{ParentClosePolicy, WorkflowExecutionStatus};
use crate::pb::failure::v1::Failure;
use crate::pb::history::v1::HistoryEvent;
use crate::pb::sdk::v1::UserMetadata;
use crate::time::Time;
use std::collections::{BTreeMap, HashSet};

/// A run in memory: its state, and the request ids of its signals, which are stored one row each because they only grow.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Run {
    pub state: RunState,
    pub signal_ids: HashSet<String>,
}

/// Everything about a run that changes. Times are nanoseconds since the epoch, lengths of time nanoseconds; 0 is "none".
#[derive(Clone, PartialEq, prost::Message)]
pub struct RunState {
    #[prost(string, tag = "1")]
    pub namespace: String,
    #[prost(string, tag = "2")]
    pub workflow_id: String,
    #[prost(string, tag = "3")]
    pub run_id: String,
    #[prost(string, tag = "4")]
    pub first_run_id: String,
    #[prost(string, tag = "5")]
    pub workflow_type: String,
    #[prost(string, tag = "6")]
    pub task_queue: String,
    #[prost(int64, tag = "7")]
    pub started_at: i64,
    #[prost(int64, tag = "8")]
    pub execution_timeout: i64,
    #[prost(int64, tag = "9")]
    pub run_timeout: i64,
    #[prost(int64, tag = "10")]
    pub task_timeout: i64,
    #[prost(message, optional, tag = "11")]
    pub retry_policy: Option<RetryPolicy>,
    /// Which attempt of the workflow's retry policy this run is, from 1.
    #[prost(int32, tag = "12")]
    pub attempt: i32,
    #[prost(int64, tag = "13")]
    pub execution_expires_at: i64,
    #[prost(int64, tag = "14")]
    pub run_expires_at: i64,
    #[prost(message, optional, tag = "15")]
    pub memo: Option<Memo>,
    #[prost(message, optional, tag = "16")]
    pub search_attributes: Option<SearchAttributes>,
    #[prost(message, optional, tag = "17")]
    pub user_metadata: Option<UserMetadata>,
    #[prost(int64, tag = "18")]
    pub next_event_id: i64,
    #[prost(int64, tag = "19")]
    pub history_bytes: i64,
    #[prost(enumeration = "WorkflowExecutionStatus", tag = "20")]
    pub status: i32,
    #[prost(int64, tag = "21")]
    pub closed_at: i64,
    /// The run that took over: continue-as-new, a retry, or a start that replaced this one.
    #[prost(string, tag = "22")]
    pub successor: String,
    #[prost(bool, tag = "23")]
    pub cancel_requested: bool,
    #[prost(string, tag = "24")]
    pub start_request_id: String,
    #[prost(message, optional, tag = "25")]
    pub task: Option<WorkflowTask>,
    /// The attempt that the next workflow task will be.
    #[prost(int32, tag = "26")]
    pub task_attempt: i32,
    /// The started event of the last completed workflow task.
    #[prost(int64, tag = "27")]
    pub previous_started_event_id: i64,
    #[prost(message, optional, tag = "28")]
    pub sticky: Option<Sticky>,
    /// By the id of the event that scheduled them.
    #[prost(btree_map = "int64, message", tag = "29")]
    pub activities: BTreeMap<i64, Activity>,
    /// By timer id.
    #[prost(btree_map = "string, message", tag = "30")]
    pub timers: BTreeMap<String, Timer>,
    /// What happened while the current workflow task is started, in order of arrival, without event ids.
    #[prost(message, repeated, tag = "31")]
    pub buffered: Vec<HistoryEvent>,
    #[prost(int64, tag = "32")]
    pub signals: i64,
    #[prost(uint64, tag = "33")]
    pub seed: u64,
    #[prost(uint64, tag = "34")]
    pub ids_made: u64,
    /// When the timer index will wake this run. May be earlier than its first deadline, never later.
    #[prost(int64, tag = "35")]
    pub wake_at: i64,
    /// No workflow task is made before this: a start delay, or the backoff of a retry.
    #[prost(int64, tag = "36")]
    pub first_task_at: i64,
    /// Numbers the workflow tasks, so that a queue entry that was overtaken is recognised.
    #[prost(int64, tag = "37")]
    pub task_stamp: i64,
    #[prost(int64, tag = "38")]
    pub transitions: i64,
    /// The history event that closed the run.
    #[prost(int64, tag = "39")]
    pub close_event_id: i64,
    /// Accepted updates, by their ids.
    #[prost(btree_map = "string, message", tag = "40")]
    pub updates: BTreeMap<String, Update>,
    /// By the id of the event that initiated them. Of a closed run: those that must hear of its end.
    #[prost(btree_map = "int64, message", tag = "41")]
    pub children: BTreeMap<i64, Child>,
    /// What was asked of other runs and is not answered, by the id of the event that initiated it.
    #[prost(btree_map = "int64, message", tag = "42")]
    pub externals: BTreeMap<i64, External>,
    /// The run that started this one as its child.
    #[prost(message, optional, tag = "43")]
    pub parent: Option<Parent>,
    /// The run that this one descends from over all parents; none: it is its own root.
    #[prost(message, optional, tag = "44")]
    pub root: Option<WorkflowExecution>,
    /// It is closed, and its parent has not been told.
    #[prost(bool, tag = "45")]
    pub owes_parent: bool,
    /// None while no versioned worker and no override had to do with it.
    #[prost(message, optional, tag = "46")]
    pub versioning: Option<Versioning>,
    /// The deployment that the worker named that completed the last workflow task.
    #[prost(string, tag = "47")]
    pub deployment_name: String,
    /// Of the whole chain.
    #[prost(message, optional, tag = "48")]
    pub priority: Option<Priority>,
}

/// The one workflow task that a run may have.
#[derive(Clone, PartialEq, prost::Message)]
pub struct WorkflowTask {
    #[prost(int64, tag = "1")]
    pub scheduled_event_id: i64,
    /// Zero until a worker has it.
    #[prost(int64, tag = "2")]
    pub started_event_id: i64,
    #[prost(int32, tag = "3")]
    pub attempt: i32,
    #[prost(int64, tag = "4")]
    pub scheduled_at: i64,
    /// The first of a chain of heartbeating tasks.
    #[prost(int64, tag = "5")]
    pub original_scheduled_at: i64,
    #[prost(int64, tag = "6")]
    pub started_at: i64,
    #[prost(int64, tag = "7")]
    pub timeout: i64,
    #[prost(int64, tag = "8")]
    pub stamp: i64,
    /// Scheduled on the sticky queue and not yet started: then the schedule-to-start timeout runs.
    #[prost(bool, tag = "9")]
    pub sticky: bool,
    #[prost(string, tag = "10")]
    pub identity: String,
    #[prost(string, tag = "11")]
    pub request_id: String,
    #[prost(int64, tag = "12")]
    pub history_bytes: i64,
    #[prost(int32, repeated, tag = "13")]
    pub suggest_reasons: Vec<i32>,
    /// It tells a pinned run that its task queue goes to another version.
    #[prost(bool, tag = "14")]
    pub target_changed: bool,
}

/// Where the worker that holds this run in its cache polls.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Sticky {
    #[prost(string, tag = "1")]
    pub queue: String,
    #[prost(int64, tag = "2")]
    pub schedule_to_start: i64,
}

/// A pending activity. Its input stays in the history event that scheduled it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Activity {
    #[prost(int64, tag = "1")]
    pub scheduled_event_id: i64,
    #[prost(string, tag = "2")]
    pub activity_id: String,
    #[prost(string, tag = "3")]
    pub activity_type: String,
    #[prost(string, tag = "4")]
    pub task_queue: String,
    #[prost(int64, tag = "5")]
    pub schedule_to_close: i64,
    #[prost(int64, tag = "6")]
    pub schedule_to_start: i64,
    #[prost(int64, tag = "7")]
    pub start_to_close: i64,
    #[prost(int64, tag = "8")]
    pub heartbeat: i64,
    #[prost(message, optional, tag = "9")]
    pub retry_policy: Option<RetryPolicy>,
    #[prost(int32, tag = "10")]
    pub attempt: i32,
    #[prost(int64, tag = "11")]
    pub first_scheduled_at: i64,
    /// When this attempt may start; in the future while it backs off.
    #[prost(int64, tag = "12")]
    pub attempt_scheduled_at: i64,
    /// Whether this attempt stands in its queue; false while it backs off.
    #[prost(bool, tag = "13")]
    pub queued: bool,
    /// Zero until a worker has it.
    #[prost(int64, tag = "14")]
    pub started_at: i64,
    #[prost(string, tag = "15")]
    pub started_by: String,
    #[prost(string, tag = "16")]
    pub request_id: String,
    #[prost(int64, tag = "17")]
    pub last_heartbeat_at: i64,
    #[prost(message, optional, tag = "18")]
    pub heartbeat_details: Option<Payloads>,
    #[prost(message, optional, tag = "19")]
    pub last_failure: Option<Failure>,
    /// The event that asked for its cancellation; zero when nobody did.
    #[prost(int64, tag = "20")]
    pub cancel_requested_event_id: i64,
    #[prost(int64, tag = "21")]
    pub last_attempt_completed_at: i64,
    /// The version of the worker that took it last.
    #[prost(message, optional, tag = "22")]
    pub version: Option<Version>,
}

/// An update that the workflow accepted.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Update {
    #[prost(int64, tag = "1")]
    pub accepted_event_id: i64,
    /// Zero until it is answered.
    #[prost(int64, tag = "2")]
    pub completed_event_id: i64,
}

/// A child that a workflow started, or is about to. Its input stays in the history event that initiated it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Child {
    #[prost(string, tag = "1")]
    pub workflow_id: String,
    #[prost(string, tag = "2")]
    pub workflow_type: String,
    /// Its first run; empty until it is started.
    #[prost(string, tag = "3")]
    pub run_id: String,
    /// Zero while the event waits in the buffer.
    #[prost(int64, tag = "4")]
    pub started_event_id: i64,
    #[prost(enumeration = "ParentClosePolicy", tag = "5")]
    pub parent_close_policy: i32,
    #[prost(string, tag = "6")]
    pub request_id: String,
}

/// A signal to another run, or a request that it cancels itself. What it says stays in the event that initiated it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct External {
    #[prost(bool, tag = "1")]
    pub is_cancel: bool,
    #[prost(string, tag = "2")]
    pub request_id: String,
}

/// Where a child belongs.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Parent {
    #[prost(string, tag = "1")]
    pub namespace: String,
    #[prost(string, tag = "2")]
    pub workflow_id: String,
    #[prost(string, tag = "3")]
    pub run_id: String,
    #[prost(int64, tag = "4")]
    pub initiated_event_id: i64,
}

/// A timer that a workflow started.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Timer {
    #[prost(int64, tag = "1")]
    pub started_event_id: i64,
    #[prost(int64, tag = "2")]
    pub fires_at: i64,
}

impl RunState {
    pub fn is_open(&self) -> bool {
        self.status == WorkflowExecutionStatus::Running as i32
    }

    /// Whether the run is held back by a start delay or a retry's backoff.
    pub fn is_delayed(&self, now: Time) -> bool {
        self.first_task_at > now.0
    }

    pub fn started_task(&self) -> Option<&WorkflowTask> {
        self.task.as_ref().filter(|task| task.started_event_id != 0)
    }

    /// Whether something of this run stands in a task queue or is being worked on, so that a restart must look at it.
    pub fn is_busy(&self) -> bool {
        self.is_open()
            && (self.task.is_some()
                || self.activities.values().any(|activity| activity.queued && !activity.is_started()))
    }
}

impl RunState {
    pub fn execution(&self) -> WorkflowExecution {
        WorkflowExecution { workflow_id: self.workflow_id.clone(), run_id: self.run_id.clone() }
    }

    /// Where all of this run's descent began.
    pub fn root(&self) -> WorkflowExecution {
        self.root.clone().unwrap_or_else(|| self.execution())
    }

    /// Whether `parent` started this run, or the run that it continues, as its child.
    pub fn is_child_of(&self, parent: &WorkflowExecution) -> bool {
        let of = self.parent.as_ref();
        of.is_some_and(|of| of.workflow_id == parent.workflow_id && of.run_id == parent.run_id)
    }
}

impl Child {
    pub fn is_started(&self) -> bool {
        !self.run_id.is_empty()
    }
}

impl Activity {
    pub fn is_started(&self) -> bool {
        self.started_at != 0
    }
}
