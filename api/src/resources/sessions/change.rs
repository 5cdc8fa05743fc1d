//! Changing a session's attributes: checked here, sent as a signal, shown as accepted.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use domain::agent::AgentFacts;
use domain::content::Json as Content;
use domain::limits::INLINE_BYTES_MAX;
use domain::session::{AgentChange, Change, Resource, StrategyChange, signal};
use log::blobs;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use store::{Batch, Durability};
use tracing::debug;

use super::current::{self, Current};
use super::object::Session;
use super::{agent, create, mcp, row};
use crate::app::App;
use crate::body::{JsonBody, Patch};
use crate::error::{ApiError, Result};
use crate::gateway::{self, WORKFLOW_TASK_TIMEOUT};
use crate::ids;
use crate::metadata::{self, MetadataPatch};
use crate::resources::agents::snapshot::{AgentSnapshot, Overrides};
use crate::resources::agents::tools::{McpServer, ToolParam};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateSession {
    #[serde(default)]
    title: Patch<String>,
    #[serde(default)]
    metadata: Patch<MetadataPatch>,
    #[serde(default)]
    agent: Patch<AgentParam>,
    #[serde(default)]
    #[schemars(skip)]
    budget: Patch<Value>,
    #[serde(default)]
    #[schemars(skip)]
    vault_ids: Patch<Value>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "AgentChange")]
struct AgentParam {
    #[serde(default)]
    tools: Patch<Vec<ToolParam>>,
    #[serde(default)]
    mcp_servers: Patch<Vec<McpServer>>,
}

pub async fn update(
    State(app): State<App>,
    Path(id): Path<String>,
    JsonBody(body): JsonBody<UpdateSession>,
) -> Result<Json<Session>> {
    let row = row::find(&app, &id).await?;
    if body.vault_ids != Patch::Keep {
        return Err(ApiError::field("vault_ids", "cannot be changed"));
    }
    if body.budget != Patch::Keep {
        return Err(ApiError::field("budget", "a session that was created without a budget can have none"));
    }
    let (_, current) = apply(&app, &id, async |current| Ok((changes(&app, body, current).await?, ()))).await?;
    Ok(Json(Session::of(&app, &row, current).await?))
}

/// What of the body differs from the session as it is.
async fn changes(app: &App, body: UpdateSession, current: &Current) -> Result<Edit> {
    let attributes = &current.summary.attributes;
    let mut edit = Edit::default();
    match body.title {
        Patch::Keep => {}
        Patch::Clear => edit.title = Some(None),
        Patch::Set(title) => {
            create::check_title(Some(&title))?;
            edit.title = Some(Some(title));
        }
    }
    edit.title = edit.title.filter(|title| *title != attributes.title);
    if let Some(patch) = body.metadata.not_null("metadata")? {
        let patched = metadata::check(metadata::patched(attributes.metadata.clone(), patch))?;
        edit.metadata = Some(patched).filter(|patched| *patched != attributes.metadata);
    }
    if let Some(param) = body.agent.not_null("agent")? {
        edit.agent = changed_agent(app, param, current).await?;
    }
    Ok(edit)
}

async fn changed_agent(app: &App, param: AgentParam, current: &Current) -> Result<Option<AgentChange>> {
    if !current.status.is_idle() {
        let message = format!("the session is {}: its agent can be changed while it is idle", current.status.public());
        return Err(ApiError::field("agent", message));
    }
    let known = agent::public(&*app.blobs, &current.summary.attributes.agent.snapshot).await?;
    let known: AgentSnapshot = serde_json::from_value(known).map_err(ApiError::internal)?;
    let overrides = Overrides { tools: param.tools, mcp_servers: param.mcp_servers, ..Overrides::default() };
    let changed = known.clone().overridden(overrides)?;
    if changed == known {
        return Ok(None);
    }
    // How the session makes its requests is its own, not the agent's.
    let AgentFacts { strategy, shims_off, .. } = current.summary.attributes.agent.clone();
    let facts = AgentFacts { strategy, shims_off, ..agent::keep(app, &changed).await? };
    agent::check_hands(&facts, current.summary.attributes.self_hosted)?;
    let mut public = Content::Inline { value: serde_json::to_value(&changed).map_err(ApiError::internal)? };
    blobs::offload_json(&*app.blobs, &mut public, INLINE_BYTES_MAX).await?;
    Ok(Some(AgentChange { facts, public }))
}

/// A change without its id.
#[derive(Default)]
pub struct Edit {
    pub title: Option<Option<String>>,
    pub metadata: Option<metadata::Metadata>,
    pub agent: Option<AgentChange>,
    pub resources: Option<Vec<Resource>>,
    pub strategy: Option<Box<StrategyChange>>,
}

impl Edit {
    fn is_empty(&self) -> bool {
        let Edit { title, metadata, agent, resources, strategy } = self;
        title.is_none() && metadata.is_none() && agent.is_none() && resources.is_none() && strategy.is_none()
    }
}

/// How long a change may take until the log shows it, before it is answered all the same: a workflow task that is worked on
/// meanwhile ends in half of that, one way or the other.
const SHOWN_MAX: Duration = WORKFLOW_TASK_TIMEOUT.saturating_mul(2);

/// Sends the change that `decide` makes of the session as it is. One after the other: a change carries whole values,
/// and the next one has to see this one in the log.
pub async fn apply<T>(
    app: &App,
    id: &str,
    decide: impl AsyncFnOnce(&Current) -> Result<(Edit, T)>,
) -> Result<(T, Current)> {
    let followed = app.session(id);
    let _listening = followed.subscribe();
    followed.follow();
    let _turn = followed.turn().await;
    let (told, current, sent) = {
        let log = followed.fresh().await?;
        let mut current = Current::of(&log).ok_or_else(|| ApiError::not_found("session", id))?;
        if current.is_over() {
            return Err(ended());
        }
        let (edit, told) = decide(&current).await?;
        if edit.is_empty() {
            return Ok((told, current));
        }
        keep(app, id, &edit).await?;
        let announced = match &edit.agent {
            Some(agent) => mcp::announce(app, id, &agent.facts, &current.summary.attributes).await?,
            None => None,
        };
        let Edit { title, metadata, agent, resources, strategy } = edit;
        let change = Change { id: ids::new(ids::CHANGE), title, metadata, agent, resources, strategy };
        let sent = followed.expect(&change.id);
        match app.gateway.signal(id, signal::CHANGE, &change, &change.id).await {
            Ok(()) => {}
            Err(gateway::Error::NotFound { .. }) => return Err(ended()),
            Err(error) => {
                if let Some(announced) = announced {
                    announced.withdraw(app, id).await;
                }
                return Err(error.into());
            }
        }
        if let Some(announced) = announced {
            announced.settle(app, id);
        }
        let status = current.status;
        current::apply(&mut current.summary.attributes, &change, status);
        (told, current, sent)
    };
    followed.follow();
    if tokio::time::timeout(SHOWN_MAX, sent.shown()).await.is_err() {
        debug!("a change is kept by the server and not shown yet");
    }
    Ok((told, current))
}

pub fn ended() -> ApiError {
    ApiError::invalid("the session has ended and cannot be changed")
}

/// Who needs the blobs of a change; before it is sent.
async fn keep(app: &App, id: &str, edit: &Edit) -> Result<()> {
    let Some(agent) = &edit.agent else { return Ok(()) };
    let public = match &agent.public {
        Content::Blob(blob) => Some(blob),
        Content::Inline { .. } => None,
    };
    let blobs = [Some(&agent.facts.snapshot), public].into_iter().flatten().filter_map(|blob| blob.blob.parse().ok());
    let batch = blobs.fold(Batch::new(), |batch, digest| row::refer(batch, digest, id));
    Ok(app.catalog.write(batch, Durability::Synced).await?)
}
