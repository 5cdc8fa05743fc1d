//! A what-if that goes on where the record cannot answer: a fork makes the call, in a sandbox of its own, and is sent the messages of
//! the turns that are left. What came of it goes into the report.
//!
//! Everything is done by whoever asks for the report, as often as it takes: the fork is made once, and a message counts once.

use std::collections::BTreeMap;
use std::sync::Arc;

use domain::content::{BlobRef, Block};
use domain::{Event, Status, session::Mail};
use harness::whatif::{Report, Words, says};
use log::blobs;

use super::super::events::post;
use super::super::sessions::{self, current::Current};
use super::super::trials::{self, TrialRow, claims};
use super::recording;
use crate::app::App;
use crate::error::{ApiError, Result};

/// `None`: it is still at work.
pub async fn followed(app: &App, row: &TrialRow, mut report: Report, expect: Option<&str>) -> Result<Option<Report>> {
    let (Some(left), Some(fork)) = (&report.left, &row.fork) else { return Ok(Some(report)) };
    // Earlier builds kept it for an hour only.
    let Some(kept) = claims::kept(app, left).await?.map(Arc::new) else { return Ok(Some(report)) };
    let turn = kept.state.summary.turn;
    // The client may go away; a session that was begun is finished.
    let begun = tokio::spawn({
        let (app, parent, fork, left, at) =
            (app.clone(), row.subject.clone(), fork.clone(), left.clone(), report.position);
        let kept = kept.clone();
        async move { sessions::go_on(&app, &parent, &fork, at, &kept, &left).await }
    });
    if !begun.await.map_err(ApiError::internal)?? {
        return Ok(None);
    }
    let Ok(rested) = tokio::time::timeout(trials::WAIT, rest(app, fork, turn, &kept.inputs)).await else {
        return Ok(None);
    };
    let waits = rested?;
    let log = recording(app, fork).await?;
    let is_first = |commit: &domain::Commit| commit.fork().is_some_and(|begun| begun.session_id == *fork);
    let first = log.commits.iter().position(|committed| is_first(&committed.commit)).unwrap_or_default();
    let commits = &log.commits[first..];
    let words = words(app, &kept.last_words(commits), expect).await?;
    report.went_on(fork, &kept, commits, waits, &Words { expected: expect, kept: &words });
    Ok(Some(report))
}

/// Which messages that are kept by reference say what was expected.
async fn words(app: &App, kept: &BTreeMap<String, BlobRef>, expect: Option<&str>) -> Result<BTreeMap<String, bool>> {
    let mut words = BTreeMap::new();
    let Some(expected) = expect else { return Ok(words) };
    for (hash, blob) in kept {
        let blocks: Vec<Block> = blobs::get_json(&*app.blobs, blob).await?;
        words.insert(hash.clone(), says(&blocks, expected));
    }
    Ok(words)
}

/// Until the turns that are left are over, from the one behind `turn` on. Whether it waits for somebody.
async fn rest(app: &App, id: &str, turn: u64, inputs: &[Vec<Mail>]) -> Result<bool> {
    let followed = app.session(id);
    let mut updates = followed.subscribe();
    followed.follow();
    loop {
        let current = {
            let log = followed.fresh().await?;
            Current::of(&log).ok_or_else(|| ApiError::not_found("session", id))?
        };
        let over = usize::try_from(current.summary.turn.saturating_sub(turn)).unwrap_or(usize::MAX);
        match (current.is_over(), current.status, inputs.get(over)) {
            (true, ..) | (_, Status::Idle, None) => return Ok(false),
            (_, Status::RequiresAction, _) => return Ok(true),
            (_, Status::Idle, Some(inputs)) => {
                post::deliver(app, id, messages(inputs)).await?;
                followed.follow();
            }
            _ => {}
        }
        // Whatever it is, the log has it: also what was told too fast.
        let _ = updates.recv().await;
    }
}

fn messages(inputs: &[Mail]) -> Vec<Event> {
    let events = inputs.iter().filter_map(|mail| match mail {
        Mail::Event { event } => Some(event.clone()),
        _ => None,
    });
    events.collect()
}
