//! What the history of a rollout tells: each of its decisions is a marker with the whole state, so the last one is enough.
//! The state itself is left to whoever asks.

use crate::{
    history::{HistoryReader, Run},
    payload,
    segment::Error,
};
use domain::rollout::{Origin, RolloutInput};
use serde::de::DeserializeOwned;
use temporalio_common::protos::temporal::api::history::v1::{HistoryEvent, history_event::Attributes as A};

/// Reads a rollout and follows it.
pub struct RolloutLog<S> {
    run: Run,
    next: Vec<u8>,
    /// The last history event that was read.
    known: i64,
    /// After the last decision; `None` before the first one.
    pub state: Option<S>,
    /// Nothing more can come.
    pub is_closed: bool,
}

impl<S: DeserializeOwned> RolloutLog<S> {
    /// As it stands now.
    pub async fn open(reader: &dyn HistoryReader, rollout_id: &str) -> Result<Self, Error> {
        let (run, history_events) = reader.latest_run(rollout_id).await?;
        let mut log = RolloutLog { run, next: Vec::new(), known: 0, state: None, is_closed: false };
        // Waiting pages leave a token behind that can be waited on; they do not wait before the present end.
        while log.known < history_events && !log.is_closed {
            let run_id = log.run.run_id.clone();
            log.read_on(reader).await?;
            if log.run.run_id != run_id {
                break;
            }
        }
        Ok(log)
    }

    /// Waits for something new, or until the server's patience is at its end.
    pub async fn read_on(&mut self, reader: &dyn HistoryReader) -> Result<(), Error> {
        let page = reader.page(&self.run, std::mem::take(&mut self.next), true).await?;
        match self.take_in(&page.events)? {
            true => self.known = 0,
            false => self.next = page.next,
        }
        Ok(())
    }

    /// True if the run went on in another one.
    fn take_in(&mut self, events: &[HistoryEvent]) -> Result<bool, Error> {
        let mut went_on = false;
        for event in events {
            self.known = event.event_id;
            match &event.attributes {
                Some(A::WorkflowExecutionStartedEventAttributes(started)) => {
                    let input: RolloutInput<S> =
                        payload::first(started.input.as_ref(), "a rollout's input", event.event_id)?;
                    if let Origin::Continued { state, .. } = input.from {
                        self.state = Some(*state);
                    }
                }
                Some(A::MarkerRecordedEventAttributes(marker)) => {
                    if let Some(state) = payload::local_activity_result(marker, event.event_id)? {
                        self.state = Some(state);
                    }
                }
                Some(A::WorkflowExecutionContinuedAsNewEventAttributes(continued)) => {
                    self.run.run_id.clone_from(&continued.new_execution_run_id);
                    went_on = true;
                }
                Some(
                    A::WorkflowExecutionCompletedEventAttributes(_)
                    | A::WorkflowExecutionTerminatedEventAttributes(_)
                    | A::WorkflowExecutionFailedEventAttributes(_)
                    | A::WorkflowExecutionTimedOutEventAttributes(_)
                    | A::WorkflowExecutionCanceledEventAttributes(_),
                ) => self.is_closed = true,
                _ => {}
            }
        }
        Ok(went_on)
    }
}
