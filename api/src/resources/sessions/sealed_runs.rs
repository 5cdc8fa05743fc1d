//! Histories of runs that were sealed: on an engine of our own they go an hour after the manifest names them. A cluster
//! has a retention of its own.

use jiff::{SignedDuration, Timestamp};
use log::blobs;
use log::manifest::Manifest;
use log::segment::{self, Segment};
use store::{Batch, Direction, Durability, Table};

use super::row::SessionRow;
use crate::app::App;
use crate::error::ApiError;
use crate::listing::Index;

/// Whoever reads a run has this long to find that it is sealed.
const GRACE: SignedDuration = SignedDuration::from_hours(1);
/// Runs by the time when they were found sealed: session, run and segment.
const SEALED_RUNS: Table = Table::new("sealed_runs");
const STRIDE: usize = 500;

/// Adds that a run was found sealed; in the same batch as the reference to its segment.
pub fn insert(batch: Batch, session_id: &str, segment: &Segment, at: Timestamp) -> Batch {
    let id = format!("{session_id}/{}/{}", segment.run_id, segment.blob.blob);
    Index::new(SEALED_RUNS).insert(batch, at, &id)
}

/// Deletes the runs that were found sealed long enough before `now`. Gives their number.
pub async fn delete(app: &App, now: Timestamp) -> Result<u64, ApiError> {
    let (mut deleted, mut range) = (0, Index::new(SEALED_RUNS).until(now - GRACE));
    loop {
        let entries = app.catalog.scan(SEALED_RUNS, range.clone(), Direction::Forward, STRIDE).await?;
        let Some(last) = entries.last() else { return Ok(deleted) };
        range = range.after(last.key.to_vec(), Direction::Forward);
        for entry in entries {
            if one(app, &String::from_utf8_lossy(&entry.value)).await? {
                let batch = Batch::new().delete(SEALED_RUNS, entry.key.to_vec());
                app.catalog.write(batch, Durability::Lazy).await?;
                deleted += 1;
            }
        }
    }
}

/// True once the run is gone.
async fn one(app: &App, id: &str) -> Result<bool, ApiError> {
    let mut parts = id.splitn(3, '/');
    let (Some(session_id), Some(run_id), Some(segment)) = (parts.next(), parts.next(), parts.next()) else {
        return Ok(true);
    };
    if let Some(read) = app.catalog.row::<SessionRow>(session_id).await?
        && let Err(error) = whole(app, &read.row, run_id, segment).await
    {
        // The history is the only other copy.
        let error = &error as &dyn std::error::Error;
        tracing::error!(session_id, run_id, error, "a sealed run cannot be read, its history stays");
        return Ok(false);
    }
    app.gateway.delete(session_id, run_id).await?;
    Ok(true)
}

/// Why the history of a sealed run has to stay.
#[derive(Debug, thiserror::Error)]
enum Incomplete {
    #[error("the session's row names no manifest")]
    NoManifest,
    #[error("the manifest does not list the run")]
    NotListed,
    #[error("the manifest does not say what the session began with")]
    NoGenesis,
    #[error(transparent)]
    Unreadable(#[from] blobs::Error),
    #[error(transparent)]
    Unlisted(#[from] segment::Error),
}

/// Reads a segment against its digest, and the manifest by which readers find it.
async fn whole(app: &App, row: &SessionRow, run_id: &str, segment: &str) -> Result<(), Incomplete> {
    let newest = row.projection.as_ref().and_then(|projection| projection.summary.manifest.as_ref());
    let manifest = row.sealed.as_ref().or(newest).ok_or(Incomplete::NoManifest)?;
    let manifest: Manifest = blobs::get_json(&*app.blobs, manifest).await?;
    let listed = manifest.find(&*app.blobs, run_id).await?;
    let listed = listed.filter(|listed| listed.blob.blob == segment).ok_or(Incomplete::NotListed)?;
    // It was in the first run, and replay starts from it.
    manifest.genesis.as_ref().ok_or(Incomplete::NoGenesis)?;
    for blob in listed.blobs() {
        blobs::get(&*app.blobs, blob).await?;
    }
    Ok(())
}
