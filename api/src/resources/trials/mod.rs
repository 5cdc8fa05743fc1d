//! Trials: workflows that go through recorded sessions again ([`harness::whatif`]). What they find stands in their history; the
//! row says whose they are, and goes with the history after a week.

pub mod claims;
mod places;

use std::time::Duration;

use domain::limits::TRIALS_OF_A_TENANT_MAX;
use domain::trial::{TrialInput, Tried};
use harness::whatif::{Input, Report};
use jiff::{SignedDuration, Timestamp};
use log::trial::{self, Ended};
use log::{history, segment};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use store::catalog::Error as CatalogError;
use store::{Batch, Catalog, Direction, Durability, Record, Table, Versioned};

use crate::app::App;
use crate::error::{ApiError, Kind, Result};
use crate::gateway;
use crate::listing::{self, Index};
use crate::verify;

const BY_TIME: Table = Table::new("trials_by_time");
/// How long what was found can be asked for.
const KEPT: SignedDuration = SignedDuration::from_hours(7 * 24);
/// How long an answer waits for a trial to be over.
pub const WAIT: Duration = Duration::from_secs(15);
const STRIDE: usize = 500;
/// When somebody who found no place may look again.
const RETRY_AFTER_S: u64 = 30;

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct TrialRow {
    pub id: String,
    pub created_at: Timestamp,
    /// What it was made for: a session, or a harness.
    pub subject: String,
    /// What was asked for, as whoever asks again needs it.
    pub asked: Value,
    /// The session that goes on where the record cannot answer, once it has to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fork: Option<String>,
}

impl Record for TrialRow {
    const TABLE: Table = Table::new("trials");
    const VERSION: u32 = 1;
}

/// What is known of a trial.
pub enum Found {
    Running,
    Done(Vec<Tried<Report>>),
    /// It was ended, or its history is gone.
    Broken,
}

fn index() -> Index {
    Index::new(BY_TIME)
}

/// Starts one. The id was made by whoever asks, as the trials in it are named by it.
pub async fn begin(app: &App, row: &TrialRow, trials: Vec<Input>) -> Result<()> {
    note(app, row).await?;
    let started = app.gateway.start_trial(&TrialInput { trial_id: row.id.clone(), trials }).await;
    match started {
        Ok(()) => Ok(()),
        Err(error) if error.is_refusal() => {
            remove(app, &row.id).await?;
            Err(error.into())
        }
        // It may be running, and cost money: whoever asks can look, and must not begin it twice unawares.
        Err(error) => Err(ApiError::unavailable(format!("whether {} has begun is not known: ask for it", row.id))
            .should_retry(false)
            .detail("trial_id", row.id.as_str())
            .inner(error)),
    }
}

/// Writes the row, and takes a place for the trial.
async fn note(app: &App, row: &TrialRow) -> Result<()> {
    loop {
        let batch = index().insert(Batch::new().insert(&row.id, row), row.created_at, &row.id);
        let Some(batch) = places::take(app, batch, &row.id, TRIALS_OF_A_TENANT_MAX).await? else {
            let message =
                format!("{TRIALS_OF_A_TENANT_MAX} what-ifs and ablations are under way: wait for one to be over");
            return Err(ApiError::new(Kind::RateLimit, message).retry_after_s(RETRY_AFTER_S));
        };
        match app.catalog.write(batch, Durability::Synced).await {
            // Somebody else took that place.
            Err(CatalogError::Conflict { .. }) => {}
            written => return Ok(written?),
        }
    }
}

pub async fn find(app: &App, id: &str, subject: &str) -> Result<TrialRow> {
    let row = app.catalog.row::<TrialRow>(id).await?.map(|read| read.row);
    row.filter(|row| row.subject == subject).ok_or_else(|| ApiError::not_found("trial", id))
}

/// What came of it, or that it is still going on.
pub async fn look(app: &App, id: &str) -> Result<Found> {
    match tokio::time::timeout(WAIT, trial::ended(&*app.reader, id)).await {
        Ok(Ok(Ended::Done(tried))) => Ok(Found::Done(tried)),
        Ok(Ok(Ended::Broken) | Err(segment::Error::History(history::Error::NotFound { .. }))) => Ok(Found::Broken),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Ok(Found::Running),
    }
}

async fn remove(app: &App, id: &str) -> Result<()> {
    loop {
        let Some(read) = app.catalog.row::<TrialRow>(id).await? else { return Ok(()) };
        let batch = index().remove(Batch::new().remove(&read), read.row.created_at, id);
        let batch = places::leave(app, batch, id, TRIALS_OF_A_TENANT_MAX).await?;
        match app.catalog.write(batch, Durability::Lazy).await {
            // Somebody else took its place meanwhile.
            Err(CatalogError::Conflict { .. }) => {}
            written => return Ok(written?),
        }
    }
}

/// Notes which blobs the histories of trials need: before anything is swept.
pub async fn refer(app: &App) -> Result<()> {
    let mut range = index().all();
    loop {
        let entries = app.catalog.scan(BY_TIME, range.clone(), Direction::Forward, STRIDE).await?;
        let Some(last) = entries.last() else { return Ok(()) };
        range = range.after(last.key.to_vec(), Direction::Forward);
        for entry in entries {
            let id = String::from_utf8_lossy(&entry.value);
            let batch = claims::refer(app, Batch::new(), &id).await?;
            if !batch.puts.is_empty() {
                app.catalog.write(batch, Durability::Synced).await?;
            }
        }
    }
}

/// Removes trials that nobody asks for any more, and their histories. Gives their number.
pub async fn forget(app: &App, now: Timestamp) -> Result<u64> {
    let (mut forgotten, mut range) = (0, index().until(now - KEPT));
    loop {
        let entries = app.catalog.scan(BY_TIME, range.clone(), Direction::Forward, STRIDE).await?;
        let Some(last) = entries.last() else { return Ok(forgotten) };
        range = range.after(last.key.to_vec(), Direction::Forward);
        for entry in entries {
            let id = String::from_utf8_lossy(&entry.value).into_owned();
            match app.gateway.terminate(&id, "the trial was forgotten").await {
                Ok(()) | Err(gateway::Error::NotFound { .. }) => {}
                Err(error) => return Err(error.into()),
            }
            let batch = claims::release(app, Batch::new(), &id).await?;
            app.catalog.write(batch, Durability::Lazy).await?;
            match app.gateway.describe(&id).await {
                Ok(described) => {
                    let run = described.workflow_execution_info.and_then(|info| info.execution).unwrap_or_default();
                    app.gateway.delete(&id, &run.run_id).await?;
                }
                Err(gateway::Error::NotFound { .. }) => {}
                Err(error) => return Err(error.into()),
            }
            remove(app, &id).await?;
            forgotten += 1;
        }
    }
}

/// Every trial is in the index, and every place is a trial's.
pub async fn verify(catalog: &dyn Catalog, problems: &mut Vec<String>) -> Result<()> {
    verify::each(catalog, problems, async |read: Versioned<TrialRow>, problems| {
        index().verify::<TrialRow>(catalog, read.row.created_at, &read.row.id, problems).await
    })
    .await?;
    listing::verify::<TrialRow>(catalog, BY_TIME, problems).await?;
    places::verify(catalog, problems).await
}
