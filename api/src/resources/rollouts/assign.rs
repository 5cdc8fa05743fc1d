//! Which harness a new session gets, and which sessions take part in which rollout.

use domain::agent::HarnessRef;
use harness::registry;
use harness::rollout::is_among;
use serde::{Deserialize, Serialize};
use store::{Batch, Catalog, Direction, KeyRange, Record, Table, Versioned};

use super::figures::Counts;
use super::row::{self, RouteRow};
use crate::app::App;
use crate::error::Result;

const STRIDE: usize = 500;

/// A session that takes part in a rollout, under `ROLLOUT/SESSION`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct EnrolledRow {
    pub session_id: String,
    pub arm: Arm,
    /// What the session had behind it when it was given its version.
    pub base: Counts,
    /// What it did with the old version within the rollout, before it was swapped.
    #[serde(default)]
    pub before: Counts,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Arm {
    Old,
    New,
}

impl Record for EnrolledRow {
    const TABLE: Table = Table::new("rollout_sessions");
    const VERSION: u32 = 1;
}

pub fn key(rollout_id: &str, session_id: &str) -> String {
    format!("{rollout_id}/{session_id}")
}

/// What a session that asked for no harness is given.
pub struct Assigned {
    pub harness: HarnessRef,
    /// What it was decided on: the rollouts that are under way.
    decided_on: Vec<Versioned<RouteRow>>,
    enrolled: Option<(String, EnrolledRow)>,
}

impl Assigned {
    /// A harness that was asked for by name.
    pub fn named(harness: HarnessRef) -> Self {
        Assigned { harness, decided_on: Vec::new(), enrolled: None }
    }

    /// Adds to the batch that reserves the session; it fails if a stage changed in between.
    pub fn keep(&self, mut batch: Batch) -> Batch {
        for read in &self.decided_on {
            batch = batch.unchanged(read);
        }
        match &self.enrolled {
            Some((rollout_id, row)) => batch.insert(key(rollout_id, &row.session_id), row),
            None => batch,
        }
    }
}

/// Goes through the rollouts in the order in which they were made: each takes a session that has its old version on to the
/// new one, if the session is among those that have it.
pub async fn assign(app: &App, session_id: &str, agent_id: &str, default: HarnessRef) -> Result<Assigned> {
    let mut assigned = Assigned::named(default);
    for read in row::routes(app).await? {
        let route = &read.row;
        let is_meant = route.agent_id.as_deref().is_none_or(|agent| agent == agent_id);
        if !is_meant || route.from != assigned.harness {
            continue;
        }
        let is_new = is_among(session_id, route.percent);
        if is_new {
            assigned.harness = route.to.clone();
        }
        if !route.is_over && route.percent > 0 {
            let arm = if is_new { Arm::New } else { Arm::Old };
            let (base, before) = (Counts::default(), Counts::default());
            let row = EnrolledRow { session_id: session_id.to_owned(), arm, base, before };
            assigned.enrolled = Some((route.rollout_id.clone(), row));
        }
        if !route.is_over {
            assigned.decided_on.push(read);
        }
    }
    Ok(assigned)
}

/// What every agent's new sessions get that ask for none: this build's own, and where rollouts that are promoted have led from it.
pub async fn default(app: &App) -> Result<HarnessRef> {
    let mut default = registry::default_harness();
    for read in row::routes(app).await? {
        let route = &read.row;
        if route.agent_id.is_none() && route.percent == 100 && route.from == default {
            default.clone_from(&route.to);
        }
    }
    Ok(default)
}

/// Everyone who takes part in a rollout.
pub async fn enrolled(catalog: &dyn Catalog, rollout_id: &str) -> Result<Vec<EnrolledRow>> {
    let mut enrolled = Vec::new();
    let mut range = KeyRange::prefix(format!("{rollout_id}/"));
    loop {
        let rows = catalog.rows::<EnrolledRow>(range.clone(), Direction::Forward, STRIDE).await?;
        let Some(last) = rows.last() else { return Ok(enrolled) };
        range = range.after(last.key.to_vec(), Direction::Forward);
        enrolled.extend(rows.into_iter().map(|read| read.row));
    }
}
