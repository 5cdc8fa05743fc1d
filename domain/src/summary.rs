//! What can be said of a session without reading its log: status, usage, attributes, where its log lies.
//!
//! One fold, used by the workflow's state and by readers of the log, so that a row of the api and the
//! session itself cannot disagree.

use crate::{
    EventBody, HandName, Held, PrivateEntry, Take, Time, Usage,
    agent::HarnessRef,
    content::BlobRef,
    event::StopReason,
    held::Parked,
    session::{Attributes, Change},
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    pub created_at: Time,
    /// `processed_at` of the last commit.
    pub last_time: Time,
    pub attributes: Attributes,
    pub harness: HarnessRef,
    pub status: Status,
    /// Number of the next decision.
    pub n: u64,
    /// Position of the next public event.
    pub position: u64,
    pub turn: u64,
    /// How the turn that is on began, or the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub began: Option<TurnBegin>,
    /// Turns that ended in `retries_exhausted`.
    #[serde(default)]
    pub failed_turns: u64,
    /// Model requests that were answered or failed.
    #[serde(default)]
    pub requests: u64,
    pub usage: Usage,
    /// Milliseconds spent running, without the stretch that began at `running_since`.
    pub active_ms: u64,
    pub running_since: Option<Time>,
    /// What it has of the hand that calls go to which name none.
    #[serde(flatten)]
    pub main: Held,
    /// And of the others, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub others: BTreeMap<HandName, Held>,
    /// The timer at whose end its hands are parked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resting: Option<String>,
    pub manifest: Option<BlobRef>,
    /// Closed runs that the manifest does not name yet, oldest first.
    pub unsealed: Vec<String>,
}

/// What everything that a turn causes can be traced back to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TurnBegin {
    /// Id of the first event that the turn took.
    pub event: String,
    pub at: Time,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Idle,
    /// Idle, and somebody outside has to answer.
    RequiresAction,
    Running,
    Rescheduling,
    Terminated,
}

impl Status {
    /// As the API says it.
    pub fn public(self) -> &'static str {
        match self {
            Status::Idle | Status::RequiresAction => "idle",
            Status::Running => "running",
            Status::Rescheduling => "rescheduling",
            Status::Terminated => "terminated",
        }
    }

    pub fn is_idle(self) -> bool {
        matches!(self, Status::Idle | Status::RequiresAction)
    }
}

impl Summary {
    pub fn created(created_at: Time, attributes: Attributes, harness: HarnessRef) -> Self {
        Summary {
            created_at,
            last_time: created_at,
            attributes,
            harness,
            status: Status::Idle,
            n: 0,
            position: 0,
            turn: 0,
            began: None,
            failed_turns: 0,
            requests: 0,
            usage: Usage::default(),
            active_ms: 0,
            running_since: None,
            main: Held::default(),
            others: BTreeMap::new(),
            resting: None,
            manifest: None,
            unsealed: Vec::new(),
        }
    }

    /// Folds one take made at `now`; `change` finds an attribute change by id.
    pub fn take<'a>(&mut self, take: &Take, now: Time, change: impl FnOnce(&str) -> Option<&'a Change>) {
        if take.is_public() {
            self.position += 1;
        }
        match take {
            Take::Inline { event, .. } => self.inline(&event.body, now),
            Take::Private { entry } => self.private(entry, now, change),
            // The first one after `TurnBegun`.
            Take::Accepted { id, ignored: false } if self.began.is_none() && self.turn > 0 => {
                self.began = Some(TurnBegin { event: id.clone(), at: now });
            }
            Take::Accepted { .. } | Take::Result { .. } => {}
        }
    }

    fn inline(&mut self, body: &EventBody, now: Time) {
        match body {
            EventBody::SessionStatusRunning {} => {
                self.status = Status::Running;
                self.running_since.get_or_insert(now);
            }
            EventBody::SessionStatusIdle { stop_reason, .. } => {
                let asks = matches!(stop_reason, StopReason::RequiresAction { .. });
                self.failed_turns += u64::from(matches!(stop_reason, StopReason::RetriesExhausted {}));
                self.rest(if asks { Status::RequiresAction } else { Status::Idle }, now);
            }
            EventBody::SessionStatusRescheduled {} => self.status = Status::Rescheduling,
            EventBody::SessionStatusTerminated {} => self.rest(Status::Terminated, now),
            EventBody::SpanModelRequestEnd { model_usage, .. } => {
                self.requests += 1;
                self.usage += *model_usage;
            }
            EventBody::SessionUpdated { title, metadata, .. } => {
                if let Some(title) = title {
                    self.attributes.title.clone_from(title);
                }
                if let Some(metadata) = metadata {
                    self.attributes.metadata.clone_from(metadata);
                }
            }
            _ => {}
        }
    }

    fn rest(&mut self, status: Status, now: Time) {
        self.status = status;
        if let Some(since) = self.running_since.take() {
            self.active_ms += now.since(since);
        }
    }

    fn private<'a>(&mut self, entry: &PrivateEntry, now: Time, change: impl FnOnce(&str) -> Option<&'a Change>) {
        match entry {
            PrivateEntry::TurnBegun {} => {
                self.turn += 1;
                self.began = None;
            }
            PrivateEntry::Changed { id, dropped: false } => {
                if let Some(change) = change(id) {
                    if let Some(agent) = &change.agent {
                        self.attributes.agent = agent.facts.clone();
                    }
                    if let Some(resources) = &change.resources {
                        self.attributes.resources.clone_from(resources);
                    }
                    if let Some(change) = change.strategy.as_ref().filter(|change| !change.turn) {
                        self.attributes.agent.strategy.clone_from(&change.strategy);
                    }
                }
            }
            PrivateEntry::Swapped { to, .. } => self.harness = to.clone(),
            PrivateEntry::HandProvisioned { hand, name } => {
                let held = self.held_mut(name);
                held.hand = Some(hand.clone());
                held.parked = None;
            }
            PrivateEntry::HandParked { hand, name, workspace, .. } => {
                let held = self.held_mut(name);
                held.hand = None;
                held.parked = Some(Parked { hand: hand.hand.clone(), workspace: workspace.clone(), at: now });
            }
            PrivateEntry::HandGiven { handed, .. } => self.held_mut(&handed.from_name).parked = None,
            PrivateEntry::HandTaken { handed } => {
                let (hand, workspace) = (handed.hand.clone(), handed.workspace.clone());
                self.held_mut(&handed.name).parked = Some(Parked { hand, workspace, at: now });
            }
            PrivateEntry::HandBack { handed } => {
                let (hand, workspace) = (handed.hand.clone(), handed.workspace.clone());
                self.held_mut(&handed.from_name).parked = Some(Parked { hand, workspace, at: now });
            }
            PrivateEntry::Resting { activity, .. } => self.resting = Some(activity.clone()),
            PrivateEntry::Parking { activity, name } => self.held_mut(name).parking = Some(activity.clone()),
            PrivateEntry::HandLost { hand, .. } | PrivateEntry::HandReleased { hand } => {
                for held in self.all_held_mut() {
                    held.hand.take_if(|own| own.hand == *hand);
                }
            }
            PrivateEntry::RunSealed { run_id, manifest } => {
                self.unsealed.retain(|run| run != run_id);
                self.manifest = Some(manifest.clone());
            }
            PrivateEntry::Collecting { activity, name } => self.held_mut(name).collecting = Some(activity.clone()),
            PrivateEntry::ActivityClosed { activity, .. } => {
                self.all_held_mut().for_each(|held| held.closed(activity));
                self.resting.take_if(|resting| resting == activity);
            }
            PrivateEntry::ToolsListed { listed } => {
                let agent = &mut self.attributes.agent;
                agent.tools.clone_from(&listed.tools);
                agent.snapshot.clone_from(&listed.snapshot);
                for server in agent.mcp.iter_mut().filter(|server| listed.servers.contains(&server.server)) {
                    server.listed = true;
                }
            }
            PrivateEntry::Outputs { listing, name } => self.held_mut(name).outputs = Some(listing.clone()),
            _ => {}
        }
    }

    /// What there is of a hand; nothing where it was never made.
    pub fn held(&self, name: &HandName) -> Option<&Held> {
        if name.is_main() { Some(&self.main) } else { self.others.get(name) }
    }

    fn held_mut(&mut self, name: &HandName) -> &mut Held {
        if name.is_main() { &mut self.main } else { self.others.entry(name.clone()).or_default() }
    }

    fn all_held_mut(&mut self) -> impl Iterator<Item = &mut Held> {
        std::iter::once(&mut self.main).chain(self.others.values_mut())
    }

    /// Every hand that the session has or had, the main one first.
    pub fn all_held(&self) -> impl Iterator<Item = (HandName, &Held)> {
        let others = self.others.iter().map(|(name, held)| (name.clone(), held));
        std::iter::once((HandName::default(), &self.main)).chain(others)
    }

    /// The session has that hand now.
    pub fn name_of(&self, hand_id: &str) -> Option<HandName> {
        self.all_held()
            .find(|(_, held)| held.hand.as_ref().is_some_and(|own| own.hand == hand_id))
            .map(|(name, _)| name)
    }

    pub fn has_any_hand(&self) -> bool {
        self.all_held().any(|(_, held)| held.hand.is_some())
    }

    /// Something of its hands will be told in the log although the session rests.
    pub fn is_asking_hands(&self) -> bool {
        self.resting.is_some() || self.all_held().any(|(_, held)| held.collecting.is_some() || held.parking.is_some())
    }

    /// The end of a commit.
    pub fn committed(&mut self, n: u64, now: Time) {
        self.last_time = now;
        self.n = n + 1;
    }

    /// Turns that are over.
    pub fn turns_ended(&self) -> u64 {
        self.turn - u64::from(self.turn > 0 && matches!(self.status, Status::Running | Status::Rescheduling))
    }

    pub fn active_ms_at(&self, now: Time) -> u64 {
        self.active_ms + self.running_since.map_or(0, |since| now.since(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commit::Closed;
    use serde_json::json;

    fn summary() -> Summary {
        let blob = json!({"blob": "00", "bytes": 1});
        let agent = json!({"agent_id": "agent_1", "version": 1, "name": "a", "model": "m", "window_tokens": 1000,
            "max_tokens": 100, "tools": [], "strategy": {"name": "s", "version": 1}, "snapshot": blob});
        let attributes = json!({"title": null, "environment_id": "env_1", "agent": agent});
        let harness = json!({"name": "loop", "version": 1, "sha256": "00"});
        let harness = serde_json::from_value(harness).unwrap();
        Summary::created(Time::from_ms(0), serde_json::from_value(attributes).unwrap(), harness)
    }

    #[test]
    fn a_turn_is_known_by_its_first_event() {
        let mut summary = summary();
        let began = |id: &str, at| Some(TurnBegin { event: id.into(), at: Time::from_ms(at) });
        let turn_begun = || Take::Private { entry: PrivateEntry::TurnBegun {} };
        let accepted = |id: &str, ignored| Take::Accepted { id: id.into(), ignored };
        for (take, at, expected) in [
            (accepted("interrupt", false), 1, None),
            (turn_begun(), 2, None),
            (accepted("late", true), 2, None),
            (accepted("one", false), 2, began("one", 2)),
            (accepted("two", false), 3, began("one", 2)),
            (turn_begun(), 4, None),
            (accepted("three", false), 4, began("three", 4)),
        ] {
            summary.take(&take, Time::from_ms(at), |_| None);
            assert_eq!(summary.began, expected, "{take:?}");
        }
    }

    #[test]
    fn turns_are_counted_by_how_they_end() {
        let mut summary = summary();
        let inline = |body: EventBody| Take::Inline {
            event: crate::Event { id: "e".into(), body, processed_at: None },
            private: None,
        };
        let idle = |stop_reason| inline(EventBody::SessionStatusIdle { stop_reason, stop_details: None });
        for (take, ended, failed) in [
            (Take::Private { entry: PrivateEntry::TurnBegun {} }, 1, 0),
            (inline(EventBody::SessionStatusRunning {}), 0, 0),
            (idle(StopReason::EndTurn {}), 1, 0),
            (Take::Private { entry: PrivateEntry::TurnBegun {} }, 2, 0),
            (inline(EventBody::SessionStatusRunning {}), 1, 0),
            (idle(StopReason::RetriesExhausted {}), 2, 1),
        ] {
            summary.take(&take, Time::from_ms(1), |_| None);
            assert_eq!((summary.turns_ended(), summary.failed_turns), (ended, failed), "{take:?}");
        }
    }

    #[test]
    fn a_collection_lasts_until_its_own_activity_is_over() {
        let mut summary = summary();
        let closed = |activity: &str| PrivateEntry::ActivityClosed { activity: activity.into(), how: Closed::Finished };
        for (entry, expected) in [
            (PrivateEntry::Collecting { activity: "collect-7".into(), name: HandName::default() }, Some("collect-7")),
            (closed("seal-3"), Some("collect-7")),
            (closed("collect-7"), None),
        ] {
            summary.take(&Take::Private { entry }, Time::from_ms(1), |_| None);
            assert_eq!(summary.main.collecting.as_deref(), expected);
        }
    }
}
