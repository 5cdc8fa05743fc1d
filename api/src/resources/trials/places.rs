//! How many trials a tenant may have at a time. Each takes one of a fixed number of places, which it keeps until it is over; nobody
//! tells the api when that is, so whoever finds no place free looks whether one has become free.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use store::{Batch, Catalog, Record, Table, Versioned};
use temporalio_common::protos::temporal::api::enums::v1::WorkflowExecutionStatus;

use super::TrialRow;
use crate::app::App;
use crate::error::Result;
use crate::gateway;
use crate::verify;

/// A trial that the engine does not know may be about to be started for as long.
const STARTING: SignedDuration = SignedDuration::from_secs(60);

/// Under its number: which trial has it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Place {
    trial_id: String,
    taken_at: Timestamp,
}

impl Record for Place {
    const TABLE: Table = Table::new("trial_places");
    const VERSION: u32 = 1;
}

/// Adds to the batch that the trial takes a place. `None`: there is none free.
pub async fn take(app: &App, batch: Batch, trial_id: &str, places: usize) -> Result<Option<Batch>> {
    let taken = Place { trial_id: trial_id.to_owned(), taken_at: app.clock.now() };
    let mut held = Vec::new();
    for number in 0..places {
        let key = number.to_string();
        match app.catalog.row::<Place>(&key).await? {
            None => return Ok(Some(batch.insert(&key, &taken))),
            Some(place) => held.push(place),
        }
    }
    for place in held {
        if !is_on(app, &place).await? {
            return Ok(Some(batch.replace(&place, &taken)));
        }
    }
    Ok(None)
}

/// Adds to the batch that the trial leaves its place, if it still has one.
pub async fn leave(app: &App, mut batch: Batch, trial_id: &str, places: usize) -> Result<Batch> {
    for number in 0..places {
        if let Some(place) = app.catalog.row::<Place>(number.to_string()).await?
            && place.row.trial_id == trial_id
        {
            batch = batch.remove(&place);
        }
    }
    Ok(batch)
}

/// Every place is of a trial that is there.
pub async fn verify(catalog: &dyn Catalog, problems: &mut Vec<String>) -> Result<()> {
    verify::each(catalog, problems, async |read: Versioned<Place>, problems| {
        let trial_id = &read.row.trial_id;
        if catalog.get(TrialRow::TABLE, trial_id.as_bytes()).await?.is_none() {
            problems.push(format!("{} leads to {trial_id}, which is not there", Place::TABLE.name()));
        }
        Ok(())
    })
    .await
}

async fn is_on(app: &App, place: &Versioned<Place>) -> Result<bool> {
    let Place { trial_id, taken_at } = &place.row;
    match app.gateway.describe(trial_id).await {
        Ok(described) => {
            let status = described.workflow_execution_info.map(|info| info.status());
            Ok(status == Some(WorkflowExecutionStatus::Running))
        }
        Err(gateway::Error::NotFound { .. }) => Ok(app.clock.now() < *taken_at + STARTING),
        Err(error) => Err(error.into()),
    }
}
