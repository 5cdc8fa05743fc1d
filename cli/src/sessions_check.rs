//! Whether the sessions of a folder can be read as they were written: every log from its beginning, positions without a
//! gap, and every blob that it names.

use api::resources::sessions::row::SessionRow;
use log::{HistoryReader, SessionLog, references::Needed};
use store::{Blobs, Catalog, Direction, KeyRange};

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
            if let Err(error) = session(&row, blobs, reader, &mut report).await {
                report.problem(&format!("session {}", row.id), &error);
            }
        }
    }
}

async fn session(
    row: &SessionRow,
    blobs: &dyn Blobs,
    reader: &dyn HistoryReader,
    report: &mut Report,
) -> anyhow::Result<()> {
    let id = &row.id;
    let mut log = match &row.sealed {
        Some(manifest) => SessionLog::sealed(blobs, id, manifest).await?,
        None => SessionLog::open(reader, blobs, id).await?,
    };
    let mut needed = Needed::default();
    log.each_since(blobs, 0, |committed| needed.commit(committed)).await?;
    log.manifest().all_listed(blobs).await?.iter().for_each(|blob| needed.blob(blob));
    log.summary().into_iter().for_each(|summary| needed.summary(summary));
    log.uncommitted().for_each(|mail| needed.mail(mail));
    needed.resolve(blobs).await?;
    for digest in needed.blobs {
        if blobs.has(digest).await?.is_none() {
            report.problems.push(format!("session {id}: blob {digest} is not there"));
        }
    }
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
        }
    }
    Ok(())
}

impl Report {
    fn problem(&mut self, what: &str, error: &anyhow::Error) {
        self.problems.push(format!("{what}: {error:#}"));
    }
}
