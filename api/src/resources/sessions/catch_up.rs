//! What a service does first and then now and again: finish what was left half done, and read on where something may
//! have happened that no row tells of.

use std::sync::atomic::{AtomicU64, Ordering};

use domain::Status;
use futures::{StreamExt, stream};
use jiff::Timestamp;
use store::{Direction, Durability, KeyRange};

use super::end;
use super::mcp;
use super::row::{self, ReadTo, SessionRow};
use crate::app::App;
use crate::error::{ApiError, Result};
use crate::gateway;
use crate::resources::environments::work::queue;

/// Sessions that are looked at side by side.
const AT_ONCE: usize = 8;
const ROWS: usize = 500;

/// Goes through the rows of all sessions that were made before `before`: erases the deleted ones, settles the ones of
/// which only the id is known, and reads those on that have news. Gives the number of those with which it failed: where
/// there are none, every session refers to all that its log needed when this began.
pub async fn catch_up(app: &App, before: Timestamp) -> Result<u64> {
    let failed = AtomicU64::new(0);
    let mut range = KeyRange::all();
    loop {
        let rows = app.catalog.rows::<SessionRow>(range.clone(), Direction::Forward, ROWS).await?;
        let Some(last) = rows.last().map(|read| read.key.clone()) else { return Ok(failed.into_inner()) };
        let rows = rows.into_iter().map(|read| read.row).filter(|row| row.created_at < before);
        stream::iter(rows)
            .for_each_concurrent(AT_ONCE, async |row| {
                if let Err(error) = settle(app, &row).await {
                    tracing::warn!(session_id = row.id, error = error.message(), "session not caught up with");
                    failed.fetch_add(1, Ordering::Relaxed);
                }
            })
            .await;
        range = range.after(last, Direction::Forward);
    }
}

/// Brings one session to where its row says that it should be.
pub async fn settle(app: &App, row: &SessionRow) -> Result<()> {
    if row.deleted {
        return end::erase(app, &row.id).await;
    }
    if !row.started {
        match app.gateway.describe(&row.id).await {
            Ok(_) => {
                row::change(&*app.catalog, &row.id, Durability::Lazy, |row, batch| {
                    Some((SessionRow { started: true, ..row.clone() }, batch))
                })
                .await?;
            }
            Err(gateway::Error::NotFound { .. }) => return end::forget(app, &row.id).await,
            Err(error) => return Err(error.into()),
        }
    }
    if !row.started || has_news(app, row).await? {
        // Reads to the end before it goes on, so that this many are read at once and no more.
        let is_kept = app.follower.session(&row.id).keep().await?;
        if !is_kept {
            return Err(ApiError::unavailable("the row of a session could not be written"));
        }
        let followed = app.follower.follow(&row.id);
        mcp::settle_again(app, &row.id, &*followed.fresh().await?);
    }
    // A request that was taken when the service was killed may not have come to asking for a worker.
    if let Some(known) = row.projection.as_ref().filter(|_| row.archived_at.is_none())
        && known.summary.attributes.self_hosted
    {
        let may_wait = known.open || known.status == Status::RequiresAction;
        queue::make_up(app, &row.id, &known.summary.attributes.environment_id, may_wait).await?;
    }
    Ok(())
}

/// Whether there may be more in the log than in the row. A signal that was taken when the service was killed is.
async fn has_news(app: &App, row: &SessionRow) -> Result<bool> {
    if row.sealed.is_some() {
        return Ok(row.projection.is_none());
    }
    let Some(read_to) = row.projection.as_ref().filter(|known| !known.open).and_then(|known| known.read_to.as_ref())
    else {
        return Ok(true);
    };
    let described = app.gateway.describe(&row.id).await?.workflow_execution_info.unwrap_or_default();
    let run_id = described.execution.unwrap_or_default().run_id;
    Ok(*read_to != ReadTo { run_id, history_events: described.history_length })
}
