//! Whether what is stored fits together: every row can be read, every index leads to a row and every row is in its
//! index, every blob that is referred to is there and is what it was.

use std::sync::Arc;

use jiff::Timestamp;
use store::{Blobs, Catalog, Direction, KeyRange, Record, Versioned};

use crate::error::Result;
use crate::references;
use crate::resources::{agents, environments, files, harnesses, rollouts, sessions, trials, vaults};
use crate::tenants;

/// How many rows are read in one go.
const STRIDE: usize = 500;

/// What a check read, and what it did not like.
#[derive(Clone, PartialEq, Debug)]
pub struct Report {
    pub catalog: store::catalog::Report,
    pub blobs: store::blobs::Report,
    /// One a line, for an operator; those of the stores included.
    pub problems: Vec<String>,
}

/// Reads everything. For a service that is stopped: what changes meanwhile can look like a problem.
pub async fn verify(catalog: &Arc<dyn Catalog>, blobs: &dyn Blobs, now: Timestamp) -> Result<Report> {
    let catalog_report = catalog.verify().await?;
    let blobs_report = blobs.verify().await?;
    let mut problems = [&catalog_report.problems[..], &blobs_report.problems[..]].concat();
    for part in tenants::parts(catalog).await? {
        agents::verify(&*part, &mut problems).await?;
        environments::verify(&*part, &mut problems).await?;
        environments::work::row::verify(&*part, &mut problems).await?;
        files::verify(&*part, blobs, now, &mut problems).await?;
        sessions::row::verify(&*part, &mut problems).await?;
        harnesses::verify(&*part, &mut problems).await?;
        rollouts::verify(&*part, &mut problems).await?;
        trials::verify(&*part, &mut problems).await?;
        vaults::verify(&*part, &mut problems).await?;
    }
    references::verify(&**catalog, blobs, &mut problems).await?;
    Ok(Report { catalog: catalog_report, blobs: blobs_report, problems })
}

/// Calls `check` with every row of a table. A row that cannot be read is a problem, not an error.
pub(crate) async fn each<R: Record>(
    catalog: &dyn Catalog,
    problems: &mut Vec<String>,
    mut check: impl AsyncFnMut(Versioned<R>, &mut Vec<String>) -> Result<()>,
) -> Result<()> {
    let mut range = KeyRange::all();
    loop {
        let rows = catalog.scan(R::TABLE, range.clone(), Direction::Forward, STRIDE).await?;
        let Some(last) = rows.last() else { return Ok(()) };
        range = range.after(last.key.to_vec(), Direction::Forward);
        for row in rows {
            let key = String::from_utf8_lossy(&row.key).into_owned();
            match Versioned::read(row) {
                Ok(row) => check(row, problems).await?,
                Err(error) => problems.push(format!("{} {key}: {error}", R::TABLE.name())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use store::{Batch, Digest, Durability, MemoryBlobs, MemoryCatalog, Table};

    use super::*;
    use crate::resources::files::FileRow;

    struct Stores {
        catalog: Arc<dyn Catalog>,
        blobs: Arc<dyn Blobs>,
        file: FileRow,
    }

    /// Stores that are sound, with one file in them.
    async fn stores() -> Stores {
        let (catalog, blobs) = (Arc::new(MemoryCatalog::new()), Arc::new(MemoryBlobs::new()));
        let file = FileRow {
            id: "file_1".to_owned(),
            filename: "a.txt".to_owned(),
            mime_type: "text/plain".to_owned(),
            size_bytes: 5,
            digest: blobs.put("hello".into()).await.unwrap(),
            created_at: Timestamp::UNIX_EPOCH,
            expires_at: None,
            session_id: Some("sesn_1".to_owned()),
            downloadable: true,
        };
        catalog.write(files::insert(Batch::new(), &file), Durability::Synced).await.unwrap();
        Stores { catalog, blobs, file }
    }

    async fn problems(stores: &Stores) -> Vec<String> {
        verify(&stores.catalog, &*stores.blobs, Timestamp::UNIX_EPOCH).await.unwrap().problems
    }

    async fn after(change: impl FnOnce(Batch, &FileRow) -> Batch) -> Vec<String> {
        let stores = stores().await;
        assert_eq!(problems(&stores).await, [""; 0]);
        stores.catalog.write(change(Batch::new(), &stores.file), Durability::Synced).await.unwrap();
        problems(&stores).await
    }

    #[tokio::test]
    async fn every_kind_of_damage_is_named() {
        let in_files = |key: &'static str, value: &'static str| {
            move |batch: Batch, _: &FileRow| batch.put(FileRow::TABLE, key, value)
        };
        assert!(after(in_files("file_2", "not json")).await[0].starts_with("files file_2: "));
        assert!(after(in_files("file_2", r#"{"v":9,"row":{}}"#)).await[0].contains("version 9"));
        let lost = after(|batch, _| batch.delete(FileRow::TABLE, "file_1")).await;
        assert_eq!(lost.len(), 2);
        assert!(lost.iter().all(|problem| problem.contains("leads to file_1, which is not there")), "{lost:?}");
        let unindexed = after(|batch, _| batch.delete(Table::new("files_by_time"), "0000000000000000file_1")).await;
        assert_eq!(unindexed, ["files file_1: is not in the index files_by_time"]);
        let unreferenced = after(|batch, file| references::remove(batch, file.digest, &file.id)).await;
        assert_eq!(unreferenced, ["files file_1: has no reference to its blob"]);
        let dangling = after(|batch, _| references::insert(batch, Digest::of(b"never put"), "file_2")).await;
        assert!(dangling[0].ends_with("of file_2, which is not there"), "{dangling:?}");
    }

    #[tokio::test]
    async fn a_blob_that_is_gone_is_named() {
        let stores = stores().await;
        let later = std::time::SystemTime::now() + std::time::Duration::from_secs(1);
        assert!(stores.blobs.delete(stores.file.digest, later).await.unwrap());
        let found = problems(&stores).await;
        assert!(found.iter().any(|problem| problem.starts_with("files file_1: its blob")), "{found:?}");
        assert!(found.iter().any(|problem| problem.ends_with("of file_1, which is not there")), "{found:?}");
    }
}
