//! What is left of a service that was stopped: its engine's store, and its logs as anyone reads them.

use crate::{bed, client::LoggedEvent, service::data_dir};
use anyhow::ensure;
use engine::{Engine, Options, Store};
use log::{SessionLog, TemporalReader};
use std::{path::Path, sync::Arc};
use store::FolderBlobs;
use temporalio_client::Connection;

/// Examines the embedded engine's store, and then what [`of_log`] does.
pub async fn of_engine(dir: &Path, session: &str, events: &[LoggedEvent]) -> anyhow::Result<usize> {
    let engine = Engine::open(Options::new(Store::Fjall(data_dir(dir).join("engine"))))?;
    let report = engine.verify()?;
    ensure!(report.is_sound(), "the engine's store is damaged: {:#?}", report.problems);
    let runs = of_log(bed::embedded(engine.clone()).await?, bed::NAMESPACE, dir, session, events).await?;
    engine.shutdown().await;
    Ok(runs)
}

/// Reads a session's log from segments and histories: it is what the API showed. Gives the number of its runs.
pub async fn of_log(
    connection: Connection,
    namespace: &str,
    dir: &Path,
    session: &str,
    events: &[LoggedEvent],
) -> anyhow::Result<usize> {
    let blobs = FolderBlobs::open(&data_dir(dir).join("blobs"))?;
    let reader = TemporalReader::new(connection, namespace, Arc::new(blobs.clone()));
    let mut log = SessionLog::open(&reader, &blobs, session).await?;
    let entries = log.slice(&blobs, 0, u64::MAX).await?;
    ensure!(
        entries.iter().map(|entry| &entry.event.id).eq(events.iter().map(|event| &event.id)),
        "the log has other events than the API showed"
    );
    ensure!(
        entries.iter().enumerate().all(|(at, entry)| entry.position == at as u64),
        "positions have a gap or a repeat"
    );
    Ok(log.manifest().count() + log.unsealed_runs().len())
}
