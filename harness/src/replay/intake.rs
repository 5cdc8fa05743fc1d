//! From commits back to what they were made on.
//!
//! A commit names everything that it took. What was there and not taken matters in two cases only, and both leave a
//! trace: inputs that waited (`Commit::queued` counts them) and an interrupt that waited for calls to end (something
//! was told to stop).

use crate::{
    SessionState,
    intake::{Closing, Intake, Outcome, Waiting},
    state::{Op, Pending},
};
use domain::{
    Commit, Committed, EventBody, PrivateEntry, Take,
    commit::Closed,
    committed::ActivityResult,
    outcome::{CollectOutcome, ListOutcome, ModelDigest, ParkOutcome, ProvisionOutcome, SealOutcome, ToolDigest},
    session::Mail,
};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// The log does not hold what a commit names.
#[derive(Debug, thiserror::Error)]
pub enum Missing {
    #[error("find mail {0}")]
    Mail(String),
    #[error("find the result of {0}")]
    Result(String),
    #[error("read the result of {activity}")]
    Shape {
        activity: String,
        #[source]
        source: serde_json::Error,
    },
}

/// The state in the run that made the commit: a run before it that the commit says is being sealed had ended, and a fork has
/// become a session of its own.
pub fn entered(mut state: SessionState, commit: &Commit) -> SessionState {
    if let Some(fork) = commit.fork() {
        return state.forked(fork.clone());
    }
    for (activity, _) in closings(commit) {
        if let Some(run_id) = activity.strip_prefix("seal-")
            && state.pending(activity).is_none()
        {
            state = state.continued(run_id);
        }
    }
    state
}

/// What commit number `at` of `commits` was made on.
pub fn rebuild(state: &SessionState, commits: &[Committed], at: usize, waiting: &[Mail]) -> Result<Intake, Missing> {
    let committed = &commits[at];
    let commit = &committed.commit;
    let mut mail = Vec::new();
    for id in commit.takes.iter().filter_map(Take::mail) {
        let taken = committed.mail.iter().find(|known| known.id() == id);
        mail.push(Waiting::of(taken.ok_or_else(|| Missing::Mail(id.to_owned()))?));
    }
    let later = || commits[at + 1..].iter().flat_map(|later| later.mail.iter()).chain(waiting);
    let stops = mail.iter().any(|taken| matches!(taken, Waiting::Interrupt { .. } | Waiting::Close { .. }));
    if !stops
        && was_stopped(state, commit)
        && let Some(interrupt) = later().find(|mail| is_interrupt(mail))
    {
        mail.push(Waiting::of(interrupt));
    }
    // Where inputs waited, those that the commit took were taken after the harness was asked.
    let taken = mail.iter().filter(|taken| taken.is_input()).count();
    let untaken = (commit.queued as usize).saturating_sub(taken);
    mail.extend(later().map(Waiting::of).filter(Waiting::is_input).take(untaken));

    let mut closed = Vec::new();
    for (activity, how) in closings(commit) {
        let Some(pending) = state.pending(activity).filter(|pending| !is_frames_own(pending, how)) else { continue };
        let outcome = match how {
            Closed::Finished => Some(outcome(&pending.op, activity, committed.result(activity))?),
            Closed::Failed { .. } | Closed::Cancelled => None,
        };
        closed.push(Closing { activity: activity.to_owned(), how: how.clone(), outcome });
    }
    Ok(Intake { now: commit.now, mail, closed })
}

fn closings(commit: &Commit) -> impl Iterator<Item = (&str, &Closed)> {
    commit.takes.iter().filter_map(|take| match take {
        Take::Private { entry: PrivateEntry::ActivityClosed { activity, how } } => Some((activity.as_str(), how)),
        _ => None,
    })
}

fn was_stopped(state: &SessionState, commit: &Commit) -> bool {
    if commit.fork().is_some() {
        return false;
    }
    let told = commit.takes.iter().any(|take| matches!(take, Take::Private { entry: PrivateEntry::Cancelling { .. } }));
    told || closings(commit).any(|(activity, how)| {
        // A rest ends with the turn that begins, and nobody has stopped anything.
        let by_stop = |pending: &Pending| is_frames_own(pending, how) && !matches!(pending.op, Op::Rest { .. });
        *how == Closed::Cancelled && state.pending(activity).is_some_and(by_stop)
    })
}

/// The frame ended it, not the world: what it stops without waiting, and calls that were given to no hand.
fn is_frames_own(pending: &Pending, how: &Closed) -> bool {
    match &pending.op {
        Op::Execute { .. } => !pending.dispatched,
        _ => *how == Closed::Cancelled && !pending.cancelling,
    }
}

fn is_interrupt(mail: &Mail) -> bool {
    matches!(mail, Mail::Event { event } if matches!(event.body, EventBody::UserInterrupt { .. }))
}

fn outcome(op: &Op, activity: &str, result: Option<&ActivityResult>) -> Result<Outcome, Missing> {
    let result = || result.ok_or_else(|| Missing::Result(activity.to_owned()));
    Ok(match op {
        Op::CallModel { .. } | Op::Compact { .. } => {
            let digest: ModelDigest = read(activity, &result()?.rest["digest"])?;
            Outcome::Model { digest, events: result()?.events.len() }
        }
        Op::Execute { .. } => {
            let digest: ToolDigest = read(activity, &result()?.rest["digest"])?;
            Outcome::Tool { digest }
        }
        Op::Provision { .. } => {
            let outcome: ProvisionOutcome = read(activity, &result()?.rest)?;
            Outcome::Provision { outcome }
        }
        Op::ListTools { .. } => {
            let outcome: ListOutcome = read(activity, &result()?.rest)?;
            Outcome::List { outcome }
        }
        Op::Seal { .. } => {
            let outcome: SealOutcome = read(activity, &result()?.rest)?;
            Outcome::Seal { outcome }
        }
        Op::Collect { .. } => {
            let outcome: CollectOutcome = read(activity, &result()?.rest)?;
            Outcome::Collect { outcome }
        }
        Op::Park { .. } => {
            let outcome: ParkOutcome = read(activity, &result()?.rest)?;
            Outcome::Park { outcome }
        }
        Op::Timer { .. } | Op::Rest { .. } | Op::Discard { .. } | Op::Hand { .. } | Op::Release { .. } => {
            Outcome::Done {}
        }
    })
}

fn read<T: DeserializeOwned>(activity: &str, value: &Value) -> Result<T, Missing> {
    T::deserialize(value).map_err(|source| Missing::Shape { activity: activity.to_owned(), source })
}
