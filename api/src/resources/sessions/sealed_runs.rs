//! Histories of runs that were sealed: on an engine of our own they go an hour after the manifest names them. A cluster
//! has a retention of its own.

use jiff::{SignedDuration, Timestamp};
use log::segment::Segment;
use store::{Batch, Digest, Direction, Durability, Table};

use super::row::SessionRow;
use crate::app::App;
use crate::error::Result;
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
pub async fn delete(app: &App, now: Timestamp) -> Result<u64> {
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
async fn one(app: &App, id: &str) -> Result<bool> {
    let mut parts = id.splitn(3, '/');
    let (Some(session_id), Some(run_id), Some(segment)) = (parts.next(), parts.next(), parts.next()) else {
        return Ok(true);
    };
    let is_there = app.catalog.row::<SessionRow>(session_id).await?.is_some();
    if is_there && let Err(error) = whole(app, segment).await {
        // The history is the only other copy.
        tracing::error!(session_id, run_id, error = error.message(), "a sealed run cannot be read, its history stays");
        return Ok(false);
    }
    app.gateway.delete(session_id, run_id).await?;
    Ok(true)
}

/// Reads a segment against its digest.
async fn whole(app: &App, segment: &str) -> Result<()> {
    let digest: Digest = segment.parse().map_err(crate::error::ApiError::internal)?;
    app.blobs.get(digest).await?;
    Ok(())
}
