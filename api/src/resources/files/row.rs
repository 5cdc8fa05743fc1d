//! The row of a file, its places in the indexes and the object that clients see.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use store::{Batch, Blobs, Catalog, Digest, Direction, KeyRange, Record, Table, Versioned};

use crate::error::Result;
use crate::listing::{self, Index};
use crate::{ids, references, time, verify};

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

    pub(super) fn is_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|expires_at| expires_at <= now)
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
pub async fn of_session(catalog: &dyn Catalog, session_id: &str) -> Result<Vec<String>> {
    let range = KeyRange::prefix(format!("{session_id}/"));
    let rows = catalog.scan(BY_SCOPE, range, Direction::Forward, usize::MAX).await?;
    Ok(rows.iter().map(|row| String::from_utf8_lossy(&row.value).into_owned()).collect())
}

/// Lets go of the bytes of a file; the row stays to say what it was.
pub(crate) fn expire(batch: Batch, read: &Versioned<FileRow>) -> Batch {
    let row = &read.row;
    let batch = references::remove(batch.unchanged(read), row.digest, &row.id);
    let expires_at = row.expires_at.expect("only files with a time expire");
    Index::new(BY_EXPIRY).remove(batch, expires_at, &row.id)
}

/// The entries of [`BY_EXPIRY`] whose time has come.
pub(crate) fn expired_by(now: Timestamp) -> KeyRange {
    Index::new(BY_EXPIRY).until(now)
}

/// Every file is in its indexes, and its bytes are there unless their time has come.
pub(crate) async fn verify(
    catalog: &dyn Catalog,
    blobs: &dyn Blobs,
    now: Timestamp,
    problems: &mut Vec<String>,
) -> Result<()> {
    verify::each(catalog, problems, async |read: Versioned<FileRow>, problems| {
        let row = &read.row;
        if row.is_expired(now) {
            return Ok(());
        }
        for (index, at) in row.indexes() {
            index.verify::<FileRow>(catalog, at, &row.id, problems).await?;
        }
        if !references::has(catalog, row.digest, &row.id).await? {
            problems.push(format!("files {}: has no reference to its blob", row.id));
        }
        if blobs.has(row.digest).await? != Some(row.size_bytes) {
            problems
                .push(format!("files {}: its blob {} of {} bytes is not there", row.id, row.digest, row.size_bytes));
        }
        Ok(())
    })
    .await?;
    for index in [BY_TIME, BY_SCOPE, BY_EXPIRY] {
        listing::verify::<FileRow>(catalog, index, problems).await?;
    }
    Ok(())
}

/// As clients see it.
#[derive(Serialize, JsonSchema)]
pub(super) struct File {
    id: String,
    #[serde(rename = "type")]
    #[schemars(extend("const" = "file"))]
    kind: &'static str,
    filename: String,
    mime_type: String,
    size_bytes: u64,
    #[serde(serialize_with = "time::wire")]
    #[schemars(with = "Timestamp")]
    created_at: Timestamp,
    #[serde(serialize_with = "time::wire_option")]
    #[schemars(with = "Option<Timestamp>")]
    expires_at: Option<Timestamp>,
    downloadable: bool,
    scope: Option<Scope>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "FileScope")]
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
