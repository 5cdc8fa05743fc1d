//! The gate of a rollout: recorded sessions shown to another harness, one after the other, up to the first that it breaks.
//! Reads logs and nothing else: no model, no hands.

use crate::{brain::BrainActivities, decide::Guarded, harnesses::Found};
use domain::rollout::Recorded;
use harness::{
    replay::{Judgement, Recording, judge},
    rollout::{GateFailure, GateInput, GateReport},
};
use log::{SessionLog, blobs, history, segment};
use std::sync::Arc;
use temporalio_sdk::activities::ActivityError;

pub async fn gate(brain: &BrainActivities, input: &GateInput) -> Result<GateReport, ActivityError> {
    let found = brain.harnesses.find(&input.to).await?;
    if let Found::Gone(why) = &found {
        return Ok(failed(format!("harness {} {why}", input.to)));
    }
    let sample: Vec<Recorded> = match blobs::get_json(&*brain.blobs, &input.sample).await {
        Ok(sample) => sample,
        Err(blobs::Error::Store { source: store::blobs::Error::Missing { .. }, .. }) => {
            return Ok(failed("the sample of sessions is gone".to_owned()));
        }
        Err(error) => return Err(error.into()),
    };
    let found = Arc::new(found);
    let mut report = GateReport::default();
    for recorded in sample.iter().skip(input.from as usize).take(input.sessions as usize) {
        let judged = match recording(brain, recorded).await? {
            Some(recording) => judged(recording, input, found.clone()).await?,
            None => None,
        };
        match judged {
            Some(judged) => report.judged(&recorded.session_id, judged, input.strict),
            None => {
                report.next += 1;
                report.unreadable += 1;
            }
        }
        if report.failure.is_some() {
            break;
        }
    }
    Ok(report)
}

fn failed(why: String) -> GateReport {
    GateReport { failure: Some(GateFailure { why, at: None }), ..GateReport::default() }
}

/// `None`: deleted since the sample was drawn, or sealed by a build that did not keep what a session began with.
pub async fn recording(brain: &BrainActivities, recorded: &Recorded) -> Result<Option<Recording>, ActivityError> {
    let (reader, store) = (&*brain.reader, &*brain.blobs);
    let opened = match &recorded.sealed {
        Some(manifest) => SessionLog::sealed(store, &recorded.session_id, manifest).await,
        None => SessionLog::open(reader, store, &recorded.session_id).await,
    };
    let read = match opened {
        Ok(mut log) => log.recording(store).await,
        Err(error) => Err(error),
    };
    match read {
        Ok(recording) => Ok(recording),
        Err(
            segment::Error::History(history::Error::NotFound { .. })
            | segment::Error::Blob(blobs::Error::Store { source: store::blobs::Error::Missing { .. }, .. }),
        ) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// `None`: the log lacks something that a commit names.
async fn judged(
    recording: Recording,
    input: &GateInput,
    found: Arc<Found>,
) -> Result<Option<Judgement>, ActivityError> {
    let to = input.to.clone();
    let judged = tokio::task::spawn_blocking(move || judge(&recording, &to, &mut Guarded::new(&to, &found))).await?;
    if let Err(error) = &judged {
        tracing::warn!(error = error as &dyn std::error::Error, "recorded session not shown");
    }
    Ok(judged.ok())
}
