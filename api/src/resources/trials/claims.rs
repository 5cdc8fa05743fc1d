//! The histories of trials refer to blobs where a payload is too large for an engine: what a large ablation was started with, and
//! its reports. These are needed as long as the trial can be asked for.

use std::collections::BTreeSet;

use log::history::Error as HistoryError;
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
        let (mut claimed, mut next) = (BTreeSet::new(), Vec::new());
        loop {
            let page = app.reader.page(&run, next, false).await?;
            claimed.extend(page.claimed.iter().filter_map(|blob| blob.blob.parse::<Digest>().ok()));
            next = page.next;
            if next.is_empty() {
                return Ok(claimed);
            }
        }
    };
    match read.await {
        Err(HistoryError::NotFound { .. }) => Ok(BTreeSet::new()),
        Err(error @ HistoryError::Claim { .. }) => {
            tracing::warn!(trial_id, error = &error as &dyn std::error::Error, "history of a trial not whole");
            Ok(BTreeSet::new())
        }
        read => read.map_err(ApiError::internal),
    }
}
