//! To which version of its workers a run belongs. A worker says with each workflow task that it completes whether the
//! run stays with its version (pinned) or goes where its task queue goes (auto-upgrade); an operator may override that.
//!
//! A run that does not belong to one version for good moves when a worker of another version takes its task: the
//! *transition* lasts until that version completes a workflow task. Which version a task queue goes to is not known here.

use super::state::RunState;
use super::{Input, Refusal, Tx, activity, workflow_task};
use crate::pb::deployment::v1::{InheritedAutoUpgradeInfo, WorkerDeploymentVersion};
use crate::pb::enums::v1::{ContinueAsNewVersioningBehavior as Initially, VersioningBehavior as Behavior};
use crate::pb::history::v1::history_event::Attributes;
use crate::pb::history::v1::{
    DeclinedTargetVersionUpgrade, WorkflowExecutionOptionsUpdatedEventAttributes,
    WorkflowExecutionStartedEventAttributes as Started,
};
use crate::pb::workflow::v1::versioning_override::{OneTimeOverride, Override, PinnedOverride, PinnedOverrideBehavior};
use crate::pb::workflow::v1::{DeploymentVersionTransition, VersioningOverride, WorkflowExecutionVersioningInfo};
use std::collections::BTreeSet;
use std::fmt;

/// A version of the workers of a deployment.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Message)]
pub struct Version {
    #[prost(string, tag = "1")]
    pub deployment: String,
    #[prost(string, tag = "2")]
    pub build_id: String,
}

/// How a run stands to the versions of its workers.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Versioning {
    /// What the worker that completed the last workflow task wants.
    #[prost(enumeration = "Behavior", tag = "1")]
    pub behavior: i32,
    /// The version of that worker, or the one that the run began with.
    #[prost(message, optional, tag = "2")]
    pub version: Option<Version>,
    /// What an operator wants instead.
    #[prost(message, optional, tag = "3")]
    pub overriding: Option<VersioningOverride>,
    #[prost(message, optional, tag = "4")]
    pub transition: Option<Transition>,
    /// The revision of the routing that the last transition followed.
    #[prost(int64, tag = "5")]
    pub revision: i64,
    /// A pinned run was told that its task queue goes to another version.
    #[prost(message, optional, tag = "6")]
    pub notified: Option<Target>,
    /// It was told before it continued as new, and stayed.
    #[prost(message, optional, tag = "7")]
    pub declined: Option<Target>,
    /// How the first workflow task of a run that continues another one is routed.
    #[prost(enumeration = "Initially", tag = "8")]
    pub initially: i32,
}

/// On the way to another version; `None`: to workers without one.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Transition {
    #[prost(message, optional, tag = "1")]
    pub to: Option<Version>,
}

/// Where a task queue goes, by which revision of the routing.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Target {
    #[prost(message, optional, tag = "1")]
    pub version: Option<Version>,
    #[prost(int64, tag = "2")]
    pub revision: i64,
}

/// What the queues must know of a run to find the right workers for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Route {
    pub workflow_id: String,
    /// Only workers of this version.
    pub pinned: Option<Version>,
    /// The version that it is with now.
    pub on: Option<Version>,
    /// To the ramping version, whatever its share.
    pub ramping: bool,
}

/// A worker that takes a task of a run.
#[derive(Clone, Debug, Default)]
pub struct Poller {
    pub version: Option<Version>,
    /// The revision of the routing that sent the task there.
    pub revision: i64,
    /// Where the run's workflow tasks go now if it is not pinned.
    pub target: Target,
}

/// A worker that completes a workflow task, as it describes itself.
#[derive(Clone, Debug, Default)]
pub struct Worker {
    pub deployment: String,
    pub version: Option<Version>,
    pub behavior: Behavior,
    /// The task queues where workers of its version take workflow tasks.
    pub queues: BTreeSet<String>,
}

impl Version {
    pub fn of(version: Option<&WorkerDeploymentVersion>) -> Option<Version> {
        let WorkerDeploymentVersion { deployment_name, build_id } = version?.clone();
        (!build_id.is_empty()).then_some(Version { deployment: deployment_name, build_id })
    }

    pub fn wire(&self) -> WorkerDeploymentVersion {
        WorkerDeploymentVersion { deployment_name: self.deployment.clone(), build_id: self.build_id.clone() }
    }

    /// As the deprecated fields of the API have it.
    pub fn dotted(&self) -> String {
        format!("{}.{}", self.deployment, self.build_id)
    }

    pub fn from_dotted(text: &str) -> Option<Version> {
        let (deployment, build_id) = text.split_once('.')?;
        Some(Version { deployment: deployment.to_owned(), build_id: build_id.to_owned() })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.deployment, self.build_id)
    }
}

impl Versioning {
    /// The version that an override names.
    fn overriding_version(&self) -> Option<Version> {
        match self.overriding.as_ref()?.r#override.as_ref()? {
            Override::Pinned(pinned) => Version::of(pinned.version.as_ref()),
            Override::OneTime(once) => Version::of(once.target_deployment_version.as_ref()),
            Override::AutoUpgrade(_) => None,
        }
    }

    fn behavior_now(&self) -> Behavior {
        match (&self.transition, self.overriding.as_ref().and_then(|given| given.r#override.as_ref())) {
            (Some(_), _) | (None, Some(Override::AutoUpgrade(_))) => Behavior::AutoUpgrade,
            (None, Some(Override::Pinned(_) | Override::OneTime(_))) => Behavior::Pinned,
            (None, None) => self.behavior(),
        }
    }

    fn version_now(&self) -> Option<Version> {
        if let Some(transition) = &self.transition {
            return transition.to.clone();
        }
        self.overriding_version().or_else(|| self.version.clone())
    }
}

impl RunState {
    /// What holds for the run now: its transition, an override, or what its worker said.
    pub fn behavior(&self) -> Behavior {
        self.versioning.as_ref().map_or(Behavior::Unspecified, Versioning::behavior_now)
    }

    /// The version that the run is with now; none: with workers that have none.
    pub fn version(&self) -> Option<Version> {
        self.versioning.as_ref().and_then(Versioning::version_now)
    }

    /// The version that alone may have the run, while it is open.
    pub fn pinned_to(&self) -> Option<Version> {
        if self.is_open() && self.behavior() == Behavior::Pinned { self.version() } else { None }
    }

    pub fn route(&self) -> Route {
        let is_first = self.previous_started_event_id == 0;
        let initially = self.versioning.as_ref().map(Versioning::initially);
        Route {
            workflow_id: self.workflow_id.clone(),
            pinned: if self.behavior() == Behavior::Pinned { self.version() } else { None },
            on: self.version(),
            ramping: is_first && initially == Some(Initially::UseRampingVersion),
        }
    }

    pub fn is_in_transition(&self) -> bool {
        self.versioning.as_ref().is_some_and(|versioning| versioning.transition.is_some())
    }

    /// As descriptions and lists show it.
    pub fn versioning_info(&self) -> Option<WorkflowExecutionVersioningInfo> {
        let versioning = self.versioning.as_ref()?;
        #[expect(deprecated, reason = "tools still read the fields")]
        Some(WorkflowExecutionVersioningInfo {
            behavior: versioning.behavior,
            version: versioning.version.as_ref().map(Version::dotted).unwrap_or_default(),
            deployment_version: versioning.version.as_ref().map(Version::wire),
            versioning_override: versioning.overriding.clone(),
            version_transition: versioning.transition.as_ref().map(|transition| DeploymentVersionTransition {
                version: transition.to.as_ref().map(Version::dotted).unwrap_or_default(),
                deployment_version: transition.to.as_ref().map(Version::wire),
            }),
            revision_number: versioning.revision,
            continue_as_new_initial_versioning_behavior: versioning.initially,
            ..Default::default()
        })
    }
}

/// The version that lists find a run by: that of an override, or of its worker.
pub fn version_shown(info: &WorkflowExecutionVersioningInfo) -> Option<Version> {
    let overriding = info.versioning_override.as_ref().and_then(|given| named_version(given).ok().flatten());
    overriding.or_else(|| Version::of(info.deployment_version.as_ref()))
}

/// The behavior that lists find a run by.
pub fn behavior_shown(info: &WorkflowExecutionVersioningInfo) -> Behavior {
    let shown =
        Versioning { overriding: info.versioning_override.clone(), behavior: info.behavior, ..Default::default() };
    shown.behavior_now()
}

/// A worker takes the run's workflow task: the run moves to its version, or refuses when it belongs to another one.
pub fn meet(tx: &mut Tx<'_>, poller: &Poller) -> Result<(), Refusal> {
    if tx.state.version() == poller.version {
        return Ok(());
    }
    if tx.state.behavior() == Behavior::Pinned {
        return Err(Refusal::WorkflowTaskNotFound);
    }
    begin_transition(tx, poller);
    Ok(())
}

fn begin_transition(tx: &mut Tx<'_>, poller: &Poller) {
    let versioning = tx.state.versioning.get_or_insert_default();
    versioning.transition = Some(Transition { to: poller.version.clone() });
    versioning.revision = poller.revision;
    tx.state.sticky = None;
    tx.effects.listed = true;
}

/// A pinned run hears, with its workflow task, that its task queue goes to another version: it may continue as new
/// there. Whether there is such news.
pub fn notice(tx: &mut Tx<'_>, target: &Target) {
    let (behavior, on) = (tx.state.behavior(), tx.state.version());
    let Some(versioning) = &mut tx.state.versioning else { return };
    let revision = |target: &Option<Target>| target.as_ref().map_or(0, |target| target.revision);
    let newest = revision(&versioning.notified).max(revision(&versioning.declined));
    if versioning.overriding.is_some() {
        versioning.notified = None;
        versioning.declined = None;
    } else if behavior != Behavior::Pinned || target.revision < newest {
        // It goes there by itself, or this is older than what it knows.
    } else if on == target.version {
        versioning.notified = None;
        versioning.declined = None;
    } else if versioning.declined.is_none() || target.revision > revision(&versioning.declined) {
        versioning.notified = Some(target.clone());
        versioning.declined = None;
    }
}

/// Whether a workflow task tells its run that another version is wanted.
pub fn is_notified(state: &RunState) -> bool {
    let notified = state.versioning.as_ref().is_some_and(|versioning| versioning.notified.is_some());
    notified && state.behavior() == Behavior::Pinned
}

/// A worker takes an activity. Whether the run moves to the worker's version first: then the activity comes again when
/// it is there. An activity on a queue that has nothing to do with the run's versions moves nothing.
pub fn moves_before(tx: &mut Tx<'_>, poller: &Poller) -> bool {
    let moves = tx.state.version() != poller.version
        && tx.state.behavior() != Behavior::Pinned
        && poller.version == poller.target.version;
    if moves {
        begin_transition(tx, poller);
        workflow_task::requeue(tx);
        workflow_task::ensure(tx);
    }
    moves
}

/// A worker completed a workflow task: its version has the run now.
pub fn completed(tx: &mut Tx<'_>, worker: &Worker) {
    let state = &mut *tx.state;
    let before = (state.version(), state.behavior());
    let mut arrived = false;
    tx.effects.listed |= state.deployment_name != worker.deployment;
    state.deployment_name.clone_from(&worker.deployment);
    if worker.behavior != Behavior::Unspecified {
        state.versioning.get_or_insert_default();
    }
    if let Some(versioning) = &mut state.versioning {
        // A task that was under way when the transition began may be completed by the version before it.
        arrived = versioning.transition.as_ref().is_some_and(|transition| transition.to == worker.version);
        if arrived {
            versioning.transition = None;
        }
        let shown = (versioning.behavior, versioning.version.clone());
        versioning.behavior = worker.behavior as i32;
        versioning.version = if worker.behavior == Behavior::Unspecified { None } else { worker.version.clone() };
        let is_once = matches!(
            versioning.overriding.as_ref().and_then(|given| given.r#override.as_ref()),
            Some(Override::OneTime(once)) if Version::of(once.target_deployment_version.as_ref()) == worker.version
        );
        if is_once {
            versioning.overriding = None;
        }
        tx.effects.listed |= arrived || is_once || shown != (versioning.behavior, versioning.version.clone());
    }
    if arrived || before != (tx.state.version(), tx.state.behavior()) {
        activity::requeue(tx);
    }
}

/// Whether the run goes on with workers of another version than this one's.
pub fn leaves(state: &RunState, worker: &Worker) -> bool {
    state.is_in_transition() || state.pinned_to().is_some_and(|version| Some(&version) != worker.version.as_ref())
}

/// An operator overrides what the worker said, or lets that hold again.
pub struct SetOverride {
    pub overriding: Option<VersioningOverride>,
    pub identity: String,
}

impl Input for SetOverride {
    /// What holds now, and whether that is news.
    type Reply = (Option<VersioningOverride>, bool);

    fn apply(self, tx: &mut Tx<'_>) -> Result<Self::Reply, Refusal> {
        if !tx.state.is_open() {
            return Err(Refusal::Closed);
        }
        let overriding = self.overriding.map(|given| settled(given, tx.state)).transpose()?;
        let given = tx.state.versioning.as_ref().and_then(|versioning| versioning.overriding.clone());
        if given == overriding {
            return Ok((overriding, false));
        }
        tx.occur(Attributes::WorkflowExecutionOptionsUpdatedEventAttributes(
            WorkflowExecutionOptionsUpdatedEventAttributes {
                unset_versioning_override: overriding.is_none(),
                versioning_override: overriding.clone(),
                identity: self.identity,
                ..Default::default()
            },
        ));
        let before = (tx.state.version(), tx.state.behavior());
        let versioning = tx.state.versioning.get_or_insert_default();
        versioning.overriding.clone_from(&overriding);
        let named = versioning.overriding_version().or_else(|| match &overriding {
            None => versioning.version.clone(),
            Some(_) => None,
        });
        match (named, &overriding) {
            (Some(version), _) => tx.state.deployment_name = version.deployment,
            (None, None) => tx.state.deployment_name.clear(),
            (None, Some(_)) => {}
        }
        // What was on its way to another version goes where it is wanted now; a started task may end where it is.
        let transition = tx.state.versioning.as_mut().and_then(|versioning| versioning.transition.take());
        if before != (tx.state.version(), tx.state.behavior()) {
            tx.state.sticky = None;
            workflow_task::requeue(tx);
        } else if let Some(versioning) = &mut tx.state.versioning {
            versioning.transition = transition;
        }
        activity::requeue(tx);
        tx.effects.listed = true;
        Ok((overriding, true))
    }
}

/// A pinned override that names no version means the one that the run is pinned to.
fn settled(mut given: VersioningOverride, state: &RunState) -> Result<VersioningOverride, Refusal> {
    if let Some(Override::Pinned(pinned)) = &mut given.r#override
        && pinned.version.is_none()
    {
        match state.pinned_to() {
            Some(version) => pinned.version = Some(version.wire()),
            None => return Err(Refusal::NotPinned),
        }
    }
    Ok(given)
}

/// An override with what deprecated fields say in the place where it is said today.
#[expect(deprecated, reason = "older clients still use the fields")]
pub fn modern(given: VersioningOverride) -> VersioningOverride {
    let pinned = |version: Option<Version>| {
        let version = version.map(|version| version.wire());
        Override::Pinned(PinnedOverride { behavior: PinnedOverrideBehavior::Pinned as i32, version })
    };
    let old = match given.behavior() {
        Behavior::AutoUpgrade => Some(Override::AutoUpgrade(true)),
        Behavior::Pinned => Some(pinned(match &given.deployment {
            Some(old) => Some(Version { deployment: old.series_name.clone(), build_id: old.build_id.clone() }),
            None => Version::from_dotted(&given.pinned_version),
        })),
        Behavior::Unspecified => None,
    };
    VersioningOverride { r#override: given.r#override.or(old), ..Default::default() }
}

/// What is wrong with an override, and the version that it names.
pub fn named_version(given: &VersioningOverride) -> Result<Option<Version>, &'static str> {
    match &given.r#override {
        Some(Override::AutoUpgrade(true)) => Ok(None),
        Some(Override::AutoUpgrade(false)) => Err("auto-upgrade override must be true"),
        Some(Override::Pinned(PinnedOverride { behavior, .. }))
            if *behavior == PinnedOverrideBehavior::Unspecified as i32 =>
        {
            Err("must specify pinned override behavior if override is pinned.")
        }
        Some(Override::Pinned(PinnedOverride { version, .. })) => Ok(Version::of(version.as_ref())),
        Some(Override::OneTime(OneTimeOverride { target_deployment_version })) => {
            match Version::of(target_deployment_version.as_ref()) {
                Some(version) => Ok(Some(version)),
                None => Err("must provide target deployment version if override is one-time."),
            }
        }
        None => Err("override behavior is required"),
    }
}

/// Whether an override is to pin a run.
pub fn is_pinned(given: &VersioningOverride) -> bool {
    matches!(given.r#override, Some(Override::Pinned(_)))
}

/// What a run begins with, as its first event says.
pub fn begun(started: &Started) -> Option<Versioning> {
    let auto_upgrade = started.inherited_auto_upgrade_info.as_ref();
    if started.versioning_override.is_none() && started.inherited_pinned_version.is_none() && auto_upgrade.is_none() {
        return None;
    }
    let mut versioning = Versioning { overriding: started.versioning_override.clone(), ..Default::default() };
    if let Some(pinned) = &started.inherited_pinned_version {
        versioning.behavior = Behavior::Pinned as i32;
        versioning.version = Version::of(Some(pinned));
        versioning.declined = started.declined_target_version_upgrade.as_ref().map(|declined| Target {
            version: Version::of(declined.deployment_version.as_ref()),
            revision: declined.revision_number,
        });
    }
    if let Some(info) = auto_upgrade {
        versioning.behavior = Behavior::AutoUpgrade as i32;
        versioning.version = Version::of(info.source_deployment_version.as_ref());
        versioning.revision = info.source_deployment_revision_number;
        versioning.initially = info.continue_as_new_initial_versioning_behavior;
    }
    Some(versioning)
}

/// Why a run begins that another one passes its version on to.
pub enum Heir {
    ContinueAsNew(Initially),
    /// The first event of the run that is tried again.
    Retry(Box<Started>),
    Child,
}

/// Writes into the first event of a run what it inherits of the run in `state`. `in_version`: workers of that run's version
/// take workflow tasks from the new run's queue.
pub fn pass_on(state: &RunState, heir: Heir, in_version: bool, started: &mut Started) {
    started.versioning_override = None;
    started.inherited_pinned_version = None;
    started.inherited_auto_upgrade_info = None;
    started.declined_target_version_upgrade = None;
    let Some(versioning) = state.versioning.as_ref().filter(|_| in_version) else { return };
    let (behavior, version) = (state.behavior(), state.version());
    let (pins, initially) = match &heir {
        Heir::Child => (true, Initially::Unspecified),
        Heir::ContinueAsNew(initially) => (*initially == Initially::Unspecified, *initially),
        Heir::Retry(first) => (first.inherited_pinned_version.is_some(), versioning.initially()),
    };
    let upgrades = match &heir {
        Heir::ContinueAsNew(_) => behavior == Behavior::AutoUpgrade || !pins,
        Heir::Retry(_) | Heir::Child => behavior == Behavior::AutoUpgrade,
    };
    if behavior == Behavior::Pinned && pins {
        started.inherited_pinned_version = version.as_ref().map(Version::wire);
        if matches!(heir, Heir::ContinueAsNew(_)) {
            let declined = versioning.notified.as_ref().or(versioning.declined.as_ref());
            started.declined_target_version_upgrade = declined.map(|target| DeclinedTargetVersionUpgrade {
                deployment_version: target.version.as_ref().map(Version::wire),
                revision_number: target.revision,
            });
        }
    } else if upgrades && behavior != Behavior::Unspecified && versioning.revision != 0 {
        started.inherited_auto_upgrade_info = version.map(|version| InheritedAutoUpgradeInfo {
            source_deployment_version: Some(version.wire()),
            source_deployment_revision_number: versioning.revision,
            continue_as_new_initial_versioning_behavior: initially as i32,
        });
    }
    let is_inherited = |given: &&VersioningOverride| match given.r#override {
        Some(Override::Pinned(_)) => true,
        Some(Override::OneTime(_)) => matches!(heir, Heir::Child),
        _ => false,
    };
    started.versioning_override = versioning.overriding.as_ref().filter(is_inherited).cloned();
}
