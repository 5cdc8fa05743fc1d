//! The session as clients see it.

use domain::session::{Checkout, Resource, ResourceKind};
use domain::{Status, Time};
use schemars::JsonSchema;
use serde::{Serialize, Serializer};
use serde_json::Value;

use super::agent;
use super::current::Current;
use super::row::SessionRow;
use crate::app::App;
use crate::error::Result;
use crate::metadata::Metadata;
use crate::resources::agents::snapshot::AgentSnapshot;
use crate::resources::events::public::PublicUsage;

#[derive(Serialize, JsonSchema)]
pub struct Session {
    id: String,
    #[serde(rename = "type")]
    #[schemars(extend("const" = "session"))]
    kind: &'static str,
    status: &'static str,
    title: Option<String>,
    #[schemars(with = "AgentSnapshot")]
    agent: Value,
    environment_id: String,
    /// Always null: sessions are not made by deployments yet.
    deployment_id: (),
    vault_ids: Vec<String>,
    resources: Vec<PublicResource>,
    metadata: Metadata,
    budget: (),
    outcome_evaluations: [(); 0],
    stats: Stats,
    usage: PublicUsage,
    created_at: Time,
    updated_at: Time,
    archived_at: Option<Time>,
}

#[derive(Serialize, JsonSchema)]
pub struct Stats {
    pub active_seconds: Seconds,
    pub duration_seconds: Seconds,
}

/// Kept in milliseconds, shown in seconds.
#[derive(JsonSchema)]
pub struct Seconds(#[schemars(with = "f64")] pub u64);

impl Serialize for Seconds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.0 as f64 / 1000.0)
    }
}

#[derive(Serialize, JsonSchema)]
pub struct PublicResource {
    id: String,
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    file_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    checkout: Option<Checkout>,
    /// Ours.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    push: Vec<String>,
    mount_path: String,
    created_at: Time,
    updated_at: Time,
}

impl From<&Resource> for PublicResource {
    fn from(resource: &Resource) -> Self {
        let shown = Self {
            id: resource.id.clone(),
            kind: "git_bundle",
            file_id: None,
            url: None,
            checkout: None,
            push: Vec::new(),
            mount_path: resource.mount_path.clone(),
            created_at: resource.created_at,
            updated_at: resource.created_at,
        };
        match resource.kind.clone() {
            ResourceKind::GitBundle { .. } => shown,
            ResourceKind::File { file_id, .. } => Self { kind: "file", file_id: Some(file_id), ..shown },
            ResourceKind::GithubRepository { url, checkout, push, .. } => {
                Self { kind: "github_repository", url: Some(url), checkout, push, ..shown }
            }
        }
    }
}

impl Session {
    pub async fn of(app: &App, row: &SessionRow, current: Current) -> Result<Self> {
        let agent = agent::public(&*app.blobs, &current.summary.attributes.agent.snapshot).await?;
        Ok(Self::with_agent(row, current, agent, super::moment(app.clock.now())))
    }

    fn with_agent(row: &SessionRow, current: Current, agent: Value, now: Time) -> Self {
        let Current { summary, status, .. } = current;
        let stats = Stats::of(&summary, status, now);
        let archived_at = row.archived_at.map(super::moment);
        let attributes = summary.attributes;
        Self {
            id: row.id.clone(),
            kind: "session",
            status: status.public(),
            title: attributes.title,
            agent,
            environment_id: attributes.environment_id,
            deployment_id: (),
            vault_ids: attributes.vault_ids,
            resources: attributes.resources.iter().map(PublicResource::from).collect(),
            metadata: attributes.metadata,
            budget: (),
            outcome_evaluations: [],
            stats,
            usage: PublicUsage::from(&summary.usage),
            created_at: summary.created_at,
            // What a fork's log ends with may lie long before it.
            updated_at: summary.last_time.max(summary.created_at).max(archived_at.unwrap_or(summary.last_time)),
            archived_at,
        }
    }
}

impl Stats {
    /// A session that works has lasted until now, one that rests until it came to rest.
    pub fn of(summary: &domain::Summary, status: Status, now: Time) -> Self {
        let works = matches!(status, Status::Running | Status::Rescheduling);
        let until = if works { now.max(summary.last_time) } else { summary.last_time };
        Self {
            active_seconds: Seconds(summary.active_ms_at(until)),
            duration_seconds: Seconds(until.since(summary.created_at)),
        }
    }
}
