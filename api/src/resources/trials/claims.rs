//! The histories of trials refer to blobs where a payload is too large for an engine: what a large ablation was started with, and
//! its reports; and where a session is to go on from a what-if, to what that needs. These are needed as long as the trial can be asked for.

use std::collections::BTreeSet;

use domain::content::BlobRef;
use domain::trial::Tried;
use harness::whatif::{Left, Report};
use log::history::Error as HistoryError;
use log::{blobs, trial};
use store::blobs::Error as StoreError;
use store::{Batch, Digest};

use crate::app::App;
use crate::error::{ApiError, Result};
use crate::references;

/// Adds to the batch what its history is known to need by now, and nobody has noted yet.
pub async fn refer(app: &App, mut batch: Batch, trial_id: &str) -> Result<Batch> {
    for digest in claimed(app, trial_id).await? {
        if !references::has(&*app.catalog, digest, trial_id).await? {
            batch = references::insert(batch, digest, trial_id);
        }
    }
    Ok(batch)
}

/// Adds to the batch that nothing is needed for it any more.
pub async fn release(app: &App, batch: Batch, trial_id: &str) -> Result<Batch> {
    let claimed = claimed(app, trial_id).await?;
    Ok(claimed.into_iter().fold(batch, |batch, digest| references::remove(batch, digest, trial_id)))
}

/// Nothing where the history is gone, or lacks what it claims: then nobody can ask for it either.
async fn claimed(app: &App, trial_id: &str) -> Result<BTreeSet<Digest>> {
    let read = async {
        let (run, _) = app.reader.latest_run(trial_id).await?;
        let (mut claimed, mut last, mut next) = (BTreeSet::new(), None, Vec::new());
        loop {
            let page = app.reader.page(&run, next, false).await?;
            claimed.extend(page.claimed.iter().filter_map(digest));
            last = page.events.last().cloned().or(last);
            next = page.next;
            if next.is_empty() {
                return Ok((claimed, last));
            }
        }
    };
    let (mut claimed, last) = match read.await {
        Err(HistoryError::NotFound { .. }) => return Ok(BTreeSet::new()),
        Err(error @ HistoryError::Claim { .. }) => {
            tracing::warn!(trial_id, error = &error as &dyn std::error::Error, "history of a trial not whole");
            return Ok(BTreeSet::new());
        }
        read => read.map_err(ApiError::internal)?,
    };
    let reports = last.map(|last| trial::reports::<Vec<Tried<Report>>>(&last)).transpose()?.flatten();
    for left in reports.into_iter().flatten().filter_map(left) {
        // Where it is gone, nothing can go on from it.
        if let Some(kept) = kept(app, &left).await? {
            claimed.extend(kept.kept.iter().chain([&left]).filter_map(digest));
        }
    }
    Ok(claimed)
}

fn left(tried: Tried<Report>) -> Option<BlobRef> {
    match tried {
        Tried::Report { report } => report.left,
        Tried::Failed { .. } => None,
    }
}

/// What a session can go on from. `None`: nobody kept it.
pub async fn kept(app: &App, left: &BlobRef) -> Result<Option<Left>> {
    match blobs::get_json(&*app.blobs, left).await {
        Err(blobs::Error::Store { source: StoreError::Missing { .. }, .. }) => Ok(None),
        read => Ok(Some(read?)),
    }
}

fn digest(blob: &BlobRef) -> Option<Digest> {
    blob.blob.parse().ok()
}
