//! The row of a harness that was added. Its module is a blob under the same hash.

use domain::agent::HarnessRef;
use harness::wasm::Manifest;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use store::{Direction, KeyRange, Record, Table};

use crate::app::App;
use crate::error::Result;

/// More than anybody adds by hand; a list of all of them is one page.
const ROWS_MAX: usize = 10_000;

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct HarnessRow {
    pub sha256: String,
    pub manifest: Manifest,
    pub bytes: u64,
    pub added_at: Timestamp,
}

impl Record for HarnessRow {
    const TABLE: Table = Table::new("harnesses");
    const VERSION: u32 = 1;
}

impl HarnessRow {
    pub fn reference(&self) -> HarnessRef {
        let Manifest { name, version, .. } = self.manifest.clone();
        HarnessRef { name, version, sha256: self.sha256.clone() }
    }
}

/// All that were added, oldest first.
pub async fn all(app: &App) -> Result<Vec<HarnessRow>> {
    let rows = app.catalog.rows::<HarnessRow>(KeyRange::all(), Direction::Forward, ROWS_MAX).await?;
    let mut rows: Vec<HarnessRow> = rows.into_iter().map(|read| read.row).collect();
    rows.sort_by_key(super::by_age);
    Ok(rows)
}
