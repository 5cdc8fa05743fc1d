//! Rows of rollouts: the state as the history told it last, and beside it the little that making a session reads.

use domain::agent::HarnessRef;
use harness::rollout::{Phase, Rollout};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use store::catalog::Error as CatalogError;
use store::{Batch, Catalog, Direction, Durability, KeyRange, Record, Table, Versioned};

use crate::app::App;
use crate::error::{ApiError, Result};
use crate::listing::{self, Index};
use crate::{references, verify};

const BY_TIME: Table = Table::new("rollouts_by_time");
/// More than anybody makes; routes of all of them are read for a new session.
const ROUTES_MAX: usize = 10_000;

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct RolloutRow {
    pub id: String,
    pub created_at: Timestamp,
    pub state: Rollout,
    /// The workflow was started. Without it the id is only reserved.
    pub started: bool,
    /// The share for which every session that has to be swapped was told so.
    pub swapped: Share,
}

impl Record for RolloutRow {
    const TABLE: Table = Table::new("rollouts");
    const VERSION: u32 = 1;
}

/// Who has the new version, as far as sessions are concerned.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Share {
    Percent(u8),
    /// Nobody is to have it any more.
    Withdrawn,
}

/// What a new session is given. Changes with the stage alone: a session is reserved on the condition that it did not.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct RouteRow {
    pub rollout_id: String,
    pub created_at: Timestamp,
    pub from: HarnessRef,
    pub to: HarnessRef,
    pub agent_id: Option<String>,
    pub percent: u8,
    pub is_over: bool,
}

impl Record for RouteRow {
    const TABLE: Table = Table::new("rollout_routes");
    const VERSION: u32 = 1;
}

impl RolloutRow {
    pub fn share(&self) -> Share {
        match self.state.phase {
            Phase::RolledBack { .. } => Share::Withdrawn,
            _ => Share::Percent(self.state.percent()),
        }
    }

    /// Whether nothing is left to be done about it.
    pub fn is_settled(&self) -> bool {
        self.state.is_over() && self.swapped == self.share()
    }

    fn route(&self) -> RouteRow {
        let spec = &self.state.spec;
        RouteRow {
            rollout_id: self.id.clone(),
            created_at: self.created_at,
            from: spec.from.clone(),
            to: spec.to.clone(),
            agent_id: spec.agent_id.clone(),
            percent: self.state.percent(),
            is_over: self.state.is_over(),
        }
    }
}

pub fn index() -> Index {
    Index::new(BY_TIME)
}

/// Adds a new rollout to a batch. Nobody gets anything from it yet.
pub fn insert(batch: Batch, row: &RolloutRow) -> Batch {
    let batch = batch.insert(&row.id, row).insert(&row.id, &row.route());
    let batch = index().insert(batch, row.created_at, &row.id);
    match row.state.spec.gate.sample.blob.parse() {
        Ok(digest) => references::insert(batch, digest, &row.id),
        Err(_) => batch,
    }
}

/// Removes a rollout of which only the id was taken.
pub async fn forget(app: &App, row: &RolloutRow) -> Result<()> {
    let Some(read) = app.catalog.row::<RolloutRow>(&row.id).await? else { return Ok(()) };
    let batch = Batch::new().remove(&read).delete(RouteRow::TABLE, row.id.as_str());
    let batch = index().remove(batch, row.created_at, &row.id);
    let batch = match row.state.spec.gate.sample.blob.parse() {
        Ok(digest) => references::remove(batch, digest, &row.id),
        Err(_) => batch,
    };
    Ok(app.catalog.write(batch, Durability::Synced).await?)
}

pub async fn find(app: &App, id: &str) -> Result<RolloutRow> {
    let row = app.catalog.row::<RolloutRow>(id).await?.map(|read| read.row);
    row.ok_or_else(|| ApiError::not_found("rollout", id))
}

/// All of them, oldest first.
pub async fn all(app: &App) -> Result<Vec<RolloutRow>> {
    let rows = app.catalog.rows::<RolloutRow>(KeyRange::all(), Direction::Forward, ROUTES_MAX).await?;
    let mut rows: Vec<RolloutRow> = rows.into_iter().map(|read| read.row).collect();
    rows.sort_by_key(|row| (row.created_at, row.id.clone()));
    Ok(rows)
}

/// The routes of all of them, oldest first.
pub async fn routes(app: &App) -> Result<Vec<Versioned<RouteRow>>> {
    let mut routes = app.catalog.rows::<RouteRow>(KeyRange::all(), Direction::Forward, ROUTES_MAX).await?;
    routes.sort_by_key(|read| (read.row.created_at, read.row.rollout_id.clone()));
    Ok(routes)
}

/// Writes what `decide` makes of the row, and its route with it if that is another one then.
pub async fn change(
    catalog: &dyn Catalog,
    id: &str,
    decide: impl Fn(&RolloutRow) -> Option<RolloutRow>,
) -> Result<Option<RolloutRow>, CatalogError> {
    loop {
        let Some(read) = catalog.row::<RolloutRow>(id).await? else { return Ok(None) };
        let Some(row) = decide(&read.row) else { return Ok(None) };
        let mut batch = Batch::new().replace(&read, &row);
        // A change of who gets what is on disk before anything goes by it.
        let mut durability = Durability::Lazy;
        if row.route() != read.row.route() {
            batch = batch.upsert(id, &row.route());
            durability = Durability::Synced;
        }
        match catalog.write(batch, durability).await {
            Err(CatalogError::Conflict { .. }) => {}
            written => return written.map(|()| Some(row)),
        }
    }
}

/// Brings the row up to a state that the history told of.
pub async fn project(app: &App, id: &str, state: &Rollout) -> Result<Option<RolloutRow>> {
    let newer = |row: &RolloutRow| {
        let is_newer = state.n > row.state.n || !row.started;
        is_newer.then(|| RolloutRow { state: state.clone(), started: true, ..row.clone() })
    };
    Ok(change(&*app.catalog, id, newer).await?)
}

/// Every rollout is in the index and has its route.
pub async fn verify(catalog: &dyn Catalog, problems: &mut Vec<String>) -> Result<()> {
    verify::each(catalog, problems, async |read: Versioned<RolloutRow>, problems| {
        let row = &read.row;
        if catalog.row::<RouteRow>(&row.id).await?.is_none_or(|route| route.row != row.route()) {
            problems.push(format!("rollouts {}: has no route, or one of another stage", row.id));
        }
        index().verify::<RolloutRow>(catalog, row.created_at, &row.id, problems).await
    })
    .await?;
    listing::verify::<RolloutRow>(catalog, BY_TIME, problems).await
}
