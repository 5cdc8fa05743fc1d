//! Tokens that clients hand back: which task they work on, which page comes next. Opaque to them, checked by us.

use super::Reply;
use crate::core::activity::ActivityRef;
use crate::core::workflow_task::TaskRef;
use prost::Message;
use tonic::Status;

/// A task in the hands of a worker.
#[derive(Clone, PartialEq, Message)]
pub struct TaskToken {
    #[prost(string, tag = "1")]
    pub namespace: String,
    #[prost(string, tag = "2")]
    pub run_id: String,
    #[prost(int64, tag = "3")]
    pub scheduled_event_id: i64,
    #[prost(int64, tag = "4")]
    pub started_event_id: i64,
    #[prost(int32, tag = "5")]
    pub attempt: i32,
    #[prost(int64, tag = "6")]
    pub started_at: i64,
    /// Set when the task is a query.
    #[prost(string, tag = "7")]
    pub query_id: String,
    #[prost(int64, tag = "8")]
    pub stamp: i64,
}

impl TaskToken {
    pub fn decode_from(bytes: &[u8]) -> Reply<TaskToken> {
        match TaskToken::decode(bytes) {
            Ok(token) if !token.run_id.is_empty() => Ok(token),
            _ => Err(Status::invalid_argument("Task token is not valid.")),
        }
    }

    pub fn workflow_task(&self) -> TaskRef {
        TaskRef {
            scheduled_event_id: self.scheduled_event_id,
            started_event_id: self.started_event_id,
            attempt: self.attempt,
            started_at: self.started_at,
            stamp: self.stamp,
        }
    }

    pub fn activity(&self) -> ActivityRef {
        ActivityRef::Attempt { scheduled_event_id: self.scheduled_event_id, attempt: self.attempt }
    }
}

/// Where a page of history goes on.
#[derive(Clone, PartialEq, Message)]
pub struct HistoryToken {
    #[prost(string, tag = "1")]
    pub run_id: String,
    #[prost(int64, tag = "2")]
    pub next_event_id: i64,
    /// The first event that is not part of what was asked for; zero: as far as there is.
    #[prost(int64, tag = "3")]
    pub end_event_id: i64,
    /// The pages belong to a workflow task whose own events are not in history.
    #[prost(bool, tag = "4")]
    pub transient: bool,
}

impl HistoryToken {
    pub fn decode_from(bytes: &[u8]) -> Reply<HistoryToken> {
        match HistoryToken::decode(bytes) {
            Ok(token) if !token.run_id.is_empty() => Ok(token),
            _ => Err(Status::invalid_argument("Invalid NextPageToken.")),
        }
    }
}
