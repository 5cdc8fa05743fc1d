//! Records the kept histories: a small session of each harness of this build, run for real on the embedded engine with
//! a scripted model. `scripts/record-histories` calls it; what is recorded is frozen like the harness itself.

use anyhow::{Context as _, bail};
use domain::Status;
use harness::registry::HARNESSES;
use std::path::Path;
use steadyhand_tests::bed::{Bed, On, confirmation, custom_result, interrupt, message};

/// Every way in which a turn can go: a provider that fails once, tools that run, ask and are the client's, an answer
/// that is empty, and a window that fills.
const SCRIPT: &str = r#"
version = 1
[[rules]]
when = { user_contains = "Write the hand-off" }
answer = [{ text = "half of it is done" }]
[[rules]]
when = { user_contains = "half of it is done" }
answer = [{ text = "done, PLAN COMPLETE" }]
[[rules]]
when = { user_contains = "the last task" }
answer = [{ text = "all done, PLAN COMPLETE" }]
[[rules]]
when = { user_contains = "wait" }
delay_ms = 60000
answer = [{ text = "too late" }]
[[rules]]
when = { results = { max = 0 } }
fault = { kind = "status", status = 529, tries = 1, retry_after_ms = 10 }
usage = { input_tokens = 900, output_tokens = 5 }
answer = [
  { tool = "bash", input = { command = "ls" } },
  { tool = "write", input = { path = "a" } },
  { tool = "lookup", input = { key = "b" } },
]
[[rules]]
answer = [{ text = "done, PLAN COMPLETE" }]
"#;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let dir = std::env::args().nth(1).context("name the folder of the histories")?;
    for harness in HARNESSES {
        let reference = harness.reference();
        let file = Path::new(&dir).join(format!("{reference}.json"));
        if file.exists() {
            continue;
        }
        let bed = Bed::new(On::Memory, SCRIPT).await?;
        bed.start_as("sesn_history", reference, 1_000, vec![message("m1", "the first task")]).await?;
        answer_all(&bed, "a").await?;
        bed.post("sesn_history", vec![message("m2", "wait")]).await?;
        bed.wait("sesn_history", |log| log.summary().is_some_and(|summary| summary.turn == 2)).await?;
        bed.post("sesn_history", vec![interrupt("i1"), message("m3", "the last task")]).await?;
        answer_all(&bed, "b").await?;
        let mut log = bed.idle("sesn_history").await?;
        let recording = log.recording(&*bed.blobs).await?.context("a log says what its session began with")?;
        let report = bed.replay(&mut log).await?;
        if let Some(divergence) = report.divergence {
            bail!("{} does not replay: {divergence:?}", file.display());
        }
        std::fs::write(&file, serde_json::to_vec_pretty(&recording)?)?;
        bed.end().await?;
    }
    Ok(())
}

/// Answers whatever the session asks for until it rests. An id that was sent before would be taken for a redelivery.
async fn answer_all(bed: &Bed, prefix: &str) -> anyhow::Result<()> {
    for round in 0.. {
        let log = bed.idle("sesn_history").await?;
        let summary = log.summary().context("a session has a summary")?;
        if summary.status != Status::RequiresAction {
            return Ok(());
        }
        let mut log = log;
        let entries = bed.entries(&mut log).await?;
        let asked = entries.iter().rev().find_map(|entry| match &entry.event.body {
            domain::EventBody::SessionStatusIdle {
                stop_reason: domain::event::StopReason::RequiresAction { event_ids },
                ..
            } => Some(event_ids.clone()),
            _ => None,
        });
        let mut answers = Vec::new();
        for (index, id) in asked.unwrap_or_default().iter().enumerate() {
            let event = format!("{prefix}{round}_{index}");
            let is_custom = entries
                .iter()
                .any(|entry| entry.event.id == *id && entry.event.body.type_name() == "agent.custom_tool_use");
            answers.push(match is_custom {
                true => custom_result(&event, id, "looked up"),
                false => confirmation(&event, id, None),
            });
        }
        bed.post("sesn_history", answers).await?;
        bed.wait("sesn_history", |log| log.uncommitted().next().is_none()).await?;
    }
    Ok(())
}
