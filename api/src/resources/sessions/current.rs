//! A session as it is now: what the log says, and what was accepted and not yet committed on top of it.

use domain::session::{Attributes, Change, Mail};
use domain::{EventBody, Status, Summary};
use log::SessionLog;

#[derive(Clone, PartialEq, Debug)]
pub struct Current {
    pub summary: Summary,
    /// As clients see it: accepted input that starts work makes a session running.
    pub status: Status,
    /// It is told to end and takes nothing more.
    pub closing: bool,
}

impl Current {
    pub fn of(log: &SessionLog) -> Option<Self> {
        let mut summary = log.summary()?.clone();
        let mut status = summary.status;
        let mut closing = false;
        for mail in log.uncommitted() {
            match mail {
                Mail::Event { event } if starts_work(&event.body) && status == Status::Idle => status = Status::Running,
                Mail::Change { change } => apply(&mut summary.attributes, change, status),
                Mail::Close { .. } => closing = true,
                Mail::Event { .. } | Mail::Swap { .. } | Mail::Give { .. } | Mail::Handed { .. } => {}
            }
        }
        if log.is_closed() {
            status = Status::Terminated;
        }
        Some(Self { summary, status, closing })
    }

    pub fn is_over(&self) -> bool {
        self.closing || self.status == Status::Terminated
    }

    /// Nothing will happen until somebody sends something.
    pub fn rests(&self) -> bool {
        !self.closing && self.status.is_idle()
    }
}

/// Whether this makes an idle session run.
pub fn starts_work(body: &EventBody) -> bool {
    matches!(body, EventBody::UserMessage { .. } | EventBody::SystemMessage { .. })
}

/// A change of attributes as the log will show it, if it is not dropped.
pub fn apply(attributes: &mut Attributes, change: &Change, status: Status) {
    if let Some(title) = &change.title {
        attributes.title.clone_from(title);
    }
    if let Some(metadata) = &change.metadata {
        attributes.metadata.clone_from(metadata);
    }
    if let Some(resources) = &change.resources {
        attributes.resources.clone_from(resources);
    }
    if let Some(change) = change.strategy.as_ref().filter(|change| !change.turn) {
        attributes.agent.strategy.clone_from(&change.strategy);
    }
    if let Some(agent) = change.agent.as_ref().filter(|_| status.is_idle()) {
        attributes.agent = agent.facts.clone();
    }
}
