//! Ours, for operators and the CLI: a session's log with its private entries, the diff of its repository, and which
//! part it waits for. What the model saw, and what a harness makes of the record.

mod context;
mod onward;
mod replay;
mod whatif;
mod why;

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::IntoResponse;
use domain::session::OutputFile;
use http::header;
use log::{Committed, blobs};

use self::why::Why;
use super::events::calls::Calls;
use super::hands;
use super::sessions::current::Current;
use super::sessions::{self, DIFF, row};
use crate::app::App;
use crate::error::{ApiError, Result};
use crate::media::{Open, Sent, Text};
use crate::operation::{get, post};
use crate::page::{self, Limits, Order, Page, PageRequest};
use crate::query::{Param, Query};
use crate::router::{Resource, Route};

pub use self::replay::read as recording;
pub use self::whatif::{check_text, requests_max};

pub const RESOURCE: Resource = Resource {
    name: "session inspection",
    routes: &[
        Route {
            path: "/v1/sessions/{session_id}/log",
            methods: || get(commits).query([LIMITS.param(), page::param()]),
        },
        Route { path: "/v1/sessions/{session_id}/diff", methods: || get(diff).query([Param::text("hand")]) },
        Route { path: "/v1/sessions/{session_id}/why", methods: || get(why) },
        Route { path: "/v1/sessions/{session_id}/recording", methods: || get(replay::recording) },
        Route {
            path: "/v1/sessions/{session_id}/replay",
            methods: || get(replay::replay).query([Param::text("harness")]),
        },
        Route { path: "/v1/sessions/{session_id}/context", methods: || get(context::context).query(context::params()) },
        Route { path: "/v1/sessions/{session_id}/whatif", methods: || post(whatif::begin) },
        Route { path: "/v1/sessions/{session_id}/whatif/{trial_id}", methods: || get(whatif::retrieve) },
    ],
};

const LIMITS: Limits = Limits { default: 100, max: 1000 };

/// Commits in order, each with everything that it names. A cursor is the number of a commit and the position behind it.
async fn commits(State(app): State<App>, Path(id): Path<String>, query: Query) -> Result<Json<Page<Open<Committed>>>> {
    row::find(&app, &id).await?;
    let request = PageRequest::of(&query, format!("sessions/{id}/log"), Order::Asc, LIMITS)?;
    let cursor = request.position().map(|text| place(text).ok_or_else(|| ApiError::field("page", "is not a cursor")));
    let after = cursor.transpose()?;
    let followed = app.session(&id);
    let mut commits = Vec::new();
    let mut from = after.map_or(0, |(_, position)| position);
    loop {
        let mut log = followed.fresh().await?;
        let end = log.end_position();
        let to = from.saturating_add(request.limit as u64 + 1);
        let is_last = to > end;
        let read = log.commits(&*app.blobs, from, if is_last { u64::MAX } else { to }).await?;
        let last = commits.last().map(|known: &Arc<Committed>| known.commit.n).or(after.map(|(n, _)| n));
        commits.extend(read.into_iter().filter(|committed| last.is_none_or(|last| committed.commit.n > last)));
        if is_last || commits.len() > request.limit {
            break;
        }
        from = to - 1;
    }
    commits.truncate(request.limit + 1);
    let place = |committed: &Arc<Committed>| {
        format!("{}.{}", committed.commit.n, committed.position + committed.public_events())
    };
    Ok(Json(request.page(commits, place).map(|committed| Open(Arc::unwrap_or_clone(committed)))))
}

fn place(text: &str) -> Option<(u64, u64)> {
    let (n, position) = text.split_once('.')?;
    Some((n.parse().ok()?, position.parse().ok()?))
}

/// Of one of its hands, the main one unless said.
async fn diff(State(app): State<App>, Path(id): Path<String>, query: Query) -> Result<Sent<Text>> {
    row::find(&app, &id).await?;
    let hand = hands::name(query.text("hand")?, "hand")?;
    let current = sessions::read(&app, &id).await?;
    let missing = || ApiError::not_found("diff of session", &id);
    let listing = current.summary.held(&hand).and_then(|held| held.outputs.as_ref()).ok_or_else(missing)?;
    let outputs: Vec<OutputFile> = blobs::get_json(&*app.blobs, listing).await?;
    let diff = outputs.into_iter().find(|output| output.path == DIFF).ok_or_else(missing)?;
    let text = blobs::get(&*app.blobs, &diff.blob).await?;
    Ok(Sent::new(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response()))
}

async fn why(State(app): State<App>, Path(id): Path<String>) -> Result<Json<Why>> {
    row::find(&app, &id).await?;
    let (current, calls) = {
        let followed = app.session(&id);
        let mut log = followed.fresh().await?;
        let calls = Calls::read(&mut log, &*app.blobs).await?;
        (Current::of(&log).ok_or_else(|| ApiError::not_found("session", &id))?, calls)
    };
    let described = match current.is_over() && !current.closing {
        true => None,
        false => Some(app.gateway.describe(&id).await?),
    };
    why::explain(&app, &id, &current, &calls, described).await.map(Json)
}
