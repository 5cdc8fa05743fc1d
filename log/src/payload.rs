//! Out of Temporal's payloads: JSON, as the SDK's default converter writes it.

use serde::de::DeserializeOwned;
use temporalio_common::protos::{
    constants::LOCAL_ACTIVITY_MARKER_NAME,
    temporal::api::{
        common::v1::{Payload, Payloads},
        history::v1::MarkerRecordedEventAttributes,
    },
};

#[derive(Debug, thiserror::Error)]
#[error("{what} in history event {event_id} cannot be read")]
pub struct Error {
    pub what: &'static str,
    pub event_id: i64,
    #[source]
    pub source: Option<serde_json::Error>,
}

pub fn first<T: DeserializeOwned>(payloads: Option<&Payloads>, what: &'static str, event_id: i64) -> Result<T, Error> {
    one(payloads.and_then(|payloads| payloads.payloads.first()), what, event_id)
}

fn one<T: DeserializeOwned>(payload: Option<&Payload>, what: &'static str, event_id: i64) -> Result<T, Error> {
    let payload = payload.ok_or(Error { what, event_id, source: None })?;
    // Nothing is written as no bytes at all, not as `null`.
    let data = if payload.data.is_empty() { b"null" } else { payload.data.as_slice() };
    serde_json::from_slice(data).map_err(|source| Error { what, event_id, source: Some(source) })
}

/// The result in a local activity's marker; `None` if it is another marker or the activity failed.
pub fn local_activity_result<T: DeserializeOwned>(
    marker: &MarkerRecordedEventAttributes,
    event_id: i64,
) -> Result<Option<T>, Error> {
    if marker.marker_name != LOCAL_ACTIVITY_MARKER_NAME || marker.failure.is_some() {
        return Ok(None);
    }
    first(marker.details.get("result"), "a commit", event_id).map(Some)
}
