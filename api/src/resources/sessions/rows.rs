//! What the follower reads, put into the session's row before anybody is told: status, usage, attributes, outputs.
//!
//! Lazy: a row that a crash took back is written again from the log.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use domain::content::BlobRef;
use domain::ids;
use domain::session::OutputFile;
use domain::{Summary, Time};
use jiff::Timestamp;
use log::follow::Rows;
use log::manifest::Manifest;
use log::references::Needed;
use log::segment::{self, Segment};
use log::{SessionLog, blobs};
use store::catalog::Error as CatalogError;
use store::{Batch, Blobs, Catalog, Digest, Durability, Versioned};
use tokio::sync::watch;

use super::current::Current;
use super::row::{self, Projection, ReadTo};
use super::sealed_runs;
use crate::resources::files::{self, FileRow};
use crate::time::Clock;

/// The path under which the diff of a session's repository stands among its outputs. It is not a file.
pub const DIFF: &str = "diff";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    #[error(transparent)]
    Blob(#[from] blobs::Error),
    #[error(transparent)]
    Log(#[from] segment::Error),
}

pub struct SessionRows {
    pub catalog: Arc<dyn Catalog>,
    pub blobs: Arc<dyn Blobs>,
    pub clock: Arc<dyn Clock>,
    /// Note runs that were sealed, so that their histories are deleted.
    pub delete_sealed_runs: bool,
    /// Counts rows that were written.
    pub written: Arc<watch::Sender<u64>>,
}

impl SessionRows {
    async fn write(&self, session_id: &str, log: &SessionLog, needed: &Needed) -> Result<(), Error> {
        let Some(current) = Current::of(log) else { return Ok(()) };
        let Some(known) = self.catalog.row::<row::SessionRow>(session_id).await? else { return Ok(()) };
        let projection = known.row.projection.as_ref();
        let listings = |summary: &Summary| -> Vec<_> {
            summary.all_held().filter_map(|(name, held)| Some((name, held.outputs.clone()?))).collect()
        };
        let is_new = projection.is_none_or(|projection| listings(&projection.summary) != listings(&current.summary));
        let outputs = if is_new { self.outputs(&current.summary).await? } else { Vec::new() };
        let mut replaced = BTreeMap::new();
        for output in &outputs {
            let old = projection.and_then(|projection| projection.outputs.get(&output.path));
            if let Some(old) = old.filter(|old| **old != file_id(session_id, output))
                && let Some(read) = self.catalog.row::<FileRow>(old).await?
            {
                replaced.insert(output.path.clone(), read);
            }
        }
        // What was accepted and waits to be taken changes nothing yet, and something hangs on what becomes of it.
        let rests = current.rests() && !current.summary.is_asking_hands() && log.uncommitted().next().is_none();
        let open = !(rests || log.is_closed());
        let at = current.summary.last_time;
        let needed = standing(log, projection.map(|projection| &projection.summary), needed);
        let (run_id, history_events) = log.read_to();
        let read_to = ReadTo { run_id: run_id.to_owned(), history_events };
        let sealed = self.sealed_since(log.manifest(), projection).await?;
        let now = self.clock.now();
        row::change(&*self.catalog, session_id, Durability::Lazy, |row, batch| {
            if row.deleted {
                return None;
            }
            let mut known = row.projection.as_ref().map(|projection| projection.outputs.clone()).unwrap_or_default();
            let batch = with_outputs(batch, session_id, &outputs, &replaced, &mut known, at);
            let batch = needed.iter().fold(batch, |batch, digest| row::refer(batch, *digest, session_id));
            let (batch, noted) = sealed.note(batch, session_id, row.projection.as_ref(), now);
            let summary = current.summary.clone();
            let projection = Projection {
                referred: summary.n,
                summary,
                status: current.status,
                open,
                outputs: known,
                noted,
                read_to: Some(read_to.clone()),
            };
            Some((row::SessionRow { projection: Some(projection), ..row.clone() }, batch))
        })
        .await?;
        self.written.send_modify(|count| *count += 1);
        Ok(())
    }

    /// The manifest and what it lists are needed as long as the session is.
    async fn keep(&self, session_id: &str, blob: &BlobRef) -> Result<(), Error> {
        let manifest: Manifest = blobs::get_json(&*self.blobs, blob).await?;
        let listed = manifest.all_listed(&*self.blobs).await?;
        let needed: BTreeSet<Digest> = listed.iter().chain([blob]).filter_map(|blob| blob.blob.parse().ok()).collect();
        let known = self.catalog.row::<row::SessionRow>(session_id).await?;
        let sealed = self.sealed_since(&manifest, known.and_then(|known| known.row.projection).as_ref()).await?;
        let now = self.clock.now();
        row::change(&*self.catalog, session_id, Durability::Synced, |row, batch| {
            if row.deleted {
                return None;
            }
            let batch = needed.iter().fold(batch, |batch, digest| row::refer(batch, *digest, session_id));
            let mut row = row::SessionRow { sealed: Some(blob.clone()), ..row.clone() };
            let (batch, noted) = sealed.note(batch, session_id, row.projection.as_ref(), now);
            if let Some(projection) = &mut row.projection {
                projection.noted = noted;
            }
            Some((row, batch))
        })
        .await?;
        Ok(())
    }

    /// The segments that the row does not know of yet.
    async fn sealed_since(&self, manifest: &Manifest, known: Option<&Projection>) -> Result<Sealed, Error> {
        let noted = known.map_or(0, |projection| projection.noted);
        let segments = match self.delete_sealed_runs {
            true => manifest.since(&*self.blobs, noted).await?,
            false => Vec::new(),
        };
        Ok(Sealed { from: noted, segments })
    }

    /// No path that a hand gives begins with a slash, so those of other hands than the main one are told apart.
    async fn outputs(&self, summary: &Summary) -> Result<Vec<OutputFile>, Error> {
        let mut outputs = Vec::new();
        for (name, held) in summary.all_held() {
            let Some(listing) = &held.outputs else { continue };
            let files: Vec<OutputFile> = blobs::get_json(&*self.blobs, listing).await?;
            outputs.extend(files.into_iter().filter(|file| file.path != DIFF).map(|file| OutputFile {
                path: if name.is_main() { file.path } else { format!("/{name}/{}", file.path) },
                ..file
            }));
        }
        Ok(outputs)
    }
}

/// Segments from the `from`th on.
struct Sealed {
    from: usize,
    segments: Vec<Segment>,
}

impl Sealed {
    /// Notes their runs, so that their histories are deleted, and how many segments the row knows then.
    fn note(&self, batch: Batch, session_id: &str, known: Option<&Projection>, now: Timestamp) -> (Batch, usize) {
        let noted = known.map_or(0, |projection| projection.noted);
        // The histories of shared runs are the other session's.
        let new = self.segments.iter().skip(noted.saturating_sub(self.from)).filter(|segment| !segment.shared);
        let batch = new.fold(batch, |batch, segment| sealed_runs::insert(batch, session_id, segment, now));
        (batch, noted.max(self.from + self.segments.len()))
    }
}

/// What commits need, and what the session needs beside them, as far as it was not so before.
fn standing(log: &SessionLog, before: Option<&Summary>, needed: &Needed) -> BTreeSet<Digest> {
    let mut needed = needed.clone();
    let Some(summary) = log.summary() else { return needed.blobs };
    if before.is_none_or(|before| before.attributes != summary.attributes || before.manifest != summary.manifest) {
        needed.summary(summary);
        needed.manifest(log.manifest());
    }
    needed.blobs
}

/// The same bytes under the same path are the same file; new bytes make a new one, and the old one goes.
fn file_id(session_id: &str, output: &OutputFile) -> String {
    ids::derive(ids::prefix::FILE, &[session_id, &output.path, &output.blob.blob])
}

fn with_outputs(
    mut batch: Batch,
    session_id: &str,
    outputs: &[OutputFile],
    replaced: &BTreeMap<String, Versioned<FileRow>>,
    known: &mut BTreeMap<String, String>,
    at: Time,
) -> Batch {
    for output in outputs {
        let id = file_id(session_id, output);
        if known.get(&output.path) == Some(&id) {
            continue;
        }
        // A listing whose references are no digests was not made by a hand.
        let Ok(digest) = output.blob.blob.parse() else { continue };
        if let Some(old) = replaced.get(&output.path) {
            batch = files::remove(batch, old);
        }
        let row = FileRow {
            id: id.clone(),
            filename: output.path.rsplit('/').next().unwrap_or(&output.path).to_owned(),
            mime_type: mime_type(&output.path).to_owned(),
            size_bytes: output.blob.bytes,
            digest,
            created_at: Timestamp::from_millisecond(at.as_ms()).unwrap_or_default(),
            expires_at: None,
            session_id: Some(session_id.to_owned()),
            downloadable: true,
        };
        batch = files::insert(batch, &row);
        known.insert(output.path.clone(), id);
    }
    batch
}

/// By the end of the name: nobody said what the bytes are.
fn mime_type(path: &str) -> &'static str {
    let extension = path.rsplit_once('.').map(|(_, extension)| extension.to_ascii_lowercase());
    match extension.as_deref() {
        Some("txt" | "log" | "diff" | "patch") => "text/plain",
        Some("md") => "text/markdown",
        Some("csv") => "text/csv",
        Some("html" | "htm") => "text/html",
        Some("json") => "application/json",
        Some("pdf") => "application/pdf",
        Some("png") => "image/png",
        Some("jpg" | "jpeg") => "image/jpeg",
        Some("gif") => "image/gif",
        Some("webp") => "image/webp",
        Some("svg") => "image/svg+xml",
        Some("zip") => "application/zip",
        Some("xlsx") => "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        Some("docx") => "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        Some("pptx") => "application/vnd.openxmlformats-officedocument.presentationml.presentation",
        _ => "application/octet-stream",
    }
}

#[async_trait]
impl Rows for SessionRows {
    async fn referred(&self, session_id: &str) -> u64 {
        // A row that cannot be read is written whole.
        let read = self.catalog.row::<row::SessionRow>(session_id).await.ok().flatten();
        read.and_then(|read| Some(read.row.projection?.referred)).unwrap_or(0)
    }

    async fn project(&self, session_id: &str, log: &SessionLog, needed: &Needed) -> bool {
        let written = self.write(session_id, log, needed).await;
        if let Err(error) = &written {
            // The log has it: the next commit or the next start writes the row again.
            tracing::warn!(session_id, error = error as &dyn std::error::Error, "session row not written");
        }
        written.is_ok()
    }

    async fn keep_sealed(&self, session_id: &str, manifest: &BlobRef) -> bool {
        let kept = self.keep(session_id, manifest).await;
        if let Err(error) = &kept {
            // The history is still there: the next reader seals again, to the same manifest.
            tracing::warn!(session_id, error = error as &dyn std::error::Error, "sealed log not kept");
        }
        kept.is_ok()
    }

    async fn sealed(&self, session_id: &str) -> Option<BlobRef> {
        self.catalog.row::<row::SessionRow>(session_id).await.ok()??.row.sealed
    }
}
