//! Moves rollouts on from outside: follows each into its row, tells it how its sessions do, and swaps live sessions as its
//! stage says. What it did not come to is done at the next start: everything here can be done twice.

use std::collections::BTreeSet;
use std::time::Duration;

use domain::agent::HarnessRef;
use domain::rollout::{Observed, signal as rollout_signal};
use domain::session::{Swap, signal};
use domain::{Status, ids};
use harness::rollout::{Phase, Rollout, is_among};
use log::{RolloutLog, history, segment};
use store::{Batch, Durability};
use tokio::task::JoinSet;

use super::assign::{self, Arm, EnrolledRow};
use super::figures::{self, Counts};
use super::row::{self, RolloutRow, Share};
use crate::app::App;
use crate::error::Result;
use crate::gateway;
use crate::resources::sessions::row::{self as session_row, SessionRow};
use crate::tenants::Tenants;

/// Sessions' rows are written many at a time: a rollout is told of all of them at once, and not more often than this.
const GATHER: Duration = Duration::from_millis(500);
/// Pause after a rollout could not be read.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Those of every tenant, until dropped.
pub async fn keep(tenants: Tenants) {
    let mut changes = tenants.first().rollouts.subscribe();
    let mut followed = BTreeSet::new();
    let mut following = JoinSet::new();
    loop {
        changes.mark_unchanged();
        match all(&tenants).await {
            Ok(open) => {
                for (app, id) in open {
                    if followed.insert(id.clone()) {
                        following.spawn(follow(app, id));
                    }
                }
            }
            Err(error) => tracing::warn!(error = error.message(), "rollouts not moved on"),
        }
        while following.try_join_next().is_some() {}
        if changes.changed().await.is_err() {
            return;
        }
        tokio::time::sleep(GATHER).await;
    }
}

async fn all(tenants: &Tenants) -> Result<Vec<(App, String)>> {
    let mut open = Vec::new();
    for app in tenants.apps().await? {
        open.extend(round(&app).await?.into_iter().map(|id| (app.clone(), id)));
    }
    Ok(open)
}

/// Does what is to be done now, and names the rollouts that are to be followed.
pub async fn round(app: &App) -> Result<Vec<String>> {
    let mut open = Vec::new();
    for row in row::all(app).await? {
        if row.is_settled() {
            continue;
        }
        let id = row.id.clone();
        match one(app, row).await {
            Ok(true) => open.push(id),
            Ok(false) => {}
            Err(error) => tracing::warn!(rollout_id = id, error = error.message(), "rollout not moved on"),
        }
    }
    Ok(open)
}

/// False if there is nothing to follow.
async fn one(app: &App, row: RolloutRow) -> Result<bool> {
    if !row.started {
        return match app.gateway.describe(&row.id).await {
            Ok(_) => Ok(true),
            Err(gateway::Error::NotFound { .. }) => row::forget(app, &row).await.map(|()| false),
            Err(error) => Err(error.into()),
        };
    }
    if row.swapped != row.share() {
        swap(app, &row).await?;
    }
    if let Phase::Ramping { .. } = row.state.phase {
        tell(app, &row).await?;
    }
    Ok(!row.state.is_over())
}

/// Follows a rollout into its row until it is over.
async fn follow(app: App, id: String) {
    loop {
        match read_on(&app, &id).await {
            Ok(()) | Err(segment::Error::History(history::Error::NotFound { .. })) => return,
            Err(error) => {
                tracing::warn!(rollout_id = id, error = &error as &dyn std::error::Error, "rollout cannot be read");
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
    }
}

async fn read_on(app: &App, id: &str) -> Result<(), segment::Error> {
    let mut log = RolloutLog::<Rollout>::open(&*app.reader, id).await?;
    loop {
        if let Some(state) = &log.state {
            match row::project(app, id, state).await {
                Ok(Some(_)) => {
                    tracing::info!(rollout_id = id, percent = state.percent(), "rollout moved on");
                    app.rollouts.send_modify(|count| *count += 1);
                }
                Ok(None) => {}
                Err(error) => tracing::warn!(rollout_id = id, error = error.message(), "rollout row not written"),
            }
        }
        if log.is_closed {
            return Ok(());
        }
        log.read_on(&*app.reader).await?;
    }
}

/// Tells a rollout how its sessions do, if that is news.
async fn tell(app: &App, row: &RolloutRow) -> Result<()> {
    let Rollout { rollout_id, spec, old, new, .. } = &row.state;
    let observed = figures::observe(app, rollout_id, spec).await?;
    if observed == (Observed { old: *old, new: *new }) {
        return Ok(());
    }
    let bytes = serde_json::to_vec(&observed).unwrap_or_default();
    let request = ids::derive("observed", &[rollout_id, &row.state.n.to_string(), &ids::content_hash(&bytes)]);
    match app.gateway.signal(rollout_id, rollout_signal::OBSERVED, &observed, &request).await {
        // It is over, as its row will say.
        Ok(()) | Err(gateway::Error::NotFound { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Swaps the sessions that the stage says, and notes that it was done.
async fn swap(app: &App, row: &RolloutRow) -> Result<()> {
    let share = row.share();
    match share {
        Share::Withdrawn => withdraw(app, row).await?,
        Share::Percent(percent) if row.state.spec.live && percent > 0 => bring_in(app, row, percent).await?,
        Share::Percent(_) => {}
    }
    row::change(&*app.catalog, &row.id, |row| Some(RolloutRow { swapped: share, ..row.clone() })).await?;
    Ok(())
}

/// Live sessions that hold the old version: those that are among the first get the new one, the others are what it is
/// compared with.
async fn bring_in(app: &App, row: &RolloutRow, percent: u8) -> Result<()> {
    let spec = &row.state.spec;
    let mut live = Vec::new();
    session_row::each(app, |session| {
        let is_meant = spec.agent_id.as_deref().is_none_or(|agent| session.agent_id == agent);
        if is_meant && holds(session, &spec.from) {
            live.push(session.id.clone());
        }
    })
    .await?;
    for session_id in live {
        let arm = if is_among(&session_id, percent) { Arm::New } else { Arm::Old };
        enroll(app, &row.id, &session_id, arm).await?;
        if arm == Arm::New {
            tell_to_swap(app, &row.id, &session_id, &spec.to).await?;
        }
    }
    Ok(())
}

/// Everyone who was given the new version gets the old one back.
async fn withdraw(app: &App, row: &RolloutRow) -> Result<()> {
    let spec = &row.state.spec;
    for EnrolledRow { session_id, arm, .. } in assign::enrolled(&*app.catalog, &row.id).await? {
        if arm == Arm::Old {
            continue;
        }
        let session = app.catalog.row::<SessionRow>(&session_id).await?;
        // A swap to the new version that waits for its turn to end is overtaken by this one.
        if session.is_some_and(|read| holds(&read.row, &spec.to) || (spec.live && holds(&read.row, &spec.from))) {
            tell_to_swap(app, &row.id, &session_id, &spec.from).await?;
        }
    }
    Ok(())
}

fn holds(session: &SessionRow, harness: &HarnessRef) -> bool {
    session.is_there()
        && session.projection.as_ref().is_some_and(|known| {
            known.summary.status != Status::Terminated
                && known.status != Status::Terminated
                && known.summary.harness == *harness
        })
}

/// Counts a session from now on as one of `arm`, if it does not already.
async fn enroll(app: &App, rollout_id: &str, session_id: &str, arm: Arm) -> Result<()> {
    let key = assign::key(rollout_id, session_id);
    let known = app.catalog.row::<EnrolledRow>(&key).await?.map(|read| read.row);
    if known.as_ref().is_some_and(|known| known.arm == arm) {
        return Ok(());
    }
    let Some(session) = app.catalog.row::<SessionRow>(session_id).await? else { return Ok(()) };
    let base = session.row.projection.map(|known| Counts::of(&known.summary)).unwrap_or_default();
    let before = known.map(|known| base.since(known.base)).unwrap_or_default();
    let row = EnrolledRow { session_id: session_id.to_owned(), arm, base, before };
    Ok(app.catalog.write(Batch::new().upsert(&key, &row), Durability::Lazy).await?)
}

/// The same swap has the same id, however often it is sent.
async fn tell_to_swap(app: &App, rollout_id: &str, session_id: &str, to: &HarnessRef) -> Result<()> {
    let id = ids::derive(crate::ids::SWAP, &[rollout_id, session_id, &to.sha256]);
    let swap = Swap { id, harness: to.clone() };
    match app.gateway.signal(session_id, signal::SWAP, &swap, &swap.id).await {
        Ok(()) => {
            app.session(session_id).follow();
            Ok(())
        }
        // It ended in between.
        Err(gateway::Error::NotFound { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
