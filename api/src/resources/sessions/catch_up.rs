//! What a service does first: finish what an earlier one left half done, and read on where something may have happened.

use futures::{StreamExt, stream};
use jiff::Timestamp;
use store::{Direction, Durability, KeyRange};

use super::end;
use super::row::{self, SessionRow};
use crate::app::App;
use crate::error::Result;
use crate::gateway;

/// Sessions that are looked at side by side.
const AT_ONCE: usize = 8;
const ROWS: usize = 500;

/// Goes through the rows of all sessions that were made before `before`: erases the deleted ones, settles the ones of
/// which only the id is known, and follows those that were not at rest.
pub async fn catch_up(app: &App, before: Timestamp) -> Result<()> {
    let mut range = KeyRange::all();
    loop {
        let rows = app.catalog.rows::<SessionRow>(range.clone(), Direction::Forward, ROWS).await?;
        let Some(last) = rows.last().map(|read| read.key.clone()) else { return Ok(()) };
        let rows = rows.into_iter().map(|read| read.row).filter(|row| row.created_at < before);
        stream::iter(rows)
            .for_each_concurrent(AT_ONCE, async |row| {
                if let Err(error) = settle(app, &row).await {
                    tracing::warn!(session_id = row.id, error = error.message(), "session not caught up with");
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
    if row.projection.as_ref().is_none_or(|projection| projection.open) || !row.started {
        // Reads to the end before it goes on, so that this many are read at once and no more.
        drop(app.follower.session(&row.id).fresh().await?);
        app.follower.follow(&row.id);
    }
    Ok(())
}
