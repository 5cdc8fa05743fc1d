//! Replay: a recorded session, decided again by a harness. From the commits alone every View is rebuilt (the hash in
//! the commit proves it), and what the harness makes of it is held against what was decided then.
//!
//! Nothing of what a replay decides is ever applied: the next View comes from the record.

mod intake;
mod judge;
mod requests;

pub use domain::committed::Recording;
pub use intake::Missing;
pub use judge::{Broken, Judgement, judge};
pub use requests::{Requested, requests};

use crate::{
    Decision, Intake, SessionState, View,
    frame::{self, Ask, HarnessError, Views},
    view,
};
use domain::{
    Commit, Committed, PrivateEntry, Step, Take,
    agent::{HarnessRef, StrategyRef},
    commit::IdleReason,
    committed::Genesis,
    ids,
    session::Mail,
};
use serde::{Deserialize, Serialize};
use std::panic::AssertUnwindSafe;

/// Who decides.
pub enum With<'a> {
    /// Each stretch of the session again by the harness that decided it.
    Own(&'a mut dyn FnMut(&HarnessRef) -> Option<Box<dyn Ask>>),
    /// Another one, all along, as if it had been swapped in before the first decision.
    Other(&'a HarnessRef, &'a mut dyn Ask),
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Commits compared; with a divergence, those before it.
    pub commits: u64,
    /// Of these, decided by a harness.
    pub decisions: u64,
    /// Requests that another harness would have made by another context strategy. The answers in the record are
    /// answers to what was really sent.
    pub other_context: u64,
    pub divergence: Option<Divergence>,
}

/// The first thing that came out otherwise, with both sides.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Divergence {
    /// Number of the commit, and where in the log it stands.
    pub commit: u64,
    pub position: u64,
    pub turn: u64,
    pub kind: DivergenceKind,
    pub recorded: Side,
    pub replayed: Side,
    /// What the harness saw.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub view: Option<View>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DivergenceKind {
    /// The harness decided something else.
    Decision,
    /// The log does not give the View that was decided on: this build reads it differently.
    View,
    /// The harness was not asked where it was then, or the other way round.
    Asked,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Side {
    pub step: Step,
    /// Types of the events that the commit brings into the log, and its private entries.
    pub takes: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memo: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub view_hash: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("replay commit {commit} of session {session_id}")]
    Missing {
        session_id: String,
        commit: u64,
        #[source]
        source: Missing,
    },
    #[error("replay commit {commit} of session {session_id}: harness {harness} is not in this build")]
    Gone { session_id: String, commit: u64, harness: HarnessRef },
}

/// Walks through a recording: hands out the state before each commit, and what the commit was made on.
pub fn walk(
    recording: &Recording,
    mut on: impl FnMut(&SessionState, &Intake, &Committed) -> Result<(), Error>,
) -> Result<SessionState, Error> {
    let Genesis { created_at, attributes, harness } = recording.genesis.clone();
    let state = SessionState::created(recording.first_session_id(), created_at, attributes, harness);
    walk_from(state, recording, &mut on)
}

/// The state after some commits, from the one before them.
pub fn state_after(before: SessionState, commits: Vec<Committed>) -> Result<SessionState, Error> {
    let summary = &before.summary;
    let genesis = Genesis {
        created_at: summary.created_at,
        attributes: summary.attributes.clone(),
        harness: summary.harness.clone(),
    };
    let recording = Recording { session_id: before.session_id.clone(), genesis, commits, waiting: Vec::new() };
    walk_from(before, &recording, &mut |_, _, _| Ok(()))
}

fn walk_from(
    mut state: SessionState,
    recording: &Recording,
    on: &mut dyn FnMut(&SessionState, &Intake, &Committed) -> Result<(), Error>,
) -> Result<SessionState, Error> {
    let Recording { session_id, commits, waiting, .. } = recording;
    for (at, committed) in commits.iter().enumerate() {
        state = intake::entered(state, &committed.commit);
        let intake = intake::rebuild(&state, commits, at, waiting).map_err(|source| Error::Missing {
            session_id: session_id.clone(),
            commit: committed.commit.n,
            source,
        })?;
        on(&state, &intake, committed)?;
        state.apply(&committed.commit, &intake);
    }
    Ok(state)
}

/// Decides everything again, up to the first divergence.
pub fn replay(recording: &Recording, mut with: With<'_>) -> Result<Report, Error> {
    let mut report = Report::default();
    // What another harness remembers is its own.
    let mut memo: Option<String> = None;
    let foreign = matches!(&with, With::Other(other, _) if **other != recording.genesis.harness);
    walk(recording, |state, intake, committed| {
        if report.divergence.is_some() {
            return Ok(());
        }
        let commit = &committed.commit;
        let mut own;
        let ask: &mut dyn Ask = match &mut with {
            With::Other(_, ask) => *ask,
            With::Own(find) => match (find(&state.summary.harness), &commit.view_hash) {
                (Some(found), _) => {
                    own = found;
                    &mut *own
                }
                (None, None) => &mut Nobody,
                (None, Some(_)) => {
                    return Err(Error::Gone {
                        session_id: recording.session_id.clone(),
                        commit: commit.n,
                        harness: state.summary.harness.clone(),
                    });
                }
            },
        };
        let own_memo = foreign.then_some(&memo);
        let name = state.summary.harness.to_string();
        let mut witness = Witness::new(ask, name, own_memo, commit.view_version);
        let replayed = frame::decide_again(state, intake, &mut witness, commit);
        let seen = witness.seen;
        let kind = compare(commit, &replayed, seen.as_ref(), foreign);
        if let Some(kind) = kind {
            let view = seen.map(|seen| seen.view);
            report.divergence = Some(divergence(state, committed, &replayed, kind, view));
            return Ok(());
        }
        report.commits += 1;
        report.decisions += u64::from(seen.is_some());
        report.other_context += u64::from(step_strategy(&commit.step) != step_strategy(&replayed.step));
        memo = replayed.memo.or_else(|| memo.take());
        Ok(())
    })?;
    Ok(report)
}

fn divergence(
    state: &SessionState,
    committed: &Committed,
    replayed: &Commit,
    kind: DivergenceKind,
    view: Option<View>,
) -> Divergence {
    let commit = &committed.commit;
    Divergence {
        commit: commit.n,
        position: committed.position,
        turn: state.summary.turn,
        kind,
        recorded: side(commit, committed, commit.view_hash.clone()),
        replayed: side(replayed, committed, replayed.view_hash.clone()),
        view,
    }
}

/// What is different, if anything is. Another harness is held against what it does, not against what it remembers
/// and how it makes its requests.
fn compare(recorded: &Commit, replayed: &Commit, seen: Option<&Seen>, foreign: bool) -> Option<DivergenceKind> {
    match (&recorded.view_hash, seen) {
        (Some(hash), Some(seen)) if *hash != seen.recorded_hash => return Some(DivergenceKind::View),
        (Some(_), None) | (None, Some(_)) => return Some(DivergenceKind::Asked),
        _ => {}
    }
    let same = if foreign {
        recorded.takes == replayed.takes && plain(&recorded.step) == plain(&replayed.step)
    } else {
        recorded.takes == replayed.takes && recorded.step == replayed.step && recorded.memo == replayed.memo
    };
    (!same).then_some(DivergenceKind::Decision)
}

/// A step without its strategy.
pub(crate) fn plain(step: &Step) -> Step {
    match step {
        Step::CallModel { suffix, .. } => Step::CallModel { strategy: None, suffix: suffix.clone() },
        Step::Compact { .. } => Step::Compact { strategy: None },
        other => other.clone(),
    }
}

pub(crate) fn step_strategy(step: &Step) -> Option<&StrategyRef> {
    match step {
        Step::CallModel { strategy, .. } | Step::Compact { strategy } => strategy.as_ref(),
        _ => None,
    }
}

fn side(commit: &Commit, committed: &Committed, view_hash: Option<String>) -> Side {
    let takes = commit.takes.iter().map(|take| match take {
        Take::Inline { event, .. } => event.body.type_name().to_owned(),
        Take::Private { entry } => private_name(entry),
        Take::Accepted { id, .. } => committed
            .mail
            .iter()
            .find_map(|mail| match mail {
                Mail::Event { event } if event.id == *id => Some(event.body.type_name().to_owned()),
                _ => None,
            })
            .unwrap_or_else(|| id.clone()),
        Take::Result { activity, index } => format!("{activity}[{index}]"),
    });
    Side { step: commit.step.clone(), takes: takes.collect(), memo: commit.memo.clone(), view_hash }
}

fn private_name(entry: &PrivateEntry) -> String {
    let value = serde_json::to_value(entry).unwrap_or_default();
    value["entry"].as_str().unwrap_or_default().to_owned()
}

/// Stands between the frame and the harness: sees what was recorded and hands on what the harness was written for.
struct Witness<'a> {
    ask: &'a mut dyn Ask,
    name: String,
    memo: Option<&'a Option<String>>,
    /// View version of the record.
    recorded: u32,
    seen: Option<Seen>,
    /// Why it gave no decision.
    failed: Option<String>,
}

impl<'a> Witness<'a> {
    fn new(ask: &'a mut dyn Ask, name: String, memo: Option<&'a Option<String>>, recorded: u32) -> Self {
        Witness { ask, name, memo, recorded, seen: None, failed: None }
    }
}

struct Seen {
    recorded_hash: String,
    view: View,
}

impl Ask for Witness<'_> {
    fn view_version(&self) -> u32 {
        self.recorded
    }

    fn ask(&mut self, view: &View, views: &Views) -> Result<Decision, HarnessError> {
        let recorded_hash = ids::content_hash(&view.to_json());
        let mut view = views.at(self.ask.view_version());
        if let Some(memo) = self.memo {
            view.memo.clone_from(memo);
        }
        self.seen = Some(Seen { recorded_hash, view: view.clone() });
        let asked = std::panic::catch_unwind(AssertUnwindSafe(|| self.ask.ask(&view, views)));
        let asked =
            asked.unwrap_or_else(|_| Err(HarnessError { harness: self.name.clone(), what: "panicked".to_owned() }));
        self.failed = asked.as_ref().err().map(ToString::to_string);
        asked
    }
}

/// For stretches in which no harness was asked.
struct Nobody;

impl Ask for Nobody {
    fn view_version(&self) -> u32 {
        view::VERSION
    }

    fn ask(&mut self, _view: &View, _views: &Views) -> Result<Decision, HarnessError> {
        Ok(Step::Idle { reason: IdleReason::EndTurn {} }.into())
    }
}

#[cfg(test)]
mod histories;
#[cfg(test)]
mod tests;
