//! Whether another harness can be let near sessions: shown every moment of a recorded one, it has to decide something that
//! can be done.
//!
//! Unlike a replay this goes on behind a difference: a harness that is meant to differ is asked at every moment of the
//! record all the same. It shows what the harness does there, not where its own way would have led.

use super::{Divergence, DivergenceKind, Error, Witness, divergence, plain, step_strategy, walk};
use crate::frame::{self, Ask};
use domain::{Commit, EventBody, Take, agent::HarnessRef, committed::Recording, event::RetryStatus};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Judgement {
    /// Moments at which the harness was asked.
    pub decisions: u64,
    /// Of these, where it decided something else than was decided then.
    pub differing: u64,
    /// Of these, where it would have made the same request by another context strategy.
    pub other_context: u64,
    /// The first difference, whatever it is worth.
    pub first: Option<Divergence>,
    /// The first decision that cannot stand. Nothing was asked after it.
    pub broken: Option<Broken>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Broken {
    pub why: String,
    pub at: Divergence,
}

/// Shows a recording to `harness`, up to the first decision that cannot stand: a crash, a step that leads nowhere, or a turn
/// given up where the record goes on.
pub fn judge(recording: &Recording, harness: &HarnessRef, ask: &mut dyn Ask) -> Result<Judgement, Error> {
    let mut judged = Judgement::default();
    let foreign = *harness != recording.genesis.harness;
    let mut memo: Option<String> = None;
    walk(recording, |state, intake, committed| {
        let commit = &committed.commit;
        if judged.broken.is_some() || commit.view_hash.is_none() {
            return Ok(());
        }
        let own_memo = foreign.then_some(&memo);
        let mut witness = Witness::new(ask, harness.to_string(), own_memo, commit.view_version);
        let decided = frame::decide_again(state, intake, &mut witness, commit);
        let (seen, failed) = (witness.seen, witness.failed);
        if seen.is_none() {
            return Ok(());
        }
        judged.decisions += 1;
        judged.other_context += u64::from(step_strategy(&commit.step) != step_strategy(&decided.step));
        let why = failed.or_else(|| given_up(&decided).filter(|_| given_up(commit).is_none()));
        let is_same = decided.takes == commit.takes && plain(&decided.step) == plain(&commit.step);
        if !is_same {
            judged.differing += 1;
        }
        if !is_same || why.is_some() {
            // Without the View, which may be 64 KiB: a replay of the one session shows it.
            let at = divergence(state, committed, &decided, DivergenceKind::Decision, None);
            judged.broken = why.map(|why| Broken { why, at: at.clone() });
            judged.first.get_or_insert(at);
        }
        memo = decided.memo.or_else(|| memo.take());
        Ok(())
    })?;
    Ok(judged)
}

/// The error with which a commit gives a turn up.
fn given_up(commit: &Commit) -> Option<String> {
    commit.takes.iter().find_map(|take| match take {
        Take::Inline { event, .. } => match &event.body {
            EventBody::SessionError { error } if error.retry_status == RetryStatus::Exhausted => {
                Some(error.message.clone())
            }
            _ => None,
        },
        _ => None,
    })
}
