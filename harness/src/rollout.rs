//! A rollout of a harness as a pure state machine: what happened in, the next state out. The workflow drives it, and each of
//! its states is recorded whole, so that whoever reads the history runs no code to know it.
//!
//! gate -> stages -> promoted; any of them may end in `rolled_back` or `stopped`, with the reason.

mod assign;
mod statistics;
#[cfg(test)]
mod tests;

pub use assign::{is_among, threshold};
pub use statistics::{Metric, Verdict, compare};

use crate::replay::{Broken, Divergence, Judgement};
use domain::{
    Time,
    agent::HarnessRef,
    content::BlobRef,
    limits::{GATE_BATCH_SESSIONS, ROLLOUT_NOTES_MAX},
    rollout::{Command, Figures, Mail, Order, Spec},
};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// Everything that a rollout remembers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rollout {
    pub rollout_id: String,
    pub spec: Spec,
    pub created_at: Time,
    /// Decisions made.
    pub n: u64,
    /// When the last one was made.
    pub now: Time,
    pub phase: Phase,
    pub paused: bool,
    pub gate: GateReport,
    /// When the stage began that is on, and how many sessions of the new version there were then.
    pub stage_began: Time,
    pub stage_base: u64,
    pub old: Figures,
    pub new: Figures,
    /// The comparisons of the last look.
    pub verdicts: Vec<Verdict>,
    /// What happened, oldest first; the oldest are forgotten.
    pub notes: VecDeque<Note>,
    /// Ids of commands, so that one delivered again counts once.
    pub seen: VecDeque<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "snake_case")]
pub enum Phase {
    /// Recorded sessions are shown to the new version; no session has it.
    Gating {},
    /// A share of sessions has it.
    Ramping { stage: usize },
    /// Every new session has it.
    Promoted {},
    /// It was used and is not any more.
    RolledBack { reason: String },
    /// It never was.
    Stopped { reason: String },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Note {
    pub at: Time,
    pub what: String,
}

/// What became of the gate so far.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GateReport {
    /// Sessions of the sample that were shown.
    pub next: u32,
    pub decisions: u64,
    pub differing: u64,
    pub other_context: u64,
    /// Sessions that decided something else at least once.
    pub sessions_differing: u32,
    /// Sessions that could not be read any more, or were read otherwise than they were recorded.
    pub unreadable: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<Shown>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<GateFailure>,
}

/// A difference, and in which session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Shown {
    pub session_id: String,
    pub divergence: Divergence,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GateFailure {
    pub why: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Shown>,
}

/// Input of the gate: a part of the sample.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GateInput {
    pub rollout_id: String,
    pub to: HarnessRef,
    pub strict: bool,
    pub sample: BlobRef,
    pub from: u32,
    pub sessions: u32,
}

/// What a decision is made on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Intake {
    pub now: Time,
    pub mail: Vec<Mail>,
    /// A part of the gate that ended, or why it did not.
    pub gated: Option<Result<GateReport, String>>,
}

impl GateReport {
    /// Takes in what a harness made of one session.
    pub fn judged(&mut self, session_id: &str, judged: Judgement, strict: bool) {
        let Judgement { decisions, differing, other_context, first, broken } = judged;
        let shown = |divergence| Shown { session_id: session_id.to_owned(), divergence };
        self.next += 1;
        self.decisions += decisions;
        self.differing += differing;
        self.other_context += other_context;
        self.sessions_differing += u32::from(differing > 0);
        if self.first.is_none() {
            self.first = first.clone().map(shown);
        }
        self.failure = match (broken, first) {
            (Some(Broken { why, at }), _) => Some(GateFailure { why, at: Some(shown(at)) }),
            (None, Some(first)) if strict => {
                Some(GateFailure { why: "it decides otherwise than was recorded".to_owned(), at: Some(shown(first)) })
            }
            _ => None,
        };
    }

    fn add(&mut self, part: GateReport) {
        self.next += part.next;
        self.decisions += part.decisions;
        self.differing += part.differing;
        self.other_context += part.other_context;
        self.sessions_differing += part.sessions_differing;
        self.unreadable += part.unreadable;
        self.first = self.first.take().or(part.first);
        self.failure = part.failure;
    }
}

impl Rollout {
    pub fn created(rollout_id: &str, created_at: Time, spec: Spec) -> Self {
        Rollout {
            rollout_id: rollout_id.to_owned(),
            spec,
            created_at,
            n: 0,
            now: created_at,
            phase: Phase::Gating {},
            paused: false,
            gate: GateReport::default(),
            stage_began: created_at,
            stage_base: 0,
            old: Figures::default(),
            new: Figures::default(),
            verdicts: Vec::new(),
            notes: VecDeque::new(),
            seen: VecDeque::new(),
        }
    }

    /// How many of a hundred sessions have the new version.
    pub fn percent(&self) -> u8 {
        match self.phase {
            Phase::Ramping { stage } => self.spec.stages.get(stage).copied().unwrap_or(0),
            Phase::Promoted {} => 100,
            _ => 0,
        }
    }

    pub fn is_over(&self) -> bool {
        !matches!(self.phase, Phase::Gating {} | Phase::Ramping { .. })
    }

    /// The part of the gate that is to be under way.
    pub fn gate_wanted(&self) -> Option<GateInput> {
        let left = self.spec.gate.sessions.saturating_sub(self.gate.next);
        let wanted = matches!(self.phase, Phase::Gating {}) && !self.paused && self.n > 0 && left > 0;
        wanted.then(|| GateInput {
            rollout_id: self.rollout_id.clone(),
            to: self.spec.to.clone(),
            strict: self.spec.gate.strict,
            sample: self.spec.gate.sample.clone(),
            from: self.gate.next,
            sessions: left.min(GATE_BATCH_SESSIONS),
        })
    }

    /// When there is something to decide though nothing happens.
    pub fn wakes_at(&self) -> Option<Time> {
        let waits = matches!(self.phase, Phase::Ramping { .. }) && !self.paused;
        waits.then(|| self.stage_ends()).filter(|at| *at > self.now)
    }

    fn stage_ends(&self) -> Time {
        self.stage_began.plus_ms(self.spec.watch.stage_ms)
    }

    /// Whether a decision would do anything.
    pub fn is_due(&self, intake: &Intake) -> bool {
        let has_slept = self.wakes_at().is_some_and(|at| at <= intake.now);
        !self.is_over() && (self.n == 0 || has_slept || !intake.mail.is_empty() || intake.gated.is_some())
    }

    /// The next state. Pure: the same state and intake give the same.
    pub fn decided(mut self, intake: Intake) -> Self {
        self.now = self.now.max(intake.now);
        self.n += 1;
        for mail in intake.mail {
            match mail {
                Mail::Observed { observed } => (self.old, self.new) = (observed.old, observed.new),
                Mail::Command { command } => self.command(command),
            }
        }
        if let Some(gated) = intake.gated
            && matches!(self.phase, Phase::Gating {})
        {
            match gated {
                Ok(part) => self.gate.add(part),
                Err(why) => self.gate.failure = Some(GateFailure { why, at: None }),
            }
        }
        match self.phase {
            Phase::Gating {} => self.gate(),
            Phase::Ramping { stage } => self.watch(stage),
            _ => {}
        }
        self
    }

    fn command(&mut self, Command { id, to }: Command) {
        if self.seen.contains(&id) || self.is_over() {
            return;
        }
        self.seen.push_back(id);
        if self.seen.len() > ROLLOUT_NOTES_MAX {
            self.seen.pop_front();
        }
        match (to, &self.phase) {
            (Order::Pause, _) if !self.paused => {
                self.paused = true;
                self.note("paused");
            }
            (Order::Resume, _) if self.paused => {
                self.paused = false;
                self.note("resumed");
            }
            (Order::Promote, Phase::Ramping { .. }) => self.end(Phase::Promoted {}, "promoted by hand"),
            (Order::Promote, _) => self.note("not promoted: the gate is not passed"),
            (Order::Rollback, Phase::Ramping { .. }) => {
                let reason = "rolled back by hand".to_owned();
                self.end(Phase::RolledBack { reason }, "rolled back by hand");
            }
            (Order::Rollback, _) => {
                let reason = "stopped by hand".to_owned();
                self.end(Phase::Stopped { reason }, "stopped by hand");
            }
            (Order::Pause | Order::Resume, _) => {}
        }
    }

    fn gate(&mut self) {
        if let Some(failure) = &self.gate.failure {
            let place = failure.at.as_ref().map_or_else(String::new, |shown| {
                format!(" (session {}, commit {})", shown.session_id, shown.divergence.commit)
            });
            let reason = format!("the gate was not passed: {}{place}", failure.why);
            self.end(Phase::Stopped { reason: reason.clone() }, &reason);
        } else if self.gate.next >= self.spec.gate.sessions && !self.paused {
            let GateReport { next, decisions, differing, .. } = self.gate;
            self.note(&format!("gate passed: {next} sessions, {decisions} decisions, {differing} of them other ones"));
            self.stage(0);
        }
    }

    fn watch(&mut self, stage: usize) {
        self.verdicts = compare(&self.old, &self.new, &self.spec.watch);
        if let Some(worse) = self.verdicts.iter().find(|verdict| verdict.is_worse) {
            let Verdict { metric, old, new, p, .. } = worse;
            let p = p.unwrap_or_default();
            let percent = self.percent();
            let reason = format!("{metric} rose from {old:.4} to {new:.4} at {percent} percent (p = {p:.2e})");
            self.end(Phase::RolledBack { reason: reason.clone() }, &format!("rolled back: {reason}"));
            return;
        }
        let minimum = self.spec.watch.sessions_min;
        let seen = self.new.sessions.saturating_sub(self.stage_base);
        let is_enough = seen >= minimum && self.old.sessions >= minimum;
        if self.paused || !is_enough || self.now < self.stage_ends() {
            return;
        }
        if stage + 1 < self.spec.stages.len() {
            self.stage(stage + 1);
        } else if self.percent() == 100 {
            self.end(Phase::Promoted {}, "promoted: the last stage held");
        }
    }

    fn stage(&mut self, stage: usize) {
        self.phase = Phase::Ramping { stage };
        self.stage_began = self.now;
        self.stage_base = self.new.sessions;
        self.note(&format!("{} percent", self.percent()));
    }

    fn end(&mut self, phase: Phase, note: &str) {
        self.phase = phase;
        self.paused = false;
        self.note(note);
    }

    fn note(&mut self, what: &str) {
        self.notes.push_back(Note { at: self.now, what: what.to_owned() });
        if self.notes.len() > ROLLOUT_NOTES_MAX {
            self.notes.pop_front();
        }
    }
}
