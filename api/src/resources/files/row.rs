//! The row of a file, its places in the indexes and the object that clients see.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use store::catalog::Error as CatalogError;
use store::{Batch, Catalog, Digest, Direction, KeyRange, Record, Table, Versioned};

use crate::ids;
use crate::listing::Index;
use crate::references;
use crate::time;

pub(super) const BY_TIME: Table = Table::new("files_by_time");
pub(super) const BY_SCOPE: Table = Table::new("files_by_scope");
/// For the sweeper: files that expire, in the order in which they do.
pub(crate) const BY_EXPIRY: Table = Table::new("files_by_expiry");

/// Never changed once written.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct FileRow {
    pub id: String,
    pub filename: String,
    pub mime_type: String,
    pub size_bytes: u64,
    pub digest: Digest,
    pub created_at: Timestamp,
    pub expires_at: Option<Timestamp>,
    /// The session that it belongs to, if to one.
    pub session_id: Option<String>,
    pub downloadable: bool,
}

impl Record for FileRow {
    const TABLE: Table = Table::new("files");
    const VERSION: u32 = 1;
}

impl FileRow {
    /// A copy of its own for a session, of the same bytes. It lives as long as the session.
    pub fn copy_for(&self, session_id: &str, now: Timestamp) -> FileRow {
        FileRow {
            id: ids::new(ids::FILE),
            created_at: now,
            expires_at: None,
            session_id: Some(session_id.to_owned()),
            ..self.clone()
        }
    }

    fn indexes(&self) -> Vec<(Index, Timestamp)> {
        let mut indexes = vec![(Index::new(BY_TIME), self.created_at)];
        if let Some(session_id) = &self.session_id {
            indexes.push((Index::within(BY_SCOPE, session_id), self.created_at));
        }
        if let Some(expires_at) = self.expires_at {
            indexes.push((Index::new(BY_EXPIRY), expires_at));
        }
        indexes
    }
}

/// Adds a file whose blob is there.
pub fn insert(batch: Batch, row: &FileRow) -> Batch {
    let batch = references::insert(batch.insert(&row.id, row), row.digest, &row.id);
    row.indexes().into_iter().fold(batch, |batch, (index, at)| index.insert(batch, at, &row.id))
}

/// Removes a file that was read; the sweeper takes the blob if nothing else needs it.
pub fn remove(batch: Batch, read: &Versioned<FileRow>) -> Batch {
    let row = &read.row;
    let batch = references::remove(batch.remove(read), row.digest, &row.id);
    row.indexes().into_iter().fold(batch, |batch, (index, at)| index.remove(batch, at, &row.id))
}

/// The ids of the files that belong to a session.
pub async fn of_session(catalog: &dyn Catalog, session_id: &str) -> Result<Vec<String>, CatalogError> {
    let range = KeyRange::prefix(format!("{session_id}/"));
    let rows = catalog.scan(BY_SCOPE, range, Direction::Forward, usize::MAX).await?;
    Ok(rows.iter().map(|row| String::from_utf8_lossy(&row.value).into_owned()).collect())
}

/// As clients see it.
#[derive(Serialize)]
pub(super) struct File {
    id: String,
    #[serde(rename = "type")]
    kind: &'static str,
    filename: String,
    mime_type: String,
    size_bytes: u64,
    #[serde(serialize_with = "time::wire")]
    created_at: Timestamp,
    #[serde(serialize_with = "time::wire_option")]
    expires_at: Option<Timestamp>,
    downloadable: bool,
    scope: Option<Scope>,
}

#[derive(Serialize)]
struct Scope {
    #[serde(rename = "type")]
    kind: &'static str,
    id: String,
}

impl From<FileRow> for File {
    fn from(row: FileRow) -> Self {
        Self {
            id: row.id,
            kind: "file",
            filename: row.filename,
            mime_type: row.mime_type,
            size_bytes: row.size_bytes,
            created_at: row.created_at,
            expires_at: row.expires_at,
            downloadable: row.downloadable,
            scope: row.session_id.map(|id| Scope { kind: "session", id }),
        }
    }
}
