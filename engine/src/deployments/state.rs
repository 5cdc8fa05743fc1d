//! What is kept of a deployment: its versions, and which of them its task queues go to. Pure: changes are functions of
//! what is there, what is wanted and the time.

use crate::core::versioning::Version;
use crate::pb::deployment::v1::VersionMetadata;
use crate::pb::enums::v1::{VersionDrainageStatus as Drainage, WorkerDeploymentVersionStatus as Status};
use crate::time::Time;
use std::collections::BTreeMap;

/// How the API calls workers that have no version.
pub const UNVERSIONED: &str = "__unversioned__";

/// A deployment of workers. Times are nanoseconds since the epoch; 0 is "never".
#[derive(Clone, PartialEq, prost::Message)]
pub struct Deployment {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(int64, tag = "2")]
    pub created_at: i64,
    /// The build id that task queues go to; none: workers without a version.
    #[prost(string, optional, tag = "3")]
    pub current: Option<String>,
    /// The build id that a share of the workflows goes to.
    #[prost(message, optional, tag = "4")]
    pub ramp: Option<Ramp>,
    #[prost(int64, tag = "5")]
    pub current_changed_at: i64,
    #[prost(int64, tag = "6")]
    pub ramp_changed_at: i64,
    #[prost(int64, tag = "7")]
    pub percentage_changed_at: i64,
    /// Counts the changes of the routing.
    #[prost(int64, tag = "8")]
    pub revision: i64,
    #[prost(string, tag = "9")]
    pub last_modifier: String,
    /// When somebody last changed the routing: whoever changes it next may insist that this is what they saw.
    #[prost(int64, tag = "10")]
    pub modified_at: i64,
    /// By build id.
    #[prost(btree_map = "string, message", tag = "11")]
    pub versions: BTreeMap<String, VersionState>,
}

/// Where a share of the workflows goes; no build id: to workers without a version.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Ramp {
    #[prost(string, optional, tag = "1")]
    pub to: Option<String>,
    #[prost(float, tag = "2")]
    pub percentage: f32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct VersionState {
    #[prost(int64, tag = "1")]
    pub created_at: i64,
    #[prost(enumeration = "Status", tag = "2")]
    pub status: i32,
    #[prost(int64, tag = "3")]
    pub current_since: i64,
    #[prost(int64, tag = "4")]
    pub ramping_since: i64,
    #[prost(int64, tag = "5")]
    pub routing_changed_at: i64,
    #[prost(int64, tag = "6")]
    pub first_activated_at: i64,
    #[prost(int64, tag = "7")]
    pub last_current_at: i64,
    #[prost(int64, tag = "8")]
    pub last_deactivated_at: i64,
    #[prost(int64, tag = "9")]
    pub drainage_changed_at: i64,
    #[prost(int64, tag = "10")]
    pub drainage_checked_at: i64,
    /// Where workers of this version ever polled.
    #[prost(message, repeated, tag = "11")]
    pub queues: Vec<VersionQueue>,
    #[prost(message, optional, tag = "12")]
    pub metadata: Option<VersionMetadata>,
    #[prost(string, tag = "13")]
    pub last_modifier: String,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct VersionQueue {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(bool, tag = "2")]
    pub is_activity: bool,
}

/// Why a deployment stays as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("no Worker Deployment found with name '{0}'; does your Worker Deployment have pollers?")]
    NoDeployment(String),
    #[error("build ID '{build_id}' not found in Worker Deployment '{deployment}'")]
    NoVersion { deployment: String, build_id: String },
    #[error("conflict token mismatch")]
    Conflict,
    #[error("requested ramping version {0} is already current")]
    AlreadyCurrent(String),
    #[error(
        "proposed {what} version '{version}' is missing active task queues from the current version; these would \
         become unversioned if it is set as the {what} version"
    )]
    MissingQueues { what: &'static str, version: String },
    #[error("version '{0}' cannot be deleted since it is current or ramping")]
    InUse(String),
    #[error("version '{0}' cannot be deleted since it is draining")]
    Draining(String),
    #[error("version '{0}' cannot be deleted since it has active pollers")]
    HasPollers(String),
    #[error("Worker Deployment '{0}' has versions and cannot be deleted")]
    HasVersions(String),
    #[error("cannot add version to deployment {deployment}, maximum number of versions ({max}) has been reached")]
    TooManyVersions { deployment: String, max: usize },
    #[error("cannot add task queue to version {version}, maximum number of task queues ({max}) has been reached")]
    TooManyQueues { version: String, max: usize },
    #[error("reached maximum deployments in namespace ({0})")]
    TooManyDeployments(usize),
}

/// What a change of the routing must find, whoever asks for it.
#[derive(Clone, Debug, Default)]
pub struct Wish {
    pub identity: String,
    /// The routing that its author saw; empty: any.
    pub conflict_token: Vec<u8>,
    /// A version that has no workers yet is fine.
    pub allow_no_pollers: bool,
    /// Queues of the current version, that are in use, which the new one does not have: none, or fine.
    pub missing_queues: bool,
}

impl Deployment {
    pub fn new(name: &str, now: Time) -> Deployment {
        Deployment { name: name.to_owned(), created_at: now.0, modified_at: now.0, ..Default::default() }
    }

    pub fn version(&self, build_id: &str) -> Version {
        Version { deployment: self.name.clone(), build_id: build_id.to_owned() }
    }

    pub fn conflict_token(&self) -> Vec<u8> {
        self.modified_at.to_be_bytes().to_vec()
    }

    /// The version with this build id, made if it is not there.
    pub fn add(&mut self, build_id: &str, status: Status, now: Time) -> &mut VersionState {
        self.versions.entry(build_id.to_owned()).or_insert_with(|| VersionState {
            created_at: now.0,
            status: status as i32,
            ..Default::default()
        })
    }

    /// Queues of the current version that another one does not have.
    pub fn queues_missing_in(&self, build_id: &str) -> Vec<VersionQueue> {
        let queues = |build_id: &str| self.versions.get(build_id).map(|version| version.queues.clone());
        let there = queues(build_id).unwrap_or_default();
        let current = self.current.as_deref().and_then(queues).unwrap_or_default();
        current.into_iter().filter(|queue| !there.contains(queue)).collect()
    }

    fn check(&self, build_id: Option<&str>, wish: &Wish) -> Result<(), Refusal> {
        if !wish.conflict_token.is_empty() && wish.conflict_token != self.conflict_token() {
            return Err(Refusal::Conflict);
        }
        match build_id {
            Some(build_id) if !self.versions.contains_key(build_id) && !wish.allow_no_pollers => {
                Err(Refusal::NoVersion { deployment: self.name.clone(), build_id: build_id.to_owned() })
            }
            _ => Ok(()),
        }
    }

    /// Sends the task queues to a version, or to workers without one.
    pub fn set_current(&mut self, build_id: Option<&str>, wish: &Wish, now: Time) -> Result<(), Refusal> {
        if self.current.as_deref() == build_id && self.last_modifier == wish.identity {
            return Ok(());
        }
        self.check(build_id, wish)?;
        if let Some(build_id) = build_id
            && self.current.is_some()
            && wish.missing_queues
        {
            let version = self.version(build_id).to_string();
            return Err(Refusal::MissingQueues { what: "current", version });
        }
        self.modified(&wish.identity, now);
        if self.current.as_deref() == build_id {
            return Ok(());
        }
        if let Some(build_id) = build_id {
            self.add(build_id, Status::Created, now);
        }
        self.current = build_id.map(str::to_owned);
        self.current_changed_at = now.0;
        self.revision += 1;
        if self.ramp.as_ref().is_some_and(|ramp| ramp.to.as_deref() == build_id) {
            self.ramp = None;
            self.ramp_changed_at = now.0;
            self.percentage_changed_at = now.0;
        }
        self.settle(now);
        Ok(())
    }

    /// Sends a share of the workflows to a version, or to workers without one; none: no share to any.
    pub fn set_ramp(&mut self, ramp: Option<Ramp>, wish: &Wish, now: Time) -> Result<(), Refusal> {
        if self.ramp == ramp && self.last_modifier == wish.identity {
            return Ok(());
        }
        let build_id = ramp.as_ref().and_then(|ramp| ramp.to.as_deref());
        if ramp.is_some() && build_id == self.current.as_deref() {
            let current = build_id.map_or_else(|| UNVERSIONED.to_owned(), |build_id| self.version(build_id).dotted());
            return Err(Refusal::AlreadyCurrent(current));
        }
        self.check(build_id, wish)?;
        let is_new = |ramp: &Ramp| self.ramp.as_ref().map(|known| &known.to) != Some(&ramp.to);
        let begins = ramp.as_ref().is_some_and(is_new);
        if let Some(build_id) = build_id
            && begins
            && self.current.is_some()
            && wish.missing_queues
        {
            let version = self.version(build_id).to_string();
            return Err(Refusal::MissingQueues { what: "ramping", version });
        }
        self.modified(&wish.identity, now);
        if self.ramp == ramp {
            return Ok(());
        }
        if let Some(build_id) = build_id {
            let build_id = build_id.to_owned();
            self.add(&build_id, Status::Created, now);
        }
        if begins || ramp.is_none() {
            self.ramp_changed_at = now.0;
        }
        self.ramp = ramp;
        self.percentage_changed_at = now.0;
        self.revision += 1;
        self.settle(now);
        Ok(())
    }

    fn modified(&mut self, identity: &str, now: Time) {
        self.last_modifier = identity.to_owned();
        self.modified_at = now.0.max(self.modified_at + 1);
    }

    /// Each version is what the routing makes of it.
    fn settle(&mut self, now: Time) {
        let ramping = self.ramp.as_ref().and_then(|ramp| ramp.to.clone());
        let ramp_changed_at = self.ramp_changed_at;
        for (build_id, version) in &mut self.versions {
            let is_current = self.current.as_ref() == Some(build_id);
            let is_ramping = ramping.as_ref() == Some(build_id);
            let was_active = version.current_since != 0 || version.ramping_since != 0;
            let (was_current, was_ramping) = (version.current_since != 0, version.ramping_since != 0);
            version.current_since = match (is_current, was_current) {
                (true, true) => version.current_since,
                (true, false) => now.0,
                (false, _) => 0,
            };
            version.ramping_since = if is_ramping { ramp_changed_at } else { 0 };
            if is_current || is_ramping {
                version.status = if is_current { Status::Current as i32 } else { Status::Ramping as i32 };
                version.last_deactivated_at = 0;
                version.drainage_changed_at = 0;
                version.drainage_checked_at = 0;
                if version.first_activated_at == 0 {
                    version.first_activated_at = now.0;
                }
                if is_current && !was_current {
                    version.last_current_at = now.0;
                }
                if is_ramping || !was_current {
                    version.routing_changed_at = now.0;
                }
            } else if was_active {
                version.drain(now);
                version.routing_changed_at = now.0;
                version.last_deactivated_at = now.0;
            }
            debug_assert!(!was_ramping || was_active);
        }
    }
}

impl VersionState {
    /// Open runs belong to it, and no new ones come by themselves.
    pub fn drain(&mut self, now: Time) {
        self.status = Status::Draining as i32;
        self.drainage_changed_at = now.0;
        self.drainage_checked_at = now.0;
    }

    /// Somebody looked whether open runs belong to it. Whether that is news.
    pub fn look(&mut self, has_runs: bool, now: Time) -> bool {
        match self.status() {
            Status::Draining if !has_runs => {
                self.status = Status::Drained as i32;
                self.drainage_changed_at = now.0;
                self.drainage_checked_at = now.0;
                true
            }
            // An override sent a run there that it did not have before.
            Status::Drained | Status::Inactive if has_runs => {
                self.drain(now);
                true
            }
            _ => false,
        }
    }

    pub fn drainage(&self) -> Drainage {
        match self.status() {
            Status::Draining => Drainage::Draining,
            Status::Drained => Drainage::Drained,
            _ => Drainage::Unspecified,
        }
    }

    pub fn has_queue(&self, name: &str, is_activity: bool) -> bool {
        self.queues.iter().any(|queue| queue.name == name && queue.is_activity == is_activity)
    }
}
