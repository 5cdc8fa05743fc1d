//! Ours: rollouts of harnesses. A rollout is a workflow that decides; here its state is followed into a row, sessions are
//! given versions by that row, and what becomes of them is told to the workflow.

mod assign;
mod create;
mod figures;
mod keeper;
mod object;
mod row;

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use domain::agent::HarnessRef;
use domain::rollout::{Command, Order, signal};
use harness::rollout::{Phase, Rollout};
use log::{RolloutLog, history, segment};
use serde_json::{Value, json};

pub use self::assign::{Assigned, assign, default};
pub use self::keeper::keep;
#[cfg(test)]
pub use self::keeper::round;
use self::row::RolloutRow;
pub use self::row::verify;
use crate::app::App;
use crate::error::{ApiError, Result};
use crate::gateway;
use crate::ids;
use crate::listing;
use crate::operation::{get, post};
use crate::page::{self, Limits, Order as PageOrder, Page, PageRequest};
use crate::query::{Query, TimeRange};
use crate::router::{Resource, Route};

pub const RESOURCE: Resource = Resource {
    name: "harness rollouts",
    routes: &[
        Route {
            path: "/v1/harness_rollouts",
            methods: || get(list).query([LIMITS.param(), page::param()]).post(create::create),
        },
        Route { path: "/v1/harness_rollouts/{rollout_id}", methods: || get(retrieve) },
        Route { path: "/v1/harness_rollouts/{rollout_id}/{order}", methods: || post(order) },
    ],
};

const LIMITS: Limits = Limits { default: 20, max: 100 };
/// How long an order may take to be followed before the answer goes without it.
const ORDER_TIME_MAX: Duration = Duration::from_secs(5);

async fn list(State(app): State<App>, query: Query) -> Result<Json<Page<Value>>> {
    let request = PageRequest::of(&query, "harness_rollouts", PageOrder::Desc, LIMITS)?;
    let keep = |row: &RolloutRow| row.started;
    let page = listing::page(&*app.catalog, &row::index(), &request, TimeRange::default(), keep).await?;
    Ok(Json(page.map(|row| object::of(&row))))
}

async fn retrieve(State(app): State<App>, Path(id): Path<String>) -> Result<Json<Value>> {
    fresh(&app, &id).await.map(|row| Json(object::of(&row)))
}

/// The row, after its history was read to the end.
async fn fresh(app: &App, id: &str) -> Result<RolloutRow> {
    let row = row::find(app, id).await?;
    if row.state.is_over() {
        return Ok(row);
    }
    let log = match RolloutLog::<Rollout>::open(&*app.reader, id).await {
        Ok(log) => log,
        Err(segment::Error::History(history::Error::NotFound { .. })) => return Ok(row),
        Err(error) => return Err(error.into()),
    };
    match log.state {
        Some(state) => Ok(row::project(app, id, &state).await?.unwrap_or(row::find(app, id).await?)),
        None => Ok(row),
    }
}

/// `pause`, `resume`, `promote` or `rollback`.
async fn order(State(app): State<App>, Path((id, order)): Path<(String, String)>) -> Result<Json<Value>> {
    let to = match order.as_str() {
        "pause" => Order::Pause,
        "resume" => Order::Resume,
        "promote" => Order::Promote,
        "rollback" => Order::Rollback,
        _ => return Err(ApiError::not_found("order", &order)),
    };
    let row = fresh(&app, &id).await?;
    if row.state.is_over() {
        return Err(over(&row));
    }
    if to == Order::Promote && matches!(row.state.phase, Phase::Gating {}) {
        let possible = if row.state.paused { "resume or rollback" } else { "pause or rollback" };
        let message = format!("the gate is not passed: nothing is promoted before it is; possible now: {possible}");
        return Err(ApiError::conflict(message));
    }
    let command = Command { id: ids::new(ids::ROLLOUT_ORDER), to };
    match app.gateway.signal(&id, signal::COMMAND, &command, &command.id).await {
        Ok(()) => {}
        Err(gateway::Error::NotFound { .. }) => return Err(over(&fresh(&app, &id).await?)),
        Err(error) => return Err(error.into()),
    }
    let followed = tokio::time::timeout(ORDER_TIME_MAX, followed(&app, &id, &command.id)).await;
    // The order is accepted, whether or not a brain worker is there to follow it.
    let is_followed = followed.unwrap_or(Ok(false))?;
    let mut shown = object::of(&fresh(&app, &id).await?);
    shown["order"] = json!({"id": command.id, "is_followed": is_followed});
    Ok(Json(shown))
}

fn over(row: &RolloutRow) -> ApiError {
    let (from, to) = (&row.state.spec.from, &row.state.spec.to);
    ApiError::conflict(match &row.state.phase {
        Phase::Promoted {} => format!("the rollout is over, promoted: to undo it, make one from {to} to {from}"),
        Phase::RolledBack { .. } | Phase::Stopped { .. } => {
            format!("the rollout is over and takes no order: to try {to} again, make another one from {from} to {to}")
        }
        // Its end was heard of before it could be read.
        Phase::Gating {} | Phase::Ramping { .. } => "the rollout is over".to_owned(),
    })
}

/// Until a decision took an order.
async fn followed(app: &App, id: &str, order_id: &str) -> Result<bool> {
    let mut log = RolloutLog::<Rollout>::open(&*app.reader, id).await?;
    loop {
        if log.state.as_ref().is_some_and(|state| state.seen.iter().any(|seen| seen == order_id)) {
            return Ok(true);
        }
        if log.is_closed {
            return Ok(false);
        }
        log.read_on(&*app.reader).await?;
    }
}

/// A rollout that gives sessions this harness, or will.
pub async fn uses(app: &App, harness: &HarnessRef) -> Result<Option<String>> {
    let rows = row::all(app).await?;
    let is_used = |row: &RolloutRow| {
        let spec = &row.state.spec;
        let is_given = !row.state.is_over() || matches!(row.state.phase, Phase::Promoted {});
        is_given && (spec.to == *harness || (spec.from == *harness && !row.state.is_over()))
    };
    Ok(rows.into_iter().find(is_used).map(|row| row.id))
}
