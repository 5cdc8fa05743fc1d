//! The fork in which a what-if goes on: its parent's log up to a turn, then what the what-if did, then a session as any other.

use domain::commit::Fork;
use domain::content::BlobRef;
use harness::whatif::Left;
use log::blobs;
use log::references::Needed;
use log::segment::{self, Segment};

use super::{ForkSession, Planned, attributes, before, begin, finish};
use crate::app::App;
use crate::error::{ApiError, Result};
use crate::resources::sessions::moment;
use crate::resources::sessions::row::{self, SessionRow};

/// Lets the session `id` go on from what was left of a what-if that began at position `at` of `parent`. Done again it changes
/// nothing. Whether it is there: somebody else may be making it.
pub async fn go_on(app: &App, parent: &str, id: &str, at: u64, left: &Left, kept: &BlobRef) -> Result<bool> {
    if let Some(is_there) = there(app, id).await? {
        return Ok(is_there);
    }
    row::find(app, parent).await?;
    let (mut manifest, state) = before(app, parent, Some(at)).await?;
    let Left { began, state: reached, commits, .. } = left.clone();
    if state.summary.n != began.summary.n {
        let why = format!("session {parent} has {} commits before {at} and had {}", state.summary.n, began.summary.n);
        return Err(ApiError::internal(std::io::Error::other(why)));
    }
    let mut needed = Needed::default();
    needed.blob(kept);
    commits.iter().for_each(|committed| needed.commit(committed));
    let written = segment::write(&*app.blobs, id, &commits).await?;
    let began = Some(blobs::put_json(&*app.blobs, &began).await?);
    manifest.push(&*app.blobs, Segment { shared: true, state: began, ..written }).await?;
    let (attributes, policy) = attributes(app, id, &reached, &ForkSession::default()).await?;
    let resources = reached.summary.attributes.resources.clone();
    let harness = reached.summary.harness.clone();
    let is_harness_named = harness != state.summary.harness;
    let (parent, session_id, created_at) = (parent.to_owned(), id.to_owned(), moment(app.clock.now()));
    let fork = Fork { parent, session_id, created_at, attributes, harness, goes_on: true };
    let plan =
        finish(app, Planned { fork, state: reached, is_harness_named, policy, resources }, manifest, needed).await?;
    match begin(app, plan).await {
        Ok(_) => Ok(true),
        Err(error) => there(app, id).await?.ok_or(error),
    }
}

/// `None`: nobody has made it.
async fn there(app: &App, id: &str) -> Result<Option<bool>> {
    match app.catalog.row::<SessionRow>(id).await? {
        Some(read) if read.row.deleted => Err(ApiError::not_found("session", id)),
        found => Ok(found.map(|read| read.row.started)),
    }
}
