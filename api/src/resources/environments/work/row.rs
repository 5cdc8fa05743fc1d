//! The rows of the work queue: an item, what a session has of them, and the lists that workers are served from.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use store::{Batch, Catalog, Record, Table, Versioned};

use crate::error::Result;
use crate::listing::{self, Index};
use crate::metadata::Metadata;
use crate::{time, verify};

/// Every item of an environment, by the time it was made.
const BY_TIME: Table = Table::new("work_by_time");
/// Items that wait for a worker, or for the worker that took one to say so, by the time from which they may be taken.
const QUEUED: Table = Table::new("work_queued");
/// Items that a worker holds, by the time to which it does.
const LEASED: Table = Table::new("work_leased");
/// Every item of a session.
pub const OF_SESSION: Table = Table::new("work_of_session");

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "WorkState")]
pub enum State {
    Queued,
    Starting,
    Active,
    Stopping,
    Stopped,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct WorkRow {
    pub id: String,
    pub environment_id: String,
    pub session_id: String,
    pub state: State,
    pub metadata: Metadata,
    pub created_at: Timestamp,
    /// No worker gets it before.
    pub available_at: Timestamp,
    /// Handed to a worker that has not said yet that it has it.
    pub claimed_at: Option<Timestamp>,
    pub acknowledged_at: Option<Timestamp>,
    pub started_at: Option<Timestamp>,
    /// As it was told to the worker, which has to say the same.
    pub heartbeat: Option<String>,
    /// To when a worker holds it.
    pub lease_until: Option<Timestamp>,
    pub ttl_s: u32,
    pub stop_requested_at: Option<Timestamp>,
    pub stopped_at: Option<Timestamp>,
    /// The digests of its tokens: the one that is good, and before it those that were.
    pub tokens: Vec<String>,
}

impl Record for WorkRow {
    const TABLE: Table = Table::new("work");
    const VERSION: u32 = 1;
}

/// What the queue knows of a session.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct SessionWork {
    pub environment_id: String,
    /// The one item that is not stopped.
    pub live: Option<String>,
    /// Counts what was asked of the session, so that nobody lets go of it who did not know of that.
    pub asked: u64,
    /// How many items in a row ended without anything having come of them.
    pub fruitless: u32,
    /// The end of the session's log when its last item was made.
    pub seen: u64,
}

impl Record for SessionWork {
    const TABLE: Table = Table::new("session_work");
    const VERSION: u32 = 1;
}

/// Where a row stands among those that workers are served from.
fn place(row: &WorkRow) -> Option<(Index, Timestamp)> {
    match row.state {
        State::Queued => Some((queued(&row.environment_id), row.available_at)),
        State::Starting | State::Active | State::Stopping => {
            row.lease_until.map(|until| (leased(&row.environment_id), until))
        }
        State::Stopped => None,
    }
}

pub fn by_time(environment_id: &str) -> Index {
    Index::within(BY_TIME, environment_id)
}

pub fn queued(environment_id: &str) -> Index {
    Index::within(QUEUED, environment_id)
}

pub fn leased(environment_id: &str) -> Index {
    Index::within(LEASED, environment_id)
}

/// Adds a new item.
pub fn insert(batch: Batch, row: &WorkRow) -> Batch {
    let batch = by_time(&row.environment_id).insert(batch.insert(&row.id, row), row.created_at, &row.id);
    let batch = batch.put(OF_SESSION, format!("{}/{}", row.session_id, row.id), "");
    placed(batch, row)
}

/// Replaces an item that must still be what was read.
pub fn replace(batch: Batch, read: &Versioned<WorkRow>, row: &WorkRow) -> Batch {
    let batch = batch.replace(read, row);
    if place_key(&read.row) == place_key(row) {
        return batch;
    }
    let batch = match place(&read.row) {
        Some((index, at)) => index.remove(batch, at, &row.id),
        None => batch,
    };
    placed(batch, row)
}

pub fn remove(batch: Batch, read: &Versioned<WorkRow>) -> Batch {
    let row = &read.row;
    let batch = by_time(&row.environment_id).remove(batch.remove(read), row.created_at, &row.id);
    let batch = batch.delete(OF_SESSION, format!("{}/{}", row.session_id, row.id));
    match place(row) {
        Some((index, at)) => index.remove(batch, at, &row.id),
        None => batch,
    }
}

fn placed(batch: Batch, row: &WorkRow) -> Batch {
    match place(row) {
        Some((index, at)) => index.insert(batch, at, &row.id),
        None => batch,
    }
}

fn place_key(row: &WorkRow) -> Option<(bool, Timestamp)> {
    place(row).map(|(_, at)| (row.state == State::Queued, at))
}

/// Every item is in the lists that it belongs to, and every live one is its session's.
pub async fn verify(catalog: &dyn Catalog, problems: &mut Vec<String>) -> Result<()> {
    verify::each(catalog, problems, async |read: Versioned<WorkRow>, problems| {
        let WorkRow { id, environment_id, session_id, created_at, state, .. } = &read.row;
        by_time(environment_id).verify::<WorkRow>(catalog, *created_at, id, problems).await?;
        if let Some((index, at)) = place(&read.row) {
            index.verify::<WorkRow>(catalog, at, id, problems).await?;
        }
        let known = catalog.row::<SessionWork>(session_id).await?;
        let is_live = known.is_some_and(|known| known.row.live.as_deref() == Some(id));
        if is_live != (*state != State::Stopped) {
            problems.push(format!("{} {id}: its session {session_id} says otherwise", WorkRow::TABLE.name()));
        }
        Ok(())
    })
    .await?;
    for index in [BY_TIME, QUEUED, LEASED] {
        listing::verify::<WorkRow>(catalog, index, problems).await?;
    }
    Ok(())
}

/// As clients see it.
#[derive(Serialize, JsonSchema)]
pub struct Work {
    id: String,
    #[serde(rename = "type")]
    #[schemars(extend("const" = "work"))]
    kind: &'static str,
    environment_id: String,
    data: Data,
    state: State,
    metadata: Metadata,
    /// Only in the answer to the poll that hands it out.
    secret: Option<String>,
    #[serde(serialize_with = "time::wire")]
    #[schemars(with = "Timestamp")]
    created_at: Timestamp,
    #[serde(serialize_with = "time::wire_option")]
    #[schemars(with = "Option<Timestamp>")]
    acknowledged_at: Option<Timestamp>,
    #[serde(serialize_with = "time::wire_option")]
    #[schemars(with = "Option<Timestamp>")]
    started_at: Option<Timestamp>,
    latest_heartbeat_at: Option<String>,
    #[serde(serialize_with = "time::wire_option")]
    #[schemars(with = "Option<Timestamp>")]
    stop_requested_at: Option<Timestamp>,
    #[serde(serialize_with = "time::wire_option")]
    #[schemars(with = "Option<Timestamp>")]
    stopped_at: Option<Timestamp>,
}

impl Work {
    pub fn with_secret(self, secret: String) -> Self {
        Self { secret: Some(secret), ..self }
    }
}

/// What there is to work on.
#[derive(Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
#[schemars(rename = "WorkData")]
enum Data {
    Session { id: String },
}

impl From<WorkRow> for Work {
    fn from(row: WorkRow) -> Self {
        Self {
            id: row.id,
            kind: "work",
            environment_id: row.environment_id,
            data: Data::Session { id: row.session_id },
            state: row.state,
            metadata: row.metadata,
            secret: None,
            created_at: row.created_at,
            acknowledged_at: row.acknowledged_at,
            started_at: row.started_at,
            latest_heartbeat_at: row.heartbeat,
            stop_requested_at: row.stop_requested_at,
            stopped_at: row.stopped_at,
        }
    }
}
