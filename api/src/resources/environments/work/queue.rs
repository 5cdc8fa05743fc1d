//! The life of an item: wanted, taken, acknowledged, beaten for, stopped; and taken back from a worker that is gone.
//!
//! Every step is one conditional write, decided again where another was first. A session has one live item at most, and
//! never none while it has something to do: who lets go of an item looks at the log, and the write fails if something was
//! asked of the session in between.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use store::catalog::Error as CatalogError;
use store::{Batch, Direction, Durability, KeyRange, Versioned};
use tokio::sync::watch;

use super::need::Need;
use super::row::{self, SessionWork, State, WorkRow};
use super::token;
use crate::app::App;
use crate::error::{ApiError, Result};
use crate::ids;
use crate::resources::sessions::row::SessionRow;

/// How long a worker holds an item that it does not say more of, in seconds, and what it may ask for.
pub const TTL_S: u32 = 60;
pub const TTL_S_MIN: u32 = 10;
pub const TTL_S_MAX: u32 = 600;
/// The longest pause before a session that nobody gets on with is given out again, in seconds.
const PAUSE_S_MAX: u32 = 64;
/// For how long a worker counts as polling.
pub const POLLING: SignedDuration = SignedDuration::from_secs(30);
const STRIDE: usize = 100;

/// What the queue keeps in memory: who polls, and a bell for those who wait.
#[derive(Clone)]
pub struct WorkQueues {
    bell: Arc<watch::Sender<u64>>,
    polled: Arc<Mutex<HashMap<String, HashMap<String, Timestamp>>>>,
}

impl Default for WorkQueues {
    fn default() -> Self {
        Self { bell: Arc::new(watch::channel(0).0), polled: Arc::default() }
    }
}

impl WorkQueues {
    fn ring(&self) {
        self.bell.send_modify(|rung| *rung += 1);
    }

    pub fn note_poll(&self, environment_id: &str, worker_id: &str, now: Timestamp) {
        let mut polled = self.polled.lock();
        let workers = polled.entry(environment_id.to_owned()).or_default();
        workers.retain(|_, at| now.duration_since(*at) <= POLLING);
        workers.insert(worker_id.to_owned(), now);
    }

    pub fn polling(&self, environment_id: &str, now: Timestamp) -> usize {
        let polled = self.polled.lock();
        let workers = polled.get(environment_id).into_iter().flat_map(HashMap::values);
        workers.filter(|at| now.duration_since(**at) <= POLLING).count()
    }
}

/// A new item, and the session's row with it.
fn item(environment_id: &str, session_id: &str, now: Timestamp, available_at: Timestamp) -> WorkRow {
    WorkRow {
        id: ids::new(ids::WORK),
        environment_id: environment_id.to_owned(),
        session_id: session_id.to_owned(),
        state: State::Queued,
        metadata: Default::default(),
        created_at: now,
        available_at,
        claimed_at: None,
        acknowledged_at: None,
        started_at: None,
        heartbeat: None,
        lease_until: None,
        ttl_s: TTL_S,
        stop_requested_at: None,
        stopped_at: None,
        tokens: Vec::new(),
    }
}

/// Something was asked of the session: it has a live item from here on.
pub async fn want(app: &App, session_id: &str, environment_id: &str) -> Result<()> {
    loop {
        let now = app.clock.now();
        let read = app.catalog.row::<SessionWork>(session_id).await?;
        let (batch, durability) = match &read {
            Some(read) if read.row.live.is_some() => {
                let row = SessionWork { asked: read.row.asked + 1, ..read.row.clone() };
                (Batch::new().replace(read, &row), Durability::Lazy)
            }
            _ => {
                let work = item(environment_id, session_id, now, now);
                let before = read.as_ref().map(|read| &read.row);
                let row = SessionWork {
                    environment_id: environment_id.to_owned(),
                    live: Some(work.id.clone()),
                    asked: before.map_or(0, |row| row.asked) + 1,
                    // Somebody wants it: no pause is due.
                    fruitless: 0,
                    seen: before.map_or(0, |row| row.seen),
                };
                let batch = match &read {
                    Some(read) => Batch::new().replace(read, &row),
                    None => Batch::new().insert(session_id, &row),
                };
                (row::insert(batch, &work), Durability::Synced)
            }
        };
        match app.catalog.write(batch, durability).await {
            Err(CatalogError::Conflict { .. }) => {}
            written => {
                written?;
                app.work.ring();
                return Ok(());
            }
        }
    }
}

/// For a session of which nobody knows whether its last request came to [`want`].
pub async fn make_up(app: &App, session_id: &str, environment_id: &str) -> Result<()> {
    let known = app.catalog.row::<SessionWork>(session_id).await?;
    let is_new = known.is_none();
    let has_live = known.is_some_and(|read| read.row.live.is_some());
    if !has_live && (is_new || Need::of(app, session_id).await?.is_there) {
        want(app, session_id, environment_id).await?;
    }
    Ok(())
}

/// The next item of an environment for a worker, with its secret; waits for one for as long as `block`.
pub async fn poll(
    app: &App,
    environment_id: &str,
    block: Duration,
    reclaim: SignedDuration,
) -> Result<Option<(WorkRow, String)>> {
    let mut bell = app.work.bell.subscribe();
    let deadline = tokio::time::Instant::now() + block;
    loop {
        bell.borrow_and_update();
        if let Some(taken) = take(app, environment_id, reclaim).await? {
            return Ok(Some(taken));
        }
        let rung = tokio::time::timeout_at(deadline, bell.changed());
        if !matches!(rung.await, Ok(Ok(()))) {
            return Ok(None);
        }
    }
}

async fn take(app: &App, environment_id: &str, reclaim: SignedDuration) -> Result<Option<(WorkRow, String)>> {
    reap(app, environment_id).await?;
    let now = app.clock.now();
    let index = row::queued(environment_id);
    let mut range = index.until(now);
    loop {
        let entries = app.catalog.scan(index.table(), range.clone(), Direction::Forward, STRIDE).await?;
        let Some(last) = entries.last().map(|entry| entry.key.to_vec()) else { return Ok(None) };
        for entry in entries {
            let Some(read) = app.catalog.row::<WorkRow>(&entry.value).await? else { continue };
            let is_free = read.row.claimed_at.is_none_or(|at| now.duration_since(at) >= reclaim);
            if read.row.state != State::Queued || !is_free {
                continue;
            }
            if !is_served(app, &read.row.session_id).await? {
                end(app, &read.row.session_id).await?;
                continue;
            }
            if let Some(taken) = claim(app, &read, now).await? {
                return Ok(Some(taken));
            }
        }
        range = range.after(last, Direction::Forward);
    }
}

async fn is_served(app: &App, session_id: &str) -> Result<bool> {
    let session = app.catalog.row::<SessionRow>(session_id).await?;
    Ok(session.is_some_and(|read| read.row.is_there() && read.row.archived_at.is_none()))
}

/// None where another worker was first.
async fn claim(app: &App, read: &Versioned<WorkRow>, now: Timestamp) -> Result<Option<(WorkRow, String)>> {
    let mut work = WorkRow { claimed_at: Some(now), ..read.row.clone() };
    work.lease_until = Some(now + seconds(work.ttl_s));
    let (batch, secret) = token::renew(Batch::new(), &app.tenant.workspace_id, &mut work);
    match app.catalog.write(row::replace(batch, read, &work), Durability::Lazy).await {
        Err(CatalogError::Conflict { .. }) => Ok(None),
        written => Ok(written.map(|()| Some((work, secret)))?),
    }
}

/// Takes back what workers hold no longer.
pub async fn reap(app: &App, environment_id: &str) -> Result<()> {
    let index = row::leased(environment_id);
    let mut range = index.until(app.clock.now());
    loop {
        let entries = app.catalog.scan(index.table(), range.clone(), Direction::Forward, STRIDE).await?;
        let Some(last) = entries.last().map(|entry| entry.key.to_vec()) else { return Ok(()) };
        range = range.after(last, Direction::Forward);
        for entry in entries {
            take_back(app, &String::from_utf8_lossy(&entry.value)).await?;
        }
    }
}

/// The item of a worker that is gone: another's turn if there is something to do, else the item is over.
async fn take_back(app: &App, work_id: &str) -> Result<()> {
    loop {
        let Some(read) = app.catalog.row::<WorkRow>(work_id).await? else { return Ok(()) };
        let now = app.clock.now();
        let is_lost = matches!(read.row.state, State::Starting | State::Active | State::Stopping)
            && read.row.lease_until.is_some_and(|until| until < now);
        if !is_lost {
            return Ok(());
        }
        if read.row.state == State::Stopping || !Need::of(app, &read.row.session_id).await?.is_there {
            stop(app, &read.row.id, true).await?;
            return Ok(());
        }
        let work = WorkRow {
            state: State::Queued,
            available_at: now,
            claimed_at: None,
            acknowledged_at: None,
            started_at: None,
            heartbeat: None,
            lease_until: None,
            ..read.row.clone()
        };
        match app.catalog.write(row::replace(Batch::new(), &read, &work), Durability::Lazy).await {
            Err(CatalogError::Conflict { .. }) => {}
            written => {
                written?;
                tracing::info!(session_id = work.session_id, work_id, "lease lost, work queued again");
                app.work.ring();
                return Ok(());
            }
        }
    }
}

/// Changes an item as `decide` says, deciding again where another change was first.
pub async fn change(
    app: &App,
    environment_id: &str,
    work_id: &str,
    decide: impl Fn(&WorkRow) -> Result<WorkRow>,
) -> Result<WorkRow> {
    loop {
        let read = find(app, environment_id, work_id).await?;
        let work = decide(&read.row)?;
        if work == read.row {
            return Ok(work);
        }
        match app.catalog.write(row::replace(Batch::new(), &read, &work), Durability::Lazy).await {
            Err(CatalogError::Conflict { .. }) => {}
            written => return Ok(written.map(|()| work)?),
        }
    }
}

pub async fn find(app: &App, environment_id: &str, work_id: &str) -> Result<Versioned<WorkRow>> {
    let read = app.catalog.row::<WorkRow>(work_id).await?;
    let read = read.filter(|read| read.row.environment_id == environment_id);
    read.ok_or_else(|| ApiError::not_found("work item", work_id))
}

/// Stops an item: at once by force or where no worker has it, else the worker is told with its next beat. A session that
/// still has something to do gets another item in the same write. None where it was stopped already.
pub async fn stop(app: &App, work_id: &str, force: bool) -> Result<Option<WorkRow>> {
    loop {
        let Some(read) = app.catalog.row::<WorkRow>(work_id).await? else {
            return Err(ApiError::not_found("work item", work_id));
        };
        let now = app.clock.now();
        let mut work = read.row.clone();
        let batch = match work.state {
            State::Stopped => return Ok(None),
            State::Stopping if !force => return Ok(Some(work)),
            State::Starting | State::Active if !force => {
                work.state = State::Stopping;
                work.stop_requested_at = Some(now);
                Batch::new()
            }
            State::Queued | State::Starting | State::Active | State::Stopping => {
                work.state = State::Stopped;
                work.stop_requested_at.get_or_insert(now);
                work.stopped_at = Some(now);
                let known = app.catalog.row::<SessionWork>(&work.session_id).await?;
                match known.filter(|known| known.row.live.as_deref() == Some(work_id)) {
                    Some(known) => follow_up(app, known, &work, now).await?,
                    None => Batch::new(),
                }
            }
        };
        match app.catalog.write(row::replace(batch, &read, &work), Durability::Lazy).await {
            Err(CatalogError::Conflict { .. }) => {}
            written => {
                written?;
                app.work.ring();
                return Ok(Some(work));
            }
        }
    }
}

/// What comes after an item that is stopped: nothing, or the next one. Whoever gets nowhere is given it ever later.
async fn follow_up(app: &App, known: Versioned<SessionWork>, work: &WorkRow, now: Timestamp) -> Result<Batch> {
    let need = Need::of(app, &work.session_id).await?;
    let mut row = SessionWork { live: None, ..known.row.clone() };
    let mut batch = Batch::new();
    if need.is_there {
        row.fruitless = if need.end > row.seen { 0 } else { row.fruitless + 1 };
        row.seen = need.end;
        let pause = if row.fruitless == 0 { 0 } else { PAUSE_S_MAX.min(1 << (row.fruitless - 1).min(6)) };
        let next = item(&work.environment_id, &work.session_id, now, now + seconds(pause));
        row.live = Some(next.id.clone());
        batch = row::insert(batch, &next);
    }
    Ok(batch.replace(&known, &row))
}

/// The session is over: nobody is to work for it.
pub async fn end(app: &App, session_id: &str) -> Result<()> {
    loop {
        let Some(known) = app.catalog.row::<SessionWork>(session_id).await? else { return Ok(()) };
        let Some(work_id) = known.row.live.clone() else { return Ok(()) };
        let batch = Batch::new().replace(&known, &SessionWork { live: None, ..known.row.clone() });
        let batch = match app.catalog.row::<WorkRow>(&work_id).await? {
            Some(read) => {
                let now = app.clock.now();
                let stop_requested_at = read.row.stop_requested_at.or(Some(now));
                let stopped =
                    WorkRow { state: State::Stopped, stop_requested_at, stopped_at: Some(now), ..read.row.clone() };
                row::replace(batch, &read, &stopped)
            }
            None => batch,
        };
        match app.catalog.write(batch, Durability::Lazy).await {
            Err(CatalogError::Conflict { .. }) => {}
            written => return Ok(written?),
        }
    }
}

/// Removes every row of a session's work.
pub async fn forget(app: &App, session_id: &str) -> Result<()> {
    let of_session = || KeyRange::prefix(format!("{session_id}/"));
    loop {
        let entries = app.catalog.scan(row::OF_SESSION, of_session(), Direction::Forward, STRIDE).await?;
        if entries.is_empty() {
            break;
        }
        for entry in entries {
            let key = String::from_utf8_lossy(&entry.key).into_owned();
            let work_id = key.rsplit('/').next().unwrap_or_default();
            let batch = match app.catalog.row::<WorkRow>(work_id).await? {
                Some(read) => token::remove(row::remove(Batch::new(), &read), &read.row),
                None => Batch::new().delete(row::OF_SESSION, key.clone()),
            };
            match app.catalog.write(batch, Durability::Lazy).await {
                // Read again with the next round.
                Err(CatalogError::Conflict { .. }) => {}
                written => written?,
            }
        }
    }
    while let Some(known) = app.catalog.row::<SessionWork>(session_id).await? {
        match app.catalog.write(Batch::new().remove(&known), Durability::Lazy).await {
            Err(CatalogError::Conflict { .. }) => {}
            written => written?,
        }
    }
    Ok(())
}

pub fn seconds(seconds: u32) -> SignedDuration {
    SignedDuration::from_secs(seconds.into())
}
