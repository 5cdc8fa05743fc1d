//! The end of a session: archived, it keeps its log and takes nothing more; deleted, it leaves nothing.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use domain::session::{Close, signal};
use log::SessionLog;
use log::follow::Update;
use store::catalog::Error as CatalogError;
use store::{Batch, Durability};
use tokio::sync::broadcast::error::RecvError;

use super::object::Session;
use super::row::{self, SessionRow};
use crate::app::App;
use crate::egress;
use crate::error::{ApiError, Result};
use crate::gateway;
use crate::resources::deleted::{Deleted, deleted};
use crate::resources::environments::work::queue;
use crate::resources::files::{self, FileRow};

/// How long a session may take to come to its end. It is mostly the hand that has to be released.
const END_TIME_MAX: Duration = Duration::from_secs(30);
/// How many rows are removed in one go.
const STRIDE: usize = 500;

pub async fn archive(State(app): State<App>, Path(id): Path<String>) -> Result<Json<Session>> {
    let row = row::find(&app, &id).await?;
    if row.archived_at.is_some() {
        let current = super::read(&app, &id).await?;
        return Ok(Json(Session::of(&app, &row, current).await?));
    }
    check_rests(&app, &id, "archived").await?;
    close(&app, &id).await?;
    queue::end(&app, &id).await?;
    egress::close(&app, &id).await?;
    let now = app.clock.now();
    let archived = row::change(&*app.catalog, &id, Durability::Synced, |row, batch| {
        let archived_at = row.archived_at.or(Some(now));
        Some((SessionRow { archived_at, ..row.clone() }, batch))
    })
    .await?;
    let row = archived.ok_or_else(|| ApiError::not_found("session", &id))?;
    let current = super::read(&app, &id).await?;
    Ok(Json(Session::of(&app, &row, current).await?))
}

async fn check_rests(app: &App, id: &str, what: &str) -> Result<()> {
    let current = super::read(app, id).await?;
    if current.rests() || current.is_over() {
        return Ok(());
    }
    let message = format!("the session is {} and cannot be {what}: interrupt it first", current.status.public());
    Err(ApiError::invalid(message))
}

/// Tells the session to end and waits until its log says so.
async fn close(app: &App, id: &str) -> Result<()> {
    let followed = app.session(id);
    let mut updates = followed.subscribe();
    followed.follow();
    let close = Close { id: format!("close-{id}") };
    match app.gateway.signal(id, signal::CLOSE, &close, &close.id).await {
        Ok(()) => {}
        // It ended before.
        Err(gateway::Error::NotFound { .. }) => return Ok(()),
        Err(error) => return Err(error.into()),
    }
    followed.follow();
    let ended = async {
        loop {
            match updates.recv().await {
                Ok(Update::Closed) | Err(RecvError::Closed) => return Ok(()),
                Err(RecvError::Lagged(_)) if followed.fresh().await?.is_closed() => return Ok(()),
                Ok(_) | Err(RecvError::Lagged(_)) => {}
            }
        }
    };
    match tokio::time::timeout(END_TIME_MAX, ended).await {
        Ok(ended) => ended,
        Err(_) => Err(ApiError::unavailable(
            "the session was told to end and no brain worker has ended it yet: see that one runs, and try again",
        )),
    }
}

pub async fn delete(State(app): State<App>, Path(id): Path<String>) -> Result<Json<Deleted>> {
    row::find(&app, &id).await?;
    check_rests(&app, &id, "deleted").await?;
    row::change(&*app.catalog, &id, Durability::Synced, |row, batch| {
        Some((SessionRow { deleted: true, ..row.clone() }, batch))
    })
    .await?;
    queue::end(&app, &id).await?;
    app.deltas.deleted(&id);
    // For clients it is gone. What is left goes even if this one does not wait for it.
    let erased = tokio::spawn({
        let (app, id) = (app.clone(), id.clone());
        async move { erase(&app, &id).await }
    });
    if let Err(error) = erased.await.map_err(ApiError::internal).flatten() {
        tracing::warn!(session_id = id, error = error.message(), "deleted session not erased yet");
    }
    Ok(deleted(id, "session_deleted"))
}

/// Removes everything of a session whose row says that it is deleted. What fails is done at the next start.
pub async fn erase(app: &App, id: &str) -> Result<()> {
    match app.session(id).fresh().await.map(|log| holds_hand(&log)) {
        Ok(true) => {
            if let Err(error) = close(app, id).await {
                // Its lease runs out, and then the hand goes by itself.
                tracing::warn!(session_id = id, error = error.message(), "hand of a deleted session not released");
            }
        }
        Ok(false) | Err(log::segment::Error::History(log::history::Error::NotFound { .. })) => {}
        Err(error) => return Err(error.into()),
    }
    match app.gateway.terminate(id, "the session was deleted").await {
        Ok(()) | Err(gateway::Error::NotFound { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    // Only now no run follows any more: coming to its end a session may have gone on in new ones.
    let runs = match app.session(id).fresh().await {
        Ok(log) => {
            let sealed = log.manifest().since(&*app.blobs, 0).await?;
            let sealed = sealed.into_iter().filter(|segment| !segment.shared).map(|segment| segment.run_id);
            sealed.chain(log.unsealed_runs()).collect()
        }
        Err(log::segment::Error::History(log::history::Error::NotFound { .. })) => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    // The latest one goes last: as long as it is there the others are found.
    for run_id in runs {
        app.gateway.delete(id, &run_id).await?;
    }
    // What cannot be read because an earlier attempt was cut off half-way.
    match app.gateway.describe(id).await {
        Ok(described) => {
            let left = described.workflow_execution_info.and_then(|info| info.execution);
            app.gateway.delete(id, &left.unwrap_or_default().run_id).await?;
        }
        Err(gateway::Error::NotFound { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    forget(app, id).await
}

fn holds_hand(log: &SessionLog) -> bool {
    !log.is_closed() && log.summary().is_some_and(|summary| summary.hand.is_some())
}

/// Removes what is left of a session: its secrets, its files, what it needs of blobs, and last its row, by which all of that
/// is found again where something fails.
pub async fn forget(app: &App, id: &str) -> Result<()> {
    app.forget(id);
    egress::close(app, id).await?;
    queue::forget(app, id).await?;
    loop {
        let blobs = row::referred(&*app.catalog, id, STRIDE).await?;
        if blobs.is_empty() {
            break;
        }
        let batch = blobs.into_iter().fold(Batch::new(), |batch, digest| row::release(batch, digest, id));
        app.catalog.write(batch, Durability::Lazy).await?;
    }
    for file in files::of_session(&*app.catalog, id).await? {
        let Some(read) = app.catalog.row::<FileRow>(&file).await? else { continue };
        match app.catalog.write(files::remove(Batch::new(), &read), Durability::Lazy).await {
            // Somebody else deleted it.
            Err(CatalogError::Conflict { .. }) => {}
            written => written?,
        }
    }
    loop {
        let Some(read) = app.catalog.row::<SessionRow>(id).await? else { return Ok(()) };
        match app.catalog.write(row::remove(&*app.catalog, &read).await?, Durability::Synced).await {
            Err(CatalogError::Conflict { .. }) => {}
            written => return Ok(written?),
        }
    }
}
