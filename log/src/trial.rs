//! What the history of a trial tells: what came of it, once it is over. The report itself is left to whoever asks.

use crate::{history::HistoryReader, payload, segment::Error};
use serde::de::DeserializeOwned;
use temporalio_common::protos::temporal::api::history::v1::{HistoryEvent, history_event::Attributes as A};

/// How a trial ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Ended<R> {
    Done(R),
    /// Somebody ended it, or it failed.
    Broken,
}

/// Waits until a trial is over. Dropped and called again it begins anew: a trial's history is short.
pub async fn ended<R: DeserializeOwned>(reader: &dyn HistoryReader, trial_id: &str) -> Result<Ended<R>, Error> {
    let (run, _) = reader.latest_run(trial_id).await?;
    let mut next = Vec::new();
    loop {
        let page = reader.page(&run, next, true).await?;
        for event in &page.events {
            if let Some(reports) = reports(event)? {
                return Ok(Ended::Done(reports));
            }
            if let Some(
                A::WorkflowExecutionTerminatedEventAttributes(_)
                | A::WorkflowExecutionFailedEventAttributes(_)
                | A::WorkflowExecutionTimedOutEventAttributes(_)
                | A::WorkflowExecutionCanceledEventAttributes(_),
            ) = &event.attributes
            {
                return Ok(Ended::Broken);
            }
        }
        next = page.next;
    }
}

/// What a trial found, if this is the event that says so.
pub fn reports<R: DeserializeOwned>(event: &HistoryEvent) -> Result<Option<R>, Error> {
    match &event.attributes {
        Some(A::WorkflowExecutionCompletedEventAttributes(completed)) => {
            Ok(Some(payload::first(completed.result.as_ref(), "a trial's reports", event.event_id)?))
        }
        _ => Ok(None),
    }
}
