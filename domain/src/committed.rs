//! A commit with everything that it names: what a reader of the log gets, what segments hold, what replay runs on.

use crate::{
    Commit, Event, PrivateEntry, Summary, Take, Time,
    agent::HarnessRef,
    model::ModelPrivate,
    session::{Attributes, LogEntry, Mail},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What a session began with: together with its commits it gives every later state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Genesis {
    pub created_at: Time,
    pub attributes: Attributes,
    pub harness: HarnessRef,
}

/// A recorded session: what replay needs of its log.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Recording {
    pub session_id: String,
    pub genesis: Genesis,
    /// All of them, from the first.
    pub commits: Vec<Committed>,
    /// Accepted and not committed when it was recorded.
    #[serde(default)]
    pub waiting: Vec<Mail>,
}

impl Recording {
    /// Every harness that the session had, in order.
    pub fn harnesses(&self) -> impl Iterator<Item = &HarnessRef> {
        let swaps = self.commits.iter().flat_map(|committed| &committed.commit.takes).filter_map(|take| match take {
            Take::Private { entry: PrivateEntry::Swapped { to, .. } } => Some(to),
            Take::Private { entry: PrivateEntry::Forked { fork } } => Some(&fork.harness),
            _ => None,
        });
        std::iter::once(&self.genesis.harness).chain(swaps)
    }

    /// The session that made the first commit: another one, if this session is a fork.
    pub fn first_session_id(&self) -> &str {
        let fork = self.commits.iter().find_map(|committed| committed.commit.fork());
        fork.map_or(&self.session_id, |fork| &fork.parent)
    }
}

/// A commit with everything that it names: enough to read, replay or seal it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Committed {
    pub commit: Commit,
    /// Position of its first public event.
    pub position: u64,
    pub mail: Vec<Mail>,
    pub results: Vec<NamedResult>,
}

/// An activity's result that a commit names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NamedResult {
    pub activity: String,
    #[serde(flatten)]
    pub result: ActivityResult,
}

/// What results of activities have in common (`domain::outcome`); the rest is kept as it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ActivityResult {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<Event>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub private: Option<ModelPrivate>,
    #[serde(flatten)]
    pub rest: Value,
}

impl Committed {
    /// Folds the commit into a summary.
    pub fn fold_into(&self, summary: &mut Summary) {
        let Commit { takes, now, n, .. } = &self.commit;
        for take in takes {
            summary.take(take, *now, |id| {
                self.mail.iter().find_map(|mail| match mail {
                    Mail::Change { change } if change.id == id => Some(change),
                    _ => None,
                })
            });
        }
        summary.committed(*n, *now);
    }

    /// The public events of the commit, in order, with positions and private parts.
    pub fn entries(&self) -> Vec<LogEntry> {
        let mut entries = Vec::new();
        for take in &self.commit.takes {
            let Some((event, private, ignored)) = self.resolve(take) else { continue };
            let position = self.position + entries.len() as u64;
            entries.push(LogEntry { position, commit: self.commit.n, event, private, ignored });
        }
        entries
    }

    pub fn public_events(&self) -> u64 {
        self.commit.takes.iter().filter(|take| take.is_public()).count() as u64
    }

    fn resolve(&self, take: &Take) -> Option<(Event, Option<ModelPrivate>, bool)> {
        match take {
            Take::Accepted { id, ignored } => {
                let mut event = self.mail.iter().find_map(|mail| match mail {
                    Mail::Event { event } if event.id == *id => Some(event.clone()),
                    _ => None,
                })?;
                // Results of tools were stamped on receipt and keep that time.
                event.processed_at.get_or_insert(self.commit.now);
                Some((event, None, *ignored))
            }
            Take::Result { activity, index } => {
                let mut event = self.result(activity)?.events.get(*index)?.clone();
                event.processed_at = Some(self.commit.now);
                Some((event, None, false))
            }
            Take::Inline { event, private } => {
                let private = private.as_ref().and_then(|activity| self.result(activity)?.private.clone());
                Some((event.clone(), private, false))
            }
            Take::Private { .. } => None,
        }
    }

    /// The result of an activity that the commit names.
    pub fn result(&self, activity: &str) -> Option<&ActivityResult> {
        self.results.iter().find(|named| named.activity == activity).map(|named| &named.result)
    }
}
