//! Whether the sessions of a folder can be read as they were written: every log from its beginning, positions without a
//! gap, and every blob that an event names.

use api::resources::sessions::row::SessionRow;
use domain::{
    Content, EventBody,
    content::{BlobRef, Json},
};
use log::{HistoryReader, SessionLog};
use store::{Blobs, Catalog, Digest, Direction, KeyRange};

/// Rows and positions that are read in one go.
const STRIDE: usize = 500;

#[derive(Debug, Default)]
pub struct Report {
    pub sessions: u64,
    pub events: u64,
    pub problems: Vec<String>,
}

pub async fn check(catalog: &dyn Catalog, blobs: &dyn Blobs, reader: &dyn HistoryReader) -> Report {
    let mut report = Report::default();
    let mut range = KeyRange::all();
    loop {
        let rows = match catalog.rows::<SessionRow>(range.clone(), Direction::Forward, STRIDE).await {
            Ok(rows) => rows,
            Err(error) => {
                report.problem("sessions", &error.into());
                return report;
            }
        };
        let Some(last) = rows.last() else { return report };
        range = range.after(last.key.to_vec(), Direction::Forward);
        for row in rows.into_iter().map(|read| read.row).filter(SessionRow::is_there) {
            report.sessions += 1;
            if let Err(error) = session(&row.id, blobs, reader, &mut report).await {
                report.problem(&format!("session {}", row.id), &error);
            }
        }
    }
}

async fn session(id: &str, blobs: &dyn Blobs, reader: &dyn HistoryReader, report: &mut Report) -> anyhow::Result<()> {
    let mut log = SessionLog::open(reader, blobs, id).await?;
    let end = log.end_position();
    let mut next = 0;
    while next < end {
        let entries = log.slice(blobs, next, end.min(next + STRIDE as u64)).await?;
        if entries.is_empty() {
            anyhow::bail!("no event has position {next}, though the log ends at {end}");
        }
        for entry in entries {
            if entry.position != next {
                anyhow::bail!("position {} follows where {next} is due", entry.position);
            }
            next += 1;
            report.events += 1;
            for blob in named(&entry.event.body) {
                if let Err(why) = is_there(blobs, blob).await {
                    report.problems.push(format!("session {id}, position {}: {why}", entry.position));
                }
            }
        }
    }
    Ok(())
}

/// The blobs that an event has its content in.
fn named(body: &EventBody) -> impl Iterator<Item = &BlobRef> {
    let json = match body {
        EventBody::AgentToolUse { input, .. }
        | EventBody::AgentMcpToolUse { input, .. }
        | EventBody::AgentCustomToolUse { input, .. }
        | EventBody::SessionUpdated { agent: Some(input), .. } => Some(input),
        _ => None,
    };
    let json = json.and_then(|json| match json {
        Json::Blob(blob) => Some(blob),
        Json::Inline { .. } => None,
    });
    body.content().and_then(Content::blob).into_iter().chain(json)
}

async fn is_there(blobs: &dyn Blobs, blob: &BlobRef) -> Result<(), String> {
    let digest: Digest = blob.blob.parse().map_err(|_| format!("{} is no sha-256", blob.blob))?;
    match blobs.has(digest).await {
        Ok(Some(bytes)) if bytes == blob.bytes => Ok(()),
        Ok(Some(bytes)) => Err(format!("blob {digest} has {bytes} bytes, not {}", blob.bytes)),
        Ok(None) => Err(format!("blob {digest} is not there")),
        Err(error) => Err(error.to_string()),
    }
}

impl Report {
    fn problem(&mut self, what: &str, error: &anyhow::Error) {
        self.problems.push(format!("{what}: {error:#}"));
    }
}
