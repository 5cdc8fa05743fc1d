//! The row of a session: what the catalog alone knows (that the id is taken, when, whether it was archived or deleted),
//! and beside it a projection of the log, which can be dropped and is rebuilt.

use std::collections::BTreeMap;

use domain::content::BlobRef;
use domain::{Status, Summary};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use store::catalog::Error as CatalogError;
use store::{Batch, Catalog, Digest, Direction, Durability, KeyRange, Record, Table, Versioned};

use crate::app::App;
use crate::error::{ApiError, Result};
use crate::listing::{self, Index};
use crate::{references, verify};

const BY_TIME: Table = Table::new("sessions_by_time");
/// The blobs that a session needs: the same as the references, the other way round.
const BLOBS: Table = Table::new("session_blobs");

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct SessionRow {
    pub id: String,
    pub created_at: Timestamp,
    pub agent_id: String,
    pub agent_version: u32,
    /// The fingerprint of the request that made it.
    pub creation: String,
    /// The workflow was started. Without it the id is only reserved.
    pub started: bool,
    pub archived_at: Option<Timestamp>,
    /// For clients the session is gone; what is left of it is on its way out.
    pub deleted: bool,
    pub projection: Option<Projection>,
    /// The manifest of the whole log, once the session is over: histories may be gone by then.
    #[serde(default)]
    pub sealed: Option<BlobRef>,
}

/// What the log says, as far as it was read.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Projection {
    pub summary: Summary,
    /// As clients see it: work that waits to be taken up counts as running.
    pub status: Status,
    /// Something may still happen, so the log is read on after a restart.
    pub open: bool,
    /// The files that the session made, by path in its outputs.
    #[serde(default)]
    pub outputs: BTreeMap<String, String>,
    /// The session refers to every blob that commits before this number name.
    #[serde(default)]
    pub referred: u64,
    /// Segments of the log whose runs are noted for deletion.
    #[serde(default)]
    pub noted: usize,
    /// How far history was read for this.
    #[serde(default)]
    pub read_to: Option<ReadTo>,
}

/// A place in the history of a session. Nothing to read where the latest run is this long and no longer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReadTo {
    pub run_id: String,
    pub history_events: i64,
}

impl Record for SessionRow {
    const TABLE: Table = Table::new("sessions");
    const VERSION: u32 = 1;
}

/// Which session a request made, by the request's fingerprint: what a retry of it gets.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct CreationRow {
    pub session_id: String,
    pub at: Timestamp,
}

impl Record for CreationRow {
    const TABLE: Table = Table::new("session_creations");
    const VERSION: u32 = 1;
}

impl SessionRow {
    /// Whether clients may know of it.
    pub fn is_there(&self) -> bool {
        self.started && !self.deleted
    }
}

pub fn index() -> Index {
    Index::new(BY_TIME)
}

/// Adds the row of a new session to a batch.
pub fn insert(batch: Batch, row: &SessionRow) -> Batch {
    index().insert(batch.insert(&row.id, row), row.created_at, &row.id)
}

/// The row, if clients may know of the session.
pub async fn find(app: &App, id: &str) -> Result<SessionRow> {
    let row = app.catalog.row::<SessionRow>(id).await?.map(|read| read.row);
    row.filter(SessionRow::is_there).ok_or_else(|| ApiError::not_found("session", id))
}

/// Writes what `decide` makes of the row, with whatever it adds to the batch; decides again where another write was
/// first. `None` where there is no row, or nothing to write.
pub async fn change(
    catalog: &dyn Catalog,
    id: &str,
    durability: Durability,
    decide: impl Fn(&SessionRow, Batch) -> Option<(SessionRow, Batch)>,
) -> Result<Option<SessionRow>, CatalogError> {
    let mut read = catalog.row::<SessionRow>(id).await?;
    loop {
        let Some(known) = read else { return Ok(None) };
        let Some((row, batch)) = decide(&known.row, Batch::new()) else { return Ok(None) };
        match catalog.write(batch.replace(&known, &row), durability).await {
            Err(conflict @ CatalogError::Conflict { .. }) => {
                read = catalog.row::<SessionRow>(id).await?;
                // Something else in the batch is no more as `decide` believes: it would decide the same for ever.
                if read.as_ref().is_some_and(|read| read.is_same(&known)) {
                    return Err(conflict);
                }
            }
            written => return written.map(|()| Some(row)),
        }
    }
}

/// Calls `look` with every row.
pub async fn each(app: &App, mut look: impl FnMut(&SessionRow)) -> Result<()> {
    const STRIDE: usize = 500;
    let mut range = KeyRange::all();
    loop {
        let rows = app.catalog.rows::<SessionRow>(range.clone(), Direction::Forward, STRIDE).await?;
        let Some(last) = rows.last() else { return Ok(()) };
        range = range.after(last.key.clone(), Direction::Forward);
        rows.iter().for_each(|read| look(&read.row));
    }
}

/// Adds that a session needs a blob.
pub fn refer(batch: Batch, digest: Digest, session_id: &str) -> Batch {
    references::insert(batch, digest, session_id).put(BLOBS, format!("{session_id}/{digest}"), "")
}

/// The blobs that a session needs, at most `limit` of them.
pub async fn referred(catalog: &dyn Catalog, session_id: &str, limit: usize) -> Result<Vec<Digest>, CatalogError> {
    let rows = catalog.scan(BLOBS, KeyRange::prefix(format!("{session_id}/")), Direction::Forward, limit).await?;
    let digest = |key: &[u8]| std::str::from_utf8(key).ok()?.rsplit_once('/')?.1.parse().ok();
    Ok(rows.iter().filter_map(|row| digest(&row.key)).collect())
}

/// Adds that a session does not need a blob any more.
pub fn release(batch: Batch, digest: Digest, session_id: &str) -> Batch {
    references::remove(batch, digest, session_id).delete(BLOBS, format!("{session_id}/{digest}"))
}

/// Every session is in its index.
pub async fn verify(catalog: &dyn Catalog, problems: &mut Vec<String>) -> Result<()> {
    verify::each(catalog, problems, async |read: Versioned<SessionRow>, problems| {
        index().verify::<SessionRow>(catalog, read.row.created_at, &read.row.id, problems).await
    })
    .await?;
    listing::verify::<SessionRow>(catalog, BY_TIME, problems).await
}

/// Adds the removal of a session's row to a batch. A later session may have been made by the same request.
pub async fn remove(catalog: &dyn Catalog, read: &Versioned<SessionRow>) -> Result<Batch, CatalogError> {
    let batch = index().remove(Batch::new().remove(read), read.row.created_at, &read.row.id);
    let made = catalog.row::<CreationRow>(&read.row.creation).await?;
    Ok(match made.filter(|made| made.row.session_id == read.row.id) {
        Some(made) => batch.remove(&made),
        None => batch,
    })
}
