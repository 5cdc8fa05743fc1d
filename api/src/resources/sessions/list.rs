//! Listing sessions, out of their rows.

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::State;

use super::current::Current;
use super::object::Session;
use super::row::{self, SessionRow};
use crate::app::App;
use crate::error::{ApiError, Result};
use crate::listing;
use crate::page::{self, Limits, Order, Page, PageRequest, PageWithPrev};
use crate::query::{Param, Query};

/// Not documented; those of the other lists of things made.
const LIMITS: Limits = Limits { default: 20, max: 100 };
const STATUSES: &[&str] = &["idle", "running", "rescheduling", "terminated"];

pub fn params() -> [Param; 10] {
    [
        LIMITS.param(),
        page::param(),
        Order::param(),
        Param::times("created_at"),
        Param::text("agent_id"),
        Param::number("agent_version", 0..=u32::MAX.into()),
        Param::text("deployment_id"),
        Param::text("memory_store_id"),
        Param::choices("statuses", STATUSES),
        Param::flag("include_archived"),
    ]
}

struct Filter {
    agent_id: Option<String>,
    agent_version: Option<u32>,
    statuses: BTreeSet<String>,
    archived: bool,
    /// Filters for what no session of this service has.
    nothing: bool,
}

impl Filter {
    fn of(query: &Query) -> Result<Self> {
        let statuses: BTreeSet<String> = query.list("statuses").into_iter().map(str::to_owned).collect();
        if let Some(unknown) = statuses.iter().find(|status| !STATUSES.contains(&status.as_str())) {
            return Err(ApiError::field("statuses", format!("{unknown} is not a status of a session")));
        }
        let agent_id = query.text("agent_id")?.map(str::to_owned);
        let agent_version = query.parsed("agent_version", "a version number")?;
        if agent_version.is_some() && agent_id.is_none() {
            return Err(ApiError::field("agent_version", "goes with agent_id only"));
        }
        let nothing = query.text("deployment_id")?.is_some() || query.text("memory_store_id")?.is_some();
        Ok(Self { agent_id, agent_version, statuses, archived: query.flag("include_archived")?, nothing })
    }

    fn keeps(&self, row: &SessionRow) -> bool {
        let status = row.projection.as_ref().map(|projection| projection.status.public());
        row.is_there()
            && !self.nothing
            && (self.archived || row.archived_at.is_none())
            && self.agent_id.as_ref().is_none_or(|id| row.agent_id == *id)
            && self.agent_version.is_none_or(|version| row.agent_version == version)
            && (self.statuses.is_empty() || status.is_some_and(|status| self.statuses.contains(status)))
    }
}

pub async fn list(State(app): State<App>, query: Query) -> Result<Json<PageWithPrev<Session>>> {
    let order = Order::of(&query, Order::Desc)?;
    let request = PageRequest::of(&query, "sessions", order, LIMITS)?;
    let filter = Filter::of(&query)?;
    let times = query.times("created_at")?;
    let page =
        listing::page(&*app.catalog, &row::index(), &request, times, |row: &SessionRow| filter.keeps(row)).await?;
    let mut data = Vec::with_capacity(page.data.len());
    for row in &page.data {
        data.push(Session::of(&app, row, current(&app, row).await?).await?);
    }
    Ok(Json(Page { data, next_page: page.next_page, prev_page: page.prev_page }.with_prev()))
}

/// As the row has it; a row whose projection was dropped is read anew.
async fn current(app: &App, row: &SessionRow) -> Result<Current> {
    match &row.projection {
        Some(projection) => {
            let (summary, status) = (projection.summary.clone(), projection.status);
            Ok(Current { summary, status, closing: false })
        }
        None => super::read(app, &row.id).await,
    }
}
